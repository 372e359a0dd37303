"""The caller's data, checked, and what one pass over it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._progress import track
from neuroigc._team import Team
from neuroigc._validation import InputError, check_same_length
from neuroigc.attribution.baselines import Baseline, PairedBaseline, baseline_bank
from neuroigc.attribution.columns import Columns, check_groups
from neuroigc.attribution.factorisation import Factors, IdentityStem, factorise
from neuroigc.attribution.keys import combine_keys, digest_rows
from neuroigc.attribution.rows import RowFile
from neuroigc.attribution.samples import (
    Samples,
    check_finite,
    check_outputs,
    choose_dtype,
    condition_tensor,
    numbers,
    run_model,
)

__all__ = ["Problem", "checked_targets", "prepare"]

# Samples on which the parts of a model are compared with the whole.
N_COMPARED = 32
# Outputs whose covariances with the inputs are taken at once.
OUTPUTS_AT_ONCE = 512


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
    keys : array of shape (n_samples,)
        What random choices depend on, see `neuroigc.attribution.keys`.
    strata : array of shape (n_samples,)
        Which samples may be compared; covariances are taken within strata.
    conditions : Tensor of shape (n_samples,) or None
    targets, predictions : Tensor of shape (n_samples, n_outputs)
        Centred within strata; targets are divided by their standard deviation.
    influence : Tensor of shape (n_samples, n_outputs)
        Influence of each sample on the standard deviations: half the squared z-scores of
        prediction and target, minus 1.
    scale : Tensor of shape (n_outputs,)
        Standard deviations of the predictions, by which covariances are divided.
    correlation : Tensor of shape (n_outputs,)
    bank : Tensor of shape (n_baselines, n_inputs) or None
        Baselines that are not the samples themselves.
    centre : Tensor of shape (n_strata, n_inputs)
        Mean baseline of each stratum.
    mean : Tensor of shape (n_strata, n_inputs)
        Mean sample of each stratum.
    cross : Tensor of shape (n_strata, n_outputs, n_inputs), or a file for each stratum
        Covariance of targets and inputs in each stratum.
    hidden : Tensor of shape (n_samples, n_hidden) or None
        Output of the stem, kept where it is smaller than the input.
    """

    samples: Samples
    factors: Factors
    columns: Columns
    chosen: NDArray[np.int64]
    keys: NDArray[np.uint64]
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
    cross: Tensor | list[RowFile]
    hidden: Tensor | None

    @property
    def n_samples(self) -> int:
        """Return the number of samples."""
        return len(self.strata)

    @property
    def n_outputs(self) -> int:
        """Return the number of chosen outputs."""
        return self.targets.shape[1]

    def cross_of(self, outputs: slice) -> Tensor:
        """Return the covariances of some outputs, (n_strata, n_outputs, n_inputs)."""
        if isinstance(self.cross, Tensor):
            return self.cross[:, outputs]
        return torch.stack([file.read(outputs) for file in self.cross]).to(self.centre.device)

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
    memory: float = 1.0,
    team: Team = Team(),  # noqa: B008 - immutable
    files: Path | None = None,
    groups_argument: str = "groups",
) -> Problem:
    """Check the data, factorise the model and take all moments that need no gradient.

    With ``files``, a folder, what there is of each output and input component is kept there.
    """
    samples = Samples(inputs, device, choose_dtype(model, inputs), memory)
    y = None if targets is None else checked_targets(targets)
    n = check_same_length(inputs=samples, targets=y, conditions=conditions)
    if n < 3:
        raise InputError("inputs", expected="at least three samples", got=f"{n}")
    checked = check_groups(groups, samples.shape, argument=groups_argument)
    columns = Columns(samples.shape, pool, checked, device)
    condition_rows = condition_tensor(conditions, samples)
    strata = _strata(baseline, conditions, n)

    example = samples.rows(slice(0, 4))
    check_finite(samples, example)
    example = example.reshape(-1, *samples.shape)
    shown = None if condition_rows is None else condition_rows[:4]
    n_model = run_model(model, example, shown).shape[1]
    if y is not None and (y.ndim != 2 or y.shape[1] != n_model):
        raise InputError(
            "targets",
            expected=f"one column for each of the model's {n_model} outputs",
            got=f"shape {y.shape}",
        )
    chosen = check_outputs(outputs, n_model)
    factors = factorise(model, example, shown)
    if not _represents(factors, model, samples, condition_rows):
        factors = Factors(IdentityStem(samples.shape), model, None)
    factors = factors.select(torch.from_numpy(chosen).to(device))
    cut = (n, samples.shape, len(chosen), samples.chunk_numbers)
    team.agree("inputs, outputs and memory", "the same in all processes", cut)
    # What a sample consists of; predictions are none of it, for they come with rounding.
    parts = [] if y is None else [digest_rows(y)]
    if condition_rows is not None:
        parts.append(digest_rows(condition_rows.cpu().numpy()))
    if y is None:
        with team.together():
            y = _predictions(factors, samples, condition_rows, len(chosen), team)
        team.add(torch.from_numpy(y))
    else:
        y = y[:, chosen]

    n_strata = int(strata.max()) + 1
    stratum_sizes = np.bincount(strata, minlength=n_strata)
    c = torch.from_numpy(_centred(y, strata)).to(device)
    sd_y = _deviation(c, y, 1e-14)
    _refuse_constant(sd_y, "targets", chosen)
    # Targets count in units of their standard deviation, whatever their size.
    c /= sd_y
    f = torch.zeros(n, len(chosen), dtype=torch.float64, device=device)
    hidden = example.new_zeros(n, factors.stem.n_hidden) if _keeps(factors, samples) else None
    input_keys = torch.zeros(n, dtype=torch.int64, device=device)
    sums = torch.zeros(n_strata, samples.n_inputs, dtype=torch.float64, device=device)
    shape = len(chosen), samples.n_inputs
    cross: Tensor | list[RowFile]
    if files is None:
        cross = torch.zeros(n_strata, *shape, dtype=samples.dtype, device=device)
    else:
        names = [f"cross{stratum}.sums" for stratum in range(n_strata)]
        cross = [RowFile(files / name, shape, samples.dtype) for name in names]
    with team.together():
        for part, x in _stream(samples, progress, team):
            digests = digest_rows(x.cpu().numpy()).view(np.int64)
            input_keys[part] = torch.from_numpy(digests).to(device)
            with torch.no_grad():
                behind = factors.stem(x)
                beside = None if condition_rows is None else condition_rows[part]
                f[part] = factors.outputs(behind, beside).double()
            if hidden is not None:
                hidden[part] = behind
            here = strata[part]
            for stratum in np.unique(here):
                member = torch.from_numpy(here == stratum).to(device, torch.float64)[:, None]
                sums[stratum] += (member.T.to(x.dtype) @ x)[0]
                weight = 1 / stratum_sizes[stratum]
                for start in range(0, len(chosen), OUTPUTS_AT_ONCE):
                    rows = slice(start, min(start + OUTPUTS_AT_ONCE, len(chosen)))
                    covariance = (weight * member * c[part, rows]).T.to(x.dtype) @ x
                    if isinstance(cross, Tensor):
                        cross[stratum, rows] += covariance
                    else:
                        cross[stratum].add(rows, covariance)
    shared = [tensor for tensor in (cross, hidden) if isinstance(tensor, Tensor)]
    team.add(f, input_keys, sums, *shared)
    keys = combine_keys(input_keys.cpu().numpy().view(np.uint64), *parts, strata=strata)
    sizes = torch.from_numpy(stratum_sizes).to(device, torch.float64)
    mean = sums / sizes[:, None]
    bank = baseline_bank(baseline, samples, seed, keys)
    centre = mean if bank is None else bank.double().mean(0).expand_as(mean)

    raw = f.cpu().numpy()
    _refuse_infinite(raw, samples.dtype, chosen)
    f = torch.from_numpy(_centred(raw, strata)).to(device)
    sd_f = _deviation(f, raw, 2 * torch.finfo(samples.dtype).eps)
    _refuse_constant(sd_f, "model", chosen)
    # Samples x outputs is what many outputs take most of: no more copies than needed.
    predictions = f.to(samples.dtype, copy=True)
    f /= sd_f
    correlation = (f * c).mean(0)
    influence = f.square_().add_(c**2).div_(2).sub_(1)
    return Problem(
        samples=samples,
        factors=factors,
        columns=columns,
        chosen=chosen,
        keys=keys,
        strata=strata,
        conditions=condition_rows,
        targets=c.to(samples.dtype),
        predictions=predictions,
        influence=influence.to(samples.dtype),
        scale=sd_f,
        correlation=correlation,
        bank=bank,
        centre=centre.to(samples.dtype),
        mean=mean.to(samples.dtype),
        cross=cross,
        hidden=hidden,
    )


