r"""Estimators of :math:`D_{KL}(p \| q)` from samples, each with its bias removed.

An estimator is a function of the samples (T, n, ...) at T times, n replicas each, and
of reference samples (m, ...) or None: it returns (T,) nats.  The builders below turn a
reference into the transformed samples and such a function, so that one bootstrap over
replicas serves them all.

References
----------
T. W. Anderson, "An Introduction to Multivariate Statistical Analysis", 3rd ed. (2003),
section 7.2-7.7 (moments of ln|S| and S^-1 of Wishart matrices).
G. A. Miller, "Note on the bias of information estimates" (1955).
Q. Wang, S. R. Kulkarni, S. Verdú, "Divergence estimation for multidimensional densities
via k-nearest-neighbor distances", IEEE Trans. Inf. Theory 55, 2392 (2009),
doi:10.1109/TIT.2009.2016060.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mdnet.errors import PotentialError

__all__ = [
    "gaussian_estimated",
    "gaussian_known",
    "knn_estimated",
    "knn_known",
    "log_determinant_bias",
    "marginal",
    "resampled_errors",
]

F: TypeAlias = np.ndarray[Any, Any]
Statistic: TypeAlias = Callable[[F, F | None], F]


def log_determinant_bias(n: int, d: int) -> float:
    r"""Return the bias of ln|S|, S the unbiased covariance of n Gaussians in d.

    .. math::
        B(n) = E \ln|S| - \ln|\Sigma|
             = \sum_{i=1}^{d} \psi\left(\tfrac{n-i}{2}\right)
             + d \ln \tfrac{2}{n-1}.

    Raises
    ------
    PotentialError
        If n <= d, where S is singular.
    """
    from scipy.special import digamma

    if n <= d:
        raise PotentialError(
            f"{n} samples cannot give a covariance in {d} dimensions: need at least "
            f"{d + 1}; use method='gaussian-diagonal', or a projection to fewer"
        )
    i = np.arange(1, d + 1)
    return float(digamma((n - i) / 2).sum() + d * np.log(2 / (n - 1)))


def _moments(x: F) -> tuple[F, F]:
    """Mean (..., d) and unbiased covariance (..., d, d) of (..., n, d)."""
    mean = x.mean(-2)
    centred = x - mean[..., None, :]
    return mean, np.swapaxes(centred, -1, -2) @ centred / (x.shape[-2] - 1)


def gaussian_known(data: F, _reference: F | None = None) -> F:
    r"""Against N(0, 1): ½[tr S - d - ln|S| + |mean|²], exactly unbiased for Gaussians.

    ``data`` is (T, n, d), whitened by the reference.
    """
    n, d = data.shape[-2:]
    mean, s = _moments(data)
    trace = np.trace(s, axis1=-2, axis2=-1)
    plug_in = 0.5 * (trace - d - np.linalg.slogdet(s)[1] + (mean**2).sum(-1))
    out: F = plug_in + 0.5 * log_determinant_bias(n, d) - 0.5 * trace / n
    return out


def gaussian_known_diagonal(data: F, _reference: F | None = None) -> F:
    """Sum over coordinates of the one-dimensional `gaussian_known`."""
    n = data.shape[-2]
    s, mean = data.var(-2, ddof=1), data.mean(-2)
    terms = 0.5 * (s - 1 - np.log(s) + mean**2)
    terms += 0.5 * log_determinant_bias(n, 1) - 0.5 * s / n
    return np.asarray(terms.sum(-1))


def gaussian_estimated(data: F, reference: F | None) -> F:
    """Both moments estimated: (T, n, d) against (m, d), unbiased for Gaussians."""
    if reference is None:
        raise PotentialError("reference=None: expected (m, d) samples")
    n, d = data.shape[-2:]
    m = reference.shape[0]
    if m <= d + 2:
        raise PotentialError(
            f"{m} reference samples in {d} dimensions: expected more than {d + 2}; "
            "use method='gaussian-diagonal', or a projection to fewer"
        )
    c = (m - d - 2) / (m - 1)
    centre, s2 = _moments(reference)
    inverse = np.linalg.inv(s2)
    mean, s1 = _moments(data)
    trace = np.einsum("ij,tji->t", inverse, s1)
    shift = mean - centre
    mahalanobis = np.einsum("ti,ij,tj->t", shift, inverse, shift)
    logs = np.linalg.slogdet(s2)[1] - np.linalg.slogdet(s1)[1]
    logs += log_determinant_bias(n, d) - log_determinant_bias(m, d)
    out: F = 0.5 * (c * trace - d + logs + c * mahalanobis - c * trace / n - d / m)
    return out


def gaussian_estimated_diagonal(data: F, reference: F | None) -> F:
    """Sum over coordinates of the one-dimensional `gaussian_estimated`."""
    if reference is None or reference.shape[0] <= 3:
        raise PotentialError("expected (m, d) reference samples with m > 3")
    n, m = data.shape[-2], reference.shape[0]
    c = (m - 3) / (m - 1)
    s2 = reference.var(0, ddof=1)
    ratio = data.var(-2, ddof=1) / s2
    shift = (data.mean(-2) - reference.mean(0)) ** 2 / s2
    terms = 0.5 * (c * ratio - 1 - np.log(ratio) + c * shift - c * ratio / n - 1 / m)
    terms += 0.5 * (log_determinant_bias(n, 1) - log_determinant_bias(m, 1))
    return np.asarray(terms.sum(-1))


def marginal(bins: int, reference_size: int | None) -> Statistic:
    """Statistic of bin numbers (T, n, d): KL from equal shares, summed over d.

    Miller-Madow: (occupied - 1)/2n is taken off, and (bins - 1)/2m for edges that are
    quantiles of m samples.
    """
    edge_bias = 0.0 if reference_size is None else (bins - 1) / (2 * reference_size)

    def statistic(data: F, _reference: F | None) -> F:
        steps, n, d = data.shape
        offset = np.arange(steps * d).reshape(steps, 1, d) * bins
        counts = np.bincount((data + offset).ravel(), minlength=steps * d * bins)
        share = counts.reshape(steps, d, bins) / n
        with np.errstate(divide="ignore", invalid="ignore"):
            plug_in = np.where(share > 0, share * np.log(share * bins), 0.0).sum(-1)
        occupied = (share > 0).sum(-1)
        return np.asarray((plug_in - (occupied - 1) / (2 * n) - edge_bias).sum(-1))

    return statistic


def _log_ball(d: int) -> float:
    """Logarithm of the volume of the unit ball in d dimensions."""
    from scipy.special import gammaln

    return float(0.5 * d * np.log(np.pi) - gammaln(0.5 * d + 1))


def _neighbour(tree_of: F, at: F, k: int) -> F:
    from scipy.spatial import cKDTree

    distance = cKDTree(tree_of).query(at, k=[k])[0][:, 0]
    return np.asarray(np.log(np.maximum(distance, 1e-300)))


def knn_known(data: F, k: int) -> F:
    r"""Terms (T, n, 1) whose mean is the KL of whitened samples from N(0, 1).

    Entropy of Kozachenko and Leonenko, cross entropy by the sample mean.
    """
    from scipy.special import digamma

    steps, n, d = data.shape
    out = np.empty((steps, n, 1))
    constant = digamma(n) - digamma(k) + _log_ball(d)
    for t in range(steps):
        entropy = constant + d * _neighbour(data[t], data[t], k + 1)
        cross = 0.5 * (data[t] ** 2).sum(-1) + 0.5 * d * np.log(2 * np.pi)
        out[t, :, 0] = cross - entropy
    return out


def knn_estimated(data: F, reference: F, k: int) -> F:
    """Terms (T, n, 1) whose mean is the KL of samples from reference samples (m, d)."""
    steps, n, d = data.shape
    m = reference.shape[0]
    out = np.empty((steps, n, 1))
    for t in range(steps):
        far = _neighbour(reference, data[t], k)
        near = _neighbour(data[t], data[t], k + 1)
        out[t, :, 0] = d * (far - near) + np.log(m / (n - 1))
    return out


def mean_of_terms(data: F, _reference: F | None = None) -> F:
    """Mean over replicas of terms (T, n, 1)."""
    return np.asarray(data[..., 0].mean(-1))


def _jackknife(values: F) -> F:
    """Variance from leave-one-out values (groups, T)."""
    g = len(values)
    return np.asarray((g - 1) * values.var(0))


def resampled_errors(
    statistic: Statistic, data: F, reference: F | None, repeats: int, seed: int
) -> F:
    """Find the standard error of a statistic, resampling replicas and never times.

    A bootstrap; but with fewer than twenty replicas, or fewer than twenty a coordinate
    where a covariance is inverted, repeated rows bring the spread near to zero and the
    bootstrap overstates: there the jackknife takes its place.
    """
    n = data.shape[1]
    if n < 3:
        return np.full(data.shape[0], np.nan)
    inverts = statistic in (gaussian_known, gaussian_estimated)
    if n < 20 or (inverts and n < 20 * data.shape[2]):
        rows = np.arange(n)
        kept = [statistic(data[:, rows != i], reference) for i in rows]
        variance = _jackknife(np.stack(kept))
        if reference is not None:
            group = np.arange(len(reference)) * 20 // len(reference)
            kept = [statistic(data, reference[group != g]) for g in np.unique(group)]
            variance = variance + _jackknife(np.stack(kept))
        return np.sqrt(variance)
    rng = np.random.default_rng(seed)
    values = np.empty((repeats, data.shape[0]))
    for b in range(repeats):
        again = reference
        if reference is not None:
            again = reference[rng.integers(0, len(reference), len(reference))]
        values[b] = statistic(data[:, rng.integers(0, n, n)], again)
    return np.asarray(values.std(0, ddof=1))
