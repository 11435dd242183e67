"""Networks of layers, one after another, as functions of flat vectors of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mdnet.errors import PotentialError
from mdnet.potentials import activations
from mdnet.potentials._chain import Chain
from mdnet.potentials._layer import Layer, Shape, Tensor, numbers, whole
from mdnet.potentials._sinks import Sink, Sum
from mdnet.potentials.base import evaluator_xp
from mdnet.potentials.initializers import Initializer, fill, make_initializer
from mdnet.potentials.layers import Activation, Dense, Flatten
from mdnet.potentials.networks import MLP
from mdnet.typing import Array, Layout

__all__ = ["LayerMoments", "Sequential", "as_sequential", "layer_moments"]


@dataclass(frozen=True)
class Sequential:
    """A network of layers, each fed by the one before.

    Parameters
    ----------
    layers : sequence of Layer
        E.g. ``[Conv2d(1, 6, 5), Activation("tanh"), Flatten(), Dense(3456, 10)]``.
    input_shape : int or tuple of int
        Shape of an example: 64, or (channels, height, width).
    initializer : str, Initializer or None
        Start of the weights, see `mdnet.potentials.initializers`; None gives each
        tensor the variance gain/fan-in of the activation that follows it.

    Raises
    ------
    PotentialError
        Something that is no layer, layers that do not fit each other, or outputs that
        are not vectors.

    Notes
    -----
    Tensors lie in q in the order, and have the names, of PyTorch's ``nn.Sequential``:
    "0.weight" (out, in, height, width), "0.bias", "3.weight", ...  Data are rows (n,
    inputs), or (n, *input_shape) where a posterior takes them.

    Examples
    --------
    >>> from mdnet.potentials.layers import Activation, Conv2d, Dense, Flatten
    >>> net = Sequential(
    ...     [Conv2d(1, 4, 3), Activation("tanh"), Flatten(), Dense(144, 10)],
    ...     input_shape=(1, 8, 8),
    ... )
    >>> net.size, list(net.layout)
    (1490, ['0.weight', '0.bias', '3.weight', '3.bias'])
    >>> net.forward(net.initial(replicas=3), np.zeros((5, 64))).shape
    (3, 5, 10)
    """

    layers: Sequence[Layer]
    input_shape: int | Shape
    initializer: str | Initializer | None = None

    def __post_init__(self) -> None:
        chain = Chain(self.layers)
        given = self.input_shape
        if not isinstance(given, (tuple, list)):
            given = (given,)
        shape = tuple(whole("Sequential", "input_shape", n) for n in given)
        if not shape:
            raise PotentialError(
                "Sequential: input_shape=(): expected e.g. 64 or (1, 28, 28)"
            )
        shapes = chain.shapes(shape)
        if len(shapes[-1]) != 1:
            raise PotentialError(
                f"layers end with examples of shape {shapes[-1]}: expected vectors; "
                "end with Flatten() and Dense(...)"
            )
        layout: dict[str, tuple[slice, Shape]] = {}
        at = 0
        for name, tensor in chain.tensors().items():
            layout[name] = (slice(at, at + numbers(tensor.shape)), tensor.shape)
            at = layout[name][0].stop
        if not layout:
            raise PotentialError("layers have no weights: expected at least one Dense")
        work = chain.work(shape)
        plain = next((x for x in chain.layers if not isinstance(x, Flatten)), None)
        for name, value in (
            ("layers", chain.layers),
            ("input_shape", shape),
            ("initializer", make_initializer(self.initializer)),
            ("_chain", chain),
            ("_layout", MappingProxyType(layout)),
            ("_size", at),
            ("_outputs", shapes[-1][0]),
            ("_width", max(numbers(shape), max(work), sum(work) // 4)),
            ("_turned", isinstance(plain, Dense)),  # takes a transposed view as it is
        ):
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def chain(self) -> Chain:
        """The layers, and where each finds its tensors."""
        chain: Chain = self.__dict__["_chain"]
        return chain

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
        return numbers(self._shape)

    @property
    def outputs(self) -> int:
        """Width of one row of outputs."""
        outputs: int = self.__dict__["_outputs"]
        return outputs

    @property
    def width(self) -> int:
        """Numbers of an example and replica in the widest layer, windows included.

        At least a quarter of what a pass keeps, where there are many layers.
        """
        width: int = self.__dict__["_width"]
        return width

    @property
    def smooth(self) -> bool:
        """Whether second derivatives exist everywhere: no kinks."""
        return self.chain.smooth

    @property
    def _shape(self) -> Shape:
        return self.input_shape  # type: ignore[return-value]

    def tensors(self) -> Mapping[str, Tensor]:
        """Shape and kind of each tensor, in the order of the layout."""
        return self.chain.tensors()

    def weights(self, q: Array) -> list[Array]:
        """Views (R, *shape) of the tensors inside q (R, D)."""
        rows = q.shape[0]
        return [q[:, w].reshape(rows, *shape) for w, shape in self.layout.values()]

    def examples(self, q: Array, X: Array) -> Array:
        """Inputs as layers take them, (R or 1, *input_shape, n), in the type of q.

        Raises
        ------
        PotentialError
            Shapes that do not match the network.
        """
        xp = evaluator_xp(q)
        x = xp.asarray(X, dtype=q.dtype)
        if q.ndim != 2 or q.shape[1] != self.size:
            raise PotentialError(
                f"q has shape {q.shape}: expected (R, {self.size}), e.g. "
                "net.initial(replicas=R)"
            )
        if x.ndim not in (2, 3) or x.shape[-1] != self.inputs:
            raise PotentialError(
                f"X has shape {x.shape}: expected (n, {self.inputs}), one row per "
                f"example of shape {self._shape}; reshape with X.reshape(len(X), -1)"
            )
        if x.ndim == 3 and x.shape[0] != q.shape[0]:
            raise PotentialError(
                f"X has shape {x.shape}: expected ({q.shape[0]}, n, {self.inputs}), "
                f"one set of rows per replica, or (n, {self.inputs}) for all"
            )
        x = (x if x.ndim == 3 else x[None]).swapaxes(1, 2)
        if not self.__dict__["_turned"]:
            x = xp.ascontiguousarray(x)
        return x.reshape(x.shape[0], *self._shape, x.shape[-1])

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
        z = x = self.examples(q, X)
        for y, _ in self.chain.steps(self.weights(q), x):
            z = y  # the records are dropped as they come
        return _rows(z)

    def tape(self, q: Array, X: Array) -> tuple[Array, list[Any]]:
        """`forward`, with what the reverse passes will need."""
        z, records = self.chain.forward(self.weights(q), self.examples(q, X))
        return _rows(z), records

    def backward(self, q: Array, tape: list[Any], delta: Array, out: Array) -> None:
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
        self.pull(q, tape, delta, Sum(self.weights(out)))

    def pull(self, q: Array, tape: list[Any], delta: Array, sink: Sink) -> None:
        """`backward` into any sink, see `mdnet.potentials._sinks`."""
        self.chain.backward(self.weights(q), tape, _columns(delta), sink, False)

    def tangent(self, q: Array, v: Array, tape: list[Any]) -> tuple[Array, list[Any]]:
        """Derivative of the outputs along v, (R, n, outputs), and its own tape.

        Parameters
        ----------
        q : array, (R, D)
            Weights given to `tape`.
        v : array, (R, D)
            Direction.
        tape : list
            Second result of `tape`.
        """
        dz, dots = self.chain.tangent(self.weights(q), self.weights(v), tape, None)
        return _rows(dz), dots

    def second(
        self,
        q: Array,
        v: Array,
        tape: list[Any],
        dots: list[Any],
        delta: Array,
        ddelta: Array,
        out: Array,
    ) -> None:
        """Add the derivative of `backward`'s result along v to ``out``.

        Parameters
        ----------
        q, v : array, (R, D)
            Weights, and the direction in which they move.
        tape, dots : list
            Second results of `tape` and of `tangent`.
        delta, ddelta : array, (R, n, outputs)
            Derivative of a scalar by the outputs, and how that moves along v.
        out : array, (R, D)
            Added to.
        """
        w, direction, sink = self.weights(q), self.weights(v), Sum(self.weights(out))
        self.chain.second(
            w, direction, tape, dots, _columns(delta), _columns(ddelta), sink, False
        )

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start, (R, D) float64, see ``initializer``."""
        if self.initializer is None:
            return fill(self, replicas, seed, _gains("", self.chain.layers))
        draw: Initializer = self.initializer  # type: ignore[assignment]
        return draw(self, replicas, seed)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        found: dict[str, Any] = {
            "name": "Sequential",
            "layers": self.chain.describe(),
            "input_shape": list(self._shape),
        }
        if self.initializer is not None:
            found["initializer"] = self.initializer.describe()  # type: ignore[union-attr]
        return found


