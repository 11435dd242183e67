"""Divergence from equilibrium: exact references, estimators, runs, function space."""

from __future__ import annotations

import numpy as np
import pytest

from mdnet import analysis
from mdnet.analysis import kl_estimators as estimators
from mdnet.errors import PotentialError

from .analysis_runs import FakeRun, ar1, harmonic_run

TIMES = np.array([0.05, 0.5, 1.0, 2.0, 4.0, 8.0])
TABLE = np.array([0.7966, 0.6319, 0.5225, 0.3692, 0.2004, 0.0650])


def well(x):
    return (x**2 - 1) ** 2


def ou_ensemble(rng, times, replicas, k, temperature, m0, s0):
    """Exact Ornstein-Uhlenbeck transitions, (T, R, d)."""
    x = np.empty((len(times), replicas, len(k)))
    x[0] = m0 + np.sqrt(s0) * rng.normal(size=(replicas, len(k)))
    for i, dt in enumerate(np.diff(times), 1):
        noise = np.sqrt(temperature / k * (1 - np.exp(-2 * k * dt)))
        x[i] = x[i - 1] * np.exp(-k * dt) + noise * rng.normal(size=x[i].shape)
    return x


K, T = np.array([1.0, 3.0]), 0.5
M0, S0 = np.array([2.0, -1.0]), np.array([0.1, 0.4])
GRID = np.linspace(0, 3, 13)


@pytest.fixture(scope="module")
def ou():
    return ou_ensemble(np.random.default_rng(0), GRID, 2000, K, T, M0, S0)


@pytest.fixture(scope="module")
def ou_exact():
    return analysis.ornstein_uhlenbeck_kl(GRID, K, T, M0, S0)


# --- exact references ---------------------------------------------------------------


def test_fokker_planck_reproduces_the_double_well():
    value = analysis.fokker_planck_kl(well, 0.4, -1.0, 0.15**2, TIMES)
    np.testing.assert_allclose(value, TABLE, atol=1e-4)
    # Negative control: noise sqrt(T dt), which samples T/2, is far off.
    wrong = analysis.fokker_planck_kl(well, 0.2, -1.0, 0.15**2, TIMES)
    assert np.abs(wrong - TABLE).max() > 0.05


def test_fokker_planck_late_slope():
    late = analysis.fokker_planck_kl(well, 0.4, -1.0, 0.15**2, [12.0, 14.0, 40.0, 44.0])
    assert np.log(late[0] / late[1]) / 2 == pytest.approx(0.26965, abs=5e-4)
    assert np.log(late[2] / late[3]) / 4 == pytest.approx(0.26838, abs=1e-4)


def test_fokker_planck_agrees_with_ornstein_uhlenbeck():
    t = np.linspace(0, 3, 7)
    grid = analysis.fokker_planck_kl(lambda x: x**2, 0.7, 1.0, 0.2, t)
    exact = analysis.ornstein_uhlenbeck_kl(t, 2.0, 0.7, 1.0, 0.2)
    np.testing.assert_allclose(grid, exact, atol=2e-5)
    coarse = analysis.fokker_planck_kl(lambda x: x**2, 0.7, 1.0, 0.2, t, points=375)
    ratio = (coarse - exact)[1] / (grid - exact)[1]
    assert (
        12 < ratio < 20
    )  # the grid error falls as h^2: 16 for a grid four times finer


def test_fokker_planck_never_rises():
    t = np.linspace(0, 30, 200)
    value = analysis.fokker_planck_kl(well, 0.4, -1.0, 0.15**2, t)
    assert np.all(np.diff(value) < 0)


