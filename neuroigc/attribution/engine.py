"""Pairs and points on the one side, sums on the other: what both regimes share.

IGC is half the mean over all pairs of (y_i - y_j) IG(x_i, x_j), divided by both standard
deviations. The integral along each path is taken apart: the straight line between the gradients
at its two ends, whose mean over all pairs has a closed form in the gradients at the samples
alone (trapezoids), plus what the gradient deviates from that line, estimated from one random
point on each of many random pairs. Nothing of this is biased.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroigc.attribution.accumulators import Sums
from neuroigc.attribution.gradients import gradients
from neuroigc.attribution.influences import GroupDeviations, add_group_influences
from neuroigc.attribution.pairs import Block, PairRound, draw_bank_pairs, draw_pairs
from neuroigc.attribution.paths import draw_points
from neuroigc.attribution.permutations import add_null, draw_permutations
from neuroigc.attribution.problem import Problem
from neuroigc.attribution.state import BlockState, Spread

__all__ = ["Engine", "Settings"]

# Cycles through all pairs from which a numerical error can be told.
CYCLES_FOR_SPREAD = 3
# Of the variance between rounds, the part taken to come from which pairs were drawn, the rest
# from the points. It is not known before pairs come again; with a half, errors made are 1.41 times
# those reported at most, when all came from points and all pairs were drawn.
PAIRS_SHARE = 0.5
# Rounds whose pairs are kept one by one for groups' errors; at most, where they take few bytes.
KEPT_ROUNDS, MOST_KEPT_ROUNDS, KEPT_BYTES = 8, 256, 2**26


@dataclass(frozen=True)
class Settings:
    """How to estimate.

    Attributes
    ----------
    seed : int
    n_rows : int or None
        Points differentiated at once; None to choose by memory.
    n_probe : int
        Components on which the numerical error is measured.
    n_sample_groups : int
        Random groups of samples whose spread gives the standard errors.
    n_permutations : int
        Of the targets, whose maps are made beside the map.
    """

    seed: int = 0
    n_rows: int | None = None
    n_probe: int = 256
    n_sample_groups: int = 64
    n_permutations: int = 0


class Engine(ABC):
    """One regime of the estimator.

    Parameters
    ----------
    problem : Problem
    settings : Settings
    """

    #: Whether a block's inputs are kept in memory.
    keeps_inputs = False
    #: Whether `group_deviations` knows the influence of each sample by itself, and the map's
    #: `products` need not be asked.
    knows_samples = False
    #: Outputs whose maps are made at once, at most.
    most_outputs = 2**31
    #: How much of the usual memory the state of a block may take.
    block_share = 1
    #: Rounds of pairs to begin with.
    first_rounds = 4
    #: Gradients per sample that a round of pairs takes.
    cost = 1.0

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings
        self.probe_columns, members = problem.columns.probe(settings.n_probe, settings.seed)
        self.probe_shape, self.probe_members = members.shape, members.reshape(-1)
        self.chunk_numbers = problem.samples.chunk_numbers
        widest = max(problem.samples.n_inputs, problem.columns.n_columns)
        n_maps = min(max(1, self.chunk_numbers // widest), self.most_outputs)
        self.output_slices = [
            slice(v, min(v + n_maps, problem.n_outputs))
            for v in range(0, problem.n_outputs, n_maps)
        ]
        self.permuted: Tensor | None = None
        if settings.n_permutations:
            drawn = draw_permutations(
                problem.strata, problem.keys, settings.n_permutations, settings.seed
            )
            self.permuted = torch.from_numpy(drawn).to(problem.targets.device)

    @property
    @abstractmethod
    def bytes_per_sample(self) -> int:
        """Return the memory that one sample of a block takes while it is worked on."""

    @property
    @abstractmethod
    def n_kept_numbers(self) -> int:
        """Return how many numbers are kept of a pair."""

    @abstractmethod
    def open(self, block: Block) -> BlockState:
        """Take the gradients at the samples of a block."""

    @abstractmethod
    def advance(self, state: BlockState, shift: int) -> None:
        """Add a round of pairs; its number decides where on the paths points are taken."""

    @abstractmethod
    def add_map(self, state: BlockState, sums: Sums) -> tuple[Tensor, Tensor] | None:
        """Add a block's part of the map, and of its sampling variance.

        Returns
        -------
        on_groups : Tensor of shape (n_sample_groups, n_outputs, n_groups)
            Influence of random groups of samples on the values of groups of components.
        group_of : Tensor of shape (n_samples,)
            Group of each sample.
            None instead of both, if the variance is known by now.
        """

    @abstractmethod
    def pull(self, slope: Tensor, outputs: slice) -> Tensor:
        """Map sums of gradients (..., n_values, any) to outputs' at the input."""

    def mean_at_probe(self, state: BlockState, outputs: slice) -> Tensor:
        """Return E[g] of a block at the probed components, (n_outputs, n)."""
        return self.pull(state.mean_slope, outputs)[:, self.probe_members]

    @abstractmethod
    def cross_product(self, state: BlockState, outputs: slice) -> Tensor:
        """Return n E[c x] E[g] of a block, summed over the input, (n_outputs,)."""

    @abstractmethod
    def group_deviations(self, state: BlockState) -> Iterator[GroupDeviations]:
        """Yield what the kept pairs deviate, by group of components and slice of outputs."""

    @abstractmethod
    def sample_maps(self, state: BlockState, part: slice, x: Tensor) -> Iterator[Tensor]:
        """Yield rows' mean attributions (n, n_outputs, n_columns), for each slice of outputs."""

    def start(self, block: Block, slopes: Callable[[Tensor], Tensor], width: int) -> BlockState:
        """Return the state of a block before its first round, its probe still empty."""
        problem, n = self.problem, len(block.samples)
        hidden = problem.hidden_of(block.samples)
        targets = problem.targets[torch.from_numpy(block.samples)].to(hidden.dtype)
        if problem.bank is not None:
            with torch.no_grad():
                hidden = torch.cat([hidden, problem.factors.stem(problem.bank)])
            targets = torch.cat([targets, targets.new_zeros(len(problem.bank), targets.shape[1])])
        at_rows = slopes(hidden)
        inputs, probed = None, self._read_probe(block)
        if self.keeps_inputs:
            inputs = torch.cat([self.read(block, part) for part in self.row_chunks(len(hidden))])
        zeros = hidden.new_zeros(
            problem.n_outputs, len(self.probe_columns) + 1, dtype=torch.float64
        )
        return BlockState(
            block=block,
            targets=targets,
            hidden=hidden,
            inputs=inputs,
            probe_inputs=probed,
            slopes=at_rows,
            mean_slope=(at_rows if problem.bank is None else at_rows[n:]).mean(0),
            residual=hidden.new_zeros(len(hidden), at_rows.shape[1], width, dtype=torch.float64),
            probe=zeros,
            rounds=Spread(zeros),
            cycles=Spread(zeros),
        )

    def read(self, block: Block, part: slice) -> Tensor:
        """Read inputs (n, n_inputs) of some rows of a block, centred on the mean baseline."""
        n, bank = len(block.samples), self.problem.bank
        start, stop, _ = part.indices(n if bank is None else n + len(bank))
        inputs = self.problem.samples.rows(block.samples[start : min(stop, n)])
        if bank is not None and stop > n:
            inputs = torch.cat([inputs, bank[max(start - n, 0) : stop - n]])
        # Picked by index, they are a copy.
        return inputs.sub_(self.problem.centre[block.stratum])

    def _read_probe(self, block: Block) -> Tensor:
        """Read the probed components of all rows of a block, centred likewise."""
        members, bank = self.probe_members, self.problem.bank
        inputs = self.problem.samples.components(block.samples, members.cpu().numpy())
        if bank is not None:
            inputs = torch.cat([inputs, bank[:, members]])
        return inputs - self.problem.centre[block.stratum, members]

    def rows(self, state: BlockState, part: slice) -> Tensor:
        """Return inputs of some rows of a block, centred on the mean baseline."""
        return self.read(state.block, part) if state.inputs is None else state.inputs[part]

    def row_chunks(self, n: int, width: int = 1) -> list[slice]:
        """Cut n rows into slices; ``width`` is how many maps are made of each row."""
        step = max(1, self.chunk_numbers // (width * self.problem.samples.n_inputs))
        return [slice(i, min(i + step, n)) for i in range(0, n, step)]

    def rows_at_once(self) -> int:
        """Return how many points are differentiated at once."""
        if self.settings.n_rows is not None:
            return self.settings.n_rows
        widest = max(self.problem.factors.stem.n_hidden, 1024)
        return min(max(self.chunk_numbers // (2 * widest), 16), 2048)

    def differentiate(
        self,
        points: Tensor,
        stratum: int,
        *,
        latent: bool,
        values: slice = slice(None),
        after: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ) -> Tensor:
        """Return gradients (n, n_values, any) of outputs, or latents, at hidden points."""
        factors, n = self.problem.factors, len(points)
        more = min(_few_lengths(n), self.rows_at_once()) - n
        if more > 0:
            points = torch.cat([points, points[-1:].expand(more, -1)])
        conditions = self.problem.condition_of(stratum, len(points))
        function = factors.latents if latent else factors.outputs
        return gradients(lambda hidden: function(hidden, conditions)[:, values], points, after)[:n]

    def draw(self, state: BlockState, number: int | None = None) -> PairRound:
        """Draw each sample's next baseline; with a ``number``, that of an earlier round again."""
        seed, bank = self.settings.seed, self.problem.bank
        number = state.n_rounds if number is None else number
        if bank is None:
            return draw_pairs(state.block, number, seed=seed)
        return draw_bank_pairs(state.block, len(bank), number, seed=seed)

    def on_device(self, state: BlockState, pairs: PairRound) -> tuple[Tensor, float]:
        """Return the baselines of pairs, as rows of the state, and the weight of the pairs."""
        paired = self.problem.bank is None
        second = torch.from_numpy(pairs.second) + (0 if paired else state.n_samples)
        # Pairs of samples are compared in both directions, which count half each.
        return second.to(state.hidden.device), pairs.weight / 2 if paired else pairs.weight

    def partners(self, state: BlockState, number: int) -> Tensor:
        """Return the baselines of an earlier round, as rows of the state."""
        return self.on_device(state, self.draw(state, number))[0]

    def deviations(
        self,
        state: BlockState,
        rows: Tensor,
        second: Tensor,
        shift: int,
        outputs: slice,
        slopes: Callable[[Tensor], Tensor],
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield some of the samples and what gradients on their paths deviate from the line.

        Parameters
        ----------
        state : BlockState
        rows : Tensor of shape (n,)
            The samples whose pairs are wanted.
        second : Tensor of shape (n_samples,)
            Rows of all samples' baselines.
        shift : int
            Number of the round, which decides where on the paths the points are.
        outputs : slice
            Of the values, those that are differentiated.
        slopes : callable
            Maps points (n, n_hidden) to gradients (n, n_values, any).

        Yields
        ------
        rows : Tensor of shape (n,)
        deviations : Tensor of shape (n, n_values, any)
            Unbiased for the integral along the path, less its trapezoid.
        """
        drawn = draw_points(state.block.keys, shift, seed=self.settings.seed)
        t, weight = (torch.from_numpy(a).to(state.hidden)[:, None] for a in drawn)
        for part in torch.split(rows, self.rows_at_once()):
            baseline = second[part]
            at = slopes(torch.lerp(state.hidden[baseline], state.hidden[part], t[part]))
            ends = state.slopes[baseline, outputs], state.slopes[part, outputs]
            line = torch.lerp(*ends, t[part, :, None])
            yield part, at.sub_(line).mul_(weight[part, :, None])

    def record(self, state: BlockState, residual: Tensor, probe: Tensor) -> None:
        """Add one round's deviations to a block."""
        state.residual += residual
        state.n_rounds += 1
        state.rounds.add(probe.double())
        if state.n_rounds % self.cycle_length(state.block) == 0:
            whole = state.rounds.total - state.cycles.total
            state.cycles.add(whole)

    @property
    def n_kept_rounds(self) -> int:
        """Return of how many rounds the pairs are kept one by one."""
        if not self.problem.columns.n_groups:
            return 0
        most = KEPT_BYTES // (8 * self.n_kept_numbers * self.problem.n_samples)
        return max(KEPT_ROUNDS, min(most, MOST_KEPT_ROUNDS))

    def cycle_length(self, block: Block) -> int:
        """Return after how many rounds all pairs of a block have been drawn."""
        bank = self.problem.bank
        return block.n_distances if bank is None else len(bank)

    def is_partial(self, block: Block) -> bool:
        """Return whether pairs with samples of other blocks are left to the closed form."""
        return self.problem.bank is None and block.is_partial

    def product_of_means(self, slopes: Tensor, outputs: slice) -> Tensor:
        """Return the closed form's n E[c x] E[g] / 2 of whole strata, (n_outputs, n_inputs).

        ``slopes`` are sums of gradients over some samples of each stratum; the rest of the
        product is known of all samples, so that parts of the sums give parts of the product.
        """
        cross = self.problem.cross_of(outputs)
        pulled = [self.pull(slope.to(cross.dtype), outputs) for slope in slopes]
        return torch.stack([c * g for c, g in zip(cross, pulled, strict=True)]).sum(0) / 2

    def at_probe(self, maps: Tensor) -> Tensor:
        """Return maps (n_outputs, n_inputs) on the probed components, and their totals."""
        probed = maps[:, self.probe_members].reshape(len(maps), *self.probe_shape).sum(-1)
        return torch.cat([probed, maps.sum(1, keepdim=True)], 1)

    def close_probe(self, state: BlockState) -> None:
        """Take out of a block's probe what strata will put in."""
        if self.is_partial(state.block):
            cross = state.targets[: state.n_samples].T @ state.probe_inputs[: state.n_samples]
            for outputs in self.output_slices:
                probed = cross[outputs] * self.mean_at_probe(state, outputs)
                probed = probed.reshape(len(probed), *self.probe_shape).sum(-1)
                total = self.cross_product(state, outputs)
                state.probe[outputs] -= torch.cat([probed, total[:, None]], 1) / 2

    def fold(self, state: BlockState, sums: Sums) -> None:
        """Add a block's part of the probed map, and of its numerical variance."""
        k = state.n_rounds
        sums.add("probe", k * state.probe + state.rounds.total)
        sums.add("probe_variance", k**2 * self._numerical_variance(state))
        if self.is_partial(state.block):
            slope = state.slopes.sum(0, dtype=torch.float64)
            by_stratum = slope.new_zeros(len(self.problem.centre), *slope.shape)
            by_stratum[state.block.stratum] = k * slope
            sums.add("slope", by_stratum)

    def _numerical_variance(self, state: BlockState) -> Tensor:
        """Return the variance of a block's mean over rounds, (n_outputs, n_probe + 1).

        Rounds are drawn without replacement: as pairs are used up, which of them were drawn
        matters less (Cochran 1977, equation 2.20), and not at all once all were.
        """
        k = state.n_rounds
        if self.is_partial(state.block):
            # Pairs with samples of other blocks are never drawn.
            return state.rounds.variance_of_mean(k)
        if state.cycles.n >= CYCLES_FOR_SPREAD:
            return state.cycles.variance_of_mean(k)
        drawn = min(k / self.cycle_length(state.block), 1.0)
        return (1 - PAIRS_SHARE * drawn) * state.rounds.variance_of_mean(k)

    def contract(self, state: BlockState, sums: Sums) -> None:
        """Add a block's part of the map, and of its sampling variance."""
        told = self.add_map(state, sums)
        if told is not None and self.problem.columns.n_groups:
            on_groups, group_of = told
            add_group_influences(self, state, sums, group_of, on_groups)
        if self.permuted is not None:
            add_null(self, state, self.permuted, sums)

    def close(self, sums: Sums) -> None:
        """Add what whole strata put in place of their parts; once, at the end."""
        if "slope" not in sums:
            return
        for outputs in self.output_slices:
            product = self.product_of_means(sums["slope"], outputs)
            sums.add("map", self.problem.columns.reduce(product), outputs)
            sums.add("probe", self.at_probe(product), outputs)
        del sums.values["slope"]

    def closed_probe(self, sums: Sums) -> Tensor:
        """Return the map summed over rounds and samples, on the probed components.

        Shape (n_outputs, n_probe + 1); the total comes last.
        """
        whole = sums["probe"].clone()
        if "slope" in sums:
            for outputs in self.output_slices:
                whole[outputs] += self.at_probe(self.product_of_means(sums["slope"], outputs))
        return whole


def _few_lengths(n: int) -> int:
    """Round a number of rows up, so that there are few different ones.

    oneDNN keeps a kernel of some 0.7 MiB for every shape that it has multiplied.
    """
    step = 1 if n <= 8 else 16 if n <= 128 else 64 if n <= 1024 else 256
    return -(-n // step) * step
