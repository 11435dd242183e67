"""Networks, activations and the elementary functions under them."""

import pickle

import numpy as np
import pytest
from numba import njit

from mdnet.errors import PotentialError
from mdnet.kernels import elementary
from mdnet.kernels.codes import ACTIVATIONS
from mdnet.potentials.activations import gain, value_and_slope
from mdnet.potentials.networks import MLP

_REFERENCE = {
    "exp": np.exp,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "log": np.log,
    "log1p_unit": np.log1p,
}


def _loop(function):
    @njit(fastmath={"contract", "nsz"}, error_model="numpy")
    def loop(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    return loop


def _arguments(name):
    rng = np.random.default_rng(0)
    if name == "log":
        return np.exp(rng.uniform(-80, 80, 30_000))
    if name == "log1p_unit":
        return np.append(rng.uniform(0, 1, 20_000), 10 ** rng.uniform(-20, 0, 20_000))
    if name in ("exp", "sigmoid"):
        return rng.uniform(-86, 86, 30_000)
    small = 10 ** rng.uniform(-15, 0, 20_000)
    return np.concatenate([rng.uniform(-30, 30, 20_000), small, -small])


@pytest.mark.parametrize("name", _REFERENCE)
@pytest.mark.parametrize(
    ("dtype", "wider"), [(np.float32, np.float64), (np.float64, np.longdouble)]
)
def test_elementary_functions_are_accurate(name, dtype, wider):
    if np.finfo(wider).eps >= np.finfo(dtype).eps:
        pytest.skip("no wider type on this machine")
    x = _arguments(name).astype(dtype)
    y = np.empty_like(x)
    loop = _loop(getattr(elementary, name))
    loop(x, y)
    exact = _REFERENCE[name](x.astype(wider))
    ulp = np.spacing(np.abs(exact).astype(dtype)).astype(wider)
    bound = 6 if name == "tanh" and dtype == np.float32 else 3
    assert np.max(np.abs(y - exact) / ulp) < bound
    # On the host the names are ordinary functions.
    assert getattr(elementary, name)(0.5) == pytest.approx(_REFERENCE[name](0.5))
    # NaN must not be hidden; infinities saturate in order.
    loop(np.array([np.nan], dtype), y[:1])
    assert np.isnan(y[0])


def test_layout_and_size():
    net = MLP([4, 3, 2])
    assert net.size == 4 * 3 + 3 + 3 * 2 + 2
    assert dict(net.layout) == {
        "0.weight": (slice(0, 12), (3, 4)),
        "0.bias": (slice(12, 15), (3,)),
        "1.weight": (slice(15, 21), (2, 3)),
        "1.bias": (slice(21, 23), (2,)),
    }
    assert list(MLP([4, 3, 2], bias=False).layout) == ["0.weight", "1.weight"]
    assert MLP(np.array([4, 3])).sizes == (4, 3)


def test_pickle_and_describe():
    net = MLP([4, 3, 2], activation="gelu")
    twin = pickle.loads(pickle.dumps(net))
    assert twin == net
    assert dict(twin.layout) == dict(net.layout)
    assert net.describe() == {
        "name": "MLP",
        "sizes": [4, 3, 2],
        "activation": "gelu",
        "bias": True,
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_the_formula(activation):
    net = MLP([3, 5, 4, 2], activation=activation)
    rng = np.random.default_rng(1)
    q, X = rng.normal(size=(2, net.size)), rng.normal(size=(6, 3))
    out = net.forward(q, X)
    for r in range(2):
        a = X
        for l in range(3):
            where, shape = net.layout[f"{l}.weight"]
            z = a @ q[r, where].reshape(shape).T + q[r, net.layout[f"{l}.bias"][0]]
            a = value_and_slope(activation, z)[0] if l < 2 else z
        np.testing.assert_allclose(out[r], a, rtol=1e-13, atol=1e-13)
    single = net.forward(q.astype(np.float32), X)
    assert single.dtype == np.float32
    per_replica = net.forward(q, np.stack([X, X]))
    np.testing.assert_allclose(per_replica, out, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_are_derivatives(activation):
    x = np.linspace(-6, 6, 400)  # even: misses the kinks at zero
    h = 1e-6
    upper, lower = (value_and_slope(activation, x + s)[0] for s in (h, -h))
    slope = value_and_slope(activation, x)[1]
    np.testing.assert_allclose(slope, (upper - lower) / (2 * h), atol=1e-8)


def test_known_values():
    value = {n: value_and_slope(n, np.array([1.0, -2.0]))[0] for n in ACTIVATIONS}
    np.testing.assert_array_equal(value["relu"], [1, 0])
    np.testing.assert_allclose(value["silu"], [0.7310585786300049, -0.2384058440442351])
    np.testing.assert_allclose(value["softplus"], [1.3132616875182228, 0.1269280110429])
    np.testing.assert_allclose(value["selu"], [1.0507009873554805, -1.5201664685956484])
    # The tanh form, not the error function (0.841344746, -0.045500264).
    np.testing.assert_allclose(value["gelu"], [0.8411919906, -0.0454023059], rtol=1e-8)


def _selu_moments(net):
    q = net.initial(replicas=8, seed=3)
    X = np.random.default_rng(4).normal(size=(2000, net.inputs))
    z = net.forward(q, X)
    a = value_and_slope(net.activation, z)[0]
    return a.mean(), a.var()


@pytest.mark.physics
def test_selu_fixed_point():
    """Mean 0, variance 1 at any depth; width 256 leaves an error of a few percent."""
    mean, variance = _selu_moments(MLP([256] * 9, activation="selu", bias=False))
    assert abs(mean) < 0.05
    assert abs(variance - 1) < 0.1
    # Negative control: tanh shrinks its inputs layer by layer.
    mean, variance = _selu_moments(MLP([256] * 9, activation="tanh", bias=False))
    assert abs(variance - 1) > 0.5


@pytest.mark.physics
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_variance(activation):
    """Weights have variance gain/fan-in: 5 standard errors, false alarms below 1e-5."""
    net = MLP([100, 60, 10], activation=activation)
    q = net.initial(replicas=4, seed=1)
    assert q.shape == (4, net.size)
    assert q.dtype == np.float64
    w = q[:, net.layout["0.weight"][0]]
    error = abs(w.var() * 100 / gain(activation) - 1)
    assert error < 5 * np.sqrt(2 / w.size)
    assert abs(w.var() * 60 / gain(activation) - 1) > 5 * np.sqrt(2 / w.size)
    assert not q[:, net.layout["0.bias"][0]].any()
    np.testing.assert_array_equal(net.initial(2, seed=1), q[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [3]}, "at least an input and an output"),
        ({"sizes": [3, 0]}, "positive integers"),
        ({"sizes": [3, 2.5]}, "positive integers"),
        ({"sizes": "34"}, "widths of all layers"),
        ({"sizes": 3}, "widths of all layers"),
        ({"sizes": [3, 2], "activation": "swish"}, "relu, tanh"),
        ({"sizes": [3, 2], "activation": None}, "relu, tanh"),
    ],
)
def test_bad_networks(arguments, message):
    with pytest.raises(PotentialError, match=message):
        MLP(**arguments)


def test_bad_shapes():
    net = MLP([3, 2])
    with pytest.raises(PotentialError, match=r"expected \(R, 8\)"):
        net.forward(np.zeros((2, 7)), np.zeros((4, 3)))
    with pytest.raises(PotentialError, match=r"expected \(n, 3\)"):
        net.forward(np.zeros((2, 8)), np.zeros((4, 5)))
