"""Rounds of pairs until the numerical error is small enough."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._progress import track
from neuroigc.attribution.accumulators import Sums
from neuroigc.attribution.checkpoint import load_state, save_state
from neuroigc.attribution.engine import Engine
from neuroigc.attribution.pairs import Block, draw_blocks
from neuroigc.attribution.state import BlockState

__all__ = ["Estimate", "Estimator"]

# Bytes of per-sample state that may be kept between rounds; beyond, samples come in blocks.
HELD_BYTES = 2**29
BLOCK_BYTES = 2**28
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 4096
# The completeness gap wanted is this share of the tolerance: 0.01 at the default of 0.05.
GAP_SHARE = 0.2
# Up to so many outputs, each has to meet the tolerance; of more, the median one.
FEW_OUTPUTS = 10
SECONDS_BETWEEN_SAVES = 30.0


@dataclass
class Estimate:
    """An estimate of the map and of its errors.

    Attributes
    ----------
    covariance : Tensor of shape (n_outputs, n_columns)
        Mean over samples; divided by both standard deviations it is IGC.
    sums : Sums
    n_rounds : int
    n_gradients : int
        Per sample.
    numerical_error : Tensor of shape (n_outputs,)
        Relative to the norm of the map.
    is_accurate : bool
        Whether error and completeness gap are as small as was wanted.
    """

    covariance: Tensor
    sums: Sums
    n_rounds: int
    n_gradients: int
    numerical_error: Tensor
    is_accurate: bool


class Estimator:
    """Runs an engine over blocks of samples, round after round.

    Parameters
    ----------
    engine : Engine
    tolerance : float
    max_gradients : int
        Per sample.
    checkpoint : Path or None
    identity : str
        Digest of the analysis, to tell its checkpoint from others.
    progress : bool
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tolerance: float,
        max_gradients: int,
        checkpoint: Path | None,
        identity: str,
        progress: bool,
    ) -> None:
        self.engine, self.tolerance, self.max_gradients = engine, tolerance, max_gradients
        self.checkpoint, self.identity, self.progress = checkpoint, identity, progress
        problem, per_sample = engine.problem, engine.bytes_per_sample
        self.holds = problem.n_samples * per_sample <= HELD_BYTES
        bounded = max(SMALLEST_BLOCK, min(LARGEST_BLOCK, BLOCK_BYTES // per_sample))
        self.largest_block = None if self.holds else bounded
        self.held: dict[int, BlockState] = {}
        self.sums = Sums()
        self.n_rounds = 0
        self.n_sweeps = 0
        # Where a sweep stands: its last round, and the block that comes next.
        self.sweep_end = 0
        self.next_block = 0
        self._saved_at = time.monotonic()

    def run(self) -> Estimate:
        """Add rounds until both errors are small enough, or the gradients spent."""
        self._resume()
        while self.next_block or (wanted := self._rounds_wanted()):
            if not self.next_block:
                self.sweep_end = self.n_rounds + wanted
            self._sweep()
        sums = self.sums
        if self.holds:
            sums = Sums()
            for index in sorted(self.held):
                self.engine.fold(self.held[index], sums)
                self.engine.contract(self.held.pop(index), sums)
        errors, gaps = self._errors(sums)
        return Estimate(
            covariance=self.engine.assemble(sums, self.n_rounds) / self.engine.problem.n_samples,
            sums=sums,
            n_rounds=self.n_rounds,
            n_gradients=self.n_rounds * self.engine.settings.n_points + self.n_openings,
            numerical_error=errors,
            is_accurate=self._excess(errors, gaps) <= 1,
        )

    @property
    def n_openings(self) -> int:
        """Return how often the gradients at the samples have been taken."""
        return 1 if self.holds else self.n_sweeps

    def _blocks(self) -> list[Block]:
        """Cut the samples into the blocks of this sweep: whole strata, or ever new parts."""
        return draw_blocks(
            self.engine.problem.strata,
            max_size=self.largest_block,
            sweep=0 if self.holds else self.n_sweeps,
            seed=self.engine.settings.seed,
        )

    def _sweep(self) -> None:
        """Take all blocks through the next rounds."""
        shifts = range(self.n_rounds, self.sweep_end)
        label = f"pairs, rounds {self.n_rounds + 1}-{self.sweep_end}"
        rest = self._blocks()[self.next_block :]
        for block in track(rest, show=self.progress, label=label, total=len(rest)):
            self._take(block, shifts)
        self.n_rounds, self.next_block = self.sweep_end, 0
        self.n_sweeps += 1
        self._save()

    def _take(self, block: Block, shifts: range) -> None:
        state = self.held.pop(block.index, None) or self.engine.open(block)
        for shift in shifts:
            self.engine.advance(state, shift)
        if self.holds:
            self.held[block.index] = state
            return
        self.engine.fold(state, self.sums)
        self.engine.contract(state, self.sums)
        self.next_block = block.index + 1
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self._save()

    def _errors(self, sums: Sums) -> tuple[Tensor, Tensor]:
        """Return relative numerical errors and completeness gaps, (n_outputs,) each."""
        problem = self.engine.problem
        whole = self.engine.assemble_probe(sums, self.n_rounds)
        variance = (sums["probe_variance"] / self.n_rounds**2)[:, :-1].sum(1)
        size = (whole[:, :-1] ** 2).sum(1)
        relative = torch.where(variance > 0, (variance / size).sqrt(), 0.0)
        gap = whole[:, -1] / problem.n_samples / problem.scale - problem.correlation
        return relative, gap

    def _rounds_wanted(self) -> int:
        """Return how many rounds to add, from the errors so far."""
        done, n_points = self.n_rounds, self.engine.settings.n_points
        openings = 1 if self.holds else self.n_sweeps + 1
        allowed = (self.max_gradients - openings) // n_points - done
        partial = [block.n_distances for block in self._blocks() if block.is_partial]
        # Parts of strata are drawn anew before their pairs come again.
        allowed = min([allowed, *partial])
        if done == 0:
            return min(self.engine.first_rounds, allowed)
        if allowed < 2:
            return 0
        sums = self.sums
        if self.holds:
            sums = Sums()
            for state in self.held.values():
                self.engine.fold(state, sums)
        errors, gaps = self._errors(sums)
        if self._excess(errors, gaps) <= 1:
            return 0
        # Errors fall with the root of the rounds; of gaps there is but one draw to go by.
        by_gap = min((self._typical(gaps) / (GAP_SHARE * self.tolerance)) ** 2, 2.0)
        factor = max(1.1 * (self._typical(errors) / self.tolerance) ** 2, by_gap)
        return min(max(2, math.ceil(done * min(factor, 4.0)) - done), allowed)

    def _excess(self, errors: Tensor, gaps: Tensor) -> float:
        """Return the larger of error and gap, in units of what is wanted."""
        wanted_gap = GAP_SHARE * self.tolerance
        return max(self._typical(errors) / self.tolerance, self._typical(gaps) / wanted_gap)

    @staticmethod
    def _typical(errors: Tensor) -> float:
        sizes = errors.abs()
        return float(sizes.max() if len(sizes) <= FEW_OUTPUTS else sizes.median())

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.checkpoint is None:
            return
        position = [self.n_rounds, self.n_sweeps, self.sweep_end, self.next_block]
        arrays: dict[str, NDArray[Any]] = {"position": np.array(position)}
        arrays |= {f"sums/{name}": a for name, a in self.sums.to_arrays().items()}
        for index, state in self.held.items():
            arrays |= {f"block{index}/{name}": a for name, a in state.to_arrays().items()}
        save_state(self.checkpoint, self.identity, arrays)

    def _resume(self) -> None:
        arrays = None if self.checkpoint is None else load_state(self.checkpoint, self.identity)
        if arrays is None:
            return
        self.n_rounds, self.n_sweeps, self.sweep_end, self.next_block = (
            int(number) for number in arrays["position"]
        )
        device = self.engine.problem.targets.device
        sums = {
            name.removeprefix("sums/"): a for name, a in arrays.items() if name.startswith("sums/")
        }
        self.sums = Sums.from_arrays(sums, device)
        for block in self._blocks() if self.holds else []:
            state = self.engine.open(block)
            prefix = f"block{block.index}/"
            mine = {
                name.removeprefix(prefix): a
                for name, a in arrays.items()
                if name.startswith(prefix)
            }
            state.take(mine)
            self.held[block.index] = state
