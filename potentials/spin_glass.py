r"""The spherical p-spin glass, dense, with its exact answers.

.. math::
    U(s) = -\frac{1}{\sqrt{2 N^{p-1}}} \sum_{i_1 \dots i_p} g_{i_1 \dots i_p}
    s_{i_1} \cdots s_{i_p}, \qquad |s|^2 = N,

with independent standard normals g, so that over disorder the energies of two
configurations have the covariance :math:`(N/2)(s \cdot s'/N)^p`, exactly at any N.
Averages over disorder of the averages over configurations obey, at any N and T,

.. math:: \langle U \rangle = -\frac{N}{2T} (1 - \langle q^p \rangle),

with q the overlap of two replicas: above the transition the annealed energy -N/2T.

The sphere is kept by ``integrators.Constrained(..., norms=U.norms)``.

References
----------
A. Crisanti, H.-J. Sommers, Z. Phys. B 87, 341 (1992), doi:10.1007/BF01309287.
J. M. Kosterlitz, D. J. Thouless, R. C. Jones, Phys. Rev. Lett. 36, 1217 (1976),
doi:10.1103/PhysRevLett.36.1217 (p = 2).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import positive_integer, temperature_value
from mdnet.potentials._forms import Polynomial
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["DISORDER", "SphericalSpinGlass"]

DISORDER = 2
"""Step of the counters that disorder is drawn at: starts of the same seed use 0."""

_LARGEST = {2: 20_000, 3: 512}  # 3 GB, and 1 GB of couplings


class SphericalSpinGlass(Potential):
    """Soft spins on a sphere with random couplings of p = 2 or 3 at a time.

    Parameters
    ----------
    size : int
        N spins.
    p : {2, 3}
        Spins in a coupling.
    seed : int
        Key of the disorder.

    Raises
    ------
    PotentialError
        Another p, or a size that is no positive integer or beyond memory.

    Notes
    -----
    A force costs N^p operations a replica, in matrix products.  p = 2 orders at T = 1.
    p = 3 falls out of equilibrium at T = .612 and has its transition at T = .586.

    Examples
    --------
    >>> from mdnet import integrators, potentials
    >>> U = potentials.SphericalSpinGlass(50, p=3, seed=1)
    >>> word = integrators.Constrained("BAOAB", dt=0.1, norms=U.norms)
    >>> U.annealed_energy(temperature=2.0)
    -12.5
    """

    def __init__(self, size: int, p: int = 2, seed: int = 0) -> None:
        if p not in _LARGEST:
            raise PotentialError(f"p={p!r}: expected 2 or 3 spins in a coupling")
        self.size, self.p = positive_integer("size", size), int(p)
        if self.size > _LARGEST[self.p]:
            raise PotentialError(
                f"size={size}: expected at most {_LARGEST[self.p]} spins for p={p}, "
                f"whose {size}^{p} couplings are held in memory"
            )
        random.seed_words(seed)
        self.seed = int(seed)
        self._couplings: Array | None = None
        self._eigenvalues: Array | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_couplings": None, "_eigenvalues": None}

    @property
    def layout(self) -> Layout:
        """One tensor, "spins"."""
        return {"spins": (slice(0, self.size), (self.size,))}

    @property
    def norms(self) -> dict[str, tuple[str, float]]:
        """The sphere |s|^2 = N, for `integrators.Constrained`."""
        return {"spins": ("tensor", math.sqrt(self.size))}

    @property
    def couplings(self) -> Array:
        """Symmetric tensor A of U = -A s ... s, (N,) * p: the mean of g over orders."""
        if self._couplings is None:
            n, p = self.size, self.p
            stream = random.STREAM_INITIAL
            g = random.normals(self.seed, np.arange(n), DISORDER, stream, n ** (p - 1))
            if p == 2:
                g = (g + g.T) / 2
            else:
                g = g.reshape(n, n, n)
                g = g + g.transpose(1, 2, 0) + g.transpose(2, 0, 1)
                g = (g + g.transpose(0, 2, 1)) / 6
            g /= math.sqrt(2.0 * float(n) ** (p - 1))
            g.flags.writeable = False
            self._couplings = g
        return self._couplings

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return _SphericalEvaluator(self, backend, replicas)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Uniform draws on the sphere, (R, N) float64."""
        s = super().initial(replicas, seed)
        s *= math.sqrt(self.size) / np.linalg.norm(s, axis=1, keepdims=True)
        return s

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "SphericalSpinGlass",
            "size": self.size,
            "p": self.p,
            "seed": self.seed,
        }

    # --- exact answers -----------------------------------------------------------

    def annealed_energy(self, temperature: float = 1.0) -> float:
        """Mean energy -N/2T of the annealed system: -d ln E[Z]/d(1/T)."""
        return -self.size / (2 * temperature_value(temperature))

    def annealed_free_energy(self, temperature: float = 1.0) -> float:
        """-T ln E[Z] = -N/4T, with Z the mean of exp(-U/T) over the sphere."""
        return -self.size / (4 * temperature_value(temperature))

    @property
    def eigenvalues(self) -> Array:
        """Those of J in U = -s J s/2 (p = 2), ascending, (N,): a semicircle on +-2.

        Raises
        ------
        PotentialError
            p = 3.
        """
        if self.p != 2:
            raise PotentialError(
                f"eigenvalues, saddle and exact_energy are of p=2, not p={self.p}: "
                "compare with annealed_energy"
            )
        if self._eigenvalues is None:
            self._eigenvalues = np.linalg.eigvalsh(2 * self.couplings)
        return self._eigenvalues

    def saddle(self, temperature: float = 1.0) -> float:
        """Solve sum_i T/(z - lambda_i) = N for the multiplier z above the spectrum."""
        from scipy.optimize import brentq

        t, edge = temperature_value(temperature), self.eigenvalues[-1]
        gaps = edge - self.eigenvalues

        def excess(above: float) -> float:
            return float((t / (above + gaps)).sum() - self.size)

        # One term alone is N at the lower end, and all are at most 1 at the upper.
        above = brentq(excess, t / self.size * (1 - 1e-9), t * (1 + 1e-9), xtol=1e-15)
        return float(edge + above)

    def saddle_energy(self, temperature: float = 1.0) -> float:
        """Mean energy -sum lambda T/(z - lambda)/2 with |s|^2 = N on average only."""
        z, modes = self.saddle(temperature), self.eigenvalues
        return float(-0.5 * (modes * temperature / (z - modes)).sum())

    def exact_energy(self, temperature: float = 1.0) -> float:
        """Mean energy of this sample on the sphere, exact at any N (p = 2).

        The constraint is a contour integral over z through `saddle`,

        Z = int dz exp(N z/2T - sum_i ln(z - lambda_i)/2),
        <s_i^2> = T <1/(z - lambda_i)>,

        along a hyperbola about the spectrum, where the trapezoidal rule converges
        exponentially.

        Raises
        ------
        PotentialError
            p = 3.
        """
        t, modes = temperature_value(temperature), self.eigenvalues
        z, pull = self.saddle(t), self.size / (2 * t)
        width = 1 / math.sqrt(0.5 * ((z - modes) ** -2.0).sum())
        # Along z + width (1 - cosh x + i sinh x) until exp(pull z) has died away.
        end = math.acosh(1 + 45 / (pull * width))
        x = np.linspace(-end, end, int(100 * end) | 1)
        step = width * (1 - np.cosh(x) + 1j * np.sinh(x))
        gap = z + step[:, None] - modes
        weight = np.exp(pull * step - 0.5 * np.log(gap / (z - modes)).sum(axis=1))
        weight *= 1j * np.cosh(x) - np.sinh(x)
        energy = (weight * (modes / gap).sum(axis=1)).sum().imag / weight.sum().imag
        return -0.5 * t * float(energy)


