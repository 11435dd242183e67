"""Potentials of some tensors only, and along affine subspaces."""

import numpy as np
import pytest

import mdnet
from mdnet import analysis, integrators, potentials, reporters
from mdnet.backend import Backend
from mdnet.errors import PotentialError, TrajectoryError

from .physics_tools import z_scores

RNG = np.random.default_rng(11)
X, LABELS = RNG.normal(size=(20, 4)), np.arange(20) % 3
NET = potentials.MLP([4, 6, 5, 3])
U = potentials.Posterior(NET, data=(X, LABELS))
Q0 = U.initial(1, seed=4)[0]
DESIGN = RNG.normal(size=(30, 6)) + RNG.normal(size=(30, 1))
LINEAR = potentials.LinearRegression(DESIGN, RNG.normal(size=30), prior_scale=2.0)
AT, BASIS = RNG.normal(size=6), 0.3 * RNG.normal(size=(2, 6))
BACKENDS = [
    Backend("cpu", "single", np),
    Backend("cpu", "mixed", np),
    Backend("cpu", "double", np),
    Backend("cuda", "double", np, simulated=True),
]


def last():
    return potentials.restrict(U, ["0.bias", "2.*"], Q0)


def plane():
    return potentials.project(U, potentials.random_basis(U, 2, seed=1), Q0)


# --- energies, gradients and layouts --------------------------------------------------


def test_restricted_layout_and_embedding():
    part = last()
    assert {name: shape for name, (_, shape) in part.layout.items()} == {
        "0.bias": (6,),
        "2.weight": (3, 5),
        "2.bias": (3,),
    }
    ends = [(where.start, where.stop) for where, _ in part.layout.values()]
    assert ends == [(0, 6), (6, 21), (21, 24)]
    assert part.size == 24
    z = RNG.normal(size=(3, 24))
    q = part.embed(z)
    np.testing.assert_array_equal(part.select(q), z)
    moving = np.zeros(U.size, bool)
    for name in part.layout:
        moving[U.layout[name][0]] = True
    np.testing.assert_array_equal(q[:, ~moving], np.tile(Q0[~moving], (3, 1)))
    np.testing.assert_array_equal(part.embed(z[0]), q[0])
    np.testing.assert_array_equal(part.select(U.initial(2, 7)), part.initial(2, 7))


def test_layers_may_come_in_any_order():
    forth = potentials.restrict(U, ["0.bias", "2.bias"], Q0)
    back = potentials.restrict(U, ("2.bias", "0.bias"), Q0)
    assert list(forth.layout) == list(back.layout) == ["0.bias", "2.bias"]
    assert list(potentials.restrict(U, "*", Q0).layout) == list(U.layout)


def plane_of_a_regression():
    return potentials.project(LINEAR, BASIS, AT)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b.name} {b.precision}")
