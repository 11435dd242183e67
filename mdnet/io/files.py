"""Opening trajectory files: versions, locks, and what a killed process left.

Four properties of HDF5 decide the settings here; each was found by replaying every
prefix of a run's writes (tests/test_io_crash.py):

- Superblocks of version 3 carry a "being written" flag that makes a killed file
  refuse to open.  Version 2 has none, so files are created with it.
- The old chunk index (a B-tree) loses written frames while a node splits; the index
  of HDF5 1.10 (an extensible array) does not.  Objects are created in that format.
- Freed space that is used again can be overwritten before the index that points to it
  is.  The file space strategy "none" never uses it again.
- HDF5's lock keeps other programs out while a file is written.  It is dropped once
  the file is open; a lock of our own keeps a second writer out instead.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import struct
import threading
import weakref
from typing import Any

import h5py

from mdnet.errors import TrajectoryError
from mdnet.io import schema

__all__ = ["close_write", "create", "mend", "open_read", "open_write"]

LIBVER = ("v110", "v110")
_LOCK_BYTE = 2**62
_SUPERBLOCK = struct.Struct("<8sBBBBQQQQI")
_readers: weakref.WeakValueDictionary[int, h5py.File] = weakref.WeakValueDictionary()
_readers_lock = threading.Lock()

fcntl: Any = None
with contextlib.suppress(ImportError):  # not on Windows
    fcntl = importlib.import_module("fcntl")


def _open(path: str, mode: str, **settings: Any) -> h5py.File:
    return h5py.File(path, mode, **settings)


def create(path: str, *, live: bool, overwrite: bool) -> h5py.File:
    """Create an empty file and leave it open for writing.

    Parameters
    ----------
    path : str
        Where.
    live : bool
        For single-writer-multiple-readers, which needs a superblock of version 3.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    TrajectoryError
        The file exists, is being written, or cannot be created.
    """
    if os.path.exists(path):
        if not overwrite:
            raise TrajectoryError(
                f"{path} exists and is not overwritten; pass overwrite=True to "
                "replace it, continue it with Simulation.resume, or choose another "
                "name"
            )
        _release(path)
        _check_unclaimed(path)
    mode = "w" if overwrite else "x"
    try:
        if live:
            handle = _open(path, mode, fs_strategy="none", libver=LIBVER)
        else:
            _open(path, mode, fs_strategy="none").close()
            handle = _open(path, "r+", libver=LIBVER)
    except OSError as error:
        raise TrajectoryError(
            f"{path} cannot be created: {error}; is the folder there, and is the file "
            "closed in every program that reads it?"
        ) from error
    _claim(handle, path)
    return handle


def open_write(path: str) -> h5py.File:
    """Open an existing trajectory for writing, also one whose writer was killed.

    Raises
    ------
    TrajectoryError
        Not there, not ours, being written by another process, or damaged.
    """
    _check_is_hdf5(path)
    _release(path)
    _check_unclaimed(path)
    failure: OSError | None = None
    for attempt in ("as it is", "without locks", "mended"):
        try:
            if attempt == "mended":
                mend(path, shorten=False)
            locking = {"locking": False} if attempt == "without locks" else {}
            handle = _open(path, "r+", libver=LIBVER, **locking)
            break
        except OSError as error:
            failure = failure or error
    else:
        raise TrajectoryError(
            f"{path} cannot be opened for writing: {failure}; close it where this or "
            "another program reads it"
        ) from failure
    _claim(handle, path)
    try:
        _check_ours(handle, path)
    except TrajectoryError:
        handle.close()
        raise
    return handle


def close_write(handle: h5py.File, path: str) -> None:
    """Close a file open for writing, for good.

    Our own readers in this process are closed first: HDF5 keeps a file, its lock and
    its flags as long as any handle of the process is open.
    """
    _release(path)
    _disclaim(handle)
    handle.close()


def open_read(path: str) -> h5py.File:
    """Open a trajectory for reading, also while it is being written.

    Raises
    ------
    TrajectoryError
        Not there, not HDF5, not ours, truncated, or of a newer schema.
    """
    _check_is_hdf5(path)
    failure: OSError | None = None
    # The first setting is that of other programs, which could not open the file beside
    # us in this process with another.  A file written in SWMR mode opens only for those
    # who ask for it.
    for settings in (
        {},
        {"locking": False},
        {"swmr": True},
        {"swmr": True, "locking": False},
    ):
        try:
            handle = _open(path, "r", **settings)
            break
        except OSError as error:
            failure = failure or error
    else:
        kind = "is truncated" if "truncated" in str(failure) else "cannot be opened"
        raise TrajectoryError(f"{path} {kind}: {failure}") from failure
    try:
        _check_ours(handle, path)
    except TrajectoryError:
        handle.close()
        raise
    _unlock(handle)
    with _readers_lock:
        _readers[id(handle)] = handle
    return handle


def _check_ours(handle: h5py.File, path: str) -> None:
    """Raise unless the open file is a trajectory this version can read.

    Raises
    ------
    TrajectoryError
        Another program's file, or a newer schema.
    """
    try:
        version = int(handle["mdnet"].attrs["schema"])
        complete = schema.COUNTS in handle
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise TrajectoryError(
            f"{path} is an HDF5 file but not an mdnet trajectory (it has no "
            "/mdnet with a schema version)"
        ) from error
    if version > schema.SCHEMA:
        raise TrajectoryError(
            f"{path} has schema version {version}, this mdnet reads up to "
            f"{schema.SCHEMA}; update mdnet"
        )
    if not complete:
        raise TrajectoryError(
            f"{path} is truncated: its writer ended before the first frame"
        )


def _check_is_hdf5(path: str) -> None:
    if not os.path.exists(path):
        raise TrajectoryError(f"{path} does not exist")
    if os.path.isdir(path):
        raise TrajectoryError(f"{path} is a folder, expected a trajectory file")
    if not os.access(path, os.R_OK):
        raise TrajectoryError(f"{path} may not be read (permission denied)")
    if not h5py.is_hdf5(path):
        raise TrajectoryError(
            f"{path} is not an HDF5 file, or is truncated at its very start"
        )


def _lock_record(kind: int) -> bytes:
    return struct.pack("hhqqi", kind, os.SEEK_SET, _LOCK_BYTE, 1, 0)


def _try_lock(descriptor: int) -> bool:
    """Take our writer lock; True also where the system has no such locks."""
    if not hasattr(fcntl, "F_OFD_SETLK"):  # pragma: no cover - Linux and macOS have it
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock_record(fcntl.F_WRLCK))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def _busy(path: str) -> TrajectoryError:
    return TrajectoryError(
        f"{path} is being written by another simulation; wait for it to end, or "
        "write to another file"
    )


def _check_unclaimed(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        raise TrajectoryError(f"{path} may not be written: {error}") from error
    try:
        if not _try_lock(descriptor):
            raise _busy(path)
    finally:
        os.close(descriptor)


def _claim(handle: h5py.File, path: str) -> None:
    """Swap HDF5's lock, which keeps readers out, for one that keeps writers out."""
    if not _try_lock(handle.id.get_vfd_handle()):
        handle.close()
        raise _busy(path)
    _unlock(handle)


