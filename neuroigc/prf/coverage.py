"""Which part of the visual field the receptive fields of an area cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuroigc._validation import InputError, check_choice, check_count
from neuroigc.prf._fields import read_fields
from neuroigc.prf.gaussian import as_extent, pixel_centres

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_visual_field_coverage", "visual_field_coverage"]

_LABELS = {
    "max": "coverage (highest Gaussian)",
    "mean": "coverage (mean of Gaussians)",
    "sum": "coverage (sum of Gaussians)",
}
_VERTICES_AT_ONCE = 128


def visual_field_coverage(
    fields: object,
    groups: Mapping[str, ArrayLike],
    *,
    extent_deg: float | tuple[float, float],
    n_pixels: int = 101,
    method: str = "max",
) -> np.ndarray:
    """Lay the receptive fields of each area over one another in the visual field.

    Each vertex is a Gaussian of height 1 at its centre, whatever its amplitude.

    Parameters
    ----------
    fields : PRFResult, DataFrame or dict of arrays
        ``x_deg``, ``y_deg`` and ``size_deg``. Vertices that are not finite or have no positive
        size are left out.
    groups : dict of str to int or bool array
        Vertices of each area, as indices or as a mask, such as
        :meth:`neuroigc.surface.Atlas.groups` returns; areas may overlap.
    extent_deg : float or (float, float)
        Width and height of the part of the visual field, centred on fixation.
    n_pixels : int
        Rows and columns of a map; values are those at the centres of the pixels.
    method : {"max", "mean", "sum"}
        "max" asks whether any vertex sees a place, and does not depend on how many there are;
        "mean" and "sum" ask how many do.

    Returns
    -------
    (n_areas, n_pixels, n_pixels) array
        In the order of ``groups``, row 0 at the top; NaN for an area without any vertex.

    Raises
    ------
    InputError
        If a group is no selection of the vertices, or an option makes no sense.

    References
    ----------
    .. [1] Amano, Wandell & Dumoulin 2009, Visual field maps, population receptive field sizes,
       and visual field coverage in the human MT+ complex, J Neurophysiol 102:2704.
    """
    check_choice("method", method, _LABELS)
    check_count("n_pixels", n_pixels, 2)
    x_deg, y_deg = pixel_centres(n_pixels, n_pixels, extent_deg)
    circles = read_fields(fields)
    maps = np.full((len(groups), n_pixels, n_pixels), np.nan)
    for i, members in enumerate(_members(groups, circles).values()):
        if len(members):
            x, y, size = circles[:, members, None]
            columns = np.exp(-(((x_deg - x) / size) ** 2) / 2)
            rows = np.exp(-(((y_deg - y) / size) ** 2) / 2)
            maps[i] = _combine(rows, columns, method)
    return maps


def plot_visual_field_coverage(
    fields: object,
    groups: Mapping[str, ArrayLike],
    *,
    extent_deg: float | tuple[float, float],
    field_radius_deg: float | None = None,
    n_pixels: int = 101,
    method: str = "max",
    n_columns: int = 4,
) -> Figure:
    """Plot the coverage of each area, with a line at half of it and the centres as dots.

    Parameters
    ----------
    fields, groups, extent_deg, n_pixels, method
        As in :func:`visual_field_coverage`.
    field_radius_deg : float, optional
        Radius of the circle, dashed, that marks the stimulated field. Default: the largest
        that fits into ``extent_deg``.
    n_columns : int
        Panels in a row.

    Returns
    -------
    matplotlib Figure
        One panel per area, all in one scale. The line is at half height for "max", at half of
        the area's own highest value otherwise.

    Raises
    ------
    InputError
        As :func:`visual_field_coverage`; also if there is no area.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    maps = visual_field_coverage(
        fields, groups, extent_deg=extent_deg, n_pixels=n_pixels, method=method
    )
    if not len(maps):
        raise InputError("groups", expected="at least one area", got="none")
    check_count("n_columns", n_columns)
    width, height = as_extent(extent_deg)
    radius = min(width, height) / 2 if field_radius_deg is None else field_radius_deg
    if not 0 < radius < np.inf:
        raise InputError("field_radius_deg", expected="a positive number", got=repr(radius))
    circles = read_fields(fields)
    members = _members(groups, circles)
    x_deg, y_deg = pixel_centres(n_pixels, n_pixels, (width, height))
    frame = (-width / 2, width / 2, -height / 2, height / 2)
    ticks = [_ticks(width / 2), _ticks(height / 2)]
    # Lines are seen on dark and on bright colours alike.
    halo = [withStroke(linewidth=2.2, foreground="black")]
    top = 1.0 if method == "max" else np.nanmax(maps, initial=0) or 1.0

    n_columns = min(n_columns, len(maps))
    n_rows = -(-len(maps) // n_columns)
    # Panels of 1.6 inches: four fill the two columns of a journal.
    figure = plt.figure(
        figsize=(1.6 * n_columns + 0.9, 1.75 * n_rows * height / width + 0.4), layout="constrained"
    )
    axes = []
    for i, (name, chosen) in enumerate(members.items()):
        ax = figure.add_subplot(n_rows, n_columns, i + 1)
        axes.append(ax)
        image = ax.imshow(
            maps[i], cmap="viridis", vmin=0, vmax=top, extent=frame, origin="upper",
            interpolation="nearest",
        )  # fmt: skip
        half = 0.5 if method == "max" else np.nanmax(maps[i], initial=0) / 2
        if len(chosen) and maps[i].min() < half < maps[i].max():
            line = ax.contour(x_deg, y_deg, maps[i], levels=[half], colors="white", linewidths=1.2)
            line.set_path_effects(halo)
        ax.scatter(
            *circles[:2, chosen], s=5, facecolor="white", edgecolor="black", linewidths=0.4,
            zorder=3,
            # More points than this make a vector drawing slow to show.
            rasterized=len(chosen) > 2000,
        )  # fmt: skip
        ax.add_patch(
            Circle(
                (0, 0), radius, fill=False, color="white", linestyle=(0, (3, 2)), linewidth=1.0,
                path_effects=halo,
            )
        )  # fmt: skip
        ax.axhline(0, color="white", linewidth=0.4, alpha=0.6)
        ax.axvline(0, color="white", linewidth=0.4, alpha=0.6)
        ax.set(xlim=frame[:2], ylim=frame[2:], xticks=ticks[0], yticks=ticks[1])
        ax.set_title(f"{name} (n = {len(chosen)})", fontsize="small")
        ax.tick_params(labelsize="small")
        # Labels where no panel follows below, or none is to the left.
        if i + n_columns < len(maps):
            ax.set(xticklabels=[])
        else:
            ax.set_xlabel("x (deg)", fontsize="small")
        if i % n_columns:
            ax.set(yticklabels=[])
        else:
            ax.set_ylabel("y (deg)", fontsize="small")
    bar = figure.colorbar(image, ax=axes, shrink=0.8 if n_rows == 1 else 0.5, aspect=15, pad=0.02)
    bar.set_label(_LABELS[method], fontsize="small")
    bar.ax.tick_params(labelsize="small")
    return figure


def _ticks(end: float) -> list[float]:
    """Return round numbers on both sides of 0, up to an end."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(5, steps=(1, 2, 5, 10)).tick_values(-end, end)
    return [float(value) for value in values if abs(value) <= end]


def _combine(rows: np.ndarray, columns: np.ndarray, method: str) -> np.ndarray:
    """Return a map from the vertical and horizontal parts (n_vertices, n) of its Gaussians."""
    if method != "max":
        total = rows.T @ columns
        return total / len(rows) if method == "mean" else total
    highest = np.zeros((rows.shape[1], columns.shape[1]))
    # A bounded number at once: whole cortices have tens of thousands of vertices.
    for start in range(0, len(rows), _VERTICES_AT_ONCE):
        part = slice(start, start + _VERTICES_AT_ONCE)
        np.maximum(highest, (rows[part, :, None] * columns[part, None, :]).max(axis=0), out=highest)
    return highest


def _members(groups: Mapping[str, ArrayLike], circles: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of each group's vertices that have a receptive field."""
    if not isinstance(groups, Mapping):
        raise InputError(
            "groups", expected="a dict of area to vertices", got=f"a {type(groups).__name__}"
        )
    n_vertices = circles.shape[1]
    usable = np.isfinite(circles).all(axis=0) & (circles[2] > 0)
    members = {}
    for name, selection in groups.items():
        chosen = np.asarray(selection)
        if chosen.dtype == bool and chosen.shape == (n_vertices,):
            chosen = np.flatnonzero(chosen)
        elif chosen.size == 0:
            chosen = np.zeros(0, dtype=int)
        elif not (
            np.issubdtype(chosen.dtype, np.integer)
            and chosen.ndim == 1
            and chosen.min() >= 0
            and chosen.max() < n_vertices
        ):
            raise InputError(
                f"groups[{name!r}]",
                expected=f"indices from 0 to {n_vertices - 1}, or a mask of {n_vertices} vertices",
                got=f"{chosen.dtype} values of shape {chosen.shape}",
                fix="Indices are those of the rows of fields, not of the surface.",
            )
        members[name] = chosen[usable[chosen]]
    return members
