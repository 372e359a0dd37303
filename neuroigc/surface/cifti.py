"""CIFTI-2 files: values of both hemispheres, where the medial wall may be left out."""

import math

import numpy as np

from neuroigc._files import reading
from neuroigc._mgh import check_believable
from neuroigc._validation import InputError

__all__ = ["CIFTI_ENDINGS", "read_cifti"]

CIFTI_ENDINGS = (".dscalar.nii", ".dtseries.nii", ".dlabel.nii")
STRUCTURES = {"left": "CIFTI_STRUCTURE_CORTEX_LEFT", "right": "CIFTI_STRUCTURE_CORTEX_RIGHT"}


def read_cifti(path):
    """Read the cortex of a dense CIFTI-2 file.

    Parameters
    ----------
    path : Path
        ``.dscalar.nii``, ``.dtseries.nii`` or ``.dlabel.nii``. Voxels below the cortex are no
        surface data and are not read.

    Returns
    -------
    data : dict of str to array (n_maps, n_vertices), float32
        On whatever surface the file is about; NaN at vertices that it leaves out.
    names : list of str
        One for each map; of time series "time 0", ….
    tables : list of dict of int to str, or None
        Names of the labels of each map, if the file holds labels.

    Raises
    ------
    InputError
        If the file is damaged, has no such data, or lacks a hemisphere.
    """
    from xml.parsers.expat import ExpatError

    from nibabel import Nifti2Header
    from nibabel.cifti2 import Cifti2Image
    from nibabel.cifti2.cifti2 import Cifti2HeaderError
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    errors = (ExpatError, Cifti2HeaderError, ImageFileError, HeaderDataError, WrapStructError)
    with reading(path, "a whole CIFTI-2 file of surface data", also=errors):
        with path.open("rb") as file:
            _check_bytes(path, Nifti2Header.from_fileobj(file, check=False))
        image = Cifti2Image.from_filename(path)
        maps, brain = (image.header.get_axis(axis) for axis in (0, 1))
        values = np.asarray(image.dataobj)
        check_believable(values)
        if values.shape != (len(maps), len(brain)):
            raise ValueError(f"data of shape {values.shape} for axes of {len(maps)}, {len(brain)}")
        data = _expand(values, brain)
    missing = [side for side in STRUCTURES if side not in data]
    if missing:
        raise InputError(
            str(path), expected="cortex of both hemispheres", got=f"none on the {missing[0]}"
        )
    tables = None
    if hasattr(maps, "label"):
        tables = [{key: name for key, (name, _) in table.items()} for table in maps.label]
    names = getattr(maps, "name", [f"time {k}" for k in range(len(maps))])
    return data, [str(name) for name in names], tables


def _expand(values, brain):
    """Return whole surfaces; which vertices there are, only the file itself says."""
    data = {}
    for side, structure in STRUCTURES.items():
        columns = np.flatnonzero(np.asarray(brain.name) == structure)
        if not len(columns):
            continue
        vertices, n_vertices = brain.vertex[columns], brain.nvertices[structure]
        inside = vertices.min() >= 0 and vertices.max() < n_vertices
        if not inside or len(np.unique(vertices)) < len(vertices):
            raise ValueError(f"vertices that are not among {n_vertices} or come twice")
        data[side] = np.full((len(values), n_vertices), np.nan, np.float32)
        data[side][:, vertices] = values[:, columns]
    return data


def _check_bytes(path, header):
    """Raise unless the header's numbers and the file's length agree, and nothing is rescaled."""
    if header["magic"] != b"n+2":
        raise ValueError(f"a file of the kind {header['magic']!r}")
    shape = [int(n) for n in header["dim"][1:]]
    if int(header["dim"][0]) != 6 or min(shape) < 1 or shape[:4] != [1, 1, 1, 1] or shape[6] != 1:
        raise ValueError(f"shape {shape}")
    start = int(header["vox_offset"])
    announced = start + math.prod(shape) * header.get_data_dtype().itemsize
    extensions = header.single_vox_offset + header.extensions.get_sizeondisk()
    size = path.stat().st_size
    if size != announced or start != extensions:
        raise ValueError(f"{size} bytes where its header says {announced}")
    slope, offset = float(header["scl_slope"]), float(header["scl_inter"])
    # A slope of 0 is how NIfTI says that there is none.
    if not (np.isnan(slope) or slope == 0 or (slope == 1 and offset == 0)):
        raise ValueError(f"numbers to be scaled by {slope} and {offset}, which CIFTI-2 has not")
