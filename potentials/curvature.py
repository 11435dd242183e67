r"""Second derivatives of U, and the spread of its gradient over the data.

**Hessian-vector products** are exact: the network's forward and reverse pass are
differentiated along the direction by hand, layer by layer (Pearlmutter's R-operator).
With R{.} the derivative when q moves along v,

.. math:: Hv = R\{J^T\,\partial_z \ell\} + R\{\nabla(-\log p(q))\},

where the likelihoods "categorical", "gaussian" and "bernoulli" and all priors without
sampled scales have closed forms.  For other likelihoods and priors R{.} of their own
formula alone is a central difference in double precision (relative error near 1e-10);
the network stays exact.  The cost is some two gradients.

At the kinks of "relu" and its like U has no second derivative: Hv is that of the sides.
The thermometer <|grad U|^2> = T <laplacian U> needs the kinks as well, which a
difference of gradients sees: see `mdnet.observables.laplacian`.

**Gradient moments** are sums over examples of the gradients and of their squares.  In a
dense layer the square of an example's gradient is an outer product of squares, so that
they cost as much as two gradients and no example is written out.

References
----------
B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Comput. 6, 147
(1994), doi:10.1162/neco.1994.6.1.147.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.kernels.codes import PRIORS
from mdnet.potentials._sinks import Examples, Moments
from mdnet.potentials.base import evaluator_xp
from mdnet.potentials.compose import Scaled, Sum
from mdnet.potentials.likelihoods import Bernoulli, Categorical, Gaussian
from mdnet.potentials.posterior import Posterior
from mdnet.potentials.sequential import Sequential, as_sequential
from mdnet.potentials.stochastic import MinibatchPosterior
from mdnet.typing import Array

__all__ = [
    "GradientMoments",
    "gradient_moments",
    "hessian_vector",
    "laplacian",
    "per_example_gradients",
]

ELEMENTS = 2**24
"""Numbers held in one slice of the data."""

_STEP = 6e-6
"""Length of central differences: near the cube root of the rounding of a double."""


def hessian_vector(potential: Any, q: Array, v: Array) -> Array:
    """Product of the Hessian of U with v, in double precision.

    Parameters
    ----------
    potential : Posterior
        Of an `MLP` or a `Sequential`; also its minibatch form (all data are used), and
        sums and multiples of such.
    q : array, (R, D) or (D,)
        Weights.
    v : array
        Direction of each replica, shaped as ``q``.

    Returns
    -------
    array, (R, D) or (D,)
        Hv, float64.

    Raises
    ------
    PotentialError
        A potential whose layers are not known, or shapes that do not match.

    Examples
    --------
    >>> from mdnet import potentials
    >>> X, y = np.eye(4), np.array([0, 1, 2, 0])
    >>> U = potentials.Posterior(potentials.MLP([4, 5, 3]), data=(X, y))
    >>> q = U.initial(replicas=2)
    >>> bool(np.allclose(hessian_vector(U, q, 2 * q), 2 * hessian_vector(U, q, q)))
    True
    """
    rows, _ = _rows(potential, q, np.float64, "q")
    direction, _ = _rows(potential, v, np.float64, "v")
    if rows.shape != direction.shape:
        raise PotentialError(
            f"v has shape {np.shape(v)}: expected that of q, {np.shape(q)}"
        )
    out = _hessian_vector(potential, rows, direction)
    return out if np.ndim(q) == 2 else out[0]


def laplacian(
    potential: Any,
    q: Array,
    probes: int = 1,
    seed: int = 0,
    step: int = 0,
    free: Array | None = None,
) -> Array:
    """Estimate the Laplacian of U over each tensor from exact products, (R, L).

    Hutchinson's sum_j s_j (H s)_j with random signs s, as `mdnet.observables.laplacian`
    but without its difference of gradients, and so without kinks.

    Parameters
    ----------
    potential : Posterior
        As for `hessian_vector`.
    q : array, (R, D)
        Weights.
    probes : int
        Vectors of signs to average over, 1 to 32.
    seed, step : int
        Which vectors.
    free : array, (D,), optional
        1 for parameters to sum over, 0 for those to leave out.

    Raises
    ------
    PotentialError
        As `hessian_vector`, or ``probes`` out of range.
    """
    if isinstance(probes, bool) or probes not in range(1, 33):
        raise PotentialError(f"probes={probes!r}: expected an integer from 1 to 32")
    rows, xp = _rows(potential, q, np.float64, "q")
    bounds = [where for where, _ in potential.layout.values()]
    total = xp.zeros((rows.shape[0], len(bounds)))
    each = np.arange(rows.shape[0])
    words = random.bits(seed, each, step, random.STREAM_PROBE, rows.shape[1])
    for probe in range(probes):  # a word has 32 bits
        signs = xp.asarray((words >> np.uint32(probe) & np.uint32(1)) * 2.0 - 1.0)
        if free is not None:
            signs *= free
        terms = signs * _hessian_vector(potential, rows, signs)
        total += xp.stack([terms[:, w].sum(axis=1) for w in bounds], axis=1)
    return total / probes


@dataclass(frozen=True, slots=True)
class GradientMoments:
    """Moments over examples of d(-log p(y_i|x_i, q))/dq, prior left out.

    Attributes
    ----------
    mean : array, (R, D) float64
    second : array, (R, D) float64
        Mean square.
    count : int
        Number of examples N.
    """

    mean: Array
    second: Array
    count: int

    @property
    def variance(self) -> Array:
        """Variance over examples of each component, (R, D), with N in the divisor."""
        spread = self.second - self.mean * self.mean
        return evaluator_xp(spread).maximum(spread, 0)

    def noise(self, batch_size: int, replacement: bool = False) -> Array:
        """Variance of a minibatch's force of U, (R, D).

        ``N^2 variance/n``, times (N - n)/(N - 1) where a batch has no row twice.
        """
        n, size = self.count, batch_size
        finite = 1.0 if replacement or n == 1 else (n - size) / (n - 1)
        return self.variance * (n * n * finite / size)


def gradient_moments(
    potential: Any, q: Array, rows: Array | None = None
) -> GradientMoments:
    """Mean and mean square over examples of the gradients of their -log p.

    Parameters
    ----------
    potential : Posterior
        Of an `MLP` or a `Sequential`, or its minibatch form.
    q : array, (R, D)
        Weights; the passes run in their type.
    rows : (n,) int array, optional
        Examples to use; all if None.

    Returns
    -------
    GradientMoments
        ``N mean`` and the gradient of -log prior sum to the gradient of U.

    Raises
    ------
    PotentialError
        A potential whose layers are not known, or shapes that do not match.
    """
    model = _posterior(potential)
    net = as_sequential(model.network)
    points, xp = _rows(model, q, None, "q")
    parts = model.parts
    weights = points[:, parts.weights]
    totals = [xp.zeros(points.shape, np.float64) for _ in range(2)]
    likelihood, scale = model.bound_likelihood(points, xp), _scale(model)
    budget = points.shape[0] * max(net.width, _largest(net))
    count = 0
    for where, X, t in _slices(model, rows, budget, points.dtype, xp):
        count += len(where)
        z, tape = net.tape(weights, X)
        delta = _typed(likelihood.residual(z, t, xp) * scale, z)
        first, second = xp.zeros_like(points), xp.zeros_like(points)
        sink = Moments(
            net.weights(first[:, parts.weights]), net.weights(second[:, parts.weights])
        )
        net.pull(weights, tape, delta, sink)
        if parts.sampled is not None:
            own = likelihood.parameter_gradient(z, t, xp) * scale
            first[:, parts.likelihood] += own.sum(axis=1)
            second[:, parts.likelihood] += (own * own).sum(axis=1)
        totals[0] += first
        totals[1] += second
    return GradientMoments(totals[0] / count, totals[1] / count, count)


def per_example_gradients(
    potential: Any, q: Array, rows: Array | None = None
) -> Iterator[tuple[Array, Array]]:
    """Gradients of single examples' -log p by all weights, a slice of rows at a time.

    Parameters
    ----------
    potential : Posterior
        Of an `MLP` or a `Sequential`, or its minibatch form.
    q : array, (R, D)
        Weights; the passes run in their type.
    rows : (n,) int array, optional
        Examples to use; all if None.

    Yields
    ------
    (array (b,), array (R, b, D))
        Numbers of the examples, and their gradients.

    Raises
    ------
    PotentialError
        A potential whose layers are not known, or shapes that do not match.
    """
    model = _posterior(potential)
    net = as_sequential(model.network)
    points, xp = _rows(model, q, None, "q")
    parts, replicas = model.parts, points.shape[0]
    weights, scale = points[:, parts.weights], _scale(model)
    likelihood = model.bound_likelihood(points, xp)
    budget = replicas * max(net.width, model.size)
    for where, X, t in _slices(model, rows, budget, points.dtype, xp):
        z, tape = net.tape(weights, X)
        out = xp.zeros((replicas, len(where), model.size), points.dtype)
        own = [
            out[:, :, w].reshape(replicas, len(where), *shape)
            for w, shape in net.layout.values()
        ]
        delta = _typed(likelihood.residual(z, t, xp) * scale, z)
        net.pull(weights, tape, delta, Examples(own))
        if parts.sampled is not None:
            slopes = likelihood.parameter_gradient(z, t, xp)
            out[:, :, parts.likelihood] = slopes * scale
        yield where, out


def _posterior(potential: Any) -> Posterior:
    model = potential.full if isinstance(potential, MinibatchPosterior) else potential
    if not isinstance(model, Posterior):
        raise PotentialError(
            f"potential={type(potential).__name__}: expected a Posterior of an MLP or "
            "a Sequential, whose layers are known"
        )
    return model


def _rows(potential: Any, q: Array, dtype: Any, name: str) -> tuple[Array, Any]:
    """(R, D) of (R, D) or (D,), in ``dtype`` (None: its own), and the array module."""
    xp = evaluator_xp(q)
    rows = xp.asarray(q)
    if dtype is None:
        dtype = rows.dtype if rows.dtype == np.float32 else np.float64
    rows = xp.atleast_2d(rows).astype(dtype, copy=False)
    if rows.ndim != 2 or rows.shape[1] != potential.size:
        raise PotentialError(
            f"{name} has shape {np.shape(q)}: expected (R, {potential.size}), one "
            "column per parameter"
        )
    return rows, xp


def _typed(delta: Array, z: Array) -> Array:
    return delta.astype(z.dtype, copy=False)


def _scale(model: Posterior) -> float:
    """What multiplies -log p in U, where the targets do not carry it."""
    return 1.0 if model.weighted else 1 / model.likelihood_temperature


def _largest(net: Sequential) -> int:
    """Largest gradient of an example that `Moments` writes out."""
    sizes = [
        int(np.prod(t.shape)) for t in net.tensors().values() if t.kind != "product"
    ]
    return max(sizes, default=1)


def _slices(
    model: Posterior, rows: Array | None, budget: int, dtype: Any, xp: Any
) -> Iterator[tuple[Array, Array, Array]]:
    """Numbers, inputs and targets of the examples, a slice at a time."""
    data, targets = model.arrays(dtype)
    step = max(1, ELEMENTS // max(1, budget))
    if rows is None:
        for first in range(0, model.n_data, step):
            part = slice(first, min(first + step, model.n_data))
            X, t = xp.asarray(data[part], dtype), xp.asarray(targets[part])
            yield np.arange(part.start, part.stop), X, t
        return
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or chosen.size == 0:
        raise PotentialError(f"rows={rows!r}: expected row numbers (n,), or None")
    if chosen.min() < 0 or chosen.max() >= model.n_data:
        raise PotentialError(
            f"rows from {chosen.min()} to {chosen.max()}: expected 0 to "
            f"{model.n_data - 1}, the rows of the data"
        )
    for first in range(0, chosen.size, step):
        where = chosen[first : first + step]
        if isinstance(data, np.ndarray):
            X = data[where]
        else:
            X = np.empty((where.size, data.shape[1]), data.dtype)
            data.gather(where, X)
        yield where, xp.asarray(X, dtype), xp.asarray(targets[where])


def _hessian_vector(potential: Any, q: Array, v: Array) -> Array:
    if isinstance(potential, Sum):
        return sum(_hessian_vector(part, q, v) for part in potential.parts)
    if isinstance(potential, Scaled):
        return potential.factor * _hessian_vector(potential.part, q, v)
    model, xp = _posterior(potential), evaluator_xp(q)
    net, parts = as_sequential(model.network), model.parts
    weights, direction = q[:, parts.weights], v[:, parts.weights]
    out = xp.zeros_like(q)
    curve = _Curve(model, q, v, xp)
    budget = q.shape[0] * 3 * net.width
    for _, X, t in _slices(model, None, budget, np.float64, xp):
        z, tape = net.tape(weights, X)
        dz, dots = net.tangent(weights, direction, tape)
        delta, ddelta = curve.residuals(z, dz, t, out)
        net.second(weights, direction, tape, dots, delta, ddelta, out[:, parts.weights])
    out *= _scale(model)
    _add_prior(model, q, v, out, xp)
    return out


class _Curve:
    """First and second derivative of -log p by the outputs."""

    def __init__(self, model: Posterior, q: Array, v: Array, xp: Any) -> None:
        self._model, self._q, self._v, self._xp = model, q, v, xp
        self._bound = model.bound_likelihood(q, xp)
        inner = model.likelihood
        plain = model.parts.sampled is None
        self._exact = plain and type(inner) in (Categorical, Gaussian, Bernoulli)

    def residuals(
        self, z: Array, dz: Array, t: Array, out: Array
    ) -> tuple[Array, Array]:
        """Residual, and its change along v; parameters' own changes go to ``out``."""
        delta = self._bound.residual(z, t, self._xp)
        if not self._exact:
            return delta, self._difference(z, dz, t, out)
        ddelta = self._closed(z, dz)
        return delta, t[..., -1:] * ddelta if self._model.weighted else ddelta

    def _closed(self, z: Array, dz: Array) -> Array:
        likelihood: Any = self._model.likelihood
        if isinstance(likelihood, Gaussian):
            return dz * likelihood.noise**-2
        p = likelihood.predict(z, self._xp)
        if isinstance(likelihood, Bernoulli):
            return p * (1 - p) * dz
        return p * (dz - (p * dz).sum(axis=-1, keepdims=True))

    def _difference(self, z: Array, dz: Array, t: Array, out: Array) -> Array:
        model, xp = self._model, self._xp
        theta = model.parts.likelihood
        length = xp.abs(dz).max(axis=(1, 2))
        if theta.stop > theta.start:
            length = xp.maximum(length, xp.abs(self._v[:, theta]).max(axis=1))
        step = _STEP / xp.where(length > 0, length, 1.0)
        ends = []
        for sign in (step, -step):
            bound = model.bound_likelihood(self._q + sign[:, None] * self._v, xp)
            at = z + sign[:, None, None] * dz
            own = 0.0
            if model.parts.sampled is not None:
                own = bound.parameter_gradient(at, t, xp).sum(axis=1)
            ends.append((bound.residual(at, t, xp), own))
        (upper, more), (lower, less) = ends
        if model.parts.sampled is not None:
            out[:, theta] += (more - less) / (2 * step[:, None])
        return (upper - lower) / (2 * step[:, None, None])


def _add_prior(model: Posterior, q: Array, v: Array, out: Array, xp: Any) -> None:
    """Add the part of -log prior, and of the laws of sampled parameters."""
    parts, prior = model.parts, model.prior
    if parts.plain and hasattr(prior, "table"):
        rows = prior.table(model.layout)
        for (where, _), (code, a, b) in zip(model.layout.values(), rows, strict=True):
            if code == PRIORS["gaussian"]:
                out[:, where] += a * v[:, where]
            elif code == PRIORS["student"]:
                square = q[:, where] ** 2
                out[:, where] += a * (b - square) / (b + square) ** 2 * v[:, where]
        return  # flat and Laplace priors have no curvature
    length = xp.abs(v).max(axis=1)
    step = (_STEP / xp.where(length > 0, length, 1.0))[:, None]
    upper, lower = xp.zeros_like(q), xp.zeros_like(q)
    parts.add_gradient(q + step * v, upper, xp)
    parts.add_gradient(q - step * v, lower, xp)
    out += (upper - lower) / (2 * step)
