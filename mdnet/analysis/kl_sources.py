"""Ensembles for the divergence: arrays or stored positions, whole or projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.records import frame_count, frame_steps, is_run, read
from mdnet.analysis.timeseries import autocorrelation_time
from mdnet.errors import PotentialError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Source", "ensemble_of", "reference_tail"]

F = np.ndarray[Any, Any]
_WHOLE = 64
"""A run of more weights than this is projected unless told otherwise."""
_BLOCK = 1 << 25
"""Numbers read from a run at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """Coordinates of an ensemble.

    Attributes
    ----------
    data : ndarray, (T, R, d)
    tail : ndarray, (T', R, d)
        Evenly spaced frames of the last part.
    times : ndarray, (T,)
    full_d : int
        Dimension before any choice of columns or projection.
    columns : ndarray of int or None
        Columns kept of it.
    basis : ndarray, (columns, d) or None
        Projection applied to them.
    projected : bool
        Whether less than the whole was seen.
    """

    data: F
    tail: F
    times: F
    full_d: int
    columns: F | None
    basis: F | None
    projected: bool
    warnings: tuple[str, ...] = ()


def spaced(count: int, most: int) -> F:
    """At most ``most`` frames of ``count``, dense at the start, ends included."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.geomspace(1, count, most)).astype(int) - 1)


def tail_rows(count: int, part: float, most: int) -> F:
    """At most ``most`` evenly spaced frames of the last ``part`` of ``count``."""
    first = min(int(np.ceil(count * (1 - part))), count - 1)
    stride = -(-(count - first) // most)
    return np.arange(first, count, stride)


def reference_tail(tail: F) -> F:
    """Nearly independent samples (m, d): the tail thinned by its correlation time."""
    stride = 1
    if len(tail) >= 8:
        tau = autocorrelation_time(np.swapaxes(tail, 0, 1)).value
        stride = max(1, int(np.ceil(np.max(tau))))
    thinned = tail[::-1][::stride]
    return np.asarray(thinned.reshape(-1, tail.shape[-1]))


def _columns(layout: Any, layers: str | Sequence[str]) -> F:
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        if name not in layout:
            raise PotentialError(
                f"layers={layers!r}: no tensor {name!r}; this run has "
                + ", ".join(layout)
            )
    return np.concatenate(
        [np.arange(layout[name][0].start, layout[name][0].stop) for name in names]
    )


def _rows(positions: Any, rows: F, columns: F | None, basis: F | None) -> F:
    """Frames ``rows`` of (T, R, D) in the chosen coordinates, read in blocks."""
    if len(rows) == 0:
        raise PotentialError("the ensemble holds no frames")
    first = np.asarray(positions[int(rows[0])])
    out = []
    for row in rows:
        frame = np.asarray(positions[int(row)], np.float64)
        frame = frame if frame.ndim == 2 else frame[:, None]
        frame = frame if columns is None else frame[:, columns]
        out.append(frame if basis is None else frame @ basis)
    stack = np.stack(out)
    if not np.isfinite(stack).all():
        raise PotentialError(
            f"the ensemble (frames of {first.shape}) has values that are not finite; "
            "leave out the diverged replicas first"
        )
    return stack


def _basis(
    projection: Any,
    positions: Any,
    count: int,
    columns: F | None,
    d: int,
    k: int,
    seed: int,
) -> F:
    """Orthonormal directions (d, k)."""
    k = min(k, d)
    if isinstance(projection, str):
        if projection == "random":
            directions = np.random.default_rng(seed).normal(size=(d, k))
            return np.asarray(np.linalg.qr(directions)[0])
        if projection == "pca":
            per_frame = max(1, np.asarray(positions[0]).size)
            most = int(np.clip(_BLOCK // per_frame, 2, 50))
            rows = np.unique(np.linspace(0, count - 1, most).astype(int))
            flat = _rows(positions, rows, columns, None).reshape(-1, d)
            flat = flat - flat.mean(0)
            if len(flat) < d:
                # The small Gram matrix has the same directions.
                _, vectors = np.linalg.eigh(flat @ flat.T)
                wide = flat.T @ vectors[:, ::-1][:, :k]
                return np.asarray(np.linalg.qr(wide)[0])
            return np.asarray(np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :k])
        raise PotentialError(
            f"projection={projection!r}: expected 'random', 'pca', 'energy' or an "
            f"array ({d}, k)"
        )
    basis = np.asarray(projection, np.float64)
    basis = basis[:, None] if basis.ndim == 1 else basis
    if basis.ndim != 2 or basis.shape[0] != d:
        raise PotentialError(
            f"projection has shape {np.shape(projection)}: expected ({d}, k), a row "
            "for each coordinate"
        )
    return basis


def _times(given: Any, default: F, rows: F) -> F:
    if given is None:
        return np.asarray(default[rows], np.float64)
    t = np.asarray(given, np.float64)
    if t.shape != default.shape:
        raise PotentialError(
            f"times has shape {t.shape}: expected {default.shape}, one a frame"
        )
    return np.asarray(t[rows])


def ensemble_of(
    ensemble: Any,
    times: Any,
    layers: str | Sequence[str] | None,
    projection: Any,
    components: int,
    part: float,
    most: int,
    seed: int,
) -> Source:
    """Choose the coordinates of an array (T, R, d) or run; see `kl_relaxation`."""
    from_run = is_run(ensemble)
    warnings: tuple[str, ...] = ()
    if from_run and isinstance(projection, str) and projection == "energy":
        series = read(
            ensemble, "potential_energy", "kl_relaxation(projection='energy')"
        )
        energies = series.value[..., None]
        rows = spaced(len(energies), most)
        tail = energies[tail_rows(len(energies), part, 2000)]
        at = _times(times, series.time, rows)
        return Source(energies[rows], tail, at, 1, None, None, True)
    if from_run:
        count = frame_count(ensemble)
        if count == 0:
            raise PotentialError(
                "this run stored no positions; use projection='energy', or store them: "
                "sim.run(..., trajectory=..., every=...)"
            )
        positions: Any = ensemble.positions
        size, known = ensemble.size, frame_steps(ensemble)
        default = np.arange(count, dtype=np.float64) if known is None else known[1]
        rows = spaced(count, most)
    else:
        positions = np.asarray(ensemble)
        if positions.ndim == 2:
            positions = positions[..., None]
        if positions.ndim != 3 or positions.size == 0:
            raise PotentialError(
                f"ensemble has shape {np.shape(ensemble)}: expected (times, R, d), or "
                "(times, R) for one coordinate, or a run"
            )
        count, size = positions.shape[0], positions.shape[2]
        default = np.arange(count, dtype=np.float64)
        rows = np.arange(count)
    columns = None
    if layers is not None:
        if not from_run:
            raise PotentialError("layers= needs a run; slice the array yourself")
        columns = _columns(ensemble.layout, layers)
    d = size if columns is None else len(columns)
    if from_run and projection is None and d > _WHOLE:
        projection = "random"
        warnings = (
            (
                f"{d} weights seen through {min(components, d)} random directions: a "
                "lower bound; inputs= with potential= compares predictions instead"
            ),
        )
    basis = None
    if projection is not None:
        basis = _basis(projection, positions, count, columns, d, components, seed)
        if isinstance(projection, str) and projection == "pca":
            warnings += (
                "directions are principal axes of the same data: a lower bound",
            )
    if from_run:
        tail = _rows(positions, tail_rows(count, part, 400), columns, basis)
    else:
        tail = _rows(positions, tail_rows(count, part, 2000), columns, basis)
    return Source(
        data=_rows(positions, rows, columns, basis),
        tail=tail,
        times=_times(times, default, rows),
        full_d=size,
        columns=columns,
        basis=basis,
        projected=basis is not None or columns is not None,
        warnings=warnings,
    )
