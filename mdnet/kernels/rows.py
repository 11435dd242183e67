"""Forces and energies of the analytic potentials on the CPU (Numba).

Two shapes of kernel live here.

*Rows*: ``name(q, args, work, sign, out, energies)`` runs ``name_row`` on each replica
by itself: it writes ``sign * dU/dq`` into ``out`` and U into ``energies``, computing
in the type of ``out`` throughout, so that float64 ``out`` gives a float64 energy.
``args`` are the constants as arrays of that type, ``work`` is (R, W) scratch.

*Separable*: ``name_forces`` and ``name_energies`` cut each replica into blocks of
`BLOCK` parameters; a block's energy is one float64 number and blocks add up in order.

In both, nothing a replica computes depends on the other replicas or on the number of
threads, so results are the same bit for bit.  Constants come from ``args`` and never
from literals, because ``2.0 * x`` would turn a float32 ``x`` into float64.

================  ======================================
equation          code
================  ======================================
q                 ``q[r]``, cast to the type of ``out``
+-dU/dq           ``out[r]``, sign in ``sign``
U(q)              return value of a ``_row``
================  ======================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

from mdnet.kernels.native import alone

__all__ = [
    "BLOCK",
    "SMALL",
    "double_well_energies",
    "double_well_forces",
    "funnel",
    "harmonic_energies",
    "harmonic_forces",
    "kernel",
    "linear_batch",
    "mixture_dense",
    "mixture_diagonal",
    "muller_brown",
    "quadratic",
    "rosenbrock",
]

BLOCK = 4096
"""Parameters of one replica whose energies are summed as one number."""

SMALL = 50_000
"""Numbers read below which waking a thread costs more than it saves."""

_row = njit(cache=True, error_model="numpy")
_alone: dict[str, Any] = {}


def _rows(source: Any) -> Any:
    """Compile, on first use, for all threads and for one alone."""
    _alone[source.__name__] = alone(source, error_model="numpy")
    return njit(cache=True, parallel=True, error_model="numpy")(source)


def kernel(name: str, numbers: int) -> Any:
    """Pick the kernel ``name`` for work that reads so many numbers; same results."""
    return _alone[name] if numbers < SMALL else globals()[name]


# --- separable potentials -------------------------------------------------------------


@_row
def add_blocks(partial: Any, out: Any) -> None:
    """Sum each replica's blocks in order (serial: a fixed order of additions)."""
    for r in range(out.shape[0]):
        total = 0.0
        for b in range(partial.shape[1]):
            total += partial[r, b]
        out[r] = total


@_rows
def harmonic_forces(q: Any, args: Any, sign: Any, out: Any) -> None:
    """Force ``sign k (x - c)``; ``args = (k, c)``, each (D,)."""
    k, c = args
    blocks = (q.shape[1] + BLOCK - 1) // BLOCK
    for task in prange(q.shape[0] * blocks):
        r, first = np.int64(task) // blocks, np.int64(task) % blocks * BLOCK
        x, f = q[r, first : first + BLOCK], out[r, first : first + BLOCK]
        stiffness, center = k[first : first + BLOCK], c[first : first + BLOCK]
        for i in range(f.size):
            f[i] = sign * stiffness[i] * (out.dtype.type(x[i]) - center[i])


@_rows
def harmonic_energies(q: Any, args: Any, partial: Any, out: Any) -> None:
    """Energy ``k (x - c)^2 / 2`` summed in float64; ``partial`` is (R, blocks)."""
    k, c = args
    blocks = partial.shape[1]
    for task in prange(q.shape[0] * blocks):
        r, b = np.int64(task) // blocks, np.int64(task) % blocks
        total = 0.0
        for i in range(b * BLOCK, min((b + 1) * BLOCK, q.shape[1])):
            x = np.float64(q[r, i]) - c[i]
            total += 0.5 * k[i] * x * x
        partial[r, b] = total
    add_blocks(partial, out)


@_rows
def double_well_forces(q: Any, args: Any, sign: Any, out: Any) -> None:
    """Force ``sign 4 a x (x^2 - b^2)``; ``args = ([4 a, b^2],)``."""
    four_a, b2 = args[0]
    blocks = (q.shape[1] + BLOCK - 1) // BLOCK
    for task in prange(q.shape[0] * blocks):
        r, first = np.int64(task) // blocks, np.int64(task) % blocks * BLOCK
        xs, f = q[r, first : first + BLOCK], out[r, first : first + BLOCK]
        for i in range(f.size):
            x = out.dtype.type(xs[i])
            f[i] = sign * four_a * x * (x * x - b2)


