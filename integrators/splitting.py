"""The integrator of every word: a scheme with its step, temperature, friction, mass.

`Splitting` is the one class behind velocity Verlet, BAOAB, SGLD and all other words;
the modules `hamiltonian`, `langevin` and `stochastic_gradient` name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from mdnet import observables, schedules
from mdnet.errors import SchemeError
from mdnet.integrators import baths, metric, microcanonical, rules
from mdnet.integrators import scheme as _scheme
from mdnet.integrators.companion import CALL, CLOSE, LOOP, Companion, Context
from mdnet.integrators.companion import FORCE as FORCE_CALL
from mdnet.integrators.letters import CODES, bath_coefficients
from mdnet.integrators.metropolis import Judge
from mdnet.integrators.nuts import Tree
from mdnet.integrators.scheme import FORCE, MARKS, Operation, Scheme
from mdnet.integrators.tuning import Tuning
from mdnet.typing import Layout

__all__ = ["KINDS", "Splitting", "from_description"]


@dataclass(frozen=True, eq=False)
class Splitting:
    r"""Langevin or Hamiltonian dynamics split into the letters of a word.

    .. math:: dq = p/m\,dt,\quad dp = -\nabla U\,dt - \gamma p\,dt
              + \sqrt{2\gamma m T}\,dW

    Every letter is solved exactly; the word orders them.  The law sampled at finite
    ``dt`` depends on the word: see `mdnet.integrators.catalog`.

    Parameters
    ----------
    word : str or table of (letter, share)
        "BAOAB", "OBABO", ... over the alphabet A (drift), B (kick), O (bath), or
        explicit shares; "O { B A B } O" tests what is in braces, and
        "O { [B A B]^10 }" repeats what is in brackets.  Words with N and D, as
        "BANDNAB", take the parameters of `mdnet.integrators.SGNHT` too.
    dt : float, (R,) array or schedule
        Time step h > 0, in units of time (sqrt(mass x length^2 / energy)).
    temperature : float, (R,) array or schedule
        T >= 0 in units of energy (k_B = 1).  Words without a bath use it to draw
        the first momenta only.  A mapping ``{"0.weight": 2.0, "*": 1.0}`` gives each
        tensor its own; see `mdnet.integrators.baths`.
    friction : float, (R,) array or schedule
        gamma >= 0 in 1/time; ``inf`` redraws the momenta at each O.  A mapping as
        for the temperature.
    mass : float, (D,) or (D, D) array
        m > 0, of all parameters or of each; a matrix is symmetric and positive
        definite, and momenta are whitened then: see `mdnet.integrators.metric`.
    name : str, optional
        Name to report; the word if not given.

    Raises
    ------
    SchemeError
        A word that does not parse, or a parameter out of range.

    References
    ----------
    B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34,
    doi:10.1093/amrx/abs010.
    D. A. Sivak, J. D. Chodera, G. E. Crooks, J. Phys. Chem. B 118, 6466 (2014),
    doi:10.1021/jp411770f.

    Examples
    --------
    >>> Splitting("OBABO", dt=0.1, temperature=2.0).scheme.force_calls
    1
    """

    word: str | Iterable[Operation]
    dt: Any
    temperature: Any = 1.0
    friction: Any = 1.0
    mass: Any = 1.0
    name: str = ""
    damping: float | None = None
    """Factor c of O itself, instead of exp(-friction dt) (overdamped limits)."""
    length: Literal["dt", "sqrt(dt)", "sqrt(2 dt)"] = "dt"
    """Length of the underlying step in terms of ``dt`` (overdamped limits)."""
    tuning: Tuning = field(default_factory=Tuning)
    """What a word with a Metropolis test adapts in its warm-up."""
    sphere: bool | str = False
    """Whether momenta move on a sphere (`mdnet.integrators.microcanonical`)."""
    frozen: Any = ()
    """Weights that never move: names of tensors, or a boolean mask (D,)."""
    rule: str = "exact"
    """How coefficients follow from shares; see `mdnet.integrators.rules`."""
    metric: Any = None
    """Matrix of masses, where ``mass`` was one; ``mass`` is 1 then."""
    scheme: Scheme = field(init=False, repr=False)
    SCALARS: ClassVar[tuple[str, ...]] = ("dt", "temperature", "friction")
    """Parameters that may be schedules or have one value a replica."""

    def __new__(cls, word: Any = "", *_: Any, **__: Any) -> Splitting:
        """Make words with N and D what `SGNHT` returns, which has more parameters."""
        if cls is Splitting and _scheme.adaptive(word):
            from mdnet.integrators.adaptive_langevin import AdaptiveLangevin

            return object.__new__(AdaptiveLangevin)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        parsed = _scheme.parse(self.word)
        object.__setattr__(self, "scheme", parsed)
        object.__setattr__(self, "word", str(parsed))
        object.__setattr__(self, "name", self.name or str(parsed))
        object.__setattr__(self, "frozen", baths.held(self.frozen))
        rules.check(self.rule, str(parsed))
        for label in self.SCALARS:
            value = baths.per_tensor(getattr(self, label))
            if isinstance(value, baths.PerTensor) and label != "dt":
                value = value.map(partial(_parameter, label))
            else:
                value = _parameter(label, value)
            object.__setattr__(self, label, value)
            for one in baths.values(value):
                _check(label, one, 0)
        if np.ndim(self.mass) == 2:
            object.__setattr__(self, "metric", metric.DenseMass.of(self.mass))
            object.__setattr__(self, "mass", 1.0)
        mass = _number("mass", self.mass)
        object.__setattr__(self, "mass", mass)
        if self.dense:
            self._check_dense()
        if not np.all(np.isfinite(mass)) or not np.all(np.asarray(mass) > 0):
            raise SchemeError(
                f"mass={_short(mass)}: expected finite masses > 0, a number or one "
                "per parameter"
            )

    def _check_dense(self) -> None:
        """Refuse a matrix of masses where nothing knows of it."""
        plain = type(self) is Splitting and self.rule == "exact"
        if not plain or self.sphere or self.grouped or self.tuning.block:
            raise SchemeError(
                f"mass: {self.name} takes a number or one per parameter; a matrix, or "
                "adapt_mass='dense', goes with plain words and HMC, without frozen "
                "weights or values by tensor"
            )
        if np.ndim(self.mass) or self.mass != 1:
            raise SchemeError(
                f"mass={_short(self.mass)} with adapt_mass='dense': expected a matrix "
                "(D, D) to start from, or no mass"
            )

    @property
    def dense(self) -> bool:
        """Whether masses are a matrix, given or learnt."""
        return self.metric is not None or self.tuning.masses == "dense"

    @property
    def scheduled(self) -> bool:
        """Whether a coefficient changes with the step."""
        return any(
            callable(value)
            for name in self.SCALARS
            for value in baths.values(getattr(self, name))
        )

    @property
    def streams(self) -> tuple[int, ...]:
        """Noise stream of each operation of a step: the k-th bath draws from k."""
        seen = 0
        out = []
        for letter, _ in self.scheme.operations:
            out.append(seen if letter in "OD" else 0)
            seen += letter in "OD"
        return rules.streams(self.rule, tuple(out), self.scheme.word)

    def time_step(self, step: int) -> Any:
        """Time that the step after ``step`` takes: float or (R,)."""
        return _check("dt", schedules.evaluate(self.dt, step), step)

    def target_temperature(self, step: int) -> Any:
        """Temperature of the bath in the step after ``step``: float or (R,).

        The highest, where tensors have their own.
        """
        each = [
            _check("temperature", schedules.evaluate(value, step), step)
            for value in baths.values(self.temperature)
        ]
        return each[0] if len(each) == 1 else np.max(np.broadcast_arrays(*each), 0)

    def scalar(self, name: str, step: int) -> Any:
        """Value of one of `SCALARS` in the step after ``step``: float or (R,)."""
        return _check(name, schedules.evaluate(getattr(self, name), step), step)

    def step_length(self, step: int) -> Any:
        """Length h that the shares of the word are taken of: float or (R,)."""
        return self._length(self.time_step(step))

    def _length(self, dt: Any) -> Any:
        dt = np.asarray(dt, dtype=np.float64)
        if self.length == "dt":
            return dt
        return np.sqrt(dt if self.length == "sqrt(dt)" else 2 * dt)

    def coefficients(self, step: int, replicas: int) -> npt.NDArray[np.float64]:
        """Coefficients (n, R, 2) of the operations of the step after ``step``."""
        temperature = np.asarray(self.target_temperature(step), np.float64)
        friction = schedules.evaluate(self.friction, step)
        rows = (replicas,)
        return self.table(
            step, np.broadcast_to(temperature, rows), np.broadcast_to(friction, rows)
        )

    def table(
        self,
        step: int,
        temperature: npt.NDArray[np.float64],
        friction: npt.NDArray[np.float64],
        dt: npt.NDArray[np.float64] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Coefficients (n, R, 2), or (n, R, G, 2) where the bath's have groups.

        Parameters
        ----------
        step : int
        temperature, friction : (R,) or (R, G) float64
            Of the bath, in the step after ``step``.
        dt : (R,) float64, optional
            In place of the integrator's own.
        """
        _check("friction", friction, step)
        h = self.step_length(step) if dt is None else self._length(dt)
        h = h.reshape(h.shape + (1,) * (temperature.ndim - 1))
        out = np.zeros((len(self.scheme.operations), *temperature.shape, 2))
        for i, (letter, share) in enumerate(self.scheme.operations):
            if letter == "O":
                if self.damping is None:
                    with np.errstate(invalid="ignore"):
                        decay = np.asarray(friction, np.float64) * (share * h)
                else:
                    decay = _decay(self.damping)
                out[i, ..., 0], out[i, ..., 1] = bath_coefficients(decay, temperature)
            elif letter not in MARKS:
                out[i, ..., 0] = share * h
        rules.RULES[self.rule](self.scheme.word, out, h, temperature, friction)
        return out

    def growth(self, curvature: float) -> float:
        """Largest factor by which a step stretches oscillators, up to a curvature.

        The spectral radius of one step on U = k q^2/2 without noise, over all k/m up
        to ``curvature`` (1/time^2), at the parameters of step 0: above one the word
        is unstable there.

        Examples
        --------
        >>> limit = Splitting("BAB", dt=0.5).growth(15.9), 1.0
        >>> bool(np.isclose(*limit))
        True
        >>> Splitting("BAB", dt=0.5).growth(16.1) > 1.1
        True
        """
        if isinstance(self.friction, baths.PerTensor):
            each = [replace(self, friction=value) for value in self.friction.values]
            return max(one.growth(curvature) for one in each)
        if (
            self.tuning.warmup or self.sphere or self.dense
        ):  # a first guess only; no oscillator
            return 0.0
        k = curvature * np.linspace(0.0, 1.0, 65)[1:]
        given = (self.dt, self.temperature, self.friction)
        count = max(np.size(schedules.evaluate(value, 0)) for value in given)
        table = np.unique(self.coefficients(0, count)[..., 0], axis=1)
        step = np.broadcast_to(np.eye(2), (table.shape[1], k.size, 2, 2))
        for (letter, _), c in zip(self.scheme.operations, table, strict=True):
            move = np.array(np.broadcast_to(np.eye(2), step.shape))
            if letter == "A":
                move[..., 0, 1] = c[:, None]
            elif letter == "B":
                move[..., 1, 0] = -c[:, None] * k
            elif letter == "O":
                move[..., 1, 1] = c[:, None]
            step = move @ step
        return float(np.abs(np.linalg.eigvals(step)).max())

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Steady sequence as (code, index into the coefficients, stream).

        See `mdnet.integrators.companion` for the codes of what is not a letter.
        """
        out = []
        index, calls = 0, 0
        streams = self.streams
        for letter, _ in self.scheme.sequence:
            if letter == FORCE:
                out.append((FORCE_CALL, 0, 0))
                out += [(CALL, metric.FORCED, 0)] * self.dense
                continue
            if letter in "{}":
                out.append((CALL, calls, 0))
                calls += 1
            elif letter in "[]":
                out.append((LOOP if letter == "[" else CLOSE, 0, 0))
            elif letter == "B" and self.sphere:
                out.append((CALL, microcanonical.KICK + index, 0))
            elif letter == "B" and self.dense:
                out.append((CALL, metric.KICK + index, 0))
            else:
                if letter == "A" and self.dense:  # the letter itself rests
                    out.append((CALL, metric.DRIFT + index, 0))
                out.append((CODES[letter], index, streams[index]))
                if self.scattered and letter in "BO":
                    out.append((CALL, int(letter == "O"), 0))
                if self.sphere and letter == "O":
                    out.append((CALL, microcanonical.PROJECT, 0))
            index += 1
        return tuple(out)

    def bounds(self, layout: Layout) -> npt.NDArray[np.int64] | None:
        """Where groups of parameters with coefficients of their own begin, or None."""
        if self.tuning.block:
            size = int(observables.layer_bounds(layout)[-1])
            return np.append(np.arange(0, size, self.tuning.block), size)
        frozen = () if self.scattered else self.frozen
        return baths.group_bounds(frozen, layout) if self.grouped else None

    def bind(self, context: Context) -> Companion | None:
        """Return what this integrator keeps and does beside its letters, or None."""
        if self.scheme.metropolised:
            return (Tree if self.tuning.depth else Judge)(self, context)
        if self.sphere:
            return microcanonical.Microcanonical(self, context)
        if self.dense:
            return metric.Whitened(self, context)
        return baths.Baths(self, context) if self.grouped else None

    @property
    def adapts_mass(self) -> bool:
        """Whether masses change in a warm-up, each on its own."""
        return self.tuning.masses is True

    def free(self, layout: Layout) -> npt.NDArray[np.bool_]:
        """Which parameters move, (D,)."""
        return baths.free_parameters(self.frozen, layout)

    def measured(self, layout: Layout) -> npt.NDArray[np.bool_]:
        """Parameters that configurational thermometers read, (D,): those that move."""
        return self.free(layout)

    def degrees_of_freedom(self, layout: Layout) -> npt.NDArray[np.int64]:
        """How many parameters of each tensor move, (L,)."""
        starts = observables.layer_bounds(layout)[:-1]
        return np.add.reduceat(self.free(layout).astype(np.int64), starts)

    @cached_property
    def scattered(self) -> bool:
        """Whether frozen weights are so scattered that momenta are masked instead.

        Each run of them would be a block of its own, with the noise of a whole tile.
        """
        return (
            type(self) is Splitting  # others have calls of their own
            and not self.scheme.metropolised
            and not self.sphere
            and baths.runs(self.frozen) > 16 + len(self.frozen) // 512
        )

    @property
    def grouped(self) -> bool:
        """Whether tensors differ in their baths, or weights are frozen."""
        each = (self.temperature, self.friction)
        return len(self.frozen) > 0 or any(
            isinstance(value, baths.PerTensor) for value in each
        )

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        tested = self.scheme.metropolised
        return {
            "kind": "Splitting",
            "name": self.name,
            "word": str(self.scheme),
            "dt": schedules.describe(self.dt),
            "temperature": baths.describe(self.temperature),
            "friction": baths.describe(self.friction),
            "mass": schedules.describe(self.mass),
            "frozen": baths.describe(self.frozen),
            "damping": self.damping,
            "length": self.length,
            "rule": self.rule,
            **({"tuning": self.tuning.describe()} if tested else {}),
            **({"sphere": self.sphere} if self.sphere else {}),
            **({"metric": self.metric.describe()} if self.metric else {}),
        }


def from_description(record: dict[str, Any]) -> Any:
    """Turn what an integrator's ``describe`` returned back into the integrator.

    Raises
    ------
    SchemeError
        A kind that this version does not know, or a parameter that was a schedule of
        the user's own.
    """
    kind = record["kind"]
    if kind not in KINDS:
        raise SchemeError(
            f"integrator of kind {kind!r}: this version of mdnet knows "
            f"{', '.join(sorted(KINDS))}; pass integrator= as it was made"
        )
    return KINDS[kind](record)


def _splitting(record: dict[str, Any]) -> Splitting:
    read = baths.read
    return Splitting(
        record["word"],
        read(record["dt"]),
        read(record["temperature"]),
        read(record["friction"]),
        read(record["mass"]),
        name=record["name"],
        damping=record["damping"],
        length=record["length"],
        tuning=Tuning(**record.get("tuning", {})),
        sphere=record.get("sphere", False),
        frozen=read(record["frozen"]),
        rule=record["rule"],
        metric=metric.DenseMass.read(record.get("metric")),
    )


KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {"Splitting": _splitting}
"""How each kind of integrator is made again from its description."""


def _decay(damping: float) -> float:
    return float("inf") if damping == 0 else -float(np.log(damping))


def _parameter(label: str, value: Any) -> Any:
    return value if callable(value) else _number(label, value)


def _number(label: str, value: Any) -> Any:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SchemeError(
            f"{label}={value!r}: expected a number, an array or a schedule"
        ) from error
    return float(array) if array.ndim == 0 else array


def _short(value: Any) -> str:
    array = np.asarray(value)
    return repr(value) if array.size < 5 else f"array of {array.size} values"


def _check(label: str, value: Any, step: int) -> Any:
    """Refuse a value out of range; a schedule is checked at each step it is used."""
    if callable(value):
        value = value(step)
    array = np.asarray(value, dtype=np.float64)
    where = "" if step == 0 else f" at step {step}"
    if label == "dt":
        if not (np.isfinite(array).all() and (array > 0).all()):
            raise SchemeError(
                f"dt={_short(value)}{where}: expected a finite time step > 0"
            )
    elif label == "relaxation_time":
        if not (np.isfinite(array).all() and (array > 0).all()):
            raise SchemeError(
                f"relaxation_time={_short(value)}{where}: expected a finite time > 0"
            )
    elif label == "temperature":
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise SchemeError(
                f"temperature={_short(value)}{where}: expected a finite number >= 0 "
                "(energy units, k_B = 1); 1 is the Bayesian posterior"
            )
    elif np.isnan(array).any() or (array < 0).any():
        raise SchemeError(
            f"{label}={_short(value)}{where}: expected a number >= 0"
            + ", in 1/time" * (label == "friction")
        )
    return value
