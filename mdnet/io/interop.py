"""Copies for other programs: ArviZ and MDAnalysis objects made from native frames.

Both programs also open the file by themselves (``arviz.from_netcdf(path)``,
``MDAnalysis.Universe(path)``); these functions read faster and know more.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.errors import BackendError, TrajectoryError
from mdnet.io.views import posterior_names

if TYPE_CHECKING:
    from mdnet.io.reader import Trajectory

__all__ = ["to_arviz", "to_mdanalysis"]


def _load(module: str, extra: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(
            f"{purpose} needs {module}, which is not installed; install the extra: "
            f"python -m pip install -e '.[{extra}]'"
        ) from error


def to_arviz(run: Trajectory) -> Any:
    """Copy positions and per-replica series to an ArviZ object.

    Chains are replicas, draws are frames; ``sample_stats`` has ``lp`` = -U, ``energy``
    = U + K and every (T, R) series on frames.

    Parameters
    ----------
    run : Trajectory

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Of ArviZ before 1.0, and since.

    Raises
    ------
    BackendError
        ArviZ is missing.
    """
    arviz = _load("arviz", "bayes", "to_arviz()")
    groups: dict[str, dict[str, Any]] = {}
    if "positions" in run.store:
        whole = run.positions[:].swapaxes(0, 1)
        names = posterior_names(tuple(run.layout))
        groups["posterior"] = {
            names[name]: whole[:, :, where].reshape(*whole.shape[:2], *shape)
            for name, (where, shape) in run.layout.items()
        }
    groups["sample_stats"] = _statistics(run)
    groups = {name: group for name, group in groups.items() if group}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups)
    return arviz.from_dict(**groups)


def _statistics(run: Trajectory) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in run.names_on_frames:
        value = run.observable(name).value
        if value.ndim == 2:
            out[name] = value.T
    if "potential_energy" in out:
        out.setdefault("lp", -out["potential_energy"])
        if "kinetic_energy" in out:
            total = out["potential_energy"] + out["kinetic_energy"]
            out.setdefault("energy", total)
    return out


def to_mdanalysis(run: Trajectory, replica: int = 0) -> Any:
    """Copy one replica to an MDAnalysis universe.

    An atom is a parameter at (q, 0, 0): its mass is the parameter's, its name and type
    the tensor's.  Frames are copied to memory as float32; velocities and forces come
    along where they are stored.  For a lazy view of the first replica use
    ``MDAnalysis.Universe(run.path)``.

    Parameters
    ----------
    run : Trajectory
        With stored positions.
    replica : int
        Which replica.

    Returns
    -------
    MDAnalysis.Universe

    Raises
    ------
    BackendError
        MDAnalysis is missing.
    TrajectoryError
        No such replica, no frames, or positions that were not stored.
    """
    analysis = _load("MDAnalysis", "mdanalysis", "to_mdanalysis()")
    if not 0 <= replica < run.replicas:
        raise TrajectoryError(
            f"replica={replica!r}: expected one of 0 to {run.replicas - 1}"
        )
    times = run.times
    if len(times) == 0:
        raise TrajectoryError(f"{run.path} has no frame yet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its hints about guessed attributes
        universe = analysis.Universe.empty(run.size, trajectory=False)
        species = np.repeat(
            np.array(list(run.layout), object),
            [where.stop - where.start for where, _ in run.layout.values()],
        )
        universe.add_TopologyAttr("names", species)
        universe.add_TopologyAttr("types", species)
        universe.add_TopologyAttr("masses", run.masses)
        universe.add_TopologyAttr("ids", run.ids)
        universe.load_new(
            _line(run.positions, replica),
            order="fac",
            velocities=_line(run.velocities, replica)
            if "momenta" in run.store
            else None,
            forces=_line(run.forces, replica) if "forces" in run.store else None,
            dt=float(times[1] - times[0]) if len(times) > 1 else 1.0,
            time_offset=float(times[0]),
        )
    return universe


def _line(frames: Any, replica: int) -> Any:
    """(T, N) of one replica as points (T, N, 3) on the x axis."""
    flat = frames[:, replica]
    out = np.zeros((*flat.shape, 3), np.float32)
    out[..., 0] = flat
    return out
