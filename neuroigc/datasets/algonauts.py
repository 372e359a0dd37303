"""The Algonauts 2023 challenge: NSD responses averaged over repeats, one row per image file.

Gifford et al. 2023, arXiv 2301.03198.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._array_files import open_npy
from neuroigc._validation import InputError, check_choice
from neuroigc.datasets._paths import PREFIXES, SURFACE_VERTICES, StrPath, subject_label
from neuroigc.datasets._png import read_png
from neuroigc.datasets.algonauts_rois import challenge_mask
from neuroigc.datasets.arrays import whole_numbers
from neuroigc.datasets.stimuli import prepare_image
from neuroigc.datasets.subjects import SubjectData

__all__ = ["image_files", "load_algonauts", "load_algonauts_images"]

BLOCK_ROWS = 256
# Of the release, subject by subject: images for training, vertices of the left and right
# hemisphere. Subjects 6 and 8 lost vertices that were not measured in every session.
RELEASE = {
    "01": (9841, 19004, 20544),
    "02": (9841, 19004, 20544),
    "03": (9082, 19004, 20544),
    "04": (8779, 19004, 20544),
    "05": (9841, 19004, 20544),
    "06": (9082, 18978, 20220),
    "07": (9841, 19004, 20544),
    "08": (8779, 18981, 20530),
}
SPLITS = {"training": "train", "test": "test"}


def load_algonauts(
    root: StrPath,
    subject: int | str,
    *,
    mask: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> SubjectData:
    """Load one subject's responses, which come z-scored per session and averaged over repeats.

    Parameters
    ----------
    root : path
        Folder with ``subj01``, ``subj02``, ...
    subject : int or str
        1, "01" or "subj01".
    mask : dict of "left" and "right" to bool array of shape (n_surface_vertices,), optional
        Vertices to load, among those of the challenge. By default all of the challenge's.

    Returns
    -------
    SubjectData
        ``n_repeats``, ``ncsnr`` and ``noise_ceiling`` are None, for the release does not hold
        them. The responses to the test images are withheld from the public; where there is a
        ``test_split/test_fmri`` its rows come too, with ``is_test`` true.

    Raises
    ------
    InputError
        If a file is missing or truncated, or numbers of images, responses and vertices differ.
    """
    label = subject_label(subject)
    folder = Path(root) / f"subj{label}"
    splits = [
        split
        for split in SPLITS
        if split == "training" or any(_fmri(folder, split, p).exists() for p in PREFIXES.values())
    ]
    ids = {split: np.array(list(image_files(folder, split)), dtype=np.int64) for split in splits}
    all_ids = np.concatenate(list(ids.values()))
    order = np.argsort(all_ids, kind="stable")
    if (np.diff(all_ids[order]) == 0).any():
        raise InputError(str(folder), expected="each image in one split", got="one in both")
    # Row of each split's k-th file in the result, which ascends by image.
    rank = np.argsort(order)
    rows = dict(zip(splits, np.split(rank, [len(ids["training"])]), strict=False))

    challenge = {side: challenge_mask(folder, prefix) for side, prefix in PREFIXES.items()}
    _check_release(folder, len(ids["training"]), challenge)
    columns, vertices, n_surface, n_dropped = {}, {}, {}, {}
    for side, inside in challenge.items():
        wanted = inside if mask is None else inside & _checked_mask(mask, side, inside)
        columns[side], vertices[side] = np.flatnonzero(wanted[inside]), np.flatnonzero(wanted)
        n_surface[side] = len(inside)
    n_left = len(columns["left"])
    responses = np.empty((len(all_ids), n_left + len(columns["right"])), dtype=np.float32)
    parts = {"left": slice(0, n_left), "right": slice(n_left, None)}
    for side, part in parts.items():
        for split in splits:
            path = _fmri(folder, split, PREFIXES[side])
            data = _open_npy(path, (len(ids[split]), int(challenge[side].sum())))
            for start in range(0, len(data), BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                responses[rows[split][block], part] = data[block][:, columns[side]]
    valid = np.isfinite(responses).all(axis=0) & (np.ptp(responses, axis=0) != 0)
    if not valid.any():
        raise InputError("mask", expected="at least one vertex with valid data", got="none")
    for side, part in parts.items():
        n_dropped[side] = int((~valid[part]).sum())
        vertices[side] = vertices[side][valid[part]]
    spaces = {count: space for space, count in SURFACE_VERTICES.items()}
    return SubjectData(
        subject=label,
        responses=responses if valid.all() else responses[:, valid],
        image_ids=all_ids[order],
        n_repeats=None,
        is_test=order >= len(ids["training"]),
        vertices=vertices,
        space=spaces.get(n_surface["left"], "unknown"),
        n_surface_vertices=n_surface,
        n_dropped=n_dropped,
    )


def load_algonauts_images(
    root: StrPath,
    subject: int | str,
    *,
    image_ids: npt.ArrayLike | None = None,
    split: str | None = None,
    size: int | None = None,
    gray: bool = True,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Load the images of one subject.

    Parameters
    ----------
    root, subject
        As in :func:`load_algonauts`.
    image_ids : array of int, optional
        0-based numbers of the images to load, in any order; by default all of the split.
    split : {"training", "test"}, optional
        Where to look. By default in the training split, or in both if there are ``image_ids``.
    size, gray
        As in :func:`neuroigc.datasets.prepare_image`.

    Returns
    -------
    images : array of shape (n_images, size, size), float32, 0 to 1
        Or (n_images, 3, size, size) if not ``gray``.
    image_ids : array of shape (n_images,), int64
        0-based numbers of the images: as asked for, or ascending, which are the rows of
        :func:`load_algonauts` of this split.

    Raises
    ------
    InputError
        If the split is unknown, has no image of a number asked for, or a file is damaged or, where
        no ``size`` is given, of another size than the others.
    """
    if split is not None:
        check_choice("split", split, SPLITS)
    folder = Path(root) / f"subj{subject_label(subject)}"
    splits = [split or "training"]
    if split is None and image_ids is not None and _images(folder, "test").is_dir():
        splits = list(SPLITS)
    files = {n: path for s in splits for n, path in image_files(folder, s).items()}
    images: npt.NDArray[np.float32] | None = None
    wanted = sorted(files)
    if image_ids is not None:
        wanted = whole_numbers("image_ids", image_ids, "0-based numbers of images").tolist()
    missing = sorted(set(wanted) - files.keys())
    if missing or not wanted:
        raise InputError(
            "image_ids",
            expected=f"numbers of images of subject {subject}'s {' and '.join(splits)} split",
            got=f"{len(missing)} others, such as {missing[0]}" if missing else "none",
        )
    for row, number in enumerate(wanted):
        pixels = prepare_image(read_png(files[number]), size=size, gray=gray)
        if images is None:
            images = np.empty((len(wanted), *pixels.shape), dtype=np.float32)
        if pixels.shape != images.shape[1:]:
            height, width = images.shape[-2:]
            raise InputError(
                str(files[number]),
                expected=f"{width} x {height} pixels, as {files[wanted[0]].name} has",
                got=f"{pixels.shape[-1]} x {pixels.shape[-2]}",
                fix="Name a size to bring all images to.",
            )
        images[row] = pixels
    return images, np.array(wanted, dtype=np.int64)


