"""Arithmetic that every part of the Boltzmann machines shares, in NumPy or CuPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mdnet.typing import Array

__all__ = ["Averages", "Machines", "logistic", "pack", "softplus_sum", "unpack"]

_COLUMNS = 512  # factors below 2 whose product cannot overflow


class Machines(NamedTuple):
    """R machines: weights (R, n_v, n_h), biases (R, n_v) and (R, n_h)."""

    weights: Array
    visible: Array
    hidden: Array

    def times(self, factor: float) -> Machines:
        """Machines whose energies are ``factor`` times as large."""
        return Machines(*(factor * tensor for tensor in self))


class Averages(NamedTuple):
    """<v_i h_j> (R, n_v, n_h), <v_i> (R, n_v), <h_j> (R, n_h)."""

    both: Array
    visible: Array
    hidden: Array


def unpack(q: Array, n_visible: int, n_hidden: int) -> Machines:
    """Machines of packed parameters (R, n_v n_h + n_v + n_h), float64."""
    q = q.astype(np.float64, copy=False)
    end = n_visible * n_hidden
    weights = q[:, :end].reshape(-1, n_visible, n_hidden)
    return Machines(weights, q[:, end : end + n_visible], q[:, end + n_visible :])


def pack(averages: Averages, out: Array) -> None:
    """Write averages as a gradient of the packed parameters into ``out`` (R, D)."""
    rows, n_visible, n_hidden = averages.both.shape
    end = n_visible * n_hidden
    out[:, :end] = averages.both.reshape(rows, end)
    out[:, end : end + n_visible] = averages.visible
    out[:, end + n_visible :] = averages.hidden


def softplus_sum(x: Array, xp: Any) -> tuple[Array, Array]:
    """Sum of ln(1 + e^x) along the last axis, and e^-|x|.

    Logarithms are taken of products: ``ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)``,
    and a product of 512 numbers between 1 and 2 is a float64.
    """
    small = xp.exp(-xp.abs(x))
    total = xp.maximum(x, 0.0).sum(axis=-1)
    for first in range(0, x.shape[-1], _COLUMNS):
        total += xp.log((1.0 + small[..., first : first + _COLUMNS]).prod(axis=-1))
    return total, small


def logistic(x: Array, small: Array, xp: Any) -> Array:
    """1/(1 + e^-x), given ``small`` = e^-|x|."""
    return xp.where(x >= 0.0, 1.0, small) / (1.0 + small)
