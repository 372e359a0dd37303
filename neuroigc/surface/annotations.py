"""FreeSurfer annotations: a colour for every vertex, and a table that names the colours.

The layout is that of FreeSurfer's own reader; every number is big-endian. Whatever does not add up
is an error: a colour that no area has would else be taken for another area's.
"""

from pathlib import Path

import numpy as np

from neuroigc._files import reading

__all__ = ["read_annotation"]


def read_annotation(path):
    """Read one hemisphere's annotation.

    Parameters
    ----------
    path : path-like
        ``.annot``, with a colour table of either version inside.

    Returns
    -------
    labels : int32 array (n_vertices,)
        Positions in ``names``; -1 where a vertex has no colour.
    names : list of str

    Raises
    ------
    InputError
        If the file is missing, damaged, or has a colour that is not in its table.
    """
    path = Path(path)
    with reading(path, "a whole, readable annotation"):
        bytes_ = _Bytes(path.read_bytes())
        n_vertices = bytes_.integer()
        vertices, colors = bytes_.integers(2 * n_vertices).reshape(n_vertices, 2).T
        if not n_vertices or not np.array_equal(np.sort(vertices), np.arange(n_vertices)):
            raise ValueError("not every vertex once")
        names, codes = _read_table(bytes_)
        if bytes_.left:
            raise ValueError(f"{bytes_.left} bytes behind the table")
        labels = np.full(n_vertices, -1, np.int32)
        labels[vertices] = _positions(colors, codes)
    return labels, names


class _Bytes:
    """The content, read from front to end and never beyond."""

    def __init__(self, content):
        self.content, self.start = content, 0

    @property
    def left(self):
        return len(self.content) - self.start

    def take(self, n):
        if not 0 <= n <= self.left:
            raise ValueError(f"{self.left} bytes where {n} are announced")
        self.start += n
        return self.content[self.start - n : self.start]

    def integers(self, n):
        return np.frombuffer(self.take(4 * n), ">i4").astype(np.int64)

    def integer(self):
        return int(self.integers(1)[0])

    def text(self):
        return self.take(self.integer()).split(b"\0")[0].decode("utf-8", "replace")


def _read_table(bytes_):
    """Return names and colour codes in the order of the table."""
    if bytes_.integer() != 1:
        raise ValueError("no colour table")
    n_entries = bytes_.integer()
    is_numbered = n_entries < 0
    if is_numbered:
        if n_entries != -2:
            raise ValueError(f"version {-n_entries} of colour tables")
        n_structures = bytes_.integer()
    bytes_.text()  # the file that the table was made of
    if is_numbered:
        n_entries = bytes_.integer()
    if n_entries < 1:
        raise ValueError("an empty colour table")
    names, codes, numbers = [], [], []
    for _ in range(n_entries):
        numbers.append(bytes_.integer() if is_numbered else len(numbers))
        names.append(bytes_.text())
        colors = bytes_.integers(4)
        if (colors < 0).any() or (colors > 255).any():
            raise ValueError(f"the colour {colors.tolist()}")
        codes.append(int(colors @ 256 ** np.arange(4)))
    if is_numbered and not (
        len(set(numbers)) == n_entries and min(numbers) >= 0 and max(numbers) < n_structures
    ):
        raise ValueError("numbers of areas that do not fit the table")
    return names, codes


def _positions(colors, codes):
    order = np.argsort(codes, kind="stable")
    ordered = np.array(codes)[order]
    where = np.searchsorted(ordered, colors).clip(max=len(codes) - 1)
    found = ordered[where] == colors
    unknown = np.unique(colors[~found & (colors != 0)])
    if len(unknown):
        raise ValueError(f"{len(unknown)} colours that no area has, such as {unknown[0]}")
    # Without a colour, a vertex is in no area, even if one is black.
    return np.where(colors == 0, -1, order[where])
