"""Validation of what a user hands to a Boltzmann machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials._checks import finite_array
from mdnet.typing import Array

__all__ = ["binary", "check_mean_field", "tensor"]


def binary(name: str, units: Any, width: int, xp: Any = np) -> Array:
    """Check units of 0 and 1, (n, width) float64; one row (width,) becomes (1, width).

    Raises
    ------
    PotentialError
        Another shape, or values other than 0 and 1.
    """
    array = xp.asarray(units)
    if array.dtype.kind not in "biuf":
        raise PotentialError(f"{name}: expected numbers 0 and 1, got {array.dtype}")
    rows = array if array.ndim > 1 else array[None]
    if rows.ndim != 2 or rows.shape[1] != width or not rows.shape[0]:
        raise PotentialError(
            f"{name} has shape {array.shape}: expected (n, {width}), one column a unit"
        )
    rows = rows.astype(np.float64)
    wrong = (rows != 0.0) & (rows != 1.0)
    if bool(wrong.any()):
        raise PotentialError(
            f"{name} holds {float(rows[wrong][0])!r}: expected 0 and 1 only; make "
            f"grey values binary first, as {name} > {name}.mean()"
        )
    return rows


def check_mean_field(order: Any, damping: Any) -> None:
    """Check the order and the damping of a mean field."""
    if order not in (1, 2, 3):
        raise PotentialError(f"order={order!r}: expected 1, 2 or 3")
    if not 0.0 <= float(damping) < 1.0:
        raise PotentialError(
            f"damping={damping!r}: expected a number in [0, 1), as damping=0.5"
        )


def tensor(name: str, value: Any, xp: Any) -> Array:
    """Finite float64 numbers on the module's device."""
    if xp is np:
        return finite_array(name, value)
    array = xp.array(value, np.float64)
    if not bool(xp.isfinite(array).all()):
        raise PotentialError(f"{name} has values that are not finite: drop them first")
    return array
