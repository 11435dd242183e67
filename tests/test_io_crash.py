"""A process killed at any instant: every prefix of a run's writes is a file to read.

The runs here write through an object that records every write HDF5 makes; replaying
the record up to any point gives the file a kill at that point would have left.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest

from mdnet.errors import TrajectoryError
from mdnet.io import TrajectoryWriter, checkpoint, files, open_trajectory, schema
from mdnet.io.native import NativeFile

R, D = 2, 5
LAYOUT = {"w": (slice(0, 4), (2, 2)), "b": (slice(4, 5), (1,))}


class Recorder(io.RawIOBase):
    """A file in memory that keeps a record of all writes."""

    def __init__(self):
        self.image, self.at, self.record = bytearray(), 0, []

    def readable(self):
        return True

    writable = seekable = readable

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, len(self.image))[whence]
        return self.at

    def tell(self):
        return self.at

    def readinto(self, buffer):
        view = memoryview(buffer).cast("B")
        data = self.image[self.at : self.at + len(view)]
        view[: len(data)] = data
        self.at += len(data)
        return len(data)

    def write(self, data):
        data = bytes(data)
        self.record.append((self.at, data))
        _write(self.image, self.at, data)
        self.at += len(data)
        return len(data)

    def truncate(self, size=None):
        size = self.at if size is None else size
        self.record.append((size, None))
        _write(self.image, size, None)
        return size


def _write(image, at, data):
    end = at if data is None else at + len(data)
    if len(image) < end:
        image.extend(bytes(end - len(image)))
    if data is None:
        del image[end:]
    else:
        image[at:end] = data


def prefixes(record, start, stride):
    image = bytearray()
    for i, (at, data) in enumerate(record):
        _write(image, at, data)
        if i >= start and i % stride == 0:
            yield i, io.BytesIO(image)


@pytest.fixture
def recorder(monkeypatch):
    memory = Recorder()
    monkeypatch.setattr(
        files, "_open", lambda path, mode, **kw: h5py.File(memory, mode, **kw)
    )
    for name in ("claim", "check_unclaimed", "check_is_hdf5", "disclaim", "release"):
        monkeypatch.setattr(files, f"_{name}", lambda *a: None)
    memory.marks = []

    def marked(method):
        original = getattr(NativeFile, method)

        def wrapped(self, *args):
            original(self, *args)
            memory.marks.append(
                (len(memory.record), self.frames, self.log, self._sequence)
            )

        monkeypatch.setattr(NativeFile, method, wrapped)

    marked("append_block")
    marked("write_restart")
    return memory


def frame(step):
    q = np.arange(R * D, dtype=np.float32).reshape(R, D) + 100 * step
    return q, {"potential_energy": q[:, 0], "kinetic_energy": q[:, 1]}


def write_run(writer, steps, per_block=3, restart_every=40):
    for step in steps:
        q, observables = frame(step)
        writer.frame(step, 0.5 * step, {"positions": q, "momenta": -q}, observables)
        writer.log(2 * step, step, {"heat": q[:, 2]})
        writer.log(2 * step + 1, step + 0.5, {"heat": q[:, 3]})
        if step % restart_every == 0:
            writer.restart({"positions": q}, {"step": step})
        if step % per_block == 0:
            writer.flush()
    writer.close()


def check(file, marks, i, whole):
    """What a reader must find in the file left by a kill after write ``i``."""
    done = [m for m in marks if m[0] <= i + 1]
    _, frames, log, sequence = done[-1] if done else (0, 0, 0, 0)
    with h5py.File(file, "r") as f:
        counts = f[schema.COUNTS][...]
        assert counts[0] >= frames
        assert counts[1] >= log
        first = 0 if whole else max(0, counts[0] - 4)
        steps = f[schema.STEP][first : counts[0]]
        np.testing.assert_array_equal(steps, np.arange(first, counts[0]))
        expected = np.array([frame(s)[0] for s in steps]).reshape(-1, R, D)
        q = f[schema.QUANTITIES["positions"].path][:, first : counts[0]]
        np.testing.assert_array_equal(q.swapaxes(0, 1), expected)
        view = f["particles/walker_0001/position/value"][first : counts[0], :, 0]
        np.testing.assert_array_equal(view, expected[:, 1])
        if len(steps):
            value = f["observables/potential_energy/value"][first : counts[0]]
            np.testing.assert_array_equal(value, expected[:, :, 0])
            view = f["posterior/w"][1, first : counts[0]]
            np.testing.assert_array_equal(view.reshape(-1, 4), expected[:, 1, :4])
            heat = f["mdnet/ledger/heat"][2 * first : 2 * counts[0] : 2]
            np.testing.assert_array_equal(heat, expected[: len(heat), :, 2])
        if sequence:
            slot = checkpoint.newest(f)
            assert slot is not None
            assert slot.sequence >= sequence
            step = slot.meta["step"]
            np.testing.assert_array_equal(slot.arrays["positions"], frame(step)[0])
            assert slot.frames == step + 1 <= counts[0]
    return counts


def make(**settings):
    return TrajectoryWriter(
        "memory",
        layout=LAYOUT,
        replicas=R,
        size=D,
        config={},
        store=("positions", "momenta"),
        **settings,
    )


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_prefix_of_the_writes_is_readable(recorder, monkeypatch, compression):
    # Small chunks, so that the chunk index grows through several of its levels.
    monkeypatch.setattr("mdnet.io.blocks._CHUNK_BYTES", 4 * R * D * 2)
    with make(compression=compression) as writer:
        start = len(recorder.record)
        write_run(writer, range(180))
    marks = recorder.marks
    assert marks[-1][1] == 180
    tested = 0
    for i, file in prefixes(recorder.record, start, stride=2):
        check(file, marks, i, whole=tested % 25 == 0)
        tested += 1
    assert tested > 500


def test_every_prefix_of_a_resumed_run_is_readable(recorder):
    with make() as writer:
        write_run(writer, range(50))
    recorder.marks.clear()
    start = len(recorder.record)
    with make(mode="a") as writer:
        assert writer.last_frame_step == 40
        resumed = len(recorder.record)
        write_run(writer, range(41, 80))
    # While the file is cut the frames of the restart stay.
    marks = [(start, 41, 82, 2), *recorder.marks]
    lengths = set()
    for i, file in prefixes(recorder.record, start - 1, stride=1):
        lengths.add(int(check(file, marks, i, whole=i < resumed)[0]))
    assert {50, 41, 80} <= lengths


def test_negative_control_default_settings_of_hdf5_lose_frames():
    """The replay does find the damage that the settings of `files` avoid."""
    memory = Recorder()
    with h5py.File(memory, "w") as f:
        q = f.create_dataset("q", (0, 4), "i8", maxshape=(None, 4), chunks=(1, 4))
        count = f.create_dataset("count", data=0)
        f.flush()
        marks = [(len(memory.record), 0)]
        for i in range(80):
            q.resize(i + 1, 0)
            q[i] = i
            f.flush()
            count[()] = i + 1
            f.flush()
            marks.append((len(memory.record), i + 1))
    lost = 0
    for i, file in prefixes(memory.record, marks[0][0], stride=1):
        expected = [n for at, n in marks if at <= i + 1][-1]
        try:
            with h5py.File(file, "r") as f:
                found = f["q"][:expected, 0]
            lost += not np.array_equal(found, np.arange(expected))
        except OSError:
            lost += 1
    assert lost > 0


SCRIPT = textwrap.dedent(
    """
    import sys, time
    import numpy as np
    from mdnet.io import TrajectoryWriter
    path, live, end = sys.argv[1], sys.argv[2] == "live", sys.argv[3]
    layout = {"q": (slice(0, 1000), (1000,))}
    writer = TrajectoryWriter(
        path, layout=layout, replicas=2, size=1000, config={}, live=live,
        block_bytes=2**18,
    )
    for step in range(10**6):
        q = np.full((2, 1000), step, np.float32)
        writer.frame(step, step, {"positions": q}, {"potential_energy": q[:, 0]})
        writer.log(step, step, {"heat": q[:, 0]})
        if step % 20 == 0:
            writer.restart({"positions": q}, {"step": step})
        if step == 100:
            writer.flush()
            print("flushed", flush=True)
            if end == "exit":
                import os
                os._exit(1)
        if step > 100:
            time.sleep(0.001)
    """
)


@pytest.mark.parametrize(
    ("live", "end"), [("plain", "exit"), ("plain", "kill"), ("live", "kill")]
)
def test_killed_writer(tmp_path, live, end):
    path = tmp_path / "run.h5md"
    command = [sys.executable, "-c", SCRIPT, str(path), live, end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "flushed\n"
        if end == "kill":
            if live == "live":
                with h5py.File(path, "r", swmr=True) as f:
                    assert len(f["mdnet/axis/step"]) >= 101
            else:
                with open_trajectory(path) as run:  # another process reads along
                    assert len(run) >= 101
                    assert not run.complete
                with pytest.raises(TrajectoryError, match="being written by another"):
                    writer_of(path, "a")
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
        process.wait()
    if live == "plain":
        with h5py.File(path, "r") as f:  # plainly, with no help of ours
            assert f["posterior/q"].shape[1] >= 101
    with open_trajectory(path) as run:
        frames = len(run)
        assert frames >= 101
        expected = np.broadcast_to(
            np.arange(frames, dtype=np.float32)[:, None, None], (frames, 2, 1000)
        )
        np.testing.assert_array_equal(run.positions[:], expected)
        np.testing.assert_array_equal(
            run["heat"].step, np.arange(len(run["heat"].step))
        )
        step = run.restart()[1]["step"]
        assert step >= 100
    with writer_of(path, "a") as writer:
        assert writer.last_frame_step == step
        q = np.zeros((2, 1000))
        writer.frame(step, 0.0, {"positions": q}, {})
        writer.frame(step + 1, 0.0, {"positions": q}, {})
    with h5py.File(path, "r") as f:
        assert f["mdnet/axis/step"][-1] == step + 1
        assert f["posterior/q"].shape[1] == step + 2


def writer_of(path, mode):
    layout = {"q": (slice(0, 1000), (1000,))}
    return TrajectoryWriter(
        path, layout=layout, replicas=2, size=1000, config={}, mode=mode
    )


def test_full_disk_raises_and_leaves_the_file_readable(tmp_path):
    script = textwrap.dedent(
        """
        import resource, sys
        import numpy as np
        from mdnet.errors import TrajectoryError
        from mdnet.io import TrajectoryWriter
        layout = {"q": (slice(0, 1000), (1000,))}
        writer = TrajectoryWriter(
            sys.argv[1], layout=layout, replicas=2, size=1000, config={},
            block_bytes=2**18,
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
        try:
            for step in range(2000):
                q = np.full((2, 1000), step, np.float32)
                writer.frame(step, step, {"positions": q}, {"u": q[:, 0]})
        except TrajectoryError as error:
            print("raised", error, flush=True)
        writer.close()
        print("closed", flush=True)
        """
    )
    path = tmp_path / "run.h5md"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "raised" in done.stdout, done.stderr
    assert "could not be written" in done.stdout
    assert "closed" in done.stdout, done.stderr
    assert os.path.getsize(path) <= 5_000_000
    with open_trajectory(path) as run:
        assert len(run) > 100
        np.testing.assert_array_equal(run.positions[:, 1, 7], np.arange(len(run)))
        assert not run.complete
    with h5py.File(path, "r") as f:
        assert f["posterior/q"].shape[1] >= len(f["particles/trajectory/position/step"])
