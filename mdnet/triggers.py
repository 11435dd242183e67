"""When to report: small frozen rules ``trigger(step) -> bool``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mdnet.errors import SchemeError

__all__ = [
    "Trigger",
    "as_trigger",
    "at",
    "describe",
    "every",
    "from_description",
    "log_spaced",
]

Trigger = Callable[[int], bool]


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


def as_trigger(value: int | Trigger) -> Trigger:
    """Turn a number of steps into `every`; pass triggers through."""
    return value if callable(value) else every(value)


def describe(value: int | Trigger) -> Any:
    """JSON-able form of a number of steps or a trigger."""
    if not callable(value):
        return int(value)
    if isinstance(value, every):
        return {"trigger": "every", "n": value.n, "offset": value.offset}
    if isinstance(value, at):
        return {"trigger": "at", "steps": sorted(value.steps)}
    if isinstance(value, log_spaced):
        return {"trigger": "log_spaced", "per_decade": value.per_decade}
    return {"trigger": getattr(value, "__qualname__", type(value).__qualname__)}


def from_description(record: Any) -> int | Trigger:
    """Turn what `describe` returned back into a number of steps or a trigger.

    Raises
    ------
    SchemeError
        A trigger that is not one of this module.
    """
    if isinstance(record, int):
        return record
    fields = {k: v for k, v in record.items() if k != "trigger"}
    if record["trigger"] == "every":
        return every(**fields)
    if record["trigger"] == "at":
        return at(*fields["steps"])
    if record["trigger"] == "log_spaced":
        return log_spaced(**fields)
    raise SchemeError(
        f"trigger {record['trigger']!r} is not one of mdnet.triggers: it cannot be "
        "read back from a file; start a new trajectory with it"
    )
