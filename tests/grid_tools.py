"""Systems with exact moments at every temperature, and how a run is held to them.

Four systems of three or four weights: oscillators of unequal stiffness, a posterior of
linear regression (mean m and covariance T/H), a chain of quartic wells with springs
between neighbours (moments by transfer matrices), and a tanh network 1-1-1 with its
four weights (two of them integrated out by hand, the others on a grid).

Runs start from the exact law.  Means over replicas are compared with exact ones; where
a method has a bias at finite step, with its own stationary law (quadratic systems), or
after Richardson's extrapolation of two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

import mdnet
from mdnet import potentials
from mdnet.potentials.base import Potential

TEMPERATURES = np.array([0.25, 1.0, 4.0])


@dataclass(frozen=True)
class System:
    """A potential, its moments and how to draw from it.

    ``step`` and ``overdamped`` are time steps at each temperature; ``observe`` maps
    positions (R, D) to observables (R, n), whose means at T are ``exact(T)``.
    ``hessian`` is that of a quadratic energy; ``degrees`` of freedom are D by default.
    """

    name: str
    potential: Potential
    step: np.ndarray
    overdamped: np.ndarray
    observe: Callable[[np.ndarray], np.ndarray]
    exact: Callable[[float], np.ndarray]
    sample: Callable[[int, float, np.random.Generator], np.ndarray]
    hessian: np.ndarray | None = None
    degrees: int = 0

    @property
    def size(self) -> int:
        return self.potential.size


# --- quadratic systems: means, covariances ----------------------------------------


def pairs(z):
    """All products z_i z_j with i <= j, (R, D(D+1)/2)."""
    i, j = np.triu_indices(z.shape[1])
    return z[:, i] * z[:, j]


def quadratic(name, potential, hessian, centre):
    """Observables: z, z z^T and z H z / D, with z = q - centre."""
    covariance = np.linalg.inv(hessian)
    lower = np.linalg.cholesky(covariance)
    size = len(hessian)

    def observe(q):
        z = q - centre
        energy = np.einsum("ri,ij,rj->r", z, hessian, z) / size
        return np.column_stack([z, pairs(z), energy])

    return System(
        name,
        potential,
        step=np.full(3, 0.25),
        overdamped=np.full(3, 0.04),
        observe=observe,
        exact=lambda T: of_covariance(T * covariance, hessian),
        sample=lambda n, T, rng: (
            centre + np.sqrt(T) * rng.normal(size=(n, size)) @ lower.T
        ),
        hessian=hessian,
    )


def of_covariance(covariance, hessian):
    """Means of the observables of `quadratic` under a Gaussian law."""
    size = len(hessian)
    i, j = np.triu_indices(size)
    energy = (covariance * hessian).sum() / size
    return np.concatenate([np.zeros(size), covariance[i, j], [energy]])


@cache
def oscillators():
    k, centre = np.array([1.0, 2.0, 4.0]), np.array([0.5, -1.0, 0.0])
    U = potentials.Harmonic(stiffness=k, center=centre)
    return quadratic("oscillators", U, np.diag(k), centre)


@cache
def regression():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(8, 3)) * [0.6, 0.8, 1.0]
    y = X @ [1.0, -0.5, 0.3] + rng.normal(size=8)
    U = potentials.LinearRegression(X, y, noise=1.5, prior_scale=1.0)
    return quadratic("regression", U, np.linalg.inv(U.covariance()), U.mean())


# --- a chain of quartic wells ------------------------------------------------------

SPRING, SITES = 1.0, 4


def chain_energy(q):
    square = q * q
    return (square * square).sum(1) / 4 + 0.5 * SPRING * (np.diff(q, axis=1) ** 2).sum(
        1
    )


def chain_gradient(q):
    out = q * q * q  # a power is slow
    bond = SPRING * np.diff(q, axis=1)
    out[:, :-1] -= bond
    out[:, 1:] += bond
    return out


class Chain:
    """Transfer matrices of the chain on a grid; functions vanish at its ends."""

    def __init__(self, T):
        self.x = x = np.linspace(-1, 1, 401) * 4.5 * T**0.25
        self.well = np.exp(-(x**4) / (4 * T))
        self.bond = np.exp(-SPRING * (x[:, None] - x) ** 2 / (2 * T))
        ends = [np.ones_like(x)]
        for _ in range(SITES - 1):
            ends.append(self.bond @ (self.well * ends[-1]))
        self.ends = ends  # all sites to one side summed over, of 0, 1, ... sites
        self.norm = (self.well * ends[-1]).sum()

    def single(self, f, site):
        weight = self.well * self.ends[site] * self.ends[SITES - 1 - site]
        return (weight * f(self.x)).sum() / self.norm

    def product(self, site):
        left = self.x * self.well * self.ends[site]
        right = self.x * self.well * self.ends[SITES - 2 - site]
        return left @ self.bond @ right / self.norm

    def draw(self, n, rng):
        pick, out = None, np.empty((n, SITES))
        for site in range(SITES):
            weight = self.well * self.ends[SITES - 1 - site]
            rows = weight[None] if pick is None else weight * self.bond[pick]
            total = np.cumsum(rows, axis=1)
            level = rng.random((n, 1)) * total[:, -1:]
            pick = (total < level).sum(1)
            out[:, site] = self.x[pick]
        return out + (rng.random(out.shape) - 0.5) * (self.x[1] - self.x[0])


def chain_observables(q):
    bonds, fourth = q[:, :-1] * q[:, 1:], (q * q) ** 2
    virial = (q * chain_gradient(q)).sum(1) / SITES
    return np.column_stack([
        q[:, 0], q[:, 0] ** 2, q[:, 1] ** 2, q[:, 3] ** 2, bonds[:, 0], bonds[:, 1],
        fourth.sum(1), chain_energy(q), virial,
    ])  # fmt: skip


@cache
def chain_exact(T):
    tables = Chain(T)
    squares = [tables.single(lambda x: x * x, i) for i in range(SITES)]
    fourth = sum(tables.single(lambda x: x**4, i) for i in range(SITES))
    bonds = [tables.product(i) for i in range(SITES - 1)]
    inner = [squares[i] + squares[i + 1] - 2 * bonds[i] for i in range(SITES - 1)]
    energy = fourth / 4 + 0.5 * SPRING * sum(inner)
    return np.array([
        0.0, squares[0], squares[1], squares[3], bonds[0], bonds[1],
        fourth, energy, T,
    ])  # fmt: skip


@cache
def chain():
    return System(
        "chain",
        potentials.Custom(SITES, chain_energy, chain_gradient, name="chain"),
        step=np.array([0.2, 0.16, 0.12]),
        overdamped=np.array([0.04, 0.03, 0.02]),
        observe=chain_observables,
        exact=chain_exact,
        sample=lambda n, T, rng: Chain(T).draw(n, rng),
    )


# --- a network of four weights -----------------------------------------------------

NOISE, SCALE = 1.5, 1.0
INPUTS = np.array([-1.5, -0.8, -0.2, 0.4, 0.9, 1.4])
TARGETS = np.array([-1.1, -1.0, 0.1, 0.4, 1.2, 0.9])


class Net:
    """The law of (w1, b1) on a grid; (w2, b2) are normal, given these."""

    def __init__(self, T):
        self.T = T
        reach = 7.5 * SCALE * np.sqrt(T)
        one = np.linspace(-reach, reach, 301)
        self.width = one[1] - one[0]
        w, b = (part.ravel() for part in np.meshgrid(one, one, indexing="ij"))
        hidden = np.tanh(w[:, None] * INPUTS + b[:, None])
        A = np.empty((w.size, 2, 2))
        A[:, 0, 0] = (hidden**2).sum(1)
        A[:, 0, 1] = A[:, 1, 0] = hidden.sum(1)
        A[:, 1, 1] = INPUTS.size
        A = A / NOISE**2 + np.eye(2) / SCALE**2
        pull = np.column_stack([hidden @ TARGETS, np.full(w.size, TARGETS.sum())])
        pull /= NOISE**2
        self.inverse = np.linalg.inv(A)
        self.mean = np.einsum("nij,nj->ni", self.inverse, pull)
        least = TARGETS @ TARGETS / NOISE**2 - (pull * self.mean).sum(1)
        self.least = 0.5 * (least + (w * w + b * b) / SCALE**2)
        log = -self.least / T - 0.5 * np.log(np.linalg.det(A))
        weight = np.exp(log - log.max())
        self.w, self.b, self.weight = w, b, weight / weight.sum()

    def moments(self):
        m, spread = self.mean, self.T * self.inverse
        rows = [
            self.w**2, self.b**2, m[:, 0] ** 2 + spread[:, 0, 0], m[:, 1],
            m[:, 1] ** 2 + spread[:, 1, 1], self.w * m[:, 0], self.b * m[:, 0],
            self.least + self.T,
        ]  # fmt: skip
        return np.array([*(row @ self.weight for row in rows), self.T])

    def draw(self, n, rng):
        pick = rng.choice(self.w.size, n, p=self.weight)
        jitter = (rng.random((2, n)) - 0.5) * self.width
        outer = np.linalg.cholesky(self.T * self.inverse[pick])
        z = np.einsum("nij,nj->ni", outer, rng.normal(size=(n, 2)))
        first = np.column_stack([self.w[pick], self.b[pick]]) + jitter.T
        return np.hstack([first, self.mean[pick] + z])


@cache
def net_tables(T):
    return Net(T)


def net_energy(q):
    """Energy without the normalisations."""
    miss = net_misses(q)[2] / NOISE
    return 0.5 * ((miss**2).sum(1) + (q * q).sum(1) / SCALE**2)


def net_misses(q):
    """Columns of weights, hidden values and what outputs are off, (R, rows)."""
    w1, b1, w2, b2 = columns = [column[:, None] for column in q.T]
    hidden = np.tanh(w1 * INPUTS + b1)
    return columns, hidden, w2 * hidden + b2 - TARGETS


def net_gradient(q):
    columns, hidden, miss = net_misses(q)
    error = miss / NOISE**2
    bend = error * columns[2] * (1 - hidden**2)
    parts = [bend * INPUTS, bend, error * hidden, error]
    return np.column_stack([part.sum(1) for part in parts]) + q / SCALE**2


def net_observables(q):
    w1, b1, w2, b2 = q.T
    virial = (q * net_gradient(q)).sum(1) / 4
    return np.column_stack([
        w1**2, b1**2, w2**2, b2, b2**2, w1 * w2, b1 * w2, net_energy(q), virial,
    ])  # fmt: skip


@cache
def network():
    U = potentials.Posterior(
        potentials.MLP([1, 1, 1], activation="tanh"),
        likelihood=potentials.likelihoods.Gaussian(noise=NOISE),
        prior=potentials.GaussianPrior(scale=SCALE),
        data=(INPUTS[:, None], TARGETS),
    )
    return System(
        "network",
        U,
        step=np.array([0.15, 0.15, 0.1]),
        overdamped=np.array([0.03, 0.02, 0.012]),
        observe=net_observables,
        exact=lambda T: net_tables(T).moments(),
        sample=lambda n, T, rng: net_tables(T).draw(n, rng),
    )


SYSTEMS = {
    "oscillators": oscillators,
    "regression": regression,
    "chain": chain,
    "network": network,
}


# --- the same energies on a sphere -------------------------------------------------

RADIUS = 1.5


@cache
def sphere(size):
    """Points (n, D) and weights of a quadrature on the sphere of D = 3 or 4."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x, w = np.polynomial.legendre.leggauss(48)
    if size == 3:
        z, a = (part.ravel() for part in np.meshgrid(x, turn, indexing="ij"))
        r = np.sqrt(1 - z * z)
        points = np.column_stack([r * np.cos(a), r * np.sin(a), z])
        return RADIUS * points, np.repeat(w, turn.size)
    u, a, b = (part.ravel() for part in np.meshgrid(x, turn, turn, indexing="ij"))
    one, two = np.sqrt((1 + u) / 2), np.sqrt((1 - u) / 2)
    points = [one * np.cos(a), one * np.sin(a), two * np.cos(b), two * np.sin(b)]
    return RADIUS * np.column_stack(points), np.repeat(w, turn.size**2)


