"""The version, in one place: packaging, the files and the command line read it."""

__version__ = "0.1.0"
