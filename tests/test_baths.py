"""Baths and frozen weights tensor by tensor: exact heat flux, degrees of freedom.

Two groups of oscillators, each tied to its own place (stiffness K) and pairwise to
each other (stiffness S), at temperatures T1 and T2 and friction g, m = 1: the steady
flux is J = g S^2 (T1 - T2) / (2 (S^2 + g^2 (K + S))) a pair (Rieder, Lebowitz and
Lieb, here from the Lyapunov equation, which gives the value at finite h too).

Deviations are judged in standard errors over 40 blocks: by Student's t with 39 degrees
of freedom one sound comparison in 2e6 exceeds `LIMIT`, some 1e-4 for this file.
"""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

import mdnet
from mdnet import analysis, integrators, observables, potentials, schedules, validate
from mdnet.errors import SchemeError
from mdnet.integrators import baths
from mdnet.potentials.base import Potential
from mdnet.reporters import Reference

from .physics_tools import linear_step, z_scores
from .test_restart import assert_same_files, assert_same_state

LIMIT, BLOCKS, PAIRS = 6.0, 40, 300
K, S = 1.0, 1.5


class Pairs(Potential):
    """U = sum K (a^2 + b^2)/2 + S (a - b)^2/2 of tensors "a" and "b"."""

    def __init__(self, pairs, spring=S):
        self.size, self.spring = 2 * pairs, spring

    @property
    def layout(self):
        n = self.size // 2
        return {"a": (slice(0, n), (n,)), "b": (slice(n, 2 * n), (n,))}

    def describe(self):
        return {"kind": "Pairs", "size": self.size, "spring": self.spring}

    def evaluator(self, backend, replicas, seed=0):
        return PairsEvaluator(self.spring, self.size // 2)


class PairsEvaluator:
    full, polynomial = True, None

    def __init__(self, spring, n):
        self.spring, self.n = spring, n

    def gradients(self, positions, out):
        n = self.n
        stretch = self.spring * (positions[:, :n] - positions[:, n:])
        out[:, :n] = K * positions[:, :n] + stretch
        out[:, n:] = K * positions[:, n:] - stretch

    def forces(self, positions, out, call, energies=None):
        self.gradients(positions, out)
        np.negative(out, out=out)

    def energies(self, positions, out):
        q, n = positions.astype(np.float64), self.n
        stretch = q[:, :n] - q[:, n:]
        out[...] = 0.5 * (K * (q**2).sum(1) + self.spring * (stretch**2).sum(1))


def matrix(spring=S):
    return np.array([[K + spring, -spring], [-spring, K + spring]])


def flux(T1, T2, g, spring=S):
    """Heat from bath 1 to bath 2 a pair and unit of time, h -> 0."""
    return g * spring**2 * (T1 - T2) / (2 * (spring**2 + g**2 * (K + spring)))


def exact(integrator, temperatures, spring=S):
    """Heat each bath gives in a step at this h, and the covariance at its end."""
    plain = integrators.Splitting(
        integrator.word, integrator.dt, 1.0, integrator.friction
    )
    T = np.diag([0, 0, *temperatures, 0, 0])
    steps = [(a, M, Q @ T) for a, M, Q in linear_step(plain, matrix(spring))]
    M, Q = np.eye(6), np.zeros((6, 6))
    for _, m, q in steps:
        M, Q = m @ M, m @ Q @ m.T + q
    now = end = solve_discrete_lyapunov(M, Q)
    heat = np.zeros(2)
    for letter, m, q in steps:
        after = m @ now @ m.T + q
        if letter == "O":
            heat += 0.5 * np.diag(after - now)[2:4]
        now = after
    return heat, end


def make(word, temperatures, h=0.4, g=0.7, **more):
    T1, T2 = temperatures
    return integrators.Splitting(word, h, {"a": T1, "*": T2}, g, **more)


def measured_heat(integrator, spring=S, steps=300, pairs=PAIRS):
    """Heat of each tensor a pair and step: (BLOCKS, 2)."""
    U = Pairs(pairs, spring)
    sim = mdnet.Simulation(
        U, integrator, BLOCKS, positions=np.zeros(U.size), seed=4, backend="cpu"
    )
    sim.run(60)
    first = sim.scalars()["layer_heat"].copy()
    sim.run(steps)
    last = sim.scalars()
    np.testing.assert_allclose(last["layer_heat"].sum(1), last["heat"], rtol=1e-9)
    return (last["layer_heat"] - first) / (steps * pairs)


@pytest.mark.parametrize("g", [0.3, 1.0, 4.0])
def test_flux_in_closed_form_is_the_limit_of_small_steps(g):
    errors = []
    for h in (0.1, 0.05):
        heat, _ = exact(make("BAOAB", (3.0, 1.0), h, g), (3.0, 1.0))
        assert heat.sum() == pytest.approx(0, abs=1e-4 * h)
        errors.append(heat[0] / h - flux(3.0, 1.0, g))
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.2)
    assert abs(errors[1]) < 0.01


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "OBABO"])
def test_heat_flux(word):
    T = (3.0, 1.0)
    integrator = make(word, T)
    heat = measured_heat(integrator)
    known, _ = exact(integrator, T)
    assert (z_scores(heat, known) < LIMIT).all()
    assert heat[:, 0].mean() > 0 > heat[:, 1].mean()
    # Negative controls: baths that are swapped, a flux off by a fifth.
    assert (z_scores(heat, known[::-1]) > LIMIT).all()
    assert (z_scores(heat, 1.2 * known) > LIMIT).all()


