"""Speed of sampling networks of a few hundred weights, one and many at a time.

    python benchmarks/small.py --peers .venv-peers/bin/python

Programs take turns in one run; see README.md for what is measured and how.
"""

from __future__ import annotations

from typing import Any

from command import arguments, wanted
from race import Entrant, fastest, race, ratio
from report import Section, save

NOISE = 10**-0.5
CHAIN = {"problem": "small", "noise": NOISE}
NETS = {
    "problem": "small",
    "sizes": (2, 20, 20, 1),
    "rows": 1000,
    "batch": 100,
    "dt": 2e-2,
    "settle": 500,
}
FULL = NETS | {"batch": 0, "dt": 5e-3, "settle": 200}


def entrants(given, scheme: str, problem: dict[str, Any], threads: int):
    """mdnet and every peer on one problem."""
    task = {"scheme": scheme, "problem": problem}
    ours = task | {"program": "mdnet_small"}
    found = [
        Entrant("mdnet", "mdnet", ours, "small_ours.py", threads=threads),
        Entrant(
            "mdnet, force alone",
            "mdnet",
            ours | {"only": "force"},
            "small_ours.py",
            threads=threads,
        ),
    ]
    if given.peers is None:
        return found
    peers = {
        "JAX, plain": {"program": "jax_small"},
        "JAX, plain, rbg generator": {"program": "jax_small", "prng": "rbg"},
        "PyTorch, eager in place": {"program": "torch_small"},
    }
    if scheme == "leapfrog":  # draws no numbers
        del peers["JAX, plain, rbg generator"]
    return found + [
        Entrant(
            label, "peer", task | more, "small_peers.py", given.peers, threads=threads
        )
        for label, more in peers.items()
    ]


def main() -> None:
    """Run every section and save the tables."""
    given = arguments(__doc__ or "")
    sections: list[Section] = []
    settings = {"turns": given.repeats, "seconds_of_a_turn": given.seconds}

    def run(title: str, text: str, scheme: str, problem: dict[str, Any], threads: int):
        clock = "cpu" if threads == 1 else "wall"
        words = {1: "one thread, CPU time", 2: "two threads, wall time"}[threads]
        replicas = problem.get("replicas", 1)
        section = Section(
            f"{title}: {words}", text, clock, replicas, "ns a step and net", "mdnet"
        )
        if not wanted(given, section.title):
            return
        programs = entrants(given, scheme, problem, threads)
        print(f"{section.title}: {len(programs)} programs", flush=True)
        quiet = given.quiet if clock == "wall" else 0.0
        section.results = race(programs, given.repeats, given.seconds, quiet)
        mine, best = section.find("mdnet"), fastest(section.results, clock)
        if mine is not None and best is not None:
            section.extra.append(
                f"**mdnet: {ratio(best, mine, clock):.2f} times the speed of "
                f"{best.entrant.label}**, the fastest peer ({clock} time)."
            )
        sections.append(section)
        print(section.table(), flush=True)
        save("small", "Steps of small networks", sections, settings, given.out)

    text = (
        "13-50-1 tanh, 455 rows, all of them in each force, Gaussian noise, N(0, 1) "
        "prior; a step of leapfrog is one gradient.  Loss: mean of all rows and nets "
        "at the end of what was timed before."
    )
    for threads in (1, 2):
        for replicas in (1, 100):
            name = "one chain" if replicas == 1 else f"{replicas} chains"
            problem = CHAIN | {"replicas": replicas}
            run(f"Leapfrog, {name}", text, "leapfrog", problem, threads)
    text = (
        "2-20-20-1 tanh, 1,000 rows, BAOAB on batches of 100 drawn with replacement, "
        "or on all rows; N(0, 1) prior, T = 1."
    )
    for title, base in (("batches", NETS), ("all rows", FULL)):
        for replicas, threads in ((1, 1), (1000, 2)):
            name = "one net" if replicas == 1 else f"{replicas:,} nets"
            few = {"settle": 20} if replicas > 1 and title == "all rows" else {}
            problem = base | {"replicas": replicas} | few
            run(f"BAOAB, {name}, {title}", text, "baoab", problem, threads)


if __name__ == "__main__":
    main()