def _fmri(folder: Path, split: str, prefix: str) -> Path:
    return folder / f"{split}_split" / f"{split}_fmri" / f"{prefix}_{split}_fmri.npy"


def _images(folder: Path, split: str) -> Path:
    return folder / f"{split}_split" / f"{split}_images"


def image_files(folder: Path, split: str) -> dict[int, Path]:
    """Return the image files of a split by 0-based NSD number, in the order of the rows."""
    images = _images(folder, split)
    pattern = re.compile(rf"{SPLITS[split]}-\d+_nsd-(\d+)\.png")
    named = [
        (match[1], path)
        for path in sorted(images.glob("*.png"))
        if (match := pattern.fullmatch(path.name))
    ]
    if not named:
        raise InputError(
            "root", expected=f"{SPLITS[split]}-NNNN_nsd-NNNNN.png in {images}", got="none"
        )
    files = {int(number): path for number, path in named}
    if len(files) < len(named):
        raise InputError(
            str(images),
            expected="each image once",
            got=f"{len(named)} files of {len(files)} images",
        )
    return files


def _check_release(
    folder: Path, n_images: int, challenge: Mapping[str, npt.NDArray[np.bool_]]
) -> None:
    """Hold a subject as large as the release's against the release's numbers of vertices."""
    expected = RELEASE.get(folder.name.removeprefix("subj"))
    is_full = all(len(inside) == SURFACE_VERTICES["fsaverage"] for inside in challenge.values())
    if expected is None or n_images != expected[0] or not is_full:
        return
    found = tuple(int(inside.sum()) for inside in challenge.values())
    if found != expected[1:]:
        raise InputError(
            str(folder / "roi_masks"),
            expected=f"{expected[1]} and {expected[2]} vertices of the challenge",
            got=f"{found[0]} and {found[1]}",
            fix="Masks and responses may be of different subjects, or a mask is damaged.",
        )


def _checked_mask(
    mask: Mapping[str, npt.NDArray[np.bool_]], side: str, inside: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    given = np.asarray(mask[side]) if side in mask else np.empty(0)
    if given.dtype != bool or given.shape != inside.shape:
        raise InputError(
            f"mask[{side!r}]",
            expected=f"bool of shape {inside.shape}",
            got=f"{given.dtype} of shape {given.shape}",
        )
    return given


def _open_npy(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    data = open_npy(path)
    if shape is not None and data.dtype != np.float32:
        raise InputError(str(path), expected="responses in float32", got=f"{data.dtype}")
    if shape is not None and data.shape != shape:
        raise InputError(
            str(path),
            expected=f"shape {shape}, images by vertices of the challenge",
            got=f"{data.shape}",
        )
    return data
