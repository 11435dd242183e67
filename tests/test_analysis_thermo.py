"""Thermometers, energy ledger and heat capacity on exactly sampled runs."""

from __future__ import annotations

import numpy as np
import pytest

from mdnet import analysis
from mdnet.errors import PotentialError, TrajectoryError

from .analysis_runs import LAYOUT, SIZE, FakeRun, harmonic_run


@pytest.mark.physics
@pytest.mark.parametrize("t", [0.25, 1.0, 4.0])
def test_three_thermometers_agree_at_the_right_temperature(t):
    result = analysis.temperatures(harmonic_run(t))
    assert result.target == t
    assert result.verdict == "agrees"
    assert not result.warnings
    assert {th.name for th in result.thermometers} == {
        "kinetic",
        "configurational",
        "virial",
    }
    for th in result.thermometers:
        assert th.verdict == "agrees"
        assert set(th.layer_verdicts) == {"agrees"}
        # 5 sigma on each of 3 totals and 9 layers: false alarm 7e-6.
        assert abs(th.total - t) < 5 * th.total.stderr
        assert np.all(np.abs(th.layer - t) < 5 * th.layer.stderr)
        assert th.total.stderr < 0.01 * t
        assert th.replica.value.shape == (8,)


@pytest.mark.physics
@pytest.mark.parametrize(("factor", "verdict"), [(1.07, "hot"), (0.93, "cold")])
@pytest.mark.parametrize("t", [0.25, 4.0])
def test_seven_percent_off_is_flagged_by_each(t, factor, verdict):
    result = analysis.temperatures(harmonic_run(factor * t, target=t))
    assert [th.verdict for th in result.thermometers] == [verdict] * 3
    assert result.verdict == verdict


@pytest.mark.physics
def test_five_percent_off_is_flagged_in_a_longer_run():
    hot = harmonic_run(1.05, target=1.0, frames=4000, replicas=16)
    assert analysis.temperatures(hot).verdict == "hot"
    right = harmonic_run(1.0, frames=4000, replicas=16)
    assert analysis.temperatures(right).verdict == "agrees"


def test_one_hot_layer_is_found():
    run = harmonic_run(1.0)
    run.data["layer_kinetic_temperature"] = run.data[
        "layer_kinetic_temperature"
    ] * np.array([1.0, 1.2, 1.0])
    result = analysis.temperatures(run)
    assert result.kinetic.layer_verdicts == ("agrees", "hot", "agrees")
    assert result.kinetic.verdict == "agrees"
    assert result.verdict == "hot"


@pytest.mark.physics
def test_errors_of_the_thermometers_cover():
    z = []
    for seed in range(100):
        r = analysis.temperatures(harmonic_run(1.0, 200, 4, seed=seed), burn_in=0)
        z.append([float((th.total - 1) / th.total.stderr) for th in r.thermometers])
    inside = np.mean(np.abs(z) < 2)
    assert 0.85 < inside < 0.99


def test_short_run_is_undetermined():
    result = analysis.temperatures(harmonic_run(1.0, frames=12, replicas=1), burn_in=0)
    assert result.verdict == "undetermined"


def test_targets_that_differ_are_divided_out():
    targets = np.geomspace(0.5, 4, 8)
    result = analysis.temperatures(harmonic_run(targets))
    assert result.relative
    assert result.target == 1.0
    assert result.verdict == "agrees"
    np.testing.assert_allclose(result.replica_target, targets)
    assert "divided by" in result.warnings[0]
    wrong = analysis.temperatures(harmonic_run(1.1 * targets, target=targets))
    assert wrong.verdict == "hot"


def test_target_from_the_settings_or_the_caller():
    run = harmonic_run(1.0, drop=("target_temperature",))
    assert analysis.temperatures(run).target == 1.0
    assert analysis.temperatures(run, target=2.0).verdict == "cold"
    run.config = {}
    free = analysis.temperatures(run)
    assert np.isnan(free.target)
    assert free.verdict == "undetermined"
    assert any("no thermostat" in w for w in free.warnings)


