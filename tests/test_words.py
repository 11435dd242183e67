"""GJF, BBK, stochastic position Verlet, UBU, Leimkuhler-Matthews: exact moments.

Closed forms where there are some (physics table), and for every word the recursion of
its paper, written out here as matrices, by the discrete Lyapunov equation.  Deviations
are judged in standard errors over 40 blocks (Student's t): one sound comparison in 2e6
exceeds `LIMIT`, some 2e-4 for this file.
"""

import numpy as np
import pytest
from scipy.linalg import expm, solve_discrete_lyapunov

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import SchemeError
from mdnet.integrators.companion import NEXT

from .physics_tools import Oscillator, readings, z_scores
from .test_physics_moments import BLOCKS, SIZE, STEPS, TEMPERATURES, measured
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0
WORDS = ["GJF", "BBK", "StochasticPositionVerlet", "UBU", "LeimkuhlerMatthews"]


# --- the recursions of the papers, m = T = 1 ------------------------------------------


def gjf(h, k, g):
    b = 1 / (1 + g * h / 2)
    a = (1 - g * h / 2) * b
    s = np.sqrt(2 * g * h)
    q = np.array([1 - b * h * h * k / 2, b * h])
    p = np.array([-a * h * k / 2, a]) - h * k / 2 * q
    noise = np.array([b * h / 2, b - h * k / 2 * b * h / 2]) * s
    return np.array([q, p]), noise[:, None]


def bbk(h, k, g):
    """State (q, p, z): z is drawn at each time and used on both its sides."""
    s, down = np.sqrt(2 * g * h) / 2, 1 / (1 + g * h / 2)
    half = np.array([-h * k / 2, 1 - g * h / 2, s])
    q = np.array([1.0, 0, 0]) + h * half
    p = (half - h * k / 2 * q) * down
    return np.array([q, p, [0, 0, 0]]), np.array([[0], [s * down], [1.0]])


def spv(h, k, g):
    c = np.exp(-g * h)
    drift = np.array([[1, h / 2], [0, 1]])
    middle = np.array([[1, 0], [-k * (1 - c) / g, c]])
    noise = drift @ np.array([[0], [np.sqrt(1 - c * c)]])
    return drift @ middle @ drift, noise


def free_flight(t, g):
    """Exact flow and covariance of dq = p dt, dp = -g p dt + noise (Van Loan)."""
    A, D = np.array([[0, 1], [0, -g]]), np.diag([0, 2 * g])
    big = expm(np.block([[-A, D], [np.zeros((2, 2)), A.T]]) * t)
    flow = big[2:, 2:].T
    return flow, flow @ big[:2, 2:]


def ubu(h, k, g):
    flow, spread = free_flight(h / 2, g)
    kick = np.array([[1, 0], [-h * k, 1]])
    root = np.linalg.cholesky(spread)
    return flow @ kick @ flow, np.hstack([flow @ kick @ root, root])


def lm(h, k, g):
    """State (q, z)."""
    s = np.sqrt(2 * h) / 2
    return np.array([[1 - h * k, s], [0, 0]]), np.array([[s], [1.0]])


PAPERS = {
    "GJF": gjf,
    "BBK": bbk,
    "StochasticPositionVerlet": spv,
    "UBU": ubu,
    "LeimkuhlerMatthews": lm,
}
CLOSED = {
    "GJF": lambda h, g: (1.0, 1 - h**2 / 4),
    "BBK": lambda h, g: (1 / (1 - h**2 / 4), 1 / (1 + g * h / 2)),
    "LeimkuhlerMatthews": lambda h, g: (1.0, None),
}


def make(word, h, T=1.0, g=1.0):
    if word == "LeimkuhlerMatthews":
        return integrators.LeimkuhlerMatthews(h, T)
    return getattr(integrators, word)(h, T, g)


def stationary(word, h, g=1.0, k=1.0):
    M, noise = PAPERS[word](h, k, g)
    C = solve_discrete_lyapunov(M, noise @ noise.T)
    return C[0, 0] * k, C[1, 1]


