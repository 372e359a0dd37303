"""FreeSurfer's MGH format: big-endian numbers behind 284 bytes, checked before one is used."""

from __future__ import annotations

import gzip
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neuroigc._files import reading
from neuroigc._validation import InputError

__all__ = [
    "check_believable",
    "check_mgh_length",
    "mgh_layout",
    "open_mgh",
    "parse_mgh_header",
    "read_mgh",
    "read_mgh_columns",
    "read_mgh_header",
]

HEADER_BYTES = 284
# FreeSurfer's type codes.
DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}
# What may stand behind the data: four or five numbers of the scan, then tags.
SCAN_BYTES = (0, 16, 20)
MOST_TAIL_BYTES = 2**24
# About what is read at once; how many times the vertices wanted there must be to skip the others.
BLOCK_BYTES, SPARSE = 2**22, 4
# From how many numbers on their sizes tell of the byte order.
MANY_NUMBERS = 100


class MghHeader(NamedTuple):
    """Shape (four axes, the first running fastest in the file) and type of the data."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]

    @property
    def data_bytes(self) -> int:
        """Return how many bytes the data take."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_mgh_header(path: Path) -> MghHeader:
    """Read the header of an uncompressed file.

    Raises
    ------
    InputError
        If the file is no MGH file.
    """
    with reading(path, "an MGH file"), path.open("rb") as file:
        return parse_mgh_header(file.read(HEADER_BYTES), path)


def check_mgh_length(path: Path, header: MghHeader) -> None:
    """Hold the header of an uncompressed file against the file's length.

    Raises
    ------
    InputError
        If the file is shorter than its header says, or longer by anything but what FreeSurfer
        puts behind the data.
    """
    size, announced = path.stat().st_size, HEADER_BYTES + header.data_bytes
    if size < announced:
        raise InputError(
            str(path),
            expected=f"at least {announced} bytes, as its header says",
            got=f"{size} bytes",
            fix="The file is truncated; obtain it again.",
        )
    with reading(path, "an MGH file of the shape that its header says"), path.open("rb") as file:
        file.seek(announced)
        _check_tail(file.read(min(size - announced, MOST_TAIL_BYTES + 1)))


def read_mgh(path: Path) -> npt.NDArray[Any]:
    """Read ``.mgh`` or ``.mgz`` whole: its four axes, native byte order.

    Raises
    ------
    InputError
        If the file is missing or not as long as its header says; of ``.mgz`` also if its checksum
        is wrong.
    """
    with (
        reading(path, "a whole, readable file"),
        (gzip.open if path.suffix == ".mgz" else open)(path, "rb") as file,
    ):
        header = parse_mgh_header(file.read(HEADER_BYTES), path)
        content = file.read(header.data_bytes)
        if len(content) < header.data_bytes:
            raise ValueError(f"{len(content)} bytes of data where it says {header.data_bytes}")
        _check_tail(file.read(MOST_TAIL_BYTES + 1))  # and with the end comes the checksum
        values = np.frombuffer(content, header.dtype).reshape(header.shape, order="F")
        check_believable(values)
    return values.astype(header.dtype.newbyteorder("="))


class MghLayout(NamedTuple):
    """What the header of an MGH file of surface data says; frames are contiguous in the file."""

    n_frames: int
    n_vertices: int
    dtype: np.dtype[np.generic]


def mgh_layout(path: Path) -> MghLayout:
    """Read the header of an uncompressed ``.mgh`` file of surface data.

    Parameters
    ----------
    path : Path
        File of shape (n_vertices, 1, 1, n_frames), or with the vertices on another of the first
        three axes.

    Raises
    ------
    InputError
        If the file is no MGH file of surface data, or not as long as its header says.
    """
    header = read_mgh_header(path)
    *shape, n_frames = header.shape
    if sorted(shape)[:2] != [1, 1]:
        raise InputError(
            str(path),
            expected="surface data of shape (n_vertices, 1, 1, n_frames)",
            got=f"shape {header.shape}",
        )
    check_mgh_length(path, header)
    return MghLayout(n_frames, max(shape), header.dtype)


def open_mgh(path: Path) -> np.memmap:
    """Map an uncompressed ``.mgh`` file of surface data without reading it.

    Returns
    -------
    memmap of shape (n_frames, n_vertices)

    Raises
    ------
    InputError
        As :func:`mgh_layout`; also if the first frame is of another type than the header says.
    """
    n_frames, n_vertices, dtype = mgh_layout(path)
    data = np.memmap(path, dtype, "r", HEADER_BYTES, (n_frames, n_vertices))
    with reading(path, "an MGH file of one type throughout"):
        check_believable(data[0])
    return data


