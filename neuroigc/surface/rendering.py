"""A small renderer that finds which point of which face every pixel of a view shows.

Orthographic, with a depth buffer. Values are interpolated, not colours, so that a pixel between
a positive and a negative vertex is near zero instead of violet; and what is hidden is known, which
lines on the surface need.
"""

from dataclasses import dataclass

import numpy as np

from neuroigc._validation import check_choice

__all__ = ["VIEWS", "Canvas", "front_facing", "normals", "project", "render", "window_around"]

# Where the viewer stands for a left hemisphere; the right one is seen from the mirrored place.
VIEWS = {
    "lateral": (-1, 0, 0),
    "medial": (1, 0, 0),
    "posterior": (0, -1, 0),
    "anterior": (0, 1, 0),
    "dorsal": (0, 0, 1),
    "ventral": (0, 0, -1),
    "occipital": (1, -1.2, -0.25),
}


@dataclass(frozen=True, eq=False)
class Canvas:
    """What each pixel shows.

    Attributes
    ----------
    face : int array (height, width)
        Index of the face, -1 outside the surface. Row 0 is the top.
    weights : array (height, width, 3)
        Barycentric coordinates within the face.
    depth : array (height, width)
        Towards the viewer; -inf outside.
    window : tuple of float
        left, right, bottom, top, in mm.
    """

    face: np.ndarray
    weights: np.ndarray
    depth: np.ndarray
    window: tuple

    def pixels(self, points):
        """Return the row and column of points (n, 2 or 3), clipped to the picture."""
        left, right, bottom, top = self.window
        height, width = self.face.shape
        column = (points[:, 0] - left) / (right - left) * width
        row = (top - points[:, 1]) / (top - bottom) * height
        return (
            np.clip(row.astype(int), 0, height - 1),
            np.clip(column.astype(int), 0, width - 1),
        )

    def contains(self, points, inset=0.0):
        """Return which points (n, 2 or 3) lie in the window, ``inset`` mm from its border."""
        left, right, bottom, top = self.window
        x, y = points[:, 0], points[:, 1]
        inside = (x > left + inset) & (x < right - inset)
        return inside & (y > bottom + inset) & (y < top - inset)

    def outside(self, stride=8):
        """Return points (n, 2) beside the surface, one of ``stride`` x ``stride`` pixels."""
        left, right, bottom, top = self.window
        height, width = self.face.shape
        row, column = np.nonzero(self.face[::stride, ::stride] < 0)
        x = left + (column * stride + 0.5) / width * (right - left)
        y = top - (row * stride + 0.5) / height * (top - bottom)
        return np.stack([x, y], axis=1)

    def shows(self, points, tolerance=4.0):
        """Return which projected points (n, 3) nothing hides, to ``tolerance`` mm of depth."""
        hidden = self.depth[self.pixels(points)] > points[:, 2] + tolerance
        return self.contains(points) & ~hidden


def project(coordinates, hemisphere, view):
    """Turn a mesh towards the viewer.

    Parameters
    ----------
    coordinates : array (n_vertices, 3)
        x to the right, y to the front, z up.
    hemisphere : {"left", "right"}
        Decides what is lateral and what is medial.
    view : str
        One of :data:`VIEWS`.

    Returns
    -------
    array (n_vertices, 3)
        To the right of the picture, upwards in it, towards the viewer.
    """
    check_choice("view", view, VIEWS)
    viewer = np.array(VIEWS[view], float)
    if hemisphere == "right":
        viewer[0] *= -1
    viewer /= np.linalg.norm(viewer)
    # From above and below, the front of the brain is up.
    up = np.array([0.0, 1.0, 0.0] if abs(viewer[2]) > 0.9 else [0.0, 0.0, 1.0])
    right = np.cross(up, viewer)
    right /= np.linalg.norm(right)
    return coordinates @ np.stack([right, np.cross(viewer, right), viewer], axis=1)


def front_facing(points, faces):
    """Return which faces of a projected mesh are turned to the viewer."""
    a, b, c = (points[faces[:, corner], :2] for corner in range(3))
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) > (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def normals(points, faces):
    """Return the outward unit normal (n_vertices, 3) of every vertex."""
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros_like(points)
    for corner in range(3):
        np.add.at(total, faces[:, corner], across)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def window_around(points, margin):
    """Return left, right, bottom, top of points (n, 2 or 3) with a margin in parts of the size."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    space = margin * max(*(high - low), 1.0)
    return (low[0] - space, high[0] + space, low[1] - space, high[1] + space)


def render(points, faces, window, n_pixels=900):
    """Find what every pixel shows.

    Parameters
    ----------
    points : array (n_vertices, 3)
        As :func:`project` returns them.
    faces : int array (n_faces, 3)
        Counter-clockwise where they are turned to the viewer.
    window : tuple of float
        left, right, bottom, top.
    n_pixels : int
        Of the longer side.

    Returns
    -------
    Canvas
    """
    left, right, bottom, top = window
    per_mm = n_pixels / max(right - left, top - bottom)
    shape = (max(1, round((top - bottom) * per_mm)), max(1, round((right - left) * per_mm)))
    front = np.flatnonzero(front_facing(points, faces))
    x = (points[faces[front], 0] - left) * per_mm - 0.5  # pixel centres at whole numbers
    y = (top - points[faces[front], 1]) * per_mm - 0.5
    depth = points[faces[front], 2]

    # Candidates: every face with every pixel of the box around it.
    first_x, last_x = _pixel_range(x, shape[1])
    first_y, last_y = _pixel_range(y, shape[0])
    widths, heights = np.maximum(last_x - first_x, 0), np.maximum(last_y - first_y, 0)
    counts = widths * heights
    owner = np.repeat(np.arange(len(front)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = first_x[owner] + within % widths[owner]
    row = first_y[owner] + within // widths[owner]

    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    weights = np.empty((len(owner), 3))
    for corner in range(3):
        b, c = (corner + 1) % 3, (corner + 2) % 3
        xb, yb, xc, yc = (v[owner] for v in (x[:, b], y[:, b], x[:, c], y[:, c]))
        weights[:, corner] = (xb - column) * (yc - row) - (xc - column) * (yb - row)
    weights /= area[owner, None]
    hit = (weights > -1e-9).all(axis=1)
    owner, row, column, weights = owner[hit], row[hit], column[hit], weights[hit]
    near = np.einsum("ij,ij->i", weights, depth[owner])

    order = np.argsort(near, kind="stable")  # the nearest is written last
    at = (row[order], column[order])
    canvas = Canvas(
        np.full(shape, -1, np.int32),
        np.zeros((*shape, 3), np.float32),
        np.full(shape, -np.inf, np.float32),
        tuple(window),
    )
    canvas.face[at] = front[owner[order]]
    canvas.weights[at] = weights[order]
    canvas.depth[at] = near[order]
    return canvas


def _pixel_range(position, size):
    first = np.clip(np.ceil(position.min(axis=1)), 0, size).astype(int)
    last = np.clip(np.floor(position.max(axis=1)) + 1, 0, size).astype(int)
    return first, last
