r"""Laws of positive scales that are sampled with the weights, in log coordinates.

A noise level or the width of a prior is a positive number s.  Where it is to be
inferred, a law of s stands in place of the number, and l = log s becomes one more
coordinate of q.  Densities change with coordinates: what is added to U is

.. math:: E(l) = -\log p_s(e^l) - l,

whose last term is the Jacobian ds/dl = s.

============  ==============================================  ====================
law           density of s                                    median
============  ==============================================  ====================
HalfNormal    sqrt(2/pi) exp(-s^2/2 tau^2)/tau                0.6745 tau
HalfCauchy    2/(pi tau (1 + s^2/tau^2))                      tau
LogNormal     log s ~ N(log median, width^2)                  median
InverseGamma  s^2 = v, p(v) = b^a/Gamma(a) v^(-a-1) e^(-b/v)  `quantile(0.5)`
============  ==============================================  ====================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mdnet.potentials._prior_scales import positive
from mdnet.typing import Array

__all__ = ["HalfCauchy", "HalfNormal", "InverseGamma", "LogNormal", "ScaleLaw"]


def _settle(law: Any, name: str, example: str) -> None:
    """Check that a setting is a positive number and keep it as a float."""
    object.__setattr__(law, name, positive(getattr(law, name), example, name))


@runtime_checkable
class ScaleLaw(Protocol):
    """Density of a positive scale s, in the coordinate l = log s."""

    def energy(self, log_scale: Array, xp: Any = np) -> Array:
        """Minus the log density of l = log s, constants included."""

    def slope(self, log_scale: Array, xp: Any = np) -> Array:
        """Derivative of `energy`."""

    def quantile(self, u: Array) -> Array:
        """Scale s below which a fraction ``u`` of the law lies."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


@dataclass(frozen=True, slots=True)
class HalfNormal:
    """Absolute value of a normal: p(s) = sqrt(2/pi) exp(-s^2/2 tau^2)/tau.

    Parameters
    ----------
    scale : float
        tau > 0.

    Raises
    ------
    PotentialError
        If ``scale`` is not a positive number.

    Examples
    --------
    >>> from mdnet.potentials.scales import HalfNormal
    >>> round(float(HalfNormal(2.0).quantile(0.5)), 4)
    1.349
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _settle(self, "scale", "HalfNormal(scale=1.0)")

    def energy(self, log_scale: Array, xp: Any = np) -> Array:
        """s^2/2 tau^2 - l + log tau + log(pi/2)/2."""
        square = xp.exp(2 * (log_scale - math.log(self.scale)))
        constant = math.log(self.scale) + 0.5 * math.log(math.pi / 2)
        return 0.5 * square - log_scale + constant

    def slope(self, log_scale: Array, xp: Any = np) -> Array:
        """s^2/tau^2 - 1."""
        return xp.exp(2 * (log_scale - math.log(self.scale))) - 1

    def quantile(self, u: Array) -> Array:
        """Scale s below which a fraction ``u`` of the law lies."""
        from scipy.special import ndtri

        value: Array = self.scale * ndtri(0.5 + 0.5 * np.asarray(u))
        return value

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "half_normal", "scale": self.scale}


@dataclass(frozen=True, slots=True)
class HalfCauchy:
    """Absolute value of a Cauchy variable: p(s) = 2/(pi tau (1 + s^2/tau^2)).

    Parameters
    ----------
    scale : float
        tau > 0, the median.

    Raises
    ------
    PotentialError
        If ``scale`` is not a positive number.

    References
    ----------
    A. Gelman, Bayesian Analysis 1, 515 (2006), doi:10.1214/06-BA117A.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _settle(self, "scale", "HalfCauchy(scale=1.0)")

    def energy(self, log_scale: Array, xp: Any = np) -> Array:
        """log(e^x + e^-x) + log(pi/2) with x = l - log tau."""
        x = log_scale - math.log(self.scale)
        size = xp.abs(x)
        return size + xp.log1p(xp.exp(-2 * size)) + math.log(math.pi / 2)

    def slope(self, log_scale: Array, xp: Any = np) -> Array:
        """Tanh(l - log tau)."""
        return xp.tanh(log_scale - math.log(self.scale))

    def quantile(self, u: Array) -> Array:
        """Scale s below which a fraction ``u`` of the law lies."""
        return self.scale * np.tan(0.5 * math.pi * np.asarray(u))

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "half_cauchy", "scale": self.scale}


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A normal in log s: log s ~ N(log median, width^2).

    Parameters
    ----------
    median : float
        Median of s, > 0.
    width : float
        Standard deviation of log s, > 0.

    Raises
    ------
    PotentialError
        If a parameter is not a positive number.
    """

    median: float = 1.0
    width: float = 1.0

    def __post_init__(self) -> None:
        _settle(self, "median", "LogNormal(median=1.0, width=1.0)")
        _settle(self, "width", "LogNormal(median=1.0, width=1.0)")

    def energy(self, log_scale: Array, xp: Any = np) -> Array:  # noqa: ARG002
        """(l - log median)^2/2 width^2 + log width + log(2 pi)/2."""
        x = (log_scale - math.log(self.median)) / self.width
        return 0.5 * x * x + math.log(self.width) + 0.5 * math.log(2 * math.pi)

    def slope(self, log_scale: Array, xp: Any = np) -> Array:  # noqa: ARG002
        """(l - log median)/width^2."""
        return (log_scale - math.log(self.median)) * self.width**-2

    def quantile(self, u: Array) -> Array:
        """Scale s below which a fraction ``u`` of the law lies."""
        from scipy.special import ndtri

        value: Array = self.median * np.exp(self.width * ndtri(np.asarray(u)))
        return value

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "log_normal", "median": self.median, "width": self.width}


@dataclass(frozen=True, slots=True)
class InverseGamma:
    """The conjugate law of a variance: s^2 ~ inverse gamma (a Gamma precision).

    p(v) = b^a/Gamma(a) v^(-a-1) e^(-b/v) with v = s^2.

    Parameters
    ----------
    shape : float
        a > 0.
    rate : float
        b > 0, in units of s^2; the mode of v is b/(a + 1).

    Raises
    ------
    PotentialError
        If a parameter is not a positive number.
    """

    shape: float = 2.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        _settle(self, "shape", "InverseGamma(shape=2.0, rate=1.0)")
        _settle(self, "rate", "InverseGamma(shape=2.0, rate=1.0)")

    def energy(self, log_scale: Array, xp: Any = np) -> Array:
        """2 a l + b e^(-2l) + log Gamma(a) - a log b - log 2."""
        a, b = self.shape, self.rate
        constant = math.lgamma(a) - a * math.log(b) - math.log(2)
        return 2 * a * log_scale + b * xp.exp(-2 * log_scale) + constant

    def slope(self, log_scale: Array, xp: Any = np) -> Array:
        """2 a - 2 b e^(-2l)."""
        return 2 * self.shape - 2 * self.rate * xp.exp(-2 * log_scale)

    def quantile(self, u: Array) -> Array:
        """Scale s below which a fraction ``u`` of the law lies."""
        from scipy.special import gammainccinv

        value: Array = np.sqrt(self.rate / gammainccinv(self.shape, np.asarray(u)))
        return value

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "inverse_gamma", "shape": self.shape, "rate": self.rate}
