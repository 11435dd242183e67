r"""Replicas that precondition each other: ensemble quasi-Newton dynamics.

The replicas are cut in two halves.  With the positions of one half, of covariance C,
the other moves under the masses

.. math:: M^{-1} = S S^T = \mu + C/T,

in whitened momenta (see `mdnet.integrators.metric`): on a Gaussian all directions then
oscillate with a frequency of about one, however stiff the target.  Halves take turns,
one resting while it serves: what moves never sees itself, so that S is constant in a
turn and the product of canonical laws is kept as well as the word keeps it.  Moving
both at once would not: each would soon follow its own past through the other.

C has at most R/2 - 1 directions; :math:`\mu` is what the others, and all, have beside.

References
----------
B. Leimkuhler, C. Matthews, J. Weare, Stat. Comput. 28, 277 (2018),
doi:10.1007/s11222-017-9730-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import schedules
from mdnet.errors import SchemeError
from mdnet.integrators import grouping
from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.integrators.letters import CODES
from mdnet.integrators.metric import DRIFT, FORCED, KICK, Flow
from mdnet.integrators.scheme import FORCE
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.typing import Array

__all__ = ["EnsembleLangevin", "EnsembleQuasiNewton"]

F = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EnsembleLangevin(Splitting):
    """What `EnsembleQuasiNewton` returns; parameters are described there."""

    every: int = 10
    floor: float = 0.0
    adapt: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self)
        grouping.check_counts(self, "every")
        if not isinstance(self.adapt, (int, np.integer)) or self.adapt < 0:
            raise SchemeError(f"adapt={self.adapt!r}: expected an integer >= 0")
        if not (np.isfinite(self.floor) and self.floor >= 0):
            raise SchemeError(f"floor={self.floor!r}: expected a finite number >= 0")
        if np.ndim(self.mass) or self.mass != 1:
            raise SchemeError("mass: the other replicas give it; leave it out")
        if set(self.scheme.word) - set("ABO"):
            raise SchemeError(
                f"word={self.word!r}: expected a plain word of A, B and O, as 'BAOAB'"
            )

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence whose kicks and drifts are calls."""
        out: list[tuple[int, int, int]] = []
        index = 0
        for letter, _ in self.scheme.sequence:
            if letter == FORCE:
                out += [(FORCE_CALL, 0, 0), (CALL, FORCED, 0)]
                continue
            if letter != "O":
                out.append((CALL, (KICK if letter == "B" else DRIFT) + index, 0))
            if letter != "B":
                out.append((CODES[letter], index, self.streams[index]))
            index += 1
        return tuple(out)

    def growth(self, curvature: float) -> float:
        """Unknown, 0: the ensemble decides."""
        del curvature
        return 0.0

    def bind(self, context: Context) -> Companion:
        """Return what measures the halves and moves them."""
        return _Halves(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "EnsembleQuasiNewton")


KINDS["EnsembleQuasiNewton"] = grouping.remake(EnsembleLangevin)


