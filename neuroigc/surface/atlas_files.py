"""Atlases from files: MGZ with a colour table, annotations, GIFTI and CIFTI label files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroigc.surface.atlas import Atlas, check_named
from neuroigc.surface.readers import files_of, read_surface_labels
from neuroigc.surface.spaces import space_of

__all__ = ["load_atlas"]


def load_atlas(path, *, table=None, name=None, map=None):
    """Load an atlas of both hemispheres.

    Parameters
    ----------
    path : path-like or dict
        MGH/MGZ labels, a FreeSurfer ``.annot`` or a GIFTI label file: a path with ``{hemi}``
        where the hemisphere stands, such as ``label/{hemi}.prf-visualrois.mgz``, or a dict of
        "left" and "right" to paths; or a CIFTI-2 ``.dlabel.nii`` of both.
    table : path-like or dict of int to str, optional
        Names of the labels. MGZ labels have theirs in ``<atlas>.mgz.ctab`` beside them, found
        by itself as is the ``_dseg.tsv`` of BIDS; the other formats have them inside.
    name : str, optional
        Of the atlas; from the file's name by default.
    map : int or str, optional
        Which one, by number or name, where a CIFTI-2 file holds several.

    Returns
    -------
    Atlas

    Raises
    ------
    InputError
        If a file is missing or damaged, no table is found, a label has no name in it, or the
        vertex counts are no known surface's.
    """
    labels, tables = read_surface_labels(path, table=table, map=map)
    space_of({side: len(values) for side, values in labels.items()}, str(path))
    for hemisphere, values in labels.items():
        check_named(str(files_of(path)[hemisphere]), values, tables[hemisphere])
    labels, table = _one_table(labels, tables)
    return Atlas(_atlas_name(path) if name is None else name, labels, table)


def _one_table(labels, tables):
    """Give both hemispheres one table: as they are where they agree, else new numbers by name."""
    joint = {**tables["left"], **tables["right"]}
    if all(joint[key] == name for one in tables.values() for key, name in one.items()):
        return labels, dict(sorted(joint.items()))
    names = list(dict.fromkeys([*tables["left"].values(), *tables["right"].values()]))
    number = {name: i for i, name in enumerate(names, 1)}
    renumbered = {}
    for hemisphere, values in labels.items():
        new = {0: 0} | {key: number[name] for key, name in tables[hemisphere].items()}
        keys, where = np.unique(values, return_inverse=True)
        renumbered[hemisphere] = np.array([new[key] for key in keys.tolist()], np.int32)[where]
    return renumbered, {i: name for name, i in number.items()}


def _atlas_name(path):
    """Return ``prf-visualrois`` for ``lh.prf-visualrois.mgz``, the ``desc`` of BIDS names."""
    path = Path(path["left"] if isinstance(path, Mapping) else path)
    entities = dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)
    if "hemi" in entities:
        return entities.get("desc") or entities.get("atlas") or entities.get("seg") or "atlas"
    stem = path.name
    for prefix in ("lh.", "rh.", "{hemi}."):
        stem = stem.removeprefix(prefix)
    for extension in (".gz", ".gii", ".label", ".mgz", ".mgh", ".annot", ".nii", ".dlabel"):
        stem = stem.removesuffix(extension)
    return stem
