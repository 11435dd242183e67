"""Entries of the catalogue: thermostats, Metropolised methods, tempering."""

from __future__ import annotations

from typing import Any

from mdnet.integrators import (
    constraints,
    hmc,
    langevin,
    multistep,
    simulated_tempering,
    tempering,
)
from mdnet.integrators.adaptive_langevin import SGNHT, CCAdL
from mdnet.integrators.ensemble import EnsembleQuasiNewton
from mdnet.integrators.entry import VERLET, Entry
from mdnet.integrators.isokinetic import Isokinetic
from mdnet.integrators.noise_matched import SGHMC, NoiseMatched
from mdnet.integrators.nose_hoover import NoseHoover
from mdnet.integrators.velocity_rescaling import StochasticVelocityRescaling

__all__ = ["ENTRIES"]

_THERMOSTAT = "Thermostats"
_NOISE = "Thermostats for gradient noise"
_METROPOLIS = "Metropolised: exact at any step"
_TEMPERING = "Tempering"
_ENSEMBLE = "Preconditioned by other replicas"
_SPECIAL = "Surfaces and several time steps"
_REFUSED = "refused: the test needs the energy of all data"
_NO_LIMIT = "any step; a large one is rejected"


def _replica_exchange(dt: Any) -> Any:
    return tempering.ReplicaExchange(langevin.BAOAB(dt), (1.0, 1.5))


def _simulated_tempering(dt: Any) -> Any:
    return simulated_tempering.SimulatedTempering(langevin.BAOAB(dt), (1.0, 1.5))


def _ensemble(dt: Any) -> Any:
    return EnsembleQuasiNewton(dt, floor=1.0)


def _respa(dt: Any) -> Any:
    return multistep.RESPA("BAOAB", dt)


