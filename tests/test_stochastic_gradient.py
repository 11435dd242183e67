"""Preconditioned SGLD, SGD with weight decay, and the bookkeeping of all baselines."""

import numpy as np
import pytest

from mdnet import integrators, potentials
from mdnet.errors import SchemeError

from .physics_tools import Coupled, Oscillator, stationary, z_scores
from .test_gradient_noise import Noisy, averages, simulate

LIMIT, BLOCKS = 6.0, 40


def preconditioned(dt, **settings):
    return integrators.SGLD(dt=dt, preconditioner="rmsprop", **settings)


def half_line_moment(regularizer, power):
    """<q^2> of exp(-q^2/2) (regularizer + |q|)^power, by quadrature."""
    q = np.linspace(0, 12, 200_001)
    weight = np.exp(-q * q / 2) * (regularizer + q) ** power
    return (q * q * weight).sum() / weight.sum()


@pytest.mark.physics
@pytest.mark.parametrize("k", [1.0, 4.0])
def test_term_gamma_where_the_preconditioner_depends_on_the_weights(k):
    """With decay 0, G = 1/(lambda + |dU/dq|) is a function of the weights.

    With Gamma the law is exp(-U) as dt -> 0; without it is exp(-U)/G.
    """
    small = 2.0
    found = {}
    for correction in (True, False):
        make = preconditioned(
            0.02 / np.sqrt(k), decay=0.0, regularizer=small, correction=correction
        )
        sim = simulate(Oscillator(100, stiffness=k), make, 200, positions=np.zeros(100))
        sim.run(600)
        q2 = 2 * averages(sim, 1500)["potential_energy"] / 100
        found[correction] = q2.reshape(BLOCKS, -1).mean(1)
    # In units of the oscillator's own length the regularizer is lambda/sqrt(k).
    without = half_line_moment(small / np.sqrt(k), 1)
    assert without > 1.25
    assert found[True].mean() == pytest.approx(1.0, abs=0.02)
    assert found[False].mean() == pytest.approx(without, abs=0.03)
    assert z_scores(found[True], without) > LIMIT


def test_term_gamma_is_the_derivative_of_the_preconditioner():
    u = Coupled(np.diag([1.0, 2.0, 3.0]) + 0.2, quartic=0.3)
    q = np.array([[0.5, -0.7, 0.9]])
    make = preconditioned(1e-9, decay=0.8, regularizer=0.1)
    sim = simulate(u, make, 1, positions=q)
    sim.run(1)
    before = sim.state.variables["mean_square"].copy()

    def G(x):
        g = u.gradient(x)
        return 1 / (0.1 + np.sqrt(square(g)))

    def square(g):
        # The mean is freed of its bias: weights 0.8 to 1 after two forces.
        return (0.8 * before + g * g) / 1.8

    sim.run(1)
    width = 1e-5
    total = 0.0
    # One probe of signs sees the off-diagonal part of H too: average over many.
    for step in range(2, 4002):
        sim._companion._measure_pull(step)
        total = total + sim._companion._pull / 4000
    x = sim.state.positions
    exact = [
        (G(x + width * e)[0, i] - G(x - width * e)[0, i]) / (2 * width)
        for i, e in enumerate(np.eye(3))
    ]
    # A young mean counts its newest force for more than 1 - decay.
    np.testing.assert_allclose(total[0] * (1 / 1.8) / 0.2, exact, rtol=0.05)


@pytest.mark.physics
def test_preconditioned_sgld_on_an_anisotropic_gaussian():
    """One step fits stiffnesses from 1 to 10^4, where plain SGLD is stable for none."""
    k = np.geomspace(1, 1e4, 32)
    u = potentials.Harmonic(stiffness=k)
    sim = simulate(u, preconditioned(0.05, regularizer=1e-3), 200)
    sim.run(8000)
    total = 0.0
    for _ in range(50):
        sim.run(40)
        total = total + sim.state.positions**2 * k / 50
    # G is 1/sqrt(k): the error of a step is that of a stiffness sqrt(k).
    soft = total[:, k < 30].mean()
    assert soft == pytest.approx(1.0, abs=0.12)
    with pytest.raises(SchemeError, match="stability"):
        simulate(u, integrators.SGLD(0.05), 1)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("correction", [True, False])
