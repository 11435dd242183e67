"""What a run says: the machine, one table a race, a JSON and a Markdown file."""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from race import HERE, Result, ratio

RESULTS = HERE / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, load of others and the date."""
    model, cache = platform.processor(), "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
        elif line.startswith("cache size"):
            cache = line.split(":", 1)[1].strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": model,
        "cache_of_a_core": cache,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}, {platform.libc_ver()[1]}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


@dataclass(slots=True)
class Section:
    """One race and how to read it.

    ``clock`` is "cpu" or "wall"; ``work`` is what a step does, in ``unit``s;
    ``reference`` is the label all ratios are taken against.
    """

    title: str
    text: str
    clock: str
    work: int
    unit: str
    reference: str
    results: list[Result] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def find(self, label: str) -> Result | None:
        """The result of one entrant, unless it failed."""
        found = [r for r in self.results if r.entrant.label == label and not r.failed]
        return found[0] if found else None

    def per_unit(self, r: Result) -> float:
        """Nanoseconds a parameter, or GFLOP/s."""
        seconds, work = r.median(self.clock), r.entrant.work or self.work
        if self.unit == "GFLOP/s":
            return work / seconds * 1e-9
        return seconds * 1e9 / work

    def table(self) -> str:
        """The section as Markdown."""
        if not self.results:
            return "\n\n".join(["## " + self.title, self.text, *self.extra]) + "\n"
        base = self.find(self.reference)
        names = sorted({k for r in self.results for k in r.check if k != "rss_mb"})
        head = [
            "program",
            "threads",
            "ms a step",
            self.unit,
            "spread",
            "CPU/wall",
            "others",
        ]
        head += [name.replace("_", " ") for name in names]
        head += [f"time over “{self.reference}”"]
        rows = [head, ["---"] * len(head)]
        for r in self.results:
            e = r.entrant
            star = "" if e.same or e.kind != "peer" else " *"
            if r.failed:
                rows.append([e.label, str(e.threads), f"not run: {r.failed[:80]}"])
                continue
            t = r.median(self.clock)
            rows.append(
                [
                    e.label + star,
                    str(e.threads),
                    f"{t * 1e3:.3f}",
                    f"{self.per_unit(r):.2f}",
                    f"{100 * r.spread(self.clock):.0f}%",
                    f"{r.median('cpu') / r.median('wall'):.2f}",
                    f"{r.median('others'):.2f}",
                    *(f"{r.check[n]:.4f}" if n in r.check else "" for n in names),
                    f"{ratio(r, base, self.clock):.2f}" if base and not e.work else "",
                ]
            )
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        notes = [
            f"\\* {r.entrant.label}: {r.entrant.note}"
            for r in self.results
            if r.entrant.note
        ]
        body = ["## " + self.title, self.text, "\n".join(lines)]
        return "\n\n".join([*body, *notes, *self.extra]) + "\n"

    def record(self) -> dict[str, Any]:
        """The section as JSON, every turn included."""
        return {
            "title": self.title,
            "clock": self.clock,
            "work_of_a_step": self.work,
            "unit": self.unit,
            "reference": self.reference,
            "statements": self.extra,
            "programs": [
                {
                    "label": r.entrant.label,
                    "kind": r.entrant.kind,
                    "same_physics": r.entrant.same,
                    "task": r.entrant.task,
                    "threads": r.entrant.threads,
                    "steps_a_turn": r.steps,
                    "cpu_seconds_a_step": r.cpu,
                    "wall_seconds_a_step": r.wall,
                    "cores_used_by_others": r.others,
                    "check": r.check,
                    "failed": r.failed,
                }
                for r in self.results
            ],
        }


def save(
    name: str, title: str, sections: list[Section], settings: dict[str, Any], out: Path
) -> str:
    """Write ``name``.json and ``name``.md into ``out``; returns the text."""
    here = machine() | settings
    versions: dict[str, str] = {}
    for section in sections:
        for result in section.results:
            versions |= result.versions
    lines = [f"- {key.replace('_', ' ')}: {value}" for key, value in here.items()]
    lines.append("- " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())))
    text = "\n\n".join([f"# {title}", "\n".join(lines), *(s.table() for s in sections)])
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": here,
        "versions": versions,
        "sections": [s.record() for s in sections],
    }
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / f"{name}.md").write_text(text)
    return text
