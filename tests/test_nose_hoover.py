"""Nose-Hoover chains and stochastic velocity rescaling: what they conserve and sample.

Statistical checks compare means over at least 40 independent blocks of replicas with
exact ones: beyond 6 standard errors is a false alarm in 5e-7 of them.
"""

import json

import numpy as np
import pytest
from scipy import stats

import mdnet
from mdnet import integrators, potentials, random, reporters, schedules
from mdnet.errors import SchemeError
from mdnet.integrators.nose_hoover import suzuki_yoshida
from mdnet.kernels import thermostat_arrays
from mdnet.kernels.variates import chi_squares

from .physics_tools import Coupled, z_scores

LIMIT = 6.0


def chain(dt=0.1, **settings):
    return integrators.NoseHoover(dt=dt, **settings)


def rescaling(dt=0.1, **settings):
    return integrators.StochasticVelocityRescaling(dt=dt, **settings)


def simulate(potential, integrator, replicas=1, **settings):
    settings = {"backend": "cpu", "precision": "double", "seed": 3} | settings
    return mdnet.Simulation(potential, integrator, replicas, **settings)


class TwoTensors(potentials.Custom):
    """Oscillators in two tensors, whose bounds no block of parameters falls on."""

    @property
    def layout(self):
        return {
            "a": (slice(0, 30), (30,)),
            "b": (slice(30, self.size), (self.size - 30,)),
        }


def two_tensors(size=100):
    return TwoTensors(
        size=size,
        energy=lambda q: 0.5 * (q * q).sum(1),
        gradient=lambda q: 1.0 * q,
    )


# --- the thermostat's flow alone -------------------------------------------------


@pytest.mark.parametrize("stages", [1, 3, 5, 7])
def test_suzuki_yoshida_weights(stages):
    w = suzuki_yoshida(stages)
    assert len(w) == stages
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert np.abs(w - w[::-1]).max() == 0
    if stages > 1:
        assert (w**3).sum() == pytest.approx(0, abs=1e-12)
    if stages == 7:
        assert (w**5).sum() == pytest.approx(0, abs=1e-12)


def flow(stages, steps, time=2.0):
    """Chains of three links for two groups, from one start: (xi, log scale, phase)."""
    xi = np.array([[[0.3, -0.2], [0.5, 0.1], [-0.4, 0.2]]])
    ratio = np.array([[1.7, 0.4]])
    dof, length = np.array([5.0, 9.0]), time / steps
    weights = suzuki_yoshida(stages)[:, None, None] * length
    scale, phase = 0.0, 0.0
    for _ in range(steps):
        factor, turned = thermostat_arrays.chain(
            np, xi, ratio, dof, np.array([[0.7]]), weights
        )
        scale, phase = scale + np.log(factor), phase + turned
    return np.concatenate([xi.ravel(), scale.ravel(), phase])


@pytest.mark.parametrize(("stages", "order"), [(1, 2), (3, 4), (5, 4), (7, 6)])
def test_order_of_the_stages(stages, order):
    exact = flow(7, 1024)
    errors = [np.abs(flow(stages, n) - exact).max() for n in (32, 64)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)


