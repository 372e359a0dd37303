"""Confidence intervals of groups from what each sample does to them.

IGC of a group is a covariance, a V-statistic of pairs, over the product of two standard
deviations. Under weights w of mean 1 on the samples, with u = w - 1, the covariance V becomes

``V(w) = V + mean(u Y) + sum_ij u_i u_j h_ij / n^2``,

Y being the samples' influence (twice the first-order term in the sense of Hoeffding 1948) and h
the degenerate rest of the pairs. With z the z-scores of the targets and M the samples' mean
attributions (of mean 0, over the predictions' standard deviation), it is
``h_ij = -(z_i M_j + z_j M_i) / 2`` where a pair's attribution is the difference of its samples':
for all inputs together and for given baselines. Else there is a rest, whose diagonal is known
nevertheless, for a pair of a sample with itself contributes nothing: ``h_ii = -(V + Y_i)``.
Leaving out a sample (Quenouille 1956, Tukey 1958) needs no more and is exact. Drawing samples
with replacement (Efron 1979) leaves out the rest's part off the diagonal, of order 1/n and mean 0.
Both are done within strata, whose samples alone are compared with each other.

What leaving out a sample changes is a product, of a target and an attribution at least, and so
its square has heavy tails even where samples are normal: the variance is known no better than
from a fraction of n normal values. The degrees of freedom of Student's quantile are therefore
those that the spread of the squares tells (Satterthwaite 1946). With n - 1 of them, intervals of
100 skewed or heavy-tailed samples covered too little; what skewness does was measured to be the
lesser part, and is left (``tests/benchmarks/RESULTS.md``).

Y comes from a finite number of pairs and points, whose noise is part of its spread. It is left
there: a pair's noise is counted for both its samples, so it adds twice its own variance, once of
which the value has indeed. Intervals at few gradients are therefore wider, as they should be, and
rather a little too wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

__all__ = [
    "GroupData",
    "bootstrap_intervals",
    "jackknife",
    "leave_one_out",
    "left_out_errors",
    "symmetric_intervals",
    "weighted_values",
]

Array = NDArray[Any]

_TINY = np.finfo(float).tiny
# Resamples at once.
_BATCH = 200


@dataclass(frozen=True)
class GroupData:
    """What is known of groups and samples.

    Attributes
    ----------
    values : array of shape (n_outputs, n_groups)
    influences : array of shape (n_samples, n_outputs, n_groups)
        Of the samples on the covariances, in units of the values; of mean 0 in each stratum.
    attributions : array of the same shape
        Samples' mean attributions, over the standard deviations of the predictions; likewise.
    scores : array of shape (2, n_samples, n_outputs)
        z-scores of predictions and targets, centred in each stratum.
    strata : array of shape (n_samples,)
        Numbers of the strata, from 0 on.
    """

    values: Array
    influences: Array
    attributions: Array
    scores: Array
    strata: Array

    @property
    def members(self) -> list[Array]:
        """Return the samples of each stratum."""
        return [np.flatnonzero(self.strata == s) for s in range(int(self.strata.max()) + 1)]

    def own_pairs(self) -> Array:
        """Return minus h_ii, of the shape of the influences."""
        products = self.scores[1][..., None] * self.attributions
        own = self.influences.astype(float)
        several = self.members
        for at in several:
            # Covariances of the strata.
            own[at] += products[at].mean(0) if len(several) > 1 else self.values
        return own


def leave_one_out(data: GroupData) -> Array:
    """Return groups' values without each sample in turn, (n_samples, n_outputs, n_groups)."""
    n, sizes = len(data.strata), np.bincount(data.strata)[data.strata]
    # What a sample takes away with it, its effect on the mean included.
    share = (sizes / (sizes - 1))[:, None]
    covariance = n * data.values - share[..., None] * data.own_pairs()
    variance = np.maximum(n - share * data.scores**2, _TINY)
    left_out: Array = covariance / np.sqrt(variance.prod(0))[..., None]
    return left_out


def jackknife(data: GroupData) -> tuple[Array, Array]:
    """Return standard errors from leaving out each sample in turn, and how well they are known.

    Returns
    -------
    errors, n_free : arrays of shape (n_outputs, n_groups)
        Degrees of freedom are ``2 v**2`` over the variance of the variance v (Satterthwaite
        1946), which is a sum over samples as v is: of the mean of n values of kurtosis k,
        ``2 n / (k - 1)``. They are n less the number of strata at most.
    """
    return left_out_errors(leave_one_out(data), data.members)


