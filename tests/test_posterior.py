"""Posterior energies and gradients: formulas, engines, replicas, threads, errors."""

import math
import pickle

import numba
import numpy as np
import pytest
from scipy import stats

from mdnet.backend import resolve
from mdnet.errors import PotentialError
from mdnet.kernels.codes import ACTIVATIONS
from mdnet.potentials import evaluators
from mdnet.potentials.evaluators import ArrayEvaluator, Batch, DenseEvaluator
from mdnet.potentials.likelihoods import Bernoulli, Categorical, Gaussian
from mdnet.potentials.networks import MLP
from mdnet.potentials.posterior import Posterior
from mdnet.potentials.priors import GaussianPrior, LaplacePrior, StudentTPrior

DOUBLE, SINGLE = resolve("cpu", "double"), resolve("cpu", "single")
PRIORS = [
    GaussianPrior(0.7),
    LaplacePrior(0.3),
    StudentTPrior(4.0, 0.5),
    None,
]
LIKELIHOODS = ["categorical", Gaussian(0.4), "bernoulli"]


def _data(likelihood, n, inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, inputs))
    if likelihood == "categorical":
        return X, rng.integers(0, outputs, n)
    if likelihood == "bernoulli":
        return X, rng.integers(0, 2, (n, outputs))
    return X, rng.normal(size=(n, outputs))


def _posterior(
    sizes=(5, 7, 6, 3),
    activation="tanh",
    likelihood="categorical",
    prior=PRIORS[0],
    n=40,
):
    data = _data(likelihood, n, sizes[0], sizes[-1])
    bias = activation != "silu"  # both kinds of layers
    return Posterior(MLP(sizes, activation, bias), likelihood, prior, data)


def _weights(U, replicas=2, seed=1):
    jitter = 0.1 * np.random.default_rng(seed).normal(size=(replicas, U.size))
    return U.initial(replicas, seed) + jitter


def _run(engine, U, q, backend, batch=None, call=3):
    """Force, its energy, exact energy and gradient."""
    evaluator = engine(U, backend, len(q), 5, batch)
    q = q.astype(backend.state_dtype)
    force = np.empty(q.shape, backend.force_dtype)
    gradient = np.empty_like(force)
    estimate, energy = np.empty(len(q)), np.empty(len(q))
    evaluator.forces(q, force, call, estimate)
    evaluator.energies(q, energy)
    evaluator.gradients(q, gradient)
    return force, estimate, energy, gradient


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_is_the_derivative_of_the_energy(activation, likelihood, prior):
    U = _posterior((3, 4, 2), activation, likelihood, prior, n=9)
    q, h = _weights(U, 1), 1e-5
    steps = h * np.eye(U.size)
    numeric = (U.energy(q + steps) - U.energy(q - steps)) / (2 * h)
    exact = U.gradient(q)[0]
    np.testing.assert_allclose(exact, numeric, atol=1e-6 * np.abs(numeric).max())
    # Negative control: one lost row of the data is seen.
    X, y = _data(likelihood, 9, 3, 2)
    fewer = Posterior(U.network, likelihood, prior, (X[1:], y[1:]))
    assert np.abs(fewer.gradient(q)[0] - numeric).max() > 1e-5 * np.abs(numeric).max()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_compiled_engine_equals_reference(activation, likelihood, prior):
    """Chunks with and without remainder, wide and narrow inputs, 1 to 3 layers."""
    for sizes in ((5, 7, 6, 3), (50, 9, 2), (3, 1)):
        U = _posterior(sizes, activation, likelihood, prior, n=300)
        q = _weights(U, 3)
        for batch in (None, Batch(70)):
            for backend, tolerance in ((DOUBLE, 1e-12), (SINGLE, 1e-5)):
                a = _run(DenseEvaluator, U, q, backend, batch)
                b = _run(ArrayEvaluator, U, q, backend, batch)
                for one, other in zip(a, b, strict=True):
                    scale = np.abs(other).max()
                    np.testing.assert_allclose(one, other, atol=tolerance * scale)


def test_odd_widths_equal_reference():
    """Tiles of every kind: several heights, edges, pieces of many inputs."""
    for sizes in ((161, 37, 33, 1), (400, 1, 13, 25), (2, 20, 20, 1), (32, 64, 2)):
        U = _posterior(sizes, n=170)
        q = _weights(U)
        for batch in (None, Batch(19)):
            for backend, tolerance in ((DOUBLE, 1e-12), (SINGLE, 2e-5)):
                a = _run(DenseEvaluator, U, q, backend, batch)
                b = _run(ArrayEvaluator, U, q, backend, batch)
                for one, other in zip(a, b, strict=True):
                    scale = np.abs(other).max()
                    np.testing.assert_allclose(one, other, atol=tolerance * scale)


