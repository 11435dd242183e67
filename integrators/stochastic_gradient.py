r"""Overdamped baselines of machine learning, on the same words and the same ledger.

One Euler-Maruyama step of length dt,
:math:`q \leftarrow q + dt\,F/m + \sqrt{2\,dt\,T/m}\,z`, is a leapfrog step of length
:math:`\sqrt{2\,dt}` from momenta drawn afresh: the word O B A B with c = 0.  Heat is
then what the redraw exchanges, shadow work the leapfrog's energy error.
"""

from __future__ import annotations

import math
from typing import Any

from mdnet.errors import SchemeError
from mdnet.integrators.splitting import Splitting

__all__ = ["SGD", "SGLD"]


def SGLD(dt: Any, temperature: Any = 1.0, mass: Any = 1.0) -> Splitting:
    r"""Stochastic gradient Langevin dynamics: Euler-Maruyama of dq = F dt + noise.

    On U = k q^2/2 it samples :math:`\langle q^2\rangle k/T = 1/(1 - dt\,k/2)` (m = 1),
    and gradient noise of variance C adds dt C/2 to the temperature.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Step size; stable for dt < 2 / k_max.
    temperature : float, (R,) array or schedule
        T >= 0 in energy units.
    mass : float or (D,) array
        A fixed diagonal preconditioner: parameter i moves with dt / m_i.

    References
    ----------
    M. Welling, Y. W. Teh, ICML 2011, eq. (4), with dt for half their step.
    """
    return Splitting(
        (("O", 1.0), ("B", 0.5), ("A", 1.0), ("B", 0.5)),
        dt,
        temperature,
        math.inf,
        mass,
        name="SGLD",
        damping=0.0,
        length="sqrt(2 dt)",
    )


def SGD(dt: Any, momentum: float = 0.0, mass: Any = 1.0) -> Splitting:
    r"""Gradient descent with heavy-ball momentum, as dynamics driven by its noise.

    :math:`\Delta \leftarrow \mu\Delta + dt\,F/m,\; q \leftarrow q + \Delta`.  With a
    noise of variance C per force it behaves as if at T = dt C/2 (momentum 0).

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Learning rate with respect to the extensive U (a sum over the data).
    momentum : float
        mu in [0, 1).
    mass : float or (D,) array

    References
    ----------
    S. Mandt, M. D. Hoffman, D. M. Blei, J. Mach. Learn. Res. 18, 1 (2017), eq. (12).
    """
    if not 0 <= momentum < 1:
        raise SchemeError(f"momentum={momentum!r}: expected a number in [0, 1)")
    return Splitting(
        "OBA",
        dt,
        0.0,
        0.0,
        mass,
        name="SGD",
        damping=float(momentum),
        length="sqrt(dt)",
    )
