"""Noise ceilings: how well any model could do, given how noisy the responses are.

Definitions of the Natural Scenes Dataset (Allen et al. 2022): responses are z-scored per session
and vertex, so their variance is 1; the noise variance is that between presentations of one image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._ceilings import explainable_share, ncsnr_from_noise
from neuroigc._validation import InputError

__all__ = ["correlation_ceiling", "ncsnr_from_trials", "noise_ceiling", "reaches_ceiling"]


def ncsnr_from_trials(trials: ArrayLike) -> np.ndarray:
    """Return the noise ceiling signal-to-noise ratio from repeated presentations.

    With ``v^2`` the mean over images of the unbiased variance over an image's trials,
    ``ncsnr = sqrt(max(0, 1 - v^2)) / v``.

    Parameters
    ----------
    trials : (n_images, n_trials, n_vertices) array
        Responses z-scored within session, at least two trials per image (NSD uses three).

    Returns
    -------
    (n_vertices,) array
        Signal SD over noise SD; NaN where a vertex has NaN.

    Raises
    ------
    InputError
        If there are no repeats.
    """
    trials = np.asarray(trials)
    if trials.ndim != 3 or trials.shape[1] < 2:
        raise InputError(
            "trials",
            expected="an array (n_images, n_trials, n_vertices) with two trials or more",
            got=f"shape {trials.shape}",
        )
    return ncsnr_from_noise(trials.var(axis=1, ddof=1, dtype=np.float64).mean(axis=0))


def noise_ceiling(ncsnr: ArrayLike, *, n_repeats: ArrayLike = 1) -> np.ndarray:
    """Return the share of variance that a perfect model explains in averages over repeats.

    ``ncsnr^2 / (ncsnr^2 + mean(1 / n))``, the mean over images with n repeats each.

    Parameters
    ----------
    ncsnr : (n_vertices,) array
        Noise ceiling signal-to-noise ratio; NaN stays NaN.
    n_repeats : int or (n_images,) array
        Trials averaged, the same for all images or each image's own.

    Returns
    -------
    (n_vertices,) array
        Between 0 and 1, in units of R^2 (not of correlation).

    Raises
    ------
    InputError
        If an ncsnr is negative, or there are no repeats.
    """
    ncsnr, n_repeats = np.asarray(ncsnr, dtype=float), np.asarray(n_repeats, dtype=float)
    if (ncsnr < 0).any():
        raise InputError("ncsnr", expected="ratios of 0 or more", got=f"{np.nanmin(ncsnr):g}")
    if n_repeats.size == 0 or not (n_repeats >= 1).all():
        raise InputError(
            "n_repeats", expected="at least one trial per image", got=f"{n_repeats.tolist()}"[:80]
        )
    return explainable_share(ncsnr, n_repeats)


def correlation_ceiling(noise_ceiling: ArrayLike) -> np.ndarray:
    """Return the correlation that a perfect model reaches: the root of the noise ceiling.

    Parameters
    ----------
    noise_ceiling : (n_vertices,) array
        Shares of variance, 0-1. Files that hold percent must be divided by 100.

    Raises
    ------
    InputError
        If a value lies outside 0-1.
    """
    ceiling = np.asarray(noise_ceiling, dtype=float)
    if ((ceiling < 0) | (ceiling > 1)).any():
        raise InputError(
            "noise_ceiling",
            expected="shares of variance between 0 and 1",
            got=f"values from {np.nanmin(ceiling):g} to {np.nanmax(ceiling):g}",
            fix="Divide percent by 100.",
        )
    return np.sqrt(ceiling)


def reaches_ceiling(
    correlation: ArrayLike, noise_ceiling: ArrayLike, *, fraction: float = 0.5
) -> np.ndarray:
    """Say which vertices a model predicts well, given what can be predicted.

    Parameters
    ----------
    correlation : (n_vertices,) array
        Of predicted and measured responses.
    noise_ceiling : (n_vertices,) array
        Shares of variance, 0-1, of the same responses.
    fraction : float
        Of the correlation ceiling; half by default.

    Returns
    -------
    (n_vertices,) array of bool
        True where ``correlation >= fraction * sqrt(noise_ceiling)``. False where either is NaN,
        or where the ceiling is 0 and there is nothing to reach.

    Raises
    ------
    InputError
        If the two differ in shape.
    """
    correlation, ceiling = np.asarray(correlation), correlation_ceiling(noise_ceiling)
    if correlation.shape != ceiling.shape:
        raise InputError(
            "correlation and noise_ceiling",
            expected="one value per vertex in both",
            got=f"shapes {correlation.shape} and {ceiling.shape}",
        )
    return (correlation >= fraction * ceiling) & (ceiling > 0)
