"""Blur integrated gradients: attributions by place and scale, without a baseline.

The path runs through the sample's own scale space, from blurred to sharp, and what the model makes
of each step is attributed to the pixels at which the step happens:

    BlurIG_l = ∫ ∂f/∂L_l (L(σ)) (-∂L_l/∂σ) dσ,    Σ_l BlurIG_l = f(x) - f(L(σ_end)).

Kept apart by bands of scales, each band adds up to what the predictions change between its two
scales, so that sums over pixels and over scales are exact. Source: Xu, Venugopalan & Sundararajan
2020, equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroigc._progress import track
from neuroigc._validation import check_count
from neuroigc.attribution.gradients import borrow, check_module, choose_device
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.scale_bands import Bands
from neuroigc.attribution.single import open_samples

__all__ = ["BlurIGResult", "blur_integrated_gradients"]

# Numbers held at once in one array.
CHUNK_NUMBERS = 2**23


@dataclass(kw_only=True)
class BlurIGResult(IGResult):
    """Blur integrated gradients of single samples.

    ``baseline_predictions`` are those of the samples at the end of their scale space: the
    remainder, which no pixel carries.

    Attributes
    ----------
    scales : array of shape (n_scales + 1,)
        Between the bands: standard deviations of the blur in pixels, from 0 on.
    scale_values : array of shape (n_samples, n_outputs, n_scales)
        Attributions of each band, summed over the input.
    scale_gap : array of shape (n_samples, n_outputs, n_scales)
        These sums, minus the difference of predictions between the two scales.
    scale_attributions : array of shape (n_samples, n_outputs, n_scales, *input_shape), or None
        Where they were to be kept; they sum to ``attributions`` over the scales.
    """

    scales: NDArray[np.float64]
    scale_values: NDArray[np.float64]
    scale_gap: NDArray[np.float64]
    scale_attributions: NDArray[Any] | None = None


def blur_integrated_gradients(
    model: nn.Module,
    inputs: Any,
    *,
    scales: Sequence[float] | None = None,
    n_points: int = 8,
    n_dims: int = 2,
    keep_scales: bool = False,
    conditions: Any = None,
    outputs: Any = None,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> BlurIGResult:
    """Attribute single predictions to pixels and scales, from blurred to sharp.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, ..., rows, columns)
        Images, each channel blurred by itself; or signals (n_samples, ..., n_points), ``n_dims=1``.
    scales : sequence of float, optional
        Standard deviations in pixels that bound the bands, growing from 0. By default 0, 1/2, 1,
        2 and so on, up to the longer side, where little more than the mean is left.
    n_points : int
        Points in each band: Gauss-Legendre nodes for smooth models, whose errors fall
        geometrically with their number. Of models with modules that have kinks (``nn.ReLU``, not
        ``torch.relu``, and ``nn.MaxPool2d``) the ends of equal steps: sums are exact if all
        nonlinear modules act on each number by itself or pool maxima, and errors of the map fall
        with the square of the number, see `neuroigc.attribution.secants`. ``scale_gap`` tells
        what is missing.
    n_dims : {1, 2}
        1 for signals, 2 for images.
    keep_scales : bool
        Keep the maps of all bands, n_scales times as many numbers.
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    batch_size : int
        Most points differentiated at once; has no influence on the result but by rounding.
    device, progress
        As for `integrated_gradient_correlation`.

    Returns
    -------
    BlurIGResult

    Raises
    ------
    InputError
        If data and model do not fit each other, samples are no images (no signals), or scales do
        not grow from 0.
    """
    check_module(model)
    n_points, n_rows = check_count("n_points", n_points), check_count("batch_size", batch_size)
    place = choose_device(device, model)
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        opened = open_samples(borrowed, place, inputs, conditions=conditions, outputs=outputs)
        samples, chosen = opened.samples, opened.chosen
        bands = Bands(borrowed, opened.factors, samples, len(chosen), scales, n_points, n_dims)
        n, shape = len(samples), (len(chosen), len(bands.scales) - 1, samples.n_inputs)
        step = bands.samples_at_once(n_rows, CHUNK_NUMBERS // samples.n_inputs)
        kind = samples.rows(slice(0, 1)).cpu().numpy().dtype
        maps = np.empty((n, shape[0], shape[2]), kind)
        kept = np.empty((n, *shape), kind) if keep_scales else None
        values, predictions = np.empty((n, *shape[:2])), np.empty((n, shape[0], shape[1] + 1))
        starts = range(0, n, step)
        for first in track(starts, show=progress, label="blur integrated gradients"):
            rows = slice(first, min(first + step, n))
            beside = None if opened.conditions is None else opened.conditions[rows]
            x = samples.rows(rows)
            predictions[rows] = bands.predictions(x, beside).cpu()
            found = bands.maps(x, beside, lambda attributed: attributed)
            # Gradients of latents serve all outputs.
            if bands.head is not None:
                found = torch.einsum("vk,nksl->nvsl", bands.head, found)
            values[rows] = found.sum(3, dtype=torch.float64).cpu()
            maps[rows] = found.sum(2).cpu()
            if kept is not None:
                kept[rows] = found.cpu()
    ends, last = predictions[..., 0].astype(kind), predictions[..., -1].astype(kind)
    whole = (n, len(chosen), *samples.shape)
    return BlurIGResult(
        attributions=maps.reshape(whole),
        predictions=ends,
        baseline_predictions=last,
        completeness_gap=values.sum(2) - (predictions[..., 0] - predictions[..., -1]),
        scales=bands.scales,
        scale_values=values,
        scale_gap=values + np.diff(predictions, axis=2),
        scale_attributions=None if kept is None else kept.reshape(*kept.shape[:3], *samples.shape),
        settings={
            "method": "blur integrated gradients",
            "baseline": "scale space",
            "n_points": n_points,
            "n_dims": n_dims,
            "outputs": chosen.tolist(),
            "device": str(place),
        },
    )
