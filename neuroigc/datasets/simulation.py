"""A whole invented study on disk, in the release layout of the Natural Scenes Dataset.

The readers cannot tell it from a measured one. What they must not know, the truth, lies beside the
data in ``truth/``.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from neuroigc._array_files import read_npz
from neuroigc._files import atomic_path, make_output_folder
from neuroigc._progress import track
from neuroigc._validation import InputError
from neuroigc.datasets import layouts
from neuroigc.datasets._paths import subject_label
from neuroigc.datasets.synthetic_betas import HEMISPHERES, MEDIAN_NCSNR, Subject
from neuroigc.datasets.synthetic_design import N_REPEATS, Design
from neuroigc.datasets.synthetic_images import CATEGORIES, make_scene
from neuroigc.datasets.synthetic_plant import check_planted, draw_feature, plant, write_feature
from neuroigc.datasets.synthetic_responses import (
    BANDS_CPD,
    EXTENT_DEG,
    SeeingCortex,
    local_contrast,
)
from neuroigc.datasets.synthetic_retinotopy import (
    ATLAS_TABLES,
    PRF_BY_AREA,
    SPACE,
    VisualCortex,
    area_names,
    make_visual_cortex,
    visual_mask,
)

__all__ = ["load_truth", "make_study"]

N_SESSIONS = (14, 2, 2, 2, 3, 2, 2, 2)
CORTEX_STREAM, SESSION_STREAM = 3, 4
TRUTH_NAMES = (
    "area",
    "coverage",
    "exponent",
    "sigma_deg",
    "signal_fraction",
    "size_deg",
    "x_deg",
    "y_deg",
)
BLOCK = 64  # images that are rendered together; part of the answer, as sums round

FloatArray = npt.NDArray[np.float32]
T = TypeVar("T")


def make_study(
    root: str | os.PathLike[str],
    *,
    n_subjects: int = 8,
    n_sessions: int | Sequence[int] | None = None,
    trials_per_session: int = 400,
    n_shared_images: int = 100,
    image_size: int = 96,
    planted: Mapping[str, float] | None = None,
    seed: int = 0,
    n_workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Invent a study and write it: images, responses, design, regions, noise ceilings, truth.

    By default subject 1 sees 5,400 images and the others 600 to 1,000, all of them the same 100
    three times in their first two sessions; 1.2 GB and about a minute on two cores.

    Parameters
    ----------
    root : path
        A new or empty folder.
    n_subjects : int
        1 to 8. Their noise ceilings are those of the eight subjects of NSD.
    n_sessions : int or sequence of int, optional
        For all subjects, or for each. By default 14, 2, 2, 2, 3, 2, 2, 2.
    trials_per_session : int
        Trials in a session; one image each.
    n_shared_images : int
        Images that every subject sees, three times, within the sessions that all subjects have.
        Every other image is shown once, to one subject.
    image_size : int
        Side of the images in pixels, a multiple of 8; 8.4 degrees of visual angle.
    planted : dict of str to float, optional
        Areas among V1, V2, V3 and hV4 that carry a further feature, which is in no image and no
        other area, and its share of the variance of their signal. Its values are written to
        ``truth/planted.tsv``, to be decoded (``features_file``).
    seed : int
        The same seed gives the same bytes, however many workers.
    n_workers : int, optional
        Threads; by default as many as there are cores.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    InputError
        If ``root`` is not empty or cannot be written to, or the numbers do not fit together.

    Notes
    -----
    Vertices of V1 to hV4 respond to local contrast by compressive spatial summation, those of
    category areas to their category, and the other vertices not at all
    (:mod:`neuroigc.datasets.synthetic_responses`). Single-trial noise is Gaussian, 15 % of its
    variance smooth over cortex. ``ncsnr`` is the true ratio of signal SD to noise SD; its median
    over the vertices with signal equals the subject's median in NSD. Subjects 6 and 8, as in NSD,
    have vertices that are NaN throughout their last session.
    """
    sessions = _checked_sessions(n_subjects, n_sessions)
    _check_sizes(sessions, trials_per_session, n_shared_images, image_size, seed, n_workers)
    planted = dict(planted or {})
    check_planted(planted)
    root = make_output_folder(root, "root")
    if any(root.iterdir()):
        raise InputError(
            "root",
            expected="a new or empty folder",
            got=f"{root}, which has files",
            fix="Choose another folder, or remove what is there.",
        )
    design = Design.make(sessions, trials_per_session, n_shared_images, seed)
    layouts.write_experiment(
        root,
        master_ordering=design.ordering + 1,
        subject_images=design.subject_images + 1,
        shared_images=np.sort(design.subject_images[0, :n_shared_images]) + 1,
        trials_per_session=trials_per_session,
        n_images=design.n_images,
    )
    rngs = [np.random.default_rng([seed, s, 0, CORTEX_STREAM]) for s in range(n_subjects)]
    cortices = [make_visual_cortex(rng) for rng in rngs]
    observers = [SeeingCortex.of(cortex, image_size=image_size) for cortex in cortices]
    # Products would round differently with another number of BLAS threads.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(n_workers or os.cpu_count()) as pool,
    ):
        signals, categories = _show_images(
            root, design, observers, image_size, seed, pool, progress
        )
        if planted:
            feature = draw_feature(design.n_images, seed)
            for seen, signal, seer in zip(
                design.seen, signals, zip(cortices, observers, strict=True), strict=True
            ):
                plant(signal, feature[seen], planted, *seer)
            write_feature(make_output_folder(root / "truth", "root") / "planted.tsv", feature)
        subjects = [
            Subject.make(s + 1, cortices[s], observers[s], signals[s], rngs[s])
            for s in range(n_subjects)
        ]
        visits = [(s, k, k == n - 1) for s, n in enumerate(sessions) for k in range(n)]
        write = partial(_write_session, root, design, subjects, seed)
        for _ in track(
            _in_order(pool, write, visits), show=progress, label="sessions", total=len(visits)
        ):
            pass
    _write_labels(root, cortices)
    for subject in subjects:
        layouts.write_ncsnr(root, subject.number, subject.by_hemisphere("ncsnr"), space=SPACE)
    settings = {
        "n_sessions": list(sessions),
        "trials_per_session": trials_per_session,
        "n_shared_images": n_shared_images,
        "image_size": image_size,
        "seed": seed,
        **({"planted": planted} if planted else {}),
    }
    _write_truth(root, cortices, subjects, categories, settings)
    return root


