"""A compiled likelihood, with whatever has no compiled form added in array operations.

Serves sampled noise, priors with scales of their own, and tempered likelihoods: the
engine of the core gives E(w) and its gradient, and -log p = a(theta) E + b(theta).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.backend import Backend
from mdnet.typing import Array, Evaluator

if TYPE_CHECKING:
    from mdnet.potentials.posterior import Posterior

__all__ = ["SplitEvaluator"]


class SplitEvaluator:
    """Energies and gradients of a posterior from those of its core.

    U = [a (U_core - c) + b]/T_L - log prior, with c the core's constant, T_L the
    likelihood's temperature, and a = 1, b = c where the likelihood has no parameters.

    Parameters
    ----------
    model : Posterior
        Whose likelihood is made of a compiled one.
    core : Evaluator
        Of the posterior of the weights alone, under a flat prior.
    backend : Backend
        Array module and precision.
    replicas : int
        R.
    """

    def __init__(
        self, model: Posterior, core: Evaluator, backend: Backend, replicas: int
    ) -> None:
        self.full = core.full
        self.polynomial: tuple[float, float, float, float] | None = None
        self._parts, self._core, self._xp = model.parts, core, backend.xp
        self._inverse = 1 / model.likelihood_temperature
        self._count = model.n_data * model.network.outputs
        self._terms: Any = None
        self._constant = 0.0
        if self._parts.sampled is not None:
            sampled: Any = self._parts.sampled
            self._terms = sampled.terms
            outputs = model.network.outputs
            self._constant = sampled.core.constant(model.n_data, outputs)
        shape = replicas, model.network.size
        self._dtype = backend.force_dtype
        self._weights = backend.xp.empty(shape, self._dtype)
        self._slopes = backend.xp.empty(shape, self._dtype)
        self._energies = backend.xp.empty(replicas, np.float64)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        q = self._take(positions)
        wanted = energies is not None or self._terms is not None
        found = self._energies if wanted else None
        self._core.forces(self._weights, self._slopes, call, found)
        self._xp.negative(self._slopes, out=self._slopes)
        with np.errstate(over="ignore", invalid="ignore"):
            self._finish(q, out, energies)
        self._xp.negative(out, out=out)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        q = self._take(positions)
        self._core.energies(self._weights, self._energies)
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = self._energy(q, *self._factors(q)[::2])

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        q = self._take(positions)
        self._core.gradients(self._weights, self._slopes)
        if self._terms is not None:
            self._core.energies(self._weights, self._energies)
        with np.errstate(over="ignore", invalid="ignore"):
            self._finish(q, out, None)

    def _take(self, positions: Array) -> Array:
        q = positions.astype(self._dtype, copy=False)
        self._weights[...] = q[:, self._parts.weights]
        return q

    def _factors(self, q: Array) -> tuple[Any, Any, Any, Any]:
        """Factors a, da, b, db of the likelihood's energy."""
        if self._terms is None:
            return 1.0, None, self._constant, None
        theta = q[:, self._parts.likelihood]
        a, da, b, db = self._terms(theta, self._count, self._xp)
        return a, da, b, db

    def _energy(self, q: Array, a: Any, b: Any) -> Array:
        data = a * (self._energies - self._constant) + b
        return self._inverse * data + self._parts.energy(q, self._xp)

    def _finish(self, q: Array, out: Array, energies: Array | None) -> None:
        """Write the gradient, and the energy if asked, from those of the core."""
        parts, inverse = self._parts, self._inverse
        a, da, b, db = self._factors(q)
        out[:, parts.prior] = 0
        if self._terms is None:
            out[:, parts.weights] = inverse * self._slopes
        else:
            factor = (inverse * a)[:, None].astype(self._dtype)
            out[:, parts.weights] = factor * self._slopes
            bare = (self._energies - self._constant)[:, None]
            out[:, parts.likelihood] = inverse * (da * bare + db)
        parts.add_gradient(q, out, self._xp)
        if energies is not None:
            energies[...] = self._energy(q, a, b)
