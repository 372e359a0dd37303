"""Keys of samples: what random choices depend on, so that they do not depend on the order.

A key is a digest of all that a sample consists of: input, target and condition. The same data
in another order, another file format or another process have the same keys, hence the same
partners and points.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["combine_keys", "digest_rows"]

Keys = NDArray[np.uint64]
# Bytes from which on threads are worth their while, and how many.
_LARGE, N_THREADS = 2**22, 2


def digest_rows(rows: NDArray[Any]) -> Keys:
    """Return a key for each row of an array (n, ...), from its bytes."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)

    def digest(row: NDArray[Any]) -> bytes:
        return hashlib.sha256(row.data).digest()[:8]

    if flat.nbytes < _LARGE:
        digests = b"".join(map(digest, flat))
    else:
        # Digests of long rows are taken without the interpreter's lock.
        with ThreadPoolExecutor(N_THREADS) as pool:
            digests = b"".join(pool.map(digest, flat))
    return np.frombuffer(digests, np.uint64).copy()


def combine_keys(*parts: Keys, strata: NDArray[np.int64] | None = None) -> Keys:
    """Return one key for each sample from those of its parts; of equal samples, different ones.

    Samples that are equal in everything, the stratum included, may stand in for one another, so
    it does not matter which of them gets which key.
    """
    keys = digest_rows(np.stack(parts, 1))
    order = np.lexsort((keys,) if strata is None else (strata, keys))
    ordered = keys[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    if len(first) < len(keys):
        starts = np.repeat(first, np.diff(np.r_[first, len(keys)]))
        occurrence = np.empty(len(keys), np.uint64)
        occurrence[order] = np.arange(len(keys)) - starts
        keys = digest_rows(np.stack([keys, occurrence], 1))
    return keys
