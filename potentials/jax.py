"""JAX functions as potentials, and weights back into their trees.

    U = potentials.from_jax(apply, params, likelihood="categorical", data=(X, y))
    ...
    params = potentials.to_jax(U, run, frame=-1, replica=0)

JAX is imported when `from_jax` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.potentials._foreign import examples, weights_of
from mdnet.potentials._jax_network import JaxEvaluator, JaxNetwork, jax_package
from mdnet.potentials.evaluators import Batch, streams
from mdnet.potentials.likelihoods import Likelihood
from mdnet.potentials.posterior import Posterior
from mdnet.potentials.priors import GaussianPrior, Prior
from mdnet.potentials.stochastic import MinibatchPosterior
from mdnet.typing import Evaluator

__all__ = ["JaxPosterior", "from_jax", "to_jax"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)


class JaxPosterior(Posterior):
    """A posterior over the parameters of a JAX function; see `from_jax`.

    Attributes
    ----------
    host_reason : str
        Why JAX cannot trace the likelihood, which then runs in NumPy or CuPy between
        two compiled calls; empty if it can.
    """

    def __init__(
        self,
        network: Any,
        likelihood: str | Likelihood,
        prior: Prior | None,
        data: Any,
        weights: Any = None,
        likelihood_temperature: float = 1.0,
    ) -> None:
        super().__init__(
            network, likelihood, prior, data, weights, likelihood_temperature
        )
        self.host_reason = self._untraceable()
        self._calls: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_calls": None}

    @property
    def calls(self) -> Any:
        """Compiled functions of all engines; see `JaxNetwork.calls`."""
        if self._calls is None:
            network: Any = self.network
            self._calls = network.calls(self.bound_likelihood(None))
        return self._calls

    def to_jax(self, weights: Any, frame: int = -1, replica: int = 0) -> Any:
        """Parameters in their tree; see the function `to_jax`."""
        return to_jax(self, weights, frame, replica)

    def _untraceable(self) -> str:
        if self.parts.sampled is not None:
            return "the likelihood samples parameters of its own"
        jax = jax_package()
        z = jax.ShapeDtypeStruct((1, 1, self.network.outputs), np.float32)
        t = jax.ShapeDtypeStruct((1, self._targets.shape[1]), np.float32)
        for method in (self.likelihood.residual, self.likelihood.log_density):
            try:
                jax.eval_shape(partial(method, xp=jax.numpy), z, t)
            except Exception as error:  # whatever a user's likelihood may raise
                return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return ""

    def _evaluator(
        self, backend: Backend, replicas: int, seed: int, batch: Batch | None
    ) -> Evaluator:
        if self.host_reason or streams(self._X, batch):
            return super()._evaluator(backend, replicas, seed, batch)
        return JaxEvaluator(self, backend, replicas, seed, batch)


def from_jax(
    apply: Callable[[Any, Any], Any],
    params: Any,
    likelihood: str | Likelihood = "categorical",
    prior: Prior | None = _DEFAULT_PRIOR,
    data: tuple[Any, Any] | None = None,
    *,
    name: str | None = None,
    init: Callable[[Any], Any] | None = None,
    weights: Any = None,
    likelihood_temperature: float = 1.0,
) -> JaxPosterior:
    """Potential energy of the parameters of any JAX function.

    U(q) = -sum_i log p(y_i | apply(params, x_i)) - log prior(params), as in
    `Posterior`; all that works on a posterior works on it.

    Parameters
    ----------
    apply : callable
        ``apply(params, X)``, pure, takes rows X (n, ...) and returns (n, outputs) or
        (n,): logits for "categorical" and "bernoulli", means for "gaussian".  Compiled
        once for each shape; replicas by ``jax.vmap``.
    params : pytree of floating-point arrays
        Flax's ``params``, Haiku's, or plain dicts and lists.  Tensors are called by
        their path, "layers.0.w".  ``U.initial`` starts all replicas there.
    likelihood : str or Likelihood
        As in `Posterior`.  Compiled with the rest if JAX can trace it with
        ``xp=jax.numpy``; see `JaxPosterior.host_reason`.
    prior : Prior or None
        As in `Posterior`.
    data : (X, y)
        X (N, ...) of any shape that ``apply`` takes, or what else `Posterior` reads;
        integers that it takes only as integers (tokens) are given to it as such.
    name : str, optional
        What identifies ``apply`` in the file, checked on resuming; its qualified name
        by default, to which a method adds its model.  Give one to a lambda.
    init : callable, optional
        ``init(key)`` returns fresh params; ``U.initial`` then draws each replica's.
    weights, likelihood_temperature
        As in `Posterior`.

    Returns
    -------
    JaxPosterior

    Raises
    ------
    PotentialError
        Leaves that are not real arrays, outputs that are not one array (n, outputs),
        rows that see each other, data that do not fit.
    BackendError
        JAX is missing, or sees no GPU where the backend is "cuda".

    Notes
    -----
    The precision is the simulation's: double precision is switched on around calls
    that need it, whatever ``jax_enable_x64`` says.
    """
    jax_package()
    data, few = examples(data)
    network = JaxNetwork(apply, params, few, name, init)
    return JaxPosterior(
        network, likelihood, prior, data, weights, likelihood_temperature
    )


def to_jax(target: Any, weights: Any, frame: int = -1, replica: int = 0) -> Any:
    """Sampled weights as a pytree.

    Parameters
    ----------
    target : potential of `from_jax`
        Knows the tree.
    weights : Run or array, (D,), (R, D) or (T, R, D)
        A trajectory (`mdnet.open`), a record in memory, or weights such as
        ``sim.state.positions``.
    frame, replica : int
        Which of them, along the axes that ``weights`` has.

    Returns
    -------
    pytree
        Shaped as ``params``, of JAX arrays.

    Raises
    ------
    PotentialError
        Weights of other tensors or another size, or an index out of range.
    """
    if isinstance(target, MinibatchPosterior):
        target = target.full
    if not isinstance(target, JaxPosterior):
        raise PotentialError(
            f"target={type(target).__name__}: expected a potential made by from_jax"
        )
    q = weights_of(weights, target.layout, target.size, frame, replica)
    network: Any = target.network
    return network.unflatten(jax_package().numpy.asarray(q))
