"""Means and deviations: numpy's of the whole, chunk by chunk."""

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import StackedRows
from neuroigc.models import scaling
from neuroigc.models.scaling import measure_scaling


def test_scaling_of_chunks_is_that_of_the_whole(rng):
    x = rng.normal(1e4, 1.0, size=(103, 4))
    x[:, 2] = 7.0
    mean, scale = measure_scaling(x, argument="X", chunk_size=41)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale[[0, 1, 3]], x[:, [0, 1, 3]].std(0), rtol=1e-9)
    assert np.isinf(scale[2])
    mean, scale = measure_scaling(x, argument="X", per_column=False, chunk_size=41)
    np.testing.assert_allclose([mean, scale], [x.mean(), x.std()], rtol=1e-12)


def test_scaling_counts_what_is_not_finite(rng):
    x = rng.normal(size=(50, 4))
    x[3, 1], x[40, 2], x[41, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(InputError, match=r"X: expected finite numbers only; got 3 values"):
        measure_scaling(x, argument="X", chunk_size=32)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i2", "?"])
@pytest.mark.parametrize("tile", [(2, 3), (64, 2048)])
def test_scaling_of_every_dtype(rng, dtype, tile, monkeypatch):
    monkeypatch.setattr(scaling, "TILE", tile)
    x = rng.normal(size=(50, 7))
    x = x > 0.5 if dtype == "?" else (5 * x).astype(dtype)
    before, wide = x.copy(), x.astype(np.float64)
    for per_column, axis in ((True, 0), (False, None)):
        mean, scale = measure_scaling(x, argument="X", per_column=per_column, chunk_size=60)
        np.testing.assert_allclose(mean, wide.mean(axis), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(scale, wide.std(axis), rtol=1e-12)
    np.testing.assert_array_equal(x, before)


def test_scaling_reads_once_in_chunks(rng, tmp_path):
    np.save(tmp_path / "x.npy", rng.normal(size=(60, 5)).astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    own = np.arange(0, 60, 2)
    reads = []

    class Counted(StackedRows):
        def __getitem__(self, index):
            reads.append(index.stop - index.start)
            return super().__getitem__(index)

    mean, scale = measure_scaling(Counted([(mapped, own, None)]), argument="X", chunk_size=5 * 7)
    assert (max(reads), len(reads)) == (7, 5)
    wide = mapped[own].astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale, wide.std(0), rtol=1e-12)
