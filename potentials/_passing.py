"""What a composed potential hands through of those inside it.

A posterior predicts; a sum, a multiple, a path or a subspace of one does so too, and a
composition of potentials that predict nothing has no ``predict`` at all.  In the same
way its evaluator hands through what those inside must find again after a restart.
"""

from __future__ import annotations

from typing import Any

from mdnet.typing import Array, Evaluator

__all__ = ["kept", "passed"]

_NAMES = ("predict", "log_likelihood", "likelihood", "network")


def passed(owner: Any, name: str, *fields: str) -> Any:
    """Attribute ``name`` of the first part that has it, for ``__getattr__``.

    ``fields`` are the attributes of ``owner`` that hold a part, or a tuple of parts; a
    minibatch potential is also asked for that of its ``full`` one.

    Raises
    ------
    AttributeError
        A name that is not handed through, or that no part has.
    """
    if name in _NAMES:
        for field in fields:
            held = owner.__dict__.get(field, ())
            for part in held if isinstance(held, tuple) else (held,):
                for one in (part, getattr(part, "full", None)):
                    if hasattr(one, name):
                        return getattr(one, name)
    raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")


def kept(*bound: Evaluator) -> dict[str, Array]:
    """What evaluators inside another remember, for the restart; see `control_variates`.

    Names of several are told apart by ``part0_``, ``part1_``...
    """
    if len(bound) == 1:
        return dict(getattr(bound[0], "variables", {}))
    return {
        f"part{i}_{name}": array
        for i, part in enumerate(bound)
        for name, array in getattr(part, "variables", {}).items()
    }
