"""Rows of a minibatch as a function of (seed, replica, call): nothing is stored.

"shuffle" visits a keyed permutation of the data.  An epoch is N div n calls; position
``p = (call mod (N div n)) n + i`` of the epoch is sent through a Feistel network on
the smallest power of two that holds N, again and again until it falls below N (cycle
walking), so that an epoch visits distinct rows.  The keys of its rounds are words of
the Philox counters (block, replica, epoch, STREAM_BATCH).  "symmetric" visits the
batches of an epoch and then the same ones backwards; "without" takes the first n rows
of a permutation of its own at each call.  "replacement" takes words x of (block,
replica, call, STREAM_BATCH) to rows ``(x N) >> 32``.  Word i is lane ``i % 4`` of
block ``i // 4``.

`strata_of` draws each class by itself: class c of N_c rows gives n N_c/N of them,
rounded to one of the two integers about it by a random point u that all classes of a
batch share (systematic sampling), so that a batch has n rows, and any row is in it
with probability n/N.  Keys of class c are words of blocks 8 (c + 1) on.

References
----------
J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002,
doi:10.1007/3-540-45760-7_9.
W. G. Madow, L. H. Madow, "On the theory of systematic sampling", Ann. Math. Stat. 15,
1 (1944), doi:10.1214/aoms/1177731312.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np
from numba import njit, prange

from mdnet.kernels import codes, letters
from mdnet.kernels.codes import ORDERS
from mdnet.kernels.fingerprint import fingerprint
from mdnet.random import STREAM_BATCH

__all__ = [
    "ROUNDS",
    "batch_rows",
    "permute",
    "place",
    "round_keys",
    "rows_of",
    "strata_of",
    "walk_of",
]

ROUNDS = 24
"""Keys of the Feistel network: eight rounds, or all on fewer than 2^8 rows.

Halves of one or two bits have few round functions to choose from: after eight rounds
of them pairs of rows are still 10% uneven, after twenty by less than 1%.
"""

_FULL, _SHUFFLE = ORDERS["full"], ORDERS["shuffle"]
_REPLACEMENT, _WITHOUT = ORDERS["replacement"], ORDERS["without"]
_SYMMETRIC, _GIVEN = ORDERS["symmetric"], ORDERS["given"]
_STRATUM = 8  # blocks of counters that a class has
_STREAM = np.uint64(STREAM_BATCH)
_M1, _M2 = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_S15, _S16 = np.uint32(15), np.uint32(16)
_MASK, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)

_plain = njit(error_model="numpy")


def _compile_philox() -> Any:
    """`letters.philox` calling the compiled round."""
    source = letters.philox
    scope = {**source.__globals__, "philox_round": _plain(letters.philox_round)}
    return _plain(FunctionType(source.__code__, scope, source.__name__))


_philox = _compile_philox()


@_plain
def _words(words: Any, first: int, replica: Any, step: Any, k0: Any, k1: Any) -> None:
    """Fill ``words`` (uint32, a multiple of 4) from block ``first`` of the stream."""
    replica, low = np.uint64(replica), np.uint64(step) & _MASK
    word = _STREAM + np.uint64(256) * (np.uint64(step) >> _SHIFT)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for i in range(words.size // 4):
        a, b, c, d = _philox(np.uint64(first + i), replica, low, word, k0, k1)
        words[4 * i] = np.uint32(a)
        words[4 * i + 1] = np.uint32(b)
        words[4 * i + 2] = np.uint32(c)
        words[4 * i + 3] = np.uint32(d)


@_plain
def round_keys(keys: Any, replica: int, epoch: int, k0: int, k1: int) -> None:
    """Fill ``keys`` (ROUNDS,) uint32 with the keys of one epoch's permutation."""
    _words(keys, 0, replica, epoch, k0, k1)


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
def place(order: int, call: Any, calls: Any) -> Any:
    """Epoch of a force call and number of its batch within, of ``calls`` an epoch."""
    epoch, turn = call // calls, call % calls
    if order == _SYMMETRIC:
        turn = call % (2 * calls)
        turn, epoch = min(turn, 2 * calls - 1 - turn), call // (2 * calls)
    elif order == _WITHOUT:
        epoch, turn = call, turn * 0
    return epoch, turn


@_plain
def _walked(rows: Any, scratch: Any, count: int, start: int, n_data: int) -> None:
    """Images of ``start ..`` under the permutation whose keys stand in ``scratch``."""
    keys, image = scratch[:ROUNDS], scratch[ROUNDS : ROUNDS + count]
    high, low = _halves(n_data)
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
def _shuffled(
    rows: Any,
    scratch: Any,
    count: int,
    start: int,
    n_data: int,
    replica: Any,
    epoch: int,
    k0: int,
    k1: int,
) -> None:
    round_keys(scratch[:ROUNDS], replica, epoch, k0, k1)
    _walked(rows, scratch, count, start, n_data)


