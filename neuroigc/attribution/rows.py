"""Sums that are too large for memory: rows in files, read and added to block by block.

Files are read and written explicitly rather than mapped, so that none of their pages count as
this process's memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._files import atomic_path
from neuroigc._validation import InputError
from neuroigc.attribution.accumulators import Sums

__all__ = ["FileSums", "RowFile"]

_DTYPES = {torch.float32: "<f4", torch.float64: "<f8"}


class RowFile:
    """Rows of numbers in a file, zero at first.

    Parameters
    ----------
    path : Path
        Written anew.
    shape : tuple of int
        Rows first.
    dtype : torch.dtype
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), dtype
        self._row = int(np.prod(self.shape[1:]))
        with path.open("wb") as file:
            # Zeros take no room until they are written over.
            file.truncate(self.shape[0] * self._row * dtype.itemsize)

    def read(self, rows: slice) -> Tensor:
        """Return some rows."""
        start, stop, _ = rows.indices(self.shape[0])
        with self.path.open("rb", buffering=0) as file:
            return torch.from_numpy(self._read(file, start, stop))

    def add(self, rows: slice, values: Tensor) -> None:
        """Add to some rows."""
        start, stop, _ = rows.indices(self.shape[0])
        with self.path.open("r+b", buffering=0) as file:
            summed = self._read(file, start, stop)
            summed += values.detach().cpu().numpy()
            self._seek(file, start)
            left = summed.reshape(-1).view(np.uint8)
            while len(left):
                left = left[file.write(left.data) :]

    def _seek(self, file: Any, row: int) -> None:
        file.seek(row * self._row * self.dtype.itemsize)

    def _read(self, file: Any, start: int, stop: int) -> NDArray[Any]:
        array: NDArray[Any] = np.empty((stop - start, *self.shape[1:]), _DTYPES[self.dtype])
        self._seek(file, start)
        left = array.reshape(-1).view(np.uint8)
        while len(left):
            n = file.readinto(left.data)
            if not n:
                raise OSError(f"{self.path} ends too early")
            left = left[n:]
        return array


class FileSums(Sums):
    """Sums of which those by output and component live in files.

    A file is added to as blocks of samples come in. What a checkpoint belongs to is a copy of it,
    made before the checkpoint, so that work that is cut short goes back to whole sums.

    Parameters
    ----------
    folder : Path
        For the files; exists.
    """

    in_files = ("map", "spread", "spread_influence")

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.files = folder, dict[str, RowFile]()
        self.number = 0

    def add(
        self,
        name: str,
        value: Tensor,
        rows: slice | Tensor | None = None,
        n_rows: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Add to one sum, or to some of its ``n_rows`` rows."""
        if name not in self.in_files or isinstance(rows, Tensor):
            super().add(name, value, rows, n_rows, dtype)
            return
        length = len(value) if n_rows is None else n_rows
        if name not in self.files:
            self._create(name, (length, *value.shape[1:]), dtype)
        self.files[name].add(slice(None) if rows is None else rows, value)

    def __contains__(self, name: str) -> bool:
        return name in self.files or super().__contains__(name)

    def rows(self, name: str, rows: slice) -> Tensor:
        """Return some rows of a sum."""
        return self.files[name].read(rows) if name in self.files else super().rows(name, rows)

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy the files under another name, and return what tells them."""
        self.number += 1
        shapes: dict[str, NDArray[Any]] = {"number": np.array(self.number)}
        for name, file in self.files.items():
            with atomic_path(self._copy(name)) as temporary:
                shutil.copyfile(file.path, temporary)
            shapes[name] = np.array(file.shape)
        return shapes

    def tidy(self) -> None:
        """Remove copies that the last checkpoint does not belong to."""
        for path in self.folder.glob("*.copy*"):
            if path.suffix != f".copy{self.number}":
                path.unlink()

    def restore(self, told: Mapping[str, NDArray[Any]]) -> None:
        """Go back to the copies that a checkpoint belongs to.

        Raises
        ------
        InputError
            If they are not there.
        """
        if not told:
            return
        self.number = int(told["number"])
        for name in told.keys() - {"number"}:
            copy = self._copy(name)
            shape = tuple(int(n) for n in told[name])
            size = int(np.prod(shape)) * torch.float64.itemsize
            if not copy.exists() or copy.stat().st_size != size:
                raise InputError(
                    "results",
                    expected="the folder that the checkpoint's sums are in",
                    got=f"{self.folder.parent} without them",
                    fix="Name that folder, or delete the checkpoint to start anew.",
                )
            self._create(name, shape, torch.float64)
            shutil.copyfile(copy, self.files[name].path)

    def _create(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.files[name] = RowFile(self.folder / f"{name}.sums", shape, dtype)

    def _copy(self, name: str) -> Path:
        return self.folder / f"{name}.copy{self.number}"
