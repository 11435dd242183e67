"""Spheres and walls: exact geometry, laws on them, degrees of freedom, energy.

Deviations are judged in standard errors over 40 blocks or more (Student's t): one sound
comparison in 2e6 exceeds `LIMIT`, some 1e-4 for this file.
"""

import numpy as np
import pytest
from scipy.stats import truncnorm

import mdnet
from mdnet import analysis, integrators
from mdnet.errors import SchemeError
from mdnet.integrators import constraints
from mdnet.kernels import surface_arrays
from mdnet.potentials.base import Potential

from .physics_tools import z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT = 6.0


class Rows(Potential):
    """U = sum over rows w (of n weights) of K |w - c|^2/2 - b . w; tensor "w"."""

    def __init__(self, rows=1, b=(0.0, 0.0, 0.0), K=0.0, c=0.0):
        self.b, self.K, self.c = np.asarray(b, float), K, c
        self.rows, self.size = rows, rows * len(self.b)

    @property
    def layout(self):
        return {"w": (slice(0, self.size), (self.rows, len(self.b)))}

    def describe(self):
        return {"kind": "Rows", "rows": self.rows, "b": self.b.tolist()}

    def initial(self, replicas, seed=0):
        return np.random.default_rng(seed).standard_normal((replicas, self.size)) + 1

    def evaluator(self, backend, replicas, seed=0):
        return RowsEvaluator(self)


class RowsEvaluator:
    full, polynomial = True, None

    def __init__(self, U):
        self.U, self.b = U, np.tile(U.b, U.rows)

    def gradients(self, positions, out):
        out[...] = self.U.K * (positions - self.U.c) - self.b

    def forces(self, positions, out, call, energies=None):
        self.gradients(positions, out)
        np.negative(out, out=out)

    def energies(self, positions, out):
        q = positions.astype(np.float64)
        out[...] = 0.5 * self.U.K * ((q - self.U.c) ** 2).sum(1) - q @ self.b


def simulate(U, word="BAOAB", h=0.1, T=1.0, g=1.0, replicas=40, precision="double",
             seed=1, positions=None, **surfaces):  # fmt: skip
    mass = surfaces.pop("mass", 1.0)
    integrator = integrators.Constrained(word, h, T, g, mass, **surfaces)
    return mdnet.Simulation(
        U, integrator, replicas, positions, seed=seed, backend="cpu",
        precision=precision,
    )  # fmt: skip


def rows(sim, values=None):
    values = sim.state.positions if values is None else values
    return values.astype(float).reshape(sim.replicas, sim.potential.rows, -1)


# --- spheres --------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["BAOAB", "OBABO", "ABOBA", "BAB"])
@pytest.mark.parametrize("unit", ["row", "tensor"])
@pytest.mark.parametrize(("precision", "small"), [("double", 1e-12), ("single", 3e-6)])
def test_norms_are_kept_and_momenta_are_tangent(word, unit, precision, small):
    U = Rows(5, b=[1.0, 0.5, 0.0, -1.0], K=2.0, c=0.3)
    sim = simulate(U, word, 0.3, replicas=3, precision=precision, norms={"w": unit})
    axis = 2 if unit == "row" else (1, 2)
    start = (rows(sim) ** 2).sum(axis)
    first = rows(sim)
    sim.run(300)
    q, p = rows(sim), rows(sim, sim.state.momenta)
    np.testing.assert_allclose((q**2).sum(axis), start, rtol=small)
    assert np.abs((q * p).sum(axis) / np.sqrt(start)).max() < 10 * small
    assert np.abs(q - first).max() > 0.1
    if unit == "tensor":  # negative control: rows are free within the tensor
        assert np.abs((q**2).sum(2) - (first**2).sum(2)).max() > 0.1
    values = sim.scalars()
    K = (p**2).sum((1, 2)) / 2
    np.testing.assert_allclose(values["kinetic_energy"], K, rtol=1e-6)


