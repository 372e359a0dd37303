"""Sums on disk, so that work that was cut short goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        # Opened here, because numpy leaves a damaged file open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("a single array")
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            argument, expected="sums saved by neuroigc", got=f"{path} ({error})", fix=fix
        ) from error
    if str(arrays.pop("identity", "")) != identity:
        raise InputError(
            argument,
            expected=expected,
            got=f"{path} with {other}",
            fix=fix,
        )
    return arrays
