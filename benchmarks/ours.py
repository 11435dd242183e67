"""Programs of mdnet, and the limits they are held against: NumPy, copies, products.

Run by `race` in the interpreter that has mdnet.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from problems import Classifier, Harmonic, make, mean_nll
from worker import Program, serve


def _versions() -> dict[str, str]:
    import mdnet

    packages = {name: version(name) for name in ("numpy", "numba", "scipy")}
    return {"mdnet": mdnet.__version__, **packages}


def _simulation(problem: Any, task: dict[str, Any], potential: Any, start: Any) -> Any:
    import mdnet
    from mdnet import integrators

    if task["scheme"] == "sgld":
        scheme = integrators.SGLD(dt=problem.overdamped_dt)
    else:
        scheme = integrators.BAOAB(dt=problem.dt, friction=problem.friction)
    return mdnet.Simulation(
        potential,
        scheme,
        replicas=problem.replicas,
        positions=start,
        backend="cpu",
        precision=task.get("precision", "single"),
    )


def _advance(sim: Any, mode: str) -> Any:
    """How the steps are asked for.

    "many": ``run(n)``, up to a thousand steps a kernel launch where the force is
    fused.  "observed": ``run(1)`` n times, the state and its energies readable after
    each.  "single": one kernel launch a step, by the stepper's own means: what a force
    that must see all parameters would allow.
    """
    if mode == "many":
        return sim.run
    if mode == "observed":
        return lambda n: [sim.run(1) for _ in range(n)]
    stepper = sim._stepper

    def advance(n: int) -> None:
        stepper.ensure_force()
        for _ in range(n):
            stepper._run(stepper._sweep.whole, sim.state.step)
            stepper._count(1)

    return advance


def mdnet_harmonic(task: dict[str, Any]) -> Program:
    """BAOAB; ``task["stiffness"]`` "scalar" (force fused) or "array" (given)."""
    from mdnet import potentials

    problem: Harmonic = make(task["problem"])
    stiffness: Any = problem.stiffness
    if task["stiffness"] == "array":
        stiffness = np.full(problem.size, stiffness)
    potential = potentials.Harmonic(stiffness=stiffness, size=problem.size)
    sim = _simulation(problem, task, potential, problem.start())
    fused = sim._stepper.fused
    if fused != (task["stiffness"] == "scalar"):
        raise RuntimeError(
            f"force fused: {fused}, with a {task['stiffness']} stiffness"
        )

    def check() -> dict[str, float]:
        q = np.asarray(sim.state.positions)
        temperature = problem.stiffness * np.mean(np.square(q, dtype=np.float64))
        return {"configurational_temperature": float(temperature)}

    advance = _advance(sim, task.get("mode", "many"))
    return Program(advance, check, _versions(), problem.settle)


def posterior(problem: Classifier) -> Any:
    """mdnet's potential of a classifier."""
    from mdnet import potentials

    net = potentials.MLP(list(problem.sizes), activation="relu")
    prior = potentials.GaussianPrior(scale=1.0)
    return potentials.Posterior(
        net, likelihood="categorical", prior=prior, data=problem.data()
    )


def mdnet_classifier(task: dict[str, Any]) -> Program:
    """SGLD or BAOAB on batches; ``task["only"]`` "force" times the force alone."""
    problem: Classifier = make(task["problem"])
    full = posterior(problem)
    order = task.get("order", "replacement")
    batches = full.minibatch(problem.batch, order=order, shared=problem.shared)
    tensors = [t for W, b in problem.start() for t in (W, b)]
    start = np.concatenate([t.reshape(problem.replicas, -1) for t in tensors], axis=1)
    sim = _simulation(problem, task, batches, start)

    def check() -> dict[str, float]:
        sets = []
        for q in np.asarray(sim.state.positions):
            flat = [q[where].reshape(shape) for where, shape in full.layout.values()]
            sets.append(list(zip(flat[::2], flat[1::2], strict=True)))
        return {"nll": mean_nll(sets, *problem.data())}

    if task.get("only") == "force":
        calls = iter(range(10**12))
        forces, state = sim._evaluator.forces, sim.state

        def advance(n: int) -> None:
            for _ in range(n):
                forces(state.positions, state.forces, next(calls))

        return Program(advance, dict, _versions())
    advance = _advance(sim, task.get("mode", "many"))
    return Program(advance, check, _versions(), problem.settle)


