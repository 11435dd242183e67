"""Likelihoods: densities against scipy, derivatives, weights, tempering, labels."""

import math
import pickle

import numpy as np
import pytest
from scipy import stats

from mdnet.backend import resolve
from mdnet.errors import PotentialError
from mdnet.potentials import MLP, Posterior
from mdnet.potentials._split_evaluator import SplitEvaluator
from mdnet.potentials.evaluators import ArrayEvaluator, Batch
from mdnet.potentials.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    Heteroscedastic,
    LabelFlip,
    Ordinal,
    Poisson,
    StudentT,
    flip_labels,
    make_likelihood,
)
from mdnet.potentials.priors import (
    GaussianPrior,
    HierarchicalGaussianPrior,
    HorseshoePrior,
)
from mdnet.potentials.scales import HalfCauchy, HalfNormal, InverseGamma, LogNormal

from .cuda_tools import gpu

DOUBLE, SINGLE = resolve("cpu", "double"), resolve("cpu", "single")
R, N = 3, 7
RNG = np.random.default_rng(5)
Z = RNG.normal(size=(R, N, 4))
CUTS = (-1.0, 0.2, 1.5)
GRADES = RNG.integers(0, 4, N)
REAL = RNG.normal(size=(N, 4))
COUNTS = RNG.poisson(1.5, (N, 4))


def logistic_steps(z, cuts, y):
    """Probability of grade y from differences of the logistic distribution."""
    edges = np.concatenate([[-np.inf], cuts, [np.inf]])
    return stats.logistic.cdf(edges[y + 1] - z) - stats.logistic.cdf(edges[y] - z)


