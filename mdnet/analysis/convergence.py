"""Convergence of chains: effective sample size, split R-hat, Monte Carlo error.

Judge U, temperatures, layer norms and predictions, not raw weights: permuting hidden
units leaves the network as it is and moves every weight.

References
----------
A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, "Rank-normalization,
folding, and localization: an improved R-hat", Bayesian Anal. 16, 667 (2021),
doi:10.1214/20-BA1221.
C. J. Geyer, "Practical Markov chain Monte Carlo", Stat. Sci. 7, 473 (1992),
doi:10.1214/ss/1177011137.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.analysis.results import Estimate
from mdnet.analysis.timeseries import as_chains, autocovariance

__all__ = ["ess", "mcse", "rhat"]


def _split(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Halve each chain; an odd middle draw is left out."""
    half = a.shape[1] // 2
    return np.concatenate((a[:, :half], a[:, -half:]))


def _normal_scores(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Turn pooled ranks into normal quantiles (Blom), per trailing column."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    flat = a.reshape(a.shape[0] * a.shape[1], -1)
    ranks = rankdata(flat, method="average", axis=0)
    return np.asarray(ndtri((ranks - 0.375) / (flat.shape[0] + 0.25))).reshape(a.shape)


def _plain_rhat(a: np.ndarray[Any, Any]) -> Any:
    draws = a.shape[1]
    within = a.var(1, ddof=1).mean(0)
    between = draws * a.mean(1).var(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + draws - 1) / draws)


def _geyer(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Effective samples of (chains, draws, ...) by the initial monotone sequence."""
    chains, draws = a.shape[:2]
    flat = a.reshape(chains, draws, -1)
    acov = autocovariance(np.moveaxis(flat, 1, -1))
    acov = acov.mean(0) * (np.arange(draws, 0, -1) / draws)
    within = acov[:, :1] * draws / (draws - 1)
    total = acov[:, :1].copy()
    if chains > 1:
        total += flat.mean(1).var(0, ddof=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1.0 - (within - acov) / total
    rho[:, 0] = 1.0
    even, odd = rho[:, 0 : draws - 1 : 2], rho[:, 1:draws:2]
    pairs = even + odd
    positive = np.logical_and.accumulate(pairs > 0, axis=1)
    kept = np.where(positive, np.minimum.accumulate(pairs, axis=1), 0.0).sum(1)
    # The first lag past the kept pairs counts once if it is positive.
    count = positive.sum(1)
    last = np.minimum(count, even.shape[1] - 1)
    extra = np.take_along_axis(even, last[:, None], 1)[:, 0]
    extra = np.where((count < even.shape[1]) & (extra > 0), extra, 0.0)
    tau = np.maximum(2.0 * kept - 1.0 + extra, 1.0 / np.log10(chains * draws))
    n = chains * draws / tau
    constant = np.ptp(flat, axis=(0, 1)) < 1e-15
    return np.where(constant, float(chains * draws), n).reshape(a.shape[2:])


def _plain(x: Any) -> Any:
    return x if np.ndim(x) else float(x)


def ess(x: Any) -> Estimate:
    """Bulk effective sample size: split chains, ranks turned into normal scores.

    Parameters
    ----------
    x : array_like, (chains, draws, ...) or (draws,)
        A recorded series (T, R) goes in as ``series.value.swapaxes(0, 1)``.

    Returns
    -------
    Estimate
        ``value`` (...), with no error of its own (NaN); ``n_eff`` repeats it.

    Raises
    ------
    PotentialError
        Fewer than four draws, or values that are not finite.

    Notes
    -----
    Chains that sit in different places have few effective samples, however many
    draws: unlike `mdnet.analysis.autocorrelation_time` this sees it.
    """
    a = as_chains(x)
    n = _plain(_geyer(_normal_scores(_split(a))))
    notes: tuple[str, ...] = ()
    if np.min(n) < 100 * a.shape[0]:
        notes = (
            (
                f"only {float(np.min(n)):.0f} effective samples, below 100 a chain: "
                "R-hat and the errors are not yet reliable"
            ),
        )
    return Estimate(n, np.full_like(n, np.nan)[()], n, "bulk, rank-normalised", notes)


def rhat(x: Any) -> Estimate:
    """Potential scale reduction of split, rank-normalised (and folded) chains.

    The larger of R-hat of the normal scores (do the chains agree in location?) and
    of the scores of |x - median| (do they agree in scale?).  Above 1.01 the chains
    have not mixed.

    Parameters
    ----------
    x : array_like, (chains, draws, ...) or (draws,)

    Returns
    -------
    Estimate
        ``value`` (...), with no error of its own (NaN); ``n_eff`` is the bulk `ess`.

    Raises
    ------
    PotentialError
        Fewer than four draws, or values that are not finite.
    """
    a = as_chains(x)
    halves = _split(a)
    scores = _normal_scores(halves)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    value = _plain(np.maximum(_plain_rhat(scores), _plain_rhat(_normal_scores(folded))))
    notes: tuple[str, ...] = ()
    if np.any(np.asarray(value) > 1.01):
        notes = (
            f"largest {float(np.max(value)):.3f} > 1.01: the chains have not mixed",
        )
    if a.shape[0] == 1:
        notes += ("one chain: only its two halves are compared",)
    return Estimate(
        value,
        np.full_like(value, np.nan)[()],
        _plain(_geyer(scores)),
        "split, rank-normalised, folded",
        notes,
    )


def mcse(x: Any) -> Estimate:
    """Monte Carlo standard error of the mean: sd / sqrt(effective samples).

    Parameters
    ----------
    x : array_like, (chains, draws, ...) or (draws,)

    Returns
    -------
    Estimate
        ``value`` is the error of ``x.mean()`` over chains and draws; its own error is
        about value / sqrt(2 n_eff).
    """
    a = as_chains(x)
    n = _plain(_geyer(_split(a)))
    value = _plain(a.std((0, 1), ddof=1) / np.sqrt(n))
    return Estimate(value, value / np.sqrt(2 * n), n, "sd / sqrt(split ESS)")