def _rows(z: Array) -> Array:
    """(R, K, n) as (R, n, K)."""
    return evaluator_xp(z).ascontiguousarray(z.swapaxes(1, 2))


def _columns(delta: Array) -> Array:
    """(R, n, K) as a copy (R, K, n), which layers may overwrite."""
    return delta.swapaxes(1, 2).copy()


def _gains(prefix: str, layers: Sequence[Any]) -> dict[str, float]:
    """Gain of each tensor: that of the activation after it, 1 if none follows."""
    found: dict[str, float] = {}
    gain = 1.0
    for i, layer in reversed(list(enumerate(layers))):
        if isinstance(layer, Activation):
            gain = activations.gain(layer.name)
        names = layer.tensors()
        found |= {f"{prefix}{i}.{name}": gain for name in names}
        if hasattr(layer, "layers"):
            found |= _gains(f"{prefix}{i}.", layer.layers)
        if any(t.kind in ("product", "window", "table") for t in names.values()):
            gain = 1.0
    return found


def as_sequential(network: Any) -> Sequential:
    """The same function of the same q as layers: an `MLP`, or a `Sequential` itself.

    Raises
    ------
    PotentialError
        Another kind of network.
    """
    if isinstance(network, Sequential):
        return network
    if not isinstance(network, MLP):
        raise PotentialError(
            f"network={type(network).__name__}: expected an MLP or a Sequential, "
            "whose layers are known; build it as Sequential([...], input_shape=...)"
        )
    layers: list[Layer] = []
    for inputs, outputs in zip(network.sizes, network.sizes[1:], strict=False):
        layers += [Dense(inputs, outputs, network.bias), Activation(network.activation)]
    return Sequential(layers[:-1], input_shape=network.inputs)


