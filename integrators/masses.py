r"""Masses read off forces, for words that take one mass a weight.

A weight on a stiff direction is pushed hard: at temperature T the mean square of its
force is k T.  A mass in proportion to the root of that square, RMSprop's scale, brings
frequencies closer: from :math:`\sqrt{k}` to :math:`k^{1/4}`.  Masses change how fast a
run gets where it goes, never what it samples, as long as they stay as they are: they
are measured once, at given positions, and handed to an integrator as ``mass``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.backend import Backend
from mdnet.errors import SchemeError
from mdnet.typing import Array

__all__ = ["rmsprop_mass"]


def rmsprop_mass(
    potential: Any,
    positions: Array,
    *,
    calls: int = 16,
    damping: float = 0.01,
    by: str = "parameter",
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    r"""Masses in proportion to the size of each weight's force.

    .. math:: m_i = (\lambda + \sqrt{V_i})/c, \qquad V_i = \langle F_i^2\rangle,

    with :math:`\lambda` = ``damping`` times the mean of :math:`\sqrt V` and c such that
    the geometric mean of the masses is 1: a step that suited equal masses suits these
    on average.

    Parameters
    ----------
    potential : Potential
        Its forces are asked for: with minibatches their noise counts as well.
    positions : array, (R, D)
        Where, e.g. ``sim.state.positions`` of a short run at the temperature of
        interest.  At a minimum forces vanish and say nothing.
    calls : int
        Force calls at these positions, which differ with minibatches only.
    damping : float
        >= 0; keeps weights whose force is nearly zero from becoming too light.
    by : {"parameter", "tensor"}
        One mass for every weight, or one for every tensor, from its mean V.
    seed : int
        Key of the minibatches.

    Returns
    -------
    ndarray, (D,) float64
        For ``mass=`` of any integrator that takes one a weight.

    Raises
    ------
    SchemeError
        Positions of another shape, ``calls`` below 1, ``damping`` below 0, an unknown
        ``by``, or forces that are zero or not finite everywhere.

    References
    ----------
    C. Li, C. Chen, D. Carlson, L. Carin, "Preconditioned stochastic gradient Langevin
    dynamics for deep neural networks", AAAI 30 (2016), doi:10.1609/aaai.v30i1.10200.
    F. Wenzel et al., "How good is the Bayes posterior in deep neural networks really?",
    ICML (2020), for masses of whole tensors.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import integrators, potentials
    >>> U = potentials.Harmonic(stiffness=[1.0, 100.0])
    >>> q = U.sample(4000, temperature=1.0, seed=0)
    >>> integrators.rmsprop_mass(U, q, damping=0.0).round(1)
    array([0.3, 3.2])
    """
    q = positions.get() if hasattr(positions, "get") else np.asarray(positions)
    if q.ndim != 2 or q.shape[1] != potential.size:
        raise SchemeError(
            f"positions has shape {q.shape}: expected (R, {potential.size}), e.g. "
            "sim.state.positions"
        )
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
        raise SchemeError(f"calls={calls!r}: expected an integer >= 1")
    if not damping >= 0:
        raise SchemeError(f"damping={damping!r}: expected a number >= 0")
    if by not in ("parameter", "tensor"):
        raise SchemeError(f"by={by!r}: expected 'parameter' or 'tensor'")
    q = np.ascontiguousarray(q, np.float64)
    evaluator = potential.evaluator(Backend("cpu", "double", np), len(q), seed)
    force, squares = np.empty_like(q), np.zeros(q.shape[1])
    turns = 1 if evaluator.full else calls
    for call in range(turns):
        evaluator.forces(q, force, call)
        squares += np.einsum("rd,rd->d", force, force)
    squares /= turns * len(q)
    if by == "tensor":
        for where, _ in potential.layout.values():
            squares[where] = squares[where].mean()
    size = np.sqrt(squares)
    size += damping * size.mean()
    if not (np.isfinite(size).all() and (size > 0).all()):
        bad = int(np.argmin(np.isfinite(size) & (size > 0)))
        raise SchemeError(
            f"forces on weight {bad} have the root mean square {size[bad]}: measure at "
            "positions of a run at a temperature above 0, or give damping=0.01"
        )
    mass: npt.NDArray[np.float64] = size / np.exp(np.log(size).mean())
    return mass
