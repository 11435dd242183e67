"""Averaged predictions, their uncertainty, and scores."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from mdnet import analysis
from mdnet.errors import PotentialError, TrajectoryError

from .analysis_runs import FakeRun, ar1


class Linear:
    likelihood = "gaussian"

    def predict(self, q, x):
        return np.einsum("nf,rf->rn", x, q)[..., None]


class Softmax:
    likelihood = "categorical"

    def predict(self, q, x):
        logits = np.einsum("nf,rfc->rnc", x, q.reshape(len(q), x.shape[1], -1))
        e = np.exp(logits - logits.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


class Bernoulli:
    likelihood = "bernoulli"

    def predict(self, q, x):
        return 1 / (1 + np.exp(-np.einsum("nf,rf->rn", x, q)[..., None]))


def posterior_run(frames=400, replicas=8, seed=0):
    """Exact draws of a Bayesian linear regression, and its closed form."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 3))
    y = x @ np.array([1.0, -0.5, 0.2]) + 0.5 * rng.normal(size=30)
    precision = x.T @ x / 0.25 + np.eye(3)
    covariance = np.linalg.inv(precision)
    mean = covariance @ x.T @ y / 0.25
    root = np.linalg.cholesky(covariance)
    q = mean + ar1(rng, (frames, replicas, 3), 0.6) @ root.T
    run = FakeRun({"potential_energy": (q**2).sum(-1)}, {"w": (slice(0, 3), (3,))}, q)
    return run, mean, covariance


@pytest.mark.physics
def test_linear_regression_has_the_closed_form():
    run, mean, covariance = posterior_run()
    x = np.random.default_rng(1).normal(size=(20, 3))
    p = analysis.predictive(run, x, potential=Linear(), burn_in=0, max_draws=10_000)
    assert p.kind == "values"
    assert p.n_draws == 3200
    assert p.entropy is None
    exact_mean, exact_variance = x @ mean, np.einsum("nf,fg,ng->n", x, covariance, x)
    assert np.all(np.abs(p.mean[:, 0] - exact_mean) < 6 * p.stderr[:, 0])
    np.testing.assert_allclose(p.variance[:, 0], exact_variance, rtol=0.2)
    # Negative control: half the posterior covariance is told apart.
    assert np.all(np.abs(p.variance[:, 0] / (exact_variance / 2) - 1) > 0.2)


def test_probabilities_and_their_entropies():
    run, *_ = posterior_run()
    run.positions = np.concatenate((run.positions, -run.positions), -1) * 2
    x = np.random.default_rng(2).normal(size=(50, 2))
    p = analysis.predictive(run, x, potential=Softmax(), max_draws=200, batch=16)
    assert p.kind == "probabilities"
    assert p.n_draws == 200
    assert p.mean.shape == p.std.shape == (50, 3)
    np.testing.assert_allclose(p.mean.sum(-1), 1)
    np.testing.assert_allclose(p.entropy, p.expected_entropy + p.mutual_information)
    assert np.all(p.mutual_information >= 0)
    assert np.all(p.entropy <= np.log(3))
    whole = analysis.predictive(run, x, potential=Softmax(), max_draws=200)
    np.testing.assert_allclose(whole.mean, p.mean)
    # A single draw has no mutual information.
    run.positions = np.repeat(run.positions[:1, :1], 400, 0).repeat(8, 1)
    one = analysis.predictive(run, x, potential=Softmax(), burn_in=0)
    np.testing.assert_allclose(one.mutual_information, 0, atol=1e-12)
    np.testing.assert_allclose(one.std, 0, atol=1e-7)


def test_one_probability_counts_as_two_classes():
    run, *_ = posterior_run()
    x = np.random.default_rng(3).normal(size=(5, 3))
    p = analysis.predictive(run, x, potential=Bernoulli())
    assert p.kind == "probabilities"
    assert np.all(p.entropy <= np.log(2))
    assert analysis.accuracy(p, (p.mean[:, 0] > 0.5).astype(int)) == 1


