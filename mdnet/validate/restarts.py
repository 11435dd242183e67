"""A run that was stopped, saved and resumed against one that was not: bit for bit."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.errors import SchemeError
from mdnet.validate._runs import Precision, report, simulate

if TYPE_CHECKING:
    from mdnet.typing import Potential

__all__ = ["Restart", "restart"]


@dataclass(frozen=True, slots=True)
class Restart:
    """A resumed run against an uninterrupted one.

    Attributes
    ----------
    passed : bool
        Whether every array is equal, bit for bit.
    differences : dict
        Largest difference of each array of the state that is not equal (infinite where
        it is missing or has another shape).
    compared : tuple of str
        All arrays compared.
    steps : int
        Before and after the stop.
    """

    passed: bool
    differences: dict[str, float]
    compared: tuple[str, ...]
    steps: int

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return report(
            "restart",
            self.passed,
            f"{self.steps} steps, a restart and {self.steps} more against "
            f"{2 * self.steps}",
            f"compared bit for bit: {', '.join(self.compared)}",
            *(f"{name} differs by {d:.1e}" for name, d in self.differences.items()),
        )


def restart(
    potential: Potential,
    integrator: Any,
    steps: int = 50,
    *,
    positions: Any = None,
    replicas: int = 2,
    seed: int = 0,
    precision: Precision = "single",
) -> Restart:
    """Run 2n steps, and n, save, resume, n: the same to the last bit.

    Positions, momenta, the ledger, whatever else the restart slot of a trajectory
    holds, and the scalars of the last step are compared.

    Parameters
    ----------
    potential : Potential
        Its forces may come from minibatches, if those are functions of the step.
    integrator : Splitting or alike
    steps : int
        n.
    positions : (R, D) or (D,) array, optional
        Start; drawn from the potential if not given.
    replicas, seed : int
    precision : {"single", "mixed", "double"}

    Examples
    --------
    >>> from mdnet import integrators, potentials, validate
    >>> U = potentials.DoubleWell(size=5)
    >>> bool(validate.restart(U, integrators.BAOAB(dt=0.05)))
    True
    """
    from mdnet.simulation import Simulation

    if steps < 1:
        raise SchemeError(f"steps={steps!r}: expected a number >= 1")
    whole = simulate(potential, integrator, replicas, positions, None, seed, precision)
    first = simulate(potential, integrator, replicas, positions, None, seed, precision)
    whole.run(steps)  # read there too: the ledger adds up in the same order
    whole.run(steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5md"
        first.run(steps, trajectory=path, every=steps, thermometers=False)
        again = Simulation.resume(path, potential, integrator)
        again.run(steps)
    one, other = _contents(whole), _contents(again)
    differences = {
        name: _difference(one.get(name), other.get(name))
        for name in {**one, **other}
        if not _equal(one.get(name), other.get(name))
    }
    return Restart(not differences, differences, tuple({**one, **other}), steps)


def _contents(sim: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of the restart slot, its counters, and the scalars."""
    arrays, meta = sim.snapshot()
    counters = {name: np.asarray(value) for name, value in meta.items()}
    return {**arrays, **counters, **sim.scalars()}


def _equal(a: Any, b: Any) -> bool:
    return a is not None and b is not None and np.array_equal(a, b, equal_nan=False)


def _difference(a: Any, b: Any) -> float:
    if a is None or b is None or a.shape != b.shape or a.dtype.kind not in "fiub":
        return float("inf")
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())
