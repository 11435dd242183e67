r"""Probabilistic principal component analysis: a latent-variable model solved exactly.

Data :math:`x = W z + m + \sigma \epsilon` with normal z of k and :math:`\epsilon` of D
numbers are Gaussian with the covariance :math:`C = W W^T + \sigma^2`.  The negative log
likelihood, with z integrated out, is

.. math:: U(W, \ln\sigma) = \frac{N}{2} \left( D \ln 2\pi + \ln |C|
    + \mathrm{tr}\, C^{-1} S \right)

with S the covariance of the data about their mean m.  It does not change under
rotations W R of the latent space; its minimum is known from the eigenvalues of S.

References
----------
M. E. Tipping, C. M. Bishop, J. R. Stat. Soc. B 61, 611 (1999),
doi:10.1111/1467-9868.00196.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import (
    fingerprint,
    finite_array,
    positions_rows,
    positive_integer,
)
from mdnet.potentials._forms import Polynomial
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["ProbabilisticPCA"]


class ProbabilisticPCA(Potential):
    """The marginal likelihood of probabilistic PCA as a potential over (W, ln sigma).

    exp(-U) is the likelihood; add a prior as a potential, ``U + Harmonic(...)``.

    Parameters
    ----------
    X : array, (N, D)
        Data; their mean is taken out.
    latent : int
        k, from 1 to D - 1.

    Raises
    ------
    PotentialError
        Data that are no finite table of two rows or more, or another ``latent``.

    Notes
    -----
    Everything goes through k x k matrices and S, at D^2 k operations whatever N.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> X = np.random.default_rng(0).normal(size=(50, 4)) * [3, 1, 1, 1]
    >>> U = potentials.ProbabilisticPCA(X, latent=1)
    >>> best = U.maximum_likelihood()
    >>> bool(np.isclose(U.energy(best), U.minimum))
    True
    """

    def __init__(self, X: Any, latent: int) -> None:
        table = finite_array("X", X)
        if table.ndim != 2 or table.shape[0] < 2:
            raise PotentialError(
                f"X has shape {table.shape}: expected (N, D), two rows or more"
            )
        self.n_data, self.width = table.shape
        self.latent = positive_integer("latent", latent)
        if self.latent >= self.width:
            raise PotentialError(
                f"latent={latent}: expected fewer than the {self.width} columns of X"
            )
        self.mean = table.mean(axis=0)
        centred = table - self.mean
        self.scatter = centred.T @ centred / self.n_data
        """Covariance S of the data, with 1/N, (D, D)."""
        self.size = self.width * self.latent + 1
        # Descending, as the components are counted.
        values, vectors = np.linalg.eigh(self.scatter)
        self.eigenvalues = values[::-1].copy()
        """Of S, descending, (D,)."""
        self._vectors = vectors[:, ::-1]
        self._digest = fingerprint(table)

    @property
    def layout(self) -> Layout:
        """Tensors "weight" (D, k) and "log_noise" (1,)."""
        end = self.width * self.latent
        return {
            "weight": (slice(0, end), (self.width, self.latent)),
            "log_noise": (slice(end, end + 1), (1,)),
        }

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _PCAEvaluator(self, backend, replicas)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Random weights and a noise that share the variance of the data, (R, D k + 1).

        W W^T and sigma^2 have half of tr S each, on average.
        """
        q = super().initial(replicas, seed)
        variance = float(np.trace(self.scatter)) / self.width
        q[:, :-1] *= math.sqrt(variance / (2 * self.latent))
        q[:, -1] = 0.5 * math.log(variance / 2)
        return q

    def describe(self) -> dict[str, Any]:
        """JSON-able settings; the data by a digest."""
        return {
            "kind": "ProbabilisticPCA",
            "latent": self.latent,
            "X": self._digest,
            "rows": self.n_data,
        }

    def _split(self, q: Any) -> tuple[Array, Array, bool]:
        """W (R, D, k), sigma^2 (R,), and whether q was one row."""
        rows, single = positions_rows(q, self.size)
        weight = rows[:, :-1].reshape(-1, self.width, self.latent)
        return weight, np.exp(2 * rows[:, -1]), single

    # --- exact answers -----------------------------------------------------------

    def maximum_likelihood(self) -> Array:
        """Position of the minimum, W = V (L - sigma^2)^(1/2), (D k + 1,).

        With V and L the leading eigenvectors and -values of S, and sigma^2 the mean of
        the others; all rotations of W are minima too.

        Raises
        ------
        PotentialError
            Data within the space of the components: sigma = 0 there.
        """
        k = self.latent
        noise = float(self.eigenvalues[k:].mean())
        if noise <= 1e-14 * self.eigenvalues[0]:
            raise PotentialError(
                f"latent={k}: the data lie in {k} dimensions, and the likelihood grows "
                "without end as the noise vanishes; take fewer components"
            )
        scale = np.sqrt(self.eigenvalues[:k] - noise)
        weight = self._vectors[:, :k] * scale
        return np.append(weight.ravel(), 0.5 * math.log(noise))

    @property
    def minimum(self) -> float:
        """Least U, N/2 (D ln 2 pi + D + sum ln lambda + (D - k) ln sigma^2)."""
        k, d = self.latent, self.width
        noise = float(np.exp(2 * self.maximum_likelihood()[-1]))
        logs = float(np.log(self.eigenvalues[:k]).sum()) + (d - k) * math.log(noise)
        least = 0.5 * self.n_data * (d * math.log(2 * math.pi) + d + logs)
        return float(least)

    def covariance(self, q: Any) -> Array:
        """Covariance C = W W^T + sigma^2 of the model, (R, D, D) or (D, D)."""
        weight, noise, single = self._split(q)
        out = weight @ weight.swapaxes(1, 2) + noise[:, None, None] * np.eye(self.width)
        return out[0] if single else out

    def log_density(self, q: Any, X: Any) -> Array:
        """Ln p(x) of each row of ``X``, z integrated out, (R, n) or (n,)."""
        rows = finite_array("X", X)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise PotentialError(
                f"X has shape {rows.shape}: expected (n, {self.width})"
            )
        covariance = self.covariance(np.atleast_2d(np.asarray(q, np.float64)))
        lower = np.linalg.cholesky(covariance)
        white = np.linalg.solve(lower, (rows - self.mean).T)
        logs = 2 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        square = (white * white).sum(axis=1)
        constant = self.width * math.log(2 * math.pi)
        out = -0.5 * (constant + logs[:, None] + square)
        return out if np.ndim(q) == 2 else out[0]

    def latent_posterior(self, q: Any, X: Any) -> tuple[Array, Array]:
        """Law of z given x: means M^-1 W^T (x - m) and covariance sigma^2 M^-1.

        Returns
        -------
        mean : ndarray, (R, n, k) or (n, k)
        covariance : ndarray, (R, k, k) or (k, k)
            The same for all x; M = W^T W + sigma^2.
        """
        weight, noise, single = self._split(q)
        turned = weight.swapaxes(1, 2)
        identity = np.eye(self.latent)
        inverse = np.linalg.inv(turned @ weight + noise[:, None, None] * identity)
        centred = finite_array("X", X) - self.mean
        mean = centred @ weight @ inverse
        covariance = noise[:, None, None] * inverse
        return (mean[0], covariance[0]) if single else (mean, covariance)

    def rotate(self, q: Any, rotation: Any) -> Array:
        """Turn the latent space, W -> W R: another position of the same energy.

        Parameters
        ----------
        q : array, (R, D k + 1) or (D k + 1,)
        rotation : array, (k, k)
            Orthogonal.

        Raises
        ------
        PotentialError
            A matrix that is not orthogonal.
        """
        turn = finite_array("rotation", rotation)
        k = self.latent
        good = turn.shape == (k, k) and np.allclose(turn @ turn.T, np.eye(k))
        if not good:
            raise PotentialError(
                f"rotation has shape {turn.shape}: expected an orthogonal matrix "
                f"({k}, {k})"
            )
        rows, single = positions_rows(q, self.size)
        out = rows.copy()
        weight = out[:, :-1].reshape(-1, self.width, k)
        out[:, :-1] = (weight @ turn).reshape(len(out), -1)
        return out[0] if single else out


