"""Means and standard deviations of columns, from rows that come a few at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]

# Rows that are worked on at once: few enough for the processor's cache, and for sums in single
# precision.
BLOCK_ROWS = 6


class Moments:
    """Sums over rows, and the z-scores that follow from them.

    Sums are of what rows differ from the median of the first three, so that constant columns come
    out as exactly zero, and neither a large mean nor one row that stands far out takes digits from
    a small deviation. A few rows are added up in single precision, and these sums in double:
    z-scores are right to within some 3e-7 of their size. How rows come changes no bit.

    Parameters
    ----------
    rows : array of shape (n_rows, n_columns), float32
        To be filled from the first row on.
    """

    def __init__(self, rows: npt.NDArray[np.float32]) -> None:
        self._rows, self._n_added = rows, 0
        self._sums, self._squares = np.zeros((2, rows.shape[1]))
        self._middle = np.empty(rows.shape[1], rows.dtype)

    def add(self, n_filled: int) -> None:
        """Add those of the first ``n_filled`` rows, which are filled, that make whole blocks."""
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so
            while self._n_added < n_filled:
                stop = min(self._n_added + BLOCK_ROWS, len(self._rows))
                if stop > n_filled:
                    return
                if not self._n_added:
                    first = np.sort(self._rows[: min(3, stop)], axis=0)
                    self._middle = first[(len(first) - 1) // 2]
                differences = self._rows[self._n_added : stop] - self._middle
                self._sums += differences.sum(axis=0)
                differences *= differences
                self._squares += differences.sum(axis=0)
                self._n_added = stop

    def standardise(self) -> None:
        """Make z-scores (SD with ddof = 0) of the rows, all of which were added, in place.

        Columns in which a number is not finite, or all are the same, become NaN.
        """
        n_rows = len(self._rows)
        with np.errstate(invalid="ignore", over="ignore"):
            shift = self._sums / n_rows
            deviation = np.sqrt(np.maximum(self._squares / n_rows - shift**2, 0))
        good = np.isfinite(deviation) & (deviation > 0)
        mean = np.where(good, np.where(good, self._middle, 0) + shift, np.nan)
        scale = np.where(good, 1 / np.where(good, deviation, 1), np.nan)
        # In single precision, the mean as what it can hold and the rest.
        high, factor = mean.astype(np.float32), scale.astype(np.float32)
        low = ((high - mean) * scale).astype(np.float32)
        with np.errstate(invalid="ignore"):
            for start in range(0, n_rows, BLOCK_ROWS):
                block = self._rows[start : start + BLOCK_ROWS]
                block -= high
                block *= factor
                block += low
