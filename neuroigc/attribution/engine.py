"""Pairs and points on the one side, sums on the other: what both regimes share.

IGC is half the mean over all pairs of (y_i - y_j) IG(x_i, x_j), divided by both standard
deviations. The integral along each path is taken apart: the trapezoid of its two ends, whose
mean over all pairs has a closed form in the gradients at the samples alone, plus what the path
deviates from it, estimated from random pairs and random points. Nothing of this is biased.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroigc.attribution.accumulators import GroupMoments, Sums, group_sums
from neuroigc.attribution.gradients import gradients
from neuroigc.attribution.pairs import Block, draw_bank_pairs, draw_pairs
from neuroigc.attribution.paths import draw_points
from neuroigc.attribution.problem import Problem
from neuroigc.attribution.samples import CHUNK_NUMBERS
from neuroigc.attribution.state import BlockState, Spread

__all__ = ["Engine", "Settings"]

# Cycles through all pairs from which a numerical error can be told.
CYCLES_FOR_SPREAD = 3
# Rounds whose pairs are kept one by one for groups' errors; at most, where they take few bytes.
KEPT_ROUNDS, MOST_KEPT_ROUNDS, KEPT_BYTES = 8, 256, 2**26


@dataclass(frozen=True)
class Settings:
    """How to estimate.

    Attributes
    ----------
    n_points : int
        Points per path (even: they come in antithetic couples).
    seed : int
    n_rows : int or None
        Points differentiated at once; None to choose by memory.
    n_probe : int
        Components on which the numerical error is measured.
    n_sample_groups : int
        Random groups of samples whose spread gives the standard errors.
    """

    n_points: int = 2
    seed: int = 0
    n_rows: int | None = None
    n_probe: int = 512
    n_sample_groups: int = 128


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
    """

    group: int
    outputs: slice
    known: Tensor
    pairs: list[Tensor]


