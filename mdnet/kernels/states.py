"""Metropolis walks over tabulated energies of N spins on the CPU (Numba).

A state is a whole number whose bits are the spins.  Every number drawn is that of
`mdnet.random.uniforms` at the same (seed, replica, step, stream, parameter), so that
results do not depend on threads or on the replicas beside.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

from mdnet import random
from mdnet.kernels import letters, noise, spins
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.noise import EXACT
from mdnet.kernels.spins import _uniforms

__all__ = ["metropolis"]

_QUARTER = random.TILE // 4


def _compile(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def metropolis(states, energies, bits, beta, sweeps, step, stream, seed):  # type: ignore[no-untyped-def]
        flips = np.zeros(states.size, np.int64)
        if version == 0:  # part of the key of the disk cache
            return flips
        for r in prange(states.size):
            x = np.empty((4, _QUARTER), np.uint32)
            where, test = np.empty(bits, np.float64), np.empty(bits, np.float64)
            state = states[r]
            for sweep in range(sweeps):
                _uniforms(where, x, r, step + sweep, stream, seed)
                _uniforms(test, x, r, step + sweep, stream + 1, seed)
                for i in range(bits):
                    site = int(where[i] * (bits + 1))
                    if site == bits:  # one in N + 1 stays: no parity is kept
                        continue
                    new = state ^ (1 << site)
                    rise = energies[new] - energies[state]
                    if rise <= 0.0 or test[i] < math.exp(-beta * rise):
                        state = new
                        flips[r] += 1
            states[r] = state
        return flips

    return metropolis


metropolis = _compile(fingerprint(letters, noise, random, spins))
"""metropolis(states, energies, bits, beta, sweeps, step, stream, seed)

Flips of random spins by the Metropolis rule; returns those of every replica.

Parameters
----------
states : (R,) int64
    Changed in place.
energies : (2^bits,) float64
bits : int
    N.
beta : float
    Inverse temperature.
sweeps, step, stream : int
    Sweeps of N attempts, and the counters of the first; two streams are used.
seed : (2,) uint64
"""
