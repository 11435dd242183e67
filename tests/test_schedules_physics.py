"""Schedules of the step and the temperature: barriers crossed that constants do not.

Cyclical steps on two modes, and annealing in a double well against its Fokker-Planck
equation and Kramers' rate.  Limits are five standard errors over independent walkers:
a fresh seed fails in this file with probability below 1e-5.
"""

import numpy as np
import pytest
from scipy.linalg import eigh_tridiagonal

import mdnet
from mdnet import integrators, potentials, schedules

LIMIT = 5.0


# --- cyclical steps ---------------------------------------------------------------


METHODS = {
    # largest and smallest step, steps a cycle, distance of the modes
    "SGLD": (integrators.SGLD, 0.35, 0.004, 200, 2.0),
    "SGHMC": (integrators.SGHMC, 0.95, 0.004, 600, 1.4),
}


def ends_of_cycles(method, weight, constant=False, walkers=400, cycles=10, seed=3):
    """Which walkers are in the right mode, of this weight, at the end of each cycle.

    Two normals of width 1/2, a barrier of 3 T (SGHMC) or 7 T between them; all walkers
    begin in the left one.
    """
    make, large, small, period, distance = METHODS[method]
    step = small if constant else schedules.cyclic(large, small, period)
    U = potentials.GaussianMixture(
        [1 - weight, weight], [[-distance], [distance]], scales=[0.5, 0.5]
    )
    start = np.full((walkers, 1), -distance)
    sim = mdnet.Simulation(U, make(step), walkers, start, seed=seed, backend="cpu")
    found = []
    for _ in range(cycles):
        sim.run(period)
        found.append(sim.state.positions[:, 0].copy())
    return np.array(found)


@pytest.mark.physics
@pytest.mark.parametrize("method", METHODS)
def test_cyclical_steps_find_both_modes(method):
    """Equal modes are visited equally, and at the end of a cycle with their width."""
    found = ends_of_cycles(method, 0.5)[5:]
    right = (found > 0).mean(0)  # of every walker
    error = right.std() / np.sqrt(right.size)
    assert abs(right.mean() - 0.5) < LIMIT * error
    centre = METHODS[method][-1]
    assert (np.abs(found) - centre).std() == pytest.approx(0.5, abs=0.05)
    # Negative control: constant small steps stay where they began.
    still = (ends_of_cycles(method, 0.5, constant=True)[-1] > 0).mean()
    assert still < 0.3
    assert abs(still - 0.5) > LIMIT * 0.5 / np.sqrt(found.shape[1])


@pytest.mark.physics
@pytest.mark.parametrize(("method", "known"), [("SGLD", 0.66), ("SGHMC", 0.8)])
def test_weights_of_unequal_modes(method, known):
    """Modes of weight .2 and .8, at the steps where walkers still cross.

    SGHMC's law is exact in each well; SGLD's is that of T/(1 - dt k/2), hence flatter:
    twice T, .67 and .33, at half the largest step.
    """
    weight = (ends_of_cycles(method, 0.8)[5:] > 0).mean()
    assert weight == pytest.approx(known, abs=0.05)
    assert abs(weight - 0.5) > 0.1  # negative control: equal weights


# --- annealing --------------------------------------------------------------------

EDGES = np.linspace(-2.4, 2.4, 121)
POINTS = 0.5 * (EDGES[1:] + EDGES[:-1])


def well(x):
    return (x**2 - 1) ** 2


def modes_of_motion(T):
    """Rates and modes of the overdamped motion between cells, and their heights.

    Rates obey detailed balance exactly, so that a scaling makes them symmetric.
    """
    width, U = POINTS[1] - POINTS[0], well(POINTS)
    up = np.exp(-np.diff(U) / (2 * T)) * T / width**2
    down = np.exp(np.diff(U) / (2 * T)) * T / width**2
    leaving = np.append(up, 0.0) + np.insert(down, 0, 0.0)
    rates, modes = eigh_tridiagonal(-leaving, np.full(up.size, T / width**2))
    return -rates[::-1], modes[:, ::-1], np.exp(-U / (2 * T))


def slowest_rate(T):
    """Smallest rate of the Fokker-Planck operator."""
    return modes_of_motion(T)[0][1]


def kramers(T):
    """Both ways over the barrier of height one: sqrt(U''(1) |U''(0)|)/pi exp(-1/T)."""
    return np.sqrt(8 * 4) / np.pi * np.exp(-1 / T)


def annealed(schedule, steps, h, pieces=60):
    """Population right of the barrier after walkers began at -1, exactly."""
    p = np.exp(-((POINTS + 1) ** 2) / (2 * 0.15**2))
    p /= p.sum()
    chunk = steps // pieces
    for i in range(pieces):
        rates, axes, height = modes_of_motion(schedule(chunk * i + chunk / 2))
        p = height * (axes @ (np.exp(-rates * chunk * h) * (axes.T @ (p / height))))
    return p[POINTS > 0].sum()


def walked(make, steps, wells=200, replicas=100, seed=5):
    """The same, by walkers in wells of their own: fraction and its standard error."""
    start = -1 + 0.15 * np.random.default_rng(seed).normal(size=(replicas, wells))
    U = potentials.DoubleWell(size=wells)
    sim = mdnet.Simulation(U, make, replicas, start, seed=seed, backend="cpu")
    sim.run(steps)
    right = (sim.state.positions > 0).mean()
    return right, np.sqrt(right * (1 - right) / start.size)


def test_kramers_rate_is_the_limit_of_cold_wells():
    ratio = [slowest_rate(T) / kramers(T) for T in (0.2, 0.1, 0.07)]
    assert np.all(np.diff(np.abs(np.array(ratio) - 1)) < 0)
    assert ratio[-1] == pytest.approx(1, abs=0.07)


@pytest.mark.physics
def test_constant_temperature_crosses_at_the_slowest_rate():
    T, h, steps = 0.2, 5e-3, 6000
    found, error = walked(integrators.SGLD(h, T), steps)
    known = annealed(lambda step: T, steps, h)
    assert abs(found - known) < LIMIT * error + 0.02 * known
    simple = 0.5 * (1 - np.exp(-slowest_rate(T) * steps * h))
    assert known == pytest.approx(simple, abs=0.01)
    assert found == pytest.approx(0.5 * -np.expm1(-kramers(T) * steps * h), rel=0.25)


@pytest.mark.physics
@pytest.mark.parametrize("shape", ["linear", "cosine", "polynomial"])
def test_annealing_crosses_as_the_integral_of_the_rate(shape):
    """Populations freeze in where the rate falls below that of the cooling."""
    h, steps = 5e-3, 3000
    schedule = {
        "linear": schedules.linear(0.5, 0.05, steps),
        "cosine": schedules.cosine(0.5, 0.05, steps),
        "polynomial": schedules.polynomial(0.5 * 400**0.6, 400, 0.6),
    }[shape]
    found, error = walked(integrators.SGLD(h, schedule), steps)
    known = annealed(schedule, steps, h)
    assert 0.1 < known < 0.45
    assert abs(found - known) < LIMIT * error + 0.02 * known
    # Negative controls: a tenth hotter, and cooled at once.
    for wrong in (lambda step: 1.1 * schedule(step), lambda step: 0.05):
        assert abs(annealed(wrong, steps, h) - found) > LIMIT * error + 0.02 * known
