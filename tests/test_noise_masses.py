"""Masses that fit the noise of forces: what is matched, and what is sampled.

Statistical checks compare means over 40 blocks of replicas with exact ones: beyond 6
standard errors is a false alarm in 5e-7 of them.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import SchemeError

from .physics_tools import z_scores
from .test_gradient_noise import Noisy, simulate
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT, BLOCKS = 6.0, 40
H, FRICTION = 0.1, 1.0
SPREAD, STIFFNESS = np.geomspace(0.5, 150.0, 12), np.tile([1.0, 4.0], 6)


def squares(integrator, T, steps=2000, warmup=1200):
    """<q^2> k/T of every weight in blocks of replicas, (BLOCKS, 12), and the run."""
    U = Noisy(STIFFNESS, np.diag(np.sqrt(SPREAD * T)))
    sim = simulate(U, integrator, BLOCKS * 5, positions=np.zeros(12))
    sim.run(warmup)
    memory = reporters.Memory(10)
    sim.run(steps, reporters=[memory])
    q2 = (memory.positions[1:] ** 2).mean(0) * STIFFNESS / T
    return q2.reshape(BLOCKS, 5, 12).mean(1), sim, memory


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 1.0, 4.0])
def test_anisotropic_noise(T):
    """Variances from 0.5 to 150 T: masses by formula, and the exact law of each."""
    share = 0.5
    made = integrators.NoiseMatched(
        H, T, FRICTION, share=share, warmup=600, window=10_000
    )
    found, sim, memory = squares(made, T)
    c = np.exp(-FRICTION * H)
    gain = (1 + c) / (1 - c)
    fitted = H**2 * SPREAD * gain / (4 * share)
    mass = 1 / sim.state.variables["inverse_mass"]
    assert 4 < (fitted > 1.1).sum() < 11  # quiet weights keep their mass
    np.testing.assert_allclose(mass, np.maximum(fitted, 1), rtol=0.03)
    assert (memory["unmatched_noise"].value[1:] == 0).all()
    error = H**2 * SPREAD * gain / mass * (1 / (4 - H**2 * STIFFNESS / mass) - 0.25)
    assert (z_scores(found, 1 + error) < LIMIT).all()
    assert (z_scores(found, 1.3) > LIMIT).all()


@pytest.mark.physics
def test_noise_that_does_not_fit_heats():
    """Negative control: with equal masses the noisy weights run hot."""
    found, _, memory = squares(integrators.SGHMC(H, 2.0, FRICTION), 2.0, 1000, 200)
    unmatched = memory["unmatched_noise"].value[1:].mean()
    assert unmatched > 0.25
    hot = found.mean(0)[SPREAD * H**2 * 20.02 / 4 > 1.2]
    assert (hot > 1.05).all()
    assert hot[-1] > 3


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    U = posterior().minibatch(16, order="replacement")
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 35}

    def start():
        made = integrators.NoiseMatched(0.05, [0.5, 1.0], 2.0, warmup=60, share=0.8)
        return mdnet.Simulation(U, made, 2, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(70, trajectory=whole, **settings)
    sims[1].run(35, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert_same_state(sims[1], resumed)
    resumed.run(35)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)
    mass = 1 / sims[0].state.variables["inverse_mass"]
    assert mass.shape == (U.size,)
    assert mass.min() >= 1
    assert mass.max() > 1
    values = sims[0].scalars()  # changes of mass keep the kinetic energy
    first = values["kinetic_energy"] - values["heat"] - values["kick_work"]
    known = mdnet.Simulation(
        U, start().integrator, 2, seed=3, backend="cpu"
    ).state.kinetic_energy
    np.testing.assert_allclose(first, known, rtol=1e-9)


def test_frozen_weights_keep_their_mass():
    made = integrators.NoiseMatched(H, warmup=40, frozen=np.arange(12) > 9)
    U = Noisy(STIFFNESS, np.diag(np.sqrt(SPREAD)))
    sim = simulate(U, made, 4, positions=np.zeros(12))
    sim.run(60)
    mass = 1 / sim.state.variables["inverse_mass"]
    assert (mass[10:] == 1).all()
    assert mass[9] > 2
    assert not sim.state.positions[:, 10:].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": 5}, "warmup=5"),
        ({"share": 0.0}, "share=0"),
        ({"share": 1.5}, "share=1.5"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"friction": np.inf}, "friction=inf"),
        ({"friction": 0.0}, "friction=0"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(SchemeError, match=message):
        integrators.NoiseMatched(0.1, **settings)
    sim = mdnet.Simulation(potentials.Harmonic(size=2), integrators.SGHMC(0.1))
    assert "inverse_mass" not in sim.state.variables
