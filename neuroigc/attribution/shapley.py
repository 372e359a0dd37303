"""Baseline Shapley Correlation: IGC with Shapley values in place of integrated gradients.

Source: IGC paper, appendix A.3. Players, one or more components each, change one after another
from baseline to sample; what each change adds to the prediction is averaged over all orders. A
slow reference, for few players or few samples: a single order takes as many evaluations of the
model as there are players.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count
from neuroigc.attribution.baselines import Baseline, PairedBaseline, check_baseline
from neuroigc.attribution.coalitions import Game, choose_players, draw_orders
from neuroigc.attribution.gradients import borrow, check_module, choose_device
from neuroigc.attribution.pairs import Block, draw_bank_pairs, draw_blocks, draw_pairs
from neuroigc.attribution.problem import Problem, prepare
from neuroigc.attribution.results import IGCResult
from neuroigc.attribution.totals import MOST_NOISE

__all__ = ["shapley_correlation"]

# Players up to which all coalitions are taken unless told otherwise, and at most.
FEW_PLAYERS, MOST_PLAYERS = 10, 15


def shapley_correlation(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    baseline: Baseline = PairedBaseline(),  # noqa: B008 - immutable
    conditions: Any = None,
    groups: Mapping[str, Any] | None = None,
    outputs: Any = None,
    pool: int = 1,
    exact: bool | None = None,
    n_rounds: int = 4,
    n_orders: int = 2,
    batch_size: int = 1024,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> IGCResult:
    """Attribute the correlation of predictions and targets by Shapley values of the input.

    ``h_p = E_i[ E_x'[phi_p(x_i, x')] (y_i - mean y) ] / (sd(f) sd(y))`` where phi_p is the Shapley
    value of player p in the game whose coalitions S are worth ``f(x on S, x' elsewhere)``. It sums
    over players to the correlation, as IGC does. Because ``phi(x, x') = -phi(x', x)``, baselines
    that are the other samples make it half the mean over pairs of ``(y_i - y_j) phi(x_i, x_j)``.

    Coalitions are put together behind the affine stem of the model, where each player's change is
    a sum that is taken once for each pair.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        At least three samples.
    targets : array or tensor of shape (n_samples, n_outputs) or (n_samples,), or None
        None for the predictions themselves.
    baseline : PairedBaseline, SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input; samples are compared within conditions only.
    groups : dict of str to indices or boolean mask, optional
        The players, which may not overlap. Components in no group are one more player, "rest".
        Without groups, each component is a player.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    pool : int
        Players are squares of ``pool`` x ``pool`` in the last two dimensions. Not with groups.
    exact : bool, optional
        Take all 2^n_players coalitions of each pair; up to 15 players. By default up to 10.
    n_rounds : int
        Rounds of pairs, at least 2: in each, every sample is compared with another one (or with a
        baseline). With ``exact`` and ``n_samples // 2`` of them, all pairs of samples are taken,
        and with as many as there are baselines, each of these.
        The error from pairs falls with the square root of their number, and with few rounds it is
        most of the ``numerical_error`` and of the ``completeness_gap``.
    n_orders : int
        Orders of the players for each pair, every other one the reverse of the one before; unused
        where ``exact``.
    batch_size : int
        Most evaluations at once; has no influence on the result but by rounding.
    device, seed, progress
        As for `integrated_gradient_correlation`.

    Returns
    -------
    IGCResult
        Of groups, ``attributions`` (n_outputs, n_groups) are the ``group_values``; what a player
        has is not shared out among its components. ``standard_errors`` are of both, the finite
        number of samples and that of pairs and orders; ``numerical_error`` is of the latter
        alone, from the spread over rounds. ``n_gradients`` is 0; ``settings["n_evaluations"]``
        tells how often the model was run for each sample. Held are n_samples x n_outputs x
        n_players numbers.

    Raises
    ------
    InputError
        As `integrated_gradient_correlation`, and if groups overlap, are trees or given beside
        ``pool``, or there are too many players for all coalitions.

    Examples
    --------
    >>> import numpy, torch
    >>> from neuroigc.attribution import shapley_correlation
    >>> x = numpy.random.default_rng(0).standard_normal((30, 3))
    >>> model = torch.nn.Linear(3, 1).double()
    >>> result = shapley_correlation(model, x, x[:, 0], n_rounds=15)
    >>> bool(abs(result.completeness_gap[0]) < 1e-10)
    True
    """
    check_module(model)
    baseline = check_baseline(baseline)
    n_rounds, n_orders = check_count("n_rounds", n_rounds, 2), check_count("n_orders", n_orders)
    batch_size, seed = check_count("batch_size", batch_size), check_count("seed", seed, 0)
    place = choose_device(device, model)
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        problem = prepare(
            borrowed,
            inputs,
            targets,
            baseline=baseline,
            conditions=conditions,
            groups=groups,
            outputs=outputs,
            pool=pool,
            device=place,
            seed=seed,
            progress=progress,
        )
        names, players = choose_players(problem, pool)
        n_players = len(players)
        exact = n_players <= FEW_PLAYERS if exact is None else exact
        if exact and n_players > MOST_PLAYERS:
            raise InputError(
                "exact",
                expected=f"at most {MOST_PLAYERS} players, to take all coalitions",
                got=f"{n_players}",
                fix="Sample orders (exact=False), or make fewer groups.",
            )
        # Where all coalitions are taken, no order is drawn.
        n_orders = 0 if exact else n_orders
        game = Game(problem, players, batch_size)
        estimate = _Estimate(problem, n_players)
        blocks = draw_blocks(problem.strata, problem.keys, seed=seed)
        evened = [_evened(problem, block, n_rounds, seed) for block in blocks]
        with torch.no_grad():
            for number in track(range(n_rounds), show=progress, label="Shapley"):
                for block, factors in zip(blocks, evened, strict=True):
                    samples, partners, weight = _draw(problem, block, number, seed)
                    weight *= factors[number]
                    orders = draw_orders(block.keys, n_players, number, n_orders, seed)
                    for part, values in game.play(samples, partners, orders):
                        estimate.add(samples[part], partners[part], values, weight)
                estimate.end_round()
        # Once all pairs were drawn, exact values leave nothing to chance; else orders are left, and
        # taken to make half of the variance.
        if problem.bank is None:
            left = max(0.0, 1 - n_rounds / max(block.n_distances for block in blocks))
        else:
            # Rounds meet all baselines again and again; the last ones perhaps not all of them.
            incomplete = n_rounds % len(problem.bank)
            left = incomplete / n_rounds * (1 - incomplete / len(problem.bank))
        found = estimate.finish(n_rounds, left if exact else (1 + left) / 2)
    shape = problem.columns.shape if names is None else (n_players,)
    value, error, noise = found
    maps, errors = (array.reshape(len(value), *shape) for array in (value, error))
    correlation = problem.correlation.cpu().numpy()
    size = np.sqrt((value**2).sum(1))
    return IGCResult(
        attributions=maps,
        standard_errors=errors,
        correlation=correlation,
        completeness_gap=value.sum(1) - correlation,
        numerical_error=np.divide(np.sqrt(noise.sum(1)), size, where=size > 0, out=size * 0),
        group_values=None if names is None else maps,
        group_standard_errors=None if names is None else errors,
        n_samples=problem.n_samples,
        n_gradients=0,
        settings={
            "method": "Shapley",
            "baseline": type(baseline).__name__,
            "auto_correlation": targets is None,
            "pool": pool,
            "exact": exact,
            "n_rounds": n_rounds,
            "n_orders": n_orders,
            "n_evaluations": n_rounds * (2**n_players if exact else n_orders * (n_players + 1)),
            "seed": seed,
            "outputs": problem.chosen.tolist(),
            "groups": [] if names is None else names,
            "device": str(place),
        },
    )


def _evened(problem: Problem, block: Block, n_rounds: int, seed: int) -> NDArray[np.float64]:
    """Return factors of rounds by which all pairs of a block count alike, drawn once or twice.

    Small blocks (of few samples in a condition) have drawn all pairs before others have.
    """
    if problem.bank is not None or n_rounds <= block.n_distances:
        return np.ones(n_rounds)
    drawn = [draw_pairs(block, number, seed=seed) for number in range(n_rounds)]
    distances = np.array([pairs.second[0] for pairs in drawn])
    times = np.bincount(distances)[distances]
    factors: NDArray[np.float64] = n_rounds / (block.n_distances * times)
    return factors


def _draw(
    problem: Problem, block: Block, number: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Return the samples of a round's pairs, their partners or baselines, and a weight."""
    if problem.bank is None:
        drawn = draw_pairs(block, number, seed=seed)
        return block.samples[drawn.first], block.samples[drawn.second], drawn.weight
    drawn = draw_bank_pairs(block, len(problem.bank), number, seed=seed)
    return block.samples[drawn.first], drawn.second, drawn.weight


class _Estimate:
    """Sums over pairs, and the errors that their spread tells."""

    def __init__(self, problem: Problem, n_players: int) -> None:
        self.problem, self.paired = problem, problem.bank is None
        shape = problem.n_outputs, n_players
        device = problem.centre.device
        zeros = torch.zeros(shape, dtype=torch.float64, device=device)
        self.total, self.square, self.current = zeros, zeros.clone(), zeros.clone()
        self.own = torch.zeros(problem.n_samples, *shape, dtype=torch.float64, device=device)
        # Attributions alone, in each stratum.
        self.strata = torch.from_numpy(problem.strata).to(device)
        self.plain = zeros.new_zeros(int(problem.strata.max()) + 1, *shape)

    def add(
        self,
        samples: NDArray[np.int64],
        partners: NDArray[np.int64],
        values: Tensor,
        weight: float,
    ) -> None:
        """Add Shapley values (n, n_outputs, n_players) of some pairs."""
        rows, others = (torch.from_numpy(i).to(values.device) for i in (samples, partners))
        values = values / self.problem.scale[:, None]
        y = self.problem.targets.double()
        if self.paired:
            product = weight / 2 * (y[rows] - y[others])[:, :, None] * values
            self.own[rows] += product / 2
            self.own[others] += product / 2
        else:
            product = y[rows][:, :, None] * values
            self.own[rows] += product
            self.plain.index_add_(0, self.strata[rows], values)
        self.current += product.sum(0) / self.problem.n_samples

    def end_round(self) -> None:
        """Count what was added as one round."""
        self.total += self.current
        self.square += self.current**2
        self.current.zero_()

    def finish(self, n_rounds: int, left: float) -> list[NDArray[np.float64]]:
        """Return values, standard errors and the variance from pairs and orders alone.

        Of that variance, rounds without replacement have the share ``left``.
        """
        n, y = self.problem.n_samples, self.problem.targets.double()
        value = self.total / n_rounds
        spread = (self.square / n_rounds - value**2).clamp(min=0)
        noise = spread / (n_rounds - 1) * left
        influence = self.own / n_rounds
        if not self.paired:
            # A covariance takes attributions less their mean in the stratum.
            sizes = torch.bincount(self.strata)[:, None, None]
            influence -= y[:, :, None] * (self.plain / (sizes * n_rounds))[self.strata]
        influence = influence - influence.mean(0)
        # In a mean over pairs, each sample counts at both ends.
        influence *= 2 if self.paired else 1
        influence -= value * self.problem.influence.double()[:, :, None]
        variance = (influence**2).sum(0) / (n * (n - 1))
        own_noise = noise * (2 if self.paired else 1)
        variance -= torch.minimum(own_noise, MOST_NOISE * variance)
        errors = (variance + noise).sqrt()
        return [array.cpu().numpy() for array in (value, errors, noise)]
