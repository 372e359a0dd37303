"""Which of the pairs drawn are worth a gradient, output by output.

A pair counts in proportion to the difference of its targets, so gradients go to pairs that
differ: one is taken with probability ``p = min(1, |c_i - c_j| / C)``, with C twice the mean
difference, and weighted by 1 / p (Russian roulette). For Gaussian targets this halves the
gradients of a round and adds a third to its variance; for classes, pairs of other classes are
left out at no loss at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroigc.attribution.paths import THINNING, uniform

__all__ = ["Thinning"]

Array = NDArray[np.float64]
LEAST_COST = 1 / 8


class Thinning:
    """Chances of pairs, for each output by itself.

    Parameters
    ----------
    targets : array of shape (n_samples, n_outputs)
        Centred within strata.
    strata : array of shape (n_samples,)
    paired : bool
        Whether samples are compared with each other, not with baselines of no target.
    seed : int

    Attributes
    ----------
    cost : float
        Gradients per sample and round, of the output that takes most.
    """

    def __init__(
        self, targets: Array, strata: NDArray[np.int64], *, paired: bool, seed: int
    ) -> None:
        self.targets, self.paired, self.seed = targets, paired, seed
        members = [strata == stratum for stratum in range(int(strata.max()) + 1)]
        sums = np.zeros(targets.shape[1])
        for member in members:
            sums += _sum_of_differences(targets[member]) if paired else abs(targets[member]).sum(0)
        self.scale = 2 * sums / len(targets)
        chances = np.zeros(targets.shape[1])
        for member in members:
            for v, scale in enumerate(self.scale):
                c = targets[member, v]
                own = _sum_of_chances(c, scale) if paired else np.minimum(1, abs(c) / scale).sum()
                chances[v] += own
        # Rounds take time even where hardly a pair counts, so none counts as less than this.
        self.cost = max(float(chances.max() / len(targets)), LEAST_COST)

    def differences(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Array:
        """Return the differences of targets (n, n_outputs) that pairs count by."""
        own: Array = self.targets[first]
        return own - self.targets[second] if self.paired else own

    def weights(self, differences: Array, keys: NDArray[np.uint64], shift: int) -> Array:
        """Return pairs' weights (n, n_outputs) in a round: 1 / p for those taken, else 0.

        One random number decides for all outputs of a pair, so that they share gradients.
        """
        chance = np.minimum(1, np.abs(differences) / self.scale)
        taken = uniform(self.seed, THINNING, (shift,), keys)[:, None] < chance
        return np.divide(1, chance, out=np.zeros_like(chance), where=taken)


def _sum_of_differences(c: Array) -> Array:
    """Return sums over samples of their mean absolute difference from all, (n_outputs,)."""
    n = len(c)
    ranks = 2 * np.arange(n) - n + 1
    total: Array = 2 * ranks @ np.sort(c, 0) / n
    return total


def _sum_of_chances(c: Array, scale: float) -> float:
    """Return the sum over samples of their mean of min(1, |difference| / scale) with all."""
    c, n = np.sort(c), len(c)
    sums = np.concatenate([[0.0], np.cumsum(c)])
    reach = np.searchsorted(c, c + scale)
    after = np.arange(1, n + 1)
    near = (sums[reach] - sums[after] - (reach - after) * c) / scale
    return float(2 * (near + n - reach).sum() / n)
