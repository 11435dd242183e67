"""Weights of Boltzmann machines as positions: forces, their bias, runs and training.

Statistical checks have a fixed seed; false alarms of another seed are stated beside.
"""

import numpy as np
import pytest
from scipy import stats

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import PotentialError, TrajectoryError
from mdnet.potentials import _rbm_sampling as sampling
from mdnet.potentials._rbm_arrays import unpack


def states(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)


def posterior(estimator="exact", n_data=40, **options):
    data = np.random.default_rng(7).random((n_data, 6)) < [0.2, 0.8, 0.5, 0.5, 0.1, 0.6]
    return potentials.RBMPosterior(data, 4, estimator, **options)


def weights_of(U, replicas=3, scale=0.5):
    return scale * np.random.default_rng(8).normal(size=(replicas, U.size))


def test_energy_is_the_negative_log_posterior():
    U = posterior(prior=potentials.GaussianPrior(scale=2.0))
    q = weights_of(U)
    for row, energy in zip(q, U.energy(q), strict=True):
        likelihood = U.machine(row).log_probability(U._data).sum()
        prior = stats.norm.logpdf(row, scale=2.0).sum()
        assert energy == pytest.approx(-likelihood - prior)
    flat = posterior(prior=None)
    assert flat.energy(q[0]) == pytest.approx(
        -flat.machine(q[0]).log_probability(flat._data).sum()
    )


@pytest.mark.parametrize(
    ("estimator", "options"),
    [("exact", {}), ("cd", {}), ("ais", {})]
    + [("tap", {"order": order, "tolerance": 1e-12}) for order in (1, 2, 3)],
)
def test_gradient_is_that_of_the_energy(estimator, options):
    U = posterior(estimator, **options)
    assert potentials.check_gradient(U, weights_of(U)) < 1e-7
    exact = posterior()
    q = weights_of(U)
    gap = np.abs(U.energy(q) - exact.energy(q)).max()
    assert gap > 1e-4 if estimator == "tap" else gap == 0


def test_forces_with_energies_in_every_precision():
    for estimator in ("exact", "tap", "cd", "ais"):
        U = posterior(estimator)
        q = weights_of(U).astype(np.float32)
        evaluator = U.evaluator(mdnet.backend.resolve("cpu", "single"), 3, seed=1)
        out, energies = np.empty_like(q), np.empty(3)
        evaluator.forces(q, out, 0, energies)
        assert energies == pytest.approx(U.energy(q.astype(float)), rel=1e-12)
        if evaluator.full:
            assert -out == pytest.approx(U.gradient(q), abs=1e-4)
        assert evaluator.full == (estimator in ("exact", "tap"))


def estimated(U, q, calls, seed=11):
    """Gradients of ``calls`` force calls, (calls, R, D)."""
    evaluator = U.evaluator(mdnet.backend.resolve("cpu", "double"), len(q), seed)
    out = np.empty((calls, *q.shape))
    for call in range(calls):
        evaluator.forces(q, out[call], call)
    return -out


def contrastive_law(U, row, k):
    """Exact expectation of the CD-k gradient, by powers of the transition matrix."""
    rbm = U.machine(row)
    v, h = states(rbm.n_visible), states(rbm.n_hidden)
    up, down = rbm.hidden_means(v), rbm.visible_means(h)
    to_h = np.where(h[None] > 0, up[:, None], 1 - up[:, None]).prod(axis=2)
    to_v = np.where(v[None] > 0, down[:, None], 1 - down[:, None]).prod(axis=2)
    start = np.bincount((U._data @ 2.0 ** np.arange(6)).astype(int), minlength=64)
    p = start @ np.linalg.matrix_power(to_h @ to_v, k)
    clamped = [U._data.T @ rbm.hidden_means(U._data), U._data.sum(0)]
    clamped.append(rbm.hidden_means(U._data).sum(0))
    free = [(v * p[:, None]).T @ up, p @ v, p @ up]
    return np.concatenate([(f - c).ravel() for f, c in zip(free, clamped, strict=True)])


