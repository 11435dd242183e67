"""Likelihoods of counts and of ordered grades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._checks import positive_integer
from mdnet.potentials._likelihood_base import class_numbers, counts
from mdnet.potentials._prior_scales import positive
from mdnet.potentials.scales import HalfNormal, ScaleLaw
from mdnet.typing import Array

__all__ = ["LearnedCutpoints", "Ordinal", "Poisson"]


@dataclass(frozen=True, slots=True)
class Poisson:
    """Counts: y ~ Poisson(e^z), independent over outputs; log p = y z - e^z - log y!.

    The exposure of a row (its time or area) belongs into the rate: give log exposure
    as an input, or weights.
    """

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Counts and the logarithms of their factorials as (N, 2 K).

        Raises
        ------
        PotentialError
            Wrong shape, negative or fractional values.
        """
        from scipy.special import gammaln

        y = counts(y, rows, outputs)
        return np.concatenate([y, gammaln(y + 1)], axis=1)

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Log p of each row, (R, n)."""
        k = outputs.shape[-1]
        y, log_factorial = targets[..., :k], targets[..., k:]
        return (y * outputs - xp.exp(outputs) - log_factorial).sum(axis=-1)

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Rate minus count."""
        return xp.exp(outputs) - targets[..., : outputs.shape[-1]]

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Rates e^z, (R, n, K)."""
        return xp.exp(outputs)

    def constant(self, rows: int, outputs: int) -> float:  # noqa: ARG002
        """Zero: log y! is part of every row."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "poisson"}


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Ordered grades 0 .. K-1 by cumulative logits of one output z.

    p(y <= k) = 1/(1 + e^(z - c_k)) with cutpoints c_0 < ... < c_{K-2}.

    Parameters
    ----------
    cutpoints : sequence of float, optional
        Fixed cutpoints, increasing, K - 1 of them; None to sample them.
    classes : int, optional
        K >= 2, if cutpoints are sampled.
    scale : float
        Standard deviation of the prior N(0, scale^2) of the first cutpoint.
    gap : ScaleLaw
        Law of every gap c_{k+1} - c_k, the Jacobian of its logarithm included.

    Raises
    ------
    PotentialError
        Neither or both of ``cutpoints`` and ``classes``, or cutpoints that do not
        increase.

    Notes
    -----
    Sampled cutpoints lie in q as "likelihood.cutpoints": c_0, then the logarithms of
    the gaps, so that their order holds by itself.  A bias of the last layer moves all
    cutpoints: only the priors tell them apart.

    References
    ----------
    P. McCullagh, J. R. Stat. Soc. B 42, 109 (1980),
    doi:10.1111/j.2517-6161.1980.tb01109.x.

    Examples
    --------
    >>> from mdnet.potentials.likelihoods import Ordinal
    >>> p = Ordinal(cutpoints=(-1.0, 1.0)).predict(np.zeros((1, 1, 1)))
    >>> p.round(3).tolist()
    [[[0.269, 0.462, 0.269]]]
    """

    cutpoints: Sequence[float] | None = None
    classes: int | None = None
    scale: float = 5.0
    gap: ScaleLaw = field(default_factory=lambda: HalfNormal(2.0))

    def __post_init__(self) -> None:
        example = "likelihoods.Ordinal(classes=5)"
        object.__setattr__(self, "scale", positive(self.scale, example))
        if not isinstance(self.gap, ScaleLaw) or isinstance(self.gap, type):
            raise PotentialError(
                f"gap={self.gap!r}: expected a law such as scales.HalfNormal(2.0)"
            )
        if (self.cutpoints is None) == (self.classes is None):
            raise PotentialError(
                f"cutpoints={self.cutpoints!r}, classes={self.classes!r}: expected "
                f"one of the two, e.g. {example} to sample the cutpoints, or "
                "likelihoods.Ordinal(cutpoints=(-1.0, 0.0, 1.0))"
            )
        if self.cutpoints is None:
            classes = positive_integer("classes", self.classes)
            if classes < 2:
                raise PotentialError(f"classes={classes}: expected at least 2 grades")
            object.__setattr__(self, "classes", classes)
            return
        try:
            cuts = tuple(float(c) for c in self.cutpoints)
        except (TypeError, ValueError):
            cuts = ()
        if not cuts or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
            raise PotentialError(
                f"cutpoints={self.cutpoints!r}: expected increasing finite numbers, "
                "one less than grades, e.g. (-1.0, 0.0, 1.0)"
            )
        object.__setattr__(self, "cutpoints", cuts)

    @property
    def grades(self) -> int:
        """Number K of grades."""
        if self.cutpoints is not None:
            return len(self.cutpoints) + 1
        return self.classes or 0

    def sampled(self) -> LearnedCutpoints | None:
        """Parameters that are sampled with the weights; None if they are fixed."""
        if self.cutpoints is not None:
            return None
        return LearnedCutpoints(self.grades, self.scale, self.gap)

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Grades as (N, 1).

        Raises
        ------
        PotentialError
            A network of several outputs, or labels that are not grades.
        """
        if outputs != 1:
            raise PotentialError(
                f"the network has {outputs} outputs: the ordinal likelihood expected "
                "one, e.g. MLP([inputs, 50, 1])"
            )
        fix = f"{self.grades} grades"
        return class_numbers(y, rows, self.grades, "ordinal", fix)

    def _at(self, xp: Any) -> _Cut:
        if self.cutpoints is None:
            raise PotentialError(
                "the cutpoints are sampled: give them values first, with "
                "likelihood.sampled().at(theta)"
            )
        cuts = xp.asarray([-math.inf, *self.cutpoints, math.inf])
        return _Cut(cuts[None], None)

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Log p of each row, (R, n)."""
        return self._at(xp).log_density(outputs, targets, xp)

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """s(z - c_y) - s(c_{y-1} - z) with s(x) = 1/(1 + e^-x), (R, n, 1)."""
        return self._at(xp).residual(outputs, targets, xp)

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Probabilities of the grades, (R, n, K)."""
        return self._at(xp).predict(outputs, xp)

    def constant(self, rows: int, outputs: int) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        if self.cutpoints is not None:
            return {"name": "ordinal", "cutpoints": list(self.cutpoints)}
        return {
            "name": "ordinal",
            "classes": self.classes,
            "scale": self.scale,
            "gap": self.gap.describe(),
        }


