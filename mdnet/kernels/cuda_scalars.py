"""What the network kernels compute for one number, bound for one precision.

The formulas are those of the CPU: activations and priors come from
`mdnet.kernels.pointwise`, the rows of a batch from `mdnet.kernels.batches`.  Only the
elementary functions differ: CUDA's own.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import cuda, float32, float64

from mdnet.kernels import batches, letters, pointwise
from mdnet.kernels.codes import ACTIVATIONS, LIKELIHOODS, PRIORS
from mdnet.kernels.cuda import philox_round
from mdnet.kernels.cuda_build import SIMULATED, device
from mdnet.random import STREAM_BATCH

__all__ = ["LANES", "scope_of"]

LANES = 4 if SIMULATED else 128
"""Threads a block of the kernels of `mdnet.kernels.cuda_network`, a power of two.

The simulator makes each a thread of the system, so that few are faster.
"""

_RELU, _TANH, _SILU = (ACTIVATIONS[name] for name in ("relu", "tanh", "silu"))
_GELU, _SOFTPLUS, _SELU = (ACTIVATIONS[name] for name in ("gelu", "softplus", "selu"))
_CATEGORICAL, _GAUSSIAN = (LIKELIHOODS[name] for name in ("categorical", "gaussian"))
_NORMAL, _LAPLACE, _STUDENT = (PRIORS[n] for n in ("gaussian", "laplace", "student"))
_ROUNDS = batches.ROUNDS
_STREAM, _MASK, _SHIFT = np.uint64(STREAM_BATCH), np.uint64(2**32 - 1), np.uint64(32)

# Bound when a kernel is built.
REAL: Any = float32
F: Any = np.float32
_identity, _relu, _tanh = pointwise._identity, pointwise._relu, pointwise._tanh
_silu, _gelu = pointwise._silu, pointwise._gelu
_softplus, _selu = pointwise._softplus, pointwise._selu
_eight, _halves, _passes = batches._eight, batches._halves, batches._passes
place = batches.place
philox = letters.philox


def exp(x: Any) -> Any:
    """Return e^x."""
    return F(math.exp(x))


def expm1(x: Any) -> Any:
    """Return e^x - 1."""
    return F(math.expm1(x))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return F(math.tanh(x))


def log1p_unit(x: Any) -> Any:
    """Return log(1 + x)."""
    return F(math.log1p(x))


def sigmoid(x: Any) -> Any:
    """Logistic function, without overflow."""
    e = F(math.exp(-abs(x)))
    return (e if x < F(0.0) else F(1.0)) / (F(1.0) + e)


def activation(code: Any, x: Any) -> Any:
    """Value and slope of an activation."""
    y, slope = x, F(1.0)
    if code == _RELU:
        y, slope = _relu(x, F)
    elif code == _TANH:
        y, slope = _tanh(x, F)
    elif code == _SILU:
        y, slope = _silu(x, F)
    elif code == _GELU:
        y, slope = _gelu(x, F)
    elif code == _SOFTPLUS:
        y, slope = _softplus(x, F)
    elif code == _SELU:
        y, slope = _selu(x, F)
    return y, slope


def miss(kind: Any, z: Any, t: Any, strength: Any) -> Any:
    """-log p of one output of "gaussian" or "bernoulli", and its derivative."""
    if kind == _GAUSSIAN:
        d = z - t
        loss, slope = F(0.5) * F(strength) * d * d, F(strength) * d
    else:
        value, rise = _softplus(z, F)
        loss, slope = value - z * t, rise - t
    return loss, slope


def prior_slope(code: Any, x: Any, u: Any, v: Any) -> Any:
    """d(-log prior)/dx."""
    slope = F(0.0)
    if code == _NORMAL:
        slope = F(u) * x
    elif code == _LAPLACE:
        slope = F(u) if x > F(0.0) else (-F(u) if x < F(0.0) else F(0.0))
    elif code == _STUDENT:
        slope = F(u) * x / (F(v) + x * x)
    return slope


def prior_value(code: Any, x: Any, u: Any, v: Any) -> Any:
    """-log prior of one weight without its constant, in float64."""
    value = 0.0
    if code == _NORMAL:
        value = 0.5 * u * x * x
    elif code == _LAPLACE:
        value = u * abs(x)
    elif code == _STUDENT:
        value = 0.5 * u * math.log(1.0 + x * x / v)
    return value


def words(block: Any, replica: Any, step: Any, k0: Any, k1: Any) -> Any:
    """Four words of the batch stream; see `mdnet.kernels.batches`."""
    now = np.uint64(step)
    word = _STREAM + np.uint64(256) * (now >> _SHIFT)
    return philox(np.uint64(block), np.uint64(replica), now & _MASK, word, k0, k1)


def _mix(x: Any, key: Any) -> Any:
    """`batches._mix` in NumPy, for the simulator: words wrap without a warning."""
    with np.errstate(over="ignore"):
        return batches._mix.py_func(x, key)


def make_keys(  # type: ignore[no-untyped-def]
    keys, lane, lanes, replica, epoch, k0, k1
) -> None:
    """Keys of one epoch's permutation, by the first six lanes (or all in turn)."""
    for block in range(lane, _ROUNDS // 4, lanes):
        a, b, c, d = words(block, replica, epoch, k0, k1)
        keys[4 * block] = np.uint32(a)
        keys[4 * block + 1] = np.uint32(b)
        keys[4 * block + 2] = np.uint32(c)
        keys[4 * block + 3] = np.uint32(d)


def shuffled(keys: Any, position: Any, n_data: Any) -> Any:
    """Row at one position of an epoch; see `mdnet.kernels.batches`."""
    high, low = _halves(n_data)
    passes = _passes(high, low)
    row = np.int64(position)
    outside = True
    while outside:
        x = np.uint32(row)
        for n in range(passes):
            p = 8 * n
            x = _eight(
                x,
                high,
                low,
                keys[p],
                keys[p + 1],
                keys[p + 2],
                keys[p + 3],
                keys[p + 4],
                keys[p + 5],
                keys[p + 6],
                keys[p + 7],
            )
        row = np.int64(x)
        outside = row >= n_data
    return row


def replaced(
    position: Any, replica: Any, call: Any, n_data: Any, k0: Any, k1: Any
) -> Any:
    """Row at one position of a batch drawn with replacement."""
    a, b, c, d = words(position // 4, replica, call, k0, k1)
    lane = position % 4
    word = a
    word = b if lane == 1 else word
    word = c if lane == 2 else word
    word = d if lane == 3 else word
    return np.int64((word * np.uint64(n_data)) >> np.uint64(32))


def block_sum(shared: Any, lane: Any, value: Any) -> Any:
    """Sum over a block of LANES threads, always in the same order."""
    shared[lane] = value
    cuda.syncthreads()
    width = LANES // 2
    while width > 0:
        if lane < width:
            shared[lane] += shared[lane + width]
        cuda.syncthreads()
        width //= 2
    return shared[0]


@cache
def scope_of(single: bool) -> dict[str, Any]:
    """Names of every device function and type for float32 (``single``) or float64."""
    scope: dict[str, Any] = {
        "REAL": float32 if single else float64,
        "F": np.float32 if single else np.float64,
    }
    device([exp, expm1, tanh, log1p_unit, sigmoid], scope)
    device([_relu, _tanh, _silu, _gelu, _softplus, _selu], scope)
    device([letters.philox_round if SIMULATED else philox_round, letters.philox], scope)
    device([_mix if SIMULATED else batches._mix], scope)
    device([batches._halves, batches._passes, batches._eight, batches.place], scope)
    device([activation, miss, prior_slope, prior_value], scope)
    device([words, make_keys, shuffled, replaced, block_sum], scope)
    return scope
