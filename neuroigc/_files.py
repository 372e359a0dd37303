"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroigc._validation import InputError

__all__ = [
    "LOCK",
    "OBTAIN",
    "atomic_path",
    "make_output_folder",
    "read_json",
    "reading",
    "writing_alone",
]

# Name of the file that whoever writes to a folder holds.
LOCK = ".lock"
OBTAIN = "It may be truncated, damaged or of another kind; obtain it again."
# What damaged files make readers raise. Warnings count: a reader that doubts is not believed.
_DAMAGE: tuple[type[BaseException], ...] = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    UserWarning,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends well.

    The temporary name keeps the suffix, because many writers choose the format by it.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name.split('.')[0]}-", suffix="".join(path.suffixes)
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; results should be as readable as any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_output_folder(folder: str | os.PathLike[str], argument: str = "out") -> Path:
    """Create ``folder`` if need be, and raise one clear error where nothing can be written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            argument,
            expected="a folder that can be written to",
            got=f"{folder} ({error.strerror or error})",
            fix="Choose another folder or change its permissions.",
        ) from error
    return folder


@contextmanager
def writing_alone(
    folder: str | os.PathLike[str], argument: str = "folder", *, name: str = LOCK
) -> Iterator[None]:
    """Keep other processes from writing to a folder.

    The lock ends with the process that holds it, however that ends. Where the file system has no
    locks, nobody is kept out.

    Parameters
    ----------
    folder : path
        Must be there.
    argument : str
        As in :class:`InputError`.
    name : str
        Of the file that is locked, and removed in the end; who works on another part of the
        folder may lock another.

    Raises
    ------
    InputError
        If another process holds it.
    """
    path = Path(folder) / name
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(handle)
                raise InputError(
                    argument,
                    expected="one that no other process writes to",
                    got=f"{folder}, to which another one is writing",
                    fix="Wait until it has ended, or name another folder.",
                ) from error
        # The file may have been removed between opening and locking it.
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def reading(
    path: str | os.PathLike[str],
    expected: str,
    *,
    fix: str = OBTAIN,
    also: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """Turn the many ways in which a damaged file fails into one.

    Parameters
    ----------
    path : path
        The file, to be named in the error.
    expected, fix : str
        As in :class:`InputError`.
    also : tuple of exception types
        What else its reader raises.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except InputError:
        raise
    except _DAMAGE + also as error:
        got = str(error).rstrip(".") or type(error).__name__
        raise InputError(str(path), expected=expected, got=got, fix=fix) from error


def read_json(path: str | os.PathLike[str], expected: str, *, fix: str = "") -> dict[str, Any]:
    """Read a JSON file that holds one object, whose keys are there once each."""
    with reading(path, expected, fix=fix):
        content = json.loads(Path(path).read_text("utf-8"), object_pairs_hook=_distinct)
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key that comes twice")
    return content