def test_ornstein_uhlenbeck_in_equilibrium_and_shapes():
    assert analysis.ornstein_uhlenbeck_kl(0.0, 2.0, 1.0, 0.0, 0.5) == pytest.approx(0)
    assert analysis.ornstein_uhlenbeck_kl([0.0, 1.0], K, T, M0, S0).shape == (2,)
    with pytest.raises(PotentialError, match="expected all > 0"):
        analysis.ornstein_uhlenbeck_kl(0.0, -1.0, 1.0, 0.0, 1.0)
    with pytest.raises(PotentialError, match="shapes do not match"):
        analysis.ornstein_uhlenbeck_kl(0.0, np.ones(3), 1.0, np.ones(2), 1.0)
    with pytest.raises(PotentialError, match="confines"):
        analysis.fokker_planck_kl(lambda x: 0 * x, 1.0, 0.0, 1.0, [1.0])
    with pytest.raises(PotentialError, match="times >= 0"):
        analysis.fokker_planck_kl(well, 1.0, 0.0, 1.0, [-1.0])


# --- estimators ---------------------------------------------------------------------


def gaussian_case(seed, d=10):
    """A Gaussian whose exact divergence from N(0, 1) is 4.690 in ten dimensions."""
    rng = np.random.default_rng(seed)
    root = np.eye(d) + 0.3 * rng.normal(size=(d, d))
    mean = 0.3 * rng.normal(size=d)
    s = root @ root.T

    def exact(scale):
        trace = np.trace(s) * scale**2
        logs = np.linalg.slogdet(s)[1] + 2 * d * np.log(scale)
        return 0.5 * (trace - d - logs + scale**2 * mean @ mean)

    scales = np.linspace(0.9, 2.0, 20_001)
    best = scales[np.argmin(np.abs([exact(c) - 4.690 for c in scales]))]
    return best * root, best * mean, exact(best)


@pytest.mark.physics
def test_estimated_gaussian_is_unbiased_where_the_plug_in_is_not():
    root, mean, exact = gaussian_case(1)
    assert exact == pytest.approx(4.690, abs=2e-3)
    rng, d, n, m = np.random.default_rng(2), 10, 150, 300
    ours, naive = [], []
    for _ in range(600):
        x = rng.normal(size=(n, d)) @ root.T + mean
        r = rng.normal(size=(m, d))
        ours.append(estimators.gaussian_estimated(x[None], r)[0])
        s1, s2 = np.cov(x.T), np.cov(r.T)
        shift = x.mean(0) - r.mean(0)
        naive.append(
            0.5
            * (
                np.trace(np.linalg.solve(s2, s1))
                - d
                + np.linalg.slogdet(s2)[1]
                - np.linalg.slogdet(s1)[1]
                + shift @ np.linalg.solve(s2, shift)
            )
        )
    error = np.std(ours) / np.sqrt(len(ours))
    assert abs(np.mean(ours) - exact) < 4.5 * error  # false alarm 7e-6
    assert error < 0.03
    # Negative control: without the correction the same check fails; +.585 expected.
    assert abs(np.mean(naive) - exact) > 20 * error
    assert np.mean(naive) - exact == pytest.approx(0.585, abs=0.15)


@pytest.mark.physics
@pytest.mark.parametrize("n", [14, 40, 150])
def test_known_gaussian_is_unbiased_with_few_replicas(n):
    root, mean, exact = gaussian_case(3)
    rng, d = np.random.default_rng(4), 10
    x = rng.normal(size=(1500, n, d)) @ root.T + mean
    value = estimators.gaussian_known(x)
    error = value.std() / np.sqrt(len(value))
    assert abs(value.mean() - exact) < 4.5 * error
    # Negative control: the bias taken off is far larger than the error.
    bias = 0.5 * estimators.log_determinant_bias(n, d)
    assert abs(bias) > 5 * error


@pytest.mark.physics
def test_errors_of_the_gaussian_match_the_spread():
    root, mean, _ = gaussian_case(3, d=3)
    rng = np.random.default_rng(5)
    for n in (12, 100):
        x = rng.normal(size=(400, n, 3)) @ root.T + mean
        spread = estimators.gaussian_known(x).std()
        error = estimators.resampled_errors(
            estimators.gaussian_known, x[:60], None, 200, 0
        )
        assert error.mean() == pytest.approx(spread, rel=0.25)


