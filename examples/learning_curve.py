"""Learning curves of a student: phases of perceptrons, plateau of a committee.

Left: generalisation error against examples per weight, exact curves for infinitely many
weights, students drawn from the version space, and cold dynamics on the sphere.  Right:
a soft committee descends its exact error and waits on the symmetric plateau until its
units part.  Saves learning_curve.png.  Takes about half a minute; ``--quick`` a few
seconds.
"""

import argparse
from pathlib import Path

import numpy as np

import mdnet
from mdnet import integrators, plotting, potentials

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="a short run")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
size, sets, steps = (40, 4, 500) if options.quick else (100, 12, 8000)

fig = plotting.figure(11, 4.4)
axes = fig.subplots(1, 2)
colors = plotting.COLORS

# --- perceptrons ---
fine = np.concatenate([np.linspace(0.01, 2, 60), np.linspace(2.1, 6, 30)])
for weights, color in (("spherical", colors[0]), ("ising", colors[1])):
    curve = potentials.gibbs_learning_curve(fine, weights)
    axes[0].plot(fine, curve, color=color, label=f"exact, {weights}")
print("examples/weight   exact   version space    cold dynamics")
for load in (0.5, 1.0, 2.0, 3.0, 5.0):
    drawn, cold = [], []
    for seed in range(sets):
        U = potentials.TeacherPerceptron(size, round(load * size), seed=seed)
        students = U.version_space(replicas=8, sweeps=300, seed=seed)
        drawn.append(U.generalization_error(students).mean())
    # Low temperature keeps the error of the examples at zero: Gibbs learning.
    word = integrators.Constrained(
        "BAOAB",
        dt=0.5,
        temperature=1e-3,
        friction=0.05,
        norms={"weights": ("tensor", size**0.5)},
    )
    for seed in range(2):
        U = potentials.TeacherPerceptron(size, round(load * size), seed=seed)
        sim = mdnet.Simulation(
            U, word, positions=U.initial(8, seed=1), replicas=8, seed=seed
        )
        sim.run(steps)
        cold.append(U.generalization_error(sim.state.positions).mean())
    exact = potentials.gibbs_learning_curve(load)
    bar = np.std(drawn) / np.sqrt(sets)
    print(
        f"{load:10.1f}{exact:14.4f}{np.mean(drawn):10.4f} ± {bar:.4f}"
        f"{np.mean(cold):11.4f}"
    )
    labels = ("version space", "cold dynamics") if load == 0.5 else (None, None)
    axes[0].errorbar(load, np.mean(drawn), bar, fmt="o", color="k", label=labels[0])
    axes[0].plot(load, np.mean(cold), "x", ms=8, color=colors[2], label=labels[1])
axes[0].set(
    xlabel="examples per weight",
    ylabel="generalisation error",
    title=f"Gibbs learning, N={size}",
    ylim=(-0.01, 0.52),
)
axes[0].legend()

# --- committee ---
units = 3
Q, R, plateau = potentials.committee_plateau(units)
U = potentials.Committee(size, units, units, examples=size, seed=3)
sim = mdnet.Simulation(
    U,
    integrators.BAOAB(dt=0.5, temperature=0.0, friction=1.0),
    positions=0.1 * U.initial(1, seed=4),
    precision="double",
)
time, error, overlaps = [], [], []
for _ in range(160):
    sim.run(5)
    time.append(0.5 * sim.state.step)
    error.append(U.energy(sim.state.positions)[0] / size)
    overlaps.append(U.order_parameters(sim.state.positions).R[0].ravel())
print(f"plateau of {units} units: error {plateau:.5f}, R {R:.4f}, Q {Q:.4f}")
stay = np.ptp(np.array(time)[np.abs(np.array(error) / plateau - 1) < 0.02])
print(f"stayed within 2% of it for {stay:.0f} units of time")
axes[1].plot(time, error, color=colors[0], label="error")
axes[1].axhline(plateau, color=colors[0], lw=0.8, ls=":")
axes[1].set(
    xlabel="time", ylabel="error", title=f"Soft committee, {units} units", yscale="log"
)
axes[1].set_ylim(bottom=1e-6)
twin = axes[1].twinx()
twin.plot(time, overlaps, color=colors[1], lw=0.8)
twin.axhline(R, color=colors[1], lw=0.8, ls=":")
twin.set_ylabel("overlaps with teachers", color=colors[1])
axes[1].legend(loc="center left")
plotting.save(fig, options.out / "learning_curve.png")
print(f"wrote {options.out / 'learning_curve.png'}")
