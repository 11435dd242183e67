"""Boltzmann machines against the sum over all their states.

Statistical checks have a fixed seed; false alarms of another seed are stated beside.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from mdnet import potentials
from mdnet.errors import PotentialError
from mdnet.kernels import spins
from mdnet.potentials import _rbm_sampling as sampling
from mdnet.random import seed_words, uniforms


def states(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)


def machine(n_visible, n_hidden, scale=1.0, bias=0.7, seed=0, temperature=1.0):
    rng = np.random.default_rng(seed)
    return potentials.RBM(
        scale * rng.normal(size=(n_visible, n_hidden)),
        bias * rng.normal(size=n_visible),
        bias * rng.normal(size=n_hidden),
        temperature,
    )


def joint(rbm, temperature):
    """All states (v, h) and their probabilities, from the energy alone."""
    v, h = states(rbm.n_visible), states(rbm.n_hidden)
    v, h = np.repeat(v, len(h), 0), np.tile(h, (len(v), 1))
    logs = -rbm.energy(v, h) / temperature
    weights = np.exp(logs)
    return v, h, weights / weights.sum(), np.log(weights.sum())


# --- sums -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n_visible", "n_hidden"), [(5, 3), (3, 5), (4, 4), (1, 1)])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
def test_enumeration_is_the_sum_over_all_states(n_visible, n_hidden, temperature):
    rbm = machine(n_visible, n_hidden, temperature=temperature)
    v, h, p, log_z = joint(rbm, temperature)
    found = rbm.averages()
    assert found.log_partition == pytest.approx(log_z, abs=1e-12)
    assert found.visible == pytest.approx(p @ v, abs=1e-13)
    assert found.hidden == pytest.approx(p @ h, abs=1e-13)
    assert found.both == pytest.approx((v * p[:, None]).T @ h, abs=1e-13)
    estimate = rbm.log_partition()
    assert (estimate.value, estimate.stderr, estimate.method) == (
        pytest.approx(log_z, abs=1e-12),
        0.0,
        "exact",
    )
    marginal = p.reshape(2**n_visible, -1).sum(axis=1)
    assert np.exp(rbm.log_probability(states(n_visible))) == pytest.approx(marginal)


def test_temperature_is_a_factor_of_the_weights():
    """P(beta, W) = P(1, beta W), with the biases; not so with the weights alone."""
    hot = machine(4, 3, temperature=1.7)
    three = [x / 1.7 for x in (hot.weights, hot.visible_bias, hot.hidden_bias)]
    _, _, p, log_z = joint(potentials.RBM(*three), 1.0)
    _, _, q, log_q = joint(hot, 1.7)
    assert p == pytest.approx(q, abs=1e-15)
    assert log_z == pytest.approx(log_q)
    assert hot.log_partition().value == pytest.approx(log_z)
    _, _, wrong, _ = joint(
        potentials.RBM(three[0], *map(np.asarray, (hot.visible_bias, hot.hidden_bias))),
        1.0,
    )
    assert np.abs(wrong - q).max() > 0.01


def test_enumeration_in_chunks_and_of_large_weights(monkeypatch):
    from mdnet.potentials import _rbm_exact

    rbm = machine(30, 9, scale=30.0)
    whole = rbm.averages()
    monkeypatch.setattr(_rbm_exact, "_ELEMENTS", 1000)
    parts = rbm.averages()
    assert parts.log_partition == pytest.approx(whole.log_partition, rel=1e-14)
    assert parts.both == pytest.approx(whole.both, abs=1e-12)
    assert np.isfinite(whole.both).all()


def test_free_energy_and_conditionals():
    rbm = machine(4, 3, temperature=0.8)
    _, _, p, log_z = joint(rbm, 0.8)
    p = p.reshape(16, 8)
    F = -0.8 * (np.log(p.sum(axis=1)) + log_z)
    assert rbm.free_energy(states(4)) == pytest.approx(F)
    given = (p[:, :, None] * states(3)).sum(axis=1) / p.sum(axis=1)[:, None]
    assert rbm.hidden_means(states(4)) == pytest.approx(given)
    given = (p[:, :, None] * states(4)[:, None]).sum(axis=0) / p.sum(axis=0)[:, None]
    assert rbm.visible_means(states(3)) == pytest.approx(given)


def test_pseudo_likelihood_is_that_of_the_conditionals():
    rbm = machine(5, 3, temperature=1.3)
    p = np.exp(rbm.log_probability(states(5)))
    turned = np.arange(32)[:, None] ^ (1 << np.arange(5))
    exact = np.log(p[:, None] / (p[:, None] + p[turned])).sum(axis=1)
    assert rbm.pseudo_log_likelihood(states(5)) == pytest.approx(exact)


# --- samples --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 64, 2050])
def test_units_fire_by_the_numbers_of_the_library(size):
    field = np.random.default_rng(1).normal(size=(3, size))
    out = np.empty_like(field)
    spins.fire(field, out, 2**33 + 5, 96, np.array(seed_words(9), np.uint64))
    u = uniforms(9, np.arange(3), 2**33 + 5, 96, size)
    assert np.array_equal(out, u < 1 / (1 + np.exp(-field)))


def test_other_array_modules_get_the_same_units():
    """A module that is not NumPy takes its uniforms from the host."""
    module = SimpleNamespace(**{name: getattr(np, name) for name in np.__all__})
    field = np.random.default_rng(1).normal(size=(2, 5, 7))
    found = sampling.draw(field, 3, 96, 9, module)
    assert np.array_equal(found, sampling.draw(field, 3, 96, 9, np))


def chi_square(rbm, v, h, temperature):
    """p-value of the counts of all joint states; those expected rarely together."""
    _, _, p, _ = joint(rbm, temperature)
    index = (v @ 2.0 ** np.arange(4)) * 8 + h @ 2.0 ** np.arange(3)
    counts = np.bincount(index.astype(int), minlength=128)
    expected = p * len(v)
    rare = expected < 10
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    value = ((counts - expected) ** 2 / expected).sum()
    dof = len(counts) - 1
    return value / dof, stats.chi2.sf(value, dof)


@pytest.mark.physics
@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_block_gibbs_samples_the_machine(temperature):
    """False alarm 2e-5; a temperature that is 15% off is seen."""
    rbm = machine(4, 3, temperature=temperature)
    v, h = rbm.sample(chains=40_000, sweeps=60, seed=3)
    ratio, p = chi_square(rbm, v, h, temperature)
    assert 1e-5 < p < 1 - 1e-5
    assert 0.6 < ratio < 1.6
    assert chi_square(rbm, v, h, 1.15 * temperature)[1] < 1e-12


def test_chains_go_on_and_do_not_see_each_other():
    rbm = machine(6, 4)
    v, h = rbm.sample(chains=8, sweeps=9, seed=5)
    half, _ = rbm.sample(chains=8, sweeps=4, seed=5)
    again = rbm.sample(chains=8, sweeps=5, start=half, seed=5, first_step=4)
    assert np.array_equal(v, again[0])
    assert np.array_equal(h, again[1])
    few = rbm.sample(chains=3, sweeps=9, seed=5)
    assert np.array_equal(few[0], v[:3])
    other, _ = rbm.sample(chains=8, sweeps=9, seed=6)
    assert not np.array_equal(v, other)


@pytest.mark.physics
def test_annealed_importance_sampling_of_a_large_machine():
    """100 x 16, within 4.5 of its standard errors (false alarm 7e-6)."""
    rbm = machine(100, 16, scale=0.3, seed=2)
    exact = rbm.log_partition().value
    found = rbm.ais(chains=200, steps=400, seed=1)
    assert found.stderr < 0.03
    assert found.n_eff > 100
    assert abs(found.value - exact) < 4.5 * found.stderr
    # Sums over weights that are 1% larger are not taken for it.
    other = potentials.RBM(1.01 * rbm.weights, rbm.visible_bias, rbm.hidden_bias)
    assert abs(other.ais(chains=200, steps=400, seed=1).value - exact) > (
        5 * found.stderr
    )


@pytest.mark.physics
def test_the_error_of_annealing_is_its_stderr():
    """Chi-square of 60 seeds between its 1e-5 and 1 - 1e-5 quantiles."""
    rbm = machine(8, 5, seed=4)
    exact = rbm.log_partition().value
    base = np.linspace(-0.5, 0.5, 8)
    runs = [rbm.ais(chains=300, steps=20, seed=s, base=base) for s in range(60)]
    z = np.array([(run.value - exact) / run.stderr for run in runs])
    assert stats.chi2.ppf(1e-5, 60) < (z**2).sum() < stats.chi2.ppf(1 - 1e-5, 60)
    assert abs(z.mean()) < 4.5 / np.sqrt(60)


# --- mean field -----------------------------------------------------------------------


def mean_field_errors(order, scales):
    """Root mean square over eight machines of the error of ln Z."""
    errors = np.empty((8, len(scales)))
    for seed, row in enumerate(errors):
        rbm = machine(12, 8, seed=seed, bias=1.0)
        for i, scale in enumerate(scales):
            weak = potentials.RBM(
                scale * rbm.weights, rbm.visible_bias, rbm.hidden_bias
            )
            point = weak.tap(order)
            assert point.residual < 1e-10
            row[i] = point.log_partition - weak.log_partition().value
    return np.sqrt((errors**2).mean(axis=0))


def test_orders_of_the_mean_field():
    """Errors of ln Z go as W^2, W^3 and W^4; each band excludes the others."""
    scales = np.array([0.02, 0.04, 0.08])
    slopes = [
        np.polyfit(np.log(scales), np.log(mean_field_errors(order, scales)), 1)[0]
        for order in (1, 2, 3)
    ]
    assert slopes == pytest.approx([2.0, 3.0, 4.0], abs=0.15)


def test_a_higher_order_is_no_guarantee_and_the_difference_warns():
    """At a spread of 0.4, order 3 is further off than 2 in most machines."""
    worse, covered = 0, 0
    for seed in range(20):
        errors = {}
        for order in (2, 3):
            rbm = machine(20, 10, scale=0.4, seed=seed)
            point = rbm.tap(order, damping=0.7)
            errors[order] = abs(point.log_partition - rbm.log_partition().value)
        worse += errors[3] > errors[2]
        covered += 3 * point.order_difference > errors[3]
    assert worse > 10
    assert covered >= 16


def test_first_order_is_the_naive_mean_field():
    rbm = machine(5, 4, scale=0.5)
    point = rbm.tap(1)
    m_h = 1 / (1 + np.exp(-(rbm.hidden_bias + point.visible @ rbm.weights)))
    assert point.hidden == pytest.approx(m_h, abs=1e-9)
    assert point.both == pytest.approx(np.outer(point.visible, point.hidden))
    assert point.log_partition < rbm.log_partition().value  # a variational bound
    free = potentials.RBM(0 * rbm.weights, rbm.visible_bias, rbm.hidden_bias)
    assert free.tap(1).order_difference == pytest.approx(0, abs=1e-12)


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: potentials.RBM(np.zeros(3)), r"expected \(n_v, n_h\)"),
        (lambda: potentials.RBM(np.zeros((3, 2)), np.zeros(2)), "visible_bias has"),
        (lambda: potentials.RBM([[np.nan]]), "not finite"),
        (lambda: potentials.RBM([[1.0]], temperature=0), "temperature=0"),
        (lambda: machine(3, 2).free_energy([[0, 1, 0.5]]), "expected 0 and 1 only"),
        (lambda: machine(3, 2).free_energy([0, 1]), r"expected \(n, 3\)"),
        (lambda: machine(3, 2).energy(np.ones((2, 3)), np.ones((1, 2))), "as many"),
        (lambda: machine(3, 2).log_partition("exactly"), "'exact', 'ais' or 'tap'"),
        (lambda: machine(22, 21).log_partition(), r"2\*\*21 states"),
        (lambda: machine(3, 2).tap(4), "order=4"),
        (lambda: machine(3, 2).tap(damping=1.0), "damping=1.0"),
        (lambda: machine(3, 2).ais(chains=1), "chains=1"),
        (lambda: machine(3, 2).ais(base=[0.0]), "base has shape"),
        (lambda: machine(3, 2).sample(2, 1, start=np.ones((3, 3))), "chains=2"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(PotentialError, match=words):
        call()
