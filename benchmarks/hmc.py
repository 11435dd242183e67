"""Speed of Hamiltonian Monte Carlo: trajectories of a 13-50-1 network on 455 rows.

    python benchmarks/hmc.py --peers .venv-peers/bin/python

Programs take turns in one run; see README.md for what is measured and how.
"""

from __future__ import annotations

from typing import Any

from command import arguments, wanted
from race import Entrant, fastest, race, ratio
from report import Section, save

TURNS = 30
CHAIN = {"problem": "small", "noise": 10**-0.5, "dt": 4e-3}
PEERS = {
    "JAX, plain": "plain",
    "BlackJAX (JAX)": "blackjax",
    "NumPyro (JAX)": "numpyro",
}


def entrants(given: Any, problem: dict[str, Any], threads: int) -> list[Entrant]:
    """mdnet and every peer."""
    task = {"scheme": "hmc", "turns": TURNS, "problem": problem}
    ours = task | {"program": "mdnet_small"}
    found = [Entrant("mdnet", "mdnet", ours, "small_ours.py", threads=threads)]
    if given.peers is not None:
        found += [
            Entrant(
                label,
                "peer",
                task | {"program": "jax_hmc", "library": library},
                "hmc_peers.py",
                given.peers,
                threads=threads,
            )
            for label, library in PEERS.items()
        ]
    return found


def main() -> None:
    """Run every section and save the tables."""
    given = arguments(__doc__ or "")
    sections: list[Section] = []
    settings = {"turns": given.repeats, "seconds_of_a_turn": given.seconds}
    text = (
        "13-50-1 tanh, 455 rows, all of them in each force, Gaussian noise, N(0, 1) "
        f"prior, T = 1; a step is a trajectory of {TURNS} leapfrog steps and its test. "
        "Loss (mean of all rows and chains) and acceptance are those of the first 100 "
        "trajectories, 20 where there are many chains."
    )
    for threads, clock in ((1, "cpu"), (2, "wall")):
        words = {1: "one thread, CPU time", 2: "two threads, wall time"}[threads]
        for chains in (1, 100):
            name = "one chain" if chains == 1 else f"{chains} chains"
            section = Section(
                f"{name.capitalize()}: {words}",
                text,
                clock,
                chains * TURNS,
                "ns a gradient",
                "mdnet",
            )
            if not wanted(given, section.title):
                continue
            settle = {"settle": 100 if chains == 1 else 20}
            programs = entrants(given, CHAIN | {"replicas": chains} | settle, threads)
            print(f"{section.title}: {len(programs)} programs", flush=True)
            quiet = given.quiet if clock == "wall" else 0.0
            section.results = race(programs, given.repeats, given.seconds, quiet)
            mine, best = section.find("mdnet"), fastest(section.results, clock)
            if mine is not None and best is not None:
                section.extra.append(
                    f"**mdnet: {1e9 / section.per_unit(mine):,.0f} gradients/s, "
                    f"{ratio(best, mine, clock):.2f} times the speed of "
                    f"{best.entrant.label}**, the fastest peer ({clock} time)."
                )
            sections.append(section)
            print(section.table(), flush=True)
            save("hmc", "Hamiltonian Monte Carlo", sections, settings, given.out)


if __name__ == "__main__":
    main()