@pytest.mark.parametrize("word", CLOSED)
def test_table_solves_the_lyapunov_equation(word):
    for g in (0.3, 1.0, 3.0):
        for h in STEPS:
            for value, known in zip(
                stationary(word, h, g), CLOSED[word](h, g), strict=True
            ):
                if known is not None:
                    assert value == pytest.approx(known, rel=1e-10)


@pytest.mark.physics
@pytest.mark.parametrize("word", WORDS)
def test_moments(word):
    blocks = measured(lambda dt, temperature: make(word, dt, temperature))
    known = np.array([stationary(word, h) for h in STEPS]).T[:, :, None]
    rows = [0] if word == "LeimkuhlerMatthews" else [0, 1]
    seen = blocks[:, rows]
    known = np.repeat(known[rows], len(TEMPERATURES), 2)
    assert (z_scores(seen, known) < LIMIT).all()
    assert (z_scores(seen, 1.02 * known) > LIMIT).all()
    # Negative control: the word without its rule, at the steps that tell them apart.
    if word in ("BBK", "StochasticPositionVerlet"):
        plain = {"BBK": integrators.OBABO, "StochasticPositionVerlet": None}[word]
        plain = plain or (lambda dt, temperature: integrators.Splitting(
            "AOBA", dt, temperature))  # fmt: skip
        assert (z_scores(measured(plain)[:, rows], known)[:, 2:] > LIMIT).any()


@pytest.mark.physics
@pytest.mark.parametrize("word", ["GJF", "BBK", "UBU", "StochasticPositionVerlet"])
@pytest.mark.parametrize("g", [0.2, 4.0])
def test_moments_at_other_frictions_and_masses(word, g):
    """Through force calls, per-parameter masses, double precision."""
    h, T = 0.8, 2.0
    sim = mdnet.Simulation(
        Oscillator(SIZE, stiffness=3.0),
        getattr(integrators, word)(h, T, g, mass=np.full(SIZE, 3.0)),
        BLOCKS,
        positions=np.zeros(SIZE),
        seed=2,
        backend="cpu",
        precision="double",
    )
    sim.run(int(25 / min(g, 1) / h))
    mean = readings(sim, 200, every=10)
    scale = T * SIZE / 2
    seen = np.stack([mean[f"{n}_energy"] / scale for n in ("potential", "kinetic")], 1)
    known = np.array(stationary(word, h, g))
    assert (z_scores(seen, known) < LIMIT).all()
    assert (z_scores(seen, 1.02 * known) > LIMIT).all()


