r"""Potentials on part of the weights: some tensors only, or an affine subspace.

==============================  ================================================
``restrict(U, layers, at)``     V(z) = U(q0 with the chosen tensors set to z)
``project(U, basis, at)``       V(z) = U(q0 + sum_i z_i b_i), dV/dz = B dU/dq
==============================  ================================================

Both are potentials: they are sampled, minimised and mapped like any other, and
minibatches, ``predict`` and ``log_likelihood`` of what they are made of go through.
A force costs one force of U.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import fingerprint, finite_array
from mdnet.potentials._forms import Polynomial
from mdnet.potentials._passing import kept, passed
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.compose import check_parts, spare
from mdnet.potentials.directions import point
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["Projected", "Restricted", "project", "restrict"]


def _of_posterior(owner: Any, name: str) -> Any:
    """Attribute of the model inside; its functions of q become functions of z."""
    value = passed(owner, name, "part")
    if name not in ("predict", "log_likelihood"):
        return value

    def of_z(z: Array, *args: Any) -> Array:
        return value(owner.embed(z), *args)

    of_z.__doc__ = f"As `{name}` of the potential inside, at the embedded positions."
    return of_z


# --- some tensors only ----------------------------------------------------------------


class Restricted(Potential):
    """A potential of some tensors, the others being held; see `restrict`.

    Attributes
    ----------
    part : Potential
        U.
    at : ndarray, (D,)
        q0; its chosen tensors are not used.
    """

    def __init__(self, part: Potential, layers: Any, at: Any) -> None:
        check_parts((part,))
        self.part = part
        self.at = point("at", at, part.size)
        names = _matching(layers, part.layout)
        self._layout: dict[str, tuple[slice, tuple[int, ...]]] = {}
        self.size = 0
        for name in names:
            where, shape = part.layout[name]
            count = where.stop - where.start
            self._layout[name] = slice(self.size, self.size + count), shape
            self.size += count
        self.runs = _merged([part.layout[name][0] for name in names])

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the chosen tensors."""
        return self._layout

    def embed(self, z: Array) -> Array:
        """Positions q of U for chosen tensors ``z``: (R, d) -> (R, D)."""
        xp = evaluator_xp(z)
        rows = _coordinates(xp.asarray(z), self.size)
        out = xp.empty((rows.shape[0], self.part.size), rows.dtype)
        out[...] = xp.asarray(self.at)
        for inside, outside in self.runs:
            out[:, outside] = rows[:, inside]
        return out if np.ndim(z) == 2 else out[0]

    def select(self, q: Array) -> Array:
        """Chosen tensors of positions of U: (R, D) -> (R, d)."""
        xp = evaluator_xp(q)
        rows = _coordinates(xp.asarray(q), self.part.size)
        out = xp.empty((rows.shape[0], self.size), rows.dtype)
        for inside, outside in self.runs:
            out[:, inside] = rows[:, outside]
        return out if np.ndim(q) == 2 else out[0]

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _RestrictedEvaluator(self, backend, replicas, seed)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Chosen tensors of a start of U, (R, d); from q0 itself: ``select(q0)``."""
        return self.select(self.part.initial(replicas, seed))

    def __getattr__(self, name: str) -> Any:
        return _of_posterior(self, name)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings; of q0 the held tensors only."""
        held = self.at.copy()
        for _, outside in self.runs:
            held[outside] = 0.0
        return {
            "kind": "Restricted",
            "tensors": list(self._layout),
            "at": fingerprint(held),
            "part": self.part.describe(),
        }


def _matching(layers: Any, layout: Layout) -> list[str]:
    """Names in ``layout`` that match one of the patterns, in its order."""
    patterns = [layers] if isinstance(layers, str) else layers
    if not isinstance(patterns, Sequence) or not patterns:
        raise PotentialError(
            f"layers={layers!r}: expected names of tensors or patterns, as "
            f"layers={list(layout)[-2:]}"
        )
    for pattern in patterns:
        if not any(fnmatchcase(name, str(pattern)) for name in layout):
            raise PotentialError(
                f"layers: {pattern!r} matches none of the tensors {', '.join(layout)}"
            )
    return [name for name in layout if any(fnmatchcase(name, str(p)) for p in patterns)]


