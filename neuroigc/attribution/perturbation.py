"""What a model makes of inputs of which some elements are replaced.

Elements are the components of the input, or groups of them (regions). The inputs go to the model
as it is; what is read is the prediction of each sample, or, of a data set, the covariance of
predictions and targets over both standard deviations *of the intact model*. With that fixed
divisor, replacing a set of inputs by their mean lowers what a linear model carries by exactly the
set's IGC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroigc._validation import InputError, check_count, check_same_length
from neuroigc.attribution.baselines import Baseline, baseline_bank
from neuroigc.attribution.columns import check_groups
from neuroigc.attribution.factorisation import Factors
from neuroigc.attribution.gradients import borrow, check_module, choose_device
from neuroigc.attribution.problem import checked_targets
from neuroigc.attribution.samples import Samples, numbers
from neuroigc.attribution.single import open_samples, refuse_paired

__all__ = ["Elements", "Perturbed", "element_values", "make_elements", "open_perturbed"]

Elements = list[NDArray[np.int64]]


def make_elements(groups: Mapping[str, Any] | None, input_shape: tuple[int, ...]) -> Elements:
    """Return what is replaced together: each component by itself, or each group."""
    if groups is None:
        return list(np.arange(int(np.prod(input_shape)))[:, None])
    elements = list(check_groups(groups, input_shape).values())
    if not sum(map(len, elements)):
        raise InputError("groups", expected="a group of one or more components", got="none")
    return elements


def element_values(
    values: Any,
    elements: Elements,
    input_shape: tuple[int, ...],
    n_samples: int | None,
    argument: str = "maps",
) -> NDArray[np.float64]:
    """Return a map's sum over each element, (n_maps, n_elements).

    Parameters
    ----------
    values : array of shape input_shape, or (n_samples, *input_shape)
        The second where ``n_samples`` is given: one map for each.
    argument : str
        What the caller knows the maps as.
    """
    array = numbers(values, argument).astype(np.float64)
    wanted = input_shape if n_samples is None else (n_samples, *input_shape)
    if array.shape not in (wanted, input_shape):
        raise InputError(
            argument,
            expected=f"shape {wanted}" + f" or {input_shape}" * (wanted != input_shape),
            got=f"shape {array.shape}",
            fix="A map of one output for all samples together, with targets; else one for each.",
        )
    if not np.isfinite(array).all():
        raise InputError(argument, expected="finite numbers", got="NaN or infinite ones")
    flat = array.reshape(-1, int(np.prod(input_shape)))
    owners = np.repeat(np.arange(len(elements)), [len(element) for element in elements])
    sums = np.zeros((len(elements), len(flat)))
    np.add.at(sums, owners, flat[:, np.concatenate(elements)].T)
    return sums.T


@dataclass
class Perturbed:
    """A model of one output, samples, and what their elements are replaced by.

    Attributes
    ----------
    factors : Factors
    samples : Samples
    conditions : Tensor of shape (n_samples, ...) or None
    bank : Tensor of shape (n_replacements, n_inputs), or (n_samples, n_inputs) if ``own``
        Predictions are averaged over several.
    own : bool
        Whether each sample has a replacement of its own.
    weights : Tensor of shape (n_samples,) or None
        Of predictions in the covariance with the targets.
    batch_size : int
    """

    factors: Factors
    samples: Samples
    conditions: Tensor | None
    bank: Tensor
    own: bool
    weights: Tensor | None
    batch_size: int

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, keep: Tensor) -> Tensor:
        """Return what is left where only some components are kept, (n_values,) as float64.

        Parameters
        ----------
        keep : Tensor of bool, of shape (1, n_inputs), or (n_samples, n_inputs)

        Returns
        -------
        Tensor
            Predictions (n_samples,), or the covariance (1,) if there are targets.
        """
        n, parts = len(self.samples), []
        with torch.no_grad():
            for start in range(0, n, self.batch_size):
                rows = slice(start, min(start + self.batch_size, n))
                x, kept = self.samples.rows(rows), keep if len(keep) == 1 else keep[rows]
                beside = None if self.conditions is None else self.conditions[rows]
                bank = [self.bank[rows]] if self.own else list(self.bank[:, None])
                total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                for other in bank:
                    mixed = torch.where(kept, x, other)
                    outputs = self.factors.outputs(self.factors.stem(mixed), beside)
                    total += outputs[:, 0].double()
                parts.append(total / len(bank))
        values = torch.cat(parts)
        return values if self.weights is None else (self.weights * values).sum(0, keepdim=True)


@contextmanager
def open_perturbed(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    replacement: Any,
    output: int,
    conditions: Any,
    batch_size: int,
    device: str | torch.device,
    seed: int,
) -> Iterator[Perturbed]:
    """Borrow a model and yield it with samples whose elements can be replaced.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : array of shape (n_samples, *input_shape)
    targets : array of shape (n_samples,), or None
        Of the chosen output.
    replacement : Baseline, or array of the shape of ``inputs``
        The second gives each sample its own, for example blurred images.
    output : int
    conditions, batch_size, device, seed
        As for `integrated_gradients`.

    Raises
    ------
    InputError
        If these do not fit each other, or there is nothing to correlate.
    """
    check_module(model)
    batch_size, seed = check_count("batch_size", batch_size), check_count("seed", seed, 0)
    output, place = check_count("output", output, 0), choose_device(device, model)
    with torch.inference_mode(False), borrow(model, place) as borrowed:
        opened = open_samples(borrowed, place, inputs, conditions=conditions, outputs=[output])
        samples = opened.samples
        own = not isinstance(replacement, Baseline)
        bank: Tensor | None
        if own:
            given = Samples(numbers(replacement, "replacement"), place, samples.dtype)
            check_same_length(inputs=samples, replacement=given)
            if given.shape != samples.shape:
                raise InputError(
                    "replacement",
                    expected=f"a baseline, or an array of shape {(len(samples), *samples.shape)}",
                    got=f"shape {(len(given), *given.shape)}",
                )
            bank = given.rows(slice(None))
            if not bool(torch.isfinite(bank).all()):
                raise InputError(
                    "replacement", expected="finite numbers", got="NaN or infinite ones"
                )
        else:
            refuse_paired(replacement)
            bank = baseline_bank(replacement, samples, seed)
        if bank is None:
            raise RuntimeError("paired baselines have no bank")
        perturbed = Perturbed(
            opened.factors, samples, opened.conditions, bank, own, None, batch_size
        )
        if targets is not None:
            perturbed.weights = _weights(perturbed, targets)
        yield perturbed


def _weights(perturbed: Perturbed, targets: Any) -> Tensor:
    """Return by what predictions are multiplied and summed to what they carry."""
    y = checked_targets(targets)
    check_same_length(inputs=perturbed.samples, targets=y)
    if y.shape[1] != 1:
        raise InputError(
            "targets",
            expected="those of one output, shape (n_samples,)",
            got=f"shape {y.shape}",
            fix="Choose a column, and the same one with output=.",
        )
    whole = torch.ones(
        1, perturbed.samples.n_inputs, dtype=torch.bool, device=perturbed.bank.device
    )
    f = perturbed.read(whole)
    c = torch.from_numpy(y[:, 0] - y.mean()).to(f)
    spread = c.std(unbiased=False) * f.std(unbiased=False)
    tiny = 1e-12 * (f.abs().max() * float(np.abs(y).max()))
    # Less than the rounding of predictions is no deviation.
    rounding = 2 * torch.finfo(perturbed.samples.dtype).eps * f.abs().max()
    constant = not bool(spread > tiny) or bool(f.std(unbiased=False) <= rounding)
    if len(y) < 3 or constant:
        raise InputError(
            "targets",
            expected="three or more samples whose targets and predictions vary",
            got=f"{len(y)} samples, of standard deviations {float(c.std(unbiased=False)):.1e} and "
            f"{float(f.std(unbiased=False)):.1e}",
            fix="A correlation with a constant is undefined.",
        )
    return c / (spread * len(y))
