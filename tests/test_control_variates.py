"""Control variates: no bias, the noise they leave, and the heating that this causes.

Statistical checks compare means over 40 independent blocks of replicas with exact
values: beyond 6 standard errors (Student's t, 39 degrees of freedom) is a false alarm
in 5e-7 of the comparisons, and in less than 1e-3 of fresh seeds anywhere in this file.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.backend import resolve
from mdnet.errors import PotentialError
from mdnet.potentials import likelihoods
from mdnet.potentials.control_variates import Tabulated, mode

from .physics_tools import linear_step, z_scores

BLOCKS, LIMIT = 40, 6.0
KINDS = [
    {"control_variate": "fixed"},
    {"control_variate": "svrg", "refresh": 7},
    {"control_variate": "saga", "order": "replacement"},
]
NOISE = 0.8


def classifier(n=120):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(n, 4)), rng.integers(0, 3, n)
    return potentials.Posterior(potentials.MLP([4, 6, 3]), "categorical", data=data)


def regression(n=60, d=3):
    """The same posterior as a network, and with its answers."""
    rng = np.random.default_rng(12)
    X = rng.normal(size=(n, d)) * [1.0, 0.7, 0.5] + 0.2
    y = X @ rng.normal(size=d) + NOISE * rng.normal(size=n)
    exact = potentials.LinearRegression(X, y, noise=NOISE, prior_scale=2.0)
    U = potentials.Posterior(
        potentials.MLP([d, 1], bias=False),
        likelihoods.Gaussian(noise=NOISE),
        potentials.GaussianPrior(scale=2.0),
        data=(X, y),
    )
    return exact, U


# --- no bias ---------------------------------------------------------------------


def moved(U, start, seed):
    rng = np.random.default_rng(seed)
    return start + 0.3 * rng.normal(size=start.shape)


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s["control_variate"])
@pytest.mark.parametrize("precision", ["double", "single"])
def test_all_batches_together_give_the_full_force(settings, precision):
    """Whatever is kept: the mean over an epoch, or over the table, is exact."""
    U = classifier()
    backend = resolve("cpu", precision)
    evaluator = U.minibatch(20, **settings).evaluator(backend, 3, seed=5)
    start = U.initial(3, seed=1).astype(backend.state_dtype)
    q = moved(U, start, 2).astype(backend.state_dtype)
    out, full = np.empty_like(q), np.empty_like(q)
    energy = np.empty(3)
    evaluator.forces(start, out, 7, energy)  # anchors, or fills the table
    if settings["control_variate"] == "svrg":  # whose anchor is this start
        np.testing.assert_array_equal(energy, evaluator_energy(evaluator, start))
    if isinstance(evaluator, Tabulated):
        found = {evaluator._drawn(c): c for c in range(200)}
        calls = [found[b] for b in range(6)]
    else:
        calls = range(6)
    mean = np.zeros(q.shape)
    energies = np.zeros(3)
    for call in calls:
        evaluator.estimate(q, out, call, energy)
        mean += out / 6
        energies += energy / 6
    evaluator.gradients(q, full)
    tolerance = 1e-12 if precision == "double" else 1e-5
    scale = np.abs(full).max()
    np.testing.assert_allclose(mean, -full, atol=tolerance * scale)
    np.testing.assert_allclose(energies, U.energy(q), rtol=tolerance)
    assert np.abs(out + full).max() > 1e-2 * scale  # each by itself is an estimate


def evaluator_energy(evaluator, q):
    out = np.empty(len(q))
    evaluator.energies(q, out)
    return out


@pytest.mark.physics
@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s["control_variate"])
def test_independent_batches_are_unbiased(settings):
    """4,000 calls, 45 weights, 5.5 standard errors: a false alarm in 1e-5 of seeds."""
    U = classifier()
    settings = {"order": "replacement", **settings}
    evaluator = U.minibatch(20, **settings).evaluator(resolve("cpu", "double"), 20, 3)
    start = np.tile(U.initial(1, seed=2), (20, 1))
    q, out = moved(U, start[:1], 4) + 0 * start, np.empty_like(start)
    evaluator.forces(start, out, 0)
    draws = []
    for call in range(1, 201):
        evaluator.estimate(q, out, call)
        draws.append(out.copy())
    draws = np.concatenate(draws)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    # Replicas of a table share the sequence of batches, not the batches.
    exact = -U.gradient(q[0])
    assert (np.abs(draws.mean(0) - exact) < 5.5 * error + 1e-12).all()
    # Negative control: the anchor's own force left out.
    wrong = draws.mean(0) - -U.gradient(start[0])
    assert (np.abs(wrong - exact) > 5.5 * error).any()


def test_the_table_is_one_of_real_forces():
    """After each call the entry of its batch, and the mean, are what they should be."""
    U = classifier()
    backend = resolve("cpu", "double")
    Ub = U.minibatch(20, "replacement", control_variate="saga")
    evaluator = Ub.evaluator(backend, 2, seed=5)
    plain = U.minibatch(20, "shuffle").evaluator(backend, 2, seed=5)
    q, out = U.initial(2, seed=1), np.empty((2, U.size))
    evaluator.forces(q, out, 0)
    for call in range(1, 60):
        q = q + 0.01
        evaluator.forces(q, out, call)
        evaluator.forces(q, again := np.empty_like(out), call)
        np.testing.assert_array_equal(again, out)  # asked twice, answered once
        drawn = evaluator._drawn(call)
        evaluator._commit()
        plain.forces(q, out, drawn)
        np.testing.assert_array_equal(evaluator._table[:, drawn], out)
        np.testing.assert_allclose(
            evaluator._mean, evaluator._table.mean(axis=1), atol=1e-11
        )
    assert {evaluator._drawn(c) for c in range(60)} == set(range(6))


# --- the noise that is left ------------------------------------------------------


def exact_variance(exact, shift, batch, distinct):
    """Trace of the covariance of (N/n) sum_B a_i shift, a_i = x_i x_i' / noise^2."""
    X, n = exact.X, exact.n_data
    each = X * (X @ shift)[:, None] / exact.noise**2
    spread = ((each - each.mean(0)) ** 2).sum(1).mean()
    left = (n - batch) / (n - 1) if distinct else 1.0
    return n * n / batch * spread * left


