"""Where on the straight path from baseline to sample the gradient is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

__all__ = ["draw_points", "uniform"]

# Independent streams of one seed, by what they decide.
ORDER, SHIFT, STRATUM, POINT, BANK, PARTNER, PLACE, PERMUTATION, THINNING = range(9)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# Both parameters of the beta distribution of points.
SHAPE = 1.5
# Points keep this distance, in probability, from the ends.
_MARGIN = 1e-9


def uniform(
    seed: int, stream: int, counters: tuple[int, ...], keys: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return one number in [0, 1) per key: a function of the arguments, without any state.

    The mixer is splitmix64, counted by the key. How the work is cut into batches, processes or
    interrupted runs can therefore not change a choice.
    """
    entropy = np.random.SeedSequence([seed, stream, *counters])
    z = entropy.generate_state(1, np.uint64) + (keys.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    z = z ^ (z >> np.uint64(31))
    numbers: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def draw_points(
    keys: NDArray[np.integer], shift: int, *, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw one point on each path of a round of pairs, and the weight that makes it fair.

    What is integrated there, a gradient less the straight line between those of the two ends,
    vanishes at the ends: like t (1 - t) in smooth models, like its root in rough ones. Points
    are therefore drawn from the beta distribution of parameters 3/2, whose density is that
    root, and weighted by one over the density. They are stratified over the paths of a round.

    Parameters
    ----------
    keys : array of shape (n_pairs,)
        Key of each path's sample, on which the random choices depend.
    shift : int
        Number of the round, likewise.
    seed : int

    Returns
    -------
    t, weight : arrays of shape (n_pairs,)
        Positions, 0 at the baseline and 1 at the sample. The mean of ``weight * h(t)`` estimates
        the integral of h from 0 to 1 without bias.
    """
    cell = np.argsort(np.argsort(uniform(seed, STRATUM, (shift,), keys), kind="stable"))
    within = uniform(seed, POINT, (shift,), keys)
    chance = np.clip((cell + within) / max(len(keys), 1), _MARGIN, 1 - _MARGIN)
    t = betaincinv(SHAPE, SHAPE, chance)
    return t, np.pi / (8 * np.sqrt(t * (1 - t)))
