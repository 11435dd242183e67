"""Speed on a CUDA GPU, against the limits of the machine, PyTorch and JAX.

    python benchmarks/gpu.py

Needs CuPy and numba-cuda (the extra cuda13 or cuda12); PyTorch and JAX are measured if
they can be imported in the same environment and see the GPU.  Writes
benchmarks/results/gpu.json and gpu.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("mdnet") is None:  # a bare checkout
    sys.path.insert(0, str(ROOT))
# JAX would take three quarters of the memory at its first array.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import gpu_work  # noqa: E402
from gpu_peers import Peer, peers, step_peers  # noqa: E402

from mdnet import backend  # noqa: E402
from mdnet.errors import BackendError  # noqa: E402

SIZE = 10**8
BYTES = 20  # a parameter and step: q and p read and written, the force read
TARGETS = {
    "BAOAB on 100,000,000 float32 parameters": "at least 80% of the copy bandwidth",
    gpu_work.NETWORKS[0].title: "at least 30,000 steps a second",
    gpu_work.NETWORKS[1].title: "at least 60% of the measured float32 product",
    gpu_work.NETWORKS[2].title: "at least 50% of the measured float32 product",
}


def machine(cupy: Any) -> dict[str, Any]:
    """Device, driver, versions and the date."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": properties["name"].decode(),
        "memory_GB": round(properties["totalGlobalMem"] * 1e-9, 1),
        "multiprocessors": properties["multiProcessorCount"],
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for name in ("numpy", "numba", "numba-cuda", "torch", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["cupy"] = cupy.__version__
    return found


def others(forms: Iterator[Peer], cupy: Any) -> list[dict[str, Any]]:
    """Time every peer; one that is missing or fails is said and passed over."""
    found: list[dict[str, Any]] = []
    for label, measure in forms:
        cupy.get_default_memory_pool().free_all_blocks()
        try:
            found.append({"program": label, "seconds": measure()})
        except ImportError as error:
            found.append({"program": label, "note": f"not installed ({error.name})"})
        except Exception as error:
            text = str(error).splitlines() or [type(error).__name__]
            found.append({"program": label, "note": f"failed: {text[0][:120]}"})
        print("  ", label, found[-1].get("seconds", found[-1].get("note")), flush=True)
    return found


def table(section: dict[str, Any]) -> str:
    """One workload as Markdown."""
    mine = next((r for r in section["programs"] if "seconds" in r), None)
    lines = ["| program | us a step | steps a second | time over mdnet | |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for r in section["programs"]:
        if "seconds" not in r:
            lines.append(f"| {r['program']} | | | | {r['note']} |")
            continue
        t = r["seconds"]
        ratio = f"{t / mine['seconds']:.2f}" if mine else ""
        lines.append(
            f"| {r['program']} | {t * 1e6:.2f} | {1 / t:,.0f} | {ratio} | "
            f"{r.get('note', '')} |"
        )
    target = f"Target: {section['target']}."
    return "\n\n".join([f"## {section['title']}", target, "\n".join(lines)]) + "\n"


def save(record: dict[str, Any], folder: Path) -> None:
    """Write the JSON and the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    facts = "\n".join(f"- {k}: {v}" for k, v in record["machine"].items())
    limits = "\n".join(f"- {k}: {v:,.1f}" for k, v in record["limits"].items())
    head = f"# On a GPU\n\n{facts}\n\nMeasured limits:\n\n{limits}\n"
    text = "\n".join([head, *(table(s) for s in record["sections"])])
    (folder / "gpu.md").write_text(text)


def integrator(cupy: Any, limits: dict[str, float], skip: bool) -> dict[str, Any]:
    """The fused step on its own."""
    title = "BAOAB on 100,000,000 float32 parameters"
    print(title, flush=True)
    took = gpu_work.step(cupy, SIZE)
    share = BYTES * SIZE / took * 1e-9 / limits["copy_GB_s"]
    note = f"{100 * share:.0f}% of the copy bandwidth at {BYTES} bytes a parameter"
    print("   mdnet", took, note, flush=True)
    rows = [{"program": "mdnet, one launch", "seconds": took, "note": note}]
    return {
        "title": title,
        "target": TARGETS[title],
        "share": share,
        "programs": rows + ([] if skip else others(step_peers(SIZE), cupy)),
    }


def network(
    cupy: Any, case: gpu_work.Network, limits: dict[str, float], skip: bool
) -> dict[str, Any]:
    """One network."""
    print(case.title, flush=True)
    section = {"title": case.title, "target": TARGETS[case.title]}
    try:
        took, engine = gpu_work.network(cupy, case)
    except Exception as error:
        rows = [{"program": "mdnet", "note": f"failed: {error}"}]
        print("   mdnet failed:", error, flush=True)
    else:
        rate = case.flops / took * 1e-12
        section["share"] = rate / limits["gemm_float32_TFLOP_s"]
        note = (
            f"{engine}; {rate:.1f} TFLOP/s, {100 * section['share']:.0f}% of the "
            "measured float32 product"
        )
        print("   mdnet", took, note, flush=True)
        rows = [{"program": "mdnet, CUDA graph", "seconds": took, "note": note}]
    section["programs"] = rows + ([] if skip else others(peers(case), cupy))
    return section


def main() -> None:
    """Measure everything and write the results after each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--no-peers", action="store_true", help="mdnet alone")
    given = parser.parse_args()
    try:
        found = backend.resolve("cuda")
    except BackendError as error:
        sys.exit(f"gpu.py: {error}")
    if found.simulated:
        sys.exit("gpu.py: unset NUMBA_ENABLE_CUDASIM to measure a device")
    cupy = found.xp
    record: dict[str, Any] = {"machine": machine(cupy), "sections": []}
    print("limits of the machine", flush=True)
    record["limits"] = gpu_work.limits(cupy)
    for name, value in record["limits"].items():
        print(f"   {name}: {value:,.1f}", flush=True)
    sections = [lambda: integrator(cupy, record["limits"], given.no_peers)]
    sections += [
        lambda case=case: network(cupy, case, record["limits"], given.no_peers)
        for case in gpu_work.NETWORKS
    ]
    for measure in sections:
        record["sections"].append(measure())
        save(record, given.out)
        cupy.get_default_memory_pool().free_all_blocks()
    print((given.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
