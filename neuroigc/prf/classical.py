"""Receptive fields from responses: the Gaussian models that maps have to compete with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_count
from neuroigc.prf._bold import convolution, double_gamma_hrf, polynomials, simulate_bars
from neuroigc.prf._contrast import contrast_energy
from neuroigc.prf._fitting import as_frames, as_responses, fit_series
from neuroigc.prf.gaussian import as_extent
from neuroigc.prf.result import ClassicalPRFResult

__all__ = [
    "contrast_energy",
    "double_gamma_hrf",
    "fit_css",
    "fit_timeseries_prf",
    "simulate_bars",
]


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
    against each other; the centre suffers little. Vertices whose responses are divided by the
    contrast of the whole image drive the exponent to its lower limit ("at_bound"): their centres
    can be trusted, their ``size_deg`` cannot.
    """
    frames = as_frames("contrast", contrast)
    if frames.min() < 0:
        raise InputError(
            "contrast",
            expected="numbers from 0 on",
            got=f"values down to {frames.min():g}",
            fix="Contrast is a standard deviation: do not centre it.",
        )
    n_images = len(frames)
    betas = as_responses("betas", betas, n_images, "image")
    if weights is not None:
        weights = np.asarray(weights, dtype=float)
        good = weights.shape == (n_images,) and np.isfinite(weights).all() and (weights >= 0).all()
        if not good or not weights.any():
            raise InputError(
                "weights",
                expected=f"{n_images} finite numbers from 0 on, one per image",
                got=f"shape {weights.shape}" if weights.shape != (n_images,) else "other numbers",
            )
    return fit_series(
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
    frames = as_frames("stimulus", stimulus)
    if frames.min() < 0:
        raise InputError(
            "stimulus", expected="numbers from 0 on", got=f"values down to {frames.min():g}"
        )
    n_volumes = len(frames)
    bold = as_responses("bold", bold, n_volumes, "volume")
    if not 0 < tr < math.inf:
        raise InputError("tr", expected="a positive number of seconds", got=repr(tr))
    response = double_gamma_hrf(tr) if hrf is None else np.asarray(hrf, dtype=float)
    if response.ndim != 1 or not np.isfinite(response).all() or not response.any():
        raise InputError(
            "hrf",
            expected="a list of finite numbers, one every tr seconds",
            got=f"shape {response.shape}" if response.ndim != 1 else "zeros, NaN or infinity",
        )
    lengths = [n_volumes] if run_lengths is None else np.ravel(run_lengths).tolist()
    lengths = [check_count("run_lengths", n) for n in lengths]
    if sum(lengths) != n_volumes:
        raise InputError(
            "run_lengths", expected=f"numbers that add up to {n_volumes}", got=f"{sum(lengths)}"
        )
    if drift_order is None:
        orders = [round(n * tr / 120) for n in lengths]
    else:
        orders = [check_count("drift_order", drift_order, least=0)] * len(lengths)
    return fit_series(
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
