"""Sample a PyTorch convolutional network: train it, heat it, average its answers.

A network for 8 x 8 digits is trained in PyTorch as usual; its weights then move as
molecules do at temperature 1, from where training left them.  Prints held-out accuracy
and log-likelihood of the trained network and of the sampled ones, writes one of them
back into the module, and saves torch_cnn.png.  Needs PyTorch.  Takes about two minutes
on two cores; ``--quick`` a few seconds.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import mdnet
from mdnet import analysis, integrators, plotting, potentials

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="a short run")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the files")
options = parser.parse_args()
if importlib.util.find_spec("torch") is None:
    print("torch_cnn needs PyTorch: python -m pip install -e '.[torch,examples]'")
    sys.exit()

import torch  # noqa: E402
from torch import nn  # noqa: E402

options.out.mkdir(parents=True, exist_ok=True)
epochs, steps, replicas, every = (5, 120, 2, 20) if options.quick else (25, 1500, 4, 25)

# Real data: 1797 handwritten digits of 8 x 8 pixels; only 600 of them to learn from.
images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
order = np.random.default_rng(0).permutation(len(labels))
kept, held = order[:600], order[600:]

torch.manual_seed(0)
torch.set_num_threads(2)
module = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.Tanh(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3),
    nn.Tanh(),
    nn.Flatten(),
    nn.Linear(64, 10),
)

# Training, as PyTorch users do it.
X, y = torch.from_numpy(images[kept]), torch.from_numpy(labels[kept])
optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
for _ in range(epochs):
    for rows in torch.randperm(len(y)).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()

# The same module as a potential energy: weights keep their names of the state_dict.
scales = {name: 0.5 for name, _ in module.named_parameters()}
scales |= {"3.weight": 0.2, "6.weight": 0.4}
U = potentials.from_torch(
    module,
    likelihood="categorical",
    prior=potentials.GaussianPrior(scales),
    data=(images[kept], labels[kept]),
)
baoab = integrators.BAOAB(dt=0.008, temperature=1.0, friction=5.0)
sim = mdnet.Simulation(U.minibatch(300), baoab, replicas=replicas, seed=0)
path = options.out / "torch_cnn.h5md"
trained = U.initial(1)
sim.run(steps, trajectory=path, every=every, progress=True, overwrite=True)

# One file, read like that of any other network.
run = mdnet.open(path)
frames = run.positions[len(run) // 3 :]
first = U.predict(trained, images[held])[0]
each = np.stack([U.predict(q, images[held]) for q in frames])  # (frames, R, n, 10)
average = each.mean(axis=(0, 1))


def scores(p):
    truth = labels[held]
    hit = p.argmax(axis=-1) == truth
    return hit.mean(), np.log(p[np.arange(len(truth)), truth]).mean()


print(f"{module}\n{U.size} weights in {', '.join(U.layout)}")
answers = {"trained": first, "one sample": each[-1, 0], "average": average}
for name, p in answers.items():
    accuracy, likelihood = scores(p)
    print(f"{name:>12}: accuracy {accuracy:.2%}, log-likelihood {likelihood:.4f}")
print(analysis.temperatures(run))

# And back: the last sample of replica 0 as weights of the module.
U.to_torch(run, frame=-1, replica=0)
with torch.no_grad():
    logits = module(torch.from_numpy(images[held]))
off = np.abs(logits.softmax(1).numpy() - each[-1, 0]).max()
print(f"the module, called by PyTorch, answers the same to {off:.0e}")

fig = plotting.figure(11, 4)
left, middle, right = fig.subplots(1, 3, width_ratios=(1.1, 1, 1))
energy = run["potential_energy"]
left.plot(energy.step, energy.value)
left.set(xlabel="step", ylabel="potential energy U", title="from training to T = 1")
for name, p in answers.items():
    if name == "one sample":
        continue
    sure = p.max(axis=1)
    hit = p.argmax(axis=1) == labels[held]
    bins = np.quantile(sure, np.linspace(0, 1, 9))
    at = np.clip(np.searchsorted(bins, sure) - 1, 0, 7)
    middle.plot(
        [sure[at == b].mean() for b in range(8) if (at == b).any()],
        [hit[at == b].mean() for b in range(8) if (at == b).any()],
        "o-",
        label=name,
    )
middle.plot([0.4, 1], [0.4, 1], color="black", lw=0.8)
middle.set(xlabel="probability given", ylabel="fraction right", title="calibration")
middle.legend()
wrong = average.argmax(axis=1) != labels[held]
entropy = -(average * np.log(average + 1e-12)).sum(axis=1)
right.hist(
    [entropy[~wrong], entropy[wrong]],
    bins=20,
    density=True,
    label=["right", "wrong"],
    color=["#0072B2", "#D55E00"],
)
right.set(xlabel="entropy of the average", ylabel="density", title="doubt, held out")
right.legend()
plotting.save(fig, options.out / "torch_cnn.png")
print(f"wrote {options.out / 'torch_cnn.png'}")
