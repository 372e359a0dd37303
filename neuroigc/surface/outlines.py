"""Borders of areas as lines: between vertices of different labels, not along faces."""

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["boundary_lines", "draw_outlines", "label_position", "visible_parts", "write_names"]


def boundary_lines(labels, coordinates, faces, *, smoothing=3):
    """Trace the borders between differently labelled vertices.

    A border crosses every edge whose ends differ in its middle, so it keeps each vertex on the
    side of its own label. Each border is traced once, from junction to junction where three
    areas meet.

    Parameters
    ----------
    labels : int array (n_vertices,)
        0 is an area like any other here.
    coordinates : array (n_vertices, n_dimensions)
        Of the mesh to draw on; further columns are carried along.
    faces : int array (n_faces, 3)
        Its faces.
    smoothing : int
        Passes of a three-point average along the line; its ends stay. 0 for none.

    Returns
    -------
    list of array (n_points, n_dimensions)
        Closed lines repeat their first point.
    """
    nodes, segments = _segments(labels, coordinates, faces)
    lines = [nodes[chain] for chain in _chains(segments, len(nodes))]
    return [_smooth(line, smoothing) for line in lines]


def _segments(labels, coordinates, faces):
    """Return points and the pairs of them that are joined, face by face."""
    corners = labels[faces]
    mixed = faces[(corners != corners[:, [1, 2, 0]]).any(axis=1)]
    edges = np.sort(mixed[:, [[0, 1], [1, 2], [2, 0]]], axis=2)
    crossed = labels[edges[..., 0]] != labels[edges[..., 1]]
    unique, number = np.unique(edges[crossed], axis=0, return_inverse=True)
    points = np.full(edges.shape[:2], -1)
    points[crossed] = number.reshape(-1)
    middles = coordinates[unique].mean(axis=1)

    junction = crossed.all(axis=1)  # three labels meet: join all three middles to the centre
    pairs = points[~junction][crossed[~junction]].reshape(-1, 2)
    centres = len(middles) + np.arange(junction.sum())
    spokes = np.stack([points[junction].reshape(-1), np.repeat(centres, 3)], axis=1)
    nodes = np.concatenate([middles, coordinates[mixed[junction]].mean(axis=1)])
    return nodes, np.concatenate([pairs, spokes])


def _chains(segments, n_nodes):
    """Join segments into chains that end at junctions and rims, then the closed ones."""
    neighbours = [[] for _ in range(n_nodes)]
    for a, b in segments.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    ends = [len(near) != 2 for near in neighbours]
    chains = []

    def walk(start):
        chain = [start]
        while neighbours[chain[-1]] and (len(chain) == 1 or not ends[chain[-1]]):
            onward = neighbours[chain[-1]].pop()
            neighbours[onward].remove(chain[-1])
            chain.append(onward)
        chains.append(chain)

    for open_only in (True, False):
        for node in range(n_nodes):
            while neighbours[node] and (ends[node] or not open_only):
                walk(node)
    return chains


def _smooth(line, passes):
    closed = len(line) > 3 and np.array_equal(line[0], line[-1])
    for _ in range(passes):
        if closed:
            ring = line[:-1]
            ring = (np.roll(ring, 1, axis=0) + 2 * ring + np.roll(ring, -1, axis=0)) / 4
            line = np.concatenate([ring, ring[:1]])
        else:
            inner = (line[:-2] + 2 * line[1:-1] + line[2:]) / 4
            line = np.concatenate([line[:1], inner, line[-1:]])
    return line


def visible_parts(line, visible):
    """Cut a line (n_points, ...) into its runs of visible points, of at least two each."""
    cuts = np.flatnonzero(np.diff(visible.astype(int))) + 1
    parts = np.split(np.arange(len(line)), cuts)
    return [line[part] for part in parts if visible[part[0]] and len(part) > 1]


def label_position(members, others, placed, width, height):
    """Choose where an area's name stands: clear of other names, and well inside.

    Parameters
    ----------
    members, others : array (n, 2)
        Visible vertices in the area and outside of it.
    placed : list of (array (2,), float)
        Where other names stand, and their widths.
    width, height : float
        Of this name, in the same units.

    Returns
    -------
    array (2,)
        One of the members, so that the name of an area that a cut divides is in one of its parts.
    """
    score = np.zeros(len(members))
    if len(others):
        inside, _ = cKDTree(others).query(members)
        score += np.minimum(inside / height, 1)
    if placed:
        # Two names are clear of each other sideways or upwards.
        apart = [
            np.maximum(
                np.abs(members[:, 0] - at[0]) / ((width + other) / 2),
                np.abs(members[:, 1] - at[1]) / height,
            )
            for at, other in placed
        ]
        score += 2 * np.minimum(np.min(apart, axis=0), 1)
    # Among equals, the one in the middle.
    off_centre = np.linalg.norm(members - np.median(members, axis=0), axis=1)
    return members[np.argmax(score - 0.02 * off_centre / height)]


def draw_outlines(ax, canvas, atlas, hemisphere, points, facing, faces):
    """Draw the borders of an atlas where the canvas of a view shows them."""
    from matplotlib.collections import LineCollection

    # Close to the rim, where the surface turns away, lines would only crowd.
    traced = [
        line
        for layer in atlas.layers
        for line in boundary_lines(layer.labels[hemisphere], np.c_[points, facing], faces)
    ]
    parts = [
        part[:, :2]
        for line in traced
        for part in visible_parts(line, canvas.shows(line) & (line[:, 3] > 0.12))
    ]
    ax.add_collection(
        LineCollection(parts, colors="black", linewidths=0.7, capstyle="round", zorder=2)
    )


def write_names(ax, canvas, atlas, names, hemisphere, points, seen):
    """Write these names of an atlas, each inside its area and clear of the others."""
    from matplotlib.patheffects import withStroke

    left, right, bottom, top = canvas.window
    height = 0.055 * max(right - left, top - bottom)  # of 6 points in a panel of 2.4 inches
    members, widths = {}, {}
    for name in names:
        widths[name] = 0.35 * height * (len(name) + 1)
        # So far from the border of the picture that a name of this length is not cut.
        room = canvas.contains(points, max(widths[name], height) / 2)
        members[name] = seen & room & atlas.mask(name, hemisphere)
    placed = []
    for name, member in sorted(members.items(), key=lambda item: item[1].sum()):
        if not member.any():
            continue
        others = np.concatenate([points[seen & ~member, :2], canvas.outside()])
        at = label_position(points[member, :2], others, placed, widths[name], height)
        placed.append((at, widths[name]))
        halo = withStroke(linewidth=1.5, foreground="white")
        ax.text(*at, name, fontsize=6, ha="center", va="center", zorder=3, path_effects=[halo])
