"""Uniforms that the host needs one a step: drawn many steps at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.typing import Array

__all__ = ["Uniforms"]

_STEPS = 256


class Uniforms:
    """Keyed uniforms (R,) of every step, as a function of (seed, replica, step).

    Parameters
    ----------
    backend : Backend
    seed, replicas, stream : int
    logarithms : bool
        Give -ln u instead, exponential variates of mean 1.
    """

    def __init__(
        self,
        backend: Backend,
        seed: int,
        replicas: int,
        stream: int,
        logarithms: bool = False,
    ) -> None:
        self._backend, self._seed = backend, seed
        self._rows = np.arange(replicas)
        self._stream, self._logarithms = stream, logarithms
        self._first, self._values = -1, np.empty(0)

    def at(self, step: int) -> Array:
        """Values of the step after ``step``, (R,) float64 on the device."""
        first = step // _STEPS
        if first != self._first:
            drawn: Any = random.uniforms(
                self._seed, self._rows, first, self._stream, _STEPS
            ).T
            if self._logarithms:
                drawn = -np.log(drawn)
            self._values = self._backend.asarray(drawn)
            self._first = first
        return self._values[step % _STEPS]
