"""Spheres of triangles that nest as fsaverage does, and smooth maps on them."""

from functools import cache

import numpy as np


@cache
def icosphere(n_divisions):
    """Return coordinates and faces; 10 * 4**n + 2 vertices, those of coarser ones first."""
    t = (1 + 5**0.5) / 2
    ring = [(s * 1.0, r * t) for r in (1, -1) for s in (-1, 1)]
    v = np.array(
        [(a, b, 0) for a, b in ring] + [(0, a, b) for a, b in ring] + [(b, 0, a) for a, b in ring]
    )
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    # Triangles are triples of neighbours.
    near = np.linalg.norm(v[:, None] - v, axis=2) < 1.1
    faces = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    f = np.array(faces)
    for _ in range(n_divisions):
        ends = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), axis=1)
        edges, number = np.unique(ends, axis=0, return_inverse=True)
        a, b, c = (number.reshape(3, -1) + len(v)).astype(np.int64)
        new = v[edges].sum(1)
        v = np.concatenate([v, new / np.linalg.norm(new, axis=1, keepdims=True)])
        corners = ((f[:, 0], a, c), (f[:, 1], b, a), (f[:, 2], c, b), (a, b, c))
        f = np.concatenate([np.stack(corner, 1) for corner in corners])
    return v, f


def smooth_maps(rng, coordinates, n_maps, *, n_waves=300, frequency=6.0):
    """Return maps that are nearly Gaussian and isotropic, (n_maps, n_vertices)."""
    waves = frequency * rng.standard_normal((n_maps, n_waves, 3))
    phases = rng.uniform(0, 2 * np.pi, (n_maps, n_waves, 1))
    return np.stack(
        [np.cos(w @ coordinates.T + p).sum(0) for w, p in zip(waves, phases, strict=True)]
    ) * np.sqrt(2 / n_waves)
