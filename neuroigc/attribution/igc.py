"""Integrated Gradient Correlation: which input components carry the correlation.

Source: Lelièvre & Chen, "Integrated Gradient Correlation: a Dataset-wise Attribution Method",
equations 8 and 9; here over pairs of samples and with both affine ends of the model peeled off.
"""

from __future__ import annotations

import numbers
import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroigc._files import make_output_folder
from neuroigc._validation import InputError
from neuroigc.attribution.baselines import Baseline, PairedBaseline, check_baseline
from neuroigc.attribution.checkpoint import fingerprint
from neuroigc.attribution.cotangents import CotangentEngine
from neuroigc.attribution.engine import Engine, Settings
from neuroigc.attribution.estimate import Estimate, Estimator
from neuroigc.attribution.gradients import (
    borrow,
    check_module,
    choose_device,
    remembered_slopes,
)
from neuroigc.attribution.latents import LatentEngine
from neuroigc.attribution.problem import Problem, prepare
from neuroigc.attribution.results import IGCResult

__all__ = ["integrated_gradient_correlation"]

# Gradients per sample at which to stop, met tolerance or not: the paper's 32 baselines x 32 steps.
MAX_GRADIENTS = 1024
# The most of a variance over samples that is taken for noise of the pairs drawn, lest a poor
# estimate of the noise take everything.
MOST_NOISE = 0.5


def integrated_gradient_correlation(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    baseline: Baseline = PairedBaseline(),  # noqa: B008 - immutable
    conditions: Any = None,
    groups: Mapping[str, Any] | None = None,
    outputs: Any = None,
    pool: int = 1,
    tolerance: float = 0.05,
    max_gradients: int | None = None,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> IGCResult:
    """Attribute the correlation of predictions and targets to the components of the input.

    ``IGC_l = E_i[ E_x'[IG_l(x_i, x')] (y_i - mean y) ] / (sd(f) sd(y))`` sums over l to the
    correlation of f(x) and y. Baselines x' are by default the other samples, so it is half the
    mean over pairs of ``(y_i - y_j) IG_l(x_i, x_j)``: estimated from random pairs, with a
    control variate from the gradients at the samples, until the error is below ``tolerance``.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (n, *input_shape), and the conditions if given, to (n, n_outputs) or (n,). It is
        evaluated in evaluation mode and left as it was found.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        Streamed; at least three samples.
    targets : array or tensor of shape (n_samples, n_outputs) or (n_samples,)
        True values of the model's outputs. For classes: one-hot, and a model of probabilities.
    baseline : PairedBaseline, SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input and never attributed (for example, subject ids). Samples
        are compared within conditions only, and ``correlation`` is the one within conditions.
    groups : dict of str to indices or boolean mask, optional
        Sets of components of the flattened input, whose values are summed; they may overlap.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    pool : int
        Sum maps over squares of ``pool`` x ``pool`` in the last two dimensions.
    tolerance : float
        Relative numerical error wanted, of every output's map, or of the median one if there are
        more than ten. The completeness gap wanted is a fifth of it.
    max_gradients : int, optional
        Most gradients to take per sample, at least 5. Without, 1024, and a warning if that was
        not enough.
    batch_size : int, optional
        Points differentiated at once; has no influence on the result but by rounding.
    device : str or torch.device
        "auto" takes CUDA if there is one, else where the model is.
    seed : int
        Of all random choices.
    progress : bool
        Show a progress bar.
    checkpoint : path, optional
        File of the sums so far; if it exists, the work goes on from there.

    Returns
    -------
    IGCResult

    Raises
    ------
    InputError
        If data and model do not fit each other, are not finite, or have nothing to correlate.

    Examples
    --------
    >>> import numpy, torch
    >>> from neuroigc.attribution import integrated_gradient_correlation
    >>> x = numpy.random.default_rng(0).standard_normal((200, 5))
    >>> model = torch.nn.Linear(5, 1).double()
    >>> result = integrated_gradient_correlation(model, x, x[:, 0])
    >>> bool(abs(result.completeness_gap[0]) < 1e-10)
    True
    """
    check_module(model)
    baseline = check_baseline(baseline)
    _check_options(tolerance, max_gradients, batch_size, seed)
    place = choose_device(device, model)
    if checkpoint is not None:
        make_output_folder(Path(checkpoint).parent, "checkpoint")
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        problem = prepare(
            borrowed,
            inputs,
            targets,
            baseline=baseline,
            conditions=conditions,
            groups=groups,
            outputs=outputs,
            pool=pool,
            device=place,
            seed=seed,
            progress=progress,
        )
        engine = choose_engine(problem, seed=seed, n_rows=batch_size)
        settings = {
            "baseline": type(baseline).__name__,
            "pool": pool,
            "seed": int(seed),
            "n_points": engine.settings.n_points,
            "outputs": problem.chosen.tolist(),
            "groups": list(groups or {}),
            "n_strata": len(problem.centre),
            "input_shape": list(problem.samples.shape),
            "regime": type(engine).__name__,
            "stem": type(problem.factors.stem).__name__,
            "dtype": str(problem.samples.dtype),
        }
        identity = "" if checkpoint is None else _identity(borrowed, problem, settings)
        estimator = Estimator(
            engine,
            tolerance=tolerance,
            max_gradients=MAX_GRADIENTS if max_gradients is None else max_gradients,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            identity=identity,
            progress=progress,
        )
        many = isinstance(engine, LatentEngine)
        with remembered_slopes(borrowed) if many else nullcontext():
            estimate = estimator.run()
    settings |= {
        "tolerance": float(tolerance),
        "max_gradients": None if max_gradients is None else int(max_gradients),
        "batch_size": None if batch_size is None else int(batch_size),
        "device": str(place),
        "n_rounds": estimate.n_rounds,
    }
    if max_gradients is None and not estimate.is_accurate:
        warnings.warn(
            f"A tolerance of {tolerance} is not met after {estimate.n_gradients} gradients per "
            "sample; see numerical_error and completeness_gap.",
            RuntimeWarning,
            stacklevel=2,
        )
    return _result(problem, estimate, settings)


def _check_options(
    tolerance: float, max_gradients: int | None, batch_size: int | None, seed: int
) -> None:
    if not (isinstance(tolerance, numbers.Real) and tolerance > 0):
        raise InputError("tolerance", expected="a number above 0", got=repr(tolerance))
    if max_gradients is not None and not _is_count(max_gradients, 5):
        raise InputError(
            "max_gradients",
            expected="5 or more, a whole number",
            got=repr(max_gradients),
            fix="Two rounds of pairs are the least from which an error can be told.",
        )
    if batch_size is not None and not _is_count(batch_size, 1):
        raise InputError("batch_size", expected="1 or more, a whole number", got=repr(batch_size))
    if not _is_count(seed, 0):
        raise InputError("seed", expected="an integer, 0 or more", got=repr(seed))


def _is_count(value: object, fewest: int) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= fewest)  # type: ignore[operator]


