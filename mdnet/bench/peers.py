"""The same work in JAX and PyTorch, as a careful user would write it by hand.

Both are imported only where they are installed; what is timed is one call that makes
many steps and is waited for.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

from mdnet.bench.workloads import rows

__all__ = ["PEERS", "peers"]

_SIZE, _H = 10**6, 0.2
_INPUTS, _HIDDEN, _CLASSES, _ROWS, _BATCH, _EPS = 784, 100, 10, 10_000, 500, 1e-6


def _jax(kind: str, steps: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    if kind == "harmonic":
        c = math.exp(-_H)
        s = math.sqrt(1 - c * c)

        def step(state: Any, key: Any) -> Any:
            q, p = state
            p = p - _H / 2 * q
            q = q + _H / 2 * p
            p = c * p + s * jax.random.normal(key, p.shape)
            q = q + _H / 2 * p
            return (q, p - _H / 2 * q), None

        state: Any = (jnp.zeros(_SIZE), jnp.zeros(_SIZE))
    else:
        x, t = (jnp.asarray(a) for a in rows(_ROWS, _INPUTS, _CLASSES))

        def energy(w: Any, index: Any) -> Any:
            hidden = jax.nn.relu(x[index] @ w[0] + w[1])
            logits = jax.nn.log_softmax(hidden @ w[2] + w[3])
            fit = jnp.take_along_axis(logits, t[index][:, None], axis=1).sum()
            prior = sum((v * v).sum() for v in w) / 2
            return prior - _ROWS / _BATCH * fit

        def step(state: Any, key: Any) -> Any:
            keys = jax.random.split(key, len(state) + 1)
            index = jax.random.randint(keys[-1], (_BATCH,), 0, _ROWS)
            force = jax.grad(energy)(state, index)
            noise = math.sqrt(2 * _EPS)
            moved = [
                w - _EPS * g + noise * jax.random.normal(k, w.shape)
                for w, g, k in zip(state, force, keys[:-1], strict=True)
            ]
            return moved, None

        shapes = ((_INPUTS, _HIDDEN), (_HIDDEN,), (_HIDDEN, _CLASSES), (_CLASSES,))
        state = [
            0.05 * jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes)
        ]

    many = jax.jit(lambda s, k: jax.lax.scan(step, s, jax.random.split(k, steps))[0])
    key = jax.random.key(1)
    return lambda: jax.block_until_ready(many(state, key))


def _torch(kind: str, steps: int) -> Callable[[], Any]:
    import torch

    if kind == "harmonic":
        c = math.exp(-_H)
        s = math.sqrt(1 - c * c)
        q, p, z = (torch.zeros(_SIZE) for _ in range(3))

        def step() -> None:
            p.add_(q, alpha=-_H)  # the two half kicks between steps in one
            q.add_(p, alpha=_H / 2)
            p.mul_(c).add_(z.normal_(), alpha=s)
            q.add_(p, alpha=_H / 2)
    else:
        x, t = (torch.as_tensor(a) for a in rows(_ROWS, _INPUTS, _CLASSES))
        first = torch.nn.Linear(_INPUTS, _HIDDEN)
        last = torch.nn.Linear(_HIDDEN, _CLASSES)
        weights = [*first.parameters(), *last.parameters()]

        def step() -> None:
            index = torch.randint(_ROWS, (_BATCH,))
            logits = last(torch.relu(first(x[index])))
            fit = torch.nn.functional.cross_entropy(logits, t[index], reduction="sum")
            force = torch.autograd.grad(_ROWS / _BATCH * fit, weights)
            with torch.no_grad():
                for w, g in zip(weights, force, strict=True):
                    noise = torch.randn_like(w)
                    w.mul_(1 - _EPS).sub_(g, alpha=_EPS)
                    w.add_(noise, alpha=math.sqrt(2 * _EPS))

    def many() -> None:
        for _ in range(steps):
            step()

    return many


PEERS: dict[str, tuple[str, Callable[[str, int], Callable[[], Any]]]] = {
    "JAX": ("jax", _jax),
    "PyTorch": ("torch", _torch),
}


def peers(kind: str, steps: int) -> dict[str, Callable[[], Any]]:
    """Programs of the installed peers for one kind of work, each making ``steps``."""
    if not kind:
        return {}
    return {
        name: make(kind, steps)
        for name, (module, make) in PEERS.items()
        if importlib.util.find_spec(module) is not None
    }
