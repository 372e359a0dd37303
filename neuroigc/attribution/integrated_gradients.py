"""Integrated gradients of single samples. Source: Sundararajan, Taly & Yan 2017."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._validation import check_count
from neuroigc.attribution.baselines import Baseline
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.single import Paths, attribute_samples

__all__ = ["integrated_gradients"]


def integrated_gradients(
    model: nn.Module,
    inputs: Any,
    *,
    baseline: Baseline,
    conditions: Any = None,
    outputs: Any = None,
    n_steps: int = 50,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> IGResult:
    """Attribute single predictions to the components of the input.

    ``IG_l = (x_l - x'_l) ∫ ∂f/∂x_l (x' + t (x - x')) dt``, by Gauss-Legendre quadrature, and
    averaged over the baselines if there are several. With ``SampledBaseline(n)`` this is what
    `expected_gradients` estimates from random points on random paths: here each of the n paths is
    integrated on its own, so nothing is left to chance but which samples are the baselines.

    The result takes n_samples x n_outputs x n_inputs numbers of memory; inputs are streamed, and
    what else is held does not grow with their number.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
    baseline : SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline
        Means and samples are those of ``inputs``.
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    n_steps : int
        Quadrature nodes for each baseline.
    batch_size : int
        Most points differentiated at once, of several samples and baselines if there is room; has
        no influence on the result but by rounding.
    device, seed, progress
        As for `integrated_gradient_correlation`.

    Returns
    -------
    IGResult

    Raises
    ------
    InputError
        If data and model do not fit each other, or the baseline is paired: a single sample has
        no partner; take ``SampledBaseline(n)`` instead.

    Examples
    --------
    >>> import numpy, torch
    >>> from neuroigc.attribution import ZeroBaseline, integrated_gradients
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> result = integrated_gradients(model, numpy.array([[1.0, 3.0]]), baseline=ZeroBaseline())
    >>> result.attributions.round(3).tolist()
    [[[1.0, 3.0]]]
    """
    nodes, weights = np.polynomial.legendre.leggauss(check_count("n_steps", n_steps))

    def choose_paths(bank: Tensor) -> Paths:
        def draw(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:  # noqa: ARG001
            # The same for all samples.
            return np.arange(len(bank))[None], (nodes + 1)[None, None] / 2

        return Paths(bank, len(bank), weights / 2, draw)

    return attribute_samples(
        model,
        inputs,
        choose_paths,
        method="integrated gradients",
        baseline=baseline,
        conditions=conditions,
        outputs=outputs,
        batch_size=batch_size,
        device=device,
        seed=seed,
        progress=progress,
        n_steps=int(n_steps),
    )
