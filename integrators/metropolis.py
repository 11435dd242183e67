r"""The Metropolis test: what stands between braces is accepted or taken back.

At "{" the state is put aside; at "}" the energy error of what happened since,

.. math:: W = U' - U + \sum_\mathrm{kicks}\Delta K,

is compared with the temperature: with probability :math:`\min(1, e^{-W/T})` the new
state stays, otherwise the old one returns with its momenta reversed.  Without a bath
in the braces W is the change of the total energy; with one it is that change less the
heat.  As the letters in the braces read the same backwards, this keeps
:math:`e^{-(U + K)/T}` exactly, whatever ``dt``.

U is that of all data in the precision of the forces, added up in float64.  In single
precision the rounding of positions and momenta makes an error in W of about 1e-5
sqrt(steps) at U of 1000, far below T for the posteriors of networks; see
``docs/metropolis.md``.  ``precision="mixed"`` takes most of it away.

References
----------
A. M. Horowitz, Phys. Lett. B 268, 247 (1991), doi:10.1016/0370-2693(91)90812-5.
D. A. Sivak, J. D. Chodera, G. E. Crooks, Phys. Rev. X 3, 011007 (2013),
doi:10.1103/PhysRevX.3.011007, for a bath inside the braces.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mdnet import random, schedules
from mdnet.errors import PotentialError, SchemeError
from mdnet.integrators import baths
from mdnet.integrators.companion import Companion, Context
from mdnet.integrators.draws import Uniforms
from mdnet.integrators.metric import FIRST, Flow, dense_flow, initial_root
from mdnet.integrators.microcanonical import PROJECT, Sphere
from mdnet.integrators.tuning import (
    Covariances,
    StepTuner,
    Variances,
    set_masses,
    windows,
)
from mdnet.typing import Array

__all__ = ["Judge", "Tested", "exact_energies"]

_LENGTH, _BLOCK, _TEST = (random.STREAM_METROPOLIS + i for i in range(3))


def exact_energies(context: Context, name: str, temperature: Any) -> None:
    """Refuse what no Metropolis test can be exact for.

    Raises
    ------
    SchemeError
        A minibatch potential, or temperatures that differ between tensors.
    """
    if not context.evaluator.full:
        raise SchemeError(
            f"{name} on minibatches: its Metropolis test needs the energy of all data; "
            "pass the potential itself, or take SGLD, BAOAB or SGHMC for minibatches"
        )
    if isinstance(temperature, baths.PerTensor):
        raise SchemeError(
            f"{name}: temperature differs between tensors; a Metropolis test samples "
            "one temperature a replica: pass a number or an (R,) array"
        )


class Tested(Companion):
    """What all exact methods share: the known energy, coefficients, the warm-up.

    Abstract: `Judge` and `mdnet.integrators.nuts.Tree` say what a ``call`` does.

    Parameters
    ----------
    integrator : Splitting
    context : Context

    Raises
    ------
    SchemeError
        See `exact_energies`; a step that is a schedule and tuned at once.
    """

    SERIES: ClassVar[tuple[str, ...]] = ("acceptance", "delta_h")
    """Variables that are recorded."""

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(context)
        exact_energies(context, integrator.name, integrator.temperature)
        self._integrator = integrator
        self._tuning = tuning = integrator.tuning
        replicas, xp = context.state.replicas, context.backend.xp
        self.energy = xp.zeros(replicas, np.float64)
        self.variables = {
            "energy": xp.zeros(replicas, np.float64),
            "energy_known": np.zeros(1, np.int64),
            "acceptance": xp.ones(replicas, np.float64),
            "delta_h": xp.zeros(replicas, np.float64),
        }
        self._blocks = Uniforms(context.backend, context.seed, replicas, _BLOCK)
        self._baths = baths.Baths(self, context) if integrator.grouped else None
        self._dt: StepTuner | None = None
        self._variances: Variances | Covariances | None = None
        self._flow: Flow | None = None
        if integrator.dense:
            self._root = initial_root(integrator, context)
            self._flow = dense_flow(integrator, context, self._root, self.lengths)
        self.steady = not tuning.block
        if tuning.block and self._baths is not None:
            raise SchemeError(
                f"{integrator.name}: block={tuning.block} and frozen={self.frozen!r} "
                "cut the parameters in two ways; take one of them"
            )
        if tuning.warmup:
            self._prepare_tuning()

    def _prepare_tuning(self) -> None:
        tuning, context = self._tuning, self.context
        if callable(self._integrator.dt):
            raise SchemeError(
                f"{self._integrator.name}: dt is a schedule and tuned to "
                f"target_acceptance={tuning.target} too; choose one of them"
            )
        first = np.array(
            np.broadcast_to(self._integrator.time_step(0), context.state.replicas),
            np.float64,
        )
        self._dt = StepTuner(first, tuning.target, tuning.shared)
        self.variables |= self._dt.variables
        self._learning = windows(tuning.warmup)
        if tuning.masses:
            kind = Covariances if tuning.masses == "dense" else Variances
            self._variances = kind(context.backend.xp, context.state.size)
            self.variables |= self._variances.variables
            # The very arrays that are used: a restart fills them in place.
            if tuning.masses == "dense":
                self.variables["mass_root"] = self._root
            else:
                self.variables["inverse_mass"] = context.inverse_mass

    # --- what the integrator is to `Baths`, which masks what is frozen -----------

    @property
    def temperature(self) -> Any:
        """That of the integrator."""
        return self._integrator.temperature

    @property
    def friction(self) -> Any:
        """That of the integrator."""
        return self._integrator.friction

    @property
    def frozen(self) -> Any:
        """Weights of the integrator that never move."""
        return self._integrator.frozen

    def table(
        self, step: int, temperature: Any, friction: Any
    ) -> npt.NDArray[np.float64]:
        """Coefficients at the present step length."""
        dt = None if self._dt is None else self._dt.step
        table: npt.NDArray[np.float64] = self._integrator.table(
            step, temperature, friction, dt
        )
        return table

    # --- what the stepper asks for -----------------------------------------------

    def coefficients(self, step: int) -> npt.NDArray[np.float64] | None:
        """Coefficients (n, R, G, 2), where the integrator's own will not do."""
        if self._flow is not None:
            return self._flow.without(self.lengths(step))
        return self._present(step)

    def lengths(self, step: int) -> npt.NDArray[np.float64]:
        """Coefficients (n, R, ...) of all letters, kicks and drifts too."""
        table = self._present(step)
        if table is None:
            table = self._integrator.coefficients(step, self.context.state.replicas)
        return np.asarray(table)

    def _present(self, step: int) -> npt.NDArray[np.float64] | None:
        if self._baths is not None:
            return self._baths.coefficients(step)
        if self._dt is None and not self._tuning.block:
            return None
        rows = (self.context.state.replicas,)
        value = schedules.evaluate
        table = self.table(
            step,
            np.broadcast_to(value(self.temperature, step), rows),
            np.broadcast_to(value(self.friction, step), rows),
        )[:, :, None]
        groups = self.context.engine.group_count
        table = np.repeat(table, groups, axis=2)
        if self._tuning.block:
            drawn = self.context.backend.to_host(self._blocks.at(step))
            moves = np.arange(groups) == (drawn * groups).astype(np.int64)[:, None]
            for i, (letter, _) in enumerate(self._integrator.scheme.operations):
                if letter != "O":
                    table[i, ~moves] = 0.0
        return table

    def started(self) -> None:
        """The energy must be found again."""
        self.variables["energy_known"][0] = 0
        if self._flow is not None:
            self._flow.forget()
        if self._baths is not None:
            self._baths.started()

    def restrict(self, positions: Array, forces: Array) -> None:
        """Take the forces on frozen weights away."""
        if self._baths is not None:
            self._baths.restrict(positions, forces)

    def temperatures(self, step: int) -> npt.NDArray[np.float64] | None:
        """Temperatures of the groups, (R, G), where there are any."""
        return None if self._baths is None else self._baths.temperatures(step)

    def potential_changed(self) -> None:
        """The energy must be found again."""
        self.variables["energy_known"][0] = 0
        if self._flow is not None:
            self._flow.forget()

    def _know_energy(self) -> None:
        """Evaluate U of the present positions, unless it is known."""
        v = self.variables
        if not v["energy_known"][0]:
            self.context.evaluator.energies(self.context.state.positions, v["energy"])
            self._check_start()
            v["energy_known"][0] = 1

    def _check_start(self) -> None:
        energy = self.context.backend.to_host(self.variables["energy"])
        if not np.isfinite(energy).all():
            bad = int(np.argmax(~np.isfinite(energy)))
            raise PotentialError(
                f"replica {bad} has potential energy {energy[bad]}: a Metropolis test "
                "needs a finite start; pass positions=, or call sim.minimize()"
            )

    def _tune(self, step: int) -> None:
        """Learn from the test of one step of the warm-up."""
        tuner, tuning, host = self._dt, self._tuning, self.context.backend.to_host
        if tuner is None or step >= tuning.warmup:
            return
        tuner.update(host(self.variables["acceptance"]))
        start, ends = self._learning
        if self._variances is not None and start <= step < ends[-1]:
            rows = (self.context.state.replicas,)
            temperature = schedules.evaluate(self.temperature, step)
            self._variances.update(
                self.context.state.positions, np.broadcast_to(temperature, rows)
            )
            if step + 1 in ends:
                tuner.restart(self._set_masses(self._variances.take()))
        if step + 1 == tuning.warmup:
            tuner.finish()
        self.changed = True
        if self._flow is not None:
            self._flow.forget()

    def _set_masses(self, inverse: Array) -> float:
        """Give every parameter its mass, or all a matrix; by how much ``dt`` may grow.

        That is the ratio of the largest frequencies before and after, were the
        parameters independent.  Momenta keep their kinetic energy.
        """
        xp = self.context.backend.xp
        if inverse.ndim == 2:  # whitened momenta stay as they are
            factor = xp.linalg.cholesky(inverse)
            between = xp.linalg.solve(factor, self._root.astype(np.float64))
            self._root[...] = factor
            return float(xp.linalg.norm(between, 2))
        ratio = set_masses(self.context, inverse)
        return float(xp.sqrt(ratio.max()))

    def scalars(self) -> dict[str, npt.NDArray[np.float64]]:
        """Of the last test, as `SERIES` names it, and the step where it is tuned."""
        host = self.context.backend.to_host
        out = {name: host(self.variables[name]).copy() for name in self.SERIES}
        if self._dt is not None:
            out["dt"] = self._dt.step
        if self._baths is not None:
            out |= self._baths.scalars()
        return out


