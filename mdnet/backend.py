"""Where arrays live and how precise they are: resolved once per simulation.

A `Backend` is a frozen record of the array module (NumPy or CuPy), the device and
the two floating types of a precision.  Nothing inside a step asks these questions
again.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mdnet.errors import BackendError
from mdnet.typing import Array

__all__ = ["PRECISIONS", "Backend", "devices", "resolve"]

PRECISIONS: dict[str, tuple[str, str]] = {
    "single": ("float32", "float32"),
    "mixed": ("float64", "float32"),
    "double": ("float64", "float64"),
}
"""precision -> (type of q and p, type of the forces)."""


MATMUL = ("float32", "tf32", "bf16")
"""Arithmetic of float32 products on a CUDA device; see ``docs/gpu.md``."""
_LINE = 64  # bytes of a cache line


@dataclass(frozen=True, slots=True)
class Backend:
    """An array module, a device and a precision.

    Attributes
    ----------
    name : {"cpu", "cuda"}
        Where the arrays live.
    precision : {"single", "mixed", "double"}
        As in OpenMM: "mixed" computes forces in float32, integrates in float64.
    xp : module
        NumPy or CuPy.  Under Numba's CUDA simulator the "cuda" backend keeps NumPy
        arrays and runs the CUDA kernels on them.
    simulated : bool
        Whether the CUDA kernels run in Numba's simulator.
    matmul : {"float32", "tf32", "bf16"}
        Arithmetic of float32 matrix products on a CUDA device; see ``docs/gpu.md``.
    """

    name: Literal["cpu", "cuda"]
    precision: Literal["single", "mixed", "double"]
    xp: Any
    simulated: bool = False
    matmul: Literal["float32", "tf32", "bf16"] = "float32"

    @property
    def state_dtype(self) -> np.dtype[Any]:
        """Type of positions and momenta."""
        return np.dtype(PRECISIONS[self.precision][0])

    @property
    def force_dtype(self) -> np.dtype[Any]:
        """Type of forces and of the network inside them."""
        return np.dtype(PRECISIONS[self.precision][1])

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Bring ``x`` to the device as a C-contiguous array."""
        return self.xp.ascontiguousarray(self.xp.asarray(x, dtype=dtype))

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Zeros on the device; on the host their first byte starts a cache line.

        NumPy's own arrays start 16 bytes into one, so that every full vector of a
        loop over them would touch two.
        """
        if self.xp is not np:
            return self.xp.zeros(shape, dtype)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        room = np.zeros(size + _LINE, np.uint8)
        first = -room.ctypes.data % _LINE
        return room[first : first + size].view(dtype).reshape(shape)

    def to_host(self, x: Array) -> np.ndarray[Any, Any]:
        """Bring ``x`` to the host as a NumPy array (no copy if it is there)."""
        if isinstance(x, np.ndarray):
            return x
        host: np.ndarray[Any, Any] = x.get()
        return host


def _simulator() -> bool:
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def _cuda_module() -> Any:
    """CuPy with a usable device, or a `BackendError` that says what is missing."""
    if importlib.util.find_spec("cupy") is None:
        raise BackendError(
            'backend="cuda" needs CuPy, which is not installed; install the extra for '
            "your driver: python -m pip install -e '.[cuda13]' (or '.[cuda12]'), or "
            'use backend="cpu"'
        )
    if importlib.util.find_spec("numba_cuda") is None:
        raise BackendError(
            'backend="cuda" needs numba-cuda, which is not installed; install the '
            "extra: python -m pip install -e '.[cuda13]' (or '.[cuda12]')"
        )
    cupy = importlib.import_module("cupy")
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise BackendError(
            f'backend="cuda": CuPy found no usable CUDA driver ({error}); use '
            'backend="cpu"'
        ) from error
    if count == 0:
        raise BackendError('backend="cuda": no CUDA device found; use backend="cpu"')
    return cupy


def resolve(
    name: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["single", "mixed", "double"] = "single",
    matmul: Literal["float32", "tf32", "bf16"] = "float32",
) -> Backend:
    """Choose the array module and device.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        "auto" takes a CUDA device when CuPy, numba-cuda and a driver are there.
    precision : {"single", "mixed", "double"}
        See `Backend`.
    matmul : {"float32", "tf32", "bf16"}
        Arithmetic of float32 matrix products on a CUDA device.

    Raises
    ------
    BackendError
        Unknown name, precision or arithmetic, or a device or package that is missing.
    """
    if precision not in PRECISIONS:
        raise BackendError(
            f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}"
        )
    if name not in ("auto", "cpu", "cuda"):
        raise BackendError(f"backend={name!r}: expected 'auto', 'cpu' or 'cuda'")
    if matmul not in MATMUL:
        raise BackendError(
            f"matmul={matmul!r}: expected one of {', '.join(MATMUL)}, e.g. "
            'matmul="tf32" for faster and coarser forces on a GPU'
        )
    if name == "cpu":
        return Backend("cpu", precision, np)
    if _simulator():
        if name == "cuda":
            return Backend("cuda", precision, np, simulated=True, matmul=matmul)
        return Backend("cpu", precision, np)
    try:
        return Backend("cuda", precision, _cuda_module(), matmul=matmul)
    except BackendError:
        if name == "cuda":
            raise
        return Backend("cpu", precision, np)


def devices() -> list[dict[str, Any]]:
    """Describe what this machine offers: one record for the CPU, one per GPU.

    Returns
    -------
    list of dict
        ``name``, ``kind`` and ``memory`` (bytes) or ``note`` saying why not.
    """
    found: list[dict[str, Any]] = [
        {"kind": "cpu", "name": f"{os.cpu_count()} cores", "note": "Numba kernels"}
    ]
    try:
        cupy = _cuda_module()
    except BackendError as error:
        return [*found, {"kind": "cuda", "name": "none", "note": str(error)}]
    for index in range(int(cupy.cuda.runtime.getDeviceCount())):
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        found.append(
            {
                "kind": "cuda",
                "name": properties["name"].decode(),
                "memory": int(properties["totalGlobalMem"]),
            }
        )
    return found
