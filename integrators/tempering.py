r"""Replicas that wander over temperatures: replica exchange.

K temperatures :math:`T_0 < \dots < T_{K-1}` are shared out among the replicas of one
simulation.  Every ``every`` steps neighbours k, k + 1 swap temperatures with
probability

.. math:: \min\bigl(1, e^{(\beta_k - \beta_{k+1})(U_i - U_j)}\bigr),
          \qquad \beta = 1/T,

where U is the energy of all data in float64, so that the product of canonical laws is
kept exactly; momenta are rescaled by :math:`\sqrt{T'/T}`, which is heat in the ledger.
Even and odd pairs take turns: a replica that climbs goes on climbing.

==============================  ===================================================
equation                        code
==============================  ===================================================
:math:`T_0, T_1, \dots`         ``variables["ladder"]``
k of each replica               ``variables["rung"]``, series ``rung``
T of each replica               series ``target_temperature``
swaps tried and done            series ``swap_attempts``, ``swap_accepts``
bottom, top, bottom             series ``round_trips``
==============================  ===================================================

With ``batches`` the energies are those of minibatches, and swaps are corrected for
their noise: see `mdnet.integrators.penalty`.  Series then are ``swap_noise`` (the sum
of the variances of beta U differences over the swaps tried) and ``swap_bias`` (what
the correction leaves).

References
----------
K. Hukushima, K. Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996), doi:10.1143/JPSJ.65.1604.
Y. Sugita, Y. Okamoto, Chem. Phys. Lett. 314, 141 (1999),
doi:10.1016/S0009-2614(99)01123-9 (rescaled momenta).
S. Syed, A. Bouchard-Côté, G. Deligiannidis, A. Doucet, J. R. Stat. Soc. B 84, 321
(2022), doi:10.1111/rssb.12464 (even and odd turns, ladders of equal rejection).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import SchemeError
from mdnet.integrators.companion import Companion, Context
from mdnet.integrators.penalty import BatchEnergies, Remaining, penalty
from mdnet.integrators.splitting import KINDS, Splitting, from_description

__all__ = [
    "Exchange",
    "ReplicaExchange",
    "equal_rejection",
]


@dataclass(frozen=True, eq=False)
class ReplicaExchange:
    """Any integrator, with temperatures that its replicas exchange.

    Sampling at each temperature is that of the integrator at its step, and swaps keep
    it exactly where the integrator samples the canonical law of U exactly (in the
    limit of small steps otherwise).

    Parameters
    ----------
    integrator : Splitting
        Moves each replica; its own temperature is not used.
    temperatures : (K,) array
        Increasing, all > 0.  Replicas k, K + k, 2 K + k, ... of the simulation begin
        at the k-th: their number must be a multiple of K, and each run of K is a
        ladder of its own.
    every : int
        Steps between swaps.
    adapt : int
        Steps at the start of a run in which the inner temperatures move to where all
        pairs are rejected equally often.  Counts of swaps and trips begin after them.
    batches : int
        0: swaps use the energy of all data.  2 or more: that of so many minibatches, of
        the size and order of the potential's, with a correction for their noise; 8 or
        more where the variance of a swap's exponent is about one, and the cost is that
        of so many forces.

    Raises
    ------
    SchemeError
        Temperatures that do not increase, or numbers out of range.

    Examples
    --------
    >>> from mdnet import integrators
    >>> word = integrators.BAOAB(dt=0.1)
    >>> ReplicaExchange(word, temperatures=[1.0, 1.4, 2.0]).every
    10
    """

    integrator: Splitting
    temperatures: Any
    every: int = 10
    adapt: int = 0
    batches: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.integrator, Splitting):
            raise SchemeError(
                f"integrator={self.integrator!r}: expected one that moves all "
                "replicas, as integrators.BAOAB(dt=0.01)"
            )
        ladder = np.array(self.temperatures, np.float64)
        good = ladder.ndim == 1 and ladder.size > 1 and np.isfinite(ladder).all()
        if not good or ladder[0] <= 0 or (np.diff(ladder) <= 0).any():
            raise SchemeError(
                f"temperatures={self.temperatures!r}: expected two or more increasing "
                "numbers > 0, as numpy.geomspace(1, 4, 8)"
            )
        object.__setattr__(self, "temperatures", ladder)
        for name, least in (("every", 1), ("adapt", 0), ("batches", 0)):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < least:
                raise SchemeError(f"{name}={value!r}: expected an integer >= {least}")
        if self.batches == 1:
            raise SchemeError(
                "batches=1: the noise of an energy shows in two or more; pass 8, or 0 "
                "for the energy of all data"
            )

    def __getattr__(self, name: str) -> Any:
        """All that is not about temperatures is the integrator's."""
        if name == "integrator" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.integrator, name)

    @property
    def name(self) -> str:
        """Name to report."""
        return f"{type(self).__name__} of {self.integrator.name}"

    @property
    def SCALARS(self) -> tuple[str, ...]:
        """Parameters that may be schedules or have one value a replica."""
        return tuple(n for n in self.integrator.SCALARS if n != "temperature")

    @property
    def scheduled(self) -> bool:
        """Whether a coefficient changes with the step."""
        return replace(self.integrator, temperature=1.0).scheduled

    def target_temperature(self, step: int) -> float:
        """Return the highest temperature; see the series of the same name."""
        del step
        return float(self.temperatures[-1])

    def bind(self, context: Context) -> Exchange:
        """Return what keeps the temperatures of the replicas."""
        return Exchange(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        inner = self.integrator.describe()
        return inner | {
            "kind": type(self).__name__,
            "name": self.name,
            "temperature": self.temperatures.tolist(),
            "every": int(self.every),
            "adapt": int(self.adapt),
            "batches": int(self.batches),
            "integrator": inner,
        }


def _exchange(record: dict[str, Any]) -> ReplicaExchange:
    return ReplicaExchange(
        from_description(record["integrator"]),
        np.array(record["temperature"]),
        record["every"],
        record["adapt"],
        batches=record["batches"],
    )


KINDS["ReplicaExchange"] = _exchange


def equal_rejection(
    temperatures: npt.NDArray[np.float64], rejection: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    r"""Temperatures between the same ends at which all pairs reject equally often.

    The rejection rates of neighbours add up to the barrier
    :math:`\Lambda(\beta)`, which is taken as linear in between; the new ladder has
    equal differences of it (Syed et al., eq. 24).

    Parameters
    ----------
    temperatures : (K,) float64
    rejection : (K - 1,) float64
        Measured between neighbours.

    Examples
    --------
    >>> equal_rejection(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.5])).tolist()
    [1.0, 2.0, 4.0]
    """
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(rejection, 1e-3))])
    levels = np.linspace(0.0, barrier[-1], barrier.size)
    ladder = 1 / np.interp(levels, barrier, 1 / temperatures)
    ladder[[0, -1]] = temperatures[[0, -1]]
    return ladder


