r"""Weights that are the same network: exchange, sign and scale of hidden units.

==========================  ==================================  =====================
`permute`                   units of a hidden layer exchanged   any activation
`signs`                     a unit's weights in and out turned  odd ones, as tanh
`rescale`, `balance`        weights in times a, out over a      ReLU and its like
==========================  ==================================  =====================

The first two leave the posterior as it is (a prior that is the same for all weights of
a tensor, at least); the third leaves the likelihood, and a prior chooses.  A sampled
posterior holds every one of the n! 2^n copies of a layer of n tanh units, so that
weights of two replicas cannot be compared before they are brought to one gauge:
`align` finds the copy nearest to a reference.

References
----------
S. K. Ainsworth, J. Hayase, S. Srinivasa, "Git re-basin", ICLR 2023,
doi:10.48550/arXiv.2209.04836.
H. J. Sussmann, Neural Networks 5, 589 (1992), doi:10.1016/S0893-6080(05)80037-1, for
tanh networks: there are no other symmetries of exchange and sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mdnet.errors import PotentialError
from mdnet.potentials._checks import finite_array
from mdnet.potentials._hidden import Hidden, hidden_layers, network_of, rows_of
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array

__all__ = ["Aligned", "align", "balance", "permute", "rescale", "signs"]

F = npt.NDArray[np.float64]
I = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Weights in the gauge of a reference.

    Attributes
    ----------
    positions : ndarray, (..., D)
        Shaped as what was given.
    permutations : tuple of ndarray, (..., n) int
        For each hidden layer: which unit of the original is now at each place.
    signs : tuple of ndarray, (..., n)
        1, or -1 for units that were turned over.
    distance, distance_before : ndarray, (...)
        Euclidean distance to the reference, now and before.
    reference : ndarray, (D,)
    """

    positions: F
    permutations: tuple[I, ...]
    signs: tuple[F, ...]
    distance: F
    distance_before: F
    reference: F


# --- the symmetries -------------------------------------------------------------------


def _each(
    name: str, values: Any, layers: tuple[Hidden, ...], rows: int, xp: Any
) -> list[Array]:
    """One array (n,) or (R, n) for each hidden layer, as (1 or R, n)."""
    given = values if isinstance(values, Sequence) else [values]
    if len(given) != len(layers):
        raise PotentialError(
            f"{name} has {len(given)} arrays: expected {len(layers)}, one for each "
            f"hidden layer, of {[layer.units for layer in layers]} units"
        )
    out = []
    for layer, value in zip(layers, given, strict=True):
        array = xp.asarray(value)
        if array.shape not in ((layer.units,), (rows, layer.units)):
            raise PotentialError(
                f"{name} of {layer.name} has shape {array.shape}: expected "
                f"({layer.units},) or ({rows}, {layer.units}), a value a unit"
            )
        out.append(array.reshape(-1, layer.units))
    return out


def _exchange(q: Array, layer: Hidden, order: Array, xp: Any) -> None:
    """Put unit ``order[i]`` at place i, in place; ``order`` is (1 or R, n)."""
    for part in layer.into(q):
        part[...] = xp.take_along_axis(part, order[:, :, None], axis=1)
    out = layer.out_of(q)
    out[...] = xp.take_along_axis(out, order[:, None, :, None], axis=2)


def _stretch(q: Array, layer: Hidden, factors: Array, inverse: Array) -> None:
    """Multiply weights in by ``factors`` and out by ``inverse``, in place."""
    for part in layer.into(q):
        part *= factors[:, :, None]
    out = layer.out_of(q)
    out *= inverse[:, None, :, None]


def _prepared(q: Any, thing: Any) -> tuple[Any, Any, Array, Any]:
    network = network_of(thing)
    xp = evaluator_xp(q)
    rows, shape = rows_of(xp.asarray(q), network)
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float64)
    return hidden_layers(network), shape, rows.copy(), xp


def permute(q: Array, network: Any, permutations: Any) -> Array:
    """Exchange hidden units: place i of a layer gets unit ``permutation[i]``.

    Parameters
    ----------
    q : array, (..., D)
        Weights; not changed.
    network : Network or Posterior
        `MLP`, or `Sequential` of dense and convolutional layers (whose channels are
        exchanged).
    permutations : sequence of int arrays, (n,) or (R, n)
        One for each hidden layer.

    Returns
    -------
    array, (..., D)
        The same function, with the same energy.

    Raises
    ------
    PotentialError
        Arrays that are no permutations, or do not fit the network.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> net = potentials.MLP([1, 3, 1], bias=False)
    >>> potentials.gauge.permute(np.arange(6.0), net, [[2, 0, 1]])
    array([2., 0., 1., 5., 3., 4.])
    """
    layers, shape, rows, xp = _prepared(q, network)
    orders = _each("permutations", permutations, layers, rows.shape[0], xp)
    for layer, order in zip(layers, orders, strict=True):
        if not bool((xp.sort(order, axis=1) == xp.arange(layer.units)).all()):
            raise PotentialError(
                f"permutations of {layer.name}: expected each of 0 to "
                f"{layer.units - 1} once, as numpy.random.permutation({layer.units})"
            )
        _exchange(rows, layer, order, xp)
    return rows.reshape(shape)


