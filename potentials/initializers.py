"""Starts: laws from which the weights of a network are drawn.

An initialiser is called with a network, a number of replicas and a seed and returns
(R, D) float64.  Every number is a function of (seed, replica, parameter), so a replica
starts alike however many start beside it.

=============  ===================================  ================================
name           variance of a weight                 for
=============  ===================================  ================================
`lecun`        1/fan-in                             tanh, sigmoid, selu
`glorot`       2/(fan-in + fan-out)                 tanh, both ways
`he`           2/fan-in                             relu and its relatives
`Orthogonal`   rows (or columns) orthonormal        deep linear and tanh networks
`PriorDraw`    the prior's                          prior predictive, annealing
=============  ===================================  ================================

Fan-in is the number of inputs that a unit sums over, fan-out the number of units that
an input feeds; for a window both times its pixels.  Biases and thresholds start at
zero, scales of a normalisation at one, tables of tokens with variance one.

References
----------
Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, "Efficient BackProp" (1998),
doi:10.1007/3-540-49430-8_2.
X. Glorot, Y. Bengio, AISTATS, PMLR 9, 249 (2010).
K. He, X. Zhang, S. Ren, J. Sun, ICCV (2015), doi:10.1109/ICCV.2015.123.
A. M. Saxe, J. L. McClelland, S. Ganguli, ICLR (2014), arXiv:1312.6120.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._layer import Tensor
from mdnet.potentials.priors import Prior
from mdnet.typing import Array

__all__ = [
    "Initializer",
    "Orthogonal",
    "PriorDraw",
    "VarianceScaling",
    "fans",
    "glorot",
    "he",
    "lecun",
    "make_initializer",
    "tensors_of",
]

_STEADY = {"scale": 1.0, "shift": 0.0}


class Initializer(Protocol):
    """Draws the weights of a network."""

    def __call__(self, network: Any, replicas: int, seed: int = 0, /) -> Array:
        """Weights (R, D) float64."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


def tensors_of(network: Any) -> Mapping[str, Tensor]:
    """Shape and kind of each tensor of a network, in the order of its layout.

    Networks without a method ``tensors`` are read by names and shapes: one axis is a
    scale if its name ends in "weight" and a shift if not.
    """
    own = getattr(network, "tensors", None)
    if callable(own):
        found: Mapping[str, Tensor] = own()
        return found
    kinds: dict[str, Tensor] = {}
    for name, (_, shape) in network.layout.items():
        if len(shape) >= 2:
            kinds[name] = Tensor(shape, "product" if len(shape) == 2 else "window")
        else:
            kinds[name] = Tensor(shape, "scale" if name.endswith("weight") else "shift")
    return kinds


def fans(tensor: Tensor) -> tuple[int, int]:
    """Fan-in and fan-out of a "product" or a "window"."""
    out, into, *window = tensor.shape
    pixels = math.prod(window)
    return into * pixels, out * pixels


def _positive(name: str, value: Any) -> float:
    real = isinstance(value, (int, float, np.integer, np.floating))
    if not real or isinstance(value, bool) or not 0 < value < math.inf:
        raise PotentialError(f"{name}={value!r}: expected a number > 0, e.g. 2.0")
    return float(value)


def fill(
    network: Any,
    replicas: int,
    seed: int,
    gains: Mapping[str, float],
    fan: str = "in",
    distribution: str = "normal",
) -> Array:
    """Weights of variance ``gains[name]/fan``; the other tensors as the module says."""
    tensors, layout = tensors_of(network), network.layout
    each = np.arange(replicas)
    if distribution == "normal":
        q = random.normals(seed, each, 0, random.STREAM_INITIAL, network.size)
    else:
        q = random.uniforms(seed, each, 0, random.STREAM_INITIAL, network.size)
        q = math.sqrt(3.0) * (2.0 * q - 1.0)
    for name, tensor in tensors.items():
        where = layout[name][0]
        if tensor.kind in _STEADY:
            q[:, where] = _STEADY[tensor.kind]
        elif tensor.kind != "table":
            into, out = fans(tensor)
            width = {"in": into, "out": out, "average": (into + out) / 2}[fan]
            q[:, where] *= math.sqrt(gains[name] / width)
    return q