@pytest.mark.physics
@pytest.mark.parametrize("method", ["gaussian", "gaussian-diagonal"])
def test_ou_with_known_equilibrium(ou, ou_exact, method):
    result = analysis.kl_relaxation(ou, (0.0, T / K), method, times=GRID)
    assert result.method == method
    assert (result.d, result.n) == (2, 2000)
    np.testing.assert_array_equal(result.times, GRID)
    assert np.all(np.abs(result.value - ou_exact) < 4.5 * result.stderr + 1e-3)
    assert np.all(result.stderr < 0.05 + 0.1 * ou_exact)
    # Negative control: a wrong temperature of the reference is seen.
    wrong = analysis.kl_relaxation(ou, (0.0, 1.2 * T / K), method)
    assert np.abs((wrong.value - ou_exact) / wrong.stderr).max() > 6


@pytest.mark.physics
def test_ou_against_reference_samples(ou, ou_exact):
    samples = np.random.default_rng(6).normal(size=(8000, 2)) * np.sqrt(T / K)
    result = analysis.kl_relaxation(ou, samples)
    assert result.method == "gaussian"
    assert np.all(np.abs(result.value - ou_exact) < 4.5 * result.stderr + 2e-3)
    diagonal = analysis.kl_relaxation(ou, samples, "gaussian-diagonal")
    assert np.all(np.abs(diagonal.value - ou_exact) < 4.5 * diagonal.stderr + 2e-3)
    assert any("correlations" in w for w in diagonal.warnings)


@pytest.mark.physics
def test_ou_by_bins_and_neighbours(ou, ou_exact):
    reference = {"mean": 0.0, "variance": T / K}
    near = analysis.kl_relaxation(ou, reference, "knn")
    assert np.all(np.abs(near.value - ou_exact) < 4.5 * near.stderr + 0.06)
    bins = analysis.kl_relaxation(ou, reference, "marginal")
    late = ou_exact < 1
    assert np.all(
        np.abs(bins.value - ou_exact)[late] < (4.5 * bins.stderr + 0.03)[late]
    )
    assert np.all(bins.value < ou_exact + 4.5 * bins.stderr)
    assert bins.lower_bound
    assert not near.lower_bound


@pytest.mark.physics
def test_double_well_by_bins():
    rng, x, dt, n = np.random.default_rng(7), None, 0.0025, 0
    x = -1 + 0.15 * rng.normal(size=20_000)
    seen = []
    for t in TIMES[:4]:
        while n < round(t / dt):
            x += -dt * 4 * x * (x**2 - 1) + np.sqrt(2 * 0.4 * dt) * rng.normal(
                size=x.size
            )
            n += 1
        seen.append(x.copy())
    result = analysis.kl_relaxation(
        np.array(seen), lambda y: -well(y) / 0.4, times=TIMES[:4], domain=(-3, 3)
    )
    assert result.method == "marginal"
    # Bins and the step of Euler-Maruyama take about a hundredth each.
    assert np.all(np.abs(result.value - TABLE[:4]) < 4.5 * result.stderr + 0.012)
    wrong = analysis.kl_relaxation(
        np.array(seen), lambda y: -well(y) / 0.8, domain=(-4, 4)
    )
    assert np.abs(wrong.value - TABLE[:4]).max() > 0.1


@pytest.mark.physics
@pytest.mark.parametrize("method", ["gaussian", "gaussian-diagonal", "marginal"])
def test_equilibrium_reads_zero(method):
    x = np.random.default_rng(8).normal(size=(200, 60, 3))
    result = analysis.kl_relaxation(x, (0.0, 1.0), method, bootstrap=20)
    error = result.value.std() / np.sqrt(200)
    assert abs(result.value.mean()) < 4.5 * error + 2e-3
    shifted = analysis.kl_relaxation(x + 0.3, (0.0, 1.0), method, bootstrap=20)
    assert shifted.value.mean() > 10 * error


def test_correlated_reference_is_whitened():
    cov = np.array([[2.0, 1.2], [1.2, 1.0]])
    rng = np.random.default_rng(9)
    x = rng.multivariate_normal([1, 1], cov, size=(4, 400))
    for method in ("gaussian", "gaussian-diagonal"):
        result = analysis.kl_relaxation(x, {"mean": [1, 1], "covariance": cov}, method)
        assert np.all(np.abs(result.value) < 0.02)


