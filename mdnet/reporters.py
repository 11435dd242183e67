"""What listens to a run: records in memory, progress bar, callback, trajectory file.

A reporter says when it is `due` and is then handed the simulation; it reads
`Simulation.scalars`, `Simulation.thermometers` and `Simulation.arrays`, which compute
each number once a step however many listen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdnet import triggers
from mdnet.errors import TrajectoryError
from mdnet.io import open_trajectory
from mdnet.io.writer import TrajectoryWriter
from mdnet.kernels.outbox import Frame, Outbox
from mdnet.triggers import Trigger, as_trigger
from mdnet.typing import Series

__all__ = ["Callback", "Console", "Memory", "TrajectoryFile", "trajectory_file"]


class Callback:
    """Call ``function(simulation)`` whenever ``every`` says so.

    Parameters
    ----------
    function : callable
    every : int or trigger
    """

    def __init__(self, function: Callable[[Any], None], every: int | Trigger) -> None:
        self.due = as_trigger(every)
        self._function = function

    def report(self, simulation: Any) -> None:
        """Call the function."""
        self._function(simulation)

    def close(self) -> None:
        """Nothing to do."""


class Memory:
    """Keep positions and scalar series in memory; analysis reads it like a file.

    Parameters
    ----------
    every : int or trigger
    positions : bool
        Whether to keep positions too.
    thermometers : bool
        Whether to read the configurational and virial thermometers (two or more
        gradients of all data each time).

    Attributes
    ----------
    layout, replicas, size, config
        Of the simulation, once something was reported.
    """

    def __init__(
        self,
        every: int | Trigger = 1,
        positions: bool = True,
        thermometers: bool = False,
    ) -> None:
        self.due = as_trigger(every)
        self.layout: Any = {}
        self.replicas = self.size = 0
        self.config: dict[str, Any] = {}
        self._keep = positions
        self._thermometers = thermometers
        self._reference = Reference()
        self._steps: list[int] = []
        self._times: list[float] = []
        self._frames: list[np.ndarray] = []
        self._values: dict[str, list[np.ndarray]] = {}

    def report(self, simulation: Any) -> None:
        """Copy what is asked for."""
        if self._steps and self._steps[-1] == simulation.state.step:
            return
        self.layout = simulation.potential.layout
        self.replicas, self.size = simulation.replicas, simulation.potential.size
        self.config = simulation.describe()
        self._steps.append(simulation.state.step)
        self._times.append(simulation.time)
        if self._keep:
            self._frames.append(simulation.arrays(("positions",))["positions"].copy())
        values = dict(simulation.scalars())
        if self._thermometers:
            values |= simulation.thermometers(self._reference)
        for name, value in values.items():
            self._values.setdefault(name, []).append(np.array(value))

    def close(self) -> None:
        """Nothing to do."""

    @property
    def positions(self) -> np.ndarray:
        """Recorded positions, (T, R, D)."""
        return np.array(self._frames)

    @property
    def steps(self) -> np.ndarray:
        """Steps of the records, (T,)."""
        return np.array(self._steps)

    @property
    def times(self) -> np.ndarray:
        """Times of the records, (T,)."""
        return np.array(self._times)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recorded series."""
        return tuple(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> Series:
        if name not in self._values:
            raise TrajectoryError(
                f"series {name!r} was not recorded; there are {', '.join(self.names)}"
            )
        return Series(np.array(self._values[name]), self.steps, self.times)

    def __len__(self) -> int:
        return len(self._steps)


class Console:
    """A bar with the time left and the live energy and temperature (means).

    Parameters
    ----------
    start, stop : int
        Steps at which the run begins and ends.
    """

    def __init__(self, start: int, stop: int) -> None:
        from tqdm import tqdm

        self._every = max((stop - start) // 100, 1)
        self._start, self._stop = start, stop
        self._at = start
        self._bar = tqdm(
            total=stop - start, unit="step", file=sys.stderr, dynamic_ncols=True
        )
        self._shown = 0.0

    def due(self, step: int) -> bool:
        """A hundred times a run, and at its end."""
        return (step - self._start) % self._every == 0 or step == self._stop

    def report(self, simulation: Any) -> None:
        """Advance the bar; energies are read at most once a second."""
        step = simulation.state.step
        self._bar.update(step - self._at)
        self._at = step
        now = time.monotonic()
        if now - self._shown > 1 or step == self._stop:
            scalars = simulation.scalars()
            energy = scalars["potential_energy"].mean()
            kinetic = scalars["kinetic_temperature"].mean()
            self._bar.set_postfix_str(f"U={energy:.4g} T={kinetic:.3g}")
            self._shown = now

    def close(self) -> None:
        """End the bar's line."""
        self._bar.close()


class Reference:
    """Centre of the virial thermometer: a mean of past positions over replicas.

    It moves only when the number of readings doubles, so that a reading and its
    centre are all but independent; a centre that followed every reading would read
    cold.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray | None = None
        self.centre: np.ndarray | None = None

    def update(self, positions: np.ndarray) -> np.ndarray:
        """Return the centre (D,) for this reading, then learn from it."""
        now = positions.mean(axis=0, dtype=np.float64)
        if self.mean is None or self.centre is None:
            self.mean, self.centre, self.count = now, now.copy(), 1
            return self.centre
        centre = self.centre
        self.count += 1
        self.mean += (now - self.mean) / self.count
        if self.count & (self.count - 1) == 0:
            self.centre = self.mean.copy()
        return centre


class TrajectoryFile:
    """Writes frames, the dense log and restart slots of a run to one HDF5 file.

    Parameters
    ----------
    simulation : Simulation
    path : path-like
    every : int or trigger
        Frames.
    observables_every : int or trigger
        Rows of the dense log.
    restart_every : int or trigger
        Restart slots; one more is written when a run ends.
    thermometers : bool
        Whether each frame reads the configurational and virial thermometers.
    settings : dict
        ``store``, ``select``, ``dtype``, ``compression``, ``live`` of the writer.
    mode : {"x", "w", "a"}
        New file, overwrite, or go on from the newest restart slot.
    """

    def __init__(
        self,
        simulation: Any,
        path: str | Path,
        *,
        every: int | Trigger,
        observables_every: int | Trigger,
        restart_every: int | Trigger,
        thermometers: bool,
        settings: dict[str, Any],
        mode: Any,
    ) -> None:
        self._frame_due = as_trigger(every)
        self._log_due = as_trigger(observables_every)
        self._restart_due = as_trigger(restart_every)
        self._thermometers = thermometers
        self._store: Sequence[str] = settings.get("store", ("positions",))
        self._reference = Reference()
        self._simulation = simulation
        self._last_restart = -1
        self.failed = False
        potential = simulation.potential
        config = simulation.describe()
        config["trajectory"] = {
            "every": triggers.describe(every),
            "observables_every": triggers.describe(observables_every),
            "restart_every": triggers.describe(restart_every),
            "thermometers": thermometers,
            "store": list(self._store),
        }
        self.writer = TrajectoryWriter(
            path,
            layout=potential.layout,
            replicas=simulation.replicas,
            size=potential.size,
            mass=simulation.integrator.mass,
            config=config,
            mode=mode,
            **settings,
        )
        self._last_frame = self.writer.last_frame_step
        self._outbox = {name: Outbox(simulation.backend) for name in self._store}
        self._pending: tuple[int, float, dict[str, Frame], dict[str, Any]] | None = None

    def adopt(self, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Go on with the virial centre of a restart slot."""
        if "virial_mean" in arrays:
            self._reference.mean = arrays["virial_mean"].copy()
            self._reference.centre = arrays["virial_centre"].copy()
            self._reference.count = int(meta["virial_count"])
        self._last_restart = int(meta["step"])

    def due(self, step: int) -> bool:
        """Whether any of the three is."""
        return self._frame_due(step) or self._log_due(step) or self._restart_due(step)

    def report(self, simulation: Any) -> None:
        """Write what is due at the present step."""
        step, now = simulation.state.step, simulation.time
        fresh = self._last_frame is None or step > self._last_frame
        if self._log_due(step):
            self.writer.log(step, now, simulation.scalars())
        if self._frame_due(step) and fresh:
            scalars = simulation.scalars()
            values = {name: v for name, v in scalars.items() if v.ndim == 1}
            if self._thermometers:
                values |= simulation.thermometers(self._reference)
            self._last_frame = step
            if simulation.backend.name == "cpu":
                self.writer.frame(step, now, simulation.arrays(self._store), values)
            else:  # copied while the next steps run
                self._flush()
                arrays = simulation.arrays(self._store, host=False)
                sent = {name: self._outbox[name].send(arrays[name]) for name in arrays}
                self._pending = (step, now, sent, values)
        if self._restart_due(step) and step > self._last_restart:
            self._restart(simulation)

    def _flush(self) -> None:
        """Hand the frame that was on its way from the device to the writer."""
        if self._pending is not None:
            step, now, sent, values = self._pending
            self._pending = None
            arrays = {name: frame.get() for name, frame in sent.items()}
            self.writer.frame(step, now, arrays, values)

    def _restart(self, simulation: Any) -> None:
        self._flush()
        arrays, meta = simulation.snapshot()
        if self._reference.mean is not None and self._reference.centre is not None:
            arrays["virial_mean"] = self._reference.mean
            arrays["virial_centre"] = self._reference.centre
            meta["virial_count"] = self._reference.count
        self.writer.restart(arrays, meta)
        self._last_restart = simulation.state.step

    def close(self) -> None:
        """Write a last restart slot (unless the run failed) and close the file."""
        try:
            self._flush()
            if not self.failed and self._simulation.state.step > self._last_restart:
                self._restart(self._simulation)
        finally:
            self.writer.close()


_Known = tuple[str, dict[str, Any]]


def trajectory_file(
    simulation: Any,
    known: _Known | None,
    path: str | Path | None,
    cadence: dict[str, Any],
    thermometers: bool,
    overwrite: bool,
    settings: dict[str, Any],
) -> tuple[TrajectoryFile | None, _Known | None]:
    """Open the trajectory of a run: a new one, or the one to go on with.

    Parameters
    ----------
    simulation : Simulation
    known : (path, arguments) or None
        The file that this simulation wrote last or was resumed from.
    path : path-like or None
    cadence : dict
        ``every``, ``observables_every``, ``restart_every``, each None if not given.
    thermometers, overwrite : bool
    settings : dict
        Of a new file; see `TrajectoryFile`.

    Returns
    -------
    file : TrajectoryFile or None
    known : (path, arguments) or None
        What to hand over at the next run.

    Raises
    ------
    TrajectoryError
        A file that exists, or that ends elsewhere, or that has another cadence.
    """
    same = known is not None and (
        path is None or Path(path).resolve() == Path(known[0])
    )
    if known is not None and same and not overwrite:
        arrays, meta = open_trajectory(known[0]).restart()
        if int(meta["step"]) != simulation.state.step:
            raise TrajectoryError(
                f"{known[0]} ends at step {meta['step']} but the simulation is at "
                f"step {simulation.state.step}: frames between would be missing; pass "
                "another path, or overwrite=True"
            )
        for name, value in cadence.items():
            if value is not None and value != known[1][name]:
                raise TrajectoryError(
                    f"{name}={value!r}: {known[0]} is continued and goes on at "
                    f"{name}={known[1][name]!r}; leave {name} out, or pass another "
                    "path"
                )
        file = TrajectoryFile(simulation, known[0], mode="a", **known[1])
        file.adopt(arrays, meta)
        return file, known
    if path is None:
        return None, known
    every, log, slots = cadence.values()
    every = 10 if every is None else every
    often = 100 * every if isinstance(every, int) else every
    chosen: dict[str, Any] = {
        "every": every,
        "observables_every": every if log is None else log,
        "restart_every": often if slots is None else slots,
        "thermometers": thermometers,
        "settings": settings,
    }
    mode = "w" if overwrite else "x"
    file = TrajectoryFile(simulation, path, mode=mode, **chosen)
    return file, (str(Path(path).resolve()), chosen)