def test_arrays_with_gaps():
    """Weights, forces, energies and data need not lie in one piece."""
    X, y = _data("categorical", 90, 50, 3)
    net = MLP([50, 7, 3])
    plain = Posterior(net, "categorical", data=(X, y))
    wide = np.zeros((90, 100))
    wide[:, ::2] = X
    q = _weights(plain, 4)
    expected = _run(DenseEvaluator, plain, q, DOUBLE, Batch(30))
    for data in (np.asfortranarray(X), wide[:, ::2]):
        U = Posterior(net, "categorical", data=(data, y))
        for a, b in zip(
            _run(DenseEvaluator, U, q, DOUBLE, Batch(30)), expected, strict=True
        ):
            np.testing.assert_array_equal(a, b)
    evaluator = DenseEvaluator(plain, DOUBLE, 4, 5, Batch(30))
    gaps = np.repeat(q, 2, axis=1)[:, ::2]
    out, energies = np.zeros((4, 2 * q.shape[1]))[:, ::2], np.zeros(8)[::2]
    evaluator.forces(gaps, out, 3, energies)
    np.testing.assert_array_equal(out, expected[0])
    np.testing.assert_array_equal(energies, expected[1])
    evaluator.energies(gaps, energies)
    np.testing.assert_array_equal(energies, expected[2])


def test_mixed_precision():
    U = _posterior(n=200)
    mixed = resolve("cpu", "mixed")
    q = _weights(U).astype(np.float32).astype(np.float64)
    a, b = _run(DenseEvaluator, U, q, mixed), _run(DenseEvaluator, U, q, SINGLE)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)
    assert a[0].dtype == np.float32
    wide = np.empty(q.shape)
    DenseEvaluator(U, mixed, 2, 0).gradients(q, wide)
    np.testing.assert_array_equal(wide, a[3])


@pytest.mark.parametrize(
    ("prior", "law"),
    [
        (GaussianPrior(0.7), stats.norm(scale=0.7)),
        (LaplacePrior(0.3), stats.laplace(scale=0.3)),
        (StudentTPrior(4.0, 0.5), stats.t(df=4.0, scale=0.5)),
    ],
)
def test_energy_has_every_constant(prior, law):
    """Against scipy's normalised densities."""
    for likelihood in LIKELIHOODS:
        U = _posterior((3, 4, 2), "tanh", likelihood, prior, n=9)
        q = _weights(U)
        X, y = _data(likelihood, 9, 3, 2)
        z = U.network.forward(q, X)
        if likelihood == "categorical":
            p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
            expected = np.log(p[:, np.arange(9), y])
        elif likelihood == "bernoulli":
            expected = stats.bernoulli(1 / (1 + np.exp(-z))).logpmf(y).sum(axis=2)
        else:
            expected = stats.norm(z, 0.4).logpdf(y).sum(axis=2)
        energy = -expected.sum(axis=1) - law.logpdf(q).sum(axis=1)
        np.testing.assert_allclose(U.energy(q), energy, rtol=1e-12)
        np.testing.assert_allclose(U.log_likelihood(q, X, y), expected, rtol=1e-12)
        np.testing.assert_allclose(U.energy(q.astype(np.float32)), energy, rtol=1e-6)
        flat = Posterior(U.network, likelihood, None, (X, y))
        np.testing.assert_allclose(flat.energy(q), -expected.sum(axis=1), rtol=1e-12)


def test_energy_is_a_sum_over_data():
    X, y = _data("categorical", 40, 5, 3)
    net, prior = MLP([5, 4, 3]), GaussianPrior(1.0)
    parts = [
        Posterior(net, "categorical", prior, (X[a:b], y[a:b]))
        for a, b in ((0, 15), (15, 40), (0, 40))
    ]
    q = _weights(parts[2])
    first, second, whole = (U.energy(q) for U in parts)
    np.testing.assert_allclose(
        first + second - prior.energy(q, net.layout), whole, rtol=1e-13
    )


