r"""More Langevin words: other friction, other splittings, the overdamped limit.

Stationary moments on U = k q^2/2 with m = 1 at step h and friction g, exact:

==========================  ==================  ===================
word                        <q^2> k/T           <p^2>/T
==========================  ==================  ===================
`GJF`                       1                   1 - h^2k/4
`BBK`                       1/(1 - h^2k/4)      1/(1 + g h/2)
`LeimkuhlerMatthews`        1                   (no momenta)
`UBU`                       1 + O(h^2)          1 + O(h^2)
`StochasticPositionVerlet`  1 + O(h^2)          1 + O(h^2)
==========================  ==================  ===================

All take one force a step.  Friction that is not exact (`GJF`, `BBK`) is the Cayley
transform (1 - g h/2)/(1 + g h/2) of e^(-g h).
"""

from __future__ import annotations

import math
from typing import Any

from mdnet.integrators.splitting import Splitting

__all__ = ["BBK", "GJF", "UBU", "LeimkuhlerMatthews", "StochasticPositionVerlet"]


def GJF(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    r"""Grønbech-Jensen and Farago's integrator: BAOAB with the Cayley friction.

    With :math:`b = 1/(1 + \gamma h/2)`, :math:`a = (1 - \gamma h/2) b` and
    :math:`\beta = \sqrt{2\gamma h T} z`, one step is
    :math:`q' = q + b h (p + h F/2) + b h \beta/2`,
    :math:`p' = a (p + h F/2) + b \beta + h F'/2` (m = 1).

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step; stable for dt < 2 / omega_max.
    temperature : float, (R,) array or schedule, or one a tensor
        T >= 0 in energy units (k_B = 1).
    friction : float, (R,) array or schedule, or one a tensor
        gamma >= 0 in 1/time, finite.
    mass : float or (D,) array
    frozen : names of tensors or (D,) bool
        Weights that never move.

    References
    ----------
    N. Grønbech-Jensen, O. Farago, Mol. Phys. 111, 983 (2013), eqs. (19) to (21),
    doi:10.1080/00268976.2012.760055.
    """
    return Splitting(
        "BAOAB",
        dt,
        temperature,
        friction,
        mass,
        name="GJF",
        frozen=frozen,
        rule="cayley",
    )


def BBK(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    r"""Brünger, Brooks and Karplus: velocity Verlet with friction in its two halves.

    :math:`p_{1/2} = p + (h F - \gamma h p + \beta)/2`, :math:`q' = q + h p_{1/2}/m`,
    :math:`p' = p_{1/2} + (h F' - \gamma h p' + \beta')/2`, where
    :math:`\beta = \sqrt{2\gamma m T h} z` of a time is used on both its sides.
    Its positions are those of OBABO with the Cayley friction; its momenta read cold
    by 1/(1 + gamma h/2), and are not to be used as a thermometer.

    Parameters as `GJF`.

    References
    ----------
    A. Brünger, C. L. Brooks, M. Karplus, Chem. Phys. Lett. 105, 495 (1984),
    doi:10.1016/0009-2614(84)80098-6.
    """
    return Splitting(
        "OBABO",
        dt,
        temperature,
        friction,
        mass,
        name="BBK",
        frozen=frozen,
        rule="bbk",
    )


def StochasticPositionVerlet(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    r"""Position Verlet around the exact flow of constant force, friction and noise.

    :math:`q_{1/2} = q + h p/2m`,
    :math:`p' = e^{-\gamma h} p + (1 - e^{-\gamma h}) F_{1/2}/\gamma + \text{noise}`,
    :math:`q' = q_{1/2} + h p'/2m`.  Parameters as `GJF`.

    References
    ----------
    S. Melchionna, J. Chem. Phys. 127, 044108 (2007), doi:10.1063/1.2753496.
    """
    return Splitting(
        "AOBA",
        dt,
        temperature,
        friction,
        mass,
        name="StochasticPositionVerlet",
        frozen=frozen,
        rule="spv",
    )


def UBU(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """U B U: a kick between two halves of free motion in the bath, solved exactly.

    Strong order 2 at one force a step.  U moves positions and momenta with their
    joint noise; it is made of drifts and baths of the same law, see
    `mdnet.integrators.rules`.  Parameters as `GJF`.

    References
    ----------
    J. M. Sanz-Serna, K. C. Zygalakis, J. Mach. Learn. Res. 22, 242 (2021), sec. 7.4.
    """
    return Splitting(
        "AOAOABAOAOA",
        dt,
        temperature,
        friction,
        mass,
        name="UBU",
        frozen=frozen,
        rule="ubu",
    )


def LeimkuhlerMatthews(
    dt: Any, temperature: Any = 1.0, mass: Any = 1.0, frozen: Any = ()
) -> Splitting:
    r"""Overdamped dynamics with noise averaged over neighbouring steps.

    :math:`q' = q + dt\,F/m + \sqrt{2\,dt\,T/m}\,(z + z')/2`, where z' is the z of the
    next step: BAOAB of length :math:`\sqrt{2 dt}` without memory (friction = inf).
    Second order in the law it samples, against first of `SGLD`, at the same cost.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Step size; stable for dt < 2 / k_max.
    temperature : float, (R,) array or schedule, or one a tensor
    mass : float or (D,) array
        A fixed diagonal preconditioner: parameter i moves with dt / m_i.
    frozen : names of tensors or (D,) bool
        Weights that never move.

    References
    ----------
    B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34, eq. (10),
    doi:10.1093/amrx/abs010.
    """
    return Splitting(
        "BAOAB",
        dt,
        temperature,
        math.inf,
        mass,
        name="LeimkuhlerMatthews",
        damping=0.0,
        length="sqrt(2 dt)",
        frozen=frozen,
    )
