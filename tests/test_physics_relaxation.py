"""Relaxation of ensembles: the simulated divergence against exact curves.

Walkers are replicas or, in one dimension, the parameters of one.  Bounds are 5
bootstrap standard errors of the estimate plus the known error of the step, so that a
fresh seed raises a false alarm with probability below 1e-5 a curve.
"""

import numpy as np
import pytest

import mdnet
from mdnet import analysis, integrators, potentials
from mdnet.reporters import Memory


def relax(potential, integrator, start, times, seed=0):
    """Positions (times, R, d) of walkers that start from (R, d), times in steps."""
    sim = mdnet.Simulation(
        potential,
        integrator,
        replicas=len(start),
        positions=start,
        seed=seed,
        backend="cpu",
    )
    memory = Memory(mdnet.triggers.at(*times))
    sim.run(max(times), reporters=[memory])
    return memory.positions


def relax_line(make, integrator, start, times):
    """The same in one dimension, (R, 1): parameters are walkers."""
    return relax(make(size=len(start)), integrator, start.T, times).swapaxes(1, 2)


@pytest.mark.physics
def test_ornstein_uhlenbeck():
    """SGLD from a displaced and narrow Gaussian in three springs of their own."""
    k, T, h = np.array([1.0, 2.0, 4.0]), 0.5, 2e-3
    mean0, variance0 = np.array([1.0, -0.5, 0.8]), np.array([0.3, 0.02, 0.1])
    rng = np.random.default_rng(4)
    start = mean0 + np.sqrt(variance0) * rng.normal(size=(8000, 3))
    steps = np.array([0, 50, 100, 200, 400, 700])
    U = potentials.Harmonic(stiffness=k)
    frames = relax(U, integrators.SGLD(h, T), start, steps)
    found = analysis.kl_relaxation(
        frames, (U.mean(T), U.covariance(T)), method="gaussian", times=steps * h
    )
    exact = analysis.ornstein_uhlenbeck_kl(steps * h, k, T, mean0, variance0)
    # The step shifts rates and widths by h k/2 < 0.4%, twice that in what decays.
    allowed = 5 * found.stderr + 0.01 * exact
    assert (np.abs(found.value - exact) < allowed).all()
    assert exact[0] > 4 > 0.1 > exact[-1]
    # Negative controls: half the noise (root of T dt), and friction twice as strong.
    for wrong in (integrators.SGLD(h, T / 2), integrators.SGLD(2 * h, T)):
        other = analysis.kl_relaxation(
            relax(U, wrong, start, steps),
            (U.mean(T), U.covariance(T)),
            method="gaussian",
            times=steps * h,
        )
        assert (np.abs(other.value - exact) > allowed).sum() >= 4


DOUBLE_WELL = {
    0.05: 0.7966, 0.5: 0.6319, 1.0: 0.5225, 2.0: 0.3692, 4.0: 0.2004, 8.0: 0.0650,
}  # fmt: skip


def double_well_kl(frames, T, times):
    U = potentials.DoubleWell()
    return analysis.kl_relaxation(
        frames,
        lambda x: -U.energy(x[:, None]) / T,
        method="marginal",
        domain=(-2.5, 2.5),
        times=times,
    )


@pytest.mark.physics
@pytest.mark.slow
def test_double_well():
    """U = (x^2 - 1)^2 at T = .4 from N(-1, .15^2): the crossing of a barrier."""
    T, h, walkers = 0.4, 2.5e-3, 60_000
    times = np.array(list(DOUBLE_WELL))
    known = analysis.fokker_planck_kl(
        lambda x: (x**2 - 1) ** 2, T, -1.0, 0.15**2, times
    )
    np.testing.assert_allclose(known, list(DOUBLE_WELL.values()), atol=2e-4)
    start = -1 + 0.15 * np.random.default_rng(6).normal(size=(walkers, 1))
    steps = np.round(times / h).astype(int)
    frames = relax_line(potentials.DoubleWell, integrators.SGLD(h, T), start, steps)
    found = double_well_kl(frames, T, times)
    # Bins see a lower bound, by half a percent here; the step costs as much.
    allowed = 5 * found.stderr + 0.01 * known
    assert (np.abs(found.value - known) < allowed).all()
    # The late slope is twice the smallest rate of the Fokker-Planck operator.
    slope = -np.log(found.value[-1] / found.value[-2]) / (times[-1] - times[-2])
    assert slope == pytest.approx(0.2808, abs=0.015)
    # Negative control: a bath 10% too hot crosses too early.
    hot = relax_line(potentials.DoubleWell, integrators.SGLD(h, 1.1 * T), start, steps)
    assert (np.abs(double_well_kl(hot, T, times).value - known) > allowed).sum() >= 4


@pytest.mark.physics
def test_divergence_of_overdamped_ensembles_only_falls():
    """The H-theorem, within errors; the weights of an underdamped run may rise."""
    T, reference = 1.0, (0.0, 1.0)
    start = 2.0 + 0.5 * np.random.default_rng(7).normal(size=(4000, 1))
    steps = np.arange(0, 121, 6)
    slow = relax_line(potentials.Harmonic, integrators.SGLD(0.02, T), start, steps)
    value = analysis.kl_relaxation(slow, reference, method="gaussian")
    rise = np.diff(value.value) - 5 * np.hypot(value.stderr[1:], value.stderr[:-1])
    assert (rise < 0).all()
    light = integrators.BAOAB(0.1, T, friction=0.1)
    swing = relax_line(potentials.Harmonic, light, start, steps)
    value = analysis.kl_relaxation(swing, reference, method="gaussian")
    rise = np.diff(value.value) - 5 * np.hypot(value.stderr[1:], value.stderr[:-1])
    assert (rise > 0).any()
