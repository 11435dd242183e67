"""The Bayesian posterior of a network as a potential energy.

U(q) = -sum_i log p(y_i | x_i, q) - log prior(q), a sum over all data with every
constant, so that exp(-U) is likelihood times prior and T = 1 samples the posterior.
Parameters of the likelihood or the prior that are sampled (a noise level, scales) are
coordinates of q after the weights.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.kernels.codes import ACTIVATIONS
from mdnet.potentials._checks import finite_array, positive
from mdnet.potentials._data import SCAN, digest, host, inputs
from mdnet.potentials._hierarchical import SampledPrior
from mdnet.potentials._parts import Parts, Weighted
from mdnet.potentials._sources import Source, open_source, split
from mdnet.potentials._split_evaluator import SplitEvaluator
from mdnet.potentials.base import Potential, evaluator_xp
from mdnet.potentials.evaluators import (
    ArrayEvaluator,
    Batch,
    DenseEvaluator,
    StreamEvaluator,
    device_evaluator,
    streams,
)
from mdnet.potentials.likelihoods import Likelihood, make_likelihood
from mdnet.potentials.networks import MLP, Network
from mdnet.potentials.priors import FlatPrior, GaussianPrior, Prior
from mdnet.potentials.stochastic import MinibatchPosterior
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["MinibatchPosterior", "Posterior"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)


class Posterior(Potential):
    """Energy of a network's weights, given data.

    U(q) = -(1/T_L) sum_i w_i log p(y_i | x_i, q) - log prior(q).

    Parameters
    ----------
    network : Network
        E.g. `mdnet.potentials.networks.MLP`.
    likelihood : str or Likelihood
        "categorical", "gaussian" (noise 1), "bernoulli" or another name of
        `mdnet.potentials.likelihoods`, or an object such as
        ``likelihoods.Gaussian(noise=0.1)``.
    prior : Prior, SampledPrior or None
        E.g. ``GaussianPrior(scale=1.0)`` or ``HierarchicalGaussianPrior()``; None for
        a flat prior.
    data : (X, y)
        X (N, inputs); y (N,) class numbers, or (N, outputs), or (N,) for one output.
        Arrays, `numpy.memmap`, h5py datasets, or in place of the pair a data set of
        pairs read by index, as those of torch; large files are read while they are
        used, see ``docs/data.md``.  Arrays are not copied where their type and order
        allow: leave them unchanged while the potential lives.
    weights : array (N,), optional
        w_i >= 0 of each row: 2 counts a row twice, 0 leaves it out.  They are *not*
        rescaled: their sum is the number of rows' worth of evidence in U.
    likelihood_temperature : float
        T_L > 0 divides the data's part of U alone and leaves the prior as it is; the
        simulation's temperature T divides both.

    Raises
    ------
    PotentialError
        Shapes that do not match, values that are not finite, labels outside the
        classes, an unknown likelihood, or a prior that does not fit the network.

    Notes
    -----
    Parameters that the likelihood or the prior samples follow the weights in q, in
    this order; `layout` names them ("likelihood.log_noise", "prior.0.weight.log_scale")
    and their priors, with all Jacobians, are part of U.  See ``docs/likelihoods.md``.

    On the CPU an MLP runs in compiled loops (`mdnet.kernels.dense`), whose results
    are the same bit for bit for any number of threads and of replicas beside.  On a
    CUDA device it runs in cuBLAS and kernels of its own, see ``docs/gpu.md``.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet.potentials.networks import MLP
    >>> from mdnet.potentials.posterior import Posterior
    >>> X, y = np.eye(4), np.array([0, 1, 2, 0])
    >>> U = Posterior(MLP([4, 3]), likelihood="categorical", data=(X, y))
    >>> U.energy(np.zeros((2, U.size))).shape
    (2,)
    """

    def __init__(
        self,
        network: Network,
        likelihood: str | Likelihood = "categorical",
        prior: Prior | SampledPrior | None = _DEFAULT_PRIOR,
        data: tuple[Any, Any] | None = None,
        weights: Any = None,
        likelihood_temperature: float = 1.0,
    ) -> None:
        if not callable(getattr(network, "forward", None)):
            raise PotentialError(
                f"network={network!r}: expected a network such as MLP([64, 32, 10])"
            )
        self.network = network
        self.likelihood = make_likelihood(likelihood)
        # Whoever needs more than `check` and `describe` goes through `Parts`.
        self.prior = FlatPrior() if prior is None else cast("Prior", prior)
        if isinstance(self.prior, type) or not (
            callable(getattr(self.prior, "gradient", None))
            or callable(getattr(self.prior, "joint_gradient", None))
        ):
            raise PotentialError(
                f"prior={prior!r}: expected a prior such as GaussianPrior(scale=1.0), "
                "or None for a flat one"
            )
        self.prior.check(network.layout)
        self.parts = Parts(network, self.likelihood, self.prior)
        self.size = self.parts.size
        X, y = split(data)
        self._X = inputs(open_source(X), network.inputs, self._row_shape)
        self._y = self._X.y if y is None else host(y)
        self._targets = self.likelihood.targets(
            self._y, self._X.shape[0], network.outputs
        )
        self.likelihood_temperature = positive(
            "likelihood_temperature", likelihood_temperature, "1 for the posterior"
        )
        self.weights = None if weights is None else self._row_weights(weights)
        self._typed: dict[Any, tuple[Array, Array]] = {}
        self._digest: str | None = None

    def _row_weights(self, weights: Any) -> Array:
        checked = finite_array("weights", weights)
        if checked.shape != (self.n_data,) or (checked < 0).any() or not checked.any():
            raise PotentialError(
                f"weights of shape {checked.shape}: expected ({self.n_data},), one "
                "number >= 0 for each row of X, not all zero, e.g. "
                "np.where(trusted, 1.0, 0.5)"
            )
        return checked

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), "_typed": {}}
        del state["parts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.parts = Parts(self.network, self.likelihood, self.prior)

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        return self.parts.layout

    @property
    def n_data(self) -> int:
        """Number of rows N of the data."""
        return int(self._X.shape[0])

    @property
    def n_eff(self) -> float:
        """Rows that would carry the weights' information, (sum w)^2 / sum w^2.

        Kish's effective size: N for equal weights.  It says how unequal they are; the
        strength of the data in U is the sum of the weights.
        """
        w = self.weights
        return float(self.n_data if w is None else w.sum() ** 2 / (w * w).sum())

    @property
    def _row_shape(self) -> tuple[int, ...] | None:
        """Shape of an example where the network has one, e.g. of images."""
        return getattr(self.network, "input_shape", None)

    @property
    def width(self) -> int:
        """Numbers per row and replica in the widest layer."""
        own: int | None = getattr(self.network, "width", None)
        if own is not None:
            return own
        units = [shape[0] for _, shape in self.network.layout.values()]
        return max(self.network.inputs, self.network.outputs, *units)

    @property
    def constant(self) -> float:
        """Part of U that no weight changes, if q holds weights alone."""
        data = self.likelihood.constant(self.n_data, self.network.outputs)
        prior: Any = self.prior
        return data + float(prior.constant(self.network.layout))

    @property
    def weighted(self) -> bool:
        """Whether the last column of the targets of `arrays` holds rows' weights."""
        if self.weights is not None:
            return True
        if self.likelihood_temperature == 1:
            return False
        return self._core_likelihood is None or not self._compiled

    def bound_likelihood(self, q: Array, xp: Any = np) -> Any:
        """Likelihood of the targets of `arrays`, at the parameters in q (R, D)."""
        bound = self.parts.bind(q, xp)
        return Weighted(bound) if self.weighted else bound

    def arrays(self, dtype: Any) -> tuple[Array, Array]:
        """Data (X, targets) in type ``dtype``; X of a file stays as it is."""
        key = np.dtype(dtype)
        if key not in self._typed:
            X = self._X
            if not isinstance(X, (np.memmap, Source)):
                X = np.ascontiguousarray(X, key)
            targets = np.ascontiguousarray(self._targets, key)
            if self.weighted:
                w = np.ones(self.n_data) if self.weights is None else self.weights
                w = (w / self.likelihood_temperature).astype(key)
                targets = np.concatenate([targets, w[:, None]], axis=1)
            # Always read-only: one compiled kernel serves whatever was given.
            targets = targets.view()
            targets.flags.writeable = False
            if not isinstance(X, Source):
                X = np.asarray(X).view()
                X.flags.writeable = False
            self._typed[key] = X, targets
        return self._typed[key]

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; forces use all data."""
        return self._evaluator(backend, replicas, seed, None)

    def _evaluator(
        self, backend: Backend, replicas: int, seed: int, batch: Batch | None
    ) -> Evaluator:
        core = self._core_likelihood
        if self.weighted or not self._compiled or core is None:
            if streams(self._X, batch):
                return StreamEvaluator(self, backend, replicas, seed, batch)
            return ArrayEvaluator(self, backend, replicas, seed, batch)
        if (
            core is not self.likelihood
            or not hasattr(self.prior, "table")
            or self.likelihood_temperature != 1
        ):
            alone = Posterior(self.network, core, None, (self._X, self._y))
            engine = alone._evaluator(backend, replicas, seed, batch)
            return SplitEvaluator(self, engine, backend, replicas)
        if streams(self._X, batch):
            here = backend.name == "cpu"
            return StreamEvaluator(self, backend, replicas, seed, batch, compiled=here)
        if backend.name == "cuda":
            return device_evaluator(self, backend, replicas, seed, batch)
        return DenseEvaluator(self, backend, replicas, seed, batch)

    @property
    def _compiled(self) -> bool:
        """Whether the network has a compiled form."""
        network: Any = self.network
        return type(network) is MLP and network.activation in ACTIVATIONS

    @property
    def _core_likelihood(self) -> Any:
        """Compiled likelihood without parameters, of which U is made; None if none."""
        if self.parts.sampled is not None:
            return getattr(self.parts.sampled, "core", None)
        return self.likelihood if hasattr(self.likelihood, "kernel") else None

    def minibatch(
        self,
        batch_size: int = 128,
        order: str = "shuffle",
        shared: bool = False,
        *,
        strata: Any = None,
        block: int | None = None,
        buffer: int | None = None,
        control_variate: str | None = None,
        reference: Any = None,
        refresh: int | None = None,
    ) -> MinibatchPosterior:
        """Estimate forces from batches; energies and gradients stay exact.

        Parameters
        ----------
        batch_size : int
            Rows n of a batch.
        order : str
            "shuffle": a fresh permutation of the data each epoch; "replacement":
            independent uniform rows; "without": n distinct rows, independent of all
            other batches; "symmetric": shuffled epochs, each followed by its batches
            in reverse; "stratified": as "without", every class in its proportion;
            "blocks": shuffled blocks of neighbouring rows, for files.
        shared : bool
            Give all replicas the same batches.
        strata : (N,) array, optional
            Class of each row for "stratified"; the targets if not given.
        block, buffer : int, optional
            Rows read together, and shuffled together, by "blocks"; 1 MiB and 64 MiB.
        control_variate : {None, "fixed", "svrg", "saga"}
            Subtract the noise of the same batch elsewhere: see
            `mdnet.potentials.control_variates`.
        reference : (D,) or (R, D) array, optional
            Point of "fixed"; a minimum of U found by L-BFGS if not given.
        refresh : int, optional
            Force calls between points of "svrg"; an epoch if not given.

        Raises
        ------
        PotentialError
            A batch that does not fit the data, or arguments that are unknown or do
            not belong together.
        """
        return MinibatchPosterior(
            self,
            batch_size,
            order,
            shared,
            strata=strata,
            block=block,
            buffer=buffer,
            control_variate=control_variate,
            reference=reference,
            refresh=refresh,
        )

    def initial(self, replicas: int, seed: int = 0, start: str = "network") -> Array:
        """A start, (R, D) float64.

        Parameters
        ----------
        replicas : int
            R.
        seed : int
            Key of the random counters.
        start : {"network", "prior"}
            The network's initialiser, with sampled parameters of likelihood and prior
            at their medians; or a draw of everything from the prior.

        Raises
        ------
        PotentialError
            Unknown ``start``, or a prior that cannot be drawn from.
        """
        if start == "network":
            return self.parts.start(replicas, seed)
        if start == "prior":
            return self.parts.draw(replicas, seed)
        raise PotentialError(f"start={start!r}: expected 'network' or 'prior'")

    def predict(self, q: Array, X_new: Any) -> Array:
        """Parameters of p(y | x, q) at new inputs.

        Parameters
        ----------
        q : array, (R, D) or (D,)
            Weights.
        X_new : array, (n, inputs)
            Inputs.

        Returns
        -------
        array, (R, n, outputs) or (n, outputs)
            Probabilities (categorical, bernoulli), means (gaussian), rates (poisson)
            or what `mdnet.potentials.likelihoods` says; ordinal and heteroscedastic
            likelihoods have a width of their own.
        """
        rows, xp = self._batch_of(q)
        X = xp.asarray(inputs(X_new, self.network.inputs, self._row_shape))
        weights, likelihood = rows[:, self.parts.weights], self.parts.bind(rows, xp)
        out: Array = None
        for where in self._pieces(rows.shape[0], X.shape[0]):
            p = likelihood.predict(self.network.forward(weights, X[where]), xp)
            if out is None:
                out = xp.empty((p.shape[0], X.shape[0], p.shape[2]), rows.dtype)
            out[:, where] = p
        return out if np.ndim(q) == 2 else out[0]

    def log_likelihood(self, q: Array, X: Any, y: Any) -> Array:
        """Density log p(y_i | x_i, q) of each row, (R, n) or (n,) float64.

        Of one row as it is: neither weights nor the likelihood's temperature enter.

        Parameters
        ----------
        q : array, (R, D) or (D,)
            Weights.
        X, y : array
            Rows as in ``data``, e.g. held out.
        """
        points, xp = self._batch_of(q)
        rows = inputs(X, self.network.inputs, self._row_shape)
        targets = self.likelihood.targets(host(y), rows.shape[0], self.network.outputs)
        X, t = xp.asarray(rows), xp.asarray(targets)
        weights, likelihood = points[:, self.parts.weights], self.parts.bind(points, xp)
        out = xp.empty((points.shape[0], X.shape[0]), np.float64)
        for where in self._pieces(points.shape[0], X.shape[0]):
            z = self.network.forward(weights, X[where])
            out[:, where] = likelihood.log_density(z, t[where], xp)
        return out if np.ndim(q) == 2 else out[0]

    def _batch_of(self, q: Array) -> tuple[Array, Any]:
        xp = evaluator_xp(q)
        weights = xp.asarray(q)
        if weights.dtype.kind != "f":
            weights = weights.astype(np.float64)
        if weights.ndim not in (1, 2) or weights.shape[-1] != self.size:
            raise PotentialError(
                f"q has shape {weights.shape}: expected (R, {self.size}) or "
                f"({self.size},), one column per parameter"
            )
        return weights.reshape(-1, self.size), xp

    def _pieces(self, replicas: int, rows: int) -> list[slice]:
        step = max(1, SCAN // (replicas * self.width))
        return [slice(first, first + step) for first in range(0, rows, step)]

    def describe(self) -> dict[str, Any]:
        """JSON-able settings, with shapes and the SHA-256 of the data."""
        if self._digest is None:
            self._digest = digest(self._X, self._y, self.weights)
        found: dict[str, Any] = {
            "name": "Posterior",
            "network": self.network.describe(),
            "likelihood": self.likelihood.describe(),
            "prior": self.prior.describe(),
            "data": {
                "X": list(self._X.shape),
                "y": list(self._y.shape),
                "sha256": self._digest,
            },
        }
        if self.weights is not None:
            found["weights"] = {"sum": float(self.weights.sum()), "n_eff": self.n_eff}
        if self.likelihood_temperature != 1:
            found["likelihood_temperature"] = self.likelihood_temperature
        return found
