"""The step as a map of phase space: reversibility, symplectic form, contraction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.errors import PotentialError
from mdnet.validate._runs import F, Precision, draws_noise, positive, report, simulate

if TYPE_CHECKING:
    from mdnet.typing import Potential

__all__ = ["Reversibility", "Symplecticity", "reversibility", "symplecticity"]

_LARGEST = 64  # parameters of a Jacobian: 16 D paths of D parameters
_LEVELS = 4  # differences of halved width that Richardson's table is made of


@dataclass(frozen=True, slots=True)
class Reversibility:
    """How well a path retraces itself.

    Attributes
    ----------
    passed : bool
        ``deviation <= tolerance``.
    deviation : float
        Largest deviation from the start of any weight or momentum on the way back,
        relative to the largest displacement (momentum) on the way.
    positions, momenta : float
        The two, in their own units.
    tolerance : float
    steps : int
        In each direction.
    warnings : tuple of str
    """

    passed: bool
    deviation: float
    positions: float
    momenta: float
    tolerance: float
    steps: int
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return report(
            "reversibility",
            self.passed,
            f"relative deviation {self.deviation:.1e} after {self.steps} steps and "
            f"back, tolerance {self.tolerance:.1e}",
            f"largest of positions {self.positions:.1e}, of momenta {self.momenta:.1e}",
            *(f"! {w}" for w in self.warnings),
        )


def reversibility(
    integrator: Any,
    potential: Potential,
    steps: int = 100,
    *,
    positions: Any = None,
    momenta: Any = None,
    replicas: int = 4,
    seed: int = 0,
    precision: Precision = "double",
    tolerance: float | None = None,
) -> Reversibility:
    """Run ``steps`` steps, turn the momenta round, run back: the start again.

    A palindromic word returns to rounding; another one misses by its order in dt, and
    one that draws noise (a bath, minibatches) by as much as it moved.

    Parameters
    ----------
    integrator : Splitting or alike
        One with variables of its own turns them round in ``reverse(state)``.
    potential : Potential
    steps : int
        In each direction; chaos multiplies rounding, so not too many.
    positions, momenta : (R, D) array, optional
        Start; drawn if not given.
    replicas, seed : int
    precision : {"single", "mixed", "double"}
    tolerance : float, optional
        4 sqrt(eps) of the type of the forces if not given: 6e-8 in double, 1.4e-3 in
        single and mixed precision.

    Examples
    --------
    >>> from mdnet import integrators, potentials, validate
    >>> U = potentials.DoubleWell(size=5)
    >>> bool(validate.reversibility(integrators.VelocityVerlet(dt=0.05), U))
    True
    >>> bool(validate.reversibility(integrators.Splitting("BA", dt=0.05), U))
    False
    """
    if steps < 1:
        raise PotentialError(f"steps={steps!r}: expected a number >= 1")
    sim = simulate(potential, integrator, replicas, positions, momenta, seed, precision)
    if tolerance is None:
        tolerance = 4 * float(np.sqrt(np.finfo(sim.backend.force_dtype).eps))
    q, p = (a.astype(np.float64) for a in (sim.state.positions, sim.state.momenta))
    sim.run(steps)
    there = sim.state.positions.astype(np.float64)
    far = float(np.abs(there - q).max())
    fast = max(float(np.abs(a).max()) for a in (p, sim.state.momenta))
    # In place: variables that an integrator keeps of its own are left alone.
    np.negative(sim.state.momenta, out=sim.state.momenta)
    turn = getattr(integrator, "reverse", None)
    if turn is not None:
        turn(sim.state)
    sim.run(steps)
    miss_q = float(np.abs(sim.state.positions - q).max())
    miss_p = float(np.abs(sim.state.momenta + p).max())
    warnings: tuple[str, ...] = ()
    if far == 0 or fast == 0:
        warnings = ("nothing moved: give momenta=, or a temperature > 0",)
    deviation = max(
        miss / scale if scale else float("inf" if miss else 0)
        for miss, scale in ((miss_q, far), (miss_p, fast))
    )
    return Reversibility(
        passed=deviation <= tolerance and not warnings,
        deviation=deviation,
        positions=miss_q,
        momenta=miss_p,
        tolerance=tolerance,
        steps=steps,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True)
class Symplecticity:
    """The Jacobian J of the map z = (q, p) -> z' of some steps.

    Attributes
    ----------
    passed : bool
        ``residual <= tolerance``; for maps with a given contraction, whether
        ``log_determinant`` is within the tolerance of ``expected``.
    residual : float
        Largest element of J' S J - S, with S = [[0, 1], [-1, 0]]; infinite where the
        integrator has variables beside q and p.
    log_determinant : float
        log |det J|: 0 for a map that keeps volumes.
    expected : float or None
        The contraction asked for, where one was.
    error : float
        Largest error of an element of J, from its own extrapolation.
    tolerance : float
    jacobian : ndarray, (2 D, 2 D)
        Of z = (q, p, variables of the integrator): larger where it has some.
    warnings : tuple of str
    """

    passed: bool
    residual: float
    log_determinant: float
    expected: float | None
    error: float
    tolerance: float
    jacobian: F
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        wanted = (
            f"|J'SJ - S| = {self.residual:.1e}"
            if self.expected is None
            else f"log|det J| expected {self.expected:.10g}"
        )
        return report(
            "symplecticity",
            self.passed,
            f"{wanted}, tolerance {self.tolerance:.1e}",
            f"log|det J| = {self.log_determinant:.10g}, J known to {self.error:.1e}",
            *(f"! {w}" for w in self.warnings),
        )


def symplecticity(
    integrator: Any,
    potential: Potential,
    steps: int = 1,
    *,
    positions: Any = None,
    momenta: Any = None,
    log_determinant: float | None = None,
    width: float = 0.04,
    seed: int = 0,
    tolerance: float = 1e-9,
) -> Symplecticity:
    r"""Check that a step preserves the symplectic form, or contracts as it should.

    :math:`J^T S J = S` with the Jacobian J of ``steps`` steps at one point of phase
    space, by central differences of widths w, w/2, w/4, w/8, extrapolated to zero, in
    double precision.

    Parameters
    ----------
    integrator : Splitting or alike
        One that draws noise is followed at one noise; its map has no symplectic form,
        but a determinant: :math:`\log\det J = -\gamma\,h\,D` a step for Langevin words.
        One with variables of its own (floating ``state.variables``, (R, ...)) maps
        those too: z = (q, p, variables).
    potential : Potential
        Smooth, of at most 64 parameters.
    steps : int
    positions, momenta : (D,) array, optional
        The point; drawn if not given.
    log_determinant : float, optional
        Contraction to be found; the form is then not judged.
    width : float
        Largest difference, in units of weights and momenta.
    seed : int
    tolerance : float
        In addition to ten times what J is known to.

    Raises
    ------
    PotentialError
        Too many parameters, or a point of another shape.

    References
    ----------
    B. Leimkuhler, S. Reich, "Simulating Hamiltonian Dynamics" (2004),
    doi:10.1017/CBO9780511614118, section 3.4.

    Examples
    --------
    >>> from mdnet import integrators, potentials, validate
    >>> U = potentials.MullerBrown()
    >>> verlet = integrators.VelocityVerlet(dt=0.005)
    >>> bool(validate.symplecticity(verlet, 0.01 * U))
    True
    """
    d = potential.size
    if d > _LARGEST:
        raise PotentialError(
            f"the potential has {d} parameters: expected at most {_LARGEST}, since a "
            "Jacobian takes 16 D paths; check the word on a smaller network"
        )
    positive("width", width)
    sim = simulate(potential, integrator, 1, positions, _row(momenta), seed)
    q, p = sim.state.positions.copy(), sim.state.momenta.copy()
    z = _coordinates(sim.state)[0]
    widths = width / 2.0 ** np.arange(_LEVELS)
    shifted = z + np.einsum("s,w,ij->swij", [1.0, -1.0], widths, np.eye(z.size))
    rows = shifted.reshape(-1, z.size)

    def ends(part: F) -> F:
        run = simulate(
            potential, integrator, len(part), part[:, :d], part[:, d : 2 * d], seed
        )
        at = 2 * d
        for variable in _variables(run.state):
            count = variable[0].size
            variable[...] = part[:, at : at + count].reshape(variable.shape)
            at += count
        run.run(steps)
        return _coordinates(run.state)

    if draws_noise(potential, integrator, q, p):
        # Every path in replica 0, whose noise is the same each time.
        end = np.concatenate([ends(row[None]) for row in rows])
    else:
        end = ends(rows)
    plus, minus = end.reshape(2, _LEVELS, z.size, z.size)
    table = list((plus - minus) / (2 * widths[:, None, None]))
    error = np.inf
    for k in range(1, _LEVELS):
        f = 4.0**k
        before = table[-1]
        table = [(f * b - a) / (f - 1) for a, b in itertools.pairwise(table)]
        error = float(np.abs(table[-1] - before).max())
    jacobian: F = np.ascontiguousarray(table[0].T)
    one, zero = np.eye(d), np.zeros((d, d))
    form = np.block([[zero, one], [-one, zero]])
    residual = np.inf
    if z.size == 2 * d:
        residual = float(np.abs(jacobian.T @ form @ jacobian - form).max())
    contraction = float(np.linalg.slogdet(jacobian)[1])
    limit = tolerance + 10 * error
    warnings: tuple[str, ...] = ()
    if not error <= 1e-4:
        warnings = (
            (
                f"J is known to {error:.1e} only: the potential has kinks there, or "
                "needs a smaller width="
            ),
        )
    if log_determinant is None:
        passed = residual <= limit
    else:
        passed = abs(contraction - log_determinant) <= limit
    return Symplecticity(
        passed=bool(passed and not warnings),
        residual=residual,
        log_determinant=contraction,
        expected=log_determinant,
        error=error,
        tolerance=limit,
        jacobian=jacobian,
        warnings=warnings,
    )


def _variables(state: Any) -> list[Any]:
    """Floating variables that an integrator keeps in the state, (R, ...) each."""
    kept = getattr(state, "variables", {}).values()
    return [v for v in kept if v.dtype.kind == "f" and v.shape[:1] == (state.replicas,)]


def _coordinates(state: Any) -> F:
    """Positions, momenta and variables of each replica, (R, n)."""
    flat = [v.reshape(state.replicas, -1) for v in _variables(state)]
    return np.hstack([state.positions, state.momenta, *flat])


def _row(momenta: Any) -> Any:
    """Momenta of one replica, (1, D)."""
    return momenta if momenta is None else np.atleast_2d(np.asarray(momenta, float))
