"""Molecular dynamics for neural networks: the loss is the potential energy.

The names below load on first use (PEP 562), so that importing mdnet stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mdnet._version import __version__

if TYPE_CHECKING:
    from mdnet import (
        analysis,
        backend,
        citations,
        datasets,
        errors,
        integrators,
        io,
        observables,
        plotting,
        potentials,
        random,
        reporters,
        schedules,
        triggers,
        validate,
    )
    from mdnet.errors import (
        BackendError,
        DivergenceError,
        MdnetError,
        PotentialError,
        SchemeError,
        TrajectoryError,
    )
    from mdnet.io.reader import Trajectory
    from mdnet.io.reader import open_trajectory as open
    from mdnet.simulation import Simulation

_MODULES = (
    "analysis",
    "backend",
    "citations",
    "datasets",
    "errors",
    "integrators",
    "io",
    "observables",
    "plotting",
    "potentials",
    "random",
    "reporters",
    "schedules",
    "triggers",
    "validate",
)
_NAMES = {
    "BackendError": "mdnet.errors",
    "DivergenceError": "mdnet.errors",
    "MdnetError": "mdnet.errors",
    "PotentialError": "mdnet.errors",
    "SchemeError": "mdnet.errors",
    "TrajectoryError": "mdnet.errors",
    "Simulation": "mdnet.simulation",
    "Trajectory": "mdnet.io.reader",
}

__all__ = [
    "BackendError",
    "DivergenceError",
    "MdnetError",
    "PotentialError",
    "SchemeError",
    "Simulation",
    "Trajectory",
    "TrajectoryError",
    "__version__",
    "analysis",
    "backend",
    "citations",
    "datasets",
    "errors",
    "integrators",
    "io",
    "observables",
    "open",
    "plotting",
    "potentials",
    "random",
    "reporters",
    "schedules",
    "triggers",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mdnet.{name}")
    if name == "open":
        value = importlib.import_module("mdnet.io.reader").open_trajectory
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'mdnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
