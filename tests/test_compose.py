"""Sums, multiples and paths of potentials, and potentials made of functions."""

import numpy as np
import pytest

from mdnet import potentials
from mdnet.backend import Backend
from mdnet.errors import PotentialError

HARMONIC = potentials.Harmonic(stiffness=2.0, center=0.5, size=3)
WELL = potentials.DoubleWell(a=0.7, size=3)
FUNNEL = potentials.Funnel(size=3)
RNG = np.random.default_rng(5)
X = RNG.normal(size=(12, 3))
LINEAR = potentials.LinearRegression(X, X @ [1.0, 2.0, 3.0])
Q = RNG.normal(size=(4, 3))
BACKENDS = [
    Backend("cpu", "single", np),
    Backend("cpu", "mixed", np),
    Backend("cpu", "double", np),
    Backend("cuda", "double", np, simulated=True),
]
LAYOUT = {"w": (slice(0, 2), (1, 2)), "b": (slice(2, 3), (1,))}


def named(**settings):
    """U = sum q^4 / 4, with named tensors."""
    return potentials.Custom(
        3,
        energy=lambda q: (q**4).sum(axis=1) / 4,
        gradient=lambda q: q**3,
        **{"layout": LAYOUT, **settings},
    )


# --- sums and multiples ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("potential", "weights"),
    [
        (HARMONIC + WELL, {HARMONIC: 1, WELL: 1}),
        (HARMONIC + WELL + FUNNEL, {HARMONIC: 1, WELL: 1, FUNNEL: 1}),
        (0.5 * FUNNEL, {FUNNEL: 0.5}),
        (FUNNEL * np.float32(2), {FUNNEL: 2}),
        (np.float64(3) * FUNNEL, {FUNNEL: 3}),
        (2 * (0.5 * FUNNEL + WELL) + HARMONIC, {FUNNEL: 1, WELL: 2, HARMONIC: 1}),
        (potentials.interpolate(HARMONIC, WELL).at(0.3), {HARMONIC: 0.7, WELL: 0.3}),
    ],
    ids=lambda p: type(p).__name__,
)
def test_algebra(potential, weights):
    energy = sum(w * part.energy(Q) for part, w in weights.items())
    gradient = sum(w * part.gradient(Q) for part, w in weights.items())
    np.testing.assert_allclose(potential.energy(Q), energy, rtol=1e-13)
    np.testing.assert_allclose(potential.gradient(Q), gradient, rtol=1e-13)
    assert potentials.check_gradient(potential, Q[:2]) < 1e-9
    for backend in BACKENDS:
        evaluator = potential.evaluator(backend, 4, 0)
        assert evaluator.full
        out, energies = np.empty(Q.shape, backend.force_dtype), np.empty(4)
        rows = Q.astype(backend.state_dtype)
        evaluator.forces(rows, out, 0, energies)
        tolerance = 1e-12 if backend.precision == "double" else 2e-5
        np.testing.assert_allclose(out, -gradient, rtol=tolerance, atol=tolerance)
        exact = potential.energy(rows.astype(float))
        np.testing.assert_allclose(energies, exact, rtol=1e-14)
        before = out.copy()
        evaluator.forces(rows, out, 1)
        np.testing.assert_array_equal(out, before)
        evaluator.gradients(rows, out)
        np.testing.assert_array_equal(out, -before)


def test_sums_and_multiples_are_flat():
    assert (HARMONIC + (WELL + FUNNEL)).parts == (HARMONIC, WELL, FUNNEL)
    scaled = 2 * (3 * WELL)
    assert scaled.part is WELL
    assert scaled.factor == 6


def test_polynomials_add_up():
    backend = BACKENDS[2]

    def of(potential):
        return potential.evaluator(backend, 4, 0).polynomial

    a, b = of(HARMONIC), of(WELL)
    np.testing.assert_allclose(of(HARMONIC + WELL), np.add(a, b))
    np.testing.assert_allclose(of(0.5 * WELL), np.multiply(0.5, b))
    assert of(HARMONIC + FUNNEL) is None
    path = potentials.interpolate(HARMONIC, WELL).evaluator(backend, 4, 0)
    assert path.polynomial == a
    path.set_parameter(0.25)
    mixed = np.multiply(0.75, a) + np.multiply(0.25, b)
    np.testing.assert_allclose(path.polynomial, mixed)


def test_half_the_energy_is_twice_the_temperature():
    assert (0.5 * HARMONIC).energy(Q[0]) == pytest.approx(HARMONIC.energy(Q[0]) / 2)
    assert (0.5 * HARMONIC).largest_stiffness == 1.0
    assert (0.5 * FUNNEL).largest_stiffness is None


