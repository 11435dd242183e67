"""How good predicted probabilities are: accuracy, log-likelihood, Brier, calibration.

Each takes probabilities (n, classes), or what `mdnet.analysis.predictive` returned, and
integer labels (n,); errors are over the n examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.analysis.results import Estimate
from mdnet.errors import PotentialError

__all__ = ["Calibration", "accuracy", "brier", "calibration", "log_likelihood"]

F = np.ndarray[Any, Any]


def _checked(p: Any, y: Any) -> tuple[F, F]:
    """Probabilities (n, classes) and labels (n,)."""
    a = np.asarray(getattr(p, "mean", p) if hasattr(p, "n_draws") else p, np.float64)
    labels = np.asarray(y)
    if a.ndim == 2 and a.shape[1] == 1:
        a = a[:, 0]
    if a.ndim == 1:
        a = np.stack((1.0 - a, a), -1)
    if a.ndim != 2 or a.shape[0] == 0 or labels.shape != (a.shape[0],):
        raise PotentialError(
            f"p has shape {a.shape} and y {labels.shape}: expected probabilities "
            "(n, classes), or (n,) of class 1, and labels (n,)"
        )
    if (a < -1e-9).any() or np.abs(a.sum(1) - 1).max() > 1e-3:
        raise PotentialError(
            f"rows of p sum to {a.sum(1).min():.3g}..{a.sum(1).max():.3g}: expected "
            "probabilities that sum to one, not logits or outputs of a regression"
        )
    whole = labels.astype(np.int64)
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= a.shape[1]:
        raise PotentialError(
            f"y runs from {labels.min()} to {labels.max()}: expected integers in "
            f"[0, {a.shape[1]})"
        )
    return a, whole


def _mean(x: F, method: str, warnings: tuple[str, ...] = ()) -> Estimate:
    n = len(x)
    error = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Estimate(float(x.mean()), error, float(n), method, warnings)


def accuracy(p: Any, y: Any) -> Estimate:
    """Share of examples whose most probable class is right.

    Examples
    --------
    >>> print(accuracy([[0.9, 0.1], [0.4, 0.6]], [0, 0]).value)
    0.5
    """
    a, labels = _checked(p, y)
    return _mean((a.argmax(1) == labels).astype(float), "accuracy")


def log_likelihood(p: Any, y: Any) -> Estimate:
    """Mean log probability of the right class, in nats (0 is perfect).

    Probabilities below 1e-300 count as that, with a warning.
    """
    a, labels = _checked(p, y)
    right = a[np.arange(len(labels)), labels]
    floor = right < 1e-300
    notes = (
        (f"{int(floor.sum())} right classes had probability 0",) if floor.any() else ()
    )
    return _mean(np.log(np.maximum(right, 1e-300)), "log-likelihood per example", notes)


def brier(p: Any, y: Any) -> Estimate:
    """Mean squared distance of the probabilities from the right corner: 0 to 2.

    References
    ----------
    G. W. Brier, Mon. Weather Rev. 78, 1 (1950),
    doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    a, labels = _checked(p, y)
    return _mean(((a - np.eye(a.shape[1])[labels]) ** 2).sum(1), "Brier score")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence against accuracy.

    Attributes
    ----------
    value : float
        Expected calibration error: mean |accuracy - confidence| over bins, by count.
    stderr : float
        By bootstrap over examples.
    largest : float
        Largest gap of any bin.
    edges : ndarray, (bins + 1,)
    confidence, accuracy : ndarray, (bins,)
        Means in each bin; NaN where it is empty.
    count : ndarray, (bins,)
    warnings : tuple of str
    """

    value: float
    stderr: float
    largest: float
    edges: F
    confidence: F
    accuracy: F
    count: F
    warnings: tuple[str, ...] = ()

    @property
    def ece(self) -> float:
        """Expected calibration error, as ``value``."""
        return self.value

    def __float__(self) -> float:
        return self.value


def calibration(p: Any, y: Any, bins: int = 15) -> Calibration:
    """Reliability of the confidence in the most probable class.

    Parameters
    ----------
    p : (n, classes) probabilities or Predictive
    y : (n,) labels
    bins : int
        Bins of equal width in confidence.

    Returns
    -------
    Calibration
        Its error is biased upwards by the noise of each bin: a perfectly calibrated
        model reads about sqrt(bins / n) / 3, not 0.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural
    networks", ICML 2017, arXiv:1706.04599.
    """
    if bins < 1:
        raise PotentialError(f"bins={bins!r}: expected 1 or more")
    a, labels = _checked(p, y)
    confidence = a.max(1)
    right = (a.argmax(1) == labels).astype(float)
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Right-closed bins, so that a confidence of exactly one falls in the last.
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    sums = np.bincount(which, confidence, bins), np.bincount(which, right, bins)
    with np.errstate(invalid="ignore"):
        mean_confidence, mean_right = sums[0] / count, sums[1] / count
    gaps = np.abs(sums[1] - sums[0]) / len(labels)
    rng = np.random.default_rng(0)
    again = np.empty(100)
    for b in range(again.size):
        rows = rng.integers(0, len(labels), len(labels))
        net = np.bincount(which[rows], (right - confidence)[rows], bins)
        again[b] = np.abs(net).sum() / len(labels)
    few = int((count < 10).sum() - (count == 0).sum())
    notes = (f"{few} bins hold fewer than ten examples",) if few else ()
    return Calibration(
        value=float(gaps.sum()),
        stderr=float(again.std(ddof=1)),
        largest=float(np.nanmax(np.abs(mean_right - mean_confidence))),
        edges=edges,
        confidence=mean_confidence,
        accuracy=mean_right,
        count=count,
        warnings=notes,
    )
