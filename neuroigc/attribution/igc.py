"""Integrated Gradient Correlation: which input components carry the correlation.

Source: Lelièvre & Chen, "Integrated Gradient Correlation: a Dataset-wise Attribution Method",
equations 8 and 9; here over pairs of samples and with both affine ends of the model peeled off.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroigc._files import make_output_folder
from neuroigc._team import assemble_team
from neuroigc._validation import InputError, check_count, check_positive
from neuroigc.attribution.baselines import Baseline, PairedBaseline, check_baseline
from neuroigc.attribution.checkpoint import fingerprint
from neuroigc.attribution.cotangents import CotangentEngine
from neuroigc.attribution.engine import Engine, Settings
from neuroigc.attribution.estimate import Estimator, exceeds
from neuroigc.attribution.gradients import (
    borrow,
    check_module,
    choose_device,
    remembered_slopes,
)
from neuroigc.attribution.latents import LatentEngine
from neuroigc.attribution.problem import Problem, prepare
from neuroigc.attribution.result_folder import ResultFolder
from neuroigc.attribution.results import IGCResult
from neuroigc.attribution.rows import FileSums
from neuroigc.attribution.totals import Totals

__all__ = ["attribute_shard", "integrated_gradient_correlation"]

# Gradients per sample at which to stop, met tolerance or not: the paper's 32 baselines x 32 steps.
MAX_GRADIENTS = 1024
# Components probed, of all outputs' maps together and of each one's.
PROBED, FEWEST_PROBED = 2**20, 32


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
    memory: float = 1.0,
    n_permutations: int = 0,
    keep_null: bool = False,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    results: str | os.PathLike[str] | None = None,
) -> IGCResult:
    """Attribute the correlation of predictions and targets to the components of the input.

    ``IGC_l = E_i[ E_x'[IG_l(x_i, x')] (y_i - mean y) ] / (sd(f) sd(y))`` sums over l to the
    correlation of f(x) and y. Baselines x' are by default the other samples, so it is half the
    mean over pairs of ``(y_i - y_j) IG_l(x_i, x_j)``: estimated from random pairs, the more
    likely the more their targets differ, and from what the gradient at a random point of each
    path deviates from the line between those of its ends, until the error is below
    ``tolerance``.

    All random choices depend on the seed and on the samples themselves, so that their order, the
    memory, the batch size and the number of processes change nothing but rounding. Under
    torchrun, or wherever else `torch.distributed` was started, the processes share the work, call
    this with the same arguments and each return the whole result. What they share are blocks of
    up to 512 samples.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (n, *input_shape), and the conditions if given, to (n, n_outputs) or (n,). It is
        evaluated in evaluation mode and left as it was found.
    inputs : array, memory map or tensor of shape (n_samples, *input_shape)
        Streamed; at least three samples.
    targets : array or tensor of shape (n_samples, n_outputs) or (n_samples,), or None
        True values of the model's outputs. For classes: one-hot, and a model of probabilities.
        None for the predictions themselves: integrated gradient auto-correlation (IGaC), which
        sums to 1, for data without labels.
    baseline : PairedBaseline, SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline
    conditions : array of shape (n_samples,), optional
        Fed to the model beside the input and never attributed (for example, subject ids). Samples
        are compared within conditions only, and ``correlation`` is the one within conditions.
    groups : dict of str to indices or boolean mask, optional
        Sets of components of the flattened input, whose values are summed; they may overlap.
        Where a name stands for another dict, it is a tree: "visual" is the sum of its branches
        "visual/V1", "visual/V2" and so on, which may not overlap.
    outputs : sequence of int, optional
        Output columns to attribute; all by default.
    pool : int
        Sum maps over squares of ``pool`` x ``pool`` in the last two dimensions.
    tolerance : float
        Relative numerical error wanted, of every output's map, or of the median one if there are
        more than ten. The completeness gap wanted is a fifth of it.
    max_gradients : int, optional
        Most gradients to take per sample, at least 3. Without, 1024, and a warning if that was
        not enough.
    batch_size : int, optional
        Points differentiated at once; has no influence on the result but by rounding.
    memory : float
        GiB that may be used beyond inputs, model and result (roughly); has no influence on the
        result but by rounding.
    n_permutations : int
        Permutations of the targets over the samples (within conditions), for p-values. They take
        no further gradients, but products: a thousand cost about as much as all else.
    keep_null : bool
        Keep the maps of permuted targets in the result, for tests of clusters of components.
    device : str or torch.device
        "auto" takes CUDA if there is one, else where the model is.
    seed : int
        Of all random choices.
    progress : bool
        Show a progress bar.
    checkpoint : path, optional
        File of the sums so far; if it exists, the work goes on from there. Of several processes,
        each has its own, with its number in the name.
    results : path, optional
        Folder, empty or to be made, in which what there is of every output and component lives,
        where it would be too much for memory: sums as long as they grow (24 bytes of disk for
        each number of a map, twice that with a checkpoint, and four or eight for each output and
        pixel), then maps as .npy files. The maps of the result are memory maps of these;
        `IGCResult.load` of the folder opens it again. For one process alone.

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
    options = dict(
        baseline=baseline, conditions=conditions, groups=groups, outputs=outputs, pool=pool,
        tolerance=tolerance, max_gradients=max_gradients, batch_size=batch_size, memory=memory,
        n_permutations=n_permutations, keep_null=keep_null, device=device, seed=seed,
        progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    folder = None if results is None else ResultFolder(Path(results))
    totals, _ = _run(model, inputs, targets, shard=None, folder=folder, **options)
    result = totals.result(folder)
    gaps, wanted = abs(result.completeness_gap), totals.settings["tolerance"]
    if max_gradients is None and exceeds(result.numerical_error, gaps, wanted):
        warnings.warn(
            f"A tolerance of {tolerance} is not met after {result.n_gradients} gradients per "
            "sample; see numerical_error and completeness_gap.",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def attribute_shard(
    path: str | os.PathLike[str],
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    shard: tuple[int, int],
    max_gradients: int,
    **options: Any,
) -> None:
    """Do one of n shares of an attribution and keep its sums in a file, for `merge_shards`.

    For job arrays, whose jobs cannot talk to each other: no shard can tell the error of the
    whole, so each takes as many gradients as it is told to.

    Parameters
    ----------
    path : path
        File to write. Its folder is made if need be.
    model, inputs, targets
        As for `integrated_gradient_correlation`; all of the data, for every shard.
    shard : tuple of int
        Number of this shard, from 1 on, and of all shards.
    max_gradients : int
        Gradients to take per sample, at least 3.
    **options
        Further options of `integrated_gradient_correlation`, the same for every shard.

    Raises
    ------
    InputError
        As `integrated_gradient_correlation`, and for a shard that is none.
    """
    if unknown := set(options) - set(_DEFAULTS):
        raise InputError(
            "options",
            expected=f"among {', '.join(_DEFAULTS)}",
            got=", ".join(sorted(unknown)),
        )
    try:
        number, size = shard
    except (TypeError, ValueError) as error:
        raise InputError("shard", expected="two numbers, i of n", got=repr(shard)) from error
    if check_count("shard", number) > check_count("shard", size):
        raise InputError("shard", expected=f"a number from 1 to {size}", got=repr(number))
    make_output_folder(Path(path).parent, "path")
    max_gradients = check_count("max_gradients", max_gradients, 3)
    options = {**_DEFAULTS, **options, "max_gradients": max_gradients}
    totals, identity = _run(model, inputs, targets, shard=(number, size), **options)
    totals.settings["shard"] = [int(number), int(size)]
    totals.save(Path(path), identity)


_DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(integrated_gradient_correlation).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in ("max_gradients", "results")
}


def _run(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    shard: tuple[int, int] | None,
    folder: ResultFolder | None = None,
    baseline: Baseline,
    conditions: Any,
    groups: Mapping[str, Any] | None,
    outputs: Any,
    pool: int,
    tolerance: float,
    max_gradients: int | None,
    batch_size: int | None,
    memory: float,
    n_permutations: int,
    keep_null: bool,
    device: str | torch.device,
    seed: int,
    progress: bool,
    checkpoint: str | os.PathLike[str] | None,
) -> tuple[Totals, str]:
    """Return the sums of an attribution, or of a shard of it, and a digest of what they are of."""
    check_module(model)
    baseline = check_baseline(baseline)
    for name, number in (("tolerance", tolerance), ("memory", memory)):
        check_positive(name, number)
    if max_gradients is not None:
        # Two rounds of pairs are the least from which an error can be told.
        max_gradients = check_count("max_gradients", max_gradients, 3)
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size)
    seed, n_permutations = (
        check_count("seed", seed, 0),
        check_count("n_permutations", n_permutations, 0),
    )
    place, team = choose_device(device, model), assemble_team(shard)
    if folder is not None and team.talks:
        raise InputError(
            "results",
            expected="one process, that writes the folder",
            got=f"{team.size} processes",
            fix="Leave it out; or run shards (attribute_shard), and merge them.",
        )
    # Of processes side by side, one draws the bar.
    progress = progress and not (team.talks and team.rank)
    if checkpoint is not None:
        make_output_folder(Path(checkpoint).parent, "checkpoint")
        checkpoint = team.own_path(Path(checkpoint))
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
            memory=memory,
            team=team,
            files=None if folder is None else folder.sums,
        )
        _check_null(problem, n_permutations, memory)
        engine = choose_engine(problem, Settings(seed, batch_size, n_permutations=n_permutations))
        settings = {
            "baseline": type(baseline).__name__,
            "auto_correlation": targets is None,
            "pool": pool,
            "seed": seed,
            "n_permutations": n_permutations,
            "outputs": problem.chosen.tolist(),
            "groups": problem.columns.group_names,
            "n_strata": len(problem.centre),
            "n_sample_groups": engine.settings.n_sample_groups,
            "input_shape": list(problem.samples.shape),
            "regime": type(engine).__name__,
            "stem": type(problem.factors.stem).__name__,
            "dtype": str(problem.samples.dtype),
        }
        named = team.talks or team.is_shard or checkpoint is not None
        whole = _identity(borrowed, problem, settings) if named else ""
        told = (whole, float(tolerance), max_gradients)
        team.agree("model, data and options", "the same in all processes", told)
        estimator = Estimator(
            engine,
            tolerance=tolerance,
            max_gradients=MAX_GRADIENTS if max_gradients is None else max_gradients,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            identity=f"{whole} {team.rank} {team.size}",
            progress=progress,
            team=team,
            sums=None if folder is None else FileSums(folder.sums),
        )
        many = isinstance(engine, LatentEngine)
        with remembered_slopes(borrowed) if many else nullcontext():
            estimate = estimator.run()
    settings |= {
        "tolerance": float(tolerance),
        "max_gradients": max_gradients,
        "batch_size": batch_size,
        "memory": float(memory),
        "keep_null": bool(keep_null),
        "device": str(place),
        "n_processes": team.size if team.talks else 1,
    }
    return Totals.of(problem, estimate, settings), f"{whole} {max_gradients}"


