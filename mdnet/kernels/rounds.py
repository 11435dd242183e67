"""Many turns of forces and letters on the CPU in one call.

What a step does between two force calls costs a small network less than the way
through Python does, and waking a second thread costs as much as ten of its steps.  A
team of threads therefore goes through all turns by itself: each calls the force, waits
for the others, calls the program of letters that follows, and waits again.  Who did
what changes no bit, as in the functions that are called.

A thread that is late stays out: the first one waits for the others a while, and then
goes with those that came.  Some ways of running threads give two turns of a loop to
one thread, and on a busy machine waiting costs more than help is worth.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types

from mdnet.kernels import native
from mdnet.kernels.fingerprint import fingerprint
from mdnet.kernels.native import add, call, look, pointer, record, take
from mdnet.kernels.table import Table

if TYPE_CHECKING:
    from mdnet.kernels.engine import Engine, Program
    from mdnet.typing import Array

__all__ = ["TABLE", "Rounds", "kernel"]

_FIELDS = """
    joined _1 _2 _3 _4 _5 _6 _7 arrived _9 _10 _11 _12 _13 _14 _15
    released _17 _18 _19 _20 _21 _22 _23
    workers alone team turns pairs step stride force force_table calls advance programs
    steps yield_
"""
TABLE = np.dtype([(name, np.int64) for name in _FIELDS.split()])
"""What a team needs: counters, numbers of turns, addresses; see `kernel`."""
_RECORD = from_dtype(TABLE)
_JOINED, _ARRIVED, _RELEASED = 0, 64, 128  # bytes: each in a cache line of its own
_CLOSED = 2**32  # added to ``joined`` when the team is complete
_PATIENCE = 2000  # looks before a waiting thread lets another one run
_LATE = 2500  # looks after which the team goes without those that are not there


@njit(error_model="numpy")
def _wait(t: Any, cell: Any, count: Any, most: Any) -> None:
    """Wait until a counter has come to ``count``, or for so many looks."""
    looks = 0
    while look(cell) < count and looks != most:
        looks += 1
        if looks > _PATIENCE and t.yield_ != 0:
            call(t.yield_, (), np.int32)


def _rounds(version: int) -> Any:
    """Write the kernel; ``version`` is part of its key on disk."""

    def rounds(address: Any) -> Any:
        t = record(address, _RECORD)
        me = take(address + _JOINED)
        if me >= _CLOSED:
            return version
        if me == 0:
            _wait(t, address + _JOINED, t.workers, _LATE)
            t.team = add(address + _JOINED, _CLOSED)
            take(address + _ARRIVED)
        else:
            _wait(t, address + _ARRIVED, 1, -1)
        team, gate, done = t.team, np.int64(1), np.int64(0)
        together = t.alone == 0
        force = carray(pointer(t.force_table, np.int64), (t.calls + 1,))
        programs = carray(pointer(t.programs, np.int64), (t.pairs,))
        for turn in range(t.turns):
            for j in range(t.pairs):
                table = programs[j]
                if me == 0 and table != 0:
                    # Nobody is in the program: all have passed the gate before.
                    fields = carray(pointer(table, np.int64), (t.steps + 1,))
                    fields[0] = fields[1] = 0
                    fields[t.steps] = t.step + turn * t.stride
                call(t.force, (t.force_table,), np.int64)
                if team > 1:
                    gate += team
                    take(address + _ARRIVED)
                    if together or me == 0:
                        _wait(t, address + _ARRIVED, gate, -1)
                if me == 0:
                    force[0] = force[1] = force[2] = 0
                    force[t.calls] += 1
                if table != 0 and (together or me == 0):
                    call(t.advance, (table,), np.int64)
                if team > 1 and together:
                    gate += team
                    take(address + _ARRIVED)
                    _wait(t, address + _ARRIVED, gate, -1)
                elif team > 1:
                    done += 1
                    if me == 0:
                        take(address + _RELEASED)
                    else:
                        _wait(t, address + _RELEASED, done, -1)
        return version

    return rounds


@cache
def kernel() -> Any:
    """Compile the C function ``int64 (table)``.

    Each of up to ``workers`` calls it once with the address of the same `TABLE`, whose
    counters ``joined``, ``arrived`` and ``released`` start at zero.  A turn is
    ``pairs`` times the function ``force`` with its table, then ``advance`` with one of
    the tables at ``programs`` (0: nothing to do), by the first thread only if ``alone``
    is not 0.  In between the tables' own counters, their first fields, are put back to
    zero; field ``calls`` of the force's table goes up by 1 with each call, and field
    ``steps`` of a program's by ``stride`` with each turn.
    """
    source = _rounds(fingerprint(native))
    return cfunc(types.int64(types.int64), cache=True, error_model="numpy")(source)


class Rounds:
    """Turns of one sequence: force, program, force, program...

    Parameters
    ----------
    engine : Engine
        On the CPU.
    evaluator : Evaluator
        With ``ready(positions, out, call, turns)``: its C function, its table set up
        for force call number ``call``, the index there of that number and how many
        threads are worth waking; or None if these arrays do not suit it.
    programs : list of Program
        Letters after each force of a turn.
    stride : int
        Steps that a turn makes.
    """

    ALONE = 10_000
    """Parameters of all replicas below which letters are one thread's business."""
    WORK = 1_000_000_000
    """Most multiplications of forces in a call, which a signal cannot stop."""

    def __init__(
        self, engine: Engine, evaluator: Any, programs: list[Program], stride: int
    ) -> None:
        self._steps, self._evaluator = engine.cpu, evaluator
        self._programs = programs
        self._addresses = np.zeros(len(programs), np.int64)
        compiled = kernel()
        self._call, self._address = compiled.ctypes, compiled.address
        self._table = Table(
            TABLE,
            {
                "pairs": len(programs),
                "stride": stride,
                "programs": self._addresses.ctypes.data,
                "advance": engine.cpu.address,
                "steps": engine.cpu.step_field,
                "yield_": native.yield_address(),
            },
        )
        names = (
            "joined arrived released workers alone turns step force force_table calls"
        )
        self._fields = [self._table.place[name] for name in names.split()]

    def run(
        self,
        arrays: tuple[Array, Array, Array],
        sums: Array,
        coefficients: list[Array | None],
        turns: int,
        call: int,
        step: int,
    ) -> int:
        """Make up to ``turns`` turns; returns how many were made.

        Parameters
        ----------
        arrays : (q, p, f)
            Positions, momenta and forces, (R, D).
        sums : (4, R, tiles) float64
            See `mdnet.kernels.engine.Engine.advance`.
        coefficients : list of (1, n, R, G, 2) float64 arrays
            Of each program; None for one without letters.
        turns : int
        call : int
            Number of the first force call.
        step : int
            Steps done before the first turn.
        """
        positions, _, forces = arrays
        ready = self._evaluator.ready(positions, forces, call, turns)
        if ready is None:
            return 0
        function, table, calls, workers, work = ready
        turns = max(1, min(turns, self.WORK // max(1, work * len(self._programs))))
        for i, (program, numbers) in enumerate(
            zip(self._programs, coefficients, strict=True)
        ):
            if numbers is not None:
                self._addresses[i] = self._steps.ready(
                    program, *arrays, numbers, sums, workers
                )
        alone = int(positions.size < self.ALONE)
        values = (0, 0, 0, workers, alone, turns, step, function, table, calls)
        view = self._table.view
        for field, value in zip(self._fields, values, strict=True):
            view[field] = value
        if workers == 1:
            self._call(self._table.address)
        else:
            native.spread(self._address, self._table.address, workers)
        return turns
