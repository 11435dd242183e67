"""What q holds: a network's weights, then the likelihood's and the prior's parameters.

Networks, likelihoods and priors each see their own columns of q only.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from mdnet.potentials._likelihood_base import BoundLikelihood, SampledParameters
from mdnet.potentials.networks import Network
from mdnet.typing import Array, Layout

__all__ = ["Parts", "Weighted"]


class Weighted:
    """A likelihood whose rows count more or less than once.

    Their weights are the last column of the targets.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Weight times the density log p of each row, (R, n)."""
        density = self._inner.log_density(outputs, targets[..., :-1], xp)
        return targets[..., -1] * density

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Weight times d(-log p)/d(outputs), (R, n, K)."""
        each = self._inner.residual(outputs, targets[..., :-1], xp)
        return targets[..., -1:] * each

    def parameter_gradient(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Weight times d(-log p)/d(theta), (R, n, m)."""
        each = self._inner.parameter_gradient(outputs, targets[..., :-1], xp)
        return targets[..., -1:] * each


class Parts:
    """Columns of q, and the energy of everything that is not data.

    Parameters
    ----------
    network : Network
        Whose weights come first.
    likelihood : Likelihood
        Its parameters, if it samples any, come next.
    prior : Prior or SampledPrior
        Its parameters, if it has any, come last.

    Attributes
    ----------
    size : int
        Columns in all.
    weights, likelihood, prior : slice
        Columns of the weights, and of the parameters of the likelihood and the prior.
    layout : Layout
        All tensors.
    sampled : SampledParameters or None
        Of the likelihood.
    """

    def __init__(self, network: Network, likelihood: Any, prior: Any) -> None:
        self._network, self._likelihood, self._prior = network, likelihood, prior
        find = getattr(likelihood, "sampled", None)
        self.sampled: SampledParameters | None = None if find is None else find()
        layout = dict(network.layout)
        at = network.size
        self.weights = slice(0, at)
        shapes = {}
        if self.sampled is not None:
            shapes = self.sampled.parameters(network.outputs)
        at = _extend(layout, shapes, at)
        self.likelihood = slice(network.size, at)
        self._joint = hasattr(prior, "joint_energy")
        if self._joint:
            shapes = prior.parameters(network.layout)
            at = _extend(layout, shapes, at)
        self.prior = slice(self.likelihood.stop, at)
        self.size = at
        # A network alone keeps its own layout.
        self.layout: Layout = (
            network.layout if at == network.size else MappingProxyType(layout)
        )

    @property
    def plain(self) -> bool:
        """Whether q holds nothing but weights."""
        return self.size == self.weights.stop

    def bind(self, q: Array, xp: Any = np) -> Any:
        """Likelihood at the parameters in q (R, D)."""
        if self.sampled is None:
            return self._likelihood
        bound: BoundLikelihood = self.sampled.at(q[:, self.likelihood], xp)
        return bound

    def energy(self, q: Array, xp: Any = np) -> Array:
        """-log prior of weights and parameters, (R,) float64."""
        weights, layout = q[:, self.weights], self._network.layout
        if self._joint:
            theta = q[:, self.prior]
            total = self._prior.joint_energy(weights, theta, layout, xp)
        else:
            total = self._prior.energy(weights, layout, xp)
        if self.sampled is not None:
            total = total + self.sampled.energy(q[:, self.likelihood], xp)
        return total

    def add_gradient(self, q: Array, out: Array, xp: Any = np) -> None:
        """Add the gradient of `energy` to ``out`` (R, D)."""
        weights, layout = q[:, self.weights], self._network.layout
        if self._joint:
            theta = q[:, self.prior]
            own, slopes = self._prior.joint_gradient(weights, theta, layout, xp)
            out[:, self.weights] += own
            out[:, self.prior] += slopes
        else:
            out[:, self.weights] += self._prior.gradient(weights, layout, xp)
        if self.sampled is not None:
            theta = q[:, self.likelihood]
            out[:, self.likelihood] += self.sampled.slope(theta, xp)

    def start(self, replicas: int, seed: int) -> Array:
        """The network's start; parameters at the medians of their laws."""
        weights = self._network.initial(replicas, seed)
        if self.plain:
            return weights
        q = np.empty((replicas, self.size))
        q[:, self.weights] = weights
        if self.sampled is not None:
            q[:, self.likelihood] = self.sampled.start(self._network.outputs)
        if self._joint:
            q[:, self.prior] = self._prior.start(self._network.layout)
        return q

    def draw(self, replicas: int, seed: int) -> Array:
        """Weights and parameters from the prior."""
        layout = self._network.layout
        if self.plain:
            return self._prior.draw(layout, replicas, seed)
        q = np.empty((replicas, self.size))
        if self._joint:
            weights, theta = self._prior.joint_draw(layout, replicas, seed)
            q[:, self.prior] = theta
        else:
            weights = self._prior.draw(layout, replicas, seed)
        q[:, self.weights] = weights
        if self.sampled is not None:
            outputs = self._network.outputs
            q[:, self.likelihood] = self.sampled.draw(outputs, replicas, seed)
        return q


def _extend(layout: dict[str, Any], shapes: dict[str, tuple[int, ...]], at: int) -> int:
    """Add tensors to ``layout`` from column ``at`` on; the column after them."""
    for name, shape in shapes.items():
        stop = at + int(np.prod(shape))
        layout[name] = (slice(at, stop), shape)
        at = stop
    return at
