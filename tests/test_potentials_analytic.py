"""Analytic potentials: gradients, exact answers, and independence of the company."""

import subprocess
import sys

import numba
import numpy as np
import pytest
from scipy import integrate, special, stats

from mdnet import potentials
from mdnet.backend import Backend
from mdnet.errors import PotentialError

RNG = np.random.default_rng(7)
X = RNG.normal(size=(24, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=24)
MEANS = RNG.normal(size=(3, 4))
ROOTS = RNG.normal(size=(3, 4, 4))
COVARIANCES = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.5 * np.eye(4)

CASES = {
    "harmonic": potentials.Harmonic(stiffness=3.0, center=0.7, size=5),
    "harmonic vector": potentials.Harmonic([1.0, 2.0, 9.0], center=[0.0, 1.0, -1.0]),
    "double well": potentials.DoubleWell(a=0.8, b=1.3, size=4),
    "mixture diagonal": potentials.GaussianMixture(
        [1, 2, 3], MEANS, scales=[1, 2, 0.5]
    ),
    "mixture dense": potentials.GaussianMixture([1, 2, 3], MEANS, COVARIANCES),
    "rosenbrock": potentials.Rosenbrock(a=0.5, b=10.0, size=6),
    "funnel": potentials.Funnel(size=4, scale=2.0),
    "muller brown": potentials.MullerBrown(scale=0.05),
    "linear": potentials.LinearRegression(X, Y, noise=0.3, prior_scale=[1.0, 2.0, 3.0]),
}
CPU = {p: Backend("cpu", p, np) for p in ("single", "mixed", "double")}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


def points(potential, n, seed=0, spread=0.8):
    return spread * np.random.default_rng(seed).normal(size=(n, potential.size))


def evaluate(evaluator, q, backend):
    """Forces, and energies given beside them."""
    out = np.empty(q.shape, backend.force_dtype)
    energies = np.empty(len(q))
    evaluator.forces(q, out, 0, energies)
    return out, energies


# --- derivatives ----------------------------------------------------------------------


def test_gradient_is_the_derivative_of_the_energy(case):
    assert potentials.check_gradient(case, points(case, 3)) < 1e-9


def test_check_gradient_sees_a_wrong_coefficient():
    wrong = potentials.Custom(
        2, lambda q: (q**2).sum(axis=1) / 2, lambda q: 1.001 * q, name="wrong"
    )
    assert potentials.check_gradient(wrong, [1.0, 2.0]) > 5e-4
    assert potentials.check_gradient(wrong, [1.0, 2.0], directions=3) > 5e-4


def test_hessian_is_the_derivative_of_the_gradient(case):
    q, h = points(case, 2), 1e-4
    exact = case.hessian(q)
    for j in range(case.size):
        step = np.zeros(case.size)
        step[j] = h
        near = case.gradient(q + step) - case.gradient(q - step)
        far = case.gradient(q + 2 * step) - case.gradient(q - 2 * step)
        slope = (8 * near - far) / (12 * h)
        np.testing.assert_allclose(exact[:, j], slope, atol=1e-7 * abs(exact).max())
    np.testing.assert_allclose(case.hessian(q[0]), exact[0])


def test_laplacian_is_the_trace_of_the_hessian(case):
    q = points(case, 3)
    trace = np.trace(case.hessian(q), axis1=1, axis2=2)
    np.testing.assert_allclose(case.laplacian(q), trace, rtol=1e-12)
    assert np.ndim(case.laplacian(q[0])) == 0


def test_one_row_and_both_at_once(case):
    q = points(case, 3)
    energy, gradient = case.energy_and_gradient(q)
    assert energy.dtype == np.float64
    np.testing.assert_array_equal(energy, case.energy(q))
    np.testing.assert_array_equal(gradient, case.gradient(q))
    one_energy, one_gradient = case.energy_and_gradient(q[1])
    assert np.shape(one_energy) == ()
    assert one_energy == energy[1]
    np.testing.assert_array_equal(one_gradient, gradient[1])


def test_polynomial_is_the_slope():
    x = np.linspace(-2, 2, 9)
    for name in ("harmonic", "double well"):
        potential = CASES[name]
        evaluator = potential.evaluator(CPU["double"], 9, 0)
        a, b, c, d = evaluator.polynomial
        q = np.repeat(x[:, None], potential.size, axis=1)
        slope = a + b * q + c * q**2 + d * q**3
        np.testing.assert_allclose(potential.gradient(q), slope, atol=1e-12)
    for name in set(CASES) - {"harmonic", "double well"}:
        assert CASES[name].evaluator(CPU["double"], 1, 0).polynomial is None


# --- precision, threads, replicas -----------------------------------------------------


def test_precisions(case):
    q = points(case, 4).astype(np.float32)
    exact = case.energy_and_gradient(q.astype(np.float64))
    size = np.abs(exact[1]).max()
    for precision, backend in CPU.items():
        evaluator = case.evaluator(backend, 4, 0)
        assert evaluator.full
        rows = q.astype(backend.state_dtype)
        force, energies = evaluate(evaluator, rows, backend)
        assert force.dtype == backend.force_dtype
        tolerance = 1e-14 if precision == "double" else 3e-5
        np.testing.assert_allclose(force, -exact[1], atol=tolerance * size)
        # Energies are float64 sums of the given positions in every precision.
        np.testing.assert_array_equal(energies, exact[0])
        gradient = np.empty_like(force)
        evaluator.gradients(rows, gradient)
        np.testing.assert_array_equal(gradient, -force)


def test_mixed_computes_the_force_as_single(case):
    q = points(case, 4).astype(np.float32)
    single, _ = evaluate(case.evaluator(CPU["single"], 4, 0), q, CPU["single"])
    q64 = q.astype(np.float64)
    mixed, _ = evaluate(case.evaluator(CPU["mixed"], 4, 0), q64, CPU["mixed"])
    np.testing.assert_array_equal(single, mixed)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_replicas_do_not_see_each_other(case, precision):
    backend = CPU[precision]
    q = points(case, 5).astype(backend.state_dtype)
    together = evaluate(case.evaluator(backend, 5, 0), q, backend)
    for r in range(5):
        alone = evaluate(case.evaluator(backend, 1, 0), q[r : r + 1], backend)
        np.testing.assert_array_equal(alone[0][0], together[0][r])
        assert alone[1][0] == together[1][r]


@pytest.mark.parametrize(
    "potential",
    [
        potentials.Harmonic(np.linspace(1, 2, 9001)),
        potentials.DoubleWell(size=9001),
        CASES["mixture dense"],
        CASES["linear"].minibatch(6),
    ],
    ids=lambda p: type(p).__name__,
)
def test_threads_change_no_bit(potential, monkeypatch):
    """Large D has several blocks: their energies add up in a fixed order."""
    monkeypatch.setattr("mdnet.kernels.rows.SMALL", 0)
    backend = CPU["single"]
    q = points(potential, 3).astype(np.float32)
    results = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        results.append(evaluate(potential.evaluator(backend, 3, 5), q, backend))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_little_work_gives_the_same_bits(case, monkeypatch):
    """Kernels compiled for one thread against those that wake the others."""
    q, results = points(case, 4), []
    for small in (0, 10**9):
        monkeypatch.setattr("mdnet.kernels.rows.SMALL", small)
        results.append(evaluate(case.evaluator(CPU["double"], 4, 0), q, CPU["double"]))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
def test_array_form_agrees_with_the_kernels(case, precision):
    """The form that runs on a device, here on NumPy arrays."""
    backend, device = CPU[precision], Backend("cuda", precision, np, simulated=True)
    q = points(case, 4).astype(backend.state_dtype)
    force, energies = evaluate(case.evaluator(backend, 4, 0), q, backend)
    evaluator = case.evaluator(device, 4, 0)
    other, values = evaluate(evaluator, q, device)
    assert other.dtype == force.dtype
    assert evaluator.full
    scale = np.abs(force).max()
    tolerance = (1e-13 if precision == "double" else 3e-5) * scale
    np.testing.assert_allclose(other, force, atol=tolerance)
    np.testing.assert_allclose(values, energies, rtol=1e-12, atol=1e-12)
    gradient = np.empty_like(other)
    evaluator.gradients(q, gradient)
    np.testing.assert_array_equal(gradient, -other)


# --- exact answers --------------------------------------------------------------------


def quadrature(potential, temperature, low, high, n=801):
    """Log Z, mean and covariance of one or two parameters on a grid."""
    axes = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    minus = -potential.energy(grid) / temperature
    weight = np.exp(minus - minus.max())
    cell = np.prod([a[1] - a[0] for a in axes])
    log_z = np.log(weight.sum() * cell) + minus.max()
    weight /= weight.sum()
    mean = weight @ grid
    d = grid - mean
    return log_z, mean, (d * weight[:, None]).T @ d


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize(
    ("potential", "low", "high"),
    [
        (potentials.Harmonic([1.5, 4.0], center=[0.3, -1.0]), (-16, -12), (16, 10)),
        (potentials.DoubleWell(a=0.7, b=1.2), (-6,), (6,)),
        (potentials.Rosenbrock(a=0.5, b=2.0), (-8, -6), (9, 60)),
        (potentials.Funnel(size=2, scale=0.6), (-6, -60), (8, 60)),
        (potentials.MullerBrown(scale=0.1), (-4, -2), (2.5, 4)),
    ],
    ids=lambda p: type(p).__name__ if hasattr(p, "size") else "",
)
def test_exact_answers_against_quadrature(potential, low, high, temperature):
    log_z, mean, covariance = quadrature(potential, temperature, low, high)
    assert potential.log_partition(temperature) == pytest.approx(log_z, abs=1e-6)
    np.testing.assert_allclose(potential.mean(temperature), mean, atol=1e-5)
    exact = potential.covariance(temperature)
    np.testing.assert_allclose(exact, covariance, rtol=1e-4, atol=1e-5)
    # Negative control: the answers of another temperature fail the same check.
    assert potential.log_partition(1.1 * temperature) != pytest.approx(log_z, abs=1e-3)


@pytest.mark.parametrize(
    "potential",
    [
        potentials.GaussianMixture(
            [1, 3], [[-2.0, 0.0], [1.0, 1.0]], scales=[0.5, 1.0]
        ),
        potentials.GaussianMixture(
            [2, 1], [[-1.0, 0.0], [2.0, 1.0]], [[[1, 0.6], [0.6, 0.9]], np.eye(2)]
        ),
    ],
    ids=["diagonal", "dense"],
)
def test_mixture_against_quadrature(potential):
    log_z, mean, covariance = quadrature(potential, 1.0, (-9, -9), (9, 9))
    assert potential.log_partition() == pytest.approx(log_z, abs=1e-9)
    np.testing.assert_allclose(potential.mean(), mean, atol=1e-9)
    np.testing.assert_allclose(potential.covariance(), covariance, atol=1e-9)


def test_mixture_density_against_scipy():
    q = points(CASES["mixture dense"], 4)
    density = sum(
        w * stats.multivariate_normal(m, c).pdf(q)
        for w, m, c in zip([1 / 6, 1 / 3, 1 / 2], MEANS, COVARIANCES, strict=True)
    )
    np.testing.assert_allclose(CASES["mixture dense"].energy(q), -np.log(density))


def test_mixture_far_away_is_finite():
    potential = potentials.GaussianMixture([1, 1], [-1.0, 1.0], scales=0.1)
    assert potential.energy([[40.0]])[0] == pytest.approx(0.5 * 390**2, rel=1e-4)
    assert potential.gradient([[40.0]])[0, 0] == pytest.approx(3900.0)


def test_double_well_against_bessel_functions():
    a, b, t = 0.7, 1.2, 0.3
    z = a * b**4 / (2 * t)
    bessel = special.ive(-0.25, z) + special.ive(0.25, z)
    exact = np.log(np.pi * b / 2 * bessel)
    potential = potentials.DoubleWell(a, b, size=3)
    assert potential.log_partition(t) == pytest.approx(3 * exact, abs=1e-11)
    x = np.linspace(-4, 4, 4001)
    density = potential.marginal_density(x, t)
    assert integrate.simpson(density, x=x) == pytest.approx(1, abs=1e-9)
    assert potential.barrier == pytest.approx(potential.energy(np.zeros(3)) / 3)
    np.testing.assert_array_equal(potential.energy(np.full(3, potential.minima[0])), 0)


def test_double_well_is_exact_at_any_temperature():
    """Cold: two Gaussians of variance T/(8 a b^2).  Hot: a pure quartic."""
    potential = potentials.DoubleWell(a=2.0, b=3.0)
    t = 1e-6
    assert potential.variance(t)[0] == pytest.approx(9 - 2 * t / 144, rel=1e-9)
    t = 1e9
    quartic = np.sqrt(t / 2) * special.gamma(0.75) / special.gamma(0.25)
    assert potential.variance(t)[0] == pytest.approx(quartic, rel=1e-3)


def test_muller_brown_stationary_points():
    potential = potentials.MullerBrown()
    for where, energies, curvatures, published in (
        (potential.minima, potential.minima_energies, 0, (-146.700, -108.167, -80.768)),
        (potential.saddles, potential.saddle_energies, 1, (-40.665, -72.249)),
    ):
        assert np.abs(potential.gradient(where)).max() < 1e-10
        negative = (np.linalg.eigvalsh(potential.hessian(where)) < 0).sum(axis=1)
        assert (negative == curvatures).all()
        np.testing.assert_allclose(energies, published, atol=5e-4)
        np.testing.assert_array_equal(energies, potential.energy(where))
    start = potential.initial(50, seed=1)
    assert np.abs(start - potential.minima[0]).max() < 0.3


@pytest.mark.physics
@pytest.mark.parametrize(
    ("potential", "temperature"),
    [
        (CASES["harmonic vector"], 0.5),
        (CASES["double well"], 0.5),
        (CASES["rosenbrock"], 0.5),
        (potentials.Funnel(size=4, scale=0.5), 0.5),
        (CASES["mixture diagonal"], 1.0),
        (CASES["mixture dense"], 1.0),
        (CASES["linear"], 0.5),
    ],
)
def test_samplers(potential, temperature):
    """Moments of 20000 draws within 5 standard errors of the exact ones.

    Seven cases of at most 12 numbers at 5.7e-7 each: a false alarm in 2e4 seeds.
    """
    n = 20_000
    q = potential.sample(n, temperature, seed=3)
    assert q.shape == (n, potential.size)
    np.testing.assert_array_equal(q[:5], potential.sample(5, temperature, seed=3))
    mean, covariance = potential.mean(temperature), potential.covariance(temperature)
    error = q.std(axis=0) / np.sqrt(n)
    assert (np.abs(q.mean(axis=0) - mean) < 5 * error).all()
    d = (q - mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    square = d**2
    off = np.abs(square.mean(axis=0) - 1) / (square.std(axis=0) / np.sqrt(n))
    assert (off < 5).all()
    # Negative control: a law 15% hotter is seen.
    hot = np.abs(square.mean(axis=0) - 1.15) / (square.std(axis=0) / np.sqrt(n))
    assert (hot > 5).any()


@pytest.mark.physics
def test_virial_theorem_of_the_samplers():
    """<q_i dU/dq_i> = T at equilibrium ties the sampler to the gradient.

    Four numbers at 5 standard errors: a false alarm in 4e5 seeds.
    """
    potential, t, n = CASES["double well"], 0.7, 20_000
    q = potential.sample(n, t, seed=1)
    virial = q * potential.gradient(q)
    error = virial.std(axis=0) / np.sqrt(n)
    assert (np.abs(virial.mean(axis=0) - t) < 5 * error).all()
    assert (np.abs(virial.mean(axis=0) - 1.4 * t) > 5 * error).all()


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: potentials.Harmonic(-1.0), "stiffness"),
        (lambda: potentials.Harmonic([1.0, np.nan]), "not finite"),
        (lambda: potentials.Harmonic([1.0, 2.0], size=3), "size=3"),
        (lambda: potentials.Harmonic([1.0, 2.0], center=[1.0, 2.0, 3.0]), "center"),
        (lambda: potentials.Harmonic([[1.0]]), "one value per parameter"),
        (lambda: potentials.Harmonic("stiff"), "expected numbers"),
        (lambda: potentials.Harmonic(size=0), "size=0"),
        (lambda: potentials.Harmonic(0.0).covariance(), "free particle"),
        (lambda: potentials.Harmonic().covariance(-1.0), "temperature=-1.0"),
        (lambda: potentials.Harmonic().log_partition(0.0), "temperature=0.0"),
        (lambda: potentials.Harmonic().sample(0), "n=0"),
        (lambda: potentials.DoubleWell(a=0.0), "a=0.0"),
        (lambda: potentials.DoubleWell(b=[1.0, 2.0]), "one number > 0"),
        (lambda: potentials.DoubleWell(size=1.5), "size=1.5"),
        (lambda: potentials.Rosenbrock(size=3), "even"),
        (lambda: potentials.Rosenbrock(a=[1.0, 2.0]), "one finite number"),
        (lambda: potentials.Funnel(size=1), "at least 2"),
        (lambda: potentials.Funnel(scale=-1.0), "scale=-1.0"),
        (lambda: potentials.MullerBrown(scale=np.inf), "not finite"),
        (lambda: potentials.GaussianMixture([1, 1], [[0.0]]), "one weight"),
        (lambda: potentials.GaussianMixture([1, 0], [0.0, 1.0]), "weights"),
        (lambda: potentials.GaussianMixture([1], [0.0], scales=-1.0), "scales"),
        (lambda: potentials.GaussianMixture([1], [0.0], scales=[1.0, 2.0]), "scales"),
        (lambda: potentials.GaussianMixture([1], [0.0], [[[1.0]]], 1.0), "not both"),
        (lambda: potentials.GaussianMixture([1], [0.0], [[1.0]]), "one matrix"),
        (
            lambda: potentials.GaussianMixture([1], [0.0], [[[-1.0]]]),
            "positive definite",
        ),
        (
            lambda: potentials.GaussianMixture([1], [[0.0, 0.0]], [[[2, 1], [0, 2]]]),
            "symmetric",
        ),
        (lambda: potentials.GaussianMixture([1], [0.0]).mean(2.0), "temperature=1"),
        (lambda: potentials.DoubleWell(size=2).energy(np.zeros(3)), "expected"),
        (lambda: potentials.DoubleWell(size=2).hessian(np.zeros(3)), "expected"),
        (lambda: potentials.check_gradient(CASES["funnel"], [np.nan] * 4), "finite"),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()


# --- the package ----------------------------------------------------------------------


def test_describe_identifies():
    import json

    texts = [json.dumps(p.describe(), sort_keys=True) for p in CASES.values()]
    assert len(set(texts)) == len(texts)
    a, b = np.arange(20.0) + 1, np.arange(20.0) + 2
    assert potentials.Harmonic(a).describe() != potentials.Harmonic(b).describe()
    assert potentials.Harmonic(a).describe() == potentials.Harmonic(a).describe()


def test_import_is_light_and_every_name_loads():
    heavy = "{'numba', 'scipy', 'matplotlib', 'cupy', 'torch', 'arviz'}"
    code = (
        "import sys, mdnet.potentials as p; "
        f"assert not {heavy} & set(sys.modules); "
        "p.Harmonic, p.LinearRegression, p.GaussianMixture, p.interpolate; "
        f"assert not {heavy} & set(sys.modules); "
        "assert all(getattr(p, name) is not None for name in dir(p))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        potentials.Nothing  # noqa: B018