def test_great_circles_are_followed_exactly():
    """One free step of any length, against the angle."""
    U = Rows(1, b=[0.0, 0.0])
    q, p, m, h = np.array([[0.6, 0.8]]), np.array([[-1.6, 1.2]]), 2.0, 7.3
    integrator = integrators.Constrained("BAB", h, mass=m, norms={"w": "row"})
    sim = mdnet.Simulation(U, integrator, 1, q, p, backend="cpu", precision="double")
    sim.run(1)
    angle = np.arctan2(0.8, 0.6) + 2.0 / m * h
    np.testing.assert_allclose(
        sim.state.positions[0], [np.cos(angle), np.sin(angle)], atol=1e-12
    )
    np.testing.assert_allclose(
        sim.state.momenta[0], [-2 * np.sin(angle), 2 * np.cos(angle)], atol=1e-12
    )


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "OBABO"])
def test_uniform_law_of_a_sphere(word):
    """Of a constant energy: moments of a coordinate, 1/3 and 1/5 in three dimensions.

    The momenta have two degrees of freedom a row.
    """
    U, T, radius = Rows(200), 2.0, 1.7
    sim = simulate(U, word, 0.7, T, norms={"w": ("row", radius)})
    sim.run(60)
    z = rows(sim)[:, :, 2] / radius
    for power, known in ((1, 0.0), (2, 1 / 3), (4, 1 / 5)):
        assert z_scores((z**power).mean(1), known) < LIMIT
    assert z_scores((z**2).mean(1), 0.36) > LIMIT
    values = sim.scalars()
    assert z_scores(values["kinetic_temperature"], T) < LIMIT
    assert z_scores(values["layer_kinetic_temperature"][:, 0], T) < LIMIT
    # Negative control: all weights counted.
    assert z_scores(values["kinetic_temperature"] * 2 / 3, T) > LIMIT
    assert sim.describe()["degrees_of_freedom"] == {"w": 400}


@pytest.mark.physics
@pytest.mark.parametrize("kappa", [0.5, 2.0, 6.0])
def test_von_mises_fisher(kappa):
    """U = -b . w on the unit sphere: <cos> = coth k - 1/k, k = |b|/T (Langevin)."""
    T = 0.5
    U = Rows(200, b=[0.0, 0.0, kappa * T])
    sim = simulate(U, h=0.1, T=T, norms={"w": ("row", 1.0)})
    sim.run(200)
    seen = []
    for _ in range(20):
        sim.run(20)
        seen.append(rows(sim)[:, :, 2].mean(1))
    known = 1 / np.tanh(kappa) - 1 / kappa
    assert z_scores(np.mean(seen, 0), known) < LIMIT
    assert z_scores(np.mean(seen, 0), 1 / np.tanh(1.1 * kappa) - 1 / 1.1 / kappa) > 6


@pytest.mark.physics
def test_projection_of_the_bath_is_needed(monkeypatch):
    """Negative control: noise along the radius reads as a wrong temperature."""
    call = constraints.Surfaces.call

    def skip(self, index, step):
        if index != constraints._BATHED:
            call(self, index, step)

    monkeypatch.setattr(constraints.Surfaces, "call", skip)
    sim = simulate(Rows(200), "BAOAB", 0.7, 2.0, norms={"w": ("row", 1.0)})
    sim.run(60)
    assert z_scores(sim.scalars()["kinetic_temperature"], 2.0) > LIMIT


def test_energy_is_kept_to_second_order():
    errors = []
    for h in (0.1, 0.05, 0.025):
        U = Rows(4, b=[1.0, 0.0, -0.5], K=3.0, c=0.4)
        sim = simulate(U, "BAB", h, replicas=2, norms={"w": "row"})
        E = [sum(sim.scalars()[n] for n in ("potential_energy", "kinetic_energy"))]
        for _ in range(round(10 / h)):
            sim.run(1)
            E.append(
                sum(sim.scalars()[n] for n in ("potential_energy", "kinetic_energy"))
            )
        errors.append(np.abs(np.array(E) - E[0]).max())
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert slopes == pytest.approx(2, abs=0.15)


