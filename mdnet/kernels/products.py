"""Matrix products of network-sized blocks, as loops that LLVM vectorises.

Four rows by four terms are held in registers.  On blocks that stay in cache this
meets or beats a BLAS call (which packs its operands first), needs no second thread
pool, and makes every element a sum in a fixed order: cutting the rows among threads
changes no bit.  All operands have unit stride along their last axis, except ``w``.

======================================  ================================
product                                 code
======================================  ================================
z[o, :] += sum_k w[o, k] a[k, :]        ``mix_rows(w, a, z, o0, o1)``
g[o, k] += sum_i d[o, i] a[k, i]        ``dot_rows(d, a, g, o0, o1)``
======================================  ================================
"""

from __future__ import annotations

from typing import Any

from numba import njit

__all__ = ["dot_rows", "mix_rows"]

_linear = njit(fastmath={"contract", "nsz"}, error_model="numpy")
_sums = njit(fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")


@_linear
def _mix_four(w: Any, a: Any, z: Any, o: int) -> None:
    terms, width = a.shape
    whole = terms - terms % 4
    z0, z1, z2, z3 = z[o], z[o + 1], z[o + 2], z[o + 3]
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        p0, p1, p2, p3 = w[o, k], w[o, k + 1], w[o, k + 2], w[o, k + 3]
        q0, q1, q2, q3 = w[o + 1, k], w[o + 1, k + 1], w[o + 1, k + 2], w[o + 1, k + 3]
        r0, r1, r2, r3 = w[o + 2, k], w[o + 2, k + 1], w[o + 2, k + 2], w[o + 2, k + 3]
        s0, s1, s2, s3 = w[o + 3, k], w[o + 3, k + 1], w[o + 3, k + 2], w[o + 3, k + 3]
        for i in range(width):
            b0, b1, b2, b3 = a0[i], a1[i], a2[i], a3[i]
            z0[i] = z0[i] + p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3
            z1[i] = z1[i] + q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3
            z2[i] = z2[i] + r0 * b0 + r1 * b1 + r2 * b2 + r3 * b3
            z3[i] = z3[i] + s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
    for k in range(whole, terms):
        a0 = a[k]
        p0, q0, r0, s0 = w[o, k], w[o + 1, k], w[o + 2, k], w[o + 3, k]
        for i in range(width):
            b0 = a0[i]
            z0[i] = z0[i] + p0 * b0
            z1[i] = z1[i] + q0 * b0
            z2[i] = z2[i] + r0 * b0
            z3[i] = z3[i] + s0 * b0


@_linear
def _mix_one(w: Any, a: Any, z: Any, o: int) -> None:
    terms, width = a.shape
    whole = terms - terms % 4
    z0 = z[o]
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        p0, p1, p2, p3 = w[o, k], w[o, k + 1], w[o, k + 2], w[o, k + 3]
        for i in range(width):
            z0[i] = z0[i] + p0 * a0[i] + p1 * a1[i] + p2 * a2[i] + p3 * a3[i]
    for k in range(whole, terms):
        a0, p0 = a[k], w[o, k]
        for i in range(width):
            z0[i] = z0[i] + p0 * a0[i]


@_linear
def mix_rows(w: Any, a: Any, z: Any, first: int, last: int) -> None:
    """z[o, :] += sum_k w[o, k] a[k, :] for first <= o < last."""
    whole = last - (last - first) % 4
    for o in range(first, whole, 4):
        _mix_four(w, a, z, o)
    for o in range(whole, last):
        _mix_one(w, a, z, o)


@_sums
def _dot_four(d: Any, a: Any, g: Any, o: int) -> None:
    terms, width = a.shape
    whole = terms - terms % 4
    d0, d1, d2, d3 = d[o], d[o + 1], d[o + 2], d[o + 3]
    zero = d.dtype.type(0)
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        p0 = p1 = p2 = p3 = zero
        q0 = q1 = q2 = q3 = zero
        r0 = r1 = r2 = r3 = zero
        s0 = s1 = s2 = s3 = zero
        for i in range(width):
            b0, b1, b2, b3 = a0[i], a1[i], a2[i], a3[i]
            c0, c1, c2, c3 = d0[i], d1[i], d2[i], d3[i]
            p0 += c0 * b0
            p1 += c0 * b1
            p2 += c0 * b2
            p3 += c0 * b3
            q0 += c1 * b0
            q1 += c1 * b1
            q2 += c1 * b2
            q3 += c1 * b3
            r0 += c2 * b0
            r1 += c2 * b1
            r2 += c2 * b2
            r3 += c2 * b3
            s0 += c3 * b0
            s1 += c3 * b1
            s2 += c3 * b2
            s3 += c3 * b3
        g[o, k] += p0
        g[o, k + 1] += p1
        g[o, k + 2] += p2
        g[o, k + 3] += p3
        g[o + 1, k] += q0
        g[o + 1, k + 1] += q1
        g[o + 1, k + 2] += q2
        g[o + 1, k + 3] += q3
        g[o + 2, k] += r0
        g[o + 2, k + 1] += r1
        g[o + 2, k + 2] += r2
        g[o + 2, k + 3] += r3
        g[o + 3, k] += s0
        g[o + 3, k + 1] += s1
        g[o + 3, k + 2] += s2
        g[o + 3, k + 3] += s3
    for k in range(whole, terms):
        a0 = a[k]
        p0 = q0 = r0 = s0 = zero
        for i in range(width):
            b0 = a0[i]
            p0 += d0[i] * b0
            q0 += d1[i] * b0
            r0 += d2[i] * b0
            s0 += d3[i] * b0
        g[o, k] += p0
        g[o + 1, k] += q0
        g[o + 2, k] += r0
        g[o + 3, k] += s0


@_sums
def _dot_one(d: Any, a: Any, g: Any, o: int) -> None:
    terms, width = a.shape
    whole = terms - terms % 4
    d0 = d[o]
    zero = d.dtype.type(0)
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        p0 = p1 = p2 = p3 = zero
        for i in range(width):
            c0 = d0[i]
            p0 += c0 * a0[i]
            p1 += c0 * a1[i]
            p2 += c0 * a2[i]
            p3 += c0 * a3[i]
        g[o, k] += p0
        g[o, k + 1] += p1
        g[o, k + 2] += p2
        g[o, k + 3] += p3
    for k in range(whole, terms):
        a0, p0 = a[k], zero
        for i in range(width):
            p0 += d0[i] * a0[i]
        g[o, k] += p0


@_linear
def dot_rows(d: Any, a: Any, g: Any, first: int, last: int) -> None:
    """g[o, k] += sum_i d[o, i] a[k, i] for first <= o < last."""
    whole = last - (last - first) % 4
    for o in range(first, whole, 4):
        _dot_four(d, a, g, o)
    for o in range(whole, last):
        _dot_one(d, a, g, o)
