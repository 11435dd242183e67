"""Writing and reading back through mdnet: equality, resume, following, damage."""

from __future__ import annotations

import contextlib
import pickle
import time

import h5py
import numpy as np
import pytest

import mdnet
from mdnet.errors import TrajectoryError
from mdnet.io import TrajectoryWriter, open_trajectory

R, D, T = 3, 11, 23
LAYOUT = {
    "0.weight": (slice(0, 6), (2, 3)),
    "0.bias": (slice(6, 8), (2,)),
    "scale": (slice(8, 9), ()),
    "1/odd": (slice(9, 11), (1, 2)),
}
MASS = np.linspace(0.5, 2.0, D)


@pytest.fixture
def data():
    rng = np.random.default_rng(7)
    out = {k: rng.normal(size=(T, R, D)) for k in ("positions", "momenta", "forces")}
    out["potential_energy"] = rng.normal(size=(T, R))
    out["kinetic_energy"] = rng.normal(size=(T, R))
    out["laplacian"] = rng.normal(size=(T, R, 4))
    return out


def make(path, **settings):
    defaults = {"layout": LAYOUT, "replicas": R, "size": D, "config": {"seed": 3}}
    return TrajectoryWriter(path, **(defaults | settings))


def put(writer, data, t, log=4):
    names = ("potential_energy", "kinetic_energy", "laplacian")
    arrays = {k: data[k][t] for k in ("positions", "momenta", "forces")}
    writer.frame(10 * t, 0.1 * t, arrays, {k: data[k][t] for k in names})
    for i in range(log):
        values = {"heat": data["kinetic_energy"][t] + i, "kinetic_temperature": i}
        writer.log(10 * t + i, 0.1 * t + 0.01 * i, values)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_what_was_written_is_read(tmp_path, data, dtype, compression):
    path = tmp_path / "run.h5md"
    with make(
        path,
        store=("forces", "positions", "momenta"),
        dtype=dtype,
        compression=compression,
        block_bytes=4000,
    ) as writer:
        for t in range(T):
            put(writer, data, t)
    with mdnet.open(path) as run:
        for name in ("positions", "momenta", "forces"):
            frames = getattr(run, name)
            assert frames.shape == (T, R, D)
            assert frames[:].dtype == dtype
            np.testing.assert_array_equal(frames[:], data[name].astype(dtype))
        np.testing.assert_array_equal(run.steps, 10 * np.arange(T))
        np.testing.assert_array_equal(run.times, 0.1 * np.arange(T))
        for name in ("potential_energy", "kinetic_energy", "laplacian"):
            series = run[name]
            np.testing.assert_array_equal(series.value, data[name])
            np.testing.assert_array_equal(series.step, run.steps)
        assert run.complete
        assert run.config == {"seed": 3}
        assert len(run) == T
        problems = run.check()
    assert problems == ["there is no valid restart: the run cannot be resumed"]


def test_layers_have_the_shape_of_their_tensor(tmp_path, data):
    with make(tmp_path / "run.h5md", dtype="float64") as writer:
        for t in range(T):
            put(writer, data, t)
    with open_trajectory(tmp_path / "run.h5md") as run:
        for name, (where, shape) in LAYOUT.items():
            layer = run.layer(name)
            assert layer.shape == (T, R, *shape)
            expected = data["positions"][:, :, where].reshape(T, R, *shape)
            np.testing.assert_array_equal(layer[:], expected)
            np.testing.assert_array_equal(layer[4:9, 1], expected[4:9, 1])
        with pytest.raises(TrajectoryError, match="does not exist"):
            run.layer("9.weight")
        with pytest.raises(TrajectoryError, match="momenta were not stored"):
            _ = run.momenta


@pytest.mark.parametrize(
    "key",
    [
        5,
        -1,
        np.int64(3),
        slice(None),
        slice(2, 20, 3),
        slice(20, 2, -4),
        slice(None, None, -1),
        slice(5, 5),
        slice(5, 2),
        [1, 5, 6, 7, 2, 2, -1],
        [],
        np.arange(T) % 3 == 0,
        (slice(1, 4), 2),
        (7, 1),
        (7, 1, 4),
        (slice(None), [2, 0]),
        ([3, 1, 3], [2, 0, 1]),
        (slice(None, None, 2), slice(None, None, -1), slice(3, 8)),
        (Ellipsis, 4),
        (2, Ellipsis),
        (slice(None), slice(None), [1, 4]),
        (np.arange(T) < 4, 1),
    ],
    ids=str,
)
def test_lazy_indexing_is_numpy_indexing(tmp_path, data, key):
    with make(tmp_path / "run.h5md", dtype="float64") as writer:
        for t in range(T):
            put(writer, data, t, log=0)
    with open_trajectory(tmp_path / "run.h5md") as run:
        found = run.positions[key]
        np.testing.assert_array_equal(found, data["positions"][key])
        for bad in (T, -T - 1, (0, R), [0, T], (0, 0, 0, 0), None, "x", [[1]]):
            with pytest.raises(IndexError):
                run.positions[bad]


