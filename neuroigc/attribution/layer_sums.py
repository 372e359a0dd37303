"""Units' integrated gradients over pairs of samples, summed by random groups of these."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._progress import track
from neuroigc.attribution.covariance import (
    N_SAMPLE_GROUPS,
    GroupedCovariance,
    draw_sample_groups,
)
from neuroigc.attribution.layer_paths import LayerPaths, region_steps
from neuroigc.attribution.pairs import draw_bank_pairs, draw_blocks, draw_pairs
from neuroigc.attribution.problem import Problem

__all__ = ["LayerSums"]

# Numbers of the sums over all groups of samples, and of the steps of all samples' regions.
SUM_NUMBERS, STEP_NUMBERS = 2**26, 2**26


class LayerSums:
    """Sums over pairs of samples, by random groups of these.

    Parameters
    ----------
    problem : Problem
    paths : LayerPaths
    n_pairs, batch_size, seed : int
    progress : bool
    """

    def __init__(
        self,
        problem: Problem,
        paths: LayerPaths,
        n_pairs: int,
        batch_size: int,
        seed: int,
        progress: bool,
    ) -> None:
        self.problem, self.paths, self.seed, self.progress = problem, paths, seed, progress
        self.paired = problem.bank is None
        n_directions = 1 + problem.columns.n_groups
        self.n_units = paths.n_units
        self.n_values = n_directions * (self.n_units + paths.between_inputs)
        held = max(paths.n_values * self.n_values, problem.factors.stem.n_hidden * n_directions)
        self.n_rows = max(1, min(batch_size, problem.samples.chunk_numbers // held))
        n_groups = SUM_NUMBERS // (problem.n_outputs * self.n_values)
        self.groups = draw_sample_groups(problem, seed, min(N_SAMPLE_GROUPS, max(8, n_groups)))
        device = problem.targets.device
        self.group_of = torch.empty(problem.n_samples, dtype=torch.int64, device=device)
        for g, members in enumerate(self.groups):
            self.group_of[torch.from_numpy(members).to(device)] = g
        self.sums = torch.zeros(
            len(self.groups), problem.n_outputs, self.n_values, dtype=torch.float64, device=device
        )
        self.stratum_sizes = np.bincount(problem.strata)
        self.mean = self.sums.new_zeros(len(self.stratum_sizes), *self.sums.shape[1:])
        self.round = self.sums.new_zeros(problem.n_outputs, self.n_units)
        self.round_total, self.round_squares = self.round.clone(), self.round.clone()
        self.blocks = draw_blocks(problem.strata, problem.keys, seed=seed)
        # Once all pairs of a block were drawn, others would be the same again.
        self.n_rounds = [
            min(n_pairs, block.n_distances) if problem.bank is None else len(problem.bank)
            for block in self.blocks
        ]
        self.steps = self._steps()

    def _steps(self) -> Tensor | None:
        """Return what regions add behind the stem, of all samples, if that is not too much."""
        regions, stem = self.problem.columns.groups, self.problem.factors.stem
        if self.problem.n_samples * len(regions) * stem.n_hidden > STEP_NUMBERS or not regions:
            return None
        samples = self.problem.samples
        with torch.no_grad():
            parts = [
                region_steps(self.problem.factors, regions, samples.rows(part))
                for part in samples.chunks()
            ]
        return torch.cat(parts)

    def _steps_of(self, index: NDArray[np.int64]) -> Tensor:
        regions = self.problem.columns.groups
        if self.steps is not None:
            return self.steps[torch.from_numpy(index).to(self.steps.device)]
        return region_steps(self.problem.factors, regions, self.problem.samples.rows(index))

    def run(self) -> None:
        """Add all pairs, round by round."""
        n_rounds = max(self.n_rounds)
        for shift in track(range(n_rounds), show=self.progress, label="layer correlation"):
            self.round.zero_()
            for block, wanted in zip(self.blocks, self.n_rounds, strict=True):
                if shift < wanted:
                    if self.problem.bank is None:
                        pairs = draw_pairs(block, shift, seed=self.seed)
                    else:
                        pairs = draw_bank_pairs(
                            block, len(self.problem.bank), shift, seed=self.seed
                        )
                    weight = pairs.weight / wanted
                    for start in range(0, len(pairs.first), self.n_rows):
                        part = slice(start, start + self.n_rows)
                        first = block.samples[pairs.first[part]]
                        second = pairs.second[part]
                        second = block.samples[second] if self.paired else second
                        self._add(first, second, block.stratum, weight)
            self.round_total += self.round
            self.round_squares += self.round**2

    def _add(
        self, first: NDArray[np.int64], second: NDArray[np.int64], stratum: int, weight: float
    ) -> None:
        """Add some pairs of samples, or of samples and baselines."""
        problem, device = self.problem, self.sums.device
        i, j = (torch.from_numpy(index).to(device) for index in (first, second))
        ends, change = problem.hidden_of(first), problem.targets[i]
        steps = self._steps_of(first)
        if problem.bank is None:
            starts, steps = problem.hidden_of(second), steps - self._steps_of(second)
            change = change - problem.targets[j]
        else:
            with torch.no_grad():
                starts = problem.factors.stem(problem.bank[j])
                regions = problem.columns.groups
                steps = steps - region_steps(problem.factors, regions, problem.bank[j])
        conditions = problem.condition_of(stratum, len(first))
        units, through = self.paths.integrate(starts, ends, steps, conditions)
        values = units.flatten(2)
        if through.numel():
            values = torch.cat([values, through], 2)
        member = torch.nn.functional.one_hot(self.group_of[i], len(self.groups))
        if problem.bank is None:
            # A pair belongs to both of its samples, half to each.
            member = (member + torch.nn.functional.one_hot(self.group_of[j], len(self.groups))) / 2
        member = member.to(values.dtype) * weight
        for v in range(problem.n_outputs):
            own = self.paths.as_output(v, values)
            weighted = (member * change[:, v, None]).T @ own
            self.sums[:, v] += weighted
            self.round[v] += weighted[:, : self.n_units].sum(0)
            if problem.bank is not None:
                share = weight / int(self.stratum_sizes[stratum])
                self.mean[stratum, v] += own.sum(0) * share

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return values and standard errors, (n_outputs, n_values + 1).

        Units, all input together and then by region; what goes through regions, where paths begin
        at inputs, in the same order; last what passes by the layer.
        """
        covariance = GroupedCovariance(self.problem, self.groups, paired=self.paired)
        for g, sums in enumerate(self.sums):
            covariance.add(g, self._with_remainder(sums))
        mean = None
        if not self.paired:
            mean = torch.stack([self._with_remainder(mean) for mean in self.mean])
        values, errors = (part.cpu().numpy() for part in covariance.finish(mean))
        return values, errors

    def _with_remainder(self, sums: Tensor) -> Tensor:
        """Add what passes by the layer to sums (n_outputs, n_values)."""
        if not self.paths.between_inputs:
            return torch.cat([sums, torch.zeros_like(sums[:, :1])], 1)
        whole = (1 + self.problem.columns.n_groups) * self.n_units
        past = sums[:, whole, None] - sums[:, : self.n_units].sum(1, keepdim=True)
        return torch.cat([sums, past], 1)

    def numerical_error(
        self, units: NDArray[np.float64], gap: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return errors of the units' values relative to their norm."""
        k = max(self.n_rounds)
        spread = self.round_squares - self.round_total**2 / k
        variance = (spread.clamp(min=0).sum(1) * k / max(k - 1, 1)).cpu().numpy()
        n_shares = self.problem.n_samples * (2 if self.paired else 1)
        scale = (self.problem.scale * n_shares).cpu().numpy()
        left = 1 - k / max(block.n_distances for block in self.blocks) if self.paired else 0.0
        size = np.maximum(np.linalg.norm(units, axis=1), np.finfo(float).tiny)
        errors: NDArray[np.float64] = np.sqrt(variance * left / scale**2 + gap**2) / size
        return errors
