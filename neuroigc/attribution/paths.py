"""Where on the straight path from baseline to sample the gradients are taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_points", "uniform"]

# Independent streams of one seed, by what they decide.
ORDER, SHIFT, STRATUM, POINT, BANK, PARTNER, PLACE = range(7)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def uniform(
    seed: int, stream: int, counters: tuple[int, ...], samples: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return one number in [0, 1) per sample: a function of the arguments, without any state.

    The mixer is splitmix64, counted by the sample index. How the work is cut into batches,
    processes or interrupted runs can therefore not change a choice.
    """
    entropy = np.random.SeedSequence([seed, stream, *counters])
    z = entropy.generate_state(1, np.uint64) + (samples.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    z = z ^ (z >> np.uint64(31))
    numbers: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def draw_points(
    samples: NDArray[np.int64], shift: int, *, n_points: int = 2, seed: int = 0
) -> NDArray[np.float64]:
    """Draw stratified antithetic points on the paths of one round of pairs.

    The interval [0, 1/2] is cut into ``n_points / 2`` strata per path, and each of these into as
    many cells as there are paths; each path gets one random point of one random cell, and its
    mirror image 1 - t. Mirrored points make the estimate exact for quadratic models; each point
    alone is uniform on [0, 1], so the estimate is unbiased for every model.

    Parameters
    ----------
    samples : array of shape (n_pairs,)
        Index of each path's sample, on which the random choices depend.
    shift : int
        Number of the round, likewise.
    n_points : int
        Points per path, even.
    seed : int

    Returns
    -------
    array of shape (n_points, n_pairs)
        Positions t, 0 at the baseline and 1 at the sample.
    """
    half = n_points // 2
    points = np.empty((n_points, len(samples)))
    for pair in range(half):
        cell = np.argsort(np.argsort(uniform(seed, STRATUM, (shift, pair), samples)))
        within = uniform(seed, POINT, (shift, pair), samples)
        t = (pair + (cell + within) / len(samples)) / n_points
        points[2 * pair], points[2 * pair + 1] = t, 1 - t
    return points
