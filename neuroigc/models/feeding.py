"""Feeding a network: batches of rows, read ahead of their use by threads.

Works on arrays, memory maps and whatever else has a shape, a dtype and rows: only the rows of a
few batches are in memory at a time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np
import torch

from neuroigc._validation import check_same_length

__all__ = ["Samples", "as_rows", "count_batches", "read_ahead"]


def as_rows(values):
    """Return an array, or what reads its rows when they are asked for, as it is."""
    is_lazy = isinstance(getattr(values, "dtype", None), np.dtype) and len(values.shape) > 1
    return values if is_lazy else np.asanyarray(values)


@dataclass(frozen=True)
class Samples:
    """Rows of inputs, targets and conditions, standardised as they are read.

    Parameters
    ----------
    inputs : array (n, *input_shape)
    targets : array (n, n_outputs) or (n,) of class numbers
    conditions : array (n,) of int, optional
    weights : array (n,), optional
        What samples count, on average 1.
    input_scaling, target_scaling : (mean, scale), optional
        As `measure_scaling` returns them.
    rows : array of int, optional
        The rows that count; all by default.
    sources : array (n,), optional
        What samples were taken from, such as numbers of images.
    """

    inputs: np.ndarray
    targets: np.ndarray
    conditions: np.ndarray | None = None
    weights: np.ndarray | None = None
    input_scaling: tuple | None = None
    target_scaling: tuple | None = None
    rows: np.ndarray = field(default=None)
    sources: np.ndarray | None = None

    def __post_init__(self):
        n = check_same_length(inputs=self.inputs, targets=self.targets, conditions=self.conditions)
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(n))

    def __len__(self):
        return len(self.rows)

    def split(self, fraction, generator):
        """Return two disjoint `Samples`, the second with ``fraction`` of the rows at random.

        What has the same source stays together, so that none is in both; the fraction is then as
        near as that allows.
        """
        n_second = round(fraction * len(self))
        if self.sources is None:
            order = generator.permutation(self.rows)
            first, second = np.sort(order[n_second:]), np.sort(order[:n_second])
        else:
            _, source, counts = np.unique(
                self.sources[self.rows], return_inverse=True, return_counts=True
            )
            order = generator.permutation(len(counts))
            n_sources = np.argmin(np.abs(np.cumsum(counts[order]) - n_second)) + 1
            is_second = np.isin(source, order[:n_sources])
            first, second = self.rows[~is_second], self.rows[is_second]
        parts = {name: value for name, value in vars(self).items() if name != "rows"}
        return Samples(**parts, rows=first), Samples(**parts, rows=second)

    def cut(self, batch_size, generator=None, n_parts=1) -> list[list[np.ndarray]]:
        """Return the rows of each batch, in ``n_parts``; shuffled if given a generator.

        Every row comes exactly once. Batches differ by at most one row in length and hold at
        least two, because batch normalisation has nothing to go by in a batch of one.
        """
        rows = self.rows if generator is None else generator.permutation(self.rows)
        # Files are read front to back. What is together in a batch stays as mixed as it is.
        return [
            [np.sort(part) for part in np.array_split(batch, n_parts)]
            for batch in np.array_split(rows, count_batches(len(rows), batch_size))
        ]

    def feed(self, row_sets: Iterable[np.ndarray], device, n_workers=1) -> Iterator[tuple]:
        """Yield (inputs, targets, conditions, weights) of each set of rows, on the device.

        Parameters
        ----------
        row_sets : iterable of arrays of int
        device : torch.device or str
        n_workers : int
            Threads that read what comes next while the network is at work; 0 for none.
        """
        device = torch.device(device)
        scalings = [
            scaling
            and [torch.as_tensor(part, dtype=torch.float32, device=device) for part in scaling]
            for scaling in (self.input_scaling, self.target_scaling, None, None)
        ]
        read = partial(self._read, pinned=device.type == "cuda")
        for tensors in read_ahead(read, row_sets, n_workers):
            yield tuple(
                None if tensor is None else _standardised(tensor.to(device, non_blocking=True), s)
                for tensor, s in zip(tensors, scalings, strict=True)
            )

    def batches(self, batch_size, device, generator=None, n_workers=1) -> Iterator[tuple]:
        """Yield (inputs, targets, conditions, weights) batch by batch, see `cut` and `feed`."""
        batches = self.cut(batch_size, generator)
        return self.feed(chain.from_iterable(batches), device, n_workers)

    def _read(self, rows, *, pinned):
        arrays = (self.inputs, self.targets, self.conditions, self.weights)
        tensors = (None if array is None else _tensor(array, rows) for array in arrays)
        return [t.pin_memory() if pinned and t is not None else t for t in tensors]


def count_batches(n_samples, batch_size):
    """Return the number of batches of about ``batch_size``, none smaller than two."""
    return max(1, min(math.ceil(n_samples / batch_size), n_samples // 2))


def read_ahead(read: Callable, items: Iterable, n_workers: int) -> Iterator:
    """Yield ``read(item)`` for each item in turn, read by threads while earlier ones are in use.

    Never more than ``n_workers + 1`` are read and not yet asked for. Threads end with the
    iterator, however that ends; what is raised while reading is raised here, in its turn.
    """
    if not n_workers:
        yield from map(read, items)
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(n_workers, thread_name_prefix="neuroigc-feeding") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > n_workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for reading in waiting:
                reading.cancel()


def _tensor(array, rows):
    """Return rows in float16 or float32, or as int64 where they are integers."""
    values = np.asarray(array[rows])
    if values.dtype.kind in "iu":
        values = values.astype(np.int64, copy=False)
    elif values.dtype not in (np.float16, np.float32):
        values = values.astype(np.float32)
    return torch.from_numpy(values)


def _standardised(values, scaling):
    """Return values in float32 (or integers as they are)."""
    if scaling is None:
        return values.float() if values.is_floating_point() else values
    mean, scale = scaling
    wide = values.float()
    # What was widened is nobody else's, so that its memory can be used again.
    return torch.sub(wide, mean, out=None if wide is values else wide).div_(scale)
