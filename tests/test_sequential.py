"""Networks of layers: names, starts, posteriors, identities, parity with PyTorch."""

import json
import math
import pickle

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import PotentialError
from mdnet.potentials import (
    MLP,
    MLP3,
    Activation,
    AvgPool2d,
    Conv2d,
    Dense,
    Embedding,
    FilterResponseNorm,
    Flatten,
    GaussianPrior,
    LeNet5,
    Posterior,
    Residual,
    ResNetFRN,
    Sequential,
    initializers,
    layer_moments,
)
from mdnet.potentials.activations import NAMES, gain
from mdnet.potentials.sequential import as_sequential

TINY = [Conv2d(1, 2, 3), Activation("tanh"), AvgPool2d(2), Flatten(), Dense(8, 3)]


def tiny():
    return Sequential(TINY, input_shape=(1, 6, 6))


def images(rows=10, seed=0, shape=(1, 6, 6), classes=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, *shape)), rng.integers(0, classes, rows)


def test_names_order_and_sizes():
    net = tiny()
    assert dict(net.layout) == {
        "0.weight": (slice(0, 18), (2, 1, 3, 3)),
        "0.bias": (slice(18, 20), (2,)),
        "4.weight": (slice(20, 44), (3, 8)),
        "4.bias": (slice(44, 47), (3,)),
    }
    assert (net.size, net.inputs, net.outputs) == (47, 36, 3)
    block = Residual(
        Conv2d(2, 3, 3, padding=1), Activation("relu"), shortcut=Conv2d(2, 3, 1)
    )
    net = Sequential([block, Flatten(), Dense(27, 2)], (2, 3, 3))
    assert list(net.layout) == [
        "0.0.weight", "0.0.bias", "0.shortcut.weight", "0.shortcut.bias",
        "2.weight", "2.bias",
    ]  # fmt: skip


def test_architectures():
    lenet = LeNet5()
    assert lenet.size == 61706
    assert list(lenet.layout)[:4] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert LeNet5(3, pooling="max", channels=3, activation="relu").outputs == 3
    assert MLP3().sizes == (784, 512, 512, 512, 10)
    assert MLP3(20, 3, width=8, activation="tanh").size == 20 * 8 + 8 + 2 * 72 + 27
    net = ResNetFRN(initializer="lecun")
    # 19 convolutions and a dense layer, without the two shortcuts of 1 x 1.
    products = [t for t in net.tensors().values() if t.kind in ("window", "product")]
    assert sum(t.shape[2:] != (1, 1) for t in products) == 20
    assert net.describe()["initializer"]["gain"] == 1
    assert not net.smooth
    assert LeNet5().smooth
    small = ResNetFRN(4, input_shape=(2, 9, 7), widths=(3, 4), blocks=1)
    assert small.forward(small.initial(2), np.zeros((5, 126))).shape == (2, 5, 4)


@pytest.mark.parametrize("activation", NAMES)
def test_an_mlp_as_layers_is_the_same_function_of_q(activation):
    net = MLP([4, 6, 5, 3], activation=activation)
    twin = as_sequential(net)
    assert [t for t, _ in twin.layout.values()] == [t for t, _ in net.layout.values()]
    rng = np.random.default_rng(0)
    q, X = rng.standard_normal((2, net.size)), rng.standard_normal((7, 4))
    delta = rng.standard_normal((2, 7, 3))
    found = []
    for model in (net, twin):
        z, tape = model.tape(q, X)
        g = np.zeros_like(q)
        model.backward(q, tape, delta, g)
        found.append((z, g))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "elu", "leaky_relu", "tanh"])
def test_posterior_of_every_activation(activation):
    """Names without a compiled form run in array operations."""
    X, y = images(shape=(4,))
    tempered = {"likelihood_temperature": 2.0, "data": (X, y)}
    U = Posterior(MLP([4, 5, 3], activation=activation), **tempered)
    twin = Posterior(as_sequential(U.network), **tempered)
    q = U.initial(3, seed=1)
    np.testing.assert_allclose(U.energy(q), twin.energy(q), rtol=1e-12)
    np.testing.assert_allclose(U.gradient(q), twin.gradient(q), rtol=1e-9, atol=1e-11)


