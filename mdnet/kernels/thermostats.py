"""Thermostats of one or of every parameter on the CPU: Numba, parallel over blocks.

Each function has a twin in `mdnet.kernels.thermostat_arrays`, written in operations
that NumPy and CuPy share, which serves other devices and the tests.

Where a function changes momenta it books the block's sums as `mdnet.kernels.cpu`
does for a bath: twice the kinetic energy, the same after the bath, and the heat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_thread_id, njit, prange

from mdnet import random
from mdnet.kernels import elementary, letters, noise
from mdnet.kernels.elementary import exp
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.noise import EXACT, fill

__all__ = [
    "TILE",
    "adaptive_bath",
    "chain_groups",
    "chain_parameters",
    "matched_bath",
    "noise_estimate",
    "preconditioned_kick",
]

TILE = letters.TILE


@njit(error_model="numpy", fastmath=EXACT)
def _link(xi, j, ratio, factors, dof, rate, half):  # type: ignore[no-untyped-def]
    """Move link ``j`` of the chain by half a stage, damped by the link above it."""
    x, f = xi[j], factors[j]
    if j == 0:
        for k in range(x.size):
            x[k] = (x[k] * f[k] + half * rate * (ratio[k] - 1.0)) * f[k]
        return
    below = xi[j - 1]
    if j == 1:
        for k in range(x.size):
            push = dof[k] * below[k] * below[k] - rate
            x[k] = (x[k] * f[k] + half * push) * f[k]
        return
    for k in range(x.size):
        x[k] = (x[k] * f[k] + half * (below[k] * below[k] - rate)) * f[k]


@njit(error_model="numpy", fastmath=EXACT)
def _chain(xi, ratio, scale, factors, dof, rate, stages):  # type: ignore[no-untyped-def]
    """Run a Nose-Hoover chain over ``stages``; return the sum of its phases."""
    top = xi.shape[0] - 1
    total = 0.0
    scale[:] = 1.0
    factors[top] = 1.0
    for length in stages:
        half, quarter = 0.5 * length, 0.25 * length
        for j in range(top, -1, -1):
            if j < top:
                for k in range(dof.size):
                    factors[j, k] = exp(-quarter * xi[j + 1, k])
            _link(xi, j, ratio, factors, dof, rate, half)
        for k in range(dof.size):
            s = exp(-length * xi[0, k])
            scale[k] *= s
            ratio[k] *= s * s
            total += length * dof[k] * xi[0, k]
        for j in range(1, top + 1):
            for k in range(dof.size):
                total += length * xi[j, k]
        for j in range(top + 1):
            _link(xi, j, ratio, factors, dof, rate, half)
    return total


@njit(error_model="numpy", fastmath=EXACT)
def _stored(xi, dof):  # type: ignore[no-untyped-def]
    """Sum of n xi_1^2 + xi_2^2 + ... over a chain of each group."""
    total = 0.0
    for j in range(xi.shape[0]):
        for k in range(dof.size):
            x = xi[j, k] * xi[j, k]
            total += dof[k] * x if j == 0 else x
    return total


def _compile_groups(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def chain_groups(  # type: ignore[no-untyped-def]
        twice, groups, dof, weights, dt, temperature, time, xi, eta, energy, bath, room
    ):
        for r in prange(twice.shape[0]):
            work = room[get_thread_id()]
            ratio, scale, factors = work[0], work[1], work[2:]
            ratio[:] = 0.0
            for tile in range(groups.size):
                ratio[groups[tile]] += twice[r, tile]
            for k in range(dof.size):
                ratio[k] /= dof[k] * temperature[r]
            rate = 1.0 / (time[r] * time[r])
            phase = _chain(xi[r], ratio, scale, factors, dof, rate, weights * dt[r])
            eta[r, 0] += temperature[r] * phase
            energy[r, 0] = eta[r, 0] + 0.5 * temperature[r] / rate * _stored(xi[r], dof)
            for k in range(dof.size):
                bath[r, k, 0] = scale[k]
        return version

    return chain_groups


def _compile_parameters(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def chain_parameters(  # type: ignore[no-untyped-def]
        p,
        inverse_mass,
        edges,
        weights,
        dt,
        temperature,
        time,
        xi,
        eta,
        energy,
        sums,
        room,
    ):
        tiles = edges.size - 1
        for task in prange(p.shape[0] * tiles):
            r = task // tiles
            tile = task - r * tiles
            low, high = edges[tile], edges[tile + 1]
            work = room[get_thread_id()][:, : high - low]
            ratio, scale, dof, factors = work[0], work[1], work[2], work[3:]
            p_r, xi_r = p[r, low:high], xi[r, :, low:high]
            m_r = inverse_mass if inverse_mass.size == 1 else inverse_mass[low:high]
            dof[:] = 1.0
            for k in range(p_r.size):
                x = np.float64(p_r[k])
                m = m_r[0] if m_r.size == 1 else m_r[k]
                ratio[k] = x * x * m / temperature[r]
            rate = 1.0 / (time[r] * time[r])
            phase = _chain(xi_r, ratio, scale, factors, dof, rate, weights * dt[r])
            eta[r, tile] += temperature[r] * phase
            energy[r, tile] = eta[r, tile] + 0.5 * temperature[r] / rate * _stored(
                xi_r, dof
            )
            total = 0.0
            for k in range(p_r.size):
                p_r[k] = p.dtype.type(p_r[k] * scale[k])
                x = np.float64(p_r[k])
                m = m_r[0] if m_r.size == 1 else m_r[k]
                total += x * x * m
            _book(sums, r, tile, total)
        return version

    return chain_parameters


@njit(error_model="numpy", inline="always")
def _book(sums, r, tile, twice):  # type: ignore[no-untyped-def]
    """Book a change of momenta as heat, and what is left as that after a bath."""
    sums[2, r, tile] += 0.5 * (twice - sums[0, r, tile])
    sums[0, r, tile] = twice
    sums[1, r, tile] = twice


@njit(error_model="numpy", fastmath=EXACT)
def _draw(z, words, low, high, size, r, step, seed):  # type: ignore[no-untyped-def]
    """Normals of parameters low to high, as the bath of stream 0 draws them."""
    aligned = low - low % TILE
    counters = (min(size - aligned, TILE) + 3) // 4
    fill(z, words, aligned // 4, counters, r, np.uint64(step), 0, seed)
    return z[low - aligned : high - aligned]


# Loops without sums, which are kept in order and would not be vectorised.
@njit(error_model="numpy", fastmath=EXACT)
def _adapt(p, z, xi, inverse_mass, T, h, friction, time):  # type: ignore[no-untyped-def]
    """N D N with a friction for each parameter."""
    one, push = inverse_mass.size == 1, 0.5 * h / (time * time)
    for k in range(p.size):
        m = inverse_mass[0] if one else inverse_mass[k]
        x = np.float64(p[k])
        rate = xi[k] + push * (x * x * m / T - 1.0)
        c = exp(-h * rate)
        # (1 - c^2)/(2 rate), whose limit at rate 0 is h.
        small = abs(rate) * h < 1e-8
        width = h if small else 0.5 * (1.0 - c * c) / rate
        x = c * x + np.sqrt(2.0 * friction * T * width / m) * np.float64(z[k])
        p[k] = p.dtype.type(x)
        x = np.float64(p[k])
        xi[k] = rate + push * (x * x * m / T - 1.0)


@njit(error_model="numpy", fastmath=EXACT)
def _precondition(q, p, f, square, pull, extra, length, T, small, drift):  # type: ignore[no-untyped-def]
    """Half a kick and, with ``drift``, a drift; ``length`` is sqrt(2 dt)."""
    for k in range(p.size):
        root = 1.0 / np.sqrt(small + np.sqrt(np.float64(square[k])))
        p[k] = p.dtype.type(np.float64(p[k]) + 0.5 * length * root * np.float64(f[k]))
        if drift:
            move = length * root * np.float64(p[k])
            if extra:
                move += 0.5 * length * length * T * np.float64(pull[k])
            q[k] = q.dtype.type(np.float64(q[k]) + move)


@njit(error_model="numpy", fastmath=EXACT)
def _absorb(p, z, v, held, shared, inverse_mass, T, h, base, friction):  # type: ignore[no-untyped-def]
    """Exact bath of more friction, where the noise of forces asks for it."""
    one = inverse_mass.size == 1
    for k in range(p.size):
        m = inverse_mass[0] if one else inverse_mass[k]
        spread = max(np.float64(v[k]) - (np.float64(held[k]) if shared else 0.0), 0.0)
        rate = base + 0.5 * h * spread * m / T
        c = exp(-h * rate)
        small = abs(rate) * h < 1e-8
        width = h if small else 0.5 * (1.0 - c * c) / rate
        push = np.sqrt(2.0 * friction * T * width / m)
        p[k] = p.dtype.type(c * np.float64(p[k]) + push * np.float64(z[k]))


@njit(error_model="numpy", fastmath=EXACT)
def _leave_out(p, z, v, held, shared, inverse_mass, T, h, base):  # type: ignore[no-untyped-def]
    """Exact bath of less noise; return how many parameters have too much of it."""
    one = inverse_mass.size == 1
    c = exp(-h * base)
    kicks, full, short = 0.5 * h * (1.0 + c), (1.0 - c * c) * T, 0
    for k in range(p.size):
        m = inverse_mass[0] if one else inverse_mass[k]
        spread = max(np.float64(v[k]) - (np.float64(held[k]) if shared else 0.0), 0.0)
        square = full / m - spread * kicks * kicks
        short += square < 0.0
        push = np.sqrt(max(square, 0.0))
        p[k] = p.dtype.type(c * np.float64(p[k]) + push * np.float64(z[k]))
    return np.float64(short)


@njit(error_model="numpy", fastmath=EXACT | {"reassoc"})
def _twice(p, inverse_mass):  # type: ignore[no-untyped-def]
    """Twice the kinetic energy."""
    one, total = inverse_mass.size == 1, 0.0
    for k in range(p.size):
        x = np.float64(p[k])
        total += x * x * (inverse_mass[0] if one else inverse_mass[k])
    return total


def _compile_adaptive(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def adaptive_bath(  # type: ignore[no-untyped-def]
        p,
        inverse_mass,
        edges,
        dt,
        temperature,
        friction,
        time,
        xi,
        sums,
        seed,
        step,
        words,
        normals,
    ):
        tiles = edges.size - 1
        for task in prange(p.shape[0] * tiles):
            r = task // tiles
            tile = task - r * tiles
            low, high = edges[tile], edges[tile + 1]
            me = get_thread_id()
            z = _draw(normals[me], words[me], low, high, p.shape[1], r, step, seed)
            p_r, xi_r = p[r, low:high], xi[r, low:high]
            m_r = inverse_mass if inverse_mass.size == 1 else inverse_mass[low:high]
            _adapt(p_r, z, xi_r, m_r, temperature[r], dt[r], friction[r], time[r])
            _book(sums, r, tile, _twice(p_r, m_r))
        return version

    return adaptive_bath


def _compile_estimate(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def noise_estimate(f, last, older, variance, weight, edges):  # type: ignore[no-untyped-def]
        tiles = edges.size - 1
        for task in prange(f.shape[0] * tiles):
            r = task // tiles
            tile = task - r * tiles
            low, high = edges[tile], edges[tile + 1]
            f_r, a, b = f[r, low:high], last[r, low:high], older[r, low:high]
            v = variance[r, low:high]
            real = v.dtype.type
            w, sixth = real(weight[r]), real(1.0 / 6.0)
            for k in range(f_r.size):
                d = f_r[k] - a[k] - a[k] + b[k]
                v[k] += w * (d * d * sixth - v[k])
                b[k] = a[k]
                a[k] = f_r[k]
        return version

    return noise_estimate


def _compile_matched(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def matched_bath(  # type: ignore[no-untyped-def]
        p,
        inverse_mass,
        edges,
        groups,
        dt,
        temperature,
        friction,
        rates,
        variance,
        captured,
        absorb,
        unmatched,
        sums,
        seed,
        step,
        words,
        normals,
    ):
        tiles = edges.size - 1
        for task in prange(p.shape[0] * tiles):
            r = task // tiles
            tile = task - r * tiles
            low, high = edges[tile], edges[tile + 1]
            me = get_thread_id()
            z = _draw(normals[me], words[me], low, high, p.shape[1], r, step, seed)
            p_r, v_r = p[r, low:high], variance[r, low:high]
            shared = captured.shape[1] > 0
            o_r = captured[r, low:high] if shared else v_r
            m_r = inverse_mass if inverse_mass.size == 1 else inverse_mass[low:high]
            T, h, base = temperature[r], dt[r], rates[r, groups[tile]]
            short = 0.0
            if absorb:
                _absorb(p_r, z, v_r, o_r, shared, m_r, T, h, base, friction[r])
            else:
                short = _leave_out(p_r, z, v_r, o_r, shared, m_r, T, h, base)
            total = _twice(p_r, m_r)
            unmatched[r, tile] = short
            _book(sums, r, tile, total)
        return version

    return matched_bath


def _compile_precondition(version: int) -> Any:
    @njit(parallel=True, cache=True, error_model="numpy", fastmath=EXACT)
    def preconditioned_kick(  # type: ignore[no-untyped-def]
        q, p, f, square, pull, edges, dt, temperature, damping, drift, sums
    ):
        tiles, unit = edges.size - 1, np.ones(1)
        for task in prange(p.shape[0] * tiles):
            r = task // tiles
            tile = task - r * tiles
            low, high = edges[tile], edges[tile + 1]
            q_r, p_r = q[r, low:high], p[r, low:high]
            f_r, v_r = f[r, low:high], square[r, low:high]
            extra = pull.shape[1] > 0
            g_r = pull[r, low:high] if extra else v_r
            length, T, small = np.sqrt(2.0 * dt[r]), temperature[r], damping[r]
            _precondition(q_r, p_r, f_r, v_r, g_r, extra, length, T, small, drift)
            total = _twice(p_r, unit)
            sums[3, r, tile] += 0.5 * (total - sums[0, r, tile])
            sums[0, r, tile] = total
        return version

    return preconditioned_kick


_VERSION = fingerprint(letters, noise, random, elementary)
chain_groups = _compile_groups(_VERSION)
"""chain_groups(twice, groups, dof, weights, dt, temperature, time, xi, eta, energy,
bath, room)

