"""Microcanonical dynamics: the flow of a kick, its invariants, the law, restart.

Limits are five standard errors over hundreds of independent replicas: a fresh seed
fails somewhere in this file with probability below 1e-4.
"""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import SchemeError
from mdnet.integrators.microcanonical import Sphere

from .physics_tools import Coupled, readings, z_scores
from .test_hmc import posterior, simulation
from .test_restart import assert_same_state

LIMIT = 5.0


def squares(potential, made, T, steps, replicas=400):
    q = potential.sample(replicas, T)
    sim = simulation(potential, made, replicas, positions=q)
    sim.run(20)
    memory = reporters.Memory(1)
    sim.run(steps, reporters=[memory])
    return (memory.positions[1:] ** 2).mean(0) / potential.variance(T)


def test_a_kick_solves_its_equation():
    mass, T, t = np.array([0.5, 1.0, 2.0, 4.0]), 0.7, 0.9
    sim = simulation(
        potentials.Harmonic(size=4),
        integrators.MCLMC(t, T, mass=mass, friction=0.0),
        3,
    )
    s, d = sim.state, 4
    np.testing.assert_allclose((s.momenta**2 / mass).sum(1), d * T, rtol=1e-13)
    F = np.random.default_rng(0).normal(size=(3, d)) * np.array([[1e-9], [1.0], [5.0]])
    s.forces[...] = F
    start = s.momenta.copy()
    column = 1  # the first B of O B A B O: half a step
    sim._companion.call(101 + column, 0)

    def turning(_, y, force):
        power = np.sum(force * y[:d] / mass)
        return np.append(d / (d - 1) * (force - y[:d] * power / (d * T)), power)

    for r in range(3):
        exact = solve_ivp(
            turning,
            (0, t / 2),
            np.append(start[r], 0.0),
            args=(F[r],),
            rtol=1e-11,
            atol=1e-12,
        )
        np.testing.assert_allclose(s.momenta[r], exact.y[:d, -1], atol=1e-8)
        assert s.sums[3, r].sum() == pytest.approx(exact.y[d, -1], abs=1e-8)
    np.testing.assert_allclose((s.momenta**2 / mass).sum(1), d * T, rtol=1e-12)


def test_energy_error_is_of_second_order():
    K = np.diag([1.0, 2.0, 3.0]) + 0.3
    spread = []
    steps = np.array([0.02, 0.04, 0.08])
    for h in steps:
        sim = simulation(
            Coupled(K, quartic=0.2), integrators.MCLMC(h, 0.8, friction=0.0), 4
        )
        memory = reporters.Memory(1, positions=False)
        sim.run(round(8 / h), reporters=[memory])
        spread.append(memory["shadow_work"].value.std(0).mean())
        heat, work = (memory[name].value for name in ("heat", "kick_work"))
        np.testing.assert_allclose(heat, -work, atol=1e-11)
        np.testing.assert_allclose(memory["kinetic_temperature"].value, 0.8, rtol=1e-12)
    slope = np.polyfit(np.log(steps), np.log(spread), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_proposals_are_reversible():
    made = integrators.Splitting("{[BAB]^20}", 0.1, 50.0, sphere=True)
    sim = simulation(Coupled(np.eye(3) + 0.2, quartic=0.2), made, 4)
    q = sim.state.positions.copy()
    sim.run(1)
    assert (sim.state.variables["accepted"] == 1).any()
    moved = sim.state.variables["accepted"] == 1
    sim.set_momenta(-sim.state.momenta)
    sim.run(1)
    back = moved & (sim.state.variables["accepted"] == 2)
    assert back.any()
    np.testing.assert_allclose(sim.state.positions[back], q[back], rtol=0, atol=1e-12)


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.5, 2.0])
def test_law_at_small_steps(T):
    """And its bias, which goes as the square of the step."""
    U = potentials.Harmonic(stiffness=np.geomspace(0.2, 5.0, 8), size=8)
    found = squares(U, integrators.MCLMC(0.08, T), T, 300)
    assert (z_scores(found, 1.0) < LIMIT).all()
    wide = squares(U, integrators.MCLMC(0.5, T), T, 300)
    assert (z_scores(wide, 1.0) > LIMIT).any()  # negative control


@pytest.mark.physics
@pytest.mark.parametrize(
    "potential",
    [
        potentials.Harmonic(stiffness=np.geomspace(0.2, 5.0, 8), size=8),
        potentials.DoubleWell(a=0.5, size=3),
    ],
)
def test_tested_trajectories_are_exact(potential, monkeypatch):
    made = integrators.MCLMC(0.6, 0.7, adjusted=True, steps=4, jitter=0.5)
    found = squares(potential, made, 0.7, 200)
    assert (z_scores(found, 1.0) < LIMIT).all()
    assert (z_scores(found, 1.2) > LIMIT).all()
    # Negative control: the work of kicks without the volume they contract.
    right = Sphere._kick

    def wrong(self, column, step):
        before = self._context.state.sums[3, :, 0].copy()
        right(self, column, step)
        work = self._context.state.sums[3, :, 0]
        work += 0.3 * (work - before)

    monkeypatch.setattr(Sphere, "_kick", wrong)
    found = squares(potential, made, 0.7, 200)
    assert (z_scores(found.mean(1), 1.0) > LIMIT).all()


@pytest.mark.physics
def test_mean_of_exponential_errors_is_one():
    U, n = potentials.DoubleWell(a=0.5, size=3), 40_000
    made = integrators.MCLMC(0.4, 0.7, adjusted=True, steps=2)
    sim = simulation(U, made, n, positions=U.sample(n, 0.7, seed=3))
    sim.run(1)
    values = np.exp(-sim.state.variables["delta_h"] / 0.7)
    assert (z_scores(values, 1.0) < LIMIT).all()
    assert (z_scores(values, 1.05) > LIMIT).all()


@pytest.mark.physics
def test_the_step_finds_its_acceptance():
    U = potentials.Harmonic(stiffness=np.geomspace(1.0, 10.0, 20), size=20)
    made = integrators.MCLMC(3.0, adjusted=True, steps=5, target_acceptance=0.9)
    sim = simulation(U, made, 30)
    sim.run(500)
    mean = readings(sim, 200, every=1)
    assert mean["acceptance"].mean() == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("adjusted", [False, True])
def test_restart_is_bitwise(adjusted, tmp_path):
    def start():
        more = {"steps": 3, "warmup": 40} if adjusted else {}
        made = integrators.MCLMC(0.05, [1.0, 0.5], adjusted=adjusted, **more)
        return simulation(posterior(), made, 2, "single")

    whole, cut = start(), start()
    whole.run(60)
    for steps, path in ((23, "a.h5md"), (37, "b.h5md")):
        cut.run(steps, trajectory=tmp_path / path, every=5)
        cut = mdnet.Simulation.resume(tmp_path / path, posterior())
    assert_same_state(cut, whole)


def test_what_is_refused():
    with pytest.raises(SchemeError, match="adjusted=True"):
        integrators.MCLMC(0.1, target_acceptance=0.9)
    with pytest.raises(SchemeError, match="on 1 parameter"):
        simulation(potentials.Harmonic(size=1), integrators.MCLMC(0.1))
    with pytest.raises(SchemeError, match="energy of all data"):
        simulation(posterior().minibatch(8), integrators.MCLMC(0.1, adjusted=True))
    simulation(posterior().minibatch(8), integrators.MCLMC(0.1)).run(2)
