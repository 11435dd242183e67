"""Codes and constants that networks share with the kernels compiled for them.

Kept apart from the kernels, so that reading a name loads no compiler.
"""

from __future__ import annotations

import math

__all__ = [
    "ACTIVATIONS",
    "GELU_CUBE",
    "GELU_SLOPE",
    "LIKELIHOODS",
    "ORDERS",
    "PRIORS",
    "SELU_ALPHA",
    "SELU_SCALE",
]

ACTIVATIONS = {
    "identity": 0,
    "relu": 1,
    "tanh": 2,
    "silu": 3,
    "gelu": 4,
    "softplus": 5,
    "selu": 6,
}
"""Activation -> code."""

LIKELIHOODS = {"categorical": 0, "gaussian": 1, "bernoulli": 2}
"""Likelihood -> code."""

PRIORS = {"flat": 0, "gaussian": 1, "laplace": 2, "student": 3}
"""Prior -> code."""

ORDERS = {
    "full": 0,
    "shuffle": 1,
    "replacement": 2,
    "without": 3,
    "symmetric": 4,
    "given": 5,
}
"""Order in which rows of the data are visited -> code.

"given": replica r's batch is the r-th run of rows of data that were gathered for it.
"""

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
"""Self-normalising constants, Klambauer et al. (2017), arXiv:1706.02515."""

GELU_SLOPE = math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715
"""gelu(x) = x (1 + tanh(GELU_SLOPE (x + GELU_CUBE x^3)))/2."""
