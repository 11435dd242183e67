"""Sums over the tensors of a network: the per-layer numbers of the thermometers.

Read at reports only, never inside a step.  Float64 whatever the arrays' type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from mdnet.kernels.native import alone

__all__ = ["layer_sums"]


def _source(a, b, offset, weight, bounds, out):  # type: ignore[no-untyped-def]
    layers = bounds.size - 1
    for task in prange(a.shape[0] * layers):
        r = task // layers
        k = task - r * layers
        total = 0.0
        for j in range(bounds[k], bounds[k + 1]):
            x = np.float64(a[r, j])
            if offset.size > 1:
                x -= offset[j]
            term = x * np.float64(b[r, j])
            if weight.size > 1:
                term *= weight[j]
            total += term
        if weight.size == 1:
            total *= weight[0]
        out[r, k] = total


_shared = njit(parallel=True, cache=True, error_model="numpy")(_source)
_alone = alone(_source, error_model="numpy")
_SMALL = 1_000_000  # terms, a millisecond: not worth compiling for many threads


def layer_sums(
    xp: Any, a: Any, b: Any, offset: Any, weight: Any, bounds: Any, out: Any
) -> None:
    """Write sum_j weight_j (a_j - offset_j) b_j over each tensor into ``out``.

    Parameters
    ----------
    xp : module
        NumPy or CuPy, as the arrays.
    a, b : (R, D)
    offset, weight : (D,) or (1,) float64
        An offset of length one stands for none.
    bounds : (L + 1,) int64, on the host
        Where each tensor begins.
    out : (R, L) float64
    """
    if xp is np:
        kernel = _alone if a.size < _SMALL else _shared
        kernel(a, b, offset, weight, bounds, out)
        return
    for k in range(bounds.size - 1):
        part = slice(int(bounds[k]), int(bounds[k + 1]))
        x = a[:, part].astype(np.float64)
        if offset.size > 1:
            x -= offset[part]
        x *= b[:, part]
        x *= weight[part] if weight.size > 1 else weight
        out[:, k] = x.sum(axis=1)
