r"""Relaxation to equilibrium: :math:`D_{KL}(p_t \| p_{eq})` of an ensemble of replicas.

Start the ensemble from a density (a single point has an infinite divergence).  For
overdamped dynamics, or positions and momenta together, the divergence can only fall;
that of the weights alone of an underdamped run may rise for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mdnet.analysis import kl_estimators as estimators
from mdnet.analysis.kl_function import predictive_relaxation
from mdnet.analysis.kl_sources import ensemble_of, reference_tail
from mdnet.analysis.records import is_run
from mdnet.errors import PotentialError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["KLRelaxation", "kl_by_layer", "kl_relaxation"]

F = np.ndarray[Any, Any]
METHODS = ("auto", "gaussian", "gaussian-diagonal", "marginal", "knn", "predictive")


@dataclass(frozen=True, slots=True)
class KLRelaxation:
    """Divergence from equilibrium against time.

    Attributes
    ----------
    times : ndarray, (T,)
        Time of each row (the row's number where no time is known).
    value, stderr : ndarray, (T,)
        Nats; unbiased estimates scatter about zero in equilibrium, below it too.
    method : str
    d, n : int
        Coordinates and replicas.
    reference : str
        What stands for equilibrium.
    lower_bound : bool
        Whether only a projection was seen, so that the true divergence is larger.
    warnings : tuple of str
    """

    times: F
    value: F
    stderr: F
    method: str
    d: int
    n: int
    reference: str
    lower_bound: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reference:
    """Equilibrium in one of its forms."""

    kind: Literal["moments", "samples", "density"]
    text: str
    mean: F | None = None
    covariance: F | None = None
    samples: F | None = None
    density: Callable[[F], F] | None = None


def _moments(mean: Any, covariance: Any, d: int) -> _Reference:
    centre = np.broadcast_to(np.asarray(mean, np.float64), (d,))
    spread = np.asarray(covariance, np.float64)
    if spread.ndim < 2:
        spread = np.diag(np.broadcast_to(spread, (d,)))
    if spread.shape != (d, d):
        raise PotentialError(
            f"reference covariance has shape {np.shape(covariance)}: expected "
            f"({d}, {d}), or ({d},) variances, or one number"
        )
    return _Reference("moments", "known mean and covariance", centre, spread)


def _reference(given: Any, d: int) -> _Reference:
    if isinstance(given, Mapping):
        spread = given.get("covariance", given.get("variance"))
        if "mean" not in given or spread is None:
            raise PotentialError(
                f"reference has the keys {sorted(given)}: expected 'mean' and "
                "'covariance' (or 'variance')"
            )
        return _moments(given["mean"], spread, d)
    if isinstance(given, tuple) and len(given) == 2:
        return _moments(given[0], given[1], d)
    if callable(given):
        return _Reference("density", "known density", density=given)
    samples = np.asarray(given, np.float64)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or samples.shape[1] != d or not np.isfinite(samples).all():
        raise PotentialError(
            f"reference has shape {np.shape(given)}: expected finite samples (m, {d}), "
            "a pair (mean, covariance), a mapping with those keys, or a callable log "
            "density of one coordinate"
        )
    return _Reference("samples", f"{len(samples)} samples", samples=samples)


def _project(reference: _Reference, basis: F | None) -> _Reference:
    if basis is None:
        return reference
    if reference.kind == "moments":
        return replace(
            reference,
            mean=reference.mean @ basis,
            covariance=basis.T @ reference.covariance @ basis,
        )
    if reference.kind == "samples":
        return replace(reference, samples=reference.samples @ basis)
    raise PotentialError("a density reference cannot be projected: project it yourself")


def _whiten(data: F, reference: _Reference) -> F:
    """Coordinates in which the known reference is N(0, 1)."""
    try:
        root = np.linalg.cholesky(np.asarray(reference.covariance))
    except np.linalg.LinAlgError as error:
        raise PotentialError(
            "the reference covariance is not positive definite"
        ) from error
    flat = (data - reference.mean).reshape(-1, data.shape[-1])
    out: F = np.linalg.solve(root, flat.T).T.reshape(data.shape)
    return out


def _edges(
    reference: _Reference, bins: int, domain: tuple[float, float] | None
) -> list[F]:
    """Inner edges of bins of equal probability, for each coordinate."""
    shares = np.arange(1, bins) / bins
    if reference.samples is not None:
        return list(np.quantile(reference.samples, shares, axis=0).T)
    if reference.density is None:
        from scipy.special import ndtri

        spread = np.sqrt(np.diag(np.asarray(reference.covariance)))
        return [
            c + s * ndtri(shares)
            for c, s in zip(np.asarray(reference.mean), spread, strict=True)
        ]
    if domain is None or not domain[0] < domain[1]:
        raise PotentialError(
            f"domain={domain!r}: a log density needs the interval that holds it, "
            "domain=(low, high)"
        )
    x = np.linspace(*domain, 20_001)
    log = np.asarray(reference.density(x), np.float64)
    if log.shape != x.shape or np.isnan(log).any():
        raise PotentialError(
            "the reference log density must map an array (n,) to finite values (n,)"
        )
    density = np.exp(log - log.max())
    total = np.concatenate(([0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))))
    return [np.interp(shares, total / total[-1], x)]


def _binned(
    data: F, reference: _Reference, bins: int, domain: tuple[float, float] | None
) -> F:
    edges = _edges(reference, bins, domain)
    return np.stack(
        [np.searchsorted(e, data[..., i]) for i, e in enumerate(edges)], axis=-1
    )


def _choose(method: str, reference: _Reference, n: int, d: int) -> str:
    if method != "auto":
        return method
    if reference.kind == "density":
        return "marginal"
    m = 10**9 if reference.samples is None else len(reference.samples)
    return "gaussian" if min(n, m) >= 2 * d + 3 else "gaussian-diagonal"


def kl_relaxation(
    ensemble: Any,
    reference: Any = None,
    method: str = "auto",
    *,
    times: Any = None,
    layers: str | Sequence[str] | None = None,
    projection: Any = None,
    components: int = 8,
    potential: Any = None,
    inputs: Any = None,
    domain: tuple[float, float] | None = None,
    bins: int | None = None,
    neighbours: int = 5,
    reference_part: float = 0.25,
    max_times: int = 200,
    bootstrap: int = 200,
    seed: int = 0,
) -> KLRelaxation:
    r"""Estimate :math:`D_{KL}(p_t \| p_{eq})` of an ensemble of replicas.

    Parameters
    ----------
    ensemble : array_like, (times, R, d) or (times, R); or Run
        Replicas started from a density.  Of a run, the stored positions.
    reference : optional
        Equilibrium: ``(mean, covariance)`` or a mapping with these keys; samples
        (m, d); a callable log density of one coordinate, up to a constant, with
        ``domain``; None estimates it from the last ``reference_part`` of the ensemble.
    method : str
        - "gaussian": both taken for Gaussian, bias removed exactly;
        - "gaussian-diagonal": the same, coordinate by coordinate;
        - "marginal": bins of equal probability in each coordinate, Miller-Madow;
        - "knn": nearest neighbours, d <= 5;
        - "predictive": between predictive distributions, see ``potential``;
        - "auto": "predictive" with ``inputs``; "marginal" for a log density;
          "gaussian" for 2d + 3 replicas or more; else "gaussian-diagonal".
    times : array_like, (times,), optional
        Default: the run's times, or 0, 1, 2, ...
    layers : str or sequence of str, optional
        Of a run: only these tensors.  `kl_by_layer` does each in turn.
    projection : "random", "pca", "energy" or (d, k) array, optional
        Few coordinates of many: the divergence seen is a lower bound.  "energy" is
        U itself.  A run of more than 64 weights is projected at random by default.
    components : int
        Directions of "random" and "pca".
    potential, inputs : Potential and (n, ...) array, optional
        Compare predictions on ``inputs`` instead of weights: blind to permuted hidden
        units, and a lower bound.  Best for networks.
    domain : (float, float), optional
        Interval that holds a log density.
    bins, neighbours : int
        Of "marginal" (default about 2 R^(1/3); the estimate cannot exceed ln bins) and
        of "knn".
    reference_part : float
        Share at the end that counts as equilibrium when ``reference`` is None.
    max_times : int
        A longer run is read at this many frames, dense at the start.
    bootstrap, seed : int
        Resamplings of replicas for the error, and their seed.

    Returns
    -------
    KLRelaxation

    Raises
    ------
    PotentialError
        Shapes, methods or references that do not fit, or too few replicas.

    Notes
    -----
    Known Gaussian reference, S the unbiased covariance of R whitened replicas, the
    bias of the plug-in value being known in closed form:

    .. math::
        \hat D = \tfrac12[\mathrm{tr} S - d - \ln|S| + |\bar x|^2]
        + \tfrac12\Big[\sum_{i=1}^d \psi\big(\tfrac{R-i}{2}\big)
        + d \ln\tfrac{2}{R-1}\Big] - \tfrac{\mathrm{tr} S}{2R}.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(2, 500, 2))
    >>> x[0] += 3.0
    >>> (kl_relaxation(x, (0.0, 1.0)).value > 0.1).tolist()
    [True, False]
    """
    if method not in METHODS:
        raise PotentialError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    if not 0 < reference_part <= 1:
        raise PotentialError(f"reference_part={reference_part!r}: expected in (0, 1]")
    if method == "predictive" or (method == "auto" and inputs is not None):
        if potential is None or inputs is None or not is_run(ensemble):
            raise PotentialError(
                'method="predictive" needs a run with positions, potential=U and '
                "inputs=X"
            )
        return _function_space(ensemble, potential, inputs, reference_part, max_times)
    source = ensemble_of(
        ensemble, times, layers, projection, components, reference_part, max_times, seed
    )
    data, warnings = source.data, list(source.warnings)
    _steps, n, d = data.shape
    if n < 4:
        raise PotentialError(
            f"{n} replicas: an ensemble needs at least 4 for a divergence, and tens to "
            "be useful; run more replicas"
        )
    if reference is None:
        samples = reference_tail(source.tail)
        ref = _Reference("samples", f"last {reference_part:.0%}", samples=samples)
        warnings.append(
            f"the last {reference_part:.0%} of the run stands for equilibrium "
            f"({len(samples)} samples)"
        )
    else:
        ref = _reference(reference, source.full_d)
        if source.columns is not None and ref.kind == "moments":
            keep = source.columns
            ref = replace(
                ref,
                mean=np.asarray(ref.mean)[keep],
                covariance=np.asarray(ref.covariance)[np.ix_(keep, keep)],
            )
        elif source.columns is not None and ref.samples is not None:
            ref = replace(ref, samples=ref.samples[:, source.columns])
        ref = _project(ref, source.basis)
    chosen = _choose(method, ref, n, d)
    statistic, rows, against = _prepare(
        chosen, data, ref, bins or int(np.clip(2 * n ** (1 / 3), 4, 100)), domain,
        neighbours, warnings,
    )  # fmt: skip
    value = statistic(rows, against)
    error = estimators.resampled_errors(statistic, rows, against, bootstrap, seed)
    return KLRelaxation(
        times=source.times,
        value=value,
        stderr=error,
        method=chosen,
        d=d,
        n=n,
        reference=ref.text,
        lower_bound=source.projected or chosen == "marginal",
        warnings=tuple(warnings),
    )


def _prepare(
    method: str,
    data: F,
    ref: _Reference,
    bins: int,
    domain: tuple[float, float] | None,
    neighbours: int,
    warnings: list[str],
) -> tuple[estimators.Statistic, F, F | None]:
    """Statistic, transformed samples and reference samples of a method."""
    d = data.shape[-1]
    if ref.kind == "density" and (method != "marginal" or d != 1):
        raise PotentialError(
            f"a log density needs method='marginal' and one coordinate, not {method!r} "
            f"and {d}; choose a coordinate with projection="
        )
    if method == "marginal":
        m = None if ref.samples is None else len(ref.samples)
        if d > 1:
            warnings.append(
                f"sum of {d} one-dimensional marginals: a bound only if they are "
                "independent in equilibrium"
            )
        return estimators.marginal(bins, m), _binned(data, ref, bins, domain), None
    if method == "knn":
        if d > 5:
            raise PotentialError(
                f"method='knn' in {d} dimensions: expected d <= 5 (at 10 it misses "
                "11 %); use 'gaussian' or projection="
            )
        warnings.append("nearest neighbours are off by a few hundredths of a nat")
        if ref.samples is None:
            terms = estimators.knn_known(_whiten(data, ref), neighbours)
        else:
            terms = estimators.knn_estimated(data, ref.samples, neighbours)
        return estimators.mean_of_terms, terms, None
    diagonal = method == "gaussian-diagonal"
    if diagonal:
        warnings.append("correlations between coordinates are left out")
    if ref.samples is None:
        pick = (
            estimators.gaussian_known_diagonal
            if diagonal
            else estimators.gaussian_known
        )
        return pick, _whiten(data, ref), None
    both = (
        estimators.gaussian_estimated_diagonal
        if diagonal
        else estimators.gaussian_estimated
    )
    # Scale to the reference's spread: the divergence is the same, the sums are tamer.
    centre, spread = ref.samples.mean(0), ref.samples.std(0)
    if not (spread > 0).all():
        raise PotentialError(
            "a coordinate of the reference does not vary (a frozen weight?): leave it "
            "out with layers= or projection="
        )
    return both, (data - centre) / spread, (ref.samples - centre) / spread


def _function_space(
    run: Run, potential: Any, inputs: Any, reference_part: float, max_times: int
) -> KLRelaxation:
    found = predictive_relaxation(run, potential, inputs, reference_part, max_times)
    return KLRelaxation(
        times=found.times,
        value=found.value,
        stderr=found.stderr,
        method="predictive",
        d=found.d,
        n=found.n,
        reference=f"last {reference_part:.0%}",
        lower_bound=True,
        warnings=found.warnings,
    )


def kl_by_layer(run: Run, reference: Any = None, **options: Any) -> Any:
    """`kl_relaxation` of each tensor of a run: a mapping from name to result.

    Each is a lower bound on the divergence of the whole.

    Parameters
    ----------
    run : Run
    reference, **options
        As `kl_relaxation`.
    """
    return {
        name: kl_relaxation(run, reference, layers=name, **options)
        for name in run.layout
    }
