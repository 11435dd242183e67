r"""Adaptive Langevin dynamics: a friction that finds out how much noise forces have.

.. math::
    dp = \tilde F\,dt - \xi p\,dt + \sqrt{2 A m T}\,dW,\quad
    d\xi = \frac{1}{Q}\Big(\sum\frac{p^2}{m} - nT\Big) dt,\quad Q = nT\tau^2,

on the word B A D O D A B: O solves the second and third term of dp exactly at fixed
:math:`\xi`, also where it is negative, and D moves :math:`\xi` by half a step.  Noise
of variance C in every force (m = 1) is absorbed as
:math:`\langle\xi\rangle = A + dt\,C/2T`, and the weights sample exp(-U/T).  That asks
for the same C everywhere (in a group of parameters that share a :math:`\xi`).  With
covariance control the friction is :math:`\xi + dt\,\hat\Sigma/2T` instead, with a
measured covariance of the noise: it may differ between weights, and depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators import grouping
from mdnet.integrators.companion import Context
from mdnet.integrators.noise_estimate import Sketch, Variance
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.kernels import thermostat_arrays
from mdnet.typing import Array, Layout

__all__ = ["SGNHT", "AdaptiveLangevin", "CCAdL"]


@dataclass(frozen=True, eq=False)
class AdaptiveLangevin(Splitting):
    """What `SGNHT` and `CCAdL` return; parameters are described there."""

    relaxation_time: Any = 1.0
    groups: str = "all"
    covariance: str | None = None
    rank: int = 8
    window: int = 1000
    SCALARS: ClassVar[tuple[str, ...]] = (
        "dt",
        "temperature",
        "friction",
        "relaxation_time",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self)
        known = ("all", "layer") if self.covariance else grouping.GROUPS
        grouping.check_groups(self.groups, known)
        if self.covariance is not None:
            _check_covariance(self.covariance)
        grouping.check_counts(self, "rank", "window")
        self.target_temperature(0)
        friction = self.scalar("friction", 0)
        if not np.isfinite(np.asarray(friction)).all():
            raise SchemeError(
                f"friction={friction!r}: expected a finite number, the noise of the "
                "bath; integrators.BAOAB takes inf"
            )

    def target_temperature(self, step: int) -> Any:
        """Temperature in the step after ``step``: float or (R,), above zero."""
        return grouping.above_zero(self.name, super().target_temperature(step))

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step, with calls before and, for groups, after its bath."""
        shared = self.groups != "parameter" and self.covariance is None
        return grouping.with_calls(super().operations(), after=shared)

    def bounds(self, layout: Layout) -> npt.NDArray[np.int64] | None:
        """Where groups begin."""
        return grouping.bounds(self.groups, layout)

    def bind(self, context: Context) -> grouping.Bath:
        """Return what moves the friction."""
        if self.covariance is not None:
            return _Controlled(self, context)
        if self.groups == "parameter":
            return _EachParameter(self, context)
        return _Shared(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "AdaptiveLangevin")


def _check_covariance(covariance: Any) -> None:
    if covariance not in ("diagonal", "low-rank"):
        raise SchemeError(
            f"covariance={covariance!r}: expected 'diagonal' or 'low-rank'; "
            "integrators.SGNHT has none"
        )


KINDS["AdaptiveLangevin"] = grouping.remake(AdaptiveLangevin)


