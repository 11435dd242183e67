"""Checks of dynamics in `mdnet.validate`: right integrators pass, wrong ones do not.

Every bound is on a deterministic number; `test_validate_ensembles` has the others.
"""

import math

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, validate
from mdnet.errors import MdnetError, PotentialError, SchemeError
from mdnet.integrators.companion import CALL, Companion

from .validate_tools import POTENTIALS, chain, network

WORDS = ["VelocityVerlet", "PositionVerlet", "Yoshida4", "Omelyan4"]


def suzuki_in_yoshidas_place(dt):
    """Five-stage weights in three stages: shares that add up, of second order."""
    w = 1 / (4 - 4 ** (1 / 3))
    u = 1 - 2 * w
    table = [("B", w / 2), ("A", w), ("B", (w + u) / 2), ("A", u)]
    table += [("B", (w + u) / 2), ("A", w), ("B", w / 2)]
    return integrators.Splitting(table, dt, 1.0, 0.0)


def euler(dt):
    """Kick before drift: symplectic, of first order, not reversible."""
    return integrators.Splitting("BA", dt, 1.0, 0.0)


# --- order -------------------------------------------------------------------------


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("measure", ["energy", "end"])
def test_order_of_the_words(name, word, measure):
    make = getattr(integrators, word)
    found = validate.order(make, POTENTIALS[name](), measure=measure)
    assert found, str(found)
    assert found.expected == (2 if "Verlet" in word else 4)


@pytest.mark.parametrize("measure", ["energy", "end"])
@pytest.mark.parametrize("name", POTENTIALS)
def test_order_of_wrong_weights_is_refused(name, measure):
    potential = POTENTIALS[name]()
    wrong = validate.order(suzuki_in_yoshidas_place, potential, 4, measure=measure)
    assert not wrong
    assert wrong.order < 2.5
    assert "FAILS" in str(wrong)
    assert not validate.order(euler, potential, 2, measure=measure)
    assert validate.order(euler, potential, 1, measure=measure)


def test_order_with_friction_and_without_noise():
    """At T = 0 the baths only damp: the path has an order, and ends elsewhere."""

    def damped(dt):
        return integrators.OBABO(dt, temperature=0.0, friction=1.0)

    def gla(dt):
        return integrators.BAO(dt, temperature=0.0, friction=1.0)

    assert validate.order(damped, chain(), measure="end").expected == 2
    assert validate.order(damped, chain(), measure="end")
    assert not validate.order(gla, chain(), 2, measure="end")
    descent = validate.order(integrators.SGD, chain(), 1, measure="end")
    assert descent, str(descent)


def test_kinks_lower_every_order():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    net = potentials.MLP([3, 16, 2], activation="relu")
    relu = potentials.Posterior(net, data=(X, (X[:, 0] > 0).astype(int)))
    found = validate.order(integrators.Omelyan4, relu, measure="end", replicas=32)
    assert not found
    assert 0.7 < found.order < 1.3


def test_order_takes_steps_and_a_start():
    found = validate.order(
        integrators.VelocityVerlet,
        chain(),
        dt=[0.2, 0.1, 0.05],
        time=2.0,
        positions=np.ones(6),
        replicas=3,
    )
    assert found
    assert found.dt.tolist() == [0.2, 0.1, 0.05]
    assert found.error.shape == (3,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measure": "time"}, "measure='time'"),
        ({"dt": [0.1, 0.2]}, "three and more"),
        ({"dt": -0.1}, r"dt=-0\.1"),
        ({"time": 0}, "time=0"),
        ({"make": integrators.BAOAB}, "draws noise"),
        ({"make": integrators.VelocityVerlet(0.1)}, "a function dt -> integrator"),
    ],
)
def test_order_refuses(settings, message):
    make = settings.pop("make", integrators.VelocityVerlet)
    with pytest.raises(MdnetError, match=message):
        validate.order(make, chain(), **settings)


def test_order_of_a_minibatch_is_refused():
    with pytest.raises(SchemeError, match="minibatch"):
        validate.order(integrators.VelocityVerlet, network().minibatch(5))


def test_errors_at_rounding_have_no_order():
    found = validate.order(
        integrators.Omelyan4, potentials.Harmonic(size=2), dt=1e-4, time=1e-3
    )
    assert not found
    assert math.isnan(found.order)
    assert "rounding" in str(found)