def soft_max(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def label_flip(z, y, rate):
    p = soft_max(z)[:, np.arange(N), y]
    return np.log((1 - rate) * p + rate * (1 - p) / 3)


# Likelihood, targets, outputs it takes, and log p by other means.
CASES = {
    "categorical": (
        Categorical(),
        GRADES,
        Z,
        np.log(soft_max(Z)[:, np.arange(N), GRADES]),
    ),
    "label_flip": (LabelFlip(0.3), GRADES, Z, label_flip(Z, GRADES, 0.3)),
    "no_flip": (LabelFlip(0.0), GRADES, Z, label_flip(Z, GRADES, 0.0)),
    "bernoulli": (
        Bernoulli(),
        COUNTS > 1,
        Z,
        stats.bernoulli(1 / (1 + np.exp(-Z))).logpmf(COUNTS > 1).sum(-1),
    ),
    "gaussian": (Gaussian(0.7), REAL, Z, stats.norm(Z, 0.7).logpdf(REAL).sum(-1)),
    "student_t": (
        StudentT(2.5, 0.7),
        REAL,
        Z,
        stats.t(2.5, Z, 0.7).logpdf(REAL).sum(-1),
    ),
    "heteroscedastic": (
        Heteroscedastic(),
        REAL[:, :2],
        Z,
        stats.norm(Z[..., :2], np.exp(Z[..., 2:] / 2)).logpdf(REAL[:, :2]).sum(-1),
    ),
    "poisson": (
        Poisson(),
        COUNTS,
        Z,
        stats.poisson(np.exp(Z)).logpmf(COUNTS).sum(-1),
    ),
    "ordinal": (
        Ordinal(cutpoints=CUTS),
        GRADES,
        Z[..., :1],
        np.log(logistic_steps(Z[..., 0], CUTS, GRADES)),
    ),
}
# Likelihood with sampled parameters, targets, theta, and the fixed twin of replica r.
SAMPLED = {
    "gaussian": (
        Gaussian(HalfNormal(1.0)),
        REAL,
        RNG.normal(size=(R, 1)),
        lambda t: Gaussian(math.exp(t[0])),
    ),
    "student_t": (
        StudentT(2.5, InverseGamma(2.0, 1.0)),
        REAL,
        RNG.normal(size=(R, 1)),
        lambda t: StudentT(2.5, math.exp(t[0])),
    ),
    "ordinal": (
        Ordinal(classes=4),
        GRADES,
        RNG.normal(size=(R, 3)),
        lambda t: Ordinal(np.cumsum([t[0], *np.exp(t[1:])])),
    ),
}


def slope(f, x, h=1e-5):
    """Central difference of f (R, n) by each of the last axis of x (R, n or 1, k)."""
    steps = np.eye(x.shape[-1]) * h
    return np.stack([(f(x + s) - f(x - s)) / (2 * h) for s in steps], axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_log_density_against_scipy(name):
    likelihood, y, z, expected = CASES[name]
    t = likelihood.targets(y, N, z.shape[-1])
    np.testing.assert_allclose(likelihood.log_density(z, t), expected, rtol=1e-12)
    replicas = np.broadcast_to(t, (R, *t.shape))  # minibatches: rows of their own
    np.testing.assert_array_equal(
        likelihood.log_density(z, replicas), likelihood.log_density(z, t)
    )


@pytest.mark.parametrize("name", CASES)
def test_residual_is_the_derivative(name):
    likelihood, y, z, _ = CASES[name]
    t = likelihood.targets(y, N, z.shape[-1])
    numeric = -slope(lambda x: likelihood.log_density(x, t), z)
    np.testing.assert_allclose(likelihood.residual(z, t), numeric, atol=1e-6)
    wrong = likelihood.targets(y[::-1], N, z.shape[-1])  # negative control
    assert np.abs(likelihood.residual(z, wrong) - numeric).max() > 1e-3


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_parameters(name):
    """Each replica as a fixed likelihood; derivative by its own parameters."""
    likelihood, y, theta, fixed = SAMPLED[name]
    z = Z if y is REAL else Z[..., :1]
    sampled = likelihood.sampled()
    t = likelihood.targets(y, N, z.shape[-1]).astype(float)
    bound = sampled.at(theta)
    for r in range(R):
        twin = fixed(theta[r])
        part = z[r : r + 1]
        for method in ("log_density", "residual"):
            mine = getattr(bound, method)(z, t)[r]
            np.testing.assert_allclose(
                mine, getattr(twin, method)(part, t)[0], rtol=1e-9
            )
        np.testing.assert_allclose(
            bound.predict(z)[r], twin.predict(part)[0], rtol=1e-9
        )

    def density(x):
        return sampled.at(x).log_density(z, t)

    numeric = -slope(density, theta)
    exact = bound.parameter_gradient(z, t)
    np.testing.assert_allclose(exact, numeric, atol=1e-6)
    assert np.abs(exact - 1 - numeric).max() > 0.5  # negative control: the lost 1


def test_one_noise_for_each_output():
    likelihood = Gaussian(HalfNormal(1.0), per_output=True)
    sampled, theta = likelihood.sampled(), RNG.normal(size=(R, 4))
    expected = stats.norm(Z, np.exp(theta)[:, None]).logpdf(REAL).sum(-1)
    bound = sampled.at(theta)
    np.testing.assert_allclose(bound.log_density(Z, REAL), expected, rtol=1e-12)
    numeric = -slope(lambda x: sampled.at(x).log_density(Z, REAL), theta)
    exact = bound.parameter_gradient(Z, REAL)
    np.testing.assert_allclose(exact, numeric, atol=1e-6)
    assert sampled.parameters(4) == {"likelihood.log_noise": (4,)}


def test_classes_sum_to_one():
    """Over all y; label smoothing is the exception that the docs name."""
    z = 3 * Z
    sums = {}
    for likelihood in (Categorical(), LabelFlip(0.3), Categorical(0.3)):
        rows = [np.full((N, 1), y) for y in range(4)]
        sums[likelihood] = sum(np.exp(likelihood.log_density(z, y)) for y in rows)
    np.testing.assert_allclose(sums[Categorical()], 1, rtol=1e-12)
    np.testing.assert_allclose(sums[LabelFlip(0.3)], 1, rtol=1e-12)
    assert np.abs(sums[Categorical(0.3)] - 1).max() > 0.1
    grades = Ordinal(CUTS).predict(z[..., :1])
    np.testing.assert_allclose(grades.sum(-1), 1, rtol=1e-12)
    assert (grades > 0).all()


def test_label_smoothing_is_a_mixture_of_targets():
    smooth = Categorical(label_smoothing=0.2)
    t = GRADES[:, None]
    logs = np.log(soft_max(Z))
    expected = 0.8 * logs[:, np.arange(N), GRADES] + 0.2 * logs.mean(-1)
    np.testing.assert_allclose(smooth.log_density(Z, t), expected, rtol=1e-12)
    numeric = -slope(lambda x: smooth.log_density(x, t), Z)
    np.testing.assert_allclose(smooth.residual(Z, t), numeric, atol=1e-6)


def test_far_tails_stay_finite():
    z = np.array([[[-800.0], [800.0], [-800.0], [800.0]]])
    t = np.array([[0], [0], [3], [3]])
    with np.errstate(all="raise", under="ignore"):
        density = Ordinal(CUTS).log_density(z, t)
        residual = Ordinal(CUTS).residual(z, t)
    np.testing.assert_allclose(density, [[0, -801, -801.5, 0]], atol=1e-9)
    np.testing.assert_allclose(residual[0, :, 0], [0, 1, -1, 0], atol=1e-12)
    wide = np.array([[[900.0, 0.0, -900.0]]])
    flip = LabelFlip(0.1)
    assert flip.log_density(wide, np.array([[2]]))[0, 0] == pytest.approx(
        math.log(0.05)
    )
    np.testing.assert_allclose(flip.residual(wide, np.array([[2]])), 0, atol=1e-12)


# --- in a posterior ---------------------------------------------------------------


def data_for(likelihood, n=11):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, 3))
    if isinstance(likelihood, Ordinal):
        return MLP([3, 4, 1]), (X, rng.integers(0, 4, n))
    if isinstance(likelihood, (Categorical, LabelFlip)):
        return MLP([3, 4, 3]), (X, rng.integers(0, 3, n))
    if isinstance(likelihood, Poisson):
        return MLP([3, 4, 2]), (X, rng.poisson(1.0, (n, 2)))
    outputs = 4 if isinstance(likelihood, Heteroscedastic) else 2
    return MLP([3, 4, outputs]), (X, rng.normal(size=(n, 2)))


