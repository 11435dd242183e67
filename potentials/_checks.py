"""Validation of what a user hands to a potential, with messages that name the fix."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import PotentialError

__all__ = [
    "fingerprint",
    "finite_array",
    "positions_rows",
    "positive",
    "positive_integer",
    "temperature_value",
]


def finite_array(name: str, value: Any) -> npt.NDArray[np.float64]:
    """Own, read-only float64 copy of ``value``.

    Raises
    ------
    PotentialError
        Not numeric, or not finite everywhere.
    """
    try:
        array = np.array(value, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise PotentialError(
            f"{name}: expected numbers, got {type(value).__name__} ({error})"
        ) from error
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        where = tuple(int(i) for i in bad)
        raise PotentialError(
            f"{name} has {np.count_nonzero(~np.isfinite(array))} values that are not "
            f"finite, the first {array[where]} at index {where}: drop or impute them, "
            f"for instance {name}[numpy.isfinite({name}).all(axis=-1)]"
        )
    array.flags.writeable = False
    return array


def positive(name: str, value: Any, advice: str = "") -> float:
    """Check that ``value`` is one finite number above zero."""
    array = finite_array(name, value)
    if array.ndim != 0 or array <= 0:
        raise PotentialError(
            f"{name}={value!r}: expected one number > 0" + (advice and f", {advice}")
        )
    return float(array)


def positive_integer(name: str, value: Any) -> int:
    """Check that ``value`` is an integer above zero."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise PotentialError(f"{name}={value!r}: expected an integer >= 1")
    return int(value)


def temperature_value(value: Any) -> float:
    """Check a temperature at which an equilibrium law exists."""
    return positive("temperature", value, "in units of energy (k_B = 1)")


def positions_rows(q: Any, size: int) -> tuple[npt.NDArray[np.float64], bool]:
    """Return ``q`` as (R, D) float64, and whether it was one row (D,)."""
    rows = np.asarray(q, dtype=np.float64)
    single = rows.ndim == 1
    rows = rows[None] if single else rows
    if rows.ndim != 2 or rows.shape[1] != size:
        raise PotentialError(
            f"q has shape {np.shape(q)}: expected (R, {size}) or ({size},), one "
            "column per parameter"
        )
    return rows, single


def fingerprint(array: npt.NDArray[Any]) -> Any:
    """JSON-able identity of an array: its values up to 16, a digest beyond."""
    if array.size <= 16:
        return array.tolist()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "sha256": digest[:32]}