@pytest.mark.physics
@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s["control_variate"])
def test_variance_is_that_of_the_distance(settings):
    """In a quadratic U it is known, and falls as the square of the distance."""
    exact, U = regression()
    kind = settings["control_variate"]
    given = {**settings, "order": "replacement"}
    anchor = exact.mean()
    if kind == "fixed":
        given["reference"] = anchor
    Ub, calls = U.minibatch(6, **given), 400
    for distance in (0.02, 0.2):
        shift = distance * np.array([1.0, -2.0, 0.5])
        q = np.tile(anchor + shift, (40, 1))
        found = potentials.force_variance(Ub, q, calls, seed=3, anchor=anchor)
        known = exact_variance(exact, shift, 6, distinct=kind == "saga")
        assert z_scores(found, known) < LIMIT
        # Replicas of a table go on with few batches each: they scatter more.
        assert z_scores(found, (2 if kind == "saga" else 1.3) * known) > LIMIT
        plain = potentials.force_variance(U.minibatch(6, "replacement"), q, calls)
        assert plain.mean() > (5 if distance == 0.2 else 500) * found.mean()
    still = potentials.force_variance(Ub, anchor, 20, anchor=anchor)
    assert still == pytest.approx(0, abs=1e-18 + 1e-12 * known)


@pytest.mark.physics
def test_plain_variance_is_that_of_linear_regression():
    exact, U = regression()
    q = np.tile(exact.mean() + 0.1, (40, 1))
    for order in ("replacement", "without"):
        found = potentials.force_variance(U.minibatch(6, order), q, 400)
        known = np.trace(exact.force_noise_covariance(q[0], 6, order))
        assert z_scores(found, known) < LIMIT
        assert z_scores(found, 1.1 * known) > LIMIT


# --- the heating -----------------------------------------------------------------


