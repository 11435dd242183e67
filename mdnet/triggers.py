"""When to report: small frozen rules ``trigger(step) -> bool``."""

from __future__ import annotations

from dataclasses import dataclass

from mdnet.errors import SchemeError

__all__ = ["at", "every", "log_spaced"]


@dataclass(frozen=True, slots=True)
class every:
    """True at every ``n``-th step, counted from ``offset``."""

    n: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SchemeError(f"every({self.n}): expected a number of steps >= 1")

    def __call__(self, step: int) -> bool:
        """Whether ``step`` is a reporting step."""
        return step >= self.offset and (step - self.offset) % self.n == 0


@dataclass(frozen=True, slots=True, init=False)
class at:
    """True at the given steps."""

    steps: frozenset[int]

    def __init__(self, *steps: int) -> None:
        object.__setattr__(self, "steps", frozenset(int(s) for s in steps))

    def __call__(self, step: int) -> bool:
        """Whether ``step`` is a reporting step."""
        return step in self.steps


@dataclass(frozen=True, slots=True)
class log_spaced:
    """True at about ``per_decade`` steps in each factor of ten, and at step 0."""

    per_decade: int = 10

    def __post_init__(self) -> None:
        if self.per_decade < 1:
            raise SchemeError(f"per_decade={self.per_decade}: expected >= 1")

    def __call__(self, step: int) -> bool:
        """Whether ``step`` is a reporting step."""
        if step <= 1:
            return step >= 0
        ratio = 10 ** (1 / self.per_decade)
        k = 0
        while round(ratio**k) < step:
            k += 1
        return round(ratio**k) == step
