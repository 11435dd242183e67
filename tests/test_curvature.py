"""Hessian-vector products, Laplacians and moments of gradients: exact answers."""

import numpy as np
import pytest

from mdnet import backend, observables, potentials
from mdnet.errors import PotentialError
from mdnet.potentials import (
    MLP,
    Activation,
    Conv2d,
    Custom,
    Dense,
    Embedding,
    FilterResponseNorm,
    Flatten,
    GaussianPrior,
    LaplacePrior,
    LayerNorm,
    MaxPool2d,
    Posterior,
    Residual,
    SequenceMean,
    Sequential,
    StudentTPrior,
    curvature,
    likelihoods,
)
from mdnet.potentials.curvature import (
    gradient_moments,
    hessian_vector,
    laplacian,
    per_example_gradients,
)
from mdnet.potentials.scales import HalfCauchy

RNG = np.random.default_rng(0)
X6, IMAGES = RNG.standard_normal((12, 6)), RNG.standard_normal((6, 2, 6, 6))
CLASSES, REALS = RNG.integers(0, 3, 12), RNG.standard_normal((12, 3))
YES = RNG.integers(0, 2, (12, 1))
COUNTS = RNG.integers(0, 5, 12)
WEIGHTS = RNG.uniform(0.5, 2, 12)
TOKENS = RNG.integers(0, 9, (8, 5))


def convolutional():
    body = Residual(
        Conv2d(3, 3, 3, padding=1), LayerNorm((3, 4, 4)), Activation("silu")
    )
    return Sequential(
        [
            Conv2d(2, 3, 3), Activation("tanh"), body,
            FilterResponseNorm(3, threshold=False), Flatten(), Dense(48, 3),
        ],
        (2, 6, 6),
    )  # fmt: skip


def sentences():
    return Sequential(
        [Embedding(9, 4), LayerNorm(4), SequenceMean(), Dense(4, 3)], input_shape=5
    )


PROBLEMS = {
    "categorical": lambda: Posterior(
        MLP([6, 5, 3], "tanh"), prior=GaussianPrior(0.7), data=(X6, CLASSES)
    ),
    "smoothed": lambda: Posterior(
        MLP([6, 5, 3], "elu"), likelihoods.Categorical(label_smoothing=0.1),
        data=(X6, CLASSES), weights=WEIGHTS,
    ),
    "gaussian": lambda: Posterior(
        MLP([6, 5, 3], "gelu"), likelihoods.Gaussian(noise=0.5), StudentTPrior(),
        data=(X6, REALS), likelihood_temperature=2.0,
    ),
    "bernoulli": lambda: Posterior(
        MLP([6, 5, 1], "sigmoid"), "bernoulli", LaplacePrior(), data=(X6, YES),
        weights=WEIGHTS, likelihood_temperature=0.5,
    ),
    "poisson": lambda: Posterior(
        MLP([6, 5, 1], "silu", bias=False), "poisson", None, data=(X6, COUNTS)
    ),
    "sampled_noise": lambda: Posterior(
        MLP([6, 5, 3], "softplus"), likelihoods.Gaussian(noise=HalfCauchy(1.0)),
        data=(X6, REALS), weights=WEIGHTS,
    ),
    "images": lambda: Posterior(convolutional(), data=(IMAGES, CLASSES[:6])),
    "sentences": lambda: Posterior(
        sentences(), data=(TOKENS, CLASSES[:8])
    ),
}  # fmt: skip


def points(U, seed=1):
    rng = np.random.default_rng(seed)
    q = U.initial(2, seed=1)
    q = q + 0.1 * rng.standard_normal(q.shape)
    v = rng.standard_normal(q.shape)
    return q, v / np.linalg.norm(v, axis=1, keepdims=True)


@pytest.mark.parametrize("name", PROBLEMS)
def test_hessian_vector_is_the_derivative_of_the_gradient(name):
    U = PROBLEMS[name]()
    q, v = points(U)
    h = 1e-4
    numeric = (U.gradient(q + h * v) - U.gradient(q - h * v)) / (2 * h)
    found = hessian_vector(U, q, v)
    np.testing.assert_allclose(
        found, numeric, rtol=1e-5, atol=1e-6 * np.abs(found).max()
    )
    np.testing.assert_array_equal(hessian_vector(U, q[0], v[0]), found[0])