def test_velocities_are_momenta_over_mass(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path, mass=MASS, store=("momenta",), dtype="float64") as writer:
        for t in range(T):
            put(writer, data, t)
    with open_trajectory(path) as run:
        np.testing.assert_array_equal(run.velocities[:], data["momenta"] / MASS)
        np.testing.assert_allclose(run.momenta[:], data["momenta"], rtol=3e-16)
        np.testing.assert_array_equal(run.masses, MASS)
    with h5py.File(path, "r") as f:
        value = f["particles/walker_0002/velocity/value"][..., 0]
        np.testing.assert_array_equal(value, data["momenta"][:, 2] / MASS)
        assert "posterior" not in f


def test_selected_tensors(tmp_path, data):
    path = tmp_path / "run.h5md"
    keep = ["1/odd", "0.weight"]  # stored in the order of the layout
    with make(path, select=keep, mass=MASS, store=("positions", "momenta")) as writer:
        for t in range(T):
            put(writer, data, t)
        writer.restart({"positions": data["positions"][-1]}, {})
    index = np.array([0, 1, 2, 3, 4, 5, 9, 10])
    with open_trajectory(path) as run:
        assert (run.size, run.full_size) == (8, D)
        assert run.layout == {
            "0.weight": (slice(0, 6), (2, 3)),
            "1/odd": (slice(6, 8), (1, 2)),
        }
        assert run.full_layout == LAYOUT
        stored = data["positions"][:, :, index].astype(np.float32)
        np.testing.assert_array_equal(run.positions[:], stored)
        np.testing.assert_array_equal(
            run.layer("1/odd")[:], stored[..., 6:].reshape(T, R, 1, 2)
        )
        np.testing.assert_allclose(
            run.momenta[:], data["momenta"][:, :, index], rtol=2e-7
        )
        np.testing.assert_array_equal(run.masses, MASS[index])
        np.testing.assert_array_equal(run.ids, index)
        np.testing.assert_array_equal(
            run.restart()[0]["positions"], data["positions"][-1]
        )
        with pytest.raises(TrajectoryError, match="was not selected"):
            run.layer("scale")
    with h5py.File(path, "r") as f:
        group = f["particles/walker_0001"]
        np.testing.assert_array_equal(group["id"][:], index)
        np.testing.assert_array_equal(group["species"][:], [0] * 6 + [1] * 2)
        names = h5py.check_enum_dtype(group["species"].dtype)
        assert names == {"0.weight": 0, "1/odd": 1}
    with make(path, mode="a") as writer:  # what is stored is the file's choice
        moved = data | {"positions": data["positions"] + 1}
        put(writer, moved, T - 1, log=0)  # this step is there already
        writer.frame(10**6, 0.0, {k: data[k][3] for k in ("positions", "momenta")}, {})
    with open_trajectory(path) as run:
        assert len(run) == T + 1
        np.testing.assert_array_equal(run.positions[-1], stored[3])
        np.testing.assert_allclose(
            run.momenta[-1], data["momenta"][3][:, index], rtol=2e-7
        )


def test_log_is_finer_than_frames(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path, block_bytes=3000) as writer:
        for t in range(T):
            put(writer, data, t)
            writer.log(10 * t + 5, 0.0, {"potential_energy": data["kinetic_energy"][t]})
    with open_trajectory(path) as run:
        heat = run["heat"]
        assert heat.value.shape == (5 * T, R)
        expected = data["kinetic_energy"][:, None] + np.arange(4)[:, None]
        shaped = heat.value.reshape(T, 5, R)
        np.testing.assert_array_equal(shaped[:, :4], expected)
        assert np.isnan(shaped[:, 4]).all()  # a row that lacked the name
        steps = 10 * np.arange(T)[:, None] + [0, 1, 2, 3, 5]
        np.testing.assert_array_equal(heat.step, steps.ravel())
        np.testing.assert_array_equal(  # a scalar stands for all replicas
            run["kinetic_temperature"].value.reshape(T, 5, R)[:, 2], 2.0
        )
        # The same name on both grids: the dense one comes first.
        assert run["potential_energy"].value.shape == (5 * T, R)
        on_frames = run.observable("potential_energy")
        np.testing.assert_array_equal(on_frames.value, data["potential_energy"])
        np.testing.assert_array_equal(on_frames.step, run.steps)
        assert "heat" in run
        assert "nothing" not in run
        assert "heat" in run.names
        assert "heat" not in run.names_on_frames
        for ask in (run.__getitem__, run.observable):
            with pytest.raises(TrajectoryError, match="was not recorded"):
                ask("nothing")
    with h5py.File(path, "r") as f:
        assert set(f["mdnet/ledger"]) == {"heat"}
        assert set(f["observables"]) == {
            "potential_energy",
            "kinetic_energy",
            "laplacian",
        }
        for group in f["observables"].values():
            assert group["value"].shape[0] == len(group["step"]) == T
            assert group["time"] == f["mdnet/axis/time"]


