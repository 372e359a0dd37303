"""NumPy's files: what a wrong length or shape would hide."""

import struct
import zipfile

import numpy as np
import pytest

from neuroigc._array_files import open_npy, read_npz
from neuroigc._files import read_json, reading
from neuroigc._validation import InputError


@pytest.fixture
def values(rng):
    return rng.normal(size=(6, 5)).astype(np.float32)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(6, 5), (30,), (0, 5), ()])
def test_arrays_are_mapped(tmp_path, values, order, shape):
    expected = np.asarray(values.ravel()[: int(np.prod(shape))].reshape(shape), order=order)
    np.save(tmp_path / "x.npy", expected)
    read = open_npy(tmp_path / "x.npy")
    np.testing.assert_array_equal(read, expected)
    assert read.shape == shape
    np.savez(tmp_path / "x.npz", a=expected, text=np.array("é"))
    read = read_npz(tmp_path / "x.npz")
    np.testing.assert_array_equal(read["a"], expected)
    assert str(read["text"]) == "é"
    assert not isinstance(read["a"], np.memmap)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"(6, 5)", b"(6, 4)"), (b"(6, 5)", b"(7, 5)"), (b"'<f4'", b"'<f8'"), (b"'<f4'", b"'|O8'")],
)
def test_headers_that_do_not_fit_the_size(tmp_path, values, old, new):
    np.save(tmp_path / "x.npy", values)
    content = (tmp_path / "x.npy").read_bytes()
    damaged = content.replace(old, new)
    assert damaged != content
    (tmp_path / "x.npy").write_bytes(damaged)
    with pytest.raises(InputError, match=r"x\.npy: expected a whole .npy file"):
        open_npy(tmp_path / "x.npy")
    # In an archive the checksum is looked at only by who reads to the end.
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", damaged)
    with pytest.raises(InputError, match=r"x\.npz: expected a .npz file of plain arrays"):
        read_npz(tmp_path / "x.npz")


def test_bytes_behind_the_data(tmp_path, values):
    np.save(tmp_path / "x.npy", values)
    with (tmp_path / "x.npy").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="bytes where its header says"):
        open_npy(tmp_path / "x.npy")


def test_a_member_that_another_swallows(tmp_path, values):
    """One wrong length in the list of members, and the next is not seen: not even an error."""
    path = tmp_path / "x.npz"
    np.savez(path, a=values, b=values + 1)
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    end = content.index(b"PK\x05\x06")
    content[first + 32 : first + 34] = struct.pack("<H", end - second)
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.npy"]
    with pytest.raises(InputError, match="1 arrays, which is not the number that its end tells"):
        read_npz(path)


def test_names_that_come_twice(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(InputError, match="a name that comes twice"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ZeroDivisionError, SyntaxError])
def test_what_readers_raise_becomes_one_error(error):
    with (
        pytest.raises(InputError, match=r"x\.y: expected a z; got (oh|\w+Error)"),
        reading("x.y", "a z"),
    ):
        raise error("oh.")


def test_interruptions_and_clear_errors_pass():
    with pytest.raises(KeyboardInterrupt), reading("x", "y"):
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="a: expected b; got c"), reading("x", "y"):
        raise InputError("a", expected="b", got="c")


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"a": 1, "a": 2}', "\xff"])
def test_json_that_is_no_object(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"x\.json: expected a sidecar"):
        read_json(tmp_path / "x.json", "a sidecar")
