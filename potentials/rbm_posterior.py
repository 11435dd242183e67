r"""The weights of a Boltzmann machine as positions: the data's negative log likelihood.

.. math::
    U(W, a, b) = -\sum_n \ln P(v_n | W, a, b) - \ln \mathrm{prior}, \qquad
    \frac{\partial U}{\partial W_{ij}} = N \langle v_i h_j \rangle
    - \sum_n v_{ni}\, E[h_j | v_n] - \partial \ln \mathrm{prior}

The first average is over the equilibrium of the machine: its estimate is the choice.

============  ============================================================  ========
estimator     <v h> of a force                                              ``full``
============  ============================================================  ========
"exact"       enumeration of the smaller side, at most 20 units             True
"tap"         derivative of the extended mean field of `order` 1, 2 or 3    True
"cd"          ``sweeps`` of block Gibbs from the data (CD-k)                False
"ais"         weighted end points of ``chains`` annealed chains             False
============  ============================================================  ========

Numbers drawn for a force depend on (seed, replica, force call) only, so that a run
resumes bit for bit.  Persistent chains depend on the whole past: they live in
`mdnet.potentials.rbm_training.RBMTrainer`, which saves them.

``energy`` and ``gradient`` use the exact ln Z where the smaller side has at most 20
units.  "tap" is the exception: there U *is* the mean-field energy, whose exact gradient
the forces are.  Beyond 20 units the energy is the mean field's, or with "ais" that of
annealed chains with the numbers of force call 0: a fixed function of the weights.

References
----------
G. E. Hinton, Neural Comput. 14, 1771 (2002), doi:10.1162/089976602760128018 (CD).
M. Gabrie, E. W. Tramel, F. Krzakala, Adv. Neural Inf. Process. Syst. 28 (2015),
arXiv:1506.02914 (TAP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials import _rbm_exact, _rbm_sampling, _rbm_tap
from mdnet.potentials._checks import fingerprint, positive_integer
from mdnet.potentials._rbm_arrays import Averages, Machines, pack, softplus_sum, unpack
from mdnet.potentials._rbm_checks import binary, check_mean_field
from mdnet.potentials._rbm_results import weigh
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.minibatch import check_batch, rows
from mdnet.potentials.priors import FlatPrior, GaussianPrior, Prior
from mdnet.potentials.rbm import RBM
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["RBMPosterior", "log_odds", "machine_layout"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)
_ELEMENTS = 2**22  # numbers of one slice of the data, all replicas together


def machine_layout(n_visible: int, n_hidden: int) -> Layout:
    """Ordered ``{name: (slice, shape)}`` of W, a and b inside q."""
    end = n_visible * n_hidden
    return {
        "weights": (slice(0, end), (n_visible, n_hidden)),
        "visible_bias": (slice(end, end + n_visible), (n_visible,)),
        "hidden_bias": (
            slice(end + n_visible, end + n_visible + n_hidden),
            (n_hidden,),
        ),
    }


def log_odds(data: Array) -> Array:
    """Log odds of the columns' means, half a count added to either side."""
    ones = data.sum(axis=0) + 0.5
    return np.log(ones / (data.shape[0] + 1.0 - ones))


@dataclass(frozen=True, slots=True)
class _Settings:
    estimator: str
    sweeps: int
    batch_size: int | None
    order: int
    damping: float
    tolerance: float
    chains: int
    steps: int