def test_names_and_starts_come_from_the_part_that_has_them():
    class Offset(potentials.Custom):
        def initial(self, replicas, seed=0):
            return np.full((replicas, self.size), 7.0)

    part = Offset(3, named().functions[0], named().functions[1], layout=LAYOUT)
    for potential in (HARMONIC + part, part + HARMONIC, 2 * part):
        assert dict(potential.layout) == LAYOUT
        assert (potential.initial(2) == 7).all()
    path = potentials.interpolate(HARMONIC, part)
    assert dict(path.layout) == LAYOUT
    np.testing.assert_array_equal(path.initial(2, seed=3), HARMONIC.initial(2, seed=3))


@pytest.mark.parametrize("backend", [BACKENDS[2], BACKENDS[3]], ids=lambda b: b.name)
def test_minibatch_parts_share_their_rows(backend):
    """Both parts are asked at the same call: U + U is 2 U batch by batch."""
    batches = LINEAR.minibatch(4)
    twice = (batches + batches).evaluator(backend, 4, 9)
    scaled = (2 * batches).evaluator(backend, 4, 9)
    assert not twice.full
    assert not scaled.full
    assert not (HARMONIC + batches).evaluator(backend, 4, 9).full
    outs, energies = np.empty((2, 4, 3)), np.empty((2, 4))
    for call in (0, 5):
        twice.forces(Q, outs[0], call, energies[0])
        scaled.forces(Q, outs[1], call, energies[1])
        np.testing.assert_allclose(outs[0], outs[1], rtol=1e-14)
        np.testing.assert_allclose(energies[0], energies[1], rtol=1e-14)
    # The host calls see all data, in one pass or two.
    energy, gradient = (HARMONIC + batches).energy_and_gradient(Q)
    np.testing.assert_allclose(energy, (HARMONIC + LINEAR).energy(Q))
    np.testing.assert_allclose(gradient, (HARMONIC + LINEAR).gradient(Q))


# --- paths ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
def test_refresh_equals_a_new_force(backend):
    path = potentials.interpolate(FUNNEL, WELL)
    moved = path.evaluator(backend, 4, 0)
    rows = Q.astype(backend.state_dtype)
    out, fresh = np.empty((2, 4, 3), backend.force_dtype)
    moved.forces(rows, out, 0)
    for parameter in (0.2, 0.9, 1.0, 0.0):
        moved.set_parameter(parameter)
        moved.refresh(out)
        assert moved.parameter == parameter
        path.at(parameter).evaluator(backend, 4, 0).forces(rows, fresh, 0)
        np.testing.assert_array_equal(out, fresh)
        energies = np.empty(4)
        moved.energies(rows, energies)
        expected = path.at(parameter).energy(rows.astype(float))
        np.testing.assert_allclose(energies, expected, rtol=1e-14)


def test_refresh_needs_no_force_call():
    calls = []

    def gradient(q):
        calls.append(1)
        return q**3

    path = potentials.interpolate(
        HARMONIC, potentials.Custom(3, named().functions[0], gradient)
    )
    evaluator = path.evaluator(BACKENDS[2], 4, 0)
    out = np.empty((4, 3))
    evaluator.forces(Q, out, 0)
    evaluator.set_parameter(0.5)
    evaluator.refresh(out)
    assert len(calls) == 1
    expected = 0.5 * HARMONIC.gradient(Q) + 0.5 * Q**3
    np.testing.assert_allclose(out, -expected, rtol=1e-14)


def test_work_of_a_move():
    path = potentials.interpolate(HARMONIC, FUNNEL)
    evaluator = path.evaluator(BACKENDS[0], 4, 0)
    out, q = np.empty(4), Q.astype(np.float32)
    evaluator.parameter_energies(q, 0.2, 0.7, out)
    rows = q.astype(float)
    exact = path.at(0.7).energy(rows) - path.at(0.2).energy(rows)
    np.testing.assert_allclose(out, exact, rtol=1e-12)
    assert out.dtype == np.float64
    evaluator.parameter_energies(q, 0.7, 0.2, out)
    np.testing.assert_allclose(out, -exact, rtol=1e-12)