@_rows
def double_well_energies(q: Any, args: Any, partial: Any, out: Any) -> None:
    """Energy ``a (x^2 - b^2)^2`` summed in float64; ``partial`` is (R, blocks)."""
    four_a, b2 = args[0]
    blocks = partial.shape[1]
    for task in prange(q.shape[0] * blocks):
        r, b = np.int64(task) // blocks, np.int64(task) % blocks
        total = 0.0
        for i in range(b * BLOCK, min((b + 1) * BLOCK, q.shape[1])):
            x = np.float64(q[r, i])
            total += 0.25 * four_a * (x * x - b2) ** 2
        partial[r, b] = total
    add_blocks(partial, out)


# --- rows -----------------------------------------------------------------------------


@_row
def rosenbrock_row(r: Any, q: Any, args: Any, work: Any, sign: Any, out: Any) -> Any:
    """Sum over pairs of ``(x - a)^2 + b (y - x^2)^2``; ``args = ([a, b],)``."""
    a, b = args[0]
    energy = a - a
    for i in range(0, q.shape[1], 2):
        x, y = out.dtype.type(q[r, i]), out.dtype.type(q[r, i + 1])
        d, e = x - a, y - x * x
        w = (b + b) * e
        energy += d * d + b * e * e
        out[r, i] = sign * ((d + d) - (w + w) * x)
        out[r, i + 1] = sign * w
    return energy


@_rows
def rosenbrock(
    q: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any
) -> None:
    """Every replica of `rosenbrock_row`."""
    for r in prange(q.shape[0]):
        energies[r] = rosenbrock_row(r, q, args, work, sign, out)


@_row
def funnel_row(r: Any, q: Any, args: Any, work: Any, sign: Any, out: Any) -> Any:
    """Neal's funnel; ``args = ([1 / s^2, 1 / 2, n / 2, constant],)``."""
    stiffness, half, half_n, constant = args[0]
    v = out.dtype.type(q[r, 0])
    narrow = math.exp(-v)
    square = v - v
    for i in range(1, q.shape[1]):
        x = out.dtype.type(q[r, i])
        square += x * x
        out[r, i] = sign * narrow * x
    spread = half * narrow * square
    out[r, 0] = sign * (stiffness * v - spread + half_n)
    return half * stiffness * v * v + spread + half_n * v + constant


@_rows
def funnel(q: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any) -> None:
    """Every replica of `funnel_row`."""
    for r in prange(q.shape[0]):
        energies[r] = funnel_row(r, q, args, work, sign, out)


@_row
def muller_brown_row(r: Any, q: Any, args: Any, work: Any, sign: Any, out: Any) -> Any:
    """Sum of ``A exp(a dx^2 + b dx dy + c dy^2)``; ``args = ((6, 4) table,)``."""
    table = args[0]
    x, y = out.dtype.type(q[r, 0]), out.dtype.type(q[r, 1])
    energy = x - x
    gx, gy = energy, energy
    for k in range(table.shape[1]):
        a, b, c = table[1, k], table[2, k], table[3, k]
        dx, dy = x - table[4, k], y - table[5, k]
        term = table[0, k] * math.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        energy += term
        gx += term * ((a + a) * dx + b * dy)
        gy += term * (b * dx + (c + c) * dy)
    out[r, 0] = sign * gx
    out[r, 1] = sign * gy
    return energy


@_rows
def muller_brown(
    q: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any
) -> None:
    """Every replica of `muller_brown_row`."""
    for r in prange(q.shape[0]):
        energies[r] = muller_brown_row(r, q, args, work, sign, out)


@_row
def soft_minimum(r: Any, count: Any, work: Any, sign: Any, out: Any) -> Any:
    """Turn log-densities and pulls of ``count`` components into force and energy.

    ``work[r]`` holds the log-densities ``l_k`` and, after them, the pulls
    ``t_k = P_k (q - mu_k)``: U = -ln sum exp(l_k), dU/dq = sum softmax(l)_k t_k.
    """
    top = work[r, 0]
    for k in range(1, count):
        top = max(top, work[r, k])
    total = top - top
    for k in range(count):
        work[r, k] = math.exp(work[r, k] - top)
        total += work[r, k]
    size = out.shape[1]
    for i in range(size):
        out[r, i] = total - total
    for k in range(count):
        share = sign * work[r, k] / total
        start = count + k * size
        for i in range(size):
            out[r, i] += share * work[r, start + i]
    return -top - math.log(total)


