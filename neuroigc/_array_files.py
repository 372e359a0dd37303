"""NumPy's files, held against their own bytes before a number of them is used."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from neuroigc._files import OBTAIN, reading

__all__ = ["hash_of", "open_npy", "read_npz"]

PLAIN = "biufcSU"
BLOCK_BYTES = 2**24


def open_npy(path: str | os.PathLike[str], *, fix: str = OBTAIN) -> npt.NDArray[Any]:
    """Map a ``.npy`` file, read-only; ``fix`` is what to do about a damaged one.

    Raises
    ------
    InputError
        If it is missing or damaged, holds anything but plain numbers or text, or is not exactly as
        long as its header says.
    """
    path = Path(path)
    with reading(path, "a whole .npy file", fix=fix), path.open("rb") as file:
        size = path.stat().st_size
        shape, order, dtype = _read_header(file, size)
        if not size - file.tell():
            return np.empty(shape, dtype, order)
        array: npt.NDArray[Any] = np.memmap(path, dtype, "r", file.tell(), shape, order)
        return array


def read_npz(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of a ``.npz`` file.

    Raises
    ------
    InputError
        If it is missing or damaged, or holds anything but arrays of plain numbers or text.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    path = Path(path)
    with (
        reading(path, "a .npz file of plain arrays", also=(NotImplementedError,)),
        path.open("rb") as file,
    ):
        if file.read(6) == b"\x93NUMPY":
            raise ValueError("a single .npy array. Save named arrays with numpy.savez")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            strange = sorted(name for name in names if not name.endswith(".npy"))
            if strange:
                raise ValueError(f"also {strange}")
            if len(set(names)) < len(names):
                raise ValueError("a name that comes twice")
            _check_count(file, len(members))
            for member in members:
                with archive.open(member) as stream:
                    array = _read_array(stream, member.file_size)
                arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def hash_of(values: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of the numbers, in C order and native bytes, whatever they are kept in."""
    digest = hashlib.sha256()
    rows = np.atleast_1d(values)
    n_block = max(1, BLOCK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), n_block):
        block = rows[start : start + n_block]
        digest.update(block.astype(block.dtype.newbyteorder("="), copy=False).tobytes())
    return digest.hexdigest()


def _check_count(file: IO[bytes], n_members: int) -> None:
    """Compare the number of members with what the archive ends with.

    One wrong length in the list of members swallows the next of them.
    """
    file.seek(-22, os.SEEK_END)
    tail = file.read()
    (announced,) = struct.unpack("<H", tail[10:12])
    if tail[:4] != b"PK\x05\x06" or announced not in (n_members, 0xFFFF):
        raise ValueError(f"{n_members} arrays, which is not the number that its end tells")


def _read_array(stream: IO[bytes], size: int) -> npt.NDArray[Any]:
    shape, order, dtype = _read_header(stream, size)
    array = np.empty(math.prod(shape), dtype)
    bytes_ = array.view(np.uint8).data if array.size else memoryview(b"")
    start = 0
    while block := stream.read(BLOCK_BYTES):  # to the end, where the checksum is looked at
        bytes_[start : start + len(block)] = block
        start += len(block)
    if start < len(bytes_):
        raise EOFError("fewer bytes than announced")
    return array.reshape(shape, order=order)


def _read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], Any, np.dtype[Any]]:
    """Return shape, order and dtype, if so many bytes in all are what they need."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format")
    if dtype.hasobject:
        raise ValueError("pickled objects, which are not loaded: they may be programmes")
    if dtype.kind not in PLAIN or dtype.itemsize == 0 or any(n < 0 for n in shape):
        raise ValueError(f"{dtype} of shape {shape}")
    announced = stream.tell() + math.prod(shape) * dtype.itemsize
    if size != announced:
        raise ValueError(f"{size} bytes where its header says {announced}")
    return shape, "F" if is_fortran else "C", dtype
