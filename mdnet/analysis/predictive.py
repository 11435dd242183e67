r"""Predictions averaged over the ensemble, their uncertainty, and how good they are.

With p_s(y|x) the prediction of sample s, the posterior predictive is the average
:math:`\bar p = \langle p_s \rangle`: samples of a run already follow the posterior, and
none is weighted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mdnet.analysis.records import BurnIn, burn_in_step, frame_count, frame_steps
from mdnet.errors import PotentialError, TrajectoryError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["Predictive", "as_classes", "output_kind", "predictive"]

F = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Predictive:
    """Averaged predictions on n inputs.

    Attributes
    ----------
    mean : ndarray, (n, outputs)
        Averaged probabilities, or averaged outputs of a regression.
    std : ndarray, (n, outputs)
        Spread over draws: what the weights do not agree on.
    stderr : ndarray, (n, outputs)
        Standard error of ``mean`` from the scatter of replicas (NaN with one).
    entropy : ndarray, (n,) or None
        Of ``mean``, in nats: the total uncertainty.  None for a regression.
    expected_entropy : ndarray, (n,) or None
        Average entropy of the draws: noise in the data.
    mutual_information : ndarray, (n,) or None
        Their difference, >= 0: what more data would settle.
    kind : {"probabilities", "values"}
    n_draws : int
        Frames times replicas averaged.
    start : int
        First step used.
    warnings : tuple of str
    """

    mean: F
    std: F
    stderr: F
    entropy: F | None
    expected_entropy: F | None
    mutual_information: F | None
    kind: Literal["probabilities", "values"]
    n_draws: int
    start: int
    warnings: tuple[str, ...] = ()

    @property
    def variance(self) -> F:
        """Variance over draws, (n, outputs); a regression's noise comes on top."""
        return np.asarray(self.std**2)

    @property
    def label(self) -> F:
        """Most probable class, (n,)."""
        return np.asarray(self.mean.argmax(-1))


def _entropy(p: F) -> F:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-np.where(p > 0, p * np.log(p), 0.0).sum(-1))


def as_classes(p: F) -> F:
    """Turn a single probability of class 1 into the pair (1 - p, p)."""
    return np.concatenate((1.0 - p, p), -1) if p.shape[-1] == 1 else p


def predictive(
    run: Run,
    X_new: Any,
    potential: Any,
    burn_in: BurnIn = "auto",
    max_draws: int = 1000,
    *,
    kind: Literal["auto", "probabilities", "values"] = "auto",
    batch: int = 1024,
) -> Predictive:
    r"""Average ``potential.predict`` over stored frames and replicas.

    .. math::
        \underbrace{H[\bar p]}_{total} = \underbrace{\langle H[p_s] \rangle}_{noise}
        + \underbrace{I}_{\text{mutual information}}

    Parameters
    ----------
    run : Run
        With stored positions.
    X_new : array, (n, ...)
    potential : Potential
        ``predict(q, X)`` gives (R, n, outputs).
    burn_in : "auto", int or float
        Found from the potential energy; or a number of steps; or a fraction < 1.
    max_draws : int
        Evenly spaced frames are used until frames times replicas reach this.
    kind : {"auto", "probabilities", "values"}
        "auto" takes rows in [0, 1] that sum to one (or one output in [0, 1] of a
        Bernoulli likelihood) for probabilities.
    batch : int
        Inputs per call, which bounds the memory.

    Returns
    -------
    Predictive

    Raises
    ------
    TrajectoryError
        Without stored positions.
    PotentialError
        Without ``predict``, or with nothing left after the burn-in.

    Examples
    --------
    >>> p = predictive(run, X_test, potential=U)                   # doctest: +SKIP
    >>> accuracy(p, y_test)                                        # doctest: +SKIP
    """
    if not callable(getattr(potential, "predict", None)):
        raise PotentialError(
            f"potential={type(potential).__name__} has no predict(q, X): pass the "
            "Posterior that was sampled"
        )
    count = frame_count(run)
    if count == 0:
        raise TrajectoryError(
            "predictive() needs stored positions: "
            "sim.run(..., trajectory=..., every=...)"
        )
    start, notes = burn_in_step(run, burn_in)
    known = frame_steps(run)
    if known is None:
        if not isinstance(burn_in, str) and burn_in:
            notes += (
                "the steps of the frames are not recorded: burn-in by their share",
            )
        share = burn_in if isinstance(burn_in, float) else 0.0
        rows = np.arange(int(share * count), count)
    else:
        rows = np.flatnonzero(known[0] >= start)
    if not rows.size:
        raise PotentialError(f"burn_in={burn_in!r} leaves no stored frame of {count}")
    frames = max(1, min(len(rows), max_draws // max(run.replicas, 1)))
    rows = rows[np.round(np.linspace(0, len(rows) - 1, frames)).astype(int)]
    x = np.asarray(X_new)
    parts = [
        _average(run, x[i : i + batch], potential, rows, kind)
        for i in range(0, len(x), batch)
    ]
    if not parts:
        raise PotentialError("X_new is empty: expected (n, ...) with n >= 1")
    kinds = {part.kind for part in parts}
    if len(kinds) > 1:
        raise PotentialError(
            "some outputs look like probabilities and some do not; pass kind="
        )

    def join(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    return Predictive(
        **{name: join(name) for name in Predictive.__slots__[:6]},
        kind=parts[0].kind,
        n_draws=parts[0].n_draws,
        start=start,
        warnings=notes,
    )


def _average(run: Run, x: F, potential: Any, rows: F, kind: str) -> Predictive:
    """Moments over frames and replicas of the predictions on one batch of inputs."""
    total = square = surprise = np.zeros(0)
    positions = run.positions
    for i, row in enumerate(rows):
        q = np.asarray(positions[int(row)])
        out = potential.predict(q, x)
        p = np.asarray(out.get() if hasattr(out, "get") else out, np.float64)
        if p.ndim == 2:
            p = p[..., None]
        if i == 0:
            if kind == "auto":
                kind = output_kind(p, potential)
            total, square = np.zeros_like(p), np.zeros_like(p)
            surprise = np.zeros(p.shape[:2])
        total += p
        square += p**2
        if kind == "probabilities":
            surprise += _entropy(as_classes(p))
    draws = len(rows) * total.shape[0]
    replica = total / len(rows)
    mean = replica.mean(0)
    variance = np.maximum(square.sum(0) / draws - mean**2, 0.0)
    stderr = np.full_like(mean, np.nan)
    if len(replica) > 1:
        stderr = replica.std(0, ddof=1) / np.sqrt(len(replica))
    spread = np.sqrt(variance * draws / max(draws - 1, 1))
    if kind != "probabilities":
        return Predictive(mean, spread, stderr, None, None, None, "values", draws, 0)
    whole = _entropy(as_classes(mean))
    expected = surprise.mean(0) / len(rows)
    return Predictive(
        mean,
        spread,
        stderr,
        whole,
        expected,
        np.maximum(whole - expected, 0.0),
        "probabilities",
        draws,
        0,
    )


def output_kind(p: F, potential: Any) -> str:
    """Whether predictions (R, n, outputs) are "probabilities" or "values"."""
    inside = bool((p >= 0).all() and (p <= 1 + 1e-6).all())
    if p.shape[-1] > 1:
        sums = bool(np.abs(p.sum(-1) - 1).max() < 1e-4)
        return "probabilities" if inside and sums else "values"
    likelihood = getattr(potential, "likelihood", "")
    name = likelihood if isinstance(likelihood, str) else type(likelihood).__name__
    return "probabilities" if inside and "bernoulli" in name.lower() else "values"
