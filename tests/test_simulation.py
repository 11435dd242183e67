"""The loop: what changes no bit, schedules, reporters, minimising, memory."""

import subprocess
import sys

import numba
import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials, schedules, triggers
from mdnet.reporters import Callback, Memory

from .physics_tools import Oscillator, z_scores


def data(n=90, width=5, classes=3):
    rng = np.random.default_rng(9)
    X = rng.normal(size=(n, width)).astype(np.float32)
    return X, (X @ rng.normal(size=(width, classes))).argmax(1)


def posterior():
    net = potentials.MLP([5, 7, 3], activation="tanh")
    return potentials.Posterior(net, data=data())


def regression():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 6))
    return potentials.LinearRegression(X, X @ rng.normal(size=6), noise=1.5)


ANALYTIC = {
    "harmonic": lambda: potentials.Harmonic(2.0, size=2500),
    "springs": lambda: potentials.Harmonic(np.linspace(0.5, 2, 1500)),
    "double well": lambda: potentials.DoubleWell(size=2500),
    "rosenbrock": lambda: potentials.Rosenbrock(size=4),
    "regression": regression,
    "minibatch regression": lambda: regression().minibatch(5),
    "sum": lambda: potentials.DoubleWell(size=40) + potentials.Harmonic(size=40),
}
NETWORKS = {
    "network": posterior,
    "minibatch network": lambda: posterior().minibatch(16),
    "sampled network": lambda: posterior().minibatch(16, order="replacement"),
}
EVERY = ANALYTIC | NETWORKS
WORDS = {
    "BAOAB": lambda dt=0.01, T=1.0: integrators.BAOAB(dt, T),
    "OBABO": lambda dt=0.01, T=1.0: integrators.OBABO(dt, T),
    "ABOBA": lambda dt=0.01, T=1.0: integrators.ABOBA(dt, T),
    "SGLD": lambda dt=0.001, T=1.0: integrators.SGLD(dt, T),
    "Omelyan4": lambda dt=0.01, T=1.0: integrators.Omelyan4(dt, T),
}


def simulate(potential, integrator=None, replicas=2, seed=11, precision="single", **kw):
    return mdnet.Simulation(
        potential,
        integrator or integrators.BAOAB(dt=0.01),
        replicas=replicas,
        seed=seed,
        backend="cpu",
        precision=precision,
        **kw,
    )


def bits(sim, replicas=slice(None)):
    s = sim.state
    return [
        s.positions[replicas].copy(),
        s.momenta[replicas].copy(),
        s.heat[replicas].copy(),
        s.kick_work[replicas].copy(),
    ]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def same_path(a, b):
    """Positions and momenta bit for bit; the ledger to the order of its sums."""
    for x, y in zip(a[2:], b[2:], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-10)
    return same(a[:2], b[:2])


# --- what changes no bit ----------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("word", WORDS)
def test_a_replica_does_not_see_its_neighbours(name, word):
    potential = EVERY[name]()
    start = potential.initial(3, seed=11)
    alone, together = [
        simulate(potential, WORDS[word](), r, positions=start[:r]) for r in (1, 3)
    ]
    alone.run(20)
    together.run(20)
    assert same(bits(alone), bits(together, slice(0, 1)))
    # Negative control: its neighbours do move elsewhere.
    assert np.abs(together.state.positions[1] - together.state.positions[0]).max() > 0


@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
def test_a_replica_does_not_see_its_neighbours_in_any_precision(precision):
    for name in ("double well", "minibatch network"):
        potential = EVERY[name]()
        alone = simulate(potential, replicas=1, precision=precision)
        together = simulate(potential, replicas=4, precision=precision)
        assert np.array_equal(
            alone.state.positions[0], together.state.positions[0]
        )  # the starts are counters too
        alone.run(15)
        together.run(15)
        assert same(bits(alone), bits(together, slice(0, 1)))


@pytest.mark.parametrize("name", EVERY)
def test_threads_change_no_bit(name, monkeypatch):
    if numba.config.NUMBA_NUM_THREADS < 4:
        pytest.skip(f"this process has {numba.config.NUMBA_NUM_THREADS} Numba threads")
    found = []
    for threads in (1, 2, 4):
        numba.set_num_threads(threads)
        if threads > 1:  # share however little work
            monkeypatch.setattr("mdnet.kernels.cpu_steps.Steps.SMALL", 0)
            monkeypatch.setattr("mdnet.kernels.rows.SMALL", 0)
        sim = simulate(EVERY[name](), replicas=3)
        sim.run(12)
        found.append(bits(sim))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("word", WORDS)