ENERGIES = {"chain": chain_energy, "network": net_energy}


@cache
def on_sphere(name):
    """System ``name`` with its weights on one sphere about the origin."""
    flat = SYSTEMS[name]()
    U = flat.potential
    energy = ENERGIES.get(name, U.energy)
    if name == "network":  # as one tensor
        U = potentials.Custom(4, net_energy, net_gradient, name="network")
    points, weights = sphere(flat.size)
    heights = energy(points)

    def law(T):
        found = weights * np.exp((heights.min() - heights) / T)
        return found / found.sum()

    def draw(n, T, rng):
        return points[rng.choice(len(points), n, p=law(T))]

    known = flat.observe(points)
    return replace(flat, potential=U, exact=lambda T: law(T) @ known, sample=draw,
                   hessian=None, degrees=flat.size - 1)  # fmt: skip


# --- a run and its residuals -------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a method is run: replicas a temperature (and step), steps, their lengths."""

    replicas: int = 500
    burn: int = 80
    samples: int = 50
    every: int = 6
    scale: float = 1.0
    overdamped: bool = False
    momenta: bool = True
    wrap: Callable[[System, np.ndarray, np.ndarray], Potential] | None = None


def lengths(system, plan, halves):
    """Temperature and time step of every replica: (halves, T, R) each, flat."""
    base = (system.overdamped if plan.overdamped else system.step) * plan.scale
    shape = (len(halves), len(TEMPERATURES), plan.replicas)
    T = np.broadcast_to(TEMPERATURES[:, None], shape)
    h = np.asarray(halves, float)[:, None, None] * base[:, None]
    return T.ravel(), np.broadcast_to(h, shape).ravel(), shape


