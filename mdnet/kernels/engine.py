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

__all__ = ["Engine", "Program", "blocks"]


def blocks(size: int, bounds: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Where blocks of parameters begin, and the group that each belongs to.

    Parameters
    ----------
    size : int
        Parameters D.
    bounds : (G + 1,) int, optional
        Where each group begins; one group of all if not given.  No block crosses a
        multiple of ``TILE``, nor a bound.

    Returns
    -------
    edges : (tiles + 1,) int64
    groups : (tiles,) int64
    """
    limits = np.array([0, size] if bounds is None else bounds, np.int64)
    edges = np.union1d(np.arange(0, size, TILE), limits).astype(np.int64)
    groups = np.searchsorted(limits, edges[:-1], side="right") - 1
    return edges, groups.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Program:
    """A run of operations between two force evaluations, on the device.

    Attributes
    ----------
    codes, streams, later : (n,) int64
        Operation codes, noise stream of each, and whether its noise is that of the
        next step (1) or of this one (0).
    columns : (n,) int, on the host
        Index of each operation into the integrator's coefficients.
    shifts : (n,) int, on the host
        Coefficients are those of step + shift; ``later`` too, but for noise that is
        drawn ahead.
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
        """Make one from (code, column, stream, later) of each operation.

        A stream of 256 + k is stream k of one step later.
        """
        table = np.array(operations, dtype=np.int64).reshape(-1, 4)
        codes, columns, streams, shifts = (
            np.ascontiguousarray(table[:, i]) for i in range(4)
        )
        return cls(
            backend.asarray(codes),
            backend.asarray(streams % 256),
            backend.asarray(shifts + streams // 256),
            columns,
            shifts,
        )


class Engine:
    """The kernels of one simulation.

    Parameters
    ----------
    backend : Backend
    inverse_mass : (1,) or (D,) float64
        On the device.
    seed : int
    size : int
        Parameters D.
    polynomial : (4,) float64 or None
        Coefficients of a fused polynomial force.
    bounds : (G + 1,) int, optional
        Groups of parameters with coefficients of their own; see `blocks`.

    Attributes
    ----------
    edges, groups : arrays
        On the device; see `blocks`.
    tiles, group_count : int
    cpu, cuda : Steps
        Of the device; see `mdnet.kernels.cpu_steps` and `mdnet.kernels.cuda_steps`.
    """

    def __init__(
        self,
        backend: Backend,
        inverse_mass: Array,
        seed: int,
        size: int,
        polynomial: Any = None,
        bounds: Any = None,
    ) -> None:
        self.backend = backend
        self.inverse_mass = inverse_mass
        self._key = backend.asarray(np.array(random.seed_words(seed), np.uint64))
        self._polynomial = backend.asarray(
            np.zeros(4) if polynomial is None else np.asarray(polynomial, np.float64)
        )
        edges, groups = blocks(size, bounds)
        self.tiles, self.group_count = groups.size, int(groups[-1]) + 1
        self.edges, self.groups = backend.asarray(edges), backend.asarray(groups)
        if backend.name == "cpu":
            from mdnet.kernels import cpu_steps

            self.cpu: Any = cpu_steps.Steps(self, self._polynomial, seed, size)
        else:
            from mdnet.kernels.cuda_steps import Steps

            self.cuda = Steps(backend, inverse_mass)
            self.cpu = None

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
        """Run ``program`` ``repeats`` times on every replica.

        Parameters
        ----------
        program : Program
        q, p, f : (R, D)
            Positions, momenta, forces; changed in place.
        coefficients : (S, n, R, G, 2) float64
            S is ``repeats`` for scheduled coefficients, else 1; G groups.
        sums : (4, R, tiles) float64
            Per block: twice the kinetic energy now, the same after the last bath,
            heat and kick work so far.
        step : int
            Steps done before the first repeat.
        repeats : int
        """
        if self.cpu is not None:
            self.cpu.advance(program, q, p, f, coefficients, sums, step, repeats)
            return
        self.cuda.advance(
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
            self.edges,
            self.groups,
            self._key,
            step,
            repeats,
        )

    def kinetic(self, p: Array, out: Array) -> None:
        """Twice the kinetic energy of each block into ``out`` (R, tiles)."""
        if self.cpu is not None:
            self.cpu.kinetic(p, out)
        else:
            self.cuda.kinetic(p, self.inverse_mass, self.edges, out)
