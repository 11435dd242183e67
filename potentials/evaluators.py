"""The two engines behind a posterior: compiled loops, and plain array operations.

`DenseEvaluator` runs `mdnet.kernels.dense` on the CPU.  `ArrayEvaluator` is written in
operations that NumPy and CuPy share: it serves devices, networks and likelihoods that
have no compiled form, and is the reference the compiled one is tested against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.kernels.codes import ACTIVATIONS, ORDERS
from mdnet.potentials.minibatch import rows
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.posterior import Posterior

__all__ = ["ArrayEvaluator", "Batch", "DenseEvaluator"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Which rows a force call sees; see `mdnet.potentials.minibatch.rows`."""

    size: int
    order: str = "shuffle"
    shared: bool = False


class ArrayEvaluator:
    """Energies and gradients by batched products over replicas.

    Rows are taken in slices whose activations hold at most `ELEMENTS` numbers; within
    a slice the array module allocates temporaries (CuPy: from its pool).

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
    """

    ELEMENTS = 2**24

    def __init__(
        self,
        model: Posterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
    ) -> None:
        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        self._model, self._batch = model, batch
        self._xp, self._seed, self._replicas = backend.xp, seed, replicas
        self._dtype = backend.force_dtype
        random.seed_words(seed)
        X, t = model.arrays(self._dtype)
        self._X, self._t = backend.asarray(X, self._dtype), backend.asarray(t)
        self._work = backend.xp.empty((replicas, model.size), self._dtype)
        self._slice = max(1, self.ELEMENTS // (replicas * model.width))

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        index = None
        if self._batch is not None:
            b = self._batch
            host = rows(
                self._seed,
                1 if b.shared else self._replicas,
                call,
                self._t.shape[0],
                b.size,
                b.order,
            )
            index = self._xp.asarray(host[0] if b.shared else host)
        self._gradient(positions, out, -1.0, index, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        model, xp = self._model, self._xp
        q = positions.astype(self._dtype, copy=False)
        out[...] = model.prior.energy(q, model.layout, xp)
        for X, t in self._slices(None):
            z = model.network.forward(q, X)
            density = model.likelihood.log_density(z, t, xp)
            out -= density.sum(axis=1, dtype=np.float64)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(positions, out, 1.0, None, None)

    def _slices(self, index: Array | None) -> Any:
        """Pieces (X, targets) of the rows ``index`` (all if None)."""
        n = self._t.shape[0] if index is None else index.shape[-1]
        for first in range(0, n, self._slice):
            where = slice(first, first + self._slice)
            if index is None:
                yield self._X[where], self._t[where]
            else:
                yield self._X[index[..., where]], self._t[index[..., where]]

    def _gradient(
        self,
        positions: Array,
        out: Array,
        sign: float,
        index: Array | None,
        energies: Array | None,
    ) -> None:
        model, xp = self._model, self._xp
        q = positions.astype(self._dtype, copy=False)
        scale = 1.0 if index is None else self._t.shape[0] / index.shape[-1]
        self._work.fill(0)
        if energies is not None:
            energies[...] = model.prior.energy(q, model.layout, xp)
        for X, t in self._slices(index):
            z, tape = model.network.tape(q, X)
            delta = model.likelihood.residual(z, t, xp).astype(self._dtype, copy=False)
            model.network.backward(q, tape, delta, self._work)
            if energies is not None:
                density = model.likelihood.log_density(z, t, xp)
                energies -= scale * density.sum(axis=1, dtype=np.float64)
        self._work *= scale
        self._work += model.prior.gradient(q, model.layout, xp)
        out[...] = self._work
        if sign < 0:
            xp.negative(out, out=out)


class DenseEvaluator:
    """Energies and gradients of an MLP by `mdnet.kernels.dense`; as `ArrayEvaluator`.

    Owns every work array: no call allocates.  Which threads do what is decided by the
    sizes alone, and changes no bit of a result.
    """

    SMALL = 1_000_000
    """Multiplications below which starting threads costs more than it saves."""
    SCRATCH = 2**28
    """Most bytes of slots kept for few replicas sharing all threads."""

    def __init__(
        self,
        model: Posterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
    ) -> None:
        import numba

        from mdnet.kernels import dense

        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        self._kernels, self._numba = dense, numba
        self._dtype, self._replicas = backend.force_dtype, replicas
        self._data = model.arrays(self._dtype)
        n_data = self._data[1].shape[0]
        count = n_data if batch is None else batch.size
        k0, k1 = random.seed_words(seed)

        layers, blocks, priors = _tables(model)
        chunk = max(_chunk_rows(count), _chunk_rows(n_data))
        inputs, targets = self._data[0].shape[1], self._data[1].shape[1]
        hidden = int(layers[:, dense.IN].max())
        # A slot: inputs, targets, 3 rows of the likelihood, one error, each layer.
        at = chunk * np.cumsum([0, inputs, targets, 3, hidden])
        units = layers[:, dense.OUT]
        starts = at[4] + chunk * 2 * (np.cumsum(units) - units)
        layers[:, dense.Z], layers[:, dense.A] = starts, starts + chunk * units
        length = int(at[4] + chunk * 2 * units.sum())

        def tables(rows: int, b: Batch | None) -> tuple[Array, ...]:
            g, f = np.zeros(13, np.int64), np.zeros(4)
            code, strength = model.likelihood.kernel  # type: ignore[attr-defined]
            g[dense.N], g[dense.BATCH], g[dense.ROWS] = n_data, rows, _chunk_rows(rows)
            g[dense.ORDER] = ORDERS["full" if b is None else b.order]
            g[dense.SHARED] = b is not None and b.shared
            g[dense.K0], g[dense.K1], g[dense.LIKELIHOOD] = k0, k1, code
            g[dense.WIDE] = inputs >= dense.WIDE_INPUTS
            g[dense.T], g[dense.WORK], g[dense.BACK] = at[1], at[2], at[3]
            f[dense.SCALE], f[dense.STRENGTH] = n_data / rows, strength
            f[dense.CONSTANT] = model.constant
            return g, f, layers, blocks, priors

        self._all = tables(n_data, None)
        self._rows = self._all if batch is None else tables(batch.size, batch)
        self._cost = 3 * model.size

        most = numba.config.NUMBA_NUM_THREADS
        chunks = -(-n_data // _chunk_rows(n_data))
        self._share = min(
            chunks,
            -(-4 * most // replicas),
            max(1, self.SCRATCH // (replicas * length * self._dtype.itemsize)),
        )
        self._divisible = replicas < 4 * most
        slots = max(most, replicas * self._share if self._divisible else 0)
        self._work = (
            np.empty((slots, length), self._dtype),
            np.empty((slots, chunk), np.int64),
            np.empty((replicas, chunks)),
            np.empty((replicas, blocks.shape[0])),
        )
        self._cast: Array | None = None
        self._out: Array | None = None
        self._none = np.empty(0)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        self._rows[0][self._kernels.CALL] = call
        self._gradient(self._rows, positions, out, -1.0, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        q = self._weights(positions)
        workers = self._numba.get_num_threads()
        if (
            self._replicas * self._cost * int(self._all[0][self._kernels.N])
            < self.SMALL
        ):
            workers = 1
        self._run(self._kernels.ENERGIES, workers, 0, self._all, q, q, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(self._all, positions, out, 1.0, None)

    def _run(
        self,
        phase: int,
        workers: int,
        base: int,
        tables: tuple[Array, ...],
        q: Array,
        out: Array,
        energies: Array,
    ) -> None:
        threads = self._numba.get_num_threads()
        # Threads without work would still have to be woken and waited for.
        self._numba.set_num_threads(workers)
        try:
            self._kernels.run(
                phase,
                workers,
                base,
                self._share,
                tables,
                q,
                self._data,
                self._work,
                out,
                energies,
            )
        finally:
            self._numba.set_num_threads(threads)

    def _weights(self, positions: Array) -> Array:
        """Positions in the type of the forces."""
        if positions.dtype == self._dtype:
            return positions
        if self._cast is None:
            self._cast = np.empty(positions.shape, self._dtype)
        np.copyto(self._cast, positions, casting="same_kind")
        return self._cast

    def _gradient(
        self,
        tables: tuple[Array, ...],
        positions: Array,
        out: Array,
        sign: float,
        energies: Array | None,
    ) -> None:
        kernels = self._kernels
        tables[1][kernels.SIGN] = sign
        target = out
        if out.dtype != self._dtype:
            if self._out is None:
                self._out = np.empty(out.shape, self._dtype)
            target = self._out
        q = self._weights(positions)
        values = self._none if energies is None else energies
        threads, R = self._numba.get_num_threads(), self._replicas
        cost = self._cost * int(tables[0][kernels.BATCH])
        if R * cost < self.SMALL:
            threads = 1
        if self._divisible and R % threads and cost > 3 * self.SMALL:
            chunks = -(-int(tables[0][kernels.BATCH]) // int(tables[0][kernels.ROWS]))
            for base in range(0, chunks, self._share):
                for phase in (kernels.CHUNKS, kernels.WEIGHTS):
                    self._run(phase, threads, base, tables, q, target, values)
        else:
            self._run(kernels.REPLICAS, min(threads, R), 0, tables, q, target, values)
        if target is not out:
            out[...] = target


def _chunk_rows(rows: int) -> int:
    """Rows of a chunk: a multiple of the padding, at most CHUNK."""
    from mdnet.kernels import dense

    return min(dense.CHUNK, -(-rows // dense.PAD) * dense.PAD)


def _tables(model: Posterior) -> tuple[Array, Array, Array]:
    """Tables of layers, of blocks of weights and of priors; offsets are left out."""
    from mdnet.kernels import dense

    network: Any = model.network
    prior = model.prior.table(model.layout)  # type: ignore[attr-defined]
    of_tensor = dict(zip(model.layout, prior, strict=True))
    count = network.layers
    layers = np.zeros((count, 7), np.int64)
    priors = np.zeros((count, 6))
    blocks: list[tuple[int, int, int]] = []
    for l in range(count):
        where, (units, width) = model.layout[f"{l}.weight"]
        layers[l, : dense.F + 1] = (
            width,
            units,
            where.start,
            -1,
            ACTIVATIONS[network.activation],
        )
        priors[l, :3] = of_tensor[f"{l}.weight"]
        if network.bias:
            layers[l, dense.B] = model.layout[f"{l}.bias"][0].start
            priors[l, 3:] = of_tensor[f"{l}.bias"]
        # Blocks are multiples of the four rows that the products hold in registers.
        step = max(4, dense.BLOCK // width // 4 * 4)
        blocks += [
            (l, first, min(first + step, units)) for first in range(0, units, step)
        ]
    return layers, np.array(blocks, np.int64), priors
