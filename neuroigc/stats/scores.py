"""How well predictions agree with what was measured: r and R2, with intervals and ceilings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from neuroigc._validation import InputError, check_same_length
from neuroigc.stats.ceilings import correlation_ceiling

__all__ = [
    "Scores",
    "correlation_interval",
    "correlation_scores",
    "normalised_correlation",
]

# Numbers of outputs x clusters at once.
_NUMBERS = 2**22
# Correlations of 1 have no z.
_MOST_R = 1 - 1e-12


@dataclass(frozen=True)
class Scores:
    """Agreement of predictions and targets, for each output.

    Attributes
    ----------
    r : array of shape (n_outputs,)
        Pearson's correlation. NaN where predictions or targets do not vary.
    r_interval : array of shape (n_outputs, 2)
    r2 : array of shape (n_outputs,)
        One minus the mean squared error over the variance of the targets: unlike r squared it
        punishes wrong scale and offset, and may be negative.
    r2_interval : array of shape (n_outputs, 2)
    n_clusters : int
        Samples, or groups of them, that are independent.
    """

    r: np.ndarray
    r_interval: np.ndarray
    r2: np.ndarray
    r2_interval: np.ndarray
    n_clusters: int


def correlation_interval(
    correlation: ArrayLike, n_samples: int, *, level: float = 0.95
) -> np.ndarray:
    """Return Fisher's interval of a correlation (Fisher 1921).

    Right where both variables are normal and samples independent; `correlation_scores` needs
    neither, but the samples.

    Parameters
    ----------
    correlation : array of any shape
    n_samples : int
        More than three.
    level : float

    Returns
    -------
    array of shape (..., 2)

    Raises
    ------
    InputError
        If there are too few samples, or a value is no correlation.
    """
    if not n_samples > 3:
        raise InputError("n_samples", expected="more than 3", got=repr(n_samples))
    if not 0 < level < 1:
        raise InputError("level", expected="a number between 0 and 1", got=repr(level))
    r = np.asarray(correlation, dtype=float)
    if (np.abs(r) > 1).any():
        raise InputError(
            "correlation", expected="values from -1 to 1", got=f"{np.nanmax(np.abs(r)):g}"
        )
    z = np.arctanh(np.clip(r, -_MOST_R, _MOST_R))
    reach = ndtri((1 + level) / 2) / np.sqrt(n_samples - 3)
    return np.tanh(np.stack([z - reach, z + reach], -1))


def correlation_scores(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Scores:
    """Score predictions of each output, with intervals from leaving out samples in turn.

    Intervals are Student's, around arctanh r and around log(1 - R2), whose errors are the
    jackknife's and known as well as the spread of squares tells (Satterthwaite 1946): heavy tails
    and curved relations, which Fisher's interval does not know, are allowed for.

    Parameters
    ----------
    predictions, targets : arrays of shape (n_samples, n_outputs) or (n_samples,)
    clusters : array of shape (n_samples,), optional
        Labels of samples that are not independent, such as the image of repeated trials; they
        are left out together.
    level : float
        Of the intervals.

    Raises
    ------
    InputError
        If shapes differ, values are not finite, or there are fewer than four clusters.
    """
    f, y = (np.asarray(a) for a in (predictions, targets))
    n = check_same_length(predictions=f, targets=y, clusters=clusters)
    if f.shape != y.shape or f.ndim not in (1, 2):
        raise InputError(
            "predictions and targets",
            expected="arrays (n_samples, n_outputs) of one shape",
            got=f"shapes {f.shape} and {y.shape}",
        )
    for name, values in (("predictions", f), ("targets", y)):
        if not np.isfinite(values).all():
            raise InputError(name, expected="finite numbers", got="NaN or infinity")
    if not 0 < level < 1:
        raise InputError("level", expected="a number between 0 and 1", got=repr(level))
    if clusters is not None and np.ndim(clusters) != 1:
        raise InputError(
            "clusters", expected="one label for each sample", got=f"shape {np.shape(clusters)}"
        )
    if not f.size:
        raise InputError("predictions", expected="at least one output", got=f"shape {f.shape}")
    # Whole numbers of few bits, and half precision, overflow in squares.
    f, y = (a if a.dtype.kind == "f" and a.itemsize > 2 else a.astype(float) for a in (f, y))
    labels = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(labels)
    if len(sizes) < 4:
        raise InputError(
            "clusters" if clusters is not None else "targets",
            expected="at least four independent samples",
            got=str(len(sizes)),
        )
    f, y = f.reshape(n, -1), y.reshape(n, -1)
    order = np.argsort(labels, kind="stable")
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    step = max(1, _NUMBERS // n)
    parts = [
        _score(f[order, k : k + step], y[order, k : k + step], starts, sizes, level)
        for k in range(0, f.shape[1], step)
    ]
    return Scores(*(np.concatenate(part) for part in zip(*parts, strict=True)), len(sizes))


def _score(f, y, starts, sizes, level):
    """Score some outputs, whose samples are in the order of their clusters."""
    error = (f - y) ** 2
    # Near their means sums of squares keep their digits.
    f, y = f - f.mean(0, dtype=float), y - y.mean(0, dtype=float)
    moments = [f, y, f * f, y * y, f * y, error]
    sums = np.stack([np.add.reduceat(moment, starts, axis=0) for moment in moments])
    whole = sums.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # What is exactly constant has rounding errors for a variance.
        constant = (np.ptp(f, axis=0) == 0) | (np.ptp(y, axis=0) == 0)
        r, unexplained = _agreement(whole, len(f))
        r[constant] = np.nan
        # Leave out each cluster in turn.
        without = _agreement(whole[:, None] - sums, (len(f) - sizes)[:, None])
        z = np.arctanh(np.clip(r, -_MOST_R, _MOST_R))
        z_without = np.arctanh(np.clip(without[0], -_MOST_R, _MOST_R))
        reach = _jackknife_reach(z_without, level)
        log_reach = _jackknife_reach(np.log(without[1]), level)
        ends = unexplained[:, None] * np.exp(log_reach[:, None] * [1, -1])
    return r, np.tanh(z[:, None] + reach[:, None] * [-1, 1]), 1 - unexplained, 1 - ends


def _agreement(sums, n):
    """Return r, and the squared error over the variance, from sums over n samples."""
    f, y, ff, yy, fy, error = sums
    var_f, var_y, covariance = ff - f * f / n, yy - y * y / n, fy - f * y / n
    return covariance / np.sqrt(var_f * var_y), error / var_y


def _jackknife_reach(left_out, level):
    """Return half the width of Student's interval from values without each cluster."""
    n = len(left_out)
    squares = (left_out - left_out.mean(0)) ** 2 * ((n - 1) / n)
    variance = squares.sum(0)
    free = 2 * variance**2 / np.maximum(n * squares.var(0), np.finfo(float).tiny)
    return stdtrit(np.clip(free, 1, n - 1), (1 + level) / 2) * np.sqrt(variance)


