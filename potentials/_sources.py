"""Rows of data that stay where they are: files, and data sets read item by item.

A source has a shape (N, width) and a type, and two ways to be read: a run of
neighbouring rows, and any rows.  Both may be called from several threads at once.
"""

from __future__ import annotations

import mmap
import os
import weakref
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.typing import Array

__all__ = ["STREAM_FROM", "ArraySource", "Source", "open_source", "split"]

STREAM_FROM = 2**28
"""Bytes of inputs from which files are read batch by batch; smaller ones at once."""


class Source(ABC):
    """Rows (N, width) that are read when they are wanted.

    Attributes
    ----------
    shape : (N, width)
    dtype : dtype
        As stored; readers convert.
    near : int
        Rows between two wanted ones that it pays to read and drop.
    hashed : hashlib object or None
        Has seen every row: left by the one pass that checks the data.
    """

    ndim = 2
    near = 0
    hashed: Any = None

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "hashed": None}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored."""
        return int(self.shape[1] * self.dtype.itemsize)

    @abstractmethod
    def read(self, first: int, out: Array) -> None:
        """Read rows ``first ..`` into ``out`` (rows, width), contiguous, own type."""

    def __getitem__(self, where: slice) -> Array:
        first, stop, _ = where.indices(self.shape[0])
        out = np.empty((max(stop - first, 0), self.shape[1]), self.dtype)
        self.read(first, out)
        return out

    def gather(self, index: Array, out: Array) -> None:
        """Read rows ``index`` (M,), in any order, into ``out`` (M, width).

        They are read as sorted runs, each at once.
        """
        order = np.argsort(index, kind="stable")
        rows = index[order]
        cuts = np.flatnonzero(np.diff(rows) > self.near + 1) + 1
        whole = out.dtype == self.dtype and out.flags.c_contiguous
        stops = [*cuts.tolist(), rows.size]
        start = 0
        for stop in stops:
            first = int(rows[start])
            if whole and stop == start + 1:
                place = int(order[start])
                self.read(first, out[place : place + 1])
            else:
                run = self[first : int(rows[stop - 1]) + 1]
                out[order[start:stop]] = run[rows[start:stop] - first]
            start = stop


class ArraySource(Source):
    """Rows of an array in memory."""

    def __init__(self, X: Array) -> None:
        super().__init__(X.shape, X.dtype)
        self._X = X

    def read(self, first: int, out: Array) -> None:
        """As `Source.read`."""
        out[...] = self._X[first : first + len(out)]

    def gather(self, index: Array, out: Array) -> None:
        """As `Source.gather`, without sorting."""
        if out.dtype == self.dtype:
            np.take(self._X, index, axis=0, out=out, mode="clip")
        else:
            out[...] = self._X[index]


class FileSource(Source):
    """Rows one after another in a file, read at their place: nothing is mapped."""

    def __init__(self, path: str, offset: int, shape: Any, dtype: Any) -> None:
        super().__init__(shape, dtype)
        self._path, self._offset = path, offset
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, first: int, out: Array) -> None:
        """As `Source.read`."""
        room = memoryview(out.reshape(-1).view(np.uint8))
        at, done = self._offset + first * self.row_bytes, 0
        while done < len(room):
            got = os.preadv(self._file, [room[done:]], at + done)
            if got == 0:
                raise PotentialError(
                    f"X: {self._path} ends before row {first + len(out)} of "
                    f"{self.shape[0]}: was it cut short since it was opened?"
                )
            done += got

    def __reduce__(self) -> Any:
        return FileSource, (self._path, self._offset, self.shape, self.dtype)


class H5Source(Source):
    """Rows of an h5py dataset, further axes laid flat."""

    near = 32

    def __init__(self, dataset: Any) -> None:
        rows, *rest = dataset.shape
        super().__init__((int(rows), int(np.prod(rest))), dataset.dtype)
        self._dataset = dataset

    def read(self, first: int, out: Array) -> None:
        """As `Source.read`."""
        try:
            room = out.reshape(len(out), *self._dataset.shape[1:])
            self._dataset.read_direct(room, np.s_[first : first + len(out)])
        except (OSError, ValueError) as error:
            raise PotentialError(
                f"X: rows {first} to {first + len(out)} of the h5py dataset cannot be "
                f"read ({error}): keep its file open while the potential lives"
            ) from error


class IndexedSource(Source):
    """Rows of a data set of pairs (x, y) read by index, as `torch.utils.data.Dataset`.

    Attributes
    ----------
    y : array, (N, ...)
        Targets, complete once every row was read.
    """

    def __init__(self, dataset: Any) -> None:
        x, y = self._pair(dataset[0], 0)
        super().__init__((len(dataset), x.size), x.dtype)
        self._dataset = dataset
        self.y = np.empty((len(dataset), *y.shape), y.dtype)

    @staticmethod
    def _pair(item: Any, i: int) -> tuple[Array, Array]:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise PotentialError(
                f"data[{i}] is a {type(item).__name__}: expected a pair (x, y), as "
                "torch.utils.data.TensorDataset(X, y) gives; wrap the data set in one "
                "that returns pairs"
            )
        return np.asarray(item[0]), np.asarray(item[1])

    def read(self, first: int, out: Array) -> None:
        """As `Source.read`."""
        self._fill(range(first, first + len(out)), range(len(out)), out)

    def gather(self, index: Array, out: Array) -> None:
        """As `Source.gather`, one item after another."""
        self._fill(index.tolist(), range(len(index)), out)

    def _fill(self, index: Any, places: Any, out: Array) -> None:
        several = getattr(self._dataset, "__getitems__", None)
        one = self._dataset.__getitem__
        items = several(list(index)) if several else map(one, index)
        for i, place, item in zip(index, places, items, strict=True):
            x, y = self._pair(item, i)
            if x.size != out.shape[1] or y.shape != self.y.shape[1:]:
                raise PotentialError(
                    f"data[{i}] has x of {x.size} numbers and y of shape {y.shape}: "
                    f"expected {out.shape[1]} and {self.y.shape[1:]}, as in data[0]"
                )
            out[place] = x.reshape(-1)
            self.y[i] = y


def split(data: Any) -> tuple[Any, Any]:
    """Inputs and targets of what a user gave as ``data``; y is None if read with X.

    Raises
    ------
    PotentialError
        Neither a pair (X, y) nor a data set read by index.
    """
    if isinstance(data, (tuple, list)):
        if len(data) == 2:
            return data[0], data[1]
    elif hasattr(data, "dataset") and hasattr(data, "batch_size"):
        raise PotentialError(
            f"data={type(data).__name__}: batches are drawn here, as functions of the "
            "seed, so that runs can be repeated and resumed; pass loader.dataset if it "
            "is read by index, or collect the rows: X, y = (np.concatenate(parts) for "
            "parts in zip(*loader))"
        )
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        tensors = getattr(data, "tensors", None)  # of a TensorDataset
        if tensors is not None and len(tensors) == 2:
            return np.asarray(tensors[0]), np.asarray(tensors[1])
        if not isinstance(data, (np.ndarray, str, dict)) and len(data) > 0:
            source = IndexedSource(data)
            if source.shape[0] * source.row_bytes < STREAM_FROM:
                return source[0 : source.shape[0]], source.y
            return source, None
    raise PotentialError(
        f"data={type(data).__name__}: expected a pair (X, y), e.g. "
        "Posterior(net, data=(X, y)), or a data set of pairs read by index, as a "
        "torch.utils.data.Dataset with __getitem__ and __len__"
    )


def open_source(X: Any) -> Any:
    """Turn large files into sources; leave arrays as they are."""
    if isinstance(X, np.memmap):
        return X if X.nbytes < STREAM_FROM else _mapped(X)
    if type(X).__module__.startswith("h5py") and hasattr(X, "read_direct"):
        if X.ndim < 2 or X.dtype.kind not in "biuf" or X.nbytes < STREAM_FROM:
            rows = X[...]
            return rows.reshape(len(rows), -1) if X.ndim > 2 else rows
        return _stored(X)
    return X


def _mapped(X: Any) -> Any:
    """The file behind a memory map, where its rows lie one after another there."""
    plain = X.ndim == 2 and X.flags.c_contiguous and X.mode != "c" and X.filename
    if not plain or not hasattr(os, "preadv"):
        return X
    inside = X.ctypes.data - np.frombuffer(X._mmap, np.uint8).ctypes.data
    offset = X.offset - X.offset % mmap.ALLOCATIONGRANULARITY + inside
    if X.mode != "r":
        X.flush()
    return FileSource(str(X.filename), offset, X.shape, X.dtype)


def _stored(dataset: Any) -> Source:
    """An h5py dataset: read at its place in the file if it lies there in one piece."""
    source = H5Source(dataset)
    offset = dataset.id.get_offset()
    if offset is None or dataset.external or not hasattr(os, "preadv"):
        return source
    if dataset.file.mode != "r":
        return source  # what was written may not have reached the file
    return FileSource(dataset.file.filename, offset, source.shape, dataset.dtype)