class LayerMoments(NamedTuple):
    """Mean and variance of what leaves each layer; both (R, layers)."""

    layers: tuple[str, ...]
    mean: Array
    variance: Array


def layer_moments(network: Any, q: Array, X: Array) -> LayerMoments:
    """Mean and variance over units and examples after each layer.

    Parameters
    ----------
    network : MLP or Sequential
    q : array, (R, D)
        Weights.
    X : array, (n, inputs)
        Inputs.

    Examples
    --------
    A deep "selu" network keeps mean 0 and variance 1 (Klambauer et al. 2017,
    arXiv:1706.02515):

    >>> from mdnet.potentials.networks import MLP
    >>> net = MLP([256] * 9, activation="selu", bias=False)
    >>> X = np.random.default_rng(0).standard_normal((500, 256))
    >>> found = layer_moments(net, net.initial(1, seed=3), X)
    >>> bool(abs(found.variance[0, -2] - 1) < 0.2)
    True
    """
    net = as_sequential(network)
    names, means, variances = [], [], []
    steps = net.chain.steps(net.weights(q), net.examples(q, X))
    for i, (layer, (x, _)) in enumerate(zip(net.chain.layers, steps, strict=True)):
        axes = tuple(range(1, x.ndim))
        names.append(f"{i}.{type(layer).__name__}")
        means.append(x.mean(axis=axes, dtype=np.float64))
        variances.append(x.var(axis=axes, dtype=np.float64))
    xp = evaluator_xp(q)
    wide = xp.zeros((len(names), q.shape[0]))  # layers before the weights have one row
    mean, variance = (
        xp.stack([w + m for w, m in zip(wide, found, strict=True)], axis=1)
        for found in (means, variances)
    )
    return LayerMoments(tuple(names), mean, variance)
