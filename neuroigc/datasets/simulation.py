"""A whole invented study on disk, in the release layout of the Natural Scenes Dataset.

The readers cannot tell it from a measured one. What they must not know, the truth, lies beside the
data in ``truth/``.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from neuroigc._files import atomic_path, make_output_folder
from neuroigc._progress import track
from neuroigc._validation import InputError
from neuroigc.datasets import layouts
from neuroigc.datasets.synthetic_images import CATEGORIES, make_scene
from neuroigc.datasets.synthetic_responses import (
    BANDS_CPD,
    EXTENT_DEG,
    SeeingCortex,
    local_contrast,
)
from neuroigc.datasets.synthetic_retinotopy import (
    ATLAS_TABLES,
    N_VERTICES,
    PRF_BY_AREA,
    SPACE,
    VisualCortex,
    area_names,
    make_visual_cortex,
    mesh_coordinates,
    visual_mask,
)

__all__ = ["load_truth", "make_study"]

HEMISPHERES = ("left", "right")
N_SESSIONS = (14, 2, 2, 2, 3, 2, 2, 2)
N_REPEATS = 3  # of each shared image
# Median signal-to-noise ratio of single trials in NSD's eight subjects; relative to it the areas,
# and the spread within an area (SD of the logarithm).
MEDIAN_NCSNR = (0.490, 0.510, 0.431, 0.392, 0.542, 0.439, 0.371, 0.323)
NCSNR_BY_AREA = {"V1": 1.05, "V2": 1.0, "V3": 1.0, "hV4": 1.15}
NCSNR_ELSEWHERE, NCSNR_SCATTER = 0.75, 0.3
# Noise: share of its variance that is smooth over cortex, and how smooth (mm, number of bumps).
SMOOTH_SHARE, SMOOTH_WIDTH_MM, N_BUMPS = 0.15, 25.0, 100
# Percent signal change: SD of a vertex, its mean in SDs, and what changes from session to session.
RESPONSE_SD, RESPONSE_SD_SCATTER, RESPONSE_MEAN = 1.5, 0.3, 0.8
SESSION_GAIN_SCATTER, SESSION_OFFSET = 0.15, 0.4
# Subjects whose last session misses ventral vertices (left, right), in NSD's proportion.
N_MISSING = {6: (2, 20), 8: (2, 1)}
DESIGN_STREAM, CORTEX_STREAM, SESSION_STREAM = 2, 3, 4
BLOCK = 64  # images that are rendered together; part of the answer, as sums round

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
T = TypeVar("T")


def make_study(
    root: str | os.PathLike[str],
    *,
    n_subjects: int = 8,
    n_sessions: int | Sequence[int] | None = None,
    trials_per_session: int = 400,
    n_shared_images: int = 100,
    image_size: int = 96,
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
    root = make_output_folder(root, "root")
    if any(root.iterdir()):
        raise InputError(
            "root",
            expected="a new or empty folder",
            got=f"{root}, which has files",
            fix="Choose another folder, or remove what is there.",
        )
    design = _Design.make(sessions, trials_per_session, n_shared_images, seed)
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
        subjects = [
            _Subject.make(s, cortices[s], observers[s], signals[s], rngs[s])
            for s in range(n_subjects)
        ]
        visits = [(s, k) for s, count in enumerate(sessions) for k in range(count)]
        write = partial(_write_session, root, design, subjects, sessions, seed)
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
    }
    _write_truth(root, subjects, categories, settings)
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
    """
    path = Path(root) / "truth" / f"subj{subject:02d}.npz"
    if not path.is_file():
        raise InputError(
            "root",
            expected="an invented study with this subject",
            got=f"no file {path}",
            fix="Only studies from make_study come with the truth.",
        )
    with np.load(path) as file:
        names = {key.split("_", 1)[1] for key in file.files}
        return {h: {name: file[f"{h}_{name}"] for name in sorted(names)} for h in HEMISPHERES}


