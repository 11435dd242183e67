r"""The variational bound of a small autoencoder as a potential over its weights.

An encoder gives :math:`q(z|x) = N(\mu(x), s(x)^2)`, a decoder :math:`p(x|z)`, and

.. math:: U = -\sum_i \Bigl[ \langle \ln p(x_i|z) \rangle_{q(z|x_i)}
    - \mathrm{KL}(q(z|x_i) \| N(0, 1)) \Bigr] - \ln \mathrm{prior}

is an upper bound of the free energy :math:`-\sum_i \ln p(x_i)`, off by the divergence
of q(z|x) from the true posterior of z.  The average over :math:`z = \mu + s \epsilon`
is that over a set of points :math:`\epsilon`:

==============  =======================================================================
``draws``       points
==============  =======================================================================
"cubature"      the 2k points +-sqrt(k) e_j: exact for decoders linear in z
S (an integer)  S normals for each datum, a function of (seed, draw, call) only
==============  =======================================================================

References
----------
D. P. Kingma, M. Welling, ICLR 2014, doi:10.48550/arXiv.1312.6114.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._checks import fingerprint, finite_array, positive_integer
from mdnet.potentials._forms import Polynomial
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.likelihoods import Likelihood, make_likelihood
from mdnet.potentials.networks import MLP
from mdnet.potentials.priors import FlatPrior, GaussianPrior, Prior
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["VariationalAutoencoder"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)
_FIXED, _FRESH = 3, 4  # steps of the counters; starts have 0, draws 1, disorder 2


class VariationalAutoencoder(Potential):
    """Minus the evidence lower bound of an autoencoder, plus a prior of its weights.

    Parameters
    ----------
    encoder : MLP
        From the D columns of X to 2 k numbers: mu, then ln s.
    decoder : MLP
        From k to D numbers (parameters of the likelihood).
    X : array, (N, D)
        Data.
    likelihood : str or Likelihood
        Of x given the decoder's outputs, "gaussian", "bernoulli", or an object such as
        ``likelihoods.Gaussian(noise=0.1)``.
    prior : Prior or None
        Of all weights; None for a flat one.
    draws : "cubature" or int
        See the table above.
    noise : {"fixed", "fresh"}
        "fixed": the same normals at every call, so that U is one function; "fresh":
        new ones at each force call, an unbiased estimate as of a minibatch.  Energies
        and gradients always use the fixed ones.
    seed : int
        Key of the fixed normals.

    Raises
    ------
    PotentialError
        Networks that are no `MLP` or do not fit the data or each other, data that are
        not finite, or settings other than those above.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> U = potentials.VariationalAutoencoder(
    ...     potentials.MLP([3, 4, 2]), potentials.MLP([1, 4, 3]), X
    ... )
    >>> U.bound(U.initial(2)).shape, list(U.layout)[0]
    ((2, 20), 'encoder.0.weight')
    """

    def __init__(
        self,
        encoder: MLP,
        decoder: MLP,
        X: Any,
        likelihood: str | Likelihood = "gaussian",
        prior: Prior | None = _DEFAULT_PRIOR,
        draws: Literal["cubature"] | int = "cubature",
        noise: Literal["fixed", "fresh"] = "fixed",
        seed: int = 0,
    ) -> None:
        for role, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, MLP):
                raise PotentialError(f"{role}={network!r}: expected an MLP")
        self.X = finite_array("X", X)
        if self.X.ndim != 2 or not self.X.size:
            raise PotentialError(f"X has shape {self.X.shape}: expected (N, D)")
        self.latent = decoder.inputs
        wide = self.X.shape[1]
        widths = encoder.inputs, encoder.outputs, decoder.inputs, decoder.outputs
        if widths != (wide, 2 * self.latent, self.latent, wide):
            raise PotentialError(
                f"encoder {widths[0]} -> {widths[1]}, decoder {widths[2]} -> "
                f"{widths[3]}: expected {wide} -> 2 k and k -> {wide} for the {wide} "
                f"columns of X, as MLP([{wide}, {2 * self.latent}]), "
                f"MLP([{self.latent}, {wide}])"
            )
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = make_likelihood(likelihood)
        learned = getattr(self.likelihood, "sampled", None)
        if callable(learned) and learned() is not None:
            raise PotentialError(
                f"likelihood={self.likelihood!r} has a parameter to be learned: "
                "expected fixed ones, as likelihoods.Gaussian(noise=0.1)"
            )
        self.targets = self.likelihood.targets(self.X, len(self.X), wide)
        self.draws = draws if draws == "cubature" else positive_integer("draws", draws)
        if noise not in ("fixed", "fresh"):
            raise PotentialError(f"noise={noise!r}: expected 'fixed' or 'fresh'")
        self.fresh = noise == "fresh" and self.draws != "cubature"
        random.seed_words(seed)
        self.seed = int(seed)
        self.size = encoder.size + decoder.size
        self.prior: Prior = FlatPrior() if prior is None else prior
        self.prior.check(self.layout)

    @property
    def layout(self) -> Layout:
        """Tensors "encoder.0.weight", ..., "decoder.0.weight", ..."""
        out = {f"encoder.{name}": item for name, item in self.encoder.layout.items()}
        at = self.encoder.size
        for name, (where, shape) in self.decoder.layout.items():
            moved = slice(where.start + at, where.stop + at)
            out[f"decoder.{name}"] = moved, shape
        return out

    def points(self, call: int | None = None, seed: int | None = None) -> Array:
        """Points epsilon, (S, N or 1, k): the fixed ones, or those of a force call."""
        k = self.latent
        if self.draws == "cubature":
            corner = math.sqrt(k) * np.eye(k)
            return np.concatenate([corner, -corner])[:, None]
        rows, count = np.arange(int(self.draws)), len(self.X)
        step = _FIXED if call is None else _FRESH + call
        key = self.seed if seed is None else seed
        z = random.normals(key, rows, step, random.STREAM_INITIAL, count * k)
        return z.reshape(-1, count, k)

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; ``seed`` is the key of fresh noise."""
        return _BoundEvaluator(self, backend, replicas, seed)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Starts of both networks, (R, D)."""
        # Replicas of the decoder are others than those of the encoder.
        both = self.decoder.initial(2 * replicas, seed)[1::2]
        return np.concatenate([self.encoder.initial(replicas, seed), both], axis=1)

    def _parts(self, q: Array) -> tuple[Array, Array, Any]:
        xp = evaluator_xp(q)
        rows = xp.asarray(q)
        if rows.dtype.kind != "f":
            rows = rows.astype(np.float64)
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.size:
            raise PotentialError(
                f"q has shape {rows.shape}: expected (R, {self.size}) or ({self.size},)"
            )
        rows = rows.reshape(-1, self.size)
        at = self.encoder.size
        return rows[:, :at], rows[:, at:], xp

    def encode(self, q: Array, X: Any) -> tuple[Array, Array]:
        """Means and standard deviations of q(z|x): (R, n, k) or (n, k) each."""
        phi, _, xp = self._parts(q)
        out = self.encoder.forward(phi, xp.asarray(finite_array("X", X)))
        mean, width = out[..., : self.latent], xp.exp(out[..., self.latent :])
        return (mean, width) if np.ndim(q) == 2 else (mean[0], width[0])

    def decode(self, q: Array, z: Any) -> Array:
        """Parameters of p(x|z) at latent points (n, k): (R, n, D) or (n, D)."""
        _, theta, xp = self._parts(q)
        outputs = self.decoder.forward(theta, xp.asarray(finite_array("z", z)))
        out = self.likelihood.predict(outputs, xp)
        return out if np.ndim(q) == 2 else out[0]

    def bound(self, q: Array) -> Array:
        """Evidence lower bound of each datum, (R, N) or (N,), fixed points."""
        phi, theta, xp = self._parts(q)
        phi, theta = (a.astype(np.float64, copy=False) for a in (phi, theta))
        out = self.encoder.forward(phi, xp.asarray(self.X))
        mean, log_width = out[..., : self.latent], out[..., self.latent :]
        points, targets = xp.asarray(self.points()), xp.asarray(self.targets)
        total = -_divergence(mean, log_width, xp)
        for epsilon in points:
            z = mean + xp.exp(log_width) * epsilon
            outputs = self.decoder.forward(theta, z)
            density = self.likelihood.log_density(outputs, targets, xp)
            total = total + density / len(points)
        return total if np.ndim(q) == 2 else total[0]

    def describe(self) -> dict[str, Any]:
        """JSON-able settings; the data by a digest."""
        return {
            "kind": "VariationalAutoencoder",
            "encoder": self.encoder.describe(),
            "decoder": self.decoder.describe(),
            "likelihood": self.likelihood.describe(),
            "prior": self.prior.describe(),
            "draws": self.draws,
            "noise": "fresh" if self.fresh else "fixed",
            "seed": self.seed,
            "X": fingerprint(self.X),
        }


def _divergence(mean: Array, log_width: Array, xp: Any) -> Array:
    """KL(N(mu, s^2) | N(0, 1)) of each datum, (R, N)."""
    each = mean * mean + xp.expm1(2 * log_width) - 2 * log_width
    return 0.5 * each.sum(axis=2)


def _pulled(network: MLP, q: Array, tape: Any, delta: Array, xp: Any) -> Array:
    """Pull ``delta`` (R, n, outputs) back to the inputs of the network."""
    names = [name for name in network.layout if name.endswith("weight")]
    for l in reversed(range(len(names))):
        where, shape = network.layout[names[l]]
        delta = xp.matmul(delta, q[:, where].reshape(q.shape[0], *shape))
        if l > 0:
            delta = delta * tape[l][1]
    return delta


class _BoundEvaluator:
    """The bound and its gradient through both networks, in array operations."""

    polynomial: Polynomial | None = None
    __slots__ = ("_fixed", "_model", "_seed", "_typed", "_work", "_xp", "full")

    def __init__(
        self, model: VariationalAutoencoder, backend: Backend, replicas: int, seed: int
    ) -> None:
        self._xp, self._model, self._seed = backend.xp, model, seed
        self.full = not model.fresh
        random.seed_words(seed)
        kinds = {backend.force_dtype, np.dtype(np.float64)}
        points = model.points()
        self._typed = {
            t: tuple(backend.asarray(a, t) for a in (model.X, model.targets))
            for t in kinds
        }
        self._fixed = {t: backend.asarray(points, t) for t in kinds}
        self._work = {t: backend.zeros((replicas, model.size), t) for t in kinds}

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        points = self._fixed
        if not self.full:
            drawn = self._xp.asarray(self._model.points(call, self._seed))
            points = {t: drawn.astype(t, copy=False) for t in self._fixed}
        self._differentiate(positions, out, points[out.dtype])
        self._xp.negative(out, out=out)
        if energies is not None:
            self._energies(positions, energies, points[np.dtype(np.float64)])

    def energies(self, positions: Array, out: Array) -> None:
        self._energies(positions, out, self._fixed[np.dtype(np.float64)])

    def gradients(self, positions: Array, out: Array) -> None:
        self._differentiate(positions, out, self._fixed[out.dtype])

    def _encoded(self, positions: Array, kind: Any) -> tuple[Any, ...]:
        model = self._model
        q = positions.astype(kind, copy=False)
        phi, theta = q[:, : model.encoder.size], q[:, model.encoder.size :]
        out, tape = model.encoder.tape(phi, self._typed[np.dtype(kind)][0])
        k = model.latent
        return q, phi, theta, tape, out[..., :k], out[..., k:]

    def _energies(self, positions: Array, out: Array, points: Array) -> None:
        model, xp = self._model, self._xp
        q, _, theta, _, mean, log_width = self._encoded(positions, np.float64)
        targets = self._typed[np.dtype(np.float64)][1]
        out[...] = model.prior.energy(q, model.layout, xp)
        out += _divergence(mean, log_width, xp).sum(axis=1)
        width = xp.exp(log_width)
        for epsilon in points:
            outputs = model.decoder.forward(theta, mean + width * epsilon)
            density = model.likelihood.log_density(outputs, targets, xp)
            out -= density.sum(axis=1) / len(points)

    def _differentiate(self, positions: Array, out: Array, points: Array) -> None:
        model, xp, kind = self._model, self._xp, out.dtype
        q, phi, theta, tape, mean, log_width = self._encoded(positions, kind)
        at, targets, work = model.encoder.size, self._typed[kind][1], self._work[kind]
        work.fill(0)
        width = xp.exp(log_width)
        to_mean, to_log = mean.copy(), width * width - 1
        share = kind.type(1 / len(points))
        for epsilon in points:
            outputs, inner = model.decoder.tape(theta, mean + width * epsilon)
            delta = model.likelihood.residual(outputs, targets, xp)
            delta = delta.astype(kind, copy=False) * share
            model.decoder.backward(theta, inner, delta, work[:, at:])
            pulled = _pulled(model.decoder, theta, inner, delta, xp)
            to_mean += pulled
            to_log += pulled * (epsilon * width)
        both = xp.concatenate([to_mean, to_log], axis=2)
        model.encoder.backward(phi, tape, both, work[:, :at])
        work += model.prior.gradient(q, model.layout, xp)
        out[...] = work
