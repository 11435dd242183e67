"""Turns an integrator's sequence of letters into kernel launches and force calls.

Between two breaks (a force evaluation, a call of the integrator's companion, a loop)
everything is one fused program: the end of a step and the start of the next one
included, unless something reads the state in between.  Potentials whose force is a
polynomial of each parameter go further: there a force is a letter like any other, and
whole steps run inside one launch while a block of parameters stays in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.integrators.companion import CALL, CLOSE, LOOP
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.kernels.engine import Engine, Program
from mdnet.kernels.graph import Replay, capturable
from mdnet.kernels.letters import BATH, DRIFT, FORCE
from mdnet.state import State
from mdnet.typing import Array, Schedule

__all__ = ["Stepper"]

_CHUNK = 4096  # steps of scheduled coefficients handed over at once
_WORTH = 500  # turns one by one before another kernel is compiled for them
_ROOM = 2**20  # pairs of coefficients that they may be
_Operation = tuple[int, int, int, int]
_Letter = tuple[int, int, int]


class _Sweep:
    """A sequence cut at its breaks: programs with what happens between them.

    Attributes
    ----------
    breaks : list of (kind, item)
        ("force", whether positions stay until the next call), ("call", index) or
        ("loop", `_Sweep`); one fewer than the programs of a sequence, which stand
        around them.
    plain : bool
        Whether all breaks are forces alone.
    judged : bool
        Of a loop: whether the companion is called where its last force was evaluated.
    first, middle, last, joined : Program
        ``joined`` is ``last`` followed by ``first`` of the next turn.
    whole : Program or None
        The whole turn, where it has no break.
    """

    def __init__(
        self, backend: Backend, sequence: list[_Letter], fused: bool, shift: int
    ) -> None:
        self.breaks: list[tuple[str, Any]] = []
        self.judged = False
        self.last: Program
        segments: list[list[_Operation]] = [[]]
        self.forces = 0
        position = 0
        while position < len(sequence):
            code, column, stream = sequence[position]
            position += 1
            if code >= 0:
                segments[-1].append((code, column, stream, 0))
                continue
            if code == LOOP:
                end = next(
                    i for i, item in enumerate(sequence) if i >= position
                    and item[0] == CLOSE
                )  # fmt: skip
                inner = _Sweep(backend, sequence[position:end], fused, 0)
                position = end + 1
                rests = _before_call(sequence[position:])
                inner.judged = rests and not (inner.last.codes == DRIFT).any()
                self.breaks.append(("loop", inner))
            elif code == CALL:
                self.breaks.append(("call", column))
            else:
                self.forces += 1
                if fused:
                    segments[-1].append((FORCE, 0, 0, 0))
                    continue
                self.breaks.append(("force", _before_call(sequence[position:])))
            segments.append([])
        build = Program.build
        self.first, self.last = (build(backend, segments[i]) for i in (0, -1))
        self.middle = [build(backend, segment) for segment in segments[1:-1]]
        again = [
            (code, column, stream, shift) for code, column, stream, _ in segments[0]
        ]
        self.joined = build(backend, segments[-1] + again)
        self.whole = self.first if not self.breaks else None
        self.plain = bool(self.breaks) and all(
            kind == "force" and not item for kind, item in self.breaks
        )


def _before_call(sequence: list[_Letter]) -> bool:
    """Whether the companion is called before positions move or a loop begins or ends.

    Then one pass gives it the energy along with the force.
    """
    code = next((code for code, _, _ in sequence if code < 0 or code == DRIFT), DRIFT)
    return code == CALL


class Stepper:
    """Advances a state; owns no physics, only the order of launches.

    Parameters
    ----------
    backend : Backend
    integrator : object
        With ``operations()``, ``coefficients(step, replicas)``, ``time_step(step)``,
        ``scheduled`` and ``scheme``; see `mdnet.integrators.Splitting`.
    evaluator : Evaluator
    state : State
    engine : Engine
    protocol : schedule, optional
        lambda(step) of a path potential; its evaluator then has ``set_parameter``,
        ``refresh`` and ``parameter_energies``.
    companion : Companion, optional
        What ``integrator.bind`` returned.
    """

    def __init__(
        self,
        backend: Backend,
        integrator: Any,
        evaluator: Any,
        state: State,
        engine: Engine,
        protocol: Schedule | None = None,
        companion: Any = None,
    ) -> None:
        self.backend = backend
        self.integrator = integrator
        self.evaluator = evaluator
        self.state = state
        self.engine = engine
        self.protocol = protocol
        self.companion = companion
        self._driven = (
            companion is not None
            and not companion.steady
            and companion.coefficients(state.step) is not None
        )
        self._every = 0 if companion is None else companion.every
        self._call = 0
        sequence = list(integrator.operations())
        codes = [code for code, _, _ in sequence]
        self._carries = integrator.scheme.carries_force and FORCE_CALL in codes
        self._ends_fresh = self._fresh_at_end(codes)
        self.fused = (
            evaluator.polynomial is not None and evaluator.full and protocol is None
        )
        self._force_only = Program.build(backend, [(FORCE, 0, 0, 0)])
        self._sweep = _Sweep(backend, sequence, self.fused, 1)
        self.force_calls = integrator.scheme.force_calls
        self._final = self._final_sweeps(sequence)
        # Asked for once: a property and its checks cost more than a small launch.
        self._scheduled = bool(integrator.scheduled)
        self._dt = np.asarray(integrator.time_step(0))[()]
        self._constant: dict[int, Array] = {}
        self._lambda = protocol(state.step) if protocol is not None else 0.0
        if protocol is not None:
            evaluator.set_parameter(float(self._lambda))
        self._replay: Replay | None = None
        self._rounds: dict[int, Any] = {}
        self._patience = _WORTH
        direct = engine.cpu is not None and hasattr(evaluator, "ready")
        plain = not self.fused and protocol is None and not self._scheduled
        self._compiled = direct and plain
        idle = companion is None or (
            companion.steady and not companion.every and CALL not in codes
        )
        free = idle and protocol is None and not self.fused
        if free and capturable(backend, evaluator, self._scheduled):
            self._replay = Replay(
                backend, engine, evaluator, self._whole_step, self.force_calls
            )
        self._idle = idle

    @staticmethod
    def _fresh_at_end(codes: list[int]) -> bool:
        fresh = False
        for code in codes:
            if code == FORCE_CALL:
                fresh = True
            elif code == DRIFT:
                fresh = False
        return fresh

    def _final_sweeps(self, sequence: list[_Letter]) -> list[_Sweep]:
        """One step in two parts: momenta can be read between, after its last bath."""
        baths = [i for i, (code, _, _) in enumerate(sequence) if code == BATH]
        cut = baths[-1] + 1 if baths else len(sequence)
        settles = () if self.companion is None else self.companion.settles
        while (
            cut < len(sequence)
            and sequence[cut][0] == CALL
            and (sequence[cut][1] in settles)
        ):
            cut += 1
        parts = (sequence[:cut], sequence[cut:])
        return [_Sweep(self.backend, part, self.fused, 1) for part in parts]

    def _table(self, step: int) -> np.ndarray:
        """Coefficients (n, R, G, 2) of all operations of the step after ``step``."""
        if self.companion is not None:
            driven: np.ndarray | None = self.companion.coefficients(step)
            if driven is not None:
                return driven
        table = self.integrator.coefficients(step, self.state.replicas)
        if table.ndim == 3:
            table = table[:, :, None]
        groups = self.engine.group_count
        return np.broadcast_to(table, (*table.shape[:2], groups, 2))

    def _coefficients(self, program: Program, step: int, repeats: int = 1) -> Array:
        """Coefficients (S, n, R, G, 2) of a program on the device."""
        if self._driven and not self._scheduled:
            table = self._table(step)
            return self.backend.asarray(table[program.columns][None], np.float64)
        if not self._scheduled:
            key = id(program)
            if key not in self._constant:
                table = self._table(step)
                self._constant[key] = self.backend.asarray(
                    table[program.columns][None], np.float64
                )
            return self._constant[key]
        tables = [
            self._table(step + i)
            for i in range(repeats + int(program.shifts.max(initial=0)))
        ]
        # Those of a companion may live on the device.
        stack = np.stack if isinstance(tables[0], np.ndarray) else self.backend.xp.stack
        rows = [
            stack(
                [
                    tables[i + shift][column]
                    for column, shift in zip(
                        program.columns, program.shifts, strict=True
                    )
                ]
            )
            for i in range(repeats)
        ]
        return self.backend.asarray(stack(rows), np.float64)

    def _run(self, program: Program, step: int, repeats: int = 1) -> None:
        if program.columns.size == 0:
            return
        s = self.state
        self.engine.advance(
            program,
            s.positions,
            s.momenta,
            s.forces,
            self._coefficients(program, step, repeats),
            s.sums,
            step,
            repeats,
        )

    def _force(self, call: int, energies: Array | None = None) -> None:
        if self.fused:
            self._run(self._force_only, self.state.step)
            return
        self.evaluator.forces(self.state.positions, self.state.forces, call, energies)
        if energies is not None:
            self.companion.evaluated = True

    def ensure_force(self) -> None:
        """Evaluate the force at the present positions unless it is there already."""
        if not self.state.forces_fresh:
            self._force(self.state.step * self.force_calls)
            self.state.forces_fresh = True

    def advance(self, steps: int, probe: Any = None) -> None:
        """Make ``steps`` whole steps.

        Parameters
        ----------
        steps : int
        probe : callable, optional
            Called once, in the last step just after its last bath (at its end for
            words without one), when momenta carry the kinetic temperature.
        """
        while self._every and steps:
            # Before the step that follows a multiple, so that readings come first.
            due = self.state.step % self._every == 0
            if due and self.state.step:
                self.companion.between(self.state.step)
                self._constant.clear()
            part = min(steps, self._every - self.state.step % self._every)
            steps -= part
            self._advance(part, None if steps else probe)
        self._advance(steps, probe)

    def _advance(self, steps: int, probe: Any) -> None:
        if steps == 0:
            return
        if self._carries:
            self.ensure_force()
        if self.protocol is not None:
            for i in range(steps):
                self._set_parameter(self.protocol(self.state.step + 0.5))  # type: ignore[arg-type]
                self._final_step(probe if i == steps - 1 else None)
            self._set_parameter(self.protocol(self.state.step))
            return
        if steps > 1 and self._sweep.whole is not None:
            self._many_whole(self._sweep.whole, steps - 1)
        elif steps > 1:
            self._many(steps - 1)
        self._final_step(probe)

    def _many_whole(self, program: Program, steps: int) -> None:
        most = _CHUNK
        if self._scheduled:
            wide = self.state.replicas * self.engine.group_count
            most = max(1, min(_CHUNK, _ROOM // (wide * program.columns.size)))
        while steps:
            chunk = min(steps, most)
            self._run(program, self.state.step, chunk)
            self._count(chunk)
            steps -= chunk

    def _whole_step(self, step: int) -> None:
        """Breaks and programs of one step, and the beginning of the next."""
        self._call = step * self.force_calls
        self._between(self._sweep, step)
        self._run(self._sweep.joined, step)

    def _turns(self, sweep: _Sweep, turns: int, step: int, stride: int) -> int:
        """Make turns of a sequence in one call; returns how many, perhaps none."""
        if turns < 1 or not (self._compiled and sweep.plain):
            return 0
        rounds = self._rounds.get(id(sweep))
        programs = [*sweep.middle, sweep.joined]
        if rounds is None:
            self._patience -= 1
            if self._patience > 0:
                return 0
            from mdnet.kernels.rounds import Rounds

            rounds = Rounds(self.engine, self.evaluator, programs, stride)
            self._rounds[id(sweep)] = rounds
        numbers = [
            self._coefficients(program, step) if program.columns.size else None
            for program in programs
        ]
        s = self.state
        arrays, call = (s.positions, s.momenta, s.forces), self._call + 1
        done = rounds.run(arrays, s.sums, numbers, turns, call, step)
        self._call += done * len(sweep.breaks)
        return done

    def _ahead(self, steps: int) -> int:
        """Make steps without coming back in between, where that can be."""
        step = self.state.step
        if self._replay is not None:
            return self._replay.run(steps, step)
        if not self._idle:
            return 0
        self._call = step * self.force_calls
        return self._turns(self._sweep, steps, step, 1)

    def _many(self, steps: int) -> None:
        self._run(self._sweep.first, self.state.step)
        left = steps - 1
        while left > 0:
            done = self._ahead(left)
            if not done:
                self._whole_step(self.state.step)
                done = 1
            self._count(done)
            left -= done
        step = self.state.step
        self._call = step * self.force_calls
        self._between(self._sweep, step)
        self._run(self._sweep.last, step)
        self._count(1)

    def _between(self, sweep: _Sweep, step: int, judged: bool = False) -> None:
        """Do the breaks of a sequence and the programs between them.

        If ``judged``, the companion will ask for the energy at the last force.
        """
        last = len(sweep.breaks) - 1
        for i, (kind, item) in enumerate(sweep.breaks):
            if i:
                self._run(sweep.middle[i - 1], step)
            if kind == "force":
                self._call += 1
                wanted = item or (judged and i == last)
                self._force(self._call, self.companion.energy if wanted else None)
            elif kind == "call":
                self.companion.call(item, step)
                if self.companion.changed:
                    self._constant.clear()
                    self.companion.changed = False
            else:
                self._loop(item, step)

    def _loop(self, sweep: _Sweep, step: int) -> None:
        """Run an inner sequence several times, within one step."""
        turns = self.companion.repeats(step)
        if turns == 0:
            return
        if sweep.whole is not None:
            if not self._scheduled:
                self._run(sweep.whole, step, turns)
                return
            for _ in range(turns):
                self._run(sweep.whole, step)
            return
        self._run(sweep.first, step)
        left = turns
        while left > 1:
            done = self._turns(sweep, left - 1, step, 0)
            if not done:
                self._between(sweep, step)
                self._run(sweep.joined, step)
                done = 1
            left -= done
        self._between(sweep, step, sweep.judged)
        self._run(sweep.last, step)

    def _final_step(self, probe: Any) -> None:
        step = self.state.step
        self._call = step * self.force_calls
        for part, sweep in enumerate(self._final):
            if part == 1 and probe is not None:
                probe()
            self._run(sweep.first, step)
            if sweep.breaks:
                self._between(sweep, step)
                self._run(sweep.last, step)
        self._count(1)

    def _count(self, steps: int) -> None:
        s = self.state
        if self._scheduled:
            for i in range(steps):
                s.time = s.time + self.integrator.time_step(s.step + i)
            s.step += steps
        else:
            s.step += steps
            s.time = s.step * self._dt
        s.forces_fresh = self._ends_fresh

    def _set_parameter(self, value: Any) -> None:
        """Move lambda at fixed positions and book the work it does."""
        s, new = self.state, float(value)
        if new == self._lambda:
            return
        change = self.backend.xp.empty(s.replicas, np.float64)
        self.evaluator.parameter_energies(s.positions, self._lambda, new, change)
        s.protocol_work = s.protocol_work + self.backend.to_host(change)
        self.evaluator.set_parameter(new)
        self._lambda = new
        if self.companion is not None:
            self.companion.potential_changed()
        if s.forces_fresh:
            self.evaluator.refresh(s.forces)
