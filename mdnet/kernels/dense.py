"""Energy and gradient of a fully connected network on the CPU, many replicas at once.

Hand-written reverse mode.  The batch is cut into chunks of at most `CHUNK` rows that
stay in cache with all their activations.  A chunk is gathered, sent forward and back,
and leaves dU/dz of every layer in its slot; the weight gradients are then sums over
the chunks in order.

Workers draw tasks from one list until none is left: whole replicas or, if those are
few, chunks and then blocks of weights.  All do the same arithmetic in the same order,
so that results depend neither on the number of threads nor on the other replicas, bit
for bit.  A kernel takes one address, of the `TABLE` that holds all others: a call
costs little however small the network.  Numba keeps what it compiled on disk.

====================================  ============================================
equation                              code
====================================  ============================================
z = W a + b, a' = f(z)                ``_chunk``: z over ``layers[:, Z]``
delta = d(-log p)/dz                  ``pointwise.loss``, then ``backward``
dW = sum_i delta_i a_i^T              ``_weights``
s ((N/n) dW + d(-log prior)/dq)       ``pointwise.finish``
====================================  ============================================
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types

from mdnet.kernels import native, products, tiles
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.intake import CHUNK, WORDS
from mdnet.kernels.native import call, look, pointer, record, take
from mdnet.kernels.products import (
    DEPTH,
    FEW,
    backward,
    first_layer,
    forward,
    outer,
    outer_padded,
)
from mdnet.kernels.tiles import VECTOR, lanes

__all__ = [
    "BLOCK",
    "COLUMNS",
    "ENERGIES",
    "PAD",
    "PIECES",
    "TABLE",
    "WHOLE",
    "kernel",
    "scratch",
]

PAD = 16
"""Chunks have room for a multiple of this many rows: whole vectors only."""
BLOCK = 8192
"""Weights of one layer that a worker differentiates at a time."""

WHOLE, PIECES, ENERGIES = range(3)
"""Tasks: replicas, chunks and then blocks of weights, or chunks for energies only."""

IN, OUT, W, B, Z, A, CORNER, PART, PADDED, SUMS = range(10)
"""Columns of the table of layers."""
COLUMNS = SUMS + 1

_FIELDS = {
    np.int64: """
        next done worker mode replicas size n_data batch rows chunks share calls
        shared k0 k1 layers blocks inputs targets itemsize lanes stride panel_rows
        target_at work_at length own X X_row X_column Y q out energies slots scratch
        index words losses layer_table block_table priors draw pick gather column turn
        dots row_sums edge activate loss finish prior yield_
        still still_length turned_at plus parts totals padded_size
    """,
    np.float64: "scale sign strength constant",
}
TABLE = np.dtype([(name, t) for t, names in _FIELDS.items() for name in names.split()])
"""What a kernel needs: counters, sizes, offsets into slots, addresses and factors."""
_RECORD = from_dtype(TABLE)
_NEXT, _DONE, _WORKER = 0, 8, 16  # bytes: the counters stand first

_OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
_plain = njit(**_OPTIONS)
_inline = njit(inline="always", **_OPTIONS)


def scratch(dtype: Any) -> int:
    """Numbers of a worker's scratch before its corners: a zero and a block."""
    return 2 * lanes(dtype) * (1 + max(DEPTH, CHUNK))


@_inline
def _vectors(t: Any, c: Any) -> Any:
    """Vectors of rows in chunk ``c``."""
    return (min(t.rows, t.batch - c * t.rows) + t.lanes - 1) // t.lanes


@_inline
def _bias(t: Any, layer: Any, q: Any, own: Any) -> Any:
    """Where a layer's biases are, and the distance between two of them."""
    if layer[B] >= 0:
        return q + layer[B] * t.itemsize, np.int64(1)
    return own, np.int64(0)


@_inline
def _inputs(t: Any, slot: Any, c: Any) -> Any:
    """Where the panels of a chunk are: in its slot, or made once and for all."""
    if t.still != 0:
        return t.still + c * t.still_length * t.itemsize
    return slot


