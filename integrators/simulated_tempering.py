r"""One replica, many temperatures: simulated tempering.

`SimulatedTempering` lets each replica wander on its own, with weights g_k that make
up for the free energies: k goes to a neighbour l with probability
:math:`\min(1, e^{(\beta_k - \beta_l) U + g_l - g_k})`, and visits the rungs with
:math:`p_k \propto Z_k e^{g_k}`.

References
----------
E. Marinari, G. Parisi, Europhys. Lett. 19, 451 (1992),
doi:10.1209/0295-5075/19/6/002 (simulated tempering).
Z. Tan, J. Comput. Graph. Stat. 26, 54 (2017), doi:10.1080/10618600.2015.1113975
(weights learned on the way).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import SchemeError
from mdnet.integrators.companion import Context
from mdnet.integrators.splitting import KINDS, from_description
from mdnet.integrators.tempering import Exchange, ReplicaExchange

__all__ = ["SimulatedTempering", "Wandering"]


@dataclass(frozen=True, eq=False)
class SimulatedTempering(ReplicaExchange):
    """Any integrator, with a temperature that each replica changes on its own.

    Parameters
    ----------
    integrator, temperatures, every, batches
        As `ReplicaExchange`; any number of replicas, the r-th begins at r mod K.
    adapt : int
        Steps at the start in which the weights are learned from all replicas, so
        that all temperatures are visited equally often.  Counts begin after them.
    weights : (K,) array, optional
        g_k, or where to start learning; zeros if not given.  Visits are equal for
        g_k = -log Z_k.

    Examples
    --------
    >>> from mdnet import integrators
    >>> word = integrators.BAOAB(dt=0.1)
    >>> SimulatedTempering(word, temperatures=[1.0, 2.0], adapt=1000).weights
    array([0., 0.])
    """

    weights: Any = None

    def __post_init__(self) -> None:
        ReplicaExchange.__post_init__(self)
        given = (
            np.zeros(self.temperatures.size)
            if self.weights is None
            else (np.array(self.weights, np.float64))
        )
        if given.shape != self.temperatures.shape or not np.isfinite(given).all():
            raise SchemeError(
                f"weights={self.weights!r}: expected {self.temperatures.size} finite "
                "numbers, one for each temperature"
            )
        object.__setattr__(self, "weights", given)

    def bind(self, context: Context) -> Wandering:
        """Return what keeps the temperatures of the replicas."""
        return Wandering(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return ReplicaExchange.describe(self) | {"weights": self.weights.tolist()}


def _wandering(record: dict[str, Any]) -> SimulatedTempering:
    return SimulatedTempering(
        from_description(record["integrator"]),
        np.array(record["temperature"]),
        record["every"],
        record["adapt"],
        np.array(record["weights"]),
        batches=record["batches"],
    )


KINDS["SimulatedTempering"] = _wandering


class Wandering(Exchange):
    """Temperatures of replicas that move alone, and the weights of the rungs.

    Parameters
    ----------
    method : SimulatedTempering
    context : Context
    """

    @staticmethod
    def _check(replicas: int, rungs: int) -> None:
        del replicas, rungs

    @staticmethod
    def _learned(method: Any) -> dict[str, npt.NDArray[np.float64]]:
        return {"weights": method.weights.copy()}

    def _swap(self, step: int, parity: int) -> None:
        """Propose to each replica to go up or down, with equal chances."""
        del parity
        v = self.variables
        rung, top, g = v["rung"], v["ladder"].size - 1, v["weights"]
        replicas = np.arange(rung.size)
        energy = self._energies(step)
        self._energy = energy.mean(0)
        drawn = random.uniforms(
            self.context.seed, replicas, step, random.STREAM_TEMPERING, 2
        )
        goal = rung + np.where(drawn[:, 0] < 0.5, 1, -1)
        exists = (goal >= 0) & (goal <= top)
        goal = np.clip(goal, 0, top)
        beta = 1 / v["ladder"]
        pair = np.minimum(rung, goal)[exists]
        moving = replicas[exists]
        there, here = goal[exists], rung[exists]
        ratios = (beta[here] - beta[there]) * energy[:, exists] + g[there] - g[here]
        accepted = np.zeros(rung.size, np.bool_)
        gain = self._gain(ratios, moving, pair)
        accepted[exists] = np.log(drawn[exists, 1]) < gain
        v["attempts"][moving, pair] += 1
        v["accepts"][moving, pair] += accepted[exists]
        rung[accepted] = goal[accepted]
        self._count_trips()

    def _learn(self, turn: int, last: bool) -> None:
        """One step of stochastic approximation (Tan, eq. 16), averaged over replicas.

        Each replica counts at every rung with its probability there.
        """
        del last
        v = self.variables
        exponent = v["weights"] - self._energy[:, None] / v["ladder"]
        share = np.exp(exponent - exponent.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        v["weights"] -= share.mean(0) * share.shape[1] / turn
        v["weights"] -= v["weights"][0]
