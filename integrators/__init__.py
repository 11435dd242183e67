"""Integrators: words of exactly solved pieces, and their parameters.

See `mdnet.integrators.table` for what each one samples at finite step.
"""

from __future__ import annotations

if not __name__.startswith("mdnet."):
    raise ImportError(f"this folder is mdnet.{__name__}: from mdnet import {__name__}")

from mdnet.integrators.adaptive_langevin import SGNHT, CCAdL
from mdnet.integrators.catalog import CATALOG, Entry, table
from mdnet.integrators.constraints import Constrained
from mdnet.integrators.ensemble import EnsembleQuasiNewton
from mdnet.integrators.hamiltonian import (
    Leapfrog,
    Omelyan4,
    PositionVerlet,
    VelocityVerlet,
    Yoshida4,
)
from mdnet.integrators.hmc import GHMC, HMC, MALA, MCLMC, NUTS, RandomWalkMetropolis
from mdnet.integrators.isokinetic import Isokinetic
from mdnet.integrators.langevin import ABOBA, BAO, BAOA, BAOAB, OABAO, OBABO
from mdnet.integrators.masses import rmsprop_mass
from mdnet.integrators.multistep import RESPA
from mdnet.integrators.noise_matched import SGHMC, NoiseMatched
from mdnet.integrators.nose_hoover import NoseHoover
from mdnet.integrators.scheme import Scheme, parse
from mdnet.integrators.simulated_tempering import SimulatedTempering
from mdnet.integrators.splitting import Splitting, from_description
from mdnet.integrators.stochastic_gradient import SGD, SGLD
from mdnet.integrators.tempering import ReplicaExchange
from mdnet.integrators.velocity_rescaling import StochasticVelocityRescaling
from mdnet.integrators.words import (
    BBK,
    GJF,
    UBU,
    LeimkuhlerMatthews,
    StochasticPositionVerlet,
)

__all__ = [
    "ABOBA",
    "BAO",
    "BAOA",
    "BAOAB",
    "BBK",
    "CATALOG",
    "GHMC",
    "GJF",
    "HMC",
    "MALA",
    "MCLMC",
    "NUTS",
    "OABAO",
    "OBABO",
    "RESPA",
    "SGD",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "UBU",
    "CCAdL",
    "Constrained",
    "EnsembleQuasiNewton",
    "Entry",
    "Isokinetic",
    "Leapfrog",
    "LeimkuhlerMatthews",
    "NoiseMatched",
    "NoseHoover",
    "Omelyan4",
    "PositionVerlet",
    "RandomWalkMetropolis",
    "ReplicaExchange",
    "Scheme",
    "SimulatedTempering",
    "Splitting",
    "StochasticPositionVerlet",
    "StochasticVelocityRescaling",
    "VelocityVerlet",
    "Yoshida4",
    "from_description",
    "parse",
    "rmsprop_mass",
    "table",
]
