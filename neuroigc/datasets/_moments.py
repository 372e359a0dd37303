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

    Sums are of what rows differ from the first one, so that constant columns come out as exactly
    zero, and a large mean takes no digits from a small deviation. A few rows are added up in single
    precision, and these sums in double: z-scores are right to within some 3e-7 of their size.

    Parameters
    ----------
    n_columns : int
    """

    def __init__(self, n_columns: int) -> None:
        self._origin: npt.NDArray[np.float32] | None = None
        self._n_rows, self._sums, self._squares = 0, np.zeros(n_columns), np.zeros(n_columns)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (n_rows, n_columns)."""
        if self._origin is None:
            self._origin = rows[0].copy()
        self._n_rows += len(rows)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so
            for block in _blocks(rows):
                differences = block - self._origin
                self._sums += differences.sum(axis=0)
                self._squares += np.einsum("tv,tv->v", differences, differences)

    def standardise(self, rows: npt.NDArray[np.float32]) -> None:
        """Make z-scores (SD with ddof = 0) of all the rows that were added, in place.

        Columns in which a number is not finite, or all are the same, become NaN.
        """
        if self._origin is None:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            shift = self._sums / self._n_rows
            deviation = np.sqrt(np.maximum(self._squares / self._n_rows - shift**2, 0))
        good = np.isfinite(deviation) & (deviation > 0)
        mean = np.where(good, self._origin + shift, np.nan)
        scale = np.where(good, 1 / np.where(good, deviation, 1), np.nan)
        # In single precision, the mean as what it can hold and the rest.
        high, factor = mean.astype(np.float32), scale.astype(np.float32)
        low = ((high - mean) * scale).astype(np.float32)
        with np.errstate(invalid="ignore"):
            for block in _blocks(rows):
                block -= high
                block *= factor
                block += low


def _blocks(rows: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    return [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]