@_inline
def _chunk(
    t: Any, layers: Any, q: Any, slot: Any, own: Any, me: Any, r: Any, c: Any
) -> float:
    """Loss of one chunk of rows; its slot then holds delta of every layer."""
    first, size = c * t.rows, t.itemsize
    count = min(t.rows, t.batch - first)
    vectors = _vectors(t, c)
    width = vectors * t.lanes
    last, layer = t.layers - 1, layers[0]
    w, z = q + layer[W] * size, slot + layer[Z] * size
    bias, bm = _bias(t, layer, q, own)
    base = _inputs(t, slot, c)
    targets = base + t.target_at * size
    if t.still != 0:
        a = base + t.turned_at * size
        forward(t, layer[OUT], layer[IN], vectors, w, a, z, bias, bm)
    else:
        index = t.index + 8 * CHUNK * me
        call(
            t.draw,
            (
                index,
                t.words + 4 * WORDS * me,
                first,
                count,
                width,
                t.n_data,
                t.batch,
                t.calls,
                np.int64(0) if t.shared == 1 else r,
                t.k0,
                t.k1,
            ),
            np.int64,
        )
        call(t.pick, (t.Y, index, width, t.targets, targets, t.stride), np.int64)
        for v in range(0, vectors, 2):
            n, low = min(2, vectors - v), v * t.lanes
            panel = slot + low * 2 * VECTOR
            call(
                t.gather,
                (
                    t.X,
                    t.X_row,
                    t.X_column,
                    index + 8 * low,
                    n * t.lanes,
                    width - low,
                    t.inputs,
                    panel,
                    t.panel_rows,
                ),
                np.int64,
            )
            at, block = z + v * VECTOR, own + 2 * VECTOR
            first_layer(t, layer[OUT], layer[IN], n, w, panel, at, block, bias, bm)
    for l in range(last):
        a = slot + layer[A] * size
        call(t.activate, (z, a, layer[OUT], width, t.stride), np.int64)
        layer = layers[l + 1]
        w, z = q + layer[W] * size, slot + layer[Z] * size
        bias, bm = _bias(t, layer, q, own)
        forward(t, layer[OUT], layer[IN], vectors, w, a, z, bias, bm)
    work, units, strength = slot + t.work_at * size, layer[OUT], t.strength
    total = call(
        t.loss,
        (z, targets, work, units, t.targets, width, t.stride, count, strength),
        np.float64,
    )
    if t.mode != ENERGIES:
        for l in range(last, 0, -1):
            layer = layers[l]
            w, z = q + layer[W] * size, slot + layer[Z] * size
            below = slot + layers[l - 1, Z] * size
            backward(t, layer[OUT], layer[IN], vectors, w, z, below)
    return total


@_plain
def _weights(
    t: Any,
    layers: Any,
    block: Any,
    slot: Any,
    own: Any,
    c: Any,
    low: Any,
    high: Any,
    out: Any,
) -> None:
    """Add the gradient of one block of weights from chunk ``c``'s slot.

    One of those ``low <= c < high`` that a worker adds in a row.
    """
    l, first, last = block[0], block[1], block[2]
    layer, size = layers[l], t.itemsize
    units, count = layer[OUT], min(t.rows, t.batch - c * t.rows)
    delta = slot + layer[Z] * size
    few = l > 0 and units <= FEW
    a, rows = _inputs(t, slot, c), t.panel_rows
    if l > 0:
        a, rows = slot + layers[l - 1, A] * size, np.int64(0)
    bias = out + layer[B] * size if layer[B] >= 0 else np.int64(0)
    outer(
        t,
        units,
        layer[IN],
        first,
        last,
        count,
        _vectors(t, c),
        delta,
        a,
        rows,
        own,
        out + layer[W] * size,
        bias,
        own + layer[CORNER] * size,
        c,
        low,
        high,
    )
    # Otherwise the products have summed it, as the weights of an input that is 1.
    if bias != 0 and last == layer[IN] and (few or last % t.lanes == 0):
        fresh = np.int64(1) if c == 0 else np.int64(0)
        call(t.row_sums, (delta, t.stride, units, count, bias, fresh), np.int64)


@_plain
def _finish(
    t: Any, layers: Any, priors: Any, l: Any, first: Any, last: Any, q: Any, out: Any
) -> None:
    """Scale columns ``first <= k < last`` of a layer, add the prior and the sign."""
    layer, p, size = layers[l], priors[l], t.itemsize
    rows, stride, count = layer[OUT], layer[IN], last - first
    if count == stride:  # one row, without gaps
        rows, stride, count = np.int64(1), rows * stride, rows * stride
    at, code = (layer[W] + first) * size, np.int64(p[0])
    factors = (p[1], p[2], t.scale, t.sign)
    call(t.finish, (out + at, q + at, rows, stride, count, code, *factors), np.int64)
    if last == layer[IN] and layer[B] >= 0:
        at, code, units = layer[B] * size, np.int64(p[3]), layer[OUT]
        one, factors = np.int64(1), (p[4], p[5], t.scale, t.sign)
        call(t.finish, (out + at, q + at, one, units, units, code, *factors), np.int64)


