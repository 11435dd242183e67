"""The workloads of gpu.py: limits of the machine, and mdnet on a CUDA device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import Simulation, integrators, potentials


@dataclass(frozen=True, slots=True)
class Network:
    """One network workload: sizes, rows of a batch and of the data, replicas."""

    title: str
    sizes: tuple[int, ...]
    batch: int
    rows: int
    replicas: int
    activation: str = "relu"
    likelihood: str = "categorical"
    shared: bool = False

    @property
    def size(self) -> int:
        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        return sum((a + 1) * b for a, b in pairs)

    @property
    def flops(self) -> int:
        """Operations of the matrix products of one step of all replicas.

        Forward, gradient of the weights and, but for the first layer, error passed
        back: two operations a weight and row each.
        """
        pairs = [a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)]
        each = 6 * sum(pairs) - 2 * pairs[0]
        return each * self.batch * self.replicas

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        g = np.random.default_rng(7)
        X = g.random((self.rows, self.sizes[0]), dtype=np.float32)
        if self.likelihood == "gaussian":
            y = np.sin(3 * X.sum(axis=1, keepdims=True))
            return X, np.repeat(y, self.sizes[-1], axis=1).astype(np.float32)
        rule = g.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)
        return X, ((X - X.mean(0)) @ rule).argmax(1)


NETWORKS = (
    Network("784-100-10, batch 500, 1 replica", (784, 100, 10), 500, 10_000, 1),
    Network(
        "784-1000-1000-10, batch 500, 256 replicas",
        (784, 1000, 1000, 10),
        500,
        10_000,
        256,
        shared=True,
    ),
    Network(
        "2-20-20-1, all of 1,000 rows, 10,000 replicas",
        (2, 20, 20, 1),
        1000,
        1000,
        10_000,
        "tanh",
        "gaussian",
    ),
)


def seconds(
    work: Callable[[int], None], wait: Callable[[], None], least: float = 1.0
) -> float:
    """Median seconds of one unit of ``work(n)``, five turns of at least ``least`` s."""
    work(20)
    wait()
    n = 20
    while True:
        begin = time.perf_counter()
        work(n)
        wait()
        took = time.perf_counter() - begin
        if took > least / 5:
            break
        n = int(n * min(10, 1.2 * least / 5 / max(took, 1e-6))) + 1
    turns = []
    for _ in range(5):
        begin = time.perf_counter()
        work(n)
        wait()
        turns.append((time.perf_counter() - begin) / n)
    return float(np.median(turns))


def _bandwidth(cupy: Any) -> float:
    a = cupy.random.random(2**28, dtype=cupy.float32)
    b = cupy.empty_like(a)

    def copy(n: int) -> None:
        for _ in range(n):
            cupy.copyto(b, a)

    return 2e-9 * a.nbytes / seconds(copy, cupy.cuda.get_current_stream().synchronize)


def _product_rate(cupy: Any, matmul: str, n: int = 8192) -> float:
    from mdnet.backend import resolve
    from mdnet.kernels.cuda_blas import Products

    x, y = (
        cupy.random.standard_normal((1, n, n), dtype=cupy.float32) for _ in range(2)
    )
    product = Products(resolve("cuda"), matmul).product(x, y, cupy.empty_like(x))

    def multiply(count: int) -> None:
        for _ in range(count):
            product()

    wait = cupy.cuda.get_current_stream().synchronize
    return 2e-12 * n**3 / seconds(multiply, wait)


def limits(cupy: Any) -> dict[str, float]:
    """Copy bandwidth (bytes read plus written) and rates of matrix products."""
    found = {"copy_GB_s": _bandwidth(cupy)}
    for name in ("float32", "tf32", "bf16"):
        found[f"gemm_{name}_TFLOP_s"] = _product_rate(cupy, name)
    return found


def step(cupy: Any, size: int = 10**8) -> float:
    """Seconds of one launch of BAOAB's letters on ``size`` given forces."""
    from mdnet.backend import resolve
    from mdnet.kernels.engine import Engine, Program
    from mdnet.kernels.letters import BATH, DRIFT, KICK

    b = resolve("cuda")
    engine = Engine(b, b.asarray(np.ones(1)), 1, size)
    letters = [KICK, KICK, DRIFT, BATH, DRIFT]  # B, and the next step's B A O A
    program = Program.build(b, [(code, i, 0, 0) for i, code in enumerate(letters)])
    table = np.zeros((1, 5, 1, 1, 2))
    table[0, :, 0, 0, 0] = 5e-4, 5e-4, 5e-4, 0.999, 5e-4
    table[0, 3, 0, 0, 1] = np.sqrt(1 - 0.999**2)
    coefficients = b.asarray(table)
    q = cupy.random.standard_normal((1, size), dtype=cupy.float32)
    p, f = cupy.random.standard_normal((1, size), dtype=cupy.float32), -q
    sums = cupy.zeros((4, 1, engine.tiles))
    at = 0

    def advance(n: int) -> None:
        nonlocal at
        for _ in range(n):
            engine.advance(program, q, p, f, coefficients, sums, at)
            at += 1

    return seconds(advance, cupy.cuda.get_current_stream().synchronize)


def network(cupy: Any, case: Network) -> tuple[float, str]:
    """Seconds a step of BAOAB, and the engine that ran it."""
    net = potentials.MLP(case.sizes, activation=case.activation)
    u: Any = potentials.Posterior(net, case.likelihood, data=case.data())
    if case.batch < case.rows:
        u = u.minibatch(case.batch, shared=case.shared)
    sim = Simulation(
        u, integrators.BAOAB(dt=1e-4), replicas=case.replicas, seed=1, backend="cuda"
    )
    wait = cupy.cuda.get_current_stream().synchronize
    # Long runs between reports: a run ends with one plain step.
    took = seconds(sim.run, wait, least=5.0)
    if not np.isfinite(sim.potential_energy()).all():
        raise RuntimeError("the energy is not finite")
    return took, type(sim._evaluator).__name__