# --- the step as a map -------------------------------------------------------------


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("word", WORDS)
def test_reversible_words(name, word):
    make = getattr(integrators, word)
    for precision in ("double", "single"):
        found = validate.reversibility(
            make(dt=0.05), POTENTIALS[name](), precision=precision
        )
        assert found, str(found)
    assert found.deviation > 1e-9  # single precision is not double


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize(
    "make",
    [euler, integrators.BAOAB, lambda dt: integrators.OBABO(dt, 1.0, friction=1e-5)],
)
def test_irreversible_words_are_refused(name, make):
    for precision in ("double", "single"):
        found = validate.reversibility(
            make(0.05), POTENTIALS[name](), precision=precision
        )
        assert not found, str(found)


def test_a_path_that_goes_nowhere_is_refused():
    word = integrators.VelocityVerlet(dt=0.1, temperature=0.0)
    found = validate.reversibility(
        word, potentials.Harmonic(size=2), positions=np.zeros(2)
    )
    assert not found
    assert "nothing moved" in str(found)


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("word", WORDS)
def test_symplectic_words(name, word):
    """J' S J = S to 1e-10 (D = 3 to 26)."""
    make = getattr(integrators, word)
    found = validate.symplecticity(make(dt=0.05), POTENTIALS[name](), 2)
    assert found, str(found)
    assert found.residual < 1e-10
    assert abs(found.log_determinant) < 1e-10


@pytest.mark.parametrize("name", POTENTIALS)
def test_baths_contract_phase_space(name):
    """Not symplectic, but log det J = -friction h D a step, noise or not."""
    potential = POTENTIALS[name]()
    exact = -0.7 * 0.05 * potential.size * 2
    for temperature in (0.0, 1.0):
        word = integrators.BAOAB(dt=0.05, temperature=temperature, friction=0.7)
        assert not validate.symplecticity(word, potential, 2)
        found = validate.symplecticity(word, potential, 2, log_determinant=exact)
        assert found, str(found)
        assert found.log_determinant == pytest.approx(exact, abs=1e-10)
        wrong = validate.symplecticity(
            word, potential, 2, log_determinant=exact * (1 + 1e-6)
        )
        assert not wrong


def test_kinks_make_no_jacobian():
    word = integrators.VelocityVerlet(dt=0.3)
    found = validate.symplecticity(word, network("relu"), 4, width=0.5, seed=3)
    assert not found
    assert "kinks" in str(found)


def test_maps_refuse():
    word = integrators.VelocityVerlet(dt=0.1)
    with pytest.raises(PotentialError, match="at most 64"):
        validate.symplecticity(word, potentials.Harmonic(size=65))
    with pytest.raises(PotentialError, match="width=0"):
        validate.symplecticity(word, chain(), width=0)
    with pytest.raises(PotentialError, match="steps=0"):
        validate.reversibility(word, chain(), 0)


# --- conserved energy --------------------------------------------------------------


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("word", ["VelocityVerlet", "Omelyan4", "BAOAB", "OBABO"])
def test_energies_are_conserved(name, word):
    integrator = getattr(integrators, word)(dt=0.05)
    found = validate.conserved(integrator, POTENTIALS[name](), steps=200)
    assert found, str(found)
    assert (np.diff(found.fluctuation) < 0).all()


def swirling():
    """A gradient that is none: a little rotation pumps energy in."""

    def gradient(q):
        return q + 0.02 * np.stack([q[:, 1], -q[:, 0]], axis=1)

    return potentials.Custom(
        size=2, energy=lambda q: 0.5 * (q**2).sum(axis=1), gradient=gradient
    )


def test_energies_that_drift_are_refused():
    start = [2.0, 0.0]
    found = validate.conserved(
        integrators.VelocityVerlet(dt=0.1, temperature=1e-3),
        swirling(),
        400,
        positions=start,
    )
    assert not found
    assert "the energy drifts" in str(found)
    # A minibatch conserves nothing, and a wrong order is seen.
    verlet = integrators.VelocityVerlet(dt=0.05)
    noisy = network().minibatch(5, order="replacement")
    assert not validate.conserved(verlet, noisy, 200)
    assert not validate.conserved(
        suzuki_in_yoshidas_place(0.1), chain(), 200, expected=4
    )


class Extended(integrators.Splitting):
    """Claims that twice the energy is conserved (and is right), or the position."""

    what = staticmethod(lambda state, energy: 2 * (energy + state.kinetic_energy))

    def conserved(self, state):
        return self.what(state, state.potential_energy())


class Mistaken(Extended):
    what = staticmethod(lambda state, energy: energy)