def test_looking_changes_no_bit(name, word):
    potential = EVERY[name]()
    quiet, watched = [simulate(potential, WORDS[word]()) for _ in range(2)]
    quiet.run(0, reporters=[Memory(1)])  # both ledgers begin here
    memory = Memory(triggers.log_spaced(4), thermometers=True)
    quiet.run(23)
    forces = Callback(lambda s: s.arrays(("forces",)), 7)
    watched.run(23, reporters=[memory, forces])
    assert same_path(bits(quiet), bits(watched))
    assert len(memory) == sum(map(triggers.log_spaced(4), range(24)))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("word", WORDS)
def test_two_runs_are_one(name, word):
    potential = EVERY[name]()
    once, twice = [simulate(potential, WORDS[word]()) for _ in range(2)]
    once.run(10)
    for steps in (5, 0, 1, 4):
        twice.run(steps)
    assert same_path(bits(once), bits(twice))
    assert once.state.step == twice.state.step == 10
    assert once.time == twice.time


def test_seeds_differ_and_repeat():
    potential = posterior().minibatch(16)

    def run(seed):
        sim = simulate(potential, seed=seed, positions=np.zeros(potential.size))
        sim.run(10)
        return bits(sim)

    assert same(run(1), run(1))
    assert not same(run(1), run(2))
    assert not same(run(2**63), run(0))


def test_replicas_draw_independent_numbers():
    """Correlation of two replicas' moves: 5 sd of 1/sqrt(n), a false alarm in 1e-6."""
    potential = potentials.Harmonic(size=20_000)
    sim = simulate(potential, positions=np.zeros(potential.size), replicas=3)
    sim.run(100)
    x = sim.state.positions
    limit = 5 / np.sqrt(potential.size)
    rows = np.corrcoef(x) - np.eye(3)
    assert np.abs(rows).max() < limit
    assert abs(np.corrcoef(x[0, 1:], x[0, :-1])[0, 1]) < limit


# --- per-replica parameters, schedules, masses ------------------------------------


def test_replicas_have_their_own_step_and_temperature():
    potential = potentials.DoubleWell(size=1500)
    dt, T = np.array([0.01, 0.02, 0.03]), np.array([0.5, 1.0, 0.0])
    start = potential.initial(3)
    sim = simulate(potential, integrators.BAOAB(dt, T), 3, positions=start)
    sim.run(17)
    alone = simulate(potential, integrators.BAOAB(dt[0], T[0]), 1, positions=start[:1])
    alone.run(17)
    assert same(bits(alone), bits(sim, slice(0, 1)))
    np.testing.assert_allclose(sim.state.time, 17 * dt)
    np.testing.assert_array_equal(sim.scalars()["target_temperature"], T)


@pytest.mark.parametrize("name", ["double well", "minibatch network"])
def test_constant_schedules_are_constants(name):
    potential = EVERY[name]()
    plain = simulate(potential, integrators.OBABO(0.01, 0.7, 2.0))
    same_thing = simulate(
        potential,
        integrators.OBABO(
            schedules.constant(0.01),
            schedules.piecewise((9,), (0.7, 0.7)),
            schedules.constant(2.0),
        ),
    )
    for sim in (plain, same_thing):
        sim.run(30, reporters=[Memory(8)])
    assert same(bits(plain), bits(same_thing))
    assert plain.time == pytest.approx(same_thing.time, rel=1e-12)


@pytest.mark.parametrize("name", ["double well", "minibatch network"])
def test_a_schedule_is_a_sequence_of_runs(name):
    """Piecewise temperature and step: the same bits as changing the integrator."""
    potential = EVERY[name]()
    scheduled = simulate(
        potential,
        integrators.BAOAB(
            schedules.piecewise((10,), (0.02, 0.01)),
            schedules.piecewise((10,), (2.0, 0.5)),
        ),
    )
    scheduled.run(25)
    first = simulate(potential, integrators.BAOAB(0.02, 2.0))
    first.run(10)
    second = simulate(
        potential,
        integrators.BAOAB(0.01, 0.5),
        positions=first.state.positions,
        momenta=first.state.momenta,
    )
    second.state.step = 10  # the counters of noise and batches go on
    second.run(15)
    assert np.array_equal(scheduled.state.positions, second.state.positions)
    assert np.array_equal(scheduled.state.momenta, second.state.momenta)
    assert scheduled.time == pytest.approx(10 * 0.02 + 15 * 0.01, rel=1e-12)


