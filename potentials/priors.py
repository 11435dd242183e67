"""Priors over weights: normalised densities, independent given their scales.

A scale is one number for all weights, a mapping {tensor name: number}, or `FanIn` (in
short "fan_in"), which follows the shapes of the tensors.  Priors whose scales are
sampled with the weights are `HierarchicalGaussianPrior` and `HorseshoePrior`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.kernels.codes import PRIORS
from mdnet.potentials._hierarchical import HierarchicalGaussianPrior, HorseshoePrior
from mdnet.potentials._prior_scales import (
    FanIn,
    Scale,
    check_names,
    check_scale,
    json_scale,
    mapped,
    positive,
    scales,
    summed,
    uniforms,
    vector,
)
from mdnet.typing import Array, Layout

__all__ = [
    "CauchyPrior",
    "FanIn",
    "FlatPrior",
    "GaussianPrior",
    "HierarchicalGaussianPrior",
    "HorseshoePrior",
    "LaplacePrior",
    "Prior",
    "StudentTPrior",
]


class Prior(Protocol):
    """-log prior(q), its gradient and draws.

    A class with a method ``table``, (code, u, v) of `mdnet.kernels.pointwise` for
    each tensor of a layout, runs in the compiled engine.
    """

    def check(self, layout: Layout) -> None:
        """Raise if the prior does not fit the tensors of ``layout``."""

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """-log prior, (R,) float64, constants included."""

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """Gradient of `energy`, (R, D)."""

    def constant(self, layout: Layout) -> float:
        """Part of `energy` that no weight changes."""

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws, (R, D) float64."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


@dataclass(frozen=True, slots=True)
class FlatPrior:
    """No prior: adds nothing to U (and is not a probability density)."""

    def check(self, layout: Layout) -> None:
        """Nothing to check."""

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, u, v) of each tensor in the compiled engine."""
        return [(PRIORS["flat"], 0.0, 0.0) for _ in layout]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:  # noqa: ARG002
        """Zeros, (R,)."""
        return xp.zeros(q.shape[0], np.float64)

    def gradient(
        self,
        q: Array,
        layout: Layout,  # noqa: ARG002
        xp: Any = np,
    ) -> Array:
        """Zeros, (R, D)."""
        return xp.zeros_like(q)

    def constant(self, layout: Layout) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def draw(
        self,
        layout: Layout,  # noqa: ARG002
        replicas: int,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
    ) -> Array:
        """Refuse.

        Raises
        ------
        PotentialError
            Always: a flat prior has nothing to draw from.
        """
        raise PotentialError(
            "prior=None has nothing to draw from: give a proper prior such as "
            "GaussianPrior(scale=1.0), or start from the network: "
            'initial(replicas, start="network")'
        )

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "flat"}


@dataclass(frozen=True, slots=True)
class GaussianPrior:
    """Independent normals: -log p = q^2/2s^2 + log s + log(2 pi)/2.

    Parameters
    ----------
    scale : float, mapping or FanIn
        Standard deviation s > 0 of all weights, {tensor name: s}, or "fan_in".

    Raises
    ------
    PotentialError
        If a scale is not positive.

    Examples
    --------
    >>> from mdnet.potentials.priors import GaussianPrior
    >>> GaussianPrior(scale={"0.weight": 0.5, "0.bias": 1.0}).describe()["name"]
    'gaussian'
    """

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        checked = check_scale(self.scale, "GaussianPrior(scale=1.0)")
        object.__setattr__(self, "scale", checked)

    @classmethod
    def fan_in(cls, gain: float = 1.0, bias: float = 1.0) -> GaussianPrior:
        """Scale gain/sqrt(inputs) for weights and ``bias`` for vectors, see `FanIn`."""
        return cls(scale=FanIn(gain, bias))

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        check_names(self.scale, layout)

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, 1/s^2, 0) of each tensor."""
        code = PRIORS["gaussian"]
        return [(code, s**-2, 0.0) for _, _, s in scales(self.scale, layout)]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:  # noqa: ARG002
        """-log prior, (R,) float64."""
        total = summed(lambda x, s: 0.5 * (x / s) ** 2, self.scale, q, layout)
        return total + self.constant(layout)

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """q/s^2."""
        return mapped(lambda x, s: x * s**-2, self.scale, q, layout, xp)

    def constant(self, layout: Layout) -> float:
        """Sum of log s + log(2 pi)/2."""
        each = 0.5 * math.log(2 * math.pi)
        return sum(n * (math.log(s) + each) for _, n, s in scales(self.scale, layout))

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws, (R, D) float64."""
        s = vector(self.scale, layout)
        stream = random.STREAM_INITIAL
        return random.normals(seed, np.arange(replicas), 0, stream, s.size) * s

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "gaussian", "scale": json_scale(self.scale)}


