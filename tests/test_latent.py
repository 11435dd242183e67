"""Latent-variable models: probabilistic PCA and the bound of an autoencoder."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.backend import Backend
from mdnet.errors import PotentialError

from .physics_tools import z_scores

RNG = np.random.default_rng(12)
MIX = RNG.normal(size=(5, 5)) * [3, 2, 1, 0.5, 0.5]
X = RNG.normal(size=(60, 5)) @ MIX + 2
PCA = potentials.ProbabilisticPCA(X, latent=2)
BACKENDS = [
    Backend("cpu", "single", np),
    Backend("cpu", "mixed", np),
    Backend("cpu", "double", np),
    Backend("cuda", "double", np, simulated=True),
]


@pytest.fixture(autouse=True)
def one_blas_thread():
    """The products here are small: threads would only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


def autoencoder(draws="cubature", **settings):
    return potentials.VariationalAutoencoder(
        potentials.MLP([5, 6, 4]), potentials.MLP([2, 7, 5]), X, draws=draws, **settings
    )


def check_evaluator(U, q, backend):
    evaluator = U.evaluator(backend, len(q), 0)
    assert evaluator.full
    rows = q.astype(backend.state_dtype)
    out, energies = np.empty(q.shape, backend.force_dtype), np.empty(len(q))
    evaluator.forces(rows, out, 0, energies)
    double = backend.precision == "double"
    gradient = U.gradient(q)
    scale = np.abs(gradient).max() * (1e-12 if double else 1e-4)
    np.testing.assert_allclose(out, -gradient, atol=scale)
    rtol = 1e-12 if double else 1e-5
    np.testing.assert_allclose(energies, U.energy(q), rtol=rtol)
    evaluator.gradients(rows, out)
    np.testing.assert_allclose(out, gradient, atol=scale)
    evaluator.energies(rows, energies)
    np.testing.assert_allclose(energies, U.energy(q), rtol=rtol)


# --- probabilistic PCA ----------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
def test_pca_evaluators(backend):
    q = PCA.initial(3, seed=1)
    assert potentials.check_gradient(PCA, q) < 1e-9
    check_evaluator(PCA, q, backend)


@pytest.mark.parametrize("latent", [1, 2, 4])
def test_pca_energy_is_the_marginal_likelihood(latent):
    from scipy.stats import multivariate_normal

    U = potentials.ProbabilisticPCA(X, latent)
    q = U.initial(3, seed=2)
    density = U.log_density(q, X)
    np.testing.assert_allclose(U.energy(q), -density.sum(axis=1), rtol=1e-12)
    for row, expected in zip(U.covariance(q), density, strict=True):
        law = multivariate_normal(X.mean(axis=0), row)
        np.testing.assert_allclose(expected, law.logpdf(X), rtol=1e-10)
    np.testing.assert_allclose(U.log_density(q[0], X), density[0])
    where, shape = U.layout["weight"]
    assert (where, shape) == (slice(0, 5 * latent), (5, latent))


@pytest.mark.parametrize("latent", [1, 2, 4])
def test_minimum_of_pca(latent):
    """W = V (L - s^2)^(1/2): no slope, the closed-form energy, and no lower start."""
    U = potentials.ProbabilisticPCA(X, latent)
    best = U.maximum_likelihood()
    assert U.energy(best) == pytest.approx(U.minimum, rel=1e-13)
    assert np.abs(U.gradient(best)).max() < 1e-10 * 60
    near = best + 0.05 * RNG.normal(size=(200, U.size))
    assert (U.energy(near) > U.minimum).all()
    sim = mdnet.Simulation(
        U, integrators.BAOAB(dt=0.01), replicas=3, backend="cpu", precision="double"
    )
    assert sim.minimize(steps=3000).min() == pytest.approx(U.minimum, abs=0.03)
    np.testing.assert_allclose(np.linalg.eigvalsh(U.covariance(best))[::-1][:latent],
                               U.eigenvalues[:latent])  # fmt: skip


def test_rotations_of_the_latent_space():
    q = PCA.initial(4, seed=3)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = PCA.rotate(q, turn)
    assert np.abs(moved - q).max() > 0.1
    np.testing.assert_allclose(PCA.energy(moved), PCA.energy(q), rtol=1e-13)
    np.testing.assert_allclose(
        PCA.gradient(moved), PCA.rotate(PCA.gradient(q), turn), rtol=1e-9, atol=1e-9
    )
    # A stretch is none.
    stretched = q.copy()
    stretched[:, :-1] *= 1.1
    assert (np.abs(PCA.energy(stretched) - PCA.energy(q)) > 0.1).all()


def test_latent_posterior():
    """Bayes: ln p(x|z) + ln p(z) - ln p(z|x) = ln p(x), whatever z."""
    from scipy.stats import multivariate_normal

    q = PCA.initial(1, seed=4)[0]
    weight, noise = q[:-1].reshape(5, 2), np.exp(q[-1])
    mean, covariance = PCA.latent_posterior(q, X)
    z, x, i = np.array([0.3, -1.2]), X[7], 7
    total = (
        multivariate_normal(weight @ z + PCA.mean, noise**2).logpdf(x)
        + multivariate_normal(np.zeros(2), 1.0).logpdf(z)
        - multivariate_normal(mean[i], covariance).logpdf(z)
    )
    assert total == pytest.approx(PCA.log_density(q, X)[i], rel=1e-12)
    assert PCA.latent_posterior(q[None], X)[0].shape == (1, 60, 2)


