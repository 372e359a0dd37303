"""Numeric arrays out of MATLAB files of version 5 to 7, without trusting a byte of them.

The format is simple where arrays of numbers are concerned: elements with a type and a length, one
inside the other, perhaps compressed. General readers follow what a damaged file says to where
interpreters crash; this one compares every length with what is there, and skips what it was not
asked for.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neuroigc._files import reading

__all__ = ["read_mat"]

HEADER_BYTES = 128
COMPRESSED, MATRIX = 15, 14
# Types that numbers are stored as, which may be smaller than what they are numbers of.
STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
# Classes of arrays, by the number in their flags.
CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
COMPLEX = 0x08
# No experiment's design needs more; a damaged length does.
MOST_BYTES = 2**30


def read_mat(path: Path, names: Sequence[str], *, fix: str = "") -> dict[str, np.ndarray]:
    """Read some variables.

    Parameters
    ----------
    path : Path
        MATLAB file, not of version 7.3, which is HDF5.
    names : sequence of str
        Variables to read; others are skipped.
    fix : str
        What to do about a damaged file.

    Returns
    -------
    dict of str to array
        Those that are there. What is no real, full, numeric array comes as the text "no numbers".

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    variables: dict[str, np.ndarray] = {}
    with reading(path, "a whole MATLAB file, version 7 or before", fix=fix):
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(content[126:HEADER_BYTES])
        if order is None or struct.unpack(f"{order}H", content[124:126]) != (0x0100,):
            raise ValueError(f"one that begins {content[:20]!r}")
        for kind, body in _elements(content[HEADER_BYTES:], order, padded=False):
            if kind == COMPRESSED:
                kind, body = _unpack(body, order)
            if kind != MATRIX:
                raise ValueError(f"an element of type {kind}")
            name, values = _read_matrix(body, order, names)
            if name in variables:
                raise ValueError(f"{name} twice")
            if name in names:
                variables[name] = values
    return variables


def _elements(content: bytes, order: str, *, padded: bool) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element; within a matrix they are padded to 8 bytes."""
    start = 0
    while start < len(content):
        kind, n_bytes = struct.unpack_from(f"{order}2I", content, start)
        if kind >> 16:  # up to four bytes, kept in the place of the tag's own
            n_bytes, kind = kind >> 16, kind & 0xFFFF
            data_start, stop = start + 4, start + 8
            if n_bytes > 4:
                raise ValueError(f"{n_bytes} bytes in the place of four")
        else:
            data_start = start + 8
            stop = data_start + n_bytes + (-n_bytes % 8 if padded else 0)
        if stop > len(content):
            raise ValueError(f"{len(content) - start} bytes where {stop - start} are announced")
        yield kind, content[data_start : data_start + n_bytes]
        start = stop


def _unpack(body: bytes, order: str) -> tuple[int, bytes]:
    """Decompress one element, no further than its own length says, to its checksum."""
    stream = zlib.decompressobj()
    head = stream.decompress(body, 8)
    kind, n_bytes = struct.unpack(f"{order}2I", head)
    if n_bytes > MOST_BYTES:
        raise ValueError(f"an element of {n_bytes} bytes")
    content = stream.decompress(stream.unconsumed_tail, n_bytes + 1)
    content += stream.decompress(stream.unconsumed_tail, 1) if not stream.eof else b""
    if len(content) != n_bytes or not stream.eof or stream.unused_data:
        raise ValueError(f"{len(content)} bytes where {n_bytes} are announced")
    return kind, content


def _read_matrix(body: bytes, order: str, names: Sequence[str]) -> tuple[str, np.ndarray]:
    elements = _elements(body, order, padded=True)
    (flags_kind, flags), (shape_kind, shape_bytes), (name_kind, name_bytes) = (
        next(elements, (0, b"")) for _ in range(3)
    )
    if (flags_kind, shape_kind, name_kind) != (6, 5, 1) or len(flags) != 8:
        raise ValueError("a matrix without flags, shape and name")
    name = name_bytes.decode("ascii")
    if name not in names:
        return name, np.array("not asked for")
    (flag_word,) = struct.unpack(f"{order}I", flags[:4])
    shape = np.frombuffer(shape_bytes, f"{order}i4").tolist()
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"{name} of shape {shape}")
    if flag_word & 0xFF not in CLASSES or flag_word >> 8 & COMPLEX:
        return name, np.array("no numbers")
    parts = list(elements)
    if len(parts) != 1 or parts[0][0] not in STORED:
        raise ValueError(f"{name} without its numbers")
    stored = np.dtype(order + STORED[parts[0][0]])
    if len(parts[0][1]) != math.prod(shape) * stored.itemsize:
        raise ValueError(f"{len(parts[0][1])} bytes for {name} of shape {shape}")
    numbers = np.frombuffer(parts[0][1], stored)
    with np.errstate(invalid="ignore", over="ignore"):
        values = numbers.astype(CLASSES[flag_word & 0xFF])
    if not np.array_equal(values, numbers, equal_nan=True):
        raise ValueError(f"numbers of {name} that are not of its class")
    return name, values.reshape(shape, order="F")
