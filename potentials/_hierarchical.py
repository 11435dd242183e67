"""Priors whose scales are unknown and sampled with the weights.

Scales live in q as logarithms, in tensors of their own after the weights
("prior.0.weight.log_scale"), each with a law from `mdnet.potentials.scales` that
includes the Jacobian of the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._prior_scales import check_names, positive
from mdnet.potentials.scales import HalfCauchy, HalfNormal, ScaleLaw
from mdnet.typing import Array, Layout

__all__ = ["HierarchicalGaussianPrior", "HorseshoePrior", "SampledPrior"]

_HALF_LOG = 0.5 * math.log(2 * math.pi)
_SCALES = 2  # step of the counters that draws of scales use; weights use step 0


class SampledPrior(Protocol):
    """-log p(q | theta) - log p(theta) with parameters theta (R, m) of its own."""

    def check(self, layout: Layout) -> None:
        """Raise if the prior does not fit the tensors of ``layout``."""

    def parameters(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Names and shapes of theta, in order."""

    def joint_energy(
        self, q: Array, theta: Array, layout: Layout, xp: Any = np
    ) -> Array:
        """Energy of weights and theta, (R,) float64, constants included."""

    def joint_gradient(
        self, q: Array, theta: Array, layout: Layout, xp: Any = np
    ) -> tuple[Array, Array]:
        """Gradients of `joint_energy` by q (R, n) and by theta (R, m)."""

    def joint_draw(
        self, layout: Layout, replicas: int, seed: int = 0
    ) -> tuple[Array, Array]:
        """Independent draws of weights (R, n) and theta (R, m), float64."""

    def start(self, layout: Layout) -> Array:
        """Theta to start from, (m,): the medians of the laws."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


def _check_law(law: Any, example: str) -> ScaleLaw | float:
    if isinstance(law, ScaleLaw) and not isinstance(law, type):
        return law
    if isinstance(law, (int, float, np.integer, np.floating)):
        return positive(law, example)
    raise PotentialError(
        f"scale={law!r}: expected a law of a scale such as scales.HalfNormal(1.0), a "
        f"number for a fixed scale, or a mapping of them, e.g. {example}"
    )


@dataclass(frozen=True, slots=True)
class HierarchicalGaussianPrior:
    """Normal weights whose standard deviations, one a tensor, are sampled.

    -log p = sum over tensors of |q_t|^2/2 s_t^2 + n_t (log s_t + log(2 pi)/2)
    + E(log s_t), with E the law of the scale in its logarithm.

    Parameters
    ----------
    scale : ScaleLaw or mapping
        Law of all scales, or {tensor name: law, or number for a fixed scale}.

    Raises
    ------
    PotentialError
        Not a law, or a mapping that does not name every tensor.

    Notes
    -----
    The coordinates "prior.<tensor>.log_scale" of q are log s_t.  Given n_t weights,
    log s_t is known to about 1/sqrt(2 n_t); a tensor of few weights leaves a funnel,
    so give it a fixed scale or a law that keeps away from zero.

    Examples
    --------
    >>> from mdnet.potentials import MLP
    >>> from mdnet.potentials.priors import HierarchicalGaussianPrior
    >>> prior = HierarchicalGaussianPrior()
    >>> prior.parameters(MLP([2, 1]).layout)
    {'prior.0.weight.log_scale': (1,), 'prior.0.bias.log_scale': (1,)}
    """

    scale: Any = field(default_factory=HalfNormal)

    def __post_init__(self) -> None:
        example = "HierarchicalGaussianPrior(scale=scales.HalfNormal(1.0))"
        given = self.scale
        checked: Any
        if isinstance(given, Mapping):
            checked = {str(k): _check_law(law, example) for k, law in given.items()}
        else:
            checked = _check_law(given, example)
        object.__setattr__(self, "scale", checked)

    def _of(self, name: str) -> ScaleLaw | float:
        law: ScaleLaw | float = (
            self.scale[name] if isinstance(self.scale, Mapping) else self.scale
        )
        return law

    def check(self, layout: Layout) -> None:
        """Raise if a mapping of scales does not name every tensor."""
        check_names(self.scale, layout)

    def parameters(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the log-scales, in order."""
        return {
            f"prior.{name}.log_scale": (1,)
            for name in layout
            if not isinstance(self._of(name), float)
        }

    def joint_energy(
        self, q: Array, theta: Array, layout: Layout, xp: Any = np
    ) -> Array:
        """Energy of weights (R, n) and log-scales (R, m), (R,) float64."""
        theta = theta.astype(np.float64)
        total = xp.zeros(q.shape[0], np.float64)
        at = 0
        for name, (where, _) in layout.items():
            law, count = self._of(name), where.stop - where.start
            square = xp.square(q[:, where], dtype=np.float64).sum(axis=1)
            if isinstance(law, float):
                total += 0.5 * law**-2 * square + count * (math.log(law) + _HALF_LOG)
                continue
            l = theta[:, at]
            total += 0.5 * xp.exp(-2 * l) * square + count * (l + _HALF_LOG)
            total += law.energy(l, xp)
            at += 1
        return total

    def joint_gradient(
        self, q: Array, theta: Array, layout: Layout, xp: Any = np
    ) -> tuple[Array, Array]:
        """q/s^2 (R, n), and n - |q|^2/s^2 + E' for each log-scale (R, m)."""
        out, inverse = xp.empty_like(q), xp.exp(-2 * theta)
        slopes = xp.empty_like(theta)
        shared = not isinstance(self.scale, (Mapping, float))
        if shared:
            slopes[...] = self.scale.slope(theta, xp)
        at = 0
        for name, (where, _) in layout.items():
            law, x = self._of(name), q[:, where]
            if isinstance(law, float):
                out[:, where] = x * law**-2
                continue
            g = out[:, where]
            xp.multiply(x, inverse[:, at, None], out=g)
            if not shared:
                slopes[:, at] = law.slope(theta[:, at], xp)
            slopes[:, at] += where.stop - where.start - xp.einsum("ri,ri->r", g, x)
            at += 1
        return out, slopes

    def joint_draw(
        self, layout: Layout, replicas: int, seed: int = 0
    ) -> tuple[Array, Array]:
        """Scales from their laws, then weights given the scales."""
        rows, stream = np.arange(replicas), random.STREAM_INITIAL
        size = sum(where.stop - where.start for where, _ in layout.values())
        q = random.normals(seed, rows, 0, stream, size)
        u = random.uniforms(seed, rows, _SCALES, stream, len(self.parameters(layout)))
        theta = np.empty_like(u)
        at = 0
        for name, (where, _) in layout.items():
            law = self._of(name)
            if isinstance(law, float):
                q[:, where] *= law
                continue
            s = law.quantile(u[:, at])
            q[:, where] *= s[:, None]
            theta[:, at] = np.log(s)
            at += 1
        return q, theta

    def start(self, layout: Layout) -> Array:
        """Logarithms of the laws' medians, (m,)."""
        laws = [self._of(name) for name in layout]
        medians = [law.quantile(0.5) for law in laws if not isinstance(law, float)]
        return np.log(np.array(medians, np.float64))

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""

        def one(law: ScaleLaw | float) -> Any:
            return law if isinstance(law, float) else law.describe()

        given = self.scale
        scale = (
            {k: one(law) for k, law in given.items()}
            if isinstance(given, Mapping)
            else one(given)
        )
        return {"name": "hierarchical_gaussian", "scale": scale}


