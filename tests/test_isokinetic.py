"""Isokinetic dynamics: the constraint, the exact kick, what is conserved and sampled.

Statistical checks compare means over 40 or more independent replicas with exact ones:
beyond 6 standard errors is a false alarm in 5e-7 of them.
"""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import SchemeError

from .physics_tools import Coupled, z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0
T3 = np.array([0.25, 1.0, 4.0])


def simulate(U, integrator, replicas, **settings):
    settings = {"seed": 1, "backend": "cpu", "precision": "double"} | settings
    return mdnet.Simulation(U, integrator, replicas, **settings)


def tangled(d=8):
    rng = np.random.default_rng(2)
    A = rng.normal(size=(d, d))
    return Coupled(A @ A.T / d + np.eye(d), quartic=1.0)


@pytest.mark.parametrize("friction", [0.0, 2.0])
def test_kinetic_energy_is_constant(friction):
    """(d - 1) T/2 to rounding at every step, whatever the step or the masses."""
    made = integrators.Isokinetic(0.3, T3, friction, mass=np.linspace(1, 5, 8))
    sim = simulate(tangled(), made, 3)
    memory = reporters.Memory(1)
    sim.run(200, reporters=[memory])
    K = memory["kinetic_energy"].value
    np.testing.assert_allclose(K, np.broadcast_to(3.5 * T3, K.shape), rtol=1e-13)
    kinetic = memory["kinetic_temperature"].value
    np.testing.assert_allclose(kinetic, np.broadcast_to(T3, K.shape), rtol=1e-13)
    v = {name: memory[name].value for name in memory.names}
    booked = v["heat"] + v["shadow_work"]
    energy = v["potential_energy"] + v["kinetic_energy"]
    np.testing.assert_allclose(energy - energy[0], booked, atol=1e-9)
    # Negative control: BAOAB's kinetic energy is not.
    sim = simulate(tangled(), integrators.BAOAB(0.3, T3), 3)
    sim.run(20)
    assert np.abs(sim.scalars()["kinetic_energy"] / (3.5 * T3) - 1).max() > 0.05


def test_the_kick_is_exact():
    """Against the equation of motion under a constant force, and its work."""
    F, m, h = np.array([0.7, -1.5, 0.4]), np.array([1.0, 2.0, 0.5]), 0.9

    def flow(_, z):
        p = z[:3]
        power = (F * p / m).sum()
        rate = power / (p * p / m).sum()
        return np.append(F - rate * p, power)

    U = potentials.Custom(3, lambda q: -(q @ F), lambda q: -F + 0 * q)
    made = integrators.Isokinetic(h, 1.7, 0.0, m, word="BA")
    sim = simulate(U, made, 1, positions=np.zeros(3))
    start = sim.state.momenta[0].copy()
    assert (start**2 / m).sum() == pytest.approx(2 * 1.7)
    sim.run(1)
    known = solve_ivp(flow, (0, h), np.append(start, 0.0), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(sim.state.momenta[0], known.y[:3, -1], rtol=1e-8)
    assert sim.state.kick_work[0] == pytest.approx(known.y[3, -1], rel=1e-8)


@pytest.mark.parametrize("word", ["BAB", "BAOAB", "OBABO"])
def test_what_is_conserved(word):
    """U and the work of the kicks: of second order, without drift."""
    friction = 0.0 if word == "BAB" else 1.0
    T, errors = np.repeat(T3, 30), []
    start = np.random.default_rng(5).normal(size=(90, 8)) / 2
    for dt in (0.04, 0.02):
        made = integrators.Isokinetic(dt, T, friction, word=word)
        sim = simulate(tangled(), made, 90, positions=start)
        memory = reporters.Memory(1)
        sim.run(round(2 / dt), reporters=[memory])
        kept = memory["conserved"].value
        np.testing.assert_allclose(kept[-1], made.conserved(sim.state))
        square = ((kept - kept[0]) ** 2).mean(0).reshape(3, 30).mean(1)
        errors.append(np.sqrt(square))
    ratio = errors[0] / errors[1]
    assert (ratio > 3).all()
    assert (ratio < 5).all()
    if word == "BAB":  # reversible: back to the start
        back = simulate(
            tangled(),
            made,
            90,
            positions=sim.state.positions,
            momenta=-sim.state.momenta,
        )
        back.run(100)
        np.testing.assert_allclose(back.state.positions, start, atol=1e-9)


def double_well(T):
    def moment(n):
        return quad(lambda x: x**n * np.exp(-((x * x - 1) ** 2) / T), -5, 5)[0]

    return moment(2) / moment(0)


@pytest.mark.physics
def test_configurations_at_three_temperatures():
    """<x^2> in a double well of three weights; K = d T/2 would sample 3 T/2."""
    T = np.repeat(T3, 60)
    made = integrators.Isokinetic(np.repeat([0.1, 0.06, 0.03], 60), T, 1.0)
    U = potentials.DoubleWell(size=3)
    start = np.sign(np.random.default_rng(0).normal(size=(180, 3)))
    sim = simulate(U, made, 180, positions=start)
    sim.run(200)
    memory = reporters.Memory(10)
    sim.run(3000, reporters=[memory])
    square = (memory.positions[1:] ** 2).mean((0, 2)).reshape(3, 60)
    for i, t in enumerate(T3):
        assert z_scores(square[i], double_well(t)) < LIMIT
        assert z_scores(square[i], double_well(1.5 * t)) > LIMIT


@pytest.mark.physics
@pytest.mark.parametrize("friction", [0.0, 1.0])
def test_virial_with_and_without_a_bath(friction):
    """<q . dU/dq> = d T of any potential; without a bath where motion is chaotic."""
    U, T = tangled(), np.repeat(T3, 40)
    made = integrators.Isokinetic(np.repeat([0.1, 0.06, 0.03], 40), T, friction)
    start = np.random.default_rng(1).normal(size=(120, 8)) * np.sqrt(T)[:, None] / 2
    sim = simulate(U, made, 120, positions=start)
    sim.run(200)
    memory = reporters.Memory(10)
    sim.run(1500, reporters=[memory])
    q = memory.positions[1:]
    shape = q.shape
    rows = q.reshape(-1, 8)
    virial = (rows * U.gradient(rows)).sum(1).reshape(shape[:2]).mean(0)
    for i, t in enumerate(T3):
        block = virial.reshape(3, 40)[i] / (8 * t)
        assert abs(block.mean() - 1) < 0.02 + LIMIT * block.std() / np.sqrt(40)
        assert z_scores(block, 8 / 7) > LIMIT


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    U = posterior()
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 35}
    ramp = mdnet.schedules.linear(1.0, 2.0, 100)

    def start():
        made = integrators.Isokinetic(0.05, ramp, [0.5, 1.0])
        return mdnet.Simulation(U, made, 2, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(70, trajectory=whole, **settings)
    sims[1].run(35, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert_same_state(sims[1], resumed)
    resumed.run(35)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)
    with mdnet.open(whole) as run:
        counts = run.config["degrees_of_freedom"]
        assert sum(counts.values()) == U.size - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "needs one > 0"),
        ({"word": "O{BAB}"}, "plain word"),
        ({"friction": {"*": 1.0}}, "takes one value"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(SchemeError, match=message):
        integrators.Isokinetic(0.1, **settings)
    with pytest.raises(SchemeError, match="two or more"):
        simulate(potentials.Harmonic(size=1), integrators.Isokinetic(0.1), 1)
