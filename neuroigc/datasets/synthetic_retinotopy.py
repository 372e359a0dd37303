"""Invented visual areas with retinotopic maps, placed where a brain has them.

V1, V2, V3 and hV4 are wedges of one log-polar chart around the foveal confluence: a point at
``u`` mm along the calcarine axis and ``v`` mm across it represents

    z = a exp((u + i v) / k) - a,     eccentricity = abs(z),     wedge angle = arg(z)

the inverse of the monopole map ``k log(1 + z / a)`` of cortical magnification (Schwartz 1980;
``a`` = 0.75 degrees of Horton & Hoyt 1991). The wedge angle walks from V1 in the middle through V2
and V3 on both banks, ventral with the upper and dorsal with the lower field, to hV4 behind ventral
V3; polar angle reverses at each border. Three numbers per hemisphere place the chart on the sphere.
Category areas are discs around the coordinates that are usual for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "ATLAS_TABLES",
    "MAX_ECCENTRICITY_DEG",
    "N_VERTICES",
    "PRF_BY_AREA",
    "SPACE",
    "VisualCortex",
    "area_names",
    "make_visual_cortex",
    "mesh_coordinates",
    "visual_mask",
]

SPACE, N_VERTICES = "fsaverage5", 10242
MAX_ECCENTRICITY_DEG = 5.0  # areas are drawn a little beyond the stimulus
MASK_SIZE = 1187  # vertices per hemisphere; NSD's "nsdgeneral" has 37,984 / 16 on both

MAGNIFICATION_MM = 16.5
FOVEAL_CONSTANT_DEG = 0.75
# Widths, in degrees of wedge angle, of half of V1, V2 and V3 and of all of hV4.
WEDGE_WIDTHS = {"V1": 63.5, "V2": 49.6, "V3": 27.4, "hV4": 20.0}
# Longitude and latitude of the fovea on the sphere and direction of the axis (degrees); the right
# hemisphere is mirrored first.
PLACEMENT = {"left": (-96.9, -32.4, 1.3), "right": (-73.9, -39.2, 24.2)}

# Size = slope * eccentricity + intercept (degrees; Kay et al. 2013) and the compressive exponent.
PRF_BY_AREA = {
    "V1": (0.16, 0.5, 0.70),
    "V2": (0.18, 0.5, 0.55),
    "V3": (0.25, 0.5, 0.45),
    "hV4": (0.36, 0.5, 0.35),
}
SIZE_SCATTER = 0.1  # SD of the logarithm

# The release's tables; areas without a disc below stay empty, as some do in real subjects.
ATLAS_TABLES = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
}
# Centre (mm; x without its sign) and radius (mm on the sphere).
CATEGORY_DISCS = {
    "EBA": ((47.0, -74.0, 4.0), 13.0),
    "FBA-1": ((42.0, -56.0, -17.0), 7.0),
    "FBA-2": ((42.0, -45.0, -20.0), 7.0),
    "OFA": ((39.0, -80.0, -10.0), 8.0),
    "FFA-1": ((39.0, -60.0, -16.0), 7.5),
    "FFA-2": ((40.0, -48.0, -19.0), 7.5),
    "OPA": ((33.0, -83.0, 18.0), 10.0),
    "PPA": ((27.0, -46.0, -9.0), 11.0),
    "RSC": ((15.0, -56.0, 10.0), 10.0),
    "OWFA": ((42.0, -74.0, -11.0), 6.5),
    "VWFA-1": ((44.0, -61.0, -12.0), 7.0),
    "VWFA-2": ((45.0, -50.0, -16.0), 7.0),
}

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class VisualCortex:
    """Areas and population receptive fields of one (invented) subject on fsaverage5.

    Attributes
    ----------
    labels : dict of atlas to dict of hemisphere to array of shape (n_vertices,)
        0 where a vertex is in no area of the atlas, else 1-based into ``ATLAS_TABLES``.
    x_deg, y_deg, size_deg : dict of hemisphere to array of shape (n_vertices,)
        pRF centre (x to the right, y up) and size = sigma / sqrt(exponent), degrees of visual
        angle; NaN outside V1 to hV4.
    exponent : dict of hemisphere to array of shape (n_vertices,)
        Exponent of compressive spatial summation; NaN outside V1 to hV4.
    """

    labels: dict[str, dict[str, IntArray]]
    x_deg: dict[str, FloatArray]
    y_deg: dict[str, FloatArray]
    size_deg: dict[str, FloatArray]
    exponent: dict[str, FloatArray]


def make_visual_cortex(rng: np.random.Generator | None = None) -> VisualCortex:
    """Invent the visual areas of the group, or with ``rng`` those of one subject.

    Parameters
    ----------
    rng : numpy.random.Generator, optional
        Displaces the chart by about 2 mm, turns it by about 3 degrees, changes its widths by a few
        percent and scatters pRF sizes, so that maps differ between subjects. Category areas move
        by about 3 mm, and one in ten is missing.
    """
    labels: dict[str, dict[str, IntArray]] = {atlas: {} for atlas in ATLAS_TABLES}
    x, y, size, exponent = ({} for _ in range(4))
    mask = visual_mask() if rng is not None else None
    for hemisphere in PLACEMENT:
        area, eccentricity, elevation = _retinotopy(hemisphere, rng)
        if mask is not None:
            area[~mask[hemisphere]] = 0
        labels["prf-visualrois"][hemisphere] = area
        inside = area > 0
        names = area_names(area)
        m, b, n = (
            np.array([PRF_BY_AREA[name][i] if name else np.nan for name in names]) for i in range(3)
        )
        side = 1 if hemisphere == "left" else -1  # the field across
        elevation = np.deg2rad(np.where(inside, elevation, np.nan))
        x[hemisphere] = side * eccentricity * np.cos(elevation)
        y[hemisphere] = eccentricity * np.sin(elevation)
        size[hemisphere] = m * eccentricity + b
        if rng is not None:
            size[hemisphere] *= np.exp(SIZE_SCATTER * rng.standard_normal(N_VERTICES))
        exponent[hemisphere] = n
        taken = inside.copy()  # no vertex in two areas, so that areas and the rest are a partition
        for atlas, table in ATLAS_TABLES.items():
            if atlas != "prf-visualrois":
                disc = _category_areas(hemisphere, table, rng)
                disc[taken] = 0
                taken |= disc > 0
                if mask is not None:
                    disc[~mask[hemisphere]] = 0
                labels[atlas][hemisphere] = disc
    return VisualCortex(labels, x, y, size, exponent)


@lru_cache(maxsize=1)
def visual_mask() -> dict[str, BoolArray]:
    """Return the vertices of visual cortex at large, as NSD's "nsdgeneral".

    The 1,187 vertices per hemisphere that are nearest to an area of the group: all areas and what
    lies around them.
    """
    from scipy.spatial import cKDTree

    group = make_visual_cortex()
    masks = {}
    for hemisphere in PLACEMENT:
        inside = np.any([labels[hemisphere] > 0 for labels in group.labels.values()], axis=0)
        sphere = mesh_coordinates("sphere", hemisphere)
        distance = cKDTree(sphere[inside]).query(sphere)[0]
        masks[hemisphere] = np.zeros(N_VERTICES, dtype=bool)
        masks[hemisphere][np.argsort(distance, kind="stable")[:MASK_SIZE]] = True
    return masks


def area_names(labels: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Return "V1" … "hV4" for labels of prf-visualrois, ventral and dorsal as one; "" for 0."""
    table = np.array(["", *(name.rstrip("vd") for name in ATLAS_TABLES["prf-visualrois"])])
    return table[np.asarray(labels)]


