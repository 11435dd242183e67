"""What a likelihood is, and the checks of targets that several of them share."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from mdnet.errors import PotentialError
from mdnet.typing import Array

__all__ = [
    "BoundLikelihood",
    "Likelihood",
    "SampledParameters",
    "class_numbers",
    "counts",
    "real_targets",
]


class Likelihood(Protocol):
    """log p(y | outputs), its derivative and its parameters.

    ``outputs`` is (R, n, K); targets, from `targets`, are (n, k) or (R, n, k).  A
    class with an attribute ``kernel``, the pair (code, strength) of
    `mdnet.kernels.pointwise.loss`, runs in the compiled engine.  One with a method
    ``sampled`` that returns `SampledParameters` adds parameters of its own to q.
    """

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Check ``y`` and return it as (N, k)."""

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n)."""

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """d(-log p)/d(outputs), (R, n, K)."""

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Parameters of the predictive distribution, (R, n, K)."""

    def constant(self, rows: int, outputs: int) -> float:
        """Part of -log p of all data that no weight changes."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


class BoundLikelihood(Protocol):
    """A likelihood given the values of its own parameters, one set a replica."""

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n)."""

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """d(-log p)/d(outputs), (R, n, K)."""

    def parameter_gradient(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """d(-log p)/d(theta) of each row, (R, n, m)."""

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Parameters of the predictive distribution, (R, n, K)."""


class SampledParameters(Protocol):
    """Parameters theta (R, m) of a likelihood that are sampled with the weights.

    One with an attribute ``core``, a compiled likelihood L0 without parameters, and a
    method ``terms`` (see `mdnet.potentials._real_likelihoods.LearnedScale`) obeys
    -log p = a(theta) (-log L0) + b(theta), and runs in the compiled engine.
    """

    def parameters(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of theta, in order."""

    def at(self, theta: Array, xp: Any = np) -> BoundLikelihood:
        """Likelihood at these values."""

    def energy(self, theta: Array, xp: Any = np) -> Array:
        """-log prior of theta, (R,) float64, constants included."""

    def slope(self, theta: Array, xp: Any = np) -> Array:
        """Gradient of `energy`, (R, m)."""

    def draw(self, outputs: int, replicas: int, seed: int = 0) -> Array:
        """Independent draws from the prior of theta, (R, m) float64."""

    def start(self, outputs: int) -> Array:
        """Theta to start from, (m,)."""


def real_targets(y: Any, rows: int, outputs: int, name: str) -> Array:
    """Check real targets and return them as (N, K)."""
    y = np.asarray(y)
    shape = y.shape
    if y.ndim == 1 and outputs == 1:
        y = y[:, None]
    if y.shape != (rows, outputs):
        raise PotentialError(
            f"y has shape {shape}: the {name} likelihood expected ({rows}, {outputs}), "
            "one row per row of X and one column per output of the network"
        )
    if y.dtype.kind not in "biuf" or not np.isfinite(y).all():
        raise PotentialError(
            f"y (type {y.dtype}) holds values that are not finite real numbers: clean "
            "the data first, e.g. keep = np.isfinite(y)"
        )
    return y


def class_numbers(y: Any, rows: int, classes: int, name: str, fix: str) -> Array:
    """Check class numbers 0 .. K-1 and return them as (N, 1).

    ``fix`` is what to do about labels beyond the last class.
    """
    y = np.asarray(y)
    if y.shape not in ((rows,), (rows, 1)):
        hint = (
            "; for one-hot rows pass y.argmax(axis=1)"
            if y.shape == (rows, classes)
            else ""
        )
        raise PotentialError(
            f"y has shape {y.shape}: the {name} likelihood expected one class "
            f"number per row of X, shape ({rows},){hint}"
        )
    y = y.reshape(rows, 1)
    if y.dtype.kind not in "biuf" or not np.array_equal(y, np.floor(y)):
        raise PotentialError(
            f"y (type {y.dtype}) holds labels that are not integers: the "
            f"{name} likelihood expected class numbers 0 to {classes - 1}; "
            'for real targets use likelihood="gaussian"'
        )
    if y.min() < 0 or y.max() >= classes:
        raise PotentialError(
            f"y has labels from {y.min():.0f} to {y.max():.0f}: expected 0 to "
            f"{classes - 1} for {fix}; relabel with "
            "np.unique(y, return_inverse=True)[1]"
        )
    return y.astype(np.int64)


def counts(y: Any, rows: int, outputs: int) -> Array:
    """Check counts 0, 1, 2, ... and return them as (N, K) float64."""
    y = real_targets(y, rows, outputs, "poisson")
    if (y < 0).any() or not np.array_equal(y, np.floor(y)):
        raise PotentialError(
            f"y has values from {y.min()} to {y.max()}: the poisson likelihood "
            "expected counts 0, 1, 2, ...; for real targets use "
            'likelihood="gaussian"'
        )
    return y.astype(np.float64)
