"""The CUDA kernels: on a device, or under Numba's simulator on NumPy arrays.

``NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda.py`` runs them without a
device; ``python -m pytest -m gpu`` on a machine with one.
"""

import numpy as np
import pytest

import mdnet
from mdnet import backend, integrators, potentials
from mdnet.errors import BackendError
from mdnet.kernels import engine
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK
from mdnet.simulation import Simulation

from .cuda_tools import MISSING, SIMULATED, compiler, gpu

PROGRAM = [
    (KICK, 0, 0, 0),
    (DRIFT, 1, 0, 0),
    (BATH, 2, 3, 1),
    (DRIFT, 1, 0, 0),
    (FORCE, 0, 0, 0),
    (KICK, 0, 0, 0),
]


def launch(name, precision, size, repeats):
    """Run one program of two replicas; returns q, p, f, sums on the host."""
    b = backend.resolve(name, precision)
    rng = np.random.default_rng(4)
    q, p = rng.standard_normal((2, 2, size)).astype(b.state_dtype)
    f = rng.standard_normal((2, size)).astype(b.force_dtype)
    table = np.zeros((1, 3, 2, 1, 2))
    table[:, 0, ..., 0], table[:, 1, ..., 0] = 0.1, 0.15
    table[:, 2, ..., 0], table[:, 2, :, 0, 1] = 0.8, 0.6 * np.array([1, 2])
    arrays = [b.asarray(x) for x in (q, p, f)]
    inverse = b.asarray(rng.uniform(0.5, 2, size))
    made = engine.Engine(b, inverse, 2**40 + 1, size, (0.1, 1.0, 0.0, 0.2))
    sums = b.asarray(np.zeros((4, 2, made.tiles)))
    program = engine.Program.build(b, PROGRAM)
    coefficients = b.asarray(table[:, program.columns])
    made.kinetic(arrays[1], sums[0])
    made.advance(program, *arrays, coefficients, sums, 2**32 - 1, repeats)
    return [b.to_host(x) for x in (*arrays, sums)]


@gpu
@pytest.mark.parametrize(
    ("precision", "tolerance", "size"),
    [("single", 3e-6, 3), ("mixed", 1e-6, 2060), ("double", 1e-13, 3)],
)
def test_kernel_equals_cpu(precision, tolerance, size):
    """One scalar source: both compilations agree to rounding, across a 2^32nd step."""
    mine = launch("cuda", precision, size, 2)
    theirs = launch("cpu", precision, size, 2)
    for a, c in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, c, rtol=tolerance, atol=10 * tolerance)
    other = launch("cpu", precision, size, 1)  # negative control
    assert np.abs(mine[1] - other[1]).max() > 0.01


@gpu
@pytest.mark.parametrize(
    "fused",
    [True, pytest.param(False, marks=pytest.mark.skipif(SIMULATED, reason="slow"))],
)
def test_simulation_equals_cpu(fused):
    """The same seed gives the same trajectory on both devices, to rounding."""
    stiffness = 1.0 if fused else np.linspace(0.5, 1.5, 6)
    u = potentials.Harmonic(stiffness=stiffness, size=6)
    steps = 2 if SIMULATED else 100
    found = []
    for name in ("cuda", "cpu"):
        sim = Simulation(
            u,
            integrators.BAOAB(dt=0.3, temperature=[0.5, 2.0]),
            replicas=2,
            seed=8,
            backend=name,
            precision="double",
        )
        sim.run(steps)
        scalars = sim.scalars()
        found.append([sim.arrays(("positions", "momenta")), scalars])
    for name in ("positions", "momenta"):
        np.testing.assert_allclose(found[0][0][name], found[1][0][name], atol=1e-10)
    for name, value in found[1][1].items():
        np.testing.assert_allclose(found[0][1][name], value, atol=1e-9, err_msg=name)


