"""Energy and gradient of a fully connected network on the CPU, many replicas at once.

Hand-written reverse mode.  The batch is cut into chunks of at most `CHUNK` rows that
stay in cache with all their activations.  A chunk is gathered (as (rows, inputs) if
there are many inputs, else transposed), sent forward and back, and leaves dU/dz of
every layer in its slot; the weight gradients are then sums over the chunks in order.

Replicas are shared out among threads whole, or, if they are few, chunk by chunk and
then block of weights by block: both do the same arithmetic in the same order, so that
results depend neither on the number of threads nor on the other replicas, bit for bit.
The first call of a precision compiles for ten to twenty seconds; Numba keeps the
result on disk.

====================================  ============================================
equation                              code
====================================  ============================================
z = W a + b, a' = f(z)                ``_chunk``: z over ``layers[:, Z]``
delta = d(-log p)/dz                  ``loss``, then ``_chunk`` layer by layer
dW = sum_i delta_i a_i^T              ``_weights``
s ((N/n) dW + d(-log prior)/dq)       ``pointwise.finish``
====================================  ============================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from mdnet.kernels import batches, codes, elementary, letters, pointwise, products
from mdnet.kernels.batches import batch_rows
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.pointwise import activate, finish, loss, prior_energy
from mdnet.kernels.products import dot_rows, mix_rows

__all__ = [
    "BLOCK",
    "CHUNK",
    "PAD",
    "WIDE_INPUTS",
    "run",
]

CHUNK = 128
"""Most rows of a chunk."""
PAD = 16
"""Chunks are padded to a multiple of this many rows: no scalar remainders."""
WIDE_INPUTS = 48
"""Inputs from which rows are gathered as they lie, not transposed."""
BLOCK = 8192
"""Weights of one layer that a thread differentiates at a time."""

REPLICAS, CHUNKS, WEIGHTS, ENERGIES = range(4)
"""Phases of `run`."""

# Columns of the table of layers.
IN, OUT, W, B, F, Z, A = range(7)
# Entries of the table of integers.
N, BATCH, ROWS, ORDER, CALL, SHARED, K0, K1, LIKELIHOOD, WIDE, T, WORK, BACK = range(13)
# Entries of the table of reals.
SCALE, SIGN, STRENGTH, CONSTANT = range(4)

_plain = njit(fastmath={"contract", "nsz"}, error_model="numpy")
_sums = njit(fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")


@_plain
def _view(slot: Any, at: Any, rows: Any, width: Any) -> Any:
    return slot[at : at + rows * width].reshape(rows, width)


@_plain
def _matrix(q: Any, layer: Any) -> Any:
    rows, columns = layer[OUT], layer[IN]
    return q[layer[W] : layer[W] + rows * columns].reshape(rows, columns)


@_plain
def _gather(X: Any, x: Any, index: Any, wide: bool) -> None:
    real = x.dtype.type
    if wide:
        for i in range(x.shape[0]):
            row, to = X[index[i]], x[i]
            for k in range(to.size):
                to[k] = real(row[k])
    else:
        for i in range(x.shape[1]):
            for k in range(x.shape[0]):
                x[k, i] = real(X[index[i], k])


@_plain
def _inputs(slot: Any, layers: Any, wide: bool, width: Any) -> Any:
    if wide:
        return _view(slot, 0, width, layers[0, IN])
    return _view(slot, 0, layers[0, IN], width)


@_plain
def _width(g: Any, c: Any) -> Any:
    """Rows of chunk ``c`` with their padding."""
    count = min(g[ROWS], g[BATCH] - c * g[ROWS])
    return (count + PAD - 1) // PAD * PAD


@_plain
def _chunk(
    g: Any,
    f: Any,
    layers: Any,
    q: Any,
    X: Any,
    Y: Any,
    slot: Any,
    index: Any,
    r: Any,
    c: Any,
    back: bool,
) -> float:
    """Loss of one chunk of rows; with ``back`` its slot holds delta of every layer."""
    first = c * g[ROWS]
    count = min(g[ROWS], g[BATCH] - first)
    width = _width(g, c)
    wide = g[WIDE] == 1
    replica = 0 if g[SHARED] == 1 else r
    batch_rows(
        index,
        first,
        count,
        g[ORDER],
        g[N],
        g[BATCH],
        g[CALL],
        replica,
        g[K0],
        g[K1],
    )
    for i in range(count, width):
        index[i] = index[0]
    x = _inputs(slot, layers, wide, width)
    _gather(X, x, index, wide)
    t = _view(slot, g[T], Y.shape[1], width)
    _gather(Y, t, index, False)

    last = layers.shape[0] - 1
    for l in range(last + 1):
        layer = layers[l]
        z = _view(slot, layer[Z], layer[OUT], width)
        for o in range(layer[OUT]):
            start = q[layer[B] + o] if layer[B] >= 0 else q.dtype.type(0)
            for i in range(width):
                z[o, i] = start
        if l == 0 and wide:
            dot_rows(_matrix(q, layer), x, z, 0, layer[OUT])
        else:
            mix_rows(_matrix(q, layer), x, z, 0, layer[OUT])
        if l < last:
            x = _view(slot, layer[A], layer[OUT], width)
            activate(layer[F], z, x)
    z = _view(slot, layers[last, Z], layers[last, OUT], width)
    work = _view(slot, g[WORK], 3, width)
    total = loss(g[LIKELIHOOD], z, t, work, count, f[STRENGTH])
    if back:
        for l in range(last, 0, -1):
            layer = layers[l]
            delta = _view(slot, layer[Z], layer[OUT], width)
            slope = _view(slot, layers[l - 1, Z], layer[IN], width)
            error = _view(slot, g[BACK], layer[IN], width)
            error[:, :] = 0
            mix_rows(_matrix(q, layer).T, delta, error, 0, layer[IN])
            for o in range(layer[IN]):
                for i in range(width):
                    slope[o, i] *= error[o, i]
    return total


@_sums
def _row_sums(delta: Any, out: Any, at: Any, first: Any, last: Any) -> None:
    for o in range(first, last):
        total = delta.dtype.type(0)
        row = delta[o]
        for i in range(row.size):
            total += row[i]
        out[at + o] += total


@_plain
def _weights(g: Any, layers: Any, block: Any, slot: Any, c: Any, out: Any) -> None:
    """Add the gradient of one block of output units from chunk ``c``'s slot."""
    l, first, last = block[0], block[1], block[2]
    layer = layers[l]
    width = _width(g, c)
    wide = g[WIDE] == 1
    gradient = _matrix(out, layer)
    if c == 0:
        gradient[first:last] = 0
        if layer[B] >= 0:
            out[layer[B] + first : layer[B] + last] = 0
    delta = _view(slot, layer[Z], layer[OUT], width)
    if l > 0:
        x = _view(slot, layers[l - 1, A], layer[IN], width)
        dot_rows(delta, x, gradient, first, last)
    elif wide:
        mix_rows(delta, _inputs(slot, layers, True, width), gradient, first, last)
    else:
        dot_rows(delta, _inputs(slot, layers, False, width), gradient, first, last)
    if layer[B] >= 0:
        _row_sums(delta, out, layer[B], first, last)


