"""Feeding: every row once, the same whoever reads it and when, and no thread left behind."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from neuroigc._validation import InputError
from neuroigc.datasets import StackedRows
from neuroigc.models import DecoderNetwork, NeuralDecoder
from neuroigc.models.feeding import Samples, count_batches, read_ahead
from neuroigc.models.scaling import measure_scaling
from neuroigc.models.training import seeded, train


@pytest.fixture
def samples(rng):
    inputs = rng.normal(size=(100, 6)).astype(np.float16)
    return Samples(inputs, inputs[:, :2] + 0.1 * rng.normal(size=(100, 2)).astype(np.float32))


def feeders():
    return [t for t in threading.enumerate() if t.name.startswith("neuroigc-feeding")]


@pytest.mark.parametrize("n", [2, 3, 5, 16, 17, 33, 100])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 16, 500])
def test_batches_hold_every_row_once_and_never_one_alone(n, batch_size, rng):
    rows = np.arange(n, dtype=np.float32)[:, None]
    batches = [b[0][:, 0] for b in Samples(rows, rows).batches(batch_size, "cpu", rng)]
    assert len(batches) == count_batches(n, batch_size)
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= max(batch_size, 3)
    assert sorted(torch.cat(batches).tolist()) == list(range(n))


def test_batches_keep_rows_together_and_standardise(rng):
    x = rng.normal(5, 2, size=(50, 3))
    scaling = measure_scaling(x, argument="X")
    samples = Samples(x, x * 10, np.arange(50), input_scaling=scaling)
    for inputs, targets, conditions, _ in samples.batches(8, "cpu", rng):
        expected = (x[conditions] - x.mean(0)) / x.std(0)
        np.testing.assert_allclose(inputs, expected, atol=1e-5)
        np.testing.assert_allclose(targets, 10 * x[conditions], rtol=1e-6)
        assert inputs.dtype == targets.dtype == torch.float32
        assert conditions.dtype == torch.int64


def test_split_is_disjoint_complete_and_seeded(samples):
    first, second = samples.split(0.2, np.random.default_rng(1))
    again, _ = samples.split(0.2, np.random.default_rng(1))
    assert len(second) == 20
    assert sorted([*first.rows, *second.rows]) == list(range(100))
    np.testing.assert_array_equal(first.rows, again.rows)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_split_keeps_what_has_one_source_together(rng, fraction):
    """Three subjects, who saw some images together and others alone, in any order."""
    shared, alone = np.tile(np.arange(40), 3), 100 + np.arange(90)
    sources = rng.permutation(np.r_[shared, alone])
    samples = Samples(np.zeros((210, 2)), np.zeros((210, 1)), sources=sources)
    first, second = samples.split(fraction, np.random.default_rng(1))
    assert not np.intersect1d(sources[first.rows], sources[second.rows]).size
    assert sorted([*first.rows, *second.rows]) == list(range(210))
    assert abs(len(second) - fraction * 210) <= 2
    again, _ = samples.split(fraction, np.random.default_rng(1))
    np.testing.assert_array_equal(first.rows, again.rows)
    part, _ = first.split(0.5, np.random.default_rng(1))
    assert set(part.rows) < set(first.rows)


@pytest.mark.parametrize("n_parts", [1, 2, 3])
def test_parts_of_batches_are_read_in_order_and_mixed(samples, n_parts):
    batches = samples.cut(30, np.random.default_rng(0), n_parts)
    whole = samples.cut(30, np.random.default_rng(0))
    for parts, (rows,) in zip(batches, whole, strict=True):
        assert len(parts) == n_parts
        assert np.ptp([len(part) for part in parts]) <= 1
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
        assert all((np.diff(part) > 0).all() for part in parts)
        # No part has the first rows of a file, and another the last.
        assert all(part.min() < 50 < part.max() for part in parts)


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_what_is_read_ahead_comes_in_turn(n_workers):
    assert list(read_ahead(lambda k: k * k, range(20), n_workers)) == [k * k for k in range(20)]
    assert list(read_ahead(str, [], n_workers)) == []
    assert not feeders()


def test_reading_goes_on_meanwhile_but_not_far_ahead():
    read, third = [], threading.Event()

    def note(k):
        read.append(k)
        if k == 2:
            third.set()
        return k

    ahead = read_ahead(note, range(20), 1)
    assert next(ahead) == 0
    assert third.wait(30)
    assert next(ahead) == 1
    assert max(read) <= 3
    ahead.close()
    assert not feeders()


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_errors_of_reading_come_in_their_turn(n_workers):
    def read(k):
        if k == 3:
            raise OSError("disk on fire")
        return k

    ahead = read_ahead(read, range(10), n_workers)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk on fire"):
        next(ahead)
    assert not feeders()


def test_no_thread_outlives_a_training_that_fails(samples):
    class Failing(nn.Linear):
        def forward(self, *_):
            raise RuntimeError("broken network")

    with pytest.raises(RuntimeError, match="broken network"):
        train(Failing(6, 2), samples, batch_size=8, n_workers=3, device="cpu")
    assert not feeders()


def stacked(samples, tmp_path):
    """Return the same inputs in two files, each with rows and columns that do not count."""
    parts = []
    for k, rows in enumerate((slice(0, 37), slice(37, 100))):
        inputs = samples.inputs[rows]
        wide = np.full((2 * len(inputs), 9), np.nan, np.float16)
        wide[1::2, 2:8] = inputs[:, ::-1]
        np.save(tmp_path / f"{k}.npy", wide)
        mapped = np.load(tmp_path / f"{k}.npy", mmap_mode="r")
        parts.append((mapped, np.arange(1, len(wide), 2), np.arange(7, 1, -1)))
    return StackedRows(parts)


def test_weights_do_not_depend_on_who_reads_from_where(samples, tmp_path):
    np.save(tmp_path / "x.npy", samples.inputs)
    sources = {
        "array": samples.inputs,
        "float32": samples.inputs.astype(np.float32),
        "map": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "stacked": stacked(samples, tmp_path),
    }
    trained = []
    for inputs in sources.values():
        scaling = measure_scaling(inputs, argument="X")
        own = Samples(inputs, samples.targets, np.arange(100) % 2, input_scaling=scaling)
        for n_workers in (0, 1, 3):
            with seeded(0, "cpu"):
                network = DecoderNetwork(6, 2, hidden=(8, 8), dropout=0.3, n_conditions=2)
            train(network, own, batch_size=16, max_epochs=3, n_workers=n_workers, device="cpu")
            trained.append(nn.utils.parameters_to_vector(network.parameters()))
    assert all(torch.equal(weights, trained[0]) for weights in trained)


def test_estimators_take_rows_that_lie_elsewhere(samples, tmp_path):
    options = {"hidden": (8,), "max_epochs": 2, "device": "cpu"}
    inputs = stacked(samples, tmp_path)
    targets = StackedRows([(samples.targets, None, None)])
    model = NeuralDecoder(**options).fit(inputs, targets, validation=(inputs, targets))
    same = NeuralDecoder(**options).fit(
        samples.inputs, samples.targets, validation=(samples.inputs, samples.targets)
    )
    np.testing.assert_array_equal(model.predict(inputs), same.predict(samples.inputs))
    assert model.score(inputs, targets) == same.score(samples.inputs, samples.targets)
    with pytest.raises(InputError, match=r"X: expected \(n_samples, 6\), as in fit; got .*, 9\)"):
        model.predict(np.load(tmp_path / "0.npy", mmap_mode="r"))


def test_scalars_standardise_narrow_numbers_in_full_precision(rng):
    images = (rng.random((20, 4, 4)) * 200).astype(np.float16)
    scaling = measure_scaling(images, argument="X", per_column=False)
    ((batch, *_),) = Samples(images, images, input_scaling=scaling).batches(20, "cpu")
    wide = images.astype(np.float64)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch, (wide - wide.mean()) / wide.std(), atol=1e-6)


def test_rows_with_no_more_than_a_shape_and_a_dtype_are_enough(samples):
    class Rows:
        def __init__(self, values):
            self._values, self.shape, self.dtype = values, values.shape, values.dtype

        def __len__(self):
            return len(self._values)

        def __getitem__(self, rows):
            return self._values[rows]

    options = {"hidden": (8,), "max_epochs": 2, "device": "cpu"}
    model = NeuralDecoder(**options).fit(Rows(samples.inputs), Rows(samples.targets))
    same = NeuralDecoder(**options).fit(samples.inputs, samples.targets)
    np.testing.assert_array_equal(model.predict(Rows(samples.inputs)), same.predict(samples.inputs))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_batches_are_those_of_numpy_and_leave_the_rows_as_they_were(rng, dtype, n_workers):
    """Also of what hands out its own memory instead of a copy."""

    class Views(np.ndarray):
        def __getitem__(self, rows):
            return np.asarray(self)[slice(rows[0], rows[-1] + 1)]

    values = rng.normal(5, 2, size=(60, 7)).astype(dtype)
    before, (mean, scale) = values.copy(), measure_scaling(values, argument="X")
    samples = Samples(values.view(Views), values, input_scaling=(mean, scale))
    rows = [np.arange(start, start + 12) for start in range(0, 60, 12)]
    for own, (inputs, targets, *_) in zip(rows, samples.feed(rows, "cpu", n_workers), strict=True):
        wide = before[own].astype(np.float32)
        expected = (wide - mean.astype(np.float32)) / scale.astype(np.float32)
        np.testing.assert_array_equal(inputs, expected, strict=True)
        np.testing.assert_array_equal(targets, wide, strict=True)
    np.testing.assert_array_equal(values, before, strict=True)
