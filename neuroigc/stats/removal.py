"""Taking groups of inputs away, in the order of what they are said to carry.

If attributions are right, predictions lose their correlation with the targets sooner where
groups (areas of cortex) go in the order of their values than in a random one, and win it sooner
where they come back in that order (deletion and insertion: Samek et al. 2017, Petsiuk et al.
2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._progress import track
from neuroigc._validation import InputError, check_choice, check_count, check_same_length

__all__ = ["RemovalTest", "removal_test", "replace_groups"]

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class RemovalTest:
    """Correlations while groups are taken away or come back.

    Attributes
    ----------
    deletion, insertion : arrays of shape (n_outputs, n_groups + 1)
        Correlation after 0, 1, ... groups went, or came back, those of largest value first.
    random : array of shape (n_orders, n_outputs, n_groups + 1)
        The same for random orders of deletion; read backwards, of insertion.
    deletion_mean, insertion_mean : arrays of shape (n_outputs,)
        Of the curves: the area below them. Small for a deletion in the right order.
    random_mean : array of shape (n_orders, n_outputs)
    p_deletion, p_insertion : arrays of shape (n_outputs,)
        How many orders do as well, that of the values counting as one of them.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    random: np.ndarray
    deletion_mean: np.ndarray
    insertion_mean: np.ndarray
    random_mean: np.ndarray
    p_deletion: np.ndarray
    p_insertion: np.ndarray


def replace_groups(
    predict: Predict,
    inputs: ArrayLike,
    groups: Mapping[str, ArrayLike],
    *,
    replacement: str = "mean",
    conditions: ArrayLike | None = None,
    seed: int = 0,
) -> Predict:
    """Return a function of the groups that are kept: predictions without the others.

    Parameters
    ----------
    predict : callable
        Maps inputs (n_samples, n_features) to predictions (n_samples, n_outputs).
    inputs : array of shape (n_samples, n_features)
    groups : dict of str to int or bool array
        Columns of each. Where groups overlap, a column goes with the first of its groups that
        goes. Columns of no group stay.
    replacement : {"mean", "samples"}
        What stands in for a group: the mean of its columns over samples, or the values of
        another sample, the same one for all groups, so that they stay what measured ones are.
    conditions : array of shape (n_samples,), optional
        Means and other samples are those of a sample's own condition.
    seed : int
        Of the choice of other samples.

    Returns
    -------
    callable
        Maps a bool array (n_groups,) to predictions.

    Raises
    ------
    InputError
        If there are no groups, a group is none of the columns, or a condition has a single sample
        and nothing to take from.
    """
    check_choice("replacement", replacement, ("mean", "samples"))
    x = np.asarray(inputs)
    if x.ndim != 2:
        raise InputError("inputs", expected="(n_samples, n_features)", got=f"shape {x.shape}")
    if x.dtype.kind != "f":
        # Means of whole numbers are none.
        x = x.astype(float)
    n = check_same_length(inputs=x, conditions=conditions)
    columns = [_check_columns(name, members, x.shape[1]) for name, members in groups.items()]
    if not columns:
        raise InputError("groups", expected="at least one", got="none")
    labels = np.zeros(n, int) if conditions is None else np.asarray(conditions)
    stand_in, rng = np.empty_like(x), np.random.default_rng(seed)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            raise InputError(
                "conditions", expected="two samples or more of each", got=f"one of {label}"
            )
        if replacement == "mean":
            stand_in[own] = x[own].mean(0)
        else:
            # Along a random circle nobody is given himself.
            circle = rng.permutation(own)
            stand_in[circle] = x[np.roll(circle, 1)]

    def predict_kept(kept: np.ndarray) -> np.ndarray:
        left = x.copy()
        for members in (own for own, stays in zip(columns, kept, strict=True) if not stays):
            left[:, members] = stand_in[:, members]
        return predict(left)

    return predict_kept


