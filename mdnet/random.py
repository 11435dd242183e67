"""Counter-based random numbers: Philox-4x32-10 and Box-Muller normals.

A draw is a pure function of (seed, replica, step, stream, parameter), so threads,
chunks, restarts and devices change nothing.  Parameters are taken in tiles of 2048.
Of a tile that begins at parameter ``t`` and holds ``n`` (2048, or fewer at the end),
parameter ``t + w`` reads lane ``w // m`` of counter block ``t // 4 + w % m``, with
``m = ceil(n / 4)``: neighbours have neighbouring counters, so that neither a vector
unit nor a GPU has to shuffle.

Layout of a counter: ``(block, replica, step mod 2^32, stream + 256 (step div 2^32))``;
the key is the 64-bit seed.  `STREAMS` lists the streams in use: a new one is given its
place there, and no module has a number of its own.  The scalar functions are plain
Python: `mdnet.kernels` compiles them for the CPU and for CUDA.  The array functions are
their NumPy counterpart and the reference they are tested against.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy
as 1, 2, 3", SC'11 (2011), doi:10.1145/2063384.2063405.
G. E. P. Box, M. E. Muller, Ann. Math. Stat. 29, 610 (1958),
doi:10.1214/aoms/1177706645.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import PotentialError

__all__ = [
    "STREAMS",
    "STREAM_ANNEALED",
    "STREAM_BATCH",
    "STREAM_GIBBS",
    "STREAM_INITIAL",
    "STREAM_LABELS",
    "STREAM_METROPOLIS",
    "STREAM_MOMENTA",
    "STREAM_NOISE",
    "STREAM_PROBE",
    "STREAM_SPINS",
    "STREAM_STUDENTS",
    "STREAM_TEMPERING",
    "STREAM_THERMOSTAT",
    "TILE",
    "bits",
    "normals",
    "seed_words",
    "uniforms",
]

STREAM_NOISE = 0  # + k for the k-th bath of a step
STREAM_MOMENTA = 16
STREAM_BATCH = 17
# By step: starts 0 to 2 (also exact draws and disorder), noise of an evidence bound
# from 3.
STREAM_INITIAL = 18
STREAM_PROBE = 19  # directions that derivatives are taken along
STREAM_LABELS = 23  # labels to flip
STREAM_THERMOSTAT = 24  # factors of momenta, signs of preconditioned steps
# + k for what tests, lengths and trees draw; spins that no simulation moves.
STREAM_METROPOLIS = 32
STREAM_TEMPERING = 64  # swaps and hops of temperatures
STREAM_GIBBS = 96  # Boltzmann machines: hidden, then visible units
STREAM_ANNEALED = 98  # the same, of annealed chains
STREAM_SPINS = 100  # heat bath of associative memories
STREAM_STUDENTS = 104  # height and place of slices in the version space

STREAMS: Mapping[int, int] = MappingProxyType(
    {
        STREAM_NOISE: 16,
        STREAM_MOMENTA: 1,
        STREAM_BATCH: 1,
        STREAM_INITIAL: 1,
        STREAM_PROBE: 1,
        STREAM_LABELS: 1,
        STREAM_THERMOSTAT: 1,
        STREAM_METROPOLIS: 32,
        STREAM_TEMPERING: 1,
        STREAM_GIBBS: 2,
        STREAM_ANNEALED: 2,
        STREAM_SPINS: 1,
        STREAM_STUDENTS: 2,
    }
)
"""First number of each family of streams, and how many it has, below 256 in all."""

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
TILE = 2048
"""Parameters whose counters are numbered together."""
_BLOCK = 64 * TILE


def seed_words(seed: int) -> tuple[int, int]:
    """Split a seed into the two 32-bit key words.

    Raises
    ------
    PotentialError
        If ``seed`` is not an integer in [0, 2^64).
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise PotentialError(f"seed={seed!r}: expected an integer in [0, 2**64)")
    if not 0 <= int(seed) < 2**64:
        raise PotentialError(f"seed={seed!r}: expected an integer in [0, 2**64)")
    return int(seed) & 0xFFFFFFFF, int(seed) >> 32


