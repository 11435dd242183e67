r"""A perceptron learns a perceptron: data from a teacher, exact learning curves.

Inputs x are standard normal vectors of N numbers, labels :math:`y = \mathrm{sign}
(B \cdot x)`.  A student w errs on a fraction

.. math::
    \epsilon = \arccos(R)/\pi, \qquad R = w \cdot B/(|w||B|)

of new inputs.  Gibbs learning draws w uniformly from the *version space*, all students
without an error on the P = alpha N examples.  For N to infinity the replica-symmetric
equations, exact here because teacher and student are draws of one law, are

.. math::
    \hat R = \frac{\alpha}{\pi \sqrt{1-R}} \int\! Dt\,
    \frac{e^{-R t^2/2}}{H(\sqrt R t)}, \qquad
    R = \frac{\hat R}{1 + \hat R} \;\text{(sphere)}, \quad
    R = \int\! Dz \tanh(\sqrt{\hat R} z + \hat R) \;\text{(Ising)},

with Dt the standard normal measure and H its upper tail.

==============  ========================================================
equation        code
==============  ========================================================
Delta           ``margin`` = y x.w/sqrt(N)
U(w)            sum over examples of ``cost(Delta)``
version space   `TeacherPerceptron.version_space`
epsilon(alpha)  `gibbs_learning_curve`
==============  ========================================================

References
----------
E. Gardner, B. Derrida, J. Phys. A 22, 1983 (1989), doi:10.1088/0305-4470/22/12/004.
G. Gyorgyi, Phys. Rev. A 41, 7097 (1990), doi:10.1103/PhysRevA.41.7097.
H. S. Seung, H. Sompolinsky, N. Tishby, Phys. Rev. A 45, 6056 (1992),
doi:10.1103/PhysRevA.45.6056.
R. M. Neal, Ann. Stat. 31, 705 (2003), doi:10.1214/aos/1056562461 (slice sampling).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import finite_array, positions_rows, positive_integer
from mdnet.potentials._forms import ArrayEvaluator, Form
from mdnet.potentials.base import Potential
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["TeacherPerceptron", "gibbs_learning_curve"]

Floats = npt.NDArray[np.float64]

_STREAM = random.STREAM_STUDENTS  # and the next
_TEACHER, _INPUTS = 1, 2  # steps of the counters of the data


class TeacherPerceptron(Potential):
    """Errors of a student on examples that a teacher has labelled, as an energy.

    U(w) = sum over examples of cost(Delta), Delta = y x.w/sqrt(N).  Only the direction
    of w has a meaning: run it on a sphere, with ``integrators.Constrained(...,
    norms={"weights": ("tensor", N**0.5)})``, or add a prior.

    Parameters
    ----------
    size : int
        N.
    examples : int
        P = alpha N.
    cost : {"squared_hinge", "logistic"}
        ``max(-Delta, 0)^2/2``, zero in the version space, so that T -> 0 is Gibbs
        learning; or ``ln(1 + e^-Delta)``.
    seed : int
        Of teacher and inputs.

    Attributes
    ----------
    teacher : (N,) float64
        B, of norm sqrt(N).
    inputs : (P, N) float64
    labels : (P,) float64
        -1 or 1.

    Raises
    ------
    PotentialError
        Sizes that are not positive integers, an unknown cost.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.TeacherPerceptron(size=20, examples=30, seed=1)
    >>> U.errors(U.teacher), float(U.energy(U.teacher))
    (array([0]), 0.0)
    """

    def __init__(
        self, size: int, examples: int, cost: str = "squared_hinge", seed: int = 0
    ) -> None:
        self.size = positive_integer("size", size)
        self.examples = positive_integer("examples", examples)
        if cost not in _COSTS:
            raise PotentialError(f"cost={cost!r}: expected one of {', '.join(_COSTS)}")
        self.cost, self.seed = cost, seed
        stream = random.STREAM_INITIAL
        teacher = random.normals(seed, 0, _TEACHER, stream, size)
        self.teacher: Floats = teacher * math.sqrt(size) / np.linalg.norm(teacher)
        rows = np.arange(examples)
        self.inputs: Floats = random.normals(seed, rows, _INPUTS, stream, size)
        self.labels: Floats = np.where(self.inputs @ self.teacher < 0, -1.0, 1.0)
        signed = self.labels[:, None] * self.inputs
        self._rows: Floats = signed / math.sqrt(size)

    @property
    def load(self) -> float:
        """Examples per weight, alpha = P/N."""
        return self.examples / self.size

    @property
    def layout(self) -> Layout:
        """One tensor, "weights" (N,)."""
        return {"weights": (slice(0, self.size), (self.size,))}

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Students of norm sqrt(N) in random directions, (R, N)."""
        return self._normed(super().initial(replicas, seed))

    def _normed(self, w: Floats) -> Floats:
        norms = np.linalg.norm(w, axis=1, keepdims=True)
        return np.asarray(w * (math.sqrt(self.size) / norms), np.float64)

    def overlap(self, q: Any) -> Floats:
        """R of students (R, N) with the teacher, (R,)."""
        w, _ = positions_rows(q, self.size)
        norms = np.linalg.norm(w, axis=1) * math.sqrt(self.size)
        return np.asarray(w @ self.teacher / norms, np.float64)

    def generalization_error(self, q: Any) -> Floats:
        """Chance to err on a new input, arccos(R)/pi, (R,)."""
        return np.arccos(np.clip(self.overlap(q), -1.0, 1.0)) / np.pi

    def errors(self, q: Any) -> npt.NDArray[np.int64]:
        """Examples that students (R, N) get wrong, (R,)."""
        w, _ = positions_rows(q, self.size)
        return np.asarray((w @ self._rows.T < 0).sum(axis=1), np.int64)

    def version_space(
        self,
        replicas: int,
        sweeps: int = 500,
        start: Any = None,
        seed: int = 0,
        first_step: int = 0,
    ) -> Floats:
        """Draw students uniformly from the version space.

        Gibbs sweeps of a standard normal vector within the half spaces Delta > 0: its
        direction is uniform there.  One coordinate after the other is drawn by a
        slice of its truncated normal law, compiled.  The teacher, from which chains
        start, is itself such a draw; ``sweeps`` makes students independent of it: a
        few hundred for N = 100 and alpha up to 5.

        Parameters
        ----------
        replicas : int
            R.
        sweeps : int
        start : (R, N), optional
            Students without error; the teacher if None.
        seed, first_step : int
            Counters; go on with ``start`` = what was returned and ``first_step`` =
            sweeps done.

        Returns
        -------
        (R, N) float64, of norm sqrt(N)

        Raises
        ------
        PotentialError
            A start that errs on an example.
        """
        from mdnet.kernels import spins

        given = self.teacher if start is None else start
        w, _ = positions_rows(given, self.size)
        w = np.array(
            np.broadcast_to(w, (positive_integer("replicas", replicas), self.size))
        )
        columns = np.ascontiguousarray(self._rows.T)
        margins = w @ columns
        if (margins < 0).any():
            wrong = int((margins < 0).any(axis=1).argmax())
            raise PotentialError(
                f"start: student {wrong} errs on {int((margins[wrong] < 0).sum())} "
                "examples: expected none; leave start out to begin at the teacher"
            )
        key = np.array(random.seed_words(seed), np.uint64)
        count = positive_integer("sweeps", sweeps)
        inverses = np.divide(
            1.0, columns, out=np.zeros_like(columns), where=columns != 0
        )
        spins.cone(w, margins, columns, inverses, count, first_step, _STREAM, key)
        return self._normed(w)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        return ArrayEvaluator(
            Form("", "rows", (self._rows,), _COSTS[self.cost]), backend
        )

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "TeacherPerceptron",
            "size": self.size,
            "examples": self.examples,
            "cost": self.cost,
            "seed": self.seed,
        }


