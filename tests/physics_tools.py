"""Potentials, exact predictions and checks that the physics tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

import mdnet
from mdnet import reporters
from mdnet.potentials.base import Potential


class OscillatorEvaluator:
    polynomial = None

    def __init__(self, stiffness, noise, shape, seed):
        self.full = noise == 0
        self.stiffness, self.noise, self.seed = stiffness, noise, seed
        self.draw = np.empty(shape, np.float32)

    def forces(self, positions, out, call, energies=None):
        np.multiply(positions, -self.stiffness, out=out, casting="unsafe")
        if self.noise:
            bits = np.random.Philox(key=self.seed, counter=[0, 0, 0, call])
            np.random.Generator(bits).standard_normal(out=self.draw, dtype=np.float32)
            self.draw *= self.noise
            out += self.draw
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions, out):
        out[...] = (
            0.5
            * self.stiffness
            * np.einsum("rd,rd->r", positions, positions, dtype=np.float64)
        )

    def gradients(self, positions, out):
        np.multiply(positions, self.stiffness, out=out, casting="unsafe")


class Oscillator(Potential):
    """U = k q^2/2, its forces with independent errors of sd ``noise`` at every call.

    Never fused, so that a step goes through the force calls of a network.
    """

    def __init__(self, size, stiffness=1.0, noise=0.0):
        self.size, self.stiffness, self.noise = size, stiffness, noise

    def evaluator(self, backend, replicas, seed=0):
        shape = (replicas, self.size)
        return OscillatorEvaluator(self.stiffness, self.noise, shape, seed)

    def describe(self):
        return {
            "name": "Oscillator",
            "size": self.size,
            "stiffness": self.stiffness,
            "noise": self.noise,
        }


class Coupled(Potential):
    """U = q K q/2 + quartic sum q^4/4 in double precision: curvature in every place."""

    def __init__(self, stiffness, quartic=0.0):
        self.matrix = np.asarray(stiffness, np.float64)
        self.size, self.quartic = len(self.matrix), quartic

    def describe(self):
        return {"name": "Coupled", "K": self.matrix.tolist(), "quartic": self.quartic}

    def evaluator(self, backend, replicas, seed=0):
        return CoupledEvaluator(self.matrix, self.quartic)


class CoupledEvaluator:
    full, polynomial = True, None

    def __init__(self, matrix, quartic):
        self.matrix, self.quartic = matrix, quartic

    def gradients(self, positions, out):
        q = positions.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # runs that blow up
            out[...] = q @ self.matrix
            if self.quartic:
                out += self.quartic * q**3

    def forces(self, positions, out, call, energies=None):
        self.gradients(positions, out)
        np.negative(out, out=out)
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions, out):
        q = positions.astype(np.float64)
        out[...] = 0.5 * np.einsum("ri,ij,rj->r", q, self.matrix, q)
        if self.quartic:
            out += 0.25 * self.quartic * (q**4).sum(1)


def linear_step(integrator: Any, stiffness: Any, noise: Any = 0.0, mass: float = 1.0):
    """One step on U = q K q/2 as matrices: yields (letter, M, Q) of every operation.

    The state is (q, p, f) with the force f that was evaluated last; an operation maps
    it to M z + noise of covariance Q.  ``noise`` is the covariance of the force.
    """
    K = np.atleast_2d(np.asarray(stiffness, float))
    d = len(K)
    C = np.broadcast_to(np.atleast_2d(np.asarray(noise, float)), (d, d))
    C = C if np.ndim(noise) else C * np.eye(d)
    one, zero = np.eye(d), np.zeros((d, d))
    h = float(integrator.step_length(0))
    T, friction = integrator.temperature, integrator.friction
    for letter, share in integrator.scheme.sequence:
        M, Q = np.eye(3 * d), np.zeros((3 * d, 3 * d))
        if letter == "F":
            M[2 * d :] = np.hstack([-K, zero, zero])
            Q[2 * d :, 2 * d :] = C
        elif letter == "B":
            M[d : 2 * d, 2 * d :] = share * h * one
        elif letter == "A":
            M[:d, d : 2 * d] = share * h / mass * one
        else:
            c = integrator.damping
            c = np.exp(-friction * share * h) if c is None else c
            M[d : 2 * d, d : 2 * d] = c * one
            Q[d : 2 * d, d : 2 * d] = (1 - c * c) * mass * T * one
        yield letter, M, Q


def stationary(integrator: Any, stiffness: Any, noise: Any = 0.0, mass: float = 1.0):
    """Covariance of (q, p, f) at the end of a step and just after its last bath."""
    steps = list(linear_step(integrator, stiffness, noise, mass))
    size = len(steps[0][1])
    M, Q = np.eye(size), np.zeros((size, size))
    for _, m, q in steps:
        M, Q = m @ M, m @ Q @ m.T + q
    end = solve_discrete_lyapunov(M, Q)
    after, now = end, end
    for letter, m, q in steps:
        now = m @ now @ m.T + q
        if letter == "O":
            after = now
    return end, after


def readings(sim: mdnet.Simulation, steps: int, every: int) -> dict[str, np.ndarray]:
    """Time averages of the scalar series of every replica."""
    memory = reporters.Memory(every, positions=False)
    start = sim.state.step
    sim.run(steps, reporters=[memory])
    keep = memory.steps > start
    return {name: memory[name].value[keep].mean(0) for name in memory.names}


def z_scores(blocks: np.ndarray, exact: Any) -> np.ndarray:
    """Deviation of the mean of independent blocks (axis 0), in its standard errors."""
    blocks = np.asarray(blocks, float)
    error = blocks.std(0, ddof=1) / np.sqrt(len(blocks))
    return np.abs(blocks.mean(0) - exact) / error
