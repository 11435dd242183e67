r"""Nose-Hoover chains: the canonical law without noise, on the word BAOAB.

The equations of motion of one group of n parameters, with a chain of M links,

.. math::
    \dot q = p/m, \quad \dot p = F - \xi_1 p, \quad
    \dot\xi_1 = \frac{1}{Q_1}\Big(\sum\frac{p^2}{m} - n T\Big) - \xi_1\xi_2, \quad
    \dot\xi_j = \frac{1}{Q_j}\big(Q_{j-1}\xi_{j-1}^2 - T\big) - \xi_j\xi_{j+1},

with :math:`Q_1 = n T\tau^2`, :math:`Q_j = T\tau^2`, are split into kicks, drifts and
the flow of the thermostat, which stands where BAOAB has its bath.  The step is
reversible, of second order, and conserves

.. math::
    H' = U + K + \sum_j \tfrac12 Q_j\xi_j^2 + n T\eta_1 + T\sum_{j>1}\eta_j

to O(dt^2) without drift; its Jacobian is
:math:`\ln\det J = -(n\,\Delta\eta_1 + \sum_{j>1}\Delta\eta_j)` exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mdnet.errors import SchemeError
from mdnet.integrators import grouping, holding
from mdnet.integrators.companion import Companion, Context
from mdnet.integrators.splitting import KINDS, Splitting
from mdnet.kernels import thermostat_arrays
from mdnet.typing import Array, Layout

if TYPE_CHECKING:
    from mdnet.state import State

__all__ = ["NoseHoover", "NoseHooverChain", "suzuki_yoshida"]


def suzuki_yoshida(stages: int) -> npt.NDArray[np.float64]:
    """Weights of the symmetric composition of a second-order map.

    Parameters
    ----------
    stages : {1, 3, 5, 7}
        Of order 2, 4, 4 and 6.

    Returns
    -------
    (stages,) float64
        They add up to one, and their cubes to zero (but for one stage).

    Raises
    ------
    SchemeError
        Another number of stages.

    References
    ----------
    H. Yoshida, Phys. Lett. A 150, 262 (1990), doi:10.1016/0375-9601(90)90092-3:
    three stages eq. (2.12), seven solution A of table 1.
    M. Suzuki, Phys. Lett. A 146, 319 (1990), doi:10.1016/0375-9601(90)90962-N: five.

    Examples
    --------
    >>> round(float(sum(suzuki_yoshida(5) ** 3)), 12)
    0.0
    """
    if stages == 1:
        half: tuple[float, ...] = ()
    elif stages == 3:
        half = (1 / (2 - 2 ** (1 / 3)),)
    elif stages == 5:
        half = (1 / (4 - 4 ** (1 / 3)),) * 2
    elif stages == 7:
        half = (0.784513610477560, 0.235573213359357, -1.17767998417887)
    else:
        raise SchemeError(f"stages={stages!r}: expected 1, 3, 5 or 7")
    return np.array([*half, 1 - 2 * sum(half), *reversed(half)])


@dataclass(frozen=True, eq=False)
class NoseHooverChain(Splitting):
    """What `NoseHoover` returns; parameters are described there."""

    relaxation_time: Any = 1.0
    chain: int = 3
    groups: str = "all"
    stages: int = 1
    substeps: int = 1
    SCALARS: ClassVar[tuple[str, ...]] = ("dt", "temperature", "relaxation_time")

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping.check_plain(self, holds=True)
        grouping.check_groups(self.groups)
        grouping.check_counts(self, "chain", "substeps")
        suzuki_yoshida(self.stages)
        self.target_temperature(0)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Lengths of the thermostat's stages as parts of a step."""
        return np.tile(suzuki_yoshida(self.stages) / self.substeps, self.substeps)

    def target_temperature(self, step: int) -> Any:
        """Temperature in the step after ``step``: float or (R,), above zero."""
        return grouping.above_zero(self.name, super().target_temperature(step))

    def operations(self) -> tuple[tuple[int, int, int], ...]:
        """Sequence of a step, with a call before its bath."""
        calls = grouping.with_calls(super().operations())
        return holding.with_holds(self, calls)

    def bounds(self, layout: Layout) -> npt.NDArray[np.int64] | None:
        """Where groups begin."""
        return grouping.bounds(self.groups, layout, self.free(layout))

    def bind(self, context: Context) -> Companion:
        """Return what moves the chains."""
        return holding.hold(self, context, _Chains(self, context))

    def conserved(self, state: State) -> npt.NDArray[np.float64]:
        """H' of each replica, (R,): U, K and the energy of the chains."""
        chains = state.backend.to_host(state.variables["energy"]).sum(axis=1)
        total: npt.NDArray[np.float64] = (
            state.potential_energy() + state.kinetic_energy + chains
        )
        return total

    def describe(self) -> dict[str, Any]:
        """JSON-able settings that identify the integrator."""
        return grouping.describe(self, "NoseHoover")


KINDS["NoseHoover"] = grouping.remake(NoseHooverChain)


