"""Autocorrelated series: correlation time, mean with its error, burn-in.

Series are (chains, draws, ...), or (draws,) for one chain, in the functions that
take samples, and (T, R, ...) in those that take recorded series of a run.

References
----------
A. Sokal, "Monte Carlo methods in statistical mechanics" (1997),
doi:10.1007/978-1-4899-0319-8_6.
U. Wolff, "Monte Carlo errors with less errors", Comput. Phys. Commun. 156, 143 (2004),
doi:10.1016/S0010-4655(03)00467-3.
J. D. Chodera, "A simple method for automated equilibration detection", J. Chem. Theory
Comput. 12, 1799 (2016), doi:10.1021/acs.jctc.5b00784.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.analysis.results import Estimate
from mdnet.errors import PotentialError

__all__ = [
    "Equilibration",
    "autocorrelation",
    "autocorrelation_time",
    "equilibration",
    "mean",
]

_ROWS = 4096
"""Longer series are averaged over blocks first: the error of a mean is unchanged."""
_FALSE_ALARM = 1e-4
"""Rate at which replicas that do agree are said to disagree."""


def as_chains(x: Any, name: str = "x") -> np.ndarray[Any, Any]:
    """``x`` as (chains, draws, ...) float64, checked."""
    a = np.asarray(x, dtype=np.float64)
    if a.ndim == 1:
        a = a[None]
    if a.ndim < 2 or a.shape[1] < 4 or a.size == 0:
        raise PotentialError(
            f"{name} has shape {np.shape(x)}: expected (chains, draws, ...) or "
            "(draws,) with at least 4 draws; a recorded series (T, R) goes in as "
            "series.value.swapaxes(0, 1)"
        )
    if not np.isfinite(a).all():
        raise PotentialError(
            f"{name} has {int((~np.isfinite(a)).sum())} values that are not finite; "
            "leave out the diverged replicas first"
        )
    return a


def as_series(x: Any, name: str = "x") -> np.ndarray[Any, Any]:
    """``x`` as (T, R, ...) float64, checked."""
    a = np.asarray(x, dtype=np.float64)
    if a.ndim == 1:
        a = a[:, None]
    if a.ndim < 2 or a.size == 0:
        raise PotentialError(
            f"{name} has shape {np.shape(x)}: expected (T, R, ...) or (T,), not empty"
        )
    if not np.isfinite(a).all():
        raise PotentialError(
            f"{name} has {int((~np.isfinite(a)).sum())} values that are not finite; "
            "leave out the diverged replicas first"
        )
    return a


def autocovariance(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Autocovariance at lags 0..T-1 of each row of (..., T), about the row's mean.

    Normalised by the number of pairs T - t.
    """
    n = rows.shape[-1]
    centred = rows - rows.mean(-1, keepdims=True)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    out = np.fft.irfft(power, size, axis=-1)[..., :n]
    return np.asarray(out / np.arange(n, 0, -1))


