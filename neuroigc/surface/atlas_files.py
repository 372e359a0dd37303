"""Atlases from files: MGZ with a colour table, FreeSurfer annotations, GIFTI label files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroigc._validation import InputError
from neuroigc.surface.atlas import Atlas, check_named
from neuroigc.surface.files import hemisphere_paths, read_color_table, read_labels
from neuroigc.surface.spaces import HEMISPHERES, space_of

__all__ = ["load_atlas"]


def load_atlas(path, *, table=None, name=None):
    """Load an atlas of both hemispheres.

    Parameters
    ----------
    path : path-like or dict
        MGH/MGZ labels, a FreeSurfer ``.annot`` or a GIFTI label file: a path with ``{hemi}``
        where the hemisphere stands, such as ``label/{hemi}.prf-visualrois.mgz``, or a dict of
        "left" and "right" to paths.
    table : path-like or dict of int to str, optional
        Names of the labels. MGZ labels have theirs in ``<atlas>.mgz.ctab`` beside them, found
        by itself; the other formats have them inside.
    name : str, optional
        Of the atlas; from the file's name by default.

    Returns
    -------
    Atlas

    Raises
    ------
    InputError
        If a file is missing or damaged, no table is found, a label has no name in it, or the
        vertex counts are no known surface's.
    """
    paths = hemisphere_paths(path)
    read = {hemisphere: read_labels(file) for hemisphere, file in paths.items()}
    labels = {hemisphere: labels for hemisphere, (labels, _) in read.items()}
    space_of({side: len(values) for side, values in labels.items()}, str(path))
    if isinstance(table, Mapping):
        tables = [table, table]
    elif table is not None:
        tables = [read_color_table(table)] * 2
    else:
        tables = [
            _beside(paths[side]) if inside is None else inside for side, (_, inside) in read.items()
        ]
    tables = {
        side: {int(key): str(area) for key, area in one.items() if int(key) > 0}
        for side, one in zip(HEMISPHERES, tables, strict=True)
    }
    for hemisphere, values in labels.items():
        check_named(str(paths[hemisphere]), values, tables[hemisphere])
    labels, table = _one_table(labels, tables)
    return Atlas(_atlas_name(paths["left"]) if name is None else name, labels, table)


def _one_table(labels, tables):
    """Give both hemispheres one table: as they are where they agree, else new numbers by name."""
    joint = {**tables["left"], **tables["right"]}
    if all(joint[key] == name for one in tables.values() for key, name in one.items()):
        return labels, dict(sorted(joint.items()))
    names = list(dict.fromkeys([*tables["left"].values(), *tables["right"].values()]))
    number = {name: i for i, name in enumerate(names, 1)}
    renumbered = {}
    for hemisphere, values in labels.items():
        lookup = np.zeros(max(tables[hemisphere], default=0) + 1, np.int32)
        for key, name in tables[hemisphere].items():
            lookup[key] = number[name]
        renumbered[hemisphere] = lookup[values]
    return renumbered, {i: name for name, i in number.items()}


def _beside(path):
    """Read the table that lies beside a file of labels."""
    bare = path.name.split(".", 1)[1] if path.name[:3] in {"lh.", "rh."} else path.name
    candidates = [
        path.with_name(stem + ".ctab")
        for name in (bare, path.name)
        for stem in (name, Path(name).stem)
    ]
    for candidate in candidates:
        if candidate.is_file():
            return read_color_table(candidate)
    raise InputError(
        "table",
        expected=f"a table of names beside {path}",
        got=f"no {candidates[0].name}",
        fix="Pass table= as a path or a dict of number to name.",
    )


def _atlas_name(path):
    """Return ``prf-visualrois`` for ``lh.prf-visualrois.mgz``, the ``desc`` of BIDS names."""
    entities = dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)
    if "hemi" in entities:
        return entities.get("desc") or entities.get("atlas") or entities.get("seg") or "atlas"
    stem = path.name.removeprefix("lh.").removeprefix("rh.")
    for extension in (".gz", ".gii", ".label", ".mgz", ".mgh", ".annot"):
        stem = stem.removesuffix(extension)
    return stem