def test_wrong_weights_are_of_second_order(monkeypatch):
    """Negative control: weights in use elsewhere, whose cubes do not cancel."""
    exact = flow(7, 1024)
    w = 1 / (4 - 4 ** (1 / 3))
    bad = np.array([w, 1 - 2 * w, w])
    assert (bad**3).sum() > 0.09
    monkeypatch.setitem(globals(), "suzuki_yoshida", lambda stages: bad)
    errors = [np.abs(flow(3, n) - exact).max() for n in (32, 64)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("groups", ["all", "layer", "parameter"])
@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("mass", [1.0, "each"])
def test_compiled_thermostat_equals_array_operations(
    groups, precision, mass, monkeypatch
):
    """The path that other devices take, on the same arrays."""
    u = two_tensors()
    mass = np.linspace(0.5, 2, u.size) if mass == "each" else mass
    found = []
    for compiled in (True, False):
        sim = simulate(
            u,
            chain(dt=[0.1, 0.2], groups=groups, mass=mass, chain=4, stages=3),
            replicas=2,
            precision=precision,
        )
        sim._companion._compiled = compiled
        sim.run(5)
        found.append(
            [sim.state.momenta.copy(), sim.state.sums.copy()]
            + [v.sum(axis=-1) for v in sim.state.variables.values()]
        )
    tolerance = 1e-12 if precision == "double" else 1e-5
    for one, other in zip(*found, strict=True):
        if one.shape == other.shape and one.ndim != 1:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_allclose(one, other, rtol=tolerance)


# --- what a step conserves -------------------------------------------------------


def drift(make, steps, precision="double"):
    """Largest deviation of the conserved quantity over four units of time."""
    u = potentials.Harmonic(stiffness=np.linspace(1, 4, 50))
    out = []
    for h in steps:
        sim = simulate(
            u, make(h), 8, positions=u.sample(8, 2.0, seed=1), precision=precision
        )
        memory = reporters.Memory(1, positions=False)
        sim.run(round(4 / h), reporters=[memory])
        value = memory["conserved"].value
        out.append(np.abs(value - value[0]).max(axis=0))
    return np.array(out)


@pytest.mark.parametrize("groups", ["all", "parameter"])
@pytest.mark.parametrize("links", [1, 2, 3, 5])
def test_conserved_energy_is_of_second_order(groups, links):
    def make(h):
        return chain(h, temperature=2.0, groups=groups, chain=links)

    errors = drift(make, [0.04, 0.02])
    assert np.log2(errors[0] / errors[1]).mean() == pytest.approx(2, abs=0.15)
    # Negative control: H alone is not conserved.
    sim = simulate(potentials.Harmonic(stiffness=np.ones(50)), make(0.02), 8)
    before = sim.scalars()
    h0 = before["potential_energy"] + before["kinetic_energy"]
    sim.run(200)
    after = sim.scalars()
    moved = after["potential_energy"] + after["kinetic_energy"] - h0
    kept = after["conserved"] - before["conserved"]
    assert (np.abs(moved) > 20 * np.abs(kept)).mean() > 0.8


def test_conserved_energy_of_rescaling():
    errors = drift(lambda h: rescaling(h, temperature=2.0), [0.1, 0.05, 0.025])
    order = np.log2(errors[:-1] / errors[1:]).mean()
    assert order == pytest.approx(2, abs=0.3)


def test_conserved_is_a_method_and_does_not_wander():
    u = Coupled(np.diag([1.0, 2.0, 3.0, 4.0]), quartic=0.1)
    sim = simulate(u, chain(0.05, temperature=0.5), 20)
    first = sim.integrator.conserved(sim.state)
    np.testing.assert_array_equal(first, sim.scalars()["conserved"])
    near, far = [], []
    for out in (near, far):
        for _ in range(50):
            sim.run(40)
            out.append(sim.integrator.conserved(sim.state) - first)
    assert np.abs(near).max() < 0.05
    assert np.abs(far).max() < 2 * np.abs(near).max()


def turned_back(potential, integrator, steps):
    sim = simulate(potential, integrator, 3)
    start = sim.state.positions.copy(), sim.state.momenta.copy()
    sim.run(steps)
    kept = {k: v.copy() for k, v in sim.state.variables.items()}
    sim.set_momenta(-sim.state.momenta)
    for name, value in kept.items():
        sim.state.variables[name][...] = -value if name == "xi" else value
    sim.run(steps)
    return max(
        np.abs(sim.state.positions - start[0]).max(),
        np.abs(sim.state.momenta + start[1]).max(),
        np.abs(sim.state.variables["xi"]).max(),
        np.abs(sim.state.variables["eta"]).max(),
    )


@pytest.mark.parametrize("groups", ["all", "layer", "parameter"])
@pytest.mark.parametrize("stages", [1, 3])
def test_reversible(groups, stages):
    integrator = chain(0.1, groups=groups, stages=stages, substeps=2)
    assert turned_back(two_tensors(60), integrator, 50) < 1e-10


def test_noise_is_not_reversible():
    """Negative control: the same check on a scheme that draws."""
    sim = simulate(two_tensors(60), integrators.BAOAB(0.1), 3)
    start = sim.state.positions.copy()
    sim.run(50)
    sim.set_momenta(-sim.state.momenta)
    sim.run(50)
    assert np.abs(sim.state.positions - start).max() > 0.1


@pytest.mark.parametrize("groups", ["all", "parameter"])
def test_volume_of_phase_space(groups):
    """ln det J of the map of (q, p, xi) is minus the phases, n eta_1 + eta_2 + ..."""
    u = Coupled(np.array([[2.0, 0.3], [0.3, 1.0]]), quartic=0.2)
    size, links = 2, 3
    count = links * (1 if groups == "all" else size)
    rng = np.random.default_rng(5)
    z0 = rng.normal(size=2 * size + count) * 0.7
    steps, width = 4, 1e-5
    n = z0.size
    points = np.vstack([z0, z0 + width * np.eye(n), z0 - width * np.eye(n)])
    points = np.vstack([points, z0 + 2 * width * np.eye(n), z0 - 2 * width * np.eye(n)])
    sim = simulate(
        u,
        chain(0.2, temperature=0.7, groups=groups),
        len(points),
        positions=points[:, :size],
        momenta=points[:, size : 2 * size],
    )
    xi = sim.state.variables["xi"]
    xi[...] = points[:, 2 * size :].reshape(xi.shape)
    sim.run(steps)
    after = np.hstack(
        [sim.state.positions, sim.state.momenta, xi.reshape(len(points), -1)]
    )
    plus, minus, far, near = (after[1 + i * n : 1 + (i + 1) * n] for i in range(4))
    jacobian = (8 * (plus - minus) - (far - near)) / (12 * width)
    _, log_volume = np.linalg.slogdet(jacobian)
    phases = sim.state.variables["eta"][0].sum() / 0.7
    assert log_volume == pytest.approx(-phases, abs=1e-8)
    assert abs(phases) > 0.1


# --- what they sample ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.physics
def test_chain_of_three_is_ergodic_on_an_oscillator():
    """Forty paths from low energies; a single thermostat keeps them on tori.

    Kolmogorov-Smirnov on 5500 positions 21 apart in time, p > 1e-6.
    """
    found = {}
    for links in (1, 3):
        sim = simulate(
            potentials.Harmonic(stiffness=1.0, size=1),
            chain(0.1, chain=links),
            40,
            positions=np.ones((40, 1)),
            momenta=np.linspace(0.4, 1.2, 40)[:, None],
        )
        memory = reporters.Memory(53)
        sim.run(53 * 600, reporters=[memory])
        q = memory.positions[50:, :, 0]
        test = stats.kstest(q[::4].ravel(), "norm").pvalue
        found[links] = (q**2).mean(0), (q**4).mean(0), test
    second, fourth, test = found[3]
    assert z_scores(second, 1.0) < LIMIT
    assert z_scores(fourth, 3.0) < LIMIT
    assert test > 1e-6
    # Negative control: one link.
    second, fourth, test = found[1]
    assert z_scores(second, 1.0) > LIMIT
    assert z_scores(fourth, 3.0) > LIMIT
    assert test < 1e-6


@pytest.mark.physics
@pytest.mark.parametrize("groups", ["all", "layer", "parameter"])
@pytest.mark.parametrize("make", [chain, rescaling])
def test_moments(make, groups):
    """Energies of a hundred oscillators in two tensors, for replicas of their own.

    At hω small: <q^2> k/T = 1 + O(h^4) and twice K after the bath T per weight; the
    variance of K tells the canonical law from that of constant energy.
    """
    if make is rescaling and groups == "parameter":
        with pytest.raises(SchemeError, match="groups='parameter'"):
            make(groups=groups)
        return
    blocks = 60
    T = np.tile([0.25, 1.0, 4.0], blocks)
    h = np.tile([0.1, 0.2, 0.3], blocks)
    u = two_tensors(100)
    z = random.normals(9, np.arange(T.size), 0, 0, u.size)
    sim = simulate(
        u,
        make(dt=h, temperature=T, relaxation_time=1.0, groups=groups),
        T.size,
        positions=np.sqrt(T)[:, None] * z,
    )
    sim.run(100)
    memory = reporters.Memory(5, positions=False)
    sim.run(1000, reporters=[memory])
    energy = (memory["potential_energy"].value / (50 * T)).mean(0).reshape(-1, 3)
    kinetic = memory["kinetic_temperature"].value / T
    layers = memory["layer_kinetic_temperature"].value / T[:, None]
    assert (z_scores(energy, 1.0) < LIMIT).all()
    assert (z_scores(kinetic.mean(0).reshape(-1, 3), 1.0) < LIMIT).all()
    assert (z_scores(layers.mean(0).reshape(-1, 3, 2), 1.0) < LIMIT).all()
    spread = ((kinetic - 1) ** 2).mean(0).reshape(-1, 3) * 50  # 2/n times n/2
    if groups == "all":
        assert (z_scores(spread, 1.0) < LIMIT).all()
    # Negative controls: 3% hotter; constant energy, whose K varies half as much.
    assert (z_scores(energy, 1.03) > LIMIT).all()
    still = simulate(u, integrators.VelocityVerlet(0.1), 60, positions=z[:60])
    memory = reporters.Memory(5, positions=False)
    still.run(500, reporters=[memory])
    fixed = memory["kinetic_temperature"].value
    low = ((fixed - fixed.mean(0)) ** 2).mean(0) * 50
    assert z_scores(low, 1.0) > LIMIT


@pytest.mark.physics
@pytest.mark.parametrize("dof", [1, 2, 3, 4, 101, 100_000])
def test_chi_squares_from_counters(dof):
    """Kolmogorov-Smirnov at p > 1e-6: a false alarm in 1e-6 of draws."""
    key = np.array([7, 0], np.uint64)
    normal, rest = np.empty((2, 4000, 2))
    chi_squares(np.array([dof, 3.0]), 5, 24, key, normal, rest)
    assert stats.kstest(normal[:, 0], "norm").pvalue > 1e-6
    if dof == 1:
        assert (rest[:, 0] == 0).all()
    else:
        assert stats.kstest(rest[:, 0], stats.chi2(dof - 1).cdf).pvalue > 1e-6
        assert stats.kstest(rest[:, 0], stats.chi2(1.1 * dof).cdf).pvalue < 1e-6
        together = np.corrcoef(normal[:, 0], rest[:, 0])[0, 1]
        assert abs(together) < 6 / np.sqrt(4000)
    # A replica's draws do not depend on how many others there are.
    few = np.empty((2, 5, 2))
    chi_squares(np.array([dof, 3.0]), 5, 24, key, *few)
    np.testing.assert_array_equal(few[0], normal[:5])
    np.testing.assert_array_equal(few[1], rest[:5])


@pytest.mark.physics
@pytest.mark.parametrize("dof", [1, 2, 7])
def test_exact_flow_of_the_kinetic_energy(dof):
    """From K one call leads to the non-central chi-square of a bath's flow.

    A bath of friction 1/2 tau acting on momenta with p^2 = 2K gives
    2K'/((1 - c) T) a non-central chi-square law of n degrees of freedom and
    non-centrality c 2K/((1 - c) T): so must the rescaling, from any K and h.
    """
    replicas, h, T, time = 4000, 0.8, 0.7, 1.3
    p = np.zeros((replicas, dof))
    p[:, 0] = 3.0
    u = potentials.Harmonic(stiffness=np.full(dof, 1e-12))
    sim = simulate(
        u,
        rescaling(h, temperature=T, relaxation_time=time),
        replicas,
        positions=np.zeros(dof),
        momenta=p,
    )
    sim.run(1)
    c = np.exp(-h / time)
    width = (1 - c) * T
    law = stats.ncx2(dof, c * 3.0**2 / width)
    scaled = (sim.state.momenta**2).sum(1) / width
    assert stats.kstest(scaled, law.cdf).pvalue > 1e-6
    # Negative control: twice the rate.
    wrong = np.exp(-2 * h / time)
    law = stats.ncx2(dof, wrong * 3.0**2 / ((1 - wrong) * T))
    assert stats.kstest(scaled * width / ((1 - wrong) * T), law.cdf).pvalue < 1e-6


# --- errors, bookkeeping, restart ------------------------------------------------


@pytest.mark.parametrize("make", [chain, rescaling])
def test_momenta_at_rest_are_refused(make):
    u = potentials.Harmonic(stiffness=np.ones(5))
    with pytest.raises(SchemeError, match=r"all zero.*draw_momenta"):
        simulate(u, make(), momenta=np.zeros((1, 5)))
    u = two_tensors()
    p = np.ones((2, u.size))
    p[1, 30:] = 0
    simulate(u, make(groups="all"), 2, momenta=p)
    with pytest.raises(SchemeError, match="replica 1, group 1"):
        simulate(u, make(groups="layer"), 2, momenta=p)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "NoseHoover needs one > 0"),
        ({"temperature": [1.0, 0.0]}, "NoseHoover needs one > 0"),
        ({"temperature": {"*": 1.0}}, "temperature: NoseHoover takes one value"),
        ({"relaxation_time": {"*": 1.0}}, "relaxation_time: NoseHoover takes one"),
        ({"chain": 0}, "chain=0"),
        ({"substeps": 1.5}, "substeps=1.5"),
        ({"stages": 2}, "stages=2"),
        ({"groups": "tensor"}, "groups='tensor'"),
        ({"relaxation_time": 0.0}, "relaxation_time=0.0"),
        ({"relaxation_time": [1.0, -1.0]}, "relaxation_time="),
    ],
)
def test_bad_parameters(settings, message):
    with pytest.raises(SchemeError, match=message):
        chain(**settings)


