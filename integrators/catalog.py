"""What each named integrator conserves or samples at finite step: the table to read.

`CATALOG` holds one frozen record a method; `table` lays them out.  To add a method,
add an `Entry`: nothing is asked of the integrator but to be made by ``make(dt=...)``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mdnet.bibliography import references
from mdnet.errors import SchemeError
from mdnet.integrators import hamiltonian, langevin, stochastic_gradient

__all__ = ["CATALOG", "Entry", "find", "table"]

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One method: how to make it and what to expect of it.

    Moments are those on U = k q^2/2 with m = 1; C is the variance of the noise of one
    force (minibatches), g the friction.

    Attributes
    ----------
    name : str
        As the integrator's own ``name``.
    family : str
        Heading that it stands under.
    word : str
        Letters of a step; a short description for methods that are no word.
    make : callable
        ``make(dt=...)`` builds the integrator.
    flow : str
        What is solved exactly, in which order.
    samples : str
        What it conserves, or the law it samples, at finite step.
    force_calls : int or str
        A step.
    stability : str
        Steps that are stable.
    noise : str
        What gradient noise does to it.
    references : tuple of str
        Keys of `mdnet.bibliography`, where new papers go.
    limit : float or None
        Largest stable dt of ``make(dt=dt)`` on an oscillator of k = m = 1; None where
        the method has none (a Metropolis test rejects what is unstable).
    """

    name: str
    family: str
    word: str
    make: Callable[..., Any]
    flow: str
    samples: str
    force_calls: int | str
    stability: str
    noise: str
    references: tuple[str, ...]
    limit: float | None = None


_HAMILTONIAN, _LANGEVIN, _OVERDAMPED = "Hamiltonian", "Langevin", "Overdamped"
_VERLET = "h omega < 2"
_HEATS = "heats without end: {}h C/2m of energy a weight and unit of time"
_WARMS = "T + hC/2g (m = 1)"

CATALOG: tuple[Entry, ...] = (
    Entry(
        name="VelocityVerlet",
        family=_HAMILTONIAN,
        word="BAB",
        make=hamiltonian.VelocityVerlet,
        flow="half a kick, drift, half a kick",
        samples="shadow energy p^2/2 + k(1 - h^2k/4) q^2/2; energy to O(h^2)",
        force_calls=1,
        stability=_VERLET,
        noise=_HEATS.format(""),
        references=("swope1982",),
        limit=2.0,
    ),
    Entry(
        name="PositionVerlet",
        family=_HAMILTONIAN,
        word="ABA",
        make=hamiltonian.PositionVerlet,
        flow="half a drift, kick, half a drift",
        samples="shadow energy (1 - h^2k/4) p^2/2 + k q^2/2; energy to O(h^2)",
        force_calls=1,
        stability=_VERLET,
        noise=_HEATS.format(""),
        references=("tuckerman1992",),
        limit=2.0,
    ),
    Entry(
        name="Yoshida4",
        family=_HAMILTONIAN,
        word="BABABAB",
        make=hamiltonian.Yoshida4,
        flow="velocity Verlet over 1.35 h, -1.70 h, 1.35 h",
        samples="energy to O(h^4)",
        force_calls=3,
        stability="h omega < 1.573",
        noise=_HEATS.format("1.9 "),
        references=("yoshida1990",),
        limit=1.573,
    ),
    Entry(
        name="Omelyan4",
        family=_HAMILTONIAN,
        word="ABABABABA",
        make=hamiltonian.Omelyan4,
        flow="five drifts and four kicks, of the smallest fourth-order error (PEFRL)",
        samples="energy to O(h^4)",
        force_calls=4,
        stability="h omega < 2.989",
        noise=_HEATS.format("1.1 "),
        references=("omelyan2002",),
        limit=2.989,
    ),
    Entry(
        name="BAOAB",
        family=_LANGEVIN,
        word="BAOAB",
        make=langevin.BAOAB,
        flow="half a kick, half a drift, bath, half a drift, half a kick",
        samples="<q^2>k/T = 1; <p^2>/T = 1 - h^2k/4 at the end, 1 after O",
        force_calls=1,
        stability=_VERLET,
        noise=_WARMS,
        references=("leimkuhler2013robust", "leimkuhler2013rational"),
        limit=2.0,
    ),
    Entry(
        name="ABOBA",
        family=_LANGEVIN,
        word="ABOBA",
        make=langevin.ABOBA,
        flow="half a drift, half a kick, bath, half a kick, half a drift",
        samples="<q^2>k/T = 1; <p^2>/T = 1/(1 - h^2k/4)",
        force_calls=1,
        stability=_VERLET,
        noise=_WARMS,
        references=("leimkuhler2013rational",),
        limit=2.0,
    ),
    Entry(
        name="OBABO",
        family=_LANGEVIN,
        word="OBABO",
        make=langevin.OBABO,
        flow="half a bath, velocity Verlet, half a bath",
        samples="<q^2>k/T = 1/(1 - h^2k/4); <p^2>/T = 1",
        force_calls=1,
        stability=_VERLET,
        noise=_WARMS,
        references=("bussi2007langevin",),
        limit=2.0,
    ),
    Entry(
        name="OABAO",
        family=_LANGEVIN,
        word="OABAO",
        make=langevin.OABAO,
        flow="half a bath, position Verlet, half a bath",
        samples="<q^2>k/T = 1 - h^2k/4; <p^2>/T = 1",
        force_calls=1,
        stability=_VERLET,
        noise=_WARMS,
        references=("leimkuhler2013rational",),
        limit=2.0,
    ),
    Entry(
        name="BAO",
        family=_LANGEVIN,
        word="BAO",
        make=langevin.BAO,
        flow="kick, drift, bath",
        samples="first order in h: <q^2>k/T = .871, <p^2>/T = 1.031 at h = .5, g = 1",
        force_calls=1,
        stability="h omega < sqrt(2 + 2 exp(-g h))",
        noise=_WARMS,
        references=("bourabee2010",),
        limit=1.5562,  # the root of h^2 = 2 + 2 exp(-h), friction 1
    ),
    Entry(
        name="BAOA",
        family=_LANGEVIN,
        word="BAOA",
        make=langevin.BAOA,
        flow="kick, half a drift, bath, half a drift",
        samples="positions as BAOAB; momenta half a kick earlier, <p^2>/T = 1",
        force_calls=1,
        stability=_VERLET,
        noise=_WARMS,
        references=("kieninger2022",),
        limit=2.0,
    ),
    Entry(
        name="SGLD",
        family=_OVERDAMPED,
        word="OBAB",
        make=stochastic_gradient.SGLD,
        flow="momenta drawn afresh, velocity Verlet over sqrt(2h): Euler-Maruyama",
        samples="<q^2>k/T = 1/(1 - hk/2)",
        force_calls=1,
        stability="h k < 2",
        noise="T + hC/2",
        references=("welling2011",),
        limit=2.0,
    ),
    Entry(
        name="SGD",
        family=_OVERDAMPED,
        word="OBA",
        make=stochastic_gradient.SGD,
        flow="damping to the momentum mu, kick, drift over sqrt(h)",
        samples="T = 0: comes to rest in a minimum",
        force_calls=1,
        stability="h k < 2(1 + mu)",
        noise="T = hC/2 at mu = 0",
        references=("mandt2017",),
        limit=2.0,
    ),
)


