"""What each sample does to the values of groups: the data of their error bars and tests.

A map credits what a pair's path deviates from its trapezoid to two samples, in shares that only
add up to it. The influence of a sample on the U-statistic is its mean over partners of the whole
value of the pair (Hoeffding); on a mean over a bank of baselines, it is its own attribution less
the mean one. Both come here from the pairs that were kept one by one, in two halves, whose
difference tells what the draw of pairs and points adds to the spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuroigc.attribution.accumulators import GroupMoments, Sums, group_sums, mixed_powers
from neuroigc.attribution.state import BlockState

if TYPE_CHECKING:
    from neuroigc.attribution.engine import Engine

__all__ = ["GroupDeviations", "add_group_influences"]


@dataclass(frozen=True)
class GroupDeviations:
    """What paths deviate from their trapezoids, summed over one group of components.

    Attributes
    ----------
    group : int
    outputs : slice
    known : Tensor of shape (n_samples, n_outputs)
        To be added to what is known without the pairs: samples' influence by trapezoids alone,
        or, where that was summed with the map, minus the deviations as the map credits them.
    pairs : list of Tensors of shape (n_samples, n_outputs)
        Of the pairs of each kept round, times the pairs' weight, but not the targets.
    attributions : Tensor of shape (n_samples, n_outputs) or None
        Samples' mean attributions by trapezoids, up to a constant; None where only the influence
        of groups of samples is known.
    """

    group: int
    outputs: slice
    known: Tensor
    pairs: list[Tensor]
    attributions: Tensor | None = None


def add_group_influences(
    engine: Engine, state: BlockState, sums: Sums, group_of: Tensor, values: Tensor
) -> None:
    """Add a block's part of the sampling variance of groups of components.

    Parameters
    ----------
    engine : Engine
    state : BlockState
    sums : Sums
    group_of : Tensor of shape (n_samples,)
        Random group of each sample.
    values : Tensor of shape (n_sample_groups, n_outputs, n_groups)
        Summed influence as far as it is known with the map; not used where the engine knows
        each sample's.
    """
    problem, n, k = engine.problem, state.n_samples, state.n_rounds
    if engine.knows_samples:
        alone = torch.arange(n, device=group_of.device)
        zeros = values.new_zeros(n, *values.shape[1:])
        attributions = torch.zeros_like(zeros)
        values, noise = _influences(engine, state, alone, zeros, attributions)
        rows = torch.from_numpy(state.block.samples).to(values.device)
        sums.add("group_influences", k * values, rows, problem.n_samples)
        # Of a mean over sweeps, each weighted by its rounds.
        sums.add("group_noise", k**2 * noise * n / max(n - 1, 1))
        sums.add("group_attributions", k * attributions, rows, problem.n_samples)
        return
    n_groups = len(values)
    values, noise = _influences(engine, state, group_of, values, None)
    influence = problem.influence[torch.from_numpy(state.block.samples)]
    influence = group_sums(influence, group_of, n_groups)
    sizes = torch.bincount(group_of, minlength=n_groups)
    for outputs in engine.output_slices:
        moments = GroupMoments(sizes, influence[:, outputs])
        moments.add(slice(0, n_groups), values[:, outputs])
        moments.finish(sums, k, outputs, problem.n_outputs, noise[outputs], "group_")
        # How far groups of samples differ tells how well the variance is known.
        mean = values[:, outputs].sum(0) / n
        centred = values[:, outputs] - moments.sizes.to(values)[:, None, None] * mean
        for power in (2, 4):
            mixed = mixed_powers(centred, moments.influence, power)
            sums.add(f"group_powers{power}", k * mixed, outputs, problem.n_outputs)
    sums.add("n_sample_groups", k * sizes.new_tensor([n_groups], dtype=torch.float64))


def _influences(
    engine: Engine,
    state: BlockState,
    group_of: Tensor,
    values: Tensor,
    attributions: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Complete summed influences, each pair counted in full for both its samples.

    Where ``attributions`` of shape (n_samples, n_outputs, n_groups) are wanted, samples' mean
    attributions for all targets alike are written there.

    Returns
    -------
    values : Tensor of shape (n_sample_groups, n_outputs, n_groups)
    noise : Tensor of shape (n_outputs, n_groups)
        What of the sum of squared values is noise.
    """
    paired, n, n_groups = engine.problem.bank is None, state.n_samples, len(values)
    cycle = engine.cycle_length(state.block)
    n_kept = len(state.pairs)
    if n_kept >= 2 * cycle:
        # Either half has all pairs, each as often: what differs is the points on the paths.
        n_kept -= n_kept % (2 * cycle)
        half_of, left = [2 * k // n_kept for k in range(n_kept)], 1.0
    else:
        n_kept -= n_kept % 2 if n_kept > 1 else 0
        # Once all pairs were drawn there is nothing random in which were.
        half_of, left = [k % 2 for k in range(n_kept)], max(0.0, 1 - n_kept / cycle)
    n_halves = min(n_kept, 2)
    noise = torch.zeros_like(values[0])
    seconds = [engine.partners(state, k) for k in range(n_kept)]
    sizes = torch.bincount(group_of, minlength=n_groups).to(values.dtype)[:, None] / n
    for deviations in engine.group_deviations(state):
        outputs, column = deviations.outputs, deviations.group
        targets = state.targets[:n, outputs]
        halves = values.new_zeros(n_halves, n_groups, targets.shape[1])
        for k, second in enumerate(seconds):
            half, pairs = halves[half_of[k]], deviations.pairs[k] * (n_halves / n_kept)
            if paired:
                pairs = pairs * (targets - targets[second])
                half.index_add_(0, group_of[second], pairs)
            else:
                pairs = (pairs - pairs.mean(0)) * targets
            half.index_add_(0, group_of, pairs)
        if attributions is not None and deviations.attributions is not None:
            mean = deviations.attributions.clone()
            for k, second in enumerate(seconds):
                mean += deviations.pairs[k] / n_kept
                if paired:
                    # From the partner to the sample, a path is run through the other way.
                    mean.index_add_(0, second, deviations.pairs[k] / n_kept, alpha=-1)
            attributions[:, outputs, column] = mean - mean.mean(0)
        known = group_sums(deviations.known, group_of, n_groups)
        values[:, outputs, column] += halves.mean(0) + known
        if n_halves == 2:
            doubt = (halves[0] - halves[1]) / 2
            doubt = doubt - sizes * doubt.sum(0)
            noise[outputs, column] = left * (doubt**2).sum(0)
    return values, noise
