"""Words with N, D and M, and protocols that run backwards.

Statistical checks: 20 independent replicas, beyond 6 standard errors a false alarm in
1e-5 of them; Crooks' relation 5 standard errors.
"""

import copy
import pickle

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, schedules
from mdnet.errors import SchemeError
from mdnet.integrators import parse

from .physics_tools import z_scores
from .test_gradient_noise import Noisy, averages, simulate
from .test_physics_work import logistic_slope, trap, work_of
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0


# --- reading ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("BADODAB", "BANDNAB"),
        ("B A D O D A B", "BANDNAB"),
        ([("B", 0.5), ("A", 0.5), ("D", 0.5), ("O", 1.0), ("D", 0.5), ("A", 0.5),
          ("B", 0.5)], "BANDNAB"),
        ("BADNDAB", "BADNDAB"),
        ("BAONDNOAB", "BAONDNOAB"),
        ("OBABM", "O{BAB}"),
        ("OBABMO", "O{BAB}O"),
        ("OAM", "O{A}"),
        ("O [BAB]^3 M", "O{[BAB]^3}"),
        ("O(1) B(0.5) A(1) B(0.5) M", "O{BAB}"),
        ([("O", 1.0), ("B", 0.5), ("A", 1.0), ("B", 0.5), ("M", 1.0)], "O{BAB}"),
    ],
)  # fmt: skip
def test_words_are_read_and_printed(word, same):
    read = parse(word)
    assert str(read) == same
    assert parse(str(read)) == read
    assert read.stochastic
    assert read.metropolised == ("{" in same)


def test_shares_of_thermostat_words():
    word = "B(0.5) A(0.25) N(0.5) D(1) N(0.5) A(0.75) B(0.5)"
    made = integrators.Splitting(word, 0.1, relaxation_time=2.0)
    assert parse(made.word) == made.scheme
    assert dict(parse("BANDNAB").operations)["N"] == 0.5
    assert made.scheme.force_calls == 1
    assert not made.scheme.palindromic
    assert integrators.SGNHT(0.1).scheme.palindromic


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("BADAB", "one is of no use without the other"),
        ("BANAB", "one is of no use without the other"),
        ("OBAM", "read the same backwards"),
        ("O{BANDNAB}", "cannot be tested"),
        ("O{BAB}NDN", "goes untested"),
    ],
)
def test_bad_words(word, message):
    with pytest.raises(SchemeError, match=message):
        integrators.Splitting(word, 0.1)


def test_a_word_with_N_and_D_is_adaptive():
    made = integrators.Splitting("BADODAB", 0.1, 2.0, relaxation_time=3.0)
    same = integrators.SGNHT(0.1, 2.0, relaxation_time=3.0)
    assert type(made) is type(same)
    assert made.operations() == same.operations()
    for again in (
        integrators.from_description(made.describe()),
        copy.copy(made),
        pickle.loads(pickle.dumps(made)),
    ):
        assert again.describe() == made.describe()
    assert type(integrators.Splitting("BAOAB", 0.1)) is integrators.Splitting
    with pytest.raises(SchemeError, match="N D N"):
        integrators.SGNHT(0.1, groups="parameter", word="BADNDAB")
    with pytest.raises(SchemeError, match="with N and D"):
        integrators.SGNHT(0.1, word="BAOAB")


def test_M_is_the_test_in_braces():
    U = potentials.DoubleWell(size=3)
    runs = []
    for word in ("OBABMO", "O{BAB}O"):
        made = integrators.Splitting(word, 0.6)
        sim = simulate(U, made, 4, positions=np.ones(3))
        sim.run(30)
        runs.append(sim)
    assert np.array_equal(runs[0].state.positions, runs[1].state.positions)
    assert (runs[0].scalars()["accepted"] < 30).any()


