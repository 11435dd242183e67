r"""Local entropy: a potential that prefers wide valleys, by copies held together.

The local entropy of a potential U around w, at temperature T and coupling
:math:`\gamma`,

.. math::
    \Phi(w) = -T \ln \int e^{-(U(w') + \gamma |w - w'|^2/2)/T} dw',

has no closed form for a network.  The robust ensemble samples it without computing it:
a centre w and y copies w_a have the energy

.. math:: V(w, w_1 \dots w_y) = \sum_a U(w_a) + \frac{\gamma}{2} \sum_a |w - w_a|^2,

an ordinary potential of (y + 1) D weights.  Integrating the copies out leaves
:math:`e^{-y \Phi(w)/T}`: *sampled at T, the centre follows the local entropy exactly*,
at y times its strength, whatever y.  On :math:`U = w^T H w/2` it is Gaussian with the
stiffness :math:`y H \gamma (H + \gamma)^{-1}`: stiff directions saturate at
:math:`\gamma`, soft ones keep their own.

References
----------
C. Baldassi et al., PNAS 113, E7655 (2016), doi:10.1073/pnas.1608103113.
P. Chaudhari et al., J. Stat. Mech. (2019) 124018, doi:10.1088/1742-5468/ab39d9.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdnet.backend import Backend
from mdnet.potentials._checks import positive, positive_integer
from mdnet.potentials._forms import Polynomial
from mdnet.potentials._passing import kept, passed
from mdnet.potentials.base import Potential
from mdnet.potentials.compose import check_parts
from mdnet.typing import Array, Evaluator, Layout

__all__ = ["LocalEntropy", "local_entropy"]


class LocalEntropy(Potential):
    """A centre and copies of the weights, tied by springs; see `local_entropy`.

    Attributes
    ----------
    part : Potential
        U.
    coupling : float
        gamma, energy per length squared.
    copies : int
        y.
    """

    def __init__(self, part: Potential, coupling: float, copies: int = 3) -> None:
        check_parts((part,))
        self.part = part
        self.coupling = positive("coupling", coupling, "energy per length squared")
        self.copies = positive_integer("copies", copies)
        self.size = (self.copies + 1) * part.size

    @property
    def layout(self) -> Layout:
        """The centre's tensors under their own names, then "copy0.<name>", ..."""
        out = dict(self.part.layout)
        for a in range(self.copies):
            at = (a + 1) * self.part.size
            for name, (where, shape) in self.part.layout.items():
                out[f"copy{a}.{name}"] = slice(where.start + at, where.stop + at), shape
        return out

    def center(self, q: Array) -> Array:
        """The centre's weights: (..., (y + 1) D) -> (..., D), a view."""
        return q[..., : self.part.size]

    def evaluator(self, backend: Backend, replicas: int, seed: int = 0) -> Evaluator:
        """Bind to a backend; all copies of all replicas make one batch for U."""
        return _LocalEntropyEvaluator(self, backend, replicas, seed)

    def initial(self, replicas: int, seed: int = 0) -> Array:
        """A start of U for the centre, all copies on top of it, (R, (y + 1) D)."""
        return np.tile(self.part.initial(replicas, seed), (1, self.copies + 1))

    def __getattr__(self, name: str) -> Any:
        value = passed(self, name, "part")
        if name not in ("predict", "log_likelihood"):
            return value

        def of_center(q: Array, *args: Any) -> Array:
            return value(self.center(q), *args)

        of_center.__doc__ = f"As `{name}` of U, with the weights of the centre."
        return of_center

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "LocalEntropy",
            "coupling": self.coupling,
            "copies": self.copies,
            "part": self.part.describe(),
        }