@_plain
def _partial(t: Any, layers: Any, slot: Any, own: Any, c: Any, to: Any) -> None:
    """Gradient of all weights from chunk ``c`` alone, padded, from its slot."""
    size, count = t.itemsize, min(t.rows, t.batch - c * t.rows)
    for l in range(t.layers):
        layer = layers[l]
        units, delta, vectors = layer[OUT], slot + layer[Z] * size, _vectors(t, c)
        a, rows = _inputs(t, slot, c), t.panel_rows
        if l > 0:
            a, rows = slot + layers[l - 1, A] * size, np.int64(0)
        g, inputs, padded = to + layer[PART] * size, layer[IN], layer[PADDED]
        outer_padded(t, units, inputs, padded, count, vectors, delta, a, rows, own, g)
        if layer[SUMS] >= 0:
            bias, one = to + layer[SUMS] * size, np.int64(1)
            call(t.row_sums, (delta, t.stride, units, count, bias, one), np.int64)


@_plain
def _unpad(t: Any, layers: Any, priors: Any, total: Any, q: Any, out: Any) -> None:
    """Put a padded gradient in its place, and finish it."""
    size, width, one = t.itemsize, 2 * t.lanes, np.int64(1)
    for l in range(t.layers):
        layer = layers[l]
        units, inputs, padded = layer[OUT], layer[IN], layer[PADDED]
        g, to = total + layer[PART] * size, out + layer[W] * size
        for k in range(0, inputs, width):
            n, at = min(width, inputs - k), k * size
            call(t.edge, (g + at, padded, to + at, inputs, units, n), np.int64)
        if layer[B] >= 0:
            bias, source, step = out + layer[B] * size, g + inputs * size, padded
            if layer[SUMS] >= 0:
                source, step = total + layer[SUMS] * size, one
            call(t.edge, (source, step, bias, one, units, one), np.int64)
        _finish(t, layers, priors, l, 0, inputs, q, out)


@_inline
def _energy(t: Any, layers: Any, priors: Any, losses: Any, q: Any) -> float:
    """Energy of one replica from its chunks and tensors, always in the same order."""
    data, prior = 0.0, 0.0
    for c in range(t.chunks):
        data += losses[c]
    for l in range(t.layers):
        layer, p = layers[l], priors[l]
        at, units = q + layer[W] * t.itemsize, layer[OUT]
        weights, code = units * layer[IN], np.int64(p[0])
        prior += call(t.prior, (at, weights, code, p[1], p[2]), np.float64)
        if layer[B] >= 0:
            at, code = q + layer[B] * t.itemsize, np.int64(p[3])
            prior += call(t.prior, (at, units, code, p[4], p[5]), np.float64)
    return t.scale * data + prior + t.constant


@_inline
def _await(t: Any, address: Any, tasks: Any) -> None:
    """Wait until so many tasks are done, all of them in other threads' hands."""
    turns = 0
    while look(address + _DONE) < tasks:
        turns += 1
        if turns > 2000 and t.yield_ != 0:
            call(t.yield_, (), np.int32)