@pytest.mark.physics
def test_a_scheduled_temperature_arrives():
    """Within 5 sd, sqrt(2/n) of the temperature."""
    size = 20_000
    ramp = schedules.linear(4.0, 1.0, 100)
    sim = simulate(
        potentials.Harmonic(size=size), integrators.BAOAB(0.3, ramp), replicas=1
    )
    sim.run(400)
    s = sim.scalars()
    assert s["target_temperature"][0] == 1.0
    for found in (s["kinetic_temperature"][0], 2 * s["potential_energy"][0] / size):
        assert abs(found - 1.0) < 5 * np.sqrt(2 / size)


@pytest.mark.physics
@pytest.mark.parametrize("word", ["BAOAB", "VelocityVerlet", "SGLD"])
def test_first_momenta_have_the_target_temperature(word):
    """Whatever T and the masses; 5 sd each."""
    T, size = np.array([0.25, 1.0, 9.0]), 10_000
    mass = np.where(np.arange(size) % 2, 0.5, 3.0)
    make = getattr(integrators, word)(dt=0.01, temperature=T, mass=mass)
    sim = simulate(potentials.Harmonic(size=size), make, 3)
    kinetic = sim.scalars()["kinetic_temperature"]
    assert (np.abs(kinetic / T - 1) < 5 * np.sqrt(2 / size)).all()
    squares = (sim.state.momenta[:, :2].astype(float)) ** 2
    assert squares.max() > 0
    heavy = (sim.state.momenta[:, mass == 3.0].astype(float) ** 2).mean(1)
    assert (np.abs(heavy / (3 * T) - 1) < 5 * np.sqrt(4 / size)).all()


def test_without_temperature_nothing_is_drawn():
    """A bath at T = 0 multiplies scratch by zero, which must not hold NaN."""
    for _ in range(20):
        freed = [np.full((n, 1024), np.nan, np.float32) for n in range(1, 9)]
        del freed
        sim = simulate(potentials.Harmonic(size=900), integrators.BAOAB(0.1, 0.0))
        assert (sim.state.momenta == 0).all()
        sim.run(50)
        assert np.isfinite(sim.state.positions).all()


@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
def test_types_follow_the_precision(precision):
    sim = simulate(posterior(), precision=precision)
    sim.run(3)
    state, force = mdnet.backend.PRECISIONS[precision]
    assert sim.state.positions.dtype == sim.state.momenta.dtype == state
    assert sim.state.forces.dtype == force
    assert all(v.dtype == np.float64 for v in sim.scalars().values())


def test_layer_kinetic_temperatures_add_up():
    sim = simulate(posterior(), integrators.OBABO(dt=0.01, temperature=2.0), 3)
    sim.run(40)
    s = sim.scalars()
    counts = np.array([p.stop - p.start for p, _ in sim.potential.layout.values()])
    total = (s["layer_kinetic_temperature"] * counts).sum(1) / counts.sum()
    np.testing.assert_allclose(total, s["kinetic_temperature"], rtol=1e-12)


# --- minimise, minibatches --------------------------------------------------------


@pytest.mark.parametrize("name", [*EVERY])
def test_minimise_lowers_the_energy(name):
    sim = simulate(EVERY[name](), replicas=3)
    energies = sim.minimize(steps=200)
    assert energies.shape[1] == 3
    assert energies.dtype == np.float64
    assert (energies[-1] < energies[0]).all()
    np.testing.assert_array_equal(energies[-1], sim.potential_energy())
    assert sim.state.step == 0
    assert np.abs(sim.state.momenta).max() > 0
    sim.run(5)


def test_minimise_finds_the_minimum():
    U = regression()
    sim = simulate(U, precision="double")
    sim.minimize(steps=3000, learning_rate=0.05)
    np.testing.assert_allclose(sim.state.positions, [U.mean()] * 2, atol=1e-3)


@pytest.mark.physics
@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_minibatch_forces_are_unbiased_in_a_simulation(order):
    """The mean of the forces of 4000 replicas is the full force: 5 sd a parameter."""
    U = posterior()
    q = U.initial(1, seed=3)[0]
    sim = simulate(U.minibatch(16, order=order), replicas=4000, positions=q)
    forces = sim.arrays(("forces",))["forces"].astype(float)
    assert (z_scores(forces, -U.gradient(q)) < 5).all()
    # Negative control: the scale N/n forgotten in one row of sixteen.
    assert (z_scores(forces * 17 / 16, -U.gradient(q)) > 5).any()


# --- reporters ---------------------------------------------------------------------


