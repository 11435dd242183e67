"""Network models: functions of (weights, inputs) with a flat vector of weights.

A network knows shapes, formulas and how to start; it knows nothing of data, priors or
dynamics.  `mdnet.potentials.posterior.Posterior` turns one into a potential energy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials.activations import check_activation, gain, value_and_slope
from mdnet.potentials.base import evaluator_xp
from mdnet.potentials.initializers import Initializer, make_initializer
from mdnet.typing import Array, Layout

__all__ = ["MLP", "Network"]


class Network(Protocol):
    """What a posterior needs to know of a network."""

    @property
    def size(self) -> int:
        """Number of weights D."""

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""

    @property
    def inputs(self) -> int:
        """Width of one row of the data."""

    @property
    def outputs(self) -> int:
        """Width of one row of outputs."""

    def forward(self, q: Array, X: Array) -> Array:
        """Outputs (R, n, outputs) for weights (R, D) and inputs (n, inputs)."""

    def tape(self, q: Array, X: Array) -> tuple[Array, Any]:
        """`forward`, with what `backward` will need."""

    def backward(self, q: Array, tape: Any, delta: Array, out: Array) -> None:
        """Add the pull-back of ``delta`` (R, n, outputs) to ``out`` (R, D)."""

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start, (R, D)."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""


@dataclass(frozen=True)
class MLP:
    """A fully connected network.

    ``a_0 = x``, ``a_{l+1} = f(W_l a_l + b_l)``, the last layer without f.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the input, the hidden layers and the output.
    activation : str
        f of the hidden layers: "relu", "tanh", "silu", "gelu" (the tanh form),
        "softplus", "selu" or "identity", which run in compiled loops, or "sigmoid",
        "elu" or "leaky_relu", which run in array operations.
    bias : bool
        Whether layers have biases b_l.
    initializer : str, Initializer or None
        Start of the weights, see `mdnet.potentials.initializers`; None for normals of
        variance gain/fan-in, with the gain of the activation.

    Raises
    ------
    PotentialError
        Fewer than two sizes, a size that is not a positive integer, an unknown
        activation or an unknown initialiser.

    Notes
    -----
    Tensors are called "0.weight" (out, in), "0.bias" (out,), "1.weight", ... in the
    order in which they lie in q.

    Examples
    --------
    >>> from mdnet.potentials.networks import MLP
    >>> net = MLP([64, 32, 10], activation="tanh")
    >>> net.size, list(net.layout)
    (2410, ['0.weight', '0.bias', '1.weight', '1.bias'])
    >>> net.forward(net.initial(replicas=3), np.zeros((5, 64))).shape
    (3, 5, 10)
    """

    sizes: Sequence[int]
    activation: str = "tanh"
    bias: bool = True
    initializer: str | Initializer | None = None

    def __post_init__(self) -> None:
        sizes = self.sizes
        if isinstance(sizes, (str, bytes)) or not isinstance(
            sizes, (Sequence, np.ndarray)
        ):
            raise PotentialError(
                f"sizes={sizes!r}: expected the widths of all layers, e.g. "
                "MLP([64, 32, 10])"
            )
        whole = [
            isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0
            for n in sizes
        ]
        if len(sizes) < 2 or not all(whole):
            raise PotentialError(
                f"sizes={list(sizes)!r}: expected at least an input and an output "
                "width, all positive integers, e.g. MLP([64, 32, 10])"
            )
        object.__setattr__(self, "sizes", tuple(int(n) for n in sizes))
        check_activation(self.activation)
        object.__setattr__(self, "initializer", make_initializer(self.initializer))
        layout: dict[str, tuple[slice, tuple[int, ...]]] = {}
        at = 0
        for l, (width, out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            layout[f"{l}.weight"] = (slice(at, at + out * width), (out, width))
            at += out * width
            if self.bias:
                layout[f"{l}.bias"] = (slice(at, at + out), (out,))
                at += out
        object.__setattr__(self, "_layout", MappingProxyType(layout))
        object.__setattr__(self, "_size", at)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def size(self) -> int:
        """Number of weights D."""
        size: int = self.__dict__["_size"]
        return size

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""
        layout: Layout = self.__dict__["_layout"]
        return layout

    @property
    def inputs(self) -> int:
        """Width of one row of the data."""
        return self.sizes[0]

    @property
    def outputs(self) -> int:
        """Width of one row of outputs."""
        return self.sizes[-1]

    @property
    def layers(self) -> int:
        """Number of layers of weights."""
        return len(self.sizes) - 1

    def _tensors(self, q: Array, l: int) -> tuple[Array, Array | None]:
        where, shape = self.layout[f"{l}.weight"]
        weight = q[:, where].reshape(q.shape[0], *shape)
        if not self.bias:
            return weight, None
        return weight, q[:, None, self.layout[f"{l}.bias"][0]]

    def _check(self, q: Array, X: Array) -> None:
        if q.ndim != 2 or q.shape[1] != self.size:
            raise PotentialError(
                f"q has shape {q.shape}: expected (R, {self.size}), e.g. "
                "net.initial(replicas=R)"
            )
        if X.ndim not in (2, 3) or X.shape[-1] != self.inputs:
            raise PotentialError(
                f"X has shape {X.shape}: expected (n, {self.inputs}), one row per "
                f"example as the first size of {self!r} says"
            )

    def forward(self, q: Array, X: Array) -> Array:
        """Outputs of every replica.

        Parameters
        ----------
        q : array, (R, D)
            Weights; NumPy or CuPy.
        X : array, (n, inputs) or (R, n, inputs)
            Inputs, the same for all replicas or one set each.

        Returns
        -------
        array, (R, n, outputs)

        Raises
        ------
        PotentialError
            Shapes that do not match the network.
        """
        return self.tape(q, X)[0]

    def tape(self, q: Array, X: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """Outputs, and (input, slope of f at its input) of each layer."""
        xp = evaluator_xp(q)
        a = xp.asarray(X, dtype=q.dtype)
        self._check(q, a)
        slope = xp.ones((), q.dtype)
        record = []
        z = a
        for l in range(self.layers):
            if l > 0:
                a, slope = value_and_slope(self.activation, z, xp)
            record.append((a, slope))
            weight, bias = self._tensors(q, l)
            z = xp.matmul(a, weight.transpose(0, 2, 1))
            if bias is not None:
                z += bias
        return z, record

    def backward(
        self, q: Array, tape: list[tuple[Array, Array]], delta: Array, out: Array
    ) -> None:
        """Add ``delta . d(outputs)/dq`` to ``out``.

        Parameters
        ----------
        q : array, (R, D)
            Weights given to `tape`.
        tape : list
            Second result of `tape`.
        delta : array, (R, n, outputs)
            Derivative of a scalar by the outputs.
        out : array, (R, D)
            Added to.
        """
        xp = evaluator_xp(q)
        for l in reversed(range(self.layers)):
            a, slope = tape[l]
            weight, bias = self._tensors(q, l)
            where, _ = self.layout[f"{l}.weight"]
            gradient = xp.matmul(delta.transpose(0, 2, 1), a)
            out[:, where] += gradient.reshape(q.shape[0], -1)
            if bias is not None:
                out[:, self.layout[f"{l}.bias"][0]] += delta.sum(axis=1)
            if l > 0:
                delta = xp.matmul(delta, weight) * slope

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """Random weights: variance gain/fan-in and biases zero, or ``initializer``.

        Parameters
        ----------
        replicas : int
            R.
        seed : int
            Key of the random counters.

        Returns
        -------
        ndarray, (R, D) float64
            See `mdnet.potentials.activations.gain`.
        """
        draw: Initializer | None = self.initializer  # type: ignore[assignment]
        if draw is not None:
            return draw(self, replicas, seed)
        q = random.normals(
            seed, np.arange(replicas), 0, random.STREAM_INITIAL, self.size
        )
        for name, (where, shape) in self.layout.items():
            weight = name.endswith("weight")
            q[:, where] *= np.sqrt(gain(self.activation) / shape[-1]) if weight else 0.0
        return q

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        found: dict[str, Any] = {
            "name": "MLP",
            "sizes": list(self.sizes),
            "activation": self.activation,
            "bias": bool(self.bias),
        }
        draw: Initializer | None = self.initializer  # type: ignore[assignment]
        return found if draw is None else {**found, "initializer": draw.describe()}