def load_truth(root: str | os.PathLike[str], subject: int) -> dict[str, dict[str, np.ndarray]]:
    """Load what is true of one subject of an invented study.

    Parameters
    ----------
    root : path
        Folder of the study.
    subject : int
        1-based number.

    Returns
    -------
    dict of hemisphere to dict of str to array of shape (n_surface_vertices,)
        ``x_deg``, ``y_deg``, ``size_deg`` (= ``sigma_deg`` / sqrt(``exponent``)), ``sigma_deg``,
        ``exponent`` (NaN outside V1 to hV4), ``area`` ("V1" … "hV4", else ""), ``signal_fraction``
        (share of signal in the variance of single trials) and ``coverage`` (share of the pRF that
        lies on the image).

    Raises
    ------
    InputError
        If there is no such file, or it is damaged or lacks an array.
    """
    path = Path(root) / "truth" / f"subj{subject_label(subject)}.npz"
    if not path.is_file():
        raise InputError(
            "root",
            expected="an invented study with this subject",
            got=f"no file {path}",
            fix="Only studies from make_study come with the truth.",
        )
    arrays = read_npz(path)
    missing = [key for h in HEMISPHERES for n in TRUTH_NAMES if (key := f"{h}_{n}") not in arrays]
    if missing:
        raise InputError(
            str(path),
            expected="everything that is true of a subject",
            got=f"no {missing}",
            fix="Make the study anew.",
        )
    return {h: {name: arrays[f"{h}_{name}"] for name in TRUTH_NAMES} for h in HEMISPHERES}


def _show_images(
    root: Path,
    design: Design,
    observers: list[SeeingCortex],
    image_size: int,
    seed: int,
    pool: ThreadPoolExecutor,
    progress: bool,
) -> tuple[list[FloatArray], FloatArray]:
    """Write all images; return each subject's responses to the ones it sees, and the categories."""
    signals = [
        np.empty((len(seen), observer.pooling.shape[1]), dtype=np.float32)
        for seen, observer in zip(design.seen, observers, strict=True)
    ]
    categories = np.empty((design.n_images, len(CATEGORIES)), dtype=np.float32)
    blocks = [
        range(start, min(start + BLOCK, design.n_images))
        for start in range(0, design.n_images, BLOCK)
    ]

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        rendered = _in_order(pool, partial(_render, seed, image_size), blocks)
        bar = track(rendered, show=progress, label="images", total=len(blocks))
        for numbers, (pixels, contrast, found) in zip(blocks, bar, strict=True):
            categories[numbers.start : numbers.stop] = found
            for seen, observer, signal in zip(design.seen, observers, signals, strict=True):
                first, last = np.searchsorted(seen, [numbers.start, numbers.stop])
                if first < last:
                    mine = seen[first:last] - numbers.start
                    signal[first:last] = observer.respond(contrast[mine], found[mine])
            yield from pixels

    layouts.write_stimuli(root, images())
    return signals, categories


