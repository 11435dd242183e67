"""Mistakes users make with trajectory files, and the errors that answer them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from mdnet.errors import TrajectoryError
from mdnet.io import TrajectoryWriter, files, open_trajectory, schema

R, D, T = 3, 11, 23
LAYOUT = {
    "0.weight": (slice(0, 6), (2, 3)),
    "0.bias": (slice(6, 8), (2,)),
    "scale": (slice(8, 9), ()),
    "1/odd": (slice(9, 11), (1, 2)),
}


@pytest.fixture
def data():
    rng = np.random.default_rng(7)
    return {"positions": rng.normal(size=(T, R, D)), "energy": rng.normal(size=(T, R))}


def make(path, **settings):
    defaults = {"layout": LAYOUT, "replicas": R, "size": D, "config": {"seed": 3}}
    return TrajectoryWriter(path, **(defaults | settings))


def put(writer, data, t):
    values = {"potential_energy": data["energy"][t]}
    writer.frame(10 * t, 0.1 * t, {"positions": data["positions"][t]}, values)
    writer.log(10 * t, 0.1 * t, {"heat": data["energy"][t]})


def test_existing_files_are_not_clobbered(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        put(writer, data, 0)
    with pytest.raises(TrajectoryError, match=r"overwrite=True.*Simulation\.resume"):
        make(path)
    with open_trajectory(path) as run:
        assert len(run) == 1
        make(path, mode="w").close()
        assert len(run) == 0


def test_one_writer_at_a_time(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        put(writer, data, 0)
        writer.restart({}, {})
        writer.flush()
        for mode in ("a", "w"):
            with pytest.raises(TrajectoryError, match="being written by another"):
                make(path, mode=mode)
    make(path, mode="a").close()


def test_appending_needs_the_same_parameters(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        put(writer, data, 0)
        writer.restart({}, {})
    other = {"q": (slice(0, D), (D,))}
    with pytest.raises(TrajectoryError, match="replicas=4: the file holds 3"):
        make(path, mode="a", replicas=4)
    with pytest.raises(TrajectoryError, match="layout of 11 parameters"):
        make(path, mode="a", layout=other)
    with pytest.raises(TrajectoryError, match="does not exist"):
        make(tmp_path / "none.h5md", mode="a")
    with make(path, mode="a") as writer:
        put(writer, data, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 0}, "expected both >= 1"),
        ({"size": 12}, "covers 11 parameters"),
        ({"layout": {"a": (slice(1, 12), (11,))}}, "expected 0:11"),
        ({"layout": {"": (slice(0, 11), (11,))}}, "no string"),
        ({"store": ("velocities",)}, "not one of"),
        ({"select": ["2.bias"]}, "expected some of"),
        ({"select": []}, "expected some of"),
        ({"dtype": "int32"}, "expected one of"),
        ({"dtype": "nonsense"}, "expected one of"),
        ({"compression": "zip"}, "expected one of"),
        ({"mode": "r"}, "expected 'x', 'w' or 'a'"),
        ({"mass": -1.0}, "positive"),
        ({"mass": np.ones(4)}, "positive number or 11"),
        ({"config": {"f": ...}}, "JSON"),
        ({"block_bytes": 0}, "block_bytes"),
        ({"path": "nowhere/run.h5md"}, "cannot be created"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(tmp_path, settings, message):
    settings = dict(settings)
    path = tmp_path / settings.pop("path", "run.h5md")
    with pytest.raises(TrajectoryError, match=message):
        make(path, **settings)


def test_rows_that_do_not_fit(tmp_path, data):
    q = {"positions": data["positions"][0]}
    with make(tmp_path / "run.h5md") as writer:
        for arrays in ({}, {"positions": np.zeros((R, D + 1))}):
            with pytest.raises(TrajectoryError, match="needs an array of shape"):
                writer.frame(0, 0.0, arrays, {})
        for name in ("step", "a/b", "", 3):
            with pytest.raises(TrajectoryError, match="series name"):
                writer.frame(0, 0.0, q, {name: np.zeros(R)})
        for value in (np.zeros(R + 1), np.zeros((R, 2, 2))):
            with pytest.raises(TrajectoryError, match="a row per replica"):
                writer.frame(0, 0.0, q, {"u": value})
        with pytest.raises(TrajectoryError, match="without '/'"):
            writer.restart({"a/b": np.zeros(3)}, {})
        with pytest.raises(TrajectoryError, match="expected numbers"):
            writer.restart({"text": np.array(["a"])}, {})
        with pytest.raises(TrajectoryError, match="JSON"):
            writer.restart({}, {"f": object()})
        writer.frame(5, 0.0, q, {})
        writer.frame(5, 0.0, q, {})
        with pytest.raises(TrajectoryError, match="steps rise"):
            writer.frame(4, 0.0, q, {})
    assert writer.last_frame_step == 5
    for call in (
        lambda: writer.frame(6, 0.0, q, {}),
        lambda: writer.log(6, 0.0, {}),
        lambda: writer.restart({}, {}),
        writer.flush,
    ):
        with pytest.raises(TrajectoryError, match="closed"):
            call()
    writer.close()
    with open_trajectory(tmp_path / "run.h5md") as run:
        assert run.steps.tolist() == [5]


def test_errors_of_the_background_thread_are_raised(tmp_path, data, monkeypatch):
    path = tmp_path / "run.h5md"
    writer = make(path)
    put(writer, data, 0)
    writer.flush()
    monkeypatch.setattr(
        type(writer._native), "_put_dense", lambda *a: 1 / 0, raising=True
    )
    put(writer, data, 1)
    with pytest.raises(TrajectoryError, match="could not be written: division"):
        writer.flush()
    with pytest.raises(TrajectoryError, match="readable up to frame 1"):
        put(writer, data, 2)
    writer.close()  # it has been told
    with open_trajectory(path) as run:
        assert len(run) == 1
    with h5py.File(path, "r") as f:
        assert f["posterior/scale"].shape == (R, 1)

    second = make(tmp_path / "second.h5md")
    put(second, data, 0)
    with pytest.raises(TrajectoryError, match="division"):
        second.close()  # it has not
    assert not second._thread.is_alive()


def test_files_that_are_not_trajectories(tmp_path, data):
    def refuses(match):
        with pytest.raises(TrajectoryError, match=match):
            open_trajectory(path)

    path = tmp_path / "run.h5md"
    refuses("does not exist")
    path.mkdir()
    refuses("is a folder")
    path.rmdir()
    path.write_text("step,energy\n")
    refuses("not an HDF5 file")
    path.unlink()
    with h5py.File(path, "w") as f:
        f["x"] = 1
    refuses("not an mdnet trajectory")
    with pytest.raises(TrajectoryError, match="not an mdnet trajectory"):
        make(path, mode="a")
    with make(path, mode="w") as writer:
        for t in range(T):
            put(writer, data, t)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuses("truncated")
    with pytest.raises(TrajectoryError, match="truncated"):
        make(path, mode="a")
    assert path.stat().st_size == len(whole) // 2
    path.write_bytes(whole)
    with h5py.File(path, "r+") as f:
        f["mdnet"].attrs["schema"] = schema.SCHEMA + 1
    refuses("schema version 2, this mdnet reads up to 1")
    with h5py.File(path, "r+") as f:
        f["mdnet"].attrs["schema"] = schema.SCHEMA
        del f[schema.COUNTS]
    refuses("before the first frame")


def test_damaged_settings(tmp_path):
    path = tmp_path / "run.h5md"
    make(path).close()
    for name in (schema.CONFIG, schema.HEADER):
        with h5py.File(path, "r+") as f:
            kept = f[name][()]
            f[name][()] = "{]"
        with pytest.raises(TrajectoryError, match=f"{name} is damaged"):
            open_trajectory(path)
        with h5py.File(path, "r+") as f:
            f[name][()] = kept


def test_checksum_of_hdf5_metadata(tmp_path):
    """The superblock checksum we write is the one HDF5 writes."""
    path = tmp_path / "run.h5md"
    make(path, live=True).close()
    raw = path.read_bytes()[:48]
    assert raw[8] == 3
    assert files.lookup3(raw[:44]) == int.from_bytes(raw[44:], "little")
    assert files.lookup3(raw[:43] + b"x") != int.from_bytes(raw[44:], "little")
    # Known answers of the published code.
    assert files.lookup3(b"Four score and seven years ago") == 0x17770551