def _merged(parts: list[slice]) -> tuple[tuple[slice, slice], ...]:
    """Runs (inside z, inside q) of tensors that lie one behind the other."""
    runs: list[tuple[int, int, int]] = []
    at = 0
    for part in parts:
        count = part.stop - part.start
        if runs and runs[-1][1] + runs[-1][2] == part.start:
            first, begin, length = runs[-1]
            runs[-1] = first, begin, length + count
        else:
            runs.append((at, part.start, count))
        at += count
    return tuple((slice(a, a + n), slice(b, b + n)) for a, b, n in runs)


def _coordinates(rows: Array, size: int) -> Array:
    rows = rows if rows.ndim == 2 else rows[None]
    if rows.ndim != 2 or rows.shape[1] != size:
        raise PotentialError(
            f"positions have shape {rows.shape}: expected (R, {size}) or ({size},)"
        )
    return rows


class _RestrictedEvaluator:
    """Evaluates U at embedded positions, and picks the forces on what moves."""

    __slots__ = ("_bound", "_force", "_positions", "_runs", "_xp", "full", "polynomial")

    def __init__(
        self, model: Restricted, backend: Backend, replicas: int, seed: int
    ) -> None:
        self._xp, self._runs = backend.xp, model.runs
        self._bound = model.part.evaluator(backend, replicas, seed)
        self._positions = backend.zeros(
            (replicas, model.part.size), backend.state_dtype
        )
        self._positions[...] = backend.asarray(model.at)
        self._force = spare(backend, replicas, model.part.size)
        self.full = self._bound.full
        self.polynomial = self._bound.polynomial  # of every parameter alone

    @property
    def variables(self) -> dict[str, Array]:
        return kept(self._bound)

    def _embed(self, positions: Array) -> Array:
        for inside, outside in self._runs:
            self._positions[:, outside] = positions[:, inside]
        return self._positions

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        force = self._force[out.dtype]
        self._bound.forces(self._embed(positions), force, call, energies)
        for inside, outside in self._runs:
            out[:, inside] = force[:, outside]

    def energies(self, positions: Array, out: Array) -> None:
        self._bound.energies(self._embed(positions), out)

    def gradients(self, positions: Array, out: Array) -> None:
        gradient = self._force[out.dtype]
        self._bound.gradients(self._embed(positions), gradient)
        for inside, outside in self._runs:
            out[:, inside] = gradient[:, outside]


def restrict(potential: Potential, layers: Any, at: Any) -> Restricted:
    """Let some tensors move and hold the others, as for a Bayesian last layer.

    V(z) = U(q0 with the chosen tensors set to z).

    Parameters
    ----------
    potential : Potential
        U.
    layers : str or sequence of str
        Names of tensors of ``potential.layout``, or patterns such as ``"2.*"``.
    at : array, (D,)
        q0, where the other tensors stay.

    Returns
    -------
    Restricted
        Its layout is that of the chosen tensors; ``embed`` leads back to U.

    Raises
    ------
    PotentialError
        No potential, a pattern without a tensor, or ``at`` of another shape.

    Notes
    -----
    Forces on the held tensors are computed and not used: a step takes as long as one
    of U.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> X, y = np.eye(4), np.arange(4) % 3
    >>> U = potentials.Posterior(potentials.MLP([4, 5, 3]), data=(X, y))
    >>> last = potentials.restrict(U, layers=["1.*"], at=U.initial(1)[0])
    >>> list(last.layout), last.size
    (['1.weight', '1.bias'], 18)
    """
    return Restricted(potential, layers, at)


# --- an affine subspace ---------------------------------------------------------------