def _constrained(dt: Any) -> Any:
    return constraints.Constrained("BAOAB", dt, norms={"*": "tensor"})


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="NoseHoover",
        family=_THERMOSTAT,
        word="BAOAB",
        make=NoseHoover,
        flow="velocity Verlet around the chain's flow, which scales the momenta",
        samples="conserves H + sum Q xi^2/2 + n T eta_1 + T sum eta_j to O(h^2); "
        "a chain of one is not ergodic on an oscillator, one of three is",
        force_calls=1,
        stability=VERLET,
        noise="heats: deterministic thermostats pump noise out through one friction",
        references=("martyna1992", "martyna1996"),
        limit=2.0,
    ),
    Entry(
        name="StochasticVelocityRescaling",
        family=_THERMOSTAT,
        word="BAOAB",
        make=StochasticVelocityRescaling,
        flow="velocity Verlet around the exact stochastic flow of the kinetic energy",
        samples="the canonical law to O(h^2); conserves E minus the bath's energy",
        force_calls=1,
        stability=VERLET,
        noise="the total kinetic energy is kept; noisy directions run hot, others cold",
        references=("bussi2007",),
        limit=2.0,
    ),
    Entry(
        name="Isokinetic",
        family=_THERMOSTAT,
        word="BAOAB",
        make=Isokinetic,
        flow="Gauss's constraint: kicks turn momenta of a kinetic energy that stays",
        samples="the canonical law of the weights to O(h^2); K = (d - 1)T/2 exactly; "
        "conserves U plus the work of the kicks to O(h^2)",
        force_calls=1,
        stability="any step; accurate for h omega < 1",
        noise="biases it, as other deterministic motion",
        references=("evans1983", "zhang1997", "minary2003"),
    ),
    Entry(
        name="SGHMC",
        family=_NOISE,
        word="BAOAB",
        make=SGHMC,
        flow="BAOAB whose bath leaves out the noise that batches bring, as measured",
        samples="as BAOAB, given the estimate of the noise",
        force_calls=1,
        stability=VERLET,
        noise="absorbed a weight at a time, where independent and below the bath's",
        references=("chen2014",),
        limit=2.0,
    ),
    Entry(
        name="NoiseMatched",
        family=_NOISE,
        word="BAOAB",
        make=NoiseMatched,
        flow="SGHMC with masses, found in a warm-up, at which no noise is unmatched",
        samples="as BAOAB at these masses, given the estimate of the noise",
        force_calls=1,
        stability="h omega < 2 at the masses found",
        noise="absorbed a weight at a time, where independent",
        references=("chen2014",),
    ),
    Entry(
        name="SGNHT",
        family=_NOISE,
        word="BANDNAB",
        make=SGNHT,
        flow="a friction xi that drifts until the kinetic energy is right (BADODAB)",
        samples="as BAOAB; <xi> rises by hC/2T",
        force_calls=1,
        stability=VERLET,
        noise="absorbed where it is equal in all weights of a group",
        references=("ding2014", "leimkuhler2016"),
        limit=2.0,
    ),
    Entry(
        name="CCAdL",
        family=_NOISE,
        word="BANDNAB",
        make=CCAdL,
        flow="SGNHT with the measured covariance of the noise damped away beside it",
        samples="as BAOAB, given the estimate of the covariance",
        force_calls=1,
        stability=VERLET,
        noise="absorbed: diagonal or low-rank covariances, the rest by xi",
        references=("shang2015", "leimkuhler2016"),
        limit=2.0,
    ),
    Entry(
        name="RandomWalkMetropolis",
        family=_METROPOLIS,
        word="O{A}",
        make=hmc.RandomWalkMetropolis,
        flow="a normal step of length dt, accepted with min(1, exp(-dU/T))",
        samples="the target, exactly; best at an acceptance of .234",
        force_calls=0,
        stability=_NO_LIMIT,
        noise=_REFUSED,
        references=("metropolis1953",),
    ),
    Entry(
        name="MALA",
        family=_METROPOLIS,
        word="O{BAB}",
        make=hmc.MALA,
        flow="a step of SGLD, accepted or not",
        samples="the target, exactly; best at an acceptance of .574",
        force_calls=1,
        stability=_NO_LIMIT,
        noise=_REFUSED,
        references=("rossky1978", "roberts1996"),
    ),
    Entry(
        name="HMC",
        family=_METROPOLIS,
        word="O{[BAB]^10}",
        make=hmc.HMC,
        flow="momenta drawn anew, a path of velocity Verlet, accepted or not",
        samples="the target, exactly; <exp(-dH/T)> = 1; best at .65 to .8",
        force_calls=10,
        stability=_NO_LIMIT,
        noise=_REFUSED,
        references=("duane1987",),
    ),
    Entry(
        name="GHMC",
        family=_METROPOLIS,
        word="O{BAB}O",
        make=hmc.GHMC,
        flow="OBABO whose middle is accepted, or undone with momenta reversed",
        samples="the target, exactly",
        force_calls=1,
        stability=_NO_LIMIT,
        noise=_REFUSED,
        references=("horowitz1991",),
    ),
    Entry(
        name="NUTS",
        family=_METROPOLIS,
        word="O{[BAB]^1023}",
        make=hmc.NUTS,
        flow="paths doubled until they turn back; a point of them drawn",
        samples="the target, exactly",
        force_calls=1023,
        stability=_NO_LIMIT,
        noise=_REFUSED,
        references=("hoffman2014",),
    ),
    Entry(
        name="MCLMC",
        family=_METROPOLIS,
        word="OBABO",
        make=hmc.MCLMC,
        flow="microcanonical: momenta of fixed length turned by kicks and noise",
        samples="the target to O(h^2); exactly if adjusted=True",
        force_calls=1,
        stability="dt below about the smallest scale of the target times sqrt(D)",
        noise="biases it; refused if adjusted",
        references=("robnik2023",),
    ),
    Entry(
        name="ReplicaExchange of BAOAB",
        family=_TEMPERING,
        word="BAOAB",
        make=_replica_exchange,
        flow="any integrator; neighbours on the ladder swap temperatures now and then",
        samples="every temperature's law, as the integrator inside samples it",
        force_calls=1,
        stability="as inside",
        noise="as inside; swaps use the energy of all data, or, with batches=, that of "
        "minibatches less a penalty",
        references=(
            "swendsen1986",
            "hukushima1996",
            "sugita1999",
            "ceperley1999",
            "deng2020",
        ),
    ),
    Entry(
        name="SimulatedTempering of BAOAB",
        family=_TEMPERING,
        word="BAOAB",
        make=_simulated_tempering,
        flow="any integrator; each replica walks up and down the ladder by itself",
        samples="every temperature's law, as the integrator inside samples it",
        force_calls=1,
        stability="as inside",
        noise="as inside; moves use the energy of all data, or of minibatches",
        references=("marinari1992",),
    ),
    Entry(
        name="EnsembleQuasiNewton",
        family=_ENSEMBLE,
        word="BAOAB",
        make=_ensemble,
        flow="BAOAB in coordinates whitened by half of the replicas, which rest for it",
        samples="as BAOAB in these coordinates: exact configurations of Gaussians",
        force_calls=1,
        stability="h < about 1, in units of the Gaussian that the replicas fill",
        noise="T + hC/2g, with C in whitened coordinates",
        references=("leimkuhler2018",),
    ),
    Entry(
        name="BAOAB on surfaces",
        family=_SPECIAL,
        word="BAOAB",
        make=_constrained,
        flow="great circles on spheres, reflections at walls; tangent kicks and baths",
        samples="the canonical law on the surface to O(h^2); norms to rounding",
        force_calls=1,
        stability=VERLET,
        noise="as the word itself",
        references=("leimkuhler2016geodesic", "andersen1983"),
    ),
    Entry(
        name="RESPA of BAOAB",
        family=_SPECIAL,
        word="BAOAB",
        make=_respa,
        flow="a word of the slow force whose drifts are short steps of the fast one",
        samples="to O(h^2), away from resonances",
        force_calls=1,
        stability="h omega_slow < 2, and h below pi / omega_fast",
        noise="as the word itself",
        references=("tuckerman1992",),
    ),
)