def test_a_missing_term_would_be_seen(monkeypatch):
    """Negative control: without f'' of the activations, or without the prior."""
    U = PROBLEMS["categorical"]()
    q, v = points(U)
    exact = hessian_vector(U, q, v)
    flat = Posterior(U.network, prior=None, data=(X6, CLASSES))
    assert np.abs(hessian_vector(flat, q, v) - exact).max() > 1e-2
    monkeypatch.setattr(
        "mdnet.potentials.activations.curvature", lambda name, x, y, xp: 0 * y
    )
    assert np.abs(hessian_vector(U, q, v) - exact).max() > 1e-2


@pytest.mark.parametrize("name", PROBLEMS)
def test_hessian_is_symmetric(name):
    """u.Hv = v.Hu: to rounding with closed forms, to the differences' 1e-9 without."""
    U = PROBLEMS[name]()
    q, v = points(U)
    _, u = points(U, seed=2)
    one = (u * hessian_vector(U, q, v)).sum(axis=1)
    other = (v * hessian_vector(U, q, u)).sum(axis=1)
    closed = name not in ("poisson", "sampled_noise")
    np.testing.assert_allclose(one, other, rtol=1e-11 if closed else 1e-7, atol=1e-11)


def test_linear_regression_has_its_known_hessian():
    U = Posterior(
        MLP([6, 3], bias=False), likelihoods.Gaussian(0.5), GaussianPrior(2.0),
        data=(X6, REALS),
    )  # fmt: skip
    H = np.kron(np.eye(3), X6.T @ X6 / 0.25) + np.eye(18) / 4
    q, v = points(U)
    np.testing.assert_allclose(hessian_vector(U, q, v), v @ H, rtol=1e-12, atol=1e-12)
    # The trace: signs leave the diagonal alone, so that the off-diagonal averages out.
    exact, found = np.trace(H), laplacian(U, q, probes=32, seed=3)[:, 0]
    spread = np.sqrt(2 * ((H**2).sum() - (np.diag(H) ** 2).sum()) / 32)
    assert np.abs(found - exact).max() < 5 * spread
    assert np.abs(found - 1.5 * exact).max() > 5 * spread  # negative control


def test_laplacian_is_the_sum_of_second_derivatives():
    """Averaged over the tensors' own probes: false alarms of 5 errors, below 1e-5."""
    U = PROBLEMS["categorical"]()
    q, _ = points(U)
    D = U.size
    H = np.stack([hessian_vector(U, q, np.tile(e, (2, 1))) for e in np.eye(D)], axis=1)
    exact = np.stack(
        [np.trace(H[:, w, w], axis1=1, axis2=2) for w, _ in U.layout.values()], axis=1
    )
    found = laplacian(U, q, probes=32, seed=5)
    square = H**2
    square[:, np.arange(D), np.arange(D)] = 0
    rows = [2 * square[:, w].sum(axis=(1, 2)) for w, _ in U.layout.values()]
    assert (np.abs(found - exact) < 5 * np.sqrt(np.stack(rows, axis=1) / 32)).all()
    assert (found != laplacian(U, q, probes=32, seed=6)).all()
    free = np.zeros(D)
    free[U.layout["1.weight"][0]] = 1
    some = laplacian(U, q, probes=32, seed=5, free=free)
    np.testing.assert_array_equal(some[:, [0, 1, 3]], 0)
    assert (np.abs(some - exact)[:, 2] < 5 * np.sqrt(rows[2] / 32)).all()
    # Sums over all tensors obey x.Hx with the same probes as a difference would.
    evaluator = U.evaluator(backend.resolve("cpu", "double"), 2)
    rough = np.mean(
        [observables.laplacian(evaluator, q, U.layout, np, 7, s) for s in range(32)],
        axis=0,
    )
    assert (np.abs(rough - exact) < 5 * np.sqrt(np.stack(rows, axis=1) / 32)).all()


def test_kinks_are_left_out():
    """A product sees the sides of a kink, a difference across it sees the jump."""
    net = Sequential([Dense(1, 1, bias=False), Activation("relu")], 1)
    U = Posterior(net, "gaussian", None, data=(np.ones((1, 1)), -np.ones((1, 1))))
    assert not net.smooth
    q, v = np.array([[1e-9]]), np.ones((1, 1))
    h = 1e-4
    difference = (U.gradient(q + h * v) - U.gradient(q - h * v)) / (2 * h)
    np.testing.assert_allclose(hessian_vector(U, q, v), 1.0)
    assert difference[0, 0] > 1000
    assert Sequential([Dense(1, 1), Activation("silu")], 1).smooth
    assert not Sequential([Conv2d(1, 1, 1), MaxPool2d(1), Flatten()], (1, 1, 1)).smooth


