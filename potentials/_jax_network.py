"""A JAX function as a network, and the engine that runs it in one compiled call.

JAX is imported when a network is made.  Functions are compiled once for each shape and
precision; double precision is switched on around each call and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import random
from mdnet.backend import Backend
from mdnet.errors import BackendError, PotentialError
from mdnet.potentials._foreign import SMALL, apart, layout_of, stated
from mdnet.potentials.base import evaluator_xp
from mdnet.potentials.minibatch import rows
from mdnet.typing import Array, Layout

if TYPE_CHECKING:
    from mdnet.potentials.evaluators import Batch
    from mdnet.potentials.jax import JaxPosterior

__all__ = ["JaxEvaluator", "JaxNetwork", "jax_package"]


def jax_package() -> Any:
    """Import JAX, or say which extra has it."""
    try:
        import jax
    except ImportError as error:
        raise BackendError(
            "from_jax needs JAX, which is not installed; install the extra: "
            "python -m pip install -e '.[jax]'"
        ) from error
    return jax


class JaxNetwork:
    """A `mdnet.potentials.networks.Network` made of ``apply(params, X)``.

    Parameters
    ----------
    apply : callable
        Pure function of a pytree and of rows (n, *input_shape): outputs (n, K) or (n,).
    params : pytree of arrays
        Where `initial` starts.
    example : ndarray, (1 or 2, *input_shape)
        Examples, to see shapes and that outputs are a function of each row alone.
    name : str, optional
        What identifies ``apply``; its qualified name if None.
    init : callable, optional
        ``init(key)`` returns fresh parameters for `initial`.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        params: Any,
        example: Any,
        name: str | None = None,
        init: Callable[[Any], Any] | None = None,
    ) -> None:
        jax_package()
        if not callable(apply):
            raise PotentialError(
                f"apply={apply!r}: expected a function apply(params, X), e.g. "
                "from_jax(model.apply, params, data=(X, y))"
            )
        self._apply, self._init = apply, init
        self._name = _identity(apply) if name is None else str(name)
        leaves, self.tree = _named_leaves(params)
        self._layout, self._size = layout_of(
            {key: tuple(leaf.shape) for key, leaf in leaves.items()}
        )
        self._start = _flat(leaves)
        self._convolves = any(leaf.ndim > 2 for leaf in leaves.values())
        self.input_shape = tuple(example.shape[1:])
        self._integers = False
        self._jitted: dict[str, Any] = {}
        self._outputs = self._look(example)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_jitted": {}}

    @property
    def size(self) -> int:
        """Number of weights D."""
        return self._size

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}``, names the paths inside the tree."""
        return self._layout

    @property
    def inputs(self) -> int:
        """Numbers in one row of the data."""
        return int(np.prod(self.input_shape, dtype=np.int64))

    @property
    def outputs(self) -> int:
        """Width of one row of outputs."""
        return self._outputs

    @property
    def width(self) -> int:
        """Numbers per row in the widest layer that can be seen from outside."""
        units = [shape[-1] for _, shape in self._layout.values() if shape]
        return max(self.inputs, self.outputs, *units)

    def outputs_of(self, q: Any, X: Any) -> Any:
        """Outputs (R, n, K), traceable: for weights (R, D), rows (n or R, n, ...)."""
        return self._over_replicas(self._one, q, X, None, None)

    def _one(self, q: Any, X: Any, _: Any = None) -> Any:
        """Outputs (n, K) for one vector of weights."""
        rows = X.reshape(-1, *self.input_shape)
        if self._integers:
            rows = rows.astype("int32")
        return _checked(self._apply(self.unflatten(q), rows), len(rows)).astype(q.dtype)

    def _over_replicas(
        self, f: Callable[..., Any], q: Any, X: Any, t: Any, index: Any
    ) -> Any:
        """``f(q, X, t)`` of every replica, with rows ``index`` of X and t if given.

        One call for all through ``vmap``; on a CPU one after the other where a replica
        has much to do, or convolves, since batched products gain nothing there.
        """
        jax = jax_package()
        if index is not None and index.ndim == 1:
            X, t, index = X[index], t[index], None
        own = index if index is not None else (X, t) if X.ndim == 3 else None

        def one(q: Any, own: Any) -> Any:
            if own is None:
                return f(q, X, t)
            return f(q, X[own], t[own]) if index is not None else f(q, *own)

        n = X.shape[-2] if index is None else index.shape[-1]
        heavy = n * self._size > SMALL or self._convolves
        if heavy and q.shape[0] > 1 and not self._on_device():
            return jax.lax.map(lambda each: one(*each), (q, own))
        return jax.vmap(one)(q, own)

    def _on_device(self) -> bool:
        """Whether what is traced now will run on a GPU; see `_place`."""
        return bool(jax_package().config.jax_default_device.platform == "gpu")

    def unflatten(self, q: Any) -> Any:
        """Parameters in their tree, from one vector of weights (D,)."""
        leaves = [q[at].reshape(shape) for at, shape in self._layout.values()]
        return jax_package().tree_util.tree_unflatten(self.tree, leaves)

    def forward(self, q: Array, X: Array) -> Array:
        """Outputs (R, n, K) for weights (R, D) and inputs (n, inputs)."""
        xp = evaluator_xp(q)
        with _precision(q.dtype), _place(xp):
            z = self._compiled("forward", self.outputs_of)(
                _entering(q, xp), _entering(xp.asarray(X, q.dtype), xp)
            )
            return _leaving(z, xp)

    def tape(self, q: Array, X: Array) -> tuple[Array, Any]:
        """Outputs, and their pull-back."""
        jax, xp = jax_package(), evaluator_xp(q)

        def pullable(q: Any, X: Any) -> Any:
            return jax.vjp(lambda q: self.outputs_of(q, X), q)

        with _precision(q.dtype), _place(xp):
            z, pull = self._compiled("tape", pullable)(
                _entering(q, xp), _entering(xp.asarray(X, q.dtype), xp)
            )
            return _leaving(z, xp), pull

    def backward(self, q: Array, tape: Any, delta: Array, out: Array) -> None:
        """Add the pull-back of ``delta`` (R, n, K) to ``out`` (R, D)."""
        xp = evaluator_xp(q)
        with _precision(q.dtype), _place(xp):
            pulled = self._compiled("backward", lambda pull, delta: pull(delta)[0])
            out += _leaving(pulled(tape, _entering(delta, xp)), xp)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start, (R, D) float64: ``params``, or drawn by ``init``."""
        if self._init is None:
            return np.tile(self._start, (replicas, 1))
        jax = jax_package()
        out = np.empty((replicas, self._size))
        for r in range(replicas):
            words = random.bits(seed, [r], 0, random.STREAM_INITIAL, 1)[0]
            drawn = self._init(jax.random.key(int(words[0])))
            leaves, tree = _named_leaves(drawn)
            shapes = {name: leaf.shape for name, leaf in leaves.items()}
            wanted = {name: shape for name, (_, shape) in self._layout.items()}
            if tree != self.tree or shapes != wanted:
                raise PotentialError(
                    f"init(key) returns {shapes}: expected a tree like params, {wanted}"
                )
            out[r] = _flat(leaves)
        return out

    def describe(self) -> dict[str, Any]:
        """JSON-able settings: what identifies the function, and shapes."""
        return {
            "name": "jax",
            "apply": self._name,
            "parameters": {n: list(shape) for n, (_, shape) in self._layout.items()},
            "input_shape": list(self.input_shape),
        }

    def calls(self, likelihood: Any) -> tuple[Any, Any]:
        """Functions (q, X, t, index) that JAX compiles, for rows ``index`` of X and t.

        The densities of the rows, (R, n); and the gradient of the negative of their
        sum, (R, D), with them.
        """
        jax = jax_package()

        def density_of(q: Any, X: Any, t: Any) -> Any:
            z = self._one(q, X)[None]
            return likelihood.log_density(z, t, jax.numpy)[0]

        def pull_of(q: Any, X: Any, t: Any) -> tuple[Any, Any]:
            z, back = jax.vjp(lambda q: self._one(q, X)[None], q)
            delta = likelihood.residual(z, t, jax.numpy).astype(z.dtype)
            return back(delta)[0], likelihood.log_density(z, t, jax.numpy)[0]

        def density(*given: Any) -> Any:
            return self._over_replicas(density_of, *given)

        def pull(*given: Any) -> Any:
            return self._over_replicas(pull_of, *given)

        return jax.jit(density), jax.jit(pull)

    def _compiled(self, name: str, function: Callable[..., Any]) -> Any:
        if name not in self._jitted:
            self._jitted[name] = jax_package().jit(function)
        return self._jitted[name]

    def _look(self, example: Any) -> int:
        """Outputs K; refuse what is not a function of each row alone."""
        q = np.asarray(apart(self._start), np.float32)[None]
        X = np.asarray(example, np.float32).reshape(len(example), -1)

        def call(X: Any) -> Any:
            # Not compiled: it is called once.
            with _precision(q.dtype), _place(np):
                put = jax_package().numpy.asarray
                return np.asarray(self.outputs_of(put(q), put(X)))[0]

        if example.dtype.kind in "iu":
            try:
                call(X)
            except (TypeError, ValueError):
                self._integers = True  # class numbers or tokens, not pixels
        z = call(X)
        alone = np.concatenate([call(X[i : i + 1]) for i in range(len(X))])
        size = float(np.abs(np.nan_to_num(z)).max())
        if not np.allclose(z, alone, 1e-3, 1e-4 * size, equal_nan=True):
            raise PotentialError(
                "apply answers otherwise for a row beside other rows: the loss is not "
                "a sum over rows; use no statistics of the batch (Flax: "
                "use_running_average=True)"
            )
        return int(z.shape[1])


