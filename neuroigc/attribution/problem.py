"""The caller's data, checked, and what one pass over it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._validation import InputError, check_same_length
from neuroigc.attribution.baselines import (
    Baseline,
    GivenBaseline,
    MeanBaseline,
    PairedBaseline,
    SampledBaseline,
    given_array,
    sampled_indices,
)
from neuroigc.attribution.columns import Columns, check_groups
from neuroigc.attribution.factorisation import Factors, factorise
from neuroigc.attribution.gradients import check_differentiable

__all__ = ["Problem", "Samples", "check_outputs", "choose_dtype", "prepare", "run_model"]

# Numbers of the input held at once while it is streamed.
CHUNK_NUMBERS = 2**23


class Samples:
    """Rows of an array, memory map or tensor, flattened, on the device and in the dtype wanted."""

    def __init__(self, array: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.array = array if hasattr(array, "shape") else np.asarray(array)
        self.device, self.dtype = device, dtype
        self.shape = tuple(self.array.shape[1:])
        self.n_inputs = int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, index: NDArray[np.int64] | slice) -> Tensor:
        """Return some samples as (n, n_inputs)."""
        if isinstance(self.array, Tensor):
            picked = self.array[index if isinstance(index, slice) else torch.from_numpy(index)]
            taken = picked.detach()
        else:
            part = np.asarray(self.array[index])
            if part.dtype.byteorder == ">" or not part.flags.writeable:
                part = part.astype(part.dtype.newbyteorder("="))
            taken = torch.from_numpy(np.ascontiguousarray(part))
        return taken.to(self.device, self.dtype).reshape(len(taken), self.n_inputs)

    def chunks(self) -> list[slice]:
        """Cut the samples into slices of bounded size."""
        step = max(1, CHUNK_NUMBERS // self.n_inputs)
        return [slice(i, min(i + step, len(self))) for i in range(0, len(self), step)]


@dataclass
class Problem:
    """Everything the estimators need to know of data and model.

    Attributes
    ----------
    samples : Samples
    factors : Factors
        Of the chosen outputs.
    columns : Columns
    chosen : array of shape (n_outputs,)
        The chosen columns of the model's outputs.
    strata : array of shape (n_samples,)
        Which samples may be compared; covariances are taken within strata.
    conditions : Tensor of shape (n_samples,) or None
    targets, predictions : Tensor of shape (n_samples, n_outputs)
        Centred within strata, float64.
    influence : Tensor of shape (n_samples, n_outputs)
        Influence of each sample on the standard deviations: half the squared z-scores of
        prediction and target, minus 1.
    scale : Tensor of shape (n_outputs,)
        Product of the two standard deviations.
    correlation : Tensor of shape (n_outputs,)
    bank : Tensor of shape (n_baselines, n_inputs) or None
        Baselines that are not the samples themselves.
    centre : Tensor of shape (n_strata, n_inputs)
        Mean baseline of each stratum.
    mean : Tensor of shape (n_strata, n_inputs)
        Mean sample of each stratum.
    cross : Tensor of shape (n_strata, n_outputs, n_inputs)
        Covariance of targets and inputs in each stratum.
    hidden : Tensor of shape (n_samples, n_hidden) or None
        Output of the stem, kept where it is smaller than the input.
    """

    samples: Samples
    factors: Factors
    columns: Columns
    chosen: NDArray[np.int64]
    strata: NDArray[np.int64]
    conditions: Tensor | None
    targets: Tensor
    predictions: Tensor
    influence: Tensor
    scale: Tensor
    correlation: Tensor
    bank: Tensor | None
    centre: Tensor
    mean: Tensor
    cross: Tensor
    hidden: Tensor | None

    @property
    def n_samples(self) -> int:
        """Return the number of samples."""
        return len(self.strata)

    @property
    def n_outputs(self) -> int:
        """Return the number of chosen outputs."""
        return self.targets.shape[1]

    def hidden_of(self, index: NDArray[np.int64]) -> Tensor:
        """Return the stem's output for some samples."""
        if self.hidden is not None:
            return self.hidden[torch.from_numpy(index).to(self.hidden.device)]
        with torch.no_grad():
            return self.factors.stem(self.samples.rows(index))

    def condition_of(self, stratum: int, n: int) -> Tensor | None:
        """Return ``n`` copies of the condition that all samples of a stratum share."""
        if self.conditions is None:
            return None
        first = int((self.strata == stratum).argmax())
        one = self.conditions[first : first + 1]
        return one.expand(n, *one.shape[1:])


