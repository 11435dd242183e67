"""The file in the hands of other programs: numbers equal to those written."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest

from mdnet.errors import TrajectoryError
from mdnet.io import TrajectoryWriter, open_trajectory

R, D, T = 3, 9, 40
LAYOUT = {
    "0.weight": (slice(0, 6), (2, 3)),
    "0.bias": (slice(6, 8), (2,)),
    "draw": (slice(8, 9), ()),  # the name of a dimension, and a scalar
}
MASS = np.array([0.5, 1.0, 2.0, 4.0, 1.0, 0.25, 8.0, 1.0, 1.0])
rng = np.random.default_rng(5)
Q, P, F = (rng.normal(size=(T, R, D)).astype(np.float32) for _ in range(3))
U, K = rng.normal(size=(2, T, R))
G = rng.normal(size=(T, R, 3))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("io") / "run.h5md"
    writer = TrajectoryWriter(
        path,
        layout=LAYOUT,
        replicas=R,
        size=D,
        mass=MASS,
        config={"potential": {"kind": "toy"}},
        store=("positions", "momenta", "forces"),
        block_bytes=2000,
    )
    with writer:
        for t in range(T):
            arrays = {"positions": Q[t], "momenta": P[t], "forces": F[t]}
            series = {
                "potential_energy": U[t],
                "kinetic_energy": K[t],
                "gradient": G[t],
            }
            writer.frame(10 * t, 0.5 * t, arrays, series)
            for i in range(10):
                writer.log(10 * t + i, 0.05 * (10 * t + i), {"heat": U[t]})
            if t % 7 == 0:
                writer.restart({"positions": Q[t]}, {"step": 10 * t})
    return str(path)


def test_plain_h5py(path):
    with h5py.File(path, "r") as f:
        assert json.loads(f["mdnet/config"][()]) == {"potential": {"kind": "toy"}}
        np.testing.assert_array_equal(f["h5md"].attrs["version"], [1, 1])
        for name in ("author", "creator"):
            value = f[f"h5md/{name}"].attrs.get_id("name")
            assert not value.get_type().is_variable_str()
        for r in range(R):
            group = f[f"particles/walker_{r:04d}"]
            assert group["box"].attrs["dimension"] == 1
            assert group["box"].attrs["boundary"].tolist() == [b"none"]
            np.testing.assert_array_equal(group["mass"], MASS)
            np.testing.assert_array_equal(group["id"], np.arange(D))
            np.testing.assert_array_equal(group["species"], [0] * 6 + [1] * 2 + [2])
            assert h5py.check_enum_dtype(group["species"].dtype) == {
                name: i for i, name in enumerate(LAYOUT)
            }
            for name, value in (("position", Q), ("velocity", P / MASS), ("force", F)):
                element = group[name]
                assert element["value"].shape == (T, D, 1)
                expected = value[:, r, :, None].astype(np.float32)
                np.testing.assert_array_equal(element["value"], expected)
                np.testing.assert_array_equal(element["step"], 10 * np.arange(T))
                np.testing.assert_array_equal(element["time"], 0.5 * np.arange(T))
        viewer = f["particles/trajectory"]
        assert viewer["box"].attrs["dimension"] == 3
        value = viewer["position/value"][:]
        np.testing.assert_array_equal(value[..., 0], Q[:, 0])
        assert not value[..., 1:].any()


def test_weights_are_stored_once(path):
    with h5py.File(path, "r") as f:
        real = []

        def collect(name, item):
            real_data = isinstance(item, h5py.Dataset) and not item.is_virtual
            if real_data and D in item.shape and item.size >= Q.size:
                real.append(name)

        f.visititems(collect)
    assert sorted(real) == [
        f"mdnet/frames/{n}" for n in ("forces", "positions", "velocities")
    ]


def test_mdanalysis(path):
    mda = pytest.importorskip("MDAnalysis")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no elements to guess masses from
        universe = mda.Universe(path)
    assert universe.trajectory.n_frames == T
    assert len(universe.atoms) == D
    for k in (0, 17, T - 1):
        ts = universe.trajectory[k]
        np.testing.assert_array_equal(ts.positions[:, 0], Q[k, 0])
        assert not ts.positions[:, 1:].any()
        np.testing.assert_array_equal(ts.velocities[:, 0], P[k, 0] / MASS)
        np.testing.assert_array_equal(ts.forces[:, 0], F[k, 0])
        np.testing.assert_array_equal(ts.data["potential_energy"], U[k])
        np.testing.assert_array_equal(ts.data["gradient"], G[k])
        assert ts.data["step"] == 10 * k
        assert ts.time == 0.5 * k
        assert ts.dimensions is None
    universe.trajectory.close()


def test_to_mdanalysis(path):
    pytest.importorskip("MDAnalysis")
    with open_trajectory(path) as run:
        universe = run.to_mdanalysis(replica=2)
        for bad in (-1, R):
            with pytest.raises(TrajectoryError, match="expected one of 0 to 2"):
                run.to_mdanalysis(replica=bad)
    np.testing.assert_array_equal(universe.atoms.masses, MASS)
    species = ["0.weight"] * 6 + ["0.bias"] * 2 + ["draw"]
    assert universe.atoms.names.tolist() == species
    assert len(universe.select_atoms("name 0.bias")) == 2
    for k in (0, 31):
        ts = universe.trajectory[k]
        np.testing.assert_array_equal(ts.positions[:, 0], Q[k, 2])
        np.testing.assert_array_equal(ts.velocities[:, 0], P[k, 2] / MASS)
        np.testing.assert_array_equal(ts.forces[:, 0], F[k, 2])
        assert ts.time == 0.5 * k


def test_pyh5md(path):
    pyh5md = pytest.importorskip("pyh5md")
    with pyh5md.File(path, "r") as f:
        for r in range(R):
            group = f.particles_group(f"walker_{r:04d}")
            position = pyh5md.element(group, "position")
            assert position.element_type == "TimeElement"
            np.testing.assert_array_equal(position.value[:, :, 0], Q[:, r])
            np.testing.assert_array_equal(position.step, 10 * np.arange(T))
            np.testing.assert_array_equal(position.time, 0.5 * np.arange(T))
            velocity = pyh5md.element(group, "velocity")
            np.testing.assert_array_equal(velocity.value[:, :, 0], P[:, r] / MASS)
            mass = pyh5md.element(group, "mass")
            np.testing.assert_array_equal(mass.value[:], MASS)
        energy = pyh5md.element(f["observables"], "potential_energy")
        np.testing.assert_array_equal(energy.value[:], U)
        np.testing.assert_array_equal(energy.step, 10 * np.arange(T))


def check_groups(posterior, stats, draw):
    chains = Q.swapaxes(0, 1)
    for name, (where, shape) in LAYOUT.items():
        variable = draw if name == "draw" else name
        expected = chains[:, :, where].reshape(R, T, *shape)
        assert posterior[variable].dims[:2] == ("chain", "draw")
        np.testing.assert_array_equal(posterior[variable].values, expected)
    np.testing.assert_array_equal(posterior["chain"].values, np.arange(R))
    np.testing.assert_array_equal(posterior["draw"].values, np.arange(T))
    np.testing.assert_array_equal(stats["lp"].values, -U.T)
    np.testing.assert_array_equal(stats["energy"].values, (U + K).T)
    np.testing.assert_array_equal(stats["kinetic_energy"].values, K.T)
    assert "gradient" not in stats


@pytest.mark.slow
def test_arviz(path):
    az = pytest.importorskip("arviz")
    from_file = az.from_netcdf(path)
    with open_trajectory(path) as run:
        copied = run.to_arviz()
    for idata in (from_file, copied):
        check_groups(idata.posterior, idata.sample_stats, "draw_")
        summary = az.summary(idata, var_names=["0.weight"])
        assert len(summary) == 6
        np.testing.assert_allclose(summary["mean"], Q[..., :6].mean((0, 1)), atol=6e-4)
    from_file.close()


def test_xarray_datatree(path):
    """What ArviZ from 1.0 on reads: one tree of all groups of the file."""
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*phony_dims.*")
        tree = xarray.open_datatree(path, engine="h5netcdf")
    check_groups(tree["posterior"], tree["sample_stats"], "draw_")
    tree.close()


def test_readers_of_another_process_while_writing(tmp_path):
    """No lock of ours keeps a program out that knows nothing of us."""
    path = tmp_path / "run.h5md"
    writer = TrajectoryWriter(path, layout=LAYOUT, replicas=R, size=D, config={})
    script = (
        "import h5py, sys; f = h5py.File(sys.argv[1], 'r');"
        "print(f['particles/walker_0001/position/value'].shape)"
    )
    with writer:
        for t in range(5):
            writer.frame(t, t, {"positions": Q[t]}, {})
        writer.flush()
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "(5, 9, 1)\n", done.stderr
        with h5py.File(path, "r") as f:  # and of this process
            np.testing.assert_array_equal(
                f["particles/walker_0001/position/value"][:, :, 0], Q[:5, 1]
            )


def test_missing_packages_are_named(path, monkeypatch):
    from mdnet.errors import BackendError

    with open_trajectory(path) as run:
        for module, call in (
            ("arviz", run.to_arviz),
            ("MDAnalysis", run.to_mdanalysis),
        ):
            monkeypatch.setitem(sys.modules, module, None)
            with pytest.raises(BackendError, match=rf"needs {module}.*install -e"):
                call()
