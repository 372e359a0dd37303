"""Additive float64 sums: the whole state of an estimate, to be saved and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._validation import InputError

__all__ = ["GroupMoments", "Sums", "group_sums", "mixed_powers", "power_sum"]


class Sums:
    """Named float64 tensors that grow by addition."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def add(
        self,
        name: str,
        value: Tensor,
        rows: slice | Tensor | None = None,
        n_rows: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Add to one sum, or to some of its ``n_rows`` rows."""
        if name not in self.values:
            length = value.shape[:1] if n_rows is None else (n_rows,)
            self.values[name] = value.new_zeros(*length, *value.shape[1:], dtype=dtype)
        self.values[name][slice(None) if rows is None else rows] += value

    def merge(self, other: Sums) -> None:
        """Add the sums of another part of the samples."""
        for name, value in other.values.items():
            self.add(name, value, dtype=value.dtype)

    def rows(self, name: str, rows: slice) -> Tensor:
        """Return some rows of a sum."""
        return self.values[name][rows]

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Keep what a checkpoint does not hold, and return what tells it."""
        return {}

    def tidy(self) -> None:
        """Remove what earlier checkpoints belonged to."""

    def restore(self, told: Mapping[str, NDArray[Any]]) -> None:
        """Go back to what a checkpoint told was kept elsewhere."""
        if told:
            raise InputError(
                "results",
                expected="the folder that the checkpoint's sums are in",
                got="none",
                fix="Name that folder, or delete the checkpoint to start anew.",
            )

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def to_arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return the sums, but for those in files, as arrays that can be saved."""
        return {name: value.cpu().numpy() for name, value in self.values.items()}

    def take(self, arrays: Mapping[str, NDArray[np.floating]], device: torch.device) -> None:
        """Take up sums where they were left."""
        for name, array in arrays.items():
            self.add(name, torch.from_numpy(array).to(device), dtype=torch.from_numpy(array).dtype)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]], device: torch.device) -> Sums:
        """Return sums as they were left."""
        sums = cls()
        sums.take(arrays, device)
        return sums


class GroupMoments:
    """Sampling variance from random groups of the samples of one block.

    Each group g of n_g samples gives the sum Y_g of its influence values on the covariance, and
    the sum h_g of its influence on the standard deviations. Their spread over groups is the
    variance of the whole estimate: IGC_l is a ratio, with influence Y_s - mean(Y) - IGC_l h_s.

    Parameters
    ----------
    sizes : Tensor of shape (n_groups,)
        Samples in each group.
    influence : Tensor of shape (n_groups, n_outputs)
        Sums h_g.
    """

    def __init__(self, sizes: Tensor, influence: Tensor) -> None:
        self.sizes = sizes.double()
        self.influence = influence - self.sizes[:, None] * (influence.sum(0) / self.sizes.sum())
        self.total = self.squares = self.by_size = self.by_influence = torch.zeros(())

    def add(self, groups: slice, values: Tensor) -> None:
        """Add sums Y_g of shape (n_groups, n_outputs, n_columns) of some groups."""
        sizes, influence = self.sizes[groups], self.influence[groups]
        ones = torch.ones_like(influence)
        weights = torch.stack([ones, sizes[:, None] * ones, influence], -1).to(values.dtype)
        # One product for all three sums, (n_outputs, 3, n_columns).
        weighted = torch.bmm(weights.permute(1, 2, 0), values.permute(1, 0, 2)).double()
        self.total, self.by_size, self.by_influence = (
            before + weighted[:, i]
            for i, before in enumerate((self.total, self.by_size, self.by_influence))
        )
        self.squares = self.squares + (values * values).sum(0, dtype=torch.float64)

    def finish(
        self,
        sums: Sums,
        weight: float,
        rows: slice,
        n_rows: int,
        noise: Tensor | None = None,
        prefix: str = "",
    ) -> None:
        """Add the centred moments of all groups to rows of the sums.

        Parameters
        ----------
        sums : Sums
        weight : float
        rows : slice
        n_rows : int
        noise : Tensor of shape (n_outputs, n_columns), optional
            What the draw of pairs and points adds to the squares.
        prefix : str
            Of the names of the sums.
        """
        n_groups, mean = len(self.sizes), self.total / self.sizes.sum()
        factor = weight * n_groups / max(n_groups - 1, 1)
        spread = self.squares - 2 * mean * self.by_size + mean**2 * (self.sizes**2).sum()
        lever = (self.sizes[:, None] * self.influence).sum(0)[:, None]
        by_influence = self.by_influence - mean * lever
        if noise is not None:
            sums.add(f"{prefix}noise", factor * noise, rows, n_rows)
        sums.add(f"{prefix}spread", factor * spread, rows, n_rows)
        sums.add(f"{prefix}spread_influence", factor * by_influence, rows, n_rows)
        sums.add(f"{prefix}influence", factor * (self.influence**2).sum(0), rows, n_rows)


def group_sums(values: Tensor, group_of: Tensor, n_groups: int) -> Tensor:
    """Sum rows by group."""
    summed = values.new_zeros(n_groups, *values.shape[1:])
    return summed.index_add_(0, group_of, values)


def mixed_powers(values: Tensor, influence: Tensor, power: int) -> Tensor:
    """Return sums over groups of samples of which `power_sum` is made.

    Parameters
    ----------
    values : Tensor of shape (n_groups, n_outputs, n_columns)
        Sums Y_g, of mean 0.
    influence : Tensor of shape (n_groups, n_outputs)
        Sums h_g, likewise.
    power : int

    Returns
    -------
    Tensor of shape (n_outputs, power + 1, n_columns)
    """
    h = influence[..., None].double()
    mixed = [(values.double() ** (power - j) * h**j).sum(0) for j in range(power + 1)]
    return torch.stack(mixed, 1)


def power_sum(mixed: Tensor, covariance: Tensor) -> Tensor:
    """Return sums over groups of (Y - covariance * h) ** power, (n_outputs, n_columns)."""
    power = mixed.shape[1] - 1
    terms = [comb(power, j) * (-covariance) ** j * mixed[:, j] for j in range(power + 1)]
    return torch.stack(terms).sum(0)
