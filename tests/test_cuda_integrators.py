"""Companions on CUDA: the same trajectory and ledger as on the CPU, to rounding."""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials

from .cuda_tools import gpu

CASES = {
    "baths": lambda: integrators.BAOAB(0.05, {"*": 2.0}, frozen=np.arange(5) < 2),
    "exchange": lambda: integrators.ReplicaExchange(
        integrators.BAOAB(0.05), [1.0, 2.0], every=2
    ),
    "tempering": lambda: integrators.SimulatedTempering(
        integrators.BAOAB(0.05), [1.0, 2.0], every=2
    ),
    "force groups": lambda: integrators.RESPA("BAOAB", 0.05, inner=2, fast=0),
    "noise drawn ahead": lambda: integrators.BBK(0.05),
    "exact flight": lambda: integrators.UBU(0.05),
    "sphere": lambda: integrators.Constrained("BAOAB", 0.05, norms={"q": "tensor"}),
    "box": lambda: integrators.Constrained(
        "BAOAB", 0.05, walls={"q": ("element", 0.91)}
    ),
    "ball": lambda: integrators.Constrained(
        "BAOAB", 0.2, walls={"q": ("tensor", 1.11)}
    ),
    "matrix": lambda: integrators.HMC(0.3, 2, mass=np.eye(5) + 0.5),
    "ensemble": lambda: integrators.EnsembleQuasiNewton(0.05, every=2, floor=1.0),
    "isokinetic": lambda: integrators.Isokinetic(0.1),
    "friction that moves": lambda: integrators.Splitting("BADNDAB", 0.1),
    "masses by noise": lambda: integrators.NoiseMatched(0.05, warmup=20),
}


@gpu
@pytest.mark.parametrize("case", CASES)
def test_integrators_equal_cpu(case, tmp_path):
    """Few steps of few replicas: the simulator takes a second for a dozen launches."""
    U = potentials.Harmonic(size=5) + potentials.DoubleWell(size=5)
    replicas = {"exchange": 2, "tempering": 2, "ensemble": 4}.get(case, 1)
    start = np.array([0.5, -0.3, 0.2, 0.1, 0.9])
    start = start * np.linspace(1.0, 0.7, replicas)[:, None]
    found = []
    for name in ("cpu", "cuda"):
        sim = mdnet.Simulation(
            U, CASES[case](), replicas, start, seed=1, backend=name, precision="double"
        )
        sim.run(2, trajectory=tmp_path / f"{name}.h5md", every=2, thermometers=False)
        again = mdnet.Simulation.resume(tmp_path / f"{name}.h5md", potential=U)
        sim.run(1)
        again.run(1, trajectory=tmp_path / f"{name}_again.h5md")
        q, p = (sim.arrays((n,))[n] for n in ("positions", "momenta"))
        assert np.array_equal(q, again.arrays(("positions",))["positions"])
        found.append({"q": q, "p": p, **sim.scalars()})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-9, err_msg=name)
