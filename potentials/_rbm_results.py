"""What sums over the states of a Boltzmann machine return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.typing import Array

__all__ = ["LogPartition", "RBMAverages", "TAPSolution", "weigh"]


@dataclass(frozen=True, slots=True)
class LogPartition:
    """An estimate of ln Z.

    Attributes
    ----------
    value : float
    stderr : float
        Standard error; 0 if exact, and the difference between orders for a mean field.
    n_eff : float
        Effective number of weights, (sum w)^2 / sum w^2; infinite if none are used.
    method : str
        "exact", "ais" or "tap".
    """

    value: float
    stderr: float
    n_eff: float
    method: str

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class RBMAverages:
    """Exact ln Z and equilibrium averages.

    Attributes
    ----------
    log_partition : float
    visible, hidden : (n_v,), (n_h,)
        <v_i>, <h_j>.
    both : (n_v, n_h)
        <v_i h_j>.
    """

    log_partition: float
    visible: Array
    hidden: Array
    both: Array


@dataclass(frozen=True, slots=True)
class TAPSolution:
    """A stationary point of the extended mean field.

    Attributes
    ----------
    log_partition : float
        ln Z to the order asked for.
    order : int
    order_difference : float
        |ln Z - ln Z of one order less|, both at their own stationary points: the error
        bar.  A higher order is not always nearer.
    visible, hidden : (n_v,), (n_h,)
        Magnetisations.
    both : (n_v, n_h)
        Estimate of <v_i h_j>.
    residual : float
        Largest change of a magnetisation in the last iteration.
    iterations : int
    """

    log_partition: float
    order: int
    order_difference: float
    visible: Array
    hidden: Array
    both: Array
    residual: float
    iterations: int


def weigh(logs: Array, xp: Any = np) -> tuple[Array, Array, Array]:
    """Mean of e^logs along axis 1: its logarithm, relative error and n_eff, (R,)."""
    top = logs.max(axis=1, keepdims=True)
    w = xp.exp(logs - top)
    count, mean = logs.shape[1], w.mean(axis=1)
    error = w.std(axis=1, ddof=1) / mean / np.sqrt(count)
    n_eff = count * mean**2 / (w * w).mean(axis=1)
    return top[:, 0] + xp.log(mean), error, n_eff
