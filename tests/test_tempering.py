"""Replica exchange: exact weights and moments at every temperature, exact swap rates.

Ladders of one simulation are independent: deviations are judged in standard errors over
40 or more of them (Student's t: one sound comparison in 2e6 exceeds `LIMIT`).
"""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import betainc

import mdnet
from mdnet import analysis, integrators, potentials
from mdnet.errors import SchemeError
from mdnet.integrators import tempering
from mdnet.reporters import Memory

from .physics_tools import z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0


def simulate(U, ladder, ladders=60, every=5, h=0.5, seed=1, word=None, **more):
    word = word or integrators.BAOAB(dt=h)
    method = integrators.ReplicaExchange(word, ladder, every, **more)
    return mdnet.Simulation(
        U,
        method,
        len(ladder) * ladders,
        positions=np.zeros(U.size),
        seed=seed,
        backend="cpu",
    )


def by_rung(sim, steps, every, name="potential_energy"):
    """Time averages at each temperature: (ladders, K)."""
    memory = Memory(every, positions=name == "positions")
    start = sim.state.step
    sim.run(steps, reporters=[memory])
    found = analysis.by_temperature(memory, name)
    return found.value[found.step > start].mean(0).swapaxes(0, 1), memory


def acceptance(D, low, high):
    """2 P(U_low > U_high) of D oscillators at two temperatures."""
    return 2 * betainc(D / 2, D / 2, 1 / (1 + high / low))


@pytest.mark.physics
@pytest.mark.parametrize("word", [None, integrators.ABOBA(dt=0.8, friction=0.3)])
def test_oscillators(word):
    """Energies and momenta of every temperature, and the rate of swaps."""
    ladder, D = np.array([0.5, 1.0, 1.7, 4.0]), 6
    sim = simulate(potentials.Harmonic(size=D), ladder, 150, word=word)
    sim.run(100)
    energy, memory = by_rung(sim, 1000, 5)
    assert (z_scores(energy, ladder * D / 2) < LIMIT).all()
    assert (z_scores(energy, 1.05 * ladder * D / 2) > LIMIT).all()
    if word is None:
        kinetic = analysis.by_temperature(memory, "kinetic_temperature").value.mean(0)
        assert (z_scores(kinetic.T, ladder) < LIMIT).all()
    tried, done = (memory[f"swap_{n}"].value[-1] for n in ("attempts", "accepts"))
    each = done.reshape(-1, 4, 3).sum(1) / tried.reshape(-1, 4, 3).sum(1)
    known = acceptance(D, ladder[:-1], ladder[1:])
    assert (z_scores(each, known) < LIMIT).all()
    assert (z_scores(each, acceptance(D + 1, ladder[:-1], ladder[1:])) > LIMIT).all()
    summary = analysis.exchanges(memory)
    np.testing.assert_allclose(summary.acceptance, known, rtol=0.03)
    np.testing.assert_array_equal(summary.temperatures, ladder)
    assert summary.round_trips.sum() > 1000
    assert summary.barrier == pytest.approx((1 - known).sum(), abs=0.05)


def test_acceptance_in_closed_form():
    """Against the average of min(1, exp(gain)) itself."""
    rng = np.random.default_rng(0)
    D, low, high = 6, 1.0, 1.7
    a = rng.chisquare(D, 400_000) / 2 * low
    b = rng.chisquare(D, 400_000) / 2 * high
    rate = np.exp(np.minimum((1 / low - 1 / high) * (a - b), 0))
    assert abs(rate.mean() - acceptance(D, low, high)) < 5 * rate.std() / 632


class _Wrong(tempering.Exchange):
    """Swaps whatever the energies."""

    def _swap(self, step, parity):
        potential = self.context.state.potential_energy
        self.context.state.potential_energy = lambda: 0 * potential()
        super()._swap(step, parity)
        self.context.state.potential_energy = potential


@pytest.mark.physics
def test_swaps_without_a_test_are_noticed(monkeypatch):
    monkeypatch.setattr(tempering, "Exchange", _Wrong)
    ladder = np.array([0.5, 1.0, 1.7, 4.0])
    sim = simulate(potentials.Harmonic(size=6), ladder, every=1)
    sim.run(100)
    energy, _ = by_rung(sim, 500, 5)
    assert (z_scores(energy, ladder * 3)[[0, -1]] > LIMIT).all()


