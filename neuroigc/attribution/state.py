"""What is known of a block of samples between rounds of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc.attribution.pairs import Block

__all__ = ["BlockState", "Spread"]


class Spread:
    """Sum and squares of repeated estimates.

    Parameters
    ----------
    zeros : Tensor
        Of the shape of one estimate.
    """

    def __init__(self, zeros: Tensor) -> None:
        self.total, self.squares, self.n = zeros.clone(), zeros.clone(), 0

    def add(self, estimate: Tensor) -> None:
        """Add one independent estimate."""
        self.total += estimate
        self.squares += estimate**2
        self.n += 1

    def variance_of_mean(self, n_rounds: int) -> Tensor:
        """Return the variance of the sum divided by the number of rounds."""
        spread = (self.squares - self.total**2 / self.n).clamp(min=0) * self.n / (self.n - 1)
        return spread / n_rounds**2


@dataclass
class BlockState:
    """What is known of one block: of its samples and, if they are not the same, its baselines.

    Rows are the block's samples in their random order, then the bank of baselines if there is
    one.

    Attributes
    ----------
    block : Block
    targets : Tensor of shape (n_rows, n_outputs)
        Centred targets; zero for a bank of baselines.
    hidden : Tensor of shape (n_rows, n_hidden)
        Output of the stem.
    inputs : Tensor of shape (n_rows, n_inputs) or None
        Centred inputs, where they are small enough to be kept.
    probe_inputs : Tensor of shape (n_rows, n_probe_inputs)
        Centred inputs at the probed components.
    slopes : Tensor of shape (n_rows, n_values, n_hidden or n_inputs)
        Gradients at the rows.
    mean_slope : Tensor of shape (n_values, n_hidden or n_inputs)
        Mean gradient at the baselines.
    residual : Tensor of shape (n_rows, n_values, any)
        Sums over rounds of what paths deviate from their trapezoids, float64.
    probe : Tensor of shape (n_outputs, n_probe + 1)
        The trapezoids' part of the map, on the probed components; last its sum over all.
    rounds, cycles : Spread
        The deviations' part on the probed components, and its spread: over rounds, and over
        cycles of rounds in which every pair came once.
    pairs : list of Tensors of shape (n_samples, n_values, any)
        The deviations of the pairs of the first rounds one by one, from which groups' standard
        errors tell what a sample does as another one's partner: gradients behind the stem, or
        latents' attributions to groups. Not yet weighted by the targets.
    plain : Tensor of shape (n_samples, n_values, any) or None
        Sums over rounds of what the paths of a sample deviate, whatever the targets; kept for
        permutations of these.
    n_rounds : int
    """

    block: Block
    targets: Tensor
    hidden: Tensor
    inputs: Tensor | None
    probe_inputs: Tensor
    slopes: Tensor
    mean_slope: Tensor
    residual: Tensor
    probe: Tensor
    rounds: Spread
    cycles: Spread
    pairs: list[Tensor] = field(default_factory=list)
    plain: Tensor | None = None
    n_rounds: int = 0

    @property
    def n_samples(self) -> int:
        """Return the number of samples among the rows."""
        return len(self.block.samples)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what rounds have added, as arrays that can be saved."""
        arrays = {"residual": self.residual.cpu().numpy(), "n_rounds": np.array(self.n_rounds)}
        for name, spread in (("rounds", self.rounds), ("cycles", self.cycles)):
            arrays[f"{name}_total"] = spread.total.cpu().numpy()
            arrays[f"{name}_squares"] = spread.squares.cpu().numpy()
            arrays[f"{name}_n"] = np.array(spread.n)
        if self.plain is not None:
            arrays["plain"] = self.plain.cpu().numpy()
        arrays |= {f"pairs{k}": values.cpu().numpy() for k, values in enumerate(self.pairs)}
        return arrays

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what rounds had added before an interruption."""
        self.residual = torch.from_numpy(arrays["residual"]).to(self.residual)
        self.n_rounds = int(arrays["n_rounds"])
        for name, spread in (("rounds", self.rounds), ("cycles", self.cycles)):
            spread.total = torch.from_numpy(arrays[f"{name}_total"]).to(spread.total)
            spread.squares = torch.from_numpy(arrays[f"{name}_squares"]).to(spread.squares)
            spread.n = int(arrays[f"{name}_n"])
        if "plain" in arrays:
            self.plain = torch.from_numpy(arrays["plain"]).to(self.residual)
        n_kept = sum(name.startswith("pairs") for name in arrays)
        self.pairs = [torch.from_numpy(arrays[f"pairs{k}"]).to(self.slopes) for k in range(n_kept)]
