"""Weights that are the same network, and bringing them to one gauge."""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.errors import PotentialError
from mdnet.potentials import gauge

RNG = np.random.default_rng(8)
X, LABELS = RNG.normal(size=(25, 4)), np.arange(25) % 3


def mlp(activation="tanh", sizes=(4, 7, 6, 3), bias=True):
    return potentials.MLP(list(sizes), activation=activation, bias=bias)


def lenet(activation="tanh", pool=None):
    """Two small convolutions, pooling, and two dense layers; 6 x 6 images."""
    pool = pool or potentials.AvgPool2d
    return potentials.Sequential(
        [
            potentials.Conv2d(1, 3, 3),
            potentials.Activation(activation),
            pool(2),
            potentials.Conv2d(3, 4, 1),
            potentials.Activation(activation),
            potentials.Flatten(),
            potentials.Dense(16, 5),
            potentials.Activation(activation),
            potentials.Dense(5, 3),
        ],
        input_shape=(1, 6, 6),
    )


def inputs_of(net):
    return X if net.inputs == 4 else RNG.normal(size=(9, net.inputs))


def weights(net, replicas=3, seed=1):
    q = net.initial(replicas, seed)
    return q + 0.1 * np.random.default_rng(seed).normal(size=q.shape)  # biases too


def units(net):
    return [layer.units for layer in gauge.hidden_layers(net)]


def shuffled(net, replicas=None):
    """Random permutations, one for each hidden layer (and replica)."""
    shape = () if replicas is None else (replicas,)
    return [
        RNG.permuted(np.broadcast_to(np.arange(n), (*shape, n)), axis=-1)
        for n in units(net)
    ]


def coins(net, replicas=None):
    shape = () if replicas is None else (replicas,)
    return [RNG.choice([-1.0, 1.0], size=(*shape, n)) for n in units(net)]


NETS = {
    "tanh": mlp(),
    "relu": mlp("relu"),
    "no bias": mlp("tanh", (4, 5, 3), bias=False),
    "deep": mlp("tanh", (4, 6, 6, 6, 3)),
    "convolutions": lenet(),
}


# --- the symmetries -------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [None, 3])
@pytest.mark.parametrize("name", NETS)
def test_exchange_leaves_the_function(name, replicas):
    net = NETS[name]
    q, x = weights(net), inputs_of(net)
    moved = gauge.permute(q, net, shuffled(net, replicas))
    assert np.abs(moved - q).max() > 0.1
    np.testing.assert_allclose(net.forward(moved, x), net.forward(q, x), atol=1e-13)
    np.testing.assert_allclose(np.sort(moved), np.sort(q))


@pytest.mark.parametrize("name", ["tanh", "no bias", "deep", "convolutions"])
def test_signs_leave_the_function(name):
    net = NETS[name]
    q, x = weights(net), inputs_of(net)
    moved = gauge.signs(q, net, coins(net, 3))
    assert np.abs(moved - q).max() > 0.1
    np.testing.assert_allclose(net.forward(moved, x), net.forward(q, x), atol=1e-13)


@pytest.mark.parametrize(
    "net", [mlp("relu"), mlp("identity"), lenet("relu", potentials.MaxPool2d)]
)
def test_scales_leave_the_function(net):
    q, x = weights(net), inputs_of(net)
    moved = gauge.rescale(q, net, [RNG.uniform(0.2, 5, n) for n in units(net)])
    assert np.abs(moved - q).max() > 0.1
    np.testing.assert_allclose(net.forward(moved, x), net.forward(q, x), rtol=1e-11)


def test_energy_and_gradient_of_a_posterior():
    """U(P w) = U(w) with its gradient P-covariant; a scale changes the prior only."""
    net = mlp()
    scale = dict(zip(net.layout, (0.5, 1.0, 0.7, 2.0, 1.5, 1.0), strict=True))
    U = potentials.Posterior(
        net, data=(X, LABELS), prior=potentials.GaussianPrior(scale=scale)
    )
    q, order, sign = weights(net), shuffled(net), coins(net)

    def moved(w):
        return gauge.signs(gauge.permute(w, U, order), U, sign)

    np.testing.assert_allclose(U.energy(moved(q)), U.energy(q), rtol=1e-13)
    np.testing.assert_allclose(
        U.gradient(moved(q)), moved(U.gradient(q)), rtol=1e-10, atol=1e-12
    )
    relu = mlp("relu")
    factors = [np.full(n, 3.0) for n in units(relu)]
    for prior, same in ((None, True), (potentials.GaussianPrior(), False)):
        V = potentials.Posterior(relu, data=(X, LABELS), prior=prior)
        difference = V.energy(gauge.rescale(q, V, factors)) - V.energy(q)
        assert (np.abs(difference) < 1e-10).all() == same


