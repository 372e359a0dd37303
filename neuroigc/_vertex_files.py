"""Numbers per vertex, out of the files that surface software writes."""

import gzip
from pathlib import Path

import numpy as np

from neuroigc._files import reading
from neuroigc._mgh import read_mgh
from neuroigc._validation import InputError

__all__ = ["read_gifti", "read_map", "read_maps"]


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
    maps, _ = read_maps(path)
    if len(maps) != 1:
        raise InputError(
            str(path), expected="one map, one value per vertex", got=f"{len(maps)} maps"
        )
    return maps[0]


def read_maps(path):
    """Read any number of values per vertex, as time series or several statistics.

    Parameters
    ----------
    path : path-like
        ``.mgh``, ``.mgz`` or ``.gii``, gzipped or not. In MGH files, the shapes (n, 1, 1, t),
        (1, 1, n, t), (n, t, 1) and (1, 1, t, n) are all in use: where the first axis does not say
        it, the longer one is that of the vertices.

    Returns
    -------
    maps : array (n_maps, n_vertices)
        In the type of the file (native byte order).
    names : list of str
        One for each; empty where the file does not say.
    """
    path = Path(path)
    if path.name.endswith((".mgh", ".mgz")):
        if not path.is_file():
            raise InputError("path", expected="a file", got=f"nothing at {path}")
        maps = _vertices_last(read_mgh(path), path)
        return maps, [""] * len(maps)
    if path.name.endswith((".gii", ".gii.gz")):
        arrays = read_gifti(path).darrays
        maps = [np.asarray(array.data) for array in arrays]
        shapes = {array.shape for array in maps}
        if len(shapes) != 1:
            raise InputError(
                str(path),
                expected="one or more data arrays of one shape",
                got=f"{len(maps)} data arrays" + f" of shapes {sorted(shapes)}" * bool(shapes),
            )
        names = [array.meta.get("Name", "") for array in arrays]
        if maps[0].ndim == 2 and len(maps) == 1:  # all maps in one array
            maps = list(_longer_axis_last(maps[0], path))
            names = names * len(maps)
        if maps[0].ndim != 1 or not maps[0].size:
            raise InputError(
                str(path), expected="one value per vertex", got=f"shape {maps[0].shape}"
            )
        maps = np.stack(maps)
        return maps.astype(maps.dtype.newbyteorder("=")), names
    raise InputError("path", expected="a .mgh, .mgz or .gii file", got=str(path))


def read_gifti(path):
    """Return a GIFTI image, all of whose data are in the file itself.

    GIFTI may name other files to read its data from; such a file is refused, for it could name
    any.
    """
    from xml.parsers.expat import ExpatError

    from nibabel import GiftiImage

    path = Path(path)
    if not path.is_file():
        raise InputError("path", expected="a file", got=f"nothing at {path}")
    with reading(path, "a whole, readable file", also=(ExpatError,)):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        image = GiftiImage.from_bytes(content)
        if any(array.data is None for array in image.darrays):
            raise ValueError("a data array without data")
    return image


def _vertices_last(values, path):
    """Return (n_maps, n_vertices) of the four axes of an MGH file."""
    long = [axis for axis, n in enumerate(values.shape) if n > 1]
    if len(long) > 2:
        raise InputError(
            str(path), expected="values of vertices, not of a volume", got=f"shape {values.shape}"
        )
    if len(long) < 2:
        return values.reshape(1, -1)
    plane = values.squeeze()
    return plane.T if long[0] == 0 and long[1] == 3 else _longer_axis_last(plane, path)


def _longer_axis_last(plane, path):
    n, m = plane.shape
    if n == m:
        raise InputError(
            str(path), expected="another number of maps than of vertices", got=f"{n} of both"
        )
    return plane if n < m else plane.T
