"""Masses that are a matrix, learnt or given, and replicas that precondition each other.

Statistical checks compare means over 40 or more independent blocks with exact ones:
beyond 6 standard errors is a false alarm in 5e-7 of them.
"""

import numpy as np
import pytest
from scipy.integrate import quad

import mdnet
from mdnet import analysis, integrators, potentials, reporters, schedules
from mdnet.errors import SchemeError
from mdnet.integrators import ensemble, metric
from mdnet.integrators.tuning import Covariances

from .physics_tools import Coupled, readings, z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0


def stiff(d=6, condition=1e4):
    """A rotated Gaussian target: stiffness matrix and its directions, softest first."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    H = (rotation * np.geomspace(1, condition, d)) @ rotation.T
    return (H + H.T) / 2, rotation


def simulate(U, integrator, replicas, **settings):
    settings = {"seed": 1, "backend": "cpu", "precision": "double"} | settings
    return mdnet.Simulation(U, integrator, replicas, **settings)


# --- a given matrix ---------------------------------------------------------------


def cosines(root):
    """U = sum of ln cosh y + y^2/4 of y = S^-1 q, as a function of q."""
    back = np.linalg.inv(root)

    def energy(q):
        y = q @ back.T
        return np.logaddexp(y, -y).sum(axis=1) + (y * y).sum(axis=1) / 4

    def gradient(q):
        y = q @ back.T
        return (np.tanh(y) + y / 2) @ back

    return potentials.Custom(len(root), energy, gradient)


R = 6
WORDS = {
    "BAOAB": lambda m: integrators.BAOAB(0.3, np.linspace(0.5, 2, R), 0.7, m),
    "schedule": lambda m: integrators.OBABO(schedules.linear(0.1, 0.3, 20), mass=m),
    "no bath": lambda m: integrators.Yoshida4(0.3, mass=m),
    "SGLD": lambda m: integrators.SGLD(0.05, mass=m),
    "HMC": lambda m: integrators.HMC(0.9, 3, mass=m, jitter=0.4),
    "GHMC": lambda m: integrators.GHMC(0.9, mass=m),
    "tuned": lambda m: integrators.HMC(0.1, 3, 1.0, 0.7, 20, mass=m),
    "NUTS": lambda m: integrators.NUTS(0.4, mass=m, max_depth=4),
    "MALA": lambda m: integrators.MALA(0.4, mass=m),
    "random walk": lambda m: integrators.RandomWalkMetropolis(0.9, mass=m),
    "tempering": lambda m: integrators.ReplicaExchange(
        integrators.BAOAB(0.3, mass=m), [1.0, 1.5], every=2
    ),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_matrix_is_a_change_of_variables(word):
    """q of U(q) under M is S y, y of U(S y) under unit masses, noise for noise."""
    matrix, _ = stiff(4, 300.0)
    root = metric.DenseMass.of(matrix).root
    np.testing.assert_allclose(np.linalg.inv(root @ root.T), matrix, rtol=1e-9)
    y = np.random.default_rng(3).normal(size=(R, 4))
    dense = simulate(cosines(root), WORDS[word](matrix), R, positions=y @ root.T)
    plain = simulate(cosines(np.eye(4)), WORDS[word](1.0), R, positions=y)
    for steps in (7, 26):
        dense.run(steps)
        plain.run(steps)
    np.testing.assert_allclose(
        dense.state.positions, plain.state.positions @ root.T, atol=1e-7
    )
    now, then = dense.scalars(), plain.scalars()
    for name, value in then.items():
        np.testing.assert_allclose(now[name], value, atol=1e-6, err_msg=name)
    if word in ("HMC", "GHMC", "MALA", "random walk"):
        assert (now["accepted"] < 33).any()
    # Negative control: another matrix is another motion.
    other = simulate(cosines(root), WORDS[word](1.5 * matrix), R, positions=y @ root.T)
    other.run(33)
    assert np.abs(other.state.positions - dense.state.positions).max() > 1e-3


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 1.0, 4.0])
def test_the_law_under_a_matrix(T):
    """Stiffness 1 to 10^4, all directions in a few steps; K of the whitened momenta."""
    H, rotation = stiff()
    sim = simulate(
        Coupled(H), integrators.BAOAB(0.5, T, mass=H), 200, positions=np.zeros(6)
    )
    sim.run(30)
    memory = reporters.Memory(2)
    sim.run(200, reporters=[memory])
    q2 = (memory.positions @ rotation) ** 2 * np.geomspace(1, 1e4, 6) / T
    assert (z_scores(q2.mean(0), 1.0) < LIMIT).all()
    assert (z_scores(q2.mean(0), 1.1) > LIMIT).all()
    kinetic = memory["kinetic_temperature"].value[1:].mean(0)
    assert z_scores(kinetic, T) < LIMIT
    # Negative control: masses of the wrong directions leave the soft ones behind.
    wrong = simulate(
        Coupled(H), integrators.BAOAB(0.015, T), 200, positions=np.zeros(6)
    )
    mean = readings(wrong, 100, 2)
    assert z_scores(mean["potential_energy"], 3 * T) > LIMIT


@pytest.mark.physics
def test_first_law_with_a_matrix_and_batches():
    U = posterior()
    rng = np.random.default_rng(2)
    A = rng.normal(size=(U.size, 2 * U.size)) / 8
    word = integrators.OBABO(0.05, 0.5, mass=np.eye(U.size) + A @ A.T)
    sim = simulate(U.minibatch(16), word, 3, precision="single")
    memory = reporters.Memory(1, positions=False)
    sim.run(40, reporters=[memory])
    v = {name: memory[name].value for name in memory.names}
    energy = v["potential_energy"] + v["kinetic_energy"]
    booked = v["heat"] + v["shadow_work"]
    np.testing.assert_allclose(energy - energy[0], booked, atol=1e-9)
    assert np.ptp(v["heat"]) > 1


# --- a matrix that is learnt -------------------------------------------------------


def test_running_covariances():
    rng = np.random.default_rng(0)
    H, _ = stiff(3, 50.0)
    factor = np.linalg.cholesky(np.linalg.inv(H))
    running = Covariances(np, 3)
    T = np.arange(1.0, 8.0)
    rows = rng.normal(size=(30, 7, 3)) @ factor.T
    for q in rows:
        running.update(q + 100.0, np.ones(7))
    exact = np.cov(rows.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(running.take(), exact, rtol=1e-3)
    for q in rows:  # each at its own temperature
        running.update(100 + q * np.sqrt(T)[:, None], T)
    np.testing.assert_allclose(running.take(), exact, rtol=0.3, atol=0.02)
    running.update(rows[0, :5], np.ones(5))  # too few for more than the diagonal
    few = running.take()
    assert np.array_equal(few, np.diag(few.diagonal()))


@pytest.mark.physics
@pytest.mark.parametrize("kind", ["HMC", "NUTS"])
@pytest.mark.parametrize("T", [0.25, 4.0])
def test_the_warm_up_finds_the_matrix(kind, T):
    """M^-1 is the covariance over T; the step grows a hundredfold; the law is exact."""
    H, rotation = stiff()
    more = {"steps": 5, "jitter": 0.5} if kind == "HMC" else {"max_depth": 6}
    make = getattr(integrators, kind)(
        1e-3, temperature=T, warmup=400, adapt_mass="dense", **more
    )
    sim = simulate(Coupled(H), make, 60, positions=np.zeros(6))
    sim.run(400)
    root = sim.state.variables["mass_root"]
    whitened = np.linalg.eigvalsh(root.T @ H @ root)
    assert (whitened > 0.8).all()
    assert (whitened < 1.25).all()
    assert (sim.scalars()["dt"] > 0.1).all()
    learnt = root.copy()
    memory = reporters.Memory(1)
    sim.run(150, reporters=[memory])
    assert np.array_equal(root, learnt)
    q2 = (memory.positions[1:] @ rotation) ** 2 * np.geomspace(1, 1e4, 6) / T
    assert (z_scores(q2.mean(0), 1.0) < LIMIT).all()
    assert (z_scores(q2.mean(0), 1.2) > LIMIT).all()
    draws = 150 * 60
    assert analysis.ess((memory.positions[1:] @ rotation)[..., 0].T).value > draws / 10
    # Negative control: masses of each parameter alone do not whiten a rotated target.
    sim = simulate(
        Coupled(H),
        getattr(integrators, kind)(
            1e-3, temperature=T, warmup=100, adapt_mass=True, **more
        ),
        20,
        positions=np.zeros(6),
    )
    sim.run(100)
    assert (sim.scalars()["dt"] < 0.1).all()


# --- replicas that precondition each other ------------------------------------------


@pytest.mark.physics
@pytest.mark.parametrize("adapt", [0, 400])
def test_condition_number_ten_thousand_in_a_few_steps(adapt):
    """Steps an independent sample takes, softest and stiffest direction; BAOAB: 160."""
    H, rotation = stiff()
    start = 1e-2 * np.random.default_rng(4).normal(size=(64, 6))
    make = integrators.EnsembleQuasiNewton(0.4, 2.0, every=5, adapt=adapt)
    sim = simulate(Coupled(H), make, 64, positions=start)
    sim.run(400)
    memory = reporters.Memory(5)
    sim.run(1000, reporters=[memory])
    q = memory.positions[1:] @ rotation
    for i in (0, 5):
        cost = 64 * 1000 / analysis.ess(q[:, :, i].T).value
        assert cost < (15 if adapt else 30)
    square = q**2 * np.geomspace(1, 1e4, 6) / 2.0
    assert (z_scores(square.mean(0), 1.0) < LIMIT).all()
    assert (z_scores(square.mean(0), 1.2) > LIMIT).all()
    plain = simulate(Coupled(H), integrators.BAOAB(0.015, 2.0), 16, positions=start[0])
    plain.run(400)
    memory = reporters.Memory(5)
    plain.run(1000, reporters=[memory])
    slow = (memory.positions[1:] @ rotation)[..., 0]
    assert 16 * 1000 / analysis.ess(slow.T).value > 90


def pairs(seed):
    """Mean square distance of two walkers that move together, over its exact value."""
    make = integrators.EnsembleQuasiNewton(0.4, 0.5, every=2, floor=0.1)
    start = np.random.default_rng(seed).normal(size=(4, 1)) * 0.3
    sim = simulate(potentials.Harmonic(size=1), make, 4, positions=start, seed=seed)
    sim.run(40)
    memory = reporters.Memory(8)
    sim.run(480, reporters=[memory])
    q = memory.positions[1:, :, 0]
    return ((q[:, ::2] - q[:, 1::2]) ** 2).mean()


@pytest.mark.physics
def test_walkers_that_see_each_other_keep_the_law(monkeypatch):
    """Two that move are as far apart as they should be; not where they see themselves.

    S is then small where they are close, and they stay there.
    """
    assert z_scores(np.array([pairs(i) for i in range(10)]), 1.0) < 5
    monkeypatch.setattr(ensemble._Halves, "_source", lambda self, half: half)
    assert z_scores(np.array([pairs(i) for i in range(10)]), 1.0) > 5


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 1.0, 4.0])
def test_ensembles_in_a_double_well(T):
    """<x^2> by quadrature; walkers are independent of each other."""

    def moment(n):
        return quad(lambda x: x**n * np.exp(-((x * x - 1) ** 2) / T), -5, 5)[0]

    make = integrators.EnsembleQuasiNewton(0.1, T, every=5)
    start = np.tile([[-1.0], [1.0]], (32, 1)) * np.linspace(0.9, 1.1, 64)[:, None]
    sim = simulate(potentials.DoubleWell(size=1), make, 64, positions=start)
    sim.run(300)
    memory = reporters.Memory(10)
    sim.run(1500, reporters=[memory])
    square = (memory.positions[1:, :, 0] ** 2).mean(0)
    assert z_scores(square, moment(2) / moment(0)) < LIMIT
    assert z_scores(square, 1.2 * moment(2) / moment(0)) > LIMIT


def test_those_who_rest_do_not_move():
    U = potentials.Harmonic(size=2)
    make = integrators.EnsembleQuasiNewton(0.3, every=4)
    sim = simulate(U, make, 16, positions=U.sample(16))
    q, p = sim.state.positions.copy(), sim.state.momenta.copy()
    sim.run(4)
    assert np.array_equal(q[8:], sim.state.positions[8:])
    assert np.array_equal(p[8:], sim.state.momenta[8:])
    assert (q[:8] != sim.state.positions[:8]).all()
    q = sim.state.positions.copy()
    sim.run(4)
    assert np.array_equal(q[:8], sim.state.positions[:8])
    assert (q[8:] != sim.state.positions[8:]).all()
    # Preconditioned by the other half as it was when it began to rest.
    C = np.cov(q[:8].T)
    S = np.swapaxes(sim.state.variables["directions"][1], 0, 1) @ (
        sim.state.variables["gains"][1][:, None] * sim.state.variables["directions"][1]
    )
    np.testing.assert_allclose(S @ S.T, C, rtol=1e-10)


def test_a_floor_gives_all_directions_some_mass():
    """S S^T = mu + C/T where walkers are fewer than parameters, too."""
    U = potentials.Harmonic(size=30)
    T, mu = 2.0, 0.3
    make = integrators.EnsembleQuasiNewton(0.1, T, floor=mu)
    sim = simulate(U, make, 12, positions=U.sample(12, T))
    apply = sim._companion._apply
    S = np.stack([apply(np.tile(e, (12, 1)))[0] for e in np.eye(30)])
    C = np.cov(sim.state.positions[6:].T)
    np.testing.assert_allclose(S @ S.T, mu * np.eye(30) + C / T, atol=1e-12)
    np.testing.assert_allclose(S, S.T, atol=1e-12)


CASES = {
    "matrix": lambda d: integrators.BAOAB(0.05, mass=np.eye(d) + 0.5),
    "HMC": lambda d: integrators.HMC(
        0.02, 3, warmup=60, target_acceptance=0.8, adapt_mass="dense"
    ),
    "NUTS": lambda d: integrators.NUTS(
        0.02, warmup=60, target_acceptance=0.8, adapt_mass="dense", max_depth=3
    ),
    "ensemble": lambda d: integrators.EnsembleQuasiNewton(0.05, every=3, floor=1.0),
    "frozen ensemble": lambda d: integrators.EnsembleQuasiNewton(
        0.05, every=3, floor=1.0, adapt=40
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    U = posterior()
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 35}

    def start():
        potential = U.minibatch(16) if "ensemble" in case else U
        make = CASES[case](U.size)
        return mdnet.Simulation(potential, make, 4, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(70, trajectory=whole, **settings)
    sims[1].run(35, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=sims[0].potential)
    assert_same_state(sims[1], resumed)
    resumed.run(35)
    assert_same_state(sims[0], resumed)
    for name, value in sims[0].state.variables.items():
        assert np.array_equal(value, resumed.state.variables[name]), name
    assert_same_files(whole, parts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: integrators.BAOAB(0.1, mass=[[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: integrators.BAOAB(0.1, mass=[[1.0, 2.0], [2.0, 1.0]]), "positive"),
        (lambda: integrators.BAOAB(0.1, mass=np.eye(2), frozen=["q"]), "frozen"),
        (lambda: integrators.BBK(0.1, mass=np.eye(2)), "BBK takes a number"),
        (lambda: integrators.SGNHT(0.1, mass=np.eye(2)), "SGNHT takes a number"),
        (lambda: integrators.MCLMC(0.1, mass=np.eye(2)), "MCLMC takes a number"),
        (lambda: integrators.HMC(0.1, warmup=50, adapt_mass="all"), "'all': expected"),
        (
            lambda: integrators.HMC(0.1, warmup=50, adapt_mass="dense", mass=2.0),
            "mass=2.0 with adapt_mass",
        ),
        (lambda: integrators.EnsembleQuasiNewton(0.1, floor=-1), "floor=-1"),
        (lambda: integrators.EnsembleQuasiNewton(0.1, word="O{BAB}"), "plain word"),
        (lambda: integrators.EnsembleQuasiNewton(0.1, every=0), "every=0"),
        (lambda: integrators.EnsembleQuasiNewton(0.1, adapt=-1), "adapt=-1"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(SchemeError, match=message):
        make()


def test_sizes_that_do_not_fit_are_refused():
    U = potentials.Harmonic(size=3)
    with pytest.raises(SchemeError, match=r"mass has shape \(2, 2\)"):
        simulate(U, integrators.BAOAB(0.1, mass=np.eye(2)), 1)
    with pytest.raises(SchemeError, match=r"replicas=5.*even"):
        simulate(U, integrators.EnsembleQuasiNewton(0.1), 5)
    with pytest.raises(SchemeError, match="take 12"):
        simulate(U, integrators.EnsembleQuasiNewton(0.1), 10)
    with pytest.raises(SchemeError, match="needs one > 0"):
        simulate(U, integrators.EnsembleQuasiNewton(0.1, 0.0), 12)


def test_a_matrix_is_read_back():
    made = integrators.HMC(0.1, 3, mass=stiff(5)[0])
    again = integrators.from_description(made.describe())
    assert np.array_equal(again.metric.matrix, made.metric.matrix)
    assert again.describe() == made.describe()
