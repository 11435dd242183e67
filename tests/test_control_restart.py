"""What control variates keep is in the restart: a resumed run is the same run."""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials

from .test_control_variates import KINDS, classifier

WORDS = {
    "BAOAB": integrators.BAOAB(dt=0.01, temperature=1.0, friction=5.0),
    "ABOBA": integrators.Splitting("ABOBA", dt=0.01, temperature=1.0, friction=5.0),
    "chain": integrators.NoseHoover(dt=0.01, temperature=1.0, relaxation_time=0.5),
}


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s["control_variate"])
@pytest.mark.parametrize("word", WORDS)
def test_a_resumed_run_is_the_same_run(settings, word, tmp_path):
    U = classifier()
    settings = {"order": "replacement", **settings}

    def simulation():
        Ub = U.minibatch(20, **settings)
        return mdnet.Simulation(Ub, WORDS[word], replicas=3, seed=4, backend="cpu")

    whole, first = simulation(), simulation()
    whole.run(53)
    first.run(25, trajectory=tmp_path / "a.h5md", every=5)
    second = mdnet.Simulation.resume(tmp_path / "a.h5md", U.minibatch(20, **settings))
    second.run(28)
    for name in ("positions", "momenta", "forces"):
        a, b = (getattr(sim.state, name) for sim in (whole, second))
        np.testing.assert_array_equal(a, b)
    # Negative control: the same positions without what was kept.
    kept = second._evaluator.variables
    assert bool(kept) == (settings["control_variate"] != "fixed")
    assert set(kept) <= set(second.state.variables)


def test_composed_control_variates_resume_too(tmp_path):
    """Sums, multiples and paths hand through what their parts remember."""
    U = classifier()

    def potential():
        Ub = U.minibatch(20, order="replacement", control_variate="svrg", refresh=7)
        flat = potentials.Harmonic(stiffness=np.full(U.size, 0.5))
        return potentials.interpolate(0.5 * Ub + flat, Ub).at(0.3)

    def simulation():
        return mdnet.Simulation(
            potential(), WORDS["BAOAB"], replicas=2, seed=4, backend="cpu"
        )

    whole, first = simulation(), simulation()
    whole.run(40)
    first.run(25, trajectory=tmp_path / "a.h5md", every=5)
    second = mdnet.Simulation.resume(tmp_path / "a.h5md", potential())
    second.run(15)
    np.testing.assert_array_equal(whole.state.positions, second.state.positions)
    names = set(second.state.variables)
    assert "part0_part0_control_anchor" in names
    assert "part1_control_anchor" in names
