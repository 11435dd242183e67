r"""The covariance of gradient noise, measured while a simulation runs.

Second differences of consecutive forces,

.. math:: d_t = (F_t - 2F_{t-1} + F_{t-2})/\sqrt6,

have the covariance of the noise of one force where noises are independent, and the
motion of the weights enters with O(dt^4) only (a running variance of the forces would
add the variance of the force itself).  Shuffled epochs of n batches read n/(n - 1)
times too much.  Replicas keep estimates of their own, so that none depends on how many
run beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.integrators.companion import Context
from mdnet.typing import Array

__all__ = ["Sketch", "Variance"]


class Variance:
    """Running variance of the noise of each parameter's force.

    Parameters
    ----------
    context : Context
    window : int
        Steps over which the running mean forgets.

    Attributes
    ----------
    variables : dict
        ``noise`` (R, D), the variance of one force; the two forces before; how many
        forces were seen, (R,).
    """

    def __init__(self, context: Context, window: int) -> None:
        self._context, self._window = context, window
        backend, state = context.backend, context.state
        shape, real = tuple(state.positions.shape), backend.force_dtype
        self.variables: dict[str, Any] = {
            "noise": backend.zeros(shape, real),
            "last_forces": backend.zeros(shape, real),
            "older_forces": backend.zeros(shape, real),
            "forces_seen": np.zeros(shape[0]),
        }
        self.compiled = backend.name == "cpu"
        self._weight = backend.zeros((shape[0],), np.float64)

    @property
    def noise(self) -> Array:
        """Variance of one force, (R, D)."""
        return self.variables["noise"]

    def start(self) -> None:
        """Forget all."""
        for value in self.variables.values():
            value[...] = 0

    def update(self) -> bool:
        """Take the present forces in; return whether a difference was made of them."""
        xp, state = self._context.backend.xp, self._context.state
        v = self.variables
        seen = v["forces_seen"]
        seen += 1
        count = seen[0] - 2
        self._weight[...] = 1 / min(count, self._window) if count > 0 else 0.0
        f, last, older = state.forces, v["last_forces"], v["older_forces"]
        if self.compiled:
            from mdnet.kernels.thermostats import noise_estimate

            edges = self._context.engine.edges
            noise_estimate(f, last, older, v["noise"], self._weight, edges)
        else:
            d = f - 2 * last + older
            weight = self._weight[:, None].astype(f.dtype)
            v["noise"] += weight * (d * d / 6 - v["noise"])
            xp.copyto(older, last)
            xp.copyto(last, f)
        return bool(count > 0)


class Sketch:
    r"""Leading directions of the noise of all forces together.

    Differences are gathered in as many rows as there are directions; then the old
    directions and the new rows are replaced by the leading singular vectors of both.
    Rows are kept in units of the square root of the mass, :math:`S = D M^{-1/2}`, and
    made orthogonal, so that :math:`\Sigma \approx M^{1/2}S^T S M^{1/2}`.

    Parameters
    ----------
    context : Context
    rank : int
        Directions r.
    window : int
        Steps over which the running mean forgets.

    Attributes
    ----------
    variables : dict
        ``sketch`` (R, 2r, D): directions, then rows gathered; ``captured`` (R, D): part
        of each parameter's variance that the directions hold; ``rows_gathered`` and
        ``rows_total`` (R,).

    References
    ----------
    E. Liberty, KDD 2013, 581, doi:10.1145/2487575.2487623 (gathering and shrinking).
    """

    def __init__(self, context: Context, rank: int, window: int) -> None:
        self._context, self._rank, self._window = context, rank, window
        backend, state = context.backend, context.state
        replicas, size = state.positions.shape
        self._scale = context.inverse_mass**0.5
        self.variables: dict[str, Any] = {
            "sketch": backend.zeros((replicas, 2 * rank, size), np.float64),
            "captured": backend.zeros((replicas, size), backend.force_dtype),
            "rows_gathered": np.zeros(replicas),
            "rows_total": np.zeros(replicas),
        }

    @property
    def captured(self) -> Array:
        """Part of the variance that the directions hold, (R, D)."""
        return self.variables["captured"]

    def start(self) -> None:
        """Forget all."""
        for value in self.variables.values():
            value[...] = 0

    def add(self, difference: Array) -> None:
        """Gather one difference of forces (R, D), of the covariance of one force."""
        v, rank = self.variables, self._rank
        gathered = int(v["rows_gathered"][0])
        v["sketch"][:, rank + gathered] = difference * self._scale
        v["rows_gathered"] += 1
        if gathered + 1 == rank:
            self._compress()

    def _compress(self) -> None:
        xp, v, rank = self._context.backend.xp, self.variables, self._rank
        v["rows_total"] += rank
        new = rank / min(v["rows_total"][0], max(self._window, rank))
        rows = v["sketch"]
        rows[:, :rank] *= np.sqrt(1 - new)
        rows[:, rank:] *= np.sqrt(new / rank)
        gram = rows @ xp.swapaxes(rows, 1, 2)
        vectors = xp.linalg.eigh(gram)[1][:, :, rank:]
        rows[:, :rank] = xp.swapaxes(vectors, 1, 2) @ rows
        rows[:, rank:] = 0
        v["rows_gathered"][...] = 0
        kept = rows[:, :rank] / self._scale
        v["captured"][...] = (kept * kept).sum(axis=1)

    def damp(self, p: Array, amount: Array) -> Array:
        r"""Momenta after the friction matrix :math:`a\,\Sigma M^{-1}`.

        Parameters
        ----------
        p : (R, D) float64
        amount : (R, 1) float64
            a of exp(-a Sigma / m).
        """
        xp = self._context.backend.xp
        rows = self.variables["sketch"][:, : self._rank]
        strength = (rows * rows).sum(axis=2)
        along = (rows @ (p * self._scale)[:, :, None])[..., 0]
        safe = xp.where(strength > 0, strength, 1.0)
        along *= xp.expm1(-amount * strength) / safe
        change: Array = (along[:, None, :] @ rows)[:, 0] / self._scale
        return p + change
