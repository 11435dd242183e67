"""Launches of the fused step on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.kernels.letters import BATH, TILE
from mdnet.kernels.pause import uncollected
from mdnet.kernels.table import Table, aligned
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.kernels.engine import Engine, Program

__all__ = ["Steps"]


class Steps:
    """The kernel of `mdnet.kernels.cpu` with its scratch, and a table per program.

    A launch costs little above the work itself: one thread does what is little, and
    a table is changed only where an array is another than before.

    Parameters
    ----------
    engine : Engine
    polynomial : (4,) float64
        Coefficients of a fused polynomial force.
    seed : int
    size : int
        Parameters D.

    Attributes
    ----------
    address : int
        Of the C function.
    step_field : int
        Index of the number of the step in a table.
    """

    SMALL = 6_000_000
    """Byte-passes below which waking a thread costs more than it saves."""
    TURNS = 8
    """Times that a worker comes for more: neighbouring blocks are taken together."""
    NOISE = 8
    """Passes that a bath is worth."""

    @uncollected
    def __init__(self, engine: Engine, polynomial: Array, seed: int, size: int) -> None:
        import numba

        from mdnet.kernels import cpu, native, noise

        self._kind = cpu.TABLE
        self._spread, self._threads = native.spread, numba.get_num_threads
        backend = engine.backend
        self._types = backend.state_dtype, backend.force_dtype
        threads = numba.config.NUMBA_NUM_THREADS
        kernel = cpu.advance(*self._types)
        self._call, self.address = kernel.ctypes, kernel.address
        self._arrays = {
            "inverse_mass": np.ascontiguousarray(engine.inverse_mass, np.float64),
            "polynomial": polynomial,
            "edges": engine.edges,
            "groups": engine.groups,
            "words": aligned((threads, TILE), np.uint32),
            # Zeros: a bath without noise multiplies this scratch by 0, NaN or not.
            "normals": aligned((threads, TILE), backend.state_dtype),
        }
        k0, k1 = random.seed_words(seed)
        self._settings = {
            "size": size,
            "tiles": engine.tiles,
            "group_count": engine.group_count,
            "masses": engine.inverse_mass.size,
            "fill": noise.filler(backend.state_dtype).address,
            "k0": k0,
            "k1": k1,
            **{name: array.ctypes.data for name, array in self._arrays.items()},
        }
        self._measure = Table(self._kind, self._settings)
        place = self._measure.place
        self._next, self._worker, self._step, self._repeats, self._schedule = (
            place[name] for name in ("next", "worker", "step", "repeats", "schedule")
        )
        self.step_field = self._step
        self._replicas, self._share = place["replicas"], place["share"]
        self._q, self._p, self._f, self._coefficients, self._sums = (
            place[name] for name in ("q", "p", "f", "coefficients", "sums")
        )
        self._programs: dict[int, tuple[Program, Table, int]] = {}
        self._tiles = engine.tiles
        self._copy: Array | None = None

    def advance(
        self,
        program: Program,
        q: Array,
        p: Array,
        f: Array,
        coefficients: Array,
        sums: Array,
        step: int,
        repeats: int,
    ) -> None:
        """Run ``program`` on every replica; see `mdnet.kernels.cpu.advance`."""
        table, passes = self._tables(program, q, p, f, coefficients, sums)
        view = table.view
        view[self._step] = step
        view[self._repeats] = repeats
        self._run(table, passes * repeats * q.nbytes)

    def ready(
        self,
        program: Program,
        q: Array,
        p: Array,
        f: Array,
        coefficients: Array,
        sums: Array,
        workers: int,
    ) -> int:
        """Address of a table that makes ``program`` run once, in so many threads."""
        table, _ = self._tables(program, q, p, f, coefficients, sums)
        tasks = table.view[self._replicas] * self._tiles
        table.view[self._repeats] = 1
        table.view[self._share] = -(-tasks // (1 if workers == 1 else self.TURNS))
        return table.address

    def _tables(
        self,
        program: Program,
        q: Array,
        p: Array,
        f: Array,
        coefficients: Array,
        sums: Array,
    ) -> tuple[Table, int]:
        """Table of a program for these arrays, and how many passes it is worth."""
        known = self._programs.get(id(program))
        if known is None:
            known = self._programs[id(program)] = self._enter(program)
        _, table, passes = known
        if not (
            table.holds(self._q, q)
            and table.holds(self._p, p)
            and table.holds(self._f, f)
            and table.holds(self._coefficients, coefficients)
            and table.holds(self._sums, sums)
        ):
            self._point(table, q, p, f, coefficients, sums)
        return table, passes

    def kinetic(self, p: Array, out: Array) -> None:
        """Twice the kinetic energy of each block into ``out`` (R, tiles)."""
        state, _ = self._types
        table = self._measure
        self._check(table, self._p, p, state)
        self._check(table, self._sums, out, np.dtype(np.float64))
        table.view[self._replicas] = p.shape[0]
        self._run(table, p.nbytes)

    def _enter(self, program: Program) -> tuple[Program, Table, int]:
        """Table of a program, and how many passes its work is worth."""
        settings = {
            "count": program.codes.size,
            "codes": program.codes.ctypes.data,
            "streams": program.streams.ctypes.data,
            "later": program.later.ctypes.data,
        }
        passes = program.codes.size + (self.NOISE - 1) * int(
            (program.codes == BATH).sum()
        )
        return program, Table(self._kind, {**self._settings, **settings}), passes

    def _point(
        self, table: Table, q: Array, p: Array, f: Array, coefficients: Array, sums: Any
    ) -> None:
        """Put the addresses of a launch's arrays into a table."""
        state, force = self._types
        real = np.dtype(np.float64)
        # Held until the next, because a table does not keep its arrays alive.
        self._copy = np.ascontiguousarray(coefficients, np.float64)
        for field, array, kind in (
            (self._q, q, state),
            (self._p, p, state),
            (self._f, f, force),
            (self._coefficients, self._copy, real),
            (self._sums, sums, real),
        ):
            self._check(table, field, array, kind)
        table.view[self._replicas] = q.shape[0]
        table.view[self._schedule] = coefficients.shape[0] > 1

    @staticmethod
    def _check(table: Table, field: int, array: Array, kind: Any) -> None:
        if array.dtype != kind or not array.flags.c_contiguous:
            msg = (
                f"the step takes contiguous arrays of {kind}, got {array.dtype} with "
                f"strides {array.strides}; copy it with numpy.ascontiguousarray"
            )
            raise ValueError(msg)
        table.point(field, array)

    def _run(self, table: Table, work: int) -> None:
        view = table.view
        view[self._next] = 0
        view[self._worker] = 0
        view[self._share] = tasks = view[self._replicas] * self._tiles
        if work > self.SMALL:
            workers = min(self._threads(), tasks)
            if workers > 1:
                view[self._share] = -(-tasks // (self.TURNS * workers))
                self._spread(self.address, table.address, workers)
                return
        self._call(table.address)
