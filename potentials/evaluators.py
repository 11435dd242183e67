"""The engines behind a posterior, and which of them a device gets.

`DenseEvaluator` runs `mdnet.kernels.dense` on the CPU, `CudaEvaluator` and
`TinyEvaluator` run on a CUDA device.  `ArrayEvaluator` is written in operations that
NumPy and CuPy share: it serves networks and likelihoods that have no compiled form, and
is the reference that the others are tested against.  `StreamEvaluator` feeds one of
them with rows that are read while they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mdnet.backend import Backend
from mdnet.potentials._array_evaluator import ArrayEvaluator
from mdnet.potentials._cuda_evaluator import CudaEvaluator
from mdnet.potentials._dense_evaluator import DenseEvaluator
from mdnet.potentials._sources import Source
from mdnet.potentials._stream_evaluator import StreamEvaluator
from mdnet.potentials._tiny_evaluator import TinyEvaluator, suits
from mdnet.typing import Evaluator

if TYPE_CHECKING:
    from mdnet.potentials.posterior import Posterior

__all__ = [
    "ArrayEvaluator",
    "Batch",
    "CudaEvaluator",
    "DenseEvaluator",
    "StreamEvaluator",
    "TinyEvaluator",
    "device_evaluator",
    "streams",
]


@dataclass(frozen=True, slots=True)
class Batch:
    """Which rows a force call sees; see `mdnet.potentials.minibatch.rows`.

    Attributes
    ----------
    size : int
    order : str
    shared : bool
    plan : Strata, Blocks or None
        Draws the rows, where their number alone does not say which.
    total : int or None
        Rows N that a batch stands for, if not all that the engine has.
    """

    size: int
    order: str = "shuffle"
    shared: bool = False
    plan: Any = None
    total: int | None = None


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


def streams(X: Any, batch: Batch | None) -> bool:
    """Whether rows have to be brought to an engine, and not be found by it."""
    return isinstance(X, Source) or (batch is not None and batch.plan is not None)