@pytest.mark.physics
def test_directions_of_the_pca_posterior():
    """<U> - U_min = T/2 for each direction that counts: D k + 1 less one rotation.

    N = 4000 of 3 columns and k = 2: 6 of 7 parameters; 5 errors (false alarm 6e-7),
    next terms are O(1/N).  All 7 are many errors away.
    """
    data = np.random.default_rng(2).normal(size=(4000, 3)) * [3.0, 2.0, 1.0]
    U, T = potentials.ProbabilisticPCA(data, latent=2), 1.5
    start = U.maximum_likelihood()
    sim = mdnet.Simulation(
        U,
        integrators.BAOAB(dt=0.008, temperature=T, friction=15.0),
        replicas=150,
        positions=np.tile(start, (150, 1)),
        seed=5,
        backend="cpu",
        precision="double",
    )
    sim.run(200)
    record = reporters.Memory(10, positions=False)
    sim.run(1500, reporters=[record])
    above = record["potential_energy"].value[1:].mean(axis=0) - U.minimum
    assert z_scores(above, 3 * T) < 5
    assert z_scores(above, 3.5 * T) > 8


# --- the bound of an autoencoder ------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
@pytest.mark.parametrize("draws", ["cubature", 3])
def test_bound_evaluators(draws, backend):
    U = autoencoder(draws)
    q = U.initial(2, seed=1)
    assert potentials.check_gradient(U, q[:1], directions=20) < 1e-7
    check_evaluator(U, q, backend)
    expected = U.prior.energy(q, U.layout) - U.bound(q).sum(axis=1)
    np.testing.assert_allclose(U.energy(q), expected, rtol=1e-12)


def test_bound_of_bits():
    bits = (X[:, :3] > 2).astype(float)
    U = potentials.VariationalAutoencoder(
        potentials.MLP([3, 2], "identity"),
        potentials.MLP([1, 4, 3]),
        bits,
        likelihood="bernoulli",
        prior=None,
        draws=2,
        seed=7,
    )
    q = U.initial(2, seed=1)
    assert potentials.check_gradient(U, q) < 1e-7
    p = U.decode(q, np.zeros((4, 1)))
    assert p.shape == (2, 4, 3)
    assert ((p > 0) & (p < 1)).all()
    mean, width = U.encode(q, bits)
    assert mean.shape == width.shape == (2, 60, 1)
    # By hand, one datum and replica.
    epsilon = U.points()[:, 4]
    total = -0.5 * (mean[1, 4] ** 2 + width[1, 4] ** 2 - 1 - 2 * np.log(width[1, 4]))
    for e in epsilon:
        on = U.decode(q[1], (mean[1, 4] + width[1, 4] * e)[None])[0]
        total += np.log(np.where(bits[4] == 1, on, 1 - on)).sum() / 2
    assert U.bound(q)[1, 4] == pytest.approx(float(total[0]), rel=1e-10)


def linear(sigma=0.7, **settings):
    """Linear networks: p(x) is Gaussian, and so is the posterior of z."""
    return potentials.VariationalAutoencoder(
        potentials.MLP([5, 4]),
        potentials.MLP([2, 5]),
        X,
        likelihood=potentials.likelihoods.Gaussian(noise=sigma),
        **settings,
    )


def gaussian_kl(mean, width, exact_mean, exact_covariance):
    """KL of N(mean, diag width^2) from N(exact_mean, exact_covariance)."""
    inverse = np.linalg.inv(exact_covariance)
    off = mean - exact_mean
    return 0.5 * (
        (width**2 @ np.diag(inverse))
        + np.einsum("nk,kl,nl->n", off, inverse, off)
        - off.shape[1]
        + np.linalg.slogdet(exact_covariance)[1]
        - 2 * np.log(width).sum(axis=1)
    )


def test_bound_and_divergence_make_the_evidence():
    """ELBO + KL(q(z|x) | p(z|x)) = ln p(x) to rounding, for each datum.

    Points that are not centred, or the divergence the other way round, break it.
    """
    from scipy.stats import multivariate_normal

    U = linear()
    q = U.initial(1, seed=5)[0] + 0.1 * RNG.normal(size=U.size)
    at = U.encoder.size
    where, shape = U.decoder.layout["0.weight"]
    weight = q[at:][where].reshape(shape)
    offset = q[at:][U.decoder.layout["0.bias"][0]]
    evidence = multivariate_normal(offset, weight @ weight.T + 0.49 * np.eye(5))
    M = weight.T @ weight + 0.49 * np.eye(2)
    exact_mean = (X - offset) @ weight @ np.linalg.inv(M)
    mean, width = U.encode(q, X)
    kl = gaussian_kl(mean, width, exact_mean, 0.49 * np.linalg.inv(M))
    assert (kl > 0).all()
    np.testing.assert_allclose(U.bound(q) + kl, evidence.logpdf(X), rtol=1e-11)
    few = linear(draws=2)
    assert np.abs(few.bound(q) + kl - evidence.logpdf(X)).max() > 0.1