def test_per_tensor_scales():
    net = MLP([3, 4, 2])
    scale = {name: 0.2 + 0.3 * i for i, name in enumerate(net.layout)}
    data = _data("categorical", 9, 3, 2)
    for kind in (GaussianPrior, LaplacePrior, lambda s: StudentTPrior(3.0, s)):
        U = Posterior(net, "categorical", kind(scale), data)
        q = _weights(U)
        expected = Posterior(net, "categorical", None, data).energy(q)
        for name, (where, _) in net.layout.items():
            tensor = {"q": (slice(0, where.stop - where.start), ())}
            expected += kind(scale[name]).energy(q[:, where], tensor)
        np.testing.assert_allclose(U.energy(q), expected, rtol=1e-12)
        a = _run(DenseEvaluator, U, q, DOUBLE)
        b = _run(ArrayEvaluator, U, q, DOUBLE)
        np.testing.assert_allclose(a[0], b[0], atol=1e-12 * np.abs(b[0]).max())


def test_euler_identity_of_relu_layers():
    """w_l . grad_l L is the same for all layers of a bias-free ReLU network."""
    X, y = _data("categorical", 150, 6, 3)
    kicks = {}
    for activation in ("relu", "tanh"):
        net = MLP([6, 20, 15, 10, 3], activation, bias=False)
        U = Posterior(net, "categorical", None, (X, y))
        q = _weights(U)
        g = U.gradient(q)
        kicks[activation] = np.array(
            [(q[:, w] * g[:, w]).sum(axis=1) for w, _ in U.layout.values()]
        )
    relu = kicks["relu"]
    np.testing.assert_allclose(relu, np.broadcast_to(relu[0], relu.shape), rtol=1e-11)
    # Negative control: tanh is not homogeneous.
    assert np.ptp(kicks["tanh"], axis=0).min() > 1e-3


@pytest.mark.parametrize("batch", [None, Batch(300), Batch(300, "replacement")])
@pytest.mark.parametrize("backend", [DOUBLE, SINGLE], ids=["double", "single"])
def test_replicas_and_threads_change_no_bit(backend, batch, monkeypatch):
    """All ways of sharing work agree: alone, whole replicas, chunks and blocks."""
    monkeypatch.setattr(DenseEvaluator, "SMALL", 0)
    monkeypatch.setattr("mdnet.kernels.dense.BLOCK", 64)
    U = _posterior((50, 20, 9, 3), "gelu", n=700)
    q = _weights(U, 5)

    def run(rows, threads):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        return _run(DenseEvaluator, U, q[rows], backend, batch)

    reference = run(slice(0, 5), 1)
    for threads in (2, 3, 4):
        for result, expected in zip(run(slice(0, 5), threads), reference, strict=True):
            np.testing.assert_array_equal(result, expected)
    for count in (1, 2, 3):
        for result, expected in zip(run(slice(0, count), 2), reference, strict=True):
            np.testing.assert_array_equal(result, expected[:count])
    # Slots for fewer chunks than there are: chunks go through in several rounds.
    monkeypatch.setattr(DenseEvaluator, "SCRATCH", 1)
    for result, expected in zip(run(slice(0, 3), 2), reference, strict=True):
        np.testing.assert_array_equal(result, expected[:3])


def test_nan_weights_are_not_hidden():
    for activation in ACTIVATIONS:
        U = _posterior((3, 4, 2), activation)
        q = _weights(U)
        q[1, 0] = np.nan
        energy = U.energy(q)
        assert np.isfinite(energy[0])
        assert np.isnan(energy[1])
        assert np.isnan(U.gradient(q)[1]).any()


def test_large_outputs_do_not_overflow():
    X, y = _data("categorical", 20, 4, 3)
    for likelihood, targets in (("categorical", y), ("bernoulli", np.eye(3)[y])):
        U = Posterior(MLP([4, 3]), likelihood, None, (X, targets))
        q = 1e4 * _weights(U)
        for values in (q, q.astype(np.float32)):
            assert np.isfinite(U.energy(values)).all()
            assert np.isfinite(U.gradient(values)).all()


def test_predictions():
    q_of = {}
    for likelihood in LIKELIHOODS:
        U = _posterior((5, 4, 3), likelihood=likelihood)
        q = q_of[str(likelihood)] = _weights(U, 3)
        X = _data(likelihood, 11, 5, 3, seed=7)[0]
        p = U.predict(q, X)
        assert p.shape == (3, 11, 3)
        z = U.network.forward(q, X)
        if likelihood == "categorical":
            np.testing.assert_allclose(p.sum(axis=2), 1, rtol=1e-14)
            np.testing.assert_array_equal(p.argmax(axis=2), z.argmax(axis=2))
        elif likelihood == "bernoulli":
            np.testing.assert_allclose(p, 1 / (1 + np.exp(-z)), rtol=1e-13)
        else:
            np.testing.assert_array_equal(p, z)
        assert U.predict(q[0], X).shape == (11, 3)
        assert U.predict(q.astype(np.float32), X).dtype == np.float32


