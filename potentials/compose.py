"""Arithmetic of potentials: sums, multiples, and paths between two of them.

A composed potential is a potential again.  Its evaluator owns one evaluator and one
force array a part; parts that use minibatches are asked with the same force call, so
that two of them on one data set see the same rows.  ``predict`` and ``log_likelihood``
are those of the first part that has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._forms import Polynomial
from mdnet.potentials._passing import kept, passed
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["Path", "PathEvaluator", "Scaled", "Sum", "interpolate"]


def check_parts(parts: tuple[Any, ...]) -> None:
    for part in parts:
        if not isinstance(part, Potential):
            raise PotentialError(
                f"{part!r} is not a potential: combine potentials with potentials; "
                "wrap functions in potentials.Custom(size=D, energy=f, gradient=g)"
            )
    sizes = [part.size for part in parts]
    if len(set(sizes)) != 1:
        raise PotentialError(
            f"sizes {sizes} differ: potentials that are combined act on the same "
            "parameters; build both with the same size"
        )
    layouts = [part.layout for part in parts if len(part.layout) > 1]
    for layout in layouts[1:]:
        if _shapes(layout) != _shapes(layouts[0]):
            raise PotentialError(
                f"tensors {_shapes(layouts[0])} and {_shapes(layout)} differ: "
                "potentials that are combined act on the same tensors; build both from "
                "one network"
            )


def _shapes(layout: Layout) -> list[tuple[int, ...]]:
    """Shapes of the tensors, which follow each other; names may differ."""
    return [shape for _, shape in layout.values()]


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise PotentialError(f"{name}={value!r}: expected a finite number") from error
    if not np.isfinite(number):
        raise PotentialError(f"{name}={value!r}: expected a finite number")
    return number


def _named(parts: tuple[Potential, ...]) -> Potential:
    """The first part that names its tensors, else the first part."""
    for part in parts:
        if len(part.layout) > 1 or "q" not in part.layout:
            return part
    return parts[0]


def _mix(
    weights: tuple[float, ...], polynomials: tuple[Polynomial | None, ...]
) -> Polynomial | None:
    """Weighted sum of the parts' polynomials, if each has one."""
    total = [0.0, 0.0, 0.0, 0.0]
    for weight, polynomial in zip(weights, polynomials, strict=True):
        if polynomial is None:
            return None
        total = [t + weight * c for t, c in zip(total, polynomial, strict=True)]
    a, b, c, d = total
    return a, b, c, d


class Sum(Potential):
    """The sum of potentials of the same parameters: ``U1 + U2 + ...``.

    Tensors are named, and starts drawn, by the first part that names its tensors.

    Parameters
    ----------
    *parts : Potential
        At least one; sums among them are opened up.

    Raises
    ------
    PotentialError
        A part that is no potential, or sizes that differ.
    """

    def __init__(self, *parts: Potential) -> None:
        if not parts:
            raise PotentialError("Sum(): expected at least one potential")
        check_parts(parts)
        opened: list[Potential] = []
        for part in parts:
            opened += part.parts if isinstance(part, Sum) else [part]
        self.parts: tuple[Potential, ...] = tuple(opened)
        self.size = parts[0].size

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return _named(self.parts).layout

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; all parts get the same ``seed``."""
        bound = [part.evaluator(backend, replicas, seed) for part in self.parts]
        return _SumEvaluator(bound, self.size, backend, replicas)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start as the part that names the tensors draws it, (R, D)."""
        return _named(self.parts).initial(replicas, seed)

    def __getattr__(self, name: str) -> Any:
        return passed(self, name, "parts")

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"kind": "Sum", "parts": [part.describe() for part in self.parts]}


class _SumEvaluator:
    """Evaluator of a `Sum`; ``parts`` are those of its parts, in order."""

    __slots__ = ("_bound", "_energy", "_force", "_xp", "full", "polynomial")

    def __init__(
        self, bound: list[Evaluator], size: int, backend: Backend, replicas: int
    ) -> None:
        xp = backend.xp
        self._bound, self._xp = bound, xp
        self._force = spare(backend, replicas, size)
        self._energy = xp.empty(replicas, np.float64)
        self.full = all(part.full for part in bound)
        self.polynomial = _mix(
            (1.0,) * len(bound), tuple(part.polynomial for part in bound)
        )

    @property
    def parts(self) -> tuple[Evaluator, ...]:
        return tuple(self._bound)

    @property
    def variables(self) -> dict[str, Array]:
        return kept(*self._bound)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        first, *rest = self._bound
        first.forces(positions, out, call, energies)
        force = self._force[out.dtype]
        energy = None if energies is None else self._energy
        for part in rest:
            part.forces(positions, force, call, energy)
            self._xp.add(out, force, out=out)
            if energies is not None:
                self._xp.add(energies, energy, out=energies)

    def energies(self, positions: Array, out: Array) -> None:
        first, *rest = self._bound
        first.energies(positions, out)
        for part in rest:
            part.energies(positions, self._energy)
            self._xp.add(out, self._energy, out=out)

    def gradients(self, positions: Array, out: Array) -> None:
        first, *rest = self._bound
        first.gradients(positions, out)
        force = self._force[out.dtype]
        for part in rest:
            part.gradients(positions, force)
            self._xp.add(out, force, out=out)