def _check_columns(name, members, n_features):
    """Return a group's columns as indices."""
    columns = np.asarray(members)
    if columns.dtype == bool and columns.shape == (n_features,):
        return np.flatnonzero(columns)
    whole = columns.ndim == 1 and (columns.dtype.kind in "iu" or not columns.size)
    if not whole or (columns.size and not 0 <= columns.min() <= columns.max() < n_features):
        raise InputError(
            f"groups[{name!r}]",
            expected=f"indices from 0 to {n_features - 1}, or a bool for each of the columns",
            got=f"{columns.min()} to {columns.max()}"
            if whole
            else f"{columns.dtype} of shape {columns.shape}",
        )
    return columns.astype(np.int64)


def removal_test(
    predict_kept: Predict,
    values: ArrayLike,
    targets: ArrayLike,
    *,
    conditions: ArrayLike | None = None,
    n_orders: int = 99,
    seed: int = 0,
    progress: bool = False,
) -> RemovalTest:
    """Take groups away, and let them come back, by their values and in random orders.

    Parameters
    ----------
    predict_kept : callable
        As of `replace_groups`: maps which groups are kept, a bool array (n_groups,), to
        predictions (n_samples, n_outputs).
    values : array of shape (n_outputs, n_groups)
        By which groups are ordered, largest first: integrated gradient correlations. Of the
        samples that predictions are of or, stricter, of others.
    targets : array of shape (n_samples, n_outputs)
    conditions : array of shape (n_samples,), optional
        Correlations are those within conditions.
    n_orders : int
        Random ones.
    seed : int
    progress : bool
        Show a progress bar over orders.

    Returns
    -------
    RemovalTest
        Predictions that do not vary have a correlation of 0.

    Raises
    ------
    InputError
        If shapes do not fit, or there are fewer than two groups.
    """
    values, targets = np.asarray(values, dtype=float), np.asarray(targets, dtype=float)
    n_orders = check_count("n_orders", n_orders)
    check_same_length(targets=targets, conditions=conditions)
    if values.ndim != 2 or values.shape[1] < 2 or targets.shape[1:] != values.shape[:1]:
        raise InputError(
            "values and targets",
            expected="(n_outputs, n_groups) of two groups or more, and (n_samples, n_outputs)",
            got=f"shapes {values.shape} and {targets.shape}",
        )
    for name, array in (("values", values), ("targets", targets)):
        if not np.isfinite(array).all():
            raise InputError(name, expected="finite numbers", got="NaN or infinity")
    n_outputs, n_groups = values.shape
    z = _within(targets, conditions)

    def curve(order):
        kept, r = np.ones(n_groups, dtype=bool), []
        for group in (None, *order):
            if group is not None:
                kept[group] = False
            r.append(_correlation(_within(predict_kept(kept.copy()), conditions), z))
        return np.transpose(r)

    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n_groups) for _ in range(n_orders)]
    random = np.stack([curve(o) for o in track(orders, show=progress, label="orders")])
    largest_first = np.argsort(-values, axis=1, kind="stable")
    deletion, insertion = np.empty((2, n_outputs, n_groups + 1))
    for v, order in enumerate(largest_first):
        deletion[v] = curve(order)[v]
        # What comes back first went last.
        insertion[v] = curve(order[::-1])[v, ::-1]
    means = deletion.mean(1), insertion.mean(1), random.mean(2)
    p = [
        (1 + (side * means[2] >= side * mean - 1e-12).sum(0)) / (1 + n_orders)
        for side, mean in ((-1, means[0]), (1, means[1]))
    ]
    return RemovalTest(deletion, insertion, random, *means, *p)


def _within(values, conditions):
    """Return columns less their means, of each condition by itself."""
    values = np.array(values, dtype=float)
    for label in [None] if conditions is None else np.unique(conditions):
        own = slice(None) if label is None else np.asarray(conditions) == label
        values[own] -= values[own].mean(0)
    return values


def _correlation(f, y):
    """Return the correlation of centred columns, 0 where predictions do not vary."""
    norms = np.linalg.norm(f, axis=0) * np.linalg.norm(y, axis=0)
    # Of what does not vary, rounding is left.
    flat = np.ptp(f, axis=0) <= 1e-6 * np.linalg.norm(y, axis=0) / np.sqrt(len(y))
    return np.divide((f * y).sum(0), norms, out=np.zeros(f.shape[1]), where=~flat & (norms > 0))
