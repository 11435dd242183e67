"""What a force call costs with every integrator, beside one with BAOAB.

    python benchmarks/integrators.py

All methods of the catalogue take turns in one process, on one thread: a 784-100-10
network whose force is dear, a million weights whose forces are given as an array, and
the same with forces made inside the kernels, where they cost nothing.
"""

# ruff: noqa: E402 (threads are counted before NumPy is loaded)
from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
for pool in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[pool] = "1"

import numpy as np
from command import arguments, wanted
from ours import posterior
from problems import Classifier
from report import machine

import mdnet
from mdnet import integrators, potentials
from mdnet.integrators.catalog import CATALOG

ROWS, SIZE = 500, 1_000_000
LIMIT = 1.3
REFERENCE = "BAOAB"
PROBLEMS = {
    "batches": "784-100-10 relu, batches of 500 of 10,000 rows",
    "all rows": "784-100-10 relu, all of 500 rows",
    "given": "10^6 harmonic weights, forces in an array",
    "fused": "10^6 harmonic weights, forces made in the kernels",
}
TWO = ("ReplicaExchange of BAOAB", "SimulatedTempering of BAOAB")
REPLICAS = {**dict.fromkeys(TWO, 2), "EnsembleQuasiNewton": 4}
FAMILIES = ("Metropolised: exact at any step",)

WHY = {
    "OBABO": "two baths a step: two normals a weight instead of one",
    "OABAO": "two baths a step: two normals a weight instead of one",
    "UBU": "three normals a weight and step instead of one",
    "BBK": "normals of two steps at a time",
    "Isokinetic": "a kick needs F.F and F.p before it turns momenta, in passes of "
    "their own and in double precision",
    "SGHMC": "the noise of each weight's force is measured: two forces before and a "
    "variance are read and written, 24 bytes a weight more",
    "NoiseMatched": "as SGHMC",
    "SGNHT": "a break in the step, where the friction needs the kinetic energy",
    "CCAdL": "as SGHMC, and an exponential and a square root for each weight's own "
    "friction",
    "RandomWalkMetropolis": "an energy in double precision where others need a force; "
    "the state is saved",
    "MALA": "every step is saved, and tested with an energy in double precision",
    "GHMC": "every step is saved, and tested with an energy in double precision",
    "HMC": "paths are saved, and tested with an energy in double precision",
    "NUTS": "ends, sums of momenta and a drawn point: arrays that are copied, and "
    "dot products of them after each doubling",
    "MCLMC": "a kick needs F.F and F.p before it turns momenta, in passes of their "
    "own and in double precision",
    "ReplicaExchange of BAOAB": "an energy of all data every few steps",
    "SimulatedTempering of BAOAB": "an energy of all data every few steps",
    "EnsembleQuasiNewton": "half of the replicas move in a step, and forces are those "
    "of all; matrices of the others' positions turn forces and momenta",
    "BAOAB on surfaces": "sums over each sphere after every kick, bath and drift: five "
    "passes a step",
    "RESPA of BAOAB": "eight short steps of the fast force a step, each with its force",
}
"""Why a method costs more than `LIMIT` somewhere."""


@dataclass(slots=True)
class Row:
    """A method on a problem: CPU seconds a force call, one of each turn."""

    name: str
    problem: str
    sim: Any
    calls: float = 0.0
    steps: int = 1
    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.seconds)

    def turn(self) -> None:
        start = time.process_time()
        self.sim.run(self.steps)
        took = time.process_time() - start
        self.seconds.append(took / (self.steps * self.calls))


def problem(kind: str, split: bool) -> Any:
    """The potential of a kind of problem, as a fast and a slow part if asked for."""
    if kind in ("given", "fused"):
        stiffness = np.ones(SIZE) if kind == "given" else 1.0
        whole = potentials.Harmonic(stiffness=stiffness, size=SIZE)
        return 0.5 * whole + 0.5 * whole if split else whole
    full = posterior(Classifier(rows=10_000 if kind == "batches" else ROWS))
    used = full.minibatch(ROWS, order="replacement") if kind == "batches" else full
    return potentials.Harmonic(stiffness=1.0, size=full.size) + used if split else used


