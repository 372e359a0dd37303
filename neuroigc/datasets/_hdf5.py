"""HDF5 datasets, held against their own storage: a lost block would be read as zeros."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["check_storage"]


def check_storage(dataset: Any) -> None:
    """Raise ValueError unless every number of an HDF5 dataset lies in its file, once.

    HDF5 keeps addresses of blocks without checksums, and takes a block that it does not find for
    one that was never written, whose numbers are all the fill value.

    Parameters
    ----------
    dataset : h5py.Dataset
    """
    if not dataset.size:
        raise ValueError(f"a dataset of shape {dataset.shape}")
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
        blocks.append((block.byte_offset, block.size))
        places.add(block.chunk_offset)

    storage.chunk_iter(note)
    wanted = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    if len(places) != wanted or len(blocks) != wanted:
        raise ValueError(f"{len(places)} blocks of {dataset.name} where there should be {wanted}")
    whole = math.prod(dataset.chunks) * dataset.dtype.itemsize
    is_plain = storage.get_create_plist().get_nfilters() == 0
    last = 0
    for offset, size in sorted(blocks):
        if offset < last or offset + size > end or (is_plain and size != whole):
            raise ValueError(f"blocks of {dataset.name} that overlap or lie outside of the file")
        last = offset + size
