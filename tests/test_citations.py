"""What a run is said to rest on, and the bibliography behind it."""

import re
from pathlib import Path

import numpy as np
import pytest

import mdnet
from mdnet import citations, integrators, potentials, reporters
from mdnet.bibliography import references
from mdnet.errors import SchemeError

NOBODYS = {
    "Custom", "DoubleWell", "GaussianMixture", "Harmonic", "Path", "Projected",
    "Projection", "Restricted", "Scaled", "Sum", "TensorNorm",
}  # fmt: skip
"""Kinds of potentials that rest on no paper."""
PLAIN = {
    "Activation", "AvgPool2d", "Dense", "Embedding", "Flatten", "MLP", "MaxPool2d",
    "PriorDraw", "Sequential", "SequenceMean", "bernoulli", "categorical", "flat",
    "gaussian", "half_normal", "inverse_gamma", "jax", "label_flip", "laplace",
    "log_normal", "poisson", "student", "torch",
}  # fmt: skip
"""Names of parts of potentials that rest on none."""
RNG = np.random.default_rng(0)
ROWS, SPINS = RNG.standard_normal((12, 4)), np.sign(RNG.standard_normal((3, 20)))
BITS = (ROWS > 0).astype(float)


def posterior(network=None, likelihood="categorical", **more):
    classes = np.arange(12) % 2
    network = potentials.MLP([4, 3, 2]) if network is None else network
    return potentials.Posterior(network, likelihood, data=(ROWS, classes), **more)


def layered(*layers):
    return posterior(potentials.Sequential(layers, input_shape=(4,)))


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
    X, y = np.zeros((8, 2)), np.arange(8) % 2
    U = potentials.Posterior(potentials.MLP([2, 2]), data=(X, y))
    for potential in (U, U.minibatch(4)):
        assert keys(potential) == ["mdnet", "neal1996"]


def test_every_kind_of_potential_has_its_papers_or_needs_none():
    folder = Path(potentials.__file__).parent
    text = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    kinds = set(re.findall(r'"kind": "(\w+)"', text))
    names = set(re.findall(r'"name": "(\w+)"', text))
    assert len(kinds) > 20
    assert len(names) > 20
    assert kinds - set(citations._USES) == NOBODYS
    assert names - set(citations._USES) <= PLAIN


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: potentials.RBMPosterior(BITS, 2), {"smolensky1986"}),
        (
            lambda: potentials.RBMPosterior(BITS, 2, estimator="tap"),
            {"smolensky1986", "gabrie2015", "plefka1982"},
        ),
        (
            lambda: potentials.RBMPosterior(BITS, 2, estimator="cd"),
            {"smolensky1986", "hinton2002"},
        ),
        (lambda: potentials.Hopfield(SPINS), {"hopfield1982", "amit1985"}),
        (lambda: potentials.ModernHopfield(ROWS), {"ramsauer2021"}),
        (lambda: potentials.TeacherPerceptron(8, 20), {"gardner1989", "seung1992"}),
        (lambda: potentials.Committee(6, 2, 2), {"saad1995"}),
        (lambda: potentials.SphericalSpinGlass(6, p=3), {"crisanti1992"}),
        (lambda: potentials.SherringtonKirkpatrick(6), {"sherrington1975"}),
        (lambda: potentials.RandomEnergyModel(6), {"derrida1981"}),
        (lambda: potentials.ProbabilisticPCA(ROWS, 2), {"tipping1999"}),
        (
            lambda: potentials.LocalEntropy(potentials.Funnel(size=3), 1.0),
            {"baldassi2016", "chaudhari2019", "neal2003"},
        ),
        (lambda: posterior(prior=potentials.HorseshoePrior()), {"carvalho2010"}),
        (
            lambda: layered(
                potentials.Residual(potentials.Dense(4, 4), potentials.LayerNorm(4)),
                potentials.Dense(4, 2),
            ),
            {"he2016", "ba2016", "neal1996"},
        ),
        (
            lambda: posterior().minibatch(4, control_variate="svrg"),
            {"johnson2013", "dubey2016", "neal1996"},
        ),
        (
            lambda: posterior().minibatch(4, "replacement", control_variate="saga"),
            {"defazio2014", "dubey2016", "neal1996"},
        ),
        (
            lambda: potentials.VariationalAutoencoder(
                potentials.MLP([4, 3, 2]), potentials.MLP([1, 3, 4]), BITS, "bernoulli"
            ),
            {"kingma2014"},
        ),
    ],
)
def test_a_potential_names_its_papers(make, expected):
    found = keys(make())
    assert expected <= set(found)
    assert len(found) == len(set(found))


def test_functions_and_networks_by_name():
    assert keys("align")[1:] == ["ainsworth2023", "sussmann1992"]
    assert keys("hessian_vector")[1:] == ["pearlmutter1994"]
    assert keys("rmsprop_mass")[1:] == ["li2016", "wenzel2020"]
    assert keys("LeNet5")[1:] == ["lecun1998"]


def test_integrators_name_what_they_move_and_how():
    ladder = np.geomspace(1.0, 2.0, 3)
    hmc = integrators.HMC(dt=0.1, steps=3)
    exchange = keys(integrators.ReplicaExchange(hmc, ladder))
    assert {"hukushima1996", "duane1987"} < set(exchange)
    assert "leimkuhler2013robust" not in exchange
    assert "tuckerman1992" in keys(integrators.RESPA("OBABO", dt=0.1))
    assert keys(integrators.SGLD(dt=0.1, preconditioner="rmsprop"))[2:] == ["li2016"]
    assert "bennett1975" not in keys(integrators.BAOAB(dt=0.1, mass=2.0))
    for mass in (np.array([1.0, 2.0]), np.eye(2)):
        assert "bennett1975" in keys(integrators.BAOAB(dt=0.1, mass=mass))


def test_the_command_names_papers_of_the_potential(tmp_path, capsys):
    from mdnet.cli import main

    glass = potentials.SphericalSpinGlass(6, p=3)
    path = tmp_path / "run.h5md"
    sim = mdnet.Simulation(glass, integrators.BAOAB(dt=0.001), backend="cpu")
    sim.run(2, trajectory=path)
    main(["cite", str(path)])
    text = capsys.readouterr().out
    for key in ("crisanti1992", "leimkuhler2013robust", "debuyl2014"):
        assert f"{{{key},\n" in text


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
    assert "Wenzel et al." in references()["wenzel2020"].short
    verlet = citations.bibtex("VelocityVerlet")
    assert "  doi = {10.1063/1.442716}," in verlet
    assert "  journal = {J. Chem. Phys.}," in verlet
    assert f"version = {{{mdnet.__version__}}}" in verlet
    assert "  eprint = {1704.04289}," in citations.bibtex("SGD")
