"""Sample the posterior of a digit classifier: sixteen networks, minibatch BAOAB.

Prints accuracy, log-likelihood and three temperatures; saves digits_posterior.png.
Takes about a minute on two cores; ``--quick`` a few seconds.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import mdnet
from mdnet import analysis, integrators, plotting, potentials

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="a short run")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the files")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)
steps, replicas = (400, 4) if options.quick else (12_000, 16)

# Real data: 1797 handwritten digits of 8 x 8 pixels, a fifth of them held out.
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
held, kept = order[:359], order[359:]
X = (images - images[kept].mean(axis=0)) / images[kept].std()

# The loss is a potential energy: a sum over the data, minus the log prior.
net = potentials.MLP([64, 32, 10], activation="relu")
scales = {"0.weight": 0.12, "0.bias": 1.0, "1.weight": 2.0, "1.bias": 1.0}
prior = potentials.GaussianPrior(scales)
U = potentials.Posterior(net, "categorical", prior, data=(X[kept], labels[kept]))

# Weights move as molecules do, at temperature 1, pushed by minibatch forces; the
# tensors that the data hold less stiffly get less mass, so that all keep pace.
mass = np.empty(U.size)
for name, m in {"0.weight": 1, "0.bias": 0.3, "1.weight": 0.1, "1.bias": 0.1}.items():
    mass[U.layout[name][0]] = m
baoab = integrators.BAOAB(dt=0.004, temperature=1.0, friction=25.0, mass=mass)
sim = mdnet.Simulation(U.minibatch(batch_size=719), baoab, replicas=replicas, seed=0)
sim.minimize(600)
path = options.out / "digits_posterior.h5md"
sim.run(steps, trajectory=path, every=60, progress=True, overwrite=True)

# One file holds positions, energies and the exact restart.
run = mdnet.open(path)
print(run.info())
average = analysis.predictive(run, X[held], potential=U)
accuracy = analysis.accuracy(average, labels[held])
likelihood = analysis.log_likelihood(average, labels[held])
print(
    f"held-out accuracy {float(accuracy):.2%}, log-likelihood {float(likelihood):.4f}"
)
print(analysis.temperatures(run))
plotting.report(run, options.out / "digits_posterior.png", U, X[held][:128])
print(f"wrote {options.out / 'digits_posterior.png'}")