def test_reversible():
    U = Rows(4, b=[1.0, 0.0, -0.5], K=3.0, c=0.4)
    sim = simulate(U, "BAB", 0.2, replicas=2, norms={"w": "row"})
    start = sim.state.positions.copy()
    sim.run(50)
    assert np.abs(sim.state.positions - start).max() > 0.1
    sim.set_momenta(-sim.state.momenta)
    sim.run(50)
    np.testing.assert_allclose(sim.state.positions, start, atol=1e-10)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_first_law(precision):
    U = Rows(300, b=[1.0, 0.5, 0.0, -1.0, 0.1, 0.2, 3.0], K=2.0, c=0.3)
    sim = simulate(U, h=0.2, replicas=2, precision=precision, norms={"w": "tensor"})
    K0 = sim.scalars()["kinetic_energy"].copy()
    sim.run(100)
    values = sim.scalars()
    np.testing.assert_allclose(
        values["kinetic_energy"] - K0, values["heat"] + values["kick_work"], rtol=1e-8
    )
    np.testing.assert_allclose(values["layer_heat"].sum(1), values["heat"], rtol=1e-9)


def test_a_network_on_spheres(tmp_path):
    """Minimised and run: rows keep the norms they had; other tensors are free."""
    U = posterior().minibatch(16)
    path = tmp_path / "run.h5md"
    norms = {"0.weight": "row", "1.weight": ("tensor", 2.0)}
    sim = simulate(U, h=0.05, replicas=3, precision="single", norms=norms)
    part = U.layout["0.weight"][0]

    def lengths():
        w = sim.state.positions[:, part].reshape(3, 6, 4).astype(float)
        return np.linalg.norm(w, axis=2)

    start = lengths()
    energies = sim.minimize(60)
    assert (energies[-1] < energies[0]).all()
    np.testing.assert_allclose(lengths(), start, rtol=1e-5)
    sim.run(100, trajectory=path, every=10)
    np.testing.assert_allclose(lengths(), start, rtol=1e-5)
    last = sim.state.positions[:, U.layout["1.weight"][0]].astype(float)
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), 2.0, rtol=1e-5)
    with mdnet.open(path) as run:
        found = analysis.temperatures(run, burn_in=20)
        assert run.config["degrees_of_freedom"]["0.weight"] == 24 - 6
        assert run.config["degrees_of_freedom"]["1.weight"] == 12 - 1
    assert np.isnan(found.virial.layer.value[[0, 2]]).all()
    assert np.isfinite(found.virial.layer.value[[1, 3]]).all()
    assert found.virial.layer_verdicts[0] == "undetermined"
    assert np.isfinite(found.kinetic.layer.value).all()


# --- walls ----------------------------------------------------------------------------


def test_a_box_folds_the_free_flight():
    U, wall, h = Rows(1, b=[0.0] * 4), 1.5, 0.4
    q = np.array([[0.3, -1.4, 1.5, 0.0]])
    p = np.array([[9.0, -3.0, 0.5, 0.0]])
    integrator = integrators.Constrained("BAB", h, walls={"w": ("element", wall)})
    sim = mdnet.Simulation(U, integrator, 1, q, p, backend="cpu", precision="double")
    sim.run(20)
    y = (q + wall + 20 * h * p) % (4 * wall)
    known = np.where(y > 2 * wall, 4 * wall - y, y) - wall
    np.testing.assert_allclose(sim.state.positions, known, atol=1e-12)
    assert np.array_equal(np.abs(sim.state.momenta), np.abs(p))


