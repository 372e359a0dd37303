"""Scale-resolved integrated gradient correlation: which places carry it, and at which scales.

Blur integrated gradients of every sample (`neuroigc.attribution.blur`) in the covariance of
equation 8 of the IGC paper. There are no pairs, hence nothing random: the error is that of the
quadrature alone, and is known of every band, because predictions at its two scales tell what it
has to add up to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import check_count, check_positive
from neuroigc.attribution.baselines import PairedBaseline
from neuroigc.attribution.covariance import GroupedCovariance, draw_sample_groups
from neuroigc.attribution.gradients import borrow, check_module, choose_device, remembered_slopes
from neuroigc.attribution.problem import Problem, prepare
from neuroigc.attribution.results import IGCResult
from neuroigc.attribution.scale_bands import Bands
from neuroigc.attribution.scale_space import band_frequencies

__all__ = ["BlurIGCResult", "blur_correlation"]

# Spatial frequencies of which it is known what each band carries.
N_GRATINGS = 500


@dataclass(kw_only=True)
class BlurIGCResult(IGCResult):
    """Blur integrated gradient correlations: what each place carries at each scale.

    ``attributions``, summed over the scales, and ``remainder`` sum to ``correlation`` but for the
    ``completeness_gap``. ``numerical_error`` is the norm of ``scale_gap`` relative to that of what
    the bands carry: zero would mean that every band is integrated exactly.

    Attributes
    ----------
    scales : array of shape (n_scales + 1,)
        Between the bands: standard deviations of the blur in pixels, from 0 on.
    scale_attributions, scale_attribution_errors : arrays of shape (n_outputs, n_scales, *map_shape)
        And their standard errors.
    scale_values, scale_standard_errors : arrays of shape (n_outputs, n_scales)
        What each band carries, from predictions alone: the covariance with the targets of what
        predictions change between its two scales.
    scale_gap : array of shape (n_outputs, n_scales)
        Attributions of a band summed over the map, minus what it carries.
    remainder, remainder_errors : arrays of shape (n_outputs,)
        What samples blurred to the end still carry: the coarsest scale.
    """

    scales: NDArray[np.float64]
    scale_attributions: NDArray[Any]
    scale_attribution_errors: NDArray[Any]
    scale_values: NDArray[np.float64]
    scale_standard_errors: NDArray[np.float64]
    scale_gap: NDArray[np.float64]
    remainder: NDArray[np.float64]
    remainder_errors: NDArray[np.float64]

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Return the spatial frequency of each band, in cycles per pixel."""
        return band_frequencies(self.scales)

    def preferred_frequencies(self) -> NDArray[np.float64]:
        """Return the spatial frequency at which each output's correlation is carried.

        The mean over bands of the logarithm of their frequencies, each weighted by what the band
        carries (bands that carry less than nothing have no weight), read as the frequency of the
        grating whose contrast is lost with the same mean. An output that follows the square of
        contrasts loses it at half the variance of blur, and comes out √2 higher.

        Returns
        -------
        array of shape (n_outputs,)
            In cycles per pixel; NaN where no band carries anything, and of a single band.
        """
        if len(self.scales) == 2:
            return np.full(len(self.scale_values), np.nan)
        weights = np.clip(self.scale_values, 0, None)
        total, logs = weights.sum(1), np.log(self.frequencies)
        mean = np.divide(weights @ logs, total, where=total > 0, out=np.full_like(total, np.nan))
        gratings = np.geomspace(0.05 / self.scales[-1], 0.5, N_GRATINGS)
        decay = 2 - 2 * np.cos(2 * np.pi * gratings)
        lost = -np.diff(np.exp(np.outer(decay, -(self.scales**2) / 2)), axis=1)
        preferred: NDArray[np.float64] = np.exp(
            np.interp(mean, lost @ logs / lost.sum(1), np.log(gratings))
        )
        return preferred