One step of a Nose-Hoover chain for each group of parameters.

Parameters
----------
twice : (R, tiles) float64
    Twice the kinetic energy of each block.
groups : (tiles,) int64
dof : (G,) float64
    Parameters of each group.
weights : (S,) float64
    Lengths of the stages of a step, as parts of ``dt``.
dt, temperature, time : (R,) float64
    ``time`` is the relaxation time.
xi : (R, M, G) float64
    Velocities of the chain; changed.
eta : (R, 1) float64
    T times the phases n eta_1 + eta_2 + ...; changed.
energy : (R, 1) float64
    Energy of the chains; written.
bath : (R, G, 2) float64
    The factor of the momenta; written into the first column.
room : (threads, M + 2, G) float64
"""
chain_parameters = _compile_parameters(_VERSION)
"""chain_parameters(p, inverse_mass, edges, weights, dt, temperature, time, xi, eta,
energy, sums, room)

One step of a Nose-Hoover chain for each parameter, its momentum included.

As `chain_groups`, with ``p`` (R, D), ``xi`` (R, M, D), ``eta`` and ``energy``
(R, tiles), ``sums`` as in `mdnet.kernels.cpu.advance`, room (threads, M + 3, TILE).
"""
adaptive_bath = _compile_adaptive(_VERSION)
"""adaptive_bath(p, inverse_mass, edges, dt, temperature, friction, time, xi, sums,
seed, step, words, normals)

