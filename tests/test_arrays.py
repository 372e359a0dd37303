"""Anyone's arrays, and what is said when they do not fit."""

import zipfile

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import load_arrays


@pytest.fixture
def samples(rng):
    return rng.normal(size=(10, 4)).astype(np.float32), rng.normal(size=10)


def test_arrays_are_put_together(samples):
    responses, targets = samples
    data = load_arrays(
        responses,
        targets,
        conditions=np.repeat([0, 1], 5),
        groups={"V1": [0, 1], "V2": np.array([False, False, True, True]), "both": range(4)},
        image_ids=np.arange(10.0),
        is_test=np.arange(10) > 7,
    )
    assert data.responses is responses
    np.testing.assert_array_equal(data.groups["both"], [0, 1, 2, 3])
    assert data.groups["V2"].dtype == bool
    assert data.image_ids.dtype == np.int64
    assert data.is_test.sum() == 2


def test_optional_things_stay_none(samples):
    data = load_arrays(*samples)
    assert data.conditions is data.groups is data.image_ids is data.is_test is None


def test_from_a_file(samples, tmp_path):
    responses, targets = samples
    path = tmp_path / "mine.npz"
    np.savez(
        path,
        **{"responses": responses, "targets": targets, "conditions": np.zeros(10, int)},
        **{"groups/V1": np.array([0, 3])},
    )
    data = load_arrays(path)
    np.testing.assert_array_equal(data.responses, responses)
    np.testing.assert_array_equal(data.groups["V1"], [0, 3])
    assert data.conditions.dtype == np.int64


def test_memory_maps_stay_on_disk(samples, tmp_path):
    np.save(tmp_path / "x.npy", samples[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(load_arrays(mapped, samples[1]).responses, np.memmap)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.arange(9.0)}, "responses has 10, targets has 9"),
        ({"targets": None}, "targets: expected an array; got None"),
        ({"targets": np.zeros((2, 5, 1))}, "responses and targets: expected shapes"),
        ({"targets": np.ones(10)}, "targets that vary over samples; got a constant in column 0"),
        ({"targets": np.c_[np.arange(10), np.ones(10)]}, "got a constant in column 1"),
        ({"targets": np.r_[np.nan, np.arange(9)]}, "targets: expected finite numbers; got 1 "),
        ({"responses": np.full((10, 4), np.inf)}, "responses: expected finite numbers; got 40 "),
        ({"responses": np.arange(10.0)}, "responses and targets: expected shapes"),
        ({"conditions": np.linspace(0, 1, 10)}, "conditions: expected one int64 per sample"),
        ({"is_test": np.zeros((10, 1), bool)}, "is_test: expected one bool per sample"),
        ({"groups": {"V1": [4]}}, r"groups\['V1'\]: expected indices below 4"),
        ({"groups": {"V1": [-1]}}, r"groups\['V1'\]: expected indices below 4"),
        ({"groups": {"V1": []}}, r"groups\['V1'\]: expected indices below 4"),
        ({"groups": {"V1": np.ones(3, bool)}}, r"groups\['V1'\].* got bool of shape \(3,\)"),
        ({"responses": np.empty((0, 4))}, r"responses: expected at least one .*\(0, 4\)"),
        ({"responses": np.empty((10, 0))}, r"responses: expected at least one .*\(10, 0\)"),
        ({"targets": np.empty((10, 0))}, r"targets: expected at least one .*\(10, 0\)"),
        ({"responses": np.full((10, 4), "a")}, "responses: expected an array of real numbers"),
        ({"responses": np.zeros((10, 4), complex)}, "responses: .*; got dtype complex128"),
        ({"responses": [[1, 2], [3]]}, "responses: expected an array of numbers"),
        ({"targets": ["a", "b"] * 5}, "targets: expected an array of real numbers; got dtype <U1"),
        ({"targets": [None, 1] * 5}, "targets: expected an array of real numbers; got dtype obj"),
        ({"targets": [True] * 10}, "targets that vary over samples"),
        ({"conditions": ["a", "b"] * 5}, "conditions: expected one int64 per sample; got <U1"),
        ({"conditions": [None] * 10}, "conditions: expected one int64 per sample; got object"),
        ({"conditions": [np.nan] * 10}, "conditions: expected one int64 per sample"),
        ({"conditions": [1e300] * 10}, "conditions: expected one int64 per sample"),
        ({"image_ids": [[1], [2, 3]]}, "image_ids: expected an array of numbers"),
        ({"is_test": ["yes", "no"] * 5}, "is_test: expected one bool per sample"),
        ({"groups": {"V1": ["a"]}}, r"groups\['V1'\]: expected indices below 4"),
        ({"groups": {"V1": [[1], [2, 3]]}}, r"groups\['V1'\]: expected an array of numbers"),
        ({"images": np.zeros((9, 8, 8), np.uint8)}, "responses has 10, .*images has 9"),
        ({"images": np.zeros((10, 8), np.uint8)}, r"images: expected shape .*\(10, 8\)"),
        ({"images": np.zeros((10, 8, 8, 4), np.uint8)}, r"images: expected shape .* 8, 4\)"),
        ({"images": np.zeros((10, 8, 8), np.int64)}, "images: .*uint8 or floating .* got int64"),
        ({"images": np.full((10, 8, 8), 1.5)}, "images: expected numbers from 0 to 1; got 1.5 to"),
        ({"images": np.full((10, 8, 8), np.nan)}, "images: expected numbers from 0 to 1; got nan"),
        (
            {"image_ids": np.repeat(np.arange(5), 2), "is_test": np.arange(10) % 2 == 0},
            "is_test: expected each image either .* got 5 images in both, as 0",
        ),
    ],
)
def test_what_does_not_fit(samples, change, message):
    with pytest.raises(InputError, match=message):
        load_arrays(**({"responses": samples[0], "targets": samples[1]} | change))


