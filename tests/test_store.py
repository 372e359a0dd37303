"""The folder of one subject's arrays: what comes back, and what is told of damage."""

import dataclasses
import hashlib
import json
import pickle

import numpy as np
import pytest

from neuroigc._array_files import hash_of
from neuroigc._validation import InputError
from neuroigc.datasets import SubjectData
from neuroigc.datasets.store import SEAL, check_numbers, seal, write_array, writing_array

N_IMAGES = 6
SIDES = ("left", "right")


@pytest.fixture
def data(rng):
    return SubjectData(
        subject="03",
        responses=rng.normal(size=(N_IMAGES, 5)).astype(np.float32),
        image_ids=np.array([1, 4, 5, 70, 71, 900]),
        n_repeats=np.array([3, 3, 1, 2, 3, 1]),
        is_test=np.array([1, 0, 0, 1, 0, 0], bool),
        vertices={"left": np.array([2, 5, 7]), "right": np.array([0, 9])},
        space="fsaverage5",
        n_surface_vertices={"left": 10, "right": 12},
        n_dropped={"left": 1, "right": 0},
        noise_ceiling=np.linspace(0, 1, 5, dtype=np.float32),
        ncsnr=np.linspace(0, 2, 5, dtype=np.float32),
        provenance={"sessions": [1, 2], "sources": [{"path": "a", "bytes": 3}]},
    )


def assert_same(first, second):
    for field in dataclasses.fields(SubjectData):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name == "vertices":
            for side in SIDES:
                np.testing.assert_array_equal(one[side], other[side])
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        else:
            assert one == other


def test_everything_comes_back(data, tmp_path):
    folder = data.save(tmp_path / "a" / "sub-03")
    back = SubjectData.load(folder)
    assert_same(back, data)
    assert isinstance(back.responses, np.memmap)
    assert not back.responses.flags.writeable
    bare = dataclasses.replace(
        data, n_repeats=None, ncsnr=None, noise_ceiling=None, provenance=None
    )
    # What was there before is replaced, and arrays that are no longer there are gone.
    assert_same(SubjectData.load(bare.save(folder)), bare)
    assert not (folder / "ncsnr.npy").exists()


def test_files_are_plain_arrays(data, tmp_path):
    folder = data.save(tmp_path)
    np.testing.assert_array_equal(np.load(folder / "responses.npy"), data.responses)
    np.testing.assert_array_equal(np.load(folder / "vertices_right.npy"), [0, 9])
    said = json.loads((folder / "subject.json").read_text())
    sha256 = hashlib.sha256(np.asarray(data.responses).tobytes()).hexdigest()
    described = {"shape": [N_IMAGES, 5], "dtype": "<f4", "sha256": sha256}
    assert said["arrays"]["responses"] == described
    assert {path.name for path in folder.iterdir()} == {
        "subject.json",
        *(f"{name}.npy" for name in said["arrays"]),
    }


def test_equal_data_give_equal_bytes(data, tmp_path):
    folders = [data.save(tmp_path / name) for name in ("one", "two")]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()


def test_half_precision(data, tmp_path):
    back = SubjectData.load(data.save(tmp_path, dtype="float16"))
    assert back.responses.dtype == np.float16
    np.testing.assert_allclose(back.responses, data.responses, rtol=2**-11)
    with pytest.raises(InputError, match="dtype: expected one of 'float32', 'float16'; got 'int8'"):
        data.save(tmp_path, dtype="int8")


def test_saving_over_the_map_that_is_saved(data, tmp_path):
    folder = data.save(tmp_path)
    mapped = SubjectData.load(folder)
    mapped.save(folder)
    assert_same(SubjectData.load(folder), data)


