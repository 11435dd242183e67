"""Helpers of exact answers: moments, Gaussian draws and quadrature on a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mdnet import random
from mdnet.potentials._checks import positive_integer
from mdnet.typing import Array

__all__ = ["Moment", "Tabulated", "draw_normals", "draw_uniforms"]


class Moment(np.ndarray[Any, np.dtype[np.float64]]):
    """A moment at temperature 1, as an array that also answers at other temperatures.

    ``U.covariance`` is the array, ``U.covariance(temperature)`` a plain array at that
    temperature.

    Parameters
    ----------
    at : callable
        Temperature -> array.
    """

    _at: Callable[[float], Array] | None

    def __new__(cls, at: Callable[[float], Array]) -> Self:
        moment = np.asarray(at(1.0)).view(cls)
        moment._at = at
        return moment

    def __array_finalize__(self, _: Any) -> None:
        self._at = None

    def __array_wrap__(
        self, array: Any, context: Any = None, scalar: Any = False
    ) -> Any:
        """Results of arithmetic are plain arrays."""
        plain = np.asarray(array)
        return plain[()] if scalar or plain.ndim == 0 else plain

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __call__(self, temperature: float = 1.0) -> Array:
        """Return the moment at ``temperature``."""
        if self._at is None:
            raise TypeError("a view of a moment holds numbers at one temperature only")
        return self._at(temperature)


def draw_normals(n: int, size: int, seed: int) -> Array:
    """(n, size) standard normals; row i does not depend on n."""
    rows = np.arange(positive_integer("n", n))
    return random.normals(seed, rows, 0, random.STREAM_INITIAL, size)


def draw_uniforms(n: int, size: int, seed: int) -> Array:
    """(n, size) uniforms in (0, 1), independent of `draw_normals` of the same seed."""
    rows = np.arange(positive_integer("n", n))
    return random.uniforms(seed, rows, 1, random.STREAM_INITIAL, size)


@dataclass(frozen=True, slots=True)
class Tabulated:
    """A density on a line by the trapezoidal rule on a uniform grid.

    For a smooth density that vanishes at both ends (or has zero slope there) the rule
    converges faster than any power of the spacing.

    Attributes
    ----------
    points, density : ndarray, (n,)
        Grid and normalised density.
    log_norm : float
        ln of the integral of exp(-exponent).
    """

    points: Array
    density: Array
    log_norm: float

    @classmethod
    def of(
        cls, exponent: Callable[[Array], Array], low: float, high: float, n: int
    ) -> Self:
        """Tabulate exp(-exponent(x)) on [low, high]."""
        points = np.linspace(low, high, n)
        values = exponent(points)
        least = values.min()
        weight = np.exp(least - values)
        total = np.trapezoid(weight, points)
        return cls(points, weight / total, float(np.log(total) - least))

    def mean(self, values: Array) -> float:
        """Average of ``values``, given at the points."""
        return float(np.trapezoid(values * self.density, self.points))

    def quantile(self, u: Array) -> Array:
        """Inverse of the cumulative distribution."""
        steps = (self.density[1:] + self.density[:-1]) / 2 * np.diff(self.points)
        cumulative = np.concatenate([[0.0], np.cumsum(steps)])
        return np.interp(u * cumulative[-1], cumulative, self.points)
