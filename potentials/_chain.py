"""Layers one after another: the four passes of `mdnet.potentials._layer.Layer`.

Shared by `Sequential` and by the body of a `Residual`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mdnet.errors import PotentialError
from mdnet.potentials._layer import Layer, Shape, Tensor
from mdnet.potentials._sinks import Sink
from mdnet.typing import Array

__all__ = ["Chain"]

_METHODS = (
    "tensors",
    "output_shape",
    "work",
    "forward",
    "backward",
    "tangent",
    "second",
    "describe",
)


class Chain:
    """A sequence of layers and where each finds its tensors.

    Parameters
    ----------
    layers : sequence of Layer

    Attributes
    ----------
    first : int
        First layer with weights; nothing is passed back beyond it.

    Raises
    ------
    PotentialError
        No layers, or something that is no layer.
    """

    __slots__ = ("_slices", "first", "layers")

    def __init__(self, layers: Any) -> None:
        if not isinstance(layers, (list, tuple)) or not layers:
            raise PotentialError(
                f"layers={layers!r}: expected a list of layers, e.g. "
                "[Dense(64, 32), Activation('tanh'), Dense(32, 10)]"
            )
        for i, layer in enumerate(layers):
            lacks = [m for m in _METHODS if not callable(getattr(layer, m, None))]
            if lacks or isinstance(layer, type):
                raise PotentialError(
                    f"layers[{i}]={layer!r}: expected a layer such as Dense(64, 32) or "
                    "Activation('tanh'), with the methods of mdnet.potentials.layers."
                    "Layer"
                )
        self.layers: tuple[Layer, ...] = tuple(layers)
        self._slices: list[slice] = []
        at = 0
        for layer in self.layers:
            count = len(layer.tensors())
            self._slices.append(slice(at, at + count))
            at += count
        weighted = [i for i, s in enumerate(self._slices) if s.stop > s.start]
        self.first = weighted[0] if weighted else len(self.layers)

    @property
    def smooth(self) -> bool:
        """Whether no layer has kinks."""
        return all(layer.smooth for layer in self.layers)

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors by name: "0.weight", "0.bias", "2.weight", ..."""
        return {
            f"{i}.{name}": tensor
            for i, layer in enumerate(self.layers)
            for name, tensor in layer.tensors().items()
        }

    def shapes(self, shape: Shape) -> list[Shape]:
        """Shape of an example before each layer, and after the last.

        Raises
        ------
        PotentialError
            A layer that does not fit, named by its place.
        """
        found = [tuple(shape)]
        for i, layer in enumerate(self.layers):
            try:
                found.append(layer.output_shape(found[-1]))
            except PotentialError as error:
                raise PotentialError(f"layers[{i}]: {error}") from None
        return found

    def work(self, shape: Shape) -> list[int]:
        """Numbers that each layer keeps for each example."""
        shapes = self.shapes(shape)[:-1]
        return [l.work(s) for l, s in zip(self.layers, shapes, strict=True)]

    def steps(self, w: Sequence[Array], x: Array) -> Iterator[tuple[Array, Any]]:
        """Output and record of each layer in turn."""
        own = False
        for layer, where in zip(self.layers, self._slices, strict=True):
            x, record = layer.forward(w[where], x, own)
            own = own if layer.fresh is None else layer.fresh
            yield x, record

    def forward(self, w: Sequence[Array], x: Array) -> tuple[Array, list[Any]]:
        """Output, and the records of all layers."""
        records = []
        y = x
        for step in self.steps(w, x):
            y, record = step
            records.append(record)
        return y, records

    def backward(
        self, w: Sequence[Array], records: Any, delta: Array, sink: Sink, back: bool
    ) -> Array:
        """As `Layer.backward`."""
        for i in reversed(range(0 if back else self.first, len(self.layers))):
            where = self._slices[i]
            part = sink.part(where.start, where.stop - where.start)
            delta = self.layers[i].backward(
                w[where], records[i], delta, part, back or i > self.first
            )
        return delta

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], records: Any, dx: Array | None
    ) -> tuple[Array, list[Any]]:
        """As `Layer.tangent`."""
        dots = []
        for layer, where, record in zip(
            self.layers, self._slices, records, strict=True
        ):
            dot = None
            if dx is not None or where.stop > where.start:
                dx, dot = layer.tangent(w[where], v[where], record, dx)
            dots.append(dot)
        return dx, dots

    def second(
        self,
        w: Sequence[Array],
        v: Sequence[Array],
        records: Any,
        dots: Any,
        delta: Array,
        ddelta: Array,
        sink: Sink,
        back: bool,
    ) -> tuple[Array, Array]:
        """As `Layer.second`."""
        for i in reversed(range(0 if back else self.first, len(self.layers))):
            where = self._slices[i]
            part = sink.part(where.start, where.stop - where.start)
            delta, ddelta = self.layers[i].second(
                w[where], v[where], records[i], dots[i], delta, ddelta, part,
                back or i > self.first,
            )  # fmt: skip
        return delta, ddelta

    def describe(self) -> list[dict[str, Any]]:
        """JSON-able settings of each layer."""
        return [layer.describe() for layer in self.layers]
