"""Resuming from a file: by equality, of the state and of every dataset."""

import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, schedules, triggers
from mdnet.errors import TrajectoryError
from mdnet.reporters import Callback

EXACT_GROUPS = ("mdnet/frames", "mdnet/log", "mdnet/ledger", "observables")


def posterior(shift=0.0):
    rng = np.random.default_rng(9)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    net = potentials.MLP([4, 6, 2], activation="tanh")
    return potentials.Posterior(net, data=(X + np.float32(shift), y))


def regression():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 6))
    return potentials.LinearRegression(X, X @ rng.normal(size=6), noise=1.5)


def ramp():
    return schedules.linear(0.02, 0.005, 150)


CASES = {
    "analytic": (
        lambda: potentials.DoubleWell(size=2500),
        lambda: integrators.BAOAB(dt=0.02),
        "single",
    ),
    "analytic, no carried force": (
        lambda: potentials.DoubleWell(size=30),
        lambda: integrators.ABOBA(dt=0.02),
        "double",
    ),
    "network and minibatch": (
        lambda: posterior().minibatch(16),
        lambda: integrators.OBABO(dt=0.01, temperature=0.5),
        "single",
    ),
    "mixed precision": (
        lambda: posterior().minibatch(7),
        lambda: integrators.BAOAB(dt=0.01, mass=2.0),
        "mixed",
    ),
    "schedules": (
        posterior,
        lambda: integrators.BAOAB(ramp(), schedules.cyclic(1.0, 0.1, 40), ramp()),
        "single",
    ),
    "replicas apart": (
        lambda: potentials.Harmonic(size=20),
        lambda: integrators.BAOAB([0.1, 0.2], [1.0, 0.5], mass=np.linspace(1, 2, 20)),
        "single",
    ),
    "overdamped": (
        lambda: regression().minibatch(5, order="replacement"),
        lambda: integrators.SGLD(dt=0.001),
        "single",
    ),
    "heavy ball": (
        lambda: regression().minibatch(5),
        lambda: integrators.SGD(dt=0.001, momentum=0.9),
        "double",
    ),
    "Hamiltonian": (
        regression,
        lambda: integrators.Omelyan4(dt=0.05),
        "double",
    ),
}


def start(case, **settings):
    potential, integrator, precision = CASES[case]
    return mdnet.Simulation(
        potential(),
        integrator(),
        replicas=2,
        seed=3,
        backend="cpu",
        precision=precision,
        **settings,
    )


def assert_same_state(a, b):
    for name in ("positions", "momenta", "sums", "step", "protocol_work"):
        x, y = getattr(a.state, name), getattr(b.state, name)
        assert np.array_equal(x, y), name
    assert np.array_equal(a.state.time, b.state.time)
    now, then = a.scalars(), b.scalars()
    for name, value in now.items():
        assert np.array_equal(value, then[name]), name


def contents(path):
    """Every dataset of frames, series and log, and the axes."""
    out = {}
    with h5py.File(path) as file:
        for group in EXACT_GROUPS:
            file[group].visititems(
                lambda name, item, group=group: out.update(
                    {f"{group}/{name}": item[...]}
                    if isinstance(item, h5py.Dataset)
                    else {}
                )
            )
        for name in ("step", "time", "counts"):
            out[name] = file[f"mdnet/axis/{name}"][...]
        out["config"] = file["mdnet/config"][()]
    return out


def assert_same_files(a, b):
    one, other = contents(a), contents(b)
    assert one.keys() == other.keys()
    assert len(one) > 15
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    """200 steps, against 100, a new simulation from the file, and 100 more."""
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    settings = {"every": 7, "observables_every": 3, "restart_every": 50}
    settings["store"] = ("positions", "momenta")
    uninterrupted = start(case)
    uninterrupted.run(200, trajectory=whole, **settings)
    first = start(case)
    first.run(100, trajectory=parts, **settings)
    resumed = mdnet.Simulation.resume(parts, potential=CASES[case][0]())
    assert_same_state(first, resumed)
    resumed.run(100)
    assert_same_state(uninterrupted, resumed)
    assert_same_files(whole, parts)
    # Negative control: one step more.
    uninterrupted.run(1, trajectory=tmp_path / "other.h5md")
    assert not np.array_equal(uninterrupted.state.positions, resumed.state.positions)


