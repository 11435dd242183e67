"""Turns an integrator's sequence of letters into kernel launches and force calls.

Between two force evaluations everything is one fused program: the end of a step and
the start of the next one included, unless something reads the state in between.
Potentials whose force is a polynomial of each parameter go further: whole steps, force
included, run inside one launch while a block of parameters stays in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.kernels.engine import Engine, Program
from mdnet.kernels.letters import BATH, FORCE
from mdnet.state import State
from mdnet.typing import Array, Schedule

__all__ = ["Stepper"]

_CHUNK = 4096  # steps of scheduled coefficients handed over at once
_Piece = tuple[str, Any]


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
    """

    def __init__(
        self,
        backend: Backend,
        integrator: Any,
        evaluator: Any,
        state: State,
        engine: Engine,
        protocol: Schedule | None = None,
    ) -> None:
        self.backend = backend
        self.integrator = integrator
        self.evaluator = evaluator
        self.state = state
        self.engine = engine
        self.protocol = protocol
        sequence = integrator.operations()
        self.force_calls = sum(code < 0 for code, _, _ in sequence)
        self._carries = integrator.scheme.carries_force
        letters = [code for code, _, _ in sequence]
        self._ends_fresh = self._fresh_at_end(letters)
        self.fused = (
            evaluator.polynomial is not None and evaluator.full and protocol is None
        )
        inline = [
            (FORCE if code < 0 else code, column, stream, 0)
            for code, column, stream in sequence
        ]
        self._whole = Program.build(backend, inline)
        self._force_only = Program.build(backend, [(FORCE, 0, 0, 0)])
        self._segments = self._split(sequence)
        self._last = Program.build(backend, self._segments[-1])
        self._first = Program.build(backend, self._segments[0])
        self._middle = [Program.build(backend, s) for s in self._segments[1:-1]]
        self._joined = Program.build(
            backend,
            self._segments[-1]
            + [
                (code, column, stream, 1)
                for code, column, stream, _ in self._segments[0]
            ],
        )
        self._final = self._final_pieces(sequence)
        # Asked for once: a property and its checks cost more than a small launch.
        self._scheduled = bool(integrator.scheduled)
        self._dt = np.asarray(integrator.time_step(0))[()]
        self._constant: dict[int, Array] = {}
        self._lambda = protocol(state.step) if protocol is not None else 0.0
        if protocol is not None:
            evaluator.set_parameter(float(self._lambda))

    @staticmethod
    def _fresh_at_end(codes: list[int]) -> bool:
        fresh = False
        for code in codes:
            if code < 0:
                fresh = True
            elif code == 1:  # a drift
                fresh = False
        return fresh

    @staticmethod
    def _split(
        sequence: tuple[tuple[int, int, int], ...],
    ) -> list[list[tuple[int, int, int, int]]]:
        segments: list[list[tuple[int, int, int, int]]] = [[]]
        for code, column, stream in sequence:
            if code < 0:
                segments.append([])
            else:
                segments[-1].append((code, column, stream, 0))
        return segments

    def _final_pieces(self, sequence: tuple[tuple[int, int, int], ...]) -> list[_Piece]:
        """One step whose momenta can be read just after its last bath."""
        baths = [i for i, (code, _, _) in enumerate(sequence) if code == BATH]
        cut = baths[-1] if baths else len(sequence) - 1
        pieces: list[_Piece] = []
        run: list[tuple[int, int, int, int]] = []
        for i, (code, column, stream) in enumerate(sequence):
            if code < 0:
                pieces += [("run", run), ("force", None)]
                run = []
            else:
                run.append((code, column, stream, 0))
            if i == cut:
                pieces += [("run", run), ("probe", None)]
                run = []
        pieces.append(("run", run))
        return [
            (kind, Program.build(self.backend, ops) if kind == "run" else None)
            for kind, ops in pieces
            if kind != "run" or ops
        ]

    def _table(self, step: int) -> np.ndarray:
        """Coefficients (n, R, G, 2) of all operations of the step after ``step``."""
        table = self.integrator.coefficients(step, self.state.replicas)
        if table.ndim == 3:
            table = table[:, :, None]
        groups = self.engine.group_count
        return np.broadcast_to(table, (*table.shape[:2], groups, 2))

    def _coefficients(self, program: Program, step: int, repeats: int = 1) -> Array:
        """Coefficients (S, n, R, G, 2) of a program on the device."""
        if not self._scheduled:
            key = id(program)
            if key not in self._constant:
                table = self._table(0)
                self._constant[key] = self.backend.asarray(
                    table[program.columns][None], np.float64
                )
            return self._constant[key]
        tables = [
            self._table(step + i)
            for i in range(repeats + int(program.shifts.max(initial=0)))
        ]
        rows = [
            np.stack(
                [
                    tables[i + shift][column]
                    for column, shift in zip(
                        program.columns, program.shifts, strict=True
                    )
                ]
            )
            for i in range(repeats)
        ]
        return self.backend.asarray(np.stack(rows), np.float64)

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

    def _force(self, call: int) -> None:
        if self.fused:
            self._run(self._force_only, self.state.step)
        else:
            self.evaluator.forces(self.state.positions, self.state.forces, call)

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
        if steps > 1 and self.fused:
            self._many_fused(steps - 1)
        elif steps > 1:
            self._many(steps - 1)
        self._final_step(probe)

    def _many_fused(self, steps: int) -> None:
        while steps:
            chunk = min(steps, _CHUNK)
            self._run(self._whole, self.state.step, chunk)
            self._count(chunk)
            steps -= chunk

    def _many(self, steps: int) -> None:
        self._run(self._first, self.state.step)
        for i in range(steps):
            step = self.state.step
            for k in range(self.force_calls):
                self._force(step * self.force_calls + k + 1)
                if k < self.force_calls - 1:
                    self._run(self._middle[k], step)
            self._run(self._joined if i < steps - 1 else self._last, step)
            self._count(1)

    def _final_step(self, probe: Any) -> None:
        step = self.state.step
        k = 0
        for kind, program in self._final:
            if kind == "run":
                self._run(program, step)
            elif kind == "force":
                self._force(step * self.force_calls + k + 1)
                k += 1
            elif probe is not None:
                probe()
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
        if s.forces_fresh:
            self.evaluator.refresh(s.forces)