def test_posterior_takes_images():
    X, y = images()
    net = tiny()
    flat = Posterior(net, data=(X.reshape(10, -1), y))
    U = Posterior(net, data=(X, y))
    q = U.initial(2, seed=3)
    np.testing.assert_array_equal(U.energy(q), flat.energy(q))
    np.testing.assert_array_equal(U.predict(q, X), flat.predict(q, X.reshape(10, -1)))
    np.testing.assert_array_equal(
        U.log_likelihood(q, X, y), flat.log_likelihood(q, X.reshape(10, -1), y)
    )
    assert U.describe() == flat.describe()
    potentials.check_gradient(U, q)
    with pytest.raises(PotentialError, match=r"X has shape \(10, 6, 6\)"):
        Posterior(net, data=(X[:, 0], y))
    with pytest.raises(PotentialError, match=r"X has shape \(10, 1, 6, 5\)"):
        Posterior(net, data=(X[..., :5], y))


def test_slices_of_the_data_sum_up():
    from mdnet.potentials.evaluators import ArrayEvaluator

    X, y = images(50)
    U = Posterior(tiny(), data=(X, y))
    q = U.initial(2)
    whole = U.energy(q), U.gradient(q)
    assert U.width == U.network.width == 11 * 16 + 36
    full, ArrayEvaluator.ELEMENTS = ArrayEvaluator.ELEMENTS, 2 * U.width * 7
    try:
        again = Posterior(tiny(), data=(X, y))
        np.testing.assert_allclose(again.energy(q), whole[0], rtol=1e-12)
        np.testing.assert_allclose(again.gradient(q), whole[1], rtol=1e-9, atol=1e-10)
    finally:
        ArrayEvaluator.ELEMENTS = full


@pytest.mark.parametrize("shared", [False, True])
def test_minibatches_are_unbiased(shared):
    """The forces of an epoch's batches average to the force of all data."""
    X, y = images(12)
    U = Posterior(tiny(), data=(X, y))
    Ub = U.minibatch(batch_size=4, shared=shared)
    evaluator = Ub.evaluator(mdnet.backend.resolve("cpu", "double"), 2, seed=1)
    q = U.initial(2)
    total, force = np.zeros_like(q), np.empty_like(q)
    for call in range(3):
        evaluator.forces(q, force, call)
        total += force / 3
    np.testing.assert_allclose(total, -U.gradient(q), rtol=1e-9, atol=1e-10)


def test_a_simulation_runs():
    X, y = images(20)
    U = Posterior(tiny(), data=(X.astype("f4"), y)).minibatch(5)
    sim = mdnet.Simulation(
        U, integrators.BAOAB(dt=0.01, temperature=1.0), replicas=2, seed=1
    )
    sim.run(5)
    assert sim.state.step == 5
    assert np.isfinite(sim.state.positions).all()


@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
def test_energy_is_conserved_by_a_network_of_layers(precision):
    X, y = images(20)
    U = Posterior(tiny(), data=(X, y))
    drift = []
    for dt in (0.04, 0.02):
        sim = mdnet.Simulation(
            U, integrators.VelocityVerlet(dt=dt), replicas=2, seed=1,
            precision=precision,
        )  # fmt: skip
        sim.run(round(0.8 / dt))
        values = sim.scalars()
        drift.append(np.abs(values["shadow_work"]).max())
    if precision == "double":
        assert 3 < drift[0] / drift[1] < 5  # second order
    assert drift[1] < 0.1


def test_layer_moments_name_layers():
    net = tiny()
    q = net.initial(3)
    X = np.random.default_rng(0).standard_normal((50, 36))
    found = layer_moments(net, q, X)
    assert found.layers[:3] == ("0.Conv2d", "1.Activation", "2.AvgPool2d")
    z = net.forward(q, X)
    np.testing.assert_allclose(found.mean[:, -1], z.mean(axis=(1, 2)))
    np.testing.assert_allclose(found.variance[:, -1], z.var(axis=(1, 2)))
    shared = Sequential([Flatten(), Dense(36, 2)], (1, 6, 6))
    assert layer_moments(shared, shared.initial(3), X).mean.shape == (3, 2)


@pytest.mark.physics
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("name", ["lecun", "glorot", "he"])
def test_initial_variances(name, distribution):
    """Variances to five standard errors: false alarms below 1e-6 a tensor."""
    start = getattr(initializers, name)(distribution)
    net = Sequential(
        [Conv2d(3, 20, 5), FilterResponseNorm(20), Flatten(), Dense(320, 90)],
        (3, 8, 8),
        initializer=start,
    )
    q = net.initial(8, seed=4)
    for tensor, fan_in, fan_out in (("0", 75, 500), ("3", 320, 90)):
        w = q[:, net.layout[f"{tensor}.weight"][0]].ravel()
        exact = {"lecun": 1 / fan_in, "he": 2 / fan_in}.get(
            name, 2 / (fan_in + fan_out)
        )
        ratio = w.var() / exact
        assert abs(ratio - 1) < 5 * math.sqrt(2 / w.size)
        assert abs(ratio * 1.1 - 1) > 5 * math.sqrt(2 / w.size)  # negative control
        if distribution == "uniform":
            assert np.abs(w).max() <= math.sqrt(3 * exact)
    for tensor, constant in (("0.bias", 0), ("1.weight", 1), ("1.threshold", 0)):
        assert (q[:, net.layout[tensor][0]] == constant).all()
    np.testing.assert_array_equal(net.initial(2, seed=4), q[:2])


