"""Kernels of a network's force between its matrix products, on CUDA.

Arrays of a layer are (R, units, rows), rows lying along the threads of a block: reads
are neighbours, a soft-max is plain arithmetic between rows, and one row of a layer is
one block's work.

===========================  =======================================================
equation                     kernel
===========================  =======================================================
rows of a batch, gathered    ``gather``
a = f(z + b), z <- f'(z + b)  ``activate``
-log p, z <- d(-log p)/dz    ``loss``
delta <- f' (W^T delta)      ``descend``
s (c G + d(-log prior)/dq)   ``finish``, with the sums that biases need
U                            ``parts``, then ``total``
===========================  =======================================================

Each force call has a number, ``clock[0] * calls + call``: see `mdnet.kernels.cuda`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, float64, uint32

from mdnet.kernels import cuda_scalars
from mdnet.kernels.batches import ROUNDS
from mdnet.kernels.codes import LIKELIHOODS, ORDERS
from mdnet.kernels.cuda_build import bind, to_ptx
from mdnet.kernels.cuda_scalars import LANES, scope_of

__all__ = ["LANES", "START", "kernel", "ptx"]

_CATEGORICAL = LIKELIHOODS["categorical"]
_REPLACEMENT = ORDERS["replacement"]

# Columns of the table of blocks of parameters.
KIND, START, STOP, TENSOR, ROW, STRIDE = range(6)
WEIGHT, BIAS, WIDE = range(3)
"""Kinds of a block: gradient in place, sum of a row of delta, packed gradient."""

# Bound when a kernel is built.
REAL: Any = float32
F: Any = np.float32
activation, miss = cuda_scalars.activation, cuda_scalars.miss
prior_slope, prior_value = cuda_scalars.prior_slope, cuda_scalars.prior_value
make_keys, shuffled = cuda_scalars.make_keys, cuda_scalars.shuffled
place = cuda_scalars.place
replaced, block_sum = cuda_scalars.replaced, cuda_scalars.block_sum


def gather(  # type: ignore[no-untyped-def]
    X, T, x, t, seed, clock, call, calls, order, batch, first
):
    """Rows ``first ..`` of each batch: x (B, rows, inputs), t (B, targets, rows).

    A block of threads for each row; B is R, or 1 for a shared batch.
    """
    keys = cuda.shared.array(ROUNDS, uint32)
    lane = cuda.threadIdx.x
    count, n_data = x.shape[1], X.shape[0]
    r = cuda.blockIdx.x // count
    i = cuda.blockIdx.x % count
    now = clock[0] * calls + call
    epoch, turn = place(order, now, n_data // batch)
    if order != _REPLACEMENT:
        make_keys(keys, lane, LANES, r, epoch, seed[0], seed[1])
    cuda.syncthreads()
    if order != _REPLACEMENT:
        row = shuffled(keys, turn * batch + first + i, n_data)
    else:
        row = replaced(first + i, r, now, n_data, seed[0], seed[1])
    for k in range(lane, x.shape[2], LANES):
        x[r, i, k] = X[row, k]
    for k in range(lane, t.shape[1], LANES):
        t[r, k, i] = T[k, row]


def activate(q, z, a, units, code, bias):  # type: ignore[no-untyped-def]
    """One block a unit: z (R units, rows) becomes f'(z + b), ``a`` is f(z + b)."""
    row = cuda.blockIdx.x
    r = row // units
    shift = q[r, bias + row % units] if bias >= 0 else F(0.0)
    for i in range(cuda.threadIdx.x, z.shape[1], LANES):
        y, slope = activation(code, z[row, i] + shift)
        a[row, i] = y
        z[row, i] = slope


def loss(q, z, t, nll, kind, strength, bias, first):  # type: ignore[no-untyped-def]
    """One thread a row: z (R, outputs, rows) becomes delta, nll (R, rows) is -log p."""
    classes, rows = z.shape[1], z.shape[2]
    per = (rows + LANES - 1) // LANES
    r = cuda.blockIdx.x // per
    i = cuda.blockIdx.x % per * LANES + cuda.threadIdx.x
    b = r if t.shape[0] > 1 else 0
    if i < rows:
        value = F(0.0)
        if kind == _CATEGORICAL:
            label = np.int64(t[b, 0, first + i])
            top = z[r, 0, i] + (q[r, bias] if bias >= 0 else F(0.0))
            for c in range(classes):
                x = z[r, c, i] + (q[r, bias + c] if bias >= 0 else F(0.0))
                z[r, c, i] = x
                top = x if x > top else top
            total = F(0.0)
            for c in range(classes):
                shifted = z[r, c, i] - top
                if c == label:
                    value = -shifted
                e = F(math.exp(shifted))
                total += e
                z[r, c, i] = e
            value += F(math.log(total))
            over = F(1.0) / total
            for c in range(classes):
                z[r, c, i] = z[r, c, i] * over - (F(1.0) if c == label else F(0.0))
        else:
            for c in range(classes):
                x = z[r, c, i] + (q[r, bias + c] if bias >= 0 else F(0.0))
                part, slope = miss(kind, x, t[b, c, first + i], strength)
                value += part
                z[r, c, i] = slope
        nll[r, i] = value