class _Chains(grouping.Bath):
    """The chains of all groups, or of all parameters, of a simulation.

    Variables
    ---------
    xi : (R, M, n) float64
        Velocities of the links, n groups or parameters.
    eta : (R, tiles or 1) float64
        T times the phases, n eta_1 + eta_2 + ..., summed over a block or all groups.
    energy : (R, tiles or 1) float64
        Energy of the chains.
    """

    def __init__(self, integrator: NoseHooverChain, context: Context) -> None:
        super().__init__(integrator, context)
        backend, state = context.backend, context.state
        self._each = integrator.groups == "parameter"
        self._weights = backend.asarray(integrator.weights, np.float64)
        count = state.size if self._each else self.dof.size
        columns = context.engine.tiles if self._each else 1
        shape = (self.replicas, integrator.chain, count)
        self.variables = {
            "xi": backend.zeros(shape, np.float64),
            "eta": backend.zeros((self.replicas, columns), np.float64),
            "energy": backend.zeros((self.replicas, columns), np.float64),
        }
        self._compiled = backend.name == "cpu"
        if self._compiled:
            from numba import config

            from mdnet.kernels import thermostats

            self._kernels: Any = thermostats
            wide = min(thermostats.TILE, state.size) if self._each else count
            room = (config.NUMBA_NUM_THREADS, integrator.chain + 3, wide)
            self._room = np.empty(room)

    def started(self) -> None:
        """Begin with chains at rest."""
        self.refuse_rest(self.integrator.name)
        for value in self.variables.values():
            value[...] = 0

    def scalars(self) -> dict[str, np.ndarray]:
        """Return the conserved quantity."""
        return {"conserved": self.integrator.conserved(self.context.state)}

    def call(self, index: int, step: int) -> None:
        """Move the chains by one step, and set the factor of the momenta."""
        del index
        state, engine = self.context.state, self.context.engine
        dt, temperature, time = (
            self.row(name, step) for name in self.integrator.SCALARS
        )
        xi, eta, energy = (self.variables[k] for k in ("xi", "eta", "energy"))
        if self._compiled and self._each:
            self._kernels.chain_parameters(
                state.momenta,
                self.context.inverse_mass,
                engine.edges,
                self._weights,
                dt,
                temperature,
                time,
                xi,
                eta,
                energy,
                state.sums,
                self._room,
            )
        elif self._compiled:
            self._kernels.chain_groups(
                state.sums[0],
                engine.groups,
                self.dof,
                self._weights,
                dt,
                temperature,
                time,
                xi,
                eta,
                energy,
                self.bath,
                self._room,
            )
        else:
            self._arrays(dt, temperature, time)

    def _arrays(self, dt: Array, temperature: Array, time: Array) -> None:
        """The same in array operations."""
        xp, state = self.context.backend.xp, self.context.state
        xi, eta, energy = (self.variables[k] for k in ("xi", "eta", "energy"))
        stages = self._weights[:, None, None] * dt[:, None]
        t = temperature[:, None]
        if self._each:
            dof: Any = 1.0
            p = state.momenta.astype(np.float64)
            ratio = p**2 * self.context.inverse_mass / t
        else:
            dof = self.dof
            ratio = self.twice_kinetic() / (dof * t)
        scale, phase = thermostat_arrays.chain(
            xp, xi, ratio, dof, time[:, None], stages
        )
        eta[:, 0] += temperature * phase
        held = 0.5 * temperature * time**2 * thermostat_arrays.stored(xi, dof)
        energy[:, 0] = eta[:, 0] + held
        if not self._each:
            self.bath[..., 0] = scale
            return
        grouping.book(self.context, p * scale)


def NoseHoover(
    dt: Any,
    temperature: Any = 1.0,
    relaxation_time: Any = 1.0,
    chain: int = 3,
    groups: str = "all",
    mass: Any = 1.0,
    stages: int = 1,
    substeps: int = 1,
    frozen: Any = (),
) -> NoseHooverChain:
    r"""Nose-Hoover chains: deterministic, time-reversible canonical dynamics.

    One force evaluation a step, stable for dt < 2 / omega_max.  A chain of one link
    is the Nose-Hoover thermostat, which is not ergodic on an oscillator; three links
    are.  The series ``conserved`` holds H' (see the module): it drifts as dt^2 where
    the step is fit.  With ``groups="parameter"`` every parameter has a chain of its
    own ("massive" thermostatting), which equilibrates stiff and soft ones alike.

    Parameters
    ----------
    dt : float, (R,) array or schedule
        Time step.
    temperature : float, (R,) array or schedule
        T > 0 in energy units (k_B = 1).
    relaxation_time : float, (R,) array or schedule
        tau of the chain's masses; some ten or more steps.
    chain : int
        Links M >= 1.
    groups : {"all", "layer", "parameter"}
        Which parameters share a chain: all, those of a tensor, none.
    mass : float or (D,) array
    stages : {1, 3, 5, 7}
        Suzuki-Yoshida stages of the thermostat's flow in a step.
    substeps : int
        Repeats of these stages in a step.
    frozen : names of tensors or (D,) bool
        Weights that never move; not with ``groups="parameter"``.

    Raises
    ------
    SchemeError
        A parameter out of range; momenta at rest when a simulation starts.

    References
    ----------
    G. J. Martyna, M. L. Klein, M. Tuckerman, J. Chem. Phys. 97, 2635 (1992),
    doi:10.1063/1.463940.
    G. J. Martyna, M. E. Tuckerman, D. J. Tobias, M. L. Klein, Mol. Phys. 87, 1117
    (1996), doi:10.1080/00268979600100761.
    Z. Zhang, X. Liu, Z. Chen, H. Zheng, K. Yan, J. Liu, J. Chem. Phys. 147, 034109
    (2017), doi:10.1063/1.4991621 (the thermostat in the middle of the step).
    """
    return NoseHooverChain(
        "BAOAB",
        dt,
        temperature,
        0.0,
        mass,
        name="NoseHoover",
        relaxation_time=relaxation_time,
        chain=chain,
        groups=groups,
        stages=stages,
        substeps=substeps,
        frozen=frozen,
    )
