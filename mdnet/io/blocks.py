"""Row buffers: what the main thread fills while the background thread writes.

A call into HDF5 costs about a hundred microseconds whatever its size, so that rows
are gathered here and written a block at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import TrajectoryError
from mdnet.io import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mdnet.io.schema import Header

__all__ = ["Block", "Rows", "frame_chunk", "series_chunk"]

_CHUNK_BYTES = 2**20
_MAX_CHUNK_BYTES = 2**22
_MAX_CHUNK_FRAMES = 1024
_SERIES_CHUNK_BYTES = 2**16


def frame_chunk(header: Header) -> tuple[int, int, int]:
    """Chunk (R, T, N) of native frames: about a megabyte, all replicas together.

    A filtered chunk moves when it is written again, and a process killed meanwhile
    would lose it: such chunks hold one frame, written once.
    """
    itemsize = np.dtype(header.dtype).itemsize
    replicas, parameters = header.replicas, header.stored_size
    frame = replicas * parameters * itemsize
    if frame > _MAX_CHUNK_BYTES:
        replicas = max(1, _MAX_CHUNK_BYTES // (parameters * itemsize))
        parameters = min(parameters, _MAX_CHUNK_BYTES // itemsize)
    frames = min(max(1, _CHUNK_BYTES // frame), _MAX_CHUNK_FRAMES)
    return replicas, 1 if header.compression else frames, parameters


def series_chunk(shape: tuple[int, ...]) -> int:
    """Rows in a chunk of a float64 series whose rows have ``shape``."""
    row = 8 * int(np.prod(shape, dtype=np.int64))
    return min(max(16, _SERIES_CHUNK_BYTES // max(row, 1)), 1024)


class Rows:
    """Up to ``capacity`` rows of named float64 series on one step and time axis.

    A name that a row lacks reads NaN there.
    """

    __slots__ = ("capacity", "columns", "n", "step", "time")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n = 0
        self.step = np.zeros(capacity, np.int64)
        self.time = np.zeros(capacity, np.float64)
        self.columns: dict[str, npt.NDArray[np.float64]] = {}

    def add(
        self, step: int, time: float, values: Mapping[str, Any], replicas: int
    ) -> None:
        """Append a row; a scalar stands for all replicas.

        Raises
        ------
        TrajectoryError
            A bad name, or a shape that is not (R,) or (R, L) or that changed.
        """
        n = self.n
        columns = self.columns
        for name, value in values.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = self._column(name, value, replicas)
            try:
                column[n] = value
            except (TypeError, ValueError) as error:
                raise TrajectoryError(
                    f"series {name!r} of shape {np.shape(value)}: expected "
                    f"{column.shape[1:]} as before"
                ) from error
        if len(values) != len(columns):
            for name in columns.keys() - values.keys():
                columns[name][n] = np.nan
        self.step[n] = step
        self.time[n] = time
        self.n = n + 1

    def _column(self, name: str, value: Any, replicas: int) -> npt.NDArray[np.float64]:
        schema.check_name(name)
        shape = np.shape(value) or (replicas,)
        if shape[0] != replicas or len(shape) > 2:
            raise TrajectoryError(
                f"series {name!r} of shape {np.shape(value)}: "
                f"expected ({replicas},) or ({replicas}, L), a row per replica"
            )
        return np.full((self.capacity, *shape), np.nan)


class Block:
    """Frames and log rows that are written together.

    ``quantities`` maps "positions", ... to (R, capacity, N) arrays of the file's
    type; momenta are kept as velocities, divided by ``mass`` unless it is None (one).
    """

    __slots__ = ("_header", "_mass", "_pieces", "frames", "limit", "log", "quantities")

    def __init__(
        self,
        header: Header,
        mass: npt.NDArray[np.float64] | None,
        frames: int,
        log: int,
    ) -> None:
        self._header = header
        self._mass = mass
        self._pieces = header.pieces
        self.frames, self.log = Rows(frames), Rows(log)
        self.limit = frames
        shape = (header.replicas, frames, header.stored_size)
        self.quantities = {q: np.zeros(shape, header.dtype) for q in header.store}

    def add_frame(
        self,
        step: int,
        time: float,
        arrays: Mapping[str, Any],
        observables: Mapping[str, Any],
    ) -> None:
        """Copy one frame in.

        Raises
        ------
        TrajectoryError
            A stored quantity that is missing or not (R, D).
        """
        header, n = self._header, self.frames.n
        expected = (header.replicas, header.size)
        for name, target in self.quantities.items():
            given = arrays.get(name)
            if given is None or np.shape(given) != expected:
                what = "missing" if given is None else f"of shape {np.shape(given)}"
                raise TrajectoryError(
                    f"{name} {what}: store={header.store} needs an array of shape "
                    f"{expected} in every frame"
                )
            for stored, full in self._pieces:
                if name == "momenta" and self._mass is not None:
                    np.divide(
                        given[:, full],
                        self._mass[full],
                        out=target[:, n, stored],
                        casting="unsafe",
                    )
                else:
                    target[:, n, stored] = given[:, full]
        self.frames.add(step, time, observables, header.replicas)

    @property
    def full(self) -> bool:
        """Whether no further frame or no further log row fits."""
        return self.frames.n >= self.limit or self.log.n >= self.log.capacity

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return self.frames.n == 0 and self.log.n == 0

    def clear(self) -> None:
        """Forget the rows, keep the memory."""
        self.frames.n = self.log.n = 0
