"""What ``mdnet bench`` runs, and what each step of it must move and compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import mdnet
from mdnet import integrators, potentials
from mdnet.bench.limits import Limits

__all__ = ["WORKLOADS", "Workload", "rows"]

# Of one parameter and step of BAOAB: a quarter of ten Philox rounds of eight
# operations, half a Box-Muller pair (47), and the letters with two kinetic sums (12).
_NOISE = 80 / 4 + 47 / 2
_LETTERS = 12


@dataclass(frozen=True, slots=True)
class Workload:
    """One piece of work.

    Attributes
    ----------
    name : str
        What stands in the table.
    kind : {"harmonic", "network"}
        What the peers are asked for.
    make : callable
        ``make(backend)`` builds the simulation.
    steps : int
        Steps of one call.
    bytes, operations, flops : float
        What a step must move through memory, its vector operations, and the
        floating-point operations of its matrix products.
    """

    name: str
    kind: str
    make: Callable[[str], Any]
    steps: int
    bytes: float
    operations: float
    flops: float = 0.0

    def bound(self, limits: Limits) -> float:
        """Shortest time of a step that the machine's ceilings allow, in seconds."""
        compute = self.operations / limits.operations + self.flops / limits.flops
        return max(self.bytes / limits.copy, compute)


def rows(
    count: int, inputs: int, classes: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Synthetic data: normal inputs, labels of a random linear rule."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, inputs)).astype(np.float32)
    return x, np.argmax(x @ rng.standard_normal((inputs, classes)), axis=1)


def _harmonic(size: int, fused: bool) -> Callable[[str], Any]:
    def make(backend: str) -> Any:
        stiffness: Any = 1.0 if fused else np.ones(size)
        potential = potentials.Harmonic(stiffness=stiffness, size=size)
        start = np.zeros(size)
        rule = integrators.BAOAB(dt=0.2)
        return mdnet.Simulation(potential, rule, positions=start, backend=backend)  # type: ignore[arg-type]

    return make


def _network(
    sizes: list[int], count: int, batch: int, replicas: int
) -> Callable[[str], Any]:
    def make(backend: str) -> Any:
        net = potentials.MLP(sizes, activation="relu")
        posterior: Any = potentials.Posterior(
            net, data=rows(count, sizes[0], sizes[-1])
        )
        if batch < count:
            posterior = posterior.minibatch(batch, order="replacement")
        rule = integrators.SGLD(dt=1e-6)
        return mdnet.Simulation(posterior, rule, replicas=replicas, backend=backend)  # type: ignore[arg-type]

    return make


def _network_work(sizes: list[int], batch: int, replicas: int) -> dict[str, float]:
    weights = sum((a + 1) * b for a, b in pairwise(sizes))
    products = sum(a * b for a, b in pairwise(sizes))
    # Forward, weight gradient, and the error sent back through all but the first.
    flops = 2.0 * batch * (3 * products - sizes[0] * sizes[1])
    moved = 4.0 * (batch * sizes[0] + 6 * weights)
    return {
        "bytes": replicas * moved,
        "operations": replicas * weights * (_NOISE + _LETTERS),
        "flops": replicas * flops,
    }


WORKLOADS = (
    Workload(
        "BAOAB, 1e6 parameters, fused",
        "harmonic",
        _harmonic(10**6, True),
        50,
        0.0,
        1e6 * (_NOISE + _LETTERS),
    ),
    Workload(
        "BAOAB, 1e7 parameters, force given",
        "",
        _harmonic(10**7, False),
        2,
        1e7 * 28,
        1e7 * (_NOISE + _LETTERS),
    ),
    Workload(
        "SGLD, 784-100-10, batch 500",
        "network",
        _network([784, 100, 10], 10_000, 500, 1),
        20,
        **_network_work([784, 100, 10], 500, 1),
    ),
    Workload(
        "SGLD, 100 nets 2-20-20-2, 1000 rows",
        "",
        _network([2, 20, 20, 2], 1000, 1000, 100),
        5,
        **_network_work([2, 20, 20, 2], 1000, 100),
    ),
)
