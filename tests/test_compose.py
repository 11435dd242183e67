"""Sums, multiples and paths of potentials, and potentials made of functions."""

import copy

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, reporters
from mdnet.backend import Backend
from mdnet.errors import PotentialError

from .physics_tools import z_scores

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
OTHER = {"w": (slice(0, 1), (1, 1)), "b": (slice(1, 3), (2,))}
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


# --- predictions ----------------------------------------------------------------------


def test_predictions_come_from_the_part_that_predicts():
    labels = np.arange(12) % 2
    U = potentials.Posterior(potentials.MLP([3, 4, 2]), data=(X, labels))
    spring = potentials.Harmonic(0.1, size=U.size)
    q = U.initial(2)
    for potential in (
        spring + U,
        0.5 * U,
        potentials.interpolate(spring, U),
        potentials.interpolate(U, spring).at(0.3),
        2 * (spring + U.minibatch(4)),
    ):
        np.testing.assert_array_equal(potential.predict(q, X), U.predict(q, X))
        expected = U.log_likelihood(q, X, labels)
        np.testing.assert_array_equal(potential.log_likelihood(q, X, labels), expected)
        assert potential.likelihood is U.likelihood
        assert potential.network is U.network
    for potential in (spring + spring, 2 * spring):
        assert not hasattr(potential, "predict")
        with pytest.raises(AttributeError, match=f"'{type(potential).__name__}'"):
            potential.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "potential",
    [HARMONIC + named(), 2 * HARMONIC, potentials.interpolate(HARMONIC, WELL)],
    ids=lambda p: type(p).__name__,
)
def test_compositions_are_copied(potential):
    other = copy.deepcopy(potential)
    np.testing.assert_array_equal(other.energy(Q), potential.energy(Q))
    assert other.describe() == potential.describe()


