"""Every Python snippet of the README and docs/ and every docstring example runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import mdnet

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mdnet.__path__, "mdnet.")
    if module.name != "mdnet.kernels.cuda"  # needs numba-cuda; tests/test_cuda.py
)


def pages_with_code():
    return [page for page in PAGES if PYTHON.search(page.read_text("utf-8"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_code(), ids=lambda p: p.stem)
def test_snippets_run(page, tmp_path, monkeypatch):
    """The snippets of a page run in order, as one program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    scope = {"__name__": "__main__"}
    for snippet in PYTHON.finditer(text):
        line = text.count("\n", 0, snippet.start(1))
        code = compile("\n" * line + snippet[1], str(page), "exec")
        exec(code, scope)


def test_a_failing_snippet_would_be_seen():
    text = "Words.\n\n```python\nx = 1\nassert x == 2\n```\n"
    code = PYTHON.search(text)
    with pytest.raises(AssertionError):
        exec(code[1], {})


def test_readme_has_one_short_tour_and_the_right_install():
    readme = (ROOT / "README.md").read_text("utf-8")
    tour = PYTHON.findall(readme)
    assert len(tour) == 1
    assert 15 <= len(tour[0].splitlines()) <= 30
    assert "pip install mdnet" not in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    scope = {**vars(module), "mdnet": mdnet, "np": np}
    result = doctest.testmod(module, extraglobs=scope, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_docstring_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = importlib.import_module("mdnet.integrators.scheme")
    assert any(test.examples for test in finder.find(module))
