r"""No-U-turn trajectories: doubled until they turn back, sampled by their weights.

A trajectory grows by doublings into the past or the future, drawn evenly, each a
subtree of 2^j leapfrog steps.  It ends where a subtree, or the whole, begins to turn
back: where for its ends' velocities v and the sum of its momenta :math:`\rho`

.. math:: v_\pm\cdot\left(\rho - \tfrac12(p_- + p_+)\right) \le 0 .

The sample is a point of it, drawn by the weights :math:`e^{-(U + K)/T}`; the newest
subtree is favoured.  All replicas grow together, each in its own direction and with
its own step; one that has ended waits for the others.

References
----------
M. D. Hoffman, A. Gelman, J. Mach. Learn. Res. 15, 1593 (2014).
M. Betancourt, "A conceptual introduction to Hamiltonian Monte Carlo" (2017),
arXiv:1701.02434, appendix A.
D. Phan, N. Pradhan, M. Jankowiak, "Composable effects for flexible and accelerated
probabilistic programming in NumPyro" (2019), arXiv:1912.11554 (trees without
recursion).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import random, schedules
from mdnet.integrators.companion import Context
from mdnet.integrators.metropolis import Tested
from mdnet.kernels.engine import Program
from mdnet.kernels.letters import DRIFT, KICK
from mdnet.typing import Array

__all__ = ["DEEPEST", "Tree"]

DEEPEST = 16
"""Most doublings."""
_LOST = 1000.0
"""Energy error over T at which a trajectory counts as diverged."""
_ENDS, _LEAVES = random.STREAM_METROPOLIS + 8, random.STREAM_METROPOLIS + 16


class Tree(Tested):
    """Builds the trajectory of one step and draws from it; parameters as `Tested`.

    Memory: 13 arrays of the size of the positions, and two more for each doubling.
    """

    SERIES = (
        "acceptance",
        "delta_h",
        "tree_depth",
        "leapfrog_steps",
        "divergences",
    )

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(integrator, context)
        state, backend, xp = context.state, context.backend, context.backend.xp
        for name in ("tree_depth", "leapfrog_steps", "divergences"):
            self.variables[name] = xp.zeros(state.replicas, np.float64)
        self._now = (state.positions, state.momenta, state.forces)
        self._past, self._future, self._leaf, self._chosen = (
            tuple(xp.empty_like(array) for array in self._now) for _ in range(4)
        )
        self._sum = xp.empty_like(state.momenta)
        self._part = xp.empty_like(state.momenta)
        self._marks: list[tuple[Array, Array]] = []
        self._sums = xp.zeros_like(state.sums)
        self._before = Program.build(backend, [(KICK, 0, 0, 0), (DRIFT, 1, 0, 0)])
        self._after = Program.build(backend, [(KICK, 0, 0, 0)])
        letters = [letter for letter, _ in integrator.scheme.operations]
        self._columns = [letters.index("B"), letters.index("A")]
        self._rows = np.arange(state.replicas)

    def repeats(self, step: int) -> int:
        """None: `call` moves the state."""
        del step
        return 0

    def call(self, index: int, step: int) -> None:
        """At the closing brace, build the trajectory and move to a point of it."""
        if index == 0:
            self._know_energy()
            return
        if index != 1:  # what the loop, which does not run, would call
            return
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            self._build(step)
        self._tune(step)

    # --- the whole trajectory ----------------------------------------------------

    def _build(self, step: int) -> None:
        state, xp, v = self.context.state, self.context.backend.xp, self.variables
        R, host = state.replicas, self.context.backend.to_host
        T = schedules.evaluate(self.temperature, step)
        self._temperature = xp.asarray(np.broadcast_to(np.asarray(T, float), (R,)))
        self._start = v["energy"] + 0.5 * state.sums[0].sum(axis=1)
        self._table = self._leapfrog(step)
        xp.copyto(self._sums, state.sums)
        for saved in (self._past, self._future, self._chosen):
            for there, here in zip(saved, self._now, strict=True):
                xp.copyto(there, here)
        xp.copyto(self._sum, state.momenta)
        total, energy = xp.zeros(R), v["energy"].copy()
        error = xp.zeros(R)
        growing = xp.ones(R, bool)
        self._steps, self._chances = xp.zeros(R), xp.zeros(R)
        v["tree_depth"][...] = 0
        drawn = random.uniforms(
            self.context.seed, self._rows, step, _ENDS, 2 * self._tuning.depth
        )
        for j in range(self._tuning.depth):
            if not host(growing).any():
                break
            ahead = xp.asarray(drawn[:, 2 * j] < 0.5)
            whole, weight, leaf_energy, leaf_error = self._grow(j, step, growing, ahead)
            # The newest part is favoured over what there was: min(1, its weight
            # over that of the rest).
            threshold = xp.log(xp.asarray(drawn[:, 2 * j + 1]))
            take = whole & (threshold < weight - total)
            self._copy(self._chosen, self._leaf, take)
            energy = xp.where(take, leaf_energy, energy)
            error = xp.where(take, leaf_error, error)
            total = xp.where(whole, xp.logaddexp(total, weight), total)
            self._copy(self._future, self._now, whole & ahead)
            self._copy(self._past, self._now, whole & ~ahead)
            self._sum += xp.where(whole[:, None], self._part, 0)
            v["tree_depth"] += whole
            turns = self._turns(self._past[1], self._future[1], self._sum)
            growing = whole & ~turns
        self._settle(energy, error)

    def _settle(self, energy: Array, error: Array) -> None:
        """Move to the chosen point; the change of kinetic energy is kick work."""
        state, xp, v = self.context.state, self.context.backend.xp, self.variables
        for here, there in zip(self._now, self._chosen, strict=True):
            xp.copyto(here, there)
        before = state.sums[0].copy()
        self.context.engine.kinetic(state.momenta, state.sums[0])
        state.sums[3] += 0.5 * (state.sums[0] - before)
        xp.copyto(v["energy"], energy)
        xp.copyto(v["delta_h"], error)
        xp.copyto(v["leapfrog_steps"], self._steps)
        xp.copyto(v["acceptance"], self._chances / self._steps)

    def _leapfrog(self, step: int) -> np.ndarray[Any, Any]:
        """Coefficients (2, R, G, 2) of half a kick and a drift forwards."""
        table = self.lengths(step)
        if table.ndim == 3:
            table = table[:, :, None]
        groups = self.context.engine.group_count
        table = table[self._columns]
        return np.broadcast_to(table, (*table.shape[:2], groups, 2))

    # --- one subtree -------------------------------------------------------------

    def _grow(self, depth: int, step: int, growing: Array, ahead: Array) -> Any:
        """Make 2^depth leapfrog steps from an end of the trajectory.

        Returns
        -------
        whole : (R,) bool
            Whether the subtree neither turned nor diverged.
        weight : (R,) float64
            Logarithm of its weight.
        energy, error : (R,) float64
            U and the energy error of the point chosen, in ``_leaf``.
        """
        context, xp = self.context, self.context.backend.xp
        state, engine, R = context.state, context.engine, context.state.replicas
        self._copy(self._now, self._future, growing & ahead)
        self._copy(self._now, self._past, growing & ~ahead)
        sign = np.where(context.backend.to_host(ahead), 1.0, -1.0)
        sign *= context.backend.to_host(growing)
        table = context.backend.asarray(self._table[None] * sign[:, None, None])
        kick = context.backend.asarray(table[:, :1])
        # Of kick and drift, (R, 2, 1), where momenta are whitened.
        lengths = table[0, :, :, 0, :1].swapaxes(0, 1).astype(state.momenta.dtype)
        thresholds = xp.log(
            xp.asarray(
                random.uniforms(
                    context.seed, self._rows, step, _LEAVES + depth, 2**depth
                )
            )
        )
        building, weight = growing.copy(), xp.full(R, -np.inf)
        energy, error = xp.zeros(R), xp.zeros(R)
        self._part[...] = 0
        call = step * self._integrator.scheme.force_calls + 2**depth
        for n in range(2**depth):
            if self._flow is None:
                engine.advance(self._before, *self._now, table, self._sums, step)
            else:
                self._flow.renew()
                self._flow.kick(lengths[:, 0], self._sums)
                self._flow.drift(lengths[:, 1])
            context.evaluator.forces(
                state.positions, state.forces, call + n, self.energy
            )
            if self._flow is None:
                engine.advance(self._after, *self._now, kick, self._sums, step)
            else:
                self._flow.renew()
                self._flow.kick(lengths[:, 0], self._sums)
            change = self.energy + 0.5 * self._sums[0].sum(axis=1) - self._start
            log = -change / self._temperature
            self._steps += building
            lost = ~(log > -_LOST)
            self.variables["divergences"] += building & lost
            building &= ~lost
            self._chances += xp.where(building, xp.exp(xp.minimum(log, 0.0)), 0.0)
            total = xp.logaddexp(weight, log)
            take = building & (thresholds[:, n] < log - total)
            weight = xp.where(building, total, weight)
            energy = xp.where(take, self.energy, energy)
            error = xp.where(take, change, error)
            self._copy(self._leaf, self._now, take)
            self._part += state.momenta
            building &= ~self._turned(n)
            if not context.backend.to_host(building).any():
                break
        return building, weight, energy, error

    def _turned(self, n: int) -> Array:
        """Whether a balanced subtree that ends with leaf ``n`` turns back, (R,).

        An even leaf begins subtrees and is marked, at the place of the number of ones
        among the higher bits of n; an odd one ends as many as n ends on ones.
        """
        momenta, xp = self.context.state.momenta, self.context.backend.xp
        place = (n >> 1).bit_count()
        if n % 2 == 0:
            if place == len(self._marks):
                self._marks.append((xp.empty_like(momenta), xp.empty_like(momenta)))
            xp.copyto(self._marks[place][0], momenta)
            xp.copyto(self._marks[place][1], self._part)
            return xp.zeros(momenta.shape[0], bool)
        ends = (n ^ (n + 1)).bit_count() - 1
        turned: Array = False
        for first, before in self._marks[place - ends + 1 : place + 1]:
            turned |= self._turns(first, momenta, self._part - before + first)
        return turned

    def _turns(self, one: Array, other: Array, total: Array) -> Array:
        """The criterion, for momenta at two ends and their sum between: (R,) bool."""
        if self.context.backend.name == "cpu":
            from mdnet.kernels.surfaces import spans

            out = np.empty((2, len(one)))
            spans(one, other, total, self.context.inverse_mass, out)
            back: Array = (out <= 0).any(axis=0)
            return back
        inner = (total - 0.5 * (one + other)) * self.context.inverse_mass
        xp = self.context.backend.xp
        return (xp.sum(one * inner, axis=1) <= 0) | (xp.sum(other * inner, axis=1) <= 0)

    def _copy(self, there: Any, here: Any, where: Array) -> None:
        for target, source in zip(there, here, strict=True):
            self.context.backend.xp.copyto(target, source, where=where[:, None])
