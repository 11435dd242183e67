"""Copies from the device to the host that overlap with the steps after them.

A frame is copied on the device first (a few microseconds a megabyte), so that the
simulation can go on at once; a second stream then carries that copy to page-locked
memory of the host.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.typing import Array

__all__ = ["Frame", "Outbox"]


class Frame:
    """One array under way to the host; any thread may `get` it."""

    def __init__(self, host: np.ndarray[Any, Any], place: _Place | None = None) -> None:
        self._host, self._place = host, place
        self._lock = threading.Lock()

    def get(self) -> np.ndarray[Any, Any]:
        """Wait for the copy and return it; the same array each time."""
        with self._lock:
            if self._place is not None:
                self._place.arrived.synchronize()
                self._host = self._host.copy()
                self._place = None
        return self._host


class _Place:
    """Room for one frame, on the device and on the host, and the frame in it."""

    def __init__(self, backend: Backend, like: Array) -> None:
        xp = backend.xp
        self.device = xp.empty(like.shape, like.dtype)
        pinned = importlib.import_module("cupyx").empty_pinned
        self.host: np.ndarray[Any, Any] = pinned(like.shape, like.dtype)
        self.ready = xp.cuda.Event(disable_timing=True)
        self.arrived = xp.cuda.Event(disable_timing=True)
        self.frame: Frame | None = None

    def fits(self, array: Array) -> bool:
        return self.device.shape == array.shape and self.device.dtype == array.dtype


class Outbox:
    """Sends arrays to the host.

    Parameters
    ----------
    backend : Backend
        Arrays of NumPy (the CPU, the simulator) are simply copied.
    places : int
        Frames that may be under way at once; a further one waits for the oldest.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import backend
    >>> from mdnet.kernels.outbox import Outbox
    >>> frame = Outbox(backend.resolve("cpu")).send(np.zeros(3))
    >>> frame.get()
    array([0., 0., 0.])
    """

    def __init__(self, backend: Backend, places: int = 2) -> None:
        self._backend = backend
        self._places: list[_Place | None] = [None] * places
        self._sent = 0
        self._stream: Any = None

    def send(self, array: Array) -> Frame:
        """Begin a copy of ``array`` as it is now, in the order of the stream."""
        if isinstance(array, np.ndarray):
            return Frame(array.copy())
        cuda = self._backend.xp.cuda
        if self._stream is None:
            self._stream = cuda.Stream(non_blocking=True)
        i = self._sent % len(self._places)
        self._sent += 1
        place = self._places[i]
        if place is not None and place.frame is not None:
            place.frame.get()
        if place is None or not place.fits(array):
            place = self._places[i] = _Place(self._backend, array)
        place.device[...] = array
        place.ready.record(cuda.get_current_stream())
        self._stream.wait_event(place.ready)
        place.device.get(stream=self._stream, out=place.host, blocking=False)
        place.arrived.record(self._stream)
        place.frame = Frame(place.host, place)
        return place.frame
