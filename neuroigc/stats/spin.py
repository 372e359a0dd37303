"""Map against map: what two smooth maps have in common beyond chance.

Neighbours share their values, so that correlations of smooth maps vary far more than as many
independent values would. Rotating one of them on the sphere keeps its smoothness and breaks
nothing but the alignment (Alexander-Bloch et al. 2018); the right hemisphere is rotated as the
mirror image of the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice, check_count

__all__ = ["SpinTest", "mirror_of_spheres", "random_rotations", "spin_test", "spun_vertices"]

_MIRROR = np.diag([-1.0, 1.0, 1.0])
_SIDES = ("left", "right")
# Least share of a sphere that maps must cover.
_LEAST_COVERED = 0.5


@dataclass(frozen=True)
class SpinTest:
    """Correlation of a map with others, against rotations of these.

    Attributes
    ----------
    r : array of shape (n_maps,)
        Over the vertices that both maps have.
    p_values : array of shape (n_maps,)
        Two-sided: how often a rotated map correlates as strongly, the map as it is counting as
        one of the rotations.
    null : array of shape (n_rotations, n_maps)
        Correlations of rotated maps, over the vertices that both maps then have.
    n_compared : int array of shape (n_rotations + 1, n_maps)
        How many vertices that were, without rotation first.
    """

    r: np.ndarray
    p_values: np.ndarray
    null: np.ndarray
    n_compared: np.ndarray


def random_rotations(n_rotations: int, *, seed: int = 0) -> np.ndarray:
    """Draw rotations, each as likely as any other (Haar's measure).

    Four normal numbers, of length 1, are a uniform quaternion (Shoemake 1992).

    Returns
    -------
    array of shape (n_rotations, 3, 3)
        To be multiplied with coordinates as columns.
    """
    n_rotations = check_count("n_rotations", n_rotations)
    q = np.random.default_rng(seed).standard_normal((n_rotations, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def mirror_of_spheres(
    spheres: Mapping[str, ArrayLike], surfaces: Mapping[str, ArrayLike]
) -> np.ndarray:
    """Return the reflection that lays the left sphere on the right one, place upon place.

    Spheres of two hemispheres are mirror images but for a turn: those of fsaverage differ by 16
    degrees (median). Rotations that are plainly mirrored move places that belong together
    apart. Of symmetric maps both hemispheres say much the same, which rotations should keep;
    with so small a turn it was found to matter little (``tests/benchmarks/RESULTS.md``). Places
    are paired on another surface, by nearness to the mirror image, and the reflection is the
    one of least squares (Schönemann 1966).

    Parameters
    ----------
    spheres : dict
        Of "left" and "right", as of `spun_vertices`.
    surfaces : dict
        Coordinates (n_vertices, 3) of the same vertices on inflated (or white) surfaces.

    Returns
    -------
    array of shape (3, 3)
        To be multiplied with coordinates as columns; for ``mirror``.

    Raises
    ------
    InputError
        If a hemisphere is missing, or surfaces are of other vertices.
    """
    sides = _check_spheres(spheres)
    if len(sides) < 2:
        raise InputError("spheres", expected="both hemispheres", got=next(iter(sides)))
    left, right = (np.asarray(surfaces[side], dtype=float) for side in _SIDES)
    for side, places in (("left", left), ("right", right)):
        if places.shape != sides[side].shape:
            raise InputError(
                f"surfaces[{side!r}]",
                expected=f"coordinates of the sphere's vertices, {sides[side].shape}",
                got=f"shape {places.shape}",
            )
    mirrored = (left - left.mean(0)) @ _MIRROR
    nearest = cKDTree(right - right.mean(0)).query(mirrored)[1]
    u, _, vt = np.linalg.svd(sides["right"][nearest].T @ sides["left"])
    flip = np.diag([1, 1, -np.linalg.det(u @ vt)])
    return u @ flip @ vt


def spun_vertices(
    spheres: Mapping[str, ArrayLike],
    n_rotations: int,
    *,
    mirror: ArrayLike = _MIRROR,
    seed: int = 0,
    n_threads: int = 1,
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """Yield, for one rotation after the other, the vertex whose value each vertex is given.

    Parameters
    ----------
    spheres : dict
        Coordinates (n_vertices, 3) of the spheres of "left" and "right", x to the right; or of
        one of them.
    n_rotations : int
    mirror : array of shape (3, 3)
        Of the left sphere to the right one, as of `mirror_of_spheres`; by default from right to
        left alone.
    seed : int
    n_threads : int
        Of the search for the nearest vertex.
    progress : bool
        Show a progress bar.

    Yields
    ------
    int array of shape (n_left + n_right,)
        The right hemisphere's vertices are counted on from the left's. Vertices of one hemisphere
        are given values of the same.
    """
    sides, mirror = _check_spheres(spheres), _check_mirror(mirror)
    searches, start = [], 0
    for side, coordinates in sides.items():
        tree = cKDTree(coordinates)
        # One after the other in space, so that the search finds what it needs at hand.
        order = tree.indices
        searches.append((side, tree, coordinates[order], order, start))
        start += len(coordinates)
    rotations = random_rotations(n_rotations, seed=seed)
    for rotation in track(rotations, show=progress, label="spins", total=n_rotations):
        given = np.empty(start, dtype=np.int64)
        for side, tree, coordinates, order, first in searches:
            turn = mirror @ rotation @ mirror.T if side == "right" else rotation
            nearest = tree.query(coordinates @ turn.T, workers=n_threads)[1]
            given[first + order] = first + nearest
        yield given


def spin_test(
    values: ArrayLike,
    maps: ArrayLike,
    spheres: Mapping[str, ArrayLike],
    *,
    n_rotations: int = 1000,
    mirror: ArrayLike = _MIRROR,
    method: str = "pearson",
    seed: int = 0,
    n_threads: int = 1,
    progress: bool = False,
) -> SpinTest:
    """Test the correlation of a map with others by rotating these.

    Parameters
    ----------
    values : array of shape (n_left + n_right,)
        The left hemisphere's vertices, then the right's. NaN where there is no value, as at the
        medial wall.
    maps : array of shape (n_maps, n_left + n_right) or (n_left + n_right,)
        To be rotated. Where NaN comes to lie, or where the map would be given values from, is
        left out of that rotation's correlation.
    spheres : dict
        As of `spun_vertices`.
    n_rotations : int
    mirror : array of shape (3, 3)
        Of the left sphere to the right one, as of `mirror_of_spheres`.
    method : {"pearson", "spearman"}
        Of the correlation; ranks are those of the whole map.
    seed, n_threads : int
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If shapes do not fit, values are infinite, or a map covers less than half of a sphere, so
        that what is left after a rotation would be compared with little or nothing.
    """
    check_choice("method", method, ("pearson", "spearman"))
    n_rotations = check_count("n_rotations", n_rotations)
    sides = _check_spheres(spheres)
    x = np.asarray(values, dtype=float)
    maps = np.atleast_2d(np.asarray(maps, dtype=float))
    sizes = [len(coordinates) for coordinates in sides.values()]
    for name, array in (("values", x[None] if x.ndim == 1 else x), ("maps", maps)):
        _check_maps(name, array, sizes)
    if method == "spearman":
        from scipy.stats import rankdata

        x, maps = (rankdata(a, axis=-1, nan_policy="omit") for a in (x, maps))
    compare = _Comparison(x, maps)
    r, n = compare(None)
    null, n_compared = (
        np.empty((n_rotations, len(maps))),
        np.empty((n_rotations + 1, len(maps)), int),
    )
    n_compared[0] = n
    options = dict(mirror=mirror, seed=seed, n_threads=n_threads, progress=progress)
    spins = spun_vertices(sides, n_rotations, **options)
    for k, given in enumerate(spins):
        null[k], n_compared[k + 1] = compare(given)
    p_values = (1 + (np.abs(null) >= np.abs(r)).sum(0)) / (1 + n_rotations)
    return SpinTest(r, np.where(np.isnan(r), np.nan, p_values), null, n_compared)


class _Comparison:
    """Correlations of one map with others, over the vertices that both have."""

    def __init__(self, x, maps):
        known = np.isfinite(x)
        x = np.where(known, x - x[known].mean(), 0)
        # Near their means sums of squares keep their digits; what is constant becomes exactly 0.
        self.maps = (
            maps - (np.nanmin(maps, 1, keepdims=True) + np.nanmax(maps, 1, keepdims=True)) / 2
        )
        self.x, self.moments = x, np.stack([known, x, x * x]).astype(float)

    def __call__(self, given):
        found = [self._correlate(own if given is None else own[given]) for own in self.maps]
        return tuple(np.array(part) for part in zip(*found, strict=True))

    def _correlate(self, y):
        there = np.isfinite(y)
        y = np.where(there, y, 0)
        n, x_sum, xx = self.moments @ there.astype(float)
        y_sum, xy = self.moments[:2] @ y
        yy = self.moments[0] @ (y * y)
        spread = (xx - x_sum**2 / n) * (yy - y_sum**2 / n)
        return (xy - x_sum * y_sum / n) / np.sqrt(spread) if spread > 0 else np.nan, int(n)


def _check_mirror(mirror):
    mirror = np.asarray(mirror, dtype=float)
    # Neither stretches nor shears.
    if mirror.shape != (3, 3) or not np.allclose(mirror @ mirror.T, np.eye(3), atol=1e-6):
        raise InputError(
            "mirror",
            expected="an orthogonal matrix (3, 3)",
            got=f"shape {mirror.shape}" if mirror.shape != (3, 3) else f"{mirror.tolist()}",
            fix="Take that of mirror_of_spheres.",
        )
    return mirror


def _check_spheres(spheres):
    """Return the hemispheres' coordinates on spheres of radius 1, left before right."""
    sides = {}
    for side in _SIDES:
        if side in spheres:
            coordinates = np.asarray(spheres[side], dtype=float)
            if coordinates.ndim != 2 or coordinates.shape[1:] != (3,):
                raise InputError(
                    f"spheres[{side!r}]",
                    expected="coordinates (n_vertices, 3)",
                    got=f"shape {coordinates.shape}",
                )
            radius = np.linalg.norm(coordinates, axis=1)
            if not np.ptp(radius) < 0.01 * radius.mean():
                raise InputError(
                    f"spheres[{side!r}]",
                    expected="vertices on a sphere around the origin",
                    got=f"distances of {radius.min():g} to {radius.max():g} from it",
                    fix="Take the surface 'sphere', not a cortical one.",
                )
            sides[side] = coordinates / radius[:, None]
    if not sides or set(spheres) - set(_SIDES):
        raise InputError("spheres", expected="the keys 'left' and 'right'", got=str(list(spheres)))
    return sides


def _check_maps(name, maps, sizes):
    if maps.ndim != 2 or maps.shape[1] != sum(sizes) or np.isinf(maps).any():
        raise InputError(
            name,
            expected=f"a value or NaN for each of {sum(sizes)} vertices",
            got="infinity" if maps.ndim == 2 and np.isinf(maps).any() else f"shape {maps.shape}",
        )
    for part in np.split(maps, np.cumsum(sizes)[:-1], axis=1):
        covered = np.isfinite(part).mean(axis=1).min()
        if covered < _LEAST_COVERED:
            raise InputError(
                name,
                expected="values at half of each sphere's vertices or more",
                got=f"{covered:.0%}",
                fix="A part of cortex cannot be compared with rotations of itself.",
            )
