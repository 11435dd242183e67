"""Words: reading, printing, and the properties derived from them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdnet import integrators, schedules
from mdnet.errors import MdnetError, SchemeError
from mdnet.integrators import scheme

WORDS = {
    # word: (force calls, carries the force, palindrome, order)
    "BAB": (1, True, True, 2),
    "ABA": (1, False, True, 2),
    "BAOAB": (1, True, True, 2),
    "ABOBA": (1, False, True, 2),
    "OBABO": (1, True, True, 2),
    "OABAO": (1, False, True, 2),
    "BAO": (1, False, False, 1),
    "BAOA": (1, False, False, 1),
    "BABAB": (2, True, True, 2),
}


@pytest.mark.parametrize("word", WORDS)
def test_properties(word):
    s = scheme.parse(word)
    assert (s.force_calls, s.carries_force, s.palindromic, s.order) == WORDS[word]


def test_fourth_order_tables():
    for make in (integrators.Yoshida4, integrators.Omelyan4):
        assert make(dt=0.1).scheme.order == 4
        assert make(dt=0.1).scheme.palindromic
    assert integrators.Yoshida4(dt=0.1).scheme.force_calls == 3
    assert integrators.Omelyan4(dt=0.1).scheme.force_calls == 4
    # Negative control: Suzuki's weight in Yoshida's place is of second order.
    w = 1 / (4 - 4 ** (1 / 3))
    u = 1 - 2 * w
    table = [("B", w / 2), ("A", w), ("B", (w + u) / 2), ("A", u)]
    table += [("B", (w + u) / 2), ("A", w), ("B", w / 2)]
    assert scheme.parse(table).order == 2


def test_shares_by_letter_count():
    assert scheme.parse("BAOA").operations == (
        ("B", 1.0),
        ("A", 0.5),
        ("O", 1.0),
        ("A", 0.5),
    )
    assert scheme.parse("B A O A B") == scheme.parse("BAOAB")
    assert scheme.parse("BBAAB").operations == (
        ("B", pytest.approx(2 / 3)),
        ("A", 1.0),
        ("B", pytest.approx(1 / 3)),
    )


@given(st.text("ABO", min_size=2, max_size=12).filter(lambda w: "A" in w and "B" in w))
def test_print_and_parse_round_trip(word):
    s = scheme.parse(word)
    assert scheme.parse(str(s)) == s
    for letter in set(word):
        total = sum(share for name, share in s.operations if name == letter)
        assert total == pytest.approx(1, abs=1e-12)
    assert all(a[0] != b[0] for a, b in itertools.pairwise(s.operations))
    assert s.force_calls >= 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("BAXAB", "unknown letter 'X'"),
        ("", "empty"),
        ("BOB", "no A"),
        ("AOA", "no B"),
        ([("A", 0.5), ("B", 1.0)], "add up to 0.5"),
        ([("A", 0.5), ("B", 1.0), ("A", float("nan"))], "finite"),
        ([("A", 1.0), ("B",)], "expected a pair"),
        ("A(0.5) B(1.0)", "add up to 0.5"),
        ("A(x) B(1)", "cannot read"),
    ],
)
def test_bad_words(word, message):
    with pytest.raises(SchemeError, match=message):
        scheme.parse(word)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dt": 0}, "dt=0"),
        ({"dt": -0.1}, "dt=-0.1"),
        ({"dt": float("nan")}, "dt=nan"),
        ({"dt": "x"}, "dt='x'"),
        ({"dt": 0.1, "temperature": -1}, "temperature=-1"),
        ({"dt": 0.1, "friction": -1}, "friction=-1"),
        ({"dt": 0.1, "mass": 0}, "mass=0"),
        ({"dt": schedules.linear(-0.1, 0.1, 5)}, "dt=-0.1"),
    ],
)
def test_bad_parameters(settings, message):
    with pytest.raises(MdnetError, match=message):
        integrators.BAOAB(**settings)


def test_description_round_trip():
    made = [
        integrators.SGLD(dt=schedules.polynomial(0.1, 1.0, 0.6), temperature=0.5),
        integrators.SGD(dt=0.01, momentum=0.9),
        integrators.Omelyan4(dt=0.1),
        integrators.BAOAB(dt=0.1, temperature=[1.0, 2.0], mass=[1.0, 2.0, 3.0]),
    ]
    for integrator in made:
        again = integrators.from_description(integrator.describe())
        assert again.describe() == integrator.describe()
        assert again.scheme == integrator.scheme


def test_catalogue_prints_every_method():
    text = integrators.table()
    for entry in integrators.CATALOG:
        assert entry.name in text
        made = entry.make(dt=0.05)
        assert made.name == entry.name
        if hasattr(made, "scheme"):
            assert made.scheme.force_calls == entry.force_calls
            assert made.scheme.word == entry.word
    assert max(map(len, text.splitlines())) <= 100
    one = integrators.table("BAOAB", "SGD")
    assert "BAOAB\n" in one
    assert "OBABO\n" not in one
    with pytest.raises(SchemeError, match="'BAOBA' is not in the catalogue"):
        integrators.table("BAOBA")
