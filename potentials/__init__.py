"""Potential energies: networks with data, and surfaces whose answers are known.

The names below load on first use (PEP 562), so that importing this stays light.
"""

from __future__ import annotations

if not __name__.startswith("mdnet."):
    raise ImportError(f"this folder is mdnet.{__name__}: from mdnet import {__name__}")

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdnet.potentials import likelihoods, priors
    from mdnet.potentials.analytic import DoubleWell, Funnel, Harmonic, Rosenbrock
    from mdnet.potentials.base import Potential
    from mdnet.potentials.compose import Path, Scaled, Sum, interpolate
    from mdnet.potentials.custom import Custom, check_gradient
    from mdnet.potentials.landscapes import GaussianMixture, MullerBrown
    from mdnet.potentials.linear import LinearRegression
    from mdnet.potentials.networks import MLP
    from mdnet.potentials.posterior import Posterior
    from mdnet.potentials.priors import (
        FlatPrior,
        GaussianPrior,
        LaplacePrior,
        StudentTPrior,
    )

_MODULES = ("likelihoods", "priors")
_NAMES = {
    "Custom": "custom",
    "DoubleWell": "analytic",
    "FlatPrior": "priors",
    "Funnel": "analytic",
    "GaussianMixture": "landscapes",
    "GaussianPrior": "priors",
    "Harmonic": "analytic",
    "LaplacePrior": "priors",
    "LinearRegression": "linear",
    "MLP": "networks",
    "MullerBrown": "landscapes",
    "Path": "compose",
    "Posterior": "posterior",
    "Potential": "base",
    "Rosenbrock": "analytic",
    "Scaled": "compose",
    "StudentTPrior": "priors",
    "Sum": "compose",
    "check_gradient": "custom",
    "interpolate": "compose",
}

__all__ = [
    "MLP",
    "Custom",
    "DoubleWell",
    "FlatPrior",
    "Funnel",
    "GaussianMixture",
    "GaussianPrior",
    "Harmonic",
    "LaplacePrior",
    "LinearRegression",
    "MullerBrown",
    "Path",
    "Posterior",
    "Potential",
    "Rosenbrock",
    "Scaled",
    "StudentTPrior",
    "Sum",
    "check_gradient",
    "interpolate",
    "likelihoods",
    "priors",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mdnet.potentials.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'mdnet.potentials' has no attribute {name!r}")
    module = importlib.import_module(f"mdnet.potentials.{_NAMES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