@_plain
def _replaced(
    rows: Any,
    scratch: Any,
    count: int,
    first: int,
    n_data: int,
    replica: Any,
    call: int,
    k0: int,
    k1: int,
) -> None:
    n, skip = np.uint64(n_data), first % 4
    words = scratch[: (skip + count + 3) // 4 * 4]
    _words(words, first // 4, replica, call, k0, k1)
    for i in range(count):
        rows[i] = np.int64((np.uint64(words[skip + i]) * n) >> _SHIFT)


@njit(error_model="numpy", inline="always")  # a constant order leaves one branch
def batch_rows(
    rows: Any,
    scratch: Any,
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
    """Rows ``first .. first + count`` of one batch, into ``rows[:count]`` (int64).

    ``scratch`` is uint32, at least ``count + ROUNDS`` long.
    """
    if order == _FULL:
        for i in range(count):
            rows[i] = first + i
    elif order == _REPLACEMENT:
        _replaced(rows, scratch, count, first, n_data, replica, call, k0, k1)
    elif order == _GIVEN:
        for i in range(count):
            rows[i] = np.int64(replica) * batch + first + i
    else:
        epoch, turn = place(order, call, n_data // batch)
        start = turn * batch + first
        _shuffled(rows, scratch, count, start, n_data, replica, epoch, k0, k1)


def _compile(version: int) -> Any:
    """Compile `rows_of`; ``version`` is part of its key in the disk cache."""

    @njit(cache=True, parallel=True, error_model="numpy")
    def rows_of(
        out: Any, order: int, n_data: int, call: int, shared: bool, k0: int, k1: int
    ) -> int:
        for r in prange(out.shape[0]):
            replica = 0 if shared else np.int64(r)
            n = out.shape[1]
            scratch = np.empty(n + ROUNDS, np.uint32)
            batch_rows(out[r], scratch, 0, n, order, n_data, n, call, replica, k0, k1)
        return version

    return rows_of


def _compile_walk(version: int) -> Any:
    """Compile `walk_of`; ``version`` as above."""

    @njit(cache=True, parallel=True, error_model="numpy")
    def walk_of(
        out: Any, start: int, n_data: int, epoch: int, only: int, k0: int, k1: int
    ) -> int:
        for r in prange(out.shape[0]):
            replica = np.int64(r) if only < 0 else np.int64(only)
            n = out.shape[1]
            scratch = np.empty(n + ROUNDS, np.uint32)
            _shuffled(out[r], scratch, n, start, n_data, replica, epoch, k0, k1)
        return version

    return walk_of


def _compile_strata(version: int) -> Any:
    """Compile `strata_of`; ``version`` as above."""

    @njit(cache=True, parallel=True, error_model="numpy")
    def strata_of(
        out: Any, table: Any, starts: Any, call: int, shared: bool, k0: int, k1: int
    ) -> int:
        share = out.shape[1] / table.size
        for r in prange(out.shape[0]):
            replica = 0 if shared else np.int64(r)
            n = out.shape[1]
            scratch = np.empty(n + ROUNDS, np.uint32)
            _words(scratch[:4], 0, replica, call, k0, k1)
            u = (np.float64(scratch[0]) + 0.5) * 2.0**-32
            at = 0
            for c in range(starts.size - 1):
                members = starts[c + 1] - starts[c]
                until = np.int64(np.ceil(share * starts[c + 1] - u))
                if c == starts.size - 2:
                    until = n
                count = min(max(until, at), n) - at
                rows = out[r, at : at + count]
                _words(scratch[:ROUNDS], _STRATUM * (c + 1), replica, call, k0, k1)
                _walked(rows, scratch, count, 0, members)
                for i in range(count):
                    rows[i] = table[starts[c] + rows[i]]
                at += count
        return version

    return strata_of


rows_of = _compile(fingerprint(codes, letters))
"""rows_of(out, order, n_data, call, shared, k0, k1)

Fill ``out`` (R, n) int64 with every replica's rows at one force call."""

walk_of = _compile_walk(fingerprint(codes, letters))
"""walk_of(out, start, n_data, epoch, only, k0, k1)

Fill ``out`` (R, n) int64 with positions ``start ..`` of every replica's permutation of
``n_data``; of that of replica ``only``, unless it is negative."""

strata_of = _compile_strata(fingerprint(codes, letters))
"""strata_of(out, table, starts, call, shared, k0, k1)

Fill ``out`` (R, n) int64 with a batch of every replica, class by class: rows of class c
are ``table[starts[c] : starts[c + 1]]``."""
