"""Sensitivity-n: whether sets of elements are worth what replacing them costs.

Source: Ancona, Ceolini, Öztireli & Gross 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count
from neuroigc.attribution.baselines import MeanBaseline
from neuroigc.attribution.perturbation import (
    Elements,
    Perturbed,
    element_values,
    make_elements,
    open_perturbed,
)

__all__ = ["Drops", "correlations", "sensitivity_n", "set_sizes"]

# Relative to the largest, numbers that differ by less are the same sums in another order.
ROUNDING = 1e-12


def sensitivity_n(
    model: nn.Module,
    inputs: Any,
    maps: Any,
    *,
    targets: Any = None,
    sizes: Sequence[int] | None = None,
    n_sets: int = 100,
    groups: Mapping[str, Any] | None = None,
    replacement: Any = MeanBaseline(),  # noqa: B008 - immutable
    output: int = 0,
    conditions: Any = None,
    batch_size: int = 1024,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Correlate what random sets of elements are worth by the map, and what replacing them costs.

    Parameters
    ----------
    model, inputs, maps, targets, groups, replacement, output
        As for `perturbation_curve`.
    sizes : sequence of int, optional
        Numbers n of elements in a set; by default up to eight, growing geometrically from 1 to all
        but one.
    n_sets : int
        Random sets of each size, at least 3; the same for all samples.
    conditions, batch_size, device, seed, progress
        As for `integrated_gradients`.

    Returns
    -------
    array of shape (n_sizes,), or (n_samples, n_sizes) without targets
        Pearson correlations over the sets; NaN where one side does not vary.

    Raises
    ------
    InputError
        As `perturbation_curve`.
    """
    n_sets = check_count("n_sets", n_sets, 3)
    with open_perturbed(
        model, inputs, targets, replacement=replacement, output=output, conditions=conditions,
        batch_size=batch_size, device=device, seed=seed,
    ) as perturbed:  # fmt: skip
        elements = make_elements(groups, perturbed.samples.shape)
        n_maps = None if targets is not None else len(perturbed)
        values = element_values(maps, elements, perturbed.samples.shape, n_maps)
        drops = Drops(perturbed, elements, set_sizes(sizes, len(elements)), n_sets, seed, progress)
        return drops.correlate(values)


class Drops:
    """What replacing random sets of elements costs; the same sets for all maps."""

    def __init__(
        self,
        perturbed: Perturbed,
        elements: Elements,
        sizes: list[int],
        n_sets: int,
        seed: int,
        progress: bool,
    ) -> None:
        n_elements, device = len(elements), perturbed.bank.device
        whole = torch.ones(1, perturbed.samples.n_inputs, dtype=torch.bool, device=device)
        intact = perturbed.read(whole)
        self.is_single = perturbed.weights is None
        # Less than the rounding of predictions is no cost.
        rounding = 4 * torch.finfo(perturbed.samples.dtype).eps * intact.abs().cpu().numpy()
        self.sets: list[NDArray[np.bool_]] = []
        self.costs: list[NDArray[np.float64]] = []
        for size in track(sizes, show=progress, label="sensitivity"):
            random = np.random.default_rng([seed, size])
            chosen = np.zeros((n_sets, n_elements), bool)
            costs = []
            for m in range(n_sets):
                members = random.permutation(n_elements)[:size]
                chosen[m, members] = True
                keep = whole.clone()
                keep[0, np.concatenate([elements[e] for e in members])] = False
                costs.append((intact - perturbed.read(keep)).cpu().numpy())
            self.sets.append(chosen)
            self.costs.append(np.stack(costs, 1))
            if self.is_single:
                self.costs[-1][np.ptp(self.costs[-1], axis=1) <= rounding] = 0

    def correlate(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return correlations with what elements (n_maps, n_elements) are worth."""
        found = np.stack(
            [
                correlations(np.broadcast_to(values @ chosen.T, costs.shape), costs)
                for chosen, costs in zip(self.sets, self.costs, strict=True)
            ],
            1,
        )
        return found if self.is_single else found[0]


def correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson correlations of rows, NaN where one does not vary but by rounding."""
    bounds = [ROUNDING * np.abs(v).max(1, initial=0) for v in (a, b)]
    a, b = (v - v.mean(1, keepdims=True) for v in (a, b))
    varies = [np.abs(v).max(1, initial=0) > bound for v, bound in zip((a, b), bounds, strict=True)]
    size = np.where(varies[0] & varies[1], np.sqrt((a**2).sum(1) * (b**2).sum(1)), 0)
    found: NDArray[np.float64] = np.divide(
        (a * b).sum(1), size, where=size > 0, out=np.full(len(a), np.nan)
    )
    return found


def set_sizes(sizes: Sequence[int] | None, n_elements: int) -> list[int]:
    """Return the sizes of sets, checked."""
    if sizes is None:
        grown = np.geomspace(1, max(1, n_elements - 1), 8).round()
        return [int(size) for size in np.unique(grown)]
    chosen = [check_count("sizes", size) for size in np.atleast_1d(np.asarray(sizes, object))]
    if not chosen or max(chosen) > n_elements:
        raise InputError(
            "sizes", expected=f"numbers from 1 to {n_elements}, the elements", got=repr(sizes)
        )
    return chosen
