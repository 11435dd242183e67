"""Motion on spheres and inside walls, compiled for the CPU.

A surface is a range of neighbouring parameters; each thread takes one of one replica.
`mdnet.kernels.surface_arrays` is the same in arrays, and runs on devices.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["bounce", "fold", "project", "rotate"]

_SUMS = {"reassoc", "contract", "nsz"}  # sums in lanes; NaN and infinity stay


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def project(q, v, low, high):  # type: ignore[no-untyped-def]
    """Take away the part of v along q on every range."""
    count = low.size
    for task in prange(q.shape[0] * count):
        r, k = task // count, task % count
        along = 0.0
        square = 0.0
        for j in range(low[k], high[k]):
            x = np.float64(q[r, j])
            along += x * v[r, j]
            square += x * x
        along /= square
        for j in range(low[k], high[k]):
            v[r, j] = v[r, j] - along * q[r, j]


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def rotate(q, p, low, high, inverse, time, radius):  # type: ignore[no-untyped-def]
    """Follow great circles of ``radius`` (R, S) for ``time`` (R,)."""
    count = low.size
    for task in prange(q.shape[0] * count):
        r, k = task // count, task % count
        m = inverse[k]
        square = 0.0
        for j in range(low[k], high[k]):
            square += np.float64(p[r, j]) ** 2
        rate = m * np.sqrt(square) / radius[r, k]
        angle = rate * time[r]
        c = np.cos(angle)
        s = np.sin(angle)
        reach = time[r] * m if rate == 0.0 else s / rate * m
        turn = rate * s / m
        norm = 0.0
        along = 0.0
        for j in range(low[k], high[k]):
            x = np.float64(q[r, j])
            v = np.float64(p[r, j])
            y = c * x + reach * v
            w = c * v - turn * x
            norm += y * y
            along += y * w
            q[r, j] = y
            p[r, j] = w
        # Rounding leaves a radial part, which would grow.
        along /= norm
        scale = radius[r, k] / np.sqrt(norm)
        for j in range(low[k], high[k]):
            y = np.float64(q[r, j])
            p[r, j] = p[r, j] - along * y
            q[r, j] = scale * y


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def fold(q, p, low, high, inverse, time, wall):  # type: ignore[no-untyped-def]
    """Fly between walls at +-wall of each parameter from low to high."""
    for r in prange(q.shape[0]):
        for j in range(low, high):
            m = inverse[0] if inverse.size == 1 else inverse[j]
            y = (np.float64(q[r, j]) + wall + time[r] * m * p[r, j]) % (4 * wall)
            if y > 2 * wall:
                y = 4 * wall - y
                p[r, j] = -p[r, j]
            q[r, j] = y - wall


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def bounce(q, p, low, high, inverse, time, wall, most):  # type: ignore[no-untyped-def]
    """Fly inside balls of radius ``wall`` (S,), turned back at them."""
    count = low.size
    for task in prange(q.shape[0] * count):
        r, k = task // count, task % count
        m = inverse[k]
        left = time[r]
        for _ in range(most):
            speed = 0.0
            outward = 0.0
            place = 0.0
            for j in range(low[k], high[k]):
                x = np.float64(q[r, j])
                v = m * np.float64(p[r, j])
                speed += v * v
                outward += x * v
                place += x * x
            room = max(wall[k] ** 2 - place, 0.0)
            go = left
            if speed > 0.0:
                hit = (np.sqrt(outward**2 + speed * room) - outward) / speed
                go = min(left, max(hit, 0.0))
            place = 0.0
            outward = 0.0
            for j in range(low[k], high[k]):
                x = np.float64(q[r, j]) + go * m * p[r, j]
                q[r, j] = x
                place += x * x
                outward += x * p[r, j]
            shrink = min(1.0, wall[k] / np.sqrt(place)) if place > 0.0 else 1.0
            left -= go
            for j in range(low[k], high[k]):
                x = np.float64(q[r, j])
                if left > 0.0:
                    p[r, j] = p[r, j] - 2 * outward / place * x
                q[r, j] = shrink * x
            if not left > 0.0:
                break
