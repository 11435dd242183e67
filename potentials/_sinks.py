"""Where the gradients of a network's weights go: sums, squares, or one by one.

A layer hands over the factors of its gradients, not the gradients: what becomes of
them is the sink's choice, so that one reverse pass serves forces, second moments over
examples and the gradients of single examples.  Arrays have examples last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["Examples", "Moments", "Sink", "Sum"]


class Sink(Protocol):
    """Takes gradients of tensors 0, 1, ... of a layer or of a chain of layers."""

    def outer(self, k: int, delta: Array, x: Array) -> None:
        """Gradient ``sum_p delta_op x_ip`` of a tensor (R, out, in...).

        ``delta`` is (R, out, n) or, with positions p, (R, out, P, n); ``x`` is
        (R or 1, in, n) or (R or 1, in, P, n).
        """

    def values(self, k: int, v: Array) -> None:
        """Gradients (R, *shape, n), or (R, *shape, ..., n) to sum over the dots."""

    def rows(self, k: int, index: Array, delta: Array) -> None:
        """Gradient of a table (R, V, E): rows index (R or 1, T, n) get (R, T, E, n)."""

    def part(self, first: int, count: int) -> Sink:
        """The sink of tensors first, first + 1, ..."""


def _per_example(delta: Array, x: Array, xp: Any) -> Array:
    """Gradients (R, n, out, in) of a product."""
    if delta.ndim == 3:
        return xp.einsum("ron,rin->rnoi", delta, xp.broadcast_to(x, _like(delta, x)))
    left = xp.moveaxis(delta, -1, 1)
    return xp.matmul(left, xp.moveaxis(x, -1, 1).swapaxes(-1, -2))


def _like(delta: Array, x: Array) -> tuple[int, ...]:
    return (delta.shape[0], *x.shape[1:])


def _positions(v: Array, ndim: int) -> Array:
    """Sum (R, *shape, ..., n) over the dots: (R, n, *shape)."""
    extra = tuple(range(ndim, v.ndim - 1))
    v = v.sum(axis=extra) if extra else v
    return evaluator_xp(v).moveaxis(v, -1, 1)


def _table(index: Array, delta: Array, shape: tuple[int, ...]) -> Array:
    """Gradients (R, n, V, E) of a table."""
    xp = evaluator_xp(delta)
    replicas, n = delta.shape[0], delta.shape[-1]
    out = xp.zeros((replicas, n, *shape), delta.dtype)
    row = xp.broadcast_to(index, _like(delta, index))
    r = xp.arange(replicas)[:, None, None]
    xp.add.at(out, (r, xp.arange(n), row), delta.swapaxes(2, 3))
    return out


class Sum:
    """Adds the sum over examples to arrays (R, *shape)."""

    __slots__ = ("targets",)

    def __init__(self, targets: Sequence[Array]) -> None:
        self.targets = targets

    def outer(self, k: int, delta: Array, x: Array) -> None:
        """See `Sink`."""
        g = self.targets[k]
        left = delta.reshape(delta.shape[0], delta.shape[1], -1)
        right = x.reshape(x.shape[0], x.shape[1], -1).swapaxes(1, 2)
        g += evaluator_xp(delta).matmul(left, right).reshape(g.shape)

    def values(self, k: int, v: Array) -> None:
        """See `Sink`."""
        g = self.targets[k]
        g += v.reshape(*g.shape, -1).sum(axis=-1)

    def rows(self, k: int, index: Array, delta: Array) -> None:
        """See `Sink`."""
        xp, g = evaluator_xp(delta), self.targets[k]
        replicas, height, width = g.shape
        flat = (xp.arange(replicas)[:, None, None] * height + index)[:, :, None] * width
        flat = flat + xp.arange(width)[:, None]
        # One flat index: the general form of this call is many times slower.
        total = xp.zeros(g.size, g.dtype)
        xp.add.at(total, flat.ravel(), delta.ravel())
        g += total.reshape(g.shape)

    def part(self, first: int, count: int) -> Sum:
        """See `Sink`."""
        return Sum(self.targets[first : first + count])


class Moments:
    """Adds sums over examples of gradients and of their squares."""

    __slots__ = ("first", "second")

    def __init__(self, first: Sequence[Array], second: Sequence[Array]) -> None:
        self.first, self.second = first, second

    def _add(self, k: int, each: Array) -> None:
        first, second = self.first[k], self.second[k]
        first += each.sum(axis=1).reshape(first.shape)
        second += (each * each).sum(axis=1).reshape(second.shape)

    def outer(self, k: int, delta: Array, x: Array) -> None:
        """See `Sink`; (delta x)^2 = delta^2 x^2, so no example is written out."""
        xp = evaluator_xp(delta)
        if delta.ndim > 3:
            self._add(k, _per_example(delta, x, xp))
            return
        for target, l, r in (
            (self.first[k], delta, x),
            (self.second[k], delta * delta, x * x),
        ):
            target += xp.matmul(l, r.swapaxes(1, 2)).reshape(target.shape)

    def values(self, k: int, v: Array) -> None:
        """See `Sink`."""
        self._add(k, _positions(v, self.first[k].ndim))

    def rows(self, k: int, index: Array, delta: Array) -> None:
        """See `Sink`."""
        self._add(k, _table(index, delta, self.first[k].shape[1:]))

    def part(self, first: int, count: int) -> Moments:
        """See `Sink`."""
        where = slice(first, first + count)
        return Moments(self.first[where], self.second[where])


class Examples:
    """Writes the gradient of each example into arrays (R, n, *shape)."""

    __slots__ = ("targets",)

    def __init__(self, targets: Sequence[Array]) -> None:
        self.targets = targets

    def outer(self, k: int, delta: Array, x: Array) -> None:
        """See `Sink`."""
        target = self.targets[k]
        each = _per_example(delta, x, evaluator_xp(delta))
        target[...] = each.reshape(target.shape)

    def values(self, k: int, v: Array) -> None:
        """See `Sink`."""
        target = self.targets[k]
        target[...] = _positions(v, target.ndim - 1)

    def rows(self, k: int, index: Array, delta: Array) -> None:
        """See `Sink`."""
        target = self.targets[k]
        target[...] = _table(index, delta, target.shape[2:])

    def part(self, first: int, count: int) -> Examples:
        """See `Sink`."""
        return Examples(self.targets[first : first + count])