@pytest.mark.parametrize("make", [last, plane, plane_of_a_regression])
def test_evaluators(make, backend):
    V = make()
    U = V.part
    if backend.name == "cuda" and make is not plane_of_a_regression:
        pytest.skip("a network on a device: tests/test_cuda.py")
    z = V.initial(3, seed=2)
    assert potentials.check_gradient(V, z[:1]) < 1e-8
    rows = np.ascontiguousarray(z, backend.state_dtype)
    evaluator = V.evaluator(backend, 3, 0)
    assert evaluator.full
    out, energies = np.empty(z.shape, backend.force_dtype), np.empty(3)
    evaluator.forces(rows, out, 0, energies)
    q = V.embed(rows.astype(float))
    gradient = U.gradient(q)
    expected = V.select(gradient) if make is last else gradient @ V.basis.T
    tolerance = 1e-11 if backend.precision == "double" else 2e-4
    np.testing.assert_allclose(out, -expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(energies, U.energy(q), rtol=tolerance)
    before = out.copy()
    evaluator.gradients(rows, out)
    np.testing.assert_allclose(out, -before, rtol=1e-5, atol=1e-6)
    evaluator.energies(rows, energies)
    np.testing.assert_allclose(energies, U.energy(q), rtol=tolerance)


def test_nothing_is_allocated_per_call():
    import tracemalloc

    for V in (
        potentials.restrict(potentials.DoubleWell(size=40_000), "q", np.zeros(40_000)),
        potentials.project(
            potentials.DoubleWell(size=40_000), np.eye(2, 40_000), np.zeros(40_000)
        ),
    ):
        evaluator = V.evaluator(BACKENDS[2], 2, 0)
        z, energies = V.initial(2), np.empty(2)
        out = np.empty_like(z)
        evaluator.forces(z, out, 0, energies)
        tracemalloc.start()
        evaluator.forces(z, out, 1, energies)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000  # one vector of q has 320,000 bytes


def test_polynomials_stay_those_of_each_parameter():
    well = potentials.DoubleWell(size=4)
    part = potentials.restrict(well, "q", np.zeros(4)).evaluator(BACKENDS[2], 1, 0)
    assert part.polynomial == well.evaluator(BACKENDS[2], 1, 0).polynomial
    line = potentials.project(well, np.ones(4), np.zeros(4))
    assert line.evaluator(BACKENDS[2], 1, 0).polynomial is None


# --- minibatches and predictions ------------------------------------------------------


def test_minibatches_go_through_with_the_number_of_the_call():
    batches = U.minibatch(5)
    z, out, force = last().initial(3), np.empty((3, 24)), np.empty((3, U.size))
    part = potentials.restrict(batches, ["0.bias", "2.*"], Q0)
    evaluator = part.evaluator(BACKENDS[2], 3, 8)
    inner = batches.evaluator(BACKENDS[2], 3, 8)
    assert not evaluator.full
    for call in (0, 3, 4):
        evaluator.forces(z, out, call)
        inner.forces(part.embed(z), force, call)
        np.testing.assert_array_equal(out, part.select(force))
    np.testing.assert_allclose(part.energy(z), last().energy(z))
    line = potentials.project(batches, potentials.random_basis(U, 2), Q0)
    assert not line.evaluator(BACKENDS[2], 1, 0).full


def test_predictions():
    part, flat = last(), plane()
    for V in (part, flat, potentials.restrict(U.minibatch(4), "2.*", Q0)):
        z = V.initial(2, 3)
        q = V.embed(z)
        np.testing.assert_array_equal(V.predict(z, X), U.predict(q, X))
        np.testing.assert_allclose(V.predict(z[0], X), U.predict(q[0], X))
        expected = U.log_likelihood(q, X, LABELS)
        np.testing.assert_array_equal(V.log_likelihood(z, X, LABELS), expected)
    assert part.likelihood is U.likelihood
    assert not hasattr(potentials.restrict(LINEAR, "q", AT), "log_likelihood")
    assert not hasattr(
        potentials.project(potentials.Harmonic(size=6), AT, AT), "predict"
    )


def test_analysis_reads_a_run_of_the_last_layer():
    part = potentials.restrict(U, "2.*", Q0)
    sim = mdnet.Simulation(
        part, integrators.BAOAB(dt=0.05), replicas=2, backend="cpu", seed=1
    )
    record = reporters.Memory(5)
    sim.run(50, reporters=[record])
    p = analysis.predictive(record, X, potential=part, burn_in=0)
    assert p.kind == "probabilities"
    frames = record.positions
    by_hand = np.mean([U.predict(part.embed(frame), X) for frame in frames], (0, 1))
    np.testing.assert_allclose(p.mean, by_hand, atol=1e-6)


def test_another_origin_is_another_potential(tmp_path):
    path = tmp_path / "run.h5md"
    sim = mdnet.Simulation(last(), integrators.BAOAB(dt=0.05), backend="cpu")
    sim.run(4, trajectory=path)
    moved = Q0.copy()
    moved[U.layout["2.bias"][0]] += 1  # not held: the same potential
    same = potentials.restrict(U, ["0.bias", "2.*"], moved)
    mdnet.Simulation.resume(path, potential=same).run(2)
    moved[U.layout["1.weight"][0]] += 1
    other = potentials.restrict(U, ["0.bias", "2.*"], moved)
    with pytest.raises(TrajectoryError, match="potential"):
        mdnet.Simulation.resume(path, potential=other)
    assert plane().describe() != potentials.project(U, plane().basis, moved).describe()


# --- exact answers --------------------------------------------------------------------


def gaussian_on(basis, at):
    """Mean and covariance of LINEAR at T = 1 on q = at + z B."""
    stiffness = basis @ LINEAR.hessian(at) @ basis.T
    pull = -basis @ LINEAR.gradient(at)
    return np.linalg.solve(stiffness, pull), np.linalg.inv(stiffness)


@pytest.mark.physics
def test_sampling_a_plane_of_a_regression():
    """Conditional Gaussian: 5 moments within 5 errors; false alarm 3e-6.

    The covariance of the whole posterior projected on the plane is another one: the
    control shows that the test sees the difference.
    """
    V = plane_of_a_regression()
    mean, covariance = gaussian_on(BASIS, AT)
    sim = mdnet.Simulation(
        V,
        integrators.BAOAB(dt=0.15, friction=2.0),
        replicas=200,
        seed=3,
        backend="cpu",
        precision="double",
        positions=np.tile(mean, (200, 1)),
    )
    sim.run(200)
    record = reporters.Memory(10)
    sim.run(1500, reporters=[record])
    z = record.positions[1:] - mean
    found = np.stack([z[..., 0], z[..., 1], z[..., 0] ** 2, z[..., 1] ** 2,
                      z[..., 0] * z[..., 1]], axis=-1).mean(axis=0)  # fmt: skip
    exact = [0, 0, covariance[0, 0], covariance[1, 1], covariance[0, 1]]
    assert z_scores(found, exact).max() < 5
    inverse = np.linalg.pinv(BASIS)
    marginal = inverse.T @ LINEAR.covariance() @ inverse
    wrong = [0, 0, marginal[0, 0], marginal[1, 1], marginal[0, 1]]
    assert z_scores(found, wrong).max() > 10


def test_restricted_regression_is_the_conditional_one():
    named = potentials.Custom(
        6,
        energy=LINEAR.energy,
        gradient=LINEAR.gradient,
        layout={"a": (slice(0, 2), (2,)), "b": (slice(2, 6), (2, 2))},
    )
    part = potentials.restrict(named, "b", AT)
    basis = np.eye(6)[2:]
    start = AT.copy()
    start[2:] = 0
    mean, covariance = gaussian_on(basis, start)
    z = RNG.normal(size=(5, 4))
    centred = z - mean
    quadratic = 0.5 * np.einsum(
        "ri,ij,rj->r", centred, np.linalg.inv(covariance), centred
    )
    np.testing.assert_allclose(part.energy(z) - part.energy(mean), quadratic)
    np.testing.assert_allclose(part.gradient(mean), 0, atol=1e-12)


# --- bases ----------------------------------------------------------------------------


def test_random_basis():
    basis = potentials.random_basis(U, 4, seed=3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=1e-13)
    np.testing.assert_array_equal(basis, potentials.random_basis(U, 4, seed=3))
    assert np.abs(basis - potentials.random_basis(U, 4, seed=4)).max() > 0.01


def test_filter_normalised_directions():
    """Row by row as long as the weights; so the plane follows a rescaled network."""
    like = U.initial(1, 2)[0] + 0.1
    basis = potentials.random_basis(U, 2, like=like)
    for where, shape in U.layout.values():
        rows = like[where].reshape(shape[0], -1)
        lengths = np.linalg.norm(basis[:, where].reshape(2, shape[0], -1), axis=2)
        np.testing.assert_allclose(lengths, np.tile(np.linalg.norm(rows, axis=1), 2)
                                   .reshape(2, -1))  # fmt: skip


def test_principal_components():
    scales = np.array([3.0, 2.0, 0.1, 0.01])
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    samples = (RNG.normal(size=(50, 40, 4)) * scales) @ turn + 5
    basis, mean, variance = potentials.pca_basis(samples, 2)
    np.testing.assert_allclose(np.abs(basis @ turn.T), np.eye(2, 4), atol=0.06)
    np.testing.assert_allclose(variance, [9, 4], rtol=0.2)
    np.testing.assert_allclose(mean, samples.reshape(-1, 4).mean(0))
    flat = potentials.project(potentials.Harmonic(size=4), basis, mean)
    np.testing.assert_allclose(flat.select(flat.embed(np.ones(2))), 1)
    np.testing.assert_allclose(flat.initial(3), (flat.part.initial(3) - mean) @ basis.T)


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: potentials.restrict(U, ["9.*"], Q0), r"'9\.\*' matches none.*0\.wei"),
        (lambda: potentials.restrict(U, [], Q0), r"layers=\[\]"),
        (lambda: potentials.restrict(U, 3, Q0), "layers=3"),
        (lambda: potentials.restrict(U, "2.*", Q0[:4]), r"at has shape \(4,\)"),
        (lambda: potentials.restrict(np.sin, "2.*", Q0), "not a potential"),
        (lambda: last().embed(np.zeros(3)), r"\(R, 24\)"),
        (lambda: potentials.project(U, np.eye(2), Q0), r"basis has shape \(2, 2\)"),
        (lambda: potentials.project(U, [Q0, 2 * Q0], Q0), "rank 1"),
        (lambda: potentials.project(U, [Q0 * np.nan], Q0), "not finite"),
        (lambda: potentials.random_basis(potentials.Harmonic(), 2), "dimension=2"),
        (lambda: potentials.random_basis(U, 0), "dimension=0"),
        (lambda: potentials.pca_basis(np.zeros((3, 5)), 3), "3 samples of 5"),
    ],
)
def test_errors(call, says):
    with pytest.raises(PotentialError, match=says):
        call()
