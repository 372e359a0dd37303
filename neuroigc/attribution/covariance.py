"""Covariances of targets and attributions, group by group of samples, and their standard errors.

A dataset-wise value is a mean over samples of target times attribution, over both standard
deviations. Random groups of samples tell how far it would vary: each group's influence is its own
sum, less what the mean target and both standard deviations owe to it (infinitesimal jackknife).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc.attribution.paths import ORDER, uniform
from neuroigc.attribution.problem import Problem

__all__ = ["GroupedCovariance", "draw_sample_groups"]

# Random groups of samples whose spread gives the standard errors.
N_SAMPLE_GROUPS = 64


def draw_sample_groups(
    problem: Problem, seed: int, most: int = N_SAMPLE_GROUPS
) -> list[NDArray[np.int64]]:
    """Cut the samples into random groups, which depend on what they consist of alone."""
    order = np.argsort(uniform(seed, ORDER, (), problem.keys), kind="stable")
    return np.array_split(order, min(most, problem.n_samples))


class GroupedCovariance:
    """Sums over groups of samples of target times attribution, taken one group after the other.

    Parameters
    ----------
    problem : Problem
    groups : list of arrays
        Of samples, as `draw_sample_groups` returns them.
    paired : bool
        Whether baselines are the other samples. Then a group's sums are those of
        ``(y_i - y_j) IG(x_i, x_j)``, over its samples i and averaged over j.
    """

    def __init__(self, problem: Problem, groups: list[NDArray[np.int64]], *, paired: bool) -> None:
        self.problem, self.paired, self.n_groups = problem, paired, len(groups)
        members = [torch.from_numpy(group).to(problem.targets.device) for group in groups]
        self.targets = torch.stack([self._by_stratum(group) for group in groups])
        # Of a mean over pairs, every sample has its share twice.
        degree = 2.0 if paired else 1.0
        shares = [(problem.influence[m].double() + degree).sum(0) for m in members]
        self.shares = torch.stack(shares)
        self.total = self.squares = self.by_share = self.by_target = torch.zeros(())

    def _by_stratum(self, group: NDArray[np.int64]) -> Tensor:
        """Return the sums of a group's targets in each stratum, (n_strata, n_outputs)."""
        targets = self.problem.targets
        members, strata = (
            torch.from_numpy(index).to(targets.device)
            for index in (group, self.problem.strata[group])
        )
        shape = int(self.problem.strata.max()) + 1, targets.shape[1]
        sums = torch.zeros(shape, dtype=torch.float64, device=targets.device)
        return sums.index_add_(0, strata, targets[members].double())

    def add(self, group: int, sums: Tensor) -> None:
        """Add a group's sums (n_outputs, n_values)."""
        sums = sums.double()
        self.total = self.total + sums
        self.squares = self.squares + sums**2
        self.by_share = self.by_share + self.shares[group, :, None] * sums
        if not self.paired:
            self.by_target = self.by_target + self.targets[group, :, :, None] * sums

    def finish(self, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return values and standard errors, (n_outputs, n_values), in units of correlation.

        Parameters
        ----------
        mean : Tensor of shape (n_strata, n_outputs, n_values), optional
            Mean attributions of the samples of each stratum, which its mean target multiplies; of
            pairs, none.
        """
        n = self.problem.n_samples
        values = self.total / (2 * n if self.paired else n)
        spread = self.squares - 2 * values * self.by_share
        spread = spread + values**2 * (self.shares**2).sum(0)[:, None]
        if mean is not None:
            mean = mean.double()
            crossed = (self.targets * self.shares[:, None]).sum(0)[..., None]
            spread = spread - (2 * mean * (self.by_target - values * crossed)).sum(0)
            for targets in self.targets:
                spread = spread + (targets[..., None] * mean).sum(0) ** 2
        spread = spread.clamp_(min=0) * (self.n_groups / (self.n_groups - 1))
        scale = self.problem.scale[:, None]
        return values / scale, spread.sqrt_() / (n * scale)
