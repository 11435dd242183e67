"""Posterior energies and gradients of an MLP by `mdnet.kernels.dense`, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.kernels.codes import ACTIVATIONS, ORDERS
from mdnet.kernels.pause import uncollected
from mdnet.kernels.table import Table, aligned
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch
    from mdnet.potentials.posterior import Posterior

__all__ = ["DenseEvaluator"]


class DenseEvaluator:
    """Energies and gradients of an MLP by `mdnet.kernels.dense`; as `ArrayEvaluator`.

    Owns every work array: no call allocates.  Which threads do what is decided by the
    sizes and the moment, and changes no bit of a result.
    """

    SMALL = 2_000_000
    """Multiplications below which waking a thread costs more than it saves."""
    PARTIAL = 8192
    """Most weights whose gradient is made by each chunk for itself, then added up."""
    TEAM = 200_000
    """The same for threads that are awake already, waiting for their turn."""
    SCRATCH = 2**28
    """Most bytes of slots kept for few replicas sharing all threads."""
    STILL = 2**22
    """Most bytes of data that are kept in the order in which all rows are used."""

    @uncollected
    def __init__(
        self,
        model: Posterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
    ) -> None:
        import numba

        from mdnet.kernels import dense, intake, native, pointwise, products, tiles

        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        self._threads, self._modes = numba.get_num_threads, dense
        self._dtype, self._replicas = backend.force_dtype, replicas
        X, Y = model.arrays(self._dtype)
        n_data = Y.shape[0]
        count = n_data if batch is None else batch.size
        code, strength = model.likelihood.kernel  # type: ignore[attr-defined]
        self._spread = native.spread

        # A slot: panels of inputs, targets, 3 rows of the likelihood, then z and a of
        # each layer.  Units a multiple of 512 bytes apart would share few cache sets,
        # and so would panels of 128 rows.
        per = tiles.lanes(self._dtype)
        layers, blocks, priors = _tables(model, 2 * per)
        chunk = max(_chunk_rows(count), _chunk_rows(n_data))
        size = self._dtype.itemsize
        stride = chunk + (dense.PAD if chunk * size % 512 == 0 else 0)
        inputs, targets, units = X.shape[1], Y.shape[1], layers[:, dense.OUT]
        panels = -(-inputs // (2 * per)) * 2 * per * (chunk + 1)
        at = panels + stride * np.cumsum([0, targets, 3])
        rows = 2 * units + 1  # z, a and, after the units, an input that is always 1
        starts = at[2] + stride * (np.cumsum(rows) - rows)
        layers[:, dense.Z], layers[:, dense.A] = starts, starts + stride * units
        padded = _pad(layers, per)
        partial = bool(padded <= self.PARTIAL)
        work = dense.kernel(partial)
        self._work, self._address = work.ctypes, work.address
        # Blocks that are transposed may reach beyond the last layer's inputs.
        length = -(-int(at[2] + stride * (rows.sum() + per)) // 64) * 64

        most = numba.config.NUMBA_NUM_THREADS
        chunks = -(-n_data // _chunk_rows(n_data))
        share = min(
            chunks,
            -(-4 * most // replicas),
            max(1, self.SCRATCH // (replicas * length * size)),
        )
        self._divisible = replicas < 4 * most
        slots = max(most, replicas * share if self._divisible else 0)
        corners = units * 2 * per
        layers[:, dense.CORNER] = dense.scratch(self._dtype) + np.cumsum(corners)
        layers[:, dense.CORNER] -= corners
        own = dense.scratch(self._dtype) + int(corners.sum())
        arrays = {
            "slots": aligned((slots, length), self._dtype),
            "scratch": aligned((most, own), self._dtype),
            "index": np.zeros((most, intake.CHUNK), np.int64),
            "words": np.zeros((most, intake.WORDS), np.uint32),
            "parts": aligned((slots, padded * partial), self._dtype),
            "totals": aligned((slots, padded * partial), self._dtype),
            "losses": np.zeros((replicas, chunks)),
            "layer_table": layers,
            "block_table": blocks,
            "priors": priors,
            "X": X,
            "Y": Y,
        }
        _panels(arrays["slots"], inputs, (chunk + 1, 2 * per))
        for start in layers[:, dense.A] + stride * units:
            arrays["slots"][:, start : start + stride] = 1
        still_length = -(-int(at[1] + stride * inputs) // 64) * 64
        if chunks * still_length * size <= self.STILL:
            arrays["still"] = aligned((chunks, still_length), self._dtype)
            shape = chunk + 1, 2 * per
            _arrange(arrays["still"], X, Y, _chunk_rows(n_data), shape, at, stride)
        self._arrays = arrays
        activation = ACTIVATIONS[model.network.activation]  # type: ignore[attr-defined]
        kind = self._dtype
        functions = {
            "column": products.column(kind),
            "turn": products.turn(kind),
            "plus": products.plus(kind),
            "dots": products.dots(kind),
            "row_sums": products.row_sums(kind),
            "edge": products.edge(kind),
            "activate": pointwise.activation(activation, kind),
            "loss": pointwise.loss(code, kind),
            "finish": pointwise.finish(kind),
            "prior": pointwise.prior(kind),
        }
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        still = addresses.pop("still", 0)
        if batch is not None or not still:  # what is never used is not compiled
            functions["pick"] = intake.pick(kind)
            functions["gather"] = intake.gather(X.dtype, kind)
        k0, k1 = random.seed_words(seed)
        common = {
            "replicas": replicas,
            "size": model.size,
            "n_data": n_data,
            "share": share,
            "k0": k0,
            "k1": k1,
            "layers": len(layers),
            "blocks": len(blocks),
            "inputs": inputs,
            "targets": targets,
            "itemsize": size,
            "lanes": per,
            "stride": stride,
            "panel_rows": chunk + 1,
            "target_at": at[0],
            "work_at": at[1],
            "length": length,
            "padded_size": padded,
            "own": own,
            "X_row": X.strides[0] // X.itemsize,
            "X_column": X.strides[1] // X.itemsize,
            "strength": strength,
            "constant": model.constant,
            "still_length": still_length,
            "turned_at": at[1],
            "yield_": native.yield_address(),
            **addresses,
            **{name: function.address for name, function in functions.items()},
        }

        def table(rows: int, b: Batch | None) -> Table:
            place = still if b is None else 0
            order = ORDERS["full" if b is None else b.order]
            settings = {
                "still": place,
                "batch": rows,
                "rows": _chunk_rows(rows),
                "chunks": -(-rows // _chunk_rows(rows)),
                "draw": 0 if place else intake.draw(order).address,
                "shared": b is not None and b.shared,
                "scale": n_data / rows,
            }
            return Table(dense.TABLE, {**common, **settings})

        self._all = table(n_data, None)
        self._rows = self._all if batch is None else table(count, batch)
        place = self._all.place
        names = ("next", "done", "worker", "mode", "q", "out", "energies")
        self._fields = [place[name] for name in names]
        self._calls, self._sign, self._batch = (
            place[name] for name in ("calls", "sign", "batch")
        )
        self._cost = 3 * model.size * replicas
        self._cast: Array | None = None
        self._out: Array | None = None

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        self._rows.view[self._calls] = call
        self._gradient(self._rows, positions, out, -1.0, energies)

    def ready(
        self, positions: Array, out: Array, call: int, turns: int
    ) -> tuple[int, int, int, int, int] | None:
        """Set up ``turns`` calls of `forces` for `mdnet.kernels.rounds`.

        Returns
        -------
        address, table, calls, workers, work : int
            Of the C function and of its table, the index there of the number of the
            call, how many threads are worth waking, and multiplications of a call.
            None if the arrays have to be converted.
        """
        for array in (positions, out):
            if array.dtype != self._dtype or not array.flags.c_contiguous:
                return None
        table, mode, R = self._rows, self._modes.WHOLE, self._replicas
        table.view[self._calls] = call
        table.reals[self._sign] = -1.0
        cost, workers = self._cost * table.view[self._batch], self._threads()
        if cost < self.TEAM or turns * cost < 5 * self.SMALL:
            workers = 1
        elif self._divisible and R % workers:
            mode = self._modes.PIECES
        else:
            workers = min(workers, R)
        self._prepare(table, mode, positions, out, None)
        return self._address, table.address, self._calls, workers, cost

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        q, table = self._weights(positions), self._all
        workers = 1
        if self._cost * table.view[self._batch] >= self.SMALL:
            workers = self._threads()
        self._run(table, self._modes.ENERGIES, workers, q, q, out)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(self._all, positions, out, 1.0, None)

    def _gradient(
        self,
        table: Table,
        positions: Array,
        out: Array,
        sign: float,
        energies: Array | None,
    ) -> None:
        q, target = self._weights(positions), out
        if out.dtype != self._dtype or not out.flags.c_contiguous:
            if self._out is None:
                self._out = np.empty(out.shape, self._dtype)
            target = self._out
        table.reals[self._sign] = sign
        mode, workers, R = self._modes.WHOLE, 1, self._replicas
        cost = self._cost * table.view[self._batch]
        if cost >= self.SMALL:
            workers = self._threads()
            if self._divisible and R % workers and cost > 2 * self.SMALL * R:
                mode = self._modes.PIECES
            else:
                workers = min(workers, R)
        self._run(table, mode, workers, q, target, energies)
        if target is not out:
            out[...] = target

    def _run(
        self,
        table: Table,
        mode: int,
        workers: int,
        q: Array,
        out: Array,
        energies: Array | None,
    ) -> None:
        if energies is not None and not (
            energies.flags.c_contiguous and energies.dtype == np.float64
        ):
            whole = np.empty(energies.shape)
            self._run(table, mode, workers, q, out, whole)
            energies[...] = whole
            return
        self._prepare(table, mode, q, out, energies)
        if workers == 1:
            self._work(table.address)
            return
        self._spread(self._address, table.address, workers)

    def _prepare(
        self, table: Table, mode: int, q: Array, out: Array, energies: Array | None
    ) -> None:
        """Set the counters to zero, and the addresses of a call's arrays."""
        view, fields = table.view, self._fields
        for i in fields[:3]:
            view[i] = 0
        view[fields[3]] = mode
        table.point(fields[4], q)
        table.point(fields[5], out)
        table.point(fields[6], energies)

    def _weights(self, positions: Array) -> Array:
        """Positions in the type of the forces, one after another."""
        if positions.dtype == self._dtype and positions.flags.c_contiguous:
            return positions
        if self._cast is None:
            self._cast = np.empty(positions.shape, self._dtype)
        np.copyto(self._cast, positions, casting="same_kind")
        return self._cast


