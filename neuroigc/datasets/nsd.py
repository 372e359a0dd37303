"""Responses of the Natural Scenes Dataset on a surface, session by session.

Allen et al. 2022, Nature Neuroscience 25:116, doi 10.1038/s41593-021-00962-x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._progress import track
from neuroigc._validation import InputError
from neuroigc.datasets import _paths
from neuroigc.datasets._mat5 import read_mat
from neuroigc.datasets._mgh import open_mgh, read_surface_vector
from neuroigc.datasets._paths import BETA_VERSION, PREFIXES, SURFACE_VERTICES, StrPath
from neuroigc.datasets.arrays import SubjectData, whole_numbers

__all__ = ["load_nsd"]

BLOCK_VERTICES = 4096
BLOCK_TRIALS = 64
OBTAIN = "Obtain the file again."


def load_nsd(
    root: StrPath,
    subject: int | str,
    *,
    space: str = "fsaverage",
    beta_version: str = BETA_VERSION,
    sessions: Sequence[int] | None = None,
    mask: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    test_images: str | npt.ArrayLike = "shared",
    progress: bool = False,
) -> SubjectData:
    """Load one subject's responses to images.

    Betas on a template surface are percent signal change already; unlike those in volumes they
    are not scaled by 300. Each session is z-scored per vertex over its trials (SD with ddof = 0)
    before the repeats of an image are averaged, as the authors do for the noise ceiling. Beyond
    the result, no more than one session of one hemisphere is held in memory.

    Parameters
    ----------
    root : path
        Folder with ``nsddata``, ``nsddata_betas``, ...
    subject : int or str
        1, "01" or "subj01".
    space : str
        Surface, the name of the folder with the betas.
    beta_version : str
        The way of estimating betas, the name of the folder inside that.
    sessions : sequence of int, optional
        1-based sessions. By default 1 to the last one found.
    mask : dict of "left" and "right" to bool array of shape (n_surface_vertices,), optional
        Vertices to load. By default all of them.
    test_images : "shared" or array of int
        0-based numbers of the images to keep for testing, whatever the number of their trials;
        by default the images shared between subjects.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SubjectData

    Raises
    ------
    InputError
        If a session is missing, a file is damaged or of the wrong number of vertices or trials,
        a trial has no image, or no valid vertex is left.
    """
    label = _paths.subject_label(subject)
    design = _Design.read(root)
    files = _open_sessions(root, label, space, beta_version, sessions)
    n_surface = _check_vertices(files, space, mask)
    trials = {
        session: design.trial_images(label, session, files["left"][session])
        for session in files["left"]
    }
    columns = {
        hemisphere: np.arange(n) if mask is None else np.flatnonzero(mask[hemisphere])
        for hemisphere, n in n_surface.items()
    }
    image_ids, rows, n_repeats = np.unique(
        np.concatenate(list(trials.values())), return_inverse=True, return_counts=True
    )
    n_left = len(columns["left"])
    responses = np.zeros((len(image_ids), n_left + len(columns["right"])), dtype=np.float32)
    valid = np.ones(responses.shape[1], dtype=bool)
    parts = {"left": slice(0, n_left), "right": slice(n_left, None)}

    session_rows = np.split(rows, np.cumsum([len(t) for t in trials.values()])[:-1])
    for session, where in track(
        list(zip(trials, session_rows, strict=True)), show=progress, label=f"subj{label} sessions"
    ):
        for hemisphere, part in parts.items():
            betas = _read_columns(files[hemisphere][session], columns[hemisphere])
            valid[part] &= _zscore(betas)
            # Row by row, because an image may come twice within a session.
            for row, values in zip(where, betas, strict=True):
                responses[row, part] += values

    if not valid.any():
        raise InputError("mask", expected="at least one vertex with valid data", got="none")
    responses = _keep_columns(responses, valid)
    responses /= n_repeats[:, None].astype(np.float32)
    is_test = np.isin(image_ids, design.test_ids(test_images))
    vertices = {side: columns[side][valid[part]] for side, part in parts.items()}
    ncsnr = _read_ncsnr(root, label, space, beta_version, vertices, n_surface)
    return SubjectData(
        subject=label,
        responses=responses,
        image_ids=image_ids,
        n_repeats=n_repeats,
        is_test=is_test,
        vertices=vertices,
        space=space,
        n_surface_vertices=n_surface,
        n_dropped={side: int((~valid[part]).sum()) for side, part in parts.items()},
        noise_ceiling=None if ncsnr is None else _noise_ceiling(ncsnr, n_repeats, is_test),
        ncsnr=ncsnr,
    )


@dataclass(frozen=True)
class _Design:
    """Which image was shown when. All numbers are 1-based here, as in the file."""

    path: str
    master_ordering: npt.NDArray[np.int64]
    subject_images: npt.NDArray[np.int64]
    shared_images: npt.NDArray[np.int64]
    planned_trials: npt.NDArray[np.int64] | None

    @classmethod
    def read(cls, root: StrPath) -> _Design:
        path = _paths.design_path(root)
        if not path.is_file():
            raise InputError("root", expected=f"a folder with {path}", got="no such file")
        names = ["masterordering", "subjectim", "sharedix"]
        content = read_mat(path, [*names, "stimpattern"], fix=OBTAIN)
        missing = [name for name in names if name not in content]
        if missing:
            raise InputError(str(path), expected=f"the variables {names}", got=f"no {missing}")
        ordering, images, shared = (
            _counting_numbers(f"{name} in {path}", content[name]) for name in names
        )
        if images.ndim != 2 or ordering.max() > images.shape[1]:
            raise InputError(
                str(path),
                expected="masterordering to number the columns of subjectim",
                got=f"numbers up to {ordering.max()} and subjectim of shape {images.shape}",
                fix=OBTAIN,
            )
        pattern = np.asarray(content["stimpattern"]) if "stimpattern" in content else None
        if pattern is not None and (pattern.ndim != 3 or pattern.dtype.kind not in "biuf"):
            raise InputError(
                f"stimpattern in {path}",
                expected="an array of sessions, runs and trials",
                got=f"{pattern.dtype} of shape {pattern.shape}",
                fix=OBTAIN,
            )
        planned = None if pattern is None else (pattern != 0).sum(axis=(1, 2), dtype=np.int64)
        return cls(str(path), ordering.ravel(), images, shared.ravel(), planned)

    def trial_images(self, subject: str, session: int, file: _Session) -> npt.NDArray[np.int64]:
        """Return the 0-based image id of each trial of a session."""
        n_trials, row = file.n_trials, int(subject) - 1
        if row >= len(self.subject_images):
            raise InputError(
                "subject", expected=f"one of 1 to {len(self.subject_images)}", got=subject
            )
        stop = session * n_trials
        planned = n_trials
        if self.planned_trials is not None and session <= len(self.planned_trials):
            planned = self.planned_trials[session - 1]
        if stop > len(self.master_ordering) or n_trials != planned:
            raise InputError(
                str(file.path),
                expected=f"an image id in {self.path} for each trial "
                f"({len(self.master_ordering)} ids, {planned} trials in session {session})",
                got=f"{n_trials} trials, which are trials {stop - n_trials + 1} to {stop}",
                fix="Betas and experiment design must come from the same release.",
            )
        return self.subject_images[row, self.master_ordering[stop - n_trials : stop] - 1] - 1

    def test_ids(self, test_images: str | npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the 0-based ids of the test images."""
        if not isinstance(test_images, str):
            return whole_numbers("test_images", test_images, "'shared' or 0-based numbers")
        if test_images != "shared":
            raise InputError(
                "test_images", expected="'shared' or an array of image ids", got=repr(test_images)
            )
        return self.shared_images - 1


