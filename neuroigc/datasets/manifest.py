"""What a data set consists of, and whether that is what lies on the disk.

A manifest is a TOML file in ``data_manifests/``: licence, how to obtain, and the files with their
shapes, units, sizes and hashes. It holds no data and no absolute paths.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import itertools
import math
import os
import re
import tomllib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from neuroigc._files import reading
from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice
from neuroigc.datasets._paths import StrPath, is_inside

__all__ = ["FileEntry", "FileStatus", "Manifest", "list_manifests", "load_manifest", "verify"]

ENVIRONMENT = "NEUROIGC_MANIFESTS"
ACCESS = ("open", "registration", "agreement", "derived", "synthetic")
# Larger files are hashed only on request.
SHALLOW_BYTES = 2**26
HASH_DIGITS = {"sha256": 64, "md5": 32, "content_sha256": 64}
# Of one table of a manifest.
MOST_FILES = 100_000

State = Literal["ok", "missing", "wrong_size", "corrupt", "unverified"]


@dataclass(frozen=True)
class FileEntry:
    """One file of a data set.

    Parameters
    ----------
    path : str
        Relative to the root of the data, with forward slashes.
    role : str
        As "betas", "atlas", "stimuli", "design".
    part : str
        Such as one subject: parts may be left out as a whole. Empty if the file is always needed.
    sha256, md5 : str
        Of the file. Empty if not known.
    content_sha256 : str
        Of what a gzipped file holds, for copies that were packed anew.
    bytes, min_bytes : int
        Exact size; smallest size possible. 0 if not known.
    space, dtype, units : str
        Empty where they do not apply.
    shape : tuple of int or str
        Names stand for sizes that vary.
    """

    path: str
    role: str
    part: str = ""
    sha256: str = ""
    md5: str = ""
    content_sha256: str = ""
    bytes: int = 0
    min_bytes: int = 0
    space: str = ""
    shape: tuple[int | str, ...] = ()
    dtype: str = ""
    units: str = ""


@dataclass(frozen=True)
class Manifest:
    """A data set: what it is, whose it is, how to obtain it, and its files."""

    name: str
    title: str
    version: str
    licence: str
    access: str
    how_to_obtain: str
    licence_url: str = ""
    citation: tuple[str, ...] = ()
    redistributable: bool = False
    files: tuple[FileEntry, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class FileStatus:
    """What was found where a file should be.

    ``state`` is "ok" (the hash agrees), "missing", "wrong_size", "corrupt" (the hash differs, or
    the content is not what it should be) or "unverified" (it is there, and nothing proves that it
    is right). ``n_bytes`` is the size of what is there.
    """

    path: str
    state: State
    detail: str = ""
    n_bytes: int = 0


def list_manifests(*, folder: StrPath | None = None) -> list[str]:
    """Return the names of all manifests.

    Parameters
    ----------
    folder : path, optional
        Where to look. By default the folder named by the environment variable
        ``NEUROIGC_MANIFESTS``, else the installed manifests, else those of the checkout.
    """
    names = [item.name for item in _manifest_folder(folder).iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_manifest(name: str, *, folder: StrPath | None = None) -> Manifest:
    """Load the manifest called ``name``.

    Parameters
    ----------
    name : str
        As "nsd".
    folder : path, optional
        As in :func:`list_manifests`.

    Raises
    ------
    InputError
        If there is none of that name, or it is not a valid manifest.
    """
    check_choice("name", name, list_manifests(folder=folder))
    path = _manifest_folder(folder) / f"{name}.toml"
    with reading(str(path), "a TOML file", fix=""):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    entries = content.pop("files", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: files", expected="tables", got=f"{type(entries).__name__}")
    _check_keys(path, content, Manifest)
    if content["name"] != name:
        raise InputError(str(path), expected=f"name = {name!r}", got=repr(content["name"]))
    check_choice(f"{path}: access", content["access"], ACCESS)
    content["citation"] = tuple(content.get("citation", ()))
    files = [entry for raw in entries for entry in _expand(path, raw)]
    repeated = len(files) - len({entry.path for entry in files})
    if repeated:
        raise InputError(str(path), expected="each file once", got=f"{repeated} twice")
    return Manifest(**content, files=tuple(files))


def verify(
    name: str,
    root: StrPath,
    *,
    files: Sequence[FileEntry] | None = None,
    deep: bool = False,
    folder: StrPath | None = None,
    progress: bool = False,
) -> list[FileStatus]:
    """Compare what lies under ``root`` with the manifest called ``name``.

    Sizes, hashes of files up to 64 MiB, and headers of the kinds of files known here are looked
    at; with ``deep``, every byte.

    Parameters
    ----------
    name : str
        As "nsd".
    root : path
        Root folder of the data.
    files : sequence of FileEntry, optional
        Those to look for, as :func:`neuroigc.datasets.requirements.require_nsd` returns them, in
        place of the manifest's.
    deep : bool
        Hash files of more than 64 MiB too, and read those whose hash is not known: how many
        columns are not finite is told.
    folder : path, optional
        As in :func:`list_manifests`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of FileStatus
        One for each file, in their order. Of parts of a manifest of which there is nothing under
        ``root``, as subjects one did not obtain, no file is listed, unless no part is there.
    """
    manifest = load_manifest(name, folder=folder) if files is None else None
    root = Path(root)
    if not root.is_dir():
        raise InputError("root", expected="a folder", got=f"{root}")
    # A link inside the root may point elsewhere; that is the user's own arrangement.
    if manifest is not None:
        parts = {entry.part for entry in manifest.files if (root / entry.path).exists()} - {""}
        files = [
            entry for entry in manifest.files if not (parts and entry.part) or entry.part in parts
        ]
    return [
        _verify_file(entry, root, deep=deep)
        for entry in track(files or (), show=progress, label=name, total=len(files or ()))
    ]


def _manifest_folder(folder: StrPath | None) -> Traversable:
    named = folder if folder is not None else os.environ.get(ENVIRONMENT)
    if named is not None:
        if not Path(named).is_dir():
            argument = ENVIRONMENT if folder is None else "folder"
            raise InputError(argument, expected="a folder with manifests", got=f"{named}")
        return Path(named)
    try:
        return importlib.resources.files("neuroigc._manifests")
    except ModuleNotFoundError:
        # A checkout that was not installed.
        return Path(__file__).resolve().parents[2] / "data_manifests"


def _check_keys(
    path: Traversable, table: dict[str, Any], kind: type[Manifest] | type[FileEntry]
) -> None:
    known = {item.name for item in fields(kind)}
    required = {"name", "title", "version", "licence", "access", "how_to_obtain"}
    if kind is FileEntry:
        required = {"path", "role"}
    # "unknown" is a legal licence, an absent one is not.
    lacking = sorted(key for key in required if not table.get(key))
    unknown = sorted(table.keys() - known)
    if lacking or unknown:
        raise InputError(
            str(path),
            expected=f"{sorted(required)} and at most {sorted(known - required)}",
            got=f"nothing for {lacking}, unknown {unknown}",
        )
    types = {item.name: str(item.type) for item in fields(kind)}
    for key, value in table.items():
        if not _is_of(types[key], value):
            raise InputError(f"{path}: {key}", expected=f"{types[key]}", got=repr(value)[:60])
        if key in HASH_DIGITS and not re.fullmatch(rf"[0-9a-f]{{{HASH_DIGITS[key]}}}|", value):
            raise InputError(
                f"{path}: {key}", expected=f"{HASH_DIGITS[key]} digits 0-9, a-f", got=repr(value)
            )


def _is_of(kind: str, value: object) -> bool:
    """Tell whether a value out of a TOML file is of the type that a field declares."""
    if kind.startswith("tuple"):
        items = (int, str) if "int" in kind else (str,)
        return isinstance(value, list) and all(type(item) in items for item in value)
    if kind == "int":
        return type(value) is int and 0 <= value < 2**63
    return type(value) is {"str": str, "bool": bool}[kind]


def _expand(path: Traversable, raw: dict[str, Any]) -> list[FileEntry]:
    """Return the files of one table: with ``each``, one for every combination of its values."""
    table = dict(raw)
    given = table.pop("each", {})
    if not isinstance(given, dict):
        raise InputError(f"{path}: each", expected="a table", got=repr(given))
    each = {key: _values(path, value) for key, value in given.items()}
    if math.prod(map(len, each.values())) > MOST_FILES:
        raise InputError(f"{path}: each", expected=f"{MOST_FILES} files at most", got="more")
    _check_keys(path, table, FileEntry)
    table["shape"] = tuple(table.get("shape", ()))
    entries = []
    for combination in itertools.product(*each.values()):
        values = {"path": str(table["path"]), "part": str(table.get("part", ""))}
        for key, value in zip(each, combination, strict=True):
            values = {name: text.replace(f"{{{key}}}", value) for name, text in values.items()}
        if not is_inside(values["path"]):
            raise InputError(
                str(path),
                expected="paths that stay inside the root",
                got=f"path = {values['path']!r}",
            )
        entries.append(FileEntry(**(table | values)))
    return entries


def _values(path: Traversable, value: object) -> list[str]:
    """Return the values of a list, or of a range such as "01..40", with its leading zeros."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    match = re.fullmatch(r"(\d+)\.\.(\d+)", value) if isinstance(value, str) else None
    if match is None:
        raise InputError(
            f"{path}: each", expected='strings or a range as "01..40"', got=repr(value)
        )
    first, last = match.groups()
    if len(last) > 9 or int(last) - int(first) >= MOST_FILES:
        raise InputError(f"{path}: each", expected=f"{MOST_FILES} files at most", got=repr(value))
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def _verify_file(entry: FileEntry, root: Path, *, deep: bool) -> FileStatus:
    path = root / entry.path
    if not (path.is_dir() if entry.path.endswith("/") else path.is_file()):
        return FileStatus(entry.path, "missing")
    size = path.stat().st_size if path.is_file() else 0

    def status(state: State, detail: str) -> FileStatus:
        return FileStatus(entry.path, state, detail, size)

    if entry.bytes and size != entry.bytes:
        return status("wrong_size", f"expected {entry.bytes} bytes; got {size}")
    if size < entry.min_bytes:
        return status("wrong_size", f"expected at least {entry.min_bytes} bytes; got {size}")
    known = {"sha256": entry.sha256, "md5": entry.md5, "content sha256": entry.content_sha256}
    known = {kind: expected for kind, expected in known.items() if expected}
    if known and (size <= SHALLOW_BYTES or deep):
        for kind, expected in known.items():
            if _hash(path, kind) == expected:
                return status("ok", kind)
        return status("corrupt", f"another {' and '.join(known)} than expected")
    from neuroigc.datasets.inspection import inspect_file

    try:
        found = inspect_file(path, role=entry.role, shape=entry.shape, dtype=entry.dtype, deep=deep)
    except InputError as error:
        return status("corrupt", error.got)
    why = "large: hashed only by a deep check" if known else "no hash is known"
    return status("unverified", f"{found}; {why}" if found else why)


def _hash(path: Path, kind: str) -> str:
    try:
        with gzip.open(path) if kind == "content sha256" else path.open("rb") as file:
            digest = hashlib.new(kind.removeprefix("content "), usedforsecurity=False)
            while block := file.read(2**20):
                digest.update(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"not a whole gzip file ({error})"
    return digest.hexdigest()
