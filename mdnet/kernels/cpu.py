"""The fused step on the CPU: Numba, parallel over blocks, vectorised inside them.

A program is a run of operations between two force evaluations (or, for potentials
whose force is a polynomial of one parameter, many whole steps).  Each block of
`TILE` parameters of one replica goes through the whole program while it lies in the
first-level cache, so that main memory sees every array once.

Every operation rounds to the type of q and p, two adjacent kicks are never added up
first, and no sum crosses a block: splitting a run at a report changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_thread_id, njit, prange, types
from numba.extending import overload

from mdnet.kernels import letters
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK, TILE

__all__ = ["advance", "kinetic"]

# Contraction to FMA is welcome; reassociation would make B B differ from 2 B.
_EXACT = {"contract", "nsz", "arcp"}
_SUMS = {"contract", "nsz", "arcp", "reassoc"}

_kick = njit(error_model="numpy", fastmath=_EXACT)(letters.kick)
_drift = njit(error_model="numpy", fastmath=_EXACT)(letters.drift)
_bath = njit(error_model="numpy", fastmath=_EXACT)(letters.bath)
_force = njit(error_model="numpy", fastmath=_EXACT)(letters.polynomial_force)


def _compile_noise() -> Any:
    """Philox and Box-Muller, each function seeing the compiled others."""
    compiled: dict[str, Any] = {}
    for name in (
        "philox_round",
        "philox",
        "int_of_float32",
        "float_of_int32",
        "int_of_float64",
        "float_of_int64",
        "radius32",
        "rotation32",
        "radius64",
        "rotation64",
    ):
        source = getattr(letters, name)
        scope = {**source.__globals__, **compiled}
        copy = type(source)(source.__code__, scope, name)
        compiled[name] = njit(error_model="numpy", fastmath=_EXACT, forceinline=True)(
            copy
        )
    return compiled


_noise = _compile_noise()
_philox = _noise["philox"]
_radius32, _rotation32 = _noise["radius32"], _noise["rotation32"]
_radius64, _rotation64 = _noise["radius64"], _noise["rotation64"]


@njit(error_model="numpy", fastmath=_EXACT)
def _bits(x, blocks, first, replica, step, word, k0, k1):  # type: ignore[no-untyped-def]
    for i in range(blocks):
        a, b, c, d = _philox(first + np.uint64(i), replica, step, word, k0, k1)
        x[4 * i] = a
        x[4 * i + 1] = b
        x[4 * i + 2] = c
        x[4 * i + 3] = d


def _normals(z, x, blocks):  # type: ignore[no-untyped-def]
    """Turn 4 * blocks words into as many normals."""


@overload(_normals)
def _overload_normals(z, x, blocks):  # type: ignore[no-untyped-def]
    if z.dtype is types.float32:

        def single(z, x, blocks):  # type: ignore[no-untyped-def]
            for i in range(blocks):
                r = _radius32(x[4 * i])
                c, s = _rotation32(x[4 * i + 1])
                z[4 * i] = r * c
                z[4 * i + 1] = r * s
                r = _radius32(x[4 * i + 2])
                c, s = _rotation32(x[4 * i + 3])
                z[4 * i + 2] = r * c
                z[4 * i + 3] = r * s

        return single

    def double(z, x, blocks):  # type: ignore[no-untyped-def]
        for i in range(blocks):
            r = _radius64(x[4 * i])
            c, s = _rotation64(x[4 * i + 1])
            z[4 * i] = r * c
            z[4 * i + 1] = r * s
            r = _radius64(x[4 * i + 2])
            c, s = _rotation64(x[4 * i + 3])
            z[4 * i + 2] = r * c
            z[4 * i + 3] = r * s

    return double


@njit(error_model="numpy", fastmath=_EXACT)
def _fill(z, x, low, high, replica, step, stream, seed):  # type: ignore[no-untyped-def]
    blocks = (high - low + 3) // 4
    word = np.uint64(stream) + np.uint64(256) * (step >> np.uint64(32))
    step = step & np.uint64(0xFFFFFFFF)
    first = np.uint64(low // 4)
    _bits(x, blocks, first, np.uint64(replica), step, word, seed[0], seed[1])
    _normals(z, x, blocks)


@njit(error_model="numpy", fastmath=_SUMS)
def _twice_kinetic(p, inverse_mass):  # type: ignore[no-untyped-def]
    total = 0.0
    if inverse_mass.size == 1:
        for j in range(p.size):
            x = np.float64(p[j])
            total += x * x
        return total * inverse_mass[0]
    for j in range(p.size):
        x = np.float64(p[j])
        total += x * x * inverse_mass[j]
    return total


@njit(error_model="numpy", fastmath=_EXACT)
def _apply_kick(p, f, b):  # type: ignore[no-untyped-def]
    b = p.dtype.type(b)
    for j in range(p.size):
        p[j] = _kick(p[j], p.dtype.type(f[j]), b)


@njit(error_model="numpy", fastmath=_EXACT)
def _apply_drift(q, p, a, inverse_mass):  # type: ignore[no-untyped-def]
    if inverse_mass.size == 1:
        a_all = q.dtype.type(a * inverse_mass[0])
        for j in range(p.size):
            q[j] = _drift(q[j], p[j], a_all)
    else:
        for j in range(p.size):
            q[j] = _drift(q[j], p[j], q.dtype.type(a * inverse_mass[j]))


@njit(error_model="numpy", fastmath=_EXACT)
def _apply_bath(p, z, c, s, inverse_mass):  # type: ignore[no-untyped-def]
    c = p.dtype.type(c)
    if inverse_mass.size == 1:
        s_all = p.dtype.type(s / np.sqrt(inverse_mass[0]))
        for j in range(p.size):
            p[j] = _bath(p[j], z[j], c, s_all)
    else:
        for j in range(p.size):
            s_j = p.dtype.type(s / np.sqrt(inverse_mass[j]))
            p[j] = _bath(p[j], z[j], c, s_j)


@njit(error_model="numpy", fastmath=_EXACT)
def _apply_force(f, q, polynomial):  # type: ignore[no-untyped-def]
    a = f.dtype.type(polynomial[0])
    b = f.dtype.type(polynomial[1])
    c = f.dtype.type(polynomial[2])
    d = f.dtype.type(polynomial[3])
    for j in range(f.size):
        f[j] = _force(f.dtype.type(q[j]), a, b, c, d)


def _compile(version: int) -> Any:
    """Compile `advance`, whose cache entry is tied to the sources it calls."""

    @njit(parallel=True, cache=True, error_model="numpy", fastmath=_EXACT)
    def advance(  # type: ignore[no-untyped-def]
        q,
        p,
        f,
        inverse_mass,
        codes,
        streams,
        later,
        coefficients,
        polynomial,
        sums,
        seed,
        step,
        repeats,
        words,
        noise,
    ):
        replicas, size = q.shape
        tiles = (size + TILE - 1) // TILE
        for task in prange(replicas * tiles):
            r = task // tiles
            tile = task - r * tiles
            low = tile * TILE
            high = min(size, low + TILE)
            me = get_thread_id()
            x = words[me]
            z = noise[me]
            # Slices, not offsets: an index that could be negative is not vectorised.
            q_r = q[r, low:high]
            p_r = p[r, low:high]
            f_r = f[r, low:high]
            m_r = inverse_mass if inverse_mass.size == 1 else inverse_mass[low:high]
            twice = sums[0, r, tile]
            after = sums[1, r, tile]
            heat = sums[2, r, tile]
            work = sums[3, r, tile]
            for repeat in range(repeats):
                row = repeat if coefficients.shape[0] > 1 else 0
                for i in range(codes.size):
                    code = codes[i]
                    c0 = coefficients[row, i, r, 0]
                    c1 = coefficients[row, i, r, 1]
                    if code == KICK:
                        _apply_kick(p_r, f_r, c0)
                        before = twice
                        twice = _twice_kinetic(p_r, m_r)
                        work += 0.5 * (twice - before)
                    elif code == DRIFT:
                        _apply_drift(q_r, p_r, c0, m_r)
                    elif code == BATH:
                        if c1 != 0.0:
                            now = np.uint64(step + repeat + later[i])
                            _fill(z, x, low, high, r, now, streams[i], seed)
                        _apply_bath(p_r, z, c0, c1, m_r)
                        before = twice
                        twice = _twice_kinetic(p_r, m_r)
                        heat += 0.5 * (twice - before)
                        after = twice
                    elif code == FORCE:
                        _apply_force(f_r, q_r, polynomial)
            sums[0, r, tile] = twice
            sums[1, r, tile] = after
            sums[2, r, tile] = heat
            sums[3, r, tile] = work
        return version

    return advance


advance = _compile(fingerprint(letters))
"""advance(q, p, f, inverse_mass, codes, streams, later, coefficients, polynomial,
sums, seed, step, repeats, words, noise)