def test_resuming_between_frames_and_many_times(tmp_path):
    """Off every cadence, with runs of no steps, and the same simulation going on."""
    whole, parts = tmp_path / "whole.h5md", tmp_path / "parts.h5md"
    case = "network and minibatch"
    settings = {"every": 10, "observables_every": 4}
    uninterrupted = start(case)
    uninterrupted.run(60, trajectory=whole, **settings)
    sim = start(case)
    sim.run(13, trajectory=parts, **settings)
    sim.run(9)  # the simulation that wrote a file goes on with it
    for steps in (0, 1, 20, 17):
        sim = mdnet.Simulation.resume(parts, potential=posterior().minibatch(16))
        sim.run(steps)
    assert_same_state(uninterrupted, sim)
    assert_same_files(whole, parts)
    assert mdnet.open(parts).check() == []


def test_triggers_are_resumed(tmp_path):
    path, settings = tmp_path / "run.h5md", {}
    settings["every"] = triggers.at(2, 9, 33)
    settings["observables_every"] = triggers.log_spaced(2)
    settings["restart_every"] = triggers.every(25, offset=5)
    start("analytic").run(20, trajectory=path, **settings)
    sim = mdnet.Simulation.resume(path, potential=potentials.DoubleWell(size=2500))
    sim.run(20)
    run = mdnet.open(path)
    assert run.steps.tolist() == [2, 9, 33]
    assert run["potential_energy"].step.tolist() == [0, 1, 3, 10, 32]


def test_a_schedule_of_ones_own_is_passed_again(tmp_path):
    def falling(step):
        return 1.0 / (1 + step)

    path = tmp_path / "run.h5md"
    word = integrators.BAOAB(dt=0.01, temperature=falling)
    U = potentials.Harmonic(size=10)
    whole = mdnet.Simulation(U, word, backend="cpu")
    whole.run(40)
    mdnet.Simulation(U, word, backend="cpu").run(20, trajectory=path)
    with pytest.raises(mdnet.MdnetError, match="pass the integrator"):
        mdnet.Simulation.resume(path, potential=U)
    sim = mdnet.Simulation.resume(path, potential=U, integrator=word)
    sim.run(20)
    assert np.array_equal(whole.state.positions, sim.state.positions)


@pytest.mark.parametrize("batch", [None, 10])
def test_a_protocol_is_resumed(batch, tmp_path):
    """The forces of a path's two ends are not in the file, and come back anyway."""

    def make():
        end = regression()
        end = end if batch is None else end.minibatch(batch)
        return potentials.interpolate(potentials.Harmonic(size=6), end)

    protocol = schedules.linear(0.0, 1.0, 60)
    sims = [
        mdnet.Simulation(
            make(), integrators.BAOAB(dt=0.05), 2, seed=1, backend="cpu",
            protocol=protocol,
        )
        for _ in range(2)
    ]  # fmt: skip
    whole, path = sims[0], tmp_path / "run.h5md"
    whole.run(50, trajectory=tmp_path / "whole.h5md", every=25)
    sims[1].run(25, trajectory=path, every=25)
    sim = mdnet.Simulation.resume(path, potential=make())
    sim.run(25)
    assert_same_state(whole, sim)
    assert_same_files(tmp_path / "whole.h5md", path)
    assert (sim.scalars()["protocol_work"] != 0).all()


def test_another_file_may_follow(tmp_path):
    """A second path starts a second file, whose first frame is where the first ends."""
    sim = start("analytic")
    sim.run(10, trajectory=tmp_path / "a.h5md", every=5)
    sim.run(10, trajectory=tmp_path / "b.h5md", every=5)
    assert mdnet.open(tmp_path / "a.h5md").steps.tolist() == [0, 5, 10]
    assert mdnet.open(tmp_path / "b.h5md").steps.tolist() == [10, 15, 20]


# --- killed runs -------------------------------------------------------------------

KILLED = """
import os, sys, time
import mdnet
from mdnet.reporters import Callback
sys.path.insert(0, {tests!r})
from tests.test_restart import start
def die(sim):
    if sim.state.step == 77:
        time.sleep(0.3)
        os._exit(9)
sim = start({case!r})
sim.run(
    200, trajectory={path!r}, every=5, restart_every=30, reporters=[Callback(die, 1)]
)
"""


