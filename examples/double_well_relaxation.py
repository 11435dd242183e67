"""Watch 20,000 walkers relax in a double well, and measure their way to equilibrium.

The Kullback-Leibler divergence D(p_t || p_eq) of the ensemble is estimated from the
walkers and compared with the exact curve of the Fokker-Planck equation.  Saves
double_well_relaxation.png.  Takes about ten seconds; ``--quick`` less.
"""

import argparse
from pathlib import Path

import numpy as np

import mdnet
from mdnet import analysis, integrators, plotting, potentials, reporters

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="fewer walkers")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

temperature, dt = 0.4, 0.0025
walkers = 2000 if options.quick else 20_000
times = np.array([0.05, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8])

# One parameter is one walker: they do not interact, and all take the fused path.
U = potentials.DoubleWell(size=walkers)
start = -1 + 0.15 * mdnet.random.normals(1, 0, 0, 0, walkers)
sim = mdnet.Simulation(
    U, integrators.SGLD(dt=dt, temperature=temperature), positions=start, seed=2
)
record = reporters.Memory(mdnet.triggers.at(*np.rint(times / dt).astype(int)))
sim.run(round(times[-1] / dt), reporters=[record], progress=True)
ensemble = record.positions[:, 0, :, None]  # (times, walkers, 1)


def log_density(x):
    return -((x**2 - 1) ** 2) / temperature


found = analysis.kl_relaxation(
    ensemble, log_density, times=times, domain=(-3, 3), max_times=len(times)
)
exact = analysis.fokker_planck_kl(
    lambda x: (x**2 - 1) ** 2, temperature, -1.0, 0.15**2, times
)
print("   time   KL exact   KL measured   in errors")
for t, e, v, s in zip(times, exact, found.value, found.stderr, strict=True):
    print(f"{t:7.2f}  {e:9.4f}  {v:7.4f} +- {s:.4f}  {(v - e) / s:8.1f}")
late = times >= 4
slope = -np.polyfit(times[late], np.log(exact[late]), 1)[0]
print(f"late decay rate {slope:.4f} (twice the slowest relaxation rate is .2684)")

fig = plotting.figure(11, 4.5)
left, right = fig.subplots(1, 2)
grid = np.linspace(-2, 2, 400)
density = np.exp(log_density(grid))
density /= density.sum() * (grid[1] - grid[0])
for k, shade in zip((0, 5, 7, 11), (1.0, 0.7, 0.5, 0.3), strict=True):
    left.hist(
        ensemble[k, :, 0],
        bins=80,
        range=(-2, 2),
        density=True,
        histtype="step",
        color="#0072B2",
        alpha=shade,
        label=f"t = {times[k]:g}",
    )
left.plot(grid, density, color="black", label="equilibrium")
left.set(xlabel="position q", ylabel="density", title=f"{walkers} walkers, T = 0.4")
left.legend()
plotting.plot_kl(right, found, exact=(times, exact))
plotting.save(fig, options.out / "double_well_relaxation.png")
print(f"wrote {options.out / 'double_well_relaxation.png'}")
