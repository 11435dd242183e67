"""Order of an integrator: how fast its error falls with the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mdnet.analysis.results import with_error
from mdnet.errors import SchemeError
from mdnet.validate._runs import (
    F,
    Make,
    draws_noise,
    energy_kept,
    largest_step,
    positive,
    prepare,
    report,
    simulate,
    theory,
)

if TYPE_CHECKING:
    from mdnet.typing import Potential

__all__ = ["Order", "order", "power"]


@dataclass(frozen=True, slots=True)
class Order:
    """Order of an integrator, measured.

    Attributes
    ----------
    passed : bool
        Whether ``order`` is within ``margin`` of ``expected``.
    order, stderr : float
        Slope of log error against log dt, and its standard error from the scatter
        about the line.
    expected : int
    margin : float
    dt, error : ndarray, (n,)
        Steps, and the error at each (mean over replicas).
    measure : str
        "energy" or "end".
    warnings : tuple of str
    """

    passed: bool
    order: float
    stderr: float
    expected: int
    margin: float
    dt: F
    error: F
    measure: str
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return report(
            "order",
            self.passed,
            f"{with_error(self.order, self.stderr)}, expected {self.expected} ± "
            f"{self.margin:g} ({self.measure} error)",
            *(f"dt {h:.4g}: {e:.3e}" for h, e in zip(self.dt, self.error, strict=True)),
            *(f"! {w}" for w in self.warnings),
        )


def power(dt: F, error: F) -> tuple[float, float]:
    """Slope of log error against log dt, and its standard error."""
    x, y = np.log(dt), np.log(error)
    x = x - x.mean()
    slope = float((x * y).sum() / (x * x).sum())
    rest = y - y.mean() - slope * x
    freedom = max(len(x) - 2, 1)
    return slope, float(np.sqrt((rest**2).sum() / freedom / (x * x).sum()))


def order(
    integrator_factory: Make,
    potential: Potential,
    expected: int | None = None,
    *,
    dt: Any = None,
    time: float | None = None,
    measure: Literal["energy", "end"] = "energy",
    positions: Any = None,
    replicas: int = 8,
    seed: int = 0,
    margin: float = 0.25,
) -> Order:
    r"""Measure the order p of an integrator without noise: error ~ dt^p.

    At a fixed total time, in double precision,

    - "energy": the largest :math:`|E(t) - E(0)|` of the path, E being what the
      integrator should conserve (see `conserved`);
    - "end": the error of the positions at the end.  The reference is `Omelyan4` at a
      quarter of the smallest step; for integrators with friction, which follow another
      equation, the same integrator at half of each step.

    Parameters
    ----------
    integrator_factory : callable
        ``dt -> integrator``, such as `integrators.VelocityVerlet`.
    potential : Potential
        Smooth: the kinks of ReLU bring every order down to 1 to 1.7.
    expected : int, optional
        Order to be found; what the integrator says of itself (`Scheme.order`) if not
        given.
    dt : float or sequence, optional
        Steps, or the largest of four a factor sqrt(2) apart; a twentieth of the
        stability limit at the start if not given.
    time : float, optional
        Total time; eighty of the largest steps if not given.
    measure : {"energy", "end"}
    positions : (R, D) or (D,) array, optional
        Start; drawn from the potential if not given.  Momenta are drawn at the
        integrator's temperature.
    replicas, seed : int
    margin : float
        Half width of what passes.

    Raises
    ------
    SchemeError
        An integrator that draws noise: its order is that of averages, see
        `step_size_convergence`.

    References
    ----------
    E. Hairer, C. Lubich, G. Wanner, "Geometric Numerical Integration", 2nd ed. (2006),
    doi:10.1007/3-540-30666-8, section II.1.

    Examples
    --------
    >>> from mdnet import integrators, potentials, validate
    >>> U = potentials.DoubleWell(size=5)
    >>> found = validate.order(integrators.VelocityVerlet, U)
    >>> found.passed, round(found.order, 1)
    (True, 2.0)
    """
    if measure not in ("energy", "end"):
        raise SchemeError(f"measure={measure!r}: expected 'energy' or 'end'")
    q, p, probe = prepare(integrator_factory, potential, replicas, positions, seed)
    if dt is None:
        dt = 0.05 * largest_step(potential, probe, q, seed)
    ladder = np.atleast_1d(np.asarray(dt, np.float64))
    if ladder.size == 1:
        ladder = ladder[0] / 2 ** (np.arange(4) / 2)
    ladder = np.sort(ladder)[::-1]
    if ladder.size < 3 or not (np.isfinite(ladder).all() and ladder[-1] > 0):
        raise SchemeError(f"dt={dt!r}: expected one step > 0, or three and more")
    duration = 80 * ladder[0] if time is None else positive("time", time)
    counts = np.maximum(np.round(duration / ladder).astype(int), 1)
    ladder = duration / counts
    first = integrator_factory(float(ladder[0]))
    if draws_noise(potential, first, q, p):
        raise SchemeError(
            f"{first.name} on this potential draws noise (a bath, a proposal or a "
            "minibatch): its paths have no order; use "
            "validate.step_size_convergence for averages, or temperature=0 with "
            'measure="end"'
        )
    warnings: list[str] = []
    if expected is None:
        expected = theory(probe)
    measured = _energy_errors if measure == "energy" else _end_errors
    error, floor = measured(integrator_factory, potential, q, p, ladder, counts)
    if (error <= floor).any():
        slope, stderr = float("nan"), float("nan")
        warnings.append("errors are at rounding: take larger steps")
    else:
        slope, stderr = power(ladder, error)
        if expected is None:
            expected = max(round(slope), 1)
            warnings.append(
                f"{probe.name} claims no order: compared with the nearest whole "
                "number; pass expected="
            )
    return Order(
        passed=bool(abs(slope - (expected or 0)) <= margin),
        order=slope,
        stderr=stderr,
        expected=int(expected or 0),
        margin=margin,
        dt=ladder,
        error=error,
        measure=measure,
        warnings=tuple(warnings),
    )


def _energy_errors(
    make: Make, potential: Potential, q: F, p: F, steps: F, counts: Any
) -> tuple[F, float]:
    """Largest energy error of each step, and where rounding hides it."""
    out, scale = [], 0.0
    for h, n in zip(steps, counts, strict=True):
        sim = simulate(potential, make(float(h)), len(q), q, p)
        begin = energy_kept(sim)
        largest = np.zeros(len(q))
        for _ in range(int(n)):
            sim.run(1)
            np.maximum(largest, np.abs(energy_kept(sim) - begin), out=largest)
        out.append(float(largest.mean()))
        scale = max(
            scale,
            float(np.abs(begin).max()),
            float(sim.scalars()["kinetic_energy"].max()),
        )
    return np.array(out), 1e3 * np.finfo(float).eps * scale


def _end_errors(
    make: Make, potential: Potential, q: F, p: F, steps: F, counts: Any
) -> tuple[F, float]:
    """Error of the positions at the end for each step, and where rounding hides it."""
    from mdnet.integrators import Omelyan4

    def end(integrator: Any, n: int) -> F:
        sim = simulate(potential, integrator, len(q), q, p)
        sim.run(n)
        return np.array(sim.state.positions)

    last = make(float(steps[-1]))
    scheme = getattr(last, "scheme", None)
    exact = None
    if scheme is not None and not scheme.stochastic:
        fine = Omelyan4(dt=float(steps[-1]) / 4, mass=last.mass)
        exact = end(fine, 4 * int(counts[-1]))
    out = []
    for h, n in zip(steps, counts, strict=True):
        here = end(make(float(h)), int(n))
        there = end(make(float(h) / 2), 2 * int(n)) if exact is None else exact
        out.append(float(np.linalg.norm(here - there, axis=1).mean()))
    return np.array(out), 1e3 * np.finfo(float).eps * float(np.abs(here).max())
