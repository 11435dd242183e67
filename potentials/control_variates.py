r"""Control variates: estimates of the force whose noise cancels near a known point.

With F_B(q) the estimate of a batch B and F(q) the force of all data, each of

====================================  ==========  ===================================
estimate                              name        what it keeps
====================================  ==========  ===================================
F_B(q) - F_B(a) + F(a)                ``fixed``   a point a, chosen once
the same, a = q every ``refresh``     ``svrg``    the last a, and F(a)
calls
F_b(q) - T_b + mean(T)                ``saga``    T_b = F_b where batch b was seen last
====================================  ==========  ===================================

has the mean F(q) at every q, whatever is kept, and a variance that falls as the square
of the distance from where that was measured.  What is kept depends on the past: it is
in ``variables``, for the restart.

References
----------
J. Baker, P. Fearnhead, E. B. Fox, C. Nemeth, "Control variates for stochastic gradient
MCMC", Stat. Comput. 29, 599 (2019), doi:10.1007/s11222-018-9826-2.
K. A. Dubey, S. J. Reddi, S. A. Williamson, B. Poczos, A. J. Smola, E. P. Xing,
"Variance reduction in stochastic gradient Langevin dynamics", NIPS 2016.
R. Johnson, T. Zhang, "Accelerating stochastic gradient descent using predictive
variance reduction", NIPS 2013.
A. Defazio, F. Bach, S. Lacoste-Julien, "SAGA: a fast incremental gradient method",
NIPS 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import backend as _backend
from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.typing import Array

__all__ = ["Anchored", "Control", "Tabulated", "force_variance", "make_control", "mode"]

_EVERYONE = 2**32 - 1  # replica whose counters choose among the batches of a table
_LARGEST = 2**33  # bytes of a table
_APART = 1_000_003  # force calls this far apart belong to different epochs


@dataclass(frozen=True, slots=True)
class Control:
    """Which control variate, and its settings.

    Attributes
    ----------
    kind : {"fixed", "svrg", "saga"}
    refresh : int
        Force calls between anchors of "svrg".
    """

    kind: str
    refresh: int


def make_control(
    kind: Any, reference: Any, refresh: Any, order: str, batch: int, n_data: int
) -> Control | None:
    """Check the settings of a control variate; None for none.

    Raises
    ------
    PotentialError
        An unknown kind, settings of another kind, or, for "saga", batches that do not
        divide the data or are not drawn independently.
    """
    if kind not in (None, "fixed", "svrg", "saga"):
        raise PotentialError(
            f"control_variate={kind!r}: expected None, 'fixed' (one reference point), "
            "'svrg' (a point renewed every refresh= calls) or 'saga' (a table)"
        )
    if reference is not None and kind != "fixed":
        raise PotentialError(
            f"reference= given with control_variate={kind!r}: expected it with "
            "minibatch(control_variate='fixed', reference=q) only"
        )
    if refresh is not None and kind != "svrg":
        raise PotentialError(
            f"refresh={refresh!r} given with control_variate={kind!r}: expected it "
            "with minibatch(control_variate='svrg', refresh=calls) only"
        )
    if kind is None:
        return None
    if refresh is None:
        refresh = max(1, n_data // batch)
    integer = isinstance(refresh, (int, np.integer)) and not isinstance(refresh, bool)
    if not integer or refresh < 1:
        raise PotentialError(
            f"refresh={refresh!r}: expected a number of force calls >= 1, e.g. "
            f"refresh={max(1, n_data // batch)}, an epoch"
        )
    if kind == "saga" and order != "replacement":
        raise PotentialError(
            f"order={order!r} with control_variate='saga': its batches are those of a "
            "fixed partition, each call an independent one; say order='replacement'"
        )
    if kind == "saga" and n_data % batch:
        fit = [n for n in range(1, n_data + 1) if n_data % n == 0]
        near = sorted(fit, key=lambda n: abs(n - batch))[:3]
        raise PotentialError(
            f"batch_size={batch} with control_variate='saga': expected a divisor of "
            f"the {n_data} rows, such as {', '.join(map(str, sorted(near)))}, so that "
            "the table's batches cover the data; or use control_variate='svrg'"
        )
    return Control(kind, int(refresh))


def mode(potential: Any, steps: int = 500) -> Array:
    """A minimum of U by L-BFGS from ``potential.initial(1, seed=0)``, (D,) float64.

    Parameters
    ----------
    potential : Potential
    steps : int
        Most iterations.
    """
    from scipy.optimize import minimize

    def both(q: Array) -> tuple[float, Array]:
        energy, gradient = potential.energy_and_gradient(q)
        return float(energy), np.asarray(gradient, np.float64)

    start = np.asarray(potential.initial(1, seed=0)[0], np.float64)
    found = minimize(
        both, start, jac=True, method="L-BFGS-B", options={"maxiter": int(steps)}
    )
    best: Array = found.x
    return best


class Anchored:
    """Forces F_B(q) - F_B(a) + F(a), the anchor a fixed or renewed on a schedule.

    The anchor is the position at the last force call that is a multiple of
    ``refresh``, whose force is exact.  Costs two batches a call, and all data at each
    new anchor.

    Parameters
    ----------
    inner : Evaluator
        Estimates by batches.
    backend : Backend
    replicas, size : int
    refresh : int or None
        None for an anchor that stays.
    reference : (D,) or (R, D) array, optional
        That anchor.

    Attributes
    ----------
    variables : dict of arrays
        All that a bitwise restart needs; written in place.
    """

    full = False

    def __init__(
        self,
        inner: Any,
        backend: Backend,
        replicas: int,
        size: int,
        refresh: int | None,
        reference: Array | None = None,
    ) -> None:
        self.polynomial: tuple[float, float, float, float] | None = None
        self._inner, self._xp, self._refresh = inner, backend.xp, refresh
        shape = replicas, size
        self._anchor = backend.zeros(shape, backend.state_dtype)
        self._pull = backend.zeros(shape, backend.force_dtype)
        self._spare = backend.zeros(shape, backend.force_dtype)
        self._depth = backend.zeros((replicas,), np.float64)
        self._lost = backend.zeros((replicas,), np.float64)
        self._epoch = np.full(1, -1, np.int64)
        self._reference = reference
        self.variables: dict[str, Array] = {}
        if refresh is not None:
            self.variables = {
                "control_anchor": self._anchor,
                "control_force": self._pull,
                "control_energy": self._depth,
                "control_epoch": self._epoch,
            }

    def anchor(self, positions: Array) -> None:
        """Put the anchor at ``positions`` (R, D)."""
        self._anchor[...] = positions
        self._inner.gradients(self._anchor, self._pull)
        self._xp.negative(self._pull, out=self._pull)
        self._inner.energies(self._anchor, self._depth)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write the estimate of -dU/dq at force call ``call``, and that of U."""
        if self._refresh is None:
            if self._epoch[0] < 0:
                self.anchor(self._xp.asarray(self._reference))
                self._epoch[0] = 0
        elif call % self._refresh == 0 or call // self._refresh != self._epoch[0]:
            self.anchor(positions)
            self._epoch[0] = call // self._refresh
            out[...] = self._pull
            if energies is not None:
                energies[...] = self._depth
            return
        self.estimate(positions, out, call, energies)

    def estimate(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """As `forces`, the anchor left where it is."""
        self._inner.forces(positions, out, call, energies)
        lost = None if energies is None else self._lost
        self._inner.forces(self._anchor, self._spare, call, lost)
        out -= self._spare
        out += self._pull
        if energies is not None:
            energies -= self._lost
            energies += self._depth

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        self._inner.energies(positions, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._inner.gradients(positions, out)


class Tabulated:
    """Forces F_b(q) - T_b + mean(T) of batches b of a partition, one drawn a call.

    The table holds the force of each batch where it was drawn last, and is filled at
    the first call, at the cost of all data.  An entry is replaced when the *next* call
    comes, so that to ask again for a call gives the same answer.

    Parameters
    ----------
    inner : Evaluator
        Whose force calls 0 .. C - 1 are the batches of the partition.
    backend : Backend
    replicas, size : int
    seed : int
        Key of the draws.
    batches : int
        C.

    Attributes
    ----------
    variables : dict of arrays
        All that a bitwise restart needs; written in place.

    Raises
    ------
    PotentialError
        A table beyond 8 GiB.
    """

    full = False

    def __init__(
        self,
        inner: Any,
        backend: Backend,
        replicas: int,
        size: int,
        seed: int,
        batches: int,
    ) -> None:
        self.polynomial: tuple[float, float, float, float] | None = None
        bytes_ = batches * replicas * size * backend.force_dtype.itemsize
        if bytes_ > _LARGEST:
            raise PotentialError(
                f"control_variate='saga': the table of {batches} batches, {replicas} "
                f"replicas and {size} parameters takes {bytes_ / 2**30:.1f} GiB, "
                "expected at most 8; take larger batches, or control_variate='svrg'"
            )
        self._inner, self._seed, self._batches = inner, seed, batches
        self._xp = backend.xp
        shape, kind = (replicas, size), backend.force_dtype
        self._table = backend.zeros((replicas, batches, size), kind)
        self._mean = backend.zeros(shape, np.float64)
        self._latest = backend.zeros(shape, kind)
        self._place = np.full(2, -1, np.int64)  # call and batch of the latest force
        self.variables = {
            "control_table": self._table,
            "control_mean": self._mean,
            "control_latest": self._latest,
            "control_place": self._place,
        }

    def anchor(self, positions: Array) -> None:
        """Fill the table at ``positions`` (R, D)."""
        for b in range(self._batches):
            self._inner.forces(positions, self._latest, b)
            self._table[:, b] = self._latest
        self._mean[...] = self._table.mean(axis=1, dtype=np.float64)
        self._place[:] = -1

    def _drawn(self, call: int) -> int:
        word = random.bits(self._seed, _EVERYONE, call, random.STREAM_BATCH, 1)[0]
        return (int(word) * self._batches) >> 32

    def _commit(self) -> None:
        """Enter the latest force into the table."""
        b = int(self._place[1])
        if b < 0:
            return
        old = self._table[:, b].astype(np.float64)
        self._mean += (self._latest - old) / self._batches
        self._table[:, b] = self._latest
        self._place[1] = -1

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write the estimate of -dU/dq at force call ``call``, and that of U."""
        if call != self._place[0]:
            if self._place[0] < 0:
                self.anchor(positions)
            self._commit()
        self.estimate(positions, out, call, energies)
        self._place[:] = call, self._drawn(call)

    def estimate(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """As `forces`, the table left as it is."""
        b = self._drawn(call)
        self._inner.forces(positions, self._latest, b, energies)
        out[...] = self._mean + (self._latest - self._table[:, b])

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        self._inner.energies(positions, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._inner.gradients(positions, out)


def force_variance(
    potential: Any, q: Any, calls: int = 64, seed: int = 0, anchor: Any = None
) -> Array:
    r"""Measure the noise of minibatch forces: the trace of its covariance.

    :math:`\operatorname{tr} C = \langle |F_B(q) - F(q)|^2 \rangle` over batches of
    different epochs.  Batches that heat by hC/2 heat by that much less as this falls.

    Parameters
    ----------
    potential : Potential
        From ``U.minibatch(...)``, with or without a control variate.
    q : (R, D) or (D,) array
        Where.
    calls : int
        Batches, at least 1.
    seed : int
        Key of the batches.
    anchor : (R, D) or (D,) array, optional
        Where the anchor of "svrg" or the table of "saga" was taken: at ``q`` if not
        given, where their noise vanishes.  "fixed" keeps its own reference.

    Returns
    -------
    (R,) or () float64
        Square of a force.

    Raises
    ------
    PotentialError
        A potential without minibatches, or shapes that do not fit.

    Examples
    --------
    >>> from mdnet import potentials
    >>> X = np.linspace(-1.0, 1.0, 40)[:, None]
    >>> U = potentials.Posterior(
    ...     potentials.MLP([1, 1]), "gaussian", data=(X, 2 * X[:, 0])
    ... )
    >>> q, start = np.array([2.1, 0.1]), np.array([2.0, 0.0])
    >>> plain = potentials.force_variance(U.minibatch(8), q)
    >>> svrg = U.minibatch(8, control_variate="svrg")
    >>> bool(potentials.force_variance(svrg, q, anchor=start) <= plain)
    True
    """
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
        raise PotentialError(f"calls={calls!r}: expected a number of batches >= 1")
    size = potential.size

    def rows(name: str, given: Any) -> Array:
        points = np.ascontiguousarray(np.atleast_2d(np.asarray(given, np.float64)))
        if points.ndim != 2 or points.shape[1] != size:
            raise PotentialError(
                f"{name} has shape {np.shape(given)}: expected (R, {size}) or ({size},)"
            )
        return points

    points = rows("q", q)
    backend = _backend.resolve("cpu", "double")
    evaluator = potential.evaluator(backend, len(points), seed)
    if evaluator.full:
        raise PotentialError(
            "potential: its forces use all data and have no noise; pass "
            "U.minibatch(batch_size)"
        )
    exact, out = np.empty_like(points), np.empty_like(points)
    evaluator.gradients(points, exact)
    estimate = evaluator.forces
    if getattr(evaluator, "variables", None):
        start = points if anchor is None else rows("anchor", anchor)
        evaluator.anchor(np.ascontiguousarray(np.broadcast_to(start, points.shape)))
        estimate = evaluator.estimate
    total = np.zeros(len(points))
    for call in range(calls):
        estimate(points, out, call * _APART)
        out += exact
        total += np.einsum("rd,rd->r", out, out)
    total /= calls
    return total if np.ndim(q) == 2 else total[0]
