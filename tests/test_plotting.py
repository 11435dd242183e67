"""Figures: panels draw what they say, the report survives whatever is missing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mdnet import analysis, plotting
from mdnet.errors import PotentialError

from .analysis_runs import FakeRun, harmonic_run


def axes():
    return plotting.figure().subplots()


def texts(ax):
    legend = ax.get_legend()
    return [] if legend is None else [t.get_text() for t in legend.get_texts()]


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


@pytest.fixture(scope="module")
def run():
    made = harmonic_run(1.0, frames=600, replicas=24, start_energy=300.0)
    decay = np.exp(-np.arange(600) / 40)[:, None, None]
    made.positions = made.positions + 1.5 * decay
    return made


def test_report_is_written(run, tmp_path):
    path = tmp_path / "report.png"
    fig = plotting.report(run, path)
    width, height = png_size(path)
    assert width > 1500
    assert height > 900
    assert len(fig.axes) == 5
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles[0].startswith("Mean U = 12.")
    assert "decorrelates in" in titles[1]
    assert titles[2] == "Every thermometer agrees with the target"
    assert "equilibrium" in titles[3]
    for ax in fig.axes:
        assert ax.get_xlabel() or ax.get_xticklabels()
        assert ax.get_ylabel()


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_other_formats(tmp_path, suffix):
    path = tmp_path / f"report.{suffix}"
    plotting.report(harmonic_run(1.0, frames=60, replicas=4), path)
    assert path.stat().st_size > 5000


def test_report_of_the_barest_run(tmp_path):
    bare = FakeRun(
        {"potential_energy": np.random.default_rng(0).normal(size=(40, 2))},
        {"q": (slice(0, 5), (5,))},
    )
    fig = plotting.report(bare, tmp_path / "bare.png")
    notes = [t.get_text() for ax in fig.axes for t in ax.texts]
    assert any("none of the series" in note.replace("\n", " ") for note in notes)
    assert any("at least 4" in note.replace("\n", " ") for note in notes)
    empty = FakeRun({"other": np.zeros((3, 2))}, {"q": (slice(0, 5), (5,))})
    plotting.report(empty, tmp_path / "empty.png")


def test_report_uses_predictions_when_it_can(run, tmp_path):
    class Model:
        likelihood = "categorical"

        def predict(self, q, x):
            logits = np.einsum("nf,rfc->rnc", x, q.reshape(len(q), 4, 6))
            e = np.exp(logits - logits.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True)

    x = np.random.default_rng(1).normal(size=(30, 4))
    fig = plotting.report(run, tmp_path / "r.png", potential=Model(), inputs=x)
    assert "predictive" in fig.axes[3].get_ylabel()


def test_energy_panel(run):
    ax = axes()
    plotting.plot_energy(ax, run)
    assert texts(ax) == ["24 replicas", "mean", "burn-in"]
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "step"
    flat = axes()
    plotting.plot_energy(flat, harmonic_run(1.0, frames=300))
    assert flat.get_yscale() == "linear"


def test_temperature_panel():
    ax = axes()
    plotting.plot_temperatures(ax, analysis.temperatures(harmonic_run(1.0)))
    assert [t.get_text() for t in ax.get_xticklabels()][-1] == "all"
    assert {"kinetic", "configurational", "virial", "target ± 1%"} == set(texts(ax))
    hot = axes()
    plotting.plot_temperatures(
        hot, analysis.temperatures(harmonic_run(1.1, target=1.0, drop=("virial",)))
    )
    assert hot.get_title(loc="left").startswith("Hot: kinetic 1.1")
    one_layer = harmonic_run(1.0)
    factor = np.array([1.0, 1.3, 1.0])
    one_layer.data["virial"] = one_layer.data["virial"] * factor
    one_layer.data["virial_temperature"] = one_layer.data["kinetic_temperature"]
    ax = axes()
    plotting.plot_temperatures(ax, analysis.temperatures(one_layer))
    assert ax.get_title(loc="left") == "Hot: virial of 0.bias"


def test_temperature_panel_of_many_targets_or_none():
    ax = axes()
    plotting.plot_temperatures(
        ax, analysis.temperatures(harmonic_run(np.geomspace(0.5, 4, 8)))
    )
    assert ax.get_ylabel() == "T / target"
    free = harmonic_run(1.0, drop=("target_temperature",))
    free.config = {}
    ax = axes()
    plotting.plot_temperatures(ax, analysis.temperatures(free))
    assert "No target" in ax.get_title(loc="left")


def test_kl_panel():
    rng = np.random.default_rng(2)
    t = np.linspace(0, 4, 15)
    x = 2 * np.exp(-t)[:, None, None] + rng.normal(size=(15, 400, 1))
    ax = axes()
    exact = analysis.ornstein_uhlenbeck_kl(t, 1.0, 1.0, 2.0, 1.0)
    plotting.plot_kl(
        ax, analysis.kl_relaxation(x, (0.0, 1.0), times=t), exact=(t, exact)
    )
    assert texts(ax) == ["estimate", "exact", "zero within the noise"]
    assert "from t =" in ax.get_title(loc="left")
    assert ax.get_yscale() == "log"
    still, far = axes(), axes()
    plotting.plot_kl(still, analysis.kl_relaxation(x[-5:], (0.0, 1.0)))
    assert still.get_title(loc="left").startswith("No distance")
    plotting.plot_kl(far, analysis.kl_relaxation(x[:5], (0.0, 1.0)))
    assert far.get_title(loc="left") == "Not yet in equilibrium"


def test_autocorrelation_panel(run):
    ax = axes()
    plotting.plot_autocorrelation(ax, run)
    assert all("τ = " in text and "steps" in text for text in texts(ax))
    lag = ax.lines[0].get_xdata()
    assert lag[1] == 10  # records lie ten steps apart
    short = axes()
    plotting.plot_autocorrelation(short, harmonic_run(1.0, frames=5), burn_in=0)
    assert "too few" in short.texts[0].get_text()


def test_layer_panel(run):
    ax = axes()
    plotting.plot_layers(ax, run)
    assert texts(ax) == list(run.layout)
    assert "moved most" in ax.get_title(loc="left")
    bare = harmonic_run(1.0, frames=100)
    bare.positions = None
    ax = axes()
    plotting.plot_layers(ax, bare)
    assert ax.get_ylabel() == "kinetic temperature"


def test_predictive_panel():
    rng = np.random.default_rng(3)
    images = rng.random((4, 8, 8))
    p = rng.dirichlet(np.ones(10), 4)
    fig = plotting.figure()
    plotting.plot_predictive(fig, images, p, 0.1 * p, labels=[0, 1, 2, 3])
    assert len(fig.axes) == 8
    own = plotting.figure().subplots(2, 4)
    plotting.plot_predictive(own, images, p)
    fig.canvas.draw()
    with pytest.raises(PotentialError, match="expected"):
        plotting.plot_predictive(plotting.figure(), images, p[:3])
    with pytest.raises(PotentialError, match="labels for"):
        plotting.plot_predictive(plotting.figure(), images, p, labels=[1])


def test_no_pyplot_and_no_matplotlib_on_import():
    code = (
        "import sys, mdnet.plotting as p; a = 'matplotlib' in sys.modules; "
        "p.figure(); print(a, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
