"""Scales of a prior: one number, one for each tensor, or by the number of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.typing import Array, Layout

__all__ = [
    "FanIn",
    "Scale",
    "check_names",
    "check_scale",
    "json_scale",
    "mapped",
    "positive",
    "scales",
    "summed",
    "uniforms",
    "vector",
]


@dataclass(frozen=True, slots=True)
class FanIn:
    """Scale gain/sqrt(inputs) of tensors (out, in, ...), ``bias`` of vectors.

    Sums of ``inputs`` weights then have the same variance in every layer, so that the
    law of the network's outputs does not depend on its widths.

    Parameters
    ----------
    gain : float
        Standard deviation times the square root of the number of inputs (the product
        of all axes but the first), > 0.
    bias : float
        Scale of tensors with one axis, > 0.

    Raises
    ------
    PotentialError
        If a parameter is not positive.

    References
    ----------
    R. M. Neal, "Bayesian Learning for Neural Networks" (1996), chapter 2,
    doi:10.1007/978-1-4612-0745-0.
    """

    gain: float = 1.0
    bias: float = 1.0

    def __post_init__(self) -> None:
        example = "FanIn(gain=1.0, bias=1.0)"
        object.__setattr__(self, "gain", positive(self.gain, example, "gain"))
        object.__setattr__(self, "bias", positive(self.bias, example, "bias"))

    def of(self, shape: tuple[int, ...]) -> float:
        """Scale of a tensor of this shape."""
        if len(shape) < 2:
            return self.bias
        return self.gain / math.sqrt(math.prod(shape[1:]))


Scale = float | Mapping[str, float] | FanIn


def check_scale(scale: Any, example: str) -> Scale:
    """Check the scale or scales and return them as floats."""
    if isinstance(scale, FanIn):
        return scale
    if isinstance(scale, str) and scale == "fan_in":
        return FanIn()
    if isinstance(scale, Mapping):
        return {str(name): positive(s, example) for name, s in scale.items()}
    return positive(scale, example)


def positive(value: Any, example: str, name: str = "scale") -> float:
    """Check that ``value`` is a positive number and return it as a float."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not (math.isfinite(value) and value > 0)
    ):
        raise PotentialError(
            f"{name}={value!r}: expected a positive number, e.g. {example}"
        )
    return float(value)


def check_names(scale: Scale, layout: Layout) -> None:
    """Raise if a mapping does not name every tensor of ``layout``."""
    if isinstance(scale, Mapping) and set(scale) != set(layout):
        missing = [name for name in layout if name not in scale]
        unknown = [name for name in scale if name not in layout]
        raise PotentialError(
            f"scale has no value for tensors {missing} and values for unknown tensors "
            f"{unknown}: give one number, or one for each of {list(layout)}"
        )


def scales(scale: Scale, layout: Layout) -> list[tuple[slice, int, float]]:
    """(slice, number of parameters, scale) of each tensor."""
    return [
        (where, where.stop - where.start, _one(scale, name, shape))
        for name, (where, shape) in layout.items()
    ]


def _one(scale: Scale, name: str, shape: tuple[int, ...]) -> float:
    if isinstance(scale, FanIn):
        return scale.of(shape)
    return scale[name] if isinstance(scale, Mapping) else scale


def vector(scale: Scale, layout: Layout) -> Array:
    """Scale of each parameter, (D,)."""
    return np.concatenate([np.full(n, s) for _, n, s in scales(scale, layout)])


def summed(
    formula: Callable[[Array, float], Array], scale: Scale, q: Array, layout: Layout
) -> Array:
    """Sum over parameters of ``formula(q, s)``, (R,) float64."""
    if isinstance(scale, float):
        return formula(q.astype(np.float64), scale).sum(axis=1)
    parts = [
        formula(q[:, where].astype(np.float64), s).sum(axis=1)
        for where, _, s in scales(scale, layout)
    ]
    return sum(parts[1:], parts[0])


def mapped(
    formula: Callable[[Array, float], Array],
    scale: Scale,
    q: Array,
    layout: Layout,
    xp: Any,
) -> Array:
    """``formula(q, s)`` of each parameter, (R, D); uploads nothing to a device."""
    if isinstance(scale, float):
        return formula(q, scale)
    out = xp.empty_like(q)
    for where, _, s in scales(scale, layout):
        out[:, where] = formula(q[:, where], s)
    return out


def json_scale(scale: Scale) -> Any:
    """JSON-able form of a scale."""
    if isinstance(scale, FanIn):
        return {"fan_in": scale.gain, "bias": scale.bias}
    return dict(scale) if isinstance(scale, Mapping) else scale


def uniforms(layout: Layout, replicas: int, seed: int) -> Array:
    """Uniforms of every parameter, (R, D)."""
    size = sum(where.stop - where.start for where, _ in layout.values())
    return random.uniforms(seed, np.arange(replicas), 0, random.STREAM_INITIAL, size)
