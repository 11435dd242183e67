"""Which rows of the data a force call uses: a pure function of its counters.

No generator is carried along and nothing needs saving: a restarted run, another
number of replicas or threads, and another device see the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.kernels import codes

__all__ = ["ORDERS", "check_batch", "rows"]

ORDERS = {
    "shuffle": "every row once an epoch",
    "replacement": "independent uniform rows",
    "without": "each batch by itself, no row twice in it",
    "symmetric": "shuffled epochs, each followed by itself backwards",
}
"""Orders that need nothing but the numbers of rows -> what they are."""


def check_batch(
    batch_size: Any, order: Any, n_data: int, orders: Mapping[str, str] = ORDERS
) -> int:
    """Return ``batch_size`` as an int if it fits ``n_data`` rows and ``order``.

    Raises
    ------
    PotentialError
        ``batch_size`` is not an integer in [1, n_data], or ``order`` is not one of
        ``orders``.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
        raise PotentialError(
            f"batch_size={batch_size!r}: expected an integer from 1 to the {n_data} "
            f"rows of the data, e.g. minibatch(batch_size={min(128, n_data)})"
        )
    if not 1 <= batch_size <= n_data:
        raise PotentialError(
            f"batch_size={batch_size}: expected 1 to {n_data}, the rows of the data; "
            f"use minibatch(batch_size={n_data}) or the potential itself for all rows"
        )
    if not isinstance(order, str) or order not in orders:
        known = ", ".join(f"{name!r} ({what})" for name, what in orders.items())
        raise PotentialError(f"order={order!r}: expected one of {known}")
    return int(batch_size)


def rows(
    seed: int,
    replicas: int,
    call: int,
    n_data: int,
    batch_size: int,
    order: str = "shuffle",
    shared: bool = False,
) -> npt.NDArray[np.int64]:
    """Rows of every replica's minibatch at one force call.

    Parameters
    ----------
    seed : int
        Key of the random counters.
    replicas : int
        R.
    call : int
        Number of the force call.
    n_data, batch_size : int
        N and n.
    order : {"shuffle", "replacement", "without", "symmetric"}
        "shuffle": each epoch of N div n calls walks a fresh permutation of the data
        and leaves out its last N mod n rows, so that every row is as likely as any
        other; "replacement": independent uniform rows; "without": each call draws n
        distinct rows, independent of all other calls; "symmetric": an epoch as in
        "shuffle", then its batches in reverse, then the next epoch.
    shared : bool
        Give every replica the batch of replica 0.

    Returns
    -------
    ndarray, (R, n) int64

    Raises
    ------
    PotentialError
        A batch that does not fit the data, an unknown order, or a bad seed.

    Examples
    --------
    >>> from mdnet.potentials.minibatch import rows
    >>> batches = [rows(seed=0, replicas=2, call=c, n_data=6, batch_size=3)
    ...            for c in range(2)]
    >>> sorted(int(i) for i in np.concatenate(batches, axis=1)[0])
    [0, 1, 2, 3, 4, 5]
    """
    from mdnet.kernels.batches import rows_of

    batch = check_batch(batch_size, order, n_data)
    if n_data > 2**32:
        raise PotentialError(f"n_data={n_data}: expected at most 2**32 rows")
    out = np.empty((replicas, batch), np.int64)
    k0, k1 = random.seed_words(seed)
    rows_of(out, codes.ORDERS[order], n_data, call, shared, k0, k1)
    return out
