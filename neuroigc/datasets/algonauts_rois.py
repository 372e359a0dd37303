"""Regions of the Algonauts 2023 challenge: labels of vertices, and their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._array_files import open_npy
from neuroigc._validation import InputError, check_choice
from neuroigc.datasets._mappings import read_mapping
from neuroigc.datasets._paths import PREFIXES, StrPath, subject_label

__all__ = ["challenge_mask", "load_algonauts_rois"]


def load_algonauts_rois(
    root: StrPath, subject: int | str, class_name: str, *, space: str = "fsaverage"
) -> tuple[dict[str, npt.NDArray[np.int32]], dict[int, str]]:
    """Load the regions of one class, as "prf-visualrois" or "floc-faces".

    Not all regions exist in all subjects and hemispheres; empty ones are normal.

    Parameters
    ----------
    root, subject
        As in :func:`load_algonauts`.
    class_name : str
        As "streams".
    space : {"fsaverage", "challenge"}
        Labels of every vertex of the surface, or of those of the challenge, the columns of the
        responses.

    Returns
    -------
    labels : dict of "left" and "right" to array of shape (n_surface_vertices,), int32
        0 outside the regions and outside the challenge's vertices. Or (n_vertices,).
    table : dict of int to str
        The names. Those of the release are pickled; they are read without unpickling.

    Raises
    ------
    InputError
        If a file is missing or damaged, a label has no name, or the files of both spaces, where
        there are both, do not say the same.
    """
    check_choice("space", space, ("fsaverage", "challenge"))
    folder = Path(root) / f"subj{subject_label(subject)}"
    labels = {
        side: _labels_of_class(folder, prefix, class_name, space)
        for side, prefix in PREFIXES.items()
    }
    table = read_mapping(folder / "roi_masks", class_name)
    unnamed = {int(x) for v in labels.values() for x in np.unique(v) if x} - table.keys()
    if unnamed:
        raise InputError(
            class_name, expected="a name for every label", got=f"none for {sorted(unnamed)}"
        )
    return labels, table


def _labels_of_class(
    folder: Path, prefix: str, class_name: str, space: str
) -> npt.NDArray[np.int32]:
    """Return labels of one hemisphere, after comparing the files of both spaces."""
    inside = challenge_mask(folder, prefix)
    found = {}
    for name, n_labels in (("fsaverage", len(inside)), ("challenge", int(inside.sum()))):
        path = folder / "roi_masks" / f"{prefix}.{class_name}_{name}_space.npy"
        if name != space and not path.is_file():
            continue
        found[name] = _read_labels(path)
        if len(found[name]) != n_labels:
            raise InputError(
                str(path), expected=f"{n_labels} labels", got=f"{len(found[name])} labels"
            )
    if "fsaverage" in found:
        same = "challenge" not in found or np.array_equal(
            found["fsaverage"][inside], found["challenge"]
        )
        if found["fsaverage"][~inside].any() or not same:
            raise InputError(
                f"{folder / 'roi_masks'}: {prefix}.{class_name}",
                expected="the same labels in fsaverage and challenge space, and none outside",
                got="others",
                fix="One of the files is damaged or of another subject.",
            )
    return found[space]


def challenge_mask(folder: Path, prefix: str) -> npt.NDArray[np.bool_]:
    """Return which vertices of a hemisphere's surface the challenge uses."""
    return _read_labels(folder / "roi_masks" / f"{prefix}.all-vertices_fsaverage_space.npy", 1) > 0


def _read_labels(path: Path, most: int = 2**31 - 1) -> npt.NDArray[np.int32]:
    """Read one whole number per vertex."""
    values = open_npy(path)
    whole = values.dtype.kind in "biu" and values.ndim == 1 and values.size > 0
    if not whole or values.min() < 0 or values.max() > most:
        raise InputError(
            str(path),
            expected=f"whole numbers from 0 to {most}, one for each vertex",
            got=f"{values.dtype} of shape {values.shape}, {values.min(initial=0)} to "
            f"{values.max(initial=0)}"
            if values.dtype.kind in "biuf"
            else f"{values.dtype}",
        )
    return np.asarray(values).astype(np.int32)