# --- local entropy --------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
def test_copies_and_springs(backend):
    part, gamma, copies = named(), 0.7, 2
    V = potentials.local_entropy(part, gamma, copies)
    q = RNG.normal(size=(4, V.size))
    w, *others = q.reshape(4, 3, 3).transpose(1, 0, 2)
    energy = sum(part.energy(a) + gamma / 2 * ((a - w) ** 2).sum(1) for a in others)
    pulls = [gamma * (a - w) for a in others]
    gradient = np.hstack(
        [
            -sum(pulls),
            *(part.gradient(a) + p for a, p in zip(others, pulls, strict=True)),
        ]
    )
    assert potentials.check_gradient(V, q) < 1e-8
    np.testing.assert_allclose(V.gradient(q), gradient, rtol=1e-12, atol=1e-14)
    evaluator = V.evaluator(backend, 4, 0)
    rows = q.astype(backend.state_dtype)
    out, energies = np.empty(q.shape, backend.force_dtype), np.empty(4)
    evaluator.forces(rows, out, 0, energies)
    tolerance = 1e-12 if backend.precision == "double" else 2e-5
    np.testing.assert_allclose(out, -gradient, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(energies, energy, rtol=tolerance)
    evaluator.gradients(rows, out)
    np.testing.assert_allclose(out, gradient, rtol=tolerance, atol=tolerance)
    evaluator.energies(rows, energies)
    np.testing.assert_allclose(energies, energy, rtol=tolerance)


def test_layout_and_predictions_of_the_centre():
    U = potentials.Posterior(potentials.MLP([3, 2]), data=(X, np.arange(12) % 2))
    V = potentials.local_entropy(U, 2.0, copies=3)
    assert list(V.layout)[:4] == [
        "0.weight",
        "0.bias",
        "copy0.0.weight",
        "copy0.0.bias",
    ]
    ends = [(where.start, where.stop) for where, _ in V.layout.values()]
    assert [a for a, _ in ends[1:]] == [b for _, b in ends[:-1]]
    assert ends[-1][1] == V.size == 4 * U.size
    q = V.initial(2, seed=3)
    assert V.energy(q) == pytest.approx(3 * U.energy(V.center(q)))
    np.testing.assert_array_equal(V.predict(q, X), U.predict(U.initial(2, 3), X))
    assert not V.part.minibatch(4).evaluator(BACKENDS[2], 2).full
    batches = potentials.local_entropy(U.minibatch(4), 2.0)
    assert not batches.evaluator(BACKENDS[2], 2).full


def test_replicas_do_not_see_each_other():
    """Batches too: those of copy a of replica r are of (seed, r y + a, call)."""
    V = potentials.local_entropy(LINEAR.minibatch(4), 1.5, copies=2)
    q = RNG.normal(size=(3, V.size))
    together, alone = np.empty((3, V.size)), np.empty((1, V.size))
    V.evaluator(BACKENDS[2], 3, 5).forces(q, together, 6)
    V.evaluator(BACKENDS[2], 1, 5).forces(q[:1], alone, 6)
    np.testing.assert_array_equal(together[:1], alone)


@pytest.mark.physics
@pytest.mark.parametrize("copies", [1, 3])
def test_the_centre_follows_the_local_entropy(copies):
    """Covariance T (y H g (H + g)^-1)^-1 of the centre on U = wHw/2; 5 errors of 6.

    False alarm 4e-6; BAOAB's positions are exact on quadratic energies.  The stiffness
    H itself, and that of another number of copies, must be told apart.
    """
    T, gamma = 0.8, 2.0
    root = np.array([[1.0, 0, 0], [0.5, 1.0, 0], [-0.3, 0.4, 2.0]])
    H = root @ root.T
    part = potentials.Custom(
        3,
        energy=lambda q: 0.5 * ((q @ H) * q).sum(axis=1),
        gradient=lambda q: q @ H.astype(q.dtype),
        name="quadratic",
    )
    V = potentials.local_entropy(part, gamma, copies)
    sim = mdnet.Simulation(
        V,
        integrators.BAOAB(dt=0.25, temperature=T, friction=1.0),
        replicas=200,
        seed=2,
        backend="cpu",
        precision="double",
    )
    sim.run(300)
    record = reporters.Memory(8)
    sim.run(2400, reporters=[record])
    w = V.center(record.positions[1:])
    i, j = np.triu_indices(3)
    found = (w[..., i] * w[..., j]).mean(axis=0)

    def covariance(y):
        stiffness = y * H @ np.linalg.inv(H / gamma + np.eye(3))
        return T * np.linalg.inv(stiffness)[i, j]

    assert z_scores(found, covariance(copies)).max() < 5
    assert z_scores(found, covariance(copies + 1)).max() > 10
    assert z_scores(found, T * np.linalg.inv(H)[i, j]).max() > 10


# --- runs -----------------------------------------------------------------------------


def of_a_network(kind):
    labels = np.arange(12) % 2
    U = potentials.Posterior(potentials.MLP([3, 4, 2]), data=(X, labels))
    q = U.initial(1, seed=8)[0]
    return {
        "restrict": lambda: potentials.restrict(U.minibatch(4), "1.*", q),
        "project": lambda: potentials.project(U, potentials.random_basis(U, 3), q),
        "entropy": lambda: potentials.local_entropy(U.minibatch(4), 2.0, copies=2),
        "umbrella": lambda: potentials.EnergyUmbrella(U, 15.0, 0.1),
        "sum": lambda: (
            0.5 * U.minibatch(3)
            + potentials.Restraint(potentials.TensorNorm(U.layout, "0.weight"), 1.0)
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["restrict", "project", "entropy", "umbrella", "sum"])
def test_resumed_runs_are_uninterrupted_ones(kind, tmp_path):
    path = tmp_path / "run.h5md"
    settings = {"replicas": 2, "seed": 3, "backend": "cpu"}

    def simulate():
        word = integrators.BAOAB(dt=0.01)
        return mdnet.Simulation(of_a_network(kind), word, **settings)

    simulate().run(6, trajectory=path, every=3)
    resumed = mdnet.Simulation.resume(path, potential=of_a_network(kind))
    resumed.run(5)
    whole = simulate()
    whole.run(11)
    np.testing.assert_array_equal(resumed.state.positions, whole.state.positions)
    assert dict(mdnet.open(path).layout) == dict(of_a_network(kind).layout)


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
        (lambda: named() + named(layout=OTHER), r"\(1, 2\), \(1,\).*one network"),
        (lambda: potentials.interpolate(named(), named(layout=OTHER)), "tensors"),
        (lambda: HARMONIC + 1.0, "1.0 is not a potential"),
        (lambda: potentials.Sum(), "at least one"),
        (lambda: np.nan * HARMONIC, "factor=nan"),
        (lambda: "two" * HARMONIC, "factor='two'"),
        (lambda: potentials.interpolate(HARMONIC, np.sin), "Custom"),
        (lambda: potentials.interpolate(HARMONIC, WELL).at(np.inf), "parameter=inf"),
        (lambda: potentials.local_entropy(HARMONIC, 0.0), "coupling=0.0"),
        (lambda: potentials.local_entropy(HARMONIC, 1.0, 0.5), "copies=0.5"),
        (lambda: potentials.local_entropy(np.sin, 1.0), "not a potential"),
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
