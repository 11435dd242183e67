"""Sequences of tokens: a table of vectors, and the mean over a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials._layer import Shape, Tensor, describe, numbers, refuse, whole
from mdnet.potentials._sinks import Sink
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["Embedding", "SequenceMean"]


@dataclass(frozen=True)
class Embedding:
    """A vector for each token: (T,) token numbers to (T, width).

    Tensor "weight" (count, width).  Stands first in a network, whose rows of data are
    token numbers 0 .. count - 1; they may be stored as floats.

    Parameters
    ----------
    count : int
        Number of tokens; at most 2^24, which float32 holds exactly.
    width : int
        Length of a vector.

    Raises
    ------
    PotentialError
        Numbers that are not positive integers; at a call, tokens outside the table.
    """

    count: int
    width: int

    fresh = True
    smooth = True

    def __post_init__(self) -> None:
        for name in ("count", "width"):
            value = whole("Embedding", name, getattr(self, name))
            object.__setattr__(self, name, value)
        if self.count > 2**24:
            raise PotentialError(
                f"Embedding: count={self.count}: expected at most {2**24} tokens"
            )

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensor "weight"."""
        return {"weight": Tensor((self.count, self.width), "table")}

    def output_shape(self, shape: Shape) -> Shape:
        """(T, width)."""
        if len(shape) != 1:
            refuse(self, shape, "(T,), token numbers; it stands first in a network")
        return (*shape, self.width)

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return numbers(shape) * (1 + self.width)

    def _look_up(self, table: Array, index: Array) -> Array:
        xp = evaluator_xp(table)
        r = xp.arange(table.shape[0])[:, None, None]
        return xp.ascontiguousarray(table[r, index].swapaxes(2, 3))

    def forward(
        self, w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """Rows of the table, (R, T, width, n); keeps the token numbers."""
        index = x.astype(np.int64)
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= self.count or not bool((index == x).all()):
            raise PotentialError(
                f"{self!r}: X holds tokens from {float(x.min()):g} to "
                f"{float(x.max()):g}: expected whole numbers 0 to {self.count - 1}; "
                "relabel with np.unique(X, return_inverse=True)[1]"
            )
        return self._look_up(w[0], index), index

    def backward(
        self,
        _w: Sequence[Array],
        record: Any,
        delta: Array,
        sink: Sink,
        _back: bool,
    ) -> Array:
        """Nothing: tokens have no derivative."""
        sink.rows(0, record, delta)
        return delta

    def tangent(
        self,
        _w: Sequence[Array],
        v: Sequence[Array],
        record: Any,
        _dx: Array | None,
    ) -> tuple[Array, Any]:
        """Rows of the direction."""
        return self._look_up(v[0], record), None

    def second(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        record: Any,
        _dot: Any,
        delta: Array,
        ddelta: Array,
        sink: Sink,
        _back: bool,
    ) -> tuple[Array, Array]:
        """As `backward`: the output is linear in the table."""
        sink.rows(0, record, ddelta)
        return delta, ddelta

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)


@dataclass(frozen=True)
class SequenceMean:
    """Mean over the first axis of an example: (T, width) to (width,)."""

    fresh = True
    smooth = True

    def tensors(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """All axes but the first."""
        if len(shape) < 2:
            refuse(self, shape, "(T, width), e.g. of an Embedding")
        return shape[1:]

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return numbers(shape[1:])

    def forward(
        self, _w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """Mean, and the length of the sequences."""
        return x.mean(axis=1, dtype=x.dtype), x.shape[1]

    def _share(self, length: int, delta: Array) -> Array:
        part = (delta * (1 / length))[:, None]
        return evaluator_xp(delta).repeat(part, length, axis=1)

    def backward(
        self,
        _w: Sequence[Array],
        record: Any,
        delta: Array,
        _sink: Sink,
        _back: bool,
    ) -> Array:
        """An equal share to each token."""
        return self._share(record, delta)

    def tangent(
        self,
        _w: Sequence[Array],
        _v: Sequence[Array],
        _record: Any,
        dx: Array,
    ) -> tuple[Array, Any]:
        """Mean of dx."""
        return dx.mean(axis=1, dtype=dx.dtype), None

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
