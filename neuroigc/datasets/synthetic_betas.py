"""Single-trial responses of invented subjects: signal, noise, and what changes between sessions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuroigc.datasets._paths import HEMISPHERES
from neuroigc.datasets.synthetic_responses import SeeingCortex
from neuroigc.datasets.synthetic_retinotopy import (
    N_VERTICES,
    VisualCortex,
    area_names,
    mesh_coordinates,
    visual_mask,
)

__all__ = ["HEMISPHERES", "MEDIAN_NCSNR", "SMOOTH_SHARE", "Subject"]

# Median signal-to-noise ratio of single trials in NSD's eight subjects; relative to it the areas,
# and the spread within an area (SD of the logarithm).
MEDIAN_NCSNR = (0.490, 0.510, 0.431, 0.392, 0.542, 0.439, 0.371, 0.323)
NCSNR_BY_AREA = {"V1": 1.05, "V2": 1.0, "V3": 1.0, "hV4": 1.15}
NCSNR_ELSEWHERE, NCSNR_SCATTER = 0.75, 0.3
# Noise: share of its variance that is smooth over cortex, and how smooth (mm, number of bumps).
SMOOTH_SHARE, SMOOTH_WIDTH_MM, N_BUMPS = 0.15, 25.0, 100
# Percent signal change: SD of a vertex, its mean in SDs, and what changes from session to session.
RESPONSE_SD, RESPONSE_SD_SCATTER, RESPONSE_MEAN = 1.5, 0.3, 0.8
SESSION_GAIN_SCATTER, SESSION_OFFSET = 0.15, 0.4
# Subjects whose last session misses ventral vertices (left, right), in NSD's proportion.
N_MISSING = {6: (2, 20), 8: (2, 1)}

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """All that makes the single-trial responses of one subject; left hemisphere first.

    Attributes
    ----------
    number : int
        1-based.
    vertices : array of shape (n_signals,)
        The vertices with signal, among those of both hemispheres.
    signals : array of shape (n_images, n_signals)
        Responses without noise to the images that the subject sees; mean 0, SD 1.
    signal_fraction, coverage, response_sd : array of shape (2 * n_surface_vertices,)
        Share of signal in the variance of single trials, share of the pRF that lies on the image,
        SD in percent signal change.
    patterns : list of arrays of shape (n_patterns, n_surface_vertices)
        For each hemisphere the patterns that smooth noise is mixed from.
    """

    number: int
    vertices: IntArray
    signals: FloatArray
    signal_fraction: FloatArray
    coverage: FloatArray
    response_sd: FloatArray
    patterns: list[FloatArray]

    @classmethod
    def make(
        cls,
        number: int,
        cortex: VisualCortex,
        observer: SeeingCortex,
        signals: FloatArray,
        rng: np.random.Generator,
    ) -> Subject:
        """Draw noise ceilings and scales for the responses of ``observer``.

        Parameters
        ----------
        number : int
            1 to 8: whose noise ceiling in NSD.
        cortex : VisualCortex
        observer : SeeingCortex
            Made from ``cortex``.
        signals : array of shape (n_images, n_signals)
            What ``observer`` responded, in any units.
        rng : numpy.random.Generator
        """
        vertices = np.concatenate(
            [observer.vertices[h] + i * N_VERTICES for i, h in enumerate(HEMISPHERES)]
        )
        labels = np.concatenate([cortex.labels["prf-visualrois"][h] for h in HEMISPHERES])
        areas = area_names(labels[vertices])
        ratio = np.array([NCSNR_BY_AREA.get(area, NCSNR_ELSEWHERE) for area in areas])
        ratio *= observer.coverage * np.exp(NCSNR_SCATTER * rng.standard_normal(len(ratio)))
        ratio *= MEDIAN_NCSNR[number - 1] / np.median(ratio)
        fraction, coverage = np.zeros((2, 2 * N_VERTICES), dtype=np.float32)
        fraction[vertices] = ratio**2 / (1 + ratio**2)
        coverage[vertices] = observer.coverage
        scatter = rng.standard_normal(2 * N_VERTICES, dtype=np.float32)
        return cls(
            number,
            vertices,
            (signals - signals.mean(axis=0)) / signals.std(axis=0),
            fraction,
            coverage,
            RESPONSE_SD * np.exp(RESPONSE_SD_SCATTER * scatter),
            [_smooth_patterns(hemisphere, rng) for hemisphere in HEMISPHERES],
        )

    @property
    def ncsnr(self) -> FloatArray:
        """Return signal SD over noise SD of single trials."""
        return np.sqrt(self.signal_fraction / (1 - self.signal_fraction))

    def by_hemisphere(self, name: str) -> dict[str, FloatArray]:
        """Return one of the arrays over both hemispheres, taken apart."""
        return dict(zip(HEMISPHERES, np.split(getattr(self, name), 2), strict=True))

    def measure(
        self, rows: IntArray, rng: np.random.Generator, *, is_last: bool = False
    ) -> dict[str, FloatArray]:
        """Draw the responses of one session.

        Parameters
        ----------
        rows : array of shape (n_trials,)
            Row of ``signals`` that is shown on each trial.
        rng : numpy.random.Generator
        is_last : bool
            In their last session subjects 6 and 8 miss some vertices (NaN).

        Returns
        -------
        dict of hemisphere to array of shape (n_surface_vertices, n_trials)
            Percent signal change.
        """
        betas = rng.standard_normal((len(rows), 2 * N_VERTICES), dtype=np.float32)
        betas *= np.float32(np.sqrt(1 - SMOOTH_SHARE))
        betas += np.float32(np.sqrt(SMOOTH_SHARE)) * self._smooth(len(rows), rng)
        betas *= np.sqrt(1 - self.signal_fraction)
        strength = np.sqrt(self.signal_fraction[self.vertices])
        betas[:, self.vertices] += strength * self.signals[rows]
        # Sessions differ in scale and level, which is why readers standardise each of them.
        gain = np.float32(np.exp(SESSION_GAIN_SCATTER * rng.standard_normal()))
        level = np.where(self.signal_fraction > 0, np.float32(RESPONSE_MEAN), np.float32(0))
        betas += level + np.float32(SESSION_OFFSET) * self._smooth(1, rng)
        betas *= gain * self.response_sd
        if is_last and self.number in N_MISSING:
            betas[:, _missing_vertices(N_MISSING[self.number])] = np.nan
        return dict(zip(HEMISPHERES, np.split(betas.T, 2), strict=True))

    def _smooth(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw (n, 2 * N_VERTICES) patterns that are smooth over cortex, of SD 1."""
        weights = rng.standard_normal((2, n, N_BUMPS), dtype=np.float32)
        return np.concatenate([w @ b for w, b in zip(weights, self.patterns, strict=True)], axis=1)


def _smooth_patterns(hemisphere: str, rng: np.random.Generator) -> FloatArray:
    sphere = mesh_coordinates("sphere", hemisphere)
    centres = sphere[rng.choice(N_VERTICES, N_BUMPS, replace=False)]
    squared = ((centres[:, None] - sphere) ** 2).sum(axis=-1)
    bumps = np.exp(-0.5 * squared / SMOOTH_WIDTH_MM**2)
    return (bumps / np.linalg.norm(bumps, axis=0)).astype(np.float32)


def _missing_vertices(counts: tuple[int, int]) -> IntArray:
    """Return the lowest vertices of the visual mask, where the signal drops out."""
    missing = []
    for i, (hemisphere, count) in enumerate(zip(HEMISPHERES, counts, strict=True)):
        inside = np.flatnonzero(visual_mask()[hemisphere])
        height = mesh_coordinates("white_matter", hemisphere)[inside, 2]
        missing.append(inside[np.argsort(height, kind="stable")[:count]] + i * N_VERTICES)
    return np.concatenate(missing)