def test_one_output_takes_flat_targets():
    X, y = _data("gaussian", 12, 3, 1)
    for likelihood, targets in (("gaussian", y), ("bernoulli", (y > 0).astype(int))):
        a = Posterior(MLP([3, 1]), likelihood, data=(X, targets))
        b = Posterior(MLP([3, 1]), likelihood, data=(X, targets[:, 0]))
        q = _weights(a)
        np.testing.assert_array_equal(a.energy(q), b.energy(q))
        assert a.predict(q, X).shape == (2, 12, 1)


@pytest.mark.physics
@pytest.mark.parametrize(
    ("prior", "law"),
    [
        (GaussianPrior(0.7), stats.norm(scale=0.7)),
        (LaplacePrior(0.3), stats.laplace(scale=0.3)),
        (StudentTPrior(4.0, 0.5), stats.t(df=4.0, scale=0.5)),
    ],
)
def test_draws_from_the_prior(prior, law):
    """Kolmogorov-Smirnov, false alarm 1e-6; the start is a draw when asked."""
    U = _posterior(prior=prior)
    draws = U.initial(200, seed=4, start="prior")
    assert stats.kstest(draws.ravel(), law.cdf).pvalue > 1e-6
    assert stats.kstest(1.2 * draws.ravel(), law.cdf).pvalue < 1e-6
    np.testing.assert_array_equal(U.initial(3, seed=4, start="prior"), draws[:3])
    np.testing.assert_array_equal(U.initial(3, seed=4), U.network.initial(3, seed=4))


def test_data_from_a_memory_map(tmp_path):
    X, y = _data("categorical", 300, 50, 3)
    stored = np.memmap(tmp_path / "X", np.float32, "w+", shape=X.shape)
    stored[:] = X
    stored.flush()
    stored = np.memmap(tmp_path / "X", np.float32, "r", shape=X.shape)
    net = MLP([50, 4, 3])
    mapped = Posterior(net, "categorical", data=(stored, y))
    assert np.shares_memory(mapped.arrays(np.float32)[0], stored)
    plain = Posterior(net, "categorical", data=(X.astype(np.float32), y))
    q = _weights(plain).astype(np.float32)
    np.testing.assert_array_equal(mapped.energy(q), plain.energy(q))
    np.testing.assert_array_equal(mapped.gradient(q), plain.gradient(q))
    assert mapped.describe() == plain.describe()


def test_describe_identifies_the_data():
    U = _posterior()
    d = U.describe()
    assert d["network"]["sizes"] == [5, 7, 6, 3]
    assert d["likelihood"] == {"name": "categorical"}
    assert d["prior"] == {"name": "gaussian", "scale": 0.7}
    assert d["data"]["X"] == [40, 5]
    X, y = _data("categorical", 40, 5, 3)
    assert Posterior(U.network, data=(X, y), prior=U.prior).describe() == d
    y[3] = (y[3] + 1) % 3
    other = Posterior(U.network, data=(X, y), prior=U.prior).describe()
    assert other["data"]["sha256"] != d["data"]["sha256"]


def test_pickle():
    U = _posterior()
    q = _weights(U)
    energy = U.energy(q)
    twin = pickle.loads(pickle.dumps(U))
    np.testing.assert_array_equal(twin.energy(q), energy)
    assert twin.describe() == U.describe()


def test_other_likelihoods_run_on_plain_arrays():
    """A likelihood without a compiled form: squared error to the fourth power."""

    class Quartic:
        def targets(self, y, rows, outputs):
            return np.asarray(y)

        def log_density(self, outputs, targets, xp=np):
            return -((outputs - targets) ** 4).sum(axis=-1)

        def residual(self, outputs, targets, xp=np):
            return 4 * (outputs - targets) ** 3

        def predict(self, outputs, xp=np):
            return outputs

        def constant(self, rows, outputs):
            return 0.0

        def describe(self):
            return {"name": "quartic"}

    X, y = _data("gaussian", 10, 3, 2)
    U = Posterior(MLP([3, 4, 2]), Quartic(), data=(X, y))
    assert isinstance(U.evaluator(DOUBLE, 1), ArrayEvaluator)
    q, h = _weights(U, 1), 1e-5
    steps = h * np.eye(U.size)
    numeric = (U.energy(q + steps) - U.energy(q - steps)) / (2 * h)
    np.testing.assert_allclose(
        U.gradient(q)[0], numeric, atol=1e-6 * np.abs(numeric).max()
    )


