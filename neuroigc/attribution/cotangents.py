"""Few outputs, wide input: gradients stay behind the stem until one wide product at the end.

A pair contributes (x_i - x_j) ∘ W^T q to the map, with q its weighted gradient behind the stem.
That is linear in x_i and in x_j, so +q is added to a cotangent of sample i and -q to one of
sample j, and the map is Σ_s x_s ∘ (W^T D_s): its cost does not grow with the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc.attribution.accumulators import Sums
from neuroigc.attribution.contraction import add_map
from neuroigc.attribution.engine import KEPT_ROUNDS, Engine, Settings
from neuroigc.attribution.factorisation import DenseStem
from neuroigc.attribution.influences import GroupDeviations
from neuroigc.attribution.pairs import Block, PairRound
from neuroigc.attribution.problem import Problem
from neuroigc.attribution.state import BlockState
from neuroigc.attribution.thinning import Thinning

__all__ = ["CotangentEngine"]

Floats = NDArray[np.float64]

# Of a large block, so many samples tell the covariance of input and gradient, for standard errors
# alone; of a small one, all.
N_MOMENT_SAMPLES, FEW_SAMPLES = 16, 64


class CotangentEngine(Engine):
    """Regime of few outputs: one backward pass per output and point."""

    knows_samples = True

    def __init__(self, problem: Problem, settings: Settings) -> None:
        super().__init__(problem, settings)
        stem = problem.factors.stem
        self.pull_to_probe = stem.pull_to(self.probe_members)
        with torch.no_grad():
            self.origins = stem(problem.centre)
        targets, paired = problem.targets.cpu().numpy(), problem.bank is None
        self.thinning = Thinning(targets, problem.strata, paired=paired, seed=settings.seed)
        if not settings.n_permutations:
            self.cost = self.thinning.cost

    @property
    def bytes_per_sample(self) -> int:
        """Return the memory that one sample takes: gradients, and cotangents in float64."""
        kept = KEPT_ROUNDS if self.problem.columns.n_groups else 0
        return (32 + 8 * kept) * self.n_kept_numbers

    def open(self, block: Block) -> BlockState:
        """Take the gradients at the samples, behind the stem."""

        def slopes(hidden: Tensor) -> Tensor:
            parts = torch.split(hidden, self.rows_at_once())
            return torch.cat([self.differentiate(p, block.stratum, latent=False) for p in parts])

        state = self.start(block, slopes, self.problem.factors.stem.n_hidden)
        if self.settings.n_permutations:
            state.plain = torch.zeros_like(state.residual[: state.n_samples])
        state.probe += self._probe(state, self._trapezoids(state, slice(None)))
        self.close_probe(state)
        return state

    def _trapezoids(self, state: BlockState, part: slice) -> Tensor:
        """Return the cotangents c_s (g_s + E[g]) / 2 of the trapezoids of all pairs."""
        return state.targets[part, :, None] * (state.slopes[part] + state.mean_slope) / 2

    def advance(self, state: BlockState, shift: int) -> None:
        """Add one round of pairs to the cotangents."""
        n, pairs = state.n_samples, self.draw(state)
        second, weight = self.on_device(state, pairs)
        differences, thinned = self._weigh(state.block, pairs, shift)
        shares = _shares(thinned)
        counts, chances = (
            torch.from_numpy(array).to(state.hidden)[:, :, None]
            for array in (differences, thinned * weight)
        )
        residual, deviations = torch.zeros_like(state.slopes), torch.zeros_like(state.slopes[:n])
        for outputs, rows in shares:

            def slopes(points: Tensor, outputs: slice = outputs) -> Tensor:
                stratum = state.block.stratum
                return self.differentiate(points, stratum, latent=False, values=outputs)

            rows = rows.to(second.device)
            for part, on_path in self.deviations(state, rows, second, shift, outputs, slopes):
                on_path *= chances[part, outputs]
                deviations[part, outputs] = on_path
                on_path *= counts[part, outputs]
                residual[:, outputs].index_add_(0, part, on_path)
                residual[:, outputs].index_add_(0, second[part], on_path, alpha=-1)
        if state.plain is not None:
            state.plain += deviations
            if self.problem.bank is None:
                state.plain.index_add_(0, second, deviations.to(state.plain.dtype))
        if state.n_rounds < self.n_kept_rounds:
            state.pairs.append(deviations)
        self.record(state, residual, self._probe(state, residual))

    def _weigh(self, block: Block, pairs: PairRound, shift: int) -> tuple[Floats, Floats]:
        """Return pairs' differences of targets, and their weights, (n_samples, n_outputs) each."""
        partners = block.samples[pairs.second] if self.problem.bank is None else block.samples
        differences = self.thinning.differences(block.samples, partners)
        if self.settings.n_permutations:
            # Other targets would have other pairs.
            return differences, np.ones_like(differences)
        return differences, self.thinning.weights(differences, block.keys, shift)

    def _probe(self, state: BlockState, cotangents: Tensor) -> Tensor:
        """Return Σ_s x_s ∘ W^T D_s on the probed components, and its total over all."""
        stem = self.problem.factors.stem
        # Σ_l x_l (W^T D)_l is the product of D with what the stem makes of x.
        total = torch.einsum("nh,nvh->v", self._centred(state), cotangents)
        probed = state.probe_inputs.new_zeros(len(total), len(self.probe_members))
        width = len(self.probe_members) if isinstance(stem, DenseStem) else stem.n_inputs
        step = max(1, self.chunk_numbers // (len(total) * width))
        for start in range(0, len(cotangents), step):
            part = slice(start, start + step)
            pulled = self.pull_to_probe(cotangents[part])
            probed += torch.einsum("nl,nvl->vl", state.probe_inputs[part], pulled)
        summed = probed.reshape(len(total), *self.probe_shape).sum(-1)
        return torch.cat([summed, total[:, None]], 1)

    def _centred(self, state: BlockState) -> Tensor:
        """Return what the stem makes of centred inputs, (n_rows, n_hidden)."""
        return state.hidden - self.origins[state.block.stratum]

    def cross_product(self, state: BlockState, outputs: slice) -> Tensor:
        """Return n E[c x] E[g] of a block, summed over the input, (n_outputs,)."""
        n = state.n_samples
        cross = state.targets[:n, outputs].T @ self._centred(state)[:n]
        return (cross * state.mean_slope[outputs]).sum(1)

    def add_map(self, state: BlockState, sums: Sums) -> tuple[Tensor, Tensor]:
        """Add a block's part of the map, and of its sampling variance."""
        return add_map(self, state, sums)

    def products(
        self, state: BlockState, part: slice, x: Tensor, membership: Tensor, beside: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield Σ_s x_s ∘ W^T D_s over groups of rows, for each slice of outputs.

        Parameters
        ----------
        state : BlockState
        part : slice
            The rows.
        x : Tensor of shape (n, n_inputs)
            Their inputs.
        membership : Tensor of shape (n_groups, n)
            1 where a row belongs to a group, else 0.
        beside : Tensor of shape (m, n_outputs, n_hidden)
            Gradients; their W^T g is yielded as well, by input and not by component.
        """
        stem = self.problem.factors.stem
        for outputs in self.output_slices:
            cotangents = self._cotangents(state, part, outputs)
            sums, pulled = stem.attribute(cotangents, x, membership, beside[:, outputs])
            yield self.problem.columns.reduce(sums), pulled

    def _cotangents(self, state: BlockState, part: slice, outputs: slice) -> Tensor:
        cotangents = self._trapezoids(state, part)[:, outputs]
        return cotangents + (state.residual[part, outputs] / state.n_rounds).to(cotangents.dtype)

    def sample_maps(self, state: BlockState, part: slice, x: Tensor) -> Iterator[Tensor]:
        """Yield rows' mean attributions, for each slice of outputs.

        That what a path deviates from the line may go along with its partner is neglected.
        """
        for outputs in self.output_slices:
            slopes = (state.slopes[part, outputs] + state.mean_slope[outputs]) / 2
            if state.plain is not None:
                slopes += (state.plain[part, outputs] / state.n_rounds).to(slopes.dtype)
            maps = self.problem.factors.stem.pull(slopes).mul_(x[:, None])
            yield self.problem.columns.reduce(maps)

    def contract(self, state: BlockState, sums: Sums) -> None:
        """Add a block's part of the map, that of a bank of baselines included."""
        super().contract(state, sums)
        if self.problem.bank is not None:
            # The bank's own cotangents; its samples have no influence to be counted.
            for part in self.row_chunks(len(self.problem.bank)):
                rows = slice(part.start + state.n_samples, part.stop + state.n_samples)
                x = self.rows(state, rows)
                maps = self.products(state, rows, x, x.new_ones(1, len(x)), state.slopes[:0])
                for outputs, (own, _) in zip(self.output_slices, maps, strict=True):
                    sums.add("map", state.n_rounds * own[0], outputs, self.problem.n_outputs)

    @property
    def n_kept_numbers(self) -> int:
        """Return how many numbers are kept of a pair."""
        return self.problem.n_outputs * self.problem.factors.stem.n_hidden

    def group_deviations(self, state: BlockState) -> Iterator[GroupDeviations]:
        """Yield gradients times what a group's inputs add to the stem's output."""
        problem, stem, n = self.problem, self.problem.factors.stem, state.n_samples
        stratum, members = state.block.stratum, problem.columns.groups
        seconds = [self.partners(state, k) for k in range(len(state.pairs))]
        weighted = torch.einsum("nv,nvh->vh", state.targets[:n], state.slopes[:n]) / n
        offset = (problem.mean[stratum] - problem.centre[stratum])[None]
        # Inputs are read once for several groups.
        step = max(1, 4 * self.chunk_numbers // (len(state.hidden) * stem.n_hidden))
        for start in range(0, len(members), step):
            some = members[start : start + step]
            added = state.hidden.new_empty(len(some), len(state.hidden), stem.n_hidden)
            for part in self.row_chunks(len(state.hidden)):
                x = self.rows(state, part)
                for g, group in enumerate(some):
                    added[g, part] = stem.push_from(group, x)
            for g, (group, z) in enumerate(zip(some, added, strict=True)):
                # Samples' influence by trapezoids, as `contract` has it for components.
                product = torch.einsum("nvh,nh->nv", state.slopes[:n], z[:n])
                own = product + z[:n] @ state.mean_slope.T
                mean = product.mean(0) + (stem.push_from(group, offset) @ state.mean_slope.T)[0]
                known = state.targets[:n] * (own - mean) / 2
                if problem.bank is None:
                    cross = problem.cross_of(slice(0, problem.n_outputs))[stratum]
                    cross = stem.push_from(group, cross)
                    known -= z[:n] @ weighted.T / 2
                    known += torch.einsum("nvh,vh->nv", state.slopes[:n], cross) / 2
                pairs = [
                    torch.einsum("nvh,nh->nv", values, z[:n] - z[second])
                    for values, second in zip(state.pairs, seconds, strict=True)
                ]
                every = slice(0, problem.n_outputs)
                yield GroupDeviations(start + g, every, known, pairs, own / 2)

    def pull(self, slope: Tensor, outputs: slice) -> Tensor:
        """Pull gradients back through the stem."""
        return self.problem.factors.stem.pull(slope[..., outputs, :])

    def mean_at_probe(self, state: BlockState, outputs: slice) -> Tensor:
        """Return E[g] of a block at the probed components, (n_outputs, n)."""
        return self.pull_to_probe(state.mean_slope[outputs])

    def means(self, state: BlockState, outputs: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return a block's mean attribution, E[c g] and E[g], (n_outputs, n_inputs) each.

        The covariance of input and gradient in the first is from some of the samples. Against a
        bank of baselines it is that of what the rounds have met, else of trapezoids.
        """
        n, stratum = state.n_samples, state.block.stratum
        slopes, at_baselines = state.slopes[:n, outputs], state.mean_slope[outputs]
        weighted = torch.einsum("nv,nvh->vh", state.targets[:n, outputs], slopes) / n
        if self.problem.bank is not None:
            # Of a sample all deviations are times its target, which is 0 where none was asked for.
            targets = state.targets[:n, outputs, None]
            deviations = state.residual[:n, outputs] / targets.masked_fill(targets == 0, 1)
            slopes = slopes + (2 / state.n_rounds * deviations).to(slopes.dtype)
        mean = slopes.mean(0)
        offset = self.problem.mean[stratum] - self.problem.centre[stratum]
        some = n if n <= FEW_SAMPLES else N_MOMENT_SAMPLES
        product = weighted.new_zeros(len(mean), self.problem.samples.n_inputs)
        for k, part in enumerate(self.row_chunks(some, len(mean) + 3)):
            first = [at_baselines[None], weighted[None], mean[None]] if k == 0 else []
            # All in one product: of a wide matrix, a few rows take as long as many.
            pulled = self.problem.factors.stem.pull(torch.cat([*first, slopes[part] - mean]))
            if first:
                pulled_baselines, pulled_weighted, pulled_mean = pulled[:3]
                pulled = pulled[3:]
            product += torch.einsum("nl,nvl->vl", self.rows(state, part) - offset, pulled)
        attribution = (product / some + offset * (pulled_mean + pulled_baselines)) / 2
        return attribution, pulled_weighted, pulled_baselines


def _shares(weights: Floats) -> list[tuple[slice, Tensor]]:
    """Share out gradients: slices of the outputs, and the pairs that count for them.

    Either all outputs of a point are differentiated, one after the other, or each output at
    points of its own; whichever takes fewer passes.
    """
    taken = weights > 0
    n_outputs, together = taken.shape[1], taken.any(1)
    if 2 * taken.sum() < (1 + n_outputs) * together.sum():
        columns = [np.flatnonzero(taken[:, v]) for v in range(n_outputs)]
        return [(slice(v, v + 1), torch.from_numpy(rows)) for v, rows in enumerate(columns)]
    return [(slice(0, n_outputs), torch.from_numpy(np.flatnonzero(together)))]
