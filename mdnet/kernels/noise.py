"""Normals for one tile of parameters on the CPU, vectorised: Philox, then Box-Muller.

Words and normals lie lane by lane, so that no store needs a shuffle.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types
from numba.extending import overload

from mdnet import random
from mdnet.kernels import letters
from mdnet.kernels.fingerprint import fingerprint

__all__ = ["EXACT", "fill", "filler"]

# Contraction to FMA is welcome; reassociation would make B B differ from 2 B.
EXACT = {"contract", "nsz", "arcp"}
"""Floating-point freedoms that leave the arithmetic of a letter as written."""


def _compile_noise() -> Any:
    """Philox and Box-Muller, each function seeing the compiled others."""
    compiled: dict[str, Any] = {}
    for name in (
        "philox_round",
        "philox",
        "int_of_float32",
        "float_of_int32",
        "int_of_float64",
        "float_of_int64",
        "radius32",
        "rotation32",
        "radius64",
        "rotation64",
    ):
        source = getattr(letters, name)
        scope = {**source.__globals__, **compiled}
        copy = type(source)(source.__code__, scope, name)
        # Inlined by force: a call left standing would stop the vectoriser.
        compiled[name] = njit(error_model="numpy", fastmath=EXACT, forceinline=True)(
            copy
        )
    return compiled


_MASK = np.uint64(0xFFFFFFFF)
_CHAIN = 32
_noise = _compile_noise()
_philox = _noise["philox"]
_radius32, _rotation32 = _noise["radius32"], _noise["rotation32"]
_radius64, _rotation64 = _noise["radius64"], _noise["rotation64"]


@njit(error_model="numpy", fastmath=EXACT, inline="always")
def _bits(x, count, first, replica, step, word, k0, k1):  # type: ignore[no-untyped-def]
    done = 0
    # Four chains of ten rounds at a time: one would leave the multipliers waiting.
    # Few counters are made one by one; of more, some beyond the last if there is room.
    while count - done > _CHAIN // 2 and done + 4 * _CHAIN <= x.shape[1]:
        for i in range(done, done + _CHAIN):
            a = (first + np.uint64(i)) & _MASK
            b = (first + np.uint64(i + _CHAIN)) & _MASK
            c = (first + np.uint64(i + 2 * _CHAIN)) & _MASK
            d = (first + np.uint64(i + 3 * _CHAIN)) & _MASK
            a0, a1, a2, a3 = _philox(a, replica, step, word, k0, k1)
            b0, b1, b2, b3 = _philox(b, replica, step, word, k0, k1)
            c0, c1, c2, c3 = _philox(c, replica, step, word, k0, k1)
            d0, d1, d2, d3 = _philox(d, replica, step, word, k0, k1)
            x[0, i], x[1, i], x[2, i], x[3, i] = a0, a1, a2, a3
            i += _CHAIN
            x[0, i], x[1, i], x[2, i], x[3, i] = b0, b1, b2, b3
            i += _CHAIN
            x[0, i], x[1, i], x[2, i], x[3, i] = c0, c1, c2, c3
            i += _CHAIN
            x[0, i], x[1, i], x[2, i], x[3, i] = d0, d1, d2, d3
        done += 4 * _CHAIN
    for i in range(done, count):
        a0, a1, a2, a3 = _philox(
            (first + np.uint64(i)) & _MASK, replica, step, word, k0, k1
        )
        x[0, i], x[1, i], x[2, i], x[3, i] = a0, a1, a2, a3


def _radius(z, x):  # type: ignore[no-untyped-def]
    """Radius of Box and Muller, in the type of the array ``z``."""


@overload(_radius, inline="always")
def _overload_radius(z, x):  # type: ignore[no-untyped-def]
    if z.dtype is types.float32:
        return lambda z, x: _radius32(x)  # noqa: ARG005
    return lambda z, x: _radius64(x)  # noqa: ARG005


def _rotation(z, x):  # type: ignore[no-untyped-def]
    """Cosine and sine of Box and Muller, in the type of the array ``z``."""


@overload(_rotation, inline="always")
def _overload_rotation(z, x):  # type: ignore[no-untyped-def]
    if z.dtype is types.float32:
        return lambda z, x: _rotation32(x)  # noqa: ARG005
    return lambda z, x: _rotation64(x)  # noqa: ARG005


@njit(error_model="numpy", fastmath=EXACT, inline="always")
def _normals(z, x, count):  # type: ignore[no-untyped-def]
    """Turn words (4, count) into as many normals."""
    z0, z1 = z[:count], z[count : 2 * count]
    z2, z3 = z[2 * count : 3 * count], z[3 * count : 4 * count]
    for i in range(count):
        r = _radius(z, x[0, i])
        c, s = _rotation(z, x[1, i])
        z0[i] = r * c
        z1[i] = r * s
        r = _radius(z, x[2, i])
        c, s = _rotation(z, x[3, i])
        z2[i] = r * c
        z3[i] = r * s


@njit(error_model="numpy", fastmath=EXACT, inline="always")
def fill(z, x, block, count, replica, step, stream, seed):  # type: ignore[no-untyped-def]
    """Write the normals of one tile of parameters.

    Parameters
    ----------
    z : (TILE,) float32 or float64
        Parameter w of the tile takes ``z[w]``.
    x : (4, TILE // 4) uint32
        Scratch.
    block : int
        First counter block, a quarter of the tile's first parameter.
    count : int
        Counter blocks: a quarter of the tile's parameters, rounded up.
    replica, step, stream : int
    seed : (2,) uint64
    """
    word = np.uint64(stream) + np.uint64(256) * (step >> np.uint64(32))
    step = step & np.uint64(0xFFFFFFFF)
    first, row = np.uint64(block), np.uint64(replica)
    _bits(x, count, first, row, step, word, seed[0], seed[1])
    _normals(z, x, count)


def _filler(version: int) -> Any:
    """Write `fill` with addresses for arrays."""

    def filler(  # type: ignore[no-untyped-def]
        z, x, block, count, replica, step, stream, k0, k1
    ):
        normals = carray(z, (letters.TILE,))
        words = carray(x, (4, letters.TILE // 4))
        key = (np.uint64(k0), np.uint64(k1))
        fill(normals, words, block, count, replica, np.uint64(step), stream, key)
        return version

    return filler


@cache
def filler(dtype: Any) -> Any:
    """Compile `fill` as a C function, so that kernels need no copy of it.

    ``int64 (z, x, block, count, replica, step, stream, k0, k1)`` with ``z`` of type
    ``dtype``.
    """
    word = types.int64
    places = types.CPointer(from_dtype(dtype)), types.CPointer(types.uint32)
    form = word(*places, *[word] * 7)
    source = _filler(fingerprint(letters, random))
    return cfunc(form, cache=True, error_model="numpy", fastmath=EXACT)(source)
