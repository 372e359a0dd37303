"""FreeSurfer MGH files of surface data, checked before a number is used."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neuroigc._validation import InputError

__all__ = ["mgh_layout", "open_mgh", "read_mgh_columns", "read_surface_vector"]

HEADER_BYTES = 284
# Frames read at once; how many times the vertices wanted there must be to skip the others.
BLOCK_FRAMES, SPARSE = 8, 4
# FreeSurfer's type codes; everything is big-endian.
DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}


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
        If the file is no MGH file of surface data, or shorter than its header says.
    """
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or struct.unpack(">i", head[:4]) != (1,):
        raise InputError(str(path), expected="an MGH file", got=f"one that begins {head[:4]!r}")
    *shape, n_frames, code = struct.unpack(">5i", head[4:])
    n_vertices = max(shape)
    if sorted(shape)[:2] != [1, 1] or n_frames < 1:
        raise InputError(
            str(path),
            expected="surface data of shape (n_vertices, 1, 1, n_frames)",
            got=f"shape {(*shape, n_frames)}",
        )
    if code not in DTYPES:
        raise InputError(str(path), expected=f"an MGH type of {list(DTYPES)}", got=f"type {code}")
    dtype = np.dtype(DTYPES[code])
    expected = HEADER_BYTES + n_vertices * n_frames * dtype.itemsize
    actual = path.stat().st_size
    if actual < expected:
        raise InputError(
            str(path),
            expected=f"at least {expected} bytes, as its header says",
            got=f"{actual} bytes",
            fix="The file is truncated; obtain it again.",
        )
    return MghLayout(n_frames, n_vertices, dtype)


def open_mgh(path: Path) -> np.memmap:
    """Map an uncompressed ``.mgh`` file of surface data without reading it.

    Returns
    -------
    memmap of shape (n_frames, n_vertices)

    Raises
    ------
    InputError
        As :func:`mgh_layout`.
    """
    n_frames, n_vertices, dtype = mgh_layout(path)
    return np.memmap(path, dtype, "r", HEADER_BYTES, (n_frames, n_vertices))


def read_mgh_columns(path: Path, columns: npt.NDArray[np.int64], out: np.ndarray) -> None:
    """Read some vertices of every frame into ``out`` of shape (n_frames, n_columns).

    Through a buffer of a few frames: a memory map would keep all pages of the file in memory, and
    half of the time would go into mapping them. Where the columns lie close together, as those of
    a coarser template do, the rest of each frame is not read.
    """
    n_frames, n_vertices, dtype = mgh_layout(path)
    if not len(columns):
        return
    first, span = int(columns.min()), int(np.ptp(columns)) + 1
    n_block = BLOCK_FRAMES if SPARSE * span > n_vertices else 1
    buffer = np.empty((n_block - 1) * n_vertices + span, dtype)
    picked, inside = np.empty(len(columns), dtype), columns - first
    with path.open("rb", buffering=0) as file:
        if n_block > 1 and hasattr(os, "posix_fadvise"):  # makes the system read further ahead
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for start in range(0, n_frames, n_block):
            count = min(n_block, n_frames - start)
            frames = buffer[: (count - 1) * n_vertices + span]
            file.seek(HEADER_BYTES + (start * n_vertices + first) * dtype.itemsize)
            if file.readinto(frames.view(np.uint8).data) != frames.nbytes:
                raise InputError(
                    str(path), expected="a file that stays whole", got="one that became shorter"
                )
            for number in range(count):
                np.take(frames[number * n_vertices :], inside, out=picked, mode="clip")
                out[start + number] = picked


def read_surface_vector(path: Path) -> npt.NDArray[np.generic]:
    """Read one number per vertex from ``.mgh`` or ``.mgz``; (N, 1, 1) and (1, 1, N) alike."""
    import nibabel as nib

    if path.suffix == ".mgh":
        values = np.asarray(open_mgh(path))
        values = values.astype(values.dtype.newbyteorder("="))
    else:
        values = np.asarray(nib.load(path).dataobj)
    values = values.squeeze()
    if values.ndim != 1:
        raise InputError(str(path), expected="one number per vertex", got=f"shape {values.shape}")
    return values
