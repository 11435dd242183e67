"""Swaps by the energies of minibatches: the noise is corrected for, and measured.

Ladders of one simulation are independent: deviations are judged in standard errors over
60 or more of them (beyond 6: one false alarm in 1e6 comparisons or fewer).
"""

import numpy as np
import pytest
from scipy.integrate import quad

import mdnet
from mdnet import analysis, integrators, potentials
from mdnet.errors import SchemeError
from mdnet.integrators import penalty, tempering
from mdnet.potentials.base import Potential
from mdnet.reporters import Memory

from .physics_tools import z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0


class BlurredEvaluator:
    """Exact forces, and energies with normal errors at every force call."""

    full, polynomial = False, None

    def __init__(self, inner, noise, seed):
        self.inner, self.noise, self.seed = inner, noise, seed
        self.energies, self.gradients = inner.energies, inner.gradients

    def forces(self, positions, out, call, energies=None):
        self.inner.forces(positions, out, 0, energies)
        if energies is not None:
            bits = np.random.Philox(key=self.seed, counter=[0, 0, 0, call])
            draw = np.random.Generator(bits).standard_normal(energies.size)
            energies += self.noise * draw


class Blurred(Potential):
    """A potential whose energies of minibatches have errors of sd ``noise``."""

    def __init__(self, inner, noise):
        self.inner, self.noise, self.size = inner, noise, inner.size

    def evaluator(self, backend, replicas, seed=0):
        inner = self.inner.evaluator(backend, replicas, seed)
        return BlurredEvaluator(inner, self.noise, seed)

    def describe(self):
        return {"name": "Blurred", "inner": self.inner.describe(), "sd": self.noise}


def simulate(
    U, ladder, ladders=60, every=2, h=0.5, batches=8, kind=None, friction=1.0, **more
):
    kind = kind or integrators.ReplicaExchange
    word = integrators.BAOAB(dt=h, friction=friction)
    method = kind(word, ladder, every, batches=batches, **more)
    start = np.zeros(U.size)
    replicas = len(ladder) * ladders
    return mdnet.Simulation(U, method, replicas, start, seed=1, backend="cpu")


@pytest.fixture
def uncorrected(monkeypatch):
    """Swaps that take noisy energies for exact ones."""
    monkeypatch.setattr(tempering, "penalty", lambda variance, _: 0 * variance)


def energies(U, ladder, **settings):
    """Mean energy at each temperature, (ladders, K), and the record."""
    # A weak bath leaves energies to the swaps.
    sim = simulate(U, ladder, friction=0.1, **settings)
    sim.run(100)
    memory = Memory(2, positions=False)
    sim.run(700, reporters=[memory])
    found = analysis.by_temperature(memory, "potential_energy")
    return found.value[found.step > 100].mean(0).swapaxes(0, 1), memory


# The exponent of a swap of the two coldest then has a variance of 1.4 (8 batches).
LADDER, D, NOISE = np.geomspace(0.25, 4.0, 7), 6, 1.6


def variances(noise, batches=8):
    return np.diff(1 / LADDER) ** 2 * 2 * noise**2 / batches


@pytest.mark.physics
@pytest.mark.parametrize("batches", [8, 32])
def test_oscillators(batches):
    """Energies of every temperature under noisy swaps; the variance and its rest."""
    U = Blurred(potentials.Harmonic(size=D), NOISE)
    found, memory = energies(U, LADDER, batches=batches, ladders=150)
    assert (z_scores(found, LADDER * D / 2) < LIMIT).all()
    tried = memory["swap_attempts"].value[-1].sum(0)
    seen = memory["swap_noise"].value[-1].sum(0) / tried
    np.testing.assert_allclose(seen, variances(NOISE, batches), rtol=0.05)
    assert variances(NOISE)[0] == pytest.approx(1.4, abs=0.05)
    bias = memory["swap_bias"].value[-1].mean(0)
    assert bias.max() < 0.03
    assert (np.diff(bias) <= 0).all()


@pytest.mark.physics
@pytest.mark.usefixtures("uncorrected")
def test_oscillators_without_the_correction():
    U = Blurred(potentials.Harmonic(size=D), NOISE)
    found, _ = energies(U, LADDER, ladders=150)
    assert z_scores(found, LADDER * D / 2)[0] > LIMIT


@pytest.mark.physics
def test_exact_energies_and_noiseless_batches_agree():
    """Without noise the penalty is nought: the same swaps, bit by bit."""
    U = potentials.Harmonic(size=D)
    runs = []
    for potential, batches in ((U, 0), (Blurred(U, 0.0), 2)):
        sim = simulate(potential, LADDER, ladders=2, batches=batches)
        sim.run(200)
        runs.append(sim)
    a, b = (sim.state.variables for sim in runs)
    assert np.array_equal(a["accepts"], b["accepts"])
    np.testing.assert_allclose(
        runs[0].state.positions, runs[1].state.positions, atol=1e-4
    )
    assert not b["swap_noise"].any()