def test_default_start_looks_at_the_activation_that_follows():
    net = Sequential(
        [
            Conv2d(1, 50, 5), AvgPool2d(2), Activation("relu"),
            Residual(Conv2d(50, 50, 3, padding=1), Activation("tanh")),
            Flatten(), Dense(200, 100),
        ],
        (1, 8, 8),
    )  # fmt: skip
    q = net.initial(4)
    found = {
        name: q[:, where].var() * np.prod(shape[1:])
        for name, (where, shape) in net.layout.items()
        if name.endswith("weight")
    }
    expected = {"0.weight": gain("relu"), "3.0.weight": 1.0, "5.weight": 1.0}
    for name, exact in expected.items():
        assert found[name] == pytest.approx(exact, rel=0.1)


def test_orthogonal_start():
    for network in (
        MLP([7, 12, 5], initializer=initializers.Orthogonal(gain=1.5)),
        Sequential([Conv2d(2, 5, 3), Flatten(), Dense(5, 2)], (2, 3, 3), "orthogonal"),
    ):
        q = network.initial(3, seed=1)
        g = 1.5 if isinstance(network, MLP) else 1.0
        for name, (where, shape) in network.layout.items():
            if name.endswith("bias"):
                continue
            W = q[:, where].reshape(3, shape[0], -1)
            rows, columns = W.shape[1:]
            if rows > columns:
                W = W.swapaxes(1, 2)
            gram = W @ W.swapaxes(1, 2)
            np.testing.assert_allclose(
                gram, np.tile(g * g * np.eye(min(rows, columns)), (3, 1, 1)), atol=1e-13
            )
        assert not np.allclose(q[0], q[1])


def test_start_from_a_prior():
    prior = GaussianPrior(scale=0.3)
    net = MLP([5, 4, 2], initializer=initializers.PriorDraw(prior))
    U = Posterior(net, prior=prior, data=(np.zeros((3, 5)), np.array([0, 1, 1])))
    np.testing.assert_array_equal(U.initial(4, 7), U.initial(4, 7, start="prior"))
    described = net.describe()
    assert described["initializer"]["prior"]["scale"] == 0.3
    assert json.loads(json.dumps(described)) == described
    assert pickle.loads(pickle.dumps(net)) == net
    assert "initializer" not in MLP([5, 4, 2]).describe()


def test_named_start_of_an_mlp_changes_only_the_start():
    plain, named = MLP([6, 5, 3], "relu"), MLP([6, 5, 3], "relu", initializer="he")
    np.testing.assert_array_equal(plain.initial(2, 3), named.initial(2, 3))
    q, X = plain.initial(2), np.ones((4, 6))
    np.testing.assert_array_equal(plain.forward(q, X), named.forward(q, X))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential([], 4), "expected a list of layers"),
        (lambda: Sequential(Dense(4, 3), 4), "expected a list of layers"),
        (lambda: Sequential([Dense], 4), r"layers\[0\]="),
        (lambda: Sequential([Dense(4, 3), "tanh"], 4), r"layers\[1\]='tanh'"),
        (lambda: Sequential([Dense(4, 3), Dense(4, 2)], 4), r"layers\[1\]: Dense"),
        (lambda: Sequential([Dense(4, 3)], 0), "input_shape=0"),
        (lambda: Sequential([Dense(4, 3)], ()), r"input_shape=\(\)"),
        (lambda: Sequential([Conv2d(1, 2, 3)], (1, 5, 5)), "end with Flatten"),
        (lambda: Sequential([Activation("tanh")], 4), "no weights"),
        (lambda: Sequential([Dense(4, 3)], 4, "kaiming"), "initializer='kaiming'"),
        (lambda: MLP([4, 3], initializer=3), "initializer=3"),
        (lambda: initializers.Orthogonal(gain=0), "gain=0"),
        (lambda: initializers.VarianceScaling(fan="both"), "fan='both'"),
        (lambda: initializers.lecun("cauchy"), "distribution='cauchy'"),
        (lambda: initializers.PriorDraw(None), "prior=None"),
        (lambda: LeNet5(pooling="sum"), "pooling='sum'"),
        (lambda: ResNetFRN(widths=()), r"widths=\(\)"),
        (lambda: ResNetFRN(blocks=0), "blocks=0"),
        (lambda: ResNetFRN(input_shape=28), "input_shape=28"),
        (lambda: as_sequential(3), "network=int"),
        (
            lambda: Sequential([Residual(Dense(4, 3)), Dense(3, 2)], 4),
            r"layers\[0\]: Residual.*body and shortcut",
        ),
        (
            lambda: Sequential([Dense(4, 3), Embedding(3, 2), Flatten()], (2, 4)),
            r"layers\[0\]: Dense",
        ),
    ],
)
def test_networks_that_cannot_be(make, message):
    with pytest.raises(PotentialError, match=message):
        make()


