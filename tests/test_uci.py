"""The regression benchmark: its parts on made data, and on real files if present."""

import importlib.util
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parent.parent


def _load():
    path = ROOT / "benchmarks" / "uci.py"
    spec = importlib.util.spec_from_file_location("benchmarks_uci", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


uci = _load()
QUICK = uci.Settings(
    units=8, replicas=4, steps=20, dt=5e-3, warmup=60, draws=60, keep=30
)


def made(n=120, noise=0.3, seed=0):
    """y = 50 + 20 sin(2 x_0) + ..., with noise of 20 times ``noise``."""
    rng = np.random.default_rng(seed)
    X = rng.normal([3.0, -5.0], [2.0, 0.1], size=(n, 2))
    x = (X - [3.0, -5.0]) / [2.0, 0.1]
    clean = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1]
    return X, 50 + 20 * (clean + noise * rng.normal(size=n))


@pytest.mark.physics
def test_scores_of_made_data():
    """Noise 6 is found; scores are near those of the law that made the data."""
    X, y = made(220)
    score = uci.sample(X[:120], y[:120], X[120:], y[120:], QUICK)
    assert score.noise == pytest.approx(6, rel=0.3)
    assert 4.5 < score.rmse < 9
    best = stats.norm(0, 6).entropy()
    assert -best - 0.4 < score.log_likelihood < -best + 0.2
    # Negative control: the spread of the targets alone predicts far worse.
    blind = stats.norm(y[:120].mean(), y[:120].std()).logpdf(y[120:]).mean()
    assert score.log_likelihood > blind + 0.5
    assert 0.6 < score.acceptance <= 1
    assert score.rhat_median < 1.2


def test_scaling_uses_training_rows_alone():
    X, _ = made()
    X = np.column_stack([X, np.ones(len(X))])
    train, test, spread = uci.scaled(X[:80], X[80:])
    np.testing.assert_allclose(train[:, :2].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(train[:, :2].std(axis=0), 1)
    np.testing.assert_array_equal(train[:, 2], 0)
    np.testing.assert_allclose(
        test[:, :2] * spread[:2] + X[:80, :2].mean(0), X[80:, :2]
    )


def test_mixture_is_the_log_of_the_mean_density():
    logs = np.array([[-1.0, -800.0], [-3.0, -802.0]])
    expected = [math.log((math.exp(-1) + math.exp(-3)) / 2)]
    expected.append(-800 + math.log((1 + math.exp(-2)) / 2))
    np.testing.assert_allclose(uci.mixture(logs), expected)


def test_every_scale_is_a_coordinate():
    X, y = made(20)
    U = uci.posterior(X, y, units=3)
    assert [name for name in U.layout if "log" in name] == [
        "likelihood.log_noise",
        "prior.0.weight.log_scale",
        "prior.0.bias.log_scale",
        "prior.1.weight.log_scale",
    ]


def test_table(tmp_path, monkeypatch):
    score = uci.Score(0, 3.0, -2.4, 1.0, 1.01, 1.05, 500.0, 0.8, 60.0, 70.0)
    other = uci.Score(1, 2.0, -2.0, 1.0, 1.02, 1.10, 300.0, 0.8, 60.0, 70.0)
    line = uci.row("boston", [score, other])
    assert "2.50 ± 0.50" in line
    assert "-2.20 ± 0.20" in line
    assert "| 2.90 |" in line
    assert line.endswith("| 1.0 |")
    uci.save(tmp_path, {"boston": [other, score], "yacht": []})
    assert line in (tmp_path / "uci.md").read_text("utf-8")
    kept = json.loads((tmp_path / "uci.json").read_text("utf-8"))
    assert kept["boston"]["scores"][1]["rmse"] == 2.0
    # A run goes on where it stopped, unless its settings changed.
    assert uci.done(tmp_path, ["boston"])["boston"] == [score, other]
    monkeypatch.setitem(uci.CHOSEN, "boston", uci.Settings(steps=1))
    assert uci.done(tmp_path, ["boston"]) == {"boston": []} | {"yacht": []}


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"yacht\.npz"):
        uci.load(tmp_path, "yacht")


@pytest.mark.slow
@pytest.mark.skipif(
    "MDNET_DATA" not in os.environ,
    reason="MDNET_DATA does not name a folder with the UCI files",
)
def test_real_splits():
    """Shapes of the files, and a short run that beats the published mean."""
    folder = Path(os.environ["MDNET_DATA"])
    for name in uci.SETS:
        data = uci.load(folder, name)
        n = len(data["y"])
        assert len(data["X"]) == n
        assert len(data["train"]) == len(data["test"]) == 20
        rows = np.concatenate([data["train"][0], data["test"][0]])
        np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    short = uci.Settings(units=50, replicas=4, steps=50, warmup=100, draws=100, keep=50)
    score = uci.one_split((str(folder), "boston", 0, short))
    assert score.rmse < 4
    assert score.log_likelihood > -2.6
