"""The main job: a real network, sampled; better than the minimised one, and timed."""

import json

import numpy as np
import pytest

import mdnet
from mdnet import analysis, cli, demo


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Three seeds, each a shorter run than the command's own."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, [
        demo.run(
            replicas=8, steps=5000, out=folder / str(seed), seed=seed, progress=False
        )
        for seed in range(3)
    ]


@pytest.mark.slow
def test_posterior_beats_the_minimised_network(found):
    _, runs = found
    mean = {key: np.mean([run[key] for run in runs]) for key in runs[0]}
    assert mean["accuracy"] >= 0.97
    assert mean["log_likelihood"] > mean["single_log_likelihood"]
    # Negative control: the average of untrained networks does neither.
    data = demo.digits(0)
    u = demo.posterior(data.train)
    wild = u.predict(u.initial(8, 0), data.test[0]).mean(axis=0)
    assert analysis.accuracy(wild, data.test[1]) < 0.5
    assert analysis.log_likelihood(wild, data.test[1]) < mean["log_likelihood"]


@pytest.mark.slow
def test_its_file_and_figure(found, capsys):
    folder, _ = found
    path = folder / "0" / "demo.h5md"
    assert (folder / "0" / "demo.png").stat().st_size > 100_000
    with mdnet.open(path) as run:
        assert run.replicas == 8
        assert run.steps[-1] == 4970  # every 70 steps
        assert not run.check()
        assert analysis.first_law(run).residual < 1e-10
        temperatures = analysis.temperatures(run, burn_in=0.4)
        assert temperatures.kinetic.verdict == "agrees"
        assert abs(float(temperatures.configurational.total) - 1) < 0.03
        assert abs(float(temperatures.virial.total) - 1) < 0.03
    for command in ("info", "check", "report"):
        assert cli.main([command, str(path)]) == 0
    text = capsys.readouterr().out
    assert "closes" in text
    assert "0.weight" in text


def test_digits_split():
    data = demo.digits(0)
    assert data.train[0].shape == (1438, 64)
    assert data.test[0].shape == (359, 64)
    assert not np.array_equal(data.test[1], demo.digits(1).test[1])


def test_command_line(capsys):
    assert cli.main(["devices"]) == 0
    assert cli.main(["table"]) == 0
    text = capsys.readouterr().out
    assert "cpu" in text
    assert "BAOAB" in text
    assert cli.main(["info", "no_such_file.h5md"]) == 2
    assert "no_such_file.h5md" in capsys.readouterr().err


def test_description_is_json():
    data = demo.digits(0)
    sim = mdnet.Simulation(demo.posterior(data.train), mdnet.integrators.BAOAB(dt=0.01))
    assert json.loads(json.dumps(sim.describe()))["size"] == sim.potential.size
