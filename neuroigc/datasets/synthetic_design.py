"""Which invented image is shown to whom, and on which trial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["N_REPEATS", "Design"]

N_REPEATS = 3  # of each shared image
DESIGN_STREAM = 2  # sets these random numbers apart from those of images, subjects and sessions

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Design:
    """Who sees what and when, 0-based throughout.

    Attributes
    ----------
    ordering : array of shape (n_trials,)
        Trial by trial a column of ``subject_images``; the same for all subjects.
    subject_images : array of shape (n_subjects, n_columns)
        Numbers of images. Columns behind a subject's last session are never shown.
    seen : list of arrays
        For each subject the numbers of its images, ascending.
    n_images : int
        Images of all subjects together.
    trials_per_session : int
    """

    ordering: IntArray
    subject_images: IntArray
    seen: list[IntArray]
    n_images: int
    trials_per_session: int

    @classmethod
    def make(
        cls, sessions: tuple[int, ...], trials_per_session: int, n_shared: int, seed: int
    ) -> Design:
        """Draw the order of trials: shared images three times, the others once.

        Parameters
        ----------
        sessions : tuple of int
            Number of sessions of each subject.
        trials_per_session, n_shared, seed : int
        """
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
