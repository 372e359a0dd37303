"""The experiment of the Natural Scenes Dataset: which image was shown to whom, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._validation import InputError
from neuroigc.datasets import _paths
from neuroigc.datasets._mat5 import read_mat
from neuroigc.datasets._paths import StrPath
from neuroigc.datasets.arrays import whole_numbers

__all__ = ["RELEASED_SESSIONS", "Design", "check_were_seen"]

# Sessions of subjects 1 to 8 in the release, of the design's 40.
RELEASED_SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
RELEASED_TRIALS = 30_000
N_REPEATS, TRIALS_PER_SESSION = 3, 750
OBTAIN = "Obtain the file again."


@dataclass(frozen=True)
class Design:
    """Which image was shown when. All numbers are 1-based here, as in the file."""

    path: str
    master_ordering: npt.NDArray[np.int64]
    subject_images: npt.NDArray[np.int64]
    shared_images: npt.NDArray[np.int64]
    planned_trials: npt.NDArray[np.int64] | None

    @classmethod
    def read(cls, root: StrPath) -> Design:
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

    def trial_images(
        self, subject: str, session: int, n_trials: int, path: Path
    ) -> npt.NDArray[np.int64]:
        """Return the 0-based image id of each of the trials that a session's file has."""
        row = int(subject) - 1
        if row >= len(self.subject_images):
            raise InputError(
                "subject", expected=f"one of 1 to {len(self.subject_images)}", got=subject
            )
        stop = session * n_trials
        planned = n_trials
        if self.planned_trials is not None and session <= len(self.planned_trials):
            planned = self.planned_trials[session - 1]
        elif len(self.master_ordering) == RELEASED_TRIALS:
            planned = TRIALS_PER_SESSION
        if stop > len(self.master_ordering) or n_trials != planned:
            raise InputError(
                str(path),
                expected=f"an image id in {self.path} for each trial "
                f"({len(self.master_ordering)} ids, {planned} trials in session {session})",
                got=f"{n_trials} trials, which are trials {stop - n_trials + 1} to {stop}",
                fix="Betas and experiment design must come from the same release.",
            )
        return self.subject_images[row, self.master_ordering[stop - n_trials : stop] - 1] - 1

    def test_ids(
        self, test_images: str | npt.ArrayLike, n_sessions: Iterable[int]
    ) -> npt.NDArray[np.int64]:
        """Return the 0-based ids of the test images; ``n_sessions`` as in :meth:`special_ids`."""
        if not isinstance(test_images, str):
            expected = "'shared' or 0-based numbers, or 'special'"
            given = whole_numbers("test_images", test_images, expected)
            check_were_seen(given, self.subject_images - 1)
            return given
        if test_images not in ("shared", "special"):
            raise InputError(
                "test_images",
                expected="'shared' or an array of image ids, or 'special'",
                got=repr(test_images),
            )
        return self.shared_images - 1 if test_images == "shared" else self.special_ids(n_sessions)

    def special_ids(self, n_sessions: Iterable[int]) -> npt.NDArray[np.int64]:
        """Return the 0-based ids of the images that all subjects saw three times.

        Parameters
        ----------
        n_sessions : iterable of int
            How many sessions each subject was scanned for. Those of the release are known, so
            that its 515 images are the same whatever part of it was obtained.
        """
        if len(self.master_ordering) == RELEASED_TRIALS and len(self.subject_images) == 8:
            n_sessions = RELEASED_SESSIONS
        # All see the same columns in the same order, so the shortest scanned decides.
        shown = self.master_ordering[: self._n_trials(min(n_sessions))] - 1
        counts = np.bincount(shown, minlength=self.subject_images.shape[1])
        often = self.subject_images[:, counts >= N_REPEATS]
        seen = [i for i in self.shared_images if (often == i).any(axis=1).all()]
        return np.array(seen, dtype=np.int64) - 1

    def _n_trials(self, n_sessions: int) -> int:
        if self.planned_trials is None:
            return n_sessions * TRIALS_PER_SESSION
        return int(self.planned_trials[:n_sessions].sum())


def check_were_seen(test_images: npt.ArrayLike, seen: npt.ArrayLike) -> None:
    """Raise if test images were asked for that nobody saw, rather than leave them out."""
    given = np.unique(test_images)
    unseen = np.setdiff1d(given, seen)
    if len(unseen):
        raise InputError(
            "test_images",
            expected="0-based numbers of images that a subject saw in these sessions",
            got=f"{len(unseen)} of {len(given)} that nobody saw, such as {unseen[0]}",
            fix="Leave them out, or add the subjects and sessions that they belong to; what NSD "
            "calls 73KID counts from 1.",
        )


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
