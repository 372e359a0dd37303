"""IGC as the paper prints it: plain loops in float64, slow, and the oracle for all else.

Source: IGC paper, equation 1 (baselines from the data set), 8 (the correlation) and 9 (the
Riemann sum of integrated gradients).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["reference_igc", "reference_igc_of_pairs"]

Array = NDArray[np.float64]


def reference_igc(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    baselines: Any = None,
    conditions: Any = None,
    n_steps: int = 32,
) -> Array:
    """Return IGC by equations 8 and 9.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : array of shape (n_samples, *input_shape)
    targets : array of shape (n_samples, n_outputs) or (n_samples,)
    baselines : array of shape (n_baselines, *input_shape), optional
        The samples themselves if not given.
    conditions : array of shape (n_samples,), optional
        Fed to the model; here samples are compared across conditions.
    n_steps : int
        Steps s of the Riemann sum.

    Returns
    -------
    array of shape (n_outputs, *input_shape)
    """
    slope, values = _functions(model, conditions)
    x, y = _double(inputs), _columns(targets)
    bank = x if baselines is None else _double(baselines)
    f = values(x)
    n, n_outputs = y.shape
    igc = np.zeros((n_outputs, *x.shape[1:]))
    for i in range(n):
        for baseline in bank:
            # Equation 9, for all outputs.
            total = np.zeros_like(igc)
            for t in range(1, n_steps + 1):
                total += slope(baseline + t / n_steps * (x[i] - baseline), i)
            attribution = (x[i] - baseline) / n_steps * total
            # Equation 8.
            for v in range(n_outputs):
                igc[v] += attribution[v] * (y[i, v] - y[:, v].mean()) / (n * len(bank))
    return _divided(igc, f.std(0) * y.std(0))


def reference_igc_of_pairs(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    pairs: Sequence[tuple[int, int, Any]],
    points: Array,
    weights: Array | None = None,
    conditions: Any = None,
    strata: Any = None,
    control_variate: bool = False,
) -> Array:
    """Return IGC as half the weighted mean over given pairs of (y_i - y_j) IG(x_i, x_j).

    Parameters
    ----------
    model, inputs, targets, conditions
        As for `reference_igc`.
    pairs : sequence of (i, j, weight)
        Path end, baseline, and the pair's weight in the mean: one number, or one per output.
    points : array of shape (n_pairs, n_points)
        Where on each path gradients are taken, from 0 (baseline) to 1.
    weights : array of shape (n_pairs, n_points), optional
        Of the points, in means over those of a path; 1 if not given.
    strata : array of shape (n_samples,), optional
        Only samples of the same stratum are compared; correlations are those within strata.
    control_variate : bool
        Subtract from each gradient the straight line between those of the path's two ends, and
        add the mean of the lines, which are trapezoids, over all pairs.

    Returns
    -------
    array of shape (n_outputs, *input_shape)
    """
    slope, values = _functions(model, conditions)
    x, y = _double(inputs), _columns(targets)
    f = values(x)
    n, n_outputs = y.shape
    labels = np.zeros(n, int) if strata is None else np.asarray(strata)
    for label in np.unique(labels):
        members = labels == label
        y[members] -= y[members].mean(0)
        f[members] -= f[members].mean(0)
    at = [slope(x[i], i) for i in range(n)]
    igc = np.zeros((n_outputs, *x.shape[1:]))
    weights = np.ones_like(points) if weights is None else weights
    for (i, j, weight), ts, ws in zip(pairs, points, weights, strict=True):
        gradient = np.zeros_like(igc)
        for t, w in zip(ts, ws, strict=True):
            line = (1 - t) * at[j] + t * at[i] if control_variate else 0.0
            gradient = gradient + w * (slope(x[j] + t * (x[i] - x[j]), i) - line) / len(ts)
        for v in range(n_outputs):
            counts = np.broadcast_to(weight, n_outputs)[v] / 2
            igc[v] += counts * (y[i, v] - y[j, v]) * (x[i] - x[j]) * gradient[v]
    if control_variate:
        for i in range(n):
            alike = np.flatnonzero(labels == labels[i])
            for j in alike.tolist():
                for v in range(n_outputs):
                    gradient = (at[i][v] + at[j][v]) / 2
                    product = (y[i, v] - y[j, v]) * (x[i] - x[j]) * gradient
                    igc[v] += product / (2 * n * len(alike))
    return _divided(igc, f.std(0) * y.std(0))


def _functions(model: nn.Module, conditions: Any) -> Any:
    """Return the gradient (n_outputs, ...) at a point of sample i, and all values."""
    double = copy.deepcopy(model).double().eval()
    shown = None if conditions is None else torch.as_tensor(np.asarray(conditions))

    def call(x: Tensor, rows: Any) -> Tensor:
        outputs: Tensor = double(x) if shown is None else double(x, shown[rows])
        return outputs.reshape(len(x), -1)

    def slope(point: Array, i: int) -> Array:
        def one(x: Tensor) -> Tensor:
            return call(x[None], [i])[0]

        jacobian: Tensor = torch.func.jacrev(one)(torch.from_numpy(np.array(point)))
        return jacobian.detach().numpy()

    def values(x: Array) -> Array:
        with torch.no_grad():
            return call(torch.from_numpy(x), slice(None)).numpy().copy()

    return slope, values


def _double(array: Any) -> Array:
    return np.array(array, np.float64)


def _columns(targets: Any) -> Array:
    y = _double(targets)
    return y[:, None] if y.ndim == 1 else y


def _divided(maps: Array, scale: Array) -> Array:
    return maps / scale.reshape(-1, *(1,) * (maps.ndim - 1))
