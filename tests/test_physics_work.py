"""The energy ledger: first law, sign of heat, and the Jarzynski and Crooks relations.

The full work (protocol and shadow work) obeys the fluctuation theorems exactly at any
stable step and with minibatches; the protocol work alone does not.  For a harmonic
trap both expectations are known: the latter from a recursion over Gaussian integrals.
Bounds are 5 standard errors, false alarms below 1e-6 each.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, schedules
from mdnet.reporters import Memory

WORDS = ["BAB", "ABA", "BAOAB", "ABOBA", "OBABO", "OABAO", "BAO", "BAOA"]


def regression(noise=2.0):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 3))
    y = X @ [1.0, -0.5, 0.2] + noise * rng.normal(size=40)
    return potentials.LinearRegression(X, y, noise=noise, prior_scale=1.0)


def network():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(50, 3)).astype(np.float32)
    net = potentials.MLP([3, 6, 2], activation="tanh")
    return potentials.Posterior(net, data=(X, (X[:, 0] > 0).astype(int)))


POTENTIALS = {
    "fused": lambda: potentials.DoubleWell(size=300),
    "full": regression,
    "minibatch": lambda: regression().minibatch(8),
    "network": network,
    "network minibatch": lambda: network().minibatch(10),
}


def integrator(word):
    named = {"SGLD": integrators.SGLD, "SGD": integrators.SGD}
    named |= {"Yoshida4": integrators.Yoshida4, "Omelyan4": integrators.Omelyan4}
    if word in named:
        return named[word](dt=0.02)
    return integrators.Splitting(word, dt=0.05, temperature=[0.5, 2.0])


@pytest.mark.parametrize("word", [*WORDS, "SGLD", "SGD", "Yoshida4", "Omelyan4"])
@pytest.mark.parametrize("name", POTENTIALS)
def test_first_law_closes_at_every_step(word, name):
    """E - E0 = heat + protocol + shadow work to 1e-10, in single precision."""
    potential = POTENTIALS[name]()
    sim = mdnet.Simulation(
        potential, integrator(word), replicas=2, seed=7, backend="cpu"
    )
    memory = Memory(1, positions=False)
    sim.run(60, reporters=[memory])
    series = {name: memory[name].value for name in memory.names}
    energy = series["potential_energy"] + series["kinetic_energy"]
    booked = series["heat"] + series["protocol_work"] + series["shadow_work"]
    scale = np.abs(energy).max() + np.abs(series["heat"]).max()
    assert np.abs(energy - energy[0] - booked).max() < 1e-10 * scale
    # Momenta in the state carry the kinetic energy that the ledger says.
    known = 0.5 * (sim.state.momenta.astype(float) ** 2).sum(1)
    np.testing.assert_allclose(series["kinetic_energy"][-1], known, rtol=1e-12)
    np.testing.assert_allclose(
        series["potential_energy"][-1],
        potential.energy(sim.state.positions),
        rtol=1e-6,
    )
    if not sim.integrator.scheme.stochastic:
        assert (series["heat"] == 0).all()
    else:
        # Negative control: leave the heat out, and the law does not close.
        rest = np.abs(energy - energy[0] - booked + series["heat"]).max()
        assert rest > 1e-4 * scale
    assert (series["protocol_work"] == 0).all()


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_ledger_does_not_depend_on_when_it_is_read(steps):
    """Read at every step, or once at the end: heat and work are the same bits."""

    def run(every):
        sim = mdnet.Simulation(
            potentials.DoubleWell(size=2500),
            integrators.OBABO(dt=0.05, temperature=0.5),
            replicas=2,
            seed=1,
            backend="cpu",
        )
        memory = Memory(every, positions=False)
        sim.run(steps, reporters=[memory])
        return {name: memory[name].value[-1] for name in memory.names}

    often, once = run(1), run(steps)
    for name, value in often.items():
        assert np.array_equal(value, once[name]), name


def test_ledger_counts_silent_steps():
    """From the start, read or not; and anew when positions or momenta are set."""
    sim = mdnet.Simulation(
        potentials.Harmonic(size=200), integrators.BAOAB(dt=0.2), seed=1, backend="cpu"
    )

    def energy():
        return sim.scalars()["potential_energy"] + sim.scalars()["kinetic_energy"]

    def booked():
        return sim.scalars()["heat"] + sim.scalars()["shadow_work"]

    known = sim.state.kinetic_energy + sim.potential.energy(sim.state.positions)
    sim.run(50)
    assert abs(sim.scalars()["heat"]) > 0
    assert energy() - known == pytest.approx(booked(), rel=1e-6)
    sim.set_positions(np.ones(200))
    assert sim.scalars()["heat"] == sim.scalars()["shadow_work"] == 0
    known = energy()
    sim.run(50)
    assert energy() - known == pytest.approx(booked(), rel=1e-10)


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "OBABO", "SGLD"])
def test_heat_flows_from_hot_to_cold(word):
    """Warming up takes D T from the baths (half in SGLD's weights), cooling gives it.

    4000 oscillators: the total is within 5 sd of D T/2 for each quadratic degree.
    """
    size, T = 4000, 2.0
    make = getattr(integrators, word)
    for start, final in ((0.0, T), (T, 0.0)):
        sim = mdnet.Simulation(
            potentials.Harmonic(size=size),
            make(dt=0.05, temperature=final),
            positions=np.sqrt(start) * np.random.default_rng(0).normal(size=size),
            momenta=np.sqrt(start) * np.random.default_rng(1).normal(size=(1, size)),
            seed=2,
            backend="cpu",
        )
        before = sum(sim.scalars()[k] for k in ("potential_energy", "kinetic_energy"))
        sim.run(400)
        after = sum(sim.scalars()[k] for k in ("potential_energy", "kinetic_energy"))
        heat = sim.scalars()["heat"][0]
        assert np.sign(heat) == np.sign(final - start)
        # Shadow work is what the step size costs: a few percent of the exchange here.
        assert heat == pytest.approx((after - before)[0], rel=0.1)
        assert abs(abs(heat) - size * T) < 5 * np.sqrt(size) * T + 0.1 * size * T


# --- protocols -----------------------------------------------------------------


def trap(steps):
    """Stiffness 1 to 4 in two dimensions along a straight path."""
    path = potentials.interpolate(
        potentials.Harmonic(1.0, size=2), potentials.Harmonic(4.0, size=2)
    )
    return path, schedules.linear(0.0, 1.0, steps), schedules.linear(1.0, 0.0, steps)


def work_of(sim, steps):
    sim.scalars()
    sim.run(steps)
    end = sim.scalars()
    return end["protocol_work"], end["protocol_work"] + end["shadow_work"]


def switch(h, replicas=40_000, seed=1, backward=False):
    """Protocol and full work of ``replicas`` experiments of total time 4.8."""
    steps = round(4.8 / h)
    path, forward, reverse = trap(steps)
    start = potentials.Harmonic(4.0 if backward else 1.0, size=2)
    sim = mdnet.Simulation(
        path,
        integrators.OBABO(dt=h, temperature=1.0, friction=1.0),
        replicas=replicas,
        positions=start.sample(replicas, seed=seed),
        seed=seed,
        backend="cpu",
        protocol=reverse if backward else forward,
    )
    return work_of(sim, steps)


def protocol_average(h):
    """-ln <exp(-W)> of the protocol work alone in two dimensions, by Gaussian algebra.

    The unnormalised law of (q, p) weighted with exp(-W) stays a Gaussian.
    """
    steps = round(4.8 / h)
    c = np.exp(-h / 2)
    S, log_norm, now = np.eye(2), 0.0, 0.0

    def change(S, log_norm, now, to):
        precision = np.linalg.inv(S)
        precision[0, 0] += 3 * (to - now)
        after = np.linalg.inv(precision)
        ratio = np.linalg.slogdet(after)[1] - np.linalg.slogdet(S)[1]
        return after, log_norm + 0.5 * ratio, to

    for i in range(steps):
        S, log_norm, now = change(S, log_norm, now, (i + 0.5) / steps)
        k = 1 + 3 * now
        bath = np.diag([1.0, c])
        kick, drift = np.array([[1, 0], [-h * k / 2, 1]]), np.array([[1, h], [0, 1]])
        noise = np.diag([0.0, 1 - c * c])
        S = bath @ S @ bath.T + noise
        M = kick @ drift @ kick
        S = M @ S @ M.T
        S = bath @ S @ bath.T + noise
    _, log_norm, _ = change(S, log_norm, now, 1.0)
    return -2 * log_norm


def exponential_average(work):
    """-ln <exp(-W)> and its standard error."""
    weight = np.exp(-(work - work.min()))
    error = weight.std() / weight.mean() / np.sqrt(len(work))
    return work.min() - np.log(weight.mean()), error


@pytest.mark.physics
@pytest.mark.parametrize(
    ("h", "published"), [(0.05, 1.3853), (0.4, 1.4684), (0.8, 1.8977)]
)
def test_jarzynski_holds_for_the_full_work(h, published):
    exact = np.log(4.0)  # = 1.3863
    protocol, full = switch(h)
    value, error = exponential_average(full)
    assert error < 0.01
    assert abs(value - exact) < 5 * error
    value, error = exponential_average(protocol)
    assert abs(value - protocol_average(h)) < 5 * error
    assert protocol_average(h) == pytest.approx(published, abs=0.01)
    if h > 0.1:  # negative control: the protocol's work alone is off
        assert abs(value - exact) > 5 * error


def logistic_slope(forward, backward):
    """Maximum-likelihood slope of ln P_F(W)/P_R(-W) against W, and its error."""
    x = np.concatenate([forward, -backward])
    y = np.concatenate([np.ones_like(forward), np.zeros_like(backward)])
    A = np.stack([np.ones_like(x), x], axis=1)
    beta = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-A @ beta))
        information = (A * (p * (1 - p))[:, None]).T @ A
        beta = beta + np.linalg.solve(information, A.T @ (y - p))
    return beta[1], np.sqrt(np.linalg.inv(information)[1, 1])


@pytest.mark.physics
def test_crooks_slope():
    """One for the full work; .38 for the protocol work at h = .8."""
    forward = switch(0.8, 20_000, seed=3)
    backward = switch(0.8, 20_000, seed=4, backward=True)
    slope, error = logistic_slope(forward[1], backward[1])
    assert error < 0.02
    assert abs(slope - 1) < 5 * error
    slope, error = logistic_slope(forward[0], backward[0])
    assert slope == pytest.approx(0.381, abs=0.04)
    assert slope < 1 - 5 * error


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "OBABO"])
def test_jarzynski_holds_with_minibatches(word):
    """Evidence of a linear regression from the forces of bootstrapped batches."""
    U, steps, replicas = regression(noise=8.0), 10, 40_000
    prior = potentials.Harmonic(1.0, size=3)
    exact = prior.log_partition() - U.log_evidence()
    sim = mdnet.Simulation(
        potentials.interpolate(prior, U.minibatch(40, order="replacement")),
        integrators.Splitting(word, dt=0.5, temperature=1.0, friction=1.0),
        replicas=replicas,
        positions=prior.sample(replicas, seed=5),
        seed=5,
        backend="cpu",
        protocol=schedules.linear(0.0, 1.0, steps),
    )
    protocol, full = work_of(sim, steps)
    value, error = exponential_average(full)
    assert error < 0.05
    assert abs(value - exact) < 5 * error
    value, error = exponential_average(protocol)
    assert abs(value - exact) > 5 * error  # negative control


def test_protocol_and_reports():
    """Reading along the way changes no bit of the path, and no work but by rounding."""
    runs = []
    for every in (1, 12):
        path, forward, _ = trap(12)
        sim = mdnet.Simulation(
            path,
            integrators.BAOAB(dt=0.4),
            replicas=5,
            seed=2,
            backend="cpu",
            protocol=forward,
        )
        memory = Memory(every)
        sim.run(12, reporters=[memory])
        runs.append(memory)
    often, once = runs
    assert np.array_equal(often.positions[-1], once.positions[-1])
    for name in ("heat", "kick_work"):
        assert np.array_equal(often[name].value[-1], once[name].value[-1])
    for name in ("protocol_work", "shadow_work", "potential_energy"):
        np.testing.assert_allclose(
            often[name].value[-1], once[name].value[-1], rtol=1e-12
        )
    # The energy is that of the path's end: stiffness 4.
    at_end = 2 * (often.positions[-1].astype(float) ** 2).sum(1)
    np.testing.assert_allclose(often["potential_energy"].value[-1], at_end, rtol=1e-6)


def test_thermometers_follow_the_protocol():
    path, forward, _ = trap(10)
    sim = mdnet.Simulation(
        path, integrators.BAOAB(dt=0.1), replicas=3, seed=2, backend="cpu",
        protocol=forward,
    )  # fmt: skip
    sim.run(10)
    found = sim.thermometers(mdnet.reporters.Reference())
    known = 16 * (sim.state.positions.astype(float) ** 2).sum(1, keepdims=True)
    np.testing.assert_allclose(found["gradient_square"], known, rtol=1e-6)
    np.testing.assert_allclose(found["laplacian"], 8.0, rtol=1e-6)
    np.testing.assert_allclose(sim.stability_limit(), 1.0, rtol=1e-6)
