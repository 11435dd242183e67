"""Hamiltonian Monte Carlo of a small network in JAX: by hand, BlackJAX and NumPyro.

Run by `race` in the peers' interpreter.  A step is one trajectory; a whole block of
them is one compiled ``fori_loop``, chains by ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from problems import Small, make
from worker import Program, serve

# Each library is init(key, q) -> state, step(key, state) -> (state, acceptance) and
# position(state).
_Kernel = tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], Any]]


def _energy(problem: Small) -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    X, y = (jnp.asarray(a) for a in problem.data())

    def energy(q: Any) -> Any:
        a = X
        for l, (W, b) in enumerate(q):
            a = a @ W.T + b
            if l < len(q) - 1:
                a = jnp.tanh(a)
        loss = 0.5 / problem.noise**2 * jnp.sum((a[:, 0] - y) ** 2)
        return loss + 0.5 * sum(jnp.sum(w * w) for w in jax.tree.leaves(q))

    return energy


def _plain(energy: Callable[[Any], Any], h: float, turns: int) -> _Kernel:
    """On one flat vector, the half kicks between two drifts added up."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    shapes: list[Any] = []

    def init(_: Any, q: Any) -> Any:
        flat, back = ravel_pytree(q)
        shapes.append(back)
        return flat, energy(q)

    def step(key: Any, state: Any) -> Any:
        both = jax.value_and_grad(lambda x: energy(shapes[0](x)))
        q, before = state
        for_momenta, for_test = jax.random.split(key)
        p = jax.random.normal(for_momenta, q.shape)
        start = before + 0.5 * jnp.sum(p * p)

        def turn(_: Any, qp: Any) -> Any:
            x, v = qp
            x = x + h * v
            return x, v - h * both(x)[1]

        x, v = jax.lax.fori_loop(0, turns - 1, turn, (q, p - 0.5 * h * both(q)[1]))
        x = x + h * v
        after, g = both(x)
        v = v - 0.5 * h * g
        error = after + 0.5 * jnp.sum(v * v) - start
        accept = -jnp.log(jax.random.uniform(for_test)) > error
        chance = jnp.minimum(1.0, jnp.exp(-error))
        state = jnp.where(accept, x, q), jnp.where(accept, after, before)
        return state, chance

    return init, step, lambda state: jax.vmap(shapes[0])(state[0])


def _blackjax(energy: Callable[[Any], Any], h: float, turns: int) -> _Kernel:
    import blackjax
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    sizes: list[int] = []

    def made() -> Any:
        return blackjax.hmc(
            lambda q: -energy(q),
            step_size=h,
            inverse_mass_matrix=jnp.ones(sizes[0]),
            num_integration_steps=turns,
        )

    def init(_: Any, q: Any) -> Any:
        sizes.append(ravel_pytree(q)[0].size)
        return made().init(q)

    def step(key: Any, state: Any) -> Any:
        state, info = made().step(key, state)
        return state, info.acceptance_rate

    return init, step, lambda state: jax.tree.map(lambda x: x, state.position)


def _numpyro(energy: Callable[[Any], Any], h: float, turns: int) -> _Kernel:
    from numpyro.infer.hmc import hmc

    start, sample = hmc(energy, algo="HMC")

    def init(key: Any, q: Any) -> Any:
        return start(
            q,
            num_warmup=0,
            step_size=h,
            trajectory_length=h * turns,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            rng_key=key,
        )

    def step(_: Any, state: Any) -> Any:
        state = sample(state)
        return state, state.accept_prob

    return init, step, lambda state: state.z


_LIBRARIES = {"plain": _plain, "blackjax": _blackjax, "numpyro": _numpyro}


def jax_hmc(task: dict[str, Any]) -> Program:
    """``task["turns"]`` leapfrog steps a trajectory, by ``task["library"]``."""
    import jax

    problem: Small = make(task["problem"])
    library = task["library"]
    init, step, position = _LIBRARIES[library](
        _energy(problem), problem.dt, task["turns"]
    )
    q = [(jax.numpy.asarray(W), jax.numpy.asarray(b)) for W, b in problem.start()]
    root, chains = jax.random.key(0), problem.replicas
    if chains == 1:  # without the price of batching
        q = jax.tree.map(lambda x: x[0], q)
        first, body = init, step
    else:
        first, body = jax.vmap(init), jax.vmap(step)

    def keys(key: Any) -> Any:
        return key if chains == 1 else jax.random.split(key, chains)

    state = first(keys(root), q)

    @jax.jit
    def block(key: Any, state: Any, steps: Any) -> Any:
        def once(i: Any, carried: Any) -> Any:
            state, total = carried
            state, chance = body(keys(jax.random.fold_in(key, i)), state)
            return state, total + jax.numpy.mean(chance)

        return jax.lax.fori_loop(0, steps, once, (state, 0.0))

    made, total = 0, 0.0

    def advance(n: int) -> None:
        nonlocal state, made, total
        state, accepted = block(jax.random.fold_in(root, made), state, n)
        jax.block_until_ready(state)
        made, total = made + n, total + float(accepted)

    def check() -> dict[str, float]:
        batch = state
        if chains == 1:
            batch = jax.tree.map(lambda x: jax.numpy.asarray(x)[None], state)
        sets = [(np.asarray(W), np.asarray(b)) for W, b in position(batch)]
        return {"loss": problem.loss(sets), "acceptance": total / made}

    names = ["jax", "jaxlib", *([library] if library != "plain" else [])]
    found = {name: version(name) for name in names}
    return Program(advance, check, found, problem.settle)


if __name__ == "__main__":
    serve({"jax_hmc": jax_hmc})
