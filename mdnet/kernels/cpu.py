"""The fused step on the CPU: Numba, parallel over blocks, vectorised inside them.

A program is a run of operations between two force evaluations (or, for potentials
whose force is a polynomial of one parameter, many whole steps).  Each block of at most
`TILE` parameters of one replica goes through the whole program while it lies in the
first-level cache, so that main memory sees every array once.

Neighbouring letters share a loop where all masses are equal: force, kicks and drift
are one, bath and drift another, each with the kinetic energy summed on the way.  Every
operation rounds to the type of q and p, two adjacent kicks are never added up first,
and no sum crosses a block: splitting a run at a report changes no bit of q and p (the
ledger is summed in another order then, and may differ in its last bits).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_thread_id, njit, prange

from mdnet import random
from mdnet.kernels import letters, noise
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK, TILE
from mdnet.kernels.noise import EXACT, fill

__all__ = ["advance", "kinetic"]

_SUMS = EXACT | {"reassoc"}

_kick = njit(error_model="numpy", fastmath=EXACT)(letters.kick)
_drift = njit(error_model="numpy", fastmath=EXACT)(letters.drift)
_bath = njit(error_model="numpy", fastmath=EXACT)(letters.bath)
_force = njit(error_model="numpy", fastmath=EXACT)(letters.polynomial_force)


@njit(error_model="numpy", fastmath=_SUMS, forceinline=True)
def _add_square(total, p):  # type: ignore[no-untyped-def]
    # Only the sum may be reordered; the loops it is inlined in keep their arithmetic.
    x = np.float64(p)
    return total + x * x


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


@njit(error_model="numpy", fastmath=EXACT)
def _force_kicks_drift(q, p, f, polynomial, b1, b2, a):  # type: ignore[no-untyped-def]
    f0, f1 = f.dtype.type(polynomial[0]), f.dtype.type(polynomial[1])
    f2, f3 = f.dtype.type(polynomial[2]), f.dtype.type(polynomial[3])
    b1, b2, a = p.dtype.type(b1), p.dtype.type(b2), q.dtype.type(a)
    total = 0.0
    for j in range(p.size):
        g = _force(f.dtype.type(q[j]), f0, f1, f2, f3)
        v = _kick(_kick(p[j], p.dtype.type(g), b1), p.dtype.type(g), b2)
        total = _add_square(total, v)
        f[j] = g
        p[j] = v
        q[j] = _drift(q[j], v, a)
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _linear_kicks_drift(q, p, f, polynomial, b1, b2, a):  # type: ignore[no-untyped-def]
    f0, f1 = f.dtype.type(polynomial[0]), f.dtype.type(polynomial[1])
    b1, b2, a = p.dtype.type(b1), p.dtype.type(b2), q.dtype.type(a)
    total = 0.0
    for j in range(p.size):
        g = -(f0 + f.dtype.type(q[j]) * f1)
        v = _kick(_kick(p[j], p.dtype.type(g), b1), p.dtype.type(g), b2)
        total = _add_square(total, v)
        f[j] = g
        p[j] = v
        q[j] = _drift(q[j], v, a)
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _force_kicks(q, p, f, polynomial, b1, b2):  # type: ignore[no-untyped-def]
    f0, f1 = f.dtype.type(polynomial[0]), f.dtype.type(polynomial[1])
    f2, f3 = f.dtype.type(polynomial[2]), f.dtype.type(polynomial[3])
    b1, b2 = p.dtype.type(b1), p.dtype.type(b2)
    total = 0.0
    for j in range(p.size):
        g = _force(f.dtype.type(q[j]), f0, f1, f2, f3)
        v = _kick(_kick(p[j], p.dtype.type(g), b1), p.dtype.type(g), b2)
        total = _add_square(total, v)
        f[j] = g
        p[j] = v
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _kicks_drift(q, p, f, b1, b2, a):  # type: ignore[no-untyped-def]
    b1, b2, a = p.dtype.type(b1), p.dtype.type(b2), q.dtype.type(a)
    total = 0.0
    for j in range(p.size):
        g = p.dtype.type(f[j])
        v = _kick(_kick(p[j], g, b1), g, b2)
        total = _add_square(total, v)
        p[j] = v
        q[j] = _drift(q[j], v, a)
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _kicks(p, f, b1, b2):  # type: ignore[no-untyped-def]
    b1, b2 = p.dtype.type(b1), p.dtype.type(b2)
    total = 0.0
    for j in range(p.size):
        g = p.dtype.type(f[j])
        v = _kick(_kick(p[j], g, b1), g, b2)
        total = _add_square(total, v)
        p[j] = v
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _bath_drift(q, p, z, c, s, a):  # type: ignore[no-untyped-def]
    c, s, a = p.dtype.type(c), p.dtype.type(s), q.dtype.type(a)
    total = 0.0
    for j in range(p.size):
        v = _bath(p[j], z[j], c, s)
        total = _add_square(total, v)
        p[j] = v
        q[j] = _drift(q[j], v, a)
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _one_bath(p, z, c, s):  # type: ignore[no-untyped-def]
    c, s = p.dtype.type(c), p.dtype.type(s)
    total = 0.0
    for j in range(p.size):
        v = _bath(p[j], z[j], c, s)
        total = _add_square(total, v)
        p[j] = v
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _masses_bath(p, z, c, s, inverse_mass):  # type: ignore[no-untyped-def]
    c = p.dtype.type(c)
    for j in range(p.size):
        p[j] = _bath(p[j], z[j], c, p.dtype.type(s / np.sqrt(inverse_mass[j])))


@njit(error_model="numpy", fastmath=EXACT)
def _one_drift(q, p, a, inverse_mass):  # type: ignore[no-untyped-def]
    if inverse_mass.size == 1:
        a_all = q.dtype.type(a * inverse_mass[0])
        for j in range(p.size):
            q[j] = _drift(q[j], p[j], a_all)
    else:
        for j in range(p.size):
            q[j] = _drift(q[j], p[j], q.dtype.type(a * inverse_mass[j]))


@njit(error_model="numpy", fastmath=EXACT)
def _one_force(f, q, polynomial):  # type: ignore[no-untyped-def]
    f0, f1 = f.dtype.type(polynomial[0]), f.dtype.type(polynomial[1])
    f2, f3 = f.dtype.type(polynomial[2]), f.dtype.type(polynomial[3])
    for j in range(f.size):
        f[j] = _force(f.dtype.type(q[j]), f0, f1, f2, f3)


@njit(error_model="numpy", inline="always")
def _coefficient(coefficients, done, count, r, group):  # type: ignore[no-untyped-def]
    """First coefficient of the operation with number ``done`` of all repeats."""
    row = done // count if coefficients.shape[0] > 1 else 0
    return coefficients[row, done % count, r, group, 0]


def _compile(version: int) -> Any:
    """Compile `advance`, whose cache entry is tied to the sources it calls."""

    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
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
        edges,
        groups,
        seed,
        step,
        repeats,
        words,
        normals,
    ):
        tiles = groups.size
        for task in prange(q.shape[0] * tiles):
            r = task // tiles
            tile = task - r * tiles
            low = edges[tile]
            high = edges[tile + 1]
            group = groups[tile]
            me = get_thread_id()
            x = words[me]
            z = normals[me]
            # Slices, not offsets: an index that could be negative is not vectorised.
            q_r = q[r, low:high]
            p_r = p[r, low:high]
            f_r = f[r, low:high]
            # Noise is that of the whole aligned tile, whatever part of it this is.
            aligned = low - low % TILE
            counters = (min(q.shape[1] - aligned, TILE) + 3) // 4
            z_r = z[low - aligned : high - aligned]
            equal = inverse_mass.size == 1
            m_r = inverse_mass if equal else inverse_mass[low:high]
            m = inverse_mass[0]
            linear = polynomial[2] == 0.0 and polynomial[3] == 0.0
            twice = sums[0, r, tile]
            after = sums[1, r, tile]
            heat = sums[2, r, tile]
            work = sums[3, r, tile]
            # Letters are joined across the end of a repeat too.
            count = codes.size
            total = repeats * count
            done = 0
            while done < total:
                i = done % count
                now = step + done // count
                code = codes[i]
                before = twice
                if code == KICK or (
                    code == FORCE
                    and done + 1 < total
                    and codes[(i + 1) % count] == KICK
                ):
                    fresh = code == FORCE
                    if fresh:
                        done += 1
                    b1 = _coefficient(coefficients, done, count, r, group)
                    b2 = 0.0
                    done += 1
                    if done < total and codes[done % count] == KICK:
                        b2 = _coefficient(coefficients, done, count, r, group)
                        done += 1
                    if equal and done < total and codes[done % count] == DRIFT:
                        a = m * _coefficient(coefficients, done, count, r, group)
                        done += 1
                        if fresh and linear:
                            twice = _linear_kicks_drift(
                                q_r, p_r, f_r, polynomial, b1, b2, a
                            )
                        elif fresh:
                            twice = _force_kicks_drift(
                                q_r, p_r, f_r, polynomial, b1, b2, a
                            )
                        else:
                            twice = _kicks_drift(q_r, p_r, f_r, b1, b2, a)
                    elif fresh:
                        twice = _force_kicks(q_r, p_r, f_r, polynomial, b1, b2)
                    else:
                        twice = _kicks(p_r, f_r, b1, b2)
                    twice = twice * m if equal else _twice_kinetic(p_r, m_r)
                    work += 0.5 * (twice - before)
                    continue
                c = _coefficient(coefficients, done, count, r, group)
                done += 1
                if code == BATH:
                    row = (done - 1) // count if coefficients.shape[0] > 1 else 0
                    s = coefficients[row, i, r, group, 1]
                    if s != 0.0:
                        drawn = np.uint64(now + later[i])
                        fill(z, x, aligned // 4, counters, r, drawn, streams[i], seed)
                    if not equal:
                        _masses_bath(p_r, z_r, c, s, m_r)
                        twice = _twice_kinetic(p_r, m_r)
                    elif done < total and codes[done % count] == DRIFT:
                        a = m * _coefficient(coefficients, done, count, r, group)
                        done += 1
                        twice = m * _bath_drift(q_r, p_r, z_r, c, s / np.sqrt(m), a)
                    else:
                        twice = m * _one_bath(p_r, z_r, c, s / np.sqrt(m))
                    heat += 0.5 * (twice - before)
                    after = twice
                elif code == DRIFT:
                    _one_drift(q_r, p_r, c, m_r)
                elif code == FORCE:
                    _one_force(f_r, q_r, polynomial)
            sums[0, r, tile] = twice
            sums[1, r, tile] = after
            sums[2, r, tile] = heat
            sums[3, r, tile] = work
        return version

    return advance


advance = _compile(fingerprint(letters, noise, random))
"""advance(q, p, f, inverse_mass, codes, streams, later, coefficients, polynomial,
sums, edges, groups, seed, step, repeats, words, normals)

