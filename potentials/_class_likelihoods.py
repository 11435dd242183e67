"""Likelihoods of classes: categorical, mislabelled, and independent yes or no."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.kernels.codes import LIKELIHOODS
from mdnet.potentials._likelihood_base import class_numbers, real_targets
from mdnet.typing import Array

__all__ = ["Bernoulli", "Categorical", "LabelFlip", "flip_labels"]


def _fraction(name: str, value: Any, example: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not 0 <= value < 1
    ):
        raise PotentialError(
            f"{name}={value!r}: expected a fraction in [0, 1), e.g. {example}"
        )
    return float(value)


def _class_targets(y: Any, rows: int, outputs: int) -> Array:
    fix = f"a network of {outputs} outputs (or widen the last layer)"
    return class_numbers(y, rows, outputs, "categorical", fix)


def _hits(outputs: Array, targets: Array, xp: Any) -> Array:
    """Whether class c is the target, (R, n, K) or (n, K)."""
    return targets == xp.arange(outputs.shape[-1], dtype=targets.dtype)


def _soft_max(outputs: Array, xp: Any) -> Array:
    weights = xp.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _log_chance(outputs: Array, targets: Array, xp: Any) -> Array:
    """Logarithm of the soft-max of the target's class, (R, n)."""
    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    total = xp.log(xp.exp(shifted).sum(axis=-1))
    hit = _hits(outputs, targets, xp)
    return xp.where(hit, shifted, 0).sum(axis=-1) - total


@dataclass(frozen=True, slots=True)
class Categorical:
    """Class probabilities by soft-max: log p = z_y - log sum_c e^{z_c}.

    Targets are class numbers 0 .. K-1, one per row.

    Parameters
    ----------
    label_smoothing : float
        e in [0, 1): the row's term is (1 - e) log p_y + (e/K) sum_c log p_c.  With
        e > 0 this is a cross entropy and **not** the logarithm of a density: it does
        not sum to one over y.  For labels that may be wrong use `LabelFlip`.

    Raises
    ------
    PotentialError
        If ``label_smoothing`` is not in [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        example = "likelihoods.Categorical(label_smoothing=0.1)"
        checked = _fraction("label_smoothing", self.label_smoothing, example)
        object.__setattr__(self, "label_smoothing", checked)

    @property
    def kernel(self) -> tuple[int, float]:
        """Code and strength in the compiled engine."""
        if self.label_smoothing:
            raise AttributeError("no compiled form with label smoothing")
        return LIKELIHOODS["categorical"], 0.0

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Class numbers as (N, 1).

        Raises
        ------
        PotentialError
            Wrong shape, labels that are not integers or outside [0, K).
        """
        return _class_targets(y, rows, outputs)

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n); see ``label_smoothing``."""
        hit = _log_chance(outputs, targets, xp)
        e = self.label_smoothing
        if not e:
            return hit
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        total = xp.log(xp.exp(shifted).sum(axis=-1))
        return (1 - e) * hit + e * (shifted.mean(axis=-1) - total)

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Probabilities minus the (smoothed) one-hot targets."""
        e = self.label_smoothing
        hit = _hits(outputs, targets, xp).astype(outputs.dtype)
        if e:
            hit = (1 - e) * hit + e / outputs.shape[-1]
        return self.predict(outputs, xp) - hit

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Class probabilities, (R, n, K)."""
        return _soft_max(outputs, xp)

    def constant(self, rows: int, outputs: int) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        smoothed = {"label_smoothing": self.label_smoothing}
        return {"name": "categorical"} | (smoothed if self.label_smoothing else {})


@dataclass(frozen=True, slots=True)
class LabelFlip:
    """Classes whose labels are wrong with a known chance.

    With chance ``rate`` e the label is one of the K - 1 other classes, so that
    p(y) = (1 - e) p_y + e (1 - p_y)/(K - 1), p the soft-max of the outputs: a density
    over y whose logarithm is bounded below by log(e/(K - 1)).

    Parameters
    ----------
    rate : float
        e in [0, (K - 1)/K).

    Raises
    ------
    PotentialError
        If ``rate`` is not in [0, 1); with the data, if labels would say nothing.
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        checked = _fraction("rate", self.rate, "likelihoods.LabelFlip(rate=0.1)")
        object.__setattr__(self, "rate", checked)

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Class numbers as (N, 1).

        Raises
        ------
        PotentialError
            Wrong shape, labels that are not integers or outside [0, K), or a rate at
            which labels carry no information.
        """
        if self.rate >= (outputs - 1) / outputs:
            raise PotentialError(
                f"rate={self.rate}: with {outputs} classes a label says nothing at "
                f"{(outputs - 1) / outputs:.3g}: expected less, e.g. "
                "likelihoods.LabelFlip(rate=0.1)"
            )
        return _class_targets(y, rows, outputs)

    def _mixture(self, classes: int) -> tuple[float, float]:
        """Logarithms of alpha and beta in p(y) = alpha p_y + beta."""
        beta = self.rate / (classes - 1)
        return math.log(1 - self.rate - beta), math.log(beta) if beta else -math.inf

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row's label, (R, n)."""
        alpha, beta = self._mixture(outputs.shape[-1])
        return xp.logaddexp(alpha + _log_chance(outputs, targets, xp), beta)

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Chance that the label is true times what `Categorical` has."""
        alpha, beta = self._mixture(outputs.shape[-1])
        known = alpha + _log_chance(outputs, targets, xp)
        true = xp.exp(known - xp.logaddexp(known, beta))
        hit = _hits(outputs, targets, xp).astype(outputs.dtype)
        return true[..., None] * (_soft_max(outputs, xp) - hit)

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Probabilities of the true classes (not of their labels), (R, n, K)."""
        return _soft_max(outputs, xp)

    def constant(self, rows: int, outputs: int) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "label_flip", "rate": self.rate}


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
        y = real_targets(y, rows, outputs, "bernoulli")
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