@dataclass(frozen=True, slots=True)
class HorseshoePrior:
    """Sparse weights: q_j ~ N(0, (t_j g)^2), t_j half-Cauchy(1), g half-Cauchy(scale).

    One global scale g a tensor and one local scale t_j a weight are sampled with the
    weights, as logarithms with their Jacobians, in the tensors
    "prior.<tensor>.log_local" (shaped as the tensor) and "prior.<tensor>.log_global".

    Parameters
    ----------
    scale : float
        Median of the global scales, > 0.

    Raises
    ------
    PotentialError
        If ``scale`` is not positive.

    Notes
    -----
    D doubles.  The density has funnels (small t_j hold q_j ever closer to zero), which
    no fixed step follows everywhere: sample it with small steps and many replicas, and
    look at R-hat.

    References
    ----------
    C. M. Carvalho, N. G. Polson, J. G. Scott, Biometrika 97, 465 (2010),
    doi:10.1093/biomet/asq017.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        checked = positive(self.scale, "HorseshoePrior(scale=1.0)")
        object.__setattr__(self, "scale", checked)

    def check(self, layout: Layout) -> None:
        """Nothing to check: fits every network."""

    def parameters(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Names and shapes: local log-scales of all tensors, then global ones."""
        local = {f"prior.{k}.log_local": shape for k, (_, shape) in layout.items()}
        return local | {f"prior.{name}.log_global": (1,) for name in layout}

    def joint_energy(
        self, q: Array, theta: Array, layout: Layout, xp: Any = np
    ) -> Array:
        """Energy of weights (R, n) and log-scales (R, n + tensors), (R,) float64."""
        q, theta = q.astype(np.float64), theta.astype(np.float64)
        n = q.shape[1]
        local, overall = theta[:, :n], theta[:, n:]
        total = HalfCauchy(1.0).energy(local, xp).sum(axis=1)
        total += HalfCauchy(self.scale).energy(overall, xp).sum(axis=1)
        for i, (where, _) in enumerate(layout.values()):
            l = local[:, where] + overall[:, i, None]
            x = q[:, where] * xp.exp(-l)
            total += (0.5 * x * x + l).sum(axis=1)
        return total + n * _HALF_LOG

    def joint_gradient(
        self, q: Array, theta: Array, layout: Layout, xp: Any = np
    ) -> tuple[Array, Array]:
        """q/s^2 (R, n), and 1 - q^2/s^2 + E' for each logarithm (R, n + tensors)."""
        n = q.shape[1]
        out, slopes = xp.empty_like(q), xp.empty_like(theta)
        slopes[:, :n] = HalfCauchy(1.0).slope(theta[:, :n], xp)
        slopes[:, n:] = HalfCauchy(self.scale).slope(theta[:, n:], xp)
        for i, (where, _) in enumerate(layout.values()):
            l = theta[:, where] + theta[:, n + i, None]
            out[:, where] = q[:, where] * xp.exp(-2 * l)
            pull = 1 - q[:, where] * out[:, where]
            slopes[:, where] += pull
            slopes[:, n + i] += pull.sum(axis=1)
        return out, slopes

    def joint_draw(
        self, layout: Layout, replicas: int, seed: int = 0
    ) -> tuple[Array, Array]:
        """Global and local scales from their laws, then weights given the scales."""
        rows, stream = np.arange(replicas), random.STREAM_INITIAL
        n = sum(where.stop - where.start for where, _ in layout.values())
        q = random.normals(seed, rows, 0, stream, n)
        u = random.uniforms(seed, rows, _SCALES, stream, n + len(layout))
        theta = np.empty_like(u)
        theta[:, :n] = np.log(HalfCauchy(1.0).quantile(u[:, :n]))
        theta[:, n:] = np.log(HalfCauchy(self.scale).quantile(u[:, n:]))
        for i, (where, _) in enumerate(layout.values()):
            q[:, where] *= np.exp(theta[:, where] + theta[:, n + i, None])
        return q, theta

    def start(self, layout: Layout) -> Array:
        """Logarithms of the medians, (n + tensors,)."""
        n = sum(where.stop - where.start for where, _ in layout.values())
        return np.concatenate([np.zeros(n), np.full(len(layout), math.log(self.scale))])

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "horseshoe", "scale": self.scale}
