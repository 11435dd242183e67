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

__all__ = ["CALL", "CLOSE", "FORCE", "LOOP", "NEXT", "Companion", "Context"]

FORCE, CALL, LOOP, CLOSE = -1, -2, -3, -4
"""Codes of ``operations()`` beside those of `mdnet.kernels.letters`.

``CALL`` calls ``Companion.call(column)``; what stands between ``LOOP`` and ``CLOSE``
runs ``Companion.repeats(step)`` times.
"""


NEXT = 256
"""Added to a stream of ``operations()``: draw the noise of the step that follows."""


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
    steady : bool
        Whether `coefficients` change with schedules and in `between` only.
    every : int
        Steps between calls of `between`; 0 for none.
    settles : tuple of int
        Calls that finish a bath: momenta are read after them.
    changed : bool
        Set by `call` where it has changed the coefficients of a ``steady`` one.
    energy : (R,) float64 array or None
        Where to write U along with a force after which positions stay until the next
        call, if not None.
    evaluated : bool
        Set by the stepper once ``energy`` is written.
    """

    steady = False
    every = 0
    settles: tuple[int, ...] = ()
    changed = False
    energy: Array | None = None
    evaluated = False

    def __init__(self, context: Context) -> None:
        self.context = context
        self.variables: dict[str, Array] = {}

    def coefficients(self, step: int) -> np.ndarray[Any, Any] | None:
        """Coefficients (n, R, G, 2) in place of the integrator's, or None.

        Asked for before each launch, so that `call` may change them.
        """
        del step
        return None

    def call(self, index: int, step: int) -> None:
        """Do what the sequence asks for at ``CALL`` number ``index``."""

    def between(self, step: int) -> None:
        """Act between steps, when ``step`` of them are done, a multiple of ``every``.

        Called as the next step begins, so that readings belong to the step before.
        """

    def temperatures(self, step: int) -> np.ndarray[Any, Any] | None:
        """Temperatures (R, G) to draw momenta at, or None for the integrator's."""
        del step
        return None

    def restrict(self, positions: Array, forces: Array) -> None:
        """Put positions where they may be, and forces along it (in a descent)."""

    def repeats(self, step: int) -> int:
        """How often the loop of the sequence runs in the step after ``step``."""
        del step
        return 1

    def started(self) -> None:
        """Begin anew: positions or momenta were set from outside.

        Momenta that are not allowed have to be put right here, and ``sums[:2]`` too.
        """

    def potential_changed(self) -> None:
        """Take note that a protocol has moved the potential, at the same positions."""

    def scalars(self) -> dict[str, np.ndarray[Any, Any]]:
        """More series for the record, (R,) float64 each, at the present step."""
        return {}
