"""Orders, reversibility, shadow energies, symplecticity and stability of the words.

Nothing here is random but the starts: every bound is on a deterministic number.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, validate
from mdnet.errors import SchemeError

from .physics_tools import Coupled

K4 = np.array(
    [
        [2.0, 0.5, 0.0, 0.3],
        [0.5, 1.5, -0.4, 0.0],
        [0.0, -0.4, 1.0, 0.2],
        [0.3, 0, 0.2, 3],
    ]
)
MASS4 = np.array([1.0, 2.0, 0.5, 1.5])
WORDS = [
    integrators.VelocityVerlet,
    integrators.PositionVerlet,
    integrators.Yoshida4,
    integrators.Omelyan4,
]


def simulate(potential, integrator, replicas, seed=0, precision="double", **start):
    return mdnet.Simulation(
        potential,
        integrator,
        replicas=replicas,
        seed=seed,
        backend="cpu",
        precision=precision,
        **start,
    )


def hamiltonian(sim, potential, mass):
    q, p = sim.state.positions, sim.state.momenta
    return potential.energy(q) + (p**2 / (2 * mass)).sum(1)


def shadow(sim, potential, mass, h):
    """H + h^2 (p U'' p / (12 m^2) - |U'|^2 / (24 m)) of velocity Verlet."""
    q, p = sim.state.positions, sim.state.momenta
    v = p / mass
    stretch = np.einsum("ri,ij,rj->r", v, potential.matrix, v)
    stretch += 3 * potential.quartic * (q**2 * v**2).sum(1)
    force = (potential.gradient(q) ** 2 / mass).sum(1)
    return hamiltonian(sim, potential, mass) + h**2 * (stretch / 12 - force / 24)


def energy_spread(make, energy, steps, duration=8.0, mass=MASS4):
    """Standard deviation of an energy along a path, averaged over starts, per step."""
    potential = Coupled(K4, quartic=0.3)
    out = []
    for h in steps:
        sim = simulate(potential, make(dt=h, mass=mass), 16, seed=4)
        values = [energy(sim, potential, mass, h)]
        for _ in range(round(duration / h)):
            sim.run(1)
            values.append(energy(sim, potential, mass, h))
        out.append(np.std(values, axis=0).mean())
    return np.array(out)


def slope(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


def plain(sim, potential, mass, h):
    return hamiltonian(sim, potential, mass)


def suzuki_in_yoshidas_place(dt, mass):
    w = 1 / (4 - 4 ** (1 / 3))
    u = 1 - 2 * w
    table = [("B", w / 2), ("A", w), ("B", (w + u) / 2), ("A", u)]
    table += [("B", (w + u) / 2), ("A", w), ("B", w / 2)]
    return integrators.Splitting(table, dt, 1.0, 0.0, mass)


@pytest.mark.parametrize(
    ("make", "order", "margin"),
    [
        (integrators.VelocityVerlet, 2, 0.1),
        (integrators.PositionVerlet, 2, 0.1),
        (integrators.Yoshida4, 4, 0.2),
        (integrators.Omelyan4, 4, 0.2),
        # Negative control: wrong weights make a "Yoshida" of second order.
        (suzuki_in_yoshidas_place, 2, 0.2),
    ],
)
@pytest.mark.parametrize("measure", ["energy", "end"])
def test_error_has_the_order_of_the_word(make, order, margin, measure):
    largest = {"energy": 0.2, "end": 0.1}[measure] if order == 2 else 0.15
    found = validate.order(
        lambda dt: make(dt=dt, mass=MASS4),
        Coupled(K4, quartic=0.3),
        order,
        dt=largest,
        time=40 * largest,
        measure=measure,
        margin=margin,
        replicas=16,
        seed=4,
    )
    assert found, str(found)


def test_omelyan_is_more_accurate_than_yoshida():
    """PEFRL, with 4 force calls against 3: some 17 times here at the same step."""
    yoshida = energy_spread(integrators.Yoshida4, plain, [0.1])[0]
    omelyan = energy_spread(integrators.Omelyan4, plain, [0.1])[0]
    assert 10 < yoshida / omelyan < 40


@pytest.mark.parametrize(
    ("energy", "order", "margin"), [(plain, 2, 0.05), (shadow, 4, 0.1)]
)
def test_shadow_hamiltonian_of_velocity_verlet(energy, order, margin):
    steps = np.array([0.12, 0.09, 0.06, 0.04])
    errors = energy_spread(integrators.VelocityVerlet, energy, steps)
    assert order - margin < slope(steps, errors) < order + margin


def test_shadow_of_the_other_verlet_is_no_shadow_here():
    """Negative control: position Verlet has another one, so this stays at order 2."""
    steps = np.array([0.12, 0.09, 0.06, 0.04])
    errors = energy_spread(integrators.PositionVerlet, shadow, steps)
    assert slope(steps, errors) < 2.2


@pytest.mark.parametrize(
    "make",
    WORDS,
)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_energy_does_not_drift(make, precision):
    """The mean energy error of late times is that of early ones, over 700 periods."""
    sim = simulate(potentials.Harmonic(1.0, size=64), make(dt=0.3), 4, 1, precision)
    memory = mdnet.reporters.Memory(37, positions=False)
    sim.run(15_000, reporters=[memory])
    total = memory["potential_energy"].value + memory["kinetic_energy"].value
    error = total / total[0] - 1
    assert np.abs(error).max() < 0.03
    early, late = np.array_split(error, 2)
    noise = 1e-5 if precision == "single" else 0.0  # rounding walks at random
    drift = np.abs(late.mean(0) - early.mean(0)).max()
    assert drift < 0.1 * np.abs(error).max() + noise


@pytest.mark.parametrize("make", WORDS)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("single", 1e-3), ("double", 1e-11)]
)
def test_reversing_momenta_returns_to_the_start(make, precision, tolerance):
    """Over a hundred steps, on a fused potential and on one with force calls."""
    for potential in (potentials.DoubleWell(size=2000), Coupled(K4, quartic=0.3)):
        found = validate.reversibility(
            make(dt=0.05), potential, seed=2, precision=precision, tolerance=tolerance
        )
        assert found, str(found)


