"""Runs whose replicas exchange temperatures: swaps, trips, and series by temperature.

References
----------
S. Syed, A. Bouchard-Côté, G. Deligiannidis, A. Doucet, J. R. Stat. Soc. B 84, 321
(2022), doi:10.1111/rssb.12464 (barrier and round trips).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.records import Window, frame_steps, read
from mdnet.errors import TrajectoryError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["ByTemperature", "Exchanges", "by_temperature", "exchanges"]


@dataclass(frozen=True, slots=True)
class ByTemperature:
    """A series put in order of temperature.

    Attributes
    ----------
    temperatures : (K,) ndarray
        At the end of the run.
    value : (T, K, M, ...) ndarray
        M replicas at each temperature at any time.
    step : (T,) ndarray
    """

    temperatures: np.ndarray[Any, Any]
    value: np.ndarray[Any, Any]
    step: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Exchanges:
    """How replicas moved over the ladder of temperatures.

    Attributes
    ----------
    temperatures : (K,) ndarray
    attempts, accepts : (K - 1,) ndarray
        Swaps between neighbours, since warm-up ended.
    acceptance : (K - 1,) ndarray
    round_trips : (R,) ndarray
        From the lowest temperature to the highest and back, of each replica.
    barrier : float
        Sum of the rejection rates: of the order of the temperatures that it takes.
    """

    temperatures: np.ndarray[Any, Any]
    attempts: np.ndarray[Any, Any]
    accepts: np.ndarray[Any, Any]
    acceptance: np.ndarray[Any, Any]
    round_trips: np.ndarray[Any, Any]
    barrier: float


def _ladder(run: Run, caller: str) -> tuple[Window, np.ndarray[Any, Any]]:
    """Rung of every replica (T, R), and the last temperature of each rung."""
    rung = read(run, "rung", caller)
    last = rung.value[-1].astype(int)
    target = read(run, "target_temperature", caller).value[-1]
    ladder = np.empty(last.max() + 1)
    ladder[last] = target
    return rung, ladder


def by_temperature(run: Run, name: str = "potential_energy") -> ByTemperature:
    """Put a recorded series, or "positions", in order of temperature.

    Parameters
    ----------
    run : Run
        Of `integrators.ReplicaExchange`.
    name : str

    Raises
    ------
    TrajectoryError
        A run without exchanges, or without the series.

    Examples
    --------
    >>> cold = by_temperature(run, "positions").value[:, 0]       # doctest: +SKIP
    """
    rung, ladder = _ladder(run, "by_temperature()")
    if name == "positions":
        found = frame_steps(run)
        if found is None:
            raise TrajectoryError("by_temperature(): the run holds no positions")
        value, step = np.asarray(run.positions[:]), found[0]
    else:
        series = read(run, name, "by_temperature()")
        value, step = series.value, series.step
    at = np.searchsorted(rung.step, step)
    at = np.minimum(at, len(rung.step) - 1)
    if not np.array_equal(rung.step[at], step):
        raise TrajectoryError(
            f"by_temperature(): {name!r} was recorded at steps where the temperatures "
            "were not; take every= as a multiple of observables_every="
        )
    order = np.argsort(rung.value[at], axis=1, kind="stable")
    index = order.reshape(order.shape + (1,) * (value.ndim - 2))
    sorted_ = np.take_along_axis(value, index, axis=1)
    shape = (len(step), ladder.size, -1, *value.shape[2:])
    return ByTemperature(ladder, sorted_.reshape(shape), np.asarray(step))


def exchanges(run: Run) -> Exchanges:
    """Count swaps and round trips of a run with replica exchange.

    Parameters
    ----------
    run : Run
        Of `integrators.ReplicaExchange`.

    Raises
    ------
    TrajectoryError
        A run without exchanges.
    """
    _, ladder = _ladder(run, "exchanges()")
    attempts = read(run, "swap_attempts").value[-1].sum(0)
    accepts = read(run, "swap_accepts").value[-1].sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        acceptance = accepts / attempts
    trips = read(run, "round_trips").value[-1].astype(int)
    return Exchanges(
        temperatures=ladder,
        attempts=attempts.astype(int),
        accepts=accepts.astype(int),
        acceptance=acceptance,
        round_trips=trips,
        barrier=float(np.nansum(1 - acceptance)),
    )
