"""Two-dimensional convolution as one matrix product a replica.

The windows of the padded images are copied out, (R, C kh kw, positions, n), and met by
the weights (R, out, C kh kw).  With examples last each of the kh kw copies moves long
runs of neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdnet.potentials._layer import (
    Shape,
    Tensor,
    describe,
    numbers,
    pair,
    refuse,
    whole,
)
from mdnet.potentials._sinks import Sink
from mdnet.potentials._work import empty, product
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["Conv2d", "offsets", "windows_of"]


def windows_of(size: int, kernel: int, stride: int) -> int:
    """Positions of a window along an axis; less than 1 if it does not fit."""
    return (size - kernel) // stride + 1


def offsets(
    kernel: tuple[int, int], stride: tuple[int, int], out: tuple[int, int]
) -> list[tuple[int, int, tuple[slice, slice]]]:
    """Each (i, j) of a window, and where all windows find it: slices of (H, W)."""
    (down, right), (rows, columns) = stride, out
    return [
        (
            i,
            j,
            (
                slice(i, i + down * (rows - 1) + 1, down),
                slice(j, j + right * (columns - 1) + 1, right),
            ),
        )
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


@dataclass(frozen=True)
class Conv2d:
    """A convolution of images.

    Tensors "weight" (out, in, height, width) and "bias" (out,);
    ``y[o, a, b] = sum_cij W[o, c, i, j] x[c, s a + i - p, s b + j - p] + b[o]`` with
    stride s and padding p, as PyTorch's.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int or (int, int)
        Height and width of the window.
    stride : int or (int, int)
        Step of the window.
    padding : int or (int, int)
        Zeros at each edge.
    bias : bool
        Whether there is a b.

    Raises
    ------
    PotentialError
        A number that is not a positive integer (padding: not negative).
    """

    inputs: int
    outputs: int
    kernel: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    bias: bool = True

    fresh = True
    smooth = True

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            value = whole("Conv2d", name, getattr(self, name))
            object.__setattr__(self, name, value)
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0)):
            both = pair("Conv2d", name, getattr(self, name), least)
            object.__setattr__(self, name, both)

    @property
    def _table(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return self.kernel, self.stride, self.padding  # type: ignore[return-value]

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors "weight" and "bias"."""
        kernel, _, _ = self._table
        shape = (self.outputs, self.inputs, *kernel)
        found = {"weight": Tensor(shape, "window")}
        if self.bias:
            found["bias"] = Tensor((self.outputs,), "shift")
        return found

    def output_shape(self, shape: Shape) -> Shape:
        """(outputs, height, width)."""
        kernel, _, padding = self._table
        if len(shape) != 3 or shape[0] != self.inputs:
            refuse(self, shape, f"({self.inputs}, height, width)")
        out = self._positions(shape[1:])
        if min(out) < 1:
            least = [k - 2 * p for k, p in zip(kernel, padding, strict=True)]
            refuse(self, shape, f"images of at least {least[0]} x {least[1]}")
        return (self.outputs, *out)

    def _positions(self, size: Shape) -> tuple[int, int]:
        height, width = (
            windows_of(n + 2 * p, k, s)
            for n, k, s, p in zip(size, *self._table, strict=True)
        )
        return height, width

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        kernel, _, _ = self._table
        windows = self.inputs * numbers(kernel) + self.outputs
        return windows * numbers(self._positions(shape[1:])) + numbers(shape)

    def _columns(self, x: Array) -> Array:
        """Windows (R or 1, C, kh, kw, oh, ow, n)."""
        xp = evaluator_xp(x)
        kernel, stride, (up, left) = self._table
        replicas, channels, height, width, n = x.shape
        out = self._positions((height, width))
        if kernel == stride == (1, 1) and not (up or left):
            return x[:, :, None, None]
        if up or left:
            shape = (replicas, channels, height + 2 * up, width + 2 * left, n)
            padded = empty(xp, shape, x.dtype)
            padded.fill(0)
            padded[:, :, up : up + height, left : left + width] = x
            x = padded
        columns = empty(xp, (replicas, channels, *kernel, *out, n), x.dtype)
        for i, j, where in offsets(kernel, stride, out):
            columns[:, :, i, j] = x[:, :, *where]
        return columns

    def _scatter(self, columns: Array, size: tuple[int, int]) -> Array:
        """Sum windows back into images: the transpose of `_columns`."""
        xp = evaluator_xp(columns)
        kernel, stride, (up, left) = self._table
        if kernel == stride == (1, 1) and not (up or left):
            return columns[:, :, 0, 0]
        height, width = size
        replicas, channels, n = columns.shape[0], columns.shape[1], columns.shape[-1]
        shape = (replicas, channels, height + 2 * up, width + 2 * left, n)
        x = empty(xp, shape, columns.dtype)
        x.fill(0)
        for i, j, where in offsets(kernel, stride, self._positions(size)):
            x[:, :, *where] += columns[:, :, i, j]
        if up or left:
            x = xp.ascontiguousarray(x[:, :, up : up + height, left : left + width])
        return x

    def _product(self, w: Array, columns: Array) -> Array:
        """``W columns``, (R, out, oh, ow, n)."""
        shape = columns.shape
        y = product(
            w.reshape(w.shape[0], self.outputs, -1),
            columns.reshape(shape[0], numbers(shape[1:4]), -1),
        )
        return y.reshape(w.shape[0], self.outputs, *shape[4:])

    def _pull(self, w: Array, delta: Array) -> Array:
        """``W^T delta``: derivatives by the windows, (R, C, kh, kw, oh, ow, n)."""
        turned = w.reshape(w.shape[0], self.outputs, -1).swapaxes(1, 2)
        flat = delta.reshape(delta.shape[0], self.outputs, -1)
        columns = product(turned, flat)
        kernel, _, _ = self._table
        return columns.reshape(delta.shape[0], self.inputs, *kernel, *delta.shape[2:])

    def _outer(self, sink: Sink, delta: Array, columns: Array) -> None:
        shape, n = columns.shape, delta.shape[-1]
        sink.outer(
            0,
            delta.reshape(delta.shape[0], self.outputs, -1, n),
            columns.reshape(shape[0], numbers(shape[1:4]), -1, n),
        )

    def forward(
        self, w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """``W * x + b``; keeps the windows."""
        columns = self._columns(x)
        y = self._product(w[0], columns)
        if self.bias:
            y += w[1][:, :, None, None, None]
        return y, (columns, x.shape[2:4])

    def backward(
        self, w: Sequence[Array], record: Any, delta: Array, sink: Sink, back: bool
    ) -> Array:
        """Sum of ``W^T delta`` over the windows that saw a pixel."""
        columns, size = record
        self._outer(sink, delta, columns)
        if self.bias:
            sink.values(1, delta)
        return self._scatter(self._pull(w[0], delta), size) if back else delta

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], record: Any, dx: Array | None
    ) -> tuple[Array, Any]:
        """``V * x + W * dx + db``; keeps the windows of dx."""
        dy = self._product(v[0], record[0])
        columns = None
        if dx is not None:
            columns = self._columns(dx)
            dy += self._product(w[0], columns)
        if self.bias:
            dy += v[1][:, :, None, None, None]
        return dy, columns

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
        """As `backward`, and the derivative of that."""
        columns, size = record
        self._outer(sink, ddelta, columns)
        if dot is not None:
            self._outer(sink, delta, dot)
        if self.bias:
            sink.values(1, ddelta)
        if not back:
            return delta, ddelta
        moved = self._pull(w[0], ddelta) + self._pull(v[0], delta)
        return self._scatter(self._pull(w[0], delta), size), self._scatter(moved, size)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)
