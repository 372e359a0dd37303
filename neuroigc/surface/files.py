"""Surface files to arrays and back: MGH/MGZ, GIFTI, FreeSurfer annotations and colour tables."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc._vertex_files import guard, read_gifti, read_map
from neuroigc.surface.spaces import HEMISPHERES, space_of

__all__ = [
    "as_labels",
    "hemisphere_paths",
    "load_mask",
    "read_color_table",
    "read_labels",
    "read_map",
    "write_label_gifti",
    "write_map_gifti",
]

_SPELLINGS = (("lh", "rh"), ("L", "R"), ("left", "right"))
_STRUCTURES = {"left": "CortexLeft", "right": "CortexRight"}
# FreeSurfer's and its users' names for "no area".
_BACKGROUND = {"unknown", "???", "none", "background", "medial_wall", "medialwall"}


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
    if not (np.isfinite(values).all() and np.array_equal(values, np.round(values))):
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
        table = read_gifti(path).labeltable.get_labels_as_dict() or None
    if table is not None:
        table = {int(key): str(name) for key, name in table.items()}
        nothing = [key for key, name in table.items() if key <= 0 or _is_background(name)]
        labels[np.isin(labels, nothing)] = 0
        table = {key: name for key, name in table.items() if key not in nothing}
    return labels, table


def _read_annotation(path):
    from nibabel.freesurfer import read_annot

    labels, _, names = guard(path, lambda: read_annot(path))
    names = [name.decode("utf-8", "replace") for name in names]
    # Entry 0 is FreeSurfer's "unknown" by custom only; where it is an area, all numbers move up.
    shift = 0 if names and _is_background(names[0]) else 1
    table = {i + shift: name for i, name in enumerate(names) if not _is_background(name)}
    labels = np.where(labels < 0, 0, labels + shift).astype(np.int32)
    nothing = [i + shift for i, name in enumerate(names) if _is_background(name)]
    labels[np.isin(labels, nothing)] = 0
    return labels, table


def read_color_table(path):
    """Read the names of labels from a text file.

    Parameters
    ----------
    path : path-like
        Lines of "number name", as NSD writes them, or of "number name red green blue alpha", a
        FreeSurfer colour table. Lines that begin with # are remarks.

    Returns
    -------
    dict of int to str
        Without the background.
    """
    path, table = Path(path), {}
    for number, line in enumerate(guard(path, lambda: path.read_text("utf-8")).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) >= 6 and all(word.isdecimal() for word in words[-4:]):
            words = words[:-4]
        if len(words) < 2 or not words[0].removeprefix("-").isdecimal():
            raise InputError(
                f"{path}, line {number}", expected="a number and a name", got=repr(line)
            )
        label, name = int(words[0]), " ".join(words[1:])
        if label > 0 and not _is_background(name):
            if table.get(label, name) != name:
                raise InputError(
                    f"{path}, line {number}",
                    expected="one name for each number",
                    got=f"{table[label]!r} and {name!r} for {label}",
                )
            table[label] = name
    return table


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


def _is_background(name):
    return name.strip().lower() in _BACKGROUND
