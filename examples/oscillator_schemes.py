"""Every word on the harmonic oscillator, measured against its exact moments.

At a finite time step each splitting samples a law of its own, known in closed form.
Prints the table of <q^2>k/T and <p^2>/T and saves oscillator_schemes.png.  Takes about
twenty seconds on two cores; ``--quick`` two.
"""

import argparse
from pathlib import Path

import numpy as np

import mdnet
from mdnet import integrators, plotting, potentials, reporters

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="fewer oscillators")
parser.add_argument("--out", type=Path, default=Path(), help="folder for the figure")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

# h^2 k = x: the exact <q^2>k/T and <p^2>/T at the end of a step (m = 1).
EXACT = {
    "BAOAB": (lambda x: 1 + 0 * x, lambda x: 1 - x / 4),
    "ABOBA": (lambda x: 1 + 0 * x, lambda x: 1 / (1 - x / 4)),
    "OBABO": (lambda x: 1 / (1 - x / 4), lambda x: 1 + 0 * x),
    "OABAO": (lambda x: 1 - x / 4, lambda x: 1 + 0 * x),
}
temperature = 0.5
steps_of_time = np.array([0.25, 0.5, 1.0, 1.5])  # one replica each
oscillators = 4000 if options.quick else 100_000
U = potentials.Harmonic(stiffness=1.0, size=oscillators)

fig = plotting.figure(11, 4.5)
axes = fig.subplots(1, 2)
fine = np.linspace(0, 1.7, 200)
print(f"{oscillators} oscillators, T = {temperature}, friction 1")
print("word    h     <q^2>k/T  exact   <p^2>/T   exact   T after O")
for color, marker, (word, (exact_q, exact_p)) in zip(
    plotting.COLORS, "oxs+", EXACT.items(), strict=False
):
    integrator = integrators.Splitting(word, dt=steps_of_time, temperature=temperature)
    sim = mdnet.Simulation(
        U, integrator, replicas=len(steps_of_time), seed=1, precision="mixed"
    )
    sim.run(150)  # forget the start
    record = reporters.Memory(every=20, positions=False)
    sim.run(400, reporters=[record])
    q2, p2, after = (
        factor * record[name].value.mean(axis=0) / temperature
        for name, factor in (
            ("potential_energy", 2 / oscillators),
            ("kinetic_energy", 2 / oscillators),
            ("kinetic_temperature", 1),
        )
    )
    x = steps_of_time**2
    for row in zip(steps_of_time, q2, exact_q(x), p2, exact_p(x), after, strict=True):
        print("{:6}{:5.2f}{:10.4f}{:8.4f}{:9.4f}{:9.4f}{:10.4f}".format(word, *row))
    for ax, measured, exact in zip(axes, (q2, p2), (exact_q, exact_p), strict=True):
        ax.plot(fine, exact(fine**2), color=color, lw=1.5)
        ax.plot(
            steps_of_time, measured, marker, ms=9, mfc="none", color=color, label=word
        )
titles = ("Positions: BAOAB and ABOBA are exact", "Momenta at the end of the step")
for ax, title, label in zip(axes, titles, ("<q²>k/T", "<p²>/T"), strict=True):
    ax.set(xlabel="time step h (units of 1/ω)", ylabel=label, title=title)
    ax.set_ylim(0.3, 2.4)
axes[0].legend(title="points measured, lines exact")
plotting.save(fig, options.out / "oscillator_schemes.png")
print(f"wrote {options.out / 'oscillator_schemes.png'}")
