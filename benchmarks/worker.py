"""A benchmark program: kept alive in its own process, told over a pipe when to run.

The process reads its task (JSON) from the command line, builds the program, then
answers one line of JSON to each line of standard input:

=============  ====================================================================
``run N``      makes N steps: ``{"steps", "wall", "cpu"}`` in seconds, all threads
``check``      correctness figures and peak memory
``end``        leaves
=============  ====================================================================

Needs the standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Program:
    """What a builder returns.

    ``advance(n)`` makes n steps and waits for the result; ``check()`` returns figures
    of correctness; ``versions`` names what was used.
    """

    advance: Callable[[int], None]
    check: Callable[[], dict[str, float]] = dict
    versions: dict[str, str] = field(default_factory=dict)
    settle: int = 0


def run(program: Program, steps: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    program.advance(steps)
    return {
        "steps": steps,
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
    }


def calibrate(program: Program, seconds: float) -> int:
    """Steps that take about ``seconds``."""
    steps, took = 2, run(program, 2)
    while took["wall"] < seconds / 4:
        grow = seconds / 2 / max(took["wall"], 1e-6)
        steps = int(steps * min(8, max(2, grow)))
        took = run(program, steps)
    return max(1, round(steps * seconds / took["wall"]))


def serve(builders: dict[str, Callable[[dict[str, Any]], Program]]) -> None:
    """Build the program that the command line names, and answer until told to end."""
    task = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print: not there

    def say(record: dict[str, Any]) -> None:
        print(json.dumps(record), file=answers, flush=True)

    cores = os.sched_getaffinity(0)
    if task["threads"] < len(cores):  # thread pools take their size from this ...
        os.sched_setaffinity(0, sorted(cores)[-task["threads"] :])
    program = builders[task["program"]](task)
    done = 3
    for steps in (1, 2):  # compiles; twice, as some states change type in a first step
        program.advance(steps)
    for thread in os.listdir("/proc/self/task"):  # ... and run where there is room
        os.sched_setaffinity(int(thread), cores)
    if program.settle > done:
        program.advance(program.settle - done)
    figures = program.check()
    steps = calibrate(program, task["seconds"])
    say({"steps": steps, "check": figures, "versions": program.versions})
    for line in sys.stdin:
        if line.startswith("run"):
            say(run(program, int(line.split()[1])))
        elif line.startswith("check"):
            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            say({**program.check(), "rss_mb": kilobytes / 1024})
        else:
            return
