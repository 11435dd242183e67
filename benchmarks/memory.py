"""Peak memory of one BAOAB run of ten million parameters; prints JSON.

    python benchmarks/memory.py harmonic
    python benchmarks/memory.py network

Run in a process of its own by `network.py`.  A small run of the same kind comes
first, so that libraries and compiled kernels are in memory and not counted; then the
data; what is resident by then is taken off.  Linux only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

SMALL = {"harmonic": 4096, "network": (20, 30, 10)}
LARGE = {"harmonic": 10_000_000, "network": (1000, 3000, 2000, 500)}
STEPS = 5


def resident(field: str) -> int:
    """Bytes resident now (VmRSS) or at most since the last reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def reset_peak() -> None:
    """Let VmHWM start again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def potential(kind: str, size: Any, rows: int, batch: int) -> Any:
    """A harmonic potential, or a classifier's posterior on minibatches."""
    from mdnet import potentials

    if kind == "harmonic":
        return potentials.Harmonic(stiffness=1.0, size=size)
    g = np.random.default_rng(0)
    X = g.random((rows, size[0]), dtype=np.float32)
    y = g.integers(size[-1], size=rows)
    net = potentials.MLP(list(size), activation="relu")
    full = potentials.Posterior(net, likelihood="categorical", data=(X, y))
    return full.minibatch(batch)


def simulate(target: Any) -> Any:
    """Make a simulation, as a user would."""
    import mdnet
    from mdnet import integrators

    scheme = integrators.BAOAB(dt=1e-4)
    return mdnet.Simulation(target, scheme, backend="cpu")


def main(kind: str) -> None:
    """Measure and print."""
    simulate(potential(kind, SMALL[kind], 64, 16)).run(STEPS)
    target = potential(kind, LARGE[kind], 1000, 100)
    unit = 4 * target.size
    before = resident("VmRSS")
    reset_peak()
    sim = simulate(target)
    made = resident("VmHWM") - before
    reset_peak()
    sim.run(STEPS)
    ran = resident("VmHWM") - before
    figures = {
        "parameters": target.size,
        "construction": made / unit,
        "run": ran / unit,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
