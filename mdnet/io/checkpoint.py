"""Restart slots: two copies of the state written in turn, each with its checksum.

A slot holds named arrays in full precision, a JSON record, and a header written after
both: sequence number, how many frames and log rows the file held at that moment, and
the SHA-256 of everything.  While one slot is written the other stays valid, so that
a process killed at any instant leaves a state to go on from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import TrajectoryError
from mdnet.io import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import h5py

__all__ = ["Slot", "newest", "read", "write"]

_HEADER = np.dtype(
    [("sequence", "<i8"), ("frames", "<i8"), ("log", "<i8"), ("sha256", "S64")]
)
_HEADER_NAME, _META_NAME = "header", "meta"


@dataclass(frozen=True, slots=True)
class Slot:
    """A valid restart: its arrays, its record, and the file's length when written."""

    name: str
    sequence: int
    frames: int
    log: int
    arrays: dict[str, npt.NDArray[Any]]
    meta: dict[str, Any]


def _digest(
    sequence: int,
    frames: int,
    log: int,
    meta: bytes,
    arrays: Mapping[str, npt.NDArray[Any]],
) -> bytes:
    total = hashlib.sha256(f"{sequence} {frames} {log}".encode())
    total.update(meta)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {np.shape(arrays[name])}".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest().encode()


def check_arrays(arrays: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Copy the arrays of a restart.

    Raises
    ------
    TrajectoryError
        A name with a slash or a reserved one, or something that is no numeric array.
    """
    out = {}
    for name, value in arrays.items():
        array = np.array(value, order="C")
        if "/" in name or name in ("", _HEADER_NAME, _META_NAME):
            raise TrajectoryError(
                f"restart array {name!r}: expected a name without '/' that is neither "
                f"{_HEADER_NAME!r} nor {_META_NAME!r}"
            )
        if array.dtype.kind not in "iufb":
            raise TrajectoryError(
                f"restart array {name!r} has type {array.dtype}: expected numbers; "
                "put text and settings into meta"
            )
        out[name] = array
    return out


def write(
    handle: h5py.File,
    name: str,
    *,
    sequence: int,
    frames: int,
    log: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    meta: str,
) -> None:
    """Overwrite a slot, its header last."""
    prepare(handle, name, arrays, meta)
    group = handle[f"{schema.RESTART}/{name}"]
    for key, array in arrays.items():
        group[key][...] = array
    text = meta.encode()
    padded = np.full(group[_META_NAME].shape, ord(" "), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    group[_META_NAME][...] = padded
    handle.flush()
    digest = _digest(sequence, frames, log, padded.tobytes(), arrays)
    group[_HEADER_NAME][...] = np.array((sequence, frames, log, digest), _HEADER)
    handle.flush()


def fits(
    handle: h5py.File, name: str, arrays: Mapping[str, npt.NDArray[Any]], meta: str
) -> bool:
    """Whether a slot can be overwritten in place, without making new datasets."""
    group = handle.get(f"{schema.RESTART}/{name}")
    if group is None or set(group) != {*arrays, _HEADER_NAME, _META_NAME}:
        return False
    return group[_META_NAME].size >= len(meta.encode()) and all(
        group[k].shape == a.shape and group[k].dtype == a.dtype
        for k, a in arrays.items()
    )


def prepare(
    handle: h5py.File, name: str, arrays: Mapping[str, npt.NDArray[Any]], meta: str
) -> None:
    """Make the datasets of a slot, empty and invalid, unless they fit already."""
    if fits(handle, name, arrays, meta):
        return
    parent = handle[schema.RESTART]
    if name in parent:
        del parent[name]
    group = parent.create_group(name)
    for key, array in arrays.items():
        group.create_dataset(key, shape=array.shape, dtype=array.dtype)
    room = max(4096, 2 * len(meta.encode()))
    group.create_dataset(_META_NAME, shape=(room,), dtype=np.uint8)
    group.create_dataset(_HEADER_NAME, data=np.zeros((), _HEADER))


def read(handle: h5py.File, name: str) -> Slot | None:
    """Read a slot; None when it was never written or its checksum is wrong."""
    group = handle.get(f"{schema.RESTART}/{name}")
    if group is None or _HEADER_NAME not in group or _META_NAME not in group:
        return None
    try:
        header = group[_HEADER_NAME][()]
        sequence, frames, log = (
            int(header[key]) for key in ("sequence", "frames", "log")
        )
        if sequence == 0:
            return None
        arrays = {
            key: np.asarray(group[key][()])
            for key in group
            if key not in (_HEADER_NAME, _META_NAME)
        }
        meta = group[_META_NAME][()].tobytes()
        if _digest(sequence, frames, log, meta, arrays) != bytes(header["sha256"]):
            return None
        return Slot(name, sequence, frames, log, arrays, json.loads(meta))
    except (OSError, KeyError, ValueError, TypeError):
        return None


def newest(handle: h5py.File) -> Slot | None:
    """Return the valid slot written last, or None."""
    slots = [read(handle, name) for name in schema.SLOTS]
    valid = [slot for slot in slots if slot is not None]
    return max(valid, key=lambda slot: slot.sequence, default=None)


def written(handle: h5py.File, name: str) -> bool:
    """Whether a slot was ever written, valid or not."""
    group = handle.get(f"{schema.RESTART}/{name}")
    return group is not None and int(group[_HEADER_NAME][()]["sequence"]) > 0
