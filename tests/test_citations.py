"""What a run is said to rest on, and the bibliography behind it."""

import re

import pytest

import mdnet
from mdnet import citations, integrators, potentials, reporters
from mdnet.bibliography import references
from mdnet.errors import SchemeError


def keys(what):
    return [reference.key for reference in citations.cite(what)]


def test_every_integrator_of_the_catalogue_has_its_papers():
    for entry in integrators.CATALOG:
        assert entry.references, entry.name
        assert set(entry.references) <= set(references()), entry.name
        assert keys(entry.name) == ["mdnet", *dict.fromkeys(entry.references)]


def test_the_bibliography_is_whole():
    for key, reference in references().items():
        assert key == reference.key
        assert reference.authors
        assert reference.title
        if key == "mdnet":
            continue
        assert 1900 < reference.year < 2100
        assert re.search(str(reference.year), key), key
        assert reference.where
        if reference.identifier:
            assert re.fullmatch(
                r"doi:10\.\d{4,5}/\S+|arXiv:\d{4}\.\d{4,5}", reference.identifier
            ), key
    found = [r.identifier for r in references().values() if r.identifier]
    assert len(set(found)) == len(found)


def test_papers_named_by_use_exist():
    for name, papers in citations._USES.items():
        assert set(papers) <= set(references()), name


def test_a_run_cites_what_it_used(tmp_path):
    U = potentials.Funnel(size=4) + 0.5 * potentials.Rosenbrock(size=4)
    sim = mdnet.Simulation(U, integrators.BAOAB(dt=0.001), backend="cpu")
    plain = keys(sim)
    assert {"leimkuhler2013robust", "neal2003", "rosenbrock1960"} < set(plain)
    assert "salmon2011" in plain
    assert "rugh1997" not in plain
    memory = reporters.Memory(5, thermometers=True)
    sim.run(10, reporters=[memory])
    assert {"rugh1997", "hutchinson1989"} < set(keys(memory))
    assert "debuyl2014" not in keys(memory)
    sim.run(10, trajectory=tmp_path / "run.h5md")
    with mdnet.open(tmp_path / "run.h5md") as run:
        assert {"debuyl2014", "rugh1997", "neal2003"} < set(keys(run))
        assert citations.bibtex(run).count("@") == len(keys(run))


def test_posterior_and_minibatch_of_it():
    import numpy as np

    X, y = np.zeros((8, 2)), np.arange(8) % 2
    U = potentials.Posterior(potentials.MLP([2, 2]), data=(X, y))
    for potential in (U, U.minibatch(4)):
        assert keys(potential) == ["mdnet", "neal1996"]


def test_names_keys_and_identifiers():
    assert keys("ensemble_ratio") == ["mdnet", "shirts2013", "merz2018"]
    assert keys(["BAOAB", "rhat"])[-1] == "vehtari2021"
    for name in ("yoshida1990", "10.1016/0375-9601(90)90092-3", "Yoshida4"):
        assert keys(name) == ["mdnet", "yoshida1990"]
    assert keys("1402.4102") == ["mdnet", "chen2014"]
    assert keys(integrators.Splitting("ABABA", dt=0.1))[1:] == [
        "leimkuhler2013rational",
        "sivak2014",
    ]
    # Functions of the user's own are nobody else's, whatever they are called.
    mine = potentials.Custom(2, lambda q: q, lambda q: q, name="Funnel")
    assert keys(mine) == ["mdnet"]


def test_what_is_not_known_is_refused():
    with pytest.raises(SchemeError, match="'BAOBA'; did you mean BAO"):
        citations.cite("BAOBA")
    with pytest.raises(SchemeError, match="expected a run"):
        citations.cite(3)


def test_bibtex_is_well_formed():
    text = citations.bibtex(list(references()))
    assert text.count("{") == text.count("}")
    entries = text.strip().split("\n\n")
    assert len(entries) == len(references())
    for entry in entries:
        head, *fields, end = entry.split("\n")
        assert re.fullmatch(r"@(article|inproceedings|book|software)\{\w+,", head)
        assert end == "}"
        for field in fields:
            assert re.fullmatch(r"  [a-z]+ = \{.+\},", field)
    verlet = citations.bibtex("VelocityVerlet")
    assert "  doi = {10.1063/1.442716}," in verlet
    assert "  journal = {J. Chem. Phys.}," in verlet
    assert f"version = {{{mdnet.__version__}}}" in verlet
    assert "  eprint = {1704.04289}," in citations.bibtex("SGD")
