"""Receptive fields from maps: a two-dimensional Gaussian with offset for each of them."""

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
from neuroigc.prf._search import Field, best_start, propagate_errors, search
from neuroigc.prf.result import STATUSES, PRFResult

__all__ = ["fit_prf", "pixel_centres"]

# Batches that stay in the processor's cache are fastest.
_N_VALUES_PER_BATCH = 2**21


def pixel_centres(
    n_rows: int, n_columns: int, extent_deg: float | tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pixels of a centred image lie in the visual field.

    Parameters
    ----------
    n_rows, n_columns : int
        Shape of the image.
    extent_deg : float or (float, float)
        Width and height of the image in degrees of visual angle; one number for a square.

    Returns
    -------
    x_deg : (n_columns,) array
        Rightwards: ascending.
    y_deg : (n_rows,) array
        Upwards: descending, as row 0 is the top of the image.
    """
    width, height = as_extent(extent_deg)
    x_deg = ((np.arange(n_columns) + 0.5) / n_columns - 0.5) * width
    y_deg = (0.5 - (np.arange(n_rows) + 0.5) / n_rows) * height
    return x_deg, y_deg


def fit_prf(
    maps: ArrayLike | Tensor,
    *,
    extent_deg: float | tuple[float, float],
    power: ArrayLike | None = None,
    standard_errors: ArrayLike | Tensor | None = None,
    error_width_deg: float | None = None,
    margin_deg: float | None = None,
    size_limits_deg: tuple[float, float] | None = None,
    max_iterations: int = 100,
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> PRFResult:
    """Fit ``amplitude * exp(-((x - x0)^2 + (y - y0)^2) / (2 size^2)) + offset`` to every map.

    The Gaussian is sampled at pixel centres. The start is the best of a grid of Gaussians over
    all positions and sizes, judged by the very error that is minimised afterwards: maps of
    pooled IGC are noisy, and their highest pixel alone is easily a wrong start. A vertex's fit
    depends neither on the vertices it is fitted with nor on the amplitude of its map.

    Parameters
    ----------
    maps : (n_vertices, n_rows, n_columns) array, memory map or tensor
        One picture per vertex, row 0 at the top. Float64 is computed as such, everything else in
        float32.
    extent_deg : float or (float, float)
        Width and height of the picture in degrees of visual angle; one number for a square.
    power : (n_rows, n_columns) array, optional
        What images offer at every place (:func:`stimulus_power`): maps, and their errors, are
        divided by it.
    standard_errors : (n_vertices, n_rows, n_columns) array, memory map or tensor, optional
        Standard errors of the maps, in their unit; they do not change the fit.
    error_width_deg : float, optional
        How far errors of a map's pixels are correlated: at a distance d by
        ``exp(-d^2 / (2 width^2))``; 0 where they are independent. Default: one pixel.
    margin_deg : float, optional
        How far outside the picture a centre may lie. Default: a quarter of the longer side.
    size_limits_deg : (float, float), optional
        Smallest and largest size. Default: half a pixel, and the longer side of the picture.
    max_iterations : int
        Steps after which a fit that has not settled is "not_converged".
    batch_size : int, optional
        Maps fitted together; it changes memory and speed only.
    device : str or torch.device
        "auto" keeps a tensor where it is and takes arrays to CUDA if there is one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    PRFResult
        One entry per map, in degrees. ``status`` is "ok"; "at_bound" where centre or size ended
        at a limit; "not_converged"; "flat" where the map does not vary or no Gaussian of positive
        amplitude resembles it; "not_finite" where the map holds NaN or infinity. The last two
        have NaN in every other array. With ``standard_errors`` there are errors of centre and
        size where ``status`` is "ok", elsewhere they are NaN.

    Raises
    ------
    InputError
        If the maps are no stack of pictures, their standard errors have another shape or are
        negative, or extent, margin, limits, width or another option make no sense.

    Notes
    -----
    Negative lobes: amplitudes are positive. A negative surround pulls the offset below zero and
    narrows the Gaussian a little; a map whose only structure is a negative lobe is fitted by
    what is higher beside it, with a low ``r2`` and mostly "at_bound". Maps are never rectified.

    Edges: pixels outside the picture are unknown, not zero, so a field cut by the edge is fitted
    by its visible part, and its centre may lie outside.

    Sizes are those of the map, not of the receptive field. IGC weights pixels by the receptive
    field and by what the stimuli do there: a Gaussian weight of width s gives s/√2 for white
    stimuli, about 0.9 s for images with a 1/f spectrum, and more than s where a unit pools local
    energy. Correct them with phantoms (:func:`calibrate_prfs`), or with
    :meth:`PRFResult.calibrated`. Maps of an encoder whose vertices share a few latents are as wide
    as these make them, whatever the vertex: what they do not follow, nothing brings back, and
    sizes need an encoder with a window for each vertex.

    Errors of the estimates are those of the maps, carried on by the derivatives of the optimum
    (the delta method), without the bias of a Gaussian that does not describe the map. Their
    scale grows with the square of ``error_width_deg`` while that is small against the fields, and
    for small errors only is it linear: calibrate it with phantoms, too.
    """
    maps = maps if isinstance(maps, Tensor) else np.asanyarray(maps)
    _check_maps(maps)
    n_vertices, n_rows, n_columns = maps.shape
    extent = as_extent(extent_deg)
    lower, upper = _bounds(extent, (n_rows, n_columns), margin_deg, size_limits_deg)
    if device == "auto":
        arrays_go_to = "cuda" if torch.cuda.is_available() else "cpu"
        device = maps.device if isinstance(maps, Tensor) else arrays_go_to
    device = check_device(device)
    field = Field.make(*pixel_centres(n_rows, n_columns, extent), lower, upper, device)
    if batch_size is None:
        batch_size = max(1, _N_VALUES_PER_BATCH // (n_rows * n_columns))
    batch_size = check_count("batch_size", batch_size)
    max_iterations = check_count("max_iterations", max_iterations)
    offered = _check_power(power, (n_rows, n_columns))
    errors, width = _check_errors(standard_errors, error_width_deg, maps.shape, extent)
    parts = []
    starts = range(0, n_vertices, batch_size)
    for start in track(starts, show=progress, label="Fitting Gaussians"):
        part = slice(start, start + batch_size)
        batch = _as_tensor(maps[part], device)
        of_maps = None if errors is None else (_as_tensor(errors[part], device), width)
        if offered is not None:
            scale = torch.as_tensor(1 / offered, dtype=batch.dtype, device=batch.device)
            batch = batch * scale
            of_maps = None if of_maps is None else (of_maps[0] * scale, width)
        parts.append(_fit_batch(batch, field, max_iterations, of_maps))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return PRFResult(extent_deg=extent, **columns)


def _check_power(power: ArrayLike | None, shape: tuple[int, int]) -> np.ndarray | None:
    """Return what images offer as an array, having seen that one can divide by it."""
    if power is None:
        return None
    power = np.asarray(power, dtype=float)
    if power.shape != shape or not np.isfinite(power).all() or not (power > 0).all():
        raise InputError(
            "power",
            expected=f"numbers above 0, of shape {shape} as the maps",
            got=f"shape {power.shape}" + (f", from {power.min()}" if power.shape == shape else ""),
        )
    return power


def as_extent(extent_deg: float | tuple[float, float]) -> tuple[float, float]:
    """Return (width, height) in degrees, from one number for a square or from both."""
    try:
        width, height = np.broadcast_to(np.asarray(extent_deg, dtype=float), (2,)).tolist()
    except (TypeError, ValueError):
        width = height = math.nan
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise InputError(
            "extent_deg",
            expected="a positive number of degrees, or (width, height)",
            got=repr(extent_deg),
        )
    return width, height


def _check_maps(maps: np.ndarray | Tensor) -> None:
    if maps.ndim != 3 or len(maps) == 0 or min(maps.shape[1:]) < 3:
        raise InputError(
            "maps",
            expected="an array (n_vertices, n_rows, n_columns) with at least 3 x 3 pixels",
            got=f"shape {tuple(maps.shape)}",
            fix="A single map needs a first axis: map[None].",
        )
    kind = maps.dtype.is_complex if isinstance(maps, Tensor) else maps.dtype.kind not in "fiub"
    if kind:
        raise InputError("maps", expected="real numbers", got=f"values of type {maps.dtype}")


def _check_errors(errors, width, shape, extent):
    """Return the maps' standard errors, with a width of their correlation in degrees."""
    if errors is not None:
        errors = errors if isinstance(errors, Tensor) else np.asanyarray(errors)
        if tuple(errors.shape) != tuple(shape):
            raise InputError(
                "standard_errors",
                expected=f"one per pixel of the maps, shape {tuple(shape)}",
                got=f"shape {tuple(errors.shape)}",
            )
    if width is None:
        width = max(extent[0] / shape[2], extent[1] / shape[1])
    return errors, check_amount("error_width_deg", width)


def _bounds(extent, shape, margin, size_limits):
    """Return lower and upper bounds of x, y and log size."""
    margin = check_amount("margin_deg", max(extent) / 4 if margin is None else margin)
    pixel = max(extent[0] / shape[1], extent[1] / shape[0])
    size_limits = (pixel / 2, max(extent)) if size_limits is None else size_limits
    smallest, largest = check_limits("size_limits_deg", size_limits)
    x, y = extent[0] / 2 + margin, extent[1] / 2 + margin
    return (-x, -y, math.log(smallest)), (x, y, math.log(largest))


def _as_tensor(maps: np.ndarray | Tensor, device: str | torch.device) -> Tensor:
    if not isinstance(maps, Tensor):
        # A memory map is read here, and big-endian files become native.
        dtype = np.float64 if maps.dtype.kind == "f" and maps.dtype.itemsize == 8 else np.float32
        maps = torch.from_numpy(np.array(maps, dtype=dtype))
    dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
    return maps.detach().to(device=device, dtype=dtype)


def _fit_batch(
    maps: Tensor,
    field: Field,
    max_iterations: int,
    errors: tuple[Tensor, float] | None,
) -> dict[str, np.ndarray]:
    """Fit one batch of raw maps, with their errors and the width of these; every map gets a row."""
    # NaN and infinity pass through both.
    largest = torch.maximum(maps.amax((1, 2)), -maps.amin((1, 2)))
    finite = largest.isfinite()
    # Scale first, so that squares of tiny amplitudes cannot vanish.
    scale = torch.where(finite & (largest > 0), largest, 1)[:, None, None]
    centred = maps * (1 / scale)
    mean = centred.mean((1, 2), keepdim=True)
    centred -= mean
    norm = torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True, dtype=torch.float64)
    rounding = 10 * torch.finfo(maps.dtype).eps * math.sqrt(field.n_pixels)
    rows = (finite & (norm[:, 0, 0] > rounding)).nonzero()[:, 0]
    unit = centred.mul_((1 / norm).to(maps.dtype))[rows]

    fit, settled = search(unit, field, best_start(unit, field), max_iterations)
    x, y, log_size = fit.parameters.T
    scale, norm, mean = (factor[rows, 0, 0].double() for factor in (scale, norm, mean))
    amplitude = fit.amplitude * norm
    fitted = {
        "x_deg": x,
        "y_deg": y,
        "size_deg": log_size.exp(),
        "amplitude": amplitude * scale,
        "offset": (mean - amplitude * fit.mean) * scale,
        "r2": (fit.correlation**2).clamp_max(1),
    }
    at_bound = ((fit.parameters <= field.lower) | (fit.parameters >= field.upper)).any(1)
    positive = fit.correlation > 0
    code = torch.where(finite, STATUSES.index("flat"), STATUSES.index("not_finite"))
    fitted_code = torch.where(at_bound, STATUSES.index("at_bound"), STATUSES.index("ok"))
    fitted_code[~settled] = STATUSES.index("not_converged")
    fitted_code[~positive] = STATUSES.index("flat")
    code[rows] = fitted_code
    if errors is not None:
        of_maps, width = errors
        if (of_maps < 0).any():
            raise InputError(
                "standard_errors", expected="numbers from 0 on", got=f"{of_maps.min():g}"
            )
        # In the unit of the fit, whose maps have norm 1.
        unit_errors = of_maps[rows].double() / (scale * norm)[:, None, None]
        # Every map needs several pictures of its size here.
        few = torch.arange(len(rows), device=rows.device).split(
            max(1, _N_VALUES_PER_BATCH // (8 * field.n_pixels))
        )
        found = torch.cat([propagate_errors(fit[i], unit_errors[i], field, width) for i in few])
        found[fitted_code != STATUSES.index("ok")] = math.nan
        fitted["x_error_deg"], fitted["y_error_deg"] = found[:, 0], found[:, 1]
        fitted["size_error_deg"] = found[:, 2] * fitted["size_deg"]

    columns = {"status": np.array(STATUSES)[code.cpu().numpy()]}
    for name, values in fitted.items():
        column = torch.full((len(maps),), math.nan, dtype=torch.float64, device=maps.device)
        column[rows] = torch.where(positive, values, math.nan)
        columns[name] = column.cpu().numpy()
    return columns
