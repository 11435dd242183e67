"""Thermostats for gradient noise: ledger, restart, and the path of other devices."""

import json

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters, schedules

from .cuda_tools import gpu
from .test_gradient_noise import TwoTensors, simulate

RAMP = schedules.linear(0.02, 0.04, 40)
MAKERS = {
    "SGNHT": lambda **k: integrators.SGNHT(0.03, **k),
    "SGNHT layer": lambda **k: integrators.SGNHT(0.03, groups="layer", **k),
    "SGNHT parameter": lambda **k: integrators.SGNHT(0.03, groups="parameter", **k),
    "CCAdL": lambda **k: integrators.CCAdL(0.03, groups="layer", **k),
    "CCAdL low-rank": lambda **k: integrators.CCAdL(
        0.03, covariance="low-rank", rank=3, **k
    ),
    "SGHMC": lambda **k: integrators.SGHMC(0.03, friction=3.0, **k),
    "pSGLD": lambda **k: integrators.SGLD(0.01, preconditioner="rmsprop"),
    "SGD": lambda **k: integrators.SGD(0.01, weight_decay=RAMP),
}
SCHEDULED = {
    "SGNHT": lambda: integrators.SGNHT(RAMP, schedules.cosine(2.0, 1.0, 30), RAMP),
    "CCAdL": lambda: integrators.CCAdL(RAMP, schedules.cosine(2.0, 1.0, 30), RAMP),
    "SGHMC": lambda: integrators.SGHMC(RAMP, schedules.cosine(2.0, 0.0, 30), 4.0),
    "pSGLD": lambda: integrators.SGLD(RAMP, RAMP, preconditioner="rmsprop"),
}
MASS = np.linspace(1.0, 2.0, 80)


def regression():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 6))
    return potentials.LinearRegression(X, rng.normal(size=40)).minibatch(4)


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "SGD"])
def test_first_law(name):
    sim = simulate(TwoTensors(80, noise=1.0), MAKERS[name](mass=MASS), 3)
    first = sim.scalars()
    sim.run(60)
    last = sim.scalars()
    gained = last["kinetic_energy"] - first["kinetic_energy"]
    np.testing.assert_allclose(gained, last["heat"] + last["kick_work"], rtol=1e-9)
    twice = (sim.state.momenta**2 / (MASS if name != "pSGLD" else 1)).sum(1)
    np.testing.assert_allclose(2 * last["kinetic_energy"], twice, rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["SGNHT parameter", "CCAdL", "CCAdL low-rank", "SGHMC"]
)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_compiled_bath_equals_array_operations(name, precision):
    found = []
    for compiled in (True, False):
        make = MAKERS[name](mass=MASS, temperature=[0.5, 2.0])
        sim = simulate(TwoTensors(80, noise=1.0), make, 2, precision=precision)
        companion = sim._companion
        companion._pass.compiled = compiled
        if hasattr(companion, "_variance"):
            companion._variance.compiled = compiled
        sim.run(6)
        s = sim.state
        numbers = [v for k, v in s.variables.items() if k != "sketch"]
        found.append([s.positions, s.momenta, s.sums.sum(2), *numbers])
    tolerance = 1e-9 if precision == "double" else 2e-4
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [*MAKERS, *(f"{n} scheduled" for n in SCHEDULED)])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_resume_is_bitwise(name, precision, tmp_path):
    u = regression()
    key, _, rest = name.rpartition(" ")
    make = SCHEDULED[key]() if rest == "scheduled" else MAKERS[name]()
    settings = {"replicas": 2, "precision": precision}
    whole = simulate(u, make, **settings)
    whole.run(60, trajectory=tmp_path / "whole.h5md", every=10)
    part = simulate(u, make, **settings)
    part.run(30, trajectory=tmp_path / "part.h5md", every=10)
    again = mdnet.Simulation.resume(tmp_path / "part.h5md", u)
    described = json.loads(json.dumps(make.describe()))
    assert again.integrator.describe() == described
    again.run(30)
    for part_of in ("positions", "momenta", "sums"):
        np.testing.assert_array_equal(
            getattr(again.state, part_of), getattr(whole.state, part_of)
        )
    for key, value in whole.state.variables.items():
        np.testing.assert_array_equal(again.state.variables[key], value)


@pytest.mark.parametrize("name", MAKERS)
def test_neither_reports_nor_company_change_a_path(name):
    u = regression()
    often, once, more = (simulate(u, MAKERS[name](), r) for r in (2, 2, 5))
    often.run(40, reporters=[reporters.Memory(3)])
    once.run(40)
    more.run(40)
    np.testing.assert_array_equal(often.state.positions, once.state.positions)
    if name != "CCAdL low-rank":  # whose matrix products round by the batch
        np.testing.assert_array_equal(more.state.positions[:2], once.state.positions)


def test_series_are_recorded():
    sim = simulate(regression(), MAKERS["CCAdL"](), 2)
    memory = reporters.Memory(5, positions=False)
    sim.run(20, reporters=[memory])
    for name in ("thermostat_friction", "gradient_noise"):
        assert memory[name].value.shape == (5, 2)
    assert memory["gradient_noise"].value[-1].min() > 0


DEVICE = {
    "NoseHoover": lambda: integrators.NoseHoover(RAMP, groups="layer"),
    "NoseHoover parameter": lambda: integrators.NoseHoover(0.03, groups="parameter"),
    "rescaling": lambda: integrators.StochasticVelocityRescaling(0.03),
    "CCAdL scheduled": SCHEDULED["CCAdL"],
    **MAKERS,
}


@gpu
@pytest.mark.parametrize("name", DEVICE)
def test_device_equals_cpu(name):
    """In double precision, to the rounding of sums and exponentials."""
    found = []
    for backend in ("cpu", "cuda"):
        sim = simulate(regression(), DEVICE[name](), 2, backend=backend)
        sim.run(5)
        found.append(sim.arrays(("positions", "momenta")) | sim.scalars())
    for key, value in found[0].items():
        np.testing.assert_allclose(value, found[1][key], rtol=1e-9, atol=1e-9)