def _counting_numbers(name: str, values: np.ndarray) -> npt.NDArray[np.int64]:
    """Return values as integers, all of them 1 or more, as MATLAB counts."""
    numbers = whole_numbers(name, values.ravel(), "whole numbers from 1 up")
    if not len(numbers) or numbers.min() < 1:
        raise InputError(
            name,
            expected="whole numbers from 1 up",
            got=f"{numbers.min()}" if len(numbers) else "none",
            fix=OBTAIN,
        )
    return numbers.reshape(values.shape)


@dataclass(frozen=True)
class _Session:
    """A checked file. It is mapped anew when it is read, so that its pages do not stay around."""

    path: Path
    n_trials: int
    n_vertices: int


def _open_sessions(
    root: StrPath, subject: str, space: str, beta_version: str, sessions: Sequence[int] | None
) -> dict[str, dict[int, _Session]]:
    """Check the files of all sessions before any is read."""
    folder = _paths.beta_folder(root, subject, space, beta_version)
    found = {
        hemisphere: sorted(
            int(digits)
            for path in folder.glob(f"{prefix}.betas_session*.mgh")
            if (digits := path.stem.removeprefix(f"{prefix}.betas_session")).isdecimal()
        )
        for hemisphere, prefix in PREFIXES.items()
    }
    if sessions is None:
        last = max(found["left"] + found["right"], default=0)
        if last == 0:
            raise InputError(
                "root", expected=f"session files lh.betas_sessionNN.mgh in {folder}", got="none"
            )
        sessions = range(1, last + 1)
    expected = "distinct 1-based numbers in a sequence such as [1, 2] or range(1, 3)"
    sessions = whole_numbers("sessions", sessions, expected).tolist()
    if not sessions or len(set(sessions)) < len(sessions):
        raise InputError("sessions", expected=expected, got=f"{sessions}")
    files: dict[str, dict[int, _Session]] = {}
    for hemisphere in PREFIXES:
        files[hemisphere] = {}
        for session in sorted(sessions):
            path = _paths.beta_path(root, subject, space, beta_version, hemisphere, session)
            if not path.is_file():
                raise InputError(
                    "sessions",
                    expected=f"the file {path}",
                    got=f"no such file; {hemisphere} sessions there are {found[hemisphere]}",
                    fix="Obtain it, or name the sessions to use.",
                )
            files[hemisphere][session] = _Session(path, *open_mgh(path).shape)
    return files


