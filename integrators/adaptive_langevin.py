r"""Adaptive Langevin dynamics: a friction that finds out how much noise forces have.

.. math::
    dp = \tilde F\,dt - \xi p\,dt + \sqrt{2 A m T}\,dW,\quad
    d\xi = \frac{1}{Q}\Big(\sum\frac{p^2}{m} - nT\Big) dt,\quad Q = nT\tau^2,

on the word B A N D N A B: D solves the second and third term of dp exactly at fixed
:math:`\xi`, also where it is negative, and N moves :math:`\xi` by half a step.  (The
published name, B A D O D A B, has D and O for these; it is read as that.)  In words
with an O of their own the noise and a friction A are its, and D damps alone.  Noise
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
from mdnet.integrators import grouping, holding
from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.integrators.letters import CODES
from mdnet.integrators.noise_estimate import Sketch, Variance
from mdnet.integrators.scheme import FORCE
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
        grouping.check_plain(self, holds=True)
        if "N" not in self.scheme.word:
            raise SchemeError(
                f"word={self.word!r}: expected one with N and D, as 'BANDNAB'"
            )
        if not self._shared and not self._middle():
            raise SchemeError(
                f"word={self.word!r}: expected N D N in it, with all of N and D, for "
                "groups='parameter' and covariance=, as 'BANDNAB'"
            )
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

    @property
    def _shared(self) -> bool:
        """Whether a friction is that of a group, and no covariance is measured."""
        return self.groups != "parameter" and self.covariance is None

    def _middle(self) -> bool:
        """Whether N D N stand together, and nowhere else."""
        word = self.scheme.word
        shares = [x for letter, x in self.scheme.operations if letter in "ND"]
        plain = "NDN" in word and len(shares) == 3 and "O" not in word
        return plain and np.allclose(shares, [0.5, 1.0, 0.5])

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step: N is a call, D a bath.

        N behind a D and before drifts comes after them, since they change no momenta:
        bath and drift stay one launch.  Where a pass does N D N at once, a call with
        number 0 stands before an idle bath.
        """
        out: list[tuple[int, int, int]] = []
        waiting: list[tuple[int, int, int]] = []
        index = 0
        for letter, _ in self.scheme.sequence:
            if letter == FORCE:
                out += [*waiting, (FORCE_CALL, 0, 0)]
                waiting = []
                continue
            if letter != "A":
                out += waiting
                waiting = []
            if letter == "N":
                call = (CALL, index if self._shared else 0, 0)
                before = bool(out) and out[-1][:2] == (CODES["O"], index - 1)
                if not before:
                    out.append(call)
                elif self._shared:
                    waiting = [call]
            else:
                code = CODES["O" if letter == "D" else letter]
                out.append((code, index, self.streams[index]))
            index += 1
        return holding.with_holds(self, (*out, *waiting))

    def bounds(self, layout: Layout) -> npt.NDArray[np.int64] | None:
        """Where groups begin."""
        return grouping.bounds(self.groups, layout, self.free(layout))

    def bind(self, context: Context) -> Companion:
        """Return what moves the friction."""
        kind: Any = _Shared
        if self.covariance is not None:
            kind = _Controlled
        elif self.groups == "parameter":
            kind = _EachParameter
        return holding.hold(self, context, kind(self, context))

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


class _Friction(grouping.Bath):
    """A friction xi (R, n), and how it moves."""

    def __init__(self, integrator: AdaptiveLangevin, context: Context) -> None:
        super().__init__(integrator, context)
        shape = (self.replicas, self._count())
        self.variables = {"xi": context.backend.zeros(shape, np.float64)}

    def _count(self) -> int:
        return int(self.dof.size)

    def started(self) -> None:
        """Begin with the friction of the bath, or none beside a bath of its own."""
        step = self.context.state.step
        alone = "O" not in self.integrator.scheme.word
        self.variables["xi"][...] = self.row("friction", step)[:, None] * alone

    def scalars(self) -> dict[str, np.ndarray]:
        """Mean friction over all parameters."""
        xi = self.variables["xi"]
        share = self.dof / self.dof.sum() if xi.shape[1] == self.dof.size else None
        mean = xi.mean(axis=1) if share is None else xi @ share
        return {"thermostat_friction": self.context.backend.to_host(mean)}

    def _move(self, step: int, share: float = 0.5) -> Array:
        """Move xi by a share of a step (N); return it."""
        xi = self.variables["xi"]
        h, T, _, time = self._parameters(step)
        ratio = self.twice_kinetic() / (self.dof * T)
        xi += share * h / time**2 * (ratio - 1)
        return xi

    def _parameters(self, step: int) -> tuple[Array, ...]:
        """Time step, temperature, friction, relaxation time: (R, 1) each."""
        return tuple(self.row(k, step)[:, None] for k in self.integrator.SCALARS)


