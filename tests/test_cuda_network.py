"""Forces of networks by the CUDA kernels, in the simulator or on a device.

``NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda_network.py``
"""

import numpy as np
import pytest

from mdnet import backend, potentials
from mdnet.errors import BackendError, PotentialError
from mdnet.potentials import evaluators
from mdnet.potentials.evaluators import (
    ArrayEvaluator,
    Batch,
    CudaEvaluator,
    TinyEvaluator,
)
from mdnet.potentials.minibatch import rows

from .cuda_tools import compiler, gpu

PRIORS = {
    "gaussian": potentials.GaussianPrior(0.7),
    "laplace": potentials.LaplacePrior({"0.weight": 0.5, "1.weight": 1.0}),
    "student": potentials.StudentTPrior(),
    "flat": None,
}


def posterior(likelihood, activation, prior="gaussian", bias=True, n=6, sizes=None):
    rng = np.random.default_rng(3)
    sizes = sizes or [2, 5, 2]
    X = rng.standard_normal((n, sizes[0]))
    shape = (n, sizes[-1])
    y = {
        "categorical": rng.integers(0, sizes[-1], n),
        "gaussian": rng.standard_normal(shape),
        "bernoulli": rng.integers(0, 2, shape),
    }[likelihood]
    net = potentials.MLP(sizes, activation=activation, bias=bias)
    return potentials.Posterior(net, likelihood, prior=PRIORS[prior], data=(X, y))


def compare(engine, u, batch=None, replicas=2, precision="double", call=5, **more):
    """Largest errors (forces, energy at the force, gradients, energies)."""
    device = backend.resolve("cuda", precision)
    host = backend.resolve("cpu", precision)
    made = [
        engine(u, device, replicas, 7, batch, **more),
        ArrayEvaluator(u, host, replicas, 7, batch),
    ]
    q = u.initial(replicas, 1) + 0.1
    found = []
    for b, evaluator in zip((device, host), made, strict=True):
        x = b.asarray(q, b.state_dtype)
        values = []
        for method in ("forces", "gradients", "energies"):
            force = b.asarray(np.full(q.shape, np.nan), b.force_dtype)
            energy = b.asarray(np.full(replicas, np.nan))
            if method == "forces":
                evaluator.forces(x, force, call, energy)
                values += [force, energy]
            elif method == "gradients":
                evaluator.gradients(x, force)
                values.append(force)
            else:
                evaluator.energies(x, energy)
                values.append(energy)
        found.append([b.to_host(v).astype(float) for v in values])
    return [
        float(np.abs(a - c).max() / max(1, np.abs(c).max()))
        for a, c in zip(*found, strict=True)
    ]


CASES = [
    ("categorical", "tanh", "gaussian", True, None),
    ("gaussian", "gelu", "student", True, (4, "shuffle", False)),
    ("bernoulli", "relu", "flat", True, (4, "replacement", False)),
    ("gaussian", "softplus", "laplace", False, (4, "shuffle", True)),
    ("categorical", "silu", "gaussian", True, (5, "replacement", True)),
    ("categorical", "selu", "student", True, (3, "shuffle", False)),
]


@gpu
@pytest.mark.parametrize("engine", [CudaEvaluator, TinyEvaluator])
@pytest.mark.parametrize(("likelihood", "activation", "prior", "bias", "batch"), CASES)
def test_forces_equal_reference(engine, likelihood, activation, prior, bias, batch):
    u = posterior(likelihood, activation, prior, bias)
    batch = Batch(*batch) if batch else None
    assert max(compare(engine, u, batch)) < 1e-13
    other = posterior(likelihood, "identity", prior, bias)  # negative control
    if activation == "gelu":
        device = backend.resolve("cuda", "double")
        q = device.asarray(u.initial(2, 1))
        out = [device.asarray(np.empty((2, u.size))) for _ in range(2)]
        engine(u, device, 2, 7).gradients(q, out[0])
        engine(other, device, 2, 7).gradients(q, out[1])
        assert np.abs(device.to_host(out[0] - out[1])).max() > 0.1


@gpu
@pytest.mark.parametrize("engine", [CudaEvaluator, TinyEvaluator])
@pytest.mark.parametrize("precision", ["single", "mixed"])
def test_other_precisions(engine, precision):
    u = posterior("categorical", "tanh", sizes=[3, 4])
    assert max(compare(engine, u, Batch(4), 1, precision)) < 3e-6


@gpu
def test_short_of_shared_memory(monkeypatch):
    """Half as many rows at a time, and no room at all."""
    from mdnet.kernels import cuda_tiny

    u = posterior("gaussian", "tanh", sizes=[2, 5, 2])
    device = backend.resolve("cuda", "double")
    rows = 14 * (cuda_tiny.WARP + 1)  # inputs, activations and slopes
    monkeypatch.setattr(cuda_tiny, "SHARED", 8 * (2 * u.size + rows))
    shape = TinyEvaluator(u, device, 1, 7)._shape
    assert (shape.halves, shape.slices) == (1, 1)
    assert max(compare(TinyEvaluator, u)) < 1e-13
    monkeypatch.setattr(cuda_tiny, "SHARED", 8 * u.size)
    assert not evaluators.suits(u, device, 64, None)
    with pytest.raises(PotentialError, match="shared memory"):
        TinyEvaluator(u, device, 1, 7)


