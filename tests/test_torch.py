"""PyTorch modules as potentials: against our own networks and closed forms."""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import PotentialError, TrajectoryError
from mdnet.potentials.torch import from_torch, to_torch

from .cuda_tools import device_only
from .physics_tools import z_scores

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from .torch_tools import (  # noqa: E402
    GENERATOR,
    IMAGES,
    Wrapped,
    X,
    Y,
    cnn,
    linear_after,
    mlp,
)

MODES = ("auto", "vmap", "loop")


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


# --- the same numbers as our own network ----------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-10), ("float32", 1e-5)])
def test_energy_gradient_and_prediction_are_those_of_our_mlp(mode, dtype, close):
    theirs, ours = from_torch(mlp(), data=(X, Y), vectorize=mode), native()
    q = ours.initial(3, seed=1).astype(dtype)
    energy, gradient = theirs.energy_and_gradient(q)
    exact_energy, exact_gradient = ours.energy_and_gradient(q.astype(np.float64))
    assert energy.dtype == np.float64
    assert gradient.dtype == dtype
    np.testing.assert_allclose(energy, exact_energy, rtol=close)
    scale = np.abs(exact_gradient).max()
    np.testing.assert_allclose(gradient, exact_gradient, atol=close * scale)
    np.testing.assert_allclose(
        theirs.predict(q, X), ours.predict(q.astype(np.float64), X), atol=close
    )


def test_the_comparison_would_see_a_wrong_activation():
    wrong = nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3))
    q = native().initial(3, seed=1)
    off = from_torch(wrong, data=(X, Y)).energy(q) / native().energy(q) - 1
    assert np.abs(off).min() > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [None, 10])