def test_an_asymmetric_word_is_not_reversible():
    """Negative control of the test above: symplectic Euler returns to O(h) only."""
    word = integrators.Splitting("BA", dt=0.05, friction=0.0)
    found = validate.reversibility(word, potentials.DoubleWell(size=2000), seed=2)
    assert found.positions > 1e-2
    assert not found


Z = np.array([0.4, -0.7, 0.2, 0.9]), np.array([-0.3, 0.5, 1.1, -0.6])


@pytest.mark.parametrize("make", WORDS)
@pytest.mark.parametrize(("quartic", "steps"), [(0.0, 30), (0.3, 2)])
def test_steps_are_symplectic(make, quartic, steps):
    """J' S J = S for D = 4, on a quadratic and on an anharmonic potential."""
    found = validate.symplecticity(
        make(dt=0.2, mass=MASS4),
        Coupled(K4, quartic),
        steps,
        positions=Z[0],
        momenta=Z[1],
    )
    assert found, str(found)
    assert found.residual < 1e-10
    assert abs(found.log_determinant) < 1e-10


def test_friction_is_not_symplectic():
    """Negative control: damping contracts phase space by e^(-friction h D) a step."""
    word = integrators.OBABO(dt=0.2, temperature=0.0, friction=0.5)
    found = validate.symplecticity(word, Coupled(K4), 3, positions=Z[0], momenta=Z[1])
    assert not found
    assert found.residual > 0.1
    assert found.log_determinant == pytest.approx(-0.5 * 0.2 * 3 * 4, rel=1e-9)


BOUNDED = [e for e in integrators.CATALOG if e.limit is not None]


@pytest.mark.parametrize("entry", BOUNDED, ids=lambda e: e.name)
def test_stability_limits_of_the_catalogue(entry):
    """Runs just inside the limit stay bounded; just outside they are refused."""
    limit = entry.limit
    if "h omega < " in entry.stability and "sqrt" not in entry.stability:
        assert float(entry.stability.split("<")[1]) == limit
    potential = potentials.Harmonic(stiffness=1.0, size=8)
    sim = simulate(potential, entry.make(dt=limit * (1 - 1e-3)), 2)
    sim.run(3000)
    assert np.isfinite(sim.state.positions).all()
    assert np.abs(sim.state.positions).max() < 1e4
    with pytest.raises(SchemeError, match="stability limit") as caught:
        simulate(potential, entry.make(dt=limit * (1 + 1e-3)), 2)
    bound = float(str(caught.value).split("dt < ")[1].split()[0])
    assert bound == pytest.approx(limit, rel=5e-4)
    # Outside, where the potential keeps its curvature to itself, the run blows up.
    outside = simulate(Coupled(np.eye(8)), entry.make(dt=limit * 1.1), 2)
    with pytest.raises(mdnet.DivergenceError):
        outside.run(6000)


def test_stability_with_momentum_mass_and_replicas():
    soft = potentials.Harmonic(stiffness=4.0, size=3)
    for momentum in (0.5, 0.9):
        bound = 2 * (1 + momentum) / 4
        simulate(soft, integrators.SGD(dt=0.999 * bound, momentum=momentum), 1)
        with pytest.raises(SchemeError, match="stability limit"):
            simulate(soft, integrators.SGD(dt=1.001 * bound, momentum=momentum), 1)
    mass = np.array([1.0, 0.25, 4.0])
    simulate(soft, integrators.BAOAB(dt=0.499, mass=mass), 1)
    with pytest.raises(SchemeError, match=r"smallest mass 0\.25"):
        simulate(soft, integrators.BAOAB(dt=0.501, mass=mass), 1)
    with pytest.raises(SchemeError, match="stability limit"):
        simulate(soft, integrators.BAOAB(dt=[0.5, 1.01]), 2)
    free = potentials.Harmonic(stiffness=0.0, size=3)
    simulate(free, integrators.BAOAB(dt=100.0), 1)
