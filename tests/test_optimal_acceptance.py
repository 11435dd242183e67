"""Where Metropolis methods move farthest for their cost, in many dimensions.

Acceptances are compared with exact ones on Gaussians, at five standard errors over
independent replicas; a fresh seed fails in this file with probability below 1e-5.  For
fewer dimensions (.79 at d = 100) see `test_hmc`.
"""

import numpy as np
import pytest
from scipy.stats import norm

import mdnet
from mdnet import integrators, potentials

from .physics_tools import z_scores

LIMIT = 5.0


def acceptances(make, d, replicas, steps, seed=1):
    """Mean chance of acceptance of every replica, from equilibrium."""
    U = potentials.Harmonic(stiffness=1.0, size=d)
    sim = mdnet.Simulation(
        U, make, replicas, U.sample(replicas, 1.0, seed), seed=seed, backend="cpu"
    )
    total = 0.0
    for _ in range(steps):
        sim.run(1)
        total = total + sim.state.variables["acceptance"]
    return total / steps


def leapfrog_acceptance(n, d):
    """Of n steps over a quarter of a period, for many oscillators.

    An oscillator's energy error is z(M'M - 1)z/2 with the matrix M of the path; their
    sum is normal, of variance twice its mean, and accepted with 2 Phi(-sd/2).
    """
    h = np.pi / 2 / n
    kick, drift = np.array([[1, 0], [-h / 2, 1]]), np.array([[1, h], [0, 1]])
    path = np.linalg.matrix_power(kick @ drift @ kick, n)
    excess = path.T @ path - np.eye(2)
    return 2 * norm.cdf(-0.5 * np.sqrt(d * (excess * excess).sum() / 2))


def peak(x, y):
    """Where a cubic through ln y is largest."""
    fit = np.polyfit(x, np.log(y), 3)
    fine = np.linspace(x[0], x[-1], 2000)
    return fine[np.argmax(np.polyval(fit, fine))]


@pytest.mark.slow
@pytest.mark.physics
def test_hmc_in_ten_thousand_dimensions():
    """Best at .65 to .69: jump over gradients is acceptance over steps, here."""
    d, turns = 10_000, np.array([6, 7, 8, 9, 10, 12])
    found = np.stack(
        [
            acceptances(integrators.HMC(np.pi / 2 / n, int(n)), d, 100, 30)
            for n in turns
        ],
        axis=1,
    )
    known = np.array([leapfrog_acceptance(n, d) for n in turns])
    assert (z_scores(found, known) < LIMIT).all()
    # Negative control: a quarter of the oscillators left out.
    wrong = np.array([leapfrog_acceptance(n, 0.75 * d) for n in turns])
    assert (z_scores(found, wrong)[1:5] > LIMIT).any()
    best = peak(np.log(turns), found.mean(0) / turns)
    at = np.interp(best, np.log(turns), found.mean(0))
    assert at == pytest.approx(0.67, abs=0.05)
    assert turns[np.argmax(found.mean(0) / turns)] in (8, 9)


@pytest.mark.physics
def test_random_walk_in_a_thousand_dimensions():
    """Best at steps of 2.38/sqrt(d) and an acceptance of .234."""
    d, scales = 1000, np.linspace(1.4, 3.6, 9)
    found = np.stack(
        [
            acceptances(
                integrators.RandomWalkMetropolis(x / np.sqrt(d)), d, 1000, 6, seed=2
            )
            for x in scales
        ],
        axis=1,
    )
    # An error of 1/d on top, at most .001 here.
    limit = 2 * norm.cdf(-scales / 2)
    error = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - limit) < LIMIT * error + 0.001).all()
    best = peak(scales, scales**2 * found.mean(0))
    assert best == pytest.approx(2.38, abs=0.12)
    assert np.interp(best, scales, found.mean(0)) == pytest.approx(0.234, abs=0.02)
    assert (np.abs(found.mean(0) - 2 * norm.cdf(-scales)) > LIMIT * error).all()
