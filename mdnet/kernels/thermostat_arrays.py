"""The thermostats in operations that NumPy and CuPy share.

Twins of `mdnet.kernels.thermostats`: they serve devices other than the CPU, and are
what the compiled functions are tested against.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.typing import Array

__all__ = ["adapt", "book", "chain", "group_sums", "match", "stored", "width"]


def group_sums(xp: Any, twice: Array, groups: Array, count: int) -> Array:
    """Sum of ``twice`` (R, tiles) over the blocks of each group: (R, G)."""
    if count == 1:
        return twice.sum(axis=1, keepdims=True)
    member = (groups[:, None] == xp.arange(count)).astype(np.float64)
    return twice @ member


def book(twice: Array, sums: Array) -> None:
    """Book a change of momenta as a bath: ``twice`` (R, tiles) is what it left."""
    sums[2] += 0.5 * (twice - sums[0])
    sums[0] = twice
    sums[1] = twice


def chain(
    xp: Any,
    xi: Array,
    ratio: Array,
    dof: Any,
    time: Array,
    stages: Array,
) -> tuple[Array, Array]:
    """Run Nose-Hoover chains over the stages of a step.

    Parameters
    ----------
    xp : module
    xi : (R, M, n) float64
        Velocities of the links; changed.
    ratio : (R, n) float64
        Twice the kinetic energy over ``dof`` T; changed.
    dof : (n,) array or float
    time : (R, 1) float64
        Relaxation time.
    stages : (S, R, 1) float64
        Lengths in units of time.

    Returns
    -------
    scale, phase : (R, n), (R,)
        Factor of the momenta; the sum of n d(eta_1) + d(eta_2) + ...
    """
    rate = 1.0 / time**2
    top = xi.shape[1] - 1
    scale = xp.ones_like(ratio)
    phase = xp.zeros(xi.shape[0])
    factors: list[Any] = [1.0] * (top + 1)

    def move(j: int, half: Array) -> None:
        if j == 0:
            push = (ratio - 1.0) * rate
        elif j == 1:
            push = dof * xi[:, 0] ** 2 - rate
        else:
            push = xi[:, j - 1] ** 2 - rate
        xi[:, j] = (xi[:, j] * factors[j] + half * push) * factors[j]

    for length in stages:
        for j in range(top, -1, -1):
            if j < top:
                factors[j] = xp.exp(-0.25 * length * xi[:, j + 1])
            move(j, 0.5 * length)
        s = xp.exp(-length * xi[:, 0])
        scale *= s
        ratio *= s * s
        turned = dof * xi[:, 0] + xi[:, 1:].sum(axis=1)
        phase += (length * turned).sum(axis=1)
        for j in range(top + 1):
            move(j, 0.5 * length)
    return scale, phase


def stored(xi: Array, dof: Any) -> Array:
    """Sum of n xi_1^2 + xi_2^2 + ... over chains (R, M, n): (R,)."""
    return (dof * xi[:, 0] ** 2).sum(axis=1) + (xi[:, 1:] ** 2).sum(axis=(1, 2))


def adapt(
    xp: Any, xi: Array, p: Array, z: Array, inverse_mass: Array, rows: tuple[Array, ...]
) -> Array:
    """N D N of `thermostats.adaptive_bath` on float64 ``p``; return the new momenta.

    ``z`` are normals times sqrt(m); ``rows`` dt, temperature, friction and relaxation
    time, (R, 1) each; ``xi`` is changed.
    """
    h, T, friction, time = rows
    push = 0.5 * h / time**2
    xi += push * (p * p * inverse_mass / T - 1.0)
    new = xp.exp(-h * xi) * p + xp.sqrt(2 * friction * T * width(xp, xi, h)) * z
    xi += push * (new * new * inverse_mass / T - 1.0)
    return new


def width(xp: Any, rate: Array, h: Array) -> Array:
    """(1 - exp(-2 rate h))/(2 rate), which is h at rate 0."""
    small = xp.abs(rate) * h < 1e-8
    safe = xp.where(small, 1.0, rate)
    return xp.where(small, h, -0.5 * xp.expm1(-2 * safe * h) / safe)


def match(
    xp: Any,
    p: Array,
    z: Array,
    inverse_mass: Array,
    rate: Array,
    noise: Array,
    absorb: bool,
    rows: tuple[Array, ...],
) -> tuple[Array, Array]:
    """Momenta after `thermostats.matched_bath`, and which have unmatched noise.

    ``p`` float64; ``z`` are normals times sqrt(m), ``rate`` (R, D) or (R, 1), ``noise``
    what is not captured, ``rows`` dt, temperature and friction (R, 1).
    """
    h, T, friction = rows
    if absorb:
        rate = rate + 0.5 * h * noise * inverse_mass / T
        square = 2 * friction * T * width(xp, rate, h)
        return xp.exp(-h * rate) * p + xp.sqrt(square) * z, square < 0
    c = xp.exp(-h * rate)
    square = (1 - c * c) * T - noise * inverse_mass * (0.5 * h * (1 + c)) ** 2
    return c * p + xp.sqrt(xp.maximum(square, 0)) * z, square < 0
