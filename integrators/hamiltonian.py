r"""Hamiltonian words: symplectic, time-reversible, at constant energy.

==================  ====================  =====  ==========
name                word                  order  force calls
==================  ====================  =====  ==========
`VelocityVerlet`    B A B                 2      1
`PositionVerlet`    A B A                 2      1
`Yoshida4`          three Verlet steps    4      3
`Omelyan4`          PEFRL                 4      4
==================  ====================  =====  ==========

All conserve a shadow Hamiltonian; on an oscillator of stiffness k velocity Verlet
conserves :math:`p^2/2 + k(1 - h^2k/4)\,q^2/2` (m = 1) exactly.  The temperature is
that of the first momenta.
"""

from __future__ import annotations

from typing import Any

from mdnet.integrators.splitting import Splitting

__all__ = ["Leapfrog", "Omelyan4", "PositionVerlet", "VelocityVerlet", "Yoshida4"]


def VelocityVerlet(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """Velocity Verlet, B A B: the leapfrog of molecular dynamics.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step; stable for dt < 2 / omega_max.
    temperature : float or (R,) array
        Of the first momenta, in energy units.
    mass : float or (D,) array
    frozen : names of tensors or (D,) bool
        Weights that never move.

    References
    ----------
    W. C. Swope et al., J. Chem. Phys. 76, 637 (1982), doi:10.1063/1.442716.
    """
    return Splitting(
        "BAB", dt, temperature, 0.0, mass, name="VelocityVerlet", frozen=frozen
    )


Leapfrog = VelocityVerlet


def PositionVerlet(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """Position Verlet, A B A; parameters as `VelocityVerlet`.

    References
    ----------
    M. Tuckerman, B. J. Berne, G. J. Martyna, J. Chem. Phys. 97, 1990 (1992),
    doi:10.1063/1.463137.
    """
    return Splitting(
        "ABA", dt, temperature, 0.0, mass, name="PositionVerlet", frozen=frozen
    )


def Yoshida4(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """Yoshida's fourth-order composition of three velocity-Verlet steps.

    The weights are w = 1/(2 - 2^(1/3)), 1 - 2w, w; parameters as `VelocityVerlet`.

    References
    ----------
    H. Yoshida, Phys. Lett. A 150, 262 (1990), doi:10.1016/0375-9601(90)90092-3.
    """
    w = 1 / (2 - 2 ** (1 / 3))
    u = 1 - 2 * w
    table = (
        ("B", w / 2),
        ("A", w),
        ("B", (w + u) / 2),
        ("A", u),
        ("B", (w + u) / 2),
        ("A", w),
        ("B", w / 2),
    )
    return Splitting(table, dt, temperature, 0.0, mass, name="Yoshida4", frozen=frozen)


def Omelyan4(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """Position-extended Forest-Ruth-like integrator (PEFRL), order 4.

    Its energy errors are 8 to 28 times smaller than Yoshida's at the same step, 2.5 to
    9 times at the same cost, and its paths closer still; parameters as
    `VelocityVerlet`.

    References
    ----------
    I. P. Omelyan, I. M. Mryglod, R. Folk, Comput. Phys. Commun. 146, 188 (2002),
    doi:10.1016/S0010-4655(02)00451-4, eq. (20).
    """
    xi, lam, chi = 0.1786178958448091, -0.2123418310626054, -0.06626458266981849
    table = (
        ("A", xi),
        ("B", 0.5 - lam),
        ("A", chi),
        ("B", lam),
        ("A", 1 - 2 * (chi + xi)),
        ("B", lam),
        ("A", chi),
        ("B", 0.5 - lam),
        ("A", xi),
    )
    return Splitting(table, dt, temperature, 0.0, mass, name="Omelyan4", frozen=frozen)
