"""PNG images, with the checksums that their decoder does not look at."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuroigc._files import reading

__all__ = ["read_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as RGB display values of shape (height, width, 3).

    Raises
    ------
    InputError
        If the file is missing, no PNG, or damaged anywhere.
    """
    from PIL import Image

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    with reading(path, "a whole PNG file", also=bombs):
        _check_chunks(path.read_bytes())
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))


def _check_chunks(content: bytes) -> None:
    if content[:8] != SIGNATURE:
        raise ValueError(f"a file that begins {content[:8]!r}")
    start, kind = 8, b""
    while kind != b"IEND":
        n_bytes = int.from_bytes(content[start : start + 4], "big")
        kind, stop = content[start + 4 : start + 8], start + 8 + n_bytes
        checksum = content[stop : stop + 4]
        found = zlib.crc32(content[start + 4 : stop]).to_bytes(4, "big")
        if len(checksum) < 4 or checksum != found:
            raise ValueError(f"a chunk {kind!r} with another checksum, or cut short")
        start = stop + 4
    if start != len(content):
        raise ValueError("bytes behind the image")