@pytest.mark.parametrize("unit", ["row", "tensor", "element"])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_walls_hold_and_keep_the_kinetic_energy(unit, precision):
    U, wall = Rows(6, b=[0.0, 0.0, 0.0]), 1.2
    start = np.clip(U.initial(4), -0.2, 0.2)
    sim = simulate(U, "BAB", 0.5, replicas=4, precision=precision, positions=start,
                   walls={"w": (unit, wall)})  # fmt: skip
    K = sim.scalars()["kinetic_energy"].copy()
    small = 1e-12 if precision == "double" else 2e-6
    axis = {"row": 2, "tensor": (1, 2)}.get(unit)
    turned = 0
    for _ in range(40):
        before = sim.state.momenta.copy()
        sim.run(1)
        turned += not np.array_equal(before, sim.state.momenta)
        q = rows(sim)
        size = np.abs(q) if axis is None else np.sqrt((q**2).sum(axis))
        assert size.max() <= wall * (1 + small)
        np.testing.assert_allclose(sim.scalars()["kinetic_energy"], K, rtol=small * 40)
    assert turned > 20


def test_a_flight_inside_a_ball_is_that_of_a_billiard():
    """Chords of a circle: all equally long, at one angle; h does not matter."""
    q, v = np.array([[[0.5, 0.0]]]), np.array([[[0.0, 1.0]]])
    one, other = (q.copy(), v.copy()), (q.copy(), v.copy())
    surface_arrays.bounce(np, *one, np.full((1, 1, 1), 30.0), 1.0)
    for _ in range(300):
        surface_arrays.bounce(np, *other, np.full((1, 1, 1), 0.1), 1.0)
    np.testing.assert_allclose(one[0], other[0], atol=1e-10)
    np.testing.assert_allclose(one[1], other[1], atol=1e-10)
    # Angular momentum is kept; the chord from (.5, 0) upwards ends at y = sqrt(3)/2.
    (x, y), (u, w) = one[0][0, 0], one[1][0, 0]
    assert x * w - y * u == pytest.approx(0.5)
    surface_arrays.bounce(np, q, v, np.full((1, 1, 1), np.sqrt(0.75)), 1.0)
    np.testing.assert_allclose(q[0, 0], [0.5, np.sqrt(0.75)], atol=1e-12)


@pytest.mark.physics
@pytest.mark.parametrize(("unit", "known"), [("row", 3 / 5), ("element", 1.0)])
def test_uniform_law_within_walls(unit, known):
    """<|w|^2>/wall^2 of a ball and of a cube in three dimensions."""
    U, wall = Rows(200), 1.3
    sim = simulate(U, h=0.5, T=2.0, positions=np.zeros(600), walls={"w": (unit, wall)})
    sim.run(100)
    seen = (rows(sim) ** 2).sum(2).mean(1) / wall**2
    assert z_scores(seen, known) < LIMIT
    assert z_scores(seen, 1.03 * known) > LIMIT
    assert z_scores(sim.scalars()["kinetic_temperature"], 2.0) < LIMIT


@pytest.mark.physics
def test_truncated_normal():
    """Springs inside a box: the variance of a normal cut off at the walls."""
    U, wall = Rows(400, K=1.0), 1.0
    sim = simulate(U, h=0.05, positions=np.zeros(1200), walls={"w": ("element", wall)})
    sim.run(200)
    seen = []
    for _ in range(10):
        sim.run(20)
        seen.append((rows(sim) ** 2).mean((1, 2)))
    known = truncnorm(-wall, wall).var()
    assert z_scores(np.mean(seen, 0), known) < LIMIT
    assert z_scores(np.mean(seen, 0), wall**2 / 3) > LIMIT  # uniform: the spring counts


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize(
    "surfaces",
    [
        {"norms": {"w": "row"}},
        {"norms": {"w": ("tensor", 2.0)}, "mass": 2.0},
        {"walls": {"w": ("row", 1.0)}, "mass": np.repeat([1.0, 2.0, 0.5], 4)},
        {"walls": {"w": ("tensor", 1.5)}},
        {"walls": {"w": ("element", 0.6)}, "mass": np.linspace(1.0, 2.0, 12)},
    ],
)
def test_compiled_motion_is_that_of_the_arrays(surfaces, precision):
    U = Rows(3, b=[1.0, 0.5, 0.0, -1.0], K=2.0, c=0.3)
    start = np.clip(U.initial(3), -0.28, 0.28)
    sims = [
        simulate(U, h=0.5, replicas=3, precision=precision, positions=start, **surfaces)
        for _ in range(2)
    ]
    sims[1]._companion._compiled = None
    small = 1e-11 if precision == "double" else 3e-4
    for sim in sims:
        sim.run(12)
    for name in ("positions", "momenta"):
        one, other = (getattr(sim.state, name) for sim in sims)
        np.testing.assert_allclose(one, other, atol=small)
    one, other = (sim.scalars() for sim in sims)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=30 * small, err_msg=name)


