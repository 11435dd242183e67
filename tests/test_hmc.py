"""Hamiltonian Monte Carlo and its kin: best acceptances, warm-up, networks, restart.

Statistical limits are five standard errors over independent replicas: a fresh seed
fails somewhere in this file with probability below 1e-4.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.integrators.tuning import StepTuner, Variances, windows

from .physics_tools import readings, z_scores
from .test_restart import assert_same_state

LIMIT = 5.0


def simulation(potential, integrator, replicas=1, precision="double", **settings):
    return mdnet.Simulation(
        potential,
        integrator,
        replicas=replicas,
        backend="cpu",
        precision=precision,
        **{"seed": 1} | settings,
    )


def posterior():
    rng = np.random.default_rng(9)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = potentials.MLP([3, 4, 2], activation="tanh")
    return potentials.Posterior(net, data=(X, y))


# --- the acceptance that moves farthest -------------------------------------------


def jumps(make, values, d, replicas=2000, steps=4):
    """Mean acceptance and square jump of a unit Gaussian, from equilibrium."""
    each = np.repeat(values, replicas)
    q = np.random.default_rng(0).normal(size=(each.size, d))
    U = potentials.Harmonic(stiffness=1.0, size=d)
    sim = simulation(U, make(each), each.size, "single", positions=q)
    chance, square = 0.0, 0.0
    for _ in range(steps):
        before = sim.state.positions.copy()
        sim.run(1)
        moved = sim.state.positions - before
        square = square + np.einsum("rd,rd->r", moved, moved)
        chance = chance + sim.state.variables["acceptance"]
    shape = (len(values), replicas)
    return [(x / steps).reshape(shape).mean(1) for x in (chance, square)]


@pytest.mark.physics
def test_random_walks_move_farthest_at_acceptance_23():
    d = 50
    scales = np.linspace(1.2, 4.0, 8)
    chance, square = jumps(
        lambda x: integrators.RandomWalkMetropolis(x / np.sqrt(d)), scales, d
    )
    fit = np.polyfit(scales, np.log(square), 3)
    fine = np.linspace(1.2, 4.0, 500)
    best = fine[np.argmax(np.polyval(fit, fine))]
    assert best == pytest.approx(2.38, rel=0.1)
    assert np.interp(best, scales, chance) == pytest.approx(0.234, abs=0.035)


@pytest.mark.physics
def test_hmc_moves_farthest_for_its_cost_at_acceptance_79():
    """Trajectories of length pi/2 at d = 100: jump over gradients is largest there."""
    d, turns = 100, np.array([2, 3, 4, 5, 6, 8])
    chance, moved = [], []
    for n in turns:
        made = integrators.HMC(np.pi / 2 / n, int(n))
        a, square = jumps(lambda x, made=made: made, [0.0], d, 4000, 2)
        chance.append(a[0])
        moved.append(square[0] / n)
    best = int(np.argmax(moved))
    assert 0 < best < len(turns) - 1
    assert chance[best] == pytest.approx(0.79, abs=0.08)


# --- the warm-up ------------------------------------------------------------------


def anisotropic(d=20):
    return potentials.Harmonic(stiffness=np.geomspace(0.1, 1000.0, d), size=d)


@pytest.mark.physics
@pytest.mark.parametrize(
    ("make", "target"),
    [
        (lambda dt: integrators.HMC(dt, 5, 1.0, 0.8, 400), 0.8),
        (lambda dt: integrators.HMC(dt, 5, 1.0, 0.65, 400, shared=True), 0.65),
        (lambda dt: integrators.MALA(dt, 1.0, 1.0, 0.574, 400), 0.574),
        (lambda dt: integrators.GHMC(dt, target_acceptance=0.9, warmup=400), 0.9),
        (lambda dt: integrators.RandomWalkMetropolis(dt, warmup=400), 0.234),
    ],
)
@pytest.mark.parametrize("dt", [1e-3, 3.0])
def test_the_step_finds_its_acceptance(make, target, dt):
    U = potentials.Harmonic(stiffness=4.0, size=20)
    sim = simulation(U, make(dt), 40, positions=U.sample(40))
    sim.run(400)
    found = sim.scalars()["dt"]
    mean = readings(sim, 200, every=1)
    assert mean["acceptance"].mean() == pytest.approx(target, abs=0.07)
    assert np.array_equal(sim.scalars()["dt"], found)  # frozen after the warm-up
    assert (np.ptp(found) == 0) == sim.integrator.tuning.shared


def test_dual_averaging_by_hand():
    """Two updates of the published recursion, in scalars."""
    tuner = StepTuner(np.array([0.5]), 0.8, shared=False)
    mean_error, log_mean = 0.0, np.log(0.5)
    for m, a in ((1, 0.3), (2, 0.9)):
        mean_error = (1 - 1 / (m + 10)) * mean_error + (0.8 - a) / (m + 10)
        log = np.log(5.0) - np.sqrt(m) / 0.05 * mean_error
        log_mean = m**-0.75 * log + (1 - m**-0.75) * log_mean
        tuner.update(np.array([a]))
        assert tuner.step == pytest.approx(np.exp(log), rel=1e-14)
    tuner.finish()
    assert tuner.step == pytest.approx(np.exp(log_mean), rel=1e-14)


def test_running_variances():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(30, 7, 3)) * [1.0, 2.0, 3.0] + 100.0
    running = Variances(np, 3)
    for rows in q:
        running.update(rows, np.ones(7))
    exact = q.reshape(-1, 3).var(0)
    shrunk = (210 * np.log(exact) + 5 * np.log(exact).mean()) / 215
    np.testing.assert_allclose(running.take(), np.exp(shrunk), rtol=1e-10)
    for rows in q:  # each at its own temperature
        T = np.arange(1.0, 8.0)
        running.update(100 + (rows - 100) * np.sqrt(T)[:, None], T)
    assert running.take() == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize("warmup", [20, 50, 99, 150, 1000, 4321])
def test_windows(warmup):
    start, ends = windows(warmup)
    assert 0 < start < ends[0]
    assert list(ends) == sorted(set(ends))
    assert ends[-1] < warmup
    lengths = np.diff([start, *ends])
    assert (lengths[:-1] * 2 <= lengths[1:] + 1).all()


@pytest.mark.physics
def test_masses_follow_the_variances():
    """Stiffness over four decades: without masses the slow directions hardly move."""
    U = anisotropic()
    T = np.array([0.5, 1.0, 1.0, 2.0])
    sim = simulation(
        U, integrators.HMC(0.01, 8, T, 0.8, 600, adapt_mass=True, jitter=0.5), 4
    )
    sim.run(600)
    inverse = sim.state.variables["inverse_mass"]
    ratio = inverse * np.geomspace(0.1, 1000.0, 20)
    assert (ratio > 0.5).all()
    assert (ratio < 2.0).all()
    assert (sim.scalars()["dt"] > 0.3).all()
    memory = reporters.Memory(1)
    sim.run(300, reporters=[memory])
    plain = simulation(U, integrators.HMC(0.03, 8, T, jitter=0.5), 4)
    plain.run(300)
    other = reporters.Memory(1)
    plain.run(300, reporters=[other])
    from mdnet import analysis

    slow = analysis.ess(memory.positions[:, :, 0].T).value
    assert slow > 10 * analysis.ess(other.positions[:, :, 0].T).value


@pytest.mark.physics
def test_after_the_warm_up_the_law_is_exact():
    U = anisotropic()
    sim = simulation(U, integrators.HMC(0.01, 6, 1.0, 0.7, 100, adapt_mass=True), 300)
    sim.run(110)
    mean = readings(sim, 200, every=2)
    assert (z_scores(mean["potential_energy"] / 10, 1.0) < LIMIT).all()
    assert (z_scores(mean["kinetic_energy"] / 10, 1.0) < LIMIT).all()
    assert (z_scores(mean["kinetic_energy"] / 10, 1.02) > LIMIT).all()
    # The ledger closes over the changes of the masses, too.
    values = sim.scalars()
    booked = values["heat"] + values["kick_work"]
    np.testing.assert_allclose(np.diff(values["kinetic_energy"] - booked), 0, atol=40.0)


@pytest.mark.physics
def test_lengths_are_drawn_evenly():
    sim = simulation(
        potentials.Harmonic(size=2), integrators.HMC(0.1, 10, jitter=0.5), 2
    )
    drawn = np.array([sim._companion.repeats(step) for step in range(4000)])
    assert sim.integrator.scheme.force_calls == 15
    counts = np.bincount(drawn, minlength=16)
    assert counts[:5].sum() == 0
    assert counts[16:].sum() == 0
    spread = np.sqrt(4000 / 11)
    assert np.abs(counts[5:16] - 4000 / 11).max() < LIMIT * spread


# --- networks ---------------------------------------------------------------------


@pytest.mark.physics
@pytest.mark.slow
def test_network_posterior_against_a_long_langevin_run():
    U = posterior()
    energies = {}
    for name, made, steps in (
        ("langevin", integrators.BAOAB(0.1, friction=0.5), 6000),
        ("hmc", integrators.HMC(0.25, 8, jitter=0.5), 600),
        ("ghmc", integrators.GHMC(0.25, friction=0.5), 4000),
        ("wrong", integrators.HMC(0.25, 8, 1.1), 600),
    ):
        sim = simulation(U, made, 64, "single", positions=U.initial(64))
        sim.run(steps // 6)
        energies[name] = readings(sim, steps, every=10)["potential_energy"]
    known = energies["langevin"]

    def deviation(name):
        values = energies[name]
        spread = np.hypot(values.std(ddof=1), known.std(ddof=1)) / np.sqrt(64)
        return abs(values.mean() - known.mean()) / spread

    assert deviation("hmc") < LIMIT
    assert deviation("ghmc") < LIMIT
    assert deviation("wrong") > LIMIT


# --- restart ----------------------------------------------------------------------

RUNS = {
    "HMC, all of the warm-up": lambda: integrators.HMC(
        0.05, 4, [1.0, 0.5], 0.8, 60, adapt_mass=True, jitter=0.5
    ),
    "HMC, shared step": lambda: integrators.HMC(0.05, 3, 1.0, 0.8, 60, shared=True),
    "GHMC": lambda: integrators.GHMC(0.1, friction=2.0),
    "MALA": lambda: integrators.MALA(0.01, target_acceptance=0.6, warmup=60),
    "random walk in blocks": lambda: integrators.RandomWalkMetropolis(
        0.1, warmup=60, block=5
    ),
    "bath inside": lambda: integrators.Splitting("{BAOAB}", 0.2),
}


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_restart_is_bitwise(case, precision, tmp_path):
    def start():
        return simulation(posterior(), RUNS[case](), 2, precision)

    whole, cut = start(), start()
    for steps, path in ((23, "a.h5md"), (31, "b.h5md"), (46, "c.h5md")):
        # Told as often: the ledger adds up in the order of the launches.
        whole.run(steps, reporters=[reporters.Memory(10)])
        file = tmp_path / path
        cut.run(steps, trajectory=file, every=10)
        cut = mdnet.Simulation.resume(file, posterior())
    assert_same_state(cut, whole)
    for name, value in whole.state.variables.items():
        assert np.array_equal(cut.state.variables[name], value), name
    with mdnet.open(tmp_path / "b.h5md") as run:
        assert {"acceptance", "accepted", "delta_h"} <= set(run.names)
