"""Rows for the next force call, gathered by a thread while the last one is computed.

Batches are functions of (seed, replica, force call), and calls follow one another: so
the rows of call + 1 are known when call is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.potentials._batches import Blocks
from mdnet.potentials._sources import ArraySource, Source
from mdnet.potentials.minibatch import rows
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch

__all__ = ["Buffers", "Feed", "Room", "passes"]


class Room:
    """Inputs (rows, width) and targets (rows, k) in the type of the forces.

    Parameters
    ----------
    rows : int
    source : Source
    targets : array, (N, k)
    pinned : bool
        In memory that a CUDA device reads by itself.
    """

    def __init__(self, rows: int, source: Source, targets: Array, pinned: bool) -> None:
        make = _pinned if pinned else np.empty
        self.X = make((rows, source.shape[1]), targets.dtype)
        self.t = make((rows, targets.shape[1]), targets.dtype)

    def gather(self, source: Source, targets: Array, index: Array) -> None:
        """Take rows ``index``, one for each of the room's."""
        source.gather(index, self.X)
        np.take(targets, index, axis=0, out=self.t, mode="clip")


def _pinned(shape: tuple[int, ...], dtype: Any) -> Array:
    from cupyx import empty_pinned

    return empty_pinned(shape, dtype)


class Buffers:
    """The buffer of blocks that batches are drawn from, and the next one.

    Parameters
    ----------
    source : Source
    targets : array, (N, k)
    blocks : Blocks
    seed : int

    Attributes
    ----------
    rooms : list of (X, t)
        Inputs as stored, and targets: the buffer in use, and the one that is read.
    """

    def __init__(
        self, source: Source, targets: Array, blocks: Blocks, seed: int
    ) -> None:
        self._source, self._targets = source, targets
        self._blocks, self._seed = blocks, seed
        self._pool = ThreadPoolExecutor(1, "mdnet-blocks")
        shape, k = (blocks.buffer, source.shape[1]), targets.shape[1]
        self.rooms = [
            (np.empty(shape, source.dtype), np.empty((shape[0], k), targets.dtype))
            for _ in range(2)
        ]
        self._held: tuple[int, int] | None = None
        self._coming: tuple[tuple[int, int], Future[None]] | None = None

    def _load(self, key: tuple[int, int], room: tuple[Array, Array]) -> None:
        (X, t), at = room, 0
        for first, stop in self._blocks.ranges(self._seed, *key):
            self._source.read(first, X[at : at + stop - first])
            t[at : at + stop - first] = self._targets[first:stop]
            at += stop - first

    def hold(self, epoch: int, buffer: int) -> tuple[Array, Array]:
        """Inputs and targets of a buffer: there already if calls follow one another."""
        key = epoch, buffer
        if key != self._held:
            self._held = None
            coming, self._coming = self._coming, None
            if coming is None or _outcome(coming[1], coming[0] == key) is None:
                self._load(key, self.rooms[1])
            self.rooms.reverse()
            self._held, after = key, self._blocks.after(*key)
            self._coming = after, self._pool.submit(self._load, after, self.rooms[1])
        return self.rooms[0]


def _outcome(future: Future[None], wanted: bool) -> bool | None:
    """Wait for a task; True if it did what is wanted, which then may raise."""
    if wanted:
        future.result()
        return True
    future.exception()
    return None


class Feed:
    """Batches of any force call, in two rooms that are filled in turn.

    Parameters
    ----------
    source : Source
    targets : array, (N, k)
    batch : Batch
    seed, replicas : int
    pinned : bool
    """

    def __init__(
        self,
        source: Source,
        targets: Array,
        batch: Batch,
        seed: int,
        replicas: int,
        pinned: bool,
    ) -> None:
        self._source, self._targets = source, targets
        self._batch, self._seed = batch, seed
        self._copies = 1 if batch.shared else replicas
        count = self._copies * batch.size
        self.rooms = [Room(count, source, targets, pinned) for _ in range(2)]
        self._pool = ThreadPoolExecutor(1, "mdnet-rows")
        self._next: tuple[int, Future[None]] | None = None
        self._buffers: Buffers | None = None
        if isinstance(batch.plan, Blocks):
            self._buffers = Buffers(source, targets, batch.plan, seed)

    def _fill(self, call: int, room: Room) -> None:
        b, seed = self._batch, self._seed
        if self._buffers is not None:
            place = b.plan.place(call)
            X, t = self._buffers.hold(place.epoch, place.buffer)
            local = b.plan.local(seed, self._copies, call).reshape(-1)
            room.gather(ArraySource(X), t, local)
            return
        if b.plan is not None:
            index = b.plan.draw(seed, self._copies, call, b.size)
        else:
            n_data = self._source.shape[0]
            index = rows(seed, self._copies, call, n_data, b.size, b.order)
        room.gather(self._source, self._targets, index.reshape(-1))

    def get(self, call: int) -> Room:
        """Rows of one force call; those of the next are gathered from now on.

        The room is filled again by the second call from now.
        """
        coming, self._next = self._next, None
        if coming is None or _outcome(coming[1], coming[0] == call) is None:
            self._fill(call, self.rooms[1])
        self.rooms.reverse()
        following = self._pool.submit(self._fill, call + 1, self.rooms[1])
        self._next = call + 1, following
        return self.rooms[0]


def passes(
    source: Source, targets: Array, rooms: list[Room], pool: Any
) -> Iterator[tuple[int, Room]]:
    """All data in turn: yields a number of rows and the room they stand at the head of.

    One room is filled while the other is in use.
    """
    n_data, size = source.shape[0], len(rooms[0].X)
    starts = range(0, n_data, size)

    def fill(first: int, room: Room) -> int:
        stop = min(first + size, n_data)
        count = stop - first
        if source.dtype == room.X.dtype:
            source.read(first, room.X[:count])
        else:
            room.X[:count] = source[first:stop]
        room.t[:count] = targets[first:stop]
        return count

    coming = pool.submit(fill, 0, rooms[0])
    for i in range(len(starts)):
        count = coming.result()
        if i + 1 < len(starts):
            coming = pool.submit(fill, starts[i + 1], rooms[(i + 1) % 2])
        yield count, rooms[i % 2]
