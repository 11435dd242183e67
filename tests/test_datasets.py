"""Loaders of data sets: files of every accepted kind, downloads, and what can fail."""

import gzip
import hashlib
import http.server
import threading
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import mdnet
from mdnet import datasets
from mdnet.errors import PotentialError

LOADERS = {
    "mnist": datasets.load_mnist,
    "fashion_mnist": datasets.load_fashion_mnist,
    "notmnist": datasets.load_notmnist,
}


def idx(array, code):
    head = bytes([0, 0, code, array.ndim])
    head += b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return {
        "train": (rng.integers(0, 256, (7, 3, 4), np.uint8), np.arange(7) % 3),
        "test": (rng.integers(0, 256, (5, 3, 4), np.uint8), np.arange(5) % 3),
    }


def write(folder, images, names, compress):
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in names.items():
        which, kind = part.split()
        array = images[which][0 if kind == "images" else 1].astype(np.uint8)
        data = idx(array, 8)
        data = gzip.compress(data) if compress else data
        (folder / name).write_bytes(data)


ORIGINAL = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
OWN = {
    "train images": "mnist-train10k-images.gz",
    "train labels": "mnist-train10k-labels.gz",
    "test images": "mnist-test-images.gz",
    "test labels": "mnist-test-labels.gz",
}


def check(found, images):
    for part, X, y in (
        ("train", found.X, found.y),
        ("test", found.X_test, found.y_test),
    ):
        pixels, labels = images[part]
        assert X.dtype == np.float32
        np.testing.assert_allclose(X, pixels.reshape(len(X), 12) / 255, rtol=1e-6)
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("names", [ORIGINAL, OWN], ids=["original", "own"])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_in_a_folder(names, compress, images, tmp_path):
    write(tmp_path, images, names, compress)
    check(datasets.load_mnist(tmp_path), images)
    whole = datasets.load_mnist(str(tmp_path), flatten=False)
    np.testing.assert_allclose(whole.X * 255, images["train"][0], rtol=1e-6)


def test_an_npz(images, tmp_path):
    np.savez(
        tmp_path / "any.npz",
        x_train=images["train"][0],
        y_train=images["train"][1],
        x_test=images["test"][0],
        y_test=images["test"][1],
    )
    check(datasets.load_mnist(tmp_path), images)
    check(datasets.load_fashion_mnist(tmp_path / "any.npz"), images)
    np.savez(tmp_path / "wrong.npz", x=np.zeros(3))
    with pytest.raises(PotentialError, match="x_train"):
        datasets.load_mnist(tmp_path / "wrong.npz")


@pytest.mark.parametrize("folder", ["fashion_mnist", "fashion-mnist", "."])
def test_the_environment_names_a_folder(folder, images, tmp_path, monkeypatch):
    write(tmp_path / folder, images, ORIGINAL, True)
    monkeypatch.setenv("MDNET_DATA", str(tmp_path))
    check(datasets.load_fashion_mnist(download=False), images)


def test_a_set_without_a_split(images, tmp_path):
    names = {"train images": "images.gz", "train labels": "labels.gz"}
    write(tmp_path, images, names, True)
    found = datasets.load_notmnist(tmp_path)
    assert found.X.shape == (7, 12)
    assert found.X_test.shape == (0, 12)
    assert found.y_test.shape == (0,)


@pytest.mark.parametrize("name", LOADERS)
def test_nothing_found(name, tmp_path, monkeypatch):
    """The message has the places, what was looked for, and the ways to give it."""
    monkeypatch.delenv("MDNET_DATA", raising=False)
    with pytest.raises(PotentialError) as caught:
        LOADERS[name](tmp_path / "none")
    text = str(caught.value)
    for part in (str(tmp_path / "none"), "IDX", f"load_{name}(path=", "MDNET_DATA"):
        assert part in text
    monkeypatch.setenv("MDNET_DATA", str(tmp_path))
    settings = {} if name == "notmnist" else {"download": False}
    with pytest.raises(PotentialError, match=name):
        LOADERS[name](**settings)


# --- damaged files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "dtype"),
    [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")],
)
def test_every_type_of_idx(code, dtype, tmp_path):
    array = (np.arange(24) - 5).astype(dtype).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx(array, code))
    found = datasets.read_idx(tmp_path / "a")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:6], "cut short"),
        (lambda data: data + b"x", "cut short"),
        (lambda data: b"PK" + data[2:], "IDX"),
        (lambda data: b"", "IDX"),
        (lambda data: data[:2] + b"\x05" + data[3:], "IDX"),
        (lambda data: gzip.compress(data)[:-9], "gzip"),
    ],
)
def test_damaged_idx(change, message, tmp_path):
    whole = idx(np.arange(6, dtype=np.uint8).reshape(2, 3), 8)
    (tmp_path / "a").write_bytes(whole)
    assert datasets.read_idx(tmp_path / "a").shape == (2, 3)
    (tmp_path / "a").write_bytes(change(whole))
    with pytest.raises(PotentialError, match=message):
        datasets.read_idx(tmp_path / "a")