def test_files_that_are_something_else(samples, tmp_path):
    np.savez(tmp_path / "x.npz", responses=samples[0], labels=samples[1])
    with pytest.raises(InputError, match=r"x.npz: expected responses, targets and at most"):
        load_arrays(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", samples[0])
    with pytest.raises(InputError, match=r"expected a .npz file of plain arrays"):
        load_arrays(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"none.npz: expected a .npz file of plain arrays"):
        load_arrays(tmp_path / "none.npz")
    np.savez(tmp_path / "pickled.npz", responses=np.array({}, object), targets=samples[1])
    with pytest.raises(InputError, match=r"pickled.npz: expected a .npz file of plain arrays"):
        load_arrays(tmp_path / "pickled.npz")


def test_boolean_targets_are_binary(samples):
    targets = np.arange(10) % 3 == 0
    data = load_arrays(samples[0], targets)
    assert data.targets.dtype == np.float64
    np.testing.assert_array_equal(data.targets, targets)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"PK",
        lambda _: b"garbage" * 99,
        lambda whole: whole[:80],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:120] + bytes(40) + whole[160:],
        # Marked as encrypted.
        lambda whole: whole.replace(b"PK\x01\x02-\x03-\x00\x00", b"PK\x01\x02-\x03-\x00\x01"),
    ],
)
def test_damaged_files(samples, tmp_path, save, damage):
    path = tmp_path / "x.npz"
    save(path, responses=samples[0], targets=samples[1])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{path}: expected a .npz file of plain arrays"):
        load_arrays(path)


def test_npy_in_place_of_npz(samples, tmp_path):
    np.save(tmp_path / "x.npy", samples[0])
    with pytest.raises(InputError, match=r"got a single .npy array. Save named arrays with"):
        load_arrays(tmp_path / "x.npy")


def test_archives_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("notes.txt", "mine")
    with pytest.raises(InputError, match=r"plain arrays; got also \['notes.txt'\]"):
        load_arrays(tmp_path / "x.npz")
