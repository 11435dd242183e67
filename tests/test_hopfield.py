"""Associative memories against enumeration, mean field and quadrature.

Statistical checks have a fixed seed; false alarms of another seed are stated beside.
"""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import PotentialError


def memory(count=3, size=8, seed=1, **options):
    return potentials.Hopfield(
        potentials.Hopfield.random_patterns(count, size, seed), **options
    )


def states(n):
    return 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) - 1


# --- mean field -----------------------------------------------------------------------


def test_capacity_is_that_of_the_mean_field_equations():
    load, overlap = potentials.hopfield_capacity()
    assert load == pytest.approx(0.13791, abs=5e-6)
    assert overlap == pytest.approx(0.9674, abs=5e-5)
    assert potentials.hopfield_overlap(load - 1e-9) == pytest.approx(overlap, abs=1e-3)
    assert potentials.hopfield_overlap(load + 1e-6) == 0


@pytest.mark.parametrize("load", [1e-4, 0.05, 0.10, 0.13])
def test_overlap_solves_the_three_equations(load):
    """m, C and r of Amit, Gutfreund and Sompolinsky; other loads do not solve them."""
    m = potentials.hopfield_overlap(load)

    def miss(load):
        x = stats.norm.ppf((1 + m) / 2) / math.sqrt(2)  # m = erf(x)
        width = m / x  # sqrt(2 alpha r)
        C = 2 / math.sqrt(math.pi) * math.exp(-x * x) / width
        r = 1 / (1 - C) ** 2
        return abs(math.sqrt(2 * load * r) - width)

    if m < 1 - 1e-12:
        assert miss(load) < 1e-6
        assert miss(1.02 * load) > 1e-4


@pytest.mark.physics
@pytest.mark.parametrize(
    ("load", "overlap", "tolerance"), [(0.10, 0.996, 0.004), (0.20, 0.37, 0.10)]
)
def test_a_thousand_spins_on_both_sides_of_the_capacity(load, overlap, tolerance):
    """Mean over all patterns of one draw; draws have sds of .0002 and .024."""
    net = memory(round(1000 * load), 1000, seed=3)
    found = net.overlaps(net.retrieve(net.patterns)).diagonal().mean()
    assert found == pytest.approx(overlap, abs=tolerance)
    if load < 0.138:
        assert found == pytest.approx(potentials.hopfield_overlap(load), abs=0.001)
        assert found != pytest.approx(
            potentials.hopfield_overlap(1.1 * load), abs=0.001
        )


# --- spins ----------------------------------------------------------------------------


def test_energy_and_fixed_points():
    net = memory(2, 30)
    s = states(5)
    s = np.concatenate([s] * 6, axis=1)
    J, by_hand = net.couplings, np.zeros(len(s))
    for i in range(30):
        for j in range(i):
            by_hand -= J[i, j] * s[:, i] * s[:, j]
    assert net.energy(s) == pytest.approx(by_hand)
    assert np.array_equal(J, J.T)
    assert not J.diagonal().any()
    start = potentials.Hopfield.random_patterns(20, 30, seed=9)
    end = net.retrieve(start)
    assert (net.energy(end) <= net.energy(start)).all()
    assert (end * (end @ J) >= 0).all()
    assert np.array_equal(net.retrieve(end), end)


def test_pseudo_inverse_keeps_correlated_patterns():
    """30 patterns of 60 spins, three quarters of them up: Hebb's rule loses them."""
    words = np.random.default_rng(2).random((30, 60)) < 0.75
    patterns = np.where(words, 1.0, -1.0)
    inverse = potentials.Hopfield(patterns, "pseudo_inverse")
    assert np.array_equal(inverse.retrieve(patterns), patterns)
    hebb = potentials.Hopfield(patterns)
    assert hebb.overlaps(hebb.retrieve(patterns)).diagonal().mean() < 0.9


@pytest.mark.physics
@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_heat_bath_samples_the_boltzmann_law(temperature):
    """False alarm 2e-5; a temperature that is 10% off is seen."""
    net = memory(2, 6, seed=4, field=0.2)
    start = np.ones((40_000, 6))
    s = net.glauber(start, sweeps=60, temperature=temperature, seed=5)
    counts = np.bincount(((s > 0) @ 2 ** np.arange(6)).astype(int), minlength=64)

    def chance(T):
        w = np.exp(-net.energy(states(6)) / T)
        expected = len(s) * w / w.sum()
        assert expected.min() > 5
        return stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), 63)

    assert 1e-5 < chance(temperature) < 1 - 1e-5
    assert chance(1.1 * temperature) < 1e-8


