"""Size against eccentricity: a line per visual area, beside those of the literature."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.prf._fields import area_names, read_fields
from neuroigc.prf.retinotopy import to_polar

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["LITERATURE_SIZES", "literature_line", "plot_size_eccentricity", "size_eccentricity"]

# Slope and intercept (deg) of size = slope * eccentricity + intercept, 1 SD, as neuropythy
# tabulates them. The sizes of "kay2013" are those of the compressive model, sigma / sqrt(n).
LITERATURE_SIZES = {
    # Wandell & Winawer 2015, Computational neuroimaging and population receptive fields,
    # Trends in Cognitive Sciences 19:349. The sizes of Benson's atlas are these lines.
    "wandell2015": {
        "V1": (0.169, 0.022),
        "V2": (0.169, 0.147),
        "V3": (0.264, 0.342),
        "hV4": (0.530, 0.445),
        "V3A": (0.357, 1.002),
        "V3B": (0.357, 1.002),
        "VO1": (0.685, 0.480),
        "VO2": (0.939, 0.262),
        "LO1": (0.856, 0.361),
        "LO2": (0.748, 0.459),
        "TO1": (1.374, 0.172),
        "TO2": (1.657, 0.0),
    },
    # Kay, Winawer, Mezer & Wandell 2013, Compressive spatial summation in human visual
    # cortex, J Neurophysiol 110:481.
    "kay2013": {"V1": (0.16, 0.5), "V2": (0.18, 0.5), "V3": (0.25, 0.5), "hV4": (0.36, 0.5)},
}

_FEWEST = 10  # vertices of an area; a line through fewer means little
_PER_BIN, _MOST_BINS = 5, 10
# Dash patterns of the sources, so that a grey print tells them from the fits and each other.
_DASHES = {"wandell2015": (0, (5, 2)), "kay2013": (0, (1, 1.5))}
# Okabe and Ito's colours, which the colour-blind can tell apart.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_CITATIONS = {"wandell2015": "Wandell & Winawer 2015", "kay2013": "Kay et al. 2013"}


def literature_line(area: str, source: str) -> tuple[float, float] | None:
    """Return slope and intercept of an area in the literature, or None where it has none.

    Parameters
    ----------
    area : str
        Upper and lower case do not matter, "V4" is "hV4", and halves such as "V2d" or "V1v"
        belong to their area.
    source : {"wandell2015", "kay2013"}
        See :data:`LITERATURE_SIZES`.
    """
    check_choice("source", source, LITERATURE_SIZES)
    name = area.casefold()
    if name in {f"v{number}{half}" for number in (1, 2, 3) for half in "vd"}:
        name = name[:-1]
    name = "hv4" if name == "v4" else name
    lines = {known.casefold(): line for known, line in LITERATURE_SIZES[source].items()}
    return lines.get(name)


def size_eccentricity(
    fields: object,
    areas: ArrayLike,
    *,
    literature: str | None = "wandell2015",
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit a line of size against eccentricity to each visual area.

    The vertices of an area go into up to ten bins of equal number by eccentricity, and the
    least-squares line goes through the medians of the bins, each weighted by its number: single
    wild sizes, of which fits of receptive fields have many, do not pull at it.

    Parameters
    ----------
    fields : PRFResult, DataFrame or dict of arrays
        ``x_deg``, ``y_deg`` and ``size_deg``; vertices that are not finite are left out.
    areas : (n_vertices,) array of str
        Name of each vertex's area.
    literature : {"wandell2015", "kay2013"}, optional
        Whose lines to put beside; None for none.
    confidence : float
        Of the intervals, between 0 and 1.
    n_resamples : int
        Bootstrap samples of an area's vertices.
    seed : int
        Of the samples.

    Returns
    -------
    DataFrame
        A row per area in order of appearance: ``area``, ``slope`` (deg per deg), ``intercept``
        (deg), ``slope_low``, ``slope_high``, ``intercept_low``, ``intercept_high`` (percentile
        bootstrap over vertices), ``n_vertices``; with a source also ``literature_slope`` and
        ``literature_intercept``. NaN in areas of fewer than ten vertices or without spread, and
        in areas that the source does not know.

    Raises
    ------
    InputError
        If there is not one name per vertex, or an option makes no sense.

    Notes
    -----
    Neighbouring vertices share their noise, so the intervals are narrower than those between
    repeated sessions would be. Errors of eccentricity flatten the line.
    """
    import pandas as pd

    if not 0 < confidence < 1:
        raise InputError("confidence", expected="a number between 0 and 1", got=f"{confidence!r}")
    check_count("n_resamples", n_resamples)
    eccentricity, size, areas = _usable(fields, areas)
    rows = []
    for area in dict.fromkeys(areas.tolist()):
        chosen = (areas == area) & np.isfinite(size)
        row = {"area": area} | _interval(
            eccentricity[chosen], size[chosen], confidence, n_resamples, seed
        )
        if literature is not None:
            known = literature_line(str(area), literature) or (math.nan, math.nan)
            row |= {"literature_slope": known[0], "literature_intercept": known[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def plot_size_eccentricity(
    fields: object,
    *,
    areas: ArrayLike | None = None,
    literature: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot size against eccentricity, with a straight line per visual area.

    Parameters
    ----------
    fields : PRFResult, DataFrame or dict of arrays
        ``x_deg``, ``y_deg`` and ``size_deg``; vertices that are not finite are not drawn.
    areas : (n_vertices,) array of str, optional
        Name of each vertex's area; each gets a colour and the line of
        :func:`size_eccentricity`, given in the legend.
    literature : {"wandell2015", "kay2013"}, optional
        Whose lines to draw too, dashed, in the colours of the areas that they know.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    if literature is not None:
        check_choice("literature", literature, LITERATURE_SIZES)
    n_vertices = read_fields(fields).shape[1]
    areas = np.full(n_vertices, "all vertices") if areas is None else areas
    eccentricity, size, areas = _usable(fields, areas)
    ax = plt.figure(layout="constrained").add_subplot() if ax is None else ax
    drawn = False
    for i, area in enumerate(dict.fromkeys(areas.tolist())):
        chosen = (areas == area) & np.isfinite(size)
        colour = _PALETTE[i % len(_PALETTE)]
        label = f"{area} (n = {chosen.sum()})"
        points = ax.scatter(
            eccentricity[chosen], size[chosen], s=8, alpha=0.4, linewidths=0, color=colour
        )
        slope, intercept = _line(eccentricity[chosen][None], size[chosen][None])[:, 0]
        if np.isfinite(slope):
            ends = np.array([eccentricity[chosen].min(), eccentricity[chosen].max()])
            label += f": {slope:.2f} ecc {intercept:+.2f}"
            ax.plot(ends, slope * ends + intercept, color=colour, label=label)
        else:
            points.set_label(label)
        known = literature_line(str(area), literature) if literature and chosen.any() else None
        if known:
            ends = np.array([0, eccentricity[chosen].max()])
            ax.plot(
                ends, known[0] * ends + known[1], color=colour, linestyle=_DASHES[literature],
                linewidth=1.2,
            )  # fmt: skip
            drawn = True
    ax.set(xlabel="eccentricity (deg)", ylabel="size (deg, 1 SD)", xlim=(0, None), ylim=(0, None))
    handles, _ = ax.get_legend_handles_labels()
    if drawn:
        label = _CITATIONS[literature]
        handles.append(Line2D([], [], color="0.3", linestyle=_DASHES[literature], label=label))
    ax.legend(handles=handles, frameon=False, fontsize="small")
    return ax


def _usable(fields: object, areas: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return eccentricity, size (NaN where either is not finite) and area of each vertex."""
    x, y, size = read_fields(fields)
    eccentricity = to_polar(x, y)[0]
    finite = np.isfinite(eccentricity) & np.isfinite(size)
    return eccentricity, np.where(finite, size, np.nan), area_names(areas, len(x))


def _interval(
    eccentricity: np.ndarray, size: np.ndarray, confidence: float, n_resamples: int, seed: int
) -> dict[str, float | int]:
    slope, intercept = _line(eccentricity[None], size[None])[:, 0]
    result = {"slope": float(slope), "intercept": float(intercept)}
    tails = (np.array([-1, 1]) * confidence + 1) / 2
    limits = np.full((2, 2), np.nan)
    if np.isfinite(slope):
        generator = np.random.default_rng(seed)
        picks = generator.integers(len(size), size=(n_resamples, len(size)))
        lines = _line(eccentricity[picks], size[picks])
        limits = np.nanquantile(lines, tails, axis=1).T
    for name, (low, high) in zip(("slope", "intercept"), limits.tolist(), strict=True):
        result |= {f"{name}_low": low, f"{name}_high": high}
    return result | {"n_vertices": len(size)}


def _line(eccentricity: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return slope and intercept (2, n_samples) of lines through medians of bins.

    Samples are the rows of both arrays (n_samples, n_vertices).
    """
    n_samples, n_vertices = size.shape
    if n_vertices < _FEWEST:
        return np.full((2, n_samples), np.nan)
    order = np.argsort(eccentricity, axis=1, kind="stable")
    eccentricity = np.take_along_axis(eccentricity, order, axis=1)
    size = np.take_along_axis(size, order, axis=1)
    n_bins = min(n_vertices // _PER_BIN, _MOST_BINS)
    edges = np.linspace(0, n_vertices, n_bins + 1).round().astype(int)
    bins = list(pairwise(edges))
    x = np.stack([np.median(eccentricity[:, a:b], axis=1) for a, b in bins])
    y = np.stack([np.median(size[:, a:b], axis=1) for a, b in bins])
    weights = (np.diff(edges) / n_vertices)[:, None]
    x_mean, y_mean = (weights * x).sum(0), (weights * y).sum(0)
    squares = (weights * (x - x_mean) ** 2).sum(0)
    # Rounding leaves a little spread where there is none.
    squares = np.where(squares > 1e-12 * np.maximum(x_mean**2, 1e-300), squares, np.nan)
    slope = (weights * (x - x_mean) * (y - y_mean)).sum(0) / squares
    return np.stack([slope, y_mean - slope * x_mean])
