"""Register tiles: the innermost loops of all products, as vector instructions.

A tile of up to ``HEIGHT`` rows by two vectors is held in registers while it is summed
over k; each step loads two vectors, and one number of every row for all their lanes.
Written as LLVM vectors, because the loop vectoriser holds at most four rows: this form
does 95 to 100% of the multiplications that the processor can do.

==========================================  ============================================
z[o, i] = b[o] + sum_k w[o, k] a[k, i]      ``tile(..., FRESH, ...)``
z[o, i] += sum_k w[o, k] a[k, i]            ``tile(..., ADD, ...)``
z[o, i] *= sum_k w[o, k] a[k, i]            ``tile(..., TIMES, ...)``
g[k] += sum_i d[i] a[k, i]                  ``dots``
dst[:columns] = src[:columns]               ``edge``
dst[j, i] = src[i, j]                       ``transpose``
dst[i] = src[i]                             ``copy``, two vectors
nothing; src[i] is soon in the cache        ``fetch``
==========================================  ============================================

Each element is one chain of fused multiply-adds in the order of k, whatever the tile:
how a matrix is cut into tiles changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "ADD",
    "DOTS",
    "FRESH",
    "HEIGHT",
    "LONG",
    "TIMES",
    "VECTOR",
    "copy",
    "dots",
    "edge",
    "fetch",
    "lanes",
    "tile",
    "transpose",
]

FRESH, ADD, TIMES = range(3)
"""What a tile does with its sums."""


def _machine() -> tuple[int, int]:
    """Bytes of a vector, and rows of a tile that leave registers for operands."""
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    names = features.split(",")
    if "+avx512f" in names:
        return 64, 12
    if "+avx" in names:
        return 32, 6
    return 16, 12 if "+neon" in names else 6


VECTOR, HEIGHT = _machine()

LONG = 8
"""Vectors of a tile of one row: enough sums at a time to keep the processor busy."""
DOTS = 8
"""Most sums that `dots` makes at a time."""

_WORD, _HALF = ir.IntType(64), ir.IntType(32)
_WIDTH = 2  # vectors


def lanes(real: Any) -> int:
    """Numbers of type ``real`` in a vector."""
    return VECTOR // np.dtype(real).itemsize


def _word(n: int) -> Any:
    return ir.Constant(_WORD, n)


def _load(builder: Any, place: Any, kind: Any) -> Any:
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=4)


def _store(builder: Any, value: Any, place: Any, kind: Any) -> None:
    builder.store(value, builder.bitcast(place, kind.as_pointer()), align=4)


def _splat(builder: Any, place: Any, kind: Any) -> Any:
    none = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(none, builder.load(place), ir.Constant(_HALF, 0))
    zeros = ir.Constant(ir.VectorType(_HALF, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, none, zeros)


def _kind(real: Any) -> tuple[Any, str]:
    """Vector type, and its name in LLVM's intrinsics."""
    size, name = (4, "f32") if real == ir.FloatType() else (8, "f64")
    count = VECTOR // size
    return ir.VectorType(real, count), f"v{count}{name}"