def test_burn_in_drops_frames():
    run, mean, _ = posterior_run(frames=100)
    run.positions = run.positions.copy()
    run.positions[:50] += 100.0
    x = np.eye(3)
    late = analysis.predictive(run, x, potential=Linear(), burn_in=0.5)
    assert late.start == 50
    np.testing.assert_allclose(late.mean[:, 0], mean, atol=0.2)
    early = analysis.predictive(run, x, potential=Linear(), burn_in=0)
    assert np.all(early.mean > 20)


def test_predictive_errors():
    run, *_ = posterior_run(frames=20)
    with pytest.raises(PotentialError, match="no predict"):
        analysis.predictive(run, np.eye(3), potential=object())
    with pytest.raises(PotentialError, match="X_new is empty"):
        analysis.predictive(run, np.zeros((0, 3)), potential=Linear())
    run.positions = None
    with pytest.raises(TrajectoryError, match="stored positions"):
        analysis.predictive(run, np.eye(3), potential=Linear())


def test_the_name_stays_the_function_when_its_module_is_imported():
    module = importlib.import_module("mdnet.analysis.predictive")
    assert analysis.predictive is module.predictive


# --- scores -------------------------------------------------------------------------

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.35, 0.25], [0.0, 0.0, 1.0]])
Y = np.array([0, 1, 2, 2])


def test_scores_by_hand():
    assert analysis.accuracy(P, Y) == 0.75
    right = [0.7, 0.6, 0.25, 1.0]
    assert float(analysis.log_likelihood(P, Y)) == pytest.approx(np.log(right).mean())
    squares = ((P - np.eye(3)[Y]) ** 2).sum(1)
    assert float(analysis.brier(P, Y)) == pytest.approx(squares.mean())
    assert analysis.brier(P, Y).stderr == pytest.approx(squares.std(ddof=1) / 2)
    zero = analysis.log_likelihood(np.array([[0.0, 1.0]]), [0])
    assert "probability 0" in zero.warnings[0]


@pytest.mark.physics
def test_calibration_of_calibrated_and_overconfident():
    rng = np.random.default_rng(4)
    p = rng.dirichlet([1, 1, 1], size=20_000)
    y = (rng.random(20_000)[:, None] > np.cumsum(p, 1)).sum(1)
    good = analysis.calibration(p, y)
    assert good.ece < 0.02
    filled = good.count > 100
    error = np.sqrt(0.25 / good.count[filled])
    gap = np.abs(good.accuracy - good.confidence)[filled]
    assert np.all(gap < 4.5 * error)
    sharp = p**3 / (p**3).sum(1, keepdims=True)
    bad = analysis.calibration(sharp, y)
    assert bad.ece > 0.15
    assert bad.largest > bad.value
    assert good.count.sum() == 20_000
    assert len(good.edges) == 16


def test_calibration_by_hand():
    p = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 4)
    c = analysis.calibration(p, [0, 0, 0, 1, 1, 1, 0, 0], bins=10)
    assert float(c) == pytest.approx(0.5 * abs(0.75 - 0.9) + 0.5 * abs(0.5 - 0.6))
    assert c.largest == pytest.approx(0.15)
    one = analysis.calibration(np.array([[1.0, 0.0]]), [0])
    assert float(one) == 0


@pytest.mark.parametrize(
    "score", ["accuracy", "log_likelihood", "brier", "calibration"]
)
@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (P, [0, 1], "expected probabilities"),
        (P * 3, Y, "not logits"),
        (P, [0, 1, 2, 3], r"\[0, 3\)"),
        (P, [0, 1, 2, 0.5], "integers"),
    ],
)
def test_score_errors(score, p, y, message):
    with pytest.raises(PotentialError, match=message):
        getattr(analysis, score)(p, y)