_COUNTS = {"heading", "round_trips", "attempts", "accepts", "swap_noise"}


class Exchange(Companion):
    """Temperatures of all replicas, their swaps, and what was counted.

    Parameters
    ----------
    method : ReplicaExchange
    context : Context

    Raises
    ------
    SchemeError
        A number of replicas that is no multiple of the temperatures.
    """

    def __init__(self, method: ReplicaExchange, context: Context) -> None:
        super().__init__(context)
        replicas, rungs = context.state.replicas, method.temperatures.size
        self._check(replicas, rungs)
        self.every = int(method.every)
        self._adapt = int(method.adapt)
        own: dict[str, npt.NDArray[Any]] = {
            "ladder": method.temperatures.copy(),
            "rung": np.arange(replicas) % rungs,
            "heading": np.zeros(replicas, np.int64),
            "round_trips": np.zeros(replicas, np.int64),
            "attempts": np.zeros((replicas, rungs - 1), np.int64),
            "accepts": np.zeros((replicas, rungs - 1), np.int64),
            **self._learned(method),
        }
        self._batches: BatchEnergies | None = None
        if method.batches:
            self._batches = BatchEnergies(context, method.batches, method.name)
            self._remaining = Remaining(method.batches)
            own["swap_noise"] = np.zeros(own["attempts"].shape)
        # To the integrator its temperature is a schedule, which it does not keep.
        self._temperature: npt.NDArray[np.float64] = method.temperatures[own["rung"]]
        self._inner = replace(method.integrator, temperature=self._present)
        own_companion = self._inner.bind(context)
        self._companion: Companion = own_companion or Companion(context)
        self.steady = own_companion is None or own_companion.steady
        self.settles = self._companion.settles
        self.variables = own | self._companion.variables

    @staticmethod
    def _check(replicas: int, rungs: int) -> None:
        """Refuse replicas that leave a ladder unfilled."""
        if replicas % rungs:
            raise SchemeError(
                f"replicas={replicas} for {rungs} temperatures: expected a multiple "
                f"of {rungs}, one replica (or several) at each; pass "
                f"replicas={-(-replicas // rungs) * rungs}"
            )

    @staticmethod
    def _learned(method: Any) -> dict[str, npt.NDArray[np.float64]]:
        """What the warm-up adds up: rejections and attempts of each pair."""
        return {"rejection": np.zeros((2, method.temperatures.size - 1))}

    # --- what the integrator does --------------------------------------------------

    @property
    def energy(self) -> Any:  # type: ignore[override]
        """As the integrator's."""
        return self._companion.energy

    @property
    def evaluated(self) -> bool:
        """As the integrator's."""
        return self._companion.evaluated

    @evaluated.setter
    def evaluated(self, value: bool) -> None:
        self._companion.evaluated = value

    @property
    def changed(self) -> bool:
        """As the integrator's."""
        return self._companion.changed

    @changed.setter
    def changed(self, value: bool) -> None:
        self._companion.changed = value

    def coefficients(self, step: int) -> npt.NDArray[np.float64]:
        """Those of the integrator at the temperatures of now, (n, R, G, 2)."""
        self._follow()
        driven = self._companion.coefficients(step)
        if driven is not None:
            return driven
        state, groups = self.context.state, self.context.engine.group_count
        table = self._inner.coefficients(step, state.replicas)
        table = table[:, :, None] if table.ndim == 3 else table
        return np.broadcast_to(table, (*table.shape[:2], groups, 2))

    def temperatures(self, step: int) -> npt.NDArray[np.float64]:
        """Temperatures to draw momenta at, (R, G)."""
        self._follow()
        own = self._companion.temperatures(step)
        return np.asarray(self._temperature[:, None] if own is None else own)

    def call(self, index: int, step: int) -> None:
        """As the integrator's."""
        self._companion.call(index, step)

    def repeats(self, step: int) -> int:
        """As the integrator's."""
        return self._companion.repeats(step)

    def started(self) -> None:
        """As the integrator's; replicas stay where they are on the ladder."""
        self._companion.started()

    def potential_changed(self) -> None:
        """As the integrator's."""
        self._companion.potential_changed()

    def restrict(self, positions: Any, forces: Any) -> None:
        """As the integrator's."""
        self._companion.restrict(positions, forces)

    # --- swaps ---------------------------------------------------------------------

    def _present(self, step: int) -> npt.NDArray[np.float64]:
        del step
        return self._temperature

    def _follow(self) -> None:
        """Hand the temperatures of the rungs to the integrator."""
        np.take(self.variables["ladder"], self.variables["rung"], out=self._temperature)

    def between(self, step: int) -> None:
        """Swap temperatures of neighbours, even or odd ones."""
        self._follow()
        before = self._temperature.copy()
        turn = step // self.every
        self._swap(step, turn % 2)
        if step <= self._adapt:
            last = step + self.every > self._adapt
            self._learn(turn, last)
            if last:
                for name in _COUNTS & self.variables.keys():
                    self.variables[name][...] = 0
        self._follow()
        if not np.array_equal(before, self._temperature):
            self._rescale(np.sqrt(self._temperature / before))

    def _swap(self, step: int, parity: int) -> None:
        v = self.variables
        ladder, rung = v["ladder"], v["rung"]
        rungs = ladder.size
        ladders = np.arange(rung.size // rungs)
        energy = self._energies(step)
        # Who sits on each rung of each ladder.
        sits = np.argsort(rung.reshape(-1, rungs), axis=1) + rungs * ladders[:, None]
        pairs = np.arange(parity, rungs - 1, 2)
        low, high = sits[:, pairs], sits[:, pairs + 1]
        beta = 1 / ladder
        ratios = (beta[pairs] - beta[pairs + 1]) * (energy[:, low] - energy[:, high])
        at = np.broadcast_to(pairs, low.shape)
        gain = self._gain(ratios, low, at)
        drawn = random.uniforms(
            self.context.seed, ladders, step, random.STREAM_TEMPERING, rungs
        )
        accepted = np.log(drawn[:, pairs]) < gain
        v["rejection"][0, pairs] += -np.expm1(np.minimum(gain, 0)).sum(0)
        v["rejection"][1, pairs] += ladders.size
        v["attempts"][low, at] += 1
        v["accepts"][low, at] += accepted
        rung[low[accepted]] += 1
        rung[high[accepted]] -= 1
        self._count_trips()

    def _energies(self, step: int) -> npt.NDArray[np.float64]:
        """U of every replica, (1, R), or of each of its minibatches, (n, R)."""
        if self._batches is not None:
            return self._batches.draw(step)
        energy = np.asarray(self.context.state.potential_energy(), np.float64)
        return energy[None]

    def _gain(
        self, ratios: npt.NDArray[np.float64], low: Any, pair: Any
    ) -> npt.NDArray[np.float64]:
        """Logarithm of the ratio to accept with, from those of all batches (n, ...).

        The variance of their mean is booked for replicas ``low`` at ``pair``.
        """
        gain: npt.NDArray[np.float64] = ratios.mean(0)
        if self._batches is not None:
            n = len(ratios)
            variance = ratios.var(0, ddof=1) / n
            self.variables["swap_noise"][low, pair] += variance
            gain = gain - penalty(variance, n)
        return gain

    def _count_trips(self) -> None:
        v = self.variables
        rung, heading = v["rung"], v["heading"]
        home = rung == 0
        v["round_trips"][home & (heading < 0)] += 1
        heading[home] = 1
        heading[(rung == v["ladder"].size - 1) & (heading > 0)] = -1

    def _learn(self, turn: int, last: bool) -> None:
        """Move the inner temperatures, after rounds that double in length."""
        v = self.variables
        if (turn >= 16 and turn & (turn - 1) == 0) or last:
            lost, tried = v["rejection"]
            if (tried > 0).all():
                v["ladder"][...] = equal_rejection(v["ladder"], lost / tried)
            v["rejection"][...] = 0

    def _rescale(self, factor: npt.NDArray[np.float64]) -> None:
        """Bring momenta to their new temperatures; the difference is heat."""
        state, backend = self.context.state, self.context.backend
        scale = backend.asarray(factor[:, None].astype(state.momenta.dtype))
        state.momenta *= scale
        twice = state.sums[0].copy()
        self.context.engine.kinetic(state.momenta, state.sums[0])
        state.sums[2] += 0.5 * (state.sums[0] - twice)

    def scalars(self) -> dict[str, npt.NDArray[np.float64]]:
        """Where every replica is, and how often it has swapped."""
        self._follow()
        v = self.variables
        values = self._companion.scalars()
        own = {
            "rung": v["rung"],
            "round_trips": v["round_trips"],
            "swap_attempts": v["attempts"],
            "swap_accepts": v["accepts"],
            "target_temperature": self._temperature,
        }
        if self._batches is not None:
            own["swap_noise"] = v["swap_noise"]
            variance = v["swap_noise"] / np.maximum(v["attempts"], 1)
            own["swap_bias"] = self._remaining(variance)
        return values | {name: np.array(x, np.float64) for name, x in own.items()}