def test_heat_bath_goes_on_and_replicas_do_not_see_each_other():
    net = memory(2, 20)
    start = potentials.Hopfield.random_patterns(5, 20, seed=3)
    whole = net.glauber(start, sweeps=7, temperature=1.0, seed=2)
    half = net.glauber(start, sweeps=3, temperature=1.0, seed=2)
    rest = net.glauber(half, sweeps=4, temperature=1.0, seed=2, first_step=3)
    assert np.array_equal(rest, whole)
    few = net.glauber(start[:2], sweeps=7, temperature=1.0, seed=2)
    assert np.array_equal(few, whole[:2])
    assert not np.array_equal(
        whole, net.glauber(start, sweeps=7, temperature=1.0, seed=3)
    )
    assert np.array_equal(
        net.glauber(start, sweeps=50, temperature=0.0), net.retrieve(start)
    )


# --- continuous state -----------------------------------------------------------------


def test_gradients_of_both_potentials():
    q = np.random.default_rng(1).normal(size=(3, 8))
    for U in (
        potentials.GradedHopfield(memory(field=0.3), gain=1.7),
        potentials.GradedHopfield(memory(), gain=0.8, temperature=0.6),
        potentials.ModernHopfield(np.random.default_rng(2).normal(size=(5, 8)), 1.4),
    ):
        assert potentials.check_gradient(U, q) < 1e-9
        far = U.energy(1e3 * q)
        assert np.isfinite(far).all()
        single = U.gradient(q.astype(np.float32))
        assert single.dtype == np.float32
        assert single == pytest.approx(U.gradient(q), abs=1e-5)


def test_graded_energy_is_that_of_the_activities():
    """E(V) with the integral of artanh by quadrature."""
    net = memory(2, 4, field=0.2)
    U = potentials.GradedHopfield(net, gain=1.5)
    V = np.array([0.5, -0.9, 0.1, 0.7])
    cost = sum(integrate.quad(np.arctanh, 0, v)[0] for v in V) / 1.5
    by_hand = -0.5 * V @ net.couplings @ V - 0.2 * V.sum() + cost
    assert U.energy(U.potential(V)) == pytest.approx(by_hand)
    assert U.activity(U.potential(V)) == pytest.approx(V)


def test_graded_descent_finds_the_pattern():
    net = memory(3, 100, seed=6)
    U = potentials.GradedHopfield(net, gain=5.0)
    start = net.patterns.copy()
    start[:, ::10] *= -1
    sim = mdnet.Simulation(
        U,
        integrators.BAOAB(dt=0.3, temperature=0.0, friction=1.0),
        positions=U.potential(0.5 * start),
        replicas=3,
        precision="double",
    )
    sim.run(400)
    V = U.activity(sim.state.positions)
    assert ((np.sign(V) * net.patterns).mean(axis=1) == 1).all()
    assert (np.abs(V) > 0.9).all()


@pytest.mark.physics
def test_graded_network_at_a_temperature_samples_the_activities():
    """<V^2> and <V1 V2> by quadrature, within 5 standard errors (1e-6 each)."""
    T, J = 0.5, np.array([[0.0, 0.6], [0.6, 0.0]])
    U = potentials.GradedHopfield(J, gain=1.0, temperature=T)

    def weight(a, b):
        cost = sum(v * np.arctanh(v) + 0.5 * np.log1p(-v * v) for v in (a, b))
        return np.exp((0.6 * a * b - cost) / T)

    def mean(f):
        box = (-1, 1, -1, 1)
        top = integrate.dblquad(lambda a, b: f(a, b) * weight(a, b), *box, epsabs=1e-8)
        return top[0] / integrate.dblquad(weight, *box, epsabs=1e-8)[0]

    exact = np.array([mean(lambda a, b: a * a), mean(lambda a, b: a * b)])
    word = integrators.BAOAB(dt=0.25, temperature=T, friction=1.0)
    sim = mdnet.Simulation(U, word, replicas=4000, seed=2, precision="double")
    sim.run(100)
    draws = []
    for _ in range(20):
        sim.run(20)
        V = U.activity(sim.state.positions)
        draws.append([(V**2).mean(axis=1), V.prod(axis=1)])
    per_replica = np.mean(draws, axis=0)
    error = per_replica.std(axis=1) / math.sqrt(4000)
    z = (per_replica.mean(axis=1) - exact) / error
    assert np.abs(z).max() < 5
    assert abs(per_replica[0].mean() - 1.05 * exact[0]) / error[0] > 5