@dataclass(frozen=True, slots=True)
class VarianceScaling:
    """Independent weights of variance ``gain/fan``.

    Parameters
    ----------
    gain : float
        Variance times fan.
    fan : {"in", "out", "average"}
        Which number of neighbours.
    distribution : {"normal", "uniform"}
        Normal, or uniform of the same variance.

    Raises
    ------
    PotentialError
        A gain that is not positive, an unknown fan or distribution.
    """

    gain: float = 1.0
    fan: Literal["in", "out", "average"] = "in"
    distribution: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", _positive("gain", self.gain))
        if self.fan not in ("in", "out", "average"):
            raise PotentialError(f"fan={self.fan!r}: expected 'in', 'out' or 'average'")
        if self.distribution not in ("normal", "uniform"):
            raise PotentialError(
                f"distribution={self.distribution!r}: expected 'normal' or 'uniform'"
            )

    def __call__(self, network: Any, replicas: int, seed: int = 0) -> Array:
        """Weights (R, D) float64."""
        gains = dict.fromkeys(tensors_of(network), self.gain)
        return fill(network, replicas, seed, gains, self.fan, self.distribution)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "name": "VarianceScaling",
            "gain": self.gain,
            "fan": self.fan,
            "distribution": self.distribution,
        }


def lecun(distribution: Literal["normal", "uniform"] = "normal") -> VarianceScaling:
    """Variance 1/fan-in: keeps the variance of tanh and sets that of selu to one."""
    return VarianceScaling(1.0, "in", distribution)


def glorot(distribution: Literal["normal", "uniform"] = "normal") -> VarianceScaling:
    """Variance 2/(fan-in + fan-out): a compromise of forward and reverse pass."""
    return VarianceScaling(1.0, "average", distribution)


def he(distribution: Literal["normal", "uniform"] = "normal") -> VarianceScaling:
    """Variance 2/fan-in: makes up for the half that a rectifier cuts off."""
    return VarianceScaling(2.0, "in", distribution)


@dataclass(frozen=True, slots=True)
class Orthogonal:
    """Matrices W with ``W W^T = gain^2 1`` or, if taller than wide, ``W^T W``.

    The Q of a normal matrix, with the signs that make it uniform over the orthogonal
    group; windows are matrices (out, in height width).

    Parameters
    ----------
    gain : float
        Length of the rows or columns.

    Raises
    ------
    PotentialError
        A gain that is not positive.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gain", _positive("gain", self.gain))

    def __call__(self, network: Any, replicas: int, seed: int = 0) -> Array:
        """Weights (R, D) float64."""
        tensors = tensors_of(network)
        q = fill(network, replicas, seed, dict.fromkeys(tensors, 1.0))
        for name, tensor in tensors.items():
            if tensor.kind not in ("product", "window"):
                continue
            where, rows = network.layout[name][0], tensor.shape[0]
            matrix = q[:, where].reshape(replicas, rows, -1)
            wide = matrix.shape[2] > rows
            basis, upper = np.linalg.qr(matrix.swapaxes(1, 2) if wide else matrix)
            basis *= np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None, :]
            basis = basis.swapaxes(1, 2) if wide else basis
            q[:, where] = self.gain * basis.reshape(replicas, -1)
        return q

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "Orthogonal", "gain": self.gain}


@dataclass(frozen=True, slots=True)
class PriorDraw:
    """Weights drawn from a prior.

    Parameters
    ----------
    prior : Prior
        E.g. ``GaussianPrior(scale=1.0)``.

    Raises
    ------
    PotentialError
        Something that cannot be drawn from.
    """

    prior: Prior

    def __post_init__(self) -> None:
        if isinstance(self.prior, type) or not callable(
            getattr(self.prior, "draw", None)
        ):
            raise PotentialError(
                f"prior={self.prior!r}: expected a prior such as "
                "GaussianPrior(scale=1.0)"
            )

    def __call__(self, network: Any, replicas: int, seed: int = 0) -> Array:
        """Weights (R, D) float64."""
        self.prior.check(network.layout)
        return self.prior.draw(network.layout, replicas, seed)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "PriorDraw", "prior": self.prior.describe()}


def make_initializer(initializer: Any) -> Initializer | None:
    """Turn a name into an initialiser; leave objects and None as they are.

    Raises
    ------
    PotentialError
        An unknown name, or an object that is no initialiser.
    """
    made: dict[str, Initializer] = {
        "lecun": lecun(), "glorot": glorot(), "he": he(), "orthogonal": Orthogonal()
    }  # fmt: skip
    if isinstance(initializer, str) and initializer in made:
        return made[initializer]
    fits = callable(initializer) and callable(getattr(initializer, "describe", None))
    if initializer is not None and (not fits or isinstance(initializer, type)):
        raise PotentialError(
            f"initializer={initializer!r}: expected one of {', '.join(made)}, an "
            "object such as initializers.Orthogonal(gain=1.4), or None"
        )
    checked: Initializer | None = initializer
    return checked
