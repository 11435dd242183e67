"""Every integrator of the catalogue on four systems at T = 1/4, 1 and 4.

Oscillators, Bayesian linear regression, a chain of quartic wells, a tanh network: the
means of some ten observables each (see `grid_tools`), from hundreds of independent
replicas, against exact ones:

========  ==========================================================================
letters   on quadratic energies the stationary law of the word at finite step, from
          the discrete Lyapunov equation of its letters
paper     the same, from the recursion of the method's paper
order p   elsewhere results at h and 2 h, extrapolated with h^p; 0: as they are
========  ==========================================================================

Deviations are judged in standard errors over replicas: `LIMIT` of them is exceeded by
one sound comparison in 2e11 (Student's t, 499 degrees of freedom), so that a fresh seed
raises a false alarm anywhere in the grid with probability below 1e-6
(`test_false_alarms`).  Every cell is also run with a bath that is too hot, by 10 %
unless the row says more, and has to fail at each temperature; so have wrong
coefficients and missing terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

import mdnet
from mdnet import integrators, potentials
from mdnet.integrators import catalog
from mdnet.integrators.metropolis import Judge

from . import test_words
from .grid_tools import (
    ENERGIES,
    SYSTEMS,
    TEMPERATURES,
    Plan,
    exact,
    extrapolated,
    of_covariance,
    on_sphere,
    readings,
    residuals,
    scores,
)
from .physics_tools import stationary

LIMIT = 7.0
HOT = 1.1
DEFAULT = Plan()


@dataclass(frozen=True)
class Method:
    """A row of the grid: ``make(h, T)``, how to run it, and what law to expect."""

    make: Callable[[Any, Any], Any]
    order: int = 2
    law: str = ""
    plan: Plan = DEFAULT
    noise: float = 0.0
    hot: float = HOT
    run: Callable[..., np.ndarray] | None = None
    surfaces: bool = False

    def system(self, name):
        return on_sphere(name) if self.surfaces else SYSTEMS[name]()


# --- the laws of words on quadratic energies ---------------------------------------


def letters(method, system, h):
    """Covariance of positions and mean of p^2 at T = 1, by the letters themselves."""
    end, _ = stationary(method.make(h, 1.0), system.hessian, noise=method.noise / h)
    size = system.size
    return end[:size, :size], np.trace(end[size : 2 * size, size : 2 * size]) / size


def paper(method, system, h):
    """The same for each eigenvector, by the recursion of the paper."""
    word = method.make(h, 1.0).name
    k, axes = np.linalg.eigh(system.hessian)
    q2, p2 = np.array([test_words.stationary(word, h, 1.0, x) for x in k]).T
    return (axes * (q2 / k)) @ axes.T, p2.mean()


LAWS = {"letters": letters, "paper": paper}


def blocks(method, name, seed=1, hot=1.0, make=None):
    """Residuals of independent blocks, (T, R, n)."""
    system = method.system(name)
    make = make or method.make
    if method.run is not None:
        return method.run(system, make, seed, hot)
    if method.law and system.hessian is not None:
        plan = replace(method.plan, scale=2 * method.plan.scale)
        out = residuals(system, make, plan, seed=seed, hot=hot)[0]
        base = system.overdamped if plan.overdamped else system.step
        covariance, kinetic = LAWS[method.law](method, system, base[0] * plan.scale)
        known = of_covariance(covariance, system.hessian)
        if plan.momenta:
            known = np.append(known, kinetic)
        shift = TEMPERATURES[:, None] * known - exact(system, plan.momenta)
        return out - shift[:, None]
    halves = (1.0, 2.0) if method.order else (1.0,)
    out = residuals(system, make, method.plan, halves, seed, hot)
    return extrapolated(out, method.order) if method.order else out[0]


# --- what some methods need beside a potential -------------------------------------


class Noisy(potentials.Sum):
    """A potential whose forces have independent errors, of a variance a replica."""

    def __init__(self, potential, variance):
        super().__init__(potential)
        self.scale = np.sqrt(variance)[:, None]

    def evaluator(self, backend, replicas, seed=0):
        return NoisyEvaluator(super().evaluator(backend, replicas, seed), self, seed)


class NoisyEvaluator:
    full, polynomial = False, None

    def __init__(self, inner, model, seed):
        self.inner, self.scale, self.seed = inner, model.scale, seed
        self.energies, self.gradients = inner.energies, inner.gradients

    def forces(self, positions, out, call, energies=None):
        self.inner.forces(positions, out, call, energies)
        bits = np.random.Philox(key=self.seed, counter=[0, 0, 0, call])
        out += self.scale * np.random.Generator(bits).standard_normal(out.shape)


def split(system, T, h):
    """The energy as a sum of two halves, a slow and a fast one."""
    return 0.5 * system.potential + 0.5 * system.potential


def shaken(system, T, h):
    """Forces whose noise makes SGD a Langevin method: hC/2 = T."""
    return Noisy(system.potential, 2 * T / h)


def tempered(kind):
    """How a method that shares temperatures out among replicas is run."""

    def run(system, make, seed, hot):
        parts = [wander(system, make, kind, h, seed, hot) for h in (1.0, 2.0)]
        return extrapolated(parts, 2)

    return run


def wander(system, make, kind, half, seed, hot, ladders=400, samples=120):
    """Residuals at each temperature, (T, ladders or replicas, n)."""
    count = ladders * TEMPERATURES.size
    rng = np.random.default_rng(seed)
    rung = np.arange(count) % TEMPERATURES.size
    start = np.empty((count, system.size))
    for i, T in enumerate(TEMPERATURES):
        start[rung == i] = system.sample(ladders, T, rng)
    method = kind(make(half * system.step.min(), 1.0), hot * TEMPERATURES, every=2)
    if kind is integrators.SimulatedTempering:
        least = system.potential.energy(start[rung == 0]).mean()
        least -= system.size / 2 * TEMPERATURES[0]
        weights = least / method.temperatures - system.size / 2 * np.log(TEMPERATURES)
        method = replace(method, weights=weights)
    sim = mdnet.Simulation(
        system.potential, method, count, start, seed=seed, backend="cpu",
        precision="double",
    )  # fmt: skip
    sim.run(60)
    known, total = exact(system, True), 0.0
    for _ in range(samples):
        sim.run(4)
        found, now = readings(system, sim, True), sim.scalars()["rung"].astype(int)
        at = now[:, None] == np.arange(TEMPERATURES.size)
        total = total + at.T[:, :, None] * (found - known[:, None])
    if kind is integrators.ReplicaExchange:  # replicas of a ladder are not independent
        return total.reshape(len(known), ladders, -1, known.shape[1]).sum(2) / samples
    return total / samples


def together(system, make, seed, hot, replicas=600, samples=60):
    """Residuals of replicas that serve each other, a simulation a temperature."""
    parts = []
    for h in (0.2, 0.4):
        rows = []
        for i, T in enumerate(TEMPERATURES):
            rng = np.random.default_rng(seed + i)
            sim = mdnet.Simulation(
                system.potential, make(h, hot * T), replicas,
                system.sample(replicas, T, rng), seed=seed + i, backend="cpu",
                precision="double",
            )  # fmt: skip
            sim.run(100)
            total = 0.0
            for _ in range(samples):
                sim.run(8)
                total = total + readings(system, sim, False) - system.exact(T)
            rows.append(total / samples)
        parts.append(np.array(rows))
    return extrapolated(parts, 2)


# --- the grid -----------------------------------------------------------------------

CLOSED = Plan(replicas=4000, burn=40, samples=20, every=3, scale=0.2)
SLOW = Plan(replicas=1200, burn=200, samples=50, every=16, overdamped=True)
TESTED = Plan(burn=20, samples=60, every=2)


def word(make, law="letters", order=2, **plan):
    return Method(make, order, law, Plan(**plan))


def closed(make):
    """Without a bath: the law is kept; momenta alone are drawn too hot."""
    return Method(lambda h, T: make(h, temperature=T), 0, plan=CLOSED, hot=1.2)


def preconditioned(h, T):
    """G a function of the weights, so that its divergence counts."""
    return integrators.SGLD(h, T, preconditioner="rmsprop", decay=0.0, regularizer=2.0)


def own_chains(h, T):
    """A chain for each weight: ergodic where oscillators are not coupled."""
    return integrators.NoseHoover(h, T, groups="parameter")


def surfaces(h, T):
    return integrators.Constrained("BAOAB", h, T, norms={"*": "tensor"})


GRID = {
    "VelocityVerlet": closed(integrators.VelocityVerlet),
    "PositionVerlet": closed(integrators.PositionVerlet),
    "Yoshida4": closed(integrators.Yoshida4),
    "Omelyan4": closed(integrators.Omelyan4),
    "BAOAB": word(integrators.BAOAB),
    "ABOBA": word(integrators.ABOBA),
    "OBABO": word(integrators.OBABO),
    "OABAO": word(integrators.OABAO),
    "BAO": word(integrators.BAO, order=1, scale=0.3, every=12, replicas=1000),
    "BAOA": word(integrators.BAOA, momenta=False),
    "StochasticPositionVerlet": word(integrators.StochasticPositionVerlet, "paper"),
    "UBU": word(integrators.UBU, "paper"),
    "GJF": word(integrators.GJF, "paper"),
    "BBK": word(integrators.BBK, "paper", momenta=False, replicas=800),
    "SGLD": Method(integrators.SGLD, 1, "letters", replace(SLOW, momenta=False)),
    "LeimkuhlerMatthews": Method(
        integrators.LeimkuhlerMatthews, 2, "paper",
        replace(SLOW, momenta=False, replicas=600),
    ),
    "SGD": Method(
        lambda h, T: integrators.SGD(h), 1, "letters",
        replace(SLOW, momenta=False, wrap=shaken), noise=2.0, hot=1.2,
    ),
    "NoseHoover": Method(own_chains, plan=Plan(replicas=900)),
    "StochasticVelocityRescaling": Method(
        integrators.StochasticVelocityRescaling, plan=Plan(replicas=1000)
    ),
    "Isokinetic": Method(integrators.Isokinetic, plan=Plan(momenta=False)),
    "SGHMC": Method(integrators.SGHMC),
    "NoiseMatched": Method(lambda h, T: integrators.NoiseMatched(h, T, warmup=20)),
    "SGNHT": Method(integrators.SGNHT),
    "CCAdL": Method(integrators.CCAdL),
    "RandomWalkMetropolis": Method(
        lambda h, T: integrators.RandomWalkMetropolis(4 * h, T), 0,
        plan=replace(TESTED, every=10),
    ),
    "MALA": Method(
        lambda h, T: integrators.MALA(4 * h * h, T), 0, plan=replace(TESTED, every=6)
    ),
    "HMC": Method(
        lambda h, T: integrators.HMC(2 * h, 4, T, jitter=0.5), 0, plan=TESTED
    ),
    "GHMC": Method(
        lambda h, T: integrators.GHMC(1.5 * h, T), 0, plan=replace(TESTED, every=6)
    ),
    "NUTS": Method(
        lambda h, T: integrators.NUTS(2 * h, T), 0,
        plan=Plan(replicas=500, burn=4, samples=40, every=1, momenta=False),
    ),
    "MCLMC": Method(integrators.MCLMC, plan=Plan(momenta=False)),
    "ReplicaExchange of BAOAB": Method(
        integrators.BAOAB, run=tempered(integrators.ReplicaExchange)
    ),
    "SimulatedTempering of BAOAB": Method(
        integrators.BAOAB, run=tempered(integrators.SimulatedTempering)
    ),
    "EnsembleQuasiNewton": Method(
        integrators.EnsembleQuasiNewton, plan=Plan(momenta=False), run=together
    ),
    "BAOAB on surfaces": Method(
        surfaces, plan=Plan(replicas=1000), surfaces=True
    ),
    "RESPA of BAOAB": Method(
        lambda h, T: integrators.RESPA("BAOAB", h, T), plan=Plan(wrap=split, samples=30)
    ),
}  # fmt: skip
GRID |= {
    "preconditioned SGLD": Method(
        preconditioned,
        1,
        plan=replace(SLOW, momenta=False, scale=2.0, replicas=700),
        hot=1.3,
    ),
    "tested MCLMC": Method(
        lambda h, T: integrators.MCLMC(2 * h, T, adjusted=True, steps=4, jitter=0.5),
        0,
        plan=replace(TESTED, momenta=False),
    ),
}
CELLS = [(method, system) for method in GRID for system in SYSTEMS]


def test_every_method_of_the_catalogue_is_in_the_grid():
    assert {entry.name for entry in catalog.CATALOG} <= set(GRID)


@pytest.mark.physics
@pytest.mark.parametrize(("method", "system"), CELLS)
def test_moments(method, system):
    found = scores(blocks(GRID[method], system))
    assert (found < LIMIT).all(), found.round(1)


@pytest.mark.physics
@pytest.mark.parametrize(("method", "system"), CELLS)
def test_a_bath_too_hot_is_seen(method, system):
    """Negative control of every cell, at each of its temperatures."""
    found = scores(blocks(GRID[method], system, hot=GRID[method].hot))
    assert (found.max(1) > LIMIT).all(), found.round(1)


# --- wrong methods, and what the grid itself rests on -------------------------------


def uneven(h, T):
    table = [("B", 0.5), ("A", 0.6), ("O", 1.0), ("A", 0.4), ("B", 0.5)]
    return integrators.Splitting(table, h, T)


def without_divergence(h, T):
    made = preconditioned(h, T)
    return replace(made, correction=False)


WRONG = {
    "drifts of .6 and .4": ("BAOAB", uneven, "oscillators"),
    "the neighbour in the alphabet": ("OBABO", integrators.OABAO, "regression"),
    "noise sqrt(T dt)": ("SGLD", lambda h, T: integrators.SGLD(h, T / 2), "chain"),
    "no term Gamma": ("preconditioned SGLD", without_divergence, "oscillators"),
    "damping without its noise": (
        "UBU", lambda h, T: integrators.UBU(h, 0 * T), "chain",
    ),
}  # fmt: skip


@pytest.mark.physics
@pytest.mark.parametrize("what", WRONG)
def test_wrong_coefficients_are_seen(what):
    method, make, system = WRONG[what]
    with np.errstate(divide="ignore", invalid="ignore"):  # what rests does not scatter
        found = scores(blocks(GRID[method], system, make=make))
    assert (np.nan_to_num(found, nan=np.inf).max(1) > LIMIT).any()


@pytest.mark.physics
@pytest.mark.parametrize("method", ["HMC", "GHMC", "MALA", "RandomWalkMetropolis"])
def test_a_missing_rejection_is_seen(method, monkeypatch):
    monkeypatch.setattr(Judge, "_work", lambda self: np.full(self.energy.shape, -1.0))
    found = scores(blocks(GRID[method], "regression"))
    assert (found.max(1) > LIMIT).all()


@pytest.mark.physics
def test_a_slow_force_of_another_size_is_seen():
    def uneven_halves(system, T, h):
        return 0.5 * system.potential + 0.6 * system.potential

    plan = Plan(wrap=uneven_halves, samples=30)
    found = scores(blocks(replace(GRID["RESPA of BAOAB"], plan=plan), "chain"))
    assert (found.max(1) > LIMIT).all()


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("T", TEMPERATURES)
def test_exact_moments_are_those_of_the_draws(name, T):
    """Quadratures and transfer matrices against draws, and U against its formula."""
    system, rng = SYSTEMS[name](), np.random.default_rng(7)
    q = system.sample(40_000, T, rng)
    found = system.observe(q) - system.exact(T)
    assert (scores(found[None]) < LIMIT).all()
    assert (scores(found[None] + 0.05 * system.exact(T))[0, -1] > LIMIT).all()
    if name in ENERGIES:
        apart = system.potential.energy(q[:50]) - ENERGIES[name](q[:50])
        np.testing.assert_allclose(apart, apart[0], atol=1e-9)
    surface = on_sphere(name)
    q = surface.sample(40_000, T, rng)
    assert (scores((surface.observe(q) - surface.exact(T))[None]) < LIMIT).all()
    slope = (q * surface.potential.gradient(q)).sum(1)
    flat = system.potential.gradient(q)
    np.testing.assert_allclose(slope, (q * flat).sum(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "order"),
    [("VelocityVerlet", 2), ("PositionVerlet", 2), ("Yoshida4", 4), ("Omelyan4", 4)],
)
@pytest.mark.parametrize("name", SYSTEMS)
def test_energy_of_flows_without_a_bath(method, order, name):
    """The largest error over twelve units of time falls as h^order, and stays."""
    system, spread = SYSTEMS[name](), []
    for T, base in zip(TEMPERATURES, system.step, strict=True):
        q, row = system.sample(40, T, np.random.default_rng(2)), []
        for h in (0.5 * base, 0.25 * base):
            sim = mdnet.Simulation(
                system.potential, getattr(integrators, method)(h, T), 40, q, seed=4,
                backend="cpu", precision="double",
            )  # fmt: skip
            worst, first = np.zeros((2, 40)), None
            for i in range(60):
                sim.run(max(1, round(0.2 / h)))
                energy = sim.potential_energy() + sim.state.kinetic_energy
                first = energy if first is None else first
                worst[i // 30] = np.maximum(worst[i // 30], np.abs(energy - first))
            row.append(np.median(worst.max(0)))
            assert np.median(worst[1] / worst[0]) < 1.5  # no drift
        spread.append(np.log2(row[0] / row[1]))
    assert np.abs(np.array(spread) - order).max() < 0.5


def test_false_alarms():
    """Comparisons of one run of the grid times the level of one."""
    count = 0
    for method, name in CELLS:
        row = GRID[method]
        system = row.system(name)
        count += TEMPERATURES.size * (system.exact(1.0).size + row.plan.momenta)
    level = 2 * stats.t(min(row.plan.replicas for row in GRID.values()) - 1).sf(LIMIT)
    assert 4000 < count < 6000
    assert count * level < 1e-6