def choose_engine(problem: Problem, settings: Settings) -> Engine:
    """Choose the regime that takes fewer backward passes per point."""
    head = problem.factors.head
    if head is not None and head[0].shape[1] < problem.n_outputs:
        # Products over all outputs are what a group of samples costs, and a probed component in
        # every round; the error of many maps takes few components of each.
        n_probe = min(settings.n_probe, max(PROBED // problem.n_outputs, FEWEST_PROBED))
        return LatentEngine(problem, replace(settings, n_sample_groups=48, n_probe=n_probe))
    if problem.factors.stem.n_hidden > problem.samples.n_inputs:
        # Cotangents are kept per sample behind the stem, so a stem that expands is none.
        problem.factors = problem.factors.without_stem()
    return CotangentEngine(problem, settings)


def _check_null(problem: Problem, n_permutations: int, memory: float) -> None:
    """Raise if the maps of permuted targets are too much for the memory."""
    # Maps in single precision; whose target each sample is given, and the targets of one output.
    numbers = problem.n_outputs * problem.columns.n_columns + 3 * problem.n_samples
    wanted = 4 * (n_permutations + 1) * numbers / 2**30
    if n_permutations and wanted > memory / 2:
        raise InputError(
            "n_permutations",
            expected=f"maps that take half of the memory of {memory:g} GiB",
            got=f"{n_permutations} permutations of {problem.n_outputs} outputs, {wanted:.1f} GiB",
            fix="Take fewer permutations, choose outputs, pool, or give more memory (memory=).",
        )


def _identity(model: nn.Module, problem: Problem, settings: dict[str, Any]) -> str:
    """Return a digest of model, data and options, for checkpoints and shards."""
    tensors = [*model.state_dict().values()]
    if problem.bank is not None:
        tensors.append(problem.bank)
    members = [index.cpu().numpy() for index in problem.columns.groups]
    arrays = [tensor.float().cpu().numpy() for tensor in tensors]
    # The number tells apart states that hold other sums.
    made = {**settings, "state": 5}
    return fingerprint(made, problem.keys, problem.strata, *arrays, *members)