def test_sums_multiples_and_minibatches():
    U, V = PROBLEMS["categorical"](), PROBLEMS["smoothed"]()
    q, v = points(U)
    exact = 0.5 * hessian_vector(U, q, v) + 2 * hessian_vector(V, q, v)
    np.testing.assert_allclose(hessian_vector(0.5 * U + 2 * V, q, v), exact)
    np.testing.assert_array_equal(
        hessian_vector(U.minibatch(4), q, v), hessian_vector(U, q, v)
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_moments_are_those_of_single_examples(name):
    """Against the gradients of one-row posteriors, in a loop."""
    U = PROBLEMS[name]()
    q, _ = points(U)
    X, y = U._X, U._y
    alone = []
    for i in range(U.n_data):
        w = None if U.weights is None else U.weights[i : i + 1]
        one = Posterior(
            U.network, U.likelihood, U.prior, data=(X[i : i + 1], y[i : i + 1]),
            weights=w, likelihood_temperature=U.likelihood_temperature,
        )  # fmt: skip
        prior = np.zeros_like(q)
        one.parts.add_gradient(q, prior)
        alone.append(one.gradient(q) - prior)
    alone = np.stack(alone, axis=1)
    found = gradient_moments(U, q)
    np.testing.assert_allclose(found.mean, alone.mean(axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found.second, (alone**2).mean(axis=1), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(found.variance, alone.var(axis=1), rtol=1e-7, atol=1e-12)
    pieces = list(per_example_gradients(U, q))
    each = np.concatenate([g for _, g in pieces], axis=1)
    np.testing.assert_allclose(each, alone, rtol=1e-9, atol=1e-12)
    some = gradient_moments(U, q, rows=[4, 1])
    np.testing.assert_allclose(some.mean, alone[:, [4, 1]].mean(axis=1), atol=1e-12)
    assert some.count == 2


def test_slices_change_nothing(monkeypatch):
    U = PROBLEMS["images"]()
    q, v = points(U)
    whole = hessian_vector(U, q, v), gradient_moments(U, q).second
    monkeypatch.setattr(curvature, "ELEMENTS", 1)
    np.testing.assert_allclose(
        hessian_vector(U, q, v), whole[0], rtol=1e-10, atol=1e-11
    )
    np.testing.assert_allclose(gradient_moments(U, q).second, whole[1], rtol=1e-10)
    assert len(list(per_example_gradients(U, q))) == U.n_data


def test_noise_is_that_of_the_batches():
    """Variance of the force over all batches of two of four rows, and by draws."""
    from itertools import combinations, product

    net = MLP([6, 4, 3])
    U = Posterior(net, data=(X6[:4], CLASSES[:4]))
    q, _ = points(U)
    moments = gradient_moments(U, q)
    each = np.concatenate([g for _, g in per_example_gradients(U, q)], axis=1)
    for replacement, batches in (
        (False, list(combinations(range(4), 2))),
        (True, list(product(range(4), repeat=2))),
    ):
        forces = np.stack([4 / 2 * each[:, list(b)].sum(axis=1) for b in batches])
        noise = moments.noise(2, replacement)
        np.testing.assert_allclose(noise, forces.var(axis=0), rtol=1e-9, atol=1e-12)
    assert not np.allclose(moments.noise(2), moments.noise(2, replacement=True))


def test_single_precision_stays_single_and_close():
    U = PROBLEMS["images"]()
    q, _ = points(U)
    exact, found = gradient_moments(U, q), gradient_moments(U, q.astype("f4"))
    np.testing.assert_allclose(found.second, exact.second, rtol=1e-3, atol=1e-6)
    assert next(per_example_gradients(U, q.astype("f4")))[1].dtype == np.float32


def test_calls_that_do_not_fit():
    U = PROBLEMS["categorical"]()
    q, v = points(U)
    with pytest.raises(PotentialError, match="v has shape"):
        hessian_vector(U, q, v[:1])
    with pytest.raises(PotentialError, match=f"expected \\(R, {U.size}\\)"):
        hessian_vector(U, q[:, 1:], v)
    with pytest.raises(PotentialError, match="probes=33"):
        laplacian(U, q, probes=33)
    with pytest.raises(PotentialError, match="expected 0 to 11"):
        gradient_moments(U, q, rows=[12])
    with pytest.raises(PotentialError, match="row numbers"):
        gradient_moments(U, q, rows=[0.5])
    flat = Custom(size=3, energy=lambda q: q.sum(axis=1), gradient=np.ones_like)
    for call in (hessian_vector, lambda U, q, v: gradient_moments(U, q)):
        with pytest.raises(PotentialError, match="Posterior of an MLP"):
            call(flat, np.ones((1, 3)), np.ones((1, 3)))
    assert potentials.curvature is curvature