@gpu
def test_slices_of_rows_change_nothing(monkeypatch):
    u = posterior("categorical", "tanh", sizes=[2, 3, 2])
    monkeypatch.setattr(CudaEvaluator, "BYTES", 8 * 2 * 12 * 4)
    made = CudaEvaluator(u, backend.resolve("cuda", "double"), 2, 7)
    assert made._most == 4
    assert max(compare(CudaEvaluator, u)) < 1e-13


@gpu
@pytest.mark.parametrize("wide", [0, 10**6])
def test_first_layer_apart_or_together(monkeypatch, wide):
    """One product for all replicas, or one each: the same numbers."""
    monkeypatch.setattr(CudaEvaluator, "WIDE", wide)
    u = posterior("gaussian", "tanh", sizes=[2, 3, 2], n=5)
    assert max(compare(CudaEvaluator, u, Batch(4, shared=True))) < 1e-13


@gpu
@pytest.mark.parametrize("order", ["shuffle", "replacement"])
@pytest.mark.parametrize("n_data", [7, 300])
def test_rows_are_those_of_the_cpu(order, n_data):
    """The keyed permutation, on the device: few rows, and more than 2^8."""
    from mdnet.kernels import cuda_network as kernels
    from mdnet.kernels.codes import ORDERS
    from mdnet.kernels.cuda_build import Launch

    b = backend.resolve("cuda", "double")
    data = b.asarray(np.arange(n_data, dtype=float)[:, None])
    x, t = (b.asarray(np.empty((2, 3, 1))), b.asarray(np.empty((2, 1, 3))))
    seed, clock = b.asarray(np.array([11, 0], np.uint64)), b.asarray(np.array([2]))
    targets = b.asarray(b.to_host(data).T.copy())
    launch = Launch(
        kernels.kernel("gather", False), 6, kernels.LANES,
        (data, targets, x, t, seed, clock),
    )  # fmt: skip
    launch(3, 2, ORDERS[order], 5, 2)  # rows 2.. of call 2 * 2 + 3 of batches of 5
    want = rows(11, 2, 7, n_data, 5, order)[:, 2:]
    np.testing.assert_array_equal(b.to_host(x)[:, :, 0], want)
    np.testing.assert_array_equal(b.to_host(t)[:, 0], want)
    assert (want != rows(11, 2, 6, n_data, 5, order)[:, 2:]).any()  # negative control


@gpu
def test_choice_of_engine():
    device = backend.resolve("cuda")
    u = posterior("categorical", "tanh")
    assert type(u.evaluator(device, 2)) is TinyEvaluator
    big = posterior("categorical", "tanh", sizes=[300, 100, 4])
    assert type(big.evaluator(device, 2)) is CudaEvaluator
    assert not evaluators.suits(big, device, 64, None)


# --- products: the arguments of cuBLAS, interpreted in NumPy; no device needed --------


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_arguments_of_a_product(ta, tb, shared, beta):
    from mdnet.kernels.cuda_blas import Call

    rng = np.random.default_rng(0)
    R, m, n, k = 3, 4, 5, 2
    a = rng.standard_normal((R, 40))[:, 3 : 3 + m * k].reshape(R, m, k)
    a = np.swapaxes(a, 1, 2).copy() if ta else a
    b = rng.standard_normal((1 if shared else R, *((n, k) if tb else (k, n))))
    room = rng.standard_normal((R, 3 * m * n))
    c = np.lib.stride_tricks.as_strided(
        room[:, 7:], (R, m, n), (room.strides[0], 8 * n, 8)
    )
    want = beta * c + np.matmul(
        np.swapaxes(a, 1, 2) if ta else a, np.swapaxes(b, 1, 2) if tb else b
    )
    before = room.copy()
    Call.of(a, b, c, ta, tb, beta).in_numpy()
    np.testing.assert_allclose(c, want, atol=1e-14)
    before[:, 7 : 7 + m * n] = room[:, 7 : 7 + m * n]
    np.testing.assert_array_equal(room, before)  # nothing else was touched


def test_product_needs_neighbours():
    from mdnet.kernels.cuda_blas import Call

    a = np.zeros((2, 3, 4))
    with pytest.raises(BackendError, match="neighbours"):
        Call.of(a.transpose(0, 2, 1), a, a, False, False, 0.0)


def test_unknown_matmul():
    with pytest.raises(BackendError, match="tf32"):
        backend.resolve("cpu", matmul="fp8")


# --- compilation for a device that is not there ---------------------------------------


NAMES = ("gather", "activate", "loss", "descend", "finish", "parts", "total", "tiny")


@compiler
@pytest.mark.parametrize("single", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_network_kernels_compile(name, single):
    """PTX for sm_90 with no driver: no call, no array in local memory."""
    from mdnet.kernels import cuda_network, cuda_tiny

    tiny = name == "tiny"
    text = cuda_tiny.ptx(single) if tiny else cuda_network.ptx(name, single)
    assert ".target sm_90" in text
    assert ".local" not in text
    assert "call" not in text
    if single and name in ("activate", "loss", "gather", "descend"):
        # Arithmetic of a float32 network stays in float32.
        assert "mul.f64" not in text
        assert "fma.rn.f64" not in text