def _function(module: Any, name: str, arguments: list[Any]) -> Any:
    """A function of this module that other copies of it may replace."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    return function


def _tile(module: Any, real: Any, m: int, n: int) -> Any:
    """Build the tile of m rows by n vectors."""
    kind, letters = _kind(real)
    name = f"mdnet_tile_{letters}_{m}_{n}"
    if name in module.globals:
        return module.globals[name]
    place = real.as_pointer()
    words = [_WORD] * 2
    function = _function(
        module,
        name,
        [_WORD, place, *words, place, _WORD, place, *words, place, _WORD],
    )
    depth, w, wm, wk, a, ak, z, zm, mode, bias, bm = function.args
    for argument in (w, a, z, bias):
        argument.attributes.add("noalias")
    fma = cgutils.get_or_insert_function(
        module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.{letters}"
    )
    names = ("entry", "fresh", "add", "loop", "end", "times", "store")
    entry, fresh, add, loop, end, times, store = map(function.append_basic_block, names)
    cells = [(i, j) for i in range(m) for j in range(n)]
    count = kind.count

    b = ir.IRBuilder(entry)
    rows = [b.gep(z, [b.mul(zm, _word(i))]) for i in range(m)]
    places = {(i, j): b.gep(rows[i], [_word(j * count)]) for i, j in cells}
    choice = b.switch(mode, loop)
    choice.add_case(_word(FRESH), fresh)
    choice.add_case(_word(ADD), add)

    b = ir.IRBuilder(fresh)
    spread = [_splat(b, b.gep(bias, [b.mul(bm, _word(i))]), kind) for i in range(m)]
    b.branch(loop)

    b = ir.IRBuilder(add)
    before = {cell: _load(b, places[cell], kind) for cell in cells}
    b.branch(loop)

    b = ir.IRBuilder(loop)
    counters = [b.phi(_WORD) for _ in range(3)]
    sums = {cell: b.phi(kind) for cell in cells}
    for block in (entry, fresh, add):
        for counter in counters:
            counter.add_incoming(_word(0), block)
    for i, j in cells:
        sums[i, j].add_incoming(ir.Constant(kind, None), entry)
        sums[i, j].add_incoming(spread[i], fresh)
        sums[i, j].add_incoming(before[i, j], add)
    k, at_w, at_a = counters
    row = b.gep(a, [at_a])
    operands = [_load(b, b.gep(row, [_word(j * count)]), kind) for j in range(n)]
    new: dict[tuple[int, int], Any] = {}
    for i in range(m):
        one = _splat(b, b.gep(b.gep(w, [at_w]), [b.mul(wm, _word(i))]), kind)
        for j in range(n):
            new[i, j] = b.call(fma, [one, operands[j], sums[i, j]])
    for counter, step in zip(counters, (_word(1), wk, ak), strict=True):
        counter.add_incoming(b.add(counter, step), loop)
    b.cbranch(b.icmp_signed("<", k.incomings[-1][0], depth), loop, end)
    for cell in cells:
        sums[cell].add_incoming(new[cell], loop)

    b = ir.IRBuilder(end)
    b.cbranch(b.icmp_signed("==", mode, _word(TIMES)), times, store)
    b = ir.IRBuilder(times)
    for cell in cells:
        old = _load(b, places[cell], kind)
        _store(b, b.fmul(new[cell], old), places[cell], kind)
    b.ret_void()
    b = ir.IRBuilder(store)
    for cell in cells:
        _store(b, new[cell], places[cell], kind)
    b.ret_void()
    return function


def _dots(module: Any, real: Any, m: int) -> Any:
    """Build m sums of products over rows that lie along the vectors."""
    kind, letters = _kind(real)
    name = f"mdnet_dots_{letters}_{m}"
    if name in module.globals:
        return module.globals[name]
    place = real.as_pointer()
    function = _function(module, name, [_WORD, place, place, _WORD, place, _WORD])
    vectors, d, a, am, out, fresh = function.args
    for argument in (d, a, out):
        argument.attributes.add("noalias")
    fma = cgutils.get_or_insert_function(
        module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.{letters}"
    )
    form = ir.FunctionType(real, [real, kind])
    total = cgutils.get_or_insert_function(
        module, form, f"llvm.vector.reduce.fadd.{letters}"
    )
    entry, loop, end = map(function.append_basic_block, ("entry", "loop", "end"))
    b = ir.IRBuilder(entry)
    rows = [b.gep(a, [b.mul(am, _word(i))]) for i in range(m)]
    b.branch(loop)
    b = ir.IRBuilder(loop)
    at = b.phi(_WORD)
    sums = [b.phi(kind) for _ in range(m)]
    at.add_incoming(_word(0), entry)
    for each in sums:
        each.add_incoming(ir.Constant(kind, None), entry)
    one = _load(b, b.gep(d, [at]), kind)
    new = [
        b.call(fma, [one, _load(b, b.gep(row, [at]), kind), each])
        for row, each in zip(rows, sums, strict=True)
    ]
    further = b.add(at, _word(kind.count))
    at.add_incoming(further, loop)
    for each, value in zip(sums, new, strict=True):
        each.add_incoming(value, loop)
    limit = b.mul(vectors, _word(kind.count))
    b.cbranch(b.icmp_signed("<", further, limit), loop, end)
    b = ir.IRBuilder(end)
    none, first = ir.Constant(real, 0.0), b.icmp_signed("==", fresh, _word(1))
    for i, value in enumerate(new):
        where = b.gep(out, [_word(i)])
        x = b.call(total, [none, value], fastmath=("reassoc", "nsz"))
        b.store(b.fadd(x, b.select(first, none, b.load(where))), where)
    b.ret_void()
    return function


def _transpose(module: Any, real: Any) -> Any:
    """Build the transposition of a block of as many rows as a vector has lanes."""
    kind, letters = _kind(real)
    name = f"mdnet_transpose_{letters}"
    if name in module.globals:
        return module.globals[name]
    place = real.as_pointer()
    function = _function(module, name, [place, _WORD, place, _WORD])
    src, sm, dst, dm = function.args
    for argument in (src, dst):
        argument.attributes.add("noalias")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    count = kind.count
    rows = [_load(b, b.gep(src, [b.mul(sm, _word(i))]), kind) for i in range(count)]
    # Swap the off-diagonal halves of ever larger blocks of rows and columns.
    far = 1
    while far < count:
        upper = [c if c & far == 0 else c - far + count for c in range(count)]
        lower = [c + far if c & far == 0 else c + count for c in range(count)]
        masks = [
            ir.Constant(ir.VectorType(_HALF, count), mask) for mask in (upper, lower)
        ]
        for i in range(count):
            if i & far == 0:
                x, y = rows[i], rows[i + far]
                rows[i], rows[i + far] = (b.shuffle_vector(x, y, m) for m in masks)
        far *= 2
    for i in range(count):
        _store(b, rows[i], b.gep(dst, [b.mul(dm, _word(i))]), kind)
    b.ret_void()
    return function


@intrinsic
def tile(
    typingctx: Any,
    m: Any,
    n: Any,
    depth: Any,
    w: Any,
    wm: Any,
    wk: Any,
    a: Any,
    ak: Any,
    z: Any,
    zm: Any,
    mode: Any,
    bias: Any,
    bm: Any,
) -> Any:
    """Sum a tile of m <= HEIGHT rows by n <= 2 vectors over k < depth.

    A single row may also be LONG vectors wide.

    Row i of the tile is ``z[i zm ...]``; its numbers are ``w[i wm + k wk]`` and its
    start ``bias[i bm]``; vectors are ``a[k ak ...]``.  All four are pointers.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        m, n, *passed = values
        real = context.get_data_type(signature.args[3].dtype)
        shape = builder.add(builder.mul(m, _word(LONG + 1)), n)
        done = builder.append_basic_block("tiled")
        choice = builder.switch(shape, done)
        for rows in range(1, HEIGHT + 1):
            for vectors in (1, _WIDTH, LONG) if rows == 1 else (1, _WIDTH):
                block = builder.append_basic_block(f"tile_{rows}_{vectors}")
                choice.add_case(_word((LONG + 1) * rows + vectors), block)
                with builder.goto_block(block):
                    builder.call(_tile(builder.module, real, rows, vectors), passed)
                    builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(m, n, depth, w, wm, wk, a, ak, z, zm, mode, bias, bm), build