@pytest.mark.physics
def test_momenta_that_are_not_rescaled_are_noticed(monkeypatch):
    monkeypatch.setattr(tempering.Exchange, "_rescale", lambda self, factor: None)
    ladder = np.array([0.5, 2.0])
    word = integrators.BAOAB(0.2, friction=0.02)
    sim = simulate(potentials.Harmonic(size=4), ladder, word=word, every=2)
    sim.run(100)
    _, memory = by_rung(sim, 400, 5)
    kinetic = analysis.by_temperature(memory, "kinetic_temperature").value.mean(0)
    assert (z_scores(kinetic.T, ladder) > LIMIT).all()


@pytest.mark.physics
def test_weights_of_a_mixture():
    """Two wells apart by 14 widths, 3 : 1; without exchange no replica ever crosses."""
    U = potentials.GaussianMixture(
        weights=[0.75, 0.25], means=[[-3.5], [3.5]], scales=[0.5, 0.5]
    )
    ladder = np.geomspace(1.0, 30.0, 6)

    def left(every):
        sim = simulate(U, ladder, ladders=64, every=every, h=0.3)
        q = np.where(np.arange(sim.replicas) // 6 % 2, 3.5, -3.5)[:, None]
        sim.set_positions(q)
        sim.run(1000)
        memory = Memory(10)
        sim.run(4000, reporters=[memory])
        cold = analysis.by_temperature(memory, "positions").value[:, 0, :, 0]
        return (cold < 0).mean(0)

    assert z_scores(left(5), 0.75) < LIMIT
    assert z_scores(left(5), 0.5) > LIMIT
    assert set(left(10**6)) == {0.0, 1.0}


@pytest.mark.physics
def test_double_well():
    """<x^2> at each temperature, by quadrature; small steps, since BAOAB is inexact."""
    a, ladder = 2.0, np.array([0.3, 0.6, 1.2])
    U = potentials.DoubleWell(a=a, size=1)

    def moment(T, n):
        return quad(lambda x: x**n * np.exp(-a * (x * x - 1) ** 2 / T), -4, 4)[0]

    known = np.array([moment(T, 2) / moment(T, 0) for T in ladder])
    sim = simulate(U, ladder, ladders=300, h=0.05)
    sim.run(200)
    memory = Memory(20)
    sim.run(2000, reporters=[memory])
    q = analysis.by_temperature(memory, "positions").value[1:, :, :, 0]
    seen = (q.astype(float) ** 2).mean(0).T
    assert (z_scores(seen, known) < LIMIT).all()
    assert (z_scores(seen, known[[1, 2, 0]]) > LIMIT).all()


@pytest.mark.physics
def test_the_ladder_learns_equal_rejection():
    """Oscillators: the right ladder is geometric, from a start that is far from it."""
    D, ladder = 10, np.array([1.0, 1.1, 1.2, 1.3, 8.0])
    sim = simulate(potentials.Harmonic(size=D), ladder, ladders=20, adapt=2000)
    sim.run(2000)
    assert sim.state.variables["attempts"].sum() > 0
    sim.run(1)
    assert sim.state.variables["attempts"].sum() == 0  # counted from here on
    learned = sim.state.variables["ladder"].copy()
    sim.run(1499)
    assert np.array_equal(learned, sim.state.variables["ladder"])
    np.testing.assert_allclose(learned, np.geomspace(1, 8, 5), rtol=0.1)
    done, tried = (sim.state.variables[n].sum(0) for n in ("accepts", "attempts"))
    assert np.ptp(done / tried) < 0.08
    start = 1 - acceptance(D, ladder[:-1], ladder[1:])
    assert np.ptp(start) > 0.8
    moved = tempering.equal_rejection(ladder, start)
    assert moved[0] == 1.0
    assert moved[-1] == 8.0
    assert (np.diff(moved) > 0).all()


def test_ledger_and_series():
    """Rescaling is heat: the first law closes; each rung has one replica a ladder."""
    sim = simulate(potentials.Harmonic(size=30), [1.0, 1.5, 2.0], ladders=2)
    first = sim.scalars()["kinetic_energy"].copy()
    memory = Memory(1)
    sim.run(200, reporters=[memory])
    values = sim.scalars()
    np.testing.assert_allclose(
        values["kinetic_energy"] - first, values["heat"] + values["kick_work"],
        rtol=1e-9,
    )  # fmt: skip
    rung = memory["rung"].value
    assert (np.sort(rung.reshape(-1, 2, 3), axis=2) == [0, 1, 2]).all()
    assert (np.abs(np.diff(rung, axis=0)) <= 1).all()
    changed = np.flatnonzero(np.diff(rung, axis=0).any(1)) + 1
    # Swaps come as the step after a multiple begins: readings belong to their step.
    assert set(memory.steps[changed] % 5) == {1}
    ladder = np.array([1.0, 1.5, 2.0])
    assert np.array_equal(memory["target_temperature"].value, ladder[rung.astype(int)])


def test_no_launch_more_than_without():
    """Between swaps steps stay fused: a chunk of steps is one launch."""
    sim = simulate(potentials.Harmonic(size=3), [1.0, 2.0], ladders=1, every=50)
    launches = []
    advance = sim._engine.advance
    sim._engine.advance = lambda *a: (launches.append(a[-1]), advance(*a))
    sim.run(100)
    assert len(launches) <= 8


def test_replicas_do_not_depend_on_those_beside_them():
    U = potentials.DoubleWell(size=40)
    one = simulate(U, [0.5, 1.0, 2.0], ladders=1, h=0.1)
    two = simulate(U, [0.5, 1.0, 2.0], ladders=2, h=0.1)
    one.run(60)
    two.run(60)
    assert np.array_equal(one.state.positions, two.state.positions[:3])


INSIDE = {
    "HMC": (lambda: integrators.HMC(dt=0.3, steps=3, target_acceptance=None), 1.0),
    "NoseHoover": (
        lambda: integrators.NoseHoover(dt=0.1, relaxation_time=1.0, groups="parameter"),
        1.0,
    ),
    "GJF": (lambda: integrators.GJF(dt=0.5), 1.0),
    "frozen": (lambda: integrators.BAOAB(dt=0.5, frozen=np.arange(6) < 2), 4 / 6),
}


@pytest.mark.physics
@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("kind", ["ReplicaExchange", "SimulatedTempering"])
def test_other_integrators_inside(inside, kind):
    """Energies of every temperature, whatever moves the replicas."""
    word, moving = INSIDE[inside]
    ladder, D = np.array([0.5, 1.0, 1.7]), 6
    more = {}
    if kind == "SimulatedTempering":
        more["weights"] = -D / 2 * moving * np.log(ladder)
    method = getattr(integrators, kind)(word(), ladder, 7, **more)
    sim = mdnet.Simulation(
        potentials.Harmonic(size=D), method, 1800, positions=np.zeros(D), seed=1,
        backend="cpu",
    )  # fmt: skip
    sim.run(180)
    energy, rung = 0, sim.scalars()["rung"].astype(int)
    assert sim.state.variables["accepts"].sum() > 5000
    seen = sim.scalars()["potential_energy"]
    for k, T in enumerate(ladder):
        energy = seen[rung == k]
        assert z_scores(energy, T * D / 2 * moving) < LIMIT
        assert z_scores(energy, 1.3 * T * D / 2 * moving) > LIMIT


@pytest.mark.physics
def test_simulated_tempering_visits_rungs_as_its_weights_say():
    """p_k ~ Z_k e^g_k, and the canonical energies at each rung."""
    D, ladder = 6, np.array([0.5, 1.0, 1.7, 4.0])
    logs = D / 2 * np.log(ladder)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    method = integrators.SimulatedTempering(
        integrators.BAOAB(0.5), ladder, 5, weights=np.log(shares) - logs
    )
    sim = mdnet.Simulation(
        potentials.Harmonic(size=D), method, 200, positions=np.zeros(D), seed=2,
        backend="cpu",
    )  # fmt: skip
    sim.run(500)
    memory = Memory(5, positions=False)
    sim.run(3000, reporters=[memory])
    rung = memory["rung"].value[1:]
    visits = np.stack([(rung == k).mean(0) for k in range(4)], axis=1)
    assert (z_scores(visits, shares) < LIMIT).all()
    assert (z_scores(visits, 0.25)[[0, 3]] > LIMIT).all()
    U = memory["potential_energy"].value[1:]
    for k, T in enumerate(ladder):
        off = ((U - T * D / 2) * (rung == k)).mean(0)
        assert z_scores(off, 0.0) < LIMIT
        assert z_scores(((U - 1.1 * T * D / 2) * (rung == k)).mean(0), 0.0) > LIMIT


@pytest.mark.physics
def test_simulated_tempering_learns_its_weights():
    """-log Z_k of oscillators, from zeros, and then keeps them."""
    D, ladder = 10, np.geomspace(1, 4, 5)
    method = integrators.SimulatedTempering(
        integrators.BAOAB(0.5), ladder, 4, adapt=4000
    )
    sim = mdnet.Simulation(
        potentials.Harmonic(size=D), method, 50, positions=np.zeros(D), backend="cpu"
    )
    sim.run(4001)
    learned = sim.state.variables["weights"].copy()
    np.testing.assert_allclose(learned, -D / 2 * np.log(ladder), atol=0.15)
    sim.run(400)
    assert np.array_equal(learned, sim.state.variables["weights"])


@pytest.mark.parametrize(
    "word",
    [
        lambda: integrators.BAOAB(dt=0.02),
        lambda: integrators.OBABO(
            mdnet.schedules.linear(0.02, 0.01, 80), 1.0, {"0.*": 3.0, "*": 1.0},
            frozen=["1.bias"],
        ),
        lambda: integrators.SGLD(dt=0.0005),
    ],
)  # fmt: skip
@pytest.mark.parametrize("adapt", [0, 64])
@pytest.mark.parametrize("kind", ["ReplicaExchange", "SimulatedTempering"])
def test_a_resumed_run_is_the_uninterrupted_one(word, adapt, kind, tmp_path):
    U = posterior().minibatch(16)
    ladder = np.geomspace(1.0, 1.6, 4)
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 6, "observables_every": 3, "restart_every": 50}

    def start():
        method = getattr(integrators, kind)(word(), ladder, 2, adapt)
        return mdnet.Simulation(U, method, 4, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(100, trajectory=whole, **settings)
    sims[1].run(50, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert_same_state(sims[1], resumed)
    resumed.run(50)
    assert_same_state(sims[0], resumed)
    for name, value in sims[0].state.variables.items():
        assert np.array_equal(value, resumed.state.variables[name]), name
    assert_same_files(whole, parts)
    if kind == "SimulatedTempering":
        return
    if not adapt:
        assert sims[0].state.variables["accepts"].sum() > 10
    with mdnet.open(whole) as run:
        assert analysis.exchanges(run).attempts.shape == (3,)
        found = analysis.by_temperature(run, "positions")
        assert found.value.shape == (17, 4, 1, U.size)
        layers = analysis.by_temperature(run, "layer_kinetic_temperature")
        assert layers.value.shape == (34, 4, 1, 4)


@pytest.mark.parametrize(
    ("settings", "replicas", "message"),
    [
        ({"temperatures": [1.0]}, 1, "two or more increasing"),
        ({"temperatures": [1.0, 1.0]}, 2, "two or more increasing"),
        ({"temperatures": [0.0, 1.0]}, 2, "two or more increasing"),
        ({"temperatures": [1.0, 2.0]}, 3, "replicas=3 for 2 temperatures.*replicas=4"),
        ({"temperatures": [1.0, 2.0], "every": 0}, 2, "every=0: expected"),
        ({"temperatures": [1.0, 2.0], "adapt": -1}, 2, "adapt=-1: expected"),
        ({"temperatures": [1.0, 2.0], "integrator": "BAOAB"}, 2, "integrator='BAOAB'"),
    ],
)
def test_what_is_refused(settings, replicas, message):
    settings = {"integrator": integrators.BAOAB(0.1)} | settings
    with pytest.raises(SchemeError, match=message):
        mdnet.Simulation(
            potentials.Harmonic(size=3),
            integrators.ReplicaExchange(**settings),
            replicas,
        )


def test_weights_are_checked():
    with pytest.raises(SchemeError, match="expected 2 finite"):
        integrators.SimulatedTempering(integrators.BAOAB(0.1), [1, 2], weights=[0.0])


def test_unstable_steps_and_plain_runs_are_refused():
    U = potentials.Harmonic(size=3)
    with pytest.raises(SchemeError, match="stability limit dt < 2 of BAOAB"):
        simulate(U, [1.0, 2.0], h=3.0)
    sim = mdnet.Simulation(U, integrators.BAOAB(0.1), 2)
    memory = Memory(1)
    sim.run(3, reporters=[memory])
    with pytest.raises(mdnet.errors.TrajectoryError, match="'rung'"):
        analysis.exchanges(memory)
