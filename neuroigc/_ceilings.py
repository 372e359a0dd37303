"""The two formulas of noise ceilings, for those who read them and those who estimate them.

Definitions of the Natural Scenes Dataset (Allen et al. 2022, doi 10.1038/s41593-021-00962-x), for
responses of variance 1, as those z-scored per session are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["explainable_share", "ncsnr_from_noise"]

FloatArray = npt.NDArray[np.float64]


def ncsnr_from_noise(noise_variance: npt.ArrayLike) -> FloatArray:
    """Return signal SD over noise SD, ``sqrt(max(0, 1 - v^2)) / v`` for noise of variance v^2."""
    noise = np.asarray(noise_variance, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.sqrt(np.maximum(0.0, 1.0 - noise) / noise)


def explainable_share(ncsnr: npt.ArrayLike, n_repeats: npt.ArrayLike) -> FloatArray:
    """Return the share of variance of averages that a perfect model explains.

    ``ncsnr^2 / (ncsnr^2 + mean(1 / n))``, the mean over images with n trials each.
    """
    noise = (1 / np.asarray(n_repeats, dtype=np.float64)).mean()
    with np.errstate(divide="ignore"):
        return 1 / (1 + noise / np.asarray(ncsnr, dtype=np.float64) ** 2)
