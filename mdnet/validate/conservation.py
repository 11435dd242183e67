"""The energy that a run should keep: its drift, its fluctuation against the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.results import with_error
from mdnet.errors import SchemeError
from mdnet.validate._runs import (
    F,
    Precision,
    at_step,
    energy_kept,
    report,
    simulate,
    theory,
)
from mdnet.validate.convergence import power

if TYPE_CHECKING:
    from mdnet.typing import Potential

__all__ = ["Conservation", "conserved"]

_READINGS = 200  # of the energy in a run at the largest step
_SIGMA = 5.0  # standard errors over replicas that a drift must exceed
_SHARE = 0.2  # and share of the largest energy error


@dataclass(frozen=True, slots=True)
class Conservation:
    """How well an energy is conserved.

    Attributes
    ----------
    passed : bool
        No drift at any step, and the fluctuation falls with the expected power of dt
        or, where the largest step is large, faster.
    dt : ndarray, (n,)
    fluctuation : ndarray, (n,)
        Largest |E - E(0)| of the run at each step, mean over replicas.
    drift, drift_error : ndarray, (n,)
        Energy gained per unit time: late half against early half, mean over replicas
        and its standard error.
    order : float
        Power of dt that the fluctuation falls with.
    expected : int
    margin : float
    scale : float
        Mean kinetic energy, to compare with.
    time : float
        Total time of each run.
    warnings : tuple of str
    """

    passed: bool
    dt: F
    fluctuation: F
    drift: F
    drift_error: F
    order: float
    expected: int
    margin: float
    scale: float
    time: float
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return report(
            "conserved energy",
            self.passed,
            f"fluctuation ~ dt^{self.order:.2f}, expected {self.expected} - "
            f"{self.margin:g} at least; kinetic energy {self.scale:.4g}",
            *(
                f"dt {h:.4g}: fluctuation {f:.2e}, drift {with_error(d, e)} per time"
                for h, f, d, e in zip(
                    self.dt, self.fluctuation, self.drift, self.drift_error, strict=True
                )
            ),
            *(f"! {w}" for w in self.warnings),
        )


def conserved(
    integrator: Any,
    potential: Potential,
    steps: int = 1000,
    *,
    halvings: int = 2,
    expected: int | None = None,
    positions: Any = None,
    replicas: int = 16,
    seed: int = 0,
    precision: Precision = "double",
    margin: float = 0.3,
) -> Conservation:
    r"""Follow the energy that an integrator should conserve, at dt, dt/2, dt/4.

    - Words without a bath: the total energy.  It swings by O(dt^p) without a drift.
    - Words with a bath: the total energy less the heat, which is the sum of the
      integration errors so far (Bussi and Parrinello).
    - Integrators with a conserved energy of their own (Nosé-Hoover chains): that.

    Parameters
    ----------
    integrator : Splitting or alike
        With a number for its dt.
    potential : Potential
        On all data: a minibatch conserves nothing.
    steps : int
        At ``integrator.dt``; smaller steps make more of them in the same time.
    halvings : int
        How often to halve the step, >= 1.
    expected : int, optional
        Power of dt; the integrator's order, or 2, if not given.
    positions : (R, D) or (D,) array, optional
        Start; drawn from the potential if not given.
    replicas, seed : int
        Drift is judged by the scatter of the replicas.
    precision : {"single", "mixed", "double"}
    margin : float
        By how much the power may fall short.

    References
    ----------
    G. Bussi, M. Parrinello, Phys. Rev. E 75, 056707 (2007),
    doi:10.1103/PhysRevE.75.056707, section III.

    Examples
    --------
    >>> from mdnet import integrators, potentials, validate
    >>> U = potentials.DoubleWell(size=20)
    >>> bool(validate.conserved(integrators.VelocityVerlet(dt=0.05), U, steps=200))
    True
    """
    for name, value, least in (("steps", steps, 8), ("halvings", halvings, 1)):
        if value < least:
            raise SchemeError(f"{name}={value!r}: expected a number >= {least}")
    if replicas < 2:
        raise SchemeError(f"replicas={replicas!r}: expected >= 2, to judge a drift")
    if expected is None:
        expected = theory(integrator) or 2
    begin = simulate(potential, integrator, replicas, positions, None, seed)
    q, p = begin.state.positions.copy(), begin.state.momenta.copy()
    steps -= steps % 8
    stride = max(steps // _READINGS, 1)
    count = steps // stride
    found = []
    for k in range(halvings + 1):
        sim = simulate(
            potential, at_step(integrator, 0.5**k), replicas, q, p, seed, precision
        )
        energy = [energy_kept(sim)]
        kinetic = 0.0
        for _ in range(count):
            sim.run(stride * 2**k)
            energy.append(energy_kept(sim))
            kinetic += float(sim.scalars()["kinetic_energy"].mean()) / count
        found.append(_judge(np.array(energy), sim.time))
    duration = sim.time
    fluctuation, drift, error, drifts = (np.array(a) for a in zip(*found, strict=True))
    dt: F = np.max(integrator.dt) * np.float64(0.5) ** np.arange(halvings + 1)
    warnings = [
        f"the energy drifts at dt={h:.4g}"
        for h, bad in zip(dt, drifts, strict=True)
        if bad
    ]
    if (fluctuation <= 1e3 * np.finfo(float).eps * kinetic).any():
        slope = float("nan")
        warnings.append("the fluctuation is at rounding: take a larger dt")
    else:
        slope, _ = power(dt, fluctuation)
        if slope > expected + margin:
            warnings.append(
                "the fluctuation falls faster than it should: the largest step is "
                "beyond the expansion in dt"
            )
    return Conservation(
        passed=bool(slope >= expected - margin and not drifts.any()),
        dt=dt,
        fluctuation=fluctuation,
        drift=drift,
        drift_error=error,
        order=slope,
        expected=expected,
        margin=margin,
        scale=kinetic,
        time=duration,
        warnings=tuple(warnings),
    )


def _judge(energy: F, duration: float) -> tuple[float, float, float, bool]:
    """Fluctuation, drift and its error of energies (T, R), and whether it is one."""
    error = energy - energy[0]
    largest = float(np.abs(error).max(0).mean())
    early, late = np.array_split(error, 2)
    gain = late.mean(0) - early.mean(0)  # what a drift gains in half the time
    mean = float(gain.mean())
    stderr = float(gain.std(ddof=1) / np.sqrt(gain.size))
    bad = abs(mean) > _SIGMA * stderr and abs(mean) > _SHARE * largest
    return largest, 2 * mean / duration, 2 * stderr / duration, bad
