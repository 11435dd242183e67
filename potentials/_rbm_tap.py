r"""Extended mean field of Boltzmann machines: the expansion of Plefka and of TAP.

With magnetisations :math:`m`, :math:`\Delta = m(1-m)` and
:math:`\kappa = \Delta(\tfrac12 - m)` on either side, to order 3 in W,

.. math::
    \ln Z \approx S(m) + a m^v + b m^h + \sum W m^v m^h
    + \tfrac12 \sum W^2 \Delta^v \Delta^h + \tfrac23 \sum W^3 \kappa^v \kappa^h,

stationary in m.  A graph of two layers has no triangles: at order 3 no others occur.
The derivatives of the right-hand side by W, a and b at fixed m estimate the averages.

==============  =======================================================
equation        code
==============  =======================================================
m^v, m^h        ``visible``, ``hidden``
W^n             ``powers[n - 1]``
slopes of       ``_pull``: d/dm of the terms of order 1 to n, by side
the terms
==============  =======================================================

References
----------
M. Gabrie, E. W. Tramel, F. Krzakala, Adv. Neural Inf. Process. Syst. 28 (2015),
arXiv:1506.02914.
T. Plefka, J. Phys. A 15, 1971 (1982), doi:10.1088/0305-4470/15/6/035.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mdnet.potentials._rbm_arrays import Averages, Machines
from mdnet.typing import Array

__all__ = ["FixedPoint", "fixed_point", "log_partition"]

_BLOCK = 8  # updates between looks at the residual


class FixedPoint(NamedTuple):
    """Magnetisations (R, n), the largest last change (R,), updates made."""

    visible: Array
    hidden: Array
    residual: Array
    iterations: int


def _features(m: Array, order: int) -> list[tuple[Array, Array]]:
    """Factor of each order's term that belongs to one side, and its slope in m."""
    spread, half = m * (1.0 - m), 0.5 - m
    terms = [(m, m * 0.0 + 1.0), (spread, 2.0 * half)]
    terms.append((spread * half, 2.0 * half * half - spread))
    return terms[:order]


_SCALE = (1.0, 0.5, 2.0 / 3.0)


def _pull(m: Array, other: Array, powers: list[Array]) -> Array:
    """Slope by m of the coupling terms; ``powers`` (R, n of other, n of m)."""
    order = len(powers)
    own, far = _features(m, order), _features(other, order)
    out = 0.0
    for n in range(order):
        out = out + _SCALE[n] * own[n][1] * (far[n][0][:, None, :] @ powers[n])[:, 0]
    return out


def _logistic(x: Array, xp: Any) -> Array:
    return 0.5 * (1.0 + xp.tanh(0.5 * x))


def fixed_point(
    machines: Machines,
    order: int,
    xp: Any,
    damping: float = 0.5,
    tolerance: float = 1e-10,
    most: int = 2000,
    start: Array | None = None,
) -> FixedPoint:
    """Iterate m <- damping m + (1 - damping) logistic(...), the sides in turn.

    A replica stops at its own convergence, whatever replicas run beside it.
    """
    weights, a, b = machines
    rows = weights.shape[0]
    down = [weights]
    for _ in range(order - 1):
        down.append(down[-1] * weights)
    up = [w.swapaxes(1, 2) for w in down]
    visible = _logistic(a, xp) if start is None else start + xp.zeros_like(a)
    hidden = _logistic(b + (visible[:, None] @ weights)[:, 0], xp)
    residual = xp.full(rows, np.inf)
    done = 0
    while done < most and bool((residual > tolerance).any()):
        active = (residual > tolerance)[:, None]
        for _ in range(_BLOCK):
            new = _logistic(b + _pull(hidden, visible, down), xp)
            change = (1.0 - damping) * (new - hidden)
            hidden = hidden + xp.where(active, change, 0.0)
            new = _logistic(a + _pull(visible, hidden, up), xp)
            other = (1.0 - damping) * (new - visible)
            visible = visible + xp.where(active, other, 0.0)
            done += 1
        largest = xp.maximum(xp.abs(change).max(axis=1), xp.abs(other).max(axis=1))
        residual = xp.where(active[:, 0], largest, residual)
    return FixedPoint(visible, hidden, residual, done)


def _entropy(m: Array, xp: Any) -> Array:
    m = xp.clip(m, 1e-300, 1.0 - 1e-16)
    return -(m * xp.log(m) + (1.0 - m) * xp.log1p(-m)).sum(axis=1)


def log_partition(
    machines: Machines, point: FixedPoint, order: int, xp: Any
) -> tuple[Array, Averages]:
    """The expansion of ln Z at the magnetisations (R,), and its derivatives."""
    weights, a, b = machines
    visible, hidden = point.visible, point.hidden
    value = _entropy(visible, xp) + _entropy(hidden, xp)
    value += (a * visible).sum(axis=1) + (b * hidden).sum(axis=1)
    both = xp.zeros_like(weights)
    power = xp.ones_like(weights)
    near, far = _features(visible, order), _features(hidden, order)
    for n in range(order):
        term = _SCALE[n] * power * near[n][0][:, :, None] * far[n][0][:, None, :]
        both += (n + 1) * term
        power = power * weights
        value += (term * weights).sum(axis=(1, 2))
    return value, Averages(both, visible, hidden)
