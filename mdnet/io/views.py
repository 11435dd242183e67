"""The faces other programs see: H5MD particles and ArviZ groups, nothing copied.

Every view is a virtual dataset whose mapping is unlimited along frames, made when the
file is created: it grows with the native frames and needs no rebuilding, so that a
killed file shows the same views as a finished one.

- H5MD (https://www.nongnu.org/h5md/h5md.html, version 1.1): a particle is one
  parameter on a line; each replica is a particles group.  Groups share `mass`, `id`,
  `species`, `box`, `step` and `time` through hard links.
- ``/particles/trajectory``: the first group by name, three-dimensional, with the units
  stock viewers insist on (MDAnalysis reads the first group only).
- ``/posterior`` and ``/sample_stats``: netCDF groups with dimension scales, as
  ``arviz.from_netcdf`` expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5p, h5s, h5t

from mdnet._version import __version__
from mdnet.io import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mdnet.io.schema import Header

__all__ = ["create_particles", "create_statistics", "posterior_names"]

_MAX_ENUM_BYTES = 60_000  # a datatype must fit a 64 kB object header message
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable."


def _view(
    group: h5py.Group,
    name: str,
    source: h5py.Dataset,
    *,
    extent: tuple[int, ...],
    growing: int,
    block: tuple[int, ...],
    origin: tuple[int, int],
    chains: int,
) -> h5py.Dataset:
    """Make a virtual dataset of native frames ``source`` (R, T, N).

    ``extent`` is the view's shape with 0 frames on axis ``growing``, of which the
    mapping fills ``block`` a frame (the rest is zero); it shows ``chains`` replicas
    from ``origin[0]`` and the parameters from ``origin[1]``.
    """
    unlimited = h5s.UNLIMITED
    maximum = tuple(unlimited if i == growing else n for i, n in enumerate(extent))
    space = h5s.create_simple(extent, maximum)
    count = tuple(unlimited if i == growing else 1 for i in range(len(extent)))
    chosen = space.copy()
    chosen.select_hyperslab((0,) * len(extent), count, block=block)
    parameters = int(np.prod(block, dtype=np.int64)) // chains
    mapped = source.id.get_space()
    mapped.select_hyperslab(
        (origin[0], 0, origin[1]), (1, unlimited, 1), block=(chains, 1, parameters)
    )
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_virtual(chosen, b".", source.name.encode(), mapped)
    plist.set_fill_value(np.zeros((), source.dtype))
    kind = h5t.py_create(source.dtype, logical=True)
    return h5py.Dataset(h5d.create(group.id, name.encode(), kind, space, plist))


def create_particles(
    handle: h5py.File, header: Header, masses: npt.NDArray[np.float64]
) -> None:
    """Write /h5md and every group of /particles; the native frames must be there."""
    _create_h5md(handle)
    n = header.stored_size
    sources = {q: handle[schema.QUANTITIES[q].path] for q in header.store}
    step, time = handle[schema.STEP], handle[schema.TIME]
    particles = handle.require_group(schema.PARTICLES)
    shared: dict[str, Any] = {}
    for replica in range(header.replicas):
        group = particles.create_group(schema.walker(replica))
        if replica == 0:
            shared = {
                "box": _create_box(group, 1),
                **_create_parameters(group, header, masses),
            }
        else:
            for name, item in shared.items():
                group[name] = item
        for quantity, source in sources.items():
            element = group.create_group(schema.QUANTITIES[quantity].element)
            element["step"], element["time"] = step, time
            _view(
                element,
                "value",
                source,
                extent=(0, n, 1),
                growing=0,
                block=(1, n, 1),
                origin=(replica, 0),
                chains=1,
            )
    if sources:
        _create_viewer(handle, header, sources, shared)


def _create_h5md(handle: h5py.File) -> None:
    top = handle.create_group("h5md")
    top.attrs["version"] = np.array(schema.H5MD_VERSION, np.int32)
    top.create_group("author").attrs["name"] = np.bytes_("mdnet")
    creator = top.create_group("creator")
    creator.attrs["name"] = np.bytes_("mdnet")
    creator.attrs["version"] = np.bytes_(__version__)


def _create_box(group: h5py.Group, dimension: int) -> h5py.Group:
    box = group.create_group("box")
    box.attrs["dimension"] = np.int32(dimension)
    box.attrs["boundary"] = np.array([b"none"] * dimension)
    return box


def _create_parameters(
    group: h5py.Group, header: Header, masses: npt.NDArray[np.float64]
) -> dict[str, h5py.Dataset]:
    """Mass, id and species of the stored parameters, in the smallest types."""
    full = [header.layout[name][0] for name in header.selected]
    small = np.min_scalar_type(len(full))
    lengths = [s.stop - s.start for s in full]
    species = np.repeat(np.arange(len(full), dtype=small), lengths)
    index = np.concatenate([np.arange(s.start, s.stop) for s in full])
    kind: Any = small
    if sum(len(name.encode()) + 16 for name in header.selected) < _MAX_ENUM_BYTES:
        names = {name: i for i, name in enumerate(header.selected)}
        kind = h5py.enum_dtype(names, basetype=small)
    mass = masses[index]
    if np.all(mass == mass[0]):  # a fill value: no storage
        settings = {"shape": mass.shape, "dtype": mass.dtype, "fillvalue": mass[0]}
    else:
        settings = {"data": mass}
    return {
        "mass": group.create_dataset("mass", **settings),
        "id": group.create_dataset(
            "id", data=index, dtype=np.int32 if header.size < 2**31 else np.int64
        ),
        "species": group.create_dataset("species", data=species, dtype=kind),
    }


def _create_viewer(
    handle: h5py.File,
    header: Header,
    sources: dict[str, h5py.Dataset],
    shared: dict[str, Any],
) -> None:
    n = header.stored_size
    group = handle.create_group(f"{schema.PARTICLES}/{schema.VIEWER}")
    _create_box(group, 3)
    for name in ("mass", "id", "species"):
        group[name] = shared[name]
    time = None
    for quantity, source in sources.items():
        kind = schema.QUANTITIES[quantity]
        element = group.create_group(kind.element)
        element["step"] = handle[schema.STEP]
        if time is None:
            time = _time_view(element, handle[schema.TIME])
        else:
            element["time"] = time
        value = _view(
            element,
            "value",
            source,
            extent=(0, n, 3),
            growing=0,
            block=(1, n, 1),
            origin=(0, 0),
            chains=1,
        )
        value.attrs["unit"] = kind.unit  # stock viewers want variable length here


def _time_view(group: h5py.Group, time: h5py.Dataset) -> h5py.Dataset:
    """Make a view of the time axis that may carry a unit the true axis has not."""
    space = h5s.create_simple((0,), (h5s.UNLIMITED,))
    chosen, mapped = space.copy(), time.id.get_space()
    for one in (chosen, mapped):
        one.select_hyperslab((0,), (h5s.UNLIMITED,), block=(1,))
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_virtual(chosen, b".", time.name.encode(), mapped)
    kind = h5t.py_create(time.dtype)
    view = h5py.Dataset(h5d.create(group.id, b"time", kind, space, plist))
    view.attrs["unit"] = "ps"
    return view


def posterior_names(tensors: Sequence[str]) -> dict[str, str]:
    """Variable name of each tensor: no slashes, no clash with the dimensions."""
    out: dict[str, str] = {}
    for name in tensors:
        variable = name.replace("/", ".")
        while variable in (*out.values(), "chain", "draw"):
            variable += "_"
        out[name] = variable
    return out


def create_statistics(handle: h5py.File, header: Header) -> None:
    """Write /sample_stats (empty) and, where positions are stored, /posterior."""
    stats = handle.create_group(schema.SAMPLE_STATS)
    chain = stats.create_dataset("chain", data=np.arange(header.replicas))
    draw = stats.create_dataset(
        "draw", shape=(0,), maxshape=(None,), chunks=(1024,), dtype=np.int64
    )
    chain.make_scale("chain")
    draw.make_scale("draw")
    groups = [stats]
    if "positions" in header.store:
        groups.append(_create_posterior(handle, header, chain, draw))
    for group in groups:
        group.attrs["inference_library"] = "mdnet"
        group.attrs["inference_library_version"] = __version__


def _create_posterior(
    handle: h5py.File, header: Header, chain: h5py.Dataset, draw: h5py.Dataset
) -> h5py.Group:
    group = handle.create_group(schema.POSTERIOR)
    group["chain"], group["draw"] = chain, draw
    source = handle[schema.QUANTITIES["positions"].path]
    names = posterior_names(header.selected)
    r = header.replicas
    for name, (where, shape) in header.stored_layout.items():
        view = _view(
            group,
            names[name],
            source,
            extent=(r, 0, *shape),
            growing=1,
            block=(r, 1, *shape),
            origin=(0, where.start),
            chains=r,
        )
        view.dims[0].attach_scale(chain)
        view.dims[1].attach_scale(draw)
        for axis, length in enumerate(shape):
            scale = group.create_dataset(
                f"{names[name]}_dim_{axis}", shape=(length,), dtype=">f4"
            )
            scale.make_scale(_NO_VARIABLE + b"%10d" % length)
            view.dims[2 + axis].attach_scale(scale)
    return group
