r"""Swaps by the energies of minibatches: what noise does to a test, and its cure.

A swap needs :math:`\delta = \Delta\beta\,\Delta U`, of which n minibatches give a mean
with normal errors of variance :math:`\chi^2`.  Accepting with
:math:`\min(1, e^{-\delta})` then accepts too often: the laws at two temperatures mix.
With a penalty,

.. math:: a = \min\bigl(1, e^{-\delta - u}\bigr),\qquad
    u = \frac{\chi^2}{2} + \frac{\chi^4}{4(n+1)} + \frac{\chi^6}{3(n+1)(n+3)},

detailed balance holds on average: exactly for u = variance/2 where the variance is
known, and up to the small rest that `remaining` gives where it is that of the n
values themselves.  In terms of the energies' own variance :math:`\sigma^2` each,
:math:`\chi^2/2 = \Delta\beta^2\sigma^2` is the correction of replica-exchange SGLD.

References
----------
D. M. Ceperley, M. Dewing, J. Chem. Phys. 110, 9812 (1999), doi:10.1063/1.478034
(penalty, and its series for a measured variance).
W. Deng, Q. Feng, L. Gao, F. Liang, G. Lin, "Non-convex learning via replica exchange
stochastic gradient MCMC", ICML 2020, arXiv:2008.05367.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators.companion import Context

__all__ = ["BatchEnergies", "Remaining", "penalty"]

F = npt.NDArray[np.float64]

_FIRST, _STRIDE = 2**55, 2**20
"""Force calls of the batches: far from those of any kick, and each in an epoch of its
own, so that shuffled batches are as independent as others."""
_LARGEST = 16.0
"""Variance up to which the remaining bias is tabulated."""


def penalty(variance: F, batches: int) -> F:
    """Return u, what noise of a measured variance takes from the logarithm of a ratio.

    Parameters
    ----------
    variance : array
        chi^2, of the mean of ``batches`` values, estimated from them.
    batches : int
        n >= 2.

    Examples
    --------
    >>> float(penalty(np.array(0.5), 10**9).round(6))
    0.25
    """
    n = batches
    u: F = variance * (
        0.5 + variance / (4 * (n + 1)) + variance**2 / (3 * (n + 1) * (n + 3))
    )
    return u


class Remaining:
    r"""The bias that the penalty leaves, for a variance that is measured.

    The largest :math:`|\ln(A(\delta)/A(-\delta)) + \delta|` for
    :math:`0 \le \delta \le 4`, where A is the mean acceptance over normal noise and
    over the scatter of its measured variance; zero where detailed balance holds.

    Parameters
    ----------
    batches : int

    Examples
    --------
    >>> bool(Remaining(8)(np.array([1.0]))[0] < 0.01)
    True
    """

    def __init__(self, batches: int) -> None:
        from scipy.special import chdtri, ndtr

        self._grid = np.linspace(0.0, _LARGEST, 65)
        below = (np.arange(64) + 0.5) / 64
        spread = chdtri(batches - 1, 1 - below) / (batches - 1)
        delta = np.linspace(-4.0, 4.0, 33)[:, None]
        self._bias = np.zeros(self._grid.size)
        for i, variance in enumerate(self._grid[1:], 1):
            u, width = penalty(variance * spread, batches), np.sqrt(variance)
            sure = ndtr((-u - delta) / width)
            rest = np.exp(variance / 2 - delta - u) * ndtr(
                (u + delta - variance) / width
            )
            chance = np.log((sure + rest).mean(1))
            self._bias[i] = np.abs(chance - chance[::-1] + delta[:, 0]).max()

    def __call__(self, variance: F) -> F:
        """Bias at each variance; that of 16 beyond it."""
        bias: F = np.interp(variance, self._grid, self._bias)
        return bias


class BatchEnergies:
    """Estimates of U from minibatches that no kick uses.

    Parameters
    ----------
    context : Context
    batches : int
        n >= 2.
    name : str
        Of the method, for messages.

    Raises
    ------
    SchemeError
        A potential of all data.
    """

    def __init__(self, context: Context, batches: int, name: str) -> None:
        if context.evaluator.full:
            raise SchemeError(
                f"{name}: batches={batches} with a potential of all data; pass "
                "potential.minibatch(...), or batches=0 for swaps by exact energies"
            )
        backend, state = context.backend, context.state
        self._context = context
        self._forces = backend.zeros(tuple(state.positions.shape), backend.force_dtype)
        self._energy = backend.zeros((state.replicas,), np.float64)
        self._values = np.empty((batches, state.replicas))

    def draw(self, step: int) -> F:
        """Energies (n, R) at the present positions; a function of the step."""
        c, batches = self._context, len(self._values)
        for i in range(batches):
            call = _FIRST + (step * batches + i) * _STRIDE
            c.evaluator.forces(c.state.positions, self._forces, call, self._energy)
            self._values[i] = c.backend.to_host(self._energy)
        return self._values
