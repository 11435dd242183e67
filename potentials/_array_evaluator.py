"""Posterior energies and gradients in operations that NumPy and CuPy share.

Serves devices, networks and likelihoods that have no compiled form, and is the
reference the compiled engine is tested against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.potentials.minibatch import rows
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch
    from mdnet.potentials.posterior import Posterior

__all__ = ["ArrayEvaluator"]

GIVEN = "given"
"""In place of an index: rows stand one batch after another."""


class ArrayEvaluator:
    """Energies and gradients by batched products over replicas.

    Rows are taken in slices whose activations hold at most `ELEMENTS` numbers; within
    a slice the array module allocates temporaries (CuPy: from its pool).

    Parameters
    ----------
    model : Posterior
        Network, likelihood, prior and data.
    backend : Backend
        Array module and precision.
    replicas : int
        R.
    seed : int
        Key of the minibatches.
    batch : Batch, optional
        Estimate forces from such batches; all rows if None.
    """

    ELEMENTS = 2**24

    def __init__(
        self,
        model: Posterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
    ) -> None:
        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        self._model, self._batch = model, batch
        self._xp, self._seed, self._replicas = backend.xp, seed, replicas
        self._dtype = backend.force_dtype
        random.seed_words(seed)
        X, t = model.arrays(self._dtype)
        self._X, self._t = backend.asarray(X, self._dtype), backend.asarray(t)
        self._work = backend.xp.empty((replicas, model.size), self._dtype)
        self._slice = max(1, self.ELEMENTS // (replicas * model.width))

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        index = None
        if self._batch is not None:
            b = self._batch
            if b.order == "given":
                self._gradient(positions, out, -1.0, GIVEN, energies)
                return
            host = rows(
                self._seed,
                1 if b.shared else self._replicas,
                call,
                self._t.shape[0],
                b.size,
                b.order,
            )
            index = self._xp.asarray(host[0] if b.shared else host)
        self._gradient(positions, out, -1.0, index, energies)

    def hold(self, X: Array, t: Array) -> None:
        """Use inputs and targets ``X, t`` on the host from now on."""
        asarray = self._xp.asarray
        self._X, self._t = asarray(X, self._dtype), asarray(t)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        model, xp = self._model, self._xp
        q = positions.astype(self._dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = model.parts.energy(q, xp)
            likelihood = model.bound_likelihood(q, xp)
            weights = q[:, model.parts.weights]
            for X, t in self._slices(None):
                z = model.network.forward(weights, X)
                density = likelihood.log_density(z, t, xp)
                out -= density.sum(axis=1, dtype=np.float64)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(positions, out, 1.0, None, None)

    def _slices(self, index: Any) -> Any:
        """Pieces (X, targets) of the rows ``index`` (all if None)."""
        X, t = self._X, self._t
        if index is GIVEN and self._batch is not None and not self._batch.shared:
            X, t = (a.reshape(-1, self._batch.size, a.shape[1]) for a in (X, t))
        every = index is None or index is GIVEN
        n = t.shape[-2] if every else index.shape[-1]
        for first in range(0, n, self._slice):
            where = slice(first, first + self._slice)
            if every:
                yield X[..., where, :], t[..., where, :]
            else:
                yield X[index[..., where]], t[index[..., where]]

    def _gradient(
        self,
        positions: Array,
        out: Array,
        sign: float,
        index: Any,
        energies: Array | None,
    ) -> None:
        model, xp, scale = self._model, self._xp, 1.0
        q = positions.astype(self._dtype, copy=False)
        if index is not None and self._batch is not None:
            scale = (self._batch.total or self._t.shape[0]) / self._batch.size
        parts = model.parts
        weights, likelihood = q[:, parts.weights], model.bound_likelihood(q, xp)
        slopes = self._work[:, parts.weights]
        self._work.fill(0)
        with np.errstate(over="ignore", invalid="ignore"):
            if energies is not None:
                energies[...] = parts.energy(q, xp)
            for X, t in self._slices(index):
                z, tape = model.network.tape(weights, X)
                delta = likelihood.residual(z, t, xp).astype(self._dtype, copy=False)
                model.network.backward(weights, tape, delta, slopes)
                if parts.sampled is not None:
                    own = likelihood.parameter_gradient(z, t, xp)
                    self._work[:, parts.likelihood] += own.sum(axis=1)
                if energies is not None:
                    density = likelihood.log_density(z, t, xp)
                    energies -= scale * density.sum(axis=1, dtype=np.float64)
            self._work *= scale
            parts.add_gradient(q, self._work, xp)
        out[...] = self._work
        if sign < 0:
            xp.negative(out, out=out)
