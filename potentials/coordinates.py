"""Coordinates: functions of the weights that restraints hold and umbrellas follow.

A coordinate is a potential whose energy is the value of the coordinate; any potential
serves as one, and so do functions in `potentials.Custom`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import fingerprint, finite_array
from mdnet.potentials._forms import Polynomial
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["Projection", "TensorNorm"]


class Projection(Potential):
    """The coordinate v . (q - origin), or as a potential a constant force -v.

    Parameters
    ----------
    direction : array, (D,)
        v, as it is: its length is not changed.
    origin : float or array, (D,)
        Where the coordinate is zero.

    Raises
    ------
    PotentialError
        Shapes that differ, values that are not finite, or a direction of length zero.

    Examples
    --------
    >>> Projection([3.0, 4.0]).energy([[1.0, 2.0]])
    array([11.])
    """

    def __init__(self, direction: Any, origin: Any = 0.0) -> None:
        self.direction = finite_array("direction", direction)
        if self.direction.ndim != 1 or not self.direction.any():
            raise PotentialError(
                f"direction has shape {self.direction.shape}: expected (D,), one "
                "number a parameter and not all zero"
            )
        self.origin = finite_array("origin", origin)
        self.size = self.direction.size
        if self.origin.shape not in ((), (self.size,)):
            raise PotentialError(
                f"origin has shape {self.origin.shape}: expected a number or "
                f"({self.size},), one for each parameter"
            )
        self.offset = float((self.direction * self.origin).sum())

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _ProjectionEvaluator(self, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Projection",
            "direction": fingerprint(self.direction),
            "origin": fingerprint(self.origin),
        }


class _ProjectionEvaluator:
    full = True
    polynomial: Polynomial | None = None
    __slots__ = ("_directions", "_offset", "_work", "_xp")

    def __init__(self, model: Projection, backend: Backend, replicas: int) -> None:
        self._xp, self._offset = backend.xp, model.offset
        self._work = backend.zeros((replicas, model.size), np.float64)
        types = {backend.force_dtype, np.dtype(np.float64)}
        self._directions = {t: backend.asarray(model.direction, t) for t in types}

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        self.gradients(positions, out)
        self._xp.negative(out, out=out)
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        self._work[...] = positions
        self._xp.matmul(self._work, self._directions[self._work.dtype], out=out)
        self._xp.subtract(out, self._offset, out=out)

    def gradients(self, positions: Array, out: Array) -> None:  # noqa: ARG002
        out[...] = self._directions[out.dtype]


class TensorNorm(Potential):
    """The coordinate |w|, the Euclidean norm of some tensors together.

    Parameters
    ----------
    layout : Layout
        Of the potential that will be restrained, ``U.layout``.
    tensors : str or sequence of str
        Names in it.

    Raises
    ------
    PotentialError
        A name that is not in the layout.

    Notes
    -----
    The gradient w/|w| is taken as zero at w = 0.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.Harmonic(1.0, size=2)
    >>> TensorNorm(U.layout, "q").energy([[3.0, 4.0]])
    array([5.])
    """

    def __init__(self, layout: Layout, tensors: str | Sequence[str]) -> None:
        self._layout = dict(layout)
        self.tensors = (tensors,) if isinstance(tensors, str) else tuple(tensors)
        unknown = [name for name in self.tensors if name not in self._layout]
        if unknown or not self.tensors:
            raise PotentialError(
                f"tensors={tensors!r}: expected names among {', '.join(self._layout)}"
            )
        self.parts = [self._layout[name][0] for name in self.tensors]
        self.size = max(where.stop for where, _ in self._layout.values())

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self._layout

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _NormEvaluator(self, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"kind": "TensorNorm", "size": self.size, "tensors": list(self.tensors)}


class _NormEvaluator:
    full = True
    polynomial: Polynomial | None = None
    __slots__ = ("_inverse", "_norm", "_parts", "_sum", "_work", "_xp")

    def __init__(self, model: TensorNorm, backend: Backend, replicas: int) -> None:
        self._xp, self._parts = backend.xp, model.parts
        widest = max(where.stop - where.start for where in model.parts)
        self._work = backend.xp.empty((replicas, widest), np.float64)
        self._sum = backend.xp.empty(replicas, np.float64)
        self._norm = backend.xp.empty(replicas, np.float64)
        self._inverse = backend.xp.empty(replicas, np.float64)

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        self.gradients(positions, out)
        self._xp.negative(out, out=out)
        if energies is not None:
            energies[...] = self._norm

    def energies(self, positions: Array, out: Array) -> None:
        out.fill(0.0)
        for where in self._parts:
            work = self._work[:, : where.stop - where.start]
            work[...] = positions[:, where]
            self._xp.multiply(work, work, out=work)
            self._xp.sum(work, axis=1, out=self._sum)
            self._xp.add(out, self._sum, out=out)
        self._xp.sqrt(out, out=out)

    def gradients(self, positions: Array, out: Array) -> None:
        xp, inverse = self._xp, self._inverse
        self.energies(positions, self._norm)
        xp.maximum(self._norm, np.finfo(np.float64).tiny, out=inverse)
        xp.reciprocal(inverse, out=inverse)
        out.fill(0.0)
        for where in self._parts:
            xp.multiply(
                positions[:, where],
                inverse[:, None],
                out=out[:, where],
                casting="same_kind",
            )
