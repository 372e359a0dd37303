"""Samples for the networks, put together from a study folder's prepared files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc.cli.preparing import image_owners
from neuroigc.cli.sources import open_source
from neuroigc.datasets import StackedRows, SubjectData, load_image_cache
from neuroigc.stats import noise_ceiling
from neuroigc.surface.bids import bids_label
from neuroigc.surface.spaces import HEMISPHERES

__all__ = [
    "HEMISPHERES",
    "DecodingSamples",
    "EncodingSamples",
    "common_vertices",
    "decoding_samples",
    "encoding_images",
    "encoding_samples",
    "load_features",
    "read_table",
    "write_features",
    "write_table",
]


# Columns of the table of features that are none.
ABOUT = ("held_out", "shown")
# Columns of names, in whichever table.
_WORDS = ("subject", "hemisphere", "atlas", "roi", "output", "status", "check", "light", "meaning")


class DecodingSamples(NamedTuple):
    """Vertices → features: one row per subject and image.

    ``shown`` is the same for rows of all subjects on which the same was shown.
    """

    responses: StackedRows
    features: np.ndarray
    conditions: np.ndarray
    shown: np.ndarray
    vertices: dict[str, np.ndarray]


class EncodingSamples(NamedTuple):
    """Images → vertices of one subject.

    ``rows`` are the places of these images among all that the subject saw, ``shown`` is the same
    where the same was shown, ``roi`` the area of each vertex, and ``noise_ceiling`` is explainable
    variance (0-1); ``n_repeats``, ``ncsnr`` and it are None where the release does not say.
    """

    images: np.ndarray
    responses: np.ndarray
    rows: np.ndarray
    shown: np.ndarray
    vertices: dict[str, np.ndarray]
    roi: np.ndarray
    n_repeats: np.ndarray | None
    ncsnr: np.ndarray | None
    noise_ceiling: np.ndarray | None


def decoding_samples(folder, *, held_out: bool, subject: str | None = None) -> DecodingSamples:
    """Return samples of all subjects, or of one, at the vertices that all subjects have.

    Conditions are the positions of the subjects in the study's list. Responses stay where they
    are until they are asked for: those of all subjects may be too much for the memory.
    """
    config = folder.config
    features = load_features(folder)
    vertices = common_vertices(folder)
    stores, parts = [], []
    for number, name in enumerate(config.data.subjects):
        if subject not in (None, name):
            continue
        data = SubjectData.load(folder.prepared(name))
        table = features.loc[data.image_ids]
        rows = np.flatnonzero(table["held_out"] == held_out)
        values = table[list(config.decoding.features)].to_numpy(np.float64)[rows]
        stores.append((data.responses, rows, _columns(data, vertices)))
        parts.append((values, np.full(len(rows), number), table["shown"].to_numpy()[rows]))
    values, conditions, shown = (np.concatenate(part) for part in zip(*parts, strict=True))
    return DecodingSamples(StackedRows(stores), values, conditions, shown, vertices)


def encoding_samples(folder, subject: str, *, held_out: bool) -> EncodingSamples:
    """Return one subject's samples, with the ceiling that repeats of these images allow.

    Vertices are those of the areas whose receptive fields are asked for, or all.
    """
    part = folder.config.encoding
    data = SubjectData.load(folder.prepared(subject))
    images = encoding_images(folder, subject)
    table = load_features(folder).loc[data.image_ids]
    rows = np.flatnonzero(table["held_out"] == held_out)
    names = _names_of_areas(folder, subject, data.vertices)
    kept = np.isin(names, part.rois) | part.elsewhere
    if not kept.any():
        raise InputError(
            "[encoding] rois",
            expected="areas with vertices inside the mask",
            got=f"none of {', '.join(part.rois)} in subject {subject}",
            fix="Set `elsewhere = true` to encode all vertices.",
        )
    n_left = len(data.vertices["left"])
    sides = zip(HEMISPHERES, (kept[:n_left], kept[n_left:]), strict=True)
    repeats = None if data.n_repeats is None else data.n_repeats[rows]
    ncsnr = None if data.ncsnr is None else data.ncsnr[kept]
    known = repeats is not None and ncsnr is not None
    return EncodingSamples(
        images=images[rows],
        responses=data.responses[np.ix_(rows, kept)],
        rows=rows,
        shown=table["shown"].to_numpy()[rows],
        vertices={side: data.vertices[side][own] for side, own in sides},
        roi=names[kept],
        n_repeats=repeats,
        ncsnr=ncsnr,
        noise_ceiling=noise_ceiling(ncsnr, n_repeats=repeats) if known else None,
    )


def encoding_images(folder, subject: str) -> np.ndarray:
    """Return all images that a subject saw, at the encoder's size."""
    images, image_ids = load_image_cache(folder.images)
    own = SubjectData.load(folder.prepared(subject)).image_ids
    if not np.isin(own, image_ids).all():
        raise InputError(
            str(folder.images),
            expected=f"every image that subject {subject} saw",
            got=f"{len(image_ids)} others",
            fix="Run `neuroigc prepare` again.",
        )
    return images[np.searchsorted(image_ids, own)]


