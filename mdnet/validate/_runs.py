"""What the checks share: starting simulations, their steps, the energy they keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mdnet.errors import PotentialError, SchemeError

if TYPE_CHECKING:
    from mdnet.simulation import Simulation
    from mdnet.typing import Potential

__all__ = [
    "F",
    "Make",
    "Precision",
    "at_step",
    "draws_noise",
    "energy_kept",
    "largest_step",
    "positive",
    "prepare",
    "report",
    "simulate",
    "theory",
]

F: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Make: TypeAlias = Callable[[float], Any]
"""Factory of integrators: ``make(dt)``."""
Precision: TypeAlias = Literal["single", "mixed", "double"]

_TINY = 1e-9  # a step to ask an integrator about itself with


def simulate(
    potential: Potential,
    integrator: Any,
    replicas: int,
    positions: Any = None,
    momenta: Any = None,
    seed: int = 0,
    precision: Precision = "double",
) -> Simulation:
    """Start a simulation on the CPU."""
    from mdnet.simulation import Simulation  # loads the compiled kernels

    return Simulation(
        potential,
        integrator,
        replicas=replicas,
        positions=positions,
        momenta=momenta,
        seed=seed,
        backend="cpu",
        precision=precision,
    )


def prepare(
    make: Make, potential: Potential, replicas: int, positions: Any, seed: int
) -> tuple[F, F, Any]:
    """Start (q, p), (R, D) each, and the integrator of a tiny step, which drew p."""
    if not callable(make) or hasattr(make, "operations"):
        raise SchemeError(
            f"integrator_factory={make!r}: expected a function dt -> integrator, as "
            "integrators.VelocityVerlet, or lambda dt: integrators.BAOAB(dt, "
            "temperature=0.5)"
        )
    probe = make(_TINY)
    sim = simulate(potential, probe, replicas, positions, None, seed)
    return sim.state.positions.copy(), sim.state.momenta.copy(), probe


def largest_step(potential: Potential, probe: Any, positions: F, seed: int) -> float:
    """Stability limit 2/omega over the replicas' positions, in the unit of ``dt``."""
    sim = simulate(potential, probe, len(positions), positions, None, seed)
    limit = float(np.min(sim.stability_limit()))
    if not np.isfinite(limit) or limit > 1e6:
        raise SchemeError(
            "the potential has no curvature at the start, so no step suggests itself: "
            "pass dt="
        )
    length = getattr(probe, "length", "dt")
    if length == "dt":
        return limit
    return limit**2 if length == "sqrt(dt)" else limit**2 / 2


def at_step(integrator: Any, factor: float) -> Any:
    """The same integrator with its step multiplied."""
    dt = getattr(integrator, "dt", None)
    if dt is None or callable(dt):
        raise SchemeError(
            f"integrator={integrator!r}: expected one whose dt is a number, so that "
            "it can be made smaller"
        )
    return replace(integrator, dt=factor * np.asarray(dt)[()])


def draws_noise(potential: Potential, integrator: Any, q: F, p: F) -> bool:
    """Whether where a step ends depends on the seed: a bath, a batch, a proposal."""
    ends = []
    for seed in (1, 2):
        sim = simulate(potential, integrator, len(q), q, p, seed)
        sim.run(1)
        ends.append((sim.state.positions.copy(), sim.state.momenta.copy()))
    return any(not np.array_equal(a, b) for a, b in zip(*ends, strict=True))


def energy_kept(sim: Simulation) -> F:
    """The energy that a run should conserve, (R,) float64.

    The integrator's own ``conserved(state)`` where there is one; else the total energy
    less heat and protocol work, which is the energy itself for words without a bath.
    """
    now = sim.scalars()
    own = getattr(sim.integrator, "conserved", None)
    if own is not None:
        return np.asarray(own(sim.state), np.float64)
    total = now["potential_energy"] + now["kinetic_energy"]
    return np.asarray(total - now["heat"] - now["protocol_work"])


def theory(integrator: Any) -> int | None:
    """Order that an integrator says it has; None where it says nothing."""
    for owner in (integrator, getattr(integrator, "scheme", None)):
        found = getattr(owner, "order", None)
        if isinstance(found, (int, np.integer)):
            return int(found)
    return None


def positive(name: str, value: Any) -> float:
    """Refuse a setting that is not a finite number > 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (np.isfinite(number) and number > 0):
        raise PotentialError(f"{name}={value!r}: expected a finite number > 0")
    return number


def report(name: str, passed: bool, finding: str, *lines: str) -> str:
    """Lay out a verdict: one line, then the figures and warnings, indented."""
    head = f"{name} {'passes' if passed else 'FAILS'}: {finding}"
    return "\n".join([head, *(f"  {line}" for line in lines)])
