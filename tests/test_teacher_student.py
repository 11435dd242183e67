"""Students against exact learning curves, geometry and the law of large numbers.

Statistical checks have a fixed seed; false alarms of another seed are stated beside.
"""

import math

import numpy as np
import pytest
from scipy import stats

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import PotentialError

# --- exact curves ---------------------------------------------------------------------


def test_gibbs_learning_curve_of_the_sphere():
    exact = [0.4096, 0.3384, 0.2403, 0.1180]
    loads = np.array([0.5, 1, 2, 5])
    assert potentials.gibbs_learning_curve(loads) == pytest.approx(exact, abs=5e-5)
    off = potentials.gibbs_learning_curve(1.01 * loads)
    assert (np.abs(off - exact) > 4e-4).all()
    assert potentials.gibbs_learning_curve(0.0) == 0.5
    # epsilon -> 0.625/alpha at large loads
    assert 100 * potentials.gibbs_learning_curve(100.0) == pytest.approx(
        0.625, abs=0.01
    )


def test_ising_students_learn_all_at_once():
    curve = potentials.gibbs_learning_curve([0.5, 1.24, 1.25, 3.0], weights="ising")
    assert curve[0] > curve[1] > 0.25
    assert curve[2:].tolist() == [0, 0]


# --- version space --------------------------------------------------------------------


def test_generalization_error_is_the_share_of_new_inputs():
    """Within 5 standard errors of 200000 inputs."""
    U = potentials.TeacherPerceptron(12, 8, seed=1)
    w = U.initial(3, seed=2)
    X = np.random.default_rng(3).normal(size=(200_000, 12))
    wrong = ((X @ w.T > 0) != (X @ U.teacher > 0)[:, None]).mean(axis=0)
    exact = U.generalization_error(w)
    z = (wrong - exact) / np.sqrt(exact * (1 - exact) / len(X))
    assert np.abs(z).max() < 5
    assert U.generalization_error(U.teacher) == pytest.approx(0, abs=1e-7)
    assert U.generalization_error(-3 * U.teacher) == pytest.approx(1)


@pytest.mark.physics
def test_version_space_of_two_weights_is_an_arc():
    """Kolmogorov-Smirnov: false alarm 1e-5; an arc that is 5% longer is seen."""
    U = potentials.TeacherPerceptron(2, 3, seed=4)
    w = U.version_space(20_000, sweeps=40, seed=1)
    assert np.linalg.norm(w, axis=1) == pytest.approx(math.sqrt(2))
    turned = np.angle((w @ [1, 1j]) / (U.teacher @ [1, 1j]))
    signed = U.labels[:, None] * U.inputs
    walls = np.angle((signed @ [1, 1j]) / (U.teacher @ [1, 1j]))
    low, high = walls.max() - np.pi / 2, walls.min() + np.pi / 2
    assert stats.kstest(turned, stats.uniform(low, high - low).cdf).pvalue > 1e-5
    longer = stats.uniform(low, 1.05 * (high - low))
    assert stats.kstest(turned, longer.cdf).pvalue < 1e-12


@pytest.mark.physics
@pytest.mark.parametrize("load", [0.5, 1, 2, 5])
def test_students_without_error_follow_the_curve(load):
    """N = 100, eight data sets whose means have a sd of .005: 4 sd and 1/N effects."""
    errors, pairs = [], []
    for seed in range(8):
        U = potentials.TeacherPerceptron(100, round(100 * load), seed=seed)
        w = U.version_space(8, sweeps=300, seed=seed)
        assert not U.errors(w).any()
        errors.append(U.generalization_error(w).mean())
        between = (w @ w.T / 100)[np.triu_indices(8, 1)]
        pairs.append(np.arccos(between).mean() / np.pi)
    exact = potentials.gibbs_learning_curve(load)
    assert np.mean(errors) == pytest.approx(exact, abs=0.02)
    # Students are as far from each other as from the teacher.
    assert np.mean(pairs) == pytest.approx(exact, abs=0.02)
    other = potentials.gibbs_learning_curve([load / 2, 2 * load])
    assert (np.abs(np.mean(errors) - other) > 0.02).all()


def test_students_go_on_and_do_not_see_each_other():
    U = potentials.TeacherPerceptron(10, 15, seed=2)
    whole = U.version_space(4, sweeps=9, seed=3)
    assert np.array_equal(U.version_space(2, sweeps=9, seed=3), whole[:2])
    assert not np.array_equal(U.version_space(4, sweeps=9, seed=4), whole)
    again = U.version_space(4, sweeps=5, start=whole, seed=3, first_step=9)
    assert not U.errors(again).any()


@pytest.mark.physics
@pytest.mark.slow
def test_cold_dynamics_on_the_sphere_is_gibbs_learning():
    """Geodesic BAOAB at T = 1e-3, within .02 of students of the version space."""
    U = potentials.TeacherPerceptron(40, 40, seed=6)
    word = integrators.Constrained(
        "BAOAB",
        dt=0.6,
        temperature=1e-3,
        friction=0.05,
        norms={"weights": ("tensor", math.sqrt(40))},
    )
    sim = mdnet.Simulation(
        U, word, positions=U.initial(100, seed=1), replicas=100, precision="double"
    )
    sim.run(3000)
    cold = U.generalization_error(sim.state.positions).mean()
    assert np.linalg.norm(sim.state.positions, axis=1) == pytest.approx(40**0.5)
    exact = U.generalization_error(U.version_space(100, sweeps=400, seed=2)).mean()
    assert cold == pytest.approx(exact, abs=0.02)
    hot = U.generalization_error(U.initial(100)).mean()
    assert abs(hot - exact) > 0.08


