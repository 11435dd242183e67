r"""Langevin words: the canonical law at temperature T, with exact baths.

Stationary moments on U = k q^2/2 with m = 1 at step h, exact for any friction
(in units of the exact ones):

========  ====================  ==========================================
word      <q^2> k/T             <p^2>/T
========  ====================  ==========================================
BAOAB     1                     1 - h^2k/4 at the end, 1 just after O
ABOBA     1                     1/(1 - h^2k/4)
OBABO     1/(1 - h^2k/4)        1
OABAO     1 - h^2k/4            1
========  ====================  ==========================================

BAOA is BAOAB seen half a kick earlier.  All take one force evaluation a step and are
stable for dt < 2 / omega_max; BAO, of first order, for
dt < sqrt(2 + 2 exp(-friction dt)) / omega_max.
"""

from __future__ import annotations

from typing import Any

from mdnet.integrators.splitting import Splitting

__all__ = ["ABOBA", "BAO", "BAOA", "BAOAB", "OABAO", "OBABO"]


def BAOAB(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """BAOAB: exact configurations on a harmonic potential at any stable step.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step.
    temperature : float, (R,) array or schedule
        T >= 0 in energy units (k_B = 1).
    friction : float, (R,) array or schedule
        gamma >= 0 in 1/time.
    mass : float or (D,) array
    frozen : names of tensors or (D,) bool
        Weights that never move.

    References
    ----------
    B. Leimkuhler, C. Matthews, J. Chem. Phys. 138, 174102 (2013),
    doi:10.1063/1.4802990.
    """
    return Splitting(
        "BAOAB", dt, temperature, friction, mass, name="BAOAB", frozen=frozen
    )


def ABOBA(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """ABOBA: exact harmonic positions too, force in mid-step; see `BAOAB`."""
    return Splitting(
        "ABOBA", dt, temperature, friction, mass, name="ABOBA", frozen=frozen
    )


def OBABO(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """OBABO: velocity Verlet between two half baths; parameters as `BAOAB`.

    References
    ----------
    G. Bussi, M. Parrinello, Phys. Rev. E 75, 056707 (2007),
    doi:10.1103/PhysRevE.75.056707.
    """
    return Splitting(
        "OBABO", dt, temperature, friction, mass, name="OBABO", frozen=frozen
    )


def OABAO(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """OABAO: position Verlet between two half baths; parameters as `BAOAB`."""
    return Splitting(
        "OABAO", dt, temperature, friction, mass, name="OABAO", frozen=frozen
    )


def BAO(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """BAO, the geometric Langevin algorithm of first order; see `BAOAB`.

    References
    ----------
    N. Bou-Rabee, H. Owhadi, SIAM J. Numer. Anal. 48, 278 (2010),
    doi:10.1137/090758842.
    """
    return Splitting("BAO", dt, temperature, friction, mass, name="BAO", frozen=frozen)


def BAOA(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    frozen: Any = (),
) -> Splitting:
    """BAOA: BAOAB with its kicks merged, so momenta live at half steps; see `BAOAB`.

    References
    ----------
    S. Kieninger, B. G. Keller, J. Chem. Theory Comput. 18, 5792 (2022),
    doi:10.1021/acs.jctc.2c00585.
    """
    return Splitting(
        "BAOA", dt, temperature, friction, mass, name="BAOA", frozen=frozen
    )
