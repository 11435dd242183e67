"""Energies at two temperatures against the ratio of their Boltzmann factors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.records import BurnIn, burn_in_step, is_run, read, target
from mdnet.analysis.results import with_error
from mdnet.analysis.timeseries import as_series, column_means
from mdnet.errors import PotentialError
from mdnet.validate._runs import F, report

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["EnsembleRatio", "ensemble_ratio"]

_LOOSEST = 0.5  # relative error of a slope that still says something


@dataclass(frozen=True, slots=True)
class EnsembleRatio:
    """Slopes of ln P_hot(U)/P_cold(U), one for each pair of temperatures.

    Attributes
    ----------
    passed : bool
        Whether every slope is known to 50 %, and is within ``sigma`` standard errors
        of exact.
    slope, stderr : ndarray, (P,)
        Measured.
    exact : ndarray, (P,)
        1/T_cold - 1/T_hot.
    deviation : ndarray, (P,)
        (slope - exact) / stderr.
    temperatures : ndarray, (P, 2)
        Cold and hot.
    n_eff : ndarray, (P, 2)
        Independent samples of either side.
    overlap : ndarray, (P,)
        Share of samples that the energy alone would give to the wrong side, times
        two: 1 for equal laws, 0 for laws apart.
    sigma : float
    warnings : tuple of str
    """

    passed: bool
    slope: F
    stderr: F
    exact: F
    deviation: F
    temperatures: F
    n_eff: F
    overlap: F
    sigma: float
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        rows = [
            f"T = {t[0]:.4g} and {t[1]:.4g}: slope {with_error(s, e)}, exact {x:.5g} "
            f"({d:+.1f} sigma), overlap {o:.2f}, {n.min():.0f} independent samples"
            for t, s, e, x, d, o, n in zip(
                self.temperatures,
                self.slope,
                self.stderr,
                self.exact,
                self.deviation,
                self.overlap,
                self.n_eff,
                strict=True,
            )
        ]
        worst = float(np.abs(self.deviation).max())
        return report(
            "ensemble ratio",
            self.passed,
            f"largest deviation {worst:.1f} standard errors of {self.sigma:g} allowed",
            *rows,
            *(f"! {w}" for w in self.warnings),
        )


def ensemble_ratio(
    run_cold: Run | Any,
    run_hot: Run | Any = None,
    *,
    temperature: Any = None,
    burn_in: BurnIn = "auto",
    sigma: float = 4.0,
) -> EnsembleRatio:
    r"""Test that energies follow :math:`e^{-U/T}`, without knowing their density.

    .. math:: \ln\frac{P_2(U)}{P_1(U)} = (\beta_1 - \beta_2)\,U + \text{constant},

    whatever the potential.  The slope is the maximum-likelihood one of a logistic
    regression of "from which run" on U; its error is that of the scores, with their
    autocorrelation and the scatter between replicas.

    It sees samplers that are not canonical, and a temperature that is off by a few
    times stderr/slope.  It does not see what shifts both runs alike, nor a few per cent
    of heating in a few thousand samples: it complements `analysis.temperatures`.

    Parameters
    ----------
    run_cold, run_hot : Run or array
        Runs with ``potential_energy``; or energies (T, R) or (T,).  Temperatures some
        ten per cent apart are best (a distance of about 2 standard deviations of U).
        Replicas at several temperatures are paired in their order, coldest with
        coldest; without ``run_hot``, each temperature of ``run_cold`` with the next.
    temperature : pair, optional
        (cold, hot), each a number or one a replica; for a single run, one a replica.
        The runs' targets if not given.
    burn_in : "auto", int or float
        Of each run.
    sigma : float
        Standard errors that a slope may be off: 4 raises a false alarm in 6e-5 of
        the pairs.

    Raises
    ------
    PotentialError
        Equal temperatures, or temperatures that cannot be paired.
    TrajectoryError
        Runs without ``potential_energy``.

    References
    ----------
    M. R. Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p.

    Examples
    --------
    >>> from mdnet import validate
    >>> rng = np.random.default_rng(0)
    >>> cold, hot = (t * rng.gamma(10.0, size=2000) for t in (1.0, 1.3))
    >>> bool(validate.ensemble_ratio(cold, hot, temperature=(1.0, 1.3)))
    True
    >>> bool(validate.ensemble_ratio(cold, hot, temperature=(1.0, 1.6)))
    False
    """
    if not sigma > 0:
        raise PotentialError(f"sigma={sigma!r}: expected a number > 0")
    if run_hot is None:
        ladder = _groups(run_cold, temperature, burn_in, "run_cold")
        if len(ladder) < 2:
            raise PotentialError(
                f"run_cold has one temperature, {ladder[0][0]:g}, and run_hot was not "
                "given: pass a second run at another temperature"
            )
        pairs = list(itertools.pairwise(ladder))
    else:
        given = (None, None) if temperature is None else tuple(temperature)
        if len(given) != 2:
            raise PotentialError(
                f"temperature={temperature!r}: expected a pair (cold, hot)"
            )
        cold = _groups(run_cold, given[0], burn_in, "run_cold")
        hot = _groups(run_hot, given[1], burn_in, "run_hot")
        if len(cold) != len(hot):
            raise PotentialError(
                f"run_cold has {len(cold)} temperatures and run_hot {len(hot)}: "
                "expected as many, to pair them"
            )
        pairs = list(zip(cold, hot, strict=True))
    temperatures = np.array([[a[0], b[0]] for a, b in pairs])
    same = np.isclose(temperatures[:, 0], temperatures[:, 1], rtol=1e-9)
    if same.any():
        raise PotentialError(
            f"both runs are at T = {temperatures[same][0, 0]:g}: expected different "
            "temperatures, some ten per cent apart"
        )
    found = [_slope(a[1], b[1]) for a, b in pairs]
    slope, stderr, overlap = (np.array([f[i] for f in found]) for i in range(3))
    exact = 1 / temperatures[:, 0] - 1 / temperatures[:, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = (slope - exact) / stderr
    warnings = []
    known = stderr <= _LOOSEST * np.abs(exact)
    if (overlap < 1e-3).any():
        warnings.append(
            "energies of a pair do not overlap: bring the temperatures closer together"
        )
    elif (overlap < 0.05).any():
        warnings.append("energies of a pair hardly overlap: the slope rests on few")
    elif not known.all():
        warnings.append(
            f"a slope is not known to {100 * _LOOSEST:g} %: sample longer, or at "
            "temperatures further apart"
        )
    return EnsembleRatio(
        passed=bool((known & (np.abs(deviation) <= sigma)).all()),
        slope=slope,
        stderr=stderr,
        exact=exact,
        deviation=deviation,
        temperatures=temperatures,
        n_eff=np.array([f[3] for f in found]),
        overlap=overlap,
        sigma=sigma,
        warnings=tuple(warnings),
    )


def _groups(
    source: Run | Any, given: Any, burn_in: BurnIn, name: str
) -> list[tuple[float, F]]:
    """(temperature, energies (T, R)) of each temperature, coldest first."""
    if is_run(source):
        start, _ = burn_in_step(source, burn_in)
        energy = read(source, "potential_energy", "validate.ensemble_ratio()")
        energy = energy.since(start)
        goal = target(source, given, start)
        if goal is None:
            raise PotentialError(f"{name} has no target temperature: pass temperature=")
        if np.ptp(goal.value, axis=0).max() > 1e-9 * goal.value.max():
            raise PotentialError(
                f"the target temperature of {name} changes with time: there is no "
                "equilibrium to test"
            )
        u, t = energy.value, goal.value[-1]
    else:
        u = as_series(source, name)
        if given is None:
            raise PotentialError(f"{name} is an array: pass temperature=(cold, hot)")
        t = np.broadcast_to(np.asarray(given, np.float64), (u.shape[1],))
    if not (np.isfinite(t).all() and (t > 0).all()):
        raise PotentialError(f"temperature of {name} is {t}: expected values > 0")
    alive = np.isfinite(u).all(0)
    if not alive.any() or u.shape[0] < 4:
        raise PotentialError(
            f"{name} has {u.shape[0]} records and {int(alive.sum())} finite replicas: "
            "expected four records or more of one at least"
        )
    u, t = u[:, alive], t[alive]
    levels = np.sort(t)
    levels = levels[np.r_[True, np.diff(levels) > 1e-8 * levels[-1]]]
    return [
        (float(level), u[:, np.abs(t - level) <= 1e-8 * levels[-1]]) for level in levels
    ]


def _slope(cold: F, hot: F) -> tuple[float, float, float, tuple[float, float]]:
    """Logistic slope, its error, overlap, independent samples of energies (T, R)."""
    sizes = cold.size, hot.size
    u = np.concatenate([cold.ravel(), hot.ravel()])
    centre, width = u.mean(), max(u.std(), 1e-300)
    x = np.stack([np.ones_like(u), (u - centre) / width])
    label = np.repeat([0.0, 1.0], sizes)
    # Either run counts half, whatever its length.
    weight = np.repeat([0.5 / n for n in sizes], sizes)
    beta = np.zeros(2)
    for _ in range(50):  # Newton; the likelihood is concave
        p = 1 / (1 + np.exp(-np.clip(beta @ x, -700, 700)))
        gradient = x @ (weight * (label - p))
        hessian = (x * (weight * p * (1 - p))) @ x.T
        if not np.linalg.cond(hessian) < 1e12:
            return np.nan, np.nan, 0.0, (0.0, 0.0)
        change = np.linalg.solve(hessian, gradient)
        beta += change * min(1.0, 2.0 / max(np.abs(change).max(), 1e-300))
        if np.abs(change).max() < 1e-10:
            break
    p = 1 / (1 + np.exp(-beta @ x))
    influence = np.linalg.solve(hessian, x * (label - p))[1]
    variance, samples = 0.0, []
    for part, shape in zip(
        np.split(influence, [sizes[0]]), (cold.shape, hot.shape), strict=True
    ):
        mean = column_means(part.reshape(*shape, 1))
        variance += (0.5 * float(mean.stderr[0])) ** 2
        samples.append(float(mean.n_eff[0]))
    overlap = 2 * float((weight * np.abs(label - (p > 0.5))).sum())
    return (
        float(beta[1] / width),
        float(np.sqrt(variance) / width),
        overlap,
        (samples[0], samples[1]),
    )
