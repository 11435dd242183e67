"""The compiled CPU step against the plain array step, and its invariances."""

import gc

import numba
import numpy as np
import pytest

from mdnet import backend
from mdnet.kernels import cpu_steps, engine, native, reference
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK
from mdnet.kernels.pause import uncollected

BAOAB = [(KICK, 0, 0, 0), (DRIFT, 1, 0, 0), (BATH, 2, 0, 0), (DRIFT, 3, 0, 0)]
FUSED = [*BAOAB, (FORCE, 0, 0, 0), (KICK, 4, 0, 0)]
TWO_BATHS = [(BATH, 2, 0, 0), (KICK, 0, 0, 0), (DRIFT, 1, 0, 0), (BATH, 2, 1, 1)]


def setup(precision, replicas, size, mass="scalar", seed=0):
    b = backend.resolve("cpu", precision)
    rng = np.random.default_rng(seed)
    q, p = rng.standard_normal((2, replicas, size)).astype(b.state_dtype)
    f = rng.standard_normal((replicas, size)).astype(b.force_dtype)
    inverse = np.ones(1) if mass == "scalar" else rng.uniform(0.5, 2, size)
    h, c = 0.3, np.exp(-0.3)
    table = np.zeros((1, 5, replicas, 1, 2))
    table[:, (0, 4), :, :, 0] = h / 2
    table[:, (1, 3), :, 0, 0] = h / 2 * np.linspace(0.9, 1.1, replicas)
    table[:, 2, :, :, 0] = c
    table[:, 2, :, 0, 1] = np.sqrt((1 - c * c) * np.linspace(1, 2, replicas))
    edges, _ = engine.blocks(size)
    sums = np.zeros((4, replicas, edges.size - 1))
    reference.kinetic(p, inverse, edges, sums[0])
    return b, q, p, f, inverse, table, sums


def make(b, inverse, size, operations, polynomial=(0.1, 1.0, 0.0, 0.2), seed=9):
    program = engine.Program.build(b, operations)
    return engine.Engine(b, inverse, seed, size, polynomial), program


def advance(eng, program, arrays, table, step, repeats=1):
    q, p, f, sums = arrays
    eng.advance(program, q, p, f, table[:, program.columns].copy(), sums, step, repeats)


def advance_reference(eng, program, arrays, table, step, repeats=1):
    q, p, f, sums = arrays
    reference.advance(
        q, p, f, eng.inverse_mass, program.codes, program.streams, program.later,
        table[:, program.columns], eng._polynomial, sums, eng.edges, eng.groups,
        eng._key, step, repeats,
    )  # fmt: skip


@pytest.mark.parametrize("operations", [BAOAB, FUSED, TWO_BATHS])
@pytest.mark.parametrize("mass", ["scalar", "diagonal"])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("single", 2e-5), ("mixed", 1e-6), ("double", 1e-12)]
)
@pytest.mark.parametrize("size", [1, 5, 2048, 5000])
def test_compiled_equals_reference(operations, mass, precision, tolerance, size):
    b, q, p, f, inverse, table, sums = setup(precision, 3, size, mass)
    eng, program = make(b, inverse, size, operations)
    mine = [x.copy() for x in (q, p, f, sums)]
    theirs = [x.copy() for x in (q, p, f, sums)]
    advance(eng, program, mine, table, 41, 4)
    advance_reference(eng, program, theirs, table, 41, 4)
    for a, c in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, c, rtol=tolerance, atol=tolerance * 10)
    advance(eng, program, mine, table, 45, 1)  # negative control: one step more
    assert np.abs(mine[1] - theirs[1]).max() > 0.01


@pytest.mark.parametrize("precision", ["single", "double"])
def test_replicas_together_equal_replicas_alone(precision):
    b, q, p, f, inverse, table, sums = setup(precision, 3, 2500, "diagonal")
    eng, program = make(b, inverse, q.shape[1], FUSED)
    together = [x.copy() for x in (q, p, f, sums)]
    advance(eng, program, together, table, 7, 5)
    head = [x[:1].copy() for x in (q, p, f)] + [sums[:, :1].copy()]
    advance(eng, program, head, table[:, :, :1].copy(), 7, 5)
    for a, c in zip(head[:3], together[:3], strict=True):
        assert np.array_equal(a, c[:1])
    assert np.array_equal(head[3], together[3][:, :1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads, monkeypatch):
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"this process has {numba.config.NUMBA_NUM_THREADS} Numba threads")
    b, q, p, f, inverse, table, sums = setup("single", 2, 9000)
    eng, program = make(b, inverse, q.shape[1], FUSED)
    one = [x.copy() for x in (q, p, f, sums)]
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        advance(eng, program, one, table, 3, 6)
        numba.set_num_threads(threads)
        monkeypatch.setattr(cpu_steps.Steps, "SMALL", 0)  # share however little work
        many = [x.copy() for x in (q, p, f, sums)]
        advance(eng, program, many, table, 3, 6)
    finally:
        numba.set_num_threads(before)
    for a, c in zip(one, many, strict=True):
        assert np.array_equal(a, c)


