"""JAX functions as potentials: against our own networks and closed forms."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.backend import resolve
from mdnet.errors import PotentialError, TrajectoryError
from mdnet.potentials.jax import from_jax, to_jax

from .cuda_tools import device_only
from .physics_tools import z_scores

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(50, 4))
Y = GENERATOR.integers(0, 3, 50)
IMAGES = GENERATOR.normal(size=(30, 6, 6, 1))
PARAMS = {
    "layers": [
        {"a_weight": jnp.zeros((5, 4)), "bias": jnp.zeros(5)},
        {"a_weight": jnp.ones((3, 5)), "bias": jnp.zeros(3)},
    ]
}


def apply(params, X):
    first, last = params["layers"]
    a = jnp.tanh(X @ first["a_weight"].T + first["bias"])
    return a @ last["a_weight"].T + last["bias"]


def rectified(params, X):
    first, last = params["layers"]
    a = jax.nn.relu(X @ first["a_weight"].T + first["bias"])
    return a @ last["a_weight"].T + last["bias"]


def linear(params, X):
    return X @ params


def images(params, X):
    a = jax.lax.conv_general_dilated(
        X, params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(a).reshape(len(X), -1) @ params["out"]


KERNELS = {
    "kernel": 0.1 * GENERATOR.normal(size=(3, 3, 1, 2)),
    "out": 0.1 * GENERATOR.normal(size=(32, 3)),
}


def native(**settings):
    net = potentials.MLP([4, 5, 3], activation="tanh")
    return potentials.Posterior(net, data=(X, Y), **settings)


def baoab(**settings):
    return integrators.BAOAB(
        **{"dt": 0.01, "temperature": 1.0, "friction": 1.0} | settings
    )


def run(potential, steps, start, **settings):
    settings = {"seed": 3, "precision": "double", "backend": "cpu"} | settings
    sim = mdnet.Simulation(
        potential, baoab(), replicas=len(start), positions=start, **settings
    )
    sim.run(steps)
    return sim


class HostOnly(potentials.likelihoods.Categorical):
    """A likelihood that NumPy can do and JAX cannot trace."""

    def log_density(self, outputs, targets, xp=np):
        return super().log_density(np.asarray(outputs), targets, np)


def close_to_ours(theirs, dtype, close):
    ours = native()
    q = ours.initial(3, seed=1).astype(dtype)
    energy, gradient = theirs.energy_and_gradient(q)
    exact_energy, exact_gradient = ours.energy_and_gradient(q.astype(np.float64))
    assert energy.dtype == np.float64
    assert gradient.dtype == dtype
    np.testing.assert_allclose(energy, exact_energy, rtol=close)
    np.testing.assert_allclose(theirs.energy(q), exact_energy, rtol=close)
    scale = np.abs(exact_gradient).max()
    np.testing.assert_allclose(gradient, exact_gradient, atol=close * scale)
    np.testing.assert_allclose(
        theirs.predict(q, X), ours.predict(q.astype(np.float64), X), atol=close
    )


# --- the same numbers as our own network ------------------------------------------


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-10), ("float32", 1e-5)])
def test_energy_gradient_and_prediction_are_those_of_our_mlp(
    dtype, close, small, monkeypatch
):
    if not small:  # one replica after the other
        monkeypatch.setattr("mdnet.potentials._jax_network.SMALL", 1)
    close_to_ours(from_jax(apply, PARAMS, data=(X, Y)), dtype, close)


def test_the_comparison_would_see_a_wrong_activation():
    with pytest.raises(AssertionError):
        close_to_ours(from_jax(rectified, PARAMS, data=(X, Y)), "float64", 1e-10)


def test_a_likelihood_that_cannot_be_traced_runs_on_the_host():
    U = from_jax(apply, PARAMS, HostOnly(), data=(X, Y))
    assert "Tracer" in U.host_reason
    assert from_jax(apply, PARAMS, data=(X, Y)).host_reason == ""
    for dtype, close in (("float64", 1e-10), ("float32", 1e-5)):
        close_to_ours(U, dtype, close)


@pytest.mark.parametrize("batch", [None, 10])
@pytest.mark.parametrize("likelihood", ["categorical", HostOnly()])
def test_trajectory_is_that_of_our_mlp(batch, likelihood):
    theirs, ours = from_jax(apply, PARAMS, likelihood, data=(X, Y)), native()
    start = ours.initial(3, seed=1)
    if batch:
        theirs, ours = theirs.minibatch(batch), ours.minibatch(batch)
    a, b = run(theirs, 100, start), run(ours, 100, start)
    np.testing.assert_allclose(a.state.positions, b.state.positions, atol=1e-10)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_each_replica_is_its_own(small, shared, monkeypatch):
    if not small:
        monkeypatch.setattr("mdnet.potentials._jax_network.SMALL", 1)
    U = from_jax(apply, PARAMS, data=(X, Y))
    q = native().initial(3, seed=2)
    energy, gradient = U.energy_and_gradient(q)
    for r in range(3):
        alone, slope = U.energy_and_gradient(q[r : r + 1])
        np.testing.assert_allclose(alone, energy[r : r + 1], rtol=1e-12)
        np.testing.assert_allclose(slope[0], gradient[r], atol=1e-9)
    settings = {"batch_size": 7, "shared": shared, "order": "replacement"}
    theirs = run(U.minibatch(**settings), 5, q)
    ours = run(native().minibatch(**settings), 5, q)
    np.testing.assert_allclose(theirs.state.positions, ours.state.positions, atol=1e-10)


def test_large_data_and_batches_are_taken_in_slices(monkeypatch):
    from mdnet.potentials._jax_network import JaxEvaluator

    q = native().initial(2)
    start = run(from_jax(apply, PARAMS, data=(X, Y)).minibatch(20), 3, q)
    monkeypatch.setattr(JaxEvaluator, "ELEMENTS", 70)  # 7 rows of 5 for 2 replicas
    U = from_jax(apply, PARAMS, data=(X, Y))
    energy, gradient = U.energy_and_gradient(q)
    np.testing.assert_allclose(energy, native().energy(q), rtol=1e-12)
    np.testing.assert_allclose(gradient, native().gradient(q), atol=1e-10)
    again = run(U.minibatch(20), 3, q)
    np.testing.assert_allclose(again.state.positions, start.state.positions, atol=1e-12)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_nothing_is_traced_twice(precision):
    traces = 0

    def counted(params, X):
        nonlocal traces
        traces += 1
        return apply(params, X)

    U = from_jax(counted, PARAMS, data=(X, Y), name="counted")
    q = native().initial(3)
    sim = run(U.minibatch(10), 3, q, precision=precision)
    before = traces
    sim.run(20)
    sim.run(1)
    assert traces == before
    again = run(U.minibatch(10), 3, q, precision=precision)  # another simulation
    again.run(5)
    assert traces == before
    run(U.minibatch(11), 1, q, precision=precision)  # another shape is traced
    assert traces > before


def test_the_default_precision_of_jax_is_left_alone():
    U = from_jax(apply, PARAMS, data=(X, Y))
    U.energy(U.initial(2))
    assert jnp.ones(2).dtype == jnp.float32
    with jax.enable_x64(True):
        close_to_ours(from_jax(apply, PARAMS, data=(X, Y)), "float32", 1e-5)


def test_weights_of_rows_and_temperatures_of_the_likelihood():
    weights = GENERATOR.random(50)
    settings = {"weights": weights, "likelihood_temperature": 2.0}
    theirs, ours = from_jax(apply, PARAMS, data=(X, Y), **settings), native(**settings)
    q = ours.initial(2)
    np.testing.assert_allclose(theirs.energy(q), ours.energy(q), rtol=1e-12)
    np.testing.assert_allclose(theirs.gradient(q), ours.gradient(q), atol=1e-10)


@device_only
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("batch", [None, 10])
def test_a_device_gives_what_the_host_gives(batch, traced, monkeypatch):
    try:
        jax.devices("gpu")
    except RuntimeError:
        pytest.skip("this JAX sees no GPU")
    import cupy

    from mdnet.potentials._jax_network import JaxEvaluator

    monkeypatch.setattr(JaxEvaluator, "ELEMENTS", 70)  # several pieces a call
    U = from_jax(apply, PARAMS, data=(X, Y))
    if not traced:
        U.host_reason = "as if the likelihood could not be traced"
    start = native().initial(3, seed=1)
    P = U.minibatch(batch) if batch else U
    a, b = (run(P, 30, start, backend=name) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(b.state.positions.get(), a.state.positions, atol=1e-9)
    gradient = U.gradient(cupy.asarray(start))
    np.testing.assert_allclose(gradient.get(), U.gradient(start), atol=1e-8)


def test_sampled_noise_and_scales_are_those_of_every_posterior():
    y = X.sum(axis=1)
    likelihoods = potentials.likelihoods
    settings = {
        "likelihood": likelihoods.Gaussian(noise=likelihoods.HalfCauchy(1.0)),
        "prior": potentials.HierarchicalGaussianPrior(),
        "data": (X, y),
    }
    ours = potentials.Posterior(potentials.MLP([4, 1], bias=False), **settings)
    theirs = from_jax(linear, jnp.zeros((4, 1)), **settings)
    assert theirs.size == ours.size > 4
    q = ours.initial(3) + 0.1 * GENERATOR.normal(size=(3, ours.size))
    np.testing.assert_allclose(theirs.energy(q), ours.energy(q), rtol=1e-12)
    np.testing.assert_allclose(theirs.gradient(q), ours.gradient(q), atol=1e-9)
    back = theirs.to_jax(q, replica=1)[:, 0]
    np.testing.assert_array_equal(back, q[1, :4].astype(np.float32))


# --- functions and trees of every kind ----------------------------------------------


def test_images_and_their_shape():
    U = from_jax(images, KERNELS, data=(IMAGES, Y[:30]))
    assert {name: shape for name, (_, shape) in U.layout.items()} == {
        "kernel": (3, 3, 1, 2),
        "out": (32, 3),
    }
    q = U.initial(2) + 0.1 * GENERATOR.normal(size=(2, U.size))
    assert potentials.check_gradient(U, q) < 1e-6
    assert potentials.check_gradient(U, q[:1]) < 1e-6
    assert U.predict(q, IMAGES[:5]).shape == (2, 5, 3)
    flat = IMAGES.reshape(30, -1)
    np.testing.assert_array_equal(U.predict(q, flat), U.predict(q, IMAGES))
    with pytest.raises(PotentialError, match="X has shape"):
        U.predict(q, IMAGES[:, 1:])


def test_tokens_reach_the_function_as_integers():
    def embed(params, X):
        return params["table"][X].mean(axis=1)

    tokens = GENERATOR.integers(0, 7, (30, 5))
    U = from_jax(embed, {"table": jnp.zeros((7, 3))}, data=(tokens, Y[:30]))
    q = GENERATOR.normal(size=(2, U.size))
    assert potentials.check_gradient(U, q) < 1e-6
    expected = q.reshape(2, 7, 3)[:, tokens].mean(axis=2)
    weights = np.exp(expected)
    np.testing.assert_allclose(
        U.predict(q, tokens), weights / weights.sum(-1, keepdims=True), rtol=1e-12
    )


def test_names_are_paths_and_the_tree_comes_back():
    U = from_jax(apply, PARAMS, data=(X, Y))
    assert list(U.layout) == [
        "layers.0.a_weight",
        "layers.0.bias",
        "layers.1.a_weight",
        "layers.1.bias",
    ]
    prior = potentials.GaussianPrior(dict.fromkeys(U.layout, 2.0))
    assert from_jax(apply, PARAMS, prior=prior, data=(X, Y)).size == U.size
    q = native().initial(2)
    tree = U.to_jax(q, replica=1)
    assert jax.tree.structure(tree) == jax.tree.structure(PARAMS)
    logits = apply(tree, jnp.asarray(X))
    np.testing.assert_allclose(jax.nn.softmax(logits), U.predict(q, X)[1], atol=1e-5)
    whole = from_jax(linear, jnp.zeros((4, 3)), data=(X, Y))
    assert list(whole.layout) == ["params"]
    assert to_jax(whole.minibatch(5), whole.initial(1)).shape == (4, 3)


def test_start_is_params_or_drawn_anew():
    U = from_jax(apply, PARAMS, data=(X, Y))
    assert (U.initial(2)[:, U.layout["layers.1.a_weight"][0]] == 1).all()

    def init(key):
        return jax.tree.map(lambda a: jax.random.normal(key, a.shape), PARAMS)

    V = from_jax(apply, PARAMS, data=(X, Y), init=init)
    three = V.initial(3, seed=5)
    np.testing.assert_array_equal(three[:2], V.initial(2, seed=5))
    assert len(np.unique(three[:, 0])) == 3
    assert not np.allclose(V.initial(3, seed=6), three)
    wrong = from_jax(apply, PARAMS, data=(X, Y), init=lambda key: {"w": jnp.ones(3)})
    with pytest.raises(PotentialError, match="a tree like params"):
        wrong.initial(1)


def test_flax_modules():
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.tanh(nn.Dense(5)(x)))

    net = Net()
    variables = net.init(jax.random.key(0), jnp.ones((1, 4)))
    U = from_jax(net.apply, variables, data=(X, Y))
    assert next(iter(U.layout)) == "params.Dense_0.bias"
    assert "Net" in U.describe()["network"]["apply"]
    assert "0x" not in U.describe()["network"]["apply"]
    q = U.initial(1)
    expected = jax.nn.softmax(net.apply(variables, jnp.asarray(X)))
    np.testing.assert_allclose(U.predict(q, X)[0], expected, atol=1e-5)
    assert potentials.check_gradient(U, q) < 1e-6


def test_a_potential_can_be_sent_to_another_process():
    U = from_jax(apply, PARAMS, data=(X, Y))
    q = native().initial(2)
    U.energy(q)
    again = pickle.loads(pickle.dumps(U))
    np.testing.assert_array_equal(again.energy(q), U.energy(q))


def test_a_run_goes_back_into_the_tree_and_resumes_bit_for_bit(tmp_path):
    path = tmp_path / "run.h5md"

    def made(function=apply, **settings):
        return from_jax(function, PARAMS, data=(X, Y), **settings).minibatch(10)

    straight = mdnet.Simulation(made(), baoab(), replicas=2, seed=4, backend="cpu")
    straight.run(12)
    first = mdnet.Simulation(made(), baoab(), replicas=2, seed=4, backend="cpu")
    first.run(6, trajectory=path, every=2)
    again = mdnet.Simulation.resume(path, potential=made())
    again.run(6)
    np.testing.assert_array_equal(again.state.positions, straight.state.positions)
    tree = to_jax(made(), mdnet.open(path), frame=-1, replica=1)
    where, shape = made().layout["layers.0.a_weight"]
    np.testing.assert_array_equal(
        tree["layers"][0]["a_weight"],
        again.state.positions[1, where].reshape(shape),
    )
    for other in (made(rectified), made(name="another")):
        with pytest.raises(TrajectoryError, match="potential"):
            mdnet.Simulation.resume(path, potential=other)


# --- physics -------------------------------------------------------------------------


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 4.0])
def test_linear_regression_is_sampled_at_its_temperature(T):
    """Mean and covariance T H^-1; 5 standard errors.

    Six statistics with 199 degrees of freedom each: a false alarm in 10^5 runs.
    """
    noise, scale = 0.5, 1.5
    A = GENERATOR.normal(size=(20, 3))
    y = A @ [1.0, -2.0, 0.5] + noise * GENERATOR.normal(size=20)
    H = A.T @ A / noise**2 + np.eye(3) / scale**2
    mean = np.linalg.solve(H, A.T @ y / noise**2)
    U = from_jax(
        linear,
        jnp.zeros(3),
        potentials.likelihoods.Gaussian(noise=noise),
        potentials.GaussianPrior(scale),
        data=(A, y),
    )
    np.testing.assert_allclose(U.gradient(mean[None]), 0, atol=1e-9)
    sim = mdnet.Simulation(
        U,
        baoab(dt=0.1, temperature=T, friction=5.0),
        replicas=200,
        positions=np.tile(mean, (200, 1)),
        precision="double",
        backend="cpu",
        seed=11,
    )
    sim.run(50)
    root = np.linalg.cholesky(H)
    first, squares = [], []
    for _ in range(40):
        sim.run(5)
        white = (sim.state.positions - mean) @ root
        first.append(white)
        squares.append(white**2)
    assert (z_scores(np.mean(first, 0), 0) < 5).all()
    assert (z_scores(np.mean(squares, 0), T) < 5).all()
    # A temperature that is off by a fifth would be seen.
    assert (z_scores(np.mean(squares, 0), 1.2 * T) > 5).any()


# --- errors --------------------------------------------------------------------------


def with_batch_mean(params, X):
    return apply(params, X - X.mean(axis=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"apply": 3}, "expected a function apply"),
        ({"apply": lambda p, X: (apply(p, X), X)}, "returns tuple"),
        ({"apply": lambda p, X: apply(p, X)[None]}, r"returns shape \(1, 2, 3\)"),
        ({"apply": lambda p, X: apply(p, X).mean()}, r"returns shape \(\)"),
        ({"apply": with_batch_mean}, "beside other rows"),
        ({"params": {}}, "nothing to sample"),
        ({"params": {"w": jnp.ones(3, int)}}, "int32 at 'w'"),
        ({"params": {"w": jnp.ones(3, complex)}}, "complex64 at 'w'"),
        ({"params": {"w": jnp.ones(3), "f": jnp.tanh}}, "at 'f'.*partition"),
        ({"params": {"a": {"b": jnp.ones(3)}, "a.b": jnp.ones(3)}}, "two leaves"),
        ({"data": None}, "expected a pair"),
        ({"data": (X[:0], Y[:0])}, "n > 0"),
        ({"data": (X[:, 0], Y)}, "at least one axis"),
        ({"data": (np.where(X > 2, np.nan, X), Y)}, "NaN"),
        ({"data": (X, Y + 1)}, "labels from 1 to 3"),
        ({"likelihood": "poison"}, "likelihood='poison'"),
        ({"prior": potentials.GaussianPrior({"w": 1.0})}, r"layers\.0\.a_weight"),
    ],
)
def test_refuses(settings, message):
    given = {"apply": apply, "params": PARAMS, "data": (X, Y)} | settings
    with pytest.raises(PotentialError, match=message):
        from_jax(**given)


def test_refuses_weights_that_are_not_the_trees():
    U = from_jax(apply, PARAMS, data=(X, Y))
    with pytest.raises(PotentialError, match="weights have shape"):
        U.to_jax(np.zeros(3))
    with pytest.raises(PotentialError, match="frame=9"):
        U.to_jax(np.zeros((4, 2, U.size)), frame=9)
    with pytest.raises(PotentialError, match="made by from_jax"):
        to_jax(native(), np.zeros(3))


def test_engines_are_ours_where_rows_are_drawn_here():
    from mdnet.potentials._jax_network import JaxEvaluator

    U = from_jax(apply, PARAMS, data=(X, Y))
    plain = U.minibatch(10).evaluator(resolve("cpu", "double"), 2)
    assert isinstance(plain, JaxEvaluator)
    classes = U.minibatch(10, order="stratified")
    assert not isinstance(classes.evaluator(resolve("cpu", "double"), 2), JaxEvaluator)
    q = native().initial(2)
    ours = run(native().minibatch(10, order="stratified"), 5, q)
    theirs = run(classes, 5, q)
    np.testing.assert_allclose(theirs.state.positions, ours.state.positions, atol=1e-10)


SNIPPETS = re.compile(r"^```python jax\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "other_frameworks.md"
    scope = {}
    found = SNIPPETS.findall(page.read_text("utf-8"))
    for snippet in found:
        exec(snippet, scope)
    assert found
    assert scope["tree"]["hidden"]["w"].shape == (4, 8)
