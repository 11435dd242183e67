"""Motion on spheres and inside walls, and sums along rows, compiled for the CPU.

A surface is a range of neighbouring parameters; each thread takes one of one replica.
`mdnet.kernels.surface_arrays` is the same in arrays, and runs on devices.  Momenta on
the sphere of all parameters, and trajectories that turn back, need the sums of whole
replicas (`products`, `turn`, `spans`).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["bounce", "fold", "products", "project", "rotate", "spans", "turn"]

_SUMS = {"reassoc", "contract", "nsz"}  # sums in lanes; NaN and infinity stay


# Loops over one row each, which are vectorised.
@njit(error_model="numpy", fastmath=_SUMS)
def _project(q, v):  # type: ignore[no-untyped-def]
    along, square = 0.0, 0.0
    for j in range(q.size):
        x = np.float64(q[j])
        along += x * np.float64(v[j])
        square += x * x
    along /= square
    for j in range(q.size):
        v[j] = v.dtype.type(np.float64(v[j]) - along * np.float64(q[j]))


@njit(error_model="numpy", fastmath=_SUMS)
def _rotate(q, p, m, time, radius):  # type: ignore[no-untyped-def]
    square = 0.0
    for j in range(p.size):
        v = np.float64(p[j])
        square += v * v
    rate = m * np.sqrt(square) / radius
    angle = rate * time
    c, s = np.cos(angle), np.sin(angle)
    reach = time * m if rate == 0.0 else s / rate * m
    turn = rate * s / m
    norm, along = 0.0, 0.0
    for j in range(q.size):
        x, v = np.float64(q[j]), np.float64(p[j])
        y = c * x + reach * v
        w = c * v - turn * x
        norm += y * y
        along += y * w
        q[j] = q.dtype.type(y)
        p[j] = p.dtype.type(w)
    # Rounding leaves a radial part, which would grow.
    along /= norm
    scale = radius / np.sqrt(norm)
    for j in range(q.size):
        y = np.float64(q[j])
        p[j] = p.dtype.type(np.float64(p[j]) - along * y)
        q[j] = q.dtype.type(scale * y)


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def project(q, v, low, high):  # type: ignore[no-untyped-def]
    """Take away the part of v along q on every range."""
    count = low.size
    for task in prange(q.shape[0] * count):
        r, k = task // count, task % count
        _project(q[r, low[k] : high[k]], v[r, low[k] : high[k]])


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def rotate(q, p, low, high, inverse, time, radius):  # type: ignore[no-untyped-def]
    """Follow great circles of ``radius`` (R, S) for ``time`` (R,)."""
    count = low.size
    for task in prange(q.shape[0] * count):
        r, k = task // count, task % count
        row = slice(low[k], high[k])
        _rotate(q[r, row], p[r, row], inverse[k], time[r], radius[r, k])


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


@njit(error_model="numpy", fastmath=_SUMS)
def _products(f, p, inverse):  # type: ignore[no-untyped-def]
    square, along = 0.0, 0.0
    if inverse.size == 1:
        for j in range(f.size):
            x = np.float64(f[j])
            square += x * x
            along += x * np.float64(p[j])
        return square * inverse[0], along * inverse[0]
    for j in range(f.size):
        x = np.float64(f[j]) * inverse[j]
        square += x * np.float64(f[j])
        along += x * np.float64(p[j])
    return square, along


@njit(error_model="numpy", fastmath=_SUMS)
def _turn(p, f, keep, push):  # type: ignore[no-untyped-def]
    for j in range(p.size):
        p[j] = p.dtype.type(keep * np.float64(p[j]) + push * np.float64(f[j]))


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def products(f, p, inverse, out):  # type: ignore[no-untyped-def]
    """Sums of f^2/m and of f p/m of every replica, into ``out`` (2, R)."""
    for r in prange(f.shape[0]):
        out[0, r], out[1, r] = _products(f[r], p[r], inverse)


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def turn(p, f, keep, push):  # type: ignore[no-untyped-def]
    """Make p keep p + push f, with a factor of either a replica."""
    for r in prange(p.shape[0]):
        _turn(p[r], f[r], keep[r], push[r])


@njit(error_model="numpy", fastmath=_SUMS)
def _spans(one, other, total, inverse):  # type: ignore[no-untyped-def]
    first, last, single = 0.0, 0.0, inverse.size == 1
    for j in range(one.size):
        a, b = np.float64(one[j]), np.float64(other[j])
        inner = (np.float64(total[j]) - 0.5 * (a + b)) * (
            inverse[0] if single else inverse[j]
        )
        first += a * inner
        last += b * inner
    return first, last


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_SUMS)
def spans(one, other, total, inverse, out):  # type: ignore[no-untyped-def]
    """Momenta at two ends along their sum between, less half of both: (2, R)."""
    for r in prange(one.shape[0]):
        out[0, r], out[1, r] = _spans(one[r], other[r], total[r], inverse)