class _SphericalEvaluator:
    """Contractions of the coupling tensor by matrix products with work arrays."""

    full = True
    polynomial: Polynomial | None = None
    __slots__ = ("_bound", "_p", "_xp")

    def __init__(
        self, model: SphericalSpinGlass, backend: Backend, replicas: int
    ) -> None:
        xp, n = backend.xp, model.size
        self._xp, self._p = xp, model.p
        self._bound = {}
        for kind in {backend.force_dtype, np.dtype(np.float64)}:
            couplings = backend.asarray(model.couplings, kind).reshape(n, -1)
            pairs = xp.empty((replicas, couplings.shape[1]), kind)
            spins, pull = xp.empty((2, replicas, n), kind)
            self._bound[kind] = couplings, pairs, spins, pull

    def _contract(self, positions: Array, kind: Any) -> tuple[Array, Array]:
        """Spins, and A s^(p-1), (R, N)."""
        xp = self._xp
        couplings, pairs, spins, pull = self._bound[np.dtype(kind)]
        spins[...] = positions
        xp.matmul(spins, couplings, out=pairs)
        if self._p == 2:
            return spins, pairs
        replicas, n = spins.shape
        cube = pairs.reshape(replicas, n, n)
        xp.matmul(cube, spins[:, :, None], out=pull[:, :, None])
        return spins, pull

    def forces(
        self,
        positions: Array,
        out: Array,
        call: int,  # noqa: ARG002
        energies: Array | None = None,
    ) -> None:
        _, pull = self._contract(positions, out.dtype)
        self._xp.multiply(pull, self._p, out=out)
        if energies is not None:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        spins, pull = self._contract(positions, np.float64)
        self._xp.multiply(pull, spins, out=spins)
        self._xp.sum(spins, axis=1, out=out)
        self._xp.negative(out, out=out)

    def gradients(self, positions: Array, out: Array) -> None:
        _, pull = self._contract(positions, out.dtype)
        self._xp.multiply(pull, -self._p, out=out)