class _Shared(grouping.Bath):
    """One friction xi (R, G) for each group of parameters."""

    def __init__(self, integrator: AdaptiveLangevin, context: Context) -> None:
        super().__init__(integrator, context)
        shape = (self.replicas, self._count())
        self.variables = {"xi": context.backend.zeros(shape, np.float64)}

    def _count(self) -> int:
        return int(self.dof.size)

    def started(self) -> None:
        """Begin with the friction of the bath."""
        step = self.context.state.step
        self.variables["xi"][...] = self.row("friction", step)[:, None]

    def scalars(self) -> dict[str, np.ndarray]:
        """Mean friction over all parameters."""
        xi = self.variables["xi"]
        share = self.dof / self.dof.sum() if xi.shape[1] == self.dof.size else None
        mean = xi.mean(axis=1) if share is None else xi @ share
        return {"thermostat_friction": self.context.backend.to_host(mean)}

    def _half(self, step: int) -> Array:
        """Move xi by half a step (D); return it."""
        xi = self.variables["xi"]
        h, T, _, time = self._parameters(step)
        ratio = self.twice_kinetic() / (self.dof * T)
        xi += 0.5 * h / time**2 * (ratio - 1)
        return xi

    def _parameters(self, step: int) -> tuple[Array, ...]:
        """Time step, temperature, friction, relaxation time: (R, 1) each."""
        return tuple(self.row(k, step)[:, None] for k in self.integrator.SCALARS)

    def call(self, index: int, step: int) -> None:
        """Move xi before and after the bath, and give the bath its coefficients."""
        xi = self._half(step)
        if index == 1:
            return
        xp = self.context.backend.xp
        h, T, friction, _ = self._parameters(step)
        self.bath[..., 0] = xp.exp(-h * xi)
        width = thermostat_arrays.width(xp, xi, h)
        self.bath[..., 1] = xp.sqrt(2 * friction * T * width)


class _EachParameter(_Shared):
    """A friction for each parameter: D O D in one pass, beside an idle bath."""

    def __init__(self, integrator: AdaptiveLangevin, context: Context) -> None:
        super().__init__(integrator, context)
        self._pass = grouping.Pass(context)

    def _count(self) -> int:
        return self.context.state.size

    def call(self, index: int, step: int) -> None:
        """Move friction and momenta."""
        del index
        work, c = self._pass, self.context
        rows = [self.row(k, step) for k in self.integrator.SCALARS]
        xi, p = self.variables["xi"], c.state.momenta
        if work.compiled:
            from mdnet.kernels.thermostats import adaptive_bath

            adaptive_bath(
                p,
                c.inverse_mass,
                c.engine.edges,
                *rows,
                xi,
                c.state.sums,
                *work.scratch(step),
            )
            return
        xp, columns = c.backend.xp, tuple(row[:, None] for row in rows)
        z, wide = work.normals(step), p.astype(np.float64)
        new = thermostat_arrays.adapt(xp, xi, wide, z, c.inverse_mass, columns)
        grouping.book(c, new)


class _Controlled(_Shared):
    """Friction of groups, and more of it where the forces are noisy."""

    def __init__(self, integrator: AdaptiveLangevin, context: Context) -> None:
        super().__init__(integrator, context)
        self._pass = grouping.Pass(context)
        self._variance = Variance(context, integrator.window)
        self.variables |= self._variance.variables
        self._sketch: Sketch | None = None
        if integrator.covariance == "low-rank":
            rank = min(integrator.rank, context.state.size)
            self._sketch = Sketch(context, rank, integrator.window)
            self.variables |= self._sketch.variables

    def started(self) -> None:
        """Begin with the friction of the bath, and without an estimate."""
        super().started()
        self._variance.start()
        if self._sketch is not None:
            self._sketch.start()

    def scalars(self) -> dict[str, np.ndarray]:
        """Mean friction, and mean variance of a force's noise, over all parameters."""
        noise = self._variance.noise.mean(axis=1, dtype=np.float64)
        host = self.context.backend.to_host
        return super().scalars() | {"gradient_noise": host(noise)}

    def call(self, index: int, step: int) -> None:
        """Measure the noise; damp its leading directions; D O D; damp them again."""
        del index
        if self._sketch is not None:
            self._gather(self._sketch)
        self._variance.update()
        self._damp(step)
        rates = self._half(step)
        h, T, friction, _ = (self.row(k, step) for k in self.integrator.SCALARS)
        captured = None if self._sketch is None else self._sketch.captured
        self._pass.matched(
            step, (h, T, friction), rates, self._variance.noise, captured, True
        )
        self._half(step)
        self._damp(step)

    def _gather(self, sketch: Sketch) -> None:
        """Give the second difference of the forces to the sketch."""
        v = self.variables
        if v["forces_seen"][0] < 2:
            return
        f = self.context.state.forces.astype(np.float64)
        f -= 2.0 * v["last_forces"]
        f += v["older_forces"]
        sketch.add(f / np.sqrt(6))

    def _damp(self, step: int) -> None:
        """Half a step of the friction along the leading directions."""
        if self._sketch is None:
            return
        h, T, _, _ = self._parameters(step)
        p = self.context.state.momenta.astype(np.float64)
        grouping.book(self.context, self._sketch.damp(p, 0.25 * h * h / T))


