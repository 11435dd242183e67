"""Whole steps as a CUDA graph: captured once, replayed from then on.

What changes from step to step, the numbers of the step and of its force calls, is read
from a clock in device memory that the graph itself moves on; all else (arrays,
coefficients, sizes) is the same each time.  The stream is captured by CuPy; Numba's
kernels and our calls of cuBLAS go to CuPy's current stream and are captured with it.
Under the simulator, where nothing can be captured, a replay makes the same calls again
with the same numbers, so that the arithmetic of the clock is tested there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from mdnet.backend import Backend
from mdnet.kernels.engine import Engine

__all__ = ["Replay", "capturable"]

_LENGTHS = (16, 1)
"""Steps of a graph: one launch of the longer is worth many of a kernel."""


def capturable(backend: Backend, evaluator: Any, scheduled: bool) -> bool:
    """Whether steps can be captured.

    Parameters
    ----------
    backend : Backend
    evaluator : Evaluator
        With an attribute ``capturable`` that is true if its forces allocate nothing
        and wait for nothing on a device; it then has ``bind_clock``.
    scheduled : bool
        Whether the integrator's coefficients change from step to step.
    """
    fit = bool(getattr(evaluator, "capturable", False))
    return backend.name == "cuda" and fit and not scheduled


class Replay:
    """Captures and replays the steps of one simulation.

    Parameters
    ----------
    backend : Backend
    engine : Engine
    evaluator : Evaluator
        See `capturable`.
    body : callable
        ``body(step)`` launches all of the step after ``step`` in order, force calls
        numbered from ``step * calls`` on.
    calls : int
        Force calls a step.
    """

    def __init__(
        self,
        backend: Backend,
        engine: Engine,
        evaluator: Any,
        body: Callable[[int], None],
        calls: int,
    ) -> None:
        self._backend, self._cuda, self._body = backend, engine.cuda, body
        self._graphs: dict[int, Any] = {}
        self._stream: Any = None
        self._warm = self._broken = False
        evaluator.bind_clock(engine.cuda.clock, calls)

    def run(self, steps: int, step: int) -> int:
        """Make up to ``steps`` steps from ``step`` on; returns how many were made.

        0 asks the caller to make one by itself: the first time, so that everything is
        compiled before a capture begins, and always if a capture has failed.
        """
        if steps < 1 or self._broken:
            return 0
        if not self._warm:
            self._warm = True
            self._cuda.tick(0)  # the one kernel that a plain step does not load
            return 0
        self._cuda.set_clock(step)
        done = 0
        for length in _LENGTHS:
            if steps - done >= length and length not in self._graphs:
                graph = self._capture(length)
                if graph is None:
                    break
                self._graphs[length] = graph
            while steps - done >= length:
                self._graphs[length].launch()
                done += length
        self._cuda.set_clock(0)
        return done

    def _launch_all(self, length: int) -> None:
        for i in range(length):
            self._body(i)
        self._cuda.tick(length)

    def _capture(self, length: int) -> Any:
        """A graph of ``length`` steps, or None if capture fails."""
        if self._backend.simulated:
            return _Calls(lambda: self._launch_all(length))
        if self._stream is None:
            self._stream = self._backend.xp.cuda.Stream(non_blocking=True)
        stream = self._stream
        try:
            with stream:
                stream.begin_capture()
                try:
                    self._launch_all(length)
                finally:
                    graph = stream.end_capture()
        except Exception as error:
            self._broken = True
            warnings.warn(
                f"CUDA graph capture failed ({error}): steps are launched one by one, "
                "which is slower and gives the same results",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        graph.upload()
        return graph


class _Calls:
    """What the simulator has for a graph."""

    def __init__(self, launch: Callable[[], None]) -> None:
        self.launch = launch
