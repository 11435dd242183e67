"""Speed of sampling a network: steps of a 784-100-10 classifier on minibatches.

    python benchmarks/network.py --peers .venv-peers/bin/python

Programs take turns in one run; see README.md for what is measured and how.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from command import arguments, peer, wanted
from race import HERE, Entrant, fastest, race, ratio
from report import Section, save

NETWORK = {"problem": "classifier"}
UNDERDAMPED = NETWORK | {"settle": 3000}
REPLICAS = {"problem": "classifier", "replicas": 16, "settle": 50}
SHARED = REPLICAS | {"shared": True}
FLOPS = 2 * 500 * (2 * (784 * 100 + 100 * 10) + 100 * 10)
LARGE = 1536
ONE_BATCH = (
    "SGHMC (Euler), its underdamped method: ten steps a batch, so a tenth of the "
    "gathering; not counted as a peer"
)


def ours(label: str, scheme: str, problem=NETWORK, threads: int = 1, **task: Any):
    """A program of mdnet."""
    task |= {"program": "mdnet_classifier", "scheme": scheme, "problem": problem}
    return Entrant(label, "mdnet", task, threads=threads)


def limit(label: str, program: str, threads: int) -> Entrant:
    """NumPy, or a limit of the machine."""
    task = {"program": program, "problem": NETWORK}
    return Entrant(label, "limit", task, threads=threads)


def blas(threads: int) -> Entrant:
    """A product large enough to reach what the cores can do."""
    task = {"program": "blas_limit", "size": LARGE}
    label = f"one product of {LARGE} x {LARGE} matrices in BLAS"
    return Entrant(label, "limit", task, threads=threads, work=2 * LARGE**3)


def peers(given, scheme: str, problem: dict[str, Any], threads: int) -> list[Entrant]:
    """Every peer that can do the problem."""

    def one(label: str, library: str, **more: Any) -> list[Entrant]:
        more |= {"library": library, "scheme": scheme, "problem": problem}
        return peer(given, label, threads=threads, **more)

    many = problem.get("replicas", 1) > 1
    found = [
        *one("JAX, plain", "plain"),
        *one("JAX, plain, rbg generator", "plain", prng="rbg"),
    ]
    if scheme == "sgld":
        found += one("BlackJAX (JAX)", "blackjax")
        if not many:
            found += one("SGMCMCJax (JAX)", "sgmcmcjax")
    elif not many:
        found += one("BlackJAX (JAX)", "blackjax", same=False, note=ONE_BATCH)
        found += one("SGMCMCJax (JAX)", "sgmcmcjax")
    if not many:
        found += one("PyTorch, eager in place", "eager")
        found += one("PyTorch, posteriors", "posteriors")
    return found


def statement(section: Section, label: str) -> None:
    """Say how mdnet compares with the fastest peers."""
    mine = section.find(label)
    for framework in ("JAX", "PyTorch"):
        best = fastest(section.results, section.clock, framework)
        if mine is not None and best is not None:
            section.extra.append(
                f"**mdnet: {ratio(best, mine, section.clock):.2f} times the speed of "
                f"{best.entrant.label}**, the fastest {framework} program "
                f"({section.clock} time)."
            )


def memory(kind: str) -> dict[str, float]:
    """Peak memory of a run of ten million parameters, in a process of its own."""
    command = [sys.executable, str(HERE / "memory.py"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def memory_section() -> Section:
    """A section of statements only."""
    section = Section(
        "Memory: BAOAB of ten million float32 parameters",
        "Peak resident memory beyond interpreter, libraries and data, in units of the "
        "positions' 40 MB.",
        "cpu",
        1,
        "",
        "",
    )
    for kind in ("harmonic", "network"):
        found = memory(kind)
        section.extra.append(
            f"{kind} ({found['parameters']:,.0f} parameters): "
            f"{found['construction']:.2f} while the simulation is made, "
            f"**{found['run']:.2f} while it runs**."
        )
    return section


def main() -> None:
    """Run every section and save the tables."""
    given = arguments(__doc__ or "")
    sections: list[Section] = []
    settings = {"turns": given.repeats, "seconds_of_a_turn": given.seconds}

    def finish(section: Section) -> None:
        sections.append(section)
        print(section.table(), flush=True)
        save("network", "Network steps", sections, settings, given.out)

    def run(section: Section, entrants: list[Entrant]) -> None:
        if not wanted(given, section.title):
            return
        print(f"{section.title}: {len(entrants)} programs", flush=True)
        quiet = given.quiet if section.clock == "wall" else 0.0
        section.results = race(entrants, given.repeats, given.seconds, quiet)
        statement(section, "mdnet")
        finish(section)

    text = (
        "784-100-10 relu, 10,000 rows float32, batches of 500 drawn with replacement, "
        "N(0, 1) prior, T = 1, one replica; GFLOP/s are the matrix products of a "
        f"step ({FLOPS * 1e-6:.0f} MFLOP) over all of its time; nll is that of all "
        "rows after 500 (BAOAB: 3,000) steps from the same weights."
    )
    for threads, clock in ((1, "cpu"), (2, "wall")):
        words = {1: "one thread, CPU time", 2: "two threads, wall time"}[threads]
        for scheme, problem in (("sgld", NETWORK), ("baoab", UNDERDAMPED)):
            entrants = [ours("mdnet", scheme, problem, threads)]
            if scheme == "sgld":
                entrants += [
                    ours(
                        "mdnet, order shuffle", scheme, threads=threads, order="shuffle"
                    ),
                    ours(
                        "mdnet, run(1) each step",
                        scheme,
                        threads=threads,
                        mode="observed",
                    ),
                    ours("mdnet, force alone", scheme, threads=threads, only="force"),
                    limit("NumPy", "numpy_classifier", threads),
                    limit("the two large products in BLAS", "product_limit", threads),
                    blas(threads),
                ]
            run(
                Section(
                    f"{scheme.upper()}: {words}", text, clock, FLOPS, "GFLOP/s", "mdnet"
                ),
                entrants + peers(given, scheme, problem, threads),
            )
    run(
        Section(
            "16 replicas, SGLD: two threads, wall time",
            "The same, each replica on batches of its own; nll after 50 steps, mean of "
            "the replicas.",
            "wall",
            16 * FLOPS,
            "GFLOP/s",
            "mdnet",
        ),
        [ours("mdnet", "sgld", REPLICAS, 2), *peers(given, "sgld", REPLICAS, 2)],
    )
    run(
        Section(
            "16 replicas, SGLD, one batch for all: two threads, wall time",
            "The same, all replicas on the same batches.",
            "wall",
            16 * FLOPS,
            "GFLOP/s",
            "mdnet",
        ),
        [ours("mdnet", "sgld", SHARED, 2), *peers(given, "sgld", SHARED, 2)],
    )
    if wanted(given, "memory"):
        finish(memory_section())


if __name__ == "__main__":
    main()