ALL = [
    Gaussian(HalfNormal(1.0)),
    Gaussian(HalfCauchy(1.0), per_output=True),
    StudentT(3.0, InverseGamma(2.0, 1.0)),
    StudentT(3.0, 0.5),
    Heteroscedastic(),
    Poisson(),
    Ordinal(classes=4),
    Ordinal(cutpoints=CUTS),
    Categorical(label_smoothing=0.1),
    LabelFlip(0.2),
    Categorical(),
]
OPTIONS = [{}, {"weights": np.linspace(0.0, 2.0, 11)}, {"likelihood_temperature": 0.3}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "weights", "tempered"])
@pytest.mark.parametrize("likelihood", ALL, ids=str)
def test_gradient_of_a_posterior(likelihood, options):
    net, data = data_for(likelihood)
    for prior in (HierarchicalGaussianPrior(), HorseshoePrior(0.5), GaussianPrior()):
        U = Posterior(net, likelihood, prior, data, **options)
        q = 0.5 * U.initial(2, seed=3, start="prior")
        q += 0.05 * np.random.default_rng(0).normal(size=q.shape)
        h = 1e-5
        steps = h * np.eye(U.size)
        numeric = (U.energy(q[0] + steps) - U.energy(q[0] - steps)) / (2 * h)
        energy, gradient = U.energy_and_gradient(q)
        np.testing.assert_allclose(
            gradient[0], numeric, atol=1e-6 * np.abs(numeric).max()
        )
        np.testing.assert_allclose(U.gradient(q), gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(U.energy(q), energy, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"likelihood_temperature": 0.3}])
