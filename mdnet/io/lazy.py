"""Lazy arrays over native frames: NumPy indexing, only what is asked for is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mdnet.io import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import h5py

__all__ = ["Frames"]


class Frames:
    """A quantity of every frame, indexed as a (T, R, *shape) array.

    Frames and replicas are read selectively; further indices act on what was read.
    Every index NumPy takes on one axis works: integers, slices of any step, lists,
    masks.  ``np.asarray(frames)`` reads everything.
    """

    def __init__(
        self,
        read: Callable[[Callable[[h5py.File], Any]], Any],
        path: str,
        replicas: int,
        where: slice,
        item: tuple[int, ...],
        dtype: np.dtype[Any],
        scale: npt.NDArray[np.float64] | None,
    ) -> None:
        self._read = read
        self._path = path
        self._replicas = replicas
        self._where = where
        self._item = item
        self._scale = scale
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"<Frames {self._path} {self.shape} {self.dtype}>"

    def __len__(self) -> int:
        return int(self._read(lambda f: f[schema.COUNTS][0]))

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, R, *shape) as of now; T grows while a run goes on."""
        return (len(self), self._replicas, *self._item)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 2 + len(self._item)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("frames in a file cannot be seen without copying them")
        whole: npt.NDArray[Any] = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read frames; see the class.

        Raises
        ------
        TrajectoryError
            A file that cannot be read.
        IndexError
            As NumPy.
        """
        keys = _expand(key if isinstance(key, tuple) else (key,), self.ndim)
        frames, frames_after = _resolve(keys[0], len(self), "frame")
        replicas, replicas_after = _resolve(keys[1], self._replicas, "replica")
        read = self._read(lambda f: self._load(f, frames, replicas))
        # (R, T, *shape) as read, (T, R, *shape) as asked.
        out = np.ascontiguousarray(read.swapaxes(0, 1))
        return np.asarray(out[(frames_after, replicas_after, *keys[2:])])

    def _load(
        self,
        handle: h5py.File,
        frames: list[slice],
        replicas: list[slice],
    ) -> npt.NDArray[Any]:
        dataset = handle[self._path]
        parts = [[dataset[r, t, self._where] for t in frames] for r in replicas]
        rows = [row[0] if len(row) == 1 else np.concatenate(row, 1) for row in parts]
        flat = rows[0] if len(rows) == 1 else np.concatenate(rows)
        if self._scale is not None:
            flat = (flat * self._scale[self._where]).astype(self.dtype)
        return flat.reshape(*flat.shape[:2], *self._item)


def _expand(keys: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """Fill an index up to at least the first two axes."""
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if any(k is None for k in keys):
        raise IndexError("frames in a file take no new axis; read first, then add it")
    if len(keys) - len(dots) > ndim:
        raise IndexError(f"too many indices: {len(keys)} for {ndim} axes")
    if dots:
        i = dots[0]
        fill = (slice(None),) * (ndim - len(keys) + 1)
        keys = (*keys[:i], *fill, *keys[i + 1 :])
    return (*keys, *(slice(None),) * (2 - len(keys)))


def _resolve(key: Any, length: int, what: str) -> tuple[list[slice], Any]:
    """Rising slices to read, and the index that makes of them what was asked."""
    if isinstance(key, slice):
        chosen = range(length)[key]
        if len(chosen) == 0:
            return [slice(0, 0)], slice(None)
        if chosen.step > 0:
            return [slice(chosen.start, chosen.stop, chosen.step)], slice(None)
        back = chosen[::-1]
        return [slice(back.start, back.stop, back.step)], slice(None, None, -1)
    index = np.asarray(key)
    if index.dtype == bool:
        if index.shape != (length,):
            raise IndexError(f"mask of shape {index.shape} over {length} {what}s")
        index = np.flatnonzero(index)
    if index.ndim > 1 or (index.size and index.dtype.kind not in "iu"):
        raise IndexError(f"{key!r} is no index of a {what}")
    index = index.astype(np.int64)
    if np.any((index < -length) | (index >= length)):
        raise IndexError(f"{what} {key!r} is out of range: there are {length}")
    index = np.where(index < 0, index + length, index)
    if index.ndim == 0:
        return [slice(int(index), int(index) + 1)], 0
    unique, inverse = np.unique(index, return_inverse=True)
    breaks = np.flatnonzero(np.diff(unique) != 1) + 1
    runs = [r for r in np.split(unique, breaks) if r.size]
    return [slice(int(r[0]), int(r[-1]) + 1) for r in runs] or [slice(0, 0)], inverse