# --- files, errors --------------------------------------------------------------------

RESTARTS = {
    "spheres": {"norms": {"*.weight": "row"}},
    "spheres and walls": {
        "norms": {"0.weight": ("row", 1.5)},
        "walls": {"1.weight": ("row", 9.0), "1.bias": ("element", 9.0)},
        "temperature": {"0.*": 2.0, "*": 1.0},
        "mass": 2.0,
    },
    "schedule": {
        "norms": {"1.weight": "tensor"},
        "friction": mdnet.schedules.linear(1.0, 2.0, 40),
    },
}


@pytest.mark.parametrize("case", RESTARTS)
@pytest.mark.parametrize("word", ["BAOAB", "ABOBA"])
def test_a_resumed_run_is_the_uninterrupted_one(case, word, tmp_path):
    U = posterior().minibatch(16)
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    cadence = {"every": 7, "observables_every": 3, "restart_every": 50}

    def start():
        method = integrators.Constrained(word, 0.02, **RESTARTS[case])
        return mdnet.Simulation(U, method, 2, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(60, trajectory=whole, **cadence)
    sims[1].run(30, trajectory=parts, **cadence)
    resumed = mdnet.Simulation.resume(parts, potential=U)
    resumed.run(30)
    assert_same_state(sims[0], resumed)
    for name, value in sims[0].state.variables.items():
        assert np.array_equal(value, resumed.state.variables[name]), name
    assert_same_files(whole, parts)


@pytest.mark.parametrize(
    ("surfaces", "message"),
    [
        ({}, "norms and walls are empty"),
        ({"norms": {"x": "row"}}, "'x' matches none of the tensors w"),
        ({"norms": {"w": "column"}}, "expected one of 'tensor', 'row' with"),
        ({"norms": {"w": "element"}}, "expected one of 'tensor', 'row' with"),
        ({"norms": {"w": ("row", -1.0)}}, "radius > 0"),
        ({"norms": ["w"]}, "expected a mapping"),
        ({"walls": {"w": "row"}}, "radius > 0"),
        ({"walls": {"w": ("row", 0.1)}}, "beyond its wall at 0.1"),
        ({"norms": {"w": "row"}, "walls": {"*": ("row", 9.0)}}, "w are on two"),
        ({"norms": {"w": "row"}, "mass": np.arange(1.0, 7)}, "masses of tensor 'w'"),
        ({"norms": {"w": "row"}, "positions": np.zeros(6)}, "row 0 .* norm 0"),
        ({"norms": {"w": "row"}, "word": "O{BAB}O"}, "plain words"),
    ],
)
def test_what_is_refused(surfaces, message):
    with pytest.raises(SchemeError, match=message):
        simulate(Rows(2), **surfaces)


def test_frozen_weights_and_surfaces_are_not_mixed():
    with pytest.raises(SchemeError, match="not together with"):
        integrators.Constrained("BAB", 0.1, frozen=["b"], norms={"w": "row"})
