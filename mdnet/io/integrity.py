"""What a trajectory file says of itself: a summary, and a search for damage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.errors import TrajectoryError
from mdnet.io import checkpoint, schema

if TYPE_CHECKING:
    import h5py

    from mdnet.io.reader import Trajectory

__all__ = ["problems", "summary"]

_SCAN_BYTES = 2**25


def summary(run: Trajectory) -> str:
    """Several lines for people: what was simulated, what is stored, how long."""
    frames = len(run)
    counts, slot = run._read(lambda f: (f[schema.COUNTS][...], checkpoint.newest(f)))
    stored = ", ".join(run.store) or "none"
    lines = [f"{run.path}: {_bytes(os.path.getsize(run.path))}"]
    lines.extend(
        f"{key:<12}{_brief(run.config[key])}"
        for key in ("potential", "integrator")
        if key in run.config
    )
    part = "" if run.size == run.full_size else f" of {run.full_size}"
    lines.append(f"{'replicas':<12}{run.replicas}")
    lines.append(f"{'parameters':<12}{run.size}{part} in {len(run.layout)} tensors")
    tensors = ", ".join(f"{n} {s}" for n, (_, s) in list(run.layout.items())[:8])
    more = len(run.layout) - 8
    lines.append(f"{'tensors':<12}{tensors}{f', {more} more' if more > 0 else ''}")
    filters = f", {run.header.compression}" if run.header.compression else ""
    lines.append(f"{'stored':<12}{stored} as {run.header.dtype}{filters}")
    if frames:
        first, last = run.steps[[0, -1]], run.times[[0, -1]]
        lines.append(
            f"{'frames':<12}{frames}, steps {first[0]} to {first[1]}, times "
            f"{last[0]:g} to {last[1]:g}"
        )
    else:
        lines.append(f"{'frames':<12}none yet")
    lines.append(f"{'log rows':<12}{int(counts[1])}")
    lines.append(f"{'series':<12}{', '.join(run.names) or 'none'}")
    lines.append(
        f"{'restart':<12}"
        + (
            "none"
            if slot is None
            else f"slot {slot.name}, number {slot.sequence}, at frame {slot.frames}"
        )
    )
    lines.append(f"{'state':<12}{'complete' if run.complete else 'being written'}")
    return "\n".join(lines)


def problems(run: Trajectory) -> list[str]:
    """Problems of a file in words: lengths, axes, views, restarts, non-finite values.

    Reads every stored frame once.
    """
    found: list[str] = run._read(_structure)
    frames = len(run)
    for quantity in run.store:
        view = getattr(run, quantity)
        step = max(1, _SCAN_BYTES // max(1, run.replicas * run.size * 8))
        for start in range(0, frames, step):
            try:
                bad = ~np.isfinite(view[start : start + step]).all(axis=2)
            except TrajectoryError as error:
                found.append(f"{quantity} from frame {start} cannot be read: {error}")
                break
            if bad.any():
                frame, replica = np.argwhere(bad)[0]
                found.append(
                    f"{quantity} of replica {replica} is not finite at frame "
                    f"{start + frame}"
                )
                break
    return found


def _structure(handle: h5py.File) -> list[str]:
    found: list[str] = []
    frames, log, _ = (int(n) for n in handle[schema.COUNTS][...])
    for path, axis, needed in _lengths(handle, frames, log):
        length = handle[path].shape[axis]
        if length < needed:
            found.append(f"{path} has {length} rows, the counts say {needed}")
        elif length > needed:
            found.append(
                f"{path} has {length - needed} rows after the last whole one (cut off "
                "when the run is resumed)"
            )
    for path, rows in ((schema.STEP, frames), (schema.LOG_STEP, log)):
        if np.any(np.diff(handle[path][:rows]) <= 0):
            found.append(f"{path} does not rise")
    found.extend(
        f"restart slot {name} is damaged: its checksum is wrong"
        for name in schema.SLOTS
        if checkpoint.written(handle, name) and checkpoint.read(handle, name) is None
    )
    slot = checkpoint.newest(handle)
    if slot is None:
        found.append("there is no valid restart: the run cannot be resumed")
    elif slot.frames > frames or slot.log > log:
        found.append(
            f"the restart needs {slot.frames} frames and {slot.log} log rows, there "
            f"are {frames} and {log}"
        )
    return found


def _lengths(handle: h5py.File, frames: int, log: int) -> list[tuple[str, int, int]]:
    """(path, axis, rows expected) of every dataset that grows, views included."""
    out = [(schema.STEP, 0, frames), (schema.TIME, 0, frames)]
    kinds = schema.QUANTITIES.values()
    out.extend((kind.path, 1, frames) for kind in kinds if kind.path in handle)
    out.extend(
        (f"{group.name}/{kind.element}/value", 0, frames)
        for group in handle[schema.PARTICLES].values()
        for kind in kinds
        if kind.element in group
    )
    out.extend(
        (f"{schema.OBSERVABLES}/{name}/value", 0, frames)
        for name in handle[schema.OBSERVABLES]
    )
    out.append((f"{schema.SAMPLE_STATS}/draw", 0, frames))
    out.extend(
        (f"{parent}/{name}", 1, frames)
        for parent in (schema.SAMPLE_STATS, schema.POSTERIOR)
        for name, item in handle.get(parent, {}).items()
        if not item.is_scale
    )
    for parent in (schema.LOG, schema.LEDGER_GROUP):
        out.extend((f"{parent}/{name}", 0, log) for name in handle[parent])
    return out


def _brief(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    name = value.get("name") or value.get("kind") or value.get("type")
    rest = [
        f"{k}={v}"
        for k, v in value.items()
        if isinstance(v, (int, float, str)) and v != name
    ]
    return " ".join([str(name)] * (name is not None) + rest[:8])


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
