"""Gradient noise: what errors of the force do to the stationary law, exactly.

Deviations are judged in standard errors over 40 independent blocks (Student's t with
39 degrees of freedom): 6 of them are a false alarm in 5e-7 of the comparisons, so in
less than 1e-3 of fresh seeds anywhere in this file.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials

from .physics_tools import Oscillator, readings, stationary, z_scores

STEPS = np.array([0.25, 0.5, 1.0, 1.5])
TEMPERATURES = np.array([0.25, 1.0, 4.0])
BLOCKS, SIZE, LIMIT = 40, 400, 6.0


def baoab_moments(h, k, T, s, friction=1.0):
    """<q^2> k/T and <p^2>/T after O with force errors of sd s, new at every call."""
    c, nu = np.exp(-friction * h), (h * s) ** 2 / T
    rest = 4 - h * h * k
    return 1 + nu * (1 + c) / ((1 - c) * rest), 1 + 4 * nu * c**2 / (rest * (1 - c**2))


def sgld_variance(h, k, T, s):
    return (T + h * s**2 / 2) / (k * (1 - h * k / 2))


def run_noisy(make, noise, steps=200):
    shape = (BLOCKS, len(STEPS), len(TEMPERATURES))
    h = np.broadcast_to(STEPS[:, None], shape).ravel()
    T = np.broadcast_to(TEMPERATURES, shape).ravel()
    sim = mdnet.Simulation(
        Oscillator(SIZE, noise=noise),
        make(dt=h, temperature=T),
        replicas=h.size,
        positions=np.zeros(SIZE),
        seed=1,
        backend="cpu",
    )
    sim.run(100)
    first = {k: v.copy() for k, v in sim.scalars().items()}
    mean = readings(sim, steps, every=10)
    last = sim.scalars()
    scale = T * SIZE / 2
    return (
        (mean["potential_energy"] / scale).reshape(shape),
        (mean["kinetic_temperature"] / T).reshape(shape),
        ((last["heat"] - first["heat"]) / (steps * SIZE)).reshape(shape),
        ((last["shadow_work"] - first["shadow_work"]) / (steps * SIZE)).reshape(shape),
    )


@pytest.mark.parametrize("friction", [0.2, 1.0, 5.0])
def test_closed_forms_solve_the_lyapunov_equation(friction):
    for h in STEPS:
        for T in TEMPERATURES:
            word = integrators.BAOAB(h, T, friction)
            end, after = stationary(word, 0.8, noise=1.7**2)
            q2, p2 = baoab_moments(h, 0.8, T, 1.7, friction)
            assert end[0, 0] * 0.8 / T == pytest.approx(q2, rel=1e-11)
            assert after[1, 1] / T == pytest.approx(p2, rel=1e-11)
            end, _ = stationary(integrators.SGLD(h, T), 0.8, noise=1.7**2)
            assert end[0, 0] == pytest.approx(sgld_variance(h, 0.8, T, 1.7), rel=1e-11)


def test_heating_at_small_steps():
    """T_eff - T = hC/2 (SGLD, and SGD from zero) and hC/(2 friction) (BAOAB)."""
    h, C = 1e-4, 2.5
    q2, p2 = baoab_moments(h, 1.0, 1.0, np.sqrt(C), friction=3.0)
    assert q2 - 1 == pytest.approx(h * C / (2 * 3.0), rel=1e-3)
    assert p2 - 1 == pytest.approx(h * C / (2 * 3.0), rel=1e-3)
    heated = sgld_variance(h, 1.0, 1.0, np.sqrt(C)) - sgld_variance(h, 1.0, 1.0, 0.0)
    assert heated == pytest.approx(h * C / 2, rel=1e-3)
    for momentum in (0.0, 0.9):
        end, _ = stationary(integrators.SGD(h, momentum=momentum), 1.0, noise=C)
        assert end[0, 0] == pytest.approx(h * C / (2 * (1 - momentum)), rel=2e-3)


@pytest.mark.physics
def test_baoab_with_noisy_forces():
    h, T = STEPS[:, None], TEMPERATURES
    q2, p2, heat, work = run_noisy(integrators.BAOAB, noise=1.0)
    known_q, known_p = baoab_moments(h, 1.0, T, 1.0)
    assert (z_scores(q2, known_q) < LIMIT).all()
    assert (z_scores(p2, known_p) < LIMIT).all()
    # The baths carry off what the noise puts in: -2 (hs)^2/(4 - h^2 k) a step and dof.
    known_heat = -2 * h**2 / (4 - h**2) + 0 * T
    assert (z_scores(heat, known_heat) < LIMIT).all()
    assert (z_scores(work, -known_heat) < LIMIT).all()
    # Negative controls: no noise, noise 10% off, heat of the other sign.
    clear = (h >= 0.5) & (T <= 1.0)
    assert (z_scores(q2, 1.0)[clear] > LIMIT).all()
    assert (z_scores(q2, baoab_moments(h, 1.0, T, 1.1)[0])[clear] > LIMIT).all()
    assert (z_scores(heat, -known_heat) > LIMIT).all()


@pytest.mark.physics
def test_sgld_with_noisy_forces():
    h, T = STEPS[:, None], TEMPERATURES
    q2 = run_noisy(integrators.SGLD, noise=1.0)[0]
    known = sgld_variance(h, 1.0, T, 1.0) / T
    assert (z_scores(q2, known) < LIMIT).all()
    clear = (h >= 0.5) & (T <= 1.0)
    assert (z_scores(q2, sgld_variance(h, 1.0, T, 0.9) / T)[clear] > LIMIT).all()


# --- linear regression: posterior, and its heating by minibatches ----------------


def regression(n=60, d=4, noise=0.8):
    rng = np.random.default_rng(12)
    X = rng.normal(size=(n, d)) * [1.0, 0.7, 0.5, 0.3] + 0.2
    y = X @ rng.normal(size=d) + noise * rng.normal(size=n)
    return potentials.LinearRegression(X, y, noise=noise, prior_scale=2.0)


def minibatch_covariance(U, make, batch):
    """Stationary covariance of the weights with independent batches, to all orders.

    The noise of a batch depends on the weights, linearly: its covariance depends on
    theirs, which is solved for by iteration.
    """
    n, X, noise = U.n_data, U.X, U.noise
    H, residual = U.hessian(U.mean()), X @ U.mean() - U.y
    mean_gradient = X.T @ residual / noise**2 / n
    curvature = X.T @ X / noise**2 / n
    S = np.zeros_like(H)
    for _ in range(100):
        weight = (np.einsum("ni,ij,nj->n", X, S, X) + residual**2) / noise**4
        C = (X.T * weight) @ X / n - curvature @ S @ curvature
        C -= np.outer(mean_gradient, mean_gradient)
        C *= n * n / batch
        end, _ = stationary(make, H, C)
        S = end[: U.size, : U.size]
    return S, C


def measured_covariance(U, potential, make, replicas=4000, steps=150, every=10):
    """Means and products about the mean of (blocks, ...) of replicas."""
    sim = mdnet.Simulation(
        potential,
        make,
        replicas=replicas,
        positions=U.mean(),
        seed=8,
        backend="cpu",
    )
    sim.run(100)
    first, second = 0.0, 0.0
    for _ in range(steps // every):
        sim.run(every)
        x = sim.state.positions.astype(float) - U.mean()
        first, second = first + x, second + x[:, :, None] * x[:, None, :]
    count = steps // every
    shape = (BLOCKS, replicas // BLOCKS)
    blocks = [a.reshape(*shape, *a.shape[1:]).mean(1) / count for a in (first, second)]
    return blocks[0], blocks[1]


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 1.0, 4.0])
def test_linear_regression_posterior(T):
    """Mean, and covariance T H^-1 in every entry, at a step that is not small."""
    U = regression()
    h = 1.0 / np.sqrt(U.largest_stiffness)
    make = integrators.BAOAB(dt=h, temperature=T, friction=1 / h)
    means, products = measured_covariance(U, U, make)
    assert (z_scores(means, 0.0) < LIMIT).all()
    assert (z_scores(products, U.covariance(T)) < LIMIT).all()
    # Negative controls: a temperature 5% off, and OBABO's law at this step.
    assert (z_scores(products, 1.05 * U.covariance(T)).diagonal() > LIMIT).all()
    _, other = measured_covariance(U, U, integrators.OBABO(h, T, 1 / h))
    assert z_scores(other, U.covariance(T)).max() > LIMIT


@pytest.mark.physics
def test_minibatches_heat_as_predicted():
    """Every entry of the covariance, with independent batches of 6 rows of 60."""
    U = regression()
    H = U.hessian(U.mean())
    h, friction = 0.4 / np.sqrt(U.largest_stiffness), 10.0
    make = integrators.BAOAB(dt=h, temperature=1.0, friction=friction)
    predicted, C = minibatch_covariance(U, make, batch=6)
    # The rule of thumb hC/(2 friction) is right to a few percent of the heating here.
    rule = 1 + h * np.trace(C) / (2 * friction * U.size)
    exact = np.trace(H @ predicted) / U.size
    assert exact - 1 > 0.3
    assert exact - 1 == pytest.approx(rule - 1, rel=0.1)
    _, products = measured_covariance(U, U.minibatch(6, order="replacement"), make)
    assert (z_scores(products, predicted) < LIMIT).all()
    # Negative controls: the posterior itself; a batch of 7.
    assert (z_scores(products, U.covariance(1.0)).diagonal() > LIMIT).all()
    wrong, _ = minibatch_covariance(U, make, batch=7)
    assert z_scores(products, wrong).max() > LIMIT


@pytest.mark.physics
def test_noise_covariance_of_the_potential_is_that_of_the_prediction():
    U = regression()
    make = integrators.BAOAB(dt=1e-4, temperature=1e-12, friction=1e3)
    _, C = minibatch_covariance(U, make, batch=6)  # all but at the mean
    known = U.force_noise_covariance(U.mean(), 6, "replacement")
    np.testing.assert_allclose(C, known, rtol=1e-3)


@pytest.mark.physics
def test_shuffled_epochs_heat_less_than_independent_batches():
    """Over an epoch the errors of shuffled batches cancel."""
    U = regression()
    h = 0.4 / np.sqrt(U.largest_stiffness)
    make = integrators.BAOAB(dt=h, temperature=1.0, friction=10.0)
    predicted, _ = minibatch_covariance(U, make, batch=6)
    _, products = measured_covariance(U, U.minibatch(6, order="shuffle"), make)
    cold = products.mean(0).diagonal() < predicted.diagonal()
    assert cold.all()
    assert (z_scores(products, predicted).diagonal() > LIMIT).all()


@pytest.mark.physics
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_is_a_thermostat(momentum):
    """Constant-rate SGD settles at dt C/(2(1 - momentum)), C that of the extensive U.

    With U = N x mean loss and a rate of N dt in the usual units, this is the textbook
    rate x s^2/(2 batch) times N, s^2 the variance of one example's gradient.
    """
    U = regression()
    H = U.hessian(U.mean())
    make = integrators.SGD(dt=0.1 / U.largest_stiffness, momentum=momentum)
    predicted, C = minibatch_covariance(U, make, batch=6)
    T = np.trace(H @ predicted) / U.size
    rule = make.dt * np.trace(C) / (2 * (1 - momentum) * U.size)
    assert pytest.approx(rule, rel=0.15) == T
    gradients = U.X * ((U.X @ U.mean() - U.y) / U.noise**2)[:, None]
    variance = gradients.var(axis=0).mean()  # of one example's, in a unit of U
    textbook = (U.n_data * make.dt) * variance / (2 * 6)
    assert U.n_data * textbook / (1 - momentum) == pytest.approx(rule, rel=0.3)
    _, products = measured_covariance(
        U, U.minibatch(6, order="replacement"), make, steps=600, every=40
    )
    assert (z_scores(products, predicted) < LIMIT).all()
    assert (z_scores(products, 1.1 * predicted).diagonal() > LIMIT).all()
