"""Batches: permutations without state, equal inclusion, unbiased forces."""

import numpy as np
import pytest
from scipy import stats

from mdnet import random
from mdnet.backend import resolve
from mdnet.errors import PotentialError
from mdnet.potentials.evaluators import ArrayEvaluator, Batch, DenseEvaluator
from mdnet.potentials.minibatch import rows
from mdnet.potentials.networks import MLP
from mdnet.potentials.posterior import Posterior

FALSE_ALARM = 1e-6  # probability below which a chi-square test here fails


def _data(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)), rng.integers(0, 3, n)


def _posterior(n=120):
    return Posterior(MLP([4, 6, 3]), "categorical", data=_data(n))


@pytest.mark.parametrize(
    ("n_data", "batch"),
    [(1, 1), (2, 1), (3, 2), (5, 2), (17, 4), (256, 10), (1000, 100), (1025, 32)],
)
@pytest.mark.parametrize("epoch", [0, 3, 2**33])
def test_an_epoch_visits_distinct_rows(n_data, batch, epoch):
    calls = n_data // batch
    drawn = [rows(5, 3, epoch * calls + c, n_data, batch) for c in range(calls)]
    for replica in np.concatenate(drawn, axis=1):
        assert len(set(replica)) == calls * batch
        assert replica.min() >= 0
        assert replica.max() < n_data


