"""A scheme is data: a word of letters with the share of the step each one takes.

A word such as "BAOAB" shares the step of each letter equally among its occurrences;
a table ``(("A", 0.25), ("B", 0.5), ...)`` gives the shares.  Everything else (force
calls, symmetry, order, where temperature is read) is derived from the table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mdnet.errors import SchemeError
from mdnet.integrators.letters import ALPHABET

__all__ = ["FORCE", "Operation", "Scheme", "parse"]

Operation = tuple[str, float]
FORCE = "F"
"""Marks a force evaluation in `Scheme.sequence`."""

_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Scheme:
    """A checked table of (letter, share of the step).

    Use `parse` to make one.

    Attributes
    ----------
    operations : tuple of (str, float)
        The letters of one step, in order; the shares of each letter add up to one.
    """

    operations: tuple[Operation, ...]

    @cached_property
    def word(self) -> str:
        """The letters alone."""
        return "".join(letter for letter, _ in self.operations)

    @property
    def palindromic(self) -> bool:
        """Whether the step reads the same backwards (then its order is even)."""
        return all(
            a == b and math.isclose(x, y, rel_tol=0, abs_tol=_TOLERANCE)
            for (a, x), (b, y) in zip(
                self.operations, reversed(self.operations), strict=True
            )
        )

    @property
    def stochastic(self) -> bool:
        """Whether the word has a bath."""
        return "O" in self.word

    @cached_property
    def sequence(self) -> tuple[Operation, ...]:
        """One step in its steady state, with a force evaluation marked as ("F", 0).

        The force is evaluated where positions have changed since the last kick that
        used it, once; a word that ends on a kick hands its force to the next step.
        """
        stale = self._stale_at_end(True)
        out: list[Operation] = []
        for letter, share in self.operations:
            if letter == "B" and stale:
                out.append((FORCE, 0.0))
                stale = False
            stale = stale or letter == "A"
            out.append((letter, share))
        return tuple(out)

    @property
    def force_calls(self) -> int:
        """Force evaluations a step."""
        return sum(letter == FORCE for letter, _ in self.sequence)

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

    def _stale_at_end(self, stale: bool) -> bool:
        for letter, _ in self.operations:
            stale = letter == "A" or (stale and letter != "B")
        return stale

    def __str__(self) -> str:
        equal = parse(self.word) == self
        if equal:
            return self.word
        return " ".join(f"{letter}({share:.17g})" for letter, share in self.operations)


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
        "BAOAB" (spaces allowed), the printed form "A(0.25) B(0.5) ...", or a table.

    Raises
    ------
    SchemeError
        Unknown letters, no drift or no kick, or shares of a letter that do not add
        up to one.

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
        operations = [_checked(item) for item in word]
    merged = [
        (letter, math.fsum(share for _, share in group))
        for letter, group in itertools.groupby(operations, key=lambda o: o[0])
    ]
    letters = {letter for letter, _ in merged}
    for needed in "AB":
        if needed not in letters:
            raise SchemeError(
                f"word={word!r} has no {needed}: nothing would move; a step needs at "
                'least one drift "A" and one kick "B", as in "BAB" or "BAOAB"'
            )
    for letter in sorted(letters):
        total = math.fsum(share for name, share in merged if name == letter)
        if abs(total - 1) > 1e-10:
            raise SchemeError(
                f"word={word!r}: the shares of {letter!r} add up to {total:.12g}, "
                "expected 1; scale them so that every letter makes one whole step"
            )
    return Scheme(tuple(merged))


def _checked(item: Operation) -> Operation:
    try:
        letter, share = item
        share = float(share)
    except (TypeError, ValueError) as error:
        raise SchemeError(
            f"operation {item!r}: expected a pair (letter, share), as ('A', 0.5)"
        ) from error
    _known(letter, item)
    if not math.isfinite(share) or share == 0:
        raise SchemeError(f"operation {item!r}: the share must be finite and not 0")
    return letter, share


def _known(letter: object, word: object) -> None:
    if letter not in ALPHABET:
        known = "; ".join(f"{k} = {v}" for k, v in ALPHABET.items())
        raise SchemeError(f"unknown letter {letter!r} in {word!r}; known: {known}")


def _parse_text(text: str) -> list[Operation]:
    if "(" in text:
        table = []
        for part in text.split():
            letter, _, share = part.partition("(")
            try:
                table.append(_checked((letter, float(share.rstrip(")")))))
            except ValueError as error:
                if isinstance(error, SchemeError):
                    raise
                raise SchemeError(f"cannot read {part!r} in word {text!r}") from error
        return table
    letters = "".join(text.split())
    if not letters:
        raise SchemeError('word="" is empty; try "BAOAB"')
    for letter in letters:
        _known(letter, text)
    # Merge first, so that a doubled letter is one operation of its own share.
    merged = [letter for letter, _ in itertools.groupby(letters)]
    if len(merged) != len(letters):
        return [(letter, 1 / letters.count(letter)) for letter in letters]
    return [(letter, 1 / merged.count(letter)) for letter in merged]
