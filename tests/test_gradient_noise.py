"""Thermostats for gradient noise: what they sample where BAOAB and SGLD run hot.

Statistical checks compare means over 40 or more independent blocks of replicas with
exact ones: beyond 6 standard errors is a false alarm in 5e-7 of them.
"""

import numpy as np
import pytest
from scipy.optimize import brentq

import mdnet
from mdnet import integrators, reporters
from mdnet.potentials.base import Potential

from .physics_tools import Oscillator, linear_step, stationary, z_scores
from .test_physics_noise import minibatch_covariance, regression

LIMIT, BLOCKS = 6.0, 40


class NoisyEvaluator:
    """Forces -k q with normal errors of any covariance, drawn from counters."""

    full, polynomial = False, None

    def __init__(self, model, shape, seed):
        self.k, self.factor, self.seed = model.stiffness, model.factor, seed
        self.draw = np.empty(shape)

    def forces(self, positions, out, call, energies=None):
        bits = np.random.Philox(key=self.seed, counter=[0, 0, 0, call])
        np.random.Generator(bits).standard_normal(out=self.draw)
        out[...] = self.draw @ self.factor.T - self.k * positions

    def energies(self, positions, out):
        out[...] = 0.5 * (self.k * positions * positions).sum(1)

    def gradients(self, positions, out):
        out[...] = self.k * positions


class Noisy(Potential):
    """U = k q^2/2 with noise ``factor`` z on its forces."""

    def __init__(self, stiffness, factor):
        self.stiffness, self.factor = np.asarray(stiffness, float), np.asarray(factor)
        self.size = len(self.factor)

    def evaluator(self, backend, replicas, seed=0):
        return NoisyEvaluator(self, (replicas, self.size), seed)

    def describe(self):
        return {"name": "Noisy", "factor": self.factor.tolist()}


class TwoTensors(Oscillator):
    """A noisy oscillator in two tensors."""

    @property
    def layout(self):
        rest = self.size - 30
        return {"a": (slice(0, 30), (30,)), "b": (slice(30, self.size), (rest,))}


def simulate(potential, integrator, replicas, **settings):
    settings = {"backend": "cpu", "precision": "double", "seed": 4} | settings
    return mdnet.Simulation(potential, integrator, replicas, **settings)


def averages(sim, steps, every=5):
    memory = reporters.Memory(every, positions=False)
    start = sim.state.step
    sim.run(steps, reporters=[memory])
    keep = memory.steps > start
    return {name: memory[name].value[keep].mean(0) for name in memory.names}


def badodab(h, T, A, C, k=1.0):
    """Mean friction, <q^2> k/T and <p^2>/T after O, for many weights that share xi.

    At fixed friction the step is BAOAB with a bath of temperature T A/xi; D holds xi
    where the mean of the kinetic energies before and after O is that of T.
    """

    def moments(xi):
        word = integrators.BAOAB(h, T * A / xi, xi)
        end, after = stationary(word, k, noise=C)
        now, before = end, None
        for letter, M, Q in linear_step(word, k, noise=C):
            if letter == "O":
                before = now[1, 1]
            now = M @ now @ M.T + Q
        return end[0, 0] * k / T, before / T, after[1, 1] / T

    xi = brentq(lambda x: sum(moments(x)[1:]) - 2, A, A + 10 * h * C / T + 1)
    return xi, moments(xi)[0], moments(xi)[2]


# --- one xi for noise that is the same everywhere --------------------------------


def test_self_consistent_friction_at_small_steps():
    """<xi> - A = hC/2T, and the configurational error vanishes as h^3."""
    xi, q2, p2 = badodab(0.1, 1.0, 1.0, 4.0)
    assert xi - 1 == pytest.approx(0.2, abs=0.01)
    assert abs(q2 - 1) < 1e-3
    assert p2 == pytest.approx(1 - 0.01 * 4 / 2, abs=1e-3)
    errors = [badodab(h, 1.0, 1.0, 4.0)[1] - 1 for h in (0.08, 0.04)]
    assert np.log2(errors[0] / errors[1]) > 1.8