def test_counters_decide():
    a = rows(5, 4, 7, 1000, 64)
    assert a.shape == (4, 64)
    assert a.dtype == np.int64
    np.testing.assert_array_equal(a[:2], rows(5, 2, 7, 1000, 64))
    assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(a, rows(6, 4, 7, 1000, 64))
    assert not np.array_equal(a, rows(5, 4, 7 + 1000 // 64, 1000, 64))
    shared = rows(5, 4, 7, 1000, 64, shared=True)
    np.testing.assert_array_equal(shared, np.repeat(a[:1], 4, axis=0))


def test_replacement_is_the_documented_formula():
    """Position i reads lane i % 4 of counter block i // 4."""
    lanes = random.bits(9, np.arange(3), 11, random.STREAM_BATCH, 52)
    words = lanes.reshape(3, 4, 13).swapaxes(1, 2).reshape(3, 52)[:, :50]
    expected = (words.astype(np.uint64) * np.uint64(777)) >> np.uint64(32)
    np.testing.assert_array_equal(rows(9, 3, 11, 777, 50, "replacement"), expected)


def _pair_p_value(first, second, n_data):
    """Chi-square of the ordered pairs (first, second), all distinct ones alike."""
    counts = np.bincount(first * n_data + second, minlength=n_data**2)
    counts = counts.reshape(n_data, n_data)
    assert not np.diag(counts).any()
    return stats.chisquare(counts[~np.eye(n_data, dtype=bool)]).pvalue


@pytest.mark.physics
@pytest.mark.parametrize("n_data", [3, 5, 6, 8, 13, 31, 257])
def test_rows_and_pairs_are_uniform(n_data):
    """Rows in an epoch and pairs inside a batch, over 300,000 replicas' keys."""
    batch = max(2, n_data - 1)
    drawn = rows(1, 300_000 if n_data < 100 else 150_000, 2, n_data, batch)
    for column in (0, 1, -1):
        counts = np.bincount(drawn[:, column], minlength=n_data)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM
    assert _pair_p_value(drawn[:, 0], drawn[:, 1], n_data) > FALSE_ALARM
    assert _pair_p_value(drawn[:, 0], drawn[:, -1], n_data) > FALSE_ALARM


@pytest.mark.physics
def test_the_uniformity_check_can_fail():
    """Negative control: a random shift of the identity has uniform rows, not pairs."""
    shift = rows(1, 300_000, 0, 13, 1, "replacement")[:, 0]
    first, second = shift, (shift + 1) % 13
    assert stats.chisquare(np.bincount(first)).pvalue > FALSE_ALARM
    assert _pair_p_value(first, second, 13) < FALSE_ALARM


@pytest.mark.physics
def test_left_out_rows_are_uniform():
    """The last N mod n rows of an epoch are left out, each row as often as another."""
    counts = np.zeros(11)
    for epoch in range(3):
        seen = np.concatenate(
            [rows(3, 40_000, 2 * epoch + c, 11, 5) for c in (0, 1)], 1
        )
        counts += np.bincount(55 - seen.sum(axis=1), minlength=11)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


@pytest.mark.physics
def test_epochs_are_unrelated():
    a, b = (rows(3, 100_000, call, 9, 9)[:, 0] for call in (0, 1))
    counts = np.bincount(9 * a + b, minlength=81)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("shared", [False, True])
def test_an_epoch_averages_to_the_full_force(precision, shared):
    U = _posterior(120)
    backend = resolve("cpu", precision)
    evaluator = U.minibatch(20, shared=shared).evaluator(backend, 3, seed=8)
    q = U.initial(3, seed=1).astype(backend.state_dtype)
    out, full = np.empty_like(q), np.empty_like(q)
    mean, energy, energies = np.zeros(q.shape), np.zeros(3), np.zeros(3)
    for call in range(6):
        evaluator.forces(q, out, call, energies)
        mean += out / 6
        energy += energies / 6
    evaluator.gradients(q, full)
    tolerance = 1e-12 if precision == "double" else 2e-6
    scale = np.abs(full).max()
    np.testing.assert_allclose(mean, -full, atol=tolerance * scale)
    np.testing.assert_allclose(energy, U.energy(q), rtol=tolerance)
    # Negative control: the prior is not to be multiplied by N/n.
    wrong = mean - 5 * U.prior.gradient(q, U.layout)
    assert np.abs(wrong + full).max() > 1e-3 * scale


@pytest.mark.physics
def test_replacement_is_unbiased():
    """5 standard errors of 2,000 calls over 123 weights: false alarms below 1e-4."""
    U = _posterior(60)
    q = U.initial(1, seed=2)
    evaluator = U.minibatch(10, "replacement").evaluator(resolve("cpu", "double"), 1, 3)
    out, draws = np.empty_like(q), np.empty((2000, U.size))
    for call in range(2000):
        evaluator.forces(q, out, call)
        draws[call] = out[0]
    error = draws.std(axis=0) / np.sqrt(2000)
    mean, exact = draws.mean(axis=0), -U.gradient(q)[0]
    assert (np.abs(mean - exact) < 5 * error + 1e-12).all()
    # Negative control: N/(n - 1) instead of N/n.
    prior = -U.prior.gradient(q, U.layout)[0]
    wrong = (mean - prior) * 10 / 9 + prior
    assert (np.abs(wrong - exact) > 5 * error).any()


@pytest.mark.parametrize("order", ["shuffle", "replacement"])
@pytest.mark.parametrize("shared", [False, True])
def test_both_engines_take_the_same_rows(order, shared):
    U = _posterior(110)
    backend = resolve("cpu", "double")
    batch = Batch(30, order, shared)
    q = U.initial(3, seed=1)
    a, b = np.empty_like(q), np.empty_like(q)
    for call in (0, 2, 5, 2**33):
        DenseEvaluator(U, backend, 3, 4, batch).forces(q, a, call)
        ArrayEvaluator(U, backend, 3, 4, batch).forces(q, b, call)
        np.testing.assert_allclose(a, b, atol=1e-12 * np.abs(b).max())


def test_energies_stay_exact():
    U = _posterior()
    Ub = U.minibatch(16)
    q = U.initial(2)
    evaluator = Ub.evaluator(resolve("cpu", "double"), 2, 0)
    assert not evaluator.full
    assert U.evaluator(resolve("cpu", "double"), 2).full
    np.testing.assert_array_equal(Ub.energy(q), U.energy(q))
    np.testing.assert_array_equal(Ub.gradient(q), U.gradient(q))
    assert Ub.describe()["minibatch"] == {
        "size": 16,
        "order": "shuffle",
        "shared": False,
    }
    assert Ub.layout == U.layout
    X, y = _data(5, seed=9)
    np.testing.assert_array_equal(Ub.predict(q, X), U.predict(q, X))
    np.testing.assert_array_equal(Ub.log_likelihood(q, X, y), U.log_likelihood(q, X, y))
    np.testing.assert_array_equal(Ub.initial(2), q)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 121}, "1 to 120"),
        ({"batch_size": 0}, "1 to 120"),
        ({"batch_size": 12.0}, "an integer from 1"),
        ({"batch_size": True}, "an integer from 1"),
        ({"batch_size": 8, "order": "sorted"}, "'shuffle'"),
    ],
)
def test_bad_batches(arguments, message):
    with pytest.raises(PotentialError, match=message):
        _posterior().minibatch(**arguments)


def test_bad_rows():
    with pytest.raises(PotentialError, match="seed"):
        rows(-1, 1, 0, 10, 2)
    with pytest.raises(PotentialError, match=r"2\*\*32"):
        rows(0, 1, 0, 2**40, 2)
