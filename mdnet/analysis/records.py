"""Reading a run: its series on the host, its burn-in, the steps of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mdnet.analysis.timeseries import equilibration
from mdnet.errors import PotentialError, TrajectoryError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = [
    "BurnIn",
    "Window",
    "burn_in_step",
    "degrees_of_freedom",
    "frame_count",
    "frame_steps",
    "is_run",
    "read",
    "target",
    "tensors",
]

BurnIn: TypeAlias = Literal["auto"] | int | float
"""What to leave out at the start: found, a number of steps, or a fraction < 1."""

_SLOW = ("potential_energy", "kinetic_temperature")
"""Series whose relaxation decides the burn-in, in order of preference."""


@dataclass(frozen=True, slots=True)
class Window:
    """A recorded series: ``value`` (T, R, ...), ``step`` and ``time`` (T,)."""

    value: np.ndarray[Any, Any]
    step: np.ndarray[Any, Any]
    time: np.ndarray[Any, Any]

    def since(self, step: int) -> Window:
        """Rows at or after ``step``."""
        keep = self.step >= step
        return Window(self.value[keep], self.step[keep], self.time[keep])


def read(run: Run, name: str, caller: str = "") -> Window:
    """Load a whole series as float64.

    Raises
    ------
    TrajectoryError
        If it was not recorded, or holds nothing.
    """
    if name not in run:
        raise TrajectoryError(
            f"{caller or 'this analysis'} needs the series {name!r}, which this run "
            "does not hold; record it with sim.run(..., observables_every=1), and the "
            "thermometers' series with a trajectory that has thermometers on"
        )
    series = run[name]
    value = np.asarray(series.value, dtype=np.float64)
    if value.ndim == 1:
        value = value[:, None]
    if value.shape[0] == 0:
        raise TrajectoryError(f"series {name!r} is empty: no report was due yet")
    return Window(value, np.asarray(series.step), _one_clock(series.time))


def _one_clock(time: Any) -> np.ndarray[Any, Any]:
    """Times as (T,): those of the first replica where step sizes differ."""
    t = np.asarray(time, np.float64)
    return t if t.ndim == 1 else t[:, 0]


def burn_in_step(run: Run, burn_in: BurnIn = "auto") -> tuple[int, tuple[str, ...]]:
    """First step to keep, and what to warn of.

    Parameters
    ----------
    run : Run
    burn_in : "auto", int or float
        "auto" looks for the stationary part of the potential energy; an integer is a
        number of steps from the first record; a float in [0, 1) is a fraction of the
        steps recorded.

    Raises
    ------
    PotentialError
        Anything else, or a burn-in as long as the run.
    """
    name = next((n for n in _SLOW if n in run), None)
    if name is None:
        name = next((n for n in ("gradient_square", "virial") if n in run), None)
    if name is None:
        return 0, ()
    series = read(run, name)
    first, last = int(series.step[0]), int(series.step[-1])
    if isinstance(burn_in, str):
        if burn_in != "auto":
            raise PotentialError(
                f"burn_in={burn_in!r}: expected 'auto', a number of steps or a "
                "fraction in [0, 1)"
            )
        flat = series.value.reshape(*series.value.shape[:2], -1).sum(-1)
        alive = np.isfinite(flat).all(0)
        if not alive.any():
            raise TrajectoryError(f"series {name!r}: no replica is finite throughout")
        found = equilibration(flat[:, alive])
        return int(series.step[found.start]), tuple(
            f"{name}: {note}" for note in found.warnings
        )
    whole = isinstance(burn_in, (int, np.integer)) and not isinstance(burn_in, bool)
    if whole and burn_in >= 0:
        step = first + int(burn_in)
    elif isinstance(burn_in, float) and 0 <= burn_in < 1:
        step = first + int(np.ceil(burn_in * (last - first)))
    else:
        raise PotentialError(
            f"burn_in={burn_in!r}: expected 'auto', a number of steps >= 0 or a "
            "fraction in [0, 1)"
        )
    if step > last:
        raise PotentialError(
            f"burn_in={burn_in!r} leaves nothing: the run was recorded from step "
            f"{first} to {last}"
        )
    return step, ()


def target(run: Run, given: Any, start: int) -> Window | None:
    """Target temperature as a series (T, R) from ``start`` on.

    ``given`` if there is one, else what the run recorded, else the integrator's
    setting; None for a run without a thermostat.
    """
    value = given
    if value is None and "target_temperature" in run:
        return read(run, "target_temperature").since(start)
    if value is None:
        value = (run.config.get("integrator") or {}).get("temperature")
    if value is None or isinstance(value, dict):
        return None
    try:
        row = np.broadcast_to(np.asarray(value, np.float64), (run.replicas,))
    except ValueError as error:
        raise PotentialError(
            f"temperature {value!r}: expected a number or one for each of the "
            f"{run.replicas} replicas"
        ) from error
    return Window(row[None], np.zeros(1, int), np.zeros(1))


def frame_count(run: Run) -> int:
    """Count the stored frames of positions; 0 where none were stored."""
    try:
        positions = run.positions
    except TrajectoryError:
        return 0
    if positions is None:
        return 0
    shape = getattr(positions, "shape", None)
    return int(shape[0]) if shape is not None else len(positions)


def frame_steps(run: Run) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Step and time of each stored frame: the run's own, or a series' on that grid.

    None when there is neither.
    """
    count = frame_count(run)
    steps, times = getattr(run, "steps", None), getattr(run, "times", None)
    if steps is not None and times is not None and len(steps) == count:
        return np.asarray(steps), _one_clock(times)
    for name in ("gradient_square", "virial", *_SLOW, "kinetic_energy"):
        if name in run:
            series = run[name]
            if len(series.step) == count:
                return np.asarray(series.step), _one_clock(series.time)
    return None


def is_run(x: Any) -> bool:
    """Whether ``x`` is a run, not an array."""
    return hasattr(x, "layout") and hasattr(x, "replicas")


def degrees_of_freedom(run: Run, which: str = "degrees_of_freedom") -> dict[str, int]:
    """Free momenta of each tensor of `tensors`: its size, less what was held.

    ``which="measured"``: the parameters that configurational thermometers read.
    """
    sizes = tensors(run)
    found = run.config.get(which) or {}
    return {name: int(found.get(name, size)) for name, size in sizes.items()}


def tensors(run: Run) -> dict[str, int]:
    """Names and sizes of the tensors that per-layer series have one column for.

    A file that stores the positions of some tensors still has series of all.
    """
    layout = getattr(run, "full_layout", None) or run.layout
    return {name: int(np.prod(shape)) for name, (_, shape) in layout.items()}