@pytest.mark.physics
@pytest.mark.parametrize(
    ("temperatures", "spring"), [((1.0, 1.0), S), ((3.0, 1.0), 0.0)]
)
def test_no_flux_without_a_difference_or_a_spring(temperatures, spring):
    """In words that the oscillator's baths leave as they are: no heat on average."""
    heat = measured_heat(make("OBABO", temperatures), spring)
    assert (z_scores(heat, 0.0) < LIMIT).all()
    both = measured_heat(make("OBABO", (3.0, 1.0)))
    assert (z_scores(both, 0.0) > LIMIT).all()


@pytest.mark.physics
def test_moments_between_two_baths():
    """Covariances and kinetic temperatures of each tensor, at finite step."""
    T = (3.0, 1.0)
    integrator = make("BAOAB", T, h=0.6)
    _, end = exact(integrator, T)
    U = Pairs(PAIRS)
    sim = mdnet.Simulation(U, integrator, 400, seed=2, backend="cpu")
    sim.run(80)
    q, p = (x.astype(float) for x in (sim.state.positions, sim.state.momenta))
    a, b = slice(0, PAIRS), slice(PAIRS, None)
    pairs = [(q, a, q, a), (q, b, q, b), (q, a, q, b), (p, a, p, a), (p, b, p, b)]
    seen = np.stack([(x[:, i] * y[:, j]).mean(1) for x, i, y, j in pairs], axis=1)
    known = np.array([end[0, 0], end[1, 1], end[0, 1], end[2, 2], end[3, 3]])
    assert (z_scores(seen, known) < LIMIT).all()
    assert (z_scores(seen, known * 1.03)[[0, 1, 3, 4]] > LIMIT).all()


@pytest.mark.physics
def test_a_friction_per_tensor():
    """Equilibrium is that of any friction; the bath of a tensor without one rests."""
    U = Pairs(PAIRS)
    integrator = integrators.BAOAB(0.4, 2.0, {"a": 1.0, "b": 0.0})
    sim = mdnet.Simulation(U, integrator, 200, seed=2, backend="cpu")
    sim.run(100)
    values = sim.scalars()
    assert (values["layer_heat"][:, 1] == 0).all()
    assert (np.abs(values["layer_heat"][:, 0]) > 0).all()
    z = z_scores(values["potential_energy"] / U.size, 1.0)
    assert z < LIMIT


def test_momenta_are_drawn_at_the_temperature_of_their_tensor():
    U = Pairs(20000)
    sim = mdnet.Simulation(U, make("BAOAB", (4.0, 0.25)), 2, backend="cpu")
    T = sim.scalars()["layer_kinetic_temperature"]
    np.testing.assert_allclose(T, [[4.0, 0.25]] * 2, rtol=0.06)  # six sigma


def test_one_value_for_all_is_the_plain_integrator():
    """Bit for bit, though blocks are cut at tensors."""
    U = Pairs(1500)
    sims = [
        mdnet.Simulation(U, one, 3, seed=5, backend="cpu")
        for one in (
            integrators.BAOAB(0.1, {"*": [1.0, 2.0, 3.0]}, {"*": 0.5}),
            integrators.BAOAB(0.1, [1.0, 2.0, 3.0], 0.5),
        )
    ]
    for sim in sims:
        sim.run(20)
    assert np.array_equal(*(sim.state.positions for sim in sims))
    assert np.array_equal(*(sim.scalars()["target_temperature"] for sim in sims))


