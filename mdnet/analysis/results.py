"""The result most analyses return: a value with its error, readable as a number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

__all__ = ["Estimate"]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate(NDArrayOperatorsMixin):
    """A measured quantity.

    It stands wherever its value would: ``float(e)``, ``e < 1.01``, ``abs(e - 2)`` and
    ``np.asarray(e)`` all read ``e.value``, and arithmetic gives plain numbers (errors
    are not propagated).

    Attributes
    ----------
    value : float or ndarray
        The estimate.
    stderr : float or ndarray
        One standard error; NaN where the data cannot tell.
    n_eff : float or ndarray
        Independent samples the error is worth.
    method : str
        How it was estimated.
    warnings : tuple of str
        What to know before believing it.

    Examples
    --------
    >>> e = Estimate(1.25, 0.03, 400.0, "mean")
    >>> print(e, e > 1)
    1.250 ± 0.030 True
    """

    value: Any
    stderr: Any
    n_eff: Any
    method: str
    warnings: tuple[str, ...] = ()

    def __float__(self) -> float:
        return float(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        plain = [x.value if isinstance(x, Estimate) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __str__(self) -> str:
        if np.ndim(self.value):
            return f"{self.value} ± {self.stderr}"
        return with_error(float(self.value), float(self.stderr))

    def warn(self, *messages: str) -> Estimate:
        """Copy with more warnings."""
        return replace(self, warnings=(*self.warnings, *messages))


def with_error(value: float, stderr: float) -> str:
    """``value ± stderr`` with two significant digits of the error."""
    if not np.isfinite(stderr) or stderr <= 0 or not np.isfinite(value):
        return f"{value:.4g}"
    digits = 1 - int(np.floor(np.log10(stderr)))
    if -3 <= digits <= 8:
        digits = max(digits, 0)
        return f"{value:.{digits}f} ± {stderr:.{digits}f}"
    return f"{value:.6g} ± {stderr:.2g}"
