"""Weights of rows, the two temperatures, and labels that are wrong on purpose."""

import math

import numpy as np
import pytest
from scipy import stats

from mdnet import potentials
from mdnet.backend import resolve
from mdnet.potentials import MLP, Posterior
from mdnet.potentials.likelihoods import Categorical, Gaussian, flip_labels
from mdnet.potentials.priors import GaussianPrior

from .test_likelihoods import data_for

DOUBLE = resolve("cpu", "double")


def test_whole_weights_repeat_rows():
    net, (X, y) = data_for(Categorical())
    w = np.array([0, 1, 2, 3, 1, 0, 2, 1, 1, 4, 1])
    weighted = Posterior(net, data=(X, y), weights=w)
    repeated = Posterior(net, data=(np.repeat(X, w, axis=0), np.repeat(y, w)))
    q = weighted.initial(2, seed=1)
    np.testing.assert_allclose(weighted.energy(q), repeated.energy(q), rtol=1e-12)
    np.testing.assert_allclose(weighted.gradient(q), repeated.gradient(q), atol=1e-12)
    plain = Posterior(net, data=(X, y))
    assert np.abs(plain.gradient(q) - weighted.gradient(q)).max() > 0.1
    assert weighted.n_eff == pytest.approx(16**2 / 38)
    assert plain.n_eff == 11
    assert Posterior(net, data=(X, y), weights=np.ones(11)).n_eff == 11
    assert weighted.describe() != plain.describe()
    other = Posterior(net, data=(X, y), weights=w[::-1])
    assert other.describe() != weighted.describe()


def test_weighted_batches_are_unbiased():
    """An epoch of shuffled batches averages to the full force, exactly."""
    net, (X, y) = data_for(Categorical(), n=12)
    U = Posterior(net, data=(X, y), weights=np.linspace(0, 3, 12)).minibatch(3)
    q = U.initial(2, seed=1)
    evaluator, force = U.evaluator(DOUBLE, 2, 0), np.empty((2, U.size))
    total = np.zeros_like(force)
    for call in range(4):
        evaluator.forces(q, force, call)
        total += force / 4
    np.testing.assert_allclose(total, -U.gradient(q), atol=1e-12)


def linear(noise=0.5, scale=0.8, **options):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(20, 2))
    y = X @ [0.7, -0.4] + noise * rng.normal(size=20)
    net, prior = MLP([2, 1], bias=False), GaussianPrior(scale)
    return X, y, Posterior(net, Gaussian(noise), prior, (X, y), **options)


def test_linear_network_is_linear_regression():
    """Energies equal everywhere, and the integral of exp(-U) is the evidence."""
    X, y, U = linear()
    exact = potentials.LinearRegression(X, y, noise=0.5, prior_scale=0.8)
    q = np.random.default_rng(0).normal(size=(6, 2))
    np.testing.assert_allclose(U.energy(q), exact.energy(q), rtol=1e-12)
    axis = np.linspace(-2.5, 2.5, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(-U.energy(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert math.log(mass) == pytest.approx(exact.log_evidence(), abs=1e-9)


def test_two_temperatures():
    """T_L divides the data alone, T all of U; exact Hessians of both."""
    X, y, cold = linear(likelihood_temperature=0.25)
    warm = linear()[2]
    exact = potentials.LinearRegression(X, y, noise=0.5 * 0.5, prior_scale=0.8)
    q = np.random.default_rng(0).normal(size=(6, 2))
    gap = cold.energy(q) - exact.energy(q)
    np.testing.assert_allclose(gap, gap[0], rtol=1e-11)  # a constant
    np.testing.assert_allclose(cold.gradient(q), exact.gradient(q), rtol=1e-11)
    # Dividing all of U by T = 0.25 is another law: its prior is narrower too.
    assert np.abs(warm.gradient(q) / 0.25 - cold.gradient(q)).max() > 0.1
    assert cold.describe()["likelihood_temperature"] == 0.25
    np.testing.assert_array_equal(
        cold.log_likelihood(q, X, y), warm.log_likelihood(q, X, y)
    )


def test_flips_are_as_many_as_asked():
    y = np.random.default_rng(0).integers(0, 5, 400)
    for fraction in (0.0, 0.1, 0.503, 1.0):
        wrong = flip_labels(y, fraction, seed=3)
        assert (wrong != y).sum() == round(400 * fraction)
        assert wrong.min() >= 0
        assert wrong.max() <= 4
        np.testing.assert_array_equal(wrong, flip_labels(y, fraction, seed=3))
    one, other = flip_labels(y, 0.5, seed=3), flip_labels(y, 0.5, seed=4)
    assert (one != other).any()
    # More flips keep those of fewer: an experiment over fractions is nested.
    few, many = flip_labels(y, 0.2) != y, flip_labels(y, 0.6) != y
    assert (many | ~few).all()


@pytest.mark.physics
def test_new_labels_are_uniform():
    """Chi-square of 20,000 labels, false alarm 1e-6; "other" is the control."""
    y = np.zeros(20_000, int)
    any_ = np.bincount(flip_labels(y, 1.0, classes=5, to="any"), minlength=5)
    other = np.bincount(flip_labels(y, 1.0, classes=5), minlength=5)
    assert stats.chisquare(any_).pvalue > 1e-6
    assert stats.chisquare(other[1:]).pvalue > 1e-6
    assert other[0] == 0
