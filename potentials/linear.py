"""Bayesian linear regression: the posterior whose every answer is known exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.kernels.codes import ORDERS
from mdnet.potentials import _arrays
from mdnet.potentials._checks import (
    fingerprint,
    finite_array,
    positions_rows,
    positive,
    temperature_value,
)
from mdnet.potentials._exact import Moment, draw_normals
from mdnet.potentials._forms import Form, Polynomial, bind, constants_by_type
from mdnet.potentials.base import Potential
from mdnet.potentials.minibatch import check_batch, rows
from mdnet.typing import Array, Evaluator

__all__ = ["LinearRegression", "MinibatchLinearRegression"]


class LinearRegression(Potential):
    """Linear regression with Gaussian noise and a Gaussian prior.

    U(q) = |y - X q|^2 / (2 noise^2) + N ln(noise sqrt(2 pi))
    + sum_j [q_j^2 / (2 s_j^2) + ln(s_j sqrt(2 pi))], so that exp(-U) is likelihood
    times prior, normalised, and integrates to the evidence.

    The Hessian is H = X'X / noise^2 + diag(1 / s^2), the law exp(-U/T) is
    N(m, T H^-1) with m = H^-1 X'y / noise^2 at every temperature T.

    Parameters
    ----------
    X : (N, D)
        Inputs; add a column of ones for an intercept.
    y : (N,)
        Targets.
    noise : float
        Standard deviation of the targets about X q, > 0.
    prior_scale : float or (D,)
        Standard deviation s of the weights' prior, > 0.

    Raises
    ------
    PotentialError
        Shapes that do not match, values that are not finite, ``noise`` or
        ``prior_scale`` not positive.

    Notes
    -----
    Full forces go through H, at D^2 operations whatever N, and energies are measured
    from the minimum, so that no digits cancel.

    References
    ----------
    C. M. Bishop, "Pattern Recognition and Machine Learning" (2006), sections 3.3, 3.5.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> X, y = np.eye(3), np.array([2.0, 4.0, 6.0])
    >>> U = potentials.LinearRegression(X, y, noise=1.0, prior_scale=1.0)
    >>> U.mean()
    array([1., 2., 3.])
    """

    def __init__(
        self, X: Any, y: Any, noise: float = 1.0, prior_scale: Any = 1.0
    ) -> None:
        self.X, self.y = finite_array("X", X), finite_array("y", y)
        if self.X.ndim != 2 or not self.X.size:
            raise PotentialError(
                f"X has shape {self.X.shape}: expected (N, D), one row a datum; for "
                "one input use X[:, None]"
            )
        if self.y.shape != self.X.shape[:1]:
            raise PotentialError(
                f"y has shape {self.y.shape} and X {self.X.shape}: expected "
                f"y of shape ({self.X.shape[0]},), one target a row; y.ravel() makes "
                "it one-dimensional"
            )
        self.noise = positive("noise", noise, "a standard deviation")
        scale = finite_array("prior_scale", prior_scale)
        self.size = self.X.shape[1]
        if scale.shape not in ((), (self.size,)) or (scale <= 0).any():
            raise PotentialError(
                f"prior_scale={prior_scale!r}: expected standard deviations > 0, a "
                f"number or ({self.size},), one a weight"
            )
        self.prior_scale = scale
        self._scales = np.array(np.broadcast_to(scale, self.size))
        self._hessian = self.X.T @ self.X / self.noise**2 + np.diag(self._scales**-2)
        # H = L L': every covariance and every determinant comes from L.
        self._lower = np.linalg.cholesky(self._hessian)
        self._inverse_lower = np.linalg.inv(self._lower)
        pull = self.X.T @ self.y / self.noise**2
        self._mean = self._inverse_lower.T @ (self._inverse_lower @ pull)
        residual = (self.y - self.X @ self._mean) / self.noise
        bend = self._mean / self._scales
        self._least = self.constant + 0.5 * float(residual @ residual + bend @ bend)

    @property
    def n_data(self) -> int:
        """Number N of rows."""
        return int(self.X.shape[0])

    @property
    def constant(self) -> float:
        """N ln(noise sqrt(2 pi)) + sum_j ln(s_j sqrt(2 pi)), part of U."""
        half = 0.5 * math.log(2 * math.pi)
        likelihood = self.n_data * (math.log(self.noise) + half)
        return likelihood + float((np.log(self._scales) + half).sum())

    @property
    def largest_stiffness(self) -> float:
        """Largest eigenvalue of the Hessian: what limits the time step."""
        return float(np.linalg.eigvalsh(self._hessian)[-1])

    def largest_curvature(self, mass: Array) -> float:
        """Largest eigenvalue of M^-1 H, for masses of each parameter, (D,)."""
        root = np.sqrt(np.broadcast_to(mass, self.size))
        scaled = self._hessian / np.outer(root, root)
        return float(np.linalg.eigvalsh(scaled)[-1])

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        form = Form(
            kernel="quadratic",
            kind="rows",
            constants=(self._hessian, self._mean, np.array([0.5, self._least])),
            arrays=_arrays.quadratic,
            work=self.size,
        )
        return bind(form, self.size, backend, replicas)

    def minibatch(
        self, batch_size: int = 128, order: str = "shuffle", shared: bool = False
    ) -> MinibatchLinearRegression:
        """Estimate forces from batches of rows; energies and gradients stay exact.

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
        return MinibatchLinearRegression(self, batch_size, order, shared)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Draw a start from the prior, (R, D) float64."""
        index = np.arange(replicas)
        z = random.normals(seed, index, 0, random.STREAM_INITIAL, self.size)
        return self._scales * z

    def describe(self) -> dict[str, Any]:
        """JSON-able settings; the data by a digest."""
        return {
            "kind": "LinearRegression",
            "X": fingerprint(self.X),
            "y": fingerprint(self.y),
            "noise": self.noise,
            "prior_scale": fingerprint(self.prior_scale),
        }

    @property
    def mean(self) -> Moment:
        """Posterior mean m, (D,); ``mean(temperature)`` is the same at all."""

        def at(temperature: float) -> Array:
            temperature_value(temperature)
            return self._mean.copy()

        return Moment(at)

    @property
    def covariance(self) -> Moment:
        """Posterior covariance H^-1, (D, D); ``covariance(temperature)`` is T H^-1."""

        def at(temperature: float) -> Array:
            inverse: Array = self._inverse_lower.T @ self._inverse_lower
            return temperature_value(temperature) * inverse

        return Moment(at)

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function, -U(m)/T + (D/2) ln(2 pi T) - ln|H|/2."""
        t = temperature_value(temperature)
        log_root = float(np.log(self._lower.diagonal()).sum())
        return -self._least / t + self.size / 2 * math.log(2 * math.pi * t) - log_root

    def log_evidence(self) -> float:
        """Log marginal likelihood ln p(y | X): `log_partition` at temperature 1."""
        return self.log_partition(1.0)

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> Array:
        """Independent draws of exp(-U/T), (n, D)."""
        z = draw_normals(n, self.size, seed)
        root = math.sqrt(temperature_value(temperature))
        return self._mean + root * z @ self._inverse_lower

    def hessian(self, q: Array) -> Array:
        """Second derivatives H, the same everywhere, (R, D, D) or (D, D)."""
        points, single = positions_rows(q, self.size)
        if single:
            return self._hessian.copy()
        return np.tile(self._hessian, (points.shape[0], 1, 1))

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        points, single = positions_rows(q, self.size)
        out = np.full(points.shape[0], np.trace(self._hessian))
        return out[0] if single else out

    def predict(self, q: Array, X_new: Any) -> Array:
        """Mean of y at new inputs, (R, n, 1), or (n, 1) for one row ``q``.

        Parameters
        ----------
        q : (R, D) or (D,)
            Weights.
        X_new : (n, D)
            Inputs.
        """
        points, single = positions_rows(q, self.size)
        inputs, _ = positions_rows(X_new, self.size)
        out = (points @ inputs.T)[..., None]
        return out[0] if single else out

    def force_noise_covariance(
        self, q: Array, batch_size: int, order: str = "shuffle"
    ) -> Array:
        """Exact covariance of a minibatch force about the full force.

        With g_i the gradient of row i and S its covariance over the N rows (divided
        by N), batches of n rows give (N^2/n) S for "replacement" and
        (N^2/n) S (N - n)/(N - 1) for "shuffle", each batch alone.

        Parameters
        ----------
        q : (D,)
            Where.
        batch_size, order
            As in `minibatch`.

        Returns
        -------
        ndarray, (D, D)
            Energy^2 per length^2.

        Raises
        ------
        PotentialError
            A batch that does not fit the data, an unknown order, or several rows q.
        """
        n = check_batch(batch_size, order, self.n_data)
        points, single = positions_rows(q, self.size)
        if not single:
            raise PotentialError(
                f"q has shape {np.shape(q)}: expected one point ({self.size},), as q[0]"
            )
        residual = self.X @ points[0] - self.y
        g = self.X * (residual / self.noise**2)[:, None]
        g -= g.mean(axis=0)
        total = self.n_data
        left = 1.0 if order == "replacement" else (total - n) / max(total - 1, 1)
        return g.T @ g * (total / n * left)


