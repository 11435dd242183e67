"""Analysis of runs and samples: reads trajectories or arrays, never simulates.

Every function returns a small frozen record (value, error, effective samples, method,
warnings); nothing prints.  SciPy is loaded by the functions that need it.
"""

from __future__ import annotations

from mdnet.analysis.convergence import ess, mcse, rhat
from mdnet.analysis.energetics import (
    FirstLaw,
    HeatCapacity,
    first_law,
    heat_capacity,
)
from mdnet.analysis.exchange import (
    ByTemperature,
    Exchanges,
    by_temperature,
    exchanges,
)
from mdnet.analysis.kl import KLRelaxation, kl_by_layer, kl_relaxation
from mdnet.analysis.kl_exact import fokker_planck_kl, ornstein_uhlenbeck_kl
from mdnet.analysis.kl_function import kl_predictive
from mdnet.analysis.noise import Advice, NoiseTemperature, noise_temperature

# The function takes the name of its module: imported now, it stays.
from mdnet.analysis.predictive import Predictive, predictive
from mdnet.analysis.results import Estimate
from mdnet.analysis.scores import (
    Calibration,
    accuracy,
    brier,
    calibration,
    log_likelihood,
)
from mdnet.analysis.thermo import Temperatures, Thermometer, temperatures
from mdnet.analysis.timeseries import (
    Equilibration,
    autocorrelation,
    autocorrelation_time,
    equilibration,
    mean,
)

__all__ = [
    "Advice",
    "ByTemperature",
    "Calibration",
    "Equilibration",
    "Estimate",
    "Exchanges",
    "FirstLaw",
    "HeatCapacity",
    "KLRelaxation",
    "NoiseTemperature",
    "Predictive",
    "Temperatures",
    "Thermometer",
    "accuracy",
    "autocorrelation",
    "autocorrelation_time",
    "brier",
    "by_temperature",
    "calibration",
    "equilibration",
    "ess",
    "exchanges",
    "first_law",
    "fokker_planck_kl",
    "heat_capacity",
    "kl_by_layer",
    "kl_predictive",
    "kl_relaxation",
    "log_likelihood",
    "mcse",
    "mean",
    "noise_temperature",
    "ornstein_uhlenbeck_kl",
    "predictive",
    "rhat",
    "temperatures",
]