def signs(q: Array, network: Any, values: Any) -> Array:
    """Turn hidden units over: all weights in and out of a unit times -1.

    Parameters
    ----------
    q : array, (..., D)
        Weights; not changed.
    network : Network or Posterior
        With odd activations: tanh or identity.
    values : sequence of arrays, (n,) or (R, n)
        1 or -1 for each unit of each hidden layer.

    Returns
    -------
    array, (..., D)
        The same function, with the same energy.

    Raises
    ------
    PotentialError
        Other values, or a layer whose activation is not odd.
    """
    layers, shape, rows, xp = _prepared(q, network)
    factors = _each("values", values, layers, rows.shape[0], xp)
    for layer, factor in zip(layers, factors, strict=True):
        if not bool((xp.abs(factor) == 1).all()):
            raise PotentialError(f"values of {layer.name}: expected 1 and -1 only")
        if not layer.odd and bool((factor != 1).any()):
            raise PotentialError(
                f"units of {layer.name} have no sign: what follows them is not odd "
                "(tanh is)"
            )
        _stretch(rows, layer, factor, factor)
    return rows.reshape(shape)


def rescale(q: Array, network: Any, factors: Any) -> Array:
    """Stretch hidden units: weights in times a > 0, weights out over a.

    Parameters
    ----------
    q : array, (..., D)
        Weights; not changed.
    network : Network or Posterior
        With homogeneous activations: relu, leaky_relu or identity.
    factors : sequence of arrays, (n,) or (R, n)
        a of each unit of each hidden layer.

    Returns
    -------
    array, (..., D)
        The same function and likelihood; a prior tells the two apart.

    Raises
    ------
    PotentialError
        Values that are not positive, or a layer whose activation is not homogeneous.
    """
    layers, shape, rows, xp = _prepared(q, network)
    given = _each("factors", factors, layers, rows.shape[0], xp)
    for layer, factor in zip(layers, given, strict=True):
        if not bool(((factor > 0) & xp.isfinite(factor)).all()):
            raise PotentialError(f"factors of {layer.name}: expected numbers > 0")
        _homogeneous(layer)
        _stretch(rows, layer, factor, 1 / factor)
    return rows.reshape(shape)


def _homogeneous(layer: Hidden) -> None:
    if not layer.homogeneous:
        raise PotentialError(
            f"units of {layer.name} have no scale: what follows them is not "
            "homogeneous (relu is)"
        )


def balance(
    q: Array, network: Any, tolerance: float = 1e-12, sweeps: int = 1000
) -> Array:
    """Bring weights to the balanced gauge: equal norms into and out of every unit.

    Of all rescalings it is the one of least total norm.  Units without weights on one
    side are left alone.

    Parameters
    ----------
    q : array, (..., D)
        Weights; not changed.
    network : Network or Posterior
        With homogeneous activations.
    tolerance : float
        Largest |ln a| of the last sweep over the layers.
    sweeps : int
        At most; with one hidden layer the first is exact.

    Raises
    ------
    PotentialError
        A layer whose activation is not homogeneous.
    """
    layers, shape, rows, xp = _prepared(q, network)
    for layer in layers:
        _homogeneous(layer)
    for _ in range(sweeps):
        largest = 0.0
        for layer in layers:
            inside = sum((part * part).sum(axis=2) for part in layer.into(rows))
            out = layer.out_of(rows)
            outside = (out * out).sum(axis=(1, 3))
            alive = (inside > 0) & (outside > 0)
            ratio = xp.where(alive, outside, 1) / xp.where(alive, inside, 1)
            factor = ratio**0.25
            _stretch(rows, layer, factor, 1 / factor)
            largest = max(largest, float(xp.abs(xp.log(factor)).max()))
        if largest <= max(tolerance, 4 * float(np.finfo(rows.dtype).eps)):
            break
    return rows.reshape(shape)


# --- alignment ------------------------------------------------------------------------


