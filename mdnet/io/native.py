"""The datasets of a trajectory file as its writer sees them.

One thread at a time may use a `NativeFile`.  A block is written in two flushes: the
rows of every dataset, then the counts that make them visible.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5s

from mdnet.errors import TrajectoryError
from mdnet.io import checkpoint, files, schema, views
from mdnet.io.blocks import Block, Rows, frame_chunk, series_chunk
from mdnet.io.schema import Header

__all__ = ["NativeFile"]


class NativeFile:
    """An open trajectory file that grows.

    Attributes
    ----------
    header : Header
        What the file holds.
    frames, log : int
        Rows that are safely in the file.
    """

    def __init__(
        self, handle: h5py.File, path: str, header: Header, live: bool
    ) -> None:
        self.header = header
        self.frames = self.log = 0
        self._path = os.path.abspath(path)
        self._live = live
        self._handle = handle
        self._cache: dict[str, h5py.Dataset] = {}
        self._series: dict[str, tuple[int, ...]] = {}
        self._dense: dict[str, tuple[int, ...]] = {}
        self._sequence = 0
        self._next_slot = schema.SLOTS[0]

    @classmethod
    def create(
        cls,
        path: str,
        header: Header,
        config: str,
        masses: npt.NDArray[np.float64],
        *,
        overwrite: bool,
        live: bool,
    ) -> NativeFile:
        """Make a new file with no frames.

        Raises
        ------
        TrajectoryError
            The file exists or cannot be created.
        """
        handle = files.create(path, live=live, overwrite=overwrite)
        try:
            top = handle.create_group("mdnet")
            top.attrs["schema"] = np.int64(schema.SCHEMA)
            text = h5py.string_dtype()
            handle.create_dataset(schema.CONFIG, data=config, dtype=text)
            handle.create_dataset(schema.HEADER, data=header.to_json(), dtype=text)
            for name in (schema.STEP, schema.LOG_STEP):
                _growing(handle, name, np.int64)
            for name in (schema.TIME, schema.LOG_TIME):
                _growing(handle, name, np.float64)
            for name in (schema.LEDGER_GROUP, schema.RESTART, schema.OBSERVABLES):
                handle.create_group(name)
            r, n = header.replicas, header.stored_size
            for quantity in header.store:
                handle.create_dataset(
                    schema.QUANTITIES[quantity].path,
                    shape=(r, 0, n),
                    maxshape=(r, None, n),
                    chunks=frame_chunk(header),
                    dtype=header.dtype,
                    compression=header.compression,
                    shuffle=header.compression is not None,
                )
            views.create_particles(handle, header, masses)
            views.create_statistics(handle, header)
            handle.flush()
            handle.create_dataset(schema.COUNTS, data=np.zeros(3, np.int64))
            handle.flush()
        except OSError as error:
            with contextlib.suppress(OSError, RuntimeError):
                files.close_write(handle, path)
            raise TrajectoryError(f"{path} cannot be written: {error}") from error
        return cls(handle, path, header, live)

    @classmethod
    def append(cls, path: str, live: bool) -> NativeFile:
        """Open a file to go on from its newest restart; what follows it is cut off.

        Raises
        ------
        TrajectoryError
            No valid restart, or a file shorter than the restart says.
        """
        handle = files.open_write(path)
        try:
            header = Header.from_json(handle[schema.HEADER][()].decode())
            slot = checkpoint.newest(handle)
            if slot is None:
                raise TrajectoryError(
                    f"{path} holds no valid restart, so that nothing can be appended; "
                    "start a new file"
                )
            native = cls(handle, path, header, live)
            native._find_series()
            native._truncate(slot.frames, slot.log)
            native._sequence = slot.sequence
            native._next_slot = next(n for n in schema.SLOTS if n != slot.name)
        except BaseException:
            files.close_write(handle, path)
            raise
        return native

    @property
    def last_step(self) -> int | None:
        """Step of the last frame."""
        return int(self._at(schema.STEP)[self.frames - 1]) if self.frames else None

    @property
    def last_log_step(self) -> int | None:
        """Step of the last log row."""
        return int(self._at(schema.LOG_STEP)[self.log - 1]) if self.log else None

    @property
    def mass(self) -> npt.NDArray[np.float64]:
        """Masses of the stored parameters."""
        first = f"{schema.PARTICLES}/{schema.walker(0)}/mass"
        return np.asarray(self._at(first)[()], np.float64)

    def append_block(self, block: Block) -> None:
        """Write a block and make it visible."""
        self._make_series(block)
        n, at = block.frames.n, self.frames
        for quantity, rows in block.quantities.items():
            self._put(schema.QUANTITIES[quantity].path, 1, at, n, rows)
        self._put_rows(block.frames, at)
        self._put_dense(block.log, self.log)
        self._handle.flush()
        self.frames, self.log = at + n, self.log + block.log.n
        self._count(closed=False)
        self._follow()

    def write_restart(self, arrays: dict[str, npt.NDArray[Any]], meta: str) -> None:
        """Write the older restart slot."""
        if self._live:
            for slot in schema.SLOTS:
                if not checkpoint.fits(self._handle, slot, arrays, meta):
                    if slot != self._next_slot and checkpoint.written(
                        self._handle, slot
                    ):
                        continue  # never spoil the valid one
                    self._lead()
                    checkpoint.prepare(self._handle, slot, arrays, meta)
        checkpoint.write(
            self._handle,
            self._next_slot,
            sequence=self._sequence + 1,
            frames=self.frames,
            log=self.log,
            arrays=arrays,
            meta=meta,
        )
        self._sequence += 1
        self._next_slot = next(n for n in schema.SLOTS if n != self._next_slot)
        self._follow()

    def abandon(self) -> None:
        """After an error: leave the file at the last counts, if the disk lets us."""
        with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError):
            self._resize(self.frames, self.log)
            self._handle.flush()

    def close(self, *, complete: bool) -> None:
        """Close the file; ``complete`` marks it as not being written."""
        try:
            if complete:
                self._count(closed=True)
        finally:
            self._cache.clear()
            try:
                files.close_write(self._handle, self._path)
            except (OSError, RuntimeError):
                files.mend(self._path, shorten=True)
                raise

    def _at(self, path: str) -> h5py.Dataset:
        dataset = self._cache.get(path)
        if dataset is None:
            dataset = self._cache[path] = self._handle[path]
        return dataset

    def _put(
        self, path: str, axis: int, at: int, n: int, rows: npt.NDArray[Any]
    ) -> None:
        """Grow ``path`` to ``at + n`` along ``axis`` and write rows 0..n-1 there."""
        dataset = self._at(path).id
        extent = list(dataset.shape)
        extent[axis] = at + n
        if dataset.shape[axis] != at + n:
            dataset.set_extent(tuple(extent))
        if n == 0:
            return
        extent[axis] = n
        start = [0] * len(extent)
        memory = h5s.create_simple(rows.shape)
        memory.select_hyperslab(tuple(start), tuple(extent))
        start[axis] = at
        space = dataset.get_space()
        space.select_hyperslab(tuple(start), tuple(extent))
        dataset.write(memory, space, rows)

    def _put_rows(self, rows: Rows, at: int) -> None:
        n = rows.n
        for name, shape in self._series.items():
            column = _column(rows, name, shape)
            self._put(f"{schema.OBSERVABLES}/{name}/value", 0, at, n, column)
        for name, column in self._statistics(rows).items():
            path = f"{schema.SAMPLE_STATS}/{name}"
            self._put(path, 1, at, n, np.ascontiguousarray(column.T))
        self._put(schema.STEP, 0, at, n, rows.step)
        self._put(schema.TIME, 0, at, n, rows.time)
        self._put(f"{schema.SAMPLE_STATS}/draw", 0, at, n, np.arange(at, at + n))

    def _put_dense(self, rows: Rows, at: int) -> None:
        for name, shape in self._dense.items():
            self._put(schema.log_path(name), 0, at, rows.n, _column(rows, name, shape))
        self._put(schema.LOG_STEP, 0, at, rows.n, rows.step)
        self._put(schema.LOG_TIME, 0, at, rows.n, rows.time)

    def _statistics(self, rows: Rows) -> dict[str, npt.NDArray[np.float64]]:
        """Columns of /sample_stats: the (R,) series, lp = -U and energy = U + K."""
        out = {
            name: _column(rows, name, shape)[: rows.n]
            for name, shape in self._series.items()
            if len(shape) == 1
        }
        if "potential_energy" in out:
            potential = out["potential_energy"]
            out.setdefault("lp", -potential)
            if "kinetic_energy" in out:
                out.setdefault("energy", potential + out["kinetic_energy"])
        return out

    def _make_series(self, block: Block) -> None:
        """Make the datasets of series not seen before; their past reads NaN."""
        for known, rows, make in (
            (self._series, block.frames, self._make_observable),
            (self._dense, block.log, self._make_dense),
        ):
            if rows.n == 0:
                continue
            for name, column in rows.columns.items():
                shape = column.shape[1:]
                if known.setdefault(name, shape) != shape:
                    raise TrajectoryError(
                        f"series {name!r} of shape {shape}: {self._path} holds it with "
                        f"shape {known[name]}"
                    )
                make(name, shape)

    def _make_observable(self, name: str, shape: tuple[int, ...]) -> None:
        path = f"{schema.OBSERVABLES}/{name}"
        if path not in self._handle:
            self._lead()
            group = self._handle.create_group(path)
            group["step"] = self._handle[schema.STEP]
            group["time"] = self._handle[schema.TIME]
            _growing(self._handle, f"{path}/value", np.float64, shape, self.frames)
        if len(shape) != 1:
            return
        for statistic in self._statistics_of(name):
            path = f"{schema.SAMPLE_STATS}/{statistic}"
            if path in self._handle:
                continue
            self._lead()
            r = self.header.replicas
            dataset = self._handle.create_dataset(
                path,
                shape=(r, self.frames),
                maxshape=(r, None),
                chunks=(r, series_chunk(shape)),
                dtype=np.float64,
                fillvalue=np.nan,
            )
            for axis, scale in enumerate(("chain", "draw")):
                dataset.dims[axis].attach_scale(
                    self._handle[f"{schema.SAMPLE_STATS}/{scale}"]
                )

    def _statistics_of(self, name: str) -> list[str]:
        out = [name]
        if name == "potential_energy":
            out.append("lp")
        if {"potential_energy", "kinetic_energy"} <= self._series.keys():
            out.append("energy")
        return out

    def _make_dense(self, name: str, shape: tuple[int, ...]) -> None:
        path = schema.log_path(name)
        if path not in self._handle:
            self._lead()
            _growing(self._handle, path, np.float64, shape, self.log)

    def _find_series(self) -> None:
        for name, group in self._handle[schema.OBSERVABLES].items():
            self._series[name] = group["value"].shape[1:]
        for parent in (schema.LOG, schema.LEDGER_GROUP):
            for name, dataset in self._handle[parent].items():
                if name not in schema.RESERVED:
                    self._dense[name] = dataset.shape[1:]

    def _truncate(self, frames: int, log: int) -> None:
        for path, kept in ((schema.STEP, frames), (schema.LOG_STEP, log)):
            if self._at(path).shape[0] < kept:
                raise TrajectoryError(
                    f"{self._path} is damaged: {path} has {self._at(path).shape[0]} "
                    f"rows, the restart needs {kept}"
                )
        self.frames, self.log = frames, log
        self._count(closed=False)
        self._resize(frames, log)
        self._handle.flush()

    def _resize(self, frames: int, log: int) -> None:
        """Set the length of every dataset, without making any."""
        for quantity in self.header.store:
            self._at(schema.QUANTITIES[quantity].path).resize(frames, 1)
        for name in (*self._handle[schema.SAMPLE_STATS],):
            if name != "chain":
                dataset = self._at(f"{schema.SAMPLE_STATS}/{name}")
                dataset.resize(frames, dataset.ndim - 1)
        for name in self._handle[schema.OBSERVABLES]:
            self._at(f"{schema.OBSERVABLES}/{name}/value").resize(frames, 0)
        for path in (schema.STEP, schema.TIME):
            self._at(path).resize(frames, 0)
        for parent in (schema.LOG, schema.LEDGER_GROUP):
            for name in self._handle[parent]:
                self._at(f"{parent}/{name}").resize(log, 0)

    def _count(self, *, closed: bool) -> None:
        self._at(schema.COUNTS)[...] = (self.frames, self.log, closed)
        self._handle.flush()

    def _follow(self) -> None:
        """Let readers follow (SWMR) once there is something to read."""
        if self._live and not self._handle.swmr_mode:
            self._handle.swmr_mode = True

    def _lead(self) -> None:
        """Leave SWMR mode, in which no dataset can be made."""
        if self._handle.swmr_mode:
            self._cache.clear()
            files.close_write(self._handle, self._path)
            self._handle = files.open_write(self._path)


def _column(rows: Rows, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    column = rows.columns.get(name)
    return np.full((rows.n, *shape), np.nan) if column is None else column


def _growing(
    handle: h5py.File,
    path: str,
    dtype: Any,
    shape: tuple[int, ...] = (),
    rows: int = 0,
) -> None:
    """Make a dataset that grows along axis 0; rows never written read NaN or 0."""
    floating = np.issubdtype(dtype, np.floating)
    handle.create_dataset(
        path,
        shape=(rows, *shape),
        maxshape=(None, *shape),
        chunks=(series_chunk(shape), *shape),
        dtype=dtype,
        fillvalue=np.nan if floating else 0,
    )
