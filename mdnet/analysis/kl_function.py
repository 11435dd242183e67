r"""Relaxation in function space: divergence between predictive distributions.

By the data-processing inequality the divergence between the predictions that two
ensembles of weights make for one input is a lower bound on that between the ensembles;
so is its mean over inputs.  It does not see permutations of hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.kl_estimators import (
    gaussian_estimated_diagonal,
    resampled_errors,
)
from mdnet.analysis.kl_sources import spaced, tail_rows
from mdnet.analysis.predictive import as_classes, output_kind
from mdnet.analysis.records import frame_count, frame_steps
from mdnet.analysis.results import Estimate
from mdnet.errors import PotentialError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["kl_predictive", "predictive_relaxation"]

F = np.ndarray[Any, Any]
_TINY = 1e-12


def _probabilities(p: Any, name: str) -> F:
    a = np.asarray(p, np.float64)
    a = a[None] if a.ndim == 2 else a
    if a.ndim != 3 or a.size == 0 or (a < -1e-9).any():
        raise PotentialError(
            f"{name} has shape {np.shape(p)}: expected probabilities >= 0, "
            "(n, classes) or (R, n, classes)"
        )
    if np.abs(a.sum(-1) - 1).max() > 1e-3:
        raise PotentialError(
            f"{name}: rows sum to {a.sum(-1).min():.3g}..{a.sum(-1).max():.3g}; "
            "expected probabilities of classes, as U.predict(q, X) gives"
        )
    return a


def _divergence(p: F, r: F) -> F:
    """Mean over inputs of KL between rows of (..., n, C)."""
    safe = np.maximum(r, _TINY)
    return np.asarray(
        np.where(p > 0, p * np.log(np.maximum(p, _TINY) / safe), 0.0).sum(-1).mean(-1)
    )


def _without_each(a: F) -> F:
    """Means over axis 0 with each row left out in turn."""
    return np.asarray((a.sum(0) - a) / (len(a) - 1))


def kl_predictive(p_t: Any, p_ref: Any) -> Estimate:
    r"""Divergence between predictive distributions, averaged over inputs.

    .. math:: \frac1n \sum_x \sum_c \bar p_t(c|x)
              \ln \frac{\bar p_t(c|x)}{\bar p_{eq}(c|x)}

    with averages over replicas.  The bias of a finite number of replicas is removed,
    and the error found, by the jackknife over replicas.

    Parameters
    ----------
    p_t, p_ref : array_like, (R, n, classes) or (n, classes)
        Probabilities on the same n inputs; without a replica axis they are taken as
        exact.

    Returns
    -------
    Estimate
        ``value`` in nats, a lower bound on the divergence of the weights.

    Raises
    ------
    PotentialError
        Rows that are not probabilities, or inputs and classes that differ.

    Examples
    --------
    >>> float(kl_predictive([[0.5, 0.5]], [[0.5, 0.5]]))
    0.0
    """
    p, r = _probabilities(p_t, "p_t"), _probabilities(p_ref, "p_ref")
    if p.shape[1:] != r.shape[1:]:
        raise PotentialError(
            f"p_t is {p.shape} and p_ref {r.shape}: expected the same "
            "inputs and classes"
        )
    value = float(_divergence(p.mean(0), r.mean(0)))
    bias = variance = 0.0
    for a, b, first in ((p, r, True), (r, p, False)):
        n = len(a)
        if n < 2:
            continue
        left, whole = _without_each(a), b.mean(0)
        each = _divergence(left, whole) if first else _divergence(whole, left)
        bias += (n - 1) * float(each.mean() - value)
        variance += (n - 1) * float(each.var())
    exact = len(p) < 2 and len(r) < 2
    return Estimate(
        value - bias,
        0.0 if exact else float(np.sqrt(variance)),
        float(len(p)),
        "predictive distributions, jackknife over replicas",
        ("a lower bound on the divergence between the weights",),
    )


@dataclass(frozen=True, slots=True)
class _Relaxation:
    times: F
    value: F
    stderr: F
    d: int
    n: int
    warnings: tuple[str, ...]


def predictive_relaxation(
    run: Run, potential: Any, inputs: Any, part: float, most: int
) -> _Relaxation:
    """Divergence of predictions at each frame from those of the last part.

    Rows that are probabilities are compared by `kl_predictive`; other outputs as
    Gaussian coordinates, one by one.
    """
    count = frame_count(run)
    if count < 2:
        raise PotentialError("the run stored fewer than two frames of positions")
    rows, tail = spaced(count, min(most, 100)), tail_rows(count, part, 25)
    known = frame_steps(run)
    times = np.arange(count, dtype=np.float64) if known is None else known[1]

    positions = run.positions

    def predict(row: int) -> F:
        out = potential.predict(np.asarray(positions[int(row)]), inputs)
        return np.asarray(out.get() if hasattr(out, "get") else out, np.float64)

    end = np.stack([predict(row) for row in tail])
    replicas, width = end.shape[1], int(np.prod(end.shape[2:]))
    probable = output_kind(end.reshape(-1, *end.shape[2:]), potential)
    notes = ("a lower bound: predictions on the inputs given, averaged over them",)
    if probable == "probabilities":
        final = as_classes(end.mean(0))
        found = [kl_predictive(as_classes(predict(row)), final) for row in rows]
        value = np.array([float(f) for f in found])
        error = np.array([float(f.stderr) for f in found])
    else:
        notes = ("outputs compared as independent Gaussian coordinates",)
        data = np.stack([predict(row).reshape(replicas, width) for row in rows])
        reference = end.reshape(-1, width)
        value = gaussian_estimated_diagonal(data, reference)
        error = resampled_errors(gaussian_estimated_diagonal, data, reference, 100, 0)
    return _Relaxation(times[rows], value, error, width, replicas, notes)
