"""The same steps in PyTorch and in JAX, each in its fastest documented forms.

A peer draws fresh normals and, with minibatches, fresh rows at every step, as mdnet
does; it keeps no ledger of heat and work.  The rows of a batch are drawn with
replacement, all replicas alike where mdnet shares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from gpu_work import Network, seconds

DT, FRICTION = 1e-4, 1.0
KEPT = math.exp(-FRICTION * DT)
NOISE = math.sqrt(1 - KEPT * KEPT)

Peer = tuple[str, Callable[[], float]]


def peers(case: Network) -> Iterator[Peer]:
    """(label, measurement) of every form of every library; import errors come late."""
    for form in ("eager", "compiled", "CUDA graph"):
        yield f"PyTorch, vmap, {form}", lambda form=form: _torch(case, form)
    yield "JAX, jit + vmap + scan", lambda: _jax(case)


def step_peers(size: int) -> Iterator[Peer]:
    """The same for BAOAB's letters on given forces."""
    for form in ("eager", "compiled", "CUDA graph"):
        yield f"PyTorch, {form}", lambda form=form: _torch_step(size, form)
    yield "JAX, jit + scan", lambda: _jax_step(size)


# --- PyTorch ----------------------------------------------------------------------


def _torch_run(torch: Any, step: Callable[[], None], form: str) -> float:
    wait = torch.cuda.synchronize
    if form == "compiled":
        step = torch.compile(step, mode="max-autotune-no-cudagraphs")
    if form == "CUDA graph":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        step = graph.replay

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return seconds(run, wait)


def _torch_step(size: int, form: str) -> float:
    import torch

    q, p, f = (torch.randn(size, device="cuda") for _ in range(3))

    @torch.no_grad()
    def step() -> None:
        p.add_(f, alpha=DT)
        q.add_(p, alpha=DT / 2)
        p.mul_(KEPT).add_(torch.randn_like(p), alpha=NOISE)
        q.add_(p, alpha=DT / 2)

    return _torch_run(torch, step, form)


def _torch(case: Network, form: str) -> float:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    X, y = (torch.as_tensor(a, device="cuda") for a in case.data())
    R, layers = case.replicas, list(zip(case.sizes, case.sizes[1:], strict=False))
    g = torch.Generator("cuda").manual_seed(1)
    q = []
    for a, b in layers:
        q.append(torch.randn(R, b, a, device="cuda", generator=g) / math.sqrt(a))
        q.append(torch.zeros(R, b, device="cuda"))
    p = [torch.randn_like(x) for x in q]
    act = torch.relu if case.activation == "relu" else torch.tanh
    scale = case.rows / case.batch

    def energy(w: Any, x: Any, t: Any) -> Any:
        a = x
        for l in range(len(layers)):
            a = a @ w[2 * l].T + w[2 * l + 1]
            a = act(a) if l < len(layers) - 1 else a
        if case.likelihood == "gaussian":
            loss = 0.5 * ((a - t) ** 2).sum()
        else:
            loss = torch.nn.functional.cross_entropy(a, t, reduction="sum")
        return scale * loss + 0.5 * sum((v * v).sum() for v in w)

    whole, own = case.batch == case.rows, not case.shared
    axis = 0 if own and not whole else None
    gradient = torch.func.vmap(torch.func.grad(energy), in_dims=(0, axis, axis))

    def step() -> None:
        x, t = X, y
        if not whole:
            shape = (R, case.batch) if own else (case.batch,)
            rows = torch.randint(case.rows, shape, device="cuda")
            x, t = X[rows], y[rows]
        forces = gradient(tuple(q), x, t)
        with torch.no_grad():
            for v, u, f in zip(q, p, forces, strict=True):
                u.sub_(f, alpha=DT)
                v.add_(u, alpha=DT / 2)
                u.mul_(KEPT).add_(torch.randn_like(u), alpha=NOISE)
                v.add_(u, alpha=DT / 2)

    return _torch_run(torch, step, form)


