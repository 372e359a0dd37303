"""A subject of NSD, from the release's files to a store on disk, in little memory.

Two phases, each made of files that are either whole or not there, so that work that was cut short
goes on where it stopped and ends in the same bytes: first every session's standardised trials, in a
hidden folder inside the store unless they fit in memory; then averages over repeats, image by
image.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from neuroigc._ceilings import ncsnr_from_noise
from neuroigc._files import make_output_folder, writing_alone
from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice
from neuroigc.datasets._paths import BETA_VERSION, StrPath
from neuroigc.datasets._release import Mask, NsdSubject, open_nsd
from neuroigc.datasets._work import WORK, begin_work, check_settings, end_work, is_begun
from neuroigc.datasets.store import array_header, reopen_store, write_array, writing_array
from neuroigc.datasets.subjects import KIND, RESPONSE_DTYPES, SubjectData, write_rest

__all__ = ["count_kept", "prepare_nsd", "prepare_opened"]

CEILING_TRIALS = 3
MEMORY_GB = 1.0
# Averages that are written at once.
BLOCK_BYTES = 2**22

Trials = npt.NDArray[np.float32]


def prepare_nsd(
    root: StrPath,
    subject: int | str,
    folder: StrPath,
    *,
    space: str = "fsaverage",
    beta_version: str = BETA_VERSION,
    sessions: Sequence[int] | None = None,
    mask: Mask | None = None,
    test_images: str | npt.ArrayLike = "shared",
    dtype: str = "float32",
    memory_gb: float = MEMORY_GB,
    progress: bool = False,
) -> SubjectData:
    """Prepare one subject's responses to images on disk, in bounded memory.

    The numbers are those of :func:`neuroigc.datasets.load_nsd`. What was interrupted, even
    killed, goes on with the same call and ends in the same bytes. Of memory it takes
    ``memory_gb``, or two sessions at the vertices asked for (0.23 GB with NSD's ``nsdgeneral``,
    2 GB without a mask) if that is more.

    Parameters
    ----------
    root, subject, space, beta_version, sessions, mask, test_images, progress
        As in :func:`neuroigc.datasets.load_nsd`.
    folder : path
        Made if need be; :meth:`SubjectData.load` reads it.
    dtype : "float32" or "float16"
        Of the responses on disk.
    memory_gb : float
        Trials that take no more than this, as those of the first nine sessions of NSD do with
        ``nsdgeneral``, stay in memory until they are averaged, and are read again if that is
        interrupted. More than this go to disk, session by session, and stay there until all is
        done. Does not change the result.

    Returns
    -------
    SubjectData
        Its responses are a memory map. Where the release's files of ``ncsnr`` are missing, it is
        estimated from the images with three trials: of their standardised trials
        ``v^2`` is the mean over images of the unbiased variance, and
        ``ncsnr = sqrt(max(0, 1 - v^2)) / v``. Without such an image it stays None.

    Raises
    ------
    InputError
        As :func:`neuroigc.datasets.load_nsd`; also if the folder holds what was prepared, or
        begun, with other settings or from other files, or another process is writing to it.
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
    return prepare_opened(plan, folder, dtype=dtype, memory_gb=memory_gb, progress=progress)


def prepare_opened(
    plan: NsdSubject,
    folder: StrPath,
    *,
    dtype: str = "float32",
    memory_gb: float = MEMORY_GB,
    progress: bool = False,
) -> SubjectData:
    """Prepare what :func:`open_nsd` checked, as :func:`prepare_nsd`."""
    check_choice("dtype", dtype, RESPONSE_DTYPES)
    if not (isinstance(memory_gb, Real) and float(memory_gb) >= 0):
        raise InputError("memory_gb", expected="a number, 0 or more", got=repr(memory_gb))
    folder = make_output_folder(folder, "folder")
    settings = plan.settings(dtype)
    if (data := _finished(folder, settings)) is not None and not is_begun(folder):
        return data
    with writing_alone(folder):
        if data is None:
            data = _prepare(plan, folder, settings, dtype, memory_gb, progress)
        end_work(folder)
    return data


def _prepare(
    plan: NsdSubject,
    folder: Path,
    settings: dict[str, Any],
    dtype: str,
    memory_gb: float,
    progress: bool,
) -> SubjectData:
    work = begin_work(folder, settings)
    reopen_store(folder, KIND)
    in_memory = _read_sessions(plan, work, memory_gb, progress)
    with _Trials(plan, work, in_memory) as trials:
        valid = trials.valid_columns()
        kept = plan.valid_columns(valid)
        path = folder / "responses.npy"
        averages = _write_averages(plan, trials, kept, path, dtype, progress)
    responses = np.load(path, mmap_mode="r", allow_pickle=False)
    made = plan.subject_data(responses, valid, averages.ncsnr, ncsnr_from=averages.ncsnr_from)
    write_rest(made, folder, sha256_of_responses=averages.sha256)
    return SubjectData.load(folder)


def _finished(folder: Path, settings: dict[str, Any]) -> SubjectData | None:
    """Return what was prepared before; None if it is not whole, and has to be made again."""
    try:
        data = SubjectData.load(folder)
    except InputError:
        return None
    check_settings(folder, (data.provenance or {}).get("settings"), settings)
    return data


def count_kept(folder: StrPath) -> int:
    """Return how many sessions work that was cut short has left in a folder."""
    return len(list((Path(folder) / WORK).glob("session[0-9]*.npy")))


