"""Harmonic restraints: gradients, biased laws, and averages with the bias undone."""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.backend import Backend
from mdnet.errors import PotentialError

from .physics_tools import z_scores

RNG = np.random.default_rng(3)
X, LABELS = RNG.normal(size=(15, 3)), np.arange(15) % 2
U = potentials.Posterior(potentials.MLP([3, 4, 2]), data=(X, LABELS))
Q = RNG.normal(size=(4, U.size))
V = RNG.normal(size=U.size)
BACKENDS = [
    Backend("cpu", "single", np),
    Backend("cpu", "mixed", np),
    Backend("cpu", "double", np),
    Backend("cuda", "double", np, simulated=True),
]
K = np.array([1.0, 2.0, 4.0])
SPRINGS = potentials.Harmonic(K, center=0.3)


def coordinates():
    return {
        "projection": potentials.Projection(V, origin=Q[0]),
        "norm": potentials.TensorNorm(U.layout, ["0.weight", "1.bias"]),
        "energy": U,
    }


# --- coordinates and gradients --------------------------------------------------------


def test_coordinates():
    projection, norm, _ = coordinates().values()
    np.testing.assert_allclose(projection.energy(Q), (Q - Q[0]) @ V, atol=1e-14)
    np.testing.assert_array_equal(projection.gradient(Q), np.tile(V, (4, 1)))
    parts = [U.layout[name][0] for name in ("0.weight", "1.bias")]
    chosen = np.concatenate([Q[:, part] for part in parts], axis=1)
    np.testing.assert_allclose(norm.energy(Q), np.linalg.norm(chosen, axis=1))
    assert list(norm.layout) == list(U.layout)
    assert (norm.gradient(np.zeros(U.size)) == 0).all()
    for coordinate in (projection, norm):
        assert potentials.check_gradient(coordinate, Q) < 1e-9


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
@pytest.mark.parametrize("name", coordinates())
def test_restraints(name, backend):
    xi = coordinates()[name]
    if backend.name == "cuda" and xi is U:
        pytest.skip("a network on a device: tests/test_cuda.py")
    W = potentials.Restraint(xi, center=2.0, stiffness=0.5)
    assert potentials.check_gradient(W, Q) < 1e-8
    value = xi.energy(Q)
    np.testing.assert_allclose(W.energy(Q), 0.25 * (value - 2) ** 2, rtol=1e-12)
    np.testing.assert_allclose(W.bias(value), W.energy(Q), rtol=1e-12)
    np.testing.assert_array_equal(W.value(Q), value)
    evaluator = W.evaluator(backend, 4, 0)
    rows = Q.astype(backend.state_dtype)
    out, energies = np.empty(Q.shape, backend.force_dtype), np.empty(4)
    evaluator.forces(rows, out, 0, energies)
    tolerance = 1e-11 if backend.precision == "double" else 3e-4
    np.testing.assert_allclose(out, -W.gradient(Q), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(energies, W.energy(Q), rtol=tolerance)
    evaluator.forces(rows, out, 1)
    np.testing.assert_allclose(out, -W.gradient(Q), rtol=tolerance, atol=tolerance)
    evaluator.gradients(rows, out)
    np.testing.assert_allclose(out, W.gradient(Q), rtol=tolerance, atol=tolerance)


def test_energy_umbrella_is_the_sum_in_one_call():
    center = U.energy(Q).mean()
    apart = U + potentials.Restraint(U, center, 0.3)
    once = potentials.EnergyUmbrella(U, center, 0.3)
    np.testing.assert_allclose(once.energy(Q), apart.energy(Q))
    np.testing.assert_allclose(once.gradient(Q), apart.gradient(Q))
    assert potentials.check_gradient(once, Q) < 1e-8
    np.testing.assert_array_equal(once.predict(Q, X), U.predict(Q, X))
    np.testing.assert_array_equal(apart.predict(Q, X), U.predict(Q, X))
    assert dict(apart.layout) == dict(once.layout) == dict(U.layout)
    np.testing.assert_array_equal(once.initial(2), U.initial(2))


def test_a_restrained_minibatch_uses_all_data():
    """E[xi_B grad xi_B] is not xi grad xi, whatever the batches."""
    batches = U.minibatch(3)
    W = potentials.Restraint(batches, 10.0, 0.3)
    evaluator = W.evaluator(BACKENDS[2], 4, 1)
    assert evaluator.full
    out, energies = np.empty(Q.shape), np.empty(4)
    evaluator.forces(Q, out, 7, energies)
    full = potentials.Restraint(U, 10.0, 0.3)
    np.testing.assert_allclose(out, -full.gradient(Q))
    np.testing.assert_allclose(energies, full.energy(Q))
    # What is restrained may use batches beside it.
    assert not (batches + potentials.Restraint(V)).evaluator(BACKENDS[2], 4).full


def test_windows_one_a_replica():
    centers, stiffness = np.array([-1.0, 0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0, 4])
    W = potentials.Restraint(V, centers, stiffness)
    for r in range(4):
        alone = potentials.Restraint(V, centers[r], stiffness[r])
        assert W.energy(Q)[r] == pytest.approx(alone.energy(Q[r]))
        np.testing.assert_allclose(W.gradient(Q)[r], alone.gradient(Q[r]))
    values = RNG.normal(size=(7, 4))
    np.testing.assert_allclose(
        W.bias(values), 0.5 * stiffness * (values - centers) ** 2
    )
    with pytest.raises(PotentialError, match=r"4 windows and there are 3 replicas"):
        W.energy(Q[:3])


def test_nothing_is_allocated_per_call():
    import tracemalloc

    size = 200_000
    for xi in (
        potentials.Projection(np.ones(size)),
        potentials.TensorNorm({"q": (slice(0, size), (size,))}, "q"),
        potentials.DoubleWell(size=size),
    ):
        for backend in BACKENDS[:3:2]:
            evaluator = potentials.Restraint(xi, 1.0, 2.0).evaluator(backend, 2, 0)
            q, energies = np.ones((2, size), backend.state_dtype), np.empty(2)
            out = np.empty((2, size), backend.force_dtype)
            evaluator.forces(q, out, 0, energies)
            tracemalloc.start()
            evaluator.forces(q, out, 1, energies)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 400_000  # buffers of casts; one row of q is larger


def test_describe():
    W = potentials.Restraint([1.0, 2.0], 0.5, [1.0, 2.0])
    assert W.describe() == {
        "kind": "Restraint",
        "center": 0.5,
        "stiffness": [1.0, 2.0],
        "coordinate": {"kind": "Projection", "direction": [1.0, 2.0], "origin": 0.0},
    }


def test_a_moving_restraint():
    """As the docstring says: a shifted restraint and a constant."""
    start, end = (potentials.Restraint([1.0, 1.0], c, 3.0) for c in (-1.0, 2.0))
    path = potentials.interpolate(start, end)
    q = RNG.normal(size=(5, 2))
    for lam in (0.25, 0.5):
        there = potentials.Restraint([1.0, 1.0], -1.0 + 3.0 * lam, 3.0)
        above = 3.0 * lam * (1 - lam) * 3.0**2 / 2
        np.testing.assert_allclose(path.at(lam).energy(q), there.energy(q) + above)
        np.testing.assert_allclose(path.at(lam).gradient(q), there.gradient(q))


# --- sampled, against closed forms ----------------------------------------------------


def sample(potential, temperature=1.0, dt=0.2, steps=3000, replicas=100, seed=1):
    sim = mdnet.Simulation(
        potential,
        integrators.BAOAB(dt=dt, temperature=temperature, friction=1.5),
        replicas=replicas,
        seed=seed,
        backend="cpu",
        precision="double",
    )
    sim.run(300)
    record = reporters.Memory(5)
    sim.run(steps, reporters=[record])
    return record.positions[1:]


@pytest.mark.physics
def test_a_restrained_spring_chain():
    """Mean and variance of the coordinate within 5 errors (false alarm 1e-6).

    BAOAB's positions are exact on quadratic energies at any dt.  Undoing the bias must
    give the means of the springs alone; weights of the wrong sign must not.
    """
    v, kappa, c, T = np.array([1.0, -1.0, 0.5]), 0.3, 4.0, 0.7
    W = potentials.Restraint(v, c, kappa)
    q = sample(SPRINGS + W, temperature=T)
    stiffness = np.diag(K) + kappa * np.outer(v, v)
    mean = np.linalg.solve(stiffness, K * 0.3 + kappa * c * v)
    covariance = T * np.linalg.inv(stiffness)
    xi = q @ v
    found = np.stack([xi, (xi - v @ mean) ** 2], axis=-1).mean(axis=0)
    assert z_scores(found, [v @ mean, v @ covariance @ v]).max() < 5
    assert z_scores(found, [v.sum() * 0.3, v @ (T / K * v)]).min() > 20
    log_weights = W.log_weights(q.reshape(-1, 3), temperature=T)
    for sign, limits in ((1, (0, 5)), (-1, (20, np.inf))):
        w = np.exp(sign * (log_weights - log_weights.mean())).reshape(*q.shape[:2], 1)
        deviation = z_scores((w * (q - 0.3)).mean(axis=0), np.zeros(3)).max()
        assert limits[0] <= deviation < limits[1]


@pytest.mark.physics
def test_a_restrained_norm():
    """Density r^{n-1} e^{-(k r^2/2 + W(r))/T} by quadrature; 5 errors, dt^2 bias 1e-3.

    Without the Jacobian r^{n-1} the answer is tens of errors away.
    """
    n, k, kappa, c, T = 6, 1.0, 4.0, 4.0, 1.3
    springs = potentials.Harmonic(k, size=n)
    W = potentials.Restraint(potentials.TensorNorm(springs.layout, "q"), c, kappa)
    r = np.linalg.norm(sample(springs + W, temperature=T, dt=0.1), axis=-1)
    grid = np.linspace(1e-3, 10, 20_001)
    log_p = -(k * grid**2 / 2 + W.bias(grid)) / T

    def moments(power):
        p = grid**power * np.exp(log_p - log_p.max())
        return [(p * grid).sum() / p.sum(), (p * grid**2).sum() / p.sum()]

    found = np.stack([r, r * r], axis=-1).mean(axis=0)
    assert z_scores(found, moments(n - 1)).max() < 5
    assert z_scores(found, moments(0)).min() > 20


@pytest.mark.physics
def test_an_energy_umbrella():
    """<U> on D springs, whose density of states is U^{D/2 - 1}; 5 errors.

    The window lies far above the energy D T/2 of the springs alone.
    """
    size, T, c, kappa = 8, 1.0, 12.0, 0.5
    springs = potentials.Harmonic([0.5, 1.0, 2.0, 4.0] * 2)
    E = potentials.EnergyUmbrella(springs, c, kappa)
    q = sample(E, temperature=T, dt=0.05, steps=4000)
    energy = springs.energy(q.reshape(-1, size)).reshape(q.shape[:2])
    grid = np.linspace(1e-4, 40, 20_001)

    def mean(power):
        log_p = power * np.log(grid) - (grid + E.bias(grid)) / T
        p = np.exp(log_p - log_p.max())
        return (p * grid).sum() / p.sum()

    assert z_scores(energy.mean(0), mean(size / 2 - 1)) < 5
    assert z_scores(energy.mean(0), mean(0)) > 20
    assert z_scores(energy.mean(0), size * T / 2) > 20


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: potentials.Restraint(np.sin), r"potentials\.Custom"),
        (lambda: potentials.Restraint(np.zeros(3)), "not all zero"),
        (lambda: potentials.Restraint(np.ones((2, 2))), r"\(2, 2\)"),
        (lambda: potentials.Restraint([1.0], stiffness=0.0), "stiffness=0.0"),
        (lambda: potentials.Restraint([1.0], center=np.nan), "center"),
        (lambda: potentials.Restraint([1.0], [0.0, 1], [1.0, 2, 3]), r"\(2,\).*\(3,\)"),
        (lambda: potentials.Projection([1.0, 2], origin=[1.0, 2, 3]), "origin"),
        (lambda: potentials.TensorNorm(U.layout, "2.bias"), r"'2\.bias'.*0\.weight"),
        (lambda: potentials.EnergyUmbrella(3.0, 1.0), "not a potential"),
        (lambda: U + potentials.Restraint([1.0, 2.0]), r"sizes \[26, 2\]"),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
