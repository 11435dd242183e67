"""Hidden units of a network and the tensors that touch them.

A hidden unit (a channel, after a convolution) may be exchanged with another of its
layer, turned over if what follows is odd, and stretched if what follows is homogeneous:
its incoming weights are the rows of one tensor and a bias, its outgoing ones columns of
the next tensor.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.typing import Array

__all__ = ["Hidden", "hidden_layers", "network_of", "rows_of"]

_ODD = ("identity", "tanh")
_HOMOGENEOUS = ("identity", "relu", "leaky_relu")
_POOLS = ("AvgPool2d", "MaxPool2d")


@dataclass(frozen=True, slots=True)
class Hidden:
    """One hidden layer.

    Attributes
    ----------
    name : str
        Of the tensor whose rows lead into it.
    units : int
        n.
    incoming : tuple of slice
        Tensors with one row a unit.
    outgoing : slice
        The tensor with one column, or block of columns, a unit.
    outputs : int
        Rows of that tensor.
    odd, homogeneous : bool
        Whether f(-x) = -f(x), and whether f(a x) = a f(x) for a > 0.
    """

    name: str
    units: int
    incoming: tuple[slice, ...]
    outgoing: slice
    outputs: int
    odd: bool
    homogeneous: bool

    def into(self, q: Array) -> list[Array]:
        """Views (R, n, k) of the incoming weights of (R, D)."""
        return [
            q[:, part].reshape(q.shape[0], self.units, -1) for part in self.incoming
        ]

    def out_of(self, q: Array) -> Array:
        """View (R, outputs, n, k) of the outgoing weights of (R, D)."""
        return q[:, self.outgoing].reshape(q.shape[0], self.outputs, self.units, -1)


def network_of(thing: Any) -> Any:
    """The network itself, or that of a posterior.

    Raises
    ------
    PotentialError
        Something without a network.
    """
    candidates: tuple[Any, ...] = (thing, getattr(thing, "full", None))
    for one in candidates:
        if callable(getattr(one, "forward", None)) and hasattr(one, "layout"):
            return one
        if hasattr(one, "network"):
            return one.network
    raise PotentialError(
        f"{type(thing).__name__} has no network: expected a network such as "
        "MLP([64, 32, 10]), or the Posterior made of one"
    )


def hidden_layers(network: Any) -> tuple[Hidden, ...]:
    """Hidden layers of an `MLP`, or of a `Sequential` of plain layers.

    Raises
    ------
    PotentialError
        A network whose units are tied in other ways.
    """
    if hasattr(network, "activation"):
        name = network.activation
        weighted = [(str(l), [name]) for l in range(len(network.sizes) - 1)]
    else:
        weighted = _sequence(network)
    layout, found = network.layout, []
    for (here, between), (there, _) in itertools.pairwise(weighted):
        part, shape = layout[f"{here}.weight"]
        incoming = [part]
        if f"{here}.bias" in layout:
            incoming.append(layout[f"{here}.bias"][0])
        outgoing, next_shape = layout[f"{there}.weight"]
        if next_shape[1] % shape[0]:
            raise PotentialError(
                f"tensors {here}.weight {shape} and {there}.weight {next_shape} do not "
                "share hidden units"
            )
        found.append(
            Hidden(
                name=f"{here}.weight",
                units=shape[0],
                incoming=tuple(incoming),
                outgoing=outgoing,
                outputs=next_shape[0],
                odd=all(step in (*_ODD, "AvgPool2d") for step in between),
                homogeneous=all(step in (*_HOMOGENEOUS, *_POOLS) for step in between),
            )
        )
    if not found:
        raise PotentialError(
            f"{network!r} has no hidden layer: nothing to exchange or to turn over"
        )
    return tuple(found)


def _sequence(network: Any) -> list[tuple[str, list[str]]]:
    """Index of each weighted layer of a `Sequential`, and what follows it."""
    out: list[tuple[str, list[str]]] = []
    for i, layer in enumerate(getattr(network, "layers", ())):
        kind = type(layer).__name__
        if kind in ("Dense", "Conv2d"):
            out.append((str(i), []))
        elif kind == "Activation" and out:
            out[-1][1].append(layer.name)
        elif kind in _POOLS and out:
            out[-1][1].append(kind)
        elif kind not in ("Flatten", "Activation", *_POOLS):
            raise PotentialError(
                f"layers[{i}]={layer!r} ties hidden units together: the gauge is "
                "known for Dense, Conv2d, Activation, Flatten and pooling"
            )
    if not out:
        raise PotentialError(
            f"{type(network).__name__}: the gauge is known for MLP and for Sequential"
        )
    return out


def rows_of(q: Any, network: Any) -> tuple[Array, tuple[int, ...]]:
    """Positions as (R, D), and the shape they had.

    Raises
    ------
    PotentialError
        Another number of weights than the network's.
    """
    shape = np.shape(q)
    if not shape or shape[-1] != network.size:
        raise PotentialError(
            f"q has shape {shape}: expected (..., {network.size}), the weights of "
            f"{type(network).__name__}"
        )
    return q.reshape(-1, network.size), shape
