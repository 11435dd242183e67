"""Likelihoods of real targets, whose width is fixed, sampled, or given by the network.

A width sampled with the weights lives in q as its logarithm l.  With
-log p = E((z - y)/s) + l and s = e^l, one formula serves every family E:
d(-log p)/dl = 1 - (z - y) d(-log p)/dz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.kernels.codes import LIKELIHOODS
from mdnet.potentials._likelihood_base import real_targets
from mdnet.potentials._prior_scales import positive
from mdnet.potentials.scales import ScaleLaw
from mdnet.typing import Array

__all__ = ["Gaussian", "Heteroscedastic", "LearnedScale", "StudentT"]

_HALF_LOG = 0.5 * math.log(2 * math.pi)
_WIDTHS = 1  # step of the counters that draws of widths use; weights use step 0


def _width(value: Any, name: str, example: str) -> Any:
    """Check a width: a positive number or a law."""
    if isinstance(value, ScaleLaw) and not isinstance(value, type):
        return value
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not (math.isfinite(value) and value > 0)
    ):
        raise PotentialError(
            f"{name}={value!r}: expected a number > 0, e.g. likelihoods.{example}, or "
            "a law of one to sample it with the weights, e.g. scales.HalfNormal(1.0)"
        )
    return float(value)


def _fixed(value: Any, name: str) -> float:
    if not isinstance(value, float):
        raise PotentialError(
            f"{name}={value!r} is sampled: give it values first, with "
            "likelihood.sampled().at(theta)"
        )
    return value


def _json(value: Any) -> Any:
    return value if isinstance(value, float) else value.describe()


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Real targets: y ~ N(z, noise^2), independent over outputs.

    Parameters
    ----------
    noise : float or ScaleLaw
        Standard deviation, > 0, in units of y; or its law, e.g.
        ``scales.HalfNormal(1.0)``: then log noise is sampled with the weights, as the
        tensor "likelihood.log_noise" of q.
    per_output : bool
        Sample one noise for each output rather than one for all.

    Raises
    ------
    PotentialError
        If ``noise`` is not a positive finite number or a law.

    Examples
    --------
    >>> from mdnet.potentials import MLP, Posterior
    >>> from mdnet.potentials.likelihoods import Gaussian
    >>> from mdnet.potentials.scales import HalfNormal
    >>> data = np.zeros((5, 2)), np.zeros(5)
    >>> U = Posterior(MLP([2, 1]), Gaussian(noise=HalfNormal(1.0)), data=data)
    >>> list(U.layout)
    ['0.weight', '0.bias', 'likelihood.log_noise']
    """

    noise: Any = 1.0
    per_output: bool = False

    def __post_init__(self) -> None:
        checked = _width(self.noise, "noise", "Gaussian(noise=0.1)")
        object.__setattr__(self, "noise", checked)

    @property
    def kernel(self) -> tuple[int, float]:
        """Code and strength in the compiled engine."""
        if not isinstance(self.noise, float):
            raise AttributeError("sampled noise: see LearnedScale.core")
        return LIKELIHOODS["gaussian"], self.noise**-2

    def sampled(self) -> LearnedScale | None:
        """Parameters that are sampled with the weights; None if the noise is fixed."""
        if isinstance(self.noise, float):
            return None
        return LearnedScale(Gaussian(1.0), self.noise, "log_noise", self.per_output)

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Targets as (N, K)."""
        return real_targets(y, rows, outputs, "gaussian")

    def log_density(
        self,
        outputs: Array,
        targets: Array,
        xp: Any = np,  # noqa: ARG002
    ) -> Array:
        """Density log p of each row, (R, n)."""
        miss = (outputs - targets) / _fixed(self.noise, "noise")
        return -0.5 * (miss * miss).sum(axis=-1) - self.constant(1, outputs.shape[-1])

    def residual(
        self,
        outputs: Array,
        targets: Array,
        xp: Any = np,  # noqa: ARG002
    ) -> Array:
        """(z - y)/noise^2."""
        return (outputs - targets) * _fixed(self.noise, "noise") ** -2

    def predict(self, outputs: Array, xp: Any = np) -> Array:  # noqa: ARG002
        """Means, (R, n, K)."""
        return outputs

    def constant(self, rows: int, outputs: int) -> float:
        """N K (log noise + log(2 pi)/2)."""
        noise = _fixed(self.noise, "noise")
        return rows * outputs * (math.log(noise) + 0.5 * math.log(2 * math.pi))

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        many = {"per_output": True} if self.per_output else {}
        return {"name": "gaussian", "noise": _json(self.noise)} | many


@dataclass(frozen=True, slots=True)
class StudentT:
    """Real targets with outliers: (y - z)/scale is Student t, independent over outputs.

    -log p = (df + 1)/2 log(1 + (z - y)^2/(df s^2)) + log s + log(df pi)/2
    + log Gamma(df/2) - log Gamma((df + 1)/2).

    Parameters
    ----------
    df : float
        Degrees of freedom > 0; the mean exists above 1, the variance above 2.
    scale : float or ScaleLaw
        s > 0 in units of y; or its law: then log s is sampled with the weights, as the
        tensor "likelihood.log_scale" of q.
    per_output : bool
        Sample one scale for each output rather than one for all.

    Raises
    ------
    PotentialError
        If ``df`` or ``scale`` is not positive.

    References
    ----------
    K. L. Lange, R. J. A. Little, J. M. G. Taylor, J. Am. Stat. Assoc. 84, 881 (1989),
    doi:10.1080/01621459.1989.10478852.
    """

    df: float = 4.0
    scale: Any = 1.0
    per_output: bool = False

    def __post_init__(self) -> None:
        example = "StudentT(df=4.0, scale=1.0)"
        object.__setattr__(
            self, "df", positive(self.df, f"likelihoods.{example}", "df")
        )
        object.__setattr__(self, "scale", _width(self.scale, "scale", example))

    def sampled(self) -> LearnedScale | None:
        """Parameters that are sampled with the weights; None if the scale is fixed."""
        if isinstance(self.scale, float):
            return None
        unit = StudentT(self.df, 1.0)
        return LearnedScale(unit, self.scale, "log_scale", self.per_output)

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Targets as (N, K)."""
        return real_targets(y, rows, outputs, "student_t")

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n)."""
        miss = (outputs - targets) / _fixed(self.scale, "scale")
        kernel = -0.5 * (self.df + 1) * xp.log1p(miss * miss / self.df)
        return kernel.sum(axis=-1) - self.constant(1, outputs.shape[-1])

    def residual(
        self,
        outputs: Array,
        targets: Array,
        xp: Any = np,  # noqa: ARG002
    ) -> Array:
        """(df + 1)(z - y)/(df s^2 + (z - y)^2)."""
        miss, s = outputs - targets, _fixed(self.scale, "scale")
        return (self.df + 1) * miss / (self.df * s * s + miss * miss)

    def predict(self, outputs: Array, xp: Any = np) -> Array:  # noqa: ARG002
        """Centres of the densities, (R, n, K)."""
        return outputs

    def constant(self, rows: int, outputs: int) -> float:
        """N K times the logarithm of the normalisation."""
        df, s = self.df, _fixed(self.scale, "scale")
        each = math.log(s) + 0.5 * math.log(df * math.pi)
        each += math.lgamma(df / 2) - math.lgamma((df + 1) / 2)
        return rows * outputs * each

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        many = {"per_output": True} if self.per_output else {}
        mine = {"name": "student_t", "df": self.df, "scale": _json(self.scale)}
        return mine | many


@dataclass(frozen=True, slots=True)
class LearnedScale:
    """Log-widths of a location-scale family, sampled with the weights.

    Parameters
    ----------
    unit : Gaussian or StudentT
        The family at width 1.
    law : ScaleLaw
        Law of every width, the Jacobian of the logarithm included.
    name : str
        Of the tensor, after "likelihood.".
    per_output : bool
        One width for each output rather than one for all.
    """

    unit: Gaussian | StudentT
    law: ScaleLaw
    name: str
    per_output: bool

    @property
    def core(self) -> Gaussian:
        """Compiled likelihood that `terms` scales."""
        if self.per_output or not isinstance(self.unit, Gaussian):
            raise AttributeError("no compiled form")
        return self.unit

    def terms(
        self, theta: Array, count: int, xp: Any = np
    ) -> tuple[Array, Array, Array, Array]:
        """Factors a and b (R,), with derivatives (R, m), of -log p = a E + b.

        E is minus the log density of `core` without its constant, of ``count``
        numbers: a = e^(-2l), b = count (l + log(2 pi)/2).
        """
        l = theta[:, 0].astype(np.float64)
        a = xp.exp(-2 * l)
        b = count * (l + _HALF_LOG)
        return a, -2 * a[:, None], b, xp.full((len(l), 1), float(count))

    def parameters(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of the log-widths."""
        return {f"likelihood.{self.name}": (outputs if self.per_output else 1,)}

    def at(self, theta: Array, xp: Any = np) -> _Scaled:
        """Likelihood at log-widths (R, 1) or (R, K)."""
        return _Scaled(self.unit, theta[:, None], xp.exp(-theta[:, None]))

    def energy(self, theta: Array, xp: Any = np) -> Array:
        """-log law of the log-widths, (R,) float64."""
        return self.law.energy(theta.astype(np.float64), xp).sum(axis=1)

    def slope(self, theta: Array, xp: Any = np) -> Array:
        """Gradient of `energy`, (R, m)."""
        return self.law.slope(theta, xp)

    def draw(self, outputs: int, replicas: int, seed: int = 0) -> Array:
        """Independent draws of the log-widths, (R, m) float64."""
        m = outputs if self.per_output else 1
        rows, stream = np.arange(replicas), random.STREAM_INITIAL
        u = random.uniforms(seed, rows, _WIDTHS, stream, m)
        return np.log(self.law.quantile(u))

    def start(self, outputs: int) -> Array:
        """Logarithm of the law's median, (m,)."""
        m = outputs if self.per_output else 1
        return np.full(m, math.log(float(self.law.quantile(0.5))))


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A location-scale family at log-widths (R, 1, m), m being 1 or K."""

    unit: Gaussian | StudentT
    log_width: Array
    inverse: Array

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        miss = (outputs - targets) * self.inverse
        each = outputs.shape[-1] // self.log_width.shape[-1]
        logs = each * self.log_width.sum(axis=-1)
        return self.unit.log_density(miss, xp.zeros((), miss.dtype), xp) - logs

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        miss = (outputs - targets) * self.inverse
        return self.unit.residual(miss, xp.zeros((), miss.dtype), xp) * self.inverse

    def parameter_gradient(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        each = 1 - (outputs - targets) * self.residual(outputs, targets, xp)
        if self.log_width.shape[-1] == 1:
            return each.sum(axis=-1, keepdims=True)
        return each

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        return self.unit.predict(outputs, xp)


@dataclass(frozen=True, slots=True)
class Heteroscedastic:
    """Real targets whose mean and noise are both outputs: y ~ N(m, e^v).

    The network has 2 K outputs for K targets: first the means m, then the log
    variances v.  -log p = sum_k [(m_k - y_k)^2 e^(-v_k) + v_k + log(2 pi)]/2.

    References
    ----------
    D. A. Nix, A. S. Weigend, Proc. IEEE Int. Conf. Neural Networks 1, 55 (1994),
    doi:10.1109/ICNN.1994.374138.
    """

    def targets(self, y: Any, rows: int, outputs: int) -> Array:
        """Targets as (N, outputs/2).

        Raises
        ------
        PotentialError
            An odd number of outputs, or targets of another shape.
        """
        if outputs % 2:
            raise PotentialError(
                f"the network has {outputs} outputs: the heteroscedastic likelihood "
                "expected two for each target, its mean and its log variance, e.g. "
                "MLP([inputs, 50, 2])"
            )
        return real_targets(y, rows, outputs // 2, "heteroscedastic")

    def log_density(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """Density log p of each row, (R, n)."""
        k = outputs.shape[-1] // 2
        miss, v = outputs[..., :k] - targets, outputs[..., k:]
        return -0.5 * (miss * miss * xp.exp(-v) + v).sum(axis=-1) - k * _HALF_LOG

    def residual(self, outputs: Array, targets: Array, xp: Any = np) -> Array:
        """(m - y) e^(-v), then [1 - (m - y)^2 e^(-v)]/2."""
        k = outputs.shape[-1] // 2
        miss = outputs[..., :k] - targets
        pull = miss * xp.exp(-outputs[..., k:])
        return xp.concatenate([pull, 0.5 * (1 - miss * pull)], axis=-1)

    def predict(self, outputs: Array, xp: Any = np) -> Array:
        """Means, then variances (not their logarithms), (R, n, 2 K)."""
        k = outputs.shape[-1] // 2
        return xp.concatenate([outputs[..., :k], xp.exp(outputs[..., k:])], axis=-1)

    def constant(self, rows: int, outputs: int) -> float:
        """N K log(2 pi)/2."""
        return rows * (outputs // 2) * _HALF_LOG

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {"name": "heteroscedastic"}
