"""Averages against the step: what a finite dt costs, and the limit dt to 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.results import with_error
from mdnet.analysis.timeseries import column_means
from mdnet.errors import SchemeError
from mdnet.integrators.scheme import Scheme
from mdnet.validate._runs import (
    F,
    Make,
    Precision,
    largest_step,
    positive,
    prepare,
    report,
    simulate,
    theory,
)

if TYPE_CHECKING:
    from mdnet.typing import Potential

__all__ = ["StepSizeConvergence", "step_size_convergence"]

_RECORDS = 500  # of each run
_MISFIT = 1e-4  # p below which A + c dt^p is no fit


@dataclass(frozen=True, slots=True)
class StepSizeConvergence:
    """An average at several steps, and extrapolated to none.

    Attributes
    ----------
    passed : bool
        Whether the bias at the largest step is within ``tolerance`` of the limit and
        ``sigma`` standard errors, and the averages follow the power of dt.
    dt : ndarray, (n,)
    value, stderr : ndarray, (n,)
        The average at each step.
    limit, limit_error : float
        At dt = 0.
    bias, bias_error : float
        At the largest step: value less limit, as fitted.
    power : float
        Of dt, in the fit.
    p_value : float
        Of the fit.
    tolerance, sigma : float
    warnings : tuple of str
    """

    passed: bool
    dt: F
    value: F
    stderr: F
    limit: float
    limit_error: float
    bias: float
    bias_error: float
    power: float
    p_value: float
    tolerance: float
    sigma: float
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return report(
            "step size",
            self.passed,
            f"bias {with_error(self.bias, self.bias_error)} at dt = {self.dt[0]:.4g} "
            f"({100 * self.bias / self.limit if self.limit else np.nan:.2f} % of the "
            f"limit; allowed {100 * self.tolerance:g} % and {self.sigma:g} sigma)",
            *(
                f"dt {h:.4g}: {with_error(a, e)}"
                for h, a, e in zip(self.dt, self.value, self.stderr, strict=True)
            ),
            f"dt 0: {with_error(self.limit, self.limit_error)} "
            f"(fit of dt^{self.power:g}, p = {self.p_value:.2g})",
            *(f"! {w}" for w in self.warnings),
        )


def step_size_convergence(
    integrator_factory: Make,
    potential: Potential,
    observable: str | Callable[[Any], Any] = "potential_energy",
    dt: float | None = None,
    *,
    time: float | None = None,
    discard: float = 0.2,
    halvings: int = 2,
    power: float | None = None,
    positions: Any = None,
    replicas: int = 16,
    seed: int = 0,
    precision: Precision = "single",
    tolerance: float = 0.01,
    sigma: float = 4.0,
) -> StepSizeConvergence:
    r"""Measure an average at dt, dt/2, dt/4 and its limit: is dt small enough.

    Least squares of :math:`A(dt) = A_0 + c\,dt^p` (Richardson's extrapolation, with
    statistical errors from autocorrelation and replicas).

    Parameters
    ----------
    integrator_factory : callable
        ``dt -> integrator``, with a bath or a proposal.
    potential : Potential
    observable : str or callable
        One of `Simulation.scalars`, or a function of the positions, (R, D) -> (R,).
    dt : float, optional
        The largest step; a third of the stability limit at the start if not given.
    time : float, optional
        Sampled at each step, by each replica; two thousand ``dt`` if not given.
    discard : float
        Burn-in, as a share of ``time``.
    halvings : int
        Of the step, >= 2.
    power : float, optional
        p: 2 for palindromes and their cyclic shifts (BAOA), else the word's order; half
        of it for overdamped methods, whose dt is a time squared.
    positions : (R, D) or (D,) array, optional
        Start, the same at every step; drawn from the potential if not given.
    replicas, seed : int
    precision : {"single", "mixed", "double"}
    tolerance : float
        Bias to be tolerated, relative to the limit.
    sigma : float

    References
    ----------
    B. Leimkuhler, C. Matthews, G. Stoltz, IMA J. Numer. Anal. 36, 13 (2016),
    doi:10.1093/imanum/dru056.

    Examples
    --------
    >>> from mdnet import integrators, potentials, validate
    >>> U = potentials.Harmonic(stiffness=1.0, size=200)
    >>> found = validate.step_size_convergence(integrators.OBABO, U, dt=1.0)
    >>> found.passed, round(found.bias / found.limit, 1)  # 1/(1 - 1/4) at dt = 1
    (False, 0.3)
    >>> bool(validate.step_size_convergence(integrators.BAOAB, U, dt=1.0))
    True
    """
    from scipy.special import chdtrc

    if halvings < 2:
        raise SchemeError(f"halvings={halvings!r}: expected a number >= 2")
    if not discard >= 0:
        raise SchemeError(f"discard={discard!r}: expected a number >= 0")
    q, _, probe = prepare(integrator_factory, potential, replicas, positions, seed)
    if dt is None:
        dt = largest_step(potential, probe, q, seed) / 3
    ladder: F = positive("dt", dt) * np.float64(0.5) ** np.arange(halvings + 1)
    duration = 2000 * ladder[0] if time is None else positive("time", time)
    count = max(round(duration / ladder[0]), 8)
    stride = max(count // _RECORDS, 1)
    p = weak_order(probe) if power is None else positive("power", power)
    values, errors = [], []
    for k, h in enumerate(ladder):
        sim = simulate(
            potential,
            integrator_factory(float(h)),
            replicas,
            q,
            None,
            seed + k,
            precision,
        )
        sim.run(round(discard * count) * 2**k)
        rows = []
        for _ in range(count // stride):
            sim.run(stride * 2**k)
            rows.append(_observe(sim, observable, replicas))
        mean = column_means(np.array(rows)[:, :, None])
        values.append(float(mean.value[0]))
        errors.append(float(mean.stderr[0]))
    value, stderr = np.array(values), np.array(errors)
    if not (np.isfinite(stderr).all() and (stderr > 0).all()):
        raise SchemeError(
            f"{observable!r} does not fluctuate, or is not finite: an average has no "
            "error; expected an integrator with a bath"
        )
    design = np.stack([np.ones_like(ladder), (ladder / ladder[0]) ** p], axis=1)
    scaled = design / stderr[:, None]
    covariance = np.linalg.inv(scaled.T @ scaled)
    limit, bias = covariance @ scaled.T @ (value / stderr)
    misfit = (((value - design @ [limit, bias]) / stderr) ** 2).sum()
    chance = float(chdtrc(halvings - 1, misfit))
    limit_error, bias_error = np.sqrt(np.diag(covariance))
    warnings = []
    if chance < _MISFIT:
        warnings.append(
            f"the averages do not follow dt^{p:g}: the largest step is too large for "
            "the expansion, or the runs have not equilibrated"
        )
    allowed = tolerance * abs(limit) + sigma * bias_error
    if sigma * bias_error > 5 * tolerance * abs(limit):
        warnings.append("the bias is poorly known: pass a longer time=")
    return StepSizeConvergence(
        passed=bool(abs(bias) <= allowed and chance >= _MISFIT),
        dt=ladder,
        value=value,
        stderr=stderr,
        limit=float(limit),
        limit_error=float(limit_error),
        bias=float(bias),
        bias_error=float(bias_error),
        power=float(p),
        p_value=chance,
        tolerance=tolerance,
        sigma=sigma,
        warnings=tuple(warnings),
    )


def _observe(
    sim: Any, observable: str | Callable[[Any], Any], replicas: int
) -> np.ndarray[Any, Any]:
    """The observable of each replica, (R,) float64."""
    if callable(observable):
        found = np.asarray(observable(sim.state.positions), np.float64)
    else:
        scalars = sim.scalars()
        if observable not in scalars:
            raise SchemeError(
                f"observable={observable!r}: expected one of {', '.join(scalars)}, or "
                "a function of the positions"
            )
        found = np.asarray(scalars[observable], np.float64)
    if found.shape != (replicas,):
        raise SchemeError(
            f"the observable has shape {found.shape}: expected ({replicas},), one "
            "value a replica"
        )
    return found


def weak_order(integrator: Any) -> float:
    """Power of dt that the errors of averages fall with."""
    scheme = getattr(integrator, "scheme", None)
    found = float(theory(integrator) or 2)
    if scheme is not None:
        operations = tuple(scheme.operations)
        for i, (letter, share) in enumerate(operations):
            # The step seen from the middle of an operation.
            half = ((letter, share / 2),)
            turned = half + operations[i + 1 :] + operations[:i] + half
            if Scheme(turned).palindromic:
                found = max(found, 2.0)
    return found if getattr(integrator, "length", "dt") == "dt" else found / 2