class Bare(Extended):
    """Negative control: the energy alone, of a word with a bath."""

    what = staticmethod(lambda state, energy: energy + state.kinetic_energy)


def test_an_integrators_own_conserved_energy_is_asked():
    plain = validate.conserved(integrators.VelocityVerlet(dt=0.1), chain(), 200)
    own = validate.conserved(Extended("BAB", 0.1, friction=0.0), chain(), 200)
    assert own
    np.testing.assert_allclose(own.fluctuation, 2 * plain.fluctuation, rtol=1e-12)
    assert not validate.conserved(Mistaken("BAB", 0.1, friction=0.0), chain(), 200)


@pytest.mark.parametrize("groups", ["all", "layer", "parameter"])
def test_thermostats_conserve_their_extended_energy(groups):
    """Second order in the step; the bare energy is not conserved at all."""
    word = integrators.NoseHoover(dt=0.1, relaxation_time=1.0, groups=groups)
    found = validate.conserved(word, chain(), 200)
    assert found, str(found)
    bare = validate.conserved(Bare("BAOAB", 0.1, friction=1.0), chain(), 200)
    assert not bare


def test_conserved_refuses():
    word = integrators.VelocityVerlet(dt=0.1)
    for settings, message in (
        ({"steps": 3}, "steps=3"),
        ({"halvings": 0}, "halvings=0"),
        ({"replicas": 1}, "replicas=1"),
    ):
        with pytest.raises(SchemeError, match=message):
            validate.conserved(word, chain(), **settings)
    ramp = integrators.VelocityVerlet(dt=mdnet.schedules.linear(0.1, 0.2, 5))
    with pytest.raises(SchemeError, match="dt is a number"):
        validate.conserved(ramp, chain())


# --- restart -----------------------------------------------------------------------


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("word", ["BAOAB", "Omelyan4"])
def test_restarts_are_exact(name, word):
    integrator = getattr(integrators, word)(dt=0.05)
    found = validate.restart(POTENTIALS[name](), integrator, 20)
    assert found, str(found)
    assert "momenta" in found.compared


def test_a_minibatch_restarts_exactly():
    assert validate.restart(network().minibatch(5), integrators.BAOAB(dt=0.05), 20)


def test_a_potential_with_a_memory_is_refused():
    """Forces that count their calls do not know where a run stopped."""
    calls = []

    def gradient(q):
        calls.append(1)
        return q * (1 + 0.1 * (len(calls) % 7))

    potential = potentials.Custom(
        size=3, energy=lambda q: 0.5 * (q**2).sum(axis=1), gradient=gradient
    )
    found = validate.restart(potential, integrators.BAOAB(dt=0.1), 20)
    assert not found
    assert found.differences["positions"] > 0
    assert "positions differs by" in str(found)


# --- integrators with variables of their own ----------------------------------------


class Friction(Companion):
    """p <- exp(-h xi) p, then xi += h (|p|^2 / D - 1): a bare Nosé-Hoover step."""

    def __init__(self, context):
        super().__init__(context)
        self.variables["xi"] = np.zeros((context.state.replicas, 1))

    def call(self, index, step):
        p, xi = self.context.state.momenta, self.variables["xi"]
        p *= np.exp(-0.1 * xi)
        xi += 0.1 * ((p**2).mean(axis=1, keepdims=True) - 1)


class Thermostat(integrators.Splitting):
    def operations(self):
        return (*super().operations(), (CALL, 0, 0))

    def bind(self, context):
        return Friction(context)


def test_variables_of_an_integrator_are_part_of_the_map():
    """log det J = -h D (xi_0 + xi_1 + xi_2) over three steps."""
    word, potential = Thermostat("BAB", 0.1, friction=0.0), chain(4)
    sim = mdnet.Simulation(potential, word, backend="cpu", precision="double")
    start = {
        "positions": sim.state.positions.copy(),
        "momenta": 2 * sim.state.momenta,
    }
    sim.set_momenta(start["momenta"])
    exact = 0.0
    for _ in range(3):
        exact -= 0.1 * 4 * float(sim.state.variables["xi"][0, 0])
        sim.run(1)
    found = validate.symplecticity(word, potential, 3, **start, log_determinant=exact)
    assert found, str(found)
    assert found.jacobian.shape == (9, 9)
    assert abs(exact) > 1e-2
    assert abs(found.log_determinant - exact) < 1e-8
    assert not validate.symplecticity(word, potential, 3, **start)
    assert not validate.reversibility(word, potential)  # not a palindrome
