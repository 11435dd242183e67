"""In-memory runs with exactly known statistics, for the tests of the analysis."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.typing import Series


def ar1(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> Any:
    """Stationary AR(1) of unit variance along axis 0."""
    from scipy.signal import lfilter

    noise = rng.normal(size=shape) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise, axis=0)


class FakeRun:
    """The protocol `mdnet.typing.Run` over a dict of arrays."""

    def __init__(
        self,
        series: dict[str, Any],
        layout: Any,
        positions: Any = None,
        config: dict[str, Any] | None = None,
        stride: int = 1,
        dt: float = 0.1,
        offset: int = 0,
    ) -> None:
        self.data = {k: np.asarray(v) for k, v in series.items()}
        self.layout = layout
        self.positions = positions
        self.config = {} if config is None else config
        self.stride, self.dt, self.offset = stride, dt, offset
        some = positions if positions is not None else next(iter(self.data.values()))
        self.replicas = some.shape[1]
        self.size = sum(int(np.prod(shape)) for _, shape in layout.values())

    def __contains__(self, name: object) -> bool:
        return name in self.data

    def __getitem__(self, name: str) -> Series:
        value = self.data[name]
        step = self.offset + self.stride * np.arange(len(value))
        return Series(value, step, step * self.dt)


LAYOUT = {
    "0.weight": (slice(0, 12), (4, 3)),
    "0.bias": (slice(12, 16), (4,)),
    "1.weight": (slice(16, 24), (2, 4)),
}
SIZE = 24


def harmonic_run(
    temperature: Any,
    frames: int = 1500,
    replicas: int = 8,
    phi: float = 0.8,
    seed: int = 0,
    target: Any = None,
    drop: tuple[str, ...] = (),
    start_energy: float = 0.0,
) -> FakeRun:
    """Exact canonical samples of U = sum k q^2/2 with AR(1) memory.

    ``temperature`` is the one sampled, ``target`` the one the run claims.
    ``start_energy`` adds a relaxing offset to U, as of a run from a bad start.
    """
    rng = np.random.default_rng(seed)
    stiffness = np.geomspace(0.5, 8.0, SIZE)
    t = np.broadcast_to(np.asarray(temperature, float), (replicas,))[None, :, None]
    q = ar1(rng, (frames, replicas, SIZE), phi) * np.sqrt(t / stiffness)
    p = ar1(rng, (frames, replicas, SIZE), phi) * np.sqrt(t)
    gradient = stiffness * q
    centre = np.zeros(SIZE)
    slices = [s for s, _ in LAYOUT.values()]

    def by_layer(x: Any) -> Any:
        return np.stack([x[..., s].sum(-1) for s in slices], -1)

    sizes = np.array([s.stop - s.start for s in slices])
    energy = 0.5 * (stiffness * q**2).sum(-1)
    energy += start_energy * np.exp(-np.arange(frames) / 40.0)[:, None]
    claimed = np.asarray(temperature if target is None else target, float)
    series = {
        "potential_energy": energy,
        "kinetic_energy": 0.5 * (p**2).sum(-1),
        "kinetic_temperature": (p**2).mean(-1),
        "layer_kinetic_temperature": by_layer(p**2) / sizes,
        "target_temperature": np.broadcast_to(claimed, (frames, replicas)),
        "gradient_square": by_layer(gradient**2),
        "laplacian": by_layer(np.broadcast_to(stiffness, q.shape))
        * (1 + 0.05 * rng.normal(size=(frames, replicas, 3))),
        "virial": by_layer((q - centre) * gradient),
    }
    for name in drop:
        del series[name]
    config = {"integrator": {"temperature": claimed.tolist(), "name": "BAOAB"}}
    return FakeRun(series, LAYOUT, q, config, stride=10)