def test_bound_by_projection(ou, ou_exact):
    one = analysis.kl_relaxation(ou, (0.0, T / K), projection=np.array([[1.0], [0.0]]))
    assert one.lower_bound
    assert one.d == 1
    exact = analysis.ornstein_uhlenbeck_kl(GRID, K[0], T, M0[0], S0[0])
    assert np.all(np.abs(one.value - exact) < 4.5 * one.stderr + 1e-3)
    assert np.all(one.value < ou_exact + 4.5 * one.stderr)
    for name in ("pca", "random"):
        few = analysis.kl_relaxation(ou, (0.0, T / K), projection=name, components=1)
        assert few.d == 1
        assert np.all(few.value < ou_exact + 4.5 * few.stderr)


# --- runs ---------------------------------------------------------------------------


def relaxing_run(frames=120, replicas=40, d=200):
    rng = np.random.default_rng(10)
    decay = np.exp(-np.arange(frames) / 15)[:, None, None]
    q = ar1(rng, (frames, replicas, d), 0.5) + 2 * decay
    layout = {"a": (slice(0, 150), (150,)), "b": (slice(150, d), (d - 150,))}
    return FakeRun({"potential_energy": (q**2).sum(-1) / 2}, layout, q, stride=10)


def test_run_is_projected_and_relaxes():
    run = relaxing_run()
    result = analysis.kl_relaxation(run)
    assert result.lower_bound
    assert result.d == 8
    assert result.times[1] == pytest.approx(1.0)
    assert any("random directions" in w for w in result.warnings)
    assert any("stands for equilibrium" in w for w in result.warnings)
    assert result.value[0] > 5 * result.stderr[0]
    assert abs(result.value[-10:].mean()) < 0.5


def test_run_by_energy_layer_and_principal_axes():
    run = relaxing_run()
    energy = analysis.kl_relaxation(run, projection="energy")
    assert energy.d == 1
    assert energy.value[0] > 10
    layers = analysis.kl_by_layer(run, (0.0, 1.0), projection="pca", components=2)
    assert list(layers) == ["a", "b"]
    for one in layers.values():
        assert one.d == 2
        assert one.value[0] > 10
        assert abs(one.value[-10:].mean()) < 0.4
    exact = analysis.kl_relaxation(run, (0.0, 1.0), layers="b")
    assert exact.d == 50
    assert exact.value[0] == pytest.approx(50 * 2.0, rel=0.1)


def test_long_run_is_read_at_few_frames():
    result = analysis.kl_relaxation(relaxing_run(frames=300), max_times=30)
    assert len(result.times) <= 30
    assert result.times[0] == 0
    assert result.times[-1] == pytest.approx(299)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, "expected one of auto"),
        ({"reference": np.ones((5, 3))}, "expected finite samples"),
        ({"reference": {"mean": 0}}, "expected 'mean' and"),
        ({"reference": (0.0, -np.eye(2))}, "positive definite"),
        ({"reference": (0.0, np.eye(3))}, "covariance has shape"),
        ({"reference": lambda x: -(x**2)}, "one coordinate"),
        ({"layers": "a"}, "needs a run"),
        ({"projection": "best"}, "expected 'random'"),
        ({"projection": np.ones((5, 1))}, "a row for each"),
        ({"times": [1.0]}, "one a frame"),
        ({"reference_part": 0.0}, "reference_part"),
        ({"inputs": np.ones((3, 2))}, "needs a run"),
    ],
)
def test_errors(arguments, message):
    x = np.random.default_rng(0).normal(size=(5, 30, 2))
    with pytest.raises(PotentialError, match=message):
        analysis.kl_relaxation(x, **arguments)


