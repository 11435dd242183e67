"""What a composed potential answers for the model inside it.

A posterior predicts; a sum, a multiple, a path or a subspace of one does so too, and a
composition of potentials that predict nothing has no ``predict`` at all.
"""

from __future__ import annotations

from typing import Any

__all__ = ["passed"]

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