@pytest.mark.physics
@pytest.mark.parametrize("groups", ["all", "layer"])
def test_badodab_absorbs_uniform_noise(groups):
    """At three temperatures and steps, in replicas of one simulation."""
    size, C = 100, 4.0
    steps, temperatures = np.array([0.05, 0.1, 0.2]), np.array([0.25, 1.0, 4.0])
    shape = (BLOCKS, 3, 3)
    h = np.broadcast_to(steps[:, None], shape).ravel()
    T = np.broadcast_to(temperatures, shape).ravel()
    sims = {}
    for name in ("SGNHT", "BAOAB"):
        settings = {"relaxation_time": 1.0, "groups": groups} if name == "SGNHT" else {}
        make = getattr(integrators, name)(h, T, **settings)
        sim = simulate(TwoTensors(size, noise=np.sqrt(C)), make, h.size)
        sim.run(150)
        found = averages(sim, 500)
        sims[name] = {
            "q2": (found["potential_energy"] / (T * size / 2)).reshape(shape),
            "p2": (found["kinetic_temperature"] / T).reshape(shape),
        }
        if name == "SGNHT":
            xi = found["thermostat_friction"].reshape(shape)
    known = np.array([[badodab(h, T, 1.0, C) for T in temperatures] for h in steps])
    # A finite group lets xi fluctuate, by 1/sqrt(n) tau: the law of many weights is
    # right to 1/n where noise is strong.
    assert np.abs(sims["SGNHT"]["q2"].mean(0) - known[..., 1]).max() < 0.02
    assert np.abs(sims["SGNHT"]["p2"].mean(0) - known[..., 2]).max() < 0.02
    fine = np.s_[:, 1, 1:]
    assert (z_scores(sims["SGNHT"]["q2"][fine], known[fine[1:]][..., 1]) < LIMIT).all()
    assert (z_scores(sims["SGNHT"]["q2"][fine], 1.0) < LIMIT).all()
    assert (z_scores(xi[fine], known[fine[1:]][..., 0]) < LIMIT).all()
    # Negative controls: BAOAB runs hot by hC/2 (friction 1); no shift of xi.
    heated = 1 + steps[:, None] * C / (2 * temperatures)
    assert np.abs(sims["BAOAB"]["q2"].mean(0) / heated - 1).max() < 0.08
    assert (z_scores(sims["BAOAB"]["q2"], 1.0)[heated > 1.04] > LIMIT).all()
    assert (z_scores(xi[fine], 1.0) > LIMIT).all()


@pytest.mark.physics
def test_quoted_figures_of_badodab():
    """h = .1, C = 4, A = 1: <q^2> = .9986 and <xi> - A = .192 were measured."""
    sim = simulate(Oscillator(100, noise=2.0), integrators.SGNHT(0.1), 400)
    sim.run(200)
    found = averages(sim, 1000)
    assert found["potential_energy"].mean() / 50 == pytest.approx(1.0, abs=0.005)
    assert found["thermostat_friction"].mean() - 1 == pytest.approx(0.2, abs=0.01)


@pytest.mark.physics
def test_friction_of_each_parameter():
    """Noise that differs from weight to weight, each with a thermostat of its own."""
    C = np.repeat([0.0, 4.0], 20)
    u = Noisy(1.0, np.diag(np.sqrt(C)))
    h, tau = 0.05, 4.0
    found = {}
    for groups in ("parameter", "all"):
        make = integrators.SGNHT(h, relaxation_time=tau, groups=groups)
        sim = simulate(u, make, 160)
        sim.run(800)
        total = 0.0
        for _ in range(80):
            sim.run(25)
            total = total + sim.state.positions**2 / 80
        found[groups] = total.reshape(BLOCKS, -1, 2, 20).mean((1, 3))
        if groups == "parameter":
            xi = sim.state.variables["xi"].reshape(-1, 2, 20).mean((0, 2))
    assert np.abs(found["parameter"].mean(0) - 1).max() < 0.02
    assert xi - 1 == pytest.approx([0, h * 4 / 2], abs=0.02)
    # Negative control: one friction for all cools the quiet and heats the noisy.
    cold, hot = found["all"].mean(0)
    assert cold < 0.97
    assert hot > 1.03


# --- covariance control ----------------------------------------------------------


