"""What noise does the data have?  One network, four likelihoods, held-out rows decide.

Noise levels and the widths of the prior are sampled with the weights, so that nothing
is tuned.  Rows come from scikit-learn's diabetes set, or from a file of the UCI
benchmark (see benchmarks/uci.py) with --data.  About two minutes on two cores;
``--quick`` a few seconds.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

import mdnet
from mdnet import analysis, integrators, potentials, reporters
from mdnet.potentials import likelihoods, scales

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="a short run")
parser.add_argument("--data", type=Path, help=".npz with X, y, train and test")
parser.add_argument("--out", type=Path, default=Path(), help="unused: prints only")
options = parser.parse_args()
warmup, draws, steps = (40, 40, 20) if options.quick else (200, 300, 60)

if options.data:
    with np.load(options.data) as file:
        X, y = file["X"], file["y"]
        kept, held = file["train"][0], file["test"][0]
else:
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    held, kept = order[:88], order[88:]

# Means and spreads of the rows that are kept; held-out rows see nothing else.
X = (X - X[kept].mean(axis=0)) / X[kept].std(axis=0)
spread = y[kept].std()
y = (y - y[kept].mean()) / spread

noise = scales.HalfCauchy(0.5)
models = {
    "noise of 1, fixed": (likelihoods.Gaussian(1.0), 1),
    "noise sampled": (likelihoods.Gaussian(noise), 1),
    "Student t, sampled": (likelihoods.StudentT(4.0, noise), 1),
    "noise from the network": (likelihoods.Heteroscedastic(), 2),
}
print("likelihood               log p/row   RMSE   R-hat of U   noise")
for name, (likelihood, outputs) in models.items():
    net = potentials.MLP([X.shape[1], 20, outputs])
    prior = potentials.HierarchicalGaussianPrior(
        {
            "0.weight": scales.HalfNormal(1.0),
            "0.bias": scales.HalfNormal(1.0),
            "1.weight": scales.HalfNormal(1.0),
            "1.bias": 1.0,  # one or two numbers say nothing of their own scale
        }
    )
    U = potentials.Posterior(net, likelihood, prior, data=(X[kept], y[kept]))
    hmc = integrators.HMC(
        dt=0.005, steps=steps, target_acceptance=0.8, warmup=warmup, jitter=0.3
    )
    sim = mdnet.Simulation(U, hmc, replicas=4, seed=1)
    sim.run(warmup)
    record = reporters.Memory(every=2)
    sim.run(draws, reporters=[record])

    # The density of the mixture over all draws; and the error of their mean.
    logs = np.concatenate(
        [U.log_likelihood(q, X[held], y[held]) for q in record.positions]
    )
    top = logs.max(axis=0)
    density = top + np.log(np.exp(logs - top).mean(axis=0)) - np.log(spread)
    means = np.concatenate([U.predict(q, X[held])[..., 0] for q in record.positions])
    rmse = spread * np.sqrt(((means.mean(axis=0) - y[held]) ** 2).mean())
    agree = analysis.rhat(record["potential_energy"].value.swapaxes(0, 1)).value
    sampled = [k for k in U.layout if k.startswith("likelihood.")]
    level = ""
    if sampled:
        log_noise = np.asarray(record.positions)[..., U.layout[sampled[0]][0]]
        level = f"{spread * np.exp(log_noise).mean():.1f}"
    print(f"{name:24} {density.mean():10.3f} {rmse:6.1f} {agree:12.2f}   {level}")
