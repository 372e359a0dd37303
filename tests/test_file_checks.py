"""MGH, HDF5 and PNG: what lies behind the data, between the blocks, and under the checksums."""

import struct
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from neuroigc._mgh import open_mgh, read_mgh
from neuroigc._validation import InputError
from neuroigc.datasets import _hdf5
from neuroigc.datasets._hdf5 import check_storage, read_hdf5, read_part
from neuroigc.datasets._png import read_png

VALUES = np.arange(1, 9, dtype=np.float32)
SCAN = struct.pack(">5f", 2000, 0.5, 30, 0, 256)


def mgh(path, tail=b"", shape=(8, 1, 1, 1), code=3, values=VALUES):
    head = struct.pack(">7i", 1, *shape, code, 0).ljust(284, b"\0")
    path.write_bytes(head + values.astype(values.dtype.newbyteorder(">")).tobytes() + tail)
    return path


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        SCAN[:16],
        SCAN,
        SCAN + struct.pack(">iq", 3, 7) + b"mri_cvt",
        SCAN + struct.pack(">ii", 30, 4) + b"x.lt" + struct.pack(">iq", 3, 2) + b"ab",
    ],
)
def test_what_freesurfer_puts_behind_the_data(tmp_path, tail):
    path = mgh(tmp_path / "x.mgh", tail)
    np.testing.assert_array_equal(read_mgh(path).ravel(), VALUES)
    np.testing.assert_array_equal(open_mgh(path)[0], VALUES)


@pytest.mark.parametrize("read", [read_mgh, open_mgh])
@pytest.mark.parametrize(
    "options",
    [
        {"shape": (7, 1, 1, 1)},
        {"shape": (3, 1, 1, 2)},
        {"tail": SCAN + b"\0\0\0\x03"},
        {"tail": SCAN + struct.pack(">iq", 3, 99) + b"cut"},
        {"code": 1},
        {"values": VALUES.astype(np.int32)},
        {"shape": (-8, 1, 1, -1)},
    ],
)
def test_shapes_and_types_that_are_not_those_of_the_data(tmp_path, read, options):
    path = mgh(tmp_path / "x.mgh", **options)
    with pytest.raises(InputError, match=r"x\.mgh: expected"):
        read(path)


@pytest.fixture
def hdf5(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        yield file


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (3, 2)}, {"chunks": (3, 2), "compression": "gzip"}]
)
def test_datasets_that_are_whole(hdf5, options):
    check_storage(hdf5.create_dataset("x", data=np.arange(35).reshape(7, 5), **options))


@pytest.mark.parametrize("options", [{}, {"chunks": (3, 2)}])
def test_datasets_that_were_never_written_would_be_zeros(hdf5, options):
    dataset = hdf5.create_dataset("x", (7, 5), np.float32, **options)
    if options:
        dataset[:3] = 1
    assert (dataset[3:] == 0).all()
    with pytest.raises(ValueError, match=r"fewer than|blocks of /x where there should be 9"):
        check_storage(dataset)


def test_blocks_in_the_same_place(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=np.arange(20), chunks=(10,))
        places = []
        dataset.id.chunk_iter(lambda block: places.append(block.byte_offset))
    content = path.read_bytes()
    first, second = (struct.pack("<Q", place) for place in places)
    assert content.count(second) == 1
    path.write_bytes(content.replace(second, first))
    with h5py.File(path) as file:
        assert (file["x"][:10] == file["x"][10:]).all()
        with pytest.raises(ValueError, match="overlap"):
            check_storage(file["x"])


