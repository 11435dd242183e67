r"""Thermometers: kinetic, configurational and virial temperature, layer by layer.

All are in the units of U (k_B = 1):

- kinetic :math:`T_k = \langle \sum p^2/m \rangle / n`,
- configurational :math:`T_c = \langle|\nabla U|^2\rangle / \langle\nabla^2 U\rangle`,
- virial :math:`T_v = \langle (q - c) \cdot \nabla U \rangle / n`.

The kinetic one says that the momenta are right and nothing else: an integrator with too
large a step reads T_k = T while its weights are too hot or too cold.  The other two
look at the weights.

References
----------
H. H. Rugh, "Dynamical approach to temperature", Phys. Rev. Lett. 78, 772 (1997),
doi:10.1103/PhysRevLett.78.772.
B. D. Butler, G. Ayton, O. G. Jepps, D. J. Evans, "Configurational temperature:
verification of Monte Carlo simulations", J. Chem. Phys. 109, 6519 (1998),
doi:10.1063/1.477301.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet.analysis.records import (
    BurnIn,
    Window,
    burn_in_step,
    degrees_of_freedom,
    read,
)
from mdnet.analysis.records import target as target_series
from mdnet.analysis.results import Estimate, with_error
from mdnet.analysis.timeseries import Mean, column_means
from mdnet.errors import PotentialError, TrajectoryError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["Temperatures", "Thermometer", "temperatures"]


@dataclass(frozen=True, slots=True)
class Thermometer:
    """One kind of temperature.

    Attributes
    ----------
    name : str
        "kinetic", "configurational" or "virial".
    total : Estimate
        Over all weights and replicas.
    verdict : str
        "agrees", "hot", "cold" or "undetermined"; see `temperatures`.
    layer : Estimate or None
        (L,), one value a tensor.
    layer_verdicts : tuple of str
        One a tensor.
    replica : Estimate
        (R,), one value a replica.
    """

    name: str
    total: Estimate
    verdict: str
    layer: Estimate | None
    layer_verdicts: tuple[str, ...]
    replica: Estimate


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Every thermometer of a run against its target.

    Attributes
    ----------
    layers : tuple of str
        Names of the tensors that are not frozen.
    kinetic, configurational, virial : Thermometer or None
        None where the run did not record the series.
    target : float
        What a right value is: the thermostat's temperature, or 1 when ``relative``.
    relative : bool
        Whether values are divided by the target, because it differs between replicas,
        tensors or in time.
    replica_target : ndarray, (R,)
        Target of each replica, averaged over the part analysed.
    start : int
        First step analysed.
    sigma, tolerance, resolution : float
        Thresholds of the verdicts.
    warnings : tuple of str
    """

    layers: tuple[str, ...]
    kinetic: Thermometer | None
    configurational: Thermometer | None
    virial: Thermometer | None
    target: float
    relative: bool
    replica_target: np.ndarray[Any, Any]
    start: int
    sigma: float
    tolerance: float
    resolution: float
    warnings: tuple[str, ...] = ()

    @property
    def thermometers(self) -> tuple[Thermometer, ...]:
        """Those that are there."""
        each = (self.kinetic, self.configurational, self.virial)
        return tuple(t for t in each if t is not None)

    @property
    def verdict(self) -> str:
        """Whether any reading is "hot" or "cold", else whether all totals agree.

        "undetermined" where some total is too uncertain to tell.
        """
        totals = [t.verdict for t in self.thermometers]
        layers = [v for t in self.thermometers for v in t.layer_verdicts]
        for bad in ("hot", "cold"):
            if bad in totals:
                return bad
        for bad in ("hot", "cold"):
            if bad in layers:
                return bad
        return "agrees" if set(totals) == {"agrees"} else "undetermined"

    @property
    def finding(self) -> str:
        """One line: what the thermometers say, and which of them if they object."""
        verdict = self.verdict
        if not np.isfinite(self.target):
            return "No target temperature to compare with"
        if verdict == "agrees":
            return "Every thermometer agrees with the target"
        if verdict == "undetermined":
            return "Too short to judge every thermometer"
        found = [
            f"{one.name} {with_error(float(one.total), one.total.stderr)}"
            for one in self.thermometers
            if one.verdict == verdict
        ] or [
            f"{one.name} of {self.layers[i]}"
            for one in self.thermometers
            for i, said in enumerate(one.layer_verdicts)
            if said == verdict
        ]
        more = f" and {len(found) - 2} more" if len(found) > 2 else ""
        return f"{verdict.capitalize()}: {', '.join(found[:2])}{more}"

    def table(self) -> str:
        """Lay out readings with errors and verdicts, one row a tensor."""
        unit = "T / target" if self.relative else f"target {self.target:.6g}"
        names = [t.name for t in self.thermometers]
        rows = [[f"temperature ({unit})", *names]]
        for i, layer in enumerate(self.layers):
            cells = [
                _cell(t.layer.value[i], t.layer.stderr[i], t.layer_verdicts[i])
                if t.layer is not None
                else "-"
                for t in self.thermometers
            ]
            rows.append([layer, *cells])
        totals = [
            _cell(t.total.value, t.total.stderr, t.verdict) for t in self.thermometers
        ]
        rows.append(["all", *totals])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) for cell, w in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join([self.table(), *(f"! {w}" for w in self.warnings)])


