"""Matrix products of network-sized blocks, cut into register tiles.

Layers lie as (units, rows of the batch), rows along the vectors, with a fixed distance
``stride`` between units.  Where the sum runs over the rows of the batch, the other
operand is wanted row by row instead, in panels of two vectors: (rows, 2 lanes).

==========================================  ============================================
product                                     code
==========================================  ============================================
z[o, i] = b[o] + sum_k w[o, k] a[k, i]      ``forward``, or ``first_layer``
e[k, i] = s[k, i] sum_o w[o, k] d[o, i]     ``backward``
g[o, k] += sum_i d[o, i] a[k, i]            ``outer``
==========================================  ============================================

These take addresses, and reach the arithmetic of a precision through the C functions
`column`, `turn`, `dots`, `row_sums` and `edge` that their table names; ``t`` is a
`mdnet.kernels.dense.TABLE`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cfunc, from_dtype, njit, types

from mdnet.kernels import native, tiles
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.native import call, pointer
from mdnet.kernels.tiles import (
    ADD,
    DOTS,
    FRESH,
    HEIGHT,
    LONG,
    TIMES,
    VECTOR,
    lanes,
    tile,
    transpose,
)

__all__ = [
    "DEPTH",
    "backward",
    "column",
    "dots",
    "edge",
    "first_layer",
    "forward",
    "outer",
    "outer_padded",
    "plus",
    "row_sums",
    "turn",
]

DEPTH = 160
"""Most inputs of the first layer that are transposed at a time: 20 KB stay in L1."""

FEW = 2
"""Units of a layer whose gradient is not worth a transposition of its inputs."""

_PANEL = 2 * VECTOR
"""Bytes of a row of a panel."""

_OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
_plain = njit(**_OPTIONS)
_inline = njit(inline="always", **_OPTIONS)


# --- C functions of one precision; addresses are integers, strides are elements -------


def _column(real: Any, version: int) -> Any:
    size = np.dtype(real).itemsize

    def column(
        units: Any,
        n: Any,
        depth: Any,
        w: Any,
        wm: Any,
        wk: Any,
        a: Any,
        ak: Any,
        z: Any,
        zm: Any,
        mode: Any,
        bias: Any,
        bm: Any,
    ) -> Any:
        parts = (units + HEIGHT - 1) // HEIGHT
        height = units // parts
        higher = units - height * parts
        data = pointer(a, real)
        for part in range(parts):
            m = height + 1 if part < higher else height
            row, to, start = pointer(w, real), pointer(z, real), pointer(bias, real)
            tile(m, n, depth, row, wm, wk, data, ak, to, zm, mode, start, bm)
            w += m * wm * size
            z += m * zm * size
            bias += m * bm * size
        return version

    return column


@cache
def column(dtype: Any) -> Any:
    """Compile tiles of near-equal height, one below the other: `tile`, any height."""
    source = _column(dtype.type, fingerprint(native, tiles))
    return cfunc(types.int64(*[types.int64] * 13), cache=True, **_OPTIONS)(source)


def _turn(real: Any, version: int) -> Any:
    per, size = lanes(real), np.dtype(real).itemsize

    def turn(src: Any, sm: Any, dst: Any, dm: Any, blocks: Any) -> Any:
        for _ in range(blocks):
            transpose(pointer(src, real), sm, pointer(dst, real), dm)
            src += per * size
            dst += per * dm * size
        return version

    return turn


@cache
def turn(dtype: Any) -> Any:
    """Compile ``int64 (src, sm, dst, dm, blocks)``: transpose blocks in one row.

    The next block is a vector further in ``src`` and a block of rows in ``dst``.
    """
    source = _turn(dtype.type, fingerprint(native, tiles))
    return cfunc(types.int64(*[types.int64] * 5), cache=True, **_OPTIONS)(source)


def _row_sums(version: int) -> Any:
    def row_sums(
        delta: Any, stride: Any, units: Any, count: Any, out: Any, fresh: Any
    ) -> Any:
        for o in range(units):
            total = delta[0] - delta[0]
            for i in range(o * stride, o * stride + count):
                total += delta[i]
            out[o] = total if fresh == 1 else out[o] + total
        return version

    return row_sums


@cache
def row_sums(dtype: Any) -> Any:
    """Compile ``int64 (delta, stride, units, count, out, fresh)``: sums over rows."""
    place, word = types.CPointer(from_dtype(dtype)), types.int64
    form = word(place, word, word, word, place, word)
    options = {**_OPTIONS, "fastmath": {"contract", "nsz", "reassoc"}}
    return cfunc(form, cache=True, **options)(_row_sums(0))


def _dots(real: Any, version: int) -> Any:
    size = np.dtype(real).itemsize

    def dots(
        units: Any,
        inputs: Any,
        vectors: Any,
        delta: Any,
        a: Any,
        stride: Any,
        out: Any,
        row: Any,
        fresh: Any,
    ) -> Any:
        for o in range(units):
            d = pointer(delta + o * stride * size, real)
            k = np.int64(0)
            while k < inputs:
                m = DOTS if inputs - k >= DOTS else 1
                at = pointer(a + k * stride * size, real)
                to = pointer(out + (o * row + k) * size, real)
                tiles.dots(m, vectors, d, at, stride, to, fresh)
                k += m
        return version

    return dots


@cache
def dots(dtype: Any) -> Any:
    """Compile ``int64 (units, inputs, vectors, delta, a, stride, out, row, fresh)``.

    The gradient of a layer of few units, from inputs (inputs, rows) as they are.
    """
    source = _dots(dtype.type, fingerprint(native, tiles))
    return cfunc(types.int64(*[types.int64] * 9), cache=True, **_OPTIONS)(source)


def _plus(version: int) -> Any:
    def plus(total: Any, part: Any, count: Any, fresh: Any) -> Any:
        if fresh == 1:
            for i in range(count):
                total[i] = part[i]
        else:
            for i in range(count):
                total[i] += part[i]
        return version

    return plus


@cache
def plus(dtype: Any) -> Any:
    """Compile ``int64 (total, part, count, fresh)``: total += part, or = if fresh."""
    place, word = types.CPointer(from_dtype(dtype)), types.int64
    form = word(place, place, word, word)
    return cfunc(form, cache=True, **_OPTIONS)(_plus(0))


def _edge(real: Any, version: int) -> Any:
    size = np.dtype(real).itemsize

    def edge(src: Any, sm: Any, dst: Any, dm: Any, m: Any, columns: Any) -> Any:
        for i in range(m):
            row = pointer(src + i * sm * size, real)
            tiles.edge(row, pointer(dst + i * dm * size, real), columns)
        return version

    return edge


@cache
def edge(dtype: Any) -> Any:
    """Compile ``int64 (src, sm, dst, dm, m, columns)``: copy m rows of few columns."""
    source = _edge(dtype.type, fingerprint(native, tiles))
    return cfunc(types.int64(*[types.int64] * 6), cache=True, **_OPTIONS)(source)


# --- products of layers, any precision ------------------------------------------------


@_inline
def _tiles(
    t: Any,
    units: Any,
    n: Any,
    depth: Any,
    w: Any,
    wm: Any,
    wk: Any,
    a: Any,
    ak: Any,
    z: Any,
    zm: Any,
    mode: Any,
    bias: Any,
    bm: Any,
) -> None:
    call(
        t.column,
        (units, n, depth, w, wm, wk, a, ak, z, zm, np.int64(mode), bias, bm),
        np.int64,
    )


@_inline
def forward(
    t: Any,
    units: int,
    inputs: int,
    vectors: int,
    w: int,
    a: int,
    z: int,
    bias: int,
    bm: int,
) -> None:
    """Outputs ``z`` of one layer from inputs ``a``."""
    s, v = t.stride, 0
    while v < vectors:
        n, at = min(2, vectors - v), v * VECTOR
        if units == 1 and vectors - v >= LONG:
            n = LONG
        _tiles(t, units, n, inputs, w, inputs, 1, a + at, s, z + at, s, FRESH, bias, bm)
        v += n


@_inline
def first_layer(
    t: Any,
    units: int,
    inputs: int,
    n: int,
    w: int,
    panels: int,
    z: int,
    block: int,
    bias: int,
    bm: int,
) -> None:
    """As `forward` for n vectors, from panels of ``t.panel_rows`` rows.

    They are transposed piece by piece into ``block``, which stays in L1.
    """
    per, width = t.lanes, 2 * t.lanes
    pieces = (inputs + DEPTH - 1) // DEPTH
    step = ((inputs + pieces - 1) // pieces + per - 1) // per * per
    for first in range(0, inputs, step):
        depth = min(step, inputs - first)
        for k in range(0, depth, per):
            panel, inside = (first + k) // width, (first + k) % width
            source = panels + panel * t.panel_rows * _PANEL + inside * t.itemsize
            for h in range(n):
                call(
                    t.turn,
                    (
                        source + h * per * _PANEL,
                        width,
                        block + k * _PANEL + h * VECTOR,
                        width,
                        np.int64(1),
                    ),
                    np.int64,
                )
        mode = FRESH if first == 0 else ADD
        row = w + first * t.itemsize
        _tiles(
            t,
            units,
            n,
            depth,
            row,
            inputs,
            1,
            block,
            width,
            z,
            t.stride,
            mode,
            bias,
            bm,
        )


@_inline
def backward(
    t: Any, units: int, inputs: int, vectors: int, w: int, delta: int, slope: int
) -> None:
    """Multiply ``slope`` (inputs, rows) by the errors of a layer's inputs."""
    s = t.stride
    for v in range(0, vectors, 2):
        n, at = min(2, vectors - v), v * VECTOR
        a, z = delta + at, slope + at
        _tiles(t, inputs, n, units, w, 1, inputs, a, s, z, s, TIMES, w, 0)


