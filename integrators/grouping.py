"""Thermostats of groups of parameters: all together, each tensor, or each parameter.

A thermostat of groups is a bath whose coefficients (c, s) are set anew at every step,
from the kinetic energy of the group.  Thermostats of each parameter work on momenta
themselves, and leave the bath as the identity.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random, schedules
from mdnet.errors import SchemeError
from mdnet.integrators import baths
from mdnet.integrators.baths import PerTensor
from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.letters import CODES
from mdnet.integrators.splitting import Splitting
from mdnet.kernels import thermostat_arrays
from mdnet.typing import Array, Layout

__all__ = [
    "GROUPS",
    "Bath",
    "Pass",
    "Rows",
    "above_zero",
    "book",
    "bounds",
    "check_counts",
    "check_groups",
    "check_plain",
    "describe",
    "remake",
    "with_calls",
]

GROUPS = ("all", "layer", "parameter")

_KEPT = {
    "word",
    "dt",
    "temperature",
    "friction",
    "mass",
    "name",
    "damping",
    "length",
}  # of the fields that every word has
_Sequence = tuple[tuple[int, int, int], ...]


def check_groups(groups: Any, known: tuple[str, ...] = GROUPS) -> None:
    """Refuse a grouping that is not one of ``known``."""
    if groups not in known:
        raise SchemeError(
            f"groups={groups!r}: expected one of {', '.join(map(repr, known))}"
        )


def check_plain(integrator: Any, holds: bool = False) -> None:
    """Refuse values by tensor and, but for those that can hold some, frozen weights."""
    for name in integrator.SCALARS:
        if isinstance(getattr(integrator, name), PerTensor):
            raise SchemeError(
                f"{name}: {integrator.name} takes one value, not one a tensor; "
                "integrators.BAOAB takes a mapping"
            )
    if not len(integrator.frozen):
        return
    if not holds:
        raise SchemeError(
            f"frozen={integrator.frozen!r}: {integrator.name} moves all weights; "
            "integrators.BAOAB can hold some"
        )
    if getattr(integrator, "groups", "") == "parameter":
        raise SchemeError(
            f"frozen={integrator.frozen!r}: {integrator.name} with groups='parameter' "
            "moves all weights; take groups='all' or 'layer'"
        )


def check_counts(integrator: Any, *names: str) -> None:
    """Refuse fields that are not integers >= 1."""
    for name in names:
        value = getattr(integrator, name)
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise SchemeError(f"{name}={value!r}: expected an integer >= 1")


def above_zero(name: str, temperature: Any) -> Any:
    """Return a temperature that is above zero, and refuse others."""
    if not np.all(np.asarray(temperature) > 0):
        raise SchemeError(
            f"temperature={temperature!r}: {name} needs one > 0; integrators.BAOAB "
            "takes 0"
        )
    return temperature


def bounds(
    groups: str, layout: Layout, free: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64] | None:
    """Where groups with coefficients of their own begin: tensors, or None.

    Tensors that do not move at all, by ``free`` (D,), belong to a neighbour's group.
    """
    if groups != "layer":
        return None
    stops = [part.stop for part, _ in layout.values() if free[part].any()]
    return np.array([0, *stops[:-1], free.size], np.int64)


def with_calls(sequence: _Sequence) -> _Sequence:
    """Put call 0 before each bath of a sequence."""
    out: list[tuple[int, int, int]] = []
    for item in sequence:
        if item[0] == CODES["O"]:
            out.append((CALL, 0, 0))
        out.append(item)
    return tuple(out)


def describe(integrator: Any, kind: str) -> dict[str, Any]:
    """JSON-able settings of an integrator of ``kind``: the fields it is made of."""
    base = {f.name for f in fields(Splitting)} - _KEPT
    given = {
        f.name: schedules.describe(getattr(integrator, f.name))
        for f in fields(integrator)
        if f.name not in base
    }
    if len(integrator.frozen):
        given["frozen"] = baths.describe(integrator.frozen)
    return {"kind": kind, **given}


def remake(kind: Any) -> Any:
    """How an integrator of class ``kind`` is made again from what `describe` gave."""

    def make(record: dict[str, Any]) -> Any:
        given = {k: v for k, v in record.items() if k not in ("kind", "frozen")}
        read = {k: schedules.from_description(v) for k, v in given.items()}
        return kind(**read, frozen=baths.read(record.get("frozen", [])))

    return make


class Rows(Companion):
    """Companion that asks its integrator for parameters, one value a replica."""

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(context)
        self.integrator = integrator
        self.replicas = context.state.replicas
        self._rows: dict[str, Array] = {}

    def row(self, name: str, step: int) -> Array:
        """Value of a parameter for each replica at ``step``: (R,) on the device."""
        value = getattr(self.integrator, name)
        if name not in self._rows or callable(value):
            given = np.asarray(self.integrator.scalar(name, step), np.float64)
            self._rows[name] = self.context.backend.asarray(
                np.array(np.broadcast_to(given, (self.replicas,)))
            )
        return self._rows[name]


class Bath(Rows):
    """Companion that sets the coefficients of the one bath of its integrator.

    Attributes
    ----------
    bath : (R, G, 2) float64
        (c, s) of each group, on the device; the identity at first.
    dof : (G,) float64
        Parameters of each group that move, on the device.
    """

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(integrator, context)
        backend, engine = context.backend, context.engine
        groups = backend.to_host(engine.groups)
        free = integrator.free(context.layout).astype(np.float64)
        sizes = np.add.reduceat(free, backend.to_host(engine.edges)[:-1])
        self.dof = backend.asarray(np.bincount(groups, sizes), np.float64)
        self.bath = backend.zeros((self.replicas, self.dof.size, 2), np.float64)
        self.bath[..., 0] = 1
        letters = [letter for letter, _ in integrator.scheme.operations]
        self._column = letters.index("D" if "D" in letters else "O")
        self._table: Array = None

    def settled(self) -> None:
        """Put right what a bath did to momenta, before they are looked at again."""

    def coefficients(self, step: int) -> Array:
        """Coefficients of the word, with those of the bath in their place."""
        if self._table is None or self.integrator.scheduled:
            table = self.integrator.coefficients(step, self.replicas)
            wide = np.repeat(table[:, :, None], self.dof.size, axis=2)
            self._table = self.context.backend.asarray(wide, np.float64)
        self._table[self._column] = self.bath
        return self._table

    def twice_kinetic(self) -> Array:
        """Twice the kinetic energy of each group, (R, G) on the device."""
        engine = self.context.engine
        return thermostat_arrays.group_sums(
            self.context.backend.xp,
            self.context.state.sums[0],
            engine.groups,
            engine.group_count,
        )

    def refuse_rest(self, name: str) -> None:
        """Refuse momenta that are zero in a whole group: no factor moves them."""
        twice = self.context.backend.to_host(self.twice_kinetic())
        if (twice <= 0).any():
            replica, group = np.argwhere(twice <= 0)[0]
            raise SchemeError(
                f"{name} multiplies momenta by a factor, and those of replica "
                f"{replica}, group {group} are all zero: it cannot set them in motion; "
                "leave momenta out, or call sim.draw_momenta()"
            )


def book(context: Context, momenta: Array) -> None:
    """Set the momenta, and book the change of kinetic energy as heat."""
    state = context.state
    state.momenta[...] = momenta
    twice = context.backend.xp.empty_like(state.sums[0])
    context.engine.kinetic(state.momenta, twice)
    thermostat_arrays.book(twice, state.sums)


class Pass:
    """Baths of each parameter: one pass over the momenta, compiled on the CPU.

    Parameters
    ----------
    context : Context
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        backend, engine, state = context.backend, context.engine, context.state
        self.compiled = backend.name == "cpu"
        self.unmatched = backend.zeros((state.replicas, engine.tiles), np.float64)
        self._none = backend.zeros((state.replicas, 0), backend.force_dtype)
        self._draw: Array = None
        if self.compiled:
            from numba import config

            threads = config.NUMBA_NUM_THREADS
            self._key = np.array(random.seed_words(context.seed), np.uint64)
            self._words = backend.zeros((threads, 4, random.TILE // 4), np.uint32)
            self._normals = backend.zeros((threads, random.TILE), backend.state_dtype)

    def scratch(self, step: int) -> tuple[Any, ...]:
        """Seed, step, words and normals for a compiled pass."""
        return self._key, step, self._words, self._normals

    def normals(self, step: int) -> Array:
        """Normals times sqrt(m), (R, D): those of the bath of stream 0."""
        s, engine = self._context.state, self._context.engine
        if self._draw is None:
            from mdnet.kernels.engine import Program

            backend = self._context.backend
            self._program = Program.build(backend, [(CODES["O"], 0, 0, 0)])
            self._draw = backend.zeros(s.momenta.shape, backend.state_dtype)
            self._spare = backend.zeros((4, *self.unmatched.shape), np.float64)
            table = np.zeros((1, 1, s.replicas, engine.group_count, 2))
            table[..., 1] = 1
            self._table = backend.asarray(table)
        engine.advance(
            self._program,
            s.positions,
            self._draw,
            s.forces,
            self._table,
            self._spare,
            step,
        )
        return self._draw

    def matched(
        self,
        step: int,
        rows: tuple[Array, Array, Array],
        rates: Array,
        noise: Array,
        captured: Array | None,
        absorb: bool,
    ) -> None:
        """Bath that fits the noise of forces; see `thermostats.matched_bath`.

        ``rows`` are time step, temperature and friction, (R,) each.
        """
        c = self._context
        s, engine = c.state, c.engine
        if self.compiled:
            from mdnet.kernels.thermostats import matched_bath

            matched_bath(
                s.momenta,
                c.inverse_mass,
                engine.edges,
                engine.groups,
                *rows,
                rates,
                noise,
                self._none if captured is None else captured,
                absorb,
                self.unmatched,
                s.sums,
                *self.scratch(step),
            )
            return
        xp = c.backend.xp
        left = noise.astype(np.float64)
        if captured is not None:
            left = xp.maximum(left - captured, 0.0)
        sizes = xp.diff(engine.edges)
        which = xp.repeat(engine.groups, sizes.tolist())
        momenta, short = thermostat_arrays.match(
            xp,
            s.momenta.astype(np.float64),
            self.normals(step),
            c.inverse_mass,
            rates[:, which],
            left,
            absorb,
            tuple(row[:, None] for row in rows),
        )
        self.unmatched[...] = 0
        self.unmatched[:, 0] = short.sum(axis=1)
        book(c, momenta)
