"""A study in the layout of NSD, written once more as the Algonauts 2023 challenge has it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._files import atomic_path, make_output_folder, reading
from neuroigc._vertex_files import read_map
from neuroigc.datasets import _paths
from neuroigc.datasets._hdf5 import read_part
from neuroigc.datasets._paths import BETA_VERSION, PREFIXES, StrPath
from neuroigc.datasets.nsd import load_nsd
from neuroigc.datasets.subjects import SubjectData

__all__ = ["write_algonauts"]

ALGONAUTS_CLASSES = (
    "prf-visualrois",
    "floc-bodies",
    "floc-faces",
    "floc-places",
    "floc-words",
    "streams",
)


def write_algonauts(
    nsd_root: StrPath,
    out: StrPath,
    *,
    subjects: Iterable[int | str],
    space: str,
    beta_version: str = BETA_VERSION,
    mask: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    test_responses: bool = False,
    progress: bool = False,
) -> Path:
    """Export a study in the layout of NSD in that of the Algonauts 2023 challenge.

    Images shared between subjects make the test split; the challenge took the last sessions'.
    Names of regions are written as JSON, where the challenge's are pickled.

    Parameters
    ----------
    nsd_root, out : path
        Root folders, to read and to write.
    subjects : iterable of int or str
        Subjects to export.
    space, beta_version, mask, progress
        As in :func:`neuroigc.datasets.load_nsd`; the mask is the challenge's choice of vertices.
    test_responses : bool
        Write ``test_split/test_fmri`` too, which the challenge withholds.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        As :func:`neuroigc.datasets.load_nsd`, and if stimuli are missing or damaged.
    """
    import h5py

    for subject in subjects:
        data = load_nsd(
            nsd_root, subject, space=space, beta_version=beta_version, mask=mask, progress=progress
        )
        folder = Path(out) / f"subj{data.subject}"
        n_left = len(data.vertices["left"])
        parts = {"left": slice(0, n_left), "right": slice(n_left, None)}
        for split, name, rows in (
            ("training", "train", ~data.is_test),
            ("test", "test", data.is_test),
        ):
            images = make_output_folder(folder / f"{split}_split" / f"{split}_images", "out")
            stimuli = _paths.stimuli_path(nsd_root)
            with reading(stimuli, "a whole HDF5 file"):
                file = h5py.File(stimuli, "r")
            with file:
                for number, image_id in enumerate(data.image_ids[rows], start=1):
                    with reading(stimuli, "a whole HDF5 file with imgBrick"):
                        image = read_part(file["imgBrick"], image_id)
                    _write_png(images / f"{name}-{number:04d}_nsd-{image_id:05d}.png", image)
            if split == "training" or test_responses:
                for side, part in parts.items():
                    file_name = f"{PREFIXES[side]}_{split}_fmri.npy"
                    _write_npy(
                        folder / f"{split}_split" / f"{split}_fmri" / file_name,
                        data.responses[rows, part],
                    )
        _write_roi_masks(nsd_root, folder / "roi_masks", data, space)
    return Path(out)


def _write_roi_masks(nsd_root: StrPath, folder: Path, data: SubjectData, space: str) -> None:
    inside = {}
    for side, prefix in PREFIXES.items():
        inside[side] = np.zeros(data.n_surface_vertices[side], dtype=np.int64)
        inside[side][data.vertices[side]] = 1
        _write_npy(folder / f"{prefix}.all-vertices_fsaverage_space.npy", inside[side])
    for class_name in ALGONAUTS_CLASSES:
        for owner in (f"subj{data.subject}", space):
            labels_folder = _paths.label_folder(nsd_root, owner)
            files = {
                side: labels_folder / f"{prefix}.{class_name}.mgz"
                for side, prefix in PREFIXES.items()
            }
            if not all(path.is_file() for path in files.values()):
                continue
            labels = {side: read_map(path).astype(int) for side, path in files.items()}
            # A subject's own surface is not the template's, unless the study was simulated so.
            if any(len(v) != data.n_surface_vertices[side] for side, v in labels.items()):
                continue
            for side, prefix in PREFIXES.items():
                stem, values = f"{prefix}.{class_name}", labels[side] * inside[side]
                _write_npy(folder / f"{stem}_fsaverage_space.npy", values)
                _write_npy(folder / f"{stem}_challenge_space.npy", values[data.vertices[side]])
            lines = (labels_folder / f"{class_name}.mgz.ctab").read_text(encoding="utf-8")
            table = dict(line.split(maxsplit=1) for line in lines.splitlines() if line.strip())
            with atomic_path(folder / f"mapping_{class_name}.json") as temporary:
                temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
            break


def _write_npy(path: Path, values: npt.NDArray[np.generic]) -> None:
    make_output_folder(path.parent, "out")
    with atomic_path(path) as temporary:
        np.save(temporary, values, allow_pickle=False)


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
