"""The analytic potentials on whole arrays: ``f(xp, q, *constants) -> (U, dU/dq)``.

The same constants as the kernels of `mdnet.kernels.rows`, in NumPy or CuPy: the path
taken on a CUDA device and the reference of the compiled kernels.  Everything stays in
the type of ``q``, (R, D).
"""

from __future__ import annotations

from typing import Any

from mdnet.typing import Array

__all__ = [
    "double_well",
    "funnel",
    "harmonic",
    "mixture_dense",
    "mixture_diagonal",
    "muller_brown",
    "quadratic",
    "rosenbrock",
]


def harmonic(_: Any, q: Array, k: Array, c: Array) -> tuple[Array, Array]:
    """``k (x - c)^2 / 2``."""
    d = q - c
    gradient = k * d
    return 0.5 * (gradient * d).sum(axis=1), gradient


def double_well(_: Any, q: Array, constants: Array) -> tuple[Array, Array]:
    """``a (x^2 - b^2)^2``, constants ``[4 a, b^2]``."""
    four_a, b2 = constants[0], constants[1]
    d = q * q - b2
    return 0.25 * four_a * (d * d).sum(axis=1), four_a * q * d


def rosenbrock(xp: Any, q: Array, constants: Array) -> tuple[Array, Array]:
    """Sum over pairs of ``(x - a)^2 + b (y - x^2)^2``, constants ``[a, b]``."""
    x, y = q[:, 0::2], q[:, 1::2]
    d, e = x - constants[0], y - x * x
    gradient = xp.empty_like(q)
    gradient[:, 0::2] = 2 * d - 4 * constants[1] * e * x
    gradient[:, 1::2] = 2 * constants[1] * e
    return (d * d + constants[1] * e * e).sum(axis=1), gradient


def funnel(xp: Any, q: Array, constants: Array) -> tuple[Array, Array]:
    """Neal's funnel, constants ``[1 / s^2, 1 / 2, n / 2, constant]``."""
    v = q[:, 0]
    narrow = xp.exp(-v)
    gradient = narrow[:, None] * q
    spread = 0.5 * (gradient[:, 1:] * q[:, 1:]).sum(axis=1)
    gradient[:, 0] = constants[0] * v - spread + constants[2]
    slope = 0.5 * constants[0] * v + constants[2]
    return slope * v + spread + constants[3], gradient


def muller_brown(xp: Any, q: Array, table: Array) -> tuple[Array, Array]:
    """Four Gaussian-like terms, rows of ``table``: A, a, b, c, x0, y0."""
    height, a, b, c, x0, y0 = (table[i] for i in range(6))
    dx, dy = q[:, :1] - x0, q[:, 1:] - y0
    terms = height * xp.exp(a * dx * dx + b * dx * dy + c * dy * dy)
    gradient = xp.empty_like(q)
    gradient[:, 0] = (terms * (2 * a * dx + b * dy)).sum(axis=1)
    gradient[:, 1] = (terms * (b * dx + 2 * c * dy)).sum(axis=1)
    return terms.sum(axis=1), gradient


def quadratic(
    _: Any, q: Array, matrix: Array, mean: Array, constants: Array
) -> tuple[Array, Array]:
    """``U0 + (q - m).H (q - m) / 2``, constants ``[1/2, U0]``."""
    d = q - mean
    gradient = d @ matrix
    return 0.5 * (d * gradient).sum(axis=1) + constants[1], gradient


def mixture_dense(
    xp: Any, q: Array, norms: Array, means: Array, precisions: Array, half: Array
) -> tuple[Array, Array]:
    """Gaussian mixture, ``precisions`` (K, D, D)."""
    d = q[:, None, :] - means
    pulls = xp.einsum("kij,rkj->rki", precisions, d)
    return _soft_minimum(xp, norms - half * (d * pulls).sum(axis=2), pulls)


def mixture_diagonal(
    xp: Any, q: Array, norms: Array, means: Array, precisions: Array, half: Array
) -> tuple[Array, Array]:
    """Gaussian mixture, ``precisions`` (K, D)."""
    d = q[:, None, :] - means
    pulls = precisions * d
    return _soft_minimum(xp, norms - half * (d * pulls).sum(axis=2), pulls)


def _soft_minimum(xp: Any, logs: Array, pulls: Array) -> tuple[Array, Array]:
    """U = -ln sum exp(l_k) and its gradient sum softmax(l)_k t_k."""
    top = logs.max(axis=1, keepdims=True)
    weights = xp.exp(logs - top)
    total = weights.sum(axis=1)
    gradient = (weights[:, :, None] * pulls).sum(axis=1) / total[:, None]
    return -top[:, 0] - xp.log(total), gradient