def checked_targets(targets: Any) -> NDArray[np.float64]:
    """Return the targets as columns, having seen that they are finite."""
    y = numbers(targets, "targets").astype(np.float64)
    if n_bad := int((~np.isfinite(y)).sum()):
        raise InputError(
            "targets",
            expected="finite numbers",
            got=f"{n_bad} NaN or infinite",
            fix="Leave out the samples that were not measured, in inputs and targets alike.",
        )
    return y[:, None] if y.ndim == 1 else y


def _strata(baseline: Baseline, conditions: Any, n: int) -> NDArray[np.int64]:
    """Give numbers to the combinations of condition and ``within`` label of the samples."""
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


def _predictions(
    factors: Factors, samples: Samples, conditions: Tensor | None, n_outputs: int, team: Team
) -> NDArray[np.float64]:
    """Return the model's outputs (n_samples, n_outputs) for this member's samples, else 0."""
    rows = torch.zeros(len(samples), n_outputs, dtype=torch.float64, device=samples.device)
    for part in team.part_of(samples.chunks()):
        x = samples.rows(part)
        check_finite(samples, x)
        with torch.no_grad():
            beside = None if conditions is None else conditions[part]
            rows[part] = factors.outputs(factors.stem(x), beside).double()
    return rows.cpu().numpy()