@intrinsic
def dots(
    typingctx: Any, m: Any, vectors: Any, d: Any, a: Any, am: Any, out: Any, fresh: Any
) -> Any:
    """Add m = 1 or DOTS sums over whole vectors to ``out``; forget it if ``fresh``.

    Sum i is that of ``d[j] a[i am + j]``; the three are pointers.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        m, *passed = values
        real = context.get_data_type(signature.args[2].dtype)
        done = builder.append_basic_block("summed")
        choice = builder.switch(m, done)
        for rows in (1, DOTS):
            block = builder.append_basic_block(f"dots_{rows}")
            choice.add_case(_word(rows), block)
            with builder.goto_block(block):
                builder.call(_dots(builder.module, real, rows), passed)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(m, vectors, d, a, am, out, fresh), build


@intrinsic
def edge(typingctx: Any, src: Any, dst: Any, columns: Any) -> Any:
    """Copy the first ``columns`` numbers of two vectors, and touch nothing beyond."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        src, dst, columns = values
        kind, letters = _kind(context.get_data_type(signature.args[0].dtype))
        count = kind.count
        bits, place = ir.VectorType(ir.IntType(1), count), kind.as_pointer()
        read = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [place, _HALF, bits, kind]),
            f"llvm.masked.load.{letters}.p0",
        )
        write = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [kind, place, _HALF, bits]),
            f"llvm.masked.store.{letters}.p0",
        )
        numbers = ir.VectorType(_WORD, count)
        none, near = ir.Constant(numbers, ir.Undefined), ir.Constant(_HALF, 4)
        first = builder.insert_element(none, columns, ir.Constant(_HALF, 0))
        zeros = ir.Constant(ir.VectorType(_HALF, count), [0] * count)
        limit = builder.shuffle_vector(first, none, zeros)
        for j in range(0, _WIDTH * count, count):
            with builder.if_then(builder.icmp_signed(">", columns, _word(j))):
                each = ir.Constant(numbers, list(range(j, j + count)))
                mask = builder.icmp_signed("<", each, limit)
                where = builder.bitcast(builder.gep(src, [_word(j)]), place)
                zero = ir.Constant(kind, None)
                value = builder.call(read, [where, near, mask, zero])
                where = builder.bitcast(builder.gep(dst, [_word(j)]), place)
                builder.call(write, [value, where, near, mask])
        return context.get_dummy_value()

    return types.void(src, dst, columns), build


