"""The one place that knows the paths, names and types of a trajectory file.

R replicas, D parameters of the potential, N of them stored, T frames.  Native frames
are chain-first, (R, T, N): every view other programs want (a walker, a tensor of all
chains) is then one block, mapped in one piece.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import TrajectoryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdnet.typing import Layout

__all__ = [
    "COUNTS",
    "LEDGER",
    "QUANTITIES",
    "SCHEMA",
    "Header",
    "Quantity",
    "check_name",
    "dumps",
    "log_path",
    "walker",
]

SCHEMA = 1
"""Version of the layout below; readers refuse a larger one."""

H5MD_VERSION = (1, 1)
CONFIG = "/mdnet/config"
HEADER = "/mdnet/layout"
COUNTS = "/mdnet/axis/counts"
"""(frames, log rows, closed), int64: written last, after everything it counts."""
STEP, TIME = "/mdnet/axis/step", "/mdnet/axis/time"
LOG, LOG_STEP, LOG_TIME = "/mdnet/log", "/mdnet/log/step", "/mdnet/log/time"
LEDGER_GROUP = "/mdnet/ledger"
RESTART = "/mdnet/restart"
SLOTS = ("a", "b")
PARTICLES, OBSERVABLES = "/particles", "/observables"
VIEWER = "trajectory"
POSTERIOR, SAMPLE_STATS = "/posterior", "/sample_stats"

LEDGER = ("heat", "kick_work", "protocol_work", "shadow_work")
"""Dense series that make up the energy ledger; they live in /mdnet/ledger."""

DTYPES = ("float16", "float32", "float64")
COMPRESSIONS = (None, "gzip", "lzf")
RESERVED = ("step", "time", "value", "chain", "draw")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A per-parameter quantity: where it is kept and what other programs call it."""

    path: str
    element: str
    unit: str


QUANTITIES = {
    "positions": Quantity("/mdnet/frames/positions", "position", "A"),
    # H5MD has velocities, not momenta: v = p / m is what is kept.
    "momenta": Quantity("/mdnet/frames/velocities", "velocity", "A ps-1"),
    "forces": Quantity("/mdnet/frames/forces", "force", "kJ mol-1 Angstrom-1"),
}
"""Units are those stock viewers insist on; the numbers are in reduced units."""


def walker(replica: int) -> str:
    """Name of the particles group of a replica."""
    return f"walker_{replica:04d}"


def log_path(name: str) -> str:
    """Path of a dense series."""
    return f"{LEDGER_GROUP if name in LEDGER else LOG}/{name}"


def check_name(name: Any) -> str:
    """Return the name of a series, or raise if it cannot be one.

    Raises
    ------
    TrajectoryError
        Not a string, empty, with a slash (stock readers misread deeper levels), or
        reserved.
    """
    if not isinstance(name, str) or not name or "/" in name or name in RESERVED:
        raise TrajectoryError(
            f"series name {name!r}: expected a non-empty string without '/' that is "
            f"none of {', '.join(RESERVED)}"
        )
    return name


