"""Reading and writing trajectories: one HDF5 file that is also the restart.

`schema` knows every path in the file, `files` opens and locks it, `native` holds the
datasets, `views` the faces other programs see, `checkpoint` the restart slots,
`writer` the background thread, `reader` the lazy `Trajectory`, and `interop` the way
to ArviZ and MDAnalysis.
"""

from __future__ import annotations

from mdnet.io.reader import Trajectory, open_trajectory
from mdnet.io.writer import TrajectoryWriter

__all__ = ["Trajectory", "TrajectoryWriter", "open_trajectory"]