@_plain
def _finish(f: Any, layers: Any, priors: Any, block: Any, q: Any, out: Any) -> None:
    """Scale one block, add the prior's gradient and the sign."""
    l, first, last = block[0], block[1], block[2]
    layer, p = layers[l], priors[l]
    start, stop = layer[W] + first * layer[IN], layer[W] + last * layer[IN]
    code = np.int64(p[0])
    finish(out, q, start, stop, code, p[1], p[2], f[SCALE], f[SIGN])
    if layer[B] >= 0:
        start, stop, code = layer[B] + first, layer[B] + last, np.int64(p[3])
        finish(out, q, start, stop, code, p[4], p[5], f[SCALE], f[SIGN])


@_plain
def _prior(layers: Any, priors: Any, block: Any, q: Any) -> float:
    l, first, last = block[0], block[1], block[2]
    layer, p = layers[l], priors[l]
    start, stop = layer[W] + first * layer[IN], layer[W] + last * layer[IN]
    total = prior_energy(q, start, stop, np.int64(p[0]), p[1], p[2])
    if layer[B] >= 0:
        start, stop = layer[B] + first, layer[B] + last
        total += prior_energy(q, start, stop, np.int64(p[3]), p[4], p[5])
    return total


@_plain
def _energy(f: Any, losses: Any, chunks: Any, parts: Any) -> Any:
    """Energy of one replica from its chunks and blocks, always in the same order."""
    data = 0.0
    for c in range(chunks):
        data += losses[c]
    prior = 0.0
    for b in range(parts.size):
        prior += parts[b]
    return f[SCALE] * data + prior + f[CONSTANT]


