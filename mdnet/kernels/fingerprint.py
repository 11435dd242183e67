"""A number that changes with the source of the kernels.

Numba's disk cache looks at the file of the function it stores and at the variables
that the function closes over, not at the functions it calls.  A kernel made of other
files closes over their fingerprint, so that editing any of them recompiles it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

__all__ = ["fingerprint"]


def fingerprint(*modules: ModuleType) -> int:
    """63 bits of the SHA-256 of the sources of ``modules``."""
    digest = hashlib.sha256()
    for module in modules:
        if module.__file__ is not None:
            digest.update(Path(module.__file__).read_bytes())
    return int.from_bytes(digest.digest()[:8], "little") >> 1