def test_array_engine_in_slices(monkeypatch):
    U = _posterior(n=100)
    q = _weights(U)
    whole = _run(ArrayEvaluator, U, q, DOUBLE, Batch(30))
    monkeypatch.setattr(ArrayEvaluator, "ELEMENTS", 2 * 7 * 9)
    pieces = _run(ArrayEvaluator, U, q, DOUBLE, Batch(30))
    for one, other in zip(pieces, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert isinstance(U.evaluator(DOUBLE, 2), evaluators.DenseEvaluator)


X4, Y4 = _data("categorical", 10, 4, 3)
NET = MLP([4, 3])


def _spoiled(value):
    X = X4.copy()
    X[2, 1] = value
    return X


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Posterior(NET, data=(X4[:, :3], Y4)), r"expected \(n, 4\)"),
        (lambda: Posterior(NET, data=(X4[0], Y4)), r"expected \(n, 4\)"),
        (lambda: Posterior(NET, data=(X4[:0], Y4[:0])), r"expected \(n, 4\)"),
        (lambda: Posterior(NET, data=(X4, Y4[:5])), "one class number per row"),
        (lambda: Posterior(NET, data=(X4, np.eye(3)[Y4])), "argmax"),
        (lambda: Posterior(NET, data=(X4, Y4 + 1)), "labels from 1 to 3"),
        (lambda: Posterior(NET, data=(X4, Y4 - 1)), "labels from -1 to 1"),
        (lambda: Posterior(NET, data=(X4, Y4 + 0.5)), "not integers"),
        (lambda: Posterior(NET, data=(X4, Y4.astype(str))), "not integers"),
        (lambda: Posterior(NET, data=(_spoiled(np.nan), Y4)), "NaN or infinity"),
        (lambda: Posterior(NET, data=(_spoiled(np.inf), Y4)), "NaN or infinity"),
        (lambda: Posterior(NET, data=(X4.astype(str), Y4)), "real numbers"),
        (lambda: Posterior(NET, "gaussian", data=(X4, Y4)), r"expected \(10, 3\)"),
        (
            lambda: Posterior(NET, "gaussian", data=(X4, np.full((10, 3), np.nan))),
            "not finite",
        ),
        (
            lambda: Posterior(NET, "bernoulli", data=(X4, np.full((10, 3), 2))),
            "expected 0 or 1",
        ),
        (lambda: Posterior(NET, "weibull", data=(X4, Y4)), "categorical, gaussian"),
        (lambda: Posterior(NET, Categorical, data=(X4, Y4)), "categorical, gaussian"),
        (lambda: Posterior(NET), r"\(X, y\)"),
        (lambda: Posterior(NET, data=X4), r"\(X, y\)"),
        (lambda: Posterior([4, 3], data=(X4, Y4)), "a network such as MLP"),
        (lambda: Posterior(NET, prior=1.0, data=(X4, Y4)), "a prior such as"),
        (lambda: Posterior(NET, prior=GaussianPrior, data=(X4, Y4)), "a prior such as"),
        (
            lambda: Posterior(NET, prior=GaussianPrior({"0.weight": 1}), data=(X4, Y4)),
            r"tensors \['0.bias'\]",
        ),
        (lambda: Gaussian(noise=0), "noise=0"),
        (lambda: Gaussian(noise=math.nan), "noise=nan"),
        (lambda: GaussianPrior(0.0), "scale=0.0"),
        (lambda: LaplacePrior({"0.weight": -1.0}), "scale=-1.0"),
        (lambda: StudentTPrior(0.0, 1.0), "df=0.0"),
        (lambda: StudentTPrior(3.0, True), "scale=True"),
    ],
)
def test_errors(make, message):
    with pytest.raises(PotentialError, match=message):
        make()


def test_call_errors():
    U = Posterior(NET, prior=None, data=(X4, Y4))
    with pytest.raises(PotentialError, match=r"expected \(R, 15\)"):
        U.energy(np.zeros((2, 3)))
    with pytest.raises(PotentialError, match=r"expected \(R, 15\)"):
        U.predict(np.zeros((2, 3)), X4)
    with pytest.raises(PotentialError, match=r"expected \(n, 4\)"):
        U.predict(np.zeros((2, 15)), X4[:, :2])
    with pytest.raises(PotentialError, match="'network' or 'prior'"):
        U.initial(2, start="zeros")
    with pytest.raises(PotentialError, match="nothing to draw from"):
        U.initial(2, start="prior")
    assert Bernoulli().describe() == {"name": "bernoulli"}