@pytest.mark.parametrize("likelihood", [Gaussian(HalfNormal(1.0)), "categorical"])
@pytest.mark.parametrize("batch", [None, Batch(30), Batch(30, "replacement")])
def test_compiled_core_equals_plain_arrays(likelihood, options, batch):
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(90, 5)), rng.integers(0, 3, 90)
    targets = y if likelihood == "categorical" else rng.normal(size=(90, 3))
    net, prior = MLP([5, 8, 3]), HierarchicalGaussianPrior()
    U = Posterior(net, likelihood, prior, (X, targets), **options)
    q = U.initial(3, seed=2) + 0.1 * rng.normal(size=(3, U.size))
    for backend, tolerance in ((DOUBLE, 1e-12), (SINGLE, 1e-5)):
        results = []
        plain = Posterior(net, likelihood, prior, (X, targets), **options)
        if options:  # as weights of 1/T_L: the same by another way
            plain = Posterior(
                net, likelihood, prior, (X, targets), weights=np.full(90, 1 / 0.3)
            )
        for engine in (
            U._evaluator(backend, 3, 5, batch),
            ArrayEvaluator(plain, backend, 3, 5, batch),
        ):
            p = q.astype(backend.state_dtype)
            force, gradient = np.empty_like(p), np.empty_like(p)
            estimate, energy = np.empty(3), np.empty(3)
            engine.forces(p, force, 7, estimate)
            engine.energies(p, energy)
            engine.gradients(p, gradient)
            results.append((force, estimate, energy, gradient))
        assert isinstance(U._evaluator(backend, 3, 5, batch), SplitEvaluator)
        for one, other in zip(*results, strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(one, other, atol=tolerance * scale)


@gpu
@pytest.mark.parametrize("likelihood", [Gaussian(HalfNormal(1.0)), Poisson()])
def test_device_equals_host(likelihood):
    net, data = data_for(likelihood, n=6)
    U = Posterior(net, likelihood, HierarchicalGaussianPrior(), data)
    q = U.initial(2, seed=1) + 0.1
    found = []
    for name in ("cuda", "cpu"):
        backend = resolve(name, "double")
        evaluator = U.evaluator(backend, 2, 0)
        x = backend.asarray(q, backend.state_dtype)
        force, energy = backend.asarray(np.empty(q.shape)), backend.asarray(np.empty(2))
        evaluator.forces(x, force, 0, energy)
        found.append((backend.to_host(force), backend.to_host(energy)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_layout_names_every_parameter():
    net, data = data_for(Gaussian())
    likelihood = Gaussian(HalfNormal(1.0), per_output=True)
    U = Posterior(net, likelihood, HierarchicalGaussianPrior(), data)
    names = list(U.layout)
    assert names[:4] == list(net.layout)
    assert names[4] == "likelihood.log_noise"
    assert names[5:] == [f"prior.{name}.log_scale" for name in net.layout]
    assert U.layout["likelihood.log_noise"] == (slice(net.size, net.size + 2), (2,))
    last = list(U.layout.values())[-1][0]
    assert last.stop == U.size == net.size + 2 + 4
    q = U.initial(4, seed=1)
    np.testing.assert_array_equal(q[:, : net.size], net.initial(4, seed=1))
    median = math.log(stats.halfnorm.median())
    np.testing.assert_allclose(q[:, net.size :], median, rtol=1e-12)
    twin = pickle.loads(pickle.dumps(U))
    np.testing.assert_array_equal(twin.energy(q), U.energy(q))
    assert twin.describe() == U.describe()
    assert U.minibatch(4).layout == U.layout
    assert U.minibatch(4).size == U.size


def test_predictions_and_held_out_rows_use_the_parameters():
    likelihood = Gaussian(HalfNormal(1.0))
    net, (X, y) = data_for(likelihood)
    U = Posterior(net, likelihood, data=(X, y))
    q = U.initial(3, seed=1)
    q[:, -1] = np.log([0.1, 1.0, 3.0])
    z = net.forward(q[:, :-1], X)
    noise = np.exp(q[:, -1])[:, None, None]
    expected = stats.norm(z, noise).logpdf(y).sum(-1)
    np.testing.assert_allclose(U.log_likelihood(q, X, y), expected, rtol=1e-12)
    np.testing.assert_array_equal(U.predict(q, X), z)
    same = Posterior(net, likelihood, data=(X, y), weights=np.full(11, 0.2))
    np.testing.assert_allclose(same.log_likelihood(q, X, y), expected, rtol=1e-12)
    net, (X, y) = data_for(Ordinal(CUTS))
    U = Posterior(net, Ordinal(classes=4), data=(X, y))
    p = U.predict(U.initial(2), X)
    assert p.shape == (2, 11, 4)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    net, (X, y) = data_for(Heteroscedastic())
    U = Posterior(net, "heteroscedastic", data=(X, y))
    q = U.initial(2)
    z = net.forward(q, X)
    np.testing.assert_array_equal(U.predict(q, X)[..., :2], z[..., :2])
    np.testing.assert_array_equal(U.predict(q, X)[..., 2:], np.exp(z[..., 2:]))


NET = MLP([3, 2])
X3, Y3 = np.ones((4, 3)), np.array([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical(1.0), "label_smoothing=1.0"),
        (lambda: LabelFlip(-0.1), "rate=-0.1"),
        (lambda: Posterior(NET, LabelFlip(0.5), data=(X3, Y3)), "says nothing"),
        (lambda: Gaussian("0.1"), "noise='0.1'"),
        (lambda: Gaussian(HalfNormal), "a law of one"),
        (lambda: Gaussian(HalfNormal()).log_density(Z, REAL), "is sampled"),
        (lambda: StudentT(df=0), "df=0"),
        (lambda: StudentT(scale=-1.0), "scale=-1.0"),
        (lambda: Ordinal(), "expected one of the two"),
        (lambda: Ordinal(cutpoints=(1.0, 0.0)), "increasing"),
        (lambda: Ordinal(classes=1), "at least 2"),
        (lambda: Ordinal(classes=3, gap=1.0), "a law such as"),
        (lambda: Ordinal(classes=3).predict(Z), "cutpoints are sampled"),
        (lambda: Posterior(NET, Ordinal(CUTS), data=(X3, Y3)), "expected one, e.g."),
        (
            lambda: Posterior(MLP([3, 1]), Ordinal((0.0,)), data=(X3, Y3 + 1)),
            "for 2 grades",
        ),
        (lambda: Posterior(NET, "poisson", data=(X3, -np.ones((4, 2)))), "counts"),
        (
            lambda: Posterior(MLP([3, 3]), "heteroscedastic", data=(X3, Y3)),
            "two for each target",
        ),
        (lambda: make_likelihood("weibull"), "learned_gaussian"),
        (lambda: Posterior(NET, data=(X3, Y3), weights=[1, 2]), r"expected \(4,\)"),
        (lambda: Posterior(NET, data=(X3, Y3), weights=-np.ones(4)), "number >= 0"),
        (lambda: Posterior(NET, data=(X3, Y3), weights=np.zeros(4)), "not all zero"),
        (
            lambda: Posterior(NET, data=(X3, Y3), likelihood_temperature=0),
            "likelihood_temperature=0",
        ),
        (lambda: flip_labels(np.ones(3), 0.5), "array of integers"),
        (lambda: flip_labels(Y3, 1.5), "fraction=1.5"),
        (lambda: flip_labels(Y3, 0.5, classes=1), "classes=1"),
        (lambda: flip_labels(Y3, 0.5, to="same"), "'other' or 'any'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(PotentialError, match=message):
        make()


def test_names_and_settings():
    for name in (
        "categorical",
        "bernoulli",
        "gaussian",
        "heteroscedastic",
        "student_t",
        "poisson",
        "label_flip",
    ):
        assert make_likelihood(name).describe()["name"] == name
    learned = make_likelihood("learned_gaussian").describe()
    assert learned == {
        "name": "gaussian",
        "noise": {"name": "half_cauchy", "scale": 1.0},
    }
    assert Gaussian(LogNormal(1.0, 2.0), True).describe()["per_output"]
    assert Ordinal(classes=3).describe()["gap"]["name"] == "half_normal"
    assert Ordinal(CUTS).describe()["cutpoints"] == list(CUTS)
