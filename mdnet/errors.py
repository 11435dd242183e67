"""Every error mdnet raises on purpose.

Each message names the argument, the value given, what was expected and the call
that fixes it.  The kinds also derive from the built-in a caller would guess, so
``except ValueError`` keeps working.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "DivergenceError",
    "MdnetError",
    "PotentialError",
    "SchemeError",
    "TrajectoryError",
]


class MdnetError(Exception):
    """Base of all errors raised by mdnet."""


class PotentialError(MdnetError, ValueError):
    """A model, data set, start or potential that does not fit."""


class SchemeError(MdnetError, ValueError):
    """An integrator's word, coefficient or parameter that cannot be integrated."""


class BackendError(MdnetError, RuntimeError):
    """A device, precision or optional package that is not there."""


class TrajectoryError(MdnetError, RuntimeError):
    """A trajectory file that cannot be written, read or resumed."""


class DivergenceError(MdnetError, ArithmeticError):
    """A run whose energy is no longer finite, or has exploded.

    Parameters
    ----------
    message : str
        What happened and what to change.
    step : int
        Step at which the divergence was seen.
    replica : int
        First replica that diverged.
    energy : float
        Last finite potential energy of that replica.
    """

    def __init__(self, message: str, *, step: int, replica: int, energy: float) -> None:
        super().__init__(message)
        self.step = step
        self.replica = replica
        self.energy = energy
