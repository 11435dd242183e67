"""What to cite for a run: papers of its integrator, potential, thermometers and file.

`bibtex` writes them, `cite` returns them.  The papers are in `mdnet.bibliography`; an
integrator is tied to its own by its entry in `mdnet.integrators.catalog`, everything
else by `_USES`: potentials, their layers, likelihoods and priors by the kinds and names
that their `describe` gives.
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
    "Committee": ("saad1995",),
    "EnergyUmbrella": ("torrie1977",),
    "Funnel": ("neal2003",),
    "GradedHopfield": ("hopfield1984",),
    "Hopfield": ("hopfield1982", "amit1985", "personnaz1985"),
    "LinearRegression": ("mackay1992",),
    "LocalEntropy": ("baldassi2016", "chaudhari2019"),
    "ModernHopfield": ("ramsauer2021",),
    "MullerBrown": ("muller1979",),
    "Posterior": ("neal1996",),
    "ProbabilisticPCA": ("tipping1999",),
    "RBM": ("smolensky1986", "hinton2002", "salakhutdinov2008"),
    "RBMPosterior": ("smolensky1986",),
    "RBMTrainer": ("smolensky1986", "tieleman2008", "hinton2002"),
    "RandomEnergyModel": ("derrida1981",),
    "Restraint": ("torrie1977",),
    "Rosenbrock": ("rosenbrock1960", "pagani2022"),
    "SherringtonKirkpatrick": ("sherrington1975", "thouless1977", "plefka1982"),
    "SphericalSpinGlass": ("crisanti1992", "kosterlitz1976"),
    "TeacherPerceptron": ("gardner1989", "gyorgyi1990", "seung1992"),
    "VariationalAutoencoder": ("kingma2014",),
    # gradients of Boltzmann machines ("ais" is below)
    "cd": ("hinton2002",),
    "tap": ("gabrie2015", "plefka1982"),
    # layers, and how they begin
    "Conv2d": ("lecun1998",),
    "FilterResponseNorm": ("singh2020",),
    "LayerNorm": ("ba2016",),
    "LeNet5": ("lecun1998",),
    "Orthogonal": ("saxe2014",),
    "ResNetFRN": ("he2016", "singh2020"),
    "Residual": ("he2016",),
    "VarianceScaling": ("lecun1998efficient", "glorot2010", "he2015"),
    # likelihoods and priors
    "half_cauchy": ("gelman2006",),
    "heteroscedastic": ("nix1994",),
    "hierarchical_gaussian": ("neal1996",),
    "horseshoe": ("carvalho2010",),
    "ordinal": ("mccullagh1980",),
    "student_t": ("lange1989",),
    # control variates of minibatches
    "fixed": ("baker2019",),
    "saga": ("defazio2014", "dubey2016"),
    "svrg": ("johnson2013", "dubey2016"),
    # what is done with potentials
    "align": ("ainsworth2023", "sussmann1992"),
    "committee_error": ("saad1995",),
    "committee_plateau": ("saad1995",),
    "flip_labels": ("zhang2017",),
    "gibbs_learning_curve": ("gyorgyi1990", "seung1992"),
    "hessian_vector": ("pearlmutter1994",),
    "hopfield_capacity": ("amit1985",),
    "hopfield_overlap": ("amit1985",),
    "random_basis": ("li2018",),
    # integrators beside the catalogue, and their masses
    "PreconditionedSGLD": ("welling2011", "li2016"),
    "masses": ("bennett1975",),
    "rmsprop_mass": ("li2016", "wenzel2020"),
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

_KINDS = {
    "Constrained": "BAOAB on surfaces",
    "RESPA": "RESPA of BAOAB",
    "ReplicaExchange": "ReplicaExchange of BAOAB",
    "SimulatedTempering": "SimulatedTempering of BAOAB",
}
"""Kinds of integrators that take other words, and their entries in the catalogue."""


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
    if type(what).__name__ in _USES and type(what).__module__.startswith("mdnet."):
        return list(_USES[type(what).__name__])
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
            *_moving(record["integrator"]),
            *_described(record["potential"]),
            *_USES["random"],
        ]
    if "word" in record:
        return _moving(record)
    if record.get("kind") == "Custom":  # named by the user
        return []
    keys: list[str] = []
    for name in (record.get("kind"), record.get("name"), record.get("estimator")):
        if isinstance(name, str):
            keys += _USES.get(name, ())
    for value in record.values():  # the parts of sums and paths
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping):
                keys += _described(part)
    return keys


def _moving(record: Mapping[str, Any]) -> list[str]:
    """Keys of the description of an integrator."""
    integrators = _catalogue()
    kind, word = record.get("kind"), str(record.get("word", "")).replace(" ", "")
    keys = list(integrators.get(_KINDS.get(str(kind), ""), ()))
    inner = record.get("integrator")
    if isinstance(inner, Mapping):
        return keys + _moving(inner)
    if kind in _USES:
        keys += _USES[str(kind)]
    elif record.get("name") in integrators:
        keys += integrators[str(record["name"])]
    else:
        keys += integrators.get(word, _USES["words"])
    learnt = record.get("tuning") or {}
    if (
        isinstance(record.get("mass"), list)
        or "metric" in record
        or learnt.get("masses")
    ):
        keys += _USES["masses"]
    return keys


def _catalogue() -> dict[str, tuple[str, ...]]:
    """Keys of the papers of every integrator of the catalogue."""
    from mdnet import integrators

    return {entry.name: entry.references for entry in integrators.CATALOG}
