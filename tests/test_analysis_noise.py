"""Noise temperature: the noise against its exact variance, its heating as measured.

False-alarm rate of the file: five checks at five standard errors, below 3e-6.
"""

import numpy as np
import pytest

import mdnet
from mdnet import analysis, integrators, potentials
from mdnet.errors import PotentialError, SchemeError
from mdnet.reporters import Memory


def regression(n=60, d=8):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, d))
    return potentials.LinearRegression(X, X @ rng.normal(size=d) + rng.normal(size=n))


def record(potential, rule, steps=3000, replicas=32, every=5):
    sim = mdnet.Simulation(
        potential, rule, replicas=replicas, backend="cpu", precision="double"
    )
    sim.run(300)
    memory = Memory(every, positions=True, thermometers=True)
    sim.run(steps, reporters=[memory])
    return memory


def exact_covariance(u, q, n, order="replacement"):
    """Variance of N/n times a sum of n rows' gradients, averaged over parameters."""
    residual = q @ u.X.T - u.y
    rows = residual[..., None] * u.X / u.noise**2
    variance = rows.var(axis=-2).mean(axis=-1)
    count = len(u.y)
    if order == "shuffle":
        variance = variance * (count - n) / (count - 1)
    return count**2 / n * variance.mean()


@pytest.fixture(scope="module")
def runs():
    u = regression()
    out = {}
    for name, rule in (
        ("BAOAB", integrators.BAOAB(dt=0.02, friction=4.0)),
        ("heavy", integrators.BAOAB(dt=0.04, friction=4.0, mass=4.0)),
        ("SGLD", integrators.SGLD(dt=0.0005)),
    ):
        batches = u.minibatch(6, order="replacement")
        out[name] = batches, record(batches, rule)
    return u, out


@pytest.mark.physics
@pytest.mark.parametrize("name", ["BAOAB", "heavy", "SGLD"])
def test_noise_and_heating(runs, name):
    """C against the rows' exact variance; heating predicted against measured."""
    u, recorded = runs
    batches, run = recorded[name]
    found = analysis.noise_temperature(run, batches, frames=40, calls=20)
    mass = 4.0 if name == "heavy" else 1.0
    expected = exact_covariance(u, run.positions, 6) / mass
    # Frames differ in their exact value too: three per cent of room beside the error.
    room = 5 * float(found.covariance.stderr) + 0.03 * expected
    assert abs(float(found.covariance) - expected) < room
    assert found.measured is not None
    # The law of small steps, and the noise at other frames, hold to a few per cent.
    room = 5 * float(found.measured.stderr) + 0.05 * found.predicted
    assert abs(float(found.measured) - found.predicted) < room
    assert found.predicted > 0.02
    # Negative control: batches of another size predict another temperature.
    other = analysis.noise_temperature(run, u.minibatch(12, order="replacement"))
    assert abs(float(found.measured) - other.predicted) > 0.3 * found.predicted


@pytest.mark.physics
def test_ledger_knows_the_noise(runs):
    batches, run = runs[1]["BAOAB"]
    told = analysis.noise_temperature(run)
    seen = analysis.noise_temperature(run, batches, frames=40)
    assert "ledger" in told.warnings[-1]
    error = np.hypot(float(told.covariance.stderr), float(seen.covariance.stderr))
    assert abs(float(told.covariance) - float(seen.covariance)) < (
        5 * error + 0.03 * float(seen.covariance)
    )


def test_shuffled_batches_have_less(runs):
    u, recorded = runs
    run = recorded["BAOAB"][1]
    found = analysis.noise_temperature(run, u.minibatch(30), frames=40, calls=20)
    expected = exact_covariance(u, run.positions, 30, "shuffle")
    assert float(found.covariance) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("name", "tolerance"), [("BAOAB", 0.2), ("SGLD", 0.01)])
def test_advice_is_enough(runs, name, tolerance):
    """Each piece of advice, followed, predicts the tolerance."""
    u, recorded = runs
    batches, run = recorded[name]
    found = analysis.noise_temperature(run, batches, tolerance=tolerance)
    advice = found.advice
    assert advice is not None
    base = run.config["integrator"]

    def predicted(potential=batches, **changes):
        run.config["integrator"] = base | changes
        try:
            return analysis.noise_temperature(run, potential).predicted
        finally:
            run.config["integrator"] = base

    assert predicted(dt=advice.dt) == pytest.approx(tolerance, rel=0.1)
    if name == "BAOAB":
        assert predicted(friction=advice.friction) == pytest.approx(tolerance, rel=0.01)
    else:
        assert advice.friction is None
    if advice.batch_size < 60:
        larger = u.minibatch(advice.batch_size, order="replacement")
        assert predicted(larger) == pytest.approx(tolerance, rel=0.15)
    assert f"for {tolerance:.1%}" in str(found)
    strict = analysis.noise_temperature(run, batches, tolerance=1e-4).advice
    assert strict.friction is None  # the noise of a single step is too much already
    assert "within" in str(analysis.noise_temperature(run, batches, tolerance=9.0))


def test_what_is_refused(runs):
    u, recorded = runs
    batches, run = recorded["BAOAB"]
    with pytest.raises(PotentialError, match="no noise"):
        analysis.noise_temperature(run, u)
    with pytest.raises(PotentialError, match="parameters"):
        analysis.noise_temperature(run, regression(d=3).minibatch(4))
    with pytest.raises(PotentialError, match="tolerance"):
        analysis.noise_temperature(run, batches, tolerance=0)
    bathless = record(u, integrators.VelocityVerlet(dt=0.01), 20, 2)
    with pytest.raises(SchemeError, match="with a bath"):
        analysis.noise_temperature(bathless)
