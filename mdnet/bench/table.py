"""The table of ``mdnet bench``: work, ceilings, times, ratios, share of roofline."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from mdnet import backend as _backend
from mdnet.bench.limits import best_time, measure, waiter
from mdnet.bench.peers import PEERS, peers
from mdnet.bench.workloads import WORKLOADS

__all__ = ["run"]

_COLUMNS = ("workload", "MB", "Mop", "MFLOP", "limit", "mdnet", "share", *PEERS)
_WIDTHS = (36, 7, 7, 7, 9, 9, 6, *(15 for _ in PEERS))


def _line(cells: tuple[str, ...]) -> str:
    first, *others = (
        cell.ljust(w) if i == 0 else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return (first + "".join(others)).rstrip()


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds < 1 else f"{seconds:.3f} s"


def run(backend: str = "auto", seconds: float = 1.0) -> Iterator[str]:
    """Yield the lines of the table, each as soon as it is known.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda"}
    seconds : float
        Time spent on each figure, after its first calls.
    """
    device = _backend.resolve(backend, "single")  # type: ignore[arg-type]
    limits = measure(device, seconds)
    yield (
        f"{device.name} ({platform.machine()}, {platform.system()}), wall time a step, "
        "all threads"
    )
    yield (
        f"ceilings: copy {limits.copy / 1e9:.1f} GB/s, "
        f"multiply-adds {limits.fma / 1e9:.0f} G/s, "
        f"matrix product of the BLAS {limits.product / 1e9:.0f} GFLOP/s"
    )
    yield ""
    yield _line(_COLUMNS)
    for work in WORKLOADS:
        sim = work.make(device.name)
        steps = work.steps
        mine = (
            best_time(lambda s=sim, n=steps: s.run(n), seconds, waiter(device)) / steps
        )
        bound = work.bound(limits)
        found = []
        programs = peers(work.kind, steps) if device.name == "cpu" else {}
        for name in PEERS:
            if name not in programs:
                found.append("-")
                continue
            theirs = best_time(programs[name], seconds) / steps
            found.append(f"{_time(theirs)} {theirs / mine:.1f}x")
        yield _line(
            (
                work.name,
                f"{work.bytes / 1e6:.1f}",
                f"{work.operations / 1e6:.1f}",
                f"{work.flops / 1e6:.0f}",
                _time(bound),
                _time(mine),
                f"{bound / mine:.0%}",
                *found,
            )
        )
    yield ""
    yield "MB, Mop, MFLOP: what a step must move and compute; limit: the shortest time"
    yield "that the ceilings allow; share: of that limit which mdnet reaches; 2.0x: the"
    yield "peer takes twice the time of mdnet (-: not installed, or not asked)."
