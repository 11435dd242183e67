"""What a file must hold for a bitwise restart, and how a simulation is read back."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from mdnet import integrators, schedules, triggers
from mdnet._version import __version__
from mdnet.backend import Backend
from mdnet.errors import TrajectoryError
from mdnet.io import open_trajectory, schema
from mdnet.readings import Readings
from mdnet.state import State
from mdnet.typing import Potential, Schedule

__all__ = ["Found", "describe", "load", "restore", "snapshot"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a file says of the run it holds.

    Attributes
    ----------
    arrays, meta : dict
        Of the newest whole restart slot.
    config : dict
        What `describe` wrote.
    integrator, protocol
        As given, or as read back.
    cadence : dict
        How to go on writing: arguments of `mdnet.reporters.TrajectoryFile`.
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    config: dict[str, Any]
    integrator: Any
    protocol: Schedule | None
    cadence: dict[str, Any]


def describe(simulation: Any) -> dict[str, Any]:
    """JSON-able record of everything that determines a run."""
    return {
        "potential": simulation.potential.describe(),
        "integrator": simulation.integrator.describe(),
        "protocol": schedules.describe(simulation.protocol),
        "degrees_of_freedom": _by_tensor(simulation, simulation._readings.counts),
        "measured": _by_tensor(simulation, simulation._readings.measured),
        "replicas": simulation.replicas,
        "size": simulation.potential.size,
        "seed": simulation.seed,
        "backend": simulation.backend.name,
        "precision": simulation.backend.precision,
        "matmul": simulation.backend.matmul,
        "versions": _versions(),
        "units": {"k_B": 1, "energy": "that of U", "time": "sqrt(mass/stiffness)"},
    }


def snapshot(simulation: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Everything a bitwise restart needs: arrays and JSON-able counters."""
    s, readings = simulation.state, simulation._readings
    host = simulation.backend.to_host
    readings.scalars()
    arrays = {
        "positions": host(s.positions),
        "momenta": host(s.momenta),
        "sums": host(s.sums),
        "protocol_work": s.protocol_work,
        "layer_kinetic": host(readings.after),
        "baseline": readings.baseline,
        "time": np.asarray(s.time, np.float64),
    }
    for name, value in s.variables.items():
        arrays[f"variable_{name}"] = host(value)
    if s.forces_fresh:
        arrays["forces"] = host(s.forces)
    return arrays, {"step": s.step, "forces_fresh": s.forces_fresh}


def restore(state: State, readings: Readings, found: Found, backend: Backend) -> None:
    """Put what `snapshot` took back into a state of the same shape."""
    arrays, meta = found.arrays, found.meta
    for name in ("positions", "momenta", "sums"):
        getattr(state, name)[...] = backend.asarray(arrays[name])
    # A path needs the forces of its two ends, which the file has not: they are
    # evaluated again, at the same positions and force call.
    state.forces_fresh = bool(meta["forces_fresh"]) and found.protocol is None
    if state.forces_fresh:
        state.forces[...] = backend.asarray(arrays["forces"])
    for name, value in state.variables.items():
        saved = arrays[f"variable_{name}"]
        value[...] = saved if isinstance(value, np.ndarray) else backend.asarray(saved)
    state.step = int(meta["step"])
    state.time = np.asarray(arrays["time"])[()]
    state.protocol_work = np.array(arrays["protocol_work"])
    readings.adopt(arrays["layer_kinetic"], arrays["baseline"])


def load(
    path: str | Path, potential: Potential, integrator: Any, protocol: Schedule | None
) -> Found:
    """Read a file's newest restart, and refuse another potential or integrator.

    Raises
    ------
    TrajectoryError
        No restart in the file, or a description that differs.
    """
    with open_trajectory(path) as file:
        arrays, meta = file.restart()
        config = file.config
    integrator = integrator or integrators.from_description(config["integrator"])
    if protocol is None:
        protocol = schedules.from_description(config["protocol"])
    for name, given in (("potential", potential), ("integrator", integrator)):
        now, then = json.loads(schema.dumps(given.describe())), config[name]
        if now != then:
            changed = sorted(k for k in {*now, *then} if now.get(k) != then.get(k))
            raise TrajectoryError(
                f"{path}: was written with another {name}; it differs in "
                f"{', '.join(changed)} "
                f"({', '.join(f'{k}: {then.get(k)!r}' for k in changed)} in the "
                f"file); pass the same {name}, or start a new trajectory"
            )
    written = config["trajectory"]
    cadence: dict[str, Any] = {
        key: triggers.from_description(written[key])
        for key in ("every", "observables_every", "restart_every")
    }
    cadence["thermometers"] = written["thermometers"]
    cadence["settings"] = {"store": tuple(written["store"])}
    return Found(arrays, meta, config, integrator, protocol, cadence)


def _by_tensor(simulation: Any, counts: np.ndarray) -> dict[str, int]:
    return dict(zip(simulation.potential.layout, counts.tolist(), strict=True))


def _versions() -> dict[str, str]:
    found = {"mdnet": __version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "h5py", "cupy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