# --- what they sample ---------------------------------------------------------------


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BANDNAB", "BADNDAB", "BAONDNOAB", "ABNDNBA"])
def test_words_of_ones_own_absorb_noise(word):
    """<xi> rises by hC/2T and <q^2> is right; BAOAB at that step runs hot."""
    size, C, h, replicas = 60, 4.0, 0.1, 20
    for T in (0.25, 1.0, 4.0):
        U = Noisy(1.0, np.sqrt(C * T) * np.eye(size))
        made = integrators.Splitting(word, h, T, 1.0, relaxation_time=1.0)
        start = np.random.default_rng(0).normal(size=(replicas, size)) * np.sqrt(T)
        sim = simulate(U, made, replicas, positions=start)
        sim.run(150)
        mean = averages(sim, 500)
        heat = 2 * mean["potential_energy"] / (size * T)
        bath = 0.0 if "O" in word else 1.0
        assert abs(heat.mean() - 1) < 0.03
        assert z_scores(heat, 1 + h * C / 2) > LIMIT
        friction = mean["thermostat_friction"].mean()
        assert friction - bath == pytest.approx(h * C / 2, abs=0.04)


@pytest.mark.parametrize("word", ["BADNDAB", "BAONDNOAB", "NBADABN"])
def test_a_resumed_run_is_the_uninterrupted_one(word, tmp_path):
    U = posterior().minibatch(16, order="replacement")
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 25}

    def start():
        ramp = schedules.linear(0.5, 1.0, 40)
        made = integrators.Splitting(
            word, 0.05, ramp, 2.0, relaxation_time=0.5, groups="layer"
        )
        return mdnet.Simulation(U, made, 2, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(50, trajectory=whole, **settings)
    sims[1].run(25, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    assert_same_state(sims[1], resumed)
    resumed.run(25)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)


# --- protocols backwards ------------------------------------------------------------


def test_reversed_schedules():
    forward = schedules.linear(0.0, 1.0, 8)
    backward = schedules.reverse(forward)
    times = np.arange(17) / 2
    for one in (forward, schedules.cosine(0.2, 0.7, 8)):
        back = schedules.reverse(one)
        assert [back(8 - t) for t in times] == [one(t) for t in times]
        assert back(20) == one(0)
        again = schedules.from_description(schedules.describe(back))
        assert again == back
    assert backward.steps == 8
    assert schedules.reverse(schedules.piecewise((2,), (0.0, 1.0)), 4)(3) == 0.0
    with pytest.raises(SchemeError, match="no length of its own"):
        schedules.reverse(lambda step: step / 10)
    with pytest.raises(SchemeError, match="expected a schedule"):
        schedules.reverse(1.0, 10)


def works(protocol, start, seed, replicas=15_000, h=0.8):
    """Protocol and full work of moving a trap at six steps of OBABO."""
    sim = mdnet.Simulation(
        trap(6)[0],
        integrators.OBABO(h, 1.0, 1.0),
        replicas,
        positions=potentials.Harmonic(start, size=2).sample(replicas, seed=seed),
        seed=seed,
        backend="cpu",
        protocol=protocol,
    )
    return work_of(sim, 6)


@pytest.mark.physics
def test_crooks_relation_of_a_reversed_protocol():
    """Slope one, and densities that cross at dF = ln 4, for the full work alone."""
    protocol = schedules.cosine(0.0, 1.0, 6)
    forward = works(protocol, 1.0, 3)
    backward = works(schedules.reverse(protocol), 4.0, 4)
    slope, error = logistic_slope(forward[1], backward[1])
    assert error < 0.02
    assert abs(slope - 1) < 5 * error
    shift = np.log(4.0)
    # Crossing at dF: no constant is left when works are counted from it.
    for kind, right in ((1, True), (0, False)):
        f, b = forward[kind] - shift, backward[kind] + shift
        score = (1 / (1 + np.exp(-f))).mean() - (1 / (1 + np.exp(-b))).mean()
        spread = np.hypot((1 / (1 + np.exp(-f))).std(), (1 / (1 + np.exp(-b))).std())
        assert (abs(score) < 5 * spread / np.sqrt(len(f))) == right
    slope, error = logistic_slope(forward[0], backward[0])
    assert slope < 1 - 5 * error  # negative control
