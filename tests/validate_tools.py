"""Potentials and runs that the tests of `mdnet.validate` share."""

import numpy as np

import mdnet
from mdnet import potentials, reporters


def chain(size=6, quartic=0.25):
    """Anharmonic chain: springs to the origin and between neighbours, and q^4."""

    def energy(q):
        d = np.diff(q, axis=1)
        bonds = d**2 / 2 + quartic * d**4 / 4
        return 0.5 * (q**2).sum(axis=1) + bonds.sum(axis=1)

    def gradient(q):
        d = np.diff(q, axis=1)
        force, out = d + quartic * d**3, q.copy()
        out[:, 1:] += force
        out[:, :-1] -= force
        return out

    return potentials.Custom(size=size, energy=energy, gradient=gradient)


def regression():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 4))
    return potentials.LinearRegression(X, X @ rng.normal(size=4), noise=1.5)


def network(activation="tanh"):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(20, 3))
    net = potentials.MLP([3, 4, 2], activation=activation)
    return potentials.Posterior(net, data=(X, (X[:, 0] > 0).astype(int)))


POTENTIALS = {
    "harmonic": lambda: potentials.Harmonic(stiffness=[1.0, 4.0, 2.0]),
    "chain": chain,
    "regression": regression,
    "network": network,
}


def record(potential, integrator, steps, replicas=8, every=5, seed=0):
    memory = reporters.Memory(every, positions=False)
    sim = mdnet.Simulation(
        potential, integrator, replicas=replicas, seed=seed, backend="cpu"
    )
    sim.run(steps, reporters=[memory])
    return memory