@lru_cache(maxsize=8)
def mesh_coordinates(mesh: str, hemisphere: str) -> FloatArray:
    """Return the (n_vertices, 3) coordinates of a mesh of fsaverage5 (mm)."""
    from nilearn.datasets import load_fsaverage

    coordinates = load_fsaverage(SPACE)[mesh].parts[hemisphere].coordinates
    return np.asarray(coordinates, dtype=np.float64)


def _retinotopy(
    hemisphere: str, rng: np.random.Generator | None
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return label of prf-visualrois, eccentricity, and angle above the horizontal (degrees)."""
    placement, k = np.array(PLACEMENT[hemisphere]), MAGNIFICATION_MM
    widths = np.array(list(WEDGE_WIDTHS.values()))
    if rng is not None:
        placement = placement + np.array([1.2, 1.2, 3.0]) * rng.standard_normal(3)
        k = k * np.exp(0.04 * rng.standard_normal())
        widths = widths * np.exp(0.04 * rng.standard_normal(4))
    u, v = _chart(hemisphere, placement)
    z = FOVEAL_CONSTANT_DEG * np.expm1((u + 1j * v) / k)
    eccentricity, ventral = np.abs(z), np.rad2deg(np.angle(z)) < 0
    wedge = np.rad2deg(np.abs(np.angle(z)))
    v1, v2, v3, v4 = np.cumsum(widths)
    # Upper field is ventral; horizontal meridian at 0 and v2, vertical at v1 and v3.
    elevation = np.interp(wedge, [0, v1, v2, v3], [0, 90, 0, 90]) * np.where(ventral, 1, -1)
    in_hv4 = ventral & (wedge >= v3)
    elevation[in_hv4] = np.interp(wedge[in_hv4], [v3, v4], [90, -90])
    area = 1 + 2 * np.searchsorted([v1, v2, v3], wedge, side="right") + ~ventral
    on_chart = (np.abs(v) < np.pi * k) & (eccentricity <= MAX_ECCENTRICITY_DEG)
    on_chart &= wedge < np.where(ventral, v4, v3)
    return np.where(on_chart, area, 0), eccentricity, elevation


def _chart(hemisphere: str, placement: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unfold the sphere around the fovea: mm along the calcarine axis and across it, dorsal up.

    An azimuthal equidistant projection: distances from the fovea are true.
    """
    sphere = mesh_coordinates("sphere", hemisphere)
    radius = np.linalg.norm(sphere, axis=1, keepdims=True)
    points = sphere / radius * (np.array([-1.0, 1, 1]) if hemisphere == "right" else 1.0)
    longitude, latitude, turn = np.deg2rad(placement)
    fovea = np.array(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ]
    )
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    north = np.cross(fovea, east)
    along = np.cos(turn) * east + np.sin(turn) * north
    across = np.cross(fovea, along)
    distance = radius[:, 0] * np.arccos(np.clip(points @ fovea, -1, 1))
    direction = np.arctan2(points @ across, points @ along)
    return distance * np.cos(direction), distance * np.sin(direction)


def _category_areas(
    hemisphere: str, table: tuple[str, ...], rng: np.random.Generator | None
) -> IntArray:
    """Return 1-based labels of discs on the sphere; the first area of the table wins."""
    sphere = mesh_coordinates("sphere", hemisphere)
    white = mesh_coordinates("white_matter", hemisphere)
    labels = np.zeros(N_VERTICES, dtype=np.int64)
    side = np.array([-1.0 if hemisphere == "left" else 1.0, 1.0, 1.0])
    for label, name in reversed(list(enumerate(table, start=1))):
        if name not in CATEGORY_DISCS:
            continue
        centre, radius = CATEGORY_DISCS[name]
        point = np.array(centre) * side
        if rng is not None:
            point = point + 1.8 * rng.standard_normal(3)
            radius *= np.exp(0.1 * rng.standard_normal())
            if rng.random() < 0.1:
                continue
        nearest = np.argmin(np.linalg.norm(white - point, axis=1))
        labels[np.linalg.norm(sphere - sphere[nearest], axis=1) <= radius] = label
    return labels