def _names_of_areas(folder, subject, vertices):
    """Return the area of each column; where areas overlap, the first of the atlas."""
    atlas = open_source(folder.config).atlas(subject, folder.config.rois)
    names = np.full(sum(len(vertices[side]) for side in HEMISPHERES), "elsewhere", dtype=object)
    for area, columns in reversed(atlas.groups(vertices).items()):
        names[columns] = area
    return names


def common_vertices(folder) -> dict[str, np.ndarray]:
    """Return the vertices that every subject has: one network serves all of them."""
    subjects = folder.config.data.subjects
    kept = [SubjectData.load(folder.prepared(subject)).vertices for subject in subjects]
    common = {}
    for side in HEMISPHERES:
        common[side] = kept[0][side]
        for vertices in kept[1:]:
            common[side] = np.intersect1d(common[side], vertices[side])
    if not sum(map(len, common.values())):
        raise InputError(
            "[data] subjects", expected="subjects with vertices in common", got="none in common"
        )
    return common


def _columns(data, vertices):
    """Return where ``vertices`` stand among the columns of ``data``."""
    left = np.searchsorted(data.vertices["left"], vertices["left"])
    right = np.searchsorted(data.vertices["right"], vertices["right"])
    return np.concatenate([left, right + len(data.vertices["left"])])


def load_features(folder) -> pd.DataFrame:
    """Return the features of every image, indexed by image id, with the columns of ``ABOUT``."""
    # A feature may be called like a column of words elsewhere, and is a number.
    table = read_table(folder, "prepare", folder.features, ("image_id", *ABOUT), words=())
    return table.set_index("image_id")


def read_table(folder, stage: str, path: Path, columns, *, words=_WORDS) -> pd.DataFrame:
    """Read a table that a stage wrote, with at least these columns."""
    with folder.reading(stage, path):
        # What is called NA or 01 is called so.
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=dict.fromkeys(words, str),
            keep_default_na=False,
            na_values=["n/a"],
        )
        table[list(columns)]  # a KeyError names those that are missing
    return table