def test_more_errors():
    rng = np.random.default_rng(0)
    with pytest.raises(PotentialError, match="at least 4"):
        analysis.kl_relaxation(rng.normal(size=(5, 2, 2)), (0.0, 1.0))
    with pytest.raises(PotentialError, match="gaussian-diagonal"):
        analysis.kl_relaxation(rng.normal(size=(5, 8, 9)), (0.0, 1.0), "gaussian")
    with pytest.raises(PotentialError, match="d <= 5"):
        analysis.kl_relaxation(rng.normal(size=(5, 30, 6)), (0.0, 1.0), "knn")
    with pytest.raises(PotentialError, match="domain="):
        analysis.kl_relaxation(rng.normal(size=(5, 30)), lambda x: -(x**2))
    with pytest.raises(PotentialError, match="not finite"):
        analysis.kl_relaxation(np.full((5, 30, 2), np.nan), (0.0, 1.0))
    with pytest.raises(PotentialError, match="no tensor 'c'"):
        analysis.kl_relaxation(relaxing_run(), layers="c")
    bare = harmonic_run(1.0, frames=50)
    bare.positions = None
    with pytest.raises(PotentialError, match="stored no positions"):
        analysis.kl_relaxation(bare)


# --- function space -----------------------------------------------------------------


def dirichlet(rng, alpha, replicas, inputs):
    return rng.dirichlet(alpha, size=(replicas, inputs))


@pytest.mark.physics
def test_predictive_divergence_is_unbiased():
    rng = np.random.default_rng(11)
    a, b = np.array([2.0, 3.0, 5.0]), np.array([4.0, 3.0, 3.0])
    p, q = a / a.sum(), b / b.sum()
    exact = (p * np.log(p / q)).sum()
    found = [
        analysis.kl_predictive(dirichlet(rng, a, 12, 40), dirichlet(rng, b, 12, 40))
        for _ in range(200)
    ]
    value = np.array([float(f) for f in found])
    error = value.std() / np.sqrt(len(value))
    # The jackknife leaves a second-order bias of about a thousandth.
    assert abs(value.mean() - exact) < 4.5 * error + 1.5e-3
    assert np.mean([f.stderr for f in found]) == pytest.approx(value.std(), rel=0.3)
    # Negative control: the plug-in value.
    plug_in = [
        float(
            analysis.kl_predictive(
                dirichlet(rng, a, 12, 40).mean(0), dirichlet(rng, b, 12, 40).mean(0)
            )
        )
        for _ in range(200)
    ]
    assert abs(np.mean(plug_in) - exact) > 4.5 * error + 1.5e-3


def test_predictive_divergence_of_exact_rows_and_errors():
    assert float(analysis.kl_predictive([[0.5, 0.5]], [[0.5, 0.5]])) == 0.0
    p, q = np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]])
    exact = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert float(analysis.kl_predictive(p, q)) == pytest.approx(exact)
    with pytest.raises(PotentialError, match="rows sum"):
        analysis.kl_predictive(3 * p, q)
    with pytest.raises(PotentialError, match="same inputs"):
        analysis.kl_predictive(p, np.ones((2, 2)) / 2)


class Classifier:
    """Softmax of q reshaped (features, classes)."""

    likelihood = "categorical"

    def predict(self, q, x):
        logits = np.einsum("nf,rfc->rnc", x, q.reshape(len(q), x.shape[1], -1))
        e = np.exp(logits - logits.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


class Linear:
    likelihood = "gaussian"

    def predict(self, q, x):
        return np.einsum("nf,rf->rn", x, q)[..., None]


@pytest.mark.parametrize("potential", [Classifier(), Linear()])
def test_relaxation_of_predictions(potential):
    rng = np.random.default_rng(12)
    q = ar1(rng, (60, 24, 6), 0.3) + 4 * np.exp(-np.arange(60) / 8)[:, None, None] * [
        1, -1, 0, 1, 0, -1
    ]  # fmt: skip
    run = FakeRun({"potential_energy": q[..., 0]}, {"w": (slice(0, 6), (2, 3))}, q)
    x = rng.normal(size=(15, 2 if isinstance(potential, Classifier) else 6))
    result = analysis.kl_relaxation(run, potential=potential, inputs=x)
    assert result.method == "predictive"
    assert result.lower_bound
    assert result.value[0] > 5 * abs(result.value[-15:]).mean()
    assert result.value[0] > 4.5 * result.stderr[0]
