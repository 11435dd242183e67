"""Fitted scikit-learn estimators as potentials, started at their weights.

A linear model is a network without hidden layers and `MLPClassifier` and `MLPRegressor`
are ours, so that what comes out is a `Posterior` of an `MLP` with its compiled loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.errors import BackendError, PotentialError
from mdnet.potentials.likelihoods import Likelihood
from mdnet.potentials.networks import MLP
from mdnet.potentials.posterior import Posterior
from mdnet.potentials.priors import GaussianPrior, Prior
from mdnet.typing import Array

__all__ = ["FittedPosterior", "from_sklearn"]

_DEFAULT_PRIOR = GaussianPrior(scale=1.0)
_LINEAR = (
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lasso",
    "LassoCV",
    "LinearRegression",
    "Ridge",
    "RidgeCV",
)
_LOGISTIC = ("LogisticRegression", "LogisticRegressionCV")


class FittedPosterior(Posterior):
    """A posterior of an `MLP` whose start is a fit; see `from_sklearn`.

    Attributes
    ----------
    fitted : ndarray, (D,) float64
        Weights of the estimator.
    classes : ndarray or None
        Labels of the columns of `predict`, for one output the two of "no" and "yes".
    """

    def __init__(
        self,
        network: MLP,
        likelihood: str | Likelihood,
        prior: Prior | None,
        data: Any,
        weights: Any,
        likelihood_temperature: float,
        fitted: np.ndarray[Any, Any],
        classes: np.ndarray[Any, Any] | None,
    ) -> None:
        super().__init__(
            network, likelihood, prior, data, weights, likelihood_temperature
        )
        self.fitted, self.classes = fitted, classes

    def initial(self, replicas: int, seed: int = 0, start: str = "network") -> Array:
        """As `Posterior.initial`, with the fit for the network's start."""
        q = super().initial(replicas, seed, start)
        if start == "network":
            q[:, self.parts.weights] = self.fitted
        return q


def from_sklearn(
    estimator: Any,
    likelihood: str | Likelihood | None = None,
    prior: Prior | None = _DEFAULT_PRIOR,
    data: tuple[Any, Any] | None = None,
    *,
    weights: Any = None,
    likelihood_temperature: float = 1.0,
) -> FittedPosterior:
    """Potential energy of the weights of a fitted scikit-learn estimator.

    Parameters
    ----------
    estimator : object
        A fitted ``MLPClassifier``, ``MLPRegressor``, ``LogisticRegression``, or a
        linear regressor such as ``LinearRegression``, ``Ridge`` or ``Lasso``.
    likelihood : str, Likelihood or None
        None: "categorical", "bernoulli" or "gaussian" (noise 1), as the estimator
        has it.
    prior : Prior or None
        As in `Posterior`.  The estimator's own penalty is not taken over: ``alpha`` of
        an MLP is a ``GaussianPrior`` of scale ``alpha**-0.5`` on its weights, ``C`` of
        a logistic regression one of scale ``C**0.5``.
    data : (X, y)
        As in ``estimator.fit``: labels may be of any type that it was fitted to.
    weights, likelihood_temperature
        As in `Posterior`.

    Returns
    -------
    FittedPosterior
        ``U.initial`` gives the estimator's weights to every replica.

    Raises
    ------
    PotentialError
        An estimator that is not fitted or has no such network, labels that it has not
        seen, or data that do not fit.
    BackendError
        scikit-learn is missing.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mdnet.potentials.sklearn import from_sklearn
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), ["no", "yes", "no", "yes"]
    >>> fit = LogisticRegression().fit(X, y)
    >>> U = from_sklearn(fit, data=(X, y))
    >>> ours = U.predict(U.initial(replicas=1), X)[0, :, 0]
    >>> bool(np.allclose(ours, fit.predict_proba(X)[:, 1]))
    True
    """
    layers, biases, activation, kind = _layers(estimator)
    sizes = [layers[0].shape[1], *(len(w) for w in layers)]
    parts = []
    for l, w in enumerate(layers):
        parts.append(w.reshape(-1))
        if biases is not None:
            parts.append(biases[l])
    classes = getattr(estimator, "classes_", None)
    if isinstance(data, (tuple, list)) and len(data) == 2 and classes is not None:
        data = data[0], _numbered(data[1], classes, sizes[-1])
    return FittedPosterior(
        MLP(sizes, activation, bias=biases is not None),
        kind if likelihood is None else likelihood,
        prior,
        data,
        weights,
        likelihood_temperature,
        np.concatenate(parts).astype(np.float64),
        classes,
    )


