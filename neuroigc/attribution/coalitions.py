"""Coalitions of input components between two samples, and what joining them is worth to each.

A coalition S is worth f(x on S, x' elsewhere). The model's stem is affine, so that behind it each
player's move from x' to x is a sum of its own, whoever else has moved; it is taken once for each
pair of samples, and coalitions are put together from these sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._validation import InputError
from neuroigc.attribution.paths import uniform
from neuroigc.attribution.problem import Problem

__all__ = ["Game", "choose_players", "draw_orders"]

# Name of the player made of all components that are in no group.
REST = "rest"
# Numbers behind the stem that are held at once.
HIDDEN_NUMBERS = 2**24
# A stream of random numbers beside those of `neuroigc.attribution.paths`.
PLAYERS = 97


def choose_players(problem: Problem, pool: int) -> tuple[list[str] | None, list[Tensor]]:
    """Return the players' names, if they have any, and the input components of each."""
    columns, device = problem.columns, problem.centre.device
    if not columns.groups:
        numbers = np.arange(columns.n_components).reshape(columns.shape)
        if pool > 1:
            numbers = numbers.repeat(pool, -1).repeat(pool, -2)
        members = np.argsort(numbers.ravel(), kind="stable").reshape(columns.n_components, -1)
        return None, list(torch.from_numpy(members).to(device))
    if pool > 1:
        raise InputError("pool", expected="1 where groups are the players", got=repr(pool))
    times = torch.zeros(columns.n_inputs, dtype=torch.int64, device=device)
    for group in columns.groups:
        times[group] += 1
    if bool((times > 1).any()):
        raise InputError(
            "groups",
            expected="players that have no component in common",
            got=f"{int((times > 1).sum())} components in several groups",
            fix="Leave out groups, or the stems of a tree of them.",
        )
    names, players = list(columns.group_names), list(columns.groups)
    if bool((times == 0).any()):
        if REST in names:
            raise InputError("groups", expected=f"no group named {REST!r}", got="one of that name")
        names.append(REST)
        players.append((times == 0).nonzero()[:, 0])
    return names, players


def draw_orders(
    keys: NDArray[np.uint64], n_players: int, number: int, n_orders: int, seed: int
) -> NDArray[np.int64]:
    """Return orders of the players (n_pairs, n_orders, n_players), two by two each other's reverse.

    They depend on the seed, the round and the key of the path's end.
    """
    orders = np.empty((len(keys), n_orders, n_players), np.int64)
    for k in range(0, n_orders, 2):
        mixed = np.add(keys[:, None], np.arange(n_players), dtype=np.uint64, casting="unsafe")
        orders[:, k] = np.argsort(uniform(seed, PLAYERS, (number, k), mixed), axis=1)
        orders[:, k + 1 : k + 2] = orders[:, None, k, ::-1]
    return orders


@dataclass
class Game:
    """Shapley values of players between the two ends of pairs of samples."""

    problem: Problem
    players: list[Tensor]
    batch_size: int

    def play(
        self, samples: NDArray[np.int64], partners: NDArray[np.int64], orders: NDArray[np.int64]
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the pairs with their values (n, n_outputs, n_players), in float64."""
        problem, n_players = self.problem, len(self.players)
        at_once = max(1, HIDDEN_NUMBERS // ((n_players + 1) * problem.factors.stem.n_hidden))
        for first in range(0, len(samples), at_once):
            part = slice(first, min(first + at_once, len(samples)))
            ends = problem.samples.rows(samples[part])
            if problem.bank is None:
                starts = problem.samples.rows(partners[part])
            else:
                starts = problem.bank[torch.from_numpy(partners[part]).to(problem.bank.device)]
            beside = None
            if problem.conditions is not None:
                beside = problem.conditions[torch.from_numpy(samples[part]).to(ends.device)]
            stem = problem.factors.stem
            moves = [stem.push_from(player, ends - starts) for player in self.players]
            pair = stem(starts), torch.stack(moves, 1), beside
            if orders.shape[1] == 0:
                yield part, self._all_coalitions(*pair)
            else:
                yield part, self._along(*pair, torch.from_numpy(orders[part]).to(ends.device))

    def _along(self, start: Tensor, moves: Tensor, beside: Tensor | None, orders: Tensor) -> Tensor:
        """Return the mean over orders of what each player's move adds."""
        total = torch.zeros((), dtype=torch.float64, device=start.device)
        for k in range(orders.shape[1]):
            order = orders[:, k]
            steps = moves.gather(1, order[:, :, None].expand_as(moves))
            walk = torch.cat([start[:, None], steps], 1).cumsum(1)
            added = self._worths(walk, beside).diff(dim=1)
            total = total + torch.zeros_like(added).scatter_(
                1, order[:, :, None].expand_as(added), added
            )
        return (total / orders.shape[1]).swapaxes(1, 2)

    def _all_coalitions(self, start: Tensor, moves: Tensor, beside: Tensor | None) -> Tensor:
        """Return ``sum_S (n - |S| - 1)! |S|! / n! (worth of S and p - worth of S)``."""
        n, device = len(self.players), start.device
        numbers = torch.arange(2**n, device=device)
        step = max(1, self.batch_size // len(start))
        shares = [1 / (n * comb(n - 1, size)) for size in range(n)]
        # By the size of the coalition with the player in it, and without.
        joined, left = (
            torch.tensor(table, dtype=torch.float64, device=device)
            for table in ([0, *shares], [*shares, 0])
        )
        values: Tensor = torch.zeros((), dtype=torch.float64, device=device)
        for some in torch.split(numbers, step):
            inside = (some[:, None] >> torch.arange(n, device=device)) & 1
            size = inside.sum(1, keepdim=True)
            signed = torch.where(inside == 1, joined[size], -left[size])
            hidden = start[:, None] + inside.to(moves.dtype) @ moves
            worths = self._worths(hidden, beside)
            values = values + torch.einsum("sp,nsv->nvp", signed, worths)
        return values

    def _worths(self, hidden: Tensor, beside: Tensor | None) -> Tensor:
        """Return outputs (n, n_points, n_outputs), in float64, at points behind the stem."""
        flat = hidden.flatten(0, 1)
        if beside is not None:
            beside = beside.repeat_interleave(hidden.shape[1], 0)
        worths = [
            self.problem.factors.outputs(
                flat[first : first + self.batch_size],
                None if beside is None else beside[first : first + self.batch_size],
            )
            for first in range(0, len(flat), self.batch_size)
        ]
        return torch.cat(worths).double().reshape(*hidden.shape[:2], -1)