def test_arrays_are_converted_block_by_block(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("neuroigc.datasets.store.BLOCK_BYTES", 100)
    array = rng.normal(size=(23, 7))[:, ::2]
    write_array(tmp_path / "x.npy", array, np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array.astype(np.float32))


def test_an_array_with_fewer_rows_than_promised_is_not_kept(tmp_path):
    def write():
        with writing_array(tmp_path / "x.npy", (3, 2), np.float32) as file:
            file.write(np.zeros((2, 2), np.float32))

    with pytest.raises(InputError, match="where its header says"):
        write()
    assert not list(tmp_path.iterdir())


def test_what_was_cut_short_is_not_read(data, tmp_path, monkeypatch):
    data.save(tmp_path)
    calls = []

    def interrupted(path, *args):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write_array(path, *args)

    monkeypatch.setattr("neuroigc.datasets.store.write_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.save(tmp_path)
    with pytest.raises(InputError, match=r"got one without subject\.json, not finished\. Prepare"):
        SubjectData.load(tmp_path)


def change(folder, **values):
    """Change a description as whoever writes it would."""
    path = folder / "subject.json"
    said = json.loads(path.read_text()) | values
    path.write_text(json.dumps(said | {SEAL: seal(said)}))


def flip(path, place=-1):
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def rename(folder):
    path = folder / "subject.json"
    path.write_text(path.read_text().replace('"fsaverage5"', '"fsaverage6"'))


def pickled(folder):
    np.save(folder / "image_ids.npy", np.array([{}] * N_IMAGES, object), allow_pickle=True)


def unsorted(folder):
    replace(folder, "image_ids", np.arange(N_IMAGES)[::-1])


def replace(folder, name, values):
    """Put an array in the place of another, and describe it."""
    np.save(folder / f"{name}.npy", values)
    said = {"shape": list(values.shape), "dtype": values.dtype.str, "sha256": hash_of(values)}
    arrays = json.loads((folder / "subject.json").read_text())["arrays"]
    change(folder, arrays=arrays | {name: said})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "subject.json").unlink(), r"got one without subject.json, not finished"),
        (lambda f: (f / "subject.json").write_text("{"), r"subject.json: expected a whole JSON"),
        (lambda f: (f / "subject.json").write_bytes(b"\xff"), r"subject.json: expected a whole"),
        (lambda f: (f / "subject.json").write_text("[]"), r"a JSON object with .*; got another"),
        (lambda f: change(f, format_version=9), r"a JSON object with .*; got another"),
        (rename, r"expected what was written, as its SHA-256 tells; got other text"),
        (lambda f: flip(f / "is_test.npy"), r"is_test.npy: expected the numbers that were written"),
        (lambda f: flip(f / "vertices_left.npy", -8), r"left.npy: expected the numbers that were"),
        (lambda f: change(f, arrays={}), r"expected the arrays \['image_ids', .*; got \[\]"),
        (lambda f: change(f, space=3), r"counts of both hemispheres; got .*\['space'\]"),
        (lambda f: change(f, n_dropped={"left": 1}), r"got .*\['n_dropped'\]"),
        (lambda f: (f / "ncsnr.npy").unlink(), r"expected ncsnr.npy, as its description says"),
        (
            lambda f: (f / "is_test.npy").write_bytes(b""),
            r"is_test.npy: expected a whole",
        ),
        (
            lambda f: (f / "is_test.npy").write_bytes(b"x" * 99),
            r"is_test.npy: expected a whole .npy",
        ),
        (
            lambda f: cut(f / "responses.npy", -1),
            r"responses.npy: .*got 247 bytes where its header says 248",
        ),
        (lambda f: cut(f / "responses.npy", 100), r"responses.npy: expected a whole"),
        (
            lambda f: lengthen(f / "ncsnr.npy"),
            r"ncsnr.npy: .*got 149 bytes where its header says 148",
        ),
        (lambda f: np.save(f / "ncsnr.npy", np.zeros(5)), r"'<f4'}, as described; got .*'<f8'"),
        (lambda f: np.save(f / "is_test.npy", np.ones(9, bool)), r"\[6\].*as described; got .*\[9"),
        (pickled, r"image_ids.npy: .*got pickled objects"),
        (unsorted, "expected ascending, different image_ids"),
    ],
)
def test_each_kind_of_damage_is_told(data, tmp_path, damage, message):
    folder = data.save(tmp_path / "sub-03")
    damage(folder)
    with pytest.raises(InputError, match=message) as told:
        SubjectData.load(folder)
    assert str(folder) in str(told.value)
    assert str(told.value).endswith("Prepare it again.")


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def test_a_flipped_bit_of_what_is_mapped_is_found_by_reading_all(data, tmp_path):
    folder = data.save(tmp_path)
    assert check_numbers(folder, "subject", "responses") == data.responses.nbytes
    flip(folder / "responses.npy", 200)
    SubjectData.load(folder)  # which reads none of them
    with pytest.raises(InputError, match=r"responses.npy: expected the numbers that were written"):
        check_numbers(folder, "subject", "responses")


def test_arrays_that_do_not_fit_each_other(data, tmp_path):
    folder = data.save(tmp_path)
    replace(folder, "is_test", np.ones(9, bool))
    with pytest.raises(InputError, match=rf"{folder}, .*is_test: expected the same number"):
        SubjectData.load(folder)


def test_something_else_than_a_store(data, tmp_path):
    with pytest.raises(InputError, match=r"with a subject.json, written last; got nothing"):
        SubjectData.load(tmp_path / "none")
    (tmp_path / "old.npz").write_bytes(pickle.dumps(3))
    with pytest.raises(InputError, match=r"written last; got .*old.npz, a file"):
        SubjectData.load(tmp_path / "old.npz")
    with pytest.raises(InputError, match="folder: expected a folder that can be written to"):
        data.save(tmp_path / "old.npz")


def test_subject_data_checks_its_columns(data):
    with pytest.raises(InputError, match="responses: expected 5 columns, one for each of vertices"):
        dataclasses.replace(data, responses=np.zeros((N_IMAGES, 4), np.float32))
    with pytest.raises(InputError, match="the same number of samples"):
        dataclasses.replace(data, responses=np.zeros((4, 5), np.float32))