@_plain
def _work(
    phase: Any,
    w: Any,
    workers: Any,
    base: Any,
    share: Any,
    tables: Any,
    q: Any,
    data: Any,
    work: Any,
    out: Any,
    want: bool,
) -> None:
    """Do worker ``w``'s part of a phase; see `run`."""
    g, f, layers, blocks, priors = tables
    X, Y = data
    slots, index, losses, parts = work
    R, B = q.shape[0], blocks.shape[0]
    chunks = (g[BATCH] + g[ROWS] - 1) // g[ROWS]
    if phase == WEIGHTS:
        here = min(share, chunks - base)
        for task in range(w * R * B // workers, (w + 1) * R * B // workers):
            r, b = task // B, task % B
            for s in range(here):
                slot = slots[r * share + s]
                _weights(g, layers, blocks[b], slot, base + s, out[r])
            if base + here == chunks:
                _finish(f, layers, priors, blocks[b], q[r], out[r])
                if want:
                    parts[r, b] = _prior(layers, priors, blocks[b], q[r])
        return

    per = min(share, chunks - base) if phase == CHUNKS else chunks
    first, last = w * R * per // workers, (w + 1) * R * per // workers
    if phase == REPLICAS:
        first, last = w * R // workers * per, (w + 1) * R // workers * per
    for task in range(first, last):
        r, s = task // per, task % per
        c = base + s
        at = r * share + s if phase == CHUNKS else w
        slot, back = slots[at], phase != ENERGIES
        losses[r, c] = _chunk(g, f, layers, q[r], X, Y, slot, index[at], r, c, back)
        if phase == REPLICAS:
            for b in range(B):
                _weights(g, layers, blocks[b], slot, c, out[r])
        if phase != CHUNKS and c == chunks - 1:
            for b in range(B):
                if phase == REPLICAS:
                    _finish(f, layers, priors, blocks[b], q[r], out[r])
                if want:
                    parts[r, b] = _prior(layers, priors, blocks[b], q[r])


def _compile(version: int) -> Any:
    """Compile `run`; ``version`` is part of its key in the disk cache."""

    @njit(cache=True, parallel=True, nogil=True, error_model="numpy")
    def run(
        phase: Any,
        workers: Any,
        base: Any,
        share: Any,
        tables: Any,
        q: Any,
        data: Any,
        work: Any,
        out: Any,
        energies: Any,
    ) -> int:
        want = energies.size > 0
        for worker in prange(workers):
            w = np.int64(worker)
            _work(
                phase,
                w,
                workers,
                base,
                share,
                tables,
                q,
                data,
                work,
                out,
                want,
            )
        g, f = tables[0], tables[1]
        chunks = (g[BATCH] + g[ROWS] - 1) // g[ROWS]
        last = phase != CHUNKS and (phase != WEIGHTS or base + share >= chunks)
        if want and last:
            for r in range(q.shape[0]):
                energies[r] = _energy(f, work[2][r], chunks, work[3][r])
        return version

    return run


run = _compile(fingerprint(batches, codes, elementary, letters, pointwise, products))
"""run(phase, workers, base, share, tables, q, data, work, out, energies)

Run one phase on all workers.

Parameters
----------
phase : int
    `REPLICAS`: gradients, every worker with replicas of its own.  `CHUNKS`, then
    `WEIGHTS`: the same, workers taking chunks ``base .. base + share`` and then
    blocks of weights.  `ENERGIES`: energies only.
workers : int
    Number of parts.
base, share : int
    First chunk, and chunks a replica has slots for (`CHUNKS`, `WEIGHTS`).
tables : (g, f, layers, blocks, priors)
    Integers, reals and the tables of layers, of blocks of weights, of priors.
q : array, (R, D)
    Weights.
data : (X, Y)
    (N, inputs) and (N, targets).
work : (slots, index, losses, parts)
    Scratch: one row of slots and of indices a worker, or a chunk in `CHUNKS`.
out : array, (R, D)
    ``f[SIGN]`` times the gradient.
energies : array, (R,) or (0,)
    Energies of the rows used, float64, if there is room and the phase is the last.
"""