def align(
    weights: Any,
    network: Any,
    to: Any = "first",
    *,
    turn: Literal["auto"] | bool = "auto",
    balanced: bool = False,
    sweeps: int = 100,
) -> Aligned:
    """Bring weights to the copy of the network nearest to a reference.

    For one hidden layer after another the units are exchanged, and turned over if the
    activation is odd, so as to maximise their scalar product with the reference (a
    linear assignment), until nothing changes.  The start is once as it is, once a
    matching of incoming weights layer by layer; the nearer result counts.  With one
    hidden layer it is the nearest of all copies, and a copy of the reference itself is
    always found.

    Parameters
    ----------
    weights : array, (..., D), or a run
        Of a run, all stored positions.
    network : Network or Posterior
        `MLP`, or `Sequential` of dense and convolutional layers.
    to : array, (D,), "first" or "mean"
        The reference: given; the first of the weights; or the mean of the aligned ones,
        found by turns from the first.
    turn : "auto" or bool
        Whether to turn units over; "auto" does where the activation is odd.
    balanced : bool
        Bring weights and reference to the balanced gauge first (`balance`).
    sweeps : int
        At most, over the hidden layers; and over the mean.

    Returns
    -------
    Aligned

    Raises
    ------
    PotentialError
        A reference of another shape, or a network whose symmetries are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> net = potentials.MLP([2, 5, 3])
    >>> q = net.initial(1)[0]
    >>> copy = potentials.gauge.permute(q, net, [[3, 1, 0, 2, 4]])
    >>> bool((potentials.gauge.align(copy, net, to=q).positions == q).all())
    True
    """
    net = network_of(network)
    layers = hidden_layers(net)
    given = weights.positions[:] if hasattr(weights, "positions") else weights
    given = given.get() if hasattr(given, "get") else given
    flat, shape = rows_of(finite_array("weights", given), net)
    if balanced:
        flat = balance(flat, net)
    odd = [layer.odd if turn == "auto" else bool(turn) for layer in layers]
    for layer, flips in zip(layers, odd, strict=True):
        if flips and not layer.odd:
            raise PotentialError(
                f"turn={turn!r}: units of {layer.name} have no sign, what follows them "
                "is not odd"
            )
    reference = _reference(to, flat, net, balanced)
    found = [_nearest(row, reference, layers, odd, sweeps) for row in flat]
    for _ in range(sweeps if isinstance(to, str) and to == "mean" else 0):
        mean = np.mean([one[0] for one in found], axis=0)
        if (mean == reference).all():
            break
        reference = mean
        found = [_nearest(row, reference, layers, odd, sweeps) for row in flat]
    positions = np.array([one[0] for one in found])
    before = np.linalg.norm(flat - reference, axis=1)
    lead = shape[:-1]
    return Aligned(
        positions=positions.reshape(shape),
        permutations=tuple(
            np.array([one[1][l] for one in found]).reshape(*lead, layer.units)
            for l, layer in enumerate(layers)
        ),
        signs=tuple(
            np.array([one[2][l] for one in found]).reshape(*lead, layer.units)
            for l, layer in enumerate(layers)
        ),
        distance=np.linalg.norm(positions - reference, axis=1).reshape(lead),
        distance_before=before.reshape(lead),
        reference=reference,
    )


def _reference(to: Any, flat: F, network: Any, balanced: bool) -> F:
    if isinstance(to, str):
        if to not in ("first", "mean"):
            raise PotentialError(
                f"to={to!r}: expected weights ({network.size},), 'first' or 'mean'"
            )
        first: F = flat[0].copy()
        return first
    point = finite_array("to", to.get() if hasattr(to, "get") else to)
    if point.shape != (network.size,):
        raise PotentialError(
            f"to has shape {point.shape}: expected ({network.size},), the weights of "
            "one network"
        )
    reference: F = balance(point, network) if balanced else point
    return reference


def _nearest(
    row: F, reference: F, layers: tuple[Hidden, ...], odd: list[bool], sweeps: int
) -> tuple[F, list[I], list[F]]:
    """The nearest copy found, with its permutations and signs."""
    candidates: list[tuple[float, tuple[F, list[I], list[F]]]] = []
    for forward in (True, False):
        moved = row[None].copy()
        orders = [np.arange(layer.units) for layer in layers]
        flips = [np.ones(layer.units) for layer in layers]
        for sweep in range(-1 if forward else 0, sweeps):
            changed = False
            for l, layer in enumerate(layers):
                likeness = _likeness(moved, reference[None], layer, both=sweep >= 0)
                order, sign = _assign(likeness, odd[l])
                if order is None:
                    continue
                changed = True
                _exchange(moved, layer, order[None], np)
                _stretch(moved, layer, sign[None], sign[None])
                orders[l], flips[l] = orders[l][order], flips[l][order] * sign
            if not changed and sweep >= 0:
                break
        distance = float(((moved[0] - reference) ** 2).sum())
        candidates.append((distance, (moved[0], orders, flips)))
    return min(candidates, key=lambda one: one[0])[1]


def _likeness(q: F, reference: F, layer: Hidden, both: bool) -> F:
    """Scalar products of units: (place of the reference, unit of q), (n, n)."""
    pairs = zip(layer.into(reference), layer.into(q), strict=True)
    total = sum(a[0] @ b[0].T for a, b in pairs)
    if both:
        a, b = (
            layer.out_of(x)[0].swapaxes(0, 1).reshape(layer.units, -1)
            for x in (reference, q)
        )
        total = total + a @ b.T
    return np.asarray(total)


def _assign(likeness: F, odd: bool) -> tuple[Any, Any]:
    """Unit and sign for each place; (None, None) where nothing is gained."""
    from scipy.optimize import linear_sum_assignment

    score = np.abs(likeness) if odd else likeness
    places, order = linear_sum_assignment(score, maximize=True)
    chosen = likeness[places, order]
    sign = np.where(odd & (chosen < 0), -1.0, 1.0)
    gain = score[places, order].sum() - np.trace(likeness)
    if gain <= 1e-12 * np.abs(likeness).max() * len(order):
        return None, None
    return order, sign
