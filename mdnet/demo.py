"""The main job, ``mdnet demo``: a real network sampled on real digits, end to end.

Samples the posterior of a small classifier of handwritten digits with minibatch
BAOAB in many replicas, writes the trajectory, and judges it as a physicist would.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdnet import analysis, integrators, plotting, potentials
from mdnet.errors import MdnetError
from mdnet.io.reader import Trajectory, open_trajectory
from mdnet.simulation import Simulation

__all__ = ["Digits", "digits", "draw", "run"]

HIDDEN = 32
STEPS = 14_000
MINIMIZE = 600
DT, FRICTION = 0.004, 25.0
PRIOR = {"0.weight": 0.12, "0.bias": 1.0, "1.weight": 2.0, "1.bias": 1.0}
MASS = {"0.weight": 1.0, "0.bias": 0.3, "1.weight": 0.1, "1.bias": 0.1}
EVERY = 70


@dataclass(frozen=True, slots=True)
class Digits:
    """Scikit-learn's handwritten digits, split and scaled by the training rows.

    Attributes
    ----------
    train, test : (images (n, 64) float32, labels (n,))
        Four fifths and one fifth of 1797.
    pixels : (n_test, 8, 8)
        The test images as they are.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    pixels: np.ndarray


def digits(seed: int = 0) -> Digits:
    """Load the digits with a split of their own for each seed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MdnetError(
            "the digits ship inside scikit-learn, which is not installed: "
            "python -m pip install -e '.[examples]'"
        ) from error
    loaded = load_digits()
    order = np.random.default_rng(seed).permutation(len(loaded.target))
    held, kept = np.split(order, [len(order) // 5])
    x = loaded.data / 16
    x = ((x - x[kept].mean(axis=0)) / x[kept].std()).astype(np.float32)
    y = loaded.target.astype(np.int64)
    return Digits((x[kept], y[kept]), (x[held], y[held]), loaded.images[held])


def posterior(data: tuple[np.ndarray, np.ndarray]) -> Any:
    """Potential of a 64-32-10 ReLU network with Gaussian priors of its own a layer."""
    net = potentials.MLP([64, HIDDEN, 10], activation="relu")
    prior = potentials.GaussianPrior(scale=PRIOR)
    return potentials.Posterior(net, likelihood="categorical", prior=prior, data=data)


def masses(potential: Any) -> np.ndarray:
    """Mass of each weight: softer tensors are lighter, so that all keep pace."""
    out = np.empty(potential.size)
    for name, (part, _) in potential.layout.items():
        out[part] = MASS[name]
    return out


def run(
    replicas: int = 16,
    steps: int | None = None,
    out: str | Path = ".",
    seed: int = 0,
    backend: Any = "auto",
    progress: bool = True,
) -> dict[str, float]:
    """Sample, write ``demo.h5md`` and ``demo.png``, print and return what was found.

    Parameters
    ----------
    replicas, steps, seed
        Size of the run; 14,000 steps if not given.
    out : path
        Folder of the two files, which are replaced.
    backend : {"auto", "cpu", "cuda"}
    progress : bool
        Show the bar.
    """
    begin = time.perf_counter()
    steps = STEPS if steps is None else steps
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "demo.h5md"
    data = digits(seed)
    potential = posterior(data.train)
    batch = len(data.train[1]) // 2
    sim = Simulation(
        potential.minibatch(batch_size=batch),
        integrators.BAOAB(
            dt=DT, temperature=1.0, friction=FRICTION, mass=masses(potential)
        ),
        replicas=replicas,
        seed=seed,
        backend=backend,
    )
    print(
        f"{replicas} networks 64-{HIDDEN}-10 ({potential.size} weights each) on "
        f"{len(data.train[1])} digits, minibatches of {batch}, {sim.backend.name}"
    )
    print("compiling the kernels (once) and minimising ...", flush=True)
    energies = sim.minimize(MINIMIZE)
    print(f"minimised: U from {energies[0].mean():.0f} to {energies[-1].mean():.0f}")
    single = potential.predict(sim.arrays(("positions",))["positions"], data.test[0])
    every = max(1, min(EVERY, steps // 40))
    started = time.perf_counter()
    sim.run(steps, trajectory=path, every=every, overwrite=True, progress=progress)
    seconds = time.perf_counter() - started
    with open_trajectory(path) as trajectory:
        found = report(trajectory, potential, data, single, folder / "demo.png")
    found["steps_per_second"] = steps / seconds
    print(
        f"\nspeed: {steps / seconds:.0f} steps/s of {replicas} replicas, readings "
        f"included ({replicas * steps / seconds:.0f} network steps/s)"
    )
    print(
        f"wrote {path} ({path.stat().st_size / 1e6:.0f} MB) and {folder / 'demo.png'} "
        f"in {time.perf_counter() - begin:.0f} s"
    )
    return found


def report(
    trajectory: Trajectory,
    potential: Any,
    data: Digits,
    single: np.ndarray,
    figure: Path,
) -> dict[str, float]:
    """Print scores, thermometers and ledger of a run, and draw them."""
    inputs, labels = data.test
    average = analysis.predictive(trajectory, inputs, potential)
    temperatures = analysis.temperatures(trajectory, burn_in=average.start)
    law = analysis.first_law(trajectory)
    one = [
        (
            float(analysis.accuracy(p, labels)),
            float(analysis.log_likelihood(p, labels)),
            float(analysis.calibration(p, labels).value),
        )
        for p in single
    ]
    rows = {
        "one minimised network": tuple(np.mean(one, axis=0)),
        "average over the posterior": (
            float(analysis.accuracy(average, labels)),
            float(analysis.log_likelihood(average, labels)),
            float(analysis.calibration(average, labels).value),
        ),
    }
    print(f"\nheld-out digits ({len(labels)}), {average.n_draws} draws:")
    print(f"{'':28}accuracy  log-likelihood  calibration error")
    for name, (accuracy, likelihood, calibration) in rows.items():
        print(f"{name:28}{accuracy:7.2%}  {likelihood:14.4f}  {calibration:17.4f}")
    print(f"\n{temperatures}\n{temperatures.finding}.")
    print(f"first law: {law.verdict} (largest relative residual {law.residual:.1e})")
    draw(trajectory, data, average, temperatures, figure)
    best = rows["average over the posterior"]
    return {
        "accuracy": best[0],
        "log_likelihood": best[1],
        "calibration": best[2],
        "single_accuracy": rows["one minimised network"][0],
        "single_log_likelihood": rows["one minimised network"][1],
    }


def draw(
    trajectory: Trajectory,
    data: Digits,
    average: Any,
    temperatures: Any,
    path: Path,
) -> None:
    """Save the demo's figure: relaxation, temperatures, and what it is unsure of."""
    labels = data.test[1]
    fig = plotting.figure(13.5, 9.5)
    halves: Any = fig.subfigures(2, 1, height_ratios=(1.0, 1.15))
    top, bottom = halves
    left, middle, right = top.subplots(1, 3)
    plotting.plot_energy(left, trajectory, average.start)
    plotting.plot_temperatures(middle, temperatures)
    divergence = analysis.kl_relaxation(trajectory, projection="energy", max_times=100)
    plotting.plot_kl(right, divergence)
    right.set_ylabel("KL divergence of the energy (nats)")
    doubt = np.argsort(-average.entropy)
    typical = np.linspace(len(doubt) // 2, len(doubt) - 1, 5).astype(int)
    shown = np.concatenate([doubt[typical], doubt[:5]])
    bottom.suptitle(
        "Five held-out digits and the five most doubtful: mean and spread over the "
        "posterior",
        fontsize=11,
    )
    plotting.plot_predictive(
        bottom,
        data.pixels[shown],
        average.mean[shown],
        average.std[shown],
        labels=labels[shown],
    )
    plotting.save(fig, path)
