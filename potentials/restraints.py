r"""Harmonic restraints on a coordinate: the biases of umbrella sampling.

A coordinate :math:`\xi(q)` is a potential like any other, its "energy" being the value
of the coordinate: `Projection` (a direction), `TensorNorm`, the energy of a network
itself, or a `potentials.Custom`.  A restraint adds

.. math:: W(q) = \frac{\kappa}{2} (\xi(q) - c)^2, \qquad
    \nabla W = \kappa (\xi - c) \nabla \xi,

and averages without it are recovered from samples with it by the weights
:math:`e^{W/T}`.  One window a replica: ``center`` and ``stiffness`` may be (R,) arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import fingerprint, finite_array, temperature_value
from mdnet.potentials._forms import Polynomial
from mdnet.potentials._passing import passed
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.compose import check_parts, spare
from mdnet.potentials.coordinates import Projection
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["EnergyUmbrella", "Restraint"]


class _Windows:
    """Centres and stiffnesses of a harmonic bias, one or one a replica."""

    __slots__ = ("center", "count", "stiffness")

    def __init__(self, center: Any, stiffness: Any) -> None:
        self.center = finite_array("center", center)
        self.stiffness = finite_array("stiffness", stiffness)
        if (self.stiffness <= 0).any():
            raise PotentialError(f"stiffness={stiffness!r}: expected values > 0")
        lengths = {a.size for a in (self.center, self.stiffness) if a.ndim}
        if max(self.center.ndim, self.stiffness.ndim) > 1 or len(lengths) > 1:
            raise PotentialError(
                f"center has shape {self.center.shape} and stiffness "
                f"{self.stiffness.shape}: expected numbers or (R,), one a replica"
            )
        self.count = lengths.pop() if lengths else None

    def arrays(self, xp: Any, replicas: int) -> tuple[Array, Array]:
        """Centre and stiffness of each replica, (R,) each."""
        if self.count not in (None, replicas):
            raise PotentialError(
                f"center and stiffness are of {self.count} windows and there are "
                f"{replicas} replicas: expected one value, or one a replica"
            )
        return tuple(
            xp.asarray(np.array(np.broadcast_to(a, replicas)))
            for a in (self.center, self.stiffness)
        )

    def bias(self, values: Any) -> Array:
        """W at coordinate values (..., R), or (...) for one window."""
        xp = evaluator_xp(values)
        distance = xp.asarray(values, np.float64) - xp.asarray(self.center)
        return 0.5 * xp.asarray(self.stiffness) * distance * distance

    def describe(self) -> dict[str, Any]:
        return {
            "center": fingerprint(self.center),
            "stiffness": fingerprint(self.stiffness),
        }


class Restraint(Potential):
    """A harmonic bias on a coordinate, W = kappa (xi(q) - c)^2 / 2.

    Add it to what is sampled: ``U + Restraint(...)``.

    Parameters
    ----------
    coordinate : Potential or array, (D,)
        xi: a potential whose energy is the coordinate, or a direction v for v . q.
        Of a minibatch potential all data are used, because the product of two
        estimates would be biased.
    center, stiffness : float or array, (R,)
        c, and kappa > 0; arrays have one window a replica.

    Raises
    ------
    PotentialError
        A coordinate that is none, a stiffness that is not positive, or arrays of
        other lengths than the replicas.

    Notes
    -----
    For the energy of U itself as a coordinate, `EnergyUmbrella` needs one force call
    where ``U + Restraint(U, ...)`` needs two.  A moving restraint (steered dynamics) is
    ``interpolate(U + Restraint(xi, a, k), U + Restraint(xi, b, k))``: at lambda its
    centre is a + lambda (b - a), and its energy lies k lambda (1 - lambda) (a - b)^2/2
    above that of the restraint there.

    References
    ----------
    G. M. Torrie, J. P. Valleau, J. Comput. Phys. 23, 187 (1977),
    doi:10.1016/0021-9991(77)90121-8.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.DoubleWell(size=2)
    >>> at_barrier = U + potentials.Restraint([1.0, 1.0], center=0.0, stiffness=10.0)
    >>> at_barrier.energy([[1.0, -1.0], [1.0, 1.0]])
    array([ 0., 20.])
    """

    def __init__(
        self, coordinate: Any, center: Any = 0.0, stiffness: Any = 1.0
    ) -> None:
        if not isinstance(coordinate, Potential):
            if callable(coordinate):
                raise PotentialError(
                    f"coordinate={coordinate!r}: expected a direction (D,) or a "
                    "potential whose energy is the coordinate, as potentials.Custom("
                    "size=D, energy=xi, gradient=dxi)"
                )
            coordinate = Projection(coordinate)
        self.coordinate: Potential = coordinate
        self._windows = _Windows(center, stiffness)
        self.size = coordinate.size

    @property
    def layout(self) -> Layout:
        """That of the coordinate."""
        return self.coordinate.layout

    def value(self, q: Array) -> Array:
        """The coordinate xi(q), (R,) or ()."""
        return self.coordinate.energy(q)

    def bias(self, values: Any) -> Array:
        """W at values of the coordinate, (..., R), or (...) with one window."""
        return self._windows.bias(values)

    def log_weights(self, q: Array, temperature: float = 1.0) -> Array:
        """W(q)/T, (R,) or (): log weights that undo the bias, up to a constant."""
        return self.energy(q) / temperature_value(temperature)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _RestraintEvaluator(
            self.coordinate, self._windows, 0.0, backend, replicas, seed
        )

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """As the coordinate's potential draws it."""
        return self.coordinate.initial(replicas, seed)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Restraint",
            **self._windows.describe(),
            "coordinate": self.coordinate.describe(),
        }


