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
`column`, `turn`, `row_sums` and `edge` that their table names; ``t`` is a
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
    FRESH,
    HEIGHT,
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
    "edge",
    "first_layer",
    "forward",
    "outer",
    "row_sums",
    "turn",
]

DEPTH = 160
"""Most inputs of the first layer that are transposed at a time: 20 KB stay in L1."""

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


def _edge(version: int) -> Any:
    def edge(
        src: Any, width: Any, out: Any, stride: Any, m: Any, columns: Any, fresh: Any
    ) -> Any:
        for i in range(m):
            for j in range(columns):
                x = src[i * width + j]
                at = i * stride + j
                out[at] = x if fresh == 1 else out[at] + x
        return version

    return edge


@cache
def edge(dtype: Any) -> Any:
    """Compile ``int64 (src, width, out, stride, m, columns, fresh)``.

    Adds the (m, columns) corner of a tile whose vectors reach too far.
    """
    place, word = types.CPointer(from_dtype(dtype)), types.int64
    form = word(place, word, place, word, word, word, word)
    return cfunc(form, cache=True, **_OPTIONS)(_edge(0))


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
    s = t.stride
    for v in range(0, vectors, 2):
        n, at = min(2, vectors - v), v * VECTOR
        _tiles(t, units, n, inputs, w, inputs, 1, a + at, s, z + at, s, FRESH, bias, bm)


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
    fresh: int,
) -> None:
    """Columns ``first <= k < last`` of a layer's gradient, from ``count`` rows.

    Inputs are panels of ``rows`` rows if that is positive, else (inputs, rows), which
    are transposed in the worker's scratch ``own``.  If ``fresh`` is 1, what ``out``
    held is forgotten.
    """
    per, width, s = t.lanes, 2 * t.lanes, t.stride
    block, corner = own + _PANEL, own + (t.own - HEIGHT * width) * t.itemsize
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
        # Tiles are whole vectors wide: sum aside, then add the columns there are.
        for o in range(0, units, HEIGHT):
            m = min(HEIGHT, units - o)
            d, to = delta + o * s * t.itemsize, g + o * inputs * t.itemsize
            _tiles(t, m, n, count, d, s, 1, data, width, corner, width, FRESH, own, 0)
            call(t.edge, (corner, width, to, inputs, m, columns, fresh), np.int64)
