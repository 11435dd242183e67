"""What compiled functions need below arrays: addresses, calls, shared counters.

A kernel that takes one address instead of twenty arrays is called in a quarter of a
microsecond, and a kernel that calls others by address needs no copy of them compiled
into it.

==================================  ==================================================
function                            effect
==================================  ==================================================
``pointer(address, real)``          typed pointer, to index or to give to ``carray``
``call(address, arguments, real)``  call a C function that returns a ``real``
``record(address, kind)``            fields of a `mdnet.kernels.table.Table`
``take(cell)``                      add 1 to a counter of all threads; what it was
``add(cell, n)``                    add n to a counter of all threads; what it was
``look(cell)``                      a counter, and all that was written before it
``yield_address()``                 of a C function that lets another thread run
``spread(function, table, n)``      ``function(table)`` once in each of n threads
``alone(source, **options)``        a kernel with ``prange``, for one thread
==================================  ==================================================
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import FunctionType
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import get_num_threads, njit, prange, set_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "add",
    "alone",
    "call",
    "look",
    "pointer",
    "record",
    "spread",
    "take",
    "yield_address",
]

_WORD = ir.IntType(64)


@intrinsic
def pointer(typingctx: Any, address: Any, real: Any) -> Any:
    """Pointer to numbers of type ``real`` at an integer address."""
    result = types.CPointer(real.instance_type)

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.inttoptr(values[0], kind)

    return result(address, real), build


@intrinsic
def call(typingctx: Any, address: Any, arguments: Any, real: Any) -> Any:
    """Result of the C function at ``address``, of type ``real``."""
    result = real.instance_type

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = [context.get_value_type(kind) for kind in signature.args[1].types]
        form = ir.FunctionType(context.get_value_type(result), kinds)
        function = builder.inttoptr(values[0], form.as_pointer())
        return builder.call(function, cgutils.unpack_tuple(builder, values[1]))

    return result(address, arguments, real), build


@intrinsic
def record(typingctx: Any, address: Any, kind: Any) -> Any:
    """The record of type ``kind``, from `numba.from_dtype`, at an integer address."""
    result = kind.instance_type

    def build(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(result))

    return result(address, kind), build


@intrinsic
def take(typingctx: Any, cell: Any) -> Any:
    """Add 1 to the int64 at address ``cell``, in one step; what it was before."""

    def build(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_WORD, 1), "acq_rel")

    return types.int64(cell), build


@intrinsic
def add(typingctx: Any, cell: Any, n: Any) -> Any:
    """Add n to the int64 at address ``cell``, in one step; what it was before."""

    def build(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", place, values[1], "acq_rel")

    return types.int64(cell, types.int64), build


@intrinsic
def look(typingctx: Any, cell: Any) -> Any:
    """The int64 at address ``cell``; writes that came before it are seen."""

    def build(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _WORD.as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(cell), build


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def _launch(function: Any, table: Any, workers: Any) -> None:
    """Call the C function ``int64 function(int64 table)`` once for each worker."""
    for _ in prange(workers):
        call(function, (table,), types.int64)


def spread(function: int, table: int, workers: int) -> None:
    """Call the C function ``int64 function(int64 table)`` once in each of threads."""
    threads = get_num_threads()
    if workers == threads:
        _launch(function, table, workers)
        return
    # Threads without work would still have to be woken and waited for.
    set_num_threads(workers)
    try:
        _launch(function, table, workers)
    finally:
        set_num_threads(threads)


def alone(source: Any, **options: Any) -> Any:
    """Compile a kernel written with ``prange`` for one thread.

    That takes a third of the time to compile, and little work is done before the other
    threads wake.  A name of its own keeps it apart from its parallel twin on disk.
    """
    copy = FunctionType(source.__code__, source.__globals__, source.__name__)
    copy.__qualname__ = f"{source.__qualname__}_alone"
    copy.__module__ = source.__module__
    return njit(cache=True, **options)(copy)


@cache
def yield_address() -> int:
    """Address of the C function that lets another thread run; 0 if there is none."""
    for library, name in ((None, "sched_yield"), ("kernel32", "SwitchToThread")):
        try:
            function = getattr(ctypes.CDLL(library), name)
        except (OSError, TypeError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0
