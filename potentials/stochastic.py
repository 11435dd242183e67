"""A posterior whose forces are estimated from minibatches of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdnet.backend import Backend
from mdnet.potentials.base import Potential
from mdnet.potentials.evaluators import Batch
from mdnet.potentials.minibatch import check_batch
from mdnet.typing import Array, Evaluator, Layout

if TYPE_CHECKING:
    from mdnet.potentials.posterior import Posterior

__all__ = ["MinibatchPosterior"]


class MinibatchPosterior(Potential):
    """A posterior whose forces come from minibatches.

    U_B(q) = (N/n) sum_{i in B} -log p(y_i | x_i, q) - log prior(q), with rows B that
    are a function of (seed, replica, force call).  ``energy`` and ``gradient`` use all
    data.  Made by `Posterior.minibatch`.
    """

    def __init__(
        self, full: Posterior, batch_size: int, order: str, shared: bool
    ) -> None:
        self.full = full
        self.size = full.size
        self.batch = Batch(
            check_batch(batch_size, order, full.n_data), order, bool(shared)
        )

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self.full.layout

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; ``seed`` is the key of the batches."""
        return self.full._evaluator(backend, replicas, seed, self.batch)

    def initial(self, replicas: int, seed: int = 0, start: str = "network") -> Array:
        """As `Posterior.initial`."""
        return self.full.initial(replicas, seed, start)

    def predict(self, q: Array, X_new: Any) -> Array:
        """As `Posterior.predict`."""
        return self.full.predict(q, X_new)

    def log_likelihood(self, q: Array, X: Any, y: Any) -> Array:
        """As `Posterior.log_likelihood`."""
        return self.full.log_likelihood(q, X, y)

    def describe(self) -> dict[str, Any]:
        """As `Posterior.describe`, with the batches."""
        batch: Mapping[str, Any] = {
            "size": self.batch.size,
            "order": self.batch.order,
            "shared": self.batch.shared,
        }
        return {**self.full.describe(), "minibatch": dict(batch)}
