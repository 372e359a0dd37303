"""What a sample is compared with.

The integrated gradients of a sample run from a baseline x' to the sample. With the data set's
own samples as baselines (`PairedBaseline`, equation 1 of the IGC paper) no special input has to
be named "absence of signal"; the other classes are for inputs where one is natural.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroigc._validation import InputError
from neuroigc.attribution.keys import combine_keys, digest_rows
from neuroigc.attribution.paths import BANK, uniform
from neuroigc.attribution.samples import Samples

__all__ = [
    "Baseline",
    "GivenBaseline",
    "MeanBaseline",
    "PairedBaseline",
    "SampledBaseline",
    "ZeroBaseline",
]


@dataclass(frozen=True)
class PairedBaseline:
    """Every sample is a baseline for every other one.

    Parameters
    ----------
    within : array of shape (n_samples,), optional
        Labels (subjects, sessions); samples are compared only with samples of the same label.
        Correlations are then those within labels too.
    """

    within: Any = None


@dataclass(frozen=True)
class SampledBaseline:
    """A fixed number of samples, drawn once, are the baselines of all samples.

    Parameters
    ----------
    n : int
        Number of baselines.
    """

    n: int

    def __post_init__(self) -> None:
        if not (isinstance(self.n, Integral) and self.n >= 1):
            raise InputError("n", expected="a number of baselines of 1 or more", got=repr(self.n))


@dataclass(frozen=True)
class GivenBaseline:
    """Baselines of your own.

    Parameters
    ----------
    array : array of shape input_shape or (n_baselines, *input_shape)
        Several baselines are averaged over.
    """

    array: Any = field(repr=False)


@dataclass(frozen=True)
class MeanBaseline:
    """The mean of all samples."""


@dataclass(frozen=True)
class ZeroBaseline:
    """The input that is zero everywhere."""


Baseline = PairedBaseline | SampledBaseline | GivenBaseline | MeanBaseline | ZeroBaseline


def check_baseline(baseline: object) -> Baseline:
    """Return the baseline, or raise if it is none."""
    if isinstance(baseline, Baseline):
        return baseline
    raise InputError(
        "baseline",
        expected="a PairedBaseline, SampledBaseline, GivenBaseline, MeanBaseline or ZeroBaseline",
        got=repr(baseline) if not isinstance(baseline, type) else f"the class {baseline.__name__}",
        fix="Pass an instance, for example PairedBaseline().",
    )


def baseline_bank(
    baseline: Baseline, samples: Samples, seed: int, keys: NDArray[np.integer] | None = None
) -> Tensor | None:
    """Return the baselines (n_baselines, n_inputs), or None where they are paired samples.

    Which samples are drawn depends on their keys; if there are none, on digests of the samples.
    """
    if isinstance(baseline, PairedBaseline):
        return None
    if isinstance(baseline, SampledBaseline):
        if keys is None:
            digests = [digest_rows(samples.rows(part).cpu().numpy()) for part in samples.chunks()]
            # Copies of a sample are drawn each by itself.
            keys = combine_keys(np.concatenate(digests))
        return samples.rows(_sampled_indices(baseline, keys, seed))
    if isinstance(baseline, GivenBaseline):
        given = Samples(_given_array(baseline, samples.shape), samples.device, samples.dtype)
        return given.rows(slice(None))
    zero = torch.zeros(1, samples.n_inputs, dtype=torch.float64, device=samples.device)
    if isinstance(baseline, MeanBaseline):
        for part in samples.chunks():
            zero += samples.rows(part).sum(0, dtype=torch.float64) / len(samples)
    return zero.to(samples.dtype)


def _sampled_indices(
    baseline: SampledBaseline, keys: NDArray[np.integer], seed: int
) -> NDArray[np.int64]:
    """Return which samples are the baselines."""
    if baseline.n > len(keys):
        raise InputError(
            "baseline",
            expected=f"at most as many baselines as there are samples ({len(keys)})",
            got=f"SampledBaseline({baseline.n})",
        )
    chosen: NDArray[np.int64] = np.argsort(uniform(seed, BANK, (), keys))[: baseline.n]
    return chosen


def _given_array(baseline: GivenBaseline, input_shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the given baselines as (n_baselines, *input_shape)."""
    array = baseline.array
    array = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    if array.shape == input_shape:
        array = array[None]
    if array.shape[1:] != input_shape or len(array) == 0:
        raise InputError(
            "baseline",
            expected=f"an array of shape {input_shape} or (n_baselines, {str(input_shape)[1:]}",
            got=f"shape {array.shape}",
        )
    if not np.isfinite(array).all():
        n_bad = int((~np.isfinite(array)).sum())
        raise InputError("baseline", expected="finite numbers", got=f"{n_bad} NaN or infinite")
    return array
