"""What every potential offers, built on one method: `Potential.evaluator`.

A potential is an immutable description.  Work arrays, devices and precisions belong
to the `mdnet.typing.Evaluator` it hands out; the host calls `energy`, `gradient` and
`energy_and_gradient` are a convenience on top of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import backend as _backend
from mdnet import random
from mdnet.errors import PotentialError
from mdnet.typing import Array, Evaluator, Layout

if TYPE_CHECKING:
    from mdnet.potentials.compose import Scaled, Sum

__all__ = ["Potential"]


class Potential(ABC):
    """A potential energy U(q) of D parameters.

    U is extensive: a sum over all data, not a mean.  Subclasses give ``size``,
    `evaluator` and `describe`; everything here follows from them.
    """

    size: int
    """Number of parameters D."""

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return {"q": (slice(0, self.size), (self.size,))}

    @abstractmethod
    def evaluator(
        self, backend: _backend.Backend, replicas: int, seed: int = 0
    ) -> Evaluator:
        """Bind to a backend and a number of replicas.

        Parameters
        ----------
        backend : Backend
            Array module, device and precision.
        replicas : int
            R, the length of axis 0 of every array it will be given.
        seed : int
            Key of its own randomness (minibatches).
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the potential.

        Written to the file; `Simulation.resume` refuses a potential that differs.
        """

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Draw a start: standard normals, (R, D) float64."""
        return random.normals(
            seed, np.arange(replicas), 0, random.STREAM_INITIAL, self.size
        )

    def energy(self, q: Array) -> Array:
        """Potential energy of all data.

        Parameters
        ----------
        q : array, (R, D) or (D,)

        Returns
        -------
        array, (R,) or ()
            U(q), float64.
        """
        rows, evaluator = self._bind(q)
        out = evaluator_xp(rows).empty(rows.shape[0], np.float64)
        evaluator.energies(rows, out)
        return out if np.ndim(q) == 2 else out[0]

    def gradient(self, q: Array) -> Array:
        """Gradient +dU/dq of all data, shaped and typed as ``q``."""
        rows, evaluator = self._bind(q)
        out = evaluator_xp(rows).empty(rows.shape, rows.dtype)
        evaluator.gradients(rows, out)
        return out if np.ndim(q) == 2 else out[0]

    def energy_and_gradient(self, q: Array) -> tuple[Array, Array]:
        """`energy` and `gradient` at the same positions, in one pass where possible."""
        rows, evaluator = self._bind(q)
        if not evaluator.full:
            return self.energy(q), self.gradient(q)
        xp = evaluator_xp(rows)
        energy = xp.empty(rows.shape[0], np.float64)
        gradient = xp.empty(rows.shape, rows.dtype)
        evaluator.forces(rows, gradient, 0, energy)
        xp.negative(gradient, out=gradient)
        if np.ndim(q) == 2:
            return energy, gradient
        return energy[0], gradient[0]

    def _bind(self, q: Array) -> tuple[Array, Evaluator]:
        xp = evaluator_xp(q)
        rows = xp.asarray(q)
        if rows.dtype not in (np.float32, np.float64):
            rows = rows.astype(np.float64)
        rows = xp.ascontiguousarray(rows if rows.ndim == 2 else rows[None])
        if rows.ndim != 2 or rows.shape[1] != self.size:
            raise PotentialError(
                f"q has shape {np.shape(q)}: expected (R, {self.size}) or "
                f"({self.size},), one column per parameter"
            )
        precision = "single" if rows.dtype == np.float32 else "double"
        name = "cpu" if xp is np else "cuda"
        key = (name, precision, rows.shape[0])
        cached: Mapping[Any, Evaluator] = self.__dict__.get("_bound", {})
        if key not in cached:
            bound = _backend.Backend(name, precision, xp)  # type: ignore[arg-type]
            # One evaluator is kept: it owns work arrays of the data's size.
            cached = {key: self.evaluator(bound, rows.shape[0], 0)}
            self.__dict__["_bound"] = cached
        return rows, cached[key]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_bound"}

    __array_ufunc__ = None
    """Keeps NumPy numbers from spreading over a potential: ``np.float64(2) * U``."""

    def __add__(self, other: Potential) -> Sum:
        from mdnet.potentials.compose import Sum

        return Sum(self, other)

    def __mul__(self, factor: float) -> Scaled:
        from mdnet.potentials.compose import Scaled

        return Scaled(self, factor)

    __rmul__ = __mul__


def evaluator_xp(q: Array) -> Any:
    """Array module of ``q``: CuPy for its arrays, NumPy for all else."""
    if type(q).__module__.startswith("cupy"):
        import cupy

        return cupy
    return np
