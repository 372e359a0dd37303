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
from neuroigc._team import Team
from neuroigc._validation import InputError
from neuroigc.attribution.accumulators import Sums
from neuroigc.attribution.checkpoint import load_state, save_state
from neuroigc.attribution.engine import Engine
from neuroigc.attribution.pairs import Block, draw_blocks
from neuroigc.attribution.state import BlockState

__all__ = ["Estimate", "Estimator", "exceeds", "is_same", "numerical_errors"]

# Bytes of the samples' state up to which it is kept between rounds. Which pairs are drawn depends
# on it and on the size of blocks, so neither depends on the memory that may be used.
HELD_BYTES = 2**26
BLOCK_BYTES = 2**27
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 512
# Where states are not kept, so many samples tell how many rounds the first sweep needs.
SMALLEST_PILOT = 512
# The completeness gap wanted is this share of the tolerance: 0.01 at the default of 0.05.
GAP_SHARE = 0.2
# Up to so many outputs, each has to meet the tolerance; of more, the median one.
FEW_OUTPUTS = 10
SECONDS_BETWEEN_SAVES = 30.0
# Numbers of gradients so close to a whole one are meant to be it.
ROUNDING = 1e-9


@dataclass
class Estimate:
    """An estimate of the map and of its errors.

    Attributes
    ----------
    sums : Sums
        Over rounds and samples; of this shard's samples alone if there are shards.
    n_rounds, n_sweeps : int
    n_gradients : int
        Per sample.
    """

    sums: Sums
    n_rounds: int
    n_sweeps: int
    n_gradients: int


