"""Force and energy of a small network in one launch: one block of threads a replica.

Weights, gradients and the activations of a chunk of rows stay in shared memory.  A
warp multiplies four units of a layer with all rows of the chunk, two rows a thread (or
one, where shared memory is short): weights are then read by all threads at once and
activations without bank conflicts (their rows are one longer than the chunk).  For the
gradient a thread owns a tile of four by four weights and a slice of the rows; the
slices are summed at the end, always in the same order.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, float64, int64, uint32

from mdnet.kernels import cuda_scalars
from mdnet.kernels.batches import ROUNDS
from mdnet.kernels.codes import LIKELIHOODS, ORDERS
from mdnet.kernels.cuda_build import SIMULATED, bind, device, to_ptx
from mdnet.kernels.cuda_scalars import scope_of

__all__ = ["SHARED", "Shape", "kernel", "plan", "ptx"]

SHARED = 45_000
"""Most bytes of dynamic shared memory; a block has 48 KiB without asking for more."""

_CATEGORICAL = LIKELIHOODS["categorical"]
_FULL, _REPLACEMENT = ORDERS["full"], ORDERS["replacement"]
_WARP = 2 if SIMULATED else 32
_WARPS = 3 if SIMULATED else 8  # most of a block
_THREADS = _WARP * _WARPS

# Columns of the table of layers; Z and A are where outputs lie in shared memory.
IN, OUT, W, B, CODE, Z, A = range(7)
# Entries of the table of integers.
N, BATCH, ORDER, SINGLE, SLICES, GRADIENT, X0, LIKELIHOOD, CALLS = range(9)
# Entries of the table of reals.
SCALE, STRENGTH, CONSTANT = range(3)

WARP, THREADS = _WARP, _THREADS
# Bound when a kernel is built.
HALVES, CHUNK = 2, 2 * _WARP  # rows of a chunk, a thread's and all
REAL: Any = float32
F: Any = np.float32
activation, miss = cuda_scalars.activation, cuda_scalars.miss
prior_slope, prior_value = cuda_scalars.prior_slope, cuda_scalars.prior_value
make_keys, shuffled = cuda_scalars.make_keys, cuda_scalars.shuffled
place = cuda_scalars.place
replaced = cuda_scalars.replaced


@dataclass(frozen=True, slots=True)
class Shape:
    """How a block works on one network.

    Attributes
    ----------
    threads : int
        A whole number of warps.
    shared : int
        Bytes of dynamic shared memory.
    halves : int
        Rows of a chunk that a thread multiplies, 2 or 1; see `kernel`.
    slices : int
        Parts of the rows that are summed apart.
    gradient, inputs : int
        Where gradients and inputs begin in shared memory, in numbers.
    layers : ndarray, (L, 7) int64
        Table of layers, for `tiny`.
    """

    threads: int
    shared: int
    halves: int
    slices: int
    gradient: int
    inputs: int
    layers: np.ndarray[Any, Any]


def plan(
    sizes: tuple[int, ...],
    starts: list[tuple[int, int]],
    size: int,
    code: int,
    itemsize: int,
) -> Shape | None:
    """Lay a network out in shared memory; None if it does not fit.

    Parameters
    ----------
    sizes : (L + 1,) int
        Widths of the layers.
    starts : list of (int, int)
        Where weights and biases of each layer begin in q (-1: no biases).
    size : int
        Parameters D.
    code : int
        Activation of the hidden layers.
    itemsize : int
        Bytes of a number.
    """
    warps = min(_WARPS, -(-max(sizes[1:]) // 4))
    threads = _WARP * warps
    tiles = [-(-n // 4) * -(-m // 4) for n, m in itertools.pairwise(sizes)]
    rows = sizes[0] + sum(sizes[1:]) + sum(sizes[1:-1])
    slices, stride, halves = 0, 0, 0
    for halves in (2, 1):
        stride = halves * _WARP + 1
        room = SHARED // itemsize - size - rows * stride
        slices = min(max(1, threads // max(tiles)), 8, room // size)
        if slices >= 1:
            break
    else:
        return None
    layers = np.zeros((len(sizes) - 1, 7), np.int64)
    at = size * (1 + slices)
    inputs = at
    at += sizes[0] * stride
    for l, (weight, bias) in enumerate(starts):
        last = l == len(starts) - 1
        layers[l, : CODE + 1] = sizes[l], sizes[l + 1], weight, bias, code
        layers[l, Z] = at
        at += sizes[l + 1] * stride
        layers[l, A] = -1 if last else at
        at += 0 if last else sizes[l + 1] * stride
    return Shape(threads, at * itemsize, halves, slices, size, inputs, layers)


def forward(
    room: Any, layer: Any, source: Any, lane: Any, warp: Any, warps: Any
) -> None:
    """Outputs of one layer for a chunk, and slopes over the pre-activations."""
    stride = CHUNK + 1
    width, units = layer[IN], layer[OUT]
    for first in range(4 * warp, units, 4 * warps):
        sums = cuda.local.array((4, HALVES), REAL)
        rows = cuda.local.array(4, int64)
        weights = cuda.local.array(4, REAL)
        for u in range(4):
            o = min(first + u, units - 1)
            rows[u] = layer[W] + o * width
            start = room[layer[B] + o] if layer[B] >= 0 else F(0.0)
            for half in range(HALVES):
                sums[u, half] = start
        for k in range(width):
            for u in range(4):
                weights[u] = room[rows[u] + k]
            for half in range(HALVES):
                x = room[source + k * stride + lane + half * WARP]
                for u in range(4):
                    sums[u, half] += weights[u] * x
        for u in range(4):
            if first + u < units:
                for half in range(HALVES):
                    at = (first + u) * stride + lane + half * WARP
                    if layer[A] >= 0:
                        y, slope = activation(layer[CODE], sums[u, half])
                        room[layer[A] + at] = y
                        room[layer[Z] + at] = slope
                    else:
                        room[layer[Z] + at] = sums[u, half]


def descend(
    room: Any, layer: Any, below: Any, lane: Any, warp: Any, warps: Any
) -> None:
    """Delta of the layer below, in place of its slopes."""
    stride = CHUNK + 1
    width, units = layer[IN], layer[OUT]
    for first in range(4 * warp, width, 4 * warps):
        sums = cuda.local.array((4, HALVES), REAL)
        columns = cuda.local.array(4, int64)
        weights = cuda.local.array(4, REAL)
        for u in range(4):
            columns[u] = layer[W] + min(first + u, width - 1)
            for half in range(HALVES):
                sums[u, half] = F(0.0)
        for o in range(units):
            for u in range(4):
                weights[u] = room[columns[u] + o * width]
            for half in range(HALVES):
                delta = room[layer[Z] + o * stride + lane + half * WARP]
                for u in range(4):
                    sums[u, half] += weights[u] * delta
        for u in range(4):
            if first + u < width:
                for half in range(HALVES):
                    at = below + (first + u) * stride + lane + half * WARP
                    room[at] = room[at] * sums[u, half]


def weigh(
    room: Any, layer: Any, source: Any, g: Any, size: Any, t: Any, T: Any
) -> None:
    """Add the gradient of one layer's weights and biases from a chunk."""
    stride = CHUNK + 1
    width, units, slices = layer[IN], layer[OUT], g[SLICES]
    across = (width + 3) // 4
    tiles = (units + 3) // 4 * across
    for task in range(t, tiles * slices, T):
        s, tile = task // tiles, task % tiles
        o, k = 4 * (tile // across), 4 * (tile % across)
        sums = cuda.local.array((4, 4), REAL)
        bias = cuda.local.array(4, REAL)
        left = cuda.local.array(4, int64)
        right = cuda.local.array(4, int64)
        for u in range(4):
            left[u] = layer[Z] + min(o + u, units - 1) * stride
            right[u] = source + min(k + u, width - 1) * stride
            bias[u] = F(0.0)
            for v in range(4):
                sums[u, v] = F(0.0)
        for i in range(s * CHUNK // slices, (s + 1) * CHUNK // slices):
            a0, a1 = room[right[0] + i], room[right[1] + i]
            a2, a3 = room[right[2] + i], room[right[3] + i]
            for u in range(4):
                delta = room[left[u] + i]
                bias[u] += delta
                sums[u, 0] += delta * a0
                sums[u, 1] += delta * a1
                sums[u, 2] += delta * a2
                sums[u, 3] += delta * a3
        base = g[GRADIENT] + s * size
        for u in range(4):
            if o + u < units:
                for v in range(4):
                    if k + v < width:
                        room[base + layer[W] + (o + u) * width + k + v] += sums[u, v]
                if k == 0 and layer[B] >= 0:
                    room[base + layer[B] + o + u] += bias[u]


def lose(room: Any, layer: Any, g: Any, f: Any, T: Any, row: Any, i: Any) -> Any:
    """-log p of row i of a chunk; its column of outputs becomes delta."""
    stride = CHUNK + 1
    z, classes = layer[Z] + i, layer[OUT]
    value = F(0.0)
    if row < 0:
        for c in range(classes):
            room[z + c * stride] = F(0.0)
    elif g[LIKELIHOOD] == _CATEGORICAL:
        label = np.int64(T[0, row])
        top = room[z]
        for c in range(1, classes):
            x = room[z + c * stride]
            top = x if x > top else top
        norm = F(0.0)
        for c in range(classes):
            shifted = room[z + c * stride] - top
            if c == label:
                value = -shifted
            e = F(math.exp(shifted))
            norm += e
            room[z + c * stride] = e
        value += F(math.log(norm))
        over = F(1.0) / norm
        for c in range(classes):
            hit = F(1.0) if c == label else F(0.0)
            room[z + c * stride] = room[z + c * stride] * over - hit
    else:
        for c in range(classes):
            x = room[z + c * stride]
            part, slope = miss(g[LIKELIHOOD], x, T[c, row], f[STRENGTH])
            value += part
            room[z + c * stride] = slope
    return value


def tiny(  # type: ignore[no-untyped-def]
    q, out, energies, X, T, layers, tensors, g, f, seed, clock, call, sign, want
):
    """Kernel: ``out`` (R, D) is sign times the gradient, ``energies`` (R,) is U.

    ``sign`` 0 leaves ``out`` alone, ``want`` 0 leaves ``energies`` alone.  ``X``
    (N, inputs), ``T`` (targets, N); ``layers`` of `Shape`; ``tensors`` (L, 5) float64
    of start, stop, prior code, u and v; ``g`` and ``f`` integers and reals.
    """
    room = cuda.shared.array(0, REAL)
    keys = cuda.shared.array(ROUNDS, uint32)
    rows = cuda.shared.array(CHUNK, int64)
    values = cuda.shared.array(THREADS, float64)
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    r, size = cuda.blockIdx.x, q.shape[1]
    lane, warp, warps = t % WARP, t // WARP, threads // WARP
    stride = CHUNK + 1
    batch, n_data = g[BATCH], g[N]
    now = clock[0] * g[CALLS] + call
    replica = 0 if g[SINGLE] == 1 else r
    drawn = g[ORDER] != _FULL and g[ORDER] != _REPLACEMENT
    epoch, turn = place(g[ORDER], now, n_data // batch)
    for j in range(t, size, threads):
        room[j] = q[r, j]
    for j in range(t, size * g[SLICES], threads):
        room[g[GRADIENT] + j] = F(0.0)
    if drawn:
        make_keys(keys, t, threads, replica, epoch, seed[0], seed[1])
    cuda.syncthreads()
    last = layers.shape[0] - 1
    total = 0.0
    for first in range(0, batch, CHUNK):
        for i in range(t, CHUNK, threads):
            row = -1
            at = first + i
            if at < batch:
                row = at  # all rows in order
                if drawn:
                    row = shuffled(keys, turn * batch + at, n_data)
                elif g[ORDER] == _REPLACEMENT:
                    row = replaced(at, replica, now, n_data, seed[0], seed[1])
            rows[i] = row
        cuda.syncthreads()
        width = X.shape[1]
        for j in range(t, width * CHUNK, threads):
            k, i = j % width, j // width
            room[g[X0] + k * stride + i] = X[max(rows[i], 0), k]
        cuda.syncthreads()
        source = g[X0]
        for l in range(last + 1):
            forward(room, layers[l], source, lane, warp, warps)
            source = layers[l, A]
            cuda.syncthreads()
        for i in range(t, CHUNK, threads):
            total += float64(lose(room, layers[last], g, f, T, rows[i], i))
        cuda.syncthreads()
        if sign != 0.0:
            for step in range(last + 1):
                l = last - step
                source = layers[l - 1, A] if l > 0 else g[X0]
                weigh(room, layers[l], source, g, size, t, threads)
                if l > 0:
                    descend(room, layers[l], layers[l - 1, Z], lane, warp, warps)
                cuda.syncthreads()
    total *= f[SCALE]
    for tensor in range(tensors.shape[0]):
        code = np.int64(tensors[tensor, 2])
        u, v = tensors[tensor, 3], tensors[tensor, 4]
        start, stop = np.int64(tensors[tensor, 0]), np.int64(tensors[tensor, 1])
        for j in range(start + t, stop, threads):
            x = room[j]
            if sign != 0.0:
                part = F(0.0)
                for s in range(g[SLICES]):
                    part += room[g[GRADIENT] + s * size + j]
                pull = prior_slope(code, x, u, v)
                out[r, j] = F(sign) * (F(f[SCALE]) * part + pull)
            if want == 1:
                total += prior_value(code, float64(x), u, v)
    if want == 1:
        values[t] = total
        cuda.syncthreads()
        if t == 0:
            total = f[CONSTANT]
            for i in range(threads):
                total += values[i]
            energies[r] = total


@cache
def _bound(single: bool, halves: int) -> Any:
    scope = {**scope_of(single), "HALVES": halves, "CHUNK": halves * _WARP}
    device([forward, descend, weigh, lose], scope)
    return bind(tiny, scope)


@cache
def kernel(single: bool, halves: int) -> Any:
    """Compiled kernel for float32 (``single``) or float64 arrays.

    ``halves`` rows of a chunk are one thread's; see `Shape`.
    """
    return cuda.jit(_bound(single, halves))


def ptx(single: bool = True, halves: int = 2, cc: tuple[int, int] = (9, 0)) -> str:
    """PTX of the kernel for compute capability ``cc``; needs no driver."""
    from numba import uint64, void

    real = float32 if single else float64
    matrix, reals, words = real[:, ::1], float64[::1], int64[::1]
    signature = void(
        matrix, matrix, reals, matrix, matrix, int64[:, ::1], float64[:, ::1], words,
        reals, uint64[::1], words, int64, float64, int64,
    )  # fmt: skip
    return to_ptx(_bound(single, halves), signature, cc)
