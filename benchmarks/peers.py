"""Programs of other libraries, each in its fastest documented form.

Run by `race` in the peers' interpreter (its own virtual environment).  Every JAX
program runs a whole block of steps in one compiled ``fori_loop``; PyTorch programs
update in place.
"""

from __future__ import annotations

import sys
import types
from importlib.metadata import version
from typing import Any

import numpy as np
from problems import Classifier, Harmonic, make, mean_nll
from worker import Program, serve

INNER = 10  # steps that BlackJAX's SGHMC makes from one draw of the momenta


# --- JAX --------------------------------------------------------------------------


# A library is (init(key, q, rows), step(key, state, rows), position(state)) here.


def _jax_target(problem: Any) -> tuple[Any, Any, Any]:
    """(start, log density(position, rows), rows(key))."""
    import jax
    import jax.numpy as jnp

    if isinstance(problem, Harmonic):
        k = problem.stiffness
        start = jnp.asarray(problem.start())
        return start, lambda q, _: -0.5 * k * jnp.sum(q * q), lambda _: None
    X, y = (jnp.asarray(a) for a in problem.data())
    start = [(jnp.asarray(W), jnp.asarray(b)) for W, b in problem.start()]

    def log_density(q: Any, rows: Any) -> Any:
        a, t = rows
        for l, (W, b) in enumerate(q):
            a = a @ W.T + b
            if l < len(q) - 1:
                a = jax.nn.relu(a)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(a), t[:, None], axis=1)
        prior = sum(jnp.sum(w * w) for w in jax.tree.leaves(q))
        return problem.rows / problem.batch * jnp.sum(chosen) - 0.5 * prior

    def rows(key: Any) -> Any:
        at = jax.random.randint(key, (problem.batch,), 0, problem.rows)
        return X[at], y[at]

    return start, log_density, rows


def _plain(problem: Any, scheme: str, gradient: Any) -> tuple[Any, Any, Any]:
    """Hand-written SGLD, or BAOAB with its two half kicks added up."""
    import jax

    def normals(key: Any, q: Any) -> Any:
        leaves, tree = jax.tree.flatten(q)
        keys = jax.random.split(key, len(leaves))
        draws = [
            jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, draws)

    if scheme == "sgld":
        eps = problem.overdamped_dt
        noise = float(np.sqrt(2 * eps))

        def overdamped(key: Any, q: Any, rows: Any) -> Any:
            return jax.tree.map(
                lambda x, g, z: x + eps * g + noise * z,
                q,
                gradient(q, rows),
                normals(key, q),
            )

        return lambda _key, q, _rows: q, overdamped, lambda q: q

    h = problem.dt
    c = float(np.exp(-problem.friction * h))
    s = float(np.sqrt(1 - c * c))

    def update(x: Any, p: Any, g: Any, z: Any) -> Any:
        p = p + h * g
        x = x + 0.5 * h * p
        p = c * p + s * z
        return x + 0.5 * h * p, p

    def underdamped(key: Any, state: Any, rows: Any) -> Any:
        q, p = state
        both = jax.tree.map(update, q, p, gradient(q, rows), normals(key, q))
        return jax.tree.transpose(jax.tree.structure(q), None, both)

    def first(key: Any, q: Any, _: Any) -> Any:
        return q, normals(key, q)

    return first, underdamped, lambda state: state[0]


def _blackjax(problem: Any, scheme: str, gradient: Any) -> tuple[Any, Any, Any]:
    """SGLD; or SGHMC (Euler), the library's nearest to underdamped dynamics."""
    import blackjax

    if scheme == "sgld":
        sgld = blackjax.sgld(gradient)
        eps = problem.overdamped_dt
        return (
            lambda _key, q, _rows: sgld.init(q),
            lambda key, q, rows: sgld.step(key, q, rows, eps),
            lambda q: q,
        )
    sghmc = blackjax.sghmc(gradient, INNER, alpha=problem.friction)
    return (
        lambda _key, q, _rows: sghmc.init(q),
        lambda key, q, rows: sghmc.step(key, q, rows, problem.dt),
        lambda q: q,
    )


def _sgmcmcjax(problem: Any, scheme: str, gradient: Any) -> tuple[Any, Any, Any]:
    """The library's diffusions, driven by the batches every program draws."""
    import jax.experimental

    # A module that newer JAX no longer has; used by its progress bar only.
    stub = types.ModuleType("host_callback")
    sys.modules["jax.experimental.host_callback"] = stub
    jax.experimental.host_callback = stub
    from sgmcmcjax import diffusions

    if scheme == "sgld":
        init, update, position = diffusions.sgld(problem.overdamped_dt)
        return (
            lambda _key, q, _rows: init(q),
            lambda key, s, rows: update(0, key, gradient(position(s), rows), s),
            position,
        )
    init, (before, after), position = diffusions.baoab(problem.dt, problem.friction)

    def step(key: Any, state: Any, rows: Any) -> Any:
        inner, g = state
        inner = before(0, key, g, inner)
        g = gradient(position(inner), rows)
        return after(0, key, g, inner), g

    def first(_: Any, q: Any, rows: Any) -> Any:
        return init(q), gradient(q, rows)

    return first, step, lambda state: position(state[0])


