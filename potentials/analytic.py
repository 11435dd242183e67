"""Potentials with exact answers: harmonic, double well, Rosenbrock and funnel.

Each carries its moments, log partition function, sampler and Hessian at any
temperature T, for the law exp(-U/T) (k_B = 1).  `mdnet.potentials.landscapes` holds the
Gaussian mixture and the Müller-Brown surface, `mdnet.potentials.linear` Bayesian linear
regression.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials import _arrays
from mdnet.potentials._checks import (
    fingerprint,
    finite_array,
    positions_rows,
    positive,
    positive_integer,
    temperature_value,
)
from mdnet.potentials._exact import Tabulated, draw_normals, draw_uniforms
from mdnet.potentials._forms import Form, bind
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator

__all__ = ["DoubleWell", "Funnel", "Harmonic", "Rosenbrock"]


def _diagonal(values: Array) -> Array:
    """(R, D) -> (R, D, D) diagonal matrices."""
    out = np.zeros((*values.shape, values.shape[-1]))
    index = np.arange(values.shape[-1])
    out[..., index, index] = values
    return out


class Harmonic(Potential):
    """Independent springs.

    U(q) = sum_i k_i (q_i - c_i)^2 / 2.

    Parameters
    ----------
    stiffness : float or (D,)
        k >= 0, energy per length squared; k = 0 is a free particle, without a law.
    center : float or (D,)
        c, where the spring is at rest.
    size : int, optional
        D; 1 or the length of ``stiffness`` or ``center`` if not given.

    Raises
    ------
    PotentialError
        Negative stiffness, values that are not finite, or lengths that differ.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.Harmonic(stiffness=4.0, size=2)
    >>> U.covariance(temperature=2.0).diagonal()
    array([0.5, 0.5])
    """

    def __init__(
        self, stiffness: Any = 1.0, center: Any = 0.0, size: int | None = None
    ) -> None:
        k, c = finite_array("stiffness", stiffness), finite_array("center", center)
        if k.ndim > 1 or c.ndim > 1:
            raise PotentialError(
                f"stiffness has shape {k.shape} and center {c.shape}: expected a "
                "number or (D,), one value per parameter"
            )
        if (k < 0).any():
            raise PotentialError(
                f"stiffness={stiffness!r}: expected values >= 0; for a barrier use "
                "potentials.Custom"
            )
        lengths = {a.size for a in (k, c) if a.ndim == 1}
        if size is not None:
            lengths.add(positive_integer("size", size))
        if len(lengths) > 1 or 0 in lengths:
            raise PotentialError(
                f"stiffness has shape {k.shape}, center {c.shape} and size={size}: "
                "expected one number of parameters D"
            )
        self.size = lengths.pop() if lengths else 1
        self._uniform = k.ndim == c.ndim == 0
        self.stiffness = np.array(np.broadcast_to(k, self.size))
        self.center = np.array(np.broadcast_to(c, self.size))

    @property
    def largest_stiffness(self) -> float:
        """Largest eigenvalue of the Hessian: what limits the time step."""
        return float(self.stiffness.max())

    def largest_curvature(self, mass: Array) -> float:
        """Largest k/m, for masses of each parameter, (D,)."""
        return float((self.stiffness / mass).max())

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        k, c = float(self.stiffness[0]), float(self.center[0])
        form = Form(
            kernel="harmonic",
            kind="separable",
            constants=(self.stiffness, self.center),
            arrays=_arrays.harmonic,
            polynomial=(-k * c, k, 0.0, 0.0) if self._uniform else None,
        )
        return bind(form, self.size, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        uniform = self._uniform
        return {
            "kind": "Harmonic",
            "size": self.size,
            "stiffness": fingerprint(self.stiffness[:1] if uniform else self.stiffness),
            "center": fingerprint(self.center[:1] if uniform else self.center),
        }

    def _confined(self, temperature: float) -> float:
        if not self.stiffness.all():
            raise PotentialError(
                "stiffness is 0 for some parameters: a free particle has no "
                "equilibrium law; give every stiffness a value > 0"
            )
        return temperature_value(temperature)

    def mean(self, temperature: float = 1.0) -> Array:
        """Mean position c, (D,)."""
        self._confined(temperature)
        return self.center.copy()

    def variance(self, temperature: float = 1.0) -> Array:
        """Variance T/k of each parameter, (D,)."""
        return self._confined(temperature) / self.stiffness

    def covariance(self, temperature: float = 1.0) -> Array:
        """Covariance diag(T/k), (D, D)."""
        return np.diag(self.variance(temperature))

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function, ln Z = sum_i ln(2 pi T / k_i) / 2."""
        return float(0.5 * np.log(2 * np.pi * self.variance(temperature)).sum())

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> Array:
        """Independent draws of exp(-U/T), (n, D)."""
        z = draw_normals(n, self.size, seed)
        return self.center + np.sqrt(self.variance(temperature)) * z

    def hessian(self, q: Array) -> Array:
        """Second derivatives, (R, D, D) or (D, D)."""
        rows, single = positions_rows(q, self.size)
        out = _diagonal(np.broadcast_to(self.stiffness, rows.shape))
        return out[0] if single else out

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        rows, single = positions_rows(q, self.size)
        out = np.full(rows.shape[0], self.stiffness.sum())
        return out[0] if single else out


