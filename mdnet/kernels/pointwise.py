"""Activations, likelihoods and priors as vectorised loops of the CPU engine.

Arrays of a layer are (units, rows): the rows of the batch lie along the vector axis,
so that a soft-max over units is plain arithmetic between rows.  A NaN stays a NaN.
All are C functions, compiled when a network first needs them.

===========================  =======================================================
equation                     code
===========================  =======================================================
a = f(z), z <- f'(z)         ``activation(code, dtype)``
-log p(t | z) and d/dz       ``loss(code, dtype)``
-log prior, non-constant     ``prior(dtype)``
s (c G + d(-log prior)/dq)   ``finish(dtype)``
===========================  =======================================================

Constants of a prior: Gaussian u = 1/s^2; Laplace u = 1/s; Student u = nu + 1,
v = nu s^2.  ``strength`` is 1/noise^2 of the Gaussian likelihood.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types

from mdnet.kernels import codes, elementary
from mdnet.kernels.codes import (
    ACTIVATIONS,
    GELU_CUBE,
    GELU_SLOPE,
    LIKELIHOODS,
    PRIORS,
    SELU_ALPHA,
    SELU_SCALE,
)
from mdnet.kernels.elementary import exp, expm1, log, log1p_unit, sigmoid, tanh
from mdnet.kernels.fingerprint import fingerprint

__all__ = [
    "activation",
    "finish",
    "loss",
    "prior",
]

_OPTIONS: Any = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
_REORDERED = {"contract", "nsz", "reassoc"}
_scalar = njit(**_OPTIONS)
_sums = njit(fastmath=_REORDERED, error_model="numpy")

_RELU, _TANH, _SILU = (ACTIVATIONS[name] for name in ("relu", "tanh", "silu"))
_GELU, _SOFTPLUS, _SELU = (ACTIVATIONS[name] for name in ("gelu", "softplus", "selu"))
_CATEGORICAL, _GAUSSIAN = (LIKELIHOODS[name] for name in ("categorical", "gaussian"))
_NORMAL, _LAPLACE, _STUDENT = (PRIORS[n] for n in ("gaussian", "laplace", "student"))


# --- activations: (value, derivative) of one number; F makes a constant of its type ---


@_scalar
def _identity(x: Any, F: Any) -> Any:
    return x, F(1.0)


@_scalar
def _relu(x: Any, F: Any) -> Any:
    zero = F(0.0)
    return (zero if x < zero else x), (zero if x <= zero else F(1.0))


@_scalar
def _tanh(x: Any, F: Any) -> Any:
    y = tanh(x)
    return y, F(1.0) - y * y


@_scalar
def _silu(x: Any, F: Any) -> Any:
    s = sigmoid(x)
    return x * s, s * (F(1.0) + x * (F(1.0) - s))


@_scalar
def _gelu(x: Any, F: Any) -> Any:
    slope, cube, half, one = F(GELU_SLOPE), F(GELU_CUBE), F(0.5), F(1.0)
    w = cube * x * x
    t = tanh(slope * x * (one + w))
    inner = slope * (one + F(3.0) * w)
    return half * x * (one + t), half * (one + t + x * (one - t * t) * inner)


@_scalar
def _softplus(x: Any, F: Any) -> Any:
    zero, one = F(0.0), F(1.0)
    e = exp(x if x < zero else -x)
    ratio = one / (one + e)
    return (zero if x < zero else x) + log1p_unit(e), (e * ratio if x < zero else ratio)


@_scalar
def _selu(x: Any, F: Any) -> Any:
    scale, alpha, zero = F(SELU_SCALE), F(SELU_SCALE * SELU_ALPHA), F(0.0)
    e = alpha * expm1(x if x < zero else zero)
    # x NaN is not positive: it goes through e, where x < 0 is False; add x - x.
    return (scale * x if x > zero else e + (x - x)), (
        scale if x > zero else e + alpha + (x - x)
    )


def _sweep(code: int, real: Any, version: int) -> Any:
    """Write the loop of one activation; ``version`` is part of its key on disk.

    ``code`` is a constant of the closure: Numba drops all branches but one.
    """

    def sweep(z: Any, a: Any, units: Any, width: Any, stride: Any) -> Any:
        for o in range(units):
            for i in range(o * stride, o * stride + width):
                x = z[i]
                if code == _RELU:
                    value, slope = _relu(x, real)
                elif code == _TANH:
                    value, slope = _tanh(x, real)
                elif code == _SILU:
                    value, slope = _silu(x, real)
                elif code == _GELU:
                    value, slope = _gelu(x, real)
                elif code == _SOFTPLUS:
                    value, slope = _softplus(x, real)
                elif code == _SELU:
                    value, slope = _selu(x, real)
                else:
                    value, slope = _identity(x, real)
                a[i] = value
                z[i] = slope
        return version

    return sweep


@cache
def activation(code: int, dtype: Any) -> Any:
    """Compile an activation.

    Returns
    -------
    C function ``int64 (z, a, units, width, stride)``
        Writes f(z) into ``a`` and f'(z) over ``z``, both (units, width) with
        ``stride`` numbers between units.
    """
    place, word = types.CPointer(from_dtype(dtype)), types.int64
    form = word(place, place, word, word, word)
    source = _sweep(code, dtype.type, fingerprint(codes, elementary))
    return cfunc(form, cache=True, **_OPTIONS)(source)


# --- likelihoods: z becomes d(-log p)/dz; the value is a float64 sum over the rows ----


@_scalar
def _categorical(z: Any, t: Any, work: Any, width: int) -> None:
    real = z.dtype.type
    zero, one = real(0.0), real(1.0)
    rows, top, total, label = work[0], work[1], work[2], t[0]
    classes = z.shape[0]
    for i in range(width):
        top[i] = z[0, i]
        total[i] = zero
        rows[i] = zero
    for c in range(1, classes):
        x = z[c]
        for i in range(width):
            top[i] = x[i] if x[i] > top[i] else top[i]
    # Two loops, each of few arrays: LLVM checks eight pairs for overlap, no more.
    for c in range(classes):
        x, name = z[c], real(c)
        for i in range(width):
            rows[i] += top[i] - x[i] if label[i] == name else zero
        for i in range(width):
            x[i] = exp(x[i] - top[i])
            total[i] += x[i]
    for i in range(width):
        rows[i] += log(total[i])
        total[i] = one / total[i]
    for c in range(classes):
        x, name = z[c], real(c)
        for i in range(width):
            x[i] = x[i] * total[i] - (one if label[i] == name else zero)


@_scalar
def _gaussian(z: Any, t: Any, work: Any, width: int, strength: float) -> None:
    real = z.dtype.type
    k, half, rows = real(strength), real(0.5), work[0]
    for i in range(width):
        rows[i] = real(0.0)
    for o in range(z.shape[0]):
        x, y = z[o], t[o]
        for i in range(width):
            miss = x[i] - y[i]
            rows[i] += half * k * miss * miss
            x[i] = k * miss


@_scalar
def _bernoulli(z: Any, t: Any, work: Any, width: int) -> None:
    real = z.dtype.type
    rows = work[0]
    for i in range(width):
        rows[i] = real(0.0)
    for o in range(z.shape[0]):
        x, y = z[o], t[o]
        for i in range(width):
            value, slope = _softplus(x[i], real)
            rows[i] += value - x[i] * y[i]
            x[i] = slope - y[i]


@_sums
def _total(rows: Any, count: int) -> float:
    total = 0.0
    for i in range(count):
        total += np.float64(rows[i])
    return total


def _loss(code: int, version: int) -> Any:
    """Write one likelihood; ``version`` is part of its key on disk."""

    def loss(
        z: Any,
        t: Any,
        work: Any,
        outputs: Any,
        targets: Any,
        width: Any,
        stride: Any,
        count: Any,
        strength: Any,
    ) -> Any:
        z_all = carray(z, (outputs, stride))
        t_all = carray(t, (targets, stride))
        w_all = carray(work, (3, stride))
        if code == _CATEGORICAL:
            _categorical(z_all, t_all, w_all, width)
        elif code == _GAUSSIAN:
            _gaussian(z_all, t_all, w_all, width, strength)
        else:
            _bernoulli(z_all, t_all, w_all, width)
        for o in range(outputs):
            for i in range(count, width):
                z_all[o, i] = 0
        # Zero times the version: what a closure does not use is no part of its key.
        return _total(w_all[0], count) + 0.0 * version

    return loss


@cache
def loss(code: int, dtype: Any) -> Any:
    """Compile a likelihood.

    Returns
    -------
    C function ``float64 (z, t, work, outputs, targets, width, stride, count, k)``
        Sum of -log p over the first ``count`` rows, without constants.  Outputs z
        (outputs, width) become the derivative, zero beyond ``count``; targets t
        (targets, width) hold one row of class numbers if "categorical"; ``work`` is
        scratch (3, width); k is 1/noise^2 if "gaussian".
    """
    place, word = types.CPointer(from_dtype(dtype)), types.int64
    form = types.float64(
        place, place, place, word, word, word, word, word, types.float64
    )
    source = _loss(code, fingerprint(codes, elementary))
    return cfunc(form, cache=True, **_OPTIONS)(source)


# --- priors ---------------------------------------------------------------------------


def _prior(version: int) -> Any:
    """Write the energy of the priors; ``version`` is part of its key on disk."""

    def prior(q: Any, count: Any, code: Any, u: Any, v: Any) -> Any:
        total = 0.0 * version
        if code == _NORMAL:
            for i in range(count):
                total += np.float64(q[i]) * np.float64(q[i])
            total *= 0.5 * u
        elif code == _LAPLACE:
            for i in range(count):
                total += abs(np.float64(q[i]))
            total *= u
        elif code == _STUDENT:
            for i in range(count):
                x = np.float64(q[i])
                total += log(1.0 + x * x / v)
            total *= 0.5 * u
        return total

    return prior


@cache
def prior(dtype: Any) -> Any:
    """Compile ``float64 (q, count, code, u, v)``.

    -log prior of ``count`` weights without its constant, in float64.
    """
    place, word, real = types.CPointer(from_dtype(dtype)), types.int64, types.float64
    source = _prior(fingerprint(codes, elementary))
    options = {**_OPTIONS, "fastmath": _REORDERED}
    return cfunc(real(place, word, word, real, real), cache=True, **options)(source)


def _finish(real: Any, version: int) -> Any:
    """Write the last pass over a gradient; ``version`` is part of its key on disk."""

    def finish(
        out: Any,
        q: Any,
        rows: Any,
        stride: Any,
        count: Any,
        code: Any,
        u: Any,
        v: Any,
        scale: Any,
        sign: Any,
    ) -> Any:
        a, b, c, d = real(sign * scale), real(sign * u), real(v), real(0.0)
        for start in range(0, rows * stride, stride):
            stop = start + count
            if code == _NORMAL:
                for i in range(start, stop):
                    out[i] = a * out[i] + b * q[i]
            elif code == _LAPLACE:
                for i in range(start, stop):
                    out[i] = a * out[i] + (b if q[i] > d else (-b if q[i] < d else d))
            elif code == _STUDENT:
                for i in range(start, stop):
                    out[i] = a * out[i] + b * q[i] / (c + q[i] * q[i])
            else:
                for i in range(start, stop):
                    out[i] = a * out[i]
        return version

    return finish


@cache
def finish(dtype: Any) -> Any:
    """Compile ``int64 (out, q, rows, stride, count, code, u, v, scale, sign)``.

    out <- sign (scale out + d(-log prior)/dq), for ``count`` weights of each row.
    """
    place, word, real = types.CPointer(from_dtype(dtype)), types.int64, types.float64
    form = word(place, place, *[word] * 4, *[real] * 4)
    source = _finish(dtype.type, fingerprint(codes))
    return cfunc(form, cache=True, **_OPTIONS)(source)