class _PCAEvaluator:
    """Of U through k x k matrices.

    With M = W'W + sigma^2, A = W'SW and G = M^-1:

    ln|C| = (D - k) ln sigma^2 + ln|M|,  tr C^-1 S = (tr S - tr G A)/sigma^2,
    dU/dW = N (W G - (S W G - W G A G)/sigma^2),
    dU/dln sigma = N (D - k + sigma^2 tr G - (tr S - tr G A)/sigma^2 + tr G G A).
    """

    full = True
    polynomial: Polynomial | None = None
    __slots__ = ("_bound", "_count", "_shape", "_trace", "_xp")

    def __init__(
        self, model: ProbabilisticPCA, backend: Backend, replicas: int
    ) -> None:
        xp = self._xp = backend.xp
        d, k = model.width, model.latent
        self._shape, self._count = (replicas, d, k), model.n_data
        self._trace = float(np.trace(model.scatter))
        self._bound = {}
        for kind in {backend.force_dtype, np.dtype(np.float64)}:
            scatter = backend.asarray(model.scatter, kind)
            weight, spread, pull = xp.empty((3, *self._shape), kind)
            log_noise = xp.empty(replicas, kind)
            identity = backend.asarray(np.eye(k), kind)
            self._bound[kind] = scatter, weight, spread, pull, log_noise, identity

    def _solve(self, positions: Array, kind: Any) -> tuple[Array, ...]:
        """sigma^2 (R,), M, G, A (R, k, k); W and S W stay in the work arrays."""
        xp = self._xp
        scatter, weight, spread, _, log_noise, identity = self._bound[np.dtype(kind)]
        weight[...] = positions[:, :-1].reshape(self._shape)
        log_noise[...] = positions[:, -1]
        noise = xp.exp(2 * log_noise)
        xp.matmul(scatter, weight, out=spread)
        turned = weight.swapaxes(1, 2)
        inner = xp.matmul(turned, weight) + noise[:, None, None] * identity
        return noise, inner, xp.linalg.inv(inner), xp.matmul(turned, spread)

    def _gradient(self, positions: Array, out: Array, sign: float) -> None:
        xp, (replicas, d, k) = self._xp, self._shape
        noise, _, inverse, seen = self._solve(positions, out.dtype)
        _, weight, spread, pull, _, identity = self._bound[out.dtype]
        outer = xp.matmul(inverse, seen)
        # W (1 + G A/sigma^2) - S W/sigma^2, then times G.
        xp.matmul(weight, identity + outer / noise[:, None, None], out=pull)
        xp.divide(spread, noise[:, None, None], out=spread)
        xp.subtract(pull, spread, out=pull)
        xp.matmul(pull, inverse, out=spread)
        xp.multiply(spread.reshape(replicas, -1), sign * self._count, out=out[:, :-1])
        traces = [xp.trace(m, axis1=1, axis2=2) for m in (inverse, outer)]
        twice = (inverse * outer.swapaxes(1, 2)).sum(axis=(1, 2))
        slope = d - k + noise * traces[0] - (self._trace - traces[1]) / noise + twice
        out[:, -1] = sign * self._count * slope

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        self._gradient(positions, out, -1.0)
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        xp, (_, d, k) = self._xp, self._shape
        noise, inner, inverse, seen = self._solve(positions, np.float64)
        logs = (d - k) * xp.log(noise) + xp.linalg.slogdet(inner)[1]
        explained = (inverse * seen.swapaxes(1, 2)).sum(axis=(1, 2))
        logs += (self._trace - explained) / noise
        logs += d * math.log(2 * math.pi)
        xp.multiply(logs, 0.5 * self._count, out=out)

    def gradients(self, positions: Array, out: Array) -> None:
        self._gradient(positions, out, 1.0)
