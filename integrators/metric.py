r"""Masses that are a matrix: kicks and drifts in whitened momenta.

With :math:`M^{-1} = S S^T` the momenta that are kept are :math:`\tilde p = S^T p`, so
that :math:`K = p^T M^{-1} p/2 = \tilde p^2/2` and the bath is that of unit masses:

======  ===============================
letter  flow
======  ===============================
A       q <- q + h S p~
B       p~ <- p~ + h S^T F
O       p~ <- c p~ + sqrt((1 - c^2) T) z
======  ===============================

On a Gaussian of covariance T M^-1 all directions then oscillate with frequency one.
A matrix takes D^2 numbers, a kick or drift of R replicas R D^2 multiplications.

References
----------
C. H. Bennett, J. Comput. Phys. 19, 267 (1975), doi:10.1016/0021-9991(75)90077-7.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators.companion import Companion, Context
from mdnet.typing import Array

__all__ = ["DRIFT", "FIRST", "FORCED", "KICK", "DenseMass", "Flow", "Whitened"]

F = npt.NDArray[np.float64]

FIRST = FORCED = 1000
"""Number of the call that tells of a new force; all calls here are at least that."""
KICK, DRIFT = 2000, 3000
"""Numbers of the calls that kick and drift (+ column of the length)."""


@dataclass(frozen=True, eq=False)
class DenseMass:
    """A symmetric, positive definite matrix of masses.

    Attributes
    ----------
    matrix : (D, D) float64
        M.
    root : (D, D) float64
        S with S S^T = M^-1, from the Cholesky factor of M.
    """

    matrix: F
    root: F

    @classmethod
    def of(cls, matrix: Any) -> DenseMass:
        """Check a matrix and factorise it.

        Raises
        ------
        SchemeError
            A matrix that is not square, symmetric and positive definite.

        Examples
        --------
        >>> DenseMass.of([[4.0, 0.0], [0.0, 1.0]]).root.tolist()
        [[0.5, 0.0], [0.0, 1.0]]
        """
        m = np.array(matrix, np.float64)
        good = m.ndim == 2 and m.shape[0] == m.shape[1] and np.isfinite(m).all()
        if good and np.abs(m - m.T).max() <= 1e-8 * np.abs(m).max():
            m = (m + m.T) / 2
            try:
                factor = np.linalg.cholesky(m)
            except np.linalg.LinAlgError:
                pass
            else:
                return cls(m, np.ascontiguousarray(np.linalg.inv(factor).T))
        raise SchemeError(
            f"mass of shape {m.shape}: expected a number, one per parameter, or a "
            "symmetric positive definite matrix (D, D), as numpy.linalg.inv(covariance)"
        )

    def describe(self) -> dict[str, Any]:
        """JSON-able form."""
        packed = zlib.compress(self.matrix.tobytes(), 1)
        return {"dense": base64.b64encode(packed).decode(), "size": len(self.matrix)}

    @classmethod
    def read(cls, record: dict[str, Any] | None) -> DenseMass | None:
        """Turn what `describe` returned back into the matrix."""
        if record is None:
            return None
        raw = np.frombuffer(zlib.decompress(base64.b64decode(record["dense"])))
        return cls.of(raw.reshape(record["size"], -1))


class Flow:
    """Kicks and drifts of whitened momenta.

    Parameters
    ----------
    context : Context
    letters : sequence of str
        Of the word; "A" and "B" are what is done here.
    coefficients : callable
        ``coefficients(step)``, (n, R, ...): lengths of kicks and drifts.
    push, move : callable
        ``push(forces)`` gives S^T F, ``move(momenta)`` S p~, both (R, D).
    scheduled : bool
        Whether lengths change with the step.
    """

    def __init__(
        self,
        context: Context,
        letters: Any,
        coefficients: Callable[[int], Any],
        push: Callable[[Array], Array],
        move: Callable[[Array], Array],
        scheduled: bool,
    ) -> None:
        self._context, self._scheduled = context, scheduled
        self._given, self._push, self._move = coefficients, push, move
        self._here = [i for i, letter in enumerate(letters) if letter in "AB"]
        self._lengths: dict[int, Array] = {}
        self._pushed: Array = None

    def forget(self) -> None:
        """Lengths or matrices have changed."""
        self._lengths.clear()
        self._pushed = None

    def renew(self) -> None:
        """Forces have changed."""
        self._pushed = None

    def without(self, table: Any) -> F:
        """Coefficients (n, R, G, 2) that leave kicks and drifts to the calls."""
        table = np.array(table[:, :, None] if table.ndim == 3 else table)
        table[self._here] = 0.0
        return np.asarray(table)

    def _length(self, column: int, step: int) -> Array:
        if column not in self._lengths or self._scheduled:
            context = self._context
            rows = self._given(step)[column].reshape(context.state.replicas, -1)[:, 0]
            dtype = context.state.momenta.dtype
            self._lengths[column] = context.backend.asarray(rows[:, None], dtype)
        return self._lengths[column]

    def call(self, index: int, step: int) -> None:
        """Do the call of a number from `FIRST` up."""
        if index >= DRIFT:
            self.drift(self._length(index - DRIFT, step))
        elif index >= KICK:
            self.kick(self._length(index - KICK, step), self._context.state.sums)
        else:
            self.renew()

    def kick(self, length: Array, sums: Array) -> None:
        """Kick by lengths (R, 1), and book the work in ``sums``."""
        state, engine = self._context.state, self._context.engine
        with np.errstate(invalid="ignore", over="ignore"):  # paths that blow up
            if self._pushed is None:
                self._pushed = self._push(state.forces.astype(state.momenta.dtype))
            state.momenta += length * self._pushed
            before = sums[0].copy()
            engine.kinetic(state.momenta, sums[0])
            sums[3] += 0.5 * (sums[0] - before)

    def drift(self, length: Array) -> None:
        """Drift by lengths (R, 1)."""
        state = self._context.state
        with np.errstate(invalid="ignore", over="ignore"):
            state.positions += length * self._move(state.momenta)


class Whitened(Companion):
    """The flow of one matrix of masses, for words without a test.

    Parameters
    ----------
    integrator : Splitting
        With a ``metric``.
    context : Context

    Raises
    ------
    SchemeError
        A matrix of another size than the potential.
    """

    steady = True

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(context)
        self._integrator = integrator
        self._flow = dense_flow(
            integrator, context, initial_root(integrator, context), self._lengths
        )

    def _lengths(self, step: int) -> F:
        table: F = self._integrator.coefficients(step, self.context.state.replicas)
        return table

    def coefficients(self, step: int) -> F:
        """Those of the baths; kicks and drifts are calls."""
        return self._flow.without(self._lengths(step))

    def call(self, index: int, step: int) -> None:
        """Kick or drift."""
        self._flow.call(index, step)

    def started(self) -> None:
        """Take the force anew."""
        self._flow.forget()

    def potential_changed(self) -> None:
        """Take the force anew."""
        self._flow.forget()


def initial_root(integrator: Any, context: Context) -> Array:
    """S at the start, (D, D) in the type of the state: the identity if none is given.

    Raises
    ------
    SchemeError
        A matrix of another size than the potential.
    """
    size, given = context.state.size, integrator.metric
    if given is not None and len(given.matrix) != size:
        raise SchemeError(
            f"mass has shape {given.matrix.shape}: expected one value, ({size},) or "
            f"({size}, {size}), for each parameter"
        )
    root = np.eye(size) if given is None else given.root
    return context.backend.asarray(root, context.state.momenta.dtype)


def dense_flow(
    integrator: Any, context: Context, root: Array, lengths: Callable[[int], Any]
) -> Flow:
    """Flow of one matrix ``root`` (D, D), which may be changed in place."""
    return Flow(
        context,
        [letter for letter, _ in integrator.scheme.operations],
        lengths,
        lambda force: force @ root,
        lambda momenta: momenta @ root.T,
        integrator.scheduled,
    )