def dumps(value: Any) -> str:
    """JSON text of settings; NumPy scalars and arrays become numbers and lists.

    Raises
    ------
    TrajectoryError
        Something that JSON cannot hold.
    """

    def plain(x: Any) -> Any:
        if isinstance(x, (np.ndarray, np.generic)):
            return x.tolist()
        raise TypeError(f"{type(x).__name__} {x!r}")

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:
        raise TrajectoryError(
            f"config or meta cannot be written as JSON ({error}): expected dicts, "
            "lists, strings, numbers, booleans, None or NumPy arrays"
        ) from error


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds; written once, compared when appending.

    Attributes
    ----------
    replicas, size : int
        R and D.
    layout : mapping
        Ordered ``{name: (slice, shape)}`` of all D parameters.
    selected : tuple of str
        Tensors stored in the frames, in the order of ``layout``.
    store : tuple of str
        Quantities stored in the frames.
    dtype : str
        Type of the stored frames.
    compression : str or None
        Filter of the stored frames.
    """

    replicas: int
    size: int
    layout: Layout
    selected: tuple[str, ...]
    store: tuple[str, ...]
    dtype: str
    compression: str | None

    @classmethod
    def build(
        cls,
        *,
        layout: Layout,
        replicas: int,
        size: int,
        store: Sequence[str],
        select: Sequence[str] | None,
        dtype: npt.DTypeLike,
        compression: str | None,
    ) -> Header:
        """Check a caller's choices.

        Raises
        ------
        TrajectoryError
            An unknown quantity, tensor, type or filter, or a layout that does not
            tile ``size`` parameters.
        """
        if replicas < 1 or size < 1:
            raise TrajectoryError(
                f"replicas={replicas!r}, size={size!r}: expected both >= 1"
            )
        _check_layout(layout, size)
        store = (store,) if isinstance(store, str) else tuple(store)
        for name in store:
            if name not in QUANTITIES:
                raise TrajectoryError(
                    f"store={store!r}: {name!r} is not one of {', '.join(QUANTITIES)}"
                )
        chosen = [select] if isinstance(select, str) else select
        unknown = [n for n in chosen or () if n not in layout]
        if unknown or (chosen is not None and len(chosen) == 0):
            raise TrajectoryError(
                f"select={select!r}: expected some of the tensors {', '.join(layout)}"
                "; to store no tensor at all pass store=()"
            )
        try:
            type_name = np.dtype(dtype).name
        except TypeError:
            type_name = str(dtype)
        if type_name not in DTYPES:
            raise TrajectoryError(f"dtype={dtype!r}: expected one of {DTYPES}")
        if compression not in COMPRESSIONS:
            raise TrajectoryError(
                f"compression={compression!r}: expected one of {COMPRESSIONS}"
            )
        return cls(
            replicas=int(replicas),
            size=int(size),
            layout=dict(layout),
            selected=tuple(n for n in layout if chosen is None or n in chosen),
            store=tuple(n for n in QUANTITIES if n in store),
            dtype=type_name,
            compression=compression,
        )

    @property
    def stored_layout(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Layout of the stored parameters, slices counted along the stored axis."""
        out: dict[str, tuple[slice, tuple[int, ...]]] = {}
        start = 0
        for name in self.selected:
            where, shape = self.layout[name]
            stop = start + where.stop - where.start
            out[name] = (slice(start, stop), shape)
            start = stop
        return out

    @property
    def stored_size(self) -> int:
        """Number of stored parameters, N."""
        return sum(s.stop - s.start for s, _ in (self.layout[n] for n in self.selected))

    @property
    def pieces(self) -> list[tuple[slice, slice]]:
        """(stored, full) slices that gather a frame, neighbours merged."""
        out: list[tuple[slice, slice]] = []
        for name, (stored, _) in self.stored_layout.items():
            full = self.layout[name][0]
            if out and out[-1][1].stop == full.start:
                before = out.pop()
                stored = slice(before[0].start, stored.stop)
                full = slice(before[1].start, full.stop)
            out.append((stored, full))
        return out

    def to_json(self) -> str:
        """Text kept in the file."""
        return dumps(
            {
                "replicas": self.replicas,
                "size": self.size,
                "tensors": [
                    [name, where.start, where.stop, list(shape)]
                    for name, (where, shape) in self.layout.items()
                ],
                "selected": self.selected,
                "store": self.store,
                "dtype": self.dtype,
                "compression": self.compression,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Header:
        """Inverse of `to_json`.

        Raises
        ------
        TrajectoryError
            Text that is not a header.
        """
        try:
            raw = json.loads(text)
            return cls(
                replicas=raw["replicas"],
                size=raw["size"],
                layout={
                    name: (slice(start, stop), tuple(shape))
                    for name, start, stop, shape in raw["tensors"]
                },
                selected=tuple(raw["selected"]),
                store=tuple(raw["store"]),
                dtype=raw["dtype"],
                compression=raw["compression"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TrajectoryError(f"{HEADER} is damaged ({error!r})") from error

    def check_same(self, *, layout: Layout, replicas: int, size: int) -> None:
        """Raise unless a run with these could append.

        Raises
        ------
        TrajectoryError
            Naming the first difference.
        """
        if replicas != self.replicas:
            raise TrajectoryError(
                f"replicas={replicas}: the file holds {self.replicas}; append with as "
                "many replicas, or write to another file"
            )
        if size != self.size or _plain(layout) != _plain(self.layout):
            here = {n: s for n, (_, s) in layout.items()}
            there = {n: s for n, (_, s) in self.layout.items()}
            raise TrajectoryError(
                f"layout of {size} parameters {here}: the file holds {self.size} "
                f"parameters {there}; append with the same potential, or write to "
                "another file"
            )


def _plain(layout: Layout) -> list[tuple[str, int, int, tuple[int, ...]]]:
    return [(n, s.start, s.stop, tuple(shape)) for n, (s, shape) in layout.items()]


def _check_layout(layout: Layout, size: int) -> None:
    at = 0
    for name, (where, shape) in layout.items():
        if not isinstance(name, str) or not name:
            raise TrajectoryError(f"layout: tensor name {name!r} is no string")
        length = int(np.prod(shape, dtype=np.int64))
        if where.start != at or where.stop != at + length:
            raise TrajectoryError(
                f"layout: tensor {name!r} of shape {shape} is at "
                f"{where.start}:{where.stop}, expected {at}:{at + length}"
            )
        at += length
    if at != size:
        raise TrajectoryError(f"layout covers {at} parameters, expected size={size}")