def _squared_hinge(xp: Any, q: Array, rows: Array) -> tuple[Array, Array]:
    short = xp.minimum(q @ rows.T, 0)
    return 0.5 * (short * short).sum(axis=1), short @ rows


def _logistic(xp: Any, q: Array, rows: Array) -> tuple[Array, Array]:
    margin = q @ rows.T
    small = xp.exp(-xp.abs(margin))
    cost = xp.maximum(-margin, 0) + xp.log1p(small)
    wrong = xp.where(margin >= 0, small, 1) / (1 + small)  # 1/(1 + e^Delta)
    return cost.sum(axis=1), -(wrong @ rows)


_COSTS = {"squared_hinge": _squared_hinge, "logistic": _logistic}


# --- exact learning curves ------------------------------------------------------------

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(200)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)
_SLIGHT = 1e-12  # distance from R = 1 at which learning is perfect


def _tail(x: Floats) -> Floats:
    """H(x): chance of a standard normal number above x."""
    return np.array([0.5 * math.erfc(value / math.sqrt(2.0)) for value in x])


def _drive(R: float, load: float) -> float:
    """R-hat that the examples exert at overlap R."""
    ratio = np.exp(-0.5 * R * _NODES**2) / _tail(math.sqrt(R) * _NODES)
    return load / (math.pi * math.sqrt(1.0 - R)) * float(_WEIGHTS @ ratio)