class Judge(Tested):
    """Accepts or takes back what stands between braces; parameters as `Tested`."""

    SERIES = ("acceptance", "accepted", "delta_h")

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(integrator, context)
        state, backend, xp = context.state, context.backend, context.backend.xp
        self._kept = [state.positions, state.momenta]
        if "B" in integrator.scheme.word:
            self._kept.append(state.forces)
        self._saved = [xp.empty_like(array) for array in self._kept]
        self._sums = xp.empty_like(state.sums)
        self.variables["accepted"] = xp.zeros(state.replicas, np.float64)
        tests = integrator.scheme.word.count("{")
        self._thresholds = [
            Uniforms(backend, context.seed, state.replicas, _TEST + i, logarithms=True)
            for i in range(tests)
        ]
        self._lengths = Uniforms(backend, context.seed, 1, _LENGTH)
        self._sphere: Sphere | None = None
        if integrator.sphere:
            self._sphere = Sphere(integrator, context, self.coefficients)

    def repeats(self, step: int) -> int:
        """Turns of the part in brackets: the word's, or drawn anew each step."""
        most, fewest = self._integrator.scheme.turns, self._tuning.fewest
        if not fewest:
            return int(most)
        drawn = float(self._lengths.at(step)[0])
        return int(fewest + np.floor(drawn * (most - fewest + 1)))

    def call(self, index: int, step: int) -> None:
        """Put the state aside (even ``index``), or test what became of it (odd)."""
        if self._flow is not None and index >= FIRST:
            self._flow.call(index, step)
        elif self._sphere is not None and index >= PROJECT:
            self._sphere.call(index, step)
        elif index % 2 == 0:
            self._open()
        else:
            self._test(self._thresholds[index // 2].at(step), step)
            if index == 2 * len(self._thresholds) - 1:
                self._tune(step)
                if self._sphere is not None and self.changed:
                    self._sphere.forget()

    def started(self) -> None:
        """Find the energy again; put momenta on their sphere, if they have one."""
        super().started()
        if self._sphere is not None:
            self._sphere.project(self.context.state.step)
            self.context.state.sums[2] = 0

    def _open(self) -> None:
        state, xp = self.context.state, self.context.backend.xp
        self._know_energy()
        positions, momenta, *forces = self._kept
        xp.copyto(self._saved[0], positions)
        xp.negative(momenta, out=self._saved[1])
        for saved, now in zip(self._saved[2:], forces, strict=True):
            xp.copyto(saved, now)
        xp.copyto(self._sums, state.sums)
        self.evaluated = False

    def _test(self, exponential: Array, step: int) -> None:
        """Accept where W < T x an exponential variate, else put the old state back."""
        state, xp, v = self.context.state, self.context.backend.xp, self.variables
        temperature = xp.asarray(schedules.evaluate(self.temperature, step))
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            work = self._work()
            # Not a number, where the motion blew up, compares false.
            accept = work < temperature * exponential
            chance = xp.exp(xp.minimum(-work / temperature, 0.0))
        xp.copyto(v["delta_h"], work)
        xp.copyto(v["acceptance"], xp.where(chance == chance, chance, 0.0))
        v["accepted"] += accept
        xp.copyto(v["energy"], self.energy, where=accept)
        reject = ~accept
        if xp is np and not reject.any():
            return
        for now, saved in zip(self._kept, self._saved, strict=True):
            xp.copyto(now, saved, where=reject[:, None])
        xp.copyto(state.sums, self._sums, where=reject[None, :, None])
        if self._flow is not None:
            self._flow.renew()

    def _work(self) -> Array:
        """Energy error W of what happened in the braces, (R,)."""
        state = self.context.state
        if not self.evaluated:
            self.context.evaluator.energies(state.positions, self.energy)
        work = (state.sums[3] - self._sums[3]).sum(axis=1)
        work += self.energy
        work -= self.variables["energy"]
        return work
