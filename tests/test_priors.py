"""Priors and laws of scales: densities, derivatives, draws, and sampled scales.

Sampled means are judged at five standard errors (from the spread over independent
replicas): each false alarm is below 1e-6.  Beside each stands the same law without the
Jacobian of the logarithm, which must fail.
"""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import PotentialError
from mdnet.potentials import MLP, Posterior
from mdnet.potentials.likelihoods import Gaussian
from mdnet.potentials.priors import (
    CauchyPrior,
    FanIn,
    GaussianPrior,
    HierarchicalGaussianPrior,
    HorseshoePrior,
    LaplacePrior,
    StudentTPrior,
)
from mdnet.potentials.scales import (
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    LogNormal,
    ScaleLaw,
)

LAWS = [
    (HalfNormal(0.7), stats.halfnorm(scale=0.7)),
    (HalfCauchy(0.7), stats.halfcauchy(scale=0.7)),
    (LogNormal(0.7, 0.6), stats.lognorm(0.6, scale=0.7)),
    (InverseGamma(2.5, 0.8), None),  # a law of s^2: scipy has s^2 alone
]
NET = MLP([3, 4, 2])


def log_pdf(law, known, s):
    if known is None:
        variance = stats.invgamma(law.shape, scale=law.rate)
        return variance.logpdf(s * s) + np.log(2 * s)
    return known.logpdf(s)


@pytest.mark.parametrize(("law", "known"), LAWS, ids=[str(law) for law, _ in LAWS])
def test_laws_against_scipy(law, known):
    s = np.exp(np.linspace(-3, 3, 13))
    l = np.log(s)
    jacobian = l
    np.testing.assert_allclose(
        law.energy(l), -log_pdf(law, known, s) - jacobian, rtol=1e-10, atol=1e-10
    )
    h = 1e-6
    numeric = (law.energy(l + h) - law.energy(l - h)) / (2 * h)
    np.testing.assert_allclose(law.slope(l), numeric, rtol=1e-6, atol=1e-6)
    mass = integrate.quad(lambda x: math.exp(-law.energy(np.array(x))), -20, 20)[0]
    assert mass == pytest.approx(1, abs=1e-7)
    assert isinstance(law, ScaleLaw)
    u = np.array([0.05, 0.5, 0.9])
    inside = [
        integrate.quad(lambda x: math.exp(-law.energy(np.array(x))), -30, top)[0]
        for top in np.log(law.quantile(u))
    ]
    np.testing.assert_allclose(inside, u, atol=1e-7)


def test_fan_in_follows_the_shapes():
    expected = [math.sqrt(1 / 3), 1.0, math.sqrt(1 / 4), 1.0]
    prior = GaussianPrior.fan_in()
    assert prior == GaussianPrior(scale="fan_in") == GaussianPrior(scale=FanIn())
    byhand = GaussianPrior(scale=dict(zip(NET.layout, expected, strict=True)))
    q = np.random.default_rng(0).normal(size=(3, NET.size))
    layout = NET.layout
    np.testing.assert_allclose(prior.energy(q, layout), byhand.energy(q, layout))
    np.testing.assert_allclose(prior.gradient(q, layout), byhand.gradient(q, layout))
    np.testing.assert_allclose(prior.draw(layout, 3), byhand.draw(layout, 3))
    np.testing.assert_allclose(prior.table(layout), byhand.table(layout))
    assert prior.describe()["scale"] == {"fan_in": 1.0, "bias": 1.0}
    kernel = {"conv": (slice(0, 2 * 3 * 5 * 5), (2, 3, 5, 5))}
    assert GaussianPrior.fan_in(2.0).table(kernel)[0][1] == pytest.approx(75 / 4)
    wide = LaplacePrior(scale=FanIn(2.0, 0.5))
    assert wide.table(layout)[1][1] == 2.0


def test_outputs_do_not_grow_with_the_width():
    """What fan-in scales are for; a fixed scale is the negative control."""
    spread = {}
    for kind in ("fan_in", 1.0):
        for width in (10, 1000):
            net = MLP([4, width, 1], bias=False)
            q = GaussianPrior(scale=kind).draw(net.layout, 400, seed=1)
            spread[kind, width] = net.forward(q, np.ones((1, 4))).std()
    ratio = spread["fan_in", 1000] / spread["fan_in", 10]
    assert 0.7 < ratio < 1.4
    assert spread[1.0, 1000] / spread[1.0, 10] > 5


def test_compiled_engine_takes_fan_in():
    data = np.ones((5, 3)), np.array([0, 1, 1, 0, 1])
    U = Posterior(NET, prior=GaussianPrior.fan_in(), data=data)
    flat = Posterior(NET, prior=None, data=data)
    q = U.initial(2, seed=1)
    added = U.energy(q) - flat.energy(q)
    np.testing.assert_allclose(added, U.prior.energy(q, NET.layout), rtol=1e-12)


