"""Fitted scikit-learn estimators as potentials; packages that are missing."""

import sys

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import BackendError, PotentialError

sklearn = pytest.importorskip("sklearn")
from sklearn import linear_model, neural_network, pipeline, preprocessing  # noqa: E402

GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=(60, 4))
LOGITS = X @ GENERATOR.normal(size=(4, 3))
COLOURS = np.array(["blue", "green", "red"])[LOGITS.argmax(1)]
TALL = LOGITS[:, 0] > 0
SEVERAL = (LOGITS > 0).astype(int)
REAL = LOGITS[:, 0] + 0.1 * GENERATOR.normal(size=60)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def perceptron(kind="Classifier", **settings):
    build = getattr(neural_network, "MLP" + kind)
    settings = {"hidden_layer_sizes": (6, 5), "max_iter": 30} | settings
    return build(random_state=0, **settings)


CLASSIFIERS = {
    "perceptron, classes": (perceptron(activation="tanh"), COLOURS, "categorical"),
    "perceptron, logistic": (perceptron(activation="logistic"), COLOURS, "categorical"),
    "perceptron, yes or no": (perceptron(), TALL, "bernoulli"),
    "perceptron, several": (perceptron(), SEVERAL, "bernoulli"),
    "logistic, classes": (linear_model.LogisticRegression(), COLOURS, "categorical"),
    "logistic, yes or no": (linear_model.LogisticRegression(), TALL, "bernoulli"),
    "logistic, no intercept": (
        linear_model.LogisticRegression(fit_intercept=False),
        COLOURS,
        "categorical",
    ),
}
REGRESSORS = {
    "perceptron": (perceptron("Regressor"), REAL),
    "perceptron, linear": (perceptron("Regressor", activation="identity"), REAL),
    "least squares": (linear_model.LinearRegression(), REAL),
    "several targets": (linear_model.LinearRegression(), LOGITS),
    "no intercept": (linear_model.Ridge(fit_intercept=False), REAL),
    "lasso": (linear_model.Lasso(alpha=0.01), REAL),
}


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_probabilities_are_those_of_the_classifier(case):
    estimator, y, kind = CLASSIFIERS[case]
    estimator.fit(X, y)
    U = potentials.from_sklearn(estimator, data=(X, y))
    assert U.likelihood.describe()["name"] == kind
    assert type(U.network) is potentials.MLP
    ours, theirs = U.predict(U.initial(2), X), estimator.predict_proba(X)
    if ours.shape[2] == 1:
        theirs = theirs[:, 1:]
    np.testing.assert_allclose(ours, np.stack([theirs, theirs]), atol=1e-12)
    if case != "perceptron, several":
        at = ours[0].argmax(1) if kind == "categorical" else (ours[0, :, 0] > 0.5) * 1
        np.testing.assert_array_equal(U.classes[at], estimator.predict(X))


@pytest.mark.parametrize("case", REGRESSORS)
def test_means_are_those_of_the_regressor(case):
    estimator, y = REGRESSORS[case]
    estimator.fit(X, y)
    U = potentials.from_sklearn(
        estimator, potentials.likelihoods.Gaussian(noise=0.1), data=(X, y)
    )
    np.testing.assert_allclose(
        U.predict(U.initial(1), X)[0], estimator.predict(X).reshape(60, -1), atol=1e-12
    )


def test_a_penalised_fit_is_the_minimum_of_u():
    """C of a logistic regression is a prior of variance C on its weights.

    Its intercept is free; the check must fail for another scale.
    """
    C = 0.7
    settings = {"C": C, "tol": 1e-10, "max_iter": 10_000}
    fit = linear_model.LogisticRegression(**settings).fit(X, TALL)

    def slope(scale):
        prior = potentials.GaussianPrior({"0.weight": scale, "0.bias": 1e6})
        U = potentials.from_sklearn(fit, prior=prior, data=(X, TALL))
        return np.abs(U.gradient(U.initial(1))).max()

    assert slope(C**0.5) < 1e-4
    assert slope(C) > 0.01


def test_sampling_starts_at_the_fit_and_resumes(tmp_path):
    fit = perceptron().fit(X, COLOURS)
    U = potentials.from_sklearn(fit, data=(X, COLOURS))
    baoab = integrators.BAOAB(dt=0.01, temperature=1.0, friction=1.0)
    sim = mdnet.Simulation(U.minibatch(20), baoab, replicas=3, precision="double")
    np.testing.assert_array_equal(sim.state.positions, U.initial(3))
    sim.run(5, trajectory=tmp_path / "run.h5md", every=5)
    again = potentials.from_sklearn(fit, data=(X, COLOURS)).minibatch(20)
    resumed = mdnet.Simulation.resume(tmp_path / "run.h5md", potential=again)
    np.testing.assert_array_equal(resumed.state.positions, sim.state.positions)
    drawn = U.initial(2, start="prior")
    assert not np.allclose(drawn, U.initial(2))


def with_pipeline():
    return pipeline.make_pipeline(preprocessing.StandardScaler(), perceptron())


@pytest.mark.parametrize(
    ("estimator", "y", "message"),
    [
        (perceptron(), None, "not fitted"),
        (with_pipeline(), TALL, r"pipeline\[-1\]"),
        (linear_model.RidgeClassifier(), TALL, "estimator=RidgeClassifier"),
        (linear_model.PoissonRegressor(), np.abs(REAL), "estimator=PoissonRegressor"),
        ("ridge", None, "estimator=str"),
    ],
)
def test_refuses(estimator, y, message):
    if y is not None:
        estimator.fit(X, y)
    with pytest.raises(PotentialError, match=message):
        potentials.from_sklearn(estimator, data=(X, TALL))


def test_refuses_data_that_do_not_fit():
    fit = perceptron().fit(X, COLOURS)
    for data, message in [
        (None, "expected a pair"),
        ((X[:, 1:], COLOURS), "X has shape"),
        ((X, np.where(COLOURS == "red", "pink", COLOURS)), "the label .*pink"),
        ((X, COLOURS[1:]), "y has shape"),
    ]:
        with pytest.raises(PotentialError, match=message):
            potentials.from_sklearn(fit, data=data)
    with pytest.raises(PotentialError, match="start='fit'"):
        potentials.from_sklearn(fit, data=(X, COLOURS)).initial(1, start="fit")


@pytest.mark.parametrize("package", ["torch", "jax", "sklearn"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"sklearn": "examples"}.get(package, package)
    call = getattr(potentials, f"from_{package}")
    arguments = (None, None) if package == "jax" else (None,)
    with pytest.raises(BackendError, match=rf"pip install .*\[{extra}\]"):
        call(*arguments, data=(X, TALL))