def find(name: str) -> Entry:
    """Return the entry of a method.

    Raises
    ------
    SchemeError
        A name that is not in the catalogue.
    """
    for entry in CATALOG:
        if entry.name == name:
            return entry
    raise SchemeError(
        f"integrator {name!r} is not in the catalogue; there are "
        f"{', '.join(e.name for e in CATALOG)}"
    )


def table(*names: str) -> str:
    """Lay out the catalogue, or the methods named, in lines of at most 100 columns.

    Parameters
    ----------
    *names : str
        All methods if none is given.

    Raises
    ------
    SchemeError
        A name that is not in the catalogue.

    Examples
    --------
    >>> print(table("SGD"))
    Overdamped
    <BLANKLINE>
    SGD
      word         OBA; forces a step: 1
      stable for   h k < 2(1 + mu)
      flow         damping to the momentum mu, kick, drift over sqrt(h)
      at finite h  T = 0: comes to rest in a minimum
      noise        T = hC/2 at mu = 0
      see          Mandt et al., J. Mach. Learn. Res. 18, 134:1 (2017) arXiv:1704.04289
    """
    papers = references()
    lines: list[str] = []
    family = ""
    for entry in [find(name) for name in names] or CATALOG:
        if entry.family != family:
            family = entry.family
            lines += [""] * bool(lines) + [family]
        lines += ["", entry.name]
        for label, text in (
            ("word", f"{entry.word}; forces a step: {entry.force_calls}"),
            ("stable for", entry.stability),
            ("flow", entry.flow),
            ("at finite h", entry.samples),
            ("noise", entry.noise),
            ("see", "; ".join(papers[key].short for key in entry.references)),
        ):
            lines += _row(f"  {label}", text)
    if not names:
        lines += [
            "",
            "Moments on U = k q^2/2, m = 1; h is dt, omega^2 = k/m, g the friction, C",
            "the variance of the noise of one force, as minibatches make it.",
        ]
    return "\n".join(lines)


def _row(label: str, text: str) -> list[str]:
    """A label and its text, wrapped."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{label:<13}  ",
        subsequent_indent=" " * 15,
        break_long_words=False,
        break_on_hyphens=False,
    )
