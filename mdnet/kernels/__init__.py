"""Fused per-element updates: one scalar source, compiled for the CPU and for CUDA.

``letters`` holds the scalar source, ``cpu`` and ``cuda`` its two compilations,
``cpu_steps`` and ``cuda_steps`` launch these, ``reference`` is the plain array version
they are tested against, ``engine`` picks the device, and ``layers`` has the per-tensor
sums of the thermometers.
"""

import os

# Threads that wait between two launches sleep instead of spinning: on a machine with
# other work a spinning pool slows a run many times over, and on a quiet one sleeping
# costs next to nothing.  Read when Numba's OpenMP pool starts; a user's choice stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