def normalised_correlation(
    correlation: ArrayLike, noise_ceiling: ArrayLike, *, floor: float = 0.05
) -> np.ndarray:
    """Return correlations, or maps that sum to them, as shares of what a perfect model reaches.

    ``r / sqrt(noise ceiling)``. Neither clipped at 1, which noise in both passes by chance, nor
    at 0: a mean or median of clipped values would be biased. Where the ceiling is below
    ``floor``, a ratio would say nothing but noise, and is NaN.

    Parameters
    ----------
    correlation : array of shape (n_outputs, ...)
        Correlations; or maps (n_outputs, *input_shape) of integrated gradient correlation, which
        then sum to the normalised correlation.
    noise_ceiling : array of shape (n_outputs,)
        Share of the targets' variance that can be explained, 0-1; NaN gives NaN.
    floor : float
        Least noise ceiling to divide by.

    Raises
    ------
    InputError
        If shapes do not fit, or the floor is no share of variance.
    """
    values, ceiling = np.asarray(correlation, dtype=float), correlation_ceiling(noise_ceiling)
    if values.shape[: ceiling.ndim] != ceiling.shape or ceiling.ndim != 1:
        raise InputError(
            "correlation and noise_ceiling",
            expected="one ceiling for each output",
            got=f"shapes {values.shape} and {ceiling.shape}",
        )
    if not 0 < floor < 1:
        raise InputError("floor", expected="a share of variance between 0 and 1", got=repr(floor))
    usable = np.where(ceiling**2 >= floor, ceiling, np.nan)
    return values / usable.reshape(-1, *(1,) * (values.ndim - 1))
