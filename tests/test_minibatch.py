"""Batches: permutations without state, equal inclusion, unbiased forces."""

import numpy as np
import pytest
from scipy import stats

import mdnet
from mdnet import integrators, potentials, random, schedules
from mdnet.backend import resolve
from mdnet.errors import PotentialError
from mdnet.potentials._batches import make_blocks, make_strata
from mdnet.potentials.control_variates import force_variance
from mdnet.potentials.evaluators import ArrayEvaluator, Batch, DenseEvaluator
from mdnet.potentials.minibatch import rows
from mdnet.potentials.networks import MLP
from mdnet.potentials.posterior import Posterior

from .cuda_tools import gpu
from .test_physics_work import exponential_average, regression, work_of

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
@pytest.mark.parametrize(
    ("order", "settings"),
    [
        ("replacement", {}),
        ("without", {}),
        ("stratified", {}),
        ("blocks", {"block": 3, "buffer": 20}),
    ],
)
def test_each_call_is_unbiased(order, settings):
    """5.5 standard errors over 51 weights: a false alarm in 1e-5 of seeds.

    Calls an epoch apart (6 of them) are independent in every order.
    """
    U = _posterior(60)
    q = U.initial(1, seed=2)
    Ub = U.minibatch(10, order, **settings)
    evaluator = Ub.evaluator(resolve("cpu", "double"), 1, 3)
    out, draws = np.empty_like(q), np.empty((2000, U.size))
    for i in range(2000):
        evaluator.forces(q, out, 6 * i + i % 6)
        draws[i] = out[0]
    error = draws.std(axis=0) / np.sqrt(2000)
    mean, exact = draws.mean(axis=0), -U.gradient(q)[0]
    assert (np.abs(mean - exact) < 5.5 * error + 1e-12).all()
    # Negative control: N/(n - 2) instead of N/n.
    prior = -U.prior.gradient(q, U.layout)[0]
    wrong = (mean - prior) * 10 / 8 + prior
    assert (np.abs(wrong - exact) > 5.5 * error).any()


@pytest.mark.parametrize("order", ["shuffle", "replacement", "without", "symmetric"])
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


# --- symmetric epochs ------------------------------------------------------------


@pytest.mark.parametrize(("n_data", "batch"), [(12, 4), (11, 5), (7, 7), (300, 20)])
def test_symmetric_epochs_read_the_same_backwards(n_data, batch):
    calls = n_data // batch
    for turn in (0, 1, 5, 2**31):
        first = 2 * calls * turn
        there = [
            rows(5, 3, first + c, n_data, batch, "symmetric") for c in range(calls)
        ]
        back = [
            rows(5, 3, first + 2 * calls - 1 - c, n_data, batch, "symmetric")
            for c in range(calls)
        ]
        np.testing.assert_array_equal(there, back)
        epoch = [rows(5, 3, turn * calls + c, n_data, batch) for c in range(calls)]
        np.testing.assert_array_equal(there, epoch)
    # Negative control: shuffled epochs do not.
    if calls > 1:
        epoch = [rows(5, 3, c, n_data, batch) for c in range(2 * calls)]
        assert not np.array_equal(epoch, epoch[::-1])


@pytest.mark.physics
@pytest.mark.parametrize("steps", [7, 11])
def test_jarzynski_holds_with_symmetric_epochs(steps):
    """Evidence of a regression: force calls 0 to ``steps`` are whole double epochs.

    Within 5 standard errors of the full work, a false alarm in 1e-6 of seeds.
    """
    U, replicas = regression(noise=8.0), 40_000
    prior = potentials.Harmonic(1.0, size=3)
    exact = prior.log_partition() - U.log_evidence()
    sim = mdnet.Simulation(
        potentials.interpolate(prior, U.minibatch(20, order="symmetric")),
        integrators.Splitting("OBABO", dt=0.5, temperature=1.0, friction=1.0),
        replicas=replicas,
        positions=prior.sample(replicas, seed=5),
        seed=5,
        backend="cpu",
        protocol=schedules.linear(0.0, 1.0, steps),
    )
    protocol, full = work_of(sim, steps)
    value, error = exponential_average(full)
    assert error < 0.02
    assert abs(value - exact) < 5 * error
    value, error = exponential_average(protocol)
    assert abs(value - exact) > 5 * error  # negative control


# --- independent batches without repeats -----------------------------------------


def _shared_rows(order):
    """Rows that batches of two neighbouring calls share, (100,000,)."""
    a, b = (rows(3, 100_000, call, 9, 3, order) for call in (4, 5))
    return (a[:, :, None] == b[:, None, :]).sum(axis=(1, 2))


