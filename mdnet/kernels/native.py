"""What compiled functions need below arrays: addresses, calls, shared counters.

A kernel that takes one address instead of twenty arrays is called in a quarter of a
microsecond, and a kernel that calls others by address needs no copy of them compiled
into it.

==================================  ==================================================
function                            effect
==================================  ==================================================
``pointer(address, real)``          typed pointer, to index or to give to ``carray``
``call(address, arguments, real)``  call a C function that returns a ``real``
``take(cell)``                      add 1 to a counter of all threads; what it was
``look(cell)``                      a counter, and all that was written before it
``launch(function, table, n)``      n calls of ``function(table)``, shared by threads
==================================  ==================================================
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["call", "launch", "look", "pointer", "take"]

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
def take(typingctx: Any, cell: Any) -> Any:
    """Add 1 to the int64 at address ``cell``, in one step; what it was before."""

    def build(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_WORD, 1), "acq_rel")

    return types.int64(cell), build


@intrinsic
def look(typingctx: Any, cell: Any) -> Any:
    """The int64 at address ``cell``; writes that came before it are seen."""

    def build(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _WORD.as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(cell), build


@njit(
    "void(int64, int64, int64)",
    cache=True,
    parallel=True,
    nogil=True,
    error_model="numpy",
)
def launch(function: Any, table: Any, workers: Any) -> None:
    """Call the C function ``int64 function(int64 table)`` once for each worker."""
    for _ in prange(workers):
        call(function, (table,), types.int64)