def _session_path(work: Path, session: int) -> Path:
    return work / f"session{session:02d}.npy"


def _read_sessions(
    plan: NsdSubject, work: Path, memory_gb: float, progress: bool
) -> dict[int, Trials]:
    """Read the sessions that are not on disk; return them if they fit, else write them there."""
    missing = [s for s in plan.files if not _is_whole(_session_path(work, s), plan)]
    fit = 4 * plan.n_trials * plan.n_columns * len(missing) <= 1e9 * memory_gb
    kept = {}
    for session, betas in plan.read(missing, progress=progress):
        if fit:
            kept[session] = betas
        else:
            write_array(_session_path(work, session), betas)
        del betas
    return kept


def _is_whole(path: Path, plan: NsdSubject) -> bool:
    """Tell whether a session's trials are there; a power cut may leave a file without its end."""
    try:
        found = array_header(path)
    except InputError:
        return False
    return found == ((plan.n_trials, plan.n_columns), np.dtype(np.float32))


class _Averages(NamedTuple):
    """The signal-to-noise ratio, where it comes from, and the SHA-256 of the averages."""

    ncsnr: npt.NDArray[np.float32] | None
    ncsnr_from: str
    sha256: str


class _Trials:
    """The standardised trials of all sessions, in memory or read row by row from disk.

    Maps would keep their pages.
    """

    def __init__(self, plan: NsdSubject, work: Path, kept: Mapping[int, Trials]) -> None:
        self._stack, self._plan = ExitStack(), plan
        self._kept = [kept.get(session) for session in plan.files]
        paths = [_session_path(work, session) for session in plan.files]
        self._files = [
            None if session in kept else self._stack.enter_context(path.open("rb", buffering=0))
            for session, path in zip(plan.files, paths, strict=True)
        ]
        self._n_bytes = 4 * plan.n_columns

    def __enter__(self) -> _Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, trial: int, spare: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return one trial (n_columns,), counted through all sessions; ``spare`` may hold it."""
        session, row = divmod(trial, self._plan.n_trials)
        if (trials := self._kept[session]) is not None:
            return trials[row]
        file = self._files[session]
        # Rows stand at the end of the file.
        file.seek((row - self._plan.n_trials) * self._n_bytes, os.SEEK_END)
        file.readinto(spare.data.cast("B"))
        return spare

    def valid_columns(self) -> dict[int, npt.NDArray[np.bool_]]:
        """Return the columns that are valid in each session: others are NaN on all its trials."""
        spare = np.empty(self._plan.n_columns, dtype=np.float32)
        return {
            session: np.isfinite(self.read(number * self._plan.n_trials, spare))
            for number, session in enumerate(self._plan.files)
        }


def _write_averages(
    plan: NsdSubject,
    trials: _Trials,
    kept: npt.NDArray[np.bool_],
    path: Path,
    dtype: str,
    progress: bool,
) -> _Averages:
    """Write averages over repeats."""
    columns = None if kept.all() else np.flatnonzero(kept)
    n_kept = int(kept.sum())
    # All trials, image by image, and those of each image as they came.
    order = np.argsort(np.concatenate(list(plan.rows.values())), kind="stable")
    by_image = np.split(order, np.cumsum(plan.n_repeats)[:-1])
    spare = np.empty((plan.n_repeats.max(), plan.n_columns), dtype=np.float32)
    average, square, squares = np.empty((3, plan.n_columns), dtype=np.float32)
    noise, n_of_noise = np.zeros(plan.n_columns), 0
    row_bytes = n_kept * np.dtype(dtype).itemsize
    n_block = min(len(by_image), max(1, BLOCK_BYTES // row_bytes))
    # While one block of rows is computed, the other is written.
    blocks = itertools.cycle(np.empty((2, n_block, n_kept), dtype=dtype))
    digest = hashlib.sha256()
    with (
        writing_array(path, (len(by_image), n_kept), dtype) as out,
        ThreadPoolExecutor(1) as writer,
    ):

        def write(block: npt.NDArray[np.floating]) -> None:
            digest.update(block.data)
            out.write(block.data)

        writing: Future[None] | None = None
        label = f"subj{plan.subject} averages"
        for start in track(range(0, len(by_image), n_block), show=progress, label=label):
            block = next(blocks)
            images = by_image[start : start + n_block]
            for row, own in zip(block, images, strict=False):
                betas = [trials.read(int(t), one) for t, one in zip(own, spare, strict=False)]
                np.copyto(average, betas[0])
                for one in betas[1:]:
                    average += one
                average /= np.float32(len(own))
                row[:] = average if columns is None else average.take(columns)
                if plan.ncsnr is None and len(own) == CEILING_TRIALS:
                    squares[:] = 0
                    for one in betas:
                        np.subtract(one, average, out=square)
                        square *= square
                        squares += square
                    noise += squares
                    n_of_noise += 1
            if writing is not None:
                writing.result()
            writing = writer.submit(write, block[: len(images)])
        if writing is not None:
            writing.result()
    if plan.ncsnr is not None or not n_of_noise:
        return _Averages(plan.ncsnr, "the release", digest.hexdigest())
    noise /= n_of_noise * (CEILING_TRIALS - 1)
    ncsnr = ncsnr_from_noise(noise).astype(np.float32)
    return _Averages(ncsnr, f"{n_of_noise} images with 3 trials", digest.hexdigest())
