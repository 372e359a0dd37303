"""A result in a folder, block of outputs by block, for maps that are too large for memory.

The folder holds ``attributions.npy``, ``standard_errors.npy`` and, of permutations,
``p_values.npy``; at last ``result.npz``, with all else. Until then, what is being summed lies in
a hidden folder inside.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroigc._array_files import open_npy
from neuroigc._files import atomic_path, make_output_folder
from neuroigc._validation import InputError

__all__ = ["MAPS", "REST", "Maps", "ResultFolder", "mapped"]

MAPS = ("attributions", "standard_errors", "p_values")
REST = "result.npz"
_SUMS = ".sums"


class ResultFolder:
    """The folder of one result.

    Parameters
    ----------
    path : Path
        Made if need be. It has to be empty, but for what an attribution that was cut short left.

    Raises
    ------
    InputError
        If it is not, or cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_output_folder(path, "results")
        here = sorted(p.name for p in path.iterdir())
        # What was cut short leaves its sums beside maps; without sums, these are a result.
        left = {f"{name}.npy" for name in MAPS} if _SUMS in here else set()
        others = [name for name in here if name not in left and not name.startswith(".")]
        if others:
            listed = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
            raise InputError(
                "results",
                expected="an empty folder, or one to be made",
                got=f"{path} with {listed}",
                fix="Name another folder, or empty this one.",
            )

    @property
    def sums(self) -> Path:
        """Return the folder of what is being summed."""
        folder = self.path / _SUMS
        folder.mkdir(exist_ok=True)
        return folder

    def close(self) -> None:
        """Remove what was summed, and what was half written when work was cut short."""
        shutil.rmtree(self.path / _SUMS, ignore_errors=True)
        for name in (*MAPS, REST.removesuffix(".npz")):
            for path in self.path.glob(f".{name}-*.np?"):
                path.unlink()


class Maps:
    """Arrays of a result that are filled block by block of outputs.

    Parameters
    ----------
    folder : Path or None
        Where .npy files of them are written to; None for arrays in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.arrays: dict[str, NDArray[Any]] = {}
        self._files: dict[str, Any] = {}

    @contextmanager
    def filling(self, **kinds: tuple[tuple[int, ...], Any]) -> Iterator[None]:
        """Make arrays of shapes and dtypes, to be filled in order; whole once the block ends."""
        with ExitStack() as stack:
            for name, (shape, dtype) in kinds.items():
                if self.folder is None:
                    self.arrays[name] = np.empty(shape, dtype)
                    continue
                path = stack.enter_context(atomic_path(self.folder / f"{name}.npy"))
                self._files[name] = stack.enter_context(path.open("wb"))
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(self._files[name], header)
            yield
        for name in self._files:
            self.arrays[name] = mapped(self.folder, name)

    def put(self, name: str, rows: slice, values: NDArray[Any]) -> None:
        """Fill in the next rows."""
        if self.folder is None:
            self.arrays[name][rows] = values.reshape(self.arrays[name][rows].shape)
        else:
            self._files[name].write(np.ascontiguousarray(values).data)


def mapped(folder: Path | None, name: str) -> NDArray[Any]:
    """Return an array of a folder as a read-only memory map."""
    return open_npy(Path(folder or "") / f"{name}.npy")