def build(entry: Any, kind: str) -> Row:
    """A simulation that is ready to run, its code compiled."""
    replicas = REPLICAS.get(entry.name, 1)
    dt = 1e-3 if kind in ("batches", "all rows") else 0.2
    if entry.family == "Overdamped":
        dt = dt * dt / 2
    method = entry.make(dt=dt)
    if entry.name == "NUTS":
        method = integrators.NUTS(dt, max_depth=4)
    elif entry.name == "EnsembleQuasiNewton":
        method = integrators.EnsembleQuasiNewton(dt, floor=1.0)
    U = problem(kind, entry.name == "RESPA of BAOAB")
    scale = 1.0 if kind in ("given", "fused") else 0.03
    start = scale * np.random.default_rng(1).normal(size=(replicas, U.size))
    sim = mdnet.Simulation(U, method, replicas, start, seed=1, backend="cpu")
    row = Row(entry.name, kind, sim)
    sim.run(3)
    row.calls = max(entry.force_calls, 1) * replicas
    if entry.name == "NUTS":
        row.calls = counted(sim)
    return row


def counted(sim: Any) -> float:
    """Force calls a step of NUTS, where they vary."""
    total = 0.0
    for _ in range(20):
        sim.run(1)
        total += float(sim.scalars()["leapfrog_steps"].sum())
    return total / 20


def calibrate(row: Row, seconds: float) -> None:
    """Find how many steps take about ``seconds``."""
    while True:
        start = time.process_time()
        row.sim.run(row.steps)
        took = time.process_time() - start
        if took > seconds / 3:
            row.steps = max(1, round(row.steps * seconds / took))
            return
        row.steps *= 2


def measure(kind: str, repeats: int, seconds: float) -> list[Row]:
    """Every method that the problem suits, in turns."""
    rows = []
    for entry in CATALOG:
        tested = entry.family in FAMILIES or entry.name in TWO
        suits = kind in ("given", "fused") or (kind == "all rows") == tested
        if not suits and entry.name != REFERENCE:
            continue
        try:
            row = build(entry, kind)
            calibrate(row, seconds)
        except mdnet.errors.MdnetError as error:
            print(f"  {entry.name}: {error}", file=sys.stderr)
            continue
        rows.append(row)
    for _ in range(repeats):
        for row in rows:
            row.turn()
    return rows


def table(rows: list[Row]) -> str:
    """Markdown: a line a method, a column a problem."""
    base = {row.problem: row.best for row in rows if row.name == REFERENCE}
    kinds = [kind for kind in PROBLEMS if kind in base]
    names = [e.name for e in CATALOG if any(row.name == e.name for row in rows)]
    lines = [
        ["method", "forces a step", *kinds, f"why more than {LIMIT:g}"],
        ["---"] * (len(kinds) + 3),
    ]
    for name in names:
        entry = next(e for e in CATALOG if e.name == name)
        cells, worst = [], 0.0
        for kind in kinds:
            found = [r for r in rows if r.name == name and r.problem == kind]
            ratio = found[0].best / base[kind] if found else None
            cells.append("" if ratio is None else f"{ratio:.2f}")
            worst = max(worst, ratio or 0.0)
        why = WHY.get(name, "") if worst > LIMIT else ""
        lines.append([name, str(entry.force_calls), *cells, why])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print and save."""
    given = arguments(__doc__ or "")
    rows: list[Row] = []
    for kind, text in PROBLEMS.items():
        if wanted(given, text):
            rows += measure(kind, given.repeats, given.seconds / 5)
            print(f"{text}: done", file=sys.stderr)
    here = machine() | {"turns": given.repeats, "seconds_of_a_turn": given.seconds / 5}
    base = [row for row in rows if row.name == REFERENCE]
    units = {"batches": 1e3, "all rows": 1e3}
    costs = [
        f"- {PROBLEMS[row.problem]} (“{row.problem}”): {REFERENCE} takes "
        + (
            f"{row.best * units[row.problem]:.3f} ms"
            if row.problem in units
            else f"{row.best * 1e9 / SIZE:.2f} ns a weight"
        )
        + " a force call"
        for row in base
    ]
    how = (
        "CPU time of one thread per force call (RandomWalkMetropolis: per energy; "
        "tempering: per replica), the shortest of the turns, over that of BAOAB.  "
        "Tested methods need the energy of all data and run on all rows.  With forces "
        "made in the kernels plain words run many steps while a block lies in cache; "
        "what needs sums over all weights in a step cannot.  NUTS makes paths of at "
        "most 15 steps here; EnsembleQuasiNewton runs four replicas."
    )
    text = "\n\n".join(
        [
            "# Cost of a force call with every integrator",
            how,
            "\n".join(f"- {k.replace('_', ' ')}: {v}" for k, v in here.items()),
            "\n".join(costs),
            table(rows),
        ]
    )
    print(text)
    given.out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": here,
        "problems": PROBLEMS,
        "rows": [
            {
                "name": row.name,
                "problem": row.problem,
                "calls_a_step": row.calls,
                "seconds_a_call": row.seconds,
            }
            for row in rows
        ],
    }
    (given.out / "integrators.json").write_text(json.dumps(record, indent=1) + "\n")
    (given.out / "integrators.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
