"""The fused step on CUDA: the scalar source of `mdnet.kernels.letters`, one kernel.

A thread keeps four parameters of one replica, the four that share a Philox counter,
in registers through a whole program; a block of threads is one block of at most
`TILE` parameters.  A counter's four parameters lie a quarter of a tile apart (see
`mdnet.random`), so that a warp reads and writes 32 neighbours at a time; sums are
reduced in shared memory in a fixed order.  The kernels act on CuPy arrays, and under
Numba's simulator on NumPy arrays.

The number of the step is ``clock[0] + step``: a captured graph carries ``step`` as it
was when it was captured, and the clock, in device memory, moves on.
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda, float32, float64

from mdnet.kernels import letters
from mdnet.kernels.cuda_build import SIMULATED, bind, device, to_ptx
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK, TILE

__all__ = ["THREADS", "advance", "kernel", "kinetic", "ptx", "set_clock", "tick"]

THREADS = TILE // 4
"""Threads a block: one for each counter of a block of parameters."""


def int_of_float32(x: Any) -> Any:
    """Bits of a float32 as int32."""
    return cuda.libdevice.float_as_int(x)


def float_of_int32(x: Any) -> Any:
    """Float32 of the bits of an int32."""
    return cuda.libdevice.int_as_float(x)


def int_of_float64(x: Any) -> Any:
    """Bits of a float64 as int64."""
    return cuda.libdevice.double_as_longlong(x)


def float_of_int64(x: Any) -> Any:
    """Float64 of the bits of an int64."""
    return cuda.libdevice.longlong_as_double(x)


def philox_round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """`letters.philox_round`, telling the compiler that words have 32 bits.

    The products are then one instruction each, 32 x 32 -> 64 bits.
    """
    p0 = np.uint64(M0) * np.uint64(np.uint32(c0))
    p1 = np.uint64(M1) * np.uint64(np.uint32(c2))
    return (
        np.uint64(np.uint32(p1 >> SHIFT) ^ np.uint32(c1) ^ np.uint32(k0)),
        np.uint64(np.uint32(p1 & MASK)),
        np.uint64(np.uint32(p0 >> SHIFT) ^ np.uint32(c3) ^ np.uint32(k1)),
        np.uint64(np.uint32(p0 & MASK)),
    )


M0, M1 = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57)
MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_CASTS = (int_of_float32, float_of_int32, int_of_float64, float_of_int64)
_LETTERS = (
    "kick",
    "drift",
    "bath",
    "polynomial_force",
    "philox",
    "radius32",
    "rotation32",
    "radius64",
    "rotation64",
)
EQUAL = True  # bound to whether all masses are equal
REAL: Any = float32  # bound to the type of q and p when a kernel is built
FREAL: Any = np.float32  # the same, as NumPy's scalar type
PREAL: Any = np.float32  # bound to the type of the forces
radius: Any = letters.radius32
rotation: Any = letters.rotation32
kick, drift, bath = letters.kick, letters.drift, letters.bath
polynomial_force, philox = letters.polynomial_force, letters.philox


def reduce_four(shared: Any, lane: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Sum four numbers over a block into ``shared[:, 0]``, always in the same order."""
    shared[0, lane] = a
    shared[1, lane] = b
    shared[2, lane] = c
    shared[3, lane] = d
    cuda.syncthreads()
    width = cuda.blockDim.x // 2
    while width > 0:
        if lane < width:
            for k in range(4):
                shared[k, lane] += shared[k, lane + width]
        cuda.syncthreads()
        width //= 2


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
    clock,
    step,
    repeats,
):
    """Kernel with the arguments of `mdnet.kernels.cpu.advance`, less the scratch.

    ``clock`` (1,) int64 is added to ``step``.
    """
    shared = cuda.shared.array((4, THREADS), float64)
    root = cuda.shared.array(1, float64)
    lane = cuda.threadIdx.x
    tiles = groups.shape[0]
    r = cuda.blockIdx.x // tiles
    tile = cuda.blockIdx.x % tiles
    group = groups[tile]
    start = edges[tile]
    stop = edges[tile + 1]
    # A counter's four parameters lie a quarter of the aligned tile apart, so that
    # neighbouring threads own neighbours.
    base = start - start % TILE
    quarter = (min(q.shape[1] - base, TILE) + 3) // 4
    low = base + lane
    if lane == 0:
        root[0] = 1.0 / math.sqrt(inverse_mass[0])
    cuda.syncthreads()
    x = cuda.local.array(4, REAL)
    v = cuda.local.array(4, REAL)
    g = cuda.local.array(4, REAL)
    z = cuda.local.array(4, REAL)
    m = cuda.local.array(4, float64)
    s = cuda.local.array(4, float64)
    twice = 0.0
    for k in range(4):
        x[k] = FREAL(0)
        v[k] = FREAL(0)
        g[k] = FREAL(0)
        m[k] = inverse_mass[0]
        s[k] = root[0]
        at = low + k * quarter
        if lane < quarter and start <= at < stop:
            x[k] = q[r, at]
            v[k] = p[r, at]
            g[k] = FREAL(f[r, at])
            if not EQUAL:
                m[k] = inverse_mass[at]
                s[k] = 1.0 / math.sqrt(m[k])
            twice += m[k] * (float(v[k]) * float(v[k]))
    heat = 0.0
    work = 0.0
    after = 0.0
    noisy = False
    forced = False
    begin = clock[0] + step
    for repeat in range(repeats):
        row = repeat if coefficients.shape[0] > 1 else 0
        for i in range(codes.shape[0]):
            code = codes[i]
            c0 = coefficients[row, i, r, group, 0]
            c1 = coefficients[row, i, r, group, 1]
            if code == DRIFT:
                for k in range(4):
                    x[k] = drift(x[k], v[k], FREAL(c0 * m[k]))
            elif code == FORCE:
                forced = True
                for k in range(4):
                    g[k] = FREAL(
                        polynomial_force(
                            PREAL(x[k]),
                            PREAL(polynomial[0]),
                            PREAL(polynomial[1]),
                            PREAL(polynomial[2]),
                            PREAL(polynomial[3]),
                        )
                    )
            else:
                if code == KICK:
                    for k in range(4):
                        v[k] = kick(v[k], g[k], FREAL(c0))
                elif code == BATH:
                    if c1 != 0.0:
                        now = np.uint64(begin + repeat + later[i])
                        a, b, c, d = philox(
                            np.uint64(base // 4 + lane),
                            np.uint64(r),
                            now & MASK,
                            np.uint64(streams[i]) + np.uint64(256) * (now >> SHIFT),
                            seed[0],
                            seed[1],
                        )
                        length = radius(a)
                        cosine, sine = rotation(b)
                        z[0] = length * cosine
                        z[1] = length * sine
                        length = radius(c)
                        cosine, sine = rotation(d)
                        z[2] = length * cosine
                        z[3] = length * sine
                    else:
                        for k in range(4):
                            z[k] = FREAL(0)
                    for k in range(4):
                        v[k] = bath(v[k], z[k], FREAL(c0), FREAL(c1 * s[k]))
                before = twice
                twice = 0.0
                for k in range(4):
                    if lane < quarter and start <= low + k * quarter < stop:
                        twice += m[k] * (float(v[k]) * float(v[k]))
                if code == KICK:
                    work += 0.5 * (twice - before)
                else:
                    heat += 0.5 * (twice - before)
                    after = twice
                    noisy = True
    reduce_four(shared, lane, twice, after, heat, work)
    for k in range(4):
        at = low + k * quarter
        if lane < quarter and start <= at < stop:
            q[r, at] = x[k]
            p[r, at] = v[k]
            if forced:
                f[r, at] = g[k]
    if lane == 0:
        sums[0, r, tile] = shared[0, 0]
        if noisy:
            sums[1, r, tile] = shared[1, 0]
        sums[2, r, tile] += shared[2, 0]
        sums[3, r, tile] += shared[3, 0]


def kinetic(p, inverse_mass, edges, out):  # type: ignore[no-untyped-def]
    """Kernel: twice the kinetic energy of each block, out (R, tiles) float64."""
    shared = cuda.shared.array((4, THREADS), float64)
    lane = cuda.threadIdx.x
    tiles = out.shape[1]
    r = cuda.blockIdx.x // tiles
    tile = cuda.blockIdx.x % tiles
    total = 0.0
    for k in range(4):
        j = edges[tile] + lane + k * cuda.blockDim.x
        if j < edges[tile + 1]:
            m = inverse_mass[0] if EQUAL else inverse_mass[j]
            total += m * (float(p[r, j]) * float(p[r, j]))
    reduce_four(shared, lane, total, 0.0, 0.0, 0.0)
    if lane == 0:
        out[r, tile] = shared[0, 0]


def set_clock(clock, step):  # type: ignore[no-untyped-def]
    """Kernel of one thread: ``clock[0] = step``."""
    clock[0] = step


def tick(clock, steps):  # type: ignore[no-untyped-def]
    """Kernel of one thread: ``clock[0] += steps``."""
    clock[0] += steps


@cache
def _bound(single: bool, single_force: bool, equal: bool) -> SimpleNamespace:
    """The kernels' Python functions with every name bound for one precision."""
    scope: dict[str, Any] = {}
    # The simulator has no libdevice; there the NumPy views serve.
    device([getattr(letters, s.__name__) if SIMULATED else s for s in _CASTS], scope)
    device([letters.philox_round if SIMULATED else philox_round], scope)
    device([getattr(letters, name) for name in _LETTERS], scope)
    device([reduce_four], scope)
    scope["EQUAL"] = equal
    scope["REAL"] = float32 if single else float64
    scope["FREAL"] = np.float32 if single else np.float64
    scope["PREAL"] = np.float32 if single_force else np.float64
    scope["radius"] = scope["radius32" if single else "radius64"]
    scope["rotation"] = scope["rotation32" if single else "rotation64"]
    kernels = (advance, kinetic, set_clock, tick)
    return SimpleNamespace(**{k.__name__: bind(k, scope) for k in kernels})


@cache
def kernel(name: str, single: bool, single_force: bool, equal: bool = True) -> Any:
    """Compiled kernel ``name``.

    Parameters
    ----------
    name : {"advance", "kinetic", "set_clock", "tick"}
    single, single_force : bool
        Whether q and p, and the forces, are float32 (else float64).
    equal : bool
        Whether all masses are equal, ``inverse_mass`` of length one.
    """
    # Two blocks of 512 threads then share a multiprocessor.  In float32 with equal
    # masses nothing spills for it, elsewhere some fifty bytes a thread.
    limit = {} if SIMULATED else {"max_registers": 64}
    return cuda.jit(**limit)(getattr(_bound(single, single_force, equal), name))


def ptx(
    name: str,
    precision: str = "single",
    equal: bool = True,
    cc: tuple[int, int] = (9, 0),
) -> str:
    """PTX of a kernel for compute capability ``cc``; needs no driver.

    Parameters
    ----------
    name : {"advance", "kinetic", "set_clock", "tick"}
    precision : {"single", "mixed", "double"}
    equal : bool
        As in `kernel`.
    cc : (int, int)
        (9, 0) is Hopper.
    """
    from numba import int64, uint64, void

    state = float32 if precision == "single" else float64
    force = float64 if precision == "double" else float32
    integers = int64[::1]
    signatures = {
        "advance": void(
            state[:, ::1],
            state[:, ::1],
            force[:, ::1],
            float64[::1],
            integers,
            integers,
            integers,
            float64[:, :, :, :, ::1],
            float64[::1],
            float64[:, :, ::1],
            integers,
            integers,
            uint64[::1],
            integers,
            int64,
            int64,
        ),
        "kinetic": void(state[:, ::1], float64[::1], integers, float64[:, ::1]),
        "set_clock": void(integers, int64),
        "tick": void(integers, int64),
    }
    bound = _bound(precision == "single", precision != "double", equal)
    return to_ptx(getattr(bound, name), signatures[name], cc)
