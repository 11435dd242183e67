"""Training a Boltzmann machine with chains that persist from update to update.

Ascent of the mean log likelihood in the manner of the machine-learning literature:

    g = <v h>_batch - <v h>_chains - decay W
    velocity <- momentum velocity + rate g,    W <- W + velocity

With ``method="pcd"`` the chains go on from where they were, so that at a small rate
they stay near the equilibrium of the machine; with "cd" they start from the batch.
Chains are a function of the whole past: `RBMTrainer.save` writes them.

References
----------
T. Tieleman, ICML 2008, doi:10.1145/1390156.1390290 (persistent chains).
G. E. Hinton, Neural Comput. 14, 1771 (2002), doi:10.1162/089976602760128018.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from mdnet.errors import PotentialError, TrajectoryError
from mdnet.potentials import _rbm_sampling
from mdnet.potentials._checks import fingerprint, positive, positive_integer
from mdnet.potentials._rbm_arrays import unpack
from mdnet.potentials._rbm_checks import binary
from mdnet.potentials.minibatch import check_batch, rows
from mdnet.potentials.rbm import RBM
from mdnet.potentials.rbm_posterior import log_odds, machine_layout
from mdnet.random import STREAM_INITIAL, normals

__all__ = ["RBMTrainer"]

_VERSION = 1


class RBMTrainer:
    """Stochastic ascent of the log likelihood with contrastive divergence.

    Parameters
    ----------
    data : (N, n_v)
        Rows of 0 and 1.
    n_hidden : int
        n_h.
    method : {"pcd", "cd"}
        Chains that persist, or that start from the batch.
    sweeps : int
        Block Gibbs sweeps an update.
    chains : int
        Number of persistent chains.
    batch_size : int
        Rows of a minibatch, drawn as `Posterior.minibatch` draws them.
    rate : float
        Step along the gradient of the *mean* log likelihood; `run` may change it.
    momentum : float
        In [0, 1).
    decay : float
        Of the weights, not of the biases.
    seed : int

    Attributes
    ----------
    step : int
        Updates made.
    positions, velocity : (D,) float64
        Packed as `RBMPosterior.layout` says.
    chains : (C, n_v) float64
        Visible units of the persistent chains; empty for "cd".

    Raises
    ------
    PotentialError
        Data that are not 0 and 1, or settings out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> data = np.tile([[1, 1, 0, 0], [0, 0, 1, 1]], (10, 1))
    >>> trainer = potentials.RBMTrainer(data, n_hidden=2, batch_size=10, rate=0.2)
    >>> before = trainer.machine.log_probability(data).mean()
    >>> trainer.run(200)
    >>> bool(trainer.machine.log_probability(data).mean() > before)
    True
    """

    def __init__(
        self,
        data: Any,
        n_hidden: int,
        method: str = "pcd",
        sweeps: int = 1,
        chains: int = 100,
        batch_size: int = 100,
        rate: float = 0.05,
        momentum: float = 0.0,
        decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        array = np.asarray(data)
        if array.ndim != 2:
            raise PotentialError(
                f"data has shape {array.shape}: expected (N, n_v), one row a datum"
            )
        self._data = binary("data", array, array.shape[1])
        if method not in ("pcd", "cd"):
            raise PotentialError(f"method={method!r}: expected 'pcd' or 'cd'")
        for name, value in (("momentum", momentum), ("decay", decay)):
            if not 0.0 <= float(value) < 1.0:
                raise PotentialError(f"{name}={value!r}: expected a number in [0, 1)")
        n, width = self._data.shape
        self._settings: dict[str, Any] = {
            "n_hidden": positive_integer("n_hidden", n_hidden),
            "method": method,
            "sweeps": positive_integer("sweeps", sweeps),
            "chains": positive_integer("chains", chains),
            "batch_size": check_batch(batch_size, "shuffle", n),
            "rate": positive("rate", rate),
            "momentum": float(momentum),
            "decay": float(decay),
            "seed": seed,
        }
        self.layout = machine_layout(width, n_hidden)
        size = self.layout["hidden_bias"][0].stop
        self.positions = 0.01 * normals(seed, 0, 0, STREAM_INITIAL, size)
        self.positions[self.layout["visible_bias"][0]] = log_odds(self._data)
        self.positions[self.layout["hidden_bias"][0]] = 0.0
        self.velocity = np.zeros(size)
        self.step = 0
        self.chains = np.zeros((0, width))
        if method == "pcd":
            field = np.zeros((1, chains, width)) + log_odds(self._data)
            stream = _rbm_sampling.ANNEALED
            self.chains = _rbm_sampling.draw(field, 0, stream, seed, np)[0]

    @property
    def machine(self) -> RBM:
        """The machine as it is now."""
        one = unpack(self.positions[None], *self.layout["weights"][1])
        return RBM(one.weights[0], one.visible[0], one.hidden[0])

    def run(self, steps: int, rate: float | None = None) -> None:
        """Make ``steps`` updates, at another rate if one is given.

        Raises
        ------
        PotentialError
            ``steps`` or ``rate`` not above zero.
        """
        s = self._settings
        step_length = s["rate"] if rate is None else positive("rate", rate)
        for _ in range(positive_integer("steps", steps)):
            gradient = self._gradient()
            self.velocity *= s["momentum"]
            self.velocity += step_length * gradient
            self.positions += self.velocity
            self.step += 1

    def _gradient(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        s = self._settings
        n_visible, n_hidden = self.layout["weights"][1]
        one = unpack(self.positions[None], n_visible, n_hidden)
        batch = rows(s["seed"], 1, self.step, len(self._data), s["batch_size"])[0]
        data = self._data[batch][None]
        v = self.chains[None] if s["method"] == "pcd" else data
        for k in range(s["sweeps"]):
            step = self.step * s["sweeps"] + k
            v, _ = _rbm_sampling.sweep(v, one, step, s["seed"], np)
        if s["method"] == "pcd":
            self.chains = v[0]
        clamped = _rbm_sampling.averages(data, one, np)
        free = _rbm_sampling.averages(v, one, np)
        parts = [(a - b).ravel() for a, b in zip(clamped, free, strict=True)]
        parts[0] -= s["decay"] * one.weights.ravel()
        return np.concatenate(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that `load` needs to go on bit for bit (NumPy's .npz).

        Raises
        ------
        TrajectoryError
            A name without the suffix .npz, or a file that cannot be written.
        """
        target = Path(path)
        if target.suffix != ".npz":
            raise TrajectoryError(f"path={str(path)!r}: expected a name ending in .npz")
        record = {
            "version": _VERSION,
            "settings": self._settings,
            "data": fingerprint(self._data),
        }
        part = target.with_name(target.name + ".part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    record=np.array(json.dumps(record)),
                    positions=self.positions,
                    velocity=self.velocity,
                    chains=self.chains,
                    step=np.array(self.step),
                )
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise TrajectoryError(f"{target}: cannot be written ({error})") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], data: Any) -> Self:
        """Return the trainer that `save` wrote; ``data`` must be the same.

        Raises
        ------
        TrajectoryError
            A file that is not one of ours, of a newer version, or of other data.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                record = json.loads(str(file["record"]))
                arrays = {k: file[k] for k in ("positions", "velocity", "chains")}
                step = int(file["step"])
        except (OSError, KeyError, ValueError) as error:
            raise TrajectoryError(
                f"{path}: not a file of RBMTrainer.save ({error})"
            ) from error
        if record["version"] > _VERSION:
            raise TrajectoryError(
                f"{path}: version {record['version']}, and this mdnet reads up to "
                f"{_VERSION}: update mdnet"
            )
        trainer = cls(data, **record["settings"])
        if fingerprint(trainer._data) != record["data"]:
            raise TrajectoryError(
                f"{path} was written with other data: give load() those of the run"
            )
        trainer.step = step
        for name, array in arrays.items():
            setattr(trainer, name, array)
        return trainer
