r"""SGLD with a diagonal preconditioner that follows the size of the gradients.

.. math::
    V \leftarrow \alpha V + (1-\alpha) g^2,\quad G = \frac{1}{\lambda+\sqrt V},\quad
    q \leftarrow q - dt\,G g + dt\,T\,\Gamma + \sqrt{2\,dt\,T\,G}\,z,

with :math:`\Gamma_i = \partial G_i/\partial q_i =
-(1-\alpha)\,G_i^2 g_i H_{ii}/\sqrt{V_i}`.  As for plain SGLD one step is a leapfrog
step of length :math:`\sqrt{2\,dt}` from momenta drawn afresh, here of mass 1/G; momenta
are kept in units of :math:`\sqrt G`, so that their energy is p^2/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import SchemeError
from mdnet.integrators import grouping
from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.integrators.letters import CODES
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.typing import Array

__all__ = ["PreconditionedSGLD"]


@dataclass(frozen=True, eq=False)
class PreconditionedSGLD(Splitting):
    """What ``SGLD(preconditioner="rmsprop")`` returns; see there."""

    decay: float = 0.999
    regularizer: float = 1e-5
    correction: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self)
        if not 0 <= self.decay < 1:
            raise SchemeError(f"decay={self.decay!r}: expected a number in [0, 1)")
        if not self.regularizer > 0:
            raise SchemeError(
                f"regularizer={self.regularizer!r}: expected a number > 0"
            )
        if np.ndim(self.mass) or self.mass != 1:
            raise SchemeError(
                "mass: the preconditioner takes its place; leave one of them out"
            )

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Momenta drawn; half a kick and a drift; the force; half a kick."""
        draw = (CODES["O"], 0, 0)
        return (draw, (CALL, 0, 0), (FORCE_CALL, 0, 0), (CALL, 1, 0))

    def growth(self, curvature: float) -> float:
        """One: the steepest direction says nothing of a preconditioned step."""
        del curvature
        return 1.0

    def bind(self, context: Context) -> Companion:
        """Return what keeps the preconditioner."""
        return _Preconditioner(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "PreconditionedSGLD")


KINDS["PreconditionedSGLD"] = grouping.remake(PreconditionedSGLD)


class _Preconditioner(grouping.Rows):
    """Running mean square of the forces, and the moves that depend on it.

    Variables
    ---------
    mean_square : (R, D) float64
        V, less its bias towards the zero it began with.
    forces_seen : (R,)
    """

    def __init__(self, integrator: PreconditionedSGLD, context: Context) -> None:
        super().__init__(integrator, context)
        backend, state = context.backend, context.state
        shape = tuple(state.positions.shape)
        self.variables = {
            "mean_square": backend.zeros(shape, np.float64),
            "forces_seen": np.zeros(shape[0]),
        }
        self._compiled = backend.name == "cpu"
        size = shape[1] if integrator.correction else 0
        self._pull = backend.zeros((shape[0], size), np.float64)
        self._regularizer = backend.asarray(
            np.full(shape[0], float(integrator.regularizer))
        )

    def started(self) -> None:
        """Forget the forces."""
        for value in self.variables.values():
            value[...] = 0

    def call(self, index: int, step: int) -> None:
        """Half a kick, before the force with a new preconditioner and a drift."""
        if index == 0:
            self._accumulate()
            if self.integrator.correction:
                self._measure_pull(step)
        rows = (self.row("dt", step), self.row("temperature", step), self._regularizer)
        state, engine = self.context.state, self.context.engine
        square = self.variables["mean_square"]
        if self._compiled:
            from mdnet.kernels.thermostats import preconditioned_kick

            preconditioned_kick(
                state.positions,
                state.momenta,
                state.forces,
                square,
                self._pull,
                engine.edges,
                *rows,
                index == 0,
                state.sums,
            )
            return
        xp = self.context.backend.xp
        h, T, small = (row[:, None] for row in rows)
        root = 1 / xp.sqrt(small + xp.sqrt(square))
        p = state.momenta + xp.sqrt(0.5 * h) * root * state.forces
        state.momenta[...] = p
        twice = xp.empty_like(state.sums[0])
        engine.kinetic(state.momenta, twice)
        state.sums[3] += 0.5 * (twice - state.sums[0])
        state.sums[0] = twice
        if index == 0:
            move = xp.sqrt(2 * h) * root * state.momenta
            if self.integrator.correction:
                move += h * T * self._pull
            state.positions[...] = state.positions + move

    def _accumulate(self) -> None:
        """Take the square of the present forces in."""
        v, f = self.variables["mean_square"], self.context.state.forces
        seen = self.variables["forces_seen"]
        seen += 1
        decay = self.integrator.decay
        share = float((1 - decay) / (1 - decay ** seen[0]))
        square = f.astype(np.float64)
        square *= square
        v *= 1 - share
        square *= share
        v += square

    def _measure_pull(self, step: int) -> None:
        """Estimate the divergence of G with one random probe of the Hessian."""
        c = self.context
        xp, state, v = c.backend.xp, c.state, self.variables["mean_square"]
        signs = self._signs(step)
        width = float(np.cbrt(np.finfo(c.backend.force_dtype).eps))
        shifted = (state.positions + width * signs).astype(state.positions.dtype)
        there = xp.empty_like(state.forces)
        # The same rows of the data as the present forces.
        c.evaluator.forces(shifted, there, step * self.integrator.scheme.force_calls)
        f = state.forces.astype(np.float64)
        curvature = (f - there) * signs / width
        root = xp.sqrt(v)
        gain = 1 / (self._regularizer[:, None] + root)
        safe = xp.where(root > 0, root, 1.0)
        share = 1 - self.integrator.decay
        self._pull[...] = share * gain**2 * f * curvature / safe

    def _signs(self, step: int) -> Array:
        """Random signs (R, D), float64."""
        state = self.context.state
        rows = np.arange(state.replicas)
        words = random.bits(
            self.context.seed,
            rows,
            step,
            random.STREAM_THERMOSTAT,
            -(-state.size // 32),
        )
        flat: npt.NDArray[np.uint8] = np.unpackbits(
            words.view(np.uint8), axis=1, count=state.size
        )
        return self.context.backend.asarray(flat * 2.0 - 1.0)
