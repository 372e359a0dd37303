"""Pictures of receptive fields: maps with circles, comparisons, colour wheels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError
from neuroigc.prf._fields import read_fields
from neuroigc.prf.gaussian import as_extent
from neuroigc.prf.result import PRFResult
from neuroigc.prf.retinotopy import to_polar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

__all__ = [
    "angle_colormap",
    "plot_angle_wheel",
    "plot_prf_comparison",
    "plot_prf_gallery",
    "plot_prf_map",
]

_ESTIMATE = {"linestyle": "-", "linewidth": 1.5, "label": "estimate (1 SD)"}
_REFERENCE = {"linestyle": ":", "linewidth": 1.5, "label": "reference (1 SD)"}


def plot_prf_map(
    prf_map: ArrayLike,
    *,
    extent_deg: float | tuple[float, float],
    estimate: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot one map with the circles of its receptive field, as in Figure 4 of the IGC paper.

    Parameters
    ----------
    prf_map : (n_rows, n_columns) array
        Row 0 is drawn at the top.
    extent_deg : float or (float, float)
        Width and height in degrees of visual angle.
    estimate : (x_deg, y_deg, size_deg), optional
        Drawn as a solid circle of radius 1 SD.
    reference : (x_deg, y_deg, size_deg), optional
        From elsewhere, say a retinotopy scan: drawn dotted.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        In degrees, with a colour bar that is symmetric around zero.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle

    prf_map = np.asarray(prf_map, dtype=float)
    if prf_map.ndim != 2:
        raise InputError("prf_map", expected="a map (n_rows, n_columns)", got=f"{prf_map.shape}")
    width, height = as_extent(extent_deg)
    ax = plt.figure(layout="constrained").add_subplot() if ax is None else ax
    finite = np.abs(prf_map[np.isfinite(prf_map)])
    limit = finite.max() if finite.size and finite.max() > 0 else 1.0
    image = ax.imshow(
        prf_map,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        extent=(-width / 2, width / 2, -height / 2, height / 2),
        origin="upper",
        interpolation="nearest",
    )
    ax.axhline(0, color="0.6", linewidth=0.5)
    ax.axvline(0, color="0.6", linewidth=0.5)
    for field, style in ((estimate, _ESTIMATE), (reference, _REFERENCE)):
        if field is not None and np.isfinite(field).all():
            x, y, size = field
            ax.add_patch(Circle((x, y), size, fill=False, **style))
    ax.set(xlabel="x (deg)", ylabel="y (deg)")
    # Circles may reach beyond the picture, which sets the frame.
    ax.set(xlim=(-width / 2, width / 2), ylim=(-height / 2, height / 2))
    # As high as the picture, whatever its shape.
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, 0.05, 1)), ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"{-limit:.2g}", "0", f"{limit:.2g}"])
    return ax


def plot_prf_gallery(
    maps: ArrayLike,
    *,
    extent_deg: float | tuple[float, float],
    estimates: PRFResult | None = None,
    references: object | None = None,
    titles: Sequence[str] | None = None,
    n_columns: int = 4,
) -> Figure:
    """Plot several maps side by side, each with its own colour bar.

    Parameters
    ----------
    maps : (n, n_rows, n_columns) array
        A few maps; legible up to about twenty.
    extent_deg : float or (float, float)
        Width and height in degrees of visual angle.
    estimates, references : PRFResult, DataFrame or dict of arrays, optional
        ``x_deg``, ``y_deg``, ``size_deg`` per map: solid and dotted circles of radius 1 SD.
    titles : sequence of str, optional
        One per map.
    n_columns : int
        Maps per row.

    Returns
    -------
    matplotlib Figure
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    maps = np.asarray(maps)
    if maps.ndim != 3 or len(maps) == 0:
        raise InputError("maps", expected="maps (n, n_rows, n_columns)", got=f"{maps.shape}")
    circles = [_circles(fields, len(maps)) for fields in (estimates, references)]
    if titles is not None and len(titles) != len(maps):
        raise InputError(
            "titles", expected=f"one per map, {len(maps)}", got=f"{len(titles)} titles"
        )
    n_columns = min(n_columns, len(maps))
    n_rows = -(-len(maps) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        squeeze=False,
        figsize=(3.2 * n_columns, 2.9 * n_rows),
        layout="constrained",
    )
    for i, ax in enumerate(axes.flat):
        if i >= len(maps):
            ax.set_axis_off()
            continue
        estimate, reference = (None if c is None else c[i] for c in circles)
        plot_prf_map(maps[i], extent_deg=extent_deg, estimate=estimate, reference=reference, ax=ax)
        ax.set_title("" if titles is None else titles[i], fontsize="medium")
        # Labels where no map follows below, or none is to the left.
        if i + n_columns < len(maps):
            ax.set(xlabel="", xticklabels=[])
        if i % n_columns:
            ax.set(ylabel="", yticklabels=[])
    styles = [
        style
        for fields, style in zip(circles, (_ESTIMATE, _REFERENCE), strict=True)
        if fields is not None
    ]
    if styles:
        handles = [Line2D([], [], color="black", **style) for style in styles]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_prf_comparison(
    estimate: object,
    reference: object,
    *,
    where: ArrayLike | None = None,
    labels: tuple[str, str] = ("estimate", "reference"),
) -> Figure:
    """Plot x, y, eccentricity and size of one set of fits against another.

    Parameters
    ----------
    estimate, reference : PRFResult, DataFrame or dict of arrays
        ``x_deg``, ``y_deg`` and ``size_deg`` of the same vertices.
    where : (n_vertices,) array of bool, optional
        The vertices to draw; those that are not finite are left out, and n says how many are in.
    labels : (str, str)
        Names of the two on the axes.

    Returns
    -------
    matplotlib Figure
    """
    import matplotlib.pyplot as plt

    ours, theirs = _circles(estimate, None), _circles(reference, None)
    if ours.shape != theirs.shape:
        raise InputError(
            "estimate and reference",
            expected="the same vertices",
            got=f"{len(ours)} and {len(theirs)}",
        )
    used = np.isfinite(ours).all(1) & np.isfinite(theirs).all(1)
    if where is not None:
        used &= np.asarray(where, dtype=bool)
    quantities = [
        ("x", ours[:, 0], theirs[:, 0]),
        ("y", ours[:, 1], theirs[:, 1]),
        ("eccentricity", np.hypot(*ours[:, :2].T), np.hypot(*theirs[:, :2].T)),
        ("size", ours[:, 2], theirs[:, 2]),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
    for ax, (name, mine, other) in zip(axes, quantities, strict=True):
        ax.scatter(other[used], mine[used], s=8, alpha=0.4, linewidths=0)
        ax.axline((0, 0), slope=1, color="0.5", linewidth=0.8)
        ax.set(xlabel=f"{name}, {labels[1]} (deg)", ylabel=f"{name}, {labels[0]} (deg)")
        if used.sum() > 2:
            r = np.corrcoef(mine[used], other[used])[0, 1]
            ax.set_title(f"r = {r:.3f}, n = {used.sum()}", fontsize="medium")
    return figure


def angle_colormap() -> ListedColormap:
    """Return the cyclic colours of polar angle: right red, up yellow, left light, down dark blue.

    Left and right differ in lightness, too, so that the colour-blind tell the hemifields apart.
    """
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    corners = ["#b2182b", "#fdd049", "#5ab8c4", "#313695", "#b2182b"]
    cycle = LinearSegmentedColormap.from_list("polar angle", corners)
    # The last colour would repeat the first.
    return ListedColormap(cycle(np.linspace(0, 1, 361)[:-1]), name="polar angle")


def plot_angle_wheel(*, ax: Axes | None = None) -> Axes:
    """Plot the legend of :func:`angle_colormap`: the directions, named and in their colours."""
    import matplotlib.pyplot as plt

    ax = plt.figure(figsize=(2, 2), layout="constrained").add_subplot() if ax is None else ax
    x, y = np.meshgrid(np.linspace(-1, 1, 301), np.linspace(1, -1, 301))
    eccentricity, angle = to_polar(x, y)
    angle = np.ma.masked_where(~((eccentricity > 0.15) & (eccentricity < 1)), angle)
    ax.imshow(angle, cmap=angle_colormap(), vmin=0, vmax=360, extent=(-1, 1, -1, 1))
    for x, y, name in ((0, 1, "up"), (0, -1, "down"), (-1, 0, "left"), (1, 0, "right")):
        ax.annotate(
            name, (x, y), (3 * x, 3 * y), textcoords="offset points", fontsize="x-small",
            ha=("right", "center", "left")[x + 1], va=("top", "center", "bottom")[y + 1],
        )  # fmt: skip
    ax.set_axis_off()
    return ax


def _circles(fields: object | None, n_maps: int | None) -> np.ndarray | None:
    """Return (n, 3): x, y, size."""
    if fields is None:
        return None
    circles = read_fields(fields).T
    if n_maps is not None and len(circles) != n_maps:
        raise InputError(
            "estimates and references",
            expected=f"one field per map, {n_maps}",
            got=f"{len(circles)}",
        )
    return circles
