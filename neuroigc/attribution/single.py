"""What the methods for single samples share: gradients on straight paths, averaged per sample.

A method says which baselines a sample is compared with, and where on the paths from them the
gradients are taken; all else is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count, check_same_length
from neuroigc.attribution.baselines import (
    Baseline,
    PairedBaseline,
    baseline_bank,
    check_baseline,
)
from neuroigc.attribution.factorisation import Factors, factorise
from neuroigc.attribution.gradients import borrow, check_module, choose_device, gradients
from neuroigc.attribution.keys import digest_rows
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.samples import (
    Samples,
    check_finite,
    check_outputs,
    choose_dtype,
    condition_tensor,
    run_model,
)

__all__ = [
    "Opened",
    "Paths",
    "attribute_samples",
    "baseline_predictions",
    "open_samples",
    "refuse_paired",
]

# Numbers held at once in one array.
CHUNK_NUMBERS = 2**23
# Most samples whose paths are drawn at once.
MOST_DRAWN = 1024


@dataclass(frozen=True)
class Paths:
    """The paths that end at each sample, and the points on them.

    Attributes
    ----------
    bank : Tensor of shape (n_baselines, n_inputs)
        Where paths may begin.
    n_paths : int
        Paths per sample; attributions are averaged over them.
    weights : array of shape (n_points,)
        Weight of each point of a path; they sum to 1.
    draw : callable
        Maps the keys of some samples (n,), digests of their inputs where paths are random, to the
        paths' rows of the bank (n, n_paths) and to points (n, n_paths, n_points) between 0, the
        baseline, and 1, the sample; or to arrays of shapes that broadcast to these.
    is_random : bool
        Whether paths are independent draws, whose spread tells a standard error.
    """

    bank: Tensor
    n_paths: int
    weights: NDArray[np.float64]
    draw: Callable[[NDArray[np.uint64]], tuple[NDArray[np.int64], NDArray[np.float64]]]
    is_random: bool = False


@dataclass(frozen=True)
class Opened:
    """Single samples and a model, checked.

    Attributes
    ----------
    samples : Samples
    conditions : Tensor of shape (n_samples, ...) or None
    chosen : array of shape (n_outputs,)
        The chosen columns of the model's outputs.
    factors : Factors
        Of these.
    """

    samples: Samples
    conditions: Tensor | None
    chosen: NDArray[np.int64]
    factors: Factors


def open_samples(
    borrowed: nn.Module, place: torch.device, inputs: Any, *, conditions: Any, outputs: Any
) -> Opened:
    """Check samples and a borrowed model, and take the model apart.

    Raises
    ------
    InputError
        If there is no sample, one is not finite, or they are not what the model takes.
    """
    samples = Samples(inputs, place, choose_dtype(borrowed, inputs))
    if check_same_length(inputs=samples, conditions=conditions) == 0:
        raise InputError("inputs", expected="at least one sample", got="0")
    for part in samples.chunks():
        check_finite(samples, samples.rows(part))
    shown = condition_tensor(conditions, samples)
    example = samples.rows(slice(0, 4)).reshape(-1, *samples.shape)
    beside = None if shown is None else shown[:4]
    chosen = check_outputs(outputs, run_model(borrowed, example, beside).shape[1])
    factors = factorise(borrowed, example, beside).select(torch.from_numpy(chosen).to(place))
    return Opened(samples, shown, chosen, factors)


def attribute_samples(
    model: nn.Module,
    inputs: Any,
    choose_paths: Callable[[Tensor], Paths],
    *,
    method: str,
    baseline: Baseline,
    conditions: Any,
    outputs: Any,
    batch_size: int,
    device: str | torch.device,
    seed: int,
    progress: bool,
    **settings: int,
) -> IGResult:
    """Check the caller's things and attribute sample by sample.

    Parameters
    ----------
    model, inputs, baseline, conditions, outputs, batch_size, device, seed, progress
        As for `integrated_gradients`.
    choose_paths : callable
        Maps the bank of baselines (n_baselines, n_inputs) to the paths.
    method : str
        For the settings of the result, like all of ``settings``.

    Returns
    -------
    IGResult

    Raises
    ------
    InputError
        If data, model and options do not fit each other.
    """
    check_module(model)
    refuse_paired(baseline)
    n_rows, seed = check_count("batch_size", batch_size), check_count("seed", seed, 0)
    place = choose_device(device, model)
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        opened = open_samples(borrowed, place, inputs, conditions=conditions, outputs=outputs)
        samples, shown, chosen = opened.samples, opened.conditions, opened.chosen
        factors, n = opened.factors, len(samples)
        bank = baseline_bank(baseline, samples, seed)
        if bank is None:
            raise RuntimeError("paired baselines have no bank")
        starts = baseline_predictions(factors, bank, shown, n, n_rows)
        attributor = _Attributor(factors, choose_paths(bank), len(chosen), n_rows)
        kind = samples.rows(slice(0, 1)).cpu().numpy().dtype
        maps = np.empty((n, len(chosen), samples.n_inputs), kind)
        errors = np.empty_like(maps) if attributor.paths.is_random else None
        predictions = np.empty((n, len(chosen)), kind)
        step = max(1, min(MOST_DRAWN, CHUNK_NUMBERS // samples.n_inputs))
        blocks = range(0, n, step)
        for first in track(blocks, show=progress, label=method, total=len(blocks)):
            condition = None if shown is None else shown[first : first + step]
            x = samples.rows(slice(first, first + step))
            keys = np.zeros(len(x), np.uint64)
            if attributor.paths.is_random:
                keys = digest_rows(x.cpu().numpy())
            for part, attributed in attributor.attribute(x, keys, condition):
                rows = slice(first + part.start, first + part.stop)
                maps[rows], predictions[rows] = attributed[0].cpu(), attributed[1].cpu()
                if errors is not None:
                    errors[rows] = attributed[2].cpu()
    gap = maps.sum(2, dtype=np.float64) - (predictions - starts.cpu().numpy())
    shape = (n, len(chosen), *samples.shape)
    return IGResult(
        attributions=maps.reshape(shape),
        predictions=predictions,
        baseline_predictions=starts.cpu().numpy().astype(kind),
        completeness_gap=gap,
        standard_errors=None if errors is None else errors.reshape(shape),
        settings={
            "method": method,
            "baseline": type(baseline).__name__,
            "n_baselines": len(bank),
            **settings,
            "outputs": chosen.tolist(),
            "seed": seed,
            "device": str(place),
        },
    )


def refuse_paired(baseline: Baseline) -> None:
    """Raise unless the baseline is one that a single sample has."""
    if isinstance(check_baseline(baseline), PairedBaseline):
        raise InputError(
            "baseline",
            expected="a baseline for single samples",
            got="PairedBaseline",
            fix="Take SampledBaseline(n), n samples as baselines for all.",
        )


def baseline_predictions(
    factors: Factors, bank: Tensor, conditions: Tensor | None, n: int, n_rows: int
) -> Tensor:
    """Return the mean prediction over the bank, in each sample's condition, as float64."""

    def mean(condition: Tensor | None) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=bank.device)
        for part in torch.split(bank, n_rows):
            beside = None
            if condition is not None:
                beside = condition.expand(len(part), *condition.shape)
            total = total + factors.outputs(factors.stem(part), beside).double().sum(0)
        return total / len(bank)

    with torch.no_grad():
        if conditions is None:
            return mean(None).expand(n, -1)
        # Baselines are run once for all samples of the same condition.
        distinct, which = torch.unique(conditions, dim=0, return_inverse=True)
        return torch.stack([mean(condition) for condition in distinct])[which]


