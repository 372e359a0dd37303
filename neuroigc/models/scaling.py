"""Means and standard deviations of arrays that are larger than the memory, in one pass."""

from __future__ import annotations

import math

import numpy as np
import torch

from neuroigc._validation import InputError
from neuroigc.models.feeding import read_ahead

__all__ = ["measure_scaling", "refuse_not_finite"]

# Numbers that are summed in one go: as many as a core's cache holds in float64.
TILE = (64, 2048)


def measure_scaling(array, *, argument, per_column=True, chunk_size=2**24):
    """Return mean and standard deviation of an array, refusing what is not finite.

    Parameters
    ----------
    array : array (n, ...)
        Read in chunks, once, so that it may be larger than the memory.
    argument : str
        Its name in error messages.
    per_column : bool
        For each column of (n, n_columns), or one number for all values.
    chunk_size : int
        Numbers read at a time; up to three times as many are in memory.

    Returns
    -------
    mean, scale : float64 arrays, (n_columns,) or ()
        ``scale`` is ``inf`` where there is no variation, so that standardised values are 0.
    """
    n, shift, n_bad = len(array), None, 0
    chunk_rows = max(1, chunk_size // math.prod(array.shape[1:]))
    slices = [slice(start, start + chunk_rows) for start in range(0, n, chunk_rows)]
    for chunk in read_ahead(lambda rows: _as_tensor(array[rows]), slices, 1):
        if shift is None:
            # Moments about a value in the middle: exact also where it is large against the spread.
            first = chunk[: TILE[0]].double()
            shift = first.mean(0) if per_column else first.mean()
            sums, squares = torch.zeros((2, chunk.shape[1]), dtype=torch.float64)
        more, more_squares = _moments(chunk, shift.expand(chunk.shape[1]))
        sums += more
        squares += more_squares
        if not bool(more_squares.isfinite().all()):
            n_bad += int((~chunk.isfinite()).sum())
    refuse_not_finite(argument, n_bad)
    if not per_column:
        n, sums, squares = n * len(sums), sums.sum(), squares.sum()
    offset = sums / n
    scale = (squares / n - offset**2).clamp_min(0).sqrt().numpy()
    mean = (shift + offset).numpy()
    return mean[()], np.where(scale > 1e-6 * np.abs(mean), scale, np.inf)[()]


def refuse_not_finite(argument, n_bad):
    """Raise if there are values that are not finite."""
    if n_bad:
        raise InputError(
            argument,
            expected="finite numbers only",
            got=f"{n_bad} values that are NaN or infinite",
            fix="Leave those rows or columns out, knowingly.",
        )


def _as_tensor(rows):
    """Return rows as (n, n_columns) of floating-point numbers."""
    rows = np.asarray(rows)
    if rows.dtype.kind != "f" or not rows.dtype.isnative or rows.dtype.itemsize > 8:
        rows = rows.astype(np.float64)
    # torch takes what it may write to.
    return torch.from_numpy(np.require(rows, requirements="CW").reshape(len(rows), -1))


def _moments(chunk, shift):
    """Return sums and sums of squares of each column about ``shift``."""
    height, width = TILE
    sums, squares = torch.zeros((2, chunk.shape[1]), dtype=torch.float64)
    for column in range(0, chunk.shape[1], width):
        columns = slice(column, column + width)
        for row in range(0, len(chunk), height):
            tile = (
                chunk[row : row + height, columns].to(torch.float64, copy=True).sub_(shift[columns])
            )
            sums[columns] += tile.sum(0)
            squares[columns] += tile.square_().sum(0)
    return sums, squares
