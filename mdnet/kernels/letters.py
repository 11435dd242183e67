"""The scalar arithmetic of every letter and of the noise, in plain Python.

This is the single source of a step: `mdnet.kernels.cpu` compiles it into vectorised
loops over blocks that stay in cache, `mdnet.kernels.cuda` into one kernel that keeps
its parameters in registers.  Nothing here loops, branches on data or calls a maths
library, because each of these stops LLVM from vectorising.

================  =====================================================
letter            update
================  =====================================================
B (kick)          p <- p + b F
A (drift)         q <- q + a p,  a = h / m
O (bath)          p <- c p + s z,  s = sqrt((1 - c^2) m T), z normal
================  =====================================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mdnet.random import TILE

__all__ = [
    "BATH",
    "DRIFT",
    "FORCE",
    "KICK",
    "TILE",
    "bath",
    "drift",
    "float_of_int32",
    "float_of_int64",
    "int_of_float32",
    "int_of_float64",
    "kick",
    "philox",
    "philox_round",
    "polynomial_force",
    "radius32",
    "radius64",
    "rotation32",
    "rotation64",
]

KICK, DRIFT, BATH, FORCE = 0, 1, 2, 3
"""Operation codes of a compiled program."""

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

_ONE32, _HALF32, _TWO32 = np.float32(1), np.float32(0.5), np.float32(2)
_SQRT_HALF32 = np.int32(0x3F3504F3)  # bits of sqrt(1/2)
_MANTISSA32 = np.int32(23)
_LN4_32 = np.float32(2 * math.log(2))
# Typed, because Numba widens 32-bit integers that meet each other or a literal, and
# a vector then holds half as many.
_OFFSET, _ODD, _TOP = (np.uint32(n) for n in (0x3FFFFFFF, 1 << 30, 1 << 31))
_NONE, _UNIT = np.uint32(0), np.uint32(1)
_MIDDLE, _BITS = np.int32(1 << 29), np.int32(32)
_TURN32 = np.float32(math.pi / 2 / 2**30)
_A3, _A5, _A7, _A9 = (np.float32(1 / n) for n in (3, 5, 7, 9))
_S3, _S5, _S7, _S9 = (
    np.float32((-1) ** (n // 2) / math.factorial(n)) for n in (3, 5, 7, 9)
)
_C2, _C4, _C6, _C8, _C10 = (
    np.float32((-1) ** (n // 2) / math.factorial(n)) for n in (2, 4, 6, 8, 10)
)

_SQRT_HALF64 = np.int64(0x3FE6A09E667F3BCD)
_MANTISSA64 = np.int64(52)
_LN4_64 = 2 * math.log(2)
_TURN64 = math.pi / 2 / 2**30
_D3, _D5, _D7, _D9, _D11, _D13, _D15, _D17, _D19, _D21 = (
    1 / n for n in range(3, 22, 2)
)
_T3, _T5, _T7, _T9, _T11, _T13, _T15, _T17 = (
    (-1) ** (n // 2) / math.factorial(n) for n in range(3, 18, 2)
)
_K2, _K4, _K6, _K8, _K10, _K12, _K14, _K16 = (
    (-1) ** (n // 2) / math.factorial(n) for n in range(2, 17, 2)
)


def kick(p: Any, f: Any, b: Any) -> Any:
    """Momentum after a kick: p + b F."""
    return p + b * f


def drift(q: Any, p: Any, a: Any) -> Any:
    """Position after a drift: q + a p."""
    return q + a * p


def bath(p: Any, z: Any, c: Any, s: Any) -> Any:
    """Momentum after the exact Ornstein-Uhlenbeck flow: c p + s z."""
    return c * p + s * z


def polynomial_force(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Force -(a + b x + c x^2 + d x^3) of one parameter, by Horner's rule."""
    return -(a + x * (b + x * (c + x * d)))


def philox_round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """One round; words are held in uint64, so that nothing overflows anywhere."""
    p0 = _M0 * c0
    p1 = _M1 * c2
    return (
        (p1 >> _SHIFT) ^ c1 ^ k0,
        p1 & _MASK,
        (p0 >> _SHIFT) ^ c3 ^ k1,
        p0 & _MASK,
    )


