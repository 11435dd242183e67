"""Which CUDA tests can run here: on a device, or in Numba's simulator."""

import importlib.util
import os

import pytest

from mdnet import backend
from mdnet.errors import BackendError

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def _missing():
    if SIMULATED:
        return ""
    try:
        backend.resolve("cuda")
    except BackendError as error:
        return str(error)
    return ""


MISSING = _missing()


def gpu(test):
    """Mark a test that needs a device or the simulator."""
    skip = pytest.mark.skipif(bool(MISSING), reason=MISSING or "a device is there")
    return pytest.mark.gpu(skip(test))


def device_only(test):
    """Mark a test that the simulator cannot do."""
    skip = pytest.mark.skipif(SIMULATED, reason="the simulator has no such thing")
    return gpu(skip(test))


def compiler(test):
    """Mark a test that compiles to PTX: no device, but not the simulator either."""
    for skip in (
        pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing"),
        pytest.mark.skipif(
            importlib.util.find_spec("nvidia") is None, reason="libnvvm is missing"
        ),
    ):
        test = skip(test)
    return test