@dataclass(frozen=True, slots=True)
class LaplacePrior:
    """Independent Laplace densities: -log p = |q|/s + log 2s.

    The gradient at q = 0 is taken as 0.

    Parameters
    ----------
    scale : float, mapping or FanIn
        s > 0 of all weights, {tensor name: s}, or "fan_in"; the variance is 2 s^2.

    Raises
    ------
    PotentialError
        If a scale is not positive.
    """

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        checked = check_scale(self.scale, "LaplacePrior(scale=1.0)")
        object.__setattr__(self, "scale", checked)

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        check_names(self.scale, layout)

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, 1/s, 0) of each tensor."""
        code = PRIORS["laplace"]
        return [(code, 1 / s, 0.0) for _, _, s in scales(self.scale, layout)]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """-log prior, (R,) float64."""
        total = summed(lambda x, s: xp.abs(x) / s, self.scale, q, layout)
        return total + self.constant(layout)

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """sign(q)/s."""
        return mapped(lambda x, s: xp.sign(x) / s, self.scale, q, layout, xp)

    def constant(self, layout: Layout) -> float:
        """Sum of log 2s."""
        return sum(n * math.log(2 * s) for _, n, s in scales(self.scale, layout))

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws, (R, D) float64."""
        u = uniforms(layout, replicas, seed) - 0.5
        s = vector(self.scale, layout)
        return -s * np.sign(u) * np.log1p(-2 * np.abs(u))

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "laplace", "scale": json_scale(self.scale)}


@dataclass(frozen=True, slots=True)
class StudentTPrior:
    """Independent Student t densities of ``df`` degrees of freedom and scale s.

    -log p = (df + 1)/2 log(1 + q^2/(df s^2)) + log s + log(df pi)/2
    + log Gamma(df/2) - log Gamma((df + 1)/2).

    Parameters
    ----------
    df : float
        Degrees of freedom > 0; 1 is Cauchy.
    scale : float, mapping or FanIn
        s > 0 of all weights, {tensor name: s}, or "fan_in".

    Raises
    ------
    PotentialError
        If ``df`` or a scale is not positive.
    """

    df: float = 3.0
    scale: Scale = 1.0

    def __post_init__(self) -> None:
        example = "StudentTPrior(df=3.0, scale=1.0)"
        object.__setattr__(self, "df", positive(self.df, example, "df"))
        object.__setattr__(self, "scale", check_scale(self.scale, example))

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        check_names(self.scale, layout)

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, df + 1, df s^2) of each tensor."""
        code, df = PRIORS["student"], self.df
        return [(code, df + 1, df * s * s) for _, _, s in scales(self.scale, layout)]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """-log prior, (R,) float64."""
        df = self.df
        total = summed(lambda x, s: xp.log1p((x / s) ** 2 / df), self.scale, q, layout)
        return 0.5 * (df + 1) * total + self.constant(layout)

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """(df + 1) q/(df s^2 + q^2)."""
        df = self.df
        return mapped(
            lambda x, s: (df + 1) * x / (df * s * s + x * x), self.scale, q, layout, xp
        )

    def constant(self, layout: Layout) -> float:
        """Sum of log s and of the normalisation of the standard density."""
        df = self.df
        each = 0.5 * math.log(df * math.pi)
        each += math.lgamma(df / 2) - math.lgamma((df + 1) / 2)
        return sum(n * (math.log(s) + each) for _, n, s in scales(self.scale, layout))

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws by the inverse distribution function, (R, D) float64."""
        from scipy.special import stdtrit

        s = vector(self.scale, layout)
        draws: Array = s * stdtrit(self.df, uniforms(layout, replicas, seed))
        return draws

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "student", "df": self.df, "scale": json_scale(self.scale)}


def CauchyPrior(scale: Any = 1.0) -> StudentTPrior:
    """Independent Cauchy densities: a `StudentTPrior` of one degree of freedom.

    Parameters
    ----------
    scale : float, mapping or FanIn
        s > 0, half the width between the quartiles.

    Examples
    --------
    >>> from mdnet.potentials.priors import CauchyPrior
    >>> CauchyPrior(0.5).describe()
    {'name': 'student', 'df': 1.0, 'scale': 0.5}
    """
    return StudentTPrior(df=1.0, scale=scale)
