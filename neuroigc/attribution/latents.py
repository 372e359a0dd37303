"""Many outputs, small input: attributions to the latents before the head serve all outputs.

With A_s the mean integrated gradients of the H latents for sample s, the map of output v is
E[c_sv Σ_k V_vk A_sk]: H backward passes per point instead of one per output, and one dense
product over all outputs per block of samples. What is held is samples of one block x latents x
pixels, never samples x outputs x pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroigc.attribution.accumulators import Sums
from neuroigc.attribution.engine import KEPT_ROUNDS, Engine
from neuroigc.attribution.influences import GroupDeviations
from neuroigc.attribution.latent_contraction import add_latent_map
from neuroigc.attribution.pairs import Block
from neuroigc.attribution.state import BlockState

__all__ = ["LatentEngine"]


class LatentEngine(Engine):
    """Regime of many outputs: one backward pass per latent and point."""

    keeps_inputs = True
    first_rounds = 4
    # Rows of a product of matrices that is as fast as any.
    most_outputs = 512
    # Latents' maps of few samples take much; more of them make for better pairs and errors.
    block_share = 2

    @property
    def head(self) -> Tensor:
        """Return the head's weights (n_outputs, n_latents)."""
        if self.problem.factors.head is None:
            raise RuntimeError("the regime of many outputs needs an affine head")
        return self.problem.factors.head[0]

    @property
    def bytes_per_sample(self) -> int:
        """Return the memory that one sample takes: its latents' maps."""
        numbers = self.problem.samples.n_inputs + 3 * self.problem.columns.n_columns
        numbers += KEPT_ROUNDS * self.problem.columns.n_groups
        return 8 * self.head.shape[1] * numbers

    def rows_at_once(self) -> int:
        """Return how many points are differentiated at once, so that latents' maps stay small."""
        if self.settings.n_rows is not None:
            return self.settings.n_rows
        numbers = self.head.shape[1] * self.problem.samples.n_inputs
        return min(max(2 * self.chunk_numbers // numbers, 8), 512)

    def open(self, block: Block) -> BlockState:
        """Take the gradients of the latents at the samples."""

        def slopes(hidden: Tensor) -> Tensor:
            parts = torch.split(hidden, self.rows_at_once())
            return torch.cat([self._differentiate(p, block.stratum) for p in parts])

        state = self.start(block, slopes, self.problem.columns.n_columns + 1)
        for part in self.row_chunks(state.n_samples, self.head.shape[1]):
            maps = (state.slopes[part] + state.mean_slope) * (self.rows(state, part)[:, None] / 2)
            state.probe += self._probe(state, self._columns(maps), part)
        self.close_probe(state)
        return state

    def pull(self, slope: Tensor, outputs: slice) -> Tensor:
        """Turn latents' gradients into outputs'."""
        return self.head[outputs] @ slope

    def cross_product(self, state: BlockState, outputs: slice) -> Tensor:
        """Return n E[c x] E[g] of a block, summed over the input, (n_outputs,)."""
        n = state.n_samples
        cross = state.targets[:n, outputs].T @ self.rows(state, slice(0, n))
        return (cross * self.pull(state.mean_slope, outputs)).sum(1)

    def _differentiate(self, points: Tensor, stratum: int) -> Tensor:
        """Return latents' gradients at the input (n, n_latents, n_inputs)."""
        pull = self.problem.factors.stem.pull
        return self.differentiate(points, stratum, latent=True, after=pull)

    def _columns(self, maps: Tensor) -> Tensor:
        """Reduce maps (..., n_inputs) to columns and, last, their total."""
        return torch.cat([self.problem.columns.reduce(maps), maps.sum(-1, keepdim=True)], -1)

    def contract_latents(
        self, targets: Tensor, maps: Tensor, outputs: slice, out: Tensor | None = None
    ) -> Tensor:
        """Return Σ_s c_sv Σ_k V_vk A_sk of maps (n, n_latents, any), for some outputs v.

        Parameters
        ----------
        targets : Tensor of shape (n, n_outputs)
        maps : Tensor of shape (n, n_latents, any)
        outputs : slice
        out : Tensor of shape (n_outputs of the slice, any), optional
            Where to put it.
        """
        weights = (targets[:, outputs].T[:, :, None] * self.head[outputs, None]).flatten(1)
        return torch.mm(weights, maps.flatten(0, 1), out=out)

    def _probe(self, state: BlockState, maps: Tensor, part: slice) -> Tensor:
        """Return the outputs' map on the probed components, and its total over all."""
        probed = torch.cat([maps[..., self.probe_columns], maps[..., -1:]], -1)
        targets = state.targets[part]
        slices = self.output_slices
        return torch.cat([self.contract_latents(targets, probed, v) for v in slices])

    def advance(self, state: BlockState, shift: int) -> None:
        """Add one round of pairs to the samples' mean attributions to latents."""
        second, weight = self.on_device(state, self.draw(state))
        residual = torch.zeros_like(state.residual, dtype=state.slopes.dtype)
        inputs = self.rows(state, slice(None))

        def slopes(points: Tensor) -> Tensor:
            return self._differentiate(points, state.block.stratum)

        indices, latents = torch.arange(state.n_samples, device=second.device), slice(None)
        for rows, maps in self.deviations(state, indices, second, shift, latents, slopes):
            maps *= (inputs[rows] - inputs[second[rows]])[:, None] * weight
            residual[rows] = self._columns(maps)
        if state.n_rounds < self.n_kept_rounds:
            groups = slice(self.problem.columns.n_components, -1)
            state.pairs.append(residual[: state.n_samples, :, groups].clone())
        if self.problem.bank is None:
            # What a pair gives to one sample, it takes from the other.
            residual.index_add_(0, second, residual[: state.n_samples].clone(), alpha=-1)
        everyone = slice(0, state.n_samples)
        self.record(state, residual, self._probe(state, residual[everyone], everyone))

    @property
    def n_kept_numbers(self) -> int:
        """Return how many numbers are kept of a pair."""
        return self.head.shape[1] * self.problem.columns.n_groups

    def group_deviations(self, state: BlockState) -> Iterator[GroupDeviations]:
        """Yield what the kept pairs deviate: latents' attributions to groups, by the head."""
        n, n_outputs = state.n_samples, self.problem.n_outputs
        width = max(1, self.chunk_numbers // n)
        for group in range(self.problem.columns.n_groups):
            column = self.problem.columns.n_components + group
            own = (state.residual[:n, :, column] / state.n_rounds).to(state.slopes.dtype)
            for first in range(0, n_outputs, width):
                outputs = slice(first, min(first + width, n_outputs))
                head = self.head[outputs].T
                yield GroupDeviations(
                    group,
                    outputs,
                    -(own @ head) * state.targets[:n, outputs],
                    [values[:, :, group] @ head for values in state.pairs],
                )

    def add_map(self, state: BlockState, sums: Sums) -> tuple[Tensor, Tensor] | None:
        """Add a block's part of the map and, in the first sweep, of its sampling variance."""
        return add_latent_map(self, state, sums)

    def sample_maps(self, state: BlockState, part: slice, x: Tensor) -> Iterator[Tensor]:
        """Yield rows' mean attributions, for each slice of outputs."""
        maps = self._latent_maps(state, part, x)
        for outputs in self.output_slices:
            yield self.head[outputs] @ maps

    def latent_maps(self, state: BlockState, *, with_mean: bool = True) -> Tensor:
        """Return the samples' mean attributions to latents, (n_samples, n_latents, n_columns).

        Without the mean gradient at the baselines, only what a sample's own gradients add.
        """
        n, columns = state.n_samples, self.problem.columns
        maps = state.slopes.new_empty(n, state.slopes.shape[1], columns.n_columns)
        for part in self.row_chunks(n, self.head.shape[1]):
            x = self.rows(state, part)
            maps[part] = self._latent_maps(state, part, x, with_mean=with_mean)
        return maps

    def _latent_maps(
        self, state: BlockState, part: slice, x: Tensor, *, with_mean: bool = True
    ) -> Tensor:
        """Return rows' mean attributions to latents, (n, n_latents, n_columns)."""
        slopes = state.slopes[part]
        slopes = slopes + state.mean_slope if with_mean else slopes
        maps = self.problem.columns.reduce(slopes * x[:, None]) / 2
        maps += (state.residual[part, :, :-1] / state.n_rounds).to(maps.dtype)
        return maps
