"""Restart slots: every bit kept, two in turn, damage found and stepped over."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from mdnet.errors import TrajectoryError
from mdnet.io import TrajectoryWriter, checkpoint, open_trajectory

R, D = 3, 11
LAYOUT = {"0.weight": (slice(0, 8), (2, 4)), "0.bias": (slice(8, 11), (3,))}


@pytest.fixture
def data():
    rng = np.random.default_rng(7)
    return {"positions": rng.normal(size=(6, R, D)), "heat": rng.normal(size=(6, R))}


def make(path, **settings):
    defaults = {"layout": LAYOUT, "replicas": R, "size": D, "config": {}}
    return TrajectoryWriter(path, **(defaults | settings))


def put(writer, data, t):
    writer.frame(10 * t, 0.1 * t, {"positions": data["positions"][t]}, {})
    for i in range(4):
        writer.log(10 * t + i, 0.1 * t, {"heat": data["heat"][t]})


def test_restart_slots_alternate_and_survive_damage(tmp_path, data):
    path = tmp_path / "run.h5md"
    with make(path) as writer:
        for t in range(6):
            put(writer, data, t)
            arrays = {
                "q": data["positions"][t],
                "n": np.int64(t),
                "on": np.array([True]),
            }
            writer.restart(arrays, {"step": 10 * t, "text": "µ" * 1000 * t})
    with open_trajectory(path) as run:
        assert run.restart()[1]["step"] == 50
        assert run.restart()[0]["n"] == 5
        assert run.check() == []
    with h5py.File(path, "r") as f:
        newest = checkpoint.newest(f)
        assert (newest.sequence, newest.frames, newest.log) == (6, 6, 24)
        other = "b" if newest.name == "a" else "a"
        assert checkpoint.read(f, other).sequence == 5
    with h5py.File(path, "r+") as f:
        f[f"mdnet/restart/{newest.name}/q"][0, 0] += 1e-9
    with open_trajectory(path) as run:
        arrays, meta = run.restart()
        assert meta["step"] == 40
        np.testing.assert_array_equal(arrays["q"], data["positions"][4])
        assert run.check() == [
            f"restart slot {newest.name} is damaged: its checksum is wrong"
        ]
    with make(path, mode="a") as writer:
        assert writer.last_frame_step == 40
        writer.restart({"q": data["positions"][0]}, {"step": 41})
    with open_trajectory(path) as run:
        assert run.restart()[1]["step"] == 41
        assert run.check() == []
    with h5py.File(path, "r+") as f:
        for slot in "ab":
            header = f[f"mdnet/restart/{slot}/header"]
            value = header[()]
            value["frames"] += 1
            header[...] = value
    with open_trajectory(path) as run:
        with pytest.raises(TrajectoryError, match="no valid restart"):
            run.restart()
        assert len(run.check()) == 3
    with pytest.raises(TrajectoryError, match="no valid restart"):
        make(path, mode="a")


def test_restart_keeps_every_bit(tmp_path):
    path = tmp_path / "run.h5md"
    rng = np.random.default_rng(0)
    arrays = {
        "positions": rng.normal(size=(R, D)),
        "single": rng.normal(size=(R, D)).astype(np.float32),
        "odd": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "counters": np.array([2**63 - 1, -(2**63)]),
        "seed": np.uint64(2**64 - 1),
        "empty": np.zeros((0, 4)),
        "scalar": np.float64(np.pi),
    }
    meta = {"step": np.int64(7), "t": 0.1 + 0.2, "list": np.arange(3), "none": None}
    with make(path) as writer:
        writer.restart(arrays, meta)
        arrays["positions"] += 1  # the writer has copied it
    with open_trajectory(path) as run:
        found, record = run.restart()
    arrays["positions"] -= 1
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        array = np.asarray(array)
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        if name != "positions":
            assert found[name].tobytes() == array.tobytes()
    np.testing.assert_allclose(found["positions"], arrays["positions"], rtol=1e-12)
    assert record == {"step": 7, "t": 0.1 + 0.2, "list": [0, 1, 2], "none": None}
