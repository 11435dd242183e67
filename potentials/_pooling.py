"""Pooling of images: the mean or the largest of each window.

Windows are met one offset at a time, for all positions and examples at once.  Where
they tile the image without overlap nothing is added up and nothing cleared first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.potentials._convolution import offsets, windows_of
from mdnet.potentials._layer import Shape, Tensor, describe, numbers, pair, refuse
from mdnet.potentials._sinks import Sink
from mdnet.potentials._work import empty
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["AvgPool2d", "MaxPool2d"]

Pair = tuple[int, int]


def _settings(layer: Any) -> None:
    name = type(layer).__name__
    object.__setattr__(layer, "kernel", pair(name, "kernel", layer.kernel))
    stride = layer.kernel if layer.stride is None else layer.stride
    object.__setattr__(layer, "stride", pair(name, "stride", stride))


def _positions(layer: Any, size: Shape) -> Pair:
    height, width = (
        windows_of(n, k, s)
        for n, k, s in zip(size, layer.kernel, layer.stride, strict=True)
    )
    return height, width


def _slots(layer: Any, out: Pair) -> list[tuple[slice, slice]]:
    """Where the windows find each of their pixels."""
    return [where for _, _, where in offsets(layer.kernel, layer.stride, out)]


def _output_shape(layer: Any, shape: Shape) -> Shape:
    if len(shape) != 3:
        refuse(layer, shape, "(channels, height, width)")
    out = _positions(layer, shape[1:])
    if min(out) < 1:
        least = layer.kernel
        refuse(layer, shape, f"images of at least {least[0]} x {least[1]}")
    return (shape[0], *out)


def _spread(layer: Any, size: Pair, delta: Array, share: Any) -> Array:
    """Sum ``share(i, j)`` over the windows that hold a pixel, (R, C, H, W, n)."""
    xp = evaluator_xp(delta)
    kernel, stride, out = layer.kernel, layer.stride, delta.shape[2:4]
    shape = (*delta.shape[:2], *size, delta.shape[-1])
    apart = all(k <= s for k, s in zip(kernel, stride, strict=True))
    tiled = kernel == stride and all(
        k * n == m for k, n, m in zip(kernel, out, size, strict=True)
    )
    x = empty(xp, shape, delta.dtype)
    if not tiled:
        x.fill(0)
    for slot, where in enumerate(_slots(layer, out)):
        if apart:
            x[:, :, *where] = share(slot)
        else:
            x[:, :, *where] += share(slot)
    return x


@dataclass(frozen=True)
class AvgPool2d:
    """Mean of each window; rows and columns that no window reaches are left out.

    Parameters
    ----------
    kernel : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Step of the window; the kernel if None.

    Raises
    ------
    PotentialError
        A number that is not a positive integer.
    """

    kernel: int | Pair
    stride: int | Pair | None = None

    fresh = True
    smooth = True

    def __post_init__(self) -> None:
        _settings(self)

    def tensors(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """(channels, height, width)."""
        return _output_shape(self, shape)

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return numbers(shape)

    def _mean(self, x: Array) -> Array:
        first, *rest = _slots(self, _positions(self, x.shape[2:4]))
        y = x[:, :, *first].copy()
        for where in rest:
            y += x[:, :, *where]
        y *= 1 / (1 + len(rest))
        return y

    def forward(
        self, _w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """Means, and the size of the images."""
        return self._mean(x), x.shape[2:4]

    def _share(self, size: Pair, delta: Array) -> Array:
        height, width = pair("AvgPool2d", "kernel", self.kernel)
        part = delta * (1 / (height * width))
        return _spread(self, size, delta, lambda _: part)

    def backward(
        self,
        _w: Sequence[Array],
        record: Any,
        delta: Array,
        _sink: Sink,
        _back: bool,
    ) -> Array:
        """An equal share of ``delta`` to each pixel of a window."""
        return self._share(record, delta)

    def tangent(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        _record: Any,
        dx: Array,
    ) -> tuple[Array, Any]:
        """Means of dx."""
        return self._mean(dx), None

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
        """As `backward`, for both."""
        return self._share(record, delta), self._share(record, ddelta)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)


@dataclass(frozen=True)
class MaxPool2d:
    """Largest of each window, the first of equals; otherwise as `AvgPool2d`.

    Parameters
    ----------
    kernel : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Step of the window; the kernel if None.

    Raises
    ------
    PotentialError
        A number that is not a positive integer.
    """

    kernel: int | Pair
    stride: int | Pair | None = None

    fresh = True
    smooth = False

    def __post_init__(self) -> None:
        _settings(self)

    def tensors(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """(channels, height, width)."""
        return _output_shape(self, shape)

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return numbers(shape)

    def forward(
        self, _w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """Largest values; keeps which pixel of each window they came from."""
        xp = evaluator_xp(x)
        first, *rest = _slots(self, _positions(self, x.shape[2:4]))
        y = x[:, :, *first].copy()
        winner = xp.zeros(y.shape, np.int16)
        for slot, where in enumerate(rest, 1):
            part = x[:, :, *where]
            xp.copyto(winner, slot, where=part > y)
            xp.maximum(y, part, out=y)
        return y, (winner, x.shape[2:4])

    def backward(
        self,
        _w: Sequence[Array],
        record: Any,
        delta: Array,
        _sink: Sink,
        _back: bool,
    ) -> Array:
        """All of ``delta`` to the winner of each window."""
        winner, size = record
        return _spread(self, size, delta, lambda slot: delta * (winner == slot))

    def tangent(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        record: Any,
        dx: Array,
    ) -> tuple[Array, Any]:
        """The winners' dx."""
        winner: Array = record[0]
        xp = evaluator_xp(dx)
        dy = xp.zeros(winner.shape, dx.dtype)
        for slot, where in enumerate(_slots(self, winner.shape[2:4])):
            dy += dx[:, :, *where] * (winner == slot)
        return dy, None

    def second(
        self,
        w: Sequence[Array],
        _v: Sequence[Array],
        record: Any,
        _dot: Any,
        delta: Array,
        ddelta: Array,
        sink: Sink,
        back: bool,
    ) -> tuple[Array, Array]:
        """As `backward`, for both."""
        one = self.backward(w, record, delta, sink, back)
        return one, self.backward(w, record, ddelta, sink, back)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)
