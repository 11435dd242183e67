"""Speed of the integrator itself: BAOAB on harmonic parameters, where forces are free.

    python benchmarks/step.py --peers .venv-peers/bin/python

Programs take turns in one run; see README.md for what is measured and how.
"""

from __future__ import annotations

from typing import Any

from command import arguments, peer, wanted
from race import Entrant, fastest, race, ratio
from report import Section, save

MILLION = {"problem": "harmonic", "size": 1_000_000}
TEN_MILLION = {"problem": "harmonic", "size": 10_000_000, "settle": 20}
REPLICAS = {"problem": "harmonic", "size": 10_000, "replicas": 64}
MANY = "mdnet, force fused, many steps a launch"
SINGLE = "mdnet, force fused, one step a launch"
GIVEN = "mdnet, force given as an array"
NS = "ns a parameter"
NO_BAOAB = "SGHMC (Euler): the library has no BAOAB; not counted as a peer"


def ours(label: str, problem: dict[str, Any], threads: int = 1, **task: Any) -> Entrant:
    """A program of mdnet."""
    task = {"program": "mdnet_harmonic", "scheme": "baoab", "problem": problem} | task
    task.setdefault("stiffness", "scalar")
    return Entrant(label, "mdnet", task, threads=threads)


def limit(label: str, program: str, problem: dict[str, Any], threads: int = 1):
    """A limit of the machine, or NumPy."""
    task = {"program": program, "problem": problem}
    return Entrant(label, "limit", task, threads=threads)


def peers(given, problem: dict[str, Any], threads: int = 1) -> list[Entrant]:
    """Every peer that can do the problem."""

    def one(label: str, library: str, **more: Any) -> list[Entrant]:
        more |= {"library": library, "scheme": "baoab", "problem": problem}
        return peer(given, label, threads=threads, **more)

    return [
        *one("JAX, plain", "plain"),
        *one("JAX, plain, rbg generator", "plain", prng="rbg"),
        *one("JAX MD", "jax_md"),
        *one("SGMCMCJax (JAX)", "sgmcmcjax"),
        *one("BlackJAX (JAX)", "blackjax", same=False, note=NO_BAOAB),
        *one("PyTorch, eager in place", "eager"),
        *one("PyTorch, compiled", "compiled"),
        *one("PyTorch, posteriors (BAOA)", "posteriors"),
    ]


def statements(section: Section, labels: list[str]) -> None:
    """Say how mdnet compares with the fastest peers, and two threads with one."""
    for label in (MANY, SINGLE, GIVEN):
        one, two = (section.find(f"{label}, {n}") for n in ("1 thread", "2 threads"))
        if one and two:
            section.extra.append(
                f"{label}: two threads are {ratio(one, two, 'wall'):.2f} times one."
            )
    for label in labels:
        mine = section.find(label)
        for framework in ("JAX", "PyTorch"):
            best = fastest(section.results, section.clock, framework)
            if mine is None or best is None:
                continue
            section.extra.append(
                f"**{label}: {ratio(best, mine, section.clock):.1f} times the speed of "
                f"{best.entrant.label}**, the fastest {framework} program "
                f"({section.clock} time)."
            )


def main() -> None:
    """Run every section and save the tables."""
    given = arguments(__doc__ or "")
    sections: list[Section] = []
    settings = {"turns": given.repeats, "seconds_of_a_turn": given.seconds}

    def finish(section: Section) -> None:
        sections.append(section)
        print(section.table(), flush=True)
        save("step", "Integrator steps", sections, settings, given.out)

    def run(section: Section, entrants: list[Entrant], labels: list[str]) -> None:
        if not wanted(given, section.title):
            return
        print(f"{section.title}: {len(entrants)} programs", flush=True)
        quiet = given.quiet if section.clock == "wall" else 0.0
        section.results = race(entrants, given.repeats, given.seconds, quiet)
        statements(section, labels)
        finish(section)

    title = "One thread: 1,000,000 float32 parameters"
    text = (
        "BAOAB, h = 0.2, friction 1, T = 1, fresh normals each step; process CPU time; "
        "ns are those of one step.  “Many steps a launch” makes up to a "
        "thousand steps on a block of 2,048 parameters while it lies in the "
        "first-level cache, which only a force of each parameter alone allows; “one "
        "step a launch” passes over all parameters each step; “force given” reads an "
        "array that the potential wrote before, as with a network; “run(1)” stops "
        "after each step with everything readable."
    )
    run(
        Section(title, text, "cpu", 10**6, NS, MANY),
        [
            ours(MANY, MILLION),
            ours(SINGLE, MILLION, mode="single"),
            ours(GIVEN, MILLION, stiffness="array"),
            ours("mdnet, run(1) each step", MILLION, mode="observed"),
            ours("mdnet, fused, mixed precision", MILLION, precision="mixed"),
            ours("mdnet, fused, double precision", MILLION, precision="double"),
            ours(
                "mdnet, given, double precision",
                MILLION,
                precision="double",
                stiffness="array",
            ),
            limit("copy limit (q, p in place)", "copy_limit", MILLION),
            limit("NumPy, in place", "numpy_harmonic", MILLION),
            *peers(given, MILLION),
        ],
        [MANY, SINGLE, GIVEN],
    )

    section = Section(
        "Two threads: 1,000,000 float32 parameters",
        "The same; wall time.",
        "wall",
        10**6,
        NS,
        MANY + ", 2 threads",
    )
    run(
        section,
        [
            entrant
            for label, more in (
                (MANY, {}),
                (SINGLE, {"mode": "single"}),
                (GIVEN, {"stiffness": "array"}),
            )
            for entrant in (
                ours(label + ", 2 threads", MILLION, threads=2, **more),
                ours(label + ", 1 thread", MILLION, **more),
            )
        ]
        + [
            limit("copy limit, 2 threads", "copy_limit", MILLION, 2),
            *peers(given, MILLION, threads=2),
        ],
        [f"{label}, 2 threads" for label in (MANY, SINGLE, GIVEN)],
    )
    run(
        Section(
            "One thread: 64 replicas of 10,000 float32 parameters",
            "The same; process CPU time.",
            "cpu",
            640_000,
            NS,
            MANY,
        ),
        [
            ours(MANY, REPLICAS),
            ours(SINGLE, REPLICAS, mode="single"),
            ours(GIVEN, REPLICAS, stiffness="array"),
            limit("NumPy, in place", "numpy_harmonic", REPLICAS),
            *peers(given, REPLICAS),
        ],
        [MANY, SINGLE, GIVEN],
    )

    run(
        Section(
            "One thread: 10,000,000 float32 parameters, out of the last cache",
            "The same; process CPU time.",
            "cpu",
            10**7,
            NS,
            MANY,
        ),
        [
            ours(MANY, TEN_MILLION),
            ours(SINGLE, TEN_MILLION, mode="single"),
            ours(GIVEN, TEN_MILLION, stiffness="array"),
            limit("copy limit (q, p in place)", "copy_limit", TEN_MILLION),
            *[e for e in peers(given, TEN_MILLION) if "eager" in e.label],
            *[e for e in peers(given, TEN_MILLION) if "plain" in e.label],
        ],
        [MANY, SINGLE, GIVEN],
    )


if __name__ == "__main__":
    main()
