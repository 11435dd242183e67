"""Spin glasses against their exact answers: spherical, Ising and random energies."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.backend import Backend
from mdnet.errors import PotentialError

from .physics_tools import z_scores

BACKENDS = [
    Backend("cpu", "single", np),
    Backend("cpu", "mixed", np),
    Backend("cpu", "double", np),
    Backend("cuda", "double", np, simulated=True),
]


@pytest.fixture(autouse=True)
def one_blas_thread():
    """The products here are small: threads would only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


# --- spherical: energies and gradients ------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
@pytest.mark.parametrize("p", [2, 3])
def test_energy_is_the_sum_over_couplings(p, backend):
    U = potentials.SphericalSpinGlass(9, p=p, seed=4)
    s = U.initial(5, seed=1)
    form = {2: "ij,ri,rj->r", 3: "ijk,ri,rj,rk->r"}[p]
    energy = -np.einsum(form, U.couplings, *[s] * p)
    np.testing.assert_allclose(U.energy(s), energy, rtol=1e-12)
    assert potentials.check_gradient(U, s) < 1e-9
    evaluator = U.evaluator(backend, 5, 0)
    rows = s.astype(backend.state_dtype)
    out, energies = np.empty(s.shape, backend.force_dtype), np.empty(5)
    evaluator.forces(rows, out, 0, energies)
    tolerance = 1e-12 if backend.precision == "double" else 2e-5
    np.testing.assert_allclose(out, -U.gradient(s), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(energies, energy, rtol=tolerance, atol=tolerance)
    evaluator.gradients(rows, out)
    np.testing.assert_allclose(out, U.gradient(s), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("p", [2, 3])
def test_euler(p):
    """U is homogeneous of degree p: s . dU/ds = p U."""
    U = potentials.SphericalSpinGlass(12, p=p, seed=2)
    s = np.random.default_rng(0).normal(size=(6, 12))
    np.testing.assert_allclose((s * U.gradient(s)).sum(1), p * U.energy(s), rtol=1e-12)
    np.testing.assert_allclose(U.energy(2 * s), 2**p * U.energy(s), rtol=1e-12)


@pytest.mark.parametrize("p", [2, 3])
def test_couplings_are_symmetric(p):
    A = potentials.SphericalSpinGlass(7, p=p, seed=2).couplings
    for axes in [(1, 0)] if p == 2 else [(0, 2, 1), (2, 1, 0), (1, 2, 0)]:
        np.testing.assert_allclose(A, A.transpose(axes), rtol=1e-12)


@pytest.mark.physics
@pytest.mark.parametrize("p", [2, 3])
def test_covariance_over_disorder(p):
    """E[U(s) U(s')] = (N/2) q^p at every N; 4000 samples, 5 errors (false alarm 2e-6).

    Scaled to the wrong power of N, or without the mean over orders, it is far away.
    """
    n = 6
    s = potentials.SphericalSpinGlass(n).initial(2, seed=3)
    s[1] = s[0] + 0.8 * s[1]
    s[1] *= np.sqrt(n) / np.linalg.norm(s[1])
    q = s[0] @ s[1] / n
    assert 0.3 < q < 0.99
    u = np.stack(
        [potentials.SphericalSpinGlass(n, p, seed).energy(s) for seed in range(4000)]
    )
    products = np.stack([u[:, 0] ** 2, u[:, 1] ** 2, u[:, 0] * u[:, 1]], axis=-1)
    assert z_scores(products, [n / 2, n / 2, n / 2 * q**p]).max() < 5
    assert z_scores(products[:, :2], n).min() > 10
    assert z_scores(products[:, 2], n / 2 * q ** (p + 1)) > 5


def test_starts_on_the_sphere_and_not_along_the_disorder():
    U = potentials.SphericalSpinGlass(400, seed=5)
    s = U.initial(3, seed=5)
    np.testing.assert_allclose((s**2).sum(1), 400)
    rows = U.couplings / np.linalg.norm(U.couplings, axis=1)[:, None]
    assert np.abs(rows @ s.T / 20).max() < 0.3  # 400 x 3 overlaps of spread 0.05
    assert list(U.layout) == ["spins"]
    assert U.norms == {"spins": ("tensor", 20.0)}


# --- spherical: exact answers ---------------------------------------------------------


def test_saddle_of_many_spins():
    """sum T/(z - lambda) = N; u -> -1/2T, as for N = 400 at T = 2: -.25 +- .002."""
    u = []
    for seed in range(4):
        U = potentials.SphericalSpinGlass(400, seed=seed)
        assert U.eigenvalues[[0, -1]] == pytest.approx([-2, 2], abs=0.1)
        for T in (0.5, 1.0, 2.0, 10.0):
            z = U.saddle(T)
            assert z > U.eigenvalues[-1]
            assert (T / (z - U.eigenvalues)).sum() == pytest.approx(400, rel=1e-9)
        assert U.saddle_energy(2.0) / 400 == pytest.approx(-0.2547, abs=0.01)
        u.append(U.exact_energy(2.0) / 400)
        assert u[-1] == pytest.approx(U.saddle_energy(2.0) / 400, abs=0.005)
    assert np.mean(u) == pytest.approx(-0.25, abs=0.004)
    U = potentials.SphericalSpinGlass(400)
    assert U.annealed_energy(2.0) == -100
    assert U.annealed_free_energy(2.0) == -50


@pytest.mark.parametrize("size", [1, 2, 3])
def test_exact_energy_of_few_spins(size):
    """One spin is +-1; two run on a circle, three on a sphere: quadrature."""
    U = potentials.SphericalSpinGlass(size, seed=2)
    turn = 2 * np.pi * (np.arange(400) + 0.5) / 400
    if size == 1:
        s, w = np.ones((1, 1)), 1.0
    elif size == 2:
        s, w = np.stack([np.cos(turn), np.sin(turn)], axis=1), 1.0
    else:
        height, w = np.polynomial.legendre.leggauss(60)
        height, angle = (a.ravel() for a in np.meshgrid(height, turn, indexing="ij"))
        w = np.repeat(w, 400)
        flat = np.sqrt(1 - height**2)
        s = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)
    u = U.energy(np.sqrt(size) * s)
    for T in (0.3, 1.0, 5.0):
        p = w * np.exp(-(u - u.min()) / T)
        assert U.exact_energy(T) == pytest.approx((p * u).sum() / p.sum(), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_exact_energy_by_reweighting(temperature):
    """400,000 uniform points of the sphere of 8 spins; 5 errors (false alarm 2e-6)."""
    U = potentials.SphericalSpinGlass(8, seed=3)
    points = np.random.default_rng(1).normal(size=(40, 10_000, 8))
    points *= np.sqrt(8) / np.linalg.norm(points, axis=-1, keepdims=True)
    u = np.stack([U.energy(block) for block in points])
    exact = U.exact_energy(temperature)
    weights = np.exp(-(u - u.min()) / temperature)
    assert z_scores((weights * (u - exact)).mean(axis=1), 0.0) < 5
    wrong = U.saddle_energy(temperature)  # |s|^2 = N only on average
    assert z_scores((weights * (u - wrong)).mean(axis=1), 0.0) > 7


def sampled(U, temperature, dt=0.15, steps=1500, replicas=100, seed=2, every=10):
    word = integrators.Constrained(
        "BAOAB", dt=dt, temperature=temperature, friction=1.0, norms=U.norms
    )
    sim = mdnet.Simulation(
        U, word, replicas=replicas, seed=seed, backend="cpu", precision="double"
    )
    sim.run(100)
    record = reporters.Memory(every)
    sim.run(steps, reporters=[record])
    s = record.positions[1:]
    np.testing.assert_allclose((s**2).sum(-1), U.size, rtol=1e-10)
    return record["potential_energy"].value[1:], s


@pytest.mark.physics
def test_langevin_on_the_sphere():
    """p = 2 above T_c: energy within 5 errors (false alarm 6e-7) of the exact one.

    Each is .4%, and the dt^2 of the step .15%.  The control: at another temperature,
    and with |s|^2 = N only on average.
    """
    U = potentials.SphericalSpinGlass(40, seed=1)
    energy, _ = sampled(U, temperature=1.6, dt=0.1, steps=2200)
    exact = U.exact_energy(1.6)
    blocks = energy.mean(axis=0)
    assert z_scores(blocks, exact) < 5
    assert blocks.std(ddof=1) / 10 < 0.005 * abs(exact)
    assert z_scores(blocks, U.exact_energy(1.5)) > 8
    assert z_scores(blocks, U.saddle_energy(1.6)) > 8


@pytest.mark.physics
@pytest.mark.slow
def test_energy_and_overlap_over_disorder():
    """p = 3: <U> = -(N/2T)(1 - <q^3>), averaged over 24 samples; 5 errors.

    Exact at any N and T by partial integration over the couplings.  With 12 spins at
    T = .8 the overlap counts: without it the energy is off.
    """
    T, n, found = 0.8, 12, []
    for seed in range(24):
        U = potentials.SphericalSpinGlass(n, p=3, seed=seed)
        energy, s = sampled(
            U, T, dt=0.1, steps=400, replicas=30, seed=100 + seed, every=20
        )
        q = (s[:, :15] * s[:, 15:]).sum(-1) / n
        found.append([energy.mean(), (q**3).mean()])
    energy, overlap = np.array(found).T
    expected = -n / (2 * T) * (1 - overlap)
    assert z_scores(energy - expected, 0.0) < 5
    assert z_scores(energy - U.annealed_energy(T), 0.0) > 5
    assert z_scores(energy - 2 * expected, 0.0) > 20


# --- Sherrington and Kirkpatrick ------------------------------------------------------


def by_hand(glass, temperature):
    spins = np.array(np.meshgrid(*[[-1.0, 1.0]] * glass.size)).reshape(glass.size, -1).T
    u = glass.energy(spins)
    w = np.exp(-u / temperature)
    return spins, u, w


def test_enumeration():
    glass = potentials.SherringtonKirkpatrick(8, seed=1, field=0.3)
    exact = glass.enumerate(1.3)
    spins, u, w = by_hand(glass, 1.3)
    assert exact.free_energy == pytest.approx(-1.3 * np.log(w.sum()), rel=1e-12)
    assert exact.energy == pytest.approx((w * u).sum() / w.sum(), rel=1e-12)
    p = w / w.sum()
    np.testing.assert_allclose(exact.magnetizations, p @ spins, atol=1e-13)
    np.testing.assert_allclose(
        exact.correlations, np.einsum("n,ni,nj->ij", p, spins, spins), atol=1e-13
    )
    i, j = np.triu_indices(8, 1)
    pairs = -(glass.couplings[i, j] * spins[:, i] * spins[:, j]).sum(axis=1)
    np.testing.assert_allclose(u, pairs - 0.3 * spins.sum(axis=1))


def test_enumeration_in_blocks():
    """Sixteen spins are four blocks; two free halves factorise."""
    small = potentials.SherringtonKirkpatrick(8, seed=1, field=0.2)
    both = np.zeros((16, 16))
    both[::2, ::2] = both[1::2, 1::2] = small.couplings
    glass = potentials.SherringtonKirkpatrick(16, field=0.2, couplings=both)
    one, two = small.enumerate(0.9), glass.enumerate(0.9)
    assert two.free_energy == pytest.approx(2 * one.free_energy, rel=1e-12)
    assert two.energy == pytest.approx(2 * one.energy, rel=1e-12)
    np.testing.assert_allclose(two.magnetizations[::2], one.magnetizations, atol=1e-12)


@pytest.mark.physics
def test_heat_bath():
    """Energy and magnetizations of 4000 replicas within 5 errors of enumeration."""
    glass = potentials.SherringtonKirkpatrick(10, seed=2, field=0.2)
    T = 1.4
    exact = glass.enumerate(T)
    spins = glass.heat_bath(glass.initial(4000, seed=1), T, sweeps=40, seed=3)
    sample = np.column_stack([glass.energy(spins), spins])
    assert z_scores(sample, [exact.energy, *exact.magnetizations]).max() < 5
    assert z_scores(sample[:, 0], glass.enumerate(1.6).energy) > 5
    # Counters: two halves are one walk, and replicas do not see each other.
    start = glass.initial(6, seed=1)
    whole = glass.heat_bath(start, T, sweeps=7, seed=3)
    half = glass.heat_bath(start, T, sweeps=3, seed=3)
    np.testing.assert_array_equal(
        glass.heat_bath(half, T, sweeps=4, seed=3, step=3), whole
    )
    np.testing.assert_array_equal(glass.heat_bath(start[:2], T, 7, seed=3), whole[:2])
    assert set(np.unique(whole)) == {-1.0, 1.0}


@pytest.mark.physics
def test_annealed_free_energy():
    """E[Z] = 2^N exp((N - 1)/4T^2) at any N; E[ln Z] lies below, and close above T_c.

    2000 samples of 8 spins, 5 errors; without the factor (N - 1)/N it is seen.
    """
    n, T = 8, 1.5
    glasses = [potentials.SherringtonKirkpatrick(n, seed) for seed in range(2000)]
    F = np.array([glass.enumerate(T).free_energy for glass in glasses])
    ratio = np.exp(-(F - glasses[0].annealed_free_energy(T)) / T)
    assert z_scores(ratio, 1.0) < 5
    wrong = -n * T * np.log(2) - n / (4 * T)
    assert z_scores(np.exp(-(F - wrong) / T), 1.0) > 5
    gap = F.mean() - glasses[0].annealed_free_energy(T)
    assert 0 < gap < 0.02 * abs(F.mean())


def test_orders_of_mean_field():
    """Errors of m against the size e of the couplings: e^2 naive, e^3 with Onsager.

    Plefka's expansion: each order leaves the next.
    """
    base = potentials.SherringtonKirkpatrick(10, seed=5)
    field = np.random.default_rng(2).normal(size=10)
    sizes = np.array([0.02, 0.04, 0.08])
    errors = {1: [], 2: []}
    for e in sizes:
        glass = potentials.SherringtonKirkpatrick(
            10, field=field, couplings=e * base.couplings
        )
        exact = glass.enumerate(1.0)
        for order in (1, 2):
            found = glass.mean_field(1.0, order=order)
            assert found.converged
            difference = found.magnetizations - exact.magnetizations
            free = abs(found.free_energy - exact.free_energy)
            errors[order].append([np.abs(difference).max(), free])
    for order in (1, 2):
        slopes = np.polyfit(np.log(sizes), np.log(errors[order]), 1)[0]
        np.testing.assert_allclose(slopes, order + 1, atol=0.35)


def test_tap_is_stationary():
    """The equations are those of the minimum of the free energy functional."""
    glass = potentials.SherringtonKirkpatrick(30, seed=3, field=0.4)
    for order in (1, 2):
        found = glass.mean_field(1.6, order=order)
        assert found.converged
        squares = glass.couplings**2 * (order == 2)
        slopes = []
        for i in range(5):
            shifted = [found.magnetizations.copy() for _ in range(2)]
            for sign, m in zip((1, -1), shifted, strict=True):
                m[i] += sign * 1e-5
            values = [glass._functional(m, 1 / 1.6, squares) for m in shifted]
            slopes.append((values[0] - values[1]) / 2e-5)
        assert np.abs(slopes).max() < 1e-7


def test_paramagnet():
    glass = potentials.SherringtonKirkpatrick(200, seed=1)
    found = glass.mean_field(1.5, start=np.full(200, 0.3))
    assert found.converged
    assert np.abs(found.magnetizations).max() < 1e-10
    assert found.free_energy == pytest.approx(
        glass.annealed_free_energy(1.5), abs=0.01 * 200
    )
    # Without the reaction the transition would be at 2, not at 1.
    naive = glass.mean_field(1.5, order=1, start=np.full(200, 0.3))
    assert np.abs(naive.magnetizations).max() > 0.3


def test_no_convergence_is_said():
    glass = potentials.SherringtonKirkpatrick(100, seed=1)
    found = glass.mean_field(0.2, start=np.full(100, 0.3), damping=0, max_iterations=50)
    assert not found.converged
    assert found.iterations == 50
    assert found.residual > 0.01


# --- random energies ------------------------------------------------------------------


@pytest.fixture(scope="module")
def levels():
    return potentials.RandomEnergyModel(20, seed=1)


def test_free_energy_of_random_levels(levels):
    """N = 20, beta = .5: f = -1.6363; the spread over samples is .0012."""
    assert levels.limit_free_energy(2.0) == pytest.approx(-1.6363, abs=5e-5)
    assert levels.free_energy(2.0) / 20 == pytest.approx(-1.6363, abs=0.0036)
    assert levels.energies.size == 2**20
    assert levels.energies.mean() == pytest.approx(0, abs=5 * np.sqrt(20 / 2**20))
    assert levels.energies.var() == pytest.approx(20, rel=5 * np.sqrt(2 / 2**20))
    u = levels.mean_energy(2.0) / 20
    assert u == pytest.approx(levels.limit_energy(2.0), abs=0.02)
    assert levels.limit_energy(2.0) == -0.5


def test_freezing(levels):
    """Below T_c = .849 free energy and energy stay, and few levels have the weight."""
    assert levels.critical_temperature == pytest.approx(0.8493, abs=1e-4)
    ground = levels.energies.min() / 20
    assert levels.limit_free_energy(0.4) == levels.limit_free_energy(0.8)
    assert levels.limit_energy(0.4) == pytest.approx(-np.sqrt(2 * np.log(2)))
    assert levels.free_energy(0.1) / 20 == pytest.approx(ground, abs=1e-3)
    assert levels.participation(3.0) < 1e-3
    assert levels.participation(0.2) > 0.5
    # Both branches meet with the same slope.
    f, Tc = levels.limit_free_energy, levels.critical_temperature
    assert f(Tc * (1 + 1e-6)) == pytest.approx(f(Tc), abs=1e-9)


def test_thermodynamics_agree(levels):
    T, h = 1.5, 1e-4
    slope = (levels.mean_energy(T + h) - levels.mean_energy(T - h)) / (2 * h)
    assert levels.heat_capacity(T) == pytest.approx(slope, rel=1e-5)
    beta_f = [levels.free_energy(1 / b) * b for b in (1 / T + h, 1 / T - h)]
    u = (beta_f[0] - beta_f[1]) / (2 * h)
    assert levels.mean_energy(T) == pytest.approx(u, rel=1e-6)


def test_bits_are_spins():
    model = potentials.RandomEnergyModel(4, seed=2)
    np.testing.assert_array_equal(
        model.spins([0, 5]), [[-1, -1, -1, -1], [1, -1, 1, -1]]
    )
    np.testing.assert_array_equal(model.energy([[3], [7]]), model.energies[[[3], [7]]])


@pytest.mark.physics
def test_metropolis_on_random_levels():
    """Occupation of all 32 levels by 20,000 walkers: chi-square within 5 spreads.

    The weights of another temperature must fail.
    """
    model, T = potentials.RandomEnergyModel(5, seed=4), 3.0
    start = np.arange(20_000) % 32
    states = model.metropolis(start, T, sweeps=60, seed=2)
    counts = np.bincount(states, minlength=32)

    def excess(temperature):
        expected = np.exp(-model.energies / temperature)
        expected *= 20_000 / expected.sum()
        chi2 = ((counts - expected) ** 2 / expected).sum()
        return (chi2 - 31) / np.sqrt(62)

    assert abs(excess(T)) < 5
    assert excess(1.1 * T) > 10
    half = model.metropolis(start[:9], T, sweeps=20, seed=2)
    whole = model.metropolis(half, T, sweeps=40, seed=2, step=20)
    np.testing.assert_array_equal(whole, states[:9])


# --- errors ---------------------------------------------------------------------------

GLASS = potentials.SherringtonKirkpatrick(4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: potentials.SphericalSpinGlass(10, p=4), "p=4"),
        (lambda: potentials.SphericalSpinGlass(0), "size=0"),
        (lambda: potentials.SphericalSpinGlass(600, p=3), "size=600.*512"),
        (lambda: potentials.SphericalSpinGlass(9, p=3).exact_energy(2.0), "p=3"),
        (lambda: potentials.SphericalSpinGlass(9).saddle(0.0), "temperature=0.0"),
        (lambda: potentials.SherringtonKirkpatrick(4, field=[1.0]), "field"),
        (lambda: potentials.SherringtonKirkpatrick(2, couplings=np.eye(2)), "diagonal"),
        (
            lambda: potentials.SherringtonKirkpatrick(2, couplings=[[0, 1], [2, 0]]),
            "symmetric",
        ),
        (lambda: GLASS.energy([0.5, 1, 1, 1]), "-1 and 1"),
        (lambda: GLASS.heat_bath(np.ones((2, 3))), r"\(R, 4\)"),
        (lambda: potentials.SherringtonKirkpatrick(21).enumerate(), "at most 20"),
        (lambda: GLASS.mean_field(order=3), "order=3"),
        (lambda: GLASS.mean_field(damping=1.0), "damping=1.0"),
        (lambda: GLASS.mean_field(start=np.ones(3)), r"start has shape \(3,\)"),
        (lambda: potentials.RandomEnergyModel(27), "at most 26"),
        (lambda: potentials.RandomEnergyModel(3).energy([8]), "0 to 7"),
        (lambda: potentials.RandomEnergyModel(3).energy([0.5]), "whole numbers"),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
