r"""Stochastic velocity rescaling: one random factor for all momenta of a group.

The kinetic energy K of n parameters follows

.. math::
    dK = \frac{nT/2 - K}{\tau}\,dt + 2\sqrt{\frac{K\,T}{2\tau}}\,dW,

whose exact flow over h multiplies the momenta by :math:`\alpha`,

.. math::
    \alpha^2 = x^2 + \frac{(1-c)T}{2K} S,\quad
    x = \sqrt c + \sqrt{\frac{(1-c)T}{2K}}\,R,\quad c = e^{-h/\tau},

with R normal, S chi-square of n - 1 degrees of freedom and the sign of alpha that of
x: what a bath of friction :math:`1/2\tau` does to K, at a random change to momenta
that falls as 1/sqrt(n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.integrators import grouping, holding
from mdnet.integrators.companion import Companion, Context
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.typing import Layout

if TYPE_CHECKING:
    from mdnet.state import State

__all__ = ["Rescaling", "StochasticVelocityRescaling"]


@dataclass(frozen=True, eq=False)
class Rescaling(Splitting):
    """What `StochasticVelocityRescaling` returns; parameters are described there."""

    relaxation_time: Any = 1.0
    groups: str = "all"
    SCALARS: ClassVar[tuple[str, ...]] = ("dt", "temperature", "relaxation_time")

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self, holds=True)
        grouping.check_groups(self.groups, ("all", "layer"))

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step, with a call before its bath."""
        calls = grouping.with_calls(super().operations())
        return holding.with_holds(self, calls)

    def bounds(self, layout: Layout) -> npt.NDArray[np.int64] | None:
        """Where groups begin."""
        return grouping.bounds(self.groups, layout, self.free(layout))

    def bind(self, context: Context) -> Companion:
        """Return what draws the factors."""
        return holding.hold(self, context, _Factors(self, context))

    def conserved(self, state: State) -> npt.NDArray[np.float64]:
        """Energy less the heat taken so far, (R,): constant to O(dt^2)."""
        total: npt.NDArray[np.float64] = (
            state.potential_energy() + state.kinetic_energy - state.heat
        )
        return total

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "StochasticVelocityRescaling")


KINDS["StochasticVelocityRescaling"] = grouping.remake(Rescaling)


class _Factors(grouping.Bath):
    """Draws the factor of each group's momenta."""

    def __init__(self, integrator: Rescaling, context: Context) -> None:
        super().__init__(integrator, context)
        from mdnet.kernels.variates import chi_squares

        self._draw = chi_squares
        self._key = np.array(random.seed_words(context.seed), np.uint64)
        self._count = context.backend.to_host(self.dof)
        self._normal, self._rest = np.empty((2, *self.bath.shape[:2]))

    def started(self) -> None:
        """Refuse momenta that no factor can move."""
        self.refuse_rest(self.integrator.name)

    def scalars(self) -> dict[str, np.ndarray]:
        """Return the conserved quantity."""
        return {"conserved": self.integrator.conserved(self.context.state)}

    def call(self, index: int, step: int) -> None:
        """Draw the factors of a step."""
        del index
        xp, asarray = self.context.backend.xp, self.context.backend.asarray
        stream = random.STREAM_THERMOSTAT
        self._draw(self._count, step, stream, self._key, self._normal, self._rest)
        h, T, time = (self.row(name, step) for name in self.integrator.SCALARS)
        width = -xp.expm1(-h / time)[:, None] * T[:, None] / self.twice_kinetic()
        x = xp.exp(-0.5 * h / time)[:, None] + xp.sqrt(width) * asarray(self._normal)
        alpha = xp.sqrt(x * x + width * asarray(self._rest))
        self.bath[..., 0] = xp.copysign(alpha, x)


def StochasticVelocityRescaling(
    dt: Any,
    temperature: Any = 1.0,
    relaxation_time: Any = 1.0,
    groups: str = "all",
    mass: Any = 1.0,
    frozen: Any = (),
) -> Rescaling:
    """Canonical sampling through stochastic velocity rescaling, on the word BAOAB.

    The canonical law, with paths close to those without a thermostat where a group has
    many parameters.  The series ``conserved`` holds the energy less the heat taken,
    which drifts as dt^2.  One force evaluation a step; stable for dt < 2 / omega_max.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step.
    temperature : float, (R,) array or schedule
        T >= 0 in energy units (k_B = 1).
    relaxation_time : float, (R,) array or schedule
        tau > 0 of the kinetic energy.
    groups : {"all", "layer"}
        Which parameters share a factor: all, or those of a tensor.
    mass : float or (D,) array
    frozen : names of tensors or (D,) bool
        Weights that never move.

    Raises
    ------
    SchemeError
        A parameter out of range; momenta at rest when a simulation starts.

    References
    ----------
    G. Bussi, D. Donadio, M. Parrinello, J. Chem. Phys. 126, 014101 (2007),
    doi:10.1063/1.2408420, eqs. (7) and (A7).
    """
    return Rescaling(
        "BAOAB",
        dt,
        temperature,
        0.0,
        mass,
        name="StochasticVelocityRescaling",
        relaxation_time=relaxation_time,
        groups=groups,
        frozen=frozen,
    )
