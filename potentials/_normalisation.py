"""Normalisation of each example by itself: over features, or over the pixels of a map.

With m the mean over the chosen axes, ``u = (x - m(x)) r``, ``r = (m((x - m(x))^2) +
eps)^-1/2``; the response norm leaves the inner means out.  The derivative is symmetric,

``J d = r (d - m(d) - u m(u d))``,

so that one function serves tangents and reverse passes, and its own derivative along
du, with r' = -r^2 m(u dx), the second pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials._layer import Shape, Tensor, describe, numbers, refuse, whole
from mdnet.potentials._sinks import Sink
from mdnet.potentials._work import empty
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["FilterResponseNorm", "LayerNorm"]

Axes = tuple[int, ...]


def _mean(x: Array, axes: Axes) -> Array:
    return x.mean(axis=axes, keepdims=True, dtype=x.dtype)


def _normalise(x: Array, axes: Axes, centred: bool, eps: float) -> tuple[Array, Array]:
    """Normalised values u and r."""
    if centred:
        x = x - _mean(x, axes)
    xp = evaluator_xp(x)
    u = empty(xp, x.shape, x.dtype)
    r = (_mean(xp.multiply(x, x, out=u), axes) + eps) ** -0.5
    return xp.multiply(x, r, out=u), r


def _project(d: Array, u: Array, r: Array, axes: Axes, centred: bool) -> Array:
    """``J d``."""
    out = d - u * _mean(u * d, axes)
    if centred:
        out -= _mean(d, axes)
    out *= r
    return out


def _project_dot(
    d: Array,
    dd: Array,
    u: Array,
    du: Array,
    r: Array,
    dr: Array,
    axes: Axes,
    centred: bool,
) -> Array:
    """Derivative of ``J d`` when d moves along dd, u along du and r along dr."""
    moved = _project(dd, u, r, axes, centred)
    moved += _project(d, u, dr, axes, centred)
    moved -= r * (du * _mean(u * d, axes) + u * _mean(du * d, axes))
    return moved


def _eps(layer: str, value: Any) -> float:
    real = isinstance(value, (int, float, np.integer, np.floating))
    if not real or isinstance(value, bool) or not 0 <= value < np.inf:
        raise PotentialError(
            f"{layer}: eps={value!r}: expected a number >= 0, e.g. 1e-5"
        )
    return float(value)


@dataclass(frozen=True)
class LayerNorm:
    """Zero mean and unit variance over an example's features, then ``g u + b``.

    Tensors "weight" (g, starts at one) and "bias" (b, starts at zero), both of the
    shape that is normalised.

    Parameters
    ----------
    shape : int or tuple of int
        The last axes of an example, over which means are taken.
    eps : float
        Added to the variance; at zero the output does not change with the scale of
        the input, so that for the weights w before it w . dU/dw = 0 without a prior.
    affine : bool
        Whether there are g and b.

    Raises
    ------
    PotentialError
        Lengths that are not positive integers, or a negative ``eps``.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization" (2016),
    arXiv:1607.06450.
    """

    shape: int | Shape
    eps: float = 1e-5
    affine: bool = True

    fresh = True
    smooth = True

    def __post_init__(self) -> None:
        given = self.shape if isinstance(self.shape, (tuple, list)) else (self.shape,)
        shape = tuple(whole("LayerNorm", "shape", n) for n in given)
        if not shape:
            raise PotentialError("LayerNorm: shape=(): expected e.g. LayerNorm(64)")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "eps", _eps("LayerNorm", self.eps))

    @property
    def _shape(self) -> Shape:
        return self.shape  # type: ignore[return-value]

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors "weight" and "bias"."""
        if not self.affine:
            return {}
        shape = self._shape
        return {"weight": Tensor(shape, "scale"), "bias": Tensor(shape, "shift")}

    def output_shape(self, shape: Shape) -> Shape:
        """As the input."""
        if shape[-len(self._shape) :] != self._shape:
            ends = ", ".join(map(str, self._shape))
            refuse(self, shape, f"(..., {ends}), whose last axes it normalises")
        return shape

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return 2 * numbers(shape)

    def _axes(self, x: Array) -> Axes:
        return tuple(range(x.ndim - 1 - len(self._shape), x.ndim - 1))

    def _wide(self, t: Array, x: Array) -> Array:
        """A tensor (R, *shape) beside x."""
        extra = (1,) * (x.ndim - 2 - len(self._shape))
        return t.reshape(t.shape[0], *extra, *self._shape, 1)

    def _own(self, v: Array) -> Array:
        """Sum over the axes that are not normalised: (R, *shape, n)."""
        axes = tuple(range(1, v.ndim - 1 - len(self._shape)))
        return v.sum(axis=axes) if axes else v

    def forward(
        self, w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """``g u + b``; keeps u and r."""
        u, r = _normalise(x, self._axes(x), True, self.eps)
        if not self.affine:
            return u.copy(), (u, r)
        y = self._wide(w[0], x) * u
        y += self._wide(w[1], x)
        return y, (u, r)

    def backward(
        self, w: Sequence[Array], record: Any, delta: Array, sink: Sink, back: bool
    ) -> Array:
        """``J g delta``."""
        u, r = record
        if self.affine:
            sink.values(0, self._own(delta * u))
            sink.values(1, self._own(delta))
            delta = self._wide(w[0], u) * delta
        return _project(delta, u, r, self._axes(u), True) if back else delta

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], record: Any, dx: Array | None
    ) -> tuple[Array, Any]:
        """``g J dx + dg u + db``; keeps du and dr."""
        u, r = record
        axes = self._axes(u)
        if dx is None:
            dx = evaluator_xp(u).zeros_like(u)
        du = _project(dx, u, r, axes, True)
        dot = du, -r * r * _mean(u * dx, axes)
        if not self.affine:
            return du, dot
        dy = self._wide(w[0], u) * du + self._wide(v[0], u) * u
        return dy + self._wide(v[1], u), dot

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
        (u, r), (du, dr) = record, dot
        if self.affine:
            sink.values(0, self._own(ddelta * u + delta * du))
            sink.values(1, self._own(ddelta))
            g, dg = self._wide(w[0], u), self._wide(v[0], u)
            delta, ddelta = g * delta, g * ddelta + dg * delta
        if not back:
            return delta, ddelta
        axes = self._axes(u)
        moved = _project_dot(delta, ddelta, u, du, r, dr, axes, True)
        return _project(delta, u, r, axes, True), moved

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)