class _LocalEntropyEvaluator:
    """One evaluator of U for R y rows; the springs in whole-array operations."""

    polynomial: Polynomial | None = None
    __slots__ = (
        "_bound",
        "_copies",
        "_coupling",
        "_energy",
        "_forces",
        "_shape",
        "_spring",
        "_springs",
        "_xp",
        "full",
    )

    def __init__(
        self, model: LocalEntropy, backend: Backend, replicas: int, seed: int
    ) -> None:
        xp = self._xp = backend.xp
        y, size = model.copies, model.part.size
        self._shape = replicas, y, size
        self._coupling = model.coupling
        self._bound = model.part.evaluator(backend, replicas * y, seed)
        self._copies = backend.zeros((replicas * y, size), backend.state_dtype)
        types = {backend.force_dtype, np.dtype(np.float64)}
        self._forces = {t: backend.zeros((replicas * y, size), t) for t in types}
        self._springs = {t: backend.zeros((replicas, y, size), t) for t in types}
        self._energy = xp.empty(replicas * y, np.float64)
        self._spring = xp.empty(replicas, np.float64)
        self.full = self._bound.full

    def _split(self, array: Array) -> tuple[Array, Array]:
        """Views (R, 1, D) of the centre and (R, y, D) of the copies."""
        replicas, y, size = self._shape
        parts = array.reshape(replicas, y + 1, size)
        return parts[:, :1], parts[:, 1:]

    def _own(self, positions: Array) -> Array:
        """The copies as contiguous rows (R y, D)."""
        self._copies.reshape(self._shape)[...] = self._split(positions)[1]
        return self._copies

    def _pull(self, positions: Array, dtype: Any) -> Array:
        """Springs gamma (w_a - w), (R, y, D), in type ``dtype``."""
        spring = self._springs[dtype]
        center, copies = self._split(positions)
        self._xp.subtract(copies, center, out=spring, casting="same_kind")
        self._xp.multiply(spring, self._coupling, out=spring)
        return spring

    @property
    def variables(self) -> dict[str, Array]:
        return kept(self._bound)

    def forces(
        self, positions: Array, out: Array, call: int, energies: Array | None = None
    ) -> None:
        xp, own = self._xp, self._forces[out.dtype]
        energy = None if energies is None else self._energy
        self._bound.forces(self._own(positions), own, call, energy)
        spring = self._pull(positions, out.dtype)
        center, copies = self._split(out)
        xp.subtract(own.reshape(self._shape), spring, out=copies)
        xp.sum(spring, axis=1, keepdims=True, out=center)
        if energies is not None:
            self._add_up(positions, energies)

    def energies(self, positions: Array, out: Array) -> None:
        self._bound.energies(self._own(positions), self._energy)
        self._add_up(positions, out)

    def gradients(self, positions: Array, out: Array) -> None:
        xp, own = self._xp, self._forces[out.dtype]
        self._bound.gradients(self._own(positions), own)
        spring = self._pull(positions, out.dtype)
        center, copies = self._split(out)
        xp.add(own.reshape(self._shape), spring, out=copies)
        xp.sum(spring, axis=1, keepdims=True, out=center)
        xp.negative(center, out=center)

    def _add_up(self, positions: Array, out: Array) -> None:
        """Energies of the copies, already evaluated, and of the springs."""
        xp, (replicas, y, _) = self._xp, self._shape
        spring = self._pull(positions, np.dtype(np.float64))
        xp.multiply(spring, spring, out=spring)
        xp.sum(spring, axis=(1, 2), out=self._spring)
        xp.multiply(self._spring, 0.5 / self._coupling, out=self._spring)
        xp.sum(self._energy.reshape(replicas, y), axis=1, out=out)
        xp.add(out, self._spring, out=out)


def local_entropy(
    potential: Potential, coupling: float, copies: int = 3
) -> LocalEntropy:
    """Prefer wide valleys: a centre tied to copies of itself (robust ensemble).

    V = sum_a U(w_a) + (gamma/2) sum_a |w - w_a|^2.  At temperature T the centre w
    follows exp(-y Phi(w)/T) with the local entropy Phi of U, exactly.

    Parameters
    ----------
    potential : Potential
        U.
    coupling : float
        gamma > 0, energy per length squared.  The copies look around the centre as far
        as sqrt(T/gamma).
    copies : int
        y >= 1: each costs one force of U; all are evaluated in one batch.

    Returns
    -------
    LocalEntropy
        Of (y + 1) D weights, the centre first; ``center(q)`` picks it, and
        ``predict`` uses it.

    Raises
    ------
    PotentialError
        No potential, or ``coupling`` or ``copies`` not positive.

    Examples
    --------
    >>> from mdnet import potentials
    >>> V = potentials.local_entropy(potentials.Harmonic(4.0), coupling=1.0, copies=2)
    >>> list(V.layout)
    ['q', 'copy0.q', 'copy1.q']
    >>> V.energy([[0.0, 1.0, 0.0]])
    array([2.5])
    """
    return LocalEntropy(potential, coupling, copies)