class JaxEvaluator:
    """Rows, outputs, likelihood and gradient in one compiled call.

    Data stay with JAX, in the type of the forces; a call takes weights and the numbers
    of the rows.  What it returns per row is summed in float64 here.

    Parameters
    ----------
    model : JaxPosterior
        With a likelihood that JAX can trace.
    backend, replicas, seed, batch
        As in `mdnet.potentials.evaluators.ArrayEvaluator`.
    """

    ELEMENTS = 2**24

    def __init__(
        self,
        model: JaxPosterior,
        backend: Backend,
        replicas: int,
        seed: int,
        batch: Batch | None = None,
    ) -> None:
        self.full = batch is None
        self.polynomial: tuple[float, float, float, float] | None = None
        self._model, self._batch, self._seed = model, batch, seed
        self._xp, self._replicas = backend.xp, replicas
        self._dtype = backend.force_dtype
        random.seed_words(seed)
        X, t = model.arrays(self._dtype)
        self._n = len(t)
        with _precision(self._dtype), _place(self._xp):
            self._X, self._t = (jax_package().numpy.asarray(a) for a in (X, t))
        self._work = backend.xp.empty((replicas, model.size), self._dtype)
        self._slice = max(1, self.ELEMENTS // (replicas * model.width))
        self._density, self._pull = model.calls

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        """Write -dU/dq, or its estimate at force call ``call``."""
        index = None
        if self._batch is not None:
            b = self._batch
            many = 1 if b.shared else self._replicas
            index = rows(self._seed, many, call, self._n, b.size, b.order)
            index = index[0] if b.shared else index
        self._gradient(positions, out, -1.0, index, energies)

    def energies(self, positions: Array, out: Array) -> None:
        """Write U of all data."""
        xp, parts = self._xp, self._model.parts
        q = positions.astype(self._dtype, copy=False)
        out[...] = parts.energy(q, xp)
        with _precision(self._dtype), _place(xp):
            for piece in self._slices(None):
                weights = _entering(q[:, parts.weights], xp)
                density = _leaving(self._density(weights, *piece), xp)
                out -= density.sum(axis=1, dtype=np.float64)

    def gradients(self, positions: Array, out: Array) -> None:
        """Write +dU/dq of all data."""
        self._gradient(positions, out, 1.0, None, None)

    def _slices(self, index: Any) -> Any:
        """Pieces (X, targets, rows of them) of the rows ``index`` (all if None)."""
        n = self._n if index is None else index.shape[-1]
        for first in range(0, n, self._slice):
            where = slice(first, first + self._slice)
            if index is not None:
                yield self._X, self._t, index[..., where].astype(np.int32)
            elif n <= self._slice:
                yield self._X, self._t, None
            else:
                yield self._X[where], self._t[where], None

    def _gradient(
        self,
        positions: Array,
        out: Array,
        sign: float,
        index: Any,
        energies: Array | None,
    ) -> None:
        xp, parts, work = self._xp, self._model.parts, self._work
        q = positions.astype(self._dtype, copy=False)
        scale = 1.0 if index is None else self._n / index.shape[-1]
        work.fill(0)
        if energies is not None:
            energies[...] = parts.energy(q, xp)
        with _precision(self._dtype), _place(xp):
            for piece in self._slices(index):
                # Anew for each: JAX waits here for what still reads its last result.
                weights = _entering(q[:, parts.weights], xp)
                gradient, density = self._pull(weights, *piece)
                work[:, parts.weights] += scale * _leaving(gradient, xp)
                if energies is not None:
                    each = _leaving(density, xp)
                    energies -= scale * each.sum(axis=1, dtype=np.float64)
        parts.add_gradient(q, work, xp)
        xp.multiply(work, sign, out=out)


def _identity(apply: Callable[..., Any]) -> str:
    """Name of a function, with the model that a method is bound to."""
    name = getattr(apply, "__qualname__", type(apply).__qualname__)
    owner = getattr(apply, "__self__", None)
    where = getattr(apply, "__module__", type(apply).__module__)
    return f"{where}.{name}" + (f" of {stated(owner)}" if owner is not None else "")


def _named_leaves(params: Any) -> tuple[dict[str, Any], Any]:
    """Leaves of a tree by their path, "layers.0.w", and its structure."""
    tools = jax_package().tree_util
    found, tree = tools.tree_flatten_with_path(params)
    leaves: dict[str, Any] = {}
    for path, leaf in found:
        name = tools.keystr(path, simple=True, separator=".") or "params"
        kind = getattr(leaf, "dtype", None)
        if kind is None or np.dtype(kind).kind not in "fV":  # V: bfloat16
            raise PotentialError(
                f"params holds {kind or type(leaf).__name__} at {name!r}: expected "
                "arrays of real floating-point numbers; close over anything else in "
                "apply (Equinox: eqx.partition(model, eqx.is_inexact_array))"
            )
        if name in leaves:
            raise PotentialError(f"params has two leaves called {name!r}: rename one")
        leaves[name] = leaf
    if not leaves:
        raise PotentialError("params has no arrays: there is nothing to sample")
    return leaves, tree


def _flat(leaves: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate(
        [np.asarray(leaf, np.float64).reshape(-1) for leaf in leaves.values()]
    )


def _checked(z: Any, n: int) -> Any:
    """Outputs as (n, K)."""
    shape = getattr(z, "shape", None)
    if shape is None:
        raise PotentialError(
            f"apply returns {type(z).__name__}: expected one array (n, outputs); wrap "
            "it in a function that returns that alone"
        )
    if shape == (n,):
        return z[:, None]
    if len(shape) != 2 or shape[0] != n:
        raise PotentialError(
            f"apply returns shape {shape} for {n} rows: expected ({n}, outputs); "
            "flatten all but the first axis, and use jax.vmap if it is written for one "
            "row"
        )
    return z


def _precision(dtype: Any) -> Any:
    """Double precision inside a ``with``, or single, whatever the user's default."""
    jax = jax_package()
    switch = getattr(jax, "enable_x64", None)
    if switch is None:
        switch = jax.experimental.enable_x64
    return switch(np.dtype(dtype) == np.float64)


def _place(xp: Any) -> Any:
    """The device of the arrays of ``xp`` inside a ``with``."""
    jax, kind = jax_package(), "cpu" if xp is np else "gpu"
    try:
        return jax.default_device(jax.local_devices(backend=kind)[0])
    except RuntimeError as error:
        raise BackendError(
            f"this JAX sees no {kind.upper()} ({error}): install jax[cuda13], or use "
            'backend="cpu"'
        ) from error


def _entering(array: Array, xp: Any) -> Any:
    """An array of ``xp`` as JAX takes it: NumPy as it is, CuPy through DLPack."""
    if xp is np:
        return array
    return jax_package().dlpack.from_dlpack(xp.ascontiguousarray(array))


def _leaving(array: Any, xp: Any) -> Array:
    """The memory of a JAX array as an array of ``xp``."""
    return np.asarray(array) if xp is np else xp.from_dlpack(array)