_Layers = tuple[list[Any], list[Any] | None, str, str]


def _layers(estimator: Any) -> _Layers:
    """Weights (out, in), biases, activation and likelihood of an estimator."""
    try:
        from sklearn import linear_model, neural_network
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted
    except ImportError as error:
        raise BackendError(
            "from_sklearn needs scikit-learn, which is not installed; install the "
            "extra: python -m pip install -e '.[examples]'"
        ) from error
    name = type(estimator).__name__
    perceptrons = neural_network.MLPClassifier, neural_network.MLPRegressor
    logistic = tuple(getattr(linear_model, n) for n in _LOGISTIC)
    linear = tuple(getattr(linear_model, n) for n in _LINEAR)
    if not isinstance(estimator, (*perceptrons, *logistic, *linear)):
        advice = (
            "; transform X with the first steps and pass the last, "
            "from_sklearn(pipeline[-1], data=(pipeline[:-1].transform(X), y))"
            if name == "Pipeline"
            else ""
        )
        raise PotentialError(
            f"estimator={name}: expected an MLPClassifier, an MLPRegressor or one of "
            f"{', '.join((*_LOGISTIC, *_LINEAR))}{advice}"
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise PotentialError(
            f"{name} is not fitted: call estimator.fit(X, y) first"
        ) from error
    if isinstance(estimator, perceptrons):
        return _perceptron(estimator)
    fit: Any = estimator
    weights = np.atleast_2d(np.asarray(fit.coef_, np.float64))
    biases = None
    if fit.fit_intercept:
        biases = [np.broadcast_to(fit.intercept_, len(weights))]
    if isinstance(estimator, linear):
        return [weights], biases, "identity", "gaussian"
    if len(weights) == 1:
        return [weights], biases, "identity", "bernoulli"
    if fit.solver == "liblinear" or getattr(fit, "multi_class", "auto") == "ovr":
        raise PotentialError(
            f"{name} was fitted one class against the rest, which is no likelihood of "
            'all classes: fit it with solver="lbfgs"'
        )
    return [weights], biases, "identity", "categorical"


def _perceptron(estimator: Any) -> _Layers:
    kinds = {"softmax": "categorical", "logistic": "bernoulli", "identity": "gaussian"}
    out, inner = estimator.out_activation_, estimator.activation
    if out not in kinds:
        raise PotentialError(
            f"{type(estimator).__name__} ends in {out!r}: expected one of "
            f"{', '.join(kinds)}; fit it with another loss"
        )
    inner = "sigmoid" if inner == "logistic" else inner
    weights = [np.asarray(w, np.float64).T for w in estimator.coefs_]
    return weights, list(estimator.intercepts_), inner, kinds[out]


def _numbered(y: Any, classes: np.ndarray[Any, Any], outputs: int) -> Any:
    """Labels as numbers of classes; rows of several yes or no as they are."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == outputs:
        return labels
    labels = labels.reshape(-1)
    known = np.isin(labels, classes)
    if not known.all():
        raise PotentialError(
            f"y has the label {labels[~known][0]!r}: expected those the estimator was "
            f"fitted to, {classes.tolist()}"
        )
    return np.searchsorted(classes, labels)