def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox-4x32-10: four uint64 holding 32 random bits each.

    Written out, because LLVM does not vectorise a loop over the rounds.  The key
    schedule is a closed form of constants: k + i W.
    """
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    c0, c1, c2, c3 = philox_round(c0, c1, c2, c3, k0, k1)
    k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return philox_round(c0, c1, c2, c3, k0, k1)


def int_of_float32(x: Any) -> Any:
    """Bits of a float32 as int32 (CUDA binds the instruction instead)."""
    return np.float32(x).view(np.int32)


def float_of_int32(x: Any) -> Any:
    """Float32 of the bits of an int32."""
    return np.int32(x).view(np.float32)


def int_of_float64(x: Any) -> Any:
    """Bits of a float64 as int64."""
    return np.float64(x).view(np.int64)


def float_of_int64(x: Any) -> Any:
    """Float64 of the bits of an int64."""
    return np.int64(x).view(np.float64)


def radius32(x: Any) -> Any:
    """Box-Muller radius sqrt(-2 ln((x + 1/2) 2^-32)) in float32.

    ln u = e ln 2 + 2 artanh(s) with s = (m - 1)/(m + 1) and m in [sqrt(1/2), sqrt 2).
    """
    u = np.float32(x) + _HALF32
    bits = int_of_float32(u)
    e = np.int32(np.int32(bits - _SQRT_HALF32) >> _MANTISSA32)
    m = float_of_int32(np.int32(bits - np.int32(e << _MANTISSA32)))
    s = (m - _ONE32) / (m + _ONE32)
    z = s * s
    log_m = _TWO32 * s * (_ONE32 + z * (_A3 + z * (_A5 + z * (_A7 + z * _A9))))
    scale = np.float32(np.int32(_BITS - e))
    return np.float32(math.sqrt(scale * _LN4_32 - _TWO32 * log_m))


def rotation32(x: Any) -> Any:
    """Cosine and sine of the angle of 32 random bits, in float32.

    The two top bits choose a quadrant, the others an offset in (-pi/4, pi/4).
    """
    x = np.uint32(x)
    offset = np.int32(np.int32(x & _OFFSET) - _MIDDLE)
    t = (np.float32(offset) + _HALF32) * _TURN32
    z = t * t
    sine = t * (_ONE32 + z * (_S3 + z * (_S5 + z * (_S7 + z * _S9))))
    cosine = _ONE32 + z * (_C2 + z * (_C4 + z * (_C6 + z * (_C8 + z * _C10))))
    odd = np.uint32(x & _ODD) != _NONE
    a = sine if odd else cosine
    b = cosine if odd else sine
    # In the second and third quadrants, where the two top bits differ.
    a = -a if np.uint32(np.uint32(x ^ np.uint32(x << _UNIT)) & _TOP) != _NONE else a
    b = -b if np.uint32(x & _TOP) != _NONE else b
    return a, b


def radius64(x: Any) -> Any:
    """As `radius32`, in float64."""
    u = np.float64(x) + 0.5
    bits = int_of_float64(u)
    e = np.int64(np.int64(bits - _SQRT_HALF64) >> _MANTISSA64)
    m = float_of_int64(np.int64(bits - np.int64(e << _MANTISSA64)))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    high = _D11 + z * (_D13 + z * (_D15 + z * (_D17 + z * (_D19 + z * _D21))))
    series = 1.0 + z * (_D3 + z * (_D5 + z * (_D7 + z * (_D9 + z * high))))
    return math.sqrt(np.float64(np.int64(32) - e) * _LN4_64 - 4.0 * s * series)


def rotation64(x: Any) -> Any:
    """As `rotation32`, in float64."""
    t = (np.float64(np.int64(x & 0x3FFFFFFF) - np.int64(0x20000000)) + 0.5) * _TURN64
    z = t * t
    high = _T11 + z * (_T13 + z * (_T15 + z * _T17))
    sine = t * (1.0 + z * (_T3 + z * (_T5 + z * (_T7 + z * (_T9 + z * high)))))
    high = _K10 + z * (_K12 + z * (_K14 + z * _K16))
    cosine = 1.0 + z * (_K2 + z * (_K4 + z * (_K6 + z * (_K8 + z * high))))
    odd = (x & 0x40000000) != 0
    a = sine if odd else cosine
    b = cosine if odd else sine
    a = -a if ((x + 0x40000000) & 0x80000000) != 0 else a
    b = -b if (x & 0x80000000) != 0 else b
    return a, b
