"""What to cite for a run: papers of its integrator, potential, thermometers and file.

`bibtex` writes them, `cite` returns them.  The papers are in `mdnet.bibliography`; an
integrator is tied to its own by its entry in `mdnet.integrators.catalog`, everything
else by `_USES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from mdnet.bibliography import MDNET, Reference, references
from mdnet.errors import SchemeError

__all__ = ["bibtex", "cite"]


_USES: dict[str, tuple[str, ...]] = {
    # potentials
    "Funnel": ("neal2003",),
    "LinearRegression": ("mackay1992",),
    "MullerBrown": ("muller1979",),
    "Posterior": ("neal1996",),
    "Rosenbrock": ("rosenbrock1960", "pagani2022"),
    # what a run records, and how it is made
    "gradient_square": ("rugh1997", "butler1998"),
    "laplacian": ("hutchinson1989",),
    "minimize": ("kingma2015",),
    "random": ("salmon2011", "box1958"),
    "shadow_work": ("sivak2014",),
    "trajectory": ("debuyl2014",),
    "words": ("leimkuhler2013rational", "sivak2014"),
    # estimators
    "ais": ("neal2001",),
    "autocorrelation_time": ("sokal1997", "wolff2004"),
    "bar": ("bennett1976",),
    "conserved": ("bussi2007langevin",),
    "crooks": ("crooks1999",),
    "ensemble_ratio": ("shirts2013", "merz2018"),
    "equilibration": ("chodera2016",),
    "ess": ("vehtari2021", "geyer1992"),
    "jarzynski": ("jarzynski1997",),
    "kinetic": ("merz2018",),
    "kl_relaxation": ("wang2009",),
    "mbar": ("shirts2008",),
    "rhat": ("vehtari2021",),
    "step_size_convergence": ("leimkuhler2016computation",),
    "symplecticity": ("leimkuhler2004",),
    "temperatures": ("rugh1997", "butler1998", "hutchinson1989"),
    "thermodynamic_integration": ("friel2008",),
}
"""Names of potentials, recorded series and estimators, and the papers behind them."""


def cite(what: Any) -> tuple[Reference, ...]:
    """Return what to cite, mdnet itself first.

    Parameters
    ----------
    what : Run, Simulation, integrator, potential, str or iterable of these
        A name may be that of an integrator ("BAOAB"), a potential ("Funnel"), an
        estimator ("ensemble_ratio"), a key, a DOI or an arXiv number.

    Raises
    ------
    SchemeError
        A name that nothing is known of.

    Examples
    --------
    >>> print(cite("VelocityVerlet")[1].identifier)
    doi:10.1063/1.442716
    """
    found = {MDNET.key: MDNET}
    table = references()
    for key in _keys(what):
        found[key] = table[key]
    return tuple(found.values())


def bibtex(what: Any) -> str:
    """Return BibTeX entries of what a run, a simulation or names rest on; see `cite`.

    Examples
    --------
    >>> print(bibtex("BAOA").split("@")[2].splitlines()[0])
    article{kieninger2022,
    """
    return "\n\n".join(reference.bibtex() for reference in cite(what)) + "\n"


def _keys(what: Any) -> list[str]:
    """Keys of a run, a simulation, a description, a name, or several of these."""
    if isinstance(what, str):
        return _named(what)
    if isinstance(what, Mapping):
        return _described(what)
    config = getattr(what, "config", None)
    if isinstance(config, Mapping):
        keys = _described(config)
        for name in ("gradient_square", "laplacian", "shadow_work"):
            if name in what:
                keys += _USES[name]
        return keys + list(_USES["trajectory"] if "trajectory" in config else ())
    if hasattr(what, "describe"):
        return _described(what.describe())
    if isinstance(what, Iterable):
        return [key for one in what for key in _keys(one)]
    raise SchemeError(
        f"cannot tell what to cite for {what!r}: expected a run, a simulation, an "
        "integrator, a potential, or names such as 'BAOAB'"
    )


def _named(name: str) -> list[str]:
    """Keys of a name; see `cite`."""
    table = references()
    if name in table:
        return [name]
    if name in _USES:
        return list(_USES[name])
    by_identifier = {r.identifier: r.key for r in table.values() if r.identifier}
    for identifier in (name, f"doi:{name}", f"arXiv:{name}"):
        if identifier in by_identifier:
            return [by_identifier[identifier]]
    integrators = _catalogue()
    if name in integrators:
        return list(integrators[name])
    known = sorted({*table, *_USES, *integrators})
    close = difflib.get_close_matches(name, known, n=3) or known
    raise SchemeError(
        f"nothing to cite is known as {name!r}; did you mean {', '.join(close)}?"
    )


def _described(record: Mapping[str, Any]) -> list[str]:
    """Keys of the description of a run, an integrator or a potential."""
    if "integrator" in record and "potential" in record:
        return [
            *_described(record["integrator"]),
            *_described(record["potential"]),
            *_USES["random"],
        ]
    integrators = _catalogue()
    if record.get("name") in integrators:
        return list(integrators[str(record["name"])])
    if "word" in record:
        return list(_USES["words"])
    if record.get("kind") == "Custom":  # named by the user
        return []
    keys: list[str] = []
    for name in (record.get("kind"), record.get("name")):
        if isinstance(name, str):
            keys += _USES.get(name, ())
    for value in record.values():  # the parts of sums and paths
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping):
                keys += _described(part)
    return keys


def _catalogue() -> dict[str, tuple[str, ...]]:
    """Keys of the papers of every integrator of the catalogue."""
    from mdnet import integrators

    return {entry.name: entry.references for entry in integrators.CATALOG}
