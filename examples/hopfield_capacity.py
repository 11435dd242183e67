"""How much an associative memory holds: overlap against load, theory and simulation.

Random patterns, Hebb's couplings, dynamics at T = 0 from each pattern.  Prints the
overlap of what is recalled, and saves hopfield_capacity.png, with the modern memory
beside it.  Takes about half a minute; ``--quick`` two seconds.
"""

import argparse
from pathlib import Path

import numpy as np

from mdnet import plotting, potentials

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="fewer spins")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
sizes, draws = ((100, 300), 2) if options.quick else ((100, 300, 1000, 2000), 4)
loads = np.array([0.04, 0.07, 0.10, 0.12, 0.13, 0.14, 0.15, 0.16, 0.18, 0.20])

capacity, there = potentials.hopfield_capacity()
print(f"mean field: capacity {capacity:.5f}, overlap there {there:.4f}")
print("load     " + "  ".join(f"{a:5.2f}" for a in loads))
fig = plotting.figure(11, 4.4)
axes = fig.subplots(1, 2)
fine = np.linspace(0.03, 0.21, 400)
axes[0].plot(
    fine,
    [potentials.hopfield_overlap(a) for a in fine],
    color="black",
    lw=1.5,
    label="mean field, N infinite",
)
for color, size in zip(plotting.COLORS, sizes, strict=False):
    recalled = np.empty((draws, len(loads)))
    for seed in range(draws):
        for i, load in enumerate(loads):
            patterns = potentials.Hopfield.random_patterns(
                max(1, round(load * size)), size, seed=100 * seed + i
            )
            memory = potentials.Hopfield(patterns)
            start = memory.patterns[:100]
            end = memory.retrieve(start)
            recalled[seed, i] = (start * end).mean()
    mean, spread = recalled.mean(axis=0), recalled.std(axis=0)
    axes[0].errorbar(
        loads, mean, spread, fmt="o-", ms=4, color=color, label=f"N={size}"
    )
    print(f"N={size:5d}  " + "  ".join(f"{m:.3f}" for m in mean))
axes[0].axvline(capacity, color="gray", lw=0.8, ls=":")
axes[0].set(
    xlabel="load P/N",
    ylabel="overlap with the pattern",
    title="Hebb's couplings, T = 0",
)
axes[0].legend()

# Heat: a pattern is kept below a temperature that falls with the load.
size = 300 if options.quick else 1000
temperatures = np.linspace(0.05, 1.2, 8 if options.quick else 16)
for color, load in zip(plotting.COLORS, (0.01, 0.05, 0.10), strict=False):
    patterns = potentials.Hopfield.random_patterns(round(load * size), size, seed=5)
    memory = potentials.Hopfield(patterns)
    start = np.tile(memory.patterns[:1], (8, 1))
    kept = []
    for T in temperatures:
        spins = memory.glauber(start, sweeps=100, temperature=T, seed=1)
        total = 0.0
        for block in range(10):
            spins = memory.glauber(
                spins, 10, temperature=T, seed=1, first_step=100 + 10 * block
            )
            total += memory.overlaps(spins)[:, 0].mean() / 10
        kept.append(total)
    axes[1].plot(temperatures, kept, "o-", ms=4, color=color, label=f"load {load}")
# One pattern alone: m = tanh(m/T)
m = np.linspace(1e-3, 0.9999, 300)
axes[1].plot(m / np.arctanh(m), m, color="black", lw=1, label="m = tanh(m/T)")
axes[1].set(
    xlabel="temperature", ylabel="overlap", title=f"Heat bath, N={size}", xlim=(0, 1.25)
)
axes[1].legend()
plotting.save(fig, options.out / "hopfield_capacity.png")
print(f"wrote {options.out / 'hopfield_capacity.png'}")
