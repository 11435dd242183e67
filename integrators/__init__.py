"""Integrators: words of exactly solved pieces, and their parameters.

See `mdnet.integrators.table` for what each one samples at finite step.
"""

from __future__ import annotations

if not __name__.startswith("mdnet."):
    raise ImportError(f"this folder is mdnet.{__name__}: from mdnet import {__name__}")

from mdnet.integrators.catalog import CATALOG, Entry, table
from mdnet.integrators.hamiltonian import (
    Leapfrog,
    Omelyan4,
    PositionVerlet,
    VelocityVerlet,
    Yoshida4,
)
from mdnet.integrators.langevin import ABOBA, BAO, BAOA, BAOAB, OABAO, OBABO
from mdnet.integrators.scheme import Scheme, parse
from mdnet.integrators.splitting import Splitting, from_description
from mdnet.integrators.stochastic_gradient import SGD, SGLD

__all__ = [
    "ABOBA",
    "BAO",
    "BAOA",
    "BAOAB",
    "CATALOG",
    "OABAO",
    "OBABO",
    "SGD",
    "SGLD",
    "Entry",
    "Leapfrog",
    "Omelyan4",
    "PositionVerlet",
    "Scheme",
    "Splitting",
    "VelocityVerlet",
    "Yoshida4",
    "from_description",
    "parse",
    "table",
]
