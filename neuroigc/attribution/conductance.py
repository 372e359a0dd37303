"""Hidden units' parts of single predictions: conductance, and for a region of the input.

Sources: Dhamdhere, Sundararajan & Yan 2018; for targeted regions and several baselines Lundstrom,
Huang & Razaviyayn 2022. See `neuroigc.attribution.layers` for whole data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import check_choice, check_count
from neuroigc.attribution.baselines import Baseline, baseline_bank
from neuroigc.attribution.columns import check_groups
from neuroigc.attribution.gradients import borrow, check_module, choose_device
from neuroigc.attribution.layer_paths import (
    LayerPaths,
    refuse_passed_by,
    refuse_regions,
    region_steps,
)
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.single import baseline_predictions, open_samples, refuse_paired
from neuroigc.attribution.watching import layer_name, watch, watched_factors

__all__ = ["LayerIGResult", "layer_integrated_gradients"]


@dataclass(kw_only=True)
class LayerIGResult(IGResult):
    """Hidden units' parts of single predictions.

    ``attributions`` has the shape (n_samples, n_outputs, *unit_shape). It and the ``remainder``
    sum to the difference of predictions, but for ``completeness_gap``.

    Attributes
    ----------
    remainder : array of shape (n_samples, n_outputs)
        What passes by the layer; zero where all goes through it.
    region_attributions : array of shape (n_samples, n_outputs, n_regions, *unit_shape), or None
        What each unit carries of each region.
    region_values : array of shape (n_samples, n_outputs, n_regions), or None
        The regions' own integrated gradients, by the same points: units summed, and what passes
        by the layer.
    """

    remainder: NDArray[Any]
    region_attributions: NDArray[Any] | None = None
    region_values: NDArray[Any] | None = None


def layer_integrated_gradients(
    model: nn.Module,
    inputs: Any,
    *,
    layer: str | nn.Module,
    baseline: Baseline,
    path: str = "inputs",
    regions: Mapping[str, Any] | None = None,
    by_channel: bool = False,
    conditions: Any = None,
    outputs: Any = None,
    n_steps: int = 50,
    batch_size: int = 256,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> LayerIGResult:
    """Attribute single predictions to the units of a hidden layer.

    With several baselines, attributions are averaged over them; they then sum to the prediction
    less the mean prediction of the baselines.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
    layer, path, regions, by_channel
        As for `layer_correlation`. With one region for each input component, what a unit carries
        of them is what others call neuron conductance.
    baseline : SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline
        Means and samples are those of ``inputs``.
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    n_steps : int
        Gauss-Legendre nodes on each path.
    batch_size : int
        Paths integrated at once; has no influence on the result but by rounding.
    device, seed, progress
        As for `integrated_gradient_correlation`.

    Returns
    -------
    LayerIGResult

    Raises
    ------
    InputError
        As `integrated_gradients`, and as `layer_correlation` where the layer is none.
    """
    check_module(model)
    refuse_paired(baseline)
    check_choice("path", path, ("inputs", "activities"))
    n_steps, seed = check_count("n_steps", n_steps), check_count("seed", seed, 0)
    batch_size = check_count("batch_size", batch_size)
    name, place = layer_name(model, layer), choose_device(device, model)
    refuse_regions(regions, path)
    with (
        torch.inference_mode(False),
        borrow(model, place) as borrowed,
        watch(borrowed, name) as watched,
    ):
        opened = open_samples(borrowed, place, inputs, conditions=conditions, outputs=outputs)
        samples, chosen, shown = opened.samples, opened.chosen, opened.conditions
        members = check_groups(regions, samples.shape, argument="regions")
        rows, beside = samples.rows(slice(0, 4)), None if shown is None else shown[:4]
        factors = watched_factors(borrowed, watched, opened.factors, rows, beside, chosen)
        paths = LayerPaths(
            factors,
            watched,
            len(chosen),
            between_inputs=path == "inputs",
            n_steps=n_steps,
            by_channel=by_channel,
        )
        if path == "activities":
            refuse_passed_by(paths, factors.stem(rows), beside)
        bank = baseline_bank(baseline, samples, seed)
        if bank is None:
            raise RuntimeError("paired baselines have no bank")
        groups = [torch.from_numpy(index).to(place) for index in members.values()]
        averager = _Averager(paths, bank, groups, len(chosen))
        parts = []
        starts = range(0, len(samples), batch_size)
        for first in track(starts, show=progress, label="layer integrated gradients"):
            part = slice(first, first + batch_size)
            beside = None if shown is None else shown[part]
            with torch.no_grad():
                predictions = factors.outputs(factors.stem(samples.rows(part)), beside)
            found = averager.average(samples.rows(part), beside)
            parts.append([tensor.cpu().numpy() for tensor in (predictions, *found)])
        n = len(samples)
        start = baseline_predictions(factors, bank, shown, n, batch_size).cpu().numpy()
    predicted, units, through = (np.concatenate(part) for part in zip(*parts, strict=True))
    kind = predicted.dtype
    summed = units[:, :, 0].sum(2)
    remainder = through[:, :, 0] - summed if path == "inputs" else np.zeros_like(summed)
    units = units.reshape(*units.shape[:3], *paths.shape).astype(kind)
    return LayerIGResult(
        attributions=units[:, :, 0],
        predictions=predicted,
        baseline_predictions=start.astype(kind),
        completeness_gap=summed + remainder - (predicted - start),
        remainder=remainder.astype(kind),
        region_attributions=units[:, :, 1:] if groups else None,
        region_values=through[:, :, 1:].astype(kind) if groups else None,
        settings={
            "method": "layer integrated gradients",
            "layer": name,
            "path": path,
            "by_channel": bool(by_channel),
            "baseline": type(baseline).__name__,
            "n_baselines": len(bank),
            "n_steps": n_steps,
            "outputs": chosen.tolist(),
            "groups": list(members),
            "seed": seed,
            "device": str(place),
        },
    )


class _Averager:
    """Units' attributions averaged over a bank of baselines."""

    def __init__(
        self, paths: LayerPaths, bank: Tensor, regions: list[Tensor], n_outputs: int
    ) -> None:
        self.paths, self.regions, self.n_outputs = paths, regions, n_outputs
        with torch.no_grad():
            self.starts = paths.factors.stem(bank)
            self.steps = region_steps(paths.factors, regions, bank)

    def average(self, x: Tensor, conditions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return attributions (n, n_outputs, 1 + n_regions, n_units), and the regions' own."""
        factors = self.paths.factors
        with torch.no_grad():
            ends, steps = factors.stem(x), region_steps(factors, self.regions, x)
        units = through = torch.zeros((), dtype=torch.float64, device=x.device)
        for start, step in zip(self.starts, self.steps, strict=True):
            found = self.paths.integrate(start.expand_as(ends), ends, steps - step, conditions)
            units, through = units + self._outputs(found[0]), through + self._outputs(found[1])
        return units / len(self.starts), through / len(self.starts)

    def _outputs(self, values: Tensor) -> Tensor:
        """Turn latents' values into those of outputs, in double precision."""
        if not values.numel():
            return values
        rows = [self.paths.as_output(v, values).double() for v in range(self.n_outputs)]
        return torch.stack(rows, 1)
