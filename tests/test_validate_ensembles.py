"""Checks of ensembles in `mdnet.validate`: right ones pass, and wrong ones do not.

Seeds are fixed, and verdicts raise false alarms in 1e-4 of all cases or less, so that
fresh seeds fail somewhere here with a probability below 1e-2.
"""

import numpy as np
import pytest

from mdnet import integrators, potentials, validate
from mdnet.errors import PotentialError, SchemeError

from .validate_tools import POTENTIALS, record

# --- kinetic energies --------------------------------------------------------------

LAYOUT = {"a": (slice(0, 30), (30,)), "b": (slice(30, 40), (10,))}


def draws(temperature=1.0, n=1000, seed=0, phi=0.0):
    """Momenta (n, 4, 40) of mass 2, each an AR(1) series."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4, 40))
    for i in range(1, n):
        z[i] = phi * z[i - 1] + np.sqrt(1 - phi**2) * z[i]
    return np.sqrt(2.0 * temperature) * z


@pytest.mark.physics
@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_momenta_of_maxwell_and_boltzmann_pass(phi):
    settings = {"mass": 2.0, "layout": LAYOUT}
    p = draws(phi=phi)
    found = validate.kinetic(p, 1.0, **settings)
    assert found, str(found)
    assert found.names == ("all", "a", "b")
    assert found.dof.tolist() == [40, 30, 10]
    # Negative control: 2 % off (of 160000 independent momenta; 12 % of correlated).
    wrong = 1.02 if phi == 0 else 1.12
    assert not validate.kinetic(np.sqrt(wrong) * p, 1.0, **settings)


@pytest.mark.physics
def test_p_values_are_uniform():
    """Of 200 sound sets of correlated momenta, as many p < 0.05 as there should be."""
    p_values = np.array(
        [
            validate.kinetic(draws(n=150, seed=seed, phi=0.6), 1.0, mass=2.0).p_values[
                0
            ]
            for seed in range(200)
        ]
    )
    low = (p_values < 0.05).mean(axis=0)
    # 0.05 +- 0.015 at 200 sets; errors from short series are known themselves to 10 %.
    assert (low < 0.05 + 5 * 0.0154).all(), low


def test_momenta_with_the_right_mean_and_the_wrong_law():
    rng = np.random.default_rng(0)
    p = rng.normal(size=(1000, 40))
    isokinetic = p * np.sqrt(40 / (p**2).sum(axis=1, keepdims=True))
    found = validate.kinetic(isokinetic, 1.0)
    assert not found
    assert found.ratio[0] == pytest.approx(1)
    assert found.spread[0] < 1e-9
    # One tensor hot, the other cold: the whole has the right mean.
    mixed = np.sqrt(2.0) * draws()[:, 0] / np.sqrt(2)
    mixed[:, :30] *= np.sqrt(0.9)
    mixed[:, 30:] *= np.sqrt(1.3)
    found = validate.kinetic(mixed, 1.0, mass=2.0, layout=LAYOUT)
    assert abs(found.ratio[0] - 1) < 0.02
    assert (found.p_values[1:, 0] < 1e-6).all()
    assert not found


@pytest.mark.physics
@pytest.mark.parametrize("name", POTENTIALS)
def test_kinetic_energies_of_runs(name):
    potential = POTENTIALS[name]()
    run = record(potential, integrators.BAOAB(dt=0.1, temperature=2.0), 3000)
    found = validate.kinetic(run)
    assert found, str(found)
    assert not validate.kinetic(run, temperature=1.8)
    # At constant energy there is no bath to bring the law about.
    assert not validate.kinetic(
        record(potential, integrators.VelocityVerlet(0.1), 3000)
    )


def test_kinetic_counts_degrees_of_freedom():
    """Ten frozen weights: the reading averages over all of them."""
    p = draws()
    p[..., 30:] = 0
    assert not validate.kinetic(p, 1.0, mass=2.0)
    assert validate.kinetic(p, 1.0, mass=2.0, dof=30)
    assert validate.kinetic(p, 1.0, mass=2.0, dof={"all": 30})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(5), 1.0), r"shape \(5,\)"),
        ((np.ones((5, 2)),), "need temperature="),
        ((np.ones((5, 2)), 0.0), r"temperature=0\.0"),
    ],
)
def test_kinetic_refuses(arguments, message):
    with pytest.raises(PotentialError, match=message):
        validate.kinetic(*arguments)


def test_kinetic_says_when_there_is_too_little():
    found = validate.kinetic(draws(n=4)[:, :1], 1.0, mass=2.0)
    assert not found
    assert "fewer than" in str(found)
    with pytest.raises(PotentialError, match="dof names 'c'"):
        validate.kinetic(draws(), 1.0, dof={"c": 3})


# --- energies at two temperatures --------------------------------------------------


def gamma_energies(temperature, n=4000, dof=45, seed=0):
    """Potential energies of ``dof`` oscillators: gamma(dof/2) T."""
    rng = np.random.default_rng(seed)
    return temperature * rng.gamma(dof / 2, size=n)


@pytest.mark.physics
def test_slope_of_exact_energies():
    """T = 1 and 1.1, 4000 energies each of 45 oscillators: .0909 with error .0045."""
    pairs = [
        validate.ensemble_ratio(
            gamma_energies(1.0, seed=2 * k),
            gamma_energies(1.1, seed=2 * k + 1),
            temperature=(1.0, 1.1),
        )
        for k in range(200)
    ]
    slope = np.array([pair.slope[0] for pair in pairs])
    stderr = np.array([pair.stderr[0] for pair in pairs])
    assert pairs[0].exact[0] == pytest.approx(1 - 1 / 1.1)
    assert abs(slope.mean() - pairs[0].exact[0]) < 5 * slope.std() / np.sqrt(200)
    # The error is the scatter: known to 5 % from 200 pairs.
    assert stderr.mean() == pytest.approx(slope.std(ddof=1), rel=0.25)
    assert stderr.mean() == pytest.approx(0.0045, rel=0.1)
    assert all(pairs)


@pytest.mark.physics
def test_wrong_temperatures_are_seen_where_they_can_be():
    cold, hot = gamma_energies(1.0), gamma_energies(1.5, seed=1)
    assert validate.ensemble_ratio(cold, hot, temperature=(1.0, 1.5))
    assert not validate.ensemble_ratio(cold, hot, temperature=(1.0, 1.7))
    assert not validate.ensemble_ratio(1.1 * cold, 1.1 * hot, temperature=(1.0, 1.5))
    # 5 % of heating of both, close together, is within the error of 4000 energies.
    near = gamma_energies(1.1, seed=1)
    assert validate.ensemble_ratio(1.05 * cold, 1.05 * near, temperature=(1.0, 1.1))


@pytest.mark.physics
def test_errors_respect_autocorrelation():
    """Every energy ten times over: the slope is the same, its error too."""
    cold, hot = (gamma_energies(t, 2000, seed=3) for t in (1.0, 1.3))
    once = validate.ensemble_ratio(cold, hot, temperature=(1.0, 1.3))
    again = validate.ensemble_ratio(
        np.repeat(cold, 10), np.repeat(hot, 10), temperature=(1.0, 1.3)
    )
    assert again.slope[0] == pytest.approx(once.slope[0])
    assert again.stderr[0] == pytest.approx(once.stderr[0], rel=0.2)
    assert again.n_eff.max() < 2.5 * 2000


@pytest.mark.physics
@pytest.mark.slow
@pytest.mark.parametrize("name", POTENTIALS)
def test_ratio_of_runs(name):
    potential = POTENTIALS[name]()
    cold = record(potential, integrators.BAOAB(0.1), 4000)
    hot = record(potential, integrators.BAOAB(0.1, temperature=1.5), 4000, seed=1)
    found = validate.ensemble_ratio(cold, hot)
    assert found, str(found)
    assert found.exact[0] == pytest.approx(1 / 3)
    wrong = validate.ensemble_ratio(cold, hot, temperature=(1.0, 3.0))
    assert not wrong, str(wrong)


@pytest.mark.physics
def test_ratio_within_a_ladder_and_between_ladders():
    potential = potentials.Harmonic(size=20)
    ladder = [1.0, 1.2, 1.2, 1.5]
    run = record(potential, integrators.BAOAB(0.5, temperature=ladder), 6000, 4)
    found = validate.ensemble_ratio(run)
    assert found, str(found)
    assert found.temperatures.tolist() == [[1.0, 1.2], [1.2, 1.5]]
    higher = [2.0, 1.9, 1.6, 1.6]
    other = record(
        potential, integrators.BAOAB(0.5, temperature=higher), 6000, 4, seed=1
    )
    found = validate.ensemble_ratio(run, other)
    assert found, str(found)
    assert found.temperatures.tolist() == [[1.0, 1.6], [1.2, 1.9], [1.5, 2.0]]
    # Replicas taken for others.
    swapped = validate.ensemble_ratio(run, temperature=[1.5, 1.2, 1.2, 1.0])
    assert not swapped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": (1.0, 1.0)}, "both runs are at T = 1"),
        ({"temperature": (1.0, -1.0)}, "values > 0"),
        ({"temperature": None}, "is an array: pass temperature"),
        ({"temperature": (1.0, 2.0), "sigma": 0}, "sigma=0"),
        ({"temperature": (1.0, 2.0, 3.0)}, "a pair"),
    ],
)
def test_ratio_refuses(settings, message):
    with pytest.raises(PotentialError, match=message):
        validate.ensemble_ratio(gamma_energies(1.0), gamma_energies(2.0), **settings)


def test_energies_that_do_not_overlap():
    cold, hot = gamma_energies(1.0, 200), gamma_energies(1.0, 200) + 1e3
    found = validate.ensemble_ratio(cold, hot, temperature=(1.0, 2.0))
    assert not found
    assert "do not overlap" in str(found)
    with pytest.raises(PotentialError, match="one temperature"):
        validate.ensemble_ratio(cold, temperature=1.0)


# --- averages against the step -----------------------------------------------------


@pytest.mark.physics
def test_bias_of_the_step_on_an_oscillator():
    """OBABO at h = 1: <U> is 4/3 of its limit; BAOAB has none; SGLD falls as dt."""
    potential = potentials.Harmonic(size=500)
    exact = 250.0
    hot = validate.step_size_convergence(
        integrators.OBABO, potential, dt=0.8, halvings=3
    )
    assert not hot
    assert abs(hot.value[0] - exact / (1 - 0.16)) < 5 * hot.stderr[0]
    assert abs(hot.limit - exact) < 0.01 * exact
    fine = validate.step_size_convergence(integrators.BAOAB, potential, dt=0.8)
    assert fine, str(fine)
    assert abs(fine.limit - exact) < 5 * fine.limit_error
    sgld = validate.step_size_convergence(integrators.SGLD, potential, dt=0.3)
    assert not sgld
    assert sgld.power == 1
    # <q^2> = 1/(1 - dt/2): the expansion's next term is left over.
    assert abs(sgld.limit - exact) < 0.02 * exact


@pytest.mark.physics
@pytest.mark.slow
@pytest.mark.parametrize("name", POTENTIALS)
def test_small_steps_are_small_enough(name):
    settings = {"time": 100.0, "replicas": 32}
    found = validate.step_size_convergence(
        integrators.BAOAB, POTENTIALS[name](), dt=0.1, **settings
    )
    assert found, str(found)


def test_observables_of_ones_own_and_powers():
    def square(q):
        return (q**2).mean(axis=1)

    potential = potentials.Harmonic(size=100)
    found = validate.step_size_convergence(
        integrators.OABAO, potential, square, dt=1.2, time=400.0
    )
    assert not found
    assert found.bias == pytest.approx(-0.36, abs=0.03)  # -h^2 k/4
    with pytest.raises(SchemeError, match="one value a replica"):
        validate.step_size_convergence(
            integrators.BAOAB, potential, lambda q: q, dt=0.5, time=10.0
        )
    with pytest.raises(SchemeError, match="observable='energy'"):
        validate.step_size_convergence(
            integrators.BAOAB, potential, "energy", dt=0.5, time=10.0
        )
    with pytest.raises(SchemeError, match="halvings=1"):
        validate.step_size_convergence(integrators.BAOAB, potential, halvings=1)


@pytest.mark.parametrize(
    ("make", "power"),
    [
        (integrators.BAOAB, 2),
        (integrators.BAOA, 2),
        (integrators.BAO, 1),
        (integrators.SGLD, 1),
        (integrators.SGD, 0.5),
    ],
)
def test_weak_orders(make, power):
    from mdnet.validate.steps import weak_order

    assert weak_order(make(dt=0.1)) == power
