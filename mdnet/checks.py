"""What a simulation refuses before its first step: shapes, starts, unstable steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mdnet import random, schedules
from mdnet.errors import PotentialError, SchemeError
from mdnet.typing import Potential

__all__ = ["kinds", "parameters", "stability", "start"]


def kinds(potential: Any, integrator: Any, replicas: Any, seed: Any) -> None:
    """Refuse what is not a potential, an integrator, a number of replicas, a seed."""
    if not isinstance(replicas, (int, np.integer)) or replicas < 1:
        raise PotentialError(f"replicas={replicas!r}: expected an integer >= 1")
    if not hasattr(potential, "evaluator"):
        raise PotentialError(
            f"potential={potential!r}: expected a mdnet potential; wrap functions "
            "in potentials.Custom(size=D, energy=f, gradient=g)"
        )
    if not hasattr(integrator, "operations"):
        raise SchemeError(
            f"integrator={integrator!r}: expected one of mdnet.integrators, as "
            "integrators.BAOAB(dt=0.01)"
        )
    random.seed_words(seed)


def parameters(potential: Potential, integrator: Any, replicas: int) -> None:
    """Refuse parameters of another length than the replicas, or than the weights."""
    for name in integrator.SCALARS:
        value = schedules.evaluate(getattr(integrator, name), 0)
        if np.ndim(value) and np.shape(value) != (replicas,):
            raise SchemeError(
                f"{name} has shape {np.shape(value)}: expected one value or "
                f"({replicas},), one for each of replicas={replicas}"
            )
    mass = integrator.mass
    if np.ndim(mass) and np.shape(mass) != (potential.size,):
        raise SchemeError(
            f"mass has shape {np.shape(mass)}: expected one value or "
            f"({potential.size},), one for each parameter"
        )


def start(
    potential: Potential, replicas: int, seed: int, positions: Any = None
) -> np.ndarray:
    """Return a finite start, (R, D) float64: the one given or one drawn."""
    d = potential.size
    if positions is None:
        positions = potential.initial(replicas, seed)
    given = np.asarray(
        positions.get() if hasattr(positions, "get") else positions, np.float64
    )
    if given.shape == (d,):
        given = np.broadcast_to(given, (replicas, d))
    if given.shape != (replicas, d):
        raise PotentialError(
            f"positions has shape {given.shape}: expected ({replicas}, {d}), "
            f"replicas by parameters, or ({d},) for all replicas"
        )
    if not np.isfinite(given).all():
        bad = np.argwhere(~np.isfinite(given))[0]
        raise PotentialError(
            f"positions[{bad[0]}, {bad[1]}]={given[tuple(bad)]}: the start must be "
            "finite"
        )
    return given


def stability(potential: Potential, integrator: Any, full: bool) -> None:
    """Refuse a step beyond the limit where the potential knows its curvature."""
    stiffness = getattr(potential, "largest_stiffness", None)
    if stiffness is None or stiffness <= 0 or not full:
        return
    mass = np.asarray(integrator.mass, np.float64)
    least = float(mass.min())
    curvature = stiffness / least
    if mass.ndim == 1 and hasattr(potential, "largest_curvature"):
        curvature = potential.largest_curvature(mass)
    curvature *= 1 + 1e-6  # the limit itself is beyond it
    integrator = getattr(integrator, "integrator", integrator)  # what one is made of
    if integrator.growth(curvature) < 1 + 1e-7:
        return
    dt = np.asarray(integrator.time_step(0), np.float64)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        part = replace(integrator, dt=middle * dt)
        stable = part.growth(curvature) < 1 + 1e-7
        low, high = (middle, high) if stable else (low, middle)
    bound = low * float(dt.max())
    many = f"array of {dt.size} values up to {dt.max():.6g}"
    shown = many if dt.size > 4 else schedules.describe(integrator.dt)
    raise SchemeError(
        f"dt={shown} is beyond the stability "
        f"limit dt < {bound:.6g} of {integrator.name} for this potential "
        f"(largest stiffness {stiffness:.6g}, smallest mass {least:.6g}, "
        f"largest ratio of the two {curvature:.6g}); "
        f"take dt <= {bound / 2:.3g}"
    )
