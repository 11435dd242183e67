"""Autocorrelation, means with errors, burn-in and convergence of chains."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdnet import analysis
from mdnet.analysis import Estimate
from mdnet.errors import PotentialError

from .analysis_runs import ar1


@pytest.fixture(scope="module")
def az():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("arviz")


@pytest.mark.physics
@pytest.mark.parametrize(("phi", "exact"), [(0.95, 39.0), (0.5, 3.0), (-0.7, 3 / 17)])
def test_ar1_time_is_exact(phi, exact):
    x = ar1(np.random.default_rng(1), (50_000, 4), phi).T
    tau = analysis.autocorrelation_time(x)
    # 4.5 sigma: false alarm 7e-6.
    assert abs(tau - exact) < 4.5 * tau.stderr
    assert tau.stderr < 0.1 * exact
    assert tau.n_eff == pytest.approx(200_000 / float(tau))
    assert not tau.warnings
    # Negative control: another phi is told apart.
    other = analysis.autocorrelation_time(
        ar1(np.random.default_rng(2), (50_000, 4), phi - 0.2).T
    )
    assert abs(other - exact) > 4.5 * other.stderr


def test_autocorrelation_shape_and_decay():
    x = ar1(np.random.default_rng(3), (20_000, 4, 3), 0.9)
    rho = analysis.autocorrelation(x.swapaxes(0, 1))
    assert rho.shape == (20_000, 3)
    np.testing.assert_allclose(rho[0], 1.0)
    np.testing.assert_allclose(rho[5], 0.9**5, atol=0.05)
    tau = analysis.autocorrelation_time(x.swapaxes(0, 1))
    assert tau.value.shape == (3,)
    assert np.all(np.abs(tau - 19) < 4.5 * tau.stderr)


def test_constant_and_short_series():
    assert float(analysis.autocorrelation_time(np.ones(100))) == pytest.approx(1, 0.2)
    short = analysis.autocorrelation_time(ar1(np.random.default_rng(0), (60, 1), 0.9).T)
    assert "shorter than 50" in short.warnings[0]
    flat = analysis.mean(np.full((10, 3), 2.0))
    assert (flat.value, flat.stderr) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("shape", "phi"),
    [((1000, 4), 0.5), ((501, 3), 0.95), ((100, 2), -0.5), ((4, 6), 0)],
)
def test_rhat_and_ess_equal_arviz(az, shape, phi):
    x = ar1(np.random.default_rng(4), shape, phi).T
    assert abs(analysis.rhat(x) - az.rhat(x)) < 1e-12
    assert float(analysis.ess(x)) == pytest.approx(az.ess(x), rel=0.02)
    assert float(analysis.mcse(x)) == pytest.approx(
        float(np.ravel(az.mcse(x))[0]), 0.02
    )


def test_rhat_equals_arviz_where_chains_disagree(az):
    rng = np.random.default_rng(5)
    apart = rng.normal(size=(4, 500)) + np.arange(4)[:, None]
    wider = rng.normal(size=(4, 500)) * np.array([1, 1, 1, 4])[:, None]
    ties = rng.integers(0, 5, (4, 500)).astype(float)
    for x in (apart, wider, ties):
        assert abs(analysis.rhat(x) - az.rhat(x)) < 1e-12
        assert float(analysis.ess(x)) == pytest.approx(az.ess(x), rel=0.02)
    assert analysis.rhat(apart) > 1.1
    assert analysis.rhat(wider) > 1.1
    assert "not mixed" in analysis.rhat(apart).warnings[0]
    assert analysis.rhat(ties) < 1.01


def test_trailing_axes_are_independent_columns():
    x = ar1(np.random.default_rng(6), (400, 4, 2, 3), 0.5).swapaxes(0, 1)
    for f in (
        analysis.ess,
        analysis.rhat,
        analysis.mcse,
        analysis.autocorrelation_time,
    ):
        whole = f(x)
        assert np.shape(whole.value) == (2, 3)
        np.testing.assert_allclose(whole.value[1, 2], float(f(x[:, :, 1, 2])))


@given(st.integers(4, 40), st.integers(1, 5), st.integers(-9, 9), st.booleans())
@settings(max_examples=30, deadline=None)
def test_convergence_ignores_units(draws, chains, power, mirror):
    # A power of two, so that no rounding makes or breaks ties.
    scale = -(2.0**power) if mirror else 2.0**power
    x = np.random.default_rng(draws * 10 + chains).normal(size=(chains, draws))
    np.testing.assert_allclose(analysis.rhat(scale * x), analysis.rhat(x))
    np.testing.assert_allclose(analysis.ess(scale * x), analysis.ess(x))
    np.testing.assert_allclose(analysis.mcse(scale * x), abs(scale) * analysis.mcse(x))


@pytest.mark.physics
@pytest.mark.parametrize(
    ("steps", "replicas", "phi"), [(400, 8, 0.9), (1000, 1, 0.8), (20, 64, 0.95)]
)
def test_error_of_the_mean_covers(steps, replicas, phi):
    rng = np.random.default_rng(7)
    z = []
    for _ in range(300):
        e = analysis.mean(ar1(rng, (steps, replicas), phi))
        z.append(float(e.value / e.stderr))
    inside = np.mean(np.abs(z) < 2)
    # .954 expected; 4.5 binomial sigma down to .90 and what Student's t costs.
    assert 0.88 < inside <= 1.0
    assert 0.85 < np.std(z) < 1.25
    # Negative control: errors that take draws for independent do not cover.
    naive = np.array(z) * np.sqrt((1 + phi) / (1 - phi))
    assert np.mean(np.abs(naive) < 2) < 0.8


def test_mean_sees_replicas_that_disagree():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(500, 6))
    fine, apart = analysis.mean(x), analysis.mean(x + np.arange(6))
    assert not fine.warnings
    assert "replicas disagree" in apart.warnings[0]
    assert float(apart.stderr) == pytest.approx(
        np.std(np.arange(6), ddof=1) / 6**0.5, 0.1
    )
    assert apart.n_eff < 10


def test_equilibration_finds_the_burn_in():
    rng = np.random.default_rng(9)
    x = ar1(rng, (2000, 8), 0.9)
    still = analysis.equilibration(x)
    assert still.start < 400
    assert still.settled
    relaxing = x + 20 * np.exp(-np.arange(2000) / 100)[:, None]
    found = analysis.equilibration(relaxing)
    assert 200 < found.start < 800
    assert found.settled
    assert found.n_eff == pytest.approx(8 * (2000 - found.start) / 19, rel=0.3)
    drift = analysis.equilibration(
        rng.normal(size=(1000, 4)) + np.arange(1000)[:, None]
    )
    assert not drift.settled
    assert drift.warnings
    assert not analysis.equilibration(np.cumsum(rng.normal(size=(1000, 4)), 0)).settled
    assert analysis.equilibration(np.zeros((3, 2))).start == 0


@pytest.mark.physics
def test_equilibration_finds_a_transient_that_swings():
    # Its swing has a short correlation time: counting samples alone keeps it.
    rng = np.random.default_rng(10)
    t = np.arange(600)
    swing = 8 * np.exp(-t / 20) * np.cos(t / 6)
    for replicas in (1, 8):
        found = analysis.equilibration(ar1(rng, (600, replicas), 0.8) + swing[:, None])
        assert 24 <= found.start < 200
        assert found.settled
    starts = [analysis.equilibration(ar1(rng, (600, 4), 0.8)).start for _ in range(100)]
    assert np.mean(np.array(starts) > 60) < 0.1


def test_estimate_reads_as_its_value():
    e = Estimate(1.5, 0.25, 10.0, "test")
    assert float(e) == 1.5
    assert e == pytest.approx(1.5)
    assert e < 2
    assert abs(e - 2) == 0.5
    assert np.asarray(e) == 1.5
    assert f"{e:.1f}" == "1.5"
    assert str(e) == f"{e}" == "1.50 ± 0.25"
    assert np.sqrt(Estimate(np.array([4.0]), 0.1, 1.0, ""))[0] == 2
    with pytest.raises(AttributeError):
        e.value = 2


@pytest.mark.parametrize("function", ["ess", "rhat", "mcse", "autocorrelation_time"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([1.0, 2.0], "at least 4 draws"),
        ([1, 2, 3, np.nan], "not finite"),
        (3.0, "shape"),
    ],
)
def test_bad_chains_are_refused(function, bad, message):
    with pytest.raises(PotentialError, match=message):
        getattr(analysis, function)(bad)


def test_other_errors():
    with pytest.raises(PotentialError, match="c=0"):
        analysis.autocorrelation_time(np.arange(9.0), c=0)
    with pytest.raises(PotentialError, match="not empty"):
        analysis.mean(np.zeros((0, 3)))
    with pytest.raises(PotentialError, match="expected"):
        analysis.equilibration(np.zeros((9, 2, 2)))


def test_import_is_light():
    heavy = "('scipy', 'numba', 'matplotlib', 'arviz', 'h5py', 'mdnet.simulation')"
    code = (
        f"import sys, mdnet.analysis; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