def test_memory_keeps_what_was_there():
    sim = simulate(posterior(), replicas=2)
    memory, seen = Memory(4, thermometers=True), []
    sim.run(20, reporters=[memory, Callback(lambda s: seen.append(s.state.step), 5)])
    assert seen == [0, 5, 10, 15, 20]
    assert memory.steps.tolist() == [0, 4, 8, 12, 16, 20]
    np.testing.assert_allclose(memory.times, memory.steps * 0.01)
    assert memory.positions.shape == (6, 2, sim.potential.size)
    assert np.array_equal(memory.positions[-1], sim.state.positions)
    expected = {"gradient_square", "heat", "layer_kinetic_temperature", "virial"}
    assert expected < set(memory.names)
    assert memory["virial"].value.shape == (6, 2, 4)
    assert "nothing" not in memory
    with pytest.raises(mdnet.TrajectoryError, match="'nothing' was not recorded"):
        memory["nothing"]
    sim.run(4, reporters=[memory])  # step 20 is not recorded twice
    assert memory.steps.tolist() == [0, 4, 8, 12, 16, 20, 24]


@pytest.mark.physics
def test_thermometers_agree_with_the_target():
    """Springs of two kinds at T = 1.5: three thermometers, 5 standard errors each."""
    U, T = potentials.Harmonic(np.linspace(0.5, 4.0, 200)), 1.5
    sim = simulate(
        U,
        integrators.BAOAB(0.3, T),
        200,
        positions=U.sample(200, T),
        precision="double",
    )
    memory = Memory(20, positions=False, thermometers=True)
    sim.run(20)
    sim.run(400, reporters=[memory])
    for name in ("configurational_temperature", "virial_temperature"):
        blocks = memory[name].value[4:].mean(0)
        assert z_scores(blocks, T) < 5
        assert z_scores(blocks, 1.02 * T) > 5
    assert z_scores(memory["kinetic_temperature"].value.mean(0), T) < 5


@pytest.mark.parametrize(
    ("trigger", "steps"),
    [
        (triggers.every(6), [0, 6, 12, 18]),
        (triggers.every(6, offset=4), [4, 10, 16]),
        (triggers.at(1, 2, 19), [1, 2, 19]),
        (triggers.log_spaced(1), [0, 1, 10]),
    ],
)
def test_triggers(trigger, steps):
    sim, memory = simulate(potentials.Harmonic(size=3)), Memory(trigger)
    sim.run(20, reporters=[memory])
    assert memory.steps.tolist() == steps


def test_a_failing_callback_closes_the_others():
    class Listener(Memory):
        closed = False

        def close(self):
            self.closed = True

    def fail(sim):
        raise KeyError("mine")

    sim, listener = simulate(potentials.Harmonic(size=3)), Listener(1)
    with pytest.raises(KeyError, match="mine"):
        sim.run(10, reporters=[listener, Callback(fail, 4)])
    assert listener.closed


def test_progress_shows_energy_and_temperature(capsys):
    simulate(potentials.Harmonic(size=3)).run(200, progress=True)
    shown = capsys.readouterr().err
    assert "200/200" in shown
    assert "U=" in shown
    assert "T=" in shown


def test_starts_are_those_given():
    U = regression()
    q = np.arange(6.0)
    sim = simulate(U, positions=q, replicas=3)
    assert np.array_equal(sim.state.positions, np.tile(q, (3, 1)).astype(np.float32))
    p = np.ones((3, 6))
    sim.set_momenta(p)
    sim.set_positions(2 * q)
    assert np.array_equal(sim.state.momenta, p)
    again = simulate(U, positions=2 * q, momenta=p, replicas=3)
    for s in (sim, again):
        s.run(8)
    assert same(bits(sim), bits(again))


def test_the_given_arrays_are_not_written_to():
    q = np.zeros((2, 50), np.float32)
    p = np.ones((2, 50), np.float32)
    sim = simulate(Oscillator(50), positions=q, momenta=p)
    sim.run(10)
    assert (q == 0).all()
    assert (p == 1).all()


# --- memory -----------------------------------------------------------------------

PEAK = """
import sys
import numpy as np, mdnet
from mdnet import integrators, potentials
size = int(sys.argv[1])
def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(l.split()[1]) for l in lines if l.startswith(name))
def run(size):
    U = potentials.DoubleWell(size=size)
    start = np.zeros(size, np.float32) if sys.argv[2] == "given" else None
    sim = mdnet.Simulation(
        U, integrators.BAOAB(dt=0.01), seed=1, positions=start, backend="cpu"
    )
    sim.run(3)
    sim.scalars()
run(1000)
before = memory("VmRSS")
run(size)
print((memory("VmHWM") - before) / (4 * size))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("start", ["given", "drawn"])
def test_peak_memory(start):
    """At most six arrays of the size of q, start included, at 10^7 weights."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(10**7), start],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 2.5 < float(done.stdout) < 6.2
