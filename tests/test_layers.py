"""Layers one by one: formulas, gradients, second derivatives, shapes, and PyTorch."""

import json
import pickle

import numpy as np
import pytest

from mdnet.errors import PotentialError
from mdnet.kernels.codes import ACTIVATIONS
from mdnet.potentials import Sequential, _work
from mdnet.potentials.activations import (
    NAMES,
    curvature,
    slope_of_value,
    value,
    value_and_slope,
)
from mdnet.potentials.layers import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dense,
    Embedding,
    FilterResponseNorm,
    Flatten,
    LayerNorm,
    MaxPool2d,
    Residual,
    SequenceMean,
)

IMAGE = (2, 7, 6)
IN_THE_MIDDLE = {
    "conv": Conv2d(3, 2, 3),
    "conv_strided": Conv2d(3, 2, (3, 2), stride=(2, 1), padding=(1, 0)),
    "conv_wide_stride": Conv2d(3, 2, 2, stride=3, bias=False),
    "conv_1x1": Conv2d(3, 4, 1),
    "average": AvgPool2d(2),
    "average_overlapping": AvgPool2d((3, 2), stride=(2, 1)),
    "average_gaps": AvgPool2d(2, stride=3),
    "max": MaxPool2d((1, 2)),
    "max_uneven": MaxPool2d(2),
    "max_overlapping": MaxPool2d(3, stride=2),
    "layer_norm": LayerNorm((3, 7, 6)),
    "layer_norm_rows": LayerNorm(6, eps=0.1),
    "layer_norm_plain": LayerNorm((7, 6), affine=False),
    "response": FilterResponseNorm(3, eps=0.01),
    "response_linear": FilterResponseNorm(3, threshold=False),
    "residual": Residual(Conv2d(3, 3, 3, padding=1), Activation("tanh")),
    "residual_shortcut": Residual(
        Conv2d(3, 2, 3, stride=2, padding=1),
        Activation("silu"),
        shortcut=Conv2d(3, 2, 1, stride=2),
    ),
    "residual_pooled": Residual(AvgPool2d(2), shortcut=MaxPool2d(2)),
    "nested": Residual(Residual(Activation("gelu")), Conv2d(3, 3, 1)),
} | {name: Activation(name) for name in NAMES}


def image_network(layer):
    """The layer between two with weights, so that both of its derivatives count."""
    first = Conv2d(2, 3, 3, padding=1)
    shape = layer.output_shape(first.output_shape(IMAGE))
    last = Dense(int(np.prod(shape)), 2)
    return Sequential([first, layer, Flatten(), last], IMAGE)


def token_network():
    return Sequential(
        [Embedding(5, 3), LayerNorm(3), SequenceMean(), Dense(3, 2)], input_shape=4
    )


def first_network(layer):
    """The layer at the start, where inputs have one row for all replicas."""
    shape = layer.output_shape(IMAGE)
    last = Dense(int(np.prod(shape)), 2)
    return Sequential([layer, Flatten(), last], IMAGE)


NETWORKS = {name: image_network(layer) for name, layer in IN_THE_MIDDLE.items()} | {
    "tokens": token_network(),
    "first_norm": first_network(LayerNorm((7, 6))),
    "first_response": first_network(FilterResponseNorm(2)),
    "first_residual": first_network(
        Residual(MaxPool2d(2), shortcut=Conv2d(2, 2, 2, 2))
    ),
    "first_pool": first_network(AvgPool2d(2)),
}


def problem(net, seed=0, replicas=2, rows=3):
    """Weights away from kinks, inputs, a pull-back of the outputs, a direction."""
    rng = np.random.default_rng(seed)
    q = net.initial(replicas, seed=1) + 0.1 * rng.standard_normal((replicas, net.size))
    if isinstance(net.layers[0], Embedding):
        X = rng.integers(0, net.layers[0].count, (rows, net.inputs)).astype(float)
    else:
        X = rng.standard_normal((rows, net.inputs))
    delta = rng.standard_normal((replicas, rows, net.outputs))
    v = rng.standard_normal(q.shape)
    return q, X, delta, v / np.linalg.norm(v, axis=1, keepdims=True)


