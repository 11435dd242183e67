"""Posterior energies and gradients of small networks on a CUDA device.

One launch of `mdnet.kernels.cuda_tiny` a force call: a block of threads a replica.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import PotentialError
from mdnet.kernels.codes import ACTIVATIONS, ORDERS
from mdnet.potentials._cuda_evaluator import device_data, prior_table
from mdnet.typing import Array

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch
    from mdnet.potentials.posterior import Posterior

__all__ = ["TinyEvaluator", "suits"]

_REPLICAS = 32
"""Replicas from which one block each keeps a device busy."""
_WORK = 2**20
"""Weights times rows below which launches cost more than the work of one block."""


def _shape(model: Posterior, backend: Backend) -> Any:
    from mdnet.kernels import cuda_tiny

    network: Any = model.network
    layout = model.layout
    starts = [
        (
            layout[f"{l}.weight"][0].start,
            layout[f"{l}.bias"][0].start if network.bias else -1,
        )
        for l in range(network.layers)
    ]
    code = ACTIVATIONS[network.activation]
    item = backend.force_dtype.itemsize
    return cuda_tiny.plan(network.sizes, starts, model.size, code, item)


def suits(
    model: Posterior, backend: Backend, replicas: int, batch: Batch | None
) -> bool:
    """Whether one block of threads a replica fits, and is the faster way."""
    rows = model.n_data if batch is None else batch.size
    worth = replicas >= _REPLICAS or rows * model.size <= _WORK
    return worth and _shape(model, backend) is not None


class TinyEvaluator:
    """Energies and gradients of a small MLP; parameters as `CudaEvaluator`.

    Products are always those of the type of the forces.

    Raises
    ------
    PotentialError
        If the network does not fit into the shared memory of a block; see `suits`.
    """

    capturable = True

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
        self._backend, self._xp, self._replicas = backend, backend.xp, replicas
        self._dtype = backend.force_dtype
        shape = _shape(model, backend)
        if shape is None:
            raise PotentialError(
                f"network={model.network!r}: expected one that fits into the shared "
                "memory of a block; use CudaEvaluator"
            )
        self._shape = shape
        self._X, self._T = device_data(model, backend)
        self._seed = backend.asarray(np.array(random.seed_words(seed), np.uint64))
        self._layers = backend.asarray(shape.layers)
        bounds = [(where.start, where.stop) for where, _ in model.layout.values()]
        self._tensors = backend.asarray(
            np.concatenate([np.array(bounds, np.float64), prior_table(model)], axis=1)
        )
        kind, strength = model.likelihood.kernel  # type: ignore[attr-defined]
        self._kind, self._reals = int(kind), (float(strength), model.constant)
        self._batch = batch
        self._all, self._rows = self._numbers(None, 0), self._numbers(batch, 0)
        self.clock = backend.asarray(np.zeros(1, np.int64))
        self._cast: Array | None = None
        self._out: Array | None = None
        self._no_energies = backend.asarray(np.zeros(1))
        self._no_gradient = backend.asarray(np.zeros((1, 1)), self._dtype)
        self._prepared: dict[Any, tuple[tuple[Any, ...], Any]] = {}

    def _numbers(self, batch: Batch | None, calls: int) -> tuple[Array, Array]:
        """Integers and reals of the kernel, for all rows or for batches."""
        n_data = self._X.shape[0]
        rows = n_data if batch is None else batch.size
        order = ORDERS["full" if batch is None else batch.order]
        shared = int(batch is not None and batch.shared)
        shape, asarray = self._shape, self._backend.asarray
        whole = (
            n_data,
            rows,
            order,
            shared,
            shape.slices,
            shape.gradient,
            shape.inputs,
            self._kind,
            calls,
        )
        real = (n_data / rows, *self._reals)
        return asarray(np.array(whole, np.int64)), asarray(np.array(real))

    def bind_clock(self, clock: Array, calls: int) -> None:
        """As `CudaEvaluator.bind_clock`."""
        self.clock = clock
        self._rows = self._numbers(self._batch, calls)
        self._prepared.clear()

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        self._run(positions, out, energies, self._rows, call, -1.0)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        self._run(positions, None, out, self._all, 0, 0.0)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._run(positions, out, None, self._all, 0, 1.0)

    def _run(
        self,
        positions: Array,
        out: Array | None,
        energies: Array | None,
        numbers: tuple[Array, Array],
        call: int,
        sign: float,
    ) -> None:
        q, target = positions, self._no_gradient if out is None else out
        if q.dtype != self._dtype:
            if self._cast is None:
                self._cast = self._xp.empty(q.shape, self._dtype)
            self._cast[...] = q
            q = self._cast
        if target.dtype != self._dtype:
            if self._out is None:
                self._out = self._xp.empty(target.shape, self._dtype)
            target = self._out
        values = self._no_energies if energies is None else energies
        launch = self._launch(q, target, values, numbers)
        launch(call, sign, int(energies is not None))
        if out is not None and target is not out:
            out[...] = target

    def _launch(
        self, q: Array, out: Array, energies: Array, numbers: tuple[Array, Array]
    ) -> Any:
        from mdnet.kernels import cuda_tiny
        from mdnet.kernels.cuda_build import Launch

        key = (out is self._no_gradient, energies is self._no_energies, id(numbers))
        arrays = (q, out, energies)
        found = self._prepared.get(key)
        if found is None or any(
            a is not b for a, b in zip(found[0], arrays, strict=True)
        ):
            launch = Launch(
                cuda_tiny.kernel(self._dtype == np.float32, self._shape.halves),
                self._replicas,
                self._shape.threads,
                (
                    *arrays,
                    self._X,
                    self._T,
                    self._layers,
                    self._tensors,
                    *numbers,
                    self._seed,
                    self.clock,
                ),
                self._shape.shared,
            )
            found = self._prepared[key] = (arrays, launch)
        return found[1]