def test_shuffling_rows_alone_is_no_symmetry():
    """The control: units exchanged on one side only."""
    net = mlp()
    q, x = weights(net), inputs_of(net)
    wrong = q.copy()
    where, shape = net.layout["0.weight"]
    rows = wrong[:, where].reshape(-1, *shape)
    rows[...] = rows[:, ::-1].copy()
    assert np.abs(net.forward(wrong, x) - net.forward(q, x)).max() > 0.1


def test_order_of_a_permutation():
    net = mlp("tanh", (1, 3, 1), bias=False)
    moved = gauge.permute(np.arange(6.0), net, [[2, 0, 1]])
    np.testing.assert_array_equal(moved, [2, 0, 1, 5, 3, 4])
    assert gauge.permute(np.zeros((2, 3, 6), np.float32), net, [[0, 1, 2]]).shape == (
        2,
        3,
        6,
    )
    assert gauge.permute(np.zeros(6, np.float32), net, [[0, 1, 2]]).dtype == np.float32


# --- the balanced gauge ---------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 5, 3), (4, 7, 6, 5, 3)])
def test_balanced_weights(sizes):
    net = mlp("relu", sizes)
    q = weights(net)
    b = gauge.balance(q, net)
    np.testing.assert_allclose(net.forward(b, X), net.forward(q, X), rtol=1e-10)
    for layer in gauge.hidden_layers(net):
        inside = sum((part**2).sum(axis=2) for part in layer.into(b))
        outside = (layer.out_of(b) ** 2).sum(axis=(1, 3))
        np.testing.assert_allclose(inside, outside, rtol=1e-10)
    # Whatever the scales were, it is the same point, and that of least norm.
    factors = [RNG.uniform(0.5, 2, n) for n in units(net)]
    again = gauge.balance(gauge.rescale(q, net, factors), net)
    np.testing.assert_allclose(again, b, rtol=1e-9)
    for scale in (0.9, 1.1):
        other = gauge.rescale(b, net, [np.full(n, scale) for n in units(net)])
        assert ((other**2).sum(1) > (b**2).sum(1)).all()


def test_dead_units_are_left_alone():
    net = mlp("relu", (4, 5, 3))
    q = weights(net)
    where, _ = net.layout["1.weight"]
    q[:, where].reshape(3, 3, 5)[:, :, 2] = 0
    b = gauge.balance(q, net)
    assert np.isfinite(b).all()
    part, shape = net.layout["0.weight"]
    np.testing.assert_array_equal(
        b[:, part].reshape(-1, *shape)[:, 2], q[:, part].reshape(-1, *shape)[:, 2]
    )


# --- alignment ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_copies_are_recovered_exactly(name):
    net = NETS[name]
    q = weights(net, replicas=1)[0]
    order = shuffled(net, 4)
    copies = gauge.permute(np.tile(q, (4, 1)), net, order)
    sign = [np.ones((4, n)) for n in units(net)]
    if name != "relu":
        sign = coins(net, 4)
        copies = gauge.signs(copies, net, sign)
    found = gauge.align(copies, net, to=q)
    np.testing.assert_array_equal(found.positions, np.tile(q, (4, 1)))
    assert (found.distance == 0).all()
    assert (found.distance_before > 0.1).all()
    # What was found undoes what was done: place order[i] of q went to place i.
    for p, o, s, t in zip(found.permutations, order, found.signs, sign, strict=True):
        np.testing.assert_array_equal(
            np.take_along_axis(o, p, axis=1), np.tile(np.arange(p.shape[1]), (4, 1))
        )
        np.testing.assert_array_equal(s, np.take_along_axis(t, p, axis=1))
    by_hand = gauge.signs(
        gauge.permute(copies, net, found.permutations), net, found.signs
    )
    np.testing.assert_array_equal(by_hand, found.positions)