@pytest.mark.parametrize("groups", ["all", "layer", "parameter"])
def test_first_law(groups):
    sim = simulate(two_tensors(), chain(0.1, groups=groups), 3)
    first = sim.scalars()
    sim.run(100)
    last = sim.scalars()
    gained = last["kinetic_energy"] - first["kinetic_energy"]
    np.testing.assert_allclose(gained, last["heat"] + last["kick_work"], atol=1e-10)
    assert np.abs(last["heat"]).min() > 1e-3


MAKERS = {
    "chain": lambda: chain(0.1, temperature=[1.0, 2.0]),
    "layers": lambda: chain(0.1, groups="layer", mass=np.linspace(1, 2, 100)),
    "parameters": lambda: chain(0.1, groups="parameter", chain=2),
    "schedules": lambda: chain(
        schedules.linear(0.1, 0.2, 40),
        temperature=schedules.cosine(2.0, 1.0, 50),
        relaxation_time=schedules.linear(1.0, 2.0, 30),
        groups="layer",
    ),
    "rescaling": lambda: rescaling(0.1, groups="layer"),
    "rescaling, schedules": lambda: rescaling(
        schedules.linear(0.1, 0.2, 40), temperature=schedules.linear(1.0, 0.0, 40)
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_resume_is_bitwise(name, precision, tmp_path):
    make = MAKERS[name]
    u = two_tensors()
    settings = {"replicas": 2, "precision": precision}
    whole = simulate(u, make(), **settings)
    whole.run(60, trajectory=tmp_path / "whole.h5md", every=10)
    part = simulate(u, make(), **settings)
    part.run(30, trajectory=tmp_path / "part.h5md", every=10)
    again = mdnet.Simulation.resume(tmp_path / "part.h5md", u)
    assert again.integrator.describe() == json.loads(
        json.dumps(part.integrator.describe())
    )
    again.run(30)
    for name_of in ("positions", "momenta", "sums"):
        np.testing.assert_array_equal(
            getattr(again.state, name_of), getattr(whole.state, name_of)
        )
    for key, value in whole.state.variables.items():
        np.testing.assert_array_equal(again.state.variables[key], value)


@pytest.mark.parametrize("name", ["chain", "layers", "parameters", "rescaling"])
def test_neither_reports_nor_company_change_a_path(name):
    u = potentials.Harmonic(stiffness=np.linspace(1, 4, 100))
    make = MAKERS[name]
    often, once = simulate(u, make(), 2), simulate(u, make(), 2)
    often.run(40, reporters=[reporters.Memory(3)])
    once.run(40)
    np.testing.assert_array_equal(often.state.positions, once.state.positions)
    if name != "chain":  # whose temperatures are of two replicas
        more = simulate(u, make(), 5)
        more.run(40)
        np.testing.assert_array_equal(more.state.positions[:2], once.state.positions)
