r"""Hopfield networks of continuous state as potentials that integrators can run.

`GradedHopfield` is the graded-response network of 1984: neurons of potential q and
activity V = tanh(gain q), whose couplings drive V down the energy

.. math::
    E = -\tfrac12 V J V - h V + \sum_i \int_0^{V_i} \mathrm{artanh}(x)\,dx / g
      = -\tfrac12 V J V - h V + \sum_i \bigl(q_i V_i - \ln\cosh(g q_i)/g\bigr).

`ModernHopfield` is the continuous memory whose retrieval step is attention,

.. math::
    U = -\tfrac1\beta \ln \tfrac1P \sum_\mu e^{\beta\, \xi^\mu q} + \tfrac12 q^2
        + \mathrm{const}.

At temperature 1/beta its law is a mixture of Gaussians of variance 1/beta about the
patterns, with weights proportional to e^(beta |xi|^2 / 2): exact moments.

References
----------
J. J. Hopfield, Proc. Natl. Acad. Sci. USA 81, 3088 (1984), doi:10.1073/pnas.81.10.3088.
H. Ramsauer et al., ICLR 2021, arXiv:2008.02217.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import (
    fingerprint,
    finite_array,
    positive,
    positive_integer,
)
from mdnet.potentials._forms import ArrayEvaluator, Form
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.hopfield import Hopfield
from mdnet.typing import Array, Evaluator

__all__ = ["GradedHopfield", "ModernHopfield"]


class GradedHopfield(Potential):
    """Neurons of graded response: U(q) = E(V), V = tanh(gain q).

    Parameters
    ----------
    memory : Hopfield or (N, N) array
        Couplings J, symmetric; a `Hopfield` gives its field, too.
    gain : float
        Steepness; as it grows, minima approach those of the spins.
    field : float or (N,), optional
        Outer field h; the memory's, or zero, if None.
    temperature : float
        0 for the energy itself, which is flat far out: use it with dynamics at T = 0
        (descent, friction).  Otherwise ``-T sum ln dV/dq`` is added, so that a run at
        this temperature samples e^(-E/T) over activities V in (-1, 1).

    Raises
    ------
    PotentialError
        Couplings that are not square and symmetric, gain <= 0, temperature < 0.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> U = potentials.GradedHopfield([[0.0, 1.0], [1.0, 0.0]], gain=3.0)
    >>> U.activity(np.array([[0.0, 10.0]]))
    array([[0., 1.]])
    """

    def __init__(
        self,
        memory: Any,
        gain: float = 1.0,
        field: Any = None,
        temperature: float = 0.0,
    ) -> None:
        given = memory.couplings if isinstance(memory, Hopfield) else memory
        self.couplings = finite_array("memory", given)
        shape = self.couplings.shape
        if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
            raise PotentialError(
                f"memory has shape {shape}: expected couplings (N, N), or a Hopfield"
            )
        if not np.allclose(self.couplings, self.couplings.T, rtol=1e-12, atol=1e-12):
            raise PotentialError(
                "memory: couplings are not symmetric, so that no energy falls; use "
                "0.5 * (J + J.T)"
            )
        self.size = shape[0]
        self.gain = positive("gain", gain)
        if field is None:
            field = memory.field if isinstance(memory, Hopfield) else 0.0
        outer = finite_array("field", field)
        if outer.shape not in ((), (self.size,)):
            raise PotentialError(
                f"field has shape {outer.shape}: expected one number or ({self.size},)"
            )
        self.field = np.broadcast_to(outer, (self.size,))
        noise = finite_array("temperature", temperature)
        if noise.ndim or noise < 0:
            raise PotentialError(
                f"temperature={temperature!r}: expected one number >= 0"
            )
        self.temperature = float(noise)

    def activity(self, q: Array) -> Array:
        """V = tanh(gain q), shaped as ``q``."""
        return evaluator_xp(q).tanh(self.gain * q)

    def potential(self, activity: Any) -> Array:
        """Q of activities in (-1, 1): where to start a run.

        Raises
        ------
        PotentialError
            Activities outside (-1, 1), as those of spins: scale them by 0.99.
        """
        V = finite_array("activity", activity)
        if (np.abs(V) >= 1).any():
            raise PotentialError(
                f"activity holds {float(V[np.abs(V) >= 1][0])!r}: expected values "
                "between -1 and 1, as 0.99 * spins"
            )
        return np.arctanh(V) / self.gain

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        numbers = np.array([self.gain, self.temperature])
        form = Form("", "rows", (self.couplings, self.field, numbers), _graded)
        return ArrayEvaluator(form, backend)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "GradedHopfield",
            "couplings": fingerprint(self.couplings),
            "gain": self.gain,
            "field": fingerprint(self.field),
            "temperature": self.temperature,
        }


def _graded(
    xp: Any, q: Array, couplings: Array, field: Array, numbers: Array
) -> tuple[Array, Array]:
    gain, temperature = numbers[0], numbers[1]
    x = gain * q
    V = xp.tanh(x)
    # ln cosh x and 1 - V^2 without overflow or cancellation.
    small = xp.exp(-2 * xp.abs(x))
    log_cosh = xp.abs(x) + xp.log1p(small) - np.log(2.0)
    slope = gain * 4 * small / ((1 + small) * (1 + small))
    pull = V @ couplings
    local = q * V - log_cosh / gain - (0.5 * pull + field) * V
    entropy = 2 * log_cosh - xp.log(gain)  # -ln dV/dq
    energy = (local + temperature * entropy).sum(axis=1)
    return energy, slope * (q - pull - field) + 2 * temperature * gain * V


class ModernHopfield(Potential):
    """A continuous memory: deep wells at real patterns, many more than N.

    Parameters
    ----------
    patterns : (P, N)
        Rows of real numbers.
    beta : float
        Sharpness.  A run at temperature 1/beta samples the mixture of Gaussians
        that `weights`, `mean` and `covariance` describe.

    Raises
    ------
    PotentialError
        Patterns that are no matrix of finite numbers, beta <= 0.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> U = potentials.ModernHopfield(np.eye(3), beta=50.0)
    >>> U.retrieve(np.array([[0.9, 0.3, 0.0]])).round(6)
    array([[1., 0., 0.]])
    """

    def __init__(self, patterns: Any, beta: float = 1.0) -> None:
        self.patterns = finite_array("patterns", patterns)
        if self.patterns.ndim != 2 or not self.patterns.size:
            raise PotentialError(
                f"patterns has shape {self.patterns.shape}: expected (P, N), one row "
                "a pattern"
            )
        self.beta = positive("beta", beta)
        self.size = int(self.patterns.shape[1])

    @property
    def weights(self) -> Array:
        """Chances of the patterns at temperature 1/beta, (P,)."""
        logs = 0.5 * self.beta * (self.patterns**2).sum(axis=1)
        chance = np.exp(logs - logs.max())
        return chance / chance.sum()

    @property
    def mean(self) -> Array:
        """Mean of q at temperature 1/beta, (N,)."""
        return self.weights @ self.patterns

    @property
    def covariance(self) -> Array:
        """Covariance of q at temperature 1/beta, (N, N)."""
        d = self.patterns - self.mean
        return (self.weights * d.T) @ d + np.eye(self.size) / self.beta

    def retrieve(self, q: Any, steps: int = 1) -> Array:
        """Apply the retrieval step q <- patterns.softmax(beta patterns.q), (R, N).

        Each lowers the energy; where q is still, its gradient is zero.
        """
        xp = evaluator_xp(q)
        patterns = xp.asarray(self.patterns)
        rows = xp.asarray(q, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.size:
            raise PotentialError(f"q has shape {rows.shape}: expected (R, {self.size})")
        for _ in range(positive_integer("steps", steps)):
            rows = _attend(xp, rows, patterns, self.beta)[1]
        return rows

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:  # noqa: ARG002
        """Bind to a backend; see `mdnet.typing.Evaluator`."""
        norm = (self.patterns**2).sum(axis=1).max()
        constant = 0.5 * norm + np.log(len(self.patterns)) / self.beta
        numbers = np.array([self.beta, constant])
        form = Form("", "rows", (self.patterns, numbers), _modern)
        return ArrayEvaluator(form, backend)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "ModernHopfield",
            "patterns": fingerprint(self.patterns),
            "beta": self.beta,
        }


def _attend(xp: Any, q: Array, patterns: Array, beta: Any) -> tuple[Array, Array]:
    """Ln sum e^(beta xi.q) (R,), and the patterns' average with those weights."""
    logs = beta * (q @ patterns.T)
    top = logs.max(axis=1, keepdims=True)
    chance = xp.exp(logs - top)
    total = chance.sum(axis=1, keepdims=True)
    return (top + xp.log(total))[:, 0], (chance / total) @ patterns


def _modern(xp: Any, q: Array, patterns: Array, numbers: Array) -> tuple[Array, Array]:
    total, recalled = _attend(xp, q, patterns, numbers[0])
    energy = 0.5 * (q * q).sum(axis=1) - total / numbers[0] + numbers[1]
    return energy, q - recalled