@dataclass(frozen=True)
class FilterResponseNorm:
    """Filter response normalisation and its thresholded linear unit.

    ``y = max(g x / sqrt(mean(x^2) + eps) + b, t)``, the mean over the pixels of each
    map of each example: no example sees another, so U stays a sum over the data.
    Tensors "weight" (g, starts at one), "bias" (b) and "threshold" (t, both start at
    zero), each (channels,).

    Parameters
    ----------
    channels : int
        Number of maps.
    eps : float
        Added to the mean square.
    threshold : bool
        Whether there is a threshold t; without, the output is linear.

    Raises
    ------
    PotentialError
        Channels that are not a positive integer, or a negative ``eps``.

    References
    ----------
    S. Singh, S. Krishnan, "Filter response normalization layer: eliminating batch
    dependence in the training of deep neural networks", CVPR (2020), arXiv:1911.09737.
    """

    channels: int
    eps: float = 1e-6
    threshold: bool = True

    fresh = True

    def __post_init__(self) -> None:
        name = "FilterResponseNorm"
        object.__setattr__(self, "channels", whole(name, "channels", self.channels))
        object.__setattr__(self, "eps", _eps(name, self.eps))

    @property
    def smooth(self) -> bool:
        """Whether there is no threshold."""
        return not self.threshold

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors "weight", "bias" and "threshold"."""
        shape = (self.channels,)
        found = {"weight": Tensor(shape, "scale"), "bias": Tensor(shape, "shift")}
        if self.threshold:
            found["threshold"] = Tensor(shape, "shift")
        return found

    def output_shape(self, shape: Shape) -> Shape:
        """As the input."""
        if len(shape) != 3 or shape[0] != self.channels:
            refuse(self, shape, f"({self.channels}, height, width)")
        return shape

    def work(self, shape: Shape) -> int:
        """Numbers kept for each example."""
        return 2 * numbers(shape)

    def _wide(self, t: Array) -> Array:
        return t[:, :, None, None, None]

    def forward(
        self, w: Sequence[Array], x: Array, _own: bool = False
    ) -> tuple[Array, Any]:
        """``max(g u + b, t)``; keeps u, r and where the first was larger."""
        u, r = _normalise(x, (2, 3), False, self.eps)
        xp, g = evaluator_xp(x), self._wide(w[0])
        y = empty(xp, (g.shape[0], *u.shape[1:]), u.dtype)
        xp.multiply(g, u, out=y)
        y += self._wide(w[1])
        above = None
        if self.threshold:
            t = self._wide(w[2])
            above = y > t
            xp.maximum(y, t, out=y)
        return y, (u, r, above)

    def backward(
        self, w: Sequence[Array], record: Any, delta: Array, sink: Sink, back: bool
    ) -> Array:
        """``J g delta`` where the maps are above the threshold.

        As ``r g (delta - u m(u delta))``, with the sums that the weights need anyway.
        """
        u, r, above = record
        total = delta.sum(axis=(2, 3))
        if above is not None:
            delta *= above
            through = delta.sum(axis=(2, 3))
            sink.values(2, total - through)
            total = through
        spare = empty(evaluator_xp(u), delta.shape, delta.dtype)
        pull = evaluator_xp(u).multiply(u, delta, out=spare).sum(axis=(2, 3))
        sink.values(0, pull)
        sink.values(1, total)
        if not back:
            return delta
        scale = self._wide(w[0]) * r
        delta *= scale
        shrink = scale * pull[:, :, None, None] * (1 / numbers(u.shape[2:4]))
        delta -= evaluator_xp(u).multiply(u, shrink, out=spare)
        return delta

    def tangent(
        self, w: Sequence[Array], v: Sequence[Array], record: Any, dx: Array | None
    ) -> tuple[Array, Any]:
        """``g J dx + dg u + db`` above the threshold, dt below; keeps du and dr."""
        u, r, above = record
        if dx is None:
            dx = evaluator_xp(u).zeros_like(u)
        du = _project(dx, u, r, (2, 3), False)
        dot = du, -r * r * _mean(u * dx, (2, 3))
        dy = self._wide(w[0]) * du + self._wide(v[0]) * u + self._wide(v[1])
        if above is not None:
            dy = evaluator_xp(u).where(above, dy, self._wide(v[2]))
        return dy, dot

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
        (u, r, above), (du, dr) = record, dot
        if above is not None:
            through = ddelta * above
            sink.values(2, ddelta - through)
            delta, ddelta = delta * above, through
        sink.values(0, ddelta * u + delta * du)
        sink.values(1, ddelta)
        if not back:
            return delta, ddelta
        g, dg = self._wide(w[0]), self._wide(v[0])
        delta, ddelta = g * delta, g * ddelta + dg * delta
        moved = _project_dot(delta, ddelta, u, du, r, dr, (2, 3), False)
        return _project(delta, u, r, (2, 3), False), moved

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return describe(self)
