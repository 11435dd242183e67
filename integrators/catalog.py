"""What each named integrator conserves or samples at finite step: the table to read.

`CATALOG` holds one frozen record a method; `table` prints them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mdnet.integrators import hamiltonian, langevin, stochastic_gradient
from mdnet.integrators.splitting import Splitting

__all__ = ["CATALOG", "Entry", "table"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One method: how to make it and what to expect of it.

    Attributes
    ----------
    name, word : str
    make : callable
        ``make(dt=...)`` builds the integrator.
    force_calls : int
        Per step.
    samples : str
        The invariant or law at finite step, on an oscillator of stiffness k, m = 1.
    stability : str
    reference : str
        DOI or proceedings.
    """

    name: str
    word: str
    make: Callable[..., Splitting]
    force_calls: int
    samples: str
    stability: str
    reference: str


def _entry(make: Callable[..., Any], samples: str, stability: str, doi: str) -> Entry:
    probe = make(dt=0.1)
    scheme = probe.scheme
    return Entry(
        probe.name, scheme.word, make, scheme.force_calls, samples, stability, doi
    )


_VERLET = "h omega < 2"
CATALOG: tuple[Entry, ...] = (
    _entry(
        hamiltonian.VelocityVerlet,
        "shadow energy p^2/2 + k(1 - h^2k/4) q^2/2",
        _VERLET,
        "10.1063/1.442716",
    ),
    _entry(
        hamiltonian.PositionVerlet,
        "shadow energy (1 - h^2k/4) p^2/2 + k q^2/2",
        _VERLET,
        "10.1063/1.463137",
    ),
    _entry(
        hamiltonian.Yoshida4,
        "energy to O(h^4)",
        "h omega < 1.573",
        "10.1016/0375-9601(90)90092-3",
    ),
    _entry(
        hamiltonian.Omelyan4,
        "energy to O(h^4)",
        "h omega < 2.989",
        "10.1016/S0010-4655(02)00451-4",
    ),
    _entry(
        langevin.BAOAB,
        "<q^2>k/T = 1; <p^2>/T = 1 - h^2k/4 at the end, 1 after O",
        _VERLET,
        "10.1063/1.4802990",
    ),
    _entry(
        langevin.ABOBA,
        "<q^2>k/T = 1; <p^2>/T = 1/(1 - h^2k/4)",
        _VERLET,
        "10.1093/amrx/abs010",
    ),
    _entry(
        langevin.OBABO,
        "<q^2>k/T = 1/(1 - h^2k/4); <p^2>/T = 1",
        _VERLET,
        "10.1103/PhysRevE.75.056707",
    ),
    _entry(
        langevin.OABAO,
        "<q^2>k/T = 1 - h^2k/4; <p^2>/T = 1",
        _VERLET,
        "10.1093/amrx/abs010",
    ),
    _entry(
        langevin.BAO,
        "first order in h",
        "h omega < sqrt(2 + 2 exp(-friction h))",
        "10.1137/090758842",
    ),
    _entry(
        langevin.BAOA,
        "positions as BAOAB; momenta half a kick earlier",
        _VERLET,
        "10.1021/acs.jctc.2c00585",
    ),
    _entry(
        stochastic_gradient.SGLD,
        "<q^2>k/T = 1/(1 - hk/2)",
        "h k < 2",
        "Welling & Teh, ICML 2011",
    ),
    _entry(
        stochastic_gradient.SGD,
        "T = hC/2 from gradient noise of variance C",
        "h k < 2(1 + momentum)",
        "Mandt et al., JMLR 18, 1 (2017)",
    ),
)


def table() -> str:
    """Return the catalogue as text, one line a method."""
    rows = [("name", "word", "forces", "at finite step h", "stable for", "reference")]
    rows += [
        (e.name, e.word, str(e.force_calls), e.samples, e.stability, e.reference)
        for e in CATALOG
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