def test_resume_cuts_off_and_repeats_nothing(tmp_path, data):
    path, whole = tmp_path / "run.h5md", tmp_path / "whole.h5md"
    with make(path, store=("positions", "momenta", "forces")) as writer:
        for t in range(15):
            put(writer, data, t)
            if t == 9:
                writer.restart({"positions": data["positions"][t]}, {"step": 93})
            writer.log(10 * t + 8, 0.0, {"heat": data["kinetic_energy"][t]})
    with open_trajectory(path) as run:
        assert len(run) == 15
        arrays, meta = run.restart()
        np.testing.assert_array_equal(arrays["positions"], data["positions"][9])
        assert arrays["positions"].dtype == np.float64
        assert meta == {"step": 93}
        # Open for reading in this process: a writer takes over, the reader goes on.
        with make(path, mode="a") as writer:
            assert writer.last_frame_step == 90
            assert len(run) == 10
            put(writer, data, 9, log=0)  # the frame of the restart again: left out
            writer.log(98, 0.0, {"heat": data["kinetic_energy"][9]})
            for t in range(10, T):
                put(writer, data, t)
                writer.log(10 * t + 8, 0.0, {"heat": data["kinetic_energy"][t]})
        assert len(run) == T
    with make(whole, store=("positions", "momenta", "forces")) as writer:
        for t in range(T):
            put(writer, data, t)
            writer.log(10 * t + 8, 0.0, {"heat": data["kinetic_energy"][t]})
    with h5py.File(path, "r") as f, h5py.File(whole, "r") as g:
        seen = []

        def compare(name, item):
            if isinstance(item, h5py.Dataset) and "restart" not in name:
                seen.append(name)
                np.testing.assert_array_equal(item[()], f[name][()], name)

        g.visititems(compare)
        assert len(seen) > 40


