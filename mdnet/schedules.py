"""Scalars that change with the step: accepted wherever an integrator takes a number.

A schedule is any callable ``step -> float or (R,) array``; the ones here are frozen
records, so that they can be written to the file and compared on resume.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mdnet.errors import SchemeError

__all__ = [
    "constant",
    "cosine",
    "cyclic",
    "describe",
    "evaluate",
    "from_description",
    "linear",
    "piecewise",
    "polynomial",
    "reverse",
]


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise SchemeError(f"{name}={value!r}: expected a number of steps >= 1")


@dataclass(frozen=True, slots=True)
class constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:  # noqa: ARG002
        """Return the value at ``step``."""
        return self.value


@dataclass(frozen=True, slots=True)
class linear:
    """From ``start`` to ``stop`` in ``steps`` steps, then ``stop``."""

    start: float
    stop: float
    steps: int

    def __post_init__(self) -> None:
        _positive("steps", self.steps)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        x = min(max(step, 0) / self.steps, 1.0)
        return self.start + (self.stop - self.start) * x


@dataclass(frozen=True, slots=True)
class cosine:
    """Half a cosine from ``start`` to ``stop`` in ``steps`` steps, then ``stop``."""

    start: float
    stop: float
    steps: int

    def __post_init__(self) -> None:
        _positive("steps", self.steps)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        x = min(max(step, 0) / self.steps, 1.0)
        return self.stop + (self.start - self.stop) * 0.5 * (1 + math.cos(math.pi * x))


@dataclass(frozen=True, slots=True)
class cyclic:
    """A cosine from ``start`` to ``stop`` repeated every ``period`` steps.

    References
    ----------
    R. Zhang et al., "Cyclical stochastic gradient MCMC", ICLR 2020, arXiv:1902.03932.
    """

    start: float
    stop: float
    period: int

    def __post_init__(self) -> None:
        _positive("period", self.period)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        x = (step % self.period) / self.period
        return self.stop + (self.start - self.stop) * 0.5 * (1 + math.cos(math.pi * x))


@dataclass(frozen=True, slots=True)
class polynomial:
    """The decay ``scale (offset + step)^(-power)`` of stochastic approximation.

    References
    ----------
    M. Welling, Y. W. Teh, ICML 2011, eq. (2): power in (1/2, 1].
    """

    scale: float
    offset: float
    power: float

    def __post_init__(self) -> None:
        if self.offset <= 0:
            raise SchemeError(f"offset={self.offset!r}: expected a number > 0")

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        decay: float = (self.offset + step) ** -self.power
        return self.scale * decay


@dataclass(frozen=True, slots=True)
class piecewise:
    """Constant pieces: ``values[i]`` from ``boundaries[i-1]`` to ``boundaries[i]``."""

    boundaries: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise SchemeError(
                f"values={self.values!r}: expected one more than the "
                f"{len(self.boundaries)} boundaries"
            )
        if list(self.boundaries) != sorted(self.boundaries):
            raise SchemeError(f"boundaries={self.boundaries!r}: expected rising steps")

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        return self.values[sum(step >= b for b in self.boundaries)]


@dataclass(frozen=True, slots=True)
class reverse:
    """Another schedule run backwards: ``schedule(steps - step)``, then its start.

    The protocol of the reversed experiment, for Crooks' relation: forward and reversed
    runs of ``steps`` steps go through the same values in opposite order.

    Parameters
    ----------
    schedule : schedule
    steps : int, optional
        Length of the experiment; the schedule's own ``steps`` if not given.

    Raises
    ------
    SchemeError
        No schedule, or one without a length of its own and none given.

    Examples
    --------
    >>> forward = linear(0.0, 1.0, 10)
    >>> backward = reverse(forward)
    >>> backward(0), backward(2.5), backward(10)
    (1.0, 0.75, 0.0)
    """

    schedule: Any
    steps: int = 0

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise SchemeError(
                f"schedule={self.schedule!r}: expected a schedule, as linear(0, 1, 100)"
            )
        if self.steps == 0:
            own = getattr(self.schedule, "steps", 0)
            if not own:
                raise SchemeError(
                    f"schedule={self.schedule!r} has no length of its own; pass the "
                    "steps of the experiment, as reverse(schedule, steps=100)"
                )
            object.__setattr__(self, "steps", int(own))
        _positive("steps", self.steps)

    def __call__(self, step: int) -> Any:
        """Return the value at ``step``."""
        return self.schedule(max(self.steps - step, 0))


def evaluate(value: Any, step: int) -> Any:
    """Value of a scalar, array or schedule at ``step``."""
    return value(step) if callable(value) else value


def describe(value: Any) -> Any:
    """JSON-able form of a scalar, array or schedule."""
    if isinstance(value, reverse):
        inner = describe(value.schedule)
        return {"schedule": "reverse", "of": inner, "steps": value.steps}
    if isinstance(value, (constant, linear, cosine, cyclic, polynomial, piecewise)):
        return {"schedule": type(value).__name__, **asdict(value)}
    if callable(value):
        return {"schedule": getattr(value, "__qualname__", type(value).__qualname__)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value


def from_description(record: Any) -> Any:
    """Turn what `describe` returned back into a number, array or schedule.

    Raises
    ------
    SchemeError
        A schedule that is not one of this module.
    """
    if isinstance(record, list):
        return np.array(record, dtype=np.float64)
    if not isinstance(record, dict):
        return record
    kinds = (constant, linear, cosine, cyclic, polynomial, piecewise)
    known = {kind.__name__: kind for kind in kinds}
    name = record["schedule"]
    if name == "reverse":
        return reverse(from_description(record["of"]), record["steps"])
    if name not in known:
        raise SchemeError(
            f"schedule {name!r} is not one of mdnet.schedules: it cannot be read back "
            "from a file; pass the integrator (or protocol) itself"
        )
    fields = {k: v for k, v in record.items() if k != "schedule"}
    if name == "piecewise":
        fields = {k: tuple(v) for k, v in fields.items()}
    made: Any = known[name](**fields)
    return made
