r"""Multiple time steps: a cheap force at short steps inside a dear one at long steps.

For U = U_f + U_s a word keeps its kicks for the slow U_s, and each drift becomes n
velocity-Verlet steps of the fast U_f (reversible RESPA):

.. math:: A(wh) \;\to\; [\,B_f(\delta/2)\,A(\delta)\,B_f(\delta/2)\,]^n,
          \qquad \delta = wh/n.

==================  =========================================================
sequence            code
==================  =========================================================
B                   ``CALL 0`` puts the slow force in place, then a kick
A                   ``CALL 1`` the fast force, then n times kick, drift,
                    ``CALL 2`` (the fast force anew), kick
O                   as in every word
==================  =========================================================

References
----------
M. Tuckerman, B. J. Berne, G. J. Martyna, J. Chem. Phys. 97, 1990 (1992),
doi:10.1063/1.463137.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators import baths
from mdnet.integrators.companion import CALL, CLOSE, LOOP, Companion, Context
from mdnet.integrators.letters import CODES
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.typing import Array

__all__ = ["RESPA", "ForceGroups"]

_SLOW, _FAST, _ANEW = 0, 1, 2


@dataclass(frozen=True, eq=False)
class RESPA(Splitting):
    r"""A word for slow forces, with short steps of the fast ones inside.

    The potential is a sum, ``U1 + U2 + ...``; forces of the parts named by ``fast``
    are evaluated ``inner`` times a drift, those of all others once a step.

    On oscillators k = k_f + k_s with k_f = 0 it is the word itself; steps near a
    multiple of half the fast period are unstable (resonance).

    Parameters
    ----------
    word : str or table of (letter, share)
    dt : float, (R,) array or schedule
        Long time step.
    temperature, friction, mass, frozen
        As `Splitting`.
    inner : int
        Short steps that a drift of the word is made of.
    fast : int or sequence of int
        Which parts of the sum are fast.

    Raises
    ------
    SchemeError
        A word with braces, ``inner`` < 1, or parts that the potential does not have.

    Examples
    --------
    >>> RESPA("BAOAB", dt=0.1, inner=4, fast=0).time_step(0)
    0.1
    """

    inner: int = 4
    fast: Any = 0

    def __post_init__(self) -> None:
        name = self.name
        Splitting.__post_init__(self)
        object.__setattr__(self, "name", name or f"RESPA of {self.scheme}")
        if set(self.scheme.word) - set("ABO") or self.rule != "exact":
            raise SchemeError(
                f"word={self.word!r}: RESPA takes plain words of A, B and O, as 'BAOAB'"
            )
        if not isinstance(self.inner, (int, np.integer)) or self.inner < 1:
            raise SchemeError(f"inner={self.inner!r}: expected an integer >= 1")
        parts = self.fast if isinstance(self.fast, Sequence) else (self.fast,)
        if not parts or not all(isinstance(i, (int, np.integer)) for i in parts):
            raise SchemeError(
                f"fast={self.fast!r}: expected the index of a part of the potential's "
                "sum, or several"
            )
        object.__setattr__(self, "fast", tuple(int(i) for i in parts))

    @property
    def _drifts(self) -> list[int]:
        letters = self.scheme.operations
        return [i for i, (letter, _) in enumerate(letters) if letter == "A"]

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence with fast loops in place of drifts; see the module's docstring."""
        out: list[tuple[int, int, int]] = []
        extra = len(self.scheme.operations)
        for i, (letter, _) in enumerate(self.scheme.operations):
            if letter == "A":
                kick = (CODES["B"], extra + self._drifts.index(i), 0)
                out += [(CALL, _FAST, 0), (LOOP, 0, 0), kick, (CODES["A"], i, 0)]
                out += [(CALL, _ANEW, 0), kick, (CLOSE, 0, 0)]
            else:
                if letter == "B":
                    out.append((CALL, _SLOW, 0))
                out.append((CODES[letter], i, self.streams[i]))
        return tuple(out)

    def table(
        self,
        step: int,
        temperature: npt.NDArray[np.float64],
        friction: npt.NDArray[np.float64],
        dt: npt.NDArray[np.float64] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Coefficients of the word, drifts cut short, and of the fast half kicks."""
        word = Splitting.table(self, step, temperature, friction, dt)
        word[self._drifts] /= self.inner
        return np.concatenate([word, word[self._drifts] / 2])

    def growth(self, curvature: float) -> float:
        """Unknown, 0: how a curvature is shared out between the parts decides."""
        del curvature
        return 0.0

    def bind(self, context: Context) -> ForceGroups:
        """Return what keeps the forces of the parts."""
        return ForceGroups(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return Splitting.describe(self) | {
            "kind": "RESPA",
            "inner": int(self.inner),
            "fast": list(self.fast),
        }


def _respa(record: dict[str, Any]) -> RESPA:
    read = baths.read
    return RESPA(
        record["word"],
        read(record["dt"]),
        read(record["temperature"]),
        read(record["friction"]),
        read(record["mass"]),
        name=record["name"],
        damping=record["damping"],
        length=record["length"],
        frozen=read(record["frozen"]),
        inner=record["inner"],
        fast=tuple(record["fast"]),
    )


KINDS["RESPA"] = _respa


class ForceGroups(Companion):
    """Slow and fast forces, each evaluated anew only where positions have moved.

    Parameters
    ----------
    integrator : RESPA
    context : Context

    Raises
    ------
    SchemeError
        A potential that is no sum, or without the parts.
    """

    steady = True

    def __init__(self, integrator: RESPA, context: Context) -> None:
        super().__init__(context)
        parts: Sequence[Any] = getattr(context.evaluator, "parts", ())
        fast = {i + len(parts) if i < 0 else i for i in integrator.fast}
        slow = set(range(len(parts))) - fast
        if not fast <= set(range(len(parts))) or not slow:
            raise SchemeError(
                f"fast={list(integrator.fast)} of a potential with {len(parts)} parts: "
                "expected a sum with parts of both kinds, as RESPA(..., fast=0) for "
                "cheap + dear"
            )
        self._parts = [[parts[i] for i in sorted(group)] for group in (slow, fast)]
        self._integrator = integrator
        self._baths = baths.Baths(integrator, context) if integrator.grouped else None
        xp, force = context.backend.xp, context.state.forces
        self._scratch = xp.zeros_like(force)
        self._kept = [xp.zeros_like(force), xp.zeros_like(force)]
        self._fresh = np.zeros(2, np.int64)
        self._calls = np.zeros(2, np.int64)
        self.variables = {
            "slow_forces": self._kept[_SLOW],
            "fast_forces": self._kept[_FAST],
            "forces_fresh": self._fresh,
            "force_calls": self._calls,
        }

    def call(self, index: int, step: int) -> None:
        """Put the slow or the fast force in place."""
        del step
        if index == _ANEW:
            self._fresh[:] = 0
        group = _SLOW if index == _SLOW else _FAST
        kept = self._kept[group]
        if not self._fresh[group]:
            self._evaluate(group, kept)
        self.context.state.forces[...] = kept

    def _evaluate(self, group: int, out: Array) -> None:
        first, *rest = self._parts[group]
        positions, call = self.context.state.positions, int(self._calls[group])
        first.forces(positions, out, call)
        for part in rest:
            part.forces(positions, self._scratch, call)
            self.context.backend.xp.add(out, self._scratch, out=out)
        self._calls[group] += 1
        self._fresh[group] = 1

    def repeats(self, step: int) -> int:
        """Short steps a drift."""
        del step
        return int(self._integrator.inner)

    def coefficients(self, step: int) -> npt.NDArray[np.float64] | None:
        """Those of baths per tensor, if there are."""
        return None if self._baths is None else self._baths.coefficients(step)

    def temperatures(self, step: int) -> npt.NDArray[np.float64] | None:
        """Those of baths per tensor, if there are."""
        return None if self._baths is None else self._baths.temperatures(step)

    def started(self) -> None:
        """Evaluate all forces anew."""
        self._fresh[:] = 0
        if self._baths is not None:
            self._baths.started()

    def restrict(self, positions: Array, forces: Array) -> None:
        """Take the forces on frozen weights away."""
        if self._baths is not None:
            self._baths.restrict(positions, forces)

    def scalars(self) -> dict[str, npt.NDArray[np.float64]]:
        """Those of baths per tensor, if there are."""
        return {} if self._baths is None else self._baths.scalars()