def not_found(path, values, chunks, **options):
    """Write a dataset of which a block is listed, but is not found where it is looked up."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=chunks, **options)
    # Behind a block stands, in the index, where the next one begins: after it the last one ends.
    content, end = path.read_bytes(), struct.pack("<QQQ", *values.shape, values.itemsize)
    at = content.rindex(end)
    path.write_bytes(content[:at] + bytes(len(end)) + content[at + len(end) :])


def test_blocks_that_are_listed_but_not_found_would_be_zeros(tmp_path):
    values = np.arange(1, 36).reshape(7, 5)
    not_found(tmp_path / "x.h5", values, (7, 5))
    with h5py.File(tmp_path / "x.h5") as file:
        assert not file["x"][()].any()
        check_storage(file["x"])
        for part in ((), (3,), (slice(2, 4), slice(1, None))):
            with pytest.raises(ValueError, match="a block of /x that is not found"):
                read_part(file["x"], *part)
    with pytest.raises(InputError, match=r"x\.h5: .* got a block of /x that is not found"):
        read_hdf5(tmp_path / "x.h5", ["x"])


def test_blocks_that_are_not_found_may_come_as_nan(tmp_path):
    not_found(tmp_path / "x.h5", np.ones((7, 5)), (7, 5), fillvalue=np.nan)
    with (
        h5py.File(tmp_path / "x.h5") as file,
        pytest.raises(ValueError, match="a block of /x that is not found"),
    ):
        read_part(file["x"])


@pytest.mark.parametrize("options", [{}, {"chunks": (3, 2)}, {"chunks": (3, 2), "fillvalue": 7}])
@pytest.mark.parametrize(
    "part",
    [
        (),
        (4,),
        (slice(0, 7),),
        (slice(2, 5), slice(None)),
        (slice(None), slice(3, 99)),
        (0, 1),
        (slice(7, 9),),
    ],
)
def test_parts_are_those_of_h5py_and_zeros_may_be_real(hdf5, options, part):
    values = np.where(np.arange(35) % 11 < 2, np.arange(35), 0).reshape(7, 5)
    dataset = hdf5.create_dataset("x", data=values, **options)
    found = read_part(dataset, *part)
    np.testing.assert_array_equal(found, values[part])
    assert found.shape == values[part].shape


def test_whole_datasets_are_read_by_another_process(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["g/b"] = values, values[0] > 1
    read = read_hdf5(tmp_path / "x.h5", ["/a", "g/b"])
    np.testing.assert_array_equal(read["/a"], values)
    np.testing.assert_array_equal(read["g/b"], [False, False, True])
    assert sorted(read) == ["/a", "g/b"]
    with pytest.raises(InputError, match=r"x\.h5: expected .* c; got no dataset of its own, but"):
        read_hdf5(tmp_path / "x.h5", ["a", "c"])
    with pytest.raises(InputError, match=r"y\.h5: expected an HDF5 file with the dataset a"):
        read_hdf5(tmp_path / "y.h5", ["a"])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "one at which its reader crashed"),
        ("while :; do :; done", "one that was not read within 0 seconds"),
    ],
)
def test_crashes_and_endless_loops_of_that_process(tmp_path, monkeypatch, script, message):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    (tmp_path / "x.h5").write_bytes(b"")
    monkeypatch.setattr(_hdf5.sys, "executable", str(path))
    monkeypatch.setattr(_hdf5, "START_SECONDS", 0.3)
    with pytest.raises(InputError, match=f"x.h5: expected an HDF5 file .*; got {message}"):
        read_hdf5(tmp_path / "x.h5", ["a"])


@pytest.fixture
def png(tmp_path, rng):
    path = tmp_path / "x.png"
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return path


def test_a_pixel_that_its_decoder_would_pass(png):
    whole = read_png(png)
    content = bytearray(png.read_bytes())
    start = content.index(b"IDAT")
    n_bytes = int.from_bytes(content[start - 4 : start], "big")
    other = np.zeros_like(whole)
    rows = b"".join(b"\0" + row.tobytes() for row in other)
    packed = zlib.compress(rows, 0)[:n_bytes].ljust(n_bytes, b"\0")
    content[start + 4 : start + 4 + n_bytes] = packed
    png.write_bytes(content)
    with pytest.raises(InputError, match="chunk b'IDAT' with another checksum"):
        read_png(png)


@pytest.mark.parametrize("damage", [lambda c: c + b"\0", lambda c: c[:-4], lambda c: c[8:]])
def test_images_with_more_or_less(png, damage):
    png.write_bytes(damage(png.read_bytes()))
    with pytest.raises(InputError, match=r"x\.png: expected a whole PNG file"):
        read_png(png)


def test_images_that_would_fill_the_memory(tmp_path):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    path = tmp_path / "x.png"
    head = chunk(b"IHDR", struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b""))
    with pytest.raises(InputError, match="decompression bomb"):
        read_png(path)
