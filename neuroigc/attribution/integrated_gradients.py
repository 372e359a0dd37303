"""Integrated gradients of single samples. Source: Sundararajan, Taly & Yan 2017."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_same_length
from neuroigc.attribution.baselines import (
    Baseline,
    PairedBaseline,
    baseline_bank,
    check_baseline,
)
from neuroigc.attribution.factorisation import Factors, factorise
from neuroigc.attribution.gradients import borrow, check_module, choose_device, gradients
from neuroigc.attribution.results import IGResult
from neuroigc.attribution.samples import (
    Samples,
    check_finite,
    check_outputs,
    choose_dtype,
    condition_tensor,
    run_model,
)

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
    averaged over the baselines if there are several (expected gradients).

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
        Points differentiated at once.
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
    """
    check_module(model)
    if isinstance(check_baseline(baseline), PairedBaseline):
        raise InputError(
            "baseline",
            expected="a baseline for single samples",
            got="PairedBaseline",
            fix="Take SampledBaseline(n), n samples as baselines for all.",
        )
    if n_steps < 1:
        raise InputError("n_steps", expected="1 or more", got=repr(n_steps))
    place = choose_device(device, model)
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        samples = Samples(inputs, place, choose_dtype(borrowed, inputs))
        n = check_same_length(inputs=samples, conditions=conditions)
        for part in samples.chunks():
            check_finite(samples, samples.rows(part))
        shown = condition_tensor(conditions, samples)
        example = samples.rows(slice(0, 4)).reshape(-1, *samples.shape)
        beside = None if shown is None else shown[:4]
        chosen = check_outputs(outputs, run_model(borrowed, example, beside).shape[1])
        factors = factorise(borrowed, example, beside).select(torch.from_numpy(chosen).to(place))
        bank = baseline_bank(baseline, samples, seed)
        if bank is None:
            raise RuntimeError("paired baselines have no bank")
        path = _Path(factors, bank, n_steps, batch_size)
        kind = example.cpu().numpy().dtype
        maps = np.empty((n, len(chosen), samples.n_inputs), kind)
        predictions, starts = np.empty((2, n, len(chosen)), kind)
        for i in track(range(n), show=progress, label="integrated gradients", total=n):
            condition = None if shown is None else shown[i : i + 1]
            attributed = path.attribute(samples.rows(slice(i, i + 1)), condition)
            maps[i], predictions[i], starts[i] = (part.cpu().numpy() for part in attributed)
    return IGResult(
        attributions=maps.reshape(n, len(chosen), *samples.shape),
        predictions=predictions,
        baseline_predictions=starts,
        completeness_gap=maps.sum(2, dtype=np.float64) - (predictions - starts),
        settings={
            "baseline": type(baseline).__name__,
            "n_baselines": len(bank),
            "n_steps": n_steps,
            "outputs": chosen.tolist(),
            "seed": seed,
            "device": str(place),
        },
    )


class _Path:
    """Quadrature on the paths from a bank of baselines to one sample, behind the stem."""

    def __init__(self, factors: Factors, bank: Tensor, n_steps: int, batch_size: int) -> None:
        self.factors, self.bank = factors, bank
        with torch.no_grad():
            self.starts = factors.stem(bank)
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        self.t = torch.from_numpy((nodes + 1) / 2).to(bank)
        self.weights = torch.from_numpy(weights / 2).to(bank)
        self.parts = torch.split(torch.arange(n_steps), batch_size)

    def attribute(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return a sample's map (n_outputs, n_inputs), prediction, and mean of the baselines'."""

        def call(hidden: Tensor) -> Tensor:
            if condition is None:
                return self.factors.outputs(hidden)
            return self.factors.outputs(hidden, condition.expand(len(hidden), *condition.shape[1:]))

        with torch.no_grad():
            end = self.factors.stem(x)
            prediction, starts = call(end)[0], call(self.starts).mean(0)
        maps = x.new_zeros(len(prediction), x.shape[1])
        for baseline, start in zip(self.bank, self.starts, strict=True):
            mean = x.new_zeros(len(prediction), len(start))
            for part in self.parts:
                points = start + self.t[part, None] * (end - start)
                slopes = gradients(call, points, lambda gradient: gradient)
                mean += torch.einsum("s,svh->vh", self.weights[part], slopes)
            maps += self.factors.stem.pull(mean) * (x - baseline) / len(self.bank)
        return maps, prediction, starts
