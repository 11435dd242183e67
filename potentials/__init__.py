"""Potentials."""
