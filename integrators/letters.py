"""The alphabet: what each letter does to the state, and its coefficients.

======  =====================  =============================================
letter  flow                   coefficients of a share w of a step h
======  =====================  =============================================
A       dq = p/m dt            a = w h
B       dp = F dt              b = w h
O       dp = -g p dt + noise   c = e^(-g w h),  s = sqrt((1 - c^2) T)
D       the same at friction   c = e^(-xi w h), s^2 = g T (1 - c^2)/xi; s = 0 where
        xi, noise of g         the word has an O beside it
N       d(xi) = (sum p^2/m     w h; see `mdnet.integrators.adaptive_langevin`
        - n T)/Q dt
======  =====================  =============================================

M is short for a test of all since the last bath: "OBABM" is "O{BAB}".

The arithmetic itself is in `mdnet.kernels.letters`, where it is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ALPHABET", "CODES", "bath_coefficients"]

ALPHABET: dict[str, str] = {
    "A": "drift: q += w h p / m",
    "B": "kick: p += w h F",
    "O": "bath: p = c p + sqrt((1 - c^2) m T) z, c = exp(-friction w h)",
    "D": "bath at the friction xi that N moves",
    "N": "thermostat: xi += w h (sum p^2/m - n T)/Q",
}
CODES: dict[str, int] = {"B": 0, "A": 1, "O": 2}
"""Operation codes, as `mdnet.kernels.letters` numbers them."""


def bath_coefficients(
    decay: npt.NDArray[np.float64] | float, temperature: Any
) -> tuple[Any, Any]:
    """Return (c, s) of the exact bath flow whose exponent is ``-decay``.

    s^2 = (1 - c^2) T is written with expm1, so that a weak bath keeps its digits.
    """
    c = np.exp(-np.asarray(decay, dtype=np.float64))
    s = np.sqrt(-np.expm1(-2.0 * np.asarray(decay, dtype=np.float64)) * temperature)
    return c, s