def _response(drive: float, weights: str) -> float:
    """Overlap of students under R-hat, without examples."""
    if weights == "spherical":
        return drive / (1.0 + drive)
    return float(_WEIGHTS @ np.tanh(math.sqrt(drive) * _NODES + drive))


def _ising_entropy(R: float, drive: float, load: float) -> float:
    """Logarithm of the number of students without error, over N."""
    x = np.abs(math.sqrt(drive) * _NODES + drive)
    prior = float(_WEIGHTS @ (x + np.log1p(np.exp(-2.0 * x))))
    tail = _tail(math.sqrt(R / (1.0 - R)) * _NODES)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(tail > 0, tail * np.log(tail), 0.0)
    return prior - 0.5 * drive * (1.0 + R) + 2.0 * load * float(_WEIGHTS @ terms)


def _overlap(load: float, weights: str) -> float:
    """Smallest solution R of the two equations: where a rising overlap stops."""
    R = 0.0
    for _ in range(100_000):
        drive = _drive(R, load)
        new = _response(drive, weights)
        if new > 1.0 - _SLIGHT:
            return 1.0
        if abs(new - R) < 1e-13:
            break
        R = new
    if weights == "ising" and _ising_entropy(R, drive, load) < 0.0:
        return 1.0  # fewer than one other student: the teacher alone is left
    return R


def gibbs_learning_curve(load: Any, weights: str = "spherical") -> Any:
    """Exact generalisation error of Gibbs learning, N to infinity.

    Parameters
    ----------
    load : float or array
        alpha = P/N >= 0.
    weights : {"spherical", "ising"}
        Of teacher and student: real of fixed norm, or -1 and 1.  With "ising" learning
        turns perfect at once, at alpha = 1.245.

    Returns
    -------
    float or array
        epsilon, shaped as ``load``.

    Raises
    ------
    PotentialError
        Loads below zero, or unknown weights.

    Examples
    --------
    >>> from mdnet import potentials
    >>> potentials.gibbs_learning_curve([0.5, 1, 2, 5]).round(4)
    array([0.4096, 0.3384, 0.2403, 0.118 ])
    """
    loads = finite_array("load", load)
    if (loads < 0).any():
        raise PotentialError(f"load={load!r}: expected numbers >= 0")
    if weights not in ("spherical", "ising"):
        raise PotentialError(f"weights={weights!r}: expected 'spherical' or 'ising'")
    error = [math.acos(_overlap(float(a), weights)) / math.pi for a in loads.ravel()]
    out = np.array(error).reshape(loads.shape)
    return out if out.ndim else float(out)
