"""Streams of random numbers: no two of them are ever the same."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest

from mdnet import integrators, random
from mdnet.errors import SchemeError
from mdnet.integrators import metropolis, nuts

ROOT = Path(random.__file__).parent
DRAWS = {"bits": 3, "uniforms": 3, "normals": 3, "draw": 2, "fire": 2, "Uniforms": 3}
"""Functions that take a stream, and which argument it is."""
NAMES = {n for n in dir(random) if n.startswith("STREAM_")}


def clashes(streams):
    """Families that share a number with the next one, or leave the eight bits."""
    ends = [(first, first + count) for first, count in sorted(streams.items())]
    return [
        first
        for (first, end), (after, _) in pairwise([*ends, (256, 256)])
        if end > after or end <= first
    ]


def test_families_of_streams_are_apart():
    assert not clashes(random.STREAMS)
    assert {getattr(random, name) for name in NAMES} == set(random.STREAMS)
    assert len(NAMES) == len(random.STREAMS)


@pytest.mark.parametrize(
    "wrong",
    [{random.STREAM_NOISE: 17}, {random.STREAM_METROPOLIS: 33}, {255: 2}, {98: 0}],
)
def test_a_clash_would_be_seen(wrong):
    assert clashes({**random.STREAMS, **wrong})


def numbers(source):
    """Lines where a stream is a bare number: an argument, or a name that holds one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            place = DRAWS.get(name, len(node.args))
            given = [
                *node.args[place : place + 1],
                *(k.value for k in node.keywords if k.arg == "stream"),
            ]
        elif isinstance(node, ast.Assign) and "stream" in ast.unparse(
            node.targets[0]
        ).lower().split("_"):
            given = [node.value]
        else:
            continue
        found += [value.lineno for value in given if isinstance(value, ast.Constant)]
    return found


def modules():
    """Sources of all modules but the one that names the streams."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]
    return [path for path in paths if path.name != "random.py"]


def test_no_module_has_a_number_of_its_own():
    assert len(modules()) > 150
    for path in modules():
        assert not numbers(path.read_text("utf-8")), path


def test_a_bare_number_would_be_seen():
    for line in (
        "_STREAM = 104  # and 105",
        "z = random.normals(seed, rows, 0, 18, size)",
        "z = random.bits(seed, rows, 0, stream=18, size=4)",
    ):
        assert numbers(line) == [1], line
    assert not numbers("z = random.normals(seed, 0, 0, random.STREAM_PROBE, size)")


def test_trees_and_tests_stay_in_their_family():
    first = random.STREAM_METROPOLIS
    last = first + random.STREAMS[first]
    most = random.STREAMS[random.STREAM_NOISE]
    tested = range(metropolis._TEST, metropolis._TEST + most)
    grown = range(nuts._LEAVES, nuts._LEAVES + nuts.DEEPEST)
    assert first <= metropolis._LENGTH < metropolis._BLOCK < tested[0]
    assert tested[-1] < last
    assert grown[0] > nuts._ENDS
    assert grown[-1] < last
    for taken in (metropolis._LENGTH, metropolis._BLOCK, metropolis._TEST):
        assert taken not in {nuts._ENDS, *grown}  # a tree takes lengths, too


def test_words_have_a_stream_for_every_bath_and_test():
    most = random.STREAMS[random.STREAM_NOISE]
    longest = integrators.Splitting("BAO" * most, dt=0.1)
    assert max(longest.streams) == most - 1
    for word in ("BAO" * (most + 1), "O" + "{BAB}" * (most + 1)):
        with pytest.raises(SchemeError, match=f"expected at most {most}"):
            integrators.Splitting(word, dt=0.1)
