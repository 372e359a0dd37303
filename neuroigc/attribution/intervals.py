"""Confidence intervals of groups from what each sample does to them.

IGC of a group is a covariance, a U-statistic, over the product of two standard deviations. With
weights w of mean 1 on the samples it is

``IGC(w) = (IGC + mean(w Y)) / sqrt(var_w(f) var_w(y))``,

Y being the samples' influence on the covariance (its first-order term, in the sense of
Hoeffding), f and y the z-scores of predictions and targets. Leaving out a sample (Quenouille,
Tukey) and drawing samples with replacement (Efron) are choices of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["bootstrap_intervals", "jackknife_errors", "symmetric_intervals"]

Array = NDArray[Any]


def weighted_values(values: Array, influences: Array, scores: Array, weights: Array) -> Array:
    """Return groups' values under weights on the samples.

    Parameters
    ----------
    values : array of shape (n_outputs, n_groups)
    influences : array of shape (n_samples, n_outputs, n_groups)
    scores : array of shape (2, n_samples, n_outputs)
    weights : array of shape (n_sets, n_samples)
        Of mean 1 in each set.

    Returns
    -------
    array of shape (n_sets, n_outputs, n_groups)
    """
    n = weights.shape[1]
    covariance = values + (weights @ influences.reshape(n, -1)).reshape(-1, *values.shape) / n
    mean, square = (weights @ power / n for power in (scores, scores**2))
    variance = np.maximum(square - mean**2, np.finfo(float).tiny)
    weighted: Array = covariance / np.sqrt(variance.prod(0))[:, :, None]
    return weighted


def jackknife_errors(values: Array, influences: Array, scores: Array) -> Array:
    """Return standard errors (n_outputs, n_groups) from leaving out each sample in turn."""
    n = len(influences)
    # Weights n / (n - 1) but for one sample's 0, in closed form.
    covariance = values - influences / (n - 1)
    mean, square = (-power / (n - 1) for power in (scores, scores**2 - 1))
    variance = np.maximum(1 + square - mean**2, np.finfo(float).tiny)
    left_out = covariance / np.sqrt(variance.prod(0))[:, :, None]
    errors: Array = np.sqrt((n - 1) * left_out.var(0))
    return errors


def symmetric_intervals(values: Array, errors: Array, n: int, level: float) -> Array:
    """Return Student's intervals (..., 2) around values."""
    reach = stdtrit(n - 1, (1 + level) / 2) * errors
    return np.stack([values - reach, values + reach], -1)


def bootstrap_intervals(
    values: Array, influences: Array, scores: Array, *, level: float, n_resamples: int, seed: int
) -> Array:
    """Return percentile intervals (n_outputs, n_groups, 2) over samples with replacement."""
    rng, n = np.random.default_rng(seed), len(influences)
    drawn = []
    for start in range(0, n_resamples, 200):
        size = min(200, n_resamples - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), size).astype(float)
        drawn.append(weighted_values(values, influences, scores, weights))
    ends = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2], 0)
    return np.moveaxis(ends, 0, -1)