def write_features(folder, source) -> None:
    """Compute the features of all images and choose which images are held out.

    Images that a release keeps for testing are held out, and of the others a random share of
    ``test_fraction``; all by image, so that no repeat of a test image is trained on.
    """
    config = folder.config
    owner, is_test = image_owners(folder, config.data.subjects), set()
    for subject in config.data.subjects:
        data = SubjectData.load(folder.prepared(subject))
        is_test.update(data.image_ids[data.is_test].tolist())
    image_ids = np.array(sorted(owner))
    others = np.array([i for i in image_ids if i not in is_test], dtype=int)
    chosen = np.random.default_rng(config.seed).permutation(others)
    is_test.update(chosen[: round(config.data.test_fraction * len(others))].tolist())
    if not 0 < len(is_test) < len(image_ids):
        raise InputError(
            "[data] test_fraction",
            expected="images both to train on and to hold out",
            got=f"{len(is_test)} of {len(image_ids)} held out",
        )

    table = pd.DataFrame(index=pd.Index(image_ids, name="image_id"))
    table["held_out"] = np.isin(image_ids, list(is_test)).astype(int)
    table["shown"] = source.shown(image_ids)
    subjects = np.array([owner[i] for i in image_ids])
    parts = [(subject, image_ids[subjects == subject]) for subject in config.data.subjects]
    table = table.join(pd.concat([source.features(*part) for part in parts if len(part[1])]))
    if config.decoding and config.decoding.features_file:
        own_features = _read_own_features(Path(config.decoding.features_file), image_ids)
        clash = sorted(set(own_features) & set(table))
        if clash:
            raise InputError(
                "[decoding] features_file",
                expected="columns with names of their own",
                got=", ".join(clash),
                fix="Rename them.",
            )
        table = table.join(own_features)
    features = config.decoding.features if config.decoding else ()
    for name in features:
        _check_feature(table, name)
    _check_file_names(features)
    _tell_of_repeats(table[table["held_out"] == 1], owner)
    write_table(folder.features, table.reset_index())


def _tell_of_repeats(held_out, owner):
    """Say whose errors will be too small because samples are not independent."""
    of_subject = held_out.groupby([owner[image] for image in held_out.index])["shown"]
    for subject, shown in of_subject:
        if shown.nunique() < len(shown):
            print(
                f"neuroigc: sub-{subject}: {len(shown)} held-out samples are of "
                f"{shown.nunique()} images; errors, intervals and p-values of areas and maps take "
                "samples for independent and promise too much: average the repeats of an image",
                file=sys.stderr,
            )


def _check_feature(table, name):
    """Raise unless a feature is there, is a finite number for every image, and can name a file."""
    if name not in table or name in ABOUT:
        known = ", ".join(column for column in table if column not in ABOUT)
        raise InputError("[decoding] features", expected=f"some of {known}", got=repr(name))
    if len(bids_label(name, "[decoding] features")) > 60:
        raise InputError("[decoding] features", expected="names of up to 60 letters", got=name)
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    bad = table.index[~np.isfinite(values)]
    if len(bad):
        raise InputError(
            f"[decoding] features {name!r}",
            expected="a finite number for every image",
            got=f"none for {len(bad)} of {len(table)} images, such as image {bad[0]}",
            fix="A blank image has no slope, for one; choose another feature or other images.",
        )


def _check_file_names(features):
    """Raise where maps of one feature would take the place of another's, here or elsewhere."""
    taken = {}
    for name in features:
        # Some file systems, and the report, do not tell capitals from small letters.
        label = bids_label(name, "[decoding] features").lower()
        if label in taken:
            raise InputError(
                "[decoding] features",
                expected="names that differ in letters and digits, which files are named by",
                got=f"{taken[label]!r} and {name!r}",
                fix="Rename one of them.",
            )
        taken[label] = name


def _read_own_features(path, image_ids):
    try:
        table = pd.read_csv(path, sep="\t", index_col="image_id")
    except (OSError, ValueError) as error:
        raise InputError(
            "[decoding] features_file",
            expected="a tab-separated table with a column image_id",
            got=f"{path} ({error})",
        ) from error
    if table.index.has_duplicates:
        double = table.index[table.index.duplicated()][0]
        raise InputError(
            "[decoding] features_file", expected="one row per image", got=f"several for {double}"
        )
    missing = np.setdiff1d(image_ids, table.index)
    if len(missing):
        raise InputError(
            "[decoding] features_file",
            expected="a row for every image shown",
            got=f"none for {len(missing)} of them, such as image {missing[0]}",
        )
    return table


def write_table(path, table: pd.DataFrame) -> None:
    """Write a tab-separated table, missing values as n/a as in BIDS."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", float_format="%.7g")
