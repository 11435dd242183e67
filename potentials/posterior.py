"""The Bayesian posterior of a network as a potential energy.

U(q) = -sum_i log p(y_i | x_i, q) - log prior(q), a sum over all data with every
constant, so that exp(-U) is likelihood times prior and T = 1 samples the posterior.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._data import SCAN, host, inputs, pieces
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.evaluators import (
    ArrayEvaluator,
    Batch,
    DenseEvaluator,
    device_evaluator,
)
from mdnet.potentials.likelihoods import Likelihood, make_likelihood
from mdnet.potentials.networks import MLP, Network
from mdnet.potentials.priors import FlatPrior, GaussianPrior, Prior
from mdnet.potentials.stochastic import MinibatchPosterior
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["MinibatchPosterior", "Posterior"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)


class Posterior(Potential):
    """Energy of a network's weights, given data.

    U(q) = -sum_i log p(y_i | x_i, q) - log prior(q).

    Parameters
    ----------
    network : Network
        E.g. `mdnet.potentials.networks.MLP`.
    likelihood : str or Likelihood
        "categorical", "gaussian" (noise 1), "bernoulli", or an object such as
        ``likelihoods.Gaussian(noise=0.1)``.
    prior : Prior or None
        E.g. ``GaussianPrior(scale=1.0)``; None for a flat prior.
    data : (X, y)
        X (N, inputs); y (N,) class numbers, or (N, outputs), or (N,) for one output.
        Arrays or `numpy.memmap`.  They are not copied where their type and order
        allow: leave them unchanged while the potential lives.

    Raises
    ------
    PotentialError
        Shapes that do not match, values that are not finite, labels outside the
        classes, an unknown likelihood, or a prior that does not fit the network.

    Notes
    -----
    On the CPU an MLP runs in compiled loops (`mdnet.kernels.dense`), whose results
    are the same bit for bit for any number of threads and of replicas beside.  On a
    CUDA device it runs in cuBLAS and kernels of its own, see ``docs/gpu.md``.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet.potentials.networks import MLP
    >>> from mdnet.potentials.posterior import Posterior
    >>> X, y = np.eye(4), np.array([0, 1, 2, 0])
    >>> U = Posterior(MLP([4, 3]), likelihood="categorical", data=(X, y))
    >>> U.energy(np.zeros((2, U.size))).shape
    (2,)
    """

    def __init__(
        self,
        network: Network,
        likelihood: str | Likelihood = "categorical",
        prior: Prior | None = _DEFAULT_PRIOR,
        data: tuple[Any, Any] | None = None,
    ) -> None:
        if not callable(getattr(network, "forward", None)):
            raise PotentialError(
                f"network={network!r}: expected a network such as MLP([64, 32, 10])"
            )
        self.network = network
        self.size = network.size
        self.likelihood = make_likelihood(likelihood)
        self.prior = FlatPrior() if prior is None else prior
        if not callable(getattr(self.prior, "gradient", None)) or isinstance(
            self.prior, type
        ):
            raise PotentialError(
                f"prior={prior!r}: expected a prior such as GaussianPrior(scale=1.0), "
                "or None for a flat one"
            )
        self.prior.check(network.layout)
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise PotentialError(
                f"data={type(data).__name__}: expected a pair (X, y), e.g. "
                "Posterior(net, data=(X, y))"
            )
        self._X = inputs(data[0], network.inputs)
        self._y = host(data[1])
        self._targets = self.likelihood.targets(
            self._y, self._X.shape[0], network.outputs
        )
        self._typed: dict[Any, tuple[Array, Array]] = {}
        self._digest: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_typed": {}}

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self.network.layout

    @property
    def n_data(self) -> int:
        """Number of rows N of the data."""
        return int(self._X.shape[0])

    @property
    def width(self) -> int:
        """Numbers per row and replica in the widest layer."""
        units = [shape[0] for _, shape in self.layout.values()]
        return max(self.network.inputs, self.network.outputs, *units)

    @property
    def constant(self) -> float:
        """Part of U that no weight changes."""
        data = self.likelihood.constant(self.n_data, self.network.outputs)
        return data + self.prior.constant(self.layout)

    def arrays(self, dtype: Any) -> tuple[Array, Array]:
        """Data (X, targets) in floating type ``dtype``; a memmap X stays as it is."""
        key = np.dtype(dtype)
        if key not in self._typed:
            X = self._X
            if not isinstance(X, np.memmap):
                X = np.ascontiguousarray(X, key)
            targets = np.ascontiguousarray(self._targets, key)
            # Always read-only: one compiled kernel serves whatever was given.
            views = np.asarray(X).view(), targets.view()
            for view in views:
                view.flags.writeable = False
            self._typed[key] = views
        return self._typed[key]

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; forces use all data."""
        return self._evaluator(backend, replicas, seed, None)

    def _evaluator(
        self, backend: Backend, replicas: int, seed: int, batch: Batch | None
    ) -> Evaluator:
        compiled = (
            type(self.network) is MLP
            and hasattr(self.likelihood, "kernel")
            and hasattr(self.prior, "table")
        )
        if not compiled:
            return ArrayEvaluator(self, backend, replicas, seed, batch)
        if backend.name == "cuda":
            return device_evaluator(self, backend, replicas, seed, batch)
        return DenseEvaluator(self, backend, replicas, seed, batch)

    def minibatch(
        self, batch_size: int = 128, order: str = "shuffle", shared: bool = False
    ) -> MinibatchPosterior:
        """Estimate forces from batches; energies and gradients stay exact.

        Parameters
        ----------
        batch_size : int
            Rows n of a batch.
        order : {"shuffle", "replacement"}
            A fresh permutation of the data each epoch, or independent uniform rows.
        shared : bool
            Give all replicas the same batches.

        Raises
        ------
        PotentialError
            A batch that does not fit the data, or an unknown order.
        """
        return MinibatchPosterior(self, batch_size, order, shared)

    def initial(self, replicas: int, seed: int = 0, start: str = "network") -> Array:
        """A start, (R, D) float64.

        Parameters
        ----------
        replicas : int
            R.
        seed : int
            Key of the random counters.
        start : {"network", "prior"}
            The network's initialiser, or a draw from the prior.

        Raises
        ------
        PotentialError
            Unknown ``start``, or a prior that cannot be drawn from.
        """
        if start == "network":
            return self.network.initial(replicas, seed)
        if start == "prior":
            return self.prior.draw(self.layout, replicas, seed)
        raise PotentialError(f"start={start!r}: expected 'network' or 'prior'")

    def predict(self, q: Array, X_new: Any) -> Array:
        """Parameters of p(y | x, q) at new inputs.

        Parameters
        ----------
        q : array, (R, D) or (D,)
            Weights.
        X_new : array, (n, inputs)
            Inputs.

        Returns
        -------
        array, (R, n, outputs) or (n, outputs)
            Probabilities (categorical, bernoulli) or means (gaussian).
        """
        weights, xp = self._batch_of(q)
        X = xp.asarray(inputs(X_new, self.network.inputs))
        out = xp.empty(
            (weights.shape[0], X.shape[0], self.network.outputs), weights.dtype
        )
        for where in self._pieces(weights.shape[0], X.shape[0]):
            z = self.network.forward(weights, X[where])
            out[:, where] = self.likelihood.predict(z, xp)
        return out if np.ndim(q) == 2 else out[0]

    def log_likelihood(self, q: Array, X: Any, y: Any) -> Array:
        """Density log p(y_i | x_i, q) of each row, (R, n) or (n,) float64.

        Parameters
        ----------
        q : array, (R, D) or (D,)
            Weights.
        X, y : array
            Rows as in ``data``, e.g. held out.
        """
        weights, xp = self._batch_of(q)
        rows = inputs(X, self.network.inputs)
        targets = self.likelihood.targets(host(y), rows.shape[0], self.network.outputs)
        X, t = xp.asarray(rows), xp.asarray(targets)
        out = xp.empty((weights.shape[0], X.shape[0]), np.float64)
        for where in self._pieces(weights.shape[0], X.shape[0]):
            z = self.network.forward(weights, X[where])
            out[:, where] = self.likelihood.log_density(z, t[where], xp)
        return out if np.ndim(q) == 2 else out[0]

    def _batch_of(self, q: Array) -> tuple[Array, Any]:
        xp = evaluator_xp(q)
        weights = xp.asarray(q)
        if weights.dtype.kind != "f":
            weights = weights.astype(np.float64)
        if weights.ndim not in (1, 2) or weights.shape[-1] != self.size:
            raise PotentialError(
                f"q has shape {weights.shape}: expected (R, {self.size}) or "
                f"({self.size},), one column per parameter"
            )
        return weights.reshape(-1, self.size), xp

    def _pieces(self, replicas: int, rows: int) -> list[slice]:
        step = max(1, SCAN // (replicas * self.width))
        return [slice(first, first + step) for first in range(0, rows, step)]

    def describe(self) -> dict[str, Any]:
        """JSON-able settings, with shapes and the SHA-256 of the data."""
        if self._digest is None:
            digest = hashlib.sha256()
            for array in (self._X, self._y):
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                for piece in pieces(array):
                    digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
            self._digest = digest.hexdigest()
        return {
            "name": "Posterior",
            "network": self.network.describe(),
            "likelihood": self.likelihood.describe(),
            "prior": self.prior.describe(),
            "data": {
                "X": list(self._X.shape),
                "y": list(self._y.shape),
                "sha256": self._digest,
            },
        }