Run a program ``repeats`` times over every block of every replica.

Parameters
----------
q, p, f : (R, D) arrays
    Positions, momenta, forces; changed in place.
inverse_mass : (1,) or (D,) float64
codes, streams, later : (n,) int64
    Operation codes, noise stream of each, and whether an operation belongs to
    the next step (1) or this one (0).
coefficients : (S, n, R, G, 2) float64
    S is ``repeats`` for scheduled coefficients, else 1; G groups of parameters.
polynomial : (4,) float64
    Coefficients of `letters.polynomial_force`, for ``FORCE`` operations.
sums : (4, R, tiles) float64
    Per block: twice the kinetic energy now, the same after the last bath,
    heat and kick work so far.
edges : (tiles + 1,) int64
    Where each block begins; none crosses a multiple of ``TILE``.
groups : (tiles,) int64
    Which coefficients a block uses.
seed : (2,) uint64
step : int
    Steps done before the first repeat.
repeats : int
words : (threads, 4, TILE // 4) uint32
normals : (threads, TILE) of the type of p
    Scratch of each thread.
"""


@njit(parallel=True, cache=True, error_model="numpy")
def kinetic(p, inverse_mass, edges, out):  # type: ignore[no-untyped-def]
    """Twice the kinetic energy of each block: out (R, tiles) float64."""
    tiles = edges.size - 1
    for task in prange(p.shape[0] * tiles):
        r = task // tiles
        tile = task - r * tiles
        low, high = edges[tile], edges[tile + 1]
        m_r = inverse_mass if inverse_mass.size == 1 else inverse_mass[low:high]
        out[r, tile] = _twice_kinetic(p[r, low:high], m_r)