N D N of the adaptive Langevin thermostat with a friction ``xi`` (R, D) for each
parameter.  ``dt``, ``temperature``, ``friction``, ``time`` are (R,) float64; scratch
as in `mdnet.kernels.cpu.advance`.
"""
noise_estimate = _compile_estimate(_VERSION)
"""noise_estimate(f, last, older, variance, weight, edges)

Move a running variance of the noise of forces on, from their second difference.

(f - 2 last + older)^2/6 has the variance of one force's noise for mean, and hardly
sees the motion.  All arrays (R, D) of one type; ``weight`` (R,) float64 is the share
of the new value.  The older forces are moved up.
"""
matched_bath = _compile_matched(_VERSION)
"""matched_bath(p, inverse_mass, edges, groups, dt, temperature, friction, rates,
variance, captured, absorb, unmatched, sums, seed, step, words, normals)

The exact bath of each parameter, made to fit the noise of its force.

Parameters
----------
rates : (R, G) float64
    Friction of each group.
variance : (R, D)
    Noise of one force.
captured : (R, D) or (R, 0)
    Part of it that is dealt with elsewhere.
absorb : bool
    True: more friction, hV/2T (m = 1), and noise of ``friction``; False: the friction
    as it is, and less noise.
unmatched : (R, tiles) float64
    Number of parameters whose noise is more than the bath has; written.
"""
preconditioned_kick = _compile_precondition(_VERSION)
"""preconditioned_kick(q, p, f, square, pull, edges, dt, temperature, damping, drift,
sums)

Half a kick with the preconditioner G = 1/(damping + sqrt(square)), and a drift.

Momenta are those of unit mass, p = sqrt(G) p': p += sqrt(dt/2) sqrt(G) F, and with
``drift`` q += sqrt(2 dt) sqrt(G) p + dt T pull, where ``pull`` (R, D) or (R, 0) is the
divergence of G.
"""