def numpy_harmonic(task: dict[str, Any]) -> Program:
    """BAOAB in whole-array operations that allocate nothing."""
    problem: Harmonic = make(task["problem"])
    q = problem.start()
    generator = np.random.Generator(np.random.SFC64(0))
    p = generator.standard_normal(q.shape, dtype=np.float32)
    z = np.empty_like(q)
    h, k = np.float32(problem.dt), np.float32(problem.stiffness)
    c = np.float32(np.exp(-problem.friction * problem.dt))
    s = np.sqrt(1 - c * c)

    def advance(n: int) -> None:
        for _ in range(n):
            np.multiply(q, -h * k, out=z)
            np.add(p, z, out=p)
            np.multiply(p, h / 2, out=z)
            np.add(q, z, out=q)
            generator.standard_normal(out=z, dtype=np.float32)
            np.multiply(z, s, out=z)
            np.multiply(p, c, out=p)
            np.add(p, z, out=p)
            np.multiply(p, h / 2, out=z)
            np.add(q, z, out=q)

    def check() -> dict[str, float]:
        return {
            "configurational_temperature": problem.stiffness
            * float(np.mean(np.square(q, dtype=np.float64)))
        }

    return Program(advance, check, {"numpy": np.__version__}, problem.settle)


def numpy_classifier(task: dict[str, Any]) -> Program:
    """SGLD with the gradient written by hand, products by NumPy's BLAS."""
    problem: Classifier = make(task["problem"])
    X, y = problem.data()
    (W1, b1), (W2, b2) = [(W[0], b[0]) for W, b in problem.start()]
    generator = np.random.Generator(np.random.SFC64(0))
    scale = np.float32(problem.rows / problem.batch)
    eps = np.float32(problem.overdamped_dt)
    noise = np.sqrt(2 * eps)
    rows = np.arange(problem.batch)

    def advance(n: int) -> None:
        for _ in range(n):
            at = generator.integers(problem.rows, size=problem.batch)
            x = X[at]
            a = np.maximum(x @ W1.T + b1, 0)
            z = a @ W2.T + b2
            z -= z.max(axis=1, keepdims=True)
            d = np.exp(z)
            d /= d.sum(axis=1, keepdims=True)
            d[rows, y[at]] -= 1
            e = (d @ W2) * (a > 0)
            for w, g in ((W1, e.T @ x), (b1, e.sum(0)), (W2, d.T @ a), (b2, d.sum(0))):
                w -= eps * (scale * g + w)
                w += noise * generator.standard_normal(w.shape, dtype=np.float32)

    def check() -> dict[str, float]:
        return {"nll": mean_nll([[(W1, b1), (W2, b2)]], X, y)}

    return Program(advance, check, {"numpy": np.__version__}, problem.settle)


def copy_limit(task: dict[str, Any]) -> Program:
    """The least a step can move: read and write q and p once, two operations each."""
    from numba import njit, prange

    @njit(parallel=True, fastmath=True, error_model="numpy")
    def step(q, p, h):
        for i in prange(q.size):
            x = q[i] + h * p[i]
            p[i] -= h * x
            q[i] = x

    problem: Harmonic = make(task["problem"])
    q = problem.start().reshape(-1)
    p, h = np.zeros_like(q), np.float32(1e-3)

    def advance(n: int) -> None:
        for _ in range(n):
            step(q, p, h)

    return Program(advance)


def product_limit(task: dict[str, Any]) -> Program:
    """The two large products of a step alone, by NumPy's BLAS, in place."""
    problem: Classifier = make(task["problem"])
    (W, _), *_ = problem.start()
    W = W[0]
    x = problem.data()[0][: problem.batch]
    z = np.empty((problem.batch, W.shape[0]), np.float32)
    g = np.empty_like(W)

    def advance(n: int) -> None:
        for _ in range(n):
            np.matmul(x, W.T, out=z)
            np.matmul(z.T, x, out=g)

    return Program(advance)


def blas_limit(task: dict[str, Any]) -> Program:
    """One large square product by NumPy's BLAS: what the cores can do at most."""
    g = np.random.default_rng(0)
    a, b = g.standard_normal((2, task["size"], task["size"]), dtype=np.float32)
    c = np.empty_like(a)

    def advance(n: int) -> None:
        for _ in range(n):
            np.matmul(a, b, out=c)

    return Program(advance, dict, {"numpy": np.__version__})


if __name__ == "__main__":
    serve(
        {
            "mdnet_harmonic": mdnet_harmonic,
            "mdnet_classifier": mdnet_classifier,
            "numpy_harmonic": numpy_harmonic,
            "numpy_classifier": numpy_classifier,
            "copy_limit": copy_limit,
            "product_limit": product_limit,
            "blas_limit": blas_limit,
        }
    )
