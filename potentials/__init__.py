"""Potential energies: networks with data, and surfaces whose answers are known.

The names below load on first use (PEP 562), so that importing this stays light.
"""

from __future__ import annotations

if not __name__.startswith("mdnet."):
    raise ImportError(f"this folder is mdnet.{__name__}: from mdnet import {__name__}")

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdnet.potentials import (
        curvature,
        gauge,
        initializers,
        layers,
        likelihoods,
        priors,
        scales,
    )
    from mdnet.potentials._rbm_results import LogPartition
    from mdnet.potentials.analytic import DoubleWell, Funnel, Harmonic, Rosenbrock
    from mdnet.potentials.architectures import MLP3, LeNet5, ResNetFRN
    from mdnet.potentials.autoencoder import VariationalAutoencoder
    from mdnet.potentials.base import Potential
    from mdnet.potentials.committee import Committee, committee_error, committee_plateau
    from mdnet.potentials.compose import Path, Scaled, Sum, interpolate
    from mdnet.potentials.control_variates import force_variance
    from mdnet.potentials.coordinates import Projection, TensorNorm
    from mdnet.potentials.custom import Custom, check_gradient
    from mdnet.potentials.directions import pca_basis, random_basis
    from mdnet.potentials.hopfield import Hopfield, hopfield_capacity, hopfield_overlap
    from mdnet.potentials.hopfield_dynamics import GradedHopfield, ModernHopfield
    from mdnet.potentials.jax import from_jax, to_jax
    from mdnet.potentials.landscapes import GaussianMixture, MullerBrown
    from mdnet.potentials.latent import ProbabilisticPCA
    from mdnet.potentials.layers import (
        Activation,
        AvgPool2d,
        Conv2d,
        Dense,
        Embedding,
        FilterResponseNorm,
        Flatten,
        LayerNorm,
        MaxPool2d,
        Residual,
        SequenceMean,
    )
    from mdnet.potentials.linear import LinearRegression
    from mdnet.potentials.networks import MLP
    from mdnet.potentials.posterior import Posterior
    from mdnet.potentials.priors import (
        CauchyPrior,
        FlatPrior,
        GaussianPrior,
        HierarchicalGaussianPrior,
        HorseshoePrior,
        LaplacePrior,
        StudentTPrior,
    )
    from mdnet.potentials.random_energy import RandomEnergyModel
    from mdnet.potentials.rbm import RBM
    from mdnet.potentials.rbm_posterior import RBMPosterior
    from mdnet.potentials.rbm_training import RBMTrainer
    from mdnet.potentials.restraints import EnergyUmbrella, Restraint
    from mdnet.potentials.robust import LocalEntropy, local_entropy
    from mdnet.potentials.sequential import Sequential, layer_moments
    from mdnet.potentials.sherrington_kirkpatrick import SherringtonKirkpatrick
    from mdnet.potentials.sklearn import from_sklearn
    from mdnet.potentials.spin_glass import SphericalSpinGlass
    from mdnet.potentials.subspace import Projected, Restricted, project, restrict
    from mdnet.potentials.teacher_student import TeacherPerceptron, gibbs_learning_curve
    from mdnet.potentials.torch import from_torch, to_torch