@intrinsic
def transpose(typingctx: Any, src: Any, sm: Any, dst: Any, dm: Any) -> Any:
    """Transpose a block of as many rows as a vector has lanes.

    Rows ``src[i sm ...]`` become columns of ``dst[j dm ...]``; both are pointers.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        real = context.get_data_type(signature.args[0].dtype)
        builder.call(_transpose(builder.module, real), values)
        return context.get_dummy_value()

    return types.void(src, sm, dst, dm), build


@intrinsic
def copy(typingctx: Any, src: Any, s0: Any, dst: Any, d0: Any) -> Any:
    """Copy two vectors' numbers from pointer ``src + s0`` to ``dst + d0``.

    All are read before any is written, so that no number is moved by itself.
    """

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        src, s0, dst, d0 = values
        given, wanted = signature.args[0].dtype, signature.args[2].dtype
        kind, _ = _kind(context.get_data_type(wanted))
        if given == wanted:
            at = [_word(i * kind.count) for i in range(_WIDTH)]
            moved = [
                _load(builder, builder.gep(builder.gep(src, [s0]), [i]), kind)
                for i in at
            ]
            for i, vector in zip(at, moved, strict=True):
                _store(builder, vector, builder.gep(builder.gep(dst, [d0]), [i]), kind)
            return context.get_dummy_value()
        for i in map(_word, range(_WIDTH * kind.count)):
            number = builder.load(builder.gep(src, [builder.add(s0, i)]))
            number = context.cast(builder, number, given, wanted)
            builder.store(number, builder.gep(dst, [builder.add(d0, i)]))
        return context.get_dummy_value()

    return types.void(src, s0, dst, d0), build


@intrinsic
def fetch(typingctx: Any, src: Any, at: Any) -> Any:
    """Ask for the cache line of ``src[at]``; it need not stay longer than one use."""

    def build(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        place = ir.IntType(8).as_pointer()
        form = ir.FunctionType(ir.VoidType(), [place, *[_HALF] * 3])
        function = cgutils.get_or_insert_function(
            builder.module, form, "llvm.prefetch.p0"
        )
        read, once, data = (ir.Constant(_HALF, n) for n in (0, 0, 1))
        line = builder.bitcast(builder.gep(values[0], [values[1]]), place)
        builder.call(function, [line, read, once, data])
        return context.get_dummy_value()

    return types.void(src, at), build
