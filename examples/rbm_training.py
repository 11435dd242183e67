"""Train a Boltzmann machine on handwritten digits with persistent chains.

Prints pseudo-likelihood, log-likelihood from annealed importance sampling, and the gap
of free energies between held-out and training images; saves rbm_training.png with
learning curves, filters and samples.  Takes about half a minute; ``--quick`` a few
seconds.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from mdnet import plotting, potentials

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="a short run")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
readings, updates, sweeps = (4, 100, 200) if options.quick else (16, 1000, 2000)

# Real data: 1797 images of 8 x 8 pixels, made binary, a fifth of them held out.
images = load_digits().data > 7
order = np.random.default_rng(0).permutation(len(images))
held, kept = images[order[:359]], images[order[359:]]

trainer = potentials.RBMTrainer(
    kept, n_hidden=64, chains=200, batch_size=100, rate=0.05, decay=2e-4, seed=1
)
print("updates   pseudo-likelihood      ln Z     log-likelihood     free-energy gap")
print("          train      held      (AIS)      train      held     held - train")
curves = []
for reading in range(readings + 1):
    if reading:
        late = reading > 0.75 * readings
        trainer.run(updates, rate=0.01 if late else None)
    machine = trainer.machine
    log_z = machine.ais(chains=100, steps=sweeps, seed=reading)
    pseudo = [machine.pseudo_log_likelihood(x).mean() for x in (kept, held)]
    likelihood = [machine.log_probability(x, log_z).mean() for x in (kept, held)]
    gap = machine.free_energy(held).mean() - machine.free_energy(kept).mean()
    curves.append((trainer.step, *pseudo, *likelihood, gap))
    print(
        f"{trainer.step:7d}{pseudo[0]:9.2f}{pseudo[1]:10.2f}{log_z.value:11.2f}"
        f"{likelihood[0]:11.2f}{likelihood[1]:10.2f}{gap:13.2f}"
    )

# Fantasies: means of the pixels after a long walk, from random starts.
_, h = machine.sample(chains=64, sweeps=sweeps, seed=7)
samples = machine.visible_means(h)


def tiles(values, gutter):
    """64 images of 8 x 8 in one of 71 x 71."""
    sheet = np.full((71, 71), gutter)
    for i, image in enumerate(values):
        row, column = 9 * (i // 8), 9 * (i % 8)
        sheet[row : row + 8, column : column + 8] = image.reshape(8, 8)
    return sheet


step, pseudo_kept, pseudo_held, kept_curve, held_curve, gap = np.transpose(curves)
fig = plotting.figure(13, 4.4)
axes = fig.subplots(1, 3)
colors = plotting.COLORS
axes[0].plot(step, kept_curve, color=colors[0], label="log-likelihood, train")
axes[0].plot(step, held_curve, color=colors[1], label="log-likelihood, held out")
axes[0].plot(step, pseudo_kept, "--", color=colors[0], label="pseudo, train")
axes[0].plot(step, pseudo_held, "--", color=colors[1], label="pseudo, held out")
axes[0].set(xlabel="updates", ylabel="nats an image", title="Persistent chains")
axes[0].legend(fontsize="small")
weights = machine.weights.T
limit = np.quantile(np.abs(weights), 0.995)
axes[1].imshow(tiles(weights, 0.0), cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[1].set_title("Weights of the 64 hidden units")
axes[2].imshow(tiles(samples, 0.5), cmap="gray", vmin=0, vmax=1)
axes[2].set_title("Samples")
for ax in axes[1:]:
    ax.set_axis_off()
plotting.save(fig, options.out / "rbm_training.png")
print(f"wrote {options.out / 'rbm_training.png'}")
