"""What a data set is summarised by without IGC, to compare with it.

Means and standard deviations of the attributions of single samples, and what components of the
input tell of the targets without any model. Rivals of the IGC paper, and of its later edition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count, check_same_length
from neuroigc.attribution.baselines import Baseline, GivenBaseline, SampledBaseline, baseline_bank
from neuroigc.attribution.gradients import check_module, choose_device
from neuroigc.attribution.integrated_gradients import integrated_gradients
from neuroigc.attribution.problem import checked_targets
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.samples import Samples, check_finite, choose_dtype
from neuroigc.attribution.single import refuse_paired

__all__ = [
    "AttributionSummary",
    "ComponentTest",
    "component_correlation",
    "component_t_test",
    "summarise_attributions",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AttributionSummary:
    """Attributions of single samples, summarised over the data set.

    Attributes
    ----------
    mean, standard_deviation, mean_absolute : array of shape (n_outputs, *input_shape)
        Over samples, in units of the model's output. Of baselines that are samples themselves the
        mean is zero but for the draw of the baselines, because the attribution of x against x' is
        minus that of x' against x.
    covariance : array of shape (n_outputs, *input_shape), or None
        Of attributions and targets over the standard deviations of predictions and targets. Of
        integrated gradients this is IGC.
    correlation : array of shape (n_outputs,), or None
        Of predictions and targets.
    n_samples : int
    """

    mean: Array
    standard_deviation: Array
    mean_absolute: Array
    covariance: Array | None
    correlation: Array | None
    n_samples: int

    @property
    def completeness_gap(self) -> Array | None:
        """Return covariances summed, minus the correlation, (n_outputs,).

        Of integrated gradients it is numerical, of methods that are not complete what they miss.
        """
        if self.covariance is None:
            return None
        gap: Array = self.covariance.reshape(len(self.covariance), -1).sum(1) - self.correlation
        return gap


@dataclass(frozen=True)
class ComponentTest:
    """Welch's t-test of each input component.

    Attributes
    ----------
    t, p_values : array of shape (n_outputs, *input_shape)
        Two-sided and of each component by itself. t is 0 and p 1 where a component is constant;
        t is infinite and p 0 where it has one value on each side.
    """

    t: Array
    p_values: Array


def summarise_attributions(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    *,
    method: Callable[..., IGResult] = integrated_gradients,
    baseline: Baseline = SampledBaseline(32),  # noqa: B008 - immutable
    conditions: Any = None,
    chunk_size: int = 256,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> AttributionSummary:
    """Summarise the attributions of single samples by their mean, spread and covariance.

    ``E_i[g_l(x_i)]``, ``SD_i[g_l(x_i)]`` and ``E_i[g_l(x_i) (y_i - mean y)] / (sd(f) sd(y))``, the
    last one equation 8 of the IGC paper with any attribution g.

    Parameters
    ----------
    model : torch.nn.Module
        As for `integrated_gradient_correlation`.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        Streamed.
    targets : array of shape (n_samples, n_outputs) or (n_samples,), optional
        For the covariance, one column for each output that is attributed.
    method : callable
        `integrated_gradients`, `gradient_times_input`, `expected_gradients` or their like.
    baseline : SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline
        Means and samples are those of all ``inputs``.
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input.
    chunk_size : int
        Samples whose attributions are held at once.
    device, seed, progress
        As for `integrated_gradient_correlation`.
    **options
        Further options of the method.

    Returns
    -------
    AttributionSummary

    Raises
    ------
    InputError
        As the method, and if there are fewer than two samples or targets that do not fit.
    """
    check_module(model)
    refuse_paired(baseline)
    if not callable(method):
        raise InputError("method", expected="a function that attributes", got=repr(method))
    step = check_count("chunk_size", chunk_size)
    samples = Samples(inputs, choose_device(device, model), choose_dtype(model, inputs))
    y = None if targets is None else checked_targets(targets)
    n = check_same_length(inputs=samples, targets=y, conditions=conditions)
    _refuse_few(n)
    bank = baseline_bank(baseline, samples, check_count("seed", seed, 0))
    if bank is None:
        raise RuntimeError("paired baselines have no bank")
    # The same for all chunks, whichever samples they are of.
    given = GivenBaseline(bank.reshape(-1, *samples.shape))
    centred = None if y is None else y - y.mean(0)
    predictions: list[NDArray[Any]] = []
    sums: list[Array] = []
    starts = range(0, n, step)
    for first in track(starts, show=progress, label="summary", total=len(starts)):
        part = slice(first, min(first + step, n))
        found = method(
            model,
            inputs[part],
            baseline=given,
            conditions=None if conditions is None else conditions[part],
            device=device,
            seed=seed,
            **options,
        )
        maps, n_outputs = found.attributions.astype(np.float64), found.predictions.shape[1]
        if centred is not None and centred.shape[1] != n_outputs:
            raise InputError(
                "targets",
                expected=f"one column for each of the {n_outputs} outputs",
                got=f"shape {centred.shape}",
            )
        added = [maps.sum(0), (maps**2).sum(0), np.abs(maps).sum(0)]
        if centred is not None:
            added.append(np.einsum("nv...,nv->v...", maps, centred[part]))
        sums = [a + b for a, b in zip(sums, added, strict=True)] if sums else added
        predictions.append(found.predictions)
    mean, square, absolute = (total / n for total in sums[:3])
    covariance = correlation = None
    if y is not None and centred is not None:
        f = np.concatenate(predictions).astype(np.float64)
        # Less than the rounding of predictions and targets is no deviation.
        rounding = 2 * torch.finfo(samples.dtype).eps
        varies = f.std(0) > rounding * np.abs(f).max(0)
        varies &= centred.std(0) > 1e-14 * np.abs(y).max(0)
        scale = np.where(varies, f.std(0) * centred.std(0), 0)
        if not scale.all():
            raise InputError(
                "targets",
                expected="targets and predictions that vary",
                got=f"a constant for output {int(np.argmin(scale))}",
            )
        correlation = (f * centred).mean(0) / scale
        covariance = sums[3] / n / scale.reshape(-1, *(1,) * (mean.ndim - 1))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return AttributionSummary(mean, spread, absolute, covariance, correlation, n)


def component_correlation(inputs: Any, targets: Any) -> Array:
    """Return Pearson's r of each input component and each target, without any model.

    Parameters
    ----------
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        Streamed.
    targets : array of shape (n_samples, n_outputs) or (n_samples,)

    Returns
    -------
    array of shape (n_outputs, *input_shape)
        0 where a component is constant.

    Raises
    ------
    InputError
        If lengths differ, numbers are not finite, or a target is constant.
    """
    samples, y = _checked(inputs, targets)
    centred = y - y.mean(0)
    centred /= centred.std(0)
    ones = np.ones((len(y), 1))
    sums, squares = _sums(samples, np.concatenate([ones, centred], 1))
    n = len(y)
    variance = squares[0] / n - (sums[0] / n) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r = sums[1:] / n / np.sqrt(variance)
    return _shaped(np.where(_varies(variance, squares[0] / n), r, 0), samples)


def component_t_test(inputs: Any, targets: Any) -> ComponentTest:
    """Compare each input component between the samples of high and of low targets.

    Welch's t-test, of the samples whose target is above the middle of the range of a target of
    two values (classes), else above its median, with those of the others.

    Parameters
    ----------
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        Streamed.
    targets : array of shape (n_samples, n_outputs) or (n_samples,)
        One-hot columns for classes.

    Returns
    -------
    ComponentTest

    Raises
    ------
    InputError
        As `component_correlation`, and if one of the two sides has fewer than two samples.
    """
    samples, y = _checked(inputs, targets)
    high = np.stack([column > _middle(column) for column in y.T], 1)
    n_high, n_low = high.sum(0)[:, None], (~high).sum(0)[:, None]
    least = int(min(n_high.min(), n_low.min()))
    if least < 2:
        raise InputError(
            "targets", expected="two samples or more, high and low", got=f"{least} on one side"
        )
    n_outputs = y.shape[1]
    sums, squares = _sums(samples, np.concatenate([high, ~high], 1).astype(np.float64))
    means, variances = [], []
    for count, rows in ((n_high, slice(n_outputs)), (n_low, slice(n_outputs, None))):
        mean = sums[rows] / count
        variance = squares[rows] / count - mean**2
        variance[~_varies(variance, squares[rows] / count)] = 0
        means.append(mean)
        variances.append(variance / (count - 1))
    pooled = variances[0] + variances[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (means[0] - means[1]) / np.sqrt(pooled)
        freedom = pooled**2 / (variances[0] ** 2 / (n_high - 1) + variances[1] ** 2 / (n_low - 1))
    # Where neither side varies, they are the same or infinitely many errors apart.
    constant = pooled == 0
    t = np.where(constant & (means[0] == means[1]), 0, t)
    p = 2 * stdtr(np.where(constant, 1, freedom), -np.abs(t))
    return ComponentTest(_shaped(t, samples), _shaped(p, samples))


def _checked(inputs: Any, targets: Any) -> tuple[Samples, Array]:
    """Return what was given as rows in float64, having seen that the targets vary."""
    samples = Samples(inputs, torch.device("cpu"), torch.float64)
    y = checked_targets(targets)
    _refuse_few(check_same_length(inputs=samples, targets=y))
    constant = np.flatnonzero(np.ptp(y, axis=0) == 0)
    if len(constant):
        raise InputError("targets", expected="targets that vary", got=f"constant: {constant[0]}")
    return samples, y


def _refuse_few(n: int) -> None:
    if n < 2:
        raise InputError("inputs", expected="at least two samples", got=str(n))


def _middle(column: Array) -> float:
    values = np.unique(column)
    return float(values.mean() if len(values) == 2 else np.median(column))


def _sums(samples: Samples, weights: Array) -> tuple[Array, Array]:
    """Return weighted sums over samples of components and their squares, (n_weights, n_inputs)."""
    shape = weights.shape[1], samples.n_inputs
    sums, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    columns = torch.from_numpy(weights).T
    # Less the first sample, lest squares of large numbers hide small differences.
    origin: Tensor = samples.rows(slice(0, 1))
    for part in samples.chunks():
        x = samples.rows(part)
        check_finite(samples, x)
        x = x - origin
        sums += columns[:, part] @ x
        squares += columns[:, part] @ x**2
    return sums.numpy(), squares.numpy()


def _varies(variance: Array, square: Array) -> NDArray[np.bool_]:
    """Tell where a variance is more than the rounding of the mean square that it is taken from."""
    varies: NDArray[np.bool_] = variance > 1e-12 * square
    return varies


def _shaped(values: Array, samples: Samples) -> Array:
    return values.reshape(len(values), *samples.shape)