def philox(
    counter: npt.NDArray[np.uint32], key: tuple[int, int]
) -> npt.NDArray[np.uint32]:
    """Philox-4x32-10 of counters (..., 4) under one key: (..., 4) uint32."""
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _M0 * c[0], _M1 * c[2]
        c = [
            (p1 >> _SHIFT) ^ c[1] ^ np.uint64(k0),
            p1 & _MASK,
            (p0 >> _SHIFT) ^ c[3] ^ np.uint64(k1),
            p0 & _MASK,
        ]
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack(c, axis=-1).astype(np.uint32)


def bits(
    seed: int, replica: Any, step: int, stream: int, size: int
) -> npt.NDArray[np.uint32]:
    """Random 32-bit words for parameters 0..size-1.

    Parameters
    ----------
    seed : int
        Key, 0 <= seed < 2^64.
    replica : int or (R,) int array
        Replica index or indices.
    step, stream : int
        Which draw; `STREAMS` has the streams in use.
    size : int
        How many words each.

    Returns
    -------
    ndarray
        (size,) or (R, size) uint32.
    """
    rows = np.atleast_1d(np.asarray(replica))
    out = np.empty((rows.size, size), np.uint32)
    for low, count, part in _tiles(out):
        words = _words(seed, rows, step, stream, low // 4, count)
        _by_lane(words, part)
    return out if np.ndim(replica) else out[0]


def _tiles(out: npt.NDArray[Any]) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Runs of equal tiles of ``out``: start, counter blocks, view (R, tiles, n)."""
    rows, size = out.shape
    whole = size // TILE * TILE
    for low in range(0, whole, _BLOCK):  # in pieces: the words take ten times the room
        high = min(low + _BLOCK, whole)
        yield low, (high - low) // 4, out[:, low:high].reshape(rows, -1, TILE)
    if size > whole:
        count = -(-(size - whole) // 4)
        yield whole, count, out[:, whole:].reshape(rows, 1, -1)


def _by_lane(values: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Lay numbers (R, blocks, 4) of counters out as (R, tiles, parameters)."""
    rows, tiles, size = out.shape
    lanes = values.reshape(rows, tiles, -1, 4).swapaxes(2, 3)
    out[...] = lanes.reshape(rows, tiles, -1)[:, :, :size]


def _words(
    seed: int, rows: Any, step: int, stream: int, first: int, blocks: int
) -> npt.NDArray[np.uint32]:
    """Words (R, blocks, 4) of counter blocks first, first + 1, ..."""
    counter = np.empty((rows.size, blocks, 4), np.uint32)
    counter[..., 0] = np.arange(first, first + blocks, dtype=np.uint32)
    counter[..., 1] = rows[:, None]
    counter[..., 2] = step & 0xFFFFFFFF
    counter[..., 3] = stream + 256 * (step >> 32)
    return philox(counter, seed_words(seed))


def uniforms(
    seed: int, replica: Any, step: int, stream: int, size: int
) -> npt.NDArray[np.float64]:
    """Uniforms in (0, 1), float64 of 32 random bits; arguments as `bits`."""
    words = bits(seed, replica, step, stream, size)
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normals(
    seed: int,
    replica: Any,
    step: int,
    stream: int,
    size: int,
    dtype: npt.DTypeLike = np.float64,
) -> npt.NDArray[Any]:
    """Standard normals for parameters 0..size-1; arguments as `bits`.

    Words (x0, x1) of a counter give ``sqrt(-2 ln u) (cos a, sin a)`` with
    ``u = (x0 + 1/2) 2^-32`` and the angle ``a`` of the quadrant ``x1 >> 30`` plus an
    offset in (-pi/4, pi/4) from the other thirty bits.  The largest value is
    sqrt(66 ln 2) = 6.76.

    Examples
    --------
    >>> normals(seed=0, replica=0, step=0, stream=0, size=3).shape
    (3,)
    """
    rows = np.atleast_1d(np.asarray(replica))
    out = np.empty((rows.size, size), dtype)
    for low, count, part in _tiles(out):
        words = _words(seed, rows, step, stream, low // 4, count)
        x0, x1 = words[..., 0::2], words[..., 1::2]
        radius = np.sqrt(-2.0 * np.log((x0.astype(np.float64) + 0.5) * 2.0**-32))
        offset = (x1 & np.uint32(0x3FFFFFFF)).astype(np.float64) - 2.0**29 + 0.5
        angle = (np.pi / 2) * (offset * 2.0**-30 + (x1 >> np.uint32(30)))
        pair = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        _by_lane(pair.reshape(words.shape), part)
    return out if np.ndim(replica) else out[0]
