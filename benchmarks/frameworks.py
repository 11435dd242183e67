"""Speed of modules from PyTorch and JAX: a step of mdnet over a step of training.

    python benchmarks/frameworks.py --peers .venv-peers/bin/python

The host framework gathers a batch, runs forward and backward and moves the weights
down the gradient; mdnet does so through `from_torch` or `from_jax`, and adds the noise
of SGLD.  Both run in the peers' interpreter, mdnet from this checkout.  Programs take
turns in one run; see README.md for what is measured and how.
"""

from __future__ import annotations

from typing import Any

from command import MAKE_PEERS, arguments, wanted
from race import Entrant, race, ratio
from report import Section, save

MLP = {"network": "mlp", "batch": 500}
CNN = {"network": "cnn", "batch": 100}
FLOPS = {
    "mlp": 2 * 500 * (2 * (784 * 100 + 100 * 10) + 100 * 10),
    # Two convolutions and a layer, forward; twice that backward, but for the images.
    "cnn": 2 * 100 * (2 * 26**2 * 72 + 3 * (11**2 * 1152 + 4000)),
}
TEXT = {
    "mlp": "784-100-10 relu, batches of 500 of 10,000 rows float32, with replacement",
    "cnn": "two convolutions of 8 and 16 channels, 3 x 3, relu and pooling on 28 x 28 "
    "images, batches of 100 of 10,000, with replacement",
}


def entrants(given: Any, framework: str, task: dict[str, Any], threads: int):
    """Training in the framework, and mdnet with the same model."""

    def one(label: str, kind: str, program: str) -> Entrant:
        return Entrant(
            label,
            kind,
            {"program": program, "framework": framework, **task},
            "frameworks_peers.py",
            given.peers,
            threads=threads,
        )

    name = {"torch": "PyTorch", "jax": "JAX"}[framework]
    return [
        one(f"{name}, training", "peer", "training"),
        one(f"mdnet, from_{framework}", "mdnet", "sampling"),
    ]


def main() -> None:
    """Run every section and save the tables."""
    given = arguments(__doc__ or "")
    if given.peers is None:
        raise SystemExit(MAKE_PEERS)
    sections: list[Section] = []
    settings = {"turns": given.repeats, "seconds_of_a_turn": given.seconds}
    for framework in ("torch", "jax"):
        for network, task in (("mlp", MLP), ("cnn", CNN)):
            for replicas in (1, 16):
                who = "one replica" if replicas == 1 else f"{replicas} replicas"
                section = Section(
                    f"{framework} {network}, {who}: one thread, CPU time",
                    f"{TEXT[network]}; each replica has batches of its own.",
                    "cpu",
                    replicas * FLOPS[network],
                    "GFLOP/s",
                    f"mdnet, from_{framework}",
                )
                if not wanted(given, section.title):
                    continue
                programs = entrants(given, framework, task | {"replicas": replicas}, 1)
                print(section.title, flush=True)
                section.results = race(programs, given.repeats, given.seconds)
                theirs, ours = section.results
                if not theirs.failed and not ours.failed:
                    section.extra.append(
                        f"**A step of mdnet takes {ratio(ours, theirs, 'cpu'):.2f} "
                        f"times as long as a step of training.**"
                    )
                sections.append(section)
                print(section.table(), flush=True)
                save("frameworks", "Other frameworks", sections, settings, given.out)


if __name__ == "__main__":
    main()