def _check_vertices(
    files: Mapping[str, Mapping[int, _Session]],
    space: str,
    mask: Mapping[str, npt.NDArray[np.bool_]] | None,
) -> dict[str, int]:
    """Return the vertices of each hemisphere, the same in all sessions and the mask."""
    n_surface = {}
    first_trials = next(iter(files["left"].values())).n_trials
    for hemisphere, by_session in files.items():
        expected = SURFACE_VERTICES.get(space, next(iter(by_session.values())).n_vertices)
        for file in by_session.values():
            if file.n_vertices != expected:
                raise InputError(
                    str(file.path),
                    expected=f"{expected} vertices, as {space} has",
                    got=f"{file.n_vertices}",
                )
            if file.n_trials != first_trials:
                raise InputError(
                    str(file.path),
                    expected=f"{first_trials} trials, as the other sessions have",
                    got=f"{file.n_trials}",
                )
        n_surface[hemisphere] = expected
        if mask is None:
            continue
        if hemisphere not in mask:
            raise InputError("mask", expected="'left' and 'right'", got=f"{sorted(mask)}")
        given = np.asarray(mask[hemisphere])
        if given.dtype != bool or given.shape != (expected,):
            raise InputError(
                f"mask[{hemisphere!r}]",
                expected=f"bool of shape ({expected},)",
                got=f"{given.dtype} of shape {given.shape}",
            )
    return n_surface


def _read_columns(file: _Session, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Read some vertices of a session, trial by trial as they lie in the file."""
    data = open_mgh(file.path)
    betas = np.empty((len(data), len(columns)), dtype=np.float32)
    for start in range(0, len(data), BLOCK_TRIALS):
        stop = start + BLOCK_TRIALS
        betas[start:stop] = data[start:stop][:, columns]
    return betas


def _zscore(betas: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Standardise each column in place; return which columns could be, and set others to 0."""
    valid = np.empty(betas.shape[1], dtype=bool)
    for start in range(0, betas.shape[1], BLOCK_VERTICES):
        part = slice(start, start + BLOCK_VERTICES)
        block = betas[:, part].astype(np.float64)
        good = np.isfinite(block).all(axis=0)
        block[:, ~good] = 0
        block -= block.mean(axis=0)
        deviation = np.sqrt((block**2).mean(axis=0))
        # Sums of float32 are exact in float64, so constants come out as exactly zero.
        good &= deviation > 0
        betas[:, part] = np.where(good, block / np.where(good, deviation, 1), 0)
        valid[part] = good
    return valid


def _keep_columns(
    array: npt.NDArray[np.float32], keep: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Drop columns inside the memory of ``array``, because a copy would double it."""
    if keep.all():
        return array
    n_rows, n_kept = len(array), int(keep.sum())
    flat = array.reshape(-1)
    for row in range(n_rows):
        flat[row * n_kept : (row + 1) * n_kept] = array[row, keep]
    return flat[: n_rows * n_kept].reshape(n_rows, n_kept)


def _read_ncsnr(
    root: StrPath,
    subject: str,
    space: str,
    beta_version: str,
    vertices: Mapping[str, npt.NDArray[np.int64]],
    n_surface: Mapping[str, int],
) -> npt.NDArray[np.float32] | None:
    parts = []
    for hemisphere, n_vertices in n_surface.items():
        path = _paths.ncsnr_path(root, subject, space, beta_version, hemisphere)
        if not path.is_file():
            return None
        values = read_surface_vector(path)
        if len(values) != n_vertices:
            raise InputError(str(path), expected=f"{n_vertices} vertices", got=f"{len(values)}")
        parts.append(values[vertices[hemisphere]])
    return np.concatenate(parts).astype(np.float32)


def _noise_ceiling(
    ncsnr: npt.NDArray[np.float32],
    n_repeats: npt.NDArray[np.int64],
    is_test: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float32]:
    """Explainable share of the variance of averages over n_repeats trials.

    ncsnr^2 / (ncsnr^2 + mean of 1/n), the NSD data manual's formula for mixed numbers of trials;
    over all images if none is for testing.
    """
    repeats = n_repeats[is_test] if is_test.any() else n_repeats
    power = ncsnr.astype(np.float64) ** 2
    return (power / (power + (1 / repeats).mean())).astype(np.float32)
