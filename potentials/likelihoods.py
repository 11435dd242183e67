"""Likelihoods: how probable the targets are, given a network's outputs.

All are normalised densities, constants included, so that evidences and comparisons of
models mean something.  Sums run over outputs here and over data in the potential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mdnet.errors import PotentialError
from mdnet.kernels.codes import LIKELIHOODS
from mdnet.typing import Array

__all__ = ["Bernoulli", "Categorical", "Gaussian", "Likelihood", "make_likelihood"]


class Likelihood(Protocol):
    """log p(y | outputs), its derivative and its parameters.

    ``outputs`` is (R, n, K); targets, from `targets`, are (n, k) or (R, n, k).  A
    class with an attribute ``kernel``, the pair (code, strength) of
    `mdnet.kernels.pointwise.loss`, runs in the compiled engine.
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


def _real_targets(y: Any, rows: int, outputs: int, name: str) -> Array:
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


@dataclass(frozen=True, slots=True)
class Categorical:
    """Class probabilities by soft-max: log p = z_y - log sum_c e^{z_c}.

    Targets are class numbers 0 .. K-1, one per row.
    """

    @property
    def kernel(self) -> tuple[int, float]:
        """Code and strength in the compiled engine."""
        return LIKELIHOODS["categorical"], 0.0

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Class numbers as (N, 1).

        Raises
        ------
        PotentialError
            Wrong shape, labels that are not integers or outside [0, K).
        """
        y = np.asarray(y)
        if y.shape not in ((rows,), (rows, 1)):
            hint = (
                "; for one-hot rows pass y.argmax(axis=1)"
                if y.shape == (rows, outputs)
                else ""
            )
            raise PotentialError(
                f"y has shape {y.shape}: the categorical likelihood expected one class "
                f"number per row of X, shape ({rows},){hint}"
            )
        y = y.reshape(rows, 1)
        if y.dtype.kind not in "biuf" or not np.array_equal(y, np.floor(y)):
            raise PotentialError(
                f"y (type {y.dtype}) holds labels that are not integers: the "
                f"categorical likelihood expected class numbers 0 to {outputs - 1}; "
                'for real targets use likelihood="gaussian"'
            )
        if y.min() < 0 or y.max() >= outputs:
            raise PotentialError(
                f"y has labels from {y.min():.0f} to {y.max():.0f}: expected 0 to "
                f"{outputs - 1} for a network of {outputs} outputs; relabel with "
                "np.unique(y, return_inverse=True)[1] or widen the last layer"
            )
        return y.astype(np.int64)

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n)."""
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        total = xp.log(xp.exp(shifted).sum(axis=-1))
        hit = self._hits(outputs, targets, xp)
        return xp.where(hit, shifted, 0).sum(axis=-1) - total

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Probabilities minus the one-hot targets."""
        hit = self._hits(outputs, targets, xp)
        return self.predict(outputs, xp) - hit.astype(outputs.dtype)

    def _hits(self, outputs: Array, targets: Array, xp: Any) -> Array:
        return targets == xp.arange(outputs.shape[-1], dtype=targets.dtype)

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Class probabilities, (R, n, K)."""
        weights = xp.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def constant(self, rows: int, outputs: int) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "categorical"}


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Real targets: y ~ N(z, noise^2), independent over outputs.

    Parameters
    ----------
    noise : float
        Standard deviation, > 0, in units of y.

    Raises
    ------
    PotentialError
        If ``noise`` is not a positive finite number.
    """

    noise: float = 1.0

    def __post_init__(self) -> None:
        noise = self.noise
        if (
            isinstance(noise, bool)
            or not isinstance(noise, (int, float, np.integer, np.floating))
            or not (math.isfinite(noise) and noise > 0)
        ):
            raise PotentialError(
                f"noise={noise!r}: expected a standard deviation > 0, e.g. "
                "likelihoods.Gaussian(noise=0.1)"
            )
        object.__setattr__(self, "noise", float(noise))

    @property
    def kernel(self) -> tuple[int, float]:
        """Code and strength in the compiled engine."""
        return LIKELIHOODS["gaussian"], self.noise**-2

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Targets as (N, K)."""
        return _real_targets(y, rows, outputs, "gaussian")

    def log_density(
        self,
        outputs: Array,
        targets: Array,
        xp: Any = np,  # noqa: ARG002
    ) -> Array:
        """Density log p of each row, (R, n)."""
        miss = (outputs - targets) / self.noise
        return -0.5 * (miss * miss).sum(axis=-1) - self.constant(1, outputs.shape[-1])

    def residual(
        self,
        outputs: Array,
        targets: Array,
        xp: Any = np,  # noqa: ARG002
    ) -> Array:
        """(z - y)/noise^2."""
        return (outputs - targets) * self.noise**-2

    def predict(self, outputs: Array, xp: Any = np) -> Array:  # noqa: ARG002
        """Means, (R, n, K)."""
        return outputs

    def constant(self, rows: int, outputs: int) -> float:
        """N K (log noise + log(2 pi)/2)."""
        return rows * outputs * (math.log(self.noise) + 0.5 * math.log(2 * math.pi))

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "gaussian", "noise": self.noise}


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Yes-or-no targets: p(y=1) = 1/(1 + e^{-z}), independent over outputs."""

    @property
    def kernel(self) -> tuple[int, float]:
        """Code and strength in the compiled engine."""
        return LIKELIHOODS["bernoulli"], 0.0

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Targets as (N, K), each 0 or 1.

        Raises
        ------
        PotentialError
            Wrong shape or other values.
        """
        y = _real_targets(y, rows, outputs, "bernoulli")
        if not ((y == 0) | (y == 1)).all():
            raise PotentialError(
                f"y has values from {y.min()} to {y.max()}: the bernoulli likelihood "
                "expected 0 or 1; for several classes use "
                'likelihood="categorical"'
            )
        return y.astype(np.int64)

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n)."""
        soft = xp.maximum(outputs, 0) + xp.log1p(xp.exp(-xp.abs(outputs)))
        return (outputs * targets - soft).sum(axis=-1)

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Probability minus target."""
        return self.predict(outputs, xp) - targets

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Probability of 1, (R, n, K)."""
        e = xp.exp(-xp.abs(outputs))
        return xp.where(outputs < 0, e, 1) / (1 + e)

    def constant(self, rows: int, outputs: int) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "bernoulli"}


def make_likelihood(likelihood: Any) -> Likelihood:
    """Turn a name into a likelihood; leave objects as they are.

    Raises
    ------
    PotentialError
        Unknown name, or an object that lacks a method of `Likelihood`.
    """
    made = {"categorical": Categorical, "gaussian": Gaussian, "bernoulli": Bernoulli}
    if isinstance(likelihood, str) and likelihood in made:
        named: Likelihood = made[likelihood]()
        return named
    wanted = (
        "targets",
        "log_density",
        "residual",
        "predict",
        "constant",
        "describe",
    )
    if isinstance(likelihood, (str, type)) or not all(
        callable(getattr(likelihood, name, None)) for name in wanted
    ):
        raise PotentialError(
            f"likelihood={likelihood!r}: expected one of {', '.join(made)}, or an "
            "object such as likelihoods.Gaussian(noise=0.1)"
        )
    checked: Likelihood = likelihood
    return checked