def _sigmoid(x: Array, xp: Any) -> Array:
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, 1) / (1 + e)


def _log_sigmoid(x: Array, xp: Any) -> Array:
    return xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x)))


@dataclass(frozen=True, slots=True)
class _Cut:
    """Cumulative logits at cutpoints (R or 1, K + 1), infinite at both ends.

    With a = c_{y-1} - z and b = c_y - z,
    p = s(b) - s(a) = s(b) s(-a) (1 - e^(a-b)), s(x) = 1/(1 + e^-x), which cancels no
    digits in either tail.
    """

    cuts: Array
    gaps: Array | None

    def _bounds(self, outputs: Array, targets: Array, xp: Any) -> Any:
        cuts = self.cuts.astype(outputs.dtype)[:, None]
        hit = targets == xp.arange(cuts.shape[-1] - 1, dtype=targets.dtype)
        below = xp.where(hit, cuts[..., :-1], 0).sum(axis=-1)
        above = xp.where(hit, cuts[..., 1:], 0).sum(axis=-1)
        z = outputs[..., 0]
        return below - z, above - z, hit

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        a, b, _ = self._bounds(outputs, targets, xp)
        inside = xp.log(-xp.expm1(a - b))
        return _log_sigmoid(b, xp) + _log_sigmoid(-a, xp) + inside

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """s(-b) - s(a)."""
        a, b, _ = self._bounds(outputs, targets, xp)
        return (_sigmoid(-b, xp) - _sigmoid(a, xp))[..., None]

    def parameter_gradient(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        a, b, hit = self._bounds(outputs, targets, xp)
        e = xp.exp(a - b)
        g = e / (1 - e)
        upper = (_sigmoid(-b, xp) + g)[..., None]
        lower = (_sigmoid(a, xp) + g)[..., None]
        # d(-log p)/dc_k: the cut above grade k, and the cut below grade k + 1.
        cuts = xp.where(hit[..., 1:], lower, 0) - xp.where(hit[..., :-1], upper, 0)
        above = xp.flip(xp.cumsum(xp.flip(cuts, axis=-1), axis=-1), axis=-1)
        gaps: Any = self.gaps
        above[..., 1:] *= gaps[:, None]
        return above

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        x = self.cuts.astype(outputs.dtype)[:, None] - outputs
        # Differences of the smaller of s(x) and 1 - s(x) keep the tails' digits.
        low, high = _sigmoid(x, xp), _sigmoid(-x, xp)
        up, down = low[..., 1:] - low[..., :-1], high[..., :-1] - high[..., 1:]
        return xp.where(x[..., :-1] > 0, down, up)


@dataclass(frozen=True, slots=True)
class LearnedCutpoints:
    """Cutpoints sampled with the weights: c_0, then the logarithms of the gaps.

    Parameters
    ----------
    grades : int
        K.
    scale : float
        Of the prior N(0, scale^2) of c_0.
    gap : ScaleLaw
        Law of every gap.
    """

    grades: int
    scale: float
    gap: ScaleLaw

    def parameters(self, outputs: int) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """Name and shape of the cutpoints."""
        return {"likelihood.cutpoints": (self.grades - 1,)}

    def at(self, theta: Array, xp: Any = np) -> _Cut:
        """Likelihood at theta (R, K - 1)."""
        gaps = xp.exp(theta[:, 1:])
        steps = xp.concatenate([theta[:, :1], gaps], axis=1)
        edge = xp.full_like(theta[:, :1], math.inf)
        cuts = xp.concatenate([-edge, xp.cumsum(steps, axis=1), edge], axis=1)
        return _Cut(cuts, gaps)

    def energy(self, theta: Array, xp: Any = np) -> Array:
        """-log prior of theta, (R,) float64."""
        theta = theta.astype(np.float64)
        x = theta[:, 0] / self.scale
        first = 0.5 * x * x + math.log(self.scale) + 0.5 * math.log(2 * math.pi)
        return first + self.gap.energy(theta[:, 1:], xp).sum(axis=1)

    def slope(self, theta: Array, xp: Any = np) -> Array:
        """Gradient of `energy`, (R, K - 1)."""
        first = theta[:, :1] * self.scale**-2
        return xp.concatenate([first, self.gap.slope(theta[:, 1:], xp)], axis=1)

    def draw(self, outputs: int, replicas: int, seed: int = 0) -> Array:  # noqa: ARG002
        """Independent draws, (R, K - 1) float64."""
        from scipy.special import ndtri

        rows = np.arange(replicas)
        u = random.uniforms(seed, rows, 1, random.STREAM_INITIAL, self.grades - 1)
        gaps = self.gap.quantile(u[:, 1:])
        return np.concatenate([self.scale * ndtri(u[:, :1]), np.log(gaps)], axis=1)

    def start(self, outputs: int) -> Array:  # noqa: ARG002
        """Median gaps, with the cutpoints centred at zero, (K - 1,)."""
        gap = float(self.gap.quantile(0.5))
        first = -0.5 * gap * (self.grades - 2)
        return np.array([first, *[math.log(gap)] * (self.grades - 2)])
