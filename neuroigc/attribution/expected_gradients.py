"""Expected gradients: both expectations of integrated gradients at random.

Source: Erion, Janizek, Sturmfels, Lundberg & Lee 2021.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._validation import check_count
from neuroigc.attribution.baselines import Baseline, SampledBaseline
from neuroigc.attribution.paths import PARTNER, PLACE, uniform
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.single import Paths, attribute_samples

__all__ = ["expected_gradients"]


def expected_gradients(
    model: nn.Module,
    inputs: Any,
    *,
    baseline: Baseline | None = None,
    n_baselines: int = 100,
    n_draws: int = 200,
    conditions: Any = None,
    outputs: Any = None,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> IGResult:
    """Attribute single predictions by gradients at random points on random paths.

    ``E_{x', t}[ (x_l - x'_l) ∂f/∂x_l (x' + t (x - x')) ]``, with a baseline x' of the bank and a
    point t of [0, 1] drawn anew for each of ``n_draws`` gradients. Unbiased for
    `integrated_gradients` with the same baselines, which takes n_baselines x n_steps gradients to
    integrate every path: this takes fewer for a rough map, and that one is exact sooner. The error
    falls with the square root of ``n_draws`` and is reported.

    Memory is that of `integrated_gradients`, twice for the standard errors.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
    baseline : SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline, optional
        The bank that baselines are drawn from; by default ``n_baselines`` of the samples.
    n_baselines : int
        Size of the default bank, or all samples if there are fewer; unused if ``baseline`` is
        given.
    n_draws : int
        Gradients per sample, at least 2. Draws depend on the seed and on what the sample
        consists of alone; those of a larger number begin with those of a smaller one.
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    batch_size : int
        Most points differentiated at once; has no influence on the result but by rounding.
    device, seed, progress
        As for `integrated_gradient_correlation`.

    Returns
    -------
    IGResult
        With ``standard_errors`` of the attributions, from the finite number of draws. The
        ``completeness_gap`` is against the whole bank, and of that random error too.

    Raises
    ------
    InputError
        As `integrated_gradients`.
    """
    n_draws = check_count("n_draws", n_draws, 2)
    n_baselines = check_count("n_baselines", n_baselines)
    if baseline is None:
        # What has no length is refused later, in a sentence of its own.
        n_samples = len(inputs) if np.ndim(inputs) else 1
        baseline = SampledBaseline(max(1, min(n_baselines, n_samples)))

    def choose_paths(bank: Tensor) -> Paths:
        def draw(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            picks = np.empty((len(keys), n_draws), np.int64)
            points = np.empty((len(keys), n_draws, 1))
            for k in range(n_draws):
                picks[:, k] = uniform(seed, PARTNER, (k,), keys) * len(bank)
                points[:, k, 0] = uniform(seed, PLACE, (k,), keys)
            return picks, points

        return Paths(bank, n_draws, np.ones(1), draw, is_random=True)

    return attribute_samples(
        model,
        inputs,
        choose_paths,
        method="expected gradients",
        baseline=baseline,
        conditions=conditions,
        outputs=outputs,
        batch_size=batch_size,
        device=device,
        seed=seed,
        progress=progress,
        n_draws=n_draws,
    )