class DoubleWell(Potential):
    """Independent symmetric double wells.

    U(q) = sum_i a (q_i^2 - b^2)^2: minima at +-b, barrier a b^4 between them.

    Parameters
    ----------
    a : float
        Energy per length^4, > 0.
    b : float
        Position of the minima, > 0.
    size : int
        Number D of wells.

    Raises
    ------
    PotentialError
        ``a`` or ``b`` not positive, or ``size`` not a positive integer.

    Notes
    -----
    Moments and ln Z are quadratures, good to rounding: exp(-U/T) is smooth and the
    trapezoidal rule on it converges exponentially.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.DoubleWell()
    >>> U.energy([[0.0], [1.0]])
    array([1., 0.])
    """

    def __init__(self, a: float = 1.0, b: float = 1.0, size: int = 1) -> None:
        self.a, self.b = positive("a", a), positive("b", b)
        self.size = positive_integer("size", size)

    @property
    def barrier(self) -> float:
        """Height a b^4 of each barrier."""
        return self.a * self.b**4

    @property
    def minima(self) -> tuple[float, float]:
        """Positions of the minima of one well."""
        return -self.b, self.b

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        b2 = self.b * self.b
        form = Form(
            kernel="double_well",
            kind="separable",
            constants=(np.array([4 * self.a, b2]),),
            arrays=_arrays.double_well,
            polynomial=(0.0, -4 * self.a * b2, 0.0, 4 * self.a),
        )
        return bind(form, self.size, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"kind": "DoubleWell", "size": self.size, "a": self.a, "b": self.b}

    def _half(self, temperature: float) -> Tabulated:
        """The law of |q|: cut where U/T passes 750, below the smallest double."""
        t = temperature_value(temperature)
        reach, b2 = math.sqrt(750 * t / self.a), self.b**2
        return Tabulated.of(
            lambda x: self.a * (x * x - b2) ** 2 / t,
            math.sqrt(max(0.0, b2 - reach)),
            math.sqrt(b2 + reach),
            20_001,
        )

    def mean(self, temperature: float = 1.0) -> Array:
        """Mean position, 0 by symmetry, (D,)."""
        temperature_value(temperature)
        return np.zeros(self.size)

    def variance(self, temperature: float = 1.0) -> Array:
        """Variance of each parameter, (D,)."""
        half = self._half(temperature)
        return np.full(self.size, half.mean(half.points**2))

    def covariance(self, temperature: float = 1.0) -> Array:
        """Covariance, a multiple of the identity, (D, D)."""
        return np.diag(self.variance(temperature))

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function, ln Z = D ln of the integral over one well."""
        return self.size * (math.log(2) + self._half(temperature).log_norm)

    def marginal_density(self, x: Any, temperature: float = 1.0) -> Array:
        """Density of one parameter at ``x``, shaped as ``x``."""
        t = temperature_value(temperature)
        points = np.asarray(x, np.float64)
        norm = math.log(2) + self._half(t).log_norm
        return np.exp(-self.a * (points**2 - self.b**2) ** 2 / t - norm)

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> Array:
        """Independent draws by inversion of the tabulated distribution, (n, D)."""
        u = draw_uniforms(n, 2 * self.size, seed)
        distance = self._half(temperature).quantile(u[:, : self.size])
        return np.where(u[:, self.size :] < 0.5, -distance, distance)

    def _curvature(self, rows: Array) -> Array:
        return 4 * self.a * (3 * rows**2 - self.b**2)

    def hessian(self, q: Array) -> Array:
        """Second derivatives, (R, D, D) or (D, D)."""
        rows, single = positions_rows(q, self.size)
        out = _diagonal(self._curvature(rows))
        return out[0] if single else out

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        rows, single = positions_rows(q, self.size)
        out = self._curvature(rows).sum(axis=1)
        return out[0] if single else out


class Rosenbrock(Potential):
    """Curved valleys: independent pairs of Rosenbrock's function.

    U(q) = sum over pairs (x, y) of (x - a)^2 + b (y - x^2)^2.

    Every pair is a Gaussian x ~ N(a, T/2) and, given it, y ~ N(x^2, T/(2b)): narrow,
    curved and exactly solvable at every temperature.

    Parameters
    ----------
    a, b : float
        Position of the minimum (a, a^2), and stiffness of the valley's walls, b > 0.
    size : int
        D, even; parameters 0, 2, ... are the x.

    Raises
    ------
    PotentialError
        ``b`` not positive, or ``size`` odd.

    References
    ----------
    H. H. Rosenbrock, Comput. J. 3, 175 (1960), doi:10.1093/comjnl/3.3.175;
    F. Pagani, M. Wiegand, S. Nadarajah, Scand. J. Stat. 49, 657 (2022),
    doi:10.1111/sjos.12532, for its use as a density.
    """

    def __init__(self, a: float = 1.0, b: float = 100.0, size: int = 2) -> None:
        centre = finite_array("a", a)
        if centre.ndim != 0:
            raise PotentialError(f"a={a!r}: expected one finite number")
        self.a, self.b = float(centre), positive("b", b)
        self.size = positive_integer("size", size)
        if self.size % 2:
            raise PotentialError(
                f"size={size}: expected an even number, two parameters a valley"
            )

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        form = Form(
            kernel="rosenbrock",
            kind="rows",
            constants=(np.array([self.a, self.b]),),
            arrays=_arrays.rosenbrock,
        )
        return bind(form, self.size, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"kind": "Rosenbrock", "size": self.size, "a": self.a, "b": self.b}

    def mean(self, temperature: float = 1.0) -> Array:
        """Mean (a, a^2 + T/2) of each pair, (D,)."""
        t = temperature_value(temperature)
        return np.tile([self.a, self.a**2 + t / 2], self.size // 2)

    def covariance(self, temperature: float = 1.0) -> Array:
        """Covariance of each pair on the diagonal, (D, D), with s = T/2.

        [[s, 2 a s], [2 a s, 2 s^2 + 4 a^2 s + s/b]].
        """
        s = temperature_value(temperature) / 2
        cross = 2 * self.a * s
        tall = 2 * s**2 + 4 * self.a**2 * s + s / self.b
        return np.kron(np.eye(self.size // 2), [[s, cross], [cross, tall]])

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function, ln Z = (D/2) ln(pi T / sqrt(b))."""
        t = temperature_value(temperature)
        return self.size / 2 * math.log(math.pi * t / math.sqrt(self.b))

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> Array:
        """Independent draws of exp(-U/T), (n, D)."""
        t = temperature_value(temperature)
        out = draw_normals(n, self.size, seed)
        out[:, 0::2] = self.a + math.sqrt(t / 2) * out[:, 0::2]
        out[:, 1::2] = out[:, 0::2] ** 2 + math.sqrt(t / (2 * self.b)) * out[:, 1::2]
        return out

    def hessian(self, q: Array) -> Array:
        """Second derivatives, (R, D, D) or (D, D)."""
        rows, single = positions_rows(q, self.size)
        x, y = rows[:, 0::2], rows[:, 1::2]
        out = np.zeros((*rows.shape, self.size))
        even = np.arange(0, self.size, 2)
        out[:, even, even] = 2 + self.b * (12 * x * x - 4 * y)
        out[:, even + 1, even + 1] = 2 * self.b
        out[:, even, even + 1] = out[:, even + 1, even] = -4 * self.b * x
        return out[0] if single else out

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        rows, single = positions_rows(q, self.size)
        x, y = rows[:, 0::2], rows[:, 1::2]
        out = (2 + 2 * self.b + self.b * (12 * x * x - 4 * y)).sum(axis=1)
        return out[0] if single else out


