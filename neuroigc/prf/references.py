"""Receptive fields known from elsewhere: the pRF experiment of NSD, Benson's atlas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice
from neuroigc._vertex_files import read_map
from neuroigc.prf.retinotopy import convert_angle, to_cartesian

__all__ = ["BENSON_AREAS", "NSD_AREAS", "load_reference_prfs"]

# Labels of prf-visualrois; the halves of an area have a label each.
NSD_AREAS = {1: "V1", 2: "V1", 3: "V2", 4: "V2", 5: "V3", 6: "V3", 7: "hV4"}
_BENSON_ORDER = "V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1", "LO2", "TO1", "TO2", "V3B", "V3A"
BENSON_AREAS = dict(enumerate(_BENSON_ORDER, start=1))

# What the files are called, after the hemisphere and before a version, which not all have.
_FILES = {
    "nsd": {
        "angle": "prfangle",
        "eccentricity": "prfeccentricity",
        "size": "prfsize",
        "r2": "prfR2",
        "area": "prf-visualrois",
    },
    "benson": {
        "angle": "benson14_angle",
        "eccentricity": "benson14_eccen",
        "size": "benson14_sigma",
        "area": "benson14_varea",
    },
}
_OPTIONAL = {"nsd": {"area"}, "benson": set()}
_SIDES = {"left": "lh", "right": "rh"}


def load_reference_prfs(
    folder: str | os.PathLike[str],
    *,
    kind: str = "nsd",
    vertices: Mapping[str, ArrayLike] | None = None,
) -> dict[str, np.ndarray]:
    """Load receptive fields of both hemispheres, in this package's convention.

    Parameters
    ----------
    folder : path-like
        Where the files lie: for "nsd" ``{lh,rh}.prfangle``, ``prfeccentricity``, ``prfsize``,
        ``prfR2`` and, if there, ``prf-visualrois`` (``nsddata/freesurfer/subjXX/label``); for
        "benson" ``{lh,rh}.benson14_angle``, ``_eccen``, ``_sigma`` and ``_varea``, with or
        without a version such as ``.v4_0``. All ``.mgz`` or ``.mgh``.
    kind : {"nsd", "benson"}
        Whose conventions the files follow. NSD counts angles counter-clockwise from the right
        horizontal meridian, Benson from the upper vertical one towards the contralateral field.
    vertices : dict of str to int array, optional
        Rows of "left" and "right" to return, the left ones first, as the columns of responses
        are. Default: all. Indices of fsaverage5 are right for files on fsaverage too.

    Returns
    -------
    dict of str to (n_vertices,) array
        ``x_deg`` (to the right), ``y_deg`` (upwards) and ``size_deg`` (1 SD) in degrees of
        visual angle, NaN where there is no estimate; ``r2``, 0-1, of the time series, NaN for
        an atlas; ``area``, the name of the visual area, "" elsewhere.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another length, or the vertices lie outside.

    Notes
    -----
    NSD's maps are on each subject's own surface: either bring them to the surface of the
    responses first, or use responses on the subject's own. They were measured within 4.2 deg of
    fixation; a threshold of ``r2`` about 0.1 is usual. Their size is sigma / sqrt(exponent).
    """
    check_choice("kind", kind, _FILES)
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("folder", expected="a folder of map files", got=f"none at {folder}")
    if vertices is not None and set(vertices) != set(_SIDES):
        raise InputError(
            "vertices", expected="the keys 'left' and 'right'", got=str(list(vertices))
        )
    parts = []
    for hemisphere in _SIDES:
        maps = _read_hemisphere(folder, kind, hemisphere)
        if vertices is not None:
            chosen = _indices(vertices[hemisphere], hemisphere, len(maps["angle"]))
            maps = {name: values[chosen] for name, values in maps.items()}
        parts.append(_convert(maps, kind, hemisphere))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read_hemisphere(folder: Path, kind: str, hemisphere: str) -> dict[str, np.ndarray]:
    """Return the raw maps of one hemisphere as floats; an optional one that is not there is 0."""
    maps = {}
    for name, stem in _FILES[kind].items():
        path = _find(folder, f"{_SIDES[hemisphere]}.{stem}", name in _OPTIONAL[kind])
        if path is not None:
            maps[name] = read_map(path).astype(float)
    lengths = {name: len(values) for name, values in maps.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(
            str(folder),
            expected=f"maps of one surface for the {hemisphere} hemisphere",
            got=", ".join(f"{name}: {length} vertices" for name, length in lengths.items()),
        )
    maps.setdefault("area", np.zeros(lengths["angle"]))
    maps.setdefault("r2", np.full(lengths["angle"], np.nan))
    return maps


def _find(folder: Path, stem: str, optional: bool) -> Path | None:
    """Return the one file of a map, with or without a version in its name."""
    endings = ("mgz", "mgh")
    plain = [folder / f"{stem}.{ending}" for ending in endings]
    found = [path for path in plain if path.is_file()]
    found = found or sorted(path for end in endings for path in folder.glob(f"{stem}.v*.{end}"))
    if len(found) > 1 or not (found or optional):
        raise InputError(
            str(folder),
            expected=f"one file {stem}.mgz or .mgh",
            got=", ".join(path.name for path in found) or "none",
        )
    return found[0] if found else None


def _indices(vertices: ArrayLike, hemisphere: str, n_vertices: int) -> np.ndarray:
    chosen = np.asarray(vertices)
    chosen = chosen.astype(int) if chosen.size == 0 else chosen
    inside = np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1
    if not inside or (chosen.size and (chosen.min() < 0 or chosen.max() >= n_vertices)):
        raise InputError(
            f"vertices[{hemisphere!r}]",
            expected=f"indices from 0 to {n_vertices - 1}, the vertices of the files",
            got=f"{chosen.dtype} values of shape {chosen.shape}"
            + (f", up to {chosen.max()}" if inside else ""),
            fix="NSD's maps are on each subject's own surface.",
        )
    return chosen


def _convert(maps: dict[str, np.ndarray], kind: str, hemisphere: str) -> dict[str, np.ndarray]:
    """Return one hemisphere's columns in the convention of this package."""
    areas = NSD_AREAS if kind == "nsd" else BENSON_AREAS
    area = np.array([areas.get(label, "") for label in np.nan_to_num(maps["area"]).tolist()])
    angle = convert_angle(maps["angle"], source=kind, target="nsd", hemisphere=hemisphere)
    x_deg, y_deg = to_cartesian(maps["eccentricity"], angle)
    # Benson's files hold zeros outside of the areas, which would all be at fixation.
    known = np.isfinite(x_deg) & (np.ones(len(area), bool) if kind == "nsd" else area != "")
    columns = {"x_deg": x_deg, "y_deg": y_deg, "size_deg": maps["size"], "r2": maps["r2"] / 100}
    return {name: np.where(known, v, np.nan) for name, v in columns.items()} | {"area": area}