def test_target_of_each_tensor_is_known_to_the_analysis(tmp_path):
    """Uncoupled tensors agree with their own targets, and not with each other's."""
    path = tmp_path / "run.h5md"
    sim = mdnet.Simulation(
        Pairs(100, spring=0.0), make("BAOAB", (3.0, 1.0)), 10, seed=1, backend="cpu"
    )
    sim.run(3000, trajectory=path, every=10, observables_every=10)
    with mdnet.open(path) as run:
        found = analysis.temperatures(run, burn_in=100)
        wrong = analysis.temperatures(run, burn_in=100, target=2.0)
    assert found.relative
    assert found.verdict == "agrees", str(found)
    assert found.configurational.layer.value == pytest.approx(1.0, abs=0.05)
    assert wrong.kinetic.layer_verdicts == ("hot", "cold")


# --- frozen weights -----------------------------------------------------------------


def network():
    rng = np.random.default_rng(9)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    net = potentials.MLP([4, 6, 2], activation="tanh")
    return potentials.Posterior(net, data=(X, y))


FROZEN = {
    "names": ["0.weight", "1.b*"],
    "mask": np.arange(44) < 20,
    "scattered": np.arange(44) % 3 == 0,
}


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize(
    "word",
    [
        lambda frozen: integrators.BAOAB(0.05, 2.0, frozen=frozen),
        lambda frozen: integrators.Yoshida4(0.02, frozen=frozen),
        lambda frozen: integrators.OBABO(
            0.05, 1.0, np.inf, mass=np.linspace(1, 3, 44), frozen=frozen
        ),
    ],
)
def test_frozen_weights_never_move(word, frozen):
    U = network()
    integrator = word(FROZEN[frozen])
    still = ~integrator.free(U.layout)
    sim = mdnet.Simulation(U, integrator, 3, seed=1, backend="cpu")
    start = sim.state.positions.copy()
    sim.minimize(30)
    sim.run(150)
    sim.set_momenta(np.ones_like(start))
    sim.run(50)
    assert np.array_equal(sim.state.positions[:, still], start[:, still])
    assert (sim.state.momenta[:, still] == 0).all()
    assert (sim.state.positions[:, ~still] != start[:, ~still]).all()
    values = sim.scalars()
    p, m = sim.state.momenta.astype(float), np.broadcast_to(integrator.mass, 44)
    np.testing.assert_allclose(
        values["kinetic_energy"], (p**2 / m).sum(1) / 2, rtol=1e-6
    )
    first_law = values["heat"] + values["kick_work"]
    K0 = (1 / m[~still]).sum() / 2  # momenta were ones when the ledger began
    np.testing.assert_allclose(values["kinetic_energy"] - K0, first_law, rtol=1e-9)


@pytest.mark.physics
@pytest.mark.parametrize(
    "frozen",
    [["a"], np.arange(400) >= 150, np.arange(400) % 100 < 3, np.arange(400) % 4 > 1],
)
def test_degrees_of_freedom_leave_frozen_weights_out(frozen):
    """Every thermometer reads the target, of what moves; 400 replicas of one moment."""
    U = Pairs(200)
    integrator = integrators.BAOAB(0.2, 2.0, frozen=frozen)
    free = integrator.free(U.layout)
    sim = mdnet.Simulation(U, integrator, 400, seed=3, backend="cpu")
    sim.run(100)
    values = sim.scalars()
    assert z_scores(values["kinetic_temperature"], 2.0) < LIMIT
    counts = integrator.degrees_of_freedom(U.layout)
    assert counts.sum() == free.sum()
    wrong = values["kinetic_temperature"] * counts.sum() / U.size
    assert z_scores(wrong, 2.0) > LIMIT  # negative control
    layers = values["layer_kinetic_temperature"]
    assert (z_scores(layers[:, counts > 0], 2.0) < LIMIT).all()
    assert (layers[:, counts == 0] == 0).all()
    read = sim.thermometers(Reference())
    curvature = (K + S) * counts
    np.testing.assert_allclose(read["laplacian"].mean(0), curvature, rtol=0.02)
    assert (read["gradient_square"][:, counts == 0] == 0).all()
    T = read["gradient_square"].sum(1) / curvature.sum()
    assert z_scores(T, 2.0) < LIMIT
    assert z_scores(T * curvature.sum() / ((K + S) * U.size), 2.0) > LIMIT


