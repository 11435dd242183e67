"""Motion on spheres and inside walls in arrays: NumPy's, or CuPy's on a device.

The reference that `mdnet.kernels.surfaces` is tested against.
"""

from __future__ import annotations

from typing import Any

from mdnet.typing import Array

__all__ = ["MOST_BOUNCES", "bounce", "fold", "project", "rotate"]

MOST_BOUNCES = 1000
"""In one flight; what is left of it then (a flight along the wall) is dropped."""


def project(q: Array, v: Array) -> None:
    """Take away the part of v along q, (R, rows, n), in place."""
    x = q.astype(float)
    along = (x * v).sum(2, keepdims=True) / (x * x).sum(2, keepdims=True)
    v -= (along * x).astype(v.dtype)


def rotate(xp: Any, q: Array, v: Array, time: Array, radius: Array) -> None:
    """Follow great circles: q, v (R, rows, n) float64, changed in place."""
    rate = xp.sqrt((v * v).sum(2, keepdims=True)) / radius
    angle = rate * time
    cosine, sine = xp.cos(angle), xp.sin(angle)
    reach = xp.where(angle == 0, time, sine / xp.where(rate == 0, 1.0, rate))
    turned = v * cosine - q * (rate * sine)
    q *= cosine
    q += v * reach
    q *= radius / xp.sqrt((q * q).sum(2, keepdims=True))
    # Rounding leaves a radial part, which would grow.
    v[...] = turned - q * ((q * turned).sum(2, keepdims=True) / radius**2)


def fold(xp: Any, q: Array, v: Array, time: Array, wall: float) -> None:
    """Fly between walls at +-wall in each element, in place."""
    unfolded = (q + wall + v * time) % (4 * wall)
    back = unfolded > 2 * wall
    q[...] = xp.where(back, 4 * wall - unfolded, unfolded) - wall
    v *= xp.where(back, -1.0, 1.0)


def bounce(xp: Any, q: Array, v: Array, time: Array, wall: float) -> None:
    """Fly inside balls |q| <= wall, turned back at them, in place."""
    left = xp.broadcast_to(time, (*q.shape[:2], 1)).astype(float)
    square = (v * v).sum(2, keepdims=True)
    still = square == 0
    square = xp.where(still, 1.0, square)
    for _ in range(MOST_BOUNCES):
        q *= wall / xp.maximum(xp.sqrt((q * q).sum(2, keepdims=True)), wall)
        outward = (q * v).sum(2, keepdims=True)
        room = xp.maximum(wall**2 - (q * q).sum(2, keepdims=True), 0.0)
        hit = (xp.sqrt(outward**2 + square * room) - outward) / square
        hit = xp.where(still, xp.inf, hit)
        go = xp.minimum(hit, left)
        q += v * go
        left -= go
        turns = left > 0
        if not bool(turns.any()):
            return
        normal = (q * v).sum(2, keepdims=True) / (q * q).sum(2, keepdims=True)
        v -= xp.where(turns, 2 * normal, 0.0) * q