class MinibatchLinearRegression(Potential):
    """A linear regression whose forces come from minibatches.

    U_B(q) = (N/n) sum_{i in B} (y_i - x_i.q)^2 / (2 noise^2) - log prior(q) +
    constants, with rows B that are a function of (seed, replica, force call).  Energies
    and gradients use all data.  Made by `LinearRegression.minibatch`.
    """

    def __init__(
        self, full: LinearRegression, batch_size: int, order: str, shared: bool
    ) -> None:
        self.full = full
        self.size = full.size
        self.batch_size = check_batch(batch_size, order, full.n_data)
        self.order = order
        self.shared = bool(shared)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; ``seed`` is the key of the batches."""
        if backend.name == "cuda":
            return _ArrayBatches(self, backend, replicas, seed)
        return _CompiledBatches(self, backend, replicas, seed)

    def constants(self) -> tuple[Array, ...]:
        """X, y, prior precisions (D,), [N/(n noise^2), 1/2, constant of U]."""
        full = self.full
        scale = full.n_data / (self.batch_size * full.noise**2)
        numbers = np.array([scale, 0.5, full.constant])
        return full.X, full.y, full._scales**-2, numbers

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """As `LinearRegression.initial`."""
        return self.full.initial(replicas, seed)

    def predict(self, q: Array, X_new: Any) -> Array:
        """As `LinearRegression.predict`."""
        return self.full.predict(q, X_new)

    def describe(self) -> dict[str, Any]:
        """As `LinearRegression.describe`, with the batches."""
        batch = {"size": self.batch_size, "order": self.order, "shared": self.shared}
        return {**self.full.describe(), "minibatch": batch}


class _CompiledBatches:
    """Rows drawn and forces summed by compiled kernels, one replica a task."""

    full = False
    polynomial: Polynomial | None = None
    __slots__ = (
        "_all",
        "_bound",
        "_draw",
        "_gradient",
        "_index",
        "_kernel",
        "_keys",
        "_spare",
    )

    def __init__(
        self,
        model: MinibatchLinearRegression,
        backend: Backend,
        replicas: int,
        seed: int,
    ) -> None:
        from mdnet.kernels.batches import rows_of
        from mdnet.kernels.rows import linear_batch

        self._all = model.full.evaluator(backend, replicas, seed)
        self._draw, self._kernel = rows_of, linear_batch
        self._index = np.empty((replicas, model.batch_size), np.int64)
        self._spare = np.empty(replicas)
        self._gradient = np.empty((replicas, model.size))
        n_data, order = model.full.n_data, ORDERS[model.order]
        self._keys = (order, n_data), (model.shared, *random.seed_words(seed))
        self._bound = {
            t: (constants, np.empty((replicas, model.size), t), t.type(-1))
            for t, constants in constants_by_type(model.constants(), backend).items()
        }

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write the estimate of -dU/dq at force call ``call``, and that of U."""
        before, after = self._keys
        self._draw(self._index, *before, call, *after)
        self._run(positions, out, self._spare if energies is None else energies)
        if energies is not None and out.dtype != np.float64:
            self._run(positions, self._gradient, energies)

    def _run(self, positions: Array, out: Array, energies: Array) -> None:
        constants, work, minus = self._bound[out.dtype]
        self._kernel(positions, self._index, constants, work, minus, out, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data, computed in float64."""
        self._all.energies(positions, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._all.gradients(positions, out)


class _ArrayBatches:
    """The same in whole-array operations of NumPy or CuPy; rows drawn on the host."""

    full = False
    polynomial: Polynomial | None = None
    __slots__ = ("_all", "_bound", "_model", "_replicas", "_seed", "_xp")

    def __init__(
        self,
        model: MinibatchLinearRegression,
        backend: Backend,
        replicas: int,
        seed: int,
    ) -> None:
        self._all = model.full.evaluator(backend, replicas, seed)
        self._model, self._replicas, self._seed = model, replicas, seed
        self._xp = backend.xp
        self._bound = constants_by_type(model.constants(), backend)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write the estimate of -dU/dq at force call ``call``, and that of U."""
        m = self._model
        index = self._xp.asarray(
            rows(
                self._seed,
                self._replicas,
                call,
                m.full.n_data,
                m.batch_size,
                m.order,
                m.shared,
            )
        )
        self._xp.negative(self._batch(positions, index, out.dtype)[1], out=out)
        if energies is not None:
            energies[...] = self._batch(positions, index, np.float64)[0]

    def _batch(self, positions: Array, index: Array, dtype: Any) -> tuple[Array, Array]:
        X, y, precisions, numbers = self._bound[np.dtype(dtype)]
        q = positions.astype(dtype, copy=False)
        x = X[index]
        residual = (x @ q[:, :, None])[..., 0] - y[index]
        pull = precisions * q
        gradient = pull + numbers[0] * (residual[:, None, :] @ x)[:, 0]
        square = numbers[0] * (residual * residual).sum(axis=1)
        return numbers[2] + 0.5 * (square + (pull * q).sum(axis=1)), gradient

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data, computed in float64."""
        self._all.energies(positions, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._all.gradients(positions, out)
