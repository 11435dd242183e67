"""Batches that need more than the number of rows: classes, and blocks of a file.

Both are functions of (seed, replica, force call), as those of
`mdnet.potentials.minibatch.rows` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.typing import Array

__all__ = ["Blocks", "Strata", "make_blocks", "make_strata"]

_EVERYONE = 2**32 - 1
"""Replica whose counters order the blocks, which all replicas read together."""
_BLOCK, _BUFFER = 2**20, 2**26
"""Bytes of a block and of the buffer, if not given."""


class Place(NamedTuple):
    """Where a force call's batch lies: epoch, buffer of the epoch, first row in it."""

    epoch: int
    buffer: int
    start: int


@dataclass(frozen=True)
class Strata:
    """Every class gives its share n N_c/N of a batch, rounded up or down at random.

    A batch has n distinct rows, drawn at each call by itself, and every row is in it
    with probability n/N: sums over it, times N/n, are unbiased.

    Parameters
    ----------
    labels : (N,) array
        Class of each row.
    """

    labels: Array

    def __post_init__(self) -> None:
        order = np.argsort(self.labels, kind="stable").astype(np.int64)
        _, counts = np.unique(self.labels, return_counts=True)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        object.__setattr__(self, "_table", (order, starts))

    def draw(self, seed: int, replicas: int, call: int, batch: int) -> Array:
        """Rows of every replica's batch, (R, n) int64, class by class."""
        from mdnet.kernels.batches import strata_of

        out = np.empty((replicas, batch), np.int64)
        table: Any = self.__dict__["_table"]
        strata_of(out, *table, call, False, *random.seed_words(seed))
        return out