class _Shared(_Friction):
    """One friction for each group of parameters; N and D anywhere in the word."""

    def __init__(self, integrator: AdaptiveLangevin, context: Context) -> None:
        super().__init__(integrator, context)
        operations = integrator.scheme.operations
        self._shares = [share for _, share in operations]
        letters = [letter for letter, _ in operations]
        self._baths = [i for i, letter in enumerate(letters) if letter == "D"]
        self._alone = "O" not in letters
        # Whether a D follows before another N, in this step or the next.
        order = [i for i, letter in enumerate(letters) if letter in "ND"]
        following = [letters[i] for i in (*order[1:], order[0])]
        self._feeds = {i: x == "D" for i, x in zip(order, following, strict=True)}
        self._moved = True
        # A bath that comes first uses what the step before, or a file, left.
        self._always = integrator.scheduled or letters.index("D") < letters.index("N")

    def started(self) -> None:
        """Begin anew."""
        super().started()
        self._moved = True

    def coefficients(self, step: int) -> Array:
        """Coefficients of the word, with those of D at the present friction."""
        if self._table is None or self.integrator.scheduled:
            super().coefficients(step)
        if not (self._moved or self._always):
            return self._table
        xp, xi = self.context.backend.xp, self.variables["xi"]
        dt, T, friction, _ = self._parameters(step)
        for i in self._baths:
            h = self._shares[i] * dt
            self._table[i, ..., 0] = xp.exp(-h * xi)
            width = thermostat_arrays.width(xp, xi, h)
            self._table[i, ..., 1] = self._alone * xp.sqrt(2 * friction * T * width)
        self._moved = False
        return self._table

    def call(self, index: int, step: int) -> None:
        """Move xi by the share of the operation."""
        self._move(step, self._shares[index])
        self._moved |= self._feeds[index]


class _EachParameter(_Friction):
    """A friction for each parameter: N D N in one pass, beside an idle bath."""

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


class _Controlled(_Friction):
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
        """Measure the noise; damp its leading directions; N D N; damp them again."""
        del index
        if self._sketch is not None:
            self._gather(self._sketch)
        self._variance.update()
        self._damp(step)
        rates = self._move(step)
        h, T, friction, _ = (self.row(k, step) for k in self.integrator.SCALARS)
        captured = None if self._sketch is None else self._sketch.captured
        self._pass.matched(
            step, (h, T, friction), rates, self._variance.noise, captured, True
        )
        self.settled()
        self._move(step)
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
    word: Any = "BANDNAB",
    frozen: Any = (),
) -> AdaptiveLangevin:
    r"""Stochastic gradient Nose-Hoover thermostat, on the word BANDNAB.

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
    word : str or table of (letter, share)
        Another word with N and D, as "BADNDAB" or "BANDNAB"; "BADODAB", the published
        name of the latter, is read as that.
    frozen : names of tensors or (D,) bool
        Weights that never move; not with ``groups="parameter"``.

    References
    ----------
    N. Ding et al., NeurIPS 2014, "Bayesian sampling using stochastic gradient
    thermostats".
    B. Leimkuhler, X. Shang, SIAM J. Sci. Comput. 38, A712 (2016),
    doi:10.1137/15M102318X (BADODAB).
    """
    return AdaptiveLangevin(
        word,
        dt,
        temperature,
        friction,
        mass,
        name="SGNHT",
        relaxation_time=relaxation_time,
        groups=groups,
        frozen=frozen,
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
    frozen: Any = (),
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
    frozen : names of tensors or (D,) bool
        Weights that never move.

    References
    ----------
    X. Shang, Z. Zhu, B. Leimkuhler, A. J. Storkey, NeurIPS 2015, "Covariance-controlled
    adaptive Langevin thermostat for large-scale Bayesian sampling", arXiv:1510.08692.
    """
    _check_covariance(covariance)
    return AdaptiveLangevin(
        "BANDNAB",
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
        frozen=frozen,
    )