@_row
def mixture_dense_row(r: Any, q: Any, args: Any, work: Any, sign: Any, out: Any) -> Any:
    """Gaussian mixture; ``args = (log norms, means, precisions (K, D, D), [1/2])``."""
    norms, means, precisions, half = args
    count, size = means.shape
    for k in range(count):
        start = count + k * size
        for i in range(size):
            work[r, start + i] = half[0] - half[0]
        for j in range(size):
            d = out.dtype.type(q[r, j]) - means[k, j]
            for i in range(size):
                work[r, start + i] += precisions[k, j, i] * d
        square = half[0] - half[0]
        for i in range(size):
            d = out.dtype.type(q[r, i]) - means[k, i]
            square += work[r, start + i] * d
        work[r, k] = norms[k] - half[0] * square
    return soft_minimum(r, count, work, sign, out)


@_rows
def mixture_dense(
    q: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any
) -> None:
    """Every replica of `mixture_dense_row`."""
    for r in prange(q.shape[0]):
        energies[r] = mixture_dense_row(r, q, args, work, sign, out)


@_row
def mixture_diagonal_row(
    r: Any, q: Any, args: Any, work: Any, sign: Any, out: Any
) -> Any:
    """Gaussian mixture; ``args = (log norms, means, precisions (K, D), [1/2])``."""
    norms, means, precisions, half = args
    count, size = means.shape
    for k in range(count):
        start = count + k * size
        square = half[0] - half[0]
        for i in range(size):
            d = out.dtype.type(q[r, i]) - means[k, i]
            work[r, start + i] = precisions[k, i] * d
            square += work[r, start + i] * d
        work[r, k] = norms[k] - half[0] * square
    return soft_minimum(r, count, work, sign, out)


@_rows
def mixture_diagonal(
    q: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any
) -> None:
    """Every replica of `mixture_diagonal_row`."""
    for r in prange(q.shape[0]):
        energies[r] = mixture_diagonal_row(r, q, args, work, sign, out)


@_row
def quadratic_row(r: Any, q: Any, args: Any, work: Any, sign: Any, out: Any) -> Any:
    """``U0 + (q - m).H (q - m) / 2``; ``args = (H, m, [1/2, U0])``, H symmetric."""
    matrix, mean, constants = args
    size = q.shape[1]
    for i in range(size):
        work[r, i] = out.dtype.type(q[r, i]) - mean[i]
        out[r, i] = constants[0] - constants[0]
    # The outer loop runs over columns so that the inner one is a vector update.
    for j in range(size):
        d = work[r, j]
        for i in range(size):
            out[r, i] += matrix[j, i] * d
    square = constants[0] - constants[0]
    for i in range(size):
        square += work[r, i] * out[r, i]
        out[r, i] *= sign
    return constants[1] + constants[0] * square


@_rows
def quadratic(q: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any) -> None:
    """Every replica of `quadratic_row`."""
    for r in prange(q.shape[0]):
        energies[r] = quadratic_row(r, q, args, work, sign, out)


@_row
def linear_batch_row(
    r: Any, q: Any, index: Any, args: Any, work: Any, sign: Any, out: Any
) -> Any:
    """Least squares on the rows ``index[r]`` of the data, scaled up to all rows.

    ``args = (X, y, prior precisions (D,), [N / (n noise^2), 1/2, constant])``.
    """
    x, y, precisions, constants = args
    scale, half, constant = constants
    size = q.shape[1]
    prior = half - half
    for i in range(size):
        w = out.dtype.type(q[r, i])
        work[r, i] = w
        prior += precisions[i] * w * w
        out[r, i] = sign * precisions[i] * w
    square = half - half
    for b in range(index.shape[1]):
        row = index[r, b]
        residual = -y[row]
        for i in range(size):
            residual += x[row, i] * work[r, i]
        square += residual * residual
        push = sign * scale * residual
        for i in range(size):
            out[r, i] += push * x[row, i]
    return constant + half * (scale * square + prior)


@_rows
def linear_batch(
    q: Any, index: Any, args: Any, work: Any, sign: Any, out: Any, energies: Any
) -> None:
    """Every replica of `linear_batch_row`."""
    for r in prange(q.shape[0]):
        energies[r] = linear_batch_row(r, q, index, args, work, sign, out)
