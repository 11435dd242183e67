r"""Weights of fixed norm, and walls: splittings whose drift stays where it may.

On a sphere :math:`|w| = \rho` every letter keeps to the surface exactly: the drift
follows a great circle, kicks and baths act on the tangent part of the momenta
(geodesic BAOAB).  With :math:`v = p/m`, :math:`\omega = |v|/\rho`:

======  =====================================================================
letter  on a sphere
======  =====================================================================
A       q <- q cos(omega h) + v sin(omega h)/omega,
        v <- v cos(omega h) - q omega sin(omega h)
B       p <- P (p + h F),  P = 1 - q q^T/rho^2
O       p <- P (c p + s z)
======  =====================================================================

A ball :math:`|w| \le \rho` (max-norm regularisation) reflects: the drift is a straight
flight whose normal velocity turns round at the wall, which keeps the kinetic energy.
Boxes :math:`|w_i| \le \rho` are balls of one weight each.

References
----------
B. Leimkuhler, C. Matthews, Proc. R. Soc. A 472, 20160138 (2016),
doi:10.1098/rspa.2016.0138 (geodesic BAOAB).
H. C. Andersen, J. Comput. Phys. 52, 24 (1983), doi:10.1016/0021-9991(83)90014-1
(RATTLE).
N. Srebro, A. Shraibman, COLT 2005, doi:10.1007/11503415_37 (max-norm).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import observables
from mdnet.errors import SchemeError
from mdnet.integrators import baths
from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.integrators.letters import CODES
from mdnet.integrators.scheme import FORCE
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.kernels import surface_arrays
from mdnet.typing import Array, Layout

__all__ = ["Constrained", "Surfaces"]

_KICKED, _BATHED, _FLIGHT = 0, 1, 2
_UNITS = ("tensor", "row", "element")


@dataclass(frozen=True, eq=False)
class Constrained(Splitting):
    """A word on spheres and within walls.

    Spheres keep the norm of a whole tensor or of each of its rows (the weights into
    one neuron); each takes one degree of freedom.  Walls keep a tensor, each row or
    each element within a norm.

    Second order in dt on spheres.  A wall keeps the kinetic energy exactly; where a
    force presses on it the energy of a step is off by O(dt) at each bounce.

    Parameters
    ----------
    word : str or table of (letter, share)
        "BAOAB" is geodesic BAOAB, "BAB" is RATTLE's velocity Verlet.
    dt, temperature, friction, mass
        As `Splitting`; the masses within one sphere or ball must be equal.
    norms : mapping of str to str, or to (str, float)
        Spheres: {pattern of tensors: "tensor" or "row"}, of the radius given or else
        of the start, as ``{"0.weight": "row", "2.weight": ("tensor", 3.0)}``.
    walls : mapping of str to (str, float)
        Balls: {pattern of tensors: ("tensor", "row" or "element", radius)}.

    Raises
    ------
    SchemeError
        Words with braces, units or radii that are none, patterns without a tensor,
        a tensor that has two.

    Examples
    --------
    >>> word = Constrained("BAOAB", dt=0.01, norms={"*.weight": "row"})
    >>> word.name
    'BAOAB on surfaces'
    """

    norms: Any = None
    walls: Any = None

    def __post_init__(self) -> None:
        name = self.name
        Splitting.__post_init__(self)
        object.__setattr__(self, "name", name or f"{self.scheme} on surfaces")
        if set(self.scheme.word) - set("ABO") or self.rule != "exact":
            raise SchemeError(
                f"word={self.word!r}: surfaces take plain words of A, B and O, as "
                "'BAOAB'"
            )
        if len(self.frozen):
            raise SchemeError(
                f"frozen={self.frozen!r}: not together with norms= or walls="
            )
        for label in ("norms", "walls"):
            object.__setattr__(self, label, _surfaces(label, getattr(self, label)))
        if not self.norms and not self.walls:
            raise SchemeError(
                "norms and walls are empty: expected at least one surface, as "
                'norms={"*.weight": "row"}'
            )

    @property
    def grouped(self) -> bool:
        """Tensors on surfaces have no drift of their own."""
        return True

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence with a call after each kick and bath, and before each drift."""
        out: list[tuple[int, int, int]] = []
        index = 0
        for letter, _ in self.scheme.sequence:
            if letter == FORCE:
                out.append((FORCE_CALL, 0, 0))
                continue
            letters = [(CODES[letter], index, self.streams[index])]
            if letter == "A":
                letters.insert(0, (CALL, _FLIGHT + index, 0))
            elif self.norms:
                letters.append((CALL, _KICKED if letter == "B" else _BATHED, 0))
            out += letters
            index += 1
        return tuple(out)

    def surfaces(self, layout: Layout) -> list[_Surface]:
        """Every tensor's surface, in the order of the layout."""
        out = []
        for label in ("norms", "walls"):
            for pattern, unit, radius in getattr(self, label):
                names = [name for name in layout if fnmatchcase(name, pattern)]
                if not names:
                    raise SchemeError(
                        f"{label}: {pattern!r} matches none of the tensors "
                        f"{', '.join(layout)}"
                    )
                for name in names:
                    part, shape = layout[name]
                    count = part.stop - part.start
                    rows = {"tensor": 1, "row": shape[0], "element": count}[unit]
                    fixed = label == "norms"
                    out.append(_Surface(name, part, unit, rows, radius, fixed))
        names = [one.name for one in out]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SchemeError(f"tensors {', '.join(twice)} are on two surfaces each")
        return out

    def degrees_of_freedom(self, layout: Layout) -> npt.NDArray[np.int64]:
        """Parameters of each tensor less its spheres, (L,)."""
        lost = {one.name: one.rows * one.fixed for one in self.surfaces(layout)}
        counts = np.diff(observables.layer_bounds(layout))
        taken = np.array([lost.get(name, 0) for name in layout], np.int64)
        return np.asarray(counts - taken, np.int64)

    def measured(self, layout: Layout) -> npt.NDArray[np.bool_]:
        """Parameters (D,) that thermometers of a flat space may read."""
        out = np.ones(int(observables.layer_bounds(layout)[-1]), np.bool_)
        for one in self.surfaces(layout):
            out[one.part] = False
        return out

    def bind(self, context: Context) -> Surfaces:
        """Return what keeps weights on their surfaces."""
        return Surfaces(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return Splitting.describe(self) | {
            "kind": "Constrained",
            "norms": [list(item) for item in self.norms],
            "walls": [list(item) for item in self.walls],
        }


def _constrained(record: dict[str, Any]) -> Constrained:
    read = baths.read
    norms, walls = (
        {pattern: (unit, radius) for pattern, unit, radius in record[label]}
        for label in ("norms", "walls")
    )
    return Constrained(
        record["word"],
        read(record["dt"]),
        read(record["temperature"]),
        read(record["friction"]),
        read(record["mass"]),
        name=record["name"],
        damping=record["damping"],
        length=record["length"],
        norms=norms,
        walls=walls,
    )


KINDS["Constrained"] = _constrained


def _surfaces(label: str, given: Any) -> tuple[tuple[str, str, float | None], ...]:
    """Check a mapping of surfaces: (pattern, unit, radius) each."""
    units = _UNITS[:2] if label == "norms" else _UNITS
    if given is None:
        return ()
    example = '{"*.weight": "row"}' if label == "norms" else '{"*": ("element", 3.0)}'
    if not isinstance(given, Mapping):
        raise SchemeError(f"{label}={given!r}: expected a mapping, as {example}")
    out = []
    for pattern, value in given.items():
        unit, radius = (value, None) if isinstance(value, str) else value
        good = radius is not None and np.isfinite(radius) and radius > 0
        if unit not in units or not (good or (radius is None and label == "norms")):
            raise SchemeError(
                f"{label}: {pattern!r} has {value!r}, expected one of "
                f"{', '.join(map(repr, units))} with a radius > 0, as {example}"
            )
        out.append((str(pattern), str(unit), None if radius is None else float(radius)))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _Surface:
    """Spheres (``fixed``) or balls of one tensor: ``rows`` of equal length."""

    name: str
    part: slice
    unit: str
    rows: int
    radius: float | None
    fixed: bool

    @property
    def reach(self) -> float:
        """Radius of a ball."""
        return float(self.radius or 0.0)

    def view(self, values: Array) -> Array:
        """Rows of an array (R, D): (R, rows, n), a view."""
        part = values[:, self.part]
        return part.reshape(part.shape[0], self.rows, -1)


class Surfaces(Companion):
    """Keeps positions on spheres and within balls, and momenta along them.

    Parameters
    ----------
    integrator : Constrained
    context : Context

    Raises
    ------
    SchemeError
        A row of norm zero without a sphere, weights beyond a wall, masses that
        differ within a surface.
    """

    steady = True
    settles = (_BATHED,)

    def __init__(self, integrator: Constrained, context: Context) -> None:
        super().__init__(context)
        self._integrator = integrator
        self._baths = baths.Baths(integrator, context)
        self._surfaces = integrator.surfaces(context.layout)
        self._inverse_mass = [self._equal_mass(one) for one in self._surfaces]
        bounds = baths.group_bounds((), context.layout)[:-1]
        self._still = np.zeros(bounds.size, np.bool_)
        for one in self._surfaces:
            self._still |= (bounds >= one.part.start) & (bounds < one.part.stop)
        spheres = [one for one in self._surfaces if one.fixed]
        if spheres:
            radius = np.concatenate([self._start(one) for one in spheres], axis=1)
            self.variables["radius"] = np.ascontiguousarray(radius)
        ends = np.cumsum([one.rows for one in spheres])
        self._columns = {
            one.name: slice(end - one.rows, end)
            for one, end in zip(spheres, ends.tolist(), strict=True)
        }
        self._compiled = _Compiled(self) if context.backend.name == "cpu" else None
        self._twice = context.backend.xp.zeros_like(context.state.sums[0])

    def _equal_mass(self, one: _Surface) -> Any:
        """Inverse mass of each row, (rows, 1), or of all weights, (1,)."""
        inverse = self.context.inverse_mass
        if inverse.size == 1:
            return inverse
        rows = inverse[one.part].reshape(one.rows, -1)
        if bool((rows != rows[:, :1]).any()):
            raise SchemeError(
                f"masses of tensor {one.name!r} differ within a surface: expected one "
                "mass for all weights of a row, or tensor, of fixed or bounded norm"
            )
        return rows[:, :1]

    def _start(self, one: _Surface) -> npt.NDArray[np.float64]:
        """Radii of the spheres of one tensor, (R, rows)."""
        xp = self.context.backend.xp
        norms = self.context.backend.to_host(_norm(xp, one, self.context.state))
        if not (norms > 0).all():
            replica, row = np.argwhere(~(norms > 0))[0][:2]
            raise SchemeError(
                f"row {row} of tensor {one.name!r} has norm 0 in replica {replica}: "
                "no point of a sphere is nearest; pass other positions"
            )
        return np.array(norms[..., 0] if one.radius is None else 0 * norms[..., 0]) + (
            one.radius or 0.0
        )

    # --- what the integrator does --------------------------------------------------

    def coefficients(self, step: int) -> npt.NDArray[np.float64]:
        """Those of all tensors, without the drift of those on surfaces."""
        table = self._baths.coefficients(step)
        for i, (letter, _) in enumerate(self._integrator.scheme.operations):
            if letter == "A":
                table[i][:, self._still] = 0.0
        return table

    def temperatures(self, step: int) -> npt.NDArray[np.float64]:
        """Temperature of each group's bath, (R, G)."""
        return self._baths.temperatures(step)

    def scalars(self) -> dict[str, npt.NDArray[np.float64]]:
        """Heat and target of each tensor."""
        return self._baths.scalars()

    def call(self, index: int, step: int) -> None:
        """Fly along the surfaces, or put momenta along them."""
        state = self.context.state
        if index >= _FLIGHT:
            share = self._integrator.scheme.operations[index - _FLIGHT][1]
            length = share * self._integrator.step_length(step)
            self._fly(np.broadcast_to(length, state.replicas))
        else:
            self._project(state.momenta, state.positions)
        # What the engine booked was for momenta off the surface.
        twice, row = state.sums[0], 2 if index == _BATHED else 3
        self._twice[...] = twice
        self.context.engine.kinetic(state.momenta, twice)
        state.sums[row] += 0.5 * (twice - self._twice)
        if index == _BATHED:
            state.sums[1] = twice

    def started(self) -> None:
        """Put positions on their spheres and momenta along them.

        Raises
        ------
        SchemeError
            Weights beyond a wall.
        """
        state, xp = self.context.state, self.context.backend.xp
        for one in self._surfaces:
            if not one.fixed:
                largest = float(_norm(xp, one, state).max())
                if largest > one.reach * (1 + 1e-6):
                    raise SchemeError(
                        f"positions of tensor {one.name!r} reach a norm of "
                        f"{largest:.6g}, beyond its wall at {one.reach:g}; start "
                        "inside, or take a wider wall"
                    )
        self.restrict(state.positions, state.momenta)
        self.context.engine.kinetic(state.momenta, state.sums[0])
        state.sums[1] = state.sums[0]

    def restrict(self, positions: Array, forces: Array) -> None:
        """Put positions on their spheres and within their walls, forces along."""
        xp = self.context.backend.xp
        for one in self._surfaces:
            q = one.view(positions)
            norm = xp.sqrt((q.astype(np.float64) ** 2).sum(2, keepdims=True))
            if one.fixed:
                scale = self._radius(one) / norm
            else:
                scale = one.reach / xp.maximum(norm, one.reach)
            q *= scale.astype(q.dtype)
        self._project(forces, positions)

    # --- geometry ------------------------------------------------------------------

    def _radius(self, one: _Surface) -> Array:
        radius = self.variables["radius"][:, self._columns[one.name]]
        return self.context.backend.asarray(radius[:, :, None])

    def _project(self, vectors: Array, positions: Array) -> None:
        """Take away the part of vectors (R, D) along the radii of spheres."""
        if self._compiled is not None:
            self._compiled.project(positions, vectors)
            return
        for one in self._surfaces:
            if one.fixed:
                surface_arrays.project(one.view(positions), one.view(vectors))

    def _fly(self, length: npt.NDArray[np.float64]) -> None:
        """Drift for ``length`` (R,) of time on every surface."""
        state, xp = self.context.state, self.context.backend.xp
        length = np.ascontiguousarray(length)
        if self._compiled is not None:
            self._compiled.fly(length)
            return
        time = self.context.backend.asarray(length)[:, None, None]
        for one, inverse in zip(self._surfaces, self._inverse_mass, strict=True):
            q, p = one.view(state.positions), one.view(state.momenta)
            place, velocity = q.astype(np.float64), p * inverse
            if one.fixed:
                surface_arrays.rotate(xp, place, velocity, time, self._radius(one))
            elif one.unit == "element":
                surface_arrays.fold(xp, place, velocity, time, one.reach)
            else:
                surface_arrays.bounce(xp, place, velocity, time, one.reach)
            q[...] = place
            p[...] = velocity / inverse


class _Compiled:
    """The same motion by kernels that allocate nothing, on the CPU."""

    def __init__(self, surfaces: Surfaces) -> None:
        from mdnet.kernels import surfaces as kernels

        self._kernels: Any = kernels
        self._state, self._variables = surfaces.context.state, surfaces.variables
        self._inverse = surfaces.context.inverse_mass
        pairs = list(zip(surfaces._surfaces, surfaces._inverse_mass, strict=True))
        self._spheres = self._ranges([x for x in pairs if x[0].fixed])
        self._boxes = [one for one, _ in pairs if one.unit == "element"]
        balls = [x for x in pairs if not x[0].fixed and x[0].unit != "element"]
        self._balls = self._ranges(balls)
        reach = [np.full(one.rows, one.reach) for one, _ in balls]
        self._reach = np.concatenate([*reach, np.empty(0)])

    @staticmethod
    def _ranges(pairs: list[tuple[_Surface, Any]]) -> tuple[Any, Any, Any]:
        """Where each surface begins and ends, and its inverse mass."""
        low, high, inverse = [np.empty(0)], [np.empty(0)], [np.empty(0)]
        for one, mass in pairs:
            edges = np.linspace(one.part.start, one.part.stop, one.rows + 1)
            low.append(edges[:-1])
            high.append(edges[1:])
            inverse.append(np.broadcast_to(np.ravel(mass), one.rows))
        return (
            np.rint(np.concatenate(low)).astype(np.int64),
            np.rint(np.concatenate(high)).astype(np.int64),
            np.concatenate(inverse),
        )

    def project(self, positions: Array, vectors: Array) -> None:
        low, high, _ = self._spheres
        if low.size:
            self._kernels.project(positions, vectors, low, high)

    def fly(self, time: npt.NDArray[np.float64]) -> None:
        q, p = self._state.positions, self._state.momenta
        low, high, inverse = self._spheres
        if low.size:
            radius = self._variables["radius"]
            self._kernels.rotate(q, p, low, high, inverse, time, radius)
        for one in self._boxes:
            self._kernels.fold(
                q, p, one.part.start, one.part.stop, self._inverse, time, one.reach
            )
        low, high, inverse = self._balls
        if low.size:
            self._kernels.bounce(
                q, p, low, high, inverse, time, self._reach, surface_arrays.MOST_BOUNCES
            )


def _norm(xp: Any, one: _Surface, state: Any) -> Array:
    """Norm of each row, (R, rows, 1) float64."""
    q = one.view(state.positions).astype(np.float64)
    return xp.sqrt((q * q).sum(2, keepdims=True))
