"""Shared types and protocols: what a potential, an evaluator or a reporter must offer.

Imports nothing of mdnet.  Arrays are opaque (NumPy on the host, CuPy on a device);
shapes are written (R, D) for R replicas of D parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Evaluator",
    "FloatArray",
    "Layout",
    "Potential",
    "Reporter",
    "Run",
    "Schedule",
    "Series",
]

Array: TypeAlias = Any
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Layout: TypeAlias = Mapping[str, tuple[slice, tuple[int, ...]]]


@runtime_checkable
class Schedule(Protocol):
    """A scalar that depends on the step: ``schedule(step)`` is a float or (R,)."""

    def __call__(self, step: int) -> Any:
        """Value at ``step`` (the number of steps already done)."""


class Evaluator(Protocol):
    """A potential bound to a backend, a precision and a number of replicas.

    It owns every work array, so that no call allocates.  ``positions`` is (R, D) of
    the state's type, ``out`` of the force type; energies are float64 always.
    """

    full: bool
    """True when ``forces`` uses all data, so that its energy is the exact U."""
    polynomial: tuple[float, float, float, float] | None
    """(a, b, c, d) when dU/dx = a + b x + c x^2 + d x^3 for every parameter alone."""

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq (or its estimate at force call number ``call``) into ``out``."""

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data, (R,) float64, into ``out``."""

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data, (R, D), into ``out``."""


class Potential(Protocol):
    """A potential energy U(q) of D parameters, extensive in the data."""

    @property
    def size(self) -> int:
        """Number of parameters D."""

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}`` of the tensors inside q."""

    def evaluator(self, backend: Any, replicas: int, seed: int) -> Evaluator:
        """Bind to a backend; see `Evaluator`."""

    def energy(self, q: Array) -> Array:
        """U(q) of all data, (R,) float64."""

    def gradient(self, q: Array) -> Array:
        """+dU/dq of all data, (R, D)."""

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start, (R, D)."""

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the potential (in the file, for resume)."""


class Series(NamedTuple):
    """A recorded quantity: ``value`` (T, R, ...), ``step`` (T,), ``time`` (T,)."""

    value: Array
    step: Array
    time: Array


class Run(Protocol):
    """What analysis reads: an open trajectory file or an in-memory record."""

    layout: Layout
    replicas: int
    size: int
    config: dict[str, Any]

    @property
    def positions(self) -> Any:
        """Indexable (T, R, D)."""

    def __getitem__(self, name: str) -> Series:
        """Return the series called ``name``."""

    def __contains__(self, name: object) -> bool:
        """Whether a series called ``name`` was recorded."""


class Reporter(Protocol):
    """Something that is told of the run as it goes."""

    def due(self, step: int) -> bool:
        """Whether to call `report` when ``step`` steps are done."""

    def report(self, simulation: Any) -> None:
        """Read the simulation's state; called only when `due`."""

    def close(self) -> None:
        """Finish writing; called once when a run ends, however it ends."""
