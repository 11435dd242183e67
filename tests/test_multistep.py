"""Multiple time steps: the maps of the papers, exact moments, resonance, order.

The linear map of a step on k = k_f + k_s is written out here; stationary moments follow
from the discrete Lyapunov equation.  Deviations are judged in standard errors over 40
blocks (Student's t): one sound comparison in 2e6 exceeds `LIMIT`.
"""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import DivergenceError, SchemeError

from .physics_tools import Oscillator, z_scores
from .test_restart import assert_same_files, assert_same_state, posterior

LIMIT, BLOCKS, SIZE = 6.0, 40, 600
KF, KS = 16.0, 4.0


def two(size=SIZE, fast=KF, slow=KS):
    return Oscillator(size, fast) + Oscillator(size, slow)


def linear(integrator, T=1.0, fast=KF, slow=KS):
    """(letter, M, Q) of each operation on (q, p), m = 1."""
    h, n = float(integrator.dt), integrator.inner
    for letter, share in integrator.scheme.operations:
        M, Q = np.eye(2), np.zeros((2, 2))
        if letter == "B":
            M[1, 0] = -share * h * slow
        elif letter == "O":
            M[1, 1] = c = np.exp(-integrator.friction * share * h)
            Q[1, 1] = (1 - c * c) * T
        else:
            d = share * h / n
            kick, drift = np.array([[1, 0], [-d / 2 * fast, 1]]), [[1, d], [0, 1]]
            M = np.linalg.matrix_power(kick @ drift @ kick, n)
        yield letter, M, Q


def moments(integrator, T=1.0):
    M, Q = np.eye(2), np.zeros((2, 2))
    for _, m, q in linear(integrator, T):
        M, Q = m @ M, m @ Q @ m.T + q
    return solve_discrete_lyapunov(M, Q)


def words(word, h, inner, T=1.0, g=1.0, **more):
    return integrators.RESPA(word, h, T, g, inner=inner, **more)


@pytest.mark.parametrize("word", ["BAB", "ABA", "BAOAB", "OBABO", "ABOBA"])
@pytest.mark.parametrize("inner", [1, 3])
def test_a_step_is_its_linear_map(word, inner):
    """Without noise, at T = 0: every step, launched together or one by one."""
    integrator = words(word, 0.3, inner, T=0.0)
    M = np.eye(2)
    for _, m, _ in linear(integrator):
        M = m @ M
    rng = np.random.default_rng(1)
    q, p = rng.standard_normal((2, 2, 5))
    sims = [
        mdnet.Simulation(two(5), integrator, 2, q, p, backend="cpu", precision="double")
        for _ in range(2)
    ]
    for _ in range(7):
        q, p = M[0, 0] * q + M[0, 1] * p, M[1, 0] * q + M[1, 1] * p
        sims[1].run(1)
    sims[0].run(7)
    for sim in sims:
        np.testing.assert_allclose(sim.state.positions, q, atol=1e-12)
        np.testing.assert_allclose(sim.state.momenta, p, atol=1e-12)
    assert np.array_equal(sims[0].state.positions, sims[1].state.positions)
    if inner == 1:
        return
    # Negative control: the slow force as often as the fast one is another map.
    plain = mdnet.Simulation(
        two(5), integrators.Splitting(word, 0.3, 0.0), 2, sims[0].state.positions,
        sims[0].state.momenta, backend="cpu", precision="double",
    )  # fmt: skip
    plain.run(1)
    sims[0].run(1)
    assert np.abs(plain.state.positions - sims[0].state.positions).max() > 1e-4


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "OBABO"])
def test_moments(word):
    T, h = 2.0, 0.6
    integrator = words(word, h, 5, T)
    known = moments(integrator, T)
    sim = mdnet.Simulation(
        two(), integrator, BLOCKS, positions=np.zeros(SIZE), seed=3, backend="cpu"
    )
    sim.run(60)
    seen = []
    for _ in range(30):
        sim.run(5)
        q, p = (x.astype(float) for x in (sim.state.positions, sim.state.momenta))
        seen.append([(q**2).mean(1), (p**2).mean(1)])
    blocks = np.mean(seen, 0).T
    exact = np.diag(known)
    assert (z_scores(blocks, exact) < LIMIT).all()
    assert (z_scores(blocks, 1.03 * exact) > LIMIT).all()
    # All forces at the long step would blow up.
    assert integrators.Splitting(word, h).growth(KF + KS) > 1.1