def test_changing_target_is_said():
    run = harmonic_run(1.0)
    run.data["target_temperature"] = np.linspace(1, 2, 1500)[:, None] * np.ones(8)
    assert any("changes" in w for w in analysis.temperatures(run, burn_in=0).warnings)


@pytest.mark.parametrize(
    ("drop", "gone"),
    [
        (("laplacian",), "configurational"),
        (("gradient_square",), "configurational"),
        (("virial",), "virial"),
        (("kinetic_temperature", "layer_kinetic_temperature"), "kinetic"),
    ],
)
def test_missing_series_cost_one_thermometer(drop, gone):
    result = analysis.temperatures(harmonic_run(1.0, drop=drop))
    assert getattr(result, gone) is None
    assert len(result.thermometers) == 2
    assert any(f"no {gone}" in w and drop[0] in w for w in result.warnings)
    assert result.verdict == "agrees"


def test_total_only_and_layers_only():
    total = analysis.temperatures(
        harmonic_run(1.0, drop=("layer_kinetic_temperature",))
    )
    assert total.kinetic.layer is None
    layers = analysis.temperatures(harmonic_run(1.0, drop=("kinetic_temperature",)))
    whole = analysis.temperatures(harmonic_run(1.0))
    assert float(layers.kinetic.total) == pytest.approx(float(whole.kinetic.total))


def test_burn_in_is_found_and_can_be_given():
    run = harmonic_run(1.0, start_energy=300.0)
    found = analysis.temperatures(run)
    assert 500 < found.start < 6000
    assert analysis.temperatures(run, burn_in=2000).start == 2000
    assert analysis.temperatures(run, burn_in=0.5).start == 7495
    for bad in (-1, 1.5, "later", True):
        with pytest.raises(PotentialError, match="burn_in"):
            analysis.temperatures(run, burn_in=bad)
    with pytest.raises(PotentialError, match="leaves nothing"):
        analysis.temperatures(run, burn_in=10**6)


def test_table_names_every_layer():
    result = analysis.temperatures(harmonic_run(1.0))
    table = result.table()
    assert all(
        name in table for name in (*LAYOUT, "kinetic", "virial", "agrees", "all")
    )
    assert "target 1" in table
    assert len({len(line.rstrip()) > 0 for line in table.splitlines()}) == 1
    assert str(result).startswith(table)


def test_diverged_replicas_are_left_out():
    run = harmonic_run(1.0)
    for name in ("kinetic_temperature", "potential_energy"):
        run.data[name] = run.data[name].copy()
        run.data[name][100:, 3] = np.nan
    result = analysis.temperatures(run)
    assert any("left out 1 replicas" in w for w in result.warnings)
    assert result.verdict == "agrees"
    assert np.isfinite(float(analysis.heat_capacity(run)))


def test_frozen_layer_has_no_configurational_temperature():
    run = harmonic_run(1.0)
    for name in ("gradient_square", "laplacian"):
        run.data[name] = run.data[name] * np.array([1.0, 0.0, 1.0])
    result = analysis.temperatures(run)
    assert result.configurational.layer_verdicts[1] == "undetermined"
    assert result.configurational.verdict == "agrees"


def test_temperature_errors():
    with pytest.raises(TrajectoryError, match="none of the series"):
        analysis.temperatures(FakeRun({"potential_energy": np.zeros((9, 2))}, LAYOUT))
    with pytest.raises(PotentialError, match="expected > 0"):
        analysis.temperatures(harmonic_run(1.0), target=0.0)
    with pytest.raises(PotentialError, match="8 replicas"):
        analysis.temperatures(harmonic_run(1.0), target=[1.0, 2.0])


# --- the ledger ---------------------------------------------------------------------


def ledger_run(rows=400, replicas=4, seed=0):
    rng = np.random.default_rng(seed)

    def walk(size):
        steps = rng.normal(size=(rows, replicas)) * size
        steps[0] = 0
        return np.cumsum(steps, 0)

    heat, kick, protocol = (
        walk(1.0),
        walk(1.0),
        0.01 * np.arange(rows)[:, None] + walk(0),
    )
    u = 1000 + walk(1.0)
    series = {
        "potential_energy": u,
        "kinetic_energy": 50 + heat + kick,
        "heat": heat,
        "kick_work": kick,
        "protocol_work": protocol,
        "shadow_work": kick + (u - u[0]) - protocol,
    }
    return FakeRun(series, LAYOUT)