def prepare(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    baseline: Baseline,
    conditions: Any,
    groups: Mapping[str, Any] | None,
    outputs: Any,
    pool: int,
    device: torch.device,
    seed: int,
    progress: bool,
) -> Problem:
    """Check the data, factorise the model and take all moments that need no gradient."""
    samples = Samples(inputs, device, choose_dtype(model, inputs))
    y = _numbers(targets, "targets")
    n = check_same_length(inputs=samples, targets=y, conditions=conditions)
    if n < 3:
        raise InputError("inputs", expected="at least three samples", got=f"{n}")
    if n_bad := int((~np.isfinite(y)).sum()):
        raise InputError(
            "targets",
            expected="finite numbers",
            got=f"{n_bad} NaN or infinite",
            fix="Leave out the samples that were not measured, in inputs and targets alike.",
        )
    y = y[:, None] if y.ndim == 1 else y
    columns = Columns(samples.shape, pool, check_groups(groups, samples.n_inputs), device)
    condition_rows = condition_tensor(conditions, samples)
    strata = _strata(baseline, conditions, n)

    example = samples.rows(slice(0, 4))
    _check_finite(samples, example)
    example = example.reshape(-1, *samples.shape)
    shown = None if condition_rows is None else condition_rows[:4]
    n_model = run_model(model, example, shown).shape[1]
    if y.ndim != 2 or y.shape[1] != n_model:
        raise InputError(
            "targets",
            expected=f"one column for each of the model's {n_model} outputs",
            got=f"shape {y.shape}",
        )
    chosen = check_outputs(outputs, n_model)
    y = y[:, chosen]
    factors = factorise(model, example, shown).select(torch.from_numpy(chosen).to(device))

    n_strata = int(strata.max()) + 1
    stratum_sizes = np.bincount(strata, minlength=n_strata)
    c = torch.from_numpy(_centred(y, strata)).to(device)
    f = torch.empty(n, len(chosen), dtype=torch.float64, device=device)
    keep = 0 < factors.stem.n_hidden < samples.n_inputs
    hidden = example.new_empty(n, factors.stem.n_hidden) if keep else None
    sums = torch.zeros(n_strata, samples.n_inputs, dtype=torch.float64, device=device)
    cross = torch.zeros(n_strata, len(chosen), samples.n_inputs, dtype=samples.dtype, device=device)
    for part, x in _stream(samples, progress):
        with torch.no_grad():
            behind = factors.stem(x)
            here = None if condition_rows is None else condition_rows[part]
            f[part] = factors.outputs(behind, here).double()
        if hidden is not None:
            hidden[part] = behind
        for stratum in np.unique(strata[part]):
            member = torch.from_numpy(np.flatnonzero(strata[part] == stratum)).to(device)
            sums[stratum] += x[member].sum(0, dtype=torch.float64)
            cross[stratum] += c[part][member].T.to(x.dtype) @ x[member]
    sizes = torch.from_numpy(stratum_sizes).to(device, torch.float64)
    mean = sums / sizes[:, None]
    cross /= sizes[:, None, None].to(cross.dtype)
    bank = _bank(baseline, samples, mean, sizes, seed)
    centre = mean if bank is None else bank.double().mean(0).expand_as(mean)

    sd_y = _deviation(c, y, 1e-14)
    _refuse_constant(sd_y, "targets", chosen)
    raw = f.cpu().numpy()
    f = torch.from_numpy(_centred(raw, strata)).to(device)
    sd_f = _deviation(f, raw, 2 * torch.finfo(samples.dtype).eps)
    _refuse_constant(sd_f, "model", chosen)
    return Problem(
        samples=samples,
        factors=factors,
        columns=columns,
        chosen=chosen,
        strata=strata,
        conditions=condition_rows,
        targets=c,
        predictions=f,
        influence=((f / sd_f) ** 2 + (c / sd_y) ** 2) / 2 - 1,
        scale=sd_f * sd_y,
        correlation=(f * c).mean(0) / (sd_f * sd_y),
        bank=bank,
        centre=centre.to(samples.dtype),
        mean=mean.to(samples.dtype),
        cross=cross,
        hidden=hidden,
    )


def choose_dtype(model: nn.Module, inputs: Any) -> torch.dtype:
    """Compute in the dtype of the model; one without weights takes that of the inputs."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    wide = "float64" in str(getattr(inputs, "dtype", "float64"))
    return torch.float64 if wide else torch.float32


def run_model(model: nn.Module, inputs: Tensor, conditions: Tensor | None) -> Tensor:
    """Run the model on a few samples, check what comes out, and return it as (n, n_outputs)."""
    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_(True)
        # A first layer that works in place may not touch a leaf.
        x = leaf.clone()
        values = model(x) if conditions is None else model(x, conditions)
    n = len(inputs)
    if not isinstance(values, Tensor) or values.ndim not in (1, 2) or len(values) != n:
        got = (
            f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise InputError(
            "model",
            expected="outputs of shape (n,) or (n, n_outputs)",
            got=f"{got} for {n} samples",
            fix="Wrap the model in a module that returns one row of numbers per sample.",
        )
    check_differentiable(values)
    return values.detach().reshape(n, -1)


def check_outputs(outputs: Any, n_outputs: int) -> NDArray[np.int64]:
    """Return the chosen output columns as indices."""
    if outputs is None:
        return np.arange(n_outputs)
    chosen = np.atleast_1d(np.asarray(outputs))
    if chosen.dtype == bool and chosen.shape == (n_outputs,):
        chosen = np.flatnonzero(chosen)
    fine = chosen.ndim == 1 and chosen.size and np.issubdtype(chosen.dtype, np.integer)
    if not fine or chosen.min() < 0 or chosen.max() >= n_outputs:
        raise InputError(
            "outputs",
            expected=f"indices of the model's outputs, from 0 to {n_outputs - 1}",
            got=repr(outputs),
        )
    indices: NDArray[np.int64] = chosen.astype(np.int64)
    return indices


def condition_tensor(conditions: Any, samples: Samples) -> Tensor | None:
    """Return the conditions on the device: integers as int64, other numbers in the model's dtype."""
    if conditions is None:
        return None
    tensor = torch.as_tensor(_numbers(conditions, "conditions"))
    return tensor.to(samples.device, samples.dtype if tensor.is_floating_point() else torch.int64)