def _keeps(factors: Factors, samples: Samples) -> bool:
    """Return whether the stem's output is worth keeping: small, and smaller than the input."""
    n_hidden, most = factors.stem.n_hidden, 8 * samples.chunk_numbers
    return n_hidden < samples.n_inputs and n_hidden * len(samples) <= most


def _stream(samples: Samples, progress: bool, team: Team) -> Iterator[tuple[slice, Tensor]]:
    """Yield this member's samples chunk by chunk, having seen that they are finite."""
    for part in track(team.part_of(samples.chunks()), show=progress, label="reading"):
        x = samples.rows(part)
        check_finite(samples, x)
        yield part, x


def _centred(values: NDArray[Any], strata: NDArray[np.int64]) -> NDArray[np.float64]:
    """Subtract the mean of each stratum."""
    centred = values.astype(np.float64)
    for stratum in range(int(strata.max()) + 1):
        member = strata == stratum
        centred[member] -= centred[member].mean(0)
    return centred


def _deviation(centred: Tensor, values: NDArray[Any], rounding: float) -> Tensor:
    """Return standard deviations, and 0 where they are mere rounding of the values."""
    largest = centred.abs().amax(0).clamp(min=torch.finfo(centred.dtype).tiny)
    # Squares of very small or large numbers are none.
    deviation = ((centred / largest) ** 2).mean(0).sqrt() * largest
    floor = torch.from_numpy(np.abs(values).max(0) * rounding).to(deviation)
    return torch.where(deviation <= floor, 0.0, deviation)


def _refuse_infinite(outputs: NDArray[Any], dtype: torch.dtype, chosen: NDArray[np.int64]) -> None:
    """Raise where a model gives what is no number, or too large to be squared and summed."""
    most = torch.finfo(dtype).max ** 0.4
    # NaN is not below anything.
    bad = ~(np.abs(outputs) < most)
    if bad.any():
        listed = ", ".join(str(v) for v in chosen[bad.any(0)][:5])
        raise InputError(
            "model",
            expected=f"finite outputs, of sizes below {most:.0e}",
            got=f"others for {int(bad.any(1).sum())} samples, of output {listed}",
            fix="Look for logarithms, roots and divisions in forward() that these samples upset.",
        )


def _represents(
    factors: Factors, model: nn.Module, samples: Samples, conditions: Tensor | None
) -> bool:
    """Tell whether the parts give the model's outputs, on samples from all over the data."""
    some = np.unique(np.linspace(0, len(samples) - 1, N_COMPARED).astype(np.int64))
    x = samples.rows(some)
    beside = None if conditions is None else conditions[torch.from_numpy(some).to(x.device)]
    shaped = x.reshape(-1, *samples.shape).clone()
    with torch.no_grad():
        whole = model(shaped) if beside is None else model(shaped, beside)
        parts = factors.outputs(factors.stem(x), beside)
    bound = 1e-9 if x.dtype == torch.float64 else 1e-3
    whole = whole.reshape(parts.shape).to(parts.dtype)
    finite = torch.isfinite(whole)
    size = whole[finite].abs().max() if bool(finite.any()) else 0.0
    return bool(((parts - whole)[finite].abs() <= bound * size).all())


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