def test_files_that_do_not_belong_together(images, tmp_path):
    images["train"] = images["train"][0], images["train"][1][:-1]
    write(tmp_path, images, ORIGINAL, False)
    with pytest.raises(PotentialError, match="belong together"):
        datasets.load_mnist(tmp_path)


# --- downloads -------------------------------------------------------------------


@pytest.fixture
def server(images, tmp_path, monkeypatch):
    """MNIST at a server of our own, with sums of its own; yields folder and cache."""
    pytest.importorskip("pooch")
    site, cache = tmp_path / "site", tmp_path / "cache"
    write(site, images, {k: f"{v}.gz" for k, v in ORIGINAL.items()}, True)
    sums = {
        part: hashlib.md5((site / f"{name}.gz").read_bytes()).hexdigest()
        for part, name in ORIGINAL.items()
    }

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(site))

        def log_message(self, *args):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{running.server_port}/"
        origin = replace(datasets._MNIST, url=url, sums=sums)
        monkeypatch.setattr(datasets, "_MNIST", origin)
        monkeypatch.setattr(datasets, "_cache", lambda: cache)
        monkeypatch.delenv("MDNET_DATA", raising=False)
        yield site, cache
        running.shutdown()
        thread.join()


def test_download(server, images):
    site, cache = server
    check(datasets.load_mnist(), images)
    for file in site.iterdir():
        file.unlink()
    check(datasets.load_mnist(), images)  # from the cache
    assert len(list((cache / "mnist").iterdir())) == 4


def test_a_corrupt_download_leaves_nothing(server):
    site, cache = server
    (site / "train-images-idx3-ubyte.gz").write_bytes(b"not what it was")
    with pytest.raises(PotentialError, match="not the file that was published") as e:
        datasets.load_mnist()
    assert "load_mnist(path=" in str(e.value)
    assert "MDNET_DATA" in str(e.value)
    assert not [f for f in cache.rglob("*") if f.is_file()]


def test_a_file_that_is_not_there(server):
    site, cache = server
    (site / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(PotentialError, match="could not be downloaded"):
        datasets.load_mnist()
    assert len([f for f in cache.rglob("*") if f.is_file()]) == 3


def test_without_pooch(monkeypatch):
    import sys

    monkeypatch.delenv("MDNET_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(PotentialError, match=r"examples.*MDNET_DATA"):
        datasets.load_mnist()


# --- regression sets, digits -----------------------------------------------------


def test_uci(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10, 3)), rng.normal(size=10)
    orders = np.stack([rng.permutation(10) for _ in range(4)]).astype(np.int32)
    file = tmp_path / "uci" / "bostonHousing.npz"
    file.parent.mkdir()
    np.savez(file, X=X, y=y, train=orders[:, :8], test=orders[:, 8:])
    for found in (
        datasets.load_uci("boston", split=2, path=file),
        datasets.load_uci("bostonHousing", split=2, path=file.parent),
    ):
        np.testing.assert_array_equal(found.X, X[orders[2, :8]])
        np.testing.assert_array_equal(found.y_test, y[orders[2, 8:]])
    monkeypatch.setenv("MDNET_DATA", str(tmp_path))
    every = datasets.load_uci("boston", split=None)
    np.testing.assert_array_equal(every.X, X)
    assert every.X_test.shape == (0, 3)
    for wrong in (4, -1, 1.5):
        with pytest.raises(PotentialError, match="0 to 3"):
            datasets.load_uci("boston", split=wrong)
    with pytest.raises(PotentialError, match=r"yacht\.npz"):
        datasets.load_uci("yacht")
    np.savez(file, X=X, y=y)
    with pytest.raises(PotentialError, match="train"):
        datasets.load_uci("boston")


def test_digits():
    pytest.importorskip("sklearn")
    found = mdnet.datasets.load_digits()
    assert found.X.max() == 1
    assert set(found.y) == set(found.y_test) == set(range(10))
    whole = np.concatenate([found.X, found.X_test])
    assert len(np.unique(whole, axis=0)) == 1797  # nothing in both parts
    with pytest.raises(FrozenInstanceError):
        found.name = "other"
    for text in (found.description, found.source, found.licence):
        assert text in repr(found)