def SGNHT(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    relaxation_time: Any = 1.0,
    groups: str = "all",
    mass: Any = 1.0,
) -> AdaptiveLangevin:
    r"""Stochastic gradient Nose-Hoover thermostat, in the splitting BADODAB.

    Samples exp(-U/T) under gradient noise of unknown, uniform variance C:
    :math:`\langle\xi\rangle = A + dt\,C/2T` (series ``thermostat_friction``) and, on
    an oscillator, :math:`\langle q^2\rangle` is off by O(dt^3 C).  One force evaluation
    a step; stable for dt < 2 / omega_max.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step.
    temperature : float, (R,) array or schedule
        T > 0 in energy units (k_B = 1).
    friction : float, (R,) array or schedule
        A >= 0: the bath's own noise, and the friction at the start.
    relaxation_time : float, (R,) array or schedule
        tau of the thermostat's mass Q = n T tau^2.
    groups : {"all", "layer", "parameter"}
        Which parameters share a friction: all, those of a tensor, none.
    mass : float or (D,) array

    References
    ----------
    N. Ding et al., NeurIPS 2014, "Bayesian sampling using stochastic gradient
    thermostats".
    B. Leimkuhler, X. Shang, SIAM J. Sci. Comput. 38, A712 (2016),
    doi:10.1137/15M102318X (BADODAB).
    """
    return AdaptiveLangevin(
        "BAOAB",
        dt,
        temperature,
        friction,
        mass,
        name="SGNHT",
        relaxation_time=relaxation_time,
        groups=groups,
    )


def CCAdL(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    relaxation_time: Any = 1.0,
    covariance: str = "diagonal",
    rank: int = 8,
    groups: str = "all",
    mass: Any = 1.0,
    window: int = 1000,
) -> AdaptiveLangevin:
    r"""Covariance-controlled adaptive Langevin: for noise that differs between weights.

    As `SGNHT`, with a friction :math:`dt\,\hat\Sigma/2T` (m = 1) that takes out what
    the noise of covariance :math:`\Sigma` puts in; :math:`\xi` then has only errors of
    the estimate to make up for.  The estimate is measured on the way: see
    `mdnet.integrators.noise_estimate`.

    Parameters
    ----------
    dt, temperature, friction, relaxation_time, mass
        As `SGNHT`.
    covariance : {"diagonal", "low-rank"}
        The variance of each weight's noise, or that and its ``rank`` leading
        directions.
    rank : int
        Directions kept; memory 2 rank R D numbers, and 8 rank operations a weight.
    groups : {"all", "layer"}
        Which parameters share a friction xi.
    window : int
        Steps over which the estimate forgets.

    References
    ----------
    X. Shang, Z. Zhu, B. Leimkuhler, A. J. Storkey, NeurIPS 2015, "Covariance-controlled
    adaptive Langevin thermostat for large-scale Bayesian sampling", arXiv:1510.08692.
    """
    _check_covariance(covariance)
    return AdaptiveLangevin(
        "BAOAB",
        dt,
        temperature,
        friction,
        mass,
        name="CCAdL",
        relaxation_time=relaxation_time,
        groups=groups,
        covariance=covariance,
        rank=rank,
        window=window,
    )
