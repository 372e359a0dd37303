"""Which sample is set against which.

Samples stand in a random order; round k pairs each with the one that follows it at a random
distance (a circular shift). So every sample stands in exactly two pairs of each round, and all
pairs are equally likely. Pairs stay inside a stratum: one condition, or one label of
`PairedBaseline(within=...)`. Source: method of incomplete U-statistics with balanced designs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroigc.attribution.paths import ORDER, SHIFT, uniform

__all__ = ["Block", "PairRound", "draw_bank_pairs", "draw_blocks", "draw_pairs"]


@dataclass(frozen=True)
class Block:
    """Samples of one stratum, in random order, among which pairs are drawn.

    Attributes
    ----------
    index : int
        Number of the block.
    stratum : int
        The stratum it belongs to.
    samples : array of shape (n,)
        Sample indices in their random order.
    keys : array of shape (n,)
        Their keys, on which random choices depend.
    stratum_size : int
        Number of samples in the whole stratum.
    sweep : int
        Number of the order it was cut from.
    """

    index: int
    stratum: int
    samples: NDArray[np.int64]
    keys: NDArray[np.uint64]
    stratum_size: int
    sweep: int = 0

    @property
    def is_partial(self) -> bool:
        """Return whether the stratum has samples elsewhere."""
        return len(self.samples) < self.stratum_size

    @property
    def n_distances(self) -> int:
        """Return how many rounds draw each pair of the block once."""
        return len(self.samples) // 2


@dataclass(frozen=True)
class PairRound:
    """One partner for every sample of a block.

    Attributes
    ----------
    first, second : arrays of shape (n,)
        Positions in the block of the path's end (x) and of its baseline (x').
    weight : float
        Makes the mean over rounds of ``weight * mean over pairs`` an unbiased estimate of the
        mean over all ordered pairs of the stratum, a sample with itself included.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: float


def draw_blocks(
    strata: NDArray[np.int64],
    keys: NDArray[np.uint64],
    *,
    max_size: int | None = None,
    sweep: int = 0,
    seed: int = 0,
) -> list[Block]:
    """Put the samples of each stratum in random order and cut them into blocks.

    Parameters
    ----------
    strata : array of shape (n_samples,)
        Stratum of each sample, 0 .. n_strata - 1.
    keys : array of shape (n_samples,)
        Key of each sample, on which the order depends.
    max_size : int, optional
        Largest number of samples in a block (at least 4); None for whole strata.
    sweep : int
        Another order, and so other blocks, for each number.
    seed : int
    """
    samples = np.arange(len(strata))
    order = uniform(seed, ORDER, (sweep,), keys)
    blocks: list[Block] = []
    for stratum in range(int(strata.max()) + 1):
        members = samples[strata == stratum]
        members = members[np.argsort(order[members], kind="stable")]
        n_blocks = 1 if max_size is None else -(-len(members) // max_size)
        for part in np.array_split(members, n_blocks):
            blocks.append(Block(len(blocks), stratum, part, keys[part], len(members), sweep))
    return blocks


def draw_pairs(block: Block, shift: int, *, seed: int = 0) -> PairRound:
    """Pair each sample of a block with another one; ``shift`` is the number of the round.

    Distances are drawn without replacement from 1 .. n // 2 (the others are the same pairs
    turned round), and anew once all have been used. At distance n / 2 each pair comes twice and
    therefore counts half.
    """
    n, n_distances = len(block.samples), block.n_distances
    cycle, position = divmod(shift, n_distances)
    keys = uniform(seed, SHIFT, (block.index, block.sweep, cycle), np.arange(n_distances))
    distance = int(np.argsort(keys)[position]) + 1
    first = np.arange(n)
    times = 1.0 if 2 * distance == n else 2.0
    weight = times * n_distances / (n - 1)
    # A sample paired with itself contributes nothing, yet belongs to the mean over all pairs.
    weight *= (block.stratum_size - 1) / block.stratum_size
    return PairRound(first, (first + distance) % n, weight)


def draw_bank_pairs(block: Block, n_baselines: int, shift: int, *, seed: int = 0) -> PairRound:
    """Pair each sample of a block with one of a bank of baselines.

    Circular shifts again: over ``n_baselines`` rounds every sample meets every baseline.
    """
    cycle, position = divmod(shift, n_baselines)
    keys = uniform(seed, SHIFT, (block.index, block.sweep, cycle), np.arange(n_baselines))
    first = np.arange(len(block.samples))
    second = (first + np.argsort(keys)[position]) % n_baselines
    return PairRound(first, second, 1.0)
