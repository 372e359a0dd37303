"""Anyone's data on disk: plain arrays, and a small TOML file that says what they are.

``dataset.toml`` names a file for each array, relative to its own folder and inside it::

    title = "Our study"
    licence = "CC0-1.0"
    units = "z-score"                        # of the responses
    target_names = ["contrast", "slope"]     # one for each column
    responses = "responses.npy"              # mapped, not read
    targets = "tables.npz:targets"           # an array of an archive
    conditions = "all.h5:/subject"           # a dataset of an HDF5 file
    image_ids = { file = "image_ids.npy", shape = [1200], dtype = "int64" }
    is_test = "is_test.npy"
    images = "images.npy"                    # one for each sample, to encode from
    space = "fsaverage5"                     # where the responses lie on a surface

    [vertices]
    left = "left.npy"
    right = "right.npy"

    [groups]
    V1 = "groups.npz:V1"

Only responses and targets are needed. A table in the place of a name holds what is known of an
array, shape, dtype and sha256 of its numbers, to be compared with what is found; n_arrays says how
many arrays the file names, lest one that was cut short is taken for whole.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from neuroigc._array_files import hash_of, open_npy, read_npz
from neuroigc._files import atomic_path, make_output_folder, reading
from neuroigc._validation import InputError
from neuroigc.datasets._hdf5 import read_hdf5
from neuroigc.datasets._paths import StrPath, path_inside
from neuroigc.datasets.arrays import ArrayData

__all__ = ["DATASET_FILE", "read_folder", "save_arrays"]

DATASET_FILE = "dataset.toml"
ROWS = ("responses", "targets", "conditions", "image_ids", "is_test", "images")
TABLES = ("vertices", "groups")
TEXTS = ("title", "licence", "units", "space")
HDF5_ENDINGS = (".h5", ".hdf5", ".he5")
DESCRIPTION = {"file", "shape", "dtype", "sha256"}


def read_folder(path: Path) -> dict[str, Any]:
    """Return the arrays and texts that a ``dataset.toml`` names, as yet unchecked among themselves.

    Raises
    ------
    InputError
        If the file is no such TOML, a path leads out of its folder, a file is missing, damaged or
        without the array named, or an array is not what the TOML says.
    """
    with reading(path, "a TOML file that says what the arrays are", fix=""):
        content = tomllib.loads(path.read_text("utf-8"))
    known = {*ROWS, *TABLES, *TEXTS, "target_names", "n_arrays"}
    unknown, lacking = sorted(content.keys() - known), sorted(set(ROWS[:2]) - content.keys())
    if unknown or lacking:
        raise InputError(
            str(path),
            expected=f"responses, targets and at most {', '.join(sorted(known))}",
            got=f"unknown {unknown}" if unknown else f"no {', '.join(lacking)}",
        )
    for name in TEXTS:
        _expect(path, name, content.get(name, ""), str, "text")
    names = content.get("target_names")
    if names is not None and not (
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    ):
        raise InputError(f"{path}: target_names", expected="a list of names", got=repr(names))
    opened = _Files(path, content)
    data = {name: content[name] for name in (*TEXTS, "target_names") if name in content}
    data |= {name: opened.array(name, content[name]) for name in ROWS if name in content}
    for table in TABLES:
        if table in content:
            entries = _expect(path, table, content[table], dict, "a table of files")
            data[table] = {
                name: opened.array(f"{table}.{name}", entry) for name, entry in entries.items()
            }
    n_arrays = sum(name in data for name in ROWS) + sum(len(data.get(name, ())) for name in TABLES)
    if content.get("n_arrays", n_arrays) != n_arrays:
        raise InputError(
            str(path),
            expected=f"{content['n_arrays']} arrays, as its n_arrays says",
            got=str(n_arrays),
            fix="The file may be cut short; obtain it again.",
        )
    return data


def save_arrays(data: ArrayData, folder: StrPath) -> Path:
    """Write ``data`` as a folder that :func:`load_arrays` reads.

    Parameters
    ----------
    data : ArrayData
        As :func:`load_arrays` returns it. Arrays are written one after another, memory maps block
        by block.
    folder : path
        Made if need be. Must not hold a data set yet.

    Returns
    -------
    Path
        The ``dataset.toml`` in it, which is written last: with it the folder is whole.

    Raises
    ------
    InputError
        If the folder cannot be written to or holds a data set.
    """
    folder = make_output_folder(folder, "folder")
    path = folder / DATASET_FILE
    if path.exists():
        raise InputError("folder", expected="one without a data set", got=f"{path}")
    lines = [
        f"{field.name} = {json.dumps(value, ensure_ascii=False)}"
        for field in dataclasses.fields(data)
        if field.name in (*TEXTS, "target_names") and (value := getattr(data, field.name))
    ]
    rows = {name: values for name in ROWS if (values := getattr(data, name)) is not None}
    lines.append(f"n_arrays = {len(rows) + sum(len(getattr(data, t) or ()) for t in TABLES)}")
    lines += [f"{name} = {_write(folder, name, values)}" for name, values in rows.items()]
    for table in TABLES:
        parts = getattr(data, table)
        if parts:
            lines += ["", f"[{table}]"]
            # Names of groups may hold anything; those of files should not.
            lines += [
                f"{json.dumps(name, ensure_ascii=False)} = {_write(folder, f'{table}_{k}', values)}"
                for k, (name, values) in enumerate(parts.items(), 1)
            ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _write(folder: Path, name: str, values: np.ndarray) -> str:
    with atomic_path(folder / f"{name}.npy") as temporary:
        np.save(temporary, values, allow_pickle=False)
    shape, dtype = list(values.shape), values.dtype.newbyteorder("=")
    return (
        f'{{ file = "{name}.npy", shape = {shape}, dtype = "{dtype}", '
        f'sha256 = "{hash_of(values)}" }}'
    )


def _expect(path: Path, name: str, value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{path}: {name}", expected=expected, got=repr(value))
    return value


class _Files:
    """The files that one ``dataset.toml`` names; archives are read once."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.archives: dict[Path, dict[str, np.ndarray]] = {}
        tables = [content[name] for name in TABLES if isinstance(content.get(name), dict)]
        entries = [content.get(name) for name in ROWS] + [e for t in tables for e in t.values()]
        places = [entry.get("file") if isinstance(entry, dict) else entry for entry in entries]
        self.places = [place.partition(":") for place in places if isinstance(place, str)]

    def array(self, name: str, entry: Any) -> np.ndarray:
        """Return the array that an entry stands for."""
        argument = f"{self.path}: {name}"
        described = entry if isinstance(entry, dict) else {"file": entry}
        unknown = sorted(described.keys() - DESCRIPTION)
        place = described.get("file")
        if unknown or not isinstance(place, str) or not place:
            raise InputError(
                argument,
                expected='a file such as "x.npy", "x.npz:name" or "x.h5:/name", or a table of file'
                ", shape, dtype and sha256",
                got=repr(entry),
            )
        file, _, inner = place.partition(":")
        location = path_inside(self.path.parent, file, argument)
        array = self._reader(argument, file, inner)(location)
        found = {"shape": list(array.shape), "dtype": str(array.dtype.newbyteorder("="))}
        for key, value in found.items():
            if described.get(key, value) != value:
                raise InputError(
                    f"{location}, for {name}",
                    expected=f"{key} {described[key]}, as {self.path.name} says",
                    got=str(value),
                )
        if "sha256" in described and hash_of(array) != described["sha256"]:
            raise InputError(
                f"{location}, for {name}",
                expected=f"the numbers whose sha256 {self.path.name} holds",
                got="others",
                fix="The file was damaged or changed; obtain it again.",
            )
        return array

    def _reader(self, argument: str, file: str, inner: str) -> Callable[[Path], np.ndarray]:
        if file.endswith(".npy") and not inner:
            return open_npy
        if file.endswith(".npz") and inner:
            return lambda path: self._member(argument, path, inner)
        if file.endswith(HDF5_ENDINGS) and inner:
            return lambda path: self._dataset(path, file, inner)
        raise InputError(
            argument,
            expected='"x.npy", "x.npz:name" or "x.h5:/name"',
            got=repr(f"{file}:{inner}" if inner else file),
        )

    def _member(self, argument: str, path: Path, inner: str) -> np.ndarray:
        if path not in self.archives:
            self.archives[path] = read_npz(path)
        if inner not in self.archives[path]:
            raise InputError(
                argument, expected=f"one of {sorted(self.archives[path])}", got=repr(inner)
            )
        return self.archives[path][inner]

    def _dataset(self, path: Path, file: str, inner: str) -> np.ndarray:
        if path not in self.archives:
            same = PurePosixPath(file)  # "./x.h5" is "x.h5"
            names = [name for other, _, name in self.places if PurePosixPath(other) == same]
            self.archives[path] = read_hdf5(path, names)
        return self.archives[path][inner]
