"""Posterior energies and gradients of data that are read while they are used.

The rows of a batch stand one after another in memory before an engine sees them; all
data are sent through in pieces.  Serves files larger than memory, and batches that the
engines cannot draw themselves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.potentials._array_evaluator import ArrayEvaluator
from mdnet.potentials._batches import Blocks
from mdnet.potentials._dense_evaluator import DenseEvaluator
from mdnet.potentials._feed import Buffers, Feed, Room, passes
from mdnet.potentials._sources import ArraySource, Source
from mdnet.potentials.priors import FlatPrior
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch
    from mdnet.potentials.posterior import Posterior

__all__ = ["StreamEvaluator"]


class _Bare:
    """The part of `Parts` that belongs to rows: nothing is added for the prior."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)

    def energy(self, q: Array, xp: Any) -> Array:
        return xp.zeros(q.shape[0], np.float64)

    def add_gradient(self, q: Array, out: Array, xp: Any) -> None:
        """Add nothing."""


class _Held:
    """A posterior of rows that are held; with the prior of another, or none."""

    def __init__(self, model: Posterior, X: Array, t: Array, bare: bool) -> None:
        self._model, self._rows = model, (X, t)
        if bare:
            count, outputs = len(X), model.network.outputs
            self.parts, self.prior = _Bare(model.parts), FlatPrior()
            self.constant = model.likelihood.constant(count, outputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def arrays(self, dtype: Any) -> tuple[Array, Array]:
        """Inputs, and targets of that type."""
        del dtype
        return self._rows


class _Moving(DenseEvaluator):
    """A compiled engine whose rows are others at each call."""

    STILL = -1

    def hold(self, X: Array, t: Array) -> None:
        """Read other rows, as many as before."""
        for table in (self._all, self._rows):
            table.point(table.place["X"], X)
            table.point(table.place["Y"], t)

    def among(self, count: int) -> None:
        """Draw batches from the first ``count`` rows."""
        self._rows.view[self._rows.place["n_data"]] = count

    def stand_for(self, each: float) -> None:
        """Count each row of a batch so many times."""
        self._rows.reals[self._rows.place["scale"]] = each


class _Gathered:
    """Forces of batches whose rows stand one after another in a room."""

    def __init__(
        self,
        make: Any,
        model: Posterior,
        source: Source,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch,
    ) -> None:
        self._pinned = backend.name == "cuda" and not backend.simulated
        self._sent: Any = None
        self._xp = backend.xp
        _, targets = model.arrays(backend.force_dtype)
        self._feed = Feed(source, targets, batch, seed, replicas, self._pinned)
        room = self._feed.rooms[0]
        held: Any = _Held(model, room.X, room.t, bare=False)
        given = replace(batch, order="given", total=model.n_data, plan=None)
        self._engine = make(held, backend, replicas, seed, given)
        if isinstance(self._engine, _Moving):
            self._engine.stand_for(model.n_data / batch.size)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None
    ) -> None:
        if self._sent is not None:
            # The device may not have read the room that is filled next.
            self._sent.synchronize()
        room = self._feed.get(call)
        self._engine.hold(room.X, room.t)
        if self._pinned:
            self._sent = self._xp.cuda.Event()
            self._sent.record()
        self._engine.forces(positions, out, call, energies)


class _Buffered:
    """Forces of batches that the engine draws from a buffer of blocks by itself."""

    def __init__(
        self,
        model: Posterior,
        source: Source,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch,
    ) -> None:
        self._blocks: Blocks = batch.plan
        _, targets = model.arrays(backend.force_dtype)
        self._buffers = Buffers(source, targets, self._blocks, seed)
        held: Any = _Held(model, *self._buffers.rooms[0], bare=False)
        inside = replace(batch, order="shuffle", plan=None)
        self._engine = _Moving(held, backend, replicas, seed, inside)
        self._engine.stand_for(model.n_data / batch.size)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None
    ) -> None:
        epoch, buffer, _ = place = self._blocks.place(call)
        self._engine.hold(*self._buffers.hold(epoch, buffer))
        self._engine.among(self._blocks.size(buffer))
        # Epochs of the engine are buffers: it draws what `Blocks.local` says.
        number = self._blocks.number(place)
        self._engine.forces(positions, out, number, energies)