def predicted(exact, make, batch, kind, refresh=10, every=10):
    """Stationary covariance of q when ``every`` divides the steps done.

    Noise of a batch of independent rows is linear in q - a and in the residual; second
    moments of (q, p, f, a) about the mean are followed, exactly, until they repeat.
    """
    n, X, d = exact.n_data, exact.X, exact.size
    H, residual = exact.hessian(exact.mean()), X @ exact.mean() - exact.y
    curvature = X.T @ X / exact.noise**2 / n
    pull = X.T @ residual / exact.noise**2 / n

    def noise(S, residual, pull):
        weight = (np.einsum("ni,ij,nj->n", X, S, X) + residual**2) / exact.noise**4
        C = (X.T * weight) @ X / n - curvature @ S @ curvature - np.outer(pull, pull)
        return C * n * n / batch

    steps = list(linear_step(make, H))
    q, f, a = (slice(i * d, (i + 1) * d) for i in (0, 2, 3))
    S, step, before = np.zeros((4 * d, 4 * d)), 0, None
    while step < 200_000:
        for letter, m, Q in steps:
            M, W = np.eye(4 * d), np.zeros((4 * d, 4 * d))
            M[: 3 * d, : 3 * d], W[: 3 * d, : 3 * d] = m, Q
            if letter == "F" and kind == "plain":
                W[f, f] = noise(S[q, q], residual, pull)
            elif letter == "F" and kind == "fixed":
                W[f, f] = noise(S[q, q], 0 * residual, 0 * pull)
            elif letter == "F" and (step + 1) % refresh == 0:
                M[a, a], M[a, q] = 0, np.eye(d)
            elif letter == "F":
                away = S[q, q] + S[a, a] - S[q, a] - S[a, q]
                W[f, f] = noise(away, 0 * residual, 0 * pull)
            S = M @ S @ M.T + W
        step += 1
        if step % every == 0:
            if before is not None and np.abs(S - before).max() < 1e-13 * S.max():
                break
            before = S
    return S[q, q]


def measured(exact, potential, make, T, steps=150, every=10):
    """Products about the mean, (blocks, D, D) of each temperature's replicas."""
    sim = mdnet.Simulation(
        potential, make, len(T), exact.mean(), seed=8, backend="cpu",
        precision="double",
    )  # fmt: skip
    sim.run(100)
    total = 0.0
    for _ in range(steps // every):
        sim.run(every)
        x = sim.state.positions - exact.mean()
        total = total + x[:, :, None] * x[:, None, :]
    total = total / (steps // every)
    return {
        t: total[t == T].reshape(BLOCKS, -1, *total.shape[1:]).mean(1)
        for t in np.unique(T)
    }


def make_word(name, exact, temperature):
    k = exact.largest_stiffness
    if name == "BAOAB":
        return integrators.BAOAB(0.4 / np.sqrt(k), temperature, friction=5.0)
    return integrators.SGLD(0.2 / k, temperature)


@pytest.mark.slow
@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "SGLD"])
def test_heating_is_the_smaller_one_that_is_predicted(word):
    """Plain, fixed and SVRG batches of 6 rows, T = 1/4, 1 and 4, in every entry."""
    exact, U = regression()
    T = np.repeat([0.25, 1.0, 4.0], 800)

    def make(temperature):
        return make_word(word, exact, temperature)

    reference = exact.mean()
    hot = {}
    for kind, settings in (
        ("plain", {}),
        ("fixed", {"control_variate": "fixed", "reference": reference}),
        ("svrg", {"control_variate": "svrg", "refresh": 10}),
    ):
        potential = U.minibatch(6, "replacement", **settings)
        found = measured(exact, potential, make(T), T)
        for t, products in found.items():
            known = predicted(exact, make(t), 6, kind)
            hot[kind, t] = np.trace(known @ exact.hessian(reference)) / exact.size / t
            assert (z_scores(products, known) < LIMIT).all(), (kind, t)
        # Negative control: what plain batches would do, at the lowest temperature.
        if kind != "plain":
            wrong = predicted(exact, make(0.25), 6, "plain")
            assert z_scores(found[0.25], wrong).max() > LIMIT
    for t in (0.25, 1.0):
        cold = predicted(exact, make(t), 10**9, "plain")
        bare = np.trace(cold @ exact.hessian(reference)) / exact.size / t
        assert hot["plain", t] - bare > 2 * (hot["fixed", t] - bare)
        assert hot["plain", t] - bare > 2 * (hot["svrg", t] - bare)


def test_small_steps_heat_by_h_c_over_two():
    """hC/2 of SGLD and hC/2 friction of BAOAB, with the C that is left."""
    exact, _ = regression()
    H = exact.hessian(exact.mean())
    for make, rule in (
        (integrators.SGLD(dt=2e-4, temperature=1.0), 2e-4 / 2),
        (integrators.BAOAB(dt=2e-3, temperature=1.0, friction=20.0), 2e-3 / 40),
    ):
        S = predicted(exact, make, 6, "fixed")
        none = predicted(exact, make, 10**12, "fixed")
        each = exact.X[:, :, None] * exact.X[:, None, :] / exact.noise**2
        about = each - each.mean(0)
        C = 600 * np.einsum("nij,jk,nlk->il", about, exact.covariance(), about) / 60
        heating = np.trace(H @ (S - none)) / exact.size
        assert heating == pytest.approx(rule * np.trace(C) / exact.size, rel=0.1)