def test_splitting_a_run_changes_no_bit():
    """Two launches of 3 and 4 steps equal one of 7; the ledger to rounding."""
    b, q, p, f, inverse, table, sums = setup("single", 2, 3000)
    eng, program = make(b, inverse, q.shape[1], FUSED)
    once = [x.copy() for x in (q, p, f, sums)]
    twice = [x.copy() for x in (q, p, f, sums)]
    advance(eng, program, once, table, 10, 7)
    advance(eng, program, twice, table, 10, 3)
    advance(eng, program, twice, table, 13, 4)
    for a, c in zip(once[:3], twice[:3], strict=True):
        assert np.array_equal(a, c)
    np.testing.assert_allclose(once[3], twice[3], rtol=1e-12, atol=1e-10)


def test_steps_allocate_nothing_on_the_heap():
    """Hot path: a launch leaves no array behind and grows no memory."""
    import tracemalloc

    b, q, p, f, inverse, table, sums = setup("single", 2, 200_000)
    eng, program = make(b, inverse, q.shape[1], FUSED)
    coefficients = table[:, program.columns].copy()
    eng.advance(program, q, p, f, coefficients, sums, 0, 1)
    tracemalloc.start()
    for step in range(5):
        eng.advance(program, q, p, f, coefficients, sums, step, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000  # a copy of q would be 1.6 MB


@pytest.mark.parametrize("mass", ["scalar", "diagonal"])
def test_groups_have_coefficients_of_their_own(mass):
    """Against the reference; and groups that are alike equal one group, bit for bit."""
    size, bounds = 3000, [0, 5, 700, 2050, 3000]
    b, q, p, f, inverse, table, _ = setup("double", 2, size, mass)
    program = engine.Program.build(b, FUSED)
    eng = engine.Engine(b, inverse, 9, size, (0.1, 1.0, 0.0, 0.2), bounds)
    assert eng.group_count == 4
    sums = np.zeros((4, 2, eng.tiles))
    alike = np.repeat(table, 4, axis=3)
    apart = alike * np.array([1.0, 0.5, 0.9, 0.3])[:, None]
    for given in (alike, apart):
        mine = [x.copy() for x in (q, p, f, sums)]
        theirs = [x.copy() for x in (q, p, f, sums)]
        advance(eng, program, mine, given, 3, 4)
        advance_reference(eng, program, theirs, given, 3, 4)
        for a, c in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-11)
    one = engine.Engine(b, inverse, 9, size, (0.1, 1.0, 0.0, 0.2))
    whole = [q.copy(), p.copy(), f.copy(), np.zeros((4, 2, one.tiles))]
    advance(one, program, whole, table, 3, 4)
    grouped = [x.copy() for x in (q, p, f, sums)]
    advance(eng, program, grouped, alike, 3, 4)
    for a, c in zip(whole[:3], grouped[:3], strict=True):
        assert np.array_equal(a, c)
    assert np.abs(mine[1] - grouped[1]).max() > 0.01  # negative control


def test_only_much_work_wakes_threads(monkeypatch):
    woken = []
    monkeypatch.setattr(native, "spread", lambda *a: woken.append(a[2]))
    monkeypatch.setattr(numba, "get_num_threads", lambda: 8)
    for size, expected in ((700, []), (20_000, []), (200_000, [8])):
        b, q, p, f, inverse, table, sums = setup("single", 1, size)
        eng, program = make(b, inverse, size, BAOAB)
        advance(eng, program, (q, p, f, sums), table, 0)
        assert woken == expected


def test_arrays_are_told_from_each_other():
    """A table follows its arrays: new ones, views, and coefficients in another order.

    An address that went stale would read or write memory of something else.
    """
    b, q, p, f, inverse, table, sums = setup("single", 2, 900)
    eng, program = make(b, inverse, 900, FUSED)
    expected = [x.copy() for x in (q, p, f, sums)]
    for step in range(4):
        advance(eng, program, expected, table, step)
    coefficients = np.asfortranarray(table[:, program.columns])
    for step in range(4):
        q, p, f, sums = (x.copy() for x in (q, p, f, sums))
        eng.advance(program, q, p, f, coefficients, sums, step)
    for a, c in zip((q, p, f, sums), expected, strict=True):
        assert np.array_equal(a, c)
    eng.kinetic(p, sums[3])
    np.testing.assert_allclose(sums[3], sums[0], rtol=1e-12)
    eng.kinetic(p[1:], sums[3, :1])  # one replica alone
    np.testing.assert_allclose(sums[3, 0], sums[0, 1], rtol=1e-12)


def test_arrays_of_another_kind_are_refused():
    b, q, p, f, inverse, table, sums = setup("single", 2, 900)
    eng, program = make(b, inverse, 900, FUSED)
    for bad in (q.astype(np.float64), np.asfortranarray(q)):
        with pytest.raises(ValueError, match="contiguous arrays of float32"):
            advance(eng, program, (bad, p, f, sums), table, 0)


def test_the_collector_is_paused_and_comes_back():
    @uncollected
    def compiles(fails):
        assert not gc.isenabled()
        if fails:
            raise ValueError("asked for")
        return 3

    assert compiles(False) == 3
    assert gc.isenabled()
    with pytest.raises(ValueError, match="asked"):
        compiles(True)
    assert gc.isenabled()
    gc.disable()  # a user who did that finds it so
    try:
        compiles(False)
        assert not gc.isenabled()
    finally:
        gc.enable()
