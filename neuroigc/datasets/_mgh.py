"""FreeSurfer MGH files of surface data, checked before a number is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neuroigc._files import reading
from neuroigc._mgh import (
    HEADER_BYTES,
    check_believable,
    check_mgh_length,
    read_mgh,
    read_mgh_header,
)
from neuroigc._validation import InputError

__all__ = ["mgh_layout", "open_mgh", "read_mgh_columns", "read_surface_vector"]

# About what is read at once; how many times the vertices wanted there must be to skip the others.
BLOCK_BYTES, SPARSE = 2**22, 4


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


def read_surface_vector(path: Path) -> npt.NDArray[np.generic]:
    """Read one number per vertex from ``.mgh`` or ``.mgz``; (N, 1, 1) and (1, 1, N) alike."""
    values = read_mgh(path).squeeze()
    if values.ndim != 1:
        raise InputError(str(path), expected="one number per vertex", got=f"shape {values.shape}")
    return values