class _Halves(Companion):
    """The preconditioner of each half, and whose turn it is.

    Variables
    ---------
    directions : (2, k, D)
        Orthonormal rows V, k the smaller of R/2 and D.
    gains : (2, k)
        g of S = sqrt(mu) + V^T g V.
    """

    steady = True

    def __init__(self, integrator: EnsembleLangevin, context: Context) -> None:
        super().__init__(context)
        state, backend = context.state, context.backend
        half, size = state.replicas // 2, state.size
        if state.replicas % 2 or half < 2:
            raise SchemeError(
                f"replicas={state.replicas} for {integrator.name}: expected an even "
                "number, 4 or more, one half of which preconditions the other"
            )
        if integrator.floor == 0 and half < 2 * size:
            raise SchemeError(
                f"replicas={state.replicas} for {size} parameters: without floor= all "
                f"directions must show in half of the replicas; take {4 * size} or "
                "more, or floor= an inverse mass for the others"
            )
        self._integrator, self.every = integrator, int(integrator.every)
        self._half, count = half, min(half, size)
        self._floor = float(np.sqrt(integrator.floor))
        dtype = state.momenta.dtype
        self._directions = backend.zeros((2, count, size), dtype)
        self._gains = backend.zeros((2, count), dtype)
        self.variables = {"directions": self._directions, "gains": self._gains}
        self._flow = Flow(
            context,
            [letter for letter, _ in integrator.scheme.operations],
            self._lengths,
            self._apply,
            self._apply,
            integrator.scheduled,
        )

    def _apply(self, rows: Array) -> Array:
        """S of each half on its rows, (R, D)."""
        xp = self.context.backend.xp
        split = rows.reshape(2, self._half, -1)
        along = split @ xp.swapaxes(self._directions, 1, 2)
        along *= self._gains[:, None]
        moved = along @ self._directions
        if self._floor:
            moved += rows.dtype.type(self._floor) * split
        return moved.reshape(rows.shape)

    def _resting(self, step: int) -> slice:
        """Replicas that rest in the step after ``step``: half, or none at all."""
        if self._integrator.adapt > 0:
            return slice(0, 0)
        return self._rows(1 - self._turn(step))

    def _turn(self, step: int) -> int:
        return step // self.every % 2

    def _rows(self, half: int) -> slice:
        return slice(half * self._half, (half + 1) * self._half)

    def _lengths(self, step: int) -> F:
        """Coefficients (n, R, 2), with those who rest at rest."""
        table = self._integrator.coefficients(step, self.context.state.replicas)
        table[:, self._resting(step)] = 0.0
        letters = self._integrator.scheme.operations
        baths = [i for i, (letter, _) in enumerate(letters) if letter == "O"]
        table[baths, self._resting(step), 0] = 1.0
        return table

    def coefficients(self, step: int) -> F:
        """Those of the baths; kicks and drifts are calls."""
        return self._flow.without(self._lengths(step))

    def call(self, index: int, step: int) -> None:
        """Kick or drift."""
        self._flow.call(index, step)

    def between(self, step: int) -> None:
        """Change turns: measure those who will rest, for those who will move."""
        adapt = self._integrator.adapt
        if adapt == 0:
            self._measure(self._turn(step), step)
        elif step <= adapt:
            for half in (0, 1):
                self._measure(half, step)
        self._flow.forget()

    def started(self) -> None:
        """Measure both halves."""
        for half in (0, 1):
            self._measure(half, self.context.state.step)
        self._flow.forget()

    def potential_changed(self) -> None:
        """Take the force anew."""
        self._flow.forget()

    def _source(self, half: int) -> int:
        """Half that preconditions ``half``."""
        return 1 - half

    def _measure(self, half: int, step: int) -> None:
        """Set the preconditioner of a half, from the other."""
        xp, rows = self.context.backend.xp, self._rows(self._source(half))
        given = schedules.evaluate(self._integrator.temperature, step)
        T = np.broadcast_to(np.asarray(given, float), self.context.state.replicas)
        if (T[rows] <= 0).any():
            raise SchemeError(
                f"temperature={T.min()}: {self._integrator.name} needs one > 0"
            )
        q = self.context.state.positions[rows].astype(np.float64)
        if not xp.isfinite(q).all():
            return  # the run ends with its own words for it
        q -= q.mean(axis=0)
        q /= xp.sqrt(xp.asarray(T[rows]) * (self._half - 1))[:, None]
        _, widths, directions = xp.linalg.svd(q, full_matrices=False)
        self._directions[half] = directions
        self._gains[half] = xp.sqrt(self._floor**2 + widths**2) - self._floor


def EnsembleQuasiNewton(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    every: int = 10,
    floor: float = 0.0,
    adapt: int = 0,
    word: str = "BAOAB",
) -> EnsembleLangevin:
    r"""Langevin dynamics preconditioned with the covariance of the other replicas.

    See `mdnet.integrators.ensemble`.  Half of the replicas move in a step, the others
    a turn later; take an even number of them.  Start them closer together than the
    target is wide (around ``minimize``'s end, or after some steps of `BAOAB`), in all
    directions: a start that is wider than the target makes steps that are too long.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step, in units in which a Gaussian target has frequency one: 0.1 to 1.
    temperature : float, (R,) array or schedule
        T > 0 in energy units (k_B = 1).
    friction : float, (R,) array or schedule
        gamma >= 0; about one decorrelates fastest.
    every : int
        Steps of a turn.
    floor : float
        mu >= 0, an inverse mass that all directions have at least.  Needed for fewer
        than 4 D replicas; for a network 1 is the mass of `BAOAB`.
    adapt : int
        0: turns without end.  Otherwise all replicas move, preconditioners follow for
        so many steps and then stay; the law is exact after that.
    word : str
        Of drifts, kicks and baths.

    Raises
    ------
    SchemeError
        A parameter out of range, or replicas that are too few.

    References
    ----------
    B. Leimkuhler, C. Matthews, J. Weare, Stat. Comput. 28, 277 (2018),
    doi:10.1007/s11222-017-9730-1.

    Examples
    --------
    >>> EnsembleQuasiNewton(dt=0.3).name
    'EnsembleQuasiNewton'
    """
    return EnsembleLangevin(
        word,
        dt,
        temperature,
        friction,
        name="EnsembleQuasiNewton",
        every=every,
        floor=floor,
        adapt=adapt,
    )
