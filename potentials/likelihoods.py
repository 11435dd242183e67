"""Likelihoods: how probable the targets are, given a network's outputs.

All are normalised densities, constants included (label smoothing excepted), so that
evidences and comparisons of models mean something.  Sums run over outputs here and
over data in the potential.

===================  ==========================  ============================
name                 class                       `predict` gives
===================  ==========================  ============================
"categorical"        `Categorical`               class probabilities
"label_flip"         `LabelFlip`, rate 0.1       probabilities of true classes
"bernoulli"          `Bernoulli`                 probability of 1
"gaussian"           `Gaussian`, noise 1         means
"learned_gaussian"   `Gaussian`, noise sampled   means
"heteroscedastic"    `Heteroscedastic`           means, then variances
"student_t"          `StudentT`, df 4, scale 1   centres
"poisson"            `Poisson`                   rates
(none)               `Ordinal`                   probabilities of the grades
===================  ==========================  ============================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mdnet.errors import PotentialError
from mdnet.potentials._class_likelihoods import (
    Bernoulli,
    Categorical,
    LabelFlip,
    flip_labels,
)
from mdnet.potentials._count_likelihoods import Ordinal, Poisson
from mdnet.potentials._likelihood_base import Likelihood
from mdnet.potentials._real_likelihoods import Gaussian, Heteroscedastic, StudentT
from mdnet.potentials.scales import HalfCauchy

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Heteroscedastic",
    "LabelFlip",
    "Likelihood",
    "Ordinal",
    "Poisson",
    "StudentT",
    "flip_labels",
    "make_likelihood",
]

_MADE: dict[str, Callable[[], Any]] = {
    "categorical": Categorical,
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
    "learned_gaussian": lambda: Gaussian(noise=HalfCauchy(1.0)),
    "heteroscedastic": Heteroscedastic,
    "student_t": StudentT,
    "poisson": Poisson,
    "label_flip": LabelFlip,
}


def make_likelihood(likelihood: Any) -> Likelihood:
    """Turn a name into a likelihood; leave objects as they are.

    Raises
    ------
    PotentialError
        Unknown name, or an object that lacks a method of `Likelihood`.
    """
    if isinstance(likelihood, str) and likelihood in _MADE:
        named: Likelihood = _MADE[likelihood]()
        return named
    wanted = (
        "targets",
        "log_density",
        "residual",
        "predict",
        "constant",
        "describe",
    )
    if isinstance(likelihood, (str, type)) or not all(
        callable(getattr(likelihood, name, None)) for name in wanted
    ):
        raise PotentialError(
            f"likelihood={likelihood!r}: expected one of {', '.join(_MADE)}, or an "
            "object such as likelihoods.Gaussian(noise=0.1)"
        )
    checked: Likelihood = likelihood
    return checked
