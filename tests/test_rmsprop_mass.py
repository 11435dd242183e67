"""Masses measured from forces: their size, their effect, the law they leave alone.

Statistical checks compare means over 400 independent replicas with exact ones, each
within 6 standard errors: a false alarm in 2e-9 of them.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.errors import SchemeError

STIFFNESS = np.geomspace(1, 1e4, 9)


def oscillators():
    return potentials.Harmonic(stiffness=STIFFNESS)


@pytest.mark.parametrize("T", [0.25, 1.0, 4.0])
def test_masses_are_roots_of_stiffness(T):
    """<F^2> = k T: masses go with the root of k, whatever T is."""
    U = oscillators()
    q = U.sample(20_000, temperature=T, seed=1)
    mass = integrators.rmsprop_mass(U, q, damping=0.0)
    exact = np.sqrt(STIFFNESS) / np.exp(0.5 * np.log(STIFFNESS).mean())
    # sqrt(mean of n squares of a normal) has a relative spread of 1/sqrt(2 n).
    np.testing.assert_allclose(mass, exact, rtol=6 / np.sqrt(2 * len(q)))
    assert np.log(mass).mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.physics
@pytest.mark.parametrize("T", [0.25, 1.0, 4.0])
def test_the_law_stays_and_comes_sooner(T):
    """Frequencies are k^(1/4) instead of k^(1/2): soft weights relax in fewer steps."""
    U = oscillators()
    mass = integrators.rmsprop_mass(U, U.sample(4000, T, seed=1), damping=0.0)
    found = {}
    for name, m in (("equal", 1.0), ("matched", mass)):
        fastest = np.sqrt((STIFFNESS / m).max())
        slowest = np.sqrt((STIFFNESS / m).min())
        baoab = integrators.BAOAB(1.2 / fastest, T, friction=slowest, mass=m)
        start = np.zeros((400, U.size))
        sim = mdnet.Simulation(
            U, baoab, 400, positions=start, seed=2, backend="cpu", precision="double"
        )
        sim.run(70, progress=False)
        found[name] = sim.state.positions**2
    error = found["matched"].std(axis=0) / 20
    z = (found["matched"].mean(axis=0) - T / STIFFNESS) / error
    assert np.abs(z).max() < 6
    # Control: at equal masses the softest weight has hardly left its start.
    z = (found["equal"].mean(axis=0) - T / STIFFNESS) * 20 / found["equal"].std(axis=0)
    assert z[0] < -6


def test_tensors_share_a_mass_and_noise_counts():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 4)), rng.integers(0, 3, 200)
    U = potentials.Posterior(potentials.MLP([4, 6, 3]), data=(X, y))
    q = U.initial(5)
    mass = integrators.rmsprop_mass(U, q, by="tensor")
    for where, _ in U.layout.values():
        assert np.ptp(mass[where]) == 0
    assert len(np.unique(mass)) == len(U.layout)
    # Noise adds to every mean square; a common factor drops out of the masses.
    batches = U.minibatch(10)
    noisy = integrators.rmsprop_mass(batches, q, calls=50)
    assert not np.allclose(noisy, integrators.rmsprop_mass(U, q), rtol=0.01)
    np.testing.assert_array_equal(
        noisy, integrators.rmsprop_mass(batches, q, calls=50, seed=0)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positions": np.zeros(9)}, "positions has shape"),
        ({"calls": 0}, "calls=0"),
        ({"damping": -1.0}, "damping=-1.0"),
        ({"by": "layer"}, "by='layer'"),
        ({"positions": np.zeros((2, 9)), "damping": 0.0}, "weight 0"),
    ],
)
def test_refuses(settings, message):
    U = oscillators()
    settings = {"positions": U.sample(5, 1.0, seed=0)} | settings
    with pytest.raises(SchemeError, match=message):
        integrators.rmsprop_mass(U, settings.pop("positions"), **settings)