def blur_correlation(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    scales: Sequence[float] | None = None,
    n_points: int = 4,
    n_dims: int = 2,
    conditions: Any = None,
    groups: Mapping[str, Any] | None = None,
    outputs: Any = None,
    pool: int = 1,
    batch_size: int = 256,
    memory: float = 1.0,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
) -> BlurIGCResult:
    """Attribute the correlation of predictions and targets to pixels and scales.

    ``h_l = E_i[ BlurIG_l(x_i) (y_i - mean y) ] / (sd(f) sd(y))``, with blur integrated gradients
    kept apart by bands of scales. Summed over pixels, a band carries the covariance with the
    targets of what predictions change between its two scales; all bands and the remainder, which
    the samples blurred to the end still carry, sum to the correlation. Of an encoder this is
    position and spatial frequency of every vertex from one model.

    Parameters
    ----------
    model, inputs, targets, conditions, groups, outputs, pool, device, seed, progress
        As for `integrated_gradient_correlation`; the seed draws the groups of samples that
        standard errors come from, and nothing else.
    scales, n_points, n_dims
        As for `blur_integrated_gradients`.
    batch_size : int
        Most points differentiated at once; has no influence on the result but by rounding.
    memory : float
        GiB that may be used beyond inputs, model and result (roughly).

    Returns
    -------
    BlurIGCResult

    Raises
    ------
    InputError
        As `integrated_gradient_correlation` and `blur_integrated_gradients`.
    """
    check_module(model)
    n_points, seed = check_count("n_points", n_points), check_count("seed", seed, 0)
    n_rows = check_count("batch_size", batch_size)
    check_positive("memory", memory)
    place = choose_device(device, model)
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        problem = prepare(
            borrowed,
            inputs,
            targets,
            baseline=PairedBaseline(),
            conditions=conditions,
            groups=groups,
            outputs=outputs,
            pool=pool,
            device=place,
            seed=seed,
            progress=progress,
            memory=memory,
        )
        bands = Bands(
            borrowed,
            problem.factors,
            problem.samples,
            problem.n_outputs,
            scales,
            n_points,
            n_dims,
        )
        # Secants are remembered anyway.
        many = bands.head is not None and not bands.has_kinks
        with remembered_slopes(borrowed) if many else nullcontext():
            maps, changes = _covariances(problem, bands, n_rows, seed, progress)
    columns, n_scales = problem.columns, len(bands.scales) - 1
    shape = (problem.n_outputs, n_scales + 1, columns.n_columns)
    values, errors = (part.reshape(shape).cpu().numpy() for part in maps)
    carried, doubt = (part.cpu().numpy() for part in changes)
    correlation = problem.correlation.cpu().numpy()
    kind = problem.targets.cpu().numpy().dtype
    pixels, whole = slice(0, columns.n_components), (problem.n_outputs, *columns.shape)
    by_scale = (problem.n_outputs, n_scales, *columns.shape)
    n_groups = columns.n_groups
    gap = values[:, 1:, pixels].sum(2) - carried[:, :-1]
    size = np.linalg.norm(carried[:, :-1], axis=1)
    return BlurIGCResult(
        attributions=values[:, 0, pixels].reshape(whole).astype(kind),
        standard_errors=errors[:, 0, pixels].reshape(whole).astype(kind),
        correlation=correlation,
        completeness_gap=values[:, 0, pixels].sum(1) + carried[:, -1] - correlation,
        numerical_error=np.linalg.norm(gap, axis=1) / np.maximum(size, np.finfo(float).tiny),
        group_values=values[:, 0, columns.n_components :] if n_groups else None,
        group_standard_errors=errors[:, 0, columns.n_components :] if n_groups else None,
        n_samples=problem.n_samples,
        n_gradients=n_scales * n_points,
        scales=bands.scales,
        scale_attributions=values[:, 1:, pixels].reshape(by_scale).astype(kind),
        scale_attribution_errors=errors[:, 1:, pixels].reshape(by_scale).astype(kind),
        scale_values=carried[:, :-1],
        scale_standard_errors=doubt[:, :-1],
        scale_gap=gap,
        remainder=carried[:, -1],
        remainder_errors=doubt[:, -1],
        settings={
            "method": "blur correlation",
            "baseline": "scale space",
            "auto_correlation": targets is None,
            "n_points": n_points,
            "n_dims": n_dims,
            "pool": pool,
            "seed": seed,
            "outputs": problem.chosen.tolist(),
            "groups": columns.group_names,
            "device": str(place),
        },
    )


Pair = tuple[Tensor, Tensor]


def _covariances(
    problem: Problem, bands: Bands, n_rows: int, seed: int, progress: bool
) -> tuple[Pair, Pair]:
    """Return values and standard errors of maps, all scales first, and of what bands carry."""
    groups = draw_sample_groups(problem, seed)
    order, ends = np.concatenate(groups), np.cumsum([len(group) for group in groups])
    columns, n = problem.columns, problem.n_samples
    maps = GroupedCovariance(problem, groups, paired=False)
    changes = GroupedCovariance(problem, groups, paired=False)
    # Of each stratum.
    nothing = torch.zeros((), dtype=torch.float64, device=problem.scale.device)
    sizes = np.bincount(problem.strata).tolist()
    mean_map, mean_change = [nothing] * len(sizes), [nothing] * len(sizes)
    here: list[Tensor] = []
    step = bands.samples_at_once(n_rows, problem.samples.chunk_numbers // columns.n_columns)
    group = 0
    for first in track(range(0, n, step), show=progress, label="blur correlation"):
        index = order[first : first + step]
        rows = torch.from_numpy(index).to(problem.targets.device)
        beside = None if problem.conditions is None else problem.conditions[rows]
        x, c = problem.samples.rows(index), problem.targets[rows]
        predicted = bands.predictions(x, beside)
        # What is left at the end, beside what is lost in each band.
        changed = torch.cat([-predicted.diff(dim=2), predicted[..., -1:]], 2)
        found = bands.maps(x, beside, columns.reduce)
        found = torch.cat([found.sum(2, keepdim=True), found], 2).flatten(2)
        for stratum in np.unique(problem.strata[index]):
            own = torch.from_numpy(problem.strata[index] == stratum).to(rows.device)
            total = bands.as_outputs(found[own].sum(0)).double()
            mean_map[stratum] = mean_map[stratum] + total / sizes[stratum]
            mean_change[stratum] = mean_change[stratum] + changed[own].sum(0) / sizes[stratum]
        start = first
        while start < first + len(index):
            stop = min(int(ends[group]), first + len(index))
            part = slice(start - first, stop - first)
            sums = [bands.weighted_sum(c[part], found[part])]
            sums.append((c[part].double()[:, :, None] * changed[part]).sum(0))
            here = [a + b for a, b in zip(here, sums, strict=True)] if here else sums
            if stop == ends[group]:
                maps.add(group, here[0])
                changes.add(group, here[1])
                here, group = [], group + 1
            start = stop
    return maps.finish(torch.stack(mean_map)), changes.finish(torch.stack(mean_change))