@pytest.mark.parametrize("inner", [1, 4])
def test_second_order(inner):
    """Energy error of B A B at fixed time: slope 2 in the long step."""
    errors = []
    for h in (0.1, 0.05, 0.025):
        sim = mdnet.Simulation(
            two(50), words("BAB", h, inner), 1, seed=3, backend="cpu",
            precision="double",
        )  # fmt: skip
        start = sim.scalars()
        E0 = start["potential_energy"] + start["kinetic_energy"]
        worst = 0.0
        for _ in range(round(4 / h)):
            sim.run(1)
            now = sim.scalars()
            energy = now["potential_energy"] + now["kinetic_energy"]
            worst = max(worst, float(np.abs(energy / E0 - 1).max()))
        errors.append(worst)
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert slopes == pytest.approx(2, abs=0.25)


def test_resonance_of_the_long_step():
    """Half a fast period: unstable, as the map says; a little beside it, stable."""
    half = np.pi / np.sqrt(KF)
    for h, stable in ((0.98 * half, False), (0.6 * half, True)):
        integrator = words("BAB", h, 60, g=0.0)
        M = np.eye(2)
        for _, m, _ in linear(integrator):
            M = m @ M
        assert (np.abs(np.linalg.eigvals(M)).max() < 1 + 1e-9) == stable
        sim = mdnet.Simulation(
            two(20), integrator, 1, seed=1, backend="cpu", precision="double"
        )
        if not stable:
            with pytest.raises(DivergenceError):
                sim.run(2000)
            continue
        before = sim.scalars()["potential_energy"] + sim.scalars()["kinetic_energy"]
        sim.run(2000)
        after = sim.scalars()["potential_energy"] + sim.scalars()["kinetic_energy"]
        assert after < 2 * before


def test_forces_are_counted():
    """Fast forces inner times a step, slow ones once, none twice at one place."""
    integrator = words("BAOAB", 0.1, 4)
    sim = mdnet.Simulation(two(5), integrator, 1, backend="cpu")
    sim.run(10)
    assert sim.state.variables["force_calls"].tolist() == [11, 81]
    first = sim.scalars()
    np.testing.assert_allclose(
        first["kinetic_energy"] - first["heat"] - first["kick_work"],
        mdnet.Simulation(two(5), integrator, 1, backend="cpu").scalars()[
            "kinetic_energy"
        ],
        rtol=1e-9,
    )


CASES = {
    "prior and likelihood": (
        lambda: potentials.Harmonic(size=44) + posterior(),
        {"fast": 0},
    ),
    "minibatch and the rest": (
        lambda: posterior().minibatch(16) + (posterior() + -1.0 * posterior()),
        {"fast": [0], "frozen": ["0.bias"]},
    ),
    "schedules, baths per tensor": (
        lambda: potentials.Harmonic(size=44) + posterior().minibatch(10),
        {
            "temperature": {"0.*": 2.0, "*": 1.0},
            "friction": mdnet.schedules.linear(1.0, 2.0, 50),
            "fast": -2,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    potential, settings = CASES[case]
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    cadence = {"every": 7, "observables_every": 3, "restart_every": 50}

    def start():
        method = integrators.RESPA("BAOAB", 0.02, inner=3, **settings)
        return mdnet.Simulation(potential(), method, 2, seed=3, backend="cpu")

    sims = [start(), start()]
    sims[0].run(60, trajectory=whole, store=("positions", "forces"), **cadence)
    sims[1].run(30, trajectory=parts, store=("positions", "forces"), **cadence)
    resumed = mdnet.Simulation.resume(parts, potential=potential())
    resumed.run(30)
    assert_same_state(sims[0], resumed)
    assert_same_files(whole, parts)
    if "frozen" in settings:
        still = slice(24, 30)
        first = mdnet.open(whole).positions[0]
        assert np.array_equal(
            sims[0].state.positions[:, still], first[:, still].astype(np.float32)
        )


@pytest.mark.parametrize(
    ("potential", "settings", "message"),
    [
        (lambda: potentials.Harmonic(size=3), {}, "with 0 parts: expected a sum"),
        (lambda: two(3), {"fast": [0, 1]}, "parts of both kinds"),
        (lambda: two(3), {"fast": 2}, r"fast=\[2\] of a potential with 2 parts"),
        (lambda: two(3), {"fast": "0"}, "expected the index of a part"),
        (lambda: two(3), {"inner": 0}, "inner=0: expected"),
    ],
)
def test_what_is_refused(potential, settings, message):
    with pytest.raises(SchemeError, match=message):
        mdnet.Simulation(potential(), integrators.RESPA("BAOAB", 0.1, **settings), 1)


def test_words_with_marks_are_refused():
    with pytest.raises(SchemeError, match="plain words"):
        integrators.RESPA("O{BAB}O", 0.1)