def choose_engine(problem: Problem, *, seed: int = 0, n_rows: int | None = None) -> Engine:
    """Choose the regime that takes fewer backward passes per point."""
    settings = Settings(seed=seed, n_rows=n_rows)
    head = problem.factors.head
    if head is not None and head[0].shape[1] < problem.n_outputs:
        # Products over all outputs are what a group of samples costs.
        return LatentEngine(problem, replace(settings, n_sample_groups=48))
    if problem.factors.stem.n_hidden > problem.samples.n_inputs:
        # Cotangents are kept per sample behind the stem, so a stem that expands is none.
        problem.factors = problem.factors.without_stem()
    return CotangentEngine(problem, settings)


def _identity(model: nn.Module, problem: Problem, settings: dict[str, Any]) -> str:
    """Return a digest of model, data and options, for the checkpoint."""
    samples = problem.samples
    ends = samples.rows(slice(0, 4)), samples.rows(slice(len(samples) - 4, len(samples)))
    tensors = (*model.state_dict().values(), problem.targets, *ends)
    # The number tells apart states that hold other sums.
    return fingerprint({**settings, "state": 2}, *(tensor.cpu().numpy() for tensor in tensors))


def _result(problem: Problem, estimate: Estimate, settings: dict[str, Any]) -> IGCResult:
    """Divide covariances by standard deviations, and put everything in its place."""
    n, columns, scale = problem.n_samples, problem.columns, problem.scale[:, None]
    covariance, sums, rounds = estimate.covariance, estimate.sums, estimate.n_rounds
    n_components, parts = columns.n_components, []
    kinds = [("", covariance[:, :n_components]), ("group_", covariance[:, n_components:])]
    for kind, part in kinds if columns.n_groups else kinds[:1]:
        variance = sums[f"{kind}spread"] - 2 * part * sums[f"{kind}spread_influence"]
        variance += part**2 * sums[f"{kind}influence"][:, None]
        if f"{kind}noise" in sums:
            variance -= torch.minimum(sums[f"{kind}noise"], MOST_NOISE * variance.clamp(min=0))
        parts.append(variance)
    variance = torch.cat(parts, 1) / rounds
    errors = variance.clamp(min=0).sqrt() / n / scale
    values = covariance / scale
    shape = (problem.n_outputs, *columns.shape)

    def numpy(tensor: Tensor) -> Any:
        return tensor.to(problem.samples.dtype).cpu().numpy()

    return IGCResult(
        attributions=numpy(values[:, :n_components]).reshape(shape),
        standard_errors=numpy(errors[:, :n_components]).reshape(shape),
        correlation=problem.correlation.cpu().numpy(),
        completeness_gap=(values[:, :n_components].sum(1) - problem.correlation).cpu().numpy(),
        numerical_error=estimate.numerical_error.cpu().numpy(),
        group_values=numpy(values[:, n_components:]) if columns.n_groups else None,
        group_standard_errors=numpy(errors[:, n_components:]) if columns.n_groups else None,
        n_samples=n,
        n_gradients=estimate.n_gradients,
        settings=settings,
    )
