r"""Momenta on a sphere: kicks turn them, at constant kinetic energy.

With d parameters, momenta keep :math:`\sum p^2/m = d\,T`, and a force turns them,

.. math:: \dot p = \frac{d}{d - 1}\left(F - p\,\frac{\sum F p/m}{d\,T}\right),

so that positions sample :math:`e^{-U/T}` along a single orbit, of which the bath
turns the direction now and then.  A kick of length t is solved exactly: with
:math:`g^2 = \sum F^2/m`, :math:`r^2 = d\,T`, :math:`\delta = t\,r\,g/((d - 1)T)`,
:math:`c = \sum F p/m/(r g)`, :math:`\zeta = e^{-\delta}`

.. math:: p \leftarrow \frac{2\zeta p
          + (r/g)(1 - \zeta)(1 + \zeta + c(1 - \zeta)) F}
          {1 + \zeta^2 + c(1 - \zeta^2)},\qquad
          \Delta = (d - 1)\,T\left(\delta + \ln\tfrac{1 + c + (1 - c)\zeta^2}{2}
          \right) .

:math:`\Delta` is booked as kick work and taken out as heat, since the kinetic energy
stays; U plus the kick work is conserved up to the error of the splitting, and the
shadow work of the ledger is that error.

Isokinetic dynamics (`mdnet.integrators.isokinetic`) are the same motion with
:math:`r^2 = (d - 1)\,T`, where the factor d/(d - 1) of the force goes away.

References
----------
J. Robnik, G. B. De Luca, E. Silverstein, U. Seljak, J. Mach. Learn. Res. 24, 1
(2023), arXiv:2212.08549.
J. Robnik, U. Seljak, "Fluctuation without dissipation: microcanonical Langevin Monte
Carlo" (2023), arXiv:2303.18221.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mdnet import schedules
from mdnet.errors import SchemeError
from mdnet.integrators.companion import Companion, Context
from mdnet.typing import Array

__all__ = ["KICK", "PROJECT", "Microcanonical", "Sphere"]

PROJECT, KICK = 100, 101
"""Numbers of the calls: put momenta on the sphere; kick (+ column of its length)."""


class Sphere:
    """What kicks and baths do to momenta on the sphere.

    Parameters
    ----------
    integrator : Splitting
    context : Context
    coefficients : callable
        ``coefficients(step)``, (n, R, ...), in place of the integrator's, or None.

    Raises
    ------
    SchemeError
        One parameter only, frozen weights, or temperatures that differ between
        tensors.
    """

    def __init__(
        self,
        integrator: Any,
        context: Context,
        coefficients: Callable[[int], np.ndarray[Any, Any] | None],
    ) -> None:
        size = context.state.size
        if size < 2:
            raise SchemeError(
                f"{integrator.name} on {size} parameter: its momenta move on a sphere, "
                "which needs two or more; take HMC"
            )
        if integrator.grouped:
            raise SchemeError(
                f"{integrator.name}: expected one temperature, one friction and no "
                "frozen weights; take HMC or BAOAB for these"
            )
        self._integrator, self._context = integrator, context
        # Twice the kinetic energy over T.
        self._weight = size - (integrator.sphere == "isokinetic")
        self._given = coefficients
        self._lengths: dict[int, Array] = {}
        self._compiled = context.backend.name == "cpu"
        self._sums = np.zeros((2, context.state.replicas))

    def forget(self) -> None:
        """Ask for coefficients anew: the step has changed."""
        self._lengths.clear()

    def _length(self, column: int, step: int) -> Array:
        """Length in time of the kick in a column of the coefficients, (R,)."""
        if column not in self._lengths or self._integrator.scheduled:
            context = self._context
            table = self._given(step)
            if table is None:
                table = self._integrator.coefficients(step, context.state.replicas)
            rows = table[column].reshape(context.state.replicas, -1)[:, 0]
            self._lengths[column] = context.backend.asarray(rows)
        return self._lengths[column]

    def _temperature(self, step: int) -> Array:
        value = schedules.evaluate(self._integrator.temperature, step)
        return self._context.backend.xp.asarray(value)

    def call(self, index: int, step: int) -> None:
        """Do the call of a number from `PROJECT` up."""
        if index == PROJECT:
            self.project(step)
        else:
            self._kick(index - KICK, step)

    def project(self, step: int) -> None:
        """Put momenta on the sphere; what they lose or gain is heat."""
        state, engine = self._context.state, self._context.engine
        xp = self._context.backend.xp
        radius = self._weight * self._temperature(step)
        before = state.sums[0].copy()
        factor = xp.sqrt(radius / before.sum(axis=1))
        state.momenta *= factor.astype(state.momenta.dtype)[:, None]
        engine.kinetic(state.momenta, state.sums[0])
        xp.copyto(state.sums[1], state.sums[0])
        state.sums[2] += 0.5 * (state.sums[0] - before)

    def _products(self, F: Array, p: Array, inverse: Array) -> tuple[Array, Array]:
        """Sums of F^2/m and of F p/m, (R,) each."""
        if self._compiled:
            from mdnet.kernels.surfaces import products

            products(F, p, inverse, self._sums)
            return self._sums[0], self._sums[1]
        xp, moved = self._context.backend.xp, F * inverse
        return xp.sum(moved * F, axis=1), xp.sum(moved * p, axis=1)

    def _turn(self, p: Array, F: Array, keep: Array, push: Array) -> None:
        """Make p keep p + push F."""
        if self._compiled:
            from mdnet.kernels.surfaces import turn

            turn(p, F, keep, push)
            return
        p *= keep.astype(p.dtype)[:, None]
        p += push.astype(p.dtype)[:, None] * F

    def _kick(self, column: int, step: int) -> None:
        state, xp = self._context.state, self._context.backend.xp
        p, F = state.momenta, state.forces
        d, T, inverse = state.size, self._temperature(step), self._context.inverse_mass
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            square, along = self._products(F, p, inverse)
            g = xp.sqrt(square)
            r = xp.sqrt(self._weight * T)
            # No force, no turn: any direction will do.
            r_over_g = xp.where(g > 0, r / g, 0.0)
            c = along * r_over_g / (r * r)
            delta = self._length(column, step) * r * g / ((d - 1) * T)
            zeta = xp.exp(-delta)
            below = 1 + zeta**2 + c * (1 - zeta**2)
            keep = 2 * zeta / below
            push = r_over_g * (1 - zeta) * (1 + zeta + c * (1 - zeta)) / below
            self._turn(p, F, keep, push)
            inner = 0.5 * (1 + c + (1 - c) * zeta**2)
            work = (d - 1) * T * (delta + xp.log(inner))
        # Of all parameters together: it has no place of its own.
        state.sums[3, :, 0] += work
        state.sums[2, :, 0] -= work


class Microcanonical(Companion):
    """Microcanonical dynamics without a test; parameters as `Sphere`."""

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(context)
        self._integrator = integrator
        self._sphere = Sphere(integrator, context, lambda _: None)

    def call(self, index: int, step: int) -> None:
        """Kick, or put momenta back on the sphere."""
        self._sphere.call(index, step)

    def started(self) -> None:
        """Put the momenta on the sphere."""
        self._sphere.project(self.context.state.step)
        self.context.state.sums[2] = 0