@dataclass(frozen=True)
class _Design:
    """Who sees what and when, 0-based throughout."""

    ordering: IntArray  # (n_trials,) columns of subject_images; the same for all subjects
    subject_images: IntArray  # (n_subjects, n_columns) numbers of images
    seen: list[IntArray]  # for each subject the numbers of its images, ascending
    n_images: int
    trials_per_session: int

    @classmethod
    def make(
        cls, sessions: tuple[int, ...], trials_per_session: int, n_shared: int, seed: int
    ) -> _Design:
        rng = np.random.default_rng([seed, 0, 0, DESIGN_STREAM])
        trials = [count * trials_per_session for count in sessions]
        # All shared trials lie in the sessions that every subject has; new images fill the rest.
        is_shared = np.zeros(max(trials), dtype=bool)
        is_shared[rng.permutation(min(trials))[: N_REPEATS * n_shared]] = True
        ordering = np.empty(max(trials), dtype=np.int64)
        ordering[is_shared] = rng.permutation(np.repeat(np.arange(n_shared), N_REPEATS))
        ordering[~is_shared] = n_shared + np.arange(np.sum(~is_shared))
        n_own = [count - N_REPEATS * n_shared for count in trials]
        n_images = n_shared + sum(n_own)
        numbers = rng.permutation(n_images)
        shared, own = numbers[:n_shared], np.split(numbers[n_shared:], np.cumsum(n_own)[:-1])
        # Columns behind a subject's last session are never shown; they point to others' images.
        subject_images = np.array(
            [
                np.r_[shared, mine, np.setdiff1d(numbers, np.r_[shared, mine])[: max(n_own) - n]]
                for mine, n in zip(own, n_own, strict=True)
            ]
        )
        seen = [np.sort(np.r_[shared, mine]) for mine in own]
        return cls(ordering, subject_images, seen, n_images, trials_per_session)

    def rows(self, subject: int, session: int) -> IntArray:
        """Return for each trial of a session the row of its image in ``seen``."""
        trials = slice(session * self.trials_per_session, (session + 1) * self.trials_per_session)
        images = self.subject_images[subject, self.ordering[trials]]
        return np.searchsorted(self.seen[subject], images)


