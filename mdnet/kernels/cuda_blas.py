"""Batched matrix products that may be captured into a CUDA graph.

CuPy refuses to call cuBLAS on a stream that is being captured, so the one routine we
need, cublasGemmStridedBatchedEx, is called here through ctypes, with a workspace of
our own: cuBLAS then allocates nothing.  Everything else stays CuPy's.

Arrays are C-ordered matrices, cuBLAS sees columns: ``C = op(A) op(B)`` is asked for as
``C^T = op(B)^T op(A)^T``.  Under the simulator the same call is carried out in NumPy,
by the rules of cuBLAS.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from mdnet.backend import Backend
from mdnet.errors import BackendError
from mdnet.typing import Array

__all__ = ["Products"]

_COMPUTE = {"float32": 68, "tf32": 77, "bf16": 75}  # cublasComputeType_t
"""Arithmetic of float32 products -> cublasComputeType_t.

All round inputs and sum in float32 but "tf32" (inputs to 10 bits) and "bf16" (to 7).
"""

_COMPUTE_64F = 70
_REAL = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # cudaDataType_t
_DEFAULT = -1  # cublasGemmAlgo_t
_WORKSPACE = 32 << 20  # bytes; what cuBLAS itself takes on Hopper


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of cublasGemmStridedBatchedEx, in columns; strides in elements."""

    transpose_a: bool
    transpose_b: bool
    m: int
    n: int
    k: int
    a: Array
    lda: int
    stride_a: int
    b: Array
    ldb: int
    stride_b: int
    beta: float
    c: Array
    ldc: int
    stride_c: int
    batch: int

    @classmethod
    def of(cls, a: Array, b: Array, c: Array, ta: bool, tb: bool, beta: float) -> Call:
        """Call for ``C = op(A) op(B) + beta C``.

        Parameters
        ----------
        a, b, c : (R, rows, columns) or (1, rows, columns)
            One dtype, neighbours along the last axis; one matrix serves all of a
            batch.
        ta, tb : bool
            Whether A and B are transposed.
        beta : float
            0 or 1.
        """

        def laid(x: Array) -> tuple[int, int]:
            size = x.dtype.itemsize
            if x.ndim != 3 or (x.shape[2] > 1 and x.strides[2] != size):
                raise BackendError(
                    f"a product of strides {x.strides}: expected rows of neighbours"
                )
            wide = x.strides[1] // size if x.shape[1] > 1 else 0
            stride = x.strides[0] // size if x.shape[0] > 1 else 0
            return max(wide, x.shape[2]), stride

        rows, inner = (a.shape[2], a.shape[1]) if ta else (a.shape[1], a.shape[2])
        (lda, sa), (ldb, sb), (ldc, sc) = laid(a), laid(b), laid(c)
        return cls(
            tb, ta, c.shape[2], rows, inner, b, ldb, sb, a, lda, sa, beta, c, ldc, sc,
            c.shape[0],
        )  # fmt: skip

    def in_numpy(self) -> None:
        """Do as cuBLAS does, with NumPy arrays."""

        def columns(x: Array, rows: int, width: int, ld: int, stride: int) -> Array:
            size = x.dtype.itemsize
            return np.lib.stride_tricks.as_strided(
                x, (self.batch, rows, width), (stride * size, size, ld * size)
            )

        m, n, k = self.m, self.n, self.k
        shape = (k, m) if self.transpose_a else (m, k)
        a = columns(self.a, *shape, self.lda, self.stride_a)
        shape = (n, k) if self.transpose_b else (k, n)
        b = columns(self.b, *shape, self.ldb, self.stride_b)
        c = columns(self.c, m, n, self.ldc, self.stride_c)
        a = a.transpose(0, 2, 1) if self.transpose_a else a
        b = b.transpose(0, 2, 1) if self.transpose_b else b
        c[...] = np.matmul(a, b) + (self.beta * c if self.beta else 0)


class _Cublas:
    """A handle of cuBLAS with its workspace."""

    def __init__(self) -> None:
        self._cupy = importlib.import_module("cupy")
        loader = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib
        try:
            self._library = ctypes.CDLL(loader("cublas").abs_path)
        except Exception as error:
            raise BackendError(
                f"cuBLAS was not found ({error}); install the extra for your driver: "
                "python -m pip install -e '.[cuda13]' (or '.[cuda12]')"
            ) from error
        pointer, number, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
        self._gemm = self._library.cublasGemmStridedBatchedEx
        self._gemm.argtypes = [
            pointer, number, number, number, number, number,
            pointer, pointer, number, number, long,
            pointer, number, number, long,
            pointer, pointer, number, number, long,
            number, number, number,
        ]  # fmt: skip
        self._library.cublasCreate_v2.argtypes = [ctypes.POINTER(pointer)]
        self._library.cublasSetStream_v2.argtypes = [pointer, pointer]
        self._library.cublasSetWorkspace_v2.argtypes = [
            pointer,
            pointer,
            ctypes.c_size_t,
        ]
        self._handle = pointer()
        self._check(self._library.cublasCreate_v2(ctypes.byref(self._handle)))
        self._workspace = self._cupy.empty(_WORKSPACE, np.uint8)
        self._stream = -1

    @staticmethod
    def _check(status: int) -> None:
        if status != 0:
            raise BackendError(f"cuBLAS returned the error {status}")

    def prepared(self, call: Call, compute: int) -> Callable[[], None]:
        """A product with its arguments converted once."""
        kind = ctypes.c_float if compute != _COMPUTE_64F else ctypes.c_double
        one, beta = kind(1.0), kind(call.beta)
        real = _REAL[np.dtype(call.c.dtype)]
        arguments = (
            int(call.transpose_a), int(call.transpose_b), call.m, call.n, call.k,
            ctypes.byref(one), call.a.data.ptr, real, call.lda, call.stride_a,
            call.b.data.ptr, real, call.ldb, call.stride_b,
            ctypes.byref(beta), call.c.data.ptr, real, call.ldc, call.stride_c,
            call.batch, compute, _DEFAULT,
        )  # fmt: skip

        def product() -> None:
            self._use(int(self._cupy.cuda.get_current_stream().ptr))
            self._check(self._gemm(self._handle, *arguments))

        return product

    def _use(self, stream: int) -> None:
        if stream != self._stream:
            library, handle = self._library, self._handle
            self._check(library.cublasSetStream_v2(handle, stream))
            # A new stream makes cuBLAS forget the workspace.
            pointer = self._workspace.data.ptr
            self._check(library.cublasSetWorkspace_v2(handle, pointer, _WORKSPACE))
            self._stream = stream


@cache
def _cublas(_: int) -> _Cublas:
    return _Cublas()


class Products:
    """Matrix products of one evaluator.

    Parameters
    ----------
    backend : Backend
    matmul : {"float32", "tf32", "bf16"}
        Arithmetic of float32 products; float64 ones are never reduced.
    """

    def __init__(self, backend: Backend, matmul: str = "float32") -> None:
        double = backend.force_dtype == np.float64
        self._compute = _COMPUTE_64F if double else _COMPUTE[matmul]
        self._cublas = None
        if not backend.simulated:
            self._cublas = _cublas(int(backend.xp.cuda.Device().id))

    def product(
        self,
        a: Array,
        b: Array,
        c: Array,
        ta: bool = False,
        tb: bool = False,
        beta: float = 0.0,
    ) -> Callable[[], None]:
        """Prepare ``C = op(A) op(B) + beta C``; see `Call.of`."""
        call = Call.of(a, b, c, ta, tb, beta)
        if self._cublas is None:
            return call.in_numpy
        return self._cublas.prepared(call, self._compute)