def _jax_md(problem: Any, _: str, gradient: Any) -> tuple[Any, Any, Any]:
    """``nvt_langevin`` (BAOAB); parameters are particles in one dimension."""
    from jax_md import simulate

    init, apply = simulate.nvt_langevin(
        lambda R, **_: gradient(R, None),
        lambda R, dR, **_: R + dR,
        problem.dt,
        1.0,
        gamma=problem.friction,
        center_velocity=False,
    )
    return (
        lambda key, q, _rows: init(key, q.reshape(-1, 1)),
        lambda _key, state, _rows: apply(state),
        lambda state: state.position,
    )


_JAX = {
    "plain": _plain,
    "blackjax": _blackjax,
    "sgmcmcjax": _sgmcmcjax,
    "jax_md": _jax_md,
}


def jax_program(task: dict[str, Any]) -> Program:
    """``task["library"]`` on one problem; replicas by ``vmap``.

    Each replica has its own batch, or (``problem.shared``) all have one.
    """
    import jax

    jax.config.update("jax_default_prng_impl", task.get("prng", "threefry2x32"))
    if task.get("precision") == "double":
        jax.config.update("jax_enable_x64", True)
    problem = make(task["problem"])
    start, log_density, draw = _jax_target(problem)
    if task.get("precision") == "double":
        start = jax.tree.map(lambda x: x.astype("float64"), start)
    if isinstance(problem, Harmonic):

        def gradient(q: Any, _: Any) -> Any:
            return -problem.stiffness * q
    else:
        gradient = jax.grad(log_density)
    scheme = task["scheme"]
    init, step, position = _JAX[task["library"]](problem, scheme, gradient)
    inner = INNER if task["library"] == "blackjax" and scheme != "sgld" else 1

    shared = isinstance(problem, Classifier) and problem.shared

    def one(key: Any, state: Any, rows: Any) -> Any:
        if shared:
            return step(key, state, rows)
        for_rows, for_step = jax.random.split(key)
        return step(for_step, state, draw(for_rows))

    many = isinstance(problem, Classifier) and problem.replicas > 1
    if isinstance(problem, Classifier) and not many:
        start = jax.tree.map(lambda x: x[0], start)
    body = jax.vmap(one, in_axes=(0, 0, None)) if many else one

    def begin(key: Any, q: Any) -> Any:
        return init(key, q, draw(key))

    first = jax.vmap(begin) if many else begin

    def keys(key: Any) -> Any:
        return jax.random.split(key, problem.replicas) if many else key

    @jax.jit
    def block(key: Any, state: Any, steps: Any) -> Any:
        def once(i: Any, s: Any) -> Any:
            key_i = jax.random.fold_in(key, i)
            rows = draw(jax.random.fold_in(key_i, 1)) if shared else None
            return body(keys(key_i), s, rows)

        return jax.lax.fori_loop(0, steps, once, state)

    root = jax.random.key(0)
    state = jax.jit(first)(keys(root), start)
    made = 0

    def advance(n: int) -> None:
        nonlocal state, made
        blocks = -(-n // inner)
        made += blocks
        state = block(jax.random.fold_in(root, made), state, blocks)
        jax.block_until_ready(state)

    def check() -> dict[str, float]:
        q = position(state)
        if isinstance(problem, Harmonic):
            square = np.mean(np.square(np.asarray(q), dtype=np.float64))
            return {"configurational_temperature": problem.stiffness * float(square)}
        rows = [q]
        if many:
            rows = [
                jax.tree.map(lambda x, r=r: x[r], q) for r in range(problem.replicas)
            ]
        sets = [jax.tree.map(np.asarray, row) for row in rows]
        return {"nll": mean_nll(sets, *problem.data())}

    names = ["jax", "jaxlib"]
    names += {"plain": [], "jax_md": ["jax-md"]}.get(task["library"], [task["library"]])
    found = {name: version(name) for name in names}
    return Program(advance, check, found, problem.settle)


# --- PyTorch ----------------------------------------------------------------------


def _torch_log_density(problem: Classifier) -> Any:
    import torch
    from torch.nn import functional

    scale = problem.rows / problem.batch

    def log_density(q: dict[str, Any], rows: Any) -> Any:
        a, t = rows
        last = len(problem.sizes) - 2
        for l in range(last + 1):
            a = functional.linear(a, q[f"W{l}"], q[f"b{l}"])
            if l < last:
                a = torch.relu(a)
        prior = sum((w * w).sum() for w in q.values())
        return -scale * functional.cross_entropy(a, t, reduction="sum") - 0.5 * prior

    return log_density


def _torch_start(problem: Any) -> dict[str, Any]:
    import torch

    if isinstance(problem, Harmonic):
        return {"q": torch.from_numpy(problem.start())}
    out = {}
    for l, (W, b) in enumerate(problem.start()):
        out[f"W{l}"], out[f"b{l}"] = torch.from_numpy(W[0]), torch.from_numpy(b[0])
    return out


def _posteriors(problem: Any, task: dict[str, Any], rows: Any, start: Any) -> Any:
    """The library's transform, updating in place (its fastest form)."""
    import posteriors
    import torch

    none = torch.tensor([])
    if isinstance(problem, Harmonic):
        k = problem.stiffness

        def log_posterior(q: Any, _: Any) -> Any:
            return -0.5 * k * (q["q"] * q["q"]).sum(), none
    else:
        density = _torch_log_density(problem)

        def log_posterior(q: Any, batch: Any) -> Any:
            return density(q, batch), none

    if task["scheme"] == "sgld":
        build = posteriors.sgmcmc.sgld.build
        transform = build(log_posterior, lr=problem.overdamped_dt)
    else:
        build = posteriors.sgmcmc.baoa.build
        transform = build(log_posterior, lr=problem.dt, alpha=problem.friction)
    state = transform.init(start)

    def step() -> None:
        nonlocal state
        state, _ = transform.update(state, rows(), inplace=True)

    return step, lambda: state.params


def _eager(problem: Any, task: dict[str, Any], rows: Any, start: Any) -> Any:
    """Hand-written, in place, on one flat buffer whose views are the tensors."""
    import torch

    q = torch.cat([x.reshape(-1) for x in start.values()])
    f, z, p = torch.zeros_like(q), torch.empty_like(q), torch.randn_like(q)
    views, at = {}, 0
    for name, x in start.items():
        view = q[at : at + x.numel()].view(x.shape).requires_grad_()
        view.grad = f[at : at + x.numel()].view(x.shape)
        views[name], at = view, at + x.numel()
    if isinstance(problem, Harmonic):

        def force() -> None:
            torch.mul(q, -problem.stiffness, out=f)
    else:
        density = _torch_log_density(problem)

        def force() -> None:
            f.zero_()
            density(views, rows()).backward()

    if task["scheme"] == "sgld":
        eps = problem.overdamped_dt
        noise = float(np.sqrt(2 * eps))

        def step() -> None:
            force()
            with torch.no_grad():
                q.add_(f, alpha=eps).add_(z.normal_(), alpha=noise)
    else:
        h = problem.dt
        c = float(np.exp(-problem.friction * h))
        s = float(np.sqrt(1 - c * c))

        def step() -> None:
            force()
            with torch.no_grad():
                p.add_(f, alpha=h)
                q.add_(p, alpha=h / 2)
                p.mul_(c).add_(z.normal_(), alpha=s)
                q.add_(p, alpha=h / 2)

    return step, lambda: views


def _compiled(problem: Any, _task: dict[str, Any], _rows: Any, start: Any) -> Any:
    """The update of `_eager` as one function under ``torch.compile``."""
    import torch

    q = torch.cat([x.reshape(-1) for x in start.values()])
    p = torch.randn_like(q)
    h, k = problem.dt, problem.stiffness
    c = float(np.exp(-problem.friction * h))
    s = float(np.sqrt(1 - c * c))

    @torch.compile
    def update(q: Any, p: Any) -> None:
        middle = p - h * k * q
        new = c * middle + s * torch.randn_like(middle)
        q.add_(0.5 * h * (middle + new))
        p.copy_(new)

    return (lambda: update(q, p)), lambda: {"q": q}


_TORCH = {"posteriors": _posteriors, "eager": _eager, "compiled": _compiled}


def torch_program(task: dict[str, Any]) -> Program:
    """``task["library"]`` on one problem, one replica (any number if harmonic)."""
    import torch

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    problem = make(task["problem"])

    def rows() -> Any:
        return None

    if isinstance(problem, Classifier):
        X, y = (torch.from_numpy(a) for a in problem.data())

        def rows() -> Any:
            at = torch.randint(problem.rows, (problem.batch,))
            return X[at], y[at]

    step, position = _TORCH[task["library"]](problem, task, rows, _torch_start(problem))

    def advance(n: int) -> None:
        for _ in range(n):
            step()

    def check() -> dict[str, float]:
        q = {name: x.detach().numpy() for name, x in position().items()}
        if isinstance(problem, Harmonic):
            square = np.mean(np.square(q["q"], dtype=np.float64))
            return {"configurational_temperature": problem.stiffness * float(square)}
        layers = range(len(problem.sizes) - 1)
        weights = [(q[f"W{l}"], q[f"b{l}"]) for l in layers]
        return {"nll": mean_nll([weights], *problem.data())}

    names = ["torch"] + (["posteriors"] if task["library"] == "posteriors" else [])
    found = {name: version(name) for name in names}
    return Program(advance, check, found, problem.settle)


if __name__ == "__main__":
    serve({"jax": jax_program, "torch": torch_program})
