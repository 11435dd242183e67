"""Kinetic energies against their law: 2K/T follows chi-squared of n degrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.records import (
    BurnIn,
    burn_in_step,
    degrees_of_freedom,
    is_run,
    read,
    target,
)
from mdnet.analysis.results import with_error
from mdnet.analysis.timeseries import autocorrelation_time, column_means
from mdnet.errors import PotentialError
from mdnet.validate._runs import F, report

if TYPE_CHECKING:
    from mdnet.typing import Layout, Run

__all__ = ["KineticEnergies", "kinetic"]

_FEWEST = 20  # independent draws that a test is made with
_TESTS = ("mean", "variance", "Kolmogorov-Smirnov")


@dataclass(frozen=True, slots=True)
class KineticEnergies:
    """Kinetic energies of the whole network (first) and of each tensor.

    Attributes
    ----------
    passed : bool
        Whether no test of any row rejects the law, and the whole could be tested.
    names : tuple of str
        "all", then the tensors.
    dof : ndarray, (K,)
        Degrees of freedom n.
    ratio, ratio_error : ndarray, (K,)
        <2K> / (n T), exactly 1.
    spread : ndarray, (K,)
        Variance of 2K/T over 2n, exactly 1.
    draws : ndarray, (K,)
        Draws left after thinning.
    p_values : ndarray, (K, 3)
        Of the mean, the variance, and the Kolmogorov-Smirnov test; NaN where too few
        draws are independent.
    threshold : float
        p below which one test rejects: the false-alarm rate over the number of tests.
    warnings : tuple of str
    """

    passed: bool
    names: tuple[str, ...]
    dof: F
    ratio: F
    ratio_error: F
    spread: F
    draws: F
    p_values: F
    threshold: float
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        rows = [
            f"{name}: 2K/nT = {with_error(r, e)}, variance/2n = {s:.3f}, n = {n:g}, "
            f"p = {', '.join(f'{x:.1e}' for x in p)} ({d:g} draws)"
            for name, r, e, s, n, p, d in zip(
                self.names,
                self.ratio,
                self.ratio_error,
                self.spread,
                self.dof,
                self.p_values,
                self.draws,
                strict=True,
            )
        ]
        worst = np.nanmin(np.append(self.p_values, 1.0))
        return report(
            "kinetic energies",
            self.passed,
            f"smallest p = {worst:.1e} of {', '.join(_TESTS)}; rejects below "
            f"{self.threshold:.1e}",
            *rows,
            *(f"! {w}" for w in self.warnings),
        )


def kinetic(
    run_or_momenta: Run | Any,
    temperature: Any = None,
    *,
    mass: Any = 1.0,
    layout: Layout | None = None,
    dof: Mapping[str, float] | float | None = None,
    burn_in: BurnIn = "auto",
    false_alarm: float = 1e-4,
) -> KineticEnergies:
    r"""Test kinetic energies against :math:`2K/T \sim \chi^2(n)`, whole and by tensor.

    Three tests each: the mean (n) and the variance (2n), with errors from all draws
    and their autocorrelation, and the shape, by a Kolmogorov-Smirnov test of draws
    thinned to two correlation times.

    The mean says that momenta have the right temperature and the variance that they
    have the right ensemble: a Berendsen thermostat or an isokinetic one passes the
    first only.  Neither sees the weights.

    Parameters
    ----------
    run_or_momenta : Run or array
        A run, whose kinetic temperatures were read just after the bath; or momenta
        (draws, D) or (draws, R, D).
    temperature : float or (R,), optional
        The run's target if not given; needed with momenta.
    mass : float or (D,)
        Of momenta given as an array.
    layout : mapping, optional
        Tensors of momenta given as an array, ``{name: (slice, shape)}``.
    dof : float or mapping, optional
        Degrees of freedom of the whole, or by name ("all" and the tensors'), where
        weights are frozen or constrained; the number of weights if not given.
    burn_in : "auto", int or float
        Of a run.
    false_alarm : float
        Rate at which sound momenta are refused, all tests together.

    Raises
    ------
    TrajectoryError
        A run without kinetic temperatures.
    PotentialError
        Momenta without a temperature, or of another shape.

    References
    ----------
    P. T. Merz, M. R. Shirts, PLoS ONE 13, e0202764 (2018),
    doi:10.1371/journal.pone.0202764.

    Examples
    --------
    >>> from mdnet import validate
    >>> p = np.sqrt(2.0) * np.random.default_rng(0).normal(size=(500, 30))
    >>> bool(validate.kinetic(p, temperature=2.0))
    True
    >>> bool(validate.kinetic(p, temperature=2.2))
    False
    """
    from scipy.special import ndtr, stdtr
    from scipy.stats import chi2, kstest

    warnings: list[str] = []
    if is_run(run_or_momenta):
        names, sizes, t = _of_run(run_or_momenta, temperature, burn_in, warnings)
    else:
        names, sizes, t = _of_momenta(run_or_momenta, temperature, mass, layout)
    given = dof if isinstance(dof, Mapping) else {} if dof is None else {"all": dof}
    for name in given:
        if name not in names:
            raise PotentialError(
                f"dof names {name!r}: expected some of {', '.join(names)}"
            )
    n = np.array([float(given.get(k, s)) for k, s in zip(names, sizes, strict=True)])
    # A kinetic temperature is an average over all weights, frozen ones included.
    x = t * sizes
    columns = len(names)
    p_values = np.full((columns, len(_TESTS)), np.nan)
    draws = np.zeros(columns)
    means, squares = column_means(x), column_means((x - n) ** 2 / (2 * n))
    for k in range(columns):
        tau = float(autocorrelation_time(x[:, :, k].T).value)
        stride = max(int(np.ceil(2 * tau)), 1) if tau > 1.5 else 1
        kept = x[::stride, :, k].ravel()
        draws[k] = kept.size
        if kept.size < _FEWEST:
            continue
        for j, (m, exact) in enumerate(((means, n[k]), (squares, 1.0))):
            gap = abs(m.value[k] - exact)
            z = -gap / max(m.stderr[k], 1e-12 * exact)  # a constant has no error
            known = np.isfinite(m.freedom[k])
            p_values[k, j] = 2 * (stdtr(m.freedom[k], z) if known else ndtr(z))
        p_values[k, 2] = kstest(kept, chi2(n[k]).cdf).pvalue
    if np.isnan(p_values).any():
        warnings.append(
            f"fewer than {_FEWEST} independent draws: not tested; record longer"
        )
    threshold = false_alarm / p_values.size
    return KineticEnergies(
        passed=bool(
            not (p_values < threshold).any() and np.isfinite(p_values[0]).all()
        ),
        names=names,
        dof=n,
        ratio=means.value / n,
        ratio_error=means.stderr / n,
        spread=squares.value,
        draws=draws,
        p_values=p_values,
        threshold=threshold,
        warnings=tuple(warnings),
    )


def _of_run(
    run: Run, temperature: Any, burn_in: BurnIn, warnings: list[str]
) -> tuple[tuple[str, ...], F, F]:
    """Names, sizes (K,) and kinetic over target temperatures (T, R, K) of a run."""
    start, notes = burn_in_step(run, burn_in)
    warnings += notes
    whole = read(run, "kinetic_temperature", "validate.kinetic()").since(start)
    goal = target(run, temperature, start)
    if goal is None or not (goal.value > 0).all():
        raise PotentialError(
            "the run has no target temperature > 0; pass temperature=, in units of U"
        )
    if len(goal.step) > 1 and not np.array_equal(goal.step, whole.step):
        goal_value = goal.value[np.searchsorted(goal.step, whole.step, "right") - 1]
    else:
        goal_value = goal.value
    names, sizes = ["all"], [float(sum(degrees_of_freedom(run).values()))]
    columns = [whole.value]
    if "layer_kinetic_temperature" in run:
        layers = read(run, "layer_kinetic_temperature").since(start)
        parts = degrees_of_freedom(run)
        if len(parts) > 1 and np.array_equal(layers.step, whole.step):
            moving = [i for i, n in enumerate(parts.values()) if n > 0]
            names += [list(parts)[i] for i in moving]
            sizes += [float(list(parts.values())[i]) for i in moving]
            columns += [layers.value[..., i] for i in moving]
    return (
        tuple(names),
        np.array(sizes),
        np.stack(columns, axis=-1) / goal_value[:, :, None],
    )


def _of_momenta(
    momenta: Any, temperature: Any, mass: Any, layout: Layout | None
) -> tuple[tuple[str, ...], F, F]:
    """As `_of_run`, of momenta (draws, D) or (draws, R, D)."""
    p = np.asarray(momenta, np.float64)
    if p.ndim == 2:
        p = p[:, None, :]
    if p.ndim != 3 or p.shape[0] < 4 or not np.isfinite(p).all():
        raise PotentialError(
            f"momenta have shape {np.shape(momenta)}: expected finite (draws, D) or "
            "(draws, R, D), four draws or more"
        )
    if temperature is None:
        raise PotentialError("momenta given as an array need temperature=")
    t = np.broadcast_to(np.asarray(temperature, np.float64), (p.shape[1],))
    if not (np.isfinite(t).all() and (t > 0).all()):
        raise PotentialError(f"temperature={temperature!r}: expected values > 0")
    twice = p**2 / np.asarray(mass, np.float64) / t[:, None]
    names, parts = ["all"], [slice(None)]
    if layout is not None and len(layout) > 1:
        names += layout
        parts += [where for where, _ in layout.values()]
    columns = [twice[..., part] for part in parts]
    return (
        tuple(names),
        np.array([float(c.shape[-1]) for c in columns]),
        np.stack([c.mean(-1) for c in columns], axis=-1),
    )