def _cell(value: Any, stderr: Any, verdict: str) -> str:
    return f"{with_error(float(value), float(stderr))} {verdict}"


@dataclass(frozen=True, slots=True)
class _Threshold:
    target: float
    sigma: float
    tolerance: float
    resolution: float

    def verdicts(self, means: Mean) -> tuple[str, ...]:
        from scipy.special import ndtr, stdtrit

        tail = float(ndtr(-self.sigma))
        with np.errstate(invalid="ignore"):
            factor = -stdtrit(np.minimum(means.freedom, 1e6), tail)
        out = []
        for value, error, k in zip(means.value, means.stderr, factor, strict=True):
            half = k * error
            gap = value - self.target
            if not np.isfinite(half + gap):
                out.append("undetermined")
            elif abs(gap) > half + self.tolerance * self.target:
                out.append("hot" if gap > 0 else "cold")
            elif half > self.resolution * self.target:
                out.append("undetermined")
            else:
                out.append("agrees")
        return tuple(out)


def _estimate(means: Mean, method: str) -> Estimate:
    return Estimate(means.value, means.stderr, means.n_eff, method)


def _single(means: Mean, method: str) -> Estimate:
    return Estimate(
        float(means.value[0]), float(means.stderr[0]), float(means.n_eff[0]), method
    )


def _ratio(top: np.ndarray[Any, Any], bottom: np.ndarray[Any, Any]) -> Mean:
    """Ratio of means of (T, R, K) columns; error by the delta method."""
    below = bottom.mean((0, 1))
    safe = np.where(below != 0, below, 1.0)
    value = np.where(below != 0, top.mean((0, 1)) / safe, np.nan)
    out = column_means((top - np.nan_to_num(value) * bottom) / safe)
    # A denominator that may be zero makes the ratio meaningless.
    certain = below > 4 * column_means(bottom).stderr
    stderr = np.where(certain, out.stderr, np.nan)
    return Mean(value, stderr, out.n_eff, out.freedom, out.disagree)


