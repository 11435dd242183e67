"""The command line: ``mdnet demo``, ``info``, ``report``, ``check``, ``bench`` ..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mdnet._version import __version__
from mdnet.errors import MdnetError

__all__ = ["main"]


def _demo(options: argparse.Namespace) -> int:
    from mdnet import demo

    demo.run(
        replicas=options.replicas,
        steps=options.steps,
        out=options.out,
        seed=options.seed,
        backend=options.backend,
    )
    return 0


def _info(options: argparse.Namespace) -> int:
    from mdnet.io.reader import open_trajectory

    with open_trajectory(options.file) as run:
        print(run.info())
    return 0


def _report(options: argparse.Namespace) -> int:
    from mdnet import plotting
    from mdnet.io.reader import open_trajectory

    out = options.out or f"{options.file}.png"
    with open_trajectory(options.file) as run:
        plotting.report(run, out)
    print(f"wrote {out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Integrity of the file, then its thermometers and ledger."""
    from mdnet import analysis
    from mdnet.io.reader import open_trajectory

    with open_trajectory(options.file) as run:
        problems = run.check()
        for problem in problems:
            print(f"problem: {problem}")
        if not problems:
            print(f"{options.file}: {len(run)} frames, whole and readable")
        if "potential_energy" in run and len(run):
            law = analysis.first_law(run)
            print(
                f"first law: {law.verdict}, largest relative residual "
                f"{law.residual:.1e} (tolerance {law.tolerance:.0e})"
            )
            print(analysis.temperatures(run).table())
    return 1 if problems else 0


def _cite(options: argparse.Namespace) -> int:
    from mdnet import citations
    from mdnet.io.reader import open_trajectory

    with open_trajectory(options.file) as run:
        print(citations.bibtex(run), end="")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from mdnet import bench

    for line in bench.run(options.backend, options.seconds):
        print(line, flush=True)
    return 0


def _devices(_: argparse.Namespace) -> int:
    from mdnet.backend import devices

    for device in devices():
        memory = device.get("memory")
        size = f", {memory / 2**30:.0f} GiB" if memory else ""
        note = f" ({device['note']})" if "note" in device else ""
        print(f"{device['kind']}: {device['name']}{size}{note}")
    return 0


def _table(_: argparse.Namespace) -> int:
    from mdnet import integrators

    print(integrators.table())
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="mdnet", description="Molecular dynamics for neural networks."
    )
    top.add_argument("--version", action="version", version=f"mdnet {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="sample a network's posterior on handwritten digits"
    )
    demo.add_argument("--replicas", type=int, default=16)
    demo.add_argument("--steps", type=int, default=None, help="sampling steps")
    demo.add_argument("--out", default=".", help="folder of demo.h5md and demo.png")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto")
    demo.set_defaults(action=_demo)
    for name, action, text in (
        ("info", _info, "what a trajectory holds"),
        ("check", _check, "a trajectory's integrity, ledger and temperatures"),
        ("cite", _cite, "BibTeX of what a trajectory rests on"),
        ("report", _report, "draw a trajectory's energy, temperatures, relaxation"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("file")
        if name == "report":
            command.add_argument("--out", help="figure to write (FILE.png)")
        command.set_defaults(action=action)
    bench = commands.add_parser(
        "bench", help="speed on this machine, beside its limits and installed peers"
    )
    bench.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto")
    bench.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    bench.set_defaults(action=_bench)
    devices = commands.add_parser("devices", help="what this machine offers")
    devices.set_defaults(action=_devices)
    table = commands.add_parser("table", help="the integrators and what they sample")
    table.set_defaults(action=_table)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.action(options)
    except MdnetError as error:
        print(f"mdnet: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
