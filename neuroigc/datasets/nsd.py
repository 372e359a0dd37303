"""Responses of the Natural Scenes Dataset on a surface, session by session.

Allen et al. 2022, Nature Neuroscience 25:116, doi 10.1038/s41593-021-00962-x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from neuroigc.datasets._paths import BETA_VERSION, StrPath
from neuroigc.datasets._release import Mask, open_nsd
from neuroigc.datasets.subjects import SubjectData

__all__ = ["load_nsd"]


def load_nsd(
    root: StrPath,
    subject: int | str,
    *,
    space: str = "fsaverage",
    beta_version: str = BETA_VERSION,
    sessions: Sequence[int] | None = None,
    mask: Mask | None = None,
    test_images: str | npt.ArrayLike = "shared",
    progress: bool = False,
) -> SubjectData:
    """Load one subject's responses to images.

    Betas on a template surface are percent signal change already; unlike those in volumes and on
    subjects' own surfaces they are not scaled by 300. Each session is z-scored per vertex over
    its trials (SD with ddof = 0) before the repeats of an image are averaged, as the authors do
    for the noise ceiling. Beyond the result, no more than two sessions are held in memory; where
    the result does not fit, :func:`neuroigc.datasets.prepare_nsd` keeps it on disk.

    Parameters
    ----------
    root : path
        Folder with ``nsddata``, ``nsddata_betas``, ...
    subject : int or str
        1, "01" or "subj01".
    space : str
        Surface: "fsaverage", "nativesurface", or the name of another folder with betas. Where
        there is none of fsaverage5 or fsaverage6, their vertices are taken from fsaverage, whose
        first 10,242 and 40,962 they are.
    beta_version : str
        The way of estimating betas, the name of the folder inside that.
    sessions : sequence of int, optional
        1-based sessions. By default 1 to the last one found.
    mask : dict of "left" and "right" to bool array of shape (n_surface_vertices,), optional
        Vertices to load. By default all of them.
    test_images : "shared", "special" or array of int
        0-based numbers of the images to keep for testing, whatever the number of their trials;
        by default the images shared between subjects. "special" are those among them that all
        subjects saw three times: 515 in NSD.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SubjectData
        ``ncsnr`` and ``noise_ceiling`` are None where the release's files of them are missing;
        :func:`neuroigc.datasets.prepare_nsd` estimates them.

    Raises
    ------
    InputError
        If a session is missing, a file is damaged or of the wrong number of vertices or trials,
        a trial has no image, or no valid vertex is left.
    """
    plan = open_nsd(
        root,
        subject,
        space=space,
        beta_version=beta_version,
        sessions=sessions,
        mask=mask,
        test_images=test_images,
    )
    responses = np.zeros((len(plan.image_ids), plan.n_columns), dtype=np.float32)
    valid = {}
    for session, betas in plan.read(plan.files, progress=progress):
        valid[session] = np.isfinite(betas[0])
        # Row by row, because an image may come twice within a session.
        for row, values in zip(plan.rows[session], betas, strict=True):
            responses[row] += values
        del betas, values
    responses = _keep_columns(responses, plan.valid_columns(valid))
    responses /= plan.n_repeats[:, None].astype(np.float32)
    return plan.subject_data(responses, valid, plan.ncsnr)


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
