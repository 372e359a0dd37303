"""Clusters on a mesh: neighbouring vertices that are tested together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.stats.inference import p_values_among_largest

__all__ = [
    "ClusterTest",
    "cluster_test",
    "enhance_clusters",
    "find_clusters",
    "mesh_edges",
    "vertex_areas",
]

# Smith & Nichols (2009), for surfaces.
EXTENT_POWER, HEIGHT_POWER = 1.0, 2.0
ALPHA = 0.05


@dataclass(frozen=True)
class ClusterTest:
    """Test of a map against maps of permuted data.

    Attributes
    ----------
    statistics : array of shape (n_vertices,)
        The map in units of its standard deviation over permutations.
    scores : array of shape (n_vertices,)
        What was compared: the enhanced map, or the size of the cluster that a vertex is in.
    p_values : array of shape (n_vertices,)
        Family-wise over all vertices, and two-sided.
    labels : array of shape (n_vertices,)
        Numbers of the clusters from 1 on, those of negative values below 0, and 0 outside. Of
        the threshold-free test: of neighbouring vertices with p of 0.05 or less.
    """

    statistics: np.ndarray
    scores: np.ndarray
    p_values: np.ndarray
    labels: np.ndarray


def mesh_edges(faces: ArrayLike, *, vertices: ArrayLike | None = None) -> np.ndarray:
    """Return each edge of a triangle mesh once.

    Parameters
    ----------
    faces : array of shape (n_faces, 3)
        Vertices of each triangle. Of two hemispheres, those of the second counted on from the
        first: ``np.concatenate([left, right + n_left])``.
    vertices : int array, optional
        Vertices that maps have values for, in the maps' order. Edges are then numbered by their
        places, and those to other vertices left out.

    Returns
    -------
    array of shape (n_edges, 2)
        The smaller vertex first.
    """
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise InputError(
            "faces",
            expected="whole numbers (n_faces, 3)",
            got=f"{faces.dtype} of shape {faces.shape}",
        )
    ends = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges = np.unique(ends, axis=0)
    if vertices is None:
        return edges
    vertices = np.asarray(vertices)
    numbers = vertices.ndim == 1 and vertices.dtype.kind in "iu" and (vertices >= 0).all()
    if not numbers or len(np.unique(vertices)) < len(vertices):
        raise InputError(
            "vertices",
            expected="different whole numbers from 0 up (n_vertices,)",
            got=f"{vertices.dtype} of shape {vertices.shape}",
            fix="Of a mask take np.flatnonzero.",
        )
    place = np.full(max(faces.max(initial=-1), vertices.max(initial=-1)) + 1, -1)
    place[vertices] = np.arange(len(vertices))
    edges = place[edges]
    return np.sort(edges[(edges >= 0).all(1)], axis=1)


def vertex_areas(coordinates: ArrayLike, faces: ArrayLike) -> np.ndarray:
    """Return the area that belongs to each vertex: a third of its triangles'.

    Parameters
    ----------
    coordinates : array of shape (n_vertices, 3)
        In mm, of a surface that has the size of the cortex (white, midthickness or pial).
    faces : array of shape (n_faces, 3)

    Returns
    -------
    array of shape (n_vertices,)
        In square mm.
    """
    corners = np.asarray(coordinates, dtype=float)[np.asarray(faces)]
    sides = corners[:, 1:] - corners[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 2
    return np.bincount(np.ravel(faces), np.repeat(areas / 3, 3), minlength=len(coordinates))


def find_clusters(values: ArrayLike, edges: ArrayLike, *, threshold: float) -> np.ndarray:
    """Give numbers to connected sets of vertices beyond a threshold, positive and negative apart.

    Parameters
    ----------
    values : array of shape (n_vertices,)
    edges : array of shape (n_edges, 2)
        As of `mesh_edges`.
    threshold : float
        Above 0; vertices at the threshold are in.

    Returns
    -------
    array of shape (n_vertices,)
        1, 2, ... for clusters of positive values, the one of the first vertex first; -1, -2, ...
        of negative ones; 0 outside.
    """
    values, edges = np.asarray(values), np.asarray(edges)
    if not threshold > 0:
        raise InputError("threshold", expected="a number above 0", got=repr(threshold))
    _check_mesh(len(values), edges)
    labels = np.zeros(len(values), dtype=np.int64)
    for sign in (1, -1):
        inside = sign * values >= threshold
        number = _components(inside, edges)
        labels[inside] = sign * (number + 1)
    return labels


def _components(inside, edges):
    """Return the component of each vertex inside, from 0 on."""
    place = np.cumsum(inside) - 1
    n = int(inside.sum())
    kept = place[edges[inside[edges[:, 0]] & inside[edges[:, 1]]]]
    graph = sparse.coo_array((np.ones(len(kept), np.int8), (kept[:, 0], kept[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def enhance_clusters(
    values: ArrayLike,
    edges: ArrayLike,
    *,
    areas: ArrayLike | None = None,
    n_steps: int = 100,
    extent_power: float = EXTENT_POWER,
    height_power: float = HEIGHT_POWER,
) -> np.ndarray:
    """Enhance a map where its values are supported by their neighbours, without a threshold.

    ``TFCE(v) = integral over 0 < h <= |value(v)| of extent(v, h)^E h^H dh``, the extent being
    the area of the cluster of v above h (Smith & Nichols 2009), by the midpoints of steps of the
    map's largest value over ``n_steps``.

    Parameters
    ----------
    values : array of shape (n_vertices,)
        Of equal spread under the null, as t or z.
    edges : array of shape (n_edges, 2)
        As of `mesh_edges`.
    areas : array of shape (n_vertices,), optional
        As of `vertex_areas`; 1 each by default.
    n_steps : int
    extent_power, height_power : float
        E and H.

    Returns
    -------
    array of shape (n_vertices,)
        With the signs of the values.
    """
    values, edges = np.asarray(values, dtype=float), np.asarray(edges)
    areas = np.ones(len(values)) if areas is None else np.asarray(areas, dtype=float)
    n_steps = check_count("n_steps", n_steps)
    _check_mesh(len(values), edges, areas)
    if not np.isfinite(values).all():
        raise InputError(
            "values",
            expected="finite numbers",
            got="NaN or infinity",
            fix="Leave such vertices out, here and of mesh_edges.",
        )
    enhanced = np.zeros(len(values))
    largest = np.abs(values).max(initial=0)
    if largest == 0:
        return enhanced
    step = largest / n_steps
    for sign in (1, -1):
        vertices, own, left = np.arange(len(values)), sign * values, edges
        for height in (np.arange(n_steps) + 0.5) * step:
            # Vertices below are below all further heights.
            inside = own >= height
            if not inside.any():
                break
            place = np.cumsum(inside) - 1
            left = place[left[inside[left].all(1)]]
            vertices, own = vertices[inside], own[inside]
            number = _components(np.ones(len(own), bool), left)
            extent = np.bincount(number, areas[vertices]) ** extent_power
            enhanced[vertices] += sign * extent[number] * height**height_power * step
    return enhanced


def cluster_test(
    null: ArrayLike,
    edges: ArrayLike,
    *,
    statistic: str = "tfce",
    threshold: float = 2.5,
    areas: ArrayLike | None = None,
    n_steps: int = 50,
    standardise: bool = True,
    progress: bool = False,
) -> ClusterTest:
    """Test a map by its clusters, family-wise by the largest of each permutation.

    Parameters
    ----------
    null : array of shape (n_permutations + 1, n_vertices)
        Maps of permuted data, the first of the data as they are: those of permuted targets within
        a subject (one output of ``IGCResult.null_maps``), or of flipped signs across subjects
        (`sign_flip_maps`).
    edges : array of shape (n_edges, 2)
        As of `mesh_edges`.
    statistic : {"tfce", "area", "mass"}
        Threshold-free enhancement; or the area of clusters beyond ``threshold``, or the sum of
        what their values exceed it by, times areas.
    threshold : float
        In standard deviations, for clusters.
    areas : array of shape (n_vertices,), optional
        As of `vertex_areas`; 1 each by default.
    n_steps : int
        Heights of the enhancement.
    standardise : bool
        Divide values by their root mean square over permutations; False where they are t or z.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If shapes do not fit, or maps are not finite.
    """
    check_choice("statistic", statistic, ("tfce", "area", "mass"))
    null, edges = np.asarray(null), np.asarray(edges)
    if null.ndim != 2 or len(null) < 2 or not np.isfinite(null).all():
        raise InputError(
            "null",
            expected="finite maps (n_permutations + 1, n_vertices)",
            got=f"shape {null.shape}" if null.ndim != 2 or len(null) < 2 else "NaN or infinity",
        )
    areas = np.ones(null.shape[1]) if areas is None else np.asarray(areas, dtype=float)
    _check_mesh(null.shape[1], edges, areas)
    deviation = np.ones(null.shape[1])
    if standardise:
        deviation = np.sqrt(np.mean(np.square(null, dtype=float), axis=0))
        deviation[deviation == 0] = np.inf
    largest = np.empty(len(null))
    for p in track(range(len(null)), show=progress, label="clusters"):
        scores = _scores(null[p] / deviation, edges, areas, statistic, threshold, n_steps)
        largest[p] = np.abs(scores).max(initial=0)
        if p == 0:
            observed = scores
    statistics = null[0] / deviation
    p_values = p_values_among_largest(np.abs(observed), largest)
    if statistic == "tfce":
        found = np.where(p_values <= ALPHA, np.sign(statistics), 0)
        labels = find_clusters(found, edges, threshold=1)
    else:
        labels = find_clusters(statistics, edges, threshold=threshold)
    return ClusterTest(statistics, observed, p_values, labels)


def _check_mesh(n_vertices, edges, areas=None):
    """Raise unless edges, and areas, are those of a map's vertices."""
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise InputError(
            "edges",
            expected="whole numbers (n_edges, 2), as of mesh_edges",
            got=f"{edges.dtype} of shape {edges.shape}",
        )
    if (
        (areas is not None and areas.shape != (n_vertices,))
        or edges.max(initial=-1) >= n_vertices
        or edges.min(initial=0) < 0
    ):
        raise InputError(
            "edges and areas",
            expected=f"those of a mesh of {n_vertices} vertices",
            got=f"{n_vertices if areas is None else areas.size} areas, and vertices from number "
            f"{edges.min(initial=0)} to {edges.max(initial=0)}",
            fix="mesh_edges(faces, vertices=...) chooses the vertices of a map.",
        )
    if areas is not None and not ((areas >= 0) & np.isfinite(areas)).all():
        raise InputError("areas", expected="finite numbers from 0 up", got="others")


def _scores(values, edges, areas, statistic, threshold, n_steps):
    """Return what is compared of one map, with its signs."""
    if statistic == "tfce":
        return enhance_clusters(values, edges, areas=areas, n_steps=n_steps)
    labels = find_clusters(values, edges, threshold=threshold)
    number = np.unique(labels, return_inverse=True)[1]
    excess = areas if statistic == "area" else areas * (np.abs(values) - threshold)
    sizes = np.bincount(number, excess)
    return np.where(labels == 0, 0, np.sign(labels) * sizes[number])
