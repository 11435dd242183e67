"""A potential from two functions, and a check of any potential's gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import positions_rows, positive_integer
from mdnet.potentials._forms import Polynomial
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["Custom", "check_gradient"]


class Custom(Potential):
    """A potential made of two functions of all replicas at once.

    Parameters
    ----------
    size : int
        D.
    energy : callable
        (R, D) -> (R,): U of every replica, summed over all data.
    gradient : callable
        (R, D) -> (R, D): +dU/dq.
    layout : mapping, optional
        Ordered ``{tensor name: (slice, shape)}`` covering q; one tensor "q" if None.
    name : str, optional
        Identifies the potential in files; the name of ``energy`` if None.

    Raises
    ------
    PotentialError
        At construction: functions that cannot be called, a layout that does not cover
        q.  At the first call of an evaluator: results of another shape, not floating
        or not finite, or a function that changes its argument.

    Notes
    -----
    The functions get NumPy arrays on the CPU and CuPy arrays on a device: forces in
    the type of the forces, energies in float64.  `check_gradient` compares the two.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.Custom(
    ...     size=2, energy=lambda q: (q**4).sum(axis=1) / 4, gradient=lambda q: q**3
    ... )
    >>> U.gradient([[1.0, 2.0]])
    array([[1., 8.]])
    """

    def __init__(
        self,
        size: int,
        energy: Callable[[Array], Array],
        gradient: Callable[[Array], Array],
        layout: Layout | None = None,
        name: str | None = None,
    ) -> None:
        self.size = positive_integer("size", size)
        for role, function in (("energy", energy), ("gradient", gradient)):
            if not callable(function):
                raise PotentialError(
                    f"{role}={function!r}: expected a function of positions "
                    f"(R, {self.size})"
                )
        self.functions = energy, gradient
        self.name = name or getattr(energy, "__qualname__", type(energy).__name__)
        self._layout = super().layout if layout is None else _covering(layout, size)

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self._layout

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _CustomEvaluator(self, backend)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings; of the functions only the name."""
        return {"kind": "Custom", "size": self.size, "name": self.name}


def _covering(layout: Layout, size: int) -> Layout:
    """Check that the tensors follow each other and fill q."""
    if not isinstance(layout, Mapping):
        raise PotentialError(
            f"layout={layout!r}: expected {{name: (slice, shape)}}, as "
            f"{{'q': (slice(0, {size}), ({size},))}}"
        )
    end = 0
    for name, (where, shape) in layout.items():
        count = int(np.prod(shape))
        if (where.start or 0) != end or where.stop != end + count:
            raise PotentialError(
                f"layout[{name!r}] = ({where}, {shape}): expected slice({end}, "
                f"{end + count}); tensors follow each other without gaps"
            )
        end += count
    if end != size:
        raise PotentialError(
            f"layout covers {end} parameters and size={size}: expected the same number"
        )
    return dict(layout)


class _CustomEvaluator:
    full = True
    polynomial: Polynomial | None = None
    __slots__ = ("_checked", "_model", "_xp")

    def __init__(self, model: Custom, backend: Backend) -> None:
        self._model, self._xp = model, backend.xp
        self._checked: set[str] = set()

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        del call  # all data, at every call
        gradient = self._call("gradient", positions, out.dtype, out.shape)
        self._xp.negative(gradient, out=out, casting="same_kind")
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        out[...] = self._call("energy", positions, np.float64, out.shape)

    def gradients(self, positions: Array, out: Array) -> None:
        out[...] = self._call("gradient", positions, out.dtype, out.shape)

    def _call(
        self, role: str, positions: Array, dtype: Any, shape: tuple[int, ...]
    ) -> Array:
        """Call a function; look closely at what it does the first time."""
        function = self._model.functions[role == "gradient"]
        q = positions.astype(dtype, copy=False)
        first = role not in self._checked
        before = q.copy() if first else None
        value = function(q)
        if getattr(value, "shape", None) != shape:
            raise PotentialError(
                f"{self._model.name}: {role}(q) for q of shape {q.shape} returned "
                f"{_kind(value)}: expected an array of shape {shape}"
                + (
                    ", one energy a replica: sum over axis 1"
                    if role == "energy"
                    else ""
                )
            )
        if first:
            self._look(role, q, before, value)
            self._checked.add(role)
        return value

    def _look(self, role: str, q: Array, before: Array, value: Array) -> None:
        name = self._model.name
        if value.dtype.kind != "f":
            raise PotentialError(
                f"{name}: {role}(q) returned {value.dtype} numbers: expected floating "
                "ones, as value.astype(float)"
            )
        if not bool((q == before).all()):
            raise PotentialError(
                f"{name}: {role}(q) changed its argument: copy it first, q = q.copy()"
            )
        wrong = ~self._xp.isfinite(value.reshape(value.shape[0], -1)).all(axis=1)
        if bool(wrong.any()):
            replica = int(wrong.argmax())
            raise PotentialError(
                f"{name}: {role}(q) is not finite for replica {replica} at the first "
                "call: start from positions where U is finite"
            )


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"shape {tuple(shape)}"


def check_gradient(
    potential: Potential, q: Array, directions: int | None = None, seed: int = 0
) -> float:
    """Compare a potential's gradient with differences of its energy, in double.

    Five-point central differences, dU/ds = [8 (U(s) - U(-s)) - (U(2s) - U(-2s))]/12 s,
    along every parameter or along random directions.

    Parameters
    ----------
    potential : Potential
        What to check.
    q : (R, D) or (D,)
        Where.
    directions : int, optional
        Number of random unit directions; every parameter if None (4 D energies a row).
    seed : int
        Of the directions.

    Returns
    -------
    float
        Largest difference over the largest slope of its row; 1e-7 and less is
        rounding for a smooth energy.

    Raises
    ------
    PotentialError
        ``q`` of another shape, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> potentials.check_gradient(potentials.DoubleWell(), np.array([[0.3]])) < 1e-8
    True
    """
    rows, _ = positions_rows(q, potential.size)
    if not np.isfinite(rows).all():
        raise PotentialError("q is not finite: give positions where U is finite")
    count = (
        potential.size
        if directions is None
        else positive_integer("directions", directions)
    )
    worst = 0.0
    for row in rows:
        gradient = potential.gradient(row)
        step = 1e-3 * max(1.0, float(np.abs(row).max()))
        exact, measured = np.empty(count), np.empty(count)
        for first in range(0, count, 256):
            block = slice(first, min(first + 256, count))
            unit = _directions(potential.size, block, directions is None, seed)
            offsets = np.array([1.0, -1.0, 2.0, -2.0])[:, None, None] * step
            points = (row + offsets * unit).reshape(-1, potential.size)
            u = np.asarray(potential.energy(points)).reshape(4, -1)
            measured[block] = (8 * (u[0] - u[1]) - (u[2] - u[3])) / (12 * step)
            exact[block] = unit @ gradient
        largest = max(float(np.abs(exact).max()), np.finfo(float).tiny)
        worst = max(worst, float(np.abs(measured - exact).max()) / largest)
    return worst


def _directions(size: int, block: slice, axes: bool, seed: int) -> Array:
    """Unit vectors (n, D): rows of the identity, or random ones."""
    index = np.arange(block.start, block.stop)
    if axes:
        unit = np.zeros((index.size, size))
        unit[np.arange(index.size), index] = 1.0
        return unit
    z = random.normals(seed, index, 0, random.STREAM_PROBE, size)
    return z / np.linalg.norm(z, axis=1, keepdims=True)