def wells(noise):
    U = potentials.GaussianMixture(
        weights=[0.75, 0.25], means=[[-2.0], [2.0]], scales=[0.5, 0.5]
    )
    ladder = np.array([1.0, 3.0, 9.0])
    sim = simulate(Blurred(U, noise), ladder, ladders=120, every=3, h=0.25)
    q = np.where(np.arange(sim.replicas) // 3 % 2, 2.0, -2.0)[:, None]
    sim.set_positions(q)
    sim.run(600)
    memory = Memory(6)
    sim.run(3000, reporters=[memory])
    cold = analysis.by_temperature(memory, "positions").value[:, 0, :, 0]
    return (cold < 0).mean(0), U


def cold_share(U):
    def part(low, high):
        return quad(lambda x: np.exp(-float(U.energy(np.array([x])))), low, high)[0]

    return part(-8, 0) / (part(-8, 0) + part(0, 8))


@pytest.mark.physics
def test_weights_of_two_wells():
    left, U = wells(2.5)
    assert z_scores(left, cold_share(U)) < 5


@pytest.mark.physics
@pytest.mark.usefixtures("uncorrected")
def test_weights_of_two_wells_without_the_correction():
    left, U = wells(2.5)
    assert z_scores(left, cold_share(U)) > 5


@pytest.mark.physics
@pytest.mark.parametrize("corrected", [True, False])
def test_simulated_tempering(corrected, request):
    """Visits as the weights say, and the energies of each rung."""
    if not corrected:
        request.getfixturevalue("uncorrected")
    ladder = np.array([0.5, 1.0, 2.0])
    method = integrators.SimulatedTempering(
        integrators.BAOAB(0.5), ladder, 2, weights=-D / 2 * np.log(ladder), batches=8
    )
    U = Blurred(potentials.Harmonic(size=D), 4.0)
    sim = mdnet.Simulation(U, method, 300, np.zeros(D), seed=2, backend="cpu")
    sim.run(200)
    memory = Memory(2, positions=False)
    sim.run(900, reporters=[memory])
    rung, seen = memory["rung"].value[1:], memory["potential_energy"].value[1:]
    off = [((seen - T * D / 2) * (rung == k)).mean(0) for k, T in enumerate(ladder)]
    visits = [(rung == k).mean(0) - 1 / 3 for k in range(3)]
    worst = z_scores(np.array(off + visits).T, 0.0)
    assert (worst < LIMIT).all() if corrected else (worst > LIMIT).any()


def test_penalty_against_the_average_over_noise():
    """Detailed balance in the mean, by simulation; `Remaining` says how well."""
    rng = np.random.default_rng(1)
    n, trials = 8, 1_000_000
    for variance, bound in ((0.5, 0.002), (2.0, 0.04)):
        noise = rng.normal(size=trials) * np.sqrt(variance)
        measured = variance * rng.chisquare(n - 1, trials) / (n - 1)
        u = penalty.penalty(measured, n)
        rest = float(penalty.Remaining(n)(np.array([variance]))[0])
        assert rest < bound
        for delta in (1.0, 2.0):
            one, other = (
                np.exp(np.minimum(-(sign * delta + noise) - u, 0)) for sign in (1, -1)
            )
            ratio = np.log(one.mean() / other.mean()) + delta
            error = np.hypot(
                one.std() / one.mean(), other.std() / other.mean()
            ) / np.sqrt(trials)  # fmt: skip
            assert abs(ratio) < rest + 5 * error
            bare = [
                np.exp(np.minimum(-(sign * delta + noise), 0)).mean()
                for sign in (1, -1)
            ]
            assert abs(np.log(bare[0] / bare[1]) + delta) > 5 * (rest + error)


def test_variance_of_real_batches():
    """Shuffled and bootstrapped batches of a regression: N^2/n var(loss), measured."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 3))
    U = potentials.LinearRegression(X, X @ [1.0, -1.0, 0.5] + rng.normal(size=400))
    q = np.array([0.8, -0.8, 0.5])
    loss = 0.5 * (U.y - X @ q) ** 2
    n = 20
    for order, part in (("replacement", 1.0), ("shuffle", 1 - n / 400)):
        method = integrators.ReplicaExchange(
            integrators.BAOAB(1e-9), [1.0, 2.0], 1, batches=64
        )
        sim = mdnet.Simulation(
            U.minibatch(n, order=order), method, 100, q, seed=4, backend="cpu"
        )
        energy = sim._companion._energies(7).copy()
        known = part * 400**2 / n * loss.var()
        assert energy.var(0, ddof=1).mean() == pytest.approx(known, rel=0.1)
        error = np.sqrt(known / energy.size)
        assert abs(energy.mean() - U.energy(q)) < 5 * error
        # Means of 64 batches scatter as independent ones do.
        assert energy.mean(0).var() == pytest.approx(known / 64, rel=0.6)


@pytest.mark.parametrize("kind", ["ReplicaExchange", "SimulatedTempering"])
def test_a_resumed_run_is_the_uninterrupted_one(kind, tmp_path):
    U = posterior().minibatch(16)
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 6, "observables_every": 3, "restart_every": 25}

    def start():
        make = getattr(integrators, kind)
        ladder = np.geomspace(1.0, 1.6, 4)
        method = make(integrators.BAOAB(dt=0.02), ladder, 2, 20, batches=4)
        return mdnet.Simulation(U, method, 4, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(50, trajectory=whole, **settings)
    sims[1].run(25, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert_same_state(sims[1], resumed)
    resumed.run(25)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)
    assert sims[0].state.variables["swap_noise"].sum() > 0


def test_what_is_refused():
    word = integrators.BAOAB(0.1)
    with pytest.raises(SchemeError, match="batches=1: the noise"):
        integrators.ReplicaExchange(word, [1.0, 2.0], batches=1)
    with pytest.raises(SchemeError, match="batches=-1: expected"):
        integrators.ReplicaExchange(word, [1.0, 2.0], batches=-1)
    with pytest.raises(SchemeError, match="batches=4 with a potential of all data"):
        simulate(potentials.Harmonic(size=3), [1.0, 2.0], batches=4)
