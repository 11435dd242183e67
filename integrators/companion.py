"""What an integrator keeps beside positions and momenta, and does between launches.

Thermostats, acceptance tests and swaps of replicas need sums over all parameters
before they can go on.  An integrator that has them returns a `Companion` from
``bind``; the stepper then calls it where its sequence says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.typing import Array, Layout

if TYPE_CHECKING:
    from mdnet.backend import Backend
    from mdnet.kernels.engine import Engine
    from mdnet.state import State

__all__ = ["CALL", "CLOSE", "FORCE", "LOOP", "Companion", "Context"]

FORCE, CALL, LOOP, CLOSE = -1, -2, -3, -4
"""Codes of ``operations()`` beside those of `mdnet.kernels.letters`.

``CALL`` calls ``Companion.call(column)``; what stands between ``LOOP`` and ``CLOSE``
runs ``Companion.repeats(step)`` times.
"""


@dataclass(frozen=True, slots=True)
class Context:
    """What a companion works with: the pieces of one simulation.

    Attributes
    ----------
    backend : Backend
    engine : Engine
        Launches programs of letters; its ``edges`` and ``groups`` cut parameters into
        blocks, whose sums are in ``state.sums``.
    state : State
    evaluator : Evaluator
        Forces and energies of the potential.
    inverse_mass : (1,) or (D,) float64
        On the device.
    layout : mapping
        Tensors of the potential.
    seed : int
    """

    backend: Backend
    engine: Engine
    state: State
    evaluator: Any
    inverse_mass: Array
    layout: Layout
    seed: int


class Companion:
    """Base of what `bind` returns; every method does nothing.

    Attributes
    ----------
    context : Context
    variables : dict of arrays
        All that a bitwise restart needs beside the state; written in place, never
        replaced.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.variables: dict[str, np.ndarray[Any, Any]] = {}

    def coefficients(self, step: int) -> np.ndarray[Any, Any] | None:
        """Coefficients (n, R, G, 2) in place of the integrator's, or None.

        Asked for before each launch, so that `call` may change them.
        """
        del step
        return None

    def call(self, index: int, step: int) -> None:
        """Do what the sequence asks for at ``CALL`` number ``index``."""

    def repeats(self, step: int) -> int:
        """How often the loop of the sequence runs in the step after ``step``."""
        del step
        return 1

    def started(self) -> None:
        """Positions or momenta were set from outside: begin anew."""

    def scalars(self) -> dict[str, np.ndarray[Any, Any]]:
        """More series for the record, (R,) float64 each, at the present step."""
        return {}
