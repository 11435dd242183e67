"""The problems, stated once for every program: shapes, data, starts, steps.

Needs NumPy only, so that mdnet's and the peers' interpreters both read it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Harmonic:
    """U = k q^2 / 2 of every parameter; underdamped Langevin dynamics at T = 1.

    Exact answer: BAOAB samples <k q^2> = T at any stable step.
    """

    size: int
    replicas: int = 1
    stiffness: float = 1.0
    friction: float = 1.0
    dt: float = 0.2
    settle: int = 100
    """Steps from a start at four times the variance to the law that is checked."""

    def start(self) -> np.ndarray:
        """Positions (R, D) float32."""
        g = np.random.default_rng(1)
        return 2 * g.standard_normal((self.replicas, self.size), dtype=np.float32)

    def exact(self) -> float:
        """Spread (one standard deviation) of the mean of k q^2 / T."""
        return float(np.sqrt(2 / (self.size * self.replicas)))


@dataclass(frozen=True, slots=True)
class Classifier:
    """A 784-100-10 relu network, 10,000 rows, batches of 500, N(0, 1) prior, T = 1."""

    replicas: int = 1
    sizes: tuple[int, ...] = (784, 100, 10)
    rows: int = 10_000
    batch: int = 500
    friction: float = 1.0
    dt: float = 1e-3
    settle: int = 500
    shared: bool = False

    @property
    def size(self) -> int:
        """Number of weights D."""
        return sum(
            (a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)
        )

    @property
    def overdamped_dt(self) -> float:
        """Step of SGLD that moves as far as one step ``dt`` from fresh momenta."""
        return self.dt**2 / 2

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """X (rows, 784) float32 in [0, 1), y (rows,) int64: a noiseless linear rule."""
        g = np.random.default_rng(7)
        X = g.random((self.rows, self.sizes[0]), dtype=np.float32)
        rule = g.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)
        return X, ((X - X.mean(0)) @ rule).argmax(1)

    def start(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(W (R, out, in), b (R, out)) of each layer: N(0, 1/inputs) and zeros."""
        g = np.random.default_rng(1)
        out = []
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            W = g.standard_normal((self.replicas, b, a), dtype=np.float32)
            out.append((W / np.float32(np.sqrt(a)), np.zeros((self.replicas, b), "f4")))
        return out


@dataclass(frozen=True, slots=True)
class Small:
    """A tanh network of a few hundred weights, N(0, 1) prior, T = 1.

    With one output and ``noise`` a regression of all rows; without, a yes or no that
    is learned on ``batch`` rows drawn with replacement.
    """

    replicas: int = 1
    sizes: tuple[int, ...] = (13, 50, 1)
    rows: int = 455
    batch: int = 0
    noise: float = 0.0
    friction: float = 1.0
    dt: float = 5e-3
    settle: int = 0

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """X (rows, inputs) float32, y (rows,) float32."""
        g = np.random.default_rng(7)
        X = g.standard_normal((self.rows, self.sizes[0]), dtype=np.float32)
        if self.noise:
            signal = np.tanh(X @ g.standard_normal(self.sizes[0]) / 3)
            y = signal + self.noise * g.standard_normal(self.rows)
        else:
            y = np.sin(2 * X[:, 0]) + X[:, 1] > 0
        return X, y.astype(np.float32)

    def start(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `Classifier.start`."""
        g = np.random.default_rng(1)
        out = []
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            W = g.standard_normal((self.replicas, b, a), dtype=np.float32)
            out.append((W / np.float32(np.sqrt(a)), np.zeros((self.replicas, b), "f4")))
        return out

    def loss(self, weights: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """Mean of -log p(y | x) over rows and replicas, without constants."""
        X, y = self.data()
        a = np.broadcast_to(X, (weights[0][0].shape[0], *X.shape))
        for l, (W, b) in enumerate(weights):
            a = a @ W.swapaxes(1, 2) + b[:, None]
            if l < len(weights) - 1:
                a = np.tanh(a)
        z = a[..., 0].astype(np.float64)
        if self.noise:
            return float(np.mean((z - y) ** 2) / (2 * self.noise**2))
        return float(np.mean(np.logaddexp(0, z) - y * z))


def mean_nll(sets: list[list[tuple[np.ndarray, np.ndarray]]], X, y) -> float:
    """Mean of -log p(y | x) of all rows and sets of weights."""
    total = 0.0
    for weights in sets:
        a = X
        for l, (W, b) in enumerate(weights):
            a = a @ W.T + b
            if l < len(weights) - 1:
                a = np.maximum(a, 0)
        a = a.astype(np.float64)
        a -= a.max(axis=1, keepdims=True)
        total += np.mean(np.log(np.exp(a).sum(1)) - a[np.arange(len(y)), y])
    return float(total / len(sets))


PROBLEMS = {"harmonic": Harmonic, "classifier": Classifier, "small": Small}


def make(record: dict):
    """A problem from ``{"problem": name, **settings}``."""
    settings = dict(record)
    return PROBLEMS[settings.pop("problem")](**settings)
