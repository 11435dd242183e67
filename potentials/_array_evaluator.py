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

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        model, xp = self._model, self._xp
        q = positions.astype(self._dtype, copy=False)
        out[...] = model.prior.energy(q, model.layout, xp)
        for X, t in self._slices(None):
            z = model.network.forward(q, X)
            density = model.likelihood.log_density(z, t, xp)
            out -= density.sum(axis=1, dtype=np.float64)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(positions, out, 1.0, None, None)

    def _slices(self, index: Array | None) -> Any:
        """Pieces (X, targets) of the rows ``index`` (all if None)."""
        n = self._t.shape[0] if index is None else index.shape[-1]
        for first in range(0, n, self._slice):
            where = slice(first, first + self._slice)
            if index is None:
                yield self._X[where], self._t[where]
            else:
                yield self._X[index[..., where]], self._t[index[..., where]]

    def _gradient(
        self,
        positions: Array,
        out: Array,
        sign: float,
        index: Array | None,
        energies: Array | None,
    ) -> None:
        model, xp = self._model, self._xp
        q = positions.astype(self._dtype, copy=False)
        scale = 1.0 if index is None else self._t.shape[0] / index.shape[-1]
        self._work.fill(0)
        if energies is not None:
            energies[...] = model.prior.energy(q, model.layout, xp)
        for X, t in self._slices(index):
            z, tape = model.network.tape(q, X)
            delta = model.likelihood.residual(z, t, xp).astype(self._dtype, copy=False)
            model.network.backward(q, tape, delta, self._work)
            if energies is not None:
                density = model.likelihood.log_density(z, t, xp)
                energies -= scale * density.sum(axis=1, dtype=np.float64)
        self._work *= scale
        self._work += model.prior.gradient(q, model.layout, xp)
        out[...] = self._work
        if sign < 0:
            xp.negative(out, out=out)
