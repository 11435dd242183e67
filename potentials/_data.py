"""A user's rows: brought to the host, looked at once, left where they are."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials._sources import Source

__all__ = ["SCAN", "digest", "host", "inputs", "pieces"]

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


def inputs(X: Any, width: int, shape: tuple[int, ...] | None = None) -> Any:
    """Check inputs (n, width), or (n, *shape) and bring them there."""
    if isinstance(X, Source):
        if X.hashed is not None:  # looked at already
            return X
    else:
        X = host(X)
        if shape is not None and X.ndim > 2 and X.shape[1:] == tuple(shape):
            X = X.reshape(X.shape[0], -1)
    if X.ndim != 2 or X.shape[1] != width or X.shape[0] == 0:
        raise PotentialError(
            f"X has shape {X.shape}: expected (n, {width}), one row per example and "
            "one column per input of the network; reshape images with "
            "X.reshape(len(X), -1)"
        )
    if X.dtype.kind not in "biuf":
        raise PotentialError(f"X has type {X.dtype}: expected real numbers")
    seen = hashlib.sha256(_header(X)) if isinstance(X, Source) else None
    for piece in pieces(X):
        if not np.isfinite(piece).all():
            raise PotentialError(
                "X holds NaN or infinity: remove or impute those rows first, e.g. "
                "keep = np.isfinite(X).all(axis=1)"
            )
        if seen is not None:
            seen.update(_bytes(piece))
    if isinstance(X, Source):
        X.hashed = seen
    return X


def digest(*arrays: Any) -> str:
    """SHA-256 of arrays, with their types and shapes; those that are None left out."""
    total = hashlib.sha256()
    for i, array in enumerate(a for a in arrays if a is not None):
        seen = array.hashed if isinstance(array, Source) else None
        if seen is not None and i == 0:
            total = seen.copy()
            continue
        total.update(_header(array))
        for piece in pieces(array):
            total.update(_bytes(piece))
    return total.hexdigest()


def _header(array: Any) -> bytes:
    return f"{array.dtype.str}{array.shape}".encode()


def _bytes(piece: Any) -> Any:
    """The numbers of ``piece`` as bytes in the order of its rows."""
    return np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
