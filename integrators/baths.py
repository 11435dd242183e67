r"""Baths that differ from tensor to tensor, and tensors that are held still.

A mapping in place of a number gives each tensor a value of its own,

>>> hot_first = per_tensor({"0.weight": 2.0, "*": 1.0})
>>> hot_first.patterns
('0.weight', '*')

and the first pattern that matches a tensor's name counts.  Tensors at different
temperatures are a driven system: heat flows through the forces between them.  With
:math:`Q_l` the energy that tensor l has taken from its bath (series ``layer_heat``),
the steady state has :math:`\sum_l \dot Q_l = 0` up to the work of the integrator, and
an entropy production :math:`-\sum_l \dot Q_l / T_l \ge 0`.

Frozen weights never move; they leave the degrees of freedom, the thermometers and
the baths, not the energy.

References
----------
Z. Rieder, J. L. Lebowitz, E. Lieb, J. Math. Phys. 8, 1073 (1967),
doi:10.1063/1.1705319.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import observables, schedules
from mdnet.errors import SchemeError
from mdnet.integrators.companion import Companion, Context
from mdnet.typing import Layout

__all__ = [
    "Baths",
    "PerTensor",
    "describe",
    "free_parameters",
    "group_bounds",
    "held",
    "per_tensor",
    "read",
    "runs",
    "values",
]


@dataclass(frozen=True, eq=False)
class PerTensor:
    """A parameter with one value a tensor; see `per_tensor`.

    Attributes
    ----------
    patterns : tuple of str
        Names of tensors, with the wildcards of `fnmatch`.
    values : tuple
        A number, an (R,) array or a schedule for each.
    """

    patterns: tuple[str, ...]
    values: tuple[Any, ...]

    def chosen(self, label: str, layout: Layout) -> list[Any]:
        """Value of each tensor of a layout.

        Raises
        ------
        SchemeError
            A tensor that no pattern matches, or a pattern without a tensor.
        """
        for pattern in self.patterns:
            _match(label, pattern, layout)
        out = []
        for name in layout:
            at = next(
                (i for i, p in enumerate(self.patterns) if fnmatchcase(name, p)), None
            )
            if at is None:
                raise SchemeError(
                    f"{label}: no value for tensor {name!r} in "
                    f"{dict(zip(self.patterns, self.values, strict=True))!r}; add "
                    'one, or "*": value for all others'
                )
            out.append(self.values[at])
        return out

    def map(self, function: Callable[[Any], Any]) -> PerTensor:
        """The same patterns with another value each."""
        return PerTensor(self.patterns, tuple(function(v) for v in self.values))

    @property
    def scheduled(self) -> bool:
        """Whether a value changes with the step."""
        return any(callable(value) for value in self.values)


def per_tensor(value: Any) -> Any:
    """Turn a mapping {pattern: value} into a `PerTensor`; leave all else alone.

    Raises
    ------
    SchemeError
        An empty mapping, or a pattern that is no text.
    """
    if not isinstance(value, Mapping):
        return value
    if not value or not all(isinstance(key, str) for key in value):
        raise SchemeError(
            f"{value!r}: expected values by names of tensors, as "
            '{"0.weight": 2.0, "*": 1.0}'
        )
    return PerTensor(tuple(value), tuple(value.values()))


def _match(label: str, pattern: str, layout: Layout) -> list[str]:
    names = [name for name in layout if fnmatchcase(name, pattern)]
    if not names:
        raise SchemeError(
            f"{label}: {pattern!r} matches none of the tensors {', '.join(layout)}"
        )
    return names


def held(frozen: Any) -> Any:
    """Check and normalise ``frozen=``: names as a tuple, a mask as booleans (D,).

    Raises
    ------
    SchemeError
        Neither names nor a mask, or a mask that leaves nothing to move.
    """
    if isinstance(frozen, str):
        return (frozen,)
    if isinstance(frozen, np.ndarray) or (
        isinstance(frozen, (list, tuple)) and frozen and isinstance(frozen[0], bool)
    ):
        mask = np.asarray(frozen)
        if mask.dtype != np.bool_ or mask.ndim != 1:
            raise SchemeError(
                f"frozen is an array of shape {mask.shape} and type {mask.dtype}: "
                "expected a boolean mask (D,), True for weights that stay, or names "
                "of tensors"
            )
        return mask
    names = tuple(frozen) if isinstance(frozen, Iterable) else (frozen,)
    if not all(isinstance(name, str) for name in names):
        raise SchemeError(
            f"frozen={frozen!r}: expected names of tensors, as ['0.weight'], or a "
            "boolean mask (D,), True for weights that stay"
        )
    return names


def free_parameters(frozen: Any, layout: Layout) -> npt.NDArray[np.bool_]:
    """Which parameters move: (D,) booleans.

    Raises
    ------
    SchemeError
        A name without a tensor, a mask of another length, or nothing left to move.
    """
    size = int(observables.layer_bounds(layout)[-1])
    free = np.ones(size, np.bool_)
    if isinstance(frozen, np.ndarray):
        if frozen.shape != (size,):
            raise SchemeError(
                f"frozen has shape {frozen.shape}: expected ({size},), one for each "
                "parameter"
            )
        free &= ~frozen
    else:
        for pattern in frozen:
            for name in _match("frozen", pattern, layout):
                free[layout[name][0]] = False
    if not free.any():
        raise SchemeError(f"frozen={frozen!r} leaves no parameter to move")
    return free


def runs(frozen: Any) -> int:
    """How often a mask changes; 0 for names."""
    masked = isinstance(frozen, np.ndarray)
    return int(np.count_nonzero(np.diff(frozen))) if masked else 0


def group_bounds(frozen: Any, layout: Layout) -> npt.NDArray[np.int64]:
    """Where groups begin, (G + 1,): at every tensor, and where freezing changes."""
    free = free_parameters(frozen, layout)
    changes = np.flatnonzero(np.diff(free)) + 1
    return np.union1d(observables.layer_bounds(layout), changes).astype(np.int64)


def describe(value: Any) -> Any:
    """JSON-able form of a parameter, per tensor or not, or of ``frozen``."""
    if isinstance(value, PerTensor):
        return {
            "per_tensor": [
                [pattern, schedules.describe(item)]
                for pattern, item in zip(value.patterns, value.values, strict=True)
            ]
        }
    if isinstance(value, np.ndarray) and value.dtype == np.bool_:
        packed = zlib.compress(np.packbits(value).tobytes(), 9)
        return {"mask": base64.b64encode(packed).decode(), "size": value.size}
    if isinstance(value, tuple):
        return list(value)
    return schedules.describe(value)


def read(record: Any) -> Any:
    """Turn what `describe` returned back into the parameter."""
    if isinstance(record, dict) and "per_tensor" in record:
        pairs = record["per_tensor"]
        return PerTensor(
            tuple(pattern for pattern, _ in pairs),
            tuple(schedules.from_description(item) for _, item in pairs),
        )
    if isinstance(record, dict) and "mask" in record:
        raw = zlib.decompress(base64.b64decode(record["mask"]))
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=record["size"])
        return bits.astype(np.bool_)
    if isinstance(record, list) and all(isinstance(item, str) for item in record):
        return tuple(record)
    return schedules.from_description(record)


class Baths(Companion):
    """Coefficients of every group of parameters, and the heat of every tensor.

    Parameters
    ----------
    integrator : Splitting
        With a `PerTensor` or with ``frozen``.
    context : Context

    Raises
    ------
    SchemeError
        Names that do not fit the layout, or a value of another length than the
        replicas.
    """

    steady = True
    settles = (1,)

    def __init__(self, integrator: Any, context: Context) -> None:
        super().__init__(context)
        self._integrator = integrator
        layout = context.layout
        free = free_parameters(integrator.frozen, layout)
        scattered = getattr(integrator, "scattered", False)
        bounds = group_bounds(() if scattered else integrator.frozen, layout)
        starts = observables.layer_bounds(layout)
        self._tensor = np.searchsorted(starts, bounds[:-1], side="right") - 1
        self._moves = scattered | free[bounds[:-1]]
        if scattered:
            self._mask = context.backend.asarray(free, context.state.momenta.dtype)
            self._twice = context.backend.xp.zeros_like(context.state.sums[0])
        self._counts = np.add.reduceat(free.astype(np.float64), starts[:-1])
        edges = context.backend.to_host(context.engine.edges)
        self._first = np.searchsorted(edges, starts[:-1])
        self._frozen = None
        if not free.all():
            self._frozen = context.backend.asarray(np.flatnonzero(~free))
        for label in ("temperature", "friction"):
            self._groups(label, 0)

    def _groups(self, label: str, step: int) -> npt.NDArray[np.float64]:
        """Value of each group, (R, G)."""
        given, replicas = getattr(self._integrator, label), self.context.state.replicas
        each: list[Any] = [given] * len(self._counts)
        if isinstance(given, PerTensor):
            each = given.chosen(label, self.context.layout)
        rows = [np.asarray(schedules.evaluate(v, step), np.float64) for v in each]
        for name, row in zip(self.context.layout, rows, strict=True):
            if row.shape not in ((), (replicas,)):
                raise SchemeError(
                    f"{label} of tensor {name!r} has shape {row.shape}: expected one "
                    f"value or ({replicas},), one for each of replicas={replicas}"
                )
        table = np.stack([np.broadcast_to(row, replicas) for row in rows], axis=1)
        return table[:, self._tensor]

    def coefficients(self, step: int) -> npt.NDArray[np.float64]:
        """Coefficients (n, R, G, 2); all zero where weights are frozen."""
        table: npt.NDArray[np.float64] = self._integrator.table(
            step, self._groups("temperature", step), self._groups("friction", step)
        )
        table[:, :, ~self._moves] = 0.0
        return table

    def call(self, index: int, step: int) -> None:
        """Take the momenta of scattered frozen weights away, after a kick or bath."""
        del step
        state = self.context.state
        momenta, twice = state.momenta, state.sums[0]
        self.context.backend.xp.multiply(momenta, self._mask, out=momenta)
        self._twice[...] = twice
        self.context.engine.kinetic(momenta, twice)
        state.sums[3 - index] += 0.5 * (twice - self._twice)  # kick work or heat
        if index:
            state.sums[1] = twice

    def temperatures(self, step: int) -> npt.NDArray[np.float64]:
        """Temperature of each group's bath, (R, G); zero where weights are frozen."""
        return self._groups("temperature", step) * self._moves

    def started(self) -> None:
        """Take the momenta of frozen weights away."""
        if self._frozen is None:
            return
        state = self.context.state
        state.momenta[:, self._frozen] = 0
        self.context.engine.kinetic(state.momenta, state.sums[0])
        state.sums[1] = state.sums[0]

    def restrict(self, positions: Any, forces: Any) -> None:
        """Take the forces on frozen weights away."""
        del positions
        if self._frozen is not None:
            forces[:, self._frozen] = 0

    def scalars(self) -> dict[str, npt.NDArray[np.float64]]:
        """Heat and target of each tensor, and the mean target of what moves."""
        state = self.context.state
        heat = self.context.backend.to_host(state.sums[2])
        group = np.searchsorted(self._tensor, np.arange(len(self._counts)))
        target = self._groups("temperature", state.step)[:, group]
        return {
            "layer_heat": np.add.reduceat(heat, self._first, axis=1),
            "layer_target_temperature": target,
            "target_temperature": target @ self._counts / self._counts.sum(),
        }


def values(parameter: Any) -> Iterator[Any]:
    """All values of a parameter: one, or those of its tensors."""
    if isinstance(parameter, PerTensor):
        yield from parameter.values
    else:
        yield parameter
