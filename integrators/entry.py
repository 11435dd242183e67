"""One record of the catalogue of integrators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["HEATS", "VERLET", "WARMS", "Entry"]

VERLET = "h omega < 2"
HEATS = "heats without end: {}h C/2m of energy a weight and unit of time"
WARMS = "T + hC/2g (m = 1)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One method: how to make it and what to expect of it.

    Moments are those on U = k q^2/2 with m = 1; C is the variance of the noise of one
    force (minibatches), g the friction.

    Attributes
    ----------
    name : str
        As the integrator's own ``name``.
    family : str
        Heading that it stands under.
    word : str
        Letters of a step; a short description for methods that are no word.
    make : callable
        ``make(dt=...)`` builds the integrator.
    flow : str
        What is solved exactly, in which order.
    samples : str
        What it conserves, or the law it samples, at finite step.
    force_calls : int or str
        A step.
    stability : str
        Steps that are stable.
    noise : str
        What gradient noise does to it.
    references : tuple of str
        Keys of `mdnet.bibliography`, where new papers go.
    limit : float or None
        Largest stable dt of ``make(dt=dt)`` on an oscillator of k = m = 1; None where
        the method has none (a Metropolis test rejects what is unstable).
    """

    name: str
    family: str
    word: str
    make: Callable[..., Any]
    flow: str
    samples: str
    force_calls: int | str
    stability: str
    noise: str
    references: tuple[str, ...]
    limit: float | None = None
