"""A user's rows: brought to the host, looked at once, left where they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.errors import PotentialError

__all__ = ["SCAN", "host", "inputs", "pieces"]

SCAN = 2**24
"""Elements of the data looked at in one piece."""


def host(x: Any) -> Any:
    """Bring ``x`` to the host, leaving memory maps on disk."""
    if isinstance(x, np.ndarray):
        return x
    return np.asarray(x.get() if type(x).__module__.startswith("cupy") else x)


def pieces(array: Any) -> Any:
    """Pieces of ``array`` along axis 0, small enough to look at one by one."""
    width = max(1, int(np.prod(array.shape[1:])))
    step = max(1, SCAN // width)
    for first in range(0, array.shape[0], step):
        yield array[first : first + step]


def inputs(X: Any, width: int) -> Any:
    """Check inputs (n, width)."""
    X = host(X)
    if X.ndim != 2 or X.shape[1] != width or X.shape[0] == 0:
        raise PotentialError(
            f"X has shape {X.shape}: expected (n, {width}), one row per example and "
            "one column per input of the network; reshape images with "
            "X.reshape(len(X), -1)"
        )
    if X.dtype.kind not in "biuf":
        raise PotentialError(f"X has type {X.dtype}: expected real numbers")
    for piece in pieces(X):
        if not np.isfinite(piece).all():
            raise PotentialError(
                "X holds NaN or infinity: remove or impute those rows first, e.g. "
                "keep = np.isfinite(X).all(axis=1)"
            )
    return X
