"""A posterior whose forces are estimated from minibatches of its data."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._batches import Blocks, Strata, make_blocks, make_strata
from mdnet.potentials.base import Potential
from mdnet.potentials.control_variates import Anchored, Tabulated, make_control, mode
from mdnet.potentials.evaluators import Batch
from mdnet.potentials.minibatch import ORDERS, check_batch
from mdnet.typing import Array, Evaluator, Layout

if TYPE_CHECKING:
    from mdnet.potentials.posterior import Posterior

__all__ = ["MinibatchPosterior"]

_ORDERS = {
    **ORDERS,
    "stratified": "every class in proportion",
    "blocks": "shuffled blocks of a file",
}


class MinibatchPosterior(Potential):
    """A posterior whose forces come from minibatches.

    U_B(q) = (N/n) sum_{i in B} -log p(y_i | x_i, q) - log prior(q), with rows B that
    are a function of (seed, replica, force call).  ``energy`` and ``gradient`` use all
    data.  Made by `Posterior.minibatch`, which says what the arguments are.
    """

    def __init__(
        self,
        full: Posterior,
        batch_size: int,
        order: str = "shuffle",
        shared: bool = False,
        *,
        strata: Any = None,
        block: int | None = None,
        buffer: int | None = None,
        control_variate: str | None = None,
        reference: Any = None,
        refresh: int | None = None,
    ) -> None:
        self.full = full
        self.size = full.size
        n_data = full.n_data
        size = check_batch(batch_size, order, n_data, _ORDERS)
        plan: Any = None
        if order == "stratified":
            plan = make_strata(strata, full._targets, n_data)
        elif strata is not None:
            raise PotentialError(
                f"strata= given with order={order!r}: expected it with "
                "minibatch(order='stratified', strata=labels) only"
            )
        if order == "blocks":
            X = full._X
            row = int(X.shape[1]) * np.dtype(X.dtype).itemsize
            plan = make_blocks(n_data, size, row, block, buffer)
        elif block is not None or buffer is not None:
            raise PotentialError(
                f"block={block!r} and buffer={buffer!r} given with order={order!r}: "
                "expected them with minibatch(order='blocks') only"
            )
        self.batch = Batch(size, order, bool(shared), plan)
        self.control = make_control(
            control_variate, reference, refresh, order, size, n_data
        )
        self._given = None if reference is None else self._points(reference)

    def _points(self, reference: Any) -> Array:
        points = np.array(reference, np.float64)
        if points.shape[-1:] != (self.size,) or points.ndim not in (1, 2):
            raise PotentialError(
                f"reference has shape {points.shape}: expected ({self.size},), or "
                f"(R, {self.size}) with a point of its own for each replica"
            )
        if not np.isfinite(points).all():
            raise PotentialError(
                "reference holds NaN or infinity: expected a point of low energy, as "
                "sim.state.positions[0] after sim.minimize()"
            )
        return points

    @property
    def reference(self) -> Array:
        """Anchor of ``control_variate="fixed"``, (D,) or (R, D) float64.

        A minimum of U, found when it is first needed, unless it was given.
        """
        if self._given is None:
            self._given = mode(self.full)
        return self._given

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self.full.layout

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; ``seed`` is the key of the batches."""
        control, batch = self.control, self.batch
        if control is None:
            return self.full._evaluator(backend, replicas, seed, batch)
        if control.kind == "saga":
            partition = Batch(batch.size, "shuffle", batch.shared)
            inner = self.full._evaluator(backend, replicas, seed, partition)
            count = self.full.n_data // batch.size
            return Tabulated(inner, backend, replicas, self.size, seed, count)
        inner = self.full._evaluator(backend, replicas, seed, batch)
        if control.kind == "svrg":
            return Anchored(inner, backend, replicas, self.size, control.refresh)
        reference = self.reference
        if reference.ndim == 2 and len(reference) != replicas:
            raise PotentialError(
                f"reference has {len(reference)} rows: expected {replicas}, one for "
                f"each replica, or one point ({self.size},) for all"
            )
        return Anchored(inner, backend, replicas, self.size, None, reference)

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
        b = self.batch
        batch: dict[str, Any] = {"size": b.size, "order": b.order, "shared": b.shared}
        if isinstance(b.plan, Blocks):
            batch |= {"block": b.plan.block, "buffer": b.plan.buffer}
        elif isinstance(b.plan, Strata):
            batch["strata"] = _digest(np.unique(b.plan.labels, return_inverse=True)[1])
        if self.control is not None:
            batch["control_variate"] = asdict(self.control)
            if self.control.kind == "fixed":
                batch["control_variate"]["reference"] = _digest(self.reference)
        return {**self.full.describe(), "minibatch": batch}


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
