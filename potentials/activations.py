"""Activation functions and their derivatives for any array module.

The compiled engine has its own loops (`mdnet.kernels.pointwise`); these are the plain
form of the same formulas, for CuPy, for predictions and for the tests.
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

__all__ = ["check_activation", "gain", "value_and_slope"]


def check_activation(name: Any) -> str:
    """Return ``name`` if it is an activation.

    Raises
    ------
    PotentialError
        If it is not.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise PotentialError(
            f"activation={name!r}: expected one of {', '.join(ACTIVATIONS)}, "
            'e.g. MLP([64, 32, 10], activation="tanh")'
        )
    return name


def gain(name: str) -> float:
    """Variance of a layer's weights times its number of inputs, at the start.

    2 for the rectifier and its smooth relatives (He et al. 2015,
    doi:10.1109/ICCV.2015.123), 1 for the others (LeCun et al. 1998,
    doi:10.1007/3-540-49430-8_2; for "selu" it gives the fixed point of mean 0 and
    variance 1).
    """
    return 2.0 if name in ("relu", "silu", "gelu") else 1.0


def _sigmoid(x: Array, xp: Any) -> Array:
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, 1) / (1 + e)


def value_and_slope(name: str, x: Array, xp: Any = np) -> tuple[Array, Array]:
    """f(x) and f'(x), elementwise, in the type of ``x``.

    Parameters
    ----------
    name : str
        "identity", "relu", "tanh", "silu" (x sigmoid(x)), "gelu" (the tanh form,
        x (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3)))/2), "softplus" (log(1 + e^x)) or
        "selu".
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
    return x, xp.ones_like(x)
