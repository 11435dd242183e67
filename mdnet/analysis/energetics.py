"""Energy ledger and heat capacity: does energy add up, and how does it fluctuate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.records import BurnIn, Window, burn_in_step, read, target
from mdnet.analysis.results import Estimate
from mdnet.analysis.timeseries import column_means, equilibration
from mdnet.errors import PotentialError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["FirstLaw", "HeatCapacity", "first_law", "heat_capacity"]


@dataclass(frozen=True, slots=True)
class FirstLaw:
    """How well the energy ledger closes.

    Attributes
    ----------
    residual : float
        Largest residual of any replica and record, relative to ``scale``.
    replica_residual : ndarray, (R,)
        Largest of each replica.
    scale : ndarray, (R,)
        Largest energy, heat or work that each replica exchanged.
    tolerance : float
    closes : bool
        ``residual <= tolerance``.
    verdict : str
        "closes" or "open".
    heat_rate : Estimate
        Heat taken from the thermostat per unit time and replica (0 in equilibrium
        but for what the step-size error puts in).
    shadow_work : Estimate
        Work of the finite step per step and replica.
    warnings : tuple of str
    """

    residual: float
    replica_residual: np.ndarray[Any, Any]
    scale: np.ndarray[Any, Any]
    tolerance: float
    closes: bool
    verdict: str
    heat_rate: Estimate
    shadow_work: Estimate
    warnings: tuple[str, ...] = ()


def _rate(series: Window, grid: np.ndarray[Any, Any], start: int) -> Estimate:
    """Mean increment per unit of ``grid`` from ``start`` on, over (T, R)."""
    keep = series.step >= start
    x, t = series.value[keep], grid[keep].astype(float)
    if len(t) < 2:
        return Estimate(np.nan, np.nan, 0.0, "no increments", ("too few records",))
    span = np.diff(t)[:, None]
    # Increments weighted by their spans, so that the mean is the total over the time.
    out = column_means((np.diff(x, axis=0) / span * (span / span.mean()))[:, :, None])
    value, error, n = (float(a[0]) for a in (out.value, out.stderr, out.n_eff))
    return Estimate(value, error, n, "increments")


def first_law(
    run: Run, burn_in: BurnIn = "auto", *, tolerance: float = 1e-10
) -> FirstLaw:
    r"""Check that the energy ledger closes, record by record and replica by replica.

    .. math::
        K - K_0 = Q + W_{kick}, \qquad
        E - E_0 = Q + W_{protocol} + W_{shadow}.

    The first is the balance of the momenta, the second of the whole; the larger
    residual counts, divided by the largest energy that the replica exchanged.

    Parameters
    ----------
    run : Run
        With ``potential_energy``, ``kinetic_energy``, ``heat``, ``kick_work``,
        ``protocol_work`` and ``shadow_work`` on one grid.
    burn_in : "auto", int or float
        For the two rates only: closure is checked from the first record on.
    tolerance : float
        Largest relative residual that still closes; 1e-10 is what sums kept in
        float64 reach.

    Returns
    -------
    FirstLaw

    Raises
    ------
    TrajectoryError
        If a series is missing.
    PotentialError
        If they are not on one grid.
    """
    names = (
        "potential_energy",
        "kinetic_energy",
        "heat",
        "kick_work",
        "protocol_work",
        "shadow_work",
    )
    series = {name: read(run, name, "first_law()") for name in names}
    steps = series["heat"].step
    for name, one in series.items():
        if not np.array_equal(one.step, steps):
            raise PotentialError(
                f"series {name!r} has {len(one.step)} records on another grid than "
                f"'heat' with {len(steps)}: record both in the dense log"
            )
    change = {name: one.value - one.value[0] for name, one in series.items()}
    u, k = change["potential_energy"], change["kinetic_energy"]
    heat, kick = change["heat"], change["kick_work"]
    protocol, shadow = change["protocol_work"], change["shadow_work"]
    momenta = np.abs(k - heat - kick)
    whole = np.abs(u + k - heat - protocol - shadow)
    kinetic = series["kinetic_energy"].value
    scale = np.max(
        [np.abs(a).max(0) for a in (kinetic, u, k, heat, kick, protocol, shadow)],
        axis=0,
    )
    warnings: list[str] = []
    finite = np.isfinite(scale)
    if not finite.all():
        warnings.append(f"{int((~finite).sum())} replicas are not finite: left out")
    if not finite.any():
        raise PotentialError("no replica's ledger is finite: nothing to check")
    worst = np.maximum(momenta, whole).max(0)
    each = np.where(finite, worst / np.where(scale > 0, scale, 1.0), np.nan)
    residual = float(np.nanmax(each))
    if len(steps) < 2:
        warnings.append("one record only: nothing was exchanged yet")
    if not scale[finite].any():
        warnings.append("no energy was exchanged: an empty ledger always closes")
    if residual > tolerance:
        what = "heat + kick work" if momenta.max() >= whole.max() else "the total"
        warnings.append(
            f"the ledger is open by {residual:.1e} of the energy exchanged ({what}): "
            "some work or heat is not booked"
        )
    start, notes = burn_in_step(run, burn_in)
    kept = {
        name: Window(one.value[:, finite], one.step, one.time)
        for name, one in series.items()
    }
    return FirstLaw(
        residual=residual,
        replica_residual=each,
        scale=scale,
        tolerance=tolerance,
        closes=residual <= tolerance,
        verdict="closes" if residual <= tolerance else "open",
        heat_rate=_rate(kept["heat"], kept["heat"].time, start),
        shadow_work=_rate(kept["shadow_work"], steps, start),
        warnings=(*warnings, *notes),
    )


@dataclass(frozen=True, slots=True)
class HeatCapacity:
    """Heat capacity of the configurational part, in units of k_B.

    Attributes
    ----------
    value, stderr, n_eff : float
        All replicas together; the mean over replicas where temperatures differ.
    replica : Estimate
        (R,), each from its own fluctuations.
    temperature : ndarray, (R,)
        Temperature used for each replica.
    start : int
        First step analysed.
    method : str
    warnings : tuple of str
    """

    value: float
    stderr: float
    n_eff: float
    replica: Estimate
    temperature: np.ndarray[Any, Any]
    start: int
    method: str
    warnings: tuple[str, ...] = ()

    def __float__(self) -> float:
        return self.value


def _variances(x: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
    """Variance, its error and effective samples for columns of (T, R, K)."""
    centre = column_means(x)
    square = (x - centre.value) ** 2
    spread = column_means(square)
    # The mean was estimated from n_eff samples: their share of the variance is lost.
    bias = np.maximum(1.0 - 1.0 / np.maximum(centre.n_eff, 1.0 + 1e-9), 1e-3)
    return spread.value / bias, spread.stderr / bias, spread.n_eff


def heat_capacity(
    run: Run, burn_in: BurnIn = "auto", temperature: Any = None
) -> HeatCapacity:
    r"""Heat capacity from energy fluctuations.

    .. math:: C_V = \mathrm{Var}(U) / T^2 = d\langle U \rangle / dT,

    N/2 for N harmonic weights; the momenta would add another N/2.

    Parameters
    ----------
    run : Run
        With ``potential_energy``.
    burn_in : "auto", int or float
    temperature : float or (R,), optional
        Default: the recorded target, else the integrator's temperature.

    Returns
    -------
    HeatCapacity
        Its error takes the autocorrelation of the squared fluctuation into account.

    Raises
    ------
    TrajectoryError
        Without ``potential_energy``.
    PotentialError
        Without a temperature > 0.
    """
    start, notes = burn_in_step(run, burn_in)
    warnings = list(notes)
    series = read(run, "potential_energy", "heat_capacity()").since(start)
    t = _temperature(run, temperature, start, warnings)
    x = series.value
    alive = np.isfinite(x).all(0)
    if not alive.all():
        warnings.append(f"left out {int((~alive).sum())} replicas that are not finite")
    x, t = x[:, alive], t[alive]
    if x.shape[0] < 4:
        raise PotentialError(
            f"{x.shape[0]} records are left after the burn-in: expected 4 or more"
        )
    if burn_in != "auto":
        rest = equilibration(x)
        if rest.start > 0.1 * x.shape[0] or not rest.settled:
            warnings.append(
                "the potential energy has not equilibrated in the part analysed: its "
                "drift counts as fluctuation; use burn_in='auto' or run longer"
            )
    each, each_error, each_n = _variances(x[:, None, :])
    scale = t**2
    replica = Estimate(each / scale, each_error / scale, each_n, "Var(U)/T²")
    if np.ptp(t) <= 1e-9 * t.max():
        value, error, n = (float(a[0]) for a in _variances(x[:, :, None]))
        value, error = value / float(scale[0]), error / float(scale[0])
        if column_means(x[:, :, None]).disagree[0]:
            warnings.append("replicas disagree in their mean energy: not equilibrated")
    else:
        warnings.append("temperatures differ: the value is the mean over replicas")
        value = float(replica.value.mean())
        error = float(np.sqrt((replica.stderr**2).sum()) / t.size)
        n = float(np.sum(each_n))
    return HeatCapacity(
        value, error, n, replica, t, start, "Var(U)/T²", tuple(warnings)
    )


def _temperature(
    run: Run, given: Any, start: int, warnings: list[str]
) -> np.ndarray[Any, Any]:
    """Temperature of each replica, (R,)."""
    series = target(run, given, start)
    if series is None:
        raise PotentialError(
            "this run has no target temperature; pass temperature=, in units of U"
        )
    if not (series.value > 0).all():
        raise PotentialError(
            f"temperature {series.value.min():g}: expected > 0; pass temperature="
        )
    if np.ptp(series.value, axis=0).max() > 1e-9 * series.value.max():
        warnings.append("the temperature changes during the part analysed")
    return np.asarray(series.value.mean(0))