class Engine(ABC):
    """One regime of the estimator.

    Parameters
    ----------
    problem : Problem
    settings : Settings
    """

    #: Whether a block's inputs are kept in memory, and rounds of pairs to begin with.
    keeps_inputs = False
    #: Whether `group_deviations` knows the influence of each sample, not of random groups alone.
    knows_samples = False
    first_rounds = 4

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings
        self.probe_columns, members = problem.columns.probe(settings.n_probe, settings.seed)
        self.probe_shape, self.probe_members = members.shape, members.reshape(-1)
        n_maps = max(1, CHUNK_NUMBERS // max(problem.samples.n_inputs, problem.columns.n_columns))
        self.output_slices = [
            slice(v, min(v + n_maps, problem.n_outputs))
            for v in range(0, problem.n_outputs, n_maps)
        ]

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
    def products(
        self, state: BlockState, part: slice, x: Tensor, membership: Tensor
    ) -> Iterator[Tensor]:
        """Yield, for each slice of outputs, sums over groups of rows of c x g, by column.

        Parameters
        ----------
        state : BlockState
        part : slice
            The rows.
        x : Tensor of shape (n, n_inputs)
            Their inputs.
        membership : Tensor of shape (n_groups, n)
            1 where a row belongs to a group, else 0.
        """

    @abstractmethod
    def pull(self, slope: Tensor, outputs: slice) -> Tensor:
        """Map sums of gradients (..., n_values, any) to outputs' at the input."""

    @abstractmethod
    def mean_weighted(self, state: BlockState, outputs: slice) -> Tensor:
        """Return E[c g] at the input, (n_outputs, n_inputs)."""

    @abstractmethod
    def mean_product(self, state: BlockState, outputs: slice) -> Tensor:
        """Return E[x g] at the input, (n_outputs, n_inputs)."""

    @abstractmethod
    def group_deviations(self, state: BlockState) -> Iterator[GroupDeviations]:
        """Yield what the kept pairs deviate, by group of components and slice of outputs."""

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
        parts = [self.read(block, part) for part in self.row_chunks(len(hidden))]
        zeros = hidden.new_zeros(
            problem.n_outputs, len(self.probe_columns) + 1, dtype=torch.float64
        )
        return BlockState(
            block=block,
            targets=targets,
            hidden=hidden,
            inputs=torch.cat(parts) if self.keeps_inputs else None,
            probe_inputs=torch.cat([part[:, self.probe_members] for part in parts]),
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
        return inputs - self.problem.centre[block.stratum]

    def rows(self, state: BlockState, part: slice) -> Tensor:
        """Return inputs of some rows of a block, centred on the mean baseline."""
        return self.read(state.block, part) if state.inputs is None else state.inputs[part]

    def row_chunks(self, n: int, width: int = 1) -> list[slice]:
        """Cut n rows into slices; ``width`` is how many maps are made of each row."""
        step = max(1, CHUNK_NUMBERS // (width * self.problem.samples.n_inputs))
        return [slice(i, min(i + step, n)) for i in range(0, n, step)]

    def rows_at_once(self) -> int:
        """Return how many points are differentiated at once."""
        if self.settings.n_rows is not None:
            return self.settings.n_rows
        widest = max(self.problem.factors.stem.n_hidden, 1024)
        return min(max(CHUNK_NUMBERS // (2 * widest), 16), 2048)

    def differentiate(
        self,
        points: Tensor,
        stratum: int,
        *,
        latent: bool,
        after: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ) -> Tensor:
        """Return gradients (n, n_values, any) of outputs, or latents, at hidden points."""
        factors = self.problem.factors
        conditions = self.problem.condition_of(stratum, len(points))
        function = factors.latents if latent else factors.outputs
        return gradients(lambda hidden: function(hidden, conditions), points, after)

    def draw(self, state: BlockState, number: int | None = None) -> tuple[Tensor, Tensor, float]:
        """Draw a block's next pairs: rows of path ends, rows of baselines, and their weight.

        With a ``number``, draw those of an earlier round again.
        """
        seed, bank, n = self.settings.seed, self.problem.bank, state.n_samples
        number = state.n_rounds if number is None else number
        if bank is None:
            pairs = draw_pairs(state.block, number, seed=seed)
        else:
            pairs = draw_bank_pairs(state.block, len(bank), number, seed=seed)
        second = torch.from_numpy(pairs.second) + (0 if bank is None else n)
        # Pairs of samples are compared in both directions, which count half each.
        weight = pairs.weight / 2 if bank is None else pairs.weight
        return torch.from_numpy(pairs.first), second, weight

    def paths(
        self, state: BlockState, first: Tensor, second: Tensor, shift: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the pairs and points (n_points * n_pairs, n_hidden) on their paths."""
        n_points = self.settings.n_points
        drawn = draw_points(state.block.samples, shift, n_points=n_points, seed=self.settings.seed)
        t = torch.from_numpy(drawn).to(state.hidden.device, state.hidden.dtype)
        step = max(1, self.rows_at_once() // n_points)
        for start in range(0, len(first), step):
            part = slice(start, start + step)
            x, baseline = state.hidden[first[part]], state.hidden[second[part]]
            on_path = baseline + t[:, part, None] * (x - baseline)
            yield part, on_path.reshape(-1, on_path.shape[-1])

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

    def group_influences(
        self, state: BlockState, group_of: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return samples' influence on groups of components, each pair counted in full.

        The map credits the deviation of a pair from its trapezoid to two samples, in shares
        that only add up to it. The influence of a sample on the U-statistic is its mean over
        partners of the whole value of the pair (Hoeffding); on a mean over a bank of baselines,
        it is its own attribution less the mean one. Both come here from the kept rounds, in two
        halves, whose difference tells what the draw of pairs and points adds to the spread.

        Parameters
        ----------
        state : BlockState
        group_of : Tensor of shape (n_samples,)
            Random group of each sample.
        values : Tensor of shape (n_groups, n_outputs, n_component_groups)
            Summed influence as far as known: none where `group_deviations` knows each sample's
            by trapezoids, else with deviations as the map credits them.

        Returns
        -------
        values : Tensor of the same shape
        noise : Tensor of shape (n_outputs, n_component_groups)
            What of the sum of squared values is noise.
        """
        paired, n, n_groups = self.problem.bank is None, state.n_samples, len(values)
        cycle = self.cycle_length(state.block)
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
        seconds = [self.draw(state, k)[1].to(group_of.device) for k in range(n_kept)]
        sizes = torch.bincount(group_of, minlength=n_groups).to(values.dtype)[:, None] / n
        for deviations in self.group_deviations(state):
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
            known = group_sums(deviations.known, group_of, n_groups)
            values[:, outputs, column] += halves.mean(0) + known
            if n_halves == 2:
                doubt = (halves[0] - halves[1]) / 2
                doubt = doubt - sizes * doubt.sum(0)
                noise[outputs, column] = left * (doubt**2).sum(0)
        return values, noise

    def _contract_groups(
        self, state: BlockState, sums: Sums, group_of: Tensor, values: Tensor
    ) -> None:
        """Add a block's part of the sampling variance of groups of components."""
        problem, n = self.problem, state.n_samples
        influence = problem.influence[torch.from_numpy(state.block.samples)]
        if self.knows_samples:
            group_of = torch.arange(n, device=group_of.device)
            values = values.new_zeros(n, *values.shape[1:])
        n_groups = len(values)
        values, noise = self.group_influences(state, group_of, values)
        sizes = torch.bincount(group_of, minlength=n_groups)
        influence = group_sums(influence, group_of, n_groups)
        for outputs in self.output_slices:
            moments = GroupMoments(sizes, influence[:, outputs])
            moments.add(slice(0, n_groups), values[:, outputs])
            moments.finish(
                sums, state.n_rounds, outputs, problem.n_outputs, noise[outputs], "group_"
            )

    def cycle_length(self, block: Block) -> int:
        """Return after how many rounds all pairs of a block have been drawn."""
        bank = self.problem.bank
        return block.n_distances if bank is None else len(bank)

    def is_partial(self, block: Block) -> bool:
        """Return whether pairs with samples of other blocks are left to the closed form."""
        return self.problem.bank is None and block.is_partial

    def excess(self, state: BlockState, outputs: slice) -> Tensor:
        """Return n E[c x] E[g] / 2 of a block, (n_outputs, n_inputs); strata's will replace it."""
        cross = torch.zeros_like(self.problem.cross[0, outputs])
        for part in self.row_chunks(state.n_samples):
            cross += state.targets[part, outputs].T @ self.rows(state, part)
        return cross * self.pull(state.mean_slope, outputs) / 2

    def product_of_means(self, sums: Sums, n_rounds: int, outputs: slice) -> Tensor:
        """Return the closed form's n E[c x] E[g] / 2 of whole strata, (n_outputs, n_inputs)."""
        cross = self.problem.cross[:, outputs]
        # A sum of gradients over a stratum carries its number of samples.
        slopes = (sums["slope"] / n_rounds).to(cross.dtype)
        pulled = [self.pull(slope, outputs) for slope in slopes]
        return torch.stack([c * g for c, g in zip(cross, pulled, strict=True)]).sum(0) / 2

    def at_probe(self, maps: Tensor) -> Tensor:
        """Return maps (n_outputs, n_inputs) on the probed components, and their totals."""
        probed = maps[:, self.probe_members].reshape(len(maps), *self.probe_shape).sum(-1)
        return torch.cat([probed, maps.sum(1, keepdim=True)], 1)

    def close_probe(self, state: BlockState) -> None:
        """Take out of a block's probe what strata will put in."""
        if self.is_partial(state.block):
            for outputs in self.output_slices:
                state.probe[outputs] -= self.at_probe(self.excess(state, outputs))

    def fold(self, state: BlockState, sums: Sums) -> None:
        """Add a block's part of the probed map, and of its numerical variance."""
        k = state.n_rounds
        sums.add("probe", k * state.probe + state.rounds.total)
        # Which pairs were drawn is no error any more once all were.
        several = state.cycles.n >= CYCLES_FOR_SPREAD and not self.is_partial(state.block)
        spread = state.cycles if several else state.rounds
        sums.add("probe_variance", k**2 * spread.variance_of_mean(k))
        if self.is_partial(state.block):
            slope = state.slopes.sum(0, dtype=torch.float64)
            by_stratum = slope.new_zeros(len(self.problem.centre), *slope.shape)
            by_stratum[state.block.stratum] = k * slope
            sums.add("slope", by_stratum)

    def contract(self, state: BlockState, sums: Sums) -> None:
        """Add a block's part of the map, and of its sampling variance."""
        problem, k = self.problem, state.n_rounds
        bounds, n = self._group_bounds(state), state.n_samples
        sizes = torch.tensor(bounds).diff().to(state.hidden.device)
        n_groups, group_of = len(sizes), torch.repeat_interleave(sizes)
        influence = group_sums(
            problem.influence[torch.from_numpy(state.block.samples)], group_of, n_groups
        )
        targets = group_sums(state.targets[:n], group_of, n_groups)
        moments = [GroupMoments(sizes, influence[:, v]) for v in self.output_slices]
        means = [self._means(state, outputs) for outputs in self.output_slices]
        n_components = problem.columns.n_components
        on_groups = state.targets.new_zeros(n_groups, problem.n_outputs, problem.columns.n_groups)
        n_maps = max(self.output_slices[0].stop, int(sizes.max()) * state.slopes.shape[1])
        step = max(1, CHUNK_NUMBERS // (n_maps * problem.samples.n_inputs))
        for g in range(0, n_groups, step):
            index = slice(g, min(g + step, n_groups))
            part = slice(bounds[g], bounds[index.stop])
            wanted = torch.arange(g, index.stop, device=group_of.device)[:, None]
            membership = (group_of[part] == wanted).to(state.hidden.dtype)
            x = self.rows(state, part)
            x_sums = membership @ x
            slopes = (membership @ state.slopes[part].flatten(1)).reshape(
                -1, *state.slopes.shape[1:]
            )
            for s, values in enumerate(self.products(state, part, x, membership)):
                outputs = self.output_slices[s]
                sums.add("map", k * values.sum(0), outputs, problem.n_outputs)
                attribution, weighted = means[s]
                further = -targets[index, outputs, None] * attribution
                if problem.bank is None:
                    further -= x_sums[:, None] * weighted / 2
                    cross = problem.cross[state.block.stratum, outputs]
                    further += cross * self.pull(slopes, outputs) / 2
                influences = values + problem.columns.reduce(further)
                on_groups[index, outputs] = influences[..., n_components:].to(on_groups.dtype)
                moments[s].add(index, influences[..., :n_components])
        for s, outputs in enumerate(self.output_slices):
            moments[s].finish(sums, k, outputs, problem.n_outputs)
            if self.is_partial(state.block):
                excess = problem.columns.reduce(self.excess(state, outputs))
                sums.add("map", -k * excess, outputs, problem.n_outputs)
        if problem.columns.n_groups:
            self._contract_groups(state, sums, group_of, on_groups)

    def _means(self, state: BlockState, outputs: slice) -> tuple[Tensor, Tensor]:
        """Return a block's mean attribution, and E[c g], by trapezoids.

        Besides its own product of target and attribution, a sample acts on the covariance
        through the mean target and, as a baseline, through the other samples' attributions.
        """
        stratum = state.block.stratum
        offset = self.problem.mean[stratum] - self.problem.centre[stratum]
        pulled = self.pull(state.mean_slope, outputs)
        attribution = (self.mean_product(state, outputs) + offset * pulled) / 2
        return attribution, self.mean_weighted(state, outputs)

    def _group_bounds(self, state: BlockState) -> list[int]:
        """Cut a block's samples into random groups; return where they begin, and the end."""
        n = state.n_samples
        share = -(-self.settings.n_sample_groups * n // self.problem.n_samples)
        # The maps of a group's samples are held at once.
        n_chunks = len(self.row_chunks(n, state.slopes.shape[1]))
        n_groups = min(n, max(share, n_chunks, 2))
        return [n * g // n_groups for g in range(n_groups + 1)]

    def assemble(self, sums: Sums, n_rounds: int) -> Tensor:
        """Return the covariance map summed over samples, (n_outputs, n_columns)."""
        whole = sums["map"] / n_rounds
        if "slope" in sums:
            for outputs in self.output_slices:
                product = self.product_of_means(sums, n_rounds, outputs)
                whole[outputs] += self.problem.columns.reduce(product)
        return whole

    def assemble_probe(self, sums: Sums, n_rounds: int) -> Tensor:
        """Return the same on the probed components, (n_outputs, n_probe + 1), the total last."""
        whole = sums["probe"] / n_rounds
        if "slope" in sums:
            for outputs in self.output_slices:
                whole[outputs] += self.at_probe(self.product_of_means(sums, n_rounds, outputs))
        return whole