class Estimator:
    """Runs an engine over blocks of samples, round after round.

    Samples are cut into blocks in a random order, a sweep. Pairs are drawn within blocks; once
    all pairs of the blocks were drawn, or where the state of all blocks is too much to keep,
    another sweep cuts the samples anew. All this depends on the samples and the seed alone.

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
    team : Team
        Shares the blocks. Members that do not talk cannot tell the error of the whole; they take
        all gradients allowed.
    sums : Sums, optional
        To add to, such as sums in files.
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
        team: Team = Team(),  # noqa: B008 - immutable
        sums: Sums | None = None,
    ) -> None:
        self.engine, self.tolerance, self.max_gradients = engine, tolerance, max_gradients
        self.checkpoint, self.identity, self.progress = checkpoint, identity, progress
        self.team = team
        problem, per_sample = engine.problem, engine.bytes_per_sample
        self.holds = problem.n_samples * per_sample <= HELD_BYTES
        fitting = BLOCK_BYTES * engine.block_share // per_sample
        self.largest_block = max(SMALLEST_BLOCK, min(LARGEST_BLOCK, fitting))
        self.held: dict[int, BlockState] = {}
        self.sums = Sums() if sums is None else sums
        self.n_rounds = 0
        # Of the sweep at hand: its number, its first round, the round to reach, the next block.
        self.sweep, self.sweep_start, self.sweep_end, self.next_block = 0, 0, 0, 0
        self._saved_at = time.monotonic()

    def run(self) -> Estimate:
        """Add rounds until both errors are small enough, or the gradients spent."""
        self._resume()
        # After an interruption, a step that was begun comes first.
        while self.n_rounds < self.sweep_end or (wanted := self._rounds_wanted()):
            if self.n_rounds == self.sweep_end:
                self.sweep_end = self.n_rounds + wanted
            self._step()
        self._close_sweep()
        self.engine.close(self.sums)
        self._add_up(self.sums)
        n_gradients = self.sweep + self.n_rounds * self.engine.cost
        return Estimate(
            sums=self.sums,
            n_rounds=self.n_rounds,
            n_sweeps=self.sweep,
            n_gradients=math.ceil(n_gradients - ROUNDING),
        )

    def _blocks(self) -> list[Block]:
        """Cut the samples into the blocks of this sweep, and return this member's."""
        return self.team.mine(self._all_blocks())

    def _all_blocks(self) -> list[Block]:
        problem = self.engine.problem
        return draw_blocks(
            problem.strata,
            problem.keys,
            max_size=self.largest_block,
            sweep=self.sweep,
            seed=self.engine.settings.seed,
        )

    def _step(self) -> None:
        """Take all blocks through the next rounds."""
        label = f"pairs, rounds {self.n_rounds + 1}-{self.sweep_end}"
        rest = self._blocks()[self.next_block :]
        for block in track(rest, show=self.progress, label=label, total=len(rest)):
            self._take(block)
        self.n_rounds, self.next_block = self.sweep_end, 0
        if not self.holds:
            self._next_sweep()
        self._save()

    def _take(self, block: Block) -> None:
        """Take one block through the rounds it lacks; those of the pilot have some behind them."""
        state = self.held.pop(block.index, None) or self.engine.open(block)
        if self.holds:
            self.held[block.index] = state
        for shift in range(self.sweep_start + state.n_rounds, self.sweep_end):
            self.engine.advance(state, shift)
            if self.holds:
                self._save_at_times()
        if not self.holds:
            self.engine.fold(state, self.sums)
            self.engine.contract(state, self.sums)
            self.next_block += 1
            self._save_at_times()

    @property
    def _in_sweep(self) -> bool:
        """Return whether more rounds may be added to the sweep at hand."""
        return self.holds and self.n_rounds > self.sweep_start

    def _close_sweep(self) -> None:
        """Add the sums of the blocks that were kept."""
        if not self._in_sweep:
            return
        for index in sorted(self.held):
            self.engine.fold(self.held[index], self.sums)
            self.engine.contract(self.held.pop(index), self.sums)
        self._next_sweep()

    def _next_sweep(self) -> None:
        self.sweep, self.sweep_start = self.sweep + 1, self.n_rounds

    def _errors(self) -> tuple[Tensor, Tensor]:
        """Return relative numerical errors and completeness gaps so far, (n_outputs,) each."""
        sums = Sums()
        for name in ("probe", "probe_variance", "slope"):
            if name in self.sums:
                sums.add(name, self.sums[name])
        for state in self.held.values():
            self.engine.fold(state, sums)
        probe = Sums()
        problem, n_probe = self.engine.problem, len(self.engine.probe_columns) + 1
        empty = torch.zeros(problem.n_outputs, n_probe, device=problem.targets.device)
        probe.add("probe", self.engine.closed_probe(sums) if "probe" in sums else empty)
        probe.add("probe_variance", sums["probe_variance"] if "probe" in sums else empty)
        self._add_up(probe)
        total = probe["probe"][:, -1] / self.n_rounds / problem.n_samples
        return numerical_errors(probe, self.n_rounds), total / problem.scale - problem.correlation

    def _add_up(self, sums: Sums) -> None:
        """Add up the sums of all members that talk, those without a block included."""
        self.team.add_up(sums.values, self.engine.problem.targets)

    def _rounds_wanted(self) -> int:
        """Return how many rounds to add, from the errors so far."""
        done, first = self.n_rounds, self.engine.first_rounds
        partial = [block.n_distances for block in self._all_blocks() if block.is_partial]
        spare = self.max_gradients - (self.sweep + 1)
        allowed = math.floor(spare / self.engine.cost + ROUNDING) - done
        if self._in_sweep and partial:
            left = min(partial) - (done - self.sweep_start)
            if left <= 0 and allowed > 2 and self._goes_on():
                # All pairs were drawn; others come with another cut.
                self._close_sweep()
                return self._rounds_wanted()
            allowed = min(allowed, left)
        elif not self.holds and (self.sweep or not self._pilot_blocks()):
            # A sweep begins with gradients at the samples, so later ones are longer.
            allowed = min(allowed, first * 2 ** max(self.sweep - 1, 0))
        # Parts of strata are cut anew before their pairs come again.
        allowed = min([allowed, *partial])
        if done == 0:
            return min(first, allowed) if self.holds else self._pilot(allowed)
        if allowed < (1 if self._in_sweep else 2):
            return 0
        if self.team.is_shard:
            return allowed
        errors, gaps = self._errors()
        if not exceeds(errors, gaps, self.tolerance):
            return 0
        # Errors fall with the root of the rounds; of gaps there is but one draw to go by.
        by_gap = min((_typical(gaps) / (GAP_SHARE * self.tolerance)) ** 2, 2.0)
        factor = max(1.1 * (_typical(errors) / self.tolerance) ** 2, by_gap)
        return min(max(2, math.ceil(done * min(factor, 4.0)) - done), allowed)

    def _pilot_blocks(self) -> list[Block]:
        """Return as many blocks as may be kept, from all over the samples; none if too few."""
        blocks, n_samples = self._all_blocks(), self.engine.problem.n_samples
        n_kept = HELD_BYTES // (self.engine.bytes_per_sample * -(-n_samples // len(blocks)))
        chosen = blocks[:: -(-len(blocks) // n_kept)] if n_kept else []
        return chosen if sum(len(b.samples) for b in chosen) >= SMALLEST_PILOT else []

    def _pilot(self, allowed: int) -> int:
        """Return how many rounds the first sweep is to have, from the error of a part of it."""
        blocks, first = self._pilot_blocks(), min(self.engine.first_rounds, allowed)
        if not blocks:
            return first
        if self.team.is_shard:
            return allowed
        mine = {block.index for block in self._blocks()}
        for block in blocks:
            if block.index in mine:
                self.held[block.index] = self.engine.open(block)
                for shift in range(first):
                    self.engine.advance(self.held[block.index], shift)
        share = sum(len(block.samples) for block in blocks) / self.engine.problem.n_samples
        self.n_rounds = first
        error = _typical(self._errors()[0]) * math.sqrt(share)
        self.n_rounds = 0
        wanted = math.ceil(1.1 * first * (error / self.tolerance) ** 2)
        return min(max(first, wanted), allowed)

    def _goes_on(self) -> bool:
        return self.team.is_shard or exceeds(*self._errors(), self.tolerance)

    def _save_at_times(self) -> None:
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.checkpoint is None:
            return
        position = [self.n_rounds, self.sweep, self.sweep_start, self.sweep_end, self.next_block]
        arrays: dict[str, NDArray[Any]] = {
            "position": np.array(position),
            "correlation": self.engine.problem.correlation.cpu().numpy(),
            "scale": self.engine.problem.scale.cpu().numpy(),
        }
        arrays |= {f"sums/{name}": a for name, a in self.sums.to_arrays().items()}
        arrays |= {f"files/{name}": a for name, a in self.sums.snapshot().items()}
        for index, state in self.held.items() if self.holds else ():
            arrays |= {f"block{index}/{name}": a for name, a in state.to_arrays().items()}
        save_state(self.checkpoint, self.identity, arrays)
        self.sums.tidy()

    def _resume(self) -> None:
        with self.team.together():
            arrays = None if self.checkpoint is None else load_state(self.checkpoint, self.identity)
            if arrays is not None:
                self._take_up(arrays)
        steps = self.team.gather((self.sweep, self.sweep_start, self.sweep_end))
        sweep, start, end = max(steps)
        with self.team.together():
            if any(their not in (sweep, sweep - 1) for their, _, _ in steps):
                raise InputError(
                    "checkpoint",
                    expected="files that all processes wrote in one run",
                    got=f"{self.checkpoint}, and others of an earlier one",
                    fix="Delete the files of all processes to start anew.",
                )
        if self.sweep < sweep:
            # A member that was stopped a step behind the others catches up with their sweep.
            self.sweep_end = start
            if self.n_rounds < start:
                self._step()
            self._close_sweep()
        self.sweep_end = end

    def _take_up(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name in ("correlation", "scale"):
            # What a model computes is not told by its weights alone.
            if not is_same(arrays[name], getattr(self.engine.problem, name).cpu().numpy()):
                raise InputError(
                    "checkpoint",
                    expected="sums of this very analysis",
                    got=f"{self.checkpoint} with those of another model",
                    fix="Name another file, or delete this one to start anew.",
                )
        position = (int(number) for number in arrays["position"])
        self.n_rounds, self.sweep, self.sweep_start, self.sweep_end, self.next_block = position

        def under(prefix: str) -> dict[str, NDArray[Any]]:
            names = [name for name in arrays if name.startswith(prefix)]
            return {name.removeprefix(prefix): arrays[name] for name in names}

        self.sums.restore(under("files/"))
        self.sums.take(under("sums/"), self.engine.problem.targets.device)
        for block in self._blocks() if self.holds else []:
            if mine := under(f"block{block.index}/"):
                state = self.engine.open(block)
                state.take(mine)
                self.held[block.index] = state


def numerical_errors(sums: Sums, n_rounds: int) -> Tensor:
    """Return the numerical error of each output's map, relative to its norm, (n_outputs,)."""
    variance = (sums["probe_variance"] / n_rounds**2)[:, :-1].sum(1)
    size = ((sums["probe"] / n_rounds)[:, :-1] ** 2).sum(1)
    return torch.where(variance > 0, (variance / size).sqrt(), 0.0)


def is_same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Tell whether what two models say of the same data is the same, but for rounding."""
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max()))


def exceeds(errors: Any, gaps: Any, tolerance: float) -> bool:
    """Return whether numerical errors or completeness gaps are larger than is wanted."""
    return _typical(errors) > tolerance or _typical(gaps) > GAP_SHARE * tolerance


def _typical(errors: Any) -> float:
    sizes = torch.as_tensor(errors).abs()
    return float(sizes.max() if len(sizes) <= FEW_OUTPUTS else sizes.median())