@dataclass(frozen=True)
class Blocks:
    """Shuffled blocks of neighbouring rows, shuffled again in a buffer.

    Each epoch cuts the data, from a row of its own on, into blocks of ``block`` rows,
    and reads them in a keyed order, ``buffer`` rows at a time; each replica walks a
    keyed permutation of its own of the rows in the buffer.  An epoch has N div n
    calls and visits no row twice.  Since it begins at a uniform row, every batch has
    each row with probability n/N; two rows of a batch come from the same buffer.

    Parameters
    ----------
    n_data, batch, block, buffer : int
        Rows; ``buffer`` is a multiple of ``batch``.
    """

    n_data: int
    batch: int
    block: int
    buffer: int

    def place(self, call: int) -> Place:
        """Epoch, buffer and first row of one force call's batch."""
        epoch, turn = divmod(call, self.n_data // self.batch)
        buffer, start = divmod(turn * self.batch, self.buffer)
        return Place(epoch, buffer, start)

    def size(self, buffer: int) -> int:
        """Rows in one buffer of an epoch: the last one may have fewer."""
        return min(self.buffer, self.n_data - buffer * self.buffer)

    def after(self, epoch: int, buffer: int) -> tuple[int, int]:
        """Epoch and buffer that follow."""
        whole = self.n_data // self.batch * self.batch
        if (buffer + 1) * self.buffer < whole:
            return epoch, buffer + 1
        return epoch + 1, 0

    def ranges(self, seed: int, epoch: int, buffer: int) -> list[tuple[int, int]]:
        """Runs (first, stop) of rows that fill a buffer, in this order."""
        from mdnet.kernels.batches import walk_of

        n, size = self.n_data, self.block
        count = -(-n // size)
        order = np.empty((1, count), np.int64)
        walk_of(order, 0, count, epoch, _EVERYONE, *random.seed_words(seed))
        # The keys of a permutation are six blocks of counters: the shift comes after.
        word = random.bits(seed, _EVERYONE, epoch, random.STREAM_BATCH, 8 * 4)[7]
        shift = (int(word) * n) >> 32
        starts = order[0] * size
        stops = np.minimum(starts + size, n)
        ends = np.cumsum(stops - starts)
        low = buffer * self.buffer
        high = low + self.size(buffer)
        found = []
        for i in range(int(np.searchsorted(ends, low, "right")), count):
            before = int(ends[i] - (stops[i] - starts[i]))
            if before >= high:
                break
            first = int(starts[i]) + max(low - before, 0) + shift
            stop = int(stops[i]) - max(int(ends[i]) - high, 0) + shift
            # Rows past the last one go on from the first.
            found += [
                (a % n, a % n + b - a)
                for a, b in ((first, min(stop, n)), (max(first, n), stop))
                if a < b
            ]
        return found

    def local(self, seed: int, replicas: int, call: int) -> Array:
        """Places in the buffer of every replica's batch, (R, n) int64."""
        from mdnet.kernels.batches import walk_of

        _, buffer, start = place = self.place(call)
        out = np.empty((replicas, self.batch), np.int64)
        number = self._key(place)
        key = random.seed_words(seed)
        walk_of(out, start, self.size(buffer), number, -1, *key)
        return out

    def _key(self, place: Place) -> int:
        """Number of a buffer among those of all epochs: what orders its rows."""
        return place.epoch * -(-self.n_data // self.buffer) + place.buffer

    def number(self, place: Place) -> int:
        """Force call of a batch among those of shuffled epochs of its buffer's size."""
        calls = self.size(place.buffer) // self.batch
        return self._key(place) * calls + place.start // self.batch

    def rows_in(self, seed: int, epoch: int, buffer: int) -> Array:
        """Rows of a buffer, in its order, int64."""
        runs = self.ranges(seed, epoch, buffer)
        return np.concatenate([np.arange(*run, dtype=np.int64) for run in runs])

    def draw(self, seed: int, replicas: int, call: int, batch: int) -> Array:
        """Rows of every replica's batch, (R, n) int64."""
        del batch
        epoch, buffer, _ = self.place(call)
        rows = self.rows_in(seed, epoch, buffer)
        drawn: Array = rows[self.local(seed, replicas, call)]
        return drawn


def make_strata(labels: Any, targets: Array, n_data: int) -> Strata:
    """Classes given as ``strata=``, or those of the targets (N, 1) if None.

    Raises
    ------
    PotentialError
        Not one label a row, or targets that are not classes.
    """
    if labels is None:
        if targets.ndim != 2 or targets.shape[1] != 1 or targets.dtype.kind not in "iu":
            raise PotentialError(
                "order='stratified': the targets are not classes; give the class of "
                "each row, e.g. minibatch(order='stratified', strata=np.digitize(y, "
                "np.quantile(y, [0.25, 0.5, 0.75])))"
            )
        return Strata(targets[:, 0])
    given = np.asarray(labels)
    if given.shape != (n_data,) or given.dtype.kind not in "biuUS":
        raise PotentialError(
            f"strata has shape {given.shape} and type {given.dtype}: expected "
            f"({n_data},) class numbers or names, one for each row of X"
        )
    return Strata(given)


def make_blocks(
    n_data: int, batch: int, row_bytes: int, block: Any, buffer: Any
) -> Blocks:
    """Blocks of 1 MiB and buffers of 64 MiB, unless given in rows.

    Raises
    ------
    PotentialError
        A block or buffer that is not a number of rows from 1 to N.
    """
    sizes = []
    for name, value, room in (("block", block, _BLOCK), ("buffer", buffer, _BUFFER)):
        rows = max(1, min(n_data, room // row_bytes)) if value is None else value
        integer = isinstance(rows, (int, np.integer)) and not isinstance(rows, bool)
        if not integer or not 1 <= rows <= n_data:
            raise PotentialError(
                f"{name}={value!r}: expected a number of rows from 1 to the {n_data} "
                "of the data, e.g. minibatch(order='blocks', "
                f"{name}={min(n_data, 4096)})"
            )
        sizes.append(int(rows))
    whole = max(batch, sizes[1] // batch * batch)
    return Blocks(n_data, batch, min(sizes[0], n_data), whole)