PRIORS = [
    HierarchicalGaussianPrior(),
    HierarchicalGaussianPrior(InverseGamma(2.0, 1.0)),
    HierarchicalGaussianPrior(
        {
            "0.weight": HalfNormal(2.0),
            "0.bias": 0.5,
            "1.weight": LogNormal(),
            "1.bias": HalfCauchy(),
        }
    ),
    HorseshoePrior(0.3),
]


def joint(prior, q, theta):
    return prior.joint_energy(q, theta, NET.layout)


@pytest.mark.parametrize("prior", PRIORS, ids=["one", "inverse", "each", "horseshoe"])
def test_joint_gradients(prior):
    q, theta = prior.joint_draw(NET.layout, 3, seed=5)
    names = prior.parameters(NET.layout)
    assert theta.shape[1] == sum(math.prod(shape) for shape in names.values())
    assert prior.start(NET.layout).shape == theta.shape[1:]
    h = 1e-6
    gq, gt = prior.joint_gradient(q, theta, NET.layout)
    for j in range(q.shape[1]):
        e = h * np.eye(q.shape[1])[j] * np.abs(q[:, j : j + 1])
        numeric = (joint(prior, q + e, theta) - joint(prior, q - e, theta)) / 2
        exact = gq[:, j] * h * np.abs(q[:, j])
        np.testing.assert_allclose(exact, numeric, atol=1e-3 * h, rtol=1e-4)
    for j in range(theta.shape[1]):
        e = h * np.eye(theta.shape[1])[j]
        numeric = (joint(prior, q, theta + e) - joint(prior, q, theta - e)) / (2 * h)
        np.testing.assert_allclose(gt[:, j], numeric, atol=1e-6, rtol=1e-6)


def test_hierarchical_density_against_scipy():
    prior = PRIORS[2]
    q, theta = prior.joint_draw(NET.layout, 4, seed=1)
    widths = np.exp(theta)
    laws = [stats.halfnorm(scale=2), None, stats.lognorm(1.0), stats.halfcauchy()]
    expected, at = np.zeros(4), 0
    for (where, _), law in zip(NET.layout.values(), laws, strict=True):
        s = np.full(4, 0.5)
        if law is not None:
            s = widths[:, at]
            expected -= law.logpdf(s) + np.log(s)
            at += 1
        expected -= stats.norm(0, s[:, None]).logpdf(q[:, where]).sum(axis=1)
    np.testing.assert_allclose(joint(prior, q, theta), expected, rtol=1e-12)


def test_fixed_scales_are_a_gaussian_prior():
    prior, plain = HierarchicalGaussianPrior(0.5), GaussianPrior(0.5)
    assert prior.parameters(NET.layout) == {}
    q, theta = prior.joint_draw(NET.layout, 3, seed=1)
    np.testing.assert_array_equal(q, plain.draw(NET.layout, 3, seed=1))
    energy = plain.energy(q, NET.layout)
    np.testing.assert_allclose(joint(prior, q, theta), energy, rtol=1e-12)
    gradient = prior.joint_gradient(q, theta, NET.layout)[0]
    np.testing.assert_allclose(gradient, plain.gradient(q, NET.layout), rtol=1e-12)


def test_horseshoe_density_against_scipy():
    prior = PRIORS[3]
    q, theta = prior.joint_draw(NET.layout, 4, seed=1)
    n = NET.size
    local, overall = np.exp(theta[:, :n]), np.exp(theta[:, n:])
    expected = -(stats.halfcauchy().logpdf(local) + theta[:, :n]).sum(axis=1)
    law = stats.halfcauchy(scale=0.3)
    expected -= (law.logpdf(overall) + theta[:, n:]).sum(axis=1)
    for i, (where, _) in enumerate(NET.layout.values()):
        s = local[:, where] * overall[:, i, None]
        expected -= stats.norm(0, s).logpdf(q[:, where]).sum(axis=1)
    np.testing.assert_allclose(joint(prior, q, theta), expected, rtol=1e-12)


