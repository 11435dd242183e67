"""Landscapes of several basins: the Gaussian mixture and the Müller-Brown surface."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials import _arrays
from mdnet.potentials._checks import (
    fingerprint,
    finite_array,
    positions_rows,
    positive,
    temperature_value,
)
from mdnet.potentials._exact import draw_normals, draw_uniforms
from mdnet.potentials._forms import Form, bind
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator

__all__ = ["GaussianMixture", "MullerBrown"]


class GaussianMixture(Potential):
    """Minus the log density of a mixture of K Gaussians.

    U(q) = -ln sum_k w_k N(q; mu_k, Sigma_k), normalised: Z = 1 at temperature 1.

    Parameters
    ----------
    weights : (K,)
        Relative weights > 0, divided by their sum.
    means : (K, D) or (K,)
        Centres; (K,) is one dimension.
    covariances : (K, D, D), optional
        Symmetric positive definite.
    scales : float, (K,) or (K, D), optional
        Standard deviations instead of ``covariances``; 1 if neither is given.

    Raises
    ------
    PotentialError
        Shapes that do not match, weights or scales that are not positive, a matrix
        that is not positive definite, or both ``covariances`` and ``scales``.

    Notes
    -----
    The law exp(-U/T) is a mixture at T = 1 only; other temperatures raise.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.GaussianMixture([1, 3], means=[[-2.0], [2.0]], scales=0.5)
    >>> U.mean()
    array([1.])
    """

    def __init__(
        self, weights: Any, means: Any, covariances: Any = None, scales: Any = None
    ) -> None:
        w, mu = finite_array("weights", weights), finite_array("means", means)
        mu = mu[:, None] if mu.ndim == 1 else mu
        if w.ndim != 1 or mu.ndim != 2 or w.size != mu.shape[0] or not mu.size:
            raise PotentialError(
                f"weights has shape {w.shape} and means {np.shape(means)}: expected "
                "(K,) and (K, D), one weight and one centre a component"
            )
        if (w <= 0).any():
            raise PotentialError(f"weights={weights!r}: expected values > 0")
        if covariances is not None and scales is not None:
            raise PotentialError("covariances and scales: give one of them, not both")
        self.size = mu.shape[1]
        self.weights, self.means = w / w.sum(), np.array(mu)
        if covariances is None:
            self._dense = False
            deviations = self._deviations(1.0 if scales is None else scales)
            self._precisions = deviations**-2
            log_widths = np.log(deviations).sum(axis=1)
            self._factors = _diagonals(deviations)
        else:
            self._dense = True
            self._factors = self._cholesky(covariances)
            inverse = np.linalg.inv(self._factors)
            self._precisions = np.swapaxes(inverse, 1, 2) @ inverse
            log_widths = np.log(np.diagonal(self._factors, axis1=1, axis2=2)).sum(1)
        norm = self.size / 2 * math.log(2 * math.pi)
        self._norms = np.log(self.weights) - log_widths - norm

    def _deviations(self, scales: Any) -> Array:
        s = finite_array("scales", scales)
        shape = self.means.shape
        if s.shape not in ((), shape[:1], shape):
            raise PotentialError(
                f"scales has shape {s.shape}: expected a number, {shape[:1]} (one a "
                f"component) or {shape}"
            )
        if (s <= 0).any():
            raise PotentialError(f"scales={scales!r}: expected values > 0")
        return np.array(np.broadcast_to(s[:, None] if s.ndim == 1 else s, shape))

    def _cholesky(self, covariances: Any) -> Array:
        c = finite_array("covariances", covariances)
        shape = (*self.means.shape, self.size)
        if c.shape != shape:
            raise PotentialError(
                f"covariances has shape {c.shape}: expected {shape}, one matrix a "
                "component; for standard deviations use scales="
            )
        if not np.allclose(c, np.swapaxes(c, 1, 2), rtol=1e-10, atol=0):
            raise PotentialError("covariances: expected symmetric matrices")
        try:
            return np.linalg.cholesky(c)
        except np.linalg.LinAlgError as error:
            least = np.linalg.eigvalsh(c).min()
            raise PotentialError(
                f"covariances: expected positive definite matrices, the smallest "
                f"eigenvalue is {least:.3g}"
            ) from error

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        form = Form(
            kernel="mixture_dense" if self._dense else "mixture_diagonal",
            kind="rows",
            constants=(self._norms, self.means, self._precisions, np.array([0.5])),
            arrays=_arrays.mixture_dense if self._dense else _arrays.mixture_diagonal,
            work=self.weights.size * (1 + self.size),
        )
        return bind(form, self.size, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "GaussianMixture",
            "size": self.size,
            "weights": fingerprint(self.weights),
            "means": fingerprint(self.means),
            "covariances": fingerprint(self._factors),
        }

    @staticmethod
    def _at_one(temperature: float) -> None:
        if temperature_value(temperature) != 1:
            raise PotentialError(
                f"temperature={temperature!r}: a mixture's exact answers are known at "
                "temperature=1 only, where exp(-U) is the mixture itself"
            )

    def mean(self, temperature: float = 1.0) -> Array:
        """Mean sum_k w_k mu_k at temperature 1, (D,)."""
        self._at_one(temperature)
        return self.weights @ self.means

    def covariance(self, temperature: float = 1.0) -> Array:
        """Covariance sum_k w_k (S_k + mu_k mu_k') - m m' at temperature 1, (D, D)."""
        offsets = self.means - self.mean(temperature)
        within = self._factors @ np.swapaxes(self._factors, 1, 2)
        between = offsets[:, :, None] * offsets[:, None, :]
        return np.einsum("k,kij->ij", self.weights, within + between)

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function, 0 at temperature 1."""
        self._at_one(temperature)
        return 0.0

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> Array:
        """Independent draws of the mixture, (n, D)."""
        self._at_one(temperature)
        z = draw_normals(n, self.size, seed)
        steps = np.cumsum(self.weights)
        chosen = np.searchsorted(steps, draw_uniforms(n, 1, seed)[:, 0] * steps[-1])
        turned = np.einsum("nij,nj->ni", self._factors[chosen], z)
        return self.means[chosen] + turned

    def hessian(self, q: Array) -> Array:
        """Second derivatives, (R, D, D) or (D, D).

        sum_k r_k P_k - sum_k r_k t_k t_k' + g g', with responsibilities r, pulls
        t_k = P_k (q - mu_k) and gradient g.
        """
        rows, single = positions_rows(q, self.size)
        d = rows[:, None, :] - self.means
        p = self._precisions if self._dense else _diagonals(self._precisions)
        t = np.einsum("kij,rkj->rki", p, d)
        logs = self._norms - 0.5 * (t * d).sum(axis=2)
        share = np.exp(logs - logs.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        g = np.einsum("rk,rki->ri", share, t)
        out = np.einsum("rk,kij->rij", share, p)
        out -= np.einsum("rk,rki,rkj->rij", share, t, t)
        out += g[:, :, None] * g[:, None, :]
        return out[0] if single else out

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        return np.trace(self.hessian(q), axis1=-2, axis2=-1)


def _diagonals(values: Array) -> Array:
    """(K, D) -> (K, D, D)."""
    return values[:, :, None] * np.eye(values.shape[1])


class MullerBrown(Potential):
    """The Müller-Brown surface: three basins and a curved path between them.

    U(x, y) = s sum_{k=1..4} A_k exp(a_k (x-x_k)^2 + b_k (x-x_k)(y-y_k)
    + c_k (y-y_k)^2).

    Parameters
    ----------
    scale : float
        s > 0, multiplies the published energies (barriers of 20 to 106).

    Attributes
    ----------
    minima : (3, 2)
        From the deepest to the shallowest, energies ``minima_energies`` (3,).
    saddles : (2, 2)
        Between minima 0 and 2, and 2 and 1; energies ``saddle_energies`` (2,).

    Raises
    ------
    PotentialError
        ``scale`` not positive.

    Notes
    -----
    Moments and ln Z are quadratures on [-4, 2.5] x [-2, 4], by the trapezoidal
    rule; good to 1e-8 from scale / T = 0.05 to 10.

    References
    ----------
    K. Müller, L. D. Brown, Theor. Chim. Acta 53, 75 (1979), doi:10.1007/BF00547608.
    """

    size = 2
    _TABLE = np.array(
        [
            [-200.0, -100.0, -170.0, 15.0],
            [-1.0, -1.0, -6.5, 0.7],
            [0.0, 0.0, 11.0, 0.6],
            [-10.0, -10.0, -6.5, 0.7],
            [1.0, 0.0, -0.5, -1.0],
            [0.0, 0.5, 1.5, 1.0],
        ]
    )
    _MINIMA = np.array(
        [
            [-0.5582236346330243, 1.4417258418046686],
            [0.6234994049308765, 0.028037758528685664],
            [-0.050010822998206104, 0.4666941048719721],
        ]
    )
    _SADDLES = np.array(
        [
            [-0.8220015587327322, 0.6243128028148713],
            [0.21248658200066203, 0.2929883251073678],
        ]
    )

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = positive("scale", scale)

    @property
    def _constants(self) -> Array:
        table = self._TABLE.copy()
        table[0] *= self.scale
        return table

    @property
    def minima(self) -> Array:
        """Minima, (3, 2), from the deepest to the shallowest."""
        return self._MINIMA.copy()

    @property
    def saddles(self) -> Array:
        """Saddles, (2, 2): between minima 0 and 2, and between 2 and 1."""
        return self._SADDLES.copy()

    @property
    def minima_energies(self) -> Array:
        """Energies of the minima, (3,)."""
        return _arrays.muller_brown(np, self._MINIMA, self._constants)[0]

    @property
    def saddle_energies(self) -> Array:
        """Energies of the saddles, (2,)."""
        return _arrays.muller_brown(np, self._SADDLES, self._constants)[0]

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        form = Form(
            kernel="muller_brown",
            kind="rows",
            constants=(self._constants,),
            arrays=_arrays.muller_brown,
        )
        return bind(form, self.size, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"kind": "MullerBrown", "scale": self.scale}

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start close to the deepest minimum (spread 0.05), (R, 2)."""
        rows = np.arange(replicas)
        z = random.normals(seed, rows, 0, random.STREAM_INITIAL, self.size)
        return self._MINIMA[0] + 0.05 * z

    def _grid(self, temperature: float) -> tuple[Array, Array, float]:
        """Points (n, 2), their probabilities (n,), and ln Z."""
        t = temperature_value(temperature)
        x, y = np.linspace(-4.0, 2.5, 1301), np.linspace(-2.0, 4.0, 1201)
        points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
        minus = -_arrays.muller_brown(np, points, self._constants)[0] / t
        weight = np.exp(minus - minus.max())
        total = weight.sum()
        cell = (x[1] - x[0]) * (y[1] - y[0])
        return points, weight / total, float(minus.max() + np.log(total * cell))

    def mean(self, temperature: float = 1.0) -> Array:
        """Mean position by quadrature, (2,)."""
        points, weight, _ = self._grid(temperature)
        return weight @ points

    def covariance(self, temperature: float = 1.0) -> Array:
        """Covariance by quadrature, (2, 2)."""
        points, weight, _ = self._grid(temperature)
        d = points - weight @ points
        return (d * weight[:, None]).T @ d

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function by quadrature."""
        return self._grid(temperature)[2]

    def hessian(self, q: Array) -> Array:
        """Second derivatives, (R, 2, 2) or (2, 2)."""
        rows, single = positions_rows(q, self.size)
        height, a, b, c, x0, y0 = self._constants
        dx, dy = rows[:, :1] - x0, rows[:, 1:] - y0
        term = height * np.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        gx, gy = 2 * a * dx + b * dy, b * dx + 2 * c * dy
        out = np.empty((rows.shape[0], 2, 2))
        out[:, 0, 0] = (term * (gx * gx + 2 * a)).sum(axis=1)
        out[:, 1, 1] = (term * (gy * gy + 2 * c)).sum(axis=1)
        out[:, 0, 1] = out[:, 1, 0] = (term * (gx * gy + b)).sum(axis=1)
        return out[0] if single else out

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        return np.trace(self.hessian(q), axis1=-2, axis2=-1)
