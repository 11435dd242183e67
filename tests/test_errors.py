"""Errors users make: each raises an `MdnetError` that names argument and value."""

import importlib.util

import h5py
import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, schedules
from mdnet.errors import (
    BackendError,
    DivergenceError,
    MdnetError,
    PotentialError,
    SchemeError,
    TrajectoryError,
)
from mdnet.reporters import Memory

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
LABELS = np.arange(20) % 4


def net():
    return potentials.MLP([3, 5, 4], activation="tanh")


def harmonic():
    return potentials.Harmonic(stiffness=4.0, size=3)


def simulate(potential=None, integrator=None, **settings):
    settings.setdefault("backend", "cpu")
    return mdnet.Simulation(
        potential or harmonic(), integrator or integrators.BAOAB(dt=0.1), **settings
    )


def regression(X=X, y=LABELS, **settings):
    return potentials.LinearRegression(X, y, **settings)


def with_nan(array):
    out = np.array(array, float)
    out.flat[4] = np.nan
    return out


def posterior(X=X, y=LABELS, **settings):
    return potentials.Posterior(net(), data=(X, y), **settings)


CASES = {
    # --- data and potentials
    "inputs of another width": (
        lambda: posterior(X[:, :2]), PotentialError, r"X has shape \(20, 2\).*n, 3"),
    "targets of another length": (
        lambda: posterior(y=LABELS[:19]), PotentialError, r"y has shape \(19,\).*20"),
    "labels outside the classes": (
        lambda: posterior(y=LABELS + 1), PotentialError, r"4.*0.*3"),
    "labels below zero": (
        lambda: posterior(y=LABELS - 1), PotentialError, "-1"),
    "labels that are no integers": (
        lambda: posterior(y=LABELS + 0.5), PotentialError, "0.5|float"),
    "NaN in the inputs": (
        lambda: posterior(with_nan(X)), PotentialError, "X holds NaN"),
    "NaN in the targets": (
        lambda: posterior(y=with_nan(LABELS), likelihood="gaussian"),
        PotentialError, "y"),
    "data without targets": (
        lambda: potentials.Posterior(net(), data=X), PotentialError, r"pair \(X, y\)"),
    "unknown likelihood": (
        lambda: posterior(likelihood="weibull"), PotentialError, "'weibull'"),
    "a prior's class": (
        lambda: posterior(prior=potentials.GaussianPrior), PotentialError, "prior="),
    "batch larger than the data": (
        lambda: posterior().minibatch(21), PotentialError, "batch_size=21.*20"),
    "batch of nothing": (
        lambda: posterior().minibatch(0), PotentialError, "batch_size=0"),
    "batch as a share": (
        lambda: posterior().minibatch(0.5), PotentialError, "batch_size=0.5"),
    "unknown order": (
        lambda: posterior().minibatch(4, order="random"), PotentialError, "'random'"),
    "batch of a regression": (
        lambda: regression().minibatch(99), PotentialError, "batch_size=99.*20"),
    "regression with NaN": (
        lambda: regression(with_nan(X)), PotentialError, r"X has 1 values.*nan"),
    "regression of other lengths": (
        lambda: regression(y=LABELS[:5]), PotentialError, r"y has shape \(5,\)"),
    "noise of nothing": (
        lambda: regression(noise=0.0), PotentialError, "noise=0.0"),
    "negative stiffness": (
        lambda: potentials.Harmonic(-1.0), PotentialError, "stiffness=-1.0"),
    "positions of another width": (
        lambda: harmonic().energy(np.zeros((2, 4))), PotentialError,
        r"q has shape \(2, 4\).*\(R, 3\)"),
    "sum of other sizes": (
        lambda: harmonic() + potentials.Harmonic(size=4), PotentialError,
        r"sizes \[3, 4\]"),
    "custom without functions": (
        lambda: potentials.Custom(size=3, energy=1.0, gradient=np.cos),
        PotentialError, "energy=1.0"),
    # --- integrators
    "no step": (
        lambda: integrators.BAOAB(dt=0.0), SchemeError, "dt=0.0.*> 0"),
    "backward step": (
        lambda: integrators.SGLD(dt=-1e-3), SchemeError, "dt=-0.001"),
    "step that is no number": (
        lambda: integrators.BAOAB(dt="small"), SchemeError, "dt='small'"),
    "negative temperature": (
        lambda: integrators.BAOAB(dt=0.1, temperature=-1.0), SchemeError,
        "temperature=-1.0.*k_B = 1"),
    "negative friction": (
        lambda: integrators.OBABO(dt=0.1, friction=-1.0), SchemeError, "friction=-1.0"),
    "mass of nothing": (
        lambda: integrators.BAOAB(dt=0.1, mass=[1.0, 0.0]), SchemeError, "mass="),
    "momentum of one": (
        lambda: integrators.SGD(dt=0.1, momentum=1.0), SchemeError, "momentum=1.0"),
    "unknown letter": (
        lambda: integrators.Splitting("BAXAB", dt=0.1), SchemeError,
        "'X'.*A = drift.*B = kick.*O = bath"),
    "unequal coefficients": (
        lambda: integrators.Splitting([("A", 0.4), ("B", 1.0), ("A", 0.4)], dt=0.1),
        SchemeError, "'A' add up to 0.8, expected 1"),
    "a word that goes nowhere": (
        lambda: integrators.Splitting("BOB", dt=0.1), SchemeError, "no A"),
    # --- simulation
    "no potential": (
        lambda: simulate(lambda q: q), PotentialError, "potentials.Custom"),
    "no integrator": (
        lambda: simulate(integrator="BAOAB"), SchemeError, "integrator='BAOAB'"),
    "no replicas": (
        lambda: simulate(replicas=0), PotentialError, "replicas=0"),
    "half a replica": (
        lambda: simulate(replicas=1.5), PotentialError, "replicas=1.5"),
    "start of another shape": (
        lambda: simulate(positions=np.zeros((2, 3))), PotentialError,
        r"positions has shape \(2, 3\): expected \(1, 3\)"),
    "NaN in the start": (
        lambda: simulate(positions=[0.0, np.nan, 0.0]), PotentialError,
        r"positions\[0, 1\]=nan"),
    "momenta of another shape": (
        lambda: simulate(momenta=np.zeros(3)), PotentialError,
        r"momenta has shape \(3,\)"),
    "infinite momenta": (
        lambda: simulate(momenta=np.full((1, 3), np.inf)), PotentialError,
        "momenta.*finite"),
    "negative seed": (
        lambda: simulate(seed=-1), PotentialError, "seed=-1"),
    "seed that is no integer": (
        lambda: simulate(seed=0.5), PotentialError, "seed=0.5"),
    "steps for other replicas": (
        lambda: simulate(integrator=integrators.BAOAB(dt=[0.1, 0.2]), replicas=3),
        SchemeError, r"dt has shape \(2,\).*replicas=3"),
    "temperatures for other replicas": (
        lambda: simulate(integrator=integrators.BAOAB(0.1, [1.0, 2.0])),
        SchemeError, r"temperature has shape \(2,\)"),
    "masses for other parameters": (
        lambda: simulate(integrator=integrators.BAOAB(0.1, mass=np.ones(4))),
        SchemeError, r"mass has shape \(4,\).*\(3,\)"),
    "beyond the stability limit": (
        lambda: simulate(integrator=integrators.BAOAB(dt=1.0)), SchemeError,
        r"dt=1.0 is beyond the stability limit dt < 1 of BAOAB"),
    "beyond that of SGLD": (
        lambda: simulate(integrator=integrators.SGLD(dt=0.51)), SchemeError,
        r"dt=0.51 .* limit dt < 0.5 of SGLD"),
    "beyond that of a regression": (
        lambda: simulate(regression(), integrators.VelocityVerlet(dt=1.0)),
        SchemeError, r"dt=1.0 .* limit .*largest stiffness"),
    "beyond that of a multiple": (
        lambda: simulate(9.0 * harmonic(), integrators.BAOAB(dt=0.34)),
        SchemeError, r"limit dt < 0.33333"),
    "negative steps": (
        lambda: simulate().run(-1), SchemeError, "steps=-1"),
    "steps that are no integer": (
        lambda: simulate().run(1e3), SchemeError, "steps=1000.0"),
    "minimise backwards": (
        lambda: simulate().minimize(-1), SchemeError, "steps=-1"),
    "no cadence": (
        lambda: simulate().run(10, reporters=[Memory(0)]), SchemeError, r"every\(0\)"),
    "a protocol without a path": (
        lambda: simulate(protocol=schedules.linear(0.0, 1.0, 10)), PotentialError,
        "protocol.*interpolate.*Harmonic"),
    "a schedule that goes astray": (
        lambda: simulate(
            integrator=integrators.BAOAB(schedules.linear(0.1, -0.1, 20))
        ).run(20),
        SchemeError, "dt=.* at step 10"),
    "unknown backend": (
        lambda: simulate(backend="tpu"), BackendError, "backend='tpu'"),
    "unknown precision": (
        lambda: simulate(precision="half"), BackendError, "precision='half'"),
    "no file": (
        lambda: mdnet.open("nowhere.h5md"), TrajectoryError, "nowhere.h5md"),
    "resume from no file": (
        lambda: mdnet.Simulation.resume("nowhere.h5md", harmonic()),
        TrajectoryError, "nowhere.h5md"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_users_errors(case):
    call, kind, message = CASES[case]
    with pytest.raises(kind, match=f"(?s){message}") as caught:
        call()
    assert isinstance(caught.value, MdnetError)
    assert len(str(caught.value)) < 500


def test_kinds_are_what_a_caller_guesses():
    for kind, guess in (
        (PotentialError, ValueError),
        (SchemeError, ValueError),
        (BackendError, RuntimeError),
        (TrajectoryError, RuntimeError),
        (DivergenceError, ArithmeticError),
    ):
        assert issubclass(kind, MdnetError)
        assert issubclass(kind, guess)


@pytest.mark.skipif(
    importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here"
)
def test_a_missing_backend_names_the_extra(monkeypatch):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    with pytest.raises(BackendError, match=r"cupy|CuPy.*cuda1"):
        simulate(backend="cuda")
    assert simulate(backend="auto").backend.name == "cpu"


def test_auto_is_the_cpu_without_a_device():
    """`devices` says why, in words."""
    records = mdnet.backend.devices()
    assert records[0]["kind"] == "cpu"
    assert all(record.get("note") or record.get("memory") for record in records)


@pytest.mark.parametrize(
    ("energy", "gradient", "message"),
    [
        (lambda q: q.sum(), lambda q: q, "energy"),
        (lambda q: (q**2).sum(1), lambda q: q[:, :1], "gradient"),
        (lambda q: (q**2).sum(1), lambda q: q * np.nan, "gradient"),
        (lambda q: (q**2).mean(), lambda q: q, "energy"),  # a mean, one for all
    ],
)
def test_functions_of_another_shape(energy, gradient, message):
    sim = simulate(
        potentials.Custom(size=3, energy=energy, gradient=gradient), replicas=2
    )
    with pytest.raises(PotentialError, match=message):
        sim.run(1, reporters=[Memory(1)])


def test_a_mean_loss_is_seen_in_the_check_of_the_gradient():
    """The gradient of a mean loss beside the energy of the sum, or the reverse."""
    U = potentials.Custom(
        size=2,
        energy=lambda q: ((X[:, :2] @ q[:, :, None])[..., 0] ** 2).mean(1),
        gradient=lambda q: 2 * (X[:, :2] @ q[:, :, None])[..., 0] @ X[:, :2],
    )
    assert potentials.check_gradient(U, np.ones((1, 2))) > 0.9  # 1 - 1/20


# --- runs that blow up --------------------------------------------------------------


def test_a_divergence_names_step_replica_and_energy(tmp_path):
    """Far too large a step for a network: the file is valid up to the last report."""
    path = tmp_path / "run.h5md"
    U = potentials.Posterior(
        potentials.MLP([3, 8, 4], activation="relu"), data=(100 * X, LABELS)
    )
    sim = simulate(U, integrators.BAOAB(dt=[0.002, 30.0]), replicas=2, seed=1)
    with pytest.raises(DivergenceError, match="replica 1 diverged") as caught:
        sim.run(2000, trajectory=path, every=5)
    error = caught.value
    assert error.replica == 1
    assert 0 < error.step <= 2000
    assert np.isfinite(error.energy)
    assert error.step == sim.state.step
    for part in ("dt", "minimize", "replica 0"):
        assert part in str(error)
    run = mdnet.open(path)
    assert len(run) > 0
    assert run.steps[-1] < error.step
    assert run.check() == []
    assert np.isfinite(run.positions[:]).all()
    last = run["potential_energy"]
    assert np.isfinite(last.value[:, 0]).all()
    assert error.energy == last.value[-1, 1]
    assert run.complete


@pytest.mark.parametrize("make", [integrators.SGLD, integrators.VelocityVerlet])
def test_a_divergence_without_reports(make):
    U = potentials.DoubleWell(size=10)
    with pytest.raises(DivergenceError) as caught:
        simulate(U, make(dt=5.0)).run(3000)
    assert caught.value.step <= 1000
    assert np.isfinite(caught.value.energy)


def test_a_divergence_at_zero_temperature():
    U = potentials.DoubleWell(size=10)
    with pytest.raises(DivergenceError):
        simulate(U, integrators.SGD(dt=5.0), positions=np.full(10, 3.0)).run(3000)


# --- files that are not trajectories -------------------------------------------------


def written(tmp_path):
    path = tmp_path / "run.h5md"
    simulate().run(20, trajectory=path)
    return path


def both(path):
    """Opening to read, and to go on."""
    return (
        lambda: mdnet.open(path),
        lambda: mdnet.Simulation.resume(path, potential=harmonic()),
    )


def test_a_text_file(tmp_path):
    path = tmp_path / "run.h5md"
    path.write_text("not HDF5")
    for call in both(path):
        with pytest.raises(TrajectoryError, match="not an HDF5 file"):
            call()


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "run.h5md"
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]
    for call in both(path):
        with pytest.raises(TrajectoryError, match="not an mdnet trajectory"):
            call()


def test_a_truncated_file(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    for call in both(path):
        with pytest.raises(TrajectoryError, match="truncated"):
            call()


def test_a_file_of_a_newer_schema(tmp_path):
    path = written(tmp_path)
    with h5py.File(path, "r+") as file:
        file["mdnet"].attrs["schema"] = 99
    for call in both(path):
        with pytest.raises(TrajectoryError, match=r"schema version 99.*update mdnet"):
            call()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(TrajectoryError, match="folder"):
        simulate().run(1, trajectory=tmp_path / "none" / "run.h5md")


def test_an_unknown_quantity_or_tensor(tmp_path):
    for settings in ({"store": ("positions", "spins")}, {"select": ["9.weight"]}):
        with pytest.raises(TrajectoryError, match=r"spins|9\.weight"):
            simulate(posterior()).run(
                1, trajectory=tmp_path / f"{settings}.h5md", **settings
            )
