"""A folder of plain arrays and one description, which says when they are whole.

``<name>.npy`` for each array, and last ``subject.json`` or whatever kind of store it is: without
it, or where a file is not what it says, nothing is read. It holds a SHA-256 of each array's numbers
and of itself. Large arrays stay on disk; of them only the size is compared when they are opened,
and all numbers by :func:`check_numbers`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from neuroigc._array_files import hash_of, open_npy
from neuroigc._files import atomic_path
from neuroigc._validation import InputError

__all__ = [
    "array_header",
    "check_numbers",
    "close_store",
    "read_description",
    "read_store",
    "reopen_store",
    "seal",
    "write_array",
    "writing_array",
]

FORMAT_VERSION, SEAL = 2, "sha256_of_description"
BLOCK_BYTES = 2**25
AGAIN = "Prepare it again."


def reopen_store(folder: Path, kind: str) -> None:
    """Say that a store is not whole from here on."""
    (folder / f"{kind}.json").unlink(missing_ok=True)


def _format(kind: str) -> dict[str, Any]:
    return {"format": f"neuroigc {kind}", "format_version": FORMAT_VERSION}


@contextmanager
def writing_array(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[BinaryIO]:
    """Yield a file to which the rows of an array are written, one after the other.

    The ``.npy`` file is there when the block ends well, and whole.
    """
    with atomic_path(path) as temporary:
        # To open for writing would empty the file, and make some systems write it out when closed.
        with temporary.open("r+b") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            yield file
        array_header(temporary)  # as many rows as promised


def write_array(path: Path, array: np.ndarray, dtype: npt.DTypeLike = None) -> None:
    """Write an array as ``.npy``, converted block by block."""
    with writing_array(path, array.shape, dtype or array.dtype) as file:
        rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            block = np.ascontiguousarray(array[start : start + rows], dtype or array.dtype)
            file.write(block.data.cast("B") if block.size else b"")


def array_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of a ``.npy`` file that is whole and holds plain numbers."""
    array = open_npy(path, fix=AGAIN)
    if not array.flags.c_contiguous:
        raise InputError(str(path), expected="rows one after the other", got="columns", fix=AGAIN)
    return array.shape, array.dtype


def _describe_array(path: Path) -> dict[str, Any]:
    shape, dtype = array_header(path)
    return {"shape": list(shape), "dtype": dtype.str}


def close_store(
    folder: Path,
    kind: str,
    names: Iterable[str],
    description: Mapping[str, Any],
    *,
    hashes: Mapping[str, str] | None = None,
) -> None:
    """Describe the arrays in ``folder``, and with that declare it whole.

    Parameters
    ----------
    folder : Path
    kind : str
        What the description is called.
    names : iterable of str
        Of the arrays.
    description : mapping
        What else it says.
    hashes : mapping of str to str, optional
        SHA-256 of the numbers of those arrays of which it is known; others are read for it.
    """
    arrays, hashes = {}, hashes or {}
    for name in names:
        path = folder / f"{name}.npy"
        known = hashes.get(name) or hash_of(open_npy(path, fix=AGAIN))
        arrays[name] = {**_describe_array(path), "sha256": known}
    content = {**_format(kind), **description, "arrays": arrays}
    content[SEAL] = seal(content)
    with atomic_path(folder / f"{kind}.json") as temporary:
        text = json.dumps(content, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def seal(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a description says beside it."""
    rest = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_numbers(folder: Path, kind: str, name: str) -> int:
    """Read an array of a store whole, and compare it with what was written.

    Returns
    -------
    int
        How many bytes it has.

    Raises
    ------
    InputError
        If a number in it is another, or the store is not whole.
    """
    said = read_description(folder, kind)["arrays"][name]
    return _compare_numbers(folder / f"{name}.npy", said["sha256"])


def _compare_numbers(path: Path, sha256: str) -> int:
    array = open_npy(path, fix=AGAIN)
    if hash_of(array) != sha256:
        raise InputError(
            str(path),
            expected="the numbers that were written, as their SHA-256 tells",
            got="others",
            fix=AGAIN,
        )
    return array.nbytes


def read_description(folder: Path, kind: str) -> dict[str, Any]:
    """Read the description of a store.

    Raises
    ------
    InputError
        If there is none, as when writing was cut short, or it is damaged or of another kind.
    """
    path, expected = folder / f"{kind}.json", f"a folder with a {kind}.json, written last"
    if not folder.is_dir():
        got = f"{folder}, a file" if folder.exists() else f"nothing at {folder}"
        raise InputError(str(folder), expected=expected, got=got, fix=AGAIN)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            str(folder),
            expected=expected,
            got=f"one without {path.name}, not finished",
            fix=AGAIN,
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            str(path), expected="a whole JSON file", got=f"{error}", fix=AGAIN
        ) from error
    if not (isinstance(content, dict) and content.items() >= _format(kind).items()):
        raise InputError(
            str(path), expected=f"a JSON object with {_format(kind)}", got="another", fix=AGAIN
        )
    if content.get(SEAL) != seal(content):
        raise InputError(
            str(path),
            expected="what was written, as its SHA-256 tells",
            got="other text",
            fix=AGAIN,
        )
    return content


def read_store(
    folder: Path, kind: str, *, mapped: str, required: set[str], optional: set[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays of a store and its description, and check one against the other.

    Parameters
    ----------
    folder : Path
    kind : str
        Whose description, as "subject".
    mapped : str
        The array that stays on disk, as a read-only memory map.
    required, optional : set of str
        Names of arrays that there must be, and may be.

    Returns
    -------
    arrays : dict of str to array
    description : dict

    Raises
    ------
    InputError
        For each kind of damage one: no folder, no description, arrays missing, truncated,
        pickled, or of another shape or type than described; other numbers than were written, if
        the array is not mapped.
    """
    description = read_description(folder, kind)
    described = description["arrays"]
    if not required <= described.keys() <= required | optional:
        raise InputError(
            str(folder / f"{kind}.json"),
            expected=f"the arrays {sorted(required)}, and at most {sorted(optional)} besides",
            got=f"{sorted(described)}",
            fix=AGAIN,
        )
    arrays = {}
    for name, said in described.items():
        path = folder / f"{name}.npy"
        if not path.is_file():
            raise InputError(
                str(folder), expected=f"{path.name}, as its description says", got="none", fix=AGAIN
            )
        found, wanted = _describe_array(path), {k: said[k] for k in ("shape", "dtype")}
        if found != wanted:
            raise InputError(
                str(path), expected=f"{wanted}, as described", got=f"{found}", fix=AGAIN
            )
        if name != mapped:
            _compare_numbers(path, said["sha256"])
        mode = "r" if name == mapped else None
        arrays[name] = np.load(path, mmap_mode=mode, allow_pickle=False)
    return arrays, description
