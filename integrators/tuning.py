r"""What a warm-up adapts: step lengths to a target acceptance, masses to variances.

After the warm-up everything is frozen, so that what is sampled later is exact.  All
that adaptation has learnt is in `Tuner.variables` and goes into the restart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators.companion import Context

__all__ = [
    "Covariances",
    "StepTuner",
    "Tuning",
    "Variances",
    "set_masses",
    "windows",
]

_GAIN, _OFFSET, _POWER = 0.05, 10.0, 0.75
"""gamma, t_0 and kappa of Hoffman and Gelman."""
_FIRST, _START, _END = 25, 75, 50
"""Steps of the first window of masses, and before and after all windows, at most."""
_SHRINK = 5.0
"""Samples that the mean of all logarithms of variances counts for in each."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a word with a Metropolis test is tuned.

    Attributes
    ----------
    target : float or None
        Acceptance to reach in the warm-up by changing ``dt``.
    warmup : int
        Steps of the warm-up.
    masses : bool or "dense"
        Whether the warm-up also sets the masses, to T over each parameter's variance,
        or to T times the inverse of their covariance.
    shared : bool
        One step length for all replicas, from their mean acceptance.
    fewest : int
        Turns of the part in brackets are drawn uniformly from here to the word's; 0:
        always the word's.
    block : int
        Parameters moved together, a block a step; 0: all.
    depth : int
        Most doublings of a trajectory that ends by itself; 0: lengths are given.
    """

    target: float | None = None
    warmup: int = 0
    masses: bool | str = False
    shared: bool = False
    fewest: int = 0
    block: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        if self.target is not None and not 0 < self.target < 1:
            raise SchemeError(
                f"target_acceptance={self.target!r}: expected a number between 0 and "
                "1, as 0.8"
            )
        for label in ("warmup", "block", "depth"):
            value = getattr(self, label)
            if isinstance(value, bool) or int(value) != value or value < 0:
                raise SchemeError(f"{label}={value!r}: expected an integer >= 0")
        if self.masses not in (False, True, "dense"):
            raise SchemeError(
                f"adapt_mass={self.masses!r}: expected True, False or 'dense'"
            )
        if self.masses and self.warmup < 20:
            raise SchemeError(
                f"warmup={self.warmup}: masses need a warm-up of 20 steps or more; "
                "pass warmup=500, or adapt_mass=False"
            )

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return asdict(self)

    @classmethod
    def of(
        cls, target: float | None, warmup: int | None, default: float, **more: Any
    ) -> Tuning:
        """Settings where a target asks for a warm-up, and a warm-up for a target."""
        if target is None and not warmup:
            return cls(None, 0, **more)
        if warmup == 0:
            raise SchemeError(
                f"warmup=0 with target_acceptance={target!r}: the step is tuned in the "
                "warm-up; pass warmup=500, or target_acceptance=None to keep dt"
            )
        return cls(
            default if target is None else float(target),
            500 if warmup is None else warmup,
            **more,
        )


class StepTuner:
    r"""Step lengths by dual averaging: the acceptance a goes to its target.

    With m updates done and the mean error
    :math:`\bar H \leftarrow (1 - \frac{1}{m + t_0})\bar H + \frac{\delta - a}{m+t_0}`

    .. math:: \ln\epsilon = \mu - \frac{\sqrt m}{\gamma}\bar H,\qquad
              \ln\bar\epsilon \leftarrow m^{-\kappa}\ln\epsilon
              + (1 - m^{-\kappa})\ln\bar\epsilon,\qquad \mu = \ln 10\epsilon_0 .

    Parameters
    ----------
    first : (R,) float64
        The step to begin with.
    target : float
    shared : bool
        One step for all, from the mean of their acceptances.

    Attributes
    ----------
    variables : dict of (R,) float64
        What a restart needs.

    References
    ----------
    M. D. Hoffman, A. Gelman, J. Mach. Learn. Res. 15, 1593 (2014), section 3.2.
    """

    def __init__(
        self, first: npt.NDArray[np.float64], target: float, shared: bool
    ) -> None:
        log = np.log(first)
        if shared:
            log[:] = log.mean()
        self._target, self._shared = target, shared
        self.variables = {
            "log_dt": log,
            "log_dt_mean": log.copy(),
            "dt_centre": log + np.log(10.0),
            "dt_error": np.zeros_like(log),
            "dt_count": np.zeros_like(log),
        }

    @property
    def step(self) -> npt.NDArray[np.float64]:
        """Present step lengths, (R,)."""
        step: npt.NDArray[np.float64] = np.exp(self.variables["log_dt"])
        return step

    def update(self, acceptance: npt.NDArray[np.float64]) -> None:
        """Learn from the acceptance probability of one test, (R,)."""
        v = self.variables
        if self._shared:
            acceptance = np.broadcast_to(acceptance.mean(), acceptance.shape)
        v["dt_count"] += 1
        m, error = v["dt_count"], v["dt_error"]
        error += (self._target - acceptance - error) / (m + _OFFSET)
        v["log_dt"][:] = v["dt_centre"] - np.sqrt(m) / _GAIN * error
        v["log_dt_mean"] += m**-_POWER * (v["log_dt"] - v["log_dt_mean"])

    def restart(self, factor: float) -> None:
        """Begin anew at the present mean step times ``factor``."""
        v = self.variables
        v["log_dt"][:] = v["log_dt_mean"] + np.log(factor)
        v["log_dt_mean"][:] = v["log_dt"]
        v["dt_centre"][:] = v["log_dt"] + np.log(10.0)
        v["dt_error"][:] = v["dt_count"][:] = 0

    def finish(self) -> None:
        """Take the averaged step from here on."""
        self.variables["log_dt"][:] = self.variables["log_dt_mean"]


class Variances:
    r"""Running variances over steps and replicas, each weighted by 1/T.

    Parameters
    ----------
    xp : module
    size : int
        D.

    Attributes
    ----------
    variables : dict of arrays
        What a restart needs.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, Am. Stat. 37, 242 (1983),
    doi:10.1080/00031305.1983.10483115, eq. (2.1).
    """

    def __init__(self, xp: Any, size: int) -> None:
        self._xp = xp
        self.variables = {
            "mass_mean": xp.zeros(size, np.float64),
            "mass_square": xp.zeros(size, np.float64),
            "mass_count": xp.zeros(2, np.float64),
        }

    def update(self, positions: Any, temperature: npt.NDArray[np.float64]) -> None:
        """Learn from the positions (R, D) of replicas at temperatures (R,)."""
        xp, v = self._xp, self.variables
        weight = xp.asarray(1 / temperature)
        total = weight.sum()
        q = positions.astype(np.float64)
        mean = weight @ q / total
        q -= mean
        square = weight @ (q * q)
        before, count = v["mass_count"][0], v["mass_count"]
        shift = mean - v["mass_mean"]
        v["mass_mean"] += shift * (total / (before + total))
        v["mass_square"] += square + shift * shift * (before * total / (before + total))
        count[0] += total
        count[1] += q.shape[0]

    def take(self) -> Any:
        """Variance over temperature of each parameter, (D,); then begin anew.

        A few samples' worth of the mean over all parameters is mixed into the
        logarithm; parameters that have not moved get that mean.
        """
        xp, v = self._xp, self.variables
        n = v["mass_count"][1]
        # A weighted sum of squares over n: the mean of (q - mean)^2 / T.
        variance = v["mass_square"] / n
        moved = variance > 0
        log = xp.log(xp.where(moved, variance, 1.0))
        mean = log.sum() / xp.maximum(moved.sum(), 1)
        log = xp.where(moved, log, mean)
        for array in v.values():
            array[...] = 0
        return xp.exp((n * log + _SHRINK * mean) / (n + _SHRINK))


class Covariances:
    r"""Running covariances over steps and replicas, each weighted by 1/T.

    Parameters and ``variables`` as `Variances`.
    """

    def __init__(self, xp: Any, size: int) -> None:
        self._xp = xp
        self.variables = {
            "mass_mean": xp.zeros(size, np.float64),
            "mass_square": xp.zeros((size, size), np.float64),
            "mass_count": xp.zeros(2, np.float64),
        }

    def update(self, positions: Any, temperature: npt.NDArray[np.float64]) -> None:
        """Learn from the positions (R, D) of replicas at temperatures (R,)."""
        xp, v = self._xp, self.variables
        weight = xp.asarray(1 / temperature)
        total = weight.sum()
        q = positions.astype(np.float64)
        mean = weight @ q / total
        q -= mean
        before, count = v["mass_count"][0], v["mass_count"]
        shift = mean - v["mass_mean"]
        v["mass_square"] += (q.T * weight) @ q
        share = before * total / (before + total)
        v["mass_square"] += share * shift[:, None] * shift
        v["mass_mean"] += shift * (total / (before + total))
        count[0] += total
        count[1] += q.shape[0]

    def take(self) -> Any:
        """Covariance over temperature, (D, D); then begin anew.

        Of fewer samples than twice the parameters the diagonal alone, and always a
        little of it, so that the matrix has an inverse.
        """
        xp, v = self._xp, self.variables
        n = v["mass_count"][1]
        covariance = v["mass_square"] / n
        diagonal = covariance.diagonal().copy()
        moved = diagonal > 0
        diagonal = xp.where(moved, diagonal, xp.where(moved, diagonal, 0.0).max())
        for array in v.values():
            array[...] = 0
        if n < 2 * len(diagonal):
            return xp.diag(diagonal)
        small = 1e-3 * _SHRINK
        return (n * covariance + small * xp.diag(diagonal)) / (n + small)


def set_masses(context: Context, inverse: Any) -> Any:
    """Give every parameter its mass, 1 / ``inverse``; momenta keep their energy.

    Returns
    -------
    (D,) float64
        Ratio of the new masses to the old.
    """
    xp, state = context.backend.xp, context.state
    ratio = context.inverse_mass / inverse
    state.momenta *= xp.sqrt(ratio).astype(state.momenta.dtype)
    context.inverse_mass[...] = inverse
    before = state.sums[0].copy()
    context.engine.kinetic(state.momenta, state.sums[0])
    state.sums[2] += 0.5 * (state.sums[0] - before)
    return ratio


def windows(warmup: int) -> tuple[int, tuple[int, ...]]:
    """When masses are learnt: the first step, and the end of each window.

    Windows double in length; steps before and after them tune ``dt`` alone.

    Examples
    --------
    >>> windows(1000)
    (75, (100, 150, 250, 450, 950))
    """
    start, last = min(_START, 15 * warmup // 100), warmup - min(_END, warmup // 10)
    ends, length = [], min(_FIRST, max(5, (last - start) // 3))
    end = start
    while end < last:
        end += length
        length *= 2
        # A window that would leave less than the next one takes all.
        if end + length > last:
            end = last
        ends.append(end)
    return start, tuple(ends)
