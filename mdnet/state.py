"""The state of a simulation: arrays on the device, replicas on axis 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.typing import Array

__all__ = ["State"]


@dataclass(slots=True)
class State:
    """Positions, momenta, forces and the ledger of R replicas of D parameters.

    Attributes
    ----------
    positions, momenta : (R, D)
        q and p = m v, in the precision's state type.
    forces : (R, D)
        The force evaluated last, in the precision's force type.
    sums : (4, R, tiles) float64
        Per block of parameters: twice the kinetic energy now, the same just after
        the last bath, heat and kick work since the start.
    step : int
        Steps done.
    time : float or (R,)
        Time done (an array when ``dt`` differs between replicas).
    forces_fresh : bool
        Whether ``forces`` belongs to ``positions``.
    protocol_work : (R,) float64
        Work done by the protocol: sum of U' - U at fixed positions.
    variables : dict of arrays
        What the integrator keeps beside positions and momenta, as thermostat
        variables; replicas on axis 0.
    potential_energy : callable
        U of all data at the present positions, (R,) float64; set by the simulation.
    """

    backend: Backend
    positions: Array
    momenta: Array
    forces: Array
    sums: Array
    step: int = 0
    time: Any = 0.0
    forces_fresh: bool = False
    protocol_work: Any = None
    variables: dict[str, Array] = field(default_factory=dict)
    potential_energy: Any = None

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return int(self.positions.shape[0])

    @property
    def size(self) -> int:
        """Number of parameters D."""
        return int(self.positions.shape[1])

    def ledger(self, row: int) -> np.ndarray:
        """Sum of one row of ``sums`` over blocks: (R,) float64 on the host."""
        total: np.ndarray = self.backend.to_host(self.sums[row]).sum(axis=1)
        return total

    @property
    def kinetic_energy(self) -> np.ndarray:
        """Kinetic energy now, (R,) float64."""
        return 0.5 * self.ledger(0)

    @property
    def heat(self) -> np.ndarray:
        """Energy taken from the baths since the start, (R,) float64."""
        return self.ledger(2)

    @property
    def kick_work(self) -> np.ndarray:
        """Kinetic energy gained in kicks since the start, (R,) float64."""
        return self.ledger(3)
