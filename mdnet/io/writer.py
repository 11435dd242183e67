"""The trajectory writer: buffers in the caller's thread, HDF5 in a background one.

The caller fills one block while the other is being written.  A block goes to the file
when it is full, when a restart or a flush asks, and once a second.
"""

from __future__ import annotations

import atexit
import os
import threading
import time as clock
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mdnet.errors import TrajectoryError
from mdnet.io import checkpoint, schema
from mdnet.io.blocks import Block, frame_chunk
from mdnet.io.native import NativeFile
from mdnet.io.schema import Header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mdnet.typing import Layout

__all__ = ["TrajectoryWriter"]

_INTERVAL = 1.0  # seconds between blocks, at most
_MAX_BLOCK_FRAMES = 4096


class TrajectoryWriter:
    """Writes one trajectory file; every call returns as soon as its data is copied.

    Parameters
    ----------
    path : path-like
        The file; other programs know it by the suffix ``.h5md``.
    layout : mapping
        Ordered ``{name: (slice, shape)}`` of all parameters.
    replicas, size : int
        R and D.
    mass : float or (D,) array
        Mass of every parameter.
    config : dict
        Settings that identify the run; anything JSON can hold, and NumPy arrays.
    store : tuple of {"positions", "momenta", "forces"}
        What every frame holds.  Momenta are kept as velocities p/m, which is what
        H5MD has: they come back as v m, exact to one rounding.
    select : sequence of str, optional
        Tensors of the layout to store; all by default.
    dtype : {"float32", "float16", "float64"}
        Type of the stored frames (restarts always keep the type of the arrays).
    compression : {None, "gzip", "lzf"}
        With the shuffle filter.  Random weights hardly compress.
    mode : {"x", "w", "a"}
        Create a new file, replace an existing one, or go on from the newest restart in
        an existing one: frames after it are cut off, and ``store``, ``select``,
        ``dtype``, ``compression``, ``mass`` and ``config`` are the file's.
    live : bool
        Single-writer-multiple-readers mode.  Not needed to read a file while it is
        written, which `mdnet.open` and any reader that opens it anew can; it lets other
        programs follow without opening anew, but a killed file then opens only for
        those who ask for it (``swmr=True``), until it is resumed.
    block_bytes : int
        Memory of one of the two blocks, about.

    Attributes
    ----------
    path : str
    last_frame_step : int or None
        Step of the last frame given or found.

    Raises
    ------
    TrajectoryError
        See `frame`; and an existing file (mode "x"), or one that is missing, not
        ours, being written, or of another layout (mode "a").

    Notes
    -----
    Frames are written first and counted last, with a flush after each, so that a
    process killed at any instant leaves a file that opens, with every frame up to the
    last block.  The virtual views of other programs grow by themselves.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5md")
    >>> layout = {"q": (slice(0, 3), (3,))}
    >>> writer = TrajectoryWriter(
    ...     path, layout=layout, replicas=2, size=3, mass=1.0, config={}
    ... )
    >>> writer.frame(0, 0.0, {"positions": np.zeros((2, 3))}, {})
    >>> writer.close()
    """

    last_frame_step: int | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        layout: Layout,
        replicas: int,
        size: int,
        mass: npt.ArrayLike = 1.0,
        config: dict[str, Any],
        store: Sequence[str] = ("positions",),
        select: Sequence[str] | None = None,
        dtype: npt.DTypeLike = "float32",
        compression: str | None = None,
        mode: Literal["x", "w", "a"] = "x",
        live: bool = False,
        block_bytes: int = 2**23,
    ) -> None:
        self.path = os.fspath(path)
        if mode not in ("x", "w", "a"):
            raise TrajectoryError(f"mode={mode!r}: expected 'x', 'w' or 'a'")
        if mode == "a":
            self._native = NativeFile.append(self.path, live)
            try:
                self._native.header.check_same(
                    layout=layout, replicas=replicas, size=size
                )
            except TrajectoryError:
                self._native.close(complete=False)
                raise
            header = self._native.header
            masses = np.ones(size)
            for stored, full in header.pieces:
                masses[full] = self._native.mass[stored]
        else:
            header = Header.build(
                layout=layout,
                replicas=replicas,
                size=size,
                store=store,
                select=select,
                dtype=dtype,
                compression=compression,
            )
            masses = _masses(mass, size)
            self._native = NativeFile.create(
                self.path,
                header,
                schema.dumps(config),
                masses,
                overwrite=mode == "w",
                live=live,
            )
        self.header = header
        self.last_frame_step = self._native.last_step
        self._last_log_step = self._native.last_log_step
        self._given = self._native.frames

        unit = bool(np.all(masses == 1.0))
        frames, log = _capacities(header, block_bytes)
        self._capacity = frames
        self._filling = Block(header, None if unit else masses, frames, log)
        self._free = [Block(header, None if unit else masses, frames, log)]
        self._align(self._filling)
        self._due: float | None = None
        self._jobs: deque[tuple[Callable[[], None], Block | None]] = deque()
        self._busy = self._stopping = self._closed = self._told = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._work, name=f"mdnet writer {self.path}", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frame(
        self,
        step: int,
        time: float,
        arrays: Mapping[str, npt.NDArray[Any]],
        observables: Mapping[str, Any],
    ) -> None:
        """Copy one frame.

        Parameters
        ----------
        step : int
            Steps done; frames come in rising order.  The step of the last frame again
            (as after a resume) is left out: no frame is written twice.
        time : float
            Time of the frame.
        arrays : mapping
            "positions", ... of shape (R, D); more than is stored is ignored.
        observables : mapping
            Series on the frame grid, (R,) or (R, L).

        Raises
        ------
        TrajectoryError
            A missing array, a wrong shape, a step that goes back, a closed writer, or
            an error of the background thread, such as a full disk.
        """
        with self._changed:
            self._check_open()
            if self._repeats("frame", step, self.last_frame_step):
                return
            block = self._wait_for_block()
            block.add_frame(step, time, arrays, observables)
            self.last_frame_step = step
            self._given += 1
            self._added(block)

    def log(self, step: int, time: float, values: Mapping[str, Any]) -> None:
        """Copy one row of the dense log; arguments and errors as `frame`."""
        with self._changed:
            self._check_open()
            if self._repeats("log row", step, self._last_log_step):
                return
            block = self._wait_for_block()
            block.log.add(step, time, values, self.header.replicas)
            self._last_log_step = step
            self._added(block)

    def restart(
        self, arrays: Mapping[str, npt.NDArray[Any]], meta: dict[str, Any]
    ) -> None:
        """Copy a state to go on from, with all frames and log rows given so far.

        Parameters
        ----------
        arrays : mapping
            Arrays of any shape and numeric type, kept bit for bit.
        meta : dict
            Step, counters and settings: anything JSON can hold.

        Raises
        ------
        TrajectoryError
            As `frame`, and what neither HDF5 nor JSON can hold.
        """
        copies, text = checkpoint.check_arrays(arrays), schema.dumps(meta)
        with self._changed:
            # One restart waits at most: states may be large.
            self._changed.wait_for(lambda: self._error or not self._jobs)
            self._check_open()
            self._submit()
            self._jobs.append((lambda: self._native.write_restart(copies, text), None))
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything given so far is in the file.

        Raises
        ------
        TrajectoryError
            As `frame`.
        """
        with self._changed:
            self._check_open()
            self._submit()
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._error or not (self._jobs or self._busy)
            )
            self._check_open()

    def close(self) -> None:
        """Write what is left and close the file; a second call does nothing.

        Raises
        ------
        TrajectoryError
            An error of the background thread that no call has reported yet.
        """
        if self._closed:
            return
        with self._changed:
            self._submit()
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._closed = True
        atexit.unregister(self.close)
        try:
            self._native.close(complete=self._error is None)
        except (OSError, RuntimeError) as error:
            self._error = self._error or error
        if self._error is not None and not self._told:
            self._raise()

    def _repeats(self, what: str, step: int, last: int | None) -> bool:
        if last is not None and step < last:
            raise TrajectoryError(
                f"{what} at step {step}: {self.path} already holds step {last}, and "
                "steps rise; resume the simulation from the file it appends to"
            )
        return step == last

    def _check_open(self) -> None:
        if self._error is not None:
            self._raise()
        if self._closed or self._stopping:
            raise TrajectoryError(f"{self.path}: the writer is closed")

    def _raise(self) -> None:
        self._told = True
        raise TrajectoryError(
            f"{self.path} could not be written: {_line(self._error)}; the file is "
            f"readable up to frame {self._native.frames}"
        ) from self._error

    def _wait_for_block(self) -> Block:
        if self._filling.full:
            self._changed.wait_for(lambda: self._error or not self._filling.full)
            self._check_open()
        return self._filling

    def _added(self, block: Block) -> None:
        if self._due is None:
            self._due = clock.monotonic() + _INTERVAL
            self._changed.notify_all()
        if block.full and self._free:
            self._submit()
            self._changed.notify_all()

    def _submit(self) -> None:
        """Hand the filling block over, if there is another to go on with."""
        if self._filling.empty:
            return
        if not self._free:
            self._changed.wait_for(lambda: self._error or self._free)
        if self._error is not None or self._filling.empty:
            return
        block = self._filling
        self._jobs.append((lambda: self._native.append_block(block), block))
        self._filling = self._free.pop()
        self._align(self._filling)
        self._due = None

    def _align(self, block: Block) -> None:
        """Let a block end where a chunk ends, so that chunks are written whole."""
        block.limit = self._capacity - self._given % self._capacity

    def _work(self) -> None:
        """Body of the background thread: the only place that touches the file."""
        while True:
            with self._changed:
                while not self._jobs:
                    if self._stopping:
                        return
                    wait = None if self._due is None else self._due - clock.monotonic()
                    if wait is not None and wait <= 0:
                        self._submit()
                    else:
                        self._changed.wait(wait)
                job, block = self._jobs.popleft()
                self._busy = True
            try:
                if self._error is None:
                    job()
            except BaseException as error:
                self._native.abandon()
                self._error = error
            with self._changed:
                self._busy = False
                if block is not None:
                    block.clear()
                    self._free.append(block)
                    if self._filling.full:
                        self._submit()
                self._changed.notify_all()


def _masses(mass: npt.ArrayLike, size: int) -> npt.NDArray[np.float64]:
    masses = np.asarray(mass, np.float64)
    if masses.shape not in ((), (size,)) or not np.all(masses > 0):
        raise TrajectoryError(
            f"mass of shape {masses.shape}: expected a positive number or {size} "
            "of them"
        )
    return np.ascontiguousarray(np.broadcast_to(masses, (size,)))


def _capacities(header: Header, block_bytes: int) -> tuple[int, int]:
    """Frames and log rows of a block, whole chunks where more than one fits."""
    if block_bytes < 1:
        raise TrajectoryError(f"block_bytes={block_bytes!r}: expected a number >= 1")
    itemsize = np.dtype(header.dtype).itemsize
    row = 64 * header.replicas  # series beside the frames, and frames that store none
    frame = max(
        row, len(header.store) * header.replicas * header.stored_size * itemsize
    )
    frames = min(max(1, block_bytes // frame), _MAX_BLOCK_FRAMES)
    chunk = frame_chunk(header)[1]
    if frames > chunk:
        frames -= frames % chunk
    return frames, min(max(64, block_bytes // (4 * row)), _MAX_BLOCK_FRAMES)


def _line(error: BaseException | None) -> str:
    """Message of an error in one line; HDF5's have several."""
    return " ".join(str(error).split())
