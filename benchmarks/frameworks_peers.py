"""Training steps of PyTorch and JAX, and steps of mdnet with the same models.

Run by `race` in the peers' interpreter; mdnet comes from the checkout around this file.
Each mdnet program says how far its gradient is from the framework's own.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from problems import Classifier
from worker import Program, serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
RATE = 1e-6


def _data(task: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    X, y = Classifier().data()
    image = {"torch": (-1, 1, 28, 28), "jax": (-1, 28, 28, 1)}[task["framework"]]
    return (X if task["network"] == "mlp" else X.reshape(image)), y


# --- PyTorch ----------------------------------------------------------------------


def _torch_module(task: dict[str, Any]) -> Any:
    import torch
    from torch import nn

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    if task["network"] == "mlp":
        return nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 10),
    )


def _torch_training(task: dict[str, Any]) -> Program:
    """One module and one optimiser a replica: on a CPU faster than ``vmap``."""
    import torch
    from torch.nn.functional import cross_entropy

    modules = [_torch_module(task) for _ in range(task["replicas"])]
    optimizers = [torch.optim.SGD(m.parameters(), RATE) for m in modules]
    X, y = (torch.from_numpy(a) for a in _data(task))

    def advance(n: int) -> None:
        for _ in range(n):
            for module, optimizer in zip(modules, optimizers, strict=True):
                rows = torch.randint(len(y), (task["batch"],))
                optimizer.zero_grad()
                cross_entropy(module(X[rows]), y[rows]).backward()
                optimizer.step()

    return Program(advance, dict, {"torch": version("torch")})


def _torch_potential(task: dict[str, Any]) -> tuple[Any, Any]:
    import torch
    from torch.nn.functional import cross_entropy

    from mdnet import potentials

    module = _torch_module(task)
    X, y = _data(task)
    U = potentials.from_torch(module, prior=None, data=(X, y))
    logits = module(torch.from_numpy(X[:1000]))
    loss = cross_entropy(logits, torch.from_numpy(y[:1000]), reduction="sum")
    own = torch.autograd.grad(loss, list(module.parameters()))
    few = potentials.from_torch(module, prior=None, data=(X[:1000], y[:1000]))
    return U, (few, np.concatenate([g.numpy().ravel() for g in own]))


# --- JAX --------------------------------------------------------------------------


def _jax_model(task: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(apply, params, mean loss)."""
    import jax
    import jax.numpy as jnp

    g = np.random.default_rng(1)

    def drawn(*shape: int) -> Any:
        fan = np.prod(shape[:-1])
        return jnp.asarray(g.standard_normal(shape) / np.sqrt(fan), jnp.float32)

    if task["network"] == "mlp":
        params = {"w0": drawn(784, 100), "b0": jnp.zeros(100)}
        params |= {"w1": drawn(100, 10), "b1": jnp.zeros(10)}

        def apply(p: Any, X: Any) -> Any:
            return jax.nn.relu(X @ p["w0"] + p["b0"]) @ p["w1"] + p["b1"]
    else:
        params = {"k0": drawn(3, 3, 1, 8), "b0": jnp.zeros(8)}
        params |= {"k1": drawn(3, 3, 8, 16), "b1": jnp.zeros(16)}
        params |= {"w2": drawn(400, 10), "b2": jnp.zeros(10)}

        def layer(X: Any, k: Any, b: Any) -> Any:
            names = ("NHWC", "HWIO", "NHWC")
            z = jax.lax.conv_general_dilated(
                X, k, (1, 1), "VALID", dimension_numbers=names
            )
            a = jax.nn.relu(z + b)
            window = (1, 2, 2, 1)
            return jax.lax.reduce_window(
                a, -jnp.inf, jax.lax.max, window, window, "VALID"
            )

        def apply(p: Any, X: Any) -> Any:
            a = layer(layer(X, p["k0"], p["b0"]), p["k1"], p["b1"])
            return a.reshape(len(X), -1) @ p["w2"] + p["b2"]

    def loss(p: Any, X: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(apply(p, X))
        return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    return apply, params, loss


def _jax_training(task: dict[str, Any]) -> Program:
    """One compiled step, called step by step; replicas by ``vmap``."""
    import jax
    import jax.numpy as jnp

    _, params, loss = _jax_model(task)
    X, y = (jnp.asarray(a) for a in _data(task))
    many = task["replicas"] > 1

    def step(p: Any, key: Any) -> Any:
        rows = jax.random.randint(key, (task["batch"],), 0, len(y))
        slope = jax.grad(loss)(p, X[rows], y[rows])
        return jax.tree.map(lambda a, g: a - RATE * g, p, slope)

    if many:
        params = jax.tree.map(lambda a: jnp.stack([a] * task["replicas"]), params)
    advance_all = jax.jit(jax.vmap(step) if many else step)
    root, made = jax.random.key(0), 0

    def advance(n: int) -> None:
        nonlocal params, made
        for _ in range(n):
            made += 1
            key = jax.random.fold_in(root, made)
            keys = jax.random.split(key, task["replicas"]) if many else key
            params = advance_all(params, keys)
        jax.block_until_ready(params)

    return Program(advance, dict, {"jax": version("jax")})


def _jax_potential(task: dict[str, Any]) -> tuple[Any, Any]:
    import jax

    from mdnet import potentials

    apply, params, loss = _jax_model(task)
    X, y = _data(task)
    U = potentials.from_jax(apply, params, prior=None, data=(X, y))
    own = jax.grad(loss)(params, X[:1000], y[:1000])
    few = potentials.from_jax(apply, params, prior=None, data=(X[:1000], y[:1000]))
    flat = [1000 * np.asarray(g).ravel() for g in jax.tree.leaves(own)]
    return U, (few, np.concatenate(flat))


# --- both -------------------------------------------------------------------------


def training(task: dict[str, Any]) -> Program:
    """The framework's own step."""
    return {"torch": _torch_training, "jax": _jax_training}[task["framework"]](task)


def sampling(task: dict[str, Any]) -> Program:
    """SGLD of the same model by mdnet, on batches drawn as there."""
    import mdnet
    from mdnet import integrators

    build = {"torch": _torch_potential, "jax": _jax_potential}[task["framework"]]
    U, (few, own) = build(task)
    q = U.initial(1).astype(np.float32)
    off = np.linalg.norm(few.gradient(q)[0] - own) / np.linalg.norm(own)
    sim = mdnet.Simulation(
        U.minibatch(task["batch"], order="replacement"),
        integrators.SGLD(dt=1e-9),
        replicas=task["replicas"],
        backend="cpu",
    )
    return Program(
        sim.run,
        lambda: {"gradient_error_e6": 1e6 * float(off)},
        {"mdnet": mdnet.__version__},
    )


if __name__ == "__main__":
    serve({"training": training, "sampling": sampling})