@pytest.mark.parametrize("case", ["analytic", "network and minibatch"])
def test_a_killed_run_has_the_same_future(case, tmp_path):
    """os._exit in the middle: resumed from the last restart slot, nothing is lost."""
    from pathlib import Path

    whole, path = tmp_path / "whole.h5md", tmp_path / "killed.h5md"
    code = KILLED.format(
        tests=str(Path(__file__).parents[1]), case=case, path=str(path)
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 9, done.stderr
    uninterrupted = start(case)
    # The ledger is summed in an order that depends on who looks, and when.
    look = [Callback(lambda sim: None, 1)]
    uninterrupted.run(200, trajectory=whole, every=5, restart_every=30, reporters=look)
    sim = mdnet.Simulation.resume(path, potential=CASES[case][0]())
    assert sim.state.step in (0, 30, 60)  # what the writer had done, all but surely 60
    sim.run(200 - sim.state.step, reporters=look)
    assert_same_state(uninterrupted, sim)
    assert_same_files(whole, path)
    assert mdnet.open(path).check() == []


# --- what is refused ----------------------------------------------------------------


def test_an_existing_file_is_refused(tmp_path):
    path = tmp_path / "run.h5md"
    start("analytic").run(10, trajectory=path)
    before = path.read_bytes()
    with pytest.raises(TrajectoryError, match="exists"):
        start("analytic").run(10, trajectory=path)
    assert path.read_bytes() == before
    start("analytic").run(20, trajectory=path, overwrite=True)
    assert mdnet.open(path).steps[-1] == 20


def different():
    return {
        "size": potentials.DoubleWell(size=1501),
        "kind": potentials.Harmonic(size=2500),
        "a": potentials.DoubleWell(a=1.5, size=2500),
    }


@pytest.mark.parametrize("what", ["size", "kind", "a"])
def test_another_potential_is_refused(what, tmp_path):
    path = tmp_path / "run.h5md"
    start("analytic").run(10, trajectory=path)
    with pytest.raises(TrajectoryError, match=rf"another potential.*\b{what}\b"):
        mdnet.Simulation.resume(path, potential=different()[what])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: posterior(shift=1e-3).minibatch(16), "data"),
        (lambda: posterior().minibatch(17), "minibatch"),
        (posterior, "minibatch"),
    ],
)
def test_other_data_or_batches_are_refused(other, named, tmp_path):
    path = tmp_path / "run.h5md"
    start("network and minibatch").run(10, trajectory=path)
    with pytest.raises(TrajectoryError, match=rf"differs in .*{named}"):
        mdnet.Simulation.resume(path, potential=other())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (integrators.BAOAB(dt=0.03), "dt: 0.02"),
        (integrators.BAOAB(dt=0.02, temperature=2.0), "temperature: 1.0"),
        (integrators.OBABO(dt=0.02), "word: 'BAOAB'"),
        (integrators.BAOAB(dt=schedules.constant(0.02)), "dt: 0.02"),
    ],
)
def test_another_integrator_is_refused(other, named, tmp_path):
    path, U = tmp_path / "run.h5md", potentials.DoubleWell(size=2500)
    start("analytic").run(10, trajectory=path)
    with pytest.raises(TrajectoryError, match=f"another integrator.*{named}"):
        mdnet.Simulation.resume(path, potential=U, integrator=other)
    same = integrators.BAOAB(dt=0.02)
    assert mdnet.Simulation.resume(path, U, integrator=same).state.step == 10


def test_steps_that_were_not_written_are_refused(tmp_path):
    """Going on with a file after a run that failed would leave a gap in it."""

    def fail(sim):
        raise KeyError("mine")

    path, sim = tmp_path / "run.h5md", start("analytic")
    sim.run(10, trajectory=path)
    failing = mdnet.reporters.Callback(fail, triggers.at(15))
    with pytest.raises(KeyError):
        sim.run(10, reporters=[failing])
    with pytest.raises(TrajectoryError, match=r"ends at step 10 .* at step 15"):
        sim.run(10)
    sim = mdnet.Simulation.resume(path, potential=potentials.DoubleWell(size=2500))
    sim.run(10)
    assert mdnet.open(path).steps.tolist() == [0, 10, 20]


def test_continuing_at_another_cadence_is_refused(tmp_path):
    path = tmp_path / "run.h5md"
    u = potentials.Harmonic(stiffness=1.0, size=3)
    sim = mdnet.Simulation(u, integrators.BAOAB(dt=0.1), seed=1)
    sim.run(20, trajectory=path, every=5)
    with pytest.raises(TrajectoryError, match=r"every=10.*every=5"):
        sim.run(20, trajectory=path, every=10)
    sim.run(20, trajectory=path, every=5)
    with mdnet.open(path) as run:
        assert list(run.steps) == list(range(0, 41, 5))