def _disclaim(handle: h5py.File) -> None:
    """Give our writer lock back, even if another reader here keeps the file open."""
    if hasattr(fcntl, "F_OFD_SETLK"):
        with contextlib.suppress(OSError):
            record = _lock_record(fcntl.F_UNLCK)
            fcntl.fcntl(handle.id.get_vfd_handle(), fcntl.F_OFD_SETLK, record)


def _unlock(handle: h5py.File) -> None:
    """Drop the lock HDF5 took when it opened the file."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle.id.get_vfd_handle(), fcntl.LOCK_UN)


def _release(path: str) -> None:
    """Close our own readers of a file: HDF5 lets a process open it one way only.

    They open it again when they are next asked.
    """
    with _readers_lock:
        handles = list(_readers.values())
    for handle in handles:
        if handle and os.path.realpath(handle.filename) == os.path.realpath(path):
            handle.close()


def mend(path: str, *, shorten: bool) -> None:
    """Make the superblock of a file nobody has open agree with the file.

    Clears the "being written" flags a killed SWMR writer left, as ``h5clear --status``
    does.  With ``shorten`` also corrects an end beyond the file's, which HDF5 writes
    when a full disk kept the rest out (in any other file that means lost data).
    """
    with open(path, "r+b") as file:
        raw = file.read(_SUPERBLOCK.size)
        size = os.path.getsize(path)
        if len(raw) < _SUPERBLOCK.size:
            return
        signature, version, offsets, lengths, flags, base, extension, end, root, _ = (
            _SUPERBLOCK.unpack(raw)
        )
        if version not in (2, 3) or offsets != 8:
            return
        if not (shorten if end > size else flags):
            return
        fields = (signature, version, offsets, lengths, 0, base, extension, size, root)
        mended = _SUPERBLOCK.pack(*fields, 0)[:-4]
        file.seek(0)
        file.write(mended + struct.pack("<I", lookup3(mended)))


def lookup3(data: bytes) -> int:
    """Checksum of HDF5's metadata: Bob Jenkins' lookup3, "final" with seed 0."""
    mask = 0xFFFFFFFF
    blocks = max(1, -(-len(data) // 12))
    words = struct.unpack(f"<{3 * blocks}I", data.ljust(12 * blocks, b"\0"))
    # The three registers turn through (a, b, c): each line of the published mix and
    # final is the same operation on the next triple.
    state = [(0xDEADBEEF + len(data)) & mask] * 3
    for i in range(blocks):
        state = [(x + y) & mask for x, y in zip(state, words[3 * i :], strict=False)]
        if i + 1 < blocks:
            for turn, k in enumerate((4, 6, 8, 16, 19, 4)):
                x, y, z = turn % 3, (turn + 1) % 3, (turn + 2) % 3
                state[x] = ((state[x] - state[z]) & mask) ^ _rotate(state[z], k)
                state[z] = (state[z] + state[y]) & mask
    for turn, k in enumerate((14, 11, 25, 16, 4, 14, 24)):
        x, y = (turn + 2) % 3, (turn + 1) % 3
        state[x] = ((state[x] ^ state[y]) - _rotate(state[y], k)) & mask
    return state[2]


def _rotate(x: int, k: int) -> int:
    return ((x << k) | (x >> (32 - k))) & 0xFFFFFFFF
