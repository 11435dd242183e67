"""Launches the fused step on CUDA, and keeps what a launch needs on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.kernels import cuda
from mdnet.kernels.cuda_build import Launch
from mdnet.kernels.letters import TILE
from mdnet.typing import Array

__all__ = ["Steps"]

_WARP = 32
_KEPT = 32  # launches whose arrays stay prepared


class Steps:
    """Kernels of `mdnet.kernels.cuda` for one simulation.

    Parameters
    ----------
    backend : Backend
    inverse_mass : (1,) or (D,) float64
        On the device.

    Attributes
    ----------
    clock : (1,) int64
        On the device; added to every number of a step.  Zero but during the replay
        of a graph.
    """

    def __init__(self, backend: Backend, inverse_mass: Array) -> None:
        self.clock = backend.xp.zeros(1, np.int64)
        self._kinds = (
            backend.precision == "single",
            backend.precision != "double",
            inverse_mass.shape[0] == 1,
        )
        self._prepared: dict[tuple[int, ...], Launch] = {}
        self._set = self._launch("set_clock", 1, (self.clock,), 1)
        self._tick = self._launch("tick", 1, (self.clock,), 1)

    def _launch(self, name: str, blocks: int, arrays: Any, threads: int) -> Launch:
        """A prepared launch; those used lately are kept, with their arrays."""
        key = (hash(name), *(id(a) for a in arrays))
        found = self._prepared.pop(key, None)
        if found is None:
            kernel = cuda.kernel(name, *self._kinds)
            found = Launch(kernel, blocks, threads, arrays)
            if len(self._prepared) >= _KEPT:
                self._prepared.pop(next(iter(self._prepared)))
        self._prepared[key] = found
        return found

    @staticmethod
    def _threads(size: int) -> int:
        """Threads of a block: a power of two with one for each counter of a tile."""
        quarter = -(-min(size, TILE) // 4)
        return max(_WARP, 1 << (quarter - 1).bit_length())

    def advance(self, *arguments: Any) -> None:
        """Launch `cuda.advance`; arguments as there, less the clock."""
        *arrays, step, repeats = arguments
        blocks = arrays[0].shape[0] * arrays[11].shape[0]
        threads = self._threads(arrays[0].shape[1])
        self._launch("advance", blocks, (*arrays, self.clock), threads)(step, repeats)

    def kinetic(self, p: Array, inverse_mass: Array, edges: Array, out: Array) -> None:
        """Launch `cuda.kinetic`."""
        blocks = out.shape[0] * out.shape[1]
        threads = self._threads(p.shape[1])
        self._launch("kinetic", blocks, (p, inverse_mass, edges, out), threads)()

    def set_clock(self, step: int) -> None:
        """Let the clock show ``step``, in the order of the stream."""
        self._set(step)

    def tick(self, steps: int) -> None:
        """Move the clock on, in the order of the stream."""
        self._tick(steps)
