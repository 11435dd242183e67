"""A scheme is data: a word of letters with the share of the step each one takes.

A word such as "BAOAB" shares the step of each letter equally among its occurrences;
a table ``(("A", 0.25), ("B", 0.5), ...)`` gives the shares.  Everything else (force
calls, symmetry, order, where temperature is read) is derived from the table.

Braces hold what a Metropolis test accepts or takes back, "O { B A B } O"; brackets
inside them a part that runs several times, "O { [B A B]^10 }", each turn over the
whole step length.  M closes a test of all since the last bath: "O B A B M".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from mdnet import random
from mdnet.errors import SchemeError
from mdnet.integrators.letters import ALPHABET

__all__ = ["FORCE", "MARKS", "Operation", "Scheme", "adaptive", "parse"]

Operation = tuple[str, float]
FORCE = "F"
"""Marks a force evaluation in `Scheme.sequence`."""
MARKS = "{}[]"
"""What stands between letters; the share of "]" is the number of turns."""
_MIRROR = str.maketrans("{}[]", "}{][")

_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Scheme:
    """A checked table of (letter, share of the step).

    Use `parse` to make one.

    Attributes
    ----------
    operations : tuple of (str, float)
        The letters of one step, in order, and `MARKS`; the shares of each letter add
        up to one, inside brackets and outside them.
    """

    operations: tuple[Operation, ...]

    @cached_property
    def word(self) -> str:
        """The letters and marks alone."""
        return "".join(
            f"]^{share:.0f}" if letter == "]" else letter
            for letter, share in self.operations
        )

    @property
    def palindromic(self) -> bool:
        """Whether the step reads the same backwards (then its order is even)."""
        return _palindrome(self.operations)

    @property
    def metropolised(self) -> bool:
        """Whether a Metropolis test belongs to the step."""
        return "{" in self.word

    @property
    def turns(self) -> int:
        """Most turns of a part in brackets; 1 without one."""
        return max(
            (int(share) for mark, share in self.operations if mark == "]"), default=1
        )

    @property
    def stochastic(self) -> bool:
        """Whether the word has a bath."""
        return "O" in self.word or "D" in self.word

    @cached_property
    def sequence(self) -> tuple[Operation, ...]:
        """One step in its steady state, with a force evaluation marked as ("F", 0).

        The force is evaluated where positions have changed since the last kick that
        used it, once; a word that ends on a kick hands its force to the next step.
        """
        stale = _stale_after(self.operations, True)
        out: list[Operation] = []
        for i, (letter, share) in enumerate(self.operations):
            if letter in "[{":
                # A loop begins as each of its turns ends; a test must be able to put
                # back a force that belongs to the positions.
                after = _stale_after(self._inside(i), stale)
                if stale and not after:
                    out.append((FORCE, 0.0))
                stale = after if letter == "[" else stale and after
            if letter == "B" and stale:
                out.append((FORCE, 0.0))
                stale = False
            stale = stale or letter == "A"
            out.append((letter, share))
        return tuple(out)

    @property
    def force_calls(self) -> int:
        """Force evaluations a step, at most."""
        calls, inside = 0, 0
        for letter, share in self.sequence:
            if letter == "[":
                calls, inside = 0, calls
            elif letter == "]":
                calls = inside + int(share) * calls
            calls += letter == FORCE
        return calls

    @property
    def carries_force(self) -> bool:
        """Whether a step uses the force that the step before it evaluated."""
        for letter, _ in self.sequence:
            if letter == FORCE:
                return False
            if letter == "B":
                return True
        return False

    @cached_property
    def order(self) -> int:
        """Order of the deterministic part, found from its expansion.

        The product of matrix exponentials exp(a h X) exp(b h Y) ... of the drifts
        and kicks is compared with exp(h (X + Y)) for generic X, Y; the bath does not
        enter (a palindrome with exact baths samples to second order).
        """
        rng = np.random.default_rng(7)
        x, y = rng.standard_normal((2, 4, 4)) / 4
        errors = []
        for h in (0.2, 0.1):
            product = np.eye(4)
            for letter, share in self.operations:
                if letter in "AB":
                    generator = x if letter == "A" else y
                    product = product @ _exponential(share * h * generator)
            errors.append(np.abs(product - _exponential(h * (x + y))).max())
        return max(round(math.log2(errors[0] / errors[1])) - 1, 0)

    def _inside(self, start: int) -> tuple[Operation, ...]:
        """Operations between the mark at ``start`` and its partner."""
        partner = self.operations[start][0].translate(_MIRROR)
        end = next(
            i for i in range(start, len(self.operations))
            if self.operations[i][0] == partner
        )  # fmt: skip
        return self.operations[start + 1 : end]

    def __str__(self) -> str:
        equal = parse(self.word) == self
        if equal:
            return self.word
        return " ".join(_print(operation) for operation in self.operations)


def _print(operation: Operation) -> str:
    letter, share = operation
    if letter in MARKS:
        return f"]^{share:.0f}" if letter == "]" else letter
    return f"{letter}({share:.17g})"


def _palindrome(operations: Sequence[Operation]) -> bool:
    """Whether operations read the same backwards, with their marks turned."""
    turns = [share for letter, share in operations if letter == "]"]
    return turns == turns[::-1] and all(
        a == b.translate(_MIRROR)
        and (a in MARKS or math.isclose(x, y, rel_tol=0, abs_tol=_TOLERANCE))
        for (a, x), (b, y) in zip(operations, reversed(operations), strict=True)
    )


def _stale_after(operations: Iterable[Operation], stale: bool) -> bool:
    """Whether positions have moved since the last kick, after ``operations``."""
    for letter, _ in operations:
        stale = letter == "A" or (stale and letter != "B")
    return stale


def _exponential(m: np.ndarray) -> np.ndarray:
    term = total = np.eye(m.shape[0])
    for k in range(1, 25):
        term = term @ m / k
        total = total + term
    return total


def parse(word: str | Iterable[Operation]) -> Scheme:
    """Read a word or a table of (letter, share), check it and merge equal neighbours.

    Parameters
    ----------
    word : str or iterable of (str, float)
        "BAOAB" (spaces allowed), the printed form "A(0.25) B(0.5) ...", or a table;
        with a Metropolis test "O { B A B }" (or "O B A B M"), and with a repeated part
        in it "O { [B A B]^10 }".  "B A D O D A B", the published name of a word whose
        friction D moves and O uses, is read as "B A N D N A B".

    Raises
    ------
    SchemeError
        Unknown letters, no drift or no kick, shares of a letter that do not add up to
        one, marks that do not fit, or more than 16 baths or tests.

    Examples
    --------
    >>> parse("BAOAB").operations
    (('B', 0.5), ('A', 0.5), ('O', 1.0), ('A', 0.5), ('B', 0.5))
    >>> parse("BAOAB").force_calls
    1
    """
    if isinstance(word, str):
        operations = _parse_text(word)
    else:
        operations = [_checked(item) for item in _rewritten(list(word))]
    merged: list[Operation] = []
    for letter, share in operations:
        if merged and letter == merged[-1][0] and letter not in MARKS:
            share = math.fsum((merged.pop()[1], share))
        merged.append((letter, share))
    tested = any(letter == "{" for letter, _ in merged)
    letters = {letter for letter, _ in merged}
    for needed in "A" if tested else "AB":
        if needed not in letters:
            raise SchemeError(
                f"word={word!r} has no {needed}: nothing would move; a step needs at "
                'least one drift "A" and one kick "B", as in "BAB" or "BAOAB"'
            )
    if ("N" in letters) != ("D" in letters):
        raise SchemeError(
            f"word={word!r}: N moves the friction that D uses, and one is of no use "
            'without the other; take "BANDNAB", or O for a friction that stays'
        )
    _check_marks(merged, word)
    totals: dict[tuple[bool, str], list[float]] = {}
    for looped, (letter, share) in zip(_looped(merged), merged, strict=True):
        if letter not in MARKS:
            totals.setdefault((looped, letter), []).append(share)
    for (_, letter), shares in sorted(totals.items()):
        total = math.fsum(shares)
        if abs(total - 1) > 1e-10:
            raise SchemeError(
                f"word={word!r}: the shares of {letter!r} add up to {total:.12g}, "
                "expected 1; scale them so that every letter makes one whole step"
            )
    most = random.STREAMS[random.STREAM_NOISE]
    for what, marks in (("baths", "OD"), ("tests", "{")):
        count = sum(letter in marks for letter, _ in merged)
        if count > most:  # the next would draw what momenta and batches draw
            raise SchemeError(
                f"word={word!r} has {count} {what}: expected at most {most}, each with "
                "random numbers of its own; take a shorter word and more steps"
            )
    return Scheme(tuple(merged))


def adaptive(word: Any) -> bool:
    """Whether a word, not yet parsed, has the letters N or D."""
    if not isinstance(word, (str, list, tuple)):
        return False
    letters = {item[0] for item in word if isinstance(item, (str, tuple)) and item}
    return not letters.isdisjoint({"N", "D"})


def _rewritten(operations: list[Any]) -> list[Any]:
    """Operations with braces for M, and with N and D for the published D and O.

    What is no pair with a letter is left for others to refuse.
    """
    letters = [str(item[0]) if isinstance(item, tuple) and item else "" for item
               in operations]  # fmt: skip
    if "D" in letters and "O" in letters and "N" not in letters:
        other = {"D": "N", "O": "D"}
        operations = [
            (other.get(letter, letter), *item[1:]) if letter else item
            for letter, item in zip(letters, operations, strict=True)
        ]
    out: list[Any] = []
    start = 0
    for letter, item in zip(letters, operations, strict=True):
        if letter == "M":
            out.insert(start, ("{", 0.0))
            out.append(("}", 0.0))
        else:
            out.append(item)
        if letter in ("O", "M", "}"):
            start = len(out)
    return out


def _looped(operations: Iterable[tuple[str, object]]) -> list[bool]:
    """Whether each operation stands in brackets, where shares are counted apart."""
    out, inside = [], False
    for letter, _ in operations:
        inside = letter == "[" or (inside and letter != "]")
        out.append(inside)
    return out


def _check_marks(operations: Sequence[Operation], word: object) -> None:
    """Refuse marks that do not pair, and words whose test would not be exact."""

    def refuse(why: str) -> NoReturn:
        raise SchemeError(f"word={word!r}: {why}")

    where, start = "", 0
    for i, (letter, share) in enumerate(operations):
        if letter in "{[":
            if where != {"{": "", "[": "{"}[letter]:
                refuse(
                    f"{letter!r} stands inside {where!r}; braces do not nest, brackets "
                    'stand in braces, as "O { [BAB]^10 }"'
                )
            where += letter
            start = i if letter == "{" else start
        elif letter in "}]":
            if not where.endswith(letter.translate(_MIRROR)):
                refuse(f"{letter!r} closes nothing")
            where = where[:-1]
            if letter == "]" and not (share >= 1 and share == int(share)):
                refuse('brackets need a number of turns >= 1, as "O { [BAB]^10 }"')
            if letter == "}" and not _palindrome(operations[start + 1 : i]):
                refuse(
                    "what is tested must read the same backwards, or the test is not "
                    'exact; take "{ B A B }" for "{ B A }"'
                )
        elif where == "{[" and letter not in "AB":
            refuse(f"{letter!r} in brackets would draw the same noise each turn")
        elif where == "{" and letter not in "ABO":
            refuse(f"{letter!r} in braces cannot be tested; expected A, B or O")
    if where:
        refuse(f"{where[-1]!r} is not closed")
    letters = [letter for letter, _ in operations]
    if letters.count("[") > 1:
        refuse("expected brackets at most once")
    tested = False
    for letter in letters:
        tested = letter == "{" or (tested and letter != "}")
        if "{" in letters and not tested and letter not in "O}":
            refuse(f"{letter!r} outside the braces goes untested; only O may do so")


def _checked(item: Operation) -> Operation:
    try:
        letter, share = item
        share = float(share)
    except (TypeError, ValueError) as error:
        raise SchemeError(
            f"operation {item!r}: expected a pair (letter, share), as ('A', 0.5)"
        ) from error
    if letter in ("{", "}", "["):
        return letter, 0.0
    if letter != "]":
        _known(letter, item)
    if not math.isfinite(share) or share == 0:
        raise SchemeError(f"operation {item!r}: the share must be finite and not 0")
    return letter, share


def _known(letter: object, word: object) -> None:
    if letter not in ALPHABET:
        known = "; ".join(f"{k} = {v}" for k, v in ALPHABET.items())
        raise SchemeError(f"unknown letter {letter!r} in {word!r}; known: {known}")


def _parse_text(text: str) -> list[Operation]:
    symbols = _rewritten(_symbols(text))
    if not symbols:
        raise SchemeError('word="" is empty; try "BAOAB"')
    if any(share is not None for letter, share in symbols if letter not in MARKS):
        for letter, share in symbols:
            if share is None:
                raise SchemeError(f"cannot read {letter!r} in word {text!r}: no share")
        return [_checked(symbol) for symbol in symbols]
    for letter, _ in symbols:
        if letter not in MARKS:
            _known(letter, text)
    # Merge first, so that a doubled letter is one operation of its own share.
    merged = [
        symbol for i, symbol in enumerate(symbols)
        if i == 0 or symbols[i - 1][0] != symbol[0]
    ]  # fmt: skip
    if len(merged) == len(symbols):
        symbols = merged
    looped = _looped(symbols)
    places = list(zip(looped, [letter for letter, _ in symbols], strict=True))
    return [
        (letter, 1 / places.count((inside, letter)) if share is None else share)
        for inside, (letter, share) in zip(looped, symbols, strict=True)
    ]


def _symbols(text: str) -> list[tuple[str, float | None]]:
    """Letters and marks of a word, each with the number behind it, if any."""
    out: list[tuple[str, float | None]] = []
    rest = "".join(text.split())
    while rest:
        letter, rest = rest[0], rest[1:]
        share: float | None = 0.0 if letter in "{}[" else None
        number = ""
        if letter == "]":
            size = next(
                (i for i, c in enumerate(rest) if i and not c.isdigit()), len(rest)
            )
            number, rest = rest[:size].removeprefix("^") or "?", rest[size:]
        elif rest.startswith("("):
            number, _, rest = rest[1:].partition(")")
        if number:
            try:
                share = float(number)
            except ValueError as error:
                raise SchemeError(
                    f"cannot read {number!r} behind {letter!r} in {text!r}; shares "
                    'are written "A(0.5)", turns "[BAB]^10"'
                ) from error
        out.append((letter, share))
    return out