def flip_labels(
    y: Any,
    fraction: float,
    classes: int | None = None,
    seed: int = 0,
    to: str = "other",
) -> Array:
    """Corrupt a stated fraction of class labels, for random-label experiments.

    Exactly round(fraction x N) rows are chosen, without replacement; which rows and
    which labels are functions of ``seed`` alone.

    Parameters
    ----------
    y : (N,) int array
        Class numbers 0 .. K-1.
    fraction : float
        In [0, 1].
    classes : int, optional
        K; by default max(y) + 1.
    seed : int
        Key of the random counters.
    to : {"other", "any"}
        Draw the new label from the K - 1 other classes, so that every chosen label is
        wrong, or from all K, so that ``fraction=1`` leaves labels that are
        independent of the inputs.

    Returns
    -------
    ndarray, (N,) int64
        A copy with new labels.

    Raises
    ------
    PotentialError
        Labels that are not class numbers, or an argument out of range.

    References
    ----------
    C. Zhang, S. Bengio, M. Hardt, B. Recht, O. Vinyals, ICLR 2017, arXiv:1611.03530.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet.potentials.likelihoods import flip_labels
    >>> y = np.zeros(10, int)
    >>> int((flip_labels(y, 0.3, classes=4) != y).sum())
    3
    """
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or y.dtype.kind not in "biu" or y.min() < 0:
        raise PotentialError(
            f"y has shape {y.shape} and type {y.dtype}: expected class numbers 0, 1, "
            "... as a one-dimensional array of integers"
        )
    count = int(y.max()) + 1 if classes is None else classes
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
        raise PotentialError(f"classes={classes!r}: expected an integer >= 2")
    if count < 2 or y.max() >= count:
        raise PotentialError(
            f"classes={count}: expected at least 2 and more than the largest label, "
            f"{y.max()}"
        )
    if not 0 <= fraction <= 1:
        raise PotentialError(f"fraction={fraction!r}: expected a number in [0, 1]")
    if to not in ("other", "any"):
        raise PotentialError(f"to={to!r}: expected 'other' or 'any'")
    n = y.size
    order = np.argsort(random.bits(seed, 0, 0, random.STREAM_LABELS, n), kind="stable")
    chosen = order[: round(fraction * n)]
    u = random.uniforms(seed, 0, 1, random.STREAM_LABELS, n)[chosen]
    out = y.astype(np.int64)
    if to == "any":
        out[chosen] = np.floor(u * count).astype(np.int64)
    else:
        shift = 1 + np.floor(u * (count - 1)).astype(np.int64)
        out[chosen] = (out[chosen] + shift) % count
    return out
