"""A loop of nothing but multiply-adds: how fast the vector units of a CPU can go."""

from __future__ import annotations

from numba import njit, prange

__all__ = ["CHAIN", "multiply_add"]

CHAIN = 16
"""Multiply-adds on one number before it is written back."""


@njit(parallel=True, cache=True, fastmath={"contract"})
def multiply_add(x, a, b, rounds):  # type: ignore[no-untyped-def]
    """Apply v <- a v + b ``CHAIN * rounds`` times to x (threads, 8, n) float32.

    Eight chains at a time, so that none waits for its own last result.
    """
    for thread in prange(x.shape[0]):
        y = x[thread]
        for _ in range(rounds):
            for j in range(y.shape[1]):
                c = y[0, j]
                d = y[1, j]
                e = y[2, j]
                f = y[3, j]
                g = y[4, j]
                h = y[5, j]
                k = y[6, j]
                l = y[7, j]
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                c = a * c + b
                d = a * d + b
                e = a * e + b
                f = a * f + b
                g = a * g + b
                h = a * h + b
                k = a * k + b
                l = a * l + b
                y[0, j] = c
                y[1, j] = d
                y[2, j] = e
                y[3, j] = f
                y[4, j] = g
                y[5, j] = h
                y[6, j] = k
                y[7, j] = l