class Scaled(Potential):
    """A potential times a number: ``factor * U``.

    Sampling 0.5 * U at temperature T is sampling U at temperature 2 T.

    Parameters
    ----------
    part : Potential
        U.
    factor : float
        Finite; multiplies the energy.

    Raises
    ------
    PotentialError
        ``part`` is no potential, or ``factor`` no finite number.
    """

    def __init__(self, part: Potential, factor: float) -> None:
        check_parts((part,))
        factor = _number("factor", factor)
        self.part: Potential = part.part if isinstance(part, Scaled) else part
        self.factor: float = factor * (part.factor if isinstance(part, Scaled) else 1.0)
        self.size = part.size

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self.part.layout

    @property
    def largest_stiffness(self) -> float | None:
        """That of the part times the factor; None where it is not known."""
        stiffness = getattr(self.part, "largest_stiffness", None)
        return None if stiffness is None else float(self.factor * stiffness)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _ScaledEvaluator(
            self.part.evaluator(backend, replicas, seed), self.factor, backend
        )

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """As the part's."""
        return self.part.initial(replicas, seed)

    def __getattr__(self, name: str) -> Any:
        return passed(self, name, "part")

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Scaled",
            "factor": self.factor,
            "part": self.part.describe(),
        }


class _ScaledEvaluator:
    __slots__ = ("_bound", "_factor", "_xp", "full", "polynomial")

    def __init__(self, bound: Evaluator, factor: float, backend: Backend) -> None:
        self._bound, self._factor, self._xp = bound, factor, backend.xp
        self.full = bound.full
        self.polynomial = _mix((factor,), (bound.polynomial,))

    @property
    def variables(self) -> dict[str, Array]:
        return kept(self._bound)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        self._bound.forces(positions, out, call, energies)
        self._xp.multiply(out, self._factor, out=out)
        if energies is not None:
            self._xp.multiply(energies, self._factor, out=energies)

    def energies(self, positions: Array, out: Array) -> None:
        self._bound.energies(positions, out)
        self._xp.multiply(out, self._factor, out=out)

    def gradients(self, positions: Array, out: Array) -> None:
        self._bound.gradients(positions, out)
        self._xp.multiply(out, self._factor, out=out)


class Path(Potential):
    """The straight path between two potentials, at one point of it.

    U_lambda = (1 - lambda) U0 + lambda U1.

    A simulation given a protocol moves lambda along the path; `at` fixes it.

    Parameters
    ----------
    start, end : Potential
        U0 and U1, of the same parameters.
    parameter : float
        lambda of `energy` and `gradient`, and where an evaluator starts.  Values
        outside [0, 1] extrapolate.

    Raises
    ------
    PotentialError
        A part that is no potential, sizes that differ, or lambda not finite.
    """

    def __init__(
        self, start: Potential, end: Potential, parameter: float = 0.0
    ) -> None:
        check_parts((start, end))
        self.start, self.end = start, end
        self.parameter = _number("parameter", parameter)
        self.size = start.size

    def at(self, parameter: float) -> Path:
        """The potential at ``parameter``: 0 is the start, 1 the end."""
        return Path(self.start, self.end, parameter)

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return _named((self.start, self.end)).layout

    def evaluator(
        self, backend: Backend, replicas: int, seed: int = 0
    ) -> PathEvaluator:
        """Bind to a backend; both ends get the same ``seed``."""
        return PathEvaluator(
            self.start.evaluator(backend, replicas, seed),
            self.end.evaluator(backend, replicas, seed),
            self.parameter,
            self.size,
            backend,
            replicas,
        )

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """As the start's potential draws it, (R, D)."""
        return self.start.initial(replicas, seed)

    def __getattr__(self, name: str) -> Any:
        return passed(self, name, "start", "end")

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Path",
            "parameter": self.parameter,
            "start": self.start.describe(),
            "end": self.end.describe(),
        }


