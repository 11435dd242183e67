"""`Simulation`: a potential, an integrator, a state, and the loop between them."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mdnet import backend as _backend
from mdnet import integrators, observables, random, schedules, triggers
from mdnet import io as _io
from mdnet._version import __version__
from mdnet.errors import (
    DivergenceError,
    PotentialError,
    SchemeError,
    TrajectoryError,
)
from mdnet.kernels.engine import Engine, Program, tile_count
from mdnet.kernels.layers import layer_sums
from mdnet.kernels.letters import BATH
from mdnet.reporters import Progress, TrajectoryFile
from mdnet.state import State
from mdnet.stepper import Stepper
from mdnet.typing import Potential, Reporter, Schedule

__all__ = ["Simulation"]

_CHECK_EVERY = 1000  # steps between looks at the energy when nothing is reported
_EXPLODED = 1e10  # kinetic temperature over target that no run comes back from


class Simulation:
    r"""R replicas of a network's weights moving under one integrator.

    Samples :math:`\rho(q, p) \propto \exp(-(U(q) + \sum p^2/2m)/T)` with a bath, or
    conserves the energy without one.  k_B = 1 throughout.

    Parameters
    ----------
    potential : Potential
        U(q) of D parameters.
    integrator : Splitting
        Its per-replica parameters have one value a replica.
    replicas : int
        R, axis 0 of every array.
    positions : (R, D) or (D,) array, optional
        The start; ``potential.initial(replicas, seed)`` if not given.
    momenta : (R, D) array, optional
        Drawn at the integrator's temperature if not given.
    seed : int
        Key of all random numbers.  Replica r moves alike however many run beside it.
    backend : {"auto", "cpu", "cuda"}
    precision : {"single", "mixed", "double"}
    protocol : schedule, optional
        lambda(step) for a potential made by `potentials.interpolate`; its work is
        booked at the middle of the change, so that a reversed protocol is the
        reversed experiment.

    Raises
    ------
    PotentialError
        A start, seed or number of replicas that does not fit the potential.
    SchemeError
        A parameter that does not fit, or a step beyond a known stability limit.
    BackendError
        A device or precision that is not there.

    Examples
    --------
    >>> import mdnet
    >>> from mdnet import integrators, potentials
    >>> U = potentials.Harmonic(stiffness=1.0, size=10)
    >>> sim = mdnet.Simulation(U, integrators.BAOAB(dt=0.2), replicas=4, seed=1)
    >>> sim.run(100)
    >>> sim.state.step
    100
    """

    def __init__(
        self,
        potential: Potential,
        integrator: Any,
        replicas: int = 1,
        positions: Any = None,
        momenta: Any = None,
        seed: int = 0,
        backend: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["single", "mixed", "double"] = "single",
        protocol: Schedule | None = None,
    ) -> None:
        if not isinstance(replicas, (int, np.integer)) or replicas < 1:
            raise PotentialError(f"replicas={replicas!r}: expected an integer >= 1")
        if not hasattr(potential, "evaluator"):
            raise PotentialError(
                f"potential={potential!r}: expected a mdnet potential; wrap functions "
                "in potentials.Custom(size=D, energy=f, gradient=g)"
            )
        if not hasattr(integrator, "operations"):
            raise SchemeError(
                f"integrator={integrator!r}: expected one of mdnet.integrators, as "
                "integrators.BAOAB(dt=0.01)"
            )
        random.seed_words(seed)
        self.potential = potential
        self.integrator = integrator
        self.replicas = int(replicas)
        self.seed = int(seed)
        self.protocol = protocol
        self.backend = _backend.resolve(backend, precision)
        self._fit_parameters()
        self._evaluator = potential.evaluator(self.backend, self.replicas, self.seed)
        if protocol is not None and not hasattr(self._evaluator, "set_parameter"):
            raise PotentialError(
                "protocol: expected a potential made by potentials.interpolate(U0, "
                f"U1), got {type(potential).__name__}"
            )
        xp, d = self.backend.xp, potential.size
        inverse = 1.0 / np.atleast_1d(np.asarray(integrator.mass, np.float64))
        self._inverse_mass = self.backend.asarray(inverse)
        self._engine = Engine(
            self.backend, self._inverse_mass, self.seed, self._evaluator.polynomial
        )
        dtype = self.backend.state_dtype
        self.state = State(
            backend=self.backend,
            positions=self.backend.asarray(self._start(positions), dtype).copy(),
            momenta=xp.zeros((self.replicas, d), dtype),
            forces=xp.zeros((self.replicas, d), self.backend.force_dtype),
            sums=xp.zeros((4, self.replicas, tile_count(d)), np.float64),
            time=0.0,
            protocol_work=np.zeros(self.replicas),
        )
        self._check_stability()
        self._bounds = observables.layer_bounds(potential.layout)
        self._none = xp.zeros(1, np.float64)
        self._after = xp.zeros((self.replicas, len(self._bounds) - 1), np.float64)
        self._probe_step = -1
        self._scalars: tuple[int, dict[str, np.ndarray]] | None = None
        self._baseline: np.ndarray | None = None
        self._double: Any = None
        self._append: tuple[str, dict[str, Any]] | None = None
        if momenta is None:
            self.draw_momenta()
        else:
            self.set_momenta(momenta)
        self._stepper = self._make_stepper()

    # --- the start ---------------------------------------------------------------

    def _make_stepper(self) -> Stepper:
        return Stepper(
            self.backend,
            self.integrator,
            self._evaluator,
            self.state,
            self._engine,
            self.protocol,
        )

    def _fit_parameters(self) -> None:
        for name in ("dt", "temperature", "friction"):
            value = schedules.evaluate(getattr(self.integrator, name), 0)
            if np.ndim(value) and np.shape(value) != (self.replicas,):
                raise SchemeError(
                    f"{name} has shape {np.shape(value)}: expected one value or "
                    f"({self.replicas},), one for each of replicas={self.replicas}"
                )
        mass = self.integrator.mass
        if np.ndim(mass) and np.shape(mass) != (self.potential.size,):
            raise SchemeError(
                f"mass has shape {np.shape(mass)}: expected one value or "
                f"({self.potential.size},), one for each parameter"
            )

    def _start(self, positions: Any) -> np.ndarray:
        d = self.potential.size
        if positions is None:
            positions = self.potential.initial(self.replicas, self.seed)
        given = np.asarray(
            positions.get() if hasattr(positions, "get") else positions, np.float64
        )
        if given.shape == (d,):
            given = np.broadcast_to(given, (self.replicas, d))
        if given.shape != (self.replicas, d):
            raise PotentialError(
                f"positions has shape {given.shape}: expected ({self.replicas}, {d}), "
                f"replicas by parameters, or ({d},) for all replicas"
            )
        if not np.isfinite(given).all():
            bad = np.argwhere(~np.isfinite(given))[0]
            raise PotentialError(
                f"positions[{bad[0]}, {bad[1]}]={given[tuple(bad)]}: the start must be "
                "finite"
            )
        return given

    def _check_stability(self) -> None:
        """Refuse a step beyond the limit where the potential knows its curvature."""
        stiffness = getattr(self.potential, "largest_stiffness", None)
        if stiffness is None or stiffness <= 0 or not self._evaluator.full:
            return
        least = float(np.min(self.integrator.mass))
        curvature = stiffness / least * (1 + 1e-6)  # the limit itself is beyond it
        if self.integrator.growth(curvature) < 1 + 1e-7:
            return
        dt = np.asarray(self.integrator.time_step(0), np.float64)
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            part = replace(self.integrator, dt=middle * dt)
            stable = part.growth(curvature) < 1 + 1e-7
            low, high = (middle, high) if stable else (low, middle)
        bound = low * float(dt.max())
        raise SchemeError(
            f"dt={schedules.describe(self.integrator.dt)} is beyond the stability "
            f"limit dt < {bound:.6g} of {self.integrator.name} for this potential "
            f"(largest stiffness {stiffness:.6g}, smallest mass {least:.6g}); "
            f"take dt <= {bound / 2:.3g}"
        )

    def draw_momenta(self) -> None:
        """Draw momenta from the Maxwell-Boltzmann law at the target temperature."""
        program = Program.build(self.backend, [(BATH, 0, random.STREAM_MOMENTA, 0)])
        temperature = self.integrator.target_temperature(self.state.step)
        table = np.zeros((1, 1, self.replicas, 2))
        table[0, 0, :, 1] = np.sqrt(np.asarray(temperature))
        s = self.state
        self._engine.advance(
            program,
            s.positions,
            s.momenta,
            s.forces,
            self.backend.asarray(table),
            s.sums,
            s.step,
        )
        self._probe_step = -1
        self._reset_ledger()

    def set_momenta(self, momenta: Any) -> None:
        """Set the momenta, (R, D), and start the energy ledger anew."""
        given = np.asarray(momenta, np.float64)
        shape = self.state.positions.shape
        if given.shape != shape or not np.isfinite(given).all():
            raise PotentialError(
                f"momenta has shape {given.shape}: expected finite {tuple(shape)}"
            )
        self.state.momenta[...] = self.backend.asarray(given)
        self._engine.kinetic(self.state.momenta, self.state.sums[0])
        self.state.sums[1] = self.state.sums[0]
        self._probe_step = -1
        self._reset_ledger()

    def set_positions(self, positions: Any) -> None:
        """Set the positions, (R, D) or (D,), and start the energy ledger anew."""
        self.state.positions[...] = self.backend.asarray(self._start(positions))
        self.state.forces_fresh = False
        self._reset_ledger()

    def _reset_ledger(self) -> None:
        self.state.sums[2:] = 0
        self.state.protocol_work = np.zeros(self.replicas)
        self._baseline = None
        self._scalars = None

    def _start_ledger(self) -> None:
        """Count heat and work from here on: the ledger begins with the first run.

        Shadow work is measured from the energy at this moment.
        """
        self._reset_ledger()
        self._baseline = self.potential_energy()

    def minimize(self, steps: int = 500, learning_rate: float = 0.01) -> np.ndarray:
        """Descend to a sensible start with Adam, then draw new momenta.

        The learning rate falls to zero as half a cosine; minibatch potentials descend
        on their minibatch forces.

        Parameters
        ----------
        steps : int
            Force evaluations.
        learning_rate : float
            Largest move of a parameter a step.

        Returns
        -------
        (n, R) float64
            Potential energy of all data at the start, at about twenty points between
            and, last, at the end.

        References
        ----------
        D. P. Kingma, J. Ba, ICLR 2015, arXiv:1412.6980, algorithm 1.
        """
        if steps < 0:
            raise SchemeError(f"steps={steps}: expected a number >= 0")
        xp, s = self.backend.xp, self.state
        m, v = s.momenta, xp.zeros_like(s.momenta)
        m[...] = 0
        decay = schedules.cosine(float(learning_rate), 0.0, max(steps, 1))
        every = max(steps // 20, 1)
        energies = [self.potential_energy()]
        for i in range(steps):
            self._evaluator.forces(s.positions, s.forces, i)
            g = s.forces
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            rate = decay(i) * np.sqrt(1 - 0.999 ** (i + 1)) / (1 - 0.9 ** (i + 1))
            s.positions += (rate * m / (xp.sqrt(v) + 1e-8)).astype(m.dtype)
            if (i + 1) % every == 0 or i == steps - 1:
                energies.append(self.potential_energy())
        s.forces_fresh = False
        self.draw_momenta()
        return np.array(energies)

    # --- the loop ----------------------------------------------------------------

    def run(
        self,
        steps: int,
        trajectory: str | Path | None = None,
        every: int | Callable[[int], bool] = 10,
        observables_every: int | Callable[[int], bool] | None = None,
        progress: bool = False,
        reporters: Iterable[Reporter] = (),
        *,
        store: Sequence[str] = ("positions",),
        select: Sequence[str] | None = None,
        dtype: str = "float32",
        compression: str | None = None,
        thermometers: bool = True,
        restart_every: int | Callable[[int], bool] | None = None,
        overwrite: bool = False,
        live: bool = False,
    ) -> None:
        """Make ``steps`` steps, and tell the reporters.

        Parameters
        ----------
        steps : int
        trajectory : path, optional
            Write (or, for a simulation resumed from it or that wrote it last, go on
            with) this file; `mdnet.open` reads it.
        every : int or trigger
            Steps between frames.
        observables_every : int or trigger, optional
            Steps between rows of the dense log; ``every`` if not given.  Each row
            needs the energy of all data.
        progress : bool
            Show a bar with the time left, the energy and the temperature.
        reporters : iterable of Reporter
            More listeners; see `mdnet.reporters`.
        store, select, dtype, compression, live
            What a new file holds; see `mdnet.io.TrajectoryWriter`.
        thermometers : bool
            Read configurational and virial temperatures at each frame: three
            gradients of all data, two of them in double precision.
        restart_every : int or trigger, optional
            Steps between restart slots; every hundred frames if not given.
        overwrite : bool
            Replace an existing file instead of refusing.

        Raises
        ------
        DivergenceError
            The energy is no longer finite, or has exploded; the file stays valid.
        TrajectoryError
            The file exists, or cannot be written.
        """
        if not isinstance(steps, (int, np.integer)) or steps < 0:
            raise SchemeError(f"steps={steps!r}: expected an integer >= 0")
        listeners: list[Any] = list(reporters)
        file = self._file(
            trajectory,
            every,
            observables_every,
            restart_every,
            thermometers,
            overwrite,
            {
                "store": tuple(store),
                "select": select,
                "dtype": dtype,
                "compression": compression,
                "live": live,
            },
        )
        if file is not None:
            listeners.append(file)
        target = self.state.step + int(steps)
        if progress:
            listeners.append(Progress(self.state.step, target))
        try:
            if self._baseline is None:
                self._start_ledger()
            self._tell(listeners)
            while self.state.step < target:
                step = self.state.step + 1
                last = min(target, self.state.step + _CHECK_EVERY)
                while step < last and not any(r.due(step) for r in listeners):
                    step += 1
                self._stepper.advance(step - self.state.step, self._probe)
                self._check_divergence()
                self._tell(listeners)
        except BaseException:
            if file is not None:
                file.failed = True
            raise
        finally:
            for listener in listeners:
                listener.close()

    def _tell(self, listeners: list[Any]) -> None:
        for listener in listeners:
            if listener.due(self.state.step):
                listener.report(self)

    def _file(
        self,
        path: str | Path | None,
        every: Any,
        observables_every: Any,
        restart_every: Any,
        thermometers: bool,
        overwrite: bool,
        settings: dict[str, Any],
    ) -> TrajectoryFile | None:
        """Open the trajectory of this run: a new one, or the one to go on with."""
        known = self._append
        same = known is not None and (
            path is None or Path(path).resolve() == Path(known[0])
        )
        if known is not None and same and not overwrite:
            arrays, meta = _io.open_trajectory(known[0]).restart()
            if int(meta["step"]) != self.state.step:
                raise TrajectoryError(
                    f"{known[0]} ends at step {meta['step']} but the simulation is at "
                    f"step {self.state.step}: frames between would be missing; pass "
                    "another path, or overwrite=True"
                )
            file = TrajectoryFile(self, known[0], mode="a", **known[1])
            file.adopt(arrays, meta)
            return file
        if path is None:
            return None
        chosen = {
            "every": every,
            "observables_every": every
            if observables_every is None
            else (observables_every),
            "restart_every": _restart_default(every)
            if restart_every is None
            else restart_every,
            "thermometers": thermometers,
            "settings": settings,
        }
        file = TrajectoryFile(self, path, mode="w" if overwrite else "x", **chosen)
        self._append = (str(Path(path).resolve()), chosen)
        return file

    def _probe(self) -> None:
        """Per-tensor kinetic sums, read just after the last bath of a step."""
        s = self.state
        layer_sums(
            self.backend.xp,
            s.momenta,
            s.momenta,
            self._none,
            self._inverse_mass,
            self._bounds,
            self._after,
        )
        self._probe_step = s.step + 1

    def _check_divergence(self) -> None:
        twice = self.state.ledger(0)
        target = np.broadcast_to(
            self.integrator.target_temperature(self.state.step), twice.shape
        )
        largest = np.finfo(np.float64).max  # at T = 0 nothing sets a scale
        limit = np.where(target > 0, _EXPLODED * self.potential.size * target, largest)
        bad = ~(twice <= limit)
        if not bad.any():
            return
        replica = int(np.argmax(bad))
        energy = float("nan")
        if self._scalars is not None:
            energy = float(self._scalars[1]["potential_energy"][replica])
        elif self._baseline is not None:
            energy = float(self._baseline[replica])
        raise DivergenceError(
            f"replica {replica} diverged by step {self.state.step}: kinetic energy "
            f"{twice[replica] / 2:.4g}, last potential energy {energy:.6g}.  "
            f"{self.integrator.name} needs dt < 2 sqrt(mass / largest curvature)"
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
        """Largest stable step 2 sqrt(mass/curvature) at the present positions.

        Parameters
        ----------
        replica : int, optional
            One replica; all if not given.

        Returns
        -------
        (R,) or (1,) float64
            In the time unit of ``dt`` of the words of `integrators.langevin` and
            `integrators.hamiltonian`.
        """
        rows = slice(None) if replica is None else slice(replica, replica + 1)
        q = self.state.positions[rows].astype(np.float64)
        double = _backend.Backend(
            self.backend.name, "double", self.backend.xp, self.backend.simulated
        )
        evaluator: Any = self.potential.evaluator(double, q.shape[0], self.seed)
        if self.protocol is not None:
            evaluator.set_parameter(float(self.protocol(self.state.step)))
        curvature = observables.largest_curvature(evaluator, q, self.backend.xp)
        with np.errstate(divide="ignore"):
            least = float(np.min(self.integrator.mass))
            return np.asarray(2 * np.sqrt(least / curvature))

    # --- what reporters read -----------------------------------------------------

    @property
    def time(self) -> float:
        """Time done; of replica 0 where ``dt`` differs between replicas."""
        return float(np.ravel(self.state.time)[0])

    def potential_energy(self) -> np.ndarray:
        """U of all data at the present positions, (R,) float64."""
        out = self.backend.xp.empty(self.replicas, np.float64)
        self._evaluator.energies(self.state.positions, out)
        return self.backend.to_host(out)

    def scalars(self) -> dict[str, np.ndarray]:
        """Energies, temperatures and ledger at the present step, (R,) each.

        ``layer_kinetic_temperature`` is (R, L).  Kinetic temperatures are read just
        after the last bath of the step.
        """
        s = self.state
        if self._scalars is not None and self._scalars[0] == s.step:
            return self._scalars[1]
        if self._probe_step != s.step:
            self._probe()
        if self._baseline is None:
            self._start_ledger()
        energy = self.potential_energy()
        kinetic = s.kinetic_energy
        after = s.ledger(1) if self.integrator.scheme.stochastic else 2 * kinetic
        counts = np.diff(self._bounds)
        target = self.integrator.target_temperature(s.step)
        kick, protocol = s.kick_work, np.array(s.protocol_work)
        values = {
            "potential_energy": energy,
            "kinetic_energy": kinetic,
            "kinetic_temperature": observables.kinetic_temperature(after, s.size),
            "target_temperature": np.broadcast_to(target, energy.shape).astype(float),
            "layer_kinetic_temperature": self.backend.to_host(self._after) / counts,
            "heat": s.heat,
            "kick_work": kick,
            "protocol_work": protocol,
            "shadow_work": kick + (energy - self._baseline) - protocol,
        }
        self._scalars = (s.step, values)
        return values

    def thermometers(self, reference: Any) -> dict[str, np.ndarray]:
        """Configurational and virial readings of each tensor, from all data.

        Parameters
        ----------
        reference : Reference
            Keeps the centre of the virial; see `mdnet.reporters`.

        Returns
        -------
        dict
            ``gradient_square``, ``laplacian``, ``virial`` (R, L);
            ``configurational_temperature``, ``virial_temperature`` (R,).
        """
        xp, s = self.backend.xp, self.state
        if self._double is None:
            self._double = self._evaluator
            if self.backend.precision != "double" or self.protocol is not None:
                double = _backend.Backend(
                    self.backend.name, "double", xp, self.backend.simulated
                )
                self._double = self.potential.evaluator(
                    double, self.replicas, self.seed
                )
        if self.protocol is not None:
            self._double.set_parameter(float(self.protocol(s.step)))
        q = s.positions.astype(np.float64)
        gradient = xp.empty(q.shape, np.float64)
        self._double.gradients(q, gradient)
        centre = self.backend.asarray(reference.update(self.backend.to_host(q)))
        one = xp.ones(1, np.float64)
        square, virial = xp.empty_like(self._after), xp.empty_like(self._after)
        bounds = self._bounds
        layer_sums(xp, gradient, gradient, self._none, one, bounds, square)
        layer_sums(xp, q, gradient, centre, one, bounds, virial)
        curvature = observables.laplacian(
            self._double, q, self.potential.layout, xp, self.seed, s.step
        )
        host = self.backend.to_host
        squares, laplacians, virials = host(square), host(curvature), host(virial)
        with np.errstate(divide="ignore", invalid="ignore"):
            configurational = squares.sum(axis=1) / laplacians.sum(axis=1)
        return {
            "gradient_square": squares,
            "laplacian": laplacians,
            "virial": virials,
            "configurational_temperature": configurational,
            "virial_temperature": virials.sum(axis=1) / s.size,
        }

    def arrays(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Positions, momenta or forces on the host, (R, D) each."""
        s = self.state
        if "forces" in names:
            self._stepper.ensure_force()
        return {name: self.backend.to_host(getattr(s, name)) for name in names}

    # --- description, restart ----------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """JSON-able record of everything that determines the run."""
        return {
            "potential": self.potential.describe(),
            "integrator": self.integrator.describe(),
            "protocol": schedules.describe(self.protocol),
            "replicas": self.replicas,
            "size": self.potential.size,
            "seed": self.seed,
            "backend": self.backend.name,
            "precision": self.backend.precision,
            "versions": _versions(),
            "units": {"k_B": 1, "energy": "that of U", "time": "sqrt(mass/stiffness)"},
        }

    def snapshot(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything a bitwise restart needs: arrays and JSON-able counters."""
        s, host = self.state, self.backend.to_host
        self.scalars()
        arrays = {
            "positions": host(s.positions),
            "momenta": host(s.momenta),
            "sums": host(s.sums),
            "protocol_work": s.protocol_work,
            "layer_kinetic": host(self._after),
            "baseline": self._baseline,
            "time": np.asarray(s.time, np.float64),
        }
        if s.forces_fresh:
            arrays["forces"] = host(s.forces)
        return arrays, {"step": s.step, "forces_fresh": s.forces_fresh}

    def _restore(self, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        s = self.state
        for name in ("positions", "momenta", "sums"):
            getattr(s, name)[...] = self.backend.asarray(arrays[name])
        # A path needs the forces of its two ends, which the file has not: they are
        # evaluated again, at the same positions and force call.
        s.forces_fresh = bool(meta["forces_fresh"]) and self.protocol is None
        if s.forces_fresh:
            s.forces[...] = self.backend.asarray(arrays["forces"])
        s.step = int(meta["step"])
        s.time = np.asarray(arrays["time"])[()]
        s.protocol_work = np.array(arrays["protocol_work"])
        self._after[...] = self.backend.asarray(arrays["layer_kinetic"])
        self._probe_step = s.step
        self._baseline = np.array(arrays["baseline"])
        self._scalars = None
        self._stepper = self._make_stepper()

    @classmethod
    def resume(
        cls,
        path: str | Path,
        potential: Potential,
        integrator: Any = None,
        backend: Literal["auto", "cpu", "cuda"] | None = None,
        protocol: Schedule | None = None,
    ) -> Simulation:
        """Go on with a run from its file, bitwise as if it had never stopped.

        ``run`` then appends to the file, at the same cadences.

        Parameters
        ----------
        path : path
            A file written by `run`.
        potential : Potential
            The same as before; a description of it is in the file.
        integrator : Splitting, optional
            Read from the file if not given; needed where a parameter is a schedule
            of the user's own.
        backend : str, optional
            That of the file if not given.
        protocol : schedule, optional
            As ``integrator``.

        Raises
        ------
        TrajectoryError
            No restart in the file, or a potential or integrator that differs.
        """
        file = _io.open_trajectory(path)
        arrays, meta = file.restart()
        config = file.config
        integrator = integrator or integrators.from_description(config["integrator"])
        if protocol is None:
            protocol = schedules.from_description(config["protocol"])
        for name, given in (("potential", potential), ("integrator", integrator)):
            now, then = _plain(given.describe()), config[name]
            if now != then:
                changed = sorted(k for k in {*now, *then} if now.get(k) != then.get(k))
                raise TrajectoryError(
                    f"{path}: was written with another {name}; it differs in "
                    f"{', '.join(changed)} "
                    f"({', '.join(f'{k}: {then.get(k)!r}' for k in changed)} in the "
                    f"file); pass the same {name}, or start a new trajectory"
                )
        sim = cls(
            potential,
            integrator,
            replicas=config["replicas"],
            positions=arrays["positions"],
            momenta=arrays["momenta"],
            seed=config["seed"],
            backend=backend or config["backend"],
            precision=config["precision"],
            protocol=protocol,
        )
        sim._restore(arrays, meta)
        cadence = config["trajectory"]
        sim._append = (
            str(Path(path).resolve()),
            {
                **{
                    key: triggers.from_description(cadence[key])
                    for key in ("every", "observables_every", "restart_every")
                },
                "thermometers": cadence["thermometers"],
                "settings": {"store": tuple(cadence["store"])},
            },
        )
        file.close()
        return sim


def _plain(value: Any) -> Any:
    from mdnet.io import schema

    return json.loads(schema.dumps(value))


def _restart_default(every: Any) -> Any:
    if callable(every):
        return every
    return 100 * int(every)


def _versions() -> dict[str, str]:
    found = {"mdnet": __version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "h5py", "cupy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