def left_out_errors(left_out: Array, members: list[Array]) -> tuple[Array, Array]:
    """Return what `jackknife` does, of any values without each sample in turn.

    Parameters
    ----------
    left_out : array of shape (n_samples, ...)
    members : list of arrays
        The samples of each stratum.
    """
    variance, doubt = np.zeros(left_out.shape[1:]), np.zeros(left_out.shape[1:])
    for at in members:
        squares = (left_out[at] - left_out[at].mean(0)) ** 2 * ((len(at) - 1) / len(at))
        variance += squares.sum(0)
        doubt += len(at) * squares.var(0)
    n_free = 2 * variance**2 / np.maximum(doubt, _TINY)
    return np.sqrt(variance), np.clip(n_free, 1, max(len(left_out) - len(members), 1))


def symmetric_intervals(values: Array, errors: Array, n_free: Array | int, level: float) -> Array:
    """Return Student's intervals (..., 2) around values, of errors of ``n_free`` degrees."""
    reach = stdtrit(np.maximum(n_free, 1), (1 + level) / 2) * errors
    return np.stack([values - reach, values + reach], -1)


def weighted_values(data: GroupData, weights: Array) -> Array:
    """Return groups' values under weights on the samples, (n_sets, n_outputs, n_groups).

    Parameters
    ----------
    data : GroupData
    weights : array of shape (n_sets, n_samples)
        Of mean 1 in each stratum.
    """
    n, shape = len(data.strata), data.values.shape
    rest = data.own_pairs() - data.scores[1][..., None] * data.attributions
    covariance = n * data.values + _sums(weights, data.influences)
    f, y = (weights @ z**2 for z in data.scores)
    for at in data.members:
        own, size = weights[:, at], len(at)
        of_f, of_y = (own @ z[at] for z in data.scores)
        f, y = f - of_f**2 / size, y - of_y**2 / size
        covariance -= of_y[..., None] * _sums(own, data.attributions[at]) / size
        covariance -= _sums((own - 1) ** 2, rest[at]) / size
    scale = np.sqrt(np.maximum(f, _TINY) * np.maximum(y, _TINY))
    weighted: Array = covariance.reshape(-1, *shape) / scale[..., None]
    return weighted


def _sums(weights: Array, values: Array) -> Array:
    """Return sums (n_sets, any, ...) of values (n_samples, any, ...), weighted."""
    product = weights @ values.reshape(len(values), -1)
    return product.reshape(-1, *values.shape[1:])


def bootstrap_intervals(data: GroupData, *, level: float, n_resamples: int, seed: int) -> Array:
    """Return symmetric intervals (n_outputs, n_groups, 2) over samples with replacement.

    They reach as far as a share ``level`` of the drawn values lies from the value (Hall 1988;
    errors of coverage that skewness makes on either side cancel). That is too near with few
    samples, like normal intervals with standard deviations over n, so the share is the one that
    belongs to Student's quantile and n - 1 (Hesterberg 2015), of as many degrees of freedom as
    the jackknife has. Percentiles to either side, with
    or without bias correction and acceleration (BCa; Efron 1987), were tried and covered less of
    skewed and of heavy-tailed data (``tests/benchmarks/RESULTS.md``).

    Parameters
    ----------
    data : GroupData
    level : float
    n_resamples, seed : int
    """
    rng, n, members = np.random.default_rng(seed), len(data.strata), data.members
    drawn, weights = np.empty((n_resamples, *data.values.shape)), np.empty((_BATCH, n))
    for start in range(0, n_resamples, _BATCH):
        for at in members:
            weights[:, at] = rng.multinomial(len(at), np.full(len(at), 1 / len(at)), _BATCH)
        drawn[start : start + _BATCH] = weighted_values(data, weights)[: n_resamples - start]
    _, n_free = jackknife(data)
    student = np.sqrt(n / max(n - len(members), 1)) * stdtrit(n_free, (1 + level) / 2)
    rank = np.ceil((2 * ndtr(student) - 1) * (n_resamples - 1)).astype(int)
    ordered = np.sort(np.abs(drawn - data.values), 0)
    reach = np.take_along_axis(ordered, rank[None], 0)[0]
    return np.stack([data.values - reach, data.values + reach], -1)