def test_new_series_after_a_resume_start_with_nan(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        writer.frame(0, 0.0, {"positions": data["positions"][0]}, {})
        writer.log(0, 0.0, {"heat": 1.0})
        writer.restart({}, {})
    with make(path, mode="a") as writer:
        energies = {"potential_energy": 1.5, "kinetic_energy": 2.0, "lp": 9.0}
        writer.frame(1, 1.0, {"positions": data["positions"][1]}, energies)
        writer.log(1, 1.0, {"kick_work": 2.0})
        with pytest.raises(TrajectoryError, match="shape"):
            writer.log(2, 2.0, {"kick_work": np.zeros((R, 5))})
    with open_trajectory(path) as run:
        nan = np.full(R, np.nan)
        np.testing.assert_array_equal(
            run["potential_energy"].value, [nan, np.full(R, 1.5)]
        )
        np.testing.assert_array_equal(run["kick_work"].value, [nan, np.full(R, 2.0)])
        np.testing.assert_array_equal(run["heat"].value, [np.ones(R), nan])
    with h5py.File(path, "r") as f:
        stats = f["sample_stats"]
        np.testing.assert_array_equal(stats["energy"][0], [np.nan, 3.5])
        np.testing.assert_array_equal(stats["lp"][0], [np.nan, 9.0])  # theirs wins


@pytest.mark.parametrize("live", [False, True])
def test_reading_while_writing(tmp_path, data, live):
    path = tmp_path / "run.h5md"
    writer = make(path, live=live, store=("positions", "momenta", "forces"))
    with contextlib.closing(writer), open_trajectory(path) as run:
        assert len(run) == 0
        assert run.positions[:].shape == (0, R, D)
        assert not run.complete
        lengths = []
        for t in range(T):
            put(writer, data, t)
            if t % 4 == 0:
                writer.flush()
                lengths.append(len(run))
                expected = data["positions"][: t + 1].astype(np.float32)
                np.testing.assert_array_equal(run.positions[:], expected)
                assert run["heat"].value.shape == (4 * (t + 1), R)
            if t == 10:
                writer.restart({"q": data["positions"][t]}, {"step": t})
        assert lengths == list(range(1, T + 1, 4))
        assert "being written" in run.info()
        assert run.restart()[1] == {"step": 10}
        writer.close()
        assert len(run) == T
        assert run.complete
        assert "complete" in run.info()
        assert run.check() == []


def test_a_frame_reaches_readers_within_a_second_or_so(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer, open_trajectory(path) as run:
        writer.frame(0, 0.0, {"positions": data["positions"][0]}, {})
        deadline = time.monotonic() + 10
        while len(run) == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(run) == 1
        assert time.monotonic() < deadline - 7


def test_uncounted_rows_are_never_seen(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        for t in range(5):
            put(writer, data, t)
        writer.restart({}, {})
    with h5py.File(path, "r+") as f:  # as a kill between the two flushes leaves it
        f["mdnet/frames/positions"].resize(7, 1)
        f["mdnet/axis/step"].resize(7, 0)
        f["mdnet/ledger/heat"].resize(25, 0)
    with open_trajectory(path) as run:
        assert len(run) == len(run.steps) == len(run.positions) == 5
        assert run["heat"].value.shape == (20, R)
        assert any("after the last whole one" in p for p in run.check())
    make(path, mode="a").close()
    with open_trajectory(path) as run:
        assert run.check() == []


def test_check_finds_damage(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        for t in range(5):
            put(writer, data, t)
        writer.restart({}, {})
    with open_trajectory(path) as run:
        assert run.check() == []
    with h5py.File(path, "r+") as f:
        f["mdnet/frames/positions"][1, 3, 0] = np.nan
        f["mdnet/axis/step"][2] = 0
        f["observables/laplacian/value"].resize(4, 0)
    with open_trajectory(path) as run:
        found = "\n".join(run.check())
    assert "positions of replica 1 is not finite at frame 3" in found
    assert "step does not rise" in found
    assert "laplacian/value has 4 rows, the counts say 5" in found


def test_info_says_what_there_is(tmp_path, data):
    path = tmp_path / "run.h5md"
    config = {
        "potential": {"kind": "Posterior", "n": 40},
        "integrator": {"name": "BAOAB"},
    }
    with make(path, config=config, compression="gzip", dtype="float16") as writer:
        with open_trajectory(path) as run:
            assert "none yet" in run.info()
        for t in range(5):
            put(writer, data, t)
        writer.restart({}, {})
    with open_trajectory(path) as run:
        text = run.info()
        assert repr(run) == f"<Trajectory {str(path)!r}: 5 frames, R=3, N=11>"
    for part in (
        "Posterior n=40",
        "BAOAB",
        "float16, gzip",
        "steps 0 to 40",
        "0.weight",
    ):
        assert part in text
    assert "closed" in repr(run)
    with pytest.raises(TrajectoryError, match="is closed"):
        len(run)


def test_observables_need_no_stored_positions(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path, store=()) as writer:
        for t in range(T):
            put(writer, data, t)
    with open_trajectory(path) as run:
        np.testing.assert_array_equal(
            run["potential_energy"].value, data["potential_energy"]
        )
        assert len(run) == T
        with pytest.raises(TrajectoryError, match="positions were not stored"):
            _ = run.positions


def test_many_small_frames_cost_no_call_each(tmp_path):
    """A call into HDF5 for every dataset and frame would take 10 s and more."""
    q = {"positions": np.zeros((R, D))}
    values = {"potential_energy": np.zeros(R), "kinetic_energy": np.zeros(R)}
    start = time.perf_counter()
    with make(tmp_path / "run.h5md") as writer:
        for step in range(20_000):
            writer.frame(step, step, q, values)
            writer.log(step, step, values)
    assert time.perf_counter() - start < 5.0


def test_several_readers_pickles_and_other_folders(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with make("run.h5md") as writer:
        put(writer, data, 0)
        writer.restart({}, {})
    first, second = open_trajectory("run.h5md"), open_trajectory("run.h5md")
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(first))
    with make(tmp_path / "run.h5md", mode="a") as writer:
        put(writer, data, 1)
        writer.flush()
        for run in (first, second, copy):
            assert len(run) == 2
    for run in (first, second, copy):
        with run:
            np.testing.assert_array_equal(
                run[name := "laplacian"].value, data[name][:2]
            )
