"""The command line that `step.py` and `network.py` share."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from race import HERE, Entrant
from report import RESULTS

MAKE_PEERS = """\
the peers live in a virtual environment of their own:
  python -m venv .venv-peers
  .venv-peers/bin/pip install torch==2.13.0 jax blackjax posteriors sgmcmcjax \\
      jax-md numpyro h5py numba
"""


def arguments(description: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=MAKE_PEERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        help="interpreter of the peers' environment (.venv-peers/bin/python if it is "
        "there; without one only mdnet and the limits run)",
    )
    parser.add_argument("--repeats", type=int, default=9, help="turns of each program")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument(
        "--quiet",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="before a turn by wall time, wait at most so long for others to rest",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--only", nargs="*", metavar="WORD", help="sections to run")
    given = parser.parse_args()
    if given.peers is None:
        found = HERE.parent / ".venv-peers" / "bin" / "python"
        given.peers = str(found) if found.exists() else None
    elif shutil.which(given.peers) is None:
        parser.error(f"--peers {given.peers}: no such interpreter; {MAKE_PEERS}")
    return given


def wanted(given: argparse.Namespace, title: str) -> bool:
    """Whether ``--only`` asks for the section of this title."""
    return not given.only or any(word.lower() in title.lower() for word in given.only)


def peer(given: argparse.Namespace, label: str, **task: Any) -> list[Entrant]:
    """A peer's entrant, in a list; none without an interpreter for it.

    ``same``, ``note`` and ``threads`` go to the entrant, all else to the program.
    """
    if given.peers is None:
        return []
    known = ("same", "note", "threads")
    settings = {key: task.pop(key) for key in known if key in task}
    task["program"] = "torch" if label.startswith("PyTorch") else "jax"
    return [Entrant(label, "peer", task, "peers.py", given.peers, **settings)]
