"""Philox against its published vectors; normals against their exact moments."""

import math

import numpy as np
import pytest

from mdnet import random
from mdnet.errors import MdnetError

# Random123's known-answer vectors for philox4x32-10: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers_array(counter, key, expected):
    out = random.philox(np.array(counter, np.uint32), key)
    assert tuple(int(x) for x in out) == expected


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers_compiled(counter, key, expected):
    from mdnet.kernels import noise

    words = [np.uint64(x) for x in (*counter, *key)]
    assert tuple(int(x) for x in noise._philox(*words)) == expected


def test_nine_rounds_would_be_seen():
    """Negative control: the last round matters to the vectors."""
    counter, key, expected = KNOWN[0]
    from mdnet.kernels import letters

    words = [np.uint64(x) for x in (*counter, *key)]
    assert tuple(int(x) for x in letters.philox_round(*words)) != expected


def compiled_normals(size, dtype, seed=3, step=11, stream=2, replica=5):
    from mdnet.kernels import noise
    from mdnet.kernels.letters import TILE

    out = np.empty(size, dtype)
    z, x = np.empty(TILE, dtype), np.empty((4, TILE // 4), np.uint32)
    key = np.array(random.seed_words(seed), np.uint64)
    for low in range(0, size, TILE):
        high = min(size, low + TILE)
        count = (high - low + 3) // 4
        noise.fill(z, x, low // 4, count, replica, np.uint64(step), stream, key)
        out[low:high] = z[: high - low]
    return out


@pytest.mark.parametrize(("dtype", "ulp"), [(np.float32, 1e-5), (np.float64, 5e-15)])
def test_compiled_normals_equal_reference(dtype, ulp):
    """Same words, same normals, to rounding; a partial last block included."""
    expected = random.normals(3, 5, 11, 2, 5003)
    got = compiled_normals(5003, dtype)
    assert np.abs(got - expected).max() < ulp
    other = random.normals(3, 5, 12, 2, 5003)
    assert np.abs(got - other).max() > 1  # negative control: another step


@pytest.mark.physics
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_and_tails(dtype):
    """Moments 1 to 6 and the tail past 5 sigma, 2^26 draws.

    Each moment k has standard error sqrt((<z^2k> - <z^k>^2)/n); thresholds of 5.5
    standard errors on 2 x 6 moments and two tails: false alarms below 1e-6.
    """
    n, blocks = 0, 64
    sums = np.zeros(7)
    tail4 = tail5 = 0
    for step in range(blocks):
        z = compiled_normals(2**20, dtype, step=step).astype(np.float64)
        n += z.size
        power = np.ones_like(z)
        for k in range(1, 7):
            power *= z
            sums[k] += power.sum()
        tail4 += int((np.abs(z) > 4).sum())
        tail5 += int((np.abs(z) > 5).sum())
    exact = {k: 0.0 if k % 2 else float(math.prod(range(1, k, 2))) for k in range(13)}
    for k in range(1, 7):
        error = math.sqrt((exact[2 * k] - exact[k] ** 2) / n)
        assert abs(sums[k] / n - exact[k]) < 5.5 * error, k
    for count, sigma in ((tail4, 4), (tail5, 5)):
        mean = n * math.erfc(sigma / math.sqrt(2))
        assert abs(count - mean) < 5.5 * math.sqrt(mean) + 1
    # Negative control: a variance wrong by 0.2 % fails the same thresholds.
    assert abs(1.002 * sums[2] / n - 1) > 5.5 * math.sqrt(2 / n)


def test_independent_of_neighbours():
    """A draw depends on its own counter only: not on how many are drawn with it."""
    many = random.normals(1, np.arange(7), 4, 0, 300_001)
    assert np.array_equal(many[3], random.normals(1, 3, 4, 0, 300_001))
    assert np.array_equal(many[3, :2048], random.normals(1, 3, 4, 0, 2048))
    assert not np.array_equal(many[3, :10], random.normals(2, 3, 4, 0, 10))


def test_high_steps_do_not_repeat():
    a = random.normals(1, 0, 5, 0, 8)
    b = random.normals(1, 0, 5 + 2**32, 0, 8)
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", True])
def test_bad_seed(seed):
    with pytest.raises(MdnetError, match="seed"):
        random.seed_words(seed)
