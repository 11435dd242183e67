r"""Baths that give as much less noise as the forces bring, and masses to fit.

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

`SGHMC` can do so while the forces bring less than the bath has.  `NoiseMatched` sets
the masses in a warm-up so that they bring the part s of it in every weight that is
heavier than it need be,

.. math:: m = \frac{h^2 \hat V}{4 s T}\,\frac{1+c}{1-c},

and none is left with noise unmatched: weights of noisy forces move as slowly as their
noise asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.errors import SchemeError
from mdnet.integrators import grouping, holding
from mdnet.integrators.companion import Companion, Context
from mdnet.integrators.noise_estimate import Variance
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.integrators.tuning import set_masses, windows
from mdnet.typing import Layout

__all__ = ["SGHMC", "MatchedLangevin", "NoiseMatched"]


@dataclass(frozen=True, eq=False)
class MatchedLangevin(Splitting):
    """What `SGHMC` and `NoiseMatched` return; parameters are described there."""

    window: int = 1000
    warmup: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self, holds=True)
        grouping.check_counts(self, "window")
        if self.warmup:
            self._check_warmup()

    def _check_warmup(self) -> None:
        if not isinstance(self.warmup, (int, np.integer)) or self.warmup < 20:
            raise SchemeError(f"warmup={self.warmup!r}: expected 20 steps or more")
        if not 0 < self.share <= 1:
            raise SchemeError(f"share={self.share!r}: expected a number in (0, 1]")
        for name in ("temperature", "friction"):
            value = np.asarray(self.scalar(name, 0))
            if not (value > 0).all() or not np.isfinite(value).all():
                raise SchemeError(
                    f"{name}={value}: {self.name} needs one > 0 and finite, a bath "
                    "whose noise the forces can bring"
                )

    @property
    def adapts_mass(self) -> bool:
        """Whether masses change in a warm-up, each on its own."""
        return self.warmup > 0

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step, with a call before its (idle) bath."""
        calls = grouping.with_calls(super().operations())
        return holding.with_holds(self, calls)

    def bounds(self, layout: Layout) -> None:
        """One bath for all, whatever is frozen."""
        del layout

    def bind(self, context: Context) -> Companion:
        """Return what measures the noise and makes the bath."""
        return holding.hold(self, context, _Matched(self, context))

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
        self.variables = {
            **self._variance.variables,
            "unmatched": self._pass.unmatched,
        }
        self._ends: tuple[int, ...] = ()
        if integrator.warmup:
            self._ends = windows(integrator.warmup)[1]
            self._least = 1 / context.inverse_mass.copy()
            # The very array that the kernels use: a restart fills it in place.
            self.variables["inverse_mass"] = context.inverse_mass

    def started(self) -> None:
        """Forget the estimate."""
        self._variance.start()

    def call(self, index: int, step: int) -> None:
        """Take the forces in, set the masses if it is time, and make the bath."""
        del index
        self._variance.update()
        if step + 1 in self._ends:
            self._fit_masses(step)
        rows = [self.row(k, step) for k in self.integrator.SCALARS]
        rates = rows[2][:, None]
        noise = self._variance.noise
        self._pass.matched(step, (rows[0], rows[1], rows[2]), rates, noise, None, False)

    def _fit_masses(self, step: int) -> None:
        """Set masses by the noise of all replicas, of the least bath among them."""
        xp = self.context.backend.xp
        h, T, friction = (self.row(k, step) for k in self.integrator.SCALARS)
        c = xp.exp(-friction * h)
        scale = (h * h * (1 + c) / ((1 - c) * 4 * self.integrator.share * T)).max()
        noise = self._variance.noise.mean(axis=0, dtype=np.float64)
        set_masses(self.context, 1 / xp.maximum(scale * noise, self._least))

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
    frozen: Any = (),
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
    frozen : names of tensors or (D,) bool
        Weights that never move.

    References
    ----------
    T. Chen, E. B. Fox, C. Guestrin, ICML 2014, "Stochastic gradient Hamiltonian Monte
    Carlo", arXiv:1402.4102, eq. (13); its Euler step is replaced by the splitting.
    """
    return MatchedLangevin(
        "BAOAB",
        dt,
        temperature,
        friction,
        mass,
        name="SGHMC",
        frozen=frozen,
        window=window,
    )


def NoiseMatched(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    share: float = 0.5,
    warmup: int = 1000,
    window: int = 1000,
    frozen: Any = (),
) -> MatchedLangevin:
    r"""`SGHMC` with masses that make the noise of every weight fit its bath.

    In the warm-up the masses are set anew at the ends of windows that double in
    length, from the variance of each weight's force over all replicas; then they stay,
    and the law is that of `SGHMC` where no noise is unmatched.  Weights without much
    noise keep ``mass``.

    Parameters
    ----------
    dt, temperature, friction, window, frozen
        As `SGHMC`, temperature and friction above zero.
    mass : float or (D,) array
        The least masses, and those to begin with.
    share : float
        s in (0, 1]: part of a bath's noise that the forces may bring; the rest is room
        for what the estimate misses, and for forces noisier than in the warm-up.
    warmup : int
        Steps of the warm-up, 20 or more: leave them out of averages.

    Raises
    ------
    SchemeError
        A parameter out of range.

    References
    ----------
    T. Chen, E. B. Fox, C. Guestrin, ICML 2014, arXiv:1402.4102.
    """
    return MatchedLangevin(
        "BAOAB",
        dt,
        temperature,
        friction,
        mass,
        name="NoiseMatched",
        window=window,
        warmup=warmup,
        share=share,
        frozen=frozen,
    )
