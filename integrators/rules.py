r"""Coefficients of words whose letters are not the exact flows of their shares.

======  =======================================================================
rule    what differs (h: the step, g: the friction, c = e^(-g h))
======  =======================================================================
cayley  O of a share w: c = (1 - g w h/2)/(1 + g w h/2), s^2 = (1 - c^2) T
bbk     first O: c = 1 - g h/2, s^2 = g h T/2; last O: both over 1 + g h/2
spv     B after O: b = (1 - c)/g, the kick of a force that acts during the bath
ubu     A O A O A over half a step: drift and bath at once, noise of both exact
======  =======================================================================

The flow U of drift and bath together (ubu) moves positions and momenta with correlated
noise.  Two baths with drifts around them have the same joint law: with z = g h/2,
d = e^(-z/2), P = (h/2)(1 - d^2)/z and V the variance of the position's noise over
(1 - d^2) T, the drifts :math:`a_1, a_2, a_3` solve

.. math:: a_1 + a_2 d + a_3 d^2 = P, \quad d x + a_3 = P, \quad x^2 + a_3^2 = V,
          \qquad x = a_2 + a_3 d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators.companion import NEXT
from mdnet.integrators.letters import bath_coefficients

__all__ = ["NEXT", "RULES", "check", "streams"]

F = npt.NDArray[np.float64]


def _finite(friction: F) -> None:
    if not np.isfinite(friction).all():
        raise SchemeError(
            "friction=inf: this word has no overdamped limit; take "
            "integrators.LeimkuhlerMatthews(dt=...) or BAOAB(dt=..., friction=inf)"
        )


def _cayley(word: str, out: F, h: F, temperature: F, friction: F) -> None:
    """Replace e^(-x) by its Cayley transform."""
    _finite(friction)
    for i, letter in enumerate(word):
        if letter == "O":
            half = 0.5 * friction * h / word.count("O")
            c = (1 - half) / (1 + half)
            out[i, ..., 0] = c
            # 1 - c^2 = 4 half/(1 + half)^2 keeps its digits.
            out[i, ..., 1] = 2 * np.sqrt(half * temperature) / (1 + half)


def _bbk(word: str, out: F, h: F, temperature: F, friction: F) -> None:
    """Explicit friction before the kick, implicit friction after it."""
    _finite(friction)
    half = 0.5 * friction * h
    noise = np.sqrt(half * temperature)
    first, last = word.index("O"), word.rindex("O")
    out[first, ..., 0], out[first, ..., 1] = 1 - half, noise
    out[last, ..., 0], out[last, ..., 1] = 1 / (1 + half), noise / (1 + half)


def _spv(word: str, out: F, h: F, temperature: F, friction: F) -> None:
    """Let the force act for as long as the bath does."""
    del temperature
    _finite(friction)
    x = np.broadcast_to(friction * h, out.shape[1:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x > 0, -np.expm1(-x) / x, 1.0)
    out[word.index("B"), ..., 0] = h * share


def _spread(z: F) -> F:
    """(2 z - 3 + 4 e^-z - e^-2z) / z^2, of order z: a series where digits cancel."""
    small = np.minimum(z, 0.5)
    series = sum(
        (4 - 2.0**n) * (-1) ** n * small ** (n - 2) / math.factorial(n)
        for n in range(3, 24)
    )
    large = np.maximum(z, 0.5)
    closed = (2 * large - 3 + 4 * np.exp(-large) - np.exp(-2 * large)) / large**2
    return np.asarray(np.where(z < 0.5, series, closed))


def _ubu(word: str, out: F, h: F, temperature: F, friction: F) -> None:
    """Drift and bath at once, over half a step on either side of the kick."""
    _finite(friction)
    half = np.broadcast_to(0.5 * h, out.shape[1:-1])
    z = friction * half
    decay = np.exp(-0.5 * z)
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = half * np.where(z > 0, -np.expm1(-z) / z, 1.0)
        variance = half**2 * np.where(z > 0, _spread(z) / -np.expm1(-z), 2 / 3)
    root = np.sqrt(np.maximum((1 + decay**2) * variance - reach**2, 0.0))
    x = (reach * decay + root) / (1 + decay**2)
    third = reach - decay * x
    second = x - third * decay
    first = reach - second * decay - third * decay**2
    c, s = bath_coefficients(0.5 * z, temperature)
    kick = word.index("B")
    for start in (0, kick + 1):
        for i, drift in zip(
            range(start, start + 5, 2), (first, second, third), strict=True
        ):
            out[i, ..., 0] = drift
        for i in (start + 1, start + 3):
            out[i, ..., 0], out[i, ..., 1] = c, s


RULES: dict[str, Callable[[str, F, F, F, F], None]] = {
    "exact": lambda *_: None,
    "cayley": _cayley,
    "bbk": _bbk,
    "spv": _spv,
    "ubu": _ubu,
}
"""Each changes the exact coefficients (n, R, ..., 2) of a word in place."""


_WORDS = {"bbk": "OBABO", "spv": "AOBA", "ubu": "AOAOABAOAOA"}


def check(rule: str, word: str) -> None:
    """Refuse a rule that is not known, or not for this word.

    Raises
    ------
    SchemeError
    """
    if rule not in RULES:
        raise SchemeError(f"rule={rule!r}: expected one of {', '.join(RULES)}")
    if _WORDS.get(rule, word) != word:
        raise SchemeError(
            f"rule={rule!r} is for the word {_WORDS[rule]!r}, not for {word!r}"
        )


def streams(rule: str, given: tuple[int, ...], word: str) -> tuple[int, ...]:
    """Noise streams of the operations under a rule.

    The last bath of ``bbk`` and the first of the next step share one noise.
    """
    if rule != "bbk":
        return given
    out: list[Any] = list(given)
    out[word.rindex("O")] = out[word.index("O")] + NEXT
    return tuple(out)