def descend(z, error):  # type: ignore[no-untyped-def]
    """Delta of a layer, in place of its slopes: z <- z error, both flat."""
    i = cuda.blockIdx.x * LANES + cuda.threadIdx.x
    if i < z.shape[0]:
        z[i] = z[i] * error[i]


def finish(  # type: ignore[no-untyped-def]
    q, out, packed, delta, blocks, tensors, opening, closing, scale, sign
):
    """Gradient of one block of parameters: sums, scale, prior and sign.

    ``blocks`` (B, 6), ``tensors`` (L, 3) of prior code, u and v; delta (rows of all
    layers, rows of data); ``opening`` and ``closing`` tell the first and the last
    slice of the data.
    """
    shared = cuda.shared.array(LANES, REAL)
    lane = cuda.threadIdx.x
    count = blocks.shape[0]
    r = cuda.blockIdx.x // count
    b = cuda.blockIdx.x % count
    kind, start, stop = blocks[b, KIND], blocks[b, START], blocks[b, STOP]
    tensor = blocks[b, TENSOR]
    code = np.int64(tensors[tensor, 0])
    u, v = tensors[tensor, 1], tensors[tensor, 2]
    if kind == BIAS:
        row = blocks[b, ROW] + r * blocks[b, STRIDE]
        part = F(0.0)
        for i in range(lane, delta.shape[1], LANES):
            part += delta[row, i]
        part = block_sum(shared, lane, part)
        if lane == 0:
            if opening == 0:
                part += out[r, start]
            if closing == 1:
                pull = prior_slope(code, q[r, start], u, v)
                part = F(sign) * (F(scale) * part + pull)
            out[r, start] = part
    elif closing == 1:
        for j in range(start + lane, stop, LANES):
            g = out[r, j]
            if kind == WIDE:
                g = packed[r * blocks[b, STRIDE] + j - blocks[b, ROW]]
            pull = prior_slope(code, q[r, j], u, v)
            out[r, j] = F(sign) * (F(scale) * g + pull)


def parts(q, nll, blocks, tensors, out, opening, closing, scale):  # type: ignore[no-untyped-def]
    """Energy of one block of parameters, and of the rows: out (R, B + 1) float64."""
    shared = cuda.shared.array(LANES, float64)
    lane = cuda.threadIdx.x
    count = blocks.shape[0] + 1
    r = cuda.blockIdx.x // count
    b = cuda.blockIdx.x % count
    part = 0.0
    if b == count - 1:
        for i in range(lane, nll.shape[1], LANES):
            part += float64(nll[r, i])
        part *= scale
    elif closing == 1:
        tensor = blocks[b, TENSOR]
        code = np.int64(tensors[tensor, 0])
        u, v = tensors[tensor, 1], tensors[tensor, 2]
        for j in range(blocks[b, START] + lane, blocks[b, STOP], LANES):
            part += prior_value(code, float64(q[r, j]), u, v)
    part = block_sum(shared, lane, part)
    if lane == 0:
        out[r, b] = part if opening == 1 else out[r, b] + part


def total(pieces, out, constant):  # type: ignore[no-untyped-def]
    """Energies (R,) of all blocks of each replica."""
    shared = cuda.shared.array(LANES, float64)
    lane = cuda.threadIdx.x
    r = cuda.blockIdx.x
    part = 0.0
    for b in range(lane, pieces.shape[1], LANES):
        part += pieces[r, b]
    part = block_sum(shared, lane, part)
    if lane == 0:
        out[r] = part + constant


_KERNELS = (gather, activate, loss, descend, finish, parts, total)


@cache
def _bound(name: str, single: bool) -> Any:
    return bind({k.__name__: k for k in _KERNELS}[name], scope_of(single))


@cache
def kernel(name: str, single: bool) -> Any:
    """Compiled kernel ``name`` for float32 (``single``) or float64 arrays."""
    return cuda.jit(_bound(name, single))


def ptx(name: str, single: bool = True, cc: tuple[int, int] = (9, 0)) -> str:
    """PTX of a kernel for compute capability ``cc``; needs no driver."""
    from numba import int64, uint64, void

    f = float32 if single else float64
    matrix, cube, flat = f[:, ::1], f[:, :, ::1], f[::1]
    blocks, reals = int64[:, ::1], float64[:, ::1]
    n, x = int64, float64
    clock = int64[::1]
    signatures = {
        "gather": void(matrix, matrix, cube, cube, uint64[::1], clock, n, n, n, n, n),
        "activate": void(matrix, matrix, matrix, n, n, n),
        "loss": void(matrix, cube, cube, matrix, n, x, n, n),
        "descend": void(flat, flat),
        "finish": void(matrix, matrix, flat, matrix, blocks, reals, n, n, x, x),
        "parts": void(matrix, matrix, blocks, reals, reals, n, n, x),
        "total": void(reals, float64[::1], x),
    }
    return to_ptx(_bound(name, single), signatures[name], cc)