@dataclass(frozen=True)
class _Subject:
    """All that makes the responses of one subject, left hemisphere first."""

    number: int
    cortex: VisualCortex
    vertices: IntArray  # (n_signals,) where the signals belong in both hemispheres
    signals: FloatArray  # (n_images, n_signals) mean 0, SD 1
    signal_fraction: FloatArray  # (2 * N_VERTICES,)
    coverage: FloatArray
    response_sd: FloatArray  # percent signal change
    bumps: list[FloatArray]  # per hemisphere (N_BUMPS, N_VERTICES): patterns of smooth noise

    @classmethod
    def make(
        cls,
        index: int,
        cortex: VisualCortex,
        observer: SeeingCortex,
        signals: FloatArray,
        rng: np.random.Generator,
    ) -> _Subject:
        vertices = np.concatenate(
            [observer.vertices[h] + i * N_VERTICES for i, h in enumerate(HEMISPHERES)]
        )
        labels = np.concatenate([cortex.labels["prf-visualrois"][h] for h in HEMISPHERES])
        areas = area_names(labels[vertices])
        ratio = np.array([NCSNR_BY_AREA.get(area, NCSNR_ELSEWHERE) for area in areas])
        ratio *= observer.coverage * np.exp(NCSNR_SCATTER * rng.standard_normal(len(ratio)))
        ratio *= MEDIAN_NCSNR[index] / np.median(ratio)
        fraction, coverage = np.zeros((2, 2 * N_VERTICES), dtype=np.float32)
        fraction[vertices] = ratio**2 / (1 + ratio**2)
        coverage[vertices] = observer.coverage
        scatter = rng.standard_normal(2 * N_VERTICES, dtype=np.float32)
        return cls(
            index + 1,
            cortex,
            vertices,
            (signals - signals.mean(axis=0)) / signals.std(axis=0),
            fraction,
            coverage,
            RESPONSE_SD * np.exp(RESPONSE_SD_SCATTER * scatter),
            [_smooth_patterns(hemisphere, rng) for hemisphere in HEMISPHERES],
        )

    @property
    def ncsnr(self) -> FloatArray:
        """Return signal SD over noise SD of single trials."""
        return np.sqrt(self.signal_fraction / (1 - self.signal_fraction))

    def by_hemisphere(self, name: str) -> dict[str, FloatArray]:
        """Return one of the arrays over both hemispheres, taken apart."""
        return dict(zip(HEMISPHERES, np.split(getattr(self, name), 2), strict=True))

    def smooth(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return (n, 2 * N_VERTICES) patterns that are smooth over cortex, of SD 1."""
        weights = rng.standard_normal((2, n, N_BUMPS), dtype=np.float32)
        return np.concatenate([w @ b for w, b in zip(weights, self.bumps, strict=True)], axis=1)


def _smooth_patterns(hemisphere: str, rng: np.random.Generator) -> FloatArray:
    sphere = mesh_coordinates("sphere", hemisphere)
    centres = sphere[rng.choice(N_VERTICES, N_BUMPS, replace=False)]
    squared = ((centres[:, None] - sphere) ** 2).sum(axis=-1)
    bumps = np.exp(-0.5 * squared / SMOOTH_WIDTH_MM**2)
    return (bumps / np.linalg.norm(bumps, axis=0)).astype(np.float32)


def _show_images(
    root: Path,
    design: _Design,
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
    root: Path,
    design: _Design,
    subjects: list[_Subject],
    sessions: tuple[int, ...],
    seed: int,
    visit: tuple[int, int],
) -> None:
    """Invent and write the single-trial responses of one session, percent signal change."""
    index, session = visit
    subject, rng = subjects[index], np.random.default_rng([seed, index, session, SESSION_STREAM])
    rows = design.rows(index, session)
    betas = rng.standard_normal((len(rows), 2 * N_VERTICES), dtype=np.float32)
    betas *= np.float32(np.sqrt(1 - SMOOTH_SHARE))
    betas += np.float32(np.sqrt(SMOOTH_SHARE)) * subject.smooth(len(rows), rng)
    betas *= np.sqrt(1 - subject.signal_fraction)
    strength = np.sqrt(subject.signal_fraction[subject.vertices])
    betas[:, subject.vertices] += strength * subject.signals[rows]
    # Sessions differ in scale and level, which is why readers standardise each of them.
    gain = np.float32(np.exp(SESSION_GAIN_SCATTER * rng.standard_normal()))
    level = np.where(subject.signal_fraction > 0, np.float32(RESPONSE_MEAN), np.float32(0))
    betas += level + np.float32(SESSION_OFFSET) * subject.smooth(1, rng)
    betas *= gain * subject.response_sd
    if session == sessions[index] - 1 and subject.number in N_MISSING:
        betas[:, _missing_vertices(N_MISSING[subject.number])] = np.nan
    both = dict(zip(HEMISPHERES, np.split(betas.T, 2), strict=True))
    layouts.write_betas(root, subject.number, session + 1, both, space=SPACE)


def _missing_vertices(counts: tuple[int, int]) -> IntArray:
    """Return the lowest vertices of the visual mask, where the signal drops out."""
    missing = []
    for i, (hemisphere, count) in enumerate(zip(HEMISPHERES, counts, strict=True)):
        inside = np.flatnonzero(visual_mask()[hemisphere])
        height = mesh_coordinates("white_matter", hemisphere)[inside, 2]
        missing.append(inside[np.argsort(height, kind="stable")[:count]] + i * N_VERTICES)
    return np.concatenate(missing)


def _write_labels(root: Path, cortices: list[VisualCortex]) -> None:
    for number, cortex in enumerate(cortices, start=1):
        for atlas, names in ATLAS_TABLES.items():
            table = dict(enumerate(names, start=1))
            layouts.write_labels(root, f"subj{number:02d}", atlas, cortex.labels[atlas], table)
    mask = {hemisphere: inside.astype(np.int64) for hemisphere, inside in visual_mask().items()}
    layouts.write_labels(root, SPACE, "nsdgeneral", mask, {1: "nsdgeneral"})


def _write_truth(
    root: Path, subjects: list[_Subject], categories: FloatArray, settings: dict[str, object]
) -> None:
    folder = make_output_folder(root / "truth", "root")
    for subject in subjects:
        cortex, truth = subject.cortex, {}
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
