"""Handwritten digits in the idx format (LeCun and Cortes), plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._validation import InputError, check_choice, check_same_length
from neuroigc.datasets._paths import StrPath

__all__ = ["load_mnist"]

PREFIXES = {"train": "train", "test": "t10k"}


def load_mnist(
    root: StrPath, *, split: str = "test"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Load digits, or anything else in the same files, as Fashion-MNIST.

    Parameters
    ----------
    root : path
        Folder with ``t10k-images-idx3-ubyte`` and its like, gzipped or not.
    split : {"test", "train"}
        The 10,000 or the 60,000 digits.

    Returns
    -------
    images : array of shape (n, 28, 28), float32
        0 is paper, 1 is ink.
    labels : array of shape (n,), int64
        0 to 9.

    Raises
    ------
    InputError
        If a file is missing, of another kind, truncated, or images and labels differ in number.
    """
    check_choice("split", split, PREFIXES)
    stem = Path(root) / PREFIXES[split]
    images = _read_idx(stem.with_name(f"{stem.name}-images-idx3-ubyte"), n_axes=3)
    labels = _read_idx(stem.with_name(f"{stem.name}-labels-idx1-ubyte"), n_axes=1)
    check_same_length(images=images, labels=labels)
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _read_idx(plain: Path, n_axes: int) -> npt.NDArray[np.uint8]:
    zipped = plain.with_name(f"{plain.name}.gz")
    path = plain if plain.is_file() else zipped
    if not path.is_file():
        raise InputError("root", expected=f"the file {plain} or {zipped.name}", got="neither")
    content = path.read_bytes()
    if path == zipped:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                str(path),
                expected="a whole gzip file",
                got=f"{len(content)} bytes that are not ({error})",
                fix="Obtain it again.",
            ) from error
    # Two zero bytes, 8 for unsigned bytes, the number of axes.
    magic = bytes([0, 0, 8, n_axes])
    if content[:4] != magic:
        raise InputError(str(path), expected=f"magic bytes {magic!r}", got=f"{content[:4]!r}")
    start = 4 + 4 * n_axes
    shape = np.frombuffer(content[4:start].ljust(4 * n_axes, b"\0"), ">u4").astype(np.int64)
    expected = start + int(shape.prod())
    if len(content) != expected:
        raise InputError(
            str(path),
            expected=f"{expected} bytes, as its header says",
            got=f"{len(content)} bytes",
            fix="Obtain it again.",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
