"""What only a CUDA device can show: capture, reduced products, copies that overlap.

``python -m pytest -m gpu`` on a machine with one.
"""

import numpy as np
import pytest

from mdnet import backend, integrators, potentials
from mdnet.potentials.evaluators import ArrayEvaluator, CudaEvaluator
from mdnet.simulation import Simulation

from .cuda_tools import device_only

WIDTHS = [784, 256, 10]


def classifier(rows=500, sizes=WIDTHS):
    rng = np.random.default_rng(0)
    X, y = rng.random((rows, sizes[0])), rng.integers(0, sizes[-1], rows)
    return potentials.Posterior(potentials.MLP(sizes, activation="relu"), data=(X, y))


@device_only
@pytest.mark.parametrize(
    ("matmul", "least", "most"),
    [("float32", 0.0, 3e-6), ("tf32", 1e-6, 5e-3), ("bf16", 1e-5, 5e-2)],
)
def test_error_of_products(matmul, least, most, record_property):
    """Relative error of the force against float64, in the norm; see docs/gpu.md."""
    u = classifier()
    single, double = (backend.resolve("cuda", p) for p in ("single", "double"))
    q = u.initial(4, 0)
    out = single.xp.empty(q.shape, np.float32)
    want = double.xp.empty(q.shape, np.float64)
    CudaEvaluator(u, single, 4, 0, None, matmul).gradients(
        single.asarray(q, np.float32), out
    )
    ArrayEvaluator(u, double, 4, 0).gradients(
        double.asarray(q.astype(np.float32), np.float64), want
    )
    error = np.linalg.norm((out - want).get()) / np.linalg.norm(want.get())
    record_property("relative_error_of_the_force", float(error))
    assert least <= error < most


@device_only
def test_forces_allocate_nothing():
    u = classifier().minibatch(100)
    b = backend.resolve("cuda")
    evaluator = u.evaluator(b, 8, 0)
    q = b.asarray(u.initial(8), np.float32)
    out = b.xp.empty_like(q)
    evaluator.forces(q, out, 0)
    pool = b.xp.get_default_memory_pool()
    before = pool.used_bytes(), pool.total_bytes()
    for call in range(1, 5):
        evaluator.forces(q, out, call)
    assert (pool.used_bytes(), pool.total_bytes()) == before


@device_only
@pytest.mark.parametrize("sizes", [WIDTHS, [4, 8, 3]])
def test_graph_equals_launches(sizes):
    """A captured graph is used, and changes no bit."""
    from mdnet.kernels import graph
    from mdnet.kernels.engine import Engine, Program
    from mdnet.kernels.letters import BATH, DRIFT, KICK

    b = backend.resolve("cuda")
    u = classifier(sizes=sizes).minibatch(50)
    operations = [(KICK, 0, 0, 0), (BATH, 1, 0, 0), (DRIFT, 2, 0, 0)]
    program = Program.build(b, operations)
    table = np.zeros((1, 3, 2, 1, 2))
    table[0, :, :, 0] = np.array([[1e-3, 0], [0.9, 0.1], [1e-3, 0]])[:, None]

    def run(replayed):
        engine = Engine(b, b.asarray(np.ones(1)), 5, u.size)
        forces = u.evaluator(b, 2, 5)
        q = b.asarray(u.initial(2, 0), np.float32)
        p, f = b.xp.zeros_like(q), b.xp.zeros_like(q)
        sums, coefficients = b.xp.zeros((4, 2, engine.tiles)), b.asarray(table)

        def body(step):
            forces.forces(q, f, step)
            engine.advance(program, q, p, f, coefficients, sums, step)

        replay = graph.Replay(b, engine, forces, body, 1) if replayed else None
        step = 0
        while step < 100:
            done = replay.run(100 - step, step) if replay else 0
            if not done:
                body(step)
                done = 1
            step += done
        if replay:
            assert sorted(replay._graphs) == [1, 16]
        return [x.get() for x in (q, p, sums)]

    for a, c in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(a, c)


@device_only
def test_outbox_keeps_the_moment_of_sending():
    from mdnet.kernels.outbox import Outbox

    b = backend.resolve("cuda")
    x = b.xp.arange(10**6, dtype=np.float32)
    outbox, frames = Outbox(b), []
    for _ in range(5):
        frames.append(outbox.send(x))
        x += 1
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.get(), np.arange(10**6) + np.float32(i))


@device_only
def test_smooth_trajectory_equals_cpu():
    """100 steps in float32: rounding grows, but stays small on a smooth potential."""
    u = classifier(rows=200, sizes=[10, 50, 3])
    found = []
    for name in ("cuda", "cpu"):
        sim = Simulation(
            u, integrators.BAOAB(dt=1e-3), replicas=3, seed=1, backend=name
        )
        sim.run(100)
        found.append(sim.arrays(("positions",))["positions"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
