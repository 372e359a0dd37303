"""Rows of several arrays, one below the other, read from where they lie and never copied whole."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from neuroigc._validation import InputError

__all__ = ["StackedRows"]

# Where columns are picked, whole rows of about this size are read first: a processor's own cache
# holds them until they are picked.
BLOCK_BYTES = 2**20

# Of requests up to this size the disk is told all places at once, so that it need not be waited for
# place by place. Longer ones would push one another out of memory.
ANNOUNCED_BYTES = 2**26


class StackedRows:
    """Chosen rows and columns of several arrays, stacked, as one array that is read by rows.

    What it is for are the memory maps of several subjects: together they are larger than the
    memory, and each has rows and columns of its own that count. Rows are read in the order in
    which they lie on disk, neighbours at once. Files are read explicitly rather than through
    their maps, so that none of their pages count as this process's memory.

    Parameters
    ----------
    parts : sequence of (array, rows, columns)
        Arrays or memory maps (n_rows, n_columns); for each, the indices of the rows that count,
        and of the columns in their order. None stands for all.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
        The one that holds the numbers of all parts.
    ndim, size : int

    Raises
    ------
    InputError
        If there are no parts, if indices point outside an array, or if the numbers of columns
        differ.

    Examples
    --------
    >>> import numpy
    >>> first, second = numpy.arange(6).reshape(3, 2), numpy.arange(8).reshape(2, 4)
    >>> both = StackedRows([(first, [0, 2], None), (second, None, [3, 1])])
    >>> both[[3, 0]].tolist()
    [[7, 5], [0, 1]]
    """

    ndim = 2

    def __init__(
        self,
        parts: Sequence[tuple[npt.NDArray[Any], npt.ArrayLike | None, npt.ArrayLike | None]],
    ) -> None:
        self._parts = [_Part.of(*part) for part in parts]
        widths = sorted({part.width for part in self._parts})
        if len(widths) != 1:
            raise InputError(
                "parts",
                expected="one array or more, all with the same number of columns",
                got=" and ".join(map(str, widths)) + " columns" if widths else "none",
            )
        self._ends = np.cumsum([len(part.rows) for part in self._parts])
        self.shape = (int(self._ends[-1]), widths[0])
        self.dtype = np.result_type(*(part.array.dtype for part in self._parts))

    @property
    def size(self) -> int:
        """Return how many numbers there are."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows that lie elsewhere cannot be had without a copy")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return rows: one for an integer, else (n, n_columns) for a slice, mask or indices."""
        chosen = np.arange(len(self))[index]
        if isinstance(index, tuple) or chosen.ndim > 1:
            raise IndexError("only rows can be chosen")
        wanted = np.atleast_1d(chosen)
        part_of = np.searchsorted(self._ends, wanted, side="right")
        firsts = np.r_[0, self._ends[:-1]]
        places = np.empty_like(wanted)
        for k in np.unique(part_of):
            mine = part_of == k
            places[mine] = self._parts[k].rows[wanted[mine] - firsts[k]]
        order = np.lexsort((places, part_of))
        values = np.empty((len(wanted), self.shape[1]), self.dtype)
        bounds = np.searchsorted(part_of[order], np.arange(len(self._parts) + 1))
        jobs = [
            (part, places[order[start:stop]], values[start:stop])
            for part, start, stop in zip(self._parts, bounds[:-1], bounds[1:], strict=True)
            if start < stop
        ]
        if sum(len(rows) * part.row_bytes for part, rows, _ in jobs) <= ANNOUNCED_BYTES:
            for part, rows, _ in jobs:
                part.announce(rows)
        for part, rows, out in jobs:
            part.read(rows, out)
        if (np.diff(order) < 0).any():
            values[order] = values.copy()
        return values if chosen.ndim else values[0]


@dataclass(frozen=True)
class _Part:
    """Rows and columns of one array; ``file`` is the number of its open file, if it is a map."""

    array: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64] | None
    width: int
    file: int | None

    @classmethod
    def of(
        cls, array: npt.NDArray[Any], rows: npt.ArrayLike | None, columns: npt.ArrayLike | None
    ) -> _Part:
        if array.ndim != 2:
            raise InputError(
                "parts", expected="arrays (n_rows, n_columns)", got=f"shape {array.shape}"
            )
        picked = _indices("columns", columns, array.shape[1])
        width = len(picked)
        all_columns = np.array_equal(picked, np.arange(array.shape[1]))
        chosen = _indices("rows", rows, array.shape[0])
        part = cls(array, chosen, None if all_columns else picked, width, _open(array))
        if part.file is not None:
            weakref.finalize(part, os.close, part.file)
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy opens a file of its own: this one's is closed with it, and means nothing elsewhere.
        return _Part.of, (self.array, self.rows, self.columns)

    @property
    def row_bytes(self) -> int:
        """Return how many bytes a row takes, with the columns that are not picked."""
        return self.array.shape[1] * self.array.itemsize

    def read(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Fill ``out`` with rows given in ascending order."""
        if self.file is None:
            picked = self.array[rows]
            out[:] = picked if self.columns is None else picked[:, self.columns]
            return
        if self.columns is None and out.dtype == self.array.dtype:
            self._read_file(rows, out)
            return
        step = min(len(rows), max(1, BLOCK_BYTES // max(1, self.row_bytes)))
        buffer = np.empty((step, self.array.shape[1]), self.array.dtype)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            whole, into = buffer[: len(block)], out[start : start + step]
            self._read_file(block, whole)
            if self.columns is None or out.dtype != self.array.dtype:
                into[:] = whole if self.columns is None else whole.take(self.columns, axis=1)
            else:
                # Columns were checked; without "clip" numpy would take a copy first.
                whole.take(self.columns, axis=1, out=into, mode="clip")

    def announce(self, rows: npt.NDArray[np.int64]) -> None:
        """Tell the disk which rows, in ascending order, will be read next, where it can be told."""
        if self.file is None or not hasattr(os, "posix_fadvise"):
            return
        for start, stop, place in self._runs(rows):
            n_bytes = (stop - start) * self.row_bytes
            os.posix_fadvise(self.file, place, n_bytes, os.POSIX_FADV_WILLNEED)

    def _runs(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
        """Yield the bounds of each run of neighbouring rows, and its place in the file."""
        first = self.array.offset  # type: ignore[attr-defined]
        breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
        for start, stop in pairwise((0, *breaks, len(rows))):
            yield start, stop, first + int(rows[start]) * self.row_bytes

    def _read_file(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Read runs of neighbouring rows at once."""
        for start, stop, place in self._runs(rows):
            left = memoryview(out[start:stop].reshape(-1).view(np.uint8))
            while left:
                n = os.preadv(self.file, [left], place)
                if not n:
                    raise OSError(f"{self.array.filename} ends too early")  # type: ignore[attr-defined]
                left, place = left[n:], place + n


def _open(array: npt.NDArray[Any]) -> int | None:
    """Open the file behind a memory map; of what is no whole map, return None.

    Changes to a copy-on-write map are in memory alone.
    """
    is_whole_map = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)
    if not (is_whole_map and array.filename and array.flags.c_contiguous and array.size):  # type: ignore[attr-defined]
        return None
    if array.mode == "c":  # type: ignore[attr-defined]
        return None
    return os.open(array.filename, os.O_RDONLY)  # type: ignore[attr-defined]


def _indices(what: str, indices: npt.ArrayLike | None, n: int) -> npt.NDArray[np.int64]:
    if indices is None:
        return np.arange(n)
    array = np.asarray(indices)
    whole = array.dtype.kind in "iu" or not array.size
    array = array.astype(np.int64)
    if not whole or array.ndim != 1 or (len(array) and (array.min() < 0 or array.max() >= n)):
        raise InputError(
            f"{what} of parts",
            expected=f"indices from 0 to {n - 1}",
            got=f"shape {array.shape}"
            + (f", from {array.min()} to {array.max()}" if array.size else "")
            + ("" if whole else ", a mask or fractions"),
        )
    return array
