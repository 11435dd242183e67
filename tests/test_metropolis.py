"""Metropolis tests: exact at any step, reversible, refused where they cannot be exact.

Statistical checks compare means over independent replicas with exact values; with
hundreds of replicas a deviation of `LIMIT` standard errors happens once in two million
comparisons, in this file once in ten thousand fresh seeds.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters, schedules
from mdnet.errors import PotentialError, SchemeError
from mdnet.integrators import scheme
from mdnet.integrators.metropolis import Judge

from .physics_tools import Coupled, readings, z_scores

LIMIT = 5.0
TEMPERATURES = np.array([0.25, 1.0, 4.0])
OMEGA = 1.6


def simulation(potential, integrator, replicas=1, precision="double", **settings):
    return mdnet.Simulation(
        potential,
        integrator,
        replicas=replicas,
        backend="cpu",
        precision=precision,
        **{"seed": 1} | settings,
    )


# --- words ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "calls", "carries", "palindrome"),
    [
        ("O{BAB}O", 1, True, True),
        ("O{[BAB]^10}", 10, True, False),
        ("O{[ABA]^3}", 3, False, False),
        ("O{A}", 0, False, False),
        ("{BAOAB}", 1, True, True),
        ("O{BABAB}", 2, True, False),
        ("O{BAB}O{BAB}O", 2, True, True),
    ],
)
def test_words(word, calls, carries, palindrome):
    parsed = scheme.parse(word)
    assert str(parsed) == word
    assert scheme.parse(str(parsed)) == parsed
    assert parsed.metropolised
    assert (parsed.force_calls, parsed.carries_force) == (calls, carries)
    assert parsed.palindromic == palindrome


def test_words_with_shares_print_and_parse():
    table = [("O", 1.0), ("{", 0.0), ("[", 0.0), ("B", 0.3), ("A", 0.5), ("B", 0.4)]
    table += [("A", 0.5), ("B", 0.3), ("]", 7.0), ("}", 0.0)]
    parsed = scheme.parse(table)
    again = scheme.parse(str(parsed))
    assert again == parsed
    assert (again.turns, again.force_calls) == (7, 14)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("O{BA}", "read the same backwards"),
        ("O{BAB", "is not closed"),
        ("BAB}", "closes nothing"),
        ("O{{BAB}}", "stands inside"),
        ("[BAB]^3", "stands inside"),
        ("O{[BOAOB]^3}", "same noise"),
        ("A{BAB}A", "goes untested"),
        ("O{[BAB]}", "cannot read"),
        ("O{[BAB]^0}", "turns >= 1"),
        ("O{B}", "has no A"),
        ("O{[BAB]^2[BAB]^2}", "at most once"),
    ],
)
def test_bad_words(word, message):
    with pytest.raises(SchemeError, match=message):
        scheme.parse(word)


# --- the law it keeps -------------------------------------------------------------

METHODS = {
    "HMC": lambda T: integrators.HMC(OMEGA, 3, T),
    "HMC, lengths drawn": lambda T: integrators.HMC(OMEGA, 3, T, jitter=0.7),
    "GHMC": lambda T: integrators.GHMC(OMEGA, T, friction=0.5),
    "MALA": lambda T: integrators.MALA(OMEGA**2 / 2, T),
    "position Verlet": lambda T: integrators.Splitting("O{ABA}", OMEGA, T, np.inf),
    "bath inside": lambda T: integrators.Splitting("{BAOAB}", OMEGA, T),
    "two tests": lambda T: integrators.Splitting("O{BAB}O{BAB}O", 2 * OMEGA, T),
    "random walk": lambda T: integrators.RandomWalkMetropolis(OMEGA / 2, T),
    "blocks": lambda T: integrators.RandomWalkMetropolis(2.4, T, block=3),
}
# (<q^2> k/T, <p^2>/T) of every replica.
BLOCKS = 300


def moments(make, precision="single", potential=None, steps=400, seed=3):
    T = np.repeat(TEMPERATURES, BLOCKS)
    potential = potential or potentials.Harmonic(stiffness=1.0, size=4)
    exact = np.random.default_rng(seed).normal(size=(T.size, 4)) * np.sqrt(T)[:, None]
    sim = simulation(potential, make(T), T.size, precision, positions=exact, seed=seed)
    mean = readings(sim, steps, every=2)
    both = (mean["potential_energy"], mean["kinetic_energy"])
    rows = np.stack([2 * energy / (4 * T) for energy in both], axis=1)
    return rows.reshape(len(TEMPERATURES), BLOCKS, 2).swapaxes(0, 1)


@pytest.mark.physics
@pytest.mark.parametrize("method", METHODS)
def test_exact_far_beyond_small_steps(method):
    blocks = moments(METHODS[method])
    assert (z_scores(blocks, 1.0) < LIMIT).all()
    # Negative control: an answer off by a quarter.
    assert (z_scores(blocks, 1.25) > LIMIT).all()


@pytest.mark.physics
def test_through_force_calls_with_the_energy_of_the_last_force():
    unlike = potentials.Harmonic(stiffness=np.ones(4), size=4)
    for method in ("HMC", "MALA"):
        fused = moments(METHODS[method], "double")
        through = moments(METHODS[method], "double", unlike)
        assert np.array_equal(fused, through)


def forgets_the_flip(monkeypatch):
    right = Judge._open

    def wrong(self):
        right(self)
        np.negative(self._saved[1], out=self._saved[1])

    monkeypatch.setattr(Judge, "_open", wrong)


def wrong_sign(monkeypatch):
    right = Judge._work

    def wrong(self):
        work = right(self)
        return work - 2 * (self.context.state.sums[3] - self._sums[3]).sum(axis=1)

    monkeypatch.setattr(Judge, "_work", wrong)


def never_rejects(monkeypatch):
    monkeypatch.setattr(Judge, "_work", lambda self: np.full(self.energy.shape, -1.0))


def wrong_temperature(monkeypatch):
    right = Judge._work
    monkeypatch.setattr(Judge, "_work", lambda self: 0.5 * right(self))


@pytest.mark.physics
@pytest.mark.parametrize(
    "wrong", [forgets_the_flip, wrong_sign, never_rejects, wrong_temperature]
)
def test_wrong_tests_are_seen(monkeypatch, wrong):
    """Negative controls of the check above, on GHMC."""
    wrong(monkeypatch)
    assert (z_scores(moments(METHODS["GHMC"]), 1.0) > LIMIT).any()


@pytest.mark.physics
@pytest.mark.parametrize("method", ["HMC", "GHMC", "MALA", "bath inside"])
def test_mean_of_exponential_errors_is_one(method):
    """<exp(-W/T)> = 1 over the equilibrium law, rejected proposals included."""
    U, n = potentials.DoubleWell(a=0.5, size=2), 40_000
    for T in (0.5, 2.0):
        q = U.sample(n, T, seed=2)
        name = {"HMC": 0.25, "GHMC": 0.4, "MALA": 0.08, "bath inside": 0.4}[method]
        made = METHODS[method](T)
        made = integrators.Splitting(
            made.word, name, T, 1.0, damping=made.damping, length=made.length
        )
        sim = simulation(U, made, n, positions=q)
        sim.run(1)
        values = np.exp(-sim.state.variables["delta_h"] / T)
        assert values.std() > 0.02
        assert (z_scores(values, 1.0) < LIMIT).all()
        # Negative control: a mean off by 5%.
        assert (z_scores(values, 1.05) > LIMIT).all()


@pytest.mark.parametrize("word", ["{[BAB]^20}", "{[ABA]^20}", "{BABAB}"])
def test_proposals_are_reversible(word):
    """Forwards, momenta reversed, forwards: back at the start, to rounding."""
    K = np.diag([1.0, 2.0, 3.0]) + 0.3
    sim = simulation(
        Coupled(K, quartic=0.2),
        integrators.Splitting(word, 0.1, 1e9),
        5,
        momenta=np.random.default_rng(0).normal(size=(5, 3)),
    )
    q, p = sim.state.positions.copy(), sim.state.momenta.copy()
    sim.run(1)
    assert np.abs(sim.state.positions - q).max() > 0.1
    sim.set_momenta(-sim.state.momenta)
    sim.run(1)
    np.testing.assert_allclose(sim.state.positions, q, rtol=0, atol=1e-12)
    np.testing.assert_allclose(-sim.state.momenta, p, rtol=0, atol=1e-12)
    assert (sim.state.variables["accepted"] == 2).all()


@pytest.mark.physics
def test_double_wells():
    U, T = potentials.DoubleWell(size=5), 0.4
    sim = simulation(U, integrators.HMC(0.3, 4, T, jitter=0.5), 300, "single")
    sim.set_positions(np.ones(5))
    sim.run(200)
    memory = reporters.Memory(5)
    sim.run(500, reporters=[memory])
    q = memory.positions
    assert (z_scores((q**2).mean((0, 2)), U.variance(T)[0]) < LIMIT).all()
    assert (z_scores((q > 0).mean((0, 2)), 0.5) < LIMIT).all()
    wrong = U.variance(1.5 * T)[0]
    assert (z_scores((q**2).mean((0, 2)), wrong) > LIMIT).all()


@pytest.mark.physics
def test_weights_of_a_mixture():
    """Components of unequal weight and width, in reach of one trajectory."""
    means = [[-1.0, 0.0], [1.5, 0.5]]
    U = potentials.GaussianMixture([1.0, 3.0], means, scales=[0.5, 0.8])
    sim = simulation(U, integrators.HMC(0.4, 6, jitter=0.5), 400)
    sim.run(100)
    memory = reporters.Memory(2)
    sim.run(400, reporters=[memory])
    mean = memory.positions.mean(0)
    assert (z_scores(mean, U.mean()) < LIMIT).all()
    even = np.array(means).mean(0)  # negative control: equal weights
    assert (z_scores(mean, even) > LIMIT).all()


# --- bookkeeping ------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_first_law_closes(method):
    sim = simulation(potentials.DoubleWell(size=5000), METHODS[method](1.0), 3, seed=7)
    start = sim.scalars()
    sim.run(20)
    end = sim.scalars()

    def change(name):
        return end[name] - start[name]

    kinetic = change("heat") + change("kick_work")
    scale = end["kinetic_energy"]
    np.testing.assert_allclose(change("kinetic_energy"), kinetic, atol=1e-10 * scale[0])
    total = change("kinetic_energy") + change("potential_energy")
    booked = change("heat") + change("protocol_work") + change("shadow_work")
    np.testing.assert_allclose(total, booked, atol=1e-10 * scale[0])


def test_the_energy_is_evaluated_once_a_test():
    U = Coupled(np.eye(3))
    sim = simulation(U, integrators.HMC(0.3, 4), 2)
    count = {"energies": 0, "forces": 0}
    for name in count:
        call = getattr(sim._evaluator, name)

        def counted(*args, name=name, call=call, **more):
            count[name] += 1
            return call(*args, **more)

        setattr(sim._evaluator, name, counted)
    sim._stepper.advance(1)
    assert count == {"energies": 2, "forces": 5}
    sim._stepper.advance(10)
    assert count == {"energies": 12, "forces": 45}
    # One leapfrog step a test: the last force brings the energy along.
    sim = simulation(U, integrators.MALA(0.1), 2)
    sim._stepper.advance(1)
    before = sim._companion.energy.copy()
    known = sim._companion.evaluated
    sim._stepper.advance(5)
    assert known
    assert (sim._companion.energy != before).all()


def test_series():
    sim = simulation(potentials.Harmonic(size=6), integrators.GHMC(0.7), 3)
    memory = reporters.Memory(1)
    sim.run(50, reporters=[memory])
    chance, error = memory["acceptance"].value[1:], memory["delta_h"].value[1:]
    np.testing.assert_allclose(chance, np.minimum(1, np.exp(-error)), rtol=1e-14)
    accepted = np.diff(memory["accepted"].value, axis=0)
    moved = (np.diff(memory.positions, axis=0) != 0).any(axis=2)
    assert np.array_equal(accepted == 1, moved)
    assert 0.5 < accepted.mean() < 1


def test_replicas_do_not_see_each_other():
    U, steps = potentials.DoubleWell(size=7), np.array([0.1, 0.3, 0.2])
    q = U.initial(3)
    both = simulation(U, integrators.HMC(steps, 4, 0.5, 0.8, 20), 3, positions=q)
    both.run(40)
    alone = simulation(U, integrators.HMC(steps[0], 4, 0.5, 0.8, 20), positions=q[0])
    alone.run(40)
    assert np.array_equal(both.state.positions[0], alone.state.positions[0])
    assert both.scalars()["dt"][0] == alone.scalars()["dt"][0]


def test_schedules_and_annealing():
    T = schedules.linear(2.0, 0.0, 300)
    U = potentials.DoubleWell(size=20)
    sim = simulation(U, integrators.HMC(0.2, 5, T), 4)
    sim.run(400)
    assert (sim.potential_energy() < 20 * 0.02).all()
    unlike = potentials.Harmonic(stiffness=np.ones(3), size=3)
    same = potentials.Harmonic(stiffness=1.0, size=3)
    runs = [simulation(V, integrators.HMC(0.3, 3, T), 2) for V in (unlike, same)]
    for run in runs:
        run.run(30)
    assert np.array_equal(runs[0].state.positions, runs[1].state.positions)


@pytest.mark.physics
def test_annealed_importance_sampling():
    """Protocol work alone gives the free energy: transitions keep each law exactly."""
    k, n = 4.0, 4000
    path = potentials.interpolate(
        potentials.Harmonic(stiffness=1.0, size=2),
        potentials.Harmonic(stiffness=k, size=2),
    )
    q = np.random.default_rng(5).normal(size=(n, 2))
    sim = simulation(
        path,
        integrators.HMC(0.6, 2),
        n,
        positions=q,
        protocol=schedules.linear(0.0, 1.0, 12),
    )
    sim.run(12)
    values = np.exp(-sim.scalars()["protocol_work"])
    assert (z_scores(values, 1 / k) < LIMIT).all()  # ratio of Z in two dimensions
    assert (z_scores(values, 1 / k**1.1) > LIMIT).all()


def test_frozen_weights_stay():
    U = potentials.DoubleWell(size=6)
    mask = np.array([True, False] * 3)
    sim = simulation(U, integrators.HMC(0.2, 5, frozen=mask), 3)
    q = sim.state.positions.copy()
    sim.run(20)
    assert np.array_equal(sim.state.positions[:, mask], q[:, mask])
    assert (sim.state.positions[:, ~mask] != q[:, ~mask]).all()
    assert (sim.state.variables["accepted"] > 10).all()


# --- what is refused --------------------------------------------------------------


def regression():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 6))
    return potentials.LinearRegression(X, X @ rng.normal(size=6), noise=1.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: integrators.HMC(0.1),
        lambda: integrators.MALA(0.1),
        lambda: integrators.RandomWalkMetropolis(0.1),
    ],
)
def test_minibatches_are_refused(make):
    with pytest.raises(SchemeError, match="needs the energy of all data"):
        simulation(regression().minibatch(5), make())
    simulation(regression(), make()).run(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: integrators.HMC(0.1, 0), "steps=0"),
        (lambda: integrators.HMC(0.1, 2.5), "steps=2.5"),
        (lambda: integrators.HMC(0.1, jitter=1.0), "jitter=1.0"),
        (lambda: integrators.HMC(0.1, target_acceptance=1.2), "target_acceptance=1.2"),
        (lambda: integrators.HMC(0.1, target_acceptance=0.8, warmup=0), "warmup=0"),
        (lambda: integrators.HMC(0.1, warmup=10, adapt_mass=True), "warmup=10"),
        (lambda: integrators.RandomWalkMetropolis(0.1, block=0), "block=0"),
        (lambda: integrators.MALA(-0.1), "dt=-0.1"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(SchemeError, match=message):
        make()


def test_bad_simulations():
    U = potentials.Harmonic(stiffness=100.0, size=3)
    with pytest.raises(SchemeError, match=r"stability limit dt < 0\.2"):
        simulation(U, integrators.HMC(0.21))
    simulation(U, integrators.HMC(0.21, target_acceptance=0.8))  # a first guess
    two = potentials.Harmonic(size=1) + potentials.Harmonic(size=1)
    with pytest.raises(SchemeError, match="temperature differs"):
        simulation(two, integrators.HMC(0.1, temperature={"*": 1.0}))
    with pytest.raises(SchemeError, match="schedule and tuned"):
        simulation(U, integrators.HMC(schedules.constant(0.1), target_acceptance=0.8))
    sim = simulation(Coupled(np.eye(2)), integrators.HMC(0.1))
    sim._evaluator.energies = lambda q, out: out.fill(np.nan)
    with pytest.raises(PotentialError, match="finite start"):
        sim.run(1)