def test_first_law_closes():
    law = analysis.first_law(ledger_run())
    assert law.closes
    assert law.verdict == "closes"
    assert law.residual < 1e-12
    assert law.replica_residual.shape == (4,)
    # dt = .1: the heat of a unit random walk has no mean rate.
    assert abs(law.heat_rate) < 5 * law.heat_rate.stderr


@pytest.mark.parametrize(
    "name",
    [
        "potential_energy",
        "kinetic_energy",
        "heat",
        "kick_work",
        "protocol_work",
        "shadow_work",
    ],
)
def test_first_law_sees_any_term_altered(name):
    run = ledger_run()
    run.data[name] = run.data[name].copy()
    run.data[name][200:, 2] += 1e-6
    law = analysis.first_law(run)
    assert not law.closes
    assert law.verdict == "open"
    assert int(np.argmax(law.replica_residual)) == 2
    assert "not booked" in law.warnings[0]


def test_heat_and_shadow_rates():
    run = ledger_run()
    rows = np.arange(400)[:, None]
    for name, slope in (("heat", 0.5), ("shadow_work", -0.2)):
        run.data[name] = np.random.default_rng(1).normal(size=(400, 4)) + slope * rows
    law = analysis.first_law(run, burn_in=0)
    assert float(law.heat_rate) == pytest.approx(
        0.5 / 0.1, abs=5 * law.heat_rate.stderr
    )
    assert float(law.shadow_work) == pytest.approx(-0.2, abs=0.01)


def test_first_law_errors():
    run = ledger_run()
    del run.data["kick_work"]
    with pytest.raises(TrajectoryError, match="'kick_work'"):
        analysis.first_law(run)
    run = ledger_run()
    run.data["heat"] = run.data["heat"][:-1]
    with pytest.raises(PotentialError, match="another grid"):
        analysis.first_law(run)


# --- heat capacity ------------------------------------------------------------------


@pytest.mark.physics
@pytest.mark.parametrize("t", [0.25, 4.0])
def test_heat_capacity_of_oscillators_is_half_their_number(t):
    c = analysis.heat_capacity(harmonic_run(t))
    assert abs(c.value - SIZE / 2) < 4.5 * c.stderr
    assert c.stderr < 0.5
    assert c.replica.value.shape == (8,)
    # Negative control: ten per cent off in temperature is a fifth off in C_V.
    wrong = analysis.heat_capacity(harmonic_run(t), temperature=1.1 * t)
    assert abs(wrong.value - SIZE / 2) > 4.5 * wrong.stderr


@pytest.mark.physics
def test_heat_capacity_error_covers():
    z = []
    for seed in range(100):
        c = analysis.heat_capacity(harmonic_run(1.0, 300, 4, seed=seed), burn_in=0)
        z.append((c.value - SIZE / 2) / c.stderr)
    assert 0.85 < np.mean(np.abs(z) < 2) < 0.995


def test_heat_capacity_of_many_temperatures():
    c = analysis.heat_capacity(harmonic_run(np.geomspace(0.5, 4, 8)))
    assert np.all(np.abs(c.replica - SIZE / 2) < 5 * c.replica.stderr)
    assert any("temperatures differ" in w for w in c.warnings)


def test_heat_capacity_warns_of_drift():
    run = harmonic_run(1.0, start_energy=300.0)
    drifting = analysis.heat_capacity(run, burn_in=0)
    assert any("not equilibrated" in w for w in drifting.warnings)
    found = analysis.heat_capacity(run)
    assert abs(found.value - SIZE / 2) < 4.5 * found.stderr
    assert not found.warnings


def test_heat_capacity_needs_a_temperature():
    run = harmonic_run(1.0, drop=("target_temperature",))
    run.config = {}
    with pytest.raises(PotentialError, match="temperature="):
        analysis.heat_capacity(run)
    with pytest.raises(TrajectoryError, match="potential_energy"):
        analysis.heat_capacity(harmonic_run(1.0, drop=("potential_energy",)))