class PathEvaluator:
    """Evaluator of a `Path` whose lambda moves.

    It keeps the forces of both ends, so that a new lambda at unchanged positions costs
    no force call: `set_parameter`, then `refresh`.
    """

    __slots__ = (
        "_ends",
        "_energy",
        "_forces",
        "_parameter",
        "_scratch",
        "_xp",
        "full",
        "polynomial",
    )

    def __init__(
        self,
        start: Evaluator,
        end: Evaluator,
        parameter: float,
        size: int,
        backend: Backend,
        replicas: int,
    ) -> None:
        xp = backend.xp
        self._xp = xp
        self._ends = start, end
        self._forces = tuple(
            xp.zeros((replicas, size), backend.force_dtype) for _ in range(2)
        )
        self._scratch = spare(backend, replicas, size)
        self._energy = xp.empty(replicas, np.float64)
        self.set_parameter(parameter)
        self.full = start.full and end.full

    @property
    def variables(self) -> dict[str, Array]:
        """What the ends remember, for the restart."""
        return kept(*self._ends)

    @property
    def parameter(self) -> float:
        """The present lambda."""
        return self._parameter

    @property
    def _weights(self) -> tuple[float, float]:
        return 1.0 - self._parameter, self._parameter

    def set_parameter(self, value: float) -> None:
        """Move lambda; forces already written are as before until `refresh`."""
        self._parameter = float(value)
        start, end = self._ends
        self.polynomial = _mix(self._weights, (start.polynomial, end.polynomial))

    def refresh(self, out: Array) -> None:
        """Write into ``out`` what the last `forces` would write at the new lambda."""
        self._combine(self._forces[0], self._forces[1], out)

    def _combine(self, start: Array, end: Array, out: Array) -> None:
        # Rounds as (1 - lambda) F0 + lambda F1 in the type of ``out``; ``scratch`` is
        # neither end, because both must outlive this.
        xp, (first, second) = self._xp, self._weights
        scratch = self._energy if out.ndim == 1 else self._scratch[out.dtype]
        xp.multiply(end, second, out=scratch)
        xp.multiply(start, first, out=out)
        xp.add(out, scratch, out=out)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU_lambda/dq; both ends are asked at the same ``call``."""
        start, end = self._ends
        if energies is None:
            start.forces(positions, self._forces[0], call)
            end.forces(positions, self._forces[1], call)
        else:
            start.forces(positions, self._forces[0], call, energies)
            end.forces(positions, self._forces[1], call, self._energy)
            self._combine(energies, self._energy, energies)
        self.refresh(out)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U_lambda of all data, (R,) float64."""
        start, end = self._ends
        start.energies(positions, out)
        end.energies(positions, self._energy)
        self._combine(out, self._energy, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU_lambda/dq of all data."""
        start, end = self._ends
        scratch, (first, second) = self._scratch[out.dtype], self._weights
        start.gradients(positions, out)
        end.gradients(positions, scratch)
        self._xp.multiply(out, first, out=out)
        self._xp.multiply(scratch, second, out=scratch)
        self._xp.add(out, scratch, out=out)

    def parameter_energies(
        self, positions: Array, lam_from: float, lam_to: float, out: Array
    ) -> None:
        """Write U_to(q) - U_from(q) = (to - from) (U1 - U0) of all data, (R,) float64.

        The work done on each replica when lambda moves at fixed positions.
        """
        start, end = self._ends
        start.energies(positions, self._energy)
        end.energies(positions, out)
        self._xp.subtract(out, self._energy, out=out)
        self._xp.multiply(out, lam_to - lam_from, out=out)


def interpolate(start: Potential, end: Potential) -> Path:
    """Straight path U_lambda = (1 - lambda) U0 + lambda U1.

    Parameters
    ----------
    start, end : Potential
        U0 (lambda = 0) and U1 (lambda = 1).

    Returns
    -------
    Path
        At lambda = 0; ``path.at(0.3)`` is a potential further on.

    Raises
    ------
    PotentialError
        A part that is no potential, or sizes that differ.

    Examples
    --------
    >>> from mdnet import potentials
    >>> soft, stiff = potentials.Harmonic(1.0), potentials.Harmonic(4.0)
    >>> potentials.interpolate(soft, stiff).at(0.5).energy([[1.0]])
    array([1.25])
    """
    return Path(start, end)


def spare(backend: Backend, replicas: int, size: int) -> dict[np.dtype[Any], Array]:
    """One work array in the force type, and one in float64 if that differs."""
    types = {backend.force_dtype, np.dtype(np.float64)}
    return {t: backend.xp.empty((replicas, size), t) for t in types}
