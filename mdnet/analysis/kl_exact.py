r"""Exact relaxation to equilibrium of overdamped dynamics, to measure others against.

Both are for :math:`dq = -\nabla U\,dt + \sqrt{2T}\,dW` (k_B = 1, unit mobility).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.errors import PotentialError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fokker_planck_kl", "ornstein_uhlenbeck_kl"]


def _columns(**given: Any) -> list[np.ndarray[Any, Any]]:
    """Broadcast scalars or (d,) against each other: (d,) each."""
    arrays = [np.atleast_1d(np.asarray(v, np.float64)) for v in given.values()]
    try:
        return list(np.broadcast_arrays(*arrays))
    except ValueError as error:
        shapes = ", ".join(f"{k} {np.shape(v)}" for k, v in given.items())
        raise PotentialError(
            f"shapes do not match: {shapes}; expected numbers or one value a coordinate"
        ) from error


def ornstein_uhlenbeck_kl(
    t: Any, stiffness: Any, temperature: float, mean0: Any, variance0: Any
) -> np.ndarray[Any, Any]:
    r"""KL divergence from equilibrium of harmonic weights that start Gaussian.

    .. math::
        m(t) = m_0 e^{-kt}, \quad v(t) = T/k + (s_0 - T/k) e^{-2kt}, \quad
        D = \tfrac12 \sum [vk/T - 1 - \ln(vk/T) + m^2 k/T].

    Parameters
    ----------
    t : array_like, (n,)
        Times >= 0.
    stiffness, mean0, variance0 : float or (d,)
        k, m_0 and s_0 of each coordinate; the sum runs over them.
    temperature : float

    Returns
    -------
    ndarray, (n,)
        In nats.

    Examples
    --------
    >>> ornstein_uhlenbeck_kl([0.0], 1.0, 1.0, 2.0, 1.0)
    array([2.])
    """
    k, m0, s0 = _columns(stiffness=stiffness, mean0=mean0, variance0=variance0)
    if not ((k > 0).all() and (s0 > 0).all() and temperature > 0):
        raise PotentialError(
            f"stiffness={stiffness!r}, temperature={temperature!r}, "
            f"variance0={variance0!r}: expected all > 0"
        )
    at = np.asarray(t, np.float64)[..., None]
    equilibrium = temperature / k
    m = m0 * np.exp(-k * at)
    v = equilibrium + (s0 - equilibrium) * np.exp(-2 * k * at)
    out: np.ndarray[Any, Any] = 0.5 * (
        v / equilibrium - 1 - np.log(v / equilibrium) + m**2 / equilibrium
    ).sum(-1)
    return out


def _bounds(
    u: Callable[[Any], Any], temperature: float, mean0: float, variance0: float
) -> tuple[float, float]:
    """Where both the start and equilibrium have died out: U > U_min + 40 T."""
    reach = 10 * np.sqrt(variance0)
    for _ in range(60):
        x = np.linspace(mean0 - reach, mean0 + reach, 2001)
        high = np.asarray(u(x), np.float64)
        high = high - high.min()
        inside = np.flatnonzero(high < 40 * temperature)
        if inside[0] > 0 and inside[-1] < x.size - 1:
            near = np.flatnonzero(np.abs(x - mean0) < 9 * np.sqrt(variance0))
            ends = np.concatenate((inside, near))
            return float(x[ends.min()]), float(x[ends.max()])
        reach *= 1.5
    raise PotentialError(
        "the potential does not rise by 40 T anywhere near the start: it confines "
        "nothing; pass bounds=(low, high) for reflecting walls"
    )


def fokker_planck_kl(
    potential: Callable[[Any], Any],
    temperature: float,
    mean0: float,
    variance0: float,
    times: Any,
    *,
    bounds: tuple[float, float] | None = None,
    points: int = 1500,
) -> np.ndarray[Any, Any]:
    r"""KL divergence from equilibrium in a one-dimensional potential, from a Gaussian.

    The Fokker-Planck equation is cut into finite volumes with rates
    :math:`w_{i \to i\pm1} = (T/h^2)\,e^{-(U_{i\pm1}-U_i)/2T}`, which keep detailed
    balance exactly: :math:`e^{-U/T}` is stationary on any grid, and KL only falls.  The
    generator is made symmetric by :math:`\sqrt{\pi}` and diagonalised, so that every
    time is exact on the grid; the grid error is O(h²).

    Parameters
    ----------
    potential : callable
        U(x) of an array x.
    temperature : float
    mean0, variance0 : float
        The start, N(mean0, variance0).
    times : array_like, (n,)
        Times >= 0.
    bounds : (float, float), optional
        Reflecting walls; default where U is 40 T above its minimum.
    points : int
        Cells of the grid.

    Returns
    -------
    ndarray, (n,)
        In nats.

    Raises
    ------
    PotentialError
        If the potential confines nothing, or a parameter is out of range.

    References
    ----------
    D. J. Bicout, A. Szabo, "Electron transfer reaction dynamics in non-Debye
    solvents", J. Chem. Phys. 109, 2325 (1998), doi:10.1063/1.476800 (the rates).
    G. Hummer, "Position-dependent diffusion coefficients and free energies from
    Bayesian analysis", New J. Phys. 7, 34 (2005), doi:10.1088/1367-2630/7/1/34.
    """
    from scipy.linalg import eigh_tridiagonal
    from scipy.special import ndtr, rel_entr

    at = np.asarray(times, np.float64)
    if not (temperature > 0 and variance0 > 0 and points >= 10 and (at >= 0).all()):
        raise PotentialError(
            f"temperature={temperature!r}, variance0={variance0!r}, points={points!r}: "
            "expected temperature and variance > 0, points >= 10 and times >= 0"
        )
    low, high = bounds or _bounds(potential, temperature, mean0, variance0)
    edges = np.linspace(low, high, points + 1)
    h = edges[1] - edges[0]
    beta_u = np.asarray(potential(0.5 * (edges[1:] + edges[:-1])), float) / temperature
    beta_u = beta_u - beta_u.min()
    root = np.exp(-0.5 * beta_u)
    root /= np.linalg.norm(root)
    step = np.diff(beta_u)
    rate = temperature / h**2
    leave = np.zeros(points)
    leave[:-1] += rate * np.exp(-0.5 * step)
    leave[1:] += rate * np.exp(0.5 * step)
    # sqrt(w_ij w_ji) is the bare rate: the symmetric generator's off-diagonal.
    values, vectors = eigh_tridiagonal(-leave, np.full(points - 1, rate))
    start = np.diff(ndtr((edges - mean0) / np.sqrt(variance0)))
    start /= start.sum()
    weights = vectors.T @ (start / root)
    decay = np.exp(np.minimum(values, 0.0) * at[..., None]) * weights
    density = np.maximum((decay @ vectors.T) * root, 0.0)
    density /= density.sum(-1, keepdims=True)
    out: np.ndarray[Any, Any] = rel_entr(density, root**2).sum(-1)
    return out