class EnergyUmbrella(Potential):
    """A potential held near an energy: U + kappa (U - c)^2 / 2, in one force call.

    The force is that of U times 1 + kappa (U - c): uphill where U is below c - 1/kappa.
    It samples energies that a temperature leaves out, for densities of states.

    Parameters
    ----------
    part : Potential
        U; of a minibatch potential all data are used.
    center, stiffness : float or array, (R,)
        c, and kappa > 0 (one over energy); arrays have one window a replica.

    Raises
    ------
    PotentialError
        No potential, or windows as for `Restraint`.

    Examples
    --------
    >>> from mdnet import potentials
    >>> EnergyUmbrella(potentials.Harmonic(2.0), center=3.0).energy([[1.0]])
    array([3.])
    """

    def __init__(self, part: Potential, center: Any, stiffness: Any = 1.0) -> None:
        check_parts((part,))
        self.part = part
        self._windows = _Windows(center, stiffness)
        self.size = part.size

    @property
    def layout(self) -> Layout:
        """That of U."""
        return self.part.layout

    def bias(self, values: Any) -> Array:
        """W at energies of U, (..., R), or (...) with one window."""
        return self._windows.bias(values)

    def log_weights(self, q: Array, temperature: float = 1.0) -> Array:
        """W(q)/T, (R,) or (): log weights that undo the bias, up to a constant."""
        return self.bias(self.part.energy(q)) / temperature_value(temperature)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _RestraintEvaluator(
            self.part, self._windows, 1.0, backend, replicas, seed
        )

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """As U draws it."""
        return self.part.initial(replicas, seed)

    def __getattr__(self, name: str) -> Any:
        return passed(self, name, "part")

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "EnergyUmbrella",
            **self._windows.describe(),
            "part": self.part.describe(),
        }


class _RestraintEvaluator:
    """Of a xi + kappa (xi - c)^2/2, a = 0 or 1; always with all data."""

    full = True
    polynomial: Polynomial | None = None
    __slots__ = (
        "_bound",
        "_center",
        "_factor",
        "_factors",
        "_linear",
        "_stiffness",
        "_value",
        "_xp",
    )

    def __init__(
        self,
        part: Potential,
        windows: _Windows,
        linear: float,
        backend: Backend,
        replicas: int,
        seed: int,
    ) -> None:
        xp = self._xp = backend.xp
        self._linear = linear
        self._bound = part.evaluator(backend, replicas, seed)
        self._center, self._stiffness = windows.arrays(xp, replicas)
        self._value, self._factor = xp.empty((2, replicas), np.float64)
        self._factors = spare(backend, replicas, 1)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        if self._bound.full:
            self._bound.forces(positions, out, call, self._value)
        else:
            self._bound.energies(positions, self._value)
            self._bound.gradients(positions, out)
            self._xp.negative(out, out=out)
        self._scale(out)
        if energies is not None:
            self._bias(energies)

    def energies(self, positions: Array, out: Array) -> None:
        self._bound.energies(positions, self._value)
        self._scale(None)
        self._bias(out)

    def gradients(self, positions: Array, out: Array) -> None:
        self._bound.energies(positions, self._value)
        self._bound.gradients(positions, out)
        self._scale(out)

    def _scale(self, out: Array | None) -> None:
        """Find kappa (xi - c) of each replica; multiply ``out`` by that plus a."""
        xp, factor = self._xp, self._factor
        xp.subtract(self._value, self._center, out=factor)
        xp.multiply(factor, self._stiffness, out=factor)
        if out is not None:
            column = self._factors[out.dtype]
            column[:, 0] = factor
            xp.add(column, self._linear, out=column)
            xp.multiply(out, column, out=out)

    def _bias(self, out: Array) -> None:
        """Write a xi + W, from the value and the factor of the last call."""
        xp, factor = self._xp, self._factor
        xp.multiply(factor, factor, out=factor)
        xp.divide(factor, self._stiffness, out=factor)
        xp.multiply(factor, 0.5, out=out)
        if self._linear:
            xp.add(out, self._value, out=out)