@_plain
def outer(
    t: Any,
    units: int,
    inputs: int,
    first: int,
    last: int,
    count: int,
    vectors: int,
    delta: int,
    a: int,
    rows: int,
    own: int,
    out: int,
    bias: int,
    corner: int,
    c: int,
    low: int,
    high: int,
) -> None:
    """Add columns ``first <= k < last`` of a layer's gradient, from ``count`` rows.

    Inputs are panels of ``rows`` rows if that is positive, else (inputs, rows), which
    are transposed in the worker's scratch ``own`` unless there are few units.  These
    are the rows of chunk c, the first of which forgets what ``out`` held.

    Tiles are whole vectors wide: where inputs do not fill their last one, its sums are
    kept in ``corner`` while the chunks ``low <= c < high`` follow each other.  There a
    1 follows the inputs, and its column goes to ``bias`` if that is not 0.
    """
    fresh = np.int64(1) if c == 0 else np.int64(0)
    if rows == 0 and units <= FEW:
        d, at = delta, a + first * t.stride * t.itemsize
        to, n = out + first * t.itemsize, last - first
        call(t.dots, (units, n, vectors, d, at, t.stride, to, inputs, fresh), np.int64)
        return
    per, width, s = t.lanes, 2 * t.lanes, t.stride
    block = own + _PANEL
    mode = FRESH if fresh == 1 else ADD
    for k in range(first, last, width):
        columns = min(width, inputs - k)
        n = (columns + per - 1) // per
        data = block
        if rows > 0:
            data = a + k // width * rows * _PANEL
        else:
            for h in range(n):
                source = a + (k + h * per) * s * t.itemsize
                to = block + h * VECTOR
                call(t.turn, (source, s, to, width, vectors), np.int64)
        g = out + k * t.itemsize
        if columns == n * per:
            _tiles(
                t, units, n, count, delta, s, 1, data, width, g, inputs, mode, own, 0
            )
            continue
        if c == low and c > 0:
            call(t.edge, (g, inputs, corner, width, units, columns), np.int64)
            if bias != 0:
                to = corner + columns * t.itemsize
                call(t.edge, (bias, 1, to, width, units, 1), np.int64)
        _tiles(
            t, units, n, count, delta, s, 1, data, width, corner, width, mode, own, 0
        )
        if c == high - 1:
            call(t.edge, (corner, width, g, inputs, units, columns), np.int64)
            if bias != 0:
                source = corner + columns * t.itemsize
                call(t.edge, (source, width, bias, 1, units, 1), np.int64)


@_inline
def outer_padded(
    t: Any,
    units: int,
    inputs: int,
    padded: int,
    count: int,
    vectors: int,
    delta: int,
    a: int,
    rows: int,
    own: int,
    out: int,
) -> None:
    """Whole gradient (units, padded) of a layer, as `outer`, from one chunk alone.

    Rows of it are whole vectors, with room for the column of the biases.
    """
    per, width, s = t.lanes, 2 * t.lanes, t.stride
    if rows == 0 and units <= FEW:
        one = np.int64(1)
        call(t.dots, (units, inputs, vectors, delta, a, s, out, padded, one), np.int64)
        return
    block = own + _PANEL
    for k in range(0, padded, width):
        n = min(2, (padded - k) // per)
        data = block
        if rows > 0:
            data = a + k // width * rows * _PANEL
        else:
            for h in range(n):
                source = a + (k + h * per) * s * t.itemsize
                call(t.turn, (source, s, block + h * VECTOR, width, vectors), np.int64)
        g = out + k * t.itemsize
        _tiles(t, units, n, count, delta, s, 1, data, width, g, padded, FRESH, own, 0)