def test_one_hidden_layer_is_solved():
    """All 3! 2^3 copies by hand: none is nearer."""
    from itertools import permutations, product

    net = mlp("tanh", (2, 3, 2))
    q, to = weights(net, 2, 5)
    found = gauge.align(q, net, to=to)
    distances = [
        np.linalg.norm(gauge.signs(gauge.permute(q, net, [o]), net, [s]) - to)
        for o in permutations(range(3))
        for s in product((-1, 1), repeat=3)
    ]
    assert float(found.distance) == pytest.approx(min(distances), rel=1e-12)
    plain = gauge.align(q, net, to=to, turn=False)
    assert (plain.signs[0] == 1).all()
    assert found.distance <= plain.distance <= plain.distance_before


def test_noisy_copies_come_together():
    net = NETS["deep"]
    q = weights(net, 1)[0]
    noisy = q + 0.05 * RNG.normal(size=(6, net.size))
    copies = gauge.signs(
        gauge.permute(noisy, net, shuffled(net, 6)), net, coins(net, 6)
    )
    found = gauge.align(copies, net, to="mean")
    spread = found.positions - found.positions.mean(axis=0)
    assert np.sqrt((spread**2).mean()) == pytest.approx(0.05, rel=0.15)
    assert np.sqrt(((copies - copies.mean(0)) ** 2).mean()) > 0.25
    np.testing.assert_allclose(found.reference, found.positions.mean(axis=0))
    assert (found.distance[1:] < 0.2 * found.distance_before[1:]).all()


def test_balanced_alignment():
    net = mlp("relu")
    q = weights(net, 1)[0]
    factors = [RNG.uniform(0.2, 5, n) for n in units(net)]
    copy = gauge.permute(gauge.rescale(q, net, factors), net, shuffled(net))
    found = gauge.align(copy, net, to=q, balanced=True)
    np.testing.assert_allclose(found.positions, gauge.balance(q, net), rtol=1e-9)
    assert gauge.align(copy, net, to=q).distance > 0.1


def test_runs_and_posteriors():
    U = potentials.Posterior(mlp(), data=(X, LABELS))
    sim = mdnet.Simulation(
        U, integrators.BAOAB(dt=0.05), replicas=2, backend="cpu", seed=1
    )
    record = reporters.Memory(5)
    sim.run(20, reporters=[record])
    for potential in (U, U.minibatch(5), 0.5 * U):
        found = gauge.align(record, potential)
        assert found.positions.shape == record.positions.shape
        assert found.distance.shape == record.positions.shape[:2]
        assert found.permutations[0].shape == (*found.distance.shape, 7)
        assert found.distance[0, 0] == 0
        assert (found.distance <= found.distance_before).all()
        np.testing.assert_allclose(
            U.energy(found.positions[-1]), U.energy(record.positions[-1]), rtol=1e-5
        )


# --- errors ---------------------------------------------------------------------------

TANH, RELU = NETS["tanh"], NETS["relu"]
W = weights(TANH)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gauge.permute(W, TANH, [np.arange(7)]), r"1 arrays: expected 2.*7, 6"),
        (
            lambda: gauge.permute(W, TANH, [np.zeros(7, int), np.arange(6)]),
            "each of 0 to 6 once",
        ),
        (
            lambda: gauge.permute(W, TANH, [np.arange(6), np.arange(6)]),
            r"0\.weight has shape \(6,\)",
        ),
        (lambda: gauge.permute(W[:, 1:], TANH, []), "expected .*weights of MLP"),
        (lambda: gauge.permute(W, np.sin, []), "no network"),
        (lambda: gauge.signs(W, TANH, [np.zeros(7), np.ones(6)]), "1 and -1"),
        (lambda: gauge.signs(W, RELU, [-np.ones(7), np.ones(6)]), "no sign"),
        (lambda: gauge.rescale(W, TANH, [np.ones(7), np.ones(6)]), "no scale"),
        (lambda: gauge.rescale(W, RELU, [np.zeros(7), np.ones(6)]), "> 0"),
        (lambda: gauge.balance(W, TANH), "no scale"),
        (lambda: gauge.align(W, RELU, turn=True), "no sign"),
        (lambda: gauge.align(W, TANH, to="last"), "to='last'"),
        (lambda: gauge.align(W, TANH, to=W), r"to has shape \(3, "),
        (lambda: gauge.align(W * np.nan, TANH), "not finite"),
        (lambda: gauge.align(np.zeros(15), potentials.MLP([4, 3])), "no hidden layer"),
        (
            lambda: gauge.hidden_layers(
                potentials.Sequential(
                    [potentials.Dense(4, 3), potentials.LayerNorm(3)], 4
                )
            ),
            "ties hidden units",
        ),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
