"""Test error and log likelihood of sampled networks on the UCI regression sets.

    python benchmarks/uci.py --data FOLDER

FOLDER (or the environment variable MDNET_DATA) holds one file a set, e.g.
``yacht.npz``, with X (N, d), y (N,) and the rows ``train`` and ``test``, (splits, n)
each, of the standard splits of Hernandez-Lobato and Adams (2015).  It may be the
folder above one called ``uci``.

The posterior of a network with one hidden layer of 50 tanh units is sampled by
Hamiltonian Monte Carlo at T = 1.  Nothing is tuned: the noise and the width of the
prior of every tensor are coordinates of q, with weak laws, and are sampled with the
weights.  Inputs and targets are scaled by the mean and standard deviation of the
training rows; test rows are seen by the scores only.  Scores are in the units of the
target: root mean square error of the posterior mean, and the mean over test rows of
log mean_s N(y; f_s(x), sigma_s), which is the density of the whole mixture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

# File, published RMSE and log likelihood of MC dropout on these splits (Gal and
# Ghahramani's code of 2018, one hidden layer of 50 units, scales by grid search).
SETS = {
    "boston": ("bostonHousing", 2.90, -2.40),
    "concrete": ("concrete", 4.82, -2.93),
    "yacht": ("yacht", 0.67, -1.25),
}


@dataclass(frozen=True)
class Settings:
    """What is run on one split."""

    units: int = 50
    replicas: int = 8
    steps: int = 200
    dt: float = 1e-3
    warmup: int = 200
    draws: int = 400
    keep: int = 100


# The noise of yacht is a hundredth of the spread of its targets: steps are small.
CHOSEN = {
    "boston": Settings(),
    "concrete": Settings(),
    "yacht": Settings(steps=1000, dt=2e-4, warmup=100, draws=200),
}


@dataclass(frozen=True)
class Score:
    """Of one split: errors in the target's units, and how well the chains agree."""

    split: int
    rmse: float
    log_likelihood: float
    noise: float
    rhat_median: float
    rhat_most: float
    ess_median: float
    acceptance: float
    cpu_seconds: float
    wall_seconds: float


def load(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Arrays of the set called ``name``."""
    for place in (folder, folder / "uci"):
        path = place / f"{SETS[name][0]}.npz"
        if path.exists():
            with np.load(path) as file:
                return {key: file[key] for key in ("X", "y", "train", "test")}
    raise SystemExit(f"{folder}: no file {SETS[name][0]}.npz there or in uci/")


def scaled(train: np.ndarray, *others: np.ndarray) -> tuple[Any, ...]:
    """Arrays less the training mean over the training spread; and that spread."""
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread == 0, 1.0, spread)
    return (*((x - mean) / spread for x in (train, *others)), spread)


def posterior(X: np.ndarray, y: np.ndarray, units: int) -> Any:
    """The model: noise and the widths of all but the last bias are sampled."""
    from mdnet.potentials import MLP, Posterior, likelihoods, priors, scales

    wide = scales.HalfNormal(1.0)
    prior = priors.HierarchicalGaussianPrior(
        {"0.weight": wide, "0.bias": wide, "1.weight": wide, "1.bias": 1.0}
    )
    noise = likelihoods.Gaussian(noise=scales.HalfCauchy(0.5))
    return Posterior(MLP([X.shape[1], units, 1]), noise, prior, data=(X, y))


def mixture(log_density: np.ndarray) -> np.ndarray:
    """Log of the mean density over draws, (draws, n) to (n,)."""
    top = log_density.max(axis=0)
    mean: np.ndarray = top + np.log(np.exp(log_density - top).mean(axis=0))
    return mean


def sample(
    X: np.ndarray,
    y: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
    given: Settings,
    split: int = 0,
) -> Score:
    """Sample one posterior and score it on the test rows; ``split`` is the seed."""
    import mdnet
    from mdnet import analysis, integrators, reporters

    clock, cpu = time.perf_counter(), time.process_time()
    inputs, tests, _ = scaled(X, X_test)
    targets, goals, spread = scaled(y, y_test)
    U = posterior(inputs, targets, given.units)
    hmc = integrators.HMC(
        dt=given.dt,
        steps=given.steps,
        target_acceptance=0.8,
        warmup=given.warmup,
        jitter=0.2,
    )
    sim = mdnet.Simulation(U, hmc, replicas=given.replicas, seed=split)
    sim.run(given.warmup)
    record = reporters.Memory(every=max(1, given.draws // given.keep))
    sim.run(given.draws, reporters=[record])
    draws = [np.asarray(q, np.float64) for q in record.positions]
    means = np.stack([U.predict(q, tests)[..., 0] for q in draws])
    density = np.stack([U.log_likelihood(q, tests, goals) for q in draws])
    every = (-1, len(goals))
    miss = means.reshape(every).mean(axis=0) - goals
    chains = means.swapaxes(0, 1)
    rhat = np.asarray(analysis.rhat(chains).value)
    noise = np.exp(np.stack(draws)[..., U.layout["likelihood.log_noise"][0]])
    return Score(
        split=split,
        rmse=float(np.sqrt((miss**2).mean()) * spread),
        log_likelihood=float(mixture(density.reshape(every)).mean() - np.log(spread)),
        noise=float(noise.mean() * spread),
        rhat_median=float(np.median(rhat)),
        rhat_most=float(rhat.max()),
        ess_median=float(np.median(analysis.ess(chains).value)),
        acceptance=float(record["acceptance"].value.mean()),
        cpu_seconds=time.process_time() - cpu,
        wall_seconds=time.perf_counter() - clock,
    )


def one_split(task: tuple[str, str, int, Settings]) -> Score:
    """Score of one split of one set; runs on one thread."""
    import numba

    folder, name, split, given = task
    numba.set_num_threads(1)
    data = load(Path(folder), name)
    train, test = data["train"][split], data["test"][split]
    X, y = data["X"], data["y"]
    return sample(X[train], y[train], X[test], y[test], given, split)


def average(values: list[float]) -> tuple[float, float]:
    """Mean over splits and its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)