class Funnel(Potential):
    """Neal's funnel: a width that the widths' own coordinate decides.

    v = q_0 ~ N(0, s^2) and q_i ~ N(0, e^v) for the other n = D - 1:
    U(q) = v^2/(2 s^2) + e^{-v} sum_i q_i^2/2 + n v/2 + ln sqrt(2 pi s^2)
    + (n/2) ln 2 pi, normalised so that Z = 1 at temperature 1.

    At temperature T, v ~ N(n s^2 (T - 1)/2, T s^2) and q_i given v ~ N(0, T e^v).

    Parameters
    ----------
    size : int
        D >= 2.
    scale : float
        s, standard deviation of v at T = 1.

    Raises
    ------
    PotentialError
        ``size`` below 2 or ``scale`` not positive.

    References
    ----------
    R. M. Neal, "Slice sampling", Ann. Stat. 31, 705 (2003), section 8,
    doi:10.1214/aos/1056562461.
    """

    def __init__(self, size: int = 10, scale: float = 3.0) -> None:
        self.size = positive_integer("size", size)
        if self.size < 2:
            raise PotentialError(f"size={size}: expected at least 2, one v and one x")
        self.scale = positive("scale", scale)

    @property
    def _constant(self) -> float:
        return math.log(self.scale) + self.size / 2 * math.log(2 * math.pi)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        numbers = [self.scale**-2, 0.5, (self.size - 1) / 2, self._constant]
        form = Form(
            kernel="funnel",
            kind="rows",
            constants=(np.array(numbers),),
            arrays=_arrays.funnel,
        )
        return bind(form, self.size, backend, replicas)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"kind": "Funnel", "size": self.size, "scale": self.scale}

    def _neck(self, temperature: float) -> tuple[float, float, float]:
        """T, and mean and variance of v."""
        t = temperature_value(temperature)
        return t, (self.size - 1) * self.scale**2 * (t - 1) / 2, t * self.scale**2

    def mean(self, temperature: float = 1.0) -> Array:
        """Mean (n s^2 (T - 1)/2, 0, ...), (D,)."""
        out = np.zeros(self.size)
        out[0] = self._neck(temperature)[1]
        return out

    def covariance(self, temperature: float = 1.0) -> Array:
        """Covariance, diagonal: T s^2, then T <e^v>, (D, D)."""
        t, mean, variance = self._neck(temperature)
        values = np.full(self.size, t * np.exp(mean + variance / 2))
        values[0] = variance
        return np.diag(values)

    def log_partition(self, temperature: float = 1.0) -> float:
        """Log partition function; 0 at temperature 1."""
        t, mean, variance = self._neck(temperature)
        gaussian = self.size / 2 * math.log(2 * math.pi * t) + math.log(self.scale)
        return gaussian + mean**2 / (2 * variance) - self._constant / t

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> Array:
        """Independent draws of exp(-U/T), (n, D)."""
        t, mean, variance = self._neck(temperature)
        out = draw_normals(n, self.size, seed)
        out[:, 0] = mean + math.sqrt(variance) * out[:, 0]
        out[:, 1:] *= np.sqrt(t * np.exp(out[:, :1]))
        return out

    def hessian(self, q: Array) -> Array:
        """Second derivatives, (R, D, D) or (D, D)."""
        rows, single = positions_rows(q, self.size)
        narrow, x = np.exp(-rows[:, :1]), rows[:, 1:]
        out = _diagonal(np.broadcast_to(narrow, rows.shape))
        out[:, 0, 0] = self.scale**-2 + (narrow * x * x).sum(axis=1) / 2
        out[:, 0, 1:] = out[:, 1:, 0] = -narrow * x
        return out[0] if single else out

    def laplacian(self, q: Array) -> Array:
        """Trace of the Hessian, (R,) or ()."""
        rows, single = positions_rows(q, self.size)
        narrow = np.exp(-rows[:, 0])
        square = (rows[:, 1:] ** 2).sum(axis=1)
        out = self.scale**-2 + narrow * (square / 2 + self.size - 1)
        return out[0] if single else out
