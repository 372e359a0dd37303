"""From cotangents to maps, and to their sampling variance.

The samples of a block are cut into random groups. The map is the sum over the groups; the spread
of their influences, each the derivative of the whole covariance by the weight of its samples, is
the sampling variance (infinitesimal jackknife).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuroigc.attribution.accumulators import GroupMoments, Sums, group_sums
from neuroigc.attribution.state import BlockState

if TYPE_CHECKING:
    from neuroigc.attribution.cotangents import CotangentEngine
    from neuroigc.attribution.engine import Engine

__all__ = ["add_map", "group_bounds"]


def add_map(engine: CotangentEngine, state: BlockState, sums: Sums) -> tuple[Tensor, Tensor]:
    """Add a block's part of the map, and of its sampling variance.

    Returns
    -------
    on_groups : Tensor of shape (n_sample_groups, n_outputs, n_groups)
        Influence of the groups of samples on the values of groups of components.
    group_of : Tensor of shape (n_samples,)
        Group of each sample.
    """
    problem, k = engine.problem, state.n_rounds
    bounds, n = group_bounds(engine, state), state.n_samples
    sizes = torch.tensor(bounds).diff().to(state.hidden.device)
    n_groups, group_of = len(sizes), torch.repeat_interleave(sizes)
    influence = problem.influence[torch.from_numpy(state.block.samples)]
    influence = group_sums(influence, group_of, n_groups)
    targets = group_sums(state.targets[:n], group_of, n_groups)
    moments = [GroupMoments(sizes, influence[:, v]) for v in engine.output_slices]
    # Besides its own product of target and attribution, a sample acts on the covariance through
    # the mean target and, as a baseline, through the other samples' attributions.
    means = [engine.means(state, outputs) for outputs in engine.output_slices]
    n_components, partial = problem.columns.n_components, engine.is_partial(state.block)
    crosses = state.hidden.new_zeros(problem.n_outputs, problem.samples.n_inputs)
    on_groups = state.targets.new_zeros(n_groups, problem.n_outputs, problem.columns.n_groups)
    # Maps of so many rows, or of groups of them, are held at once.
    n_maps = max(engine.output_slices[0].stop, state.slopes.shape[1])
    n_rows = max(1, engine.chunk_numbers // (n_maps * problem.samples.n_inputs))
    step = max(1, n_rows // int(sizes.max()))
    for g in range(0, n_groups, step):
        index = slice(g, min(g + step, n_groups))
        wanted = torch.arange(g, index.stop, device=group_of.device)[:, None]
        rows = range(bounds[g], bounds[index.stop])
        x_sums = state.hidden.new_zeros(len(wanted), problem.samples.n_inputs)
        # Groups' sums of gradients go back through the stem beside the first part's cotangents.
        beside = state.slopes[:0]
        if problem.bank is None:
            every = slice(rows.start, rows.stop)
            own = (group_of[every] == wanted).to(state.slopes.dtype)
            beside = (own @ state.slopes[every].flatten(1)).view(-1, *state.slopes.shape[1:])
        values: list[Tensor] = []
        pulled: list[Tensor] = []
        for start in rows[::n_rows]:
            part = slice(start, min(start + n_rows, rows.stop))
            membership = (group_of[part] == wanted).to(state.hidden.dtype)
            x = engine.rows(state, part)
            x_sums += membership @ x
            if partial:
                crosses += state.targets[part].T @ x
            for s, (sum_, other) in enumerate(
                engine.products(state, part, x, membership, beside[: 0 if pulled else None])
            ):
                if start == rows.start:
                    values.append(sum_)
                    pulled.append(other)
                else:
                    values[s] += sum_
        for s, outputs in enumerate(engine.output_slices):
            sums.add("map", k * values[s].sum(0), outputs, problem.n_outputs)
            attribution, weighted, _ = means[s]
            further = -targets[index, outputs, None] * attribution
            if problem.bank is None:
                further -= x_sums[:, None] * (weighted / 2)
                cross = problem.cross_of(outputs)[state.block.stratum]
                further += pulled[s].mul_(cross / 2)
            influences = values[s] + problem.columns.reduce(further)
            on_groups[index, outputs] = influences[..., n_components:].to(on_groups.dtype)
            moments[s].add(index, influences[..., :n_components])
    for s, outputs in enumerate(engine.output_slices):
        moments[s].finish(sums, k, outputs, problem.n_outputs)
        if partial:
            # Strata will put theirs in the place of this n E[c x] E[g] / 2.
            excess = crosses[outputs] * means[s][2] / 2
            sums.add("map", -k * problem.columns.reduce(excess), outputs, problem.n_outputs)
    return on_groups, group_of


def group_bounds(engine: Engine, state: BlockState) -> list[int]:
    """Cut a block's samples into random groups; return where they begin, and the end."""
    n = state.n_samples
    wanted, n_samples = engine.settings.n_sample_groups, engine.problem.n_samples
    # Few samples stand each for itself.
    share = n if n_samples <= 2 * wanted else -(-wanted * n // n_samples)
    n_groups = min(n, max(share, 2))
    return [n * g // n_groups for g in range(n_groups + 1)]
