"""The engines behind a posterior, and which of them a device gets.

`DenseEvaluator` runs `mdnet.kernels.dense` on the CPU, `CudaEvaluator` and
`TinyEvaluator` run on a CUDA device.  `ArrayEvaluator` is written in operations that
NumPy and CuPy share: it serves networks and likelihoods that have no compiled form, and
is the reference that the others are tested against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mdnet.backend import Backend
from mdnet.potentials._array_evaluator import ArrayEvaluator
from mdnet.potentials._cuda_evaluator import CudaEvaluator
from mdnet.potentials._dense_evaluator import DenseEvaluator
from mdnet.potentials._tiny_evaluator import TinyEvaluator, suits
from mdnet.typing import Evaluator

if TYPE_CHECKING:
    from mdnet.potentials.posterior import Posterior

__all__ = [
    "ArrayEvaluator",
    "Batch",
    "CudaEvaluator",
    "DenseEvaluator",
    "TinyEvaluator",
    "device_evaluator",
]


@dataclass(frozen=True, slots=True)
class Batch:
    """Which rows a force call sees; see `mdnet.potentials.minibatch.rows`."""

    size: int
    order: str = "shuffle"
    shared: bool = False


def device_evaluator(
    model: Posterior,
    backend: Backend,
    replicas: int,
    seed: int,
    batch: Batch | None = None,
) -> Evaluator:
    """Engine of an MLP on a CUDA device: small networks take one launch a force."""
    if suits(model, backend, replicas, batch):
        return TinyEvaluator(model, backend, replicas, seed, batch)
    return CudaEvaluator(model, backend, replicas, seed, batch, backend.matmul)
