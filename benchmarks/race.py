"""Programs take turns, A B A B ..., each alive in its own process, in one run.

Only ratios of one run count: the machine's clock, caches and other users change from
one minute to the next, and alternate programs share what they do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(frozen=True, slots=True)
class Entrant:
    """One program of a race.

    ``kind`` is "mdnet", "peer" or "limit"; ``task`` goes to the worker as it is;
    ``same`` says whether it does the same physics (peers that do not are shown, and
    not counted); ``script`` and ``python`` run it.
    """

    label: str
    kind: str
    task: dict[str, Any]
    script: str = "ours.py"
    python: str = sys.executable
    threads: int = 1
    same: bool = True
    note: str = ""
    work: int = 0
    """What its step does, where that is not what the others' steps do."""


@dataclass(slots=True)
class Result:
    """Times of one entrant, in seconds a step, one of each turn."""

    entrant: Entrant
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    """Cores that other programs of the machine used meanwhile."""
    steps: int = 0
    check: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    failed: str = ""

    def median(self, clock: str) -> float:
        return statistics.median(getattr(self, clock))

    def spread(self, clock: str) -> float:
        """Half the range between the quartiles, over the median."""
        times = getattr(self, clock)
        if len(times) < 3:
            return 0.0
        low, _, high = statistics.quantiles(times, n=4)
        return (high - low) / 2 / self.median(clock)


def busy() -> float:
    """Seconds that all cores together have worked since the start (Linux)."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def wait_quiet(seconds: float) -> None:
    """Wait until less than a tenth of a core is used, but no longer than this."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start, work = time.monotonic(), busy()
        time.sleep(0.3)
        if busy() - work < 0.1 * (time.monotonic() - start):
            return


class _Process:
    def __init__(self, entrant: Entrant, seconds: float) -> None:
        task = {**entrant.task, "threads": entrant.threads, "seconds": seconds}
        threads = dict.fromkeys(POOLS, str(entrant.threads))
        # A file, not a pipe: nobody reads it while the program runs.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [entrant.python, str(HERE / entrant.script), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **threads},
        )

    def answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()  # negative: the signal that ended it
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            errors = [line for line in said if "Error" in line]
            raise RuntimeError((errors or said or [f"ended with status {status}"])[-1])
        return json.loads(line)

    def ask(self, line: str) -> dict[str, Any]:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        self._process.communicate("end\n")
        self._errors.close()


def race(
    entrants: list[Entrant], repeats: int, seconds: float, quiet: float = 0.0
) -> list[Result]:
    """Set up every program in turn, then let them take turns ``repeats`` times.

    Before each turn, wait at most ``quiet`` seconds for other programs to rest.
    """
    results, alive = [], []
    for entrant in entrants:
        result = Result(entrant)
        results.append(result)
        process = _Process(entrant, seconds)
        try:
            ready = process.answer()
        except RuntimeError as error:
            result.failed = str(error)
            print(f"  {entrant.label}: {error}", file=sys.stderr)
            continue
        result.steps = ready["steps"]
        result.check, result.versions = ready["check"], ready["versions"]
        alive.append((result, process))
        print(f"  ready: {entrant.label}", file=sys.stderr)
    for _ in range(repeats):
        for result, process in alive:
            wait_quiet(quiet)
            before = busy()
            took = process.ask(f"run {result.steps}")
            others = (busy() - before - took["cpu"]) / took["wall"]
            result.others.append(max(0.0, others))
            result.cpu.append(took["cpu"] / took["steps"])
            result.wall.append(took["wall"] / took["steps"])
    for result, process in alive:
        result.check["rss_mb"] = process.ask("check")["rss_mb"]
        process.end()
    return results


def ratio(slower: Result, faster: Result, clock: str) -> float:
    """How many times faster: the median of the ratios of the turns."""
    pairs = zip(getattr(slower, clock), getattr(faster, clock), strict=True)
    return statistics.median(a / b for a, b in pairs)


def fastest(results: list[Result], clock: str, framework: str = "") -> Result | None:
    """The fastest peer that does the same physics (of one framework)."""
    peers = [
        r
        for r in results
        if not r.failed
        and r.entrant.kind == "peer"
        and r.entrant.same
        and framework in r.entrant.label
    ]
    return min(peers, key=lambda r: r.median(clock), default=None)
