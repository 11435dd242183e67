"""Sampling loops of discrete units and of convex cones on the CPU (Numba).

Every number drawn is that of `mdnet.random.uniforms` at the same (seed, replica, step,
stream, parameter), so that results do not depend on threads or on the replicas beside.

==================================  ==================================================
function                            effect
==================================  ==================================================
``fire(field, out, ...)``           out = 1 with probability 1/(1 + e^-field), else 0
``glauber(spins, fields, J, ...)``  sweeps of heat bath over spins of -1 and 1
``cone(w, margins, columns, ...)``  sweeps of a Gaussian vector within half spaces
==================================  ==================================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

from mdnet import random
from mdnet.kernels import letters, noise
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.noise import EXACT, _bits

__all__ = ["cone", "fire", "glauber"]

_TILE = random.TILE
_QUARTER = _TILE // 4
_FAR = 1e300


@njit(error_model="numpy", fastmath=EXACT)
def _tile(u, x, low, replica, step, stream, seed):  # type: ignore[no-untyped-def]
    """Uniforms of the tile of parameters that begins at ``low``, as many as in u."""
    word = np.uint64(stream) + np.uint64(256) * (np.uint64(step) >> np.uint64(32))
    now = np.uint64(step) & np.uint64(0xFFFFFFFF)
    m = (u.size + 3) // 4
    first = np.uint64(low // 4)
    _bits(x, m, first, np.uint64(replica), now, word, seed[0], seed[1])
    for lane in range(4):
        for w in range(min(m, u.size - lane * m)):
            u[lane * m + w] = (np.float64(x[lane, w]) + 0.5) * 2.0**-32


@njit(error_model="numpy", fastmath=EXACT)
def _uniforms(u, x, replica, step, stream, seed):  # type: ignore[no-untyped-def]
    for low in range(0, u.size, _TILE):
        high = min(low + _TILE, u.size)
        _tile(u[low:high], x, low, replica, step, stream, seed)


@njit(error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _room(m, inverse):  # type: ignore[no-untyped-def]
    """How far a coordinate may fall and rise before a margin is zero."""
    down, up = _FAR, _FAR
    for k in range(m.size):
        reach = m[k] * inverse[k]
        down = min(down, reach if inverse[k] > 0.0 else _FAR)
        up = min(up, -reach if inverse[k] < 0.0 else _FAR)
    return down, up


def _compile(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def fire(field, out, step, stream, seed):  # type: ignore[no-untyped-def]
        rows, size = field.shape
        tiles = (size + _TILE - 1) // _TILE
        for index in prange(rows * tiles):
            r, low = index // tiles, index % tiles * _TILE
            count = min(_TILE, size - low)
            x = np.empty((4, _QUARTER), np.uint32)
            u = np.empty(_TILE, np.float64)
            _tile(u[:count], x, low, r, step, stream, seed)
            for i in range(count):
                # u < 1/(1 + e^-f) without a division
                f = np.float64(field[r, low + i])
                out[r, low + i] = 1.0 if u[i] * (1.0 + math.exp(-f)) < 1.0 else 0.0
        return version

    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def glauber(spins, fields, couplings, beta, sweeps, step, stream, seed):  # type: ignore[no-untyped-def]
        rows, size = spins.shape
        flips = np.zeros(rows, np.int64)
        for r in prange(rows):
            x = np.empty((4, _QUARTER), np.uint32)
            u = np.empty(size, np.float64)
            s, h = spins[r], fields[r]
            for sweep in range(sweeps):
                if beta < np.inf:
                    _uniforms(u, x, r, step + sweep, stream, seed)
                for i in range(size):
                    new = s[i]
                    if beta < np.inf:
                        up = u[i] * (1.0 + math.exp(-2.0 * beta * h[i])) < 1.0
                        new = 1.0 if up else -1.0
                    elif h[i] != 0.0:
                        new = 1.0 if h[i] > 0.0 else -1.0
                    if new != s[i]:
                        s[i] = new
                        flips[r] += 1
                        row = couplings[i]
                        for j in range(size):
                            h[j] += 2.0 * new * row[j]
        return flips

    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def cone(w, margins, columns, inverses, sweeps, step, stream, seed):  # type: ignore[no-untyped-def]
        rows, size = w.shape
        for r in prange(rows):
            x = np.empty((4, _QUARTER), np.uint32)
            height, place = np.empty(size, np.float64), np.empty(size, np.float64)
            m = margins[r]
            for sweep in range(sweeps):
                _uniforms(height, x, r, step + sweep, stream, seed)
                _uniforms(place, x, r, step + sweep, stream + 1, seed)
                for i in range(size):
                    old, a = w[r, i], columns[i]
                    down, up = _room(m, inverses[i])
                    # A slice of the normal density at w_i, within the half spaces.
                    reach = math.sqrt(old * old - 2.0 * math.log(height[i]))
                    low, high = max(old - down, -reach), min(old + up, reach)
                    new = low + (high - low) * place[i]
                    shift = new - old
                    w[r, i] = new
                    for k in range(m.size):
                        m[k] += shift * a[k]
        return version

    return fire, glauber, cone


_fire, _glauber, _cone = _compile(fingerprint(letters, noise, random))

fire = _fire
"""fire(field, out, step, stream, seed)

Draw units of 0 and 1.

Parameters
----------
field : (R, n) float32 or float64
    Log odds of a 1.
out : (R, n) of the type of ``field``
    Written.
step, stream : int
    Which draw.
seed : (2,) uint64
    The two words of the key.
"""
glauber = _glauber
"""glauber(spins, fields, couplings, beta, sweeps, step, stream, seed)

Sequential heat bath of spins; returns the flips of every replica.

Parameters
----------
spins : (R, N) float64
    -1 and 1; changed in place.
fields : (R, N) float64
    ``spins @ couplings`` plus the outer field; kept up to date.
couplings : (N, N) float64
    Symmetric, zero diagonal.
beta : float
    Inverse temperature; infinite for sign(field), which leaves a spin without field.
sweeps, step, stream : int
    Number of sweeps, and the counters of the first of them.
seed : (2,) uint64
"""
cone = _cone
"""cone(w, margins, columns, inverses, sweeps, step, stream, seed)

Gibbs sweeps of a standard normal vector within half spaces through 0.

Parameters
----------
w : (R, N) float64
    Changed in place.
margins : (R, P) float64
    ``w @ columns``, all positive; kept up to date.
columns : (N, P) float64
    Normals of the half spaces, one coordinate after the other.
inverses : (N, P) float64
    ``1 / columns``, and 0 where those are 0.
sweeps, step, stream : int
    Two streams are used: ``stream`` and ``stream + 1``.
seed : (2,) uint64
"""
