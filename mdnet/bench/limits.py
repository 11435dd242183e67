"""The machine's ceilings: memory copied a second, multiply-adds a second."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from mdnet.backend import Backend

__all__ = ["Limits", "best_time", "measure", "waiter"]


class Limits:
    """Ceilings of one device.

    Attributes
    ----------
    copy : float
        Bytes read and written a second by a copy of 256 MB.
    fma : float
        Float32 multiply-adds a second from registers; 0 where not measured.
    product : float
        Float32 operations a second in a product of square matrices by the BLAS.
    """

    def __init__(self, copy: float, fma: float, product: float) -> None:
        self.copy, self.fma, self.product = copy, fma, product

    @property
    def operations(self) -> float:
        """Vector operations a second: multiply-adds, or half of the product's rate."""
        return self.fma or self.product / 2

    @property
    def flops(self) -> float:
        """Floating-point operations a second that a product could reach."""
        return max(self.product, 2 * self.fma)


def waiter(backend: Backend) -> Any:
    """A function that waits until the device has done all it was given."""
    if backend.xp is np:
        return lambda: None
    return backend.xp.cuda.Device().synchronize


def best_time(action: Any, seconds: float, wait: Any = None) -> float:
    """Shortest time of a call among those that fit in ``seconds``, after two first."""
    wait = wait or (lambda: None)
    for _ in range(2):
        action()
    wait()
    best, end = float("inf"), perf_counter() + seconds
    while True:
        begin = perf_counter()
        action()
        wait()
        now = perf_counter()
        best = min(best, now - begin)
        if now > end:
            return best


def measure(backend: Backend, seconds: float) -> Limits:
    """Measure the ceilings of the device behind ``backend``."""
    xp = backend.xp
    wait = waiter(backend)
    a, b = xp.ones(2**25, np.float32), xp.empty(2**25, np.float32)
    copy = 2 * a.nbytes / best_time(lambda: xp.copyto(b, a), seconds, wait)
    n = 1536 if backend.name == "cpu" else 8192
    left, right = (xp.ones((n, n), np.float32) for _ in range(2))
    out = xp.empty_like(left)
    product = 2 * n**3 / best_time(lambda: xp.matmul(left, right, out), seconds, wait)
    fma = 0.0
    if backend.name == "cpu":
        from numba import get_num_threads

        from mdnet.kernels import ceiling

        x, rounds = np.ones((get_num_threads(), 8, 64), np.float32), 5000
        c, d = np.float32(0.5), np.float32(0.5)
        once = best_time(lambda: ceiling.multiply_add(x, c, d, rounds), seconds)
        fma = ceiling.CHAIN * rounds * x.size / once
    return Limits(copy, fma, product)
