"""Checks of an integrator on a network of one's own: the dynamics it claims to be.

Each function runs what it needs (on the CPU, in double precision unless told
otherwise) or reads a run, and returns a small frozen record: ``passed``, the figures
behind it, ``warnings``, and a ``str`` that says both.  A record is true when it
passed, so that ``assert validate.order(make, potential)`` is a test.  Nothing prints.

=======================  =========================================================
`order`                  error against step: has the word the order it should have
`reversibility`          forwards, momenta turned round, back: the start again
`symplecticity`          the Jacobian J of a step: J' S J = S, log det J
`conserved`              drift and fluctuation of the conserved energy
`kinetic`                kinetic energies: the chi-squared law, by tensor
`ensemble_ratio`         energies at two temperatures: their Boltzmann ratio
`step_size_convergence`  an average at dt, dt/2, dt/4 and its limit
`restart`                2n steps against n, save, resume, n: bit for bit
=======================  =========================================================

References
----------
M. R. Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p.
P. T. Merz, M. R. Shirts, PLoS ONE 13, e0202764 (2018),
doi:10.1371/journal.pone.0202764.
"""

from __future__ import annotations

from mdnet.validate.conservation import Conservation, conserved
from mdnet.validate.convergence import Order, order
from mdnet.validate.ensembles import EnsembleRatio, ensemble_ratio
from mdnet.validate.maps import (
    Reversibility,
    Symplecticity,
    reversibility,
    symplecticity,
)
from mdnet.validate.momenta import KineticEnergies, kinetic
from mdnet.validate.restarts import Restart, restart
from mdnet.validate.steps import StepSizeConvergence, step_size_convergence

__all__ = [
    "Conservation",
    "EnsembleRatio",
    "KineticEnergies",
    "Order",
    "Restart",
    "Reversibility",
    "StepSizeConvergence",
    "Symplecticity",
    "conserved",
    "ensemble_ratio",
    "kinetic",
    "order",
    "restart",
    "reversibility",
    "step_size_convergence",
    "symplecticity",
]
