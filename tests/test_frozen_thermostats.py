"""Frozen weights under thermostats: the others move as if those were not there.

Statistical checks compare independent replicas with exact laws, at six standard errors
(5e-7 of false alarms, with 60 blocks) or p > 1e-6.
"""

import numpy as np
import pytest
from scipy import stats

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import SchemeError
from mdnet.integrators import grouping

from .physics_tools import Coupled, z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0
METHODS = {
    "NoseHoover": lambda **more: integrators.NoseHoover(0.1, 0.7, **more),
    "StochasticVelocityRescaling": lambda **more: (
        integrators.StochasticVelocityRescaling(0.1, 0.7, 0.4, **more)
    ),
    "SGNHT": lambda **more: integrators.SGNHT(0.1, 0.7, **more),
    "CCAdL": lambda **more: integrators.CCAdL(0.1, 0.7, **more),
    "CCAdL, low rank": lambda **more: integrators.CCAdL(
        0.1, 0.7, covariance="low-rank", rank=2, **more
    ),
    "SGHMC": lambda **more: integrators.SGHMC(0.1, 0.7, **more),
}
SIZE, FREE = 8, 5  # of as many blocks of four, so that noise is the same


def simulate(potential, integrator, replicas=4, **settings):
    settings = {"backend": "cpu", "precision": "double", "seed": 2} | settings
    return mdnet.Simulation(potential, integrator, replicas, **settings)


def tail():
    return np.arange(SIZE) >= FREE


def run(method, steps=40, frozen=None, size=SIZE, **more):
    """A chain of springs, or its free part in the field of the rest at zero."""
    K = 2 * np.eye(SIZE) - np.eye(SIZE, k=1) - np.eye(SIZE, k=-1)
    q, p = np.random.default_rng(1).normal(size=(2, 4, SIZE))
    q[:, FREE:] = 0
    settings = {} if frozen is None else {"frozen": frozen}
    sim = simulate(
        Coupled(K[:size, :size], quartic=0.1),
        METHODS[method](**settings, **more),
        positions=q[:, :size],
        momenta=p[:, :size],
    )
    sim.run(steps)
    return sim


@pytest.mark.parametrize("method", METHODS)
def test_the_rest_moves_as_a_smaller_system(method):
    """Frozen weights at zero leave their springs' other ends: the smaller matrix."""
    held, alone = run(method, frozen=tail()), run(method, size=FREE)
    for name in ("positions", "momenta"):
        whole, part = (getattr(sim.state, name) for sim in (held, alone))
        np.testing.assert_allclose(whole[:, :FREE], part, rtol=1e-9, atol=1e-10)
        assert (whole[:, FREE:] == 0).all()
    first, second = held.scalars(), alone.scalars()
    for name in ("kinetic_energy", "heat", "kick_work", "kinetic_temperature"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-8, atol=1e-9)
    for name in set(first) & {"conserved", "thermostat_friction", "gradient_noise"}:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-7, atol=1e-9)
    # Negative control: with all weights free it goes elsewhere.
    moved = run(method).state.positions[:, :FREE]
    assert np.abs(moved - alone.state.positions).max() > 0.01


@pytest.mark.parametrize("method", ["NoseHoover", "SGNHT"])
def test_the_count_of_what_moves_matters(method, monkeypatch):
    """Negative control: a thermostat that counts frozen weights too."""
    alone = run(method, size=FREE).state.positions
    right = grouping.Bath.__init__

    def wrong(self, integrator, context):
        right(self, integrator, context)
        self.dof = self.dof * SIZE / FREE

    monkeypatch.setattr(grouping.Bath, "__init__", wrong)
    held = run(method, frozen=tail()).state.positions[:, :FREE]
    assert np.abs(held - alone).max() > 1e-3


@pytest.mark.parametrize("groups", ["all", "layer"])
@pytest.mark.parametrize(
    "method", ["NoseHoover", "StochasticVelocityRescaling", "SGNHT"]
)
@pytest.mark.parametrize("frozen", [["0.weight"], ["1.*"], "mask"])
def test_frozen_weights_of_a_network_stay(method, groups, frozen):
    U = posterior()
    if frozen == "mask":
        frozen = np.arange(U.size) % 3 == 1
    made = METHODS[method](groups=groups, frozen=frozen)
    free = made.free(U.layout)
    sim = simulate(U, made, 3, precision="single")
    start = sim.state.positions.copy()
    sim.run(30)
    assert np.array_equal(sim.state.positions[:, ~free], start[:, ~free])
    assert (sim.state.positions[:, free] != start[:, free]).all()
    assert (sim.state.momenta[:, ~free] == 0).all()
    assert np.isfinite(sim.state.momenta).all()
    layers = made.degrees_of_freedom(U.layout)
    assert layers.sum() == free.sum()
    first = sim.scalars()
    sim.run(20)
    last = sim.scalars()
    gained = last["kinetic_energy"] - first["kinetic_energy"]
    booked = sum(last[name] - first[name] for name in ("heat", "kick_work"))
    np.testing.assert_allclose(gained, booked, atol=1e-9 * last["kinetic_energy"].max())


@pytest.mark.physics
@pytest.mark.parametrize("method", METHODS)
def test_kinetic_energy_has_the_law_of_what_moves(method):
    """2K/T after the bath is chi-square of FREE degrees of freedom."""
    settings = {"chain": 4} if method == "NoseHoover" else {}
    K = 2 * np.eye(SIZE) - np.eye(SIZE, k=1) - np.eye(SIZE, k=-1)
    scattered = np.isin(np.arange(SIZE), [1, 4, 5])
    sim = simulate(
        Coupled(K, quartic=0.5), METHODS[method](frozen=scattered, **settings), 300
    )
    sim.run(200)
    memory = reporters.Memory(40, positions=False)
    sim.run(1200, reporters=[memory])
    found = memory["kinetic_temperature"].value[1:] / 0.7
    assert z_scores(found.mean(0), 1.0) < LIMIT
    assert z_scores(found.mean(0), SIZE / FREE) > LIMIT
    last = found[-1] * FREE
    assert stats.kstest(last, stats.chi2(FREE).cdf).pvalue > 1e-6
    assert stats.kstest(found.ravel() * FREE, stats.chi2(SIZE).cdf).pvalue < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_uninterrupted_one(method, tmp_path):
    U = posterior().minibatch(16)
    make = METHODS[method]
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 10, "restart_every": 50}
    sims = [
        mdnet.Simulation(U, make(frozen=["0.bias"]), 2, seed=3, backend="cpu")
        for _ in range(2)
    ]
    sims[0].run(60, trajectory=whole, **settings)
    sims[1].run(30, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert resumed.integrator.frozen == ("0.bias",)
    resumed.run(30)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)


@pytest.mark.parametrize("make", [integrators.NoseHoover, integrators.SGNHT])
def test_a_thermostat_of_each_weight_holds_none(make):
    with pytest.raises(SchemeError, match="groups='all' or 'layer'"):
        make(0.1, groups="parameter", frozen=["0.weight"])


def test_what_moves_all_weights_says_so():
    with pytest.raises(SchemeError, match="moves all weights"):
        integrators.SGD(0.1, weight_decay=0.1).__class__(
            "OBA", 0.1, 0.0, 0.0, weight_decay=0.1, frozen=["0.weight"]
        )
    free = potentials.Harmonic(size=4)
    with pytest.raises(SchemeError, match="leaves no parameter"):
        simulate(free, integrators.NoseHoover(0.1, frozen=np.ones(4, bool)))
