"""Exact sums over the states of a Boltzmann machine, its smaller side enumerated."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials._rbm_arrays import Averages, Machines, logistic, softplus_sum
from mdnet.typing import Array

__all__ = ["MOST_UNITS", "check_size", "enumerated", "log_partition"]

MOST_UNITS = 20
"""Units of the smaller side beyond which a sum over its states is refused."""
_ELEMENTS = 2**20  # numbers of one chunk


def check_size(n_visible: int, n_hidden: int) -> None:
    """Refuse machines that are too large to enumerate.

    Raises
    ------
    PotentialError
        More than `MOST_UNITS` units on both sides.
    """
    if min(n_visible, n_hidden) > MOST_UNITS:
        raise PotentialError(
            f"method='exact' sums over 2**{min(n_visible, n_hidden)} states of a "
            f"{n_visible}x{n_hidden} machine: expected at most {MOST_UNITS} units on "
            "the smaller side; use method='ais' or method='tap'"
        )


def log_partition(machines: Machines, xp: Any) -> Array:
    """Logarithm of Z of every machine, (R,) float64."""
    return _enumerate(machines, xp, averages=False)[0]


def enumerated(machines: Machines, xp: Any) -> tuple[Array, Averages]:
    """Logarithm of Z (R,) and the equilibrium averages, float64."""
    log_z, both, of_small, of_big = _enumerate(machines, xp, averages=True)
    if _swapped(machines):
        return log_z, Averages(both, of_small, of_big)
    return log_z, Averages(both.swapaxes(1, 2), of_big, of_small)


def _swapped(machines: Machines) -> bool:
    """Whether the visible side is the smaller one."""
    return bool(machines.weights.shape[2] > machines.weights.shape[1])


def _enumerate(machines: Machines, xp: Any, averages: bool) -> list[Array]:
    """Logarithm of Z, and perhaps averages of both, of the small and the big side.

    Z = sum_h e^(b.h) prod_i (1 + e^(a_i + (W h)_i)), or the same with the sides
    exchanged; states are taken in chunks and added relative to the largest term so far.
    """
    weights, big, small = machines
    if _swapped(machines):
        big, small = small, big
    else:
        weights = weights.swapaxes(1, 2)
    rows, n, width = weights.shape
    top = xp.full(rows, -np.inf)
    total = xp.zeros(rows)
    sums = [xp.zeros((rows, n, width)), xp.zeros((rows, n)), xp.zeros((rows, width))]
    step = max(1, _ELEMENTS // (rows * width))
    for first in range(0, 2**n, step):
        codes = xp.arange(first, min(first + step, 2**n))
        states = ((codes[:, None] >> xp.arange(n)) & 1).astype(np.float64)
        field = states @ weights + big[:, None, :]
        logs, decay = softplus_sum(field, xp)
        logs += small @ states.T
        higher = xp.maximum(top, logs.max(axis=1))
        shrink = xp.exp(top - higher)
        chance = xp.exp(logs - higher[:, None])
        top = higher
        total = total * shrink + chance.sum(axis=1)
        if averages:
            mean = logistic(field, decay, xp) * chance[:, :, None]
            terms = states.T @ mean, chance @ states, mean.sum(axis=1)
            for old, term in zip(sums, terms, strict=True):
                old *= shrink.reshape(-1, *(1,) * (old.ndim - 1))
                old += term
    log_z = top + xp.log(total)
    if not averages:
        return [log_z]
    return [log_z, *(s / total.reshape(-1, *(1,) * (s.ndim - 1)) for s in sums)]
