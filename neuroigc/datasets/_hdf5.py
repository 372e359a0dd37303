"""HDF5 datasets, held against their own storage: a lost block would be read as zeros.

The library behind h5py can crash on damaged files, and the interpreter with it. Whole datasets are
therefore read by a process of their own, of which ``python -m neuroigc.datasets._hdf5`` is the
other side.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroigc._array_files import read_npz
from neuroigc._files import reading

__all__ = ["check_storage", "read_datasets", "read_hdf5", "read_part"]

REFUSED = 3
# To read this much a second, and to start, is little to ask.
LEAST_BYTES_PER_SECOND, START_SECONDS = 2**20, 60


def read_hdf5(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read datasets of plain numbers, of axes as h5py has them (MATLAB's come reversed).

    Raises
    ------
    InputError
        If the file is missing or damaged, lacks a dataset, or that lies in other files.
    """
    expected = f"an HDF5 file with the dataset{'s' * (len(names) > 1)} {', '.join(names)}"
    with reading(path, expected), tempfile.TemporaryDirectory() as folder:
        seconds = START_SECONDS + path.stat().st_size / LEAST_BYTES_PER_SECOND
        out = Path(folder) / "datasets.npz"
        command = [sys.executable, "-m", __name__, str(path.resolve()), str(out), *names]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=seconds, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"one that was not read within {seconds:.0f} seconds") from None
        if done.returncode == REFUSED:
            raise ValueError(done.stderr.decode("utf-8", "replace").strip().splitlines()[-1])
        if done.returncode:
            raise ValueError(f"one at which its reader crashed (status {done.returncode})")
        arrays = read_npz(out)
    return {name: arrays[str(number)] for number, name in enumerate(names)}


def read_datasets(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read datasets in this very process.

    Raises
    ------
    InputError
        As `read_hdf5`.
    """
    import h5py

    arrays = {}
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        for name in names:
            link, dataset = file.get(name, getlink=True), file.get(name)
            if not isinstance(link, h5py.HardLink) or not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"no dataset of its own, but {sorted(file)[:5]}")
            if dataset.file != file:
                raise ValueError("one that lies in another file")
            check_storage(dataset)
            arrays[name] = read_part(dataset)
    return arrays


def read_part(dataset: Any, *part: int | slice) -> np.ndarray:
    """Read a part of a dataset, or all of it, and no block that is not found as zeros.

    A block can be listed and all the same not be found where it is looked up, which takes it for
    one that was never written. What is all fill value is therefore asked for by itself.

    Parameters
    ----------
    dataset : h5py.Dataset
    *part : int or slice
        Along the first axes; none below zero, slices without steps.

    Raises
    ------
    ValueError
        If a block is not found.
    """
    values = np.asarray(dataset[part[0] if len(part) == 1 else part])
    sizes, fill = dataset.chunks, dataset.fillvalue
    if sizes is None or not values.size:
        return values
    whole = (*part, *(slice(None),) * (dataset.ndim - len(part)))
    spans = [
        slice(p, p + 1) if isinstance(p, int | np.integer) else slice(*p.indices(n)[:2])
        for p, n in zip(whole, dataset.shape, strict=True)
    ]
    # With the axes again that single numbers took away.
    full = values.reshape([span.stop - span.start for span in spans])
    blocks = [
        range(span.start // size * size, span.stop, size)
        for span, size in zip(spans, sizes, strict=True)
    ]
    for corner in itertools.product(*blocks):
        inside = tuple(
            slice(max(at, span.start) - span.start, at + size - span.start)
            for at, size, span in zip(corner, sizes, spans, strict=True)
        )
        block = full[inside]
        if _same(block.flat[0], fill) and np.all(_same(block, fill)):
            try:
                dataset.id.read_direct_chunk(corner)
            except (OSError, RuntimeError, ValueError) as error:
                raise ValueError(f"a block of {dataset.name} that is not found") from error
    return values


def _same(values: Any, fill: Any) -> Any:
    """Tell where values are the fill value, which may be NaN."""
    return values == fill if fill == fill else values != values


def check_storage(dataset: Any) -> None:
    """Raise ValueError unless every number of an HDF5 dataset lies in its file, once.

    HDF5 keeps addresses of blocks without checksums, and takes a block that it does not find for
    one that was never written, whose numbers are all the fill value.

    Parameters
    ----------
    dataset : h5py.Dataset
    """
    import h5py

    if not dataset.size:
        raise ValueError(f"a dataset of shape {dataset.shape}")
    own = dataset.id.get_type()
    # One wrong byte makes a type of its own, which would be converted.
    if dataset.dtype.kind not in "biuf" or not own.equal(h5py.h5t.py_create(dataset.dtype)):
        raise ValueError(f"numbers of a type such as {dataset.dtype}")
    end, storage = dataset.file.id.get_filesize(), dataset.id
    n_bytes = dataset.size * dataset.dtype.itemsize
    if dataset.chunks is None:
        offset = storage.get_offset()
        if dataset.external or dataset.is_virtual:
            raise ValueError("a dataset whose numbers lie in other files")
        # Small ones may lie within the description, which has no address of its own.
        if storage.get_storage_size() != n_bytes or (offset or 0) + n_bytes > end:
            raise ValueError(f"fewer than the {n_bytes} bytes of {dataset.name}")
        return
    blocks: list[tuple[int, int]] = []
    places = set()

    def note(block: Any) -> None:
        if block.filter_mask:
            raise ValueError(f"a block of {dataset.name} that was not packed as the others")
        blocks.append((block.byte_offset, block.size))
        places.add(block.chunk_offset)

    storage.chunk_iter(note)
    steps = [range(0, n, c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    n_wanted = math.prod(map(len, steps))
    inside = all(at in step for place in places for at, step in zip(place, steps, strict=True))
    if len(places) != n_wanted or len(blocks) != n_wanted or not inside:
        raise ValueError(f"{len(places)} blocks of {dataset.name} where there should be {n_wanted}")
    whole = math.prod(dataset.chunks) * dataset.dtype.itemsize
    is_plain = storage.get_create_plist().get_nfilters() == 0
    last = 0
    for offset, size in sorted(blocks):
        if offset < last or offset + size > end or (is_plain and size != whole):
            raise ValueError(f"blocks of {dataset.name} that overlap or lie outside of the file")
        last = offset + size


def _main(path: str, out: str, *names: str) -> int:
    from neuroigc._validation import InputError

    try:
        arrays = read_datasets(Path(path), names)
    except InputError as error:
        print(error.got.replace("\n", " "), file=sys.stderr)  # noqa: T201 - to the other side
        return REFUSED
    np.savez(out, **{str(number): arrays[name] for number, name in enumerate(names)})
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