def rotated(size, strengths, background, seed=2):
    """Noise in a few directions that no weight lies along, and a bit everywhere."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(size, size)))[0]
    variances = np.full(size, background)
    variances[: len(strengths)] = strengths
    return axes * np.sqrt(variances), axes


def variances_along(sim, axes, samples=80, every=15):
    total = 0.0
    for _ in range(samples):
        sim.run(every)
        total = total + (sim.state.positions @ axes) ** 2 / samples
    return total.reshape(BLOCKS, -1, axes.shape[1]).mean(1)


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.5, 2.0])
def test_covariance_control_of_noise_in_few_directions(T):
    factor, axes = rotated(24, [40.0 * T] * 3, 2.0 * T)
    u = Noisy(1.0, factor)
    makers = {
        "BADODAB": integrators.SGNHT(0.1, T),
        "diagonal": integrators.CCAdL(0.1, T, window=3000),
        "low-rank": integrators.CCAdL(
            0.1, T, covariance="low-rank", rank=4, window=3000
        ),
    }
    noisy, quiet = {}, {}
    for name, make in makers.items():
        sim = simulate(u, make, 240, positions=np.zeros(24))
        sim.run(800)
        found = variances_along(sim, axes) / T
        noisy[name], quiet[name] = found[:, :3].mean(1), found[:, 3:].mean(1)
    # Rests: the estimate is h^2 k too large, and its directions are a sample's.
    assert abs(noisy["low-rank"].mean() - 1) < 0.05
    assert abs(quiet["low-rank"].mean() - 1) < 0.03
    # Negative controls: without the covariance, or with its diagonal only.
    for name in ("BADODAB", "diagonal"):
        assert noisy[name].mean() > 1.4
        assert quiet[name].mean() < 0.95
        assert z_scores(quiet[name], 1.0) > LIMIT


@pytest.mark.physics
def test_covariance_control_of_noise_that_differs_between_weights():
    C = np.repeat([0.0, 10.0, 30.0], 10)
    u = Noisy(1.0, np.diag(np.sqrt(C)))
    found, xi = {}, {}
    for name in ("SGNHT", "CCAdL"):
        sim = simulate(u, getattr(integrators, name)(0.05), 400)
        sim.run(1000)
        squares = variances_along(sim, np.eye(30))
        found[name] = squares.reshape(BLOCKS, 3, 10).mean(2)
        xi[name] = sim.scalars()["thermostat_friction"].mean()
    assert np.abs(found["CCAdL"].mean(0) - 1).max() < 0.02
    assert xi["CCAdL"] == pytest.approx(1.0, abs=0.03)
    assert found["SGNHT"][:, 0].mean() < 0.9
    assert found["SGNHT"][:, 2].mean() > 1.1


def test_sketch_finds_the_leading_directions():
    """Eigenvectors and eigenvalues of the noise, and the rest on the diagonal."""
    factor, axes = rotated(20, [50.0, 20.0], 1.0)
    u = Noisy(0.0, factor)
    mass = np.linspace(0.5, 2.0, 20)
    make = integrators.CCAdL(
        0.01, covariance="low-rank", rank=4, window=100_000, mass=mass
    )
    sim = simulate(u, make, 2)
    sim.run(4000)
    rows = sim.state.variables["sketch"][:, :4] * np.sqrt(mass)
    kept = np.swapaxes(rows, 1, 2) @ rows
    for each in kept:
        along = axes.T @ each @ axes
        assert along[0, 0] == pytest.approx(50, rel=0.15)
        assert along[1, 1] == pytest.approx(20, rel=0.15)
        assert abs(along[0, 1]) < 4
    exact = (factor**2).sum(1)
    noise = sim.state.variables["noise"]
    np.testing.assert_allclose(noise.mean(0), exact, rtol=0.1)
    captured = sim.state.variables["captured"]
    np.testing.assert_allclose(captured, np.diagonal(kept, axis1=1, axis2=2))
    assert (captured.sum(1) < noise.sum(1)).all()


def test_damping_is_the_matrix_exponential():
    from scipy.linalg import expm

    factor, _ = rotated(12, [50.0, 20.0], 1.0)
    mass = np.linspace(0.5, 2.0, 12)
    make = integrators.CCAdL(0.05, covariance="low-rank", rank=3, mass=mass)
    sim = simulate(Noisy(1.0, factor), make, 2)
    sim.run(50)
    sketch = sim._companion._sketch
    p = sim.state.momenta.copy()
    after = sketch.damp(p, np.array([[0.02], [0.3]]))
    for r, a in enumerate((0.02, 0.3)):
        rows = sim.state.variables["sketch"][r, :3] * np.sqrt(mass)
        exact = expm(-a * rows.T @ rows / mass) @ p[r]
        np.testing.assert_allclose(after[r], exact, rtol=1e-9, atol=1e-12)


# --- SGHMC -----------------------------------------------------------------------


@pytest.mark.physics
def test_sghmc_moments():
    """Exact on the oscillator, given the variance that is estimated."""
    C, friction, size = 4.0, 2.0, 50
    steps, temperatures = np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 4.0])
    shape = (BLOCKS, 3, 3)
    h = np.broadcast_to(steps[:, None], shape).ravel()
    T = np.broadcast_to(temperatures, shape).ravel()
    make = integrators.SGHMC(h, T, friction, window=100_000)
    sim = simulate(Oscillator(size, noise=np.sqrt(C)), make, h.size)
    sim.run(500)
    found = averages(sim, 1000)
    q2 = (found["potential_energy"] / (T * size / 2)).reshape(shape)
    p2 = (found["kinetic_temperature"] / T).reshape(shape)
    V = found["gradient_noise"].reshape(shape).mean(0)
    assert (found["unmatched_noise"] == 0).all()
    # The estimate sees the weights move: it is 2 h^2 k/3 too large.
    wide = 1 + 2 / 3 * steps[:, None] ** 2 + 0 * T[:3]
    np.testing.assert_allclose(V / C, wide, rtol=0.02)
    c, nu, hh = (
        np.exp(-friction * steps)[:, None],
        C / T.reshape(shape)[0],
        steps[:, None],
    )
    nu, est = nu * hh**2, V / T.reshape(shape)[0] * hh**2
    known = 1 + nu * (1 + c) / ((1 - c) * (4 - hh**2)) - est * (1 + c) / (4 * (1 - c))
    known_p = 1 + 4 * nu * c**2 / ((4 - hh**2) * (1 - c**2))
    known_p -= est * (1 + c) / (4 * (1 - c))
    assert (z_scores(q2, known) < LIMIT).all()
    assert (z_scores(p2, known_p) < LIMIT).all()
    assert np.abs(known - 1).max() < 0.03
    # Negative control: the same without the estimate runs hot.
    plain = simulate(
        Oscillator(size, noise=np.sqrt(C)), integrators.BAOAB(h, T, friction), h.size
    )
    plain.run(200)
    hot = averages(plain, 400)["potential_energy"] / (T * size / 2)
    assert (z_scores(hot.reshape(shape), known)[:, :2] > LIMIT).all()
    assert (z_scores(hot.reshape(shape), known)[1:] > LIMIT).all()


def test_sghmc_reports_noise_that_it_cannot_match():
    u = Noisy(1.0, np.diag(np.repeat([0.1, 10.0], 10)))
    sim = simulate(u, integrators.SGHMC(0.1, friction=0.5), 2)
    sim.run(50)
    np.testing.assert_array_equal(sim.scalars()["unmatched_noise"], 0.5)


# --- a posterior with minibatches ------------------------------------------------


@pytest.mark.slow
@pytest.mark.physics
def test_posterior_of_a_linear_regression():
    """Batches of 6 rows of 60: the error of the covariance, at equal force calls.

    SGLD, of step h^2, moves its slowest direction less in as many calls than the
    others, and its own error is the exact one, of endless sampling.  BADODAB fails
    here, because the noise differs between directions; CCAdL stays below a fifth.
    """
    U = regression()
    exact = U.covariance(1.0)
    h = 0.25 / np.sqrt(U.largest_stiffness)
    sgld = integrators.SGLD(dt=h**2)
    predicted, _ = minibatch_covariance(U, sgld, batch=6)

    def error(covariance):
        return np.linalg.norm(covariance - exact) / np.linalg.norm(exact)

    common = {"dt": h, "friction": 10.0, "relaxation_time": 1.0}
    makers = {
        "SGLD": sgld,
        "SGNHT": integrators.SGNHT(**common),
        "CCAdL": integrators.CCAdL(**common, covariance="low-rank", rank=4),
    }
    found, kept = {}, {}
    slowest = np.linalg.eigh(U.hessian(U.mean()))[1][:, 0]
    for name, make in makers.items():
        replicas = 2400 if name == "CCAdL" else 1000
        sim = simulate(
            U.minibatch(6, order="replacement"),
            make,
            replicas,
            positions=U.sample(replicas, seed=3),
        )
        sim.run(500)
        total, old = 0.0, sim.state.positions - U.mean()
        correlation = 0.0
        for _ in range(30):
            sim.run(25)
            x = sim.state.positions - U.mean()
            total = total + x.T @ x / (30 * replicas)
            correlation += (x @ slowest) @ (old @ slowest) / (30 * replicas)
            old = x
        found[name] = error(total)
        kept[name] = correlation / (slowest @ total @ slowest)
    assert found["SGLD"] == pytest.approx(error(predicted), abs=0.05)
    assert found["CCAdL"] < error(predicted) / 5
    assert kept["CCAdL"] < kept["SGLD"]
    # Negative control: without control of the covariance.
    assert found["SGNHT"] > error(predicted) / 5
