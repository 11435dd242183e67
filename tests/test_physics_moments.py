"""Stationary moments of every word on an oscillator, against their exact values.

Each case holds four step sizes, three temperatures and `BLOCKS` independent blocks of
oscillators in the replicas of one simulation.  Deviations are judged in standard errors
over blocks, that is by Student's t with 39 degrees of freedom: a sound program passes
`LIMIT` in all but 5e-7 of the comparisons, so that a fresh seed raises a false alarm
somewhere in this file with probability 5e-4.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials

from .physics_tools import Oscillator, readings, stationary, z_scores

STEPS = np.array([0.25, 0.5, 1.0, 1.5])
TEMPERATURES = np.array([0.25, 1.0, 4.0])
BLOCKS, SIZE, LIMIT = 40, 1000, 6.0

BAO_MOMENTS = {
    0.25: (0.9053, 1.0108),
    0.5: (0.8710, 1.0310),
    1.0: (1.0780, 1.0780),
    1.5: (7.6228, 1.5708),
}
EXACT = {
    # <q^2> k/T, <p^2>/T at the end of a step, <p^2>/T just after the last bath
    "BAOAB": lambda h: (1.0, 1 - h**2 / 4, 1.0),
    "ABOBA": lambda h: (1.0, 1 / (1 - h**2 / 4), None),
    "OBABO": lambda h: (1 / (1 - h**2 / 4), 1.0, 1.0),
    "OABAO": lambda h: (1 - h**2 / 4, 1.0, 1.0),
    "BAOA": lambda h: (1.0, 1.0, 1.0),
    "BAO": lambda h: (*BAO_MOMENTS[h], BAO_MOMENTS[h][1]),
    "SGLD": lambda h: (1 / (1 - h / 2), None, 1.0),
}


def exact(word):
    """(moment, step, temperature): the table, filled up by the Lyapunov equation."""
    out = np.empty((3, len(STEPS)))
    for j, h in enumerate(STEPS):
        end, after = stationary(getattr(integrators, word)(dt=h), 1.0)
        solved = (end[0, 0], end[1, 1], after[1, 1])
        out[:, j] = [
            s if e is None else e for e, s in zip(EXACT[word](h), solved, strict=True)
        ]
    return np.repeat(out[:, :, None], len(TEMPERATURES), axis=2)


def measured(make, precision="single", potential=None, temperature=None, seed=1):
    """<q^2> k/T, <p^2>/T at the end and after the bath: (block, moment, h, T)."""
    shape = (BLOCKS, len(STEPS), len(TEMPERATURES))
    h = np.broadcast_to(STEPS[:, None], shape).ravel()
    T = np.broadcast_to(TEMPERATURES, shape).ravel()
    U = potential or potentials.Harmonic(stiffness=1.0, size=SIZE)
    sim = mdnet.Simulation(
        U,
        make(dt=h, temperature=T if temperature is None else temperature(T)),
        replicas=h.size,
        positions=np.zeros(U.size),
        seed=seed,
        backend="cpu",
        precision=precision,
    )
    sim.run(100)  # 25 times 1/friction at the smallest step: forgets to e^-25
    mean = readings(sim, 200, every=10)
    rows = [
        mean["potential_energy"] / (T * U.size / 2),
        mean["kinetic_energy"] / (T * U.size / 2),
        mean["kinetic_temperature"] / T,
    ]
    return np.stack(rows).reshape(3, *shape).swapaxes(0, 1)


@pytest.mark.parametrize("word", EXACT)
def test_table_solves_the_lyapunov_equation(word):
    """The closed forms themselves, against the linear map of the letters."""
    for h in STEPS:
        end, after = stationary(getattr(integrators, word)(dt=h), 1.0)
        solved = (end[0, 0], end[1, 1], after[1, 1])
        for value, known in zip(solved, EXACT[word](h), strict=True):
            if known is not None:
                # BAO is tabulated to four decimals.
                tolerance = 5e-5 if word == "BAO" else 1e-12
                assert value == pytest.approx(known, abs=tolerance)


@pytest.mark.physics
@pytest.mark.parametrize("word", EXACT)
@pytest.mark.parametrize("precision", ["single", "mixed"])
def test_moments(word, precision):
    blocks = measured(getattr(integrators, word), precision)
    known = exact(word)
    assert (z_scores(blocks, known) < LIMIT).all()
    # Negative control: every value off by 2%.
    assert (z_scores(blocks, known * 1.02) > LIMIT).all()


@pytest.mark.physics
def test_moments_through_force_calls():
    """The path of a network: one launch between two force calls, not whole steps."""
    blocks = measured(integrators.BAOAB, potential=Oscillator(SIZE))
    assert (z_scores(blocks, exact("BAOAB")) < LIMIT).all()


@pytest.mark.physics
@pytest.mark.parametrize(
    ("word", "wrong", "moments"),
    [
        # The neighbour in the alphabet, at steps where the two tables differ.
        ("BAOAB", integrators.ABOBA, (1,)),
        ("OBABO", integrators.OABAO, (0,)),
        # Unequal drifts: a coefficient of BAOAB that is off by a fifth.
        (
            "BAOAB",
            lambda dt, temperature: integrators.Splitting(
                (("B", 0.5), ("A", 0.6), ("O", 1.0), ("A", 0.4), ("B", 0.5)),
                dt,
                temperature,
            ),
            (0,),
        ),
        # Overdamped noise sqrt(T dt) in place of sqrt(2 T dt): half the temperature.
        (
            "SGLD",
            lambda dt, temperature: integrators.SGLD(dt, temperature / 2),
            (0, 2),
        ),
        # No noise, and a temperature that is 3% off.
        ("BAOAB", lambda dt, temperature: integrators.BAOAB(dt, 0.0), (0, 1, 2)),
        (
            "BAOAB",
            lambda dt, temperature: integrators.BAOAB(dt, 1.03 * temperature),
            (0, 1, 2),
        ),
    ],
)
def test_moments_of_wrong_methods_are_refused(word, wrong, moments):
    with np.errstate(divide="ignore"):  # without noise nothing scatters
        scores = z_scores(measured(wrong), exact(word))
    assert (scores[list(moments)] > LIMIT).all()


@pytest.mark.physics
@pytest.mark.parametrize("friction", [0.3, 10.0, np.inf])
def test_moments_do_not_depend_on_friction(friction):
    def make(dt, temperature):
        return integrators.BAOAB(dt, temperature, friction=friction)

    assert (z_scores(measured(make, seed=2), exact("BAOAB")) < LIMIT).all()


@pytest.mark.physics
def test_moments_with_a_mass_per_parameter():
    """Equipartition: every parameter at T/k whatever its mass, kinetic too."""
    k, replicas, h = 2.0, 4000, 0.4
    mass = np.array([0.25, 1.0, 4.0])
    sim = mdnet.Simulation(
        potentials.Harmonic(stiffness=k, size=3),
        integrators.OBABO(dt=h, temperature=0.5, friction=1.0, mass=mass),
        replicas=replicas,
        seed=5,
        backend="cpu",
    )
    sim.run(200)
    positions, momenta = sim.state.positions, sim.state.momenta
    known = 1 / (1 - h**2 * k / (4 * mass))
    assert (z_scores(positions.astype(float) ** 2 * k / 0.5, known) < 5).all()
    assert (z_scores(momenta.astype(float) ** 2 / (mass * 0.5), 1.0) < 5).all()
    # Negative control: the masses swapped.
    assert (z_scores(momenta.astype(float) ** 2 / (mass[::-1] * 0.5), 1.0) > 5).any()


@pytest.mark.parametrize(
    ("make", "shadow"),
    [
        (integrators.VelocityVerlet, lambda q, p, h: p**2 + (1 - h**2 / 4) * q**2),
        (integrators.PositionVerlet, lambda q, p, h: (1 - h**2 / 4) * p**2 + q**2),
    ],
)
def test_verlet_conserves_its_shadow_energy_exactly(make, shadow):
    h = STEPS
    sim = mdnet.Simulation(
        potentials.Harmonic(stiffness=1.0, size=20),
        make(dt=h),
        replicas=len(h),
        seed=3,
        backend="cpu",
        precision="double",
    )

    def energy(of):
        return of(sim.state.positions, sim.state.momenta, h[:, None])

    def plain(q, p, h):
        return q**2 + p**2

    start, first, worst = energy(shadow), energy(plain), 0.0
    for _ in range(20):
        sim.run(37)
        np.testing.assert_allclose(energy(shadow), start, rtol=1e-12)
        worst = np.maximum(worst, np.abs(energy(plain) / first - 1).max(1))
    # Negative control: the energy itself is off by O(h^2) and more.
    assert (worst > h**2 / 8).all()
