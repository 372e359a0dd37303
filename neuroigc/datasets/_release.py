"""One subject of the Natural Scenes Dataset: every file checked before any is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuroigc import __version__
from neuroigc._ceilings import explainable_share
from neuroigc._validation import InputError
from neuroigc._vertex_files import read_map
from neuroigc.datasets import _paths
from neuroigc.datasets._design import Design
from neuroigc.datasets._paths import BETA_VERSION, HEMISPHERES, SURFACE_VERTICES, StrPath
from neuroigc.datasets._sessions import (
    BetaFile,
    file_identity,
    find_sessions,
    open_sessions,
    read_sessions,
    source_space,
)
from neuroigc.datasets.subjects import SubjectData

__all__ = ["Mask", "NsdSubject", "open_nsd"]

Mask = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class NsdSubject:
    """What is to be made of one subject's files, all of which were checked.

    Attributes
    ----------
    root : Path
    subject, space, beta_version : str
    source : str
        The space of the files.
    files : dict of int to dict of hemisphere to BetaFile
        By session.
    n_surface : dict of hemisphere to int
        Vertices in ``space``.
    columns : dict of hemisphere to array of int
        The vertices asked for.
    rows : dict of int to array of shape (n_trials,)
        By session, the position in ``image_ids`` of the image on each trial.
    image_ids, n_repeats, is_test : array of shape (n_images,)
        As in `SubjectData`.
    test_images : str
        What they are called.
    ncsnr : array of shape (n_columns,), or None
        The release's, if there are files of it.
    """

    root: Path
    subject: str
    space: str
    beta_version: str
    source: str
    files: dict[int, dict[str, BetaFile]]
    n_surface: dict[str, int]
    columns: dict[str, npt.NDArray[np.int64]]
    rows: dict[int, npt.NDArray[np.int64]]
    image_ids: npt.NDArray[np.int64]
    n_repeats: npt.NDArray[np.int64]
    is_test: npt.NDArray[np.bool_]
    test_images: str
    ncsnr: npt.NDArray[np.float32] | None

    @property
    def n_columns(self) -> int:
        """Vertices asked for, in both hemispheres."""
        return sum(map(len, self.columns.values()))

    def read(
        self, sessions: Iterable[int], *, progress: bool
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield sessions' standardised trials (n_trials, n_columns), NaN where invalid."""
        files = {session: self.files[session] for session in sessions}
        label = f"subj{self.subject} sessions"
        return read_sessions(files, self.columns, progress=progress, label=label)

    @property
    def n_trials(self) -> int:
        """Trials of one session."""
        return next(iter(self.files.values()))["left"].n_trials

    def settings(self, dtype: str = "float32") -> dict[str, Any]:
        """Return all that the result depends on, as JSON has it."""
        files = [file for by_side in self.files.values() for file in by_side.values()]
        paths = [_paths.design_path(self.root), *(file.path for file in files)]
        if self.ncsnr is not None:
            paths += _ncsnr_paths(self.root, self.subject, self.source, self.beta_version)
        return {
            "neuroigc": __version__,
            "release": "nsd",
            "subject": self.subject,
            "space": self.space,
            "space_of_files": self.source,
            "beta_version": self.beta_version,
            "sessions": list(self.files),
            "n_vertices_asked_for": {side: len(self.columns[side]) for side in HEMISPHERES},
            "sha256_of_vertices": _hash(*self.columns.values()),
            "test_images": self.test_images,
            "dtype": dtype,
            "sha256_of_test_images": _hash(self.image_ids[self.is_test]),
            "files": [file_identity(path, self.root) for path in paths],
        }

    def valid_columns(self, valid: Mapping[int, npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """Return the columns that are valid in all sessions; there must be one."""
        everywhere = np.logical_and.reduce(list(valid.values()))
        if not len(everywhere):
            raise InputError("mask", expected="at least one vertex", got="none")
        if not everywhere.any():
            invalid = {session: int((~good).sum()) for session, good in valid.items()}
            listed = ", ".join(f"{n} in session {s}" for s, n in invalid.items() if n)
            raise InputError(
                "mask",
                expected="at least one vertex with valid data in all sessions",
                got=f"none of {self.n_columns} (invalid: {listed})",
                fix="Leave out a session that is damaged, or obtain its files again.",
            )
        return everywhere

    def subject_data(
        self,
        responses: npt.NDArray[np.floating],
        valid: Mapping[int, npt.NDArray[np.bool_]],
        ncsnr: npt.NDArray[np.float32] | None,
        *,
        ncsnr_from: str = "the release",
    ) -> SubjectData:
        """Put together what is handed over.

        Parameters
        ----------
        responses : array of shape (n_images, n_vertices)
            Averages at the valid vertices.
        valid : dict of int to bool array of shape (n_columns,)
            By session.
        ncsnr : array of shape (n_columns,), or None
            At all the vertices asked for.
        ncsnr_from : str
            Its origin.
        """
        kept = self.valid_columns(valid)
        parts, ncsnr = self._split(kept), None if ncsnr is None else ncsnr[kept]
        invalid = {session: self._split(~good) for session, good in valid.items()}
        counts = np.unique(self.n_repeats, return_counts=True)
        provenance = {
            "settings": self.settings(responses.dtype.name),
            "n_trials": int(self.n_repeats.sum()),
            "n_images_by_trials": {str(n): int(count) for n, count in zip(*counts, strict=True)},
            "n_invalid_vertices_by_session": {
                str(session): {side: int(bad.sum()) for side, bad in by_side.items()}
                for session, by_side in invalid.items()
                if any(bad.any() for bad in by_side.values())
            },
            "ncsnr_from": None if ncsnr is None else ncsnr_from,
        }
        ceiling = None
        if ncsnr is not None:
            repeats = self.n_repeats[self.is_test] if self.is_test.any() else self.n_repeats
            ceiling = explainable_share(ncsnr, repeats).astype(np.float32)
        return SubjectData(
            subject=self.subject,
            responses=responses,
            image_ids=self.image_ids,
            n_repeats=self.n_repeats,
            is_test=self.is_test,
            vertices={side: self.columns[side][good] for side, good in parts.items()},
            space=self.space,
            n_surface_vertices=self.n_surface,
            n_dropped={side: int((~good).sum()) for side, good in parts.items()},
            noise_ceiling=ceiling,
            ncsnr=ncsnr,
            provenance=provenance,
        )

    def _split(self, values: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        return dict(zip(HEMISPHERES, np.split(values, [len(self.columns["left"])]), strict=True))


def open_nsd(
    root: StrPath,
    subject: int | str,
    *,
    space: str = "fsaverage",
    beta_version: str = BETA_VERSION,
    sessions: Sequence[int] | None = None,
    mask: Mask | None = None,
    test_images: str | npt.ArrayLike = "shared",
) -> NsdSubject:
    """Check every file of one subject, header and size, before any is used.

    Parameters and errors as in :func:`neuroigc.datasets.load_nsd`.
    """
    label = _paths.subject_label(subject)
    design = Design.read(root)
    source = source_space(root, label, space, beta_version)
    files = open_sessions(root, label, source, beta_version, sessions)
    n_surface = {
        side: SURFACE_VERTICES.get(space, next(iter(files[side].values())).n_vertices)
        for side in HEMISPHERES
    }
    trials = {
        session: design.trial_images(label, session, file.n_trials, file.path)
        for session, file in files["left"].items()
    }
    image_ids, rows, n_repeats = np.unique(
        np.concatenate(list(trials.values())), return_inverse=True, return_counts=True
    )
    bounds = np.cumsum([len(images) for images in trials.values()])[:-1]
    found = [
        find_sessions(root, f"{number:02d}", source, beta_version)
        for number in range(1, len(design.subject_images) + 1)
    ]
    n_sessions = [max(*one["left"], *one["right"], 0) for one in found if any(one.values())]
    columns = _checked_columns(mask, n_surface)
    n_in_files = {side: next(iter(files[side].values())).n_vertices for side in HEMISPHERES}
    return NsdSubject(
        root=Path(root),
        subject=label,
        space=space,
        beta_version=beta_version,
        source=source,
        files={s: {side: files[side][s] for side in HEMISPHERES} for s in files["left"]},
        n_surface=n_surface,
        columns=columns,
        rows=dict(zip(trials, np.split(rows, bounds), strict=True)),
        image_ids=image_ids,
        n_repeats=n_repeats,
        is_test=np.isin(image_ids, design.test_ids(test_images, n_sessions)),
        test_images=test_images if isinstance(test_images, str) else "given",
        ncsnr=_read_ncsnr(_ncsnr_paths(root, label, source, beta_version), columns, n_in_files),
    )


def _checked_columns(
    mask: Mask | None, n_surface: Mapping[str, int]
) -> dict[str, npt.NDArray[np.int64]]:
    if mask is None:
        return {side: np.arange(n_vertices) for side, n_vertices in n_surface.items()}
    columns = {}
    for side, n_vertices in n_surface.items():
        if side not in mask:
            raise InputError("mask", expected="'left' and 'right'", got=f"{sorted(mask)}")
        given = np.asarray(mask[side])
        if given.dtype != bool or given.shape != (n_vertices,):
            raise InputError(
                f"mask[{side!r}]",
                expected=f"bool of shape ({n_vertices},)",
                got=f"{given.dtype} of shape {given.shape}",
            )
        columns[side] = np.flatnonzero(given)
    return columns


def _ncsnr_paths(root: StrPath, subject: str, space: str, beta_version: str) -> list[Path]:
    return [_paths.ncsnr_path(root, subject, space, beta_version, side) for side in HEMISPHERES]


def _read_ncsnr(
    paths: list[Path],
    columns: Mapping[str, npt.NDArray[np.int64]],
    n_in_files: Mapping[str, int],
) -> npt.NDArray[np.float32] | None:
    if not all(path.is_file() for path in paths):
        return None
    parts = []
    for side, path in zip(HEMISPHERES, paths, strict=True):
        values = read_map(path)
        if len(values) != n_in_files[side]:
            raise InputError(
                str(path), expected=f"{n_in_files[side]} vertices", got=f"{len(values)}"
            )
        parts.append(values[columns[side]])
    return np.concatenate(parts).astype(np.float32)


def _hash(*arrays: npt.NDArray[np.int64]) -> str:
    together = hashlib.sha256()
    for array in arrays:
        together.update(np.ascontiguousarray(array, "<i8").tobytes())
        together.update(b"|")
    return together.hexdigest()