def read_mgh_columns(
    path: Path, columns: npt.NDArray[np.int64], out: npt.NDArray[np.float32]
) -> Iterator[slice]:
    """Read some vertices of every frame into ``out`` of shape (n_frames, n_columns).

    Through a buffer that stays in the processor's cache: a memory map would keep all pages of the
    file in memory, and numbers are picked before their bytes are swapped, because most are not
    wanted. Where the columns lie close together, as those of a coarser template do, the rest of
    each frame is not read.

    Yields
    ------
    slice
        The frames that ``out`` holds from here on, while they are in the processor's cache.
    """
    n_frames, n_vertices, dtype = mgh_layout(path)
    if not len(columns):
        return
    first, span = int(columns.min()), int(np.ptp(columns)) + 1
    n_block, is_sparse = 1, SPARSE * span <= n_vertices
    if not is_sparse:
        n_block = min(n_frames, max(1, BLOCK_BYTES // (n_vertices * dtype.itemsize)))
    buffer = np.empty((n_block - 1) * n_vertices + span, dtype)
    picked, inside = np.empty((n_block, len(columns)), dtype), columns - first
    with path.open("rb", buffering=0) as file:
        if not is_sparse and hasattr(os, "posix_fadvise"):  # makes the system read further ahead
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for start in range(0, n_frames, n_block):
            block = slice(start, min(start + n_block, n_frames))
            count = block.stop - start
            frames = buffer[: (count - 1) * n_vertices + span]
            file.seek(HEADER_BYTES + (start * n_vertices + first) * dtype.itemsize)
            if file.readinto(frames.view(np.uint8).data) != frames.nbytes:
                raise InputError(
                    str(path), expected="a file that stays whole", got="one that became shorter"
                )
            for number in range(count):
                np.take(frames[number * n_vertices :], inside, out=picked[number], mode="wrap")
            out[block] = picked[:count]
            if not start:
                with reading(path, "an MGH file of one type throughout"):
                    check_believable(picked[:count])
            yield block


def check_believable(values: npt.NDArray[Any]) -> None:
    """Raise ValueError for numbers that were read as another type, or in another byte order.

    One wrong bit in the type does that, or a writer that forgot to swap bytes, and nothing else in
    the file would tell.
    """
    if values.dtype.kind == "i" and values.itemsize == 4 and values.size:
        # Annotations code colours in 24 bits; floating point from 1e-38 up would be more.
        if max(int(values.max()), -int(values.min())) >= 2**24:
            raise ValueError("whole numbers beyond 24 bits, as of a wrong type")
    elif values.dtype.kind == "f":
        size = np.abs(values[values != 0])
        if size.size and size.max() < np.finfo(np.float32).tiny:
            raise ValueError("nothing but numbers below 1e-38, as of a wrong type")
        # Bytes of noise in the wrong order are numbers of any size, a quarter of them on each side.
        extreme = [np.count_nonzero(size > 1e20), np.count_nonzero(size < 1e-20)]
        if MANY_NUMBERS <= size.size < 10 * min(extreme):
            raise ValueError("numbers beyond 1e20 and below 1e-20, as of a wrong byte order")


def parse_mgh_header(head: bytes, path: Path) -> MghHeader:
    """Return what the first bytes of a file say, which for ``path`` may be unpacked ones."""
    if len(head) < HEADER_BYTES or struct.unpack(">i", head[:4]) != (1,):
        raise ValueError(f"{len(head)} bytes that begin {head[:4]!r}")
    *shape, code = struct.unpack(">5i", head[4:24])
    if min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)}")
    if code not in DTYPES:
        raise InputError(str(path), expected=f"an MGH type of {list(DTYPES)}", got=f"type {code}")
    return MghHeader(tuple(shape), np.dtype(DTYPES[code]))


def _check_tail(tail: bytes) -> None:
    """Raise unless these are numbers of the scan and tags: data left over mean a wrong shape."""
    if not any(_are_tags(tail[start:]) for start in SCAN_BYTES if start <= len(tail)):
        raise ValueError(f"{len(tail)} bytes or more behind the data, which are no tags")


def _are_tags(tail: bytes) -> bool:
    while tail:
        tag, length = int.from_bytes(tail[:4], "big"), 0
        start = 4
        if tag == 30:  # an old transform, with a short length
            length, start = int.from_bytes(tail[4:8], "big"), 8
        elif tag not in (1, 2, 20):  # which have none
            length, start = int.from_bytes(tail[4:12], "big"), 12
        if not 0 < tag < 1000 or start + length > len(tail):
            return False
        tail = tail[start + length :]
    return True
