"""Spin glasses at several temperatures, against their exact energies.

Four models: the spherical spin glass with couplings of p = 2 and of p = 3 spins
(Langevin dynamics on the sphere), the Sherrington-Kirkpatrick model (heat bath) and
the random energy model (Metropolis).  Prints energies a spin beside the exact ones and
saves spin_glass.png.  Takes about a minute; ``--quick`` less.
"""

import argparse
from pathlib import Path

import numpy as np

import mdnet
from mdnet import integrators, plotting, potentials, reporters

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="shorter runs")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
less = 8 if options.quick else 1

header = f"{'model':<14}{'T':>6}{'measured':>11}{'error':>9}{'exact':>10}{'errors':>8}"
print(header)


def report(model, temperatures, blocks, exact):
    """Print and return mean and error of independent blocks, axis 0, a temperature."""
    mean = blocks.mean(axis=0)
    error = blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    for T, m, e, x in zip(temperatures, mean, error, exact, strict=True):
        print(f"{model:<14}{T:6.2f}{m:11.4f}{e:9.4f}{x:10.4f}{(m - x) / e:8.1f}")
    return mean, error


def on_the_sphere(U, temperatures, copies, steps, seed):
    """Energies (copies, temperatures) and <q^p> of pairs of copies, by Langevin."""
    T = np.tile(temperatures, copies)  # one temperature a replica
    word = integrators.Constrained("BAOAB", 0.1, T, friction=1.0, norms=U.norms)
    sim = mdnet.Simulation(
        U, word, replicas=T.size, seed=seed, backend="cpu", precision="double"
    )
    sim.run(steps // 2)
    record = reporters.Memory(every=10)
    sim.run(steps, reporters=[record])
    energy = record["potential_energy"].value[1:].mean(axis=0) / U.size
    s = record.positions[1:].reshape(-1, copies, len(temperatures), U.size)
    q = (s[:, : copies // 2] * s[:, copies // 2 :]).sum(axis=-1) / U.size
    return energy.reshape(copies, -1), (q**U.p).mean(axis=(0, 1))


fig = plotting.figure(11, 8)
panels = fig.subplots(2, 2).ravel()
color = plotting.COLORS[0]
fine = np.linspace(0.5, 3.2, 100)


def draw(ax, title, temperatures, found, lines):
    for (x, y, label), style in zip(lines, ("-", "--"), strict=False):
        ax.plot(x, y, style, color="black", lw=1.3, label=label)
    ax.errorbar(temperatures, *found, fmt="o", color=color, ms=6, label="measured")
    ax.set(xlabel="temperature T", ylabel="energy a spin", title=title)
    ax.legend()


# --- spherical, p = 2: this sample's energy is known exactly --------------------------
T = np.array([0.6, 0.8, 1.0, 1.5, 2.0, 3.0])
U = potentials.SphericalSpinGlass(64, p=2, seed=1)
energy, _ = on_the_sphere(U, T, copies=20, steps=4000 // less, seed=2)
exact = [U.exact_energy(t) / U.size for t in T]
found = report("spherical p=2", T, energy, exact)
curve = [U.exact_energy(t) / U.size for t in fine]
lines = [(fine, curve, "exact, this sample"), (fine[fine > 1], -0.5 / fine[fine > 1],
                                              "-1/2T, many spins")]  # fmt: skip
draw(panels[0], "Spherical spin glass, p = 2, N = 64", T, found, lines)

# --- spherical, p = 3: energy and overlaps, averaged over disorder --------------------
T = np.array([0.8, 1.0, 1.5, 2.0, 3.0])
samples = [
    on_the_sphere(
        potentials.SphericalSpinGlass(24, p=3, seed=seed), T, 10, 1200 // less, seed
    )
    for seed in range(40 // less + 3)
]
energy = np.array([e.mean(axis=0) for e, _ in samples])
expected = -(1 - np.array([q for _, q in samples])) / (2 * T)
report("spherical p=3", T, energy - expected, np.zeros(len(T)))
found = energy.mean(axis=0), energy.std(axis=0, ddof=1) / np.sqrt(len(energy))
lines = [(T, expected.mean(axis=0), "-(1 - <q³>)/2T, q measured"),
         (fine, -0.5 / fine, "-1/2T, annealed")]  # fmt: skip
draw(panels[1], "Spherical spin glass, p = 3, N = 24", T, found, lines)

# --- Sherrington and Kirkpatrick: enumeration -----------------------------------------
T = np.array([0.7, 1.0, 1.5, 2.0, 3.0])
n, walkers, exact, energy = 12, 400 // less, [], []
for seed in range(10):
    glass = potentials.SherringtonKirkpatrick(n, seed=seed)
    exact.append([glass.enumerate(t).energy / n for t in T])
    spins = [glass.heat_bath(glass.initial(walkers, 1), t, 400, seed=seed) for t in T]
    energy.append([glass.energy(s) / n for s in spins])
blocks = np.mean(energy, axis=0).T  # a walker of every sample
found = report("SK", T, blocks, np.mean(exact, axis=0))
lines = [(T, np.mean(exact, axis=0), "exact, 10 samples"),
         (fine, -(n - 1) / n / (2 * fine), "annealed")]  # fmt: skip
draw(panels[2], f"Sherrington-Kirkpatrick, N = {n}", T, found, lines)

# --- random energies ------------------------------------------------------------------
T = np.array([1.0, 1.25, 1.5, 2.0, 3.0])
model = potentials.RandomEnergyModel(12, seed=1)
start = np.arange(1600 // less) % 2**model.size
states = [model.metropolis(start, t, 8000, seed=3) for t in T]
blocks = np.array([model.energy(s) for s in states]).T / model.size
exact = [model.mean_energy(t) / model.size for t in T]
found = report("random energy", T, blocks, exact)
curve = [model.mean_energy(t) / model.size for t in fine]
limit = [model.limit_energy(t) for t in fine]
lines = [(fine, curve, "exact, this sample"), (fine, limit, "many spins")]
draw(panels[3], f"Random energy model, N = {model.size}", T, found, lines)

big = potentials.RandomEnergyModel(20, seed=1)
print(
    f"random energy model, N = 20, T = 2: free energy a spin "
    f"{big.free_energy(2.0) / 20:.4f}, of many spins {big.limit_free_energy(2.0):.4f}"
)
plotting.save(fig, options.out / "spin_glass.png")
print(f"wrote {options.out / 'spin_glass.png'}")