def gradient(net, q, X, delta):
    z, tape = net.tape(q, X)
    out = np.zeros_like(q)
    net.backward(q, tape, delta, out)
    return z, out


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_is_the_derivative(name):
    net = NETWORKS[name]
    q, X, delta, _ = problem(net)
    _, found = gradient(net, q, X, delta)
    h, rng = 1e-5, np.random.default_rng(5)
    for j in rng.choice(net.size, min(net.size, 40), replace=False):
        step = np.zeros(net.size)
        step[j] = h
        upper, lower = (net.forward(q + s * step, X) for s in (1, -1))
        numeric = ((upper - lower) * delta).sum(axis=(1, 2)) / (2 * h)
        np.testing.assert_allclose(found[:, j], numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_second_derivatives(name):
    """R{gradient} of f = sum delta.z + |z|^2/2 is the difference of gradients."""
    net = NETWORKS[name]
    q, X, delta, v = problem(net)
    z, tape = net.tape(q, X)
    first = np.zeros_like(q)
    net.backward(q, tape, delta, first)
    dz, dots = net.tangent(q, v, tape)
    # Tangent and reverse pass are transposes of each other.
    np.testing.assert_allclose(
        (dz * delta).sum(axis=(1, 2)), (first * v).sum(axis=1), rtol=1e-10, atol=1e-12
    )
    found = np.zeros_like(q)
    net.second(q, v, tape, dots, delta + z, dz, found)
    h = 1e-5
    ends = []
    for s in (h, -h):
        z, tape = net.tape(q + s * v, X)
        out = np.zeros_like(q)
        net.backward(q + s * v, tape, delta + z, out)
        ends.append(out)
    numeric = (ends[0] - ends[1]) / (2 * h)
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-6)
    # Negative control: without the tangent of the pull-back the test would fail.
    wrong = np.zeros_like(q)
    net.second(q, v, net.tape(q, X)[1], dots, delta, np.zeros_like(dz), wrong)
    assert np.abs(wrong - numeric).max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_passes_leave_what_they_are_given(name):
    """A tape serves twice, and neither data, weights nor pull-back are written to."""
    net = NETWORKS[name]
    q, X, delta, v = problem(net)
    for array in (q, X, delta, v):
        array.flags.writeable = False
    z, tape = net.tape(q, X)
    once = np.zeros_like(q)
    net.backward(q, tape, delta, once)
    dz, dots = net.tangent(q, v, tape)
    net.second(q, v, tape, dots, delta, dz, np.zeros_like(q))
    twice = np.zeros_like(q)
    net.backward(q, tape, delta, twice)
    np.testing.assert_array_equal(once, twice)
    np.testing.assert_array_equal(z, net.forward(q, X))


