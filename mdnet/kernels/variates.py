"""Chi-square variates from counters, for thermostats that move a kinetic energy.

Block ``64 g + a`` of a replica's counters serves attempt ``a`` of group ``g``; the
last of the 64 holds the normal that goes with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from mdnet import random
from mdnet.kernels import letters, noise
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.noise import EXACT, _bits, _radius64, _rotation64

__all__ = ["chi_squares"]

_ATTEMPTS = 64


@njit(error_model="numpy", fastmath=EXACT)
def _words(x, block, r, step, stream, seed):  # type: ignore[no-untyped-def]
    word = np.uint64(stream) + np.uint64(256) * (np.uint64(step) >> np.uint64(32))
    low = np.uint64(step) & np.uint64(0xFFFFFFFF)
    _bits(x, 1, np.uint64(block), np.uint64(r), low, word, seed[0], seed[1])


@njit(error_model="numpy", fastmath=EXACT)
def _unit(x):  # type: ignore[no-untyped-def]
    return (np.float64(x) + 0.5) * 2.0**-32


@njit(error_model="numpy", fastmath=EXACT)
def _gamma(shape, group, x, r, step, stream, seed):  # type: ignore[no-untyped-def]
    """A gamma variate of unit scale by rejection; shape > 0."""
    a = shape if shape >= 1.0 else shape + 1.0
    d = a - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    v = 1.0
    for attempt in range(_ATTEMPTS - 1):
        _words(x, _ATTEMPTS * group + attempt, r, step, stream, seed)
        cosine, _ = _rotation64(x[1, 0])
        z = _radius64(x[0, 0]) * cosine
        v = 1.0 + c * z
        if v <= 0.0:
            continue
        v = v * v * v
        if np.log(_unit(x[2, 0])) < 0.5 * z * z + d - d * v + d * np.log(v):
            break
    out = d * v
    if shape < 1.0:
        out *= _unit(x[3, 0]) ** (1.0 / shape)
    return out


def _compile(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def chi_squares(dof, step, stream, seed, normal, rest):  # type: ignore[no-untyped-def]
        for r in prange(normal.shape[0]):
            x = np.empty((4, 1), np.uint32)
            for group in range(dof.size):
                last = _ATTEMPTS * (group + 1) - 1
                _words(x, last, r, step, stream, seed)
                cosine, _ = _rotation64(x[1, 0])
                normal[r, group] = _radius64(x[0, 0]) * cosine
                rest[r, group] = 0.0
                if dof[group] > 1:
                    shape = 0.5 * (dof[group] - 1.0)
                    rest[r, group] = 2.0 * _gamma(
                        shape, group, x, r, step, stream, seed
                    )
        return version

    return chi_squares


chi_squares = _compile(fingerprint(letters, noise, random))
"""chi_squares(dof, step, stream, seed, normal, rest)

A normal, and the sum of the squares of dof - 1 others, for each replica and group.

Parameters
----------
dof : (G,) float64
    At least 1 each.
step, stream : int
    Which draw.
seed : (2,) uint64
normal, rest : (R, G) float64
    Written.

References
----------
G. Marsaglia, W. W. Tsang, ACM Trans. Math. Softw. 26, 363 (2000),
doi:10.1145/358407.358414.
"""
