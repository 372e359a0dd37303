"""Hidden units: what each carries of the correlation, and of which region of the input.

Of a layer through which all goes that outputs know of the input, the units' values sum to the
correlation, in every layer anew. Along the straight path between inputs a unit's value is its
conductance,

    C_k = ∫ ∂f/∂a_k (d a_k / dt) dt,    d a_k / dt = Σ_l ∂a_k/∂x_l (x_l - x'_l),

and the last sum, over a region of the input alone, gives the unit's value *for that region*: a
table of units and regions that adds up to the units on one side and to the regions' own IGC on the
other. Sources: Dhamdhere, Sundararajan & Yan 2018 (conductance); Lundstrom, Huang & Razaviyayn
2022 (units for a targeted region, distributions of baselines); the covariance is equation 8 of the
IGC paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroigc._validation import check_choice, check_count, check_positive
from neuroigc.attribution.baselines import Baseline, PairedBaseline, check_baseline
from neuroigc.attribution.gradients import borrow, check_module, choose_device
from neuroigc.attribution.layer_paths import LayerPaths, refuse_passed_by, refuse_regions
from neuroigc.attribution.layer_sums import LayerSums
from neuroigc.attribution.problem import prepare
from neuroigc.attribution.results import IGCResult
from neuroigc.attribution.watching import layer_name, watch, watched_factors

__all__ = ["LayerIGCResult", "layer_correlation"]


@dataclass(kw_only=True)
class LayerIGCResult(IGCResult):
    """Integrated gradient correlations of hidden units.

    ``attributions`` has the shape (n_outputs, *unit_shape). It and the ``remainder`` sum to
    ``correlation``, but for ``completeness_gap``. ``group_values`` are what regions of the input
    carry, as `integrated_gradient_correlation` has it, by the same pairs and points as the rest.

    Attributes
    ----------
    remainder, remainder_errors : arrays of shape (n_outputs,)
        What passes by the layer, and its standard error; zero where all goes through it.
    region_attributions : array of shape (n_outputs, n_regions, *unit_shape), or None
        What each unit carries of each region, in the order of ``settings["groups"]``. Regions
        that partition the input sum to ``attributions``; units sum to ``group_values``, less what
        passes by the layer.
    region_attribution_errors : array of the same shape, or None
        Standard errors.
    """

    remainder: NDArray[np.float64]
    remainder_errors: NDArray[np.float64]
    region_attributions: NDArray[Any] | None = None
    region_attribution_errors: NDArray[Any] | None = None


def layer_correlation(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    layer: str | nn.Module,
    path: str = "inputs",
    regions: Mapping[str, Any] | None = None,
    by_channel: bool = False,
    baseline: Baseline = PairedBaseline(),  # noqa: B008 - immutable
    conditions: Any = None,
    outputs: Any = None,
    n_pairs: int = 16,
    n_steps: int = 8,
    batch_size: int = 256,
    memory: float = 1.0,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> LayerIGCResult:
    """Attribute the correlation of predictions and targets to the units of a hidden layer.

    Parameters
    ----------
    model, inputs, targets, baseline, conditions, outputs, memory, device, seed, progress
        As for `integrated_gradient_correlation`. Baselines that are drawn from a distribution
        (`SampledBaseline`, `GivenBaseline` of several) are all met by every sample.
    layer : str or torch.nn.Module
        A module of the model, or its name, that forward() runs once. What it returns are the
        units.
    path : {"inputs", "activities"}
        Straight between inputs (conductance), or between what the layer makes of them. Both sum
        to the correlation.
    regions : dict of str to indices or boolean mask, optional
        Sets of components of the flattened input, for which units are attributed separately, as
        ``groups`` of `integrated_gradient_correlation`. Along paths between inputs only.
    by_channel : bool
        Sum units over all their dimensions but the first: of a convolution, one value a channel.
    n_pairs : int
        Baselines of each sample, where these are the other samples; once there are half as many
        as samples, all pairs are drawn.
    n_steps : int
        Gauss-Legendre nodes on each path.
    batch_size : int
        Paths integrated at once; has no influence on the result but by rounding.

    Returns
    -------
    LayerIGCResult
        Its ``completeness_gap`` comes from pairs that were not drawn and from the quadrature,
        and the ``numerical_error`` (estimated, of the units' values) likewise.

    Raises
    ------
    InputError
        As `integrated_gradient_correlation`, and if the layer is not found, run more than once,
        or passed by where that cannot be.
    """
    check_module(model)
    baseline = check_baseline(baseline)
    check_choice("path", path, ("inputs", "activities"))
    n_pairs, n_steps = check_count("n_pairs", n_pairs), check_count("n_steps", n_steps)
    batch_size, seed = check_count("batch_size", batch_size), check_count("seed", seed, 0)
    check_positive("memory", memory)
    name, place = layer_name(model, layer), choose_device(device, model)
    refuse_regions(regions, path)
    with (
        torch.inference_mode(False),
        borrow(model, place) as borrowed,
        watch(borrowed, name) as watched,
    ):
        problem = prepare(
            borrowed,
            inputs,
            targets,
            baseline=baseline,
            conditions=conditions,
            groups=regions,
            groups_argument="regions",
            outputs=outputs,
            pool=1,
            device=place,
            seed=seed,
            progress=progress,
            memory=memory,
        )
        beside = None if problem.conditions is None else problem.conditions[:4]
        rows, chosen = problem.samples.rows(slice(0, 4)), problem.chosen
        factors = watched_factors(borrowed, watched, problem.factors, rows, beside, chosen)
        if factors is not problem.factors:
            problem.factors, problem.hidden = factors, None
        paths = LayerPaths(
            problem.factors,
            watched,
            problem.n_outputs,
            between_inputs=path == "inputs",
            n_steps=n_steps,
            by_channel=by_channel,
        )
        if path == "activities":
            refuse_passed_by(paths, factors.stem(rows), beside)
        sums = LayerSums(problem, paths, n_pairs, batch_size, seed, progress)
        sums.run()
    values, errors = sums.finish()
    n_regions, n_units = problem.columns.n_groups, paths.n_units
    cut = (1 + n_regions) * n_units
    kind = problem.targets.cpu().numpy().dtype

    def shaped(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        table = array[:, :cut].reshape(len(array), 1 + n_regions, *paths.shape).astype(kind)
        return table[:, 0], table[:, 1:] if n_regions else None

    (units, by_region), (unit_errors, region_errors) = shaped(values), shaped(errors)
    correlation = problem.correlation.cpu().numpy()
    gap = values[:, :n_units].sum(1) + values[:, -1] - correlation
    return LayerIGCResult(
        attributions=units,
        standard_errors=unit_errors,
        correlation=correlation,
        completeness_gap=gap,
        numerical_error=sums.numerical_error(values[:, :n_units], gap),
        group_values=values[:, cut + 1 : -1] if n_regions else None,
        group_standard_errors=errors[:, cut + 1 : -1] if n_regions else None,
        n_samples=problem.n_samples,
        n_gradients=max(sums.n_rounds) * n_steps,
        remainder=values[:, -1],
        remainder_errors=errors[:, -1],
        region_attributions=by_region,
        region_attribution_errors=region_errors,
        settings={
            "method": "layer correlation",
            "layer": name,
            "path": path,
            "by_channel": bool(by_channel),
            "baseline": type(baseline).__name__,
            "auto_correlation": targets is None,
            "n_rounds": max(sums.n_rounds),
            "n_steps": n_steps,
            "seed": seed,
            "outputs": problem.chosen.tolist(),
            "groups": problem.columns.group_names,
            "device": str(place),
        },
    )
