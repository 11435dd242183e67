r"""The random energy model: 2^N independent levels, and its freezing.

Levels are normals of variance N, so that in the limit of many spins the free energy a
spin is

.. math::
    f(\beta) = -\frac{\ln 2}{\beta} - \frac{\beta}{2} \quad (\beta < \beta_c),
    \qquad f = -\sqrt{2 \ln 2} \quad (\beta \ge \beta_c = \sqrt{2 \ln 2}):

below the temperature :math:`1/\beta_c` = .849 the system stays in its few lowest
levels.

References
----------
B. Derrida, Phys. Rev. B 24, 2613 (1981), doi:10.1103/PhysRevB.24.2613 (whose levels
have the variance N/2).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._checks import positive_integer, temperature_value
from mdnet.potentials.spin_glass import DISORDER
from mdnet.typing import Array

__all__ = ["RandomEnergyModel"]

_LARGEST = 26
_BLOCK = 1 << 20


class RandomEnergyModel:
    """A table of 2^N random levels.

    A state is a whole number from 0 to 2^N - 1 whose bits are the spins.

    Parameters
    ----------
    size : int
        N, at most 26.
    seed : int
        Key of the levels.

    Raises
    ------
    PotentialError
        A size that is no integer from 1 to 26.

    Examples
    --------
    >>> from mdnet import potentials
    >>> model = potentials.RandomEnergyModel(10, seed=1)
    >>> model.energy([0, 1023]).shape
    (2,)
    >>> round(model.limit_free_energy(temperature=2.0), 4)
    -1.6363
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = positive_integer("size", size)
        if self.size > _LARGEST:
            raise PotentialError(
                f"size={size}: expected at most {_LARGEST} spins, whose 2^N levels are "
                "held in memory"
            )
        random.seed_words(seed)
        self.seed = int(seed)
        blocks = max(1, 2**self.size // _BLOCK)
        rows = np.arange(blocks)
        levels = random.normals(
            self.seed, rows, DISORDER, random.STREAM_INITIAL, 2**self.size // blocks
        )
        self.energies: npt.NDArray[np.float64] = levels.ravel() * math.sqrt(self.size)
        """Levels E of all states, (2^N,)."""
        self.energies.flags.writeable = False

    @property
    def critical_temperature(self) -> float:
        """1/sqrt(2 ln 2) = .849, below which few levels hold all the weight."""
        return 1 / math.sqrt(2 * math.log(2))

    def energy(self, states: Any) -> Array:
        """Levels of ``states``, shaped as they are."""
        index = np.asarray(states)
        bad = index.dtype.kind not in "iu" or index.size == 0
        if bad or index.min() < 0 or index.max() >= 2**self.size:
            raise PotentialError(
                f"states: expected whole numbers from 0 to {2**self.size - 1}, one bit "
                "a spin"
            )
        return self.energies[index]

    def spins(self, states: Any) -> Array:
        """Spins -1 and 1 of ``states``, (..., N): spin i is bit i."""
        self.energy(states)  # checks
        bits = np.asarray(states)[..., None] >> np.arange(self.size) & 1
        return 2.0 * bits - 1.0

    # --- this sample, by enumeration ---------------------------------------------

    def _weights(self, temperature: float) -> tuple[float, Array]:
        """Return ln Z, and the Boltzmann weights of all levels."""
        exponents = self.energies / -temperature_value(temperature)
        top = float(exponents.max())
        exponents -= top
        np.exp(exponents, out=exponents)
        total = float(exponents.sum())
        exponents /= total
        return top + math.log(total), exponents

    def free_energy(self, temperature: float = 1.0) -> float:
        """Exact -T ln sum exp(-E/T) of this sample; N times that of a spin."""
        return -temperature * self._weights(temperature)[0]

    def mean_energy(self, temperature: float = 1.0) -> float:
        """Exact mean energy of this sample."""
        return float(self._weights(temperature)[1] @ self.energies)

    def heat_capacity(self, temperature: float = 1.0) -> float:
        """Exact Var(E)/T^2 of this sample."""
        weights = self._weights(temperature)[1]
        shifted = self.energies - weights @ self.energies
        return float(weights @ shifted**2) / temperature**2

    def participation(self, temperature: float = 1.0) -> float:
        """Sum of squared weights: the probability that two replicas are in one level.

        In the limit of many spins, and averaged over samples, 1 - T/T_c below T_c and
        0 above.
        """
        weights = self._weights(temperature)[1]
        return float(weights @ weights)

    # --- the limit of many spins --------------------------------------------------

    def limit_free_energy(self, temperature: float = 1.0) -> float:
        """Free energy a spin for N -> infinity."""
        beta = 1 / temperature_value(temperature)
        if temperature <= self.critical_temperature:
            return -math.sqrt(2 * math.log(2))
        return -math.log(2) / beta - beta / 2

    def limit_energy(self, temperature: float = 1.0) -> float:
        """Energy a spin for N -> infinity: -1/T, and -sqrt(2 ln 2) when frozen."""
        temperature_value(temperature)
        return -1 / max(temperature, self.critical_temperature)

    # --- dynamics -------------------------------------------------------------------

    def metropolis(
        self,
        states: Any,
        temperature: float = 1.0,
        sweeps: int = 1,
        seed: int = 0,
        step: int = 0,
    ) -> npt.NDArray[np.int64]:
        """Walk by flips of random spins, compiled.

        Parameters
        ----------
        states : (R,) int
            Where each replica is.
        temperature : float
        sweeps : int
            Of N attempts each.
        seed, step : int
            Counters of the first sweep; go on with ``step + sweeps``.

        Returns
        -------
        ndarray, (R,) int64
            Where each replica is then.
        """
        from mdnet.kernels.states import metropolis

        self.energy(states)  # checks
        out = np.array(states, np.int64, ndmin=1)
        metropolis(
            out,
            self.energies,
            self.size,
            1 / temperature_value(temperature),
            positive_integer("sweeps", sweeps),
            step,
            random.STREAM_METROPOLIS,
            np.array(random.seed_words(seed), np.uint64),
        )
        return out
