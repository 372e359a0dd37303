"""FreeSurfer MGH files of surface data, checked before a number is used."""

from __future__ import annotations

from pathlib import Path

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

__all__ = ["open_mgh", "read_surface_vector"]


def open_mgh(path: Path) -> np.memmap:
    """Map an uncompressed ``.mgh`` file of surface data without reading it.

    Parameters
    ----------
    path : Path
        File of shape (n_vertices, 1, 1, n_frames), or with the vertices on another of the first
        three axes.

    Returns
    -------
    memmap of shape (n_frames, n_vertices)
        Frames are contiguous in the file.

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
    data = np.memmap(path, header.dtype, "r", HEADER_BYTES, (n_frames, max(shape)))
    with reading(path, "an MGH file of one type throughout"):
        check_believable(data[0])
    return data


def read_surface_vector(path: Path) -> npt.NDArray[np.generic]:
    """Read one number per vertex from ``.mgh`` or ``.mgz``; (N, 1, 1) and (1, 1, N) alike."""
    values = read_mgh(path).squeeze()
    if values.ndim != 1:
        raise InputError(str(path), expected="one number per vertex", got=f"shape {values.shape}")
    return values
