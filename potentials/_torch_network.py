"""A torch module as a network: functions of a flat vector of weights, for replicas.

Torch is imported when a network is made.  Arrays pass between NumPy or CuPy and torch
without copies: on the host they share memory, on a device they go through DLPack.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from mdnet import random
from mdnet.errors import BackendError, PotentialError
from mdnet.potentials._foreign import SMALL, apart, layout_of, stated
from mdnet.potentials.base import evaluator_xp
from mdnet.typing import Array, Layout

__all__ = ["TorchNetwork", "torch_package", "trainable"]


def torch_package() -> Any:
    """Import torch, or say which extra has it."""
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            "from_torch needs PyTorch, which is not installed; install the extra: "
            "python -m pip install -e '.[torch]'"
        ) from error
    return torch


def trainable(module: Any) -> dict[str, Any]:
    """Parameters that are sampled, by their name in the ``state_dict``.

    A tensor that several layers share counts once, under its first name.

    Raises
    ------
    PotentialError
        Not a module, no parameter to sample, one without a shape yet or one that is
        not a real floating-point tensor.
    """
    torch = torch_package()
    if not isinstance(module, torch.nn.Module):
        raise PotentialError(
            f"module={module!r}: expected a torch.nn.Module, an instance of it, e.g. "
            "torch.nn.Linear(4, 2)"
        )
    chosen = {}
    for name, tensor in module.named_parameters():
        if isinstance(tensor, torch.nn.parameter.UninitializedParameter):
            raise PotentialError(
                f"parameter {name!r} has no shape yet: call the module on one batch "
                "before from_torch"
            )
        if not tensor.dtype.is_floating_point:
            raise PotentialError(
                f"parameter {name!r} has type {tensor.dtype}: expected real "
                "floating-point numbers; keep anything else with "
                "module.register_buffer"
            )
        if tensor.requires_grad:
            chosen[name] = tensor
    if not chosen:
        raise PotentialError(
            "the module has no parameter with requires_grad=True: there is nothing to "
            "sample; call module.requires_grad_() to free all of them"
        )
    return chosen


class TorchNetwork:
    """A `mdnet.potentials.networks.Network` made of a ``torch.nn.Module``.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (n, *input_shape), returns (n, K) or (n,).  A copy is kept.
    rows : ndarray, (1 or 2, *input_shape)
        Examples, to see that outputs are a function of the weights, row by row.
    vectorize : {"auto", "vmap", "loop"}
        How replicas are evaluated; see `mdnet.potentials.torch.from_torch`.
    reset : bool
        Whether `initial` draws anew.

    Attributes
    ----------
    loop_reason : str
        Why ``torch.func.vmap`` cannot be used; empty if it can.
    """

    def __init__(
        self, module: Any, rows: Any, vectorize: str = "auto", reset: bool = False
    ) -> None:
        torch = torch_package()
        start = trainable(module)
        _refuse_noise(module)
        self.module = module
        self._copy = _copied(module)
        self._vectorize, self._reset = vectorize, reset
        shapes = {name: tuple(p.shape) for name, p in start.items()}
        self._layout, self._size = layout_of(shapes)
        self._start = self._flat(self._copy)
        self._held = {
            name: tensor.detach()
            for name, tensor in [
                *self._copy.named_parameters(),
                *self._copy.named_buffers(),
            ]
            if name not in shapes
        }
        self._constants: dict[Any, dict[str, Any]] = {}
        self._convolves = any(
            "Conv" in type(part).__name__ for part in self._copy.modules()
        )
        self.input_shape = tuple(rows.shape[1:])
        self._integers = False
        self._dtype = next(iter(start.values())).dtype
        if self._dtype not in (torch.float32, torch.float64):
            self._dtype = torch.float32
        with torch.random.fork_rng(devices=[]):
            self._outputs, self.width = self._look(rows)
            self.loop_reason = (
                "" if vectorize == "loop" else self._refused_by_vmap(rows)
            )
        if vectorize == "vmap" and self.loop_reason:
            raise PotentialError(
                f'vectorize="vmap": torch.func.vmap refuses this module '
                f'({self.loop_reason}); use vectorize="auto" or "loop"'
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_constants": {}}

    @property
    def size(self) -> int:
        """Number of weights D."""
        return self._size

    @property
    def layout(self) -> Layout:
        """Ordered ``{name: (slice, shape)}``, names as in the ``state_dict``."""
        return self._layout

    @property
    def inputs(self) -> int:
        """Numbers in one row of the data."""
        return int(np.prod(self.input_shape, dtype=np.int64))

    @property
    def outputs(self) -> int:
        """Width of one row of outputs."""
        return self._outputs

    def forward(self, q: Array, X: Array) -> Array:
        """Outputs (R, n, K) for weights (R, D) and inputs (n, inputs)."""
        torch, xp = torch_package(), evaluator_xp(q)
        with torch.no_grad():
            return _array(self._all(_tensor(q), _tensor(xp.asarray(X, q.dtype)))[0], xp)

    def tape(self, q: Array, X: Array) -> tuple[Array, Any]:
        """Outputs, and what torch recorded for `backward`."""
        torch, xp = torch_package(), evaluator_xp(q)
        with torch.enable_grad():
            z, record = self._all(_tensor(q), _tensor(xp.asarray(X, q.dtype)))
        return _array(z.detach(), xp), record

    def backward(self, q: Array, tape: Any, delta: Array, out: Array) -> None:
        """Add the pull-back of ``delta`` (R, n, K) to ``out`` (R, D)."""
        torch = torch_package()
        into, pull = _tensor(out), _tensor(delta.astype(q.dtype, copy=False))
        for rows, z, leaves in tape:
            gradients = torch.autograd.grad(
                z, list(leaves.values()), pull[rows], allow_unused=True
            )
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    where, _ = self._layout[name]
                    place = into[rows, where]
                    place.add_(gradient.reshape(place.shape))

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start, (R, D) float64: the module's weights, or drawn by its layers."""
        if not self._reset:
            return np.tile(self._start, (replicas, 1))
        return np.stack([self._drawn(seed, r) for r in range(replicas)])

    def describe(self) -> dict[str, Any]:
        """JSON-able settings: structure, shapes and a digest of what stays constant."""
        digest = hashlib.sha256()
        for name, tensor in self._held.items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return {
            "name": "torch",
            "module": stated(self._copy),
            "parameters": {n: list(shape) for n, (_, shape) in self._layout.items()},
            "input_shape": list(self.input_shape),
            "constants": digest.hexdigest()[:32],
        }

    # --- one call of the module --------------------------------------------------

    def _all(self, q: Any, X: Any) -> tuple[Any, list[Any]]:
        """Outputs (R, n, K), and pieces (replicas, outputs, leaves) of the record."""
        torch = torch_package()
        own = X.ndim == 3
        if self._together(q, X):
            leaves = self._leaves(q)
            call = torch.func.vmap(self._call, in_dims=(0, 0 if own else None))
            z = call(leaves, X)
            return z, [(slice(None), z, leaves)]
        record, parts = [], []
        for r in range(q.shape[0]):
            leaves = self._leaves(q[r])
            z = self._call(leaves, X[r] if own else X)
            record.append((r, z, leaves))
            parts.append(z.detach())
        return (parts[0][None] if len(parts) == 1 else torch.stack(parts)), record

    def _together(self, q: Any, X: Any) -> bool:
        if self._vectorize == "loop" or self.loop_reason or q.shape[0] == 1:
            return False
        if self._vectorize == "vmap" or q.is_cuda:
            return True
        return not self._convolves and X.shape[-2] * self._size <= SMALL

    def _leaves(self, q: Any) -> dict[str, Any]:
        """Tensors (..., *shape) that are views of q and that torch differentiates."""
        return {
            name: q[..., where]
            .view(*q.shape[:-1], *shape)
            .detach()
            .requires_grad_(torch_package().is_grad_enabled())
            for name, (where, shape) in self._layout.items()
        }

    def _call(self, leaves: dict[str, Any], X: Any) -> Any:
        """Outputs (n, K) of one set of weights for rows (n, inputs)."""
        torch = torch_package()
        first = next(iter(leaves.values()))
        rows = X.reshape(-1, *self.input_shape)
        if self._integers:
            rows = rows.to(torch.int64)
        tensors = leaves | self._constant(first.dtype, first.device)
        try:
            z = torch.func.functional_call(self._copy, tensors, (rows,))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise PotentialError(
                f"{type(self.module).__name__} cannot take inputs {tuple(rows.shape)} "
                f"with weights of type {first.dtype} on {first.device}: {error}; data "
                "must have the shape (N, ...) that it takes, and a tensor that is a "
                "plain attribute keeps its type and device: use module.register_buffer"
            ) from error
        if not isinstance(z, torch.Tensor):
            raise PotentialError(
                f"{type(self.module).__name__} returns {type(z).__name__}: expected "
                "one tensor (n, outputs); wrap it in a module that returns that alone"
            )
        if z.ndim == 1:
            z = z[:, None]
        if z.ndim != 2 or z.shape[0] != rows.shape[0]:
            raise PotentialError(
                f"{type(self.module).__name__} returns shape {tuple(z.shape)} for "
                f"inputs {tuple(rows.shape)}: expected ({rows.shape[0]}, outputs); "
                "flatten all but the first axis, and keep that for a single row"
            )
        return z.to(first.dtype)

    def _constant(self, dtype: Any, device: Any) -> dict[str, Any]:
        """Buffers and frozen parameters, in the type and place of the weights."""
        key = (dtype, device)
        if key not in self._constants:
            self._constants[key] = {
                name: t.to(device, dtype if t.dtype.is_floating_point else t.dtype)
                for name, t in self._held.items()
            }
        return self._constants[key]

    # --- what is looked at once --------------------------------------------------

    def _look(self, rows: Any) -> tuple[int, int]:
        """Outputs K and widest layer; refuse what is no function of the weights."""
        torch = torch_package()
        q = torch.as_tensor(apart(self._start), dtype=self._dtype)
        X = torch.as_tensor(np.asarray(rows, np.float64).reshape(len(rows), -1))
        X = X.to(self._dtype)

        def call(X: Any) -> Any:
            with torch.no_grad():
                return self._call(self._leaves(q), X)

        widths = [self.inputs]

        def note(_module: Any, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                widths.append(output.numel() // len(rows))

        if rows.dtype.kind in "iu":
            try:
                call(X)
            except PotentialError:
                self._integers = True  # class numbers or tokens, not pixels
        kept = {name: t.clone() for name, t in self._held.items()}
        hooks = [m.register_forward_hook(note) for m in self._copy.modules()]
        z = call(X)
        for hook in hooks:
            hook.remove()
        name = type(self.module).__name__
        changed = [n for n, t in self._held.items() if not _same(t, kept[n])]
        if changed or not _same(z, call(X)):
            what = f"changes {changed}" if changed else "answers differently"
            raise PotentialError(
                f"{name} {what} when called again: the loss is not a function of the "
                "weights; call module.eval(), and take noise such as "
                "functional.dropout(x) out of it"
            )
        alone = torch.cat([call(X[i : i + 1]) for i in range(len(X))])
        if not _same(z, alone):
            raise PotentialError(
                f"{name} answers otherwise for a row beside other rows: the loss is "
                "not a sum over rows; call module.eval(), and use no statistics of "
                "the batch"
            )
        return int(z.shape[1]), max(widths)

    def _refused_by_vmap(self, rows: Any) -> str:
        """Why vmap does not serve this module; empty if it does."""
        torch = torch_package()
        q = torch.as_tensor(apart(self._start), dtype=self._dtype)
        q = torch.stack([q, 0.5 * q])
        X = torch.as_tensor(np.asarray(rows, np.float64).reshape(len(rows), -1))
        X = X.to(self._dtype)

        def pulled(z: Any, leaves: dict[str, Any]) -> Any:
            """Gradients of a sum of all outputs, each with a weight of its own."""
            pull = torch.linspace(0.5, 1.5, z.numel(), dtype=z.dtype).reshape(z.shape)
            found = torch.autograd.grad(
                z, list(leaves.values()), pull, allow_unused=True
            )
            flat = [g.reshape(-1) for g in found if g is not None]
            return torch.cat(flat) if flat else z.new_zeros(0)

        leaves = self._leaves(q)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                z = torch.func.vmap(self._call, in_dims=(0, None))(leaves, X)
                gradient = pulled(z, leaves)
        except (RuntimeError, PotentialError, Warning, ValueError) as error:
            said = str(error.__cause__ or error).splitlines()[0]
            return said.partition(". ")[0]
        leaves = self._leaves(q)
        rows_of = [{n: t[r] for n, t in leaves.items()} for r in range(2)]
        alone = torch.stack([self._call(row, X) for row in rows_of])
        if _same(z, alone) and _same(gradient, pulled(alone, leaves)):
            return ""
        return "its outputs or gradients differ from those of a loop"

    def _flat(self, module: Any) -> np.ndarray[Any, Any]:
        parts = dict(module.named_parameters())
        return np.concatenate(
            [
                parts[name].detach().cpu().double().numpy().reshape(-1)
                for name in self._layout
            ]
        )

    def _drawn(self, seed: int, replica: int) -> np.ndarray[Any, Any]:
        """Weights after ``reset_parameters()`` of every layer that has it."""
        torch = torch_package()
        low, high = random.bits(seed, [replica], 0, random.STREAM_INITIAL, 2)[0]
        fresh = copy.deepcopy(self._copy)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(low) | int(high) << 32)
            for part in fresh.modules():
                redraw: Callable[[], Any] | None
                redraw = getattr(part, "reset_parameters", None)
                if callable(redraw):
                    redraw()
        return self._flat(fresh)


def _refuse_noise(module: Any) -> None:
    """Refuse layers that are noisy, or see the batch, as they are now."""
    from torch.nn import modules as kinds

    advice = "the loss is not a function of the weights; call module.eval() first"
    for name, part in module.named_modules():
        label = f"{name or 'the module'} ({type(part).__name__})"
        if isinstance(part, kinds.batchnorm._BatchNorm):
            if part.running_mean is None:
                raise PotentialError(
                    f"{label} has no running statistics and uses those of the batch, "
                    "so that the loss is not a sum over rows: use "
                    "track_running_stats=True, GroupNorm or LayerNorm"
                )
            if part.training:
                raise PotentialError(
                    f"{label} is in train mode and uses the batch's statistics: "
                    + advice
                )
        if not part.training:
            continue
        rate = part.p if isinstance(part, kinds.dropout._DropoutNd) else 0.0
        if isinstance(part, (kinds.rnn.RNNBase, kinds.activation.MultiheadAttention)):
            rate = part.dropout
        if rate > 0:
            raise PotentialError(f"{label} drops units at random: " + advice)


def _copied(module: Any) -> Any:
    """Copy the module to the host: what the user does to theirs changes nothing."""
    try:
        return copy.deepcopy(module).cpu()
    except RuntimeError as error:
        raise PotentialError(
            f"{type(module).__name__} cannot be copied ({error}): detach the tensors "
            "it keeps as attributes"
        ) from error


def _same(a: Any, b: Any) -> bool:
    """Whether two tensors agree to rounding."""
    import torch

    if a.shape != b.shape:
        return False
    a, b = a.detach().double(), b.detach().double()
    size = float(torch.nan_to_num(a).abs().max()) if a.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=1e-3, atol=1e-4 * size, equal_nan=True))


class _Shared:
    """A read-only array under another flag: torch knows none that it may only read."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__, self._owner = interface, array


def _tensor(array: Array) -> Any:
    """The memory of a NumPy or CuPy array as a tensor."""
    torch = torch_package()
    if isinstance(array, np.ndarray):
        if not array.flags.writeable:
            array = np.asarray(_Shared(array))
        return torch.from_numpy(array)
    if not torch.cuda.is_available():
        raise BackendError(
            'this PyTorch has no CUDA: install one that has, or use backend="cpu"'
        )
    return torch.from_dlpack(array)


def _array(tensor: Any, xp: Any) -> Array:
    """The memory of a tensor as an array of ``xp``."""
    return tensor.numpy() if xp is np else xp.from_dlpack(tensor)