_MODULES = (
    "curvature",
    "gauge",
    "initializers",
    "layers",
    "likelihoods",
    "priors",
    "scales",
)
_NAMES = {
    "Activation": "layers",
    "AvgPool2d": "layers",
    "CauchyPrior": "priors",
    "Committee": "committee",
    "Conv2d": "layers",
    "Custom": "custom",
    "Dense": "layers",
    "DoubleWell": "analytic",
    "Embedding": "layers",
    "EnergyUmbrella": "restraints",
    "FilterResponseNorm": "layers",
    "FlatPrior": "priors",
    "Flatten": "layers",
    "Funnel": "analytic",
    "GaussianMixture": "landscapes",
    "GaussianPrior": "priors",
    "GradedHopfield": "hopfield_dynamics",
    "Harmonic": "analytic",
    "HierarchicalGaussianPrior": "priors",
    "Hopfield": "hopfield",
    "HorseshoePrior": "priors",
    "LaplacePrior": "priors",
    "LayerNorm": "layers",
    "LeNet5": "architectures",
    "LinearRegression": "linear",
    "LocalEntropy": "robust",
    "LogPartition": "_rbm_results",
    "MLP": "networks",
    "MLP3": "architectures",
    "MaxPool2d": "layers",
    "ModernHopfield": "hopfield_dynamics",
    "MullerBrown": "landscapes",
    "Path": "compose",
    "Posterior": "posterior",
    "Potential": "base",
    "ProbabilisticPCA": "latent",
    "Projected": "subspace",
    "Projection": "coordinates",
    "RBM": "rbm",
    "RBMPosterior": "rbm_posterior",
    "RBMTrainer": "rbm_training",
    "RandomEnergyModel": "random_energy",
    "ResNetFRN": "architectures",
    "Residual": "layers",
    "Restraint": "restraints",
    "Restricted": "subspace",
    "Rosenbrock": "analytic",
    "Scaled": "compose",
    "SequenceMean": "layers",
    "Sequential": "sequential",
    "SherringtonKirkpatrick": "sherrington_kirkpatrick",
    "SphericalSpinGlass": "spin_glass",
    "StudentTPrior": "priors",
    "Sum": "compose",
    "TeacherPerceptron": "teacher_student",
    "TensorNorm": "coordinates",
    "VariationalAutoencoder": "autoencoder",
    "check_gradient": "custom",
    "committee_error": "committee",
    "committee_plateau": "committee",
    "force_variance": "control_variates",
    "from_jax": "jax",
    "from_sklearn": "sklearn",
    "from_torch": "torch",
    "gibbs_learning_curve": "teacher_student",
    "hopfield_capacity": "hopfield",
    "hopfield_overlap": "hopfield",
    "interpolate": "compose",
    "layer_moments": "sequential",
    "local_entropy": "robust",
    "pca_basis": "directions",
    "project": "subspace",
    "random_basis": "directions",
    "restrict": "subspace",
    "to_jax": "jax",
    "to_torch": "torch",
}

__all__ = [
    "MLP",
    "MLP3",
    "RBM",
    "Activation",
    "AvgPool2d",
    "CauchyPrior",
    "Committee",
    "Conv2d",
    "Custom",
    "Dense",
    "DoubleWell",
    "Embedding",
    "EnergyUmbrella",
    "FilterResponseNorm",
    "FlatPrior",
    "Flatten",
    "Funnel",
    "GaussianMixture",
    "GaussianPrior",
    "GradedHopfield",
    "Harmonic",
    "HierarchicalGaussianPrior",
    "Hopfield",
    "HorseshoePrior",
    "LaplacePrior",
    "LayerNorm",
    "LeNet5",
    "LinearRegression",
    "LocalEntropy",
    "LogPartition",
    "MaxPool2d",
    "ModernHopfield",
    "MullerBrown",
    "Path",
    "Posterior",
    "Potential",
    "ProbabilisticPCA",
    "Projected",
    "Projection",
    "RBMPosterior",
    "RBMTrainer",
    "RandomEnergyModel",
    "ResNetFRN",
    "Residual",
    "Restraint",
    "Restricted",
    "Rosenbrock",
    "Scaled",
    "SequenceMean",
    "Sequential",
    "SherringtonKirkpatrick",
    "SphericalSpinGlass",
    "StudentTPrior",
    "Sum",
    "TeacherPerceptron",
    "TensorNorm",
    "VariationalAutoencoder",
    "check_gradient",
    "committee_error",
    "committee_plateau",
    "curvature",
    "force_variance",
    "from_jax",
    "from_sklearn",
    "from_torch",
    "gauge",
    "gibbs_learning_curve",
    "hopfield_capacity",
    "hopfield_overlap",
    "initializers",
    "interpolate",
    "layer_moments",
    "layers",
    "likelihoods",
    "local_entropy",
    "pca_basis",
    "priors",
    "project",
    "random_basis",
    "restrict",
    "scales",
    "to_jax",
    "to_torch",
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
