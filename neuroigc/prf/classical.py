"""Receptive fields from responses: the Gaussian models that maps have to compete with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neuroigc._progress import track
from neuroigc._validation import InputError, check_count
from neuroigc.prf._bold import convolution, double_gamma_hrf, polynomials, simulate_bars
from neuroigc.prf._contrast import contrast_energy
from neuroigc.prf._pooling import Stimulus, best_start, search
from neuroigc.prf.gaussian import as_extent, pixel_centres
from neuroigc.prf.result import STATUSES, ClassicalPRFResult

__all__ = [
    "contrast_energy",
    "double_gamma_hrf",
    "fit_css",
    "fit_timeseries_prf",
    "simulate_bars",
]

# Series that wait in memory, and predictions of one step without their derivatives.
_N_VALUES_PER_BLOCK, _N_VALUES_PER_BATCH = 2**25, 2**21


def fit_css(
    contrast: ArrayLike,
    betas: ArrayLike,
    *,
    extent_deg: float | tuple[float, float],
    weights: ArrayLike | None = None,
    offset: bool = True,
    exponent: float | None = None,
    exponent_limits: tuple[float, float] = (0.05, 4.0),
    sigma_limits_deg: tuple[float, float] | None = None,
    margin_deg: float | None = None,
    max_iterations: int = 100,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> ClassicalPRFResult:
    """Fit compressive spatial summation, ``gain * (sum S G)^exponent + offset``, to betas.

    S is the contrast of an image in every tile, G an isotropic Gaussian that sums to one over
    the plane, and the gain is positive. The start is the best point of a grid over positions,
    widths and exponents, judged by the error that is minimised afterwards. Gain and offset have a
    closed form (variable projection), the rest is found by Levenberg-Marquardt steps.

    Parameters
    ----------
    contrast : (n_images, n_rows, n_columns) array
        Local contrast, not negative, row 0 at the top; say from :func:`contrast_energy`. Float64
        is computed as such, everything else in float32.
    betas : (n_images, n_vertices) array or memory map
        Responses, averaged over the repeats of each image.
    extent_deg : float or (float, float)
        Width and height of the contrast maps, grey surround included, in degrees of visual
        angle; one number for a square.
    weights : (n_images,) array, optional
        How much an image counts, say its number of repeats. Default: all the same.
    offset : bool
        Fit a constant too. Betas that were z-scored need it; the model as published has none.
    exponent : float, optional
        Keep the exponent at this. Default: fit it.
    exponent_limits : (float, float)
        Smallest and largest fitted exponent.
    sigma_limits_deg : (float, float), optional
        Smallest and largest standard deviation of G. Default: half a tile, and the longer side.
    margin_deg : float, optional
        How far outside the contrast maps a centre may lie. Default: a quarter of the longer side.
    max_iterations : int
        Steps after which a fit that has not settled is "not_converged".
    batch_size : int, optional
        Vertices refined together; it changes memory and speed only.
    device : str or torch.device
        "auto" is CUDA if there is one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ClassicalPRFResult
        One entry per vertex. ``status`` is "ok"; "at_bound" where a parameter ended at a limit or
        the centre more than three sigma outside the picture; "not_converged"; "flat" where betas
        do not vary or no positive gain resembles them; "not_finite" where betas hold NaN or
        infinity. The last two have NaN in every other array.

    Raises
    ------
    InputError
        If shapes do not fit together, contrast is negative or not finite, or an option makes no
        sense.

    Notes
    -----
    Compressive spatial summation: Kay, Winawer, Mezer & Wandell 2013, J Neurophysiol 110:481,
    which also defines ``size_deg = sigma / sqrt(exponent)``. Its use on betas of natural images
    follows Allen et al. 2022, Nat Neurosci 25:116. With noise, width and exponent trade off
    against each other; the centre suffers little.
    """
    frames = _frames("contrast", contrast)
    if frames.min() < 0:
        raise InputError(
            "contrast",
            expected="numbers from 0 on",
            got=f"values down to {frames.min():g}",
            fix="Contrast is a standard deviation: do not centre it.",
        )
    n_images = len(frames)
    betas = _responses("betas", betas, n_images, "image")
    if weights is not None:
        weights = np.asarray(weights, dtype=float)
        good = weights.shape == (n_images,) and np.isfinite(weights).all() and (weights >= 0).all()
        if not good or not weights.any():
            raise InputError(
                "weights",
                expected=f"{n_images} finite numbers from 0 on, one per image",
                got=f"shape {weights.shape}" if weights.shape != (n_images,) else "other numbers",
            )
    return _fit(
        frames,
        betas,
        extent=as_extent(extent_deg),
        exponent=exponent,
        limits=(margin_deg, sigma_limits_deg, exponent_limits),
        weights=weights,
        nuisance=np.ones((n_images, int(bool(offset)))),
        max_iterations=max_iterations,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )


def fit_timeseries_prf(
    stimulus: ArrayLike,
    bold: ArrayLike,
    *,
    extent_deg: float | tuple[float, float],
    tr: float,
    hrf: ArrayLike | None = None,
    drift_order: int | None = None,
    run_lengths: Sequence[int] | None = None,
    exponent: float | None = 1.0,
    exponent_limits: tuple[float, float] = (0.05, 4.0),
    sigma_limits_deg: tuple[float, float] | None = None,
    margin_deg: float | None = None,
    max_iterations: int = 100,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> ClassicalPRFResult:
    """Fit ``gain * hrf * (sum S G)^exponent`` and a drift to BOLD series; ``*`` convolves.

    With the exponent at 1 this is the linear model of Dumoulin & Wandell. Other exponents act
    before the haemodynamic response, on what neurons pool. The search is that of
    :func:`fit_css`.

    Parameters
    ----------
    stimulus : (n_volumes, n_rows, n_columns) array
        Where on the screen the stimulus was during each volume (0 nothing, 1 stimulus), row 0 at
        the top. Float64 is computed as such, everything else in float32.
    bold : (n_volumes, n_vertices) array or memory map
        Signal, in any unit.
    extent_deg : float or (float, float)
        Width and height of the stimulus pictures in degrees of visual angle; one number for a
        square.
    tr : float
        Seconds from volume to volume.
    hrf : (n_times,) array, optional
        Haemodynamic response sampled every ``tr`` seconds from 0 on. Default:
        :func:`double_gamma_hrf`.
    drift_order : int, optional
        Highest power of the polynomials in time that are left out of each run; 0 is its mean
        alone. Default: half the run's minutes, rounded.
    run_lengths : sequence of int, optional
        Volumes of each run, if several follow each other: responses do not reach from one run
        into the next. Default: a single run.
    exponent : float or None
        Keep the exponent at this; None fits it.
    exponent_limits, sigma_limits_deg, margin_deg
        As in :func:`fit_css`.
    max_iterations, batch_size, device, progress
        As in :func:`fit_css`.

    Returns
    -------
    ClassicalPRFResult
        As in :func:`fit_css`. ``offset`` is the level of the series without a stimulus (with
        the drift at its mean); ``r2`` is the share that is explained of what drift leaves.

    Raises
    ------
    InputError
        If shapes do not fit together, the stimulus is negative or not finite, or an option makes
        no sense.

    Notes
    -----
    Dumoulin & Wandell 2008, NeuroImage 39:647; with a compressive exponent Kay et al. 2013, J
    Neurophysiol 110:481. A wrong haemodynamic response biases sizes, centres hardly.
    """
    frames = _frames("stimulus", stimulus)
    if frames.min() < 0:
        raise InputError(
            "stimulus", expected="numbers from 0 on", got=f"values down to {frames.min():g}"
        )
    n_volumes = len(frames)
    bold = _responses("bold", bold, n_volumes, "volume")
    if not 0 < tr < math.inf:
        raise InputError("tr", expected="a positive number of seconds", got=repr(tr))
    response = double_gamma_hrf(tr) if hrf is None else np.asarray(hrf, dtype=float)
    if response.ndim != 1 or not np.isfinite(response).all() or not response.any():
        raise InputError(
            "hrf",
            expected="a list of finite numbers, one every tr seconds",
            got=f"shape {response.shape}" if response.ndim != 1 else "zeros, NaN or infinity",
        )
    lengths = (
        [n_volumes] if run_lengths is None else [check_count("run_lengths", n) for n in run_lengths]
    )
    if sum(lengths) != n_volumes:
        raise InputError(
            "run_lengths", expected=f"numbers that add up to {n_volumes}", got=f"{sum(lengths)}"
        )
    if drift_order is None:
        orders = [round(n * tr / 120) for n in lengths]
    else:
        orders = [check_count("drift_order", drift_order, least=0)] * len(lengths)
    return _fit(
        frames,
        bold,
        extent=as_extent(extent_deg),
        exponent=exponent,
        limits=(margin_deg, sigma_limits_deg, exponent_limits),
        delay=convolution(response, lengths),
        nuisance=polynomials(lengths, orders),
        max_iterations=max_iterations,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )


def _frames(name: str, values: ArrayLike) -> np.ndarray:
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


def _responses(name: str, values: ArrayLike, n_samples: int, sample: str) -> np.ndarray:
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
    margin = max(extent) / 4 if margin is None else margin
    if not 0 <= margin < math.inf:
        raise InputError("margin_deg", expected="zero or a positive number", got=repr(margin))
    tile = max(extent[0] / shape[1], extent[1] / shape[0])
    sigmas = (tile / 2, max(extent)) if sigmas is None else sigmas
    for name, pair in (("sigma_limits_deg", sigmas), ("exponent_limits", exponents)):
        if len(pair) != 2 or not 0 < pair[0] < pair[1] < math.inf:
            raise InputError(
                name, expected="two positive numbers, the smaller one first", got=repr(pair)
            )
    if exponent is not None and not 0 < exponent < math.inf:
        raise InputError("exponent", expected="a positive number, or None", got=repr(exponent))
    x, y = extent[0] / 2 + margin, extent[1] / 2 + margin
    lower, upper = (-x, -y, math.log(sigmas[0])), (x, y, math.log(sigmas[1]))
    if exponent is not None:
        return lower, upper
    return (*lower, math.log(exponents[0])), (*upper, math.log(exponents[1]))


def _fit(
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
    # Scale before the precision changes, so that squares of tiny amplitudes cannot vanish.
    with np.errstate(invalid="ignore"):
        highest, lowest = series.max(0).astype(float), series.min(0).astype(float)
    largest = np.maximum(highest, -lowest)
    finite = np.isfinite(largest)
    scale = np.where(finite & (largest > 0), largest, 1.0)
    varies = finite & (highest > lowest)
    rows = np.flatnonzero(varies)
    raw = np.ascontiguousarray((series[:, rows] / scale[rows]).T, dtype=dtype)
    raw = torch.from_numpy(raw).to(frames.device)
    mean = stimulus.mean(raw)
    clean = stimulus.clean(raw)
    norm = clean.norm(dim=1)
    rounding = 10 * torch.finfo(clean.dtype).eps * math.sqrt(stimulus.n_samples)
    kept = (norm > rounding).nonzero()[:, 0]
    rows, unit = rows[kept.cpu().numpy()], clean[kept] / norm[kept, None]
    del raw, clean

    code = np.where(finite, STATUSES.index("flat"), STATUSES.index("not_finite"))
    names = ("x_deg", "y_deg", "log_sigma", "exponent", "amplitude", "largest", "offset", "r2")
    columns = {name: np.full(series.shape[1], math.nan) for name in names}
    start = best_start(unit, stimulus, batch_size)
    for first in range(0, len(rows), batch_size):
        part = slice(first, first + batch_size)
        fit, settled = search(unit[part], stimulus, start[part], max_iterations)
        amplitude = fit.gain * norm[kept[part]].double()
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
            amplitude * torch.from_numpy(scale[here]).to(amplitude.device),
            fit.largest,
            (mean[kept[part]] - amplitude * fit.mean)
            * torch.from_numpy(scale[here]).to(amplitude.device),
            (fit.correlation**2).clamp_max(1),
        )
        for name, value in zip(names, values, strict=True):
            columns[name][here] = torch.where(positive, value, math.nan).cpu().numpy()
    return {"status": np.array(STATUSES)[code], **columns}
