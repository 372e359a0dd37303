"""MATLAB files of numbers, against what scipy writes and reads."""

import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from neuroigc._validation import InputError
from neuroigc.datasets._mat5 import read_mat

KINDS = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


@pytest.fixture
def written(tmp_path, rng, request):
    """Write arrays of every kind, with others around them."""
    arrays = {f"x_{kind}": rng.integers(0, 100, (3, 5)).astype(kind) for kind in KINDS}
    arrays |= {
        "tiny": np.array([[7.0]]),
        "cube": rng.normal(size=(2, 3, 4)),
        "empty": np.empty((1, 0)),
    }
    others = {"text": "words", "cell": np.array([1, "a"], object), "record": {"a": 1, "b": "c"}}
    path = tmp_path / "x.mat"
    savemat(path, arrays | others, do_compression=request.param)
    return path, arrays


@pytest.mark.parametrize("written", [False, True], indirect=True)
def test_arrays_that_scipy_writes(written):
    path, arrays = written
    read = read_mat(path, list(arrays))
    assert read.keys() == arrays.keys()
    for name, expected in loadmat(path, variable_names=list(arrays)).items():
        if name in arrays:
            np.testing.assert_array_equal(read[name], arrays[name])
            assert (read[name].dtype, read[name].shape) == (expected.dtype, expected.shape)
    assert read_mat(path, ["cube", "absent"]).keys() == {"cube"}


def element(kind, content, order):
    return struct.pack(f"{order}2I", kind, len(content)) + content + bytes(-len(content) % 8)


def by_hand(order, stored=(2, "u1"), shape=(2, 3), class_=6, n_bytes=None):
    """Write the numbers 0, 1, ... of a matrix called m, stored smaller than they are."""
    values = np.arange(6 if n_bytes is None else n_bytes).astype(f"{order}{stored[1]}").tobytes()
    body = element(6, struct.pack(f"{order}2I", class_, 0), order)
    body += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    body += element(1, b"m", order) + element(stored[0], values, order)
    head = b"by hand".ljust(124) + struct.pack(f"{order}H", 0x0100)
    return head + {"<": b"IM", ">": b"MI"}[order] + element(14, body, order)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stored", [(2, "u1"), (4, "u2"), (9, "f8")])
def test_numbers_stored_smaller_and_in_either_byte_order(tmp_path, order, stored):
    path = tmp_path / "x.mat"
    path.write_bytes(by_hand(order, stored))
    np.testing.assert_array_equal(read_mat(path, ["m"])["m"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(loadmat(path)["m"], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize("value", [1 + 2j, csc_array(np.eye(3)), "words", {"a": 1}])
def test_what_is_no_real_array_is_said_to_be_none(tmp_path, value):
    savemat(tmp_path / "x.mat", {"m": value})
    assert read_mat(tmp_path / "x.mat", ["m"])["m"] == "no numbers"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        by_hand("<")[:-1],
        by_hand("<", n_bytes=5),
        by_hand("<", shape=(2, 4)),
        by_hand("<", shape=(-2, -3)),
        by_hand("<", shape=(6,)),
        by_hand("<", shape=(2**30, 2**30)),
        by_hand("<", stored=(77, "u1")),
        by_hand("<") + by_hand("<")[128:],
        by_hand("<")[:128] + element(15, zlib.compress(bytes(80))[:-2], "<"),
        by_hand("<")[:128] + element(15, zlib.compress(struct.pack("<2I", 14, 2**31)), "<"),
        by_hand("<")[:128]
        + element(15, zlib.compress(struct.pack("<2I", 14, 8) + bytes(10**7)), "<"),
        by_hand("<")[:124] + b"\x00\x02IM" + by_hand("<")[128:],
    ],
)
def test_files_that_do_not_add_up(tmp_path, content):
    path = tmp_path / "x.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.mat: expected a whole MATLAB file"):
        read_mat(path, ["m"])


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: c[:-4], lambda c: c + b"more"],
    ids=["another checksum", "no checksum", "bytes behind it"],
)
def test_compressed_elements_are_read_to_their_checksum(tmp_path, damage):
    whole = by_hand("<")
    packed = zlib.compress(whole[128:])
    path = tmp_path / "x.mat"

    def write(content):
        path.write_bytes(whole[:128] + struct.pack("<2I", 15, len(content)) + content)

    write(packed)
    np.testing.assert_array_equal(read_mat(path, ["m"])["m"], [[0, 2, 4], [1, 3, 5]])
    write(damage(packed))
    with pytest.raises(InputError, match=r"x\.mat: expected a whole MATLAB file"):
        read_mat(path, ["m"])
