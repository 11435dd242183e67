"""`Simulation`: a potential, an integrator, a state, and the loop between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mdnet import backend as _backend
from mdnet import checks, random, restart, schedules
from mdnet.errors import PotentialError, SchemeError
from mdnet.integrators.companion import Context
from mdnet.kernels.engine import Engine, Program
from mdnet.kernels.letters import BATH
from mdnet.readings import Readings
from mdnet.reporters import Console, trajectory_file
from mdnet.state import State
from mdnet.stepper import Stepper
from mdnet.typing import Array, Potential, Reporter, Schedule

__all__ = ["Simulation"]

_CHECK_EVERY = 1000  # steps between looks at the energy when nothing is reported


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
    matmul : {"float32", "tf32", "bf16"}
        Arithmetic of float32 matrix products on a CUDA device: the last two are
        faster, and their forces are wrong by about 3e-4 and 3e-3.

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
        matmul: Literal["float32", "tf32", "bf16"] = "float32",
    ) -> None:
        checks.kinds(potential, integrator, replicas, seed)
        self.potential = potential
        self.integrator = integrator
        self.replicas = int(replicas)
        self.seed = int(seed)
        self.protocol = protocol
        self.backend = _backend.resolve(backend, precision, matmul)
        checks.parameters(potential, integrator, self.replicas)
        self._evaluator = potential.evaluator(self.backend, self.replicas, self.seed)
        if protocol is not None and not hasattr(self._evaluator, "set_parameter"):
            raise PotentialError(
                "protocol: expected a potential made by potentials.interpolate(U0, "
                f"U1), got {type(potential).__name__}"
            )
        xp, d = self.backend.xp, potential.size
        inverse = 1.0 / np.atleast_1d(np.asarray(integrator.mass, np.float64))
        if getattr(integrator, "adapts_mass", False):
            inverse = np.array(np.broadcast_to(inverse, d))
        self._inverse_mass = self.backend.asarray(inverse)
        self._engine = Engine(
            self.backend,
            self._inverse_mass,
            self.seed,
            d,
            self._evaluator.polynomial,
            integrator.bounds(potential.layout),
        )
        dtype = self.backend.state_dtype
        place = self.backend.zeros((self.replicas, d), dtype)
        place[...] = self.backend.asarray(
            checks.start(potential, self.replicas, self.seed, positions)
        )
        self.state = State(
            backend=self.backend,
            positions=place,
            momenta=self.backend.zeros((self.replicas, d), dtype),
            forces=self.backend.zeros((self.replicas, d), self.backend.force_dtype),
            sums=xp.zeros((4, self.replicas, self._engine.tiles), np.float64),
            time=0.0,
            protocol_work=np.zeros(self.replicas),
        )
        checks.stability(potential, integrator, self._evaluator.full)
        self._companion = integrator.bind(
            Context(
                self.backend,
                self._engine,
                self.state,
                self._evaluator,
                self._inverse_mass,
                potential.layout,
                self.seed,
            )
        )
        if self._companion is not None:
            self.state.variables = self._companion.variables
        # Estimates of the force may depend on the past as well: control variates do.
        kept = getattr(self._evaluator, "variables", None)
        if kept:
            self.state.variables = {**self.state.variables, **kept}
        self._readings = Readings(
            potential,
            integrator,
            self.backend,
            self._evaluator,
            self.state,
            self._inverse_mass,
            self.seed,
            protocol,
            self._companion,
        )
        self.state.potential_energy = self._readings.present_energy
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
            self._companion,
        )

    def _started(self, momenta: bool = False) -> None:
        self._readings.reset(momenta)
        if self._companion is not None:
            self._companion.started()

    def draw_momenta(self) -> None:
        """Draw momenta from the Maxwell-Boltzmann law at the target temperature."""
        program = Program.build(self.backend, [(BATH, 0, random.STREAM_MOMENTA, 0)])
        temperature = self.integrator.target_temperature(self.state.step)
        if self._companion is not None:
            own = self._companion.temperatures(self.state.step)
            temperature = temperature if own is None else own
        if np.ndim(temperature) < 2:
            temperature = np.reshape(temperature, (-1, 1))
        table = np.zeros((1, 1, self.replicas, self._engine.group_count, 2))
        table[..., 1] = np.sqrt(temperature)
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
        self._started(momenta=True)

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
        self._started(momenta=True)

    def set_positions(self, positions: Any) -> None:
        """Set the positions, (R, D) or (D,), and start the energy ledger anew."""
        self.state.positions[...] = self.backend.asarray(
            checks.start(self.potential, self.replicas, self.seed, positions)
        )
        self.state.forces_fresh = False
        self._started()

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
            self._restrict()
            g = s.forces
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            rate = decay(i) * np.sqrt(1 - 0.999 ** (i + 1)) / (1 - 0.9 ** (i + 1))
            s.positions += (rate * m / (xp.sqrt(v) + 1e-8)).astype(m.dtype)
            self._restrict()
            if (i + 1) % every == 0 or i == steps - 1:
                energies.append(self.potential_energy())
        s.forces_fresh = False
        self.draw_momenta()
        return np.array(energies)

    def _restrict(self) -> None:
        if self._companion is not None:
            self._companion.restrict(self.state.positions, self.state.forces)

    # --- the loop ----------------------------------------------------------------

    def run(
        self,
        steps: int,
        trajectory: str | Path | None = None,
        every: int | Callable[[int], bool] | None = None,
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
        every : int or trigger, optional
            Steps between frames; 10 if not given.  A file that is continued keeps its
            own cadences.
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
            The file exists, cannot be written, or has another cadence.
        """
        if not isinstance(steps, (int, np.integer)) or steps < 0:
            raise SchemeError(f"steps={steps!r}: expected an integer >= 0")
        listeners: list[Any] = list(reporters)
        file, self._append = trajectory_file(
            self,
            self._append,
            trajectory,
            {
                "every": every,
                "observables_every": observables_every,
                "restart_every": restart_every,
            },
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
            listeners.append(Console(self.state.step, target))
        try:
            if self._readings.baseline is None:
                self._readings.start()
            self._tell(listeners)
            while self.state.step < target:
                step = self.state.step + 1
                # At multiples, so that a resumed run makes the same launches.
                check = (self.state.step // _CHECK_EVERY + 1) * _CHECK_EVERY
                last = min(target, check)
                while step < last and not any(r.due(step) for r in listeners):
                    step += 1
                self._stepper.advance(step - self.state.step, self._readings.probe)
                self._readings.check_divergence()
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

    # --- what reporters read -----------------------------------------------------

    @property
    def time(self) -> float:
        """Time done; of replica 0 where ``dt`` differs between replicas."""
        return float(np.ravel(self.state.time)[0])

    def stability_limit(self, replica: int | None = None) -> np.ndarray:
        """Largest stable step 2/omega at the present positions.

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
        return self._readings.stability_limit(replica)

    def potential_energy(self) -> np.ndarray:
        """U of all data at the present positions, (R,) float64."""
        return self._readings.potential_energy()

    def scalars(self) -> dict[str, np.ndarray]:
        """Energies, temperatures and ledger at the present step, (R,) each.

        ``layer_kinetic_temperature`` is (R, L).  Kinetic temperatures are read just
        after the last bath of the step.
        """
        return self._readings.scalars()

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
        return self._readings.thermometers(reference)

    def arrays(self, names: Sequence[str], host: bool = True) -> dict[str, Array]:
        """Positions, momenta or forces, (R, D) each, on the host or where they are."""
        s = self.state
        if "forces" in names:
            self._stepper.ensure_force()
        found = {name: getattr(s, name) for name in names}
        if not host:
            return found
        return {name: self.backend.to_host(value) for name, value in found.items()}

    # --- description, restart ----------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """JSON-able record of everything that determines the run."""
        return restart.describe(self)

    def snapshot(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything a bitwise restart needs: arrays and JSON-able counters."""
        return restart.snapshot(self)

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
        found = restart.load(path, potential, integrator, protocol)
        config = found.config
        sim = cls(
            potential,
            found.integrator,
            replicas=config["replicas"],
            positions=found.arrays["positions"],
            momenta=found.arrays["momenta"],
            seed=config["seed"],
            backend=backend or config["backend"],
            precision=config["precision"],
            protocol=found.protocol,
            matmul=config["matmul"],
        )
        restart.restore(sim.state, sim._readings, found, sim.backend)
        sim._stepper = sim._make_stepper()
        sim._append = (str(Path(path).resolve()), found.cadence)
        return sim
