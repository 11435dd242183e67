"""Priors over weights: normalised densities, independent over parameters.

A scale is one number for all weights, or a mapping {tensor name: number}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.kernels.codes import PRIORS
from mdnet.typing import Array, Layout

__all__ = ["FlatPrior", "GaussianPrior", "LaplacePrior", "Prior", "StudentTPrior"]

Scale = float | Mapping[str, float]


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


def _check_scale(scale: Any, example: str) -> Scale:
    """Check the scale or scales and return them as floats."""
    if isinstance(scale, Mapping):
        return {str(name): _positive(s, example) for name, s in scale.items()}
    return _positive(scale, example)


def _positive(value: Any, example: str, name: str = "scale") -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not (math.isfinite(value) and value > 0)
    ):
        raise PotentialError(
            f"{name}={value!r}: expected a positive number, e.g. {example}"
        )
    return float(value)


def _check_names(scale: Scale, layout: Layout) -> None:
    if isinstance(scale, Mapping) and set(scale) != set(layout):
        missing = [name for name in layout if name not in scale]
        unknown = [name for name in scale if name not in layout]
        raise PotentialError(
            f"scale has no value for tensors {missing} and values for unknown tensors "
            f"{unknown}: give one number, or one for each of {list(layout)}"
        )


def _scales(scale: Scale, layout: Layout) -> list[tuple[slice, int, float]]:
    """(slice, number of parameters, scale) of each tensor."""
    return [
        (
            where,
            where.stop - where.start,
            scale[name] if isinstance(scale, Mapping) else scale,
        )
        for name, (where, _) in layout.items()
    ]


def _vector(scale: Scale, layout: Layout) -> Array:
    """Scale of each parameter, (D,)."""
    return np.concatenate([np.full(n, s) for _, n, s in _scales(scale, layout)])


def _summed(
    formula: Callable[[Array, float], Array], scale: Scale, q: Array, layout: Layout
) -> Array:
    """Sum over parameters of ``formula(q, s)``, (R,) float64."""
    if not isinstance(scale, Mapping):
        return formula(q.astype(np.float64), scale).sum(axis=1)
    parts = [
        formula(q[:, where].astype(np.float64), s).sum(axis=1)
        for where, _, s in _scales(scale, layout)
    ]
    return sum(parts[1:], parts[0])


def _mapped(
    formula: Callable[[Array, float], Array],
    scale: Scale,
    q: Array,
    layout: Layout,
    xp: Any,
) -> Array:
    """``formula(q, s)`` of each parameter, (R, D); uploads nothing to a device."""
    if not isinstance(scale, Mapping):
        return formula(q, scale)
    out = xp.empty_like(q)
    for where, _, s in _scales(scale, layout):
        out[:, where] = formula(q[:, where], s)
    return out


def _json(scale: Scale) -> Any:
    return dict(scale) if isinstance(scale, Mapping) else scale


def _uniforms(layout: Layout, replicas: int, seed: int) -> Array:
    size = sum(where.stop - where.start for where, _ in layout.values())
    return random.uniforms(seed, np.arange(replicas), 0, random.STREAM_INITIAL, size)


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
    scale : float or mapping
        Standard deviation s > 0 of all weights, or {tensor name: s}.

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
        checked = _check_scale(self.scale, "GaussianPrior(scale=1.0)")
        object.__setattr__(self, "scale", checked)

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        _check_names(self.scale, layout)

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, 1/s^2, 0) of each tensor."""
        code = PRIORS["gaussian"]
        return [(code, s**-2, 0.0) for _, _, s in _scales(self.scale, layout)]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:  # noqa: ARG002
        """-log prior, (R,) float64."""
        total = _summed(lambda x, s: 0.5 * (x / s) ** 2, self.scale, q, layout)
        return total + self.constant(layout)

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """q/s^2."""
        return _mapped(lambda x, s: x * s**-2, self.scale, q, layout, xp)

    def constant(self, layout: Layout) -> float:
        """Sum of log s + log(2 pi)/2."""
        each = 0.5 * math.log(2 * math.pi)
        return sum(n * (math.log(s) + each) for _, n, s in _scales(self.scale, layout))

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws, (R, D) float64."""
        s = _vector(self.scale, layout)
        stream = random.STREAM_INITIAL
        return random.normals(seed, np.arange(replicas), 0, stream, s.size) * s

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "gaussian", "scale": _json(self.scale)}


@dataclass(frozen=True, slots=True)
class LaplacePrior:
    """Independent Laplace densities: -log p = |q|/s + log 2s.

    The gradient at q = 0 is taken as 0.

    Parameters
    ----------
    scale : float or mapping
        s > 0 of all weights, or {tensor name: s}; the variance is 2 s^2.

    Raises
    ------
    PotentialError
        If a scale is not positive.
    """

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        checked = _check_scale(self.scale, "LaplacePrior(scale=1.0)")
        object.__setattr__(self, "scale", checked)

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        _check_names(self.scale, layout)

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, 1/s, 0) of each tensor."""
        code = PRIORS["laplace"]
        return [(code, 1 / s, 0.0) for _, _, s in _scales(self.scale, layout)]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """-log prior, (R,) float64."""
        total = _summed(lambda x, s: xp.abs(x) / s, self.scale, q, layout)
        return total + self.constant(layout)

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """sign(q)/s."""
        return _mapped(lambda x, s: xp.sign(x) / s, self.scale, q, layout, xp)

    def constant(self, layout: Layout) -> float:
        """Sum of log 2s."""
        return sum(n * math.log(2 * s) for _, n, s in _scales(self.scale, layout))

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws, (R, D) float64."""
        u = _uniforms(layout, replicas, seed) - 0.5
        s = _vector(self.scale, layout)
        return -s * np.sign(u) * np.log1p(-2 * np.abs(u))

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "laplace", "scale": _json(self.scale)}


@dataclass(frozen=True, slots=True)
class StudentTPrior:
    """Independent Student t densities of ``df`` degrees of freedom and scale s.

    -log p = (df + 1)/2 log(1 + q^2/(df s^2)) + log s + log(df pi)/2
    + log Gamma(df/2) - log Gamma((df + 1)/2).

    Parameters
    ----------
    df : float
        Degrees of freedom > 0; 1 is Cauchy.
    scale : float or mapping
        s > 0 of all weights, or {tensor name: s}.

    Raises
    ------
    PotentialError
        If ``df`` or a scale is not positive.
    """

    df: float = 3.0
    scale: Scale = 1.0

    def __post_init__(self) -> None:
        example = "StudentTPrior(df=3.0, scale=1.0)"
        object.__setattr__(self, "df", _positive(self.df, example, "df"))
        object.__setattr__(self, "scale", _check_scale(self.scale, example))

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        _check_names(self.scale, layout)

    def table(self, layout: Layout) -> list[tuple[int, float, float]]:
        """(code, df + 1, df s^2) of each tensor."""
        code, df = PRIORS["student"], self.df
        return [(code, df + 1, df * s * s) for _, _, s in _scales(self.scale, layout)]

    def energy(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """-log prior, (R,) float64."""
        df = self.df
        total = _summed(lambda x, s: xp.log1p((x / s) ** 2 / df), self.scale, q, layout)
        return 0.5 * (df + 1) * total + self.constant(layout)

    def gradient(self, q: Array, layout: Layout, xp: Any = np) -> Array:
        """(df + 1) q/(df s^2 + q^2)."""
        df = self.df
        return _mapped(
            lambda x, s: (df + 1) * x / (df * s * s + x * x), self.scale, q, layout, xp
        )

    def constant(self, layout: Layout) -> float:
        """Sum of log s and of the normalisation of the standard density."""
        df = self.df
        each = 0.5 * math.log(df * math.pi)
        each += math.lgamma(df / 2) - math.lgamma((df + 1) / 2)
        return sum(n * (math.log(s) + each) for _, n, s in _scales(self.scale, layout))

    def draw(self, layout: Layout, replicas: int, seed: int = 0) -> Array:
        """Independent draws by the inverse distribution function, (R, D) float64."""
        from scipy.special import stdtrit

        s = _vector(self.scale, layout)
        draws: Array = s * stdtrit(self.df, _uniforms(layout, replicas, seed))
        return draws

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "student", "df": self.df, "scale": _json(self.scale)}
