"""The garbage collector paused while kernels compile.

A compiler makes millions of objects and throws few away at a time: looking for cycles
among them takes an eighth of the time that it needs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["uncollected"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def uncollected(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Pause the garbage collector during every call of ``function``."""

    @wraps(function)
    def call(*arguments: _P.args, **settings: _P.kwargs) -> _R:
        running = gc.isenabled()
        gc.disable()
        try:
            return function(*arguments, **settings)
        finally:
            if running:
                gc.enable()

    return call