@pytest.mark.physics
def test_contrastive_divergence_has_the_bias_it_must_have():
    """34 means within 5 standard errors (2e-5 in all); the exact gradient is not."""
    bias = []
    for k in (1, 3, 10, 100):
        U = posterior("cd", sweeps=k, prior=None)
        q = weights_of(U, 1, scale=1.0)
        law = contrastive_law(U, q[0], k)
        exact = U.gradient(q)[0]
        bias.append(np.linalg.norm(law - exact))
        if k > 3:
            continue
        draws = estimated(U, q, 1500)[:, 0]
        error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
        assert np.abs((draws.mean(axis=0) - law) / error).max() < 5
        assert np.abs((draws.mean(axis=0) - exact) / error).max() > 10
    assert np.all(np.diff(bias) < 0)
    assert bias[-1] < 1e-3 * bias[0]


@pytest.mark.physics
def test_minibatches_leave_the_mean_of_contrastive_divergence():
    """34 means within 5 standard errors (2e-5 in all); half the force is seen."""
    U = posterior("cd", sweeps=2, prior=None, batch_size=8)
    q = weights_of(U, 1, scale=1.0)
    draws = estimated(U, q, 1500)[:, 0]
    law = contrastive_law(U, q[0], 2)
    blocks = draws.reshape(100, 15, -1).mean(axis=1)  # of three epochs each
    error = blocks.std(axis=0, ddof=1) / 10
    assert np.abs((draws.mean(axis=0) - law) / error).max() < 5
    assert np.abs((0.5 * draws.mean(axis=0) - law) / error).max() > 10
    both = estimated(U, np.concatenate([q, q]), 2)
    assert not np.allclose(both[0, 0], both[0, 1])


@pytest.mark.physics
def test_persistent_chains_lose_the_bias():
    """Averages over 20000 chains within 5 standard errors; after one sweep not."""
    U = posterior(prior=None)
    q = weights_of(U, 1, scale=1.0)
    one = unpack(q, 6, 4)
    exact = U.machine(q[0]).averages()
    v = np.tile(U._data, (500, 1))[None]
    for step in range(40):
        v, _ = sampling.sweep(v, one, step, 3, np)
        if step not in (0, 39):
            continue
        hidden = U.machine(q[0]).hidden_means(v[0])
        products = v[0][:, :, None] * hidden[:, None, :]
        error = products.std(axis=0) / np.sqrt(len(products))
        worst = np.abs((products.mean(axis=0) - exact.both) / error).max()
        assert worst > 10 if step == 0 else worst < 5


@pytest.mark.physics
def test_annealed_forces_are_unbiased():
    """Means of 300 forces within 5 standard errors; those without weights are not."""
    U = posterior("ais", chains=200, steps=6, prior=None)
    q = weights_of(U, 1, scale=1.5)
    draws = estimated(U, q, 300)[:, 0]
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    exact = U.gradient(q)[0]
    assert np.abs((draws.mean(axis=0) - exact) / error).max() < 5
    one = unpack(q, 6, 4)
    betas = np.linspace(0, 1, 7)
    means = [
        sampling.averages(
            sampling.annealed(one, np.zeros(6), 200, betas, 7 * c, 11, np)[2], one, np
        ).both[0]
        for c in range(100)
    ]
    spread = np.std(means, axis=0) / 10
    both = U.machine(q[0]).averages().both
    assert np.abs((np.mean(means, axis=0) - both) / spread).max() > 5


@pytest.mark.parametrize("estimator", ["cd", "ais", "exact"])
def test_a_run_resumes_bit_for_bit(estimator, tmp_path):
    batch = 10 if estimator == "cd" else None
    U = posterior(estimator, chains=20, steps=5, batch_size=batch)
    word = integrators.BAOAB(dt=0.02, temperature=1.0, friction=2.0)
    whole = mdnet.Simulation(U, word, replicas=2, seed=4)
    whole.run(30)
    part = mdnet.Simulation(U, word, replicas=2, seed=4)
    part.run(13, trajectory=tmp_path / "run.h5md", every=5)
    resumed = mdnet.Simulation.resume(
        tmp_path / "run.h5md",
        potential=posterior(estimator, chains=20, steps=5, batch_size=batch),
    )
    resumed.run(17)
    assert np.array_equal(resumed.state.positions, whole.state.positions)
    alone = mdnet.Simulation(U, word, replicas=1, seed=4)
    alone.run(30)
    close = np.allclose(alone.state.positions[0], whole.state.positions[0], atol=1e-4)
    assert close


