"""Residual blocks: a chain of layers, and a path around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdnet.potentials._chain import Chain
from mdnet.potentials._layer import Layer, Shape, Tensor, refuse
from mdnet.potentials._sinks import Sink
from mdnet.typing import Array

__all__ = ["Residual"]


class Residual:
    """A residual block, ``y = body(x) + shortcut(x)``.

    Tensors of the body are called "0.weight", "1.bias", ... after their layers, those
    of the shortcut "shortcut.weight", "shortcut.bias".

    Parameters
    ----------
    *layers : Layer
        The body.
    shortcut : Layer, optional
        What x passes on its way around, e.g. ``Conv2d(16, 32, 1, stride=2)``; nothing
        if None.

    Raises
    ------
    PotentialError
        No layers, or something that is no layer.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition",
    CVPR (2016), doi:10.1109/CVPR.2016.90.
    """

    __slots__ = ("_around", "_body", "layers", "shortcut")

    layers: tuple[Layer, ...]
    shortcut: Layer | None
    _body: Chain
    _around: Chain | None
    fresh = True

    def __init__(self, *layers: Layer, shortcut: Layer | None = None) -> None:
        body = Chain(layers)
        around = None if shortcut is None else Chain([shortcut])
        values = (body.layers, shortcut, body, around)
        for name, value in zip(
            ("layers", "shortcut", "_body", "_around"), values, strict=True
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Residual does not change: build another ({name})")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.layers, self.shortcut)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Residual) and (self.layers, self.shortcut) == (
            other.layers,
            other.shortcut,
        )

    def __hash__(self) -> int:
        return hash((self.layers, self.shortcut))

    def __repr__(self) -> str:
        inside = [repr(layer) for layer in self.layers]
        if self.shortcut is not None:
            inside.append(f"shortcut={self.shortcut!r}")
        return f"Residual({', '.join(inside)})"

    @property
    def smooth(self) -> bool:
        """Whether no layer has kinks."""
        return self._body.smooth and (self._around is None or self._around.smooth)

    def tensors(self) -> Mapping[str, Tensor]:
        """Those of the body, then those of the shortcut."""
        found = dict(self._body.tensors())
        if self.shortcut is not None:
            for name, tensor in self.shortcut.tensors().items():
                found[f"shortcut.{name}"] = tensor
        return found

    def output_shape(self, shape: Shape) -> Shape:
        """That of the body, which must be that of the way around."""
        out = self._body.shapes(shape)[-1]
        around = shape if self._around is None else self._around.shapes(shape)[-1]
        if out != around:
            refuse(
                self, shape, f"body and shortcut of one shape, not {out} and {around}; "
                "pass e.g. shortcut=Conv2d(16, 32, 1, stride=2)",
            )  # fmt: skip
        return out

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        chains = [self._body] if self._around is None else [self._body, self._around]
        return sum(n for chain in chains for n in chain.work(shape))

    def _split(self, w: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        count = len(self._body.tensors())
        return w[:count], w[count:]

    def _sinks(self, sink: Sink) -> tuple[Sink, Sink]:
        inside, all_ = len(self._body.tensors()), len(self.tensors())
        return sink.part(0, inside), sink.part(inside, all_ - inside)

    def forward(
        self, w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """``body(x) + shortcut(x)``."""
        inside, outside = self._split(w)
        y, records = self._body.forward(inside, x)
        around = None
        if self._around is not None:
            x, around = self._around.forward(outside, x)
        return y + x, (records, around)

    def backward(
        self, w: Sequence[Array], record: Any, delta: Array, sink: Sink, back: bool
    ) -> Array:
        """Sum of both ways."""
        (inside, outside), (records, around) = self._split(w), record
        first, second = self._sinks(sink)
        dx = self._body.backward(inside, records, delta.copy(), first, back)
        if self._around is not None:
            delta = self._around.backward(outside, around, delta, second, back)
        if not back:
            return delta
        dx += delta
        return dx

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], record: Any, dx: Array | None
    ) -> tuple[Array, Any]:
        """Sum of both ways."""
        (inside, outside), (vi, vo) = self._split(w), self._split(v)
        records, around = record
        dy, dots = self._body.tangent(inside, vi, records, dx)
        dot = None
        if self._around is not None:
            dx, dot = self._around.tangent(outside, vo, around, dx)
        if dx is None:
            return dy, (dots, dot)
        return dx if dy is None else dy + dx, (dots, dot)

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
        """Sum of both ways."""
        (inside, outside), (vi, vo) = self._split(w), self._split(v)
        (records, around), (dots, outer) = record, dot
        first, second = self._sinks(sink)
        one, done = self._body.second(
            inside, vi, records, dots, delta, ddelta, first, back
        )
        if self._around is not None:
            delta, ddelta = self._around.second(
                outside, vo, around, outer, delta, ddelta, second, back
            )
        return (one + delta, done + ddelta) if back else (delta, ddelta)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        around = None if self.shortcut is None else self.shortcut.describe()
        return {"name": "Residual", "layers": self._body.describe(), "shortcut": around}


def _rebuild(layers: tuple[Layer, ...], shortcut: Layer | None) -> Residual:
    return Residual(*layers, shortcut=shortcut)