def test_best_linear_autoencoder_is_pca():
    """At W, sigma of probabilistic PCA, with the exact encoder, U is its minimum."""
    best = PCA.maximum_likelihood()
    weight, noise = best[:-1].reshape(5, 2), float(np.exp(best[-1]))
    U = linear(sigma=noise, prior=None)
    M = weight.T @ weight + noise**2 * np.eye(2)  # diagonal there
    read = np.linalg.solve(M, weight.T)
    log_width = 0.5 * np.log(noise**2 / np.diag(M))
    encoder = np.vstack([read, np.zeros((2, 5))]).ravel()
    bias = np.concatenate([-read @ PCA.mean, log_width])
    q = np.concatenate([encoder, bias, weight.ravel(), PCA.mean])
    assert U.energy(q) == pytest.approx(PCA.minimum, rel=1e-12)
    assert np.abs(U.gradient(q)).max() < 1e-9
    assert (U.energy(q + 0.03 * RNG.normal(size=(50, U.size))) > PCA.minimum).all()


@pytest.mark.physics
def test_fresh_noise_is_unbiased():
    """Forces of 2000 calls average to that of the exact bound; 5 errors of 20 + 1.

    Points of twice the spread must fail.
    """
    exact, U = linear(prior=None), linear(draws=1, noise="fresh", prior=None)
    q = exact.initial(1, seed=6)
    evaluator = U.evaluator(BACKENDS[2], 1, seed=3)
    assert not evaluator.full
    forces, energies = np.empty((2000, 1, U.size)), np.empty((2000, 1))
    for call in range(2000):
        evaluator.forces(q, forces[call], call, energies[call])
    some = slice(None, None, 2)
    expected = -exact.gradient(q)[0, some]
    assert z_scores(forces[:, 0, some], expected).max() < 5
    assert z_scores(energies[:, 0], exact.energy(q)[0]) < 5
    wide = linear(prior=None)
    wide.points = lambda call=None, seed=None: 2 * exact.points()
    assert z_scores(energies[:, 0], wide.energy(q)[0]) > 10
    # Counters: the same call is the same force, another seed is another.
    again = np.empty((1, U.size))
    U.evaluator(BACKENDS[2], 1, seed=3).forces(q, again, 17)
    np.testing.assert_array_equal(again, forces[17])
    U.evaluator(BACKENDS[2], 1, seed=4).forces(q, again, 17)
    assert np.abs(again - forces[17]).max() > 1e-3
    # Energies and gradients stay those of the fixed points.
    np.testing.assert_array_equal(U.energy(q), linear(draws=1, prior=None).energy(q))


def test_layout_and_run():
    U = autoencoder(2)
    assert next(iter(U.layout)) == "encoder.0.weight"
    assert list(U.layout)[-1] == "decoder.1.bias"
    ends = [(where.start, where.stop) for where, _ in U.layout.values()]
    assert [a for a, _ in ends[1:]] == [b for _, b in ends[:-1]]
    assert ends[-1][1] == U.size
    sim = mdnet.Simulation(U, integrators.BAOAB(dt=0.01), replicas=2, backend="cpu")
    energies = sim.minimize(steps=100)
    assert np.isfinite(energies).all()
    sim.run(5)
    assert U.describe() != autoencoder(3).describe()


# --- errors ---------------------------------------------------------------------------

LEARNED = potentials.likelihoods.Gaussian(potentials.scales.HalfNormal(1.0))
FLAT = potentials.ProbabilisticPCA(X[:, [0, 0, 0]], 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: potentials.ProbabilisticPCA(X[0], 1), r"X has shape \(5,\)"),
        (lambda: potentials.ProbabilisticPCA(X, 5), "latent=5: expected fewer"),
        (lambda: potentials.ProbabilisticPCA(X * np.nan, 2), "not finite"),
        (
            lambda: potentials.ProbabilisticPCA(
                X[:, [0, 0, 0]], 1
            ).maximum_likelihood(),
            "without end",
        ),
        (lambda: PCA.rotate(PCA.initial(1), np.ones((2, 2))), "orthogonal"),
        (lambda: PCA.log_density(PCA.initial(1), X[:, :2]), r"\(n, 5\)"),
        (lambda: autoencoder(0), "draws=0"),
        (lambda: autoencoder(likelihood=LEARNED), "parameter to be learned"),
        (lambda: autoencoder(noise="new"), "noise='new'"),
        (
            lambda: potentials.VariationalAutoencoder(
                potentials.MLP([5, 3]), potentials.MLP([2, 5]), X
            ),
            r"5 -> 2 k",
        ),
        (lambda: potentials.VariationalAutoencoder(1, 2, X), "encoder=1"),
        (lambda: autoencoder().encode(np.zeros(3), X), r"\(R, "),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
