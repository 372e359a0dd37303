"""From latents' attributions to the maps of many outputs, tile by tile of outputs.

The dense product of targets, head and latents' maps is all that a map takes. Its sampling
variance takes gradients at the full resolution of the input as well: the influence of a group of
samples is its own part of the map, less its inputs times the mean of target times gradient, plus
its gradients times the covariance of target and input. Tiles are so small that what is made of
one stays near the processor until its moments over groups are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuroigc.attribution.accumulators import GroupMoments, Sums, group_sums
from neuroigc.attribution.contraction import group_bounds
from neuroigc.attribution.state import BlockState

if TYPE_CHECKING:
    from neuroigc.attribution.latents import LatentEngine

__all__ = ["add_latent_map"]

# Numbers of a tile by group and column, and of a part of it by group and input component.
TILE_NUMBERS, PART_NUMBERS = 2**22, 2**21
SMALLEST_PART = 16


def add_latent_map(
    engine: LatentEngine, state: BlockState, sums: Sums
) -> tuple[Tensor, Tensor] | None:
    """Add a block's part of the map, and of its sampling variance; return as `add_map` does.

    Random groups of the samples tell the variance in the first sweep. Later ones, of the same
    samples, add to the map alone, unless there are groups of components, whose errors are made
    of all pairs.
    """
    if state.block.sweep and not engine.problem.columns.n_groups:
        _add_plain(engine, state, sums)
        return None
    return _Contraction(engine, state).add(sums)


def _add_plain(engine: LatentEngine, state: BlockState, sums: Sums) -> None:
    # Of partial blocks, strata will put theirs in the place of n E[c x] E[g] / 2.
    maps = engine.latent_maps(state, with_mean=not engine.is_partial(state.block))
    for outputs in engine.output_slices:
        summed = engine.contract_latents(state.targets[: state.n_samples], maps, outputs)
        sums.add("map", state.n_rounds * summed, outputs, engine.problem.n_outputs)


class _Contraction:
    """What all tiles of outputs have in common: a block's samples, by random groups.

    Parameters
    ----------
    engine : LatentEngine
    state : BlockState
    """

    def __init__(self, engine: LatentEngine, state: BlockState) -> None:
        self.engine, self.state, problem = engine, state, engine.problem
        self.bounds, n = group_bounds(engine, state), state.n_samples
        self.sizes = torch.tensor(self.bounds).diff().to(state.hidden.device)
        self.n_groups = len(self.sizes)
        self.group_of = torch.repeat_interleave(self.sizes)
        influence = problem.influence[torch.from_numpy(state.block.samples)]
        self.influence = group_sums(influence, self.group_of, self.n_groups)
        self.targets = group_sums(state.targets[:n], self.group_of, self.n_groups)
        self.maps = engine.latent_maps(state)
        self.partial, self.paired = engine.is_partial(state.block), problem.bank is None
        self.x_sums = state.hidden.new_zeros(self.n_groups, problem.samples.n_inputs)
        product = torch.zeros_like(state.mean_slope)
        for part in engine.row_chunks(n):
            x = engine.rows(state, part)[: n - part.start]
            self.x_sums.index_add_(0, self.group_of[part], x)
            product += torch.einsum("nl,nkl->kl", x, state.slopes[part][: len(x)])
        stratum, n_components = state.block.stratum, problem.columns.n_components
        offset = problem.mean[stratum] - problem.centre[stratum]
        # Besides its own product of target and attribution, a sample acts on the covariance
        # through the mean target and, as a baseline, through other samples' attributions.
        self.attribution = problem.columns.reduce(product / n + offset * state.mean_slope) / 2
        if not self.paired:
            # Baselines may be so far away that trapezoids tell little of the paths. Groups' paths
            # are told of by the pairs that are kept.
            self.attribution[:, :n_components] = self.maps[..., :n_components].mean(0)
        self.slopes = group_sums(state.slopes[:n], self.group_of, self.n_groups)

    def add(self, sums: Sums) -> tuple[Tensor, Tensor]:
        """Add all tiles."""
        problem, n = self.engine.problem, self.state.n_samples
        rounds = problem.scale.new_full((1,), self.state.n_rounds * n / problem.n_samples)
        sums.add("spread_rounds", rounds)
        shape = self.n_groups, problem.n_outputs, problem.columns.n_groups
        on_groups = self.state.targets.new_zeros(shape)
        tile = TILE_NUMBERS // (self.n_groups * problem.columns.n_columns)
        part = PART_NUMBERS // (self.n_groups * problem.samples.n_inputs)
        for outputs in self.engine.output_slices:
            for rows in _cut(outputs, max(tile, SMALLEST_PART)):
                values = self._values(rows)
                for some in _cut(rows, max(part, SMALLEST_PART)):
                    own = values[:, some.start - rows.start : some.stop - rows.start]
                    on_groups[:, some] = self._add_part(own, some, sums)
        return on_groups, self.group_of

    def _values(self, outputs: slice) -> Tensor:
        """Return sums of target times attribution, (n_sample_groups, n_outputs, n_columns)."""
        values = self.maps.new_empty(
            self.n_groups, outputs.stop - outputs.start, self.maps.shape[-1]
        )
        for g, (start, stop) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            targets = self.state.targets[start:stop]
            self.engine.contract_latents(targets, self.maps[start:stop], outputs, out=values[g])
        return values

    def _add_part(self, values: Tensor, outputs: slice, sums: Sums) -> Tensor:
        """Add the map of some outputs and its moments; return influences on groups."""
        problem, k = self.engine.problem, self.state.n_rounds
        columns, head = problem.columns, self.engine.head[outputs]
        summed, targets = values.sum(0), self.targets[:, outputs]
        if self.partial:
            # Strata will put theirs in the place of this n E[c x] E[g] / 2.
            crosses = self._crosses(outputs).mul_(head @ self.state.mean_slope)
            summed -= columns.reduce(crosses) / 2
        sums.add("map", k * summed, outputs, problem.n_outputs)
        influences = torch.addcmul(values, targets[:, :, None], head @ self.attribution, value=-1)
        if self.paired:
            pulled = head @ self.slopes
            weights = targets.T[:, None] / self.state.n_samples
            weighted = torch.bmm(weights, pulled.permute(1, 0, 2))[:, 0]
            pulled *= problem.cross_of(outputs)[self.state.block.stratum]
            pulled.addcmul_(self.x_sums[:, None], weighted, value=-1)
            influences.add_(columns.reduce(pulled), alpha=0.5)
        moments = GroupMoments(self.sizes, self.influence[:, outputs])
        moments.add(slice(0, self.n_groups), influences[..., : columns.n_components])
        moments.finish(sums, k, outputs, problem.n_outputs)
        return influences[..., columns.n_components :]

    def _crosses(self, outputs: slice) -> Tensor:
        """Return sums of target times input over the block, (n_outputs, n_inputs)."""
        n, width = self.state.n_samples, outputs.stop - outputs.start
        crosses = self.state.hidden.new_zeros(width, self.x_sums.shape[1])
        for part in self.engine.row_chunks(n):
            x = self.engine.rows(self.state, part)[: n - part.start]
            crosses += self.state.targets[part, outputs][: len(x)].T @ x
        return crosses


def _cut(outputs: slice, step: int) -> list[slice]:
    starts = range(outputs.start, outputs.stop, step)
    return [slice(start, min(start + step, outputs.stop)) for start in starts]