def row(name: str, scores: list[Score]) -> str:
    """A line of the table."""
    _, rmse, log_likelihood = SETS[name]
    error, error_se = average([s.rmse for s in scores])
    density, density_se = average([s.log_likelihood for s in scores])
    cpu = sum(s.cpu_seconds for s in scores)
    return (
        f"| {name} | {len(scores)} | {error:.2f} ± {error_se:.2f} | {rmse:.2f} "
        f"| **{density:.2f} ± {density_se:.2f}** | {log_likelihood:.2f} "
        f"| {np.median([s.rhat_median for s in scores]):.2f} "
        f"| {max(s.rhat_most for s in scores):.2f} "
        f"| {np.median([s.ess_median for s in scores]):.0f} "
        f"| {cpu / 120:.1f} |"
    )


HEAD = (
    "| set | splits | RMSE | MC dropout | log likelihood | MC dropout "
    "| R̂ median | R̂ most | ESS median | minutes, 2 cores |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def save(out: Path, scores: dict[str, list[Score]]) -> None:
    """Write the table and every split's scores."""
    out.mkdir(parents=True, exist_ok=True)
    body = "\n".join(row(name, scores[name]) for name in SETS if scores.get(name))
    text = (
        "# Networks of 50 hidden units on the UCI sets\n\n"
        "Posterior mean and mixture over all draws and replicas, mean ± standard "
        "error over splits; R̂ and ESS of the predictions at the test inputs, their "
        "median over splits and the largest R̂ of all; minutes of CPU time over two.  "
        "See `benchmarks/uci.py`.\n\n"
        f"{HEAD}\n{body}\n\n"
        f"{platform.machine()}, Python {platform.python_version()}, NumPy "
        f"{np.__version__}.\n"
    )
    (out / "uci.md").write_text(text, "utf-8")
    record = {
        name: {
            "settings": asdict(CHOSEN[name]),
            "scores": [asdict(s) for s in sorted(found, key=lambda s: s.split)],
        }
        for name, found in scores.items()
    }
    (out / "uci.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def done(out: Path, names: list[str]) -> dict[str, list[Score]]:
    """Scores of an earlier run, where its settings were those of this one."""
    path = out / "uci.json"
    found: dict[str, list[Score]] = {name: [] for name in names}
    record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name, kept in record.items():
        if kept["settings"] == asdict(CHOSEN[name]):
            found[name] = [Score(**score) for score in kept["scores"]]
    return found


def main() -> None:
    """Run the splits that have no score yet, and save after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("MDNET_DATA"), type=Path)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    if given.data is None:
        raise SystemExit("give --data FOLDER, or set MDNET_DATA")
    scores = done(given.out, given.sets)
    tasks = [
        (str(given.data), name, split, CHOSEN[name])
        for split in range(given.splits)
        for name in given.sets
        if split not in {s.split for s in scores[name]}
    ]
    with ProcessPoolExecutor(given.workers) as pool:
        running = {pool.submit(one_split, task): task[1] for task in tasks}
        for future in as_completed(running):
            name = running[future]
            scores[name].append(future.result())
            print(row(name, scores[name]), flush=True)
            save(given.out, scores)


if __name__ == "__main__":
    main()
