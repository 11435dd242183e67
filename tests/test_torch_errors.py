"""What `from_torch` and `to_torch` refuse, and what they say."""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import PotentialError
from mdnet.potentials.torch import from_torch, to_torch

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from .torch_tools import IMAGES, Wrapped, X, Y, cnn, linear_after, mlp  # noqa: E402


def functional_dropout(self, x):
    return nn.functional.dropout(self.layer(x))


REFUSED = {
    "not a module": (lambda: 3, "torch.nn.Module"),
    "a class": (lambda: nn.Linear, "an instance"),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
        r"1 \(BatchNorm1d\) is in train mode.*not a function of the weights.*eval",
    ),
    "batch statistics": (
        lambda: nn.Sequential(
            nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)
        ).eval(),
        "no running statistics",
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1)),
        r"1 \(Dropout\) drops units.*not a function of the weights.*module\.eval\(\)",
    ),
    "dropout of a recurrent layer": (
        lambda: linear_after(nn.GRU(4, 3, 2, dropout=0.1), 3),
        r"layer \(GRU\) drops units",
    ),
    "dropout as a function": (
        lambda: Wrapped(functional_dropout, layer=nn.Linear(4, 3)),
        "answers differently.*not a function of the weights",
    ),
    "a mean over the batch": (
        lambda: Wrapped(
            lambda self, x: self.layer(x - x.mean(0)), layer=nn.Linear(4, 3)
        ),
        "beside other rows",
    ),
    "nothing to sample": (
        lambda: nn.Linear(4, 3).requires_grad_(False),
        "requires_grad",
    ),
    "no parameters": (lambda: nn.ReLU(), "nothing to sample"),
    "complex": (
        lambda: nn.Linear(4, 3, dtype=torch.complex64),
        "'weight' has type torch.complex64",
    ),
    "lazy": (lambda: nn.LazyLinear(3), "has no shape yet"),
    "a tuple": (
        lambda: Wrapped(lambda self, x: (self.layer(x), x), layer=nn.Linear(4, 3)),
        "returns tuple",
    ),
    "other outputs": (
        lambda: Wrapped(lambda self, x: self.layer(x)[None], layer=nn.Linear(4, 3)),
        r"returns shape \(1, 2, 3\)",
    ),
    "a scalar": (
        lambda: Wrapped(lambda self, x: self.layer(x).mean(), layer=nn.Linear(4, 3)),
        r"returns shape \(\)",
    ),
    "other inputs": (lambda: nn.Linear(7, 3), r"cannot take inputs \(2, 4\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    build, message = REFUSED[case]
    with pytest.raises(PotentialError, match=message):
        from_torch(build(), data=(X, Y))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": None}, "expected a pair"),
        ({"data": (X,)}, "expected a pair"),
        ({"data": (X[:0], Y[:0])}, "n > 0"),
        ({"data": (X[:, 0], Y)}, "at least one axis"),
        ({"data": (X.astype(str), Y)}, "real numbers"),
        ({"data": (np.where(X > 2, np.nan, X), Y)}, "NaN"),
        ({"data": (X, Y + 1)}, "labels from 1 to 3"),
        ({"data": (X, Y[:-1])}, "y has shape"),
        ({"vectorize": "fast"}, "vectorize='fast'"),
        ({"start": "prior"}, "start='prior'"),
        ({"prior": potentials.GaussianPrior({"w": 1.0})}, "0.weight"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(PotentialError, match=message):
        from_torch(mlp(), **{"data": (X, Y)} | settings)


def test_refuses_a_plain_attribute_where_it_fails():
    module = Wrapped(lambda self, x: self.layer(x) @ self.turn, layer=nn.Linear(4, 3))
    module.turn = torch.eye(3)
    U = from_torch(module, data=(X, Y))
    q = U.initial(1)
    U.energy(q.astype(np.float32))
    with pytest.raises(PotentialError, match="register_buffer"):
        U.energy(q)


def test_refuses_weights_that_are_not_the_modules(tmp_path):
    U = from_torch(mlp(), data=(X, Y))
    good = np.zeros((4, 2, U.size))
    for weights, where, message in [
        (good[..., 1:], {}, "weights have shape"),
        (good[None], {}, "weights have shape"),
        (good, {"frame": 4}, "frame=4: the weights have 4 frames"),
        (good, {"replica": 2}, "replica=2"),
        (good[0], {"replica": -3}, "replica=-3"),
    ]:
        with pytest.raises(PotentialError, match=message):
            U.to_torch(weights, **where)
    ours = potentials.Posterior(potentials.MLP([4, 5, 3]), data=(X, Y))
    baoab = integrators.BAOAB(dt=0.01)
    sim = mdnet.Simulation(ours, baoab, backend="cpu")
    sim.run(2, trajectory=tmp_path / "run.h5md", every=1)
    with pytest.raises(PotentialError, match="the run holds tensors"):
        U.to_torch(mdnet.open(tmp_path / "run.h5md"))
    with pytest.raises(PotentialError, match=r"torch\.nn\.Module"):
        to_torch(ours, good)


def test_predict_refuses_images_of_another_shape():
    U = from_torch(cnn(), data=(IMAGES, Y[:30]))
    with pytest.raises(PotentialError, match="X has shape"):
        U.predict(U.initial(1), IMAGES[..., 1:])
