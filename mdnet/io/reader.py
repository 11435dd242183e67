"""Reading trajectories: `open_trajectory` and the lazy `Trajectory` it returns.

Reads the native datasets, never the virtual views, and never a row that the counts do
not cover.  While a run goes on the file is opened anew whenever it has changed.
"""

from __future__ import annotations

import json
import os
import time as clock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mdnet.errors import TrajectoryError
from mdnet.io import checkpoint, files, integrity, interop, schema
from mdnet.io.lazy import Frames
from mdnet.io.schema import Header
from mdnet.typing import Series

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py

    from mdnet.typing import Layout

__all__ = ["Trajectory", "open_trajectory"]

_ATTEMPTS = 20
_PAUSE = 0.05  # seconds; a flush takes a few milliseconds

T = TypeVar("T")


def open_trajectory(path: str | os.PathLike[str]) -> Trajectory:
    """Open a trajectory file, also while it is being written.

    Parameters
    ----------
    path : path-like
        A file of `TrajectoryWriter`.

    Returns
    -------
    Trajectory
        Lazy: nothing but the settings is read yet.

    Raises
    ------
    TrajectoryError
        Not there, not HDF5, not ours, truncated, or of a newer schema.
    """
    return Trajectory(path)


class Trajectory:
    """An open trajectory file; see `open_trajectory`.

    Attributes
    ----------
    path : str
    config : dict
        Settings of the run: "potential", "integrator", "precision", "seed", ...
    layout : dict
        Ordered ``{name: (slice, shape)}`` of the stored parameters.
    full_layout : dict
        The same of all parameters of the potential (what a restart holds).
    replicas : int
        R.
    size, full_size : int
        Parameters stored, N, and all of them, D: equal unless tensors were selected.
    store : tuple of str
        Stored quantities, of "positions", "momenta", "forces".

    Notes
    -----
    A context manager; ``len(run)`` is the number of frames.  ``run[name]`` is the
    dense log of a series if there is one, else its values on frames.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = os.path.abspath(self.path)  # it is opened again, from anywhere
        self._stamp: tuple[int, int] | None = None
        self._handle: h5py.File | None = None
        self._shut = False
        self._masses: npt.NDArray[np.float64] | None = None
        text, header = self._read(
            lambda f: (f[schema.CONFIG][()], f[schema.HEADER][()])
        )
        try:
            self.config: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise TrajectoryError(f"{schema.CONFIG} is damaged ({error})") from error
        self.header = Header.from_json(header.decode())
        self.layout: Layout = self.header.stored_layout
        self.full_layout: Layout = dict(self.header.layout)
        self.replicas = self.header.replicas
        self.size = self.header.stored_size
        self.full_size = self.header.size
        self.store = self.header.store

    def __enter__(self) -> Trajectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Trajectory], tuple[str]]:
        return Trajectory, (self._file,)

    def __repr__(self) -> str:
        state = "closed" if self._shut else f"{len(self)} frames"
        return f"<Trajectory {self.path!r}: {state}, R={self.replicas}, N={self.size}>"

    def __len__(self) -> int:
        return int(self._read(lambda f: f[schema.COUNTS][0]))

    def close(self) -> None:
        """Close the file; reading afterwards raises."""
        self._shut = True
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    @property
    def complete(self) -> bool:
        """Whether its writer closed the file (False while a run goes on)."""
        return bool(self._read(lambda f: f[schema.COUNTS][2]))

    @property
    def positions(self) -> Frames:
        """Positions, indexed as (T, R, N): ``run.positions[100:200]``."""
        return self._frames("positions")

    @property
    def momenta(self) -> Frames:
        """Momenta, indexed as (T, R, N); kept as velocities, multiplied back."""
        masses = self.masses
        unit = bool(np.all(masses == 1.0))
        return self._frames("momenta", None if unit else masses)

    @property
    def forces(self) -> Frames:
        """Forces, indexed as (T, R, N)."""
        return self._frames("forces")

    @property
    def velocities(self) -> Frames:
        """Velocities p/m, indexed as (T, R, N); there when momenta are stored."""
        return self._frames("momenta")

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Step of every frame, (T,)."""
        return self._axis(schema.STEP, 0)

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Time of every frame, (T,)."""
        return self._axis(schema.TIME, 0)

    @property
    def masses(self) -> npt.NDArray[np.float64]:
        """Mass of every stored parameter, (N,)."""
        if self._masses is None:
            path = f"{schema.PARTICLES}/{schema.walker(0)}/mass"
            self._masses = np.asarray(self._read(lambda f: f[path][()]), np.float64)
            self._masses.flags.writeable = False
        return self._masses

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Index of every stored parameter among all D, (N,)."""
        path = f"{schema.PARTICLES}/{schema.walker(0)}/id"
        return np.asarray(self._read(lambda f: f[path][()]), np.int64)

    @property
    def names_on_frames(self) -> tuple[str, ...]:
        """The series recorded on the frame grid."""
        return tuple(sorted(self._read(_series_names)[1]))

    @property
    def names(self) -> tuple[str, ...]:
        """Every recorded series, dense or on frames."""
        dense, on_frames = self._read(_series_names)
        return tuple(sorted({*dense, *on_frames}))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Series:
        """Return a series at its finest cadence.

        Raises
        ------
        TrajectoryError
            A name that was not recorded.
        """
        dense, on_frames = self._read(_series_names)
        if name in dense:
            return self._read(lambda f: _read_series(f, name, dense=True))
        if name in on_frames:
            return self._read(lambda f: _read_series(f, name, dense=False))
        raise self._unknown(name, {*dense, *on_frames})

    def observable(self, name: str) -> Series:
        """Return a series on the frame grid: T as in `positions`.

        Raises
        ------
        TrajectoryError
            A name that was not recorded on frames.
        """
        on_frames = self._read(_series_names)[1]
        if name not in on_frames:
            raise self._unknown(name, on_frames, " on frames")
        return self._read(lambda f: _read_series(f, name, dense=False))

    def layer(self, name: str) -> Frames:
        """Positions of one tensor, indexed as (T, R, *shape).

        Raises
        ------
        TrajectoryError
            A tensor that is not there or not stored.
        """
        if name not in self.layout:
            known = ", ".join(self.layout)
            why = "was not selected" if name in self.full_layout else "does not exist"
            raise TrajectoryError(f"layer({name!r}) {why}; stored tensors are {known}")
        where, shape = self.layout[name]
        return self._frames("positions", None, where, shape)

    def restart(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Return arrays and record of the newest restart whose checksum is right.

        Raises
        ------
        TrajectoryError
            None was written, or all are damaged.
        """
        slot = self._read(checkpoint.newest)
        if slot is None:
            raise TrajectoryError(
                f"{self.path} holds no valid restart: its run cannot be resumed, but "
                "its frames can be read"
            )
        return slot.arrays, slot.meta

    def info(self) -> str:
        """Summary for people, of several lines."""
        return integrity.summary(self)

    def check(self) -> list[str]:
        """Problems found in the whole file, in words; empty when there is none.

        Reads every frame once.
        """
        return integrity.problems(self)

    def to_arviz(self) -> Any:
        """Copy to an ArviZ object (chains are replicas, draws are frames).

        Raises
        ------
        BackendError
            ArviZ is missing (the extra ``bayes``).
        """
        return interop.to_arviz(self)

    def to_mdanalysis(self, replica: int = 0) -> Any:
        """MDAnalysis universe of one replica; see `mdnet.io.interop.to_mdanalysis`."""
        return interop.to_mdanalysis(self, replica)

    def _unknown(self, name: Any, known: Any, where: str = "") -> TrajectoryError:
        return TrajectoryError(
            f"series {name!r} was not recorded{where}; there are "
            f"{', '.join(sorted(known)) or 'none'}"
        )

    def _frames(
        self,
        quantity: str,
        scale: npt.NDArray[np.float64] | None = None,
        where: slice | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Frames:
        if quantity not in self.store:
            raise TrajectoryError(
                f"{quantity} were not stored in {self.path} (store={self.store}); run "
                f"with {quantity!r} in store"
            )
        where = slice(0, self.size) if where is None else where
        path = schema.QUANTITIES[quantity].path
        return Frames(
            self._read,
            path,
            self.replicas,
            where,
            (where.stop - where.start,) if shape is None else shape,
            np.dtype(self.header.dtype),
            scale,
        )

    def _axis(self, path: str, counter: int) -> npt.NDArray[Any]:
        return self._read(lambda f: f[path][: int(f[schema.COUNTS][counter])])

    def _read(self, what: Callable[[h5py.File], T]) -> T:
        """Read from the file as it is now.

        Another process may be in the middle of a flush: what cannot be read is tried
        again as long as the file changes.
        """
        for attempt in range(_ATTEMPTS):
            stamp = self._refresh()
            try:
                if not self._handle:  # none, or closed for a writer in this process
                    self._handle = files.open_read(self._file)
                return what(self._handle)
            except (OSError, KeyError, RuntimeError, ValueError) as error:
                lasting = attempt > 0 and stamp == _stamp(self._file)
                if self._shut or lasting or attempt == _ATTEMPTS - 1:
                    if isinstance(error, TrajectoryError):
                        raise
                    raise TrajectoryError(
                        f"{self.path} could not be read: {error}"
                    ) from error
                self._drop()
                clock.sleep(_PAUSE)
        raise TrajectoryError(f"{self.path} changes faster than it can be read")

    def _refresh(self) -> tuple[int, int]:
        if self._shut:
            raise TrajectoryError(f"{self.path} is closed; open it again")
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            self._drop()
            self._stamp = stamp
        return stamp

    def _drop(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise TrajectoryError(f"{path} does not exist ({error})") from error
    return status.st_mtime_ns, status.st_size


def _series_names(handle: h5py.File) -> tuple[set[str], set[str]]:
    dense = {*handle[schema.LOG], *handle[schema.LEDGER_GROUP]}
    rows = int(handle[schema.COUNTS][1])
    return (
        dense - set(schema.RESERVED) if rows else set(),
        set(handle[schema.OBSERVABLES]),
    )


def _read_series(handle: h5py.File, name: str, *, dense: bool) -> Series:
    counts = handle[schema.COUNTS][...]
    if dense:
        path, step, time = schema.log_path(name), schema.LOG_STEP, schema.LOG_TIME
    else:
        path, step, time = (
            f"{schema.OBSERVABLES}/{name}/value",
            schema.STEP,
            schema.TIME,
        )
    rows = int(counts[1 if dense else 0])
    return Series(handle[path][:rows], handle[step][:rows], handle[time][:rows])
