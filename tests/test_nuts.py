"""No-U-turn trajectories: the law they keep, where they end, restart.

Limits are five standard errors over hundreds of independent replicas: a fresh seed
fails somewhere in this file with probability below 1e-4.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import SchemeError
from mdnet.integrators.nuts import Tree

from .physics_tools import readings, z_scores
from .test_hmc import posterior, simulation
from .test_restart import assert_same_state

LIMIT = 5.0
REPLICAS = 400


def squares(potential, made, T, steps=80, seed=2):
    """<q^2> over its exact value, of every replica and parameter, from equilibrium."""
    sim = simulation(
        potential, made, REPLICAS, positions=potential.sample(REPLICAS, T), seed=seed
    )
    memory = reporters.Memory(1)
    sim.run(steps, reporters=[memory])
    return (memory.positions[1:] ** 2).mean(0) / potential.variance(T), sim


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.5, 2.0])
@pytest.mark.parametrize(
    ("potential", "dt"),
    [
        (potentials.Harmonic(stiffness=np.geomspace(0.1, 10.0, 6), size=6), 0.4),
        (potentials.DoubleWell(a=0.5, size=3), 0.4),
    ],
)
def test_exact_moments(potential, dt, T):
    found, sim = squares(potential, integrators.NUTS(dt, T, max_depth=6), T)
    assert (z_scores(found, 1.0) < LIMIT).all()
    assert (z_scores(found, 1.25) > LIMIT).all()  # negative control
    values = sim.scalars()
    assert 0.5 < values["acceptance"].mean() < 0.99
    kinetic = z_scores(2 * values["kinetic_energy"] / (potential.size * T), 1.0)
    assert kinetic < LIMIT


def takes_every_leaf(monkeypatch):
    """Draw from the last leaves whatever their weight."""
    right = Tree._copy

    def wrong(self, there, here, where):
        if there is self._leaf:
            where = np.ones_like(where)
        right(self, there, here, where)

    monkeypatch.setattr(Tree, "_copy", wrong)


def forgets_to_turn(monkeypatch):
    """Ends whole trajectories where they turn, but takes subtrees that do."""
    monkeypatch.setattr(
        Tree, "_turned", lambda self, n: np.zeros(REPLICAS, bool), raising=True
    )


def wrong_temperature(monkeypatch):
    right = Tree._grow

    def wrong(self, *args):
        self._temperature = np.full(REPLICAS, 1e6)
        return right(self, *args)

    monkeypatch.setattr(Tree, "_grow", wrong)


@pytest.mark.physics
@pytest.mark.parametrize(
    "wrong", [takes_every_leaf, forgets_to_turn, wrong_temperature]
)
def test_wrong_trees_are_seen(monkeypatch, wrong):
    """Negative controls of the check above."""
    wrong(monkeypatch)
    potential = potentials.DoubleWell(a=0.5, size=3)
    found, _ = squares(potential, integrators.NUTS(0.4, 1.0, max_depth=6), 1.0, 150)
    assert (z_scores(found.mean(1), 1.0) > LIMIT).all()


def test_subtrees_are_compared_with_their_first_leaf():
    """Places of marks, against the balanced subtrees that end at each leaf."""

    class Marked(Tree):
        def __init__(self):
            self.seen = []

        def _turns(self, one, other, total):
            self.seen.append((int(one[0, 0]), int(other[0, 0])))
            return np.zeros(1, bool)

    class Fake:
        pass

    tree = Marked()
    tree._marks, tree._part = [], np.zeros((1, 1))
    tree.context = Fake()
    tree.context.state, tree.context.backend = Fake(), Fake()
    tree.context.backend.xp = np
    for n in range(64):
        tree.context.state.momenta = np.array([[float(n)]])
        tree.seen = []
        tree._turned(n)
        ends = [k for k in range(1, 7) if (n + 1) % 2**k == 0]
        assert sorted(tree.seen) == sorted((n + 1 - 2**k, n) for k in ends)
    assert len(tree._marks) == 6


@pytest.mark.physics
def test_trajectories_end_after_half_a_turn():
    """On an isotropic Gaussian: at least a quarter, at most two turns of 2 pi."""
    U = potentials.Harmonic(stiffness=1.0, size=50)
    steps = np.array([0.05, 0.1, 0.2] * 20)
    sim = simulation(U, integrators.NUTS(steps, max_depth=9), steps.size)
    sim.run(5)
    length = sim.scalars()["leapfrog_steps"] * steps
    assert (length > np.pi / 2).all()
    assert (length < 4 * np.pi).all()
    # Negative control: two doublings are not enough.
    sim = simulation(U, integrators.NUTS(steps, max_depth=2), steps.size)
    sim.run(5)
    values = sim.scalars()
    assert (values["leapfrog_steps"] == 3).all()
    assert (values["tree_depth"] == 2).all()


def test_divergences_are_counted_and_refused():
    U = potentials.Funnel(size=5)
    start = np.array([[-6.0, 0.3, 0.3, 0.3, 0.3], [0.0, 0.3, 0.3, 0.3, 0.3]])
    sim = simulation(U, integrators.NUTS(1.0), 2, positions=start)
    sim.run(3)
    assert sim.scalars()["divergences"][0] >= 3
    assert np.isfinite(sim.state.positions).all()


def test_replicas_do_not_see_each_other():
    U, steps = potentials.DoubleWell(size=7), np.array([0.1, 0.3, 0.2])
    q = U.initial(3)
    both = simulation(U, integrators.NUTS(steps, 0.5, 0.8, 20), 3, positions=q)
    both.run(40)
    alone = simulation(U, integrators.NUTS(steps[2], 0.5, 0.8, 20), positions=q[0])
    first = simulation(U, integrators.NUTS(steps[0], 0.5, 0.8, 20), positions=q[0])
    first.run(40)
    assert np.array_equal(both.state.positions[0], first.state.positions[0])
    alone.run(40)  # negative control: another step
    assert not np.array_equal(both.state.positions[0], alone.state.positions[0])


def test_the_first_law_closes():
    sim = simulation(potentials.DoubleWell(size=3000), integrators.NUTS(0.1), 2)
    start = sim.scalars()
    sim.run(5)
    end = sim.scalars()
    kinetic = end["kinetic_energy"] - start["kinetic_energy"]
    np.testing.assert_allclose(
        end["heat"] + end["kick_work"], kinetic, atol=1e-10 * end["kinetic_energy"][0]
    )
    np.testing.assert_allclose(
        end["potential_energy"], sim.state.variables["energy"], rtol=1e-13
    )


@pytest.mark.physics
def test_warm_up():
    U = potentials.Harmonic(stiffness=np.geomspace(0.1, 1000.0, 20), size=20)
    made = integrators.NUTS(0.01, 1.0, 0.8, 300, adapt_mass=True)
    sim = simulation(U, made, 30)
    sim.run(300)
    ratio = sim.state.variables["inverse_mass"] * np.geomspace(0.1, 1000.0, 20)
    assert (np.abs(np.log(ratio)) < 0.4).all()
    mean = readings(sim, 150, every=1)
    assert mean["acceptance"].mean() == pytest.approx(0.85, abs=0.08)
    assert (mean["leapfrog_steps"] < 16).all()
    assert (z_scores(mean["potential_energy"] / 10, 1.0) < LIMIT).all()


@pytest.mark.parametrize("precision", ["single", "double"])
def test_restart_is_bitwise(precision, tmp_path):
    def start():
        made = integrators.NUTS(0.1, [1.0, 0.5], 0.8, 40, max_depth=5, adapt_mass=True)
        return simulation(posterior(), made, 2, precision)

    whole, cut = start(), start()
    whole.run(60)
    for steps, path in ((13, "a.h5md"), (17, "b.h5md"), (30, "c.h5md")):
        cut.run(steps, trajectory=tmp_path / path, every=5)
        cut = mdnet.Simulation.resume(tmp_path / path, posterior())
    assert_same_state(cut, whole)
    with mdnet.open(tmp_path / "b.h5md") as run:
        assert {"tree_depth", "leapfrog_steps", "divergences"} <= set(run.names)


def test_what_is_refused():
    for depth in (0, 17, True):
        with pytest.raises(SchemeError, match="max_depth"):
            integrators.NUTS(0.1, max_depth=depth)
    with pytest.raises(SchemeError, match="energy of all data"):
        simulation(posterior().minibatch(8), integrators.NUTS(0.1))