@pytest.mark.physics
def test_modern_memory_at_one_over_beta_is_a_mixture_of_gaussians():
    """Mean and covariance within 5 standard errors (1e-5 in all)."""
    patterns = np.array([[1.0, 0.2], [-0.8, 0.5], [0.1, -0.6]])
    U = potentials.ModernHopfield(patterns, beta=2.0)
    density = [
        stats.multivariate_normal(x, np.eye(2) / 2.0).logpdf([0.3, -0.4])
        for x in patterns
    ]
    other = [
        stats.multivariate_normal(x, np.eye(2) / 2.0).logpdf([-1.0, 0.7])
        for x in patterns
    ]
    gap = np.log(U.weights @ np.exp(density)) - np.log(U.weights @ np.exp(other))
    energies = U.energy(np.array([[0.3, -0.4], [-1.0, 0.7]]))
    assert -2.0 * (energies[0] - energies[1]) == pytest.approx(gap)
    word = integrators.BAOAB(dt=0.4, temperature=0.5, friction=1.0)
    sim = mdnet.Simulation(U, word, replicas=20_000, seed=3, precision="double")
    sim.run(100)
    q = sim.state.positions
    products = (q - U.mean)[:, :, None] * (q - U.mean)[:, None]
    for draws, exact in ((q, U.mean), (products, U.covariance)):
        error = draws.std(axis=0) / math.sqrt(len(q))
        assert np.abs((draws.mean(axis=0) - exact) / error).max() < 5
    wrong = U.covariance - 0.1 * np.eye(2)  # a variance of 1/beta less 20%
    error = products.std(axis=0) / math.sqrt(len(q))
    assert np.abs((products.mean(axis=0) - wrong) / error).max() > 8


def test_modern_retrieval_lowers_the_energy_to_a_still_point():
    rng = np.random.default_rng(5)
    U = potentials.ModernHopfield(rng.normal(size=(200, 40)), beta=4.0)
    q = U.patterns[:10] + 0.3 * rng.normal(size=(10, 40))
    energies = [U.energy(q)]
    for _ in range(4):
        q = U.retrieve(q)
        energies.append(U.energy(q))
    assert (np.diff(energies, axis=0) <= 1e-12).all()
    assert q == pytest.approx(U.patterns[:10], abs=1e-3)
    assert np.abs(U.gradient(q)).max() < 1e-6


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: potentials.Hopfield([[0, 1]]), r"turn 0 and 1 into them"),
        (lambda: potentials.Hopfield([[1.0, np.nan]]), "not finite"),
        (lambda: potentials.Hopfield([[1, -1]], "oja"), "rule='oja'"),
        (
            lambda: potentials.Hopfield([[1, -1], [1, -1]], "pseudo_inverse"),
            "2 rows of rank 1",
        ),
        (lambda: potentials.Hopfield([[1, -1]], field=[1.0]), "field has shape"),
        (lambda: memory().glauber(np.ones((2, 3))), r"expected \(n, 8\)"),
        (lambda: memory().glauber(np.ones(8), temperature=-1), "temperature=-1"),
        (lambda: memory().glauber(np.ones(8), sweeps=0), "sweeps=0"),
        (lambda: potentials.hopfield_overlap(0), "load=0"),
        (lambda: potentials.GradedHopfield([[0, 1], [2, 0]]), "not symmetric"),
        (lambda: potentials.GradedHopfield([1.0]), r"expected couplings \(N, N\)"),
        (lambda: potentials.GradedHopfield(memory(), gain=0), "gain=0"),
        (lambda: potentials.GradedHopfield(memory(), field=[1.0]), "field has shape"),
        (
            lambda: potentials.GradedHopfield(memory(), temperature=-0.1),
            "temperature=-0.1",
        ),
        (
            lambda: potentials.GradedHopfield(memory()).potential(np.ones(8)),
            r"0\.99 \* spins",
        ),
        (lambda: potentials.ModernHopfield([1.0]), r"expected \(P, N\)"),
        (lambda: potentials.ModernHopfield([[1.0]], beta=-1), "beta=-1"),
        (lambda: potentials.ModernHopfield([[1.0]]).retrieve([1.0]), "q has shape"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(PotentialError, match=words):
        call()
