"""Shared fixtures.

Numba's pool is made larger than the machine, so that the tests of thread counts can
ask for more threads than it has cores; everything else uses at most two.
"""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "4")
os.environ.setdefault("MPLBACKEND", "Agg")

import numba
import pytest


@pytest.fixture(autouse=True)
def two_threads():
    numba.set_num_threads(min(2, os.cpu_count() or 1))
    yield
    numba.set_num_threads(min(2, os.cpu_count() or 1))
