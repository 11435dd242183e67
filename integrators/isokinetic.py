r"""Isokinetic dynamics: Gauss's constraint holds the kinetic energy to the last bit.

.. math:: \dot q = p/m,\qquad \dot p = F - \alpha p,\quad
          \alpha = \frac{\sum F p/m}{\sum p^2/m},\qquad
          \sum\frac{p^2}{m} = (d - 1)\,T,

samples :math:`e^{-U/T}` of the d weights where it is ergodic.  A kick under a constant
force is solved exactly (see `mdnet.integrators.microcanonical`), so that no force,
however large, adds energy: momenta turn towards it.  A bath in the word turns their
direction at random, which makes it ergodic.  The momenta's law is that of a sphere, not
Maxwell's: of d - 1 degrees of freedom, at T exactly.

:math:`U + \sum\Delta` is conserved to O(dt^2), with :math:`\Delta` the work of the
kicks, (d - 1) T times the logarithm of how far they contract phase space.

References
----------
D. J. Evans, G. P. Morriss, Phys. Lett. A 98, 433 (1983),
doi:10.1016/0375-9601(83)90256-6.
F. Zhang, J. Chem. Phys. 106, 6102 (1997), doi:10.1063/1.473273 (the exact kick).
P. Minary, G. J. Martyna, M. E. Tuckerman, J. Chem. Phys. 118, 2510 (2003),
doi:10.1063/1.1534582 (its canonical configurations).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mdnet import schedules
from mdnet.errors import SchemeError
from mdnet.integrators import grouping
from mdnet.integrators.companion import Companion, Context
from mdnet.integrators.microcanonical import Microcanonical
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.typing import Layout

if TYPE_CHECKING:
    from mdnet.state import State

__all__ = ["Isokinetic", "IsokineticSplitting"]


@dataclass(frozen=True, eq=False)
class IsokineticSplitting(Splitting):
    """What `Isokinetic` returns; parameters are described there."""

    sphere: bool | str = "isokinetic"

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self)
        self.target_temperature(0)
        if set(self.scheme.word) - set("ABO"):
            raise SchemeError(
                f"word={self.word!r}: expected a plain word of A, B and O, as 'BAOAB'; "
                "integrators.MCLMC(adjusted=True) has a test"
            )

    def target_temperature(self, step: int) -> Any:
        """Temperature in the step after ``step``: float or (R,), above zero."""
        return grouping.above_zero(self.name, super().target_temperature(step))

    def growth(self, curvature: float) -> float:
        """Unknown, 0: kicks that turn momenta are never unstable."""
        del curvature
        return 0.0

    def degrees_of_freedom(self, layout: Layout) -> npt.NDArray[np.int64]:
        """Momenta of each tensor, (L,); the constraint takes one of the largest's."""
        counts = super().degrees_of_freedom(layout)
        counts[counts.argmax()] -= 1
        return counts

    def bind(self, context: Context) -> Companion:
        """Return what turns the momenta."""
        return _Turning(self, context)

    def conserved(self, state: State) -> npt.NDArray[np.float64]:
        """Potential energy and work of the kicks, (R,): constant to O(dt^2)."""
        total: npt.NDArray[np.float64] = state.potential_energy() + state.kick_work
        return total

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        names = ("word", "dt", "temperature", "friction", "mass", "name")
        given = {name: schedules.describe(getattr(self, name)) for name in names}
        return {"kind": "Isokinetic", **given}


KINDS["Isokinetic"] = grouping.remake(IsokineticSplitting)


class _Turning(Microcanonical):
    """Momenta on their sphere, and what is conserved."""

    def scalars(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the conserved quantity."""
        state, made = self.context.state, self._integrator
        return {"conserved": made.conserved(state)}


def Isokinetic(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    word: str = "BAOAB",
) -> IsokineticSplitting:
    r"""Gaussian isokinetic dynamics, with a bath that turns the momenta.

    The kinetic energy is (d - 1) T/2 at every step, exactly; positions sample exp(-U/T)
    to O(dt^2).  The series ``conserved`` is what the step should keep.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step; never unstable, since no kick adds energy, but accurate for
        dt < 1 / omega_max only.
    temperature : float, (R,) array or schedule
        T > 0 in energy units (k_B = 1).
    friction : float, (R,) array or schedule
        Rate at which directions are forgotten; 0 for Gauss's dynamics alone, which is
        deterministic, reversible and, on oscillators, not ergodic.
    mass : float or (D,) array
    word : str
        Of drifts, kicks and baths.

    Raises
    ------
    SchemeError
        A parameter out of range; later a potential of one parameter.

    References
    ----------
    P. Minary, G. J. Martyna, M. E. Tuckerman, J. Chem. Phys. 118, 2510 (2003),
    doi:10.1063/1.1534582.

    Examples
    --------
    >>> Isokinetic(dt=0.1, temperature=2.0).name
    'Isokinetic'
    """
    return IsokineticSplitting(word, dt, temperature, friction, mass, name="Isokinetic")