@pytest.mark.physics
def test_draws_follow_the_laws():
    """Kolmogorov-Smirnov of 2,000 draws each, false alarm 1e-6."""
    layout = NET.layout
    for law, known in LAWS:
        q, theta = HierarchicalGaussianPrior(law).joint_draw(layout, 2000, seed=7)

        def cdf(s, law=law, known=known):
            if known is not None:
                return known.cdf(s)
            return stats.invgamma(law.shape, scale=law.rate).cdf(s * s)

        for at, (where, _) in enumerate(layout.values()):
            s = np.exp(theta[:, at])
            assert stats.kstest(s, cdf).pvalue > 1e-6
            assert stats.kstest(1.3 * s, cdf).pvalue < 1e-6
            units = q[:, where.start] / s
            assert stats.kstest(units, stats.norm.cdf).pvalue > 1e-6
            # Scales and weights are drawn from different counters.
            assert abs(stats.spearmanr(s, np.abs(units)).statistic) < 5 / math.sqrt(
                2000
            )
    q, theta = HorseshoePrior(0.3).joint_draw(layout, 2000, seed=7)
    assert stats.kstest(np.exp(theta[:, 5]), stats.halfcauchy.cdf).pvalue > 1e-6
    top = stats.halfcauchy(scale=0.3)
    assert stats.kstest(np.exp(theta[:, NET.size]), top.cdf).pvalue > 1e-6
    assert stats.kstest(np.exp(theta[:, NET.size]), stats.halfcauchy.cdf).pvalue < 1e-6
    units = q[:, 2] * np.exp(-theta[:, 2] - theta[:, NET.size])
    assert stats.kstest(units, stats.norm.cdf).pvalue > 1e-6
    draws = CauchyPrior(0.4).draw(layout, 200, seed=3).ravel()
    assert stats.kstest(draws, stats.cauchy(scale=0.4).cdf).pvalue > 1e-6
    assert CauchyPrior(0.4) == StudentTPrior(1.0, 0.4)


def test_start_from_the_prior_draws_everything():
    data = np.ones((5, 3)), np.zeros((5, 2))
    prior = HierarchicalGaussianPrior()
    U = Posterior(NET, Gaussian(HalfNormal(2.0)), prior, data)
    q = U.initial(300, seed=4, start="prior")
    noise = np.exp(q[:, U.layout["likelihood.log_noise"][0]]).ravel()
    assert stats.kstest(noise, stats.halfnorm(scale=2.0).cdf).pvalue > 1e-6
    scale = np.exp(q[:, U.layout["prior.1.bias.log_scale"][0]]).ravel()
    assert stats.kstest(scale, stats.halfnorm.cdf).pvalue > 1e-6
    assert abs(stats.spearmanr(noise, scale).statistic) < 5 / math.sqrt(300)
    np.testing.assert_array_equal(q[:3], U.initial(3, seed=4, start="prior"))


# --- marginal laws of sampled scales, against quadrature --------------------------


class NoJacobian:
    """A law of s that forgets that its coordinate is log s: the negative control."""

    def __init__(self, law):
        self.law = law

    def energy(self, l, xp=np):
        return self.law.energy(l, xp) + l

    def slope(self, l, xp=np):
        return self.law.slope(l, xp) + 1

    def quantile(self, u):
        return self.law.quantile(u)

    def describe(self):
        return {"name": "control"}


def moments(log_density):
    """Mean and variance of l under a density known up to a factor."""
    l = np.linspace(-4, 5, 4001)
    logs = np.array([log_density(x) for x in l])
    p = np.exp(logs - logs.max())
    p /= p.sum()
    mean = float((p * l).sum())
    return mean, float((p * (l - mean) ** 2).sum())


def scores(U, name, integrator, exact, warm, steps, replicas=200):
    """Deviations of the mean and of the variance about it, in standard errors."""
    sim = mdnet.Simulation(
        U,
        integrator,
        replicas=replicas,
        positions=U.initial(replicas, seed=2, start="prior"),
        seed=1,
        precision="double",
    )
    sim.run(warm)
    record = reporters.Memory(every=5)
    sim.run(steps, reporters=[record])
    l = np.asarray(record.positions)[..., U.layout[name][0]][..., 0]
    mean, variance = exact
    found = []
    for series, expected in ((l, mean), ((l - mean) ** 2, variance)):
        each = series.mean(axis=0)
        error = each.std(ddof=1) / math.sqrt(len(each))
        found.append((each.mean() - expected) / error)
    return np.abs(found)


