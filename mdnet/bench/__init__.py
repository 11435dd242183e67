"""``mdnet bench``: how fast this machine runs mdnet, beside its limits and the peers.

`limits` measures what the machine can do, `workloads` what mdnet does on it, `peers`
the same work in JAX and PyTorch where these are installed; `table` puts them together.
"""

from __future__ import annotations

from mdnet.bench.table import run

__all__ = ["run"]
