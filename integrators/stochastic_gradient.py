r"""Overdamped baselines of machine learning, on the same words and the same ledger.

One Euler-Maruyama step of length dt,
:math:`q \leftarrow q + dt\,F/m + \sqrt{2\,dt\,T/m}\,z`, is a leapfrog step of length
:math:`\sqrt{2\,dt}` from momenta drawn afresh: the word O B A B with c = 0.  Heat is
then what the redraw exchanges, shadow work the leapfrog's energy error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mdnet.errors import SchemeError
from mdnet.integrators import grouping
from mdnet.integrators.companion import CALL, Companion, Context
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.integrators.preconditioned import PreconditionedSGLD
from mdnet.integrators.splitting import KINDS, Splitting

__all__ = ["SGD", "SGLD", "DecayingSGD"]


def SGLD(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    preconditioner: str | None = None,
    decay: float = 0.999,
    regularizer: float = 1e-5,
    correction: bool = True,
) -> Splitting:
    r"""Stochastic gradient Langevin dynamics: Euler-Maruyama of dq = F dt + noise.

    On U = k q^2/2 it samples :math:`\langle q^2\rangle k/T = 1/(1 - dt\,k/2)` (m = 1),
    and gradient noise of variance C adds dt C/2 to the temperature.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Step size; stable for dt < 2 / k_max.
    temperature : float, (R,) array or schedule
        T >= 0 in energy units.
    mass : float or (D,) array
        A fixed diagonal preconditioner: parameter i moves with dt / m_i.
    preconditioner : {None, "rmsprop"}
        Let parameter i move with dt G_i instead, G following the size of its forces:
        see `mdnet.integrators.preconditioned`.  With noisy forces G evens the noise
        out too; the law is exp(-U/T) where G changes slowly only (``decay`` near 1).
    decay : float
        alpha in [0, 1) of the running mean square of forces.
    regularizer : float
        lambda > 0, in the units of a force.
    correction : bool
        Whether to add the term Gamma; it takes a second force call a step.

    References
    ----------
    M. Welling, Y. W. Teh, ICML 2011, eq. (4), with dt for half their step.
    C. Li, C. Chen, D. Carlson, L. Carin, AAAI 2016, "Preconditioned stochastic gradient
    Langevin dynamics for deep neural networks", arXiv:1512.07666.
    """
    if preconditioner not in (None, "rmsprop"):
        raise SchemeError(
            f"preconditioner={preconditioner!r}: expected None or 'rmsprop'"
        )
    word = (("O", 1.0), ("B", 0.5), ("A", 1.0), ("B", 0.5))
    common: dict[str, Any] = {"damping": 0.0, "length": "sqrt(2 dt)"}
    if preconditioner is None:
        return Splitting(word, dt, temperature, math.inf, mass, name="SGLD", **common)
    return PreconditionedSGLD(
        word,
        dt,
        temperature,
        math.inf,
        mass,
        name="pSGLD",
        decay=decay,
        regularizer=regularizer,
        correction=correction,
        **common,
    )


@dataclass(frozen=True, eq=False)
class DecayingSGD(Splitting):
    """What `SGD` returns with ``weight_decay``; parameters are described there."""

    weight_decay: Any = 0.0
    SCALARS: ClassVar[tuple[str, ...]] = ("dt", "weight_decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self)

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step, with a call after its force."""
        out: list[tuple[int, int, int]] = []
        for item in super().operations():
            out.append(item)
            if item[0] == FORCE_CALL:
                out.append((CALL, 0, 0))
        return tuple(out)

    def bind(self, context: Context) -> Companion:
        """Return what adds the decay to the forces."""
        return _Decay(self, context)

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "DecayingSGD")


KINDS["DecayingSGD"] = grouping.remake(DecayingSGD)


class _Decay(grouping.Rows):
    """Adds -weight_decay q to the forces."""

    def call(self, index: int, step: int) -> None:
        """Change the forces just evaluated."""
        del index
        state = self.context.state
        rate = self.row("weight_decay", step).astype(state.forces.dtype)
        state.forces -= (rate[:, None] * state.positions).astype(state.forces.dtype)


def SGD(
    dt: Any, momentum: float = 0.0, mass: Any = 1.0, weight_decay: Any = 0.0
) -> Splitting:
    r"""Gradient descent with heavy-ball momentum, as dynamics driven by its noise.

    :math:`\Delta \leftarrow \mu\Delta + dt\,F/m,\; q \leftarrow q + \Delta`.  With a
    noise of variance C per force it behaves as if at T = dt C/2 (momentum 0).

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Learning rate with respect to the extensive U (a sum over the data).
    momentum : float
        mu in [0, 1).
    mass : float or (D,) array
    weight_decay : float, (R,) array or schedule
        lambda >= 0 of a force -lambda q beside F.  It counts as work of the
        integrator, not as energy; a `potentials.GaussianPrior` of variance T/lambda
        does.

    References
    ----------
    S. Mandt, M. D. Hoffman, D. M. Blei, J. Mach. Learn. Res. 18, 1 (2017), eq. (12).
    """
    if not 0 <= momentum < 1:
        raise SchemeError(f"momentum={momentum!r}: expected a number in [0, 1)")
    common: dict[str, Any] = {
        "name": "SGD",
        "damping": float(momentum),
        "length": "sqrt(dt)",
    }
    if not callable(weight_decay) and not np.any(weight_decay):
        return Splitting("OBA", dt, 0.0, 0.0, mass, **common)
    return DecayingSGD("OBA", dt, 0.0, 0.0, mass, weight_decay=weight_decay, **common)
