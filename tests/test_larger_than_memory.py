"""A file of four gigabytes as data: memory it takes, and speed it leaves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = '''
import json, sys, time
import numpy as np
import numba
numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
from mdnet import potentials
from mdnet.backend import resolve

path, rows, width, batch, replicas = sys.argv[1], *map(int, sys.argv[2:])


def peak():
    """Largest resident memory of this process, in MB."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000


def posterior(X):
    y = np.random.default_rng(1).normal(size=len(X))
    return potentials.Posterior(net, "gaussian", data=(X, y))


def seconds(evaluator, first, calls):
    start = time.process_time()  # of all threads, those that read included
    for call in range(first, first + calls):
        evaluator.forces(q, out, call)
    return time.process_time() - start


net = potentials.MLP([width, 64, 1])
backend = resolve("cpu", "single")
before = peak()
start = time.perf_counter()
U = posterior(np.memmap(path, np.float32, "r", shape=(rows, width)))
checked = time.perf_counter() - start
q = U.initial(replicas).astype(np.float32)
out = np.empty_like(q)
streamed = U.minibatch(batch, "blocks").evaluator(backend, replicas)
epoch = rows // batch
seconds(streamed, 0, epoch)
after = peak()
part = np.fromfile(path, np.float32, 50_000 * width).reshape(-1, width)
held = posterior(part).minibatch(batch).evaluator(backend, replicas)
times = {"file": [], "memory": []}
seconds(held, 0, 100)
for turn in range(5):
    times["file"].append(seconds(streamed, epoch + 256 * turn, 256))
    times["memory"].append(seconds(held, 256 * turn, 256))
best = {name: min(found) for name, found in times.items()}
print(json.dumps({"before": before, "peak": after, "checked": checked,
                  "ratio": best["memory"] / best["file"], **best}))
'''


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_four_gigabytes_in_little_memory_at_nearly_full_speed(tmp_path):
    """An epoch of 4.3 GB of rows: less than 600 MB resident, 80% of the speed.

    The file is made of a few blocks of normal numbers and of holes, which read as
    zeros, and take the same way from disk to memory.  Speed is that of the processor
    time of all threads, against batches from an array of 205 MB.
    """
    rows, width = 2**20, 1024
    if shutil.disk_usage(tmp_path).free < 8e9:
        pytest.skip("less than 8 GB of disk free")
    block = np.random.default_rng(0).normal(size=(2**12, width)).astype(np.float32)
    with open(tmp_path / "x", "wb") as file:
        file.truncate(rows * width * 4)
        for i in range(16):
            file.seek(i * (rows // 16) * width * 4)
            file.write(block.data)
    settings = [str(n) for n in (rows, width, 256, 2)]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "x"), *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["peak"] < 600, found
    assert found["ratio"] > 0.8, found