@pytest.mark.parametrize("name", NETWORKS)
def test_replicas_types_and_data_of_their_own(name):
    net = NETWORKS[name]
    q, X, delta, _ = problem(net)
    z, g = gradient(net, q, X, delta)
    for r in range(2):
        alone = gradient(net, q[r : r + 1], X, delta[r : r + 1])
        np.testing.assert_allclose(alone[0][0], z[r], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(alone[1][0], g[r], rtol=1e-11, atol=1e-12)
    own = gradient(net, q, np.stack([X, X]), delta)
    np.testing.assert_allclose(own[0], z, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(own[1], g, rtol=1e-11, atol=1e-12)
    single = gradient(net, q.astype("f4"), X.astype("f4"), delta.astype("f4"))
    assert single[0].dtype == single[1].dtype == np.float32
    np.testing.assert_allclose(single[0], z, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_describe_compare_and_travel(name):
    net = NETWORKS[name]
    twin = pickle.loads(pickle.dumps(net))
    assert twin == net
    assert json.loads(json.dumps(net.describe())) == net.describe()
    assert twin.describe() == net.describe()
    assert dict(twin.layout) == dict(net.layout)
    assert hash(net.layers[1]) == hash(twin.layers[1])
    with pytest.raises(AttributeError):
        net.layers[0].kernel = 3


@pytest.mark.parametrize("name", NAMES)
def test_activation_formulas_agree(name):
    x = np.linspace(-6, 6, 400)  # even: misses the kinks at zero
    y, slope = value_and_slope(name, x)
    np.testing.assert_allclose(value(name, x), y, rtol=1e-15)
    into = x.copy()
    assert value(name, into, out=into) is into
    np.testing.assert_allclose(into, y, rtol=1e-15)
    h = 1e-5
    (up, bend_up), (down, bend_down) = (value_and_slope(name, x + s) for s in (h, -h))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=1e-9)
    second = curvature(name, x, y)
    np.testing.assert_allclose(second, (bend_up - bend_down) / (2 * h), atol=1e-9)
    short = slope_of_value(name, y)
    if short is None:
        assert name in ("silu", "gelu")
    else:
        np.testing.assert_allclose(short, slope, rtol=1e-12, atol=1e-14)


def test_new_activations_have_known_values():
    x = np.array([1.0, -2.0])
    np.testing.assert_allclose(value("sigmoid", x), [0.7310585786, 0.1192029220])
    np.testing.assert_allclose(value("elu", x), [1, -0.8646647168])
    np.testing.assert_allclose(value("leaky_relu", x), [1, -0.02])
    assert set(NAMES) - set(ACTIVATIONS) == {"sigmoid", "elu", "leaky_relu"}


def forward(layer, weights, x):
    """The layer alone, of one replica: x (n, *shape) to y (n, ...)."""
    w = [np.asarray(t)[None] for t in weights]
    y, _ = layer.forward(w, np.moveaxis(x, 0, -1)[None])
    return np.moveaxis(y[0], -1, 0)


def test_convolution_is_its_sum():
    rng = np.random.default_rng(1)
    layer = Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2))
    W, b = rng.standard_normal((3, 2, 3, 2)), rng.standard_normal(3)
    x = rng.standard_normal((2, *IMAGE))
    y = forward(layer, [W, b], x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    assert y.shape == (2, *layer.output_shape(IMAGE)) == (2, 3, 4, 9)
    for a, c in np.ndindex(4, 9):
        window = padded[:, :, 2 * a : 2 * a + 3, c : c + 2]
        exact = np.einsum("ncij,ocij->no", window, W) + b
        np.testing.assert_allclose(y[:, :, a, c], exact, rtol=1e-12, atol=1e-12)


def test_pools_are_means_and_maxima():
    x = np.random.default_rng(2).standard_normal((2, *IMAGE))
    mean, top = forward(AvgPool2d(2), [], x), forward(MaxPool2d(3, 2), [], x)
    assert mean.shape == (2, 2, 3, 3)
    assert top.shape == (2, 2, 3, 2)
    for a, c in np.ndindex(3, 2):
        window = x[:, :, 2 * a : 2 * a + 2, 2 * c : 2 * c + 2]
        np.testing.assert_allclose(mean[:, :, a, c], window.mean(axis=(2, 3)))
        window = x[:, :, 2 * a : 2 * a + 3, 2 * c : 2 * c + 3]
        np.testing.assert_array_equal(top[:, :, a, c], window.max(axis=(2, 3)))


def test_first_of_equal_maxima_wins():
    net = Sequential([Conv2d(1, 1, 1), MaxPool2d(2), Flatten()], (1, 2, 2))
    q = np.array([[1.0, 0.0]])
    _, g = gradient(net, q, np.array([[1.0, 1.0, 0.0, 1.0]]), np.ones((1, 1, 1)))
    np.testing.assert_array_equal(g, [[1.0, 1.0]])


def test_normalisations_are_their_formulas():
    rng = np.random.default_rng(3)
    x = 3 + 2 * rng.standard_normal((4, *IMAGE))
    g, b, t = rng.standard_normal((3, 2))
    y = forward(FilterResponseNorm(2, eps=1e-3), [g, b, t], x)
    scale = np.sqrt((x**2).mean(axis=(2, 3), keepdims=True) + 1e-3)
    exact = np.maximum(
        g[:, None, None] * x / scale + b[:, None, None], t[:, None, None]
    )
    np.testing.assert_allclose(y, exact, rtol=1e-12)
    y = forward(LayerNorm((7, 6), affine=False, eps=0.0), [], x)
    np.testing.assert_allclose(y.mean(axis=(2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(2, 3)), 1, rtol=1e-12)


def test_embedding_looks_up_and_means():
    table = np.random.default_rng(4).standard_normal((5, 3))
    x = np.array([[0, 4, 4], [2, 1, 0]])
    found = forward(Embedding(5, 3), [table], x)
    np.testing.assert_array_equal(found, table[x])
    np.testing.assert_allclose(
        forward(SequenceMean(), [], found), table[x].mean(axis=1)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(0, 3), "inputs=0: expected an integer >= 1"),
        (lambda: Dense(3, 2.5), "outputs=2.5"),
        (lambda: Conv2d(1, 2, 0), "kernel=0"),
        (lambda: Conv2d(1, 2, (3, 3, 3)), "an integer or"),
        (lambda: Conv2d(1, 2, 3, padding=-1), "padding=-1"),
        (lambda: MaxPool2d(2, stride=0), "stride=0"),
        (lambda: LayerNorm(()), r"shape=\(\)"),
        (lambda: LayerNorm(4, eps=-1), "eps=-1"),
        (lambda: FilterResponseNorm(4, eps="small"), "eps='small'"),
        (lambda: Embedding(2**25, 3), "at most 16777216"),
        (lambda: Activation("swish"), "relu, tanh"),
        (lambda: Residual(), "expected a list of layers"),
        (lambda: Residual(3), r"layers\[0\]=3"),
    ],
)
def test_bad_layers(make, message):
    with pytest.raises(PotentialError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Dense(4, 2), (3,), r"shape \(3,\): expected \(4,\)"),
        (Dense(12, 2), (3, 2, 2), r"put Flatten\(\) before it"),
        (Conv2d(3, 2, 3), (1, 8, 8), r"expected \(3, height, width\)"),
        (Conv2d(3, 2, 5, padding=1), (3, 2, 8), "at least 3 x 3"),
        (AvgPool2d(4), (2, 3, 8), "at least 4 x 4"),
        (MaxPool2d(2), (8,), r"expected \(channels, height, width\)"),
        (LayerNorm((4, 4)), (2, 4, 3), "last axes"),
        (FilterResponseNorm(2), (3, 4, 4), r"\(2, height, width\)"),
        (Embedding(5, 3), (3, 4), "token numbers"),
        (SequenceMean(), (4,), r"\(T, width\)"),
        (Residual(Conv2d(2, 3, 1)), (2, 4, 4), "body and shortcut of one shape"),
    ],
)
def test_shapes_that_do_not_fit(layer, shape, message):
    with pytest.raises(PotentialError, match=message):
        layer.output_shape(shape)


