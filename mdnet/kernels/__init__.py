"""Fused per-element updates: one scalar source, compiled for the CPU and for CUDA.

``letters`` holds the scalar source, ``cpu`` and ``cuda`` its two compilations,
``reference`` the plain array version they are tested against, ``engine`` the launcher
and ``layers`` the per-tensor sums of the thermometers.
"""