def test_path_between_minibatches_uses_one_batch():
    """The mixed force equals that of the mixed regression on the same rows."""
    other = potentials.LinearRegression(X, X @ [1.0, 2.0, 3.0], noise=2.0)
    path = potentials.interpolate(LINEAR.minibatch(4), other.minibatch(4))
    evaluator = path.evaluator(BACKENDS[2], 4, 2)
    assert not evaluator.full
    out, ends = np.empty((4, 3)), np.empty((2, 4, 3))
    evaluator.set_parameter(0.5)
    evaluator.forces(Q, out, 3)
    for force, part in zip(ends, (LINEAR, other), strict=True):
        part.minibatch(4).evaluator(BACKENDS[2], 4, 2).forces(Q, force, 3)
    np.testing.assert_allclose(out, ends.mean(axis=0), rtol=1e-13)


def test_free_energy_along_a_path_of_springs():
    """dF/dlambda = <U1 - U0>: the integral over exact samples of each lambda."""
    soft, stiff = potentials.Harmonic(1.0, size=2), potentials.Harmonic(4.0, size=2)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    total = 0.0
    for x, w in zip((nodes + 1) / 2, weights / 2, strict=True):
        law = potentials.Harmonic(1 + 3 * x, size=2)
        q = law.sample(20_000, seed=1)
        total += w * (stiff.energy(q) - soft.energy(q)).mean()
    exact = soft.log_partition() - stiff.log_partition()
    assert exact == pytest.approx(np.log(4))
    assert total == pytest.approx(exact, abs=0.02)


# --- functions ------------------------------------------------------------------------


def test_custom():
    potential = named(name="quartic")
    assert dict(potential.layout) == LAYOUT
    assert potential.describe() == {"kind": "Custom", "size": 3, "name": "quartic"}
    assert potential.initial(2).shape == (2, 3)
    assert potentials.check_gradient(potential, Q) < 1e-9
    assert potentials.check_gradient(potential, Q, directions=5) < 1e-9
    for backend in BACKENDS:
        evaluator = potential.evaluator(backend, 4, 0)
        assert evaluator.full
        assert evaluator.polynomial is None
        out, energies = np.empty((4, 3), backend.force_dtype), np.empty(4)
        rows = Q.astype(np.float32).astype(backend.state_dtype)
        evaluator.forces(rows, out, 0, energies)
        np.testing.assert_allclose(out, -(rows**3), rtol=1e-6)
        np.testing.assert_array_equal(energies, (rows.astype(float) ** 4).sum(1) / 4)


def test_custom_may_return_double_for_single():
    potential = potentials.Custom(
        3, lambda q: q.sum(axis=1), lambda q: np.ones(q.shape)
    )
    assert potential.gradient(Q.astype(np.float32)).dtype == np.float32


def spoils(q):
    q *= 2
    return q.sum(axis=1)


@pytest.mark.parametrize(
    ("energy", "gradient", "says"),
    [
        (lambda q: q.sum(), lambda q: q, "one energy a replica"),
        (lambda q: q.sum(axis=1).tolist(), lambda q: q, "list"),
        (lambda q: q.sum(axis=1).astype(int), lambda q: q, "floating"),
        (lambda q: q.sum(axis=1) * np.nan, lambda q: q, "not finite for replica 0"),
        (spoils, lambda q: q, "changed its argument"),
        (lambda q: q.sum(axis=1), lambda q: q[0], "expected an array of shape"),
        (lambda q: q.sum(axis=1), lambda q: q / [1, 1, 0], "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_custom_results_are_checked(energy, gradient, says):
    potential = potentials.Custom(3, energy, gradient, name="mine")
    with pytest.raises(PotentialError, match=says) as error:
        potential.energy_and_gradient(np.abs(Q))
    assert "mine" in str(error.value)


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: HARMONIC + potentials.DoubleWell(size=2), r"sizes \[3, 2\] differ"),
        (lambda: potentials.interpolate(HARMONIC, potentials.DoubleWell()), "differ"),
        (lambda: HARMONIC + 1.0, "1.0 is not a potential"),
        (lambda: potentials.Sum(), "at least one"),
        (lambda: np.nan * HARMONIC, "factor=nan"),
        (lambda: "two" * HARMONIC, "factor='two'"),
        (lambda: potentials.interpolate(HARMONIC, np.sin), "Custom"),
        (lambda: potentials.interpolate(HARMONIC, WELL).at(np.inf), "parameter=inf"),
        (lambda: potentials.Custom(0, len, len), "size=0"),
        (lambda: potentials.Custom(2, 3.0, len), "energy=3.0"),
        (lambda: potentials.Custom(2, len, None), "gradient=None"),
        (lambda: potentials.Custom(4, len, len, layout=LAYOUT), "covers 3"),
        (lambda: potentials.Custom(3, len, len, layout=["w"]), "expected"),
        (
            lambda: potentials.Custom(3, len, len, layout={"w": (slice(1, 3), (2,))}),
            "without gaps",
        ),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
