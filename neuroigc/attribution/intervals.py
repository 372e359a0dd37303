"""Confidence intervals of groups from what each sample does to them.

IGC of a group is a covariance, a V-statistic of pairs, over the product of two standard
deviations. Under weights w of mean 1 on the samples, with u = w - 1, the covariance V becomes

``V(w) = V + mean(u Y) + sum_ij u_i u_j h_ij / n^2``,

Y being the samples' influence (twice the first-order term in the sense of Hoeffding 1948) and h
the degenerate rest of the pairs. A pair of a sample with itself contributes nothing, so the
diagonal of h is known: ``h_ii = -(V + Y_i)``. What is left out is off the diagonal, of order 1/n
and of mean zero. Leaving out a sample (Quenouille 1956, Tukey 1958) needs the diagonal alone and
is exact; drawing samples with replacement (Efron 1979) is exact to first order and in the mean.
Both are done within strata, whose samples alone are compared with each other, with the pooled
covariance in the place of each stratum's in the small terms.

Y comes from a finite number of pairs and points, whose noise is part of its spread. It is left
there: a pair's noise is counted for both its samples, so it adds twice its own variance, once of
which the value has indeed. Intervals at few gradients are therefore wider, as they should be, and
rather a little too wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

__all__ = ["bootstrap_intervals", "jackknife_errors", "leave_one_out", "symmetric_intervals"]

Array = NDArray[Any]

_TINY = np.finfo(float).tiny
# Resamples at once.
_BATCH = 200


def leave_one_out(values: Array, influences: Array, scores: Array, strata: Array) -> Array:
    """Return groups' values without each sample in turn, (n_samples, n_outputs, n_groups).

    Exact if there is one stratum and the influences are.

    Parameters
    ----------
    values : array of shape (n_outputs, n_groups)
    influences : array of shape (n_samples, n_outputs, n_groups)
        Of the samples on the covariances, in units of the values; of mean 0 in each stratum.
    scores : array of shape (2, n_samples, n_outputs)
        z-scores of predictions and targets, centred in each stratum.
    strata : array of shape (n_samples,)
        Numbers of the strata, from 0 on.
    """
    n, sizes = len(strata), np.bincount(strata)[strata]
    # What a sample takes away with it, its effect on the mean included.
    share = (sizes / (sizes - 1))[:, None]
    covariance = n * values - share[..., None] * (values + influences)
    variance = np.maximum(n - share * scores**2, _TINY)
    left_out: Array = covariance / np.sqrt(variance.prod(0))[..., None]
    return left_out


def jackknife_errors(values: Array, influences: Array, scores: Array, strata: Array) -> Array:
    """Return standard errors (n_outputs, n_groups) from leaving out each sample in turn.

    Parameters
    ----------
    values, influences, scores, strata
        As for `leave_one_out`.
    """
    deviations = _deviations(leave_one_out(values, influences, scores, strata), strata)
    sizes = np.bincount(strata)[strata][:, None, None]
    errors: Array = np.sqrt(((sizes - 1) / sizes * deviations**2).sum(0))
    return errors


def symmetric_intervals(values: Array, errors: Array, n_free: int, level: float) -> Array:
    """Return Student's intervals (..., 2) around values, of errors of ``n_free`` degrees."""
    reach = stdtrit(max(n_free, 1), (1 + level) / 2) * errors
    return np.stack([values - reach, values + reach], -1)


def weighted_values(
    values: Array, influences: Array, scores: Array, strata: Array, weights: Array
) -> Array:
    """Return groups' values under weights on the samples, (n_sets, n_outputs, n_groups).

    Parameters
    ----------
    values, influences, scores, strata
        As for `leave_one_out`.
    weights : array of shape (n_sets, n_samples)
        Of mean 1 in each stratum.
    """
    n, flat = len(strata), influences.reshape(len(strata), -1)
    counts = np.bincount(strata)
    # Per stratum, sums of weighted scores over the root of its size.
    members = np.eye(len(counts))[strata] / np.sqrt(counts)
    diagonal = (weights - 1) ** 2 / counts[strata]
    covariance = (weights @ flat - diagonal @ flat).reshape(-1, *values.shape) / n
    covariance += values * (1 - diagonal.sum(1) / n)[:, None, None]
    variance = []
    for z in scores:
        sums = np.einsum("wn,nv,ns->wvs", weights, z, members, optimize=True)
        variance.append(np.maximum((weights @ z**2 - (sums**2).sum(-1)) / n, _TINY))
    weighted: Array = covariance / np.sqrt(variance[0] * variance[1])[..., None]
    return weighted


def bootstrap_intervals(
    values: Array,
    influences: Array,
    scores: Array,
    strata: Array,
    *,
    level: float,
    n_resamples: int,
    seed: int,
) -> Array:
    """Return BCa intervals (n_outputs, n_groups, 2) over samples with replacement.

    Plain percentiles leave out skewness and are too narrow, like normal intervals with standard
    deviations over n. The ends are therefore taken at percentiles corrected for median bias and
    acceleration (BCa; Efron 1987), the latter from the jackknife, and begin from Student's
    quantile and n - 1 (expanded percentiles; Hesterberg 2015).

    Parameters
    ----------
    values, influences, scores, strata
        As for `leave_one_out`.
    level : float
    n_resamples, seed : int
    """
    data = values, influences, scores, strata
    rng, n, sizes = np.random.default_rng(seed), len(strata), np.bincount(strata)
    drawn = np.empty((n_resamples, *values.shape))
    weights = np.empty((_BATCH, n))
    for start in range(0, n_resamples, _BATCH):
        stop = min(start + _BATCH, n_resamples)
        for stratum, size in enumerate(sizes):
            equal = np.full(size, 1 / size)
            weights[:, strata == stratum] = rng.multinomial(size, equal, _BATCH)
        drawn[start:stop] = weighted_values(*data, weights)[: stop - start]
    below = ((drawn < values).mean(0) + (drawn <= values).mean(0)) / 2
    bias = ndtri(np.clip(below, 1 / (2 * n_resamples), 1 - 1 / (2 * n_resamples)))
    deviations = -_deviations(leave_one_out(*data), strata)
    spread = np.maximum((deviations**2).sum(0), _TINY)
    acceleration = (deviations**3).sum(0) / (6 * spread**1.5)
    n_free = max(n - len(sizes), 1)
    reach = np.sqrt(n / n_free) * stdtrit(n_free, (1 + level) / 2)
    ends = []
    drawn.sort(0)
    for z in (-reach, reach):
        shifted = bias + z
        chance = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 0.1))
        position = chance * (n_resamples - 1)
        lower = np.floor(position).astype(int)
        upper = np.minimum(lower + 1, n_resamples - 1)
        one, other = (np.take_along_axis(drawn, i[None], 0)[0] for i in (lower, upper))
        ends.append(one + (position - lower) * (other - one))
    return np.stack(ends, -1)


def _deviations(left_out: Array, strata: Array) -> Array:
    """Subtract the mean of each stratum."""
    deviations = left_out.copy()
    for stratum in range(int(strata.max()) + 1):
        deviations[strata == stratum] -= deviations[strata == stratum].mean(0)
    return deviations
