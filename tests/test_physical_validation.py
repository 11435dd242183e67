"""Runs written to file, read back, and judged by the package physical_validation.

Its tests know nothing of this library: the law of the kinetic energies (their mean
and width in standard errors; Kolmogorov-Smirnov) and the ratio of the densities of
potential energies at two temperatures.  Thirty-six thousand independent records a run
show a bath that is 1 % off.  Limits of five standard errors and p > 1e-6 raise a false
alarm in 1e-6 of the comparisons each, some 3e-5 for this file.

References
----------
P. T. Merz, M. R. Shirts, PLoS ONE 13, e0202764 (2018),
doi:10.1371/journal.pone.0202764.
"""

import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials

validation = pytest.importorskip("physical_validation")

LIMIT = 5.0
SIZE, REPLICAS, RECORDS, EVERY = 60, 120, 300, 25
COLD, HOT = 1.0, 1.15

METHODS = {
    "BAOAB": lambda T: integrators.BAOAB(0.2, T),
    "OBABO": lambda T: integrators.OBABO(0.05, T, friction=2.0),
    "Nose-Hoover chains": lambda T: integrators.NoseHoover(
        0.1, T, relaxation_time=0.7, groups="parameter"
    ),
    "velocity rescaling": lambda T: integrators.StochasticVelocityRescaling(
        0.1, T, relaxation_time=0.3
    ),
    "BADODAB": lambda T: integrators.SGNHT(0.1, T),
}


def potential():
    """Oscillators, two of each stiffness, in springs from one to the next."""
    chain = 2 * np.eye(SIZE) - np.eye(SIZE, k=1) - np.eye(SIZE, k=-1)
    hessian = np.diag(np.linspace(0.5, 1.0, SIZE)) + 0.3 * chain
    root = np.linalg.cholesky(hessian - 1e-3 * np.eye(SIZE)).T
    return potentials.LinearRegression(
        root, np.zeros(SIZE), noise=1.0, prior_scale=1e-3**-0.5
    )


def written(path, make, T, seed):
    """A run of this library at temperature T, read back from its file."""
    U = potential()
    start = np.random.default_rng(seed).normal(size=(REPLICAS, SIZE)) * np.sqrt(T)
    start = start @ np.linalg.cholesky(U.covariance()).T
    sim = mdnet.Simulation(
        U, make(T), REPLICAS, start, seed=seed, backend="cpu", precision="double"
    )
    sim.run(20 * EVERY)
    sim.run(
        RECORDS * EVERY,
        trajectory=path,
        every=RECORDS * EVERY,
        observables_every=EVERY,
        thermometers=False,
        store=(),
    )
    return mdnet.open(path)


def simulation_data(run, T):
    """What the package judges: a system of SIZE degrees of freedom at T, k_B = 1."""
    first = run["kinetic_temperature"].value[1:]
    atoms = SIZE // 3
    data = validation.data
    return data.SimulationData(
        units=data.UnitData(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        ensemble=data.EnsembleData("NVT", natoms=atoms, volume=1.0, temperature=T),
        system=data.SystemData(
            natoms=atoms, nconstraints=0, ndof_reduction_tra=0, ndof_reduction_rot=0
        ),
        observables=data.ObservableData(
            kinetic_energy=(0.5 * SIZE * first).ravel(),
            potential_energy=run["potential_energy"].value[1:].ravel(),
        ),
    )


def kinetic(data):
    """Deviations of mean and width in standard errors, and the p value."""
    settings = {"verbosity": 0, "data_is_uncorrelated": True}
    mean, width = validation.kinetic_energy.distribution(
        data, strict=False, bs_repetitions=100, bootstrap_seed=1, **settings
    )
    p = validation.kinetic_energy.distribution(data, strict=True, **settings)
    return mean, width, p


def ratio(cold, hot):
    """Deviation of the slope of the densities' ratio, in standard errors."""
    found = validation.ensemble.check(cold, hot, verbosity=0, data_is_uncorrelated=True)
    return abs(found[0])


@pytest.mark.slow
@pytest.mark.physics
@pytest.mark.parametrize("method", METHODS)
def test_accepted_as_canonical(method, tmp_path):
    make = METHODS[method]
    runs = [
        written(tmp_path / f"{i}.h5md", make, T, 10 + i)
        for i, T in enumerate((COLD, HOT))
    ]
    cold, hot = (
        simulation_data(run, T) for run, T in zip(runs, (COLD, HOT), strict=True)
    )
    for data in (cold, hot):
        mean, width, p = kinetic(data)
        assert abs(mean) < LIMIT
        assert abs(width) < LIMIT
        assert p > 1e-6
    assert ratio(cold, hot) < LIMIT
    # Negative control: the same records, told that the cold bath is 1 % colder.
    told = simulation_data(runs[0], COLD / 1.01)
    mean, _, p = kinetic(told)
    assert abs(mean) > LIMIT
    assert p < 1e-6
    assert ratio(told, hot) > LIMIT


@pytest.mark.slow
@pytest.mark.physics
def test_a_bath_one_per_cent_too_hot_is_refused(tmp_path):
    hotter = written(
        tmp_path / "hotter.h5md", lambda T: METHODS["BAOAB"](1.01 * T), COLD, 3
    )
    mean, _, p = kinetic(simulation_data(hotter, COLD))
    assert abs(mean) > LIMIT
    assert p < 1e-6


@pytest.mark.slow
@pytest.mark.physics
def test_constant_energy_is_refused(tmp_path):
    """Right on average, with kinetic energies that vary half as much."""
    run = written(
        tmp_path / "closed.h5md",
        lambda T: integrators.VelocityVerlet(0.1, temperature=T),
        COLD,
        4,
    )
    one = run["kinetic_temperature"].value[1:]
    assert one.std(0).mean() < 0.9 * np.sqrt(2 / SIZE)
    series = simulation_data(run, COLD)
    values = (one - one.mean(0) + COLD).ravel()  # as one system of that energy
    series.observables.kinetic_energy = 0.5 * SIZE * values
    _, width, p = kinetic(series)
    assert abs(width) > LIMIT
    assert p < 1e-6
