"""The fused step on the CPU: one C function, vectorised, over blocks of parameters.

A program is a run of operations between two force evaluations (or, for potentials
whose force is a polynomial of one parameter, many whole steps).  Each block of at most
`TILE` parameters of one replica goes through the whole program while it lies in the
first-level cache, so that main memory sees every array once.  Workers draw blocks from
one list until none is left; which of them does what changes no bit.

Neighbouring letters share a loop where all masses are equal: force, kicks and drift
are one, bath and drift another, each with the kinetic energy summed on the way.  Every
operation rounds to the type of q and p, two adjacent kicks are never added up first,
and no sum crosses a block: splitting a run at a report changes no bit of q and p (the
ledger is summed in another order then, and may differ in its last bits).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types

from mdnet.kernels import letters, native, noise
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK, TILE
from mdnet.kernels.native import call, pointer, record, take
from mdnet.kernels.noise import EXACT

__all__ = ["TABLE", "advance"]

_FIELDS = """
    next worker _2 _3 _4 _5 _6 _7
    share step repeats schedule count replicas size tiles group_count masses
    q p f coefficients sums codes streams later inverse_mass polynomial edges groups
    words normals fill k0 k1
"""
TABLE = np.dtype([(name, np.int64) for name in _FIELDS.split()])
"""What the kernel needs: counters, sizes and addresses; see `advance`."""
_RECORD = from_dtype(TABLE)
# Bytes: counters stand first, in a cache line that nothing else is read from.
_NEXT, _WORKER = 0, 8

_SUMS = EXACT | {"reassoc"}

_inline = njit(error_model="numpy", fastmath=EXACT, inline="always")
_kick = _inline(letters.kick)
_drift = _inline(letters.drift)
_bath = _inline(letters.bath)
_force = _inline(letters.polynomial_force)


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


@_inline
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


@_inline
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


@_inline
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


@_inline
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


@_inline
def _kicks(p, f, b1, b2):  # type: ignore[no-untyped-def]
    b1, b2 = p.dtype.type(b1), p.dtype.type(b2)
    total = 0.0
    for j in range(p.size):
        g = p.dtype.type(f[j])
        v = _kick(_kick(p[j], g, b1), g, b2)
        total = _add_square(total, v)
        p[j] = v
    return total


@_inline
def _bath_drift(q, p, z, c, s, a):  # type: ignore[no-untyped-def]
    c, s, a = p.dtype.type(c), p.dtype.type(s), q.dtype.type(a)
    total = 0.0
    for j in range(p.size):
        v = _bath(p[j], z[j], c, s)
        total = _add_square(total, v)
        p[j] = v
        q[j] = _drift(q[j], v, a)
    return total


@_inline
def _one_bath(p, z, c, s):  # type: ignore[no-untyped-def]
    c, s = p.dtype.type(c), p.dtype.type(s)
    total = 0.0
    for j in range(p.size):
        v = _bath(p[j], z[j], c, s)
        total = _add_square(total, v)
        p[j] = v
    return total


@_inline
def _masses_bath(p, z, c, s, inverse_mass):  # type: ignore[no-untyped-def]
    c = p.dtype.type(c)
    for j in range(p.size):
        p[j] = _bath(p[j], z[j], c, p.dtype.type(s / np.sqrt(inverse_mass[j])))


@_inline
def _one_drift(q, p, a, inverse_mass):  # type: ignore[no-untyped-def]
    if inverse_mass.size == 1:
        a_all = q.dtype.type(a * inverse_mass[0])
        for j in range(p.size):
            q[j] = _drift(q[j], p[j], a_all)
    else:
        for j in range(p.size):
            q[j] = _drift(q[j], p[j], q.dtype.type(a * inverse_mass[j]))


@_inline
def _one_force(f, q, polynomial):  # type: ignore[no-untyped-def]
    f0, f1 = f.dtype.type(polynomial[0]), f.dtype.type(polynomial[1])
    f2, f3 = f.dtype.type(polynomial[2]), f.dtype.type(polynomial[3])
    for j in range(f.size):
        f[j] = _force(f.dtype.type(q[j]), f0, f1, f2, f3)


@_inline
def _coefficient(t, coefficients, done, r, group, which=0):  # type: ignore[no-untyped-def]
    """A coefficient of the operation with number ``done`` of all repeats."""
    row = done if t.schedule != 0 else done % t.count
    return coefficients[2 * ((row * t.replicas + r) * t.group_count + group) + which]


def _advance(real: Any, force: Any, version: int) -> Any:
    """Write the kernel; ``version`` is part of its key on disk."""
    size, force_size = real().itemsize, force().itemsize

    def advance(address):  # type: ignore[no-untyped-def]
        t = record(address, _RECORD)
        me = take(address + _WORKER)
        count, tiles = t.count, t.tiles
        codes = carray(pointer(t.codes, np.int64), (count,))
        streams = carray(pointer(t.streams, np.int64), (count,))
        later = carray(pointer(t.later, np.int64), (count,))
        numbers = 2 * count * t.replicas * t.group_count
        if t.schedule != 0:
            numbers *= t.repeats
        coefficients = carray(pointer(t.coefficients, np.float64), (numbers,))
        polynomial = carray(pointer(t.polynomial, np.float64), (4,))
        edges = carray(pointer(t.edges, np.int64), (tiles + 1,))
        groups = carray(pointer(t.groups, np.int64), (tiles,))
        sums = carray(pointer(t.sums, np.float64), (4, t.replicas, tiles))
        words = pointer(t.words + 4 * TILE * me, np.uint32)
        normals = t.normals + size * TILE * me
        equal = t.masses == 1
        linear = polynomial[2] == 0.0 and polynomial[3] == 0.0
        tasks = t.replicas * tiles
        while True:
            first = take(address + _NEXT) * t.share
            if first >= tasks:
                return version
            for task in range(first, min(first + t.share, tasks)):
                r = task // tiles
                tile = task - r * tiles
                low, high = edges[tile], edges[tile + 1]
                group = groups[tile]
                # Views of their own: an index with an offset is not vectorised.
                at, width = r * t.size + low, (high - low,)
                p = carray(pointer(t.p + size * at, real), width)
                masses = carray(
                    pointer(t.inverse_mass + (0 if equal else 8 * low), np.float64),
                    (1 if equal else high - low,),
                )
                if count == 0:
                    sums[0, r, tile] = _twice_kinetic(p, masses)
                    continue
                q = carray(pointer(t.q + size * at, real), width)
                f = carray(pointer(t.f + force_size * at, force), width)
                # Noise is that of the whole aligned tile, whatever part of it this is.
                aligned = low - low % TILE
                counters = (min(t.size - aligned, TILE) + 3) // 4
                z = carray(pointer(normals + size * (low - aligned), real), width)
                m = masses[0]
                twice = sums[0, r, tile]
                after = sums[1, r, tile]
                heat = sums[2, r, tile]
                work = sums[3, r, tile]
                # Letters are joined across the end of a repeat too.
                total = t.repeats * count
                done = np.int64(0)
                while done < total:
                    i = done % count
                    now = t.step + done // count
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
                        b1 = _coefficient(t, coefficients, done, r, group)
                        b2 = 0.0
                        done += 1
                        if done < total and codes[done % count] == KICK:
                            b2 = _coefficient(t, coefficients, done, r, group)
                            done += 1
                        if equal and done < total and codes[done % count] == DRIFT:
                            a = m * _coefficient(t, coefficients, done, r, group)
                            done += 1
                            if fresh and linear:
                                twice = _linear_kicks_drift(
                                    q, p, f, polynomial, b1, b2, a
                                )
                            elif fresh:
                                twice = _force_kicks_drift(
                                    q, p, f, polynomial, b1, b2, a
                                )
                            else:
                                twice = _kicks_drift(q, p, f, b1, b2, a)
                        elif fresh:
                            twice = _force_kicks(q, p, f, polynomial, b1, b2)
                        else:
                            twice = _kicks(p, f, b1, b2)
                        twice = twice * m if equal else _twice_kinetic(p, masses)
                        work += 0.5 * (twice - before)
                        continue
                    c = _coefficient(t, coefficients, done, r, group)
                    if code == BATH:
                        s = _coefficient(t, coefficients, done, r, group, 1)
                        done += 1
                        if (
                            c == 1.0 and s == 0.0
                        ):  # at rest: no heat, not by rounding either
                            after = twice
                            continue
                        if s != 0.0:
                            call(
                                t.fill,
                                (
                                    pointer(normals, real),
                                    words,
                                    aligned // 4,
                                    counters,
                                    r,
                                    now + later[i],
                                    streams[i],
                                    t.k0,
                                    t.k1,
                                ),
                                np.int64,
                            )
                        if not equal:
                            _masses_bath(p, z, c, s, masses)
                            twice = _twice_kinetic(p, masses)
                        elif done < total and codes[done % count] == DRIFT:
                            a = m * _coefficient(t, coefficients, done, r, group)
                            done += 1
                            twice = m * _bath_drift(q, p, z, c, s / np.sqrt(m), a)
                        else:
                            twice = m * _one_bath(p, z, c, s / np.sqrt(m))
                        heat += 0.5 * (twice - before)
                        after = twice
                        continue
                    done += 1
                    if code == DRIFT:
                        _one_drift(q, p, c, masses)
                    elif code == FORCE:
                        _one_force(f, q, polynomial)
                sums[0, r, tile] = twice
                sums[1, r, tile] = after
                sums[2, r, tile] = heat
                sums[3, r, tile] = work

    return advance


@cache
def advance(real: Any, force: Any) -> Any:
    """Compile the C function ``int64 (table)`` for types of state and force.

    It runs a program ``repeats`` times over every block of every replica; an empty
    program measures twice the kinetic energy instead.  Each worker calls it once with
    the address of the same `TABLE`, whose counters ``next`` and ``worker`` start at
    zero, and takes ``share`` blocks at a time.  Arrays of the table, all contiguous:

    ==========================  ======================================================
    q, p, f (R, D)              positions, momenta, forces; changed in place
    inverse_mass (masses,)      float64; masses is 1 or D
    codes, streams, later       (count,) int64: operations, noise stream of each, and
                                whether it belongs to the next step (1) or this one (0)
    coefficients                (S, count, R, G, 2) float64; S is ``repeats`` where
                                ``schedule`` is not 0, else 1
    polynomial (4,)             float64, of `letters.polynomial_force`
    sums (4, R, tiles)          float64, per block: twice the kinetic energy now, the
                                same after the last bath, heat and kick work so far;
                                the first alone where the program is empty
    edges (tiles + 1,)          int64: where blocks begin; none crosses a multiple of
                                ``TILE``
    groups (tiles,)             int64: which of the G coefficients a block uses
    words (workers, TILE)       uint32, scratch
    normals (workers, TILE)     of the type of p, scratch
    ==========================  ======================================================

    ``fill`` is the address of `noise.filler`, ``step`` the number of steps done before
    the first repeat, ``k0`` and ``k1`` are the words of the seed.
    """
    source = _advance(real.type, force.type, fingerprint(letters, native, noise))
    form = types.int64(types.int64)
    return cfunc(form, cache=True, error_model="numpy", fastmath=EXACT)(source)