def _render(
    seed: int, size: int, numbers: Iterable[int]
) -> tuple[npt.NDArray[np.uint8], FloatArray, FloatArray]:
    """Return pixels, local contrast and categories of a block of images."""
    scenes = [make_scene(seed, number, size=size) for number in numbers]
    pixels = np.stack([scene.pixels for scene in scenes])
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(255)
    return pixels, local_contrast(grey), np.stack([scene.categories for scene in scenes])


def _write_session(
    root: Path, design: Design, subjects: list[Subject], seed: int, visit: tuple[int, int, bool]
) -> None:
    index, session, is_last = visit
    rng = np.random.default_rng([seed, index, session, SESSION_STREAM])
    betas = subjects[index].measure(design.rows(index, session), rng, is_last=is_last)
    layouts.write_betas(root, index + 1, session + 1, betas, space=SPACE)


def _write_labels(root: Path, cortices: list[VisualCortex]) -> None:
    for number, cortex in enumerate(cortices, start=1):
        for atlas, names in ATLAS_TABLES.items():
            table = dict(enumerate(names, start=1))
            layouts.write_labels(root, f"subj{number:02d}", atlas, cortex.labels[atlas], table)
    mask = {hemisphere: inside.astype(np.int64) for hemisphere, inside in visual_mask().items()}
    layouts.write_labels(root, SPACE, "nsdgeneral", mask, {1: "nsdgeneral"})


def _write_truth(
    root: Path,
    cortices: list[VisualCortex],
    subjects: list[Subject],
    categories: FloatArray,
    settings: dict[str, object],
) -> None:
    folder = make_output_folder(root / "truth", "root")
    for cortex, subject in zip(cortices, subjects, strict=True):
        truth = {}
        for hemisphere in HEMISPHERES:
            size, exponent = cortex.size_deg[hemisphere], cortex.exponent[hemisphere]
            arrays = {
                "x_deg": cortex.x_deg[hemisphere],
                "y_deg": cortex.y_deg[hemisphere],
                "size_deg": size,
                "sigma_deg": size * np.sqrt(exponent),
                "exponent": exponent,
                "area": area_names(cortex.labels["prf-visualrois"][hemisphere]),
                "signal_fraction": subject.by_hemisphere("signal_fraction")[hemisphere],
                "coverage": subject.by_hemisphere("coverage")[hemisphere],
            }
            truth |= {f"{hemisphere}_{name}": array for name, array in arrays.items()}
        with atomic_path(folder / f"subj{subject.number:02d}.npz") as temporary:
            np.savez_compressed(temporary, **truth)
    with atomic_path(folder / "images.npz") as temporary:
        np.savez_compressed(temporary, categories=categories, category_names=np.array(CATEGORIES))
    prf = {
        area: dict(zip(("size_slope", "size_intercept_deg", "exponent"), values, strict=True))
        for area, values in PRF_BY_AREA.items()
    }
    study = settings | {
        "space": SPACE,
        "extent_deg": EXTENT_DEG,
        "bands_cycles_per_degree": list(BANDS_CPD),
        "prf": prf,
    }
    # Written last: a study without it was not finished.
    with atomic_path(folder / "study.json") as temporary:
        temporary.write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[..., T], items: Iterable[object]
) -> Iterator[T]:
    """Map with the pool, a few items ahead of the consumer, so that memory stays bounded."""
    waiting = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > 4:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _checked_sessions(n_subjects: int, n_sessions: int | Sequence[int] | None) -> tuple[int, ...]:
    if not 1 <= n_subjects <= len(MEDIAN_NCSNR):
        raise InputError("n_subjects", expected="1 to 8", got=str(n_subjects))
    if n_sessions is None:
        return N_SESSIONS[:n_subjects]
    if isinstance(n_sessions, int):
        n_sessions = (n_sessions,) * n_subjects
    if len(n_sessions) != n_subjects or min(n_sessions) < 1:
        raise InputError(
            "n_sessions",
            expected=f"a positive number, or one for each of {n_subjects} subjects",
            got=str(n_sessions),
        )
    return tuple(n_sessions)


def _check_sizes(
    sessions: tuple[int, ...],
    trials_per_session: int,
    n_shared: int,
    image_size: int,
    seed: int,
    n_workers: int | None,
) -> None:
    if image_size < 32 or image_size % 8:
        raise InputError(
            "image_size", expected="a multiple of 8, at least 32 pixels", got=str(image_size)
        )
    fits = min(sessions) * trials_per_session // N_REPEATS
    if not 1 <= n_shared <= fits:
        raise InputError(
            "n_shared_images",
            expected=f"1 to {fits}, so that three presentations fit in {min(sessions)} sessions "
            f"of {trials_per_session} trials",
            got=str(n_shared),
        )
    if seed < 0:
        raise InputError("seed", expected="a whole number from 0 up", got=str(seed))
    if n_workers is not None and n_workers < 1:
        raise InputError("n_workers", expected="at least 1", got=str(n_workers))