@pytest.mark.parametrize("cost", ["squared_hinge", "logistic"])
def test_gradients_of_the_costs(cost):
    U = potentials.TeacherPerceptron(9, 20, cost, seed=5)
    q = U.initial(3, seed=1)
    kink = 1e-4 if cost == "squared_hinge" else 1e-9  # of the second derivative
    assert potentials.check_gradient(U, q) < kink
    margin = U.labels * (q @ U.inputs.T) / 3
    by_hand = {
        "squared_hinge": (0.5 * np.minimum(margin, 0) ** 2).sum(axis=1),
        "logistic": np.log1p(np.exp(-margin)).sum(axis=1),
    }
    assert U.energy(q) == pytest.approx(by_hand[cost])
    assert U.errors(q).tolist() == (margin < 0).sum(axis=1).tolist()
    assert np.isfinite(U.energy(1e4 * q)).all()


# --- committees -----------------------------------------------------------------------


def output(J, X):
    size = X.shape[1]
    u = X @ J.reshape(-1, size).T / math.sqrt(size)
    return (2 * stats.norm.cdf(u) - 1).sum(axis=1)  # erf(u/sqrt 2)


@pytest.mark.physics
def test_committee_error_is_the_mean_over_inputs():
    """Within 5 standard errors of 200000 inputs; another student's is not."""
    U = potentials.Committee(7, students=3, teachers=2, seed=1)
    q = np.random.default_rng(2).normal(size=(2, U.size))
    X = np.random.default_rng(3).normal(size=(200_000, 7))
    exact = potentials.committee_error(*U.order_parameters(q))
    assert U.energy(q) == pytest.approx(exact)
    cost = [0.5 * (output(J, X) - output(U.teacher, X)) ** 2 for J in q]
    error = np.std(cost, axis=1) / math.sqrt(len(X))
    assert np.abs((np.mean(cost, axis=1) - exact) / error).max() < 5
    assert np.abs((np.mean(cost, axis=1) - exact[::-1]) / error).min() > 20


def test_committee_gradient_and_order_parameters():
    U = potentials.Committee(9, students=2, teachers=3, examples=5.0)
    q = np.random.default_rng(1).normal(size=(3, U.size))
    assert potentials.check_gradient(U, q) < 1e-9
    order = U.order_parameters(q)
    assert pytest.approx(np.eye(3)) == order.T
    one = potentials.committee_error(*order)
    assert U.energy(q) == pytest.approx(5 * one)
    perfect = potentials.Committee(9, students=3, teachers=3)
    assert perfect.energy(perfect.teacher.ravel()) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("units", [2, 3, 5])
def test_the_plateau_is_a_saddle(units):
    """Students all alike, at the plateau's overlaps: no force, and a way out."""
    Q, R, error = potentials.committee_plateau(units)
    U = potentials.Committee(20, units, units, seed=3)
    along = R * U.teacher.sum(axis=0)  # Q = K R^2: students lie in the teachers' span
    assert along @ along / 20 == pytest.approx(Q)
    q = np.tile(along, units)[None]
    assert U.energy(q)[0] == pytest.approx(error)
    assert np.abs(U.gradient(q)).max() < 1e-14
    assert np.abs(U.gradient(1.05 * q)).max() > 1e-4
    apart = (U.teacher - U.teacher.mean(axis=0)).ravel()
    assert U.energy(q + 0.05 * apart)[0] < error


def test_descent_stays_on_the_plateau_until_students_differ():
    U = potentials.Committee(50, students=2, teachers=2, examples=50, seed=2)
    Q, R, error = potentials.committee_plateau(2)
    sim = mdnet.Simulation(
        U,
        integrators.BAOAB(dt=1.0, temperature=0.0, friction=1.0),
        positions=0.1 * U.initial(2, seed=1),
        replicas=2,
        precision="double",
    )
    levels = []
    for reading in range(30):
        sim.run(20)
        levels.append(U.energy(sim.state.positions) / (50 * error))
        if reading == 2:
            found = U.order_parameters(sim.state.positions)
            assert np.abs(found.Q - Q).max() < 0.01
            assert np.abs(found.R - R).max() < 0.05
    on_it = np.abs(np.array(levels) - 1) < 0.02
    assert (on_it.sum(axis=0) >= 4).all()
    assert (levels[-1] < 1e-3).all()
    found = U.order_parameters(sim.state.positions)
    assert np.abs(np.sort(found.R, axis=2) - [0.0, 1.0]).max() < 0.02


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: potentials.TeacherPerceptron(0, 5), "size=0"),
        (lambda: potentials.TeacherPerceptron(5, 1.5), "examples=1.5"),
        (lambda: potentials.TeacherPerceptron(5, 5, "hinge"), "cost='hinge'"),
        (
            lambda: potentials.TeacherPerceptron(5, 50).version_space(
                2, start=np.ones((2, 5))
            ),
            "student 0 errs",
        ),
        (lambda: potentials.TeacherPerceptron(5, 5).errors(np.ones(4)), "q has shape"),
        (lambda: potentials.gibbs_learning_curve(-1.0), "load=-1.0"),
        (lambda: potentials.gibbs_learning_curve(1.0, "real"), "weights='real'"),
        (lambda: potentials.Committee(2, 2, 3), "teachers=3"),
        (lambda: potentials.Committee(3, 2, 2, examples=0), "examples=0"),
        (
            lambda: potentials.Committee(3, 2, 2).order_parameters(np.ones((1, 5))),
            "q has shape",
        ),
        (
            lambda: potentials.committee_error(np.eye(2), np.eye(3), np.eye(3)),
            "Q, R, T have shapes",
        ),
        (lambda: potentials.committee_plateau(0), "units=0"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(PotentialError, match=words):
        call()
