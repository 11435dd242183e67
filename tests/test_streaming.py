"""Data that stay where they are: the same rows, forces and runs as from memory."""

import pickle
import threading

import h5py
import numpy as np
import pytest

import mdnet
from mdnet import integrators, potentials
from mdnet.backend import Backend, resolve
from mdnet.errors import PotentialError
from mdnet.potentials import _sources
from mdnet.potentials._feed import Feed
from mdnet.potentials._sources import FileSource, H5Source, IndexedSource, Source
from mdnet.potentials._stream_evaluator import StreamEvaluator

N, WIDTH = 203, 6
ORDERS = ["shuffle", "replacement", "without", "symmetric", "stratified", "blocks"]


def table(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (10 * rng.normal(size=(N, WIDTH))).astype(dtype) / dtype(8), (
        rng.integers(0, 3, N)
    )


class Pairs:
    """A data set of pairs, as torch has them."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i].reshape(2, 3), self.y[i]


class Lists(Pairs):
    """The same, several at a time."""

    def __getitems__(self, index):
        return [(self.X[i], self.y[i]) for i in index]


@pytest.fixture(autouse=True)
def stream_everything(monkeypatch):
    monkeypatch.setattr(_sources, "STREAM_FROM", 0)


@pytest.fixture
def files(tmp_path):
    """One table in every kind of file, X -> (data, class of source)."""
    X, y = table()
    stored = np.memmap(tmp_path / "x", np.float32, "w+", shape=(N + 20, WIDTH))
    stored[10 : N + 10] = X
    stored.flush()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"], file["y"] = X, y
        file.create_dataset("chunks", data=X, chunks=(16, WIDTH), compression="lzf")
        file["images"] = X.reshape(N, 2, 3)
    file = h5py.File(tmp_path / "a.h5", "r")
    opened = np.memmap(tmp_path / "x", np.float32, "r", shape=(N + 20, WIDTH))
    yield {
        "memmap": ((opened[10 : N + 10], y), FileSource),
        "h5py": ((file["plain"], file["y"]), FileSource),
        "chunks": ((file["chunks"], y), H5Source),
        "images": ((file["images"], y), FileSource),
        "items": (Pairs(X, y), IndexedSource),
        "lists": (Lists(X, y), IndexedSource),
    }
    file.close()


KINDS = ["memmap", "h5py", "chunks", "images", "items", "lists"]


def posterior(data, **settings):
    net = potentials.MLP([WIDTH, 5, 3])
    return potentials.Posterior(net, "categorical", data=data, **settings)


def compare(U, V, precision="single", orders=ORDERS, tolerance=0.0, backend=None):
    """Forces of the same calls from two sources of the same rows."""
    b = backend or resolve("cpu", precision)
    q = U.initial(3, seed=2).astype(b.state_dtype)
    outs = [np.empty_like(q), np.empty_like(q)]
    energies = np.empty((2, 3))
    for order in orders:
        given = {"block": 16, "buffer": 60} if order == "blocks" else {}
        for shared in (False, True) if order == "shuffle" else (False,):
            pair = [
                W.minibatch(20, order, shared, **given).evaluator(b, 3, 5)
                for W in (U, V)
            ]
            for call in (0, 1, 2, 3, 9, 10, 11, 2, 40):
                for evaluator, out, energy in zip(pair, outs, energies, strict=True):
                    evaluator.forces(q, out, call, energy)
                scale = tolerance * np.abs(outs[0]).max()
                np.testing.assert_allclose(outs[1], outs[0], rtol=0, atol=scale)
                np.testing.assert_allclose(energies[1], energies[0], rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_those_from_memory(kind, files):
    """Bit for bit with batches; to rounding with all data, summed in pieces."""
    data, source = files[kind]
    U, V = posterior(table()), posterior(data)
    assert type(V._X) is source
    compare(U, V)
    q = U.initial(3)
    np.testing.assert_allclose(V.energy(q), U.energy(q), rtol=1e-13)
    np.testing.assert_allclose(V.gradient(q), U.gradient(q), atol=1e-11)
    both = V.energy_and_gradient(q)
    np.testing.assert_array_equal(both[0], V.energy(q))
    np.testing.assert_array_equal(both[1], V.gradient(q))
    np.testing.assert_array_equal(V.predict(q, U._X[:5]), U.predict(q, U._X[:5]))
    if source is not FileSource or kind == "images":
        return
    assert V.describe() == U.describe()


def test_all_data_in_many_pieces(files, monkeypatch):
    monkeypatch.setattr(StreamEvaluator, "ROOM", 50 * WIDTH * 8)
    U, V = posterior(table()), posterior(files["memmap"][0])
    q = U.initial(3)
    np.testing.assert_allclose(V.energy(q), U.energy(q), rtol=1e-13)
    np.testing.assert_allclose(V.gradient(q), U.gradient(q), atol=1e-11)
    # Negative control: the prior counted once for each of the five pieces.
    prior = U.prior.gradient(q, U.layout)
    assert np.abs(V.gradient(q) + 4 * prior - U.gradient(q)).max() > 0.1


@pytest.mark.parametrize(
    ("likelihood", "settings"),
    [
        ("categorical", {"weights": np.linspace(0.5, 2, N)}),
        ("categorical", {"likelihood_temperature": 0.5}),
        ("categorical", {"prior": potentials.StudentTPrior()}),
    ],
)
@pytest.mark.parametrize("cuda", [False, True])
def test_other_engines(likelihood, settings, cuda, files, monkeypatch):
    """Weights, temperatures and the engine of devices go through the same pieces."""
    monkeypatch.setattr(StreamEvaluator, "ROOM", 50 * WIDTH * 8)
    net = potentials.MLP([WIDTH, 5, 3])
    U, V = (
        potentials.Posterior(net, likelihood, data=data, **settings)
        for data in (table(), files["memmap"][0])
    )
    b = Backend("cuda", "double", np, simulated=True) if cuda else None
    orders = ["stratified", "blocks"] if cuda else ORDERS
    compare(U, V, "double", orders, 1e-12, b)
    q = U.initial(3)
    np.testing.assert_allclose(V.energy(q), U.energy(q), rtol=1e-12)
    np.testing.assert_allclose(V.gradient(q), U.gradient(q), atol=1e-10)


@pytest.mark.parametrize("order", ["stratified", "blocks"])
def test_plans_use_the_rows_that_they_say(order):
    X, y = table()
    U = posterior((X, y))
    given = {"block": 16, "buffer": 60} if order == "blocks" else {}
    Ub = U.minibatch(20, order, **given)
    evaluator = Ub.evaluator(resolve("cpu", "double"), 3, 5)
    q = U.initial(3)
    out = np.empty_like(q)
    prior = U.prior.gradient(q, U.layout)
    for call in (0, 1, 2, 3, 9, 10, 25):
        evaluator.forces(q, out, call)
        index = Ub.batch.plan.draw(5, 3, call, 20)
        for r in range(3):
            rows = posterior((X[index[r]], y[index[r]]), prior=None)
            want = N / 20 * rows.gradient(q[r]) + prior[r]
            np.testing.assert_allclose(out[r], -want, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64, ">f4", np.float16])
def test_types_as_stored(dtype, tmp_path):
    X, y = table(np.float64)
    X = np.abs(X).astype(dtype)
    X.tofile(tmp_path / "x")
    opened = np.memmap(tmp_path / "x", dtype, "r", shape=X.shape)
    compare(posterior((X.astype(np.float32), y)), posterior((opened, y)))


@pytest.mark.parametrize("kind", ["written", "copy on write", "columns"])
def test_maps_that_are_not_plain_rows(kind, tmp_path):
    X, y = table()
    if kind == "columns":
        X.T.tofile(tmp_path / "x")
        opened = np.memmap(tmp_path / "x", np.float32, "r", shape=(WIDTH, N)).T
    else:
        X.tofile(tmp_path / "x")
        mode = "r+" if kind == "written" else "c"
        opened = np.memmap(tmp_path / "x", np.float32, mode, shape=X.shape)
        X[7] = opened[7] = 3.0
    V = posterior((opened, y))
    assert isinstance(V._X, FileSource) == (kind == "written")
    compare(posterior((X, y)), V, orders=["shuffle", "blocks"])


def test_rows_are_read_in_runs(files):
    """Any rows, in any order, some of them twice."""
    X, _ = table()
    rng = np.random.default_rng(3)
    index = rng.integers(0, N, 300)
    for data, _ in files.values():
        source = posterior(data)._X
        for dtype in (np.float32, np.float64):
            out = np.empty((300, WIDTH), dtype)
            source.gather(index, out)
            np.testing.assert_array_equal(out, X[index].astype(dtype))
            source.gather(np.arange(30, 50), out[:20])
            np.testing.assert_array_equal(out[:20], X[30:50].astype(dtype))


def test_small_files_are_taken_whole(files, monkeypatch):
    monkeypatch.setattr(_sources, "STREAM_FROM", 2**28)
    U = posterior(table())
    for data, _ in files.values():
        V = posterior(data)
        assert not isinstance(V._X, Source)
        compare(U, V, orders=["shuffle"])


def test_large_files_are_read_once(files, monkeypatch):
    """Checks, digest and labels in one pass; nothing else before the first force."""
    read = []
    original = FileSource.read

    def counted(self, first, out):
        read.extend(range(first, first + len(out)))
        original(self, first, out)

    monkeypatch.setattr(FileSource, "read", counted)
    V = posterior(files["memmap"][0])
    V.describe()
    V.minibatch(20, "blocks").evaluator(resolve("cpu"), 2)
    V.minibatch(20).evaluator(resolve("cpu"), 2)
    assert sorted(read) == list(range(N))
    V.energy(V.initial(2))
    assert sorted(read) == sorted([*range(N), *range(N)])


def test_sources_travel(files):
    """Files go to other processes by name; what was found out goes along or not."""
    V = posterior(files["memmap"][0])
    W = pickle.loads(pickle.dumps(V))
    assert V.describe() == W.describe()
    compare(V, W, orders=["blocks"])


# --- reading ahead ---------------------------------------------------------------


def test_the_next_call_is_gathered_by_a_thread(files, monkeypatch):
    filled = []
    original = Feed._fill

    def noted(self, call, room):
        filled.append((call, threading.current_thread() is threading.main_thread()))
        original(self, call, room)

    monkeypatch.setattr(Feed, "_fill", noted)
    V = posterior(files["memmap"][0])
    evaluator = V.minibatch(20).evaluator(resolve("cpu", "double"), 3, 5)
    q = V.initial(3)
    out = np.empty_like(q)
    for call in (4, 5, 6, 0, 1):
        evaluator.forces(q, out, call)
    evaluator.energies(q, np.empty(3))
    here = [call for call, main in filled if main]
    assert here == [4, 0]
    ahead = {call for call, main in filled if not main}
    assert {5, 6, 7, 1} <= ahead


def test_what_fails_in_the_thread_is_told(files, tmp_path):
    data, _ = files["chunks"]
    V = posterior(data)
    evaluator = V.minibatch(20).evaluator(resolve("cpu", "double"), 3, 5)
    q = V.initial(3)
    out = np.empty_like(q)
    evaluator.forces(q, out, 0)
    data[0].file.close()

    def go_on():  # call 1 may have been gathered already
        for call in (1, 2, 3):
            evaluator.forces(q, out, call)

    with pytest.raises(PotentialError, match="keep its file open"):
        go_on()


@pytest.mark.parametrize("order", ["shuffle", "blocks"])
def test_a_file_that_shrinks(order, tmp_path):
    X, y = table()
    X.tofile(tmp_path / "x")
    V = posterior((np.memmap(tmp_path / "x", np.float32, "r", shape=X.shape), y))
    with open(tmp_path / "x", "r+b") as file:
        file.truncate(100)
    evaluator = V.minibatch(20, order).evaluator(resolve("cpu"), 3, 5)
    q = V.initial(3).astype(np.float32)
    with pytest.raises(PotentialError, match="cut short"):
        evaluator.forces(q, np.empty_like(q), 0)


# --- whole runs ------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffle", "blocks"])
def test_runs_are_those_from_memory_and_resume(order, files, tmp_path):
    baoab = integrators.BAOAB(dt=0.01, temperature=1.0, friction=5.0)

    def simulation(data):
        Ub = posterior(data).minibatch(20, order)
        return Ub, mdnet.Simulation(Ub, baoab, replicas=3, seed=4, backend="cpu")

    _, here = simulation(table())
    here.run(60)
    Ub, there = simulation(files["memmap"][0])
    there.run(31, trajectory=tmp_path / "a.h5md", every=10)
    again = mdnet.Simulation.resume(tmp_path / "a.h5md", Ub)
    again.run(29)
    np.testing.assert_array_equal(again.state.positions, here.state.positions)
    # Negative control: another order of the rows.
    X, y = table()
    _, other = simulation((X[::-1], y[::-1]))
    other.run(60)
    assert not np.array_equal(other.state.positions, here.state.positions)


# --- data sets read by index -----------------------------------------------------


class Loader:
    """What a DataLoader shows."""

    batch_size = 4

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "NoneType: expected a pair"),
        (np.zeros((4, 2)), "expected a pair"),
        ((1, 2, 3), "expected a pair"),
        (iter([]), "expected a pair"),
        (Loader(Pairs(*table())), r"loader\.dataset"),
        ([(np.zeros(6), 0), (np.zeros(6), 0), (np.zeros(6), 1)], "expected a pair"),
    ],
)
def test_what_is_not_data(data, message):
    with pytest.raises(PotentialError, match=message):
        posterior(data)


def test_items_that_do_not_fit():
    X, y = table()

    class Bare(Pairs):
        def __getitem__(self, i):
            return self.X[i]

    class Ragged(Pairs):
        def __getitem__(self, i):
            return self.X[i][: 6 - (i == 50)], self.y[i]

    with pytest.raises(PotentialError, match=r"pair \(x, y\)"):
        posterior(Bare(X, y))
    with pytest.raises(PotentialError, match=r"data\[50\] has x of 5 numbers"):
        posterior(Ragged(X, y))
    with pytest.raises(PotentialError, match="NaN"):
        posterior(Pairs(np.where(X[9, 2] == X, np.nan, X), y))
    with pytest.raises(PotentialError, match="labels from 0 to 3"):
        posterior(Pairs(X, np.where(np.arange(N) == 70, 3, y)))


@pytest.mark.parametrize("size", [0, 2**28])
def test_torch(size, monkeypatch):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

    monkeypatch.setattr(_sources, "STREAM_FROM", size)
    X, y = table()
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))

    class Own(Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return tensors[i]

    class Endless(IterableDataset):
        def __iter__(self):
            return iter(tensors)

    U = posterior((X, y))
    for data in (tensors, Own()):
        compare(U, posterior(data), orders=["shuffle", "blocks"])
    for loader in (DataLoader(tensors, 8), DataLoader(Endless(), 8)):
        with pytest.raises(PotentialError, match=r"np\.concatenate"):
            posterior(loader)
    with pytest.raises(PotentialError, match="expected a pair"):
        posterior(Endless())
    # What the message advises.
    loader = DataLoader(Endless(), 8)
    rows = tuple(np.concatenate(parts) for parts in zip(*loader, strict=True))
    compare(U, posterior(rows), orders=["shuffle"])
