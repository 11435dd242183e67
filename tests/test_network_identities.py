"""Identities that networks obey: fixed points, homogeneity, invariance of scale."""

import math

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.potentials import (
    MLP,
    Activation,
    AvgPool2d,
    Conv2d,
    Dense,
    FilterResponseNorm,
    Flatten,
    LayerNorm,
    MaxPool2d,
    Sequential,
    layer_moments,
)
from mdnet.potentials.activations import value


@pytest.mark.physics
def test_selu_networks_keep_mean_zero_and_variance_one():
    """Klambauer et al. 2017: the fixed point, and that it attracts.

    The weights of a layer of 256 units move its variance by sqrt(2/256) = 0.09, four
    replicas average, and what is left of the layers before does not grow: an error
    below 0.05.  The bound is four errors: false alarms below 1e-4.
    """
    X = np.random.default_rng(0).standard_normal((200, 256))

    def after(activation, start, scale):
        net = MLP([256] * 9, activation, bias=False, initializer=start)
        found = layer_moments(net, net.initial(4, seed=2), scale * X)
        values = [i for i, n in enumerate(found.layers) if n.endswith("Activation")]
        return found.mean.mean(axis=0)[values], found.variance.mean(axis=0)[values]

    mean, variance = after("selu", "lecun", 1.0)
    assert np.abs(mean).max() < 0.05
    assert np.abs(variance - 1).max() < 0.2
    _, variance = after("selu", "lecun", 1.3)
    assert abs(variance[-1] - 1) < 0.2 < abs(variance[0] - 1)
    # Negative controls: another activation, and another start, leave the fixed point.
    assert after("tanh", "lecun", 1.0)[1][-1] < 0.5
    assert after("selu", "he", 1.0)[1][-1] > 2


def test_selu_map_has_its_fixed_point():
    """Mean and variance of selu(x), x ~ N(0, 1), by quadrature: 0 and 1 to 1e-12."""
    x, w = np.polynomial.legendre.leggauss(100)
    moments = []
    for low, high in ((-12.0, 0.0), (0.0, 12.0)):  # the kink splits the line
        at = (high - low) / 2 * x + (high + low) / 2
        weight = w * (high - low) / 2 * np.exp(-at * at / 2) / math.sqrt(2 * math.pi)
        y = value("selu", at)
        moments.append([(weight * y).sum(), (weight * y * y).sum()])
    mean, square = np.sum(moments, axis=0)
    assert abs(mean) < 1e-12
    assert abs(square - 1) < 1e-12


def terms(net, q, X, delta):
    """q d/dq of sum delta.z for each parameter, by tensors: a list of (R, size)."""
    _, tape = net.tape(q, X)
    g = np.zeros_like(q)
    net.backward(q, tape, delta, g)
    return [(q * g)[:, w] for w, _ in net.layout.values()]


def products(net, q, X, delta):
    """w_l . d/dw_l of sum delta.z for every tensor, (R, L)."""
    return np.stack([t.sum(axis=1) for t in terms(net, q, X, delta)], axis=1)


def test_euler_identity_of_bias_free_rectifier_networks():
    """Outputs are of degree one in each layer's weights: w_l . dL/dw_l is one number.

    So L need not be homogeneous itself.  Equal to 1e-15 of the terms that are summed.
    """
    rng = np.random.default_rng(1)
    dense = MLP([8, 16, 16, 4], "relu", bias=False)
    images_net = Sequential(
        [
            Conv2d(2, 3, 3, bias=False), Activation("relu"), MaxPool2d(2),
            Conv2d(3, 4, 2, bias=False), Activation("leaky_relu"), AvgPool2d(2),
            Flatten(), Dense(4, 3, bias=False),
        ],
        (2, 8, 8),
    )  # fmt: skip
    for net in (dense, images_net):
        q, X = net.initial(3, seed=2), rng.standard_normal((20, net.inputs))
        y = rng.integers(0, net.outputs, (20, 1))
        categorical = potentials.likelihoods.Categorical()
        delta = categorical.residual(net.forward(q, X), y)
        found = products(net, q, X, delta)
        size = max(np.abs(t).sum(axis=1).max() for t in terms(net, q, X, delta))
        assert np.ptp(found, axis=1).max() < 1e-15 * size
        assert np.abs(found).min() > 1e-3
    # Negative control: a bias, or a bent activation, breaks it.
    bent = MLP([8, 16, 16, 4], "tanh", bias=False)
    q, X = bent.initial(3, seed=2), rng.standard_normal((20, 8))
    found = products(bent, q, X, rng.standard_normal((3, 20, 4)))
    assert np.ptp(found, axis=1).min() > 1e-3