def test_tokens_outside_the_table():
    net = token_network()
    q = net.initial(1)
    for bad in (5.0, -1.0, 1.5):
        with pytest.raises(PotentialError, match="whole numbers 0 to 4"):
            net.forward(q, np.full((2, 4), bad))


def test_residual_does_not_change():
    block = Residual(Activation("tanh"))
    with pytest.raises(AttributeError, match="does not change"):
        block.layers = ()
    assert repr(block) == "Residual(Activation(name='tanh'))"


def torch_twin(torch, layer):
    nn = torch.nn
    if isinstance(layer, Conv2d):
        return nn.Conv2d(
            layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding,
            bias=layer.bias,
        )  # fmt: skip
    if isinstance(layer, Activation):
        return {
            "identity": nn.Identity(), "relu": nn.ReLU(), "tanh": nn.Tanh(),
            "silu": nn.SiLU(), "gelu": nn.GELU("tanh"), "softplus": nn.Softplus(),
            "selu": nn.SELU(), "sigmoid": nn.Sigmoid(), "elu": nn.ELU(),
            "leaky_relu": nn.LeakyReLU(),
        }[layer.name]  # fmt: skip
    if isinstance(layer, LayerNorm):
        return nn.LayerNorm(layer.shape, layer.eps, layer.affine)
    pools = {AvgPool2d: nn.AvgPool2d, MaxPool2d: nn.MaxPool2d}
    return pools[type(layer)](layer.kernel, layer.stride)


