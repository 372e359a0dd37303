"""Surface files to arrays and back: MGH/MGZ, GIFTI, FreeSurfer annotations and colour tables."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc._vertex_files import read_gifti, read_map
from neuroigc.surface.annotations import read_annotation
from neuroigc.surface.spaces import HEMISPHERES, space_of
from neuroigc.surface.tables import is_background

__all__ = [
    "as_labels",
    "hemisphere_paths",
    "load_mask",
    "read_labels",
    "read_map",
    "without_background",
    "write_label_gifti",
    "write_map_gifti",
]

_SPELLINGS = (("lh", "rh"), ("L", "R"), ("left", "right"))
_STRUCTURES = {"left": "CortexLeft", "right": "CortexRight"}


def hemisphere_paths(path, argument="path"):
    """Return the files of both hemispheres.

    Parameters
    ----------
    path : path-like or dict
        A path with ``{hemi}`` where the hemisphere stands (``lh``/``rh``, ``L``/``R`` or
        ``left``/``right``, whichever is found), or a dict of "left" and "right" to paths.
    argument : str
        What to call it in an error.

    Returns
    -------
    dict of str to Path

    Raises
    ------
    InputError
        If it is neither, or a file is missing.
    """
    if isinstance(path, Mapping):
        if set(path) != set(HEMISPHERES):
            raise InputError(argument, expected="the keys 'left' and 'right'", got=str(list(path)))
        pairs = [{hemisphere: Path(path[hemisphere]) for hemisphere in HEMISPHERES}]
    elif "{hemi}" in os.fspath(path):
        pairs = [
            {
                hemisphere: Path(os.fspath(path).replace("{hemi}", spelling))
                for hemisphere, spelling in zip(HEMISPHERES, spellings, strict=True)
            }
            for spellings in _SPELLINGS
        ]
    else:
        raise InputError(
            argument,
            expected="a path with {hemi} where the hemisphere stands, or a dict of both paths",
            got=repr(os.fspath(path)),
            fix="For example 'label/{hemi}.prf-visualrois.mgz'.",
        )
    # The spelling with the most files: with one hemisphere missing, its error names the right file.
    pair = max(pairs, key=lambda pair: sum(file.is_file() for file in pair.values()))
    for hemisphere, file in pair.items():
        if not file.is_file():
            raise InputError(
                argument,
                expected=f"a file for the {hemisphere} hemisphere",
                got=f"nothing at {file}",
            )
    return pair


def load_mask(path):
    """Load a vertex mask of both hemispheres: True where the file is above zero.

    Parameters
    ----------
    path : path-like or dict
        As in :func:`hemisphere_paths`; ``nsdgeneral`` of NSD, for example.

    Returns
    -------
    dict of str to bool array (n_vertices,)
    """
    paths = hemisphere_paths(path)
    mask = {hemisphere: read_map(file) > 0 for hemisphere, file in paths.items()}
    space_of({hemisphere: len(values) for hemisphere, values in mask.items()}, str(path))
    return mask


def as_labels(values, argument):
    """Return whole numbers as int32, with 0 for -1, which is "not cortex" in NSD's files."""
    values = np.asarray(values)
    whole = np.isfinite(values).all() and np.array_equal(values, np.round(values))
    if not whole or (values.size and np.abs(values.astype(np.float64)).max() >= 2**31):
        raise InputError(
            argument, expected="whole numbers, one label per vertex", got="other values"
        )
    labels = values.astype(np.int32)
    return np.where(labels == -1, np.int32(0), labels)


def read_labels(path):
    """Read one hemisphere's labels and, where the file has one, its table of names.

    Parameters
    ----------
    path : path-like
        ``.mgh``/``.mgz`` (no table inside), ``.annot`` or GIFTI label file.

    Returns
    -------
    labels : int32 array (n_vertices,)
        0 where there is no area.
    table : dict of int to str, or None
        Names of the labels above 0.

    Raises
    ------
    InputError
        As :func:`read_map`; also for values that are no whole numbers.
    """
    path = Path(path)
    if path.name.endswith(".annot"):
        return _read_annotation(path)
    labels = as_labels(read_map(path), str(path))
    table = None
    if path.name.endswith((".gii", ".gii.gz")):
        entries = read_gifti(path).labeltable
        table = entries.get_labels_as_dict() or None
        if table is not None and len(table) < len(entries.labels):
            raise InputError(
                str(path), expected="every label once", got="a label with two names, or none"
            )
    return without_background(labels, table)


def without_background(labels, table):
    """Return labels with 0 for whatever the table calls background, and a table without it."""
    if table is not None:
        table = {int(key): str(name) for key, name in table.items()}
        nothing = [key for key, name in table.items() if key <= 0 or is_background(name)]
        labels = np.where(np.isin(labels, nothing), np.int32(0), labels)
        table = {key: name for key, name in table.items() if key not in nothing}
    return labels, table


def _read_annotation(path):
    labels, names = read_annotation(path)
    # Entry 0 is FreeSurfer's "unknown" by custom only; where it is an area, all numbers move up.
    shift = 0 if names and is_background(names[0]) else 1
    table = {i + shift: name for i, name in enumerate(names) if not is_background(name)}
    labels = np.where(labels < 0, 0, labels + shift).astype(np.int32)
    nothing = [i + shift for i, name in enumerate(names) if is_background(name)]
    labels[np.isin(labels, nothing)] = 0
    return labels, table


def write_map_gifti(path, values, hemisphere, *, name, metadata=None):
    """Write one hemisphere's map as GIFTI, float32 with the intent of its extension."""
    from nibabel.gifti import GiftiDataArray, GiftiMetaData

    array = GiftiDataArray(
        np.asarray(values, np.float32),
        intent="NIFTI_INTENT_SHAPE",
        datatype="NIFTI_TYPE_FLOAT32",
        meta=GiftiMetaData({"Name": name, **(metadata or {})}),
    )
    _write_gifti(path, array, hemisphere)


def write_label_gifti(path, labels, table, hemisphere, *, name):
    """Write one hemisphere's labels and their names as GIFTI.

    The labels are int32, so that atlases of more than 255 areas survive.
    """
    from nibabel.gifti import GiftiDataArray, GiftiLabel, GiftiLabelTable, GiftiMetaData

    label_table = GiftiLabelTable()
    for key, area in {0: "unknown", **table}.items():
        label = GiftiLabel(key, *_color(key))
        label.label = area
        label_table.labels.append(label)
    array = GiftiDataArray(
        np.asarray(labels, np.int32),
        intent="NIFTI_INTENT_LABEL",
        datatype="NIFTI_TYPE_INT32",
        meta=GiftiMetaData({"Name": name}),
    )
    _write_gifti(path, array, hemisphere, labeltable=label_table)


def _write_gifti(path, array, hemisphere, **options):
    import nibabel

    structure = nibabel.gifti.GiftiMetaData({"AnatomicalStructurePrimary": _STRUCTURES[hemisphere]})
    image = nibabel.GiftiImage(darrays=[array], meta=structure, **options)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _color(key):
    """Return a colour for viewers that want one: hues a golden angle apart."""
    import colorsys

    return (*colorsys.hsv_to_rgb(key * 0.618034 % 1, 0.7, 0.9), 1.0) if key else (0, 0, 0, 0)
