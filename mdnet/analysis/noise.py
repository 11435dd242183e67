"""Noise temperature: how much a minibatch's gradient noise heats, and what helps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import backend as _backend
from mdnet.analysis.records import BurnIn, burn_in_step, frame_steps, read, target
from mdnet.analysis.results import Estimate
from mdnet.analysis.thermo import temperatures
from mdnet.analysis.timeseries import column_means
from mdnet.errors import PotentialError, SchemeError, TrajectoryError

if TYPE_CHECKING:
    from mdnet.typing import Run

__all__ = ["Advice", "NoiseTemperature", "noise_temperature"]

_APART = 1_000_003  # force calls this far apart belong to different epochs


@dataclass(frozen=True, slots=True)
class Advice:
    """One change that would bring the heating down to the tolerance, all else equal.

    Attributes
    ----------
    dt : float
        Largest time step.
    friction : float or None
        Smallest friction; None where no friction is enough, or it is not a parameter.
    batch_size : int or None
        Smallest batch; None where it is not known how batches are drawn.
    """

    dt: float
    friction: float | None
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class NoiseTemperature:
    """Gradient noise and its heating, per tensor and total.

    Attributes
    ----------
    layers : tuple of str
        Tensors; empty if the noise was read off the ledger, which knows totals only.
    covariance : Estimate
        Variance C of a force, averaged over all parameters, divided by their masses.
    layer_covariance : ndarray, (L,)
    predicted : float
        Virial temperature minus target that the noise alone causes.
    layer_predicted : ndarray, (L,)
    predicted_kinetic : float
        The same of the kinetic temperature, read after the bath.
    measured : Estimate or None
        Virial temperature minus target, of the run; None if not recorded.
    layer_measured : ndarray, (L,) or None
    target : float
    tolerance : float
        Heating that is let pass, relative to the target.
    advice : Advice or None
        None if the heating is within the tolerance already.
    warnings : tuple of str
    """

    layers: tuple[str, ...]
    covariance: Estimate
    layer_covariance: np.ndarray[Any, Any]
    predicted: float
    layer_predicted: np.ndarray[Any, Any]
    predicted_kinetic: float
    measured: Estimate | None
    layer_measured: np.ndarray[Any, Any] | None
    target: float
    tolerance: float
    advice: Advice | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"gradient noise C/m = {self.covariance} a parameter",
            f"predicted heating {self.predicted:.4g} at T = {self.target:.4g}"
            + (f", measured {self.measured}" if self.measured is not None else ""),
        ]
        for i, name in enumerate(self.layers):
            seen = (
                "" if self.layer_measured is None else f"{self.layer_measured[i]:.4g}"
            )
            lines.append(
                f"  {name}: C/m {self.layer_covariance[i]:.4g}, predicted "
                f"{self.layer_predicted[i]:.4g}"
                + (f", measured {seen}" if seen else "")
            )
        if self.advice is None:
            lines.append(f"within {self.tolerance:.1%} of the target")
        else:
            ways = [f"dt <= {self.advice.dt:.3g}"]
            if self.advice.friction is not None:
                ways.append(f"friction >= {self.advice.friction:.3g}")
            if self.advice.batch_size is not None:
                ways.append(f"batches of {self.advice.batch_size} rows or more")
            lines.append(f"for {self.tolerance:.1%}: " + ", or ".join(ways))
        return "\n".join(lines + [f"warning: {w}" for w in self.warnings])


@dataclass(frozen=True, slots=True)
class _Response:
    """What force noise of unit variance does, where a step is short for all motions.

    Attributes
    ----------
    heating : float
        Rise of the virial temperature.  A force displaces slow positions by G a step,
        and noise by a random G: the Einstein relation gives G/2.
    kinetic : float
        Rise of the kinetic temperature just after the last bath.
    work : float
        Work that the kicks do a step and parameter.
    """

    heating: float
    kinetic: float
    work: float

    @classmethod
    def of(cls, integrator: Any, replicas: int) -> _Response:
        """Follow one draw of the noise through the word until it is forgotten."""
        operations = integrator.scheme.operations
        table = np.asarray(integrator.coefficients(0, replicas))[..., 0]
        each = iter(table.reshape(len(operations), -1).mean(axis=1))
        word = [
            (letter, 0.0 if letter == "F" else float(next(each)))
            for letter, _ in integrator.scheme.sequence
        ]
        memory = float(np.prod([x for letter, x in word if letter == "O"]))
        last = max(i for i, (letter, _) in enumerate(word) if letter == "O")
        calls = sum(letter == "F" for letter, _ in word)
        moved, kinetic, work = np.zeros(calls), 0.0, 0.0
        for drawn in range(calls):
            q = p = f = read = 0.0
            for step in range(3):
                call, before = 0, q
                for i, (letter, x) in enumerate(word):
                    if letter == "F":
                        f = float(step == 0 and call == drawn)
                        call += 1
                    elif letter == "B":
                        work += ((p + x * f) ** 2 - p**2) / 2
                        p += x * f
                    elif letter == "A":
                        q += x * p
                    else:
                        p *= x
                    if i == last:
                        read = p
                        kinetic += p**2
            # From the third step on nothing but the decay of p is left.
            moved[drawn] = q + (q - before) * memory / (1 - memory)
            kinetic += read**2 * memory**2 / (1 - memory**2)
        return cls(float((moved**2).sum() / (2 * moved.sum())), kinetic, work)


def _integrator(run: Run) -> Any:
    from mdnet import integrators

    integrator = integrators.from_description(run.config["integrator"])
    letters = {letter for letter, _ in integrator.scheme.operations}
    if not letters <= set("ABO") or "O" not in letters:
        raise SchemeError(
            f"integrator {integrator.name!r}: noise_temperature needs a word of A, B "
            "and O with a bath, as BAOAB; without one noise heats without end"
        )
    return integrator


def noise_temperature(
    run: Run,
    potential: Any = None,
    *,
    tolerance: float = 0.01,
    frames: int = 16,
    calls: int = 8,
    seed: int = 0,
    burn_in: BurnIn = "auto",
) -> NoiseTemperature:
    r"""Measure the gradient noise of a run and the temperature it adds.

    Forces of variance C, independent from one evaluation to the next, raise the virial
    temperature of a word by C G/2m, with G the distance that a force of one moves a
    slow position in a step.  For BAOAB, with c = exp(-friction h),

    .. math:: T_{virial} - T = \frac{C}{m} \frac{h^2 (1 + c)}{4 (1 - c)}
              \approx \frac{h C}{2 \gamma m},

    and h C/2m for SGLD with dt = h, for steps short against every period.  The virial
    is the thermometer to compare with: it weighs all parameters alike, however
    anisotropic noise and curvature are.

    Parameters
    ----------
    run : Run
        Written by mdnet; its configuration names the integrator.
    potential : Potential, optional
        The minibatch potential of the run: C is then measured at stored positions,
        for each tensor, as the mean square of minibatch minus full gradient.  Without
        it, the mean C/m is read off the ledger: noise does shadow work, h^2 C/2m a
        step and parameter in BAOAB.
    tolerance : float
        Heating, relative to the target, that needs no advice.
    frames, calls : int
        Stored frames, and batches at each, that C is measured from.
    seed : int
        Key of these batches.
    burn_in : "auto", int or float
        See `temperatures`.

    Raises
    ------
    SchemeError
        An integrator without a bath.
    PotentialError
        A potential of another size, or one whose forces use all data.
    TrajectoryError
        No ledger, and no potential given.

    References
    ----------
    B. Leimkuhler, X. Shang, SIAM J. Sci. Comput. 38, A712 (2016),
    doi:10.1137/15M102318X.
    S. Mandt, M. D. Hoffman, D. M. Blei, J. Mach. Learn. Res. 18, 1 (2017).
    """
    if not tolerance > 0:
        raise PotentialError(f"tolerance={tolerance!r}: expected a number > 0")
    integrator = _integrator(run)
    response = _Response.of(integrator, run.replicas)
    start, notes = burn_in_step(run, burn_in)
    aim_series = target(run, None, start)
    if aim_series is None:
        raise TrajectoryError("this run does not know its target temperature")
    aim = float(aim_series.value.mean())
    warnings = list(notes)
    sizes = {name: s.stop - s.start for name, (s, _) in run.layout.items()}
    if potential is None:
        covariance = _from_ledger(run, response, start)
        layers: tuple[str, ...] = ()
        each = np.empty(0)
        warnings.append(
            "read off the ledger: the error of a large step counts as noise; pass "
            "potential= to measure the noise itself"
        )
    else:
        layers = tuple(sizes)
        each, covariance = _from_forces(run, potential, start, frames, calls, seed)
    value = float(covariance.value)
    predicted = value * response.heating
    measured, layer_measured = _measured(run, burn_in, aim)
    advice = None
    if predicted > tolerance * aim:
        advice = _advise(run, potential, integrator, value, tolerance * aim)
    return NoiseTemperature(
        layers,
        covariance,
        each,
        predicted,
        each * response.heating,
        value * response.kinetic,
        measured,
        layer_measured if layers else None,
        aim,
        tolerance,
        advice,
        tuple(warnings),
    )


def _from_ledger(run: Run, response: _Response, start: int) -> Estimate:
    """Mean C/m from the work that noise does a step."""
    series = read(run, "shadow_work", "noise_temperature without a potential")
    series = series.since(start)
    if len(series.step) < 3:
        raise TrajectoryError(
            f"shadow_work has {len(series.step)} records after the burn-in: expected "
            "three or more"
        )
    span = np.diff(series.step)[:, None]
    rate = np.diff(series.value, axis=0) / span * (span / span.mean())
    mean = column_means(rate[:, :, None])
    unit = response.work * run.size
    return Estimate(
        float(mean.value[0]) / unit,
        float(mean.stderr[0]) / unit,
        float(mean.n_eff[0]),
        "shadow work",
    )


def _from_forces(
    run: Run, potential: Any, start: int, frames: int, calls: int, seed: int
) -> tuple[np.ndarray[Any, Any], Estimate]:
    """C/m of each tensor and its mean, from batches at stored positions."""
    if potential.size != run.size:
        raise PotentialError(
            f"potential has {potential.size} parameters, the run {run.size}: pass the "
            "potential that the run was made with"
        )
    device = _backend.resolve("cpu", "double")
    evaluator = potential.evaluator(device, run.replicas, seed)
    if getattr(evaluator, "variables", None):
        raise PotentialError(
            "potential: the noise of a control variate depends on the forces before; "
            "leave potential out to read it off the ledger, or see "
            "potentials.force_variance"
        )
    if evaluator.full:
        raise PotentialError(
            "potential: its forces use all data and have no noise; pass the "
            "minibatch one, as U.minibatch(batch_size=128)"
        )
    stored = frame_steps(run)
    if stored is None:
        raise TrajectoryError(
            "noise_temperature with a potential needs stored positions; write a "
            "trajectory, or leave the potential out"
        )
    kept = np.flatnonzero(np.asarray(stored[0]) >= start)
    chosen = kept[np.unique(np.linspace(0, len(kept) - 1, frames).astype(int))]
    mass = np.broadcast_to(np.asarray(_mass(run), np.float64), (run.size,))
    slices = [s for s, _ in run.layout.values()]
    found = np.zeros((len(chosen), run.replicas, len(slices)))
    shape = (run.replicas, run.size)
    gradient, force = np.empty(shape), np.empty(shape)
    positions = run.positions
    for i, frame in enumerate(chosen):
        q = np.ascontiguousarray(positions[int(frame)], np.float64)
        evaluator.gradients(q, gradient)
        for call in range(calls):
            evaluator.forces(q, force, (i * calls + call) * _APART)
            square = (force + gradient) ** 2 / mass
            found[i] += np.stack([square[:, s].mean(axis=1) for s in slices], axis=1)
    found /= calls
    sizes = np.array([s.stop - s.start for s in slices], float)
    total = found @ (sizes / sizes.sum())
    samples = total.ravel()
    error = samples.std(ddof=1) / np.sqrt(samples.size) if samples.size > 1 else np.nan
    estimate = Estimate(
        float(samples.mean()), float(error), float(samples.size), "two gradients"
    )
    return found.mean(axis=(0, 1)), estimate


def _mass(run: Run) -> Any:
    from mdnet import schedules

    return schedules.from_description(run.config["integrator"]["mass"])


def _measured(
    run: Run, burn_in: BurnIn, aim: float
) -> tuple[Estimate | None, np.ndarray[Any, Any] | None]:
    if "virial" not in run:
        return None, None
    found = temperatures(run, burn_in)
    reading = found.virial
    if reading is None:
        return None, None
    scale = aim if found.relative else 1.0
    total = reading.total
    excess = Estimate(
        float(total.value) * scale - aim,
        float(total.stderr) * scale,
        total.n_eff,
        total.method,
    )
    layer = None if reading.layer is None else reading.layer.value * scale - aim
    return excess, layer


def _advise(
    run: Run, potential: Any, integrator: Any, covariance: float, allowed: float
) -> Advice:
    """Changes of one setting each that bring the heating down to ``allowed``."""

    def excess(**changes: Any) -> float:
        changed = replace(integrator, **changes)
        return covariance * _Response.of(changed, run.replicas).heating / allowed - 1

    dt = np.asarray(integrator.time_step(0))
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(dt=middle * dt) > 0 else (middle, high)
    friction = None
    if integrator.damping is None and excess(friction=np.inf) <= 0:
        least, most = 0.0, 1.0 / float(dt.mean())
        while excess(friction=most) > 0:
            most *= 2
        for _ in range(60):
            middle = (least + most) / 2
            enough = excess(friction=middle) <= 0
            least, most = (least, middle) if enough else (middle, most)
        friction = most
    factor, batch = 1 + excess(), None
    given = (run.config.get("potential") or {}).get("minibatch")
    n_data = getattr(getattr(potential, "full", None), "n_data", None)
    if given is not None and n_data is not None:
        n = given["size"]
        if given["order"] == "replacement":
            batch = int(np.ceil(n * factor))
        else:  # without replacement the variance goes as 1/n - 1/N
            left = (1 / n - 1 / n_data) / factor
            batch = int(np.ceil(1 / (left + 1 / n_data)))
        batch = min(batch, n_data)
    return Advice(float(low * dt.mean()), friction, batch)
