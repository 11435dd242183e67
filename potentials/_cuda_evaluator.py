"""Posterior energies and gradients of an MLP on a CUDA device.

Products of matrices by cuBLAS, batched over replicas; everything between them by the
kernels of `mdnet.kernels.cuda_network`.  A force call allocates nothing and waits for
nothing, so that whole steps can be captured into a CUDA graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.kernels.codes import ACTIVATIONS, ORDERS
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch
    from mdnet.potentials.posterior import Posterior

__all__ = ["CudaEvaluator", "device_data", "prior_table"]

_Step = Callable[[int], None]


def device_data(model: Posterior, backend: Backend) -> tuple[Array, Array]:
    """Inputs (N, inputs) and targets (targets, N) on the device."""
    X, t = model.arrays(backend.force_dtype)
    X = backend.asarray(X, backend.force_dtype)
    if backend.simulated:
        X = X.copy()  # the model's own is read-only
    return X, backend.asarray(np.array(t.T, order="C"))


def prior_table(model: Posterior) -> np.ndarray:
    """Prior code, u and v of each tensor, (L, 3) float64."""
    table: Any = model.prior.table(model.layout)  # type: ignore[attr-defined]
    return np.array(table, np.float64).reshape(-1, 3)


class CudaEvaluator:
    """Energies and gradients of an MLP; as `ArrayEvaluator`, for a CUDA device.

    Rows are taken in slices whose activations fit into `BYTES`, or a third of the free
    memory if that is less.

    Parameters
    ----------
    model : Posterior
        Network, likelihood, prior and data.
    backend : Backend
        Array module and precision.
    replicas : int
        R.
    seed : int
        Key of the minibatches.
    batch : Batch, optional
        Estimate forces from such batches; all rows if None.
    matmul : {"float32", "tf32", "bf16"}
        Arithmetic of float32 products; see `mdnet.backend.MATMUL`.

    Attributes
    ----------
    capturable : bool
        True: force calls may be captured into a CUDA graph.
    """

    BYTES = 2**33
    """Most bytes of activations."""
    WIDE = 256
    """Units below which a first layer of shared inputs is one product for all."""
    BLOCK = 1024
    """Weights that a block of threads finishes."""

    capturable = True

    def __init__(
        self,
        model: Posterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
        matmul: str = "float32",
    ) -> None:
        from mdnet.kernels.cuda_blas import Products

        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        self._model, self._batch, self._backend = model, batch, backend
        self._xp, self._replicas = backend.xp, replicas
        self._dtype = backend.force_dtype
        self._products = Products(backend, matmul)
        self._X, self._T = device_data(model, backend)
        self._seed = backend.asarray(np.array(random.seed_words(seed), np.uint64))
        self._tensors = backend.asarray(prior_table(model))
        network: Any = model.network
        self._sizes: tuple[int, ...] = network.sizes
        self._activation = ACTIVATIONS[network.activation]
        self._starts = [
            (
                model.layout[f"{l}.weight"][0].start,
                model.layout[f"{l}.bias"][0].start if network.bias else -1,
            )
            for l in range(network.layers)
        ]
        # Rows of all layers below each, when layers lie one after another.
        self._below = np.concatenate([[0], np.cumsum(self._sizes[1:])]).tolist()
        self._reserve()
        self.clock, self._calls = backend.asarray(np.zeros(1, np.int64)), 0
        self._plans: dict[Any, tuple[tuple[Any, ...], list[_Step]]] = {}

    def bind_clock(self, clock: Array, calls: int) -> None:
        """Number force calls ``clock[0] * calls + call`` from now on.

        Parameters
        ----------
        clock : (1,) int64
            On the device: steps done before a replayed graph began.
        calls : int
            Force calls a step.
        """
        self.clock, self._calls = clock, calls
        self._plans.clear()

    # --- what a potential's evaluator offers ------------------------------------------

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        self._gradient(positions, out, -1.0, not self.full, call, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        self._perform(self._weights(positions), None, out, False, 1.0, 0)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(positions, out, 1.0, False, 0, None)

    # --- work arrays ------------------------------------------------------------------

    def _reserve(self) -> None:
        xp, R, sizes = self._xp, self._replicas, self._sizes
        n_data = self._X.shape[0]
        count = n_data if self._batch is None else self._batch.size
        hidden = sizes[1:-1]
        gathered = 0
        if self._batch is not None:
            copies = 1 if self._batch.shared else R
            gathered = copies * (sizes[0] + self._T.shape[0])
        row = R * (sum(sizes[1:]) + sum(hidden) + max(hidden, default=0) + 1)
        room = self.BYTES
        if not self._backend.simulated:
            room = min(room, int(xp.cuda.Device().mem_info[0]) // 3)
        fits = room // ((row + gathered) * self._dtype.itemsize)
        self._most = max(1, min(max(count, n_data), fits))

        def flat(numbers: int) -> Array:
            return xp.empty(max(1, numbers * self._most), self._dtype)

        self._z = flat(R * sum(sizes[1:]))
        self._a = flat(R * sum(hidden))
        self._error = flat(R * max(hidden, default=0))
        self._nll = flat(R)
        if self._batch is not None:
            self._x, self._t = flat(copies * sizes[0]), flat(copies * self._T.shape[0])
        self._packed: Array | None = None
        self._packed_gradient: Array | None = None
        self._tables: dict[bool, tuple[Array, Array]] = {}
        self._cast: Array | None = None
        self._out: Array | None = None

    def _weights(self, positions: Array) -> Array:
        """Positions in the type of the forces."""
        if positions.dtype == self._dtype:
            return positions
        if self._cast is None:
            self._cast = self._xp.empty(positions.shape, self._dtype)
        self._cast[...] = positions
        return self._cast

    def _gradient(
        self,
        positions: Array,
        out: Array,
        sign: float,
        batched: bool,
        call: int,
        energies: Array | None,
    ) -> None:
        target = out
        if out.dtype != self._dtype:
            if self._out is None:
                self._out = self._xp.empty(out.shape, self._dtype)
            target = self._out
        q = self._weights(positions)
        self._perform(q, target, energies, batched, sign, call)
        if target is not out:
            out[...] = target

    # --- the sequence of launches -----------------------------------------------------

    def _perform(
        self,
        q: Array,
        out: Array | None,
        energies: Array | None,
        batched: bool,
        sign: float,
        call: int,
    ) -> None:
        key = (out is None, energies is None, batched, sign)
        arrays = (q, out, energies)
        found = self._plans.get(key)
        if found is None or any(
            a is not b for a, b in zip(found[0], arrays, strict=True)
        ):
            found = self._plans[key] = (
                arrays,
                list(self._plan(q, out, energies, batched, sign)),
            )
        for step in found[1]:
            step(call)

    def _blocks(self, wide: bool) -> tuple[Array, Array]:
        """Table of blocks of parameters, and room for their energies."""
        from mdnet.kernels import cuda_network as kernels

        if wide not in self._tables:
            R, sizes, rows = self._replicas, self._sizes, []
            for tensor, (name, (where, _)) in enumerate(self._model.layout.items()):
                l = int(name.split(".")[0])
                units = sizes[l + 1]
                if name.endswith("bias"):
                    first = R * self._below[l]
                    rows += [
                        (kernels.BIAS, where.start + o, where.start + o + 1, tensor,
                         first + o, units)
                        for o in range(units)
                    ]  # fmt: skip
                    continue
                kind = kernels.WIDE if wide and l == 0 else kernels.WEIGHT
                rows += [
                    (kind, at, min(at + self.BLOCK, where.stop), tensor, where.start,
                     units * sizes[l])
                    for at in range(where.start, where.stop, self.BLOCK)
                ]  # fmt: skip
            self._tables[wide] = (
                self._backend.asarray(np.array(rows, np.int64)),
                self._xp.empty((R, len(rows) + 1), np.float64),
            )
        return self._tables[wide]

    def _launch(self, name: str, blocks: int, *arrays: Array) -> Any:
        from mdnet.kernels import cuda_network as kernels
        from mdnet.kernels.cuda_build import Launch

        compiled = kernels.kernel(name, self._dtype == np.float32)
        return Launch(compiled, blocks, kernels.LANES, arrays)

    def _matrix(self, q: Array, l: int) -> Array:
        """Weights of layer l inside q or a gradient, (R, units, inputs), no copy."""
        start, units, width = self._starts[l][0], self._sizes[l + 1], self._sizes[l]
        item = q.dtype.itemsize
        return self._xp.lib.stride_tricks.as_strided(
            q[:, start : start + units * width],
            (q.shape[0], units, width),
            (q.strides[0], width * item, item),
        )

    def _layer(self, room: Array, l: int, rows: int) -> Array:
        """Layer l of the layers that lie in ``room``, (R, units, rows)."""
        R, units = self._replicas, self._sizes[l + 1]
        first = R * self._below[l] * rows
        return room[first : first + R * units * rows].reshape(R, units, rows)

    def _plan(
        self,
        q: Array,
        out: Array | None,
        energies: Array | None,
        batched: bool,
        sign: float,
    ) -> Any:
        """Yield every launch of one evaluation, in order."""
        b, n_data = self._batch, self._X.shape[0]
        n = b.size if batched and b is not None else n_data
        pieces = -(-n // self._most)
        bounds = [n * i // pieces for i in range(pieces + 1)]
        shared = not (batched and b is not None and not b.shared)
        wide = shared and self._replicas > 1 and self._sizes[1] < self.WIDE
        blocks, parts = self._blocks(wide)
        every = self._replicas * blocks.shape[0]
        if wide:
            yield from self._pack(q)
        for first, stop in itertools.pairwise(bounds):
            opening, closing = int(first == 0), int(stop == n)
            rows, offset = stop - first, first
            if batched:
                x, t, step = self._gathered(rows, first)
                offset = 0
                yield step
            else:
                x, t = self._X[None, first:stop], self._T[None]
            yield from self._forward(q, x, rows, wide)
            yield self._loss(q, t, rows, offset)
            if out is not None:
                beta = float(1 - opening)
                yield from self._backward(q, x, out, rows, wide, beta)
                z = self._z[: self._z.shape[0] // self._most * rows].reshape(-1, rows)
                packed = self._packed_gradient if wide else self._error
                last = self._launch(
                    "finish", every, q, out, packed, z, blocks, self._tensors
                )
                yield _fixed(last, opening, closing, n_data / n, sign)
            if energies is not None:
                count = every + self._replicas
                nll = self._nll[: self._replicas * rows].reshape(-1, rows)
                sums = self._launch(
                    "parts", count, q, nll, blocks, self._tensors, parts
                )
                yield _fixed(sums, opening, closing, n_data / n)
        if energies is not None:
            total = self._launch("total", self._replicas, parts, energies)
            yield _fixed(total, self._model.constant)

    def _pack(self, q: Array) -> Any:
        """Copy the first layers of all replicas together."""
        R, units, width = self._replicas, self._sizes[1], self._sizes[0]
        if self._packed is None or self._packed_gradient is None:
            self._packed = self._xp.empty((R, units, width), self._dtype)
            self._packed_gradient = self._xp.empty(R * units * width, self._dtype)
        source, packed = self._matrix(q, 0), self._packed

        def copy(_: int) -> None:
            packed[...] = source

        yield copy

    def _gathered(self, rows: int, first: int) -> tuple[Array, Array, _Step]:
        """Room for the rows of a batch, and what fills it."""
        b = self._batch
        assert b is not None  # narrowed for the type checker: only batches gather
        copies = 1 if b.shared else self._replicas
        width, targets = self._sizes[0], self._T.shape[0]
        x = self._x[: copies * rows * width].reshape(copies, rows, width)
        t = self._t[: copies * rows * targets].reshape(copies, targets, rows)
        launch = self._launch(
            "gather", copies * rows, self._X, self._T, x, t, self._seed, self.clock
        )
        order, size, calls = ORDERS[b.order], b.size, self._calls

        def gather(call: int) -> None:
            launch(call, calls, order, size, first)

        return x, t, gather

    def _forward(self, q: Array, x: Array, rows: int, wide: bool) -> Any:
        product, R = self._products.product, self._replicas
        layers = len(self._starts)
        a = x
        for l in range(layers):
            z = self._layer(self._z, l, rows)
            if l == 0 and wide and self._packed is not None:
                weights = self._packed.reshape(1, -1, self._sizes[0])
                step = product(weights, a, z.reshape(1, -1, rows), tb=True)
            else:
                step = product(self._matrix(q, l), a, z, tb=l == 0)
            yield _plain(step)
            if l < layers - 1:
                a = self._layer(self._a, l, rows)
                units = self._sizes[l + 1]
                launch = self._launch(
                    "activate",
                    R * units,
                    q,
                    z.reshape(-1, rows),
                    a.reshape(-1, rows),
                )
                yield _fixed(launch, units, self._activation, self._starts[l][1])

    def _loss(self, q: Array, t: Array, rows: int, first: int) -> _Step:
        from mdnet.kernels.cuda_network import LANES

        z = self._layer(self._z, len(self._starts) - 1, rows)
        nll = self._nll[: self._replicas * rows].reshape(-1, rows)
        launch = self._launch("loss", self._replicas * -(-rows // LANES), q, z, t, nll)
        kind, strength = self._model.likelihood.kernel  # type: ignore[attr-defined]
        return _fixed(launch, kind, float(strength), self._starts[-1][1], first)

    def _backward(
        self, q: Array, x: Array, out: Array, rows: int, wide: bool, beta: float
    ) -> Any:
        from mdnet.kernels.cuda_network import LANES

        product = self._products.product
        for l in reversed(range(len(self._starts))):
            delta = self._layer(self._z, l, rows)
            if l > 0:
                a, gradient = self._layer(self._a, l - 1, rows), self._matrix(out, l)
            elif wide and self._packed_gradient is not None:
                delta = delta.reshape(1, -1, rows)
                a = x
                gradient = self._packed_gradient.reshape(1, -1, self._sizes[0])
            else:
                a, gradient = x, self._matrix(out, 0)
            yield _plain(product(delta, a, gradient, tb=l > 0, beta=beta))
            if l > 0:
                below = self._layer(self._z, l - 1, rows)
                error = self._error[: below.size]
                yield _plain(
                    product(
                        self._matrix(q, l), delta, error.reshape(below.shape), ta=True
                    )
                )
                blocks = -(-below.size // LANES)
                launch = self._launch("descend", blocks, below.reshape(-1), error)
                yield _fixed(launch)


def _fixed(launch: Any, *numbers: Any) -> _Step:
    """A launch whose numbers do not depend on the force call."""
    return partial(_ignoring, launch, numbers)


def _ignoring(launch: Any, numbers: tuple[Any, ...], _: int) -> None:
    launch(*numbers)


def _plain(step: Callable[[], None]) -> _Step:
    """A product, which depends on no force call."""
    return _fixed(step)
