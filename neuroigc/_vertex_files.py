"""One number per vertex, out of the files that surface software writes."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from neuroigc._validation import InputError

__all__ = ["guard", "read_gifti", "read_map"]


def read_map(path):
    """Read one value per vertex.

    Parameters
    ----------
    path : path-like
        ``.mgh``, ``.mgz`` or ``.gii``. Shapes (n, 1, 1) and (1, 1, n) are both in use.

    Returns
    -------
    array (n_vertices,)
        In the type of the file (native byte order).

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, or holds more than one map.
    """
    path = Path(path)
    if path.name.endswith((".mgh", ".mgz")):
        values = guard(path, lambda: _read_mgh(path))
    elif path.name.endswith((".gii", ".gii.gz")):
        arrays = [np.asarray(array.data) for array in read_gifti(path).darrays]
        if len(arrays) != 1:
            raise InputError(str(path), expected="one map", got=f"{len(arrays)} data arrays")
        values = arrays[0]
    else:
        raise InputError("path", expected="a .mgh, .mgz or .gii file", got=str(path))
    if values.size != max(values.shape, default=0):
        raise InputError(
            str(path), expected="one map, one value per vertex", got=f"shape {values.shape}"
        )
    return values.reshape(-1).astype(values.dtype.newbyteorder("="))


def read_gifti(path):
    """Return a GIFTI image."""
    from nibabel import GiftiImage

    return guard(path, lambda: GiftiImage.from_filename(path))


def guard(path, read):
    """Return ``read()``, turning the many ways in which a damaged file fails into one."""
    if not path.is_file():
        raise InputError("path", expected="a file", got=f"nothing at {path}")
    from xml.parsers.expat import ExpatError

    from nibabel.filebasedimages import ImageFileError
    from nibabel.freesurfer.mghformat import MGHError
    from nibabel.spatialimages import HeaderDataError

    damaged = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError)
    try:
        return read()
    except (*damaged, zlib.error, ExpatError, ImageFileError, MGHError, HeaderDataError) as error:
        raise InputError(
            str(path),
            expected="a whole, readable file",
            got=f"{type(error).__name__}: {error}",
            fix="The file may be truncated or of another kind; obtain it again.",
        ) from error


def _read_mgh(path):
    from nibabel import MGHImage

    # All bytes at once: only then is the checksum of a .mgz looked at.
    with (gzip.open if path.name.endswith(".mgz") else open)(path, "rb") as file:
        return np.asarray(MGHImage.from_bytes(file.read()).dataobj)