def _work(partial: bool, version: int) -> Any:
    """Write the kernel; ``version`` is part of its key on disk.

    ``partial`` is a constant of the closure: Numba drops the other branch.
    """

    def work(address: Any) -> Any:
        t = record(address, _RECORD)
        me = take(address + _WORKER)
        R, chunks, size = t.replicas, t.chunks, t.itemsize
        layers = carray(pointer(t.layer_table, np.int64), (t.layers, COLUMNS))
        blocks = carray(pointer(t.block_table, np.int64), (t.blocks, 3))
        priors = carray(pointer(t.priors, np.float64), (t.layers, 6))
        losses = carray(pointer(t.losses, np.float64), (R, chunks))
        energies = carray(pointer(t.energies, np.float64), (R,))
        own = t.scratch + size * t.own * me

        start, phase, base = np.int64(0), np.int64(0), np.int64(0)
        here = min(t.share, chunks)
        tasks = R if t.mode == WHOLE else R * here if t.mode == PIECES else R * chunks
        while True:
            task = take(address + _NEXT) - start
            while task >= tasks:  # the next phase, or the end
                task -= tasks
                start += tasks
                if t.mode == PIECES and phase % 2 == 0:
                    phase += 1
                    tasks = R if partial else R * t.blocks
                elif t.mode == PIECES and base + here < chunks:
                    base += here
                    here = min(t.share, chunks - base)
                    phase, tasks = phase + 1, R * here
                elif t.mode != WHOLE and t.energies != 0 and phase >= 0:
                    phase, tasks = np.int64(-1), R
                else:
                    return version
            if start > 0:
                _await(t, address, start)
            # Chunks low <= c < high are computed, or gathered from slots; then blocks.
            whole, gathers = t.mode == WHOLE, phase % 2 == 1 and phase > 0
            r, low, high = task, np.int64(0), chunks
            first, last, finishes = np.int64(0), t.blocks, whole
            if phase < 0:
                high = low
            elif gathers:
                low, high = base, base + here
                finishes = high == chunks
                if partial:
                    last = first
                else:
                    r, first = task // t.blocks, task % t.blocks
                    last = first + 1
            elif not whole:
                each = here if t.mode == PIECES else chunks
                r, low = task // each, base + task % each
                high, last = low + 1, first
            q, out = t.q + size * t.size * r, t.out + size * t.size * r
            total = t.totals + size * t.padded_size * (r if gathers else me)
            for c in range(low, high):
                place = r * t.share + c - base if t.mode == PIECES else me
                # Chunks that leave their gradients alone need no slot of their own.
                slot = t.slots + size * t.length * place
                if partial:
                    slot = t.slots + size * t.length * me
                if not gathers:
                    losses[r, c] = _chunk(t, layers, q, slot, own, me, r, c)
                if partial:
                    part = t.parts + size * t.padded_size * place
                    if not gathers and t.mode != ENERGIES:
                        to = total if whole and c == 0 else part
                        _partial(t, layers, slot, own, c, to)
                    if gathers or (whole and c > 0):
                        fresh = np.int64(1 if c == 0 else 0)
                        call(t.plus, (total, part, t.padded_size, fresh), np.int64)
                else:
                    for b in range(first, last):
                        _weights(t, layers, blocks[b], slot, own, c, low, high, out)
            if partial:
                if finishes:
                    _unpad(t, layers, priors, total, q, out)
            elif finishes:
                for b in range(first, last):
                    l, k, end = blocks[b, 0], blocks[b, 1], blocks[b, 2]
                    _finish(t, layers, priors, l, k, end, q, out)
            if t.energies != 0 and (t.mode == WHOLE or phase < 0):
                energies[r] = _energy(t, layers, priors, losses[r], q)
            take(address + _DONE)

    return work


@cache
def kernel(partial: bool) -> Any:
    """Compile the C function ``int64 (table)``, the same for every precision.

    If ``partial``, chunks make whole gradients, which are added up; else blocks of
    weights are summed over chunks.

    Each worker calls it once with the address of the same `TABLE`, whose counters
    ``next``, ``done`` and ``worker`` start at zero.  Arrays of the table:

    ==================================  ==============================================
    q, out (R, D); energies (R,)        weights; ``sign`` times the gradient; U of the
                                        rows used, float64, or address 0
    X, Y (N, targets)                   data; X by strides in elements
    slots (slots, length)               of a worker, or of a chunk with `PIECES`
    scratch (workers, own)              see `scratch`, then the corners of `outer`;
                                        zeros at first
    still (chunks, still_length)        panels, targets and, from ``turned_at``, inputs
                                        (inputs, rows) of all data; or address 0
    parts, totals (slots, padded_size)  padded gradients: of a chunk, and the sum so far
                                        of a worker or a replica, if ``partial``
    index, words                        (workers, CHUNK) int64, and
                                        (workers, WORDS) uint32
    losses (R, chunks)                  float64
    layer_table, block_table, priors    (layers, 10), (blocks, 3) int64; (layers, 6)
    ==================================  ==============================================

    The other addresses are C functions: those of `products` and `pointwise`, `draw`,
    `pick`, `gather`, and ``yield_``, which may be 0.
    """
    source = _work(partial, fingerprint(native, products, tiles))
    return cfunc(types.int64(types.int64), cache=True, error_model="numpy")(source)
