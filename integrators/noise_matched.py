r"""SGHMC: a bath that gives as much less noise as the forces bring.

.. math:: dp = \tilde F\,dt - \gamma p\,dt + \sqrt{2(\gamma m T - \hat B)}\,dW,
          \quad \hat B = dt\,\hat V/2,

on the word BAOAB with the bath solved exactly: with :math:`c = e^{-\gamma h}` its noise
has the variance :math:`(1-c^2) m T - \hat V h^2 (1+c)^2/4` instead of
:math:`(1-c^2) m T`, so that the weights keep T exactly where :math:`h\omega \to 0`.  On
an oscillator (m = 1, stiffness k) with the true V,

.. math::
    \langle q^2\rangle k/T = 1 + \frac{h^2V}{T}\frac{1+c}{1-c}
    \Big(\frac1{4-h^2k} - \frac14\Big).

The estimate of V is measured on the way, for each weight; see
`mdnet.integrators.noise_estimate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.integrators import grouping
from mdnet.integrators.companion import Context
from mdnet.integrators.noise_estimate import Variance
from mdnet.integrators.splitting import KINDS, Splitting

__all__ = ["SGHMC", "MatchedLangevin"]


@dataclass(frozen=True, eq=False)
class MatchedLangevin(Splitting):
    """What `SGHMC` returns; parameters are described there."""

    window: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self)
        grouping.check_counts(self, "window")

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step, with a call before its (idle) bath."""
        return grouping.with_calls(super().operations(), after=False)

    def bind(self, context: Context) -> grouping.Bath:
        """Return what measures the noise and makes the bath."""
        return _Matched(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "SGHMC")


KINDS["SGHMC"] = grouping.remake(MatchedLangevin)


class _Matched(grouping.Bath):
    """The noise estimate, and the bath that it leaves."""

    def __init__(self, integrator: MatchedLangevin, context: Context) -> None:
        super().__init__(integrator, context)
        self._pass = grouping.Pass(context)
        self._variance = Variance(context, integrator.window)
        self.variables = self._variance.variables

    def started(self) -> None:
        """Forget the estimate."""
        self._variance.start()

    def call(self, index: int, step: int) -> None:
        """Take the forces in, and make the bath."""
        del index
        self._variance.update()
        rows = [self.row(k, step) for k in self.integrator.SCALARS]
        rates = rows[2][:, None]
        noise = self._variance.noise
        self._pass.matched(step, (rows[0], rows[1], rows[2]), rates, noise, None, False)

    def scalars(self) -> dict[str, np.ndarray]:
        """Mean variance of the noise, and the part of weights with too much of it."""
        host = self.context.backend.to_host
        noise = self._variance.noise.mean(axis=1, dtype=np.float64)
        unmatched = self._pass.unmatched.sum(axis=1) / self.context.state.size
        return {"gradient_noise": host(noise), "unmatched_noise": host(unmatched)}


def SGHMC(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    window: int = 1000,
) -> MatchedLangevin:
    r"""Stochastic gradient Hamiltonian Monte Carlo, its noise measured on the way.

    The canonical law under gradient noise that the friction can take up,
    :math:`\gamma m T > dt\,V/2`; the series ``unmatched_noise`` is the part of the
    weights where it cannot: take a larger friction, a smaller step or a larger batch.
    ``gradient_noise`` is the mean variance of a force.  One force evaluation a step;
    stable for dt < 2 / omega_max.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step.
    temperature : float, (R,) array or schedule
        T >= 0 in energy units (k_B = 1).
    friction : float, (R,) array or schedule
        gamma >= 0 in 1/time.
    mass : float or (D,) array
    window : int
        Steps over which the estimate of the noise forgets.

    References
    ----------
    T. Chen, E. B. Fox, C. Guestrin, ICML 2014, "Stochastic gradient Hamiltonian Monte
    Carlo", arXiv:1402.4102, eq. (13); its Euler step is replaced by the splitting.
    """
    return MatchedLangevin(
        "BAOAB", dt, temperature, friction, mass, name="SGHMC", window=window
    )
