"""Data sets for examples and benchmarks, as arrays ready for a `Posterior`.

Files are looked for at ``path=``, then in the folder that the environment variable
``MDNET_DATA`` names; MNIST and Fashion-MNIST are downloaded where neither has them,
and checked against the sums below.  Images and labels are IDX files, plain or
compressed by gzip, or ``.npz`` with x_train, y_train, x_test and y_test; regression
sets are ``.npz`` with X, y and rows ``train`` and ``test`` of each split.

References
----------
Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proc. IEEE 86, 2278 (1998),
doi:10.1109/5.726791.
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747 (2017).
J. M. Hernandez-Lobato, R. P. Adams, "Probabilistic backpropagation for scalable
learning of Bayesian neural networks", ICML 2015 (the splits of the UCI sets).
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mdnet.errors import PotentialError

__all__ = [
    "Dataset",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_notmnist",
    "load_uci",
    "read_idx",
]

VARIABLE = "MDNET_DATA"
"""Environment variable with the folder of data files."""

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_FILES = {
    "train images": "train-images-idx3-ubyte.gz",
    "train labels": "train-labels-idx1-ubyte.gz",
    "test images": "t10k-images-idx3-ubyte.gz",
    "test labels": "t10k-labels-idx1-ubyte.gz",
}
_PATTERNS = {
    "train images": ("*train*images*", "images*"),
    "train labels": ("*train*labels*", "labels*"),
    "test images": ("*t10k*images*", "*test*images*"),
    "test labels": ("*t10k*labels*", "*test*labels*"),
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to learn from, rows to test on, and where they come from.

    Attributes
    ----------
    name : str
    X, y : (n, inputs) array, (n,) array
        Inputs, and classes or values.
    X_test, y_test : array
        Rows held out; none for sets without a split.
    description, source, licence : str
    """

    name: str
    X: np.ndarray[Any, Any] = field(repr=False)
    y: np.ndarray[Any, Any] = field(repr=False)
    X_test: np.ndarray[Any, Any] = field(repr=False)
    y_test: np.ndarray[Any, Any] = field(repr=False)
    description: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a set of images can be had: ``sums`` (md5) of its files, if it can."""

    name: str
    description: str
    source: str
    licence: str
    url: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)


_MNIST = _Origin(
    "mnist",
    "handwritten digits, 28 x 28 grey values in [0, 1], classes 0 to 9",
    "Y. LeCun, C. Cortes, C. J. C. Burges",
    "CC BY-SA 3.0",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    {
        "train images": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train labels": "d53e105ee54ea40749a09fcbcd1e9432",
        "test images": "9fb629c4189551a2d022fa330f9573f3",
        "test labels": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
_FASHION = _Origin(
    "fashion_mnist",
    "articles of clothing, 28 x 28 grey values in [0, 1], 10 classes",
    "H. Xiao, K. Rasul, R. Vollgraf, Zalando Research",
    "MIT",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train images": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train labels": "25c81989df183df01b3e8a0aad5dffbe",
        "test images": "bef4ecab320f06d8554ea6380940ec79",
        "test labels": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
_NOTMNIST = _Origin(
    "notmnist",
    "letters A to J of many fonts, 28 x 28 grey values in [0, 1]: inputs that no digit "
    "classifier has seen",
    "Y. Bulatov",
    "not stated by its author",
)
_UCI = {
    "boston": "bostonHousing",
    "naval": "naval-propulsion-plant",
    "protein": "protein-tertiary-structure",
    "power": "power-plant",
    "wine": "wine-quality-red",
}


def load_digits() -> Dataset:
    """8 x 8 digits that ship inside scikit-learn; every fifth row is for testing.

    Returns
    -------
    Dataset
        1,438 and 359 rows of 64 values in [0, 1], float32; classes 0 to 9.

    Raises
    ------
    PotentialError
        scikit-learn is not installed.

    Examples
    --------
    >>> from mdnet import datasets
    >>> digits = datasets.load_digits()
    >>> digits.X.shape, digits.X_test.shape
    ((1438, 64), (359, 64))
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise PotentialError(
            "load_digits: the digits ship inside scikit-learn, which is not "
            "installed: python -m pip install -e '.[examples]'"
        ) from error
    found = load()
    X, y = (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    held = np.arange(len(y)) % 5 == 4
    return Dataset(
        "digits",
        X[~held],
        y[~held],
        X[held],
        y[held],
        "handwritten digits, 8 x 8 grey values in [0, 1], classes 0 to 9",
        "E. Alpaydin, C. Kaynak, UCI repository, through scikit-learn",
        "CC BY 4.0",
    )


def load_mnist(
    path: str | Path | None = None, *, download: bool = True, flatten: bool = True
) -> Dataset:
    """MNIST's handwritten digits: 60,000 to learn from, 10,000 to test on.

    Parameters
    ----------
    path : path, optional
        Folder with IDX files, or an ``.npz``.  Names are those of the original files
        or others with train, t10k or test, images and labels in them.
    download : bool
        Fetch the files (11 MB) where none are found; needs pooch.
    flatten : bool
        Rows of 784 pixels, and not 28 x 28 images.

    Returns
    -------
    Dataset
        Pixels as float32 in [0, 1], classes as int64.

    Raises
    ------
    PotentialError
        Nothing found, a file that is damaged, or a download that failed.
    """
    return _images(_MNIST, path, download, flatten)


def load_fashion_mnist(
    path: str | Path | None = None, *, download: bool = True, flatten: bool = True
) -> Dataset:
    """Fashion-MNIST: as `load_mnist`, articles of clothing (31 MB)."""
    return _images(_FASHION, path, download, flatten)


def load_notmnist(path: str | Path | None = None, *, flatten: bool = True) -> Dataset:
    """notMNIST: as `load_mnist`, letters A to J; cannot be downloaded from here."""
    return _images(_NOTMNIST, path, False, flatten)


def load_uci(
    name: str, split: int | None = 0, path: str | Path | None = None
) -> Dataset:
    """Regression set of the UCI repository with one of its standard splits.

    Parameters
    ----------
    name : str
        File name without ``.npz``, or "boston", "concrete", "naval", "power",
        "protein", "wine", "yacht".
    split : int or None
        Which of the splits; None for all rows, none of them held out.
    path : path, optional
        The file, or a folder with it.

    Returns
    -------
    Dataset
        Columns and targets as measured, float64, not standardised.

    Raises
    ------
    PotentialError
        Nothing found, a file without X, y, train and test, or a split beyond the last.
    """
    file = _UCI.get(name, name)
    tried: list[str] = []
    found = None
    for folder in _folders(path, "uci", tried):
        candidate = folder if folder.suffix == ".npz" else folder / f"{file}.npz"
        if candidate.is_file():
            found = candidate
            break
    if found is None:
        raise _missing("load_uci", f"{file}.npz with X, y, train and test", tried, "")
    arrays = _npz(found, ("X", "y", "train", "test"))
    X, y, train, test = (arrays[key] for key in ("X", "y", "train", "test"))
    rows, held = np.arange(len(y)), np.arange(0)
    if split is not None:
        if not isinstance(split, (int, np.integer)) or not 0 <= split < len(train):
            raise PotentialError(
                f"split={split!r}: expected 0 to {len(train) - 1}, the splits of "
                f"{found.name}, or None for all rows"
            )
        rows, held = train[split], test[split]
    return Dataset(
        file,
        X[rows].astype(np.float64),
        y[rows].astype(np.float64),
        X[held].astype(np.float64),
        y[held].astype(np.float64),
        f"regression, {X.shape[1]} inputs, {len(train)} splits",
        "UCI repository; splits of Hernandez-Lobato and Adams (2015)",
        "as stated by the UCI repository",
    )


def read_idx(path: str | Path) -> np.ndarray[Any, Any]:
    """Read one IDX file, plain or compressed by gzip.

    Parameters
    ----------
    path : path

    Returns
    -------
    ndarray
        As stored, in the machine's byte order.

    Raises
    ------
    PotentialError
        Not an IDX file, or one that is cut short.
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise PotentialError(
                f"{path}: its gzip compression is damaged ({error}); fetch it again"
            ) from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise PotentialError(
            f"{path}: begins with {raw[:4]!r}, expected an IDX file: two zero bytes, "
            "a type and a number of axes"
        )
    kind, axes = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    shape = np.frombuffer(raw, ">u4", axes, 4) if len(raw) >= 4 + 4 * axes else None
    wanted = (
        None if shape is None else 4 + 4 * axes + int(np.prod(shape)) * kind.itemsize
    )
    if shape is None or wanted != len(raw):
        raise PotentialError(
            f"{path}: has {len(raw)} bytes, expected {wanted} from its header; it was "
            "cut short: fetch it again"
        )
    values = np.frombuffer(raw, kind, offset=4 + 4 * axes)
    return values.reshape(shape).astype(kind.newbyteorder("="))


def _folders(path: str | Path | None, name: str, tried: list[str]) -> list[Path]:
    """Places to look at, the first that is right wins; ``tried`` is for the message."""
    if path is not None:
        places = [Path(path)]
    elif os.environ.get(VARIABLE):
        root = Path(os.environ[VARIABLE])
        places = list({root / n: 0 for n in (name, name.replace("_", "-"), "")})
    else:
        places = []
    tried += [str(place) for place in places]
    return places


def _missing(function: str, what: str, tried: list[str], more: str) -> PotentialError:
    """What was looked for, where, and the ways to provide it."""
    where = f"not found in {', '.join(tried)}" if tried else "no place was named"
    return PotentialError(
        f"{function}: {what}: {where}.  Give a folder, {function}(path='...'), or set "
        f"the environment variable {VARIABLE} to one{more}"
    )


def _npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (KeyError, ValueError, OSError) as error:
        raise PotentialError(
            f"{path}: expected arrays {', '.join(names)} ({error})"
        ) from error


def _images(
    origin: _Origin, path: str | Path | None, download: bool, flatten: bool
) -> Dataset:
    function = f"load_{origin.name}"
    tried: list[str] = []
    arrays: dict[str, np.ndarray[Any, Any]] | None = None
    for folder in _folders(path, origin.name, tried):
        arrays = _local(folder)
        if arrays is not None:
            break
    if arrays is None and path is None and download and origin.sums:
        arrays = {part: read_idx(_fetch(origin, part)) for part in _FILES}
    if arrays is None:
        more = (
            f"; it can be downloaded too: {function}() with pooch installed"
            if origin.sums
            else "; it cannot be downloaded from here"
        )
        what = "IDX files of images and labels, or an .npz"
        raise _missing(function, what, tried, more)
    X, y = _pair(origin.name, arrays, "train", flatten)
    if "test images" in arrays:
        X_test, y_test = _pair(origin.name, arrays, "test", flatten)
    else:
        X_test, y_test = X[:0], y[:0]
    return Dataset(
        origin.name,
        X,
        y,
        X_test,
        y_test,
        origin.description,
        origin.source,
        origin.licence,
    )


def _local(folder: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """Arrays of a folder or an ``.npz``; None if it has no images."""
    archives = [folder] if folder.suffix == ".npz" else sorted(folder.glob("*.npz"))
    found = {}
    for part, patterns in _PATTERNS.items():
        for pattern in patterns:
            files = [f for f in sorted(folder.glob(pattern)) if f.suffix != ".npz"]
            if files and part not in found:
                found[part] = files[0]
    if {"train images", "train labels"} <= set(found):
        return {part: read_idx(file) for part, file in found.items()}
    if archives and archives[0].is_file():
        names = ("x_train", "y_train", "x_test", "y_test")
        arrays = _npz(archives[0], names)
        return dict(zip(_FILES, (arrays[name] for name in names), strict=True))
    return None


def _pair(
    name: str, arrays: Mapping[str, np.ndarray[Any, Any]], part: str, flatten: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    images, labels = arrays[f"{part} images"], arrays.get(f"{part} labels")
    if labels is None or images.ndim != 3 or labels.shape != images.shape[:1]:
        shape = "none" if labels is None else labels.shape
        raise PotentialError(
            f"{name}: {part} images have shape {images.shape} and labels {shape}: "
            "expected (n, rows, columns) and (n,); do both files belong together?"
        )
    X = images.astype(np.float32)
    if images.dtype.kind in "iu":
        X /= 255
    return X.reshape(len(X), -1) if flatten else X, labels.astype(np.int64)


def _fetch(origin: _Origin, part: str) -> Path:
    """Path of one file in the cache, downloaded and checked if it is not there."""
    function, file = f"load_{origin.name}", _FILES[part]
    ways = (
        f"give a folder that has the files, {function}(path='...'), or set the "
        f"environment variable {VARIABLE} to one"
    )
    try:
        import pooch
    except ImportError as error:
        raise PotentialError(
            f"{function}: no files were found, and to download them pooch is needed: "
            f"python -m pip install -e '.[examples]'; or {ways}"
        ) from error
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(
                origin.url + file,
                known_hash=f"md5:{origin.sums[part]}",
                fname=file,
                path=_cache() / origin.name,
            )
        )
    except Exception as error:  # of pooch, requests or the system: many kinds
        raise PotentialError(
            f"{function}: {origin.url}{file} could not be downloaded or is not the "
            f"file that was published ({error}); try again, or {ways}"
        ) from error


def _cache() -> Path:
    """Folder of downloaded files."""
    import pooch

    return Path(pooch.os_cache("mdnet"))
