"""Predicted responses to the Algonauts 2023 test images, as the challenge wants them handed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError
from neuroigc.datasets._paths import PREFIXES, StrPath, subject_label
from neuroigc.datasets.algonauts import image_files
from neuroigc.datasets.algonauts_rois import challenge_mask
from neuroigc.datasets.arrays import whole_numbers

__all__ = ["write_algonauts_submission"]


def write_algonauts_submission(
    folder: StrPath,
    root: StrPath,
    subject: int | str,
    predictions: npt.ArrayLike,
    *,
    image_ids: npt.ArrayLike,
) -> list[Path]:
    """Write one subject's predictions, whose measured counterparts the challenge keeps to itself.

    Parameters
    ----------
    folder : path
        Where to; ``subj01/lh_pred_test.npy`` and its like are made in it. Pack the subjects'
        folders into one zip file to hand them in.
    root, subject
        As in :func:`neuroigc.datasets.load_algonauts`; to check against and to order by.
    predictions : array of shape (n_test_images, n_vertices)
        Columns are all of the challenge's vertices, the left hemisphere's first, as in
        ``load_algonauts``.
    image_ids : array of shape (n_test_images,), int
        0-based number of the image that each row predicts responses to, as
        ``load_algonauts_images(root, subject, split="test")`` returns them. Rows are written in
        the order of the test images' files.

    Returns
    -------
    list of Path
        The files, float32 of shape (n_test_images, n_vertices of the hemisphere).

    Raises
    ------
    InputError
        If a row or column is missing or too many, or a number is not finite in float32.
    """
    label = subject_label(subject)
    source = Path(root) / f"subj{label}"
    n_vertices = {side: int(challenge_mask(source, p).sum()) for side, p in PREFIXES.items()}
    wanted = list(image_files(source, "test"))
    given = whole_numbers("image_ids", image_ids, "0-based numbers of images").tolist()
    if sorted(given) != sorted(wanted):
        missing, others = len(set(wanted) - set(given)), len(set(given) - set(wanted))
        raise InputError(
            "image_ids",
            expected=f"each of the {len(wanted)} test images of subject {label} once",
            got=f"{len(given)} numbers; {missing} images missing, {others} others",
        )
    values = np.asarray(predictions)
    shape = (len(wanted), sum(n_vertices.values()))
    if values.shape != shape or values.dtype.kind not in "fiu":
        raise InputError(
            "predictions",
            expected=f"numbers of shape {shape}, test images by vertices of the challenge",
            got=f"{values.dtype} of shape {values.shape}",
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)[[given.index(number) for number in wanted]]
    n_invalid = int((~np.isfinite(values)).sum())
    if n_invalid:
        raise InputError(
            "predictions", expected="finite numbers", got=f"{n_invalid} that are not, in float32"
        )
    paths = []
    out = make_output_folder(Path(folder) / f"subj{label}", "folder")
    for part, prefix in zip(
        np.split(values, [n_vertices["left"]], axis=1), PREFIXES.values(), strict=True
    ):
        paths.append(out / f"{prefix}_pred_test.npy")
        with atomic_path(paths[-1]) as temporary:
            np.save(temporary, np.ascontiguousarray(part), allow_pickle=False)
    return paths