def _chunk_rows(rows: int) -> int:
    """Rows of a chunk: a multiple of the padding, at most CHUNK."""
    from mdnet.kernels import dense, intake

    return min(intake.CHUNK, -(-rows // dense.PAD) * dense.PAD)


def _panels(slots: Array, inputs: int, shape: tuple[int, int]) -> Array:
    """Panels (slots, panels, *shape) of inputs, with a 1 after the last input."""
    rows, width = shape
    count = -(-inputs // width)
    panels: Array = slots[:, : count * rows * width].reshape(-1, count, rows, width)
    if inputs % width:
        panels[:, -1, :, inputs % width] = 1
    return panels


def _arrange(
    still: Array,
    X: Array,
    Y: Array,
    rows: int,
    shape: tuple[int, int],
    at: Array,
    stride: int,
) -> None:
    """Copy all data to where chunks find it: panels, targets, inputs (inputs, rows).

    The last chunk is filled up with its first row, which counts for nothing.
    """
    width = shape[1]
    panels = _panels(still, X.shape[1], shape)
    for c, slot in enumerate(still):
        chosen = np.arange(c * rows, (c + 1) * rows)
        chosen[chosen >= len(X)] = c * rows
        x = np.asarray(X[chosen], still.dtype)
        for p in range(panels.shape[1]):
            piece = x[:, p * width : (p + 1) * width]
            panels[c, p, :rows, : piece.shape[1]] = piece
        for first, values in ((at[0], Y[chosen]), (at[1], x)):
            count = values.shape[1]
            lines = slot[first : first + count * stride].reshape(count, stride)
            lines[:, :rows] = values.T


def _pad(layers: Array, per: int) -> int:
    """Lay out a gradient whose rows are whole vectors; returns its length."""
    from mdnet.kernels import dense
    from mdnet.kernels.products import FEW

    at = 0
    for l, layer in enumerate(layers):
        units, inputs = layer[dense.OUT], layer[dense.IN]
        layer[dense.PADDED] = padded = -(-inputs // per) * per
        layer[dense.PART], layer[dense.SUMS] = at, -1
        at += units * padded
        if layer[dense.B] >= 0 and (inputs == padded or (l > 0 and units <= FEW)):
            layer[dense.SUMS] = at
            at += -(-units // per) * per
    return -(-int(at) // 64) * 64


def _tables(model: Posterior, width: int) -> tuple[Array, Array, Array]:
    """Tables of layers, of blocks of weights and of priors; offsets are left out.

    Blocks are columns of a layer, in panels of ``width``.
    """
    from mdnet.kernels import dense

    network: Any = model.network
    prior = model.prior.table(model.layout)  # type: ignore[attr-defined]
    of_tensor = dict(zip(model.layout, prior, strict=True))
    layers = np.zeros((network.layers, dense.COLUMNS), np.int64)
    priors = np.zeros((network.layers, 6))
    blocks: list[tuple[int, int, int]] = []
    for l in range(network.layers):
        where, (units, inputs) = model.layout[f"{l}.weight"]
        layers[l, : dense.B + 1] = inputs, units, where.start, -1
        priors[l, :3] = of_tensor[f"{l}.weight"]
        if network.bias:
            layers[l, dense.B] = model.layout[f"{l}.bias"][0].start
            priors[l, 3:] = of_tensor[f"{l}.bias"]
        step = -(-dense.BLOCK // units // width) * width
        blocks += [
            (l, first, min(first + step, inputs)) for first in range(0, inputs, step)
        ]
    return layers, np.array(blocks, np.int64), priors
