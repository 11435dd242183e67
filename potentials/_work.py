"""Large work arrays that are used again.

Memory fresh from the system costs more than what is written into it: the pages of a
work array of ten megabytes are handed out one by one, and taken back when it is freed.
Arrays from `empty` give their memory back to a list when the last view of them is gone,
and the next one of that size takes it from there.  CuPy has such lists of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["LIMIT", "SMALLEST", "Pool", "empty", "product"]

SMALLEST = 2**18
"""Bytes below which an array comes from the system as it is."""
LIMIT = 2**28
"""Most bytes that lie ready."""


class Pool:
    """Free memory by size."""

    def __init__(self) -> None:
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}
        self.kept = 0

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory of ``size`` bytes or a little more."""
        step = 2 ** max(size.bit_length() - 4, 0)  # so that sizes repeat
        size = -(-size // step) * step
        try:
            memory = self._free[size].pop()
        except (KeyError, IndexError):
            return np.asarray(_Lease(np.empty(size, np.uint8), self))
        self.kept -= size
        return np.asarray(_Lease(memory, self))

    def give(self, memory: npt.NDArray[np.uint8]) -> None:
        """Keep memory for later; sizes no longer wanted go when the room is full."""
        if self.kept + memory.size > LIMIT:
            self._free, self.kept = {}, 0
        if memory.size <= LIMIT:
            self._free.setdefault(memory.size, []).append(memory)
            self.kept += memory.size


class _Lease:
    """Owner of an array's memory; NumPy drops it with the last view."""

    def __init__(self, memory: npt.NDArray[np.uint8], pool: Pool) -> None:
        self._memory, self._pool = memory, pool

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._memory.__array_interface__

    def __del__(self) -> None:
        self._pool.give(self._memory)


_pool = Pool()


def empty(xp: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Array of any content, as ``xp.empty``."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if xp is not np or size < SMALLEST:
        return xp.empty(shape, dtype)
    return _pool.take(size)[:size].view(dtype).reshape(shape)


def product(a: Array, b: Array) -> Array:
    """``a @ b`` of stacks (R or 1, m, k) and (R or 1, k, n)."""
    xp = evaluator_xp(a)
    shape = (max(a.shape[0], b.shape[0]), a.shape[1], b.shape[2])
    return xp.matmul(a, b, out=empty(xp, shape, a.dtype))
