"""Weights that are held still under a thermostat.

A thermostat acts on all momenta of its groups.  Where some weights are frozen it is
put inside a `Held`, which takes their momenta away after every kick and bath, and
their forces before the thermostat looks at them: the thermostat is that of the other
weights alone, whose number are its degrees of freedom.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.grouping import Bath
from mdnet.integrators.letters import CODES
from mdnet.typing import Array

__all__ = ["Held", "hold", "with_holds"]

_KICKED, _BATHED = 1000, 1001  # beyond the calls of any thermostat
_Sequence = tuple[tuple[int, int, int], ...]


def with_holds(integrator: Any, sequence: _Sequence) -> _Sequence:
    """Put a call behind every kick and bath, where weights are frozen."""
    if not len(integrator.frozen):
        return sequence
    calls = {CODES["B"]: _KICKED, CODES["O"]: _BATHED}
    out: list[tuple[int, int, int]] = []
    for item in sequence:
        out.append(item)
        if item[0] in calls:
            out.append((CALL, calls[item[0]], 0))
    return tuple(out)


def hold(integrator: Any, context: Context, thermostat: Bath) -> Companion:
    """Return the thermostat, inside a `Held` where weights are frozen."""
    if not len(integrator.frozen):
        return thermostat
    return Held(integrator, context, thermostat)


class Held(Companion):
    """A thermostat of those weights that move.

    Parameters
    ----------
    integrator : Splitting
        With ``frozen``.
    context : Context
    thermostat : Bath
        Its groups have the degrees of freedom of what moves.
    """

    settles = (_BATHED,)

    def __init__(self, integrator: Any, context: Context, thermostat: Bath) -> None:
        super().__init__(context)
        self._thermostat = thermostat
        self.variables = thermostat.variables
        # A thermostat may look at its momenta before its call ends.
        thermostat.settled = self._settled  # type: ignore[method-assign]
        free = integrator.free(context.layout)
        backend = context.backend
        self._mask = backend.asarray(free, context.state.momenta.dtype)
        self._frozen = backend.asarray(np.flatnonzero(~free))
        self._share = free.size / int(free.sum())
        self._twice = backend.xp.zeros_like(context.state.sums[0])

    def coefficients(self, step: int) -> np.ndarray[Any, Any] | None:
        """Those of the thermostat."""
        table: np.ndarray[Any, Any] | None = self._thermostat.coefficients(step)
        return table

    def call(self, index: int, step: int) -> None:
        """Take momenta away, or call the thermostat."""
        if index == _KICKED:
            self._book(3)
        elif index == _BATHED:
            self._settled()
        else:
            self.context.state.forces[:, self._frozen] = 0
            self._thermostat.call(index, step)

    def _settled(self) -> None:
        self._book(2)
        self.context.state.sums[1] = self.context.state.sums[0]

    def _book(self, row: int) -> None:
        """Take momenta away; what the engine booked was for all of them."""
        twice = self.context.state.sums[0]
        self._twice[...] = twice
        self._still()
        self.context.state.sums[row] += 0.5 * (twice - self._twice)

    def _still(self) -> None:
        state = self.context.state
        self.context.backend.xp.multiply(state.momenta, self._mask, out=state.momenta)
        self.context.engine.kinetic(state.momenta, state.sums[0])

    def started(self) -> None:
        """Take momenta away, and begin with what moves."""
        self._still()
        state = self.context.state
        state.sums[1] = state.sums[0]
        self._thermostat.started()

    def restrict(self, positions: Array, forces: Array) -> None:
        """Take the forces on frozen weights away."""
        del positions
        forces[:, self._frozen] = 0

    def scalars(self) -> dict[str, np.ndarray[Any, Any]]:
        """Those of the thermostat; means of weights are means of what moves."""
        found = self._thermostat.scalars()
        for name in ("gradient_noise", "unmatched_noise"):
            if name in found:
                found[name] = found[name] * self._share
        return found