def noise_model(law):
    """Linear regression with unknown noise, and its exact marginal law."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(6, 2))
    y = X @ [1.0, -0.5] + 0.6 * rng.normal(size=6)
    U = Posterior(MLP([2, 1], bias=False), Gaussian(law), GaussianPrior(1.0), (X, y))

    def exact(l):
        covariance = math.exp(2 * l) * np.eye(6) + X @ X.T
        marginal = stats.multivariate_normal(np.zeros(6), covariance).logpdf(y)
        return marginal - float(InverseGamma(2.0, 0.5).energy(np.array(l)))

    return U, exact


def scale_model(law):
    """One weight of unknown scale seen through unit noise, and its marginal law."""
    prior = HierarchicalGaussianPrior(law)
    y = np.array([2.0])
    U = Posterior(MLP([1, 1], bias=False), Gaussian(1.0), prior, (np.ones((1, 1)), y))

    def exact(l):
        marginal = stats.norm(0, math.sqrt(1 + math.exp(2 * l))).logpdf(2.0)
        return marginal - float(InverseGamma(2.0, 0.5).energy(np.array(l)))

    return U, exact


MODELS = [
    (noise_model, "likelihood.log_noise"),
    (scale_model, "prior.0.weight.log_scale"),
]


@pytest.mark.slow
@pytest.mark.physics
@pytest.mark.parametrize(
    "make",
    [
        lambda: integrators.HMC(dt=0.12, steps=10, jitter=0.3),
        lambda: integrators.BAOAB(dt=0.05, temperature=1.0, friction=1.0),
    ],
    ids=["HMC", "BAOAB"],
)
@pytest.mark.parametrize(("model", "name"), MODELS, ids=["noise", "scale"])
def test_marginal_of_a_sampled_scale(model, name, make):
    law = InverseGamma(2.0, 0.5)
    U, density = model(law)
    exact = moments(density)
    metropolised = make().scheme.force_calls > 1
    warm, steps = (20, 200) if metropolised else (200, 2000)
    assert scores(U, name, make(), exact, warm, steps).max() < 5
    wrong = model(NoJacobian(law))[0]
    assert scores(wrong, name, make(), exact, warm, steps).max() > 5


def test_evidence_with_unknown_noise():
    """All constants: the integral of exp(-U) over weight and log noise."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(5, 1))
    y = X[:, 0] + 0.5 * rng.normal(size=5)
    law = HalfNormal(1.0)
    U = Posterior(MLP([1, 1], bias=False), Gaussian(law), GaussianPrior(1.0), (X, y))
    w, l = np.linspace(-5, 6, 501), np.linspace(-6, 3, 501)
    grid = np.stack(np.meshgrid(w, l, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(-U.energy(grid)).sum() * (w[1] - w[0]) * (l[1] - l[0])

    def marginal(s):
        exact = potentials.LinearRegression(X, y, noise=s, prior_scale=1.0)
        return math.exp(exact.log_evidence()) * stats.halfnorm.pdf(s)

    expected = integrate.quad(marginal, 1e-3, 8)[0]
    assert mass == pytest.approx(expected, rel=1e-4)


@pytest.mark.physics
@pytest.mark.parametrize(
    ("temperature", "likelihood_temperature"), [(1.0, 0.2), (0.2, 1.0)]
)
def test_tempered_covariances(temperature, likelihood_temperature):
    """T H(T_L)^-1 exactly; exchanging the two temperatures must fail."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(6, 2))
    y = X @ [0.7, -0.4] + rng.normal(size=6)
    U = Posterior(
        MLP([2, 1], bias=False),
        Gaussian(1.0),
        GaussianPrior(0.5),
        (X, y),
        likelihood_temperature=likelihood_temperature,
    )

    def covariance(t, data):
        return t * np.linalg.inv(X.T @ X / data + 4 * np.eye(2))

    hmc = integrators.HMC(dt=0.1, steps=8, temperature=temperature, jitter=0.3)
    sim = mdnet.Simulation(U, hmc, replicas=400, seed=3, precision="double")
    sim.run(30)
    record = reporters.Memory(every=2)
    sim.run(120, reporters=[record])
    q = np.asarray(record.positions)
    q = q - q.mean(axis=(0, 1))
    products = np.einsum("tri,trj->rij", q, q) / len(q)
    error = products.std(axis=0, ddof=1) / 20
    mean = products.mean(axis=0)
    exact = covariance(temperature, likelihood_temperature)
    assert np.abs((mean - exact) / error).max() < 5
    wrong = covariance(likelihood_temperature, temperature)
    assert np.abs((mean - wrong) / error).max() > 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HalfNormal(0.0), "scale=0.0"),
        (lambda: HalfCauchy(-1), "scale=-1"),
        (lambda: LogNormal(width=math.inf), "width=inf"),
        (lambda: InverseGamma(rate="a"), "rate='a'"),
        (lambda: FanIn(gain=0), "gain=0"),
        (lambda: HorseshoePrior(0), "scale=0"),
        (lambda: HierarchicalGaussianPrior(HalfNormal), "a law of a scale"),
        (lambda: HierarchicalGaussianPrior({"0.weight": None}), "scale=None"),
        (lambda: HierarchicalGaussianPrior(-1.0), "scale=-1.0"),
        (
            lambda: HierarchicalGaussianPrior({"0.weight": 1.0}).check(NET.layout),
            "no value for tensors",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(PotentialError, match=message):
        make()


def test_settings():
    law = {"name": "half_normal", "scale": 1.0}
    one = HierarchicalGaussianPrior().describe()
    assert one == {"name": "hierarchical_gaussian", "scale": law}
    each = HierarchicalGaussianPrior({"a": 2, "b": HalfNormal()}).describe()
    assert each["scale"] == {"a": 2.0, "b": law}
    assert HorseshoePrior(0.5).describe() == {"name": "horseshoe", "scale": 0.5}