def _window(rho: np.ndarray[Any, Any], c: float) -> tuple[float, int, bool]:
    """Sokal's time and window of a normalised autocorrelation; last: found or not."""
    tau = 2.0 * np.cumsum(rho) - 1.0
    if rho.size > 3 and rho[1] < -2.0 / np.sqrt(rho.size):
        # An alternating series: partial sums swing, sums of pairs do not (Geyer).
        pairs = rho[: rho.size // 2 * 2].reshape(-1, 2).sum(1)
        inside = np.repeat(pairs <= 0, 2)
        found = bool(inside.any())
        m = max(int(np.argmax(inside)) - 1, 1) if found else rho.size - 1
    else:
        inside = np.arange(rho.size) >= c * np.maximum(tau, 1.0)
        found = bool(inside.any())
        m = int(np.argmax(inside)) if found else rho.size - 1
    # Subtracting the chain's own mean pulls every covariance down (Wolff, eq. 49).
    corrected = float(tau[m]) * (1.0 + (2 * m + 1) / rho.size)
    return max(corrected, 1.0 / rho.size), m, found


def autocorrelation(x: Any) -> np.ndarray[Any, Any]:
    r"""Normalised autocorrelation :math:`\rho(t)`, pooled over chains.

    Parameters
    ----------
    x : array_like, (chains, draws, ...) or (draws,)

    Returns
    -------
    ndarray, (draws, ...)
        1 at lag 0; each chain is taken about its own mean.
    """
    a = as_chains(x)
    acov = autocovariance(np.moveaxis(a, 1, -1)).mean(0)
    acov = np.moveaxis(acov, -1, 0)
    rho: np.ndarray[Any, Any] = np.zeros_like(acov)
    np.divide(acov, acov[0], out=rho, where=acov[0] > 0)
    rho[0] = 1.0
    return rho


def autocorrelation_time(x: Any, c: float = 5.0) -> Estimate:
    r"""Integrated autocorrelation time, in draws.

    .. math:: \tau = 1 + 2 \sum_{t=1}^{M} \rho(t),

    with the smallest window :math:`M \ge c\,\tau(M)`, or, for a series that alternates
    (:math:`\rho(1) < 0`), up to the first pair of lags whose sum is not positive.  A
    mean of n draws is worth n/τ independent ones; white noise has τ = 1, an AR(1)
    series (1+φ)/(1-φ).

    Parameters
    ----------
    x : array_like, (chains, draws, ...) or (draws,)
        Chains of one quantity; their autocorrelations are averaged.
    c : float
        Sokal's constant: larger has less bias and more variance.

    Returns
    -------
    Estimate
        ``value`` (...); ``stderr`` is Sokal's τ √(2(2M+1)/n); ``n_eff`` is n/τ.

    Raises
    ------
    PotentialError
        Fewer than four draws, values that are not finite, or c <= 0.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(4, 1000))
    >>> abs(autocorrelation_time(x) - 1) < 0.3
    np.True_
    """
    if not c > 0:
        raise PotentialError(f"c={c!r}: expected a number > 0 (5 is usual)")
    a = as_chains(x)
    chains, draws = a.shape[:2]
    rho = autocorrelation(a).reshape(draws, -1)
    tau, error, short = (np.empty(rho.shape[1]) for _ in range(3))
    for k in range(rho.shape[1]):
        tau[k], m, found = _window(rho[:, k], c)
        error[k] = tau[k] * np.sqrt(2.0 * (2 * m + 1) / (chains * draws))
        short[k] = not found or draws < 50 * tau[k]
    notes: tuple[str, ...] = ()
    if short.any():
        notes = (
            (
                f"{int(short.sum())} of {short.size} series are shorter than 50 "
                "correlation times: the time is a lower guess"
            ),
        )
    shape = a.shape[2:]
    value, stderr = _shape(tau, shape), _shape(error, shape)
    return Estimate(
        value, stderr, chains * draws / value, f"Sokal window, c={c:g}", notes
    )


def _shape(flat: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Any:
    return flat.reshape(shape) if shape else float(flat[0])


@dataclass(frozen=True, slots=True)
class Mean:
    """Means of autocorrelated series with what their errors rest on; arrays (K,)."""

    value: np.ndarray[Any, Any]
    stderr: np.ndarray[Any, Any]
    n_eff: np.ndarray[Any, Any]
    freedom: np.ndarray[Any, Any]
    """Degrees of freedom of ``stderr`` (how well it is known itself)."""
    disagree: np.ndarray[Any, Any]
    """Whether the replicas' means differ by more than their own errors allow."""


def column_means(x: np.ndarray[Any, Any]) -> Mean:
    """Mean of each column of (T, R, K); see `mean`."""
    from scipy.special import fdtrc

    steps, replicas, columns = x.shape
    block = -(-steps // _ROWS)
    rows = steps // block
    coarse = x[: rows * block].reshape(rows, block, replicas, columns).mean(1)
    value = x.mean((0, 1))
    spread = x.var((0, 1))
    variance, freedom, weight = (np.zeros(columns) for _ in range(3))
    if rows >= 4:
        for k in range(columns):
            acov = autocovariance(coarse[:, :, k].T).mean(0)
            if acov[0] <= 1e-30 * max(value[k] ** 2, 1e-300):
                freedom[k] = weight[k] = np.inf
                continue
            tau, m, _ = _window(acov / acov[0], 5.0)
            variance[k] = acov[0] * tau / (rows * replicas)
            freedom[k] = rows * replicas / (2 * m + 1)
            # A window as long as the series says little: lean on the replicas.
            trust = max(1.0 - (2 * m + 1) / rows, 0.0) ** 2
            weight[k] = freedom[k] * trust
    disagree = np.zeros(columns, bool)
    if replicas > 1:
        between = x.mean(0).var(0, ddof=1) / replicas
        among = replicas - 1.0
        known = np.isfinite(freedom) & (freedom > 0)
        f = np.where(known, between / np.where(variance > 0, variance, 1.0), 0.0)
        disagree = fdtrc(among, np.where(known, freedom, 1.0), f) < _FALSE_ALARM
        alone = disagree | (weight == 0) | (np.isinf(weight) & (between > 0))
        share = np.where(np.isinf(weight), 1.0, 1.0 - among / (weight + among))
        share = np.where(alone, 0.0, share)
        variance = share * variance + (1.0 - share) * between
        freedom = np.where(alone, among, weight + among)
    variance = np.where(freedom > 0, variance, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        n_eff = np.where(variance > 0, spread / variance, steps * replicas)
    n_eff = np.where(np.isnan(variance), 1.0, n_eff)
    return Mean(value, np.sqrt(variance), n_eff, freedom, disagree)


def mean(x: Any) -> Estimate:
    """Mean of an autocorrelated series over time and replicas, with its error.

    Two estimates of the error are pooled by their degrees of freedom: from within
    the replicas (autocovariance summed to Sokal's window) and from the scatter of the
    replicas' means.  Where the scatter is larger than chance allows (one in 10^4) it
    alone is used, and a warning says that the replicas disagree.

    Parameters
    ----------
    x : array_like, (T, R, ...) or (T,)
        A recorded series, replicas on axis 1.

    Returns
    -------
    Estimate
        ``value`` (...).

    Raises
    ------
    PotentialError
        Empty, or with values that are not finite.
    """
    a = as_series(x)
    shape = a.shape[2:]
    out = column_means(a.reshape(*a.shape[:2], -1))
    notes: tuple[str, ...] = ()
    if out.disagree.any():
        notes = (
            (
                "replicas disagree beyond their own errors: run longer, or they sit in "
                "different basins"
            ),
        )
    return Estimate(
        _shape(out.value, shape),
        _shape(out.stderr, shape),
        _shape(out.n_eff, shape),
        "autocorrelation within and scatter between replicas",
        notes,
    )


@dataclass(frozen=True, slots=True)
class Equilibration:
    """Where a series becomes stationary.

    Attributes
    ----------
    start : int
        First row to keep.
    n_eff : float
        Independent samples from there on, all replicas together.
    settled : bool
        Whether the rest looks stationary: ten correlation times or longer, its two
        halves within 4 standard errors of each other, no more than half cut.
    warnings : tuple of str
        Why not, if not.
    """

    start: int
    n_eff: float
    settled: bool
    warnings: tuple[str, ...] = ()


def _transient(x: np.ndarray[Any, Any]) -> int:
    """Rows at the start whose block means stand far off those of the second half.

    A large transient, above all one that swings, hides in its own variance from a
    count of effective samples.
    """
    blocks = min(50, x.shape[0] // 4)
    if blocks < 10:
        return 0
    parts = np.array_split(x.mean(1), blocks)
    level = np.array([part.mean() for part in parts])
    late = level[blocks // 2 :]
    far = np.abs(level - late.mean()) > 5 * late.std(ddof=1)
    # The first two neighbours that are both near end it.
    near = ~(far[:-1] | far[1:])
    first = int(np.argmax(near)) if near.any() else 0
    return sum(len(part) for part in parts[:first])


def equilibration(x: Any, candidates: int = 40) -> Equilibration:
    """Find the burn-in that leaves the most independent samples.

    Leading blocks (of fifty) whose mean is more than five standard deviations of the
    later blocks away are cut.  From there on n_eff(t) = R (T - t) / τ(t) is computed
    from each of ``candidates`` starts; the earliest that reaches 95 % of the largest is
    taken, so that noise does not cut a series which is stationary from the outset.

    Parameters
    ----------
    x : array_like, (T, R) or (T,)
        Usually the potential energy.
    candidates : int
        Starts tried, dense near zero.

    Returns
    -------
    Equilibration
    """
    a = as_series(x)
    if a.ndim != 2:
        raise PotentialError(f"x has shape {a.shape}: expected (T, R) or (T,)")
    steps, replicas = a.shape
    if steps < 8:
        note = f"{steps} rows are too few to find the burn-in: none was cut"
        return Equilibration(0, float(steps * replicas), False, (note,))
    block = -(-steps // _ROWS)
    rows = steps // block
    coarse = a[: rows * block].reshape(rows, block, replicas).mean(1)
    # Replicas at other temperatures fluctuate at other sizes: one weight each.
    size = coarse[rows // 2 :].std(0)
    coarse = coarse / np.where(size > 0, size, 1.0)
    cut = _transient(coarse)
    reach = max(0.85 * rows - cut, 0.0)
    tries = cut + (np.linspace(0, 1, candidates) ** 2 * reach).astype(int)
    tries = np.unique(np.minimum(tries, rows - 4))
    found = np.empty(tries.size)
    for i, start in enumerate(tries):
        acov = autocovariance(coarse[start:].T).mean(0)
        if acov[0] <= 0:
            found[i] = replicas * (rows - start)
            continue
        tau, _, _ = _window(acov / acov[0], 5.0)
        found[i] = replicas * (rows - start) / max(tau, 1.0)
    best = int(np.argmax(found >= 0.95 * found.max()))
    start = int(tries[best])
    rest = coarse[start:]
    half = rest.shape[0] // 2
    early, late = (
        column_means(part[:, :, None]) for part in (rest[:half], rest[half:])
    )
    gap = abs(float(early.value[0] - late.value[0]))
    error = float(np.hypot(early.stderr[0], late.stderr[0]))
    notes: list[str] = []
    if start > rows / 2:
        notes.append("more than half of the series is burn-in: run longer")
    if error > 0 and gap > 4 * error:
        notes.append("the series still drifts after the burn-in: run longer")
    if found[best] < 10 * replicas:
        notes.append("the rest is shorter than 10 correlation times: run longer")
    return Equilibration(start * block, float(found[best]), not notes, tuple(notes))
