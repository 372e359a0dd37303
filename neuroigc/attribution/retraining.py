"""Remove what a map points at, and learn anew: what is needed, and not only used.

Source: Hooker, Erhan, Kindermans & Kim 2019; with one order for all samples, so that a mask tells
nothing of its sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count, check_same_length
from neuroigc.attribution.perturbation import element_values, make_elements
from neuroigc.attribution.problem import checked_targets
from neuroigc.attribution.samples import numbers
from neuroigc.attribution.sensitivity import correlations

__all__ = ["remove_and_retrain"]

Fit = Callable[[NDArray[Any], NDArray[Any], int], Callable[[NDArray[Any]], Any]]


def remove_and_retrain(
    fit: Fit,
    inputs: Any,
    targets: Any,
    values: Any,
    *,
    held_out: tuple[Any, Any],
    shares: Sequence[float] = (0, 0.1, 0.3, 0.5, 0.7, 0.9),
    keep: bool = False,
    groups: Mapping[str, Any] | None = None,
    n_repeats: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Replace elements by their mean in the data, learn anew, and see what is still predicted.

    One order for all samples, so that what is replaced tells nothing of a sample's target. If a
    new model does as well, what was removed was not needed, though the old one may have used it.

    Parameters
    ----------
    fit : callable
        Maps inputs, targets and a seed to a function that maps inputs to predictions.
    inputs, targets : arrays of shape (n_samples, *input_shape) and (n_samples,) or (n_samples, k)
        To learn from.
    values : array of shape input_shape
        The map whose largest elements are removed.
    held_out : tuple of two arrays
        Inputs and targets to predict.
    shares : sequence of float
        Of the elements that are removed, from 0 to 1.
    keep : bool
        Remove all others instead: keep the largest share.
    groups : dict of str to indices or boolean mask, optional
        Elements, as for `perturbation_curve`.
    n_repeats : int
        Models learned at each share, with seeds from ``seed`` on.
    seed : int
    progress : bool

    Returns
    -------
    array of shape (n_shares, n_repeats)
        Correlations of predictions and targets in the held-out samples, the mean over targets;
        0 where predictions do not vary.

    Raises
    ------
    InputError
        If arrays do not fit each other, shares are none, or predictions are not finite.
    """
    x, y = numbers(inputs, "inputs"), checked_targets(targets)
    if not isinstance(held_out, tuple | list) or len(held_out) != 2:
        raise InputError("held_out", expected="two arrays, inputs and targets", got="others")
    new_x, new_y = numbers(held_out[0], "held_out"), checked_targets(held_out[1])
    check_same_length(inputs=x, targets=y), check_same_length(held_out=new_x, its_targets=new_y)
    fractions = np.atleast_1d(np.asarray(shares, np.float64))
    if not (fractions.size and (fractions >= 0).all() and (fractions <= 1).all()):
        raise InputError("shares", expected="numbers from 0 to 1", got=repr(shares))
    if new_x.shape[1:] != x.shape[1:] or new_y.shape[1] != y.shape[1]:
        raise InputError(
            "held_out",
            expected=f"inputs of shape {x.shape[1:]} and {y.shape[1]} targets, as learned from",
            got=f"{new_x.shape[1:]} and {new_y.shape[1]}",
        )
    n_repeats, seed = check_count("n_repeats", n_repeats), check_count("seed", seed, 0)
    elements = make_elements(groups, x.shape[1:])
    order = np.argsort(
        -element_values(values, elements, x.shape[1:], None, "values")[0], kind="stable"
    )
    mean = x.mean(0).reshape(-1)
    scores = np.empty((len(fractions), n_repeats))
    for s, share in enumerate(track(fractions, show=progress, label="retraining")):
        n_first = round(float(share) * len(elements))
        chosen = order[n_first:] if keep else order[:n_first]
        gone = np.concatenate([*(elements[e] for e in chosen), np.empty(0, np.int64)])
        parts = []
        for array in (x, new_x):
            flat = array.reshape(len(array), -1).astype(np.result_type(array, np.float32))
            flat[:, gone] = mean[gone]
            parts.append(flat.reshape(array.shape))
        for repeat in range(n_repeats):
            predict = fit(parts[0], y if np.ndim(targets) > 1 else y[:, 0], seed + repeat)
            predicted = _checked(predict(parts[1]), new_y.shape)
            scores[s, repeat] = np.nan_to_num(correlations(predicted.T, new_y.T)).mean()
    return scores


def _checked(predictions: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return predictions in the shape of the targets (n_samples, n_targets)."""
    array = numbers(predictions, "fit").astype(np.float64)
    if array.shape != shape and not (shape[1] == 1 and array.shape == shape[:1]):
        raise InputError(
            "fit", expected=f"functions that predict shape {shape}", got=f"shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError(
            "fit",
            expected="functions that predict finite numbers",
            got=f"{int((~np.isfinite(array)).sum())} NaN or infinite",
            fix="Look whether learning diverged.",
        )
    return array.reshape(shape)
