r"""Hopfield's associative memory: spins, couplings, heat bath, and its exact capacity.

.. math::
    E(s) = -\tfrac12 \sum_{i \ne j} s_i J_{ij} s_j - \sum_i h_i s_i, \qquad s_i = \pm 1

==================  ===================================================
rule                couplings of patterns xi (P, N)
==================  ===================================================
"hebb"              J = xi^T xi / N, diagonal zero
"pseudo_inverse"    J = xi^T (xi xi^T)^-1 xi, diagonal zero
==================  ===================================================

At zero temperature and load alpha = P/N, N to infinity, Hebb's couplings keep a pattern
with the overlap :math:`m = \mathrm{erf}(x)`, x the largest root of

.. math::
    \sqrt{2 \alpha} = \frac{\mathrm{erf}(x)}{x} - \frac{2}{\sqrt\pi} e^{-x^2},

which is what the three mean-field equations of Amit, Gutfreund and Sompolinsky become.
The right-hand side has a maximum: beyond alpha_c = .13791 no pattern is kept.

References
----------
J. J. Hopfield, Proc. Natl. Acad. Sci. USA 79, 2554 (1982), doi:10.1073/pnas.79.8.2554.
D. J. Amit, H. Gutfreund, H. Sompolinsky, Phys. Rev. Lett. 55, 1530 (1985),
doi:10.1103/PhysRevLett.55.1530.
L. Personnaz, I. Guyon, G. Dreyfus, J. Physique Lett. 46, 359 (1985) (pseudo-inverse).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mdnet import random
from mdnet.errors import PotentialError
from mdnet.potentials._checks import fingerprint, finite_array, positive_integer

__all__ = ["Hopfield", "hopfield_capacity", "hopfield_overlap", "spin_rows"]

Floats = npt.NDArray[np.float64]

_STREAM = random.STREAM_SPINS
_ROUND = 8  # sweeps between looks at the flips


def spin_rows(name: str, spins: Any, width: int | None = None) -> Floats:
    """Check spins of -1 and 1, own copy (n, width) float64; (width,) becomes a row.

    Raises
    ------
    PotentialError
        Another shape, or values other than -1 and 1.
    """
    array = np.array(finite_array(name, spins), ndmin=2)
    if array.ndim != 2 or not array.size or width not in (None, array.shape[1]):
        raise PotentialError(
            f"{name} has shape {np.shape(spins)}: expected (n, {width or 'N'}), one "
            "column a spin"
        )
    wrong = np.abs(array) != 1.0
    if wrong.any():
        raise PotentialError(
            f"{name} holds {float(array[wrong][0])!r}: expected -1 and 1 only; turn "
            f"0 and 1 into them with 2 * {name} - 1"
        )
    return array


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Hopfield:
    """A network of N spins that remembers P patterns.

    Parameters
    ----------
    patterns : (P, N)
        Rows of -1 and 1.
    rule : {"hebb", "pseudo_inverse"}
        How they make the couplings; see the module's table.
    field : float or (N,)
        Outer field h.

    Attributes
    ----------
    couplings : (N, N) float64
        J, symmetric, with zero diagonal.

    Raises
    ------
    PotentialError
        Patterns that are not -1 and 1, an unknown rule, patterns that depend on each
        other linearly under "pseudo_inverse".

    Examples
    --------
    >>> import numpy as np
    >>> from mdnet import potentials
    >>> patterns = potentials.Hopfield.random_patterns(count=5, size=200, seed=1)
    >>> memory = potentials.Hopfield(patterns)
    >>> noisy = patterns.copy()
    >>> noisy[:, :20] *= -1
    >>> memory.overlaps(memory.retrieve(noisy)).diagonal()
    array([1., 1., 1., 1., 1.])
    """

    patterns: Any
    rule: str = "hebb"
    field: Any = 0.0
    couplings: Floats = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        patterns = spin_rows("patterns", self.patterns)
        count, size = patterns.shape
        if self.rule == "hebb":
            couplings = patterns.T @ patterns / size
        elif self.rule == "pseudo_inverse":
            if np.linalg.matrix_rank(patterns) < count:
                raise PotentialError(
                    f"patterns: {count} rows of rank {np.linalg.matrix_rank(patterns)};"
                    " rule='pseudo_inverse' expects independent ones: drop repeated "
                    "rows, or use rule='hebb'"
                )
            couplings = patterns.T @ np.linalg.solve(patterns @ patterns.T, patterns)
        else:
            raise PotentialError(
                f"rule={self.rule!r}: expected 'hebb' or 'pseudo_inverse'"
            )
        couplings = 0.5 * (couplings + couplings.T)
        np.fill_diagonal(couplings, 0.0)
        field = finite_array("field", self.field)
        if field.shape not in ((), (size,)):
            raise PotentialError(
                f"field has shape {field.shape}: expected one number or ({size},)"
            )
        for array in (patterns, couplings):
            array.flags.writeable = False
        object.__setattr__(self, "patterns", patterns)
        object.__setattr__(self, "couplings", couplings)
        object.__setattr__(self, "field", field)

    @staticmethod
    def random_patterns(count: int, size: int, seed: int = 0) -> Floats:
        """Independent fair spins, (count, size)."""
        rows = np.arange(positive_integer("count", count))
        words = random.bits(
            seed, rows, 0, random.STREAM_INITIAL, positive_integer("size", size)
        )
        return np.asarray(2.0 * (words & np.uint32(1)) - 1.0, np.float64)

    @property
    def size(self) -> int:
        """Number of spins N."""
        return int(self.couplings.shape[0])

    @property
    def load(self) -> float:
        """Patterns per spin, alpha = P/N."""
        return len(self.patterns) / self.size

    def energy(self, spins: Any) -> Floats:
        """E of states (n, N), (n,)."""
        s = spin_rows("spins", spins, self.size)
        pairs = np.einsum("ni,ni->n", s @ self.couplings, s)
        return np.asarray(-0.5 * pairs - (s * self.field).sum(axis=1), np.float64)

    def overlaps(self, spins: Any) -> Floats:
        """M = xi.s/N of states (n, N) with all patterns, (n, P)."""
        s = spin_rows("spins", spins, self.size)
        return np.asarray(s @ self.patterns.T / self.size, np.float64)

    def glauber(
        self,
        spins: Any,
        sweeps: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
        first_step: int = 0,
    ) -> Floats:
        """Run the heat bath, spin after spin, replicas side by side.

        A spin becomes 1 with probability 1/(1 + e^(-2 (J s + h)_i/T)), which keeps
        e^(-E/T).  At T = 0 it follows its field, and stays if there is none.

        Parameters
        ----------
        spins : (R, N)
            Start; not changed.
        sweeps : int
            Updates of each spin.
        temperature : float
            T >= 0.
        seed, first_step : int
            Counters: a run may go on with ``first_step`` = sweeps done.

        Returns
        -------
        (R, N) float64

        Raises
        ------
        PotentialError
            States that do not fit, or a temperature below zero.
        """
        s = spin_rows("spins", spins, self.size)
        T = finite_array("temperature", temperature)
        if T.ndim or T < 0:
            raise PotentialError(
                f"temperature={temperature!r}: expected one number >= 0"
            )
        self._sweep(s, positive_integer("sweeps", sweeps), float(T), seed, first_step)
        return s

    def _sweep(self, s: Floats, sweeps: int, T: float, seed: int, step: int) -> int:
        """Sweep in place; how many spins turned over."""
        from mdnet.kernels import spins as kernels

        key = np.array(random.seed_words(seed), np.uint64)
        beta = 1.0 / T if T > 0 else np.inf
        h = s @ self.couplings + self.field
        flips = kernels.glauber(s, h, self.couplings, beta, sweeps, step, _STREAM, key)
        return int(flips.sum())

    def retrieve(self, spins: Any, most: int = 1000) -> Floats:
        """Follow the fields at T = 0 until no spin turns over, (R, N).

        Parameters
        ----------
        spins : (R, N)
            Start; not changed.
        most : int
            Sweeps at most.  The energy falls with each flip, so there is an end.

        Raises
        ------
        PotentialError
            Spins still turn after ``most`` sweeps.
        """
        s = spin_rows("spins", spins, self.size)
        for done in range(0, positive_integer("most", most), _ROUND):
            if not self._sweep(s, min(_ROUND, most - done), 0.0, 0, 0):
                return s
        raise PotentialError(f"most={most}: spins still turn; allow more sweeps")

    def describe(self) -> dict[str, Any]:
        """JSON-able settings."""
        return {
            "kind": "Hopfield",
            "patterns": fingerprint(self.patterns),
            "rule": self.rule,
            "field": fingerprint(self.field),
        }


def _root_load(x: float) -> float:
    """sqrt(2 alpha) at which the overlap is erf(x)."""
    return math.erf(x) / x - 2.0 / math.sqrt(math.pi) * math.exp(-x * x)


def _top() -> float:
    """Where `_root_load` is largest: golden section on the bracket (1, 3)."""
    low, high, part = 1.0, 3.0, (math.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-9:
        a, b = high - part * (high - low), low + part * (high - low)
        if _root_load(a) < _root_load(b):
            low = a
        else:
            high = b
    return 0.5 * (low + high)


def hopfield_capacity() -> tuple[float, float]:
    """Largest load of Hebb's couplings and the overlap there, T = 0, N infinite.

    Returns
    -------
    load, overlap : float
        alpha_c = .13791 and m = .9674.

    Examples
    --------
    >>> from mdnet import potentials
    >>> "{:.5f} {:.4f}".format(*potentials.hopfield_capacity())
    '0.13791 0.9674'
    """
    x = _top()
    return 0.5 * _root_load(x) ** 2, math.erf(x)


def hopfield_overlap(load: float) -> float:
    """Overlap of a kept pattern at T = 0, N infinite; 0 beyond the capacity.

    Parameters
    ----------
    load : float
        alpha = P/N > 0.

    Raises
    ------
    PotentialError
        A load that is not a number above zero.

    Examples
    --------
    >>> from mdnet import potentials
    >>> f"{potentials.hopfield_overlap(0.10):.4f}"
    '0.9980'
    """
    array = finite_array("load", load)
    if array.ndim or array <= 0:
        raise PotentialError(f"load={load!r}: expected one number > 0")
    aim, low = math.sqrt(2.0 * float(array)), _top()
    if _root_load(low) < aim:
        return 0.0
    high = max(2.0 / aim, 10.0)  # erf(x)/x < 1/x: the root lies below 1/aim
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _root_load(middle) > aim else (low, middle)
    return math.erf(0.5 * (low + high))
