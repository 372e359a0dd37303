"""Which files a study needs, of releases that hardly anyone has whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from neuroigc._validation import InputError, check_count
from neuroigc.datasets import _paths
from neuroigc.datasets._paths import BETA_VERSION, NATIVE, PREFIXES, SURFACE_VERTICES
from neuroigc.datasets.manifest import FileEntry, load_manifest

__all__ = ["N_SESSIONS", "require_algonauts", "require_nsd"]

N_SESSIONS = {1: 40, 2: 40, 3: 32, 4: 30, 5: 40, 6: 32, 7: 40, 8: 30}
N_TRIALS = 750


def require_nsd(
    *,
    subjects: Iterable[int | str],
    sessions: int | Sequence[int] | None = None,
    space: str = "fsaverage",
    beta_version: str = BETA_VERSION,
    labels: Iterable[str] = (),
    invented: bool = False,
) -> list[FileEntry]:
    """Return the files of the Natural Scenes Dataset that a study needs.

    Parameters
    ----------
    subjects : iterable of int or str
    sessions : int or sequence of int, optional
        How many sessions from the first on, or which. By default all that the subject took part in.
    space, beta_version : str
        As in :func:`neuroigc.datasets.load_nsd`; betas of ``nativesurface`` are HDF5 files.
    labels : iterable of str
        Names of label files on the group's surface, such as "nsdgeneral".
    invented : bool
        Data of this layout that were invented: of any number of trials and images.

    Returns
    -------
    list of FileEntry
    """
    n_trials: int | str = "n_trials" if invented else N_TRIALS
    n_images: int | str = "n_images" if invented else 73000
    size: int | str = "size" if invented else 425
    root = Path()
    files = [
        _entry(_paths.design_path(root), "design"),
        _entry(_paths.stim_info_path(root), "design", shape=(n_images, "n_columns")),
        _entry(
            _paths.stimuli_path(root), "stimuli", shape=(n_images, size, size, 3), dtype="uint8"
        ),
    ]
    template = "fsaverage" if space == NATIVE else space
    n_vertices = SURFACE_VERTICES.get(template, "n_vertices")
    for name in labels:
        files += [
            _entry(
                _paths.label_folder(root, template) / f"{prefix}.{name}.mgz",
                "atlas",
                shape=(n_vertices, 1, 1),
            )
            for prefix in PREFIXES.values()
        ]
    for subject in subjects:
        number = int(_paths.subject_label(subject))
        if number not in N_SESSIONS and not invented:
            raise InputError("subjects", expected="1 to 8", got=str(subject))
        chosen = _sessions(sessions, N_SESSIONS.get(number, 1))
        if not invented and max(chosen, default=0) > N_SESSIONS[number]:
            raise InputError(
                "sessions",
                expected=f"1 to {N_SESSIONS[number]}, which subject {number} took part in",
                got=f"{max(chosen)}",
            )
        for session in chosen:
            for side in PREFIXES:
                path = _paths.beta_path(root, number, space, beta_version, side, session)
                shape: tuple[int | str, ...] = (n_vertices, 1, 1, n_trials)
                dtype = "float32"
                if space == NATIVE:
                    path = path.with_suffix(".hdf5")
                    shape, dtype = (n_trials, "n_vertices"), "int16"
                files.append(_entry(path, "betas", number, shape, dtype))
        if space != NATIVE:
            files += [
                _entry(
                    _paths.ncsnr_path(root, number, space, beta_version, side),
                    "noise ceiling",
                    number,
                    (n_vertices, 1, 1),
                    "float32",
                )
                for side in PREFIXES
            ]
    return files


def require_algonauts(
    *, subjects: Iterable[int | str], classes: Iterable[str] | None = None, invented: bool = False
) -> list[FileEntry]:
    """Return the files of the Algonauts 2023 challenge that a study needs.

    Parameters
    ----------
    subjects : iterable of int or str
    classes : iterable of str, optional
        Classes of regions; by default all.
    invented : bool
        Data of this layout that were invented, of any size.
    """
    wanted = [f"subj{_paths.subject_label(subject)}" for subject in subjects]
    manifest = load_manifest("algonauts2023")
    known = {entry.part for entry in manifest.files}
    strangers = [part for part in wanted if part not in known]
    if strangers:
        raise InputError("subjects", expected="1 to 8", got=", ".join(strangers))
    named = None if classes is None else {"all-vertices", *classes}
    files = []
    for entry in manifest.files:
        stem = Path(entry.path).name.removeprefix("mapping_").split(".")
        stem = (stem[1] if len(stem) > 2 else stem[0]).removesuffix("_fsaverage_space")
        if entry.part not in wanted or (entry.role == "atlas" and named and stem not in named):
            continue
        if invented:
            if entry.path.endswith(".npy") and "mapping_" in entry.path:
                entry = FileEntry(entry.path.removesuffix(".npy") + ".json", "atlas", entry.part)
            else:
                entry = FileEntry(entry.path, entry.role, entry.part, dtype=entry.dtype)
        files.append(entry)
    return files


def _entry(
    path: Path,
    role: str,
    subject: int | None = None,
    shape: tuple[int | str, ...] = (),
    dtype: str = "",
) -> FileEntry:
    known = [n for n in shape if isinstance(n, int)]
    n_bytes = 0
    if path.suffix == ".mgh" and len(known) == len(shape):
        n_bytes = 284 + 4 * math.prod(known)
    part = "" if subject is None else f"subj{subject:02d}"
    return FileEntry(path.as_posix(), role, part, min_bytes=n_bytes, shape=shape, dtype=dtype)


def _sessions(sessions: int | Sequence[int] | None, n_of_subject: int) -> list[int]:
    if sessions is None:
        return list(range(1, n_of_subject + 1))
    if isinstance(sessions, int):
        return list(range(1, check_count("sessions", sessions) + 1))
    return [check_count("sessions", session) for session in sessions]