@pytest.mark.parametrize(
    "name",
    [n for n, l in IN_THE_MIDDLE.items() if type(l).__name__[:3] not in ("Res", "Fil")],
)
def test_parity_with_pytorch(name):
    """Outputs and gradients to 1e-10 in double precision, names in the same order."""
    torch = pytest.importorskip("torch")
    net = NETWORKS[name]
    q, X, delta, _ = problem(net, replicas=1)
    z, g = gradient(net, q, X, delta)
    first, layer, _, last = net.layers
    twin = torch.nn.Sequential(
        torch_twin(torch, first),
        torch_twin(torch, layer),
        torch.nn.Flatten(),
        torch.nn.Linear(last.inputs, last.outputs),
    ).double()
    assert [n for n, _ in twin.named_parameters()] == list(net.layout)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(q[0]), twin.parameters())
    out = twin(torch.from_numpy(X.reshape(-1, *IMAGE)))
    (out * torch.from_numpy(delta[0])).sum().backward()
    theirs = torch.cat([p.grad.ravel() for p in twin.parameters()]).numpy()
    np.testing.assert_allclose(z[0], out.detach().numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(g[0], theirs, rtol=1e-10, atol=1e-10)


def test_embedding_parity_with_pytorch():
    torch = pytest.importorskip("torch")
    net = token_network()
    q, X, delta, _ = problem(net, replicas=1)
    z, g = gradient(net, q, X, delta)
    table, norm, dense = (
        torch.nn.Embedding(5, 3).double(),
        torch.nn.LayerNorm(3).double(),
        torch.nn.Linear(3, 2).double(),
    )
    twin = torch.nn.ModuleList([table, norm, dense])
    torch.nn.utils.vector_to_parameters(torch.from_numpy(q[0]), twin.parameters())
    out = dense(norm(table(torch.from_numpy(X).long())).mean(dim=1))
    (out * torch.from_numpy(delta[0])).sum().backward()
    theirs = torch.cat([p.grad.ravel() for p in twin.parameters()]).numpy()
    np.testing.assert_allclose(z[0], out.detach().numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(g[0], theirs, rtol=1e-10, atol=1e-10)


def test_large_work_arrays_are_used_again_once_nobody_looks():
    pool = _work.Pool()
    first = pool.take(10**6)
    address = first.ctypes.data
    view = first[:100].view(np.float32).reshape(5, 5)
    del first
    assert pool.kept == 0  # a view is left
    other = pool.take(10**6)
    assert other.ctypes.data != address
    view[...] = 3
    other[...] = 0
    assert (view == 3).all()
    del view
    assert pool.kept >= 10**6
    assert pool.take(10**6 - 10).ctypes.data == address
    del other
    pool.take(_work.LIMIT)  # does not fit beside the others, which go
    assert pool.kept == _work.LIMIT


def test_small_work_arrays_are_plain():
    assert _work.empty(np, (3, 4), np.float32).base is None
    large = _work.empty(np, (2, _work.SMALLEST), np.float64)
    assert large.shape == (2, _work.SMALLEST)
    assert large.dtype == np.float64
    assert large.flags.writeable
    assert large.flags.c_contiguous


def test_a_tape_keeps_its_large_arrays():
    """Passes that follow do not write into what an older tape still needs."""
    net = Sequential([Conv2d(1, 8, 3), Activation("tanh"), Flatten(), Dense(6272, 2)],
                     (1, 30, 30))  # fmt: skip
    q, X, delta, _ = problem(net, replicas=1, rows=8)
    z, tape = net.tape(q, X)
    once, again = np.zeros_like(q), np.zeros_like(q)
    net.backward(q, tape, delta, once)
    for seed in range(3):
        gradient(net, *problem(net, seed + 1, replicas=1, rows=8)[:3])
    net.backward(q, tape, delta, again)
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(z, net.forward(q, X))