class RBMPosterior(Potential):
    """Energy of the weights and biases of a restricted Boltzmann machine, given data.

    Parameters
    ----------
    data : (N, n_v)
        Rows of 0 and 1.
    n_hidden : int
        n_h.
    estimator : {"exact", "cd", "tap", "ais"}
        Of the equilibrium averages; see the module's table.
    prior : Prior or None
        On all parameters; None for a flat one.
    sweeps : int
        k of "cd".
    batch_size : int, optional
        Of "cd": rows that start the chains of a force, another minibatch for each
        replica and force call; all if None.
    order, damping, tolerance : int, float, float
        Of "tap", and of energies beyond enumeration; see `RBM.tap`.
    chains, steps : int
        Of "ais".

    Raises
    ------
    PotentialError
        Data that are not 0 and 1, an unknown estimator, "exact" beyond 20 units on the
        smaller side, "pcd", whose chains `RBMTrainer` keeps.  In a run with "tap":
        magnetisations that do not settle.

    Notes
    -----
    Sums are float64 whatever the precision of the forces.  The cost of a force is
    O(R (N + M) n_v n_h) with M = 2^min(n_v, n_h), N k, iterations or chains x steps.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> data = np.array([[0, 0, 1], [1, 1, 0], [1, 1, 1]])
    >>> U = potentials.RBMPosterior(data, n_hidden=2)
    >>> U.size, list(U.layout)
    (11, ['weights', 'visible_bias', 'hidden_bias'])
    """

    def __init__(
        self,
        data: Any,
        n_hidden: int,
        estimator: str = "exact",
        prior: Prior | None = _DEFAULT_PRIOR,
        sweeps: int = 1,
        batch_size: int | None = None,
        order: int = 2,
        damping: float = 0.5,
        tolerance: float = 1e-10,
        chains: int = 100,
        steps: int = 100,
    ) -> None:
        array = np.asarray(data)
        if array.ndim != 2:
            raise PotentialError(
                f"data has shape {array.shape}: expected (N, n_v), one row a datum"
            )
        self._data = binary("data", array, array.shape[1])
        self.n_hidden = positive_integer("n_hidden", n_hidden)
        self._layout = machine_layout(self.n_visible, self.n_hidden)
        self.size = self._layout["hidden_bias"][0].stop
        if estimator == "pcd":
            raise PotentialError(
                "estimator='pcd': persistent chains depend on the whole run and not on "
                "the force call; use potentials.RBMTrainer(data, n_hidden), which "
                "saves them, or estimator='cd' with more sweeps"
            )
        if estimator not in ("exact", "cd", "tap", "ais"):
            raise PotentialError(
                f"estimator={estimator!r}: expected 'exact', 'cd', 'tap' or 'ais'"
            )
        if estimator == "exact":
            _rbm_exact.check_size(self.n_visible, self.n_hidden)
        if batch_size is not None:
            check_batch(batch_size, "shuffle", self.n_data)
            if estimator != "cd":
                raise PotentialError(
                    f"batch_size={batch_size} and estimator={estimator!r}: minibatches "
                    "go with estimator='cd'; leave batch_size out"
                )
        check_mean_field(order, damping)
        if positive_integer("chains", chains) < 2:
            raise PotentialError("chains=1: expected at least 2")
        self.prior = FlatPrior() if prior is None else prior
        self.prior.check(self._layout)
        self.settings = _Settings(
            estimator,
            positive_integer("sweeps", sweeps),
            batch_size,
            order,
            float(damping),
            float(tolerance),
            chains,
            positive_integer("steps", steps),
        )

    @property
    def n_data(self) -> int:
        """Number of rows N of the data."""
        return int(self._data.shape[0])

    @property
    def n_visible(self) -> int:
        """Number of visible units n_v."""
        return int(self._data.shape[1])

    @property
    def enumerable(self) -> bool:
        """Whether ln Z can be summed over the states of the smaller side."""
        return min(self.n_visible, self.n_hidden) <= _rbm_exact.MOST_UNITS

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self._layout

    def machine(self, q: Array, temperature: float = 1.0) -> RBM:
        """Return the machine with weights ``q`` (D,)."""
        xp = evaluator_xp(q)
        row = xp.asarray(q)
        if row.shape != (self.size,):
            raise PotentialError(
                f"q has shape {row.shape}: expected ({self.size},), one replica's"
            )
        one = unpack(row[None], self.n_visible, self.n_hidden)
        return RBM(one.weights[0], one.visible[0], one.hidden[0], temperature)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; ``seed`` is the key of the chains."""
        return _RBMEvaluator(self, backend, seed)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start (R, D): weights of sd .01, visible biases at the data's log odds."""
        q = random.normals(
            seed, np.arange(replicas), 0, random.STREAM_INITIAL, self.size
        )
        q *= 0.01
        q[:, self._layout["visible_bias"][0]] = log_odds(self._data)
        q[:, self._layout["hidden_bias"][0]] = 0.0
        return q

    def describe(self) -> dict[str, Any]:
        """JSON-able settings, with a digest of the data."""
        s = self.settings
        used: dict[str, dict[str, Any]] = {
            "exact": {},
            "cd": {"sweeps": s.sweeps, "batch_size": s.batch_size},
            "tap": {},
            "ais": {"chains": s.chains, "steps": s.steps},
        }
        settings = used[s.estimator]
        if s.estimator == "tap" or not self.enumerable:
            settings |= {
                "order": s.order,
                "damping": s.damping,
                "tolerance": s.tolerance,
            }
        return {
            "name": "RBMPosterior",
            "n_hidden": self.n_hidden,
            "estimator": s.estimator,
            **settings,
            "prior": self.prior.describe(),
            "data": fingerprint(self._data),
        }


