"""Differences between groups, or between outputs of one model, with right errors.

Values of groups and outputs come from the same samples, so their errors go together, and the
error of a difference is not told by theirs. Leaving out each sample in turn (see `intervals`)
changes all values at once, and so any weighted sum of them: its jackknife is exact, and paired.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from neuroigc._validation import InputError, check_choice
from neuroigc.attribution.intervals import leave_one_out, left_out_errors, symmetric_intervals
from neuroigc.attribution.results import IGCResult

__all__ = ["GroupContrasts", "contrast_groups", "group_difference", "output_difference"]


@dataclass(frozen=True)
class GroupContrasts:
    """Weighted sums of groups' values.

    Attributes
    ----------
    values, standard_errors : arrays of shape (n_contrasts,)
    degrees_of_freedom : array of shape (n_contrasts,)
        Of the standard errors (Satterthwaite 1946).
    intervals : array of shape (n_contrasts, 2)
        Student's.
    p_values : array of shape (n_contrasts,)
        Two-sided, of Student's t: of a contrast that would be 0 with endlessly many samples. 1
        where neither the contrast nor its error is anything.
    """

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    degrees_of_freedom: NDArray[np.float64]
    intervals: NDArray[np.float64]
    p_values: NDArray[np.float64]


def contrast_groups(
    result: IGCResult, weights: ArrayLike, *, level: float = 0.95
) -> GroupContrasts:
    """Test weighted sums of groups' values, over groups and outputs of one result.

    Parameters
    ----------
    result : IGCResult
        With groups, and few outputs, so that the influence of each sample is known.
    weights : array of shape (n_contrasts, n_outputs, n_groups)
        As of `group_difference` or `output_difference`.
    level : float
        Of the intervals.

    Raises
    ------
    InputError
        If the influence of each sample is not known, or the weights have another shape.
    """
    data = result.group_data()
    if data is None:
        raise InputError(
            "result",
            expected="groups, and the influence of each sample on them",
            got="neither" if result.group_values is None else "that of groups of samples alone",
            fix="Attribute with groups=, and with few outputs (outputs=).",
        )
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 3 or weights.shape[1:] != data.values.shape:
        n_outputs, n_groups = data.values.shape
        raise InputError(
            "weights",
            expected=f"shape (n_contrasts, {n_outputs}, {n_groups}), outputs by groups",
            got=f"shape {weights.shape}",
        )
    rows = weights.reshape(len(weights), -1).T
    values = data.values.reshape(-1) @ rows
    left_out = leave_one_out(data)
    errors, n_free = left_out_errors(left_out.reshape(len(left_out), -1) @ rows, data.members)
    t = np.divide(np.abs(values), errors, out=np.zeros_like(values), where=errors > 0)
    return GroupContrasts(
        values,
        errors,
        n_free,
        symmetric_intervals(values, errors, n_free, level),
        2 * stdtr(n_free, -t),
    )


def group_difference(
    result: IGCResult, first: str | Iterable[str], second: str | Iterable[str]
) -> NDArray[np.float64]:
    """Return weights of first minus second group, a row for each output.

    Parameters
    ----------
    result : IGCResult
    first, second : str or several
        Names of groups, which are added up where there are several.

    Returns
    -------
    array of shape (n_outputs, n_outputs, n_groups)

    Raises
    ------
    InputError
        If there is no such group.
    """
    names, n_outputs = result.settings["groups"], len(result.correlation)
    row = np.zeros(len(names))
    for argument, given, sign in (("first", first, 1), ("second", second, -1)):
        for name in [given] if isinstance(given, str) else given:
            check_choice(argument, name, names)
            row[names.index(name)] += sign
    return np.eye(n_outputs)[:, :, None] * row


def output_difference(result: IGCResult, first: int, second: int) -> NDArray[np.float64]:
    """Return weights of first minus second output, a row for each group.

    Parameters
    ----------
    result : IGCResult
    first, second : int
        Columns of the model's output.

    Returns
    -------
    array of shape (n_groups, n_outputs, n_groups)

    Raises
    ------
    InputError
        If an output was not attributed.
    """
    outputs, n_groups = list(result.settings["outputs"]), len(result.settings["groups"])
    column = np.zeros(len(outputs))
    for argument, output, sign in (("first", first, 1), ("second", second, -1)):
        check_choice(argument, output, outputs)
        column[outputs.index(output)] += sign
    weights: NDArray[np.float64] = np.eye(n_groups)[:, None, :] * column[:, None]
    return weights
