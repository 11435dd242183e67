"""Turns made in one call are those made one by one, bit for bit."""

import ctypes

import numba
import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.kernels.rounds import Rounds
from mdnet.potentials.evaluators import DenseEvaluator
from mdnet.stepper import Stepper


@pytest.fixture
def posterior():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 5)), rng.standard_normal(300)
    net = potentials.MLP([5, 12, 1])
    noise = potentials.likelihoods.Gaussian(noise=0.5)
    return potentials.Posterior(net, noise, data=(X, y))


INTEGRATORS = {
    "BAOAB": lambda: integrators.BAOAB(dt=0.01, temperature=0.5),
    "SGLD": lambda: integrators.SGLD(dt=1e-4, temperature=2.0),
    "two forces": lambda: integrators.Splitting(
        "BABABOABABAB", dt=0.02, temperature=1.0, friction=1.0
    ),
    "HMC": lambda: integrators.HMC(dt=0.02, steps=9, temperature=1.0),
    "schedule": lambda: integrators.BAOAB(
        dt=0.01, temperature=mdnet.schedules.linear(1.0, 0.5, 20)
    ),
    "thermostat": lambda: integrators.NoseHoover(dt=0.01, temperature=1.0),
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("mdnet.stepper._WORTH", 0)


def follow(potential, integrator, replicas, precision="single"):
    sim = mdnet.Simulation(
        potential, integrator, replicas=replicas, seed=3, precision=precision
    )
    sim.run(7, progress=False)
    sim.run(12, progress=False)
    return sim.state


@pytest.mark.parametrize("replicas", [1, 3, 9])
@pytest.mark.parametrize("batch", [None, 60])
@pytest.mark.parametrize("name", INTEGRATORS)
def test_one_call_and_many_agree(posterior, name, batch, replicas, monkeypatch):
    if batch and name == "HMC":
        pytest.skip("a Metropolis test wants all data")
    U = posterior if batch is None else posterior.minibatch(batch)
    made = []
    run = Rounds.run
    monkeypatch.setattr(
        Rounds, "run", lambda *a: made.append(run(*a)) or made[-1], raising=True
    )
    monkeypatch.setattr(DenseEvaluator, "TEAM", 0)
    most = numba.config.NUMBA_NUM_THREADS
    states = []
    for threads, limit in ((1, 10**9), (most, 10**9), (most, 1)):
        monkeypatch.setattr(Rounds, "WORK", limit)
        monkeypatch.setattr(DenseEvaluator, "SMALL", 0 if threads > 1 else 10**9)
        numba.set_num_threads(threads)
        states.append(follow(U, INTEGRATORS[name](), replicas))
    numba.set_num_threads(most)
    assert bool(made) == (name not in ("schedule", "thermostat"))
    monkeypatch.setattr(Stepper, "_turns", lambda *a: 0)
    alone = follow(U, INTEGRATORS[name](), replicas)
    for state in states:
        np.testing.assert_array_equal(state.positions, alone.positions)
        np.testing.assert_array_equal(state.momenta, alone.momenta)
        np.testing.assert_array_equal(state.sums, alone.sums)
        assert state.step == alone.step


def test_arrays_that_must_be_converted_go_step_by_step(posterior):
    """Mixed precision: positions are wider than forces."""
    mixed = follow(posterior, INTEGRATORS["BAOAB"](), 2, "mixed")
    double = follow(posterior, INTEGRATORS["BAOAB"](), 2, "double")
    np.testing.assert_allclose(mixed.positions, double.positions, atol=1e-4)


def test_a_team_goes_without_threads_that_never_come(posterior, monkeypatch):
    """Some threading layers give both turns of a loop to one thread."""
    monkeypatch.setattr(DenseEvaluator, "TEAM", 0)
    monkeypatch.setattr(DenseEvaluator, "SMALL", 0)
    expected = follow(posterior, INTEGRATORS["BAOAB"](), 2).positions
    lone = []

    def one_after_the_other(function, table, workers):
        call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(function)
        for _ in range(workers):
            call(table)
        lone.append(workers)

    monkeypatch.setattr("mdnet.kernels.native.spread", one_after_the_other)
    most = numba.config.NUMBA_NUM_THREADS
    if most < 2:
        pytest.skip("one thread only")
    found = follow(posterior, INTEGRATORS["BAOAB"](), 2).positions
    assert max(lone) > 1
    np.testing.assert_array_equal(found, expected)


def test_short_runs_compile_nothing_for_it(posterior, monkeypatch):
    made = []
    run = Rounds.run
    monkeypatch.setattr(Rounds, "run", lambda *a: made.append(run(*a)) or made[-1])
    monkeypatch.setattr("mdnet.stepper._WORTH", 30)
    sim = mdnet.Simulation(posterior, INTEGRATORS["BAOAB"](), replicas=2, seed=3)
    sim.run(20, progress=False)
    assert not made
    sim.run(40, progress=False)
    assert 0 < sum(made) < 40