class _RBMEvaluator:
    """Clamped sums of the data less N times the averages of the machine."""

    polynomial: tuple[float, float, float, float] | None = None
    __slots__ = ("_base", "_data", "_model", "_seed", "_work", "_xp", "full")

    def __init__(self, model: RBMPosterior, backend: Backend, seed: int) -> None:
        random.seed_words(seed)
        self._model, self._xp, self._seed = model, backend.xp, seed
        self._data = backend.asarray(model._data)
        self._base = backend.asarray(log_odds(model._data))
        self.full = model.settings.estimator in ("exact", "tap")

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        estimator = self._model.settings.estimator
        if self.full or estimator == "ais":
            log_z, means = self._equilibrium(positions, estimator, call)
            self._write(positions, means, -1.0, out)
        else:
            log_z = None
            self._contrastive(positions, call, out)
        if energies is None:
            return
        if self.full and log_z is not None:
            self._energy(positions, log_z, energies)
        else:
            self.energies(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        source = self._source()
        if source == "exact":
            log_z = _rbm_exact.log_partition(self._machines(positions), self._xp)
        else:
            log_z, _ = self._equilibrium(positions, source, 0)
        self._energy(positions, log_z, out)

    def gradients(self, positions: Array, out: Array) -> None:
        _, means = self._equilibrium(positions, self._source(), 0)
        self._write(positions, means, 1.0, out)

    def _source(self) -> str:
        """Where U takes its ln Z from; see the module's docstring."""
        estimator = self._model.settings.estimator
        if estimator != "tap" and self._model.enumerable:
            return "exact"
        return "ais" if estimator == "ais" else "tap"

    def _machines(self, positions: Array) -> Machines:
        return unpack(positions, self._model.n_visible, self._model.n_hidden)

    def _equilibrium(
        self, positions: Array, source: str, call: int
    ) -> tuple[Array, Averages]:
        """Logarithms of Z (R,) and averages of the machines."""
        machines, s, xp = self._machines(positions), self._model.settings, self._xp
        if source == "exact":
            return _rbm_exact.enumerated(machines, xp)
        if source == "tap":
            point = _rbm_tap.fixed_point(machines, s.order, xp, s.damping, s.tolerance)
            if s.estimator == "tap" and bool((point.residual > s.tolerance).any()):
                self._complain(point)
            return _rbm_tap.log_partition(machines, point, s.order, xp)
        betas = np.linspace(0.0, 1.0, s.steps + 1)
        logs, log_base, v = _rbm_sampling.annealed(
            machines, self._base, s.chains, betas, call * (s.steps + 1), self._seed, xp
        )
        value, _, _ = weigh(logs, xp)
        share = xp.exp(logs - value[:, None]) / s.chains
        return value + log_base, _rbm_sampling.averages(v, machines, xp, share)

    def _complain(self, point: _rbm_tap.FixedPoint) -> None:
        """Refuse forces that would not be the gradient of the energy."""
        replica = int(point.residual.argmax())
        raise PotentialError(
            f"order={self._model.settings.order}: the magnetisations of replica "
            f"{replica} still change by {float(point.residual[replica]):.1e} after "
            f"{point.iterations} iterations; take more damping, as damping=0.9, or "
            "order=1"
        )

    def _contrastive(self, positions: Array, call: int, out: Array) -> None:
        """Force from ``sweeps`` of block Gibbs that start at the data."""
        machines, xp = self._machines(positions), self._xp
        s, count = self._model.settings, positions.shape[0]
        if s.batch_size is None:
            start = xp.zeros((count, *self._data.shape)) + self._data
        else:
            batch = rows(self._seed, count, call, self._model.n_data, s.batch_size)
            start = self._data[xp.asarray(batch)]
        v = start
        for step in range(call * s.sweeps, (call + 1) * s.sweeps):
            v, _ = _rbm_sampling.sweep(v, machines, step, self._seed, xp)
        clamped = _rbm_sampling.averages(start, machines, xp)
        free = _rbm_sampling.averages(v, machines, xp)
        factor = float(self._model.n_data)
        both, visible, hidden = (
            factor * (a - b) for a, b in zip(clamped, free, strict=True)
        )
        pack(Averages(both, visible, hidden), out)
        prior, layout = self._model.prior, self._model.layout
        out -= prior.gradient(positions, layout, xp)

    def _pieces(self, replicas: int) -> list[Array]:
        step = max(1, _ELEMENTS // (replicas * self._model.n_hidden))
        firsts = range(0, self._data.shape[0], step)
        return [self._data[first : first + step] for first in firsts]

    def _energy(self, positions: Array, log_z: Array, out: Array) -> None:
        machines, xp = self._machines(positions), self._xp
        out[...] = self._model.n_data * log_z
        out -= machines.visible @ self._data.sum(axis=0)
        for v in self._pieces(positions.shape[0]):
            field = _rbm_sampling.hidden_field(v, machines)
            out -= softplus_sum(field, xp)[0].sum(axis=1)
        prior, layout = self._model.prior, self._model.layout
        out += prior.energy(positions, layout, xp)

    def _write(
        self, positions: Array, means: Averages, sign: float, out: Array
    ) -> None:
        """Sign times the gradient, given the averages of the machines."""
        machines, xp = self._machines(positions), self._xp
        count = float(self._model.n_data)
        total = Averages(*(count * mean for mean in means))
        total.visible[...] -= self._data.sum(axis=0)
        for v in self._pieces(positions.shape[0]):
            field = _rbm_sampling.hidden_field(v, machines)
            hidden = 0.5 * (1.0 + xp.tanh(0.5 * field))
            total.both[...] -= v.T @ hidden
            total.hidden[...] -= hidden.sum(axis=1)
        pack(Averages(*(sign * part for part in total)), out)
        prior, layout = self._model.prior, self._model.layout
        out += sign * prior.gradient(positions, layout, xp)
