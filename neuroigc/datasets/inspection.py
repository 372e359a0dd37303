"""Is a file what it should be? Its header and size say much; reading it says the rest."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuroigc._array_files import open_npy
from neuroigc._files import reading
from neuroigc._mgh import (
    check_mgh_length,
    open_mgh,
    parse_mgh_header,
    read_mgh,
    read_mgh_header,
)
from neuroigc.datasets._hdf5 import check_storage, read_part
from neuroigc.datasets._mappings import read_mapping
from neuroigc.datasets._mat5 import read_mat
from neuroigc.datasets._png import read_png

__all__ = ["inspect_file"]

BLOCK_BYTES = 2**26
DATASETS = {"stimuli": "imgBrick", "betas": "betas"}
# What is read of a design, and columns of the table of images.
DESIGN = ("masterordering", "subjectim", "sharedix", "stimpattern")


def inspect_file(
    path: Path, *, role: str, shape: tuple[int | str, ...], dtype: str, deep: bool
) -> str:
    """Compare a file with what is required of it.

    Parameters
    ----------
    path : Path
        File, or a folder of images. Of unknown kinds nothing is said.
    role, shape, dtype
        As in :class:`neuroigc.datasets.manifest.FileEntry`.
    deep : bool
        Read every number of it.

    Returns
    -------
    str
        What was found, such as "header fits" or "read whole: 12 of 163842 columns not finite".

    Raises
    ------
    InputError
        If the file is damaged or something else.
    """
    kinds = {
        ".mgh": _mgh,
        ".mgz": _mgz,
        ".npy": _npy,
        ".hdf5": _hdf5,
        ".mat": _mat,
        ".csv": _csv,
        ".ctab": _text,
    }
    inspect = _images if path.is_dir() else kinds.get(path.suffix)
    if inspect is None:
        return ""
    with reading(path, "a whole file of the kind that its name says"):
        return inspect(path, role, shape, dtype, deep)


def _mgh(path, role, shape, dtype, deep):  # noqa: ARG001 - all are called alike
    header = read_mgh_header(path)
    check_mgh_length(path, header)
    _compare(header, shape, dtype)
    return _scan(open_mgh(path)) if deep else "header and size fit"


def _mgz(path, role, shape, dtype, deep):  # noqa: ARG001
    if deep:
        values = read_mgh(path)
        _compare(values, shape, dtype)
        return _scan(values.reshape(1, -1))
    with gzip.open(path) as file:
        _compare(parse_mgh_header(file.read(284), path), shape, dtype)
    return "header fits"


def _npy(path, role, shape, dtype, deep):  # noqa: ARG001
    if path.name.startswith("mapping_"):
        n_names = len(read_mapping(path.parent, path.stem.removeprefix("mapping_")))
        return f"{n_names} names"
    values = open_npy(path)
    _compare(values, shape, dtype)
    return _scan(np.atleast_2d(values)) if deep else "header and size fit"


def _hdf5(path, role, shape, dtype, deep):
    import h5py

    with h5py.File(path, "r") as file:
        name = DATASETS.get(role, role)
        values = file.get(name)
        if not isinstance(values, h5py.Dataset):
            raise ValueError(f"no dataset {name}, but {sorted(file)[:5]}")
        _compare(values, shape, dtype)
        check_storage(values)
        return _scan(values, read_part) if deep else "header and blocks fit"


def _mat(path, role, shape, dtype, deep):  # noqa: ARG001
    missing = sorted(set(DESIGN[:3]) - read_mat(path, DESIGN).keys())
    if missing:
        raise ValueError(f"none of {', '.join(missing)}")
    return "read whole"


def _csv(path, role, shape, dtype, deep):  # noqa: ARG001
    with path.open(encoding="utf-8") as file:
        columns = file.readline().rstrip("\n").split(",")
        if "nsdId" not in columns:
            raise ValueError(f"no column nsdId among {len(columns)}")
        if not deep:
            return f"{len(columns)} columns"
        n_rows = sum(line.count(",") >= len(columns) - 1 for line in file)
    if shape and isinstance(shape[0], int) and n_rows != shape[0]:
        raise ValueError(f"{n_rows} whole rows of {shape[0]}")
    return f"{n_rows} rows"


def _text(path, role, shape, dtype, deep):  # noqa: ARG001
    n_lines = len(path.read_text("utf-8").splitlines())
    if not n_lines:
        raise ValueError("nothing")
    return f"{n_lines} lines"


def _images(path, role, shape, dtype, deep):  # noqa: ARG001
    files = sorted(path.glob("*.png"))
    if shape and isinstance(shape[0], int) and len(files) != shape[0]:
        raise ValueError(f"{len(files)} images of {shape[0]}")
    if not files:
        raise ValueError("no images")
    for file in files if deep else ():
        read_png(file)
    return f"{len(files)} images" + ", each read whole" * deep


def _compare(found: Any, shape: tuple[int | str, ...], dtype: str) -> None:
    """Raise unless shape and type are as required, where names stand for any size."""
    axes = list(found.shape)
    wanted = [n if isinstance(n, str) else int(n) for n in shape]
    # MGH files have four axes; the last is left unsaid where it is 1.
    fits = len(axes) >= len(wanted) and all(n == 1 for n in axes[len(wanted) :])
    fits &= all(isinstance(n, str) or n == m for n, m in zip(wanted, axes, strict=False))
    kind = np.dtype(found.dtype).newbyteorder("=")
    if (wanted and not fits) or (dtype and kind != np.dtype(dtype)):
        raise ValueError(f"{kind} of shape {tuple(axes)}, not {dtype} {tuple(shape)}".rstrip())


def _slice(values: Any, rows: slice) -> np.ndarray:
    return np.asarray(values[rows])


def _scan(values: Any, read: Callable[[Any, slice], np.ndarray] = _slice) -> str:
    """Read everything, block by block, and say how many columns hold what is no number."""
    invalid, n_columns = 0, int(np.prod(values.shape[1:]))
    lowest, highest = np.inf, -np.inf
    bad: Any = False
    for block in _blocks(values, read):
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            bad = bad | ~finite.all(axis=0)
            invalid += int(finite.size - finite.sum())
            lowest = min(lowest, block.min(where=finite, initial=np.inf))
            highest = max(highest, block.max(where=finite, initial=-np.inf))
        else:
            lowest, highest = min(lowest, block.min()), max(highest, block.max())
    if not lowest <= highest:
        raise ValueError("not one finite number")
    text = f"read whole: {lowest:.6g} to {highest:.6g}"
    if invalid:
        text += f", {int(np.sum(bad))} of {n_columns} columns not finite ({invalid} numbers)"
    return text


def _blocks(values: Any, read: Callable[[Any, slice], np.ndarray]) -> Iterable[np.ndarray]:
    row_bytes = max(1, int(np.prod(values.shape[1:])) * values.dtype.itemsize)
    n_rows = max(1, BLOCK_BYTES // row_bytes)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(values), n_rows):
            yield read(values, slice(start, start + n_rows))

    return blocks()