# --- restart, settings, errors ---------------------------------------------------


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s["control_variate"])
def test_variables_are_all_that_the_future_needs(settings):
    """A new evaluator that is given them goes on bit for bit."""
    U = classifier()
    backend = resolve("cpu", "single")
    Ub = U.minibatch(20, **settings)
    q = U.initial(3, seed=1).astype(np.float32)
    path = [q + np.float32(0.01 * i) for i in range(40)]
    first, second = (Ub.evaluator(backend, 3, 5) for _ in range(2))
    want, out = np.empty_like(q), np.empty_like(q)
    for call in range(20):
        first.forces(path[call], want, call)
    for name, value in first.variables.items():
        second.variables[name][...] = value
    fresh = Ub.evaluator(backend, 3, 5)
    differs = False
    for call in range(20, 40):
        first.forces(path[call], want, call)
        second.forces(path[call], out, call)
        np.testing.assert_array_equal(out, want)
        fresh.forces(path[call], out, call)
        differs = differs or (out != want).any()
    assert differs == bool(first.variables)  # negative control


def test_the_mode_is_found():
    exact, U = regression()
    np.testing.assert_allclose(mode(U), exact.mean(), atol=1e-5)
    Ub = U.minibatch(6, control_variate="fixed")
    np.testing.assert_allclose(Ub.reference, exact.mean(), atol=1e-5)
    own = np.stack([exact.mean(), exact.mean() + 1])
    Ub = U.minibatch(6, control_variate="fixed", reference=own)
    q = own + 1e-3
    assert (potentials.force_variance(Ub, q) < 1).all()
    with pytest.raises(PotentialError, match="2 rows"):
        Ub.evaluator(resolve("cpu"), 3)


def test_description_names_the_settings():
    _, U = regression()
    plain = U.minibatch(6).describe()["minibatch"]
    assert plain == {"size": 6, "order": "shuffle", "shared": False}
    svrg = U.minibatch(6, control_variate="svrg").describe()["minibatch"]
    assert svrg["control_variate"] == {"kind": "svrg", "refresh": 10}
    a, b = (
        U.minibatch(6, control_variate="fixed", reference=np.full(3, x)).describe()
        for x in (0.0, 1.0)
    )
    assert a != b


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control_variate": "sarah"}, "'fixed'"),
        ({"control_variate": "svrg", "refresh": 0}, "refresh=0"),
        ({"control_variate": "svrg", "refresh": 2.5}, "refresh=2.5"),
        ({"refresh": 5}, "control_variate='svrg'"),
        ({"reference": np.zeros(3)}, "control_variate='fixed'"),
        ({"control_variate": "fixed", "reference": np.zeros(4)}, r"\(4,\)"),
        ({"control_variate": "fixed", "reference": np.full(3, np.nan)}, "minimize"),
        ({"control_variate": "saga"}, "order='replacement'"),
        (
            {"control_variate": "saga", "order": "replacement", "batch_size": 7},
            "such as 4, 5, 6",
        ),
    ],
)
def test_bad_settings(arguments, message):
    _, U = regression()
    with pytest.raises(PotentialError, match=message):
        U.minibatch(**{"batch_size": 6, **arguments})


def test_bad_questions():
    _, U = regression()
    with pytest.raises(PotentialError, match="no noise"):
        potentials.force_variance(U, np.zeros(3))
    with pytest.raises(PotentialError, match="calls=0"):
        potentials.force_variance(U.minibatch(6), np.zeros(3), calls=0)
    with pytest.raises(PotentialError, match=r"q has shape \(4,\)"):
        potentials.force_variance(U.minibatch(6), np.zeros(4))


def test_a_table_that_is_too_large(monkeypatch):
    from mdnet.potentials import control_variates

    monkeypatch.setattr(control_variates, "_LARGEST", 1000)
    _, U = regression()
    Ub = U.minibatch(6, "replacement", control_variate="saga")
    with pytest.raises(PotentialError, match="svrg"):
        Ub.evaluator(resolve("cpu"), 50)
