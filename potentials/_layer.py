"""What a layer is: shapes, named tensors, and four passes over a batch of replicas.

Inside a network the axes are replicas, features, examples: (R, F, n) for a vector,
(R, C, H, W, n) for an image.  With the examples last every elementwise loop and every
copy of a window runs over neighbours in memory, a dense layer is ``W @ x`` and a
convolution is one product a replica.  The axis of replicas has length 1 until the first
layer with weights, when all replicas share the data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials._sinks import Sink
from mdnet.typing import Array

__all__ = ["Layer", "Shape", "Tensor", "describe", "numbers", "pair", "refuse", "whole"]

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """A tensor of weights: its shape, and what it does.

    ``kind`` is "product" (out, in), "window" (out, in, height, width), "table" (one row
    a token), "scale" (starts at one) or "shift" (starts at zero).
    """

    shape: Shape
    kind: Literal["product", "window", "table", "scale", "shift"]


class Layer(Protocol):
    """A differentiable map of arrays (R, *shape, n), with tensors of weights.

    Weights come as a sequence in the order of `tensors`, each (R, *shape).
    """

    @property
    def fresh(self) -> bool | None:
        """Whether the next layer may overwrite the output.

        True if nothing else refers to it, None if it is a view of the input.
        """

    @property
    def smooth(self) -> bool:
        """Whether the second derivative is the whole curvature: no kinks."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors of weights by name, in the order in which they lie in q."""

    def output_shape(self, shape: Shape, /) -> Shape:
        """Shape of an example's output; raises `PotentialError` if it does not fit."""

    def work(self, shape: Shape, /) -> int:
        """Numbers kept for each example whose input has this shape."""

    def forward(
        self, w: Sequence[Array], x: Array, own: bool = False, /
    ) -> tuple[Array, Any]:
        """Output, and what the other passes need; ``own``: x may be overwritten."""

    def backward(
        self, w: Sequence[Array], record: Any, delta: Array, sink: Sink, back: bool, /
    ) -> Array:
        """Derivative by the input (if ``back``), from the one by the output.

        Gradients of the weights go to ``sink``; ``delta`` may be overwritten.
        """

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], record: Any, dx: Array | None, /
    ) -> tuple[Array, Any]:
        """Derivative of the output when w moves along v and x along dx (None: still).

        Also what `second` needs of it.
        """

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
        /,
    ) -> tuple[Array, Array]:
        """`backward` and its derivative along the same direction, not in place.

        Derivatives of the gradients of the weights go to ``sink``.
        """

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


def numbers(shape: Shape) -> int:
    """Product of the lengths."""
    return math.prod(shape)


def refuse(layer: Any, shape: Shape, expected: str) -> NoReturn:
    """Raise for an input that does not fit ``layer``."""
    raise PotentialError(
        f"{layer!r} is given examples of shape {tuple(shape)}: expected {expected}"
    )


def whole(layer: str, name: str, value: Any, least: int = 1) -> int:
    """Check that ``value`` is an integer not below ``least``."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or value < least:
        raise PotentialError(
            f"{layer}: {name}={value!r}: expected an integer >= {least}"
        )
    return int(value)


def pair(layer: str, name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Check one integer, or one for the height and one for the width."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise PotentialError(
            f"{layer}: {name}={value!r}: expected an integer or (height, width)"
        )
    return whole(layer, name, both[0], least), whole(layer, name, both[1], least)


def describe(layer: Any) -> dict[str, Any]:
    """Name of the class and its settings."""
    fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    return {"name": type(layer).__name__, **settings}