@pytest.mark.physics
def test_batches_without_repeats_are_independent():
    drawn = rows(1, 300_000, 2, 13, 5, "without")
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    for column in range(5):
        counts = np.bincount(drawn[:, column], minlength=13)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM
    assert _pair_p_value(drawn[:, 0], drawn[:, 4], 13) > FALSE_ALARM
    # Two sets of 3 of 9 rows share a hypergeometric number.
    counts = np.bincount(_shared_rows("without"), minlength=4)
    law = stats.hypergeom(9, 3, 3).pmf(range(4)) * counts.sum()
    assert stats.chisquare(counts, law).pvalue > FALSE_ALARM
    # Negative control: neighbours in an epoch share none.
    assert _shared_rows("shuffle").max() == 0


# --- strata ----------------------------------------------------------------------


def _labels():
    return np.repeat([2, 0, 1], [24, 12, 24])


def _stratified(n, labels=None, calls=2000, replicas=50):
    plan = make_strata(_labels() if labels is None else labels, None, 60)
    return np.concatenate([plan.draw(7, replicas, c, n) for c in range(calls // 50)])


def test_shares_that_are_whole_are_exact():
    drawn = _stratified(10)
    counts = np.apply_along_axis(np.bincount, 1, _labels()[drawn])
    assert (counts == [2, 4, 4]).all()
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()


@pytest.mark.physics
@pytest.mark.parametrize("n", [1, 7, 59])
def test_shares_are_rounded_and_rows_equally_likely(n):
    drawn = _stratified(n, calls=20_000)
    counts = np.stack([(_labels()[drawn] == c).sum(axis=1) for c in range(3)], axis=1)
    share = n * np.array([12, 24, 24]) / 60
    assert (np.abs(counts - share) < 1).all()
    assert (counts.sum(axis=1) == n).all()
    seen = np.bincount(drawn.ravel(), minlength=60)
    p = n / 60  # rows of a batch exclude one another: a chi-square is too small, if any
    z = (seen - len(drawn) * p) / np.sqrt(len(drawn) * p * (1 - p))
    assert np.abs(z).max() < 6
    # Negative control: as many of each class, whatever its size.
    if n == 7:
        even = np.where(_labels() == 0, 2 / 12, 2.5 / 24)
        assert np.abs((seen / len(drawn) - even) / np.sqrt(p / len(drawn))).max() > 6


def test_strata_are_less_noisy_where_classes_differ():
    """Targets far apart, the class given: hardly any noise is left."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    y = 10.0 * labels + 0.1 * rng.normal(size=120)
    U = Posterior(MLP([4, 1]), "gaussian", data=(_data(120)[0] * 0.1, y))
    q = np.array([0.0, 0.0, 0.0, 0.0, 5.0])
    free = force_variance(U.minibatch(12, "without"), q)
    bound = force_variance(U.minibatch(12, "stratified", strata=labels), q)
    assert bound < 0.1 * free
    # By name or by number, and in any order of the rows, as the description has it.
    names = np.array(["a", "b"])[labels]
    a, b = (U.minibatch(12, "stratified", strata=x) for x in (labels, names))
    assert a.describe() == b.describe()
    assert force_variance(b, q) == bound


# --- blocks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_data", "batch", "block", "buffer"),
    [(103, 5, 7, 25), (100, 10, 10, 20), (64, 8, 1, 64), (50, 7, 50, 10), (9, 9, 4, 2)],
)
def test_an_epoch_of_blocks_visits_distinct_rows(n_data, batch, block, buffer):
    plan = make_blocks(n_data, batch, 8, block, buffer)
    calls = n_data // batch
    for epoch in (0, 1, 2**33):
        drawn = [plan.draw(5, 3, epoch * calls + c, batch) for c in range(calls)]
        for replica in np.concatenate(drawn, axis=1):
            assert len(set(replica)) == calls * batch
            assert 0 <= replica.min() <= replica.max() < n_data
        buffers = -(-n_data // plan.buffer)
        read = [plan.rows_in(5, epoch, b) for b in range(buffers)]
        assert sorted(np.concatenate(read)) == list(range(n_data))
    a, b = (plan.draw(5, 3, c, batch) for c in (0, calls))
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(plan.draw(5, 1, 0, batch), a[:1])


@pytest.mark.physics
def test_blocks_have_every_row_equally_often():
    plan = make_blocks(23, 3, 8, 4, 9)
    firsts = np.stack([plan.draw(2, 1, 7 * e + 4, 3)[0] for e in range(4_000)])
    for column in range(3):
        counts = np.bincount(firsts[:, column], minlength=23)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM
    # What it is not: pairs from one block are too many.
    near = np.abs(firsts[:, 0] - firsts[:, 1]) < 3
    pairs = sum(2 * (23 - d) for d in (1, 2)) / (23 * 22)
    assert stats.binomtest(int(near.sum()), 4_000, pairs).pvalue < FALSE_ALARM


def test_blocks_are_read_as_runs():
    plan = make_blocks(1000, 10, 8, 50, 200)
    runs = plan.ranges(3, 0, 1)
    assert len(runs) <= 200 // 50 + 3
    assert sum(stop - first for first, stop in runs) == 200
    rows_of_batch = plan.draw(3, 4, 25, 10)
    inside = plan.rows_in(3, 0, 1)
    assert np.isin(rows_of_batch, inside).all()


def test_default_blocks_follow_the_width_of_a_row():
    plan = make_blocks(10**6, 128, 4096, None, None)
    assert plan.block == 256
    assert plan.buffer == 16384
    assert make_blocks(100, 8, 4096, None, None).buffer == 96


@gpu
@pytest.mark.parametrize("order", ["without", "symmetric"])
def test_a_device_draws_the_same_rows(order):
    from mdnet.kernels import cuda_network as kernels
    from mdnet.kernels.codes import ORDERS
    from mdnet.kernels.cuda_build import Launch

    b = resolve("cuda", "double")
    data = b.asarray(np.arange(23.0)[:, None])
    x, t = b.asarray(np.empty((2, 3, 1))), b.asarray(np.empty((2, 1, 3)))
    seed, clock = b.asarray(np.array([11, 0], np.uint64)), b.asarray(np.array([2]))
    targets = b.asarray(b.to_host(data).T.copy())
    arrays = (data, targets, x, t, seed, clock)
    launch = Launch(kernels.kernel("gather", False), 6, kernels.LANES, arrays)
    for call in range(9):
        launch(call, 2, ORDERS[order], 5, 2)
        want = rows(11, 2, 4 + call, 23, 5, order)[:, 2:]
        np.testing.assert_array_equal(b.to_host(x)[:, :, 0], want)


@pytest.mark.parametrize("order", ["without", "symmetric"])
def test_linear_regression_has_the_orders_that_need_no_more(order):
    U = regression()
    Ub = U.minibatch(8, order)
    q = U.initial(3, seed=1)
    out = np.empty_like(q)
    for call in (0, 3, 7, 12):
        Ub.evaluator(resolve("cpu", "double"), 3, 4).forces(q, out, call)
        index = rows(4, 3, call, 40, 8, order)
        residual = np.einsum("rnd,rd->rn", U.X[index], q) - U.y[index]
        want = 5 * np.einsum("rn,rnd->rd", residual, U.X[index]) / U.noise**2 + q
        np.testing.assert_allclose(out, -want, atol=1e-11)
    with pytest.raises(PotentialError, match="'symmetric'"):
        U.minibatch(8, "blocks")


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
        ({"batch_size": 8, "order": None}, "'blocks'"),
        ({"batch_size": 8, "strata": np.zeros(120, int)}, "order='stratified'"),
        (
            {"batch_size": 8, "order": "stratified", "strata": np.zeros(9, int)},
            r"expected \(120,\)",
        ),
        ({"batch_size": 8, "order": "stratified", "strata": np.zeros(120)}, "float64"),
        ({"batch_size": 8, "block": 10}, "order='blocks'"),
        ({"batch_size": 8, "order": "blocks", "block": 0}, "block=0"),
        ({"batch_size": 8, "order": "blocks", "buffer": 121}, "buffer=121"),
    ],
)
def test_bad_batches(arguments, message):
    with pytest.raises(PotentialError, match=message):
        _posterior().minibatch(**arguments)


def test_strata_of_real_targets_have_to_be_given():
    U = Posterior(MLP([4, 1]), "gaussian", data=(_data(20)[0], np.arange(20.0)))
    with pytest.raises(PotentialError, match=r"strata=np\.digitize"):
        U.minibatch(4, "stratified")


def test_bad_rows():
    with pytest.raises(PotentialError, match="seed"):
        rows(-1, 1, 0, 10, 2)
    with pytest.raises(PotentialError, match=r"2\*\*32"):
        rows(0, 1, 0, 2**40, 2)
