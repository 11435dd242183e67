"""``mdnet bench``: ceilings, counts of work, and the table."""

import numpy as np
import pytest

from mdnet import backend, bench
from mdnet.bench import limits, peers, workloads
from mdnet.kernels import ceiling


def test_chains_are_what_their_name_says():
    x = np.ones((1, 8, 3), np.float32)
    ceiling.multiply_add(x, np.float32(0.5), np.float32(1), 1)
    expected = 2 - 0.5**ceiling.CHAIN  # fixed point 2, from 1
    np.testing.assert_allclose(x, expected, rtol=1e-6)


@pytest.fixture(scope="module")
def ceilings():
    return limits.measure(backend.resolve("cpu", "single"), 0.05)


def test_ceilings_are_those_of_a_machine(ceilings):
    """Wide enough for any; a factor forgotten would leave them."""
    assert 5e8 < ceilings.copy < 5e12
    assert 1e9 < ceilings.fma < 1e14
    assert ceilings.flops >= ceilings.product > 1e8


@pytest.mark.parametrize("work", workloads.WORKLOADS, ids=lambda w: w.name)
def test_bounds_grow_with_the_work(work, ceilings):
    assert 0 < work.bound(ceilings) < 10
    slower = limits.Limits(ceilings.copy / 2, ceilings.fma / 2, ceilings.product / 2)
    assert work.bound(slower) == pytest.approx(2 * work.bound(ceilings))


def test_network_work_is_counted_by_hand():
    """2-3-1 on five rows: 9 products forward, 9 for weights, 3 for the errors."""
    work = workloads._network_work([2, 3, 1], 5, 1)
    assert work["flops"] == 2 * 5 * (9 + 9 + 3)
    assert workloads._network_work([2, 3, 1], 5, 4)["flops"] == 4 * work["flops"]


def test_peers_that_are_missing_are_left_out(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.peers("harmonic", 3) == {}


@pytest.mark.slow
def test_table(monkeypatch):
    small = workloads.WORKLOADS[:1]
    monkeypatch.setattr("mdnet.bench.table.WORKLOADS", small)
    monkeypatch.setattr("mdnet.bench.table.peers", lambda kind, steps: {})
    lines = list(bench.run("cpu", 0.01))
    row = next(line for line in lines if line.startswith(small[0].name))
    share = float(row.split("%")[0].split()[-1])
    assert 0 < share < 200
    assert len({line.count("ms") for line in lines if "1e6" in line}) == 1
