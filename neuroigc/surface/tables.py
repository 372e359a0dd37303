"""Names of labels in text files: NSD's and FreeSurfer's colour tables, BIDS tables."""

import csv
from pathlib import Path

from neuroigc._files import reading
from neuroigc._validation import InputError

__all__ = ["is_background", "read_color_table"]

# FreeSurfer's and its users' names for "no area".
_BACKGROUND = {"unknown", "???", "none", "background", "medial_wall", "medialwall"}


def read_color_table(path):
    """Read the names of labels from a text file.

    Parameters
    ----------
    path : path-like
        Lines of "number name", as NSD writes them, or of "number name red green blue alpha", a
        FreeSurfer colour table; lines that begin with # are remarks. Or the ``_dseg.tsv`` of BIDS,
        tab-separated with the columns index and name.

    Returns
    -------
    dict of int to str
        Without the background.

    Raises
    ------
    InputError
        If the file is missing, no such table, or has two names for one label.
    """
    path, table = Path(path), {}
    if not path.is_file():
        raise InputError("path", expected="a file", got=f"nothing at {path}")
    with reading(path, "a table of names", fix=""):
        text = path.read_text("utf-8-sig")
    rows = _bids_rows(text, path) if path.suffix == ".tsv" else _rows(text)
    for number, label, name in rows:
        if not label.removeprefix("-").isdecimal() or len(label) > 10 or not name:
            raise InputError(
                f"{path}, line {number}",
                expected="a number and a name",
                got=repr(f"{label} {name}".rstrip()),
            )
        if int(label) <= 0 or is_background(name):
            continue
        if table.setdefault(int(label), name) != name:
            raise InputError(
                f"{path}, line {number}",
                expected="one name for each number",
                got=f"{table[int(label)]!r} and {name!r} for {label}",
            )
    return table


def is_background(name):
    """Tell whether a name stands for no area."""
    return name.strip().lower() in _BACKGROUND


def _rows(text):
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) >= 6 and all(word.isdecimal() for word in words[-4:]):
            words = words[:-4]
        yield number, words[0], " ".join(words[1:])


def _bids_rows(text, path):
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    if not {"index", "name"} <= set(rows.fieldnames or ()):
        raise InputError(
            str(path), expected="the columns index and name", got=str(rows.fieldnames or "none")
        )
    for number, row in enumerate(rows, 2):
        yield number, (row["index"] or "").strip(), (row["name"] or "").strip()