def test_magnetisations_that_do_not_settle_are_no_force():
    U = posterior("tap", order=3, damping=0.0, prior=None)
    strong = 3.0 * weights_of(U, replicas=20, scale=1.0)
    with pytest.raises(PotentialError, match=r"still change by .* damping=0\.9"):
        U.gradient(strong)
    damped = posterior("tap", order=3, damping=0.9, prior=None)
    assert np.isfinite(damped.gradient(strong)).all()


def test_large_machines_take_their_energy_elsewhere():
    data = np.random.default_rng(1).random((10, 25)) < 0.5
    for estimator in ("cd", "tap", "ais"):
        U = potentials.RBMPosterior(data, 22, estimator, prior=None, chains=50)
        q = U.initial(2, seed=1)
        assert U.energy(q) == pytest.approx(-10 * 25 * np.log(0.5), rel=0.1)
        assert np.array_equal(U.energy(q), U.energy(q))
        assert U.describe()["estimator"] == estimator
        assert not U.enumerable
    with pytest.raises(PotentialError, match="method='ais' or method='tap'"):
        potentials.RBMPosterior(data, 22)


# --- training -------------------------------------------------------------------------


def bars():
    return np.tile(np.repeat(np.eye(3), 2, axis=1), (20, 1))


@pytest.mark.parametrize("method", ["pcd", "cd"])
def test_training_reaches_the_likelihood_of_the_teacher(method):
    W = 4 * np.random.default_rng(0).normal(size=(6, 3))
    teacher = potentials.RBM(W, -W.sum(axis=1) / 2, -W.sum(axis=0) / 2)
    data, _ = teacher.sample(chains=400, sweeps=100, seed=1)
    trainer = potentials.RBMTrainer(data, 3, method, chains=200, rate=0.2, seed=1)
    aim = teacher.log_probability(data).mean()
    assert trainer.machine.log_probability(data).mean() < aim - 1
    trainer.run(2000)
    trainer.run(300, rate=0.01)
    assert trainer.machine.log_probability(data).mean() > aim - 0.05


@pytest.mark.parametrize("method", ["pcd", "cd"])
def test_training_goes_on_bit_for_bit(method, tmp_path):
    def fresh():
        return potentials.RBMTrainer(
            bars(), 4, method, sweeps=2, chains=7, batch_size=20, momentum=0.9, seed=2
        )

    whole, part = fresh(), fresh()
    whole.run(25)
    part.run(11)
    part.save(tmp_path / "trainer.npz")
    again = potentials.RBMTrainer.load(tmp_path / "trainer.npz", bars())
    again.run(14)
    for name in ("positions", "velocity", "chains", "step"):
        assert np.array_equal(getattr(again, name), getattr(whole, name)), name
    with pytest.raises(TrajectoryError, match="written with other data"):
        potentials.RBMTrainer.load(tmp_path / "trainer.npz", 1 - bars())
    with pytest.raises(TrajectoryError, match=r"ending in \.npz"):
        part.save(tmp_path / "trainer")
    (tmp_path / "none.npz").write_bytes(b"nothing")
    with pytest.raises(TrajectoryError, match=r"not a file of RBMTrainer\.save"):
        potentials.RBMTrainer.load(tmp_path / "none.npz", bars())


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: potentials.RBMPosterior([0, 1], 2), r"expected \(N, n_v\)"),
        (lambda: potentials.RBMPosterior([[0, 2]], 2), "expected 0 and 1 only"),
        (lambda: potentials.RBMPosterior([[0, 1]], 0), "n_hidden=0"),
        (lambda: potentials.RBMPosterior([[0, 1]], 2, "mcmc"), "estimator='mcmc'"),
        (lambda: potentials.RBMPosterior([[0, 1]], 2, "pcd"), "RBMTrainer"),
        (lambda: potentials.RBMPosterior([[0, 1]], 2, batch_size=1), "estimator='cd'"),
        (lambda: potentials.RBMPosterior([[0, 1]], 2, "cd", batch_size=2), "1 to 1"),
        (lambda: potentials.RBMTrainer([[0, 1]], 2), "batch_size=100"),
        (
            lambda: potentials.RBMTrainer([[0, 1]], 2, "sgd", batch_size=1),
            "'pcd' or 'cd'",
        ),
        (
            lambda: potentials.RBMTrainer([[0, 1]], 2, batch_size=1, momentum=1.0),
            "momentum=1.0",
        ),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(PotentialError, match=words):
        call()