@pytest.mark.parametrize(
    ("norm", "before", "where"),
    [
        (LayerNorm(6, eps=0.0), Dense(36, 6, bias=False), "1"),
        (LayerNorm((2, 4, 4), eps=0.0), Conv2d(1, 2, 3, bias=False), "0"),
        (FilterResponseNorm(2, eps=0.0), Conv2d(1, 2, 3, bias=False), "0"),
    ],
)
def test_scale_invariance_under_normalisation(norm, before, where):
    """w . dL/dw = 0 for weights before a norm, since L does not see their length."""
    tail = [norm, Activation("gelu"), Flatten()]
    width = 6 if isinstance(before, Dense) else 32
    head = [Flatten(), before] if isinstance(before, Dense) else [before]
    net = Sequential([*head, *tail, Dense(width, 3)], (1, 6, 6))
    rng = np.random.default_rng(3)
    q, X = net.initial(2, seed=1), rng.standard_normal((9, 36))
    delta = rng.standard_normal((2, 9, 3))
    found = dict(zip(net.layout, products(net, q, X, delta).T, strict=True))
    assert np.abs(found[f"{where}.weight"]).max() < 1e-13
    last = list(net.layout)[-2]
    assert np.abs(found[last]).min() > 1e-3  # not of weights after the norm
    z = net.forward(q, X)
    q[:, net.layout[f"{where}.weight"][0]] *= 7.0
    np.testing.assert_allclose(net.forward(q, X), z, rtol=1e-11, atol=1e-12)


@pytest.mark.physics
def test_weights_before_a_norm_spread_freely():
    """Overdamped, without a prior: <|w|^2> = |w_0|^2 + 2 D T t, as w . F = 0.

    The steps add h^2 |F|^2, which is summed beside.  800 replicas; five
    standard errors, false alarms below 1e-6.
    """
    rng = np.random.default_rng(4)
    net = Sequential(
        [Dense(4, 3, bias=False), LayerNorm(3, eps=0.0, affine=False), Dense(3, 2)], 4
    )
    X, y = rng.standard_normal((8, 4)), rng.integers(0, 2, 8)
    U = potentials.Posterior(net, prior=None, data=(X, y))
    where = net.layout["0.weight"][0]
    replicas, steps, h, T = 800, 40, 2e-3, 1.0
    start = np.tile(U.initial(1, seed=2) * 3, (replicas, 1))
    sim = mdnet.Simulation(
        U, integrators.SGLD(dt=h, temperature=T), replicas=replicas, positions=start,
        seed=5, precision="double",
    )  # fmt: skip
    pushed = np.zeros(replicas)
    for _ in range(steps):
        force = U.gradient(sim.state.positions)[:, where]
        pushed += h * h * (force**2).sum(axis=1)
        sim.run(1)
    w = sim.state.positions[:, where]
    growth = (w**2).sum(axis=1) - (start[:, where] ** 2).sum(axis=1) - pushed
    error = growth.std() / np.sqrt(replicas)
    exact = 2 * w.shape[1] * T * steps * h
    assert abs(growth.mean() - exact) < 5 * error
    assert abs(growth.mean() - exact / 2) > 5 * error  # noise of sqrt(T dt) would show
    # Negative control: the weights after the norm are held by the data.
    last = net.layout["2.weight"][0]
    after = (sim.state.positions[:, last] ** 2).sum(axis=1)
    grown = after - (start[:, last] ** 2).sum(axis=1)
    wrong = 2 * (last.stop - last.start) * T * steps * h
    assert abs(grown.mean() - wrong) > 5 * grown.std() / np.sqrt(replicas)
