r"""Metropolised words: exact at any step, as long as proposals are accepted.

=====================  ==============================  =====================
name                   word                            gradients a step
=====================  ==============================  =====================
`HMC`                  O { [B A B]^steps }             steps
`NUTS`                 O { [B A B]^(up to 2^depth) }   until it turns back
`GHMC`                 O { B A B } O                   1
`MALA`                 O { B A B }                     1
`RandomWalkMetropolis` O { A }                         0 (one energy)
`MCLMC`                O B A B O on a sphere           1 (tested: steps)
=====================  ==============================  =====================

What stands in braces is accepted or taken back by a Metropolis test of its energy
error (see `mdnet.integrators.metropolis`), so that
:math:`e^{-(U + \sum p^2/2m)/T}` is kept exactly.  Each test needs the energy of all
data: minibatch potentials are refused.

Series recorded beside the usual ones, of the last test of a step: ``acceptance`` (its
chance), ``delta_h`` (its energy error W; :math:`\langle e^{-W/T}\rangle = 1`), and
``accepted`` (tests accepted so far); ``dt`` where it is tuned.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

from mdnet.errors import SchemeError
from mdnet.integrators.nuts import DEEPEST
from mdnet.integrators.splitting import Splitting
from mdnet.integrators.tuning import Tuning

__all__ = ["GHMC", "HMC", "MALA", "MCLMC", "NUTS", "RandomWalkMetropolis"]


def HMC(
    dt: Any,
    steps: int = 10,
    temperature: Any = 1.0,
    target_acceptance: float | None = None,
    warmup: int | None = None,
    mass: Any = 1.0,
    jitter: float = 0.0,
    adapt_mass: bool | Literal["dense"] = False,
    shared: bool = False,
    frozen: Any = (),
) -> Splitting:
    r"""Hamiltonian Monte Carlo: fresh momenta, a leapfrog trajectory, a test.

    One step of the simulation is one trajectory of ``steps`` leapfrog steps.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Leapfrog step; proposals are accepted for dt well below 2 / omega_max.
    steps : int
        Leapfrog steps of a trajectory; a quarter of the slowest oscillation,
        steps x dt = pi / (2 omega_min), decorrelates it best.
    temperature : float, (R,) array or schedule
        T >= 0 in energy units (k_B = 1).
    target_acceptance : float, optional
        Tune ``dt`` (then a first guess) to this mean acceptance in the warm-up: 0.65
        to 0.8 moves farthest per gradient.
    warmup : int, optional
        Steps of the warm-up; 500 if there is a target.  They count as steps of the
        run: leave them out of averages.
    mass : float, (D,) or (D, D) array
        A matrix whitens momenta: see `mdnet.integrators.metric`.
    jitter : float in [0, 1)
        Lengths are drawn uniformly from (1 - jitter) steps to (1 + jitter) steps,
        one for all replicas, so that no oscillation returns where it was each time.
    adapt_mass : bool or "dense"
        Set masses to T / variance of each parameter over steps and replicas of the
        warm-up, or to T times the inverse of their covariance (which takes D^2
        numbers).  Replicas then depend on each other during it.
    shared : bool
        Tune one ``dt`` for all replicas rather than one each.
    frozen : sequence of str or (D,) booleans
        Weights that never move.

    Raises
    ------
    SchemeError
        A parameter out of range; later a minibatch potential.

    References
    ----------
    S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, Phys. Lett. B 195, 216
    (1987), doi:10.1016/0370-2693(87)91197-X.
    A. Beskos et al., Bernoulli 19, 1501 (2013), doi:10.3150/12-BEJ414 (acceptance
    .651 as the dimension grows).

    Examples
    --------
    >>> HMC(dt=0.1, steps=20).scheme.force_calls
    20
    """
    if isinstance(steps, bool) or int(steps) != steps or steps < 1:
        raise SchemeError(f"steps={steps!r}: expected an integer >= 1")
    if not 0 <= jitter < 1:
        raise SchemeError(f"jitter={jitter!r}: expected a number in [0, 1)")
    most = math.floor(steps * (1 + jitter) + 1e-9)
    fewest = max(1, math.ceil(steps * (1 - jitter) - 1e-9)) if jitter else 0
    turn = (("[", 0.0), ("B", 0.5), ("A", 1.0), ("B", 0.5), ("]", float(most)))
    return Splitting(
        (("O", 1.0), ("{", 0.0), *turn, ("}", 0.0)),
        dt,
        temperature,
        math.inf,
        mass,
        name="HMC",
        damping=0.0,
        tuning=Tuning.of(
            target_acceptance,
            warmup,
            0.8,
            masses=adapt_mass,
            shared=shared,
            fewest=fewest,
        ),
        frozen=frozen,
    )


def NUTS(
    dt: Any,
    temperature: Any = 1.0,
    target_acceptance: float | None = None,
    warmup: int | None = None,
    mass: Any = 1.0,
    max_depth: int = 10,
    adapt_mass: bool | Literal["dense"] = False,
    shared: bool = False,
    frozen: Any = (),
) -> Splitting:
    r"""Hamiltonian Monte Carlo whose trajectories end where they turn back.

    See `mdnet.integrators.nuts` for the method.  Replicas run side by side, so that a
    step takes as long as the longest of their trajectories.  Series beside those of
    `HMC`: ``tree_depth``, ``leapfrog_steps`` of the trajectory, and ``divergences`` so
    far (energy errors of 1000 T: take a smaller dt).

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Leapfrog step.
    temperature, target_acceptance, warmup, mass, adapt_mass, shared, frozen
        As `HMC`; the acceptance is the mean over the trajectory.
    max_depth : int
        Most doublings: trajectories of at most 2^max_depth - 1 steps.

    References
    ----------
    M. D. Hoffman, A. Gelman, J. Mach. Learn. Res. 15, 1593 (2014).
    M. Betancourt (2017), arXiv:1701.02434.

    Examples
    --------
    >>> NUTS(dt=0.1, max_depth=5).scheme.force_calls
    31
    """
    if isinstance(max_depth, bool) or not 1 <= max_depth <= DEEPEST:
        raise SchemeError(f"max_depth={max_depth!r}: expected 1 to {DEEPEST}")
    return Splitting(
        f"O{{[BAB]^{2**max_depth - 1}}}",
        dt,
        temperature,
        math.inf,
        mass,
        name="NUTS",
        damping=0.0,
        tuning=Tuning.of(
            target_acceptance,
            warmup,
            0.8,
            masses=adapt_mass,
            shared=shared,
            depth=max_depth,
        ),
        frozen=frozen,
    )


def GHMC(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    target_acceptance: float | None = None,
    warmup: int | None = None,
    shared: bool = False,
    frozen: Any = (),
) -> Splitting:
    r"""Generalised hybrid Monte Carlo: OBABO whose leapfrog is tested every step.

    Momenta persist for about a time 1/friction; a rejected step reverses them, so
    that they persist only where the acceptance is close to one.

    Parameters
    ----------
    dt, temperature, friction, mass
        As `mdnet.integrators.OBABO`.
    target_acceptance : float, optional
        Tune ``dt`` to it in the warm-up; 0.95 or more lets momenta persist.
    warmup : int, optional
        Steps of the warm-up; 500 if there is a target.
    shared, frozen
        As `HMC`.

    References
    ----------
    A. M. Horowitz, Phys. Lett. B 268, 247 (1991), doi:10.1016/0370-2693(91)90812-5.
    """
    return Splitting(
        "O{BAB}O",
        dt,
        temperature,
        friction,
        mass,
        name="GHMC",
        tuning=Tuning.of(target_acceptance, warmup, 0.95, shared=shared),
        frozen=frozen,
    )


def MALA(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    target_acceptance: float | None = None,
    warmup: int | None = None,
    shared: bool = False,
    frozen: Any = (),
) -> Splitting:
    r"""Metropolis-adjusted Langevin: SGLD's step, tested with the energy of all data.

    The proposal is :math:`q + dt\,F/m + \sqrt{2\,dt\,T/m}\,z`, one leapfrog step of
    length :math:`\sqrt{2\,dt}` from fresh momenta.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Step size, as `mdnet.integrators.SGLD`.
    temperature, mass
        As `HMC`.
    target_acceptance : float, optional
        Tune ``dt`` to it in the warm-up; .574 moves farthest as the dimension grows.
    warmup : int, optional
        Steps of the warm-up; 500 if there is a target.
    shared, frozen
        As `HMC`.

    References
    ----------
    G. O. Roberts, R. L. Tweedie, Bernoulli 2, 341 (1996), doi:10.2307/3318418.
    G. O. Roberts, J. S. Rosenthal, J. R. Stat. Soc. B 60, 255 (1998),
    doi:10.1111/1467-9868.00123 (acceptance .574).
    """
    return Splitting(
        "O{BAB}",
        dt,
        temperature,
        math.inf,
        mass,
        name="MALA",
        damping=0.0,
        length="sqrt(2 dt)",
        tuning=Tuning.of(target_acceptance, warmup, 0.574, shared=shared),
        frozen=frozen,
    )


def RandomWalkMetropolis(
    dt: Any,
    temperature: Any = 1.0,
    mass: Any = 1.0,
    target_acceptance: float | None = None,
    warmup: int | None = None,
    block: int | None = None,
    shared: bool = False,
    frozen: Any = (),
) -> Splitting:
    r"""Random-walk Metropolis: Gaussian proposals, no gradients.

    The proposal is :math:`q + dt \sqrt{T/m}\,z`; on a Gaussian of standard deviation
    :math:`\sigma = \sqrt{T/k}` in d dimensions it moves farthest at
    :math:`dt\sqrt{T/m} = 2.38\,\sigma/\sqrt d`, with acceptance .234.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Width of the proposal in units of sqrt(T/m).
    temperature, mass
        As `HMC`.
    target_acceptance : float, optional
        Tune ``dt`` to it in the warm-up; .234 as the dimension grows, .44 for single
        parameters (``block=1``).
    warmup : int, optional
        Steps of the warm-up; 500 if there is a target, which is then .234.
    block : int, optional
        Move this many neighbouring parameters a step, of a block drawn afresh for
        each replica; all if not given.  A test costs the energy of all data anyway.
    shared, frozen
        As `HMC`; ``frozen`` not with ``block``.

    References
    ----------
    N. Metropolis et al., J. Chem. Phys. 21, 1087 (1953), doi:10.1063/1.1699114.
    G. O. Roberts, A. Gelman, W. R. Gilks, Ann. Appl. Probab. 7, 110 (1997),
    doi:10.1214/aoap/1034625254.
    """
    if block is not None and (isinstance(block, bool) or block < 1):
        raise SchemeError(f"block={block!r}: expected an integer >= 1, or None for all")
    return Splitting(
        "O{A}",
        dt,
        temperature,
        math.inf,
        mass,
        name="RandomWalkMetropolis",
        damping=0.0,
        tuning=Tuning.of(
            target_acceptance, warmup, 0.234, shared=shared, block=block or 0
        ),
        frozen=frozen,
    )


def MCLMC(
    dt: Any,
    temperature: Any = 1.0,
    friction: Any = 1.0,
    mass: Any = 1.0,
    adjusted: bool = False,
    steps: int = 10,
    target_acceptance: float | None = None,
    warmup: int | None = None,
    jitter: float = 0.0,
    shared: bool = False,
) -> Splitting:
    r"""Microcanonical Langevin dynamics: velocities of constant length, sqrt(d T/m).

    See `mdnet.integrators.microcanonical` for the equations.  Without a test
    (``adjusted=False``, the word O B A B O) the law of the positions is off by
    O(dt^2); the error shows as shadow work, whose variance over d T^2 should stay below
    about 5e-4 a step.  Minibatches heat it, as they do all deterministic motion.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step at thermal velocities, as for the other words: a step moves by
        dt sqrt(d T/m), d the number of parameters.
    temperature, mass
        As `HMC`.
    friction : float, (R,) array or schedule
        Rate at which directions are forgotten; unused where ``adjusted``.
    adjusted : bool
        Draw a fresh direction, make a trajectory of ``steps`` and test it: exact.
    steps, target_acceptance, warmup, jitter, shared
        Of the trajectories that are tested, as `HMC`; 0.9 is a good acceptance.

    Raises
    ------
    SchemeError
        A parameter out of range; later a potential of one parameter.

    References
    ----------
    J. Robnik, U. Seljak (2023), arXiv:2303.18221.
    J. Robnik, R. Cohn-Gordon, U. Seljak, "Metropolis adjusted microcanonical
    Hamiltonian Monte Carlo" (2025), arXiv:2503.01707.
    """
    if not adjusted:
        if target_acceptance is not None or warmup:
            raise SchemeError(
                f"target_acceptance={target_acceptance!r}, warmup={warmup!r}: there is "
                "nothing to accept without a test; pass adjusted=True"
            )
        return Splitting(
            "OBABO", dt, temperature, friction, mass, name="MCLMC", sphere=True
        )
    made = HMC(
        dt,
        steps,
        temperature,
        target_acceptance,
        warmup,
        mass,
        jitter,
        shared=shared,
    )
    return replace(made, name="MCLMC", sphere=True)
