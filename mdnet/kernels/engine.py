"""Launches the fused kernels on whichever device the arrays live.

An `Engine` owns the scratch and the constant arrays of one simulation, so that a
launch allocates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.kernels.letters import TILE
from mdnet.typing import Array

__all__ = ["Engine", "Program", "tile_count"]


def tile_count(size: int) -> int:
    """Blocks of parameters a replica is cut into."""
    return -(-size // TILE)


@dataclass(frozen=True, slots=True)
class Program:
    """A run of operations between two force evaluations, on the device.

    Attributes
    ----------
    codes, streams, later : (n,) int64
        See `mdnet.kernels.cpu.advance`.
    columns : (n,) int, on the host
        Index of each operation into the integrator's coefficients.
    shifts : (n,) int, on the host
        ``later`` again: coefficients are those of step + shift.
    """

    codes: Array
    streams: Array
    later: Array
    columns: np.ndarray
    shifts: np.ndarray

    @classmethod
    def build(
        cls, backend: Backend, operations: list[tuple[int, int, int, int]]
    ) -> Program:
        """Make one from (code, column, stream, later) of each operation."""
        table = np.array(operations, dtype=np.int64).reshape(-1, 4)
        codes, columns, streams, later = (
            np.ascontiguousarray(table[:, i]) for i in range(4)
        )
        return cls(
            backend.asarray(codes),
            backend.asarray(streams),
            backend.asarray(later),
            columns,
            later,
        )


class Engine:
    """The kernels of one simulation.

    Parameters
    ----------
    backend : Backend
    inverse_mass : (1,) or (D,) float64
        On the device.
    seed : int
    polynomial : (4,) float64 or None
        Coefficients of a fused polynomial force.
    """

    def __init__(
        self,
        backend: Backend,
        inverse_mass: Array,
        seed: int,
        polynomial: Any = None,
    ) -> None:
        self.backend = backend
        self.inverse_mass = inverse_mass
        self._key = backend.asarray(np.array(random.seed_words(seed), np.uint64))
        self._polynomial = backend.asarray(
            np.zeros(4) if polynomial is None else np.asarray(polynomial, np.float64)
        )
        if backend.name == "cpu":
            from numba import config

            from mdnet.kernels import cpu

            threads = config.NUMBA_NUM_THREADS
            self._words = np.empty((threads, TILE), np.uint32)
            # Zeros: a bath without noise multiplies this scratch by 0, NaN or not.
            self._noise = np.zeros((threads, TILE), backend.state_dtype)
            self._cpu: Any = cpu
        else:
            from mdnet.kernels import cuda

            single = backend.precision == "single"
            force32 = backend.precision != "double"
            self._threads = cuda.THREADS
            self._advance = cuda.kernel("advance", single, force32)
            self._kinetic = cuda.kernel("kinetic", single, force32)
            self._cpu = None

    def advance(
        self,
        program: Program,
        q: Array,
        p: Array,
        f: Array,
        coefficients: Array,
        sums: Array,
        step: int,
        repeats: int = 1,
    ) -> None:
        """Run ``program`` on every replica; see `mdnet.kernels.cpu.advance`."""
        arguments = (
            q,
            p,
            f,
            self.inverse_mass,
            program.codes,
            program.streams,
            program.later,
            coefficients,
            self._polynomial,
            sums,
            self._key,
            step,
            repeats,
        )
        if self._cpu is not None:
            self._cpu.advance(*arguments, self._words, self._noise)
        else:
            self._advance[sums.shape[1] * sums.shape[2], self._threads](*arguments)

    def kinetic(self, p: Array, out: Array) -> None:
        """Twice the kinetic energy of each block into ``out`` (R, tiles)."""
        if self._cpu is not None:
            self._cpu.kinetic(p, self.inverse_mass, out)
        else:
            blocks = out.shape[0] * out.shape[1]
            self._kinetic[blocks, self._threads](p, self.inverse_mass, out)
