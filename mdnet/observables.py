"""Energies, temperatures and curvatures: functions of arrays, no state of their own.

Thermometers follow three routes to the temperature (k_B = 1):

==============  =====================================================
kinetic         T = sum p^2/m / n, read just after a bath
configurational T = <|grad U|^2> / <laplacian U>
virial          T = <(q - c) . grad U> / n about a fixed reference c
==============  =====================================================

References
----------
H. H. Rugh, Phys. Rev. Lett. 78, 772 (1997), doi:10.1103/PhysRevLett.78.772.
M. F. Hutchinson, Commun. Stat. Simul. 18, 1059 (1989), doi:10.1080/03610918908812806.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import random
from mdnet.typing import Array, Evaluator, Layout

__all__ = [
    "kinetic_temperature",
    "laplacian",
    "largest_curvature",
    "layer_bounds",
    "layer_norms",
]


def layer_bounds(layout: Layout) -> np.ndarray:
    """Where each tensor of a layout begins, and the end: (L + 1,) int64."""
    starts = [part.start for part, _ in layout.values()]
    return np.array([*starts, max(p.stop for p, _ in layout.values())], dtype=np.int64)


def kinetic_temperature(twice_kinetic: Any, dof: int) -> np.ndarray:
    """Temperature 2K/n of n degrees of freedom; twice the kinetic energy is (R,)."""
    return np.asarray(twice_kinetic) / dof


def layer_norms(positions: Array, layout: Layout) -> np.ndarray:
    """Euclidean norm of each tensor, (R, L) float64."""
    return np.stack(
        [
            np.linalg.norm(np.asarray(positions[:, part], dtype=np.float64), axis=1)
            for part, _ in layout.values()
        ],
        axis=1,
    )


def laplacian(
    evaluator: Evaluator,
    q: Array,
    layout: Layout,
    xp: Any,
    seed: int,
    step: int,
    width: float = 1e-4,
    free: Array | None = None,
) -> Array:
    r"""Estimate the Laplacian of U over each tensor with one random probe.

    Hutchinson's :math:`\sum_j v_j (Hv)_j` with signs v, where Hv is the central
    difference of gradients a distance ``width`` along v.  A difference, and not the
    second derivative, sees the kinks of piecewise linear activations, which the
    configurational temperature needs.

    Parameters
    ----------
    evaluator : Evaluator
        In double precision.
    q : (R, D) float64
    layout : Layout
    xp : module
        NumPy or CuPy, as ``q``.
    seed, step : int
        Which probe.
    width : float
        Length of the difference in each parameter.
    free : (D,) float64, optional
        1 for parameters to sum over, 0 for those to leave out.

    Returns
    -------
    (R, L) float64
    """
    replicas, size = q.shape
    signs = xp.empty(q.shape, np.float64)
    for r in range(replicas):
        words = random.bits(seed, r, step, random.STREAM_PROBE, -(-size // 32))
        flat = np.unpackbits(words.view(np.uint8), count=size)
        signs[r] = xp.asarray(flat.astype(np.float64) * 2 - 1)
    if free is not None:
        signs *= free
    forward = xp.empty(q.shape, np.float64)
    backward = xp.empty(q.shape, np.float64)
    evaluator.gradients(q + width * signs, forward)
    evaluator.gradients(q - width * signs, backward)
    forward -= backward
    forward *= signs
    forward /= 2 * width
    return xp.stack([forward[:, part].sum(axis=1) for part, _ in layout.values()], 1)


def largest_curvature(
    evaluator: Evaluator,
    q: Array,
    xp: Any,
    inverse_mass: Array = 1.0,
    iterations: int = 20,
    width: float = 1e-4,
) -> np.ndarray:
    """Largest eigenvalue omega^2 of M^-1/2 H M^-1/2 at ``q`` by power iteration, (R,).

    H is the Hessian of U.  Splittings of the step are stable for dt < 2 / omega.

    Parameters
    ----------
    evaluator : Evaluator
        In double precision.
    q : (R, D) float64
    xp : module
    inverse_mass : float or (D,) array
    iterations : int
        Two gradients each.
    width : float
        Length of the central difference.
    """
    size = q.shape[1]
    v = xp.asarray(
        random.normals(1, np.arange(q.shape[0]), 0, random.STREAM_PROBE, size)
    )
    norm = xp.linalg.norm(v, axis=1, keepdims=True)
    forward, backward = xp.empty(q.shape), xp.empty(q.shape)
    root = inverse_mass**0.5
    for _ in range(iterations):
        v = v / norm
        evaluator.gradients(q + width * root * v, forward)
        evaluator.gradients(q - width * root * v, backward)
        v = root * (forward - backward) / (2 * width)
        norm = xp.maximum(xp.linalg.norm(v, axis=1, keepdims=True), 1e-300)
    out = norm[:, 0]
    return out if isinstance(out, np.ndarray) else np.asarray(out.get())
