"""The fused step on CUDA: the scalar source of `mdnet.kernels.letters`, one kernel.

A thread keeps four parameters of one replica, the four that share a Philox counter,
in registers through a whole program; a block of threads is one block of `TILE`
parameters, and its sums are reduced in shared memory in a fixed order.  The kernels
act on CuPy arrays, and under Numba's simulator on NumPy arrays.
"""

from __future__ import annotations

import math
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numba import config, cuda, float32, float64

from mdnet.kernels import letters
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK, TILE

__all__ = ["THREADS", "advance", "kernel", "kinetic", "ptx"]

SIMULATED = bool(config.ENABLE_CUDASIM)
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


_BIT_CASTS = (int_of_float32, float_of_int32, int_of_float64, float_of_int64)
_DEVICE = (
    "kick",
    "drift",
    "bath",
    "polynomial_force",
    "philox_round",
    "philox",
    "radius32",
    "rotation32",
    "radius64",
    "rotation64",
)
REAL: Any = float32  # bound to the type of q and p when a kernel is built
FREAL: Any = np.float32  # the same, as NumPy's scalar type
PREAL: Any = np.float32  # bound to the type of the forces
radius: Any = letters.radius32
rotation: Any = letters.rotation32
kick, drift, bath = letters.kick, letters.drift, letters.bath
polynomial_force, philox = letters.polynomial_force, letters.philox


