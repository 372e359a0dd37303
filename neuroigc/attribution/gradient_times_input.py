"""Gradient times input, the cheapest relative. Source: Shrikumar, Greenside & Kundaje 2017."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc.attribution.baselines import Baseline, ZeroBaseline
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.single import Paths, attribute_samples

__all__ = ["gradient_times_input"]


def gradient_times_input(
    model: nn.Module,
    inputs: Any,
    *,
    baseline: Baseline = ZeroBaseline(),  # noqa: B008 - immutable
    conditions: Any = None,
    outputs: Any = None,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> IGResult:
    """Attribute single predictions by one gradient at each sample.

    ``(x_l - x'_l) ∂f/∂x_l (x)``. Equal to `integrated_gradients` where the model is linear between
    baseline and sample; elsewhere attributions do not sum to the difference of predictions, and
    what is missing (or too much) is the ``completeness_gap``. They are never rescaled.

    Several baselines amount to their mean, because the expression is linear in x'; the
    ``baseline_predictions`` are still the mean prediction over them, not the prediction at the
    mean, to be compared with the other methods'.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
    baseline : ZeroBaseline, MeanBaseline, GivenBaseline or SampledBaseline
        Means and samples are those of ``inputs``.
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    batch_size : int
        Most samples differentiated at once.
    device, seed, progress
        As for `integrated_gradient_correlation`.

    Returns
    -------
    IGResult

    Raises
    ------
    InputError
        As `integrated_gradients`.
    """

    def choose_paths(bank: Tensor) -> Paths:
        def draw(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:  # noqa: ARG001
            # At every sample itself.
            return np.zeros((1, 1), np.int64), np.ones((1, 1, 1))

        mean = bank.mean(0, keepdim=True, dtype=torch.float64).to(bank.dtype)
        return Paths(mean, 1, np.ones(1), draw)

    return attribute_samples(
        model,
        inputs,
        choose_paths,
        method="gradient times input",
        baseline=baseline,
        conditions=conditions,
        outputs=outputs,
        batch_size=batch_size,
        device=device,
        seed=seed,
        progress=progress,
    )
