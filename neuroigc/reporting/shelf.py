"""Figures made part of the page: numbered in the order they are shown, and embedded."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from neuroigc.reporting.figures import Figure

__all__ = ["Shelf"]

# Embedded pictures beyond the first subject's stop here, so that the page can be mailed.
_BUDGET_BYTES = 6_000_000


class Shelf:
    """Numbers figures in the order they are shown, and embeds them within the budget."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.used, self.counts = folder, 0, {"Figure": 0, "Figure S": 0}

    def add(self, figure: Figure, *, supplement: bool = False) -> dict:
        """Return what the template needs to show a figure."""
        kind = "Figure S" if supplement else "Figure"
        self.counts[kind] += 1
        number = self.counts[kind]
        uri, pixels = _data_uri(figure.path)
        if supplement and self.used + len(uri) > _BUDGET_BYTES:
            uri = ""
        self.used += len(uri)
        return {
            "label": f"{kind}{number}" if supplement else f"{kind} {number}",
            "anchor": f"figure-{'s' if supplement else ''}{number}",
            "title": figure.title,
            "caption": figure.caption,
            "alt": figure.alt,
            "width": figure.width,
            "file": figure.path.relative_to(self.folder).as_posix(),
            "uri": uri,
            "pixels": pixels,
        }


def _data_uri(path):
    """Return a picture as a data URI and the size in CSS pixels at which it is meant."""
    if path.suffix == ".svg":
        from xml.etree import ElementTree

        data, kind = path.read_bytes(), "svg+xml"
        root = ElementTree.fromstring(data)
        # Matplotlib states points, 72 to the inch; CSS has 96 pixels there.
        pixels = [
            round(float(root.get(side).removesuffix("pt")) * 96 / 72)
            for side in ("width", "height")
        ]
    else:
        from PIL import Image

        with Image.open(path) as image:
            pixels = [round(side * 96 / 200) for side in image.size]
            buffer = io.BytesIO()
            # A fifth of the PNG's size without a visible difference; the PNG stays in figures/.
            image.convert("RGB").save(buffer, "WEBP", quality=88, method=4)
        data, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", pixels
