"""What a simulation can tell of its state: ledger, energies, thermometers, stability.

Each number is computed at most once a step, however many reporters ask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import backend as _backend
from mdnet import observables, schedules
from mdnet.errors import DivergenceError
from mdnet.kernels.layers import layer_sums
from mdnet.state import State
from mdnet.typing import Array, Potential, Schedule

__all__ = ["Readings", "degrees_of_freedom"]

_EXPLODED = 1e10  # kinetic temperature over target that no run comes back from


def degrees_of_freedom(integrator: Any, potential: Potential) -> np.ndarray:
    """Momenta that are free in each tensor, (L,) int64: less what is held or bound."""
    layout = potential.layout
    if hasattr(integrator, "degrees_of_freedom"):
        found: np.ndarray = integrator.degrees_of_freedom(layout)
        return found
    return np.diff(observables.layer_bounds(layout))


class Readings:
    """Reads one simulation's state.

    Attributes
    ----------
    counts : (L,) int64
        Degrees of freedom of each tensor.
    measured : (L,) int64
        Parameters of each tensor that configurational and virial temperatures read.
    after : (R, L) float64
        Sum of p^2/m over each tensor, just after the last bath.
    probed : int
        Step that ``after`` belongs to.
    baseline : (R,) float64 or None
        Potential energy where the ledger began.
    """

    def __init__(
        self,
        potential: Potential,
        integrator: Any,
        backend: _backend.Backend,
        evaluator: Any,
        state: State,
        inverse_mass: Array,
        seed: int,
        protocol: Schedule | None,
        companion: Any = None,
    ) -> None:
        self.companion = companion
        self.potential = potential
        self.integrator = integrator
        self.backend = backend
        self.state = state
        self.protocol = protocol
        self._evaluator = evaluator
        self._inverse_mass = inverse_mass
        self._seed = seed
        self._bounds = observables.layer_bounds(potential.layout)
        self._none = backend.xp.zeros(1, np.float64)
        self._double: Any = None
        self._scalars: tuple[int, dict[str, np.ndarray]] | None = None
        layers = len(self._bounds) - 1
        self.counts = degrees_of_freedom(integrator, potential)
        self._free: Array | None = None
        free = np.ones(potential.size, np.bool_)
        if hasattr(integrator, "measured"):
            free = integrator.measured(potential.layout)
        self.measured = np.add.reduceat(free.astype(np.int64), self._bounds[:-1])
        if not np.all(free):
            self._free = backend.asarray(np.asarray(free, np.float64))
        self.after = backend.xp.zeros((state.replicas, layers), np.float64)
        self.probed = -1
        self.baseline: np.ndarray | None = None

    def reset(self, momenta: bool = False) -> None:
        """Forget the ledger and what was read; ``momenta``: these have changed."""
        self.state.sums[2:] = 0
        self.state.protocol_work = np.zeros(self.state.replicas)
        self.baseline = None
        self._scalars = None
        if momenta:
            self.probed = -1

    def start(self) -> None:
        """Count heat and work from here on: the ledger begins with the first run.

        Shadow work is measured from the energy at this moment.
        """
        self.reset()
        self.baseline = self.potential_energy()

    def adopt(self, after: np.ndarray, baseline: np.ndarray) -> None:
        """Go on from what a restart slot holds, at the state's step."""
        self.after[...] = self.backend.asarray(after)
        self.probed = self.state.step
        self.baseline = np.array(baseline)
        self._scalars = None

    def probe(self) -> None:
        """Read per-tensor kinetic sums, just after the last bath of a step."""
        s = self.state
        layer_sums(
            self.backend.xp,
            s.momenta,
            s.momenta,
            self._none,
            self._inverse_mass,
            self._bounds,
            self.after,
        )
        self.probed = s.step + 1

    def check_divergence(self) -> None:
        """Stop a run whose kinetic energy is no longer finite, or has exploded."""
        twice = self.state.ledger(0)
        target = np.broadcast_to(
            self.integrator.target_temperature(self.state.step), twice.shape
        )
        largest = np.finfo(np.float64).max  # at T = 0 nothing sets a scale
        limit = np.where(target > 0, _EXPLODED * self.counts.sum() * target, largest)
        bad = ~(twice <= limit)
        if not bad.any():
            return
        replica = int(np.argmax(bad))
        energy = float("nan")
        if self._scalars is not None:
            energy = float(self._scalars[1]["potential_energy"][replica])
        elif self.baseline is not None:
            energy = float(self.baseline[replica])
        raise DivergenceError(
            f"replica {replica} diverged by step {self.state.step}: kinetic energy "
            f"{twice[replica] / 2:.4g}, last potential energy {energy:.6g}.  "
            f"{self.integrator.name} needs dt < 2 / (largest frequency)"
            f"{self._bound_found(~bad)}; dt is "
            f"{schedules.describe(self.integrator.dt)}.  Take a smaller dt, start "
            "from sim.minimize(), or measure the bound with sim.stability_limit()",
            step=self.state.step,
            replica=replica,
            energy=energy,
        )

    def _bound_found(self, healthy: np.ndarray) -> str:
        """The bound, measured on a replica that is still sound, as text."""
        q = self.backend.to_host(self.state.positions)
        sound = [r for r in np.flatnonzero(healthy) if np.isfinite(q[r]).all()]
        if not sound:
            return ""
        limits = self.stability_limit(replica=int(sound[0]))
        return f", {limits[0]:.3g} at replica {sound[0]}"

    def stability_limit(self, replica: int | None = None) -> np.ndarray:
        """See `mdnet.Simulation.stability_limit`."""
        rows = slice(None) if replica is None else slice(replica, replica + 1)
        q = self.state.positions[rows].astype(np.float64)
        double = _backend.Backend(
            self.backend.name, "double", self.backend.xp, self.backend.simulated
        )
        evaluator: Any = self.potential.evaluator(double, q.shape[0], self._seed)
        if self.protocol is not None:
            evaluator.set_parameter(float(self.protocol(self.state.step)))
        curvature = observables.largest_curvature(
            evaluator, q, self.backend.xp, self._inverse_mass
        )
        with np.errstate(divide="ignore"):
            return np.asarray(2 / np.sqrt(curvature))

    def potential_energy(self) -> np.ndarray:
        """U of all data at the present positions, (R,) float64."""
        out = self.backend.xp.empty(self.state.replicas, np.float64)
        self._evaluator.energies(self.state.positions, out)
        return self.backend.to_host(out)

    def present_energy(self) -> np.ndarray:
        """U of all data, from the scalars if they were read at this step."""
        if self._scalars is not None and self._scalars[0] == self.state.step:
            return self._scalars[1]["potential_energy"]
        return self.potential_energy()

    def scalars(self) -> dict[str, np.ndarray]:
        """See `mdnet.Simulation.scalars`."""
        s = self.state
        if self._scalars is not None and self._scalars[0] == s.step:
            return self._scalars[1]
        if self.probed != s.step:
            self.probe()
        if self.baseline is None:
            self.start()
        energy = self.potential_energy()
        kinetic = s.kinetic_energy
        after = s.ledger(1) if self.integrator.scheme.stochastic else 2 * kinetic
        target = self.integrator.target_temperature(s.step)
        kick, protocol = s.kick_work, np.array(s.protocol_work)
        values = {
            "potential_energy": energy,
            "kinetic_energy": kinetic,
            "kinetic_temperature": observables.kinetic_temperature(
                after, int(self.counts.sum())
            ),
            "target_temperature": np.broadcast_to(target, energy.shape).astype(float),
            "layer_kinetic_temperature": self.backend.to_host(self.after)
            / np.maximum(self.counts, 1),
            "heat": s.heat,
            "kick_work": kick,
            "protocol_work": protocol,
            "shadow_work": kick + (energy - self.baseline) - protocol,
        }
        self._scalars = (s.step, values)  # the companion may ask for the energy
        if self.companion is not None:
            values |= self.companion.scalars()
        return values

    def thermometers(self, reference: Any) -> dict[str, np.ndarray]:
        """See `mdnet.Simulation.thermometers`."""
        xp, s = self.backend.xp, self.state
        if self._double is None:
            self._double = self._evaluator
            if self.backend.precision != "double" or self.protocol is not None:
                double = _backend.Backend(
                    self.backend.name, "double", xp, self.backend.simulated
                )
                self._double = self.potential.evaluator(
                    double, self.state.replicas, self._seed
                )
        if self.protocol is not None:
            self._double.set_parameter(float(self.protocol(s.step)))
        q = s.positions.astype(np.float64)
        gradient = xp.empty(q.shape, np.float64)
        self._double.gradients(q, gradient)
        if self._free is not None:
            gradient *= self._free
        centre = self.backend.asarray(reference.update(self.backend.to_host(q)))
        one = xp.ones(1, np.float64)
        square, virial = xp.empty_like(self.after), xp.empty_like(self.after)
        bounds = self._bounds
        layer_sums(xp, gradient, gradient, self._none, one, bounds, square)
        layer_sums(xp, q, gradient, centre, one, bounds, virial)
        curvature = observables.laplacian(
            self._double, q, self.potential.layout, xp, self._seed, s.step,
            free=self._free,
        )  # fmt: skip
        host = self.backend.to_host
        squares, laplacians, virials = host(square), host(curvature), host(virial)
        with np.errstate(divide="ignore", invalid="ignore"):
            configurational = squares.sum(axis=1) / laplacians.sum(axis=1)
        return {
            "gradient_square": squares,
            "laplacian": laplacians,
            "virial": virials,
            "configurational_temperature": configurational,
            "virial_temperature": virials.sum(axis=1) / max(self.measured.sum(), 1),
        }
