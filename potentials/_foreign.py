"""What networks of other frameworks share: data, layouts and the weights of a run."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._sources import split
from mdnet.typing import Layout

__all__ = [
    "SMALL",
    "apart",
    "examples",
    "host_rows",
    "layout_of",
    "stated",
    "weights_of",
]

SMALL = 2**23
"""Rows times weights up to which one call for all replicas beats one call for each on
a CPU: beyond, products are long and what a call costs is short beside them."""


def host_rows(x: Any) -> Any:
    """Bring a tensor of any framework to the host; leave all else as it is."""
    kind = type(x).__module__.partition(".")[0]
    if kind == "torch":
        return x.detach().cpu().numpy()
    if kind == "cupy":
        return x.get()
    return np.asarray(x) if kind in ("jax", "jaxlib", "builtins") else x


def examples(data: Any) -> tuple[Any, Any]:
    """Data for a posterior, and the first one or two examples (n, *shape).

    Raises
    ------
    PotentialError
        Neither (X, y) nor a data set of pairs, no rows, or rows without an axis.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2:
        data = host_rows(data[0]), host_rows(data[1])
        few = np.asarray(data[0][:2] if np.ndim(data[0]) else data[0])
    else:
        split(data)  # refuses what cannot be read
        few = np.stack([np.asarray(data[i][0]) for i in range(min(2, len(data)))])
    if few.ndim < 2 or 0 in few.shape:
        raise PotentialError(
            f"X has examples of shape {few.shape}: expected (n, ...) with n > 0 and at "
            "least one axis beside; X[:, None] makes one of numbers"
        )
    if few.dtype.kind not in "biuf":
        raise PotentialError(f"X has type {few.dtype}: expected real numbers")
    return data, few


def layout_of(shapes: dict[str, tuple[int, ...]]) -> tuple[Layout, int]:
    """Tensors of these shapes one after the other in q, and the size of q."""
    layout: dict[str, tuple[slice, tuple[int, ...]]] = {}
    at = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        layout[name] = (slice(at, at + size), shape)
        at += size
    return layout, at


def apart(start: Any) -> Any:
    """Weights near a start, where zeros of it hide nothing, (D,)."""
    noise = random.normals(0, np.zeros(1, int), 0, random.STREAM_PROBE, len(start))
    return start + 0.1 * noise[0]


def stated(thing: Any) -> str:
    """What ``repr`` says, without addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def weights_of(
    source: Any, layout: Layout, size: int, frame: int, replica: int
) -> np.ndarray[Any, Any]:
    """One vector of weights (D,) from a run or from an array.

    Parameters
    ----------
    source : Run or array, (D,), (R, D) or (T, R, D)
        A trajectory, a record in memory, or weights.
    layout : Layout
        Tensors that the weights must be of.
    size : int
        D.
    frame, replica : int
        Indices into the axes that ``source`` has.

    Raises
    ------
    PotentialError
        Other tensors, another shape, or an index out of range.
    """
    if hasattr(source, "positions"):
        given = {name: tuple(shape) for name, (_, shape) in source.layout.items()}
        wanted = {name: tuple(shape) for name, (_, shape) in layout.items()}
        if given != wanted:
            raise PotentialError(
                f"the run holds tensors {given}: expected {wanted}, those of the model"
            )
        source = source.positions
    elif type(source).__module__.startswith("cupy"):
        source = source.get()
    shape = np.shape(source)
    if len(shape) not in (1, 2, 3) or shape[-1] != size:
        raise PotentialError(
            f"weights have shape {shape}: expected ({size},), (R, {size}) or "
            f"(frames, R, {size})"
        )
    axes = (("frame", frame), ("replica", replica))[3 - len(shape) :]
    for (name, index), length in zip(axes, shape, strict=False):
        if not -length <= index < length:
            raise PotentialError(
                f"{name}={index}: the weights have {length} {name}s, 0 to {length - 1}"
            )
    for _, index in axes:
        source = source[index]
    return np.asarray(source, np.float64)