class Projected(Potential):
    """A potential along an affine subspace; see `project`.

    Attributes
    ----------
    part : Potential
        U.
    basis : ndarray, (d, D)
        Directions b_i, one a row.
    at : ndarray, (D,)
        q0, at z = 0.
    """

    def __init__(self, part: Potential, basis: Any, at: Any) -> None:
        check_parts((part,))
        self.part = part
        self.at = point("at", at, part.size)
        rows = finite_array("basis", basis)
        if rows.ndim == 1:
            rows = rows[None]
        if rows.ndim != 2 or rows.shape[1] != part.size or not rows.size:
            raise PotentialError(
                f"basis has shape {np.shape(basis)}: expected (d, {part.size}), one "
                "direction a row, as random_basis(U, 2)"
            )
        rank = int(np.linalg.matrix_rank(rows))
        if rank < len(rows):
            raise PotentialError(
                f"basis has {len(rows)} directions of rank {rank}: expected "
                "independent ones; leave out those that the others span"
            )
        self.basis = rows
        self.size = len(rows)
        self._inverse = np.linalg.pinv(rows)

    def embed(self, z: Array) -> Array:
        """Positions q0 + z B of U: (R, d) -> (R, D)."""
        xp = evaluator_xp(z)
        rows = _coordinates(xp.asarray(z), self.size)
        out = xp.asarray(self.at) + rows @ xp.asarray(self.basis)
        out = out.astype(rows.dtype if rows.dtype.kind == "f" else np.float64)
        return out if np.ndim(z) == 2 else out[0]

    def select(self, q: Array) -> Array:
        """Coordinates z of the nearest point of the subspace: (R, D) -> (R, d)."""
        xp = evaluator_xp(q)
        rows = _coordinates(xp.asarray(q), self.part.size)
        out = (rows - xp.asarray(self.at)) @ xp.asarray(self._inverse)
        return out if np.ndim(q) == 2 else out[0]

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _ProjectedEvaluator(self, backend, replicas, seed)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Points of the subspace nearest to a start of U, (R, d)."""
        return self.select(self.part.initial(replicas, seed))

    def __getattr__(self, name: str) -> Any:
        return _of_posterior(self, name)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Projected",
            "basis": fingerprint(self.basis),
            "at": fingerprint(self.at),
            "part": self.part.describe(),
        }


class _ProjectedEvaluator:
    """Evaluates U at q0 + z B, and takes the components of its forces along B."""

    polynomial: Polynomial | None = None
    __slots__ = ("_at", "_bases", "_bound", "_force", "_positions", "_xp", "full")

    def __init__(
        self, model: Projected, backend: Backend, replicas: int, seed: int
    ) -> None:
        self._xp = backend.xp
        self._bound = model.part.evaluator(backend, replicas, seed)
        types = {backend.state_dtype, backend.force_dtype, np.dtype(np.float64)}
        self._bases = {t: backend.asarray(model.basis, t) for t in types}
        self._at = backend.asarray(model.at, backend.state_dtype)
        shape = replicas, model.part.size
        self._positions = backend.zeros(shape, backend.state_dtype)
        self._force = spare(backend, replicas, model.part.size)
        self.full = self._bound.full

    @property
    def variables(self) -> dict[str, Array]:
        return kept(self._bound)

    def _embed(self, positions: Array) -> Array:
        q = self._positions
        self._xp.matmul(positions, self._bases[positions.dtype], out=q)
        self._xp.add(q, self._at, out=q)
        return q

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        force = self._force[out.dtype]
        self._bound.forces(self._embed(positions), force, call, energies)
        self._xp.matmul(force, self._bases[out.dtype].T, out=out)

    def energies(self, positions: Array, out: Array) -> None:
        self._bound.energies(self._embed(positions), out)

    def gradients(self, positions: Array, out: Array) -> None:
        gradient = self._force[out.dtype]
        self._bound.gradients(self._embed(positions), gradient)
        self._xp.matmul(gradient, self._bases[out.dtype].T, out=out)


def project(potential: Potential, basis: Any, at: Any) -> Projected:
    """Look at a potential along an affine subspace through q0.

    V(z) = U(q0 + sum_i z_i b_i), with dV/dz_i = b_i . dU/dq.

    Two directions make the plane of a loss landscape; a few random ones or the leading
    principal components of a run make a space in which everything can be mapped.

    Parameters
    ----------
    potential : Potential
        U.
    basis : array, (d, D) or (D,)
        Directions b_i, one a row, independent: see `random_basis`, `pca_basis`.
    at : array, (D,)
        q0.

    Returns
    -------
    Projected
        ``embed`` leads back to U, ``select`` to the nearest point of the subspace.

    Raises
    ------
    PotentialError
        No potential, directions that depend on each other, or shapes that differ.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> U = potentials.Harmonic([1.0, 4.0, 9.0])
    >>> line = potentials.project(U, basis=[0.0, 1.0, 1.0], at=np.zeros(3))
    >>> line.energy(np.array([[1.0]]))
    array([6.5])
    """
    return Projected(potential, basis, at)
