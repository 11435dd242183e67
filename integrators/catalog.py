"""What each named integrator conserves or samples at finite step: the table to read.

`CATALOG` holds one frozen record a method; `table` lays them out.  To add a method,
add an `Entry`: nothing is asked of the integrator but to be made by ``make(dt=...)``.
"""

from __future__ import annotations

import textwrap

from mdnet.bibliography import references
from mdnet.errors import SchemeError
from mdnet.integrators import entries_thermostats, entries_words
from mdnet.integrators.entry import Entry

__all__ = ["CATALOG", "Entry", "find", "table"]

_WIDTH = 100


CATALOG: tuple[Entry, ...] = (*entries_words.ENTRIES, *entries_thermostats.ENTRIES)


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
