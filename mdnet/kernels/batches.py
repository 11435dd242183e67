"""Rows of a minibatch as a function of (seed, replica, call): nothing is stored.

"shuffle" visits a keyed permutation of the data.  An epoch is N div n calls; position
``p = (call mod (N div n)) n + i`` of the epoch is sent through a Feistel network on
the smallest power of two that holds N, again and again until it falls below N (cycle
walking), so that an epoch visits distinct rows.  The keys of its rounds are the words
`mdnet.random.bits` of (seed, replica, epoch, STREAM_BATCH).  "replacement" takes word
x of (seed, replica, call, STREAM_BATCH) to row ``(x N) >> 32``.

References
----------
J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002,
doi:10.1007/3-540-45760-7_9.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from mdnet.kernels import codes, letters
from mdnet.kernels.codes import ORDERS
from mdnet.kernels.fingerprint import fingerprint
from mdnet.random import STREAM_BATCH

__all__ = ["ROUNDS", "batch_rows", "permute", "round_keys", "rows_of"]

ROUNDS = 24
"""Keys of the Feistel network: eight rounds, or all on fewer than 2^8 rows.

Halves of one or two bits have few round functions to choose from: after eight rounds
of them pairs of rows are still 10% uneven, after twenty by less than 1%.
"""

_FULL, _SHUFFLE = ORDERS["full"], ORDERS["shuffle"]
_STREAM = np.uint64(STREAM_BATCH)
_M1, _M2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_S15, _S16 = np.uint32(15), np.uint32(16)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)

_plain = njit(error_model="numpy")
_round = _plain(letters.philox_round)


@_plain
def _philox(block: Any, replica: Any, step: Any, k0: Any, k1: Any) -> Any:
    """Four words of the batch stream."""
    c0, c1, c2 = np.uint64(block), np.uint64(replica), np.uint64(step) & _MASK
    c3 = _STREAM + np.uint64(256) * (np.uint64(step) >> _SHIFT)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@_plain
def round_keys(keys: Any, replica: int, epoch: int, k0: int, k1: int) -> None:
    """Fill ``keys`` (ROUNDS,) uint32 with the keys of one epoch's permutation."""
    for block in range(ROUNDS // 4):
        a, b, c, d = _philox(block, replica, epoch, k0, k1)
        keys[4 * block] = np.uint32(a)
        keys[4 * block + 1] = np.uint32(b)
        keys[4 * block + 2] = np.uint32(c)
        keys[4 * block + 3] = np.uint32(d)


@_plain
def _mix(x: Any, key: Any) -> Any:
    """A hash of one half under one key; every output bit sees every input bit."""
    h = np.uint32(np.uint32(x ^ key) * _M1)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _S15)) * _M2)
    return np.uint32(h ^ np.uint32(h >> _S16))


@_plain
def _halves(n_data: int) -> Any:
    """Widths (high, low) in bits of the halves of the smallest 2^b >= n_data."""
    width = 0
    while (np.int64(1) << width) < n_data:
        width += 1
    return width // 2, width - width // 2


@_plain
def _eight(
    x: Any,
    high: int,
    low: int,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    e: Any,
    f: Any,
    g: Any,
    h: Any,
) -> Any:
    """Eight rounds under keys a to h, each a scalar: LLVM then vectorises over x."""
    low_mask = np.uint32((1 << low) - 1)
    high_mask = np.uint32((1 << high) - 1)
    shift = np.uint32(low)
    right = np.uint32(x & low_mask)
    left = np.uint32(np.uint32(x) >> shift)
    left = np.uint32(left ^ np.uint32(_mix(right, a) & high_mask))
    right = np.uint32(right ^ np.uint32(_mix(left, b) & low_mask))
    left = np.uint32(left ^ np.uint32(_mix(right, c) & high_mask))
    right = np.uint32(right ^ np.uint32(_mix(left, d) & low_mask))
    left = np.uint32(left ^ np.uint32(_mix(right, e) & high_mask))
    right = np.uint32(right ^ np.uint32(_mix(left, f) & low_mask))
    left = np.uint32(left ^ np.uint32(_mix(right, g) & high_mask))
    right = np.uint32(right ^ np.uint32(_mix(left, h) & low_mask))
    return np.uint32(np.uint32(left << shift) | right)


@_plain
def _passes(high: int, low: int) -> int:
    return 3 if high + low < 8 else 1


@_plain
def permute(image: Any, keys: Any, high: int, low: int) -> None:
    """Send every element of ``image`` (uint32) once through the network, in place."""
    for p in range(0, 8 * _passes(high, low), 8):
        a, b, c, d = keys[p], keys[p + 1], keys[p + 2], keys[p + 3]
        e, f, g, h = keys[p + 4], keys[p + 5], keys[p + 6], keys[p + 7]
        for i in range(image.size):
            image[i] = _eight(image[i], high, low, a, b, c, d, e, f, g, h)


@_plain
def _shuffled(
    rows: Any,
    count: int,
    start: int,
    n_data: int,
    replica: Any,
    epoch: int,
    k0: int,
    k1: int,
) -> None:
    keys = np.empty(ROUNDS, np.uint32)
    round_keys(keys, replica, epoch, k0, k1)
    high, low = _halves(n_data)
    image = np.empty(count, np.uint32)
    for i in range(count):
        rows[i] = np.int64(start + i)
    # Whole vector passes beat walking each row by itself; few are needed, since at
    # least half of the domain is rows.
    fresh = True
    outside = True
    while outside:
        for i in range(count):
            image[i] = np.uint32(rows[i])
        permute(image, keys, high, low)
        outside = False
        for i in range(count):
            x = np.int64(image[i]) if fresh or rows[i] >= n_data else rows[i]
            rows[i] = x
            outside = outside or bool(x >= n_data)
        fresh = False


@_plain
def _replaced(
    rows: Any,
    count: int,
    first: int,
    n_data: int,
    replica: Any,
    call: int,
    k0: int,
    k1: int,
) -> None:
    n = np.uint64(n_data)
    for block in range(first // 4, (first + count + 3) // 4):
        words = _philox(block, replica, call, k0, k1)
        for lane in range(4):
            i = 4 * block + lane - first
            if 0 <= i < count:
                rows[i] = np.int64((words[lane] * n) >> _SHIFT)


@_plain
def batch_rows(
    rows: Any,
    first: int,
    count: int,
    order: int,
    n_data: int,
    batch: int,
    call: int,
    replica: Any,
    k0: int,
    k1: int,
) -> None:
    """Rows ``first .. first + count`` of one batch, into ``rows[:count]`` (int64)."""
    if order == _FULL:
        for i in range(count):
            rows[i] = first + i
    elif order == _SHUFFLE:
        calls = n_data // batch
        start = call % calls * batch + first
        _shuffled(rows, count, start, n_data, replica, call // calls, k0, k1)
    else:
        _replaced(rows, count, first, n_data, replica, call, k0, k1)


def _compile(version: int) -> Any:
    """Compile `rows_of`; ``version`` is part of its key in the disk cache."""

    @njit(cache=True, parallel=True, error_model="numpy")
    def rows_of(
        out: Any, order: int, n_data: int, call: int, shared: bool, k0: int, k1: int
    ) -> int:
        for r in prange(out.shape[0]):
            replica = 0 if shared else np.int64(r)
            n = out.shape[1]
            batch_rows(out[r], 0, n, order, n_data, n, call, replica, k0, k1)
        return version

    return rows_of


rows_of = _compile(fingerprint(codes, letters))
"""rows_of(out, order, n_data, call, shared, k0, k1)

Fill ``out`` (R, n) int64 with every replica's rows at one force call."""
