"""The rows of a force call: which they are, their targets, their inputs in panels.

C functions of one type or order each, which `mdnet.kernels.dense` calls for a chunk.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import carray, cfunc, from_dtype, types

from mdnet.kernels import batches, codes, letters, tiles
from mdnet.kernels.batches import ROUNDS, batch_rows
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.tiles import copy, fetch, lanes

__all__ = ["CHUNK", "WORDS", "draw", "gather", "pick"]

CHUNK = 128
"""Most rows of a chunk."""
WORDS = CHUNK + ROUNDS
"""Words that a worker needs to draw a chunk's rows."""
_SOON = 2  # rows between the one that is copied and the one that is asked for


def _draw(order: int, version: int) -> Any:
    """Write the choice of a chunk's rows in one order."""

    def draw(
        index: Any,
        words: Any,
        first: Any,
        count: Any,
        width: Any,
        n_data: Any,
        batch: Any,
        calls: Any,
        replica: Any,
        k0: Any,
        k1: Any,
    ) -> Any:
        rows, scratch = carray(index, (CHUNK,)), carray(words, (WORDS,))
        batch_rows(
            rows,
            scratch,
            first,
            count,
            order,
            n_data,
            batch,
            calls,
            replica,
            k0,
            k1,
        )
        for i in range(count, width):
            rows[i] = rows[0]
        return version

    return draw


@cache
def draw(order: int) -> Any:
    """Compile `batches.batch_rows` as a C function; padding repeats the first row."""
    word = types.int64
    form = word(types.CPointer(word), types.CPointer(types.uint32), *[word] * 9)
    source = _draw(order, fingerprint(batches, codes, letters))
    return cfunc(form, cache=True, error_model="numpy")(source)


def _pick(version: int) -> Any:
    """Write the copy of targets."""

    def pick(
        Y: Any, index: Any, count: Any, targets: Any, out: Any, stride: Any
    ) -> Any:
        for k in range(targets):
            for i in range(count):
                out[k * stride + i] = Y[index[i] * targets + k]
        return version

    return pick


@cache
def pick(dtype: Any) -> Any:
    """Compile ``int64 (Y, index, count, targets, out, stride)``: targets of rows."""
    place, word = types.CPointer(from_dtype(dtype)), types.int64
    form = word(place, types.CPointer(word), word, word, place, word)
    return cfunc(form, cache=True, error_model="numpy")(_pick(0))


def _gather(real: Any, version: int) -> Any:
    """Write the copy of rows of one type into panels of another."""
    width = 2 * lanes(real)

    def gather(
        X: Any,
        row: Any,
        column: Any,
        index: Any,
        count: Any,
        left: Any,
        inputs: Any,
        panels: Any,
        rows: Any,
    ) -> Any:
        whole = inputs // width
        for i in range(count):
            start, soon = index[i] * row, index[min(i + _SOON, left - 1)] * row
            for p in range(whole + 1):
                at, source = (p * rows + i) * width, start + p * width * column
                if p < whole and column == 1:
                    ahead = soon + p * width
                    fetch(X, ahead)
                    fetch(X, ahead + width // 2)
                    copy(X, source, panels, at)
                else:
                    for k in range(min(width, inputs - p * width)):
                        panels[at + k] = real(X[source + k * column])
        return version

    return gather


@cache
def gather(source: Any, dtype: Any) -> Any:
    """Compile the C function that copies rows of type ``source`` into panels.

    ``int64 (X, row, column, index, count, left, inputs, panels, rows)``: X has strides
    ``row`` and ``column`` in elements; rows ``index[:count]`` go to panels (panel,
    rows, 2 lanes) of type ``dtype``; the next ones, of ``left``, are asked for.
    """
    word = types.int64
    form = word(
        types.CPointer(from_dtype(source)),
        word,
        word,
        types.CPointer(word),
        word,
        word,
        word,
        types.CPointer(from_dtype(dtype)),
        word,
    )
    copy = _gather(dtype.type, fingerprint(tiles))
    return cfunc(form, cache=True, error_model="numpy")(copy)
