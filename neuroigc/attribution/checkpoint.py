"""Sums on disk, so that work that was cut short goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroigc._array_files import read_npz
from neuroigc._files import atomic_path
from neuroigc._validation import InputError

__all__ = ["fingerprint", "load_state", "save_state"]


def fingerprint(settings: Mapping[str, Any], *arrays: NDArray[Any]) -> str:
    """Return a digest of what an analysis is made of."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_state(path: Path, identity: str, arrays: Mapping[str, Any]) -> None:
    """Write the state in one piece: the file is either the old or the new one."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, identity=np.array(identity), **arrays)


def load_state(
    path: Path,
    identity: str,
    argument: str = "checkpoint",
    *,
    expected: str = "sums of this very analysis",
    other: str = "those of another model, data or options",
    fix: str = "Name another file, or delete this one to start anew.",
) -> dict[str, NDArray[Any]] | None:
    """Read the state, or return None if there is none yet.

    The other arguments are what errors say.

    Raises
    ------
    InputError
        If the file holds no state, or that of another analysis.
    """
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
    except InputError as error:
        raise InputError(
            argument, expected="sums saved by neuroigc", got=f"{path} ({error.got})", fix=fix
        ) from error
    if str(arrays.pop("identity", "")) != identity:
        raise InputError(
            argument,
            expected=expected,
            got=f"{path} with {other}",
            fix=fix,
        )
    return arrays
