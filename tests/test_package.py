"""The package as a whole: what it exports, how light it is to import, its metadata."""

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mdnet

ROOT = Path(__file__).parent.parent
HEAVY = [
    "numba",
    "scipy",
    "matplotlib",
    "cupy",
    "torch",
    "jax",
    "dask",
    "arviz",
    "sklearn",
    "MDAnalysis",
    "tqdm",
]
LOADED = (
    f"import json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
)


def python(code, **options):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, **options)


def loaded_after(code):
    return json.loads(python(f"{code}; {LOADED}", check=True).stdout)


@pytest.mark.parametrize(
    "code",
    [
        "import mdnet",
        "from mdnet import integrators, potentials, analysis, schedules",
        "from mdnet import integrators; integrators.BAOAB(dt=0.1)",
        "from mdnet import potentials; potentials.MLP([4, 3]); potentials.Posterior",
        "import mdnet.cli",
    ],
)
def test_import_loads_nothing_heavy(code):
    assert loaded_after(code) == []


def test_a_heavy_import_would_be_seen():
    assert "numba" in loaded_after("import mdnet.kernels.cpu")


def test_import_takes_less_than_a_second():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        python("import mdnet", check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


@pytest.mark.parametrize("module", ["mdnet", "mdnet.potentials", "mdnet.integrators"])
def test_every_public_name_is_there(module):
    found = importlib.import_module(module)
    assert len(set(found.__all__)) == len(found.__all__)
    for name in found.__all__:
        assert getattr(found, name) is not None
        assert name in dir(found)


def test_contract_names_are_public():
    for name in ("Simulation", "open", "analysis", "integrators", "plotting"):
        assert name in mdnet.__all__
    with pytest.raises(AttributeError, match="no attribute 'simulate'"):
        mdnet.simulate  # noqa: B018


def test_version_is_that_of_the_metadata():
    assert importlib.metadata.version("mdnet-dynamics") == mdnet.__version__
    shown = python("from mdnet.cli import main; main(['--version'])").stdout
    assert shown == f"mdnet {mdnet.__version__}\n"
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {mdnet.__version__}\n" in citation
    assert f"## {mdnet.__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_license_is_there_and_named():
    metadata = importlib.metadata.metadata("mdnet-dynamics")
    assert metadata["License-Expression"] == "BSD-3-Clause"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.startswith("BSD 3-Clause License\n\nCopyright (c) 2026, the mdnet")


@pytest.mark.parametrize("folder", ["integrators", "potentials"])
def test_root_folders_are_not_packages_of_their_own(folder):
    """Found by accident in a checkout, they say what to import instead."""
    result = python(f"import {folder}", cwd=ROOT)
    assert result.returncode == 1
    assert f"ImportError: this folder is mdnet.{folder}" in result.stderr
    module = importlib.import_module(f"mdnet.{folder}")
    assert module.__name__ == f"mdnet.{folder}"
    distribution = importlib.metadata.distribution("mdnet-dynamics")
    names = distribution.read_text("top_level.txt")
    assert names.split() == ["mdnet"]


@pytest.mark.parametrize("folder", ["integrators", "potentials"])
def test_links_serve_editors(folder):
    link = ROOT / "mdnet" / folder
    if not link.exists():
        pytest.skip("a source archive has no links")
    assert link.resolve() == (ROOT / folder).resolve()


def test_types_are_shipped():
    assert (Path(mdnet.__file__).parent / "py.typed").exists()