def _numbers(array: Any, argument: str) -> NDArray[Any]:
    """Return an array in memory."""
    numbers = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if numbers.dtype == bool:
        numbers = numbers.astype(np.int64)
    if not np.issubdtype(numbers.dtype, np.number):
        raise InputError(argument, expected="numbers", got=f"{numbers.dtype}")
    return numbers.astype(numbers.dtype.newbyteorder("="))


def _strata(baseline: Baseline, conditions: Any, n: int) -> NDArray[np.int64]:
    """Number the combinations of condition and ``within`` label of the samples."""
    strata = np.zeros(n, np.int64)
    within = baseline.within if isinstance(baseline, PairedBaseline) else None
    for argument, labels in (("conditions", conditions), ("within", within)):
        if labels is None:
            continue
        array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if len(array) != n:
            raise InputError(
                argument, expected=f"one label for each of {n} samples", got=f"{len(array)}"
            )
        codes = np.unique(array, axis=0, return_inverse=True)[1].reshape(n)
        strata = np.unique(strata * (codes.max() + 1) + codes, return_inverse=True)[1]
        alone = np.flatnonzero(np.bincount(strata)[strata] == 1)
        if len(alone):
            raise InputError(
                argument,
                expected="two or more samples under each label, to compare them with each other",
                got=f"{len(alone)} of a single sample (sample {alone[0]}: {array[alone[0]]})",
                fix="Leave those samples out or merge labels.",
            )
    return strata


def _stream(samples: Samples, progress: bool) -> Iterator[tuple[slice, Tensor]]:
    """Yield the samples chunk by chunk, having seen that they are finite."""
    for part in track(samples.chunks(), show=progress, label="reading"):
        x = samples.rows(part)
        _check_finite(samples, x)
        yield part, x


def _check_finite(samples: Samples, x: Tensor) -> None:
    if bool(torch.isfinite(x).all()):
        return
    counts = [(~torch.isfinite(samples.rows(part))).sum(1) for part in samples.chunks()]
    bad = torch.cat(counts)
    raise InputError(
        "inputs",
        expected="finite numbers",
        got=f"{int(bad.sum())} NaN or infinite in {int((bad > 0).sum())} samples",
        fix="Leave out the components or samples that were not measured.",
    )


def _centred(values: NDArray[Any], strata: NDArray[np.int64]) -> NDArray[np.float64]:
    """Subtract the mean of each stratum."""
    centred = values.astype(np.float64)
    for stratum in range(int(strata.max()) + 1):
        member = strata == stratum
        centred[member] -= centred[member].mean(0)
    return centred


def _deviation(centred: Tensor, values: NDArray[Any], rounding: float) -> Tensor:
    """Return standard deviations, and 0 where they are mere rounding of the values."""
    deviation = (centred**2).mean(0).sqrt()
    floor = torch.from_numpy(np.abs(values).max(0) * rounding).to(deviation)
    return torch.where(deviation <= floor, 0.0, deviation)


def _refuse_constant(deviation: Tensor, argument: str, outputs: NDArray[np.int64]) -> None:
    """Raise where a standard deviation is zero."""
    constant = (deviation == 0).cpu().numpy()
    if constant.any():
        listed = ", ".join(str(j) for j in outputs[constant][:5])
        listed += ", ..." if constant.sum() > 5 else ""
        what = "predictions" if argument == "model" else "values"
        raise InputError(
            argument,
            expected=f"{what} that vary (within each condition, if there are any)",
            got=f"constant {what} of output {listed}",
            fix="A correlation with a constant is undefined: leave such outputs out (outputs=).",
        )


def _bank(
    baseline: Baseline, samples: Samples, mean: Tensor, sizes: Tensor, seed: int
) -> Tensor | None:
    """Return the baselines (n_baselines, n_inputs), or None where the samples are the baselines."""
    if isinstance(baseline, PairedBaseline):
        return None
    if isinstance(baseline, SampledBaseline):
        return samples.rows(sampled_indices(baseline, len(samples), seed))
    if isinstance(baseline, GivenBaseline):
        return Samples(given_array(baseline, samples.shape), samples.device, samples.dtype).rows(
            slice(None)
        )
    overall = (mean * (sizes / sizes.sum())[:, None]).sum(0, keepdim=True)
    if not isinstance(baseline, MeanBaseline):
        overall = torch.zeros_like(overall)
    return overall.to(samples.dtype)
