r"""The Sherrington-Kirkpatrick spin glass: Ising spins, all coupled at random.

.. math:: U(s) = -\sum_{i<j} J_{ij} s_i s_j - \sum_i h_i s_i, \qquad s_i = \pm 1,

with independent normals :math:`J_{ij}` of variance 1/N.  Its transition is at T = 1
without a field.  Answers come by enumeration (N up to 20), heat bath, the equations of
Thouless, Anderson and Palmer

.. math:: m_i = \tanh \beta \Bigl( h_i + \sum_j J_{ij} m_j
    - \beta m_i \sum_j J_{ij}^2 (1 - m_j^2) \Bigr)

(the last term is Onsager's reaction; without it they are naive mean field), and the
annealed free energy, exact on average over disorder above the transition as N grows.

References
----------
D. Sherrington, S. Kirkpatrick, Phys. Rev. Lett. 35, 1792 (1975),
doi:10.1103/PhysRevLett.35.1792.
D. J. Thouless, P. W. Anderson, R. G. Palmer, Phil. Mag. 35, 593 (1977),
doi:10.1080/14786437708235992.
T. Plefka, J. Phys. A 15, 1971 (1982), doi:10.1088/0305-4470/15/6/035.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._checks import finite_array, positive_integer, temperature_value
from mdnet.potentials.spin_glass import DISORDER
from mdnet.typing import Array

__all__ = ["Enumeration", "MeanField", "SherringtonKirkpatrick"]

_LARGEST = 20
_LOW = 14  # spins of one block of configurations


@dataclass(frozen=True, slots=True)
class Enumeration:
    """Exact averages over all 2^N configurations.

    Attributes
    ----------
    free_energy, energy : float
        -T ln Z and <U>, extensive.
    magnetizations : ndarray, (N,)
        <s_i>.
    correlations : ndarray, (N, N)
        <s_i s_j>.
    """

    free_energy: float
    energy: float
    magnetizations: Array
    correlations: Array


@dataclass(frozen=True, slots=True)
class MeanField:
    """A solution of the mean-field equations.

    Attributes
    ----------
    magnetizations : ndarray, (N,)
    free_energy : float
        The functional that the equations make stationary, there; extensive.
    iterations : int
    residual : float
        Largest difference between the sides of the equations.
    converged : bool
        Whether ``residual`` came below the tolerance.
    """

    magnetizations: Array
    free_energy: float
    iterations: int
    residual: float
    converged: bool


class SherringtonKirkpatrick:
    """Ising spins with a random coupling between every two.

    Parameters
    ----------
    size : int
        N.
    seed : int
        Key of the disorder.
    field : float or array, (N,)
        h.
    couplings : array, (N, N), optional
        Symmetric with zeros on the diagonal, instead of random ones.

    Raises
    ------
    PotentialError
        A size that is no positive integer, or arrays that do not fit.

    Examples
    --------
    >>> from mdnet import potentials
    >>> glass = potentials.SherringtonKirkpatrick(12, seed=3, field=0.1)
    >>> exact, tap = glass.enumerate(2.0), glass.mean_field(2.0)
    >>> bool(abs(tap.magnetizations - exact.magnetizations).max() < 0.01)
    True
    """

    def __init__(
        self, size: int, seed: int = 0, field: Any = 0.0, couplings: Any = None
    ) -> None:
        self.size = n = positive_integer("size", size)
        random.seed_words(seed)
        self.seed = int(seed)
        outer = finite_array("field", field)
        if outer.shape not in ((), (n,)):
            raise PotentialError(
                f"field has shape {outer.shape}: expected a number or ({n},)"
            )
        self.field = np.array(np.broadcast_to(outer, n))
        if couplings is None:
            g = random.normals(
                self.seed, np.arange(n), DISORDER, random.STREAM_INITIAL, n
            )
            upper = np.triu(g, 1) / math.sqrt(n)
            couplings = upper + upper.T
        self.couplings = finite_array("couplings", couplings)
        """J, (N, N)."""
        shaped = self.couplings.shape == (n, n)
        if not shaped or (self.couplings != self.couplings.T).any():
            raise PotentialError(
                f"couplings has shape {self.couplings.shape}: expected a symmetric "
                f"matrix ({n}, {n})"
            )
        if self.couplings.diagonal().any():
            raise PotentialError(
                "couplings has numbers on its diagonal: expected zeros, because "
                "s_i s_i = 1 adds only a constant"
            )

    def _rows(self, spins: Any) -> Array:
        rows = np.array(spins, np.float64, ndmin=2)
        if rows.shape[1] != self.size or not (np.abs(rows) == 1).all():
            raise PotentialError(
                f"spins has shape {np.shape(spins)}: expected (R, {self.size}) values "
                "of -1 and 1, as model.initial(replicas=R)"
            )
        return rows

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Independent random spins, (R, N) of -1.0 and 1.0."""
        u = random.uniforms(
            seed, np.arange(replicas), 0, random.STREAM_INITIAL, self.size
        )
        return np.where(u < 0.5, -1.0, 1.0)

    def energy(self, spins: Any) -> Array:
        """U of configurations, (R,) or ()."""
        rows = self._rows(spins)
        out = -0.5 * ((rows @ self.couplings) * rows).sum(axis=1) - rows @ self.field
        return out if np.ndim(spins) == 2 else out[0]

    def heat_bath(
        self,
        spins: Any,
        temperature: float = 1.0,
        sweeps: int = 1,
        seed: int = 0,
        step: int = 0,
    ) -> Array:
        """Glauber dynamics, one spin after the other, compiled.

        Spin i becomes 1 with probability 1/(1 + exp(-2 (h_i + sum_j J_ij s_j)/T)).

        Parameters
        ----------
        spins : (R, N)
            Where each replica is; not changed.
        temperature : float
        sweeps : int
            Of N spins each.
        seed, step : int
            Counters of the first sweep; go on with ``step + sweeps``.

        Returns
        -------
        ndarray, (R, N)
        """
        from mdnet.kernels.spins import glauber

        rows = self._rows(spins)
        glauber(
            rows,
            rows @ self.couplings + self.field,
            self.couplings,
            1 / temperature_value(temperature),
            positive_integer("sweeps", sweeps),
            step,
            random.STREAM_METROPOLIS,
            np.array(random.seed_words(seed), np.uint64),
        )
        return rows

    # --- exact ------------------------------------------------------------------

    def enumerate(self, temperature: float = 1.0) -> Enumeration:
        """Averages over all 2^N configurations.

        Raises
        ------
        PotentialError
            More than 20 spins.
        """
        t, n = temperature_value(temperature), self.size
        if n > _LARGEST:
            raise PotentialError(
                f"size={n}: enumeration takes at most {_LARGEST} spins; use "
                "heat_bath or mean_field"
            )
        low = min(n, _LOW)
        inner = _all_spins(low)
        outer = _all_spins(n - low)
        base, total, energy = -np.inf, 0.0, 0.0
        first, second = np.zeros(n), np.zeros((n, n))
        for high in outer:
            spins = np.empty((len(inner), n))
            spins[:, :low], spins[:, low:] = inner, high
            u = self.energy(spins)
            top = float((-u / t).max())
            if top > base:
                shrink = math.exp(base - top)
                base = top
                total, energy = total * shrink, energy * shrink
                first, second = first * shrink, second * shrink
            weight = np.exp(-u / t - base)
            total += weight.sum()
            energy += weight @ u
            first += weight @ spins
            second += (weight[:, None] * spins).T @ spins
        return Enumeration(
            free_energy=-t * (base + math.log(total)),
            energy=float(energy / total),
            magnetizations=first / total,
            correlations=second / total,
        )

    def annealed_free_energy(self, temperature: float = 1.0) -> float:
        """-T ln E[Z] without a field: -N T ln 2 - (N - 1)/4T, over all disorder.

        A lower bound of the mean free energy at any T, and its limit above T = 1.
        """
        t, n = temperature_value(temperature), self.size
        return -n * t * math.log(2) - (n - 1) / (4 * t)

    # --- mean field -------------------------------------------------------------

    def mean_field(
        self,
        temperature: float = 1.0,
        order: int = 2,
        start: Any = None,
        damping: float = 0.5,
        tolerance: float = 1e-12,
        max_iterations: int = 10_000,
    ) -> MeanField:
        """Solve the mean-field equations by damped iteration.

        Parameters
        ----------
        temperature : float
        order : {1, 2}
            1: naive mean field; 2: with Onsager's reaction (TAP).
        start : array, (N,), optional
            Magnetizations to begin from; tanh(h/T) if None.
        damping : float
            Share of the old magnetizations in the new, 0 <= damping < 1.
        tolerance : float
            Residual at which to stop.
        max_iterations : int

        Returns
        -------
        MeanField
            Deep in the glass the iteration may not converge: ``converged`` says so.

        Raises
        ------
        PotentialError
            Another order or damping, or a start of another shape.
        """
        beta = 1 / temperature_value(temperature)
        if order not in (1, 2):
            raise PotentialError(f"order={order!r}: expected 1 (naive) or 2 (TAP)")
        if not 0 <= damping < 1:
            raise PotentialError(f"damping={damping!r}: expected 0 <= damping < 1")
        m = (
            np.tanh(beta * self.field)
            if start is None
            else finite_array("start", start)
        )
        if m.shape != (self.size,):
            raise PotentialError(
                f"start has shape {m.shape}: expected ({self.size},), one a spin"
            )
        squares = self.couplings**2 if order == 2 else np.zeros_like(self.couplings)
        residual, count = np.inf, 0
        while residual > tolerance and count < max_iterations:
            inner = self.field + self.couplings @ m - beta * m * (squares @ (1 - m**2))
            new = np.tanh(beta * inner)
            residual = float(np.abs(new - m).max())
            m = damping * m + (1 - damping) * new
            count += 1
        return MeanField(
            magnetizations=m,
            free_energy=self._functional(m, beta, squares),
            iterations=count,
            residual=residual,
            converged=residual <= tolerance,
        )

    def _functional(
        self, m: Array, beta: float, squares: npt.NDArray[np.float64]
    ) -> float:
        """Free energy of given magnetizations to second order in the couplings."""
        up, down = (1 + m) / 2, (1 - m) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [np.where(p > 0, p * np.log(p), 0.0).sum() for p in (up, down)]
        loose = 1 - m**2
        energy = -0.5 * m @ self.couplings @ m - self.field @ m
        return float(energy - beta / 4 * loose @ squares @ loose + sum(terms) / beta)


def _all_spins(n: int) -> Array:
    """All 2^n configurations, (2^n, n)."""
    return 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1.0
