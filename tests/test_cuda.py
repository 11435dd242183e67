"""The CUDA kernels: on a device, or under Numba's simulator on NumPy arrays.

``NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda.py`` runs them without a
device; ``python -m pytest -m gpu`` on a machine with one.
"""

import importlib.util
import os

import numpy as np
import pytest

from mdnet import backend, integrators, potentials
from mdnet.errors import BackendError
from mdnet.kernels import engine
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK
from mdnet.simulation import Simulation

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def device_missing():
    if SIMULATED:
        return ""
    try:
        backend.resolve("cuda")
    except BackendError as error:
        return str(error)
    return ""


MISSING = device_missing()
on_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "a device is there"),
]


def gpu(function):
    for mark in on_device:
        function = mark(function)
    return function


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
    ("precision", "tolerance"), [("single", 3e-6), ("mixed", 1e-6), ("double", 1e-13)]
)
@pytest.mark.parametrize("size", [3, 2060])
def test_kernel_equals_cpu(precision, tolerance, size):
    """One scalar source: both compilations agree to rounding, across a 2^32nd step."""
    mine = launch("cuda", precision, size, 2)
    theirs = launch("cpu", precision, size, 2)
    for a, c in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, c, rtol=tolerance, atol=10 * tolerance)
    other = launch("cpu", precision, size, 1)  # negative control
    assert np.abs(mine[1] - other[1]).max() > 0.01


@gpu
@pytest.mark.parametrize("fused", [True, False])
def test_simulation_equals_cpu(fused):
    """The same seed gives the same trajectory on both devices, to rounding."""
    stiffness = 1.0 if fused else np.linspace(0.5, 1.5, 6)
    u = potentials.Harmonic(stiffness=stiffness, size=6)
    steps = 3 if SIMULATED else 100
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
        sim.run(3 if SIMULATED else 100)
        found.append(sim.arrays(("positions",))["positions"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


@pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")
@pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None, reason="libnvvm is not installed"
)
@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
@pytest.mark.parametrize("name", ["advance", "kinetic"])
def test_compiles_for_hopper(name, precision):
    """PTX for sm_90 with no driver: no call, no spill to local memory."""
    from mdnet.kernels import cuda

    text = cuda.ptx(name, precision)
    assert ".target sm_90" in text
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
