r"""A soft committee learns a soft committee: the exact error, and its plateau.

Outputs are sums of hidden units, :math:`\sigma = \sum_i g(J_i \cdot x/\sqrt N)` for the
student and the same with B for the teacher, :math:`g(u) = \mathrm{erf}(u/\sqrt2)`,
inputs standard normal.  With the order parameters Q = JJ'/N, R = JB'/N, T = BB'/N the
mean of :math:`(\sigma - \zeta)^2/2` over inputs is, for any N,

.. math::
    \epsilon = \frac1\pi \Bigl[ \sum_{ik} a(Q_{ik}, Q_{ii}, Q_{kk})
    + \sum_{nm} a(T_{nm}, T_{nn}, T_{mm}) - 2 \sum_{in} a(R_{in}, Q_{ii}, T_{nn})
    \Bigr], \quad a(c, x, y) = \arcsin \frac{c}{\sqrt{(1+x)(1+y)}}.

Descending it, students first become alike: with K = M and T = 1 they meet the symmetric
plateau Q = 1/(2K-1), R = 1/sqrt(K(2K-1)), epsilon = (K/pi)(pi/6 - K arcsin(1/(2K))),
a saddle that they leave only once one of them prefers one teacher.

References
----------
D. Saad, S. A. Solla, Phys. Rev. E 52, 4225 (1995), doi:10.1103/PhysRevE.52.4225.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import fingerprint, finite_array, positive_integer
from mdnet.potentials._forms import ArrayEvaluator, Form
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["Committee", "CommitteeOrder", "committee_error", "committee_plateau"]


class CommitteeOrder(NamedTuple):
    """Order parameters: Q (..., K, K), R (..., K, M), T (M, M)."""

    Q: Array
    R: Array
    T: Array


def _angle(xp: Any, c: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """a(c, x, y), and its derivative by c.  That by x is -c/(2 (1 + x)) times it."""
    room = (1 + x)[..., :, None] * (1 + y)[..., None, :]
    return xp.arcsin(c / xp.sqrt(room)), 1 / xp.sqrt(room - c * c)


def _diagonal(xp: Any, matrix: Array) -> Array:
    return xp.diagonal(matrix, axis1=-2, axis2=-1)


def committee_error(Q: Any, R: Any, T: Any) -> Any:
    """Exact generalisation error of a soft committee with erf(u/sqrt 2) units.

    Parameters
    ----------
    Q : (..., K, K)
        Overlaps of students.
    R : (..., K, M)
        Of students with teachers.
    T : (M, M)
        Of teachers.

    Returns
    -------
    (...)
        Mean of half the squared difference of the outputs.

    Raises
    ------
    PotentialError
        Shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> float(potentials.committee_error(np.eye(3), np.eye(3), np.eye(3)))
    0.0
    """
    three = finite_array("Q", Q), finite_array("R", R), finite_array("T", T)
    shapes = [x.shape for x in three]
    K, M = (*shapes[1][-2:], 0, 0)[:2]
    if shapes[0][-2:] != (K, K) or shapes[2] != (M, M) or not K * M:
        raise PotentialError(
            f"Q, R, T have shapes {shapes}: expected (..., K, K), (..., K, M), (M, M)"
        )
    return _error(np, CommitteeOrder(*three))


def _error(xp: Any, order: CommitteeOrder) -> Array:
    Q, R, T = order
    q, t = _diagonal(xp, Q), _diagonal(xp, T)
    total = _angle(xp, Q, q, q)[0].sum(axis=(-2, -1))
    total = total - 2 * _angle(xp, R, q, t)[0].sum(axis=(-2, -1))
    return (total + _angle(xp, T, t, t)[0].sum()) / math.pi


def committee_plateau(units: int) -> tuple[float, float, float]:
    """Symmetric plateau of K students of K orthonormal teachers.

    Returns
    -------
    Q, R, error : float
        All elements of Q are 1/(2K - 1), all of R are 1/sqrt(K (2K - 1)).
    """
    K = positive_integer("units", units)
    error = K / math.pi * (math.pi / 6 - K * math.asin(1 / (2 * K)))
    return 1 / (2 * K - 1), 1 / math.sqrt(K * (2 * K - 1)), error


class Committee(Potential):
    """Exact error of student committees over all inputs, as an energy.

    U(J) = examples * epsilon(J): what that many examples would add up to on average.
    A run at T = 0 is learning in the limit of many examples and small steps.

    Parameters
    ----------
    size : int
        N.
    students : int
        K.
    teachers : int
        M <= N; rows of norm sqrt(N) that are orthogonal.
    examples : float
        Factor of the error.
    seed : int
        Of the teachers.

    Attributes
    ----------
    teacher : (M, N) float64
        B.

    Raises
    ------
    PotentialError
        Sizes that are not positive integers, or more teachers than inputs.

    Examples
    --------
    >>> from mdnet import potentials
    >>> U = potentials.Committee(size=10, students=3, teachers=2)
    >>> U.initial(replicas=4).shape, U.order_parameters(U.initial(4)).R.shape
    ((4, 30), (4, 3, 2))
    """

    def __init__(
        self,
        size: int,
        students: int,
        teachers: int,
        examples: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.inputs = positive_integer("size", size)
        self.students = positive_integer("students", students)
        count = positive_integer("teachers", teachers)
        if count > size:
            raise PotentialError(
                f"teachers={count}: expected at most size={size}, to be orthogonal"
            )
        factor = finite_array("examples", examples)
        if factor.ndim or factor <= 0:
            raise PotentialError(f"examples={examples!r}: expected one number > 0")
        self.examples, self.seed = float(factor), seed
        z = random.normals(seed, np.arange(count), 1, random.STREAM_INITIAL, size)
        basis, upper = np.linalg.qr(z.T)
        signs = np.where(upper.diagonal() < 0, -1.0, 1.0)
        self.teacher = np.ascontiguousarray((basis * signs).T) * math.sqrt(size)
        self.size = self.students * self.inputs

    @property
    def layout(self) -> Layout:
        """One tensor, "weights" (K, N)."""
        return {"weights": (slice(0, self.size), (self.students, self.inputs))}

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Students with elements of sd .01, (R, K N)."""
        return 0.01 * super().initial(replicas, seed)

    def order_parameters(self, q: Array) -> CommitteeOrder:
        """Q (R, K, K), R (R, K, M) and T (M, M) of students (R, K N)."""
        xp = evaluator_xp(q)
        if q.ndim != 2 or q.shape[1] != self.size:
            raise PotentialError(f"q has shape {q.shape}: expected (R, {self.size})")
        J = xp.asarray(q, dtype=np.float64).reshape(-1, self.students, self.inputs)
        return _order(J, xp.asarray(self.teacher))

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        numbers = np.array([self.examples])
        return ArrayEvaluator(
            Form("", "rows", (self.teacher, numbers), _committee), backend
        )

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Committee",
            "students": self.students,
            "teacher": fingerprint(self.teacher),
            "examples": self.examples,
        }


def _order(J: Array, B: Array) -> CommitteeOrder:
    size = J.shape[-1]
    return CommitteeOrder(J @ J.swapaxes(-2, -1) / size, J @ B.T / size, B @ B.T / size)


def _committee(
    xp: Any, q: Array, teacher: Array, numbers: Array
) -> tuple[Array, Array]:
    size = teacher.shape[1]
    J = q.reshape(q.shape[0], -1, size)
    order = _order(J, teacher)
    Q, R, T = order
    x, y = _diagonal(xp, Q), _diagonal(xp, T)
    of_Q, of_R = _angle(xp, Q, x, x)[1], _angle(xp, R, x, y)[1]
    # d(pi epsilon)/dQ_ii through the roots, from rows and columns of Q and rows of R
    own = ((R * of_R).sum(axis=-1) - (Q * of_Q).sum(axis=-1)) / (1 + x)
    pull = of_Q @ J + own[:, :, None] * J - of_R @ teacher
    factor = numbers[0]
    gradient = (2 * factor / (math.pi * size)) * pull
    return factor * _error(xp, order), gradient.reshape(q.shape)