class _Attributor:
    """Mean gradients on paths, behind the stem, and what they make of the inputs."""

    def __init__(self, factors: Factors, paths: Paths, n_outputs: int, n_rows: int) -> None:
        self.factors, self.paths, self.n_outputs = factors, paths, n_outputs
        # The gradients of latents serve all outputs, if there are fewer of them.
        head = factors.head
        self.head = None if head is None or head[0].shape[1] >= n_outputs else head[0]
        self.weights = torch.from_numpy(paths.weights).to(paths.bank)
        with torch.no_grad():
            self.starts = torch.cat([factors.stem(part) for part in torch.split(paths.bank, 256)])
        n_points, stem = len(self.weights), factors.stem
        # No more at once than fits: gradients at points, and maps of whole paths.
        n_rows = min(n_rows, max(1, 2 * CHUNK_NUMBERS // (n_outputs * stem.n_hidden)))
        at_once = min(max(1, n_rows // n_points), 2 * CHUNK_NUMBERS // (n_outputs * stem.n_inputs))
        self.n_points = min(n_points, n_rows)
        self.n_paths = min(paths.n_paths, max(1, at_once))
        self.n_samples = max(1, at_once // paths.n_paths)

    def attribute(self, x: Tensor, keys: NDArray[np.uint64], conditions: Tensor | None) -> Any:
        """Yield slices of the samples with their maps, predictions and standard errors."""
        picks, points = (torch.from_numpy(part).to(x.device) for part in self.paths.draw(keys))
        picks = picks.expand(len(x), self.paths.n_paths)
        points = points.to(x.dtype).expand(*picks.shape, len(self.weights))
        for first in range(0, len(x), self.n_samples):
            part = slice(first, min(first + self.n_samples, len(x)))
            condition = None if conditions is None else conditions[part]
            with torch.no_grad():
                ends = self.factors.stem(x[part])
                predictions = self.factors.outputs(ends, condition)
            maps, errors = self._average(x[part], ends, picks[part], points[part], condition)
            yield part, (maps, predictions, errors)

    def _average(
        self, x: Tensor, ends: Tensor, picks: Tensor, points: Tensor, conditions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return maps (n, n_outputs, n_inputs) averaged over paths, and their standard errors."""
        n_paths = self.paths.n_paths
        maps = torch.zeros(len(x), self.n_outputs, x.shape[1], dtype=torch.float64, device=x.device)
        squares = torch.zeros_like(maps) if self.paths.is_random else None
        for first in range(0, n_paths, self.n_paths):
            some = slice(first, first + self.n_paths)
            slopes = self._mean_slopes(ends, picks[:, some], points[:, some], conditions)
            steps = x[:, None] - self.paths.bank[picks[:, some]]
            products = self.factors.stem.pull(slopes) * steps[:, :, None]
            maps += products.sum(1)
            if squares is not None:
                squares += products.double().square_().sum(1)
        maps /= n_paths
        if squares is None:
            return maps, maps
        variance = (squares / n_paths - maps**2).clamp_(min=0) / (n_paths - 1)
        return maps, variance.sqrt_()

    def _mean_slopes(
        self, ends: Tensor, picks: Tensor, points: Tensor, conditions: Tensor | None
    ) -> Tensor:
        """Return gradients (n, n_paths, n_outputs, n_hidden), averaged over the points of paths."""
        total = ends.new_zeros(())
        for first in range(0, points.shape[2], self.n_points):
            t = points[..., first : first + self.n_points, None]
            starts = self.starts[picks][:, :, None]
            # Exact at both ends.
            where = torch.lerp(starts, ends[:, None, None], t)
            beside = None
            if conditions is not None:
                beside = conditions.repeat_interleave(where[0, ..., 0].numel(), 0)
            slopes = self._differentiate(where.flatten(0, 2), beside)
            slopes = slopes.reshape(*t.shape[:3], *slopes.shape[1:])
            weights = self.weights[first : first + self.n_points]
            total = total + torch.einsum("s,npsvh->npvh", weights, slopes)
        return total if self.head is None else self.head @ total

    def _differentiate(self, points: Tensor, conditions: Tensor | None) -> Tensor:
        """Return gradients of outputs, or of latents if these are taken instead."""
        function = self.factors.outputs if self.head is None else self.factors.latents
        return gradients(lambda hidden: function(hidden, conditions), points, lambda slope: slope)