class StreamEvaluator:
    """Energies and gradients from rows that are gathered for an engine.

    Parameters
    ----------
    model : Posterior
    backend : Backend
    replicas : int
    seed : int
        Key of the minibatches.
    batch : Batch, optional
        Estimate forces from such batches; all rows if None.
    compiled : bool
        Whether `DenseEvaluator` computes, and not `ArrayEvaluator`.
    """

    ROOM = 2**25
    """Most bytes of a piece of all data; two are held."""

    def __init__(
        self,
        model: Posterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
        compiled: bool = False,
    ) -> None:
        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        random.seed_words(seed)
        self._model, self._backend, self._replicas = model, backend, replicas
        self._dtype, self._xp = backend.force_dtype, backend.xp
        self._engine: Any = _Moving if compiled else ArrayEvaluator
        X, self._targets = model.arrays(self._dtype)
        source = self._source = X if isinstance(X, Source) else ArraySource(X)
        self._batches: Any = None
        if batch is not None and compiled and _direct(batch, source):
            self._batches = _Buffered(model, source, backend, replicas, seed, batch)
        elif batch is not None:
            self._batches = _Gathered(
                self._engine, model, source, backend, replicas, seed, batch
            )
        self._rooms: list[Room] = []
        self._pieces: dict[int, Any] = {}
        self._pool: Any = None
        shape = replicas, model.size
        self._force = backend.xp.empty(shape, self._dtype)
        self._total = backend.xp.empty(shape, np.float64)
        self._energy = backend.xp.empty(replicas, np.float64)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        if self._batches is not None:
            self._batches.forces(positions, out, call, energies)
            return
        self._pass(positions, out, energies)
        self._xp.negative(out, out=out)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        self._pass(positions, None, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._pass(positions, out, None)

    def _piece(self, room: Room, count: int) -> Any:
        """Engine for ``count`` rows at the head of a room, without the prior."""
        X, t = room.X[:count], room.t[:count]
        if count not in self._pieces:
            held: Any = _Held(self._model, X, t, bare=True)
            self._pieces[count] = self._engine(held, self._backend, self._replicas, 0)
        engine = self._pieces[count]
        engine.hold(X, t)
        return engine

    def _reserve(self) -> None:
        row = self._dtype.itemsize * self._source.shape[1]
        count = min(self._source.shape[0], max(1, self.ROOM // row))
        pinned = self._backend.name == "cuda" and not self._backend.simulated
        self._rooms = [
            Room(count, self._source, self._targets, pinned) for _ in range(2)
        ]
        self._pool = ThreadPoolExecutor(1, "mdnet-rows")

    def _pass(
        self, positions: Array, out: Array | None, energies: Array | None
    ) -> None:
        """Gradient and energy of all data, each if asked for."""
        if not self._rooms:
            self._reserve()
        q = positions.astype(self._dtype, copy=False)
        if energies is not None:
            energies[...] = self._model.parts.energy(q, self._xp)
        self._total.fill(0)
        each = self._energy if energies is not None else None
        for count, room in passes(self._source, self._targets, self._rooms, self._pool):
            engine = self._piece(room, count)
            if out is None:
                engine.energies(q, self._energy)
            else:
                engine.forces(q, self._force, 0, each)
                self._total -= self._force
            if energies is not None:
                energies += self._energy
            if self._xp is not np:  # before the room is filled again
                self._xp.cuda.get_current_stream().synchronize()
        if out is not None:
            self._model.parts.add_gradient(q, self._total, self._xp)
            out[...] = self._total


def _direct(batch: Batch, source: Source) -> bool:
    """Whether the engine can read a buffer of blocks as it is stored."""
    kind = source.dtype
    plain = kind.isnative and (kind.kind in "iu" or kind.itemsize in (4, 8))
    return isinstance(batch.plan, Blocks) and plain