def test_analysis_leaves_frozen_tensors_out(tmp_path):
    path = tmp_path / "run.h5md"
    sim = mdnet.Simulation(
        Pairs(50), integrators.BAOAB(0.4, 2.0, frozen=["a"]), 20, backend="cpu"
    )
    sim.run(1500, trajectory=path, every=5)
    with mdnet.open(path) as run:
        assert run.config["degrees_of_freedom"] == {"a": 0, "b": 50}
        found = analysis.temperatures(run, burn_in=50)
        momenta = validate.kinetic(run, burn_in=50)
    assert found.layers == ("b",)
    assert found.verdict == "agrees", str(found)
    assert momenta.names[:2] == ("all", "b")
    assert momenta.passed, str(momenta)


# --- files, errors --------------------------------------------------------------------

RESTARTS = {
    "a bath per tensor": lambda: integrators.BAOAB(
        0.02,
        {"0.*": schedules.linear(2.0, 1.0, 80), "*": [0.5, 1.5]},
        {"*.bias": 3.0, "*": 1.0},
    ),
    "constant": lambda: integrators.OBABO(0.02, {"0.*": 2.0, "*": 1.0}),
    "frozen names": lambda: integrators.BAOAB(0.02, frozen=["0.weight"]),
    "frozen mask": lambda: integrators.ABOBA(0.02, frozen=FROZEN["mask"]),
    "scattered mask": lambda: integrators.BAOAB(
        0.02, {"0.*": 2.0, "*": 1.0}, frozen=FROZEN["scattered"]
    ),
}


@pytest.mark.parametrize("case", RESTARTS)
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 50}
    sims = [
        mdnet.Simulation(network(), RESTARTS[case](), 2, seed=3, backend="cpu")
        for _ in range(2)
    ]
    sims[0].run(100, trajectory=whole, **settings)
    sims[1].run(50, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=network())
    assert_same_state(sims[1], resumed)
    resumed.run(50)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)


@pytest.mark.parametrize("word", ["BAOAB", "OBABO", "ABOBA", "BAO"])
def test_scattered_masks_move_the_rest_as_groups_do(word, monkeypatch):
    """Masked momenta and blocks of their own give the same trajectory and ledger."""
    U, mask = Pairs(100), np.arange(200) % 5 < 2
    make = getattr(integrators, word)
    sims = []
    for scattered in (True, False):
        integrator = make(0.1, {"a": 2.0, "b": 1.0}, frozen=mask)
        assert integrator.scattered
        integrator.__dict__["scattered"] = scattered
        sim = mdnet.Simulation(U, integrator, 2, backend="cpu", precision="double")
        sim.run(20)
        sims.append(sim)
    np.testing.assert_allclose(*(s.state.positions for s in sims), atol=1e-12)
    one, other = (s.scalars() for s in sims)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=1e-9, err_msg=name)


def test_frozen_scattered_masks_are_read_back():
    mask = np.random.default_rng(0).random(1001) < 0.5
    word = integrators.BAOAB(0.1, frozen=mask)
    again = integrators.from_description(word.describe())
    assert np.array_equal(again.frozen, mask)
    assert len(str(baths.describe(mask))) < 300


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": {"0.weight": 1.0}}, "no value for tensor '0.bias'"),
        ({"temperature": {"9.*": 1.0, "*": 2.0}}, r"'9\.\*' matches none"),
        ({"temperature": {"*": [1.0, 2.0]}}, r"expected one value or \(3,\)"),
        ({"temperature": {"*": -1.0}}, "temperature=-1.0: expected"),
        ({"friction": {}}, "expected values by names"),
        ({"frozen": ["nothing"]}, "matches none of the tensors 0.weight"),
        ({"frozen": np.zeros(7, bool)}, r"frozen has shape \(7,\)"),
        ({"frozen": np.zeros(44)}, "expected a boolean mask"),
        ({"frozen": 3}, "expected names of tensors"),
        ({"frozen": "*"}, "leaves no parameter to move"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(SchemeError, match=message):
        mdnet.Simulation(network(), integrators.BAOAB(0.1, **settings), 3)


def test_growth_looks_at_every_friction():
    """A step that only the weakest bath makes unstable is refused."""
    U = potentials.Harmonic(stiffness=1.0, size=4)
    word = integrators.BAO(2.5, 1.0, {"q": 0.0})
    with pytest.raises(SchemeError, match="stability limit dt < 2"):
        mdnet.Simulation(U, word, 1)
    assert observables.layer_bounds(U.layout).tolist() == [0, 4]
