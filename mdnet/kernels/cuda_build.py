"""How scalar sources become CUDA kernels, and how a kernel is launched.

Kernels are plain Python functions whose names are bound anew for each precision, so
that one text serves float32, float64, the device and Numba's simulator.  A `Launch`
holds the arrays of one call in Numba's own form: converting CuPy arrays anew at every
call would wait for their stream each time, which is slow and forbidden while a CUDA
graph is being captured.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

from numba import config, cuda
from numba.core.errors import NumbaPerformanceWarning

__all__ = ["SIMULATED", "Launch", "bind", "device", "to_ptx"]

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in Numba's simulator."""


def _copy(source: Any, scope: Mapping[str, Any]) -> FunctionType:
    """``source`` (plain or compiled by njit) with the names of ``scope`` bound."""
    plain = getattr(source, "py_func", source)
    names = {**plain.__globals__, **scope}
    return FunctionType(plain.__code__, names, plain.__name__)


def device(sources: Iterable[Any], scope: dict[str, Any]) -> None:
    """Add each source to ``scope`` as a device function that sees those before it.

    Inlined always: a call left standing would ask Numba for a device to compile for.
    """
    for source in sources:
        copy = _copy(source, scope)
        scope[copy.__name__] = cuda.jit(device=True, inline="always")(copy)


def bind(kernel: Any, scope: Mapping[str, Any]) -> FunctionType:
    """Return the Python function of a kernel with its names bound."""
    return _copy(kernel, scope)


def to_ptx(kernel: Any, signature: Any, cc: tuple[int, int]) -> str:
    """PTX of a bound kernel; needs no driver."""
    text, _ = cuda.compile_ptx(kernel, signature, cc=cc)
    return str(text)


class Launch:
    """A kernel with its grid and arrays, to be launched again and again.

    Parameters
    ----------
    kernel : compiled kernel
        Its arguments are arrays first, then numbers.
    blocks, threads : int
    arrays : sequence of array
        On the device (NumPy arrays under the simulator); kept alive.
    shared : int
        Bytes of dynamic shared memory.
    """

    def __init__(
        self, kernel: Any, blocks: int, threads: int, arrays: Any, shared: int = 0
    ) -> None:
        self.arrays = tuple(arrays)
        self._kernel, self._shared = kernel, shared
        self._grid = (int(blocks), int(threads))
        self._configured: dict[int, Any] = {}
        if SIMULATED:
            self._views = self.arrays
            self._stream: Any = lambda: 0
        else:
            self._views = tuple(cuda.as_cuda_array(a, sync=False) for a in self.arrays)
            current = importlib.import_module("cupy").cuda.get_current_stream
            self._stream = lambda: int(current().ptr)

    def __call__(self, *numbers: Any) -> None:
        """Launch on CuPy's current stream with the numbers that close the arguments."""
        stream = self._stream()
        if stream not in self._configured:
            with warnings.catch_warnings():
                # Few blocks are what a small network has.
                warnings.simplefilter("ignore", NumbaPerformanceWarning)
                handle = cuda.external_stream(stream) if stream else 0
                self._configured[stream] = self._kernel[
                    (*self._grid, handle, self._shared)
                ]
        self._configured[stream](*self._views, *numbers)