def test_compiled_step_equals_array_operations(precision, correction):
    u = Coupled(np.diag([1.0, 2.0, 3.0]) + 0.2)
    found = []
    for compiled in (True, False):
        make = preconditioned([0.05, 0.1], temperature=0.5, correction=correction)
        sim = simulate(u, make, 2, precision=precision)
        sim._companion._compiled = compiled
        sim.run(4)
        s = sim.state
        found.append([s.positions, s.momenta, s.sums, s.variables["mean_square"]])
    tolerance = 1e-12 if precision == "double" else 2e-4
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "make",
    [
        preconditioned(0.05),
        preconditioned(0.05, correction=False),
        integrators.SGD(0.01, momentum=0.5, weight_decay=0.3),
    ],
)
def test_first_law(make):
    sim = simulate(Oscillator(60), make, 3)
    first = sim.scalars()
    sim.run(50)
    last = sim.scalars()
    gained = last["kinetic_energy"] - first["kinetic_energy"]
    np.testing.assert_allclose(gained, last["heat"] + last["kick_work"], rtol=1e-9)


@pytest.mark.physics
def test_kinetic_temperature_of_preconditioned_momenta():
    sim = simulate(Oscillator(200), preconditioned(0.05, temperature=2.0), BLOCKS)
    sim.run(50)
    found = averages(sim, 200)
    assert z_scores(found["kinetic_temperature"], 2.0) < LIMIT
    assert (z_scores(found["layer_kinetic_temperature"], 2.0) < LIMIT).all()


@pytest.mark.physics
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_weight_decay_is_a_stiffness(momentum):
    """SGD in U = k q^2/2 with a decay lambda settles as without, at k + lambda."""
    h, k, decay, C = 0.1, 1.0, np.repeat([0.5, 2.0], BLOCKS), 2.0
    make = integrators.SGD(h, momentum=momentum, weight_decay=decay)
    sim = simulate(Oscillator(200, k, np.sqrt(C)), make, 2 * BLOCKS)
    sim.run(300)
    q2 = 2 * averages(sim, 2000, every=10)["potential_energy"] / (200 * k)
    plain = integrators.SGD(h, momentum=momentum)
    for found, more in zip(q2.reshape(2, BLOCKS), (0.5, 2.0), strict=True):
        exact = stationary(plain, k + more, noise=C)[0][0, 0]
        assert z_scores(found, exact) < LIMIT
        assert z_scores(found, stationary(plain, k, noise=C)[0][0, 0]) > LIMIT


def test_no_weight_decay_is_the_plain_word():
    plain = integrators.SGD(0.1, momentum=0.5)
    assert integrators.SGD(0.1, 0.5, weight_decay=0.0).describe() == plain.describe()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: integrators.SGLD(0.1, preconditioner="adam"), "'adam'"),
        (lambda: preconditioned(0.1, decay=1.0), "decay=1.0"),
        (lambda: preconditioned(0.1, regularizer=0.0), "regularizer=0.0"),
        (lambda: preconditioned(0.1, mass=2.0), "takes its place"),
        (lambda: preconditioned(0.1, mass=np.ones(3)), "takes its place"),
        (lambda: integrators.SGD(0.1, weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: integrators.SGHMC(0.1, window=0), "window=0"),
        (lambda: integrators.SGNHT(0.1, friction=np.inf), "friction=inf"),
        (lambda: integrators.SGNHT(0.1, temperature=0.0), "SGNHT needs one > 0"),
        (lambda: integrators.SGNHT(0.1, groups="none"), "groups='none'"),
        (lambda: integrators.CCAdL(0.1, groups="parameter"), "groups='parameter'"),
        (lambda: integrators.CCAdL(0.1, covariance="full"), "covariance='full'"),
        (lambda: integrators.CCAdL(0.1, rank=0), "rank=0"),
        (lambda: integrators.CCAdL(0.1, covariance=None), "covariance=None"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(SchemeError, match=message):
        make()


def test_preconditioner_uses_the_rows_of_the_present_force():
    """The probe's difference must see the curvature, not the noise of two batches."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 3))
    u = potentials.LinearRegression(X, X @ np.ones(3) + rng.normal(size=200))
    make = preconditioned(1e-6, decay=0.5)
    sim = simulate(u.minibatch(2, order="replacement"), make, 50)
    sim.run(3)
    before = sim.state.forces.copy()
    sim._companion._measure_pull(3)
    again = np.empty_like(before)
    sim._companion.context.evaluator.forces(sim.state.positions, again, 3)
    np.testing.assert_array_equal(again, before)
    assert np.abs(sim._companion._pull).max() < 100


def test_noisy_potentials_are_what_they_say():
    factor = np.array([[2.0, 0.0], [1.0, 0.5]])
    u = Noisy(0.0, factor)
    sim = simulate(u, integrators.BAOAB(1e-9), 20_000, positions=np.zeros(2))
    sim.run(2)
    found = np.cov(sim.state.forces.T)
    np.testing.assert_allclose(found, factor @ factor.T, atol=0.2)
