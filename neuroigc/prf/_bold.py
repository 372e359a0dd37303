"""BOLD of pRF experiments: moving bars, the haemodynamic response and drifts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from neuroigc._validation import InputError, check_count

__all__ = ["convolution", "double_gamma_hrf", "polynomials", "simulate_bars"]


def double_gamma_hrf(
    tr: float,
    *,
    duration: float = 32.0,
    peak: float = 6.0,
    undershoot: float = 16.0,
    peak_dispersion: float = 1.0,
    undershoot_dispersion: float = 1.0,
    ratio: float = 1 / 6,
) -> np.ndarray:
    """Return the canonical haemodynamic response, the difference of two gamma densities.

    ``f(t; peak / peak_dispersion, peak_dispersion) - ratio * f(t; undershoot /
    undershoot_dispersion, undershoot_dispersion)``, with ``f(t; k, s)`` the gamma density of
    shape k and scale s. The first has its maximum at ``peak - peak_dispersion``: after 5 s.

    Parameters
    ----------
    tr : float
        Seconds from sample to sample.
    duration : float
        Seconds after which the response is cut off.
    peak, undershoot : float
        Mean delay of both densities in seconds.
    peak_dispersion, undershoot_dispersion : float
        Their scales in seconds.
    ratio : float
        Area of the undershoot relative to that of the peak.

    Returns
    -------
    (n_times,) array
        Samples at 0, tr, 2 tr ... that sum to one, so that a stimulus that stays on has a
        response of its own height.

    Raises
    ------
    InputError
        If a time is not positive, a delay is shorter than its dispersion, the ratio is not
        between 0 and 1 (exclusive), or ``duration`` ends before the peak.

    Notes
    -----
    Friston et al. 1998, NeuroImage 7:30; the numbers are the usual ones of SPM.
    """
    times = {
        "tr": tr,
        "duration": duration,
        "peak": peak,
        "undershoot": undershoot,
        "peak_dispersion": peak_dispersion,
        "undershoot_dispersion": undershoot_dispersion,
    }
    for name, value in times.items():
        if not 0 < value < math.inf:
            raise InputError(name, expected="a positive number of seconds", got=repr(value))
    # A density of a shape below 1 has no peak, and is infinite at time 0.
    shapes = (peak, peak_dispersion), (undershoot, undershoot_dispersion)
    if any(mean < dispersion for mean, dispersion in shapes):
        raise InputError(
            "peak and undershoot",
            expected="delays of at least their dispersions",
            got=", ".join(f"{mean} and {dispersion} s" for mean, dispersion in shapes),
        )
    if not 0 <= ratio < 1:
        raise InputError("ratio", expected="a number from 0 to below 1", got=repr(ratio))
    t = np.arange(math.floor(duration / tr) + 1) * tr
    response = _gamma(t, peak / peak_dispersion, peak_dispersion)
    response -= ratio * _gamma(t, undershoot / undershoot_dispersion, undershoot_dispersion)
    if duration <= peak or response.sum() <= 0:
        raise InputError(
            "tr and duration", expected="samples that cover the peak", got=f"{tr} s, {duration} s"
        )
    return response / response.sum()


def _gamma(t: np.ndarray, shape: float, scale: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithm = (shape - 1) * np.log(t / scale) if shape != 1 else np.zeros_like(t)
    return np.exp(logarithm - t / scale - math.lgamma(shape)) / scale


def simulate_bars(
    *,
    n_pixels: int = 64,
    n_steps: int = 20,
    bar_width: float = 0.125,
    directions_deg: Sequence[float | None] = (0, 45, None, 90, 135, None, 180, 225, None, 270, 315),
    n_blank: int = 12,
    circular: bool = True,
) -> np.ndarray:
    """Return the apertures of bars that sweep over the screen, one frame per volume.

    Parameters
    ----------
    n_pixels : int
        Side of the square pictures.
    n_steps : int
        Frames of a sweep; the bar's centre goes from edge to edge.
    bar_width : float
        Width of the bar as a share of the side.
    directions_deg : sequence of float or None
        Where the bar of each sweep moves to: 0 right, 90 up, counter-clockwise. None is a break
        of ``n_blank`` frames without a bar; one also comes before and after all sweeps.
    n_blank : int
        Frames of a break.
    circular : bool
        Show bars within the inscribed circle only, else on the whole square.

    Returns
    -------
    (n_frames, n_pixels, n_pixels) array of float32
        1 where the bar covers a pixel's centre, else 0; row 0 is the top.

    Raises
    ------
    InputError
        If a number makes no sense, or there is no sweep.
    """
    n_pixels = check_count("n_pixels", n_pixels, least=3)
    n_steps = check_count("n_steps", n_steps, least=2)
    n_blank = check_count("n_blank", n_blank, least=0)
    if not 0 < bar_width <= 1:
        raise InputError("bar_width", expected="a share of the side, 0 to 1", got=repr(bar_width))
    if all(direction is None for direction in directions_deg):
        raise InputError("directions_deg", expected="at least one direction", got="none")
    x = (np.arange(n_pixels) + 0.5) / n_pixels - 0.5
    y = -x[:, None]
    screen = (x**2 + y**2 <= 0.25) if circular else np.ones((n_pixels, n_pixels), dtype=bool)
    blank = np.zeros((n_blank, n_pixels, n_pixels), dtype=np.float32)
    parts = [blank]
    for direction in directions_deg:
        if direction is None:
            parts.append(blank)
            continue
        radians = math.radians(direction)
        along = x * math.cos(radians) + y * math.sin(radians)
        centres = np.linspace(-0.5, 0.5, n_steps)[:, None, None]
        sweep = (np.abs(along - centres) <= bar_width / 2) & screen
        parts.append(sweep.astype(np.float32))
    return np.concatenate([*parts, blank])


def convolution(hrf: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Return the matrix (n_volumes, n_volumes) that delays each run by the response."""
    lag = np.subtract.outer(np.arange(sum(lengths)), np.arange(sum(lengths)))
    run = np.repeat(np.arange(len(lengths)), lengths)
    inside = (lag >= 0) & (lag < len(hrf)) & (run[:, None] == run)
    return np.where(inside, hrf[np.where(inside, lag, 0)], 0.0)


def polynomials(lengths: Sequence[int], orders: Sequence[int]) -> np.ndarray:
    """Return Legendre polynomials (n_volumes, n_regressors), those of a run zero elsewhere."""
    columns = []
    ends = np.cumsum(lengths)
    for end, length, order in zip(ends, lengths, orders, strict=True):
        # No more than there are volumes, or they would explain anything.
        time = np.linspace(-1, 1, length) if length > 1 else np.zeros(1)
        block = np.zeros((ends[-1], min(order, length - 1) + 1))
        block[end - length : end] = np.polynomial.legendre.legvander(time, block.shape[1] - 1)
        columns.append(block)
    return np.concatenate(columns, axis=1)
