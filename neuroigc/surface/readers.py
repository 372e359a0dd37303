"""One door for values on the surface and one for labels, whatever the format."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroigc._validation import InputError, check_choice
from neuroigc._vertex_files import read_maps
from neuroigc.surface.cifti import CIFTI_ENDINGS, read_cifti
from neuroigc.surface.files import as_labels, hemisphere_paths, read_labels, without_background
from neuroigc.surface.spaces import HEMISPHERES
from neuroigc.surface.tables import read_color_table

__all__ = ["choose_map", "files_of", "read_surface_data", "read_surface_labels"]


def read_surface_data(path):
    """Read values of both hemispheres.

    Parameters
    ----------
    path : path-like or dict
        A path with ``{hemi}`` where the hemisphere stands, or a dict of "left" and "right" to
        paths: ``.mgh``, ``.mgz``, ``.gii`` (func or shape), gzipped or not. Or one CIFTI-2 file
        of both: ``.dscalar.nii``, ``.dtseries.nii``.

    Returns
    -------
    data : dict of str to array (n_maps, n_vertices)
        "left" and "right", each on the surface that the file is about, known here or not.
        Vertices that a CIFTI-2 file leaves out, as the medial wall, are NaN.
    names : list of str
        One for each map, the left hemisphere's; empty where the file does not say.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind, or the hemispheres differ in number of
        maps.
    """
    if _is_cifti(path):
        data, names, _ = read_cifti(Path(path))
        return data, names
    read = {side: read_maps(file) for side, file in hemisphere_paths(path).items()}
    n_maps = {side: len(maps) for side, (maps, _) in read.items()}
    if len(set(n_maps.values())) > 1:
        raise InputError(str(path), expected="as many maps on both sides", got=str(n_maps))
    return {side: maps for side, (maps, _) in read.items()}, read["left"][1]


def read_surface_labels(path, *, table=None, map=None):
    """Read labels of both hemispheres, and their names.

    Parameters
    ----------
    path : path-like or dict
        As in `read_surface_data`: ``.mgh``, ``.mgz``, ``.annot``, label ``.gii``; or one
        ``.dlabel.nii``.
    table : path-like or dict of int to str, optional
        Names of the labels, as in `load_atlas`.
    map : int or str, optional
        Which one, by number or name, where a CIFTI-2 file holds several.

    Returns
    -------
    labels : dict of str to int32 array (n_vertices,)
        0 where there is no area.
    tables : dict of str to dict of int to str
        Names of the labels above 0 of "left" and "right"; they may differ in FreeSurfer's files.

    Raises
    ------
    InputError
        If a file is missing, damaged or holds no labels, or no table is found.
    """
    if _is_cifti(path):
        data, names, tables = read_cifti(Path(path))
        if tables is None and table is None:
            raise InputError(str(path), expected="labels (.dlabel.nii)", got="values")
        k = choose_map(names, map, path)
        inside = None if tables is None else tables[k]
        read = {
            side: without_background(as_labels(np.nan_to_num(maps[k]), str(path)), inside)
            for side, maps in data.items()
        }
    else:
        read = {side: read_labels(file) for side, file in files_of(path).items()}
    labels = {side: values for side, (values, _) in read.items()}
    if table is not None and not isinstance(table, Mapping):
        table = read_color_table(table)
    tables = {}
    for side, (_, inside) in read.items():
        names = table if table is not None else inside
        names = _beside(files_of(path)[side]) if names is None else names
        tables[side] = {int(key): str(name) for key, name in names.items() if int(key) > 0}
    return labels, tables


def files_of(path):
    """Return the file of each hemisphere, which of CIFTI-2 is one."""
    return dict.fromkeys(HEMISPHERES, Path(path)) if _is_cifti(path) else hemisphere_paths(path)


def choose_map(names, chosen, path):
    """Return the number of the map that was asked for, of one by number or name."""
    if chosen is None:
        if len(names) != 1:
            raise InputError(
                str(path),
                expected="one map",
                got=f"{len(names)} maps: {', '.join(names[:5])}",
                fix="Choose one with map=, by its number or name.",
            )
        return 0
    if isinstance(chosen, str):
        check_choice("map", chosen, names)
        return names.index(chosen)
    check_choice("map", chosen, range(len(names)))
    return int(chosen)


def _is_cifti(path):
    return not isinstance(path, Mapping) and str(path).endswith(CIFTI_ENDINGS)


def _beside(path):
    """Read the table that lies beside a file of labels."""
    bare = path.name.split(".", 1)[1] if path.name[:3] in {"lh.", "rh."} else path.name
    tables = [stem + ".ctab" for name in (bare, path.name) for stem in (name, Path(name).stem)]
    # BIDS: of this file, or of both hemispheres' files.
    entities = path.name.split(".")[0].split("_")
    both = [entity for entity in entities if not entity.startswith("hemi-")]
    tables += ["_".join(parts) + ".tsv" for parts in (entities, both)]
    for name in tables:
        if path.with_name(name).is_file():
            return read_color_table(path.with_name(name))
    raise InputError(
        "table",
        expected=f"a table of names beside {path}",
        got=f"no {tables[0]}",
        fix="Pass table= as a path or a dict of number to name.",
    )