@pytest.mark.parametrize("g", [0.0, 1e-6, 1e-3, 0.3, 3.0, 12.0])
def test_two_baths_make_the_exact_flight(g):
    """U of the letters against Van Loan's matrix exponential: the same law."""
    h = 0.7
    table = integrators.UBU(h, 1.0, g).coefficients(0, 1)[:, 0]
    for start in (0, 6):
        M, Q = np.eye(2), np.zeros((2, 2))
        for i in range(5):
            m, q = np.eye(2), np.zeros((2, 2))
            c, s = table[start + i]
            if i % 2:
                m[1, 1], q[1, 1] = c, s * s
            else:
                m[0, 1] = c
            M, Q = m @ M, m @ Q @ m.T + q
        flow, spread = free_flight(h / 2, g)
        np.testing.assert_allclose(M, flow, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(Q, spread, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("size", [40, 3000])
def test_bbk_is_the_recursion_of_its_paper(precision, size):
    """Step by step with the same noise, which both sides of a time share."""
    h, g, T, steps = 0.3, 0.7, 2.0, 6
    sim = mdnet.Simulation(
        potentials.Harmonic(stiffness=1.0, size=size),
        integrators.BBK(h, T, g),
        2,
        seed=4,
        backend="cpu",
        precision=precision,
    )
    q, p = (x.astype(np.float64) for x in (sim.state.positions, sim.state.momenta))
    z = [mdnet.random.normals(4, np.arange(2), n, 0, size) for n in range(steps + 1)]
    s = np.sqrt(2 * g * T * h)
    for n in range(steps):
        half = p + 0.5 * (-h * q - g * h * p + s * z[n])
        q = q + h * half
        p = (half + 0.5 * (-h * q + s * z[n + 1])) / (1 + g * h / 2)
    sim.run(1)
    sim.run(steps - 1)
    tolerance = 2e-5 if precision == "single" else 1e-12
    np.testing.assert_allclose(sim.state.positions, q, atol=tolerance * 10)
    np.testing.assert_allclose(sim.state.momenta, p, atol=tolerance * 10)
    streams = integrators.BBK(h).streams
    assert streams == (0, 0, 0, 0, NEXT)


def test_gjf_is_the_recursion_of_its_paper():
    h, g, T = 0.3, 0.7, 2.0
    sim = mdnet.Simulation(
        potentials.Harmonic(stiffness=1.0, size=20),
        integrators.GJF(h, T, g),
        1,
        seed=4,
        backend="cpu",
        precision="double",
    )
    q, p = sim.state.positions.copy(), sim.state.momenta.copy()
    b = 1 / (1 + g * h / 2)
    for n in range(5):
        beta = np.sqrt(2 * g * T * h) * mdnet.random.normals(4, np.arange(1), n, 0, 20)
        new = q + b * h * p - b * h * h / 2 * q + b * h / 2 * beta
        p = (1 - g * h / 2) * b * (p - h / 2 * q) + b * beta - h / 2 * new
        q = new
    sim.run(5)
    np.testing.assert_allclose(sim.state.positions, q, atol=1e-12)
    np.testing.assert_allclose(sim.state.momenta, p, atol=1e-12)


@pytest.mark.parametrize("word", WORDS)
def test_joint_launches_and_single_steps_agree(word):
    """Noise that is drawn ahead does not depend on how steps are launched."""
    U = potentials.DoubleWell(size=30)
    sims = [mdnet.Simulation(U, make(word, 0.05), 2, backend="cpu") for _ in range(2)]
    sims[0].run(12)
    for _ in range(12):
        sims[1].run(1)
    assert np.array_equal(sims[0].state.positions, sims[1].state.positions)
    assert np.array_equal(sims[0].state.momenta, sims[1].state.momenta)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("frozen", [(), ["0.weight"]])
def test_a_resumed_run_is_the_uninterrupted_one(word, frozen, tmp_path):
    U = posterior().minibatch(16)
    h = 0.0005 if word == "LeimkuhlerMatthews" else 0.02
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 50}

    def start():
        method = getattr(integrators, word)(h, frozen=frozen)
        return mdnet.Simulation(U, method, 2, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(60, trajectory=whole, **settings)
    sims[1].run(30, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert resumed.integrator.name == word
    resumed.run(30)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)


@pytest.mark.parametrize("word", WORDS)
def test_stability(word):
    """The limit that `growth` finds is where the recursion leaves the unit circle."""
    for h in (1.5, 1.9, 1.99, 2.01, 2.5, 3.0):
        M, _ = PAPERS[word](h, 1.0, 1.0)
        stable = np.abs(np.linalg.eigvals(M)).max() < 1
        assert (make(word, h).growth(1.0) < 1 + 1e-9) == stable, h


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: integrators.Splitting("OBABO", 0.1, rule="spv"),
            "for the word 'AOBA'",
        ),
        (lambda: integrators.Splitting("OBABO", 0.1, rule="best"), "expected one of"),
    ],
)
def test_rules_are_checked(make, message):
    with pytest.raises(SchemeError, match=message):
        make()


@pytest.mark.parametrize("word", ["GJF", "BBK", "UBU", "StochasticPositionVerlet"])
def test_infinite_friction_is_refused(word):
    with pytest.raises(SchemeError, match="LeimkuhlerMatthews"):
        mdnet.Simulation(
            potentials.Harmonic(size=2),
            getattr(integrators, word)(0.1, friction=np.inf),
            1,
        )