def test_calls_that_do_not_fit():
    net = tiny()
    q = net.initial(2)
    with pytest.raises(PotentialError, match=r"expected \(R, 47\)"):
        net.forward(q[:, 1:], np.zeros((3, 36)))
    with pytest.raises(PotentialError, match=r"expected \(n, 36\)"):
        net.forward(q, np.zeros((3, 35)))
    with pytest.raises(PotentialError, match=r"expected \(2, n, 36\)"):
        net.forward(q, np.zeros((3, 4, 36)))


def lenet_of_torch(torch, pool):
    nn = torch.nn
    pooling = nn.AvgPool2d if pool == "average" else nn.MaxPool2d
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), pooling(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), pooling(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
        nn.Linear(84, 10),
    ).double()  # fmt: skip


def posterior_parity(torch, net, twin, X, y):
    """U, dU/dq and predictions against PyTorch's, to 1e-10, weights copied from it."""
    assert [n for n, _ in twin.named_parameters()] == list(net.layout)
    q = torch.nn.utils.parameters_to_vector(twin.parameters()).detach().numpy()[None]
    U = Posterior(net, prior=None, data=(X, y))
    loss = torch.nn.functional.cross_entropy(
        twin(torch.from_numpy(X)), torch.from_numpy(y), reduction="sum"
    )
    loss.backward()
    theirs = torch.cat([p.grad.ravel() for p in twin.parameters()]).numpy()
    ours = U.gradient(q)[0]
    np.testing.assert_allclose(U.energy(q)[0], loss.item(), rtol=1e-12)
    assert np.abs(ours - theirs).max() < 1e-10 * np.abs(theirs).max()
    chances = torch.softmax(twin(torch.from_numpy(X)), dim=1).detach().numpy()
    np.testing.assert_allclose(U.predict(q, X)[0], chances, rtol=1e-10)


@pytest.mark.parametrize("pool", ["average", "max"])
def test_lenet_is_that_of_pytorch(pool):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    X, y = images(16, shape=(1, 28, 28), classes=10)
    posterior_parity(torch, LeNet5(pooling=pool), lenet_of_torch(torch, pool), X, y)


def test_mlp3_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    layers = [nn.Linear(784, 64), nn.Linear(64, 64), nn.Linear(64, 64)]
    twin = nn.Sequential(
        *(part for layer in layers for part in (layer, nn.ReLU())), nn.Linear(64, 10)
    ).double()
    X, y = images(16, shape=(784,), classes=10)
    net = as_sequential(MLP3(width=64))
    posterior_parity(torch, net, twin, X, y)


def test_residual_network_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn

    class Frn(nn.Module):
        def __init__(self, maps):
            super().__init__()
            self.weight = nn.Parameter(1 + 0.1 * torch.randn(maps))
            self.bias = nn.Parameter(0.1 * torch.randn(maps))
            self.threshold = nn.Parameter(0.1 * torch.randn(maps))

        def forward(self, x):
            x = x * torch.rsqrt((x * x).mean((2, 3), keepdim=True) + 1e-6)
            g, b, t = (p[:, None, None] for p in self.parameters())
            return torch.maximum(g * x + b, t)

    class Block(nn.Sequential):
        def __init__(self, into, out, stride):
            super().__init__(
                nn.Conv2d(into, out, 3, stride, 1, bias=False), Frn(out),
                nn.Conv2d(out, out, 3, 1, 1, bias=False), Frn(out),
            )  # fmt: skip
            if stride > 1:
                self.shortcut = nn.Conv2d(into, out, 1, stride, bias=False)

        def forward(self, x):
            around = self._modules.get("shortcut")
            y = x
            for name in "0123":
                y = self._modules[name](y)
            return y + (x if around is None else around(x))

    twin = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), Frn(4), Block(4, 4, 1),
        Block(4, 6, 2), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(6, 5),
    ).double()  # fmt: skip
    net = ResNetFRN(5, input_shape=(3, 8, 8), widths=(4, 6), blocks=1)
    X, y = images(6, shape=(3, 8, 8), classes=5)
    posterior_parity(torch, net, twin, X, y)
