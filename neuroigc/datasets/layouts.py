"""Writers of the release layouts, so that what we invent is read like what was measured.

The layout is that of the Natural Scenes Dataset (Allen et al. 2022, 10.1038/s41593-021-00962-x).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError
from neuroigc.datasets import _paths
from neuroigc.datasets._paths import BETA_VERSION, PREFIXES, StrPath
from neuroigc.datasets.algonauts_export import write_algonauts

__all__ = [
    "write_algonauts",
    "write_betas",
    "write_experiment",
    "write_labels",
    "write_ncsnr",
    "write_stimuli",
]

N_RUNS, N_RUN_SLOTS = 12, 75
FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


def write_betas(
    root: StrPath,
    subject: int | str,
    session: int,
    betas: Mapping[str, FloatArray],
    *,
    space: str,
    beta_version: str = BETA_VERSION,
) -> list[Path]:
    """Write the single-trial responses of one session.

    Parameters
    ----------
    root : path
        Root folder of the data set.
    subject : int or str
        1, "01" or "subj01".
    session : int
        1-based number of the session.
    betas : dict of hemisphere to array of shape (n_surface_vertices, n_trials)
        Percent signal change; NaN where a vertex was not measured.
    space : str
        Name of the surface, as "fsaverage5".
    beta_version : str
        Name of the folder for this way of estimating betas.

    Returns
    -------
    list of Path
        The ``.mgh`` files: big-endian float32 of shape (n_surface_vertices, 1, 1, n_trials).
    """
    paths = []
    for hemisphere, values in betas.items():
        path = _paths.beta_path(root, subject, space, beta_version, hemisphere, session)
        paths.append(_write_mgh(path, np.asarray(values)[:, None, None, :]))
    return paths


def write_ncsnr(
    root: StrPath,
    subject: int | str,
    ncsnr: Mapping[str, FloatArray],
    *,
    space: str,
    beta_version: str = BETA_VERSION,
) -> list[Path]:
    """Write the noise ceiling signal-to-noise ratio, signal SD over noise SD of single trials.

    Parameters
    ----------
    root, subject, space, beta_version
        As in :func:`write_betas`.
    ncsnr : dict of hemisphere to array of shape (n_surface_vertices,)
        Dimensionless, of responses z-scored per session.
    """
    paths = []
    for hemisphere, values in ncsnr.items():
        path = _paths.ncsnr_path(root, subject, space, beta_version, hemisphere)
        paths.append(_write_mgh(path, np.asarray(values)[:, None, None]))
    return paths


def write_labels(
    root: StrPath,
    owner: str,
    atlas_name: str,
    labels: Mapping[str, IntArray],
    table: Mapping[int, str],
) -> list[Path]:
    """Write the regions of an atlas and the table of their names.

    Parameters
    ----------
    root : path
        Root folder of the data set.
    owner : str
        Whose surface: a template as "fsaverage5", or "subj01".
    atlas_name : str
        As "prf-visualrois".
    labels : dict of hemisphere to array of shape (n_surface_vertices,)
        0 means none.
    table : dict of int to str
        Name of each label. 0 is added as "Unknown".
    """
    table = {0: "Unknown"} | {int(label): name for label, name in table.items()}
    unnamed = sorted({int(x) for v in labels.values() for x in np.unique(v)} - table.keys())
    if unnamed:
        raise InputError("table", expected="a name for every label", got=f"none for {unnamed}")
    folder = _paths.label_folder(root, owner)
    paths = [
        _write_mgh(
            folder / f"{PREFIXES[hemisphere]}.{atlas_name}.mgz", np.asarray(v)[:, None, None]
        )
        for hemisphere, v in labels.items()
    ]
    paths.append(folder / f"{atlas_name}.mgz.ctab")
    with atomic_path(paths[-1]) as temporary:
        lines = [f"{label} {table[label]}\n" for label in sorted(table)]
        temporary.write_text("".join(lines), encoding="utf-8")
    return paths


def write_experiment(
    root: StrPath,
    *,
    master_ordering: npt.ArrayLike,
    subject_images: npt.ArrayLike,
    shared_images: npt.ArrayLike,
    trials_per_session: int = 750,
    n_images: int | None = None,
) -> list[Path]:
    """Write which image was shown on which trial: ``nsd_expdesign.mat`` and the image table.

    Parameters
    ----------
    root : path
        Root folder of the data set.
    master_ordering : array of shape (n_trials,)
        Trial by trial, the 1-based column of ``subject_images``; the same for all subjects.
    subject_images : array of shape (n_subjects, n_images_per_subject)
        1-based numbers of the images ("73k ids").
    shared_images : array of shape (n_shared,)
        1-based numbers of the images that all subjects see.
    trials_per_session : int
        Trials in each session; they divide ``master_ordering`` into sessions.
    n_images : int, optional
        Number of all images. By default the largest number that occurs.
    """
    import pandas as pd
    from scipy.io import savemat

    ordering, subject_im, shared = (
        np.asarray(a, dtype=np.int64) for a in (master_ordering, subject_images, shared_images)
    )
    if len(ordering) % trials_per_session:
        raise InputError(
            "master_ordering",
            expected=f"whole sessions of {trials_per_session} trials",
            got=f"{len(ordering)} trials",
        )
    if ordering.min() < 1 or ordering.max() > subject_im.shape[1]:
        raise InputError(
            "master_ordering",
            expected=f"1-based columns of subject_images, 1 to {subject_im.shape[1]}",
            got=f"values from {ordering.min()} to {ordering.max()}",
        )
    n_images = n_images or int(max(subject_im.max(), shared.max(initial=0)))

    design = _paths.design_path(root)
    make_output_folder(design.parent, "root")
    with atomic_path(design) as temporary:
        savemat(
            temporary,
            {
                "masterordering": ordering[None].astype(np.float64),
                "subjectim": subject_im.astype(np.float64),
                "sharedix": shared[None].astype(np.float64),
                "stimpattern": _stimulus_pattern(
                    len(ordering) // trials_per_session, trials_per_session
                ),
            },
        )

    # What a simulation cannot know (photographs, crops) is there and empty.
    columns: dict[str, object] = {
        "cocoId": 0,
        "cocoSplit": "simulated",
        "cropBox": "(0.0, 0.0, 0.0, 0.0)",
        "loss": 0.0,
        "nsdId": np.arange(n_images),
        "flagged": False,
        "BOLD5000": False,
        "shared1000": np.isin(np.arange(n_images), shared - 1),
    }
    repeats = {}
    for number, images in enumerate(subject_im, start=1):
        shown = images[ordering - 1] - 1
        columns[f"subject{number}"] = np.isin(np.arange(n_images), images - 1)
        repeats |= {
            f"subject{number}_rep{k}": column
            for k, column in enumerate(_trials_of_repeats(shown, n_images))
        }
    table = _paths.stim_info_path(root)
    with atomic_path(table) as temporary:
        pd.DataFrame(columns | repeats).to_csv(temporary)
    return [design, table]


def write_stimuli(root: StrPath, images: Iterable[npt.NDArray[np.uint8]]) -> Path:
    """Write the pixels of all images, in the order of their numbers.

    Parameters
    ----------
    root : path
        Root folder of the data set.
    images : iterable of arrays of shape (height, width, 3), uint8
        Or one array of shape (n_images, height, width, 3). Consumed piece by piece.
    """
    import h5py

    path = _paths.stimuli_path(root)
    make_output_folder(path.parent, "root")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        images, bricks = iter(images), None
        while batch := list(islice(images, 128)):
            block = np.stack(batch)
            if block.dtype != np.uint8 or block.ndim != 4 or block.shape[-1] != 3:
                raise InputError(
                    "images",
                    expected="uint8 arrays of shape (height, width, 3)",
                    got=f"{block.dtype} of shape {block.shape[1:]}",
                )
            if bricks is None:
                shape = block.shape[1:]
                bricks = file.create_dataset(
                    "imgBrick", (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape)
                )
            start = len(bricks)
            bricks.resize(start + len(block), axis=0)
            bricks[start:] = block
        if bricks is None:
            raise InputError("images", expected="at least one image", got="none")
    return path


def _write_mgh(path: Path, data: npt.NDArray[np.generic]) -> Path:
    import nibabel as nib

    make_output_folder(path.parent, "root")
    with atomic_path(path) as temporary:
        nib.save(nib.MGHImage(data.astype(np.float32, copy=False), np.eye(4)), temporary)
    return path


def _stimulus_pattern(n_sessions: int, trials_per_session: int) -> npt.NDArray[np.float64]:
    """Return (n_sessions, n_runs, n_slots) with 1 where a slot of a run shows an image."""
    per_run = np.diff(np.ceil(np.linspace(0, trials_per_session, N_RUNS + 1)).astype(int))
    slots = np.arange(max(N_RUN_SLOTS, per_run.max()))
    return np.broadcast_to(
        (slots < per_run[:, None]).astype(np.float64), (n_sessions, N_RUNS, len(slots))
    )


def _trials_of_repeats(shown: IntArray, n_images: int) -> npt.NDArray[np.int64]:
    """Return (n_repeats >= 3, n_images): 1-based trial of each repeat, 0 where there was none."""
    order = np.argsort(shown, kind="stable")
    counts = np.bincount(shown, minlength=n_images)
    repeat = np.arange(len(shown)) - np.repeat(np.cumsum(counts) - counts, counts)
    trials = np.zeros((max(3, counts.max()), n_images), dtype=np.int64)
    trials[repeat, shown[order]] = order + 1
    return trials
