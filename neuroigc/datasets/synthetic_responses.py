"""How the invented cortex sees: local contrast, pooled and compressed.

Compressive spatial summation on contrast energy (Kay et al. 2013): a vertex pools the local
contrast of its preferred spatial frequencies over a Gaussian, divides by a power of the contrast of
the whole scene, and compresses the result,

    response = (sum_b w_b sum_xy G(x, y) C_b(x, y) / M^p)^n + gain * (size of its object) .

Without the division (V1) responses follow contrast; with nearly all of it (hV4) what is left is how
contrast is spread over places and spatial frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuroigc.datasets.synthetic_images import CATEGORIES
from neuroigc.datasets.synthetic_retinotopy import VisualCortex, area_names

__all__ = ["BANDS_CPD", "EXTENT_DEG", "SeeingCortex", "grid_degrees", "local_contrast"]

EXTENT_DEG = 8.4
GRID = 48  # contrast maps have this many pixels a side
BANDS_CPD = (0.5, 1.0, 2.0)
BANDWIDTH_OCTAVES = 0.5  # SD of a band on the axis of log2 frequency
TUNING_OCTAVES = 0.7  # SD of a vertex's tuning
# Preferred spatial frequency in the fovea (cycles per degree), strength of normalisation. Category
# areas pool the whole scene, and prefer what is usual for them: places fine, faces coarse.
PREFERRED_CPD = {"V1": 2.2, "V2": 1.6, "V3": 1.2, "hV4": 0.9}
CATEGORY_CPD = {"bodies": 0.6, "faces": 0.7, "places": 2.8, "words": 2.0}
NORMALISATION = {"V1": 0.0, "V2": 0.6, "V3": 0.7, "hV4": 0.8}
CATEGORY_NORMALISATION, CATEGORY_EXPONENT, CATEGORY_GAIN = 0.8, 0.3, 0.3

FloatArray = npt.NDArray[np.float32]


def local_contrast(grey: FloatArray, *, extent_deg: float = EXTENT_DEG) -> FloatArray:
    """Return the local contrast of images in three bands of spatial frequency.

    The amplitude of the monogenic signal (Felsberg & Sommer 2001): a band and its two Riesz
    transforms, so that contrast is smooth where the image has edges and gratings.

    Parameters
    ----------
    grey : array of shape (n_images, size, size)
        Grey levels, 0..1.
    extent_deg : float
        Side of the images in degrees of visual angle.

    Returns
    -------
    array of shape (n_images, n_bands, grid, grid)
        In units of grey levels; ``grid`` is 48, or ``size`` if that is smaller.
    """
    from scipy import fft

    size = grey.shape[-1]
    grid, margin = min(GRID, size), size // 8
    # Mirrored margins keep one border of the image from leaking into the opposite one.
    padded = np.pad(grey, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    side, coarse = size + 2 * margin, grid + 2 * round(margin * grid / size)
    keep = np.concatenate([np.arange(coarse // 2), np.arange(-(coarse // 2) + 1, 0)])
    # Keeping the low frequencies only is sampling on the coarse grid, without aliasing.
    spectrum = fft.fft2(padded)[:, keep[:, None], keep] * np.float32((coarse / side) ** 2)
    fy, fx = keep[:, None] * size / (extent_deg * side), keep * size / (extent_deg * side)
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1
    riesz = ((fx + 1j * fy) / frequency).astype(np.complex64)
    inside = slice((coarse - grid) // 2, (coarse - grid) // 2 + grid)
    places = np.ix_(range(len(grey)), keep, keep)
    maps = np.empty((len(grey), len(BANDS_CPD), grid, grid), dtype=np.float32)
    for b, centre in enumerate(BANDS_CPD):
        octaves = np.log2(frequency / centre) / BANDWIDTH_OCTAVES
        band = spectrum * np.exp(-0.5 * octaves**2).astype(np.float32)
        band[:, 0, 0] = 0
        energy = 0
        for signal in (band, band * riesz):
            whole = np.zeros((len(grey), coarse, coarse), dtype=np.complex64)
            whole[places] = signal
            energy = energy + np.abs(fft.ifft2(whole)[:, inside, inside]) ** 2
        maps[:, b] = np.sqrt(energy)
    return maps


def grid_degrees(grid: int, size: int, *, extent_deg: float = EXTENT_DEG) -> FloatArray:
    """Return the x coordinate of the columns of a contrast map (degrees); y is its negative.

    The samples stand on every ``size / grid``-th pixel centre of the image.
    """
    return (np.arange(grid) / grid + 0.5 / size - 0.5).astype(np.float32) * np.float32(extent_deg)


@dataclass(frozen=True)
class SeeingCortex:
    """Responses without noise of one subject's vertices in V1 to hV4 and the category areas.

    Attributes
    ----------
    vertices : dict of hemisphere to array of int
        Columns of the responses: those of the left hemisphere, then those of the right.
    pooling : array of shape (grid * grid, n_vertices)
        Gaussians that sum to one over the whole plane; uniform for category areas.
    tuning : array of shape (n_bands, n_vertices)
        Weights of the bands, which sum to one.
    normalisation, exponent : array of shape (n_vertices,)
    selectivity : array of shape (n_categories, n_vertices)
        0 or 1; a vertex may belong to areas of several categories.
    """

    vertices: dict[str, npt.NDArray[np.int64]]
    pooling: FloatArray
    tuning: FloatArray
    normalisation: FloatArray
    exponent: FloatArray
    selectivity: FloatArray

    @classmethod
    def of(cls, cortex: VisualCortex, *, image_size: int) -> SeeingCortex:
        """Prepare the vertices of ``cortex`` for images of ``image_size`` pixels a side."""
        vertices = {
            hemisphere: np.flatnonzero(
                np.any([labels[hemisphere] for labels in cortex.labels.values()], axis=0)
            )
            for hemisphere in cortex.x_deg
        }

        def gather(values: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
            return np.concatenate([values[h][index] for h, index in vertices.items()])

        names = area_names(gather(cortex.labels["prf-visualrois"]))
        seeing = names != ""
        x, y, size, exponent = (
            np.where(seeing, gather(values), 1.0)
            for values in (cortex.x_deg, cortex.y_deg, cortex.size_deg, cortex.exponent)
        )
        degrees = grid_degrees(min(GRID, image_size), image_size)
        variance = exponent * size**2  # sigma squared
        across, up = (
            np.exp(-0.5 * (sign * degrees[:, None] - centre) ** 2 / variance)
            for sign, centre in ((1, x), (-1, y))
        )
        area = (degrees[1] - degrees[0]) ** 2 / (2 * np.pi * variance)
        pooling = (up[:, None] * across).reshape(-1, len(x)) * area
        pooling[:, ~seeing] = 1 / len(pooling)
        selectivity = np.stack([gather(cortex.labels[f"floc-{name}"]) > 0 for name in CATEGORIES])
        # Logarithm of preferred frequency; a vertex in areas of two categories prefers their mean.
        preferred = np.log2([PREFERRED_CPD.get(name, 1.0) for name in names])
        preferred = preferred - np.log2(1 + 0.5 * np.hypot(x, y))
        wanted = np.log2([CATEGORY_CPD[name] for name in CATEGORIES]) @ selectivity
        preferred[~seeing] = (wanted / np.maximum(selectivity.sum(axis=0), 1))[~seeing]
        octaves = np.subtract.outer(np.log2(BANDS_CPD), preferred)
        tuning = np.exp(-0.5 * (octaves / TUNING_OCTAVES) ** 2)
        normalisation = [NORMALISATION.get(name, CATEGORY_NORMALISATION) for name in names]
        return cls(
            vertices,
            pooling.astype(np.float32),
            (tuning / tuning.sum(axis=0)).astype(np.float32),
            np.array(normalisation, dtype=np.float32),
            np.where(seeing, exponent, CATEGORY_EXPONENT).astype(np.float32),
            selectivity.astype(np.float32),
        )

    @property
    def coverage(self) -> FloatArray:
        """Share of each vertex's pRF that lies on the image."""
        return np.minimum(self.pooling.sum(axis=0), 1)

    def respond(self, contrast: FloatArray, categories: FloatArray) -> FloatArray:
        """Return the responses to images.

        Parameters
        ----------
        contrast : array of shape (n_images, n_bands, grid, grid)
            From :func:`local_contrast`.
        categories : array of shape (n_images, n_categories)
            Size of the object of each category.

        Returns
        -------
        array of shape (n_images, n_vertices)
            In arbitrary units.
        """
        n_images, n_bands = contrast.shape[:2]
        pooled = (contrast.reshape(n_images * n_bands, -1) @ self.pooling).reshape(
            n_images, n_bands, -1
        )
        scene = contrast.mean(axis=(1, 2, 3))[:, None]
        drive = (pooled * self.tuning).sum(axis=1) / scene**self.normalisation
        return drive**self.exponent + CATEGORY_GAIN * categories @ self.selectivity