Run a program ``repeats`` times over every block of every replica.

Parameters
----------
q, p, f : (R, D) arrays
    Positions, momenta, forces; changed in place.
inverse_mass : (1,) or (D,) float64
codes, streams, later : (n,) int64
    Operation codes, noise stream of each, and whether an operation belongs to
    the next step (1) or this one (0).
coefficients : (S, n, R, 2) float64
    S is ``repeats`` for scheduled coefficients, else 1.
polynomial : (4,) float64
    Coefficients of `letters.polynomial_force`, for ``FORCE`` operations.
sums : (4, R, tiles) float64
    Per block: twice the kinetic energy now, the same after the last bath,
    heat and kick work so far.
seed : (2,) uint64
step : int
    Steps done before the first repeat.
repeats : int
words, noise : (threads, TILE)
    Scratch of each thread: uint32 and the type of p.
"""


@njit(parallel=True, cache=True, error_model="numpy")
def kinetic(p, inverse_mass, out):  # type: ignore[no-untyped-def]
    """Twice the kinetic energy of each block: out (R, tiles) float64."""
    replicas, size = p.shape
    tiles = (size + TILE - 1) // TILE
    for task in prange(replicas * tiles):
        r = task // tiles
        low = (task - r * tiles) * TILE
        high = min(size, low + TILE)
        m_r = inverse_mass if inverse_mass.size == 1 else inverse_mass[low:high]
        out[r, task - r * tiles] = _twice_kinetic(p[r, low:high], m_r)