def residuals(system, make, plan, halves=(1.0,), seed=1, hot=1.0):
    """Time means of observables less the exact ones: (halves, T, R, n).

    The last observable is twice the kinetic energy a weight, if momenta are asked for.
    ``hot`` multiplies the temperature that the integrator is told.
    """
    T, h, shape = lengths(system, plan, halves)
    rng = np.random.default_rng(seed)
    start = [system.sample(plan.replicas, t, rng) for _ in halves for t in TEMPERATURES]
    U = plan.wrap(system, T * hot, h) if plan.wrap else system.potential
    sim = mdnet.Simulation(
        U, make(h, T * hot), T.size, np.concatenate(start), seed=seed, backend="cpu",
        precision="double",
    )  # fmt: skip
    sim.run(plan.burn)
    total = 0.0
    for _ in range(plan.samples):
        sim.run(plan.every)
        total = total + readings(system, sim, plan.momenta)
    means = (total / plan.samples).reshape(*shape, -1)
    return means - exact(system, plan.momenta)[:, None]


def readings(system, sim, momenta):
    found = system.observe(sim.state.positions)
    if not momenta:
        return found
    twice = 2 * sim.state.kinetic_energy / (system.degrees or system.size)
    return np.column_stack([found, twice])


def exact(system, momenta):
    """(T, n), kinetic energies included."""
    rows = [system.exact(T) for T in TEMPERATURES]
    if momenta:
        rows = [np.append(row, T) for row, T in zip(rows, TEMPERATURES, strict=True)]
    return np.array(rows)


def extrapolated(parts, order):
    """Richardson's limit of results at h and 2 h, whose bias goes as h^order."""
    fine, coarse = parts
    return (2**order * fine - coarse) / (2**order - 1)


def scores(blocks):
    """|mean| in standard errors over independent blocks, (T, n) of (T, R, n)."""
    error = blocks.std(1, ddof=1) / np.sqrt(blocks.shape[1])
    return np.abs(blocks.mean(1)) / error
