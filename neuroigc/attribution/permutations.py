"""What maps look like if the targets have nothing to do with the inputs.

IGC is linear in the targets: with M_s the mean integrated gradients of sample s, the covariance
map is the mean of c_s M_s. With the model as it is, P permutations of the targets over the
samples are therefore P more products, without a gradient. The largest value over components, of
each permutation, gives p-values that hold for the whole family (Westfall & Young 1993; Nichols &
Holmes 2002). That the model was trained on such targets is no part of this null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc.attribution.accumulators import Sums
from neuroigc.attribution.paths import PERMUTATION, uniform
from neuroigc.attribution.state import BlockState

if TYPE_CHECKING:
    from neuroigc.attribution.engine import Engine

__all__ = [
    "add_null",
    "component_p_values",
    "draw_permutations",
    "group_p_values",
    "permuted_groups",
]

# Values of permutations that come to the same (targets repeat) may differ by rounding.
ROUNDING = 1e-6


def draw_permutations(
    strata: NDArray[np.int64], keys: NDArray[np.uint64], n_permutations: int, seed: int
) -> NDArray[np.int32]:
    """Draw permutations of the samples within strata; the first leaves all in place.

    Returns
    -------
    array of shape (n_permutations + 1, n_samples)
        Whose target each sample is given.
    """
    given = np.tile(np.arange(len(keys), dtype=np.int32), (n_permutations + 1, 1))
    by_key = np.argsort(keys, kind="stable")
    for stratum in range(int(strata.max()) + 1):
        members = by_key[strata[by_key] == stratum]
        for p in range(1, n_permutations + 1):
            order = np.argsort(uniform(seed, PERMUTATION, (p,), keys[members]), kind="stable")
            given[p, members] = members[order]
    return given


def component_p_values(null: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return family-wise p-values (n_outputs, n_components).

    Parameters
    ----------
    null : array of shape (n_outputs, n_permutations + 1, n_components)
        Maps of permuted targets, the first of the targets as they are.
    """
    return np.stack([_family_wise(maps) for maps in null])


def group_p_values(null: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Return p-values of groups, each by itself and family-wise.

    Parameters
    ----------
    null : array of shape (n_outputs, n_permutations + 1, n_groups)

    Returns
    -------
    dict
        ``group_p_values`` and ``group_p_values_fwe``, (n_outputs, n_groups) each.
    """
    sizes = np.abs(null)
    single = (sizes >= sizes[:, :1] * (1 - ROUNDING)).mean(1)
    family = np.stack([_family_wise(maps) for maps in null])
    return {"group_p_values": single, "group_p_values_fwe": family}


def permuted_groups(
    attributions: NDArray[np.float64], targets: NDArray[np.float64], given: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return groups' values for permuted targets, (n_outputs, n_permutations + 1, n_groups).

    Parameters
    ----------
    attributions : array of shape (n_samples, n_outputs, n_groups)
        Samples' mean attributions.
    targets : array of shape (n_samples, n_outputs)
        Centred.
    given : array of shape (n_permutations + 1, n_samples)
        As of `draw_permutations`.
    """
    n_outputs = targets.shape[1]
    return np.stack([targets[:, v][given] @ attributions[:, v] for v in range(n_outputs)])


def _family_wise(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return p-values of the first of (n_permutations + 1, n_values), among the maxima of all.

    Values are set in relation to their standard deviation over permutations, so that small and
    large ones compete on equal terms; those that never vary have p = 1.
    """
    deviation = np.sqrt((maps**2).mean(0))
    sizes = np.divide(np.abs(maps), deviation, out=np.zeros_like(maps), where=deviation > 0)
    largest = np.sort(sizes.max(1))
    # The targets as they are count as one of the permutations.
    n_larger = len(maps) - np.searchsorted(largest, sizes[0] * (1 - ROUNDING))
    fraction: NDArray[np.float64] = n_larger / len(maps)
    return fraction


def add_null(engine: Engine, state: BlockState, permuted: Tensor, sums: Sums) -> None:
    """Add a block's part of the maps of permuted targets.

    Parameters
    ----------
    engine : Engine
    state : BlockState
    permuted : Tensor of shape (n_permutations + 1, n_samples)
        As of `draw_permutations`.
    sums : Sums
    """
    problem, n = engine.problem, state.n_samples
    given = permuted[:, torch.from_numpy(state.block.samples).to(permuted.device)].long()
    n_maps = engine.output_slices[0].stop
    for part in engine.row_chunks(n, max(n_maps, state.slopes.shape[1])):
        maps = engine.sample_maps(state, part, engine.rows(state, part))
        for outputs, own in zip(engine.output_slices, maps, strict=True):
            null = state.n_rounds * _null_maps(problem.targets[:, outputs], given, part, own)
            sums.add("null", null, outputs, problem.n_outputs, dtype=torch.float32)


def _null_maps(targets: Tensor, given: Tensor, part: slice, maps: Tensor) -> Tensor:
    """Return maps of permuted targets, (n_outputs, n_permutations + 1, n_columns).

    Parameters
    ----------
    targets : Tensor of shape (n_samples, n_outputs)
    given : Tensor of shape (n_permutations + 1, n_block)
        Whose target each sample of a block is given.
    part : slice
        Some of the samples of the block.
    maps : Tensor of shape (n_part, n_outputs, n_columns)
        Their mean attributions, known but for what all samples of the block share; targets are
        therefore taken less their mean in the block.
    """
    products = []
    for v in range(targets.shape[1]):
        permuted = targets[:, v][given]
        permuted = permuted[:, part] - permuted.mean(1, keepdim=True)
        products.append(permuted.to(maps.dtype) @ maps[:, v])
    return torch.stack(products)
