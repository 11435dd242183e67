"""Block Gibbs chains and annealed importance sampling of R machines at once.

Chains (R, C, n) belong to machines (R, ...).  Every number is that of a counter: unit
u of chain c of machine r is parameter u of replica ``r C + c``, at the step of the
sweep, so that chains do not depend on those beside them.  NumPy arrays go through the
compiled `mdnet.kernels.spins.fire`; others get the same uniforms from the host.

References
----------
R. Salakhutdinov, I. Murray, ICML 2008, doi:10.1145/1390156.1390266 (annealed
importance sampling of these machines).
R. M. Neal, Stat. Comput. 11, 125 (2001), doi:10.1023/A:1008923215028.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import random
from mdnet.potentials._rbm_arrays import Averages, Machines, softplus_sum
from mdnet.typing import Array

__all__ = [
    "ANNEALED",
    "CHAINS",
    "annealed",
    "averages",
    "draw",
    "hidden_field",
    "sweep",
    "visible_field",
]

CHAINS, ANNEALED = random.STREAM_GIBBS, random.STREAM_ANNEALED
"""Streams of Gibbs chains and of annealed ones; each uses two."""


def hidden_field(v: Array, machines: Machines) -> Array:
    """Log odds of hidden units (R, C, n_h) given visible ones (R, C, n_v)."""
    return v @ machines.weights + machines.hidden[:, None]


def visible_field(h: Array, machines: Machines) -> Array:
    """Log odds of visible units (R, C, n_v) given hidden ones (R, C, n_h)."""
    return h @ machines.weights.swapaxes(1, 2) + machines.visible[:, None]


def draw(field: Array, step: int, stream: int, seed: int, xp: Any) -> Array:
    """Units of 0 and 1 with log odds ``field`` (R, C, n)."""
    flat = xp.ascontiguousarray(field.reshape(-1, field.shape[-1]))
    if xp is np:
        from mdnet.kernels import spins

        out = np.empty_like(flat)
        spins.fire(flat, out, step, stream, _key(seed))
    else:
        u = random.uniforms(seed, np.arange(len(flat)), step, stream, flat.shape[1])
        out = (xp.asarray(u) * (1.0 + xp.exp(-flat)) < 1.0).astype(field.dtype)
    return out.reshape(field.shape)


def _key(seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(random.seed_words(seed), np.uint64)


def sweep(
    v: Array, machines: Machines, step: int, seed: int, xp: Any, stream: int = CHAINS
) -> tuple[Array, Array]:
    """One sweep: h given v, then v given h; returns the new v and that h."""
    h = draw(hidden_field(v, machines), step, stream, seed, xp)
    return draw(visible_field(h, machines), step, stream + 1, seed, xp), h


def averages(
    v: Array, machines: Machines, xp: Any, weight: Array | None = None
) -> Averages:
    """Means over chains of v, E[h|v] and their products.

    ``weight`` (R, C) sums to 1 over chains; 1/C if None.
    """
    hidden = 0.5 * (1.0 + xp.tanh(0.5 * hidden_field(v, machines)))
    share = 1.0 / v.shape[1] if weight is None else weight[:, :, None]
    weighted = v * share
    both = weighted.swapaxes(1, 2) @ hidden
    return Averages(both, weighted.sum(axis=1), (hidden * share).sum(axis=1))


def annealed(
    machines: Machines,
    base: Array,
    chains: int,
    betas: np.ndarray[Any, Any],
    first_step: int,
    seed: int,
    xp: Any,
) -> tuple[Array, float, Array]:
    """Annealed importance sampling from independent units to the machines.

    p_k(v) ~ e^((1 - beta_k) base.v + beta_k a.v) prod_j (1 + e^(beta_k (b + v W)_j)).

    Parameters
    ----------
    machines : Machines
        R of them.
    base : (n_v,) array
        Log odds of the independent units at beta = 0.
    chains : int
        C.
    betas : (K + 1,) array
        From 0 to 1, rising.
    first_step : int
        Counter of the first draw; K + 1 are used.
    seed : int

    Returns
    -------
    logs : (R, C)
        Log weights; the mean of their exponentials over chains estimates Z/Z_0.
    log_base : float
        ln Z_0 = n_h ln 2 + sum ln(1 + e^base).
    v : (R, C, n_v)
        Last states: with the weights, a sample of the machines.
    """
    rows, n_visible, n_hidden = machines.weights.shape
    field = xp.zeros((rows, chains, n_visible)) + base
    v = draw(field, first_step, ANNEALED, seed, xp)
    logs = xp.zeros((rows, chains))
    tilt = machines.visible - base
    inner = hidden_field(v, machines)
    for k in range(1, len(betas)):
        now, before = float(betas[k]), float(betas[k - 1])
        logs += (now - before) * (v * tilt[:, None]).sum(axis=2)
        logs += softplus_sum(now * inner, xp)[0] - softplus_sum(before * inner, xp)[0]
        h = draw(now * inner, first_step + k, ANNEALED, seed, xp)
        field = now * (h @ machines.weights.swapaxes(1, 2) + tilt[:, None]) + base
        v = draw(field, first_step + k, ANNEALED + 1, seed, xp)
        inner = hidden_field(v, machines)
    log_base = n_hidden * np.log(2.0) + float(softplus_sum(base, xp)[0])
    return logs, log_base, v
