"""Bayesian linear regression: evidence, posterior and minibatch noise, all exact."""

import numpy as np
import pytest
from scipy import stats

from mdnet import potentials
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials import minibatch

RNG = np.random.default_rng(3)
X = RNG.normal(size=(24, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.4 * RNG.normal(size=24)
NOISE, SCALE = 0.4, np.array([1.0, 2.0, 0.7])
U = potentials.LinearRegression(X, Y, noise=NOISE, prior_scale=SCALE)
DOUBLE, SINGLE = Backend("cpu", "double", np), Backend("cpu", "single", np)
DEVICE = Backend("cuda", "double", np, simulated=True)


def forces(potential, q, call, backend=DOUBLE, seed=1):
    out = np.empty(q.shape, backend.force_dtype)
    potential.evaluator(backend, len(q), seed).forces(q, out, call)
    return out


def test_energy_is_minus_log_likelihood_minus_log_prior():
    q = RNG.normal(size=(5, 3))
    likelihood = stats.norm(q @ X.T, NOISE).logpdf(Y).sum(axis=1)
    prior = stats.norm(0, SCALE).logpdf(q).sum(axis=1)
    np.testing.assert_allclose(U.energy(q), -likelihood - prior, rtol=1e-12)


def test_evidence_against_the_marginal_law_of_the_data():
    covariance = NOISE**2 * np.eye(24) + X @ np.diag(SCALE**2) @ X.T
    exact = stats.multivariate_normal(np.zeros(24), covariance).logpdf(Y)
    assert U.log_evidence() == pytest.approx(exact, abs=1e-10)
    assert U.log_partition(1.0) == U.log_evidence()
    wrong = potentials.LinearRegression(X, Y, noise=NOISE, prior_scale=1.0)
    assert wrong.log_evidence() != pytest.approx(exact, abs=1e-2)


def test_posterior_against_direct_formulas():
    hessian = X.T @ X / NOISE**2 + np.diag(1 / SCALE**2)
    np.testing.assert_allclose(U.covariance, np.linalg.inv(hessian), rtol=1e-11)
    np.testing.assert_allclose(U.covariance(2.5), 2.5 * U.covariance, rtol=1e-14)
    mean = np.linalg.solve(hessian, X.T @ Y / NOISE**2)
    np.testing.assert_allclose(U.mean, mean, rtol=1e-12)
    np.testing.assert_array_equal(U.mean(), U.mean)
    assert np.abs(U.gradient(U.mean())).max() < 1e-12
    assert U.largest_stiffness == pytest.approx(np.linalg.eigvalsh(hessian)[-1])


def test_temperature_is_the_divisor_of_the_energy():
    """exp(-U/T) is the normal law N(m, T / H) times Z(T)."""
    q, t = RNG.normal(size=(4, 3)), 1.7
    density = stats.multivariate_normal(U.mean, U.covariance(t)).logpdf(q)
    np.testing.assert_allclose(-U.energy(q) / t - U.log_partition(t), density)


def test_moments_are_plain_arrays_in_arithmetic():
    assert type(U.mean + 1) is np.ndarray
    assert type(U.covariance @ U.mean) is np.ndarray
    assert type(U.mean[:2]) is np.ndarray
    assert isinstance(U.mean.sum(), float)
    with pytest.raises(TypeError, match="one temperature"):
        U.mean.reshape(3, 1)(2.0)


def test_start_and_predictions():
    q = U.initial(4000, seed=2)
    np.testing.assert_allclose(q.std(axis=0), SCALE, rtol=0.06)
    prediction = U.predict(q[:6], X[:5])
    assert prediction.shape == (6, 5, 1)
    np.testing.assert_allclose(prediction[2, :, 0], X[:5] @ q[2])
    batches = U.minibatch(4)
    np.testing.assert_array_equal(batches.initial(3, seed=2), q[:3])
    np.testing.assert_array_equal(batches.predict(q[:6], X[:5]), prediction)


# --- minibatches ----------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_batch_force_is_the_sum_over_its_rows(order, shared):
    q, call, seed = RNG.normal(size=(3, 3)), 5, 11
    index = minibatch.rows(seed, 3, call, 24, 8, order, shared)
    expected = np.empty((3, 3))
    energy = np.empty(3)
    for r in range(3):
        x, y = X[index[r]], Y[index[r]]
        residual = x @ q[r] - y
        expected[r] = -24 / 8 * x.T @ residual / NOISE**2 - q[r] / SCALE**2
        energy[r] = 24 / 8 * (residual**2).sum() / 2 / NOISE**2
        energy[r] += (q[r] ** 2 / SCALE**2).sum() / 2 + U.constant
    batches = U.minibatch(8, order=order, shared=shared)
    for backend in (DOUBLE, DEVICE):
        evaluator = batches.evaluator(backend, 3, seed)
        assert evaluator.full is False
        assert evaluator.polynomial is None
        out, energies = np.empty((3, 3)), np.empty(3)
        evaluator.forces(q, out, call, energies)
        np.testing.assert_allclose(out, expected, rtol=1e-12)
        np.testing.assert_allclose(energies, energy, rtol=1e-12)
        evaluator.energies(q, energies)
        np.testing.assert_allclose(energies, U.energy(q), rtol=1e-14)
        evaluator.gradients(q, out)
        np.testing.assert_allclose(out, U.gradient(q), rtol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 8, 24])
def test_an_epoch_of_shuffled_batches_is_the_full_force(batch_size):
    q = RNG.normal(size=(3, 3))
    batches, calls = U.minibatch(batch_size), 24 // batch_size
    for epoch in (0, 7):
        total = sum(forces(batches, q, epoch * calls + c) for c in range(calls))
        np.testing.assert_allclose(total / calls, -U.gradient(q), rtol=1e-11)
    if calls > 1:  # Negative control: one batch more is no epoch.
        total += forces(batches, q, 8 * calls)
        assert not np.allclose(total / (calls + 1), -U.gradient(q), rtol=1e-3)


@pytest.mark.physics
@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_noise_of_batch_forces(order):
    """Mean and covariance of the force over 40000 batches, at 5 standard errors.

    Twelve numbers each at 5.7e-7: a false alarm in 10^5 seeds.
    """
    n, batch = 40_000, 8
    q = np.tile([0.5, -1.0, 0.2], (n, 1))
    batches = U.minibatch(batch, order=order)
    noise = forces(batches, q, 3, seed=5) + U.gradient(q[:1])
    error = noise.std(axis=0) / np.sqrt(n)
    assert (np.abs(noise.mean(axis=0)) < 5 * error).all()
    products = noise[:, :, None] * noise[:, None, :]
    error = products.std(axis=0) / np.sqrt(n)
    exact = U.force_noise_covariance(q[0], batch, order=order)
    assert (np.abs(products.mean(axis=0) - exact) < 5 * error).all()
    # Negative control: the other order has another covariance.
    other = {"shuffle": "replacement", "replacement": "shuffle"}[order]
    wrong = U.force_noise_covariance(q[0], batch, order=other)
    assert (np.abs(products.mean(axis=0) - wrong) > 5 * error).any()


def test_all_rows_in_a_batch_leave_no_noise():
    assert np.abs(U.force_noise_covariance(np.zeros(3), 24)).max() == 0


def test_batches_do_not_depend_on_the_company():
    q = RNG.normal(size=(4, 3)).astype(np.float32)
    batches = U.minibatch(8)
    together = forces(batches, q, 2, SINGLE)
    np.testing.assert_array_equal(forces(batches, q[:1], 2, SINGLE)[0], together[0])
    assert together.dtype == np.float32
    exact = forces(batches, q.astype(np.float64), 2)
    np.testing.assert_allclose(together, exact, rtol=1e-3, atol=1e-3)
    energies, out = np.empty(4), np.empty_like(q)
    batches.evaluator(SINGLE, 4, 1).forces(q, out, 2, energies)
    values, out = np.empty(4), np.empty((4, 3))
    batches.evaluator(DOUBLE, 4, 1).forces(q.astype(float), out, 2, values)
    np.testing.assert_array_equal(energies, values)


def test_describe_tells_data_and_batches_apart():
    other = potentials.LinearRegression(X, Y + 1e-12, noise=NOISE, prior_scale=SCALE)
    assert other.describe() != U.describe()
    assert U.minibatch(8).describe() != U.minibatch(4).describe()
    assert U.minibatch(8).describe()["minibatch"]["order"] == "shuffle"


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: potentials.LinearRegression(X, Y[:-1]), "y has shape"),
        (lambda: potentials.LinearRegression(X, Y[:, None]), "ravel"),
        (lambda: potentials.LinearRegression(X[:, 0], Y), "None"),
        (lambda: potentials.LinearRegression(np.empty((0, 3)), []), "X has shape"),
        (lambda: potentials.LinearRegression(X * np.nan, Y), "not finite"),
        (lambda: potentials.LinearRegression(X, Y, noise=0.0), "noise=0.0"),
        (lambda: potentials.LinearRegression(X, Y, noise=-1.0), "noise=-1.0"),
        (lambda: potentials.LinearRegression(X, Y, prior_scale=0), "prior_scale=0"),
        (lambda: potentials.LinearRegression(X, Y, prior_scale=[1, 2]), "prior_scale"),
        (lambda: U.minibatch(25), "batch_size=25"),
        (lambda: U.minibatch(0), "batch_size=0"),
        (lambda: U.minibatch(8, order="sorted"), "order='sorted'"),
        (lambda: U.force_noise_covariance(np.zeros(3), 25), "batch_size=25"),
        (lambda: U.force_noise_covariance(np.zeros((2, 3)), 5), "one point"),
        (lambda: U.covariance(-1.0), "temperature=-1.0"),
        (lambda: U.predict(np.zeros(3), np.zeros((4, 2))), "expected"),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