def test_trajectory_is_that_of_our_mlp(mode, batch):
    theirs, ours = from_torch(mlp(), data=(X, Y), vectorize=mode), native()
    start = ours.initial(3, seed=1)
    if batch:
        theirs, ours = theirs.minibatch(batch), ours.minibatch(batch)
    a, b = run(theirs, 100, start), run(ours, 100, start)
    np.testing.assert_allclose(a.state.positions, b.state.positions, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shared", [True, False])
def test_each_replica_is_its_own(mode, shared):
    U = from_torch(cnn(), data=(IMAGES, Y[:30]), vectorize=mode)
    q = U.initial(3) + 0.1 * GENERATOR.normal(size=(3, U.size))
    energy, gradient = U.energy_and_gradient(q)
    for r in range(3):
        alone, slope = U.energy_and_gradient(q[r : r + 1])
        np.testing.assert_allclose(alone, energy[r : r + 1], rtol=1e-12)
        np.testing.assert_allclose(slope[0], gradient[r], atol=1e-9)
    batches = U.minibatch(7, shared=shared)
    together = run(batches, 5, q).state.positions
    assert not np.allclose(together[0], together[1])
    again = run(batches, 5, q).state.positions
    np.testing.assert_array_equal(together, again)


def test_large_data_are_taken_in_slices(monkeypatch):
    from mdnet.potentials.evaluators import ArrayEvaluator

    q = native().initial(2)
    whole = from_torch(mlp(), data=(X, Y)).energy_and_gradient(q)
    monkeypatch.setattr(ArrayEvaluator, "ELEMENTS", 70)
    cut = from_torch(mlp(), data=(X, Y)).energy_and_gradient(q)
    np.testing.assert_allclose(cut[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(cut[1], whole[1], atol=1e-10)


def test_minibatch_forces_average_to_the_full_force():
    U = from_torch(mlp(), data=(X, Y))
    q = native().initial(1)
    from mdnet.backend import resolve

    batches = U.minibatch(10).evaluator(resolve("cpu", "double"), 1, 0)
    out, total = np.empty_like(q), np.zeros_like(q)
    for call in range(5):  # an epoch sees every row once
        batches.forces(q, out, call)
        total += out
    np.testing.assert_allclose(-total / 5, U.gradient(q), atol=1e-10)


def test_arrays_share_their_memory_with_tensors():
    from mdnet.potentials._torch_network import _array, _tensor

    array = np.arange(12.0).reshape(3, 4)
    view = array[1:, ::2]
    view.flags.writeable = False
    tensor = _tensor(view)
    assert tensor.data_ptr() == view.ctypes.data
    array[1, 2] = 7
    assert tensor[0, 1] == 7
    assert _array(tensor, np).ctypes.data == view.ctypes.data
    assert not np.shares_memory(np.asarray(tensor.clone()), view)


@device_only
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [None, 10])
def test_a_device_gives_what_the_host_gives(mode, batch):
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    import cupy

    from mdnet.potentials._torch_network import _array, _tensor

    here = cupy.arange(6.0).reshape(2, 3)
    assert _tensor(here).data_ptr() == here.data.ptr
    assert _array(_tensor(here), cupy).data.ptr == here.data.ptr
    U = from_torch(cnn(nn.BatchNorm2d(3)).eval(), data=(IMAGES, Y[:30]), vectorize=mode)
    start = U.initial(3) + 0.1 * GENERATOR.normal(size=(3, U.size))
    P = U.minibatch(batch) if batch else U
    a, b = (run(P, 30, start, backend=name) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(b.state.positions.get(), a.state.positions, atol=1e-9)
    gradient = U.gradient(cupy.asarray(start))
    np.testing.assert_allclose(gradient.get(), U.gradient(start), atol=1e-8)
    U.to_torch(b.state.positions, replica=2)


# --- modules of every kind -------------------------------------------------------


CASES = {
    "conv": (lambda: cnn(), IMAGES, ""),
    "batch norm in eval mode": (lambda: cnn(nn.BatchNorm2d(3)).eval(), IMAGES, ""),
    "dropout in eval mode": (lambda: cnn(nn.Dropout(0.5)).eval(), IMAGES, ""),
    "group norm": (lambda: cnn(nn.GroupNorm(1, 3)), IMAGES, ""),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        X,
        "weight_norm",
    ),
    "lstm": (
        lambda: linear_after(nn.LSTM(2, 3, batch_first=True), 3),
        GENERATOR.normal(size=(30, 5, 2)),
        "lstm",
    ),
    "tokens": (
        lambda: nn.Sequential(nn.Embedding(7, 2), nn.Flatten(), nn.Linear(10, 3)),
        GENERATOR.integers(0, 7, (30, 5)),
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_many_kinds_of_layers(case):
    build, rows, reason = CASES[case]
    torch.manual_seed(0)
    U = from_torch(build(), data=(rows[:30], Y[:30]))
    assert reason in U.network.loop_reason
    assert bool(reason) == bool(U.network.loop_reason)
    q = U.initial(2) + 0.1 * GENERATOR.normal(size=(2, U.size))
    assert potentials.check_gradient(U, q) < 1e-5
    np.testing.assert_allclose(
        U.predict(q, rows[:5]).sum(-1), np.ones((2, 5)), rtol=1e-6
    )


def test_a_loop_serves_what_vmap_refuses_and_says_why():
    module = CASES["lstm"][0]()
    rows = CASES["lstm"][1]
    with pytest.raises(PotentialError, match=r'vectorize="vmap".*lstm.*"loop"'):
        from_torch(module, data=(rows, Y[:30]), vectorize="vmap")


def test_tied_parameters_are_one_tensor():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    U = from_torch(tied, "gaussian", data=(X, X))
    assert list(U.layout) == ["0.weight", "0.bias", "2.bias"]
    q = U.initial(2) + 0.1 * GENERATOR.normal(size=(2, U.size))
    assert potentials.check_gradient(U, q) < 1e-6
    U.to_torch(q, replica=1)
    assert tied[2].weight is tied[0].weight
    np.testing.assert_allclose(
        tied(torch.from_numpy(X).float()).detach(), U.predict(q, X)[1], atol=1e-5
    )


def test_frozen_parameters_and_buffers_stay():
    module = cnn(nn.BatchNorm2d(3)).eval()
    module[0].weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    U = from_torch(module, data=(IMAGES, Y[:30]))
    assert "0.weight" not in U.layout
    assert "0.bias" in U.layout
    sim = run(U, 20, U.initial(2))
    U.to_torch(sim.state.positions)
    after = module.state_dict()
    held = ["0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert all(torch.equal(before[name], after[name]) for name in held)
    assert not torch.equal(before["0.bias"], after["0.bias"])


def test_a_module_changed_later_changes_nothing():
    module = mlp()
    U = from_torch(module, data=(X, Y))
    q = U.initial(2)
    before = U.energy(q)
    module.train()
    module[0].weight.data.zero_()
    module[1] = nn.ReLU()
    np.testing.assert_array_equal(from_again(U).energy(q), before)
    np.testing.assert_array_equal(U.initial(2), q)


def from_again(U):
    return pickle.loads(pickle.dumps(U))


def test_outputs_of_one_axis_are_one_column():
    flat = Wrapped(lambda self, x: self.layer(x)[:, 0], layer=nn.Linear(4, 1))
    y = X.sum(1)
    U = from_torch(flat, "gaussian", data=(X, y))
    V = potentials.Posterior(potentials.MLP([4, 1]), "gaussian", data=(X, y))
    q = V.initial(2)
    np.testing.assert_allclose(U.energy(q), V.energy(q), rtol=1e-12)


def test_data_may_be_tensors_and_data_sets():
    tensors = torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)
    U = from_torch(mlp(), data=tensors)
    rows = torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), tensors[1][:30])
    V = from_torch(cnn(), data=rows)
    W = from_torch(cnn(), data=(IMAGES, Y[:30]))
    q = native().initial(2)
    np.testing.assert_allclose(U.energy(q), native().energy(q), rtol=1e-12)
    q = V.initial(2)
    np.testing.assert_allclose(V.energy(q), W.energy(q), rtol=1e-12)
    np.testing.assert_allclose(
        U.predict(q[:, : U.size], tensors[0].detach()),
        U.predict(q[:, : U.size], X),
    )


def test_row_weights_and_temperatures_are_those_of_every_posterior():
    weights = GENERATOR.random(50)
    theirs = from_torch(mlp(), data=(X, Y), weights=weights, likelihood_temperature=2.0)
    ours = native(weights=weights, likelihood_temperature=2.0)
    q = ours.initial(2)
    np.testing.assert_allclose(theirs.energy(q), ours.energy(q), rtol=1e-12)
    np.testing.assert_allclose(theirs.gradient(q), ours.gradient(q), atol=1e-10)


def test_sampled_noise_and_scales_are_those_of_every_posterior():
    y = X.sum(axis=1)
    likelihoods = potentials.likelihoods
    settings = {
        "likelihood": likelihoods.Gaussian(noise=likelihoods.HalfCauchy(1.0)),
        "prior": potentials.HierarchicalGaussianPrior(),
        "data": (X, y),
    }
    ours = potentials.Posterior(potentials.MLP([4, 1], bias=False), **settings)
    theirs = from_torch(nn.Linear(4, 1, bias=False), **settings)
    assert theirs.size == ours.size > 4
    q = ours.initial(3) + 0.1 * GENERATOR.normal(size=(3, ours.size))
    np.testing.assert_allclose(theirs.energy(q), ours.energy(q), rtol=1e-12)
    np.testing.assert_allclose(theirs.gradient(q), ours.gradient(q), atol=1e-9)
    back = theirs.to_torch(q, replica=1).weight.detach()
    np.testing.assert_array_equal(back[0], q[1, :4].astype(np.float32))


# --- starts and the way back -----------------------------------------------------


def test_start_is_the_module_or_drawn_anew():
    module = mlp()
    U = from_torch(module, data=(X, Y))
    own = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    np.testing.assert_array_equal(U.initial(2), np.stack([own, own]))
    state = torch.get_rng_state()
    V = from_torch(module, data=(X, Y), start="reset")
    three, two = V.initial(3, seed=5), V.initial(2, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(three[:2], two)
    assert len(np.unique(three[:, 0])) == 3
    assert not np.allclose(V.initial(2, seed=6), two)
    assert np.abs(three).max() <= 0.5  # Linear draws within 1/sqrt(inputs)
    np.testing.assert_array_equal(U.minibatch(5).initial(1)[0], own)


@pytest.mark.parametrize("as_file", [True, False])
def test_weights_of_a_run_go_back_into_the_module(as_file, tmp_path):
    module = cnn()
    U = from_torch(module, data=(IMAGES, Y[:30]))
    sim = mdnet.Simulation(U.minibatch(10), baoab(), replicas=2, backend="cpu")
    sim.run(6, trajectory=tmp_path / "run.h5md", every=3)
    source = mdnet.open(tmp_path / "run.h5md") if as_file else sim.state.positions
    if as_file:
        np.testing.assert_array_equal(source.positions[-1], sim.state.positions)
        assert list(source.layout) == [name for name, _ in module.named_parameters()]
    back = U.to_torch(source, frame=-1, replica=1)
    assert back is module
    logits = back(torch.from_numpy(IMAGES).float())
    np.testing.assert_allclose(
        logits.softmax(1).detach(),
        U.predict(sim.state.positions, IMAGES)[1],
        atol=1e-5,
    )
    fresh = cnn()
    to_torch(fresh, source, replica=1)
    assert torch.equal(fresh[0].weight, module[0].weight)
    assert to_torch(U.minibatch(5), source) is module


def test_resumes_bit_for_bit_and_refuses_another_module(tmp_path):
    torch.manual_seed(1)
    module = cnn()
    path = tmp_path / "run.h5md"

    def made(module=module):
        return from_torch(module, data=(IMAGES, Y[:30])).minibatch(10)

    straight = mdnet.Simulation(made(), baoab(), replicas=2, seed=4, backend="cpu")
    straight.run(12)
    first = mdnet.Simulation(made(), baoab(), replicas=2, seed=4, backend="cpu")
    first.run(6, trajectory=path, every=2)
    again = mdnet.Simulation.resume(path, potential=made(copy.deepcopy(module)))
    again.run(6)
    np.testing.assert_array_equal(again.state.positions, straight.state.positions)
    other = cnn()
    other[1] = nn.ReLU()
    with pytest.raises(TrajectoryError, match="potential"):
        mdnet.Simulation.resume(path, potential=made(other))


def test_description_holds_no_addresses_and_sees_constants():
    module = Wrapped(lambda self, x: self.layer(x), layer=nn.Linear(4, 3))
    module.register_buffer("scale", torch.ones(3))
    first = from_torch(module, data=(X, Y)).describe()
    assert first == from_torch(copy.deepcopy(module), data=(X, Y)).describe()
    assert "0x" not in str(first["network"]["module"])
    module.scale.mul_(2)
    assert from_torch(module, data=(X, Y)).describe() != first


# --- physics -----------------------------------------------------------------------


def regression(noise=0.5, scale=1.5, rows=20):
    """A linear model in torch, and its posterior at T = 1: precision and mean."""
    inputs = GENERATOR.normal(size=(rows, 3))
    y = inputs @ [1.0, -2.0, 0.5] + 0.3 + noise * GENERATOR.normal(size=rows)
    A = np.concatenate([inputs, np.ones((rows, 1))], axis=1)
    H = A.T @ A / noise**2 + np.eye(4) / scale**2
    U = from_torch(
        nn.Linear(3, 1),
        potentials.likelihoods.Gaussian(noise=noise),
        potentials.GaussianPrior(scale),
        data=(inputs, y),
    )
    return U, H, np.linalg.solve(H, A.T @ y / noise**2)


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 4.0])
def test_linear_regression_is_sampled_at_its_temperature(T):
    """Mean, covariance T H^-1 and configurational temperature; 5 standard errors.

    Nine statistics with 199 degrees of freedom each: a false alarm in 10^5 runs.
    """
    U, H, mean = regression()
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
    first, squares, temperatures = [], [], []
    for _ in range(40):
        sim.run(5)
        q = sim.state.positions
        white = (q - mean) @ root
        first.append(white)
        squares.append(white**2)
        gradient = U.gradient(q)
        temperatures.append((gradient**2).sum(1) / np.trace(H))
    assert (z_scores(np.mean(first, 0), 0) < 5).all()
    assert (z_scores(np.mean(squares, 0), T) < 5).all()
    assert z_scores(np.mean(temperatures, 0), T) < 5
    # A temperature that is off by a fifth would be seen.
    assert z_scores(np.mean(temperatures, 0), 1.2 * T) > 5
    assert (z_scores(np.mean(squares, 0), 1.2 * T) > 5).any()


SNIPPETS = re.compile(r"^```python torch\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parent.parent / "docs" / "other_frameworks.md"
    scope = {}
    found = SNIPPETS.findall(page.read_text("utf-8"))
    for snippet in found:
        exec(snippet, scope)
    assert found
    expected = scope["U"].predict(scope["run"].positions[-1], scope["images"])[1]
    np.testing.assert_allclose(scope["probabilities"].detach(), expected, atol=1e-5)