# --- JAX --------------------------------------------------------------------------


def _jax_run(jax: Any, step: Callable[[Any, Any], Any], state: Any) -> float:
    def many(state: Any, key: Any, n: int) -> Any:
        keys = jax.random.split(key, n)
        return jax.lax.scan(lambda s, k: (step(s, k), None), state, keys)[0]

    compiled = jax.jit(many, static_argnums=2, donate_argnums=0)
    block = 100
    box = [state, jax.random.key(1)]

    def run(n: int) -> None:
        for _ in range(n):
            box[1], key = jax.random.split(box[1])
            box[0] = compiled(box[0], key, block)

    return seconds(run, lambda: jax.block_until_ready(box[0])) / block


def _jax_step(size: int) -> float:
    import jax

    if jax.default_backend() != "gpu":
        raise RuntimeError("JAX sees no GPU")
    q, p, f = (
        jax.random.normal(k, (size,)) for k in jax.random.split(jax.random.key(0), 3)
    )

    def step(state: Any, key: Any) -> Any:
        q, p = state
        p = p + DT * f
        q = q + DT / 2 * p
        p = KEPT * p + NOISE * jax.random.normal(key, p.shape)
        return q + DT / 2 * p, p

    return _jax_run(jax, step, (q, p))


def _jax(case: Network) -> float:
    import jax
    import jax.numpy as jnp

    if jax.default_backend() != "gpu":
        raise RuntimeError("JAX sees no GPU")
    jax.config.update("jax_default_matmul_precision", "highest")
    X, y = (jnp.asarray(a) for a in case.data())
    R, layers = case.replicas, list(zip(case.sizes, case.sizes[1:], strict=False))
    keys = jax.random.split(jax.random.key(0), len(layers))
    q = [
        (jax.random.normal(k, (R, b, a)) / math.sqrt(a), jnp.zeros((R, b)))
        for k, (a, b) in zip(keys, layers, strict=True)
    ]
    act = jax.nn.relu if case.activation == "relu" else jnp.tanh
    scale = case.rows / case.batch

    def energy(w: Any, x: Any, t: Any) -> Any:
        a = x
        for l, (W, b) in enumerate(w):
            a = a @ W.T + b
            a = act(a) if l < len(w) - 1 else a
        if case.likelihood == "gaussian":
            loss = 0.5 * jnp.sum((a - t) ** 2)
        else:
            chosen = jnp.take_along_axis(jax.nn.log_softmax(a), t[:, None], axis=1)
            loss = -jnp.sum(chosen)
        return scale * loss + 0.5 * sum(jnp.sum(v * v) for v in jax.tree.leaves(w))

    whole, own = case.batch == case.rows, not case.shared
    axis = 0 if own and not whole else None
    gradient = jax.vmap(jax.grad(energy), in_axes=(0, axis, axis))

    def step(state: Any, key: Any) -> Any:
        q, p = state
        draw, noise = jax.random.split(key)
        x, t = X, y
        if not whole:
            shape = (R, case.batch) if own else (case.batch,)
            rows = jax.random.randint(draw, shape, 0, case.rows)
            x, t = X[rows], y[rows]
        g = gradient(q, x, t)
        leaves, tree = jax.tree.flatten(q)
        each = jax.random.split(noise, len(leaves))
        z = tree.unflatten(
            [jax.random.normal(k, v.shape) for k, v in zip(each, leaves, strict=True)]
        )
        p = jax.tree.map(lambda u, f: u - DT * f, p, g)
        q = jax.tree.map(lambda v, u: v + DT / 2 * u, q, p)
        p = jax.tree.map(lambda u, n: KEPT * u + NOISE * n, p, z)
        return jax.tree.map(lambda v, u: v + DT / 2 * u, q, p), p

    return _jax_run(jax, step, (q, jax.tree.map(jnp.zeros_like, q)))
