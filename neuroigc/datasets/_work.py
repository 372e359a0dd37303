"""Work that can be cut short: files in a folder that belong to the same settings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from neuroigc._files import atomic_path
from neuroigc._validation import InputError

__all__ = ["WORK", "begin_work", "check_settings", "end_work", "is_begun"]

WORK, SETTINGS = ".work", "settings.json"
# What atomic_path begins of arrays and descriptions; other hidden files are the user's.
HALF = re.compile(r"\.[a-z0-9_]+-[a-z0-9_]{8}\.(npy|json)")


def begin_work(folder: Path, settings: dict[str, Any]) -> Path:
    """Return the hidden folder of work inside; files of earlier work with these settings stay.

    Raises
    ------
    InputError
        If work with other settings was begun there.
    """
    work = folder / WORK
    try:
        begun = json.loads((work / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        begun = None
    if begun is not None:
        check_settings(folder, begun, settings)
    else:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with atomic_path(work / SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings), encoding="utf-8")
    for half in (*folder.iterdir(), *work.iterdir()):
        if HALF.fullmatch(half.name) and half.is_file():
            half.unlink()
    return work


def is_begun(folder: Path) -> bool:
    """Tell whether there is a folder of work."""
    return (folder / WORK).is_dir()


def end_work(folder: Path) -> None:
    """Remove the folder of work, if there is one."""
    shutil.rmtree(folder / WORK, ignore_errors=True)


def check_settings(folder: Path, there: Any, settings: dict[str, Any]) -> None:
    """Raise unless what lies in a folder was made, or begun, with the same settings."""
    if there != settings:
        there = there if isinstance(there, dict) else {}
        differ = [name for name, value in settings.items() if there.get(name) != value]
        raise InputError(
            "folder",
            expected="an empty one, or one with the same settings and files",
            got=f"{folder}, where {', '.join(differ)} differ",
            fix="Name another folder, or remove this one.",
        )
