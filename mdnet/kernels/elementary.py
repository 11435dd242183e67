"""exp, expm1, tanh, log and friends as straight-line arithmetic, for Numba loops.

A call to the C library inside a loop stops LLVM from vectorising it; these functions
are polynomials, selects and bit casts only.  Errors are 1 to 2 units in the last
place, in float32 and in float64 alike, but up to 6 of tanh in float32.  NaN comes out
as NaN, so that a diverged network is seen; an infinite exponential saturates near the
largest number.

================  ===========================================================
function          method
================  ===========================================================
exp(x)            x = n ln 2 + r, |r| <= ln(2)/2; Taylor in r, times 2^n
expm1(x)          2^n (e^r - 1) + (2^n - 1)
tanh(x)           e/(e + 2), e = expm1(2 x); in float32 x P(x^2)/Q(x^2), |x| <= 9.02
sigmoid(x)        1/(1 + e^-x)
log(x)            x = 2^e m, sqrt(1/2) <= m < sqrt(2); 2 artanh((m-1)/(m+1))
log1p_unit(x)     log(1 + x) for 0 <= x <= 1, the same series, no cancellation
================  ===========================================================

The names are plain NumPy functions on the host and are overloaded for Numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

__all__ = ["exp", "expm1", "log", "log1p_unit", "sigmoid", "tanh"]

# No reassociation: it would cancel the magic constant that rounds to an integer.
_EXACT = {"contract", "nsz"}
_inline = njit(fastmath=_EXACT, error_model="numpy")


def exp(x: Any) -> Any:
    """Return e^x."""
    return np.exp(x)


def expm1(x: Any) -> Any:
    """Return e^x - 1 without cancellation."""
    return np.expm1(x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return np.tanh(x)


def sigmoid(x: Any) -> Any:
    """Logistic function 1/(1 + e^-x)."""
    return 1.0 / (1.0 + np.exp(-x))


def log(x: Any) -> Any:
    """Natural logarithm of a positive normal number."""
    return np.log(x)


def log1p_unit(x: Any) -> Any:
    """log(1 + x) for x in [0, 1]."""
    return np.log1p(x)


_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(1 / math.factorial(n)) for n in range(2, 8))
_D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13 = (
    1 / math.factorial(n) for n in range(2, 14)
)
_A1, _A2, _A3, _A4, _A5 = (np.float32(1 / (2 * n + 1)) for n in range(1, 6))
_B1, _B2, _B3, _B4, _B5, _B6, _B7, _B8, _B9, _B10, _B11 = (
    1 / (2 * n + 1) for n in range(1, 12)
)
_P0, _P1, _P2, _P3, _P4 = map(
    np.float32, (1.0, 1.33797172e-1, 3.49403370e-3, 2.05834676e-5, 1.33190545e-8)
)
_Q0, _Q1, _Q2, _Q3, _Q4 = map(
    np.float32, (1.0, 4.67130325e-1, 2.58710699e-2, 3.28309145e-4, 7.76201199e-7)
)


@_inline
def _taylor32(r: Any) -> Any:
    """(e^r - 1 - r)/r^2 to 5e-9 of e^r on |r| <= ln(2)/2."""
    return _E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * (_E6 + r * _E7))))


@_inline
def _taylor64(r: Any) -> Any:
    """(e^r - 1 - r)/r^2 to 4e-18 of e^r on |r| <= ln(2)/2."""
    high = _D9 + r * (_D10 + r * (_D11 + r * (_D12 + r * _D13)))
    low = _D5 + r * (_D6 + r * (_D7 + r * (_D8 + r * high)))
    return _D2 + r * (_D3 + r * (_D4 + r * low))


@_inline
def _tanh32(x: Any) -> Any:
    """Hyperbolic tangent on |x| <= 9.02, a minimax fit; relative error 2e-8."""
    u = x * x
    p = _P0 + u * (_P1 + u * (_P2 + u * (_P3 + u * _P4)))
    q = _Q0 + u * (_Q1 + u * (_Q2 + u * (_Q3 + u * _Q4)))
    return x * p / q


@_inline
def _artanh32(w: Any) -> Any:
    """(artanh(s)/s - 1)/w with w = s^2 <= 0.0295, relative error 1e-10."""
    return _A1 + w * (_A2 + w * (_A3 + w * (_A4 + w * _A5)))


@_inline
def _artanh64(w: Any) -> Any:
    """(artanh(s)/s - 1)/w with w = s^2 <= 0.0295, relative error 2e-20."""
    high = _B7 + w * (_B8 + w * (_B9 + w * (_B10 + w * _B11)))
    return _B1 + w * (_B2 + w * (_B3 + w * (_B4 + w * (_B5 + w * (_B6 + w * high)))))


class _Format(NamedTuple):
    """What the algorithms need to know of a floating-point type."""

    real: Callable[[float], Any]
    integer: Callable[[int], Any]
    mantissa: int
    bias: int
    smallest: float  # exponents between which 2^n is normal
    largest: float
    flat: float  # beyond which tanh is 1 to rounding
    taylor: Any
    artanh: Any


_FORMATS = {
    types.float32: _Format(
        np.float32, np.int32, 23, 127, -87.3, 88.0, 9.02, _taylor32, _artanh32
    ),
    types.float64: _Format(
        np.float64, np.int64, 52, 1023, -708.3, 709.0, 20.0, _taylor64, _artanh64
    ),
}


def _build(form: _Format) -> dict[str, Any]:
    """Compile every function for one floating-point type."""
    real, integer = form.real, form.integer
    taylor, artanh = form.taylor, form.artanh
    zero, one, two, three = (real(x) for x in (0.0, 1.0, 2.0, 3.0))
    low, high, flat = real(form.smallest), real(form.largest), real(form.flat)
    log2e = real(1 / math.log(2))
    # Adding 1.5 * 2^mantissa leaves the rounded integer in the lowest bits.
    magic = real(1.5 * 2.0**form.mantissa)
    # ln 2 in two parts; the first has zeros at its end, so n * part is exact.
    keep = 2.0 ** (15 if form.mantissa == 23 else 40)
    ln2_head = real(math.floor(math.log(2) * keep) / keep)
    ln2_tail = real(
        math.log(2) - float(ln2_head)
        if form.mantissa == 23
        # ln 2 itself has an error of 2.3e-17 in float64.
        else (math.log(2) - float(ln2_head)) + 2.3190468138462996e-17
    )
    ln2 = real(math.log(2))
    shift, unit = integer(form.mantissa), integer(form.bias << form.mantissa)
    root = real(math.sqrt(0.5)).view(integer)
    fold = real(math.sqrt(2) - 1)

    @_inline
    def reduce(x: Any) -> Any:
        """Split x = n ln 2 + r: r and 2^n."""
        x = low if x < low else x
        x = high if x > high else x
        t = real(x * log2e + magic)
        n = t - magic
        r = (x - n * ln2_head) - n * ln2_tail
        power = integer(integer(t.view(integer) << shift) + unit)
        return r, power.view(real)

    @_inline
    def fexp(x: Any) -> Any:
        r, power = reduce(x)
        return power * (one + (r + r * r * taylor(r)))

    @_inline
    def fexpm1(x: Any) -> Any:
        r, power = reduce(x)
        return power * (r + r * r * taylor(r)) + (power - one)

    @_inline
    def divided(x: Any) -> Any:
        e = fexpm1(two * x)
        return e / (e + two)

    between = _tanh32 if form.mantissa == 23 else divided

    @_inline
    def ftanh(x: Any) -> Any:
        x = -flat if x < -flat else x
        x = flat if x > flat else x
        return between(x)

    @_inline
    def fsigmoid(x: Any) -> Any:
        return one / (one + fexp(-x))

    @_inline
    def flog(x: Any) -> Any:
        bits = real(x).view(integer)
        # Exponent of x counted from sqrt(1/2), then x scaled into [sqrt(1/2), sqrt 2).
        e = integer(integer(bits - root) >> shift)
        m = integer(bits - integer(e << shift)).view(real)
        s = (m - one) / (m + one)
        w = s * s
        # x - x is zero, or NaN if x is not finite.
        return real(e) * ln2 + two * (s + s * w * artanh(w)) + (x - x)

    @_inline
    def flog1p_unit(x: Any) -> Any:
        large = x > fold
        s = (x - one) / (x + three) if large else x / (x + two)
        w = s * s
        return (ln2 if large else zero) + two * (s + s * w * artanh(w))

    return {
        "exp": fexp,
        "expm1": fexpm1,
        "tanh": ftanh,
        "sigmoid": fsigmoid,
        "log": flog,
        "log1p_unit": flog1p_unit,
    }


_COMPILED = {kind: _build(form) for kind, form in _FORMATS.items()}


def _offer(function: Callable[[Any], Any]) -> None:
    """Overload ``function`` by its compiled twin of the argument's type."""
    options: Any = {"fastmath": _EXACT, "error_model": "numpy"}

    # Numba wants the two signatures alike, annotations included.
    @overload(function, jit_options=options)
    def pick(x):  # type: ignore[no-untyped-def]
        if x not in _COMPILED:
            return None
        compiled = _COMPILED[x][function.__name__]
        return lambda x: compiled(x)


for _function in (exp, expm1, tanh, sigmoid, log, log1p_unit):
    _offer(_function)
