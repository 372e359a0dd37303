"""The idx format, plain and gzipped, whole and broken."""

import gzip
import struct

import numpy as np
import pytest

from neuroigc._validation import InputError
from neuroigc.datasets import load_mnist

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def digits(tmp_path, rng):
    """Write idx files by hand; return the folder and what is in them."""
    images = rng.integers(0, 256, size=(5, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, size=5, dtype=np.uint8)
    (tmp_path / IMAGES).write_bytes(struct.pack(">4I", 0x803, 5, 28, 28) + images.tobytes())
    (tmp_path / LABELS).write_bytes(struct.pack(">2I", 0x801, 5) + labels.tobytes())
    return tmp_path, images, labels


def zip_in_place(folder):
    for name in (IMAGES, LABELS):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()


@pytest.mark.parametrize("zipped", [False, True])
def test_images_and_labels(digits, zipped):
    folder, images, labels = digits
    if zipped:
        zip_in_place(folder)
    read, read_labels = load_mnist(folder, split="train")
    np.testing.assert_array_equal(read, images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(read_labels, labels)
    assert (read.dtype, read_labels.dtype) == (np.float32, np.int64)


def test_wrong_split_or_folder(digits):
    with pytest.raises(InputError, match="split: expected one of 'train', 'test'; got 'val'"):
        load_mnist(digits[0], split="val")
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte or .*\.gz; got neither"):
        load_mnist(digits[0], split="test")


def test_wrong_magic(digits):
    folder, *_ = digits
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(b"\0\0\x0d\3" + content[4:])
    with pytest.raises(InputError, match=rf"{IMAGES}: expected magic bytes"):
        load_mnist(folder, split="train")


@pytest.mark.parametrize("keep", [6, 100, -1])
def test_truncated(digits, keep):
    folder, *_ = digits
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"{IMAGES}: expected \d+ bytes, as its header says"):
        load_mnist(folder, split="train")


@pytest.mark.parametrize("damage", [slice(None, -20), slice(30, None)])
def test_damaged_gzip(digits, damage):
    folder, *_ = digits
    zip_in_place(folder)
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(InputError, match=rf"{IMAGES}.gz: expected a whole gzip file"):
        load_mnist(folder, split="train")


def test_numbers_of_images_and_labels_differ(digits):
    folder, *_ = digits
    (folder / LABELS).write_bytes(struct.pack(">2I", 0x801, 4) + bytes(4))
    with pytest.raises(InputError, match="images has 5, labels has 4"):
        load_mnist(folder, split="train")


@pytest.mark.data
def test_real_digits(real_data):
    images, labels = load_mnist(real_data / "mnist")
    assert images.shape == (10000, 28, 28)
    assert (images.min(), images.max()) == (0, 1)
    np.testing.assert_array_equal(labels[:5], [7, 2, 1, 0, 4])
    np.testing.assert_array_equal(
        np.bincount(labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    # Ones take the least ink, zeros the most.
    ink = [images[labels == digit].mean() for digit in range(10)]
    assert (np.argmin(ink), np.argmax(ink)) == (1, 0)
