"""Activation functions and their derivatives for any array module.

The compiled engine has its own loops (`mdnet.kernels.pointwise`) for the names in
`mdnet.kernels.codes.ACTIVATIONS`; these are the plain form of the same formulas, for
CuPy, for layers, for predictions and for the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.kernels.codes import (
    ACTIVATIONS,
    GELU_CUBE,
    GELU_SLOPE,
    SELU_ALPHA,
    SELU_SCALE,
)
from mdnet.typing import Array

__all__ = [
    "KINKED",
    "LEAK",
    "NAMES",
    "check_activation",
    "curvature",
    "gain",
    "slope_of_value",
    "value",
    "value_and_slope",
]

LEAK = 0.01
"""Slope of "leaky_relu" at negative arguments."""

NAMES = (*ACTIVATIONS, "sigmoid", "elu", "leaky_relu")
"""Every activation; those not in `mdnet.kernels.codes.ACTIVATIONS` run as arrays."""

KINKED = ("relu", "leaky_relu", "selu")
"""Activations whose slope jumps at zero: their second derivative misses the kink."""

_BY_VALUE = ("identity", "relu", "tanh", "softplus", "selu", *NAMES[len(ACTIVATIONS) :])


def check_activation(name: Any) -> str:
    """Return ``name`` if it is an activation.

    Raises
    ------
    PotentialError
        If it is not.
    """
    if not isinstance(name, str) or name not in NAMES:
        raise PotentialError(
            f"activation={name!r}: expected one of {', '.join(NAMES)}, "
            'e.g. MLP([64, 32, 10], activation="tanh")'
        )
    return name


def gain(name: str) -> float:
    """Variance of a layer's weights times its number of inputs, at the start.

    2 for the rectifier and its smooth relatives, 2/(1 + LEAK^2) for the leaky one (He
    et al. 2015, doi:10.1109/ICCV.2015.123), 1 for the others (LeCun et al. 1998,
    doi:10.1007/3-540-49430-8_2; for "selu" it gives the fixed point of mean 0 and
    variance 1).
    """
    if name == "leaky_relu":
        return 2.0 / (1.0 + LEAK * LEAK)
    return 2.0 if name in ("relu", "silu", "gelu") else 1.0


def _sigmoid(x: Array, xp: Any) -> Array:
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, 1) / (1 + e)


def value(name: str, x: Array, xp: Any = np, out: Array | None = None) -> Array:
    """f(x) elementwise, in the type of ``x``; into ``out``, which may be ``x``."""
    if name == "relu":
        return xp.maximum(x, 0, out=out)
    if name == "tanh":
        return xp.tanh(x, out=out)
    if name == "leaky_relu":
        return xp.maximum(x, LEAK * x, out=out)
    y, _ = value_and_slope(name, x, xp)
    if out is None:
        return y
    out[...] = y
    return out


def value_and_slope(name: str, x: Array, xp: Any = np) -> tuple[Array, Array]:
    """f(x) and f'(x), elementwise, in the type of ``x``.

    Parameters
    ----------
    name : str
        "identity", "relu", "tanh", "silu" (x sigmoid(x)), "gelu" (the tanh form,
        x (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3)))/2), "softplus" (log(1 + e^x)),
        "selu", "sigmoid", "elu" (e^x - 1 below zero) or "leaky_relu" (LEAK x below).
    x : array
        Pre-activations.
    xp : module
        NumPy or CuPy.
    """
    if name == "relu":
        return xp.maximum(x, 0), (x > 0).astype(x.dtype)
    if name == "tanh":
        y = xp.tanh(x)
        return y, 1 - y * y
    if name == "silu":
        s = _sigmoid(x, xp)
        return x * s, s * (1 + x * (1 - s))
    if name == "gelu":
        w = GELU_CUBE * x * x
        t = xp.tanh(GELU_SLOPE * x * (1 + w))
        slope = GELU_SLOPE * (1 + 3 * w)
        return 0.5 * x * (1 + t), 0.5 * (1 + t + x * (1 - t * t) * slope)
    if name == "softplus":
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x))), _sigmoid(x, xp)
    if name == "selu":
        alpha = SELU_SCALE * SELU_ALPHA
        e = alpha * xp.expm1(xp.minimum(x, 0))
        positive = x > 0
        return (
            xp.where(positive, SELU_SCALE * x, e),
            xp.where(positive, xp.asarray(SELU_SCALE, x.dtype), e + alpha),
        )
    if name == "sigmoid":
        s = _sigmoid(x, xp)
        return s, s * (1 - s)
    if name == "elu":
        e = xp.expm1(xp.minimum(x, 0))
        return xp.where(x > 0, x, e), e + 1
    if name == "leaky_relu":
        slope = xp.where(x > 0, xp.asarray(1, x.dtype), xp.asarray(LEAK, x.dtype))
        return x * slope, slope
    return x, xp.ones_like(x)


def slope_of_value(name: str, y: Array, xp: Any = np) -> Array | None:
    """f'(x) from y = f(x), so that x need not be kept; None where that is not given.

    "relu" gives a mask, which multiplies as its numbers would.
    """
    if name not in _BY_VALUE:
        return None
    if name == "relu":
        return y > 0
    if name == "tanh":
        return 1 - y * y
    if name == "softplus":
        return -xp.expm1(-y)
    if name == "sigmoid":
        return y * (1 - y)
    if name == "identity":
        return xp.ones_like(y)
    positive = y > 0
    if name == "leaky_relu":
        return xp.where(positive, xp.asarray(1, y.dtype), xp.asarray(LEAK, y.dtype))
    if name == "elu":
        return xp.where(positive, xp.asarray(1, y.dtype), y + 1)
    alpha = SELU_SCALE * SELU_ALPHA
    return xp.where(positive, xp.asarray(SELU_SCALE, y.dtype), y + alpha)


def curvature(name: str, x: Array, y: Array, xp: Any = np) -> Array:
    """f''(x), elementwise; at a kink (see `KINKED`) that of the sides, not its jump.

    Parameters
    ----------
    name : str
        See `value_and_slope`.
    x : array
        Pre-activations; read only where `slope_of_value` gives None.
    y : array
        f(x).
    xp : module
        NumPy or CuPy.
    """
    if name == "tanh":
        return -2 * y * (1 - y * y)
    if name == "sigmoid":
        return y * (1 - y) * (1 - 2 * y)
    if name == "softplus":
        e = xp.exp(-y)
        return e * (1 - e)
    if name == "silu":
        s = _sigmoid(x, xp)
        return s * (1 - s) * (2 + x * (1 - 2 * s))
    if name == "gelu":
        w = GELU_CUBE * x * x
        t = xp.tanh(GELU_SLOPE * x * (1 + w))
        s = GELU_SLOPE * (1 + 3 * w)
        bend = 6 * GELU_SLOPE * GELU_CUBE * x
        return 0.5 * (1 - t * t) * (2 * s + x * bend - 2 * x * t * s * s)
    if name in ("elu", "selu"):
        scale = 1.0 if name == "elu" else SELU_SCALE * SELU_ALPHA
        return xp.where(y > 0, xp.zeros((), y.dtype), y + scale)
    return xp.zeros_like(y)
