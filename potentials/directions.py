"""Directions in the space of weights, for `mdnet.potentials.subspace.project`."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._checks import finite_array, positive_integer
from mdnet.potentials.base import Potential
from mdnet.typing import Array

__all__ = ["pca_basis", "point", "random_basis"]


def point(name: str, value: Any, size: int) -> Array:
    """Check one point of the space of weights: (D,) float64.

    Raises
    ------
    PotentialError
        Another shape, or values that are not finite.
    """
    checked = finite_array(name, value)
    if checked.shape != (size,):
        raise PotentialError(
            f"{name} has shape {checked.shape}: expected ({size},), one point, as "
            f"{name}=sim.state.positions[0]"
        )
    return checked


def random_basis(
    potential: Potential,
    dimension: int,
    seed: int = 0,
    like: Any = None,
) -> Array:
    """Random directions for `project`, (d, D).

    Parameters
    ----------
    potential : Potential
        Whose parameters; its layout is used with ``like``.
    dimension : int
        d.
    seed : int
        Key of the random counters.
    like : array, (D,), optional
        Weights whose rows set the lengths: each row of a tensor in a direction gets
        the norm of that row of ``like`` (filter normalisation), so that planes of
        networks of different weights can be compared.  Without, the directions are
        orthonormal.

    Raises
    ------
    PotentialError
        ``dimension`` beyond D, or ``like`` of another shape.

    References
    ----------
    H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, NeurIPS 31 (2018),
    doi:10.48550/arXiv.1712.09913 (filter normalisation).
    """
    size, count = potential.size, positive_integer("dimension", dimension)
    if count > size:
        raise PotentialError(f"dimension={count}: expected at most the {size} weights")
    z = random.normals(seed, np.arange(count), 0, random.STREAM_PROBE, size)
    if like is None:
        return np.ascontiguousarray(np.linalg.qr(z.T)[0].T)
    scale = point("like", like, size)
    for where, shape in potential.layout.values():
        rows = shape[0] if len(shape) > 1 else where.stop - where.start
        part = z[:, where].reshape(count, rows, -1)
        norms = np.linalg.norm(scale[where].reshape(rows, -1), axis=1)
        part *= (norms / np.linalg.norm(part, axis=2))[..., None]
        z[:, where] = part.reshape(count, -1)
    return z


def pca_basis(positions: Any, dimension: int) -> tuple[Array, Array, Array]:
    """Principal components of sampled weights, for `project`.

    Parameters
    ----------
    positions : array, (..., D)
        Samples, e.g. ``run.positions[:]``.
    dimension : int
        d.

    Returns
    -------
    basis : ndarray, (d, D)
        Orthonormal directions of largest variance, the largest first.
    mean : ndarray, (D,)
        Of the samples: the natural ``at``.
    variance : ndarray, (d,)
        Along each direction.

    Raises
    ------
    PotentialError
        Fewer than ``dimension`` + 1 samples, or samples that are not finite.
    """
    samples = finite_array("positions", positions)
    samples = samples.reshape(-1, samples.shape[-1])
    count = positive_integer("dimension", dimension)
    if count > min(len(samples) - 1, samples.shape[1]):
        raise PotentialError(
            f"dimension={count}: {len(samples)} samples of {samples.shape[1]} weights "
            f"have {min(len(samples) - 1, samples.shape[1])} components"
        )
    mean = samples.mean(axis=0)
    _, lengths, rows = np.linalg.svd(samples - mean, full_matrices=False)
    return rows[:count], mean, lengths[:count] ** 2 / (len(samples) - 1)
