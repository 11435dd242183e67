"""mdnet's programs for networks of a few hundred weights.

Run by `race` in the interpreter that has mdnet.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from problems import Small, make
from worker import Program, serve


def mdnet_small(task: dict[str, Any]) -> Program:
    """Leapfrog, BAOAB or HMC; ``task["only"]`` "force" times the force alone."""
    import mdnet
    from mdnet import integrators, potentials
    from mdnet.potentials.likelihoods import Bernoulli, Gaussian

    problem: Small = make(task["problem"])
    net = potentials.MLP(list(problem.sizes), activation="tanh")
    full: Any = potentials.Posterior(
        net,
        likelihood=Gaussian(noise=problem.noise) if problem.noise else Bernoulli(),
        prior=potentials.GaussianPrior(scale=1.0),
        data=problem.data(),
    )
    potential = full
    if problem.batch:
        potential = full.minibatch(problem.batch, order="replacement")
    if task["scheme"] == "leapfrog":
        scheme = integrators.VelocityVerlet(dt=problem.dt)
    elif task["scheme"] == "hmc":
        scheme = integrators.HMC(dt=problem.dt, steps=task["turns"])
    else:
        scheme = integrators.BAOAB(dt=problem.dt, friction=problem.friction)
    tensors = [t for W, b in problem.start() for t in (W, b)]
    start = np.concatenate([t.reshape(problem.replicas, -1) for t in tensors], axis=1)
    sim = mdnet.Simulation(
        potential, scheme, replicas=problem.replicas, positions=start, backend="cpu"
    )
    versions = {name: version(name) for name in ("numpy", "numba")}
    versions["mdnet"] = mdnet.__version__
    if task.get("only") == "force":
        calls = iter(range(10**12))
        forces, state = sim._evaluator.forces, sim.state

        def advance(n: int) -> None:
            for _ in range(n):
                forces(state.positions, state.forces, next(calls))

        return Program(advance, dict, versions)

    def check() -> dict[str, float]:
        q = np.asarray(sim.state.positions)
        flat = [q[:, w].reshape(-1, *shape) for w, shape in full.layout.values()]
        loss = problem.loss(list(zip(flat[::2], flat[1::2], strict=True)))
        accepted = sim.scalars().get("accepted")
        if accepted is None:
            return {"loss": loss}
        return {"loss": loss, "acceptance": float(accepted.mean() / sim.state.step)}

    return Program(sim.run, check, versions, problem.settle)


if __name__ == "__main__":
    serve({"mdnet_small": mdnet_small})
