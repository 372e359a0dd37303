"""From checked arrays of a stimulus and of responses to a table of receptive fields."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neuroigc._devices import check_device
from neuroigc._progress import track
from neuroigc._validation import InputError, check_count
from neuroigc.prf._options import check_amount, check_limits
from neuroigc.prf._pooling import best_start, search
from neuroigc.prf._stimulus import Stimulus
from neuroigc.prf.gaussian import pixel_centres
from neuroigc.prf.result import STATUSES, ClassicalPRFResult

__all__ = ["as_frames", "as_responses", "fit_series"]

# Series that wait in memory, and predictions of one step without their derivatives.
_N_VALUES_PER_BLOCK, _N_VALUES_PER_BATCH = 2**24, 2**21


def as_frames(name: str, values: ArrayLike) -> np.ndarray:
    """Return pictures (n_samples, n_rows, n_columns) as float32, or float64 if they are."""
    frames = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if frames.ndim != 3 or len(frames) == 0 or min(frames.shape[1:]) < 3:
        raise InputError(
            name,
            expected="an array (n_samples, n_rows, n_columns) with at least 3 x 3 pixels",
            got=f"shape {frames.shape}",
        )
    if frames.dtype.kind not in "fiub":
        raise InputError(name, expected="real numbers", got=f"values of type {frames.dtype}")
    frames = frames.astype(np.float64 if frames.dtype == np.float64 else np.float32, copy=False)
    if not np.isfinite(frames).all():
        raise InputError(name, expected="finite numbers", got="NaN or infinity")
    return frames


def as_responses(name: str, values: ArrayLike, n_samples: int, sample: str) -> np.ndarray:
    """Return series (n_samples, n_vertices) as they are, if they belong to the stimulus."""
    series = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asanyarray(values)
    if series.ndim != 2 or series.shape[1] == 0 or series.dtype.kind not in "fiub":
        raise InputError(
            name,
            expected=f"real numbers (n_{sample}s, n_vertices)",
            got=f"{series.dtype} of shape {series.shape}",
            fix=f"A single series needs a second axis: {name}[:, None].",
        )
    if len(series) != n_samples:
        raise InputError(
            name,
            expected=f"one row for each of {n_samples} {sample}s",
            got=f"{len(series)} rows",
            fix="Vertices are columns.",
        )
    return series


def _bounds(extent, shape, exponent, limits):
    """Return lower and upper bounds of x, y, log sigma and, if it is free, log exponent."""
    margin, sigmas, exponents = limits
    margin = check_amount("margin_deg", max(extent) / 4 if margin is None else margin)
    tile = max(extent[0] / shape[1], extent[1] / shape[0])
    sigmas = (tile / 2, max(extent)) if sigmas is None else sigmas
    sigmas = check_limits("sigma_limits_deg", sigmas)
    exponents = check_limits("exponent_limits", exponents)
    if exponent is not None and not 0 < exponent < math.inf:
        raise InputError("exponent", expected="a positive number, or None", got=repr(exponent))
    x, y = extent[0] / 2 + margin, extent[1] / 2 + margin
    lower, upper = (-x, -y, math.log(sigmas[0])), (x, y, math.log(sigmas[1]))
    if exponent is not None:
        return lower, upper
    return (*lower, math.log(exponents[0])), (*upper, math.log(exponents[1]))


def fit_series(
    frames, series, *, extent, exponent, limits, nuisance, max_iterations, batch_size, device,
    progress, weights=None, delay=None,
) -> ClassicalPRFResult:  # fmt: skip
    """Fit checked series (n_samples, n_vertices), block by block."""
    n_samples, n_rows, n_columns = frames.shape
    lower, upper = _bounds(extent, (n_rows, n_columns), exponent, limits)
    n_free = len(lower) + 1 + nuisance.shape[1]
    n_used = n_samples if weights is None else np.count_nonzero(weights)
    if n_used <= n_free:
        raise InputError(
            "stimulus and responses",
            expected=f"more samples than the {n_free} numbers to be fitted",
            got=str(n_used),
        )
    if batch_size is None:
        batch_size = max(1, _N_VALUES_PER_BATCH // n_samples)
    batch_size = check_count("batch_size", batch_size)
    max_iterations = check_count("max_iterations", max_iterations)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = check_device(device)
    stimulus = Stimulus.make(
        frames,
        pixel_centres(n_rows, n_columns, extent),
        lower,
        upper,
        exponent=exponent,
        delay=delay,
        weights=weights,
        nuisance=nuisance,
        device=device,
        dtype=torch.float64 if frames.dtype == np.float64 else torch.float32,
    )
    block = max(batch_size, _N_VALUES_PER_BLOCK // n_samples)
    parts = [
        _fit_block(series[:, first : first + block], stimulus, max_iterations, batch_size)
        for first in track(
            range(0, series.shape[1], block), show=progress, label="Fitting receptive fields"
        )
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # A Gaussian's samples one tile apart sum to this.
    tile_area = extent[0] / n_columns * extent[1] / n_rows
    sigma, n = np.exp(columns.pop("log_sigma")), columns["exponent"]
    log_gaussian_sum = np.log(2 * np.pi * sigma**2 / tile_area)
    with np.errstate(over="ignore"):
        columns["amplitude"] *= np.exp(n * (log_gaussian_sum - columns.pop("largest")))
    if not nuisance.shape[1]:
        columns["offset"] = np.where(np.isnan(n), np.nan, 0.0)
    return ClassicalPRFResult(size_deg=sigma / np.sqrt(n), extent_deg=extent, **columns)


def _fit_block(
    series: np.ndarray, stimulus: Stimulus, max_iterations: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Fit raw series (n_samples, n_vertices); every vertex gets a row."""
    frames = stimulus.frames
    dtype = np.float64 if frames.dtype == torch.float64 else np.float32
    highest, lowest = series.max(0).astype(float), series.min(0).astype(float)
    largest = np.maximum(highest, -lowest)
    finite = np.isfinite(largest)
    own = np.finfo(series.dtype if series.dtype.kind == "f" else float)
    span = np.subtract(highest, lowest, out=np.zeros_like(largest), where=finite)
    rows = np.flatnonzero(finite & (span > 10 * float(own.eps) * largest))
    # Centre and scale before the precision changes, so that nothing is lost to a large mean or
    # to squares of tiny numbers.
    raw = series[:, rows].astype(float)
    centre = raw.mean(0) if stimulus.nuisance.shape[1] else np.zeros(len(rows))
    raw -= centre
    scale = np.abs(raw).max(0, initial=0)
    raw /= scale
    unit = torch.from_numpy(np.ascontiguousarray(raw.T, dtype=dtype)).to(frames.device)
    del raw
    mean = stimulus.mean(unit)
    unit = stimulus.clean(unit)
    norm = unit.norm(dim=1)
    # What drift explains leaves rounding alone.
    kept = norm > 10 * torch.finfo(unit.dtype).eps * math.sqrt(stimulus.n_samples)
    unit, mean, norm = unit[kept] / norm[kept, None], mean[kept], norm[kept].double()
    kept = kept.cpu().numpy()
    rows, centre, scale = (
        rows[kept],
        torch.from_numpy(centre[kept]).to(frames.device),
        torch.from_numpy(scale[kept]).to(frames.device),
    )

    code = np.where(finite, STATUSES.index("flat"), STATUSES.index("not_finite"))
    names = ("x_deg", "y_deg", "log_sigma", "exponent", "amplitude", "largest", "offset", "r2")
    columns = {name: np.full(series.shape[1], math.nan) for name in names}
    start = best_start(unit, stimulus, batch_size)
    for first in range(0, len(rows), batch_size):
        part = slice(first, first + batch_size)
        fit, settled = search(unit[part], stimulus, start[part], max_iterations)
        amplitude = fit.gain * norm[part]
        exponent = torch.full_like(amplitude, stimulus.exponents[0])
        if stimulus.exponent_is_free:
            exponent = fit.parameters[:, 3].exp()
        at_bound = ((fit.parameters <= stimulus.lower) | (fit.parameters >= stimulus.upper)).any(1)
        edge = torch.stack((stimulus.x[-1], stimulus.y[0])) + 3 * fit.parameters[:, 2:3].exp()
        at_bound |= (fit.parameters[:, :2].abs() > edge).any(1)
        status = torch.where(at_bound, STATUSES.index("at_bound"), STATUSES.index("ok"))
        status[~settled] = STATUSES.index("not_converged")
        positive = fit.correlation > 0
        status[~positive] = STATUSES.index("flat")
        here = rows[part]
        code[here] = status.cpu().numpy()
        values = (
            *fit.parameters.T[:3],
            exponent,
            amplitude * scale[part],
            fit.largest,
            (mean[part] - amplitude * fit.mean) * scale[part] + centre[part],
            (fit.correlation**2).clamp_max(1),
        )
        for name, value in zip(names, values, strict=True):
            columns[name][here] = torch.where(positive, value, math.nan).cpu().numpy()
    return {"status": np.array(STATUSES)[code], **columns}