@gpu
def test_network_equals_cpu():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    net = potentials.MLP([3, 5, 2], activation="tanh")
    u = potentials.Posterior(
        net, "categorical", prior=potentials.GaussianPrior(1.0), data=(x, y)
    ).minibatch(batch_size=10)
    found = []
    for name in ("cuda", "cpu"):
        sim = Simulation(
            u,
            integrators.BAOAB(dt=0.01),
            replicas=2,
            seed=8,
            backend=name,
            precision="double",
        )
        sim.run(2 if SIMULATED else 100)
        found.append(sim.arrays(("positions",))["positions"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


@gpu
def test_replay_equals_launches(monkeypatch):
    """Steps numbered by the clock on the device are the steps numbered by the host."""
    from mdnet.kernels import graph

    monkeypatch.setattr(graph, "_LENGTHS", (2, 1))
    b = backend.resolve("cuda", "double")
    rng = np.random.default_rng(0)
    data = rng.standard_normal((9, 2)), rng.integers(0, 2, 9)
    u = potentials.Posterior(potentials.MLP([2, 3, 2]), data=data).minibatch(2)
    program = engine.Program.build(
        b, [(KICK, 0, 0, 0), (BATH, 1, 0, 0), (DRIFT, 2, 0, 0)]
    )
    table = np.zeros((1, 3, 1, 1, 2))
    table[0, :, 0, 0] = [[0.01, 0], [0.9, 0.1], [0.1, 0]]

    def run(replayed):
        made = engine.Engine(b, b.asarray(np.ones(1)), 5, u.size)
        forces = u.evaluator(b, 1, 5)
        q = b.asarray(u.initial(1, 0))
        p, f = (b.asarray(np.zeros((1, u.size))) for _ in range(2))
        sums, coefficients = b.asarray(np.zeros((4, 1, made.tiles))), b.asarray(table)

        def body(step):
            forces.forces(q, f, step)
            made.advance(program, q, p, f, coefficients, sums, step)

        body(10)
        if replayed:
            assert graph.capturable(b, forces, False)
            assert not graph.capturable(b, forces, True)
            replay = graph.Replay(b, made, forces, body, 1)
            assert replay.run(3, 11) == 0  # asks for one plain step first
            assert replay.run(3, 11) == 3
            assert sorted(replay._graphs) == [1, 2]
            assert int(b.to_host(made.cuda.clock)[0]) == 0
        else:
            for step in range(11, 14):
                body(step)
        return [b.to_host(x).copy() for x in (q, p, sums)]

    for a, c in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(a, c)


@compiler
@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
def test_step_compiles_for_hopper(precision, equal):
    """PTX for sm_90 with no driver: no call, no spill to local memory."""
    from mdnet.kernels import cuda

    text = cuda.ptx("advance", precision, equal)
    assert ".target sm_90" in text
    assert ".local" not in text
    assert "call" not in text


@compiler
@pytest.mark.parametrize("name", ["kinetic", "set_clock", "tick"])
def test_small_kernels_compile(name):
    from mdnet.kernels import cuda

    text = cuda.ptx(name)
    assert ".local" not in text
    assert "call" not in text


def test_missing_device_names_the_extra():
    if not MISSING:
        pytest.skip("a device is there")
    with pytest.raises(BackendError, match=r"extra|driver"):
        backend.resolve("cuda")
    assert backend.resolve("auto").name == "cpu"
    assert [d["kind"] for d in backend.devices()] == ["cpu", "cuda"]


@pytest.mark.parametrize("call", [{"name": "gpu"}, {"precision": "half"}])
def test_unknown_choice(call):
    with pytest.raises(BackendError, match="expected"):
        backend.resolve(**call)


@gpu
def test_file_of_a_replayed_run(tmp_path):
    """Replayed steps and frames sent on the way leave the file that the CPU writes."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.integers(0, 2, 20)
    net = potentials.MLP([3, 4, 2], activation="tanh")
    u = potentials.Posterior(net, data=(x, y)).minibatch(5)
    for name in ("cuda", "cpu"):
        rule = integrators.BAOAB(dt=0.05)
        sim = Simulation(u, rule, replicas=1, backend=name, precision="double")
        path = tmp_path / f"{name}.h5md"
        sim.run(4, trajectory=path, every=3, restart_every=3, thermometers=False)
    mine, theirs = (mdnet.open(tmp_path / f"{name}.h5md") for name in ("cuda", "cpu"))
    assert mine.steps.tolist() == theirs.steps.tolist() == [0, 3]
    np.testing.assert_allclose(mine.positions[:], theirs.positions[:], atol=1e-6)
    for series in ("potential_energy", "heat", "kinetic_temperature"):
        np.testing.assert_allclose(mine[series].value, theirs[series].value, rtol=1e-9)
    resumed = Simulation.resume(tmp_path / "cuda.h5md", potential=u)
    resumed.run(1)
    sim.run(1)
    q = resumed.backend.to_host(resumed.state.positions)
    np.testing.assert_allclose(q, sim.state.positions, atol=1e-10)
