"""Networks of a few hundred weights in JAX and PyTorch, written out by hand.

Run by `race` in the peers' interpreter.  JAX makes a whole block of steps in one
compiled ``fori_loop``, replicas by ``vmap``; PyTorch multiplies batches of matrices and
takes one gradient of the sum over the replicas.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from problems import Small, make
from worker import Program, serve


def jax_small(task: dict[str, Any]) -> Program:
    """Leapfrog (velocity Verlet, the half kicks added up) or BAOAB."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_prng_impl", task.get("prng", "threefry2x32"))
    problem: Small = make(task["problem"])
    X, y = (jnp.asarray(a) for a in problem.data())
    h, count = problem.dt, problem.batch or problem.rows
    c = float(np.exp(-problem.friction * h))
    s = float(np.sqrt(1 - c * c))

    def energy(q: Any, x: Any, t: Any) -> Any:
        a = x
        for l, (W, b) in enumerate(q):
            a = a @ W.T + b
            if l < len(q) - 1:
                a = jnp.tanh(a)
        z = a[:, 0]
        if problem.noise:
            loss = 0.5 / problem.noise**2 * jnp.sum((z - t) ** 2)
        else:
            loss = jnp.sum(jnp.logaddexp(0.0, z) - t * z)
        prior = sum(jnp.sum(w * w) for w in jax.tree.leaves(q))
        return problem.rows / count * loss + 0.5 * prior

    gradient = jax.grad(energy)

    def force(key: Any, q: Any) -> Any:
        if not problem.batch:
            return gradient(q, X, y)
        at = jax.random.randint(key, (problem.batch,), 0, problem.rows)
        return gradient(q, X[at], y[at])

    def leapfrog(key: Any, q: Any, p: Any) -> Any:
        p = jax.tree.map(lambda p, g: p - h * g, p, force(key, q))
        return jax.tree.map(lambda x, p: x + h * p, q, p), p

    def normals(key: Any, q: Any) -> Any:
        leaves, tree = jax.tree.flatten(q)
        keys = jax.random.split(key, len(leaves))
        draws = [
            jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, draws)

    def baoab(key: Any, q: Any, p: Any) -> Any:
        rows, noise = jax.random.split(key)
        p = jax.tree.map(lambda p, g: p - h * g, p, force(rows, q))
        q = jax.tree.map(lambda x, p: x + 0.5 * h * p, q, p)
        p = jax.tree.map(lambda p, z: c * p + s * z, p, normals(noise, q))
        return jax.tree.map(lambda x, p: x + 0.5 * h * p, q, p), p

    one = leapfrog if task["scheme"] == "leapfrog" else baoab
    many = problem.replicas > 1
    q = [(jnp.asarray(W), jnp.asarray(b)) for W, b in problem.start()]
    if not many:
        q = jax.tree.map(lambda x: x[0], q)
    body = jax.vmap(one) if many else one

    @jax.jit
    def block(key: Any, q: Any, p: Any, steps: Any) -> Any:
        def once(i: Any, state: Any) -> Any:
            now = jax.random.fold_in(key, i)
            keys = jax.random.split(now, problem.replicas) if many else now
            return body(keys, *state)

        return jax.lax.fori_loop(0, steps, once, (q, p))

    root = jax.random.key(0)
    state = (q, normals(root, q))
    made = 0

    def advance(n: int) -> None:
        nonlocal state, made
        made += n
        state = block(jax.random.fold_in(root, made), *state, n)
        jax.block_until_ready(state)

    def check() -> dict[str, float]:
        q = state[0] if many else jax.tree.map(lambda x: x[None], state[0])
        return {"loss": problem.loss([(np.asarray(W), np.asarray(b)) for W, b in q])}

    found = {name: version(name) for name in ("jax", "jaxlib")}
    return Program(advance, check, found, problem.settle)


def torch_small(task: dict[str, Any]) -> Program:
    """The same, updating one flat buffer of all replicas in place."""
    import torch

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    problem: Small = make(task["problem"])
    X, y = (torch.from_numpy(a) for a in problem.data())
    R, h, count = problem.replicas, problem.dt, problem.batch or problem.rows
    c = float(np.exp(-problem.friction * h))
    s = float(np.sqrt(1 - c * c))
    tensors = [torch.from_numpy(t) for pair in problem.start() for t in pair]
    q = torch.cat([t.reshape(-1) for t in tensors])
    g, p, noise = torch.zeros_like(q), torch.randn_like(q), torch.empty_like(q)
    views, at = [], 0
    for t in tensors:
        view = q[at : at + t.numel()].view(t.shape).requires_grad_()
        view.grad = g[at : at + t.numel()].view(t.shape)
        views.append(view)
        at += t.numel()

    def gradient() -> None:
        x, t = X.expand(R, -1, -1), y
        if problem.batch:
            rows = torch.randint(problem.rows, (R, problem.batch))
            x, t = X[rows], y[rows]
        for l in range(0, len(views), 2):
            x = torch.baddbmm(views[l + 1][:, None], x, views[l].transpose(1, 2))
            if l < len(views) - 2:
                x = torch.tanh(x)
        z = x[..., 0]
        if problem.noise:
            loss = 0.5 / problem.noise**2 * ((z - t) ** 2).sum()
        else:
            loss = (torch.nn.functional.softplus(z) - t * z).sum()
        g.copy_(q.detach())  # of the prior; backward adds the rest
        (problem.rows / count * loss).backward()

    def step() -> None:
        gradient()
        with torch.no_grad():
            p.add_(g, alpha=-h)
            if task["scheme"] == "leapfrog":
                q.add_(p, alpha=h)
            else:
                q.add_(p, alpha=h / 2)
                p.mul_(c).add_(noise.normal_(), alpha=s)
                q.add_(p, alpha=h / 2)

    def advance(n: int) -> None:
        for _ in range(n):
            step()

    def check() -> dict[str, float]:
        sets = [v.detach().numpy() for v in views]
        return {"loss": problem.loss(list(zip(sets[::2], sets[1::2], strict=True)))}

    return Program(advance, check, {"torch": version("torch")}, problem.settle)


if __name__ == "__main__":
    serve({"jax_small": jax_small, "torch_small": torch_small})
