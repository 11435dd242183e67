"""Evaluators of the analytic potentials: Numba kernels on the CPU, arrays elsewhere.

A potential states itself once as a `Form`: its constants, the name of its kernel in
`mdnet.kernels.rows` and the same mathematics on whole arrays.  `bind` picks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mdnet.backend import Backend
from mdnet.typing import Array, Evaluator

__all__ = ["ArrayEvaluator", "Form", "Polynomial", "bind", "constants_by_type"]

Polynomial: TypeAlias = tuple[float, float, float, float]
ArrayForm: TypeAlias = Callable[..., tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Form:
    """One potential as its evaluators need it.

    Attributes
    ----------
    kernel : str
        Name in `mdnet.kernels.rows` (its stem, when ``kind`` is "separable").
    kind : {"rows", "separable"}
        Which of the two shapes of kernel it is.
    constants : tuple of ndarray
        Float64 constants; evaluators hold them in every type they compute in.
    arrays : callable
        ``(xp, q, *constants) -> (energies (R,), gradient (R, D))``.
    work : int
        Scratch numbers per replica of a "rows" kernel.
    polynomial : tuple of float or None
        See `mdnet.typing.Evaluator`.
    """

    kernel: str
    kind: Literal["rows", "separable"]
    constants: tuple[npt.NDArray[np.float64], ...]
    arrays: ArrayForm
    work: int = 0
    polynomial: Polynomial | None = None


def bind(form: Form, size: int, backend: Backend, replicas: int) -> Evaluator:
    """Evaluator of ``form`` for ``replicas`` rows of ``size`` parameters."""
    if backend.name == "cuda":
        return ArrayEvaluator(form, backend)
    if form.kind == "separable":
        return SeparableEvaluator(form, size, backend, replicas)
    return RowEvaluator(form, size, backend, replicas)


def constants_by_type(
    constants: tuple[npt.NDArray[np.float64], ...], backend: Backend
) -> dict[np.dtype[Any], tuple[Array, ...]]:
    """Put constants on the device, in the force type and in float64."""
    types = {backend.force_dtype, np.dtype(np.float64)}
    return {t: tuple(backend.asarray(c, t) for c in constants) for t in types}


def numbers_read(form: Form, size: int, replicas: int) -> int:
    """Numbers that a kernel reads, the constants again for every replica."""
    return replicas * (size + sum(c.size for c in form.constants))


class RowEvaluator:
    """Runs a "rows" kernel, one replica at a time in parallel."""

    full = True
    __slots__ = ("_bound", "_gradient", "_kernel", "_spare", "polynomial")

    def __init__(self, form: Form, size: int, backend: Backend, replicas: int) -> None:
        from mdnet.kernels import rows

        self.polynomial = form.polynomial
        self._kernel = rows.kernel(form.kernel, numbers_read(form, size, replicas))
        self._spare = np.empty(replicas)
        self._gradient = np.empty((replicas, size))
        self._bound = {
            t: (constants, np.empty((replicas, form.work), t), t.type(-1), t.type(1))
            for t, constants in constants_by_type(form.constants, backend).items()
        }

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        """Write -dU/dq into ``out``; in float64 the energies cost nothing more."""
        constants, work, minus, _ = self._bound[out.dtype]
        spare = self._spare if energies is None else energies
        self._kernel(positions, constants, work, minus, out, spare)
        if energies is not None and out.dtype != np.float64:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U, computed in float64."""
        constants, work, _, plus = self._bound[self._gradient.dtype]
        self._kernel(positions, constants, work, plus, self._gradient, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq."""
        constants, work, _, plus = self._bound[out.dtype]
        self._kernel(positions, constants, work, plus, out, self._spare)


class SeparableEvaluator:
    """Runs "separable" kernels: blocks of parameters of all replicas in parallel."""

    full = True
    __slots__ = ("_bound", "_energies", "_forces", "_partial", "polynomial")

    def __init__(self, form: Form, size: int, backend: Backend, replicas: int) -> None:
        from mdnet.kernels import rows

        self.polynomial = form.polynomial
        numbers = numbers_read(form, size, replicas)
        self._forces = rows.kernel(f"{form.kernel}_forces", numbers)
        self._energies = rows.kernel(f"{form.kernel}_energies", numbers)
        self._partial = np.empty((replicas, -(-size // rows.BLOCK)))
        self._bound = constants_by_type(form.constants, backend)

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        """Write -dU/dq into ``out``."""
        self._forces(positions, self._bound[out.dtype], out.dtype.type(-1), out)
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U, computed in float64."""
        constants = self._bound[self._partial.dtype]
        self._energies(positions, constants, self._partial, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq."""
        self._forces(positions, self._bound[out.dtype], out.dtype.type(1), out)


class ArrayEvaluator:
    """The same mathematics in whole-array operations of NumPy or CuPy."""

    full = True
    __slots__ = ("_arrays", "_bound", "_xp", "polynomial")

    def __init__(self, form: Form, backend: Backend) -> None:
        self.polynomial = form.polynomial
        self._xp = backend.xp
        self._arrays = form.arrays
        self._bound = constants_by_type(form.constants, backend)

    def _evaluate(self, positions: Array, dtype: Any) -> tuple[Array, Array]:
        q = positions.astype(dtype, copy=False)
        return self._arrays(self._xp, q, *self._bound[np.dtype(dtype)])

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        """Write -dU/dq into ``out``."""
        value, gradient = self._evaluate(positions, out.dtype)
        self._xp.negative(gradient, out=out)
        if energies is not None and out.dtype == np.float64:
            energies[...] = value
        elif energies is not None:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U, computed in float64."""
        out[...] = self._evaluate(positions, np.float64)[0]

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq."""
        out[...] = self._evaluate(positions, out.dtype)[1]
