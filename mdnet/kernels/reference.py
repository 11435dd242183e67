"""The fused step in plain array operations: what the compiled kernels must equal.

Same arguments and effect as `mdnet.kernels.cpu.advance`, one letter at a time over
whole arrays.  Slow, allocating, and readable: the tests compare against it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import random
from mdnet.kernels.letters import BATH, DRIFT, FORCE, KICK

__all__ = ["advance", "kinetic"]


def kinetic(p: Any, inverse_mass: Any, edges: Any, out: Any) -> None:
    """Twice the kinetic energy of each block: out (R, tiles) float64."""
    squares = p.astype(np.float64) ** 2 * inverse_mass
    for tile in range(out.shape[1]):
        out[:, tile] = squares[:, edges[tile] : edges[tile + 1]].sum(axis=1)


def advance(
    q: Any,
    p: Any,
    f: Any,
    inverse_mass: Any,
    codes: Any,
    streams: Any,
    later: Any,
    coefficients: Any,
    polynomial: Any,
    sums: Any,
    edges: Any,
    groups: Any,
    seed: Any,
    step: int,
    repeats: int,
) -> None:
    """Run a program ``repeats`` times; arguments as `mdnet.kernels.cpu.advance`."""
    replicas, size = q.shape
    real = q.dtype.type
    key = int(seed[0]) | int(seed[1]) << 32
    a, b, c, d = (f.dtype.type(x) for x in polynomial)
    before = np.empty_like(sums[0])
    group = np.repeat(groups, np.diff(edges))
    for repeat in range(repeats):
        row = repeat if coefficients.shape[0] > 1 else 0
        for i, code in enumerate(codes):
            c0 = coefficients[row, i, :, :, 0][:, group]
            c1 = coefficients[row, i, :, :, 1][:, group]
            if code == DRIFT:
                q += (c0 * inverse_mass).astype(real) * p
                continue
            if code == FORCE:
                x = q.astype(f.dtype)
                f[...] = -(a + x * (b + x * (c + x * d)))
                continue
            before[...] = sums[0]
            if code == KICK:
                p += c0.astype(real) * f.astype(real)
            elif code == BATH:
                z = random.normals(
                    key,
                    np.arange(replicas),
                    step + repeat + int(later[i]),
                    int(streams[i]),
                    size,
                    real,
                )
                p *= c0.astype(real)
                p += (c1 / np.sqrt(inverse_mass)).astype(real) * z
            kinetic(p, inverse_mass, edges, sums[0])
            exchanged = 0.5 * (sums[0] - before)
            if code == KICK:
                sums[3] += exchanged
            else:
                sums[2] += exchanged
                sums[1] = sums[0]