def reduce_into(shared: Any, lane: Any, value: Any) -> Any:
    """Sum ``value`` over a block, by halving: the same order on every device."""
    shared[lane] = value
    cuda.syncthreads()
    width = THREADS // 2
    while width > 0:
        if lane < width:
            shared[lane] += shared[lane + width]
        cuda.syncthreads()
        width //= 2
    total = shared[0]
    cuda.syncthreads()
    return total


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
):
    """Kernel with the arguments of `mdnet.kernels.cpu.advance`, less the scratch."""
    shared = cuda.shared.array(THREADS, float64)
    lane = cuda.threadIdx.x
    tiles = sums.shape[2]
    r = cuda.blockIdx.x // tiles
    tile = cuda.blockIdx.x % tiles
    size = q.shape[1]
    low = tile * TILE + 4 * lane
    x = cuda.local.array(4, REAL)
    v = cuda.local.array(4, REAL)
    g = cuda.local.array(4, REAL)
    z = cuda.local.array(4, REAL)
    m = cuda.local.array(4, float64)
    here = min(max(size - low, 0), 4)
    scalar_mass = inverse_mass.shape[0] == 1
    for k in range(4):
        x[k] = FREAL(0)
        v[k] = FREAL(0)
        g[k] = FREAL(0)
        m[k] = inverse_mass[0]
        if k < here:
            x[k] = q[r, low + k]
            v[k] = p[r, low + k]
            g[k] = FREAL(f[r, low + k])
            if not scalar_mass:
                m[k] = inverse_mass[low + k]
    heat = 0.0
    work = 0.0
    after = 0.0
    noisy = False
    for repeat in range(repeats):
        row = repeat if coefficients.shape[0] > 1 else 0
        for i in range(codes.shape[0]):
            code = codes[i]
            c0 = coefficients[row, i, r, 0]
            c1 = coefficients[row, i, r, 1]
            if code == DRIFT:
                for k in range(4):
                    x[k] = drift(x[k], v[k], FREAL(c0 * m[k]))
            elif code == FORCE:
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
                before = 0.0
                for k in range(4):
                    if k < here:
                        before += m[k] * (float(v[k]) * float(v[k]))
                if code == KICK:
                    for k in range(4):
                        v[k] = kick(v[k], g[k], FREAL(c0))
                elif code == BATH:
                    if c1 != 0.0:
                        now = np.uint64(step + repeat + later[i])
                        a, b, c, d = philox(
                            np.uint64(low // 4),
                            np.uint64(r),
                            now & np.uint64(0xFFFFFFFF),
                            np.uint64(streams[i])
                            + np.uint64(256) * (now >> np.uint64(32)),
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
                        v[k] = bath(v[k], z[k], FREAL(c0), FREAL(c1 / math.sqrt(m[k])))
                now_twice = 0.0
                for k in range(4):
                    if k < here:
                        now_twice += m[k] * (float(v[k]) * float(v[k]))
                if code == KICK:
                    work += 0.5 * (now_twice - before)
                else:
                    heat += 0.5 * (now_twice - before)
                    after = now_twice
                    noisy = True
    twice = 0.0
    for k in range(4):
        if k < here:
            q[r, low + k] = x[k]
            p[r, low + k] = v[k]
            twice += m[k] * (float(v[k]) * float(v[k]))
            f[r, low + k] = g[k]
    twice = reduce_into(shared, lane, twice)
    after = reduce_into(shared, lane, after)
    heat = reduce_into(shared, lane, heat)
    work = reduce_into(shared, lane, work)
    if lane == 0:
        sums[0, r, tile] = twice
        if noisy:
            sums[1, r, tile] = after
        sums[2, r, tile] += heat
        sums[3, r, tile] += work


def kinetic(p, inverse_mass, out):  # type: ignore[no-untyped-def]
    """Kernel: twice the kinetic energy of each block, out (R, tiles) float64."""
    shared = cuda.shared.array(THREADS, float64)
    lane = cuda.threadIdx.x
    tiles = out.shape[1]
    r = cuda.blockIdx.x // tiles
    tile = cuda.blockIdx.x % tiles
    total = 0.0
    for k in range(4):
        j = tile * TILE + 4 * lane + k
        if j < p.shape[1]:
            m = inverse_mass[0] if inverse_mass.shape[0] == 1 else inverse_mass[j]
            total += m * (float(p[r, j]) * float(p[r, j]))
    total = reduce_into(shared, lane, total)
    if lane == 0:
        out[r, tile] = total


@cache
def _bound(single: bool, single_force: bool) -> SimpleNamespace:
    """The kernels' Python functions with every name bound for one precision."""
    scope: dict[str, Any] = {}
    for source in _BIT_CASTS:
        # The simulator has no libdevice; there the NumPy views serve.
        used = getattr(letters, source.__name__) if SIMULATED else source
        copy = FunctionType(used.__code__, dict(used.__globals__), source.__name__)
        scope[source.__name__] = cuda.jit(device=True, inline="always")(copy)
    for name in _DEVICE:
        source = getattr(letters, name)
        copy = FunctionType(source.__code__, {**source.__globals__, **scope}, name)
        scope[name] = cuda.jit(device=True, inline="always")(copy)
    copy = FunctionType(reduce_into.__code__, dict(globals()), "reduce_into")
    scope["reduce_into"] = cuda.jit(device=True, inline="always")(copy)
    scope["REAL"] = float32 if single else float64
    scope["FREAL"] = np.float32 if single else np.float64
    scope["PREAL"] = np.float32 if single_force else np.float64
    scope["radius"] = scope["radius32" if single else "radius64"]
    scope["rotation"] = scope["rotation32" if single else "rotation64"]
    bound = {
        source.__name__: FunctionType(
            source.__code__, {**globals(), **scope}, source.__name__
        )
        for source in (advance, kinetic)
    }
    return SimpleNamespace(**bound)


@cache
def kernel(name: str, single: bool, single_force: bool) -> Any:
    """Compiled kernel ``name`` for float32 (``single``) or float64 arrays."""
    return cuda.jit(getattr(_bound(single, single_force), name))


def ptx(name: str, precision: str = "single", cc: tuple[int, int] = (9, 0)) -> str:
    """PTX of a kernel for compute capability ``cc``; needs no driver.

    Parameters
    ----------
    name : {"advance", "kinetic"}
    precision : {"single", "mixed", "double"}
    cc : (int, int)
        (9, 0) is Hopper.
    """
    from numba import int64, uint64, void

    state = float32 if precision == "single" else float64
    force = float64 if precision == "double" else float32
    if name == "kinetic":
        signature = void(state[:, ::1], float64[::1], float64[:, ::1])
    else:
        signature = void(
            state[:, ::1],
            state[:, ::1],
            force[:, ::1],
            float64[::1],
            int64[::1],
            int64[::1],
            int64[::1],
            float64[:, :, :, ::1],
            float64[::1],
            float64[:, :, ::1],
            uint64[::1],
            int64,
            int64,
        )
    source = getattr(_bound(precision == "single", precision != "double"), name)
    text, _ = cuda.compile_ptx(source, signature, cc=cc)
    return str(text)
