"""Layers of a `Sequential` network: dense, activation, flatten, and all the others.

Sizes are given as in PyTorch: ``Dense(inputs, outputs)``, ``Conv2d(in, out, kernel)``.
What a layer must offer is `mdnet.potentials._layer.Layer`; anything that offers it can
stand in a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdnet.potentials import activations
from mdnet.potentials._convolution import Conv2d
from mdnet.potentials._embedding import Embedding, SequenceMean
from mdnet.potentials._layer import (
    Layer,
    Shape,
    Tensor,
    describe,
    numbers,
    refuse,
    whole,
)
from mdnet.potentials._normalisation import FilterResponseNorm, LayerNorm
from mdnet.potentials._pooling import AvgPool2d, MaxPool2d
from mdnet.potentials._residual import Residual
from mdnet.potentials._sinks import Sink
from mdnet.potentials._work import empty, product
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = [
    "Activation",
    "AvgPool2d",
    "Conv2d",
    "Dense",
    "Embedding",
    "FilterResponseNorm",
    "Flatten",
    "Layer",
    "LayerNorm",
    "MaxPool2d",
    "Residual",
    "SequenceMean",
]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer, ``y = W x + b``; tensors "weight" (out, in), "bias".

    Parameters
    ----------
    inputs, outputs : int
        Widths.
    bias : bool
        Whether there is a b.

    Raises
    ------
    PotentialError
        A width that is not a positive integer.
    """

    inputs: int
    outputs: int
    bias: bool = True

    fresh = True
    smooth = True

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            value = whole("Dense", name, getattr(self, name))
            object.__setattr__(self, name, value)

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors "weight" and "bias"."""
        found = {"weight": Tensor((self.outputs, self.inputs), "product")}
        if self.bias:
            found["bias"] = Tensor((self.outputs,), "shift")
        return found

    def output_shape(self, shape: Shape) -> Shape:
        """(outputs,)."""
        if shape != (self.inputs,):
            advice = ""
            if len(shape) > 1 and numbers(shape) == self.inputs:
                advice = "; put Flatten() before it"
            refuse(self, shape, f"({self.inputs},){advice}")
        return (self.outputs,)

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return self.outputs + numbers(shape)

    def forward(
        self,
        w: Sequence[Array],
        x: Array,
        _own: bool = False,
    ) -> tuple[Array, Any]:
        """``W x + b``."""
        y = product(w[0], x)
        if self.bias:
            y += w[1][:, :, None]
        return y, x

    def backward(
        self, w: Sequence[Array], record: Any, delta: Array, sink: Sink, back: bool
    ) -> Array:
        """``W^T delta``."""
        sink.outer(0, delta, record)
        if self.bias:
            sink.values(1, delta)
        if not back:
            return delta
        return product(w[0].swapaxes(1, 2), delta)

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], record: Any, dx: Array | None
    ) -> tuple[Array, Any]:
        """``V x + W dx + db``."""
        xp = evaluator_xp(record)
        dy = xp.matmul(v[0], record)
        if dx is not None:
            dy += xp.matmul(w[0], dx)
        if self.bias:
            dy += v[1][:, :, None]
        return dy, dx

    def second(
        self,
        w: Sequence[Array],
        v: Sequence[Array],
        record: Any,
        dot: Any,
        delta: Array,
        ddelta: Array,
        sink: Sink,
        back: bool,
    ) -> tuple[Array, Array]:
        """``W^T delta`` and ``W^T ddelta + V^T delta``."""
        sink.outer(0, ddelta, record)
        if dot is not None:
            sink.outer(0, delta, dot)
        if self.bias:
            sink.values(1, ddelta)
        if not back:
            return delta, ddelta
        xp, turned = evaluator_xp(delta), w[0].swapaxes(1, 2)
        ddelta = xp.matmul(turned, ddelta) + xp.matmul(v[0].swapaxes(1, 2), delta)
        return xp.matmul(turned, delta), ddelta

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)


@dataclass(frozen=True)
class Flatten:
    """Examples as vectors, in the order of PyTorch: channel, height, width."""

    fresh = None
    smooth = True

    def tensors(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """One axis."""
        return (numbers(shape),)

    def work(self, _shape: Shape) -> int:
        """Nothing: a view."""
        return 0

    def forward(
        self,
        _w: Sequence[Array],
        x: Array,
        _own: bool = False,
    ) -> tuple[Array, Any]:
        """A view, and the shape there was."""
        return x.reshape(x.shape[0], -1, x.shape[-1]), x.shape[1:-1]

    def _unflatten(self, shape: Shape, delta: Array) -> Array:
        return delta.reshape(delta.shape[0], *shape, delta.shape[-1])

    def backward(
        self,
        _w: Sequence[Array],
        record: Any,
        delta: Array,
        _sink: Sink,
        _back: bool,
    ) -> Array:
        """The shape there was."""
        return self._unflatten(record, delta)

    def tangent(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        _record: Any,
        dx: Array,
    ) -> tuple[Array, Any]:
        """As `forward`."""
        return self.forward((), dx)

    def second(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        record: Any,
        _dot: Any,
        delta: Array,
        ddelta: Array,
        _sink: Sink,
        _back: bool,
    ) -> tuple[Array, Array]:
        """As `backward`."""
        return self._unflatten(record, delta), self._unflatten(record, ddelta)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)


@dataclass(frozen=True)
class Activation:
    """An elementwise function, one of `mdnet.potentials.activations.NAMES`.

    Parameters
    ----------
    name : str
        E.g. "tanh", "relu", "silu", "selu".

    Raises
    ------
    PotentialError
        An unknown name.
    """

    name: str

    fresh = False

    def __post_init__(self) -> None:
        activations.check_activation(self.name)

    @property
    def smooth(self) -> bool:
        """Whether the slope has no jumps."""
        return self.name not in activations.KINKED

    def tensors(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """As the input."""
        return shape

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return 2 * numbers(shape)

    def forward(
        self, _w: Sequence[Array], x: Array, own: bool = False
    ) -> tuple[Array, Any]:
        """f(x); keeps y where it tells the slope, else x and y."""
        xp = evaluator_xp(x)
        if activations.slope_of_value(self.name, x[..., :0], xp) is None:
            y = activations.value(self.name, x, xp)
            return y, (x, y)
        y = x if own else empty(xp, x.shape, x.dtype)
        activations.value(self.name, x, xp, out=y)
        return y, (None, y)

    def _slope(self, record: Any) -> Array:
        x, y = record
        slope = activations.slope_of_value(self.name, y, evaluator_xp(y))
        if slope is None:
            _, slope = activations.value_and_slope(self.name, x, evaluator_xp(y))
        return slope

    def backward(
        self,
        _w: Sequence[Array],
        record: Any,
        delta: Array,
        _sink: Sink,
        _back: bool,
    ) -> Array:
        """``f'(x) delta``."""
        delta *= self._slope(record)
        return delta

    def tangent(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        record: Any,
        dx: Array,
    ) -> tuple[Array, Any]:
        """``f'(x) dx``; keeps f' and f'' dx."""
        xp = evaluator_xp(dx)
        x, y = record
        slope = self._slope(record)
        bend = activations.curvature(self.name, x, y, xp)
        return slope * dx, (slope, bend * dx)

    def second(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        _record: Any,
        dot: Any,
        delta: Array,
        ddelta: Array,
        _sink: Sink,
        _back: bool,
    ) -> tuple[Array, Array]:
        """``f' delta`` and ``f' ddelta + f'' dx delta``."""
        slope, bend = dot
        return slope * delta, slope * ddelta + bend * delta

    def describe(self) -> dict[str, Any]:
        """JSON-able settings: ``{"name": "Activation", "function": ...}``."""
        return {"name": "Activation", "function": self.name}