def _thermometer(
    name: str,
    top: np.ndarray[Any, Any],
    bottom: np.ndarray[Any, Any] | None,
    total: np.ndarray[Any, Any] | None,
    threshold: _Threshold,
) -> tuple[Thermometer, bool]:
    """Build from per-layer columns (T, R, L) and, if it is not their sum, the total."""
    method = "mean" if bottom is None else "ratio of means, delta method"

    def reduce(t: np.ndarray[Any, Any], b: np.ndarray[Any, Any] | None) -> Mean:
        return column_means(t) if b is None else _ratio(t, b)

    whole_b = None if bottom is None else bottom.sum(-1)
    whole = top.sum(-1) if total is None else total
    every = reduce(whole[..., None], None if whole_b is None else whole_b[..., None])
    single = reduce(whole[:, None, :], None if whole_b is None else whole_b[:, None, :])
    layer = reduce(top, bottom) if top.shape[-1] else None
    reading = Thermometer(
        name,
        _single(every, method),
        threshold.verdicts(every)[0],
        None if layer is None else _estimate(layer, method),
        () if layer is None else threshold.verdicts(layer),
        _estimate(single, method),
    )
    return reading, bool(every.disagree[0])


def _on_grid(target: Window, steps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Target (T, R) at ``steps``: the last one set at or before each."""
    at = np.searchsorted(target.step, steps, side="right") - 1
    return target.value[np.clip(at, 0, len(target.step) - 1)]


def temperatures(
    run: Run,
    burn_in: BurnIn = "auto",
    target: Any = None,
    *,
    sigma: float = 4.0,
    tolerance: float = 0.01,
    resolution: float = 0.1,
) -> Temperatures:
    """Measure kinetic, configurational and virial temperature, per tensor and total.

    A verdict is "hot" or "cold" when a reading leaves the target by more than
    ``sigma`` standard errors (widened by Student's t where the error itself is poorly
    known: one false alarm in 16 000 at 4) plus ``tolerance`` times the target;
    "undetermined" when that many errors exceed ``resolution`` times the target;
    otherwise "agrees".  Errors take autocorrelation and replicas into account.

    Parameters
    ----------
    run : Run
        With ``kinetic_temperature`` or ``layer_kinetic_temperature``;
        ``gradient_square`` and ``laplacian``; ``virial``.  Each missing one costs
        its thermometer.
    burn_in : "auto", int or float
        Found from the potential energy; or a number of steps; or a fraction < 1.
    target : float or (R,), optional
        Default: what the run recorded, else the integrator's temperature.
    sigma, tolerance, resolution : float
        Thresholds, see above.

    Returns
    -------
    Temperatures

    Raises
    ------
    TrajectoryError
        If the run holds none of the series.
    PotentialError
        A burn-in or a target that does not fit.

    Notes
    -----
    Kinetic series are read after the noise letter, where the exact value is the target
    at any step size.  At the end of a BAOAB step it is T(1 - h²ω²/4) by construction.
    The virial takes its reference c from the same run: it reads low by about
    τ/n in n frames of correlation time τ.

    Examples
    --------
    >>> result = temperatures(run)                                # doctest: +SKIP
    >>> print(result.table())                                     # doctest: +SKIP
    """
    names = {
        "kinetic": ("layer_kinetic_temperature", "kinetic_temperature"),
        "configurational": ("gradient_square", "laplacian"),
        "virial": ("virial", "virial_temperature"),
    }
    if not any(name in run for pair in names.values() for name in pair):
        raise TrajectoryError(
            "temperatures() found none of the series "
            + ", ".join(sorted({n for pair in names.values() for n in pair}))
            + "; record them with sim.run(..., observables_every=1)"
        )
    start, notes = burn_in_step(run, burn_in)
    warnings = list(notes)
    goal = target_series(run, target, start)
    if goal is None:
        warnings.append("no thermostat and no target=: readings without a verdict")
        goal = Window(np.ones((1, run.replicas)), np.zeros(1, int), np.zeros(1))
        aim = np.nan
    elif not (goal.value > 0).all():
        raise PotentialError(
            f"target temperature {goal.value.min():g}: expected > 0; a run at T = 0 "
            "has no thermometer to check"
        )
    else:
        aim = float(goal.value[0, 0])
    dof = degrees_of_freedom(run)
    moves = np.array([n > 0 for n in dof.values()])
    layers = tuple(name for name, n in dof.items() if n > 0)
    sizes = np.array([n for n in dof.values() if n > 0], float)
    layer_goal = None
    if target is None and "layer_target_temperature" in run:
        layer_goal = read(run, "layer_target_temperature").since(start)
        layer_goal.value[...] = np.where(moves, layer_goal.value, 1.0)
    relative = bool(np.ptp(goal.value) > 1e-9 * goal.value.max())
    if layer_goal is not None and not relative:
        apart = np.ptp(layer_goal.value[..., moves])
        relative = bool(apart > 1e-9 * goal.value.max())
    if relative:
        aim = 1.0
        warnings.append("targets differ: readings are divided by their targets")
    if np.ptp(goal.value, axis=0).max() > 1e-9 * goal.value.max():
        warnings.append(
            "the target changes during the part analysed: there is no equilibrium"
        )
    threshold = _Threshold(aim, sigma, tolerance, resolution)

    def load(name: str, power: int = 1) -> np.ndarray[Any, Any]:
        series = read(run, name).since(start)
        if not len(series.step):
            raise PotentialError(f"burn_in={burn_in!r} leaves no record of {name!r}")
        value = series.value if series.value.ndim < 3 else series.value[..., moves]
        if not relative or not power:
            return value
        if value.ndim == 3 and layer_goal is not None:
            scale = _on_grid(layer_goal, series.step)[..., moves]
        else:
            scale = _on_grid(goal, series.step)
            scale = scale.reshape(scale.shape + (1,) * (value.ndim - 2))
        return np.asarray(value / scale)

    loaded: dict[str, np.ndarray[Any, Any]] = {}
    for pair in names.values():
        for name in pair:
            if name in run:
                loaded[name] = load(name, 0 if name == "laplacian" else 1)
    alive = np.ones(run.replicas, bool)
    for value in loaded.values():
        alive &= np.isfinite(value.reshape(value.shape[0], run.replicas, -1)).all(
            (0, 2)
        )
    if not alive.any():
        raise TrajectoryError(
            "no replica is finite throughout: shorten dt and run again"
        )
    if not alive.all():
        warnings.append(f"left out {int((~alive).sum())} replicas that are not finite")
        loaded = {name: value[:, alive] for name, value in loaded.items()}
    readings: dict[str, Thermometer | None] = dict.fromkeys(names)
    measured = np.array(list(degrees_of_freedom(run, "measured").values()))[moves]
    for kind, (first, second) in names.items():
        top, bottom, whole = loaded.get(first), None, loaded.get(second)
        if kind != "kinetic" and not measured.any():
            warnings.append(f"no {kind} temperature: all tensors are on surfaces")
            continue
        if kind == "configurational":
            top, bottom, whole = (
                (top, whole, None) if whole is not None else (None,) * 3
            )
        elif top is None and whole is not None:
            top = whole[..., None][..., :0]
        elif top is not None and kind == "virial":
            whole = top.sum(-1) / measured.sum() if whole is None else whole
            # NaN where the thermometer does not apply, as on spheres.
            top = top / np.where(measured > 0, measured, np.nan)
        elif top is not None and whole is None:
            whole = top @ sizes / sizes.sum()
        if top is None:
            missing = " and ".join(n for n in (first, second) if n not in loaded)
            warnings.append(f"no {kind} temperature: the run did not record {missing}")
            continue
        readings[kind], disagree = _thermometer(kind, top, bottom, whole, threshold)
        if disagree:
            warnings.append(f"{kind}: replicas disagree beyond their own errors")
    return Temperatures(
        layers=layers,
        **readings,
        target=aim,
        relative=relative,
        replica_target=goal.value.mean(0),
        start=start,
        sigma=sigma,
        tolerance=tolerance,
        resolution=resolution,
        warnings=tuple(warnings),
    )
