r"""Restricted Boltzmann machines of binary units: energies, sums, samples.

.. math::
    E(v, h) = -a \cdot v - b \cdot h - v W h, \qquad P(v, h) = e^{-E/T}/Z

Here the units are the state and the weights are given.  For weights that move, see
`mdnet.potentials.rbm_posterior`.

==============  =======================================================
equation        code
==============  =======================================================
W               ``weights`` (n_v, n_h)
a, b            ``visible_bias``, ``hidden_bias``
E(v, h)         `RBM.energy`
F(v)            `RBM.free_energy`: -T ln sum_h e^(-E(v, h)/T)
ln Z            `RBM.log_partition`
==============  =======================================================

References
----------
P. Smolensky, in: Parallel Distributed Processing, MIT Press (1986), ch. 6.
G. E. Hinton, Neural Comput. 14, 1771 (2002), doi:10.1162/089976602760128018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials import _rbm_exact, _rbm_sampling, _rbm_tap
from mdnet.potentials._checks import fingerprint, positive_integer, temperature_value
from mdnet.potentials._rbm_arrays import Machines, softplus_sum
from mdnet.potentials._rbm_checks import binary, check_mean_field, tensor
from mdnet.potentials._rbm_results import (
    LogPartition,
    RBMAverages,
    TAPSolution,
    weigh,
)
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["RBM"]


@dataclass(frozen=True, slots=True, eq=False)
class RBM:
    """A restricted Boltzmann machine of units 0 and 1.

    Parameters
    ----------
    weights : (n_v, n_h)
        W; NumPy or CuPy.
    visible_bias : (n_v,), optional
        a; zeros if None.
    hidden_bias : (n_h,), optional
        b; zeros if None.
    temperature : float
        T in P = e^(-E/T)/Z.  P at temperature T with W, a, b is P at temperature 1 with
        W/T, a/T, b/T.

    Raises
    ------
    PotentialError
        Shapes that do not fit, values that are not finite, a temperature <= 0.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> machine = potentials.RBM(np.zeros((3, 2)))
    >>> bool(np.isclose(machine.log_partition().value, 5 * np.log(2.0)))
    True
    """

    weights: Array
    visible_bias: Array | None = None
    hidden_bias: Array | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        xp = evaluator_xp(self.weights)
        weights = tensor("weights", self.weights, xp)
        if weights.ndim != 2 or not weights.size:
            raise PotentialError(
                f"weights has shape {weights.shape}: expected (n_v, n_h), one row a "
                "visible unit, as RBM(numpy.zeros((784, 100)))"
            )
        object.__setattr__(self, "weights", weights)
        for name, size in zip(
            ("visible_bias", "hidden_bias"), weights.shape, strict=True
        ):
            given = getattr(self, name)
            bias = xp.zeros(size) if given is None else tensor(name, given, xp)
            if bias.shape != (size,):
                raise PotentialError(
                    f"{name} has shape {bias.shape}: expected ({size},) for weights of "
                    f"shape {weights.shape}"
                )
            object.__setattr__(self, name, bias)
        object.__setattr__(self, "temperature", temperature_value(self.temperature))

    @property
    def n_visible(self) -> int:
        """Number of visible units n_v."""
        return int(self.weights.shape[0])

    @property
    def n_hidden(self) -> int:
        """Number of hidden units n_h."""
        return int(self.weights.shape[1])

    def machines(self) -> Machines:
        """Parameters over T with a replica axis in front."""
        three: tuple[Array, ...] = (self.weights, self.visible_bias, self.hidden_bias)
        one = Machines(*(part[None] for part in three))
        return one if self.temperature == 1.0 else one.times(1.0 / self.temperature)

    def energy(self, v: Any, h: Any) -> Array:
        """E(v, h) of states (n, n_v) and (n, n_h), (n,)."""
        xp = evaluator_xp(self.weights)
        v = binary("v", v, self.n_visible, xp)
        h = binary("h", h, self.n_hidden, xp)
        if v.shape[0] != h.shape[0]:
            raise PotentialError(
                f"v has {v.shape[0]} rows and h has {h.shape[0]}: expected as many"
            )
        pair = ((v @ self.weights) * h).sum(axis=1)
        return -(v @ self.visible_bias + h @ self.hidden_bias + pair)

    def free_energy(self, v: Any) -> Array:
        """F(v) = -T ln sum_h e^(-E(v, h)/T) of visible states (n, n_v), (n,)."""
        return -self.temperature * self._log_weight(v)

    def _log_weight(self, v: Any) -> Array:
        """-F(v)/T, (n,)."""
        xp = evaluator_xp(self.weights)
        v = binary("v", v, self.n_visible, xp)
        one = self.machines()
        field = _rbm_sampling.hidden_field(v[None], one)[0]
        return v @ one.visible[0] + softplus_sum(field, xp)[0]

    def log_probability(self, v: Any, log_partition: Any = None) -> Array:
        """Logarithm of P(v) of visible states (n, n_v), (n,).

        ``log_partition`` is a number or a `LogPartition`; the exact one if None.
        """
        log_z = self.log_partition() if log_partition is None else log_partition
        return self._log_weight(v) - float(log_z)

    def hidden_means(self, v: Any) -> Array:
        """E[h | v], (n, n_h)."""
        xp = evaluator_xp(self.weights)
        v = binary("v", v, self.n_visible, xp)
        field = _rbm_sampling.hidden_field(v[None], self.machines())[0]
        return 0.5 * (1.0 + xp.tanh(0.5 * field))

    def visible_means(self, h: Any) -> Array:
        """E[v | h], (n, n_v)."""
        xp = evaluator_xp(self.weights)
        h = binary("h", h, self.n_hidden, xp)
        field = _rbm_sampling.visible_field(h[None], self.machines())[0]
        return 0.5 * (1.0 + xp.tanh(0.5 * field))

    def averages(self) -> RBMAverages:
        """Exact averages and ln Z, by enumeration of the smaller side.

        Raises
        ------
        PotentialError
            More than 20 units on both sides.
        """
        _rbm_exact.check_size(self.n_visible, self.n_hidden)
        xp = evaluator_xp(self.weights)
        log_z, means = _rbm_exact.enumerated(self.machines(), xp)
        return RBMAverages(
            float(log_z[0]), means.visible[0], means.hidden[0], means.both[0]
        )

    def log_partition(self, method: str = "exact", **options: Any) -> LogPartition:
        """Logarithm of Z at the machine's temperature.

        Parameters
        ----------
        method : {"exact", "ais", "tap"}
            Enumeration of the smaller side, `ais` or `tap`.
        **options
            Those of `ais` or `tap`.

        Raises
        ------
        PotentialError
            Unknown method, or a machine too large to enumerate.
        """
        if method == "ais":
            return self.ais(**options)
        if method == "tap":
            point = self.tap(**options)
            return LogPartition(
                point.log_partition, point.order_difference, np.inf, "tap"
            )
        if method != "exact":
            raise PotentialError(f"method={method!r}: expected 'exact', 'ais' or 'tap'")
        _rbm_exact.check_size(self.n_visible, self.n_hidden)
        xp = evaluator_xp(self.weights)
        log_z = _rbm_exact.log_partition(self.machines(), xp)
        return LogPartition(float(log_z[0]), 0.0, np.inf, "exact")

    def ais(
        self,
        chains: int = 256,
        steps: int = 1000,
        base: Any = None,
        seed: int = 0,
    ) -> LogPartition:
        """Estimate ln Z by annealed importance sampling.

        Parameters
        ----------
        chains : int
            Independent weights, at least 2.
        steps : int
            Temperatures between independent units and the machine.
        base : (n_v,), optional
            Log odds of the independent units, as those of the data's means; the visible
            biases if None.
        seed : int

        Returns
        -------
        LogPartition
            The mean weight is unbiased; its logarithm is low by stderr^2/2.
        """
        if positive_integer("chains", chains) < 2:
            raise PotentialError("chains=1: expected at least 2, to know the error")
        xp, one = evaluator_xp(self.weights), self.machines()
        odds = one.visible[0] if base is None else tensor("base", base, xp)
        if odds.shape != (self.n_visible,):
            raise PotentialError(
                f"base has shape {odds.shape}: expected ({self.n_visible},)"
            )
        betas = np.linspace(0.0, 1.0, positive_integer("steps", steps) + 1)
        logs, log_base, _ = _rbm_sampling.annealed(
            one, odds, chains, betas, 0, seed, xp
        )
        value, error, n_eff = weigh(logs, xp)
        return LogPartition(
            float(value[0] + log_base), float(error[0]), float(n_eff[0]), "ais"
        )

    def tap(
        self,
        order: int = 2,
        damping: float = 0.5,
        tolerance: float = 1e-10,
        iterations: int = 2000,
        start: Any = None,
    ) -> TAPSolution:
        """Extended mean field; see `mdnet.potentials._rbm_tap` for the equations.

        Parameters
        ----------
        order : {1, 2, 3}
            Of the expansion in W: naive mean field, TAP, and one beyond.
        damping : float
            Part of the old magnetisation that is kept, in [0, 1).
        tolerance : float
            Of the largest change at convergence.
        iterations : int
            Most of them; see ``residual``.
        start : (n_v,), optional
            Visible magnetisations, as a datum: which stationary point is found depends
            on it where there are several.  Those of W = 0 if None.

        Raises
        ------
        PotentialError
            An order other than 1, 2, 3, or a damping outside [0, 1).
        """
        check_mean_field(order, damping)
        positive_integer("iterations", iterations)
        xp, one = evaluator_xp(self.weights), self.machines()
        if start is not None:
            start = xp.clip(tensor("start", start, xp), 1e-6, 1.0 - 1e-6)
            if start.shape != (self.n_visible,):
                raise PotentialError(
                    f"start has shape {start.shape}: expected ({self.n_visible},)"
                )
        settings = (damping, tolerance, iterations, start)
        point = _rbm_tap.fixed_point(one, order, xp, *settings)
        value, means = _rbm_tap.log_partition(one, point, order, xp)
        if order > 1:
            lower = _rbm_tap.fixed_point(one, order - 1, xp, *settings)
            less, _ = _rbm_tap.log_partition(one, lower, order - 1, xp)
        else:
            less = softplus_sum(one.visible, xp)[0] + softplus_sum(one.hidden, xp)[0]
        return TAPSolution(
            float(value[0]),
            order,
            abs(float(value[0] - less[0])),
            means.visible[0],
            means.hidden[0],
            means.both[0],
            float(point.residual[0]),
            point.iterations,
        )

    def sample(
        self,
        chains: int,
        sweeps: int,
        start: Any = None,
        seed: int = 0,
        first_step: int = 0,
    ) -> tuple[Array, Array]:
        """Run independent chains of block Gibbs sampling.

        Parameters
        ----------
        chains : int
            C, run side by side.
        sweeps : int
            Each draws h given v, then v given h.
        start : (C, n_v), optional
            Visible units; drawn from their biases alone if None.
        seed, first_step : int
            Counters: ``sample(c, m)`` and then ``sample(c, n, start=v, first_step=m)``
            is ``sample(c, m + n)``, bit for bit.

        Returns
        -------
        v : (C, n_v)
        h : (C, n_h)
            A state of the machine: h is drawn given the returned v.
        """
        positive_integer("chains", chains)
        xp, one = evaluator_xp(self.weights), self.machines()
        if start is None:
            field = xp.zeros((1, chains, self.n_visible)) + one.visible
            v = _rbm_sampling.draw(field, 0, _rbm_sampling.ANNEALED, seed, xp)
        else:
            v = binary("start", start, self.n_visible, xp)[None]
            if v.shape[1] != chains:
                raise PotentialError(
                    f"start has {v.shape[1]} rows and chains={chains}: expected as many"
                )
        for step in range(first_step, first_step + positive_integer("sweeps", sweeps)):
            v, _ = _rbm_sampling.sweep(v, one, step, seed, xp)
        field = _rbm_sampling.hidden_field(v, one)
        h = _rbm_sampling.draw(
            field, first_step + sweeps, _rbm_sampling.CHAINS, seed, xp
        )
        return v[0], h[0]

    def pseudo_log_likelihood(self, v: Any) -> Array:
        """Sum over units of ln P(v_i | all others), of states (n, n_v), (n,).

        Needs no Z: ln logistic((F(v with v_i turned over) - F(v))/T).
        """
        xp, one = evaluator_xp(self.weights), self.machines()
        v = binary("v", v, self.n_visible, xp)
        field = _rbm_sampling.hidden_field(v[None], one)[0]
        inside = softplus_sum(field, xp)[0]
        total = xp.zeros(v.shape[0])
        for i in range(self.n_visible):
            turn = 1.0 - 2.0 * v[:, i]
            moved = softplus_sum(field + turn[:, None] * one.weights[0, i], xp)[0]
            gain = moved - inside + turn * one.visible[0, i]
            total -= xp.logaddexp(0.0, gain)
        return total

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        host = [_host(x) for x in (self.weights, self.visible_bias, self.hidden_bias)]
        return {
            "kind": "RBM",
            "weights": fingerprint(host[0]),
            "visible_bias": fingerprint(host[1]),
            "hidden_bias": fingerprint(host[2]),
            "temperature": self.temperature,
        }


def _host(x: Array) -> np.ndarray[Any, Any]:
    host: np.ndarray[Any, Any] = x if isinstance(x, np.ndarray) else x.get()
    return host
