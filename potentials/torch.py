"""PyTorch modules as potentials, and weights back into them.

    U = potentials.from_torch(module, likelihood="categorical", data=(X, y))
    ...
    potentials.to_torch(U, run, frame=-1, replica=0)

Torch is imported when `from_torch` is called.
"""

from __future__ import annotations

from typing import Any

from mdnet.errors import PotentialError
from mdnet.potentials._foreign import examples, layout_of, weights_of
from mdnet.potentials._torch_network import TorchNetwork, torch_package, trainable
from mdnet.potentials.likelihoods import Likelihood
from mdnet.potentials.posterior import Posterior
from mdnet.potentials.priors import GaussianPrior, Prior
from mdnet.potentials.stochastic import MinibatchPosterior

__all__ = ["TorchPosterior", "from_torch", "to_torch"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)


class TorchPosterior(Posterior):
    """A posterior over the weights of a ``torch.nn.Module``; see `from_torch`."""

    def to_torch(self, weights: Any, frame: int = -1, replica: int = 0) -> Any:
        """Write weights into the module and return it; see the function `to_torch`."""
        return to_torch(self, weights, frame, replica)


def from_torch(
    module: Any,
    likelihood: str | Likelihood = "categorical",
    prior: Prior | None = _DEFAULT_PRIOR,
    data: tuple[Any, Any] | None = None,
    *,
    vectorize: str = "auto",
    start: str = "module",
    weights: Any = None,
    likelihood_temperature: float = 1.0,
) -> TorchPosterior:
    """Potential energy of the weights of any PyTorch module.

    U(q) = -sum_i log p(y_i | module(x_i; q)) - log prior(q), as in `Posterior`; all
    that works on a posterior (minibatches, priors, tempering, every integrator, files
    and their resumption) works on it.

    Parameters
    ----------
    module : torch.nn.Module
        Takes rows (n, ...), returns (n, outputs) or (n,): logits for "categorical"
        and "bernoulli", means for "gaussian".  Parameters with ``requires_grad`` are
        sampled under their names in the ``state_dict``, a tensor shared by several
        layers once, under its first name.  Frozen parameters and buffers stay as they
        are.  The potential keeps a copy: what is done to the module later changes
        nothing.
    likelihood : str or Likelihood
        As in `Posterior`.
    prior : Prior or None
        As in `Posterior`; scales by tensor take the names of the ``state_dict``.
    data : (X, y)
        X (N, ...) of any shape the module takes, arrays or tensors, or what else
        `Posterior` reads, e.g. a ``torch.utils.data.Dataset``; integers that the
        module takes only as integers (tokens) are given to it as such.
    vectorize : {"auto", "vmap", "loop"}
        How replicas are evaluated: all in one call through ``torch.func.vmap``, or
        one after the other.  "auto" takes the faster: on a CPU a loop for
        convolutions and for much work a replica, and wherever vmap refuses a layer;
        the reason is then in ``U.network.loop_reason``.
    start : {"module", "reset"}
        What ``U.initial`` gives: the module's weights to every replica, or fresh ones
        for each, drawn by ``reset_parameters()`` of its layers.
    weights, likelihood_temperature
        As in `Posterior`.

    Returns
    -------
    TorchPosterior

    Raises
    ------
    PotentialError
        A module whose loss is not a function of the weights (BatchNorm or dropout in
        train mode, batch statistics, noise), parameters that are not real, outputs
        that are not one tensor (n, outputs), data that do not fit.
    BackendError
        PyTorch is missing, or has no CUDA where the backend is "cuda".

    Notes
    -----
    Arrays are not copied on their way: NumPy arrays share their memory with tensors,
    CuPy arrays go through DLPack.  Weights and constants have the precision of the
    simulation, whatever the module's own.
    """
    torch_package()
    trainable(module)
    if vectorize not in ("auto", "vmap", "loop"):
        raise PotentialError(
            f"vectorize={vectorize!r}: expected 'auto', 'vmap' or 'loop'"
        )
    if start not in ("module", "reset"):
        raise PotentialError(
            f"start={start!r}: expected 'module' (its weights) or 'reset' (fresh ones)"
        )
    data, few = examples(data)
    network: Any = TorchNetwork(module, few, vectorize, start == "reset")
    return TorchPosterior(
        network, likelihood, prior, data, weights, likelihood_temperature
    )


def to_torch(target: Any, weights: Any, frame: int = -1, replica: int = 0) -> Any:
    """Write sampled weights into a module.

    Parameters
    ----------
    target : torch.nn.Module or potential of `from_torch`
        The module that is written to; of a potential, the one it was made from.
    weights : Run or array, (D,), (R, D) or (T, R, D)
        A trajectory (`mdnet.open`), a record in memory, or weights such as
        ``sim.state.positions``.
    frame, replica : int
        Which of them, along the axes that ``weights`` has.

    Returns
    -------
    torch.nn.Module
        ``target``'s module, its trainable parameters replaced in place.

    Raises
    ------
    PotentialError
        Weights of other tensors or another size, or an index out of range.
    """
    torch = torch_package()
    if isinstance(target, MinibatchPosterior):
        target = target.full
    if isinstance(target, TorchPosterior):
        module: Any = getattr(target.network, "module", None)
        whole = target.layout, target.size
    else:
        module, whole = target, None
    parameters = trainable(module)
    layout, size = layout_of({name: tuple(p.shape) for name, p in parameters.items()})
    q = weights_of(weights, *(whole or (layout, size)), frame, replica)
    with torch.no_grad():
        for name, (where, shape) in layout.items():
            parameters[name].copy_(torch.from_numpy(q[where].reshape(shape)))
    return module
