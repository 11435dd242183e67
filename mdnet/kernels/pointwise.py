"""Activations, likelihoods and priors as vectorised loops of the CPU engine.

Arrays of a layer are (units, rows): the rows of the batch lie along the vector axis,
so that a soft-max over units is plain arithmetic between rows.  A NaN stays a NaN.

===========================  =======================================================
equation                     code
===========================  =======================================================
a = f(z), z <- f'(z)         ``activate(code, z, a)``
-log p(t | z) and d/dz       ``loss(code, z, t, work, count, strength)``
-log prior, non-constant     ``prior_energy(q, start, stop, code, u, v)``
s (c G + d(-log prior)/dq)   ``finish(out, q, start, stop, code, u, v, scale, sign)``
===========================  =======================================================

Constants of a prior: Gaussian u = 1/s^2; Laplace u = 1/s; Student u = nu + 1,
v = nu s^2.  ``strength`` is 1/noise^2 of the Gaussian likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

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

__all__ = [
    "activate",
    "finish",
    "loss",
    "prior_energy",
]

_scalar = njit(fastmath={"contract", "nsz"}, error_model="numpy")
_sums = njit(fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")

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


def _sweep(pair: Callable[[Any, Any], Any]) -> Any:
    """Compile the loop of one activation."""

    @_scalar
    def sweep(z: Any, a: Any) -> None:
        for o in range(z.shape[0]):
            x, y = z[o], a[o]
            for i in range(x.size):
                y[i], x[i] = pair(x[i], z.dtype.type)

    return sweep


_sweep_identity, _sweep_relu, _sweep_tanh = map(_sweep, (_identity, _relu, _tanh))
_sweep_silu, _sweep_gelu = map(_sweep, (_silu, _gelu))
_sweep_softplus, _sweep_selu = map(_sweep, (_softplus, _selu))


@_scalar
def activate(code: Any, z: Any, a: Any) -> None:
    """Write f(z) into ``a`` and f'(z) over ``z``."""
    if code == _RELU:
        _sweep_relu(z, a)
    elif code == _TANH:
        _sweep_tanh(z, a)
    elif code == _SILU:
        _sweep_silu(z, a)
    elif code == _GELU:
        _sweep_gelu(z, a)
    elif code == _SOFTPLUS:
        _sweep_softplus(z, a)
    elif code == _SELU:
        _sweep_selu(z, a)
    else:
        _sweep_identity(z, a)


# --- likelihoods: z becomes d(-log p)/dz; the value is a float64 sum over the rows ----


@_scalar
def _categorical(z: Any, t: Any, work: Any) -> None:
    real = z.dtype.type
    zero, one = real(0.0), real(1.0)
    rows, top, total, label = work[0], work[1], work[2], t[0]
    classes, width = z.shape
    for i in range(width):
        top[i] = z[0, i]
        total[i] = zero
        rows[i] = zero
    for c in range(1, classes):
        x = z[c]
        for i in range(width):
            top[i] = x[i] if x[i] > top[i] else top[i]
    for c in range(classes):
        x, name = z[c], real(c)
        for i in range(width):
            shifted = x[i] - top[i]
            e = exp(shifted)
            rows[i] -= shifted if label[i] == name else zero
            total[i] += e
            x[i] = e
    for i in range(width):
        rows[i] += log(total[i])
        total[i] = one / total[i]
    for c in range(classes):
        x, name = z[c], real(c)
        for i in range(width):
            x[i] = x[i] * total[i] - (one if label[i] == name else zero)


@_scalar
def _gaussian(z: Any, t: Any, work: Any, strength: float) -> None:
    real = z.dtype.type
    k, half, rows = real(strength), real(0.5), work[0]
    for i in range(z.shape[1]):
        rows[i] = real(0.0)
    for o in range(z.shape[0]):
        x, y = z[o], t[o]
        for i in range(z.shape[1]):
            miss = x[i] - y[i]
            rows[i] += half * k * miss * miss
            x[i] = k * miss


@_scalar
def _bernoulli(z: Any, t: Any, work: Any) -> None:
    real = z.dtype.type
    rows = work[0]
    for i in range(z.shape[1]):
        rows[i] = real(0.0)
    for o in range(z.shape[0]):
        x, y = z[o], t[o]
        for i in range(z.shape[1]):
            value, slope = _softplus(x[i], real)
            rows[i] += value - x[i] * y[i]
            x[i] = slope - y[i]


@_sums
def _total(rows: Any, count: int) -> float:
    total = 0.0
    for i in range(count):
        total += np.float64(rows[i])
    return total


@_scalar
def loss(code: Any, z: Any, t: Any, work: Any, count: int, strength: float) -> float:
    """Sum of -log p over the first ``count`` rows, without constants.

    Parameters
    ----------
    code : int
        Likelihood.
    z : array, (outputs, rows)
        Network outputs; replaced by the derivative, zero beyond ``count``.
    t : array, (targets, rows)
        Targets; for "categorical" one row of class numbers.
    work : array, (3, rows)
        Scratch.
    count : int
        Rows that are data; the others are padding.
    strength : float
        1/noise^2 of "gaussian".
    """
    if code == _CATEGORICAL:
        _categorical(z, t, work)
    elif code == _GAUSSIAN:
        _gaussian(z, t, work, strength)
    else:
        _bernoulli(z, t, work)
    for o in range(z.shape[0]):
        for i in range(count, z.shape[1]):
            z[o, i] = z.dtype.type(0.0)
    return _total(work[0], count)


# --- priors ---------------------------------------------------------------------------


@_sums
def prior_energy(q: Any, start: int, stop: int, code: Any, u: float, v: float) -> float:
    """-log prior of q[start:stop] without its constant, in float64."""
    total = 0.0
    if code == _NORMAL:
        for i in range(start, stop):
            total += np.float64(q[i]) * np.float64(q[i])
        total *= 0.5 * u
    elif code == _LAPLACE:
        for i in range(start, stop):
            total += abs(np.float64(q[i]))
        total *= u
    elif code == _STUDENT:
        for i in range(start, stop):
            x = np.float64(q[i])
            total += log(1.0 + x * x / v)
        total *= 0.5 * u
    return total


@_scalar
def finish(
    out: Any,
    q: Any,
    start: int,
    stop: int,
    code: Any,
    u: float,
    v: float,
    scale: float,
    sign: float,
) -> None:
    """Scale and sign: out <- sign (scale out + d(-log prior)/dq) on [start, stop)."""
    real = out.dtype.type
    a, b, c, d = real(sign * scale), real(sign * u), real(v), real(0.0)
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
